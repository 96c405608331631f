/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* system.h - the small files in which a system says who it is, as text */
#ifndef VD_GUEST_SYSTEM_H
#define VD_GUEST_SYSTEM_H

#include "vdisk.h"

/* name, id, version and codename out of an os-release(5); what it does not say stays. */
void system_os_release(const char *text, struct vdisk_inspection *out);
/* The host name in a hostname(5); what it does not say stays. */
void system_hostname(const char *text, char *out, size_t size);
/* Each line of an fstab(5); stops when @each returns non-zero, and returns it. */
int system_fstab(const char *text, int (*each)(void *arg, const struct vdisk_fstab *f), void *arg);

#endif
