/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mmc.c - what a CD-ROM drive has to say besides (MMC-6): one finished session of
 * one data track, as every image of a CD has it
 */
#include "target/scsi/op.h"

#define LEAD_OUT	0xaa
#define DATA_TRACK	0x14	/* ADR 1: a data track, copying not allowed */
#define PROFILE_CDROM	0x0008

static uint8_t *reply_buf(struct scsi_task *t, uint32_t size)
{
	if (!scsi_get_buf(t, size))
		return NULL;
	memset(t->buf, 0, size);
	return t->buf;
}

/* 6.26.3.2.1: minutes, seconds and frames of a 75th, from two seconds before block 0 */
static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
	uint32_t frames = lba + 150;

	if (!msf) {
		store_be32(p, lba);
		return;
	}
	p[1] = (uint8_t)MIN(frames / (75 * 60), 255u);
	p[2] = (uint8_t)(frames / 75 % 60);
	p[3] = (uint8_t)(frames % 75);
}

static uint8_t *put_track(uint8_t *p, uint8_t track, uint32_t lba, bool msf)
{
	p[1] = DATA_TRACK;
	p[2] = track;
	put_address(p + 4, lba, msf);
	return p + 8;
}

/* 6.26.2.5: what drivers ask for to learn of sessions */
static uint8_t *put_full(uint8_t *p, uint8_t point, uint32_t value)
{
	p[0] = 1;		/* session */
	p[1] = DATA_TRACK;
	p[3] = point;
	if (point >= 0xa0 && point < 0xa2)
		p[8] = (uint8_t)value;	/* first, last track */
	else
		put_address(p + 7, value, true);
	return p + 11;
}

enum scsi_step scsi_read_toc(struct scsi_task *t)
{
	uint32_t end = (uint32_t)MIN(t->unit->blocks, (uint64_t)UINT32_MAX);
	uint32_t alloc = load_be16(t->cdb + 7);
	uint8_t format = t->cdb[2] & 0x0f, from = t->cdb[6], *p = reply_buf(t, 64), *d;
	bool msf = t->cdb[1] & 0x02;

	if (!p)
		return scsi_no_buf(t);
	p[2] = p[3] = 1;	/* first and last track, or session */
	d = p + 4;
	switch (format) {
	case 0:
		if (from > 1 && from != LEAD_OUT)
			return scsi_bad_cdb(t, 6, 7);
		if (from <= 1)
			d = put_track(d, 1, 0, msf);
		d = put_track(d, LEAD_OUT, end, msf);
		break;
	case 1:
		d = put_track(d, 1, 0, msf);
		break;
	case 2:
		d = put_full(d, 0xa0, 1);
		d = put_full(d, 0xa1, 1);
		d = put_full(d, 0xa2, end);
		d = put_full(d, 1, 0);
		break;
	default:
		return scsi_bad_cdb(t, 2, 3);
	}
	store_be16(p, (uint16_t)(d - p - 2));
	return scsi_reply(t, (uint32_t)(d - p), alloc);
}

/* 5.3: features that every read-only drive has */
enum scsi_step scsi_get_configuration(struct scsi_task *t)
{
	static const struct {
		uint16_t code;
		uint8_t flags;		/* 1: current, 2: persistent, version << 2 */
		uint8_t len;
		uint8_t data[8];
	} features[] = {
		{ 0x0000, 0x03, 4, { PROFILE_CDROM >> 8, PROFILE_CDROM, 0x01 } },
		{ 0x0001, 0x03 | 2 << 2, 8, { 0, 0, 0, 1, 0 } },	/* core: SCSI */
		{ 0x0003, 0x03, 4, { 0x29, 0, 0, 0 } },	/* removable: tray, eject, lock */
		{ 0x0010, 0x01, 8, { 0, 0, 0x08, 0, 0, 1, 0, 0 } },	/* random: 2048 */
		{ 0x001e, 0x01, 4, { 0, 0, 0, 0 } },	/* CD read */
		{ 0x0105, 0x03, 4, { 0, 0, 0, 0 } },	/* timeout */
	};
	uint16_t from = load_be16(t->cdb + 2);
	uint32_t alloc = load_be16(t->cdb + 7), n = 8;
	uint8_t which = t->cdb[1] & 3, *p = reply_buf(t, 256);

	if (!p)
		return scsi_no_buf(t);
	if (which == 3)
		return scsi_bad_cdb(t, 1, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		if (which == 2 ? features[i].code != from : features[i].code < from)
			continue;
		store_be16(p + n, features[i].code);
		p[n + 2] = features[i].flags;
		p[n + 3] = features[i].len;
		memcpy(p + n + 4, features[i].data, features[i].len);
		n += 4u + features[i].len;
	}
	store_be32(p, n - 4);
	store_be16(p + 6, t->unit->loaded ? PROFILE_CDROM : 0);
	return scsi_reply(t, n, alloc);
}

/* 6.7: polled only; of all classes there are media events (4), and nothing happened */
enum scsi_step scsi_event_status(struct scsi_task *t)
{
	uint32_t alloc = load_be16(t->cdb + 7);
	uint8_t *p;

	if (!(t->cdb[1] & 1))
		return scsi_bad_cdb(t, 1, 0);
	p = reply_buf(t, 8);
	if (!p)
		return scsi_no_buf(t);
	p[3] = 1 << 4;
	if (!(t->cdb[4] & 1 << 4)) {
		p[1] = 2;
		p[2] = 0x80;	/* no such event */
		return scsi_reply(t, 4, alloc);
	}
	p[1] = 6;
	p[2] = 4;
	p[5] = t->unit->loaded ? 0x02 : 0;	/* medium present */
	return scsi_reply(t, 8, alloc);
}

/* 6.22: a finished disc of one session */
enum scsi_step scsi_disc_information(struct scsi_task *t)
{
	uint8_t *p = reply_buf(t, 34);

	if (!p)
		return scsi_no_buf(t);
	if (t->cdb[1] & 7)
		return scsi_bad_cdb(t, 1, 2);
	store_be16(p, 32);
	p[2] = 0x0e;		/* last session complete, disc complete */
	p[3] = p[4] = p[5] = p[6] = 1;
	memset(p + 16, 0xff, 8);
	return scsi_reply(t, 34, load_be16(t->cdb + 7));
}

enum scsi_step scsi_mechanism_status(struct scsi_task *t)
{
	uint8_t *p = reply_buf(t, 8);

	if (!p)
		return scsi_no_buf(t);
	return scsi_reply(t, 8, load_be16(t->cdb + 8));
}
