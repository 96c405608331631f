/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * table.c - device-mapper tables from maps
 *
 * What a map answers is what a linear target needs: these bytes are those bytes of
 * the disk below.  So a partition or a logical volume, seen from the disk that it
 * lies on, becomes a table by asking its map from start to end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/driver.h"
#include "kernel/host.h"

#define SECTOR		512u
#define MAX_SEGMENTS	65536u

/* Where byte @off of @volume is on @disk, and for how many bytes, at most @len. */
static int follow(struct vdisk *volume, struct vdisk *disk, uint64_t off, uint64_t *len,
		  uint64_t *at)
{
	struct vdisk *d = volume;

	while (d != disk) {
		struct vd_extent ext = { 0 };
		int r = d->drv->map ? d->drv->map(d, off, *len, VD_MAP_REPORT, 0, &ext) : -EXDEV;

		if (r < 0)
			return r;
		/* formats answer DATA, too, but what they say changes */
		if (ext.kind != VD_DATA || !ext.below || d->unit)
			return -EXDEV;
		*len = MIN(*len, ext.len);
		off = ext.off;
		d = ext.below;
	}
	*at = off;
	return 0;
}

int vd_dm_table(struct vd_dm_segment **out, struct vdisk *volume, struct vdisk *disk,
		unsigned major, unsigned minor, struct vdisk_error *err)
{
	AUTO_FREE struct vd_dm_segment *v = NULL;
	uint64_t size = vdisk_size(volume) / SECTOR * SECTOR, at = 0, next = 0;
	unsigned n = 0;

	for (uint64_t off = 0, len; off < size; off += len) {
		int r;

		len = size - off;
		r = follow(volume, disk, off, &len, &at);
		if (r == 0 && (at % SECTOR || len % SECTOR))
			r = -EXDEV;
		if (r < 0)
			return vd_fail(err, -r, "not made of whole runs of the disk");
		if (n && at == next) {
			v[n - 1].length += len / SECTOR;
		} else {
			struct vd_dm_segment *more = n % 64 ? v :
				reallocarray(v, n + 64, sizeof(*v));

			if (!more || n >= MAX_SEGMENTS)
				return vd_fail(err, more ? EXDEV : ENOMEM, "%u pieces are too many",
					       n);
			v = more;
			v[n] = (struct vd_dm_segment) {
				.start = off / SECTOR, .length = len / SECTOR, .target = "linear",
			};
			snprintf(v[n].params, sizeof(v[n].params), "%u:%u %" PRIu64, major, minor,
				 at / SECTOR);
			n++;
		}
		next = at + len;
	}
	*out = STEAL(v);
	return (int)n;
}

bool vd_plain_run(struct vdisk *volume, int *fd, uint64_t *offset)
{
	uint64_t size = vdisk_size(volume), at = 0, next = 0;
	struct vdisk *source = volume;

	while (source->drv->map && source->file)
		source = source->file;
	if (source->drv->map || source->fd < 0)
		return false;
	for (uint64_t off = 0, len; off < size; off += len) {
		len = size - off;
		if (follow(volume, source, off, &len, &at) < 0 || (off && at != next))
			return false;
		if (!off)
			*offset = at;
		next = at + len;
	}
	*fd = source->fd;
	return size != 0;
}
