/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree_host.c - a tree of this host's files; see tree.h
 *
 * Names below the directory that the user gave come from a disk and are not
 * trusted: every path is opened by openat2() beneath that directory, through no
 * symbolic link, and its last name is used with the *at() calls.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "cli/tree.h"

static int fail(struct vdisk_error *err, const char *path)
{
	int code = errno;

	if (err) {
		err->code = code;
		snprintf(err->msg, sizeof(err->msg), "%s: %s", path, strerror(code));
	}
	return -code;
}

static int open_below(int dir, const char *path, uint64_t flags, uint64_t mode)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC, .mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* The directory that @path is in (to be closed), and its last name. */
static int parent(struct tree *t, const char *path, const char **name)
{
	AUTO_FREE char *dir = NULL;
	const char *slash = strrchr(path, '/');

	*name = slash ? slash + 1 : path;
	if (!slash)
		return open_below(t->dir, ".", O_PATH | O_DIRECTORY, 0);
	dir = strndup(path, (size_t)(slash - path));
	if (!dir) {
		errno = ENOMEM;
		return -1;
	}
	return open_below(t->dir, dir, O_PATH | O_DIRECTORY, 0);
}

static int h_stat(struct tree *t, const char *path, bool follow, struct vdisk_stat *st,
		  struct vdisk_error *err)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);
	struct stat s;

	if (dir < 0 || fstatat(dir, name, &s, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return fail(err, path);
	*st = (struct vdisk_stat) {
		.ino = s.st_ino ^ (uint64_t)s.st_dev << 40, .size = (uint64_t)s.st_size,
		.allocated = (uint64_t)s.st_blocks * 512, .mode = s.st_mode, .uid = s.st_uid,
		.gid = s.st_gid, .nlink = (uint32_t)s.st_nlink, .rdev_major = major(s.st_rdev),
		.rdev_minor = minor(s.st_rdev), .atime = s.st_atim, .mtime = s.st_mtim,
		.ctime = s.st_ctim,
	};
	return 0;
}

static int h_list(struct tree *t, const char *path, int (*each)(void *arg, const char *name),
		  void *arg, struct vdisk_error *err)
{
	int fd = open_below(t->dir, path, O_RDONLY | O_DIRECTORY, 0), r = 0;
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *de;

	if (!d) {
		r = fail(err, path);
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (de = readdir(d)))
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
			r = each(arg, de->d_name);
	closedir(d);
	return r;
}

static int h_readlink(struct tree *t, const char *path, char *buf, size_t size,
		      struct vdisk_error *err)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);
	ssize_t n = dir < 0 ? -1 : readlinkat(dir, name, buf, size - 1);

	if (n < 0)
		return fail(err, path);
	buf[n] = '\0';
	return 0;
}

static int h_mkdir(struct tree *t, const char *path, struct vdisk_error *err)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);

	return dir < 0 || mkdirat(dir, name, 0777) < 0 ? fail(err, path) : 0;
}

static int h_symlink(struct tree *t, const char *target, const char *path,
		     struct vdisk_error *err)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);

	return dir < 0 || symlinkat(target, dir, name) < 0 ? fail(err, path) : 0;
}

static int h_link(struct tree *t, const char *existing, const char *path,
		  struct vdisk_error *err)
{
	const char *name, *old;
	AUTO_CLOSE int dir = parent(t, path, &name);
	AUTO_CLOSE int old_dir = parent(t, existing, &old);

	return dir < 0 || old_dir < 0 || linkat(old_dir, old, dir, name, 0) < 0 ?
	       fail(err, path) : 0;
}

static int h_mknod(struct tree *t, const char *path, const struct vdisk_stat *st,
		   struct vdisk_error *err)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);

	return dir < 0 || mknodat(dir, name, st->mode & (S_IFMT | 0777),
				  makedev(st->rdev_major, st->rdev_minor)) < 0 ?
	       fail(err, path) : 0;
}

static int h_remove(struct tree *t, const char *path, struct vdisk_error *err)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);

	return dir < 0 || unlinkat(dir, name, 0) < 0 ? fail(err, path) : 0;
}

static int h_set(struct tree *t, const char *path, const struct vdisk_stat *st, unsigned attrs,
		 struct vdisk_error *err)
{
	const struct timespec times[2] = { st->atime, st->mtime };
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);

	if (dir < 0)
		return fail(err, path);
	/* as cp -p: who may not give files away keeps them */
	if ((attrs & TREE_OWNER) &&
	    fchownat(dir, name, st->uid, st->gid, AT_SYMLINK_NOFOLLOW) < 0 && errno != EPERM)
		return fail(err, path);
	if ((attrs & TREE_MODE) && !S_ISLNK(st->mode)) {
		/* not through a link that came to stand there */
		AUTO_CLOSE int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		char proc[40];

		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
		if (fd < 0 || chmod(proc, st->mode & 07777) < 0)
			return fail(err, path);
	}
	if ((attrs & TREE_TIMES) && utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(err, path);
	return 0;
}

/* xattr calls want a path: one through /proc that nothing can redirect. */
static int proc_path(struct tree *t, const char *path, char *buf, size_t size)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);
	int fd = dir < 0 ? -1 : dup(dir);

	if (fd >= 0)
		snprintf(buf, size, "/proc/self/fd/%d/%s", fd, name);
	return fd;
}

static ssize_t h_listxattr(struct tree *t, const char *path, char *buf, size_t size,
			   struct vdisk_error *err)
{
	char proc[400];
	AUTO_CLOSE int fd = proc_path(t, path, proc, sizeof(proc));
	ssize_t n = fd < 0 ? -1 : llistxattr(proc, buf, size);

	return n < 0 && errno != ENOTSUP ? fail(err, path) : MAX(n, (ssize_t)0);
}

static ssize_t h_getxattr(struct tree *t, const char *path, const char *name, void *buf,
			  size_t size, struct vdisk_error *err)
{
	char proc[400];
	AUTO_CLOSE int fd = proc_path(t, path, proc, sizeof(proc));
	ssize_t n = fd < 0 ? -1 : lgetxattr(proc, name, buf, size);

	return n < 0 ? fail(err, path) : n;
}

static int h_setxattr(struct tree *t, const char *path, const char *name, const void *value,
		      size_t size, struct vdisk_error *err)
{
	char proc[400];
	AUTO_CLOSE int fd = proc_path(t, path, proc, sizeof(proc));

	return fd < 0 || lsetxattr(proc, name, value, size, 0) < 0 ? fail(err, path) : 0;
}

static int h_open(struct tree *t, const char *path, bool follow, struct vdisk_error *err)
{
	const char *name;
	AUTO_CLOSE int dir = parent(t, path, &name);

	t->fd = dir < 0 ? -1 : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK |
				      (follow ? 0 : O_NOFOLLOW));
	return t->fd < 0 ? fail(err, path) : 0;
}

static int h_create(struct tree *t, const char *path, uint32_t mode, struct vdisk_error *err)
{
	t->fd = open_below(t->dir, path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, mode & 0777);
	return t->fd < 0 ? fail(err, path) : 0;
}

static ssize_t h_read(struct tree *t, void *buf, size_t len, uint64_t off,
		      struct vdisk_error *err)
{
	ssize_t n;

	do {
		n = pread(t->fd, buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? fail(err, "read") : n;
}

static ssize_t h_write(struct tree *t, const void *buf, size_t len, uint64_t off,
		       struct vdisk_error *err)
{
	ssize_t n;

	do {
		n = pwrite(t->fd, buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? fail(err, "write") : n;
}

static int h_next_data(struct tree *t, uint64_t off, uint64_t *start, uint64_t *length,
		       struct vdisk_error *err)
{
	off_t data = lseek(t->fd, (off_t)off, SEEK_DATA), hole;

	if (data < 0 && errno == ENXIO) {
		*start = off;
		*length = 0;
		return 0;
	}
	hole = data < 0 ? -1 : lseek(t->fd, data, SEEK_HOLE);
	if (hole < 0)
		return fail(err, "seek");
	*start = (uint64_t)data;
	*length = (uint64_t)(hole - data);
	return 0;
}

static int h_truncate(struct tree *t, uint64_t size, struct vdisk_error *err)
{
	return ftruncate(t->fd, (off_t)size) < 0 ? fail(err, "truncate") : 0;
}

static int h_close(struct tree *t, struct vdisk_error *err)
{
	return close(STEAL_FD(t->fd)) < 0 ? fail(err, "close") : 0;
}

static const struct tree_ops host_ops = {
	.stat = h_stat, .list = h_list, .readlink = h_readlink, .mkdir = h_mkdir,
	.symlink = h_symlink, .link = h_link, .mknod = h_mknod, .remove = h_remove, .set = h_set,
	.listxattr = h_listxattr, .getxattr = h_getxattr, .setxattr = h_setxattr,
	.open = h_open, .create = h_create, .read = h_read, .write = h_write,
	.next_data = h_next_data, .truncate = h_truncate, .close = h_close,
};

int tree_open_host(struct tree *t, const char *dir)
{
	*t = (struct tree) { .ops = &host_ops, .name = "", .fd = -1 };
	t->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->dir < 0) {
		cli_error("%s: %m", dir);
		return CLI_FAILED;
	}
	return CLI_OK;
}
