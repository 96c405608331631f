/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2.h - what the files of the qcow2 driver share
 *
 * First the format as it lies on the medium (constants, the decoded header,
 * entries, refcount fields), which the checker and the fuzzers use by
 * themselves; the open image (struct qcow2) is in state.h.
 *
 * "The specification" is docs/interop/qcow2.txt of QEMU; its section names are
 * cited in the code.
 */
#ifndef QCOW2_H
#define QCOW2_H

#include "core/driver.h"

#define QCOW2_MAGIC		0x514649fbu	/* "QFI\xfb" */
#define QCOW2_V2_HEADER		72
#define QCOW2_V3_HEADER_MIN	104
#define QCOW2_V3_HEADER		112	/* what we write: with the compression type */

#define QCOW2_MIN_CLUSTER_BITS	9
#define QCOW2_MAX_CLUSTER_BITS	21
#define QCOW2_MIN_SUBCLUSTER_CLUSTER_BITS 14
#define QCOW2_SUBCLUSTERS	32

/* Limits against hostile images; the same as the other implementations have. */
#define QCOW2_MAX_L1_BYTES		(32u << 20)
#define QCOW2_MAX_REFTABLE_BYTES	(8u << 20)
#define QCOW2_MAX_SNAPSHOTS		65536u
#define QCOW2_MAX_SNAPSHOT_TABLE	(64u << 20)
#define QCOW2_MAX_SNAPSHOT_EXTRA	1024u
#define QCOW2_MAX_BACKING_NAME		1023u
#define QCOW2_MAX_EXTENSIONS		256u
#define QCOW2_MAX_BITMAPS		65535u
#define QCOW2_MAX_BITMAP_DIR		(64u << 20)
#define QCOW2_MAX_BITMAP_TABLE		(8u << 20)	/* entries */

/* Incompatible feature bits (specification: "Header", bytes 72 - 79) */
#define QCOW2_INCOMPAT_DIRTY		(UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT		(UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE	(UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION	(UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTL2		(UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN		UINT64_C(0x1f)
/* Compatible feature bits */
#define QCOW2_COMPAT_LAZY_REFCOUNTS	(UINT64_C(1) << 0)
/* Autoclear feature bits */
#define QCOW2_AUTOCLEAR_BITMAPS		(UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW	(UINT64_C(1) << 1)
#define QCOW2_AUTOCLEAR_KNOWN		UINT64_C(0x3)

/* Header extension types */
#define QCOW2_EXT_END			0x00000000u
#define QCOW2_EXT_BACKING_FORMAT	0xe2792acau
#define QCOW2_EXT_FEATURE_TABLE		0x6803f857u
#define QCOW2_EXT_BITMAPS		0x23852875u
#define QCOW2_EXT_CRYPTO		0x0537be77u
#define QCOW2_EXT_DATA_FILE		0x44415441u

enum qcow2_compression { QCOW2_DEFLATE = 0, QCOW2_ZSTD = 1 };

/* ---- the header, decoded and checked ---- */

struct qcow2_extension {
	uint32_t type;
	uint32_t len;
	uint8_t *data;		/* owned */
};

struct qcow2_header {
	uint32_t version;	/* 2 or 3 */
	uint32_t cluster_bits;	/* 9 ... 21 */
	uint64_t size;		/* virtual, bytes */
	uint32_t crypt_method;	/* 0 none, 1 AES, 2 LUKS */
	uint32_t l1_size;	/* entries; enough for size */
	uint64_t l1_offset;	/* cluster-aligned */
	uint64_t reftable_offset; /* cluster-aligned */
	uint32_t reftable_clusters;
	uint32_t n_snapshots;
	uint64_t snapshots_offset; /* cluster-aligned */
	uint64_t incompatible, compatible, autoclear; /* v2: 0 */
	uint32_t refcount_order; /* 0 ... 6; v2: 4 */
	uint32_t header_length;	/* as in the file */
	uint32_t compression;	/* enum qcow2_compression, or unknown */
	uint8_t *unknown;	/* owned: header bytes from 112 on */
	uint32_t unknown_len;

	char *backing_name;	/* owned, or NULL */
	char *backing_format;	/* owned, or NULL where none is stated */
	char *data_file;	/* owned, or NULL: the name stated in the image */
	bool has_bitmaps;	/* the bitmaps extension is there (consistent only if
				 * autoclear has QCOW2_AUTOCLEAR_BITMAPS) */
	uint32_t n_bitmaps;
	uint64_t bitmap_dir_size;
	uint64_t bitmap_dir_offset;

	/* All others, in their order: written back as they are.  The feature
	 * name table is one of them. */
	struct qcow2_extension *ext; /* owned */
	unsigned n_ext;
};

static inline uint64_t qcow2_cluster_size(const struct qcow2_header *h)
{
	return UINT64_C(1) << h->cluster_bits;
}

static inline bool qcow2_extended_l2(const struct qcow2_header *h)
{
	return h->incompatible & QCOW2_INCOMPAT_EXTL2;
}

/* log2 of the bytes of an L2 entry, of the entries of a table, of the guest
 * bytes that one table (one L1 entry) describes */
static inline unsigned qcow2_l2_entry_bits(const struct qcow2_header *h)
{
	return qcow2_extended_l2(h) ? 4 : 3;
}

static inline unsigned qcow2_l2_bits(const struct qcow2_header *h)
{
	return h->cluster_bits - qcow2_l2_entry_bits(h);
}

static inline unsigned qcow2_l1_span_bits(const struct qcow2_header *h)
{
	return h->cluster_bits + qcow2_l2_bits(h);
}

/* L1 entries that a guest disk of @size bytes needs */
static inline uint64_t qcow2_l1_needed(const struct qcow2_header *h, uint64_t size)
{
	unsigned bits = qcow2_l1_span_bits(h);

	return (size >> bits) + !!(size & ((UINT64_C(1) << bits) - 1));
}

/* log2 of the refcounts in one refcount block */
static inline unsigned qcow2_refblock_bits(const struct qcow2_header *h)
{
	return h->cluster_bits + 3 - h->refcount_order;
}

static inline uint64_t qcow2_refcount_max(const struct qcow2_header *h)
{
	return h->refcount_order == 6 ? UINT64_MAX :
	       (UINT64_C(1) << (1u << h->refcount_order)) - 1;
}

/*
 * Decode the first @len bytes of an image: its first cluster, or all of a file
 * that is shorter.  Pure.  What comes out is consistent in itself: values in
 * their legal ranges, offsets aligned, tables under the limits above, strings
 * without NUL.  It may still ask for features that we do not have
 * (qcow2_header_usable()) and for tables that are not in the file
 * (qcow2_header_fits()).  -EINVAL and a sentence; clear it after success.
 */
int qcow2_header_decode(struct qcow2_header *h, const uint8_t *buf, size_t len,
			struct vdisk_error *err);
void qcow2_header_clear(struct qcow2_header *h);

/* -ENOTSUP, naming the feature, if the image has one that we do not know. */
int qcow2_header_usable(const struct qcow2_header *h, struct vdisk_error *err);

/* Do the L1 table, the refcount table and the snapshot table start and end in a
 * file of @file_size bytes (whose last cluster may be short)?  Else -EINVAL. */
int qcow2_header_fits(const struct qcow2_header *h, uint64_t file_size, struct vdisk_error *err);

/*
 * Write the header's bytes to @buf, a whole cluster.  The feature name table
 * is left out where there is no room for it; -ENOSPC if even so the rest does
 * not fit.
 */
int qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf, size_t len,
			struct vdisk_error *err);

/* Write over those fields of an image's header @p (104 bytes) that change while
 * it is in use: sizes, places of tables, feature bits. */
void qcow2_header_encode_changing(const struct qcow2_header *h, uint8_t *p);

/* Read and decode the header of @file. */
int qcow2_header_read(struct qcow2_header *h, struct vdisk *file, struct vdisk_error *err);
/* Encode and write the whole first cluster. */
int qcow2_header_write(const struct qcow2_header *h, struct vdisk *file, struct vdisk_error *err);

/* Give a new header the table that names the features we know. */
int qcow2_header_name_features(struct qcow2_header *h, struct vdisk_error *err);

/* ---- entries ---- */

#define QCOW2_COPIED		(UINT64_C(1) << 63)	/* L1, L2: refcount is exactly one */
#define QCOW2_COMPRESSED	(UINT64_C(1) << 62)	/* L2 */
#define QCOW2_ZERO		(UINT64_C(1) << 0)	/* L2 of v3, not with extended L2 */
#define QCOW2_OFFSET_MASK	UINT64_C(0x00fffffffffffe00) /* L1, L2 */
#define QCOW2_L1_RESERVED	UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED	UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_MASK	UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFTABLE_RESERVED	UINT64_C(0x1ff)

/* Where the coded bytes of a compressed entry are (specification: "Compressed
 * Clusters Descriptor").  The length is an upper bound: up to the end of the
 * last 512-byte sector; it may reach past the end of the file. */
static inline void qcow2_compressed(const struct qcow2_header *h, uint64_t entry, uint64_t *off,
				    uint64_t *len)
{
	unsigned x = 62 - (h->cluster_bits - 8);
	uint64_t sectors = (entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> x;

	*off = entry & ((UINT64_C(1) << x) - 1);
	*len = (sectors + 1) * 512 - (*off & 511);
}

/* The refcount of the @i-th cluster of a refcount block (widths under a byte
 * start at the least significant bit). */
static inline uint64_t qcow2_refcount_get(const uint8_t *block, unsigned order, uint64_t i)
{
	switch (order) {
	case 6: return load_be64(block + i * 8);
	case 5: return load_be32(block + i * 4);
	case 4: return load_be16(block + i * 2);
	case 3: return block[i];
	default: {
		unsigned bits = 1u << order;
		unsigned shift = (unsigned)((i << order) & 7);

		return (unsigned)(block[(i << order) >> 3] >> shift) & ((1u << bits) - 1);
	}
	}
}

static inline void qcow2_refcount_put(uint8_t *block, unsigned order, uint64_t i, uint64_t v)
{
	switch (order) {
	case 6: store_be64(block + i * 8, v); break;
	case 5: store_be32(block + i * 4, (uint32_t)v); break;
	case 4: store_be16(block + i * 2, (uint16_t)v); break;
	case 3: block[i] = (uint8_t)v; break;
	default: {
		unsigned bits = 1u << order;
		unsigned shift = (unsigned)((i << order) & 7);
		unsigned mask = ((1u << bits) - 1) << shift;
		uint8_t *p = block + ((i << order) >> 3);

		*p = (uint8_t)((*p & ~mask) | ((unsigned)v << shift & mask));
	}
	}
}

/* ---- check.c ---- */

/* A flag beside enum vdisk_check_flags: with REPAIR, change no entry of a table
 * that makes no sense.  What a crash left behind is repaired, what somebody
 * damaged is not. */
#define QCOW2_CHECK_KEEP_ENTRIES	(1u << 16)

/*
 * Check, and with @flags (enum vdisk_check_flags) repair, the image in @file,
 * which nothing else has open.  @data: its data file, or NULL if it has none
 * (or it is not at hand).  Works from the medium alone.  A repair that leaves
 * no corruption clears the dirty and corrupt bits.
 */
int qcow2_check_file(struct vdisk *file, struct vdisk *data, unsigned flags,
		     struct vdisk_check_result *out,
		     void (*report)(void *arg, const char *finding), void *arg,
		     struct vdisk_error *err);

#endif
