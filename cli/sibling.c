/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sibling.c - the other programs of this package */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

/* In the directory of this program, or @below seen from there. */
static char *beside_us(const char *below, const char *name)
{
	AUTO_FREE char *self = realpath("/proc/self/exe", NULL);
	char *slash = self ? strrchr(self, '/') : NULL, *path = NULL;

	if (!slash || asprintf(&path, "%.*s/%s%s", (int)(slash - self), self, below, name) < 0)
		return NULL;
	return path;
}

int cli_sibling(char **out, const char *name)
{
	AUTO_FREE char *near = beside_us("", name), *system = beside_us("../sbin/", name);
	AUTO_FREE char *installed = NULL;

	if (near && access(near, X_OK) == 0) {
		*out = STEAL(near);
		return CLI_OK;
	}
	if (system && access(system, X_OK) == 0) {
		*out = STEAL(system);
		return CLI_OK;
	}
	if (asprintf(&installed, "%s/%s", VDISK_LIBEXECDIR, name) < 0)
		installed = NULL;
	if (installed && access(installed, X_OK) == 0) {
		*out = STEAL(installed);
		return CLI_OK;
	}
	cli_error("the program %s is missing: neither beside vdisk nor in %s", name,
		  VDISK_LIBEXECDIR);
	return CLI_FAILED;
}
