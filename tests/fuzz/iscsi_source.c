/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iscsi_source.c - addresses of LUNs, and what a hostile target answers
 *
 * The first byte chooses what the rest is: an address, or one of the answers.
 * Whatever is accepted must be what its users rely on.
 */
#include <assert.h>
#include <stdio.h>

#include "source/iscsi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void address(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct iscsi_address a;

	assert(text);
	memcpy(text, data, size);
	text[size] = '\0';
	if (iscsi_address_split(&a, text, NULL) == 0) {
		char *shown = strdup(text);

		assert(a.host[0] && a.port[0] && strlen(a.target) <= 223 && a.lun <= 16383);
		assert(a.limit_s >= 1 && !strchr(a.target, '/'));
		assert(!a.secret || a.user);
		/* both ways of leaving the secret out agree */
		vdisk_redact(shown);
		assert(!strcmp(shown, a.name));
		free(shown);
		iscsi_address_clear(&a);
	} else {
		vdisk_redact(text);
	}
	free(text);
}

static void capacity(const uint8_t *p, size_t len)
{
	struct iscsi_capacity c;
	uint64_t bytes;

	if (iscsi_decode_capacity(&c, p, len) < 0)
		return;
	assert(c.block_size >= 512 && c.block_size <= 4096 && vd_is_pow2(c.block_size));
	assert(c.blocks && vd_mul(c.blocks, c.block_size, &bytes) && bytes <= INT64_MAX);
}

static void status(const uint8_t *p, size_t len)
{
	uint64_t block = 0, max, n;
	bool mapped;

	if (len >= 8) {
		block = load_be64(p) >> 9;
		p += 8;
		len -= 8;
	}
	max = UINT64_MAX - block;
	if (iscsi_decode_status(&mapped, &n, block, max, p, len) == 0)
		assert(n > 0 && n <= max);
}

/* The answers to a login: nobody is believed before three of them. */
static void login(const uint8_t *p, size_t len)
{
	enum iscsi_proof step = ISCSI_PROOF_METHOD;
	unsigned n = 0;

	for (; len >= ISCSI_BHS && iscsi_pdu_length(p) <= len; n++) {
		size_t one = iscsi_pdu_length(p);

		if (iscsi_proof_step(&step, p, one) < 0)
			return;
		p += one;
		len -= one;
	}
	assert(step != ISCSI_PROOF_DONE || n >= 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct iscsi_provisioning provisioning;
	struct iscsi_limits limits;
	struct iscsi_mode mode;
	struct iscsi_sense sense;
	char product[26];
	bool there, no_data;
	uint8_t *p;

	if (!size)
		return 0;
	/* of its own length, so that the sanitizer sees each byte too far */
	p = malloc(size - 1);
	assert(p || size == 1);
	if (size > 1)
		memcpy(p, data + 1, size - 1);
	switch (data[0] % 10) {
	case 0: address(p, size - 1); break;
	case 1: capacity(p, size - 1); break;
	case 2: status(p, size - 1); break;
	case 3: (void)iscsi_decode_limits(&limits, p, size - 1); break;
	case 4: (void)iscsi_decode_provisioning(&provisioning, p, size - 1); break;
	case 5: (void)iscsi_decode_identity(p, size - 1); break;
	case 6: (void)iscsi_decode_mode(&mode, p, size - 1);
		iscsi_decode_write_same(&there, &no_data, p, size - 1);
		break;
	case 7: if (iscsi_decode_inquiry(product, p, size - 1) == 0)
			assert(strlen(product) < sizeof(product));
		break;
	case 8: if (iscsi_decode_sense(&sense, p, size - 1)) {
			struct iscsi_verdict v = iscsi_judge(2, &sense);

			assert(sense.key < 16 && (v.again || v.result <= 0));
		}
		break;
	case 9: login(p, size - 1); break;
	}
	free(p);
	return 0;
}
