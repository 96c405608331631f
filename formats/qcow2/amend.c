/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * amend.c - another backing file, other options for an image that exists
 *
 * What can change: the version, lazy refcounts, the refcount width, the
 * backing file, whether the data file is a raw image, the size.  What cannot
 * (cluster size, subclusters, compression type, preallocation) may be stated
 * if it is what the image has.
 */
#include <errno.h>
#include <inttypes.h>
#include <strings.h>

#include "formats/qcow2/state.h"

/* Nothing dirty; then the whole header, durably. */
static int rewrite_header(struct qcow2 *q, struct vdisk_error *err)
{
	int r = qcow2_settle(q);

	if (r == 0)
		r = qcow2_header_write(&q->h, q->file, err);
	else
		return vd_fail(err, -r, "%s: qcow2: writing the metadata: %s", q->disk->name,
			       strerror(-r));
	if (r == 0)
		r = vd_flush(q->file);
	return r;
}

static int replace(char **at, const char *s)
{
	char *copy = s ? strdup(s) : NULL;

	if (s && !copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

int qcow2_set_backing(struct vdisk *disk, const char *name, const char *format,
		      struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	struct qcow2_header trial = q->h;
	AUTO_FREE uint8_t *buf = NULL;
	int r;

	if (name && !*name)
		name = NULL;
	if (name && strlen(name) > QCOW2_MAX_BACKING_NAME)
		return vd_fail(err, ENAMETOOLONG, "%s: qcow2: the backing file's name is longer than 1023 bytes",
			       disk->name);
	if (name && !format)
		return vd_fail(err, EINVAL, "%s: qcow2: a backing file needs its format stated",
			       disk->name);
	if (name && q->data_raw)
		return vd_fail(err, EINVAL, "%s: qcow2: a raw data file and a backing file exclude each other",
			       disk->name);
	/* does it fit?  Only then change anything */
	buf = malloc(q->cluster_size);
	if (!buf)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	trial.backing_name = (char *)(uintptr_t)name;
	trial.backing_format = name ? (char *)(uintptr_t)format : NULL;
	r = qcow2_header_encode(&trial, buf, q->cluster_size, err);
	if (r < 0)
		return r;
	if (replace(&q->h.backing_name, name) < 0 ||
	    replace(&q->h.backing_format, name ? format : NULL) < 0 ||
	    replace(&disk->backing_name, name) < 0 ||
	    replace(&disk->backing_format, name ? format : NULL) < 0)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	return rewrite_header(q, err);
}

/* ---- the refcount width ---- */

struct refcounts {
	uint64_t start;		/* the new structures begin at this cluster */
	uint64_t table, blocks;	/* clusters */
	unsigned order;
};

static void plan_refcounts(const struct qcow2 *q, struct refcounts *rc)
{
	uint64_t per = UINT64_C(1) << (q->cluster_bits + 3 - rc->order), last;

	rc->table = rc->blocks = 0;
	do {
		last = rc->table + rc->blocks;
		rc->blocks = (rc->start + last + per - 1) / per;
		rc->table = (rc->blocks + q->cluster_size / 8 - 1) / (q->cluster_size / 8);
	} while (rc->table + rc->blocks != last);
}

static int fill_block(struct qcow2 *q, const struct refcounts *rc, uint64_t b, uint8_t *buf)
{
	uint64_t per = UINT64_C(1) << (q->cluster_bits + 3 - rc->order);
	uint64_t max = rc->order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << rc->order)) - 1;
	uint64_t end = rc->start + rc->table + rc->blocks;

	memset(buf, 0, q->cluster_size);
	for (uint64_t i = 0, c = b * per; i < per && c < end; i++, c++) {
		uint64_t count = 1;
		int r = 0;

		if (c < rc->start)
			do
				r = qcow2_refcount(q, c, false, &count);
			while (r == QCOW2_RETRY);
		if (r < 0)
			return r;
		if (count > max)
			return -ERANGE;
		qcow2_refcount_put(buf, rc->order, i, count);
	}
	return 0;
}

static int write_refcounts(struct qcow2 *q, const struct refcounts *rc)
{
	AUTO_FREE uint8_t *buf = malloc(q->cluster_size);
	uint64_t at = rc->start + rc->table;
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (uint64_t b = 0; r == 0 && b < rc->blocks; b++) {
		pthread_mutex_lock(&q->lock);
		r = fill_block(q, rc, b, buf);
		pthread_mutex_unlock(&q->lock);
		if (r == 0)
			r = vd_pwrite(q->file, buf, q->cluster_size, (at + b) << q->cluster_bits);
	}
	for (uint64_t c = 0, b = 0; r == 0 && c < rc->table; c++) {
		memset(buf, 0, q->cluster_size);
		for (uint64_t i = 0; i < q->cluster_size / 8 && b < rc->blocks; i++, b++)
			store_be64(buf + i * 8, (at + b) << q->cluster_bits);
		r = vd_pwrite(q->file, buf, q->cluster_size, (rc->start + c) << q->cluster_bits);
	}
	return r == 0 ? vd_flush(q->file) : r;
}

/* The header switches to the new structures in one sector; the old ones go. */
static int switch_refcounts(struct qcow2 *q, const struct refcounts *rc, struct vdisk_error *err)
{
	uint64_t *old = STEAL(q->reftable), old_n = q->reftable_entries;
	uint64_t old_off = q->h.reftable_offset, old_clusters = q->h.reftable_clusters;
	int r;

	q->h.reftable_offset = rc->start << q->cluster_bits;
	q->h.reftable_clusters = (uint32_t)rc->table;
	q->h.refcount_order = rc->order;
	r = qcow2_poke_header(q);
	if (r == 0)
		r = vd_flush(q->file);
	if (r == 0) {
		qcow2_unload(q);
		r = qcow2_load(q, NULL);
	}
	if (r < 0) {
		atomic_store(&q->disk->failed, true);
		free(old);
		return vd_fail(err, -r, "%s: qcow2: changing the refcount width: %s", q->disk->name,
			       strerror(-r));
	}
	pthread_mutex_lock(&q->lock);
	qcow2_free(q, old_off >> q->cluster_bits, old_clusters, false);
	for (uint64_t b = 0; b < old_n; b++)
		if (old[b] & QCOW2_REFTABLE_MASK)
			qcow2_free(q, old[b] >> q->cluster_bits, 1, false);
	pthread_mutex_unlock(&q->lock);
	free(old);
	return 0;
}

static int set_refcount_order(struct qcow2 *q, unsigned order, struct vdisk_error *err)
{
	struct refcounts rc = { .order = order };
	uint64_t last = 0;
	int r = qcow2_settle(q);

	if (r == 0) {
		pthread_mutex_lock(&q->lock);
		r = qcow2_last_used(q, &last);
		pthread_mutex_unlock(&q->lock);
	}
	rc.start = MAX(last + 1, vd_align_up(atomic_load(&q->file->size), q->cluster_size) >>
		       q->cluster_bits);
	plan_refcounts(q, &rc);
	if (r == 0 && rc.table << q->cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
		r = -EFBIG;
	if (r == 0)
		r = write_refcounts(q, &rc);
	if (r < 0)
		return vd_fail(err, -r, "%s: qcow2: changing the refcount width: %s", q->disk->name,
			       r == -ERANGE ? "a cluster is used more often than that can count" :
					      strerror(-r));
	return switch_refcounts(q, &rc, err);
}

/* ---- the version ---- */

static int upgrade(struct qcow2 *q, struct vdisk_error *err)
{
	int r = q->h.n_snapshots ? qcow2_snapshots_upgrade(q, err) : 0;

	if (r < 0)
		return r;
	r = qcow2_header_name_features(&q->h, err);
	if (r < 0)
		return r;
	q->h.version = 3;
	q->h.header_length = QCOW2_V3_HEADER;
	r = rewrite_header(q, err);
	if (r < 0)
		atomic_store(&q->disk->failed, true);
	return r;
}

/* Version 2 has no zero clusters: say it another way. */
static int expand_zeroes(struct vdisk *disk)
{
	uint64_t size = atomic_load(&disk->size);

	for (uint64_t off = 0; off < size;) {
		struct vd_extent ext = { 0 };
		int r = qcow2_map(disk, off, size - off, VD_MAP_READ, 0, &ext);

		if (r == 0 && ext.kind == VD_ZERO)
			r = disk->backing_name ? vd_write_zeroes(disk, off, ext.len) :
						 qcow2_drop(disk->priv, off, off + ext.len);
		if (r < 0)
			return r;
		off += ext.len;
	}
	return 0;
}

static int downgrade(struct qcow2 *q, struct vdisk_error *err)
{
	const char *why = NULL;
	int r;

	if (q->h.incompatible & ~QCOW2_INCOMPAT_DIRTY)
		why = "extended L2 entries, a data file or zstd";
	else if (q->h.refcount_order != 4)
		why = "refcounts of other than 16 bits";
	else if (q->h.n_snapshots)
		why = "snapshots (delete them first)";
	else if (q->h.has_bitmaps)
		why = "persistent bitmaps";
	if (why)
		return vd_fail(err, ENOTSUP, "%s: qcow2: cannot become compat=0.10: it has %s",
			       q->disk->name, why);
	r = expand_zeroes(q->disk);
	if (r == 0)
		r = qcow2_settle(q);
	if (r < 0)
		return vd_fail(err, -r, "%s: qcow2: expanding zero clusters: %s", q->disk->name,
			       strerror(-r));
	q->h.version = 2;
	q->h.header_length = QCOW2_V2_HEADER;
	q->h.incompatible = q->h.compatible = q->h.autoclear = 0;
	q->h.unknown_len = 0;
	q->lazy = false;
	r = rewrite_header(q, err);
	if (r < 0)
		atomic_store(&q->disk->failed, true);
	return r;
}

static int set_lazy(struct qcow2 *q, bool on, struct vdisk_error *err)
{
	int r;

	if (q->lazy == on)
		return 0;
	if (q->h.version < 3)
		return vd_fail(err, ENOTSUP, "%s: qcow2: lazy refcounts need compat=1.1",
			       q->disk->name);
	q->h.compatible ^= QCOW2_COMPAT_LAZY_REFCOUNTS;
	q->lazy = on;
	r = qcow2_settle(q);
	if (r == 0)
		r = qcow2_set_dirty(q, on, err);
	return r == 0 ? rewrite_header(q, err) : r;
}

/* ---- options ---- */

/* Options that an image is born with. */
static int check_fixed(const struct qcow2 *q, const struct vdisk_option *o, struct vdisk_error *err)
{
	bool flag = false, same = true;
	uint64_t size = 0;

	if (!strcmp(o->key, "cluster_size"))
		same = vdisk_parse_size(o->value, &size) == 0 && size == q->cluster_size;
	else if (!strcmp(o->key, "extended_l2"))
		same = vd_parse_bool(o->value, &flag) == 0 && flag == q->extl2;
	else if (!strcmp(o->key, "compression_type"))
		same = (q->h.compression == QCOW2_ZSTD) == !strcmp(o->value, "zstd");
	else if (!strcmp(o->key, "data_file"))
		same = q->h.data_file && !strcmp(o->value, q->h.data_file);
	else if (!strcmp(o->key, "preallocation"))
		same = false;
	if (same)
		return 0;
	return vd_fail(err, ENOTSUP, "%s: qcow2: %s of an existing image cannot change; convert it",
		       q->disk->name, o->key);
}

static int amend_flags(struct qcow2 *q, const struct vdisk_option *o, struct vdisk_error *err)
{
	bool on = false;

	if (vd_parse_bool(o->value, &on) < 0)
		return vd_fail(err, EINVAL, "qcow2: '%s' is not a value for %s", o->value, o->key);
	if (!strcmp(o->key, "lazy_refcounts"))
		return set_lazy(q, on, err);
	if (on == q->data_raw)
		return 0;
	if (on)
		return vd_fail(err, ENOTSUP, "%s: qcow2: data_file_raw cannot be turned on later",
			       q->disk->name);
	q->h.autoclear &= ~QCOW2_AUTOCLEAR_DATA_RAW;
	q->data_raw = false;
	return rewrite_header(q, err);
}

static int amend_bits(struct qcow2 *q, const struct vdisk_option *o, struct vdisk_error *err)
{
	uint64_t bits = 0;

	if (vdisk_parse_size(o->value, &bits) < 0 || !vd_is_pow2(bits) || bits > 64)
		return vd_fail(err, EINVAL, "qcow2: refcount_bits must be 1, 2, 4, 8, 16, 32 or 64");
	if (bits == UINT64_C(1) << q->h.refcount_order)
		return 0;
	if (q->h.version < 3)
		return vd_fail(err, ENOTSUP, "%s: qcow2: compat=0.10 has refcounts of 16 bits only",
			       q->disk->name);
	return set_refcount_order(q, (unsigned)__builtin_ctzll(bits), err);
}

static int amend_compat(struct qcow2 *q, const struct vdisk_option *o, struct vdisk_error *err)
{
	bool v3 = !strcmp(o->value, "1.1") || !strcmp(o->value, "v3");

	if (!v3 && strcmp(o->value, "0.10") && strcmp(o->value, "v2"))
		return vd_fail(err, EINVAL, "qcow2: '%s' is not a value for compat", o->value);
	if (v3 == (q->h.version >= 3))
		return 0;
	return v3 ? upgrade(q, err) : downgrade(q, err);
}

static int amend_size(struct qcow2 *q, const struct vdisk_option *o, struct vdisk_error *err)
{
	uint64_t size = 0;

	if (vdisk_parse_size(o->value, &size) < 0)
		return vd_fail(err, EINVAL, "qcow2: '%s' is not a size", o->value);
	return qcow2_resize(q->disk, size, err);
}

static int amend_one(struct qcow2 *q, const struct vdisk_option *o, const struct vdisk_option *all,
		     unsigned n, struct vdisk_error *err)
{
	if (!strcmp(o->key, "compat"))
		return amend_compat(q, o, err);
	if (!strcmp(o->key, "lazy_refcounts") || !strcmp(o->key, "data_file_raw"))
		return amend_flags(q, o, err);
	if (!strcmp(o->key, "refcount_bits"))
		return amend_bits(q, o, err);
	if (!strcmp(o->key, "size"))
		return amend_size(q, o, err);
	if (!strcmp(o->key, "backing_file")) {
		const char *format = vd_option(all, n, "backing_fmt");

		return qcow2_set_backing(q->disk, o->value, format ? format : q->h.backing_format,
					 err);
	}
	if (!strcmp(o->key, "backing_fmt"))
		return vd_option(all, n, "backing_file") || !q->h.backing_name ? 0 :
		       qcow2_set_backing(q->disk, q->disk->backing_name, o->value, err);
	return check_fixed(q, o, err);
}

int qcow2_amend(struct vdisk *disk, const struct vdisk_option *options, unsigned n,
		struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	int r = 0;

	/* refuse before anything is done */
	for (unsigned i = 0; i < n; i++) {
		r = check_fixed(q, &options[i], err);
		if (r < 0)
			return r;
	}
	r = qcow2_begin_control(q);
	if (r < 0)
		return vd_fail(err, -r, "%s: qcow2: writing the header: %s", disk->name,
			       strerror(-r));
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = amend_one(q, &options[i], options, n, err);
	return r;
}
