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

#endif
