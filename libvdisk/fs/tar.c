/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tar.c - a tree of files out of a disk and into one, as a tar stream
 *
 * libarchive does the formats; here is what stands between it and a guest's
 * file system.  Out: the pax format, which has room for nanoseconds, large ids,
 * extended attributes, access control lists and holes.  In: any kind of tar,
 * compressed or not.
 *
 *   1. Unpacking happens as if the directory it goes to were the root: links in
 *      the archive or on the disk lead nowhere else, and a member with ".." in
 *      its name is refused.
 *   2. A member replaces what has its name, as tar does; only directories are
 *      kept, and get the member's attributes.
 *   3. The times of directories are set at the end, when nothing more is
 *      entered into them.
 *   4. Ids are numbers; names of users mean nothing outside the guest.
 *   5. Names of files are UTF-8 to libarchive, whatever the program's locale;
 *      others go through as they are.
 */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/archive.h"
#include "fs/fs.h"

#define CHUNK		(1u << 20)
#define ACL_VERSION	2u		/* of system.posix_acl_*, see acl(5), xattr(7) */
#define MAX_XATTR	65536u
#define MAX_DEPTH	1024u

/* Rule 5: a locale for this thread, until it is given back. */
static locale_t utf8_begin(locale_t *mine)
{
	*mine = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	return *mine ? uselocale(*mine) : (locale_t)0;
}

static void utf8_end(locale_t mine, locale_t before)
{
	if (!mine)
		return;
	uselocale(before);
	freelocale(mine);
}

static int tar_fail(struct archive *a, struct vdisk_error *err, const char *what)
{
	int code = vd_la.error_number(a);

	if (code <= 0 || code > 4095)
		code = EIO;
	return vd_fail(err, code, "%s: %s", what, vd_la.error_string(a));
}

/* ---- access control lists ---- */

static const struct {
	uint16_t tag;		/* as in the attribute */
	int acl;		/* as in libarchive */
} acl_tags[] = {
	{ 0x01, ARCHIVE_ENTRY_ACL_USER_OBJ }, { 0x02, ARCHIVE_ENTRY_ACL_USER },
	{ 0x04, ARCHIVE_ENTRY_ACL_GROUP_OBJ }, { 0x08, ARCHIVE_ENTRY_ACL_GROUP },
	{ 0x10, ARCHIVE_ENTRY_ACL_MASK }, { 0x20, ARCHIVE_ENTRY_ACL_OTHER },
};

static const struct {
	const char *name;
	int type;
} acl_names[] = {
	{ "system.posix_acl_access", ARCHIVE_ENTRY_ACL_TYPE_ACCESS },
	{ "system.posix_acl_default", ARCHIVE_ENTRY_ACL_TYPE_DEFAULT },
};

static void acl_to_entry(struct archive_entry *e, int type, const uint8_t *p, size_t len)
{
	if (len < 4 || load_le32(p) != ACL_VERSION)
		return;
	for (size_t at = 4; at + 8 <= len; at += 8) {
		uint32_t id = load_le32(p + at + 4);
		char name[16] = "";

		if (id != UINT32_MAX)	/* archives know a user by name first */
			snprintf(name, sizeof(name), "%u", id);
		for (size_t i = 0; i < ARRAY_SIZE(acl_tags); i++)
			if (acl_tags[i].tag == load_le16(p + at))
				vd_la.entry_acl_add_entry(e, type, load_le16(p + at + 2),
							    acl_tags[i].acl, (int)id, name);
	}
}

/*
 * The id of an entry that has only a name: a number, or one that the tree being
 * unpacked into knows.
 */
static bool acl_id(struct vdisk_fs *fs, uint64_t root, bool group, const char *name, int *id)
{
	AUTO_FREE char *data = NULL;
	struct vd_place place;
	struct vdisk_stat st;
	size_t n = strlen(name);
	char *end, *line, *save = NULL;
	long v = strtol(name, &end, 10);
	ssize_t len;

	if (n && !*end) {
		*id = (int)v;
		return true;
	}
	if (!n || vd_fs_walk(fs, root, group ? "etc/group" : "etc/passwd", true, &place, NULL) < 0 ||
	    !place.ino || fs->ops->stat(fs, place.ino, &st, NULL) < 0 || st.size > CHUNK)
		return false;
	data = calloc(1, st.size + 1);
	len = data ? fs->ops->read(fs, place.ino, data, st.size, 0, NULL) : -1;
	for (line = len > 0 ? strtok_r(data, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		const char *p = strncmp(line, name, n) || line[n] != ':' ? NULL :
				strchr(line + n + 1, ':');

		if (p) {
			*id = (int)strtol(p + 1, NULL, 10);
			return true;
		}
	}
	return false;
}

/* The attribute's bytes; 0 if there is no list of this type.  Users unknown here go. */
static size_t acl_from_entry(struct vdisk_fs *fs, uint64_t root, struct archive_entry *e, int want,
			     uint8_t *p, size_t size)
{
	int type, perm, tag, id;
	const char *name;
	size_t len = 4;

	store_le32(p, ACL_VERSION);
	if (vd_la.entry_acl_reset(e, want) <= 0)
		return 0;
	while (vd_la.entry_acl_next(e, want, &type, &perm, &tag, &id, &name) == ARCHIVE_OK) {
		bool group = tag == ARCHIVE_ENTRY_ACL_GROUP;

		if ((group || tag == ARCHIVE_ENTRY_ACL_USER) && id == -1 &&
		    !acl_id(fs, root, group, name ? name : "", &id))
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(acl_tags); i++) {
			if (acl_tags[i].acl != tag || len + 8 > size)
				continue;
			store_le16(p + len, acl_tags[i].tag);
			store_le16(p + len + 2, (uint16_t)(perm & 7));
			store_le32(p + len + 4, tag == ARCHIVE_ENTRY_ACL_USER ||
				   tag == ARCHIVE_ENTRY_ACL_GROUP ? (uint32_t)id : UINT32_MAX);
			len += 8;
		}
	}
	return len > 4 ? len : 0;
}

/* ---- out ---- */

struct seen {			/* a node with several names */
	struct seen *next;
	uint64_t ino;
	char *path;		/* owned */
};

struct tar_out {
	struct vdisk_fs *fs;
	struct archive *a;
	struct vdisk_error *err;
	const struct vdisk_tar_opts *opts;
	struct seen *seen[1024];	/* owned */
	uint8_t *buf;			/* owned: CHUNK */
	char path[VD_PATH_MAX];
	uint64_t done;
};

static const char *first_name(struct tar_out *t, uint64_t ino)
{
	struct seen **slot = &t->seen[ino % ARRAY_SIZE(t->seen)], *s;

	for (s = *slot; s; s = s->next)
		if (s->ino == ino)
			return s->path;
	s = malloc(sizeof(*s));
	if (s)
		s->path = strdup(t->path);
	if (!s || !s->path) {
		free(s);	/* then it goes in twice, which is right too */
		return NULL;
	}
	s->ino = ino;
	s->next = *slot;
	*slot = s;
	return NULL;
}

static int out_xattrs(struct tar_out *t, struct archive_entry *e, uint64_t ino)
{
	const struct vd_fs_ops *ops = t->fs->ops;
	AUTO_FREE char *names = NULL;
	AUTO_FREE uint8_t *value = NULL;
	ssize_t n, len;

	if (!ops->listxattr)
		return 0;
	n = ops->listxattr(t->fs, ino, NULL, 0, t->err);
	if (n <= 0)
		return (int)n;
	names = malloc((size_t)n);
	value = malloc(MAX_XATTR);
	if (!names || !value)
		return vd_fail(t->err, ENOMEM, "out of memory");
	n = ops->listxattr(t->fs, ino, names, (size_t)n, t->err);
	for (char *p = names; n > 0 && p < names + n; p += strlen(p) + 1) {
		bool acl = false;

		len = ops->getxattr(t->fs, ino, p, value, MAX_XATTR, t->err);
		if (len < 0)
			return (int)len;
		for (size_t i = 0; i < ARRAY_SIZE(acl_names); i++) {
			if (strcmp(p, acl_names[i].name) != 0)
				continue;
			acl_to_entry(e, acl_names[i].type, value, (size_t)len);
			acl = true;
		}
		if (!acl)
			vd_la.entry_xattr_add_entry(e, p, value, (size_t)len);
	}
	return n < 0 ? (int)n : 0;
}

static int out_holes(struct tar_out *t, struct archive_entry *e, uint64_t ino, uint64_t size)
{
	uint64_t at = 0, start, len;
	int r;

	while (at < size) {
		r = t->fs->ops->next_data(t->fs, ino, at, &start, &len, t->err);
		if (r < 0)
			return r;
		if (!len)
			break;
		vd_la.entry_sparse_add_entry(e, (int64_t)start, (int64_t)len);
		at = start + len;
	}
	if (at == 0)	/* all of it a hole: an empty run at the end says so */
		vd_la.entry_sparse_add_entry(e, (int64_t)size, 0);
	return 0;
}

static int out_data(struct tar_out *t, uint64_t ino, uint64_t size)
{
	for (uint64_t off = 0; off < size;) {
		ssize_t n = t->fs->ops->read(t->fs, ino, t->buf,
					     (size_t)MIN(size - off, (uint64_t)CHUNK), off, t->err);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return vd_fail(t->err, EIO, "the file ends early");
		if (vd_la.write_data(t->a, t->buf, (size_t)n) < n)
			return tar_fail(t->a, t->err, "writing the archive");
		off += (uint64_t)n;
		t->done += (uint64_t)n;
		if (t->opts && t->opts->progress &&
		    t->opts->progress(t->opts->arg, t->done) != 0)
			return vd_fail(t->err, ECANCELED, "stopped");
	}
	return 0;
}

static int out_entry(struct tar_out *t, struct archive_entry *e, uint64_t ino,
		     const struct vdisk_stat *st)
{
	const char *first = NULL;
	bool data = S_ISREG(st->mode);
	int r;

	vd_la.entry_copy_pathname(e, t->path);
	vd_la.entry_set_mode(e, (mode_t)st->mode);
	vd_la.entry_set_uid(e, st->uid);
	vd_la.entry_set_gid(e, st->gid);
	vd_la.entry_set_mtime(e, st->mtime.tv_sec, st->mtime.tv_nsec);
	vd_la.entry_set_nlink(e, st->nlink);
	vd_la.entry_set_size(e, data ? (int64_t)st->size : 0);
	if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		vd_la.entry_set_rdevmajor(e, st->rdev_major);
		vd_la.entry_set_rdevminor(e, st->rdev_minor);
	}
	if (S_ISLNK(st->mode)) {
		r = t->fs->ops->readlink(t->fs, ino, (char *)t->buf, CHUNK, t->err);
		if (r < 0)
			return r;
		vd_la.entry_copy_symlink(e, (char *)t->buf);
	}
	if (!S_ISDIR(st->mode) && st->nlink > 1)
		first = first_name(t, ino);
	if (first) {
		vd_la.entry_copy_hardlink(e, first);
		vd_la.entry_set_size(e, 0);
		data = false;
	} else {
		r = out_xattrs(t, e, ino);
		if (r < 0)
			return r;
	}
	if (data && st->allocated < st->size) {
		r = out_holes(t, e, ino, st->size);
		if (r < 0)
			return r;
	}
	if (vd_la.write_header(t->a, e) < ARCHIVE_WARN)
		return tar_fail(t->a, t->err, "writing the archive");
	return data ? out_data(t, ino, st->size) : 0;
}

static int out_node(struct tar_out *t, uint64_t ino, unsigned depth);

struct out_list {
	struct out_name {
		char *name;
		uint64_t ino;
	} *v;
	size_t n, room;
};

static int out_collect(void *arg, const char *name, uint64_t ino)
{
	struct out_list *l = arg;

	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct out_name *v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->n] = (struct out_name) { .name = strdup(name), .ino = ino };
	return l->v[l->n++].name ? 0 : -ENOMEM;
}

static int out_by_name(const void *a, const void *b)
{
	return strcmp(((const struct out_name *)a)->name, ((const struct out_name *)b)->name);
}

static int out_dir(struct tar_out *t, uint64_t ino, unsigned depth)
{
	struct out_list l = { 0 };
	size_t len = strlen(t->path);
	int r;

	if (depth > MAX_DEPTH)
		return vd_fail(t->err, ELOOP, "directories nest too deeply");
	r = t->fs->ops->list(t->fs, ino, out_collect, &l, t->err);
	if (r == -ENOMEM)
		vd_fail(t->err, ENOMEM, "out of memory");
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), out_by_name);
	for (size_t i = 0; r == 0 && i < l.n; i++) {
		if (len + strlen(l.v[i].name) + 2 > sizeof(t->path))
			r = vd_fail(t->err, ENAMETOOLONG, "a path of more than %zu bytes",
				    sizeof(t->path));
		else
			memcpy(t->path + len, l.v[i].name, strlen(l.v[i].name) + 1);
		if (r == 0)
			r = out_node(t, l.v[i].ino, depth + 1);
		t->path[len] = '\0';
	}
	for (size_t i = 0; i < l.n; i++)
		free(l.v[i].name);
	free(l.v);
	return r;
}

static int out_node(struct tar_out *t, uint64_t ino, unsigned depth)
{
	struct archive_entry *e;
	struct vdisk_stat st;
	size_t len = strlen(t->path);
	int r = t->fs->ops->stat(t->fs, ino, &st, t->err);

	if (r == 0 && S_ISSOCK(st.mode))
		return 0;	/* no tar has a type for it */
	if (r == 0 && S_ISDIR(st.mode) && t->path[len - 1] != '/') {
		if (len + 2 > sizeof(t->path))
			return vd_fail(t->err, ENAMETOOLONG, "the path is too long");
		memcpy(t->path + len, "/", 2);
	}
	if (r == 0) {
		e = vd_la.entry_new();
		r = e ? out_entry(t, e, ino, &st) : vd_fail(t->err, ENOMEM, "out of memory");
		vd_la.entry_free(e);
	}
	if (r < 0)
		return vd_fail_prefix(t->err, r, "%s", t->path);
	return S_ISDIR(st.mode) ? out_dir(t, ino, depth) : 0;
}

static int out_tree(struct tar_out *t, uint64_t ino, int fd)
{
	int r;

	if (vd_la.write_set_format_pax(t->a) != ARCHIVE_OK ||
	    vd_la.write_set_options(t->a, "xattrheader=SCHILY") != ARCHIVE_OK ||
	    vd_la.write_open_fd(t->a, fd) != ARCHIVE_OK)
		return tar_fail(t->a, t->err, "opening the archive");
	memcpy(t->path, "./", 3);
	r = out_node(t, ino, 0);
	if (r == 0 && vd_la.write_close(t->a) != ARCHIVE_OK)
		r = tar_fail(t->a, t->err, "writing the archive");
	return r;
}

int vdisk_fs_tar_out(struct vdisk_fs *fs, const char *dir, int fd,
		     const struct vdisk_tar_opts *opts, struct vdisk_error *err)
{
	locale_t before, mine;
	struct tar_out *t;
	struct vdisk_stat st;
	uint64_t ino;
	int r = vd_fs_find(fs, dir, true, &ino, err);

	if (r == 0)
		r = fs->ops->stat(fs, ino, &st, err);
	if (r == 0 && !S_ISDIR(st.mode))
		r = vd_fail(err, ENOTDIR, "%s: not a directory", dir);
	if (r == 0)
		r = vd_archive_load(err);
	if (r < 0)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return vd_fail(err, ENOMEM, "out of memory");
	t->fs = fs;
	t->err = err;
	t->opts = opts;
	t->buf = malloc(CHUNK);
	t->a = vd_la.write_new();
	before = utf8_begin(&mine);
	r = t->buf && t->a ? out_tree(t, ino, fd) : vd_fail(err, ENOMEM, "out of memory");
	if (r < 0)
		vd_la.write_fail(t->a);
	vd_la.write_free(t->a);
	utf8_end(mine, before);
	for (size_t i = 0; i < ARRAY_SIZE(t->seen); i++)
		while (t->seen[i]) {
			struct seen *s = t->seen[i];

			t->seen[i] = s->next;
			free(s->path);
			free(s);
		}
	free(t->buf);
	free(t);
	return r;
}

/* ---- in ---- */

struct dir_times {
	uint64_t ino;
	struct timespec mtime;
};

struct tar_in {
	struct vdisk_fs *fs;
	struct archive *a;
	struct vdisk_error *err;
	const struct vdisk_tar_opts *opts;
	uint64_t root;			/* rule 1 */
	struct dir_times *dirs;		/* owned: rule 3 */
	size_t n_dirs, room_dirs;
	uint64_t done;
};

static const char *entry_path(struct archive_entry *e)
{
	const char *s = vd_la.entry_pathname(e);

	return s ? s : vd_la.entry_pathname_utf8(e);
}

static const char *entry_hardlink(struct archive_entry *e)
{
	const char *s = vd_la.entry_hardlink(e);

	return s ? s : vd_la.entry_hardlink_utf8(e);
}

static const char *entry_symlink(struct archive_entry *e)
{
	const char *s = vd_la.entry_symlink(e);

	return s ? s : vd_la.entry_symlink_utf8(e);
}

static bool has_dotdot(const char *path)
{
	for (const char *p = path; *p; p += strspn(p, "/")) {
		size_t n = strcspn(p, "/");

		if (n == 2 && p[0] == '.' && p[1] == '.')
			return true;
		p += n;
	}
	return false;
}

/* Make the directories above @path that are missing. */
static int in_parents(struct tar_in *t, const char *path)
{
	const struct vdisk_stat st = { .mode = S_IFDIR | 0755 };
	const unsigned attrs = VD_ATTR_MODE | VD_ATTR_UID | VD_ATTR_GID;
	char part[VD_PATH_MAX];
	struct vd_place place;
	uint64_t ino;

	for (const char *p = path; (p = strchr(p, '/')); p += strspn(p, "/")) {
		int r;

		if (p == path || !p[strspn(p, "/")])
			continue;
		memcpy(part, path, (size_t)(p - path));
		part[p - path] = '\0';
		r = vd_fs_walk(t->fs, t->root, part, true, &place, t->err);
		if (r == 0 && !place.ino)
			r = t->fs->ops->create(t->fs, place.dir, place.name, &st, attrs, NULL, &ino,
					       t->err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int in_place(struct tar_in *t, const char *path, struct vd_place *place)
{
	int r;

	if (!path || strlen(path) >= VD_PATH_MAX)
		return vd_fail(t->err, ENAMETOOLONG, "a name that is too long, or in no known coding");
	if (has_dotdot(path))
		return vd_fail(t->err, EPERM, "a name with \"..\" is refused");
	r = vd_fs_walk(t->fs, t->root, path, false, place, t->err);
	if (r == -ENOENT) {
		r = in_parents(t, path);
		if (r == 0)
			r = vd_fs_walk(t->fs, t->root, path, false, place, t->err);
	}
	return r;
}

static void in_stat(struct archive_entry *e, struct vdisk_stat *st, unsigned *attrs)
{
	*st = (struct vdisk_stat) {
		.mode = vd_la.entry_mode(e),
		.uid = (uint32_t)vd_la.entry_uid(e),
		.gid = (uint32_t)vd_la.entry_gid(e),
		.mtime = { vd_la.entry_mtime(e), vd_la.entry_mtime_nsec(e) },
		.atime = { vd_la.entry_atime(e), vd_la.entry_atime_nsec(e) },
		.crtime = { vd_la.entry_birthtime(e), vd_la.entry_birthtime_nsec(e) },
	};
	*attrs = VD_ATTR_MODE | VD_ATTR_UID | VD_ATTR_GID;
	if (vd_la.entry_mtime_is_set(e))
		*attrs |= VD_ATTR_MTIME;
	if (vd_la.entry_atime_is_set(e))
		*attrs |= VD_ATTR_ATIME;
	if (vd_la.entry_birthtime_is_set(e))
		*attrs |= VD_ATTR_CRTIME;
	if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		st->rdev_major = (uint32_t)vd_la.entry_rdevmajor(e);
		st->rdev_minor = (uint32_t)vd_la.entry_rdevminor(e);
	}
}

static int in_xattr(struct tar_in *t, uint64_t ino, const char *name, const void *value,
		    size_t len)
{
	int r = t->fs->ops->setxattr(t->fs, ino, name, value ? value : "", len, t->err);

	return r == -ENOTSUP ? 0 : r;	/* other systems' attributes have no place here */
}

static int in_xattrs(struct tar_in *t, struct archive_entry *e, uint64_t ino)
{
	uint8_t acl[4 + 8 * 256];
	const char *name;
	const void *value;
	size_t len;
	int r = 0;

	if (!t->fs->ops->setxattr)
		return 0;
	vd_la.entry_xattr_reset(e);
	while (r == 0 && vd_la.entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK)
		if (name)
			r = in_xattr(t, ino, name, value, len);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(acl_names); i++) {
		len = acl_from_entry(t->fs, t->root, e, acl_names[i].type, acl, sizeof(acl));
		if (len)
			r = in_xattr(t, ino, acl_names[i].name, acl, len);
	}
	return r;
}

static int in_data(struct tar_in *t, uint64_t ino, uint64_t size)
{
	const void *buf;
	uint64_t end = 0;
	la_int64_t off;
	size_t len;
	int r;

	while ((r = vd_la.read_data_block(t->a, &buf, &len, &off)) == ARCHIVE_OK) {
		const uint8_t *p = buf;
		uint64_t at = (uint64_t)off;

		for (size_t done = 0; done < len;) {
			ssize_t n = t->fs->ops->write(t->fs, ino, p + done, len - done, at + done,
						      t->err);

			if (n < 0)
				return (int)n;
			done += (size_t)n;
		}
		end = MAX(end, at + len);
		t->done += len;
		if (t->opts && t->opts->progress &&
		    t->opts->progress(t->opts->arg, t->done) != 0)
			return vd_fail(t->err, ECANCELED, "stopped");
	}
	if (r != ARCHIVE_EOF)
		return tar_fail(t->a, t->err, "reading the archive");
	return end < size ? t->fs->ops->truncate(t->fs, ino, size, t->err) : 0;
}

static int in_remember_dir(struct tar_in *t, uint64_t ino, const struct vdisk_stat *st)
{
	if (t->n_dirs == t->room_dirs) {
		size_t room = t->room_dirs ? 2 * t->room_dirs : 256;
		struct dir_times *v = reallocarray(t->dirs, room, sizeof(*v));

		if (!v)
			return vd_fail(t->err, ENOMEM, "out of memory");
		t->dirs = v;
		t->room_dirs = room;
	}
	t->dirs[t->n_dirs++] = (struct dir_times) { .ino = ino, .mtime = st->mtime };
	return 0;
}

/* A directory that is there already keeps what is in it. */
static int in_old_dir(struct tar_in *t, struct archive_entry *e, uint64_t ino,
		      const struct vdisk_stat *st, unsigned attrs)
{
	int r = t->fs->ops->setattr(t->fs, ino, st, attrs, t->err);

	if (r == 0)
		r = in_xattrs(t, e, ino);
	return r == 0 ? in_remember_dir(t, ino, st) : r;
}

static int in_hardlink(struct tar_in *t, const char *target, const struct vd_place *place)
{
	struct vd_place old;
	struct vdisk_stat st;
	int r;

	if (!target || has_dotdot(target))
		return vd_fail(t->err, EPERM, "a link to a name with \"..\" is refused");
	r = vd_fs_walk(t->fs, t->root, target, false, &old, t->err);
	if (r == 0 && !old.ino)
		r = vd_fail(t->err, ENOENT, "no such file");
	if (r == 0)
		r = t->fs->ops->stat(t->fs, old.ino, &st, t->err);
	if (r == 0 && S_ISDIR(st.mode))
		r = vd_fail(t->err, EPERM, "is a directory");
	if (r < 0)
		return vd_fail_prefix(t->err, r, "link to %s", target);
	if (old.ino == place->ino)
		return 0;
	if (place->ino) {
		r = vd_fs_remove_at(t->fs, place, false, t->err);
		if (r < 0)
			return r;
	}
	return t->fs->ops->link(t->fs, old.ino, place->dir, place->name, t->err);
}

static int in_new_node(struct tar_in *t, struct archive_entry *e, const struct vd_place *place,
		       const struct vdisk_stat *st, unsigned attrs)
{
	const char *target = S_ISLNK(st->mode) ? entry_symlink(e) : NULL;
	uint64_t ino, size = (uint64_t)MAX(vd_la.entry_size(e), 0);
	int r;

	if (S_ISLNK(st->mode) && (!target || !*target))
		return vd_fail(t->err, EINVAL, "a symbolic link without a target");
	r = t->fs->ops->create(t->fs, place->dir, place->name, st, attrs, target, &ino, t->err);
	if (r < 0)
		return r;
	if (S_ISREG(st->mode) && size)
		r = in_data(t, ino, size);
	if (r == 0)
		r = in_xattrs(t, e, ino);
	if (r == 0 && S_ISDIR(st->mode))
		r = in_remember_dir(t, ino, st);
	else if (r == 0 && S_ISREG(st->mode) && size)	/* writing has touched them */
		r = t->fs->ops->setattr(t->fs, ino, st,
					attrs & (VD_ATTR_MTIME | VD_ATTR_ATIME), t->err);
	return r;
}

static int in_entry(struct tar_in *t, struct archive_entry *e)
{
	struct vd_place place;
	struct vdisk_stat st, old;
	unsigned attrs;
	int r = in_place(t, entry_path(e), &place);

	if (r < 0)
		return r;
	if (entry_hardlink(e))
		return in_hardlink(t, entry_hardlink(e), &place);
	in_stat(e, &st, &attrs);
	if (place.ino) {
		r = t->fs->ops->stat(t->fs, place.ino, &old, t->err);
		if (r < 0)
			return r;
		if (S_ISDIR(st.mode) && S_ISDIR(old.mode))
			return in_old_dir(t, e, place.ino, &st, attrs);
		r = vd_fs_remove_at(t->fs, &place, false, t->err);
		if (r < 0)
			return r;
	}
	return in_new_node(t, e, &place, &st, attrs);
}

static int in_all(struct tar_in *t)
{
	struct archive_entry *e;
	int r;

	while ((r = vd_la.read_next_header(t->a, &e)) != ARCHIVE_EOF) {
		const char *path;

		if (r < ARCHIVE_WARN)
			return tar_fail(t->a, t->err, "reading the archive");
		r = in_entry(t, e);
		path = entry_path(e);
		if (r < 0)
			return vd_fail_prefix(t->err, r, "%s", path ? path : "?");
	}
	for (size_t i = t->n_dirs; i-- > 0;) {
		struct vdisk_stat st = { .mtime = t->dirs[i].mtime };

		r = t->fs->ops->setattr(t->fs, t->dirs[i].ino, &st, VD_ATTR_MTIME, t->err);
		if (r < 0)
			return r;
	}
	return 0;
}

int vdisk_fs_tar_in(struct vdisk_fs *fs, const char *dir, int fd,
		    const struct vdisk_tar_opts *opts, struct vdisk_error *err)
{
	struct tar_in t = { .fs = fs, .err = err, .opts = opts };
	locale_t before, mine;
	struct vdisk_stat st;
	int r = vd_fs_may_write(fs, err);

	if (r == 0)
		r = vd_fs_find(fs, dir, true, &t.root, err);
	if (r == 0)
		r = fs->ops->stat(fs, t.root, &st, err);
	if (r == 0 && !S_ISDIR(st.mode))
		r = vd_fail(err, ENOTDIR, "%s: not a directory", dir);
	if (r == 0)
		r = vd_archive_load(err);
	if (r < 0)
		return r;
	t.a = vd_la.read_new();
	if (!t.a)
		return vd_fail(err, ENOMEM, "out of memory");
	before = utf8_begin(&mine);
	vd_la.read_support_filter_all(t.a);
	vd_la.read_support_format_tar(t.a);
	vd_la.read_support_format_empty(t.a);
	if (vd_la.read_open_fd(t.a, fd, CHUNK) != ARCHIVE_OK)
		r = tar_fail(t.a, err, "opening the archive");
	else
		r = in_all(&t);
	vd_la.read_free(t.a);
	utf8_end(mine, before);
	free(t.dirs);
	return r;
}
