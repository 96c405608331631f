/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host_fs.c - a file system that the host's kernel reads, behind our own interface
 *
 * What we have no driver for (XFS, btrfs, NTFS ...), the kernel may have: root mounts it
 * where nobody sees it, and the same commands work on it.  The mount is detached: it is
 * a descriptor and has no place in any tree, so it ends with us, however we end.
 *
 *   1. A node is a number in a table, which remembers by which name, in which directory,
 *      it was found last.  It is opened by that path, without following any link.
 *   2. Nobody else has the mount, so what the table says stays true; a number stands for
 *      the same inode as long as that exists, whatever its names.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "fs/fs.h"
#include "kernel/host.h"

#define ROOT 1u			/* the number of the root */

struct host_node {
	uint64_t dev, ino;
	uint64_t dir;		/* rule 1; 0: the root */
	char *name;		/* owned */
	uint64_t next;		/* in its hash chain; 0: the end */
};

struct host_fs {
	int root;		/* owned */
	struct host_node *node;	/* owned; number n is node[n - 1] */
	uint64_t n, room;
	uint64_t *hash;		/* owned; n_hash chains of numbers */
	uint64_t n_hash;	/* a power of two */
	int file;		/* owned: the regular file used last, -1 */
	uint64_t file_node;
	bool file_writable;
};

static struct host_fs *host_of(const struct vdisk_fs *fs)
{
	return fs->priv;
}

static int failed(struct vdisk_error *err)
{
	return vd_fail(err, errno, "%m");
}

/* ---- nodes ---- */

static uint64_t *chain_of(const struct host_fs *h, uint64_t dev, uint64_t ino)
{
	return &h->hash[((ino ^ dev << 40) * 0x9e3779b97f4a7c15u >> 20) & (h->n_hash - 1)];
}

static int hash_grow(struct host_fs *h)
{
	uint64_t n = h->n_hash ? 4 * h->n_hash : 1024;
	uint64_t *hash = calloc(n, sizeof(*hash));

	if (!hash)
		return -ENOMEM;
	free(h->hash);
	h->hash = hash;
	h->n_hash = n;
	for (uint64_t i = 0; i < h->n; i++) {
		uint64_t *chain = chain_of(h, h->node[i].dev, h->node[i].ino);

		h->node[i].next = *chain;
		*chain = i + 1;
	}
	return 0;
}

/* The number of what is called @name in @dir (0: the root) and is that inode. */
static int node_number(struct host_fs *h, uint64_t dir, const char *name, uint64_t dev,
		       uint64_t ino, uint64_t *number)
{
	AUTO_FREE char *copy = strdup(name);
	struct host_node *n;
	uint64_t *chain;

	if (!copy)
		return -ENOMEM;
	for (uint64_t i = h->n_hash ? *chain_of(h, dev, ino) : 0; i; i = n->next) {
		n = &h->node[i - 1];
		if (n->dev != dev || n->ino != ino)
			continue;
		if (i != ROOT) {
			free(n->name);
			n->name = STEAL(copy);
			n->dir = dir;
		}
		*number = i;
		return 0;
	}
	if (h->n == h->room) {
		uint64_t room = h->room ? 2 * h->room : 256;
		struct host_node *v = reallocarray(h->node, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		h->node = v;
		h->room = room;
	}
	if (h->n >= h->n_hash / 2 && hash_grow(h) < 0)
		return -ENOMEM;
	chain = chain_of(h, dev, ino);
	h->node[h->n] = (struct host_node) {
		.dev = dev, .ino = ino, .dir = dir, .name = STEAL(copy), .next = *chain,
	};
	*number = *chain = ++h->n;
	return 0;
}

/* Its path from the root; false: too long. */
static bool node_path(const struct host_fs *h, uint64_t number, char out[PATH_MAX])
{
	char *p = out + PATH_MAX - 1;

	*p = '\0';
	for (uint64_t i = number; i != ROOT; i = h->node[i - 1].dir) {
		const char *name = h->node[i - 1].name;
		size_t len = strlen(name);

		if ((size_t)(p - out) < len + 1)
			return false;
		if (*p)
			*--p = '/';
		p -= len;
		memcpy(p, name, len);
	}
	if (!*p)
		*--p = '.';
	memmove(out, p, (size_t)(out + PATH_MAX - p));
	return true;
}

/* Open it as it is, a link too (O_PATH): the caller's to close. */
static int node_open(const struct host_fs *h, uint64_t number, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_NOFOLLOW | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	char path[PATH_MAX];

	if (!number || number > h->n) {
		errno = ESTALE;
		return -1;
	}
	if (!node_path(h, number, path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return (int)syscall(SYS_openat2, h->root, path, &how, sizeof(how));
}

static void fd_path(int fd, char out[40])
{
	snprintf(out, 40, "/proc/self/fd/%d", fd);
}

/* The open regular file behind a node; borrowed.  -1 and errno. */
static int file_of(struct host_fs *h, uint64_t number, bool write)
{
	int fd;

	if (h->file >= 0 && h->file_node == number && (h->file_writable || !write))
		return h->file;
	fd = node_open(h, number, (write ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_LARGEFILE);
	if (fd < 0)
		return -1;
	if (h->file >= 0)
		close(h->file);
	h->file = fd;
	h->file_node = number;
	h->file_writable = write;
	return fd;
}

static void file_forget(struct host_fs *h)
{
	if (h->file >= 0)
		close(h->file);
	h->file = -1;
}

/* ---- looking ---- */

static int host_lookup(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t *ino,
		       struct vdisk_error *err)
{
	struct host_fs *h = host_of(fs);
	AUTO_CLOSE int fd = -1;
	struct stat st;

	if (!dir || dir > h->n)
		return vd_fail(err, ESTALE, "%s", strerror(ESTALE));
	if (!strcmp(name, ".") || !strcmp(name, "..")) {
		*ino = !name[1] || dir == ROOT ? dir : h->node[dir - 1].dir;
		return 0;
	}
	fd = node_open(h, dir, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return failed(err);
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? -ENOENT : failed(err);
	return node_number(h, dir, name, st.st_dev, st.st_ino, ino);
}

static struct timespec time_of(struct statx_timestamp t)
{
	return (struct timespec) { .tv_sec = t.tv_sec, .tv_nsec = t.tv_nsec };
}

static int host_stat(struct vdisk_fs *fs, uint64_t ino, struct vdisk_stat *out,
		     struct vdisk_error *err)
{
	AUTO_CLOSE int fd = node_open(host_of(fs), ino, O_PATH);
	struct statx x;

	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW,
			    STATX_BASIC_STATS | STATX_BTIME, &x) < 0)
		return failed(err);
	*out = (struct vdisk_stat) {
		.ino = x.stx_ino, .size = x.stx_size, .allocated = x.stx_blocks * 512,
		.mode = x.stx_mode, .uid = x.stx_uid, .gid = x.stx_gid, .nlink = x.stx_nlink,
		.rdev_major = x.stx_rdev_major, .rdev_minor = x.stx_rdev_minor,
		.atime = time_of(x.stx_atime), .mtime = time_of(x.stx_mtime),
		.ctime = time_of(x.stx_ctime),
	};
	if (x.stx_mask & STATX_BTIME)
		out->crtime = time_of(x.stx_btime);
	return 0;
}

static int host_list(struct vdisk_fs *fs, uint64_t dir, vd_fs_each *each, void *arg,
		     struct vdisk_error *err)
{
	struct host_fs *h = host_of(fs);
	int fd = node_open(h, dir, O_RDONLY | O_DIRECTORY), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		r = failed(err);
		if (fd >= 0)
			close(fd);
		return r;
	}
	for (errno = 0; r == 0 && (e = readdir(d)); errno = 0) {
		uint64_t number = 0;
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = failed(err);
		if (r == 0)
			r = node_number(h, dir, e->d_name, st.st_dev, st.st_ino, &number);
		if (r == 0)
			r = each(arg, e->d_name, number);
	}
	if (r == 0 && errno)
		r = failed(err);
	closedir(d);
	return r;
}

static int host_readlink(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			 struct vdisk_error *err)
{
	AUTO_CLOSE int fd = node_open(host_of(fs), ino, O_PATH);
	ssize_t n = fd < 0 ? -1 : readlinkat(fd, "", buf, size);

	if (n < 0)
		return failed(err);
	if ((size_t)n == size)
		return vd_fail(err, ENAMETOOLONG, "the target of a link is too long");
	buf[n] = '\0';
	return 0;
}

static int host_usage(struct vdisk_fs *fs, struct vdisk_fs_usage *out, struct vdisk_error *err)
{
	struct statvfs st;

	if (fstatvfs(host_of(fs)->root, &st) < 0)
		return failed(err);
	*out = (struct vdisk_fs_usage) {
		.block_size = st.f_frsize, .total = st.f_blocks * st.f_frsize,
		.free = st.f_bfree * st.f_frsize, .available = st.f_bavail * st.f_frsize,
		.inodes = st.f_files, .inodes_free = st.f_ffree,
	};
	return 0;
}

/* ---- contents and attributes ---- */

static ssize_t host_read(struct vdisk_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off,
			 struct vdisk_error *err)
{
	int fd = file_of(host_of(fs), ino, false);
	size_t done = 0;

	while (fd >= 0 && done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failed(err);
		if (!n)
			break;
		done += (size_t)n;
	}
	return fd < 0 ? failed(err) : (ssize_t)done;
}

static int host_next_data(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t *start,
			  uint64_t *length, struct vdisk_error *err)
{
	int fd = file_of(host_of(fs), ino, false);
	off_t data, hole;

	if (fd < 0)
		return failed(err);
	*length = 0;
	data = lseek(fd, (off_t)off, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? 0 : failed(err);
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return failed(err);
	*start = (uint64_t)data;
	*length = (uint64_t)(hole - data);
	return 0;
}

static ssize_t host_listxattr(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			      struct vdisk_error *err)
{
	AUTO_CLOSE int fd = node_open(host_of(fs), ino, O_PATH);
	char path[40];
	ssize_t n;

	if (fd < 0)
		return failed(err);
	fd_path(fd, path);
	n = listxattr(path, buf, size);
	if (n < 0 && errno == EOPNOTSUPP)
		return 0;
	return n < 0 ? failed(err) : n;
}

static ssize_t host_getxattr(struct vdisk_fs *fs, uint64_t ino, const char *name, void *buf,
			     size_t size, struct vdisk_error *err)
{
	AUTO_CLOSE int fd = node_open(host_of(fs), ino, O_PATH);
	char path[40];
	ssize_t n;

	if (fd < 0)
		return failed(err);
	fd_path(fd, path);
	n = getxattr(path, name, buf, size);
	return n < 0 ? failed(err) : n;
}

static int host_setxattr(struct vdisk_fs *fs, uint64_t ino, const char *name, const void *value,
			 size_t size, struct vdisk_error *err)
{
	AUTO_CLOSE int fd = node_open(host_of(fs), ino, O_PATH);
	char path[40];
	int r;

	if (fd < 0)
		return failed(err);
	fd_path(fd, path);
	r = value ? setxattr(path, name, value, size, 0) : removexattr(path, name);
	return r < 0 ? failed(err) : 0;
}

/* ---- changing ---- */

static int set_attrs(int fd, const struct vdisk_stat *st, unsigned attrs, bool is_link,
		     struct vdisk_error *err)
{
	uid_t uid = attrs & VD_ATTR_UID ? st->uid : (uid_t)-1;
	gid_t gid = attrs & VD_ATTR_GID ? st->gid : (gid_t)-1;
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
	char path[40];

	fd_path(fd, path);
	/* a new owner clears set-user-ID bits, so the mode comes after it */
	if ((attrs & (VD_ATTR_UID | VD_ATTR_GID)) && fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
		return failed(err);
	if ((attrs & VD_ATTR_MODE) && !is_link && chmod(path, st->mode & 07777) < 0)
		return failed(err);
	if (attrs & VD_ATTR_ATIME)
		t[0] = st->atime;
	if (attrs & VD_ATTR_MTIME)
		t[1] = st->mtime;
	if ((attrs & (VD_ATTR_ATIME | VD_ATTR_MTIME)) && utimensat(fd, "", t, AT_EMPTY_PATH) < 0)
		return failed(err);
	return 0;
}

static int host_setattr(struct vdisk_fs *fs, uint64_t ino, const struct vdisk_stat *st,
			unsigned attrs, struct vdisk_error *err)
{
	AUTO_CLOSE int fd = node_open(host_of(fs), ino, O_PATH);
	struct stat now;

	if (fd < 0 || fstat(fd, &now) < 0)
		return failed(err);
	return set_attrs(fd, st, attrs, S_ISLNK(now.st_mode), err);
}

static int make_at(int dir, const char *name, const struct vdisk_stat *st, const char *target)
{
	int fd;

	switch (st->mode & S_IFMT) {
	case S_IFREG:
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		return fd < 0 ? -1 : close(fd);
	case S_IFDIR:
		return mkdirat(dir, name, 0700);
	case S_IFLNK:
		return symlinkat(target, dir, name);
	default:
		return mknodat(dir, name, (st->mode & S_IFMT) | 0600,
			       makedev(st->rdev_major, st->rdev_minor));
	}
}

static int host_create(struct vdisk_fs *fs, uint64_t dir, const char *name,
		       const struct vdisk_stat *st, unsigned attrs, const char *target,
		       uint64_t *ino, struct vdisk_error *err)
{
	AUTO_CLOSE int up = node_open(host_of(fs), dir, O_PATH | O_DIRECTORY), fd = -1;
	struct stat made;
	int r;

	if (up < 0 || make_at(up, name, st, target) < 0)
		return failed(err);
	fd = openat(up, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &made) < 0)
		return failed(err);
	r = set_attrs(fd, st, attrs, S_ISLNK(st->mode), err);
	if (r < 0) {
		unlinkat(up, name, S_ISDIR(st->mode) ? AT_REMOVEDIR : 0);
		return r;
	}
	return node_number(host_of(fs), dir, name, made.st_dev, made.st_ino, ino);
}

static ssize_t host_write(struct vdisk_fs *fs, uint64_t ino, const void *buf, size_t len,
			  uint64_t off, struct vdisk_error *err)
{
	int fd = file_of(host_of(fs), ino, true);
	size_t done = 0;

	while (fd >= 0 && done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failed(err);
		done += (size_t)n;
	}
	return fd < 0 ? failed(err) : (ssize_t)done;
}

static int host_truncate(struct vdisk_fs *fs, uint64_t ino, uint64_t size,
			 struct vdisk_error *err)
{
	int fd = file_of(host_of(fs), ino, true);

	return fd < 0 || ftruncate(fd, (off_t)size) < 0 ? failed(err) : 0;
}

static int host_link(struct vdisk_fs *fs, uint64_t ino, uint64_t dir, const char *name,
		     struct vdisk_error *err)
{
	AUTO_CLOSE int fd = node_open(host_of(fs), ino, O_PATH);
	AUTO_CLOSE int up = node_open(host_of(fs), dir, O_PATH | O_DIRECTORY);

	return fd < 0 || up < 0 || linkat(fd, "", up, name, AT_EMPTY_PATH) < 0 ? failed(err) : 0;
}

static int host_unlink(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		       struct vdisk_error *err)
{
	struct host_fs *h = host_of(fs);
	AUTO_CLOSE int up = node_open(h, dir, O_PATH | O_DIRECTORY);

	if (h->file_node == ino)
		file_forget(h);
	if (up < 0 || (unlinkat(up, name, 0) < 0 &&
		       (errno != EISDIR || unlinkat(up, name, AT_REMOVEDIR) < 0)))
		return failed(err);
	return 0;
}

static int host_rename(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		       uint64_t to_dir, const char *to_name, struct vdisk_error *err)
{
	struct host_fs *h = host_of(fs);
	AUTO_CLOSE int from = node_open(h, dir, O_PATH | O_DIRECTORY);
	AUTO_CLOSE int to = node_open(h, to_dir, O_PATH | O_DIRECTORY);
	const struct host_node *n = &h->node[ino - 1];
	uint64_t same;

	if (from < 0 || to < 0 || renameat(from, name, to, to_name) < 0)
		return failed(err);
	return node_number(h, to_dir, to_name, n->dev, n->ino, &same);
}

static int host_sync(struct vdisk_fs *fs, struct vdisk_error *err)
{
	return fs->writable && syncfs(host_of(fs)->root) < 0 ? failed(err) : 0;
}

static int host_close(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct host_fs *h = host_of(fs);
	int r;

	file_forget(h);
	r = host_sync(fs, err);
	for (uint64_t i = 0; i < h->n; i++)
		free(h->node[i].name);
	free(h->node);
	free(h->hash);
	close(h->root);
	free(h);
	return r;
}

static const struct vd_fs_ops host_ops = {
	.name = "host",
	.close = host_close,
	.sync = host_sync,
	.usage = host_usage,
	.lookup = host_lookup,
	.stat = host_stat,
	.list = host_list,
	.readlink = host_readlink,
	.read = host_read,
	.next_data = host_next_data,
	.listxattr = host_listxattr,
	.getxattr = host_getxattr,
	.create = host_create,
	.setattr = host_setattr,
	.write = host_write,
	.truncate = host_truncate,
	.link = host_link,
	.unlink = host_unlink,
	.rename = host_rename,
	.setxattr = host_setxattr,
};

int vd_host_fs(struct vdisk_fs **out, struct vdisk *disk, int root, const char *type,
	       bool writable, struct vdisk_error *err)
{
	struct host_fs *h = calloc(1, sizeof(*h));
	struct vdisk_fs *fs = calloc(1, sizeof(*fs));
	struct stat st;
	int dir, r;

	if (!h || !fs) {
		free(h);
		free(fs);
		return vd_fail(err, ENOMEM, "%s: out of memory", vdisk_name(disk));
	}
	/* not O_PATH, for syncfs() */
	dir = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	h->file = -1;
	h->root = dir;
	if (dir < 0 || fstat(dir, &st) < 0)
		r = -errno;
	else
		r = node_number(h, 0, "", st.st_dev, st.st_ino, &fs->root);
	if (r < 0) {
		if (dir >= 0)
			close(dir);
		free(h);
		free(fs);
		return vd_fail(err, -r, "%s: %s", vdisk_name(disk), strerror(-r));
	}
	close(root);
	fs->ops = &host_ops;
	fs->priv = h;
	fs->disk = vdisk_ref(disk);
	fs->writable = writable;
	snprintf(fs->type, sizeof(fs->type), "%s", type);
	*out = fs;
	return 0;
}

/* ---- the mount ---- */

/* What the file system itself says of why it does not like it. */
static int mount_failed(int context, const char *device, const char *type, struct vdisk_error *err)
{
	int code = errno;
	char said[200] = "";
	ssize_t n = context >= 0 ? read(context, said, sizeof(said) - 1) : -1;

	said[n > 0 ? n : 0] = '\0';
	said[strcspn(said, "\n")] = '\0';
	if (code == ENODEV && context < 0)
		return vd_fail(err, code, "the kernel of this host has no %s", type);
	return vd_fail(err, code, "the kernel does not mount %s as %s: %s%s%s%s", device, type,
		       strerror(code), *said ? " (" : "", *said ? said : "", *said ? ")" : "");
}

int vd_host_mount(const char *device, const char *type, bool read_only, struct vdisk_error *err)
{
	AUTO_CLOSE int context = fsopen(type, FSOPEN_CLOEXEC);
	int fd;

	if (context < 0)
		return mount_failed(-1, device, type, err);
	if (fsconfig(context, FSCONFIG_SET_STRING, "source", device, 0) < 0 ||
	    (read_only && fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0) ||
	    /* a copy of a disk has the UUID of the disk */
	    (!strcmp(type, "xfs") && fsconfig(context, FSCONFIG_SET_FLAG, "nouuid", NULL, 0) < 0) ||
	    fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return mount_failed(context, device, type, err);
	fd = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
		     MOUNT_ATTR_NOEXEC | (read_only ? (unsigned)MOUNT_ATTR_RDONLY : 0u));
	return fd < 0 ? mount_failed(context, device, type, err) : fd;
}
