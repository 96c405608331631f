/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* window.c - a disk that is a range of another: partitions and the like */
#include <errno.h>
#include <inttypes.h>

#include "core/driver.h"

struct window {
	uint64_t start;
};

static int window_map(struct vdisk *d, uint64_t off, uint64_t len, enum vd_intent intent,
		      unsigned flags, struct vd_extent *ext)
{
	const struct window *w = d->priv;

	(void)intent, (void)flags;
	ext->kind = VD_DATA;
	ext->below = d->file;
	ext->off = w->start + off;
	ext->len = len;
	return 0;
}

static int window_close(struct vdisk *d, struct vdisk_error *err)
{
	(void)err;
	free(STEAL(d->priv));
	return 0;
}

static const struct vd_driver window_driver = {
	.name = "window",
	.close = window_close,
	.map = window_map,
};

int vdisk_open_window(struct vdisk **out, struct vdisk *below, uint64_t offset, uint64_t length,
		      struct vdisk_error *err)
{
	AUTO_FREE struct window *w = NULL;
	struct vdisk *d;

	if (!vd_in_range(offset, length, vdisk_size(below)))
		return vd_fail(err, EINVAL,
			       "%s: bytes %" PRIu64 " to %" PRIu64 " are not all on the disk (%" PRIu64 " bytes)",
			       below->name, offset, offset + length, vdisk_size(below));
	w = malloc(sizeof(*w));
	d = w ? vd_disk_new(&window_driver, below->name, length) : NULL;
	if (!d)
		return vd_fail(err, ENOMEM, "out of memory");
	w->start = offset;
	d->priv = STEAL(w);
	d->file = vdisk_ref(below);
	d->flags = below->flags;
	d->block_size = below->block_size;
	*out = d;
	return 0;
}
