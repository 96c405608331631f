/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* jbd2.h - replay of the journal of ext3, ext4 */
#ifndef VD_JBD2_H
#define VD_JBD2_H

#include "core/driver.h"

#define VD_JBD2_MAX_BLOCKS	10240000u	/* as mke2fs and e2fsck have it */

struct vd_jbd2 {
	struct vdisk *disk;	/* borrowed: holds journal and file system, and is written */
	uint64_t *blocks;	/* owned by the caller: where each block of the journal is */
	uint32_t n_blocks;
	uint32_t block_size;
	uint64_t fs_blocks;	/* size of the file system, in blocks */
	bool had_error;		/* out: the kernel had noted an error in the journal */
};

/*
 * Write what committed transactions hold to its place, and mark the journal
 * empty.  A journal that is damaged is found out before anything is written:
 * -EUCLEAN.  Flushes.
 */
int vd_jbd2_replay(struct vd_jbd2 *j, struct vdisk_error *err);

/* ---- writing: one transaction at a time, which is in its place before the next ---- */

struct vd_jbd2_writer;

struct vd_jbd2_block {
	uint64_t nr;		/* in the file system */
	const uint8_t *data;
};

/* @j: an empty journal; borrowed until vd_jbd2_writer_free(). */
int vd_jbd2_writer_open(struct vd_jbd2_writer **out, struct vd_jbd2 *j, struct vdisk_error *err);
void vd_jbd2_writer_free(struct vd_jbd2_writer *w);
/* How many blocks a transaction may have. */
uint32_t vd_jbd2_writer_room(const struct vd_jbd2_writer *w);
/* From here on the journal may hold something (@on), or does not.  Does not flush. */
int vd_jbd2_mark(struct vd_jbd2_writer *w, bool on, struct vdisk_error *err);
/* Write a transaction and flush: it is valid from then on. */
int vd_jbd2_write(struct vd_jbd2_writer *w, const struct vd_jbd2_block *blocks, uint32_t n,
		  struct vdisk_error *err);
/* Its blocks are in their places, flushed: forget it.  A flush has to come before the
 * next transaction. */
int vd_jbd2_written(struct vd_jbd2_writer *w, struct vdisk_error *err);

#endif
