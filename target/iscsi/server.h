/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * server.h - the iSCSI target: sessions and connections on a reactor
 *
 * Layers, bottom up:
 *	pdu.c, crc.c		bytes and values
 *	text.c, negotiate.c	key=value text and the rules of the keys
 *	conn.c			a connection: bytes in, PDUs out, its state (8.1)
 *	access.c, chap.c	who may use a target, and how they prove who they are
 *	login.c, auth.c		the login phase (6.3), for conn.c in IN_LOGIN
 *	answer.c		text answers, in pieces
 *	full.c			the full feature phase: NOP, text, logout, task
 *				management
 *	command.c		SCSI commands and their data
 *	session.c		sessions: numbering, reinstatement, end
 *	portal.c, throttle.c	where we listen, and who is let in
 *	socket.c		a connection on a socket of the reactor
 *
 * A connection knows nothing of sockets: input is iscsi_conn_input(), output
 * is taken by iscsi_conn_output() and iscsi_conn_sent(), and struct iscsi_wire
 * is told when there is some.  Tests and the fuzzer drive it without a network.
 *
 * Memory.  Data of commands live in pool buffers that the device server's disk
 * requests point to as well.  An initiator has at most ISCSI_WINDOW commands
 * open, each with one segment (SCSI_SEGMENT) in memory; while more than
 * ISCSI_TX_BYTES of answers wait for a slow reader, nothing is read from it.
 * So what one connection can hold is bounded, and nobody waits for another.
 *
 * Threads.  A connection lives on one reactor, from when it is accepted until it
 * is freed; its socket, its buffers and its disk requests are handled there.  All
 * else here and in the device server runs under the reactors' one lock (see
 * reactor.h), whoever's connection it is about: so sessions, targets and units are
 * everybody's.  Three things are done on the connection's own thread only:
 * closing it (iscsi_conn_close() passes that on), moving its bytes, and giving
 * back a buffer that is just being received into.
 *
 * Errors.  ErrorRecoveryLevel is 0: after a digest error, or a breach of the
 * protocol that leaves the numbering in doubt, the connection is closed, and
 * the initiator logs in again (7.1.4).
 */
#ifndef ISCSI_SERVER_H
#define ISCSI_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "target/iscsi/access.h"
#include "target/iscsi/pdu.h"
#include "target/iscsi/text.h"
#include "target/iscsi/throttle.h"
#include "target/reactor/pool.h"
#include "target/reactor/reactor.h"
#include "target/scsi/scsi.h"

#define ISCSI_WINDOW		128u	/* commands that an initiator may have open */
#define ISCSI_MAX_IMMEDIATE	32u	/* immediate ones beyond that */
#define ISCSI_TX_BYTES		(4u << 20)
#define ISCSI_TX_PDUS		4096u
#define ISCSI_LINGER_SECONDS	5u	/* to take the last answer before we close */
#define ISCSI_LOGOUT_SECONDS	3u	/* to follow a request to log out */
#define ISCSI_LOGIN_PDUS	64u	/* requests in one login */
#define ISCSI_MAX_R2T		8u
#define ISCSI_EARLY_DATA	(64u << 10)	/* data segments that are written as they come */
#define ISCSI_PORTAL_GROUP	1u
#define ISCSI_ADDRESS_MAX	64u	/* "[address]:port" */

struct iscsi_conn;
struct iscsi_session;

struct iscsi_target {
	LIST_ENTRY(iscsi_target) link;
	struct iscsi_server *server;	/* borrowed */
	struct scsi_target *scsi;	/* borrowed; its name is ours */
	struct iscsi_access access;	/* owned; all zeroes: open to everyone */
	char *alias;			/* owned, or NULL */
	bool leaving;			/* nobody logs in any more */
};

struct iscsi_server {
	struct reactor *reactor;	/* borrowed */
	struct reactor_client disk;	/* completions of our requests */
	struct iscsi_access discovery;	/* owned; who may ask what there is */
	struct reactor_client background; /* and of the targets' own */
	LIST_HEAD(iscsi_target_list, iscsi_target) targets;
	LIST_HEAD(iscsi_session_list, iscsi_session) sessions;
	LIST_HEAD(iscsi_conn_list, iscsi_conn) conns;
	LIST_HEAD(iscsi_portal_list, iscsi_portal) portals;
	unsigned n_conns, n_sessions;
	struct iscsi_limits limits;
	struct iscsi_throttle *throttle;	/* owned; made when first needed */
	uint64_t refusal_logged;	/* ms */
	unsigned refused;		/* connections */
	unsigned last_portal;
	uint16_t last_tsih;
	bool stopping;
	struct slab tasks;		/* struct iscsi_task */
	struct slab outs;		/* struct iscsi_out */
	struct slab tmfs;		/* struct iscsi_tmf */
};

void iscsi_server_init(struct iscsi_server *s, struct reactor *reactor);
/* All connections must be gone. */
void iscsi_server_fini(struct iscsi_server *s);
/* NULL: no memory */
struct iscsi_target *iscsi_server_add_target(struct iscsi_server *s, struct scsi_target *scsi);
/*
 * Nobody may log in there any more, and who is, is asked to log out.  To be freed
 * when iscsi_target_idle().
 */
void iscsi_target_leave(struct iscsi_target *t);
bool iscsi_target_idle(const struct iscsi_target *t);
void iscsi_target_free(struct iscsi_target *t);
/*
 * What targets allow has changed: ask those to log out who would not get in now,
 * and let the others see what they may.
 */
void iscsi_server_readmit(struct iscsi_server *s);
/* Would a session of these get in?  @user: who authenticated, or NULL. */
bool iscsi_admitted(const struct iscsi_conn *c, const struct iscsi_target *t,
		    const char *initiator, const char *user);
struct iscsi_target *iscsi_target_find(struct iscsi_server *s, const char *name);
/*
 * Accept no more connections, and ask the initiators to log out; whoever has
 * not within a few seconds is disconnected.  Idle when n_conns is 0.
 */
void iscsi_server_stop(struct iscsi_server *s);
/* Disconnect everyone now. */
void iscsi_server_drop(struct iscsi_server *s);

/* ---- portals ---- */

struct iscsi_portal {
	LIST_ENTRY(iscsi_portal) link;
	struct iscsi_server *server;
	struct reactor_source source;	/* owns the descriptor */
	unsigned number;		/* another one for each */
	uint16_t group;			/* portal group tag; may be set */
	char *advertise;		/* owned; told instead of the address, "": not told; may be set */
	char address[ISCSI_ADDRESS_MAX];	/* in numbers, with the port */
	uint8_t bytes[16];
};

/*
 * Listen on "ADDRESS[:PORT]", "[IPv6]:PORT" or ":PORT" (all addresses).  NULL:
 * see @err.
 */
struct iscsi_portal *iscsi_portal_add(struct iscsi_server *s, const char *portal,
				      struct vdisk_error *err);
/* Its connections stay. */
void iscsi_portal_close(struct iscsi_portal *portal);
void iscsi_portals_close(struct iscsi_server *s);
/* Name and addresses of the target into text_out, as far as this initiator should know. */
int iscsi_portals_tell(struct iscsi_conn *c, const struct iscsi_target *t);

struct sockaddr_storage;
/* "127.0.0.1:3260", "[::1]:3260"; an IPv4 address mapped into IPv6 as IPv4 */
void iscsi_address_format(char out[ISCSI_ADDRESS_MAX], const struct sockaddr_storage *sa);
/* A connection was accepted (socket.c): takes the descriptor. */
void iscsi_socket_accepted(struct iscsi_portal *portal, int fd,
			   const struct sockaddr_storage *peer);

/* ---- connections ---- */

/* RFC 7143, 8.1.4: the states of a target's connection */
enum iscsi_state {
	ISCSI_FREE,		/* S1 */
	ISCSI_XPT_UP,		/* S3 */
	ISCSI_IN_LOGIN,		/* S4 */
	ISCSI_LOGGED_IN,	/* S5 */
	ISCSI_IN_LOGOUT,	/* S6 */
	ISCSI_LOGOUT_REQUESTED,	/* S7 */
	ISCSI_CLEANUP_WAIT,	/* S8 */
};

enum iscsi_event {
	ISCSI_EV_LOGIN,		/* the first login request was received */
	ISCSI_EV_LOGIN_DONE,	/* the final login response is a success */
	ISCSI_EV_LOST,		/* the transport is gone, or a fatal error closed it */
	ISCSI_EV_LOGOUT,	/* a logout request was received */
	ISCSI_EV_ASYNC_LOGOUT,	/* we asked for a logout */
	ISCSI_EV_LOGGED_OUT,	/* the logout response was sent */
	ISCSI_EV_CLEANED,	/* nothing of the connection is running any more */
};

/*
 * RFC 7143, 8.3: the states of a target's session.  With one connection and error
 * recovery level 0 there is nothing to continue: Q5, and N7, N8, N10 and N11 with it,
 * do not occur, and a session that failed (Q4) lasts only until its commands stopped.
 */
enum iscsi_session_state {
	ISCSI_SESSION_FREE,		/* Q1 */
	ISCSI_SESSION_ACTIVE,		/* Q2 */
	ISCSI_SESSION_LOGGED_IN,	/* Q3 */
	ISCSI_SESSION_FAILED,		/* Q4 */
};

enum iscsi_session_event {
	ISCSI_SESSION_NOTHING,
	ISCSI_SESSION_EV_LOGIN,		/* its connection is in login */
	ISCSI_SESSION_EV_LOGIN_DONE,	/* its connection is logged in */
	ISCSI_SESSION_EV_LOGIN_FAILED,
	ISCSI_SESSION_EV_CLOSED,	/* by a logout */
	ISCSI_SESSION_EV_FAILED,	/* the connection is gone without one */
	ISCSI_SESSION_EV_CLEARED,	/* no time to retain it, or reinstatement */
};

/* What the connection asks of whoever carries its bytes. */
struct iscsi_wire {
	/* there is output; called once until it is taken */
	void (*output)(struct iscsi_conn *conn);
	/* send some of it now, if that can be done without waiting; may be NULL */
	void (*flush)(struct iscsi_conn *conn);
	/* input is wanted or not (true at the start) */
	void (*pause)(struct iscsi_conn *conn, bool paused);
	/* close it; no call after this one but free() */
	void (*close)(struct iscsi_conn *conn);
	/* the connection is over; free its memory */
	void (*free)(struct iscsi_conn *conn);
	/* data may be bytes of a file: see iscsi_conn_output() */
	bool sends_files;
};

/* A PDU on its way out. */
struct iscsi_out {
	TAILQ_ENTRY(iscsi_out) link;
	uint8_t head[ISCSI_BHS_SIZE + ISCSI_DIGEST_SIZE];
	uint8_t head_len;
	uint8_t tail[8];		/* padding, data digest */
	uint8_t tail_len;
	const uint8_t *data;		/* into task's buffer, @own or @small */
	uint32_t data_len;
	struct vdisk_sendable file;	/* the data, if they are not in memory of ours; fd -1: no */
	void *own;			/* owned pool buffer */
	uint32_t own_size;
	struct iscsi_task *task;	/* go on with it when this one is sent */
	uint8_t small[48];		/* sense, or the header of a rejected PDU */
};
TAILQ_HEAD(iscsi_out_list, iscsi_out);

enum iscsi_rx_state { ISCSI_RX_HEADER, ISCSI_RX_DATA, ISCSI_RX_TAIL };

struct iscsi_rx {
	enum iscsi_rx_state state;
	uint8_t head[ISCSI_BHS_SIZE + ISCSI_AHS_MAX + ISCSI_DIGEST_SIZE];
	uint32_t have, need;		/* of the header */
	struct iscsi_request req;
	uint32_t data_left;		/* of the data segment */
	uint8_t *dst;			/* where it goes; NULL: nowhere */
	uint32_t keep;			/* how many of the data_left bytes go there */
	void *buf;			/* owned pool buffer of a PDU that is not of a command */
	uint32_t crc;
	uint8_t tail[8];
	uint32_t tail_have, tail_need;
	struct iscsi_task *task;	/* whose data these are; NULL: nobody's */
	uint8_t reject;			/* of a command or Data-Out, when its data are through */
};

/* CHAP as it goes on (RFC 7143, 12.1.3); the steps, each a request and its answer */
enum iscsi_auth_step {
	ISCSI_AUTH_METHOD,	/* nothing was agreed on so far */
	ISCSI_AUTH_ALGORITHM,	/* CHAP it is: CHAP_A comes next */
	ISCSI_AUTH_RESPONSE,	/* our challenge was sent */
	ISCSI_AUTH_DONE,	/* the initiator is who it says, or need not say */
};

struct iscsi_login_auth {
	enum iscsi_auth_step step;
	enum iscsi_chap_digest digest;
	uint8_t id;
	uint8_t challenge[ISCSI_CHAP_CHALLENGE];
	char *user;		/* owned; who it is, once that is proved */
};

struct iscsi_conn {
	struct iscsi_server *server;	/* borrowed */
	struct reactor *reactor;	/* borrowed: where it lives, always */
	const struct iscsi_wire *wire;
	LIST_ENTRY(iscsi_conn) link;
	enum iscsi_state state;
	struct iscsi_session *session;	/* owned from LOGGED_IN on */
	struct iscsi_params params;
	char peer[ISCSI_ADDRESS_MAX];	/* for messages */
	char local[ISCSI_ADDRESS_MAX];	/* the address that the initiator used */
	uint8_t peer_address[16];	/* as struct iscsi_net has them */
	uint16_t group;			/* the portal's */
	unsigned portal;		/* its number */

	struct iscsi_rx rx;
	bool header_digest, data_digest; /* in force */
	bool closed;			/* the wire is; waiting for the end */
	bool close_when_sent;
	bool paused;
	bool receiving;			/* without the lock, to where iscsi_conn_direct() said */
	struct reactor_deferred closer;	/* another thread wants it closed */
	const char *close_why;
	struct reactor_deferred reap;
	struct reactor_timer timer;	/* login, idle, linger */
	bool heard;			/* something was received since the timer was set */
	bool pinged;			/* a NOP-In waits for its answer */

	struct iscsi_out_list tx;
	uint32_t tx_offset;		/* bytes of the first one that are sent */
	uint32_t tx_pdus;
	uint64_t tx_bytes;
	bool output_wanted;		/* wire->output() was called */
	uint32_t stat_sn;

	struct {
		bool started;
		uint8_t stage;		/* CSG */
		uint8_t isid[6];
		uint16_t tsih, cid;
		uint32_t itt;
		uint32_t init_cmd_sn;
		unsigned pdus;
		bool checked;		/* names and session were looked up */
		bool waiting;		/* for the session that this one reinstates */
		bool transit;		/* what the request asked for, */
		uint8_t next;		/* kept while the answer goes out in pieces */
		struct iscsi_target *target;
		struct iscsi_login_auth auth;
	} login;

	struct iscsi_text text_in;	/* of the request being collected */
	struct iscsi_text text_out;	/* the answer */
	uint32_t text_sent;		/* of text_out */
	uint32_t text_ttt;		/* of the text exchange; reserved tag: none */
	uint32_t next_ttt;
	uint32_t ping_ttt;		/* of the NOP-In that waits for its answer */
};

/* The memory is the caller's (wire->free() ends it); starts the login timer. */
void iscsi_conn_init(struct iscsi_conn *c, struct iscsi_server *s, const struct iscsi_wire *wire);
/* Take what was received.  -EPIPE when the connection is closed (now or before). */
int iscsi_conn_input(struct iscsi_conn *c, const uint8_t *buf, size_t len);
/* Where the next bytes could go without a copy; 0 if nowhere. */
size_t iscsi_conn_direct(struct iscsi_conn *c, uint8_t **dst);
/* Bytes that were received to where iscsi_conn_direct() said. */
int iscsi_conn_received(struct iscsi_conn *c, size_t len);
/* Bytes of a file that are to be sent; of len 0: none. */
struct iscsi_run {
	int fd;
	uint64_t offset;
	size_t len;
};
/* What is to be sent, at most @max pieces; how many.  Behind these comes @run, and
 * then more; a wire without ->sends_files gets none. */
unsigned iscsi_conn_output(struct iscsi_conn *c, struct iovec *iov, unsigned max,
			   struct iscsi_run *run);
void iscsi_conn_sent(struct iscsi_conn *c, size_t len);
/* The rest has to wait: copy what may not be in memory any more by then. */
void iscsi_conn_keep(struct iscsi_conn *c);
/* Close it, with a reason for the log (NULL: none). */
void iscsi_conn_close(struct iscsi_conn *c, const char *why);
/* Close it as soon as the output is sent, or after a few seconds. */
void iscsi_conn_linger(struct iscsi_conn *c);
void iscsi_conn_event(struct iscsi_conn *c, enum iscsi_event event);
const char *iscsi_state_name(enum iscsi_state state);

/* ---- sending, for login.c, full.c, command.c ---- */

/* A PDU to fill in; NULL when there is no memory (the connection is closed). */
struct iscsi_out *iscsi_out_new(struct iscsi_conn *c);
/* The counters for a reply that takes a StatSN, or for one that does not. */
struct iscsi_sn iscsi_sn_status(struct iscsi_conn *c);
struct iscsi_sn iscsi_sn_plain(struct iscsi_conn *c);
/* Queue it: digests and padding are added here. */
void iscsi_out_queue(struct iscsi_conn *c, struct iscsi_out *out);
void iscsi_reject(struct iscsi_conn *c, uint8_t reason);

/* ---- the phases: called with a whole PDU ---- */

/* The CHAP keys of one request, decoded. */
struct iscsi_binary {
	bool here;
	uint32_t len;
	uint8_t bytes[ISCSI_CHAP_BINARY_MAX];
};
struct iscsi_auth_keys {
	unsigned seen;
	char algorithms[ISCSI_VALUE_MAX + 1];
	char name[ISCSI_USER_MAX + 1];
	bool has_id;
	uint8_t id;
	struct iscsi_binary challenge, response;
};
/* False: not a key of ours; else @status says whether it is a good one. */
bool iscsi_auth_key(struct iscsi_auth_keys *k, const struct iscsi_pair *pair, uint16_t *status);
/* All keys of a request in the security stage are here: answer; a login status. */
uint16_t iscsi_auth_request(struct iscsi_conn *c, const struct iscsi_auth_keys *k);
/* Whoever this is has proved what the target asks for. */
bool iscsi_auth_satisfied(const struct iscsi_conn *c);
/* What is asked for; after the names were checked. */
const struct iscsi_auth *iscsi_auth_of(const struct iscsi_conn *c);

void iscsi_login_request(struct iscsi_conn *c, const struct iscsi_request *r,
			 const void *data);
/* A session is gone that someone may be waiting for. */
void iscsi_login_retry(struct iscsi_conn *c);
void iscsi_full_request(struct iscsi_conn *c, const struct iscsi_request *r, void *data);
/* Forget the answer, to make another in text_out. */
void iscsi_answer_begin(struct iscsi_conn *c);
/* Is there some of it that was not sent? */
bool iscsi_answer_pending(const struct iscsi_conn *c);
/* A PDU with at most @segment bytes of it; NULL: the connection is closed. */
struct iscsi_out *iscsi_answer_next(struct iscsi_conn *c, uint32_t segment);
/* Send the next piece of text_out. */
void iscsi_text_continue(struct iscsi_conn *c, uint32_t itt);
void iscsi_ping(struct iscsi_conn *c);
void iscsi_async_logout(struct iscsi_conn *c);

/* ---- commands (command.c) ---- */

struct iscsi_r2t {
	uint32_t ttt;
	uint32_t offset, len;
	uint32_t received;
	uint32_t data_sn;	/* expected next */
};

struct iscsi_task {
	struct scsi_task scsi;
	struct iscsi_session *session;	/* borrowed */
	TAILQ_ENTRY(iscsi_task) link;
	uint32_t itt;
	uint32_t expected_len;
	bool immediate;
	enum scsi_step step;		/* what is to be done when the command's data are here */
	bool beginning;			/* its command's PDU is coming in */
	bool io_pending;		/* its disk request is in flight */
	bool sending;			/* a segment of Data-In is on its way */
	bool wants_data;		/* scsi asked for a segment */
	bool over;			/* scsi is done; the answer waits for unsolicited data */
	bool counted;			/* takes a place in the command window */
	uint32_t data_in_sn;
	uint32_t data_in_done;		/* bytes sent */
	uint32_t r2t_sn;
	uint32_t received;		/* bytes of data-out, in order */
	bool unsolicited;		/* more of it will come */
	uint32_t unsolicited_sn;
	uint32_t requested;		/* end of what was asked for by R2T */
	struct iscsi_r2t r2t[ISCSI_MAX_R2T];	/* outstanding, oldest first */
	unsigned n_r2t;
};
TAILQ_HEAD(iscsi_task_list, iscsi_task);

/*
 * A command or Data-Out PDU's header: finds out where its data go (c->rx.task,
 * dst, keep).
 */
void iscsi_command_begin(struct iscsi_conn *c, const struct iscsi_request *r);
void iscsi_data_begin(struct iscsi_conn *c, const struct iscsi_request *r);
/* The data are there (none is also all of it). */
void iscsi_command_end(struct iscsi_conn *c, const struct iscsi_request *r);
void iscsi_data_end(struct iscsi_conn *c, const struct iscsi_request *r);
/* More of the data of c->rx.task are there; it may be gone then. */
void iscsi_task_progress(struct iscsi_conn *c);
/* A disk request of the task came back. */
void iscsi_task_io_done(struct iscsi_task *t);
/* The kernel is done with the task's buffer: see iscsi_conn.receiving. */
void iscsi_task_received(struct iscsi_task *t);
/* The PDU that t->sending stands for was sent (or will never be). */
void iscsi_task_sent(struct iscsi_task *t, bool lost);
struct iscsi_task *iscsi_task_find(struct iscsi_session *s, uint32_t itt);
extern const struct scsi_nexus_ops iscsi_nexus_ops;

/* ---- sessions (session.c) ---- */

struct iscsi_session {
	LIST_ENTRY(iscsi_session) link;
	struct iscsi_server *server;
	struct iscsi_conn *conn;	/* MaxConnections is 1 */
	enum iscsi_session_state state;
	struct iscsi_target *target;	/* NULL: discovery */
	uint16_t tsih;
	uint8_t isid[6];
	uint16_t group;			/* portal group: with the target, its SCSI port */
	char initiator[ISCSI_NAME_MAX + 1];
	char *user;			/* owned; who logged in, NULL: nobody had to */
	uint32_t exp_cmd_sn;
	unsigned open_commands;		/* that count for the window */
	unsigned immediate_commands;
	struct iscsi_task_list tasks;
	struct scsi_nexus nexus;	/* only with a target */
	bool is_ending;			/* its commands are being aborted */
	struct scsi_tmf ending;
	void (*ended)(struct iscsi_session *s);
};

/* The session that a login with these would reinstate (6.3.5); NULL: none. */
struct iscsi_session *iscsi_session_find(struct iscsi_server *s, const char *initiator,
					 const uint8_t isid[6], const struct iscsi_target *target,
					 uint16_t group);
struct iscsi_session *iscsi_session_by_tsih(struct iscsi_server *s, uint16_t tsih);
/* Change the session's state; what the connection's table does not say does not occur. */
void iscsi_session_event(struct iscsi_session *s, enum iscsi_session_event event);
/* NULL: no memory */
struct iscsi_session *iscsi_session_new(struct iscsi_conn *c);
/* Nothing of it may be running. */
void iscsi_session_free(struct iscsi_session *s);
/* Is this command's number acceptable (4.2.2.1)?  Counts it if so. */
enum iscsi_cmd_sn { ISCSI_CMD_OK, ISCSI_CMD_IGNORE, ISCSI_CMD_BROKEN };
enum iscsi_cmd_sn iscsi_session_cmd_sn(struct iscsi_session *s, const struct iscsi_request *r);

/* A task management function on its way. */
struct iscsi_tmf {
	struct scsi_tmf scsi;
	struct iscsi_conn *conn;	/* to answer, if it is not closed by then */
	uint32_t itt;
};
/* Abort whatever the session runs, then call @done; a later call replaces @done. */
void iscsi_session_abort_all(struct iscsi_session *s, void (*done)(struct iscsi_session *s));

#endif
