/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.c - the engine, blocking: walk the maps, move the bytes
 *
 * Every request is a loop over one question, ->map(): "what is at this offset,
 * and for how long does the answer hold?".  An answer DATA sends the loop to
 * the disk below with another offset, and so down to a source, where the bytes
 * move between the caller's buffers and a file descriptor.  What happens here
 * happens once for all formats: splitting, holes and backing disks,
 * copy-on-write edges, coded units, zeroes, short reads.
 *
 * This file runs a request to its end on the calling thread: the synchronous
 * API, the worker threads, and drivers' own metadata.  queue.c does the same
 * without ever blocking, and hands the request to this file when it cannot.
 *
 * Invariants
 *   1. A map answers for at least one byte and at most what was asked.
 *   2. Between map and the end of the transfer the request is inside the disk
 *      (vd_enter), so the driver does not reuse what it freed meanwhile.
 *   3. What a VD_EXT_NEW extent began is ended by exactly one commit.
 *   4. While an allocation is in flight, nobody else allocates the same units.
 *   5. No lock is held while guest data moves.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "core/engine.h"

/* ---- scatter-gather ---- */

unsigned vd_sg_take(struct vd_sg *sg, uint64_t len, struct iovec *out, unsigned max,
		    uint64_t *taken)
{
	unsigned n = 0;

	*taken = 0;
	while (len > 0 && n < max) {
		size_t here;

		assert(sg->cnt > 0);
		here = sg->iov->iov_len - sg->skip;
		if (here == 0) {
			sg->iov++, sg->cnt--, sg->skip = 0;
			continue;
		}
		if (here > len)
			here = (size_t)len;
		out[n].iov_base = (char *)sg->iov->iov_base + sg->skip;
		out[n++].iov_len = here;
		sg->skip += here;
		len -= here;
		*taken += here;
	}
	return n;
}

enum sg_copy { SG_ZERO, SG_IN, SG_OUT };

static void sg_each(struct vd_sg *sg, uint64_t len, enum sg_copy how, uint8_t *mem)
{
	while (len > 0) {
		struct iovec v;
		uint64_t n;

		vd_sg_take(sg, len, &v, 1, &n);
		if (how == SG_ZERO)
			memset(v.iov_base, 0, v.iov_len);
		else if (how == SG_IN)
			memcpy(v.iov_base, mem, v.iov_len);
		else
			memcpy(mem, v.iov_base, v.iov_len);
		if (mem)
			mem += n;
		len -= n;
	}
}

void vd_sg_zero(struct vd_sg *sg, uint64_t len)
{
	sg_each(sg, len, SG_ZERO, NULL);
}

void vd_sg_copy_in(struct vd_sg *sg, const void *src, size_t len)
{
	sg_each(sg, len, SG_IN, (void *)(uintptr_t)src);
}

void vd_sg_copy_out(struct vd_sg *sg, void *dst, size_t len)
{
	sg_each(sg, len, SG_OUT, dst);
}

/* ---- being inside a disk; generations; drains ---- */

/*
 * active[g & 1] counts the requests that entered in generation g.  The
 * generation moves on only when nobody of the one before is left, so whoever
 * entered in generation g is gone once the generation is g + 2.
 */
bool vd_try_enter(struct vdisk *d, unsigned *gen)
{
	for (;;) {
		unsigned g = atomic_load(&d->epoch);

		atomic_fetch_add(&d->active[g & 1], 1);
		if (likely(atomic_load(&d->epoch) == g && !atomic_load(&d->draining))) {
			*gen = g;
			return true;
		}
		vd_leave(d, g);
		if (atomic_load(&d->draining))
			return false;
	}
}

unsigned vd_enter(struct vdisk *d)
{
	unsigned gen;

	while (!vd_try_enter(d, &gen)) {
		pthread_mutex_lock(&d->flight_lock);
		while (atomic_load(&d->draining))
			pthread_cond_wait(&d->flight_cond, &d->flight_lock);
		pthread_mutex_unlock(&d->flight_lock);
	}
	return gen;
}

void vd_leave(struct vdisk *d, unsigned gen)
{
	atomic_fetch_sub(&d->active[gen & 1], 1);
	if (unlikely(atomic_load(&d->draining))) {
		pthread_mutex_lock(&d->flight_lock);
		pthread_cond_broadcast(&d->flight_cond);
		pthread_mutex_unlock(&d->flight_lock);
	}
}

void vd_drain(struct vdisk *d)
{
	pthread_mutex_lock(&d->flight_lock);
	atomic_fetch_add(&d->draining, 1);
	while (atomic_load(&d->active[0]) + atomic_load(&d->active[1]) > 0)
		pthread_cond_wait(&d->flight_cond, &d->flight_lock);
	pthread_mutex_unlock(&d->flight_lock);
}

void vd_drain_end(struct vdisk *d)
{
	pthread_mutex_lock(&d->flight_lock);
	atomic_fetch_sub(&d->draining, 1);
	pthread_cond_broadcast(&d->flight_cond);
	pthread_mutex_unlock(&d->flight_lock);
}

unsigned vd_grace_now(struct vdisk *d)
{
	return atomic_load(&d->epoch);
}

static void grace_advance(struct vdisk *d, unsigned g)
{
	if (atomic_load(&d->active[(g + 1) & 1]) == 0)
		atomic_compare_exchange_strong(&d->epoch, &g, g + 1);
}

bool vd_grace_over(struct vdisk *d, unsigned when)
{
	unsigned g = atomic_load(&d->epoch);

	if ((int)(g - when) < 2)
		grace_advance(d, g);
	g = atomic_load(&d->epoch);
	if ((int)(g - when) < 2)
		grace_advance(d, g);
	return (int)(atomic_load(&d->epoch) - when) >= 2;
}

/* ---- allocations in flight ---- */

static bool flight_overlaps(const struct vdisk *d, uint64_t off, uint64_t len)
{
	uint64_t unit = d->unit ? d->unit : 1;
	uint64_t end = vd_align_up(off + len, unit);

	off = vd_align_down(off, unit);
	for (const struct vd_flight *f = d->flights; f; f = f->next)
		if (f->off < end && off < f->off + f->len)
			return true;
	return false;
}

bool vd_flight_busy(struct vdisk *d, uint64_t off, uint64_t len)
{
	bool busy;

	if (atomic_load(&d->n_flights) == 0)
		return false;
	pthread_mutex_lock(&d->flight_lock);
	busy = flight_overlaps(d, off, len);
	pthread_mutex_unlock(&d->flight_lock);
	return busy;
}

void vd_flight_begin(struct vdisk *d, struct vd_flight *f, uint64_t off, uint64_t len)
{
	uint64_t unit = d->unit ? d->unit : 1;

	f->off = vd_align_down(off, unit);
	f->len = vd_align_up(off + len, unit) - f->off;
	pthread_mutex_lock(&d->flight_lock);
	f->next = d->flights;
	d->flights = f;
	atomic_fetch_add(&d->n_flights, 1);
	pthread_mutex_unlock(&d->flight_lock);
}

void vd_flight_end(struct vdisk *d, struct vd_flight *f)
{
	pthread_mutex_lock(&d->flight_lock);
	for (struct vd_flight **at = &d->flights; *at; at = &(*at)->next) {
		if (*at == f) {
			*at = f->next;
			break;
		}
	}
	atomic_fetch_sub(&d->n_flights, 1);
	pthread_cond_broadcast(&d->flight_cond);
	pthread_mutex_unlock(&d->flight_lock);
}

/* Take alloc_lock at a moment when no allocation in [off, off+len) is in flight. */
static void alloc_lock_quiet(struct vdisk *d, uint64_t off, uint64_t len)
{
	for (;;) {
		pthread_mutex_lock(&d->alloc_lock);
		if (!vd_flight_busy(d, off, len))
			return;
		pthread_mutex_unlock(&d->alloc_lock);
		pthread_mutex_lock(&d->flight_lock);
		while (flight_overlaps(d, off, len))
			pthread_cond_wait(&d->flight_cond, &d->flight_lock);
		pthread_mutex_unlock(&d->flight_lock);
	}
}

/* ---- sources ---- */

struct aio_wait {
	struct vd_aio aio;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool over;
	int result;
};

static void aio_over(struct vd_aio *aio, int result)
{
	struct aio_wait *w = container_of(aio, struct aio_wait, aio);

	pthread_mutex_lock(&w->lock);
	w->over = true;
	w->result = result;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

int vd_aio_wait(struct vdisk *d, struct vd_aio *aio)
{
	struct aio_wait w = {
		.aio = *aio,
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER,
	};

	w.aio.next = NULL;
	w.aio.done = aio_over;
	d->drv->start(d, &w.aio);
	pthread_mutex_lock(&w.lock);
	while (!w.over)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return w.result;
}

void vd_source_grew(struct vdisk *d, uint64_t end)
{
	uint64_t size = atomic_load_explicit(&d->size, memory_order_relaxed);

	while (end > size && !atomic_compare_exchange_weak(&d->size, &size, end))
		;
}

/* The rest of a list of buffers after @n bytes; returns how many are left. */
static unsigned iov_advance(struct iovec **iov, unsigned cnt, size_t n)
{
	while (cnt > 0 && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++, cnt--;
	}
	if (cnt > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
	return cnt;
}

static void iov_zero(struct iovec *iov, unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
}

static int fd_readv(int fd, struct iovec *iov, unsigned cnt, uint64_t off)
{
	while (cnt > 0) {
		ssize_t n = preadv(fd, iov, (int)cnt, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			iov_zero(iov, cnt);
			return 0;
		}
		off += (uint64_t)n;
		cnt = iov_advance(&iov, cnt, (size_t)n);
	}
	return 0;
}

static int fd_writev(int fd, struct iovec *iov, unsigned cnt, uint64_t off, bool fua)
{
	while (cnt > 0) {
		ssize_t n = pwritev2(fd, iov, (int)cnt, (off_t)off, fua ? RWF_DSYNC : 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		off += (uint64_t)n;
		cnt = iov_advance(&iov, cnt, (size_t)n);
	}
	return 0;
}

static bool misaligned(const struct vdisk *d, const struct iovec *iov, unsigned cnt, uint64_t off)
{
	uintptr_t bits = (uintptr_t)off;

	if (!d->io_align)
		return false;
	for (unsigned i = 0; i < cnt; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return bits & (d->io_align - 1);
}

/*
 * O_DIRECT and a range or buffer that is not aligned: through an aligned
 * bounce buffer, reading the edges first for a write.  alloc_lock of a source
 * serialises these, so that two of them do not undo each other's edges.
 */
static int bounce_io(struct vdisk *d, struct iovec *iov, unsigned cnt, uint64_t off, uint64_t len,
		     bool write, bool fua)
{
	struct vd_sg sg = { .iov = iov, .cnt = cnt };
	uint64_t start = vd_align_down(off, d->io_align);
	uint64_t end = vd_align_up(off + len, d->io_align);
	struct iovec b = { .iov_len = (size_t)(end - start) };
	void *mem = NULL;
	int r;

	if (posix_memalign(&mem, MAX(d->io_align, 4096u), b.iov_len) != 0)
		return -ENOMEM;
	b.iov_base = mem;
	if (!write) {
		r = fd_readv(d->fd, &b, 1, start);
		if (r == 0)
			vd_sg_copy_in(&sg, (char *)mem + (off - start), (size_t)len);
	} else {
		pthread_mutex_lock(&d->alloc_lock);
		r = fd_readv(d->fd, &b, 1, start);
		if (r == 0) {
			b = (struct iovec) { mem, (size_t)(end - start) };
			vd_sg_copy_out(&sg, (char *)mem + (off - start), (size_t)len);
			r = fd_writev(d->fd, &b, 1, start, fua);
		}
		if (r == 0 && d->grows)
			vd_source_grew(d, end);
		pthread_mutex_unlock(&d->alloc_lock);
	}
	free(mem);
	return r;
}

static int source_batch(struct vdisk *d, struct iovec *iov, unsigned cnt, uint64_t off,
			uint64_t len, bool write, bool fua)
{
	if (d->fd < 0)
		return write ? d->drv->pwritev(d, iov, (int)cnt, len, off, fua) :
			       d->drv->preadv(d, iov, (int)cnt, len, off);
	if (misaligned(d, iov, cnt, off))
		return bounce_io(d, iov, cnt, off, len, write, fua);
	return write ? fd_writev(d->fd, iov, cnt, off, fua) : fd_readv(d->fd, iov, cnt, off);
}

int vd_source_read(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len)
{
	while (len > 0) {
		struct iovec iov[VD_SG_BATCH];
		uint64_t n, size = d->size;
		unsigned cnt;
		int r;

		if (off >= size) {
			vd_sg_zero(sg, len);
			return 0;
		}
		cnt = vd_sg_take(sg, MIN(len, size - off), iov, ARRAY_SIZE(iov), &n);
		r = source_batch(d, iov, cnt, off, n, false, false);
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

int vd_source_write(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len, bool fua)
{
	if (!(d->flags & VDISK_OPEN_WRITE))
		return -EROFS;
	if (!vd_in_range(off, len, d->grows ? INT64_MAX : d->size))
		return d->fd >= 0 ? -ENOSPC : -EINVAL;
	while (len > 0) {
		struct iovec iov[VD_SG_BATCH];
		unsigned cnt;
		uint64_t n;
		int r;

		cnt = vd_sg_take(sg, len, iov, ARRAY_SIZE(iov), &n);
		r = source_batch(d, iov, cnt, off, n, true, fua);
		if (r < 0)
			return r;
		off += n;
		len -= n;
		if (d->grows)
			vd_source_grew(d, off);
	}
	return 0;
}

static void check_answer(const struct vd_extent *e, uint64_t len)
{
	assert(e->len > 0 && e->len <= len);	/* invariant 1 */
	(void)e, (void)len;
}

/* ---- coded units ---- */

/*
 * A few units decoded last, because small reads come back to the same unit.
 * An entry is known by where its coded bytes are.  It can only go stale when
 * those bytes are written again, and vd_write_coded() drops it then; the
 * driver's grace period keeps a reader from putting it back.
 */
#define DECODED_SLOTS 8

struct vd_decoded {
	pthread_mutex_t lock;
	struct decoded_slot {
		uint64_t off;
		uint32_t coded_len, unit_len;
		uint64_t used;
		uint8_t *data;	/* owned */
	} slot[DECODED_SLOTS];
	uint64_t clock;
};

void vd_decoded_free(struct vdisk *d)
{
	if (!d->decoded)
		return;
	for (unsigned i = 0; i < DECODED_SLOTS; i++)
		free(d->decoded->slot[i].data);
	pthread_mutex_destroy(&d->decoded->lock);
	free(STEAL(d->decoded));
}

/* Made at the first coded read, so that other disks have none. */
static struct vd_decoded *decoded_get(struct vdisk *d)
{
	struct vd_decoded *c;

	pthread_mutex_lock(&d->flight_lock);
	c = d->decoded;
	if (!c) {
		c = calloc(1, sizeof(*c));
		if (c)
			pthread_mutex_init(&c->lock, NULL);
		d->decoded = c;
	}
	pthread_mutex_unlock(&d->flight_lock);
	return c;
}

static bool decoded_lookup(struct vd_decoded *c, const struct vd_extent *e, size_t skip,
			   struct vd_sg *sg, size_t len)
{
	bool hit = false;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; !hit && i < DECODED_SLOTS; i++) {
		struct decoded_slot *s = &c->slot[i];

		if (!s->data || s->off != e->off || s->coded_len != e->coded_len ||
		    s->unit_len != e->unit_len)
			continue;
		s->used = ++c->clock;
		vd_sg_copy_in(sg, s->data + skip, len);
		hit = true;
	}
	pthread_mutex_unlock(&c->lock);
	return hit;
}

/* Takes over @data. */
static void decoded_insert(struct vd_decoded *c, const struct vd_extent *e, uint8_t *data)
{
	struct decoded_slot *oldest;

	pthread_mutex_lock(&c->lock);
	oldest = &c->slot[0];
	for (unsigned i = 1; i < DECODED_SLOTS; i++)
		if (c->slot[i].used < oldest->used)
			oldest = &c->slot[i];
	free(oldest->data);
	*oldest = (struct decoded_slot) {
		.off = e->off, .coded_len = e->coded_len, .unit_len = e->unit_len,
		.used = ++c->clock, .data = data,
	};
	pthread_mutex_unlock(&c->lock);
}

static void decoded_drop(struct vdisk *d, uint64_t off, uint64_t len)
{
	struct vd_decoded *c = d->decoded;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < DECODED_SLOTS; i++) {
		struct decoded_slot *s = &c->slot[i];

		if (s->data && s->off < off + len && off < s->off + s->coded_len) {
			free(s->data);
			*s = (struct decoded_slot) { 0 };
		}
	}
	pthread_mutex_unlock(&c->lock);
}

/* The next @len bytes of @sg if they lie in one buffer, and step over them. */
static void *sg_contiguous(struct vd_sg *sg, size_t len)
{
	struct vd_sg probe = *sg;
	struct iovec v;
	uint64_t n;

	vd_sg_take(&probe, len, &v, 1, &n);
	if (n != len)
		return NULL;
	*sg = probe;
	return v.iov_base;
}

static int decode_unit(const struct vd_extent *e, void *dst)
{
	AUTO_FREE uint8_t *coded = malloc(e->coded_len);
	int r;

	if (!coded)
		return -ENOMEM;
	r = vd_pread_pad(e->below, coded, e->coded_len, e->off);
	return r < 0 ? r : e->codec->decode(dst, e->unit_len, coded, e->coded_len);
}

/* Read [off, off+len) of the unit that @e describes. */
static int read_coded(struct vdisk *d, const struct vd_extent *e, struct vd_sg *sg, uint64_t off,
		      uint64_t len)
{
	size_t skip = (size_t)(off - e->unit_off);
	AUTO_FREE uint8_t *unit = NULL;
	struct vd_decoded *cache;
	int r;

	cache = decoded_get(d);
	if (!cache)
		return -ENOMEM;
	if (decoded_lookup(cache, e, skip, sg, (size_t)len))
		return 0;
	unit = malloc(e->unit_len);
	if (!unit)
		return -ENOMEM;
	r = decode_unit(e, unit);
	if (r < 0)
		return r;
	vd_sg_copy_in(sg, unit + skip, (size_t)len);
	decoded_insert(cache, e, STEAL(unit));
	return 0;
}

#define CODED_BATCH 32

struct coded_batch {
	unsigned n;
	struct vd_extent e[CODED_BATCH];
	void *dst[CODED_BATCH];
	_Atomic int result;
};

static void decode_one(void *arg, unsigned i)
{
	struct coded_batch *b = arg;
	int r = decode_unit(&b->e[i], b->dst[i]);

	if (r < 0)
		atomic_store(&b->result, r);
}

/*
 * [off, off+len) begins with the coded unit @first.  Decode it and the whole
 * units that follow it, each straight to its place, on all processors; @done
 * tells how many bytes that were.
 */
static int read_coded_run(struct vdisk *d, const struct vd_extent *first, struct vd_sg *sg,
			  uint64_t off, uint64_t len, uint64_t *done)
{
	struct coded_batch b = { .n = 0 };
	struct vd_extent e = *first;
	void *dst;
	int r = 0;

	*done = 0;
	while (e.kind == VD_CODED && e.len == e.unit_len &&
	       (dst = sg_contiguous(sg, e.unit_len)) != NULL) {
		b.e[b.n] = e;
		b.dst[b.n++] = dst;
		*done += e.len;
		if (*done == len || b.n == CODED_BATCH)
			break;
		e = (struct vd_extent) { .len = 0 };
		r = d->drv->map(d, off + *done, len - *done, VD_MAP_READ, 0, &e);
		if (r < 0)
			return r;
		check_answer(&e, len - *done);
	}
	if (b.n == 0) {
		*done = first->len;
		return read_coded(d, first, sg, off, first->len);
	}
	if (b.n == 1)
		return decode_unit(&b.e[0], b.dst[0]);
	vd_parallel(decode_one, &b, b.n);
	return b.result;
}

/* ---- read ---- */

/* The caller is inside @d. */
static int read_inside(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len)
{
	while (len > 0) {
		struct vd_extent e = { .len = 0 };
		int r = d->drv->map(d, off, len, VD_MAP_READ, 0, &e);
		uint64_t n;

		if (r < 0)
			return r;
		check_answer(&e, len);
		n = e.len;
		switch (e.kind) {
		case VD_DATA:
			r = vd_io_read(e.below, sg, e.off, n);
			break;
		case VD_CODED:
			r = read_coded_run(d, &e, sg, off, len, &n);
			break;
		case VD_HOLE:
			if (d->backing) {
				r = vd_io_read(d->backing, sg, off, n);
				break;
			}
			FALLTHROUGH;
		default:
			vd_sg_zero(sg, n);
			break;
		}
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

/* Past the end of a disk there are zeroes, as formats need it of what is below them. */
int vd_io_read(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len)
{
	uint64_t size, here;
	unsigned gen;
	int r;

	if (vd_is_source(d))
		return vd_source_read(d, sg, off, len);
	gen = vd_enter(d);
	size = d->size;
	here = off >= size ? 0 : MIN(len, size - off);
	r = read_inside(d, sg, off, here);
	vd_leave(d, gen);
	if (r == 0)
		vd_sg_zero(sg, len - here);
	return r;
}

bool vd_reads_zero(struct vdisk *d, uint64_t off, uint64_t len, unsigned flags)
{
	while (len > 0) {
		struct vd_extent e = { .len = 0 };
		uint64_t n = len;

		if (d->drv->map(d, off, len, VD_MAP_READ, flags, &e) < 0)
			return false;
		check_answer(&e, len);
		n = e.len;
		if (e.kind == VD_HOLE && d->backing && off < d->backing->size) {
			struct vdisk *b = d->backing;
			unsigned gen;
			bool zero;

			n = MIN(n, b->size - off);
			if (vd_is_source(b) || !vd_try_enter(b, &gen))
				return false;
			zero = vd_reads_zero(b, off, n, flags);
			vd_leave(b, gen);
			if (!zero)
				return false;
		} else if (e.kind != VD_ZERO && e.kind != VD_HOLE) {
			return false;
		}
		off += n;
		len -= n;
	}
	return true;
}

/* ---- write ---- */

static int write_inside(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len);

static int write_down(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len)
{
	unsigned gen;
	int r;

	if (vd_is_source(d))
		return vd_source_write(d, sg, off, len, false);
	gen = vd_enter(d);
	r = vd_in_range(off, len, d->size) ? write_inside(d, sg, off, len) : -ENOSPC;
	vd_leave(d, gen);
	return r;
}

/*
 * Write the caller's bytes into the fresh space of @e, between copies of what
 * was around them.  The edges and the bytes leave in one write.
 */
static int write_new(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len,
		     const struct vd_extent *e)
{
	uint64_t head = off - e->new_off;
	uint64_t tail = e->new_off + e->new_len - (off + len);
	struct iovec iov[VD_SG_BATCH];
	AUTO_FREE uint8_t *edge = NULL;
	struct vd_sg edge_sg, out;
	uint64_t taken = 0;
	unsigned n = 0;
	int r;

	/* beyond the end of the disk there is nothing to keep */
	if (e->flags & VD_EXT_FRESH) {
		uint64_t in_disk = off + len < d->size ? MIN(tail, d->size - (off + len)) : 0;

		if (head && vd_reads_zero(d, e->new_off, head, 0))
			head = 0;
		if (tail && vd_reads_zero(d, off + len, in_disk, 0))
			tail = 0;
	}
	if (head + tail > 0) {
		struct iovec v;

		edge = malloc((size_t)(head + tail));
		if (!edge)
			return -ENOMEM;
		v = (struct iovec) { edge, (size_t)(head + tail) };
		edge_sg = (struct vd_sg) { .iov = &v, .cnt = 1 };
		r = read_inside(d, &edge_sg, off - head, head);
		if (r == 0) {
			uint64_t end = off + len, size = d->size;
			uint64_t in_disk = end < size ? MIN(tail, size - end) : 0;

			r = read_inside(d, &edge_sg, end, in_disk);
			if (r == 0)
				vd_sg_zero(&edge_sg, tail - in_disk);
		}
		if (r < 0)
			return r;
	}
	if (head)
		iov[n++] = (struct iovec) { edge, (size_t)head };
	n += vd_sg_take(sg, len, iov + n, VD_SG_BATCH - 2, &taken);
	if (tail && taken == len)
		iov[n++] = (struct iovec) { edge + head, (size_t)tail };
	out = (struct vd_sg) { .iov = iov, .cnt = n };
	r = write_down(e->below, &out, e->off - head, head + taken + (taken == len ? tail : 0));
	if (r < 0 || taken == len)
		return r;
	/* more buffers than fit: the rest, and the tail, one after the other */
	r = write_down(e->below, sg, e->off + taken, len - taken);
	if (r == 0 && tail) {
		iov[0] = (struct iovec) { edge + head, (size_t)tail };
		out = (struct vd_sg) { .iov = iov, .cnt = 1 };
		r = write_down(e->below, &out, e->off + len, tail);
	}
	return r;
}

static int write_alloc(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len,
		       uint64_t *done)
{
	struct vd_extent e = { .len = 0 };
	struct vd_flight flight;
	int r;

	alloc_lock_quiet(d, off, len);
	r = d->drv->map(d, off, len, VD_MAP_WRITE, VD_MAP_ALLOC, &e);
	if (r == 0) {
		check_answer(&e, len);
		if (e.flags & VD_EXT_NEW)
			vd_flight_begin(d, &flight, e.new_off, e.new_len);
	}
	pthread_mutex_unlock(&d->alloc_lock);
	if (r != 0)
		return r > 0 ? -EIO : r;
	*done = e.len;
	if (!(e.flags & VD_EXT_NEW))	/* somebody else was faster */
		return write_down(e.below, sg, e.off, e.len);
	r = write_new(d, sg, off, e.len, &e);
	d->drv->commit(d, &e, r);	/* invariant 3 */
	vd_flight_end(d, &flight);
	return r;
}

static int write_inside(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len)
{
	while (len > 0) {
		struct vd_extent e = { .len = 0 };
		uint64_t n = 0;
		int r;

		if (d->failed)
			return -EIO;
		r = d->drv->map(d, off, len, VD_MAP_WRITE, 0, &e);
		if (r == VD_NEED_ALLOC) {
			r = write_alloc(d, sg, off, len, &n);
		} else if (r == 0) {
			check_answer(&e, len);
			n = e.len;
			r = write_down(e.below, sg, e.off, n);
		}
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

/* ---- coded writes ---- */

ssize_t vd_encode_unit(struct vdisk *d, const void *plain, void *coded, bool best)
{
	const struct vd_codec *codec;
	int level = 0;

	if (!d->drv->codec || !(codec = d->drv->codec(d, &level)))
		return -EOPNOTSUPP;
	return codec->encode(coded, vd_coded_room(d), plain, (size_t)d->unit,
			     best ? MAX(level, 9) : level);
}

int vd_write_coded(struct vdisk *d, uint64_t unit_off, const void *coded, uint32_t coded_len)
{
	struct vd_extent e = { .coded_len = coded_len };
	uint64_t len = MIN(d->unit, d->size - unit_off);
	struct vd_flight flight;
	unsigned gen = vd_enter(d);
	int r;

	alloc_lock_quiet(d, unit_off, len);
	r = d->drv->map(d, unit_off, len, VD_MAP_WRITE, VD_MAP_ALLOC | VD_MAP_CODED, &e);
	if (r == 0)
		vd_flight_begin(d, &flight, unit_off, len);
	pthread_mutex_unlock(&d->alloc_lock);
	if (r == 0) {
		decoded_drop(d, e.off, coded_len);
		r = vd_pwrite(e.below, coded, coded_len, e.off);
		d->drv->commit(d, &e, r);
		vd_flight_end(d, &flight);
	}
	vd_leave(d, gen);
	return r > 0 ? -EIO : r;
}

static int write_compressed(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len)
{
	AUTO_FREE uint8_t *mem = NULL;

	if (!d->drv->codec || !d->unit)
		return -EOPNOTSUPP;
	if (off % d->unit || (len % d->unit && off + len != d->size))
		return -EINVAL;
	mem = malloc((size_t)d->unit + vd_coded_room(d));
	if (!mem)
		return -ENOMEM;
	for (uint64_t n; len > 0; off += n, len -= n) {
		uint8_t *plain = mem, *coded = mem + d->unit;
		ssize_t coded_len;
		int r;

		n = MIN(len, d->unit);
		vd_sg_copy_out(sg, plain, (size_t)n);
		memset(plain + n, 0, (size_t)(d->unit - n));
		coded_len = vd_encode_unit(d, plain, coded, false);
		if (coded_len == -ENOSPC) {
			struct iovec v = { plain, (size_t)n };
			struct vd_sg one = { .iov = &v, .cnt = 1 };

			r = write_down(d, &one, off, n);
		} else if (coded_len < 0) {
			r = (int)coded_len;
		} else {
			r = vd_write_coded(d, off, coded, (uint32_t)coded_len);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int vd_io_write(struct vdisk *d, struct vd_sg *sg, uint64_t off, uint64_t len, unsigned flags)
{
	int r;

	if (vd_is_source(d))
		return vd_source_write(d, sg, off, len, flags & VDISK_REQ_FUA &&
				       !(d->flags & VDISK_OPEN_UNSAFE));
	r = flags & VDISK_REQ_COMPRESS || d->coded_only ? write_compressed(d, sg, off, len) :
					 write_down(d, sg, off, len);
	if (r == 0 && flags & VDISK_REQ_FUA)
		r = vd_flush(d);
	return r;
}

/* ---- zero and discard ---- */

int vd_write_zeroes(struct vdisk *d, uint64_t off, uint64_t len)
{
	size_t size = (size_t)MIN(len, (uint64_t)1 << 20);
	AUTO_FREE void *zero = calloc(1, size);

	if (!zero)
		return -ENOMEM;
	while (len > 0) {
		struct iovec v = { zero, (size_t)MIN(len, (uint64_t)size) };
		struct vd_sg sg = { .iov = &v, .cnt = 1 };
		uint64_t n = v.iov_len;
		int r = vd_is_source(d) ? vd_source_write(d, &sg, off, n, false) :
					  write_inside(d, &sg, off, n);

		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

static int source_zero(struct vdisk *d, uint64_t off, uint64_t len, bool unmap)
{
	uint64_t size = d->size;
	int r = -EOPNOTSUPP;

	if (!(d->flags & VDISK_OPEN_WRITE))
		return -EROFS;
	/* what is past the end of a file that grows with zeroes is zero */
	if (d->grows && d->fresh_zero) {
		if (off >= size)
			return 0;
		len = MIN(len, size - off);
	}
	if (d->drv->zero)
		r = d->drv->zero(d, off, len, unmap);
	return r == -EOPNOTSUPP ? vd_write_zeroes(d, off, len) : r;
}

static int change_down(struct vdisk *d, uint64_t off, uint64_t len, enum vd_intent intent,
		       unsigned flags);

/* ZERO or DISCARD, inside @d. */
static int change_inside(struct vdisk *d, uint64_t off, uint64_t len, enum vd_intent intent,
			 unsigned flags)
{
	while (len > 0) {
		struct vd_extent e = { .len = 0 };
		uint64_t n;
		int r;

		if (d->failed)
			return -EIO;
		alloc_lock_quiet(d, off, len);
		r = d->drv->map(d, off, len, intent, flags, &e);
		pthread_mutex_unlock(&d->alloc_lock);
		if (r < 0)
			return r;
		check_answer(&e, len);
		n = e.len;
		if (e.kind == VD_DATA)
			r = change_down(e.below, e.off, n, intent, flags);
		else if (e.kind == VD_COPY)
			r = vd_write_zeroes(d, off, n);
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

static int change_down(struct vdisk *d, uint64_t off, uint64_t len, enum vd_intent intent,
		       unsigned flags)
{
	unsigned gen;
	int r;

	if (vd_is_source(d) && intent == VD_MAP_ZERO)
		return source_zero(d, off, len, flags & VD_MAP_UNMAP);
	if (vd_is_source(d)) {
		if (!(d->flags & VDISK_OPEN_WRITE))
			return -EROFS;
		r = d->drv->discard && off < d->size ?
			d->drv->discard(d, off, MIN(len, d->size - off)) : 0;
		return r == -EOPNOTSUPP ? 0 : r;	/* advice only */
	}
	gen = vd_enter(d);
	r = change_inside(d, off, len, intent, flags);
	vd_leave(d, gen);
	return r;
}

int vd_io_zero(struct vdisk *d, uint64_t off, uint64_t len, unsigned flags)
{
	int r = change_down(d, off, len, VD_MAP_ZERO, flags & VDISK_REQ_UNMAP ? VD_MAP_UNMAP : 0);

	return r == 0 && flags & VDISK_REQ_FUA ? vd_flush(d) : r;
}

int vd_io_discard(struct vdisk *d, uint64_t off, uint64_t len)
{
	return change_down(d, off, len, VD_MAP_DISCARD, 0);
}

/* ---- flush ---- */

int vd_flush(struct vdisk *d)
{
	int r = 0;

	if (!d || d->flags & VDISK_OPEN_UNSAFE || !(d->flags & VDISK_OPEN_WRITE))
		return 0;
	if (vd_is_source(d))
		return d->drv->sync ? d->drv->sync(d) : 0;
	if (d->drv->flush) {
		unsigned gen = vd_enter(d);

		r = d->drv->flush(d, false);
		vd_leave(d, gen);
	}
	if (r == 0)
		r = vd_flush(d->data);
	for (unsigned i = 0; i < d->n_others && r == 0; i++)
		r = vd_flush(d->others[i]);
	return r < 0 ? r : vd_flush(d->file);
}

bool vd_unsaved(struct vdisk *d)
{
	if (!d || vd_is_source(d))
		return false;
	if (d->drv->flush && d->drv->flush(d, true) == -EAGAIN)
		return true;
	for (unsigned i = 0; i < d->n_others; i++)
		if (vd_unsaved(d->others[i]))
			return true;
	return vd_unsaved(d->data) || vd_unsaved(d->file);
}

/* ---- requests ---- */

int vd_io_validate(const struct vdisk_request *req)
{
	struct vdisk *d = req->disk;

	if (req->op == VDISK_OP_CALL)
		return 0;
	if (req->op == VDISK_OP_FLUSH)
		return d->failed ? -EIO : 0;
	if (unlikely(!vd_in_range(req->offset, req->length, d->size)))
		return -EINVAL;
	if (req->op == VDISK_OP_READ)
		return 0;
	if (!(d->flags & VDISK_OPEN_WRITE))
		return -EROFS;
	return d->failed ? -EIO : 0;
}

int vd_io_run(struct vdisk_request *req)
{
	struct vd_sg sg = { .iov = req->iov, .cnt = req->iovcnt };

	switch (req->op) {
	case VDISK_OP_READ:
		return vd_io_read(req->disk, &sg, req->offset, req->length);
	case VDISK_OP_WRITE:
		return vd_io_write(req->disk, &sg, req->offset, req->length, req->flags);
	case VDISK_OP_FLUSH:
		return vd_flush(req->disk);
	case VDISK_OP_ZERO:
		return vd_io_zero(req->disk, req->offset, req->length, req->flags);
	case VDISK_OP_DISCARD:
		return vd_io_discard(req->disk, req->offset, req->length);
	case VDISK_OP_CALL:
		return req->call(req);
	default:
		return -EINVAL;
	}
}

static int run_sync(struct vdisk *d, uint8_t op, unsigned flags, struct iovec *iov, uint64_t off,
		    uint64_t len)
{
	struct vdisk_request req;
	int r;

	req.disk = d;
	req.op = op;
	req.flags = (uint8_t)flags;
	req.iov = iov;
	req.iovcnt = iov ? 1 : 0;
	req.offset = off;
	req.length = len;
	r = vd_io_validate(&req);
	return r < 0 ? r : vd_io_run(&req);
}

int vdisk_read(struct vdisk *d, void *buf, size_t len, uint64_t off)
{
	struct iovec v = { buf, len };

	return run_sync(d, VDISK_OP_READ, 0, &v, off, len);
}

int vdisk_write(struct vdisk *d, const void *buf, size_t len, uint64_t off)
{
	struct iovec v = { (void *)(uintptr_t)buf, len };

	return run_sync(d, VDISK_OP_WRITE, 0, &v, off, len);
}

int vdisk_zero(struct vdisk *d, uint64_t off, uint64_t len, unsigned flags)
{
	return run_sync(d, VDISK_OP_ZERO, flags, NULL, off, len);
}

int vdisk_discard(struct vdisk *d, uint64_t off, uint64_t len)
{
	return run_sync(d, VDISK_OP_DISCARD, 0, NULL, off, len);
}

int vdisk_flush(struct vdisk *d)
{
	return run_sync(d, VDISK_OP_FLUSH, 0, NULL, 0, 0);
}

/* ---- for drivers ---- */

int vd_pread_pad(struct vdisk *d, void *buf, size_t len, uint64_t off)
{
	struct iovec v = { buf, len };
	struct vd_sg sg = { .iov = &v, .cnt = 1 };

	return vd_io_read(d, &sg, off, len);
}

int vd_pread(struct vdisk *d, void *buf, size_t len, uint64_t off)
{
	if (!vd_in_range(off, len, d->size))
		return -EINVAL;
	return vd_pread_pad(d, buf, len, off);
}

int vd_pwritev(struct vdisk *d, const struct iovec *iov, int iovcnt, uint64_t len, uint64_t off)
{
	struct vd_sg sg = { .iov = iov, .cnt = (unsigned)iovcnt };

	return vd_io_write(d, &sg, off, len, 0);
}

int vd_pwrite(struct vdisk *d, const void *buf, size_t len, uint64_t off)
{
	struct iovec v = { (void *)(uintptr_t)buf, len };

	return vd_pwritev(d, &v, 1, len, off);
}

int vd_zero_range(struct vdisk *d, uint64_t off, uint64_t len)
{
	return vd_io_zero(d, off, len, VDISK_REQ_UNMAP);
}

void vd_discard_hint(struct vdisk *d, uint64_t off, uint64_t len)
{
	(void)vd_io_discard(d, off, len);
}

/* ---- where the bytes are ---- */

/* A source's own answer. */
static int report_source(struct vdisk *d, uint64_t off, uint64_t len, struct vd_extent *e)
{
	if (off >= d->size) {
		*e = (struct vd_extent) { .kind = VD_HOLE, .len = len };
		return 0;
	}
	len = MIN(len, d->size - off);
	*e = (struct vd_extent) { .kind = VD_DATA, .len = len };
	return d->drv->report ? d->drv->report(d, off, len, e) : 0;
}

static int map_walk(struct vdisk *d, uint64_t off, uint64_t len, bool own,
		    struct vdisk_extent *out)
{
	struct vdisk *at = d;
	uint64_t pos = off;
	unsigned depth = 0;
	bool allocated = false;	/* some format has space of its own for this */

	for (;;) {
		struct vd_extent e = { .len = 0 };
		enum vdisk_extent_kind kind;
		unsigned gen;
		int r;

		if (vd_is_source(at)) {
			r = report_source(at, pos, len, &e);
		} else {
			gen = vd_enter(at);
			/* between the layers the disk may have shrunk */
			if (pos >= at->size) {
				e = (struct vd_extent) { .kind = VD_ZERO, .len = len };
				r = 0;
			} else {
				len = MIN(len, at->size - pos);
				r = at->drv->map(at, pos, len, VD_MAP_REPORT, 0, &e);
			}
			vd_leave(at, gen);
		}
		if (r < 0)
			return r;
		check_answer(&e, len);
		len = e.len;
		if (e.kind == VD_DATA && !vd_is_source(at)) {
			allocated |= at->unit != 0;
			pos = e.off;
			at = e.below;
			continue;
		}
		if (e.kind == VD_HOLE && !vd_is_source(at) && at->backing && !own &&
		    pos < at->backing->size) {
			len = MIN(len, at->backing->size - pos);
			at = at->backing;
			depth++;
			continue;
		}
		kind = e.kind == VD_HOLE && allocated ? VDISK_ZERO : (enum vdisk_extent_kind)e.kind;
		*out = (struct vdisk_extent) {
			.offset = off, .length = len, .kind = kind, .depth = depth,
			.source = kind == VDISK_DATA ? at :
				  kind == VDISK_CODED && vd_is_source(e.below) ? e.below : NULL,
			.source_offset = kind == VDISK_DATA ? pos : e.off,
		};
		return 0;
	}
}

static int map_checked(struct vdisk *d, uint64_t off, uint64_t len, bool own,
		       struct vdisk_extent *out)
{
	if (len == 0 || off >= d->size)
		return -EINVAL;
	return map_walk(d, off, MIN(len, d->size - off), own, out);
}

int vdisk_map(struct vdisk *d, uint64_t off, uint64_t len, struct vdisk_extent *out)
{
	return map_checked(d, off, len, false, out);
}

int vdisk_map_own(struct vdisk *d, uint64_t off, uint64_t len, struct vdisk_extent *out)
{
	return map_checked(d, off, len, true, out);
}

int vdisk_map_onto(struct vdisk *d, const struct vdisk *base, uint64_t off, uint64_t len,
		   uint64_t *base_off, uint64_t *run)
{
	while (d != base) {
		struct vd_extent e = { 0 };
		unsigned gen;
		int r;

		if (!d || vd_is_source(d) || !len || !vd_in_range(off, len, d->size))
			return -ENOTSUP;
		gen = vd_enter(d);
		r = d->drv->map(d, off, len, VD_MAP_REPORT, 0, &e);
		vd_leave(d, gen);
		if (r < 0 || e.kind != VD_DATA)
			return r < 0 ? r : -ENOTSUP;
		d = e.below;
		off = e.off;
		len = MIN(len, e.len);
	}
	*base_off = off;
	*run = len;
	return 0;
}
