/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * root.c - which of a disk's volumes holds the guest's root
 *
 * "guest.qcow2:/etc/fstab" names no partition.  The rule: the first volume, in
 * the order of the partition table, whose file system has /etc/os-release,
 * /usr/lib/os-release or /etc/fstab; or, where none has, the only one with a
 * file system at all.
 */
#include <errno.h>
#include <stdio.h>

#include "core/driver.h"

static bool looks_like_root(struct vdisk *volume, bool *has_fs)
{
	static const char *const marks[] = {
		"/etc/os-release", "/usr/lib/os-release", "/etc/fstab",
	};
	struct vdisk_fs *fs;
	struct vdisk_stat st;
	bool found = false;

	*has_fs = vdisk_fs_open(&fs, volume, 0, NULL) == 0;
	if (!*has_fs)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(marks) && !found; i++)
		found = vdisk_fs_stat(fs, marks[i], false, &st, NULL) == 0;
	vdisk_fs_close(fs, NULL);
	return found;
}

/* Go through the partitions; what comes out as *@out is referenced. */
static int search(struct vdisk **out, struct vdisk *disk, const struct vdisk_parts *parts,
		  struct vdisk_error *err)
{
	struct vdisk *only = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < parts->count; i++) {
		struct vdisk *volume;
		char name[24];
		bool has_fs;

		snprintf(name, sizeof(name), "p%u", parts->part[i].number);
		if (parts->part[i].extended || vdisk_open_part(&volume, disk, name, NULL) < 0)
			continue;
		if (looks_like_root(volume, &has_fs)) {
			vdisk_close(only, NULL);
			*out = volume;
			return 0;
		}
		n += has_fs;
		if (has_fs && !only)
			only = volume;
		else
			vdisk_close(volume, NULL);
	}
	if (n == 1) {
		*out = only;
		return 0;
	}
	vdisk_close(only, NULL);
	return vd_fail(err, ENOENT,
		       "%s: %s: say which partition is meant, as in \"%s#p1\" (vdisk parts lists them)",
		       vdisk_name(disk),
		       n ? "several file systems, and none looks like the root" :
			   "no file system that is supported", vdisk_name(disk));
}

int vdisk_open_root(struct vdisk **out, struct vdisk *disk, struct vdisk_error *err)
{
	AUTO_FREE struct vdisk_parts *parts = NULL;
	bool has_fs;
	int r = vdisk_parts_read(&parts, disk, err);

	if (r < 0)
		return r;
	if (parts->count)
		return search(out, disk, parts, err);
	looks_like_root(disk, &has_fs);
	if (!has_fs)
		return vd_fail(err, ENOENT, "%s: neither partitions nor a supported file system",
			       vdisk_name(disk));
	*out = vdisk_ref(disk);
	return 0;
}
