/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * provisioning.c - LOG SENSE (SPC-4, 6.8), and what it has to tell: how much of a
 * thin unit is used and what is left for it (SBC-3, 6.4.5)
 *
 * What is left is what the file system below has; of a block device nobody knows.
 */
#include <errno.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "target/scsi/op.h"

#define PAGE_SUPPORTED		0x00
#define PAGE_PROVISIONING	0x0c
#define PAGE_EXCEPTIONS		0x2f
#define ALL_SUBPAGES		0xff

/* The file that holds the unit's bytes; -1 if it is not one. */
static int file_below(struct vdisk *d)
{
	struct stat st;
	int fd = -1;

	for (; d && fd < 0; d = vdisk_below(d))
		fd = vdisk_fd(d);
	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fd : -1;
}

int scsi_provisioning(struct vdisk *disk, uint64_t size, uint64_t *used, uint64_t *available)
{
	uint64_t mapped = 0;
	struct statvfs fs;
	int fd = file_below(disk);

	for (uint64_t at = 0; at < size; ) {
		struct vdisk_extent e = { 0 };
		int r = vdisk_map(disk, at, size - at, &e);

		if (r < 0)
			return r;
		if (e.kind == VDISK_DATA || e.kind == VDISK_CODED)
			mapped += e.length;
		at += e.length;
	}
	*used = mapped;
	*available = size - mapped;
	if (fd >= 0 && fstatvfs(fd, &fs) == 0)
		*available = MIN(*available, (uint64_t)fs.f_bavail * fs.f_frsize);
	return 0;
}

/* One parameter: its code, a number of threshold sets */
static uint32_t put_resource(uint8_t *p, uint16_t code, uint64_t blocks)
{
	store_be16(p, code);
	p[2] = 0x03;		/* a binary list, not kept */
	p[3] = 8;
	store_be32(p + 4, (uint32_t)MIN(blocks >> SCSI_THRESHOLD_SHIFT, (uint64_t)UINT32_MAX));
	p[8] = 0x01;		/* of this unit alone */
	return 12;
}

enum { COUNTED = SCSI_STATE_START + 1 };

/* On a worker: all of the map */
static int count(struct vdisk_request *req)
{
	struct scsi_task *t = scsi_task_of(req);
	uint64_t used, available;
	uint32_t n = 4;
	int r = scsi_provisioning(t->unit->disk, scsi_unit_bytes(t->unit), &used, &available);

	if (r < 0)
		return r;
	n += put_resource(t->buf + n, 0x0001, available >> t->unit->block_shift);
	n += put_resource(t->buf + n, 0x0002, used >> t->unit->block_shift);
	store_be16(t->buf + 2, (uint16_t)(n - 4));
	return 0;
}

static bool has_page(const struct scsi_unit *u, uint8_t page)
{
	return page == PAGE_SUPPORTED || page == PAGE_EXCEPTIONS ||
	       (page == PAGE_PROVISIONING && u->limits.can_discard);
}

static uint32_t supported_pages(const struct scsi_unit *u, uint8_t *p, bool subpages)
{
	static const uint8_t pages[] = { PAGE_SUPPORTED, PAGE_PROVISIONING, PAGE_EXCEPTIONS };
	uint32_t n = 4;

	for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
		if (!has_page(u, pages[i]))
			continue;
		p[n++] = pages[i];
		if (subpages)
			p[n++] = 0;
		if (subpages && pages[i] == PAGE_SUPPORTED) {
			p[n++] = PAGE_SUPPORTED;
			p[n++] = ALL_SUBPAGES;
		}
	}
	store_be16(p + 2, (uint16_t)(n - 4));
	return n;
}

/* 7.3.8: no exception, no temperature */
static uint32_t exceptions(uint8_t *p)
{
	p[6] = 0x03;
	p[7] = 4;
	p[10] = 0xff;
	store_be16(p + 2, 8);
	return 12;
}

enum scsi_step scsi_log_sense(struct scsi_task *t)
{
	uint8_t page = t->cdb[2] & 0x3f, subpage = t->cdb[3];
	uint32_t alloc = load_be16(t->cdb + 7);

	if (t->state == COUNTED) {
		if (t->io.result < 0)
			return scsi_check(t, SCSI_MEDIUM_ERROR, SCSI_ASC_UNRECOVERED_READ);
		return scsi_reply(t, 4u + load_be16(t->buf + 2), alloc);
	}
	if ((t->cdb[2] >> 6) != 1)	/* cumulative values are all there are */
		return scsi_bad_cdb(t, 2, 7);
	if (!has_page(t->unit, page))
		return scsi_bad_cdb(t, 2, 5);
	if (subpage && !(subpage == ALL_SUBPAGES && page == PAGE_SUPPORTED))
		return scsi_bad_cdb(t, 3, 7);
	if (load_be16(t->cdb + 5) != 0)
		return scsi_bad_cdb(t, 5, 7);
	if (!scsi_get_buf(t, 64))
		return scsi_no_buf(t);
	memset(t->buf, 0, 64);
	t->buf[0] = (uint8_t)(page | (subpage ? 0x40 : 0));
	t->buf[1] = subpage;
	switch (page) {
	case PAGE_SUPPORTED:
		return scsi_reply(t, supported_pages(t->unit, t->buf, subpage), alloc);
	case PAGE_EXCEPTIONS:
		return scsi_reply(t, exceptions(t->buf), alloc);
	default:
		if (!t->unit->loaded || t->unit->sanitize)
			return scsi_check(t, SCSI_NOT_READY, t->unit->loaded ?
					  SCSI_ASC_SANITIZE_IN_PROGRESS : SCSI_ASC_NO_MEDIUM);
		return scsi_start_call(t, count, COUNTED);
	}
}
