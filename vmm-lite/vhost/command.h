/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* command.h - the command line of a disk's process, vdisk-vhost */
#ifndef VMM_VHOST_COMMAND_H
#define VMM_VHOST_COMMAND_H

#include <limits.h>

#include "vmm-lite/options.h"

/* What belongs to the process, and not to the disk. */
struct vhost_place {
	int fd;			/* its connection, or the socket where it waits for that */
	int control_fd, ready_fd;
	unsigned queues;
	int poll_us;		/* 0 or less: not said */
	bool once, no_sandbox;
	bool failing;		/* it stands in for the disk's, and opens nothing */
	bool detach;		/* it lets go of the terminal once the disk is open */
};

struct vhost_command {
	const char *arg[48 + 2 * DISK_FILES_MAX];
	unsigned n;
	char number[8][16];
	unsigned n_numbers;
	char limits[LIMITS_TEXT_MAX];
	char *file[DISK_FILES_MAX];
};

/* To be executed at once: its strings are borrowed from @d, or go with this process's
 * memory.  -ENOMEM, or -E2BIG for too many files. */
int vhost_command(struct vhost_command *c, const struct disk_option *d,
		  const struct vhost_place *p);

/* The program beside this one, which is there. */
int vhost_program(char out[PATH_MAX], struct vdisk_error *err);

#endif
