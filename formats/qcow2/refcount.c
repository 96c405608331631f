/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refcount.c - which clusters of the file are taken: counting and allocating
 *
 * Counts are changed in the cached refcount blocks and reach the medium in
 * flush.c.  Allocation is first fit behind a hint that only moves over clusters
 * known to be taken, so a sequential writer finds its next cluster at once and
 * does no I/O.  A stretch of the file without a refcount block is free as a
 * whole; its block is put in its own first cluster and counts itself.
 */
#include <errno.h>

#include "formats/qcow2/state.h"

/* Offsets in entries have 56 bits; files are smaller. */
#define MAX_OFFSET	(UINT64_C(1) << 55)

static uint64_t per_block(const struct qcow2 *q)
{
	return UINT64_C(1) << q->block_bits;
}

int qcow2_refcount(struct qcow2 *q, uint64_t cluster, bool nowait, uint64_t *out)
{
	uint64_t b = cluster >> q->block_bits;
	struct qcow2_table *t;
	int r;

	if (b >= q->reftable_entries || !(q->reftable[b] & QCOW2_REFTABLE_MASK)) {
		*out = 0;
		return 0;
	}
	r = qcow2_table_get(q, true, (uint32_t)b, nowait, &t);
	if (r == 0)
		*out = qcow2_refcount_get(t->data, q->h.refcount_order,
					  cluster & (per_block(q) - 1));
	return r;
}

static void put(struct qcow2 *q, struct qcow2_table *t, uint64_t first, uint64_t n, uint64_t v)
{
	unsigned order = q->h.refcount_order;

	for (uint64_t i = first; i < first + n; i++)
		qcow2_refcount_put(t->data, order, i, v);
	qcow2_table_dirty(q, t, (first << order) >> 3, (((first + n) << order) + 7) >> 3);
}

/* ---- the refcount table ---- */

/* Room for entry @b in memory; its place in the file is found when it is written. */
static int reftable_grow(struct qcow2 *q, uint64_t b)
{
	uint64_t per_cluster = q->cluster_size / 8;
	uint64_t n = MAX(b + 1, (uint64_t)q->reftable_entries + q->reftable_entries / 2);
	struct qcow2_table **blocks;
	uint64_t *table;

	n = vd_align_up(n, per_cluster);
	if (n > QCOW2_MAX_REFTABLE_BYTES / 8)
		n = QCOW2_MAX_REFTABLE_BYTES / 8;
	if (b >= n)
		return -EFBIG;
	table = realloc(q->reftable, n * 8);
	if (!table)
		return -ENOMEM;
	q->reftable = table;
	blocks = realloc(q->blocks, n * sizeof(struct qcow2_table *));
	if (!blocks)
		return -ENOMEM;
	q->blocks = blocks;
	memset(table + q->reftable_entries, 0, (n - q->reftable_entries) * 8);
	memset(blocks + q->reftable_entries, 0,
	       (n - q->reftable_entries) * sizeof(struct qcow2_table *));
	q->reftable_entries = (uint32_t)n;
	q->reftable_grown = true;
	return 0;
}

static void note_fresh(struct qcow2 *q, uint64_t first, uint64_t n)
{
	q->fresh_from = MAX(q->fresh_from, (first + n) << q->cluster_bits);
}

/* A block for stretch @b, which has none, in cluster @at.  Its own count is the
 * caller's to set. */
static int block_new(struct qcow2 *q, uint64_t b, uint64_t at, struct qcow2_table **out)
{
	int r;

	if (b >= q->reftable_entries) {
		r = reftable_grow(q, b);
		if (r < 0)
			return r;
	}
	r = qcow2_table_new(q, true, (uint32_t)b, at << q->cluster_bits, out);
	if (r < 0)
		return r;
	q->reftable[b] = at << q->cluster_bits;
	if (q->reftable_dirty_lo >= q->reftable_dirty_hi) {
		q->reftable_dirty_lo = (uint32_t)b;
		q->reftable_dirty_hi = (uint32_t)b + 1;
	} else {
		q->reftable_dirty_lo = MIN(q->reftable_dirty_lo, (uint32_t)b);
		q->reftable_dirty_hi = MAX(q->reftable_dirty_hi, (uint32_t)b + 1);
	}
	note_fresh(q, at, 1);
	return 0;
}

static bool overlaps(uint64_t off, uint64_t len, uint64_t at, uint64_t size)
{
	return size && off < at + size && at < off + len;
}

/* A damaged image may count a table of its own as free: never write over one. */
static bool overlaps_metadata(const struct qcow2 *q, uint64_t first, uint64_t n)
{
	uint64_t off = first << q->cluster_bits, len = n << q->cluster_bits;

	return off == 0 || overlaps(off, len, q->h.l1_offset, (uint64_t)q->h.l1_size * 8) ||
	       overlaps(off, len, q->h.reftable_offset,
			(uint64_t)q->h.reftable_clusters << q->cluster_bits) ||
	       overlaps(off, len, q->h.snapshots_offset, q->h.n_snapshots ? q->cluster_size : 0);
}

static bool has_block(const struct qcow2 *q, uint64_t b)
{
	return b < q->reftable_entries && (q->reftable[b] & QCOW2_REFTABLE_MASK);
}

/* The block of stretch @b, made if there is none. */
static int block_get(struct qcow2 *q, uint64_t b, bool nowait, struct qcow2_table **out)
{
	uint64_t at = b << q->block_bits;
	int r;

	if (has_block(q, b))
		return qcow2_table_get(q, true, (uint32_t)b, nowait, out);
	if (b == 0)
		return -EIO;	/* then nothing counts the header */
	if (overlaps_metadata(q, at, 1))
		return -EIO;
	r = qcow2_table_room(q, nowait);
	if (r == 0)
		r = block_new(q, b, at, out);
	if (r == 0)
		put(q, *out, 0, 1, 1);
	return r;
}

static int add(struct qcow2 *q, uint64_t first, uint64_t n, int delta, uint64_t *done)
{
	uint64_t max = qcow2_refcount_max(&q->h);

	for (uint64_t c = first; c < first + n; *done = c - first) {
		uint64_t i = c & (per_block(q) - 1), v;
		struct qcow2_table *t;
		int r;

		if (!has_block(q, c >> q->block_bits))
			return -EIO;
		r = qcow2_table_get(q, true, (uint32_t)(c >> q->block_bits), false, &t);
		if (r < 0)
			return r;
		if (r == QCOW2_RETRY)
			continue;
		v = qcow2_refcount_get(t->data, q->h.refcount_order, i);
		if (delta < 0 ? v < 1 : v >= max)
			return -ERANGE;
		v += (uint64_t)(int64_t)delta;
		put(q, t, i, 1, v);
		if (v == 0) {
			q->hint = MIN(q->hint, c);
			/* nobody may go on in a cluster that is free */
			if (q->byte_off >> q->cluster_bits == c)
				q->byte_off = 0;
		}
		c++;
	}
	return 0;
}

int qcow2_refcount_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta)
{
	uint64_t done = 0, undone;
	int r = add(q, first, n, delta, &done);

	if (r < 0 && delta > 0)
		(void)!add(q, first, done, -1, &undone);	/* else they leak */
	return r;
}

/* ---- allocation ---- */

/* The first zero at or after @i, or the end of the block. */
static uint64_t find_zero(const struct qcow2 *q, const struct qcow2_table *t, uint64_t i)
{
	unsigned order = q->h.refcount_order;
	uint64_t n = per_block(q);

	while (i < n) {
		if (order == 4 && !(i & 3) && i + 4 <= n) {
			uint64_t v = load_be64(t->data + i * 2);

			/* is no 16-bit field of v zero? */
			if (!((v - UINT64_C(0x0001000100010001)) & ~v &
			      UINT64_C(0x8000800080008000))) {
				i += 4;
				continue;
			}
		}
		if (!qcow2_refcount_get(t->data, order, i))
			return i;
		i++;
	}
	return n;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, bool nowait, uint64_t *first, uint64_t *n,
		bool *fresh)
{
	uint64_t max = MAX_OFFSET >> q->cluster_bits;

	while (q->hint < max) {
		uint64_t b = q->hint >> q->block_bits, base = b << q->block_bits, i, e;
		struct qcow2_table *t;
		int r = block_get(q, b, nowait, &t);

		if (r)
			return r;
		i = find_zero(q, t, q->hint - base);
		if (i == per_block(q)) {
			q->hint = base + i;
			continue;
		}
		for (e = i + 1; e < per_block(q) && e - i < want; e++)
			if (qcow2_refcount_get(t->data, q->h.refcount_order, e))
				break;
		if (overlaps_metadata(q, base + i, e - i))
			return -EIO;
		put(q, t, i, e - i, 1);
		q->hint = base + e;
		*first = base + i;
		*n = e - i;
		*fresh = *first << q->cluster_bits >= q->fresh_from;
		note_fresh(q, *first, *n);
		return 0;
	}
	return -ENOSPC;
}

/* The last cluster of [first, first + n) that is taken, or -ENOENT. */
static int last_taken(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *out)
{
	for (uint64_t c = first + n; c-- > first;) {
		uint64_t v = 0;
		int r = qcow2_refcount(q, c, false, &v);

		if (r < 0)
			return r;
		if (r == QCOW2_RETRY) {
			c++;
			continue;
		}
		if (v) {
			*out = c;
			return 0;
		}
	}
	return -ENOENT;
}

int qcow2_last_used(struct qcow2 *q, uint64_t *out)
{
	for (uint64_t b = q->reftable_entries; b-- > 0;) {
		int r = has_block(q, b) ? last_taken(q, b << q->block_bits, per_block(q), out) :
					  -ENOENT;

		if (r != -ENOENT)
			return r;
	}
	return -ENOENT;
}

/* Refcount blocks for all of [first, first + *n), which is free; those that are
 * missing go behind it, and *n grows by them. */
static int cover(struct qcow2 *q, uint64_t first, uint64_t *n)
{
	uint64_t begin = first >> q->block_bits, old = *n;
	struct qcow2_table *t;
	int r = 0;

	for (uint64_t b = begin; r == 0 && b <= (first + *n - 1) >> q->block_bits; b++) {
		if (has_block(q, b))
			continue;
		r = block_new(q, b, first + *n, &t);
		*n += r == 0;
	}
	/* on failure they are not counted, so they must not be */
	for (uint64_t b = begin; r < 0 && b < q->reftable_entries; b++) {
		uint64_t at = q->reftable[b] >> q->cluster_bits;

		if (at >= first + old && at < first + *n) {
			qcow2_table_drop(q, q->blocks[b]);
			q->reftable[b] = 0;
		}
	}
	return r;
}

int qcow2_alloc_run(struct qcow2 *q, uint64_t n, uint64_t *out)
{
	uint64_t first, got, all;
	bool fresh;
	int r;

	if (n == 1) {
		do
			r = qcow2_alloc(q, 1, false, out, &got, &fresh);
		while (r == QCOW2_RETRY);
		return r;
	}
	/* behind everything: the file, and what is allocated but not yet written */
	first = MAX(vd_align_up(atomic_load(&q->file->size), q->cluster_size), q->fresh_from) >>
		q->cluster_bits;
	all = n + (n >> q->block_bits) + 3;	/* with the blocks that cover() may add */
	while (!(r = last_taken(q, first, all, &got)))
		first = got + 1;
	if (r != -ENOENT)
		return r;
	if (first + all > MAX_OFFSET >> q->cluster_bits)
		return -ENOSPC;
	all = n;
	r = cover(q, first, &all);
	if (r == 0)
		r = qcow2_refcount_add(q, first, all, 1);
	if (r < 0)
		return r;
	note_fresh(q, first, all);
	*out = first;
	return 0;
}

int qcow2_alloc_bytes(struct qcow2 *q, uint64_t len, bool nowait, uint64_t *off)
{
	uint64_t limit = UINT64_C(1) << (62 - (q->cluster_bits - 8));
	uint64_t at = q->byte_off, cur = at >> q->cluster_bits, first, n, count = 0;
	uint64_t left = at ? q->cluster_size - (at & (q->cluster_size - 1)) : 0;
	bool fresh;
	int r;

	if (left) {
		r = qcow2_refcount(q, cur, nowait, &count);
		if (r)
			return r;
		if (count >= qcow2_refcount_max(&q->h))
			left = 0;
	}
	if (len > left) {
		r = qcow2_alloc(q, 1, nowait, &first, &n, &fresh);
		if (r)
			return r;
		/* go on over the border if the new cluster is the next one */
		if (!left || first != cur + 1)
			at = first << q->cluster_bits, left = 0;
	}
	if (left) {
		r = qcow2_refcount_add(q, cur, 1, 1);	/* cached: see above */
		if (r < 0)
			return r;
	}
	if (at + len >= limit)
		return -ENOSPC;
	*off = at;
	q->byte_off = (at + len) & (q->cluster_size - 1) ? at + len : 0;
	return 0;
}

/* ---- freeing ---- */

static void freed_add(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t txn, bool punch)
{
	unsigned grace = vd_grace_now(q->disk);
	struct qcow2_freed *f = q->n_freed ? &q->freed[q->n_freed - 1] : NULL;

	if (f && f->txn == txn && f->grace == grace && f->punch == punch &&
	    f->first + f->n == first) {
		f->n += n;
		return;
	}
	if (!q->freed || q->n_freed == q->freed_space) {
		size_t space = MAX(q->freed_space * 2, (size_t)64);

		f = realloc(q->freed, space * sizeof(*f));
		if (!f)
			return;	/* leaked: allowed */
		q->freed = f;
		q->freed_space = space;
	}
	q->freed[q->n_freed++] = (struct qcow2_freed){
		.first = first, .n = n, .txn = txn, .grace = grace, .punch = punch,
	};
}

void qcow2_free(struct qcow2 *q, uint64_t first, uint64_t n, bool punch)
{
	freed_add(q, first, n, q->txn, punch);
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n)
{
	freed_add(q, first, n, 0, false);
}

/* Is the count of all of them one, so that it will be zero? */
static bool last_user(struct qcow2 *q, uint64_t first, uint64_t n)
{
	for (uint64_t c = first; c < first + n;) {
		uint64_t v = 0;
		int r = qcow2_refcount(q, c, false, &v);

		if (r == QCOW2_RETRY)
			continue;
		if (r < 0 || v != 1)
			return false;
		c++;
	}
	return true;
}

void qcow2_release(struct qcow2 *q)
{
	for (size_t i = 0; i < q->n_freed;) {
		struct qcow2_freed f = q->freed[i];

		/* (asked first, as asking is what lets the grace period end) */
		if (!vd_grace_over(q->disk, f.grace) || f.txn > q->durable_txn) {
			i++;
			continue;
		}
		q->freed[i] = q->freed[--q->n_freed];
		/* before the count says free: then it is somebody else's */
		if (f.punch && last_user(q, f.first, f.n)) {
			pthread_mutex_unlock(&q->lock);
			vd_discard_hint(q->file, f.first << q->cluster_bits,
					f.n << q->cluster_bits);
			pthread_mutex_lock(&q->lock);
		}
		/* an error leaks them */
		(void)!qcow2_refcount_add(q, f.first, f.n, -1);
	}
}
