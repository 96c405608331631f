/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * edit.h - partition tables being edited: see edit.c
 *
 *	part_edit_open(), change e.cxt by libfdisk, part_edit_write(), part_edit_end()
 *
 * or, where libfdisk cannot do it, put sectors into the memory file instead.
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
	struct fdisk_context *cxt; /* owned, or NULL: without libfdisk */
	uint64_t backup_at;	/* where a GPT's backup copy begins; 0: libfdisk knows */
};

/* Read the table of a disk into the memory file. */
int part_edit_begin(struct edit *e, struct vdisk *disk, struct vdisk_error *err);
/* Let libfdisk look at the memory file, with sectors of e->sector. */
int part_edit_assign(struct edit *e, struct vdisk_error *err);
/* Read it, to be changed in the memory file: on a disk that was grown it is fitted to that
 * first.  -ENOENT where there is no table.  On failure there is nothing to end. */
int part_edit_look(struct edit *e, struct vdisk *disk, struct vdisk_error *err);
/* And let libfdisk have it; -ENOENT where there is no table.  On failure there is nothing to end. */
int part_edit_open(struct edit *e, struct vdisk *disk, struct vdisk_error *err);
/* Forget what is in the memory file; what is put there is written without libfdisk. */
int part_edit_empty(struct edit *e, struct vdisk_error *err);
/* The same, and let libfdisk look at that. */
int part_edit_clear(struct edit *e, struct vdisk_error *err);
/* Zero both edges on the disk, so that no former table or file system is found. */
int part_edit_wipe(struct vdisk *disk);
/* Has a GPT room for the name?  libfdisk would cut it silently.  UEFI 2.10, 5.3.3. */
int part_edit_check_name(const char *name, struct vdisk_error *err);
/* Bring what libfdisk made of it to the disk, in a safe order. */
int part_edit_write(struct edit *e, struct vdisk_error *err);
void part_edit_end(struct edit *e);

/* Let partition @p have @length bytes, in the memory file (length.c).  0 or -errno. */
int part_put_length(struct edit *e, const struct vdisk_part *p, uint64_t length);
/*
 * The partitions of a GPT as an MBR with logical ones (logical.c), in the memory file.
 * -ENOSPC where there is no room for boot records.
 */
int part_make_logical(struct edit *e, struct vdisk_error *err);

#endif
