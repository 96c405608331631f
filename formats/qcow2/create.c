/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create.c - new images, and how large they will be
 *
 * A new image is laid out without gaps,
 *
 *	header, refcount table, refcount blocks, L1 table [, L2 tables, data]
 *
 * so every refcount up to its end is one.  The parts in brackets are there with
 * preallocation.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "formats/qcow2/state.h"

enum prealloc { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct layout {
	struct qcow2_header h;
	enum prealloc prealloc;
	uint64_t reftable, blocks, l1, l2, data; /* clusters */
	uint64_t total;
};

/* ---- options ---- */

struct wanted {
	const struct vdisk_option *o;
	unsigned n;
	struct vdisk_error *err;
	int r;
};

static void refuse(struct wanted *w, const char *key, const char *value)
{
	if (w->r == 0)
		w->r = vd_fail(w->err, EINVAL, "qcow2: '%s' is not a value for %s", value, key);
}

static bool want_bool(struct wanted *w, const char *key)
{
	const char *v = vd_option(w->o, w->n, key);
	bool out = false;

	if (v && vd_parse_bool(v, &out) < 0)
		refuse(w, key, v);
	return out;
}

static uint64_t want_size(struct wanted *w, const char *key, uint64_t def)
{
	const char *v = vd_option(w->o, w->n, key);
	uint64_t out = def;

	if (v && vdisk_parse_size(v, &out) < 0)
		refuse(w, key, v);
	return out;
}

/* The index of the option's value in @values, whose first one is the default. */
static unsigned want_choice(struct wanted *w, const char *key, const char *const *values)
{
	const char *v = vd_option(w->o, w->n, key);

	for (unsigned i = 0; v && values[i]; i++)
		if (!strcmp(v, values[i]))
			return i;
	if (v)
		refuse(w, key, v);
	return 0;
}

static int fail(struct wanted *w, const char *what)
{
	return w->r < 0 ? w->r : vd_fail(w->err, EINVAL, "qcow2: %s", what);
}

/* The options that decide about the layout. */
static int parse_layout(struct layout *l, const struct vdisk_option *o, unsigned n,
			struct vdisk_error *err)
{
	static const char *const compat[] = { "1.1", "v3", "0.10", "v2", NULL };
	static const char *const compression[] = { "zlib", "deflate", "zstd", NULL };
	static const char *const prealloc[] = { "off", "metadata", "falloc", "full", NULL };
	struct wanted w = { .o = o, .n = n, .err = err };
	uint64_t cluster = want_size(&w, "cluster_size", 65536);
	uint64_t bits = want_size(&w, "refcount_bits", 16);
	bool lazy = want_bool(&w, "lazy_refcounts"), extl2 = want_bool(&w, "extended_l2");
	struct qcow2_header *h = &l->h;

	h->version = want_choice(&w, "compat", compat) < 2 ? 3 : 2;
	h->compression = want_choice(&w, "compression_type", compression) == 2;
	l->prealloc = want_choice(&w, "preallocation", prealloc);
	h->header_length = h->version == 2 ? QCOW2_V2_HEADER : QCOW2_V3_HEADER;
	if (w.r < 0)
		return w.r;
	if (!vd_is_pow2(cluster) || cluster < 1u << QCOW2_MIN_CLUSTER_BITS ||
	    cluster > 1u << QCOW2_MAX_CLUSTER_BITS)
		return fail(&w, "the cluster size must be a power of two from 512 to 2M");
	h->cluster_bits = (uint32_t)__builtin_ctzll(cluster);
	if (!vd_is_pow2(bits) || bits > 64)
		return fail(&w, "refcount_bits must be 1, 2, 4, 8, 16, 32 or 64");
	h->refcount_order = (uint32_t)__builtin_ctzll(bits);
	if (h->version == 2 && (bits != 16 || lazy || extl2 || h->compression))
		return fail(&w, "compat=0.10 has no lazy_refcounts, extended_l2, zstd, or refcounts of other than 16 bits");
	if (extl2 && h->cluster_bits < QCOW2_MIN_SUBCLUSTER_CLUSTER_BITS)
		return fail(&w, "extended_l2 needs clusters of at least 16K");
	h->compatible = lazy ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
	h->incompatible = (extl2 ? QCOW2_INCOMPAT_EXTL2 : 0) |
			  (h->compression ? QCOW2_INCOMPAT_COMPRESSION : 0);
	return 0;
}

static int set_string(char **out, const char *s, struct vdisk_error *err)
{
	if (!s || !*s)
		return 0;
	*out = strdup(s);
	return *out ? 0 : vd_fail(err, ENOMEM, "qcow2: out of memory");
}

/* The options that name other files. */
static int parse_names(struct layout *l, const struct vdisk_create_opts *opts,
		       struct vdisk_error *err)
{
	const struct vdisk_option *o = opts->options;
	struct wanted w = { .o = o, .n = opts->n_options, .err = err };
	const char *backing = opts->backing, *format = opts->backing_format;
	bool raw = want_bool(&w, "data_file_raw");
	struct qcow2_header *h = &l->h;
	int r;

	if (!backing)
		backing = vd_option(o, w.n, "backing_file");
	if (!format)
		format = vd_option(o, w.n, "backing_fmt");
	r = set_string(&h->backing_name, backing, err);
	if (r == 0)
		r = set_string(&h->backing_format, h->backing_name ? format : NULL, err);
	if (r == 0)
		r = set_string(&h->data_file, vd_option(o, w.n, "data_file"), err);
	if (r < 0 || w.r < 0)
		return r < 0 ? r : w.r;
	if (h->backing_name && !h->backing_format)
		return fail(&w, "a backing file needs its format stated (backing_fmt)");
	if (h->backing_name && strlen(h->backing_name) > QCOW2_MAX_BACKING_NAME)
		return fail(&w, "the backing file's name is longer than 1023 bytes");
	if (h->data_file && h->version == 2)
		return fail(&w, "compat=0.10 has no external data files");
	if (raw && !h->data_file)
		return fail(&w, "data_file_raw needs a data_file");
	if (raw && h->backing_name)
		return fail(&w, "data_file_raw and a backing file exclude each other");
	if (h->backing_name && l->prealloc && !qcow2_extended_l2(h))
		return fail(&w, "preallocation with a backing file needs extended_l2=on");
	if (h->data_file)
		h->incompatible |= QCOW2_INCOMPAT_DATA_FILE;
	if (raw)
		h->autoclear |= QCOW2_AUTOCLEAR_DATA_RAW;
	return 0;
}

/* ---- layout ---- */

/* Clusters of refcount structures for @used clusters and for themselves. */
static uint64_t refcount_clusters(const struct qcow2_header *h, uint64_t used, uint64_t *blocks,
				  uint64_t *table)
{
	uint64_t last;

	*blocks = *table = 0;
	do {
		last = *blocks + *table;
		*blocks = vd_div_up(used + last, UINT64_C(1) << qcow2_refblock_bits(h));
		*table = vd_div_up(*blocks, qcow2_cluster_size(h) / 8);
	} while (*blocks + *table != last);
	return last;
}

static int place(struct layout *l, uint64_t length, struct vdisk_error *err)
{
	struct qcow2_header *h = &l->h;
	uint64_t cs = qcow2_cluster_size(h), entries, at;

	if (length > INT64_MAX - 511)
		return vd_fail(err, EFBIG, "qcow2: a disk of %" PRIu64 " bytes is too large", length);
	h->size = vd_align_up(length, 512);
	entries = MAX(qcow2_l1_needed(h, h->size), UINT64_C(1));
	if (entries > QCOW2_MAX_L1_BYTES / 8)
		return vd_fail(err, EFBIG, "qcow2: a disk of %" PRIu64
			       " bytes is too large for clusters of %" PRIu64 " bytes", length, cs);
	h->l1_size = (uint32_t)entries;
	l->l1 = vd_div_up(entries * 8, cs);
	if (l->prealloc) {
		l->l2 = qcow2_l1_needed(h, h->size);
		l->data = h->data_file ? 0 : vd_div_up(h->size, cs);
	}
	refcount_clusters(h, 1 + l->l1 + l->l2 + l->data, &l->blocks, &l->reftable);
	if (l->reftable * cs > QCOW2_MAX_REFTABLE_BYTES)
		return vd_fail(err, EFBIG, "qcow2: the refcounts of such an image are too large");
	h->reftable_offset = cs;
	h->reftable_clusters = (uint32_t)l->reftable;
	at = 1 + l->reftable + l->blocks;
	h->l1_offset = at * cs;
	l->total = at + l->l1 + l->l2 + l->data;
	return 0;
}

/* ---- writing ---- */

static int write_refcounts(const struct layout *l, struct vdisk *file, uint8_t *buf)
{
	const struct qcow2_header *h = &l->h;
	uint64_t cs = qcow2_cluster_size(h), per = UINT64_C(1) << qcow2_refblock_bits(h);
	uint64_t first = (1 + l->reftable) * cs;
	int r = 0;

	for (uint64_t c = 0, b = 0; r == 0 && c < l->reftable; c++) {
		memset(buf, 0, cs);
		for (uint64_t i = 0; i < cs / 8 && b < l->blocks; i++, b++)
			store_be64(buf + i * 8, first + b * cs);
		r = vd_pwrite(file, buf, cs, (1 + c) * cs);
	}
	for (uint64_t b = 0, c = 0; r == 0 && b < l->blocks; b++) {
		memset(buf, 0, cs);
		for (uint64_t i = 0; i < per && c < l->total; i++, c++)
			qcow2_refcount_put(buf, h->refcount_order, i, 1);
		r = vd_pwrite(file, buf, cs, first + b * cs);
	}
	return r;
}

static int write_l1(const struct layout *l, struct vdisk *file, uint8_t *buf)
{
	uint64_t cs = qcow2_cluster_size(&l->h), l2 = l->h.l1_offset + l->l1 * cs;
	int r = 0;

	for (uint64_t c = 0, t = 0; r == 0 && c < l->l1; c++) {
		memset(buf, 0, cs);
		for (uint64_t i = 0; i < cs / 8 && t < l->l2; i++, t++)
			store_be64(buf + i * 8, (l2 + t * cs) | QCOW2_COPIED);
		r = vd_pwrite(file, buf, cs, l->h.l1_offset + c * cs);
	}
	return r;
}

/* With extended entries a subcluster is allocated when it is written. */
static int write_l2(const struct layout *l, struct vdisk *file, uint8_t *buf)
{
	const struct qcow2_header *h = &l->h;
	uint64_t cs = qcow2_cluster_size(h), n = vd_div_up(h->size, cs);
	uint64_t l2 = h->l1_offset + l->l1 * cs, data = h->data_file ? 0 : l2 + l->l2 * cs;
	unsigned bits = qcow2_l2_entry_bits(h);
	int r = 0;

	for (uint64_t t = 0, c = 0; r == 0 && t < l->l2; t++) {
		memset(buf, 0, cs);
		for (uint64_t i = 0; i < cs >> bits && c < n; i++, c++)
			store_be64(buf + (i << bits), (data + c * cs) | QCOW2_COPIED);
		r = vd_pwrite(file, buf, cs, l2 + t * cs);
	}
	return r;
}

/* Space for guest data at [off, off + len) of @file, reading as zeroes. */
static int reserve(struct vdisk *file, enum prealloc how, uint64_t off, uint64_t len)
{
	if (!len)
		return 0;
	if (how == PREALLOC_FULL || !file->fresh_zero)
		return vd_write_zeroes(file, off, len);
	if (how == PREALLOC_FALLOC && file->fd >= 0) {
		if (fallocate(file->fd, 0, (off_t)off, (off_t)len) < 0 && errno != EOPNOTSUPP)
			return -errno;
	}
	return vd_truncate(file, off + len);
}

static int write_image(struct layout *l, struct vdisk *file, struct vdisk_error *err)
{
	uint64_t cs = qcow2_cluster_size(&l->h);
	AUTO_FREE uint8_t *buf = malloc(cs);
	int r;

	if (!buf)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	r = qcow2_header_encode(&l->h, buf, cs, err);
	if (r < 0)
		return r;
	r = write_refcounts(l, file, buf);
	if (r == 0)
		r = write_l1(l, file, buf);
	if (r == 0)
		r = write_l2(l, file, buf);
	if (r == 0)
		r = reserve(file, l->prealloc, (l->total - l->data) * cs, l->data * cs);
	if (r < 0)
		return vd_fail(err, -r, "%s: writing the new image: %s", file->name, strerror(-r));
	/* last: until now it is no image */
	return qcow2_header_write(&l->h, file, err);
}

/* ---- other files ---- */

static char *beside(const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	char *path = NULL;

	if (name[0] == '/' || !slash)
		return strdup(name);
	return asprintf(&path, "%.*s/%s", (int)(slash - image), image, name) < 0 ? NULL : path;
}

/* The data file is a new one, or an old one that the caller gave up. */
static int make_data_file(const struct layout *l, struct vdisk *file, bool overwrite,
			  struct vdisk_error *err)
{
	AUTO_FREE char *path = beside(file->name, l->h.data_file);
	AUTO_CLOSE int fd = -1;
	int r;

	if (!path)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (overwrite ? O_TRUNC : O_EXCL), 0666);
	if (fd < 0)
		return vd_fail(err, errno, "%s: creating the data file: %s", path, strerror(errno));
	r = ftruncate(fd, (off_t)l->h.size);
	if (r == 0 && (l->prealloc == PREALLOC_FALLOC || l->prealloc == PREALLOC_FULL))
		r = posix_fallocate(fd, 0, (off_t)MAX(l->h.size, UINT64_C(1))) ? -1 : 0;
	if (r < 0) {
		r = vd_fail(err, errno, "%s: sizing the data file: %s", path, strerror(errno));
		unlink(path);
	}
	return r;
}

static int backing_size(struct vdisk *file, const struct layout *l, enum vdisk_refs refs,
			uint64_t *out, struct vdisk_error *err)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .refs = refs };
	struct vd_open_ctx ctx = { .disk = file, .opts = &o };
	struct vdisk *backing = NULL;
	int r;

	if (!l->h.backing_name)
		return vd_fail(err, EINVAL, "%s: a size or a backing file is needed", file->name);
	file->refs = refs;
	r = vd_open_ref(&ctx, &backing, l->h.backing_name, l->h.backing_format, false, err);
	if (r < 0)
		return r;
	*out = atomic_load(&backing->size);
	vdisk_close(backing, NULL);
	return 0;
}

static int create(struct layout *l, struct vdisk *file, uint64_t length,
		  const struct vdisk_create_opts *opts, struct vdisk_error *err)
{
	const char *size = vd_option(opts->options, opts->n_options, "size");
	int r = parse_layout(l, opts->options, opts->n_options, err);

	if (r == 0)
		r = parse_names(l, opts, err);
	if (r == 0 && l->h.version >= 3)
		r = qcow2_header_name_features(&l->h, err);
	if (r < 0)
		return r;
	if (length == UINT64_MAX && size && vdisk_parse_size(size, &length) < 0)
		return vd_fail(err, EINVAL, "qcow2: '%s' is not a size", size);
	if (length == UINT64_MAX)
		r = backing_size(file, l, opts->refs, &length, err);
	if (r == 0)
		r = place(l, length, err);
	if (r == 0 && l->h.data_file)
		r = make_data_file(l, file, opts->overwrite, err);
	return r == 0 ? write_image(l, file, err) : r;
}

int qcow2_create(struct vdisk *file, uint64_t length, const struct vdisk_create_opts *opts,
		 struct vdisk_error *err)
{
	struct layout l = { 0 };
	int r = create(&l, file, length, opts, err);

	qcow2_header_clear(&l.h);
	return r;
}

/* ---- measuring ---- */

int qcow2_measure(uint64_t length, uint64_t data, const struct vdisk_option *options, unsigned n,
		  uint64_t *required, uint64_t *full, struct vdisk_error *err)
{
	struct layout l = { 0 };
	struct qcow2_header *h = &l.h;
	uint64_t cs, clusters, per_l2, l2, l1, meta, blocks, table;
	int r = parse_layout(&l, options, n, err);

	if (r < 0)
		return r;
	cs = qcow2_cluster_size(h);
	if (length > INT64_MAX - cs)
		return vd_fail(err, EFBIG, "qcow2: a disk of %" PRIu64 " bytes is too large", length);
	clusters = vd_div_up(length, cs);
	per_l2 = UINT64_C(1) << qcow2_l2_bits(h);
	l2 = vd_div_up(clusters, per_l2);
	l1 = vd_div_up(l2 * 8, cs);
	if (l2 * 8 > QCOW2_MAX_L1_BYTES)
		return vd_fail(err, EFBIG, "qcow2: a disk of %" PRIu64
			       " bytes is too large for clusters of %" PRIu64 " bytes", length, cs);
	meta = 1 + l2 + l1;
	meta += refcount_clusters(h, meta + clusters, &blocks, &table);
	*full = (meta + clusters) * cs;
	*required = l.prealloc >= PREALLOC_FALLOC ? *full : meta * cs + MIN(data, clusters * cs);
	return 0;
}
