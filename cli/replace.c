/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* replace.c - see replace.h */
#include "cli/replace.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/files.h"

/* Where the links at @path lead, to be freed. */
static int follow(struct vdisk_fs *fs, const char *path, char **out)
{
	struct vdisk_error err = { 0 };
	AUTO_FREE char *at = strdup(path);
	char target[4096];
	struct vdisk_stat st;

	for (unsigned i = 0; at && i < 40; i++) {
		char *next = NULL, *slash;

		if (vdisk_fs_stat(fs, at, true, &st, &err) < 0 && err.code != ENOENT)
			return cli_fail(&err);
		if (err.code == ENOENT || !S_ISLNK(st.mode)) {
			*out = STEAL(at);
			return CLI_OK;
		}
		if (vdisk_fs_readlink(fs, at, target, sizeof(target), &err) < 0)
			return cli_fail(&err);
		slash = strrchr(at, '/');
		if (target[0] == '/')
			next = strdup(target);
		else if (asprintf(&next, "%.*s/%s", (int)(slash ? slash - at : 0), at, target) < 0)
			next = NULL;
		free(at);
		at = next;
	}
	cli_error(at ? "%s: too many levels of symbolic links" : "%s: out of memory", path);
	return CLI_FAILED;
}

static int write_all(struct vdisk_fs *fs, const char *path, const void *data, size_t len,
		     struct vdisk_error *err)
{
	struct vdisk_file *f = NULL;
	int r = vdisk_file_open(&f, fs, path, VDISK_FILE_WRITE | VDISK_FILE_CREATE | VDISK_FILE_EXCL,
				0600, err);

	for (size_t done = 0; r == 0 && done < len;) {
		ssize_t n = vdisk_file_write(f, (const char *)data + done, len - done, done, err);

		if (n < 0)
			r = (int)n;
		else
			done += (size_t)n;
	}
	if (f) {
		int r2 = vdisk_file_close(f, r < 0 ? NULL : err);

		r = r < 0 ? r : r2;
	}
	return r;
}

static int copy_xattrs(struct vdisk_fs *fs, const char *from, const char *to,
		       struct vdisk_error *err)
{
	static char names[64 << 10], value[64 << 10];
	ssize_t n = vdisk_fs_listxattr(fs, from, names, sizeof(names), err);

	for (const char *p = names; n > 0 && p < names + n; p += strlen(p) + 1) {
		ssize_t len = vdisk_fs_getxattr(fs, from, p, value, sizeof(value), err);
		int r = len < 0 ? (int)len : vdisk_fs_setxattr(fs, to, p, value, (size_t)len, err);

		if (r < 0)
			return r;
	}
	return n < 0 ? (int)n : 0;
}

static int dress(struct vdisk_fs *fs, const char *from, const char *to, struct vdisk_error *err)
{
	struct vdisk_error none = { 0 };
	struct vdisk_stat st;
	int r = vdisk_fs_stat(fs, from, false, &st, &none);

	if (r == -ENOENT)
		return vdisk_fs_chmod(fs, to, 0644, err);
	if (r == 0)
		r = vdisk_fs_chown(fs, to, st.uid, st.gid, true, err);
	if (r == 0)
		r = vdisk_fs_chmod(fs, to, st.mode & 07777, err);
	return r == 0 ? copy_xattrs(fs, from, to, err) : r;
}

int cli_replace(struct vdisk_fs *fs, const char *path, const void *data, size_t len)
{
	struct vdisk_error err = { 0 };
	AUTO_FREE char *at = NULL;
	AUTO_FREE char *temp = NULL;
	int r;

	if (follow(fs, path, &at) != CLI_OK)
		return CLI_FAILED;
	if (asprintf(&temp, "%s.vdisk-new", at) < 0) {
		temp = NULL;
		cli_error("out of memory");
		return CLI_FAILED;
	}
	vdisk_fs_remove(fs, temp, NULL);	/* of a try that was interrupted */
	r = write_all(fs, temp, data, len, &err);
	if (r == 0)
		r = dress(fs, at, temp, &err);
	if (r == 0)	/* the data is there before the name is */
		r = vdisk_fs_sync(fs, &err);
	if (r == 0)
		r = vdisk_fs_rename(fs, temp, at, &err);
	if (r == 0)
		return CLI_OK;
	cli_fail(&err);
	vdisk_fs_remove(fs, temp, NULL);
	return CLI_FAILED;
}
