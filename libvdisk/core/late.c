/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* late.c - see late.h */
#include <dlfcn.h>
#include <errno.h>

#include "core/driver.h"
#include "core/late.h"

int vd_late_load(const char *soname, const struct vd_late_symbol *symbols, size_t n,
		 void *table, struct vdisk_error *err)
{
	void *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

	if (!library)
		return vd_fail(err, ENOTSUP, "a library is missing: %s", dlerror());
	for (size_t i = 0; i < n; i++) {
		void *f = dlsym(library, symbols[i].name);

		if (!f)
			return vd_fail(err, ENOTSUP, "%s has no %s", soname, symbols[i].name);
		memcpy((char *)table + symbols[i].at, &f, sizeof(f));
	}
	return 0;
}
