/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sandbox.h - what is given up once everything is open */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

#include "vdisk.h"

/*
 * No new privileges, no capabilities, no core dumps: for this thread and those
 * that it starts, so before there are any.
 */
int sandbox_drop_privileges(struct vdisk_error *err);

/*
 * For the whole process, all its threads and those to come: only the system
 * calls that sandbox.c lists.  A forbidden one ends the process, naming itself.
 */
int sandbox_filter(struct vdisk_error *err);

/* A vCPU's thread needs fewer still; called by it, after sandbox_filter(). */
void sandbox_vcpu(void);

#endif
