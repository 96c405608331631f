/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * command.c - SCSI commands and their data (RFC 7143, 11.3, 11.4, 11.7, 11.8)
 *
 * The device server works in segments; here each becomes Data-In PDUs, or is
 * filled from immediate, unsolicited and solicited Data-Out.  Data-out come in
 * order (DataPDUInOrder and DataSequenceInOrder are always Yes), so one number,
 * task->received, says how much is there; whatever exceeds the segment that the
 * device server asked for is thrown away.
 *
 * An answer is not sent before the last unsolicited PDU is in: until then the
 * task's tag is needed to recognise it.
 *
 * A place in the command window is given back when the answer is queued, before
 * its numbers are filled in, so that the initiator learns of it.
 */
#include <assert.h>
#include <stdio.h>

#include "target/iscsi/server.h"
#include "target/log.h"

static void run(struct iscsi_task *t, enum scsi_step step);

struct iscsi_task *iscsi_task_find(struct iscsi_session *s, uint32_t itt)
{
	struct iscsi_task *t;

	TAILQ_FOREACH(t, &s->tasks, link)
		if (t->itt == itt)
			return t;
	return NULL;
}

static void give_place_back(struct iscsi_task *t)
{
	if (!t->counted)
		return;
	t->counted = false;
	if (t->immediate)
		t->session->immediate_commands--;
	else
		t->session->open_commands--;
}

/* The kernel is writing its data into the task's buffer. */
static bool is_receiving(const struct iscsi_task *t)
{
	const struct iscsi_conn *c = t->session->conn;

	return c->receiving && c->rx.task == t;
}

static void task_free(struct iscsi_task *t)
{
	struct iscsi_session *s = t->session;

	assert(!t->io_pending && !is_receiving(t));
	give_place_back(t);
	if (s->conn->rx.task == t) {	/* the rest of its data goes nowhere */
		s->conn->rx.task = NULL;
		s->conn->rx.keep = 0;
	}
	TAILQ_REMOVE(&s->tasks, t, link);
	scsi_finish(&t->scsi);
	slab_put(&s->server->tasks, t);
}

/* ---- answers ---- */

/* What the initiator expected and what there was (11.4.1). */
static struct iscsi_status status_of(const struct iscsi_task *t)
{
	struct iscsi_status st = { .status = t->scsi.status };
	uint64_t moved = t->scsi.length, expected = t->expected_len;

	if (st.status != SCSI_GOOD)
		moved = t->scsi.dir == SCSI_DIR_IN ? t->data_in_done :
			MIN((uint64_t)t->received, moved);
	if (moved > expected) {
		st.residual_flags = ISCSI_RESIDUAL_OVERFLOW;
		st.residual = (uint32_t)MIN(moved - expected, (uint64_t)UINT32_MAX);
	} else if (moved < expected) {
		st.residual_flags = ISCSI_RESIDUAL_UNDERFLOW;
		st.residual = (uint32_t)(expected - moved);
	}
	return st;
}

static void respond(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->session->conn;
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_status st = status_of(t);
	struct iscsi_sn sn;

	if (!o)
		return;		/* the connection is closed, and the task with it */
	if (t->scsi.sense_len) {
		store_be16(o->small, t->scsi.sense_len);
		memcpy(o->small + 2, t->scsi.sense, t->scsi.sense_len);
		o->data = o->small;
		o->data_len = 2u + t->scsi.sense_len;
	}
	give_place_back(t);
	sn = iscsi_sn_status(c);
	iscsi_put_scsi_response(o->head, &sn, t->itt, &st, t->data_in_sn + t->r2t_sn, o->data_len);
	iscsi_out_queue(c, o);
	task_free(t);
}

/* The device server is done with it. */
static void over(struct iscsi_task *t)
{
	t->over = true;
	t->wants_data = false;
	if (!t->unsolicited)
		respond(t);
}

/* One PDU of the segment; the length of it, 0 when the connection is lost. */
static uint32_t send_data_in_pdu(struct iscsi_task *t, uint32_t at)
{
	struct iscsi_conn *c = t->session->conn;
	struct iscsi_out *o = iscsi_out_new(c);
	uint32_t offset = (uint32_t)t->scsi.seg_offset + at;
	uint32_t burst_left = c->params.max_burst - offset % c->params.max_burst;
	uint32_t pdu_max = MIN(c->params.max_send, burst_left);
	uint32_t len = MIN(t->scsi.seg_len - at, pdu_max);
	bool end = at + len == t->scsi.seg_len, status = end && t->scsi.last;
	struct iscsi_status st;
	struct iscsi_sn sn;

	if (!o)
		return 0;
	o->data_len = len;
	if (t->scsi.buf) {
		o->data = t->scsi.buf + at;
	} else {
		o->file = t->scsi.file;
		o->file.offset += at;
	}
	if (end) {
		o->task = t;
		t->sending = true;
	}
	t->data_in_done += len;
	if (status) {
		give_place_back(t);
		st = status_of(t);
	}
	sn = status ? iscsi_sn_status(c) : iscsi_sn_plain(c);
	iscsi_put_data_in(o->head, &sn, &(struct iscsi_data_in) {
		.itt = t->itt, .data_len = len, .data_sn = t->data_in_sn++, .offset = offset,
		.final = status || len == burst_left, .status = status ? &st : NULL,
	});
	iscsi_out_queue(c, o);
	return len;
}

static void send_data_in(struct iscsi_task *t)
{
	uint32_t len;

	for (uint32_t at = 0; at < t->scsi.seg_len; at += len) {
		len = send_data_in_pdu(t, at);
		if (!len)
			return;
	}
}

void iscsi_task_sent(struct iscsi_task *t, bool lost)
{
	t->sending = false;
	if (lost || t->scsi.aborted || t->scsi.last)
		task_free(t);
	else
		run(t, scsi_step(&t->scsi));
}

/* ---- data-out ---- */

static uint64_t wanted_end(const struct iscsi_task *t)
{
	return t->scsi.seg_offset + t->scsi.seg_len;
}

static void send_r2t(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->session->conn;
	struct iscsi_out *o = iscsi_out_new(c);
	struct iscsi_sn sn;
	struct iscsi_r2t *r;

	if (!o)
		return;
	r = &t->r2t[t->n_r2t++];
	*r = (struct iscsi_r2t) {
		.ttt = c->next_ttt++,
		.offset = t->requested,
		.len = (uint32_t)MIN(wanted_end(t) - t->requested, (uint64_t)c->params.max_burst),
	};
	if (c->next_ttt == ISCSI_RESERVED_TAG)
		c->next_ttt = 0;
	t->requested += r->len;
	sn = iscsi_sn_plain(c);
	iscsi_put_r2t(o->head, &sn, t->scsi.lun, t->itt, r->ttt, t->r2t_sn++, r->offset, r->len);
	iscsi_out_queue(c, o);
}

/* See whether the segment is complete, or more has to be asked for. */
static void collect(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->session->conn;

	if (t->received >= wanted_end(t)) {
		t->wants_data = false;
		run(t, scsi_step(&t->scsi));
		return;
	}
	if (t->unsolicited)
		return;
	while (!c->closed && t->n_r2t < MIN(c->params.max_outstanding_r2t, ISCSI_MAX_R2T) &&
	       t->requested < wanted_end(t))
		send_r2t(t);
}

/* Where bytes [offset, offset + len) of the data phase are received to. */
static void aim(struct iscsi_conn *c, struct iscsi_task *t, uint32_t offset, uint32_t len)
{
	uint64_t end = wanted_end(t);

	c->rx.task = t;
	if (!t->wants_data || offset >= end)
		return;
	c->rx.dst = t->scsi.buf + (offset - t->scsi.seg_offset);
	c->rx.keep = (uint32_t)MIN((uint64_t)len, end - offset);
}

/* Large data are written piece by piece, while the processor's cache has them. */
void iscsi_task_progress(struct iscsi_conn *c)
{
	struct iscsi_task *t = c->rx.task;
	struct vdisk *disk;
	struct scsi_early e;
	int r;

	if (!t->wants_data || t->scsi.aborted || !c->rx.dst ||
	    !scsi_early(&t->scsi, (uint32_t)(c->rx.dst - t->scsi.buf), &e))
		return;
	t->io_pending = true;
	disk = t->scsi.io.disk;
	reactor_leave(c->reactor);
	r = vdisk_write_now(disk, e.from, e.len, e.offset);
	reactor_enter(c->reactor);
	t->io_pending = false;
	if (t->scsi.aborted)
		task_free(t);
	else
		scsi_early_done(&t->scsi, &e, r);
}

/* ---- a command's way ---- */

static void run(struct iscsi_task *t, enum scsi_step step)
{
	switch (step) {
	case SCSI_IO:
		t->io_pending = true;
		t->scsi.io.user = &t->session->server->disk;
		reactor_submit(t->session->conn->reactor, &t->scsi.io);
		break;
	case SCSI_DATA_IN:
		send_data_in(t);
		break;
	case SCSI_DATA_OUT:
		t->wants_data = true;
		collect(t);
		break;
	case SCSI_DONE:
		over(t);
		break;
	case SCSI_WAIT:		/* resume_task() */
		break;
	}
}

void iscsi_task_io_done(struct iscsi_task *t)
{
	t->io_pending = false;
	if (t->scsi.aborted)
		task_free(t);
	else
		run(t, scsi_step(&t->scsi));
}

static void abort_task(struct scsi_task *scsi)
{
	struct iscsi_task *t = container_of(scsi, struct iscsi_task, scsi);

	scsi->aborted = true;
	if (t->io_pending)
		return;		/* iscsi_task_io_done() frees it */
	if (t->sending || is_receiving(t))
		scsi_end(scsi);	/* iscsi_task_sent() or iscsi_task_received() frees it */
	else
		task_free(t);
}

void iscsi_task_received(struct iscsi_task *t)
{
	if (t->scsi.aborted && !t->io_pending && !t->sending)
		task_free(t);
}

/*
 * It waited; maybe for one of another thread, which then calls this.  While its
 * command's PDU is still coming in, iscsi_command_end() goes on.
 */
static void resume_task(struct scsi_task *scsi)
{
	struct iscsi_task *t = container_of(scsi, struct iscsi_task, scsi);

	if (t->session->conn->closed || t->session->is_ending) {
		abort_task(scsi);	/* it was about to be, and nobody wants an answer */
		return;
	}
	t->step = scsi_step(scsi);
	if (!t->beginning)
		run(t, t->step);
}

const struct scsi_nexus_ops iscsi_nexus_ops = {
	.abort = abort_task,
	.resume = resume_task,
};

/* What makes a command a reject rather than a failed command; 0: nothing. */
static uint8_t command_wrong(const struct iscsi_conn *c, const struct iscsi_request *r)
{
	const struct iscsi_session *s = c->session;

	if (!s->target)
		return ISCSI_REJECT_PROTOCOL_ERROR;	/* 4.3: discovery */
	if (r->itt == ISCSI_RESERVED_TAG)
		return ISCSI_REJECT_INVALID_FIELD;
	if (r->immediate && s->immediate_commands >= ISCSI_MAX_IMMEDIATE)
		return ISCSI_REJECT_TOO_MANY_IMMEDIATE;
	if (iscsi_task_find(c->session, r->itt))
		return ISCSI_REJECT_TASK_IN_PROGRESS;
	if (r->data_len && (!r->command.write || !c->params.immediate_data))
		return ISCSI_REJECT_PROTOCOL_ERROR;
	if (r->data_len > MIN(r->command.expected_len, c->params.first_burst))
		return ISCSI_REJECT_PROTOCOL_ERROR;
	/* 11.3.1: without F, unsolicited Data-Out follow */
	if (!r->final && (!r->command.write || c->params.initial_r2t))
		return ISCSI_REJECT_PROTOCOL_ERROR;
	return 0;
}

/* 11.3.1; untagged is simple, and of ACA there is none */
static uint8_t attribute(uint8_t code)
{
	enum { UNTAGGED, SIMPLE, ORDERED, HEAD_OF_QUEUE };

	return code == ORDERED ? SCSI_ORDERED : code == HEAD_OF_QUEUE ? SCSI_HEAD_OF_QUEUE :
								       SCSI_SIMPLE;
}

static struct iscsi_task *task_new(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_session *s = c->session;
	struct iscsi_task *t = slab_get(&c->server->tasks);

	if (!t) {
		iscsi_conn_close(c, "out of memory");
		return NULL;
	}
	t->session = s;
	t->itt = r->itt;
	t->expected_len = r->command.expected_len;
	t->immediate = r->immediate;
	t->counted = true;
	t->io_pending = t->sending = t->wants_data = t->over = false;
	t->data_in_sn = t->data_in_done = 0;
	t->r2t_sn = t->received = t->requested = t->unsolicited_sn = 0;
	t->n_r2t = 0;
	t->unsolicited = !r->final;
	t->scsi.nexus = &s->nexus;
	t->scsi.pool = reactor_pool(c->reactor);
	memcpy(t->scsi.lun, r->lun, sizeof(t->scsi.lun));
	memcpy(t->scsi.cdb, r->command.cdb, sizeof(t->scsi.cdb));
	t->scsi.in_limit = r->command.read ? r->command.expected_len : 0;
	t->scsi.attribute = attribute(r->command.attribute);
	/* a digest is of the bytes as they were, and these could change while they go */
	t->scsi.sends_files = c->wire->sends_files && !c->data_digest;
	t->scsi.out_limit = r->command.write ? r->command.expected_len : 0;
	if (t->immediate)
		s->immediate_commands++;
	else
		s->open_commands++;
	TAILQ_INSERT_TAIL(&s->tasks, t, link);
	return t;
}

void iscsi_command_begin(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_task *t;

	switch (iscsi_session_cmd_sn(c->session, r)) {
	case ISCSI_CMD_OK:
		break;
	case ISCSI_CMD_IGNORE:
		log_debug("%s: command outside the window ignored", c->peer);
		return;
	case ISCSI_CMD_BROKEN:
		iscsi_conn_close(c, "a command's number is missing");
		return;
	}
	c->rx.reject = command_wrong(c, r);
	if (c->rx.reject)
		return;
	t = task_new(c, r);
	if (!t)
		return;
	t->beginning = true;
	t->step = scsi_start(&t->scsi);
	c->rx.task = t;
	if (t->step == SCSI_DATA_OUT) {
		t->wants_data = true;
		aim(c, t, 0, r->data_len);
	}
}

void iscsi_command_end(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_task *t = c->rx.task;

	if (c->rx.reject)
		iscsi_reject(c, c->rx.reject);
	if (!t)
		return;
	c->rx.task = NULL;
	t->beginning = false;
	t->received = t->requested = r->data_len;
	run(t, t->step);
}

/* ---- Data-Out PDUs ---- */

/* The data-out of a command went wrong: it fails, and more of it is ignored. */
static void data_wrong(struct iscsi_conn *c, struct iscsi_task *t, uint16_t asc, const char *why)
{
	log_info("%s: Data-Out: %s", c->peer, why);
	t->unsolicited = false;
	t->n_r2t = 0;
	if (t->io_pending || t->sending || t->scsi.parked)
		return;		/* it has what it needs; this was too much of a good thing */
	if (!t->over)
		scsi_fail(&t->scsi, SCSI_ABORTED_COMMAND, asc);
	over(t);
}

static void unsolicited_begin(struct iscsi_conn *c, struct iscsi_task *t,
			      const struct iscsi_request *r)
{
	if (!t->unsolicited)
		data_wrong(c, t, SCSI_ASC_UNEXPECTED_UNSOLICITED_DATA, "unsolicited");
	else if (r->data.data_sn != t->unsolicited_sn || r->data.offset != t->received)
		data_wrong(c, t, SCSI_ASC_NOT_ENOUGH_UNSOLICITED_DATA, "out of sequence");
	else if (r->data_len > MIN(c->params.first_burst, t->expected_len) - t->received)
		data_wrong(c, t, SCSI_ASC_UNEXPECTED_UNSOLICITED_DATA, "over FirstBurstLength");
	else
		aim(c, t, r->data.offset, r->data_len);
}

static void solicited_begin(struct iscsi_conn *c, struct iscsi_task *t,
			    const struct iscsi_request *r)
{
	const struct iscsi_r2t *want = &t->r2t[0];

	if (t->n_r2t == 0 || r->ttt != want->ttt)
		log_debug("%s: Data-Out for no R2T ignored", c->peer);
	else if (r->data.data_sn != want->data_sn || r->data.offset != want->offset + want->received)
		data_wrong(c, t, SCSI_ASC_NOT_ENOUGH_UNSOLICITED_DATA, "out of sequence");
	else if (r->data_len > want->len - want->received)
		data_wrong(c, t, SCSI_ASC_NOT_ENOUGH_UNSOLICITED_DATA, "more than asked for");
	else
		aim(c, t, r->data.offset, r->data_len);
}

void iscsi_data_begin(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_task *t = iscsi_task_find(c->session, r->itt);

	if (!t)
		log_debug("%s: Data-Out for no command ignored", c->peer);	/* it was aborted */
	else if (r->ttt == ISCSI_RESERVED_TAG)
		unsolicited_begin(c, t, r);
	else
		solicited_begin(c, t, r);
}

static void unsolicited_end(struct iscsi_task *t, const struct iscsi_request *r)
{
	t->unsolicited_sn++;
	if (!r->final)
		return;
	t->unsolicited = false;
	t->requested = t->received;
	if (t->over)
		respond(t);
	else if (t->wants_data)
		collect(t);
}

static void solicited_end(struct iscsi_conn *c, struct iscsi_task *t, const struct iscsi_request *r)
{
	struct iscsi_r2t *want = &t->r2t[0];

	want->received += r->data_len;
	want->data_sn++;
	if (want->received == want->len) {
		memmove(want, want + 1, --t->n_r2t * sizeof(*want));
		if (t->wants_data)
			collect(t);
	} else if (r->final) {
		data_wrong(c, t, SCSI_ASC_NOT_ENOUGH_UNSOLICITED_DATA, "less than asked for");
	}
}

void iscsi_data_end(struct iscsi_conn *c, const struct iscsi_request *r)
{
	struct iscsi_task *t = c->rx.task;

	if (!t)
		return;
	c->rx.task = NULL;
	t->received += r->data_len;
	if (r->ttt == ISCSI_RESERVED_TAG)
		unsolicited_end(t, r);
	else
		solicited_end(c, t, r);
}
