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
#include "kernel/host.h"

struct host_disk {
	const char *locator;	/* borrowed */
	bool plain;		/* a device, or a raw file, all of it */
	struct stat st;		/* of the file or device with the bytes */

	/* once found or made: the device that maps are on */
	char device[160];
	char name[128];		/* its name, before the delimiter in those of maps */
	unsigned major, minor;
	char uuid[160];		/* what follows "partN-" in the UUIDs of its maps */
};

/* Look at what the locator names; prints what goes wrong. */
int host_disk_open(struct host_disk *h, const char *locator);
/* Is there a device for it? */
bool host_disk_find(struct host_disk *h);
/* The device that it would get, for listings. */
void host_disk_guess(struct host_disk *h);
/* Make one, unless there is one.  @keep_lock: a process keeps the image's lock. */
int host_disk_make(struct host_disk *h, bool read_only, bool keep_lock);
/* Take away what was made for it; @verbose: say so. */
int host_disk_drop(struct host_disk *h, bool verbose);

/*
 * Put a snapshot over its device, which then takes its place in @h: what is written goes into
 * a nameless file in $TMPDIR or /var/tmp, and goes with it.
 */
int host_disk_snapshot(struct host_disk *h);
/* Is there one?  It takes the place of the device then. */
bool host_disk_find_snapshot(struct host_disk *h);

/* Clear away what was made on a view whose process was killed. */
void host_disk_sweep(const char *view);

/* "p" if its name ends in a digit, else "". */
const char *host_delimiter(const struct host_disk *h);

/* Make or change the map @name with the UUID "@id-..." on it; prints what goes wrong. */
int host_map_set(struct vd_dm_device *out, const struct host_disk *h, const char *name,
		 const char *id, const struct vd_dm_segment *segments, unsigned n,
		 bool read_only, bool wait);
/* Call @each for its maps; they may go meanwhile. */
int host_each_map(const struct host_disk *h,
		  int (*each)(void *arg, const struct vd_dm_device *d), void *arg);

/*
 * The view of a disk: its file, to be freed; NULL: there is none.  Of a plain file
 * a view is the file itself, and its process only keeps the image's locks.
 */
char *view_find(const char *locator);
/* The same, started if there is none; prints what goes wrong. */
char *view_start(const char *locator, bool read_only, bool plain);
/* End it, and wait until all is on the disk. */
int view_stop(const char *locator);

#endif
