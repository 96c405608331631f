/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* full.c - the full feature phase, but for commands (RFC 7143, 4.3) */
#include <errno.h>
#include <stdio.h>

#include "target/iscsi/server.h"
#include "target/log.h"

static const uint8_t no_lun[8];

/* ---- NOP (11.18, 11.19) ---- */

void iscsi_ping(struct iscsi_conn *c)
{
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_sn sn;

	if (!o)
		return;
	c->pinged = true;
	c->ping_ttt = c->next_ttt++;
	sn = iscsi_sn_plain(c);
	iscsi_put_nop_in(o->head, &sn, no_lun, ISCSI_RESERVED_TAG, c->ping_ttt, 0);
	if (c->next_ttt == ISCSI_RESERVED_TAG)
		c->next_ttt = 0;
	iscsi_out_queue(c, o);
}

/* The ping's data go back from the buffer that they came in. */
static void nop_out(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_out *o;
	struct iscsi_sn sn;

	if (r->itt == ISCSI_RESERVED_TAG) {
		if (c->pinged && r->ttt == c->ping_ttt)
			c->pinged = false;	/* the answer to ours */
		else if (r->ttt != ISCSI_RESERVED_TAG)
			iscsi_reject(c, ISCSI_REJECT_INVALID_FIELD);	/* to nobody's (11.18.2) */
		return;
	}
	o = iscsi_out_new(c);
	if (!o)
		return;
	o->own = STEAL(c->rx.buf);
	o->own_size = r->data_len;
	o->data = o->own;
	o->data_len = MIN(r->data_len, c->params.max_send);
	sn = iscsi_sn_status(c);
	iscsi_put_nop_in(o->head, &sn, r->lun, r->itt, ISCSI_RESERVED_TAG, o->data_len);
	iscsi_out_queue(c, o);
}

/* ---- text (11.10, 11.11) ---- */

static bool may_know(const struct iscsi_conn *c, const struct iscsi_target *t)
{
	return !t->leaving && iscsi_access_admits(&t->access, c->peer_address, c->session->initiator);
}

/* Appendix C: All in a discovery session only, nothing in a normal one only */
static int send_targets(struct iscsi_conn *c, const char *value)
{
	struct iscsi_target *t = c->session->target;

	if (!strcmp(value, "All")) {
		int r = 0;

		if (t)
			return iscsi_text_put(&c->text_out, "SendTargets", "Reject");
		LIST_FOREACH(t, &c->server->targets, link)
			if (r == 0 && may_know(c, t))
				r = iscsi_portals_tell(c, t);
		return r;
	}
	if (!*value && !t)
		return iscsi_text_put(&c->text_out, "SendTargets", "Reject");
	if (*value)
		t = iscsi_target_find(c->server, value);
	return t && may_know(c, t) ? iscsi_portals_tell(c, t) : 0;
}

void iscsi_text_continue(struct iscsi_conn *c, uint32_t itt)
{
	struct iscsi_out *o = iscsi_answer_next(c, c->params.max_send);
	bool more = iscsi_answer_pending(c);
	struct iscsi_sn sn;

	if (!o)
		return;
	if (more && c->text_ttt == ISCSI_RESERVED_TAG)
		c->text_ttt = c->next_ttt++;
	if (!more)
		c->text_ttt = ISCSI_RESERVED_TAG;
	sn = iscsi_sn_status(c);
	iscsi_put_text(o->head, &sn, itt, c->text_ttt, !more, more, o->data_len);
	iscsi_out_queue(c, o);
}

/* An answer to half a request: go on. */
static void text_want_more(struct iscsi_conn *c, uint32_t itt)
{
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_sn sn;

	if (!o)
		return;
	if (c->text_ttt == ISCSI_RESERVED_TAG)
		c->text_ttt = c->next_ttt++;
	sn = iscsi_sn_status(c);
	iscsi_put_text(o->head, &sn, itt, c->text_ttt, false, false, 0);
	iscsi_out_queue(c, o);
}

static void text_answer(struct iscsi_conn *c, uint32_t itt)
{
	struct iscsi_pair pair;
	uint32_t pos = 0;
	int r;

	iscsi_answer_begin(c);
	while ((r = iscsi_text_next(&c->text_in, &pos, &pair)) == 1) {
		if (!strcmp(pair.key, "SendTargets"))
			r = send_targets(c, pair.value);
		else
			r = iscsi_negotiate(&c->params, ISCSI_TEXT_FULL, &pair, &c->text_out);
		if (r)
			break;
	}
	iscsi_text_clear(&c->text_in);
	if (r) {
		iscsi_answer_begin(c);
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL_ERROR);
		return;
	}
	c->text_ttt = ISCSI_RESERVED_TAG;
	iscsi_text_continue(c, itt);
}

static void text_request(struct iscsi_conn *c, const struct iscsi_request *r, const void *data)
{
	/* 11.10.4: a fresh tag starts anew, dropping what was under way */
	if (r->ttt == ISCSI_RESERVED_TAG) {
		iscsi_text_clear(&c->text_in);
		iscsi_answer_begin(c);
		c->text_ttt = ISCSI_RESERVED_TAG;
	} else if (r->ttt != c->text_ttt) {
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL_ERROR);
		return;
	}
	if (iscsi_answer_pending(c)) {
		iscsi_text_continue(c, r->itt);
		return;
	}
	if (iscsi_text_append(&c->text_in, data, r->data_len, ISCSI_TEXT_MAX) < 0) {
		iscsi_text_clear(&c->text_in);
		c->text_ttt = ISCSI_RESERVED_TAG;
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL_ERROR);
		return;
	}
	if (r->text.more)
		text_want_more(c, r->itt);
	else
		text_answer(c, r->itt);
}

/* ---- task management (11.5) ---- */

static void task_response(struct iscsi_conn *c, uint32_t itt, uint8_t response)
{
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_sn sn;

	if (!o)
		return;
	sn = iscsi_sn_status(c);
	iscsi_put_task_response(o->head, &sn, itt, response);
	iscsi_out_queue(c, o);
}

static void tmf_done(struct scsi_tmf *scsi)
{
	struct iscsi_tmf *tmf = container_of(scsi, struct iscsi_tmf, scsi);
	struct iscsi_server *s = tmf->conn->server;

	if (!tmf->conn->closed)
		task_response(tmf->conn, tmf->itt, ISCSI_TASK_COMPLETE);
	slab_put(&s->tmfs, tmf);
}

static void tmf_start(struct iscsi_conn *c, uint32_t itt, const struct scsi_tmf *what)
{
	struct iscsi_tmf *tmf = slab_get(&c->server->tmfs);

	if (!tmf) {
		task_response(c, itt, ISCSI_TASK_REJECTED);
		return;
	}
	tmf->conn = c;
	tmf->itt = itt;
	tmf->scsi = *what;
	tmf->scsi.nexus = &c->session->nexus;
	tmf->scsi.done = tmf_done;
	scsi_tmf_start(&tmf->scsi);
}

/*
 * ABORT TASK (11.5.1): a command that is not here was answered already, or, if
 * its number is still to come, will not be executed.
 */
static void abort_one(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_task *t = iscsi_task_find(c->session, r->task.ref_itt);

	if (!t) {
		task_response(c, r->itt, iscsi_sn_lt(r->task.ref_cmd_sn, c->session->exp_cmd_sn) ?
			      ISCSI_TASK_NOT_FOUND : ISCSI_TASK_COMPLETE);
	} else if (t->scsi.in_set) {
		tmf_start(c, r->itt, &(struct scsi_tmf) {
			.function = SCSI_ABORT_TASK, .task = &t->scsi, .unit = t->scsi.unit,
		});
	} else if (t->sending) {
		task_response(c, r->itt, ISCSI_TASK_NOT_FOUND);	/* its answer is on the way */
	} else {
		iscsi_nexus_ops.abort(&t->scsi);
		task_response(c, r->itt, ISCSI_TASK_COMPLETE);
	}
}

static void task_request(struct iscsi_conn *c, const struct iscsi_request *r)
{
	static const struct {
		bool known;
		bool of_unit;
		enum scsi_tmf_function function;
	} functions[] = {
		[ISCSI_ABORT_TASK_SET] = { true, true, SCSI_ABORT_TASK_SET },
		[ISCSI_CLEAR_TASK_SET] = { true, true, SCSI_CLEAR_TASK_SET },
		[ISCSI_LUN_RESET] = { true, true, SCSI_LUN_RESET },
		[ISCSI_TARGET_WARM_RESET] = { true, false, SCSI_TARGET_RESET },
		[ISCSI_TARGET_COLD_RESET] = { true, false, SCSI_TARGET_RESET },
	};
	uint8_t f = r->task.function;
	struct scsi_tmf what = { .unit = NULL };

	if (!c->session->target) {
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL_ERROR);
		return;
	}
	if (f == ISCSI_ABORT_TASK) {
		abort_one(c, r);
		return;
	}
	if (f >= ARRAY_SIZE(functions) || !functions[f].known) {
		task_response(c, r->itt, f == ISCSI_TASK_REASSIGN ?
			      ISCSI_TASK_REASSIGN_NOT_SUPPORTED : ISCSI_TASK_NOT_SUPPORTED);
		return;
	}
	what.function = functions[f].function;
	if (functions[f].of_unit) {
		what.unit = scsi_unit_find(&c->session->nexus, r->lun);
		if (!what.unit) {
			task_response(c, r->itt, ISCSI_TASK_NO_LUN);
			return;
		}
	}
	tmf_start(c, r->itt, &what);
}

/* ---- logout (11.14) ---- */

static void logout_response(struct iscsi_conn *c, uint32_t itt, uint8_t response)
{
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_sn sn;

	if (!o)
		return;
	sn = iscsi_sn_status(c);
	iscsi_put_logout(o->head, &sn, itt, response);
	iscsi_out_queue(c, o);
}

/* The commands are finished or stopped: answer, and that was it. */
static void logged_out(struct iscsi_session *s)
{
	struct iscsi_conn *c = s->conn;

	logout_response(c, c->login.itt, 0);
	if (c->closed)
		return;
	iscsi_conn_event(c, ISCSI_EV_LOGGED_OUT);
	iscsi_conn_linger(c);
}

static void logout_request(struct iscsi_conn *c, const struct iscsi_request *r)
{
	enum { CLOSE_SESSION, CLOSE_CONNECTION, RECOVERY };

	if (r->logout.reason == RECOVERY) {
		logout_response(c, r->itt, 2);	/* connection recovery is not supported */
	} else if (r->logout.reason > RECOVERY) {
		iscsi_reject(c, ISCSI_REJECT_INVALID_FIELD);
	} else if (r->logout.reason == CLOSE_CONNECTION && r->logout.cid != c->login.cid) {
		logout_response(c, r->itt, 1);	/* CID not found */
	} else {
		iscsi_conn_event(c, ISCSI_EV_LOGOUT);
		c->login.itt = r->itt;
		iscsi_session_abort_all(c->session, logged_out);
	}
}

void iscsi_async_logout(struct iscsi_conn *c)
{
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_sn sn;

	if (!o)
		return;
	iscsi_conn_event(c, ISCSI_EV_ASYNC_LOGOUT);
	sn = iscsi_sn_status(c);
	iscsi_put_async(o->head, &sn, ISCSI_ASYNC_LOGOUT_REQUEST, 0, 0, ISCSI_LOGOUT_SECONDS);
	iscsi_out_queue(c, o);
	reactor_arm(c->reactor, &c->timer, ISCSI_LOGOUT_SECONDS);
}

/* ---- */

void iscsi_full_request(struct iscsi_conn *c, const struct iscsi_request *r, void *data)
{
	switch (iscsi_session_cmd_sn(c->session, r)) {
	case ISCSI_CMD_OK:
		break;
	case ISCSI_CMD_IGNORE:
		return;
	case ISCSI_CMD_BROKEN:
		iscsi_conn_close(c, "a request's number is missing");
		return;
	}
	switch (r->opcode) {
	case ISCSI_NOP_OUT:
		nop_out(c, r);
		break;
	case ISCSI_TEXT_REQUEST:
		text_request(c, r, data);
		break;
	case ISCSI_TASK_REQUEST:
		task_request(c, r);
		break;
	case ISCSI_LOGOUT_REQUEST:
		logout_request(c, r);
		break;
	default:
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL_ERROR);	/* a login, now */
	}
}
