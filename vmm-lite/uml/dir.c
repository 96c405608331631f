/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dir.c - the private directory where a guest meets its disks and network cards
 *
 * It is locked as long as its guest's process lives.  One that is not belonged to a
 * process that was killed, and is removed by the next one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/uml/uml.h"

#define NAME	"vdisk-uml."

static const char *parent(void)
{
	const char *tmp = getenv("TMPDIR");

	return tmp && strlen(tmp) <= 72 ? tmp : "/tmp";
}

/* What we and UML put there; anything else stays, and the directory with it. */
static void empty(int dir)
{
	static const char *const left[] = { "guest/mconsole", "guest/pid" };
	char name[16];

	for (unsigned i = 0; i < UML_SLOTS_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		unlinkat(dir, name, 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(left); i++)
		unlinkat(dir, left[i], 0);
	unlinkat(dir, "guest", AT_REMOVEDIR);
}

static void sweep(const char *where)
{
	DIR *all = opendir(where);
	struct dirent *e;

	while (all && (e = readdir(all))) {
		AUTO_CLOSE int dir = -1;
		struct stat st;

		if (strncmp(e->d_name, NAME, strlen(NAME)))
			continue;
		dir = openat(dirfd(all), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (dir < 0 || fstat(dir, &st) < 0 || st.st_uid != geteuid() ||
		    flock(dir, LOCK_EX | LOCK_NB) < 0)
			continue;
		empty(dir);
		unlinkat(dirfd(all), e->d_name, AT_REMOVEDIR);
	}
	if (all)
		closedir(all);
}

int uml_dir_make(struct uml *u, struct vdisk_error *err)
{
	struct stat st = { .st_nlink = 0 };

	sweep(parent());
	/* another one may sweep it away before it is locked */
	while (!st.st_nlink) {
		if (u->dir_fd >= 0)
			close(STEAL_FD(u->dir_fd));
		snprintf(u->dir, sizeof(u->dir), "%.72s/" NAME "XXXXXX", parent());
		if (!mkdtemp(u->dir)) {
			u->dir[0] = '\0';
			return vd_fail(err, errno, "%s/" NAME ": %m", parent());
		}
		u->dir_fd = open(u->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (u->dir_fd < 0 && errno == ENOENT)
			continue;
		if (u->dir_fd < 0 || flock(u->dir_fd, LOCK_EX) < 0 || fstat(u->dir_fd, &st) < 0)
			return vd_fail(err, errno, "%s: %m", u->dir);
	}
	return 0;
}

void uml_dir_remove(struct uml *u)
{
	if (u->dir_fd < 0)
		return;
	empty(u->dir_fd);
	rmdir(u->dir);
	close(STEAL_FD(u->dir_fd));
}
