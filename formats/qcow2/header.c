/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * header.c - the qcow2 header and its extensions: bytes to struct and back
 *
 * Decoding is one pure function; nothing else in the driver looks at header
 * bytes.  What we do not know survives a rewrite: header fields past ours, and
 * every extension (specification: "Header extensions").
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "formats/qcow2/qcow2.h"

/* ---- decode ---- */

static int decode_fixed(struct qcow2_header *h, const uint8_t *p, size_t len,
			struct vdisk_error *err)
{
	if (len < QCOW2_V2_HEADER || load_be32(p) != QCOW2_MAGIC)
		return vd_fail(err, EINVAL, "qcow2: no qcow2 header");
	h->version = load_be32(p + 4);
	if (h->version != 2 && h->version != 3)
		return vd_fail(err, ENOTSUP, "qcow2: version %" PRIu32 " is not supported",
			       h->version);
	h->cluster_bits = load_be32(p + 20);
	if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return vd_fail(err, EINVAL, "qcow2: cluster size 2^%" PRIu32 " is not in 2^9 ... 2^21",
			       h->cluster_bits);
	h->size = load_be64(p + 24);
	h->crypt_method = load_be32(p + 32);
	h->l1_size = load_be32(p + 36);
	h->l1_offset = load_be64(p + 40);
	h->reftable_offset = load_be64(p + 48);
	h->reftable_clusters = load_be32(p + 56);
	h->n_snapshots = load_be32(p + 60);
	h->snapshots_offset = load_be64(p + 64);

	h->refcount_order = 4;
	h->header_length = QCOW2_V2_HEADER;
	if (h->version == 2)
		return 0;

	if (len < QCOW2_V3_HEADER_MIN)
		return vd_fail(err, EINVAL, "qcow2: the header is cut off");
	h->incompatible = load_be64(p + 72);
	h->compatible = load_be64(p + 80);
	h->autoclear = load_be64(p + 88);
	h->refcount_order = load_be32(p + 96);
	h->header_length = load_be32(p + 100);
	if (h->header_length < QCOW2_V3_HEADER_MIN || h->header_length % 8)
		return vd_fail(err, EINVAL, "qcow2: header length %" PRIu32 " is not valid",
			       h->header_length);
	if (h->header_length > qcow2_cluster_size(h) || h->header_length > len)
		return vd_fail(err, EINVAL, "qcow2: header length %" PRIu32
			       " is more than the first cluster", h->header_length);
	if (h->header_length > 104)
		h->compression = p[104];
	return 0;
}

static int check_table(const struct qcow2_header *h, const char *what, uint64_t off,
		       uint64_t bytes, struct vdisk_error *err)
{
	uint64_t end;

	if (off & (qcow2_cluster_size(h) - 1))
		return vd_fail(err, EINVAL, "qcow2: the %s at %#" PRIx64 " is not aligned", what,
			       off);
	if (!vd_add(off, bytes, &end) || end > INT64_MAX)
		return vd_fail(err, EINVAL, "qcow2: the %s at %#" PRIx64 " is out of range", what,
			       off);
	return 0;
}

static int check_fixed(const struct qcow2_header *h, struct vdisk_error *err)
{
	uint64_t reftable = (uint64_t)h->reftable_clusters << h->cluster_bits;
	bool bit = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;
	int r;

	if (h->crypt_method > 2)
		return vd_fail(err, EINVAL, "qcow2: encryption method %" PRIu32 " is not known",
			       h->crypt_method);
	if (h->refcount_order > 6)
		return vd_fail(err, EINVAL, "qcow2: refcount width 2^%" PRIu32 " is more than 64 bits",
			       h->refcount_order);
	if (bit != (h->compression != 0))
		return vd_fail(err, EINVAL, "qcow2: compression type %" PRIu32
			       " does not agree with its feature bit", h->compression);
	if (qcow2_extended_l2(h) && h->cluster_bits < QCOW2_MIN_SUBCLUSTER_CLUSTER_BITS)
		return vd_fail(err, EINVAL, "qcow2: extended L2 entries with clusters of %" PRIu64
			       " bytes", qcow2_cluster_size(h));

	if (h->l1_size > QCOW2_MAX_L1_BYTES / 8)
		return vd_fail(err, EFBIG, "qcow2: L1 table of %" PRIu32 " entries is too large",
			       h->l1_size);
	if (qcow2_l1_needed(h, h->size) > h->l1_size)
		return vd_fail(err, EINVAL, "qcow2: L1 table of %" PRIu32
			       " entries is too small for a disk of %" PRIu64 " bytes", h->l1_size,
			       h->size);
	r = check_table(h, "L1 table", h->l1_offset, (uint64_t)h->l1_size * 8, err);
	if (r < 0)
		return r;

	if (reftable > QCOW2_MAX_REFTABLE_BYTES)
		return vd_fail(err, EFBIG, "qcow2: refcount table of %" PRIu32
			       " clusters is too large", h->reftable_clusters);
	r = check_table(h, "refcount table", h->reftable_offset, reftable, err);
	if (r < 0)
		return r;

	if (h->n_snapshots > QCOW2_MAX_SNAPSHOTS)
		return vd_fail(err, EFBIG, "qcow2: %" PRIu32 " snapshots are too many",
			       h->n_snapshots);
	return h->n_snapshots ? check_table(h, "snapshot table", h->snapshots_offset,
					    (uint64_t)h->n_snapshots * 40, err) : 0;
}

/* A string without NUL of @len bytes. */
static int decode_string(char **out, const uint8_t *p, size_t len, const char *what,
			 struct vdisk_error *err)
{
	AUTO_FREE char *s = NULL;

	if (memchr(p, 0, len))
		return vd_fail(err, EINVAL, "qcow2: the %s has a NUL in it", what);
	if (*out)
		return vd_fail(err, EINVAL, "qcow2: there are two of the %s", what);
	s = malloc(len + 1);
	if (!s)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	memcpy(s, p, len);
	s[len] = '\0';
	*out = STEAL(s);
	return 0;
}

static int decode_backing(struct qcow2_header *h, const uint8_t *buf, size_t len,
			  struct vdisk_error *err)
{
	uint64_t off = load_be64(buf + 8);
	uint32_t n = load_be32(buf + 16);

	if (!off)
		return 0;
	if (n > QCOW2_MAX_BACKING_NAME)
		return vd_fail(err, EINVAL, "qcow2: a backing file name of %" PRIu32
			       " bytes is too long", n);
	if (off < h->header_length || !vd_in_range(off, n, qcow2_cluster_size(h)) ||
	    !vd_in_range(off, n, len))
		return vd_fail(err, EINVAL, "qcow2: the backing file name at %#" PRIx64
			       " is not in the first cluster", off);
	return n ? decode_string(&h->backing_name, buf + off, n, "backing file name", err) : 0;
}

/* specification: "Bitmaps extension" */
static int decode_bitmaps(struct qcow2_header *h, const uint8_t *p, uint32_t n,
			  struct vdisk_error *err)
{
	if (h->has_bitmaps)
		return vd_fail(err, EINVAL, "qcow2: there are two bitmaps extensions");
	if (n != 24 || load_be32(p + 4))
		return vd_fail(err, EINVAL, "qcow2: the bitmaps extension is malformed");
	h->has_bitmaps = true;
	h->n_bitmaps = load_be32(p);
	h->bitmap_dir_size = load_be64(p + 8);
	h->bitmap_dir_offset = load_be64(p + 16);
	if (!h->n_bitmaps || h->n_bitmaps > QCOW2_MAX_BITMAPS)
		return vd_fail(err, EINVAL, "qcow2: %" PRIu32 " bitmaps: none or too many",
			       h->n_bitmaps);
	if (!h->bitmap_dir_size || h->bitmap_dir_size > QCOW2_MAX_BITMAP_DIR)
		return vd_fail(err, EINVAL, "qcow2: bitmap directory of %" PRIu64
			       " bytes: none or too large", h->bitmap_dir_size);
	return check_table(h, "bitmap directory", h->bitmap_dir_offset, h->bitmap_dir_size, err);
}

static int keep_extension(struct qcow2_header *h, uint32_t type, const uint8_t *p, uint32_t n,
			  struct vdisk_error *err)
{
	AUTO_FREE uint8_t *copy = malloc(n + 1);
	struct qcow2_extension *e = realloc(h->ext, (h->n_ext + 1) * sizeof(*e));

	if (e)
		h->ext = e;
	if (!copy || !e)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	memcpy(copy, p, n);
	h->ext[h->n_ext++] = (struct qcow2_extension){ .type = type, .len = n, .data = STEAL(copy) };
	return 0;
}

static int decode_extension(struct qcow2_header *h, uint32_t type, const uint8_t *p, uint32_t n,
			    struct vdisk_error *err)
{
	switch (type) {
	case QCOW2_EXT_BACKING_FORMAT:
		if (n == 0 || n > 64)
			return vd_fail(err, EINVAL, "qcow2: a backing format of %" PRIu32 " bytes",
				       n);
		return decode_string(&h->backing_format, p, n, "backing format", err);
	case QCOW2_EXT_DATA_FILE:
		if (n == 0 || n > QCOW2_MAX_BACKING_NAME)
			return vd_fail(err, EINVAL, "qcow2: a data file name of %" PRIu32 " bytes",
				       n);
		return decode_string(&h->data_file, p, n, "data file name", err);
	case QCOW2_EXT_BITMAPS:
		return decode_bitmaps(h, p, n, err);
	default:
		return keep_extension(h, type, p, n, err);
	}
}

/* specification: "Header extensions" */
static int decode_extensions(struct qcow2_header *h, const uint8_t *buf, size_t len,
			     struct vdisk_error *err)
{
	uint64_t off = h->header_length, end = MIN((uint64_t)len, qcow2_cluster_size(h));
	unsigned n = 0;

	if (h->backing_name)
		end = MIN(end, load_be64(buf + 8));
	while (end >= 8 && off <= end - 8) {
		uint32_t type = load_be32(buf + off), size = load_be32(buf + off + 4);
		int r;

		if (type == QCOW2_EXT_END)
			return 0;
		off += 8;
		if (size > end - off)
			return vd_fail(err, EINVAL, "qcow2: header extension %#" PRIx32 " of %"
				       PRIu32 " bytes does not fit in the header", type, size);
		if (n++ == QCOW2_MAX_EXTENSIONS)
			return vd_fail(err, EINVAL, "qcow2: too many header extensions");
		r = decode_extension(h, type, buf + off, size, err);
		if (r < 0)
			return r;
		off += vd_align_up(size, 8);
	}
	return 0;
}

static int decode_unknown(struct qcow2_header *h, const uint8_t *buf, struct vdisk_error *err)
{
	if (h->header_length <= QCOW2_V3_HEADER)
		return 0;
	h->unknown_len = h->header_length - QCOW2_V3_HEADER;
	h->unknown = malloc(h->unknown_len);
	if (!h->unknown)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	memcpy(h->unknown, buf + QCOW2_V3_HEADER, h->unknown_len);
	return 0;
}

int qcow2_header_decode(struct qcow2_header *out, const uint8_t *buf, size_t len,
			struct vdisk_error *err)
{
	struct qcow2_header h = { 0 };
	int r;

	r = decode_fixed(&h, buf, len, err);
	if (r == 0)
		r = check_fixed(&h, err);
	if (r == 0)
		r = decode_unknown(&h, buf, err);
	if (r == 0)
		r = decode_backing(&h, buf, len, err);
	if (r == 0)
		r = decode_extensions(&h, buf, len, err);
	if (r < 0) {
		qcow2_header_clear(&h);
		return r;
	}
	*out = h;
	return 0;
}

void qcow2_header_clear(struct qcow2_header *h)
{
	free(h->unknown);
	free(h->backing_name);
	free(h->backing_format);
	free(h->data_file);
	for (unsigned i = 0; i < h->n_ext; i++)
		free(h->ext[i].data);
	free(h->ext);
	*h = (struct qcow2_header){ 0 };
}

/* ---- what can be done with it ---- */

/* specification: "Feature name table": entries of 48 bytes {type, bit, name} */
static void feature_name(const struct qcow2_header *h, unsigned type, unsigned bit, char *out,
			 size_t size)
{
	for (unsigned i = 0; i < h->n_ext; i++) {
		const struct qcow2_extension *e = &h->ext[i];

		if (e->type != QCOW2_EXT_FEATURE_TABLE)
			continue;
		for (uint32_t off = 0; e->len - off >= 48; off += 48) {
			const uint8_t *p = e->data + off;

			if (p[0] != type || p[1] != bit || !p[2])
				continue;
			snprintf(out, size, "\"%.46s\"", (const char *)p + 2);
			/* for a person's terminal */
			for (char *c = out; *c; c++)
				if (*c < ' ' || *c > '~')
					*c = '?';
			return;
		}
	}
	snprintf(out, size, "incompatible feature bit %u", bit);
}

int qcow2_header_usable(const struct qcow2_header *h, struct vdisk_error *err)
{
	uint64_t unknown = h->incompatible & ~QCOW2_INCOMPAT_KNOWN;
	char names[400] = "";
	size_t n = 0;

	for (unsigned bit = 0; bit < 64 && n < sizeof(names) - 64; bit++) {
		if (!(unknown >> bit & 1))
			continue;
		if (n)
			n += (size_t)snprintf(names + n, sizeof(names) - n, ", ");
		feature_name(h, 0, bit, names + n, sizeof(names) - n);
		n += strlen(names + n);
	}
	if (unknown)
		return vd_fail(err, ENOTSUP, "qcow2: the image needs features that are not supported: %s",
			       names);
	if (h->crypt_method)
		return vd_fail(err, ENOTSUP, "qcow2: the image is encrypted (%s), which is not supported",
			       h->crypt_method == 2 ? "LUKS" : "AES");
	if (h->compression > QCOW2_ZSTD)
		return vd_fail(err, ENOTSUP, "qcow2: compression type %" PRIu32 " is not supported",
			       h->compression);
	return 0;
}

static int fits(const struct qcow2_header *h, const char *what, uint64_t off, uint64_t bytes,
		uint64_t file_size, struct vdisk_error *err)
{
	/* The last cluster may be short. */
	uint64_t end = vd_align_up(file_size, qcow2_cluster_size(h));

	if (!off || !vd_in_range(off, bytes, end))
		return vd_fail(err, EINVAL, "qcow2: the %s (%" PRIu64 " bytes at %#" PRIx64
			       ") is not in the file", what, bytes, off);
	return 0;
}

int qcow2_header_fits(const struct qcow2_header *h, uint64_t file_size, struct vdisk_error *err)
{
	int r = 0;

	if (file_size > INT64_MAX)
		return vd_fail(err, EFBIG, "qcow2: the file is too large");
	if (!h->reftable_clusters)
		return vd_fail(err, EINVAL, "qcow2: the image has no refcount table");
	if (h->l1_size)
		r = fits(h, "L1 table", h->l1_offset, (uint64_t)h->l1_size * 8, file_size, err);
	if (r == 0)
		r = fits(h, "refcount table", h->reftable_offset,
			 (uint64_t)h->reftable_clusters << h->cluster_bits, file_size, err);
	if (r == 0 && h->n_snapshots)
		r = fits(h, "snapshot table", h->snapshots_offset, (uint64_t)h->n_snapshots * 40,
			 file_size, err);
	return r;
}

/* ---- encode ---- */

static size_t put_extension(uint8_t *buf, size_t len, size_t off, uint32_t type, const void *data,
			    size_t n)
{
	size_t end = off + 8 + vd_align_up(n, 8);

	/* off > len: an earlier one did not fit */
	if (off <= len && end <= len) {
		store_be32(buf + off, type);
		store_be32(buf + off + 4, (uint32_t)n);
		if (n)
			memcpy(buf + off + 8, data, n);
	}
	return end;
}

void qcow2_header_encode_changing(const struct qcow2_header *h, uint8_t *p)
{
	store_be64(p + 24, h->size);
	store_be32(p + 36, h->l1_size);
	store_be64(p + 40, h->l1_offset);
	store_be64(p + 48, h->reftable_offset);
	store_be32(p + 56, h->reftable_clusters);
	store_be32(p + 60, h->n_snapshots);
	store_be64(p + 64, h->snapshots_offset);
	if (h->version == 2)
		return;
	store_be64(p + 72, h->incompatible);
	store_be64(p + 80, h->compatible);
	store_be64(p + 88, h->autoclear);
	store_be32(p + 96, h->refcount_order);
}

static void encode_fixed(const struct qcow2_header *h, uint8_t *p)
{
	store_be32(p, QCOW2_MAGIC);
	store_be32(p + 4, h->version);
	store_be32(p + 20, h->cluster_bits);
	store_be32(p + 32, h->crypt_method);
	qcow2_header_encode_changing(h, p);
	if (h->version == 2)
		return;
	store_be32(p + 100, QCOW2_V3_HEADER + h->unknown_len);
	p[104] = (uint8_t)h->compression;
	if (h->unknown_len)
		memcpy(p + QCOW2_V3_HEADER, h->unknown, h->unknown_len);
}

static size_t encode_extensions(const struct qcow2_header *h, uint8_t *buf, size_t len, size_t off,
				bool names)
{
	if (h->backing_format)
		off = put_extension(buf, len, off, QCOW2_EXT_BACKING_FORMAT, h->backing_format,
				    strlen(h->backing_format));
	if (h->data_file)
		off = put_extension(buf, len, off, QCOW2_EXT_DATA_FILE, h->data_file,
				    strlen(h->data_file));
	for (unsigned i = 0; i < h->n_ext; i++)
		if (names || h->ext[i].type != QCOW2_EXT_FEATURE_TABLE)
			off = put_extension(buf, len, off, h->ext[i].type, h->ext[i].data,
					    h->ext[i].len);
	if (h->has_bitmaps) {
		uint8_t b[24] = { 0 };

		store_be32(b, h->n_bitmaps);
		store_be64(b + 8, h->bitmap_dir_size);
		store_be64(b + 16, h->bitmap_dir_offset);
		off = put_extension(buf, len, off, QCOW2_EXT_BITMAPS, b, sizeof(b));
	}
	return put_extension(buf, len, off, QCOW2_EXT_END, NULL, 0);
}

static bool encode(const struct qcow2_header *h, uint8_t *buf, size_t len, bool names)
{
	size_t off = h->version == 2 ? QCOW2_V2_HEADER : QCOW2_V3_HEADER + h->unknown_len;
	size_t n = h->backing_name ? strlen(h->backing_name) : 0;

	memset(buf, 0, len);
	if (off > len)
		return false;
	encode_fixed(h, buf);
	off = encode_extensions(h, buf, len, off, names);
	if (off > len || n > len - off)
		return false;
	if (n) {
		store_be64(buf + 8, off);
		store_be32(buf + 16, (uint32_t)n);
		memcpy(buf + off, h->backing_name, n);
	}
	return true;
}

int qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf, size_t len,
			struct vdisk_error *err)
{
	if (encode(h, buf, len, true) || encode(h, buf, len, false))
		return 0;
	return vd_fail(err, ENOSPC, "qcow2: the header with its names does not fit in a cluster of %zu bytes",
		       len);
}

/* ---- on a disk ---- */

int qcow2_header_read(struct qcow2_header *h, struct vdisk *file, struct vdisk_error *err)
{
	uint64_t size = atomic_load(&file->size);
	size_t len = MIN(size, UINT64_C(1) << QCOW2_MAX_CLUSTER_BITS);
	uint8_t first[QCOW2_V2_HEADER];
	AUTO_FREE uint8_t *buf = NULL;
	uint32_t bits;
	int r;

	if (len < sizeof(first))
		return vd_fail(err, EINVAL, "qcow2: a file of %zu bytes has no qcow2 header", len);
	r = vd_pread(file, first, sizeof(first), 0);
	if (r < 0)
		return vd_fail(err, -r, "qcow2: reading the header: %s", strerror(-r));
	bits = load_be32(first + 20);
	if (bits >= QCOW2_MIN_CLUSTER_BITS && bits <= QCOW2_MAX_CLUSTER_BITS)
		len = MIN(len, (size_t)1 << bits);
	buf = malloc(len);
	if (!buf)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	r = vd_pread(file, buf, len, 0);
	if (r < 0)
		return vd_fail(err, -r, "qcow2: reading the header: %s", strerror(-r));
	return qcow2_header_decode(h, buf, len, err);
}

int qcow2_header_write(const struct qcow2_header *h, struct vdisk *file, struct vdisk_error *err)
{
	size_t len = (size_t)qcow2_cluster_size(h);
	AUTO_FREE uint8_t *buf = malloc(len);
	int r;

	if (!buf)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	r = qcow2_header_encode(h, buf, len, err);
	if (r < 0)
		return r;
	r = vd_pwrite(file, buf, len, 0);
	if (r < 0)
		return vd_fail(err, -r, "qcow2: writing the header: %s", strerror(-r));
	return 0;
}

int qcow2_header_name_features(struct qcow2_header *h, struct vdisk_error *err)
{
	static const struct {
		uint8_t type, bit;
		const char *name;
	} names[] = {
		{ 0, 0, "dirty bit" },
		{ 0, 1, "corrupt bit" },
		{ 0, 2, "external data file" },
		{ 0, 3, "compression type" },
		{ 0, 4, "extended L2 entries" },
		{ 1, 0, "lazy refcounts" },
		{ 2, 0, "bitmaps" },
		{ 2, 1, "raw external data" },
	};
	uint8_t table[ARRAY_SIZE(names) * 48] = { 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		table[i * 48] = names[i].type;
		table[i * 48 + 1] = names[i].bit;
		memcpy(table + i * 48 + 2, names[i].name, strlen(names[i].name));
	}
	return keep_extension(h, QCOW2_EXT_FEATURE_TABLE, table, sizeof(table), err);
}
