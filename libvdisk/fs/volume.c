/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* volume.c - labels and UUIDs, whatever is on the volume */
#include "fs/volume.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "fs/fat.h"

int vd_uuid_parse(const char *text, uint8_t out[16], struct vdisk_error *err)
{
	const char *p = text;

	if (!strcmp(text, "random")) {	/* RFC 9562, 5.4 */
		if (getrandom(out, 16, 0) != 16)
			return vd_fail(err, EIO, "no random numbers: %m");
		out[6] = (uint8_t)((out[6] & 0x0f) | 0x40);
		out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
		return 0;
	}
	for (unsigned i = 0; i < 16; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return vd_fail(err, EINVAL, "'%s' is not a UUID", text);
		high = vd_hex_digit(p[0]);
		low = high < 0 ? -1 : vd_hex_digit(p[1]);
		if (low < 0)
			return vd_fail(err, EINVAL, "'%s' is not a UUID", text);
		out[i] = (uint8_t)(high << 4 | low);
		p += 2;
	}
	return *p ? vd_fail(err, EINVAL, "'%s' is not a UUID", text) : 0;
}

void vd_uuid_text(char *out, const uint8_t u[16])
{
	for (unsigned i = 0; i < 16; i++)
		out += sprintf(out, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", u[i]);
}

static int set_uuid(struct vdisk_fs *fs, const char *text, struct vdisk_error *err)
{
	uint8_t uuid[16];
	int r;

	if (fs->ops == &vd_fat_ops)	/* it has but 32 bits */
		return fat_set_serial(fs, text, err);
	r = vd_uuid_parse(text, uuid, err);
	return r < 0 ? r : fs->ops->set_uuid(fs, uuid, err);
}

/* Open what is there, and let it be changed by @label or @uuid. */
static int change(struct vdisk *disk, const char *label, const char *uuid,
		  struct vdisk_error *err)
{
	struct vdisk_fs *fs;
	int r = vdisk_fs_open(&fs, disk, VDISK_FS_WRITE, err);

	if (r < 0)
		return r;
	r = label ? fs->ops->set_label(fs, label, err) : set_uuid(fs, uuid, err);
	if (r < 0) {
		vd_fail_prefix(err, r, "%s", vdisk_name(disk));
		vdisk_fs_close(fs, NULL);
		return r;
	}
	return vdisk_fs_close(fs, err);
}

int vdisk_set_label(struct vdisk *disk, const char *label, struct vdisk_error *err)
{
	if (!vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: the disk is open read-only", vdisk_name(disk));
	return vd_is_swap(disk) ? vd_swap_set_label(disk, label, err) :
	       change(disk, label, NULL, err);
}

int vdisk_set_uuid(struct vdisk *disk, const char *text, struct vdisk_error *err)
{
	uint8_t uuid[16];
	int r;

	if (!vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: the disk is open read-only", vdisk_name(disk));
	if (!vd_is_swap(disk))
		return change(disk, NULL, text, err);
	r = vd_uuid_parse(text, uuid, err);
	return r < 0 ? r : vd_swap_set_uuid(disk, uuid, err);
}

/* ---- trim ---- */

struct trim {
	struct vdisk *disk;	/* borrowed */
	struct vdisk_error *err;
	uint64_t bytes;
};

static int trim_run(void *arg, uint64_t off, uint64_t len)
{
	struct trim *t = arg;
	uint64_t size = vdisk_size(t->disk);
	int r;

	if (off >= size)
		return 0;
	len = MIN(len, size - off);
	r = vdisk_discard(t->disk, off, len);
	if (r < 0)
		return vd_fail(t->err, -r, "%s: giving back %llu bytes at %llu: %s",
			       vdisk_name(t->disk), (unsigned long long)len,
			       (unsigned long long)off, strerror(-r));
	t->bytes += len;
	return 0;
}

int vdisk_fs_trim(struct vdisk_fs *fs, uint64_t *bytes, struct vdisk_error *err)
{
	struct trim t = { .disk = fs->disk, .err = err };
	int r = vd_fs_may_write(fs, err);

	if (r == 0)	/* what is known to be free must be free on the disk */
		r = vdisk_fs_sync(fs, err);
	if (r == 0)
		r = fs->ops->each_free(fs, trim_run, &t, err);
	if (r == 0)
		*bytes = t.bytes;
	return r;
}
