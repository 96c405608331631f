/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* beside.c - see beside.h */
#include "core/beside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int vd_beside(char out[PATH_MAX], const char *name)
{
	ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
	size_t room;
	char *slash;

	if (n < 0)
		return -errno;
	out[n] = '\0';
	slash = strrchr(out, '/');
	if (!slash)
		return -ENOENT;
	room = PATH_MAX - (size_t)(slash + 1 - out);
	return (size_t)snprintf(slash + 1, room, "%s", name) < room ? 0 : -ENAMETOOLONG;
}
