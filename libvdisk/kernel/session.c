/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* session.c - see session.h */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/driver.h"
#include "kernel/session.h"

/* ---- once for all sessions ---- */

static pthread_key_t buffer_key;

/* libfuse says why a mount failed on stderr; have it in the error instead. */
static _Thread_local char last_log[200];

__attribute__((format(printf, 2, 0)))
static void keep_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	if (level > FUSE_LOG_WARNING)
		return;
	vsnprintf(last_log, sizeof(last_log), fmt, ap);
	last_log[strcspn(last_log, "\n")] = '\0';
}

static void setup(void)
{
	fuse_set_log_func(keep_log);
	pthread_key_create(&buffer_key, free);
}

uint8_t *vd_session_buffer(void)
{
	uint8_t *buf = pthread_getspecific(buffer_key);

	if (!buf) {
		buf = aligned_alloc(4096, VD_SESSION_IO);
		if (buf && pthread_setspecific(buffer_key, buf) != 0) {
			free(buf);
			buf = NULL;
		}
	}
	return buf;
}

/* ---- the kernel's caution ---- */

/*
 * Of a FUSE mount the kernel reads 128 KiB ahead, however much the server would take,
 * and lets little wait to be written: a hundredth of what may wait at all, while who
 * writes more sleeps.  Both leave several threads with nothing to do.  Root may ask
 * for more, when the first request is answered: that answer can only make it less.
 */
static const struct {
	const char *name, *value;
} knobs[] = {
	{ "read_ahead_kb", "512" },
	{ "max_ratio", "20" },		/* percent */
};

/* Without asking the server, who does not answer yet. */
static void find_device(struct vd_session *s, const char *path)
{
	struct statx st;

	if (geteuid() == 0 && statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, 0, &st) == 0)
		s->device = makedev(st.stx_dev_major, st.stx_dev_minor);
}

static void turn_knobs(const struct vd_session *s)
{
	for (size_t i = 0; s->device && i < ARRAY_SIZE(knobs); i++) {
		AUTO_CLOSE int fd = -1;
		char path[80];
		ssize_t n;

		snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", major(s->device),
			 minor(s->device), knobs[i].name);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		n = fd >= 0 ? write(fd, knobs[i].value, strlen(knobs[i].value)) : 0;
		(void)n;	/* it works without */
	}
}

/* ---- beginning and end ---- */

int vd_session_start(struct vd_session *s, const char *path, const struct fuse_lowlevel_ops *ops,
		     size_t ops_size, void *arg, const char *options, struct vdisk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	AUTO_FREE char *text = strdup(options);
	char arg0[] = "vdisk", arg1[] = "-o";
	char *argv[] = { arg0, arg1, text, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	pthread_once(&once, setup);
	*s = (struct vd_session) { .stop_fd = eventfd(0, EFD_CLOEXEC) };
	if (s->stop_fd < 0 || !text)
		return vd_fail(err, ENOMEM, "out of memory");
	last_log[0] = '\0';
	s->fuse = fuse_session_new(&args, ops, ops_size, arg);
	fuse_opt_free_args(&args);
	if (!s->fuse)
		return vd_fail(err, EIO, "%s: cannot start FUSE: %s", path, last_log);
	if (fuse_session_mount(s->fuse, path) != 0)
		return vd_fail(err, EIO, "%s: cannot mount: %s%s", path,
			       last_log[0] ? last_log : "FUSE refused",
			       access("/dev/fuse", R_OK | W_OK) == 0 ? "" :
			       " (/dev/fuse is not accessible)");
	s->mounted = true;
	find_device(s, path);
	return 0;
}

void vd_session_stop(struct vd_session *s)
{
	const uint64_t one = 1;
	ssize_t n = write(s->stop_fd, &one, sizeof(one));

	(void)n;	/* the counter cannot overflow from here */
}

void vd_session_end(struct vd_session *s)
{
	if (s->mounted)
		fuse_session_unmount(s->fuse);
	if (s->fuse)
		fuse_session_destroy(s->fuse);
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	*s = (struct vd_session) { .stop_fd = -1 };
}

/* ---- serving ---- */

struct worker {
	struct vd_session *s;
	pthread_t thread;
	struct fuse_buf buf;
	int result;
};

/* Only while it waits for a request is a worker cancelled. */
static void *work(void *arg)
{
	struct worker *w = arg;
	int old, r;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	for (;;) {
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
		r = fuse_session_receive_buf(w->s->fuse, &w->buf);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r <= 0 || fuse_session_exited(w->s->fuse))
			break;		/* unmounted, or broken */
		fuse_session_process_buf(w->s->fuse, &w->buf);
		if (!atomic_load_explicit(&w->s->begun, memory_order_relaxed) &&
		    !atomic_exchange(&w->s->begun, true))
			turn_knobs(w->s);
	}
	w->result = r;
	vd_session_stop(w->s);
	return NULL;
}

int vd_session_serve(struct vd_session *s, unsigned threads, struct vdisk_error *err)
{
	AUTO_FREE struct worker *w = calloc(threads, sizeof(*w));
	struct pollfd stop = { .fd = s->stop_fd, .events = POLLIN };
	unsigned n = 0;
	int r = w ? 0 : -ENOMEM;

	for (; r == 0 && n < threads; n += r == 0) {
		w[n].s = s;
		r = -pthread_create(&w[n].thread, NULL, work, &w[n]);
	}
	while (r == 0 && poll(&stop, 1, -1) < 0)
		if (errno != EINTR)
			r = -errno;
	for (unsigned i = 0; i < n; i++)
		pthread_cancel(w[i].thread);
	for (unsigned i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		free(w[i].buf.mem);
		if (r == 0 && w[i].result < 0 && w[i].result != -ENODEV)
			r = w[i].result;
	}
	return r < 0 ? vd_fail(err, -r, "FUSE: %s", strerror(-r)) : 0;
}
