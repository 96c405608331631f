/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tree_guest.c - a tree inside a disk; see tree.h */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/tree.h"

/* The whole path, in a buffer for one call. */
static const char *full(struct tree *t, const char *path)
{
	static char buf[2][8192];
	static unsigned which;
	char *p = buf[which++ % 2];

	snprintf(p, sizeof(buf[0]), "%s/%s", t->base, path);
	return p;
}

static int g_stat(struct tree *t, const char *path, bool follow, struct vdisk_stat *st,
		  struct vdisk_error *err)
{
	return vdisk_fs_stat(t->fs, full(t, path), !follow, st, err);
}

struct each_name {
	int (*each)(void *arg, const char *name);
	void *arg;
};

static int g_one(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct each_name *e = arg;

	(void)st;
	return e->each(e->arg, name);
}

static int g_list(struct tree *t, const char *path, int (*each)(void *arg, const char *name),
		  void *arg, struct vdisk_error *err)
{
	struct each_name e = { each, arg };

	return vdisk_fs_list(t->fs, full(t, path), g_one, &e, err);
}

static int g_readlink(struct tree *t, const char *path, char *buf, size_t size,
		      struct vdisk_error *err)
{
	return vdisk_fs_readlink(t->fs, full(t, path), buf, size, err);
}

static int g_mkdir(struct tree *t, const char *path, struct vdisk_error *err)
{
	return vdisk_fs_mkdir(t->fs, full(t, path), 0755, err);
}

static int g_symlink(struct tree *t, const char *target, const char *path,
		     struct vdisk_error *err)
{
	return vdisk_fs_symlink(t->fs, target, full(t, path), err);
}

static int g_link(struct tree *t, const char *existing, const char *path,
		  struct vdisk_error *err)
{
	return vdisk_fs_link(t->fs, full(t, existing), full(t, path), err);
}

static int g_mknod(struct tree *t, const char *path, const struct vdisk_stat *st,
		   struct vdisk_error *err)
{
	return vdisk_fs_mknod(t->fs, full(t, path), st->mode, st->rdev_major, st->rdev_minor, err);
}

static int g_remove(struct tree *t, const char *path, struct vdisk_error *err)
{
	return vdisk_fs_remove(t->fs, full(t, path), err);
}

static int g_set(struct tree *t, const char *path, const struct vdisk_stat *st, unsigned attrs,
		 struct vdisk_error *err)
{
	const char *p = full(t, path);
	int r = 0;

	if (attrs & TREE_OWNER)
		r = vdisk_fs_chown(t->fs, p, st->uid, st->gid, true, err);
	if (r == 0 && (attrs & TREE_MODE) && !S_ISLNK(st->mode))
		r = vdisk_fs_chmod(t->fs, p, st->mode, err);
	if (r == 0 && (attrs & TREE_TIMES))
		r = vdisk_fs_utimes(t->fs, p, st->atime, st->mtime, true, err);
	return r;
}

static ssize_t g_listxattr(struct tree *t, const char *path, char *buf, size_t size,
			   struct vdisk_error *err)
{
	return vdisk_fs_listxattr(t->fs, full(t, path), buf, size, err);
}

static ssize_t g_getxattr(struct tree *t, const char *path, const char *name, void *buf,
			  size_t size, struct vdisk_error *err)
{
	return vdisk_fs_getxattr(t->fs, full(t, path), name, buf, size, err);
}

static int g_setxattr(struct tree *t, const char *path, const char *name, const void *value,
		      size_t size, struct vdisk_error *err)
{
	return vdisk_fs_setxattr(t->fs, full(t, path), name, value, size, err);
}

static int g_open(struct tree *t, const char *path, bool follow, struct vdisk_error *err)
{
	(void)follow;	/* links lead nowhere out of the disk */
	return vdisk_file_open(&t->file, t->fs, full(t, path), 0, 0, err);
}

static int g_create(struct tree *t, const char *path, uint32_t mode, struct vdisk_error *err)
{
	return vdisk_file_open(&t->file, t->fs, full(t, path), VDISK_FILE_WRITE |
			       VDISK_FILE_CREATE | VDISK_FILE_TRUNC, mode, err);
}

static ssize_t g_read(struct tree *t, void *buf, size_t len, uint64_t off,
		      struct vdisk_error *err)
{
	return vdisk_file_read(t->file, buf, len, off, err);
}

static ssize_t g_write(struct tree *t, const void *buf, size_t len, uint64_t off,
		       struct vdisk_error *err)
{
	return vdisk_file_write(t->file, buf, len, off, err);
}

static int g_next_data(struct tree *t, uint64_t off, uint64_t *start, uint64_t *length,
		       struct vdisk_error *err)
{
	return vdisk_file_next_data(t->file, off, start, length, err);
}

static int g_truncate(struct tree *t, uint64_t size, struct vdisk_error *err)
{
	return vdisk_file_truncate(t->file, size, err);
}

static int g_close(struct tree *t, struct vdisk_error *err)
{
	return vdisk_file_close(STEAL(t->file), err);
}

static const struct tree_ops guest_ops = {
	.stat = g_stat, .list = g_list, .readlink = g_readlink, .mkdir = g_mkdir,
	.symlink = g_symlink, .link = g_link, .mknod = g_mknod, .remove = g_remove, .set = g_set,
	.listxattr = g_listxattr, .getxattr = g_getxattr, .setxattr = g_setxattr,
	.open = g_open, .create = g_create, .read = g_read, .write = g_write,
	.next_data = g_next_data, .truncate = g_truncate, .close = g_close,
};

int tree_open_guest(struct tree *t, struct vdisk_fs *fs, const char *dir, const char *name)
{
	*t = (struct tree) { .ops = &guest_ops, .name = name, .dir = -1, .fd = -1, .fs = fs };
	t->base = strdup(!strcmp(dir, "/") ? "" : dir);
	if (!t->base || strlen(t->base) >= 4096) {
		cli_error(t->base ? "%s: the path is too long" : "%s: out of memory", name);
		return CLI_FAILED;
	}
	return CLI_OK;
}

void tree_close(struct tree *t)
{
	if (t->dir >= 0)
		close(t->dir);
	free(t->base);
	*t = (struct tree) { .dir = -1, .fd = -1 };
}
