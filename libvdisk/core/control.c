/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control.c - what changes a disk as a whole: resize, snapshots, check, names
 *
 * One such operation a disk at a time, and none while a request is inside: the
 * disk is drained first, and requests that come meanwhile wait.  A thread must
 * therefore not call these while it has requests of its own in flight there.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/engine.h"

static void control_begin(struct vdisk *d)
{
	pthread_mutex_lock(&d->ctl_lock);
	vd_drain(d);
}

static void control_end(struct vdisk *d)
{
	vd_drain_end(d);
	pthread_mutex_unlock(&d->ctl_lock);
}

static int need(struct vdisk *d, bool there, bool write, const char *what,
		struct vdisk_error *err)
{
	if (!there)
		return vd_fail(err, ENOTSUP, "%s: %s disks cannot %s", d->name, d->drv->name, what);
	if (write && !(d->flags & VDISK_OPEN_WRITE))
		return vd_fail(err, EROFS, "%s: is open read-only", d->name);
	if (write && d->failed)
		return vd_fail(err, EIO, "%s: an earlier write failed; check it first", d->name);
	return 0;
}

int vdisk_resize(struct vdisk *d, uint64_t length, struct vdisk_error *err)
{
	int r = need(d, d->drv->resize, true, "be resized", err);

	if (r < 0)
		return r;
	control_begin(d);
	r = d->drv->resize(d, length, err);
	control_end(d);
	return r;
}

static int refresh(struct vdisk *d)
{
	uint64_t size = d->size;
	int r = d->drv->refresh ? d->drv->refresh(d, &size) : 0;

	if (r < 0 || size <= d->size)
		return r;
	if (d->file && d->file->size < size)
		d->file->size = size;
	d->size = size;
	return 1;
}

int vdisk_refresh(struct vdisk *d)
{
	uint64_t size = d->size;
	int r = d->drv->refresh ? d->drv->refresh(d, &size) : 0;

	/* what is asked now and then should hold nobody up */
	if (r < 0 || size <= d->size)
		return r;
	control_begin(d);
	r = refresh(d);
	control_end(d);
	return r;
}

int vdisk_empty(struct vdisk *d, struct vdisk_error *err)
{
	int r = need(d, d->drv->empty, true, "be emptied", err);

	if (r < 0)
		return r;
	control_begin(d);
	r = d->drv->empty(d, err);
	control_end(d);
	return r;
}

int vdisk_check(struct vdisk *d, unsigned flags, struct vdisk_check_result *out,
		void (*report)(void *arg, const char *finding), void *arg, struct vdisk_error *err)
{
	struct vdisk_check_result result = { 0 };
	int r = need(d, d->drv->check, flags != 0, "be checked", err);

	if (r < 0)
		return r;
	control_begin(d);
	r = d->drv->check(d, flags, &result, report, arg, err);
	control_end(d);
	if (r == 0)
		*out = result;
	return r;
}

int vdisk_snapshot_list(struct vdisk *d, struct vdisk_snapshot **out, struct vdisk_error *err)
{
	int r = need(d, d->drv->snapshot_list, false, "have snapshots", err);

	if (r < 0)
		return r;
	control_begin(d);
	r = d->drv->snapshot_list(d, out, err);
	control_end(d);
	return r;
}

static int snapshot_op(struct vdisk *d, const char *name,
		       int (*op)(struct vdisk *, const char *, struct vdisk_error *),
		       struct vdisk_error *err)
{
	int r = need(d, op, true, "have snapshots", err);

	if (r < 0)
		return r;
	control_begin(d);
	r = op(d, name, err);
	control_end(d);
	return r;
}

int vdisk_snapshot_create(struct vdisk *d, const char *name, struct vdisk_error *err)
{
	return snapshot_op(d, name, d->drv->snapshot_create, err);
}

int vdisk_snapshot_apply(struct vdisk *d, const char *name, struct vdisk_error *err)
{
	return snapshot_op(d, name, d->drv->snapshot_apply, err);
}

int vdisk_snapshot_delete(struct vdisk *d, const char *name, struct vdisk_error *err)
{
	return snapshot_op(d, name, d->drv->snapshot_delete, err);
}

int vdisk_set_backing(struct vdisk *d, const char *backing, const char *backing_format,
		      struct vdisk_error *err)
{
	int r = need(d, d->drv->set_backing, true, "have a backing file", err);

	if (r < 0)
		return r;
	control_begin(d);
	r = d->drv->set_backing(d, backing, backing_format, err);
	control_end(d);
	return r;
}

int vdisk_amend(struct vdisk *d, const struct vdisk_option *options, unsigned n,
		struct vdisk_error *err)
{
	int r = need(d, d->drv->amend, true, "be amended", err);

	if (r == 0)
		r = vd_check_options(d->drv, options, n, err);
	if (r < 0)
		return r;
	control_begin(d);
	r = d->drv->amend(d, options, n, err);
	control_end(d);
	return r;
}

/* ---- info ---- */

struct vd_info_sink {
	int (*each)(void *arg, const struct vdisk_info_item *item);
	void *arg;
	int stopped;
};

static void info_put(struct vd_info_sink *s, const struct vdisk_info_item *item)
{
	if (!s->stopped)
		s->stopped = s->each(s->arg, item);
}

void vd_info_string(struct vd_info_sink *s, const char *key, const char *fmt, ...)
{
	char text[1100];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	info_put(s, &(struct vdisk_info_item) { key, VDISK_INFO_STRING, text, 0 });
}

void vd_info_uint(struct vd_info_sink *s, const char *key, uint64_t v)
{
	info_put(s, &(struct vdisk_info_item) { key, VDISK_INFO_UINT, NULL, v });
}

void vd_info_bool(struct vd_info_sink *s, const char *key, bool v)
{
	info_put(s, &(struct vdisk_info_item) { key, VDISK_INFO_BOOL, NULL, v });
}

int vdisk_info(struct vdisk *d, int (*each)(void *arg, const struct vdisk_info_item *item),
	       void *arg)
{
	struct vd_info_sink sink = { .each = each, .arg = arg };

	if (d->drv->info)
		d->drv->info(d, &sink);
	return sink.stopped;
}
