/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs.c - files inside a disk: paths, and the rules that all file systems share
 *
 * A guest's file system is hostile, its symbolic links first of all.  So a path
 * is never handed to a file system driver: walk() takes it name by name, keeps
 * the directories it went through on its own stack (".." pops that stack, the
 * entry ".." on the medium is never believed), starts absolute links again at
 * the root it was given, and counts links and names.
 *
 * The last directory found is remembered, because who works on a tree comes
 * back to the same directory for each file in it.  Creating names cannot change
 * what an existing path means; whatever else can calls vd_fs_forget().
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/fs.h"

static const struct vd_fs_ops *const all_ops[] = { &vd_ext_ops, &vd_fat_ops, NULL };

/* ---- paths ---- */

void vd_fs_forget(struct vdisk_fs *fs)
{
	fs->last_dir = 0;
}

int vd_fs_may_write(struct vdisk_fs *fs, struct vdisk_error *err)
{
	if (!fs->writable)
		return vd_fail(err, EROFS, "%s: the file system is open read-only",
			       vdisk_name(fs->disk));
	return 0;
}

struct walk {
	struct vdisk_fs *fs;
	uint64_t *stack;	/* owned: from the root to where we are */
	size_t depth, room;
	unsigned links;
	char rest[2 * VD_PATH_MAX]; /* what is still to be walked */
};

static int walk_push(struct walk *w, uint64_t ino, struct vdisk_error *err)
{
	if (w->depth == w->room) {
		size_t room = w->room ? 2 * w->room : 32;
		uint64_t *p = reallocarray(w->stack, room, sizeof(*p));

		if (!p)
			return vd_fail(err, ENOMEM, "out of memory");
		w->stack = p;
		w->room = room;
	}
	w->stack[w->depth++] = ino;
	return 0;
}

/* Put the target of a link before what is left of the path. */
static int walk_link(struct walk *w, uint64_t ino, const char *tail, struct vdisk_error *err)
{
	char target[VD_PATH_MAX];
	size_t len, tail_len = strlen(tail);
	int r;

	if (++w->links > VD_LINK_MAX)
		return vd_fail(err, ELOOP, "too many levels of symbolic links");
	r = w->fs->ops->readlink(w->fs, ino, target, sizeof(target), err);
	if (r < 0)
		return r;
	len = strlen(target);
	if (!len)
		return vd_fail(err, ENOENT, "an empty symbolic link");
	if (len + 1 + tail_len >= VD_PATH_MAX)
		return vd_fail(err, ENAMETOOLONG, "the path with its links is too long");
	memmove(w->rest + len + 1, tail, tail_len + 1);
	memcpy(w->rest, target, len);
	w->rest[len] = tail_len ? '/' : '\0';
	if (target[0] == '/')
		w->depth = 1;
	return 0;
}

static int node_mode(struct vdisk_fs *fs, uint64_t ino, uint32_t *mode, struct vdisk_error *err)
{
	struct vdisk_stat st = { 0 };
	int r = fs->ops->stat(fs, ino, &st, err);

	if (r == 0)
		*mode = st.mode & S_IFMT;
	return r;
}

/* Take the first name off the path; its length, 0 at the end. */
static int walk_name(const char **p, char *name, struct vdisk_error *err)
{
	size_t len;

	*p += strspn(*p, "/");
	len = strcspn(*p, "/");
	if (len > VD_NAME_MAX)
		return vd_fail(err, ENAMETOOLONG, "a name of more than %d bytes", VD_NAME_MAX);
	memcpy(name, *p, len);
	name[len] = '\0';
	*p += len;
	return (int)len;
}

static int walk_steps(struct walk *w, bool follow, struct vd_place *out, struct vdisk_error *err)
{
	struct vdisk_fs *fs = w->fs;
	const char *p = w->rest;
	char name[VD_NAME_MAX + 1];
	uint32_t mode = 0;
	int r;

	for (;;) {
		uint64_t here = w->stack[w->depth - 1], ino = 0;
		bool last;

		r = walk_name(&p, name, err);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		r = node_mode(fs, here, &mode, err);
		if (r < 0)
			return r;
		if (mode != S_IFDIR)
			return vd_fail(err, ENOTDIR, "not a directory");
		last = !p[strspn(p, "/")];
		if (!strcmp(name, ".") || !strcmp(name, "..")) {
			if (name[1] && w->depth > 1)
				w->depth--;
			continue;
		}
		r = fs->ops->lookup(fs, here, name, &ino, err);
		if (r == -ENOENT && last) {
			*out = (struct vd_place) { .dir = here };
			memcpy(out->name, name, sizeof(name));
			return 0;
		}
		if (r == -ENOENT)
			return vd_fail(err, ENOENT, "no such file or directory");
		if (r < 0)
			return r;
		if (!last || follow || *p == '/') {
			r = node_mode(fs, ino, &mode, err);
			if (r < 0)
				return r;
			if (mode == S_IFLNK && fs->ops->readlink) {
				r = walk_link(w, ino, p, err);
				if (r < 0)
					return r;
				p = w->rest;
				continue;
			}
			if (*p == '/' && mode != S_IFDIR)
				return vd_fail(err, ENOTDIR, "not a directory");
		}
		if (last) {
			*out = (struct vd_place) { .dir = here, .ino = ino };
			memcpy(out->name, name, sizeof(name));
			return 0;
		}
		r = walk_push(w, ino, err);
		if (r < 0)
			return r;
	}

	/* the path ended in "." or "..", or was the root */
	*out = (struct vd_place) { .ino = w->stack[w->depth - 1], .name = "." };
	return 0;
}

static int walk_from(struct vdisk_fs *fs, uint64_t root, const char *path, bool follow,
		     struct vd_place *out, struct vdisk_error *err)
{
	struct walk w = { .fs = fs };
	size_t len = strlen(path);
	int r;

	if (len >= VD_PATH_MAX)
		return vd_fail(err, ENAMETOOLONG, "a path of more than %d bytes", VD_PATH_MAX);
	memcpy(w.rest, path, len + 1);
	r = walk_push(&w, root, err);
	if (r == 0)
		r = walk_steps(&w, follow, out, err);
	free(w.stack);
	return r;
}

/* The directory part of @path through the one-entry cache. */
static int walk_dir(struct vdisk_fs *fs, uint64_t root, const char *path, size_t len,
		    uint64_t *dir, struct vdisk_error *err)
{
	struct vd_place place = { 0 };
	int r;

	if (fs->last_dir && fs->last_root == root && !strncmp(fs->last_path, path, len) &&
	    !fs->last_path[len]) {
		*dir = fs->last_dir;
		return 0;
	}
	memcpy(fs->last_path, path, len);
	fs->last_path[len] = '\0';
	fs->last_dir = 0;
	r = walk_from(fs, root, fs->last_path, true, &place, err);
	if (r < 0)
		return r;
	if (!place.ino)
		return vd_fail(err, ENOENT, "no such file or directory");
	fs->last_root = root;
	fs->last_dir = *dir = place.ino;
	return 0;
}

int vd_fs_walk(struct vdisk_fs *fs, uint64_t root, const char *path, bool follow,
	       struct vd_place *out, struct vdisk_error *err)
{
	const char *name = strrchr(path, '/');
	struct vd_place place = { 0 };
	uint64_t dir = 0;
	uint32_t mode = 0;
	int r;

	if (strlen(path) >= VD_PATH_MAX)
		return vd_fail(err, ENAMETOOLONG, "a path of more than %d bytes", VD_PATH_MAX);
	/* only plain last names gain from the cache, and only they are simple */
	if (!name || !name[1] || !strcmp(name, "/.") || !strcmp(name, "/.."))
		return walk_from(fs, root, path, follow, out, err);
	r = walk_dir(fs, root, path, (size_t)(name - path) + 1, &dir, err);
	if (r < 0)
		return r;
	r = walk_from(fs, dir, name + 1, false, &place, err);
	if (r < 0)
		return r;
	if (place.ino && follow) {
		r = node_mode(fs, place.ino, &mode, err);
		if (r < 0)
			return r;
		if (mode == S_IFLNK)
			return walk_from(fs, root, path, true, out, err);
	}
	*out = place;
	return 0;
}

int vd_fs_find(struct vdisk_fs *fs, const char *path, bool follow, uint64_t *ino,
	       struct vdisk_error *err)
{
	struct vd_place place = { 0 };
	int r = vd_fs_walk(fs, fs->root, path, follow, &place, err);

	if (r == 0 && !place.ino)
		r = vd_fail(err, ENOENT, "no such file or directory");
	if (r < 0)
		return vd_fail_prefix(err, r, "%s", path);
	*ino = place.ino;
	return 0;
}

/* A place for a new name: the directory exists, the name does not. */
static int find_free(struct vdisk_fs *fs, const char *path, struct vd_place *place,
		     struct vdisk_error *err)
{
	int r = vd_fs_may_write(fs, err);

	if (r < 0)
		return r;
	r = vd_fs_walk(fs, fs->root, path, false, place, err);
	if (r == 0 && place->ino)
		r = vd_fail(err, EEXIST, "exists already");
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

/* ---- open and close ---- */

/* Say what there is instead, and what would work. */
static int unsupported(struct vdisk *disk, struct vdisk_error *err)
{
	struct vdisk_probe probe = { 0 };

	if (!err)
		return -EMEDIUMTYPE;
	if (vdisk_probe(disk, &probe, NULL) < 0 || !probe.type[0])
		return vd_fail(err, EMEDIUMTYPE, "%s: no file system that is supported",
			       vdisk_name(disk));
	if (!strcmp(probe.usage, "filesystem"))
		return vd_fail(err, EMEDIUMTYPE, "%s: %s, which is not read in process: as root, "
			       "commands on files have the kernel read it, and 'vdisk mount DISK#PART "
			       "DIR' mounts it", vdisk_name(disk), probe.type);
	if (!strcmp(probe.type, "crypto_LUKS") || !strcmp(probe.type, "BitLocker"))
		return vd_fail(err, EMEDIUMTYPE, "%s: %s, no file system that is supported: what it "
			       "holds is encrypted", vdisk_name(disk), probe.type);
	return vd_fail(err, EMEDIUMTYPE, "%s: %s, no file system that is supported",
		       vdisk_name(disk), probe.type);
}

static const struct vd_fs_ops *match(struct vdisk *disk, struct vdisk_error *err, int *r)
{
	uint8_t head[VD_FS_HEAD];
	uint64_t size = vdisk_size(disk);
	size_t len = size < sizeof(head) ? (size_t)size : sizeof(head);

	*r = vdisk_read(disk, head, len, 0);
	if (*r < 0) {
		vd_fail(err, -*r, "%s: cannot read its first block: %s", vdisk_name(disk),
			strerror(-*r));
		return NULL;
	}
	for (const struct vd_fs_ops *const *ops = all_ops; *ops; ops++)
		if ((*ops)->match(head, len))
			return *ops;
	*r = unsupported(disk, err);
	return NULL;
}

int vdisk_fs_open(struct vdisk_fs **out, struct vdisk *disk, unsigned flags,
		  struct vdisk_error *err)
{
	AUTO_FREE struct vdisk_fs *fs = NULL;
	const struct vd_fs_ops *ops;
	int r;

	if ((flags & VDISK_FS_WRITE) && !vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: the disk is open read-only", vdisk_name(disk));
	ops = match(disk, err, &r);
	if (!ops)
		return r;
	r = vd_fs_check_member(disk, flags & VDISK_FS_WRITE, err);
	if (r < 0)
		return r;
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return vd_fail(err, ENOMEM, "out of memory");
	fs->ops = ops;
	fs->disk = vdisk_ref(disk);
	fs->writable = flags & VDISK_FS_WRITE;
	fs->journal = flags & VDISK_FS_JOURNAL;
	r = ops->open(fs, err);
	if (r < 0) {
		vd_fail_prefix(err, r, "%s", vdisk_name(disk));
		vdisk_close(fs->disk, NULL);
		return r;
	}
	*out = STEAL(fs);
	return 0;
}

int vdisk_fs_close(struct vdisk_fs *fs, struct vdisk_error *err)
{
	int r, r2;

	if (!fs)
		return 0;
	r = fs->ops->close(fs, err);
	if (r < 0)
		vd_fail_prefix(err, r, "%s", vdisk_name(fs->disk));
	r2 = vdisk_close(fs->disk, r < 0 ? NULL : err);
	free(fs);
	return r < 0 ? r : r2;
}

int vdisk_fs_sync(struct vdisk_fs *fs, struct vdisk_error *err)
{
	int r = fs->ops->sync(fs, err);

	return r < 0 ? vd_fail_prefix(err, r, "%s", vdisk_name(fs->disk)) : 0;
}

const char *vdisk_fs_type(const struct vdisk_fs *fs)
{
	return fs->type;
}

int vdisk_fs_usage(struct vdisk_fs *fs, struct vdisk_fs_usage *out, struct vdisk_error *err)
{
	return fs->ops->usage(fs, out, err);
}

/* ---- looking ---- */

int vdisk_fs_stat(struct vdisk_fs *fs, const char *path, bool nofollow, struct vdisk_stat *out,
		  struct vdisk_error *err)
{
	uint64_t ino = 0;
	int r = vd_fs_find(fs, path, !nofollow, &ino, err);

	if (r < 0)
		return r;
	r = fs->ops->stat(fs, ino, out, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

struct list_ctx {
	struct vdisk_fs *fs;
	int (*each)(void *arg, const char *name, const struct vdisk_stat *st);
	void *arg;
	struct vdisk_error *err;
	bool stopped;		/* by each(), not by an error of ours */
};

static int list_one(void *arg, const char *name, uint64_t ino)
{
	struct list_ctx *c = arg;
	struct vdisk_stat st = { 0 };
	int r = c->fs->ops->stat(c->fs, ino, &st, c->err);

	if (r < 0)
		return vd_fail_prefix(c->err, r, "%s", name);
	r = c->each(c->arg, name, &st);
	if (r)
		c->stopped = true;
	return r;
}

static int find_dir(struct vdisk_fs *fs, const char *path, uint64_t *ino, struct vdisk_error *err)
{
	uint32_t mode = 0;
	int r = vd_fs_find(fs, path, true, ino, err);

	if (r < 0)
		return r;
	r = node_mode(fs, *ino, &mode, err);
	if (r == 0 && mode != S_IFDIR)
		r = vd_fail(err, ENOTDIR, "not a directory");
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

int vdisk_fs_list(struct vdisk_fs *fs, const char *path,
		  int (*each)(void *arg, const char *name, const struct vdisk_stat *st),
		  void *arg, struct vdisk_error *err)
{
	struct list_ctx c = { .fs = fs, .each = each, .arg = arg, .err = err };
	uint64_t ino = 0;
	int r = find_dir(fs, path, &ino, err);

	if (r < 0)
		return r;
	r = fs->ops->list(fs, ino, list_one, &c, err);
	return r < 0 && !c.stopped ? vd_fail_prefix(err, r, "%s", path) : r;
}

int vdisk_fs_readlink(struct vdisk_fs *fs, const char *path, char *buf, size_t size,
		      struct vdisk_error *err)
{
	uint32_t mode = 0;
	uint64_t ino = 0;
	int r = vd_fs_find(fs, path, false, &ino, err);

	if (r < 0)
		return r;
	r = node_mode(fs, ino, &mode, err);
	if (r == 0 && (mode != S_IFLNK || !fs->ops->readlink))
		r = vd_fail(err, EINVAL, "not a symbolic link");
	if (r == 0)
		r = fs->ops->readlink(fs, ino, buf, size, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

static int load(struct vdisk_fs *fs, uint64_t ino, size_t max, void **data, size_t *len,
		struct vdisk_error *err)
{
	AUTO_FREE char *buf = NULL;
	struct vdisk_stat st = { 0 };
	ssize_t n;
	int r = fs->ops->stat(fs, ino, &st, err);

	if (r < 0)
		return r;
	if (S_ISDIR(st.mode))
		return vd_fail(err, EISDIR, "is a directory");
	if (!S_ISREG(st.mode))
		return vd_fail(err, EINVAL, "not a regular file");
	if (st.size > max)
		return vd_fail(err, EFBIG, "%llu bytes, more than the %zu that are accepted",
			       (unsigned long long)st.size, max);
	buf = malloc((size_t)st.size + 1);
	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	n = fs->ops->read(fs, ino, buf, (size_t)st.size, 0, err);
	if (n < 0)
		return (int)n;
	buf[n] = '\0';
	*data = STEAL(buf);
	*len = (size_t)n;
	return 0;
}

int vdisk_fs_load(struct vdisk_fs *fs, const char *path, size_t max, void **data, size_t *len,
		  struct vdisk_error *err)
{
	uint64_t ino = 0;
	int r = vd_fs_find(fs, path, true, &ino, err);

	if (r < 0)
		return r;
	r = load(fs, ino, max, data, len, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

/* ---- files ---- */

struct vdisk_file {
	struct vdisk_fs *fs;	/* borrowed */
	uint64_t ino;
	bool writable;
};

static int file_find(struct vdisk_fs *fs, const char *path, unsigned flags, uint32_t mode,
		     uint64_t *ino, struct vdisk_error *err)
{
	struct vdisk_stat st = { .mode = S_IFREG | (mode & 07777) };
	struct vd_place place = { 0 };
	int r = vd_fs_walk(fs, fs->root, path, !(flags & VDISK_FILE_EXCL), &place, err);

	if (r < 0)
		return r;
	if (place.ino && (flags & VDISK_FILE_CREATE) && (flags & VDISK_FILE_EXCL))
		return vd_fail(err, EEXIST, "exists already");
	if (!place.ino && !(flags & VDISK_FILE_CREATE))
		return vd_fail(err, ENOENT, "no such file or directory");
	if (!place.ino)
		return fs->ops->create(fs, place.dir, place.name, &st, VD_ATTR_MODE, NULL, ino,
				       err);
	*ino = place.ino;
	r = fs->ops->stat(fs, *ino, &st, err);
	if (r < 0)
		return r;
	if (S_ISDIR(st.mode))
		return vd_fail(err, EISDIR, "is a directory");
	if (!S_ISREG(st.mode))
		return vd_fail(err, EINVAL, "not a regular file");
	return flags & VDISK_FILE_TRUNC ? fs->ops->truncate(fs, *ino, 0, err) : 0;
}

int vdisk_file_open(struct vdisk_file **out, struct vdisk_fs *fs, const char *path,
		    unsigned flags, uint32_t mode, struct vdisk_error *err)
{
	AUTO_FREE struct vdisk_file *f = NULL;
	int r;

	if (flags & (VDISK_FILE_WRITE | VDISK_FILE_CREATE | VDISK_FILE_TRUNC)) {
		r = vd_fs_may_write(fs, err);
		if (r < 0)
			return r;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		return vd_fail(err, ENOMEM, "out of memory");
	f->fs = fs;
	f->writable = flags & VDISK_FILE_WRITE;
	r = file_find(fs, path, flags, mode, &f->ino, err);
	if (r == 0 && fs->ops->hold)
		r = fs->ops->hold(fs, f->ino, err);
	if (r < 0)
		return vd_fail_prefix(err, r, "%s", path);
	*out = STEAL(f);
	return 0;
}

ssize_t vdisk_file_read(struct vdisk_file *f, void *buf, size_t len, uint64_t off,
			struct vdisk_error *err)
{
	return f->fs->ops->read(f->fs, f->ino, buf, len, off, err);
}

ssize_t vdisk_file_write(struct vdisk_file *f, const void *buf, size_t len, uint64_t off,
			 struct vdisk_error *err)
{
	if (!f->writable)
		return vd_fail(err, EBADF, "the file is not open for writing");
	return f->fs->ops->write(f->fs, f->ino, buf, len, off, err);
}

int vdisk_file_truncate(struct vdisk_file *f, uint64_t size, struct vdisk_error *err)
{
	if (!f->writable)
		return vd_fail(err, EBADF, "the file is not open for writing");
	return f->fs->ops->truncate(f->fs, f->ino, size, err);
}

int vdisk_file_next_data(struct vdisk_file *f, uint64_t off, uint64_t *start, uint64_t *length,
			 struct vdisk_error *err)
{
	return f->fs->ops->next_data(f->fs, f->ino, off, start, length, err);
}

int vdisk_file_close(struct vdisk_file *f, struct vdisk_error *err)
{
	int r = 0;

	if (f && f->fs->ops->release)
		r = f->fs->ops->release(f->fs, f->ino, err);
	free(f);
	return r;
}

/* ---- names ---- */

static int make_node(struct vdisk_fs *fs, const char *path, const struct vdisk_stat *st,
		     const char *target, struct vdisk_error *err)
{
	struct vd_place place = { 0 };
	uint64_t ino = 0;
	int r = find_free(fs, path, &place, err);

	if (r < 0)
		return r;
	r = fs->ops->create(fs, place.dir, place.name, st, VD_ATTR_MODE, target, &ino, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

int vdisk_fs_mkdir(struct vdisk_fs *fs, const char *path, uint32_t mode, struct vdisk_error *err)
{
	struct vdisk_stat st = { .mode = S_IFDIR | (mode & 07777) };

	return make_node(fs, path, &st, NULL, err);
}

int vdisk_fs_symlink(struct vdisk_fs *fs, const char *target, const char *path,
		     struct vdisk_error *err)
{
	struct vdisk_stat st = { .mode = S_IFLNK | 0777 };

	if (!*target)
		return vd_fail(err, ENOENT, "%s: a link needs a target", path);
	return make_node(fs, path, &st, target, err);
}

int vdisk_fs_mknod(struct vdisk_fs *fs, const char *path, uint32_t mode, uint32_t rdev_major,
		   uint32_t rdev_minor, struct vdisk_error *err)
{
	struct vdisk_stat st = {
		.mode = mode, .rdev_major = rdev_major, .rdev_minor = rdev_minor,
	};

	switch (mode & S_IFMT) {
	case S_IFREG: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
		return make_node(fs, path, &st, NULL, err);
	}
	return vd_fail(err, EINVAL, "%s: %#o is no type of node that can be made", path, mode);
}

static int is_empty_one(void *arg, const char *name, uint64_t ino)
{
	(void)arg, (void)name, (void)ino;
	return 1;
}

static int must_be_empty(struct vdisk_fs *fs, uint64_t dir, struct vdisk_error *err)
{
	int r = fs->ops->list(fs, dir, is_empty_one, NULL, err);

	return r > 0 ? vd_fail(err, ENOTEMPTY, "the directory is not empty") : r;
}

/* The names of a directory, collected before they are removed. */
struct name_list {
	struct name_entry {
		uint64_t ino;
		char *name;
	} *v;
	size_t n, room;
};

static int name_add(void *arg, const char *name, uint64_t ino)
{
	struct name_list *l = arg;

	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct name_entry *v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->n].ino = ino;
	l->v[l->n].name = strdup(name);
	if (!l->v[l->n].name)
		return -ENOMEM;
	l->n++;
	return 0;
}

static int remove_tree(struct vdisk_fs *fs, const struct vd_place *place, bool recursive,
		       unsigned depth, struct vdisk_error *err);

static int remove_below(struct vdisk_fs *fs, uint64_t dir, unsigned depth, struct vdisk_error *err)
{
	struct name_list l = { 0 };
	int r;

	if (depth > VD_PATH_MAX / 2)
		return vd_fail(err, ELOOP, "directories nest too deeply");
	r = fs->ops->list(fs, dir, name_add, &l, err);
	if (r == -ENOMEM)
		vd_fail(err, ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < l.n; i++) {
		struct vd_place place = { .dir = dir, .ino = l.v[i].ino };

		memcpy(place.name, l.v[i].name, strlen(l.v[i].name) + 1);
		r = remove_tree(fs, &place, true, depth + 1, err);
		if (r < 0)
			vd_fail_prefix(err, r, "%s", place.name);
	}
	for (size_t i = 0; i < l.n; i++)
		free(l.v[i].name);
	free(l.v);
	return r;
}

static int remove_tree(struct vdisk_fs *fs, const struct vd_place *place, bool recursive,
		       unsigned depth, struct vdisk_error *err)
{
	uint32_t mode = 0;
	int r = node_mode(fs, place->ino, &mode, err);

	if (r == 0 && mode == S_IFDIR)
		r = recursive ? remove_below(fs, place->ino, depth, err) :
				must_be_empty(fs, place->ino, err);
	return r < 0 ? r : fs->ops->unlink(fs, place->dir, place->name, place->ino, err);
}

int vd_fs_remove_at(struct vdisk_fs *fs, const struct vd_place *place, bool recursive,
		    struct vdisk_error *err)
{
	if (!place->dir)
		return vd_fail(err, EBUSY, "this name cannot be removed");
	vd_fs_forget(fs);
	return remove_tree(fs, place, recursive, 0, err);
}

static int remove_path(struct vdisk_fs *fs, const char *path, bool recursive,
		       struct vdisk_error *err)
{
	struct vd_place place = { 0 };
	int r = vd_fs_may_write(fs, err);

	if (r < 0)
		return r;
	r = vd_fs_walk(fs, fs->root, path, false, &place, err);
	if (r == 0 && !place.ino)
		r = vd_fail(err, ENOENT, "no such file or directory");
	if (r == 0)
		r = vd_fs_remove_at(fs, &place, recursive, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

int vdisk_fs_remove(struct vdisk_fs *fs, const char *path, struct vdisk_error *err)
{
	return remove_path(fs, path, false, err);
}

int vdisk_fs_remove_tree(struct vdisk_fs *fs, const char *path, struct vdisk_error *err)
{
	return remove_path(fs, path, true, err);
}

int vdisk_fs_link(struct vdisk_fs *fs, const char *existing, const char *path,
		  struct vdisk_error *err)
{
	struct vd_place place = { 0 };
	uint32_t mode = 0;
	uint64_t ino = 0;
	int r = find_free(fs, path, &place, err);

	if (r < 0)
		return r;
	r = vd_fs_find(fs, existing, false, &ino, err);
	if (r < 0)
		return r;
	r = node_mode(fs, ino, &mode, err);
	if (r == 0 && mode == S_IFDIR)
		r = vd_fail(err, EPERM, "a directory cannot have another name");
	if (r == 0)
		r = fs->ops->link(fs, ino, place.dir, place.name, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

/* Is @dir the directory @node or somewhere below it? */
static int is_below(struct vdisk_fs *fs, uint64_t dir, uint64_t node, struct vdisk_error *err)
{
	for (unsigned depth = 0; depth < VD_PATH_MAX; depth++) {
		uint64_t up = 0;
		int r;

		if (dir == node)
			return 1;
		if (dir == fs->root)
			return 0;
		r = fs->ops->lookup(fs, dir, "..", &up, err);
		if (r == -ENOENT)
			return vd_fail(err, EUCLEAN, "a directory without \"..\"");
		if (r < 0)
			return r;
		dir = up;
	}
	return vd_fail(err, ELOOP, "directories nest too deeply");
}

/* rename(2): what stands at the new name goes, if it is of the same sort. */
static int replace(struct vdisk_fs *fs, uint32_t mode, const struct vd_place *to,
		   struct vdisk_error *err)
{
	uint32_t to_mode = 0;
	int r = node_mode(fs, to->ino, &to_mode, err);

	if (r < 0)
		return r;
	if (mode != S_IFDIR && to_mode == S_IFDIR)
		return vd_fail(err, EISDIR, "is a directory");
	if (mode == S_IFDIR && to_mode != S_IFDIR)
		return vd_fail(err, ENOTDIR, "not a directory");
	return vd_fs_remove_at(fs, to, false, err);
}

int vd_fs_rename_at(struct vdisk_fs *fs, const struct vd_place *from, const struct vd_place *to,
		    struct vdisk_error *err)
{
	uint32_t mode = 0;
	int r;

	if (!from->ino)
		return vd_fail(err, ENOENT, "no such file or directory");
	if (!from->dir || !to->dir)
		return vd_fail(err, EBUSY, "this name cannot be changed");
	/* two names of one node: rename(2) does nothing */
	if (from->ino == to->ino && !(fs->ops->caseless && strcmp(from->name, to->name) != 0))
		return 0;
	r = node_mode(fs, from->ino, &mode, err);
	if (r == 0 && mode == S_IFDIR)
		r = fs->ops->below ? fs->ops->below(fs, to->dir, from->ino, err) :
				     is_below(fs, to->dir, from->ino, err);
	if (r < 0)
		return r;
	if (r > 0)
		return vd_fail(err, EINVAL, "a directory cannot go below itself");
	if (to->ino && to->ino != from->ino) {
		r = replace(fs, mode, to, err);
		if (r < 0)
			return r;
	}
	vd_fs_forget(fs);
	return fs->ops->rename(fs, from->dir, from->name, from->ino, to->dir, to->name, err);
}

int vdisk_fs_rename(struct vdisk_fs *fs, const char *from, const char *to,
		    struct vdisk_error *err)
{
	struct vd_place a = { 0 }, b = { 0 };
	int r = vd_fs_may_write(fs, err);

	if (r < 0)
		return r;
	r = vd_fs_walk(fs, fs->root, from, false, &a, err);
	if (r < 0)
		return vd_fail_prefix(err, r, "%s", from);
	r = vd_fs_walk(fs, fs->root, to, false, &b, err);
	if (r < 0)
		return vd_fail_prefix(err, r, "%s", to);
	r = vd_fs_rename_at(fs, &a, &b, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s to %s", from, to) : 0;
}

/* ---- attributes ---- */

static int set_attrs(struct vdisk_fs *fs, const char *path, bool follow,
		     const struct vdisk_stat *st, unsigned attrs, struct vdisk_error *err)
{
	uint64_t ino = 0;
	int r = vd_fs_may_write(fs, err);

	if (r < 0)
		return r;
	r = vd_fs_find(fs, path, follow, &ino, err);
	if (r < 0)
		return r;
	r = fs->ops->setattr(fs, ino, st, attrs, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

int vdisk_fs_chmod(struct vdisk_fs *fs, const char *path, uint32_t mode, struct vdisk_error *err)
{
	struct vdisk_stat st = { .mode = mode & 07777 };

	return set_attrs(fs, path, true, &st, VD_ATTR_MODE, err);
}

int vdisk_fs_chown(struct vdisk_fs *fs, const char *path, uint32_t uid, uint32_t gid,
		   bool nofollow, struct vdisk_error *err)
{
	struct vdisk_stat st = { .uid = uid, .gid = gid };
	unsigned attrs = (uid == UINT32_MAX ? 0u : VD_ATTR_UID) |
			 (gid == UINT32_MAX ? 0u : VD_ATTR_GID);

	/* what is there already may be asked for, as who copies attributes does */
	if (!strcmp(fs->type, "vfat") && ((uid && attrs & VD_ATTR_UID) || (gid && attrs & VD_ATTR_GID)))
		return vd_fail(err, ENOTSUP, "%s: FAT has no owners", path);
	return set_attrs(fs, path, !nofollow, &st, attrs, err);
}

int vdisk_fs_utimes(struct vdisk_fs *fs, const char *path, struct timespec atime,
		    struct timespec mtime, bool nofollow, struct vdisk_error *err)
{
	struct vdisk_stat st = { .atime = atime, .mtime = mtime };

	return set_attrs(fs, path, !nofollow, &st, VD_ATTR_ATIME | VD_ATTR_MTIME, err);
}

static int find_xattr(struct vdisk_fs *fs, const char *path, uint64_t *ino,
		      struct vdisk_error *err)
{
	if (!fs->ops->listxattr)
		return vd_fail(err, ENOTSUP, "%s: %s has no extended attributes", path, fs->type);
	return vd_fs_find(fs, path, false, ino, err);
}

ssize_t vdisk_fs_getxattr(struct vdisk_fs *fs, const char *path, const char *name, void *buf,
			  size_t size, struct vdisk_error *err)
{
	uint64_t ino = 0;
	ssize_t r = find_xattr(fs, path, &ino, err);

	if (r < 0)
		return r;
	r = fs->ops->getxattr(fs, ino, name, buf, size, err);
	return r < 0 ? vd_fail_prefix(err, (int)r, "%s", path) : r;
}

ssize_t vdisk_fs_listxattr(struct vdisk_fs *fs, const char *path, char *buf, size_t size,
			   struct vdisk_error *err)
{
	uint64_t ino = 0;
	ssize_t r;

	if (!fs->ops->listxattr)
		return 0;
	r = vd_fs_find(fs, path, false, &ino, err);
	if (r < 0)
		return r;
	r = fs->ops->listxattr(fs, ino, buf, size, err);
	return r < 0 ? vd_fail_prefix(err, (int)r, "%s", path) : r;
}

static int change_xattr(struct vdisk_fs *fs, const char *path, const char *name,
			const void *value, size_t size, struct vdisk_error *err)
{
	uint64_t ino = 0;
	int r = vd_fs_may_write(fs, err);

	if (r < 0)
		return r;
	r = find_xattr(fs, path, &ino, err);
	if (r < 0)
		return r;
	r = fs->ops->setxattr(fs, ino, name, value, size, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s", path) : 0;
}

int vdisk_fs_setxattr(struct vdisk_fs *fs, const char *path, const char *name, const void *value,
		      size_t size, struct vdisk_error *err)
{
	return change_xattr(fs, path, name, value ? value : "", size, err);
}

int vdisk_fs_removexattr(struct vdisk_fs *fs, const char *path, const char *name,
			 struct vdisk_error *err)
{
	return change_xattr(fs, path, name, NULL, 0, err);
}
