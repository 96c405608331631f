/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* landlock.c - see landlock.h */
#include "core/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* bits that the headers here may not have */
#define REFER		(UINT64_C(1) << 13)
#define TRUNCATE	(UINT64_C(1) << 14)
#define IOCTL_DEV	(UINT64_C(1) << 15)

/* What each version of Landlock has added */
static uint64_t all_rights(int version)
{
	uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;	/* version 1 */

	if (version >= 2)
		rights |= REFER;
	if (version >= 3)
		rights |= TRUNCATE;
	if (version >= 5)
		rights |= IOCTL_DEV;
	return rights;
}

/* Allow @rights below @dir, and nothing else of what there is. */
static int restrict_to(uint64_t rights, const char *dir)
{
	struct landlock_ruleset_attr attr = { 0 };
	struct landlock_path_beneath_attr rule = { 0 };
	int version = vd_landlock_version(), r = 0;
	long fd;

	if (!version)
		return -errno;
	attr.handled_access_fs = all_rights(version);
	fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	if (fd < 0)
		return -errno;
	/* a set without a rule allows nothing of what it handles */
	rule.allowed_access = rights & attr.handled_access_fs;
	if (rule.allowed_access) {
		rule.parent_fd = open(dir, O_PATH | O_CLOEXEC);
		if (rule.parent_fd < 0 ||
		    syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
			r = -errno;
		if (rule.parent_fd >= 0)
			close(rule.parent_fd);
	}
	if (r == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		r = -errno;
	close((int)fd);
	return r;
}

int vd_landlock_version(void)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0,
			       LANDLOCK_CREATE_RULESET_VERSION);

	return version < 0 ? 0 : (int)version;
}

int vd_landlock_nothing(void)
{
	return restrict_to(0, "/");
}

int vd_landlock_files(void)
{
	return restrict_to(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
			   LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
			   LANDLOCK_ACCESS_FS_REMOVE_FILE | TRUNCATE | IOCTL_DEV, "/");
}

int vd_landlock_sockets(const char *dir)
{
	return restrict_to(LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE, dir);
}
