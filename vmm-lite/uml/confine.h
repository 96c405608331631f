/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* confine.h - what User-Mode Linux's process is left with */
#ifndef VMM_UML_CONFINE_H
#define VMM_UML_CONFINE_H

#include <sys/types.h>

#include "vdisk.h"
#include "vmm-lite/sandbox.h"

/*
 * fork(), into namespaces of its own, of users (if we are not root), processes, mounts,
 * networks and IPC, where that is allowed; @s says what it came to, on both sides.  While
 * there is one thread.  The child ends with its parent, however that ends.
 */
pid_t confine_fork(struct sandbox_state *s);

/*
 * In that child: the file system becomes an empty one with the libraries of programs,
 * @dir, which alone can be written, a copy of the file @shim as CONFINE_SHIM and of
 * descriptor @initrd's as CONFINE_INITRD.  @s->mount says whether; where it could not be
 * done all is as before.
 */
#define CONFINE_SHIM	"/vdisk-uml.so"
#define CONFINE_INITRD	"/initrd"
void confine_files(struct sandbox_state *s, const char *dir, const char *shim, int initrd);

/*
 * No capabilities and no new privileges, no core dumps, and only the system calls that
 * confine.c lists, from now on and in what is executed.  A forbidden one ends the guest,
 * by SIGSYS.
 */
int confine_calls(struct sandbox_state *s, struct vdisk_error *err);

/* For the tests: may it make this call, whatever its arguments? */
enum sandbox_verdict confine_verdict(int call);

#endif
