/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pr.c - who else may use a unit: RESERVE and RELEASE (SPC-2, 5.5) and persistent
 * reservations (SPC-4, 5.13, 6.15 and 6.16)
 *
 * A PERSISTENT RESERVE OUT works on a copy of the unit's registrations.  If they
 * are to survive a loss of power the copy is written to the unit's file first, on
 * a worker; then it takes the place of the old ones, unit attentions are raised by
 * comparing the two, and what PREEMPT AND ABORT ends has to be at its end before
 * the answer goes out.  One such command runs at a time on a unit (unit->pr_task);
 * others wait.  If the initiator aborts it while the file is being written, the
 * file decides: what was saved is in force.
 */
#include <errno.h>
#include <stdlib.h>

#include "target/scsi/op.h"

enum action {
	REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE,
	REGISTER_AND_MOVE,
};

/* 6.15.3.4; the types that others' writes, or all of their accesses, are kept from */
enum {
	WRITE_EXCLUSIVE = 1,
	EXCLUSIVE_ACCESS = 3,
	WRITE_EXCLUSIVE_REGISTRANTS = 5,
	EXCLUSIVE_ACCESS_REGISTRANTS = 6,
	WRITE_EXCLUSIVE_ALL = 7,
	EXCLUSIVE_ACCESS_ALL = 8,
};

static bool type_known(uint8_t type)
{
	return type == 1 || type == 3 || (type >= 5 && type <= 8);
}

static bool only_writes(uint8_t type)
{
	return type == WRITE_EXCLUSIVE || type == WRITE_EXCLUSIVE_REGISTRANTS ||
	       type == WRITE_EXCLUSIVE_ALL;
}

static bool all_hold(uint8_t type)
{
	return type == WRITE_EXCLUSIVE_ALL || type == EXCLUSIVE_ACCESS_ALL;
}

/* Registering is enough to get in. */
static bool registrants_too(uint8_t type)
{
	return type >= WRITE_EXCLUSIVE_REGISTRANTS;
}

void scsi_pr_clear(struct scsi_pr *pr)
{
	free(pr->reg);
	*pr = (struct scsi_pr) { .reg = NULL };
}

/* ---- registrants ---- */

static bool same_port(const struct scsi_port *a, const struct scsi_port *b)
{
	return a->len == b->len && !memcmp(a->id, b->id, a->len);
}

static int find(const struct scsi_pr *pr, const struct scsi_port *port, uint16_t target_port)
{
	for (int i = 0; port->len && i < pr->n; i++)
		if ((pr->reg[i].target_port == target_port || pr->reg[i].target_port == 0) &&
		    same_port(&pr->reg[i].port, port))
			return i;
	return -1;
}

static int find_nexus(const struct scsi_pr *pr, const struct scsi_nexus *n)
{
	return find(pr, &n->port, n->target_port);
}

static bool holds(const struct scsi_pr *pr, int i)
{
	return pr->type && i >= 0 && (all_hold(pr->type) || pr->holder == i);
}

/* SPC-4, table 65 */
bool scsi_reserved(const struct scsi_unit *u, const struct scsi_nexus *n, enum scsi_reserved kind)
{
	int i;

	if (u->reserved_by && u->reserved_by != n && kind != SCSI_RESERVED_ALLOW)
		return true;
	if (!u->pr.type || kind == SCSI_RESERVED_ALLOW ||
	    (kind == SCSI_RESERVED_READ && only_writes(u->pr.type)))
		return false;
	i = find_nexus(&u->pr, n);
	return !(holds(&u->pr, i) || (i >= 0 && registrants_too(u->pr.type)));
}

static enum scsi_step conflict(struct scsi_task *t)
{
	t->status = SCSI_RESERVATION_CONFLICT;
	return SCSI_DONE;
}

/* ---- RESERVE and RELEASE: the whole unit, until the nexus or the power is lost ---- */

enum scsi_step scsi_reserve(struct scsi_task *t)
{
	/* SPC-3, 5.6.3: not beside registrations */
	if (t->unit->pr.n)
		return conflict(t);
	t->unit->reserved_by = t->nexus;
	return scsi_good(t);
}

enum scsi_step scsi_release(struct scsi_task *t)
{
	if (t->unit->pr.n)
		return conflict(t);
	if (t->unit->reserved_by == t->nexus)
		t->unit->reserved_by = NULL;
	return scsi_good(t);	/* of what is not there, or another's, too */
}

/* ---- PERSISTENT RESERVE IN ---- */

#define REPLY_MAX (4u + 8u + SCSI_MAX_REGISTRANTS * (24u + sizeof(((struct scsi_port *)0)->id)))

static uint32_t read_keys(const struct scsi_pr *pr, uint8_t *p)
{
	uint32_t n = 8;

	for (unsigned i = 0; i < pr->n; i++, n += 8)
		store_be64(p + n, pr->reg[i].key);
	store_be32(p + 4, n - 8);
	return n;
}

static uint32_t read_reservation(const struct scsi_pr *pr, uint8_t *p)
{
	if (!pr->type)
		return 8;
	store_be32(p + 4, 16);
	if (!all_hold(pr->type))
		store_be64(p + 8, pr->reg[pr->holder].key);
	p[21] = pr->type;	/* scope 0: the logical unit */
	return 24;
}

static uint32_t report_capabilities(const struct scsi_unit *u, uint8_t *p)
{
	store_be16(p, 8);
	p[2] = (uint8_t)(0x08 | 0x04 | (u->state_fd >= 0 ? 0x01 : 0));	/* SIP_C, ATP_C, PTPL_C */
	p[3] = (uint8_t)(0x80 | (u->pr.aptpl ? 0x01 : 0));		/* TMV, PTPL_A */
	p[4] = 0x80 | 0x40 | 0x20 | 0x08 | 0x02;	/* the types: 7, 6, 5, 3, 1 */
	p[5] = 0x01;					/* and 8 */
	return 8;
}

static uint32_t read_full_status(const struct scsi_pr *pr, uint8_t *p)
{
	uint32_t n = 8;

	for (int i = 0; i < pr->n; i++) {
		const struct scsi_registrant *r = &pr->reg[i];
		uint8_t *d = p + n;

		store_be64(d, r->key);
		d[12] = (uint8_t)((r->target_port ? 0 : 0x02) | (holds(pr, i) ? 0x01 : 0));
		d[13] = holds(pr, i) ? pr->type : 0;
		store_be16(d + 18, r->target_port);
		store_be32(d + 20, r->port.len);
		memcpy(d + 24, r->port.id, r->port.len);
		n += 24u + r->port.len;
	}
	store_be32(p + 4, n - 8);
	return n;
}

/* SPC-2, 5.5.1: while anyone holds a RESERVE there are no persistent ones, not even for it */
static bool other_kind(struct scsi_task *t)
{
	t->status = SCSI_RESERVATION_CONFLICT;
	return t->unit->reserved_by;
}

enum scsi_step scsi_pr_in(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	uint32_t alloc = load_be16(t->cdb + 7), n;

	if (other_kind(t))
		return SCSI_DONE;
	if (!scsi_get_buf(t, REPLY_MAX))
		return scsi_no_buf(t);
	memset(t->buf, 0, REPLY_MAX);
	store_be32(t->buf, u->pr.generation);
	switch (t->cdb[1] & 0x1f) {
	case 0:
		n = read_keys(&u->pr, t->buf);
		break;
	case 1:
		n = read_reservation(&u->pr, t->buf);
		break;
	case 2:
		memset(t->buf, 0, 4);
		n = report_capabilities(u, t->buf);
		break;
	default:
		n = read_full_status(&u->pr, t->buf);
	}
	return scsi_reply(t, n, alloc);
}

/* ---- PERSISTENT RESERVE OUT: the parameter list ---- */

struct request {
	enum action action;
	uint8_t type;
	uint64_t key, new_key;	/* RESERVATION KEY, SERVICE ACTION RESERVATION KEY */
	bool aptpl, all_ports, unregister;
	uint16_t n_ports;	/* SPEC_I_PT */
	uint16_t target_port;	/* REGISTER AND MOVE */
	struct scsi_port *ports;	/* owned: SPEC_I_PT's, or the one to move to */
	struct scsi_pr next;	/* what shall come of it */
};

static void request_free(struct request *r)
{
	if (!r)
		return;
	scsi_pr_clear(&r->next);
	free(r->ports);
	free(r);
}

/* @len bytes of TransportIDs; false: they are not. */
static bool decode_ports(struct request *r, const uint8_t *p, size_t len, unsigned max)
{
	r->ports = calloc(max, sizeof(*r->ports));
	while (r->ports && len > 0) {
		size_t used;

		if (r->n_ports == max || scsi_port_decode(&r->ports[r->n_ports], p, len, &used) < 0)
			return false;
		r->n_ports++;
		p += used;
		len -= used;
	}
	return r->ports;
}

/* 6.16.4: the basic list; with SPEC_I_PT, TransportIDs behind it */
static enum scsi_step decode_basic(struct scsi_task *t, struct request *r, bool *ok)
{
	const uint8_t *p = t->buf;
	uint32_t len = (uint32_t)t->transfer;

	*ok = false;
	if (p[20] & ~0x0d)
		return scsi_bad_list(t, 20);
	r->all_ports = p[20] & 0x04;
	r->aptpl = p[20] & 0x01;
	if (!(p[20] & 0x08)) {
		if (len != 24)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
		*ok = true;
		return SCSI_DONE;
	}
	if (r->action != REGISTER)
		return scsi_bad_list(t, 20);
	if (len < 28 || load_be32(p + 24) != len - 28)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	if (!decode_ports(r, p + 28, len - 28, SCSI_MAX_REGISTRANTS))
		return scsi_bad_list(t, 28);
	*ok = true;
	return SCSI_DONE;
}

/* 6.16.5: REGISTER AND MOVE */
static enum scsi_step decode_move(struct scsi_task *t, struct request *r, bool *ok)
{
	const uint8_t *p = t->buf;
	uint32_t len = (uint32_t)t->transfer;

	*ok = false;
	if (len < 24 || load_be32(p + 20) != len - 24)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	if (p[17] & ~0x03)
		return scsi_bad_list(t, 17);
	r->unregister = p[17] & 0x02;
	r->aptpl = p[17] & 0x01;
	r->target_port = load_be16(p + 18);
	if (scsi_find_port(t->nexus->target, r->target_port) < 0)
		return scsi_bad_list(t, 18);
	if (!decode_ports(r, p + 24, len - 24, 1) || r->n_ports != 1)
		return scsi_bad_list(t, 24);
	*ok = true;
	return SCSI_DONE;
}

static enum scsi_step decode(struct scsi_task *t, struct request *r, bool *ok)
{
	r->action = t->cdb[1] & 0x1f;
	r->type = t->cdb[2] & 0x0f;
	*ok = false;
	if (t->transfer < 24 || t->transfer != load_be32(t->cdb + 5))
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	if ((r->action == RESERVE || r->action == RELEASE || r->action == PREEMPT ||
	     r->action == PREEMPT_AND_ABORT) && (t->cdb[2] & 0xf0 || !type_known(r->type)))
		return scsi_bad_cdb(t, 2, 7);
	r->key = load_be64(t->buf);
	r->new_key = load_be64(t->buf + 8);
	return r->action == REGISTER_AND_MOVE ? decode_move(t, r, ok) : decode_basic(t, r, ok);
}

/* ---- PERSISTENT RESERVE OUT: what it makes of the copy ---- */

/* Take registrant @i off; a reservation that it held alone ends. */
static void drop(struct scsi_pr *pr, int i)
{
	if (pr->type && ((!all_hold(pr->type) && pr->holder == i) || pr->n == 1))
		pr->type = 0;
	if (pr->holder > i)
		pr->holder--;
	else if (pr->holder == i)
		pr->holder = 0;		/* it means nothing any more */
	pr->n--;
	memmove(&pr->reg[i], &pr->reg[i + 1], (size_t)(pr->n - i) * sizeof(pr->reg[0]));
}

static bool add(struct scsi_pr *pr, const struct scsi_port *port, uint16_t target_port, uint64_t key)
{
	if (pr->n == SCSI_MAX_REGISTRANTS)
		return false;
	pr->reg[pr->n++] = (struct scsi_registrant) {
		.key = key, .target_port = target_port, .port = *port,
	};
	return true;
}

static enum scsi_step no_room(struct scsi_task *t)
{
	return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_NO_REGISTRATION_RESOURCES);
}

/* All that SPEC_I_PT names besides this nexus, or none of it (5.13.7) */
static enum scsi_step register_others(struct scsi_task *t, struct request *r, uint16_t target_port)
{
	for (unsigned i = 0; i < r->n_ports; i++) {
		if (find(&r->next, &r->ports[i], t->nexus->target_port) >= 0)
			return conflict(t);
		if (!add(&r->next, &r->ports[i], target_port, r->new_key))
			return no_room(t);
	}
	return scsi_good(t);
}

static enum scsi_step do_register(struct scsi_task *t, struct request *r, int me)
{
	struct scsi_pr *next = &r->next;
	uint16_t target_port = r->all_ports ? 0 : t->nexus->target_port;

	if (r->action == REGISTER && (me >= 0 ? next->reg[me].key : 0) != r->key)
		return conflict(t);
	if (r->aptpl && t->unit->state_fd < 0)
		return scsi_bad_list(t, 20);
	if (me >= 0 && r->ports)
		return scsi_bad_list(t, 20);
	if (me < 0 && r->new_key == 0)
		return scsi_good(t);
	next->generation++;
	next->aptpl = r->aptpl;
	if (me >= 0 && r->new_key == 0)
		drop(next, me);
	else if (me >= 0)
		next->reg[me].key = r->new_key;
	else if (!add(next, &t->nexus->port, target_port, r->new_key))
		return no_room(t);
	else if (r->ports)
		return register_others(t, r, target_port);
	return scsi_good(t);
}

static enum scsi_step do_reserve(struct scsi_task *t, struct request *r, int me)
{
	struct scsi_pr *next = &r->next;

	if (next->type)
		return holds(next, me) && next->type == r->type ? scsi_good(t) : conflict(t);
	next->type = r->type;
	next->holder = (uint16_t)me;
	return scsi_good(t);
}

static enum scsi_step do_release(struct scsi_task *t, struct request *r, int me)
{
	if (!holds(&r->next, me))
		return scsi_good(t);
	if (r->next.type != r->type)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_RELEASE);
	r->next.type = 0;
	return scsi_good(t);
}

static enum scsi_step do_clear(struct scsi_task *t, struct request *r)
{
	r->next.type = 0;
	r->next.n = 0;
	r->next.generation++;
	return scsi_good(t);
}

/* 5.13.11.4: registrations with the key go; with the holder's, the reservation changes hands */
static enum scsi_step do_preempt(struct scsi_task *t, struct request *r, int me)
{
	struct scsi_pr *next = &r->next;
	bool all = all_hold(next->type) && r->new_key == 0, found = false, take;

	take = all || (next->type && !all_hold(next->type) &&
		       next->reg[next->holder].key == r->new_key);
	if (r->new_key == 0 && !all)
		return scsi_bad_list(t, 8);
	for (int i = next->n - 1; i >= 0; i--) {
		if (!all && next->reg[i].key != r->new_key)
			continue;
		found = true;
		if (i == me)
			continue;	/* its own stays */
		drop(next, i);
		me -= i < me;
	}
	if (!found)
		return conflict(t);
	if (take) {
		next->type = r->type;
		next->holder = (uint16_t)me;
	}
	next->generation++;
	return scsi_good(t);
}

static enum scsi_step do_move(struct scsi_task *t, struct request *r, int me)
{
	struct scsi_pr *next = &r->next;
	int to = find(next, &r->ports[0], r->target_port);

	/* 5.13.8: a reservation of one holder, and that is us */
	if (!next->type || all_hold(next->type) || !holds(next, me))
		return conflict(t);
	if (r->new_key == 0)
		return scsi_bad_list(t, 8);
	if (to == me)
		return scsi_bad_list(t, 24);
	if (r->aptpl && t->unit->state_fd < 0)
		return scsi_bad_list(t, 17);
	if (to < 0 && !add(next, &r->ports[0], r->target_port, r->new_key))
		return no_room(t);
	to = to < 0 ? next->n - 1 : to;
	next->reg[to].key = r->new_key;
	next->holder = (uint16_t)to;
	next->aptpl = r->aptpl;
	if (r->unregister)
		drop(next, me);
	next->generation++;
	return scsi_good(t);
}

static enum scsi_step change(struct scsi_task *t, struct request *r)
{
	int me = find_nexus(&r->next, t->nexus);

	if (t->nexus->port.len == 0)
		return no_room(t);
	if (r->action == REGISTER || r->action == REGISTER_AND_IGNORE)
		return do_register(t, r, me);
	/* everything else is for registrants that know their key */
	if (me < 0 || r->next.reg[me].key != r->key)
		return conflict(t);
	switch (r->action) {
	case RESERVE:
		return do_reserve(t, r, me);
	case RELEASE:
		return do_release(t, r, me);
	case CLEAR:
		return do_clear(t, r);
	case REGISTER_AND_MOVE:
		return do_move(t, r, me);
	default:
		return do_preempt(t, r, me);
	}
}

/* ---- PERSISTENT RESERVE OUT: in force ---- */

/* What a nexus that was registered has to be told (5.13.5 to 5.13.11). */
static uint16_t attention_for(const struct scsi_pr *was, const struct scsi_pr *now,
			      enum action action, bool still)
{
	if (!still)
		return action == CLEAR ? SCSI_ASC_RESERVATIONS_PREEMPTED :
					 SCSI_ASC_REGISTRATIONS_PREEMPTED;
	if (!was->type || action == RESERVE || action == REGISTER_AND_MOVE)
		return 0;
	if (action == PREEMPT || action == PREEMPT_AND_ABORT)
		return now->type != was->type ? SCSI_ASC_RESERVATIONS_RELEASED : 0;
	/* released, or its holder unregistered: who was let in by registering is told */
	return !now->type && registrants_too(was->type) ? SCSI_ASC_RESERVATIONS_RELEASED : 0;
}

static void tell_others(struct scsi_unit *u, const struct scsi_nexus *by, const struct request *r)
{
	struct scsi_nexus *n;

	LIST_FOREACH(n, &u->target->nexuses, link) {
		uint16_t asc;

		if (n == by || find_nexus(&u->pr, n) < 0)
			continue;
		asc = attention_for(&u->pr, &r->next, r->action, find_nexus(&r->next, n) >= 0);
		if (asc)
			scsi_attention_add(n, u->lun, asc);
	}
}

/* Mark the commands of those who lost their registration; are there any? */
static bool mark_preempted(struct scsi_task *me, const struct request *r)
{
	struct scsi_task *t;
	bool any = false;

	TAILQ_FOREACH(t, &me->unit->tasks, link) {
		t->preempted = t != me && t->nexus != me->nexus &&
			       find_nexus(&me->unit->pr, t->nexus) >= 0 &&
			       find_nexus(&r->next, t->nexus) < 0;
		any |= t->preempted;
	}
	return any;
}

static void take_over(struct scsi_task *t, struct request *r)
{
	struct scsi_unit *u = t->unit;

	tell_others(u, t->nexus, r);
	scsi_pr_clear(&u->pr);
	u->pr = r->next;
	r->next = (struct scsi_pr) { .reg = NULL };
}

enum {
	LIST = SCSI_STATE_START + 1,
	TURN,			/* waits for another one */
	SAVED,
	ABORTED,		/* waits for what it aborts */
};

/* On a worker */
static int save(struct vdisk_request *req)
{
	struct scsi_task *t = scsi_task_of(req);
	const struct request *r = t->priv;

	return scsi_pr_save(t->unit, &r->next);
}

static struct scsi_task *find_waiting(struct scsi_unit *u)
{
	struct scsi_task *t;

	TAILQ_FOREACH(t, &u->tasks, link)
		if (t->parked == SCSI_PARKED_HANDLER && t->op->run == scsi_pr_out &&
		    t->state == TURN && !t->aborted)
			return t;
	return NULL;
}

/* The unit is free for the next one; for those behind it, too, if that one fails at once. */
static void next_turn(struct scsi_unit *u)
{
	struct scsi_task *t;

	while (!u->pr_task && !u->pr_aborting && (t = find_waiting(u)))
		scsi_resume(t);
}

static void pr_out_end(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	struct request *r = t->priv;

	/* aborted while it was being saved: what the file says counts */
	if (t->state == SAVED && t->in_io && t->io.result == 0)
		take_over(t, r);
	request_free(r);
	t->priv = NULL;
	u->pr_task = NULL;
	next_turn(u);
}

static void preempted_ended(struct scsi_tmf *tmf)
{
	struct scsi_unit *u = container_of(tmf, struct scsi_unit, pr_tmf);

	u->pr_aborting = false;
	if (!u->pr_task)
		next_turn(u);
	else if (u->pr_task->parked == SCSI_PARKED_HANDLER)
		scsi_resume(u->pr_task);
}

static enum scsi_step in_force(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	struct request *r = t->priv;
	bool abort = r->action == PREEMPT_AND_ABORT && mark_preempted(t, r);

	t->state = ABORTED;
	take_over(t, r);
	if (!abort)
		return scsi_good(t);
	u->pr_aborting = true;
	u->pr_tmf = (struct scsi_tmf) {
		.function = SCSI_ABORT_PREEMPTED, .nexus = t->nexus, .unit = u,
		.done = preempted_ended,
	};
	scsi_tmf_start(&u->pr_tmf);
	return u->pr_aborting ? scsi_wait(t, ABORTED) : scsi_good(t);
}

static bool copy_registrations(struct scsi_pr *out, const struct scsi_pr *pr)
{
	*out = *pr;
	out->reg = calloc(SCSI_MAX_REGISTRANTS, sizeof(*out->reg));
	if (out->reg && pr->n)
		memcpy(out->reg, pr->reg, pr->n * sizeof(*pr->reg));
	return out->reg;
}

static enum scsi_step begin(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	struct request *r = calloc(1, sizeof(*r));
	enum scsi_step step;
	bool ok;

	if (!r || !copy_registrations(&r->next, &u->pr)) {
		request_free(r);
		return no_room(t);
	}
	t->status = SCSI_GOOD;
	step = decode(t, r, &ok);
	if (ok)
		step = change(t, r);
	if (t->status != SCSI_GOOD) {
		request_free(r);
		return step;
	}
	u->pr_task = t;
	t->priv = r;
	t->at_end = pr_out_end;
	if (u->state_fd < 0 || (!u->pr.aptpl && !r->next.aptpl))
		return in_force(t);
	t->io.result = -ECANCELED;
	return scsi_start_call(t, save, SAVED);
}

enum scsi_step scsi_pr_out(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	uint32_t len = load_be32(t->cdb + 5);

	switch (t->state) {
	case SCSI_STATE_START:
		if (other_kind(t))
			return SCSI_DONE;
		if (len < 24 || len > SCSI_SEGMENT)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
		return scsi_want_list(t, len, LIST);
	case LIST:
	case TURN:
		return u->pr_task || u->pr_aborting ? scsi_wait(t, TURN) : begin(t);
	case SAVED:
		if (t->io.result < 0)
			return scsi_check(t, SCSI_HARDWARE_ERROR, SCSI_ASC_INTERNAL_FAILURE);
		return in_force(t);
	default:
		return scsi_good(t);
	}
}
