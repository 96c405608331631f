/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree.h - a tree of files, of this host or inside a disk, as cp sees it
 *
 * Paths are relative to where the tree was opened, never start with a slash and
 * have no ".."; what they name is never reached through a symbolic link inside
 * the tree, so that a copy out of a hostile disk stays where it was sent.
 */
#ifndef CLI_TREE_H
#define CLI_TREE_H

#include "cli/files.h"

struct tree;

/* Which attributes ->set shall set. */
enum tree_attr { TREE_OWNER = 1, TREE_MODE = 2, TREE_TIMES = 4 };

/* 0 (or what is documented) or -errno with a message in @err. */
struct tree_ops {
	int (*stat)(struct tree *t, const char *path, bool follow, struct vdisk_stat *st,
		    struct vdisk_error *err);
	/* Names but "." and ".."; stops when @each returns non-zero, which is returned. */
	int (*list)(struct tree *t, const char *path, int (*each)(void *arg, const char *name),
		    void *arg, struct vdisk_error *err);
	int (*readlink)(struct tree *t, const char *path, char *buf, size_t size,
			struct vdisk_error *err);
	int (*mkdir)(struct tree *t, const char *path, struct vdisk_error *err);
	int (*symlink)(struct tree *t, const char *target, const char *path,
		       struct vdisk_error *err);
	int (*link)(struct tree *t, const char *existing, const char *path,
		    struct vdisk_error *err);
	int (*mknod)(struct tree *t, const char *path, const struct vdisk_stat *st,
		     struct vdisk_error *err);
	int (*remove)(struct tree *t, const char *path, struct vdisk_error *err);
	int (*set)(struct tree *t, const char *path, const struct vdisk_stat *st, unsigned attrs,
		   struct vdisk_error *err);
	/* As vdisk_fs_listxattr() and its family. */
	ssize_t (*listxattr)(struct tree *t, const char *path, char *buf, size_t size,
			     struct vdisk_error *err);
	ssize_t (*getxattr)(struct tree *t, const char *path, const char *name, void *buf,
			    size_t size, struct vdisk_error *err);
	int (*setxattr)(struct tree *t, const char *path, const char *name, const void *value,
			size_t size, struct vdisk_error *err);

	/* One file at a time is open. */
	int (*open)(struct tree *t, const char *path, bool follow, struct vdisk_error *err);
	/* A new, empty file; @mode: its permissions. */
	int (*create)(struct tree *t, const char *path, uint32_t mode, struct vdisk_error *err);
	ssize_t (*read)(struct tree *t, void *buf, size_t len, uint64_t off,
			struct vdisk_error *err);
	ssize_t (*write)(struct tree *t, const void *buf, size_t len, uint64_t off,
			 struct vdisk_error *err);
	/* The next run of data at or after @off; length 0 at the end. */
	int (*next_data)(struct tree *t, uint64_t off, uint64_t *start, uint64_t *length,
			 struct vdisk_error *err);
	int (*truncate)(struct tree *t, uint64_t size, struct vdisk_error *err);
	int (*close)(struct tree *t, struct vdisk_error *err);
};

struct tree {
	const struct tree_ops *ops;
	const char *name;		/* borrowed: for messages, before a path */
	/* a host tree */
	int dir;			/* owned; -1 */
	int fd;				/* owned: the open file; -1 */
	/* a tree in a disk */
	struct vdisk_fs *fs;		/* borrowed */
	char *base;			/* owned: path of the tree in the disk */
	struct vdisk_file *file;	/* owned: the open file */
};

/* Both return CLI_OK, or CLI_FAILED after printing why. */
int tree_open_host(struct tree *t, const char *dir);
int tree_open_guest(struct tree *t, struct vdisk_fs *fs, const char *dir, const char *name);
void tree_close(struct tree *t);

#endif
