/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay.c - a throw-away writable layer over a disk that is not written
 *
 * The layer is an unlinked sparse file as long as the disk, and one bit a
 * unit: set, the unit is in the file, at its own offset; clear, ask the disk
 * below.  Nothing of it is meant to survive, so there is no metadata to write.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "core/driver.h"

#define UNIT ((uint64_t)64 << 10)

struct overlay {
	pthread_mutex_t lock;	/* guards the bits */
	uint64_t *bits;		/* owned */
};

static bool bit_get(const struct overlay *o, uint64_t unit)
{
	return o->bits[unit / 64] >> (unit % 64) & 1;
}

static void bits_set(struct overlay *o, uint64_t first, uint64_t last)
{
	for (uint64_t u = first; u <= last; u++)
		o->bits[u / 64] |= (uint64_t)1 << (u % 64);
}

/* From @off on: are the units in the layer, and for how many bytes? */
static bool run_at(struct overlay *o, uint64_t off, uint64_t len, uint64_t *run)
{
	uint64_t u = off / UNIT, end = off + len;
	bool present;

	pthread_mutex_lock(&o->lock);
	present = bit_get(o, u);
	for (u++; u * UNIT < end && bit_get(o, u) == present; u++)
		;
	pthread_mutex_unlock(&o->lock);
	*run = MIN(u * UNIT, end) - off;
	return present;
}

static int overlay_map(struct vdisk *d, uint64_t off, uint64_t len, enum vd_intent intent,
		       unsigned flags, struct vd_extent *ext)
{
	struct overlay *o = d->priv;
	uint64_t run;
	bool present = run_at(o, off, len, &run);

	ext->below = d->file;
	ext->off = off;
	ext->len = run;
	ext->kind = VD_DATA;
	if (present)
		return 0;	/* whatever the intent: it concerns the layer's bytes */
	switch (intent) {
	case VD_MAP_WRITE:
		if (!(flags & VD_MAP_ALLOC))
			return VD_NEED_ALLOC;
		ext->flags = VD_EXT_NEW | VD_EXT_FRESH;
		ext->new_off = vd_align_down(off, UNIT);
		ext->new_len = vd_align_up(off + run, UNIT) - ext->new_off;
		return 0;
	case VD_MAP_ZERO:
		ext->kind = VD_COPY;
		return 0;
	case VD_MAP_DISCARD:
		ext->kind = VD_DONE;
		return 0;
	default:
		ext->kind = VD_HOLE;
		return 0;
	}
}

static void overlay_commit(struct vdisk *d, struct vd_extent *ext, int result)
{
	struct overlay *o = d->priv;

	if (result < 0)	/* partly written: zero again for the next try */
		vd_discard_hint(d->file, ext->new_off, ext->new_len);
	pthread_mutex_lock(&o->lock);
	if (result >= 0)
		bits_set(o, ext->new_off / UNIT, (ext->new_off + ext->new_len - 1) / UNIT);
	pthread_mutex_unlock(&o->lock);
}

static int overlay_close(struct vdisk *d, struct vdisk_error *err)
{
	struct overlay *o = d->priv;

	(void)err;
	pthread_mutex_destroy(&o->lock);
	free(o->bits);
	free(STEAL(d->priv));
	return 0;
}

static const struct vd_driver overlay_driver = {
	.name = "overlay",
	.close = overlay_close,
	.map = overlay_map,
	.commit = overlay_commit,
};

/* overlayfs and some network file systems have no O_TMPFILE. */
static int open_nameless(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char path[PATH_MAX];

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	if (snprintf(path, sizeof(path), "%s/vdisk-XXXXXX", dir) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

int vdisk_scratch_file(int *out, const char *dir, struct vdisk_error *err)
{
	int fd;

	if (!dir)
		dir = getenv("TMPDIR");
	if (!dir)
		dir = "/var/tmp";
	fd = open_nameless(dir);
	if (fd < 0)
		return vd_fail(err, errno, "%s: cannot make a throw-away file: %s", dir,
			       strerror(errno));
	*out = fd;
	return 0;
}

int vdisk_open_overlay(struct vdisk **out, struct vdisk *base, const char *dir,
		       struct vdisk_error *err)
{
	AUTO_CLOSE int fd = -1;
	int r = vdisk_scratch_file(&fd, dir, err);

	if (r == 0)
		r = vdisk_open_overlay_on(out, base, fd, err);
	if (r == 0)
		(void)STEAL_FD(fd);
	return r;
}

int vdisk_open_overlay_on(struct vdisk **out, struct vdisk *base, int fd, struct vdisk_error *err)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_WRITE | VDISK_OPEN_UNSAFE,
	};
	uint64_t size = vdisk_size(base);
	AUTO_FREE uint64_t *bits = calloc((size_t)(size / UNIT / 64 + 1), sizeof(*bits));
	AUTO_FREE struct overlay *o = calloc(1, sizeof(*o));
	struct vdisk *d = bits && o ? vd_disk_new(&overlay_driver, base->name, size) : NULL;
	int r;

	if (!d)
		return vd_fail(err, ENOMEM, "out of memory");
	pthread_mutex_init(&o->lock, NULL);
	o->bits = STEAL(bits);
	d->priv = STEAL(o);
	d->unit = UNIT;
	d->block_size = base->block_size;
	d->flags = VDISK_OPEN_WRITE | VDISK_OPEN_UNSAFE;
	r = ftruncate(fd, (off_t)size) < 0 ?
		vd_fail(err, errno, "a throw-away file: %s", strerror(errno)) :
		vdisk_open_fd(&d->file, fd, "overlay", &opts, err);
	if (r < 0) {
		vdisk_close(d, NULL);
		return r;
	}
	d->backing = vdisk_ref(base);
	*out = d;
	return 0;
}
