/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bounce.c - a block device that never sees the guest's memory
 *
 * There are two sets of queues.  The guest's are served here as any device does;
 * those of the inner device are in memory of our own, and here is their driver.  A
 * request is taken from the guest's queue, what the device is to read is copied
 * into a buffer, a chain of at most two descriptors (one to read, one to write)
 * goes to the inner queue; when it is back, what the device wrote is copied to the
 * guest, and the request is answered.  One thread does that for all queues.
 *
 * Invariants
 *   (1) A request that was taken is answered exactly once: by the inner device, or
 *       here, if it is too large or not in the guest's memory; or the device is
 *       broken, which resets both sides.
 *   (2) Neither side is trusted: of the inner one's used ring an element counts
 *       only if it names a request that it has.
 *   (3) While one request waits for room none that came later takes any.  What is
 *       in flight ends, and the largest request fits into an empty arena: so the
 *       wait ends, too.
 *   (4) After ->stop() the guest's memory is not touched.
 */
#include "vmm-lite/virtio/bounce.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "core/driver.h"
#include "vmm-lite/virtio/blk.h"

#define PAGE		4096u
#define DATA_BYTES	(64u << 20)
#define DATA_PAGES	(DATA_BYTES / PAGE)
/* what the driver is told that a segment may have (5.2.4): so no request is too large */
#define SEGMENT_MAX	(256u << 10)
static_assert((BLK_QUEUE_SIZE - 2) * SEGMENT_MAX + PAGE <= DATA_BYTES, "a request that does not fit");

/* The inner queues: two descriptors for each request. */
#define INNER_SIZE	256u
#define SLOTS		(INNER_SIZE / 2)
#define DESC_BYTES	16u
#define USED_BYTES	8u
#define AVAIL_AT	(INNER_SIZE * DESC_BYTES)
#define USED_AT		(AVAIL_AT + 1024u)
#define RINGS_BYTES	(2 * PAGE)
static_assert(AVAIL_AT + 6 + 2 * INNER_SIZE <= USED_AT, "the available ring is too long");
static_assert(USED_AT + 6 + USED_BYTES * INNER_SIZE <= RINGS_BYTES, "the used ring is too long");

#define SIZE_MAX_AT	8u	/* in the device's configuration (5.2.4) */
#define FEATURE(bit)	(UINT64_C(1) << (bit))

enum command { IDLE, RUN, QUIT };

struct slot {
	struct virtq_chain chain;
	uint32_t page, pages;		/* of the arena; 0: none yet */
	bool busy;
};

struct queue {
	struct virtq vq;		/* the guest's; size 0: not in use */
	int guest_kick;			/* borrowed */
	int kick_fd;			/* owned: the inner device's */
	bool kick;			/* it is to be rung */
	uint8_t *ring;			/* the inner rings */
	uint16_t avail, used;		/* their next entries */
	struct slot slot[SLOTS];
	uint16_t free[SLOTS], n_free;	/* a stack, so that few are used where few are needed */
	int waiting;			/* the slot whose request found no room; -1 */
	struct iovec *iov;		/* owned: BLK_QUEUE_SIZE for each slot */
};

struct bounce {
	struct virtio_device dev;
	struct virtio_device *inner;	/* owned */
	struct bounce_memory memory;	/* owned */
	struct guest_memory map;	/* the same, for the inner device */
	uint8_t *data;			/* the arena in it */
	uint64_t taken[DATA_PAGES / 64]; /* a bit a page of that */
	struct virtio_host host;
	void (*confine)(void);
	pthread_t thread;
	bool has_thread;
	int wake_fd;			/* owned: the inner device has answered, or ->command is news */
	pthread_mutex_t lock;		/* guards the next two */
	enum command command;
	bool busy;			/* the thread serves */
	pthread_cond_t changed;		/* one of them has */

	/* the thread's while it serves */
	bool broken;
	struct queue *waiting;		/* whose request has found no room */
	struct queue queue[];
};

static struct bounce *of(struct virtio_device *dev)
{
	return container_of(dev, struct bounce, dev);
}

/* ---- memory ---- */

int bounce_memory_new(struct bounce_memory *out, unsigned queues, struct vdisk_error *err)
{
	struct bounce_memory m = { .bytes = DATA_BYTES + (uint64_t)queues * RINGS_BYTES };
	AUTO_CLOSE int fd = memfd_create("bounce", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	/* sealed, or the other process could make it shorter under our hands */
	if (fd < 0 || ftruncate(fd, (off_t)m.bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return vd_fail(err, errno, "memory to share with a disk's process: %m");
	m.map = mmap(NULL, m.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (m.map == MAP_FAILED)
		return vd_fail(err, errno, "memory to share with a disk's process: %m");
	(void)madvise(m.map, m.bytes, MADV_DONTDUMP);
	m.fd = STEAL_FD(fd);
	*out = m;
	return 0;
}

void bounce_memory_free(struct bounce_memory *m)
{
	if (!m->map)
		return;
	munmap(m->map, m->bytes);
	close(m->fd);
	*m = (struct bounce_memory) { .fd = -1 };
}

static bool page_taken(const struct bounce *b, uint32_t page)
{
	return b->taken[page / 64] >> page % 64 & 1;
}

static void toggle(struct bounce *b, const struct slot *s)
{
	for (uint32_t i = s->page; i < s->page + s->pages; i++)
		b->taken[i / 64] ^= UINT64_C(1) << i % 64;
}

/* The first pages that are free, so that few are ever touched. */
static bool find_room(struct bounce *b, struct slot *s, uint32_t pages)
{
	for (uint32_t i = 0, run = 0; i < DATA_PAGES; i++) {
		run = page_taken(b, i) ? 0 : run + 1;
		if (run < pages)
			continue;
		s->page = i + 1 - pages;
		s->pages = pages;
		toggle(b, s);
		return true;
	}
	return false;
}

static void give_room_back(struct bounce *b, struct slot *s)
{
	toggle(b, s);
	s->pages = 0;
}

/* ---- the inner queues: we are the driver ---- */

/* A word of them that the other side may write; or that it may read. */
static uint16_t ring_load(const struct queue *q, unsigned at)
{
	return le16toh(__atomic_load_n((const uint16_t *)(const void *)(q->ring + at),
				       __ATOMIC_ACQUIRE));
}

static void ring_store(const struct queue *q, unsigned at, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)(q->ring + at), htole16(v), __ATOMIC_RELEASE);
}

static void set_desc(const struct queue *q, unsigned i, uint64_t addr, uint64_t len, unsigned flags,
		     unsigned next)
{
	uint8_t *d = q->ring + DESC_BYTES * i;

	store_le64(d, addr);
	store_le32(d + 8, (uint32_t)len);
	store_le16(d + 12, (uint16_t)flags);
	store_le16(d + 14, (uint16_t)next);
}

static void post(struct bounce *b, struct queue *q, unsigned slot)
{
	const struct virtq_chain *c = &q->slot[slot].chain;
	uint64_t at = (uint64_t)(b->data - b->memory.map) + (uint64_t)q->slot[slot].page * PAGE;
	unsigned head = 2 * slot;

	if (c->out_len)
		set_desc(q, head, at, c->out_len, VRING_DESC_F_NEXT, head + 1);
	else
		head++;
	set_desc(q, 2 * slot + 1, at + c->out_len, c->in_len, VRING_DESC_F_WRITE, 0);
	store_le16(q->ring + AVAIL_AT + 4 + 2 * (q->avail % INNER_SIZE), (uint16_t)head);
	q->avail++;
	ring_store(q, AVAIL_AT + 2, q->avail);
	q->kick = true;
}

/* One doorbell for all that was posted, if it is wanted (2.7.10). */
static void ring(struct queue *q)
{
	uint64_t one = 1;

	if (!q->kick)
		return;
	q->kick = false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(ring_load(q, USED_AT) & VRING_USED_F_NO_NOTIFY))
		(void)!write(q->kick_fd, &one, sizeof(one));
}

/* ---- requests ---- */

static struct iovec *iov_of(const struct queue *q, unsigned slot)
{
	return q->iov + (size_t)slot * BLK_QUEUE_SIZE;
}

static void free_slot(struct queue *q, unsigned slot)
{
	q->free[q->n_free++] = (uint16_t)slot;
}

/* Refused here; its last byte is for that (5.2.6).  -EPROTO: there is none. */
static int refuse(struct queue *q, unsigned slot)
{
	const struct virtq_chain *c = &q->slot[slot].chain;
	const struct iovec *last;

	if (!c->n_in)
		return -EPROTO;
	last = iov_of(q, slot) + c->n_out + c->n_in - 1;
	if (!last->iov_base)
		return -EPROTO;
	((uint8_t *)last->iov_base)[last->iov_len - 1] = VIRTIO_BLK_S_IOERR;
	virtq_put(&q->vq, c->head, 1);
	free_slot(q, slot);
	return 0;
}

static void copy_out(struct bounce *b, struct queue *q, unsigned slot)
{
	const struct virtq_chain *c = &q->slot[slot].chain;
	const struct iovec *iov = iov_of(q, slot);
	uint8_t *p = b->data + (size_t)q->slot[slot].page * PAGE;

	for (unsigned i = 0; i < c->n_out; i++) {
		memcpy(p, iov[i].iov_base, iov[i].iov_len);
		p += iov[i].iov_len;
	}
}

static void copy_in(struct bounce *b, struct queue *q, unsigned slot)
{
	const struct virtq_chain *c = &q->slot[slot].chain;
	const struct iovec *iov = iov_of(q, slot) + c->n_out;
	const uint8_t *p = b->data + (size_t)q->slot[slot].page * PAGE + c->out_len;

	for (unsigned i = 0; i < c->n_in; i++) {
		memcpy(iov[i].iov_base, p, iov[i].iov_len);
		p += iov[i].iov_len;
	}
}

/* A request that was taken, to the inner device: 0, -EAGAIN: there is no room, -EPROTO. */
static int pass_on(struct bounce *b, struct queue *q, unsigned slot)
{
	struct slot *s = &q->slot[slot];
	uint64_t len;

	if (s->chain.bad_memory || !s->chain.in_len ||
	    !vd_add(s->chain.out_len, s->chain.in_len, &len) || len > DATA_BYTES)
		return refuse(q, slot);
	if (!find_room(b, s, (uint32_t)vd_div_up(len, PAGE)))
		return -EAGAIN;
	s->busy = true;
	copy_out(b, q, slot);
	post(b, q, slot);
	return 0;
}

/* The one that waits, then what the guest has asked for since; as far as there is room. */
static int take(struct bounce *b, struct queue *q)
{
	int r = 0;

	while (!r) {
		unsigned slot;

		if (q->waiting >= 0) {
			slot = (unsigned)q->waiting;
		} else if (q->n_free) {
			slot = q->free[q->n_free - 1];
			r = virtq_pop(&q->vq, &q->slot[slot].chain, iov_of(q, slot));
			/* nothing: let the guest ring again, and look once more */
			if (!r && !virtq_listen(&q->vq))
				return 0;
			if (r <= 0)
				continue;
			q->n_free--;
		} else {
			return 0;	/* an answer wakes us */
		}
		r = pass_on(b, q, slot);
		q->waiting = r == -EAGAIN ? (int)slot : -1;
		b->waiting = r == -EAGAIN ? q : NULL;
	}
	return r == -EAGAIN ? 0 : r;
}

/* What the inner device has done; it may write there what it likes, so (2). */
static int reap(struct bounce *b, struct queue *q)
{
	while (ring_load(q, USED_AT + 2) != q->used) {
		const uint8_t *e = q->ring + USED_AT + 4 + USED_BYTES * (q->used % INNER_SIZE);
		uint32_t id = load_le32(e), len = load_le32(e + 4), slot = id / 2;

		if (slot >= SLOTS || !q->slot[slot].busy || id % 2 == !!q->slot[slot].chain.out_len)
			return -EPROTO;
		q->used++;
		copy_in(b, q, slot);
		virtq_put(&q->vq, q->slot[slot].chain.head,
			  (uint32_t)MIN((uint64_t)len, q->slot[slot].chain.in_len));
		q->slot[slot].busy = false;
		give_room_back(b, &q->slot[slot]);
		free_slot(q, slot);
	}
	return 0;
}

static void publish(struct bounce *b)
{
	for (unsigned i = 0; i < b->dev.n_queues; i++) {
		ring(&b->queue[i]);
		if (b->queue[i].vq.size && virtq_publish(&b->queue[i].vq))
			b->host.interrupt(b->host.arg, i);
	}
}

static void serve(struct bounce *b)
{
	int r = 0;

	for (unsigned i = 0; !r && i < b->dev.n_queues; i++)
		if (b->queue[i].vq.size)
			r = reap(b, &b->queue[i]);
	if (!r && b->waiting)
		r = take(b, b->waiting);
	for (unsigned i = 0; !r && !b->waiting && i < b->dev.n_queues; i++)
		if (b->queue[i].vq.size)
			r = take(b, &b->queue[i]);
	publish(b);
	if (r < 0) {
		b->broken = true;
		b->host.broken(b->host.arg);
	}
}

/* ---- the thread ---- */

static void read_event(const struct pollfd *p)
{
	uint64_t n;

	if (p->revents)
		(void)!read(p->fd, &n, sizeof(n));
}

static enum command command(struct bounce *b)
{
	enum command c;

	pthread_mutex_lock(&b->lock);
	c = b->command;
	pthread_mutex_unlock(&b->lock);
	return c;
}

/* Until it is told something else. */
static void run(struct bounce *b)
{
	struct pollfd fds[BLK_QUEUES_MAX + 1];

	while (command(b) == RUN) {
		for (unsigned i = 0; i < b->dev.n_queues; i++)
			fds[i] = (struct pollfd) {
				.fd = b->queue[i].vq.size ? b->queue[i].guest_kick : -1,
				.events = POLLIN,
			};
		fds[b->dev.n_queues] = (struct pollfd) { .fd = b->wake_fd, .events = POLLIN };
		if (poll(fds, b->dev.n_queues + 1u, -1) < 0)
			continue;
		for (unsigned i = 0; i <= b->dev.n_queues; i++)
			read_event(&fds[i]);
		if (!b->broken)
			serve(b);
	}
}

static void *bounce_thread(void *arg)
{
	struct bounce *b = arg;

	if (b->confine)
		b->confine();
	pthread_mutex_lock(&b->lock);
	while (b->command != QUIT) {
		if (b->command == IDLE) {
			pthread_cond_wait(&b->changed, &b->lock);
			continue;
		}
		b->busy = true;
		pthread_mutex_unlock(&b->lock);
		run(b);
		pthread_mutex_lock(&b->lock);
		b->busy = false;
		pthread_cond_broadcast(&b->changed);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

static void wake(struct bounce *b)
{
	uint64_t one = 1;

	(void)!write(b->wake_fd, &one, sizeof(one));
}

/* Returns when the thread does no longer what it did before. */
static void tell(struct bounce *b, enum command c)
{
	pthread_mutex_lock(&b->lock);
	b->command = c;
	pthread_cond_broadcast(&b->changed);
	wake(b);
	while (c != RUN && b->busy)
		pthread_cond_wait(&b->changed, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

/* ---- what the inner device calls ---- */

static void inner_interrupt(void *arg, unsigned queue)
{
	(void)queue;
	wake(arg);
}

static void inner_broken(void *arg)
{
	struct bounce *b = arg;

	b->host.broken(b->host.arg);
}

static void inner_config_changed(void *arg)
{
	struct bounce *b = arg;

	b->host.config_changed(b->host.arg);
}

/* ---- the device ---- */

static int start_queue(struct bounce *b, struct queue *q, struct virtq_setup *inner,
		       const struct virtio_start *s, const struct virtq_setup *setup)
{
	uint64_t at = (uint64_t)(q->ring - b->memory.map);

	*inner = (struct virtq_setup) { .kick_fd = q->kick_fd };
	q->vq.size = 0;
	q->waiting = -1;
	q->avail = q->used = q->n_free = 0;
	for (unsigned i = SLOTS; i-- > 0; ) {
		q->slot[i].busy = false;
		free_slot(q, i);
	}
	memset(q->ring, 0, RINGS_BYTES);
	if (!setup->size)
		return 0;
	/* a request's buffers are listed in as many entries */
	if (setup->size > BLK_QUEUE_SIZE)
		return -EINVAL;
	inner->size = INNER_SIZE;
	inner->desc = at;
	inner->avail = at + AVAIL_AT;
	inner->used = at + USED_AT;
	q->guest_kick = setup->kick_fd;
	return virtq_init(&q->vq, s->mem, setup, s->features & FEATURE(VIRTIO_RING_F_EVENT_IDX));
}

static int bounce_start(struct virtio_device *dev, const struct virtio_start *s)
{
	struct bounce *b = of(dev);
	struct virtq_setup setup[BLK_QUEUES_MAX];
	struct virtio_start inner = {
		.mem = &b->map, .queue = setup,
		.features = s->features & b->inner->features &
			    ~(FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC)),
		.host = { .interrupt = inner_interrupt, .broken = inner_broken, .arg = b,
			  .config_changed = s->host.config_changed ? inner_config_changed : NULL },
	};
	int r = 0;

	b->host = s->host;
	b->broken = false;
	b->waiting = NULL;
	memset(b->taken, 0, sizeof(b->taken));
	for (unsigned i = 0; !r && i < dev->n_queues; i++)
		r = start_queue(b, &b->queue[i], &setup[i], s, &s->queue[i]);
	if (!r)
		r = b->inner->ops->start(b->inner, &inner);
	if (!r)
		tell(b, RUN);
	return r;
}

/* When the inner device has stopped, it has done all that it will. */
static void bounce_stop(struct virtio_device *dev)
{
	struct bounce *b = of(dev);

	tell(b, IDLE);
	b->inner->ops->stop(b->inner);
	for (unsigned i = 0; i < dev->n_queues; i++)
		if (b->queue[i].vq.size)
			(void)reap(b, &b->queue[i]);
	publish(b);
}

static void bounce_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	struct bounce *b = of(dev);
	uint8_t most[4], *p = buf;

	b->inner->ops->config_read(b->inner, off, buf, len);
	store_le32(most, SEGMENT_MAX);
	for (unsigned i = 0; i < 4; i++)
		if (SIZE_MAX_AT + i >= off && SIZE_MAX_AT + i - off < len)
			p[SIZE_MAX_AT + i - off] = most[i];
}

static void bounce_config_write(struct virtio_device *dev, uint32_t off, const void *buf,
				uint32_t len)
{
	struct bounce *b = of(dev);

	b->inner->ops->config_write(b->inner, off, buf, len);
}

static void bounce_free(struct virtio_device *dev)
{
	struct bounce *b = of(dev);

	if (b->has_thread) {
		tell(b, QUIT);
		pthread_join(b->thread, NULL);
	}
	b->inner->ops->free(b->inner);
	for (unsigned i = 0; i < dev->n_queues; i++) {
		if (b->queue[i].kick_fd >= 0)
			close(b->queue[i].kick_fd);
		free(b->queue[i].iov);
	}
	if (b->wake_fd >= 0)
		close(b->wake_fd);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->changed);
	bounce_memory_free(&b->memory);
	free(b);
}

static const struct virtio_device_ops bounce_ops = {
	.start		= bounce_start,
	.stop		= bounce_stop,
	.config_read	= bounce_config_read,
	.config_write	= bounce_config_write,
	.free		= bounce_free,
};

static bool make_queues(struct bounce *b)
{
	bool good = true;

	for (unsigned i = 0; i < b->dev.n_queues; i++) {
		struct queue *q = &b->queue[i];

		q->ring = b->memory.map + (size_t)i * RINGS_BYTES;
		q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		q->iov = calloc((size_t)SLOTS * BLK_QUEUE_SIZE, sizeof(*q->iov));
		good &= q->kick_fd >= 0 && q->iov;
	}
	b->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return good && b->wake_fd >= 0;
}

int bounce_new(struct virtio_device **out, const struct bounce_options *o, struct vdisk_error *err)
{
	unsigned n = o->inner->n_queues;
	struct bounce_memory memory = o->memory;
	struct bounce *b = NULL;

	if (n <= BLK_QUEUES_MAX && memory.bytes == DATA_BYTES + (uint64_t)n * RINGS_BYTES)
		b = calloc(1, sizeof(*b) + n * sizeof(b->queue[0]));
	if (!b) {
		o->inner->ops->free(o->inner);
		bounce_memory_free(&memory);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	b->dev = *o->inner;
	b->dev.ops = &bounce_ops;
	b->dev.features |= FEATURE(VIRTIO_BLK_F_SIZE_MAX);
	b->inner = o->inner;
	b->memory = memory;
	b->confine = o->confine;
	b->data = memory.map + (size_t)n * RINGS_BYTES;
	b->map.n = 1;
	b->map.region[0] = (struct guest_region) { .size = memory.bytes, .host = memory.map };
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
	b->has_thread = make_queues(b) && !pthread_create(&b->thread, NULL, bounce_thread, b);
	if (!b->has_thread) {
		bounce_free(&b->dev);
		return vd_fail(err, EAGAIN, "a disk's queues: no memory, descriptors or thread");
	}
	*out = &b->dev;
	return 0;
}
