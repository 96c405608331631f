/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* server.c - sockets and signals of the vhost-user server */
#include "vmm-lite/vhost/server.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/driver.h"
#include "core/fds.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vhost/session.h"
#include "vmm-lite/vhost/talk.h"
#include "vmm-lite/virtio/blk.h"
#include "vmm-lite/words.h"

#define PATIENCE_S	10	/* for the rest of a message that has begun */
#define LINE_MAX_BYTES	512
#define LOOK_MS		2000	/* how often it is looked whether the disk has grown */

static struct vhost_session *session;	/* the one; for on_sigbus() too */

/* A front end has truncated its memory under us. */
static void on_sigbus(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (session && vhost_session_patch_memory(session, info->si_addr))
		return;
	signal(number, SIG_DFL);	/* not that: the access is repeated, and ends us */
}

/* ---- messages ---- */

/* One message: read, done, answered.  1; 0 when the front end has gone; -errno. */
static int one_message(int sock)
{
	uint8_t payload[VHOST_PAYLOAD_MAX] = { 0 };
	int fds[VHOST_FDS_MAX], r;
	static struct vhost_answer answer;
	struct vhost_header h;
	unsigned n_fds;

	r = vhost_next(sock, &h, payload, fds, &n_fds);
	if (r <= 0) {
		vd_close_fds(fds, n_fds);
		return r;
	}
	r = vhost_session_message(session, &h, payload, fds, n_fds, &answer);
	/* an unknown one is refused; all else means that we do not agree */
	if (r < 0 && r != -EOPNOTSUPP)
		return r;
	r = answer.len ? vhost_send(sock, answer.bytes, answer.len, &answer.fd, answer.fd >= 0) : 0;
	return r < 0 ? r : 1;
}

/* ---- the control socket ---- */

static void say_stats(struct vhost_server *s, char *out, size_t room)
{
	struct blk_stats st;

	blk_get_stats(s->dev, &st);
	snprintf(out, room, "ok size=%" PRIu64 " connected=%d reads=%" PRIu64 " writes=%" PRIu64
		 " flushes=%" PRIu64 " discards=%" PRIu64 " errors=%" PRIu64 " read-bytes=%" PRIu64
		 " written-bytes=%" PRIu64 " interrupts=%" PRIu64 " sleeps=%" PRIu64
		 " batches=%" PRIu64 " enters=%" PRIu64,
		 vdisk_size(s->disk), session != NULL, st.reads, st.writes, st.flushes, st.discards,
		 st.errors, st.read_bytes, st.written_bytes, st.interrupts, st.sleeps, st.batches,
		 st.enters);
}

static void resize(struct vhost_server *s, const char *text, char *out, size_t room)
{
	struct vdisk_error err = { 0 };
	uint64_t size;

	if (vdisk_parse_size(text, &size) < 0 || size % 512) {
		snprintf(out, room, "error '%s' is not a size in whole sectors", text);
		return;
	}
	if (vdisk_resize(s->disk, size, &err) < 0) {
		snprintf(out, room, "error %s", err.msg);
		return;
	}
	if (session)
		vhost_session_config_changed(session);
	snprintf(out, room, "ok");
}

/* Somebody else has made the disk larger: the guest sees it.  As often as LOOK_MS says. */
static void look_for_growth(struct vhost_server *s)
{
	struct timespec now;
	uint64_t ms;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (ms - s->looked_ms < LOOK_MS)
		return;
	s->looked_ms = ms;
	if (s->disk && vdisk_refresh(s->disk) > 0 && session)
		vhost_session_config_changed(session);
}

static void obey(struct vhost_server *s, char *line, char *out, size_t room)
{
	char *arg = strchr(line, ' ');
	struct blk_limits limits;

	if (arg)
		*arg++ = '\0';
	if (!strcmp(line, "stats")) {
		say_stats(s, out, room);
	} else if (!strcmp(line, "resize") && arg) {
		resize(s, arg, out, room);
	} else if (!strcmp(line, "limit") && arg) {
		if (words_limits(arg, &limits) < 0) {
			snprintf(out, room, "error '%s' is no limit", arg);
			return;
		}
		blk_set_limits(s->dev, &limits);
		snprintf(out, room, "ok");
	} else {
		snprintf(out, room, "error unknown command: stats, limit SPEC, resize BYTES");
	}
}

static void set_patience(int sock)
{
	struct timeval t = { .tv_sec = PATIENCE_S };

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

/* A client says one line, in one piece, gets one, and is done. */
static void serve_control(struct vhost_server *s)
{
	AUTO_CLOSE int sock = accept4(s->control_fd, NULL, NULL, SOCK_CLOEXEC);
	char line[LINE_MAX_BYTES], out[LINE_MAX_BYTES + sizeof(((struct vdisk_error *)0)->msg)];
	size_t len = 0;

	if (sock < 0)
		return;
	set_patience(sock);
	for (;;) {
		ssize_t n = recv(sock, line + len, sizeof(line) - 1 - len, 0);

		if (n <= 0)
			return;
		len += (size_t)n;
		if (memchr(line, '\n', len))
			break;
		if (len == sizeof(line) - 1)
			return;
	}
	line[len] = '\0';
	*strchr(line, '\n') = '\0';
	obey(s, line, out, sizeof(out) - 1);
	len = strlen(out);
	out[len++] = '\n';
	if (send(sock, out, len, MSG_NOSIGNAL) < 0)
		log_info("control: the client has gone");
}

/* Whoever started us, and asks now and then: packets, so that none waits for its rest. */
static void serve_lines(struct vhost_server *s)
{
	char line[LINE_MAX_BYTES], out[LINE_MAX_BYTES + sizeof(((struct vdisk_error *)0)->msg)];
	ssize_t n = recv(s->lines_fd, line, sizeof(line) - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(STEAL_FD(s->lines_fd));
		return;
	}
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	obey(s, line, out, sizeof(out));
	if (send(s->lines_fd, out, strlen(out), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_info("control: nobody waits for the answer");
}

/* ---- the loop ---- */

static int begin(struct vhost_server *s)
{
	int r = vhost_session_new(&session, s->dev);

	if (!r)
		set_patience(s->connection_fd);
	return r;
}

static void end(struct vhost_server *s)
{
	struct vhost_session *old = session;

	vhost_session_free(old);
	session = NULL;
	close(s->connection_fd);
	s->connection_fd = -1;
	/* its guest may be off for good */
	if (s->disk)
		vdisk_flush(s->disk);
}

static int accept_front_end(struct vhost_server *s)
{
	s->connection_fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (s->connection_fd < 0)
		return errno == EINTR || errno == ECONNABORTED ? 0 : -errno;
	log_info("a front end has connected");
	return begin(s);
}

/* A turn for the connection; false when the server is done. */
static bool serve_connection(struct vhost_server *s)
{
	int r = one_message(s->connection_fd);

	if (r > 0)
		return true;
	if (r < 0)
		log_warnx("the front end's connection is closed: %s", strerror(-r));
	else
		log_info("the front end has gone");
	end(s);
	return !s->once && s->listen_fd >= 0;
}

int vhost_serve(struct vhost_server *s)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	int r = 0;

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
	if (s->connection_fd >= 0)
		r = begin(s);
	while (!r) {
		struct pollfd fds[] = {
			{ .fd = s->signal_fd, .events = POLLIN },
			{ .fd = s->control_fd, .events = POLLIN },
			{ .fd = s->connection_fd >= 0 ? s->connection_fd : s->listen_fd,
			  .events = POLLIN },
			{ .fd = s->lines_fd, .events = POLLIN },
		};

		int n = poll(fds, ARRAY_SIZE(fds), LOOK_MS);

		if (n < 0) {
			r = errno == EINTR ? 0 : -errno;
			continue;
		}
		look_for_growth(s);
		if (fds[0].revents)
			break;
		if (fds[1].revents)
			serve_control(s);
		if (fds[3].revents)
			serve_lines(s);
		if (!fds[2].revents)
			continue;
		if (s->connection_fd < 0)
			r = accept_front_end(s);
		else if (!serve_connection(s))
			break;
	}
	if (session)
		end(s);
	return r;
}

/* ---- a socket in the file system ---- */

/* Is anyone listening there? */
static bool in_use(const struct sockaddr_un *addr)
{
	AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return sock < 0 || !connect(sock, (const void *)addr, sizeof(*addr)) ||
	       errno != ECONNREFUSED;
}

int vhost_listen(int *out, const char *path, struct vdisk_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;

	if (strlen(path) >= sizeof(addr.sun_path))
		return vd_fail(err, ENAMETOOLONG, "%s: too long for a socket's name", path);
	memcpy(addr.sun_path, path, strlen(path));
	if (sock < 0)
		return vd_fail(err, errno, "socket: %m");
	if (!lstat(path, &st)) {
		if (!S_ISSOCK(st.st_mode))
			return vd_fail(err, EEXIST, "%s: there is something else of this name", path);
		if (in_use(&addr))
			return vd_fail(err, EADDRINUSE, "%s: another server is using it", path);
		unlink(path);
	}
	if (bind(sock, (const void *)&addr, sizeof(addr)) < 0 || listen(sock, 8) < 0)
		return vd_fail(err, errno, "%s: %m", path);
	*out = STEAL_FD(sock);
	return 0;
}
