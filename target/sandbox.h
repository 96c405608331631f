/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sandbox.h - what the daemon gives up once everything is open */
#ifndef TARGET_SANDBOX_H
#define TARGET_SANDBOX_H

#include <sys/types.h>

#include "vdisk.h"

struct sandbox_opts {
	const char *user;	/* to become, if we are root; NULL: "nobody", in no group */
	bool reload;		/* keep what opening files and portals takes */
};

/*
 * Become another user if we are root, and leave only the system calls that are
 * listed, each with its reason, in sandbox.c.  For the whole process: to be
 * called before other threads exist, or by the one that started them.
 */
/* Who that will be. */
int sandbox_user(const struct sandbox_opts *opts, uid_t *out, struct vdisk_error *err);
/*
 * Before there are threads, for a server that opens nothing by name any more: no file
 * system (Landlock), where the kernel has that.
 */
int sandbox_files(struct vdisk_error *err);
/* The same for one that will: it opens and makes files, but nothing else. */
int sandbox_files_only(struct vdisk_error *err);
int sandbox_enter(const struct sandbox_opts *opts, struct vdisk_error *err);

#endif
