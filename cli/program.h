/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* program.h - programs of the host that are run and waited for: mount(8), lvm(8), fusermount3(1) */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include "cli/cli.h"

/* Where its output goes, or its messages: to a descriptor, or */
enum { PROGRAM_OURS = -1, PROGRAM_NOWHERE = -2 };

/*
 * Run argv[0], found in PATH, and wait.  CLI_OK: its status was 0.  That it cannot be started
 * is its message, so it is seen where those are.  One whose output goes to a descriptor
 * speaks English.
 */
int program_run(const char *const *argv, int out, int err);

/* A place for what a program says, a descriptor; -1. */
int program_pad(void);
/* What is on it (at most @size - 1 bytes), on one line; and close it. */
void program_said(int *pad, char *text, size_t size);

#endif
