/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* kernel_fs.h - file systems that only this host's kernel reads */
#ifndef CLI_KERNEL_FS_H
#define CLI_KERNEL_FS_H

#include "cli/cli.h"

/* May we have the kernel mount things? */
bool kernel_fs_possible(void);

enum kernel_root {
	KERNEL_TOP,		/* the file system as it is */
	KERNEL_ROOT,		/* what is a guest's root in it, else -ENOENT */
	KERNEL_ROOT_OR_TOP,
};

/*
 * Open the file system on @volume through the kernel.  The program may be another process
 * afterwards, whose parent then has @volume: unless it is one run of bytes of a file
 * (vd_plain_run()), @volume and what is below it must not be used any more after this.
 * @disk (may be NULL): the caller's reference to that, which the parent closes, too.
 * -EMEDIUMTYPE, without a message, where there is no file system.
 */
int kernel_fs_open(struct vdisk_fs **out, struct vdisk *volume, struct vdisk *disk,
		   enum kernel_root root, bool writable, struct vdisk_error *err);

/*
 * The same for reading; @inside: which directory of the file system it shows (a constant:
 * "", "@" ...).
 */
int kernel_fs_lend(struct vdisk_fs **out, const char **inside, struct vdisk *volume,
		   struct vdisk_error *err);

/* Among the volumes that the kernel alone can read, which is the root of the guest? */
int kernel_fs_root(char name[264], struct vdisk *disk);

/* When all of them are closed: wait until their devices have gone. */
void kernel_fs_end(void);

#endif
