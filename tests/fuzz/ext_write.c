/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing into a hostile ext2/3/4, through its journal: files, directories, links, attributes;
 * and opening again what came of it, whose journal is replayed then.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "core/driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_file(struct vdisk_fs *fs, const char *path, size_t len, uint64_t off)
{
	static uint8_t buf[20000];
	struct vdisk_file *f;

	memset(buf, 'x', sizeof(buf));
	if (vdisk_file_open(&f, fs, path, VDISK_FILE_WRITE | VDISK_FILE_CREATE, 0644, NULL) < 0)
		return;
	vdisk_file_write(f, buf, len, off, NULL);
	vdisk_file_truncate(f, len / 2, NULL);
	vdisk_file_close(f, NULL);
}

struct first {
	char path[300];
};

static int take_first(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct first *f = arg;

	(void)st;
	snprintf(f->path, sizeof(f->path), "/%s", name);
	return 1;
}

static void change(struct vdisk_fs *fs)
{
	struct first f = { "" };

	vdisk_fs_list(fs, "/", take_first, &f, NULL);
	vdisk_fs_mkdir(fs, "/new", 0755, NULL);
	put_file(fs, "/new/file", 20000, 0);
	put_file(fs, "/new/far", 5, 3u << 20);
	vdisk_fs_symlink(fs, "file", "/new/link", NULL);
	vdisk_fs_link(fs, "/new/file", "/hard", NULL);
	vdisk_fs_sync(fs, NULL);
	if (f.path[0]) {
		put_file(fs, f.path, 3000, 100);
		vdisk_fs_chmod(fs, f.path, 0700, NULL);
		vdisk_fs_chown(fs, f.path, 70000, 1, true, NULL);
		vdisk_fs_setxattr(fs, f.path, "user.fuzz", "value", 5, NULL);
		vdisk_fs_rename(fs, f.path, "/new/moved", NULL);
		vdisk_fs_sync(fs, NULL);
		vdisk_fs_remove_tree(fs, "/new/moved", NULL);
	}
	vdisk_fs_remove(fs, "/hard", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk_fs *fs;
	struct vdisk *disk;

	if (size < 4096 || size > 1u << 20 || vdisk_open_memory(&disk, size, NULL) < 0)
		return 0;
	if (vdisk_write(disk, data, size, 0) == 0 &&
	    vdisk_fs_open(&fs, disk, VDISK_FS_WRITE | VDISK_FS_JOURNAL, NULL) == 0) {
		change(fs);
		vdisk_fs_close(fs, NULL);
		if (vdisk_fs_open(&fs, disk, VDISK_FS_WRITE, NULL) == 0)
			vdisk_fs_close(fs, NULL);
	}
	vdisk_close(disk, NULL);
	return 0;
}
