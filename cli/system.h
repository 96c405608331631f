/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* system.h - the system on a disk, also on file systems that only the kernel reads */
#ifndef CLI_SYSTEM_H
#define CLI_SYSTEM_H

#include "cli/cli.h"

struct cli_system {
	struct vdisk_inspection *in;	/* owned */
	struct vdisk_boot *boot;	/* owned */
	int n_boot, chosen;
	struct vdisk_error boot_error;	/* why there are no boot entries */
	char inside[64];	/* the directory of the root's file system that is the root: "@"; or "" */
};

/*
 * vdisk_inspect() and vdisk_boot_list(); where they find no root and this is root, the same
 * with the help of the kernel's file systems, in a process of its own: nothing is left mounted.
 */
int cli_inspect(struct cli_system *out, struct vdisk *disk, struct vdisk_error *err);
void cli_system_free(struct cli_system *s);

#endif
