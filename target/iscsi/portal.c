/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * portal.c - where we listen, who is let in, and what discovery tells of it
 *
 * A connection is refused at once, before a byte of it is read, if there are too
 * many, or too many that are still logging in from its address, or if that
 * address tries too often or fails too often (throttle.h).
 *
 * What is told of portals (RFC 7143, 4.2.7 and C): first the address that the
 * initiator used, which it can reach for sure; then the others of the groups that
 * the target is in, except for those that nobody else can use: any-address and
 * link-local ones, and loopback ones unless the initiator is on this host.
 * "advertise" overrides what a portal is told as.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "target/iscsi/server.h"
#include "target/log.h"

#define DEFAULT_PORT	"3260"
#define ACCEPTS_A_TURN	8	/* then others have their turn */

/* ---- addresses ---- */

/* "127.0.0.1:3260", "[::1]:3260"; an IPv4 address mapped into IPv6 as IPv4. */
void iscsi_address_format(char out[ISCSI_ADDRESS_MAX], const struct sockaddr_storage *sa)
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
	/* getaddrinfo() would take the number modulo 65536 */
	return strspn(*port, "0123456789") == strlen(*port) && strlen(*port) <= 5 &&
	       strtoul(*port, NULL, 10) <= 65535;
}

/* ---- who is let in ---- */

/* Connections from there that are not logged in so far. */
static unsigned pending_from(const struct iscsi_server *server, const uint8_t address[16])
{
	const struct iscsi_conn *c;
	unsigned n = 0;

	LIST_FOREACH(c, &server->conns, link)
		if ((c->state == ISCSI_XPT_UP || c->state == ISCSI_IN_LOGIN) &&
		    !memcmp(c->peer_address, address, 16))
			n++;
	return n;
}

/* NULL: let it in; else why not. */
static const char *refusal(struct iscsi_server *server, const uint8_t address[16])
{
	const struct iscsi_limits *l = &server->limits;

	if (server->n_conns >= l->sessions + l->pending_logins)
		return "too many connections";
	if (pending_from(server, address) >= l->pending_logins)
		return "too many of its logins are under way";
	if (!server->throttle)
		server->throttle = iscsi_throttle_new();
	if (server->throttle &&
	    !iscsi_throttle_login(server->throttle, address, reactor_now(server->reactor), l))
		return "it tries or fails to log in too often";
	return NULL;
}

/* One line a second, however many there are. */
static void log_refusal(struct iscsi_server *server, const struct sockaddr_storage *peer,
			const char *why)
{
	uint64_t now = reactor_now(server->reactor);
	char address[ISCSI_ADDRESS_MAX];

	server->refused++;
	if (now - server->refusal_logged < 1000)
		return;
	iscsi_address_format(address, peer);
	log_warnx("%s: connection refused: %s (%u refused so far)", address, why, server->refused);
	server->refusal_logged = now;
}

static void portal_ready(struct reactor_source *source, uint32_t events UNUSED)
{
	struct iscsi_portal *p = container_of(source, struct iscsi_portal, source);
	struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };

	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		socklen_t len = sizeof(peer);
		int fd = accept4(source->fd, (struct sockaddr *)&peer, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);
		uint8_t address[16];
		const char *why;

		if (fd < 0)
			return;
		iscsi_address_bytes(address, &peer);
		why = refusal(p->server, address);
		if (why) {
			log_refusal(p->server, &peer, why);
			close(fd);
		} else {
			iscsi_socket_accepted(p, fd, &peer);
		}
	}
}

/* ---- portals ---- */

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

struct iscsi_portal *iscsi_portal_add(struct iscsi_server *server, const char *text,
				      struct vdisk_error *err)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM };
	struct sockaddr_storage local = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(local);
	struct addrinfo *list;
	struct iscsi_portal *p;
	const char *port;
	char host[256];
	int r, fd;

	if (!split_portal(text, host, sizeof(host), &port)) {
		fail(err, EINVAL, "%s: not ADDRESS[:PORT]; write IPv6 as [ADDRESS]:PORT", text);
		return NULL;
	}
	r = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	if (r) {
		fail(err, EINVAL, "%s: %s", text, gai_strerror(r));
		return NULL;
	}
	fd = listen_any(list);
	freeaddrinfo(list);
	if (fd < 0) {
		fail(err, -fd, "cannot listen on %s: %s", text, strerror(-fd));
		return NULL;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		close(fd);
		fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	p->server = server;
	p->group = ISCSI_PORTAL_GROUP;
	p->number = ++server->last_portal;
	p->source = (struct reactor_source) { .fd = fd, .ready = portal_ready };
	if (getsockname(fd, (struct sockaddr *)&local, &len) == 0) {
		iscsi_address_format(p->address, &local);
		iscsi_address_bytes(p->bytes, &local);
	}
	LIST_INSERT_HEAD(&server->portals, p, link);
	r = reactor_add(server->reactor, &p->source, EPOLLIN);
	if (r < 0) {
		LIST_REMOVE(p, link);
		close(fd);
		free(p);
		fail(err, -r, "%s: %s", text, strerror(-r));
		return NULL;
	}
	return p;
}

void iscsi_portal_close(struct iscsi_portal *p)
{
	LIST_REMOVE(p, link);
	reactor_remove(p->server->reactor, &p->source);
	close(p->source.fd);
	free(p->advertise);
	free(p);
}

void iscsi_portals_close(struct iscsi_server *server)
{
	while (!LIST_EMPTY(&server->portals))
		iscsi_portal_close(LIST_FIRST(&server->portals));
}

/* ---- discovery ---- */

static bool is_zero(const uint8_t address[16])
{
	static const uint8_t any_v4[16] = { [10] = 0xff, [11] = 0xff }, any_v6[16];

	return !memcmp(address, any_v6, 16) || !memcmp(address, any_v4, 16);
}

/* What to tell this initiator of a portal that it did not come through; NULL: nothing. */
static const char *told_as(const struct iscsi_conn *c, const struct iscsi_portal *p)
{
	bool link_local = p->bytes[0] == 0xfe && (p->bytes[1] & 0xc0) == 0x80;

	if (p->advertise)
		return *p->advertise ? p->advertise : NULL;
	if (is_zero(p->bytes) || link_local ||
	    (iscsi_address_loopback(p->bytes) && !iscsi_address_loopback(c->peer_address)))
		return NULL;
	return p->address;
}

/* The target's name with its first address. */
static int tell(struct iscsi_conn *c, const char *name, bool *named, const char *address,
		uint16_t group)
{
	char text[ISCSI_ADDRESS_MAX + 8];
	int r = 0;

	if (!*named)
		r = iscsi_text_put(&c->text_out, "TargetName", name);
	*named = true;
	snprintf(text, sizeof(text), "%s,%u", address, group);
	return r < 0 ? r : iscsi_text_put(&c->text_out, "TargetAddress", text);
}

int iscsi_portals_tell(struct iscsi_conn *c, const struct iscsi_target *t)
{
	const struct iscsi_portal *p, *own = NULL;
	bool named = false;
	int r = 0;

	LIST_FOREACH(p, &c->server->portals, link)
		if (p->number == c->portal)
			own = p;
	if (iscsi_access_group(&t->access, c->group)) {
		const char *address = own && own->advertise ? own->advertise : c->local;

		if (*address)
			r = tell(c, t->scsi->name, &named, address, c->group);
	}
	LIST_FOREACH(p, &c->server->portals, link) {
		const char *address = p == own ? NULL : told_as(c, p);

		if (r == 0 && address && iscsi_access_group(&t->access, p->group))
			r = tell(c, t->scsi->name, &named, address, p->group);
	}
	return r;
}
