/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files.h - what the commands about files in disks share */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include "cli/cli.h"

/*
 * A file in a disk, "DISK[#PART]:/path".  The file system is open once for each
 * disk that a command names, however often it names it.
 */
struct cli_file {
	struct vdisk_fs *fs;	/* borrowed: closed by cli_files_close() */
	char *path;		/* owned */
};

/*
 * Open the disk and its file system: the partition that is named, else the root
 * of the guest.  A command that writes opens what it writes first.  On failure
 * the error has been printed.
 */
int cli_file_open(struct cli_file *out, const char *locator, bool write);
void cli_file_clear(struct cli_file *f);
#define AUTO_FILE __attribute__((cleanup(cli_file_clear)))

/* Has @text a path behind a disk, so that it is not a file of this host? */
bool cli_is_guest_file(const char *text);

/* Sync and close all file systems; CLI_OK, or CLI_FAILED after printing why. */
int cli_files_close(int status);

/* "DIR/NAME" without double slashes; the caller frees. */
char *cli_join(const char *dir, const char *name);
/* The last name of a path, without what slashes may follow; the caller frees. */
char *cli_basename(const char *path);

/* "drwxr-xr-x" */
const char *cli_mode_string(char buf[11], uint32_t mode);
/* As JSON; @name and @target may be NULL. */
json_t *cli_stat_json(const char *name, const struct vdisk_stat *st, const char *target);

/* Call @fn for @path and, if @recursive, all that is below it; stops on errors. */
int cli_walk(struct vdisk_fs *fs, const char *path, bool recursive,
	     int (*fn)(void *arg, struct vdisk_fs *fs, const char *path,
		       const struct vdisk_stat *st), void *arg);

/* Has the file system on a volume what only a guest's root has?  Of those that we read ourselves. */
bool files_is_root(struct vdisk *volume);

#endif
