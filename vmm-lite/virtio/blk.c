/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk.c - a virtio block device on a disk (virtio 1.2, 5.2)
 *
 * Each virtqueue has a thread with a vdisk_queue of its own; queues share
 * nothing that is written.  A turn of the thread: take what is in the
 * available ring (at most a burst), submit it as one batch whose iovecs point
 * straight into guest memory, reap what has finished, publish all of that
 * with one index update and at most one interrupt.  Only when a turn finds
 * nothing does it ask for doorbells again and sleep.
 *
 * Invariants
 *   (1) A request taken from the ring is put back exactly once, with its
 *       status byte written before it is published.  A request that cannot be
 *       answered (no status byte to write) breaks the queue instead.
 *   (2) Headers and discard ranges are copied out of guest memory once, and
 *       judged there.  Only the data itself is used in place.
 *   (3) Nothing the guest asks ends the VMM: errors go to its status byte.
 *   (4) Stopping (reset) takes nothing new, and waits for what is in flight:
 *       afterwards guest memory is not touched.
 *
 *   (5) Where the queue is recorded, so that another process could go on after
 *       this one is killed, a write is answered only when nothing of it is in
 *       this process's memory alone: writes that left metadata there wait for a
 *       flush, one for all that wait.
 *
 * A read-only disk refuses writes whether or not the driver accepted F_RO;
 * a flush of it succeeds.
 */
#include "vmm-lite/virtio/blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>

#include "core/driver.h"

#define SECTOR		512u
#define HEADER_BYTES	16u
#define RANGE_BYTES	16u
#define RANGES_MAX	64u
#define RANGE_SECTORS	(1u << 22)
#define BURST		64u
#define CONFIG_BYTES	60u

#define NS		UINT64_C(1000000000)

#define POLL_CREDIT_MAX	16
#define POLL_VAIN_COSTS	4

#define FEATURE(bit)	(UINT64_C(1) << (bit))

struct range {
	uint64_t off, len;
	bool unmap;
};

/* Read once from guest memory: what is looked at is what is written. */
struct first_sector {
	uint8_t data[SECTOR];
	struct iovec iov[];	/* that, and the rest of the request */
};

struct request {
	struct vdisk_request r;
	struct request *again;	/* list of those whose next range is to be submitted,
				 * or that wait for a flush */
	uint8_t *status;	/* in guest memory */
	uint16_t head;
	uint32_t written;	/* by the device, with the status byte */
	struct first_sector *first; /* owned: of a write that begins there, to a disk kept raw */
	struct range *range;	/* owned: DISCARD, WRITE_ZEROES */
	unsigned n_ranges, next_range;
};

enum command { BLK_IDLE, BLK_RUN, BLK_QUIT };

struct queue {
	struct blk *blk;
	unsigned index;
	pthread_t thread;
	bool has_thread;
	int stop_fd;		/* owned: eventfd that wakes the thread, to see ->stop or limits */
	int bells;		/* owned: epoll of stop_fd, kick_fd and the descriptor of ->io */
	_Atomic bool stop;	/* take nothing new, finish, go idle */

	/* under blk->lock */
	enum command command;
	bool busy;		/* serving, or not ready yet */
	int setup_error;

	/* the thread's while it serves */
	struct virtq vq;
	int kick_fd;
	bool broken;
	uint64_t wait_until;	/* the limits allow the next request then; 0: now */
	int poll_credit;	/* how well looking on has paid */
	unsigned poll_skip, poll_back_off; /* sleeps not to look on before */
	unsigned in_flight;
	struct vdisk_queue *io;
	struct request *req;	/* owned: one for each head */
	struct iovec *iov;	/* owned: BLK_QUEUE_SIZE for each head */
	struct request *again;
	struct request *unsaved, *saving; /* (5): wait for the next flush, for this one */
	struct request save;
	struct vdisk_request *batch[BURST];
	unsigned n_batch;
	struct blk_stats stats;	/* written by the thread, read by anyone */
};

struct blk {
	struct virtio_device dev;
	struct vdisk *disk;	/* owned */
	struct vdisk_limits limits;
	bool read_only;
	char id[BLK_ID_BYTES];
	struct virtio_host host;
	bool flush_agreed, wce_agreed, event_idx;
	uint32_t block;		/* what the driver knows of: requests are whole ones */
	bool always_through;	/* blk_options.write_through */
	const struct guest_memory *mem;	/* borrowed while started */
	unsigned poll_us;
	void (*confine)(void);
	void (*keep_raw)(const char *serial, const char *format);
	struct limiter limiter;
	_Atomic bool writeback;	/* config field */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_queues;
	struct queue queue[];
};

static struct blk *of(struct virtio_device *dev)
{
	return container_of(dev, struct blk, dev);
}

/* ---- limits ---- */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

/* ---- counts: one thread writes, any may read ---- */

static void tally(uint64_t *count, uint64_t n)
{
	__atomic_store_n(count, *count + n, __ATOMIC_RELAXED);
}

static uint64_t tallied(const uint64_t *count)
{
	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

/* ---- one request ---- */

/* Copy @len bytes off the front of an iovec array, and drop them from it. */
static bool take_front(struct iovec **iov, uint16_t *n, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		size_t part;

		if (!*n || !(*iov)->iov_base)
			return false;
		part = MIN(len, (*iov)->iov_len);
		memcpy(p, (*iov)->iov_base, part);
		p += part;
		len -= part;
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + part;
		(*iov)->iov_len -= part;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*n)--;
		}
	}
	return true;
}

/* The last writable byte is the status (5.2.6); NULL if there is none to write. */
static uint8_t *take_status(struct virtq_chain *c, struct iovec *iov)
{
	struct iovec *last = &iov[c->n_out + c->n_in - 1];

	if (!c->n_in || !last->iov_base)
		return NULL;
	c->in_len--;
	if (!--last->iov_len)
		c->n_in--;
	return (uint8_t *)last->iov_base + last->iov_len;
}

static uint8_t status_of(int result)
{
	if (!result)
		return VIRTIO_BLK_S_OK;
	return result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void complete(struct queue *q, struct request *req, uint8_t status)
{
	free(req->range);
	req->range = NULL;
	if (unlikely(req->first)) {
		free(req->first);
		req->first = NULL;
	}
	if (unlikely(status != VIRTIO_BLK_S_OK))
		tally(&q->stats.errors, 1);
	*req->status = status;
	virtq_put(&q->vq, req->head, status == VIRTIO_BLK_S_OK ? req->written : 1);
}

static void flush_batch(struct queue *q)
{
	if (!q->n_batch)
		return;
	vdisk_queue_submit(q->io, q->batch, q->n_batch);
	q->n_batch = 0;
}

static void submit(struct queue *q, struct request *req)
{
	q->batch[q->n_batch++] = &req->r;
	q->in_flight++;
	if (q->n_batch == BURST)
		flush_batch(q);
}

static bool write_through(const struct blk *blk)
{
	if (blk->always_through)
		return true;
	return blk->wce_agreed ? !blk->writeback : !blk->flush_agreed;
}

/* Is [sector, + len bytes) on the disk, in whole blocks? */
static bool on_disk(const struct blk *blk, uint64_t sector, uint64_t len)
{
	uint64_t capacity = vdisk_size(blk->disk) / SECTOR;

	return len && len % blk->block == 0 && sector % (blk->block / SECTOR) == 0 &&
		vd_in_range(sector, len / SECTOR, capacity);
}

/* Take the first sector of a write to a disk that is to stay raw; false: not this one. */
static bool take_first(struct request *req, const struct blk *blk, struct iovec *iov, uint16_t n)
{
	struct first_sector *first = malloc(sizeof(*first) + ((size_t)n + 1) * sizeof(*iov));
	const char *format;

	req->first = first;
	if (!first || !take_front(&iov, &n, first->data, SECTOR))
		return false;
	format = vdisk_format_of(first->data, SECTOR);
	if (format) {
		blk->keep_raw(blk->id, format);
		return false;
	}
	first->iov[0] = (struct iovec) { first->data, SECTOR };
	memcpy(first->iov + 1, iov, n * sizeof(*iov));
	req->r.iov = first->iov;
	req->r.iovcnt = n + 1u;
	return true;
}

static uint8_t start_data(struct queue *q, struct request *req, bool write, uint64_t sector,
			  struct iovec *iov, uint16_t n, uint64_t len)
{
	struct blk *blk = q->blk;

	if ((write && blk->read_only) || !on_disk(blk, sector, len))
		return VIRTIO_BLK_S_IOERR;
	req->r.op = write ? VDISK_OP_WRITE : VDISK_OP_READ;
	if (write && write_through(blk))
		req->r.flags = VDISK_REQ_FUA;
	req->r.iov = iov;
	req->r.iovcnt = n;
	if (unlikely(write && !sector && blk->keep_raw) && !take_first(req, blk, iov, n))
		return VIRTIO_BLK_S_IOERR;
	req->r.offset = sector * SECTOR;
	req->r.length = len;
	if (!write)
		req->written = (uint32_t)MIN(len + 1, (uint64_t)UINT32_MAX);
	if (write) {
		tally(&q->stats.writes, 1);
		tally(&q->stats.written_bytes, len);
	} else {
		tally(&q->stats.reads, 1);
		tally(&q->stats.read_bytes, len);
	}
	submit(q, req);
	return VIRTIO_BLK_S_OK;
}

static void start_range(struct queue *q, struct request *req)
{
	const struct range *g = &req->range[req->next_range++];

	req->r.offset = g->off;
	req->r.length = g->len;
	req->r.flags = g->unmap ? VDISK_REQ_UNMAP : 0;
	if (req->r.op == VDISK_OP_ZERO && write_through(q->blk))
		req->r.flags |= VDISK_REQ_FUA;
	submit(q, req);
}

/* One of the 16-byte ranges of DISCARD and WRITE_ZEROES (5.2.6). */
static uint8_t parse_range(const struct blk *blk, const uint8_t *raw, bool discard,
			   struct range *out)
{
	uint64_t sector = load_le64(raw);
	uint32_t n = load_le32(raw + 8), flags = load_le32(raw + 12);

	if (flags & ~(discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		return VIRTIO_BLK_S_UNSUPP;
	if (n > RANGE_SECTORS || !on_disk(blk, sector, (uint64_t)n * SECTOR))
		return VIRTIO_BLK_S_IOERR;
	*out = (struct range) { .off = sector * SECTOR, .len = (uint64_t)n * SECTOR,
				.unmap = flags };
	return VIRTIO_BLK_S_OK;
}

static uint8_t start_ranges(struct queue *q, struct request *req, bool discard, struct iovec *iov,
			    uint16_t n, uint64_t len)
{
	struct blk *blk = q->blk;
	uint8_t raw[RANGE_BYTES], status = VIRTIO_BLK_S_OK;

	if (blk->read_only || !len || len % RANGE_BYTES || len / RANGE_BYTES > RANGES_MAX)
		return VIRTIO_BLK_S_IOERR;
	if (discard && !blk->limits.can_discard)
		return VIRTIO_BLK_S_UNSUPP;
	req->n_ranges = (unsigned)(len / RANGE_BYTES);
	req->next_range = 0;
	req->range = calloc(req->n_ranges, sizeof(*req->range));
	if (!req->range)
		return VIRTIO_BLK_S_IOERR;
	for (unsigned i = 0; status == VIRTIO_BLK_S_OK && i < req->n_ranges; i++) {
		if (!take_front(&iov, &n, raw, sizeof(raw)))
			return VIRTIO_BLK_S_IOERR;
		status = parse_range(blk, raw, discard, &req->range[i]);
	}
	if (status != VIRTIO_BLK_S_OK)
		return status;
	req->r.op = discard ? VDISK_OP_DISCARD : VDISK_OP_ZERO;
	tally(&q->stats.discards, 1);
	start_range(q, req);
	return VIRTIO_BLK_S_OK;
}

static uint8_t get_id(struct queue *q, struct request *req, const struct iovec *iov, uint16_t n,
		      uint64_t len)
{
	size_t done = 0;

	if (len < BLK_ID_BYTES)
		return VIRTIO_BLK_S_IOERR;
	for (; n && done < BLK_ID_BYTES; n--, iov++) {
		size_t part = MIN(iov->iov_len, BLK_ID_BYTES - done);

		memcpy(iov->iov_base, q->blk->id + done, part);
		done += part;
	}
	req->written = BLK_ID_BYTES + 1;
	complete(q, req, VIRTIO_BLK_S_OK);
	return VIRTIO_BLK_S_OK;
}

/* S_OK: it was started, or is complete.  Anything else is its answer. */
static uint8_t start_request(struct queue *q, struct request *req, struct virtq_chain *c,
			     struct iovec *iov)
{
	struct iovec *in = iov + c->n_out, *out = iov;
	uint16_t n_out = c->n_out;
	uint8_t header[HEADER_BYTES];
	uint64_t sector, out_len;
	uint32_t type;

	if (c->bad_memory || c->out_len < HEADER_BYTES ||
	    !take_front(&out, &n_out, header, sizeof(header)))
		return VIRTIO_BLK_S_IOERR;
	out_len = c->out_len - HEADER_BYTES;
	type = load_le32(header);
	sector = load_le64(header + 8);

	/* data in the wrong direction is the driver's mistake */
	if ((type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID ? out_len : c->in_len))
		return VIRTIO_BLK_S_IOERR;
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return start_data(q, req, false, sector, in, c->n_in, c->in_len);
	case VIRTIO_BLK_T_OUT:
		return start_data(q, req, true, sector, out, n_out, out_len);
	case VIRTIO_BLK_T_FLUSH:
		req->r.op = VDISK_OP_FLUSH;
		tally(&q->stats.flushes, 1);
		submit(q, req);
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_GET_ID:
		return get_id(q, req, in, c->n_in, c->in_len);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return start_ranges(q, req, type == VIRTIO_BLK_T_DISCARD, out, n_out, out_len);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* ---- a queue's thread ---- */

static void break_queue(struct queue *q)
{
	q->broken = true;
	q->blk->host.broken(q->blk->host.arg);
}

/* Without the header and the status. */
static uint64_t data_bytes(const struct virtq_chain *c)
{
	uint64_t all = c->out_len + c->in_len;

	return all > HEADER_BYTES + 1 ? all - HEADER_BYTES - 1 : 0;
}

/* Take one request from the ring; false if there is none. */
static bool take_one(struct queue *q)
{
	/* the head is not known yet: take the buffers at a spare place */
	struct iovec *spare = q->iov + (size_t)BLK_QUEUE_SIZE * BLK_QUEUE_SIZE, *iov;
	struct virtq_chain c;
	struct request *req;
	uint8_t status;
	struct limiter *limiter = &q->blk->limiter;
	bool limited = limiter->active;
	int r = 0;

	if (unlikely(limited)) {
		q->wait_until = limiter_wait(limiter, now_ns());
		if (q->wait_until)
			return false;
	}
	if (!q->broken)
		r = virtq_pop(&q->vq, &c, spare);
	if (r < 0)
		break_queue(q);
	if (r <= 0)
		return false;
	if (unlikely(limited))
		limiter_charge(limiter, now_ns(), data_bytes(&c));
	req = &q->req[c.head];
	iov = q->iov + (size_t)BLK_QUEUE_SIZE * c.head;
	memcpy(iov, spare, (size_t)(c.n_out + c.n_in) * sizeof(*iov));
	req->head = c.head;
	req->written = 1;
	req->r = (struct vdisk_request) { .disk = q->blk->disk, .user = req };
	req->status = take_status(&c, iov);
	if (!req->status) {
		break_queue(q);
		return false;
	}
	status = start_request(q, req, &c, iov);
	if (status != VIRTIO_BLK_S_OK)
		complete(q, req, status);
	return true;
}

/* ---- (5) ---- */

static void start_saving(struct queue *q)
{
	q->saving = STEAL(q->unsaved);
	q->save.r = (struct vdisk_request) {
		.disk = q->blk->disk, .op = VDISK_OP_FLUSH, .user = &q->save,
	};
	submit(q, &q->save);
}

static void wait_for_saving(struct queue *q, struct request *req)
{
	req->again = q->unsaved;
	q->unsaved = req;
	if (!q->saving)
		start_saving(q);
}

static void saved(struct queue *q)
{
	uint8_t status = status_of(q->save.r.result);

	while (q->saving) {
		struct request *req = q->saving;

		q->saving = req->again;
		complete(q, req, status);
	}
	if (q->unsaved)
		start_saving(q);
}

static bool changes(const struct request *req)
{
	return req->r.op != VDISK_OP_READ && req->r.op != VDISK_OP_FLUSH;
}

static void finished(struct queue *q, struct request *req)
{
	q->in_flight--;
	if (unlikely(req == &q->save)) {
		saved(q);
		return;
	}
	if (!req->r.result && req->range && req->next_range < req->n_ranges) {
		req->again = q->again;
		q->again = req;
		return;
	}
	if (unlikely(q->vq.record && !req->r.result && changes(req) && vd_unsaved(q->blk->disk))) {
		wait_for_saving(q, req);
		return;
	}
	complete(q, req, status_of(req->r.result));
}

static int reap(struct queue *q)
{
	struct vdisk_request *done[BURST];
	int n = 0;

	if (q->in_flight)
		n = vdisk_queue_reap(q->io, done, BURST, 0);
	for (int i = 0; i < n; i++)
		finished(q, done[i]->user);
	while (q->again) {
		struct request *req = q->again;

		q->again = req->again;
		start_range(q, req);
	}
	flush_batch(q);
	return n;
}

/* One turn; did it find anything to do? */
static bool turn(struct queue *q)
{
	unsigned taken = 0;
	int reaped;

	while (!q->stop && taken < BURST && take_one(q))
		taken++;
	flush_batch(q);
	reaped = reap(q);
	if (q->vq.used_idx != q->vq.used_seen) {
		tally(&q->stats.batches, 1);
		__atomic_store_n(&q->stats.enters, vd_queue_enters(q->io), __ATOMIC_RELAXED);
	}
	if (virtq_publish(&q->vq)) {
		tally(&q->stats.interrupts, 1);
		q->blk->host.interrupt(q->blk->host.arg, q->index);
	}
	return taken || reaped > 0;
}

/* One of ours. */
static void drain_eventfd(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;		/* EAGAIN: it was not us that was woken */
}

/* One of the driver's, who may have made it a blocking one. */
static void drain_kick(int fd)
{
	uint64_t n;
	struct iovec iov = { &n, sizeof(n) };

	if (preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0)
		return;		/* EAGAIN: nobody has rung since */
}

/* How long to sleep: until the limits allow the next request, or for ever. */
static int sleep_ms(const struct queue *q)
{
	uint64_t now;

	if (!q->wait_until || q->stop)
		return q->kick_fd < 0 ? 1 : -1;	/* no doorbell: look by ourselves */
	now = now_ns();
	return q->wait_until <= now ? 0 : (int)MIN((q->wait_until - now) / 1000000 + 1, 1000ull);
}

/*
 * Whoever looks for nothing loses trust, and then looks only before every 16th,
 * 32nd ... sleep: the guest may be idle, or want the processor that we look on.
 */
static void poll_was_vain(struct queue *q)
{
	q->poll_credit -= POLL_VAIN_COSTS;
	if (q->poll_credit >= 0) {
		q->poll_back_off = 0;
		return;
	}
	q->poll_credit = 0;
	q->poll_back_off = q->poll_back_off ? MIN(2 * q->poll_back_off, 1024u) : 16;
	q->poll_skip = q->poll_back_off;
}

/* The driver may be quick: look at the ring for a while before sleeping. */
static bool poll_briefly(struct queue *q)
{
	uint64_t until;

	if (!q->blk->poll_us || q->wait_until)
		return false;
	if (q->poll_skip) {
		q->poll_skip--;
		return false;
	}
	until = now_ns() + q->blk->poll_us * UINT64_C(1000);
	while (!q->stop && now_ns() < until) {
		if (turn(q)) {
			q->poll_credit = MIN(q->poll_credit + 1, POLL_CREDIT_MAX);
			return true;
		}
		__builtin_ia32_pause();
	}
	poll_was_vain(q);
	return false;
}

/*
 * Each write to an eventfd is told once (EPOLLET), so that none has to be read before the
 * next sleep: a doorbell costs one system call.
 */
static bool listen_to(struct queue *q, int fd)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLET };

	return fd >= 0 && epoll_ctl(q->bells, EPOLL_CTL_ADD, fd, &e) == 0;
}

/* Until it shall stop, and nothing is in flight. */
static void serve(struct queue *q)
{
	struct epoll_event rung[3];

	q->wait_until = 0;
	if (!listen_to(q, q->kick_fd))
		q->kick_fd = -1;
	for (;;) {
		virtq_quiet(&q->vq);
		while (turn(q) || poll_briefly(q))
			;
		if (q->stop && !q->in_flight)
			break;
		if (!q->stop && !q->broken && !q->wait_until && virtq_listen(&q->vq))
			continue;
		tally(&q->stats.sleeps, 1);
		(void)epoll_wait(q->bells, rung, ARRAY_SIZE(rung), sleep_ms(q));
	}
	if (q->kick_fd >= 0) {
		(void)epoll_ctl(q->bells, EPOLL_CTL_DEL, q->kick_fd, NULL);
		drain_kick(q->kick_fd);
	}
	drain_eventfd(q->stop_fd);
}

static void *queue_thread(void *arg)
{
	struct queue *q = arg;
	struct blk *blk = q->blk;
	struct vdisk_queue_opts opts = { .size = sizeof(opts), .depth = 2 * BLK_QUEUE_SIZE };

	if (blk->confine)
		blk->confine();
	/* the io queue is its thread's from the beginning */
	q->setup_error = vdisk_queue_new(&q->io, &opts, NULL);
	if (!q->setup_error && !(listen_to(q, q->stop_fd) && listen_to(q, vdisk_queue_fd(q->io))))
		q->setup_error = -errno;
	if (!q->setup_error)
		vd_queue_share_copies(q->io);
	pthread_mutex_lock(&blk->lock);
	for (;;) {
		q->busy = false;
		pthread_cond_broadcast(&blk->changed);
		while (q->command == BLK_IDLE)
			pthread_cond_wait(&blk->changed, &blk->lock);
		if (q->command == BLK_QUIT)
			break;
		q->command = BLK_IDLE;
		pthread_mutex_unlock(&blk->lock);
		serve(q);
		pthread_mutex_lock(&blk->lock);
	}
	pthread_mutex_unlock(&blk->lock);
	vdisk_queue_free(q->io);
	return NULL;
}

static void wait_idle(struct blk *blk, struct queue *q)
{
	pthread_mutex_lock(&blk->lock);
	while (q->busy)
		pthread_cond_wait(&blk->changed, &blk->lock);
	pthread_mutex_unlock(&blk->lock);
}

/* ---- the device ---- */

/* Let the thread serve what queue_prepare() has set up. */
static void queue_run(struct queue *q)
{
	pthread_mutex_lock(&q->blk->lock);
	q->busy = true;
	q->command = BLK_RUN;
	pthread_cond_broadcast(&q->blk->changed);
	pthread_mutex_unlock(&q->blk->lock);
}

static int queue_prepare(struct queue *q, const struct virtq_setup *setup)
{
	q->vq.size = 0;
	q->kick_fd = setup->kick_fd;
	q->stop = q->broken = false;
	drain_eventfd(q->stop_fd);
	if (!setup->size)
		return 0;
	if (setup->size > BLK_QUEUE_SIZE)
		return -EINVAL;
	return virtq_init(&q->vq, q->blk->mem, setup, q->blk->event_idx);
}

static int blk_start(struct virtio_device *dev, const struct virtio_start *s)
{
	struct blk *blk = of(dev);

	blk->mem = s->mem;
	blk->host = s->host;
	blk->event_idx = s->features & FEATURE(VIRTIO_RING_F_EVENT_IDX);
	/* a driver that does not look at the block size means sectors */
	blk->block = s->features & FEATURE(VIRTIO_BLK_F_BLK_SIZE) ? blk->limits.block_size : SECTOR;
	blk->flush_agreed = s->features & FEATURE(VIRTIO_BLK_F_FLUSH);
	blk->wce_agreed = s->features & FEATURE(VIRTIO_BLK_F_CONFIG_WCE);
	for (unsigned i = 0; i < blk->n_queues; i++) {
		int r = queue_prepare(&blk->queue[i], &s->queue[i]);

		if (r < 0)
			return r;
	}
	for (unsigned i = 0; i < blk->n_queues; i++)
		if (blk->queue[i].vq.size)
			queue_run(&blk->queue[i]);
	return 0;
}

static void wake(struct queue *q)
{
	uint64_t one = 1;

	if (write(q->stop_fd, &one, sizeof(one)) != sizeof(one))
		abort();	/* an eventfd near zero takes it */
}

static void tell_stop(struct queue *q)
{
	q->stop = true;
	wake(q);
}

static void blk_stop(struct virtio_device *dev)
{
	struct blk *blk = of(dev);

	for (unsigned i = 0; i < blk->n_queues; i++)
		tell_stop(&blk->queue[i]);
	for (unsigned i = 0; i < blk->n_queues; i++)
		wait_idle(blk, &blk->queue[i]);
	atomic_store(&blk->writeback, !blk->always_through);
}

static int blk_queue_start(struct virtio_device *dev, unsigned queue,
			   const struct virtq_setup *setup)
{
	struct queue *q = &of(dev)->queue[queue];
	int r = queue_prepare(q, setup);

	if (!r && q->vq.size)
		queue_run(q);
	return r;
}

static uint16_t blk_queue_stop(struct virtio_device *dev, unsigned queue)
{
	struct blk *blk = of(dev);
	struct queue *q = &blk->queue[queue];

	tell_stop(q);
	wait_idle(blk, q);
	return q->vq.last_avail;
}

static uint8_t log2_blocks(uint64_t bytes, uint32_t block)
{
	uint64_t n = bytes / block;

	return n > 1 ? (uint8_t)(63 - __builtin_clzll(n)) : 0;
}

/* struct virtio_blk_config, 5.2.4 */
static void fill_config(const struct blk *blk, uint8_t *c)
{
	const struct vdisk_limits *l = &blk->limits;
	uint64_t unit = MIN(l->unit, UINT64_C(1) << 24);

	memset(c, 0, CONFIG_BYTES);
	store_le64(c, vdisk_size(blk->disk) / SECTOR);
	store_le32(c + 12, BLK_QUEUE_SIZE - 2);
	store_le32(c + 20, l->block_size);
	c[24] = log2_blocks(l->physical_size, l->block_size);
	store_le32(c + 28, (uint32_t)(unit / l->block_size));
	c[32] = blk->writeback;
	store_le16(c + 34, (uint16_t)blk->n_queues);
	store_le32(c + 36, RANGE_SECTORS);
	store_le32(c + 40, RANGES_MAX);
	store_le32(c + 44, (uint32_t)(MAX(unit, (uint64_t)l->block_size) / SECTOR));
	store_le32(c + 48, RANGE_SECTORS);
	store_le32(c + 52, RANGES_MAX);
	c[56] = 1;		/* write-zeroes may unmap */
}

static void blk_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	uint8_t c[CONFIG_BYTES];

	memset(buf, 0, len);
	if (off >= CONFIG_BYTES)
		return;
	fill_config(of(dev), c);
	memcpy(buf, c + off, MIN(len, CONFIG_BYTES - off));
}

static void blk_config_write(struct virtio_device *dev, uint32_t off, const void *buf,
			     uint32_t len)
{
	if (off == 32 && len == 1)
		atomic_store(&of(dev)->writeback, *(const uint8_t *)buf & 1);
}

static void queue_destroy(struct queue *q)
{
	struct blk *blk = q->blk;

	if (q->has_thread) {
		wait_idle(blk, q);
		pthread_mutex_lock(&blk->lock);
		q->command = BLK_QUIT;
		pthread_cond_broadcast(&blk->changed);
		pthread_mutex_unlock(&blk->lock);
		pthread_join(q->thread, NULL);
	}
	if (q->stop_fd >= 0)
		close(q->stop_fd);
	if (q->bells >= 0)
		close(q->bells);
	free(q->req);
	free(q->iov);
}

static void blk_free(struct virtio_device *dev)
{
	struct blk *blk = of(dev);

	for (unsigned i = 0; i < blk->n_queues; i++)
		queue_destroy(&blk->queue[i]);
	limiter_destroy(&blk->limiter);
	pthread_mutex_destroy(&blk->lock);
	pthread_cond_destroy(&blk->changed);
	vdisk_close(blk->disk, NULL);
	free(blk);
}

void blk_set_limits(struct virtio_device *dev, const struct blk_limits *limits)
{
	struct blk *blk = of(dev);

	limiter_set(&blk->limiter, limits);
	for (unsigned i = 0; i < blk->n_queues; i++)
		wake(&blk->queue[i]);	/* it may sleep under the old ones */
}

void blk_get_stats(struct virtio_device *dev, struct blk_stats *out)
{
	const struct blk *blk = of(dev);

	*out = (struct blk_stats) { 0 };
	for (unsigned i = 0; i < blk->n_queues; i++) {
		const struct blk_stats *s = &blk->queue[i].stats;

		out->reads += tallied(&s->reads);
		out->writes += tallied(&s->writes);
		out->flushes += tallied(&s->flushes);
		out->discards += tallied(&s->discards);
		out->errors += tallied(&s->errors);
		out->read_bytes += tallied(&s->read_bytes);
		out->written_bytes += tallied(&s->written_bytes);
		out->interrupts += tallied(&s->interrupts);
		out->sleeps += tallied(&s->sleeps);
		out->batches += tallied(&s->batches);
		out->enters += tallied(&s->enters);
	}
}

static const struct virtio_device_ops blk_ops = {
	.start		= blk_start,
	.stop		= blk_stop,
	.queue_start	= blk_queue_start,
	.queue_stop	= blk_queue_stop,
	.config_read	= blk_config_read,
	.config_write	= blk_config_write,
	.free		= blk_free,
};

static int queue_init(struct blk *blk, unsigned index, struct vdisk_error *err)
{
	struct queue *q = &blk->queue[index];
	int r;

	*q = (struct queue) { .blk = blk, .index = index, .busy = true };
	blk->n_queues++;
	q->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->bells = epoll_create1(EPOLL_CLOEXEC);
	if (q->stop_fd < 0 || q->bells < 0)
		return vd_fail(err, errno, "eventfd, epoll: %m");
	q->req = calloc(BLK_QUEUE_SIZE, sizeof(*q->req));
	/* touched only as far as requests have pieces; one more for take_one() */
	q->iov = calloc((size_t)BLK_QUEUE_SIZE * (BLK_QUEUE_SIZE + 1), sizeof(*q->iov));
	if (!q->req || !q->iov)
		return vd_fail(err, ENOMEM, "out of memory");
	r = pthread_create(&q->thread, NULL, queue_thread, q);
	if (r)
		return vd_fail(err, r, "cannot start a disk thread: %s", strerror(r));
	q->has_thread = true;
	wait_idle(blk, q);
	if (q->setup_error < 0)
		return vd_fail(err, -q->setup_error, "disk queue: %s", strerror(-q->setup_error));
	return 0;
}

static uint64_t offered(const struct blk *blk, unsigned queues)
{
	uint64_t f = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
		     FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_BLK_F_SEG_MAX) |
		     FEATURE(VIRTIO_BLK_F_BLK_SIZE) | FEATURE(VIRTIO_BLK_F_TOPOLOGY);

	/* without FLUSH a driver knows that the disk writes through (5.2.5.2) */
	if (!blk->always_through)
		f |= FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_CONFIG_WCE);
	if (queues > 1)
		f |= FEATURE(VIRTIO_BLK_F_MQ);
	if (blk->read_only)
		return f | FEATURE(VIRTIO_BLK_F_RO);
	if (blk->limits.can_discard)
		f |= FEATURE(VIRTIO_BLK_F_DISCARD);
	return f | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
}

bool blk_keeps_raw(const struct vdisk *disk, const char *format, bool asked)
{
	return asked || (!format && !strcmp(vdisk_format(disk), "raw"));
}

int blk_new(struct virtio_device **out, const struct blk_options *opts, struct vdisk_error *err)
{
	const char *serial = opts->serial ? opts->serial : "";
	struct blk *blk;
	int r = 0;

	if (!opts->queues || opts->queues > BLK_QUEUES_MAX)
		return vd_fail(err, EINVAL, "%u queues: 1 to %u are possible", opts->queues,
			       BLK_QUEUES_MAX);
	if (strlen(serial) > BLK_ID_BYTES)
		return vd_fail(err, EINVAL, "serial number '%s' is longer than %u characters",
			       serial, BLK_ID_BYTES);
	blk = calloc(1, sizeof(*blk) + opts->queues * sizeof(blk->queue[0]));
	if (!blk)
		return vd_fail(err, ENOMEM, "out of memory");
	pthread_mutex_init(&blk->lock, NULL);
	limiter_init(&blk->limiter, &opts->limits);
	pthread_cond_init(&blk->changed, NULL);
	blk->disk = vdisk_ref(opts->disk);
	blk->always_through = opts->write_through;
	blk->writeback = !opts->write_through;
	blk->poll_us = opts->poll_us;
	blk->confine = opts->confine;
	blk->keep_raw = opts->keep_raw;
	blk->read_only = opts->read_only || !vdisk_writable(blk->disk);
	vdisk_get_limits(blk->disk, &blk->limits);
	memcpy(blk->id, serial, strlen(serial));
	blk->dev = (struct virtio_device) {
		.ops = &blk_ops, .id = VIRTIO_ID_BLOCK, .n_queues = (uint16_t)opts->queues,
		.queue_size = BLK_QUEUE_SIZE, .config_len = CONFIG_BYTES,
		.features = offered(blk, opts->queues),
	};
	for (unsigned i = 0; !r && i < opts->queues; i++)
		r = queue_init(blk, i, err);
	if (r < 0) {
		blk_free(&blk->dev);
		return r;
	}
	*out = &blk->dev;
	return 0;
}
