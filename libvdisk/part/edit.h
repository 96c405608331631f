/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * edit.h - partition tables being edited: see edit.c
 *
 *	part_edit_open(), change e.cxt by libfdisk, part_edit_write(), part_edit_end()
 */
#ifndef VD_PART_EDIT_H
#define VD_PART_EDIT_H

#include <libfdisk/libfdisk.h>

#include "part/part.h"

#define EDGE	(1u << 20)	/* copied at both ends; also the alignment of partitions */

struct edit {
	struct vdisk *disk;	/* borrowed */
	struct vdisk_parts *old; /* owned: the table in force */
	struct part_places places; /* owned: where it is */
	const char *path;	/* borrowed: the disk's name for libfdisk; NULL: its own */
	uint32_t sector;
	int fd;			/* owned: the memory file */
	struct fdisk_context *cxt; /* owned, or NULL */
};

/* Read the table of a disk into the memory file. */
int part_edit_begin(struct edit *e, struct vdisk *disk, struct vdisk_error *err);
/* Let libfdisk look at the memory file, with sectors of e->sector. */
int part_edit_assign(struct edit *e, struct vdisk_error *err);
/* Both; -ENOENT where there is no table.  On failure there is nothing to end. */
int part_edit_open(struct edit *e, struct vdisk *disk, struct vdisk_error *err);
/* Forget what is in the memory file, and let libfdisk look at that. */
int part_edit_clear(struct edit *e, struct vdisk_error *err);
/* Zero both edges on the disk, so that no former table or file system is found. */
int part_edit_wipe(struct vdisk *disk);
/* Has a GPT room for the name?  libfdisk would cut it silently.  UEFI 2.10, 5.3.3. */
int part_edit_check_name(const char *name, struct vdisk_error *err);
/* Bring what libfdisk made of it to the disk, in a safe order. */
int part_edit_write(struct edit *e, struct vdisk_error *err);
void part_edit_end(struct edit *e);

#endif
