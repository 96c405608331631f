/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* view.h - other programs, run on a disk */
#ifndef CLI_VIEW_H
#define CLI_VIEW_H

#include "cli/cli.h"

/*
 * Run a program on @disk, which it sees as a file that is named like @locator: in @argv, the
 * element that is cli_view stands for that file's name.  Returns the exit status of the program,
 * 128 and the signal if one ended it, or -1 after printing why it could not be run.
 */
int cli_view_run(struct vdisk *disk, const char *locator, char **argv);
/* The same, but what it prints goes to stderr if it fails, and else nowhere. */
int cli_view_run_quiet(struct vdisk *disk, const char *locator, char **argv);
/* Is @program there to be run? */
bool cli_view_has(const char *program);
extern char cli_view[];

#endif
