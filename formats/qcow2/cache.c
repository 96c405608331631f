/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cache.c - L2 tables and refcount blocks in memory
 *
 * Found by an array index (q->l2 by L1 index, q->blocks by refcount table
 * index), so that the hot path has no search.  Bounded; the clock algorithm
 * picks a clean, unpinned table to forget.  A table that is being read is a
 * placeholder that others wait for.
 */
#include <errno.h>

#include "formats/qcow2/state.h"

static struct qcow2_table **home(struct qcow2 *q, bool refblock, uint32_t index)
{
	return refblock ? &q->blocks[index] : &q->l2[index];
}

static void table_free(struct qcow2_table *t)
{
	free(t->data);
	free(t);
}

static void unlist(struct qcow2 *q, struct qcow2_table *t)
{
	struct qcow2_table *last = q->tables[--q->n_tables];

	q->tables[t->slot] = last;
	last->slot = t->slot;
	*home(q, t->refblock, t->index) = NULL;
}

/* A table whose memory can be had: second chance for what was used. */
static struct qcow2_table *victim(struct qcow2 *q)
{
	for (size_t n = 2 * q->n_tables; n; n--) {
		struct qcow2_table *t;

		if (q->hand >= q->n_tables)
			q->hand = 0;
		t = q->tables[q->hand++];
		if (t->dirty || t->pins || t->loading)
			continue;
		if (!t->used)
			return t;
		t->used = false;
	}
	return NULL;
}

int qcow2_table_room(struct qcow2 *q, bool nowait)
{
	bool much = q->n_dirty * q->cluster_size >= QCOW2_DIRTY_BYTES;
	struct qcow2_table *t;
	int r;

	if (q->n_tables < q->max_tables && !much)
		return 0;
	t = q->n_tables >= q->max_tables ? victim(q) : NULL;
	if (t)
		qcow2_table_drop(q, t);
	if (t && !much)
		return 0;
	if (nowait)
		return -EAGAIN;
	/* Over the limits where all are pinned, and in the write-out itself,
	 * which cannot wait for one. */
	if (!q->n_dirty || q->flushing)
		return 0;
	r = qcow2_writeout(q, true);
	return r < 0 ? r : QCOW2_RETRY;
}

static int make(struct qcow2 *q, bool refblock, uint32_t index, uint64_t off,
		struct qcow2_table **out)
{
	struct qcow2_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->data = calloc(1, q->cluster_size);
	if (t->data && q->n_tables == q->tables_space) {
		size_t n = MAX(q->tables_space * 2, (size_t)16);
		struct qcow2_table **p = realloc(q->tables, n * sizeof(struct qcow2_table *));

		if (p) {
			q->tables = p;
			q->tables_space = n;
		}
	}
	if (!t->data || q->n_tables == q->tables_space) {
		table_free(t);
		return -ENOMEM;
	}
	t->refblock = refblock;
	t->index = index;
	t->off = off;
	t->used = true;
	t->slot = (unsigned)q->n_tables;
	q->tables[q->n_tables++] = t;
	*home(q, refblock, index) = t;
	*out = t;
	return 0;
}

int qcow2_table_new(struct qcow2 *q, bool refblock, uint32_t index, uint64_t off,
		    struct qcow2_table **out)
{
	int r = make(q, refblock, index, off, out);

	if (r == 0)
		qcow2_table_dirty(q, *out, 0, q->cluster_size);
	return r;
}

/* Read a table in; the lock is dropped meanwhile. */
static int load(struct qcow2 *q, bool refblock, uint32_t index)
{
	uint64_t off = refblock ? q->reftable[index] & QCOW2_REFTABLE_MASK :
				  q->l1[index] & QCOW2_OFFSET_MASK;
	uint64_t size = atomic_load(&q->file->size);
	struct qcow2_table *t = NULL;
	int r;

	if (!off || (off & (q->cluster_size - 1)) || off >= size)
		return -EIO;
	r = make(q, refblock, index, off, &t);
	if (r < 0)
		return r;
	t->loading = true;
	pthread_mutex_unlock(&q->lock);
	r = vd_pread_pad(q->file, t->data, q->cluster_size, off);
	pthread_mutex_lock(&q->lock);
	t->loading = false;
	if (r < 0)
		qcow2_table_drop(q, t);
	pthread_cond_broadcast(&q->cond);
	return r;
}

int qcow2_table_get(struct qcow2 *q, bool refblock, uint32_t index, bool nowait,
		    struct qcow2_table **out)
{
	struct qcow2_table *t = *home(q, refblock, index);
	int r;

	if (likely(t && !t->loading)) {
		t->used = true;
		*out = t;
		return 0;
	}
	if (nowait)
		return -EAGAIN;
	if (t) {
		pthread_cond_wait(&q->cond, &q->lock);
		return QCOW2_RETRY;
	}
	r = qcow2_table_room(q, false);
	if (r == 0)
		r = load(q, refblock, index);
	return r < 0 ? r : QCOW2_RETRY;
}

void qcow2_table_dirty(struct qcow2 *q, struct qcow2_table *t, uint64_t lo, uint64_t hi)
{
	/* whole sectors, as far as a torn write is concerned */
	lo = vd_align_down(lo, 512);
	hi = vd_align_up(hi, 512);
	if (t->dirty) {
		t->dirty_lo = MIN(t->dirty_lo, (uint32_t)lo);
		t->dirty_hi = MAX(t->dirty_hi, (uint32_t)hi);
		return;
	}
	t->dirty = true;
	t->dirty_lo = (uint32_t)lo;
	t->dirty_hi = (uint32_t)hi;
	TAILQ_INSERT_TAIL(&q->dirty, t, link);
	q->n_dirty++;
	q->n_dirty_l2 += !t->refblock;
}

void qcow2_table_clean(struct qcow2 *q, struct qcow2_table *t)
{
	if (!t->dirty)
		return;
	t->dirty = false;
	TAILQ_REMOVE(&q->dirty, t, link);
	q->n_dirty--;
	q->n_dirty_l2 -= !t->refblock;
}

void qcow2_table_drop(struct qcow2 *q, struct qcow2_table *t)
{
	qcow2_table_clean(q, t);
	unlist(q, t);
	table_free(t);
}
