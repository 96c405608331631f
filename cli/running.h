/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * running.h - what vdisk keeps running on this host: mounts, attached disks
 *
 * Each is a process in the background, and a file in a directory of the user's
 * that tells what it serves.  The process holds a lock (flock) on its file as
 * long as it lives; a file without one is what a killed process left behind.
 * A process that ends well removes its file.
 *
 * The directory is $VDISK_RUNTIME_DIR, else /run/vdisk for root, else vdisk in
 * $XDG_RUNTIME_DIR, else /tmp/vdisk-UID.
 */
#ifndef CLI_RUNNING_H
#define CLI_RUNNING_H

#include "cli/cli.h"

struct running {
	char *path;		/* owned: of the file */
	int fd;			/* owned: of the file; for the process itself, locked */
	json_t *info;		/* owned: what stands in it */
	bool alive;
};

/* A string or number of the description; "" or 0 if it is not there. */
const char *running_string(const struct running *r, const char *key);
long running_number(const struct running *r, const char *key);

/* The directory, made where needed; prints what goes wrong.  To be freed. */
char *running_dir(void);

/*
 * Become a process in the background: returns in the child only.  The caller's
 * process waits for running_ready(), or for the child's end, and exits as it
 * says.  @foreground: stay.
 */
void running_begin(bool foreground);
/* All is set up: lets the first process go, and the terminal too. */
void running_ready(void);

/* Make this process's file, of kind "mount" or "attach", with the lock. */
int running_new(struct running *out, const char *kind);
/* Write r->info into it. */
int running_save(struct running *r);
/* The end: the file goes, or tells of @problem (may be NULL) to whoever asks next. */
void running_end(struct running *r, const char *problem);
void running_clear(struct running *r);

/* Call @each for what is there; stops when it returns non-zero, which is returned. */
int running_each(int (*each)(void *arg, struct running *r), void *arg);
/* Wait until its process has ended; CLI_OK, or print the problem that it had. */
int running_wait(struct running *r);
/* Unmount what FUSE served at @path, if its server is gone. */
void running_unmount_dead(const char *path);
/* Clear away what killed processes left, and say so. */
void running_sweep(void);

#endif
