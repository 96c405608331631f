/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conn.c - a connection: its states, PDUs in, PDUs out
 *
 * Input is a small machine: header (with AHS and digest), data, tail (padding
 * and digest), and round again; it takes bytes in any portions.  As soon as the
 * header is complete, whoever will handle the PDU says where its data go, so
 * that they can be received there; when the tail is complete, the PDU is
 * handled.
 *
 * End of life: iscsi_conn_close() closes the wire and forgets the output at
 * once, then has the session's commands aborted.  When the last disk request is
 * back (ISCSI_EV_CLEANED), the connection is freed at the end of the turn, so
 * that no caller up the stack finds it gone.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "target/iscsi/server.h"
#include "target/log.h"

/* ---- states ---- */

const char *iscsi_state_name(enum iscsi_state state)
{
	static const char *const names[] = {
		[ISCSI_FREE] = "FREE",
		[ISCSI_XPT_UP] = "XPT_UP",
		[ISCSI_IN_LOGIN] = "IN_LOGIN",
		[ISCSI_LOGGED_IN] = "LOGGED_IN",
		[ISCSI_IN_LOGOUT] = "IN_LOGOUT",
		[ISCSI_LOGOUT_REQUESTED] = "LOGOUT_REQUESTED",
		[ISCSI_CLEANUP_WAIT] = "CLEANUP_WAIT",
	};

	return names[state];
}

/* RFC 7143, 8.1.2 and 8.1.4; T3 is iscsi_conn_init(); and what it is for the session, if there is one */
static const struct transition {
	enum iscsi_state from;
	enum iscsi_event event;
	enum iscsi_state to;
	const char *name;
	enum iscsi_session_event session;
} transitions[] = {
	{ ISCSI_XPT_UP, ISCSI_EV_LOGIN, ISCSI_IN_LOGIN, "T4", ISCSI_SESSION_NOTHING },
	{ ISCSI_XPT_UP, ISCSI_EV_LOST, ISCSI_FREE, "T6", ISCSI_SESSION_NOTHING },
	{ ISCSI_IN_LOGIN, ISCSI_EV_LOGIN_DONE, ISCSI_LOGGED_IN, "T5",
	  ISCSI_SESSION_EV_LOGIN_DONE },
	{ ISCSI_IN_LOGIN, ISCSI_EV_LOST, ISCSI_FREE, "T7", ISCSI_SESSION_EV_LOGIN_FAILED },
	{ ISCSI_LOGGED_IN, ISCSI_EV_LOGOUT, ISCSI_IN_LOGOUT, "T9", ISCSI_SESSION_NOTHING },
	{ ISCSI_LOGGED_IN, ISCSI_EV_ASYNC_LOGOUT, ISCSI_LOGOUT_REQUESTED, "T11",
	  ISCSI_SESSION_NOTHING },
	{ ISCSI_LOGGED_IN, ISCSI_EV_LOST, ISCSI_CLEANUP_WAIT, "T15", ISCSI_SESSION_EV_FAILED },
	{ ISCSI_LOGOUT_REQUESTED, ISCSI_EV_LOGOUT, ISCSI_IN_LOGOUT, "T10", ISCSI_SESSION_NOTHING },
	{ ISCSI_LOGOUT_REQUESTED, ISCSI_EV_LOST, ISCSI_CLEANUP_WAIT, "T16",
	  ISCSI_SESSION_EV_FAILED },
	{ ISCSI_IN_LOGOUT, ISCSI_EV_LOGGED_OUT, ISCSI_FREE, "T13", ISCSI_SESSION_EV_CLOSED },
	{ ISCSI_IN_LOGOUT, ISCSI_EV_LOST, ISCSI_CLEANUP_WAIT, "T17", ISCSI_SESSION_EV_FAILED },
	{ ISCSI_CLEANUP_WAIT, ISCSI_EV_CLEANED, ISCSI_FREE, "M1", ISCSI_SESSION_EV_CLEARED },
};

void iscsi_conn_event(struct iscsi_conn *c, enum iscsi_event event)
{
	for (unsigned i = 0; i < ARRAY_SIZE(transitions); i++) {
		const struct transition *t = &transitions[i];

		if (t->from != c->state || t->event != event)
			continue;
		log_debug("%s: %s: %s -> %s", c->peer, t->name, iscsi_state_name(t->from),
			  iscsi_state_name(t->to));
		c->state = t->to;
		if (c->session && t->session)
			iscsi_session_event(c->session, t->session);
		return;
	}
	assert(false && "an event that this state does not know");
}

static bool in_full_phase(const struct iscsi_conn *c)
{
	return c->state == ISCSI_LOGGED_IN || c->state == ISCSI_LOGOUT_REQUESTED;
}

/* ---- life and death ---- */

static void expired(struct reactor_timer *timer)
{
	struct iscsi_conn *c = container_of(timer, struct iscsi_conn, timer);

	if (c->close_when_sent) {
		iscsi_conn_close(c, "did not take the last answer");
	} else if (c->state == ISCSI_LOGOUT_REQUESTED) {
		iscsi_conn_close(c, "did not log out when asked to");
	} else if (!in_full_phase(c)) {
		iscsi_conn_close(c, "login timed out");
	} else if (c->pinged && !c->heard) {
		iscsi_conn_close(c, "does not answer a ping");
	} else {
		if (!c->heard)
			iscsi_ping(c);
		c->heard = false;
		reactor_arm(c->reactor, &c->timer, c->pinged ?
			    c->server->limits.nop_timeout : c->server->limits.nop_interval);
	}
}

static void reap(struct reactor_deferred *work)
{
	struct iscsi_conn *c = container_of(work, struct iscsi_conn, reap);
	struct iscsi_server *s = c->server;
	struct iscsi_conn *other, *next;

	reactor_disarm(&c->timer);
	reactor_cancel(c->reactor, &c->closer);
	iscsi_session_free(c->session);
	LIST_REMOVE(c, link);
	reactor_take_up(c->reactor, -1);
	if (--s->n_conns == 0)
		reactor_wake(s->reactor);	/* someone may wait for that */
	iscsi_text_clear(&c->text_in);
	iscsi_text_clear(&c->text_out);
	free(c->login.auth.user);
	c->wire->free(c);
	for (other = LIST_FIRST(&s->conns); other; other = next) {
		next = LIST_NEXT(other, link);
		if (other->login.waiting && !other->closed)
			iscsi_login_retry(other);
	}
}

static void close_it(struct reactor_deferred *work)
{
	struct iscsi_conn *c = container_of(work, struct iscsi_conn, closer);

	iscsi_conn_close(c, c->close_why);
}

void iscsi_conn_init(struct iscsi_conn *c, struct iscsi_server *s, const struct iscsi_wire *wire)
{
	c->server = s;
	c->reactor = reactor_least(s->reactor);
	reactor_take_up(c->reactor, 1);
	c->wire = wire;
	c->state = ISCSI_XPT_UP;	/* T3 */
	if (!c->group)
		c->group = ISCSI_PORTAL_GROUP;
	iscsi_params_init(&c->params);
	TAILQ_INIT(&c->tx);
	c->reap.run = reap;
	c->closer.run = close_it;
	c->timer.expired = expired;
	c->rx.need = ISCSI_BHS_SIZE;
	c->stat_sn = 1;
	c->text_ttt = ISCSI_RESERVED_TAG;
	LIST_INSERT_HEAD(&s->conns, c, link);
	s->n_conns++;
	reactor_arm(c->reactor, &c->timer, s->limits.login_timeout);
}

static void out_free(struct iscsi_conn *c, struct iscsi_out *o)
{
	pool_put(reactor_pool(c->reactor), o->own, o->own_size);
	slab_put(&c->server->outs, o);
}

static void drop_output(struct iscsi_conn *c)
{
	struct iscsi_out *o;

	while ((o = TAILQ_FIRST(&c->tx))) {
		TAILQ_REMOVE(&c->tx, o, link);
		if (o->task)
			iscsi_task_sent(o->task, true);
		out_free(c, o);
	}
	c->tx_pdus = 0;
	c->tx_bytes = 0;
}

static void drop_input(struct iscsi_conn *c)
{
	pool_put(reactor_pool(c->reactor), c->rx.buf, c->rx.req.data_len);
	c->rx.buf = NULL;
	c->rx.task = NULL;
}

/* Commands have stopped: nothing refers to the connection any more. */
static void cleaned(struct iscsi_session *session)
{
	struct iscsi_conn *c = session->conn;

	if (c->state == ISCSI_CLEANUP_WAIT)
		iscsi_conn_event(c, ISCSI_EV_CLEANED);
	reactor_defer(c->reactor, &c->reap);
}

void iscsi_conn_close(struct iscsi_conn *c, const char *why)
{
	if (c->closed)
		return;
	if (!reactor_is_mine(c->reactor)) {
		c->close_why = why;
		reactor_defer(c->reactor, &c->closer);
		return;
	}
	c->closed = true;
	if (why)
		log_info("%s: closed: %s", c->peer, why);
	reactor_disarm(&c->timer);
	c->wire->close(c);
	drop_input(c);
	drop_output(c);
	if (c->state != ISCSI_FREE)
		iscsi_conn_event(c, ISCSI_EV_LOST);
	if (c->session)
		iscsi_session_abort_all(c->session, cleaned);
	else
		reactor_defer(c->reactor, &c->reap);
}

void iscsi_conn_linger(struct iscsi_conn *c)
{
	if (c->closed || c->close_when_sent)
		return;
	c->close_when_sent = true;
	reactor_arm(c->reactor, &c->timer, ISCSI_LINGER_SECONDS);
	if (TAILQ_EMPTY(&c->tx))
		iscsi_conn_close(c, NULL);
}

/* ---- output ---- */

struct iscsi_out *iscsi_out_new(struct iscsi_conn *c)
{
	struct iscsi_out *o = slab_get(&c->server->outs);

	if (!o) {
		iscsi_conn_close(c, "out of memory");
		return NULL;
	}
	o->head_len = ISCSI_BHS_SIZE;
	o->tail_len = 0;
	o->data = NULL;
	o->data_len = 0;
	o->file.fd = -1;
	o->own = NULL;
	o->own_size = 0;
	o->task = NULL;
	return o;
}

struct iscsi_sn iscsi_sn_plain(struct iscsi_conn *c)
{
	struct iscsi_session *s = c->session;
	struct iscsi_sn sn = { .stat_sn = c->stat_sn };

	if (s) {
		sn.exp_cmd_sn = s->exp_cmd_sn;
		sn.max_cmd_sn = s->exp_cmd_sn + ISCSI_WINDOW - s->open_commands - 1;
	} else {
		sn.exp_cmd_sn = c->login.init_cmd_sn;
		sn.max_cmd_sn = c->login.init_cmd_sn;
	}
	return sn;
}

struct iscsi_sn iscsi_sn_status(struct iscsi_conn *c)
{
	struct iscsi_sn sn = iscsi_sn_plain(c);

	c->stat_sn++;
	return sn;
}

static void add_digests(struct iscsi_conn *c, struct iscsi_out *o)
{
	uint32_t pad = iscsi_pad(o->data_len), crc;

	if (c->header_digest) {
		store_le32(o->head + ISCSI_BHS_SIZE, iscsi_crc(0, o->head, ISCSI_BHS_SIZE));
		o->head_len += ISCSI_DIGEST_SIZE;
	}
	memset(o->tail, 0, pad);
	o->tail_len = (uint8_t)pad;
	if (c->data_digest && o->data_len) {
		crc = iscsi_crc(0, o->data, o->data_len);
		crc = iscsi_crc(crc, o->tail, pad);
		store_le32(o->tail + pad, crc);
		o->tail_len += ISCSI_DIGEST_SIZE;
	}
}

static uint32_t out_size(const struct iscsi_out *o)
{
	return o->head_len + o->data_len + o->tail_len;
}

static void update_pause(struct iscsi_conn *c)
{
	bool pause = c->tx_bytes > ISCSI_TX_BYTES || c->tx_pdus > ISCSI_TX_PDUS;

	if (pause == c->paused)
		return;
	c->paused = pause;
	c->wire->pause(c, pause);
}

void iscsi_out_queue(struct iscsi_conn *c, struct iscsi_out *o)
{
	add_digests(c, o);
	TAILQ_INSERT_TAIL(&c->tx, o, link);
	c->tx_pdus++;
	c->tx_bytes += out_size(o);
	update_pause(c);
	if (!c->output_wanted) {
		c->output_wanted = true;
		c->wire->output(c);
	}
}

/* Append a piece, less the bytes at its start that are sent already. */
static unsigned add_iov(struct iovec *iov, unsigned n, const void *base, uint32_t len,
			uint32_t *skip)
{
	uint32_t off = MIN(*skip, len);

	*skip -= off;
	if (off == len)
		return n;
	iov[n] = (struct iovec) {
		.iov_base = (uint8_t *)(uintptr_t)base + off, .iov_len = len - off,
	};
	return n + 1;
}

/* The same for data that are in a file: is anything of them left? */
static bool add_run(struct iscsi_run *run, const struct iscsi_out *o, uint32_t *skip)
{
	uint32_t off = MIN(*skip, o->data_len);

	*skip -= off;
	*run = (struct iscsi_run) {
		.fd = o->file.fd, .offset = o->file.offset + off, .len = o->data_len - off,
	};
	return run->len > 0;
}

unsigned iscsi_conn_output(struct iscsi_conn *c, struct iovec *iov, unsigned max,
			   struct iscsi_run *run)
{
	uint32_t skip = c->tx_offset;
	struct iscsi_out *o = TAILQ_FIRST(&c->tx);
	unsigned n = 0;

	c->output_wanted = false;
	run->len = 0;
	for (; o && n + 3 <= max; o = TAILQ_NEXT(o, link)) {
		n = add_iov(iov, n, o->head, o->head_len, &skip);
		if (unlikely(o->file.fd >= 0)) {
			if (add_run(run, o, &skip))
				break;
		} else {
			n = add_iov(iov, n, o->data, o->data_len, &skip);
		}
		n = add_iov(iov, n, o->tail, o->tail_len, &skip);
	}
	return n;
}

static void keep(struct iscsi_conn *c, struct iscsi_out *o)
{
	uint8_t *buf = pool_get(reactor_pool(c->reactor), o->data_len);
	struct iovec iov = { .iov_base = buf, .iov_len = o->data_len };

	if (!buf)
		return;
	if (preadv2(o->file.fd, &iov, 1, (off_t)o->file.offset, RWF_NOWAIT) !=
	    (ssize_t)o->data_len) {
		pool_put(reactor_pool(c->reactor), buf, o->data_len);
		return;
	}
	o->own = buf;
	o->own_size = o->data_len;
	o->data = buf;
	o->file.fd = -1;
}

void iscsi_conn_keep(struct iscsi_conn *c)
{
	struct iscsi_out *o;

	TAILQ_FOREACH(o, &c->tx, link)
		if (o->file.fd >= 0 && !o->file.lasting && o->data_len <= POOL_BUFFER_MAX)
			keep(c, o);
}

void iscsi_conn_sent(struct iscsi_conn *c, size_t len)
{
	struct iscsi_out *o;

	len += c->tx_offset;
	while ((o = TAILQ_FIRST(&c->tx)) && len >= out_size(o)) {
		struct iscsi_task *task = o->task;

		len -= out_size(o);
		c->tx_pdus--;
		c->tx_bytes -= out_size(o);
		TAILQ_REMOVE(&c->tx, o, link);
		out_free(c, o);
		if (task)
			iscsi_task_sent(task, false);
	}
	c->tx_offset = (uint32_t)len;
	update_pause(c);
	if (TAILQ_EMPTY(&c->tx) && c->close_when_sent)
		iscsi_conn_close(c, NULL);
}

/* 11.17: a reject carries the header of what was wrong */
void iscsi_reject(struct iscsi_conn *c, uint8_t reason)
{
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_sn sn;

	if (!o)
		return;
	log_info("%s: rejected PDU with opcode 0x%02x: reason 0x%02x", c->peer,
		 c->rx.req.opcode, reason);
	memcpy(o->small, c->rx.head, ISCSI_BHS_SIZE);
	o->data = o->small;
	o->data_len = ISCSI_BHS_SIZE;
	sn = iscsi_sn_status(c);
	iscsi_put_reject(o->head, &sn, reason, ISCSI_BHS_SIZE);
	iscsi_out_queue(c, o);
}

/* ---- input ---- */

/* Data of a PDU that is not part of a command: into a buffer of its own. */
static void begin_plain(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;

	if (!rx->req.data_len)
		return;
	rx->buf = pool_get(reactor_pool(c->reactor), rx->req.data_len);
	if (!rx->buf) {
		iscsi_conn_close(c, "no buffer free");
		return;
	}
	rx->dst = rx->buf;
	rx->keep = rx->req.data_len;
}

static uint32_t max_recv(const struct iscsi_conn *c)
{
	return in_full_phase(c) ? c->params.max_recv : 8192;
}

/* The header is complete: check it, and find a place for the data. */
static void begin_pdu(struct iscsi_conn *c, int reject)
{
	struct iscsi_rx *rx = &c->rx;

	if (rx->req.data_len > max_recv(c)) {
		iscsi_conn_close(c, "data segment over MaxRecvDataSegmentLength");
		return;
	}
	rx->data_left = rx->req.data_len;
	rx->dst = NULL;
	rx->keep = 0;
	rx->task = NULL;
	rx->reject = 0;
	rx->crc = 0;
	rx->tail_have = 0;
	rx->tail_need = iscsi_pad(rx->req.data_len) +
			(c->data_digest && rx->req.data_len ? ISCSI_DIGEST_SIZE : 0);
	rx->state = ISCSI_RX_DATA;
	if (reject) {
		/* nothing but a login request makes sense before the login is over */
		if (!in_full_phase(c))
			iscsi_conn_close(c, "not an iSCSI login");
		else
			begin_plain(c);
	} else if (in_full_phase(c) && rx->req.opcode == ISCSI_SCSI_COMMAND) {
		iscsi_command_begin(c, &rx->req);
	} else if (in_full_phase(c) && rx->req.opcode == ISCSI_DATA_OUT) {
		iscsi_data_begin(c, &rx->req);
	} else {
		begin_plain(c);
	}
}

/* A request that is rejected has used up its number all the same. */
static void reject_request(struct iscsi_conn *c, uint8_t reason)
{
	const struct iscsi_request *r = &c->rx.req;
	bool numbered = r->opcode <= ISCSI_LOGOUT_REQUEST && r->opcode != ISCSI_DATA_OUT;

	if (numbered && iscsi_session_cmd_sn(c->session, r) != ISCSI_CMD_OK)
		iscsi_conn_close(c, "a request's number is wrong");
	else
		iscsi_reject(c, reason);
}

static void handle_pdu(struct iscsi_conn *c, int reject)
{
	struct iscsi_rx *rx = &c->rx;

	c->heard = true;
	if (c->close_when_sent)
		return;		/* its last answer is on its way */
	if (c->state == ISCSI_XPT_UP || c->state == ISCSI_IN_LOGIN) {
		if (rx->req.opcode == ISCSI_LOGIN_REQUEST)
			iscsi_login_request(c, &rx->req, rx->buf);
		else
			iscsi_conn_close(c, "not an iSCSI login");
	} else if (!in_full_phase(c)) {
		log_debug("%s: PDU after logout ignored", c->peer);
	} else if (reject) {
		reject_request(c, (uint8_t)reject);
	} else if (rx->req.opcode == ISCSI_SCSI_COMMAND) {
		iscsi_command_end(c, &rx->req);
	} else if (rx->req.opcode == ISCSI_DATA_OUT) {
		iscsi_data_end(c, &rx->req);
	} else {
		iscsi_full_request(c, &rx->req, rx->buf);
	}
}

static bool digest_ok(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;
	uint32_t pad = iscsi_pad(rx->req.data_len), crc;

	if (!c->data_digest || !rx->req.data_len)
		return true;
	crc = iscsi_crc(rx->crc, rx->tail, pad);
	return load_le32(rx->tail + pad) == crc;
}

static void end_pdu(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;
	struct iscsi_request ignored;

	if (!digest_ok(c)) {
		/* 7.8: rejected; and at level 0 the session has to recover (7.1.4) */
		iscsi_reject(c, ISCSI_REJECT_DATA_DIGEST);
		iscsi_conn_linger(c);
	} else {
		handle_pdu(c, iscsi_pdu_decode(&ignored, rx->head));
	}
	drop_input(c);
	rx->state = ISCSI_RX_HEADER;
	rx->have = 0;
	rx->need = ISCSI_BHS_SIZE;
}

/* Move on through states that need no more bytes. */
static void advance(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;

	if (rx->state == ISCSI_RX_DATA && rx->data_left == 0)
		rx->state = ISCSI_RX_TAIL;
	if (rx->state == ISCSI_RX_TAIL && rx->tail_have == rx->tail_need)
		end_pdu(c);
}

static size_t take_header(struct iscsi_conn *c, const uint8_t *buf, size_t len)
{
	struct iscsi_rx *rx = &c->rx;
	size_t n = MIN((size_t)(rx->need - rx->have), len);
	uint32_t body;
	int reject;

	memcpy(rx->head + rx->have, buf, n);
	rx->have += (uint32_t)n;
	if (rx->have < rx->need)
		return n;
	reject = iscsi_pdu_decode(&rx->req, rx->head);
	body = ISCSI_BHS_SIZE + rx->req.ahs_len;
	rx->need = body + (c->header_digest ? ISCSI_DIGEST_SIZE : 0);
	if (rx->have < rx->need)
		return n;
	if (c->header_digest && load_le32(rx->head + body) != iscsi_crc(0, rx->head, body)) {
		/* 7.8: the length of what follows is not known either */
		iscsi_conn_close(c, "header digest error");
		return n;
	}
	begin_pdu(c, reject);
	return n;
}

static void data_came(struct iscsi_conn *c, const uint8_t *buf, uint32_t n)
{
	struct iscsi_rx *rx = &c->rx;
	uint32_t kept = MIN(n, rx->keep);

	if (c->data_digest)
		rx->crc = iscsi_crc(rx->crc, buf, n);
	if (kept) {
		rx->dst += kept;
		rx->keep -= kept;
	}
	rx->data_left -= n;
	/* whether data with a digest are right is known at their end only */
	if (kept && rx->task && rx->req.data_len >= ISCSI_EARLY_DATA && !c->data_digest)
		iscsi_task_progress(c);
}

static size_t take_data(struct iscsi_conn *c, const uint8_t *buf, size_t len)
{
	struct iscsi_rx *rx = &c->rx;
	uint32_t n = (uint32_t)MIN((size_t)rx->data_left, len);

	if (rx->keep)
		memcpy(rx->dst, buf, MIN(n, rx->keep));
	data_came(c, buf, n);
	return n;
}

static size_t take_tail(struct iscsi_conn *c, const uint8_t *buf, size_t len)
{
	struct iscsi_rx *rx = &c->rx;
	size_t n = MIN((size_t)(rx->tail_need - rx->tail_have), len);

	memcpy(rx->tail + rx->tail_have, buf, n);
	rx->tail_have += (uint32_t)n;
	return n;
}

/*
 * Large transfers go one after the other, each through the buffer that the one
 * before has left in the processor's cache, instead of all reads first, and then
 * all answers.
 */
static void run_large(struct iscsi_conn *c)
{
	if (!reactor_batch_large(c->reactor))
		return;
	reactor_run_batch(c->reactor);
	if (!c->closed && c->output_wanted && c->wire->flush)
		c->wire->flush(c);
}

int iscsi_conn_input(struct iscsi_conn *c, const uint8_t *buf, size_t len)
{
	while (len && !c->closed) {
		size_t n = 0;

		switch (c->rx.state) {
		case ISCSI_RX_HEADER:
			n = take_header(c, buf, len);
			break;
		case ISCSI_RX_DATA:
			n = take_data(c, buf, len);
			break;
		case ISCSI_RX_TAIL:
			n = take_tail(c, buf, len);
			break;
		}
		buf += n;
		len -= n;
		if (!c->closed)
			advance(c);
		run_large(c);
	}
	return c->closed ? -EPIPE : 0;
}

size_t iscsi_conn_direct(struct iscsi_conn *c, uint8_t **dst)
{
	if (c->closed || c->rx.state != ISCSI_RX_DATA)
		return 0;
	*dst = c->rx.dst;
	return c->rx.keep;
}

int iscsi_conn_received(struct iscsi_conn *c, size_t len)
{
	data_came(c, c->rx.dst, (uint32_t)len);
	if (c->rx.task)
		iscsi_task_received(c->rx.task);
	advance(c);
	run_large(c);
	return c->closed ? -EPIPE : 0;
}
