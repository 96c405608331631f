/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.c - another size for the disk, or nothing left in it
 *
 * Growing: a larger L1 table at a new place if the old one is too small, then
 * the header; what comes into view is made to read as zeroes first (old bytes
 * behind the end in the last cluster, a backing disk that goes on).
 * Shrinking: clusters behind the new end are dropped, and the file is cut off
 * behind the last cluster in use.
 *
 * Emptying: all clusters are dropped, so that the backing disk shows everywhere.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/qcow2/state.h"

/* The arrays in memory, with room for @n entries. */
static int grow_arrays(struct qcow2 *q, uint32_t n)
{
	struct qcow2_table **l2;
	uint64_t *l1 = realloc(q->l1, n * UINT64_C(8));

	if (!l1)
		return -ENOMEM;
	q->l1 = l1;
	l2 = realloc(q->l2, (n + 1) * sizeof(struct qcow2_table *));
	if (!l2)
		return -ENOMEM;
	q->l2 = l2;
	memset(l1 + q->h.l1_size, 0, (n - q->h.l1_size) * UINT64_C(8));
	memset(l2 + q->h.l1_size, 0, (n + 1 - q->h.l1_size) * sizeof(struct qcow2_table *));
	return 0;
}

/* An L1 table with @n entries, at a new place; the old one is free. */
static int grow_l1(struct qcow2 *q, uint32_t n)
{
	uint64_t bytes = vd_align_up(n * UINT64_C(8), q->cluster_size), first;
	AUTO_FREE uint8_t *buf = calloc(1, bytes);
	uint64_t old = q->h.l1_offset, old_n = vd_align_up(q->h.l1_size * UINT64_C(8),
							   q->cluster_size) >> q->cluster_bits;
	int r;

	if (!buf)
		return -ENOMEM;
	r = grow_arrays(q, n);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++)
		store_be64(buf + i * UINT64_C(8), q->l1[i]);
	pthread_mutex_lock(&q->lock);
	r = qcow2_alloc_run(q, bytes >> q->cluster_bits, &first);
	pthread_mutex_unlock(&q->lock);
	if (r == 0)
		r = vd_pwrite(q->file, buf, bytes, first << q->cluster_bits);
	if (r == 0)
		r = qcow2_settle(q);
	if (r < 0)
		return r;
	q->h.l1_offset = first << q->cluster_bits;
	q->h.l1_size = n;
	r = qcow2_poke_header(q);
	if (r == 0)
		r = vd_flush(q->file);
	if (r < 0) {	/* which one the medium has, we do not know */
		atomic_store(&q->disk->failed, true);
		return r;
	}
	pthread_mutex_lock(&q->lock);
	if (old_n)
		qcow2_free(q, old >> q->cluster_bits, old_n, false);
	pthread_mutex_unlock(&q->lock);
	return 0;
}

/* Make [off, end) of the drained disk read as zeroes. */
static int hide(struct vdisk *disk, uint64_t off, uint64_t end)
{
	while (off < end) {
		struct vd_extent ext = { 0 };
		int r = qcow2_map(disk, off, end - off, VD_MAP_ZERO, VD_MAP_UNMAP, &ext);

		if (r == 0 && ext.kind == VD_COPY)
			r = vd_write_zeroes(disk, off, ext.len);
		if (r < 0)
			return r;
		off += ext.len;
	}
	return 0;
}

static int grow(struct qcow2 *q, uint64_t length)
{
	uint64_t needed = qcow2_l1_needed(&q->h, length), old = q->h.size;
	uint64_t end = MIN(length, vd_align_up(old, q->cluster_size));
	struct vdisk *disk = q->disk;
	uint64_t below = disk->backing ? atomic_load(&disk->backing->size) : 0;
	int r = 0;

	/* what a longer backing disk has there must not show */
	below = MIN(length, below);
	end = MAX(end, below);
	if (disk->data && atomic_load(&disk->data->size) < length)
		r = vd_truncate(disk->data, length);
	/* entries behind the end: VM state, or leftovers */
	if (r == 0)
		r = qcow2_drop(q, vd_align_up(old, q->cluster_size), length);
	if (r == 0 && needed > q->h.l1_size)
		r = grow_l1(q, (uint32_t)needed);
	if (r < 0)
		return r;
	/* zeroes first: the header does not show the new part yet */
	atomic_store(&disk->size, length);
	r = hide(disk, old, end);
	if (r == 0)
		r = qcow2_settle(q);
	q->h.size = length;
	if (r == 0)
		r = qcow2_poke_header(q);
	if (r == 0)
		r = vd_flush(q->file);
	if (r < 0) {
		atomic_store(&disk->size, old);
		q->h.size = old;
	}
	return r;
}

/* Cut the file behind the last cluster that is in use; only a saving. */
static void trim_file(struct qcow2 *q)
{
	uint64_t size = atomic_load(&q->file->size), end;

	pthread_mutex_lock(&q->lock);
	if (q->file->grows && qcow2_last_used(q, &end) == 0) {
		end = (end + 1) << q->cluster_bits;
		if (end < size && vd_truncate(q->file, end) == 0)
			q->fresh_from = end;
	}
	pthread_mutex_unlock(&q->lock);
}

static int shrink(struct qcow2 *q, uint64_t length)
{
	uint64_t old = q->h.size;
	struct vdisk *disk = q->disk;
	int r;

	/* the header first: behind the new end nothing is promised any more */
	q->h.size = length;
	r = qcow2_poke_header(q);
	if (r == 0)
		r = vd_flush(q->file);
	if (r < 0) {
		q->h.size = old;
		return r;
	}
	atomic_store(&disk->size, length);
	r = qcow2_drop(q, vd_align_up(length, q->cluster_size), old);
	if (r == 0)
		r = qcow2_settle(q);
	if (r == 0)
		trim_file(q);
	if (r == 0 && q->data_raw)
		r = vd_truncate(disk->data, length);
	return r;
}

int qcow2_resize(struct vdisk *disk, uint64_t length, struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	int r;

	if (length > INT64_MAX - 511)
		return vd_fail(err, EFBIG, "%s: %" PRIu64 " bytes is too large", disk->name, length);
	length = vd_align_up(length, 512);
	if (length == q->h.size)
		return 0;
	if (qcow2_l1_needed(&q->h, length) > QCOW2_MAX_L1_BYTES / 8)
		return vd_fail(err, EFBIG, "%s: %" PRIu64
			       " bytes is too large for clusters of %" PRIu64 " bytes", disk->name,
			       length, q->cluster_size);
	if (q->h.n_snapshots && q->h.version < 3)
		return vd_fail(err, ENOTSUP, "%s: qcow2: a version 2 image with snapshots cannot be resized; amend it to compat=1.1 first",
			       disk->name);
	if (q->h.has_bitmaps && (q->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return vd_fail(err, ENOTSUP, "%s: qcow2: an image with persistent bitmaps cannot be resized; remove them first",
			       disk->name);
	r = qcow2_begin_control(q);
	if (r == 0)
		r = length > q->h.size ? grow(q, length) : shrink(q, length);
	return r < 0 ? vd_fail(err, -r, "%s: qcow2: resizing: %s", disk->name, strerror(-r)) : 0;
}

int qcow2_empty(struct vdisk *disk, struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	int r = qcow2_begin_control(q);

	if (r == 0)
		r = qcow2_drop(q, 0, q->h.size);
	if (r == 0)
		r = qcow2_settle(q);
	if (r == 0)
		trim_file(q);
	return r < 0 ? vd_fail(err, -r, "%s: qcow2: emptying: %s", disk->name, strerror(-r)) : 0;
}
