/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flush.c - dirty metadata goes to the medium, in an order that is always safe
 *
 * One write-out at a time: take a copy of everything that is dirty at one
 * instant (R4), then, with no lock held,
 *
 *	refcount blocks
 *	    barrier, refcount table [, barrier, header]	if the table changed
 *	    barrier (of the data file too)			R1, R2
 *	L2 tables
 *	    barrier, L1 table					if the L1 changed
 *
 * The barrier before the L2 tables also makes the guest data durable that new
 * entries point to, and everything the write-out before this one has written:
 * then clusters freed before that one are free (R3).  The barrier behind the
 * last step is the caller's.
 *
 * If a step fails, all that was copied is dirty again.  What has been written
 * by then is safe by the same order.
 */
#include <errno.h>

#include "formats/qcow2/state.h"

/* A piece of metadata on its way. */
struct piece {
	struct qcow2_table *table;	/* pinned; NULL: the L1 or refcount table */
	uint8_t *data;			/* owned */
	uint64_t off;
	uint32_t lo, hi;		/* bytes, or entries of L1 and refcount table */
	bool refcounts;
};

struct batch {
	struct piece *pieces;		/* owned */
	size_t n;
	struct piece l1, reftable;
	bool moved;			/* the refcount table has a new place */
	uint64_t old_reftable, old_clusters;
};

static int copy_table(struct batch *b, struct qcow2_table *t)
{
	struct piece *p = &b->pieces[b->n];

	*p = (struct piece){
		.table = t, .off = t->off + t->dirty_lo, .lo = t->dirty_lo, .hi = t->dirty_hi,
		.refcounts = t->refblock, .data = malloc(t->dirty_hi - t->dirty_lo),
	};
	if (!p->data)
		return -ENOMEM;
	memcpy(p->data, t->data + t->dirty_lo, t->dirty_hi - t->dirty_lo);
	t->pins++;
	b->n++;
	return 0;
}

/* Entries [lo, hi) of a table in host order, widened to whole sectors. */
static int copy_entries(struct piece *p, const uint64_t *entries, uint32_t n, uint64_t at,
			uint32_t lo, uint32_t hi)
{
	lo = (uint32_t)vd_align_down(lo, 64);
	hi = (uint32_t)MIN(vd_align_up(hi, 64), (uint64_t)n);
	p->data = malloc((hi - lo) * 8u);
	if (!p->data)
		return -ENOMEM;
	p->lo = lo;
	p->hi = hi;
	p->off = at + lo * UINT64_C(8);
	for (uint32_t i = lo; i < hi; i++)
		store_be64(p->data + (i - lo) * 8u, entries[i]);
	return 0;
}

/* A refcount table that has grown gets its place now. */
static int place_reftable(struct qcow2 *q, struct batch *b)
{
	uint64_t clusters, first;
	int r;

	if (!q->reftable_grown)
		return 0;
	do {
		clusters = vd_align_up(q->reftable_entries * UINT64_C(8), q->cluster_size) >>
			   q->cluster_bits;
		r = qcow2_alloc_run(q, clusters, &first);
		if (r < 0)
			return r;
		/* finding a place may have made it grow once more */
		if (vd_align_up(q->reftable_entries * UINT64_C(8), q->cluster_size) >>
		    q->cluster_bits == clusters)
			break;
		qcow2_unalloc(q, first, clusters);
	} while (true);
	b->moved = true;
	b->old_reftable = q->h.reftable_offset;
	b->old_clusters = q->h.reftable_clusters;
	q->h.reftable_offset = first << q->cluster_bits;
	q->h.reftable_clusters = (uint32_t)clusters;
	q->reftable_grown = false;
	q->reftable_dirty_lo = 0;
	q->reftable_dirty_hi = q->reftable_entries;
	return 0;
}

static int copy_all(struct qcow2 *q, struct batch *b, bool refs)
{
	struct qcow2_table *t;
	int r = 0;

	if (refs) {
		r = place_reftable(q, b);
		if (r < 0)
			return r;
	}
	b->pieces = calloc(q->n_dirty + 1, sizeof(*b->pieces));
	if (!b->pieces)
		return -ENOMEM;
	TAILQ_FOREACH(t, &q->dirty, link)
		if (refs || !t->refblock) {
			r = copy_table(b, t);
			if (r < 0)
				return r;
		}
	if (qcow2_l1_dirty(q))
		r = copy_entries(&b->l1, q->l1, q->h.l1_size, q->h.l1_offset, q->l1_dirty_lo,
				 q->l1_dirty_hi);
	if (r == 0 && refs && qcow2_reftable_dirty(q))
		r = copy_entries(&b->reftable, q->reftable, q->reftable_entries,
				 q->h.reftable_offset, q->reftable_dirty_lo, q->reftable_dirty_hi);
	return r;
}

static void all_clean(struct qcow2 *q, struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		qcow2_table_clean(q, b->pieces[i].table);
	if (b->l1.data)
		q->l1_dirty_lo = q->l1_dirty_hi = 0;
	if (b->reftable.data)
		q->reftable_dirty_lo = q->reftable_dirty_hi = 0;
}

static void widen(uint32_t *lo, uint32_t *hi, const struct piece *p)
{
	if (*lo >= *hi)
		*lo = p->lo, *hi = p->hi;
	*lo = MIN(*lo, p->lo);
	*hi = MAX(*hi, p->hi);
}

static void all_dirty(struct qcow2 *q, struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		qcow2_table_dirty(q, b->pieces[i].table, b->pieces[i].lo, b->pieces[i].hi);
	if (b->l1.data)
		widen(&q->l1_dirty_lo, &q->l1_dirty_hi, &b->l1);
	if (b->reftable.data)
		widen(&q->reftable_dirty_lo, &q->reftable_dirty_hi, &b->reftable);
}

static int write_pieces(struct qcow2 *q, struct batch *b, bool refcounts)
{
	for (size_t i = 0; i < b->n; i++) {
		struct piece *p = &b->pieces[i];
		int r;

		if (p->refcounts != refcounts)
			continue;
		r = vd_pwrite(q->file, p->data, p->hi - p->lo, p->off);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_reftable(struct qcow2 *q, struct batch *b)
{
	struct piece *p = &b->reftable;
	int r = vd_flush(q->file);

	if (r == 0)
		r = vd_pwrite(q->file, p->data, (p->hi - p->lo) * 8u, p->off);
	if (r == 0 && b->moved)
		r = vd_flush(q->file);
	if (r == 0 && b->moved)
		r = qcow2_poke_header(q);
	return r;
}

static int write_batch(struct qcow2 *q, struct batch *b)
{
	int r = write_pieces(q, b, true);

	if (r == 0 && b->reftable.data)
		r = write_reftable(q, b);
	if (r == 0 && q->disk->data)
		r = vd_flush(q->disk->data);
	if (r == 0)
		r = vd_flush(q->file);
	if (r < 0)
		return r;
	pthread_mutex_lock(&q->lock);
	q->durable_txn = q->written_txn;
	pthread_mutex_unlock(&q->lock);

	r = write_pieces(q, b, false);
	if (r == 0 && b->l1.data)
		r = vd_flush(q->file);
	if (r == 0 && b->l1.data)
		r = vd_pwrite(q->file, b->l1.data, (b->l1.hi - b->l1.lo) * 8u, b->l1.off);
	return r;
}

/* Under the lock, q->flushing is ours. */
static int writeout(struct qcow2 *q, bool refs)
{
	struct batch b = { 0 };
	uint64_t txn;
	int r = copy_all(q, &b, refs);

	if (r == 0) {
		all_clean(q, &b);
		txn = q->txn++;
		pthread_mutex_unlock(&q->lock);
		r = write_batch(q, &b);
		pthread_mutex_lock(&q->lock);
		if (r < 0)
			all_dirty(q, &b);
		else
			q->written_txn = txn;
	}
	if (b.moved && r == 0)
		qcow2_free(q, b.old_reftable >> q->cluster_bits, b.old_clusters, false);
	else if (b.moved)
		/* the header may say the one or the other: keep both, write the new one again */
		q->reftable_grown = true;
	for (size_t i = 0; i < b.n; i++) {
		b.pieces[i].table->pins--;
		free(b.pieces[i].data);
	}
	free(b.pieces);
	free(b.l1.data);
	free(b.reftable.data);
	return r;
}

int qcow2_writeout(struct qcow2 *q, bool refs)
{
	int r;

	while (q->flushing)
		pthread_cond_wait(&q->cond, &q->lock);
	q->flushing = true;
	r = writeout(q, refs);
	if (r == 0)
		qcow2_release(q);
	q->flushing = false;
	pthread_cond_broadcast(&q->cond);
	return r;
}

/*
 * Nothing is dirty, but clusters were freed before the last write-out: as that is on the
 * medium now, they are free.  Else the space that a guest has discarded would come back
 * only when it changes a table again.
 */
static int free_written(struct qcow2 *q)
{
	uint64_t written = q->written_txn;
	int r = 0;

	if (q->durable_txn < written) {
		q->flushing = true;
		pthread_mutex_unlock(&q->lock);
		r = vd_flush(q->file);
		pthread_mutex_lock(&q->lock);
		if (r == 0)
			q->durable_txn = written;
		q->flushing = false;
		pthread_cond_broadcast(&q->cond);
	}
	if (r == 0)
		qcow2_release(q);
	return r;
}

int qcow2_flush(struct vdisk *disk, bool nowait)
{
	struct qcow2 *q = disk->priv;
	int r = 0;

	pthread_mutex_lock(&q->lock);
	if (q->flushing || q->n_dirty_l2 || qcow2_l1_dirty(q)) {
		while (!nowait && q->flushing)
			pthread_cond_wait(&q->cond, &q->lock);
		/* refcounts alone are of no use to anyone yet: they can wait */
		if (nowait)
			r = -EAGAIN;
		else if (q->n_dirty_l2 || qcow2_l1_dirty(q))
			r = qcow2_writeout(q, !q->lazy);
	} else if (q->n_freed) {
		r = nowait ? -EAGAIN : free_written(q);
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

int qcow2_settle(struct qcow2 *q)
{
	size_t freed = SIZE_MAX;
	int r = 0;

	pthread_mutex_lock(&q->lock);
	while (r == 0) {
		bool dirty = q->n_dirty || qcow2_l1_dirty(q) || qcow2_reftable_dirty(q);

		if (dirty)
			r = qcow2_writeout(q, true);
		if (r < 0)
			break;
		pthread_mutex_unlock(&q->lock);
		r = vd_flush(q->file);
		pthread_mutex_lock(&q->lock);
		if (r < 0)
			break;
		/* no table is newer than the medium, so nothing there refers to
		 * what has been freed */
		if (!q->n_dirty_l2 && !qcow2_l1_dirty(q))
			q->written_txn = q->txn++;
		q->durable_txn = q->written_txn;
		qcow2_release(q);
		if (!q->n_dirty && (!q->n_freed || q->n_freed == freed))
			break;
		freed = q->n_freed;
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}
