/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image.h - what the fuzzers of image formats do to every image that opens */
#ifndef FUZZ_IMAGE_H
#define FUZZ_IMAGE_H

#include <assert.h>

#include "core/driver.h"

static uint8_t image_buf[128 << 10];

/* NULL: refused. */
static inline struct vdisk *image_open(struct vdisk *file, const char *format, uint32_t flags)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = flags, .refs = VDISK_REFS_NONE, .format = format,
	};
	struct vdisk *d;

	return vdisk_open_on(&d, file, &opts, NULL) == 0 ? d : NULL;
}

static inline int image_on_info(void *arg, const struct vdisk_info_item *item)
{
	(void)arg;
	assert(item->key[0]);
	return 0;
}

static inline void image_look(struct vdisk *d)
{
	uint64_t size = vdisk_size(d), off = 0;
	struct vdisk_extent ext;

	for (unsigned i = 0; i < 256 && off < size && vdisk_map(d, off, size - off, &ext) == 0; i++) {
		assert(ext.length > 0 && ext.length <= size - off);
		off += ext.length;
	}
	(void)vdisk_read(d, image_buf, (size_t)MIN(size, (uint64_t)sizeof(image_buf)), 0);
	if (size > sizeof(image_buf))
		(void)vdisk_read(d, image_buf, sizeof(image_buf), size - sizeof(image_buf));
	(void)vdisk_info(d, image_on_info, NULL);
}

/* Writes, zeroes, discards and a flush, all over the disk. */
static inline void image_change(struct vdisk *d)
{
	uint64_t size = vdisk_size(d);

	memset(image_buf, 0x5a, 8192);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t off = size / 8 * i;
		size_t len = (size_t)MIN(size - off, UINT64_C(700) * (i + 1));

		if (i == 3)
			(void)vdisk_zero(d, off, len, VDISK_REQ_UNMAP);
		else if (i == 5)
			(void)vdisk_discard(d, off, MIN(size - off, UINT64_C(100000)));
		else
			(void)vdisk_write(d, image_buf, len, off);
		if (i == 4)
			(void)vdisk_flush(d);
	}
}

#endif
