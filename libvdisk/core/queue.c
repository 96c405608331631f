/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

#include "core/engine.h"

struct vdisk_queue {
	pthread_mutex_t lock;
	struct vdisk_request *done, **tail;
	unsigned in_flight;
	int efd;
};

struct priv {
	struct vd_job job;
	struct vdisk_queue *q;
};
_Static_assert(sizeof(struct priv) <= sizeof(((struct vdisk_request *)0)->reserved), "reserved");

static struct priv *priv_of(struct vdisk_request *r)
{
	return (void *)r->reserved;
}

int vdisk_queue_new(struct vdisk_queue **out, const struct vdisk_queue_opts *opts,
		    struct vdisk_error *err)
{
	struct vdisk_queue *q = calloc(1, sizeof(*q));

	(void)opts;
	if (!q)
		return vd_fail(err, ENOMEM, "out of memory");
	q->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&q->lock, NULL);
	q->tail = &q->done;
	*out = q;
	return 0;
}

static void run_job(struct vd_job *job)
{
	struct priv *p = container_of(job, struct priv, job);
	struct vdisk_request *r = container_of((uint64_t *)(void *)p, struct vdisk_request, reserved[0]);
	struct vdisk_queue *q = p->q;
	uint64_t one = 1;

	r->result = vd_io_run(r);
	pthread_mutex_lock(&q->lock);
	r->next = NULL;
	*q->tail = r;
	q->tail = &r->next;
	pthread_mutex_unlock(&q->lock);
	if (write(q->efd, &one, sizeof(one)) < 0)
		abort();
}

void vdisk_queue_submit(struct vdisk_queue *q, struct vdisk_request *const *reqs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct priv *p = priv_of(reqs[i]);
		uint64_t one = 1;
		int r = vd_io_validate(reqs[i]);

		p->q = q;
		p->job.run = run_job;
		q->in_flight++;
		if (r == 0) {
			vd_pool_submit(&p->job);
			continue;
		}
		reqs[i]->result = r;
		pthread_mutex_lock(&q->lock);
		reqs[i]->next = NULL;
		*q->tail = reqs[i];
		q->tail = &reqs[i]->next;
		pthread_mutex_unlock(&q->lock);
		if (write(q->efd, &one, sizeof(one)) < 0)
			abort();
	}
}

int vdisk_queue_reap(struct vdisk_queue *q, struct vdisk_request **done, unsigned max,
		     int timeout_ms)
{
	unsigned n = 0;

	if (q->in_flight == 0)
		return 0;
	for (;;) {
		struct pollfd pfd = { .fd = q->efd, .events = POLLIN };
		uint64_t v;

		pthread_mutex_lock(&q->lock);
		while (q->done && n < max) {
			done[n++] = q->done;
			q->done = q->done->next;
		}
		if (!q->done) {
			q->tail = &q->done;
			if (n == 0 && read(q->efd, &v, sizeof(v)) < 0 && errno != EAGAIN)
				abort();
		}
		pthread_mutex_unlock(&q->lock);
		if (n > 0 || timeout_ms == 0)
			break;
		if (poll(&pfd, 1, timeout_ms) < 0)
			return -errno;
	}
	q->in_flight -= n;
	return (int)n;
}

void vdisk_queue_free(struct vdisk_queue *q)
{
	struct vdisk_request *r[16];

	if (!q)
		return;
	while (q->in_flight)
		vdisk_queue_reap(q, r, 16, -1);
	close(q->efd);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

int vdisk_queue_fd(const struct vdisk_queue *q)
{
	return q->efd;
}

const char *vdisk_queue_name(const struct vdisk_queue *q)
{
	(void)q;
	return "threads";
}
