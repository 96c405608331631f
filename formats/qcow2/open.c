/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * open.c - the qcow2 driver: opening, closing, what there is to know
 *
 * Opening reads the header, the L1 table and the refcount table; everything
 * else comes in when it is needed.  Before the first write the image is told
 * about it: unknown autoclear bits go, bitmaps that do not see the write are
 * marked, and with lazy refcounts the dirty bit is set.
 *
 * Refused: encryption, features we do not know, writing to an image that is
 * marked corrupt.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/qcow2/state.h"

/* Versions that we do not know too: what would be a raw disk then is not one. */
static int probe(const uint8_t *head, size_t len, uint64_t size)
{
	(void)size;
	return len >= 8 && load_be32(head) == QCOW2_MAGIC ? 100 : 0;
}

/* ---- tables ---- */

static int read_table(struct qcow2 *q, uint64_t **out, uint64_t n, uint64_t off,
		      const char *what, struct vdisk_error *err)
{
	AUTO_FREE uint64_t *t = calloc(MAX(n, UINT64_C(1)), 8);
	int r;

	if (!t)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	r = vd_pread_pad(q->file, t, n * 8, off);
	if (r < 0)
		return vd_fail(err, -r, "%s: qcow2: reading the %s: %s", q->disk->name, what,
			       strerror(-r));
	for (uint64_t i = 0; i < n; i++)
		t[i] = load_be64(&t[i]);
	*out = STEAL(t);
	return 0;
}

static void derive(struct qcow2 *q)
{
	const struct qcow2_header *h = &q->h;

	q->cluster_bits = h->cluster_bits;
	q->cluster_size = qcow2_cluster_size(h);
	q->entry_bits = qcow2_l2_entry_bits(h);
	q->span_bits = qcow2_l1_span_bits(h);
	q->extl2 = qcow2_extended_l2(h);
	q->sub_bits = q->extl2 ? h->cluster_bits - 5 : h->cluster_bits;
	q->block_bits = qcow2_refblock_bits(h);
	q->data_file = h->incompatible & QCOW2_INCOMPAT_DATA_FILE;
	q->data_raw = q->data_file && (h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
	q->lazy = h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
	q->codec = h->compression == QCOW2_ZSTD ? &qcow2_zstd : &qcow2_deflate;
	q->max_tables = MAX(QCOW2_CACHE_BYTES / (q->cluster_size + sizeof(struct qcow2_table)),
			    UINT64_C(8));
}

int qcow2_load(struct qcow2 *q, struct vdisk_error *err)
{
	uint64_t entries;
	int r;

	derive(q);
	TAILQ_INIT(&q->dirty);
	r = qcow2_header_fits(&q->h, atomic_load(&q->file->size), err);
	if (r < 0)
		return r;
	r = read_table(q, &q->l1, q->h.l1_size, q->h.l1_offset, "L1 table", err);
	if (r < 0)
		return r;
	q->l2 = calloc(q->h.l1_size + 1, sizeof(struct qcow2_table *));
	if (!q->l2)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	if (q->writable) {
		entries = (uint64_t)q->h.reftable_clusters << (q->cluster_bits - 3);
		r = read_table(q, &q->reftable, entries, q->h.reftable_offset, "refcount table",
			       err);
		if (r < 0)
			return r;
		q->blocks = calloc(entries, sizeof(struct qcow2_table *));
		if (!q->blocks)
			return vd_fail(err, ENOMEM, "qcow2: out of memory");
		q->reftable_entries = (uint32_t)entries;
	}
	q->fresh_from = vd_align_up(atomic_load(&q->file->size), q->cluster_size);
	q->txn = 1;
	return 0;
}

void qcow2_unload(struct qcow2 *q)
{
	while (q->n_tables)
		qcow2_table_drop(q, q->tables[0]);
	free(q->tables);
	free(q->l1);
	free(q->l2);
	free(q->reftable);
	free(q->blocks);
	free(q->freed);
	q->tables = q->l2 = q->blocks = NULL;
	q->l1 = q->reftable = NULL;
	q->freed = NULL;
	q->tables_space = q->freed_space = q->n_freed = q->hand = 0;
	q->reftable_entries = 0;
	q->l1_dirty_lo = q->l1_dirty_hi = q->reftable_dirty_lo = q->reftable_dirty_hi = 0;
	q->reftable_grown = false;
	q->hint = q->byte_off = 0;
	q->txn = q->written_txn = q->durable_txn = 0;
}

/* ---- header changes in operation ---- */

int qcow2_poke_header(struct qcow2 *q)
{
	uint8_t p[512];
	int r = vd_pread_pad(q->file, p, sizeof(p), 0);

	if (r < 0)
		return r;
	qcow2_header_encode_changing(&q->h, p);
	return vd_pwrite(q->file, p, sizeof(p), 0);
}

static int set_dirty(struct qcow2 *q, bool dirty)
{
	uint64_t old = q->h.incompatible;
	int r;

	if (q->h.version < 3 || !(old & QCOW2_INCOMPAT_DIRTY) == !dirty)
		return 0;
	q->h.incompatible = dirty ? old | QCOW2_INCOMPAT_DIRTY : old & ~QCOW2_INCOMPAT_DIRTY;
	r = qcow2_poke_header(q);
	if (r == 0)
		r = vd_flush(q->file);
	if (r < 0)
		q->h.incompatible = old;
	return r;
}

int qcow2_set_dirty(struct qcow2 *q, bool dirty, struct vdisk_error *err)
{
	int r = set_dirty(q, dirty);

	if (r < 0)
		return vd_fail(err, -r, "%s: qcow2: writing the header: %s", q->disk->name,
			       strerror(-r));
	return 0;
}

/* Without the lock: what must stand on the medium before the first write. */
static int first_write(struct qcow2 *q)
{
	uint64_t unknown = q->h.autoclear & ~QCOW2_AUTOCLEAR_KNOWN;
	int r;

	r = qcow2_bitmaps_in_use(q);
	if (r < 0)
		return r;
	if (unknown) {
		q->h.autoclear &= ~unknown;
		r = qcow2_poke_header(q);
		if (r == 0)
			r = vd_flush(q->file);
		if (r < 0) {
			q->h.autoclear |= unknown;
			return r;
		}
	}
	return q->lazy ? set_dirty(q, true) : 0;
}

int qcow2_begin(struct qcow2 *q, bool nowait)
{
	int r;

	if (atomic_load(&q->began))
		return 0;
	if (nowait)
		return -EAGAIN;
	if (!q->writable)
		return -EROFS;
	if (q->beginning) {
		pthread_cond_wait(&q->cond, &q->lock);
		return QCOW2_RETRY;
	}
	q->beginning = true;
	pthread_mutex_unlock(&q->lock);
	r = first_write(q);
	pthread_mutex_lock(&q->lock);
	q->beginning = false;
	if (r == 0)
		atomic_store(&q->began, true);
	pthread_cond_broadcast(&q->cond);
	return r < 0 ? r : QCOW2_RETRY;
}

int qcow2_begin_control(struct qcow2 *q)
{
	int r;

	pthread_mutex_lock(&q->lock);
	do
		r = qcow2_begin(q, false);
	while (r == QCOW2_RETRY);
	pthread_mutex_unlock(&q->lock);
	return r < 0 ? r : qcow2_settle(q);
}

/* ---- opening ---- */

/* What the header says about other files and about trust. */
static int open_data(struct vd_open_ctx *ctx, struct qcow2 *q, struct vdisk_error *err)
{
	int r;

	if (!(q->h.incompatible & QCOW2_INCOMPAT_DATA_FILE))
		return 0;
	if (!q->h.data_file)
		return vd_fail(err, EINVAL, "%s: qcow2: the image does not name its data file",
			       q->disk->name);
	r = vd_open_ref(ctx, &q->disk->data, q->h.data_file, "raw", q->writable, err);
	if (r < 0 || !q->writable || atomic_load(&q->disk->data->size) >= q->h.size)
		return r;
	r = vd_truncate(q->disk->data, q->h.size);
	return r == 0 ? 0 : vd_fail(err, -r, "%s: the data file is too short: %s",
				    q->disk->data->name, strerror(-r));
}

static int open_backing(struct vd_open_ctx *ctx, struct qcow2 *q, struct vdisk_error *err)
{
	struct vdisk *disk = q->disk;

	if (!q->h.backing_name)
		return 0;
	disk->backing_name = strdup(q->h.backing_name);
	if (q->h.backing_format)
		disk->backing_format = strdup(q->h.backing_format);
	if (!disk->backing_name || (q->h.backing_format && !disk->backing_format))
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	if (disk->flags & VDISK_OPEN_NO_BACKING)
		return 0;
	/* Where the image does not say, the backing file is raw: what a guest
	 * wrote into it must not make it something else. */
	return vd_open_ref(ctx, &disk->backing, q->h.backing_name,
			   q->h.backing_format ? q->h.backing_format : "raw", false, err);
}

static int check_marks(struct qcow2 *q, struct vdisk_error *err)
{
	if (!q->writable)
		return 0;
	if ((q->h.incompatible & QCOW2_INCOMPAT_CORRUPT) && !(q->disk->flags & VDISK_OPEN_CHECK))
		return vd_fail(err, EROFS, "%s: qcow2: the image is marked corrupt: open it read-only, or repair it with check",
			       q->disk->name);
	return 0;
}

/* Writing an image whose refcounts may be wrong begins with putting them right. */
static int repair_dirty(struct qcow2 *q, struct vdisk_error *err)
{
	struct vdisk_check_result res;
	int r;

	if (!q->writable || !(q->h.incompatible & QCOW2_INCOMPAT_DIRTY) ||
	    (q->disk->flags & VDISK_OPEN_CHECK))
		return 0;
	r = qcow2_check_file(q->file, q->disk->data, VDISK_CHECK_REPAIR | QCOW2_CHECK_KEEP_ENTRIES,
			     &res, NULL, NULL, err);
	if (r < 0)
		return vd_fail_prefix(err, r, "%s: repairing an image that was not closed",
				      q->disk->name);
	qcow2_header_clear(&q->h);
	r = qcow2_header_read(&q->h, q->file, err);
	if (r == 0 && (q->h.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT)))
		return vd_fail(err, EIO, "%s: qcow2: the image was not closed, and is damaged; "
			       "look at it with check, and repair it with check --repair",
			       q->disk->name);
	return r;
}

/* The snapshot's tables in place of the active ones, read-only. */
static int enter_snapshot(struct qcow2 *q, const char *name, struct vdisk_error *err)
{
	struct qcow2_snapshot *all, *s;
	uint64_t bytes, needed;
	int r = qcow2_snapshots_read(&q->h, q->file, &all, &bytes, err);

	if (r < 0)
		return r;
	s = qcow2_snapshot_find(all, q->h.n_snapshots, name);
	if (!s) {
		r = vd_fail(err, ENOENT, "%s: qcow2: there is no snapshot '%s'", q->disk->name,
			    name);
	} else {
		needed = qcow2_l1_needed(&q->h, s->disk_size);
		q->h.size = s->disk_size;
		q->h.l1_offset = s->l1_offset;
		q->h.l1_size = s->l1_size;
		if (needed > s->l1_size)
			r = vd_fail(err, EINVAL, "%s: qcow2: the L1 table of snapshot '%s' is too small",
				    q->disk->name, name);
	}
	qcow2_snapshots_free(all, q->h.n_snapshots);
	return r;
}

static void destroy(struct qcow2 *q)
{
	qcow2_unload(q);
	qcow2_header_clear(&q->h);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->cond);
	free(q);
}

static int open_image(struct vd_open_ctx *ctx, struct qcow2 *q, struct vdisk_error *err)
{
	int r = qcow2_header_read(&q->h, q->file, err);

	if (r == 0)
		r = qcow2_header_usable(&q->h, err);
	if (r < 0)
		return vd_fail_prefix(err, r, "%s", q->disk->name);
	r = check_marks(q, err);
	if (r == 0)
		r = open_data(ctx, q, err);
	if (r == 0)
		r = repair_dirty(q, err);
	if (r == 0 && ctx->snapshot)
		r = enter_snapshot(q, ctx->snapshot, err);
	if (r == 0)
		r = qcow2_load(q, err);
	if (r == 0)
		r = open_backing(ctx, q, err);
	return r;
}

static int qcow2_open(struct vd_open_ctx *ctx, struct vdisk_error *err)
{
	struct vdisk *disk = ctx->disk;
	struct qcow2 *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	q->disk = disk;
	q->file = disk->file;
	q->writable = (disk->flags & VDISK_OPEN_WRITE) && !ctx->snapshot;
	TAILQ_INIT(&q->dirty);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->cond, NULL);
	r = open_image(ctx, q, err);
	if (r < 0) {
		/* the core closes what is in disk->data and disk->backing */
		destroy(q);
		return r;
	}
	atomic_store(&disk->size, q->h.size);
	disk->unit = q->cluster_size;
	disk->priv = q;
	return 0;
}

/* The last coded cluster may end anywhere; other programs want whole sectors. */
static int pad_file(struct qcow2 *q)
{
	uint64_t size = atomic_load(&q->file->size);

	return size % 512 ? vd_truncate(q->file, vd_align_up(size, 512)) : 0;
}

static int write_back(struct qcow2 *q)
{
	int r = 0;

	if (!q->writable || atomic_load(&q->disk->failed))
		return 0;
	if (atomic_load(&q->began)) {
		r = qcow2_settle(q);
		if (r == 0)
			r = pad_file(q);
		if (r == 0)
			r = set_dirty(q, false);
	}
	return r;
}

static int qcow2_close(struct vdisk *disk, struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	int r = write_back(q);

	if (r < 0)
		r = vd_fail(err, -r, "%s: qcow2: writing the metadata: %s", disk->name,
			    strerror(-r));
	destroy(q);
	disk->priv = NULL;
	return r;
}

static const struct vd_codec *qcow2_codec(struct vdisk *disk, int *level)
{
	struct qcow2 *q = disk->priv;

	*level = 0;
	return q->data_file ? NULL : q->codec;
}

/* ---- check and info ---- */

static int qcow2_check(struct vdisk *disk, unsigned flags, struct vdisk_check_result *out,
		       void (*report)(void *arg, const char *finding), void *arg,
		       struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	int r = 0;

	if (atomic_load(&q->began))
		r = qcow2_settle(q);
	if (r == 0)
		r = qcow2_check_file(q->file, disk->data, flags, out, report, arg, err);
	if (r < 0 || !flags)
		return r;
	/* what we had in memory may be wrong now */
	qcow2_unload(q);
	qcow2_header_clear(&q->h);
	r = qcow2_header_read(&q->h, q->file, err);
	if (r == 0)
		r = qcow2_load(q, err);
	if (r < 0)
		atomic_store(&disk->failed, true);
	return r;
}

static void qcow2_info(struct vdisk *disk, struct vd_info_sink *sink)
{
	struct qcow2 *q = disk->priv;
	const struct qcow2_header *h = &q->h;

	vd_info_uint(sink, "cluster-size", q->cluster_size);
	vd_info_string(sink, "compat", "%s", h->version >= 3 ? "1.1" : "0.10");
	vd_info_string(sink, "compression-type", "%s",
		       h->compression == QCOW2_ZSTD ? "zstd" : "zlib");
	vd_info_bool(sink, "lazy-refcounts", q->lazy);
	vd_info_uint(sink, "refcount-bits", UINT64_C(1) << h->refcount_order);
	vd_info_bool(sink, "corrupt", h->incompatible & QCOW2_INCOMPAT_CORRUPT);
	vd_info_bool(sink, "dirty", h->incompatible & QCOW2_INCOMPAT_DIRTY);
	vd_info_bool(sink, "extended-l2", q->extl2);
	if (q->data_file) {
		vd_info_string(sink, "data-file", "%s", h->data_file ? h->data_file : "");
		vd_info_bool(sink, "data-file-raw", q->data_raw);
	}
	vd_info_uint(sink, "snapshots", h->n_snapshots);
	if (h->has_bitmaps) {
		vd_info_uint(sink, "bitmaps", h->n_bitmaps);
		vd_info_bool(sink, "bitmaps-consistent",
			     h->autoclear & QCOW2_AUTOCLEAR_BITMAPS);
	}
}

static const char *const options[] = {
	"cluster_size\t512 ... 2M\tcluster size (64K)",
	"compat\t0.10|1.1\tversion 2 or 3 of the format (1.1)",
	"backing_file\tNAME\tbacking file",
	"backing_fmt\tFORMAT\tformat of the backing file",
	"lazy_refcounts\ton|off\tpostpone refcount updates, repair after a crash (off)",
	"refcount_bits\t1|2|4|8|16|32|64\twidth of a refcount (16)",
	"extended_l2\ton|off\tsubclusters: 32 in a cluster (off)",
	"compression_type\tzlib|zstd\tof compressed clusters (zlib)",
	"data_file\tNAME\tkeep the guest's data in this raw file",
	"data_file_raw\ton|off\tthe data file is a valid raw image by itself (off)",
	"preallocation\toff|metadata|falloc|full\twhat to allocate now (off)",
	"size\tSIZE\tvirtual size",
	NULL
};

const struct vd_driver vd_qcow2 = {
	.name = "qcow2",
	.options = options,
	.probe = probe,
	.open = qcow2_open,
	.create = qcow2_create,
	.close = qcow2_close,
	.map = qcow2_map,
	.commit = qcow2_commit,
	.flush = qcow2_flush,
	.codec = qcow2_codec,
	.resize = qcow2_resize,
	.empty = qcow2_empty,
	.check = qcow2_check,
	.snapshot_list = qcow2_snapshot_list,
	.snapshot_create = qcow2_snapshot_create,
	.snapshot_apply = qcow2_snapshot_apply,
	.snapshot_delete = qcow2_snapshot_delete,
	.set_backing = qcow2_set_backing,
	.amend = qcow2_amend,
	.info = qcow2_info,
	.measure = qcow2_measure,
};
