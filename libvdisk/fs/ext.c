/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext.c - ext2, ext3 and ext4 through libext2fs: opening, closing, the whole
 *
 * libext2fs knows the layout; what it leaves to its users is here and in the
 * other ext_*.c files:
 *
 *   1. A file system whose journal needs replay is not looked at before that is
 *      done (jbd2.c): into the disk if it is open for writing, else into a
 *      throw-away overlay.  Nodes that were deleted while open are then freed,
 *      as the kernel does at mount.
 *   2. Reading loads the superblock and the group descriptors, nothing else.
 *      The bitmaps are loaded before the first change.
 *   3. Also before the first change, the superblock gets the mark "in use"
 *      (EXT2_VALID_FS cleared) and that is flushed.  The mark goes at sync and
 *      close, after everything else has been flushed.  So whatever stops us in
 *      between, the kernel and e2fsck know that a check is due.
 *   4. A file system that carries this mark, or the one for errors, is not
 *      written: what its bitmaps say cannot be relied on.
 *   5. After a failed write nothing more is written, and the mark stays.
 *   6. What libext2fs cannot keep right is refused by name when opening for
 *      writing: quota, case folding and the like.
 *
 * With VDISK_FS_JOURNAL and a journal it is as the kernel does it instead: the
 * superblock gets the mark that the journal must be looked at, and what changes
 * goes through the journal in transactions (ext_io.c, jbd2.c), at commit and sync.
 * Files that are open without a name are on the list of orphans then.  Where a
 * transaction does not fit into the journal, rule 3 applies to it.
 *
 * Sizes in a hostile superblock are checked here before libext2fs allocates by
 * them.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "fs/ext.h"
#include "fs/jbd2.h"

#define SB_OFFSET	1024
#define SB_SIZE		1024
#define MAX_GROUPS	(1u << 20)	/* 128 TiB with 4 KiB blocks; 64 MiB of descriptors */

/* ---- errors ---- */

int vd_ext_errno(errcode_t code)
{
	switch (code) {
	case 0:
		return 0;
	case EXT2_ET_NO_MEMORY:
		return ENOMEM;
	case EXT2_ET_BLOCK_ALLOC_FAIL:
	case EXT2_ET_INODE_ALLOC_FAIL:
	case EXT2_ET_DIR_NO_SPACE:
	case EXT2_ET_EA_NO_SPACE:
	case EXT2_ET_EXTENT_NO_SPACE:
	case EXT2_ET_CANT_INSERT_EXTENT:
		return ENOSPC;
	case EXT2_ET_FILE_NOT_FOUND:
		return ENOENT;
	case EXT2_ET_EA_KEY_NOT_FOUND:
		return ENODATA;
	case EXT2_ET_RO_FILSYS:
		return EROFS;
	case EXT2_ET_FILE_TOO_BIG:
		return EFBIG;
	case EXT2_ET_NO_DIRECTORY:
		return ENOTDIR;
	case EXT2_ET_FILE_EXISTS:
	case EXT2_ET_DIR_EXISTS:
		return EEXIST;
	case EXT2_ET_UNSUPP_FEATURE:
	case EXT2_ET_RO_UNSUPP_FEATURE:
	case EXT2_ET_MISSING_EA_FEATURE:
	case EXT2_ET_UNIMPLEMENTED:
	case EXT2_ET_DIRHASH_UNSUPP:
		return ENOTSUP;
	case EXT2_ET_INVALID_ARGUMENT:
		return EINVAL;
	}
	return code < 4096 ? (int)code : EUCLEAN;	/* small ones are errno values */
}

static void quiet(const char *whoami, errcode_t code, const char *fmt, va_list args)
{
	(void)whoami, (void)code, (void)fmt, (void)args;
}

/* libext2fs has texts for its codes, and prints a few things unless kept from it. */
static void setup(void)
{
	initialize_ext2_error_table();
	set_com_err_hook(quiet);
}

int vd_ext_fail(struct vdisk_error *err, errcode_t code, const char *what)
{
	int e = vd_ext_errno(code);

	if (!code)
		return 0;
	if (code == EXT2_ET_BLOCK_ALLOC_FAIL)
		return vd_fail(err, e, "%s: no space left", what);
	if (code == EXT2_ET_INODE_ALLOC_FAIL)
		return vd_fail(err, e, "%s: no inodes left", what);
	return vd_fail(err, e, "%s: %s", what, error_message(code));
}

/* ---- the superblock, before libext2fs sees it ---- */

static bool ext_match(const uint8_t *head, size_t len)
{
	return len >= SB_OFFSET + SB_SIZE &&
	       load_le16(head + SB_OFFSET + offsetof(struct ext2_super_block, s_magic)) ==
	       EXT2_SUPER_MAGIC;
}

static uint32_t sb32(const uint8_t *sb, size_t field)
{
	return load_le32(sb + field);
}
#define SB32(sb, field) sb32(sb, offsetof(struct ext2_super_block, field))

static int check_sizes(struct vdisk_fs *fs, const uint8_t *sb, struct vdisk_error *err)
{
	uint32_t log = SB32(sb, s_log_block_size), per_group = SB32(sb, s_blocks_per_group);
	uint64_t blocks = SB32(sb, s_blocks_count), bytes;

	if (SB32(sb, s_feature_incompat) & EXT4_FEATURE_INCOMPAT_64BIT)
		blocks |= (uint64_t)SB32(sb, s_blocks_count_hi) << 32;
	if (log > 6)
		return vd_fail(err, EUCLEAN, "superblock: block size 2^%u", log + 10);
	if (!vd_mul(blocks, (uint64_t)1024 << log, &bytes) || bytes > vdisk_size(fs->disk))
		return vd_fail(err, EUCLEAN,
			       "the file system has %llu blocks of %u bytes, more than its disk of %llu bytes",
			       (unsigned long long)blocks, 1024u << log,
			       (unsigned long long)vdisk_size(fs->disk));
	if (!per_group || blocks / per_group > MAX_GROUPS)
		return vd_fail(err, EUCLEAN, "superblock: %u blocks in a group", per_group);
	return 0;
}

static const struct {
	uint32_t bit;
	const char *name;
} no_write[] = {	/* rule 6: read-only compatible features */
	{ EXT4_FEATURE_RO_COMPAT_QUOTA, "quota" },
	{ EXT4_FEATURE_RO_COMPAT_PROJECT, "project" },
	{ EXT4_FEATURE_RO_COMPAT_READONLY, "read-only" },
	{ EXT4_FEATURE_RO_COMPAT_SHARED_BLOCKS, "shared_blocks" },
	{ EXT4_FEATURE_RO_COMPAT_VERITY, "verity" },
}, no_write_incompat[] = {
	{ EXT4_FEATURE_INCOMPAT_CASEFOLD, "casefold" },
	{ EXT4_FEATURE_INCOMPAT_ENCRYPT, "encrypt" },
	{ EXT4_FEATURE_INCOMPAT_DIRDATA, "dirdata" },
};

static int check_writable(const struct ext2_super_block *sb, struct vdisk_error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(no_write); i++)
		if (sb->s_feature_ro_compat & no_write[i].bit)
			return vd_fail(err, ENOTSUP,
				       "files cannot be written with the feature \"%s\"",
				       no_write[i].name);
	for (size_t i = 0; i < ARRAY_SIZE(no_write_incompat); i++)
		if (sb->s_feature_incompat & no_write_incompat[i].bit)
			return vd_fail(err, ENOTSUP,
				       "files cannot be written with the feature \"%s\"",
				       no_write_incompat[i].name);
	if (sb->s_state & EXT2_ERROR_FS)
		return vd_fail(err, EUCLEAN,
			       "the file system is marked as having errors: check it first (vdisk fsck)");
	if (!(sb->s_state & EXT2_VALID_FS))
		return vd_fail(err, EUCLEAN,
			       "the file system was not closed cleanly: check it first (vdisk fsck)");
	return 0;
}

/* ---- open ---- */

static int open_lib(struct vdisk_fs *fs, bool writable, ext2_filsys *out, struct vdisk_error *err)
{
	int flags = EXT2_FLAG_64BITS | (writable ? EXT2_FLAG_RW : EXT2_FLAG_SKIP_MMP);
	ext2_filsys lib;
	errcode_t code;

	vd_ext_io_next(fs->disk);
	code = ext2fs_open2("disk", "", flags, 0, 0, &vd_ext_io, &lib);
	vd_ext_io_next(NULL);
	if (code)
		return vd_ext_fail(err, code, "cannot open the file system");
	lib->default_bitmap_type = EXT2FS_BMAP64_RBTREE;
	*out = lib;
	return 0;
}

/* The blocks of the journal, which is a file. */
static int journal_map(struct ext_fs *e, struct vd_jbd2 *j, struct vdisk_error *err)
{
	uint32_t ino = e->fs->super->s_journal_inum, bs = e->fs->blocksize;
	struct ext2_inode_large inode;
	uint64_t n;
	int r = vd_ext_read_inode(e, ino, &inode, err);

	if (r < 0)
		return r;
	n = EXT2_I_SIZE(small(&inode)) / bs;
	if (!n || n > VD_JBD2_MAX_BLOCKS || !LINUX_S_ISREG(inode.i_mode))
		return vd_fail(err, EUCLEAN, "the journal, inode %u, has %llu blocks", ino,
			       (unsigned long long)n);
	j->blocks = calloc(n, sizeof(*j->blocks));
	if (!j->blocks)
		return vd_fail(err, ENOMEM, "out of memory");
	j->n_blocks = (uint32_t)n;
	for (uint64_t at = 0; at < n;) {
		struct ext_run run;

		r = vd_ext_map(e, ino, &inode, at, n - at, &run, err);
		if (r < 0)
			return r;
		if (!run.block)
			return vd_fail(err, EUCLEAN, "the journal has a hole");
		for (uint64_t i = 0; i < run.count; i++)
			j->blocks[at + i] = run.block + i;
		at += run.count;
	}
	return 0;
}

static int replay_blocks(struct vdisk_fs *fs, struct vd_jbd2 *j, struct vdisk_error *err)
{
	struct ext_fs e = { 0 };
	struct ext2_super_block *sb;
	int r = open_lib(fs, false, &e.fs, err);

	if (r < 0 || !e.fs)
		return r;
	sb = e.fs->super;
	j->block_size = e.fs->blocksize;
	j->fs_blocks = ext2fs_blocks_count(sb);
	if (sb->s_journal_dev || !sb->s_journal_inum)
		r = vd_fail(err, ENOTSUP,
			    "the journal needs replay and is on another device: mount or check it with that");
	else
		r = journal_map(&e, j, err);
	ext2fs_free(e.fs);
	return r;
}

/*
 * The replay may have written the superblock too, so it is read again: the mark
 * goes, the error that the journal recorded is kept.
 */
static int replay_done(struct vdisk_fs *fs, const struct vd_jbd2 *j, struct vdisk_error *err)
{
	uint8_t sb[SB_SIZE];
	size_t incompat = offsetof(struct ext2_super_block, s_feature_incompat);
	size_t state = offsetof(struct ext2_super_block, s_state);
	int r = vd_pread(fs->disk, sb, sizeof(sb), SB_OFFSET);

	if (r < 0)
		return vd_fail(err, -r, "cannot read the superblock: %s", strerror(-r));
	store_le32(sb + incompat, load_le32(sb + incompat) & ~EXT3_FEATURE_INCOMPAT_RECOVER);
	if (j->had_error)
		store_le16(sb + state, load_le16(sb + state) | EXT2_ERROR_FS);
	if (SB32(sb, s_feature_ro_compat) & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM) {
		size_t at = offsetof(struct ext2_super_block, s_checksum);

		store_le32(sb + at, ext2fs_crc32c_le(~0u, sb, at));
	}
	r = vd_pwrite(fs->disk, sb, sizeof(sb), SB_OFFSET);
	if (r == 0)
		r = vdisk_flush(fs->disk);
	return r < 0 ? vd_fail(err, -r, "cannot write the superblock: %s", strerror(-r)) : 0;
}

/* Rule 1. */
static int replay(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct vd_jbd2 j = { 0 };
	struct vdisk *overlay;
	int r;

	if (!vdisk_writable(fs->disk)) {
		r = vdisk_open_overlay(&overlay, fs->disk, NULL, err);
		if (r < 0)
			return vd_fail_prefix(err, r, "the journal needs replay");
		vdisk_close(fs->disk, NULL);	/* the overlay has a reference */
		fs->disk = overlay;
	}
	r = replay_blocks(fs, &j, err);
	j.disk = fs->disk;
	if (r == 0)
		r = vd_jbd2_replay(&j, err);
	if (r == 0)
		r = replay_done(fs, &j, err);
	free(j.blocks);
	return r < 0 ? vd_fail_prefix(err, r, "journal") : 0;
}

static const char *type_of(const struct ext2_super_block *sb)
{
	const uint32_t ext3_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE |
		EXT3_FEATURE_INCOMPAT_RECOVER | EXT2_FEATURE_INCOMPAT_META_BG;
	const uint32_t ext3_ro = EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER |
		EXT2_FEATURE_RO_COMPAT_LARGE_FILE;

	if ((sb->s_feature_incompat & ~ext3_incompat) || (sb->s_feature_ro_compat & ~ext3_ro))
		return "ext4";
	return sb->s_feature_compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL ? "ext3" : "ext2";
}

static int flush_super(struct ext_fs *e, struct vdisk_error *err)
{
	errcode_t code;

	e->fs->flags |= EXT2_FLAG_SUPER_ONLY;
	ext2fs_mark_super_dirty(e->fs);
	code = ext2fs_flush(e->fs);
	e->fs->flags &= ~EXT2_FLAG_SUPER_ONLY;
	return vd_ext_fail(err, code, "cannot write the superblock");
}

/* ---- with a journal ---- */

#define COMMIT_BLOCKS	1024u	/* of metadata, then a commit is due */

/*
 * Until the commit, a freed block still belongs to whoever had it, if we are stopped.
 * So in the bitmap it stays in use, and is not given out again, until then.
 */
static void range_freed(ext2_filsys lib, blk64_t block, blk_t n, int inuse)
{
	struct ext_fs *e = lib->priv_data;

	if (inuse >= 0)
		return;
	ext2fs_mark_block_bitmap_range2(e->freed, block, n);
	ext2fs_mark_block_bitmap_range2(lib->block_map, block, n);
	e->n_freed += n;
}

static void block_freed(ext2_filsys lib, blk64_t block, int inuse)
{
	range_freed(lib, block, 1, inuse);
}

/* Give out the freed blocks again, with the commit that makes them free. */
static void release_freed(struct ext_fs *e)
{
	blk64_t end = ext2fs_blocks_count(e->fs->super), start = e->fs->super->s_first_data_block;

	while (e->n_freed && start < end &&
	       !ext2fs_find_first_set_block_bitmap2(e->freed, start, end - 1, &start)) {
		blk64_t stop = end;

		if (ext2fs_find_first_zero_block_bitmap2(e->freed, start, end - 1, &stop))
			stop = end;
		ext2fs_unmark_block_bitmap_range2(e->fs->block_map, start,
						  (unsigned)(stop - start));
		start = stop;
	}
	if (e->n_freed)
		ext2fs_mark_bb_dirty(e->fs);
	ext2fs_clear_block_bitmap(e->freed);
	e->n_freed = 0;
}

/* Get the journal ready to be written; that there is none is no error. */
static int log_open(struct vdisk_fs *fs, struct ext_fs *e, struct vdisk_error *err)
{
	struct ext2_super_block *sb = e->fs->super;
	int r;

	if (!ext2fs_has_feature_journal(sb) || sb->s_journal_dev || !sb->s_journal_inum)
		return 0;
	e->journal.disk = fs->disk;
	e->journal.block_size = e->fs->blocksize;
	e->journal.fs_blocks = ext2fs_blocks_count(sb);
	r = journal_map(e, &e->journal, err);
	if (r == 0)
		r = vd_jbd2_writer_open(&e->log, &e->journal, err);
	if (r == -ENOTSUP)	/* a feature that we do not know */
		return 0;
	if (r < 0)
		return vd_fail_prefix(err, r, "journal");
	r = vd_ext_fail(err, ext2fs_allocate_block_bitmap(e->fs, "freed", &e->freed),
			"cannot get memory");
	if (r < 0)
		return r;
	e->fs->priv_data = e;
	ext2fs_set_block_alloc_stats_callback(e->fs, block_freed, NULL);
	ext2fs_set_block_alloc_stats_range_callback(e->fs, range_freed, NULL);
	return 0;
}

static void log_free(struct ext_fs *e)
{
	vd_jbd2_writer_free(e->log);
	free(e->journal.blocks);
	if (e->freed)
		ext2fs_free_block_bitmap(e->freed);
}

/* From here on changes go through the journal. */
static int log_start(struct vdisk_fs *fs, struct ext_fs *e, struct vdisk_error *err)
{
	int r;

	ext2fs_set_feature_journal_needs_recovery(e->fs->super);
	r = flush_super(e, err);
	if (r == 0)
		r = vd_jbd2_mark(e->log, true, err);
	if (r == 0) {
		r = vdisk_flush(fs->disk);
		if (r < 0)
			vd_fail(err, -r, "cannot flush: %s", strerror(-r));
	}
	if (r == 0)
		vd_ext_io_log(e->fs->io, e->log);
	return r;
}

/* And from here on not; everything has been committed. */
static int log_stop(struct ext_fs *e, struct vdisk_error *err)
{
	int r;

	vd_ext_io_log(e->fs->io, NULL);
	ext2fs_clear_feature_journal_needs_recovery(e->fs->super);
	r = flush_super(e, err);
	return r < 0 ? r : vd_jbd2_mark(e->log, false, err);
}

/* Nodes that are open without a name: a list through their times of deletion. */
static int write_orphans(struct ext_fs *e, struct vdisk_error *err)
{
	ext2_ino_t next = 0;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < e->n_held; i++) {
		struct ext2_inode_large inode = { 0 };

		if (!e->held[i].orphan)
			continue;
		r = vd_ext_read_inode(e, e->held[i].ino, &inode, err);
		if (r == 0 && inode.i_dtime != next) {
			inode.i_dtime = next;
			r = vd_ext_write_inode(e, e->held[i].ino, &inode, err);
		}
		next = e->held[i].ino;
	}
	e->fs->super->s_last_orphan = next;
	return r;
}

/* A transaction that does not fit into the journal: as without one, rule 3. */
static int commit_without(struct ext_fs *e, struct vdisk_error *err)
{
	errcode_t code;
	int r;

	vd_ext_io_log(e->fs->io, NULL);
	e->fs->super->s_state &= (uint16_t)~EXT2_VALID_FS;
	r = flush_super(e, err);
	if (r < 0)
		return r;
	code = ext2fs_flush(e->fs);
	if (code)
		return vd_ext_fail(err, code, "cannot write the metadata");
	e->fs->super->s_state |= EXT2_VALID_FS;
	r = flush_super(e, err);
	if (r == 0)
		vd_ext_io_log(e->fs->io, e->log);
	return r;
}

static int log_commit(struct ext_fs *e, struct vdisk_error *err)
{
	errcode_t code;
	int r = write_orphans(e, err);

	if (r < 0)
		return r;
	release_freed(e);
	ext2fs_mark_super_dirty(e->fs);
	code = ext2fs_flush(e->fs);
	if (code)
		return vd_ext_fail(err, code, "cannot write the metadata");
	r = vd_ext_io_commit(e->fs->io, err);
	return r == -ENOSPC ? commit_without(e, err) : r;
}

static bool ext_commit_due(struct vdisk_fs *fs)
{
	struct ext_fs *e = ext_of(fs);

	/* many changes, or little room without the blocks that were freed */
	return e->log && e->started &&
	       (vd_ext_io_pending(e->fs->io) >=
			MIN(COMMIT_BLOCKS, vd_jbd2_writer_room(e->log) / 2) ||
		e->n_freed > ext2fs_free_blocks_count(e->fs->super) / 2);
}

/*
 * The free counts of the superblock are only written at unmount; those of the
 * groups are in the journal.  The kernel and e2fsck add these up, and so do we.
 */
static void count_free(ext2_filsys lib)
{
	struct ext2_super_block *sb = lib->super;
	uint64_t clusters = 0, inodes = 0;

	for (dgrp_t g = 0; g < lib->group_desc_count; g++) {
		clusters += ext2fs_bg_free_blocks_count(lib, g);
		inodes += ext2fs_bg_free_inodes_count(lib, g);
	}
	ext2fs_free_blocks_count_set(sb, MIN(EXT2FS_C2B(lib, clusters), ext2fs_blocks_count(sb)));
	sb->s_free_inodes_count = (uint32_t)MIN(inodes, sb->s_inodes_count);
}

static int open_checked(struct vdisk_fs *fs, struct ext_fs *e, struct vdisk_error *err)
{
	uint8_t sb[SB_SIZE];
	bool orphans;
	int r = vd_pread(fs->disk, sb, sizeof(sb), SB_OFFSET);

	if (r < 0)
		return vd_fail(err, -r, "cannot read the superblock: %s", strerror(-r));
	r = check_sizes(fs, sb, err);
	if (r == 0 && (SB32(sb, s_feature_incompat) & EXT3_FEATURE_INCOMPAT_RECOVER))
		r = replay(fs, err);
	/* libext2fs would wait for another host's turn, on a path of a file */
	if (r == 0 && fs->writable && (SB32(sb, s_feature_incompat) & EXT4_FEATURE_INCOMPAT_MMP))
		r = vd_fail(err, ENOTSUP, "files cannot be written with the feature \"mmp\"");
	if (r == 0)
		r = open_lib(fs, fs->writable, &e->fs, err);
	if (r < 0)
		return r;
	count_free(e->fs);
	orphans = e->fs->super->s_last_orphan ||
		  ext2fs_has_feature_orphan_present(e->fs->super);
	snprintf(fs->type, sizeof(fs->type), "%s", type_of(e->fs->super));
	if (fs->writable)
		r = check_writable(e->fs->super, err);
	if (r == 0 && fs->writable && fs->journal)
		r = log_open(fs, e, err);
	if (r == 0 && fs->writable && orphans)
		r = vd_ext_orphans(fs, err);
	return r;
}

static int ext_open(struct vdisk_fs *fs, struct vdisk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct ext_fs *e;
	int r;

	pthread_once(&once, setup);
	e = calloc(1, sizeof(*e));
	if (!e)
		return vd_fail(err, ENOMEM, "out of memory");
	fs->priv = e;
	fs->root = EXT2_ROOT_INO;
	r = open_checked(fs, e, err);
	if (r < 0) {
		log_free(e);
		if (e->fs)
			ext2fs_free(e->fs);
		vd_ext_index_free(e);
		free(e);
	}
	return r;
}

/* ---- changing and closing ---- */

static int load_bitmaps(struct ext_fs *e, struct vdisk_error *err)
{
	errcode_t code = e->fs->inode_map ? 0 : ext2fs_read_bitmaps(e->fs);

	return code ? vd_ext_fail(err, code, "cannot read the bitmaps") : 0;
}

int vd_ext_begin(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	int r;

	if (e->failed)
		return vd_fail(err, EIO, "an earlier write failed: %s", strerror(-e->failed));
	if (e->started)
		return 0;
	r = load_bitmaps(e, err);
	if (r < 0)
		return r;
	if (e->log) {
		r = log_start(fs, e, err);
	} else {
		e->fs->super->s_state &= (uint16_t)~EXT2_VALID_FS;
		r = flush_super(e, err);
	}
	if (r < 0) {
		e->failed = r;
		return r;
	}
	e->started = true;
	return 0;
}

static void ext_fail(struct vdisk_fs *fs, int r)
{
	struct ext_fs *e = ext_of(fs);

	if (!e->failed)
		e->failed = r;
}

/* Everything, then the mark: rule 3. */
static int ext_sync(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	errcode_t code;
	int r;

	if (!e->started)
		return 0;
	if (e->failed)
		return vd_fail(err, EIO, "an earlier write failed: %s", strerror(-e->failed));
	if (e->log) {
		r = log_commit(e, err);
		if (r == 0)
			r = log_stop(e, err);
		if (r == 0) {
			r = vdisk_flush(fs->disk);
			if (r < 0)
				vd_fail(err, -r, "cannot flush: %s", strerror(-r));
		}
		e->failed = r;
		e->started = false;
		return r;
	}
	code = ext2fs_flush(e->fs);
	if (code) {
		r = vd_ext_fail(err, code, "cannot write the metadata");
		e->failed = r;
		return r;
	}
	e->fs->super->s_state |= EXT2_VALID_FS;
	r = flush_super(e, err);
	if (r < 0)
		e->failed = r;
	e->started = false;
	return r;
}

/* The same for a file system that stays in use: with a journal the mark stays, too. */
static int ext_commit(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	int r;

	if (!e->log || !e->started || e->failed)
		return ext_sync(fs, err);
	r = log_commit(e, err);
	e->failed = r;
	return r;
}

static int ext_close(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	int r = ext_sync(fs, err);

	if (r == 0 && fs->writable)
		ext2fs_mmp_stop(e->fs);
	log_free(e);
	ext2fs_free(e->fs);
	vd_ext_index_free(e);
	free(e->held);
	free(e);
	return r;
}

/* Blocks that can never hold files, as the kernel's statfs counts them. */
static uint64_t overhead_blocks(ext2_filsys fs)
{
	struct ext2_super_block *sb = fs->super;
	uint64_t n = sb->s_first_data_block;
	uint64_t per_super = 1 + fs->desc_blocks + sb->s_reserved_gdt_blocks;

	if (sb->s_overhead_clusters)
		return (uint64_t)sb->s_overhead_clusters << fs->cluster_ratio_bits;
	for (dgrp_t g = 0; g < fs->group_desc_count; g++)
		n += 2 + fs->inode_blocks_per_group +
		     (ext2fs_bg_has_super(fs, g) ? per_super : 0);
	if (sb->s_journal_inum && sb->s_jnl_backup_type == 1)
		n += ((uint64_t)sb->s_jnl_blocks[15] << 32 | sb->s_jnl_blocks[16]) / fs->blocksize;
	return n;
}

static int ext_usage(struct vdisk_fs *fs, struct vdisk_fs_usage *out, struct vdisk_error *err)
{
	const struct ext_fs *e = ext_of(fs);
	struct ext2_super_block *sb = e->fs->super;
	uint64_t bs = e->fs->blocksize, free_blocks = ext2fs_free_blocks_count(sb);
	uint64_t reserved = ext2fs_r_blocks_count(sb), blocks = ext2fs_blocks_count(sb);
	uint64_t overhead = overhead_blocks(e->fs);

	(void)err;
	*out = (struct vdisk_fs_usage) {
		.block_size = bs,
		.total = (blocks - MIN(overhead, blocks)) * bs,
		.free = free_blocks * bs,
		.available = (free_blocks > reserved ? free_blocks - reserved : 0) * bs,
		.inodes = sb->s_inodes_count,
		.inodes_free = sb->s_free_inodes_count,
	};
	return 0;
}

/* ---- inodes ---- */

int vd_ext_read_inode(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		      struct vdisk_error *err)
{
	errcode_t code;

	memset(inode, 0, sizeof(*inode));
	if (!ino || ino > e->fs->super->s_inodes_count)
		return vd_fail(err, EUCLEAN, "inode number %llu", (unsigned long long)ino);
	code = ext2fs_read_inode_full(e->fs, (ext2_ino_t)ino, small(inode), sizeof(*inode));
	if (code)
		return vd_fail(err, vd_ext_errno(code), "cannot read inode %llu: %s",
			       (unsigned long long)ino, error_message(code));
	return 0;
}

int vd_ext_write_inode(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		       struct vdisk_error *err)
{
	errcode_t code = ext2fs_write_inode_full(e->fs, (ext2_ino_t)ino, small(inode),
						 sizeof(*inode));

	if (code)
		return vd_fail(err, vd_ext_errno(code), "cannot write inode %llu: %s",
			       (unsigned long long)ino, error_message(code));
	return 0;
}

const struct vd_fs_ops vd_ext_ops = {
	.name = "ext",
	.match = ext_match,
	.open = ext_open,
	.close = ext_close,
	.sync = ext_sync,
	.usage = ext_usage,
	.lookup = vd_ext_lookup,
	.stat = vd_ext_stat,
	.list = vd_ext_list,
	.readlink = vd_ext_readlink,
	.read = vd_ext_read,
	.next_data = vd_ext_next_data,
	.listxattr = vd_ext_listxattr,
	.getxattr = vd_ext_getxattr,
	.create = vd_ext_create,
	.setattr = vd_ext_setattr,
	.write = vd_ext_write,
	.truncate = vd_ext_truncate,
	.link = vd_ext_link,
	.unlink = vd_ext_unlink,
	.rename = vd_ext_rename,
	.setxattr = vd_ext_setxattr,
	.each_free = vd_ext_each_free,
	.set_label = vd_ext_set_label,
	.set_uuid = vd_ext_set_uuid,
	.hold = vd_ext_hold,
	.release = vd_ext_release,
	.map = vd_ext_map_runs,
	.fail = ext_fail,
	.punch = vd_ext_punch_range,
	.commit = ext_commit,
	.commit_due = ext_commit_due,
};
