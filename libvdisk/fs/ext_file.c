/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext_file.c - what is in the files of ext2/3/4
 *
 * libext2fs's own file functions go block by block.  Here a file is mapped in
 * runs (vd_ext_map), whole runs are allocated at once, and the bytes go
 * straight between the caller and the disk.
 *
 *   1. Bytes of an allocated block that lie behind the end of the file are
 *      zero, as the kernel keeps them: a longer file shows zeroes there.
 *   2. A new block is filled in the call that allocates it; what of it the
 *      caller does not write is zeroed.
 *   3. When space runs out midway, the file ends where its data end, and
 *      nothing is left allocated behind that.
 *
 * Small files may live in their inode ("inline data"); these go through
 * libext2fs as they are, it moves them out when they grow.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/ext.h"

#define MAX_STEPS		4096u	/* pointers of a block map followed for one run */
#define MAX_DATA_RUN		65536u	/* blocks, in one answer of vd_ext_next_data */
#define MAX_EXTENT_DEPTH	5	/* as the kernel has it */
#define ZERO_CHUNK		65536u
#define MAX_ALLOCATE		32768u	/* blocks at once */

/* ---- where the blocks are ---- */

static uint64_t size_of(struct ext2_inode_large *inode)
{
	return EXT2_I_SIZE(small(inode));
}

static bool is_inline(const struct ext2_inode_large *inode)
{
	return inode->i_flags & EXT4_INLINE_DATA_FL;
}

/* The run at @start, found with an extent tree's handle on the nearest extent. */
static int run_of_extent(ext2_extent_handle_t h, uint64_t start, uint64_t max,
			 struct ext_run *run, struct vdisk_error *err)
{
	struct ext2fs_extent ext;
	errcode_t code;

	*run = (struct ext_run) { .start = start, .count = max };
	code = ext2fs_extent_goto(h, start);
	if (code && code != EXT2_ET_EXTENT_NOT_FOUND)
		return vd_ext_fail(err, code, "extent tree");
	code = ext2fs_extent_get(h, EXT2_EXTENT_CURRENT, &ext);
	if (code == EXT2_ET_NO_CURRENT_NODE || code == EXT2_ET_EXTENT_NOT_FOUND)
		return 0;	/* an empty tree */
	if (code)
		return vd_ext_fail(err, code, "extent tree");
	/* in a hole, the current extent is the one before it, if there is one */
	if (ext.e_lblk + ext.e_len <= start) {
		code = ext2fs_extent_get(h, EXT2_EXTENT_NEXT_LEAF, &ext);
		if (code == EXT2_ET_EXTENT_NO_NEXT)
			return 0;
		if (code)
			return vd_ext_fail(err, code, "extent tree");
	}
	if (ext.e_lblk > start) {
		run->count = MIN(max, ext.e_lblk - start);
		return 0;
	}
	if (ext.e_lblk + ext.e_len <= start)
		return 0;
	run->count = MIN(max, ext.e_lblk + ext.e_len - start);
	run->block = ext.e_pblk + (start - ext.e_lblk);
	run->unwritten = ext.e_flags & EXT2_EXTENT_FLAGS_UNINIT;
	return 0;
}

static int map_extents(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		       uint64_t start, uint64_t max, struct ext_run *run, struct vdisk_error *err)
{
	const struct ext3_extent_header *eh = (const void *)inode->i_block;
	ext2_extent_handle_t h;
	errcode_t code;
	int r;

	if (ext2fs_le16_to_cpu(eh->eh_depth) > MAX_EXTENT_DEPTH)
		return vd_fail(err, EUCLEAN, "an extent tree of depth %u",
			       ext2fs_le16_to_cpu(eh->eh_depth));
	code = ext2fs_extent_open2(e->fs, (ext2_ino_t)ino, small(inode), &h);
	if (code)
		return vd_ext_fail(err, code, "extent tree");
	r = run_of_extent(h, start, max, run, err);
	ext2fs_extent_free(h);
	return r;
}

/*
 * How many blocks from @start on are a hole because a pointer above them is zero;
 * 1 if only the last one is.  Twelve direct pointers, then trees of depth 1 to 3.
 */
static int hole_indirect(struct ext_fs *e, struct ext2_inode_large *inode, uint64_t start,
			 uint64_t *count, struct vdisk_error *err)
{
	uint32_t bs = e->fs->blocksize, block;
	uint64_t per = bs / 4, span = per, off = start - EXT2_NDIR_BLOCKS;
	AUTO_FREE uint8_t *buf = NULL;
	int depth = 1, r;

	*count = 1;
	if (start < EXT2_NDIR_BLOCKS)
		return 0;
	for (; depth < 3 && off >= span; depth++) {
		off -= span;
		span *= per;
	}
	buf = malloc(bs);
	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	for (block = inode->i_block[EXT2_NDIR_BLOCKS + depth - 1]; block && depth > 0; depth--) {
		if (block >= ext2fs_blocks_count(e->fs->super))
			return vd_fail(err, EUCLEAN, "the block map has block %u", block);
		r = vd_ext_io_read(e->fs->io, buf, bs, (uint64_t)block * bs);
		if (r < 0)
			return vd_fail(err, -r, "cannot read block %u: %s", block, strerror(-r));
		span = MAX(span / per, (uint64_t)1);
		block = load_le32(buf + off / span % per * 4);
	}
	*count = span - off % span;
	return 0;
}

static int map_indirect(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
			uint64_t start, uint64_t max, struct ext_run *run,
			struct vdisk_error *err)
{
	*run = (struct ext_run) { .start = start };
	for (unsigned steps = 0; run->count < max && steps < MAX_STEPS; steps++) {
		uint64_t hole = 1;
		blk64_t block;
		int flags, r;
		errcode_t code = ext2fs_bmap2(e->fs, (ext2_ino_t)ino, small(inode), NULL, 0,
					      start + run->count, &flags, &block);

		if (code)
			return vd_ext_fail(err, code, "block map");
		if (!run->count)
			run->block = block;
		else if (block != (run->block ? run->block + run->count : 0))
			break;
		r = block ? 0 : hole_indirect(e, inode, start + run->count, &hole, err);
		if (r < 0)
			return r;
		run->count += MIN(hole, max - run->count);
	}
	return 0;
}

int vd_ext_map(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode, uint64_t start,
	       uint64_t max, struct ext_run *run, struct vdisk_error *err)
{
	uint64_t blocks = ext2fs_blocks_count(e->fs->super);
	int r;

	if (start >= UINT32_MAX)
		return vd_fail(err, EFBIG, "the file is too large for its block map");
	*run = (struct ext_run) { .start = start };
	max = MIN(max, UINT32_MAX - start);	/* block numbers in a file have 32 bits */
	if (inode->i_flags & EXT4_EXTENTS_FL)
		r = map_extents(e, ino, inode, start, max, run, err);
	else
		r = map_indirect(e, ino, inode, start, max, run, err);
	if (r < 0)
		return r;
	if (!run->count)
		return vd_fail(err, EUCLEAN, "an extent of no blocks");
	if (run->block && (run->block < e->fs->super->s_first_data_block ||
			   !vd_in_range(run->block, run->count, blocks)))
		return vd_fail(err, EUCLEAN, "the file's block %llu is not on the disk",
			       (unsigned long long)run->block);
	return 0;
}

/* ---- inline data ---- */

static int inline_load(struct ext_fs *e, uint64_t ino, void **data, size_t *len,
		       struct vdisk_error *err)
{
	AUTO_FREE void *buf = NULL;
	errcode_t code = ext2fs_inline_data_size(e->fs, (ext2_ino_t)ino, len);

	if (code)
		return vd_ext_fail(err, code, "inline data");
	buf = calloc(1, *len + 1);
	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	code = ext2fs_inline_data_get(e->fs, (ext2_ino_t)ino, NULL, buf, len);
	if (code)
		return vd_ext_fail(err, code, "inline data");
	*data = STEAL(buf);
	return 0;
}

static ssize_t inline_read(struct ext_fs *e, uint64_t ino, uint64_t size, void *buf, size_t len,
			   uint64_t off, struct vdisk_error *err)
{
	AUTO_FREE void *data = NULL;
	size_t have = 0, n;
	int r = inline_load(e, ino, &data, &have, err);

	if (r < 0 || !data)
		return r;
	if (size > have)
		return vd_fail(err, EUCLEAN, "inline data of %zu bytes in a file of %llu", have,
			       (unsigned long long)size);
	n = MIN(len, (size_t)(size - off));
	memcpy(buf, (char *)data + off, n);
	return (ssize_t)n;
}

/* Write through libext2fs, which moves the data out of the inode where needed. */
static ssize_t inline_write(struct ext_fs *e, uint64_t ino, const void *buf, size_t len,
			    uint64_t off, struct vdisk_error *err)
{
	unsigned piece = (unsigned)MIN(len, (size_t)e->fs->blocksize), done = 0;
	ext2_file_t f;
	errcode_t code = ext2fs_file_open(e->fs, (ext2_ino_t)ino, EXT2_FILE_WRITE, &f), code2;

	if (code)
		return vd_ext_fail(err, code, "inline data");
	code = ext2fs_file_llseek(f, off, EXT2_SEEK_SET, NULL);
	if (!code)
		code = ext2fs_file_write(f, buf, piece, &done);
	code2 = ext2fs_file_close(f);
	if (code || code2)
		return vd_ext_fail(err, code ? code : code2, "inline data");
	return done;
}

/* ---- read ---- */

ssize_t vd_ext_read(struct vdisk_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off,
		    struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	uint32_t bs = e->fs->blocksize;
	struct ext2_inode_large inode = { 0 };
	uint8_t *p = buf;
	uint64_t size, end;
	int r = vd_ext_read_inode(e, ino, &inode, err);

	if (r < 0)
		return r;
	if (inode.i_flags & EXT4_ENCRYPT_FL)
		return vd_fail(err, ENOTSUP, "the file is encrypted");
	size = size_of(&inode);
	if (off >= size)
		return 0;
	len = (size_t)MIN((uint64_t)len, size - off);
	len = MIN(len, (size_t)SSIZE_MAX);
	if (is_inline(&inode))
		return inline_read(e, ino, size, buf, len, off, err);
	for (end = off + len; off < end;) {
		struct ext_run run = { 0 };
		uint64_t in = off % bs, n;

		r = vd_ext_map(e, ino, &inode, off / bs, (end - off + in + bs - 1) / bs, &run,
			       err);
		if (r < 0)
			return r;
		n = MIN(run.count * bs - in, end - off);
		if (!run.block || run.unwritten) {
			memset(p, 0, n);
		} else {
			r = vd_ext_io_read(e->fs->io, p, n, run.block * bs + in);
			if (r < 0)
				return vd_fail(err, -r, "cannot read its block %llu: %s",
					       (unsigned long long)run.block, strerror(-r));
		}
		p += n;
		off += n;
	}
	return (ssize_t)len;
}

int vd_ext_next_data(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t *start,
		     uint64_t *length, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	uint32_t bs = e->fs->blocksize;
	struct ext2_inode_large inode = { 0 };
	uint64_t size, from = 0, to = 0, n_blocks;
	int r = vd_ext_read_inode(e, ino, &inode, err);

	if (r < 0)
		return r;
	size = size_of(&inode);
	if (off < size && is_inline(&inode)) {
		*start = off;
		*length = size - off;
		return 0;
	}
	n_blocks = size / bs + (size % bs != 0);
	for (uint64_t at = off / bs; off < size && at < n_blocks;) {
		struct ext_run run = { 0 };
		bool data;

		r = vd_ext_map(e, ino, &inode, at, n_blocks - at, &run, err);
		if (r < 0)
			return r;
		data = run.block && !run.unwritten;
		if (to && (!data || at - from >= MAX_DATA_RUN))
			break;
		if (data && !to)
			from = at;
		at += run.count;
		if (data)
			to = at;
	}
	*start = to ? MAX(from * bs, off) : MAX(size, off);
	*length = to ? MIN(to * bs, size) - *start : 0;
	return 0;
}

/* ---- write ---- */

static int zero_bytes(struct ext_fs *e, uint64_t off, uint64_t len, struct vdisk_error *err)
{
	static const uint8_t zeroes[ZERO_CHUNK];

	while (len) {
		size_t n = (size_t)MIN(len, (uint64_t)sizeof(zeroes));
		int r = vd_ext_io_write(e->fs->io, zeroes, n, off);

		if (r < 0)
			return vd_fail(err, -r, "cannot write: %s", strerror(-r));
		off += n;
		len -= n;
	}
	return 0;
}

/* Blocks that were allocated but never written become ordinary ones. */
static int make_written(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
			const struct ext_run *run, struct vdisk_error *err)
{
	ext2_extent_handle_t h;
	errcode_t code = ext2fs_extent_open2(e->fs, (ext2_ino_t)ino, small(inode), &h);

	for (uint64_t i = 0; !code && i < run->count; i++)
		code = ext2fs_extent_set_bmap(h, run->start + i, run->block + i, 0);
	if (h)
		ext2fs_extent_free(h);
	return vd_ext_fail(err, code, "extent tree");
}

/*
 * Is @start before the first extent?  There ext2fs_fallocate would fill the whole
 * hole, however little was asked for.
 */
static bool before_extents(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
			   uint64_t start)
{
	struct ext2fs_extent ext;
	ext2_extent_handle_t h;
	bool before = false;

	if (ext2fs_extent_open2(e->fs, (ext2_ino_t)ino, small(inode), &h))
		return false;
	ext2fs_extent_goto(h, start);
	if (!ext2fs_extent_get(h, EXT2_EXTENT_CURRENT, &ext))
		before = ext.e_lblk > start;
	ext2fs_extent_free(h);
	return before;
}

/*
 * The blocks for the hole @run, which becomes the first run of them; up to
 * *@fresh_end there may be more.  For a file with extents, ext2fs_fallocate
 * takes them in long runs.
 */
static int allocate(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		    struct ext_run *run, uint64_t *fresh_end, struct vdisk_error *err)
{
	blk64_t block, room = ext2fs_free_blocks_count(e->fs->super);
	errcode_t code;
	int r;

	if ((inode->i_flags & EXT4_EXTENTS_FL) && !before_extents(e, ino, inode, run->start)) {
		run->count = MIN(run->count, MAX_ALLOCATE);
		if (room && run->count > room)	/* it refuses more than there can be */
			run->count = room;
		code = ext2fs_fallocate(e->fs,
					EXT2_FALLOCATE_FORCE_INIT | EXT2_FALLOCATE_INIT_BEYOND_EOF,
					(ext2_ino_t)ino, small(inode), ~0ull, run->start,
					run->count);
	} else {
		run->count = 1;
		code = ext2fs_bmap2(e->fs, (ext2_ino_t)ino, small(inode), NULL, BMAP_ALLOC,
				    run->start, NULL, &block);
	}
	if (code && code != EXT2_ET_BLOCK_ALLOC_FAIL)
		return vd_ext_fail(err, code, "cannot allocate blocks");
	*fresh_end = run->start + run->count;
	r = vd_ext_map(e, ino, inode, run->start, run->count, run, err);
	if (r == 0 && !run->block)	/* else it went well for a part at least */
		r = code ? vd_ext_fail(err, code, "cannot allocate blocks") :
			   vd_fail(err, EUCLEAN, "blocks were allocated, and are not there");
	return r;
}

/*
 * Write what of [off, off + len) lies in the first run of blocks there.  The
 * inode is changed in memory.  Blocks before *@fresh_end are new.  Returns the
 * bytes done.
 */
static ssize_t write_run(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
			 const uint8_t *buf, size_t len, uint64_t off, uint64_t *fresh_end,
			 struct vdisk_error *err)
{
	uint32_t bs = e->fs->blocksize;
	uint64_t in = off % bs, n, end;
	struct ext_run run = { 0 };
	bool fresh;
	int r = vd_ext_map(e, ino, inode, off / bs, (len + in + bs - 1) / bs, &run, err);

	if (r < 0)
		return r;
	fresh = !run.block || run.unwritten || run.start < *fresh_end;
	if (!run.block)
		r = allocate(e, ino, inode, &run, fresh_end, err);
	if (r < 0)
		return r;
	n = MIN(run.count * bs - in, (uint64_t)len);
	end = (in + n) % bs;
	if (fresh && in)
		r = zero_bytes(e, run.block * bs, in, err);
	if (r == 0 && fresh && end)
		r = zero_bytes(e, run.block * bs + in + n, bs - end, err);
	if (r < 0)
		return r;
	r = vd_ext_io_write(e->fs->io, buf, n, run.block * bs + in);
	if (r < 0)
		return vd_fail(err, -r, "cannot write its block %llu: %s",
			       (unsigned long long)run.block, strerror(-r));
	if (run.unwritten) {
		run.count = (in + n + bs - 1) / bs;
		r = make_written(e, ino, inode, &run, err);
		if (r < 0)
			return r;
	}
	return (ssize_t)n;
}

/* The largest file that this inode's block map can hold. */
static uint64_t max_size(struct ext_fs *e, const struct ext2_inode_large *inode)
{
	uint64_t bs = e->fs->blocksize, per = bs / 4;

	if (inode->i_flags & EXT4_EXTENTS_FL)
		return (uint64_t)UINT32_MAX * bs;
	return MIN((12 + per + per * per + per * per * per) * bs, (uint64_t)UINT32_MAX * 512);
}

static int set_size(struct ext_fs *e, struct ext2_inode_large *inode, uint64_t size,
		    struct vdisk_error *err)
{
	return vd_ext_fail(err, ext2fs_inode_size_set(e->fs, small(inode), (ext2_off64_t)size),
			   "file size");
}

/* Rule 1: what the last block has behind the old end was zero; keep it so. */
static int zero_tail(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		     uint64_t size, struct vdisk_error *err)
{
	uint32_t bs = e->fs->blocksize;
	struct ext_run run = { 0 };
	int r;

	if (size % bs == 0)
		return 0;
	r = vd_ext_map(e, ino, inode, size / bs, 1, &run, err);
	if (r < 0 || !run.block || run.unwritten)
		return r;
	return zero_bytes(e, run.block * bs + size % bs, bs - size % bs, err);
}

ssize_t vd_ext_write_blocks(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
			    const uint8_t *buf, size_t len, uint64_t off, struct vdisk_error *err)
{
	uint32_t bs = e->fs->blocksize;
	uint64_t fresh_end = 0;
	size_t done = 0;
	ssize_t n = 0;
	int r = 0;

	if (off > size_of(inode))
		r = zero_tail(e, ino, inode, size_of(inode), err);
	if (r < 0)
		return r;
	while (done < len) {
		n = write_run(e, ino, inode, buf + done, len - done, off + done, &fresh_end, err);
		if (n < 0)
			break;
		done += (size_t)n;
	}
	if (done && off + done > size_of(inode)) {
		r = set_size(e, inode, off + done, err);
		if (r < 0)
			return r;
	}
	if (n < 0) {		/* rule 3 */
		uint64_t size = size_of(inode);

		r = vd_ext_punch(e, ino, inode, size / bs + (size % bs != 0), NULL);
		if (r < 0)
			e->failed = r;
	}
	vd_ext_touch(e, inode, true);
	r = vd_ext_write_inode(e, ino, inode, n < 0 ? NULL : err);
	if (n < 0)
		return n;
	return r < 0 ? r : (ssize_t)done;
}

static int load_for_change(struct vdisk_fs *fs, uint64_t ino, struct ext2_inode_large *inode,
			   struct vdisk_error *err)
{
	int r = vd_ext_begin(fs, err);

	if (r == 0)
		r = vd_ext_read_inode(ext_of(fs), ino, inode, err);
	if (r < 0)
		return r;
	if (inode->i_flags & EXT2_IMMUTABLE_FL)
		return vd_fail(err, EPERM, "the file is marked immutable");
	if (!LINUX_S_ISREG(inode->i_mode))
		return vd_fail(err, EINVAL, "not a regular file");
	return 0;
}

ssize_t vd_ext_write(struct vdisk_fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
		     struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large inode = { 0 };
	const uint8_t *p = buf;
	ssize_t n = 0;
	int r = load_for_change(fs, ino, &inode, err);

	if (r < 0)
		return r;
	if (!vd_in_range(off, len, max_size(e, &inode)))
		return vd_fail(err, EFBIG, "a file cannot be that large here");
	while ((size_t)n < len && is_inline(&inode)) {
		ssize_t done = inline_write(e, ino, p + n, len - (size_t)n, off + (uint64_t)n,
					    err);

		if (done < 0)
			return done;
		n += done;
		r = vd_ext_read_inode(e, ino, &inode, err);
		if (r < 0)
			return r;
	}
	if ((size_t)n < len) {
		ssize_t done = vd_ext_write_blocks(e, ino, &inode, p + n, len - (size_t)n,
						   off + (uint64_t)n, err);

		return done < 0 ? done : n + done;
	}
	return n;
}

/* ---- truncate ---- */

/*
 * ext2fs_punch() takes an extent that ends with the last block of the file system
 * for one that ends behind it, and refuses.  So that block is freed here first.
 */
static errcode_t free_last_block(ext2_filsys fs, ext2_ino_t ino, struct ext2_inode *inode,
				 uint64_t start, uint64_t end)
{
	blk64_t last = ext2fs_blocks_count(fs->super) - 1, lblk, other = 0;
	struct ext2fs_extent ext;
	ext2_extent_handle_t h;
	errcode_t code;

	if (!(inode->i_flags & EXT4_EXTENTS_FL) ||
	    !ext2fs_test_block_bitmap2(fs->block_map, last))
		return 0;
	code = ext2fs_extent_open2(fs, ino, inode, &h);
	if (code)
		return code;
	code = ext2fs_extent_get(h, EXT2_EXTENT_ROOT, &ext);
	while (!code && (!(ext.e_flags & EXT2_EXTENT_FLAGS_LEAF) || ext.e_pblk > last ||
			 ext.e_pblk + ext.e_len - 1 != last))
		code = ext2fs_extent_get(h, EXT2_EXTENT_NEXT, &ext);
	lblk = code ? 0 : ext.e_lblk + ext.e_len - 1;
	if (!code && lblk >= start && lblk <= end) {
		code = ext2fs_extent_set_bmap(h, lblk, 0, 0);
		if (!code)	/* with clusters: does the rest of this one stay? */
			code = ext2fs_map_cluster_block(fs, ino, inode, lblk, &other);
		if (!code && !other) {
			ext2fs_block_alloc_stats2(fs, last, -1);
			ext2fs_iblk_sub_blocks(fs, inode, 1);
		}
	}
	ext2fs_extent_free(h);
	return code == EXT2_ET_EXTENT_NO_NEXT || code == EXT2_ET_NO_CURRENT_NODE ? 0 : code;
}

/* Blocks @start to @end, which is the last one. */
static int punch(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode, uint64_t start,
		 uint64_t end, struct vdisk_error *err)
{
	errcode_t code = free_last_block(e->fs, (ext2_ino_t)ino, small(inode), start, end);

	if (!code)
		code = ext2fs_punch(e->fs, (ext2_ino_t)ino, small(inode), NULL, start, end);
	return vd_ext_fail(err, code, "cannot free its blocks");
}

int vd_ext_punch(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode, uint64_t start,
		 struct vdisk_error *err)
{
	return punch(e, ino, inode, start, ~0ull, err);
}

/* Zero the bytes [from, to) of one block, if it is there. */
static int zero_piece(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		      uint64_t from, uint64_t to, struct vdisk_error *err)
{
	uint32_t bs = e->fs->blocksize;
	struct ext_run run = { 0 };
	int r;

	if (from >= to)
		return 0;
	r = vd_ext_map(e, ino, inode, from / bs, 1, &run, err);
	if (r < 0 || !run.block || run.unwritten)
		return r;
	return zero_bytes(e, run.block * bs + from % bs, to - from, err);
}

int vd_ext_punch_range(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t len,
		       struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	uint32_t bs = e->fs->blocksize;
	struct ext2_inode_large inode = { 0 };
	uint64_t end, first, last;
	int r = load_for_change(fs, ino, &inode, err);

	if (r < 0)
		return r;
	/* in a file with a block map, ext2fs_punch() frees blocks behind the range, too */
	if (is_inline(&inode) || !(inode.i_flags & EXT4_EXTENTS_FL))
		return vd_fail(err, EOPNOTSUPP, "holes can be made in files with extents only");
	if (off >= size_of(&inode))
		return 0;
	end = MIN(len, UINT64_MAX - off) + off;
	/* behind the end of the file there is nothing but zeroes: rule 1 */
	if (end >= size_of(&inode))
		end = vd_align_up(size_of(&inode), bs);
	first = vd_align_up(off, bs) / bs;
	last = end / bs;
	if (first > last) {
		r = zero_piece(e, ino, &inode, off, end, err);
	} else {
		r = zero_piece(e, ino, &inode, off, first * bs, err);
		if (r == 0)
			r = zero_piece(e, ino, &inode, last * bs, end, err);
		if (r == 0 && first < last)
			r = punch(e, ino, &inode, first, last - 1, err);
	}
	if (r < 0)
		return r;
	vd_ext_touch(e, &inode, true);
	return vd_ext_write_inode(e, ino, &inode, err);
}

/* ---- runs, for whoever moves the bytes itself ---- */

static int read_runs(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode, uint64_t off,
		     uint64_t end, struct vd_fs_run *runs, unsigned max, struct vdisk_error *err)
{
	uint32_t bs = e->fs->blocksize;
	unsigned n = 0;

	while (off < end && n < max) {
		struct ext_run run = { 0 };
		uint64_t in = off % bs;
		int r = vd_ext_map(e, ino, inode, off / bs, (end - off + in + bs - 1) / bs, &run,
				   err);

		if (r < 0)
			return r;
		runs[n].len = MIN(run.count * bs - in, end - off);
		runs[n].at = run.block && !run.unwritten ? run.block * bs + in : VD_FS_RUN_ZERO;
		if (runs[n].at != VD_FS_RUN_ZERO &&
		    !vd_ext_io_share(e->fs->io, runs[n].at, runs[n].len, false))
			return -EAGAIN;
		off += runs[n++].len;
	}
	return (int)n;
}

/* As write_run(), but the bytes come later. */
static int map_write(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		     uint64_t off, uint64_t len, struct vd_fs_run *out, struct vdisk_error *err)
{
	uint32_t bs = e->fs->blocksize;
	struct ext_run run = { 0 };
	uint64_t fresh_end = 0;
	int r = vd_ext_map(e, ino, inode, off / bs, len / bs, &run, err);

	if (r == 0 && !run.block)
		r = allocate(e, ino, inode, &run, &fresh_end, err);
	run.count = MIN(run.count, len / bs);
	if (r == 0 && run.unwritten)
		r = make_written(e, ino, inode, &run, err);
	if (r < 0)
		return r;
	*out = (struct vd_fs_run) { .at = run.block * bs, .len = run.count * bs };
	return 0;
}

/* Room enough that allocating these blocks, and those of the extent tree, cannot fail. */
static bool has_room(struct ext_fs *e, uint64_t blocks)
{
	return ext2fs_free_blocks_count(e->fs->super) >
	       2 * blocks + 64 + 2 * (uint64_t)EXT2FS_CLUSTER_RATIO(e->fs);
}

int vd_ext_map_runs(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t len, bool write,
		    struct vd_fs_run *runs, unsigned max, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large inode = { 0 };
	uint32_t bs = e->fs->blocksize;
	uint64_t end;
	unsigned n = 0;
	int r = write ? load_for_change(fs, ino, &inode, err) :
			vd_ext_read_inode(e, ino, &inode, err);

	if (r < 0)
		return r;
	if (is_inline(&inode) || (inode.i_flags & EXT4_ENCRYPT_FL))
		return -EAGAIN;
	if (!write) {
		len = MIN(len, UINT64_MAX - off);
		end = MIN(size_of(&inode), off + len);
		return read_runs(e, ino, &inode, off, end, runs, max, err);
	}
	if (off % bs || len % bs || !vd_in_range(off, len, max_size(e, &inode)) ||
	    !has_room(e, len / bs) || !(inode.i_flags & EXT4_EXTENTS_FL))
		return -EAGAIN;
	if (off > size_of(&inode))
		r = zero_tail(e, ino, &inode, size_of(&inode), err);
	for (end = off + len; r == 0 && off < end && n < max; off += runs[n++].len) {
		r = map_write(e, ino, &inode, off, end - off, &runs[n], err);
		if (r == 0 && !vd_ext_io_share(e->fs->io, runs[n].at, runs[n].len, true))
			r = vd_fail(err, EIO, "an earlier write failed");
		if (r < 0)
			break;
	}
	if (r == 0 && off > size_of(&inode))
		r = set_size(e, &inode, off, err);
	vd_ext_touch(e, &inode, true);
	if (r == 0)
		r = vd_ext_write_inode(e, ino, &inode, err);
	if (r < 0 && n)		/* blocks that nobody will fill */
		e->failed = r;
	return r < 0 ? r : (int)n;
}

static int truncate_inline(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
			   uint64_t size, struct vdisk_error *err)
{
	AUTO_FREE void *data = NULL;
	uint64_t old = size_of(inode);
	size_t have = 0;
	errcode_t code;
	int r;

	if (size > old) {	/* growing: a zero at the new end does it */
		ssize_t n = inline_write(e, ino, "", 1, size - 1, err);

		return n < 0 ? (int)n : 0;
	}
	r = inline_load(e, ino, &data, &have, err);
	if (r < 0 || !data)
		return r;
	if (size > have)
		return vd_fail(err, EUCLEAN, "inline data of %zu bytes", have);
	memset((char *)data + size, 0, have - size);
	code = ext2fs_inline_data_set(e->fs, (ext2_ino_t)ino, NULL, data, have);
	if (code)
		return vd_ext_fail(err, code, "inline data");
	r = vd_ext_read_inode(e, ino, inode, err);
	if (r == 0)
		r = set_size(e, inode, size, err);
	if (r < 0)
		return r;
	vd_ext_touch(e, inode, true);
	return vd_ext_write_inode(e, ino, inode, err);
}

int vd_ext_truncate(struct vdisk_fs *fs, uint64_t ino, uint64_t size, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	uint32_t bs = e->fs->blocksize;
	struct ext2_inode_large inode = { 0 };
	uint64_t old;
	int r = load_for_change(fs, ino, &inode, err);

	if (r < 0)
		return r;
	if (size > max_size(e, &inode))
		return vd_fail(err, EFBIG, "a file cannot be that large here");
	old = size_of(&inode);
	if (is_inline(&inode) && size != old)
		return truncate_inline(e, ino, &inode, size, err);
	if (size < old) {
		r = set_size(e, &inode, size, err);
		if (r == 0)
			r = vd_ext_punch(e, ino, &inode, size / bs + (size % bs != 0), err);
		if (r == 0)
			r = zero_tail(e, ino, &inode, size, err);
	} else {
		r = zero_tail(e, ino, &inode, old, err);
		if (r == 0)
			r = set_size(e, &inode, size, err);
	}
	if (r < 0)
		return r;
	vd_ext_touch(e, &inode, true);
	return vd_ext_write_inode(e, ino, &inode, err);
}

/* ---- symbolic links ---- */

int vd_ext_readlink(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
		    struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large inode = { 0 };
	uint64_t len;
	ssize_t n;
	int r = vd_ext_read_inode(e, ino, &inode, err);

	if (r < 0)
		return r;
	len = size_of(&inode);
	if (inode.i_flags & EXT4_ENCRYPT_FL)
		return vd_fail(err, ENOTSUP, "the link is encrypted");
	if (len >= VD_PATH_MAX)
		return vd_fail(err, EUCLEAN, "a link of %llu bytes", (unsigned long long)len);
	if (len >= size)
		return vd_fail(err, ENAMETOOLONG, "the target has %llu bytes",
			       (unsigned long long)len);
	if (ext2fs_is_fast_symlink(small(&inode))) {
		if (len > sizeof(inode.i_block))
			return vd_fail(err, EUCLEAN, "a fast link of %llu bytes",
				       (unsigned long long)len);
		memcpy(buf, inode.i_block, len);
	} else {
		n = vd_ext_read(fs, ino, buf, len, 0, err);
		if (n < 0)
			return (int)n;
		if ((uint64_t)n != len)
			return vd_fail(err, EUCLEAN, "the target is cut short");
	}
	buf[len] = '\0';
	if (strlen(buf) != len)
		return vd_fail(err, EUCLEAN, "the target contains a NUL");
	return 0;
}
