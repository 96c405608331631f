/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relay.c - a back end that may die, for a front end that cannot bear it
 *
 * A thread a disk, between two sockets.  To the front end it is a back end of one queue,
 * with few words (said[], below): each is judged, passed on, answered with what the disk's
 * process made of it, and remembered with its descriptors.  A new process hears all
 * that is remembered, in the table's order, and the record of what is in flight, which
 * the relay has from the first one and the front end knows nothing of.  A message in
 * whose midst the process died is passed on to the next one: each only sets something.
 *
 * Neither side is trusted:
 *   (1) nothing of a message is used before msg.c has judged its shape, and nothing is
 *       remembered before the disk's process took it; of each kind there is one;
 *   (2) descriptors are held and passed on; none is read, written, mapped or changed here,
 *       but for one word on the front end's own socket (tell_config_changed());
 *   (3) answers are fixed in length, and passed on as bytes;
 *   (4) whoever does not send the rest of a message, or is not heard, makes this thread
 *       wait, which has nothing else to do; relay_finish() ends each wait by shutting the
 *       sockets down.
 */
#include "vmm-lite/vhost/relay.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/driver.h"
#include "core/fds.h"
#include "vmm-lite/keeper.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vhost/talk.h"
#include "vmm-lite/vhost/wire.h"
#include "vmm-lite/virtio/blk.h"

#define BIT(n)		(UINT64_C(1) << (n))
#define PATIENCE_S	10	/* for the rest of a front end's message */
#define RECORD_BYTES	24u	/* how GET_INFLIGHT_FD describes it */
#define CONFIG_WCE	32u	/* the one byte of the configuration that a driver may write */

/* What the front end may have, and what we need of the disk's process. */
#define OFFERED	(BIT(VHOST_F_REPLY_ACK) | BIT(VHOST_F_BACKEND_REQ) | BIT(VHOST_F_CONFIG))
#define NEEDED	(OFFERED | BIT(VHOST_F_INFLIGHT_SHMFD))

/* What is said again, in this order.  A process takes up a ring when it is enabled, and
 * signals what its predecessor may not have when it gets to know how: so that comes last. */
static const uint32_t said_request[] = {
	VHOST_SET_FEATURES, VHOST_SET_CONFIG, VHOST_SET_MEM_TABLE, VHOST_SET_BACKEND_REQ_FD,
	VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE, VHOST_SET_VRING_ADDR, VHOST_SET_VRING_ERR,
	VHOST_SET_VRING_KICK, VHOST_SET_VRING_ENABLE, VHOST_SET_VRING_CALL,
};

struct said {
	bool is;
	uint32_t len;
	uint8_t payload[VHOST_PAYLOAD_MAX];
	int fd[VHOST_FDS_MAX];	/* owned */
	unsigned n_fds;
};

struct relay {
	struct relay_options o;
	pthread_t thread;
	int quit_fd, state_fd;	/* owned: eventfds, to the thread and from it */
	_Atomic bool quit, leave;
	_Atomic int pid;
	_Atomic bool away;	/* it died, and there is no other yet */
	_Atomic unsigned restarts;
	enum relay_end end;	/* the thread's result */

	pthread_mutex_t lock;	/* guards this paragraph, and what is shut down */
	pthread_cond_t changed;
	int front, back;	/* owned; -1 */
	bool ready;		/* there was a process */
	enum relay_state state;
	bool told_end;		/* the keeper was told that the process is to end */

	bool lost;		/* there will be no disk behind it any more */
	bool gone;		/* nor a process in its place */
	/* what the front end knows: of the first process, and of the agreement */
	uint64_t features, protocol;
	uint8_t config[VHOST_CONFIG_MAX];	/* as far as it was asked for */
	struct said said[ARRAY_SIZE(said_request)];
	uint8_t record[RECORD_BYTES];
	int record_fd;		/* owned */
};

static void drop(struct relay *r, int *fd)
{
	pthread_mutex_lock(&r->lock);
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	pthread_mutex_unlock(&r->lock);
}

/* A socket that relay_finish() finds, or, if it was there already, is shut down by now. */
static void adopt(struct relay *r, int *place, int fd)
{
	pthread_mutex_lock(&r->lock);
	*place = fd;
	if (r->quit)
		shutdown(fd, SHUT_RDWR);
	pthread_mutex_unlock(&r->lock);
}

static void be(struct relay *r, enum relay_state state)
{
	uint64_t one = 1;

	pthread_mutex_lock(&r->lock);
	r->state = state;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	(void)!write(r->state_fd, &one, sizeof(one));	/* an eventfd that is read takes it */
}

/* With the lock held: before its connection is closed, or its end would be taken for a death. */
static void tell_end(struct relay *r)
{
	if (!r->told_end && !r->leave)
		keeper_tell_end(r->o.channel);
	r->told_end = true;
}

/* ---- what was said ---- */

static struct said *said_of(struct relay *r, uint32_t request)
{
	for (size_t i = 0; i < ARRAY_SIZE(said_request); i++)
		if (said_request[i] == request)
			return &r->said[i];
	return NULL;
}

static void forget(struct said *s)
{
	vd_close_fds(s->fd, s->n_fds);
	*s = (struct said) { .is = false };
}

/* Takes the descriptors. */
static void remember(struct said *s, const struct vhost_header *h, const uint8_t *payload,
		     const int *fds, unsigned n_fds)
{
	forget(s);
	s->is = true;
	s->len = h->size;
	memcpy(s->payload, payload, h->size);
	memcpy(s->fd, fds, n_fds * sizeof(*fds));
	s->n_fds = n_fds;
}

/* ---- the disk's process ---- */

/* A new one: does it speak our language, and can it do what the first could? */
static int greet(struct relay *r)
{
	uint64_t features, protocol;
	int e = vhost_ask_u64(r->back, VHOST_GET_FEATURES, &features);

	if (!e)
		e = vhost_ask_u64(r->back, VHOST_GET_PROTOCOL_FEATURES, &protocol);
	if (e)
		return e;
	if (!(features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)) || (protocol & NEEDED) != NEEDED ||
	    r->features & ~features)
		return -EPROTO;
	if (!r->ready)
		r->features = features;
	/* before it is agreed on, nothing is acknowledged */
	protocol = NEEDED;
	e = vhost_say(r->back, VHOST_SET_PROTOCOL_FEATURES, false, &protocol, 8, NULL, 0);
	return e ? e : vhost_tell(r->back, VHOST_SET_OWNER, NULL, 0, NULL, 0);
}

/* The record of what is in flight: the first process makes it, each goes on with it. */
static int give_record(struct relay *r)
{
	uint8_t payload[RECORD_BYTES] = { 0 };
	int e;

	if (r->record_fd >= 0)
		return vhost_tell(r->back, VHOST_SET_INFLIGHT_FD, r->record, RECORD_BYTES,
				  &r->record_fd, 1);
	put16(payload + 16, 1);
	put16(payload + 18, BLK_QUEUE_SIZE);
	e = vhost_say(r->back, VHOST_GET_INFLIGHT_FD, false, payload, RECORD_BYTES, NULL, 0);
	if (!e)
		e = vhost_hear_answer(r->back, VHOST_GET_INFLIGHT_FD, r->record, RECORD_BYTES,
				      &r->record_fd);
	return e ? e : r->record_fd < 0 ? -EPROTO : 0;
}

static int say_again(struct relay *r)
{
	int e = 0;

	for (size_t i = 0; !e && i < ARRAY_SIZE(said_request); i++) {
		const struct said *s = &r->said[i];

		if (s->is)
			e = vhost_tell(r->back, said_request[i], s->payload, s->len, s->fd, s->n_fds);
	}
	return e;
}

/* The disk's size may have changed while nobody could say so. */
static void tell_config_changed(struct relay *r)
{
	const struct said *s = said_of(r, VHOST_SET_BACKEND_REQ_FD);
	uint8_t header[VHOST_HEADER_BYTES] = { 0 };

	put32(header, VHOST_BACKEND_CONFIG_CHANGE);
	put32(header + 4, VHOST_VERSION);
	/* one that does not read its messages misses this one, too */
	if (s->is)
		(void)!send(s->fd[0], header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void lost_process(struct relay *r)
{
	drop(r, &r->back);
	r->pid = 0;
	r->away = true;
}

/* The keeper has started a process, the disk's or one in its place. */
static void connected(struct relay *r, int sock, pid_t pid, bool lost)
{
	int e;

	drop(r, &r->back);
	adopt(r, &r->back, sock);
	if (lost)
		r->lost = true;
	e = greet(r);
	if (!e)
		e = give_record(r);
	if (!e)
		e = say_again(r);
	if (e == -EPIPE) {	/* dead already: the keeper sends another */
		lost_process(r);
		return;
	}
	if (e < 0) {
		log_warnx("%s: its process is of no use: %s", r->o.name, strerror(-e));
		drop(r, &r->back);
		r->gone = true;
		return;
	}
	if (r->lost) {
		be(r, RELAY_FAILS);
		return;
	}
	r->pid = pid;
	r->away = false;
	if (!r->ready) {
		pthread_mutex_lock(&r->lock);
		r->ready = true;
		pthread_cond_broadcast(&r->changed);
		pthread_mutex_unlock(&r->lock);
		return;
	}
	r->restarts++;
	tell_config_changed(r);
	if (r->o.restarted)
		r->o.restarted(r->o.arg);
}

static void hear_keeper(struct relay *r)
{
	struct keeper_word word = { .says = KEEPER_NEW };
	int fd, n = keeper_hear(r->o.channel, false, &word, &fd);

	if (n == -EAGAIN)
		return;
	if (n > 0 && word.says <= KEEPER_FAILING && fd >= 0) {
		connected(r, fd, word.value, word.says == KEEPER_FAILING);
		return;
	}
	if (fd >= 0)
		close(fd);
	r->gone = true;
}

/* Until there is a process.  0, -EIO: never again; -ECANCELED: we, or the front end, end. */
static int wait_process(struct relay *r)
{
	while (r->back < 0 && !r->gone) {
		struct pollfd fds[] = {
			{ .fd = r->quit_fd, .events = POLLIN },
			{ .fd = r->o.channel, .events = POLLIN },
			{ .fd = r->front, .events = POLLRDHUP },
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[0].revents)
			return -ECANCELED;
		if (fds[1].revents)
			hear_keeper(r);
		else if (fds[2].revents)
			return -ECANCELED;
	}
	return r->back < 0 ? -EIO : 0;
}

/* ---- the front end's messages ---- */

struct message {
	struct vhost_header h;
	struct vhost_msg m;
	uint8_t payload[VHOST_PAYLOAD_MAX];
	int fd[VHOST_FDS_MAX];
	unsigned n_fds;
};

/* What is passed on, and with how many descriptors; UML says nothing else. */
static int judge(const struct relay *r, const struct message *m)
{
	unsigned n_fds = 0;

	switch (m->h.request) {
	case VHOST_SET_FEATURES:
		if (m->m.u64 & ~r->features)
			return -EINVAL;
		break;
	case VHOST_SET_MEM_TABLE:
		if (!m->m.mem.n)
			return -EINVAL;
		n_fds = m->m.mem.n;
		break;
	case VHOST_SET_BACKEND_REQ_FD:
		n_fds = 1;
		break;
	case VHOST_SET_CONFIG:
		if (m->m.config.offset != CONFIG_WCE || m->m.config.size != 1)
			return -EINVAL;
		break;
	case VHOST_GET_CONFIG:
		break;
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_ERR:
		n_fds = m->m.vring.has_fd;
		if (m->m.vring.index)
			return -EINVAL;
		break;
	case VHOST_SET_VRING_NUM:
	case VHOST_SET_VRING_BASE:
	case VHOST_SET_VRING_ADDR:
	case VHOST_SET_VRING_ENABLE:
		if (m->m.vring.index)
			return -EINVAL;
		break;
	default:
		return -EOPNOTSUPP;
	}
	return m->n_fds == n_fds ? 0 : -EPROTO;
}

/* GET_CONFIG's answer takes the place of the question. */
static int ask_config(struct relay *r, struct message *m)
{
	int e;

	/* some front ends send no room for it */
	m->h.size = VHOST_CONFIG_HEADER + m->m.config.size;
	if (r->lost) {	/* what is in the disk's place has another */
		memcpy(m->payload + VHOST_CONFIG_HEADER, r->config + m->m.config.offset,
		       m->m.config.size);
		return 0;
	}
	e = vhost_say(r->back, VHOST_GET_CONFIG, false, m->payload, m->h.size, NULL, 0);
	if (!e)
		e = vhost_hear_answer(r->back, VHOST_GET_CONFIG, m->payload, m->h.size, NULL);
	if (!e)
		memcpy(r->config + m->m.config.offset, m->payload + VHOST_CONFIG_HEADER,
		       m->m.config.size);
	return e;
}

/* To the disk's process, be it the present one or the next.  As wait_process(); -EREMOTEIO: refused. */
static int pass_on(struct relay *r, struct message *m)
{
	int e;

	do {
		e = wait_process(r);
		if (e)
			return e;
		if (m->h.request == VHOST_GET_CONFIG)
			e = ask_config(r, m);
		else
			e = vhost_tell(r->back, m->h.request, m->payload, m->h.size, m->fd, m->n_fds);
		if (e == -EPIPE)
			lost_process(r);
	} while (e == -EPIPE);
	return e;
}

static int answer(struct relay *r, uint32_t request, const void *payload, uint32_t len)
{
	uint8_t bytes[VHOST_HEADER_BYTES + VHOST_PAYLOAD_MAX];

	put32(bytes, request);
	put32(bytes + 4, VHOST_VERSION | VHOST_REPLY);
	put32(bytes + 8, len);
	memcpy(bytes + VHOST_HEADER_BYTES, payload, len);
	return vhost_send(r->front, bytes, VHOST_HEADER_BYTES + len, NULL, 0);
}

static int answer_u64(struct relay *r, uint32_t request, uint64_t v)
{
	return answer(r, request, &v, sizeof(v));
}

/* Done, or refused, where the front end waits to hear it. */
static int acknowledge(struct relay *r, const struct message *m, int e)
{
	if (e < 0)
		log_guest("%s: request %u of the guest's driver is refused: %s", r->o.name,
			  m->h.request, strerror(-e));
	if (m->h.need_reply && r->protocol & BIT(VHOST_F_REPLY_ACK))
		return answer_u64(r, m->h.request, e < 0);
	return 0;
}

static int relay_message(struct relay *r, struct message *m)
{
	struct said *s = said_of(r, m->h.request);
	int e = judge(r, m);

	if (!e)
		e = pass_on(r, m);
	if (e == -EPROTO || e == -ECANCELED || e == -EIO)
		return e;
	if (!e && m->h.request == VHOST_GET_CONFIG)
		return answer(r, m->h.request, m->payload, m->h.size);
	if (!e && s) {
		remember(s, &m->h, m->payload, m->fd, m->n_fds);
		m->n_fds = 0;
	}
	return acknowledge(r, m, e);
}

/* -errno: the end of the connection. */
static int serve(struct relay *r, struct message *m)
{
	int e = vhost_decode(&m->m, &m->h, m->payload);

	if (e == -EPROTO)
		return e;
	switch (m->h.request) {
	case VHOST_GET_FEATURES:
		e = wait_process(r);
		return e ? e : answer_u64(r, m->h.request, r->features);
	case VHOST_GET_PROTOCOL_FEATURES:
		return answer_u64(r, m->h.request, OFFERED);
	case VHOST_SET_PROTOCOL_FEATURES:
		r->protocol = m->m.u64 & OFFERED;
		return acknowledge(r, m, m->m.u64 & ~OFFERED ? -EINVAL : 0);
	case VHOST_SET_OWNER:
		return acknowledge(r, m, 0);
	default:
		return e ? acknowledge(r, m, e) : relay_message(r, m);
	}
}

/* One message.  0, or the end of the connection. */
static int hear_front(struct relay *r)
{
	struct message m = { .n_fds = 0 };
	int e = vhost_next(r->front, &m.h, m.payload, m.fd, &m.n_fds);

	if (e > 0)
		e = serve(r, &m);
	else if (!e)
		e = -EPIPE;
	vd_close_fds(m.fd, m.n_fds);
	if (e < 0 && e != -EPIPE && e != -ECANCELED && e != -EIO && !r->quit)
		log_warnx("%s: the guest's driver does not keep to the protocol: %s", r->o.name,
			  strerror(-e));
	return e;
}

static void accept_front(struct relay *r)
{
	const struct timeval t = { .tv_sec = PATIENCE_S };
	int fd = accept4(r->o.listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
	adopt(r, &r->front, fd);
	/* there is one, and it connects once */
	drop(r, &r->o.listen_fd);
}

/* ---- the thread ---- */

static void run(struct relay *r)
{
	enum { QUIT, CHANNEL, BACK, FRONT, N };

	while (!r->quit && !r->gone) {
		struct pollfd fds[N] = {
			[QUIT] = { .fd = r->quit_fd, .events = POLLIN },
			[CHANNEL] = { .fd = r->o.channel, .events = POLLIN },
			/* nothing comes unasked: readable is closed */
			[BACK] = { .fd = r->back, .events = POLLIN | POLLRDHUP },
			[FRONT] = { .fd = r->front < 0 ? r->o.listen_fd : r->front, .events = POLLIN },
		};

		if (poll(fds, N, -1) < 0 || fds[QUIT].revents)
			continue;
		if (fds[BACK].revents)
			lost_process(r);
		if (fds[CHANNEL].revents)
			hear_keeper(r);
		else if (fds[FRONT].revents && r->front < 0)
			accept_front(r);
		else if (fds[FRONT].revents && hear_front(r) < 0)
			return;
	}
}

static enum relay_end finish(struct relay *r)
{
	if (r->leave)
		return RELAY_LEFT;
	if (r->gone)
		return RELAY_LOST;
	pthread_mutex_lock(&r->lock);
	tell_end(r);
	pthread_mutex_unlock(&r->lock);
	drop(r, &r->back);
	return keeper_wait_end(r->o.channel, -1) == 0 ? RELAY_DONE : r->lost ? RELAY_LOST : RELAY_FAILED;
}

static void *relay_thread(void *arg)
{
	struct relay *r = arg;
	struct pollfd quit = { .fd = r->quit_fd, .events = POLLIN };

	run(r);
	drop(r, &r->front);
	for (size_t i = 0; i < ARRAY_SIZE(said_request); i++)
		forget(&r->said[i]);
	if (!r->quit)
		be(r, r->gone ? RELAY_BEREFT : RELAY_LET_GO);
	while (!r->quit)
		(void)poll(&quit, 1, -1);
	r->end = finish(r);
	drop(r, &r->back);
	r->pid = 0;
	be(r, RELAY_FINISHED);
	return NULL;
}

/* ---- outside ---- */

static int start_thread(struct relay *r)
{
	sigset_t all, before;
	int e;

	/* signals are the main thread's */
	sigfillset(&all);
	sigdelset(&all, SIGSYS);	/* a call that the filter forbids is to be named */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&r->thread, NULL, relay_thread, r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -e;
}

static void destroy(struct relay *r)
{
	const int fds[] = { r->quit_fd, r->state_fd, r->record_fd };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->changed);
	free(r);
}

int relay_new(struct relay **out, const struct relay_options *o, struct vdisk_error *err)
{
	struct relay *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return vd_fail(err, ENOMEM, "out of memory");
	r->o = *o;
	r->front = r->back = r->record_fd = -1;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	r->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->state_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e = r->quit_fd < 0 || r->state_fd < 0 ? -errno : start_thread(r);
	if (e < 0) {
		destroy(r);
		return vd_fail(err, -e, "%s: cannot start a thread: %s", o->name, strerror(-e));
	}
	*out = r;
	return 0;
}

int relay_wait(struct relay *r)
{
	bool ready;

	pthread_mutex_lock(&r->lock);
	while (!r->ready && r->state == RELAY_SERVES)
		pthread_cond_wait(&r->changed, &r->lock);
	ready = r->ready;
	pthread_mutex_unlock(&r->lock);
	return ready ? 0 : -EIO;
}

int relay_fd(const struct relay *r)
{
	return r->state_fd;
}

enum relay_state relay_look(struct relay *r)
{
	enum relay_state state;
	uint64_t n;

	(void)!read(r->state_fd, &n, sizeof(n));	/* so that it is not readable any more */
	pthread_mutex_lock(&r->lock);
	state = r->state;
	pthread_mutex_unlock(&r->lock);
	return state;
}

void relay_finish(struct relay *r)
{
	uint64_t one = 1;

	pthread_mutex_lock(&r->lock);
	r->quit = true;
	if (r->back >= 0) {
		tell_end(r);
		shutdown(r->back, SHUT_RDWR);
	}
	if (r->front >= 0)
		shutdown(r->front, SHUT_RDWR);
	pthread_mutex_unlock(&r->lock);
	(void)!write(r->quit_fd, &one, sizeof(one));
}

void relay_leave(struct relay *r)
{
	r->leave = true;
	relay_finish(r);
}

pid_t relay_pid(struct relay *r)
{
	return r->pid;
}

bool relay_is_away(struct relay *r)
{
	return r->away;
}

unsigned relay_restarts(struct relay *r)
{
	return r->restarts;
}

enum relay_end relay_free(struct relay *r)
{
	enum relay_end end;

	relay_finish(r);
	pthread_join(r->thread, NULL);
	end = r->end;
	if (r->o.listen_fd >= 0)
		close(r->o.listen_fd);
	destroy(r);
	return end;
}
