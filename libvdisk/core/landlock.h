/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* landlock.h - no file system any more, where the kernel has Landlock */
#ifndef VD_CORE_LANDLOCK_H
#define VD_CORE_LANDLOCK_H

/*
 * From here on this thread, and what it starts, opens, makes and removes no
 * file by name; descriptors stay as they are.  PR_SET_NO_NEW_PRIVS must be set.
 * 0; -ENOSYS or -EOPNOTSUPP where the kernel cannot do it, which a caller with
 * other means may pass over.
 */
int vd_landlock_nothing(void);
/* The kernel's version of it; 0: it has none. */
int vd_landlock_version(void);
/*
 * The same, but regular files may still be opened, made and removed, and directories
 * read: no programs, no devices, directories, sockets and links that are made.
 */
int vd_landlock_files(void);
/* The same, but sockets may be made in directory @dir, and what is in it removed. */
int vd_landlock_sockets(const char *dir);

#endif
