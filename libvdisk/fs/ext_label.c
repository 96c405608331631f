/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext_label.c - label and UUID of ext2/3/4, and which of its blocks are free
 *
 * Both stand in the superblock and its copies.  The UUID is also the seed of
 * most checksums: with metadata_csum (and no seed of its own stored) every
 * inode, directory block, extent block, attribute block and bitmap has to be
 * written again, as tune2fs does.  Checksums are not verified while that is
 * under way.
 */
#include <errno.h>
#include <stdio.h>

#include "fs/ext.h"

#define LABEL_MAX 16u

/* The superblock and its copies; with @groups the group descriptors and their copies too. */
static int write_supers(struct ext_fs *e, bool groups, struct vdisk_error *err)
{
	errcode_t code;

	e->fs->flags &= ~EXT2_FLAG_MASTER_SB_ONLY;
	if (!groups)
		e->fs->flags |= EXT2_FLAG_SUPER_ONLY;
	ext2fs_mark_super_dirty(e->fs);
	code = ext2fs_flush(e->fs);
	e->fs->flags |= EXT2_FLAG_MASTER_SB_ONLY;
	e->fs->flags &= ~EXT2_FLAG_SUPER_ONLY;
	return vd_ext_fail(err, code, "cannot write the superblocks");
}

int vd_ext_set_label(struct vdisk_fs *fs, const char *label, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	uint8_t *field = e->fs->super->s_volume_name;
	size_t len = strlen(label);
	int r;

	if (len > LABEL_MAX)
		return vd_fail(err, EINVAL, "'%s': a label of %s has at most %u bytes", label,
			       fs->type, LABEL_MAX);
	r = vd_ext_begin(fs, err);
	if (r < 0)
		return r;
	memset(field, 0, LABEL_MAX);
	memcpy(field, label, len);
	return write_supers(e, false, err);
}

/* ---- checksums ---- */

struct redo {
	ext2_ino_t ino;
	void *buf;		/* owned: a block */
	errcode_t code;
};

static int redo_dir_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t count, blk64_t ref,
			  int ref_offset, void *arg)
{
	struct redo *d = arg;

	(void)ref, (void)ref_offset;
	if (count < 0)
		return 0;
	d->code = ext2fs_read_dir_block4(fs, *block, d->buf, 0, d->ino);
	if (!d->code)
		d->code = ext2fs_write_dir_block4(fs, *block, d->buf, 0, d->ino);
	return d->code ? BLOCK_ABORT : 0;
}

static errcode_t redo_inode(ext2_filsys fs, struct redo *d, struct ext2_inode *inode, int size)
{
	blk64_t ea;
	errcode_t code = ext2fs_read_inode2(fs, d->ino, inode, size, READ_INODE_NOCSUM);

	if (!code)
		code = ext2fs_write_inode_full(fs, d->ino, inode, size);
	if (code || !inode->i_links_count)
		return code;
	if (inode->i_flags & EXT4_EXTENTS_FL)
		code = ext2fs_fix_extents_checksums(fs, d->ino, inode);
	if (!code && LINUX_S_ISDIR(inode->i_mode) && !(inode->i_flags & EXT4_INLINE_DATA_FL)) {
		code = ext2fs_block_iterate3(fs, d->ino, 0, NULL, redo_dir_block, d);
		code = code ? code : d->code;
	}
	ea = code ? 0 : ext2fs_file_acl_block(fs, inode);
	if (ea) {	/* seeded by its place, not by an inode */
		code = ext2fs_read_ext_attr3(fs, ea, d->buf, d->ino);
		if (!code)
			code = ext2fs_write_ext_attr3(fs, ea, d->buf, d->ino);
	}
	return code;
}

static errcode_t redo_all(ext2_filsys fs, struct redo *d, struct ext2_inode *inode, int size)
{
	uint32_t per_group = fs->super->s_inodes_per_group;
	errcode_t code = 0;

	for (dgrp_t g = 0; !code && g < fs->group_desc_count; g++) {
		uint32_t used = per_group;

		if (ext2fs_has_group_desc_csum(fs)) {
			used -= MIN(per_group, ext2fs_bg_itable_unused(fs, g));
			if (ext2fs_bg_flags_test(fs, g, EXT2_BG_INODE_UNINIT))
				used = 0;
		}
		for (uint32_t i = 1; !code && i <= used; i++) {
			d->ino = g * per_group + i;
			code = redo_inode(fs, d, inode, size);
		}
	}
	ext2fs_mark_bb_dirty(fs);
	ext2fs_mark_ib_dirty(fs);
	return code;
}

static int redo_checksums(struct ext_fs *e, struct vdisk_error *err)
{
	int size = EXT2_INODE_SIZE(e->fs->super);
	AUTO_FREE void *buf = malloc(e->fs->blocksize), *inode = calloc(1, (size_t)size);
	struct redo d = { .buf = buf };
	errcode_t code;

	if (!buf || !inode)
		return vd_fail(err, ENOMEM, "out of memory");
	e->fs->flags |= EXT2_FLAG_IGNORE_CSUM_ERRORS;
	code = redo_all(e->fs, &d, inode, size);
	e->fs->flags &= ~EXT2_FLAG_IGNORE_CSUM_ERRORS;
	return vd_ext_fail(err, code, "cannot write the checksums anew");
}

int vd_ext_set_uuid(struct vdisk_fs *fs, const uint8_t uuid[16], struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_super_block *sb = e->fs->super;
	bool csum = ext2fs_has_feature_metadata_csum(sb);
	int r;

	if (ext2fs_has_feature_orphan_file(sb) || ext2fs_has_feature_mmp(sb))
		if (csum && !ext2fs_has_feature_csum_seed(sb))
			return vd_fail(err, ENOTSUP,
				       "the UUID cannot be changed with the features orphan_file or mmp");
	r = vd_ext_begin(fs, err);
	if (r < 0)
		return r;
	vd_ext_index_free(e);
	memcpy(sb->s_uuid, uuid, 16);
	if (csum && !ext2fs_has_feature_csum_seed(sb)) {
		ext2fs_init_csum_seed(e->fs);
		r = redo_checksums(e, err);
	}
	for (dgrp_t g = 0; r == 0 && g < e->fs->group_desc_count; g++)
		ext2fs_group_desc_csum_set(e->fs, g);
	if (r == 0)
		r = write_supers(e, true, err);
	if (r < 0)
		e->failed = r;	/* half of it has the new seed */
	return r;
}

/* ---- free blocks ---- */

int vd_ext_each_free(struct vdisk_fs *fs, int (*each)(void *arg, uint64_t off, uint64_t len),
		     void *arg, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	blk64_t last = ext2fs_blocks_count(e->fs->super) - 1, b = e->fs->super->s_first_data_block;
	uint64_t size = e->fs->blocksize;
	int r = vd_ext_begin(fs, err);

	while (r == 0 && b <= last) {
		blk64_t from, to;

		if (ext2fs_find_first_zero_block_bitmap2(e->fs->block_map, b, last, &from) != 0)
			break;
		if (ext2fs_find_first_set_block_bitmap2(e->fs->block_map, from, last, &to) != 0)
			to = last + 1;
		r = each(arg, from * size, (to - from) * size);
		b = to;
	}
	return r;
}
