/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * args.h - command lines that show no secrets
 *
 * Everybody on a host can read every process's arguments.  A program of ours that
 * starts another one hands it those that hold secrets (locators: see vdisk_redact()) in
 * a memory file, and shows them without; one that was given some by a person takes them
 * off its own command line as soon as it runs.
 */
#ifndef VD_ARGS_H
#define VD_ARGS_H

/*
 * As execv(3), for a program that calls vd_take_args(): what its arguments hide goes
 * along.  Returns on failure only, -1 with errno.
 */
int vd_execv(const char *path, const char *const *argv);

/*
 * At the start of main(): the arguments as they were meant, valid until the process
 * ends; @argv shows no secret from then on.  NULL, with errno: ENOMEM; EINVAL: what was
 * handed over does not belong to @argv.
 */
char **vd_take_args(int argc, char **argv);

#endif
