/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* export_access.h - who may use an exported target, from the command line */
#ifndef TARGET_EXPORT_ACCESS_H
#define TARGET_EXPORT_ACCESS_H

#include <stdio.h>

#include "target/config.h"

/*
 * The options are turned into the lines that vdiskd.conf(5) would have for them, and
 * go through its parser: they mean the same and are checked in the same way.
 */
struct export_access {
	FILE *users, *rules;		/* owned; where the lines go, NULL before the first one */
	char *users_text, *rules_text;	/* owned by the two */
	size_t users_len, rules_len;
};

/* "USER:FILE": @directive is "chap" or "chap-mutual".  -EINVAL, -errno of the file's name */
int export_access_user(struct export_access *a, const char *directive, const char *value);
/* A directive of the target's block with words that are separated by commas */
int export_access_rule(struct export_access *a, const char *directive, const char *value);
/* All of it for the target @name; also frees it. */
int export_access_end(struct export_access *a, const char *name, struct iscsi_access *out,
		      struct vdisk_error *err);

#endif
