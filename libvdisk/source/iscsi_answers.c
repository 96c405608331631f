/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iscsi_answers.c - what a target says, from bytes to checked values
 *
 * Pure functions.  The target is not trusted: what is too short is refused or
 * taken as not said, and numbers are bounded where they are used to compute.
 */
#include <errno.h>

#include "source/iscsi.h"

#define VPD_HEADER	4u

/* ---- sense ---- */

bool iscsi_decode_sense(struct iscsi_sense *out, const uint8_t *p, size_t len)
{
	uint8_t format = len ? p[0] & 0x7f : 0;

	if ((format == 0x72 || format == 0x73) && len >= 4) {	/* descriptors */
		*out = (struct iscsi_sense) { .key = p[1] & 0x0f, .code = load_be16(p + 2) };
		return true;
	}
	if ((format == 0x70 || format == 0x71) && len >= 3) {	/* fixed */
		*out = (struct iscsi_sense) { .key = p[2] & 0x0f };
		if (len >= 14)
			out->code = load_be16(p + 12);
		return true;
	}
	return false;
}

enum {	/* SAM-5, 5.3.1 */
	GOOD = 0, CHECK_CONDITION = 2, CONDITION_MET = 4, BUSY = 8, RESERVATION_CONFLICT = 0x18,
	TASK_SET_FULL = 0x28, ACA_ACTIVE = 0x30, TASK_ABORTED = 0x40,
};

enum {	/* SPC-4, 4.5.6 */
	RECOVERED_ERROR = 1, NOT_READY, MEDIUM_ERROR, HARDWARE_ERROR, ILLEGAL_REQUEST,
	UNIT_ATTENTION, DATA_PROTECT, BLANK_CHECK, ABORTED_COMMAND = 0xb, VOLUME_OVERFLOW = 0xd,
	MISCOMPARE = 0xe,
};

#define RETRY_MS	50u
#define BUSY_MS		20u
#define NOT_READY_MS	500u

static int illegal_request(uint16_t code)
{
	switch (code) {
	case 0x2000:	/* invalid command operation code */
		return -EOPNOTSUPP;
	case 0x2100:	/* logical block address out of range */
		return -EINVAL;
	case 0x2500:	/* logical unit not supported */
		return -ENXIO;
	}
	return -EINVAL;
}

static struct iscsi_verdict judge_sense(const struct iscsi_sense *s)
{
	struct iscsi_verdict v = { .result = -EIO };

	switch (s->key) {
	case 0:
	case RECOVERED_ERROR:
		v.result = 0;
		break;
	case NOT_READY:
		if (s->code >> 8 == 0x3a) {	/* no medium */
			v.result = -ENOMEDIUM;
			break;
		}
		/* becoming ready, a path in transition, formatting ... */
		v.again = s->code >> 8 == 0x04;
		v.patient = s->code == 0x0401 || s->code == 0x040a;
		v.delay_ms = NOT_READY_MS;
		break;
	case ILLEGAL_REQUEST:
		v.result = illegal_request(s->code);
		break;
	case UNIT_ATTENTION:
		v.attention = s->code ? s->code : 0x2900;
		v.again = true;
		/* space is short, the command itself was not done: 38/07 comes again */
		break;
	case DATA_PROTECT:
		v.result = s->code == 0x2707 ? -ENOSPC : -EROFS;
		break;
	case ABORTED_COMMAND:
		v.again = true;
		v.delay_ms = RETRY_MS;
		break;
	case VOLUME_OVERFLOW:
		v.result = -ENOSPC;
		break;
	case MISCOMPARE:
		v.result = -EILSEQ;
		break;
	}
	return v;
}

struct iscsi_verdict iscsi_judge(unsigned status, const struct iscsi_sense *sense)
{
	struct iscsi_verdict v = { .result = -EIO };

	switch (status) {
	case GOOD:
	case CONDITION_MET:
		v.result = 0;
		return v;
	case CHECK_CONDITION:
		return sense ? judge_sense(sense) : v;
	case BUSY:
	case TASK_SET_FULL:
	case ACA_ACTIVE:
		v.again = v.patient = true;
		v.delay_ms = BUSY_MS;
		return v;
	case TASK_ABORTED:
		v.again = true;
		v.delay_ms = RETRY_MS;
		return v;
	case RESERVATION_CONFLICT:
		v.result = -EBUSY;
		return v;
	}
	return v;
}

/* ---- what a LUN is ---- */

int iscsi_decode_inquiry(char product[26], const uint8_t *p, size_t len)
{
	unsigned n = 0;

	if (len < 5)
		return -EINVAL;
	if (p[0] >> 5)	/* peripheral qualifier: nothing is there */
		return -ENXIO;
	if ((p[0] & 0x1f) != 0x00 && (p[0] & 0x1f) != 0x07 && (p[0] & 0x1f) != 0x05 &&
	    (p[0] & 0x1f) != 0x14)	/* disks, optical ones, zoned ones by the host */
		return -EMEDIUMTYPE;
	for (unsigned i = 8; i < 32 && i < len; i++) {
		if (i == 16 && n && product[n - 1] != ' ')
			product[n++] = ' ';
		if (p[i] > ' ' && p[i] < 0x7f)
			product[n++] = (char)p[i];
		else if (n && product[n - 1] != ' ')
			product[n++] = ' ';
	}
	while (n && product[n - 1] == ' ')
		n--;
	product[n] = '\0';
	return 0;
}

int iscsi_decode_capacity(struct iscsi_capacity *out, const uint8_t *p, size_t len)
{
	struct iscsi_capacity c = { 0 };
	uint64_t last, bytes;

	if (len < 12)
		return -EINVAL;
	last = load_be64(p);
	c.block_size = load_be32(p + 8);
	if (!vd_is_pow2(c.block_size) || c.block_size < 512 || c.block_size > 4096)
		return -EMEDIUMTYPE;
	if (!vd_add(last, 1, &c.blocks) || !vd_mul(c.blocks, c.block_size, &bytes) ||
	    bytes > INT64_MAX)
		return -EINVAL;
	if (len >= 15) {
		c.provisioned = p[14] & 0x80;
		c.zeroed = p[14] & 0x40;
	}
	*out = c;
	return 0;
}

int iscsi_decode_mode(struct iscsi_mode *out, const uint8_t *p, size_t len)
{
	if (len < 8)
		return -EINVAL;
	*out = (struct iscsi_mode) { .write_protected = p[3] & 0x80, .fua = p[3] & 0x10 };
	return 0;
}

/* ---- vital product data ---- */

/* The page's own length, as far as it has come; 0: it is another page. */
static size_t vpd_length(const uint8_t *p, size_t len, uint8_t page)
{
	if (len < VPD_HEADER || p[1] != page)
		return 0;
	return MIN(len, VPD_HEADER + (size_t)load_be16(p + 2));
}

int iscsi_decode_limits(struct iscsi_limits *out, const uint8_t *p, size_t len)
{
	struct iscsi_limits l = { 0 };

	len = vpd_length(p, len, 0xb0);
	if (len < 12)
		return -EINVAL;
	l.no_whole_write_same = p[4] & 1;
	l.max_transfer = load_be32(p + 8);
	if (len >= 36) {
		l.max_unmap = load_be32(p + 20);
		l.max_unmap_ranges = load_be32(p + 24);
		l.granularity = load_be32(p + 28);
		l.has_alignment = p[32] & 0x80;
		l.alignment = load_be32(p + 32) & 0x7fffffff;
	}
	if (len >= 44)
		l.max_write_same = load_be64(p + 36);
	*out = l;
	return 0;
}

int iscsi_decode_provisioning(struct iscsi_provisioning *out, const uint8_t *p, size_t len)
{
	len = vpd_length(p, len, 0xb2);
	if (len < 6)
		return -EINVAL;
	*out = (struct iscsi_provisioning) { .unmap = p[5] & 0x80, .write_same = p[5] & 0x40 };
	return 0;
}

static uint64_t hash(uint64_t h, const uint8_t *p, size_t len)
{
	while (len-- > 0)
		h = (h ^ *p++) * UINT64_C(0x100000001b3);	/* FNV-1a */
	return h;
}

uint64_t iscsi_decode_identity(const uint8_t *p, size_t len)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	bool any = false;

	len = vpd_length(p, len, 0x83);
	for (size_t at = VPD_HEADER; at + 4 <= len; ) {
		size_t n = p[at + 3];
		unsigned what = p[at + 1] >> 4 & 3, type = p[at + 1] & 0xf;

		if (n > len - at - 4)
			break;
		/* of the logical unit (not of a port): T10 vendor, EUI-64, NAA */
		if (what == 0 && type >= 1 && type <= 3) {
			h = hash(h, p + at + 1, 3 + n);
			any = true;
		}
		at += 4 + n;
	}
	return any ? h | 1 : 0;
}

/* ---- commands ---- */

void iscsi_decode_write_same(bool *there, bool *no_data_out, const uint8_t *p, size_t len)
{
	*there = *no_data_out = false;
	/* SUPPORT: 3 as the standard has it, 5 in the vendor's way */
	if (len < 6 || ((p[1] & 7) != 3 && (p[1] & 7) != 5))
		return;
	*there = true;
	/* the usage map of the CDB begins at byte 4: which bits of each byte are looked at */
	*no_data_out = load_be16(p + 2) >= 2 && p[4] == 0x93 && p[5] & 1;
}

int iscsi_decode_status(bool *mapped, uint64_t *blocks, uint64_t block, uint64_t max,
			const uint8_t *p, size_t len)
{
	bool known = false;

	if (len < 8 + 16)
		return -EINVAL;
	len = MIN(len, (size_t)load_be32(p) + 4);
	*blocks = 0;
	for (size_t at = 8; at + 16 <= len && *blocks < max; at += 16) {
		uint64_t start = load_be64(p + at), n = load_be32(p + at + 8), end;
		bool is_mapped = (p[at + 12] & 0xf) == 0 || (p[at + 12] & 0xf) > 2;

		if (!vd_add(start, n, &end) || start > block + *blocks || end <= block + *blocks)
			break;	/* a gap, or not from here on */
		if (known && is_mapped != *mapped)
			break;
		*mapped = is_mapped;
		known = true;
		*blocks = end - block;
	}
	*blocks = MIN(*blocks, max);
	return known ? 0 : -EINVAL;
}

/* ---- the login ---- */

enum { LOGIN_RESPONSE = 0x23, TRANSIT = 0x80, SECURITY_STAGE = 0 };

size_t iscsi_pdu_length(const uint8_t *p)
{
	return ISCSI_BHS + p[4] * 4u + ((load_be24(p + 5) + 3) & ~3u);
}

/* Is @key, with its "=", in a text of keys that each end with a NUL? */
static bool has_key(const uint8_t *text, size_t len, const char *key)
{
	size_t n = strlen(key);

	while (len) {
		size_t item = strnlen((const char *)text, len);

		if (item >= n && !memcmp(text, key, n))
			return true;
		item = MIN(item + 1, len);
		text += item;
		len -= item;
	}
	return false;
}

int iscsi_proof_step(enum iscsi_proof *step, const uint8_t *p, size_t len)
{
	const uint8_t *text;
	bool method, challenge;

	if (len < ISCSI_BHS || iscsi_pdu_length(p) != len)
		return -EACCES;
	/* what ends the login, or sends us elsewhere, proves nothing and needs not to */
	if ((p[0] & 0x3f) != LOGIN_RESPONSE || p[36])
		return 0;
	text = p + ISCSI_BHS + p[4] * 4u;
	len = load_be24(p + 5);
	method = has_key(text, len, "AuthMethod=CHAP");
	challenge = has_key(text, len, "CHAP_A=") && has_key(text, len, "CHAP_I=") &&
		    has_key(text, len, "CHAP_C=");
	if (*step == ISCSI_PROOF_DONE)
		return 0;
	if ((p[1] >> 2 & 3) != SECURITY_STAGE)
		return -EACCES;
	if (*step == ISCSI_PROOF_ANSWER) {
		if (method || challenge)
			return -EACCES;
		/* libiscsi looks at the answer itself where the stage ends */
		if (p[1] & TRANSIT)
			*step = ISCSI_PROOF_DONE;
		return 0;
	}
	if (p[1] & TRANSIT || (method && challenge))
		return -EACCES;
	if (*step == ISCSI_PROOF_METHOD && method)
		*step = ISCSI_PROOF_CHALLENGE;
	else if (*step == ISCSI_PROOF_CHALLENGE && challenge)
		*step = ISCSI_PROOF_ANSWER;
	return 0;
}
