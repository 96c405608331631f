/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* service.c - see service.h */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/compiler.h"
#include "target/log.h"
#include "target/reactor/reactor.h"
#include "target/service.h"

int service_signals(const int *signals)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (; *signals; signals++)
		sigaddset(&set, *signals);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

void service_raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

void service_no_core(void)
{
	const struct rlimit none = { 0 };

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* ---- the service manager ---- */

static int notify_fd = -1;	/* owned, for the life of the process */

void notify_open(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;

	if (len < 2 || len >= sizeof(sa.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(sa.sun_path, path, len);
	if (path[0] == '@')
		sa.sun_path[0] = '\0';		/* of the abstract namespace */
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify_fd >= 0 && connect(notify_fd, (const struct sockaddr *)&sa,
				      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
		log_warnx("NOTIFY_SOCKET %s: %s", path, strerror(errno));
		close(notify_fd);
		notify_fd = -1;
	}
	unsetenv("NOTIFY_SOCKET");
}

void notify(const char *state)
{
	if (notify_fd >= 0 && send(notify_fd, state, strlen(state), MSG_NOSIGNAL) < 0)
		log_warnx("cannot notify the service manager: %s", strerror(errno));
}

/* ---- jobs ---- */

static struct {
	pthread_mutex_t lock;		/* guards finished */
	struct service_job *finished;
	struct reactor *reactor;	/* borrowed */
	struct reactor_source source;	/* owns its descriptor */
	unsigned n;			/* started, done() not yet called; the reactor's thread only */
} jobs = { .lock = PTHREAD_MUTEX_INITIALIZER, .source.fd = -1 };

static void finished(struct service_job *job)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&jobs.lock);
	job->next = jobs.finished;
	jobs.finished = job;
	pthread_mutex_unlock(&jobs.lock);
	/* (it can fail only when the counter is full: then it is readable anyway) */
	if (write(jobs.source.fd, &one, sizeof(one)) < 0)
		return;
}

static void *job_thread(void *arg)
{
	struct service_job *job = arg;

	job->run(job);
	finished(job);
	return NULL;
}

static void jobs_ready(struct reactor_source *source, uint32_t events UNUSED)
{
	struct service_job *job;
	uint64_t count;

	if (read(source->fd, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(&jobs.lock);
	job = jobs.finished;
	jobs.finished = NULL;
	pthread_mutex_unlock(&jobs.lock);
	while (job) {
		struct service_job *next = job->next;

		jobs.n--;
		job->done(job);
		job = next;
	}
}

int service_jobs_open(struct reactor *r, struct vdisk_error *err)
{
	int error;

	jobs.source = (struct reactor_source) {
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = jobs_ready,
	};
	if (jobs.source.fd < 0)
		return fail(err, errno, "eventfd: %s", strerror(errno));
	jobs.reactor = r;
	error = reactor_add(r, &jobs.source, EPOLLIN);
	return error < 0 ? fail(err, -error, "epoll: %s", strerror(-error)) : 0;
}

void service_jobs_close(void)
{
	if (jobs.source.fd < 0)
		return;
	reactor_remove(jobs.reactor, &jobs.source);
	close(jobs.source.fd);
	jobs.source.fd = -1;
}

void service_job_start(struct service_job *job)
{
	pthread_attr_t attr;
	pthread_t thread;

	jobs.n++;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, job_thread, job) != 0)
		job_thread(job);
	pthread_attr_destroy(&attr);
}

unsigned service_jobs(void)
{
	return jobs.n;
}
