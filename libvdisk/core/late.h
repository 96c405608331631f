/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * late.h - libraries that are loaded when something needs them
 *
 * Most commands read tar archives as little as they make devices; what the
 * libraries for that bring along took more than half of their time to start.
 * A user has a list of functions, L(F) with F(name) for each, that makes a struct
 * of pointers to them, and of the same list the names that they are found by.
 */
#ifndef VD_LATE_H
#define VD_LATE_H

#include <stddef.h>

#include "vdisk.h"

struct vd_late_symbol {
	const char *name;
	size_t at;		/* of the pointer, in the table */
};

/*
 * Load @soname, for good, and find its functions.  Returns 0, or -ENOTSUP with
 * why in @err.  Once for each library: the caller's pthread_once().
 */
int vd_late_load(const char *soname, const struct vd_late_symbol *symbols, size_t n,
		 void *table, struct vdisk_error *err);

#endif
