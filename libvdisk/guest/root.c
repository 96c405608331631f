/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * root.c - which of a disk's volumes holds the guest's root
 *
 * "guest.qcow2:/etc/fstab" names no partition.  The rule: the first volume, in
 * the order of the partition table and then of LVM, whose file system has /etc/os-release,
 * /usr/lib/os-release or /etc/fstab; or, where none has, the only one with a
 * file system at all.
 */
#include <errno.h>
#include <stdio.h>

#include "core/driver.h"

static bool looks_like_root(struct vdisk *volume, bool *has_fs, struct vdisk_error *err)
{
	static const char *const marks[] = {
		"/etc/os-release", "/usr/lib/os-release", "/etc/fstab",
	};
	struct vdisk_fs *fs;
	struct vdisk_stat st;
	bool found = false;

	*has_fs = vdisk_fs_open(&fs, volume, 0, err) == 0;
	if (!*has_fs)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(marks) && !found; i++)
		found = vdisk_fs_stat(fs, marks[i], false, &st, NULL) == 0;
	vdisk_fs_close(fs, NULL);
	return found;
}

struct search {
	struct vdisk *root;	/* owned */
	struct vdisk *only;	/* owned: the first one with a file system */
	unsigned n;
	char root_name[264], only_name[264];
	struct vdisk_error damage;	/* why the first damaged one was not looked into */
};

static int look_at(void *arg, const struct vdisk_volume *volume)
{
	struct search *s = arg;
	struct vdisk_error why = { 0 };
	bool has_fs;

	if (looks_like_root(volume->disk, &has_fs, &why)) {
		s->root = vdisk_ref(volume->disk);
		memcpy(s->root_name, volume->name, sizeof(s->root_name));
		return 1;
	}
	if (!has_fs && why.code != EMEDIUMTYPE && !s->damage.code)
		s->damage = why;
	if (has_fs && s->n++ == 0) {
		s->only = vdisk_ref(volume->disk);
		memcpy(s->only_name, volume->name, sizeof(s->only_name));
	}
	return 0;
}

static int find_root(struct vdisk **out, char name[264], struct vdisk *disk,
		     struct vdisk_error *err)
{
	struct search s = { .n = 0 };
	int r = vdisk_each_volume(disk, look_at, &s, err);

	if (r >= 0 && !s.root && s.n == 1) {
		s.root = STEAL(s.only);
		memcpy(s.root_name, s.only_name, sizeof(s.root_name));
	}
	vdisk_close(s.only, NULL);
	if (r >= 0 && !s.root && !s.n && s.damage.code)
		return vd_fail(err, s.damage.code, "%s", s.damage.msg);
	if (r >= 0 && !s.root)
		return vd_fail(err, ENOENT, "%s: %s: say which volume is meant, as in \"%s#p1\" "
			       "(vdisk parts lists them)", vdisk_name(disk),
			       s.n ? "several file systems, and none looks like the root" :
				     "no file system that is supported", vdisk_name(disk));
	if (r < 0)
		return r;
	memcpy(name, s.root_name, sizeof(s.root_name));
	*out = s.root;
	return 0;
}

int vdisk_open_root(struct vdisk **out, struct vdisk *disk, struct vdisk_error *err)
{
	char name[264];

	return find_root(out, name, disk, err);
}

int vdisk_root_name(char out[264], struct vdisk *disk, struct vdisk_error *err)
{
	struct vdisk *root = NULL;
	int r = find_root(&root, out, disk, err);

	vdisk_close(root, NULL);
	return r;
}
