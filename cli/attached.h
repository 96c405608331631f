/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attached.h - disks as block devices of this host
 *
 * A plain file gets a loop device, a device is used as it is, and any other disk
 * (an image format, a snapshot, a logical volume in an image) first becomes a
 * file: a view, served by a process in the background through FUSE.
 */
#ifndef CLI_ATTACHED_H
#define CLI_ATTACHED_H

#include <sys/stat.h>

#include "cli/cli.h"

/* Is the locator a device or a raw file, all of it?  Then @st is what stat() says. */
bool host_is_plain(const char *locator, struct stat *st);

/* The view of a disk: its file, to be freed; NULL: there is none. */
char *view_find(const char *locator);
/* The same, started if there is none; prints what goes wrong. */
char *view_start(const char *locator, bool read_only);
/* End it, and wait until all is on the disk. */
int view_stop(const char *locator);

#endif
