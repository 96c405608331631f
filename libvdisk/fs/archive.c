/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive.c - see archive.h */
#include <pthread.h>

#include "core/driver.h"
#include "core/late.h"
#include "fs/archive.h"

struct vd_archive vd_la;

static struct vdisk_error problem;

static void load(void)
{
#define SYMBOL(f) { "archive_" #f, offsetof(struct vd_archive, f) },
	static const struct vd_late_symbol symbols[] = {
		VD_ARCHIVE_FUNCTIONS(SYMBOL)
		{ "archive_errno", offsetof(struct vd_archive, error_number) },
	};
#undef SYMBOL

	vd_late_load("libarchive.so.13", symbols, ARRAY_SIZE(symbols), &vd_la, &problem);
}

int vd_archive_load(struct vdisk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return problem.code ? vd_fail(err, problem.code, "tar archives: %s", problem.msg) : 0;
}
