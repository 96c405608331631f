/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* session.c - the server's targets and sessions */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "target/iscsi/server.h"
#include "target/log.h"

/* ---- server ---- */

static void disk_done(struct reactor_client *client UNUSED, struct vdisk_request *req)
{
	struct scsi_task *scsi = container_of(req, struct scsi_task, io);

	iscsi_task_io_done(container_of(scsi, struct iscsi_task, scsi));
}

static void background_done(struct reactor_client *client UNUSED, struct vdisk_request *req)
{
	scsi_background_done(req);
}

static void background_submit(struct scsi_target *target, struct vdisk_request *req)
{
	struct iscsi_server *s = target->owner;

	req->user = &s->background;
	reactor_submit(s->reactor, req);
}

static const struct scsi_target_ops target_ops = { .submit = background_submit };

void iscsi_server_init(struct iscsi_server *s, struct reactor *reactor)
{
	*s = (struct iscsi_server) {
		.reactor = reactor,
		.limits = {
			.sessions = 1024, .pending_logins = 512, .login_timeout = 15,
			.nop_interval = 15, .nop_timeout = 15,
		},
		.disk.done = disk_done,
		.background.done = background_done,
		.tasks.size = sizeof(struct iscsi_task),
		.outs.size = sizeof(struct iscsi_out),
		.tmfs.size = sizeof(struct iscsi_tmf),
	};
	LIST_INIT(&s->targets);
	LIST_INIT(&s->sessions);
	LIST_INIT(&s->conns);
	LIST_INIT(&s->portals);
}

void iscsi_server_fini(struct iscsi_server *s)
{
	struct iscsi_target *t;

	assert(s->n_conns == 0 && s->tasks.live == 0 && s->outs.live == 0 && s->tmfs.live == 0);
	iscsi_portals_close(s);
	while ((t = LIST_FIRST(&s->targets)))
		iscsi_target_free(t);
	iscsi_throttle_free(s->throttle);
	iscsi_access_clear(&s->discovery);
	slab_clear(&s->tasks);
	slab_clear(&s->outs);
	slab_clear(&s->tmfs);
}

struct iscsi_target *iscsi_server_add_target(struct iscsi_server *s, struct scsi_target *scsi)
{
	struct iscsi_target *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->server = s;
	t->scsi = scsi;
	scsi->ops = &target_ops;
	scsi->owner = s;
	LIST_INSERT_HEAD(&s->targets, t, link);
	return t;
}

void iscsi_target_leave(struct iscsi_target *t)
{
	struct iscsi_conn *c, *next;

	t->leaving = true;
	for (c = LIST_FIRST(&t->server->conns); c; c = next) {
		next = LIST_NEXT(c, link);
		if (c->login.target != t || c->closed)
			continue;
		if (c->state == ISCSI_LOGGED_IN)
			iscsi_async_logout(c);
		else if (c->state == ISCSI_IN_LOGIN)
			iscsi_conn_close(c, "the target is taken away");
	}
}

bool iscsi_target_idle(const struct iscsi_target *t)
{
	const struct iscsi_conn *c;

	LIST_FOREACH(c, &t->server->conns, link)
		if (c->login.target == t)
			return false;
	return true;
}

void iscsi_target_free(struct iscsi_target *t)
{
	LIST_REMOVE(t, link);
	iscsi_access_clear(&t->access);
	free(t->alias);
	free(t);
}

/* 4.2.7.1: names compare without regard to case */
struct iscsi_target *iscsi_target_find(struct iscsi_server *s, const char *name)
{
	struct iscsi_target *t;

	LIST_FOREACH(t, &s->targets, link)
		if (!t->leaving && !strcasecmp(t->scsi->name, name))
			return t;
	return NULL;
}

void iscsi_server_stop(struct iscsi_server *s)
{
	struct iscsi_conn *c, *next;

	s->stopping = true;
	iscsi_portals_close(s);
	for (c = LIST_FIRST(&s->conns); c; c = next) {
		next = LIST_NEXT(c, link);
		if (c->closed)
			continue;
		if (c->state == ISCSI_LOGGED_IN)
			iscsi_async_logout(c);
		else if (c->state != ISCSI_IN_LOGOUT)
			iscsi_conn_close(c, "shutting down");
	}
}

void iscsi_server_drop(struct iscsi_server *s)
{
	struct iscsi_conn *c, *next;

	for (c = LIST_FIRST(&s->conns); c; c = next) {
		next = LIST_NEXT(c, link);
		iscsi_conn_close(c, "shutting down");
	}
}

/* ---- admission, again ---- */

bool iscsi_admitted(const struct iscsi_conn *c, const struct iscsi_target *t,
		    const char *initiator, const char *user)
{
	const struct iscsi_access *a = t ? &t->access : &c->server->discovery;

	if (t && (t->leaving || t->access.redirect || !iscsi_access_group(a, c->group)))
		return false;
	if (!iscsi_access_admits(a, c->peer_address, initiator))
		return false;
	return !a->auth.n_users || (user && iscsi_auth_user(&a->auth, user));
}

void iscsi_server_readmit(struct iscsi_server *server)
{
	struct iscsi_session *s, *next;

	for (s = LIST_FIRST(&server->sessions); s; s = next) {
		next = LIST_NEXT(s, link);
		if (s->conn->closed || s->conn->state != ISCSI_LOGGED_IN)
			continue;
		if (!iscsi_admitted(s->conn, s->target, s->initiator, s->user)) {
			log_info("%s: is not admitted any more", s->conn->peer);
			iscsi_async_logout(s->conn);
		} else if (s->target) {
			scsi_nexus_set_view(&s->nexus, iscsi_access_view(&s->target->access,
									 s->initiator));
		}
	}
}

/* ---- sessions ---- */

/* RFC 7143, 8.3.3 and 8.3.4 */
static const struct transition {
	enum iscsi_session_state from;
	enum iscsi_session_event event;
	enum iscsi_session_state to;
	const char *name;
} transitions[] = {
	{ ISCSI_SESSION_FREE, ISCSI_SESSION_EV_LOGIN, ISCSI_SESSION_ACTIVE, "N1" },
	{ ISCSI_SESSION_ACTIVE, ISCSI_SESSION_EV_LOGIN_DONE, ISCSI_SESSION_LOGGED_IN, "N2" },
	{ ISCSI_SESSION_ACTIVE, ISCSI_SESSION_EV_LOGIN_FAILED, ISCSI_SESSION_FREE, "N9" },
	{ ISCSI_SESSION_LOGGED_IN, ISCSI_SESSION_EV_CLOSED, ISCSI_SESSION_FREE, "N3" },
	{ ISCSI_SESSION_LOGGED_IN, ISCSI_SESSION_EV_FAILED, ISCSI_SESSION_FAILED, "N5" },
	{ ISCSI_SESSION_FAILED, ISCSI_SESSION_EV_CLEARED, ISCSI_SESSION_FREE, "N6" },
};

static const char *session_state_name(enum iscsi_session_state state)
{
	static const char *const names[] = {
		[ISCSI_SESSION_FREE] = "FREE",
		[ISCSI_SESSION_ACTIVE] = "ACTIVE",
		[ISCSI_SESSION_LOGGED_IN] = "LOGGED_IN",
		[ISCSI_SESSION_FAILED] = "FAILED",
	};

	return names[state];
}

void iscsi_session_event(struct iscsi_session *s, enum iscsi_session_event event)
{
	for (unsigned i = 0; i < ARRAY_SIZE(transitions); i++) {
		const struct transition *t = &transitions[i];

		if (t->from != s->state || t->event != event)
			continue;
		log_debug("%s: session %u: %s: %s -> %s", s->conn->peer, s->tsih, t->name,
			  session_state_name(t->from), session_state_name(t->to));
		s->state = t->to;
		return;
	}
	assert(false && "an event that this state does not know");
}

struct iscsi_session *iscsi_session_find(struct iscsi_server *server, const char *initiator,
					 const uint8_t isid[6], const struct iscsi_target *target,
					 uint16_t group)
{
	struct iscsi_session *s;

	LIST_FOREACH(s, &server->sessions, link)
		if (s->target == target && s->group == group &&
		    !memcmp(s->isid, isid, sizeof(s->isid)) && !strcasecmp(s->initiator, initiator))
			return s;
	return NULL;
}

struct iscsi_session *iscsi_session_by_tsih(struct iscsi_server *server, uint16_t tsih)
{
	struct iscsi_session *s;

	LIST_FOREACH(s, &server->sessions, link)
		if (s->tsih == tsih)
			return s;
	return NULL;
}

static uint16_t new_tsih(struct iscsi_server *server)
{
	do
		server->last_tsih++;
	while (server->last_tsih == 0 || iscsi_session_by_tsih(server, server->last_tsih));
	return server->last_tsih;
}

/* 3.1: the initiator port is the name with the ISID; the target port is the portal group */
static void nexus_init(struct iscsi_session *s)
{
	char text[ISCSI_NAME_MAX + 32];
	const struct scsi_view *view = iscsi_access_view(&s->target->access, s->initiator);
	struct scsi_port port;
	const uint8_t *i = s->isid;

	snprintf(text, sizeof(text), "%s,i,0x%02x%02x%02x%02x%02x%02x", s->initiator,
		 i[0], i[1], i[2], i[3], i[4], i[5]);
	scsi_nexus_init(&s->nexus, s->target->scsi, &iscsi_nexus_ops,
			scsi_port_iscsi(&port, text) == 0 ? &port : NULL, s->group);
	s->nexus.view = view ? *view : (struct scsi_view) { 0 };
}

struct iscsi_session *iscsi_session_new(struct iscsi_conn *c)
{
	struct iscsi_server *server = c->server;
	struct iscsi_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->server = server;
	s->conn = c;
	s->target = c->login.target;
	s->group = c->group;
	s->tsih = new_tsih(server);
	iscsi_session_event(s, ISCSI_SESSION_EV_LOGIN);
	s->user = STEAL(c->login.auth.user);
	memcpy(s->isid, c->login.isid, sizeof(s->isid));
	memcpy(s->initiator, c->params.initiator_name, sizeof(s->initiator));
	s->exp_cmd_sn = c->login.init_cmd_sn;
	TAILQ_INIT(&s->tasks);
	if (s->target)
		nexus_init(s);
	LIST_INSERT_HEAD(&server->sessions, s, link);
	server->n_sessions++;
	return s;
}

void iscsi_session_free(struct iscsi_session *s)
{
	if (!s)
		return;
	assert(TAILQ_EMPTY(&s->tasks) && s->state == ISCSI_SESSION_FREE);
	if (s->target)
		scsi_nexus_fini(&s->nexus);
	LIST_REMOVE(s, link);
	s->server->n_sessions--;
	free(s->user);
	free(s);
}

enum iscsi_cmd_sn iscsi_session_cmd_sn(struct iscsi_session *s, const struct iscsi_request *r)
{
	uint32_t max = s->exp_cmd_sn + ISCSI_WINDOW - s->open_commands - 1;

	if (r->immediate)
		return ISCSI_CMD_OK;
	if (iscsi_sn_lt(r->cmd_sn, s->exp_cmd_sn) || iscsi_sn_lt(max, r->cmd_sn))
		return ISCSI_CMD_IGNORE;
	/* a gap on the session's only connection can never be filled */
	if (r->cmd_sn != s->exp_cmd_sn)
		return ISCSI_CMD_BROKEN;
	s->exp_cmd_sn++;
	return ISCSI_CMD_OK;
}

static void all_aborted(struct scsi_tmf *scsi)
{
	struct iscsi_session *s = container_of(scsi, struct iscsi_session, ending);

	s->is_ending = false;
	s->ended(s);
}

/* The first again each time: the end of one may be the end of others that waited for it. */
static struct iscsi_task *find_idle(const struct iscsi_session *s)
{
	struct iscsi_task *t;

	TAILQ_FOREACH(t, &s->tasks, link)
		if (!t->io_pending && !t->sending)
			return t;
	return NULL;
}

void iscsi_session_abort_all(struct iscsi_session *s, void (*done)(struct iscsi_session *s))
{
	struct iscsi_task *t;

	s->ended = done;
	if (s->is_ending)
		return;
	s->is_ending = true;
	/* those that wait for data, or to be answered; the others through the nexus */
	while ((t = find_idle(s)))
		iscsi_nexus_ops.abort(&t->scsi);
	s->ending = (struct scsi_tmf) {
		.function = SCSI_NEXUS_LOSS, .nexus = &s->nexus, .done = all_aborted,
	};
	if (s->target)
		scsi_tmf_start(&s->ending);
	else
		all_aborted(&s->ending);
}
