/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket.c - connections on TCP sockets
 *
 * Reading: what waits in the socket goes to a staging buffer that all
 * connections share (it is empty again before the next one reads), except that
 * the data of a command, once a good deal of them is due, are received straight
 * into the buffer that the disk request will point to, with the staging buffer
 * behind it for what follows: one readv() for both.  Where one large data segment
 * follows another, no more than the next header is taken there, so that the
 * next data are not copied either.
 *
 * Writing: all output of a turn is sent by one sendmsg(), which gathers
 * headers, data and digests from where they are.  Large data that are in the page
 * cache are not read at all, but sent from there by sendfile().
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "target/iscsi/server.h"
#include "target/log.h"

#define DIRECT_MIN	4096u	/* less is copied from the staging buffer */
#define LARGE_DATA	(32u << 10)
#define PIECE_MAX	(128u << 10)	/* of data, so that they stay in the cache until written */
#define READS_A_TURN	16	/* then others have their turn */
#define IOVECS		384u
#define SEND_TIMEOUT_MS	30000u

struct iscsi_socket {
	struct iscsi_conn conn;
	struct reactor_source source;	/* owns the descriptor */
	struct reactor_deferred flush;
};

static struct iscsi_socket *socket_of(struct iscsi_conn *c)
{
	return container_of(c, struct iscsi_socket, conn);
}

static void set_events(struct iscsi_socket *s, uint32_t set, uint32_t clear)
{
	reactor_modify(s->conn.reactor, &s->source, (s->source.events | set) & ~clear);
}

/* ---- the wire ---- */

static void wire_output(struct iscsi_conn *c)
{
	struct iscsi_socket *s = socket_of(c);

	if (!(s->source.events & EPOLLOUT))
		reactor_defer(c->reactor, &s->flush);
}

static void wire_pause(struct iscsi_conn *c, bool paused)
{
	set_events(socket_of(c), paused ? 0 : EPOLLIN, paused ? EPOLLIN : 0);
}

static void wire_close(struct iscsi_conn *c)
{
	struct iscsi_socket *s = socket_of(c);

	reactor_cancel(c->reactor, &s->flush);
	reactor_remove(c->reactor, &s->source);
	close(s->source.fd);
}

static void wire_free(struct iscsi_conn *c)
{
	free(socket_of(c));
}

static void flush(struct reactor_deferred *work);

static void wire_flush(struct iscsi_conn *c)
{
	struct iscsi_socket *s = socket_of(c);

	if (!(s->source.events & EPOLLOUT))
		flush(&s->flush);
}

static const struct iscsi_wire socket_wire = {
	.output = wire_output,
	.flush = wire_flush,
	.pause = wire_pause,
	.close = wire_close,
	.free = wire_free,
	.sends_files = true,
};

static void close_errno(struct iscsi_conn *c, int error)
{
	char why[128], buf[96];

	snprintf(why, sizeof(why), "connection lost: %s", strerror_r(error, buf, sizeof(buf)));
	iscsi_conn_close(c, why);
}

static size_t iov_bytes(const struct iovec *iov, unsigned n)
{
	size_t total = 0;

	for (unsigned i = 0; i < n; i++)
		total += iov[i].iov_len;
	return total;
}

/* A vector, even of one, costs the kernel more than a buffer. */
static ssize_t send_pieces(int fd, struct iovec *iov, unsigned n, int more)
{
	const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | more;

	if (n == 1)
		return send(fd, iov->iov_base, iov->iov_len, flags);
	return sendmsg(fd, &(struct msghdr) { .msg_iov = iov, .msg_iovlen = n }, flags);
}

/* The pieces, then the run of a file: how much was sent of both, or what went wrong. */
static ssize_t send_some(int fd, struct iovec *iov, unsigned n, const struct iscsi_run *run)
{
	off_t at = (off_t)run->offset;
	ssize_t sent = 0, r;

	if (n > 0) {
		sent = send_pieces(fd, iov, n, run->len ? MSG_MORE : 0);
		if (!run->len || sent < 0 || (size_t)sent < iov_bytes(iov, n))
			return sent;
	}
	r = sendfile(fd, run->fd, &at, run->len);
	if (r == 0) {
		errno = EIO;		/* the file is shorter than it was */
		return -1;
	}
	return r > 0 ? sent + r : sent > 0 && (errno == EAGAIN || errno == EINTR) ? sent : -1;
}

static ssize_t receive_some(int fd, struct iovec *iov, unsigned n)
{
	return n == 1 ? recv(fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT) :
			readv(fd, iov, (int)n);
}

static void flush(struct reactor_deferred *work)
{
	struct iscsi_socket *s = container_of(work, struct iscsi_socket, flush);
	struct iovec iov[IOVECS];
	struct iscsi_run run;

	while (!s->conn.closed) {
		unsigned n = iscsi_conn_output(&s->conn, iov, IOVECS, &run);
		int error;
		ssize_t sent;

		if (n == 0 && run.len == 0)
			break;
		reactor_leave(s->conn.reactor);
		sent = send_some(s->source.fd, iov, n, &run);
		error = sent < 0 ? errno : 0;
		reactor_enter(s->conn.reactor);
		if (error == EINTR)
			continue;
		if (error && error != EAGAIN) {
			close_errno(&s->conn, error);
			return;
		}
		if (sent > 0)
			iscsi_conn_sent(&s->conn, (size_t)sent);
		if (sent < 0 || (size_t)sent < iov_bytes(iov, n) + run.len) {
			if (!s->conn.closed) {
				iscsi_conn_keep(&s->conn);
				set_events(s, EPOLLOUT, 0);
			}
			return;
		}
	}
	if (!s->conn.closed)
		set_events(s, 0, EPOLLOUT);
}

/* How much to take behind the data that go elsewhere. */
static size_t staging_want(const struct iscsi_conn *c)
{
	const struct iscsi_rx *rx = &c->rx;

	if (rx->req.data_len < LARGE_DATA)
		return REACTOR_SCRATCH;
	if (rx->state == ISCSI_RX_HEADER)
		return rx->need - rx->have;
	return rx->tail_need - rx->tail_have + ISCSI_BHS_SIZE +
		(c->header_digest ? ISCSI_DIGEST_SIZE : 0);
}

enum got { NOTHING, ALL, MAYBE_MORE };

/* A task that was aborted meanwhile goes now. */
static enum got receive_nothing(struct iscsi_conn *c, int error)
{
	if (c->rx.task)
		iscsi_task_received(c->rx.task);
	return error == EINTR ? MAYBE_MORE : NOTHING;
}

/* One read.  Whether the connection is closed then, is to be looked at. */
static enum got read_once(struct iscsi_socket *s)
{
	struct iscsi_conn *c = &s->conn;
	uint8_t *staging = reactor_scratch(c->reactor), *dst;
	size_t direct = iscsi_conn_direct(c, &dst), behind = REACTOR_SCRATCH, want, got;
	struct iovec iov[2];
	unsigned n = 0;
	bool piece;
	int error;
	ssize_t r;

	if (direct < DIRECT_MIN)
		direct = 0;
	piece = direct > PIECE_MAX + PIECE_MAX / 2;
	if (piece)
		direct = PIECE_MAX;
	if (direct)
		iov[n++] = (struct iovec) { .iov_base = dst, .iov_len = direct };
	if (direct || c->rx.state == ISCSI_RX_HEADER)
		behind = piece ? 0 : staging_want(c);
	if (behind)
		iov[n++] = (struct iovec) { .iov_base = staging, .iov_len = behind };
	want = direct + behind;
	c->receiving = direct > 0;
	reactor_leave(c->reactor);
	r = receive_some(s->source.fd, iov, n);
	error = r < 0 ? errno : 0;
	reactor_enter(c->reactor);
	c->receiving = false;
	if (error == EINTR || error == EAGAIN)
		return receive_nothing(c, error);
	if (r <= 0) {
		if (error)
			close_errno(c, error);
		else
			iscsi_conn_close(c, "connection closed by the initiator");
		return ALL;
	}
	got = (size_t)r;
	if (direct && iscsi_conn_received(c, MIN(got, direct)) < 0)
		return ALL;
	if (got > direct && iscsi_conn_input(c, staging, got - direct) < 0)
		return ALL;
	return got == want && !c->paused ? MAYBE_MORE : ALL;
}

static bool socket_poll(struct reactor_source *source)
{
	struct iscsi_socket *s = container_of(source, struct iscsi_socket, source);

	return !s->conn.paused && read_once(s) != NOTHING;
}

static void socket_ready(struct reactor_source *source, uint32_t events)
{
	struct iscsi_socket *s = container_of(source, struct iscsi_socket, source);

	if (events & EPOLLOUT) {
		flush(&s->flush);
		if (s->conn.closed)
			return;
	}
	/* while paused, only the end of the connection is of interest */
	if (s->conn.paused && events & (EPOLLHUP | EPOLLERR)) {
		iscsi_conn_close(&s->conn, "connection lost");
		return;
	}
	if (s->conn.paused || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	for (int i = 0; i < READS_A_TURN; i++)
		if (read_once(s) != MAYBE_MORE)
			return;
}

/* ---- new connections ---- */

static void tune(int fd)
{
	const int on = 1;
	const unsigned timeout = SEND_TIMEOUT_MS;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

void iscsi_socket_accepted(struct iscsi_portal *portal, int fd,
			   const struct sockaddr_storage *peer)
{
	struct iscsi_server *server = portal->server;
	struct iscsi_socket *s = calloc(1, sizeof(*s));
	struct sockaddr_storage local = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(local);

	if (!s) {
		log_warnx("connection refused: out of memory");
		close(fd);
		return;
	}
	tune(fd);
	s->source = (struct reactor_source) { .fd = fd, .ready = socket_ready, .poll = socket_poll };
	s->flush.run = flush;
	getsockname(fd, (struct sockaddr *)&local, &len);
	iscsi_address_bytes(s->conn.peer_address, peer);
	iscsi_address_format(s->conn.peer, peer);
	iscsi_address_format(s->conn.local, &local);
	s->conn.group = portal->group;
	s->conn.portal = portal->number;
	iscsi_conn_init(&s->conn, server, &socket_wire);
	if (reactor_add(s->conn.reactor, &s->source, EPOLLIN) < 0)
		iscsi_conn_close(&s->conn, "out of memory");
}
