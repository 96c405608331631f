/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* packages.h - the databases of package managers */
#ifndef VD_GUEST_PACKAGES_H
#define VD_GUEST_PACKAGES_H

#include "vdisk.h"

typedef int package_fn(void *arg, const struct vdisk_package *p);

/* Each installed package; stops when @each returns non-zero, and returns it. */
int packages_dpkg(const char *status, package_fn *each, void *arg);
int packages_apk(const char *installed, package_fn *each, void *arg);
/* A directory name of pacman's database: "bash-5.2.026-2".  0, or -EINVAL. */
int packages_pacman(const char *dir, struct vdisk_package *out);
/*
 * rpm's database, of any of its three kinds; @wal: SQLite's write-ahead log beside
 * it, or NULL.  -EINVAL with @why: a damaged one, part of which has been handed out.
 */
int packages_rpm(const void *data, size_t len, const void *wal, size_t wal_len, package_fn *each,
		 void *arg, const char **why);
/* A package of it.  0, or -EINVAL. */
int packages_rpm_header(const uint8_t *blob, size_t len, struct vdisk_package *out);

#endif
