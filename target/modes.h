/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* modes.h - what vdiskd does, by its first argument */
#ifndef TARGET_MODES_H
#define TARGET_MODES_H

/* Exit status: 0 done, 1 failed, 2 wrong usage. */
int vdiskd_export(int argc, char **argv);
/* No mode: as the configuration file says. */
int vdiskd_daemon(int argc, char **argv);

#endif
