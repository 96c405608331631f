/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* raw.c - the format whose map is the identity */
#include <errno.h>
#include <fcntl.h>

#include "core/driver.h"

static int raw_map(struct vdisk *d, uint64_t off, uint64_t len, enum vd_intent intent,
		   unsigned flags, struct vd_extent *ext)
{
	(void)intent, (void)flags;
	ext->kind = VD_DATA;
	ext->below = d->file;
	ext->off = off;
	ext->len = len;
	return 0;
}

static int raw_open(struct vd_open_ctx *ctx, struct vdisk_error *err)
{
	if (ctx->snapshot)
		return vd_fail(err, ENOTSUP, "%s: raw disks have no snapshots", ctx->disk->name);
	ctx->disk->size = ctx->disk->file->size;
	return 0;
}

static int raw_create(struct vdisk *file, uint64_t length, const struct vdisk_create_opts *opts,
		      struct vdisk_error *err)
{
	const char *how = vd_option(opts->options, opts->n_options, "preallocation");
	int fd = vdisk_fd(file);
	int r;

	if (opts->backing)
		return vd_fail(err, EINVAL, "a raw disk cannot have a backing file");
	r = vd_truncate(file, length);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot make it %llu bytes: %s", file->name,
			       (unsigned long long)length, strerror(-r));
	if (!how || !strcmp(how, "off") || length == 0)
		return 0;
	if (!strcmp(how, "falloc"))
		r = fd >= 0 && posix_fallocate(fd, 0, (off_t)length) == 0 ? 0 : -ENOSPC;
	else if (!strcmp(how, "full"))
		r = vd_write_zeroes(file, 0, length);
	else
		return vd_fail(err, EINVAL, "preallocation is off, falloc or full, not '%s'", how);
	return r < 0 ? vd_fail(err, -r, "%s: cannot allocate: %s", file->name, strerror(-r)) : 0;
}

static int raw_resize(struct vdisk *d, uint64_t length, struct vdisk_error *err)
{
	int r = d->file->drv->resize ? d->file->drv->resize(d->file, length, err) :
		vd_fail(err, ENOTSUP, "%s: cannot be resized", d->name);

	if (r == 0)
		d->size = length;
	return r;
}

static int raw_refresh(struct vdisk *d, uint64_t *size)
{
	struct vdisk *file = d->file;
	uint64_t now = file->size;
	int r = file->drv->refresh ? file->drv->refresh(file, &now) : 0;

	*size = MAX(now, file->size);
	return r;
}

static int raw_measure(uint64_t length, uint64_t data, const struct vdisk_option *options,
		       unsigned n, uint64_t *required, uint64_t *full, struct vdisk_error *err)
{
	(void)data, (void)options, (void)n, (void)err;
	*required = *full = length;
	return 0;
}

static const char *const raw_options[] = {
	"preallocation\toff|falloc|full\tallocate the space now",
	NULL,
};

const struct vd_driver vd_raw = {
	.name = "raw",
	.options = raw_options,
	.open = raw_open,
	.create = raw_create,
	.map = raw_map,
	.resize = raw_resize,
	.refresh = raw_refresh,
	.measure = raw_measure,
};
