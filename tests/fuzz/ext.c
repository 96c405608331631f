/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile ext2/3/4: open it, walk through all of it, read files, links and
 * attributes.  The corpus has small images without checksums, so that changes to
 * them get past the first look.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "core/driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct budget {
	struct vdisk_fs *fs;
	unsigned nodes;
	unsigned depth;
	char path[4096];
};

static void look_at(struct budget *b, const struct vdisk_stat *st)
{
	static char buf[65536];
	struct vdisk_file *f;
	uint64_t start, len;

	if (S_ISLNK(st->mode))
		vdisk_fs_readlink(b->fs, b->path, buf, sizeof(buf), NULL);
	if (vdisk_fs_listxattr(b->fs, b->path, buf, 4096, NULL) > 0)
		vdisk_fs_getxattr(b->fs, b->path, buf, buf + 8192, 4096, NULL);
	if (vdisk_file_open(&f, b->fs, b->path, 0, 0, NULL) < 0)
		return;
	vdisk_file_read(f, buf, sizeof(buf), 0, NULL);
	vdisk_file_read(f, buf, 4096, 1u << 20, NULL);
	vdisk_file_next_data(f, 4096, &start, &len, NULL);
	vdisk_file_close(f, NULL);
}

static int each(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct budget *b = arg;
	size_t len = strlen(b->path);

	if (b->nodes++ > 200 || len + strlen(name) + 2 > sizeof(b->path))
		return 1;
	snprintf(b->path + len, sizeof(b->path) - len, "/%s", name);
	look_at(b, st);
	if (S_ISDIR(st->mode) && b->depth < 8) {
		b->depth++;
		vdisk_fs_list(b->fs, b->path, each, b, NULL);
		b->depth--;
	}
	b->path[len] = '\0';
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk *disk;
	struct budget b = { 0 };
	struct vdisk_fs_usage usage;

	if (size < 4096 || size > 1u << 20 || vdisk_open_memory(&disk, size, NULL) < 0)
		return 0;
	if (vdisk_write(disk, data, size, 0) == 0 && vdisk_fs_open(&b.fs, disk, 0, NULL) == 0) {
		vdisk_fs_usage(b.fs, &usage, NULL);
		vdisk_fs_list(b.fs, "/", each, &b, NULL);
		vdisk_fs_close(b.fs, NULL);
	}
	vdisk_close(disk, NULL);
	return 0;
}
