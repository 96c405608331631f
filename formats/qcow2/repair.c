/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repair.c - make a qcow2 image consistent again
 *
 * Works on what check_scan() found, in steps that are each flushed before the
 * next, and none of which makes a damaged image worse if the power fails:
 *
 *   1. Entries that refer to nothing sensible are made to read as zeroes,
 *      reserved bits are cleared.  Clusters lose references: leaks at most.
 *      Bitmaps that are damaged are dropped; they can be made again.
 *   2. Data that share a cluster with a table get a copy of their own.
 *   3. Refcounts that are too low are raised.  Where the structures themselves
 *      are damaged, new ones are written behind the end of the file, and then
 *      the header is pointed at them with one small write.
 *   4. COPIED flags are set to what the refcounts say.
 *   5. Refcounts that are too high are lowered, never while there may be
 *      references that could not be read.
 *   6. The dirty and corrupt bits are cleared if nothing is left.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/qcow2/check.h"

static uint64_t cluster_size(const struct check *c)
{
	return qcow2_cluster_size(&c->h);
}

/* ---- 1: entries ---- */

static int drop_bitmaps(struct check *c)
{
	struct vdisk_error err;

	c->h.has_bitmaps = false;
	c->h.autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
	return qcow2_header_write(&c->h, c->file, &err);
}

static int fix_entries(struct check *c)
{
	bool drop = c->bad_bitmaps;
	int r;

	c->before = c->counts;
	c->counts = (struct counts) { 0 };
	c->fix_entries = true;
	r = check_count(c);
	c->fix_entries = false;
	counts_clear(&c->before);
	if (r == 0 && drop)
		r = drop_bitmaps(c);
	return r < 0 ? r : vd_flush(c->file);
}

/* ---- 2: data in the cluster of a table ---- */

static uint8_t kind_of(const struct check *c, uint64_t off)
{
	uint64_t cluster = off >> c->h.cluster_bits;
	const struct count_group *g = counts_find(&c->counts, cluster);

	return g ? g->kind[cluster % COUNTS_GROUP] : 0;
}

static bool is_overlap(const struct check *c, uint64_t off)
{
	uint8_t kind = kind_of(c, off);

	return kind & COUNT_DATA && kind & (COUNT_META | COUNT_L2);
}

/* Copy the cluster at @off to the end of the file, which grows (but not without
 * limit: see n_copies). */
static int copy_cluster(struct check *c, uint64_t off, uint64_t *out)
{
	AUTO_FREE uint8_t *data = malloc(cluster_size(c));
	uint64_t to = vd_align_up(c->file->size, cluster_size(c));
	int r;

	if (!data)
		return -ENOMEM;
	r = vd_pread_pad(c->file, data, cluster_size(c), off);
	if (r == 0)
		r = vd_pwrite(c->file, data, cluster_size(c), to);
	*out = to;
	return r;
}

static int separate_l2(struct check *c, const struct check_l2 *t)
{
	unsigned shift = qcow2_l2_entry_bits(&c->h);
	bool changed = false;
	int r;

	if (kind_of(c, t->off) & COUNT_META)
		return 0;
	r = vd_pread_pad(c->file, c->buf, cluster_size(c), t->off);
	for (size_t i = 0; i < (size_t)1 << qcow2_l2_bits(&c->h) && r == 0; i++) {
		uint64_t entry = load_be64(c->buf + (i << shift)), to = 0;

		if (entry & QCOW2_COMPRESSED || !(entry & QCOW2_OFFSET_MASK) ||
		    !is_overlap(c, entry & QCOW2_OFFSET_MASK) || c->n_copies >= c->clusters)
			continue;
		c->n_copies++;
		r = copy_cluster(c, entry & QCOW2_OFFSET_MASK, &to);
		store_be64(c->buf + (i << shift), (entry & ~QCOW2_OFFSET_MASK) | to);
		changed = true;
	}
	if (r < 0 || !changed)
		return r;
	r = vd_flush(c->file);
	return r < 0 ? r : vd_pwrite(c->file, c->buf, cluster_size(c), t->off);
}

static int separate(struct check *c)
{
	int r = 0;

	if (c->h.incompatible & QCOW2_INCOMPAT_DATA_FILE)
		return 0;
	for (size_t i = 0; i < c->n_l2 && r == 0; i++)
		r = separate_l2(c, &c->l2[i]);
	return r < 0 ? r : vd_flush(c->file);
}

static bool any_overlap(const struct check *c)
{
	for (size_t i = 0; i < c->counts.slots; i++) {
		const struct count_group *g = c->counts.slot[i];

		for (unsigned k = 0; g && k < COUNTS_GROUP; k++)
			if (is_overlap(c, (g->index * COUNTS_GROUP + k) << c->h.cluster_bits))
				return true;
	}
	return false;
}

/* ---- 3, 5: refcounts in place ---- */

enum direction { RAISE, LOWER };

static uint64_t references(const struct check *c, uint64_t cluster)
{
	const struct count_group *g = counts_find(&c->counts, cluster);

	return g ? g->n[cluster % COUNTS_GROUP] : 0;
}

/* Also past the end of the file, where what is too high would be a leak later. */
static int fix_block(struct check *c, size_t i, enum direction dir)
{
	uint64_t first = (uint64_t)i << qcow2_refblock_bits(&c->h);
	uint64_t n = UINT64_C(1) << qcow2_refblock_bits(&c->h);
	bool changed = false;
	int r = check_read_refblock(c, i);

	if (r < 0)
		return r;
	for (uint64_t k = 0; k < n; k++) {
		uint64_t have = qcow2_refcount_get(c->buf, c->h.refcount_order, k);
		uint64_t want = MIN(references(c, first + k), qcow2_refcount_max(&c->h));

		if (dir == RAISE ? have < want : have > want) {
			qcow2_refcount_put(c->buf, c->h.refcount_order, k, want);
			changed = true;
		}
	}
	return changed ? vd_pwrite(c->file, c->buf, cluster_size(c), c->reftable[i]) : 0;
}

static int fix_refcounts(struct check *c, enum direction dir)
{
	uint64_t last = (c->clusters - 1) >> qcow2_refblock_bits(&c->h);
	int r = 0;

	for (size_t i = 0; i < c->n_reftable && i <= last && r == 0; i++)
		if (c->reftable[i])
			r = fix_block(c, i, dir);
	return r < 0 ? r : vd_flush(c->file);
}

/* Bitmaps that are not marked as valid were not counted: their space goes now. */
static int forget_stale_bitmaps(struct check *c)
{
	if (!c->h.has_bitmaps || (c->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	return drop_bitmaps(c);
}

static int lower_refcounts(struct check *c)
{
	int r = forget_stale_bitmaps(c);

	if (r == 0)
		r = vd_flush(c->file);
	return r < 0 ? r : fix_refcounts(c, LOWER);
}

/* ---- 3: new refcount structures ---- */

/* Blocks first, then the table, in one run behind the end of the file. */
struct layout {
	uint64_t first;		/* cluster */
	uint64_t blocks;
	uint64_t table;		/* clusters */
};

/* How many blocks have a count in them, and which is the last? */
static void count_blocks(const struct check *c, struct count_group *const *list, uint64_t *n,
			 uint64_t *last)
{
	unsigned bits = qcow2_refblock_bits(&c->h);

	*n = *last = 0;
	for (size_t i = 0; i < c->counts.used; i++) {
		uint64_t block = list[i]->index * COUNTS_GROUP >> bits;

		if (i == 0 || block != *last)
			++*n;
		*last = block;
	}
}

/* Give the new structures references of their own until they cover themselves. */
static int plan(struct check *c, struct layout *l)
{
	unsigned entry_bits = c->h.cluster_bits - 3;
	uint64_t counted = 0;

	l->first = c->clusters;
	for (;;) {
		struct count_group **list = counts_sorted(&c->counts);
		uint64_t last;

		if (!list)
			return -ENOMEM;
		count_blocks(c, list, &l->blocks, &last);
		free(list);
		l->table = (last >> entry_bits) + 1;
		if (l->table << c->h.cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
			return -EFBIG;
		if (counted == l->blocks + l->table)
			return 0;
		for (; counted < l->blocks + l->table; counted++) {
			int r = counts_add(&c->counts, l->first + counted, 1, COUNT_META);

			if (r < 0)
				return r;
		}
	}
}

static int write_block(struct check *c, const struct layout *l, uint64_t i, uint8_t *table,
		       uint64_t index)
{
	uint64_t off = (l->first + i) << c->h.cluster_bits;

	store_be64(table + index * 8, off);
	return vd_pwrite(c->file, c->buf, cluster_size(c), off);
}

static void fill_group(struct check *c, const struct count_group *g)
{
	uint64_t mask = (UINT64_C(1) << qcow2_refblock_bits(&c->h)) - 1;

	for (unsigned i = 0; i < COUNTS_GROUP; i++)
		qcow2_refcount_put(c->buf, c->h.refcount_order, (g->index * COUNTS_GROUP + i) & mask,
				   MIN((uint64_t)g->n[i], qcow2_refcount_max(&c->h)));
}

static int write_blocks(struct check *c, const struct layout *l, struct count_group *const *list,
			uint8_t *table)
{
	unsigned bits = qcow2_refblock_bits(&c->h);
	uint64_t done = 0;

	for (size_t i = 0; i < c->counts.used; ) {
		uint64_t block = list[i]->index * COUNTS_GROUP >> bits;
		int r;

		memset(c->buf, 0, cluster_size(c));
		for (; i < c->counts.used && list[i]->index * COUNTS_GROUP >> bits == block; i++)
			fill_group(c, list[i]);
		r = write_block(c, l, done++, table, block);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The one write that makes them count (header bytes 48 - 59). */
static int switch_refcounts(struct check *c, const struct layout *l)
{
	uint8_t p[12];
	int r = vd_flush(c->file);

	if (r < 0)
		return r;
	c->h.reftable_offset = (l->first + l->blocks) << c->h.cluster_bits;
	c->h.reftable_clusters = (uint32_t)l->table;
	store_be64(p, c->h.reftable_offset);
	store_be32(p + 8, c->h.reftable_clusters);
	r = vd_pwrite(c->file, p, sizeof(p), 48);
	return r < 0 ? r : vd_flush(c->file);
}

static int rebuild_refcounts(struct check *c)
{
	AUTO_FREE struct count_group **list = NULL;
	AUTO_FREE uint8_t *table = NULL;
	struct layout l = { 0 };
	int r;

	c->skip_refcounts = true;
	r = check_count(c);
	c->skip_refcounts = false;
	if (r == 0)
		r = plan(c, &l);
	if (r < 0)
		return r;
	list = counts_sorted(&c->counts);
	table = calloc(l.table, cluster_size(c));
	if (!list || !table)
		return -ENOMEM;
	r = write_blocks(c, &l, list, table);
	if (r == 0)
		r = vd_pwrite(c->file, table, l.table << c->h.cluster_bits,
			      (l.first + l.blocks) << c->h.cluster_bits);
	return r < 0 ? r : switch_refcounts(c, &l);
}

/* ---- 4, 6 ---- */

static int fix_copied(struct check *c)
{
	int r;

	c->fix_copied = true;
	r = check_copied(c);
	c->fix_copied = false;
	return r < 0 ? r : vd_flush(c->file);
}

static int clear_marks(struct check *c)
{
	const uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
	uint8_t p[8];
	int r;

	if (!(c->h.incompatible & marks))
		return 0;
	c->h.incompatible &= ~marks;
	store_be64(p, c->h.incompatible);
	r = vd_pwrite(c->file, p, sizeof(p), 72);
	return r < 0 ? r : vd_flush(c->file);
}

/* ---- the whole ---- */

static int repair_all(struct check *c, unsigned flags)
{
	int r = 0;

	if ((flags & QCOW2_CHECK_KEEP_ENTRIES) && (c->bad_entries || any_overlap(c)))
		return 0;
	if (c->bad_entries || c->bad_bitmaps) {
		r = fix_entries(c);
		if (r == 0)
			r = check_scan(c);
	}
	if (r == 0 && any_overlap(c)) {
		r = separate(c);
		if (r == 0)
			r = check_scan(c);
	}
	if (r < 0 || c->incomplete)
		return r;
	r = c->bad_refcounts ? rebuild_refcounts(c) : fix_refcounts(c, RAISE);
	if (r == 0)
		r = check_scan(c);
	if (r == 0)
		r = fix_copied(c);
	if (r == 0)
		r = lower_refcounts(c);
	/* lowering may have made a refcount one */
	if (r == 0)
		r = check_scan(c);
	return r < 0 ? r : fix_copied(c);
}

/* Only free what nothing refers to, and only if that is certain. */
static int repair_leaks(struct check *c)
{
	bool sound = c->res.corruptions == 0;
	int r;

	if (!c->res.leaks || c->incomplete || c->bad_entries || c->bad_refcounts)
		return 0;
	r = lower_refcounts(c);
	if (r == 0)
		r = check_scan(c);
	return r == 0 && sound ? fix_copied(c) : r;
}

static uint64_t fixed(uint64_t before, uint64_t after)
{
	return before > after ? before - after : 0;
}

int check_repair(struct check *c, unsigned flags)
{
	struct vdisk_check_result before = c->res;
	bool all = flags & VDISK_CHECK_REPAIR;
	int r = 0;

	c->quiet = true;
	if (before.corruptions || before.leaks)
		r = all ? repair_all(c, flags) : repair_leaks(c);
	if (r == 0)
		r = check_scan(c);
	if (r < 0)
		return r;
	c->res.corruptions_fixed = fixed(before.corruptions, c->res.corruptions);
	c->res.leaks_fixed = fixed(before.leaks, c->res.leaks);
	if (all && !c->res.corruptions && !c->res.errors)
		return clear_marks(c);
	return 0;
}
