/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sandbox.h - what is given up once everything is open */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

#include <sys/types.h>

#include "vdisk.h"

/* What a system does not allow is left out; the rest holds. */
struct sandbox_state {
	bool user, pid, mount, net, ipc; /* namespaces of our own, the mounts empty */
	pid_t outside;			/* our process id as others see it */
	int landlock;			/* version of the kernel's; 0: it has none */
	bool filter;			/* of system calls */
};

/*
 * At the very start, while there is one thread: a user namespace, if we are
 * not root, in which the next step is possible, and a process-id namespace.
 * Files open as before.  Returns in a child, the first process of the new
 * namespace; the caller stays behind, passes signals on to it, ends as it
 * ends, and takes it along if it is killed itself.
 */
int sandbox_prepare(struct sandbox_state *s, struct vdisk_error *err);

/*
 * Everything is open: no file system but an empty one, no network, no new
 * privileges, no capabilities, no core dumps.  For this thread and those that
 * it starts, so before there are any.  @memory: bytes of the guest's.
 */
int sandbox_enter(struct sandbox_state *s, uint64_t memory, struct vdisk_error *err);

/*
 * For the whole process, all its threads and those to come: only the system
 * calls that sandbox.c lists.  A forbidden one ends the process, naming itself.
 */
int sandbox_filter(struct sandbox_state *s, struct vdisk_error *err);

/* Some threads need fewer still; called by each, after sandbox_filter(). */
void sandbox_vcpu(void);
void sandbox_disk(void);
void sandbox_net(void);
void sandbox_front(void);
/* The parent's, which looks after process @child. */
int sandbox_parent(pid_t child);

/*
 * vmm-uml, for which the guest is a process: what sandbox_enter() takes away, but for
 * sockets that are made and removed in directory @dir, and the namespaces.  Before there
 * are threads.  Then the filter, once all is started: signals go to @own alone.
 */
int sandbox_enter_uml(const char *dir, struct vdisk_error *err);
int sandbox_filter_uml(const pid_t *own, unsigned n, struct vdisk_error *err);

/* For the tests: who may do what. */
enum sandbox_kind { SANDBOX_PROCESS, SANDBOX_VCPU, SANDBOX_DISK, SANDBOX_NET, SANDBOX_FRONT,
		    SANDBOX_PARENT, SANDBOX_UML };
enum sandbox_verdict { SANDBOX_KILLS, SANDBOX_REFUSES, SANDBOX_ALLOWS };
enum sandbox_verdict sandbox_verdict(enum sandbox_kind kind, int call);
/* May it make this call, with the right arguments?  SANDBOX_PROCESS: a thread that is none of the others. */
bool sandbox_lists(enum sandbox_kind kind, int call);

#endif
