/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * served.h - what a configuration makes the server serve, and changes of it
 *
 * The first configuration and every later one take the same way: a plan is
 * prepared - files read, new disks opened, which may block, so for a running
 * server it happens on a thread - and then carried out on the reactor.  If
 * anything of the preparation fails, nothing has changed.
 *
 * What stays the same is not touched, and neither are the sessions that use it.
 * What goes is taken away before what comes in its place is opened, since a disk
 * has one writer: that is the second stage, for which a plan waits until targets
 * are empty and units are idle.
 */
#ifndef TARGET_SERVED_H
#define TARGET_SERVED_H

#include <sys/queue.h>

#include "target/config.h"
#include "target/iscsi/server.h"

struct served_portal;
struct served_target;
struct plan;

struct served {
	struct reactor *reactor;	/* borrowed */
	struct iscsi_server server;
	struct config *config;		/* owned: the one in force */
	LIST_HEAD(served_portal_list, served_portal) portals;
	LIST_HEAD(served_target_list, served_target) targets, leaving;
	struct plan *plan;		/* being carried out; NULL: none */
	bool again;			/* another reload was asked for meanwhile */
	unsigned removals;		/* units that are on their way out */
	uid_t owner;			/* of state files that root makes */
	struct reactor_timer timer;	/* looks after what is leaving */
	void (*reloaded)(struct served *s, const struct vdisk_error *err);	/* NULL: it is done */
};

/* Serve what @config, which is taken over, says; before there are other threads. */
int served_start(struct served *s, struct reactor *reactor, struct config *config,
		 uid_t owner, struct vdisk_error *err);
/* Read the file again, and do what it says now; ->reloaded() when that is over. */
void served_reload(struct served *s);
/* Listen no more, and ask everyone to log out; a second time: disconnect them. */
void served_stop(struct served *s);
/* Nothing is under way. */
bool served_idle(const struct served *s);
/* When there are no connections any more; flushes and closes the disks. */
int served_end(struct served *s, struct vdisk_error *err);
/* Try to open all disks of a configuration; the number that failed, with a message each. */
unsigned served_try(const struct config *config);

#endif
