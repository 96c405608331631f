/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat_table.c - changing the table of a FAT volume: allocation, and the mark
 *
 * Changes gather in the window of the table, and are written to all copies
 * before an entry is that relies on them; see fat.h for the order.
 *
 * Before its first change a volume is marked as in use, in the ways that Linux
 * and Windows know (a bit in the boot sector; one in the entry of cluster 1),
 * and that is on the medium before anything else is.  fat_table_clean() takes the
 * mark away when all the rest is there.
 */
#include <errno.h>

#include "fs/fat.h"

#define INFO_LEAD	0x41615252u
#define INFO_SIGNATURE	0x61417272u

/* ---- bytes ---- */

int fat_disk_write(struct fat *f, const void *buf, size_t len, uint64_t off,
		   struct vdisk_error *err)
{
	int r;

	if (!vd_in_range(off, len, vdisk_size(f->disk)))
		return vd_fail(err, EUCLEAN, "it goes on past the end of the volume");
	r = vdisk_write(f->disk, buf, len, off);
	return r < 0 ? vd_fail(err, -r, "writing at %llu: %s", (unsigned long long)off,
			       strerror(-r)) : 0;
}

int fat_disk_zero(struct fat *f, uint64_t off, uint64_t len, struct vdisk_error *err)
{
	int r;

	if (!vd_in_range(off, len, vdisk_size(f->disk)))
		return vd_fail(err, EUCLEAN, "it goes on past the end of the volume");
	r = vdisk_zero(f->disk, off, len, 0);
	return r < 0 ? vd_fail(err, -r, "writing at %llu: %s", (unsigned long long)off,
			       strerror(-r)) : 0;
}

/* ---- entries ---- */

int fat_table_flush(struct fat *f, struct vdisk_error *err)
{
	size_t from = f->dirty_from, len = f->dirty_to - from;

	for (unsigned i = 0; len && i < f->g.n_fats; i++) {
		uint64_t base = f->g.n_fats > 1 ? f->g.first_fat + i * f->g.fat_size : f->g.fat;
		int r = fat_disk_write(f, f->window + from, len, base + f->window_at + from, err);

		if (r < 0)
			return r;
	}
	f->dirty_from = f->dirty_to = 0;
	return 0;
}

static int put(struct fat *f, uint32_t cluster, uint32_t value, struct vdisk_error *err)
{
	uint64_t off = (uint64_t)cluster * f->g.bits / 8;
	size_t at, n = f->g.bits == 32 ? 4 : 2;
	uint8_t *p;
	int r = fat_table_load(f, off, err);

	if (r < 0)
		return r;
	at = (size_t)(off - f->window_at);
	p = f->window + at;
	if (f->g.bits == 32)		/* the upper four bits are nobody's */
		store_le32(p, (load_le32(p) & 0xf0000000) | (value & 0x0fffffff));
	else if (f->g.bits == 16)
		store_le16(p, (uint16_t)value);
	else if (cluster & 1)
		store_le16(p, (uint16_t)((load_le16(p) & 0x000f) | value << 4));
	else
		store_le16(p, (uint16_t)((load_le16(p) & 0xf000) | (value & 0xfff)));
	if (f->dirty_from == f->dirty_to) {
		f->dirty_from = at;
		f->dirty_to = at + n;
	} else {
		f->dirty_from = MIN(f->dirty_from, at);
		f->dirty_to = MAX(f->dirty_to, at + n);
	}
	return 0;
}

int fat_table_put(struct fat *f, uint32_t cluster, uint32_t value, struct vdisk_error *err)
{
	int r = fat_mark(f, err);

	return r < 0 ? r : put(f, cluster, value, err);
}

/* ---- chains ---- */

int fat_cluster_new(struct fat *f, uint32_t prev, uint32_t *out, struct vdisk_error *err)
{
	uint32_t n = f->g.n_clusters, c = fat_exists(f, f->next_free) ? f->next_free : 2;

	for (uint32_t i = 0; i < n; i++, c = c - 1 < n ? c + 1 : 2) {
		uint32_t v = 0;
		int r = fat_table_get(f, c, &v, err);

		if (r < 0)
			return r;
		if (v)
			continue;
		r = fat_table_put(f, c, 0x0fffffff, err);
		if (r == 0 && prev)
			r = fat_table_put(f, prev, c, err);
		if (r < 0)
			return r;
		f->next_free = c + 1;
		if (f->n_free && f->n_free != UINT32_MAX)
			f->n_free--;
		*out = c;
		return 0;
	}
	return vd_fail(err, ENOSPC, "the file system is full");
}

int fat_chain_free(struct fat *f, uint32_t first, struct vdisk_error *err)
{
	f->last_first = 0;
	/* a freed cluster is 0: one that comes back to itself ends there */
	for (uint32_t i = 0; i < f->g.n_clusters && fat_exists(f, first); i++) {
		uint32_t next = 0;
		int r = fat_table_get(f, first, &next, err);

		if (r == 0 && next)
			r = fat_table_put(f, first, 0, err);
		if (r < 0)
			return r;
		if (next && f->n_free != UINT32_MAX)
			f->n_free++;
		if (first < f->next_free)
			f->next_free = first;
		first = next;
	}
	return 0;
}

/* ---- the mark ---- */

/* Where the boot sector has its mark; 0: nowhere. */
static unsigned state_at(const struct fat *f, const uint8_t boot[512])
{
	unsigned at = f->g.bits == 32 ? 65 : 37;
	uint8_t signature = boot[at + 1];

	return signature == 0x28 || signature == 0x29 ? at : 0;
}

static uint32_t clean_bit(const struct fat *f)
{
	return f->g.bits == 32 ? 1u << 27 : f->g.bits == 16 ? 1u << 15 : 0;
}

int fat_table_open(struct fat *f, const uint8_t boot[512], bool *clean, struct vdisk_error *err)
{
	uint32_t bit = clean_bit(f), one = 0;
	unsigned at = state_at(f, boot);
	uint8_t info[512];
	int r = fat_table_get(f, 1, &one, err);

	if (r < 0)
		return r;
	*clean = !(at && boot[at] & 1) && !(bit && !(one & bit));
	f->next_free = 2;
	f->n_free = UINT32_MAX;
	if (!f->g.info)
		return 0;
	r = fat_disk_read(f, info, sizeof(info), f->g.info, err);
	if (r < 0)
		return r;
	if (load_le32(info) != INFO_LEAD || load_le32(info + 484) != INFO_SIGNATURE) {
		f->g.info = 0;
		return 0;
	}
	f->n_free = load_le32(info + 488);
	if (f->n_free > f->g.n_clusters)
		f->n_free = UINT32_MAX;
	if (fat_exists(f, load_le32(info + 492)))
		f->next_free = load_le32(info + 492);
	return 0;
}

static int write_state(struct fat *f, bool clean, struct vdisk_error *err)
{
	uint32_t bit = clean_bit(f), one = 0;
	uint8_t boot[512];
	unsigned at;
	int r = fat_disk_read(f, boot, sizeof(boot), 0, err);

	if (r < 0)
		return r;
	at = state_at(f, boot);
	if (at) {
		boot[at] = (uint8_t)(clean ? boot[at] & ~1 : boot[at] | 1);
		r = fat_disk_write(f, boot + at, 1, at, err);
	}
	if (r == 0 && bit) {
		r = fat_table_get(f, 1, &one, err);
		if (r == 0)
			r = put(f, 1, clean ? one | bit : one & ~bit, err);
		if (r == 0)
			r = fat_table_flush(f, err);
	}
	if (r < 0)
		return r;
	r = vdisk_flush(f->disk);
	return r < 0 ? vd_fail(err, -r, "flushing: %s", strerror(-r)) : 0;
}

int fat_mark(struct fat *f, struct vdisk_error *err)
{
	int r;

	if (f->marked)
		return 0;
	r = write_state(f, false, err);
	if (r == 0)
		f->marked = true;
	return r;
}

static int write_info(struct fat *f, struct vdisk_error *err)
{
	uint8_t numbers[8];

	if (!f->g.info)
		return 0;
	store_le32(numbers, f->n_free);
	store_le32(numbers + 4, fat_exists(f, f->next_free) ? f->next_free : 2);
	return fat_disk_write(f, numbers, sizeof(numbers), f->g.info + 488, err);
}

int fat_table_clean(struct fat *f, struct vdisk_error *err)
{
	int r;

	if (!f->marked)
		return 0;
	r = fat_table_flush(f, err);
	if (r == 0)
		r = write_info(f, err);
	if (r == 0) {
		r = vdisk_flush(f->disk);
		if (r < 0)
			vd_fail(err, -r, "flushing: %s", strerror(-r));
	}
	if (r == 0)
		r = write_state(f, true, err);
	if (r == 0)
		f->marked = false;
	return r;
}
