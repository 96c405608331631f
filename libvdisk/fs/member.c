/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * member.c - is a volume that looks like a file system a member of a RAID array?
 *
 * Linux md keeps its superblocks 0.90 and 1.0 at the end, so that the array's contents begin
 * where the member begins.  What is written into one half of a mirror is in that half only:
 * the array is then two different things.  Of a mirror a member may be read, nothing else.
 */
#include <errno.h>

#include "core/driver.h"
#include "fs/fs.h"

#define MD_MAGIC	0xa92b4efcu
#define MD_0_90_ALIGN	(64u << 10)

/* md(4), 0.90: 64 KiB aligned, at least 64 KiB from the end, in the byte order of its machine. */
static bool is_0_90(const uint8_t *p, int32_t *level)
{
	if (load_le32(p) == MD_MAGIC && load_le32(p + 4) == 0) {
		*level = (int32_t)load_le32(p + 28);
		return true;
	}
	if (load_be32(p) == MD_MAGIC && load_be32(p + 4) == 0) {
		*level = (int32_t)load_be32(p + 28);
		return true;
	}
	return false;
}

/* 1.0: 4 KiB aligned, at least 8 KiB from the end; it says in which sector it is. */
static bool is_1_0(const uint8_t *p, uint64_t at, int32_t *level)
{
	if (load_le32(p) != MD_MAGIC || load_le32(p + 4) != 1 || load_le64(p + 144) != at / 512)
		return false;
	*level = (int32_t)load_le32(p + 72);
	return true;
}

int vd_fs_check_member(struct vdisk *disk, bool write, struct vdisk_error *err)
{
	uint64_t size = vdisk_size(disk), at;
	uint8_t p[256];
	int32_t level = 0;
	bool member;
	int r;

	if (size < 2 * MD_0_90_ALIGN)
		return 0;
	at = size / MD_0_90_ALIGN * MD_0_90_ALIGN - MD_0_90_ALIGN;
	r = vdisk_read(disk, p, sizeof(p), at);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read its end: %s", vdisk_name(disk), strerror(-r));
	member = is_0_90(p, &level);
	if (!member) {
		at = (size / 512 - 16) / 8 * 4096;
		r = vdisk_read(disk, p, sizeof(p), at);
		if (r < 0)
			return vd_fail(err, -r, "%s: cannot read its end: %s", vdisk_name(disk),
				       strerror(-r));
		member = is_1_0(p, at, &level);
	}
	if (!member || (level == 1 && !write))
		return 0;
	return vd_fail(err, EMEDIUMTYPE, "%s: linux_raid_member, %s", vdisk_name(disk),
		       level == 1 ? "one side of a mirror: it is read, but not written, as the "
				    "others would not be changed" :
		       "a part of an array, no file system that is supported");
}
