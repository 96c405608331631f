/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat.c - hostile FAT volumes
 *
 * The input is the start of a volume of 1 MiB.  Whatever it is, listing and
 * reading it ends, names are names, and so do changes to it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VOLUME ((uint64_t)1 << 20)

struct visit {
	struct vdisk_fs *fs;
	const char *dir;
	unsigned depth;
	unsigned *left;		/* nodes still to be looked at */
};

static void walk(struct visit *v);

static void read_file(struct vdisk_fs *fs, const char *path, uint64_t size)
{
	struct vdisk_file *f = NULL;
	char buf[5000];

	if (vdisk_file_open(&f, fs, path, 0, 0, NULL) < 0)
		return;
	for (uint64_t off = 0; off < size && off < 64 << 10; off += sizeof(buf))
		if (vdisk_file_read(f, buf, sizeof(buf), off, NULL) < 0)
			break;
	if (size)
		vdisk_file_read(f, buf, sizeof(buf), size - 1, NULL);
	vdisk_file_close(f, NULL);
}

static int visit(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct visit *v = arg;
	char path[4096];

	assert(name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
	if (!*v->left || strlen(v->dir) + strlen(name) + 2 > sizeof(path))
		return 1;
	--*v->left;
	strcpy(path, v->dir);
	strcat(path, "/");
	strcat(path, name);
	if (!S_ISDIR(st->mode)) {
		read_file(v->fs, path, st->size);
	} else if (v->depth < 4) {
		struct visit below = { v->fs, path, v->depth + 1, v->left };

		walk(&below);
	}
	return 0;
}

static void walk(struct visit *v)
{
	vdisk_fs_list(v->fs, *v->dir ? v->dir : "/", visit, v, NULL);
}

/* Change it: none of this must do harm, whether it succeeds or not. */
static void change(struct vdisk *disk)
{
	static const char text[3000] = "text";
	struct vdisk_fs *fs = NULL;
	struct vdisk_file *f = NULL;

	if (vdisk_fs_open(&fs, disk, VDISK_FS_WRITE, NULL) < 0)
		return;
	if (vdisk_file_open(&f, fs, "/A longer name", VDISK_FILE_CREATE | VDISK_FILE_WRITE, 0644,
			    NULL) == 0) {
		for (unsigned i = 0; i < 4; i++)
			vdisk_file_write(f, text, sizeof(text), i * 5000, NULL);
		vdisk_fs_rename(fs, "/A longer name", "/EFI/new", NULL);
		vdisk_file_truncate(f, 700, NULL);
		vdisk_fs_remove(fs, "/EFI/new", NULL);
		vdisk_file_close(f, NULL);
	}
	vdisk_fs_mkdir(fs, "/EFI", 0755, NULL);
	vdisk_fs_mkdir(fs, "/EFI/dir", 0755, NULL);
	vdisk_fs_rename(fs, "/EFI", "/EFI/dir/below", NULL);
	vdisk_fs_rename(fs, "/EFI/dir", "/dir", NULL);
	vdisk_fs_remove_tree(fs, "/EFI", NULL);
	vdisk_fs_close(fs, NULL);
	vdisk_set_label(disk, "FUZZ", NULL);
	vdisk_set_uuid(disk, "1234-5678", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vdisk *disk;
	struct vdisk_fs_usage usage;
	struct vdisk_fs *fs = NULL;
	unsigned left = 64;

	if (!disk)
		assert(vdisk_open_memory(&disk, VOLUME, NULL) == 0);
	if (size > VOLUME)
		return 0;
	assert(vdisk_discard(disk, 0, VOLUME) == 0 && vdisk_write(disk, data, size, 0) == 0);
	if (vdisk_fs_open(&fs, disk, 0, NULL) < 0)
		return 0;
	if (!strcmp(vdisk_fs_type(fs), "vfat")) {
		struct visit v = { fs, "", 0, &left };

		walk(&v);
		vdisk_fs_usage(fs, &usage, NULL);
		change(disk);
	}
	vdisk_fs_close(fs, NULL);
	return 0;
}
