/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* userns.c - see userns.h */
#include "vmm-lite/userns.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/driver.h"

static bool write_file(const char *path, const char *text)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

bool userns_map(uid_t uid, gid_t gid)
{
	bool all = write_file("/proc/self/setgroups", "deny");
	char text[64];

	snprintf(text, sizeof(text), "%u %u 1", uid, uid);
	all &= write_file("/proc/self/uid_map", text);
	snprintf(text, sizeof(text), "%u %u 1", gid, gid);
	return all & write_file("/proc/self/gid_map", text);
}
