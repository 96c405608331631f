/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * try_guest.h - a command that a guest runs once, put into its files offline
 *
 * Everything is in one directory of the guest's root, but for the unit or the
 * script that starts it and the links that enable that.
 */
#ifndef CLI_TRY_GUEST_H
#define CLI_TRY_GUEST_H

#include "vdisk.h"

/* The ports on which a guest prints, if it can; on User-Mode Linux its consoles. */
#define TRY_PORT_OUT	"vdisk.out"
#define TRY_PORT_ERR	"vdisk.err"
#define TRY_TTY_OUT	"/dev/tty14"	/* the first port's */
#define TRY_TTY_ERR	"/dev/tty15"

struct try_command {
	char *const *argv;	/* NULL-terminated, borrowed */
	const char *append;	/* out: what the kernel's command line needs; "" nothing */
};

/*
 * Let the guest whose root is @fs run the command once it is up, and then
 * power off.  systemd, OpenRC, System V init, a BusyBox with rcS, or, where none
 * of them is known, the kernel starts our script as its init.
 */
int try_put(struct vdisk_fs *fs, struct try_command *c, struct vdisk_error *err);

/*
 * What came of it: copy its output to @out and its errors to @errors, and
 * *status is its exit status.  0 if it has not come to its end: then no status, but
 * whatever was printed; 1 if it has.
 */
int try_fetch(struct vdisk_fs *fs, int out, int errors, int *status, struct vdisk_error *err);

/* Has it come to its end? */
bool try_is_done(struct vdisk_fs *fs);

/* Take everything of ours out of the guest. */
int try_remove(struct vdisk_fs *fs, struct vdisk_error *err);

#endif
