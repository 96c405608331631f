/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files.c - see files.h */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/files.h"
#include "cli/kernel_fs.h"
#include "cli/steady.h"
#include "kernel/host.h"

struct open_fs {
	struct open_fs *next;
	char *locator;		/* owned */
	char *source;		/* owned: the same without a partition */
	struct vdisk *disk;	/* owned: what that names */
	struct vdisk *volume;	/* owned: where the file system is */
	struct vdisk_fs *fs;	/* owned */
	bool write;
	bool lent;		/* another process serves the volume to the kernel */
};

static struct open_fs *all;

static void open_fs_free(struct open_fs *o)
{
	free(o->locator);
	free(o->source);
	free(o);
}

/* Two partitions of one disk: its image is opened, and locked, once. */
static struct open_fs *open_already(const struct open_fs *o)
{
	for (struct open_fs *other = all; other; other = other->next)
		if (!strcmp(other->source, o->source) && (other->write || !o->write))
			return other;
	return NULL;
}

/* What one process writes to an image, another one that has it open does not learn. */
static bool lent_to_other(const struct open_fs *o)
{
	for (const struct open_fs *other = all; other; other = other->next)
		if (other->disk == o->disk && (other->lent || o->lent) &&
		    (other->write || o->write)) {
			cli_error("%s and %s: two file systems of one image, of which one needs the "
				  "kernel, cannot be written by one command", o->locator,
				  other->locator);
			return true;
		}
	return false;
}

/* Through the kernel, for root. */
static int open_by_kernel(struct open_fs *o, bool part, struct vdisk_error *err)
{
	uint64_t offset;
	int fd, r;

	o->lent = !vd_plain_run(o->volume, &fd, &offset);
	if (lent_to_other(o))
		return CLI_FAILED;
	r = kernel_fs_open(&o->fs, o->volume, o->disk, part ? KERNEL_TOP : KERNEL_ROOT_OR_TOP, o->write, err);
	return r < 0 ? cli_fail(err) : CLI_OK;
}

/* Is it more than the only file system that we can read? */
bool files_is_root(struct vdisk *volume)
{
	static const char *const marks[] = {
		"/etc/os-release", "/usr/lib/os-release", "/etc/fstab",
	};
	struct vdisk_stat st;
	struct vdisk_fs *fs;
	bool found = false;

	if (vdisk_fs_open(&fs, volume, 0, NULL) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(marks) && !found; i++)
		found = vdisk_fs_stat(fs, marks[i], false, &st, NULL) == 0;
	vdisk_fs_close(fs, NULL);
	return found;
}

static int open_root(struct open_fs *o, struct vdisk_error *err)
{
	int r = vdisk_open_root(&o->volume, o->disk, err);
	char name[264];

	if (!kernel_fs_possible() || (r == 0 && files_is_root(o->volume)) ||
	    kernel_fs_root(name, o->disk) < 0)
		return r;
	vdisk_close(o->volume, NULL);
	o->volume = NULL;
	if (!*name) {
		o->volume = vdisk_ref(o->disk);
		return 0;
	}
	return vdisk_open_part(&o->volume, o->disk, name, err);
}

/* Open what @o->locator names; @part: the partition in it, or NULL. */
static int open_volume(struct open_fs *o, const char *part)
{
	struct open_fs *other = open_already(o);
	struct vdisk_error err = { 0 };
	int r;

	if (other)
		o->disk = vdisk_ref(other->disk);
	if (lent_to_other(o))
		return CLI_FAILED;
	if (!o->disk && (o->write ? cli_open(&o->disk, o->source, VDISK_OPEN_WRITE) < 0 :
				    steady_look(&o->disk, o->source) != CLI_OK))
		return CLI_FAILED;
	if (part) {
		if (vdisk_open_part(&o->volume, o->disk, part, &err) < 0)
			return cli_fail(&err);
	} else if (open_root(o, &err) < 0)
		return cli_fail(&err);
	r = vdisk_fs_open(&o->fs, o->volume, o->write ? VDISK_FS_WRITE : 0, &err);
	if (r == -EMEDIUMTYPE && kernel_fs_possible())
		return open_by_kernel(o, part, &err);
	return r < 0 ? cli_fail(&err) : CLI_OK;
}

static int fs_get(struct vdisk_fs **out, const char *locator, const char *source,
		  const char *part, bool write)
{
	struct open_fs *o;
	int r;

	for (o = all; o; o = o->next) {
		if (!strcmp(o->locator, locator) && (o->write || !write)) {
			*out = o->fs;
			return CLI_OK;
		}
	}
	o = calloc(1, sizeof(*o));
	if (o) {
		o->locator = strdup(locator);
		o->source = strdup(source);
	}
	if (!o || !o->locator || !o->source) {
		if (o)
			open_fs_free(o);
		cli_error("out of memory");
		return CLI_FAILED;
	}
	o->write = write;
	r = open_volume(o, part);
	if (r != CLI_OK) {
		vdisk_close(o->volume, NULL);
		vdisk_close(o->disk, NULL);
		open_fs_free(o);
		return r;
	}
	o->next = all;
	all = o;
	*out = o->fs;
	return CLI_OK;
}

int cli_file_open(struct cli_file *out, const char *text, bool write)
{
	AUTO_FREE char *locator = NULL;
	AUTO_FREE char *source = NULL;
	AUTO_FREE char *part = NULL;
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	int r;

	if (vdisk_locator_parse(&loc, text, &err) < 0)
		return cli_fail(&err);
	locator = vdisk_locator_format(&loc);
	part = STEAL(loc.part);
	source = vdisk_locator_format(&loc);
	out->path = strdup(loc.path ? loc.path : "/");
	if (!locator || !source || !out->path) {
		cli_error("out of memory");
		r = CLI_FAILED;
	} else if (loc.snapshot && write) {
		cli_error("%s: a snapshot cannot be written", locator);
		r = CLI_FAILED;
	} else {
		r = fs_get(&out->fs, locator, source, part, write);
	}
	vdisk_locator_clear(&loc);
	return r;
}

void cli_file_clear(struct cli_file *f)
{
	free(f->path);
	f->path = NULL;
}

bool cli_is_guest_file(const char *text)
{
	struct vdisk_locator loc = { 0 };
	bool guest;

	if (vdisk_locator_parse(&loc, text, NULL) < 0)
		return false;
	guest = loc.path;
	vdisk_locator_clear(&loc);
	return guest;
}

int cli_files_close(int status)
{
	while (all) {
		struct open_fs *o = all;
		struct vdisk_error err = { 0 };

		all = o->next;
		if (vdisk_fs_close(o->fs, &err) < 0)
			status = cli_fail(&err);
		vdisk_close(o->volume, NULL);
		if (cli_close(&o->disk) != CLI_OK)
			status = CLI_FAILED;
		open_fs_free(o);
	}
	kernel_fs_end();
	return status;
}

/* ---- names ---- */

char *cli_join(const char *dir, const char *name)
{
	size_t n = strlen(dir);
	char *s = NULL;

	while (n && dir[n - 1] == '/')
		n--;
	return asprintf(&s, "%.*s/%s", (int)n, dir, name) < 0 ? NULL : s;
}

char *cli_basename(const char *path)
{
	size_t end = strlen(path), start;

	while (end && path[end - 1] == '/')
		end--;
	for (start = end; start && path[start - 1] != '/'; start--)
		;
	return strndup(path + start, end - start);
}

const char *cli_mode_string(char buf[11], uint32_t mode)
{
	static const char types[] = "?pc?d?b?-?l?s???";

	buf[0] = types[mode >> 12 & 15];
	for (int i = 0; i < 9; i++)
		buf[1 + i] = mode >> (8 - i) & 1 ? "rwxrwxrwx"[i] : '-';
	if (mode & S_ISUID)
		buf[3] = mode & 0100 ? 's' : 'S';
	if (mode & S_ISGID)
		buf[6] = mode & 0010 ? 's' : 'S';
	if (mode & S_ISVTX)
		buf[9] = mode & 0001 ? 't' : 'T';
	buf[10] = '\0';
	return buf;
}

static const char *type_name(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symlink";
	case S_IFCHR: return "character-device";
	case S_IFBLK: return "block-device";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	}
	return "unknown";
}

static json_t *time_json(struct timespec t)
{
	return json_real((double)t.tv_sec + (double)t.tv_nsec / 1e9);
}

json_t *cli_stat_json(const char *name, const struct vdisk_stat *st, const char *target)
{
	char mode[8];
	json_t *j = json_object();

	snprintf(mode, sizeof(mode), "%04o", st->mode & 07777);
	if (name)
		json_object_set_new(j, "name", json_stringn_nocheck(name, strlen(name)));
	json_object_set_new(j, "type", json_string(type_name(st->mode)));
	json_object_set_new(j, "mode", json_string(mode));
	json_object_set_new(j, "uid", json_integer(st->uid));
	json_object_set_new(j, "gid", json_integer(st->gid));
	json_object_set_new(j, "size", json_integer((json_int_t)st->size));
	json_object_set_new(j, "allocated", json_integer((json_int_t)st->allocated));
	json_object_set_new(j, "inode", json_integer((json_int_t)st->ino));
	json_object_set_new(j, "links", json_integer(st->nlink));
	json_object_set_new(j, "mtime", time_json(st->mtime));
	json_object_set_new(j, "atime", time_json(st->atime));
	json_object_set_new(j, "ctime", time_json(st->ctime));
	json_object_set_new(j, "crtime", time_json(st->crtime));
	if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		json_object_set_new(j, "major", json_integer(st->rdev_major));
		json_object_set_new(j, "minor", json_integer(st->rdev_minor));
	}
	if (target)
		json_object_set_new(j, "target", json_stringn_nocheck(target, strlen(target)));
	return j;
}

/* ---- trees ---- */

struct walk {
	int (*fn)(void *arg, struct vdisk_fs *fs, const char *path, const struct vdisk_stat *st);
	void *arg;
	struct vdisk_fs *fs;
	const char *path;
	unsigned depth;
};

static int walk_dir(struct walk *up, const char *path);

static int walk_one(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct walk *w = arg;
	AUTO_FREE char *path = cli_join(w->path, name);
	int r;

	if (!path) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	r = w->fn(w->arg, w->fs, path, st);
	return r == CLI_OK && S_ISDIR(st->mode) ? walk_dir(w, path) : r;
}

static int walk_dir(struct walk *up, const char *path)
{
	struct walk w = *up;
	struct vdisk_error err = { 0 };
	int r;

	w.path = path;
	if (++w.depth > 1000) {
		cli_error("%s: directories nest too deeply", path);
		return CLI_FAILED;
	}
	r = vdisk_fs_list(w.fs, path, walk_one, &w, &err);
	return r < 0 ? cli_fail(&err) : r;
}

int cli_walk(struct vdisk_fs *fs, const char *path, bool recursive,
	     int (*fn)(void *arg, struct vdisk_fs *fs, const char *path,
		       const struct vdisk_stat *st), void *arg)
{
	struct walk w = { .fn = fn, .arg = arg, .fs = fs, .path = path };
	struct vdisk_error err = { 0 };
	struct vdisk_stat st;
	int r;

	if (vdisk_fs_stat(fs, path, recursive, &st, &err) < 0)
		return cli_fail(&err);
	r = fn(arg, fs, path, &st);
	return r == CLI_OK && recursive && S_ISDIR(st.mode) ? walk_dir(&w, path) : r;
}
