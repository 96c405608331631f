/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pool.c - the threads on which the library may block
 *
 * One pool a process.  A thread is started when there is work and none is
 * idle, up to a limit; it stays.  Jobs may block on I/O and on allocations in
 * flight, but never on another job of the pool: a job that spreads its work
 * (vd_parallel) does all of it itself if nobody helps.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "core/engine.h"

#define POOL_MAX 32

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct vd_job *head, **tail;
	unsigned threads, idle, queued;
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.cond = PTHREAD_COND_INITIALIZER,
	.tail = &pool.head,
};

unsigned vd_cpus(void)
{
	static _Atomic unsigned cached;
	unsigned n = atomic_load_explicit(&cached, memory_order_relaxed);
	cpu_set_t set;

	if (n == 0) {
		n = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
		atomic_store_explicit(&cached, n, memory_order_relaxed);
	}
	return n;
}

static void *pool_thread(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		struct vd_job *job;

		while (!pool.head) {
			pool.idle++;
			pthread_cond_wait(&pool.cond, &pool.lock);
			pool.idle--;
		}
		job = pool.head;
		pool.head = job->next;
		if (!pool.head)
			pool.tail = &pool.head;
		pool.queued--;
		pthread_mutex_unlock(&pool.lock);
		job->run(job);
		pthread_mutex_lock(&pool.lock);
	}
	return NULL;
}

/* A child that was forked has none of the threads, and makes its own. */
static void forked(void)
{
	pthread_mutex_init(&pool.lock, NULL);
	pthread_cond_init(&pool.cond, NULL);
	pool.head = NULL;
	pool.tail = &pool.head;
	pool.threads = pool.idle = pool.queued = 0;
}

static void after_forks(void)
{
	pthread_atfork(NULL, NULL, forked);
}

/* Called with the lock held.  Signals are for the program's own threads. */
static bool pool_start_thread(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t t;
	int r;

	sigfillset(&all);
	sigdelset(&all, SIGSYS);	/* a sandbox says with it what it forbids */
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_once(&once, after_forks);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&t, &attr, pool_thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r == 0)
		pool.threads++;
	return r == 0;
}

void vd_pool_submit(struct vd_job *job)
{
	bool run_here;

	job->next = NULL;
	pthread_mutex_lock(&pool.lock);
	if (pool.queued >= pool.idle && pool.threads < POOL_MAX)
		pool_start_thread();
	/* a process that may have no threads at all still makes progress */
	run_here = pool.threads == 0;
	if (!run_here) {
		*pool.tail = job;
		pool.tail = &job->next;
		pool.queued++;
		pthread_cond_signal(&pool.cond);
	}
	pthread_mutex_unlock(&pool.lock);
	if (run_here)
		job->run(job);
}

/* ---- parallel loops ---- */

struct parallel {
	void (*fn)(void *arg, unsigned i);
	void *arg;
	unsigned n;
	_Atomic unsigned next;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned helpers;	/* guarded by lock: jobs that have not ended */
};

struct helper {
	struct vd_job job;
	struct parallel *p;
};

static void parallel_work(struct parallel *p)
{
	unsigned i;

	while ((i = atomic_fetch_add(&p->next, 1)) < p->n)
		p->fn(p->arg, i);
}

static void parallel_job(struct vd_job *job)
{
	struct parallel *p = container_of(job, struct helper, job)->p;

	parallel_work(p);
	pthread_mutex_lock(&p->lock);
	if (--p->helpers == 0)
		pthread_cond_signal(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

/* Take back a job that no thread has begun. */
static bool pool_cancel(struct vd_job *job)
{
	struct vd_job **at;
	bool found = false;

	pthread_mutex_lock(&pool.lock);
	for (at = &pool.head; *at && !found; ) {
		if (*at != job) {
			at = &(*at)->next;
			continue;
		}
		*at = job->next;
		if (!*at)
			pool.tail = at;
		pool.queued--;
		found = true;
	}
	pthread_mutex_unlock(&pool.lock);
	return found;
}

#define MAX_HELPERS 63

_Thread_local bool vd_is_worker;

void vd_parallel(void (*fn)(void *arg, unsigned i), void *arg, unsigned n)
{
	struct helper helper[MAX_HELPERS];
	struct parallel p = {
		.fn = fn, .arg = arg, .n = n,
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER,
	};
	unsigned want = vd_is_worker ? 1 : MIN(vd_cpus(), n);

	want = MIN(want, MAX_HELPERS + 1u);
	p.helpers = want ? want - 1 : 0;
	for (unsigned i = 0; i + 1 < want; i++) {
		helper[i].job.run = parallel_job;
		helper[i].p = &p;
		vd_pool_submit(&helper[i].job);
	}
	parallel_work(&p);
	/* all threads of the pool may be waiting for us: wait for none of them */
	for (unsigned i = 0; i + 1 < want; i++) {
		if (pool_cancel(&helper[i].job)) {
			pthread_mutex_lock(&p.lock);
			p.helpers--;
			pthread_mutex_unlock(&p.lock);
		}
	}
	pthread_mutex_lock(&p.lock);
	while (p.helpers > 0)
		pthread_cond_wait(&p.cond, &p.lock);
	pthread_mutex_unlock(&p.lock);
}
