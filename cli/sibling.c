/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sibling.c - the other programs of this package */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "core/beside.h"

static bool is_there(const char *path)
{
	return access(path, X_OK) == 0;
}

int cli_sibling(char **out, const char *name)
{
	char path[PATH_MAX], system[64];

	snprintf(system, sizeof(system), "../sbin/%s", name);
	if (!(vd_beside(path, name) == 0 && is_there(path)) &&
	    !(vd_beside(path, system) == 0 && is_there(path))) {
		snprintf(path, sizeof(path), "%s/%s", VDISK_LIBEXECDIR, name);
		if (!is_there(path)) {
			cli_error("the program %s is missing: neither beside vdisk nor in %s", name,
				  VDISK_LIBEXECDIR);
			return CLI_FAILED;
		}
	}
	*out = strdup(path);
	if (!*out) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	return CLI_OK;
}
