/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mode.c - MODE SENSE and MODE SELECT (SPC-4, 6.11 to 6.14 and 7.5)
 *
 * Each page has one function that writes its current values from the unit and
 * one array of the bits that MODE SELECT may change; a changed page is checked
 * against both and only then taken over.
 */
#include "target/scsi/op.h"

#define PAGE_MAX	32u

struct mode_page {
	uint8_t page, subpage;
	bool cdrom;		/* only a CD-ROM has it */
	bool thin;		/* only a unit that can unmap has it */
	uint8_t len;		/* all of it, with its header of two bytes, or four with a subpage */
	uint8_t changeable[PAGE_MAX];
	void (*put)(const struct scsi_unit *u, uint8_t *p);
	void (*set)(struct scsi_unit *u, const uint8_t *p);	/* NULL: nothing to change */
};

#define LBPERE 0x80

static void put_recovery(const struct scsi_unit *u, uint8_t *p)
{
	p[2] = 0xc0;		/* AWRE, ARRE */
	p[3] = u->thresholds.report ? LBPERE : 0;
}

static void set_recovery(struct scsi_unit *u, const uint8_t *p)
{
	struct scsi_thresholds to = u->thresholds;

	to.report = p[3] & LBPERE;
	scsi_set_thresholds(u, &to);
}

#define WCE 0x04

static void put_caching(const struct scsi_unit *u, uint8_t *p)
{
	p[2] = u->write_cache ? WCE : 0;
}

static void set_caching(struct scsi_unit *u, const uint8_t *p)
{
	u->write_cache = p[2] & WCE;
}

#define D_SENSE	0x04
#define SWP	0x08

static void put_control(const struct scsi_unit *u, uint8_t *p)
{
	p[2] = u->descriptor_sense ? D_SENSE : 0;
	p[3] = 0x10;		/* unrestricted reordering */
	p[4] = u->software_protect ? SWP : 0;
	store_be16(p + 8, 0xffff);	/* busy time-out: no limit */
}

static void set_control(struct scsi_unit *u, const uint8_t *p)
{
	u->descriptor_sense = p[2] & D_SENSE;
	u->software_protect = p[4] & SWP;
}

static void put_exceptions(const struct scsi_unit *u UNUSED, uint8_t *p)
{
	p[2] = 0x08;		/* DEXCPT: none are reported */
}

/* Logical block provisioning (SBC-3, 6.5.9): SITUA is 0, everyone is told */
static void put_provisioning(const struct scsi_unit *u, uint8_t *p)
{
	for (unsigned i = 0; i < SCSI_THRESHOLDS; i++) {
		uint8_t *d = p + scsi_threshold_offset(i);

		/* a soft one, armed for what falls or for what rises */
		d[0] = (u->thresholds.at[i].enabled ? 0x80 : 0) | (i == SCSI_USED);
		d[1] = i == SCSI_USED ? 0x02 : 0x01;
		store_be32(d + 4, u->thresholds.at[i].count);
	}
}

static void set_provisioning(struct scsi_unit *u, const uint8_t *p)
{
	struct scsi_thresholds to = u->thresholds;

	for (unsigned i = 0; i < SCSI_THRESHOLDS; i++) {
		const uint8_t *d = p + scsi_threshold_offset(i);

		to.at[i].enabled = d[0] & 0x80;
		to.at[i].count = load_be32(d + 4);
	}
	scsi_set_thresholds(u, &to);
}

/* MM capabilities (MMC-6, appendix E): reads, has a tray that locks and ejects */
static void put_capabilities(const struct scsi_unit *u UNUSED, uint8_t *p)
{
	p[4] = 0x40;		/* MULTI SESSION */
	p[6] = 0x20 | 0x08 | 0x01;	/* tray, EJECT, LOCK */
	store_be16(p + 8, 7056);	/* KB/s: 40x */
	store_be16(p + 14, 7056);
}

static const struct mode_page pages[] = {	/* in ascending order, as 0x3f returns them */
	{ .page = 0x01, .len = 12, .changeable = { [3] = LBPERE },
	  .put = put_recovery, .set = set_recovery },
	{ .page = 0x08, .len = 20, .changeable = { [2] = WCE },
	  .put = put_caching, .set = set_caching },
	{ .page = 0x0a, .len = 12, .changeable = { [2] = D_SENSE, [4] = SWP },
	  .put = put_control, .set = set_control },
	{ .page = 0x1c, .len = 12, .put = put_exceptions },
	{ .page = 0x1c, .subpage = 0x02, .thin = true, .len = 32,
	  .changeable = { [16] = 0x80, [20 ... 23] = 0xff, [24] = 0x80, [28 ... 31] = 0xff },
	  .put = put_provisioning, .set = set_provisioning },
	{ .page = 0x2a, .len = 22, .cdrom = true, .put = put_capabilities },
};

static bool has_page(const struct scsi_unit *u, const struct mode_page *m)
{
	return (!m->cdrom || u->type == SCSI_CDROM) && (!m->thin || u->limits.can_discard);
}

static const struct mode_page *find_page(const struct scsi_unit *u, uint8_t page, uint8_t subpage)
{
	for (unsigned i = 0; i < ARRAY_SIZE(pages); i++)
		if (pages[i].page == page && pages[i].subpage == subpage && has_page(u, &pages[i]))
			return &pages[i];
	return NULL;
}

/* 7.5.7: page_0 format, or sub_page format */
static void put_page_header(const struct mode_page *m, uint8_t *p)
{
	p[0] = m->page;
	if (m->subpage) {
		p[0] |= 0x40;
		p[1] = m->subpage;
		store_be16(p + 2, (uint16_t)(m->len - 4));
	} else {
		p[1] = (uint8_t)(m->len - 2);
	}
}

enum page_control { CURRENT, CHANGEABLE, DEFAULT, SAVED };

static uint32_t put_page(const struct scsi_unit *u, const struct mode_page *m,
			 enum page_control which, uint8_t *p)
{
	const struct scsi_unit defaults = {
		.write_cache = true, .thresholds = scsi_default_thresholds(u),
	};

	if (which == CHANGEABLE)
		memcpy(p, m->changeable, m->len);
	else
		m->put(which == DEFAULT ? &defaults : u, p);
	put_page_header(m, p);
	return m->len;
}

/* Mode parameter header and block descriptor (7.5.5, SBC-3 6.5.2) */
static uint32_t put_header(const struct scsi_task *t, uint8_t *p, bool ten)
{
	const struct scsi_unit *u = t->unit;
	bool descriptor = !(t->cdb[1] & 0x08), long_lba = ten && t->cdb[1] & 0x10;
	uint8_t specific = (scsi_protected(u, t->nexus) ? 0x80 : 0) | 0x10; /* DPOFUA */
	uint32_t n = ten ? 8 : 4;
	uint8_t *d = p + n;

	p[ten ? 3 : 2] = specific;
	if (!descriptor)
		return n;
	if (long_lba) {
		p[4] = 1;
		p[7] = 16;
		store_be64(d, u->blocks);
		store_be32(d + 12, 1u << u->block_shift);
		return n + 16;
	}
	p[ten ? 7 : 3] = 8;
	store_be32(d, (uint32_t)MIN(u->blocks, (uint64_t)UINT32_MAX));
	store_be24(d + 5, 1u << u->block_shift);
	return n + 8;
}

enum scsi_step scsi_mode_sense(struct scsi_task *t)
{
	bool ten = t->cdb[0] == 0x5a;
	uint8_t page = t->cdb[2] & 0x3f, subpage = t->cdb[3];
	enum page_control which = t->cdb[2] >> 6;
	uint32_t alloc = ten ? load_be16(t->cdb + 7) : t->cdb[4], n;
	bool found = false;

	if (which == SAVED)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_SAVING_NOT_SUPPORTED);
	if (!scsi_get_buf(t, 512))
		return scsi_no_buf(t);
	memset(t->buf, 0, 512);
	n = put_header(t, t->buf, ten);
	for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
		if ((page != 0x3f && page != pages[i].page) ||
		    (subpage != 0xff && subpage != pages[i].subpage) || !has_page(t->unit, &pages[i]))
			continue;
		n += put_page(t->unit, &pages[i], which, t->buf + n);
		found = true;
	}
	if (!found)	/* it is the subpage that is wrong if there is one like it without */
		return find_page(t->unit, page, 0) || page == 0x3f ? scsi_bad_cdb(t, 3, 7) :
								     scsi_bad_cdb(t, 2, 5);
	if (ten)
		store_be16(t->buf, (uint16_t)(n - 2));
	else
		t->buf[0] = (uint8_t)(n - 1);
	return scsi_reply(t, n, alloc);
}

/* The page at @p is ours, and changes only what may be changed. */
static enum scsi_step check_page(struct scsi_task *t, const struct mode_page *m,
				 uint32_t at, bool *ok)
{
	const uint8_t *p = t->buf + at;
	uint8_t now[PAGE_MAX] = { 0 };

	*ok = false;
	m->put(t->unit, now);
	put_page_header(m, now);
	for (uint32_t i = 1; i < m->len; i++)
		if ((p[i] ^ now[i]) & ~m->changeable[i])
			return scsi_bad_list(t, (uint16_t)(at + i));
	*ok = true;
	return SCSI_DONE;
}

/* One pass over the pages of the list, checking them or taking them over. */
static enum scsi_step walk_list(struct scsi_task *t, uint32_t at, bool apply, bool *ok)
{
	while (at < t->transfer) {
		uint8_t subpage = t->buf[at] & 0x40 && t->transfer - at > 1 ? t->buf[at + 1] : 0;
		const struct mode_page *m = find_page(t->unit, t->buf[at] & 0x3f, subpage);
		enum scsi_step step;

		*ok = false;
		if (!m)
			return scsi_bad_list(t, (uint16_t)at);
		if (t->transfer - at < m->len)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
		step = check_page(t, m, at, ok);
		if (!*ok)
			return step;
		if (apply && m->set)
			m->set(t->unit, t->buf + at);
		at += m->len;
	}
	*ok = true;
	return SCSI_DONE;
}

static enum scsi_step select_list(struct scsi_task *t, bool ten)
{
	uint32_t header = ten ? 8 : 4, descriptor, at;
	enum scsi_step step;
	bool ok;

	if (t->transfer < header)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	descriptor = ten ? load_be16(t->buf + 6) : t->buf[3];
	if (descriptor != 0 && descriptor != 8 && descriptor != 16)
		return scsi_bad_list(t, ten ? 6 : 3);
	if (t->transfer - header < descriptor)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	/* the block size cannot be changed */
	at = header + descriptor;
	if ((descriptor == 8 && load_be24(t->buf + at - 3) != 1u << t->unit->block_shift) ||
	    (descriptor == 16 && load_be32(t->buf + at - 4) != 1u << t->unit->block_shift))
		return scsi_bad_list(t, (uint16_t)(at - 3));
	step = walk_list(t, at, false, &ok);
	if (!ok)
		return step;
	walk_list(t, at, true, &ok);
	scsi_attention_all(t->unit, t->nexus, SCSI_ASC_MODE_CHANGED);
	return scsi_good(t);
}

enum { SELECT_LIST = SCSI_STATE_START + 1 };

enum scsi_step scsi_mode_select(struct scsi_task *t)
{
	bool ten = t->cdb[0] == 0x55;
	uint32_t len = ten ? load_be16(t->cdb + 7) : t->cdb[4];

	if (t->state == SELECT_LIST)
		return select_list(t, ten);
	if (len == 0)
		return scsi_good(t);	/* not an error (6.11) */
	return scsi_want_list(t, len, SELECT_LIST);
}
