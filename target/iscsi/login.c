/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * login.c - the login phase (RFC 7143, 6.3 and 11.12)
 *
 * Requests and answers alternate.  A request's text may come in several PDUs (C
 * bit), each but the last answered by an empty one; then all of it is
 * negotiated at once.  An answer that is larger than what the initiator takes
 * goes out in pieces in the same way.  The stage moves on when the initiator
 * asks for it (T bit): nothing that we need is ever missing at that point,
 * since no authentication is required.
 *
 * The first complete request names initiator, target and session type.  The
 * last one makes the session; if it takes the place of another (same initiator,
 * ISID and target: reinstatement, 6.3.5), it waits until that one's commands
 * have all stopped.
 */
#include <errno.h>
#include <stdio.h>

#include "target/iscsi/server.h"
#include "target/log.h"

#define LOGIN_SEGMENT 8192u	/* MaxRecvDataSegmentLength during login */

static void login_fail(struct iscsi_conn *c, uint16_t status, const char *why)
{
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_login_reply reply = {
		.current = c->login.stage, .itt = c->login.itt, .status = status,
	};
	struct iscsi_sn sn;
	char name[64];

	if (!o)
		return;
	log_info("%s: login of \"%s\" refused: %s", c->peer,
		 log_safe(name, sizeof(name), c->params.initiator_name), why);
	memcpy(reply.isid, c->login.isid, sizeof(reply.isid));
	sn = iscsi_sn_status(c);
	iscsi_put_login(o->head, &sn, &reply);
	iscsi_out_queue(c, o);
	iscsi_conn_linger(c);
}

static const char *why_not(uint16_t status)
{
	switch (status) {
	case ISCSI_LOGIN_AUTH_FAILED:
		return "no authentication method in common";
	case ISCSI_LOGIN_NOT_FOUND:
		return "no such target";
	case ISCSI_LOGIN_SESSION_TYPE:
		return "unknown session type";
	case ISCSI_LOGIN_OUT_OF_RESOURCES:
		return "out of memory";
	}
	return "keys break the rules";
}

/* ---- the session ---- */

/* Login is over: what was agreed on holds from the next PDU on. */
static void enter_full_phase(struct iscsi_conn *c)
{
	char name[ISCSI_NAME_MAX + 1];

	iscsi_conn_event(c, ISCSI_EV_LOGIN_DONE);
	c->header_digest = c->params.header_digest;
	c->data_digest = c->params.data_digest;
	c->params.first_burst = MIN(c->params.first_burst, c->params.max_burst);
	c->heard = true;
	reactor_arm(c->server->reactor, &c->timer, ISCSI_NOP_SECONDS);
	log_info("%s: %s session %u of %s", c->peer,
		 c->session->target ? "normal" : "discovery", c->session->tsih,
		 log_safe(name, sizeof(name), c->session->initiator));
}

/* One answer: the next piece of the text, and the transition with the last one. */
static void send_answer(struct iscsi_conn *c)
{
	uint32_t left = c->text_out.len - c->text_sent;
	uint32_t segment = MIN(c->params.max_send, LOGIN_SEGMENT), len = MIN(left, segment);
	struct iscsi_out *o = iscsi_out_new(c);
	bool more = len < left, to_full;
	struct iscsi_login_reply reply = {
		.transit = c->login.transit && !more, .more = more,
		.current = c->login.stage, .next = c->login.next,
		.itt = c->login.itt, .data_len = len,
		.tsih = c->session ? c->session->tsih : c->login.tsih,
	};
	struct iscsi_sn sn;

	if (!o)
		return;
	if (len) {
		o->own = pool_get(reactor_pool(c->server->reactor), len);
		o->own_size = len;
		if (!o->own) {
			slab_put(&c->server->outs, o);
			iscsi_conn_close(c, "no buffer free");
			return;
		}
		memcpy(o->own, c->text_out.buf + c->text_sent, len);
		o->data = o->own;
		o->data_len = len;
	}
	c->text_sent += len;
	memcpy(reply.isid, c->login.isid, sizeof(reply.isid));
	sn = iscsi_sn_status(c);
	iscsi_put_login(o->head, &sn, &reply);
	iscsi_out_queue(c, o);
	to_full = reply.transit && reply.next == ISCSI_STAGE_FULL;
	if (reply.transit)
		c->login.stage = c->login.next;
	if (!more)
		iscsi_text_clear(&c->text_out);
	if (to_full && !c->closed)
		enter_full_phase(c);
}

static void make_session(struct iscsi_conn *c)
{
	struct iscsi_session *old = iscsi_session_find(c->server, c->params.initiator_name,
						       c->login.isid, c->login.target);

	c->login.waiting = old && c->login.target;
	if (c->login.waiting) {
		iscsi_conn_close(old->conn, "session reinstated");
		return;		/* iscsi_login_retry() when it is gone */
	}
	c->session = iscsi_session_new(c);
	if (!c->session)
		login_fail(c, ISCSI_LOGIN_OUT_OF_RESOURCES, "out of memory");
	else
		send_answer(c);
}

void iscsi_login_retry(struct iscsi_conn *c)
{
	make_session(c);
}

/* ---- a request ---- */

/* Who wants to log in where; 0 or a login status. */
static uint16_t check_names(struct iscsi_conn *c)
{
	struct iscsi_params *p = &c->params;
	char group[16];

	c->login.checked = true;
	if (!p->initiator_name[0])
		return ISCSI_LOGIN_MISSING_PARAMETER;
	if (c->server->stopping)
		return ISCSI_LOGIN_OUT_OF_RESOURCES;
	if (p->discovery)
		return c->login.tsih ? ISCSI_LOGIN_NO_SESSION : ISCSI_LOGIN_SUCCESS;
	if (!p->target_name[0])
		return ISCSI_LOGIN_MISSING_PARAMETER;
	c->login.target = iscsi_target_find(c->server, p->target_name);
	if (!c->login.target)
		return ISCSI_LOGIN_NOT_FOUND;
	if (c->login.tsih)		/* a further connection: MaxConnections is 1 */
		return iscsi_session_by_tsih(c->server, c->login.tsih) ?
			ISCSI_LOGIN_TOO_MANY_CONNECTIONS : ISCSI_LOGIN_NO_SESSION;
	/* 13.9: told with the first answer */
	snprintf(group, sizeof(group), "%u", ISCSI_PORTAL_GROUP);
	return iscsi_text_put(&c->text_out, "TargetPortalGroupTag", group) < 0 ?
		ISCSI_LOGIN_OUT_OF_RESOURCES : ISCSI_LOGIN_SUCCESS;
}

static enum iscsi_text_phase phase_of(const struct iscsi_conn *c)
{
	if (c->login.stage == ISCSI_STAGE_OPERATIONAL)
		return ISCSI_TEXT_OPERATIONAL;
	return c->login.checked ? ISCSI_TEXT_SECURITY : ISCSI_TEXT_LOGIN_FIRST;
}

static uint16_t negotiate_all(struct iscsi_conn *c)
{
	struct iscsi_pair pair;
	uint32_t pos = 0;
	int r;

	while ((r = iscsi_text_next(&c->text_in, &pos, &pair)) == 1) {
		r = iscsi_negotiate(&c->params, phase_of(c), &pair, &c->text_out);
		if (r)
			return (uint16_t)r;
	}
	return r < 0 ? ISCSI_LOGIN_INITIATOR_ERROR : ISCSI_LOGIN_SUCCESS;
}

/* All of the request's text is here. */
static void request_complete(struct iscsi_conn *c, const struct iscsi_request *r)
{
	uint16_t status;

	iscsi_text_clear(&c->text_out);
	c->text_sent = 0;
	status = negotiate_all(c);
	iscsi_text_clear(&c->text_in);
	if (!status && !c->login.checked) {
		status = check_names(c);
		if (status == ISCSI_LOGIN_MISSING_PARAMETER) {
			login_fail(c, status, "InitiatorName or TargetName is missing");
			return;
		}
	}
	if (status) {
		login_fail(c, status, why_not(status));
		return;
	}
	c->login.transit = r->final;
	c->login.next = r->login.next;
	if (r->final && r->login.next == ISCSI_STAGE_FULL)
		make_session(c);
	else
		send_answer(c);
}

/* 11.12.3: stages only go forward, and not to the one that does not exist */
static bool stages_ok(const struct iscsi_conn *c, const struct iscsi_request *r)
{
	if (r->login.current != ISCSI_STAGE_SECURITY && r->login.current != ISCSI_STAGE_OPERATIONAL)
		return false;
	if (c->login.started && r->login.current != c->login.stage)
		return false;
	return !r->final || (r->login.next > r->login.current && r->login.next != 2);
}

static void first_request(struct iscsi_conn *c, const struct iscsi_request *r)
{
	iscsi_conn_event(c, ISCSI_EV_LOGIN);
	c->login.started = true;
	c->login.stage = r->login.current;
	c->login.itt = r->itt;
	c->login.tsih = r->login.tsih;
	c->login.cid = r->login.cid;
	c->login.init_cmd_sn = r->cmd_sn;
	memcpy(c->login.isid, r->login.isid, sizeof(c->login.isid));
}

void iscsi_login_request(struct iscsi_conn *c, const struct iscsi_request *r, const void *data)
{
	bool stages = stages_ok(c, r);

	if (!c->login.started) {
		first_request(c, r);
		if (r->login.version_min > 0) {
			login_fail(c, ISCSI_LOGIN_VERSION, "protocol version");
			return;
		}
	}
	if (c->login.waiting || ++c->login.pdus > ISCSI_LOGIN_PDUS) {
		iscsi_conn_close(c, "too many login requests");
		return;
	}
	if (!stages || r->itt != c->login.itt || r->login.cid != c->login.cid ||
	    memcmp(r->login.isid, c->login.isid, sizeof(c->login.isid)) != 0) {
		login_fail(c, ISCSI_LOGIN_INVALID, "request does not fit the stage of the login");
		return;
	}
	/* the rest of an answer is fetched by empty requests */
	if (c->text_sent < c->text_out.len) {
		send_answer(c);
		return;
	}
	if (iscsi_text_append(&c->text_in, data, r->data_len, ISCSI_TEXT_MAX) < 0) {
		login_fail(c, ISCSI_LOGIN_OUT_OF_RESOURCES, "too much text");
		return;
	}
	if (r->login.more) {
		c->login.transit = false;
		send_answer(c);
		return;
	}
	request_complete(c, r);
}
