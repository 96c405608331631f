/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* reactor.c - see reactor.h */
#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>

#include "core/compiler.h"
#include "target/log.h"
#include "target/reactor/pool.h"
#include "target/reactor/reactor.h"

#define EVENTS	64
#define BATCH	128
#define TICK_MS	1000
#define LARGE_BATCH	(256u << 10)

struct reactor {
	int epoll;			/* owned */
	struct vdisk_queue *queue;	/* owned */
	struct pool *pool;		/* owned */
	struct reactor_source queue_source;
	uint64_t now;
	uint64_t next_tick;
	unsigned in_flight;		/* disk requests */
	bool queue_ready;		/* the queue's descriptor has to be calmed by reaping */

	struct vdisk_request *batch[BATCH];	/* of this turn, not yet submitted */
	unsigned n_batch;
	uint64_t batch_bytes;
	TAILQ_HEAD(deferred_list, reactor_deferred) deferred;
	LIST_HEAD(timer_list, reactor_timer) timers;

	/* what epoll returned; removal of a source blanks its events */
	struct epoll_event events[EVENTS];
	int n_events, at_event;
};

static uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void queue_ready(struct reactor_source *s, uint32_t events UNUSED)
{
	struct reactor *r = container_of(s, struct reactor, queue_source);

	r->queue_ready = true;
}

static int reactor_init(struct reactor *r, size_t buffer_limit, struct vdisk_error *err)
{
	const struct vdisk_queue_opts opts = { .size = sizeof(opts), .depth = BATCH };
	int error;

	r->pool = pool_new(buffer_limit);
	if (!r->pool)
		return fail(err, ENOMEM, "no memory for data buffers");
	error = vdisk_queue_new(&r->queue, &opts, err);
	if (error < 0)
		return error;
	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (r->epoll < 0)
		return fail(err, errno, "epoll: %m");
	r->queue_source = (struct reactor_source) {
		.fd = vdisk_queue_fd(r->queue), .ready = queue_ready,
	};
	error = reactor_add(r, &r->queue_source, EPOLLIN);
	if (error < 0)
		return fail(err, -error, "epoll: cannot watch the disk queue");
	return 0;
}

int reactor_new(struct reactor **out, size_t buffer_limit, struct vdisk_error *err)
{
	struct reactor *r = calloc(1, sizeof(*r));
	int error;

	if (!r)
		return fail(err, ENOMEM, "out of memory");
	r->epoll = -1;
	TAILQ_INIT(&r->deferred);
	LIST_INIT(&r->timers);
	r->now = clock_ms();
	r->next_tick = r->now + TICK_MS;
	error = reactor_init(r, buffer_limit, err);
	if (error < 0) {
		reactor_free(r);
		return error;
	}
	*out = r;
	return 0;
}

void reactor_free(struct reactor *r)
{
	if (!r)
		return;
	vdisk_queue_free(r->queue);
	pool_free(r->pool);
	if (r->epoll >= 0)
		close(r->epoll);
	free(r);
}

struct pool *reactor_pool(struct reactor *r)
{
	return r->pool;
}

const char *reactor_queue_name(const struct reactor *r)
{
	return vdisk_queue_name(r->queue);
}

uint64_t reactor_now(const struct reactor *r)
{
	return r->now;
}

/* ---- sources ---- */

int reactor_add(struct reactor *r, struct reactor_source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };

	if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		return -errno;
	s->events = events;
	return 0;
}

void reactor_modify(struct reactor *r, struct reactor_source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };

	if (events == s->events)
		return;
	if (epoll_ctl(r->epoll, EPOLL_CTL_MOD, s->fd, &ev) == 0)
		s->events = events;
}

void reactor_remove(struct reactor *r, struct reactor_source *s)
{
	epoll_ctl(r->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	for (int i = r->at_event; i < r->n_events; i++)
		if (r->events[i].data.ptr == s)
			r->events[i].data.ptr = NULL;
}

/* ---- deferred work and timers ---- */

void reactor_defer(struct reactor *r, struct reactor_deferred *work)
{
	if (work->queued)
		return;
	work->queued = true;
	TAILQ_INSERT_TAIL(&r->deferred, work, link);
}

void reactor_cancel(struct reactor *r, struct reactor_deferred *work)
{
	if (!work->queued)
		return;
	work->queued = false;
	TAILQ_REMOVE(&r->deferred, work, link);
}

static void run_deferred(struct reactor *r)
{
	struct reactor_deferred *work;

	while ((work = TAILQ_FIRST(&r->deferred))) {
		reactor_cancel(r, work);
		work->run(work);
	}
}

void reactor_arm(struct reactor *r, struct reactor_timer *t, unsigned seconds)
{
	t->due = r->now + seconds * 1000ull;
	if (!t->armed)
		LIST_INSERT_HEAD(&r->timers, t, link);
	t->armed = true;
}

void reactor_disarm(struct reactor_timer *t)
{
	if (t->armed)
		LIST_REMOVE(t, link);
	t->armed = false;
}

static struct reactor_timer *expired_timer(struct reactor *r)
{
	struct reactor_timer *t;

	LIST_FOREACH(t, &r->timers, link)
		if (t->due <= r->now)
			return t;
	return NULL;
}

static void run_timers(struct reactor *r)
{
	struct reactor_timer *t;

	if (r->now < r->next_tick)
		return;
	r->next_tick = r->now + TICK_MS;
	while ((t = expired_timer(r))) {
		reactor_disarm(t);
		t->expired(t);
	}
}

/* ---- disk requests ---- */

static void submit_batch(struct reactor *r)
{
	unsigned n = r->n_batch;

	r->n_batch = 0;
	r->batch_bytes = 0;
	if (n)
		vdisk_queue_submit(r->queue, r->batch, n);
}

void reactor_submit(struct reactor *r, struct vdisk_request *req)
{
	if (r->n_batch == BATCH)
		submit_batch(r);
	r->batch[r->n_batch++] = req;
	r->batch_bytes += req->length;
	r->in_flight++;
}

bool reactor_batch_large(const struct reactor *r)
{
	return r->batch_bytes >= LARGE_BATCH;
}

/* Submit, and hand back what is finished, until nothing comes at once any more. */
static void run_disk(struct reactor *r)
{
	struct vdisk_request *done[BATCH];
	int n;

	while (r->in_flight || r->queue_ready) {
		r->queue_ready = false;
		submit_batch(r);
		n = vdisk_queue_reap(r->queue, done, BATCH, 0);
		if (n <= 0)
			break;
		r->in_flight -= (unsigned)n;
		for (int i = 0; i < n; i++) {
			struct reactor_client *client = done[i]->user;

			client->done(client, done[i]);
		}
	}
}

void reactor_run_batch(struct reactor *r)
{
	run_disk(r);
}

/* ---- the loop ---- */

static int wait_ms(const struct reactor *r, int timeout_ms)
{
	int tick;

	if (LIST_EMPTY(&r->timers))
		return timeout_ms;
	tick = r->next_tick > r->now ? (int)(r->next_tick - r->now) : 0;
	return timeout_ms < 0 || tick < timeout_ms ? tick : timeout_ms;
}

int reactor_turn(struct reactor *r, int timeout_ms)
{
	/* work queued from outside a turn runs before we sleep */
	run_disk(r);
	run_deferred(r);
	if (!TAILQ_EMPTY(&r->deferred) || r->n_batch)
		timeout_ms = 0;

	r->n_events = epoll_wait(r->epoll, r->events, EVENTS, wait_ms(r, timeout_ms));
	if (r->n_events < 0) {
		r->n_events = 0;
		if (errno != EINTR)
			return -errno;
	}
	r->now = clock_ms();
	for (r->at_event = 0; r->at_event < r->n_events; r->at_event++) {
		struct epoll_event *ev = &r->events[r->at_event];
		struct reactor_source *s = ev->data.ptr;

		if (s)
			s->ready(s, ev->events);
	}
	r->n_events = 0;
	run_timers(r);
	run_disk(r);
	run_deferred(r);
	return 0;
}
