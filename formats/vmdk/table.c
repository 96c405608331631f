/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * table.c - grain tables in memory
 *
 * Found by their index in the extent's directory.  Bounded; the clock algorithm picks
 * a clean table that nobody holds to be forgotten.  A table that is being read is a
 * placeholder that others wait for.
 */
#include <errno.h>

#include "formats/vmdk/state.h"

static void drop(struct vmdk *v, struct vmdk_table *t)
{
	struct vmdk_table *last = v->table[--v->n_tables];

	v->table[t->slot] = last;
	last->slot = t->slot;
	t->x->table[t->index] = NULL;
	free(t);
}

/* A table whose memory can be had: second chance for what was used. */
static struct vmdk_table *victim(struct vmdk *v)
{
	for (size_t n = 2 * v->n_tables; n; n--) {
		struct vmdk_table *t;

		if (v->hand >= v->n_tables)
			v->hand = 0;
		t = v->table[v->hand++];
		if (t->dirty || t->pins || t->loading)
			continue;
		if (!t->used)
			return t;
		t->used = false;
	}
	return NULL;
}

int vmdk_table_room(struct vmdk *v, bool nowait)
{
	bool much = v->n_dirty >= v->max_dirty;
	struct vmdk_table *t;
	int r;

	if (v->n_tables < v->max_tables && !much)
		return 0;
	t = v->n_tables >= v->max_tables ? victim(v) : NULL;
	if (t)
		drop(v, t);
	/* a stream's tables are written at its end; all of them fit (open.c) */
	if ((t && !much) || v->stream)
		return 0;
	if (nowait)
		return -EAGAIN;
	if (!v->n_dirty)
		return 0;	/* over the limit, where all are held */
	r = vmdk_writeout(v);
	return r < 0 ? r : VMDK_RETRY;
}

int vmdk_table_new(struct vmdk *v, struct vmdk_extent *x, uint32_t index,
		   struct vmdk_table **out)
{
	struct vmdk_table *t;

	if (v->n_tables == v->tables_space) {
		size_t n = MAX(v->tables_space * 2, (size_t)16);
		struct vmdk_table **more = reallocarray(v->table, n, sizeof(struct vmdk_table *));

		if (!more)
			return -ENOMEM;
		v->table = more;
		v->tables_space = n;
	}
	t = calloc(1, sizeof(*t) + vmdk_table_bytes(x));
	if (!t)
		return -ENOMEM;
	t->x = x;
	t->index = index;
	t->used = true;
	t->slot = (unsigned)v->n_tables;
	v->table[v->n_tables++] = t;
	x->table[index] = t;
	*out = t;
	return 0;
}

/* Read a table in; the lock is dropped meanwhile. */
static int load(struct vmdk *v, struct vmdk_extent *x, uint32_t index)
{
	uint64_t at = (uint64_t)x->gd[index] * VMDK_SECTOR;
	struct vmdk_table *t;
	int r;

	if (!vd_in_range(at, vmdk_table_bytes(x), x->file->size))
		return -EIO;
	r = vmdk_table_new(v, x, index, &t);
	if (r < 0)
		return r;
	t->loading = true;
	pthread_mutex_unlock(&v->lock);
	r = vd_pread(x->file, t->gte, vmdk_table_bytes(x), at);
	pthread_mutex_lock(&v->lock);
	t->loading = false;
	if (r < 0)
		drop(v, t);
	pthread_cond_broadcast(&v->cond);
	return r;
}

int vmdk_table_get(struct vmdk *v, struct vmdk_extent *x, uint32_t index, bool nowait,
		   struct vmdk_table **out)
{
	struct vmdk_table *t = x->table[index];
	int r;

	if (likely(t && !t->loading)) {
		t->used = true;
		*out = t;
		return 0;
	}
	if (nowait)
		return -EAGAIN;
	if (t) {
		pthread_cond_wait(&v->cond, &v->lock);
		return VMDK_RETRY;
	}
	r = vmdk_table_room(v, false);
	if (r == 0)
		r = load(v, x, index);
	return r < 0 ? r : VMDK_RETRY;
}

void vmdk_table_dirty(struct vmdk *v, struct vmdk_table *t)
{
	v->n_dirty += !t->dirty;
	t->dirty = true;
}

void vmdk_tables_free(struct vmdk *v)
{
	while (v->n_tables)
		drop(v, v->table[0]);
	free(v->table);
}
