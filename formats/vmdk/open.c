/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * open.c - the VMDK driver: opening, closing, what there is to know
 *
 * A file begins either as a sparse one or as a descriptor.  Of a sparse file's own
 * descriptor only the content IDs and the parent count: the extent is the file itself,
 * whatever it was called once.
 *
 * Only read: compressed grains (but for a stream-optimized file into which nothing was
 * written yet), version 3, whose owner tracks changes that we would not, and ESX's old
 * sparse files.  Refused: seSparse, raw device mappings, a parent that changed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "formats/vmdk/state.h"

static int probe(const uint8_t *head, size_t len, uint64_t size)
{
	(void)size;
	if (len >= 4 && (load_le32(head) == VMDK_MAGIC || load_le32(head) == COWD_MAGIC))
		return 100;
	/* (what decides about a format is in the first sector: virtio/blk.c guards that) */
	return vmdk_descriptor_begins(head, MIN(len, (size_t)512)) ? 90 : 0;
}

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t off)
{
	unsigned low = 0, high = v->n_x;

	while (high - low > 1) {
		unsigned mid = low + (high - low) / 2;

		if (v->x[mid].start <= off)
			low = mid;
		else
			high = mid;
	}
	return &v->x[low];
}

/* ---- sparse files ---- */

/* The directory of a stream-optimized file is where its footer says. */
static int read_footer(struct vmdk_extent *x, struct vdisk_error *err)
{
	uint64_t size = x->file->size;
	struct vmdk_header footer;
	const char *why = NULL;
	uint8_t p[VMDK_SECTOR];

	/* the footer, and the end marker, which some leave out */
	for (unsigned back = 2; back >= 1; back--) {
		int r = size < back * VMDK_SECTOR ? -EIO :
			vd_pread(x->file, p, sizeof(p), size - back * VMDK_SECTOR);

		if (r < 0 || vmdk_header_decode(&footer, p, &why) < 0 || footer.cowd ||
		    footer.gd_at == VMDK_GD_AT_END)
			continue;
		if (footer.capacity != x->h.capacity || footer.grain != x->h.grain ||
		    footer.gtes != x->h.gtes)
			return vd_fail(err, EINVAL, "%s: vmdk: header and footer contradict each other",
				       x->file->name);
		x->h.gd_at = footer.gd_at;
		return 0;
	}
	return vd_fail(err, EINVAL, "%s: vmdk: the end of the file is missing", x->file->name);
}

/* NULL, errno: it cannot be read, or points out of the file. */
static uint32_t *read_directory(const struct vmdk_extent *x, uint64_t at)
{
	uint64_t bytes = (uint64_t)x->n_gd * 4;
	AUTO_FREE uint32_t *gd = NULL;
	int r = 0;

	if (at > UINT32_MAX || !vd_in_range(at * VMDK_SECTOR, bytes, x->file->size)) {
		errno = EINVAL;
		return NULL;
	}
	gd = malloc(MAX(bytes, UINT64_C(4)));
	if (gd)
		r = vd_pread(x->file, gd, bytes, at * VMDK_SECTOR);
	if (!gd || r < 0) {
		errno = gd ? -r : ENOMEM;
		return NULL;
	}
	for (uint32_t i = 0; i < x->n_gd; i++) {
		gd[i] = load_le32(&gd[i]);
		if (gd[i] && !vd_in_range((uint64_t)gd[i] * VMDK_SECTOR, vmdk_table_bytes(x),
					  x->file->size)) {
			errno = EINVAL;
			return NULL;
		}
	}
	return STEAL(gd);
}

/* Both directories; a damaged one is replaced by the other, for reading. */
static int read_directories(struct vmdk *v, struct vmdk_extent *x, struct vdisk_error *err)
{
	bool both = !x->h.cowd && x->h.flags & VMDK_FLAG_REDUNDANT && x->h.rgd_at &&
		    !(x->h.flags & VMDK_FLAG_COMPRESSED);
	int why;

	x->gd = read_directory(x, x->h.gd_at);
	why = errno;
	if (both)
		x->rgd = read_directory(x, x->h.rgd_at);
	if (x->gd && (x->rgd || !both))
		return 0;
	if (why == ENOMEM || errno == ENOMEM)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	if (!x->gd && !x->rgd)
		return vd_fail(err, EINVAL, "%s: vmdk: the grain directory is damaged",
			       x->file->name);
	if ((v->disk->flags & (VDISK_OPEN_WRITE | VDISK_OPEN_CHECK)) == VDISK_OPEN_WRITE)
		return vd_fail(err, EUCLEAN, "%s: vmdk: one of the two grain directories is "
			       "damaged: see 'vdisk check'", x->file->name);
	if (!x->gd)
		x->gd = STEAL(x->rgd);
	return 0;
}

int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, struct vdisk_error *err)
{
	uint8_t p[VMDK_SECTOR];
	const char *why = NULL;
	int r;

	if (x->file->size < VMDK_SECTOR)
		return vd_fail(err, EINVAL, "%s: vmdk: is too short", x->file->name);
	r = vd_pread(x->file, p, sizeof(p), 0);
	if (r < 0)
		return vd_fail(err, -r, "%s: vmdk: reading the header: %s", x->file->name,
			       strerror(-r));
	r = vmdk_header_decode(&x->h, p, &why);
	if (r < 0)
		return vd_fail(err, -r, "%s: vmdk: %s", x->file->name, why);
	if (!x->h.cowd && x->h.gd_at == VMDK_GD_AT_END)
		r = read_footer(x, err);
	if (r < 0)
		return r;
	x->grain = x->h.grain * VMDK_SECTOR;
	x->span = x->grain * x->h.gtes;
	x->n_gd = vmdk_gd_entries(&x->h);
	x->bound = vmdk_coded_bound(x->grain);
	r = read_directories(v, x, err);
	if (r < 0)
		return r;
	/* (not before it is known that the file has as many) */
	x->table = calloc((size_t)x->n_gd + 1, sizeof(struct vmdk_table *));
	if (!x->table)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	x->fresh_from = vd_align_up(x->file->size, x->grain);
	x->next = vd_align_up(x->h.overhead, x->h.grain) * VMDK_SECTOR;
	return 0;
}

/* ---- the descriptor ---- */

static int read_descriptor(struct vmdk *v, uint64_t at, uint64_t len, struct vdisk_error *err)
{
	struct vdisk *file = v->disk->file;
	AUTO_FREE char *text = NULL;
	int r;

	if (len > VMDK_MAX_DESCRIPTOR || !vd_in_range(at, len, file->size))
		return vd_fail(err, EINVAL, "%s: vmdk: its descriptor makes no sense", file->name);
	text = calloc(1, len + 1);
	if (!text)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	r = vd_pread(file, text, len, at);
	if (r < 0)
		return vd_fail(err, -r, "%s: vmdk: reading the descriptor: %s", file->name,
			       strerror(-r));
	/* (QEMU leaves room for one in extents that have none) */
	if (at && !text[0])
		return 0;
	v->desc_file = file;
	v->desc_at = at;
	r = vmdk_descriptor_parse(&v->d, text, len, err);
	return r < 0 ? vd_fail_prefix(err, r, "%s: vmdk", file->name) : 0;
}

/* ---- extents ---- */

/* One sparse file, with or without a descriptor. */
static int open_single(struct vmdk *v, struct vdisk_error *err)
{
	struct vmdk_extent *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	v->x = x;
	v->n_x = 1;
	*x = (struct vmdk_extent) { .kind = VMDK_SPARSE, .file = v->disk->file };
	r = vmdk_sparse_open(v, x, err);
	if (r < 0)
		return r;
	x->len = x->h.capacity * VMDK_SECTOR;
	v->d.parent_cid = VMDK_NO_PARENT;
	if (x->h.desc_at)
		r = read_descriptor(v, x->h.desc_at * VMDK_SECTOR, x->h.desc_len * VMDK_SECTOR, err);
	/* (what a line without a size describes is no disk) */
	if (r == 0 && v->d.n_lines == 1 && v->d.line[0].sectors != x->h.capacity)
		return vd_fail(err, EINVAL, "%s: vmdk: header and descriptor disagree about its "
			       "size: %" PRIu64 " and %" PRIu64 " sectors", v->disk->name,
			       x->h.capacity, v->d.line[0].sectors);
	return r;
}

/* The file that line @l names; it has to have what the line says. */
static int open_extent(struct vd_open_ctx *ctx, struct vmdk *v, struct vmdk_extent *x,
		       const struct vmdk_line *l, struct vdisk_error *err)
{
	struct vdisk *raw = NULL;
	bool writable = v->disk->flags & VDISK_OPEN_WRITE;
	int r = vd_open_ref(ctx, &raw, l->name, "raw", writable, err);

	if (r < 0)
		return r;
	/* the file itself: a raw disk does not grow by being written */
	x->file = vdisk_ref(vdisk_below(raw));
	vdisk_close(raw, NULL);
	if (vd_keep_other(v->disk, x->file) < 0)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	if (l->kind == VMDK_FLAT) {
		x->offset = l->offset * VMDK_SECTOR;
		if (!vd_in_range(x->offset, x->len, x->file->size))
			return vd_fail(err, EINVAL, "%s: vmdk: is shorter than its descriptor says",
				       x->file->name);
		return 0;
	}
	r = vmdk_sparse_open(v, x, err);
	if (r == 0 && x->h.capacity < l->sectors)
		return vd_fail(err, EINVAL, "%s: vmdk: is smaller than its descriptor says",
			       x->file->name);
	return r;
}

static int open_extents(struct vd_open_ctx *ctx, struct vmdk *v, struct vdisk_error *err)
{
	uint64_t start = 0;
	int r = 0;

	if (!v->d.n_lines)
		return vd_fail(err, EINVAL, "%s: vmdk: the descriptor names no extents",
			       v->disk->name);
	v->x = calloc(v->d.n_lines, sizeof(*v->x));
	if (!v->x)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	for (unsigned i = 0; i < v->d.n_lines && r == 0; i++) {
		const struct vmdk_line *l = &v->d.line[i];
		struct vmdk_extent *x = &v->x[v->n_x];

		if (l->access == VMDK_NOACCESS)
			return vd_fail(err, EACCES, "%s: vmdk: extent %u is not to be read",
				       v->disk->name, i + 1);
		if (!l->sectors)
			continue;
		*x = (struct vmdk_extent) {
			.kind = l->kind, .start = start, .len = l->sectors * VMDK_SECTOR,
		};
		v->n_x++;
		start += x->len;
		if (l->kind != VMDK_ZERO)
			r = open_extent(ctx, v, x, l, err);
	}
	return r == 0 && !v->n_x ? vd_fail(err, EINVAL, "%s: vmdk: is empty", v->disk->name) : r;
}

/* ---- writing ---- */

static bool is_blank(const struct vmdk_extent *x)
{
	for (uint32_t i = 0; i < x->n_gd; i++)
		if (x->gd[i])
			return false;
	return true;
}

/* Why @x cannot be written; NULL: it can. */
static const char *only_read(struct vmdk *v, struct vmdk_extent *x)
{
	if (x->kind != VMDK_SPARSE)
		return NULL;
	if (x->h.cowd)
		return "old ESX images can only be read";
	if (x->h.version >= 3)
		return "version 3 can only be read";
	if (x->h.flags & VMDK_FLAG_COMPRESSED) {
		if (v->n_x > 1 || !(x->h.flags & VMDK_FLAG_MARKERS) || !is_blank(x))
			return "a stream-optimized image is written once only, by convert";
		v->stream = true;
		x->next = vd_align_up(x->h.overhead, x->h.grain) * VMDK_SECTOR;
		return NULL;
	}
	if (x->start % v->disk->unit)
		return "its extents are not aligned to grains: it can only be read";
	return NULL;
}

/*
 * What an entry says before the image is written: where its grain ends counts for
 * x->next.  NULL, or what is wrong: a grain behind the end of the file, or one that two
 * entries share, which writing would make worse.
 */
static const char *take_entry(struct vmdk_extent *x, uint32_t gte, uint8_t *seen)
{
	uint64_t at = (uint64_t)gte * VMDK_SECTOR, n = at / x->grain;

	if (!gte || (gte == 1 && x->h.flags & VMDK_FLAG_ZERO_GRAINS))
		return NULL;
	if (at >= x->file->size)
		return "a grain lies behind the end of the file";
	if (seen[n / 8] & 1u << n % 8)
		return "two grains are in one place";
	seen[n / 8] |= (uint8_t)(1u << n % 8);
	x->next = MAX(x->next, at + x->grain);
	return NULL;
}

/*
 * New grains come from behind the last grain, which may be short, and the last table; in
 * a file also from behind its end.
 */
static int find_end(struct vmdk *v, struct vmdk_extent *x, struct vdisk_error *err)
{
	AUTO_FREE uint8_t *gte = malloc(vmdk_table_bytes(x));
	AUTO_FREE uint8_t *seen = calloc(1, (size_t)(x->file->size / x->grain / 8 + 1));
	uint64_t bytes = vd_align_up(vmdk_table_bytes(x), VMDK_SECTOR);
	int r = gte && seen ? 0 : -ENOMEM;

	if (x->file->grows)
		x->next = MAX(x->next, x->fresh_from);
	for (uint32_t i = 0; i < x->n_gd && r == 0; i++) {
		const char *why = NULL;

		if (!x->gd[i])
			continue;
		x->next = MAX(x->next, (uint64_t)x->gd[i] * VMDK_SECTOR + bytes);
		x->next = MAX(x->next, x->rgd ? (uint64_t)x->rgd[i] * VMDK_SECTOR + bytes : 0);
		r = vd_pread(x->file, gte, vmdk_table_bytes(x), (uint64_t)x->gd[i] * VMDK_SECTOR);
		for (uint32_t k = 0; k < x->h.gtes && r == 0 && !why; k++)
			why = take_entry(x, load_le32(gte + (size_t)k * 4), seen);
		if (why)
			return vd_fail(err, EUCLEAN, "%s: vmdk: %s: see 'vdisk check'",
				       x->file->name, why);
	}
	x->next = vd_align_up(x->next, x->grain);
	return r < 0 ? vd_fail(err, -r, "%s: vmdk: reading the grain tables: %s", v->disk->name,
			       strerror(-r)) : 0;
}

static int prepare_writing(struct vmdk *v, struct vdisk_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < v->d.n_lines; i++)
		if (v->d.line[i].access == VMDK_RDONLY)
			return vd_fail(err, EROFS, "%s: vmdk: extent %u is to be read only",
				       v->disk->name, i + 1);
	if (!v->desc_file)
		return vd_fail(err, EROFS, "%s: vmdk: is an extent of another image, without a "
			       "descriptor: it can only be read", v->disk->name);
	for (unsigned i = 0; i < v->n_x && r == 0; i++) {
		const char *why = only_read(v, &v->x[i]);

		if (why)
			return vd_fail(err, EROFS, "%s: vmdk: %s", v->disk->name, why);
		/* (a repair wants to see it as it is) */
		if (v->x[i].kind == VMDK_SPARSE && !v->stream &&
		    !(v->disk->flags & VDISK_OPEN_CHECK))
			r = find_end(v, &v->x[i], err);
	}
	v->writable = r == 0;
	v->disk->coded_only = v->stream;
	return r;
}

/* ---- the parent ---- */

static int open_parent(struct vd_open_ctx *ctx, struct vmdk *v, struct vdisk_error *err)
{
	struct vdisk *d = v->disk;
	int r;

	if (v->d.parent_cid == VMDK_NO_PARENT)
		return 0;
	if (!v->d.parent || !v->d.parent[0])
		return vd_fail(err, EINVAL, "%s: vmdk: has a parent, but does not name it", d->name);
	d->backing_name = strdup(v->d.parent);
	d->backing_format = strdup("vmdk");
	if (!d->backing_name || !d->backing_format)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	if (d->flags & VDISK_OPEN_NO_BACKING)
		return 0;
	r = vd_open_ref(ctx, &d->backing, v->d.parent, "vmdk", false, err);
	if (r == 0 && ((struct vmdk *)d->backing->priv)->d.cid != v->d.parent_cid)
		return vd_fail(err, ESTALE, "%s: vmdk: its parent %s has changed since (content ID "
			       "%08x, not %08x)", d->name, d->backing->name,
			       ((struct vmdk *)d->backing->priv)->d.cid, v->d.parent_cid);
	return r;
}

/* ---- the driver ---- */

static void destroy(struct vmdk *v)
{
	vmdk_tables_free(v);
	for (unsigned i = 0; i < v->n_x; i++) {
		free(v->x[i].gd);
		free(v->x[i].rgd);
		free(v->x[i].table);
		free(v->x[i].free);
	}
	free(v->x);
	free(v->freed);
	vmdk_descriptor_clear(&v->d);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->cond);
	free(v);
}

/* The size of the largest table and grain decide. */
static void derive(struct vmdk *v)
{
	size_t table = sizeof(struct vmdk_table);

	for (unsigned i = 0; i < v->n_x; i++) {
		const struct vmdk_extent *x = &v->x[i];

		if (x->kind != VMDK_SPARSE)
			continue;
		v->disk->unit = MAX(v->disk->unit, x->grain);
		/* without that mark, a grain that is dropped would show the parent */
		if (v->d.parent_cid != VMDK_NO_PARENT && !(x->h.flags & VMDK_FLAG_ZERO_GRAINS))
			v->disk->discard_keeps = true;
		table = MAX(table, sizeof(struct vmdk_table) + vmdk_table_bytes(x));
	}
	v->max_tables = VMDK_CACHE_BYTES / table;
	v->max_dirty = VMDK_DIRTY_BYTES / table;
	v->disk->size = v->x[v->n_x - 1].start + v->x[v->n_x - 1].len;
}

static int open_image(struct vd_open_ctx *ctx, struct vmdk *v, struct vdisk_error *err)
{
	struct vdisk *file = v->disk->file;
	uint8_t magic[4] = { 0 };
	int r;

	if (ctx->snapshot)
		return vd_fail(err, ENOTSUP, "%s: snapshots of a vmdk are files of their own",
			       v->disk->name);
	r = vd_pread_pad(file, magic, sizeof(magic), 0);
	if (r < 0)
		return vd_fail(err, -r, "%s: vmdk: reading the header: %s", file->name, strerror(-r));
	if (load_le32(magic) == VMDK_MAGIC || load_le32(magic) == COWD_MAGIC) {
		r = open_single(v, err);
	} else {
		r = read_descriptor(v, 0, file->size, err);
		if (r == 0)
			r = open_extents(ctx, v, err);
	}
	if (r < 0)
		return r;
	derive(v);
	if (v->disk->flags & VDISK_OPEN_WRITE)
		r = prepare_writing(v, err);
	return r < 0 ? r : open_parent(ctx, v, err);
}

static int vmdk_open(struct vd_open_ctx *ctx, struct vdisk_error *err)
{
	struct vmdk *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	v->disk = ctx->disk;
	v->txn = 1;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->cond, NULL);
	r = open_image(ctx, v, err);
	if (r < 0) {
		/* the core closes the files and the parent */
		destroy(v);
		return r;
	}
	ctx->disk->priv = v;
	return 0;
}

static int vmdk_close(struct vdisk *disk, struct vdisk_error *err)
{
	struct vmdk *v = disk->priv;
	int r = disk->failed ? 0 : vmdk_settle(v);

	if (r < 0)
		r = vd_fail(err, -r, "%s: vmdk: writing the metadata: %s", disk->name,
			    strerror(-r));
	destroy(v);
	disk->priv = NULL;
	return r;
}

static const struct vd_codec *vmdk_codec(struct vdisk *disk, int *level)
{
	const struct vmdk *v = disk->priv;

	*level = 0;
	return v->stream ? &vmdk_grain : NULL;
}

static void vmdk_info(struct vdisk *disk, struct vd_info_sink *sink)
{
	const struct vmdk *v = disk->priv;
	const struct vmdk_extent *x = &v->x[0];

	if (v->d.type)
		vd_info_string(sink, "create-type", "%s", v->d.type);
	if (v->d.adapter)
		vd_info_string(sink, "adapter-type", "%s", v->d.adapter);
	if (v->desc_file)
		vd_info_string(sink, "content-id", "%08x", v->d.cid);
	if (v->d.parent_cid != VMDK_NO_PARENT)
		vd_info_string(sink, "parent-content-id", "%08x", v->d.parent_cid);
	vd_info_uint(sink, "extents", v->n_x);
	if (x->kind != VMDK_SPARSE)
		return;
	vd_info_uint(sink, "cluster-size", x->grain);
	vd_info_bool(sink, "compressed", x->h.flags & VMDK_FLAG_COMPRESSED);
	vd_info_bool(sink, "zeroed-grains", x->h.flags & VMDK_FLAG_ZERO_GRAINS);
	vd_info_bool(sink, "dirty", x->h.unclean);
}

const struct vd_driver vd_vmdk = {
	.name = "vmdk",
	.options = vmdk_options,
	.probe = probe,
	.open = vmdk_open,
	.create = vmdk_create,
	.close = vmdk_close,
	.map = vmdk_map,
	.commit = vmdk_commit,
	.flush = vmdk_flush,
	.codec = vmdk_codec,
	.empty = vmdk_empty,
	.check = vmdk_check,
	.info = vmdk_info,
	.measure = vmdk_measure,
};
