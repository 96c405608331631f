/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sandbox.h - what the vhost-user server gives up once disk and sockets are open */
#ifndef VMM_VHOST_SANDBOX_H
#define VMM_VHOST_SANDBOX_H

#include "vdisk.h"

/* Before any thread is started: no capabilities, no new privileges, no core dumps. */
int vhost_drop_privileges(struct vdisk_error *err);

/*
 * For all threads: only the system calls in the table.  @unlinks: the names,
 * in memory that stays, of the sockets to be removed at the end; NULL ends it.
 * @network: the disk is remote, and may have to be reached again.
 */
int vhost_filter(const char *const *unlinks, bool network, struct vdisk_error *err);

/* For the tests: is a call allowed whatever its arguments are, by them, or refused (not fatal)? */
bool vhost_allows(int call, bool network);
bool vhost_judges(int call);
bool vhost_refuses(int call, bool network);

#endif
