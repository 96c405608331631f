/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * range.c - copy a range of bytes between disks, or inside one
 *
 * The map of the source cuts the range into runs.  Zeroes become zeroes, without
 * a byte read; a run that is plain bytes of a file, onto a raw disk that is a
 * file, shares its blocks where the file system can; all else goes through a
 * buffer.  Overlapping ranges of one disk are copied from the end when the target
 * lies behind the source, as memmove() does; nothing is shared then.
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "core/engine.h"

#define WINDOW	(1u << 20)
#define GRAIN	4096u

/* The file that a raw disk is, if that is all there is to it. */
static int plain_file(const struct vdisk *d)
{
	struct stat st;
	int fd = d->drv == &vd_raw && d->file ? vdisk_fd(d->file) : vdisk_fd(d);

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fd : -1;
}

static uint64_t try_clone(int fd, uint64_t dst_off, const struct vdisk_extent *ext)
{
	struct file_clone_range range = {
		.src_offset = ext->source_offset,
		.src_length = vd_align_down(ext->length, GRAIN),
		.dest_offset = dst_off,
	};

	if (fd < 0 || ext->kind != VDISK_DATA || !ext->source || !range.src_length ||
	    vdisk_fd(ext->source) < 0)
		return 0;
	range.src_fd = vdisk_fd(ext->source);
	return ioctl(fd, FICLONERANGE, &range) == 0 ? range.src_length : 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static int move(struct vdisk *dst, uint64_t dst_off, struct vdisk *src, uint64_t src_off,
		size_t len, uint8_t *buf)
{
	int r = vdisk_read(src, buf, len, src_off);

	if (r < 0)
		return r;
	if (all_zero(buf, len))
		return vdisk_zero(dst, dst_off, len, VDISK_REQ_UNMAP);
	return vdisk_write(dst, buf, len, dst_off);
}

/* The target lies behind the source, and they share bytes. */
static int copy_backwards(struct vdisk *d, uint64_t dst_off, uint64_t src_off, uint64_t len,
			  uint8_t *buf)
{
	int r = 0;

	while (len > 0 && r == 0) {
		size_t n = (size_t)MIN(len, (uint64_t)WINDOW);

		len -= n;
		r = move(d, dst_off + len, d, src_off + len, n, buf);
	}
	return r;
}

/* One run from its start: how far it got, or -errno. */
static int64_t copy_run(struct vdisk *dst, uint64_t dst_off, struct vdisk *src, uint64_t src_off,
			uint64_t len, int clone_fd, uint8_t *buf)
{
	struct vdisk_extent ext = { 0 };
	uint64_t n;
	int r = vdisk_map(src, src_off, len, &ext);

	if (r < 0)
		return r;
	if (ext.kind == VDISK_ZERO || ext.kind == VDISK_HOLE) {
		r = vdisk_zero(dst, dst_off, ext.length, VDISK_REQ_UNMAP);
		return r < 0 ? r : (int64_t)ext.length;
	}
	n = try_clone(clone_fd, dst_off, &ext);
	if (n)
		return (int64_t)n;
	n = MIN(ext.length, (uint64_t)WINDOW);
	r = move(dst, dst_off, src, src_off, (size_t)n, buf);
	return r < 0 ? r : (int64_t)n;
}

int vdisk_copy_range(struct vdisk *dst, uint64_t dst_off, struct vdisk *src, uint64_t src_off,
		     uint64_t len)
{
	AUTO_FREE uint8_t *buf = NULL;
	bool overlap;
	int fd;

	if (!vd_in_range(dst_off, len, vdisk_size(dst)) ||
	    !vd_in_range(src_off, len, vdisk_size(src)))
		return -EINVAL;
	if (len == 0 || (dst == src && dst_off == src_off))
		return 0;
	if (posix_memalign((void **)&buf, GRAIN, WINDOW))
		return -ENOMEM;
	overlap = dst == src && dst_off < src_off + len && src_off < dst_off + len;
	if (overlap && dst_off > src_off)
		return copy_backwards(dst, dst_off, src_off, len, buf);
	fd = overlap ? -1 : plain_file(dst);
	while (len > 0) {
		int64_t n = copy_run(dst, dst_off, src, src_off, len, fd, buf);

		if (n < 0)
			return (int)n;
		dst_off += (uint64_t)n;
		src_off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}
