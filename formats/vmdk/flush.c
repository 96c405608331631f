/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flush.c - the first write's duties, and metadata on its way out
 *
 * Before the first write the descriptor gets another content ID, so that images on top
 * of this one can tell that it changed, and each sparse file the mark that it is open.
 *
 * A write-out is: copy what is dirty (V3); flush the files, so that the data it points
 * to is durable, and so is what earlier write-outs wrote (V1, V2); write the tables;
 * if a directory changed, flush again and write that.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "formats/vmdk/state.h"

static int flush_files(const struct vmdk *v)
{
	int r = 0;

	for (unsigned i = 0; i < v->n_x && r == 0; i++)
		if (v->x[i].kind == VMDK_SPARSE)
			r = vd_flush(v->x[i].file);
	return r;
}

/* ---- the first write ---- */

int vmdk_write_cid(struct vmdk *v, size_t at, unsigned digits, uint32_t cid)
{
	char text[9];
	int r;

	snprintf(text, sizeof(text), "%0*x", (int)digits, cid);
	if (strlen(text) != digits)
		return -ERANGE;
	r = vd_pwrite(v->desc_file, text, digits, v->desc_at + at);
	return r < 0 ? r : vd_flush(v->desc_file);
}

/* As many digits as there are now, so that nothing moves. */
static int change_cid(struct vmdk *v)
{
	uint32_t mask = v->d.cid_digits == 8 ? UINT32_MAX :
			(UINT32_C(1) << 4 * v->d.cid_digits) - 1;
	uint32_t cid;
	int r;

	do {
		if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
			return -EIO;
		cid &= mask;
	} while (cid == v->d.cid || cid == VMDK_NO_PARENT);
	r = vmdk_write_cid(v, v->d.cid_at, v->d.cid_digits, cid);
	if (r == 0)
		v->d.cid = cid;
	return r;
}

static int set_unclean(const struct vmdk *v, bool unclean)
{
	const uint8_t mark = unclean;
	int r = 0;

	for (unsigned i = 0; i < v->n_x && r == 0; i++)
		if (v->x[i].kind == VMDK_SPARSE)
			r = vd_pwrite(v->x[i].file, &mark, 1, VMDK_UNCLEAN_AT);
	return r < 0 ? r : flush_files(v);
}

static int first_write(struct vmdk *v)
{
	int r;

	/* over its old end, which says that nothing is there */
	if (v->stream)
		return vd_truncate(v->x[0].file, v->x[0].next);
	r = set_unclean(v, true);
	return r < 0 ? r : change_cid(v);
}

int vmdk_begin(struct vmdk *v, bool nowait)
{
	int r;

	if (v->finished || !v->writable)
		return -EROFS;
	if (atomic_load(&v->began))
		return 0;
	if (nowait)
		return -EAGAIN;
	if (v->busy) {
		pthread_cond_wait(&v->cond, &v->lock);
		return VMDK_RETRY;
	}
	v->busy = true;
	pthread_mutex_unlock(&v->lock);
	r = first_write(v);
	pthread_mutex_lock(&v->lock);
	v->busy = false;
	if (r == 0)
		atomic_store(&v->began, true);
	pthread_cond_broadcast(&v->cond);
	return r < 0 ? r : VMDK_RETRY;
}

/* ---- free space ---- */

void vmdk_drop(struct vmdk *v, struct vmdk_extent *x, uint64_t at, uint64_t len, uint64_t txn)
{
	struct vmdk_freed *last = v->n_freed ? &v->freed[v->n_freed - 1] : NULL;
	unsigned grace = vd_grace_now(v->disk);

	if (last && last->x == x && last->txn == txn && last->grace == grace &&
	    last->at + last->len == at) {
		last->len += len;
		return;
	}
	if (v->n_freed == v->freed_space) {
		size_t n = MAX(v->freed_space * 2, (size_t)16);
		struct vmdk_freed *more = reallocarray(v->freed, n, sizeof(*more));

		if (!more)
			return;
		v->freed = more;
		v->freed_space = n;
	}
	v->freed[v->n_freed++] = (struct vmdk_freed) { x, at, len, txn, grace };
}

static void give_out(struct vmdk_extent *x, uint64_t at, uint64_t len)
{
	if (x->n_free == x->free_space) {
		size_t n = MAX(x->free_space * 2, (size_t)16);
		struct vmdk_free *more = reallocarray(x->free, n, sizeof(*more));

		if (!more)
			return;
		x->free = more;
		x->free_space = n;
	}
	x->free[x->n_free++] = (struct vmdk_free) { at, len };
}

/* What can be used again becomes a hole first, while nobody can have it.  Drops the lock. */
static void release(struct vmdk *v)
{
	for (size_t i = 0; i < v->n_freed; ) {
		struct vmdk_freed f = v->freed[i];

		if (f.txn > v->durable_txn || !vd_grace_over(v->disk, f.grace)) {
			i++;
			continue;
		}
		v->freed[i] = v->freed[--v->n_freed];
		pthread_mutex_unlock(&v->lock);
		vd_discard_hint(f.x->file, f.at, f.len);
		pthread_mutex_lock(&v->lock);
		give_out(f.x, f.at, f.len);
	}
}

/* ---- write-outs ---- */

struct page {
	struct vmdk_table *t;
	uint64_t at, copy_at;	/* bytes in the file; 0: no second copy */
	uint8_t *bytes;		/* owned */
};

struct batch {
	struct page *page;	/* owned */
	size_t n;
	uint8_t **gd;		/* owned, and so are those in it: by extent, NULL: clean */
	uint64_t txn;
};

static void batch_free(struct batch *b, unsigned n_x)
{
	for (size_t i = 0; i < b->n; i++)
		free(b->page[i].bytes);
	for (unsigned i = 0; b->gd && i < n_x; i++)
		free(b->gd[i]);
	free(b->page);
	free(b->gd);
}

static int copy_directory(const struct vmdk_extent *x, uint8_t **out)
{
	size_t n = x->n_gd;
	uint8_t *p = malloc(n * 8);	/* both */

	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		store_le32(p + i * 4, x->gd[i]);
		store_le32(p + (n + i) * 4, x->rgd ? x->rgd[i] : 0);
	}
	*out = p;
	return 0;
}

static int copy_table(struct vmdk_table *t, struct page *page)
{
	struct vmdk_extent *x = t->x;

	*page = (struct page) {
		.t = t, .bytes = malloc(vmdk_table_bytes(x)),
		.at = (uint64_t)x->gd[t->index] * VMDK_SECTOR,
		.copy_at = x->rgd ? (uint64_t)x->rgd[t->index] * VMDK_SECTOR : 0,
	};
	if (!page->bytes)
		return -ENOMEM;
	memcpy(page->bytes, t->gte, vmdk_table_bytes(x));
	return 0;
}

/* Copy all that is dirty, which then no longer is.  An error changes nothing. */
static int collect(struct vmdk *v, struct batch *b)
{
	int r = 0;

	b->page = calloc(v->n_dirty + 1, sizeof(*b->page));
	b->gd = calloc(v->n_x, sizeof(uint8_t *));
	if (!b->page || !b->gd)
		return -ENOMEM;
	for (size_t i = 0; i < v->n_tables && r == 0; i++)
		if (v->table[i]->dirty)
			r = copy_table(v->table[i], &b->page[b->n++]);
	for (unsigned i = 0; i < v->n_x && r == 0; i++)
		if (v->x[i].gd_dirty)
			r = copy_directory(&v->x[i], &b->gd[i]);
	if (r < 0)
		return r;
	for (size_t i = 0; i < b->n; i++) {
		b->page[i].t->dirty = false;
		b->page[i].t->pins++;
	}
	for (unsigned i = 0; i < v->n_x; i++)
		v->x[i].gd_dirty = false;
	v->n_dirty = 0;
	b->txn = v->txn++;
	return 0;
}

static int write_batch(const struct vmdk *v, const struct batch *b)
{
	bool directories = false;
	int r = 0;

	for (size_t i = 0; i < b->n && r == 0; i++) {
		const struct page *p = &b->page[i];
		size_t len = vmdk_table_bytes(p->t->x);

		r = vd_pwrite(p->t->x->file, p->bytes, len, p->at);
		if (r == 0 && p->copy_at)
			r = vd_pwrite(p->t->x->file, p->bytes, len, p->copy_at);
	}
	for (unsigned i = 0; i < v->n_x; i++)
		directories |= b->gd[i] != NULL;
	if (r == 0 && directories)
		r = flush_files(v);
	for (unsigned i = 0; i < v->n_x && r == 0; i++) {
		const struct vmdk_extent *x = &v->x[i];
		size_t len = (size_t)x->n_gd * 4;

		if (!b->gd[i])
			continue;
		r = vd_pwrite(x->file, b->gd[i], len, x->h.gd_at * VMDK_SECTOR);
		if (r == 0 && x->rgd)
			r = vd_pwrite(x->file, b->gd[i] + len, len, x->h.rgd_at * VMDK_SECTOR);
	}
	return r;
}

/* It was not written: all of it is as dirty as before. */
static void take_back(struct vmdk *v, const struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		vmdk_table_dirty(v, b->page[i].t);
	for (unsigned i = 0; i < v->n_x; i++)
		v->x[i].gd_dirty |= b->gd[i] != NULL;
	for (size_t i = 0; i < v->n_freed; i++)
		if (v->freed[i].txn == b->txn)
			v->freed[i].txn = v->txn;
}

int vmdk_writeout(struct vmdk *v)
{
	struct batch b = { .n = 0 };
	int r, flushed;

	while (v->busy)
		pthread_cond_wait(&v->cond, &v->lock);
	r = collect(v, &b);
	if (r < 0) {
		batch_free(&b, v->n_x);
		return r;
	}
	v->busy = true;
	pthread_mutex_unlock(&v->lock);
	flushed = flush_files(v);
	r = flushed < 0 ? flushed : write_batch(v, &b);
	pthread_mutex_lock(&v->lock);
	for (size_t i = 0; i < b.n; i++)
		b.page[i].t->pins--;
	if (r < 0)
		take_back(v, &b);
	if (flushed == 0)
		v->durable_txn = b.txn - 1;
	release(v);
	v->busy = false;
	pthread_cond_broadcast(&v->cond);
	batch_free(&b, v->n_x);
	return r;
}

static bool is_dirty(const struct vmdk *v)
{
	bool dirty = v->n_dirty || v->n_freed;

	for (unsigned i = 0; i < v->n_x; i++)
		dirty |= v->x[i].gd_dirty;
	return dirty;
}

int vmdk_flush(struct vdisk *disk, bool nowait)
{
	struct vmdk *v = disk->priv;
	int r = 0;

	pthread_mutex_lock(&v->lock);
	if (v->stream) {
		bool open = atomic_load(&v->began) && !v->finished;

		pthread_mutex_unlock(&v->lock);
		return !open ? 0 : nowait ? -EAGAIN : vmdk_stream_finish(v);
	}
	if (is_dirty(v))
		r = nowait ? -EAGAIN : vmdk_writeout(v);
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* Other programs want whole grains. */
static int pad_files(const struct vmdk *v)
{
	int r = 0;

	for (unsigned i = 0; i < v->n_x && r == 0; i++) {
		const struct vmdk_extent *x = &v->x[i];

		if (x->kind == VMDK_SPARSE && x->file->grows && x->file->size < x->next)
			r = vd_truncate(x->file, x->next);
	}
	return r;
}

int vmdk_settle(struct vmdk *v)
{
	int r = 0;

	if (!atomic_load(&v->began))
		return 0;
	if (v->stream)
		return v->finished ? 0 : vmdk_stream_finish(v);
	pthread_mutex_lock(&v->lock);
	/* the second one makes the first durable, and so what that freed free */
	for (unsigned i = 0; i < 2 && r == 0 && is_dirty(v); i++)
		r = vmdk_writeout(v);
	pthread_mutex_unlock(&v->lock);
	if (r == 0)
		r = pad_files(v);
	return r < 0 ? r : set_unclean(v, false);
}
