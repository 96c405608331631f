/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repair.c - what is wrong with a partition table, and putting it right
 *
 * A GPT is written anew from the copy that is good: its entries and header, bit
 * for bit but for the places and checksums, become the primary at LBA 1 and the
 * backup at the end of the disk.  The backup goes first if the good copy is the
 * primary, else the primary; a former backup in the middle of a disk that was
 * grown is erased last.  So at every instant one copy is whole.
 *
 * Partitions are never changed here.
 */
#include <errno.h>
#include <stdio.h>
#include <zlib.h>

#include "part/part.h"

int vdisk_parts_verify(struct vdisk *disk, void (*report)(void *arg, const char *finding),
		       void *arg, struct vdisk_error *err)
{
	struct part_list list = { .report = report, .arg = arg };
	int r = part_list_read(&list, disk, NULL, err);

	if (r == 0 && !list.parts->scheme[0])
		r = vd_fail(err, ENOENT, "%s: there is no partition table", disk->name);
	free(list.parts);
	return r < 0 ? r : (int)list.findings;
}

struct repair {
	struct vdisk *disk;	/* borrowed */
	struct vdisk_parts *parts; /* owned */
	uint32_t sector;
	uint8_t *header;	/* owned: a sector, of the good copy */
	uint8_t *entries;	/* owned */
	uint64_t entries_len;	/* bytes, whole sectors */
	struct gpt_header h;
	void (*report)(void *arg, const char *done);
	void *arg;
	int done;
};

static void did(struct repair *p, const char *text)
{
	p->done++;
	if (p->report)
		p->report(p->arg, text);
}

/* ---- GPT ---- */

static uint64_t last_lba(const struct repair *p)
{
	return p->disk->size / p->sector - 1;
}

static int read_good(struct repair *p, const struct gpt_header *good, struct vdisk_error *err)
{
	uint64_t len = (uint64_t)good->n_entries * good->entry_size;
	int r;

	p->h = *good;
	p->entries_len = (len + p->sector - 1) / p->sector * p->sector;
	p->header = malloc(p->sector);
	p->entries = malloc(p->entries_len ? p->entries_len : 1);
	if (!p->header || !p->entries)
		return vd_fail(err, ENOMEM, "out of memory");
	r = vd_pread(p->disk, p->header, p->sector, good->lba * p->sector);
	if (r == 0)
		r = vd_pread(p->disk, p->entries, p->entries_len, good->entries * p->sector);
	return r < 0 ? vd_fail(err, -r, "%s: reading the good copy of the table: %s",
			       p->disk->name, strerror(-r)) : 0;
}

/* The usable range on the disk as it is now; all partitions have to lie in it. */
static int new_range(struct repair *p, uint64_t *first, uint64_t *last, struct vdisk_error *err)
{
	uint64_t array = p->entries_len / p->sector;

	if (last_lba(p) <= 2 * array + 4)
		return vd_fail(err, ENOSPC, "%s: too small for a GPT", p->disk->name);
	*first = MAX(p->h.first_usable, 2 + array);
	*last = last_lba(p) - array - 1;
	for (unsigned i = 0; i < p->parts->count; i++) {
		const struct vdisk_part *q = &p->parts->part[i];

		if (q->offset / p->sector < *first ||
		    (q->offset + q->length) / p->sector - 1 > *last)
			return vd_fail(err, ENOSPC, "%s: partition %u does not lie on the disk with "
				       "room for the table; shrink or delete it first, or make "
				       "the disk larger", p->disk->name, q->number);
	}
	/* where all is in its place, the range stays as it was chosen */
	if (p->h.first_usable >= 2 + array && p->parts->primary_ok && p->parts->backup_ok &&
	    !p->parts->backup_misplaced && p->h.last_usable <= *last)
		*last = p->h.last_usable;
	return 0;
}

static int write_copy(struct repair *p, bool backup, uint64_t first, uint64_t last)
{
	uint64_t array = p->entries_len / p->sector, end = last_lba(p);
	uint64_t lba = backup ? end : 1, entries = backup ? end - array : 2;
	uint8_t *b = p->header;
	uint32_t size = load_le32(b + 12);
	int r;

	/* UEFI 2.10, table 5.5 */
	store_le64(b + 24, lba);
	store_le64(b + 32, backup ? 1 : end);
	store_le64(b + 40, first);
	store_le64(b + 48, last);
	store_le64(b + 72, entries);
	store_le32(b + 88, (uint32_t)crc32(0, p->entries, p->h.n_entries * p->h.entry_size));
	store_le32(b + 16, 0);
	store_le32(b + 16, (uint32_t)crc32(0, b, size));
	r = vdisk_write(p->disk, p->entries, p->entries_len, entries * p->sector);
	if (r == 0)
		r = vdisk_write(p->disk, b, p->sector, lba * p->sector);
	return r == 0 ? vdisk_flush(p->disk) : r;
}

/* A protective MBR (5.2.3), where there is none; boot code stays. */
static int write_protective(struct repair *p)
{
	uint8_t s[MBR_SIZE], *e = s + 446;
	int r = vd_pread(p->disk, s, sizeof(s), 0);

	if (r < 0)
		return r;
	memset(e, 0, 64);
	e[2] = 2;
	e[4] = MBR_GPT;
	e[5] = e[6] = e[7] = 0xff;
	store_le32(e + 8, 1);
	store_le32(e + 12, (uint32_t)MIN(last_lba(p), (uint64_t)UINT32_MAX));
	s[510] = 0x55;
	s[511] = 0xaa;
	r = vdisk_write(p->disk, s, sizeof(s), 0);
	return r == 0 ? vdisk_flush(p->disk) : r;
}

static int write_gpt(struct repair *p, const struct gpt_state *st, struct vdisk_error *err)
{
	bool primary_first = !p->parts->primary_ok;
	uint64_t first = 0, last = 0;
	int r = new_range(p, &first, &last, err);

	if (r < 0)
		return r;
	r = write_copy(p, !primary_first, first, last);
	if (r == 0)
		r = write_copy(p, primary_first, first, last);
	if (r == 0 && p->parts->backup_misplaced)
		r = vdisk_zero(p->disk, st->backup.lba * p->sector, p->sector, 0);
	if (r == 0 && p->parts->backup_misplaced)
		r = vdisk_flush(p->disk);
	if (r == 0 && !p->parts->hybrid)
		r = write_protective(p);
	if (r < 0)
		return vd_fail(err, -r, "%s: writing the partition table: %s", p->disk->name,
			       strerror(-r));
	return 0;
}

static int repair_gpt(struct repair *p, struct vdisk_error *err)
{
	const struct vdisk_parts *t = p->parts;
	struct gpt_state st;
	int r;

	p->sector = t->sector_size;
	if (!t->primary_ok && !t->backup_ok)
		return vd_fail(err, EUCLEAN, "%s: no copy of the table is left (%s)", p->disk->name,
			       t->problem);
	gpt_state(&st, p->disk, p->sector);
	if (t->primary_ok && t->backup_ok && !t->backup_misplaced && st.has_mbr && !st.differ &&
	    st.fits)
		return 0;
	r = read_good(p, t->primary_ok ? &st.primary : &st.backup, err);
	if (r == 0)
		r = write_gpt(p, &st, err);
	if (r < 0)
		return r;
	if (!t->primary_ok)
		did(p, "the primary table was written anew from the backup");
	if (!t->backup_ok)
		did(p, "the backup table was written anew from the primary");
	if (t->backup_misplaced)
		did(p, "the backup table was moved to the end of the disk");
	if (st.differ)
		did(p, "the backup table was made the same as the primary");
	if (!st.fits)
		did(p, "the usable range was fitted to the disk");
	if (!st.has_mbr)
		did(p, "a protective MBR was written");
	return 0;
}

/* ---- MBR ---- */

/* The link that leads astray, and what stands for it, become nothing. */
static int cut_chain(struct repair *p, uint64_t record, struct vdisk_error *err)
{
	uint8_t s[MBR_SIZE];
	int r = vd_pread(p->disk, s, sizeof(s), record);

	for (unsigned i = 0; r == 0 && i < 4; i++)
		if (mbr_is_extended(s[446 + 16 * i + 4])) {
			memset(s + 446 + 16 * i, 0, 16);
			break;
		}
	if (r == 0)
		r = vdisk_write(p->disk, s, sizeof(s), record);
	if (r == 0)
		r = vdisk_flush(p->disk);
	if (r < 0)
		return vd_fail(err, -r, "%s: writing a boot record: %s", p->disk->name,
			       strerror(-r));
	did(p, "the chain of logical partitions was cut where it led astray");
	return 0;
}

int vdisk_parts_repair(struct vdisk *disk, void (*report)(void *arg, const char *done), void *arg,
		       struct vdisk_error *err)
{
	struct repair p = { .disk = disk, .report = report, .arg = arg };
	struct part_list list = { 0 };
	int r;

	if (!vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: not open for writing", disk->name);
	r = part_list_read(&list, disk, NULL, err);
	if (r < 0)
		return r;
	p.parts = list.parts;
	if (!p.parts->scheme[0])
		r = vd_fail(err, ENOENT, "%s: there is no partition table", disk->name);
	else if (!strcmp(p.parts->scheme, "gpt"))
		r = repair_gpt(&p, err);
	else if (list.bad_link)
		r = cut_chain(&p, list.bad_link, err);
	free(p.header);
	free(p.entries);
	free(p.parts);
	return r < 0 ? r : p.done;
}
