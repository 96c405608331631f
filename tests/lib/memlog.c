/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "tests/lib/memlog.h"

void memlog_init(struct memlog *m)
{
	*m = (struct memlog){ 0 };
	pthread_mutex_init(&m->lock, NULL);
}

void memlog_clear(struct memlog *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->log[i].data);
	free(m->log);
	free(m->mem);
	pthread_mutex_destroy(&m->lock);
}

static void set_size(struct memlog *m, uint64_t size)
{
	if (size > m->space) {
		uint64_t space = MAX(size, m->space * 2);
		uint8_t *mem = realloc(m->mem, space);

		if (!mem)
			abort();
		memset(mem + m->space, 0, space - m->space);
		m->mem = mem;
		m->space = space;
	}
	if (size < m->size)
		memset(m->mem + size, 0, m->size - size);
	m->size = size;
}

void memlog_reserve(struct memlog *m, uint64_t space)
{
	if (m->mem || !(m->mem = calloc(1, space)))
		abort();
	m->space = space;
}

void memlog_copy(struct memlog *to, const struct memlog *from)
{
	memlog_init(to);
	set_size(to, from->size);
	if (from->size)
		memcpy(to->mem, from->mem, from->size);
}

static void store(struct memlog *m, const uint8_t *data, uint64_t len, uint64_t off)
{
	if (off + len > m->size)
		set_size(m, off + len);
	if (data)
		memcpy(m->mem + off, data, len);
	else
		memset(m->mem + off, 0, len);
}

void memlog_replay(struct memlog *to, const struct memlog_entry *e, bool torn,
		   uint64_t (*random)(void))
{
	if (e->kind == MEMLOG_TRUNCATE)
		set_size(to, e->len);
	if (e->kind != MEMLOG_WRITE)
		return;
	for (uint64_t at = e->off, end = e->off + e->len; at < end;) {
		uint64_t n = MIN(vd_align_down(at, 512) + 512, end) - at;

		if (!torn || random() & 1)
			store(to, e->data ? e->data + (at - e->off) : NULL, n, at);
		at += n;
	}
}

/* Under the lock. */
static void remember(struct memlog *m, enum memlog_kind kind, const uint8_t *data, uint64_t len,
		     uint64_t off)
{
	struct memlog_entry *e;

	if (!m->logging)
		return;
	if (m->n == m->log_space) {
		m->log_space = MAX(m->log_space * 2, (size_t)64);
		m->log = realloc(m->log, m->log_space * sizeof(*m->log));
		if (!m->log)
			abort();
	}
	e = &m->log[m->n++];
	*e = (struct memlog_entry){ .kind = kind, .off = off, .len = len };
	if (data && len) {
		e->data = malloc(len);
		if (!e->data)
			abort();
		memcpy(e->data, data, len);
	}
}

/* Under the lock: is it this call's turn to fail? */
static bool fails(struct memlog *m, enum memlog_fault what)
{
	if (++m->count[what] != m->fail[what])
		return false;
	m->failed = true;
	return true;
}

/* ---- the driver ---- */

static int mem_preadv(struct vdisk *d, const struct iovec *iov, int cnt, uint64_t len, uint64_t off)
{
	struct memlog *m = d->priv;
	int r = 0;

	pthread_mutex_lock(&m->lock);
	if (fails(m, FAULT_READ))
		r = -EIO;
	else if (!vd_in_range(off, len, m->size))
		r = -EINVAL;
	for (int i = 0; r == 0 && i < cnt; off += iov[i].iov_len, i++)
		memcpy(iov[i].iov_base, m->mem + off, iov[i].iov_len);
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int mem_pwritev(struct vdisk *d, const struct iovec *iov, int cnt, uint64_t len,
		       uint64_t off, bool fua)
{
	struct memlog *m = d->priv;
	int r = 0;

	(void)len;
	pthread_mutex_lock(&m->lock);
	if (fails(m, FAULT_WRITE))
		r = -EIO;
	for (int i = 0; r == 0 && i < cnt; off += iov[i].iov_len, i++) {
		store(m, iov[i].iov_base, iov[i].iov_len, off);
		remember(m, MEMLOG_WRITE, iov[i].iov_base, iov[i].iov_len, off);
	}
	if (r == 0 && fua)
		remember(m, MEMLOG_SYNC, NULL, 0, 0);
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int mem_sync(struct vdisk *d)
{
	struct memlog *m = d->priv;
	int r = 0;

	if (m->before_sync)
		m->before_sync(m->before_sync_arg);
	pthread_mutex_lock(&m->lock);
	if (fails(m, FAULT_SYNC))
		r = -EIO;
	else
		remember(m, MEMLOG_SYNC, NULL, 0, 0);
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int mem_zero(struct vdisk *d, uint64_t off, uint64_t len, bool unmap)
{
	struct memlog *m = d->priv;
	int r = 0;

	(void)unmap;
	pthread_mutex_lock(&m->lock);
	if (fails(m, FAULT_WRITE))
		r = -EIO;
	if (r == 0) {
		store(m, NULL, len, off);
		remember(m, MEMLOG_WRITE, NULL, len, off);
	}
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int mem_discard(struct vdisk *d, uint64_t off, uint64_t len)
{
	return mem_zero(d, off, len, true);
}

static int mem_resize(struct vdisk *d, uint64_t size, struct vdisk_error *err)
{
	struct memlog *m = d->priv;

	(void)err;
	pthread_mutex_lock(&m->lock);
	set_size(m, size);
	remember(m, MEMLOG_TRUNCATE, NULL, size, 0);
	pthread_mutex_unlock(&m->lock);
	atomic_store(&d->size, size);
	return 0;
}

static const struct vd_driver memlog_driver = {
	.name = "memlog",
	.preadv = mem_preadv,
	.pwritev = mem_pwritev,
	.sync = mem_sync,
	.zero = mem_zero,
	.discard = mem_discard,
	.resize = mem_resize,
};

struct vdisk *memlog_disk(struct memlog *m, const char *name)
{
	struct vdisk *d = vd_disk_new(&memlog_driver, name, m->size);

	if (!d)
		abort();
	d->priv = m;
	d->flags = VDISK_OPEN_WRITE;
	d->grows = d->fresh_zero = true;
	return d;
}
