/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iscsi_session.c - a connection to a target, kept up
 *
 * One thread for each session owns libiscsi's context; nobody else touches it.
 * Others put commands into ->submitted and write an eventfd.  A turn of the
 * thread takes all that was submitted, queues it, lets libiscsi send and
 * receive, and sleeps in one poll().
 *
 * libiscsi could reconnect by itself.  We do it instead, because then it is we
 * who decide when to give up, who look whether the LUN is still the same one,
 * and who send again what was in flight:
 *
 *   DOWN -> CONNECTING -> LOGIN -> ASKING -> READY
 *     ^__________|__________|________|________|   broken: all commands that were
 *						  sent wait again
 *
 * Invariants
 *   1. A command is done once: by complete(), on the session's thread.
 *   2. A command's buffers are touched by nobody once it is done: before one
 *      that is out is given up, the connection that has it is closed.
 *   3. All connections of a session have the same name and ISID, so the target
 *      ends what is left of the old one before it lets the new one in (RFC
 *      7143, 6.3.5): no old write arrives after a newer one.
 *   4. A LUN that answers as another one than at first is never used.
 *
 * libiscsi is loaded when it is needed (libiscsi.so.7, which is what the header
 * here describes), into this process's own namespace.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "core/late.h"
#include "source/iscsi.h"

#define SONAME		"libiscsi.so.7"
#define IN_FLIGHT_MAX	128u
#define ADDRESSES_MAX	8u
#define LOGIN_MS	15000	/* for connecting and logging in, together */
#define QUIET_MS	10000	/* nothing was heard for so long: ask ... */
#define DEAF_MS		15000	/* ... and wait for an answer */
#define LOGOUT_MS	2000
#define RETRY_MIN_MS	100
#define RETRY_MAX_MS	3000
#define TRIES_MAX	20u	/* of a command that the target wants sent again */
#define REDIRECTS_MAX	4u
#define LOGIN_TEXT_MAX	65536u	/* of a target's answer while we log in; 8 KiB are usual */

/* ---- the library ---- */

static struct {
	__typeof__(iscsi_create_context) *create_context;
	__typeof__(iscsi_destroy_context) *destroy_context;
	__typeof__(iscsi_set_noautoreconnect) *set_noautoreconnect;
	__typeof__(iscsi_set_isid_random) *set_isid_random;
	__typeof__(iscsi_set_targetname) *set_targetname;
	__typeof__(iscsi_set_session_type) *set_session_type;
	__typeof__(iscsi_set_header_digest) *set_header_digest;
	__typeof__(iscsi_set_initiator_username_pwd) *set_initiator_username_pwd;
	__typeof__(iscsi_set_target_username_pwd) *set_target_username_pwd;
	__typeof__(iscsi_connect_async) *connect_async;
	__typeof__(iscsi_login_async) *login_async;
	__typeof__(iscsi_logout_async) *logout_async;
	__typeof__(iscsi_nop_out_async) *nop_out_async;
	__typeof__(iscsi_get_target_address) *get_target_address;
	__typeof__(iscsi_get_error) *get_error;
	__typeof__(iscsi_get_fd) *get_fd;
	__typeof__(iscsi_which_events) *which_events;
	__typeof__(iscsi_service) *service;
	__typeof__(iscsi_scsi_command_async) *scsi_command_async;
	__typeof__(scsi_create_task) *create_task;
	__typeof__(scsi_free_scsi_task) *free_scsi_task;
	__typeof__(scsi_task_set_iov_in) *task_set_iov_in;
	__typeof__(scsi_task_set_iov_out) *task_set_iov_out;
} lib;
static struct vdisk_error lib_problem;

static void lib_load(void)
{
#define SYMBOL(name, member) { #name, offsetof(__typeof__(lib), member) }
	static const struct vd_late_symbol symbols[] = {
		SYMBOL(iscsi_create_context, create_context),
		SYMBOL(iscsi_destroy_context, destroy_context),
		SYMBOL(iscsi_set_noautoreconnect, set_noautoreconnect),
		SYMBOL(iscsi_set_isid_random, set_isid_random),
		SYMBOL(iscsi_set_targetname, set_targetname),
		SYMBOL(iscsi_set_session_type, set_session_type),
		SYMBOL(iscsi_set_header_digest, set_header_digest),
		SYMBOL(iscsi_set_initiator_username_pwd, set_initiator_username_pwd),
		SYMBOL(iscsi_set_target_username_pwd, set_target_username_pwd),
		SYMBOL(iscsi_connect_async, connect_async),
		SYMBOL(iscsi_login_async, login_async),
		SYMBOL(iscsi_logout_async, logout_async),
		SYMBOL(iscsi_nop_out_async, nop_out_async),
		SYMBOL(iscsi_get_target_address, get_target_address),
		SYMBOL(iscsi_get_error, get_error),
		SYMBOL(iscsi_get_fd, get_fd),
		SYMBOL(iscsi_which_events, which_events),
		SYMBOL(iscsi_service, service),
		SYMBOL(iscsi_scsi_command_async, scsi_command_async),
		SYMBOL(scsi_create_task, create_task),
		SYMBOL(scsi_free_scsi_task, free_scsi_task),
		SYMBOL(scsi_task_set_iov_in, task_set_iov_in),
		SYMBOL(scsi_task_set_iov_out, task_set_iov_out),
	};
#undef SYMBOL

	vd_late_load(SONAME, symbols, ARRAY_SIZE(symbols), &lib, &lib_problem);
}

/* The same for both, so that buffers need no translation. */
_Static_assert(sizeof(struct scsi_iovec) == sizeof(struct iovec) &&
	       offsetof(struct scsi_iovec, iov_len) == offsetof(struct iovec, iov_len),
	       "libiscsi has its own kind of iovec");

/* ---- the session ---- */

enum state { DOWN, CONNECTING, LOGIN, ASKING, READY };

struct list {
	struct iscsi_command *head, **tail;
};

struct iscsi_session {
	const struct iscsi_address *address;	/* borrowed */
	uint32_t isid;
	uint16_t isid_qualifier;
	char where[ADDRESSES_MAX][NI_MAXHOST + NI_MAXSERV + 4];	/* numeric */
	unsigned n_where, at_where;
	pthread_t thread;
	int efd;		/* owned: something was submitted, or stop */

	pthread_mutex_t lock;	/* guards the rest of this paragraph */
	pthread_cond_t opened;
	struct list submitted;
	bool signalled, stop;
	bool settled;		/* the first connection is there, or cannot be */
	int open_result;
	struct vdisk_error open_error;
	struct iscsi_hooks hooks;

	/* the thread's own */
	struct iscsi_context *context;	/* owned */
	enum state state;
	bool broken;		/* the connection; noticed at the next turn */
	bool ever;		/* it was READY once */
	bool pinged, redirected;
	char why[300];		/* it broke, or cannot be made */
	int why_code;
	int64_t next_try, began, heard, ping_sent;
	unsigned retry_ms, redirects;
	bool answered;			/* a command, since it is connected */
	enum iscsi_proof proof;		/* of a target that has to prove itself */
	struct list waiting;
	struct iscsi_command *sent;	/* doubly linked */
	unsigned n_sent;
	int dead;		/* -errno: nothing will work any more */
	int64_t looked;		/* when for overdue commands */

	struct iscsi_command check[ISCSI_QUESTIONS_MAX];
	int check_result[ISCSI_QUESTIONS_MAX];
	unsigned n_checks, checks_left;
	bool logged_out;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void list_init(struct list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_add(struct list *l, struct iscsi_command *c)
{
	c->next = NULL;
	*l->tail = c;
	l->tail = &c->next;
}

static void list_move(struct list *to, struct list *from)
{
	if (!from->head)
		return;
	*to->tail = from->head;
	to->tail = from->tail;
	list_init(from);
}

static void sent_add(struct iscsi_session *s, struct iscsi_command *c)
{
	c->prev_sent = NULL;
	c->next_sent = s->sent;
	if (s->sent)
		s->sent->prev_sent = c;
	s->sent = c;
	s->n_sent++;
}

static void sent_remove(struct iscsi_session *s, struct iscsi_command *c)
{
	if (c->prev_sent)
		c->prev_sent->next_sent = c->next_sent;
	else
		s->sent = c->next_sent;
	if (c->next_sent)
		c->next_sent->prev_sent = c->prev_sent;
	s->n_sent--;
}

/* Invariant 1: the one way out. */
static void complete(struct iscsi_session *s, struct iscsi_command *c, int result)
{
	if (!c->is_check) {
		c->done(c, result);
		return;
	}
	s->check_result[c - s->check] = result;
	s->checks_left--;
}

/* The connection is of no use; the turn's end closes it. */
static void broken(struct iscsi_session *s, int code, const char *why)
{
	if (s->broken)
		return;
	s->broken = true;
	s->why_code = code;
	snprintf(s->why, sizeof(s->why), "%s", why);
	s->why[strcspn(s->why, "\n")] = '\0';
}

/* ---- commands ---- */

static bool sense_of(struct iscsi_sense *out, const struct scsi_task *t)
{
	/* libiscsi leaves the segment as it came: a length, and the sense */
	if (t->datain.size <= 2 || !t->datain.data)
		return false;
	return iscsi_decode_sense(out, t->datain.data + 2,
				  MIN((size_t)t->datain.size - 2, (size_t)load_be16(t->datain.data)));
}

static void take_data(struct iscsi_command *c, const struct scsi_task *t)
{
	c->got = t->datain.size > 0 && t->datain.data ? MIN((uint32_t)t->datain.size, c->length) : 0;
	if (c->got)
		memcpy(c->buf, t->datain.data, c->got);
}

static struct iscsi_verdict judge(struct iscsi_command *c, const struct scsi_task *t, int status)
{
	struct iscsi_sense sense = { 0 };
	bool has = status == SCSI_STATUS_CHECK_CONDITION && sense_of(&sense, t);
	struct iscsi_verdict v = iscsi_judge((unsigned)status, has ? &sense : NULL);

	if (v.again || v.result < 0)
		return v;
	if (c->buf)
		take_data(c, t);
	/* less than all of a block is nothing */
	else if (c->exact && t->residual_status != SCSI_RESIDUAL_NO_RESIDUAL && t->residual)
		v.result = -EIO;
	return v;
}

static void again(struct iscsi_session *s, struct iscsi_command *c, unsigned delay_ms)
{
	c->not_before = delay_ms ? now_ms() + delay_ms : 0;
	list_add(&s->waiting, c);
}

static void on_answer(struct iscsi_context *context, int status, void *data, void *arg)
{
	struct iscsi_command *c = arg;
	struct iscsi_session *s = c->session;
	struct scsi_task *t = STEAL(c->task);
	struct iscsi_verdict v;

	(void)data;
	sent_remove(s, c);
	if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR ||
	    status == SCSI_STATUS_TIMEOUT) {
		/* what it asks of a LUN that is no longer reached is void */
		lib.free_scsi_task(t);
		broken(s, ECONNRESET, lib.get_error(context));
		if (c->is_check)
			complete(s, c, -ECONNRESET);
		else
			again(s, c, 0);
		return;
	}
	s->answered = true;
	s->retry_ms = 0;
	v = judge(c, t, status);
	lib.free_scsi_task(t);
	if (v.attention && s->hooks.attention)
		s->hooks.attention(s->hooks.arg, v.attention);
	if (v.again && (v.patient || ++c->tries < TRIES_MAX))
		again(s, c, v.delay_ms);
	else
		complete(s, c, v.again ? -EIO : v.result);
}

/* False: no memory. */
static bool send_one(struct iscsi_session *s, struct iscsi_command *c)
{
	static const int direction[] = {
		[ISCSI_NONE] = SCSI_XFER_NONE, [ISCSI_READ] = SCSI_XFER_READ,
		[ISCSI_WRITE] = SCSI_XFER_WRITE,
	};
	struct scsi_task *t = lib.create_task(c->cdb_len, c->cdb, direction[c->direction],
					      (int)c->length);

	if (!t)
		return false;
	if (c->iov && c->direction == ISCSI_READ)
		lib.task_set_iov_in(t, (struct scsi_iovec *)(void *)c->iov, (int)c->iovcnt);
	else if (c->iov)
		lib.task_set_iov_out(t, (struct scsi_iovec *)(void *)c->iov, (int)c->iovcnt);
	c->task = t;
	c->session = s;
	sent_add(s, c);
	if (lib.scsi_command_async(s->context, (int)s->address->lun, t, on_answer, NULL, c) == 0)
		return true;
	sent_remove(s, c);
	c->task = NULL;
	lib.free_scsi_task(t);
	return false;
}

/* Send what may be sent now; returns how long until the next of the others may be. */
static int send_waiting(struct iscsi_session *s, int64_t now, bool checks_only)
{
	struct list left;
	int64_t wait = INT32_MAX;
	bool full = false;

	list_init(&left);
	for (struct iscsi_command *c = s->waiting.head, *next; c; c = next) {
		next = c->next;
		if (!full && (c->is_check || !checks_only) && c->not_before <= now &&
		    s->n_sent < IN_FLIGHT_MAX) {
			if (send_one(s, c))
				continue;
			full = true;	/* of memory: try again soon */
			c->not_before = now + RETRY_MIN_MS;
		}
		if ((c->is_check || !checks_only) && c->not_before > now)
			wait = MIN(wait, c->not_before - now);
		list_add(&left, c);
	}
	s->waiting = left;
	if (!left.head)
		list_init(&s->waiting);
	return (int)wait;
}

/* ---- connecting ---- */

static void retry_later(struct iscsi_session *s, int64_t now)
{
	s->retry_ms = s->retry_ms ? MIN(2 * s->retry_ms, (unsigned)RETRY_MAX_MS) : RETRY_MIN_MS;
	s->next_try = now + s->retry_ms;
	s->at_where = (s->at_where + 1) % s->n_where;
}

/* Close the connection; what was sent is not, any more. */
static void go_down(struct iscsi_session *s, int64_t now)
{
	enum state was = s->state;

	s->state = DOWN;
	s->broken = true;	/* what the callbacks would say is known */
	if (s->context)
		lib.destroy_context(STEAL(s->context));
	/* checks that were to be sent again would meet a new connection */
	for (struct iscsi_command **at = &s->waiting.head; *at; ) {
		if ((*at)->is_check)
			*at = (*at)->next;
		else
			at = &(*at)->next;
	}
	s->waiting.tail = &s->waiting.head;
	while (*s->waiting.tail)
		s->waiting.tail = &(*s->waiting.tail)->next;
	s->broken = false;
	s->pinged = false;
	s->n_checks = s->checks_left = 0;
	/* at once, the first time; but not for a target that only ever lets us in */
	if (was == READY && s->answered)
		s->next_try = now, s->retry_ms = 0;
	else
		retry_later(s, now);
}

static void settle(struct iscsi_session *s, int result)
{
	pthread_mutex_lock(&s->lock);
	s->settled = true;
	s->open_result = result < 0 ? vd_fail(&s->open_error, -result, "%s: %s", s->address->name,
					      s->why) : 0;
	pthread_cond_signal(&s->opened);
	pthread_mutex_unlock(&s->lock);
}

/* The number in "... Status: Authentication Failure(513)": login class and detail. */
static int login_error(const char *text)
{
	const char *at = strrchr(text, '(');
	int code = at ? (int)strtol(at + 1, NULL, 10) : 0;

	switch (code) {
	case 0x0201:	/* authentication failure */
	case 0x0202:	/* authorization failure */
		return EACCES;
	case 0x0203:	/* not found */
		return ENOENT;
	case 0x0204:	/* removed */
		return ENODEV;
	}
	if (strcasestr(text, "authenticat") || strcasestr(text, "CHAP"))
		return EACCES;
	return EPROTO;
}

static void set_ready(struct iscsi_session *s)
{
	s->state = READY;
	if (!s->ever) {
		s->ever = true;
		settle(s, 0);
	}
}

static void ask(struct iscsi_session *s)
{
	s->state = ASKING;
	pthread_mutex_lock(&s->lock);
	memset(s->check, 0, sizeof(s->check));
	s->n_checks = s->hooks.questions ?
		s->hooks.questions(s->hooks.arg, s->check, ARRAY_SIZE(s->check)) : 0;
	pthread_mutex_unlock(&s->lock);
	s->checks_left = s->n_checks;
	for (unsigned i = 0; i < s->n_checks; i++) {
		s->check[i].is_check = true;
		s->check[i].since = now_ms();
		list_add(&s->waiting, &s->check[i]);
	}
}

static void answered(struct iscsi_session *s)
{
	int r = s->n_checks ? s->hooks.answers(s->hooks.arg, s->check, s->check_result, s->n_checks) : 0;

	if (r == 0) {
		set_ready(s);
	} else if (r == -ESTALE) {	/* invariant 4 */
		s->dead = r;
		broken(s, -r, "it is another LUN now");
	} else {
		broken(s, -r, "the LUN is not there");
	}
}

static const char not_proved[] = "the target does not prove itself";

static void on_login(struct iscsi_context *context, int status, void *data, void *arg)
{
	struct iscsi_session *s = arg;
	const char *text = lib.get_error(context);

	(void)data;
	if (status == SCSI_STATUS_REDIRECT && lib.get_target_address(context)) {
		/* "address:port" or "address:port,group" */
		snprintf(s->where[s->at_where], sizeof(s->where[0]), "%s",
			 lib.get_target_address(context));
		s->where[s->at_where][strcspn(s->where[s->at_where], ",")] = '\0';
		s->redirected = ++s->redirects < REDIRECTS_MAX;
		broken(s, ELOOP, "it sends us elsewhere, again and again");
	} else if (status != SCSI_STATUS_GOOD) {
		if (status == SCSI_STATUS_CANCELLED)
			text = "the target closed the connection during login";
		broken(s, status == SCSI_STATUS_CANCELLED ? ECONNRESET : login_error(text), text);
	} else if (s->address->their_user && s->proof != ISCSI_PROOF_DONE) {
		broken(s, EACCES, not_proved);
	} else {
		s->heard = now_ms();
		ask(s);
	}
}

/* "iscsi_service: socket error Connection refused(111) while ...": what matters of it. */
static const char *socket_error(const char *text)
{
	static const char before[] = "socket error ";
	const char *at = strstr(text, before);

	return at ? at + strlen(before) : "cannot connect";
}

static void on_connect(struct iscsi_context *context, int status, void *data, void *arg)
{
	struct iscsi_session *s = arg;

	(void)data;
	if (s->state != CONNECTING)
		broken(s, ECONNRESET, "the connection broke");
	else if (status != SCSI_STATUS_GOOD)
		broken(s, ECONNREFUSED, socket_error(lib.get_error(context)));
	else if (lib.login_async(context, on_login, s) != 0)
		broken(s, EPROTO, lib.get_error(context));
	else
		s->state = LOGIN;
}

static void connect_now(struct iscsi_session *s, int64_t now)
{
	const struct iscsi_address *a = s->address;
	struct iscsi_context *c = lib.create_context(a->initiator);
	int r = c ? 0 : -1;

	s->context = c;
	s->state = CONNECTING;
	s->answered = false;
	s->proof = ISCSI_PROOF_METHOD;
	s->began = now;
	s->redirected = false;
	if (!r) {
		lib.set_noautoreconnect(c, 1);
		r = lib.set_isid_random(c, s->isid, s->isid_qualifier);	/* invariant 3 */
	}
	if (!r)
		r = lib.set_targetname(c, a->target);
	if (!r)
		r = lib.set_session_type(c, ISCSI_SESSION_NORMAL);
	if (!r)
		r = lib.set_header_digest(c, a->header_digest ? ISCSI_HEADER_DIGEST_CRC32C_NONE :
						 ISCSI_HEADER_DIGEST_NONE_CRC32C);
	if (!r && a->user)
		r = lib.set_initiator_username_pwd(c, a->user, a->secret);
	if (!r && a->their_user)
		r = lib.set_target_username_pwd(c, a->their_user, a->their_secret);
	if (!r)
		r = lib.connect_async(c, s->where[s->at_where], on_connect, s);
	if (r)
		broken(s, ECONNREFUSED, c ? lib.get_error(c) : "out of memory");
}

/* ---- a turn ---- */

static void give_up_all(struct iscsi_session *s, int result)
{
	struct list all;

	list_init(&all);
	list_move(&all, &s->waiting);
	for (struct iscsi_command *c = all.head, *next; c; c = next) {
		next = c->next;
		complete(s, c, result);
	}
}

/* Commands that have taken too long: those that wait end, for those that are out we hang up. */
static void give_up_overdue(struct iscsi_session *s, int64_t now)
{
	int64_t limit = (int64_t)s->address->limit_s * 1000;
	struct list left, over;

	list_init(&left);
	list_init(&over);
	for (struct iscsi_command *c = s->waiting.head, *next; c; c = next) {
		next = c->next;
		list_add(now - c->since > limit && !c->is_check ? &over : &left, c);
	}
	list_init(&s->waiting);
	list_move(&s->waiting, &left);
	for (struct iscsi_command *c = over.head, *next; c; c = next) {
		next = c->next;
		complete(s, c, -ETIMEDOUT);
	}
	for (struct iscsi_command *c = s->sent; c; c = c->next_sent)
		if (now - c->since > limit)
			broken(s, ETIMEDOUT, "a command was not answered in time");
}

static void on_pong(struct iscsi_context *context, int status, void *data, void *arg)
{
	struct iscsi_session *s = arg;

	(void)context, (void)data;
	s->pinged = false;
	if (status != SCSI_STATUS_GOOD)
		broken(s, ECONNRESET, "the connection broke");
}

/* Is the other side still there? */
static void listen_for_life(struct iscsi_session *s, int64_t now)
{
	if (s->state == DOWN)
		return;
	if (s->state < READY) {
		if (now - s->began > LOGIN_MS)
			broken(s, ETIMEDOUT, "no answer");
		return;
	}
	if (s->pinged && now - s->ping_sent > DEAF_MS && now - s->heard > DEAF_MS)
		broken(s, ETIMEDOUT, "the target does not answer any more");
	if (s->pinged || now - s->heard < QUIET_MS)
		return;
	if (lib.nop_out_async(s->context, on_pong, NULL, 0, s) == 0) {
		s->pinged = true;
		s->ping_sent = now;
	}
}

static void take_submitted(struct iscsi_session *s)
{
	pthread_mutex_lock(&s->lock);
	list_move(&s->waiting, &s->submitted);
	s->signalled = false;
	pthread_mutex_unlock(&s->lock);
}

/* What it says of the first connection, if that is what broke; else there is another try. */
static void handle_broken(struct iscsi_session *s, int64_t now)
{
	bool redirected = s->redirected && s->state == LOGIN;
	bool last_address = s->at_where + 1 >= s->n_where;

	go_down(s, now);
	if (redirected) {
		s->next_try = now;
		s->at_where = (s->at_where + s->n_where - 1) % s->n_where;
	}
	if (!s->ever && !redirected && (last_address || s->why_code != ECONNREFUSED)) {
		s->dead = -s->why_code;
		settle(s, s->dead);
	}
}

/*
 * Of a target that has to prove itself, libiscsi gets the login's answers one by one, whole,
 * and not before they have been looked at.  false: not now.
 */
static bool may_read(struct iscsi_session *s)
{
	uint8_t pdu[ISCSI_BHS + LOGIN_TEXT_MAX];
	int fd = lib.get_fd(s->context), need = 1;
	ssize_t n = recv(fd, pdu, sizeof(pdu), MSG_PEEK | MSG_DONTWAIT);
	size_t len = n >= (ssize_t)ISCSI_BHS ? iscsi_pdu_length(pdu) : ISCSI_BHS;

	if (n <= 0)
		return true;	/* libiscsi knows what to do about that */
	if (len > sizeof(pdu)) {
		broken(s, EPROTO, "the target's answer to the login is too long");
		return false;
	}
	if ((size_t)n < ISCSI_BHS || (size_t)n < len)
		need = (int)len;
	/* (poll() then waits for that many) */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &need, sizeof(need));
	if (need > 1)
		return false;
	if (iscsi_proof_step(&s->proof, pdu, len) < 0) {
		broken(s, EACCES, not_proved);
		return false;
	}
	return true;
}

static void serve_socket(struct iscsi_session *s, short revents)
{
	if (revents & POLLIN && s->state == LOGIN && s->address->their_user && !may_read(s))
		revents &= (short)~POLLIN;
	/* what came before the end is still good */
	if (revents & (POLLIN | POLLOUT) || s->state == CONNECTING) {
		if (revents & POLLIN)
			s->heard = now_ms();
		if (lib.service(s->context, revents & ~POLLRDHUP) < 0)
			broken(s, s->state == CONNECTING ? ECONNREFUSED : ECONNRESET,
			       lib.get_error(s->context));
	}
	if (revents & (POLLHUP | POLLERR | POLLRDHUP | POLLNVAL))
		broken(s, s->state == CONNECTING ? ECONNREFUSED : ECONNRESET,
		       s->state == CONNECTING ? "cannot connect" : "the target closed the connection");
}

static void wait_and_serve(struct iscsi_session *s, int timeout)
{
	struct pollfd fds[2] = { { .fd = s->efd, .events = POLLIN }, { .fd = -1 } };
	uint64_t n;

	if (s->context) {
		fds[1].fd = lib.get_fd(s->context);
		fds[1].events = (short)(lib.which_events(s->context) | POLLRDHUP);
	}
	if (poll(fds, 2, timeout) <= 0)
		return;
	if (fds[0].revents && read(s->efd, &n, sizeof(n)) < 0)
		n = 0;
	if (fds[1].revents && s->context)
		serve_socket(s, fds[1].revents);
}

/* How long a turn may sleep: until the next thing that has its time. */
static int sleep_time(const struct iscsi_session *s, int64_t now, int wait)
{
	if (s->state == DOWN && !s->dead && s->next_try - now < wait)
		wait = (int)MAX(s->next_try - now, 0);
	if (s->state != READY || s->waiting.head || s->sent || s->pinged)
		return MIN(wait, 1000);
	return MIN(wait, QUIET_MS);
}

static void turn(struct iscsi_session *s)
{
	int64_t now = now_ms();
	int wait = INT32_MAX;

	take_submitted(s);
	if (s->dead)
		give_up_all(s, s->dead);
	if (now - s->looked >= 1000) {
		give_up_overdue(s, now);
		s->looked = now;
	}
	if (s->state == DOWN && !s->dead && now >= s->next_try)
		connect_now(s, now);
	if (!s->broken && (s->state == ASKING || s->state == READY))
		wait = send_waiting(s, now, s->state == ASKING);
	if (!s->broken)
		listen_for_life(s, now);
	/* what was just queued goes out without a poll in between */
	if (!s->broken && s->state >= ASKING && lib.which_events(s->context) & POLLOUT &&
	    lib.service(s->context, POLLOUT) < 0)
		broken(s, ECONNRESET, lib.get_error(s->context));
	if (!s->broken)
		wait_and_serve(s, sleep_time(s, now, wait));
	if (!s->broken && s->state == ASKING && !s->checks_left)
		answered(s);
	if (s->broken)
		handle_broken(s, now_ms());
}

static void on_logout(struct iscsi_context *context, int status, void *data, void *arg)
{
	struct iscsi_session *s = arg;

	(void)context, (void)status, (void)data;
	s->logged_out = true;
}

/* Say good-bye, but do not wait long for the answer. */
static void log_out(struct iscsi_session *s)
{
	int64_t until = now_ms() + LOGOUT_MS;

	if (s->state != READY || lib.logout_async(s->context, on_logout, s) != 0)
		return;
	while (!s->logged_out && !s->broken && now_ms() < until) {
		if (lib.which_events(s->context) & POLLOUT)
			(void)lib.service(s->context, POLLOUT);
		wait_and_serve(s, 100);
	}
}

static void *session_thread(void *arg)
{
	struct iscsi_session *s = arg;
	bool stop = false;

	while (!stop) {
		turn(s);
		pthread_mutex_lock(&s->lock);
		stop = s->stop;
		pthread_mutex_unlock(&s->lock);
	}
	take_submitted(s);
	log_out(s);
	go_down(s, 0);
	give_up_all(s, -ECANCELED);
	return NULL;
}

/* ---- the public face ---- */

void iscsi_session_submit(struct iscsi_session *s, struct iscsi_command *list)
{
	int64_t now = now_ms();
	uint64_t one = 1;
	bool signal;

	for (struct iscsi_command *c = list; c; c = c->next) {
		c->since = now;
		c->not_before = 0;
		c->tries = 0;
	}
	pthread_mutex_lock(&s->lock);
	*s->submitted.tail = list;
	while (*s->submitted.tail)
		s->submitted.tail = &(*s->submitted.tail)->next;
	signal = !s->signalled;
	s->signalled = true;
	pthread_mutex_unlock(&s->lock);
	if (signal)
		(void)!write(s->efd, &one, sizeof(one));
}

struct run {
	struct iscsi_command *cmd;
	struct iscsi_command copy;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool over;
	int result;
};

static void run_over(struct iscsi_command *cmd, int result)
{
	struct run *r = container_of(cmd, struct run, copy);

	pthread_mutex_lock(&r->lock);
	r->over = true;
	r->result = result;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

int iscsi_session_run(struct iscsi_session *s, struct iscsi_command *cmd)
{
	struct run r = {
		.copy = *cmd, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER,
	};

	r.copy.next = NULL;
	r.copy.done = run_over;
	iscsi_session_submit(s, &r.copy);
	pthread_mutex_lock(&r.lock);
	while (!r.over)
		pthread_cond_wait(&r.cond, &r.lock);
	pthread_mutex_unlock(&r.lock);
	cmd->got = r.copy.got;
	return r.result;
}

void iscsi_session_set_hooks(struct iscsi_session *s, const struct iscsi_hooks *hooks)
{
	pthread_mutex_lock(&s->lock);
	s->hooks = *hooks;
	pthread_mutex_unlock(&s->lock);
}

/* Names are looked up once, here: a sandboxed process cannot do that later. */
static int resolve(struct iscsi_session *s, struct vdisk_error *err)
{
	const struct iscsi_address *a = s->address;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	int r = getaddrinfo(a->host, a->port, &hints, &list);

	if (r)
		return vd_fail(err, EHOSTUNREACH, "%s: %s: %s", a->name, a->host, gai_strerror(r));
	for (struct addrinfo *i = list; i && s->n_where < ADDRESSES_MAX; i = i->ai_next) {
		char host[NI_MAXHOST], port[NI_MAXSERV];

		if (getnameinfo(i->ai_addr, i->ai_addrlen, host, sizeof(host), port, sizeof(port),
				NI_NUMERICHOST | NI_NUMERICSERV))
			continue;
		snprintf(s->where[s->n_where++], sizeof(s->where[0]),
			 i->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	}
	freeaddrinfo(list);
	return s->n_where ? 0 : vd_fail(err, EHOSTUNREACH, "%s: no address", a->name);
}

static int start_thread(struct iscsi_session *s)
{
	sigset_t all, old;
	int r;

	/* SIGPIPE too: libiscsi writes to sockets that may be closed */
	sigfillset(&all);
	sigdelset(&all, SIGSYS);	/* a sandbox says with it what it forbids */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&s->thread, NULL, session_thread, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static void session_free(struct iscsi_session *s)
{
	if (s->efd >= 0)
		close(s->efd);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->opened);
	free(s);
}

static int session_start(struct iscsi_session *s, struct vdisk_error *err)
{
	uint32_t random[2] = { 0 };
	int r = resolve(s, err);

	if (r < 0)
		return r;
	if (getrandom(random, sizeof(random), 0) < 0)
		random[0] = (uint32_t)now_ms() ^ (uint32_t)getpid() << 12;
	s->isid = random[0] & 0xffffff;
	s->isid_qualifier = (uint16_t)random[1];
	s->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->efd < 0)
		return vd_fail(err, errno, "cannot make an eventfd: %s", strerror(errno));
	r = start_thread(s);
	return r < 0 ? vd_fail(err, -r, "cannot start a thread: %s", strerror(-r)) : 0;
}

int iscsi_session_open(struct iscsi_session **out, const struct iscsi_address *address,
		       struct vdisk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct iscsi_session *s;
	int r;

	pthread_once(&once, lib_load);
	if (lib_problem.code)
		return vd_fail(err, ENOTSUP, "%s: iSCSI needs libiscsi (Debian: libiscsi7): %s",
			       address->name, lib_problem.msg);
	s = calloc(1, sizeof(*s));
	if (!s)
		return vd_fail(err, ENOMEM, "out of memory");
	s->address = address;
	s->efd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->opened, NULL);
	list_init(&s->submitted);
	list_init(&s->waiting);
	r = session_start(s, err);
	if (r < 0) {
		session_free(s);
		return r;
	}
	pthread_mutex_lock(&s->lock);
	while (!s->settled)
		pthread_cond_wait(&s->opened, &s->lock);
	r = s->open_result;
	pthread_mutex_unlock(&s->lock);
	if (r < 0) {
		if (err)
			*err = s->open_error;
		iscsi_session_close(s);
		return r;
	}
	*out = s;
	return 0;
}

void iscsi_session_close(struct iscsi_session *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_mutex_unlock(&s->lock);
	(void)!write(s->efd, &one, sizeof(one));
	pthread_join(s->thread, NULL);
	session_free(s);
}
