/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ext.h - between the files of the ext2/3/4 driver */
#ifndef VD_EXT_H
#define VD_EXT_H

#include <ext2fs/ext2fs.h>

#include "fs/fs.h"
#include "fs/jbd2.h"

/* ---- ext_io.c: blocks ---- */

/* The disk that the next ext2fs_open2() of this thread shall be on, with vd_ext_io. */
void vd_ext_io_next(struct vdisk *disk);
extern struct struct_io_manager vd_ext_io;
/* File data: past libext2fs, but coherent with what it has in the cache. */
int vd_ext_io_read(io_channel io, void *buf, size_t len, uint64_t off) MUST_CHECK;
int vd_ext_io_write(io_channel io, const void *buf, size_t len, uint64_t off) MUST_CHECK;
/* May someone else read, or (@write: whole blocks) write these bytes of the disk? */
bool vd_ext_io_share(io_channel io, uint64_t off, uint64_t len, bool write);

/* From here on metadata goes through @log; NULL: no more. */
void vd_ext_io_log(io_channel io, struct vd_jbd2_writer *log);
/* Blocks of metadata that a commit would write. */
unsigned vd_ext_io_pending(io_channel io);
/* Write everything, as one transaction.  -ENOSPC: it does not fit, nothing is lost. */
int vd_ext_io_commit(io_channel io, struct vdisk_error *err);

/* ---- ext.c: the file system ---- */

struct ext_index;

struct ext_held {		/* a node that is open */
	ext2_ino_t ino;
	unsigned count;
	bool orphan;		/* its last name is gone */
};

struct ext_fs {
	ext2_filsys fs;		/* owned */
	bool started;		/* bitmaps are loaded, the superblock says "in use" */
	int failed;		/* a change was half made: write no more */
	struct ext_index *index; /* owned; ext_dir.c */
	struct ext_held *held;	/* owned */
	unsigned n_held;
	ext2_ino_t last_dir;	/* looked into last */

	/* with VDISK_FS_JOURNAL */
	struct vd_jbd2_writer *log; /* owned; NULL: there is no journal that can be written */
	struct vd_jbd2 journal;	/* its ->blocks owned */
	ext2fs_block_bitmap freed; /* owned: since the last commit, kept from being used */
	uint64_t n_freed;
};

static inline struct ext_fs *ext_of(struct vdisk_fs *fs)
{
	return fs->priv;
}

/* errno for an error of libext2fs */
int vd_ext_errno(errcode_t code);
/* Fill @err with "@what: why" and return -errno; 0 for no error. */
int vd_ext_fail(struct vdisk_error *err, errcode_t code, const char *what);

/* Before the first change: bitmaps, and the mark in the superblock. */
int vd_ext_begin(struct vdisk_fs *fs, struct vdisk_error *err);

int vd_ext_read_inode(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		      struct vdisk_error *err);
int vd_ext_write_inode(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		       struct vdisk_error *err);
/* ctime (and with @mtime, mtime) is now */
void vd_ext_touch(struct ext_fs *e, struct ext2_inode_large *inode, bool mtime);

static inline struct ext2_inode *small(struct ext2_inode_large *inode)
{
	return EXT2_INODE(inode);
}

/* ---- ext_dir.c: directories ---- */

/* 0 or -ENOENT without a message, else with one */
int vd_ext_lookup(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t *ino,
		  struct vdisk_error *err);
int vd_ext_list(struct vdisk_fs *fs, uint64_t dir, vd_fs_each *each, void *arg,
		struct vdisk_error *err);
int vd_ext_enter(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		 uint32_t mode, struct vdisk_error *err);
int vd_ext_leave(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		 struct vdisk_error *err);
/* Set ".." */
int vd_ext_set_parent(struct vdisk_fs *fs, uint64_t dir, uint64_t parent,
		      struct vdisk_error *err);
/* Forget all that is remembered of a directory. */
void vd_ext_index_drop(struct ext_fs *e, uint64_t dir);
void vd_ext_index_free(struct ext_fs *e);

/* ---- ext_file.c: contents ---- */

struct ext_run {		/* blocks of a file, one after the other */
	uint64_t start;		/* in the file */
	uint64_t count;
	uint64_t block;		/* on the disk; 0: a hole */
	bool unwritten;		/* allocated, reads as zeroes */
};

/* What is at block @start of a file, for at most @max blocks. */
int vd_ext_map(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode, uint64_t start,
	       uint64_t max, struct ext_run *run, struct vdisk_error *err);
ssize_t vd_ext_read(struct vdisk_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off,
		    struct vdisk_error *err);
int vd_ext_next_data(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t *start,
		     uint64_t *length, struct vdisk_error *err);
ssize_t vd_ext_write(struct vdisk_fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
		     struct vdisk_error *err);
/* The same for an inode of any type that is being changed in memory. */
ssize_t vd_ext_write_blocks(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
			    const uint8_t *buf, size_t len, uint64_t off, struct vdisk_error *err);
int vd_ext_truncate(struct vdisk_fs *fs, uint64_t ino, uint64_t size, struct vdisk_error *err);
/* Give back the blocks of a file from block @start on. */
int vd_ext_punch(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode, uint64_t start,
		 struct vdisk_error *err);
int vd_ext_readlink(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
		    struct vdisk_error *err);
int vd_ext_map_runs(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t len, bool write,
		    struct vd_fs_run *runs, unsigned max, struct vdisk_error *err);
int vd_ext_punch_range(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t len,
		       struct vdisk_error *err);

/* ---- ext_node.c: nodes ---- */

int vd_ext_stat(struct vdisk_fs *fs, uint64_t ino, struct vdisk_stat *out,
		struct vdisk_error *err);
int vd_ext_create(struct vdisk_fs *fs, uint64_t dir, const char *name,
		  const struct vdisk_stat *st, unsigned attrs, const char *target, uint64_t *ino,
		  struct vdisk_error *err);
int vd_ext_setattr(struct vdisk_fs *fs, uint64_t ino, const struct vdisk_stat *st,
		   unsigned attrs, struct vdisk_error *err);
int vd_ext_link(struct vdisk_fs *fs, uint64_t ino, uint64_t dir, const char *name,
		struct vdisk_error *err);
int vd_ext_unlink(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		  struct vdisk_error *err);
int vd_ext_rename(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		  uint64_t to_dir, const char *to_name, struct vdisk_error *err);
/* Free a node that has no name left, and its blocks. */
int vd_ext_free_node(struct vdisk_fs *fs, uint64_t ino, struct ext2_inode_large *inode,
		     struct vdisk_error *err);
int vd_ext_hold(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err);
int vd_ext_release(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err);
/* Finish what a crash left: nodes that were open without a name, truncations. */
int vd_ext_orphans(struct vdisk_fs *fs, struct vdisk_error *err);
ssize_t vd_ext_listxattr(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			 struct vdisk_error *err);
ssize_t vd_ext_getxattr(struct vdisk_fs *fs, uint64_t ino, const char *name, void *buf,
			size_t size, struct vdisk_error *err);
int vd_ext_setxattr(struct vdisk_fs *fs, uint64_t ino, const char *name, const void *value,
		    size_t size, struct vdisk_error *err);

/* ---- ext_label.c ---- */

int vd_ext_each_free(struct vdisk_fs *fs, int (*each)(void *arg, uint64_t off, uint64_t len),
		     void *arg, struct vdisk_error *err);

int vd_ext_set_label(struct vdisk_fs *fs, const char *label, struct vdisk_error *err);
int vd_ext_set_uuid(struct vdisk_fs *fs, const uint8_t uuid[16], struct vdisk_error *err);

#endif
