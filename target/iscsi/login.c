/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * login.c - the login phase (RFC 7143, 6.3 and 11.12)
 *
 * Requests and answers alternate.  A request's text may come in several PDUs (C
 * bit), each but the last answered by an empty one; then all of it is
 * negotiated at once.  An answer that is larger than what the initiator takes
 * goes out in pieces in the same way.  The stage moves on when the initiator
 * asks for it (T bit) and has authenticated as far as it must (auth.c).
 *
 * The first complete request names initiator, target and session type, and
 * whoever may not be here learns no more than that there is no such target; or
 * it is sent elsewhere (redirection).  The last request makes the session; if it takes the place of another (same initiator,
 * ISID and target: reinstatement, 6.3.5), it waits until that one's commands
 * have all stopped.
 */
#include <errno.h>
#include <stdio.h>

#include "target/iscsi/server.h"
#include "target/log.h"

#define LOGIN_SEGMENT 8192u	/* MaxRecvDataSegmentLength during login */

/* The end of it, with a reason; a redirection has its text with it. */
static void login_fail(struct iscsi_conn *c, uint16_t status, const char *why)
{
	struct iscsi_out *o = iscsi_answer_next(c, LOGIN_SEGMENT);
	struct iscsi_login_reply reply = {
		.current = c->login.stage, .itt = c->login.itt, .status = status,
	};
	struct iscsi_sn sn;
	char name[64];

	if (!o)
		return;
	if (status >> 8 == 2 && c->server->throttle)
		iscsi_throttle_failed(c->server->throttle, c->peer_address,
				      reactor_now(c->reactor), &c->server->limits);
	log_info("%s: login of \"%s\" refused: %s", c->peer,
		 log_safe(name, sizeof(name), c->params.initiator_name), why);
	reply.data_len = o->data_len;
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
		return "not authenticated";
	case ISCSI_LOGIN_FORBIDDEN:
		return "no discovery for this address or name";
	case ISCSI_LOGIN_NOT_FOUND:
		return "no such target for this address, portal and name";
	case ISCSI_LOGIN_MISSING_PARAMETER:
		return "InitiatorName or TargetName is missing";
	case ISCSI_LOGIN_MOVED_TEMPORARILY:
	case ISCSI_LOGIN_MOVED_PERMANENTLY:
		return "redirected";
	case ISCSI_LOGIN_UNAVAILABLE:
		return "shutting down";
	case ISCSI_LOGIN_TOO_MANY_CONNECTIONS:
		return "a second connection in one session";
	case ISCSI_LOGIN_NO_SESSION:
		return "no such session";
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
	reactor_disarm(&c->timer);
	if (c->server->limits.nop_interval)
		reactor_arm(c->reactor, &c->timer, c->server->limits.nop_interval);
	log_info("%s: %s session %u of %s", c->peer,
		 c->session->target ? "normal" : "discovery", c->session->tsih,
		 log_safe(name, sizeof(name), c->session->initiator));
}

/* One answer: the next piece of the text, and the transition with the last one. */
static void send_answer(struct iscsi_conn *c)
{
	struct iscsi_out *o = iscsi_answer_next(c, MIN(c->params.max_send, LOGIN_SEGMENT));
	bool more = iscsi_answer_pending(c), to_full;
	struct iscsi_login_reply reply = {
		.transit = c->login.transit && !more, .more = more,
		.current = c->login.stage, .next = c->login.next,
		.itt = c->login.itt, .tsih = c->session ? c->session->tsih : c->login.tsih,
	};
	struct iscsi_sn sn;

	if (!o)
		return;
	reply.data_len = o->data_len;
	memcpy(reply.isid, c->login.isid, sizeof(reply.isid));
	sn = iscsi_sn_status(c);
	iscsi_put_login(o->head, &sn, &reply);
	iscsi_out_queue(c, o);
	to_full = reply.transit && reply.next == ISCSI_STAGE_FULL;
	if (reply.transit)
		c->login.stage = c->login.next;
	if (to_full && !c->closed)
		enter_full_phase(c);
}

static unsigned sessions_of(const struct iscsi_server *server, const char *initiator)
{
	const struct iscsi_session *s;
	unsigned n = 0;

	LIST_FOREACH(s, &server->sessions, link)
		n += !strcasecmp(s->initiator, initiator);
	return n;
}

/* NULL: there may be one more. */
static const char *too_many_sessions(const struct iscsi_conn *c)
{
	const struct iscsi_limits *l = &c->server->limits;

	if (l->sessions && c->server->n_sessions >= l->sessions)
		return "too many sessions";
	if (l->sessions_per_initiator &&
	    sessions_of(c->server, c->params.initiator_name) >= l->sessions_per_initiator)
		return "too many sessions of this initiator";
	return NULL;
}

static void make_session(struct iscsi_conn *c)
{
	const char *too_many;
	struct iscsi_session *old = iscsi_session_find(c->server, c->params.initiator_name,
						       c->login.isid, c->login.target,
						       c->group);

	c->login.waiting = false;
	/* what is allowed may be another thing than when the login began */
	if (!iscsi_admitted(c, c->login.target, c->params.initiator_name, c->login.auth.user)) {
		login_fail(c, ISCSI_LOGIN_NOT_FOUND, "not admitted any more");
		return;
	}
	c->login.waiting = old && c->login.target;
	if (c->login.waiting) {
		iscsi_conn_close(old->conn, "session reinstated");
		return;		/* iscsi_login_retry() when it is gone */
	}
	too_many = too_many_sessions(c);
	if (too_many) {
		login_fail(c, ISCSI_LOGIN_OUT_OF_RESOURCES, too_many);
		return;
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

/* 13.8, 11.13.5: the one key of such an answer */
static uint16_t redirect(struct iscsi_conn *c, const struct iscsi_access *a)
{
	iscsi_answer_begin(c);
	if (iscsi_text_put(&c->text_out, "TargetAddress", a->redirect) < 0)
		return ISCSI_LOGIN_OUT_OF_RESOURCES;
	return a->redirect_permanent ? ISCSI_LOGIN_MOVED_PERMANENTLY :
				       ISCSI_LOGIN_MOVED_TEMPORARILY;
}

static uint16_t check_target(struct iscsi_conn *c)
{
	const struct iscsi_params *p = &c->params;
	struct iscsi_target *t = iscsi_target_find(c->server, p->target_name);
	char group[16];

	if (!t || !iscsi_access_admits(&t->access, c->peer_address, p->initiator_name) ||
	    !iscsi_access_group(&t->access, c->group))
		return ISCSI_LOGIN_NOT_FOUND;
	if (t->access.redirect)
		return redirect(c, &t->access);
	c->login.target = t;
	if (c->login.tsih)		/* a further connection: MaxConnections is 1 */
		return iscsi_session_by_tsih(c->server, c->login.tsih) ?
			ISCSI_LOGIN_TOO_MANY_CONNECTIONS : ISCSI_LOGIN_NO_SESSION;
	/* 13.9: told with the first answer */
	if (t->alias && iscsi_text_put(&c->text_out, "TargetAlias", t->alias) < 0)
		return ISCSI_LOGIN_OUT_OF_RESOURCES;
	snprintf(group, sizeof(group), "%u", c->group);
	return iscsi_text_put(&c->text_out, "TargetPortalGroupTag", group) < 0 ?
		ISCSI_LOGIN_OUT_OF_RESOURCES : ISCSI_LOGIN_SUCCESS;
}

/* Who wants to log in where; 0 or a login status. */
static uint16_t check_names(struct iscsi_conn *c)
{
	const struct iscsi_params *p = &c->params;

	c->login.checked = true;
	if (!p->initiator_name[0] || (!p->discovery && !p->target_name[0]))
		return ISCSI_LOGIN_MISSING_PARAMETER;
	if (c->server->stopping)
		return ISCSI_LOGIN_UNAVAILABLE;
	if (!p->discovery)
		return check_target(c);
	if (!iscsi_access_admits(&c->server->discovery, c->peer_address, p->initiator_name))
		return ISCSI_LOGIN_FORBIDDEN;
	return c->login.tsih ? ISCSI_LOGIN_NO_SESSION : ISCSI_LOGIN_SUCCESS;
}

static enum iscsi_text_phase phase_of(const struct iscsi_conn *c)
{
	if (c->login.stage == ISCSI_STAGE_OPERATIONAL)
		return ISCSI_TEXT_OPERATIONAL;
	return c->login.checked ? ISCSI_TEXT_SECURITY : ISCSI_TEXT_LOGIN_FIRST;
}

static uint16_t negotiate_all(struct iscsi_conn *c, struct iscsi_auth_keys *keys)
{
	enum iscsi_text_phase phase = phase_of(c);
	struct iscsi_pair pair;
	uint32_t pos = 0;
	uint16_t status;
	int r;

	while ((r = iscsi_text_next(&c->text_in, &pos, &pair)) == 1) {
		if (phase == ISCSI_TEXT_OPERATIONAL || !iscsi_auth_key(keys, &pair, &status))
			status = (uint16_t)iscsi_negotiate(&c->params, phase, &pair, &c->text_out);
		if (status)
			return status;
	}
	return r < 0 ? ISCSI_LOGIN_INITIATOR_ERROR : ISCSI_LOGIN_SUCCESS;
}

/* Nobody leaves the security stage, or skips it, without what it asks for. */
static uint16_t check_auth(struct iscsi_conn *c, const struct iscsi_auth_keys *keys, bool transit)
{
	uint16_t status = ISCSI_LOGIN_SUCCESS;

	if (c->login.stage == ISCSI_STAGE_SECURITY)
		status = iscsi_auth_request(c, keys);
	if (status)
		return status;
	if (iscsi_auth_satisfied(c))
		c->login.transit = transit;
	else if (c->login.stage != ISCSI_STAGE_SECURITY ||
		 (transit && c->login.auth.step == ISCSI_AUTH_METHOD))
		return ISCSI_LOGIN_AUTH_FAILED;
	else
		c->login.transit = false;	/* there is more to say first (6.3.2) */
	return ISCSI_LOGIN_SUCCESS;
}

/* All of the request's text is here. */
static void request_complete(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_auth_keys keys = { 0 };
	uint16_t status;

	iscsi_answer_begin(c);
	status = negotiate_all(c, &keys);
	iscsi_text_clear(&c->text_in);
	if (!status && !c->login.checked)
		status = check_names(c);
	if (!status)
		status = check_auth(c, &keys, r->final);
	if (status) {
		if (status >> 8 > 1)
			iscsi_answer_begin(c);	/* a failure has nothing to tell */
		login_fail(c, status, why_not(status));
		return;
	}
	c->login.next = r->login.next;
	if (c->login.transit && r->login.next == ISCSI_STAGE_FULL)
		make_session(c);
	else
		send_answer(c);
}

/*
 * 11.12.3: where a stage may lead to when the initiator asks for it; stage 2 does
 * not exist, and nothing leads back
 */
static const uint8_t may_follow[4] = {
	[ISCSI_STAGE_SECURITY] = 1u << ISCSI_STAGE_OPERATIONAL | 1u << ISCSI_STAGE_FULL,
	[ISCSI_STAGE_OPERATIONAL] = 1u << ISCSI_STAGE_FULL,
};

static bool stages_ok(const struct iscsi_conn *c, const struct iscsi_request *r)
{
	if (!may_follow[r->login.current])
		return false;
	if (c->login.started && r->login.current != c->login.stage)
		return false;
	return !r->final || may_follow[r->login.current] >> r->login.next & 1;
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
	if (iscsi_answer_pending(c)) {
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
