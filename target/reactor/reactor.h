/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reactor.h - one thread's loop: sockets, disk requests, timers
 *
 * Everything that is registered with a reactor runs on its thread, one callback
 * after the other.
 *
 * A turn of the loop is: wait for sockets and finished disk requests; run their
 * callbacks, which queue new disk requests and output; hand all new requests to
 * the disk queue in one batch; take what came back at once (the page cache);
 * then run the turn's deferred work, which sends each connection's output in
 * one system call.  So the commands of one read of a socket cost one submission
 * and one send together.
 *
 * Lifetime: a callback may remove any source, timer or deferral, its own too.
 *
 * Several reactors.  reactor_spawn() starts more, a thread each.  All callbacks of
 * all of them run under one lock; it is let go wherever time is spent: while a
 * reactor sleeps, while its disk queue works, and while a callback moves bytes
 * between reactor_leave() and reactor_enter().  So what callbacks share - sessions,
 * units, task sets - is as simple as with one thread, and the copies, checksums
 * of the network and file systems, which are most of the work, go on side by side.
 * The thread that made the first reactor has the lock outside reactor_turn(), too.
 * With one reactor there is no lock.
 *
 * From another reactor's callback one may submit, defer, cancel and arm; sources
 * are added from anywhere, but changed or removed on the reactor's own thread.
 */
#ifndef TARGET_REACTOR_H
#define TARGET_REACTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "vdisk.h"

struct reactor;
struct pool;

#define REACTOR_SCRATCH	(256u << 10)
#define REACTOR_MAX	64u

/* A file descriptor to watch; in the owner's memory. */
struct reactor_source {
	int fd;			/* borrowed */
	uint32_t events;	/* as registered */
	/* @events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR as they are */
	void (*ready)(struct reactor_source *source, uint32_t events);
	/*
	 * See whether there is input, and if so take it and return true; NULL: it
	 * is not tried.  Saves the only source that is busy the way through epoll.
	 */
	bool (*poll)(struct reactor_source *source);
};

/* Work for the end of this turn. */
struct reactor_deferred {
	bool queued;
	TAILQ_ENTRY(reactor_deferred) link;
	void (*run)(struct reactor_deferred *work);
};

/* Resolution is a second; for time-outs, not for pacing. */
struct reactor_timer {
	bool armed;
	uint64_t due;		/* ms, CLOCK_MONOTONIC */
	LIST_ENTRY(reactor_timer) link;
	void (*expired)(struct reactor_timer *timer);
};

/* Who gets a finished disk request: vdisk_request.user points to one. */
struct reactor_client {
	void (*done)(struct reactor_client *client, struct vdisk_request *req);
};

int reactor_new(struct reactor **out, size_t buffer_limit, struct vdisk_error *err);
struct reactor_opts {
	unsigned threads;	/* reactors together, the first one too; 0: one */
	unsigned busy_us;	/* poll that long before sleeping */
	bool pin;		/* each to a processor of its own, of those that we may use */
};
/* Once, before the first turn.  @r's buffer limit holds for each. */
int reactor_spawn(struct reactor *r, const struct reactor_opts *opts, struct vdisk_error *err);
/* Ends the others; waits for disk requests in flight, dropping their results. */
void reactor_free(struct reactor *r);
/* How many there are. */
unsigned reactor_count(const struct reactor *r);
/* The one of them with the least to look after, as told by reactor_take_up(). */
struct reactor *reactor_least(struct reactor *r);
void reactor_take_up(struct reactor *r, int n);
/* Is this its thread? */
bool reactor_is_mine(const struct reactor *r);
/* Have it go through a turn; from any reactor. */
void reactor_wake(struct reactor *r);
/* Around what may take a while and touches nothing that is shared. */
void reactor_leave(struct reactor *r);
void reactor_enter(struct reactor *r);
/* REACTOR_SCRATCH bytes that the thread may use for the moment. */
uint8_t *reactor_scratch(struct reactor *r);
struct pool *reactor_pool(struct reactor *r);

int reactor_add(struct reactor *r, struct reactor_source *s, uint32_t events);
void reactor_modify(struct reactor *r, struct reactor_source *s, uint32_t events);
void reactor_remove(struct reactor *r, struct reactor_source *s);

void reactor_defer(struct reactor *r, struct reactor_deferred *work);
void reactor_cancel(struct reactor *r, struct reactor_deferred *work);

void reactor_arm(struct reactor *r, struct reactor_timer *t, unsigned seconds);
void reactor_disarm(struct reactor_timer *t);
/* ms, CLOCK_MONOTONIC, as of this turn */
uint64_t reactor_now(const struct reactor *r);

/* Start a request in this turn's batch; it comes back to req->user's done(). */
void reactor_submit(struct reactor *r, struct vdisk_request *req);
/*
 * Is the batch so large that its data would push each other out of the
 * processor's cache?  Then whoever can bear completions in the middle of its
 * work (not from within done()) runs it early.
 */
bool reactor_batch_large(const struct reactor *r);
void reactor_run_batch(struct reactor *r);

/* One turn; waits up to @timeout_ms (-1: as long as it takes) for something. */
int reactor_turn(struct reactor *r, int timeout_ms);

#endif
