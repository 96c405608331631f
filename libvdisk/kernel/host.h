/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* host.h - block devices of this host: loop, device-mapper, and who uses what */
#ifndef VD_HOST_H
#define VD_HOST_H

#include <sys/stat.h>

#include "core/compiler.h"
#include "vdisk.h"

/* ---- inuse.c: who uses a file or device ---- */

/*
 * Say in one phrase what the kernel or another program does with the block device
 * or file that @st describes: "mounted at /mnt", "held by device-mapper vg-lv",
 * "attached to /dev/loop0, mounted at /mnt".  false: nothing is known.
 */
bool vd_in_use(const struct stat *st, char *out, size_t size);
/* The command line of a process, at most @size; "" where it cannot be read. */
void vd_command_of(long pid, char *out, size_t size);
/* " (COMMAND, pid N)" for a process other than this one that has the file or device
 * open, "" if none is known. */
void vd_opener_of(const struct stat *st, char *out, size_t size);

/* The same for a process that uses something on the file system mounted at @dir. */
void vd_user_of_mount(const char *dir, char *out, size_t size);

/* ---- loop.c ---- */

struct vd_loop {
	int number;		/* /dev/loopN */
	int fd;			/* owned: keeps it from being cleared */
};

enum vd_loop_flags {
	VD_LOOP_READ_ONLY = 1 << 0,
	VD_LOOP_AUTOCLEAR = 1 << 1,	/* goes with its last user */
};

/* The n-th loop device (from 0) that is on the file of @st; -1: no more. */
int vd_loop_of(const struct stat *st, int n);
/* The one on a file of that name, which need not be there any more; -1: none. */
int vd_loop_on_name(const char *path);
/* The number of the next one that is free, as far as this user can tell. */
int vd_loop_next(void);
/* @size 0: to the end. */
int vd_loop_attach(struct vd_loop *out, int fd, const char *name, uint64_t offset, uint64_t size,
		   uint32_t block_size, unsigned flags, struct vdisk_error *err);
/* Have the kernel make devices of the partitions on it, or on an NBD device. */
int vd_loop_partitions(const char *device, struct vdisk_error *err);
/* Make a partition (bytes) that the kernel did not find itself; one that is there is no error. */
int vd_loop_add_partition(const char *device, unsigned number, uint64_t offset, uint64_t length);
int vd_loop_detach(int number, struct vdisk_error *err);

/* ---- nbd.c: a disk of any format as a block device ---- */

struct vd_nbd;

/* Are there NBD devices that we may use? */
bool vd_nbd_available(void);
/* Make one of @disk (own reference), and serve it by threads. */
int vd_nbd_start(struct vd_nbd **out, struct vdisk *disk, struct vdisk_error *err);
/* It is /dev/nbdN. */
int vd_nbd_number(const struct vd_nbd *nbd);
/* End it, also from signal handlers; whoever has it open gets errors. */
void vd_nbd_stop(struct vd_nbd *nbd);
/* Wait until it has ended, and free it. */
void vd_nbd_wait(struct vd_nbd *nbd);

/* ---- host_fs.c: file systems that the kernel has and we have not ---- */

/*
 * Mount the file system on a block device where nobody sees it, without devices,
 * set-user-ID and other programs.  The descriptor of its root, which is the caller's, and with
 * which the mount ends.
 */
int vd_host_mount(const char *device, const char *type, bool read_only, struct vdisk_error *err);
/*
 * The directory @root, a descriptor that it takes on success, and all below it as a file
 * system of ours; nobody else may change anything there.  @disk: for messages (own reference).
 */
int vd_host_fs(struct vdisk_fs **out, struct vdisk *disk, int root, const char *type,
	       bool writable, struct vdisk_error *err);

/* ---- dm.c: device-mapper, through libdevmapper ---- */

struct vd_dm_segment {		/* in sectors of 512 bytes */
	uint64_t start, length;
	const char *target;	/* "linear", "snapshot", ... */
	char params[160];
};

struct vd_dm_device {
	char name[128];
	char uuid[136];
	unsigned major, minor;
};

/* 0, or why not: no module, no permission. */
int vd_dm_available(struct vdisk_error *err);
/*
 * Make the device @name, or give it a new table if there is one of that name; one with
 * another UUID than @uuid (NULL: any) is somebody else's: -EEXIST.
 * @wait: until udev, where there is one, has made its names.
 */
int vd_dm_set(struct vd_dm_device *out, const char *name, const char *uuid,
	      const struct vd_dm_segment *segments, unsigned n, bool read_only, bool wait,
	      struct vdisk_error *err);
enum vd_dm_remove_flags {
	VD_DM_RETRY = 1 << 0,	/* it may be busy for a moment */
	VD_DM_DEFERRED = 1 << 1, /* goes with its last user */
	VD_DM_NOWAIT = 1 << 2,
};
/*
 * What this thread does between the two waits for udev once, at the end: several devices
 * at a time.  Until then their names may be missing.
 */
void vd_dm_hold(void);
void vd_dm_settle(void);
/* -EBUSY says who. */
int vd_dm_remove(const char *name, unsigned flags, struct vdisk_error *err);
/* The device of that number; -ENOENT. */
int vd_dm_find(struct vd_dm_device *out, unsigned major, unsigned minor);
/* How often it is open; -errno. */
int vd_dm_opened(unsigned major, unsigned minor);
/* Call @each for all devices. */
int vd_dm_each(int (*each)(void *arg, const struct vd_dm_device *d), void *arg,
	       struct vdisk_error *err);
/*
 * The table that makes @volume out of the device @major:@minor, which holds the
 * disk @disk that @volume lies on.  -EXDEV where device-mapper cannot do it with
 * linear targets.  @out: to be freed; how many is returned.
 */
int vd_dm_table(struct vd_dm_segment **out, struct vdisk *volume, struct vdisk *disk,
		unsigned major, unsigned minor, struct vdisk_error *err);
/* Is @volume one run of bytes of a file or device?  Its descriptor (borrowed), and where. */
bool vd_plain_run(struct vdisk *volume, int *fd, uint64_t *offset);
/* Does @name have a table whose first target is linear target on the device @major:@minor? */
bool vd_dm_is_linear_on(const char *name, unsigned major, unsigned minor);
/* The volume group and logical volume that a name of LVM's says, to be freed; false: none. */
bool vd_dm_lvm_names(const char *name, char **vg, char **lv);

#endif
