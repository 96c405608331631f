/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relay.h - a back end that may die, for a front end that cannot bear it
 *
 * User-Mode Linux's driver of vhost-user connects once; a connection that breaks is the
 * end of its device.  So its connection is to us, and ours is to the disk's process.  A
 * new process is told again what the driver has said.  Doorbells, interrupts and the
 * guest's memory pass as descriptors: no request comes by here.
 */
#ifndef VMM_VHOST_RELAY_H
#define VMM_VHOST_RELAY_H

#include <sys/types.h>

#include "vdisk.h"

struct relay;

struct relay_options {
	const char *name;	/* of the disk, for messages; borrowed */
	int listen_fd;		/* where the front end will connect; taken */
	int channel;		/* of the disk's keeper, see keeper.h; borrowed */
	/* There is a new process: what it was not started with can be told now.  On the
	 * relay's thread; NULL ok. */
	void (*restarted)(void *arg);
	void *arg;
};

/* How it ended. */
enum relay_end {
	RELAY_DONE,	/* the disk's process ended, and has written out all */
	RELAY_FAILED,	/* ... not all */
	RELAY_LOST,	/* it died, and could not be started again */
	RELAY_LEFT,	/* relay_leave() */
};

/* Starts a thread; takes the socket on success only. */
int relay_new(struct relay **out, const struct relay_options *o, struct vdisk_error *err);

/* Wait for the disk's first process: -EIO, it could not be started. */
int relay_wait(struct relay *r);

enum relay_state {
	RELAY_SERVES,
	RELAY_FAILS,	/* the disk's process is gone for good, and in its place each request fails */
	RELAY_LET_GO,	/* the front end has gone: what shall become of the disk's process? */
	RELAY_BEREFT,	/* there is no process at all any more: what shall become of us? */
	RELAY_FINISHED,	/* relay_free() need not wait */
};

/* Readable when the state has changed; what it is now. */
int relay_fd(const struct relay *r);
enum relay_state relay_look(struct relay *r);

/* The disk's process has to end.  Does not wait. */
void relay_finish(struct relay *r);
/* The same, but the keeper is somebody else's from now on, and starts it again for him. */
void relay_leave(struct relay *r);

/* Of the present process; 0: there is none, or not yet. */
pid_t relay_pid(struct relay *r);
/* It died, and nobody is there to ask. */
bool relay_is_away(struct relay *r);
/* How often it was started again. */
unsigned relay_restarts(struct relay *r);

/* Waits for the end, as the disk's process may have to write. */
enum relay_end relay_free(struct relay *r);

#endif
