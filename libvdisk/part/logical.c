/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * logical.c - an MBR with logical partitions, for those of a GPT that has more than four
 *
 * Partitions stay where they are, and so the boot record of each logical one has to
 * find room in front of it: a sector at least, 1 MiB where there is.  All
 * logical ones lie in one extended partition, with none of the others between
 * them; so they are a run of neighbours, and of those that would do we take the
 * shortest, and the last.  libfdisk decides places of boot records by itself, and
 * would put them onto what lies in front, so the sectors are made here.
 *
 *	entry	0 active   1 CHS of the start   4 type   5 CHS of the end
 *		8 le32 start   12 le32 sectors
 *
 * In a boot record, the first entry counts from that record, and the link to the
 * next one from the start of the extended partition.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <sys/random.h>

#include "part/edit.h"

#define EXTENDED_LBA 0x0f
#define LINK	0x05

/* Partitions as they lie, and where the boot record of each would be (0: nowhere). */
struct row {
	const struct vdisk_part *part;
	uint64_t record;
};

static int by_place(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->part->offset < y->part->offset ? -1 : x->part->offset > y->part->offset;
}

static uint64_t row_end(const struct row *r)
{
	return r->part->offset + r->part->length;
}

/* -EUCLEAN where they overlap: no extended partition could be right then. */
static int lay_out(const struct edit *e, struct row *row, unsigned n, struct vdisk_error *err)
{
	uint64_t end = MAX((uint64_t)e->sector, e->old->first_usable); /* behind the former table */

	for (unsigned i = 0; i < n; i++)
		row[i].part = &e->old->part[i];
	qsort(row, n, sizeof(*row), by_place);
	for (unsigned i = 0; i < n; i++) {
		uint64_t at = row[i].part->offset, gap;

		if (at < end)
			return vd_fail(err, EUCLEAN, "%s: partition %u lies on what is in front of it: "
				       "see 'part verify'", e->disk->name, row[i].part->number);
		gap = vd_align_down(at - end, e->sector);
		row[i].record = gap ? at - MIN(gap, (uint64_t)EDGE) : 0;
		end = row_end(&row[i]);
	}
	return 0;
}

/* Which of them become logical: [*from, *to).  false: there is no such run. */
static bool choose(const struct row *row, unsigned n, unsigned *from, unsigned *to)
{
	for (unsigned count = n - 3; count <= n; count++)
		for (*from = n - count + 1; (*from)-- > 0; ) {
			*to = *from;
			while (*to < *from + count && row[*to].record)
				(*to)++;
			if (*to == *from + count)
				return true;
		}
	return false;
}

static void put_entry(uint8_t *e, const struct edit *ed, uint8_t type, uint64_t from, uint64_t start,
		      uint64_t end)
{
	e[1] = e[5] = 0xfe;	/* out of reach of cylinders and heads */
	e[2] = e[6] = 0xff;
	e[3] = e[7] = 0xff;
	e[4] = type;
	store_le32(e + 8, (uint32_t)((start - from) / ed->sector));
	store_le32(e + 12, (uint32_t)((end - start) / ed->sector));
}

static uint8_t type_of(const struct vdisk_part *p)
{
	char type[40];

	part_type_convert(type, "dos", p->type);
	return (uint8_t)strtoul(type, NULL, 16);
}

static int put_sector(const struct edit *e, uint8_t sector[MBR_SIZE], uint64_t at)
{
	sector[510] = 0x55;
	sector[511] = 0xaa;
	return pwrite(e->fd, sector, MBR_SIZE, (off_t)at) == MBR_SIZE ? 0 : -EIO;
}

static int put_record(const struct edit *e, const struct row *row, unsigned i, unsigned from,
		      unsigned to)
{
	uint8_t s[MBR_SIZE] = { 0 };

	put_entry(s + 446, e, type_of(row[i].part), row[i].record, row[i].part->offset,
		  row_end(&row[i]));
	if (i + 1 < to)
		put_entry(s + 462, e, LINK, row[from].record, row[i + 1].record, row_end(&row[i + 1]));
	return put_sector(e, s, row[i].record);
}

static int put_all(const struct edit *e, const struct row *row, unsigned n, unsigned from,
		   unsigned to)
{
	uint8_t s[MBR_SIZE] = { 0 }, *entry = s + 446;
	int r = 0;

	if (getrandom(s + 440, 4, 0) != 4)
		return -EIO;
	s[440] |= 1;
	for (unsigned i = 0; i < n; i++) {
		if (i == from) {
			put_entry(entry, e, EXTENDED_LBA, 0, row[from].record, row_end(&row[to - 1]));
			entry += 16;
		}
		if (i >= from && i < to) {
			r = r < 0 ? r : put_record(e, row, i, from, to);
		} else {
			put_entry(entry, e, type_of(row[i].part), 0, row[i].part->offset,
				  row_end(&row[i]));
			entry += 16;
		}
	}
	return r < 0 ? r : put_sector(e, s, 0);
}

int part_make_logical(struct edit *e, struct vdisk_error *err)
{
	unsigned n = e->old->count, from = 0, to = 0;
	AUTO_FREE struct row *row = calloc(n, sizeof(*row));
	int r = row ? lay_out(e, row, n, err) : vd_fail(err, ENOMEM, "out of memory");

	if (r < 0)
		return r;
	if (!choose(row, n, &from, &to))
		return vd_fail(err, ENOSPC, "%s: %u partitions need logical ones in an MBR, and there "
			       "is no free sector in front of enough of them, where their boot "
			       "records have to be", e->disk->name, n);
	r = part_edit_empty(e, err);
	if (r < 0)
		return r;
	r = put_all(e, row, n, from, to);
	return r < 0 ? vd_fail(err, -r, "%s: making the new table: %s", e->disk->name, strerror(-r)) :
	       0;
}
