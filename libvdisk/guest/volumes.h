/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* volumes.h - the file systems on a guest's disk, as the evaluators see them */
#ifndef VD_GUEST_VOLUMES_H
#define VD_GUEST_VOLUMES_H

#include "guest/bootcfg.h"
#include "guest/jail.h"

struct guest_volumes {
	struct boot_volume *volume;	/* owned */
	struct vdisk_fs **fs;		/* owned, each; never NULL */
	const char **inside;		/* owned; each: what paths may begin with, see lent.h */
	unsigned n;
	char trouble[256];		/* why a file system could not be opened; "" */
};

/*
 * Open every file system on @disk that the library reads, or that the parent lends.  None at all is
 * success with n 0.  One that cannot be opened is left out, see ->trouble.
 */
int guest_volumes_open(struct guest_volumes *out, struct vdisk *disk, struct jail *jail,
		       struct vdisk_error *err);
void guest_volumes_close(struct guest_volumes *v);

/* The evaluators' view; borrows @v. */
struct boot_env guest_volumes_env(struct guest_volumes *v);

#endif
