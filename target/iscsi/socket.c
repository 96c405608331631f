/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket.c - portals, and connections on TCP sockets
 *
 * Reading: what waits in the socket goes to a staging buffer that all
 * connections share (it is empty again before the next one reads), except that
 * the data of a command, once a good deal of them is due, are received straight
 * into the buffer that the disk request will point to, with the staging buffer
 * behind it for what follows: one readv() for both.
 *
 * Writing: all output of a turn is sent by one sendmsg(), which gathers
 * headers, data and digests from where they are.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "target/iscsi/server.h"
#include "target/log.h"

#define STAGING		(64u << 10)
#define DIRECT_MIN	4096u	/* less is copied from the staging buffer */
#define READS_A_TURN	8	/* then others have their turn */
#define IOVECS		384u
#define DEFAULT_PORT	"3260"
#define SEND_TIMEOUT_MS	30000u

struct iscsi_portal {
	LIST_ENTRY(iscsi_portal) link;
	struct iscsi_server *server;
	struct reactor_source source;	/* owns the descriptor */
};

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
	reactor_modify(s->conn.server->reactor, &s->source, (s->source.events | set) & ~clear);
}

/* ---- the wire ---- */

static void wire_output(struct iscsi_conn *c)
{
	struct iscsi_socket *s = socket_of(c);

	if (!(s->source.events & EPOLLOUT))
		reactor_defer(c->server->reactor, &s->flush);
}

static void wire_pause(struct iscsi_conn *c, bool paused)
{
	set_events(socket_of(c), paused ? 0 : EPOLLIN, paused ? EPOLLIN : 0);
}

static void wire_close(struct iscsi_conn *c)
{
	struct iscsi_socket *s = socket_of(c);

	reactor_cancel(c->server->reactor, &s->flush);
	reactor_remove(c->server->reactor, &s->source);
	close(s->source.fd);
}

static void wire_free(struct iscsi_conn *c)
{
	free(socket_of(c));
}

static const struct iscsi_wire socket_wire = {
	.output = wire_output,
	.pause = wire_pause,
	.close = wire_close,
	.free = wire_free,
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

static void flush(struct reactor_deferred *work)
{
	struct iscsi_socket *s = container_of(work, struct iscsi_socket, flush);
	struct iovec iov[IOVECS];
	unsigned n;

	while (!s->conn.closed && (n = iscsi_conn_output(&s->conn, iov, IOVECS))) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
		ssize_t sent = sendmsg(s->source.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN) {
			close_errno(&s->conn, errno);
			return;
		}
		if (sent > 0)
			iscsi_conn_sent(&s->conn, (size_t)sent);
		if (sent < 0 || (size_t)sent < iov_bytes(iov, n)) {
			if (!s->conn.closed)
				set_events(s, EPOLLOUT, 0);
			return;
		}
	}
	if (!s->conn.closed)
		set_events(s, 0, EPOLLOUT);
}

/* One read; false when there is no more for now, or the connection is closed. */
static bool read_once(struct iscsi_socket *s)
{
	struct iscsi_conn *c = &s->conn;
	uint8_t *staging = c->server->staging, *dst;
	size_t direct = iscsi_conn_direct(c, &dst), want, got;
	struct iovec iov[2];
	int n = 0;
	ssize_t r;

	if (direct < DIRECT_MIN)
		direct = 0;
	if (direct)
		iov[n++] = (struct iovec) { .iov_base = dst, .iov_len = direct };
	iov[n++] = (struct iovec) { .iov_base = staging, .iov_len = STAGING };
	want = direct + STAGING;
	r = readv(s->source.fd, iov, n);
	if (r < 0 && errno == EINTR)
		return true;
	if (r < 0 && errno == EAGAIN)
		return false;
	if (r <= 0) {
		if (r < 0)
			close_errno(c, errno);
		else
			iscsi_conn_close(c, "connection closed by the initiator");
		return false;
	}
	got = (size_t)r;
	if (direct && iscsi_conn_received(c, MIN(got, direct)) < 0)
		return false;
	if (got > direct && iscsi_conn_input(c, staging, got - direct) < 0)
		return false;
	return got == want && !c->paused;
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
		if (!read_once(s))
			return;
}

/* ---- addresses ---- */

/* "127.0.0.1:3260", "[::1]:3260"; an IPv4 address mapped into IPv6 as IPv4. */
static void format_address(char out[ISCSI_ADDRESS_MAX], const struct sockaddr_storage *sa)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
	struct sockaddr_in in4 = { .sin_family = AF_INET };
	const struct sockaddr *addr = (const struct sockaddr *)(const void *)sa;
	socklen_t len = sa->ss_family == AF_INET6 ? sizeof(*in6) : sizeof(in4);
	char host[48] = "?", port[8] = "?";

	if (sa->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		memcpy(&in4.sin_addr, in6->sin6_addr.s6_addr + 12, 4);
		in4.sin_port = in6->sin6_port;
		addr = (const struct sockaddr *)&in4;
		len = sizeof(in4);
	}
	getnameinfo(addr, len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(out, ISCSI_ADDRESS_MAX, addr->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
		 host, port);
}

/* Split "ADDRESS[:PORT]"; an IPv6 address is in brackets. */
static bool split_portal(const char *text, char *host, size_t size, const char **port)
{
	bool bracket = text[0] == '[';
	const char *start = text + bracket;
	const char *end = bracket ? strchr(start, ']') : start + strcspn(start, ":");
	const char *rest;

	if (!end || (size_t)(end - start) >= size)
		return false;
	rest = end + bracket;
	if (*rest && *rest != ':')
		return false;
	memcpy(host, start, (size_t)(end - start));
	host[end - start] = '\0';
	*port = *rest && rest[1] ? rest + 1 : DEFAULT_PORT;
	return !*rest || !strchr(rest + 1, ':');
}

/* ---- portals ---- */

static void tune(int fd)
{
	const int on = 1;
	const unsigned timeout = SEND_TIMEOUT_MS;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

static void accepted(struct iscsi_server *server, int fd, const struct sockaddr_storage *peer)
{
	struct iscsi_socket *s = server->n_conns < ISCSI_MAX_CONNECTIONS ?
				 calloc(1, sizeof(*s)) : NULL;
	struct sockaddr_storage local = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(local);

	if (!s) {
		log_info("connection refused: there are %u already", server->n_conns);
		close(fd);
		return;
	}
	tune(fd);
	s->source = (struct reactor_source) { .fd = fd, .ready = socket_ready };
	s->flush.run = flush;
	if (reactor_add(server->reactor, &s->source, EPOLLIN) < 0) {
		close(fd);
		free(s);
		return;
	}
	getsockname(fd, (struct sockaddr *)&local, &len);
	iscsi_address_bytes(s->conn.peer_address, peer);
	format_address(s->conn.peer, peer);
	format_address(s->conn.local, &local);
	iscsi_conn_init(&s->conn, server, &socket_wire);
}

static void portal_ready(struct reactor_source *source, uint32_t events UNUSED)
{
	struct iscsi_portal *p = container_of(source, struct iscsi_portal, source);
	struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };

	for (int i = 0; i < READS_A_TURN; i++) {
		socklen_t len = sizeof(peer);
		int fd = accept4(source->fd, (struct sockaddr *)&peer, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		accepted(p->server, fd, &peer);
	}
}

static int listen_on(const struct addrinfo *ai)
{
	AUTO_CLOSE int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
				   ai->ai_protocol);
	const int on = 1, off = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 128) < 0)
		return -errno;
	return STEAL_FD(fd);
}

/* The first of the addresses that can be listened on, IPv6 (which takes both) first. */
static int listen_any(const struct addrinfo *list)
{
	static const int order[] = { AF_INET6, AF_INET };
	int fd = -EADDRNOTAVAIL;

	for (unsigned i = 0; i < ARRAY_SIZE(order) && fd < 0; i++)
		for (const struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
			if (ai->ai_family == order[i])
				fd = listen_on(ai);
	return fd;
}

int iscsi_portal_add(struct iscsi_server *server, const char *portal,
		     char address[ISCSI_ADDRESS_MAX], struct vdisk_error *err)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM };
	struct sockaddr_storage local = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(local);
	struct addrinfo *list;
	struct iscsi_portal *p;
	const char *port;
	char host[256];
	int r, fd;

	if (!split_portal(portal, host, sizeof(host), &port))
		return fail(err, EINVAL, "%s: not ADDRESS[:PORT]; write IPv6 as [ADDRESS]:PORT",
			    portal);
	r = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	if (r)
		return fail(err, EINVAL, "%s: %s", portal, gai_strerror(r));
	fd = listen_any(list);
	freeaddrinfo(list);
	if (fd < 0)
		return fail(err, -fd, "cannot listen on %s: %s", portal, strerror(-fd));
	if (!server->staging)
		server->staging = malloc(STAGING);
	p = calloc(1, sizeof(*p));
	if (!p || !server->staging) {
		close(fd);
		free(p);
		return fail(err, ENOMEM, "out of memory");
	}
	p->server = server;
	p->source = (struct reactor_source) { .fd = fd, .ready = portal_ready };
	LIST_INSERT_HEAD(&server->portals, p, link);
	r = reactor_add(server->reactor, &p->source, EPOLLIN);
	if (r < 0)
		return fail(err, -r, "%s: %s", portal, strerror(-r));
	if (address && getsockname(fd, (struct sockaddr *)&local, &len) == 0)
		format_address(address, &local);
	return 0;
}

void iscsi_portals_close(struct iscsi_server *server)
{
	struct iscsi_portal *p;

	while ((p = LIST_FIRST(&server->portals))) {
		LIST_REMOVE(p, link);
		reactor_remove(server->reactor, &p->source);
		close(p->source.fd);
		free(p);
	}
}
