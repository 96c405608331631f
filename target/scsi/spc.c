/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* spc.c - primary commands (SPC-4) */
#include <stdio.h>

#include "target/scsi/op.h"

#define VENDOR		"VDISK   "
#define PRODUCT		"virtual disk    "
#define PRODUCT_CDROM	"virtual CD-ROM   "
#define REVISION	"0.1 "
#define REPLY_MAX	4096u

/* A zeroed reply buffer; NULL if the pool is exhausted. */
static uint8_t *reply_buf(struct scsi_task *t)
{
	if (!scsi_get_buf(t, REPLY_MAX))
		return NULL;
	memset(t->buf, 0, REPLY_MAX);
	return t->buf;
}

enum scsi_step scsi_test_unit_ready(struct scsi_task *t)
{
	return scsi_good(t);
}

/* SPC-4, 6.39: a pending unit attention is reported as data, and so cleared */
enum scsi_step scsi_request_sense(struct scsi_task *t)
{
	struct scsi_sense sense = { .key = SCSI_NO_SENSE };
	uint8_t *p = reply_buf(t);

	if (!p)
		return scsi_no_buf(t);
	if (!t->unit) {
		sense.key = SCSI_ILLEGAL_REQUEST;
		sense.asc = SCSI_ASC_NO_LUN;
	} else {
		if (!scsi_attention_sense(t->nexus, t->unit, &sense) && t->unit->sanitize)
			sense = (struct scsi_sense) {
				.key = SCSI_NOT_READY, .asc = SCSI_ASC_SANITIZE_IN_PROGRESS,
				.has_progress = true,
				.progress = scsi_sanitize_progress(t->unit),
			};
	}
	return scsi_reply(t, scsi_sense_encode(p, &sense, t->cdb[1] & 1), t->cdb[4]);
}

/* ---- INQUIRY (6.6) and its vital product data (7.8) ---- */

/* qualifier and type of device, or "not capable of supporting a device here" */
static uint8_t peripheral(const struct scsi_task *t)
{
	return t->unit ? t->unit->type : 0x7f;
}

static uint32_t standard_inquiry(const struct scsi_task *t, uint8_t *p)
{
	static const uint16_t versions[] = {
		0x00a0,		/* SAM-5 */
		0x0960,		/* iSCSI */
		0x0460,		/* SPC-4 */
		0x04c0,		/* SBC-3 */
	};
	bool cdrom = t->unit && t->unit->type == SCSI_CDROM;

	p[0] = peripheral(t);
	p[1] = t->unit && t->unit->removable ? 0x80 : 0;
	p[2] = 0x06;		/* SPC-4 */
	p[3] = 0x12;		/* HISUP, response data format 2 */
	p[4] = 96 - 5;
	p[5] = cdrom ? 0x30 : 0x38;	/* TPGS: both ways; 3PC */
	p[6] = t->nexus->target->n_ports > 1 ? 0x10 : 0;	/* MULTIP */
	p[7] = 0x02;		/* CMDQUE */
	memcpy(p + 8, VENDOR, 8);
	memcpy(p + 16, cdrom ? PRODUCT_CDROM : PRODUCT, 16);
	memcpy(p + 32, REVISION, 4);
	for (unsigned i = 0; i < ARRAY_SIZE(versions); i++)
		if (!cdrom || versions[i] != 0x04c0)
			store_be16(p + 58 + 2 * i, versions[i]);
	return 96;
}

static uint32_t vpd_serial(const struct scsi_task *t, uint8_t *p)
{
	uint32_t len = (uint32_t)strlen(t->unit->serial);

	memcpy(p, t->unit->serial, len);
	return len;
}

/* One designator: code set, association and type, and its bytes; its length. */
static uint32_t put_designator(uint8_t *p, uint8_t code_set, uint8_t association, uint8_t type,
			       const void *bytes, uint32_t len)
{
	p[0] = (uint8_t)((association ? 0x50 : 0) | code_set);	/* protocol 5: iSCSI */
	p[1] = (uint8_t)((association ? 0x80 : 0) | association << 4 | type);
	p[3] = (uint8_t)len;
	memcpy(p + 4, bytes, len);
	return 4 + len;
}

/* SCSI name strings are padded with NULs to a multiple of four (7.8.6.11). */
static uint32_t put_name(uint8_t *p, uint8_t association, const char *name)
{
	char text[256] = { 0 };
	int n = snprintf(text, sizeof(text) - 4, "%s", name);

	return put_designator(p, 3, association, 8, text, (uint32_t)vd_align_up((uint64_t)n + 1, 4));
}

uint32_t scsi_designators(const struct scsi_unit *u, uint16_t target_port, uint8_t *p)
{
	uint8_t naa[8], number[4] = { 0 };
	char text[256];
	uint32_t n = 0;

	/* locally assigned NAA (type 3): 60 bits of ours */
	store_be64(naa, 3ull << 60 | u->id >> 4);
	n += put_designator(p + n, 1, 0, 3, naa, sizeof(naa));
	snprintf(text, sizeof(text), VENDOR "%s", u->serial);
	n += put_designator(p + n, 2, 0, 1, text, (uint32_t)strlen(text));
	snprintf(text, sizeof(text), "%.223s,L,0x%016llx", u->target->name,
		 (unsigned long long)u->lun << 48);
	n += put_name(p + n, 0, text);
	/* the port that this was asked through, and its group of the same number */
	store_be16(number + 2, target_port);
	n += put_designator(p + n, 1, 1, 4, number, sizeof(number));
	n += put_designator(p + n, 1, 1, 5, number, sizeof(number));
	snprintf(text, sizeof(text), "%.223s,t,0x%04x", u->target->name, target_port);
	n += put_name(p + n, 1, text);
	n += put_name(p + n, 2, u->target->name);
	return n;
}

static uint32_t vpd_designation(const struct scsi_task *t, uint8_t *p)
{
	return scsi_designators(t->unit, t->nexus->target_port, p);
}

/* 7.8.7: which task attributes there are, and that the cache is volatile */
static uint32_t vpd_extended(const struct scsi_task *t, uint8_t *p)
{
	p[1] = 0x04 | 0x02 | 0x01;	/* HEADSUP, ORDSUP, SIMPSUP */
	p[2] = t->unit->read_only ? 0 : 0x01;	/* V_SUP */
	p[9] = SCSI_SENSE_MAX;
	return 0x3c;
}

/* 7.8.10: every mode page is the same for all initiators */
static uint32_t vpd_mode_policy(const struct scsi_task *t UNUSED, uint8_t *p)
{
	p[0] = 0x3f;
	p[1] = 0xff;
	return 4;
}

static uint32_t vpd_block_limits(const struct scsi_task *t, uint8_t *p)
{
	const struct scsi_unit *u = t->unit;
	uint64_t unit = MAX(u->limits.unit, (uint64_t)u->limits.physical_size);
	uint32_t granularity = (uint32_t)MIN(unit >> u->block_shift, (uint64_t)UINT32_MAX);
	uint32_t segment = SCSI_SEGMENT >> u->block_shift;

	p[1] = (uint8_t)scsi_max_compare(u);
	store_be16(p + 2, (uint16_t)MIN(u->limits.physical_size >> u->block_shift, 65535u));
	store_be32(p + 4, (uint32_t)(SCSI_MAX_TRANSFER >> u->block_shift));
	store_be32(p + 8, segment);	/* optimal transfer length */
	if (u->limits.can_discard) {
		store_be32(p + 16, UINT32_MAX);	/* unmap: any number of blocks */
		store_be32(p + 20, SCSI_MAX_UNMAP_DESCRIPTORS);
		store_be32(p + 24, MAX(granularity, 1u));
		p[28] = 0x80;		/* alignment: from block 0 on */
	}
	store_be64(p + 32, SCSI_MAX_WRITE_SAME);
	store_be32(p + 40, SCSI_MAX_ATOMIC >> u->block_shift);	/* any alignment and granularity */
	return 0x3c;
}

static uint32_t vpd_characteristics(const struct scsi_task *t, uint8_t *p)
{
	store_be16(p, 1);	/* non-rotating medium */
	if (t->unit->limits.can_discard && t->unit->target->ops)
		p[3] = 1 << 6;	/* WABEREQ: after BLOCK ERASE blocks read as zeroes */
	return 0x3c;
}

static uint32_t vpd_provisioning(const struct scsi_task *t, uint8_t *p)
{
	if (t->unit->limits.can_discard) {
		p[0] = SCSI_THRESHOLD_SHIFT;
		/* LBPU, LBPWS, LBPWS10, LBPRZ: what is unmapped reads as zeroes */
		p[1] = 0x80 | 0x40 | 0x20 | 0x04;
		p[2] = 2;	/* thin */
	}
	return 4;
}

/* SBC-4, 6.6.7: the one block length that there is, without protection information */
static uint32_t vpd_block_lengths(const struct scsi_task *t, uint8_t *p)
{
	store_be32(p, scsi_block(t->unit));
	p[5] = 0x01;		/* T0PS */
	return 8;
}

static uint32_t vpd_pages(const struct scsi_task *t, uint8_t *p);

static const struct vpd {
	uint8_t page;
	bool disk;		/* of disks only */
	/* write the page from its byte 4 on; its length */
	uint32_t (*put)(const struct scsi_task *t, uint8_t *p);
} vpds[] = {
	{ 0x00, false, vpd_pages },
	{ 0x80, false, vpd_serial },
	{ 0x83, false, vpd_designation },
	{ 0x86, false, vpd_extended },
	{ 0x87, false, vpd_mode_policy },
	{ 0xb0, true, vpd_block_limits },
	{ 0xb1, true, vpd_characteristics },
	{ 0xb2, true, vpd_provisioning },
	{ 0xb4, true, vpd_block_lengths },
};

/* nothing but the list of pages is known of a unit that is not there */
static bool has_vpd(const struct scsi_unit *u, const struct vpd *v)
{
	return v->page == 0 || (u && (!v->disk || u->type == SCSI_DISK));
}

static uint32_t vpd_pages(const struct scsi_task *t, uint8_t *p)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(vpds); i++)
		if (has_vpd(t->unit, &vpds[i]))
			p[n++] = vpds[i].page;
	return n;
}

static enum scsi_step inquiry_vpd(struct scsi_task *t, uint8_t *p, uint32_t alloc)
{
	for (unsigned i = 0; i < ARRAY_SIZE(vpds); i++) {
		uint32_t len;

		if (vpds[i].page != t->cdb[2] || !has_vpd(t->unit, &vpds[i]))
			continue;
		p[0] = peripheral(t);
		p[1] = vpds[i].page;
		len = vpds[i].put(t, p + 4);
		store_be16(p + 2, (uint16_t)len);
		return scsi_reply(t, 4 + len, alloc);
	}
	return scsi_bad_cdb(t, 2, 7);
}

enum scsi_step scsi_inquiry(struct scsi_task *t)
{
	uint32_t alloc = load_be16(t->cdb + 3);
	uint8_t *p = reply_buf(t);

	if (!p)
		return scsi_no_buf(t);
	if (t->cdb[1] & 1)
		return inquiry_vpd(t, p, alloc);
	if (t->cdb[2])
		return scsi_bad_cdb(t, 2, 7);
	return scsi_reply(t, standard_inquiry(t, p), alloc);
}

/* ---- REPORT LUNS (6.33) ---- */

enum scsi_step scsi_report_luns(struct scsi_task *t)
{
	uint32_t alloc = load_be32(t->cdb + 6), n = 8;
	uint8_t select = t->cdb[2];
	uint8_t *p = reply_buf(t);

	if (!p)
		return scsi_no_buf(t);
	if (select > 2)
		return scsi_bad_cdb(t, 2, 7);
	if (alloc < 16)
		return scsi_bad_cdb(t, 6, 7);
	/* 1: well-known units only, of which there are none */
	for (unsigned lun = 0; select != 1 && lun < SCSI_MAX_LUNS; lun++) {
		const struct scsi_unit *u = t->nexus->target->units[lun];

		if (!u || u->leaving || !scsi_view_has(t->nexus->view.visible, lun))
			continue;
		p[n + 1] = (uint8_t)lun;
		n += 8;
	}
	store_be32(p, n - 8);
	return scsi_reply(t, n, alloc);
}

/* ---- what is supported (6.35, 6.36) ---- */

/* The timeouts descriptor (6.35.4): we promise no times. */
static uint32_t put_timeouts(uint8_t *p)
{
	p[1] = 0x0a;
	return 12;
}

static enum scsi_step report_all(struct scsi_task *t, uint8_t *p, uint32_t alloc, bool timeouts)
{
	uint32_t n = 4;

	for (unsigned i = 0; i < scsi_n_ops; i++) {
		const struct scsi_op *op = &scsi_ops[i];
		bool actions = op->service_action != SCSI_NO_SERVICE_ACTION;

		if (!scsi_op_supported(op, t->unit))
			continue;
		p[n] = op->opcode;
		store_be16(p + n + 2, actions ? op->service_action : 0);
		p[n + 5] = (uint8_t)((timeouts ? 2 : 0) | (actions ? 1 : 0));
		store_be16(p + n + 6, (uint16_t)scsi_cdb_len(op->opcode));
		n += 8;
		if (timeouts)
			n += put_timeouts(p + n);
	}
	store_be32(p, n - 4);
	return scsi_reply(t, n, alloc);
}

static enum scsi_step report_one(struct scsi_task *t, uint8_t *p, uint32_t alloc, bool timeouts)
{
	const struct scsi_op *op = scsi_op_find(t->cdb[3], (uint8_t)load_be16(t->cdb + 4));
	uint32_t n = 4, len;

	if (load_be16(t->cdb + 4) > 0x1f && op && op->service_action != SCSI_NO_SERVICE_ACTION)
		op = NULL;
	if (!op || !scsi_op_supported(op, t->unit)) {
		p[1] = 1;	/* not supported */
		return scsi_reply(t, n, alloc);
	}
	len = scsi_cdb_len(op->opcode);
	p[1] = (uint8_t)(3 | (timeouts ? 0x80 : 0));
	store_be16(p + 2, (uint16_t)len);
	memcpy(p + 4, op->usage, len);
	if (op->service_action != SCSI_NO_SERVICE_ACTION)
		p[5] = (uint8_t)((op->usage[1] & ~0x1f) | op->service_action);
	n += len;
	if (timeouts)
		n += put_timeouts(p + n);
	return scsi_reply(t, n, alloc);
}

enum scsi_step scsi_report_opcodes(struct scsi_task *t)
{
	uint32_t alloc = load_be32(t->cdb + 6);
	bool timeouts = t->cdb[2] & 0x80, known, actions;
	uint8_t *p = reply_buf(t);

	if (!p)
		return scsi_no_buf(t);
	known = scsi_opcode_known(t->cdb[3], &actions, t->unit);
	switch (t->cdb[2] & 7) {
	case 0:
		return report_all(t, p, alloc, timeouts);
	case 1:			/* an opcode without service actions */
		if (known && actions)
			return scsi_bad_cdb(t, 2, 2);
		break;
	case 2:			/* one with */
		if (known && !actions)
			return scsi_bad_cdb(t, 2, 2);
		break;
	case 3:
		break;
	default:
		return scsi_bad_cdb(t, 2, 2);
	}
	return report_one(t, p, alloc, timeouts);
}

enum scsi_step scsi_report_tmfs(struct scsi_task *t)
{
	uint32_t alloc = load_be32(t->cdb + 6);
	uint8_t *p = reply_buf(t);

	if (!p)
		return scsi_no_buf(t);
	if (alloc < 4)
		return scsi_bad_cdb(t, 6, 7);
	p[0] = 0x80 | 0x40 | 0x10 | 0x08 | 0x02; /* abort task (set), clear set, LUN, target reset */
	p[3] = t->cdb[2] & 0x80 ? 0x0c : 0;
	return scsi_reply(t, t->cdb[2] & 0x80 ? 16 : 4, alloc);
}
