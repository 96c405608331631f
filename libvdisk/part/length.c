/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * length.c - where a partition ends, in the sectors of its table
 *
 * GPT: the entry's last LBA and the checksums, in each copy that is good.  MBR: the
 * entry's length and last cylinder; of a logical partition in its boot record, and the
 * length of the link that leads to that.
 */
#include <errno.h>
#include <unistd.h>
#include <zlib.h>

#include "part/edit.h"

static int get(const struct edit *e, void *buf, size_t len, uint64_t at)
{
	return pread(e->fd, buf, len, (off_t)at) == (ssize_t)len ? 0 : -EIO;
}

static int put(const struct edit *e, const void *buf, size_t len, uint64_t at)
{
	return pwrite(e->fd, buf, len, (off_t)at) == (ssize_t)len ? 0 : -EIO;
}

/* ---- GPT ---- */

static int put_in_copy(struct edit *e, const struct gpt_header *h, const struct vdisk_part *p,
		       uint64_t length)
{
	uint64_t array = (uint64_t)h->n_entries * h->entry_size, entries = h->entries * e->sector;
	AUTO_FREE uint8_t *buf = malloc((size_t)array);
	uint8_t sector[4096], *entry;
	uint32_t size;
	int r;

	if (!buf)
		return -ENOMEM;
	r = get(e, buf, (size_t)array, entries);
	if (r == 0)
		r = get(e, sector, e->sector, h->lba * e->sector);
	if (r < 0)
		return r;
	entry = buf + (uint64_t)(p->number - 1) * h->entry_size;
	size = load_le32(sector + 12);
	if (p->number > h->n_entries || size > e->sector ||
	    load_le64(entry + 32) != p->offset / e->sector)
		return -EUCLEAN;	/* the copies differ: see 'part verify' */
	/* UEFI 2.10, tables 5.5 and 5.6 */
	store_le64(entry + 40, (p->offset + length) / e->sector - 1);
	store_le32(sector + 88, (uint32_t)crc32_z(0, buf, (size_t)array));
	store_le32(sector + 16, 0);
	store_le32(sector + 16, (uint32_t)crc32(0, sector, size));
	r = put(e, buf, (size_t)array, entries);
	return r == 0 ? put(e, sector, e->sector, h->lba * e->sector) : r;
}

static int put_gpt(struct edit *e, const struct vdisk_part *p, uint64_t length)
{
	struct gpt_state st;
	int r = 0;

	gpt_state(&st, e->disk, e->sector);
	e->backup_at = UINT64_MAX;
	if (e->old->backup_ok) {
		e->backup_at = MIN(st.backup.lba, st.backup.entries) * e->sector;
		r = put_in_copy(e, &st.backup, p, length);
	}
	return r == 0 && e->old->primary_ok ? put_in_copy(e, &st.primary, p, length) : r;
}

/* ---- MBR ---- */

/* Cylinder, head and sector as all count them now: 255 heads, 63 sectors. */
static void put_chs(uint8_t chs[3], uint64_t lba)
{
	uint64_t cylinder = lba / (255 * 63);

	if (cylinder > 1023) {
		chs[0] = 0xfe;
		chs[1] = chs[2] = 0xff;
		return;
	}
	chs[0] = (uint8_t)(lba / 63 % 255);
	chs[1] = (uint8_t)((cylinder >> 8) << 6 | (lba % 63 + 1));
	chs[2] = (uint8_t)cylinder;
}

/* The entry at @at in the sector at @where, whose partition begins at @start. */
static int put_entry(struct edit *e, uint64_t where, unsigned at, uint64_t start, uint64_t length)
{
	uint8_t entry[16];
	int r = get(e, entry, sizeof(entry), where + at);

	if (r < 0)
		return r;
	store_le32(entry + 12, (uint32_t)(length / e->sector));
	put_chs(entry + 5, (start + length) / e->sector - 1);
	return put(e, entry, sizeof(entry), where + at);
}

/* Where does entry @n of the boot record at @where begin, counted from @base?  0: it is none. */
static uint64_t entry_start(const struct edit *e, uint64_t where, unsigned n, uint64_t base,
			    bool link)
{
	uint8_t entry[16];

	if (get(e, entry, sizeof(entry), where + 446 + 16 * n) < 0 || !entry[4] ||
	    mbr_is_extended(entry[4]) != link || !load_le32(entry + 12))
		return 0;
	return base + (uint64_t)load_le32(entry + 8) * e->sector;
}

static int put_logical(struct edit *e, const struct vdisk_part *p, uint64_t length)
{
	const struct part_places *places = &e->places;
	uint64_t record = 0, base = 0;
	int r = -EUCLEAN;

	for (unsigned i = 0; i < e->old->count; i++)
		if (e->old->part[i].extended && e->old->part[i].number <= 4 &&
		    e->old->part[i].offset < p->offset &&
		    p->offset - e->old->part[i].offset < e->old->part[i].length)
			base = e->old->part[i].offset;
	for (unsigned i = 0; i < places->count && !record; i++) {
		uint64_t at = places->place[i].offset;

		for (unsigned n = 0; at && n < 4 && !record; n++)
			if (entry_start(e, at, n, at, false) == p->offset) {
				record = at;
				r = put_entry(e, at, 446 + 16 * n, p->offset, length);
			}
	}
	/* the first one has no link to it */
	for (unsigned i = 0; i < places->count && r == 0; i++) {
		uint64_t at = places->place[i].offset;

		for (unsigned n = 0; at && n < 4 && r == 0; n++)
			if (entry_start(e, at, n, base, true) == record)
				r = put_entry(e, at, 446 + 16 * n, record,
					      p->offset + length - record);
	}
	return r;
}

int part_put_length(struct edit *e, const struct vdisk_part *p, uint64_t length)
{
	if (!strcmp(e->old->scheme, "gpt"))
		return put_gpt(e, p, length);
	if (length / e->sector > UINT32_MAX)
		return -EFBIG;
	if (p->number > 4)
		return put_logical(e, p, length);
	return put_entry(e, 0, 446 + 16 * (p->number - 1), p->offset, length);
}
