/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dir.c - the private directory of a guest on User-Mode Linux, and who removes it
 *
 * A process of its own does: it is there when vmm-uml was killed, and may remove a
 * directory when vmm-uml may not any more.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/uml/uml.h"

/* Sockets, and what UML leaves in a directory of its own there when it is killed. */
static void empty(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(fd, e->d_name, 0) == 0 || errno != EISDIR)
			continue;
		empty(fd, e->d_name);
		unlinkat(fd, e->d_name, AT_REMOVEDIR);
	}
	closedir(dir);
}

/* Until vmm-uml says so, or has ended. */
NORETURN
static void sweep(const struct uml *u, int told)
{
	char byte;

	prctl(PR_SET_NAME, "vdisk-uml-dir");
	setsid();	/* the terminal's signals are not for it */
	dup2(told, STDIN_FILENO);
	/* a caller may wait for the end of what it printed */
	close_range(1, ~0u, 0);
	while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
		;
	empty(AT_FDCWD, u->dir);
	_exit(rmdir(u->dir) < 0);
}

int uml_dir_make(struct uml *u, struct vdisk_error *err)
{
	const char *tmp = getenv("TMPDIR");
	int told[2];

	if (!tmp || strlen(tmp) > 72)
		tmp = "/tmp";
	snprintf(u->dir, sizeof(u->dir), "%.72s/vdisk-uml.XXXXXX", tmp);
	if (!mkdtemp(u->dir)) {
		u->dir[0] = '\0';
		return vd_fail(err, errno, "%s/vdisk-uml: %m", tmp);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, told) < 0) {
		rmdir(u->dir);
		return vd_fail(err, errno, "socketpair: %m");
	}
	u->sweeper = fork();
	if (u->sweeper == 0)
		sweep(u, told[0]);
	close(told[0]);
	u->sweeper_fd = told[1];
	if (u->sweeper < 0) {
		u->sweeper = 0;
		rmdir(u->dir);
		return vd_fail(err, errno, "fork: %m");
	}
	return 0;
}

void uml_dir_remove(struct uml *u)
{
	if (u->sweeper <= 0)
		return;
	/* (what was forked off after it has the other end too) */
	shutdown(u->sweeper_fd, SHUT_RDWR);
	while (waitpid(u->sweeper, NULL, 0) < 0 && errno == EINTR)
		;
	close(STEAL_FD(u->sweeper_fd));
	u->sweeper = 0;
}
