/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* landlock.c - see landlock.h */
#include "core/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What each version of Landlock has added; bits that the headers here may not have. */
static uint64_t all_rights(long version)
{
	uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;	/* version 1 */

	if (version >= 2)
		rights |= UINT64_C(1) << 13;	/* REFER */
	if (version >= 3)
		rights |= UINT64_C(1) << 14;	/* TRUNCATE */
	if (version >= 5)
		rights |= UINT64_C(1) << 15;	/* IOCTL_DEV */
	return rights;
}

int vd_landlock_nothing(void)
{
	struct landlock_ruleset_attr attr = { 0 };
	long version = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0,
			       LANDLOCK_CREATE_RULESET_VERSION);
	long fd;
	int r = 0;

	if (version < 0)
		return -errno;
	attr.handled_access_fs = all_rights(version);
	fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	if (fd < 0)
		return -errno;
	/* a set without a rule allows nothing of what it handles */
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		r = -errno;
	close((int)fd);
	return r;
}
