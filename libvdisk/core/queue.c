/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * queue.c - a thread's own submission and completion queue
 *
 * A request takes the first of these ways that is open to it:
 *
 *   at once	the map is in memory and so are the bytes (zeroes, the page
 *		cache, a file system that never blocks): done inside submit;
 *   the ring	the map is in memory: the bytes move by io_uring, one system
 *		call for all requests of a batch;
 *   the source	likewise, where it is asynchronous by itself (a network's): it is
 *		given all transfers of a batch at once;
 *   a worker	the map needs I/O, a unit must be decoded, an edge copied, a
 *		lock or an allocation in flight waited for: a thread of the pool
 *		runs the whole request through io.c, where blocking is allowed.
 *
 * The owner's thread never blocks but in reap.  Walking the maps here has no
 * side effects until the walk is complete, except an allocation, which is
 * undone (commit with an error) if the rest of the walk fails; so a request
 * can be given to a worker at any time before its first byte moves.
 *
 * Without io_uring (or with VDISK_QUEUE=threads) the second way is closed and
 * everything else is the same.
 *
 * Invariants
 *   1. A request is completed by finish() and nothing else, exactly once.
 *   2. While it moves bytes it is inside every mapped disk on its way.
 *   3. Only the owner's thread touches the ring; workers hand back through
 *      q->remote and the eventfd.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "core/engine.h"

#define MAX_ENTERED	6	/* mapped disks on a request's way; more: a worker */
#define MAX_SEGS	1024	/* pieces of a request; more: a worker */
/*
 * Up to this many requests in a batch, cached reads are tried one system call
 * each before the ring; in larger ones the ring's own attempt is cheaper.
 */
#define INLINE_BATCH	2
/* From this size on it pays to have two copy what the page cache has, see share(). */
#define SHARE_MIN	((uint64_t)512 << 10)
#define COLD_READS	32
/* Buffered writes up to this size are done at once, see write_inline(). */
#define INLINE_WRITE	((uint64_t)256 << 10)

/* One run of bytes on one source.  The runs of a request follow each other. */
struct seg {
	struct vdisk_request *req;
	struct vdisk *src;	/* NULL: zeroes (READ) */
	uint64_t off, len;
	uint64_t done;
	bool begun;		/* the ring has it */
	const struct iovec *iov; /* its buffers */
	unsigned iovcnt;
};

/* What the queue keeps in vdisk_request.reserved. */
struct state {
	struct vd_job job;
	struct vdisk_queue *q;	/* NULL: in none, and nothing is allocated */
	struct seg *segs;	/* seg0, or mem */
	void *mem;		/* owned: segs, if there are several */
	struct iovec *iovs;	/* owned: their buffers, likewise */
	unsigned n_segs;
	unsigned pending;	/* operations in the ring, and one while more may follow */
	int error;		/* the first one */
	bool incomplete;	/* some operation moved less than it should */
	uint8_t n_entered;
	struct { struct vdisk *disk; unsigned gen; } entered[MAX_ENTERED];
	struct vdisk *alloc;	/* commit owed to this disk, or NULL */
	struct vd_extent ext;
	struct vd_flight flight;
	struct seg seg0;
};
_Static_assert(sizeof(struct state) <= sizeof(((struct vdisk_request *)0)->reserved),
	       "vdisk_request.reserved is too small");

/* A transfer that an asynchronous source does. */
struct source_op {
	struct vd_aio aio;
	struct seg *seg;
	int result;
	struct source_op *next;	/* among those that are over */
};

struct vdisk_queue {
	struct io_uring ring;
	bool has_ring;
	bool enabled;		/* the ring is bound to the owner's thread */
	bool unsubmitted;	/* operations wait for the end of the batch */
	bool armed;		/* a read of efd is in the ring */
	/* large copies, see share() */
	bool shares;
	const struct seg *shared; /* the kernel's worker copies it, or NULL */
	unsigned cold;		/* large reads not to share: the cache did not have them */
	uint64_t enters;	/* io_uring_enter() calls, for vd_queue_enters() */
	unsigned in_flight;	/* submitted, not yet reaped */
	unsigned at_workers;	/* and at sources */
	struct vd_aio *begun, **begun_tail;	/* for the sources, at the end of the batch */
	struct vdisk_request *done, **done_tail;	/* finished; the owner's */
	int efd;		/* owned: a worker handed something back */
	bool polled;		/* the ring writes efd too, see vdisk_queue_fd() */
	uint64_t efd_value;

	pthread_mutex_t lock;	/* guards what follows */
	struct vdisk_request *remote, **remote_tail;
	struct source_op *over;	/* in no order */
	bool signalled;
};

static struct state *state_of(struct vdisk_request *req)
{
	return (struct state *)(void *)req->reserved;
}

static struct vdisk_request *request_of(struct state *s)
{
	return container_of((uint64_t *)(void *)s, struct vdisk_request, reserved[0]);
}

/* ---- completion ---- */

/* Leave the disks and end the allocation; on any thread. */
static void release(struct state *s, int result)
{
	if (s->alloc) {
		s->alloc->drv->commit(s->alloc, &s->ext, result);
		vd_flight_end(s->alloc, &s->flight);
		s->alloc = NULL;
	}
	while (s->n_entered > 0) {
		s->n_entered--;
		vd_leave(s->entered[s->n_entered].disk, s->entered[s->n_entered].gen);
	}
	if (unlikely(s->mem != NULL)) {
		free(STEAL(s->mem));
		free(STEAL(s->iovs));
	}
}

static void push_done(struct vdisk_queue *q, struct vdisk_request *req)
{
	req->next = NULL;
	*q->done_tail = req;
	q->done_tail = &req->next;
}

/* On the owner's thread. */
static void finish(struct vdisk_request *req, int result)
{
	struct state *s = state_of(req);

	release(s, result);
	req->result = result;
	push_done(s->q, req);
}

/* Under the lock: once it is dropped the queue may be freed. */
static void wake_owner(struct vdisk_queue *q)
{
	uint64_t one = 1;

	if (!q->signalled && write(q->efd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
	q->signalled = true;
}

/* On a worker. */
static void finish_remote(struct vdisk_request *req, int result)
{
	struct state *s = state_of(req);
	struct vdisk_queue *q = s->q;

	release(s, result);
	req->result = result;
	pthread_mutex_lock(&q->lock);
	req->next = NULL;
	*q->remote_tail = req;
	q->remote_tail = &req->next;
	wake_owner(q);
	pthread_mutex_unlock(&q->lock);
}

/* On whatever thread the source has for it. */
static void source_over(struct vd_aio *aio, int result)
{
	struct source_op *op = container_of(aio, struct source_op, aio);
	struct vdisk_queue *q = state_of(op->seg->req)->q;

	op->result = result;
	pthread_mutex_lock(&q->lock);
	op->next = q->over;
	q->over = op;
	wake_owner(q);
	pthread_mutex_unlock(&q->lock);
}

/* ---- workers ---- */

static void worker_run(struct vd_job *job)
{
	struct vdisk_request *req = request_of(container_of(job, struct state, job));

	finish_remote(req, vd_io_run(req));
}

/* Step over @len bytes. */
static void sg_skip(struct vd_sg *sg, uint64_t len)
{
	while (len > 0) {
		size_t n = (size_t)MIN(len, (uint64_t)(sg->iov->iov_len - sg->skip));

		sg->skip += n;
		len -= n;
		if (sg->skip == sg->iov->iov_len)
			sg->iov++, sg->cnt--, sg->skip = 0;
	}
}

/* What the ring began, a worker ends: short transfers. */
static void worker_rest(struct vd_job *job)
{
	struct state *s = container_of(job, struct state, job);
	struct vdisk_request *req = request_of(s);
	int r = 0;

	for (unsigned i = 0; r == 0 && i < s->n_segs; i++) {
		struct seg *seg = &s->segs[i];
		struct vd_sg sg = { .iov = seg->iov, .cnt = seg->iovcnt };
		uint64_t left = seg->len - seg->done;

		if (left == 0)
			continue;
		sg_skip(&sg, seg->done);
		if (req->op == VDISK_OP_READ)
			r = vd_source_read(seg->src, &sg, seg->off + seg->done, left);
		else
			r = vd_source_write(seg->src, &sg, seg->off + seg->done, left,
					    req->flags & VDISK_REQ_FUA);
	}
	finish_remote(req, r);
}

static struct io_uring_sqe *get_sqe(struct vdisk_queue *q);

/* Make sure that the end of a worker's job wakes whoever waits on the ring. */
static void arm_wakeup(struct vdisk_queue *q)
{
	struct io_uring_sqe *sqe;

	if (!q->has_ring || q->armed || q->polled)
		return;
	sqe = get_sqe(q);
	io_uring_prep_read(sqe, q->efd, &q->efd_value, sizeof(q->efd_value), 0);
	io_uring_sqe_set_data(sqe, q);
	q->armed = true;
}

static void to_worker(struct vdisk_request *req, void (*run)(struct vd_job *job))
{
	struct state *s = state_of(req);

	s->q->at_workers++;
	arm_wakeup(s->q);
	s->job.run = run;
	vd_pool_submit(&s->job);
}

/* Forget what the walk found, and let a worker do it all. */
static void give_up(struct vdisk_request *req)
{
	release(state_of(req), -ECANCELED);
	to_worker(req, worker_run);
}

/* ---- the ring ---- */

static void ring_enable(struct vdisk_queue *q)
{
	if (q->enabled)
		return;
	/* liburing 2.3 declares io_uring_enable_rings() but lacks it */
	(void)syscall(SYS_io_uring_register, q->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	q->enabled = true;
}

/* ---- asynchronous sources ---- */

static bool is_async(const struct vdisk *src)
{
	return src->fd < 0 && src->drv->start;
}

/* False: no memory. */
static bool source_begin(struct vdisk_queue *q, struct seg *seg)
{
	struct vdisk_request *req = seg->req;
	struct source_op *op = malloc(sizeof(*op));

	if (!op)
		return false;
	op->seg = seg;
	op->aio = (struct vd_aio) {
		.op = req->op, .fua = req->op == VDISK_OP_WRITE && req->flags & VDISK_REQ_FUA,
		.iov = seg->iov, .iovcnt = seg->iovcnt, .off = seg->off, .len = seg->len,
		.done = source_over,
	};
	*q->begun_tail = &op->aio;
	q->begun_tail = &op->aio.next;
	q->at_workers++;
	arm_wakeup(q);
	state_of(req)->pending++;
	return true;
}

static struct vdisk *source_of(struct vd_aio *aio)
{
	return container_of(aio, struct source_op, aio)->seg->src;
}

/* The end of a batch: each source gets what is its own, in as few pieces as there are runs. */
static void sources_start(struct vdisk_queue *q)
{
	struct vd_aio *first = q->begun;

	q->begun = NULL;
	q->begun_tail = &q->begun;
	while (first) {
		struct vdisk *src = source_of(first);
		struct vd_aio *last = first, *next;

		while (last->next && source_of(last->next) == src)
			last = last->next;
		next = last->next;
		last->next = NULL;
		src->drv->start(src, first);
		first = next;
	}
}

static void ring_reap(struct vdisk_queue *q);

/* What makes liburing call the kernel though there is nothing to submit. */
static bool completions_wait(const struct vdisk_queue *q)
{
	return __atomic_load_n(q->ring.sq.kflags, __ATOMIC_RELAXED) &
		(IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static int ring_enter(struct vdisk_queue *q)
{
	q->enters += io_uring_sq_ready(&q->ring) > 0 || completions_wait(q);
	return io_uring_submit(&q->ring);
}

static void ring_submit(struct vdisk_queue *q)
{
	if (unlikely(q->begun != NULL))
		sources_start(q);
	if (!q->unsubmitted)
		return;
	ring_enable(q);
	q->unsubmitted = false;
	/* one call; more only where the kernel stops at a bad entry or is short of memory */
	while (io_uring_sq_ready(&q->ring) > 0) {
		int r = ring_enter(q);

		if (r == -EBUSY)
			ring_reap(q);
		else
			assert(r >= 0 || r == -EINTR || r == -EAGAIN);
	}
}

static struct io_uring_sqe *get_sqe(struct vdisk_queue *q)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

	while (!sqe) {
		ring_submit(q);
		sqe = io_uring_get_sqe(&q->ring);
	}
	q->unsubmitted = true;
	return sqe;
}

static void ring_rw(struct vdisk_queue *q, struct seg *seg)
{
	struct vdisk_request *req = seg->req;
	struct io_uring_sqe *sqe = get_sqe(q);
	int fd = seg->src->fd;

	if (req->op == VDISK_OP_READ) {
		if (seg->iovcnt == 1)
			io_uring_prep_read(sqe, fd, seg->iov->iov_base,
					   (unsigned)seg->iov->iov_len, seg->off);
		else
			io_uring_prep_readv(sqe, fd, seg->iov, seg->iovcnt, seg->off);
	} else {
		if (seg->iovcnt == 1)
			io_uring_prep_write(sqe, fd, seg->iov->iov_base,
					    (unsigned)seg->iov->iov_len, seg->off);
		else
			io_uring_prep_writev(sqe, fd, seg->iov, seg->iovcnt, seg->off);
		if (req->flags & VDISK_REQ_FUA)
			sqe->rw_flags = RWF_DSYNC;
	}
	if (seg == q->shared)
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, seg);
	seg->begun = true;
	state_of(req)->pending++;
}

/* All operations of a request came back. */
static void ring_finished(struct vdisk_request *req)
{
	struct state *s = state_of(req);

	if (s->error)
		finish(req, s->error);
	else if (s->incomplete && req->op == VDISK_OP_FLUSH)
		give_up(req);	/* nothing was moved: there is no rest, do it all again */
	else if (s->incomplete)
		to_worker(req, worker_rest);
	else
		finish(req, 0);
}

static void ring_completion(struct seg *seg, int res)
{
	struct vdisk_request *req = seg->req;
	struct state *s = state_of(req);

	if (seg == s->q->shared)
		s->q->shared = NULL;
	if (res == -EINTR || res == -EAGAIN || (res == -ECANCELED && seg->src->fd >= 0)) {
		/* (cancelled: the kernel could not make a thread) */
		s->incomplete = true;	/* a worker does it, blocking */
	} else if (res < 0) {
		if (!s->error)
			s->error = res;
	} else if (req->op != VDISK_OP_FLUSH) {
		seg->done = (uint64_t)res;
		if (seg->done < seg->len)
			s->incomplete = true;
		if (req->op == VDISK_OP_WRITE && seg->src->grows)
			vd_source_grew(seg->src, seg->off + seg->done);
	}
	if (--s->pending == 0)
		ring_finished(req);
}

static void ring_reap(struct vdisk_queue *q)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&q->ring, head, cqe) {
		void *data = io_uring_cqe_get_data(cqe);

		n++;
		if (data == q)
			q->armed = false;
		else if (data)
			ring_completion(data, cqe->res);
	}
	io_uring_cq_advance(&q->ring, n);
}

/* Have the kernel run what is ready to complete, unless the ring says that nothing is. */
static int run_completions(struct vdisk_queue *q)
{
	if (!completions_wait(q))
		return 0;
	q->enters++;
	return io_uring_get_events(&q->ring);
}

/* ---- walking the maps ---- */

enum walk { WALK_OK, WALK_WORKER };

static bool enter_once(struct state *s, struct vdisk *d)
{
	for (unsigned i = 0; i < s->n_entered; i++)
		if (s->entered[i].disk == d)
			return true;
	if (s->n_entered == MAX_ENTERED || !vd_try_enter(d, &s->entered[s->n_entered].gen))
		return false;
	s->entered[s->n_entered++].disk = d;
	return true;
}

/*
 * Allocate for [off, off+len) without blocking and without copying: what
 * surrounds the range in its units must be zero, and the new space too.
 */
static enum walk walk_alloc(struct state *s, struct vdisk *d, uint64_t off, uint64_t len,
			    struct vd_extent *e)
{
	uint64_t unit = d->unit ? d->unit : 1;
	uint64_t start = vd_align_down(off, unit);
	uint64_t end = MIN(vd_align_up(off + len, unit), d->size);
	bool edges = start < off || off + len < end;
	int r = -EAGAIN;

	if (s->alloc)
		return WALK_WORKER;
	if (edges && (!vd_reads_zero(d, start, off - start, VD_MAP_NOWAIT) ||
		      !vd_reads_zero(d, off + len, end - (off + len), VD_MAP_NOWAIT)))
		return WALK_WORKER;
	if (pthread_mutex_trylock(&d->alloc_lock) != 0)
		return WALK_WORKER;
	if (!vd_flight_busy(d, off, len))
		r = d->drv->map(d, off, len, VD_MAP_WRITE, VD_MAP_ALLOC | VD_MAP_NOWAIT, e);
	if (r == 0 && e->flags & VD_EXT_NEW) {
		s->alloc = d;
		s->ext = *e;
		vd_flight_begin(d, &s->flight, e->new_off, e->new_len);
	}
	pthread_mutex_unlock(&d->alloc_lock);
	if (r != 0)
		return WALK_WORKER;
	if (e->flags & VD_EXT_NEW &&
	    (e->len < len || (!(e->flags & VD_EXT_FRESH) &&
			      (e->new_off < off || off + len < e->new_off + e->new_len))))
		return WALK_WORKER;
	return WALK_OK;
}

/*
 * Follow [*off, *off + *len) of @d down to one piece: a source (*src), or zeroes
 * (*src NULL).  *len shrinks to the piece.
 */
static enum walk walk_piece(struct vdisk_request *req, struct vdisk *d, uint64_t *off,
			    uint64_t *len, struct vdisk **src)
{
	struct state *s = state_of(req);
	bool write = req->op == VDISK_OP_WRITE;
	enum vd_intent intent = write ? VD_MAP_WRITE : VD_MAP_READ;

	while (!vd_is_source(d)) {
		struct vd_extent e = { .len = 0 };
		uint64_t size;
		int r;

		if (!enter_once(s, d))
			return WALK_WORKER;
		size = d->size;
		if (!vd_in_range(*off, *len, size)) {
			if (write)
				return WALK_WORKER;
			if (*off >= size)
				return *src = NULL, WALK_OK;
			*len = size - *off;
		}
		if (write && (d->failed || (req->flags & VDISK_REQ_FUA && d->drv->flush)))
			return WALK_WORKER;
		r = d->drv->map(d, *off, *len, intent, VD_MAP_NOWAIT, &e);
		if (r == VD_NEED_ALLOC) {
			if (!s->q || walk_alloc(s, d, *off, *len, &e) != WALK_OK)
				return WALK_WORKER;
		} else if (r < 0) {
			return WALK_WORKER;	/* which meets the error again, or not */
		}
		assert(e.len > 0 && e.len <= *len);
		*len = e.len;
		if (e.kind == VD_DATA) {
			*off = e.off;
			d = e.below;
		} else if (e.kind == VD_CODED) {
			return WALK_WORKER;
		} else if (e.kind == VD_HOLE && d->backing && *off < d->backing->size) {
			d = d->backing;
		} else {
			return *src = NULL, WALK_OK;
		}
	}
	/* the end of a source is the end of what may be moved in one go */
	if ((d->fd < 0 && !is_async(d)) || (write && (!(d->flags & VDISK_OPEN_WRITE) ||
				    !vd_in_range(*off, *len, d->grows ? INT64_MAX : d->size))))
		return WALK_WORKER;
	*src = d;
	return WALK_OK;
}

/* Add a piece behind the others, or to the last one if it goes on there. */
static bool add_piece(struct vdisk_request *req, struct vdisk *src, uint64_t off, uint64_t len)
{
	struct state *s = state_of(req);
	unsigned n = s->n_segs;
	struct seg *last = n ? &s->segs[n - 1] : NULL;

	if (last && last->src == src && (!src || last->off + last->len == off)) {
		last->len += len;
		return true;
	}
	if (n == MAX_SEGS)
		return false;
	if (n > 0 && vd_is_pow2(n)) {
		struct seg *more = realloc(s->mem, 2 * n * sizeof(*more));

		if (!more)
			return false;
		if (n == 1)
			more[0] = s->seg0;
		s->segs = s->mem = more;
	}
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): walk_request() has set it */
	s->segs[n] = (struct seg) { .req = req, .src = src, .off = off, .len = len };
	s->n_segs++;
	return true;
}

static enum walk walk_request(struct vdisk_request *req)
{
	struct state *s = state_of(req);
	uint64_t pos = req->offset, left = req->length;

	s->segs = &s->seg0;
	s->n_segs = 0;
	while (left > 0) {
		uint64_t off = pos, len = left;
		struct vdisk *src = NULL;

		if (walk_piece(req, req->disk, &off, &len, &src) != WALK_OK ||
		    !add_piece(req, src, off, len))
			return WALK_WORKER;
		pos += len;
		left -= len;
	}
	return WALK_OK;
}

/* Give each piece its buffers.  Zeroes are zeroed here. */
static enum walk lay_out(struct vdisk_request *req)
{
	struct state *s = state_of(req);
	struct vd_sg sg = { .iov = req->iov, .cnt = req->iovcnt };
	struct iovec *next;

	if (s->n_segs == 1 && s->segs->src) {
		s->segs->iov = req->iov;
		s->segs->iovcnt = req->iovcnt;
		return WALK_OK;
	}
	if (s->n_segs > 1) {
		s->iovs = malloc((req->iovcnt + s->n_segs) * sizeof(*s->iovs));
		if (!s->iovs)
			return WALK_WORKER;
	}
	next = s->iovs;
	for (unsigned i = 0; i < s->n_segs; i++) {
		struct seg *seg = &s->segs[i];
		uint64_t taken;

		if (!seg->src) {
			vd_sg_zero(&sg, seg->len);
			seg->done = seg->len;
			continue;
		}
		seg->iov = next;
		seg->iovcnt = vd_sg_take(&sg, seg->len, next, UINT_MAX, &taken);
		next += seg->iovcnt;
	}
	return WALK_OK;
}

/* ---- moving ---- */

/*
 * Bytes that the page cache has.  Less than all is fine (the ring or a worker
 * goes on), an error too: they meet it again.  (A vector, even of one, costs the
 * kernel 0.1 us more than a buffer, a tenth of a 4 KiB read.)
 */
static void read_inline(struct seg *seg)
{
	const struct vdisk *src = seg->src;
	ssize_t n;

	if (src->never_blocks && seg->iovcnt == 1)
		n = pread(src->fd, seg->iov->iov_base, seg->iov->iov_len, (off_t)seg->off);
	else
		n = preadv2(src->fd, seg->iov, (int)seg->iovcnt, (off_t)seg->off,
			    src->never_blocks ? 0 : RWF_NOWAIT);

	if (n > 0)
		seg->done = (uint64_t)n;
}

/*
 * A buffered write is a copy into the page cache.  io_uring sends it to one of
 * the kernel's worker threads, all writes of a file to the same one, which
 * costs several times the copy; so it is done here, unless it is large.
 */
static void write_inline(struct seg *seg)
{
	ssize_t n;

	if (seg->iovcnt == 1)
		n = pwrite(seg->src->fd, seg->iov->iov_base, seg->iov->iov_len, (off_t)seg->off);
	else
		n = pwritev(seg->src->fd, seg->iov, (int)seg->iovcnt, (off_t)seg->off);
	if (n <= 0)
		return;
	seg->done = (uint64_t)n;
	if (seg->src->grows)
		vd_source_grew(seg->src, seg->off + seg->done);
}

static bool direct_misaligned(const struct seg *seg)
{
	uintptr_t bits = (uintptr_t)seg->off;

	for (unsigned i = 0; i < seg->iovcnt; i++)
		bits |= (uintptr_t)seg->iov[i].iov_base | seg->iov[i].iov_len;
	return bits & (seg->src->io_align - 1);
}

static bool fits_ring(const struct seg *seg)
{
	if (!seg->src)
		return true;
	if (seg->len > INT_MAX || seg->iovcnt > IOV_MAX)
		return false;
	if (is_async(seg->src))
		return seg->iovcnt <= VD_AIO_IOVS &&
			!((seg->off | seg->len) & (seg->src->block_size - 1)) &&
			!(seg->src->no_fua && seg->req->flags & VDISK_REQ_FUA) &&
			vd_in_range(seg->off, seg->len, seg->src->size);
	return !seg->src->io_align || !direct_misaligned(seg);
}

static void move_seg(struct vdisk_queue *q, struct vdisk_request *req, struct seg *seg,
		     bool small_batch)
{
	bool cached = !seg->src->io_align;	/* through the page cache */

	if (req->op == VDISK_OP_READ) {
		small_batch |= q->shares && seg->len >= SHARE_MIN / 2 && !q->cold;
		if (seg->src->never_blocks || (cached && (small_batch || !q->has_ring)))
			read_inline(seg);
	} else if (!(req->flags & VDISK_REQ_FUA)) {
		if (seg->src->never_blocks || (cached && seg->len <= INLINE_WRITE))
			write_inline(seg);
	}
}

/* Cut the one piece that a request has in two. */
static bool halve(struct vdisk_request *req)
{
	struct state *s = state_of(req);
	struct vd_sg sg = { .iov = req->iov, .cnt = req->iovcnt };
	struct seg whole = s->seg0, *segs;
	uint64_t half = vd_align_down(whole.len / 2, 4096), taken;

	s->mem = segs = malloc(2 * sizeof(*segs));
	s->iovs = malloc((whole.iovcnt + 1) * sizeof(*s->iovs));
	if (!segs || !s->iovs) {
		free(STEAL(s->mem));
		free(STEAL(s->iovs));
		return false;
	}
	segs[0] = segs[1] = whole;
	segs[0].len = half;
	segs[0].iov = s->iovs;
	segs[0].iovcnt = vd_sg_take(&sg, half, s->iovs, UINT_MAX, &taken);
	segs[1].off += half;
	segs[1].len -= half;
	segs[1].iov = s->iovs + segs[0].iovcnt;
	segs[1].iovcnt = vd_sg_take(&sg, segs[1].len, s->iovs + segs[0].iovcnt, UINT_MAX, &taken);
	s->segs = segs;
	s->n_segs = 2;
	return true;
}

/*
 * A large read of what is in the page cache is a copy, for which one processor has
 * the speed of one: a worker of the kernel's copies the first half, and this thread the
 * second one meanwhile.  Never more than one helps: while it does, and where the cache did
 * not have it all lately, requests go the usual ways.  So does one that is alone: it would
 * be over only when both threads have had a processor, and others may want those.
 */
static void share(struct vdisk_queue *q, struct vdisk_request *req)
{
	struct state *s = state_of(req);

	if (!q->shares || !q->has_ring || q->in_flight == 1 || req->op != VDISK_OP_READ ||
	    req->length < SHARE_MIN || s->n_segs != 1 || !s->segs->src || s->segs->src->fd < 0 ||
	    s->segs->src->io_align)
		return;
	if (q->cold > 0) {
		q->cold--;
		return;
	}
	if (q->shared && completions_wait(q)) {
		(void)run_completions(q);
		ring_reap(q);
	}
	if (q->shared || !halve(req))
		return;
	q->shared = &s->segs[0];
	ring_rw(q, &s->segs[0]);
	ring_submit(q);
}

static void start_rw(struct vdisk_queue *q, struct vdisk_request *req, bool small_batch)
{
	struct state *s = state_of(req);
	bool left = false;

	if (req->flags & VDISK_REQ_COMPRESS || walk_request(req) != WALK_OK ||
	    lay_out(req) != WALK_OK) {
		give_up(req);
		return;
	}
	for (unsigned i = 0; i < s->n_segs; i++) {
		if (!fits_ring(&s->segs[i])) {
			give_up(req);
			return;
		}
	}
	s->pending = 1;		/* what is begun may be over before the rest is */
	share(q, req);
	for (unsigned i = 0; i < s->n_segs; i++) {
		struct seg *seg = &s->segs[i];

		if (seg->src && !is_async(seg->src) && !seg->begun)
			move_seg(q, req, seg, small_batch);
		left |= seg->done < seg->len;
	}
	if (s->segs->begun && s->segs[1].done < s->segs[1].len)
		q->cold = COLD_READS;
	for (unsigned i = 0; left && i < s->n_segs; i++) {
		struct seg *seg = &s->segs[i];

		if (seg->done == seg->len || seg->begun)
			continue;
		if (is_async(seg->src))
			s->incomplete |= !source_begin(q, seg);
		else if (q->has_ring && seg->done == 0)
			ring_rw(q, seg);
		else
			s->incomplete = true;
	}
	if (--s->pending == 0)
		ring_finished(req);
}

/* ---- sending from the file ---- */

/* A format that allocates may put something else where these bytes are now. */
static bool places_stay(const struct state *s)
{
	for (unsigned i = 0; i < s->n_entered; i++) {
		const struct vdisk *d = s->entered[i].disk;

		if (d->drv->commit && d->flags & VDISK_OPEN_WRITE)
			return false;
	}
	return true;
}

/*
 * Whoever may not write to a file is not told what of it is in memory: mincore()
 * says yes to everything then, even to what is behind the end.
 */
static bool mincore_is_true(struct vdisk *src)
{
	enum { UNKNOWN, TRUE, FALSE };
	long page = sysconf(_SC_PAGESIZE);
	unsigned char in = 1;
	void *behind;

	if (src->mincore == UNKNOWN) {
		behind = mmap(NULL, (size_t)page, PROT_READ, MAP_SHARED, src->fd,
			      (off_t)vd_align_up(src->size, (uint64_t)page));
		if (behind != MAP_FAILED) {
			if (mincore(behind, (size_t)page, &in) < 0)
				in = 1;
			munmap(behind, (size_t)page);
		}
		src->mincore = in & 1 ? FALSE : TRUE;
	}
	return src->mincore == TRUE;
}

#define SENDABLE_MAX	(1u << 20)

/* Nothing is ever read through this mapping: it is only what mincore() asks for. */
static bool in_page_cache(struct vdisk *src, uint64_t off, uint64_t len)
{
	unsigned char in[SENDABLE_MAX / 4096 + 1];
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t start = vd_align_down(off, page), size = vd_align_up(off + len, page) - start;
	bool all;
	void *map;

	if (len > SENDABLE_MAX || !mincore_is_true(src))
		return false;
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, src->fd, (off_t)start);
	if (map == MAP_FAILED)
		return false;
	all = mincore(map, size, in) == 0;
	for (size_t i = 0; all && i < size / page; i++)
		all = in[i] & 1;
	munmap(map, size);
	return all;
}

int vdisk_sendable(struct vdisk *disk, uint64_t offset, uint64_t length,
		   struct vdisk_sendable *out)
{
	struct vdisk_request req = {
		.disk = disk, .op = VDISK_OP_READ, .offset = offset, .length = length,
	};
	struct state *s = state_of(&req);
	struct vdisk *src;
	bool yes;

	if (length == 0 || !vd_in_range(offset, length, disk->size))
		return -EAGAIN;
	yes = walk_request(&req) == WALK_OK && s->n_segs == 1 && places_stay(s);
	src = yes ? s->segs->src : NULL;
	yes = src && !src->io_align && vd_in_range(s->segs->off, length, src->size) &&
		(src->never_blocks || in_page_cache(src, s->segs->off, length));
	if (yes)
		*out = (struct vdisk_sendable) {
			.fd = src->fd, .offset = s->segs->off, .lasting = src->never_blocks,
		};
	release(s, 0);
	return yes ? 0 : -EAGAIN;
}

/* ---- writing without a queue ---- */

int vdisk_write_now(struct vdisk *disk, const void *buf, uint64_t length, uint64_t offset)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = length };
	struct vdisk_request req = {
		.disk = disk, .op = VDISK_OP_WRITE, .offset = offset, .length = length,
		.iov = &iov, .iovcnt = 1,
	};
	struct state *s = state_of(&req);
	struct seg *seg;
	int r = vd_io_validate(&req);

	if (r < 0)
		return r;
	r = -EAGAIN;
	if (walk_request(&req) == WALK_OK && s->n_segs == 1 && lay_out(&req) == WALK_OK) {
		seg = s->segs;
		if (!seg->src->io_align)
			write_inline(seg);
		r = seg->done == length ? 0 : -EAGAIN;
	}
	release(s, r);
	return r;
}

/* ---- flush ---- */

/* Collect what is to be synced below @d; false: a worker must do it. */
static bool flush_walk(struct vdisk_request *req, struct vdisk *d)
{
	struct state *s = state_of(req);

	if (!d || d->flags & VDISK_OPEN_UNSAFE || !(d->flags & VDISK_OPEN_WRITE))
		return true;
	if (vd_is_source(d))
		return (is_async(d) || (d->fd >= 0 && !d->drv->pwritev)) &&
			(d->never_blocks || add_piece(req, d, s->n_segs, 0));
	if (d->drv->flush && (!enter_once(s, d) || d->drv->flush(d, true) != 0))
		return false;
	for (unsigned i = 0; i < d->n_others; i++)
		if (!flush_walk(req, d->others[i]))
			return false;
	return flush_walk(req, d->data) && flush_walk(req, d->file);
}

static void start_flush(struct vdisk_queue *q, struct vdisk_request *req)
{
	struct state *s = state_of(req);

	bool possible;

	s->segs = &s->seg0;
	possible = flush_walk(req, req->disk);
	for (unsigned i = 0; i < s->n_segs; i++)
		possible &= q->has_ring || is_async(s->segs[i].src);
	if (!possible) {
		give_up(req);
		return;
	}
	for (unsigned i = 0; i < s->n_segs; i++) {
		struct io_uring_sqe *sqe;

		if (is_async(s->segs[i].src)) {
			s->segs[i].off = 0;
			s->incomplete |= !source_begin(q, &s->segs[i]);
			continue;
		}
		sqe = get_sqe(q);

		io_uring_prep_fsync(sqe, s->segs[i].src->fd, IORING_FSYNC_DATASYNC);
		io_uring_sqe_set_data(sqe, &s->segs[i]);
		s->pending++;
	}
	if (s->pending == 0 && s->incomplete)
		give_up(req);
	else if (s->pending == 0)
		finish(req, 0);
}

/* ---- the public face ---- */

static void start(struct vdisk_queue *q, struct vdisk_request *req, bool small_batch)
{
	struct state *s = state_of(req);
	int r = vd_io_validate(req);

	s->q = q;
	s->mem = NULL;
	s->iovs = NULL;
	s->n_segs = 0;
	s->pending = 0;
	s->error = 0;
	s->incomplete = false;
	s->n_entered = 0;
	s->alloc = NULL;
	q->in_flight++;
	if (r < 0)
		finish(req, r);
	else if (req->op == VDISK_OP_READ || req->op == VDISK_OP_WRITE)
		start_rw(q, req, small_batch);
	else if (req->op == VDISK_OP_FLUSH)
		start_flush(q, req);
	else
		to_worker(req, worker_run);
}

void vdisk_queue_submit(struct vdisk_queue *q, struct vdisk_request *const *reqs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		start(q, reqs[i], n <= INLINE_BATCH);
	ring_submit(q);
}

static void take_remote(struct vdisk_queue *q)
{
	struct vdisk_request *list;
	struct source_op *over;

	if (q->at_workers == 0)
		return;
	pthread_mutex_lock(&q->lock);
	list = q->remote;
	q->remote = NULL;
	q->remote_tail = &q->remote;
	over = q->over;
	q->over = NULL;
	q->signalled = false;
	pthread_mutex_unlock(&q->lock);
	while (over) {
		struct source_op *op = over;

		over = op->next;
		q->at_workers--;
		ring_completion(op->seg, op->result < 0 ? op->result : (int)op->seg->len);
		free(op);
	}
	while (list) {
		struct vdisk_request *req = list;

		list = req->next;
		q->at_workers--;
		push_done(q, req);
	}
}

static void collect(struct vdisk_queue *q)
{
	if (q->has_ring && q->enabled)
		ring_reap(q);
	take_remote(q);
}

static unsigned pop_done(struct vdisk_queue *q, struct vdisk_request **done, unsigned max)
{
	unsigned n = 0;

	while (q->done && n < max) {
		done[n++] = q->done;
		q->done = q->done->next;
	}
	if (!q->done)
		q->done_tail = &q->done;
	q->in_flight -= n;
	return n;
}

/* Take back the wake-ups that efd holds; were there any? */
static bool drain_wakeups(struct vdisk_queue *q)
{
	uint64_t n;
	struct iovec iov = { &n, sizeof(n) };

	/* blocking otherwise, and the ring may have read it before us */
	return preadv2(q->efd, &iov, 1, -1, RWF_NOWAIT) == sizeof(n);
}

/* Until efd, which the ring writes too, says that there is something. */
static int wait_polled(struct vdisk_queue *q, int timeout_ms)
{
	struct pollfd pfd = { .fd = q->efd, .events = POLLIN };

	(void)ring_enter(q);
	if (timeout_ms != 0) {
		if (poll(&pfd, 1, timeout_ms) < 0)
			return -errno;
		(void)drain_wakeups(q);
	}
	return run_completions(q);
}

static int wait_ring(struct vdisk_queue *q, int timeout_ms)
{
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000LL,
	};
	struct io_uring_cqe *cqe;
	int r;

	ring_enable(q);
	if (q->polled) {
		q->unsubmitted = false;
		return wait_polled(q, timeout_ms);
	}
	/* what a worker handed back before the read of efd was armed is seen
	 * there too: an eventfd stays readable */
	if (q->at_workers > 0)
		arm_wakeup(q);
	q->unsubmitted = false;
	if (timeout_ms == 0) {
		(void)ring_enter(q);
		return run_completions(q);
	}
	q->enters += io_uring_sq_ready(&q->ring) > 0 || io_uring_cq_ready(&q->ring) == 0;
	r = io_uring_submit_and_wait_timeout(&q->ring, &cqe, 1, timeout_ms < 0 ? NULL : &ts, NULL);
	return r == -ETIME || r == -EAGAIN || r == -EBUSY ? 0 : r;
}

static int wait_threads(struct vdisk_queue *q, int timeout_ms)
{
	struct pollfd pfd = { .fd = q->efd, .events = POLLIN };
	uint64_t v;
	int r = poll(&pfd, 1, timeout_ms);

	if (r > 0 && read(q->efd, &v, sizeof(v)) < 0)
		return errno == EAGAIN ? 0 : -errno;
	return r < 0 ? -errno : 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Nothing was found: will the descriptor to poll tell of whatever comes?  Not
 * if it was written since; and the ring's own one needs the workers' wake-up
 * to be in the ring (an old one may just have used it up).
 */
static bool may_sleep(struct vdisk_queue *q)
{
	if (q->polled)
		return !drain_wakeups(q);
	return !q->has_ring || q->armed || q->at_workers == 0;
}

/* Nothing is in flight: take back old wake-ups, or a poll loop would spin. */
static void settle(struct vdisk_queue *q)
{
	if (q->polled || !q->has_ring)
		(void)drain_wakeups(q);
}

int vdisk_queue_reap(struct vdisk_queue *q, struct vdisk_request **done, unsigned max,
		     int timeout_ms)
{
	int64_t deadline = 0;
	int left = timeout_ms;
	bool waited = false;

	for (;;) {
		unsigned n;
		int r;

		collect(q);
		n = pop_done(q, done, max);
		/* completions may have started more: short transfers */
		ring_submit(q);
		if (n == 0 && q->in_flight == 0)
			settle(q);
		if (n > 0 || q->in_flight == 0)
			return (int)n;
		/* a wake-up need not bring a request: wait out the time */
		if (timeout_ms > 0) {
			int64_t now = now_ms();

			if (!waited)
				deadline = now + timeout_ms;
			left = (int)MAX(deadline - now, 0);
		}
		if (waited && left <= 0 && timeout_ms >= 0 && may_sleep(q))
			return 0;
		r = q->has_ring ? wait_ring(q, left) : wait_threads(q, left);
		if (r < 0)
			return r;
		waited = true;
	}
}

void vdisk_queue_free(struct vdisk_queue *q)
{
	struct vdisk_request *done[32];

	if (!q)
		return;
	while (q->in_flight > 0)
		(void)vdisk_queue_reap(q, done, ARRAY_SIZE(done), -1);
	/* the last worker may still hold the lock */
	pthread_mutex_lock(&q->lock);
	pthread_mutex_unlock(&q->lock);
	if (q->has_ring)
		io_uring_queue_exit(&q->ring);
	close(q->efd);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

/*
 * The ring's own descriptor will not do: with DEFER_TASKRUN, whoever sleeps in
 * poll() on it is not woken when a completion gets ready to be run.  A
 * registered eventfd is written then.  It is efd itself, so that workers wake
 * the sleeper without the ring (whose read of efd cannot write efd: the kernel
 * does not nest eventfds).
 */
int vdisk_queue_fd(struct vdisk_queue *q)
{
	uint64_t one = 1;

	if (!q->has_ring || q->polled)
		return q->efd;
	if (io_uring_register_eventfd(&q->ring, q->efd) < 0)
		return q->ring.ring_fd;
	q->polled = true;
	/* what is on its way already may not tell */
	if (q->in_flight > 0 && write(q->efd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
	return q->efd;
}

void vd_queue_share_copies(struct vdisk_queue *q)
{
	cpu_set_t set;

	q->shares = sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

uint64_t vd_queue_enters(const struct vdisk_queue *q)
{
	return q->enters;
}

const char *vdisk_queue_name(const struct vdisk_queue *q)
{
	return q->has_ring ? "io_uring" : "threads";
}

/*
 * The ring belongs to the thread that first submits (R_DISABLED until then),
 * and its completions are run when that thread asks for them.  Older kernels
 * get fewer of these flags.
 */
static int ring_new(struct vdisk_queue *q, unsigned depth)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED,
		IORING_SETUP_R_DISABLED,
	};
	int r = -EINVAL;

	for (unsigned i = 0; r == -EINVAL && i < ARRAY_SIZE(flags); i++)
		r = io_uring_queue_init(depth, &q->ring, flags[i]);
	q->has_ring = r == 0;
	return r;
}

static enum vdisk_queue_backend choose_backend(const struct vdisk_queue_opts *o,
					       struct vdisk_error *err)
{
	const char *env = getenv("VDISK_QUEUE");

	if (o->backend != VDISK_QUEUE_AUTO || !env || !env[0] || !strcmp(env, "auto"))
		return o->backend;
	if (!strcmp(env, "threads"))
		return VDISK_QUEUE_THREADS;
	if (!strcmp(env, "io_uring"))
		return VDISK_QUEUE_URING;
	vd_fail(err, EINVAL, "VDISK_QUEUE is auto, io_uring or threads, not '%s'", env);
	return (enum vdisk_queue_backend)-1;
}

int vdisk_queue_new(struct vdisk_queue **out, const struct vdisk_queue_opts *opts,
		    struct vdisk_error *err)
{
	struct vdisk_queue_opts o = { 0 };
	enum vdisk_queue_backend backend;
	struct vdisk_queue *q;
	int r;

	if (opts)
		memcpy(&o, opts, MIN(opts->size, sizeof(o)));
	backend = choose_backend(&o, err);
	if ((int)backend < 0)
		return -EINVAL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return vd_fail(err, ENOMEM, "out of memory");
	/* blocking: the ring would fail a read of a non-blocking one with EAGAIN */
	q->efd = eventfd(0, EFD_CLOEXEC);
	if (q->efd < 0) {
		r = vd_fail(err, errno, "cannot make an eventfd: %s", strerror(errno));
		free(q);
		return r;
	}
	if (backend != VDISK_QUEUE_THREADS) {
		unsigned depth = o.depth ? MAX(o.depth, 8u) : 128;

		r = ring_new(q, MIN(depth, 4096u));
		if (r < 0 && backend == VDISK_QUEUE_URING) {
			close(q->efd);
			free(q);
			return vd_fail(err, -r, "io_uring is not available here: %s", strerror(-r));
		}
	}
	pthread_mutex_init(&q->lock, NULL);
	q->done_tail = &q->done;
	q->remote_tail = &q->remote;
	q->begun_tail = &q->begun;
	*out = q;
	return 0;
}
