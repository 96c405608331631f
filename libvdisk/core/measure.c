/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* measure.c - how large a file would be that holds a disk in another format */
#include <errno.h>
#include <strings.h>

#include "core/driver.h"

#define DEFAULT_UNIT 65536

/* The allocation unit that an image with these options would have. */
static uint64_t target_unit(const struct vdisk_option *options, unsigned n)
{
	const char *text = vd_option(options, n, "cluster_size");
	uint64_t unit;

	if (text && vdisk_parse_size(text, &unit) == 0 && vd_is_pow2(unit))
		return unit;
	return DEFAULT_UNIT;
}

/* Bytes of whole units in which there is something to store. */
static int count_data(struct vdisk *disk, uint64_t length, uint64_t unit, uint64_t *out)
{
	uint64_t end = MIN(length, vdisk_size(disk)), counted = 0, data = 0;
	struct vdisk_extent ext = { 0 };

	for (uint64_t at = 0; at < end; at += ext.length) {
		int r = vdisk_map(disk, at, end - at, &ext);
		uint64_t from, to;

		if (r < 0)
			return r;
		if (ext.kind != VDISK_DATA && ext.kind != VDISK_CODED)
			continue;
		from = MAX(vd_align_down(at, unit), counted);
		to = at + ext.length;
		to = to > UINT64_MAX - unit ? to : vd_align_up(to, unit);
		if (to > from)
			data += to - from;
		counted = to;
	}
	*out = data;
	return 0;
}

int vdisk_measure(struct vdisk *disk, uint64_t length, const char *format,
		  const struct vdisk_option *options, unsigned n,
		  uint64_t *required, uint64_t *full, struct vdisk_error *err)
{
	const struct vd_driver *drv = NULL;
	uint64_t data = 0;
	int r;

	for (unsigned i = 0; vd_formats[i]; i++) {
		if (!strcasecmp(vd_formats[i]->name, format))
			drv = vd_formats[i];
	}
	if (!drv)
		return vd_fail(err, ENOTSUP, "unknown image format '%s'", format);
	r = vd_check_options(drv, options, n, err);
	if (r < 0)
		return r;
	if (!drv->measure) {	/* a format without metadata */
		*required = *full = length;
		return 0;
	}
	if (disk) {
		r = count_data(disk, length, target_unit(options, n), &data);
		if (r < 0)
			return vd_fail(err, -r, "%s: %s", vdisk_name(disk), strerror(-r));
	}
	return drv->measure(length, data, options, n, required, full, err);
}
