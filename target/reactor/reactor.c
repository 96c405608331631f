/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* reactor.c - see reactor.h */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "core/compiler.h"
#include "target/log.h"
#include "target/reactor/pool.h"
#include "target/reactor/reactor.h"

#define EVENTS	64
#define BATCH	128
#define TICK_MS	1000
/*
 * The last source that had something alone is asked again before epoll is, so many
 * times in a row; unless it failed too often, which costs a system call.
 */
#define HOT_TURNS	64u
#define HOT_MISSES	4u
#define HOT_PAUSE	1000u
#define LARGE_BATCH	(256u << 10)

/* What several reactors have in common; owned by the first. */
struct siblings {
	pthread_mutex_t lock;		/* held in all callbacks */
	struct reactor *all[REACTOR_MAX];	/* the first one too; owned */
	unsigned n;
};

struct reactor {
	int epoll;			/* owned */
	struct vdisk_queue *queue;	/* owned; its own thread's */
	struct pool *pool;		/* owned */
	size_t buffer_limit;
	struct reactor_source queue_source;
	uint64_t now;
	uint64_t next_tick;
	unsigned in_flight;		/* disk requests in the queue */
	bool queue_ready;		/* the queue's descriptor has to be calmed by reaping */
	unsigned load;
	unsigned busy_us;
	uint8_t *scratch;		/* owned */

	struct siblings *siblings;	/* NULL: alone */
	pthread_t thread;
	bool stop;
	bool sleeping;			/* or about to: has to be woken */
	struct reactor_source wake;	/* owns its descriptor: an eventfd */

	struct vdisk_request *batch, **batch_tail;	/* of this turn, not yet submitted */
	uint64_t batch_bytes;
	TAILQ_HEAD(deferred_list, reactor_deferred) deferred;
	LIST_HEAD(timer_list, reactor_timer) timers;

	struct reactor_source *hot;
	unsigned hot_turns, hot_misses, hot_pause;

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

	r->buffer_limit = buffer_limit;
	r->pool = pool_new(buffer_limit);
	r->scratch = malloc(REACTOR_SCRATCH);
	if (!r->pool || !r->scratch)
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
	r->wake.fd = -1;
	r->thread = pthread_self();
	r->batch_tail = &r->batch;
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

static void free_one(struct reactor *r)
{
	vdisk_queue_free(r->queue);
	pool_free(r->pool);
	if (r->epoll >= 0)
		close(r->epoll);
	if (r->wake.fd >= 0)
		close(r->wake.fd);
	free(r->scratch);
	free(r);
}

void reactor_free(struct reactor *r)
{
	struct siblings *s = r ? r->siblings : NULL;

	for (unsigned i = 1; s && i < s->n; i++) {
		s->all[i]->stop = true;
		reactor_wake(s->all[i]);
	}
	if (s)
		pthread_mutex_unlock(&s->lock);
	for (unsigned i = 1; s && i < s->n; i++) {
		pthread_join(s->all[i]->thread, NULL);
		free_one(s->all[i]);
	}
	if (s)
		pthread_mutex_destroy(&s->lock);
	free(s);
	if (r)
		free_one(r);
}

/* ---- several ---- */

void reactor_leave(struct reactor *r)
{
	if (r->siblings)
		pthread_mutex_unlock(&r->siblings->lock);
}

void reactor_enter(struct reactor *r)
{
	if (r->siblings)
		pthread_mutex_lock(&r->siblings->lock);
}

bool reactor_is_mine(const struct reactor *r)
{
	return !r->siblings || pthread_equal(r->thread, pthread_self());
}

void reactor_wake(struct reactor *r)
{
	uint64_t one = 1;

	if (!r->sleeping)
		return;		/* it will look before it sleeps */
	r->sleeping = false;
	if (write(r->wake.fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

static void woken(struct reactor_source *s, uint32_t events UNUSED)
{
	uint64_t n;

	if (read(s->fd, &n, sizeof(n)) < 0)
		assert(errno == EAGAIN);
}

unsigned reactor_count(const struct reactor *r)
{
	return r->siblings ? r->siblings->n : 1;
}

struct reactor *reactor_least(struct reactor *r)
{
	struct reactor *least = r;

	for (unsigned i = 0; r->siblings && i < r->siblings->n; i++)
		if (r->siblings->all[i]->load < least->load)
			least = r->siblings->all[i];
	return least;
}

void reactor_take_up(struct reactor *r, int n)
{
	r->load += (unsigned)n;
}

uint8_t *reactor_scratch(struct reactor *r)
{
	return r->scratch;
}

static int make_wakeable(struct reactor *r, struct vdisk_error *err)
{
	int error;

	r->wake = (struct reactor_source) {
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = woken,
	};
	if (r->wake.fd < 0)
		return fail(err, errno, "eventfd: %m");
	error = reactor_add(r, &r->wake, EPOLLIN);
	return error < 0 ? fail(err, -error, "epoll: cannot watch an eventfd") : 0;
}

static void *run_thread(void *arg)
{
	struct reactor *r = arg;

	reactor_enter(r);
	r->thread = pthread_self();
	while (!r->stop) {
		int error = reactor_turn(r, -1);

		if (error < 0)
			fatalx("waiting for events: %s", strerror(-error));
	}
	reactor_leave(r);
	return NULL;
}

/* The n-th processor of those that this process may use. */
static int pin(pthread_t thread, unsigned n)
{
	cpu_set_t all, one;
	int cpu = -1;

	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return -errno;
	n %= (unsigned)CPU_COUNT(&all);
	for (unsigned i = 0; i <= n; i++)
		do
			cpu++;
		while (!CPU_ISSET((unsigned)cpu, &all));
	CPU_ZERO(&one);
	CPU_SET((unsigned)cpu, &one);
	return -pthread_setaffinity_np(thread, sizeof(one), &one);
}

static int spawn_one(struct reactor *first, struct vdisk_error *err)
{
	struct siblings *s = first->siblings;
	struct reactor *r;
	int error = reactor_new(&r, first->buffer_limit, err);

	if (error == 0)
		error = make_wakeable(r, err);
	if (error < 0)
		return error;
	r->siblings = s;
	r->busy_us = first->busy_us;
	error = pthread_create(&r->thread, NULL, run_thread, r);
	if (error) {
		free_one(r);
		return fail(err, error, "cannot start a thread: %s", strerror(error));
	}
	s->all[s->n++] = r;
	return 0;
}

int reactor_spawn(struct reactor *r, const struct reactor_opts *opts, struct vdisk_error *err)
{
	pthread_mutexattr_t attr;
	int error = 0;

	r->busy_us = opts->busy_us;
	if (opts->threads > REACTOR_MAX)
		return fail(err, EINVAL, "more than %u threads", REACTOR_MAX);
	if (opts->threads > 1) {
		error = make_wakeable(r, err);
		if (error < 0)
			return error;
		r->siblings = calloc(1, sizeof(*r->siblings));
		if (!r->siblings)
			return fail(err, ENOMEM, "out of memory");
		pthread_mutexattr_init(&attr);
		/* it is held for less than a microsecond, mostly */
		pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
		pthread_mutex_init(&r->siblings->lock, &attr);
		pthread_mutexattr_destroy(&attr);
		r->siblings->all[r->siblings->n++] = r;
		reactor_enter(r);
	}
	while (error == 0 && reactor_count(r) < opts->threads)
		error = spawn_one(r, err);
	for (unsigned i = reactor_count(r); opts->pin && error == 0 && i-- > 0;) {
		/* the first one last: what it may use is inherited */
		error = pin(r->siblings ? r->siblings->all[i]->thread : r->thread, i);
		if (error < 0)
			return fail(err, -error, "cannot pin a thread: %s", strerror(-error));
	}
	return error;
}

struct pool *reactor_pool(struct reactor *r)
{
	return r->pool;
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
	if (r->hot == s)
		r->hot = NULL;
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
	reactor_wake(r);
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
	/* not r->now: it may be another thread's, and asleep since long ago */
	t->due = clock_ms() + seconds * 1000ull;
	if (!t->armed)
		LIST_INSERT_HEAD(&r->timers, t, link);
	t->armed = true;
	reactor_wake(r);
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

void reactor_submit(struct reactor *r, struct vdisk_request *req)
{
	req->next = NULL;
	*r->batch_tail = req;
	r->batch_tail = &req->next;
	r->batch_bytes += req->length;
	reactor_wake(r);
}

/* Off the batch, at most BATCH of it. */
static unsigned take_batch(struct reactor *r, struct vdisk_request **reqs)
{
	unsigned n = 0;

	while (r->batch && n < BATCH) {
		reqs[n++] = r->batch;
		r->batch = r->batch->next;
	}
	if (!r->batch) {
		r->batch_tail = &r->batch;
		r->batch_bytes = 0;
	}
	return n;
}

/* Submit, and hand back what is finished, until nothing comes at once any more. */
static void run_disk(struct reactor *r)
{
	struct vdisk_request *reqs[BATCH];
	int n = 0;

	while (r->batch || r->in_flight || r->queue_ready) {
		unsigned n_new = take_batch(r, reqs);

		r->in_flight += n_new;
		r->queue_ready = false;
		reactor_leave(r);
		if (n_new > 0)
			vdisk_queue_submit(r->queue, reqs, n_new);
		n = vdisk_queue_reap(r->queue, reqs, BATCH, 0);
		reactor_enter(r);
		if (n <= 0 && !r->batch)
			break;
		for (int i = 0; i < n; i++) {
			struct reactor_client *client = reqs[i]->user;

			r->in_flight--;
			client->done(client, reqs[i]);
		}
	}
}

bool reactor_batch_large(const struct reactor *r)
{
	return r->batch_bytes >= LARGE_BATCH;
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

static uint64_t clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* For a while by polling, if so wanted; then asleep. */
static int wait_events(struct reactor *r, int timeout_ms)
{
	uint64_t until = r->busy_us && timeout_ms != 0 ? clock_us() + r->busy_us : 0;
	int n = 0;

	while (until && n == 0 && clock_us() < until)
		n = epoll_wait(r->epoll, r->events, EVENTS, 0);
	return n ? n : epoll_wait(r->epoll, r->events, EVENTS, timeout_ms);
}

/* Did the source that was busy last time have something again? */
static bool poll_hot(struct reactor *r)
{
	bool got;

	if (!r->hot || r->hot_pause > 0 || r->hot_turns == HOT_TURNS) {
		r->hot_pause -= r->hot_pause > 0;
		r->hot_turns = 0;
		return false;
	}
	got = r->hot->poll(r->hot);
	r->hot_turns = got ? r->hot_turns + 1 : 0;
	r->hot_misses = got ? 0 : r->hot_misses + 1;
	if (r->hot_misses == HOT_MISSES) {
		r->hot_misses = 0;
		r->hot_pause = HOT_PAUSE;
	}
	return got;
}

/* What is ready now, or within the time. */
static int take_events(struct reactor *r, int timeout_ms)
{
	int error;

	timeout_ms = r->stop || !TAILQ_EMPTY(&r->deferred) || r->batch ? 0 : wait_ms(r, timeout_ms);
	r->sleeping = r->siblings;
	reactor_leave(r);
	r->n_events = wait_events(r, timeout_ms);
	error = r->n_events < 0 ? errno : 0;
	reactor_enter(r);
	r->sleeping = false;
	if (error) {
		r->n_events = 0;
		if (error != EINTR)
			return -error;
	}
	r->now = clock_ms();
	r->hot = NULL;
	if (r->n_events == 1) {
		struct reactor_source *s = r->events[0].data.ptr;

		r->hot = s->poll ? s : NULL;
	}
	for (r->at_event = 0; r->at_event < r->n_events; r->at_event++) {
		struct epoll_event *ev = &r->events[r->at_event];
		struct reactor_source *s = ev->data.ptr;

		if (s)
			s->ready(s, ev->events);
	}
	r->n_events = 0;
	run_timers(r);
	return 0;
}

int reactor_turn(struct reactor *r, int timeout_ms)
{
	int error = 0;

	/* work queued from outside a turn runs before we sleep */
	run_disk(r);
	run_deferred(r);
	if (!poll_hot(r))
		error = take_events(r, timeout_ms);
	run_disk(r);
	run_deferred(r);
	return error;
}
