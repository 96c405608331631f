/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * header.c - the first sector of a sparse file
 *
 *	 0 le32 "KDMV"       4 le32 version          8 le32 flags
 *	12 le64 capacity    20 le64 grain size      28 le64 descriptor at
 *	36 le64 its length  44 le32 GTEs per GT     48 le64 redundant GD at
 *	56 le64 GD at       64 le64 overhead        72 byte was not closed
 *	73 four bytes that a transfer as text would change
 *	77 le16 compression
 *
 * and of ESX's older kind:
 *
 *	 0 le32 "COWD"       4 le32 version          8 le32 flags
 *	12 le32 capacity    16 le32 grain size      20 le32 GD at
 *	24 le32 entries of the GD
 */
#include <errno.h>
#include <string.h>

#include "core/compiler.h"
#include "formats/vmdk/vmdk.h"

/* Of a grain: up to 32 MiB.  Of the directory: enough for 2^54 bytes in common grains. */
#define MAX_GRAIN	(1u << 16)
#define MAX_GD_ENTRIES	(1u << 23)
#define MAX_GTES	4096u
#define MAX_CAPACITY	(UINT64_C(1) << 53)	/* 4 EiB */

#define COWD_GTES	4096u

static const uint8_t newlines[4] = { '\n', ' ', '\r', '\n' };

static int bad(const char **why, int code, const char *text)
{
	*why = text;
	return -code;
}

static void decode_cowd(struct vmdk_header *h, const uint8_t *p)
{
	*h = (struct vmdk_header) {
		.cowd = true,
		.version = load_le32(p + 4),
		.flags = load_le32(p + 8) & VMDK_FLAG_NEWLINES,
		.capacity = load_le32(p + 12),
		.grain = load_le32(p + 16),
		.gd_at = load_le32(p + 20),
		.gtes = COWD_GTES,
	};
}

static void decode_hosted(struct vmdk_header *h, const uint8_t *p)
{
	*h = (struct vmdk_header) {
		.version = load_le32(p + 4),
		.flags = load_le32(p + 8),
		.capacity = load_le64(p + 12),
		.grain = load_le64(p + 20),
		.desc_at = load_le64(p + 28),
		.desc_len = load_le64(p + 36),
		.gtes = load_le32(p + 44),
		.rgd_at = load_le64(p + 48),
		.gd_at = load_le64(p + 56),
		.overhead = load_le64(p + 64),
		.unclean = p[VMDK_UNCLEAN_AT],
		.algorithm = load_le16(p + 77),
	};
}

static int check_features(const struct vmdk_header *h, const uint8_t *p, const char **why)
{
	if (h->version < 1 || h->version > 3)
		return bad(why, ENOTSUP, "is of a version that is not known");
	if (!h->cowd && (h->flags & VMDK_FLAG_NEWLINES) && memcmp(p + 73, newlines, 4) != 0)
		return bad(why, EINVAL, "was damaged by a transfer as text");
	if (h->cowd || !(h->flags & VMDK_FLAG_COMPRESSED))
		return 0;
	if (h->algorithm != VMDK_DEFLATE)
		return bad(why, ENOTSUP, "is compressed in a way that is not known");
	return 0;
}

int vmdk_header_decode(struct vmdk_header *h, const uint8_t *p, const char **why)
{
	int r;

	if (load_le32(p) == COWD_MAGIC)
		decode_cowd(h, p);
	else if (load_le32(p) == VMDK_MAGIC)
		decode_hosted(h, p);
	else
		return bad(why, EINVAL, "is not a sparse file");
	r = check_features(h, p, why);
	if (r < 0)
		return r;
	if (!vd_is_pow2(h->grain) || h->grain > MAX_GRAIN)
		return bad(why, EINVAL, "has a grain size that makes no sense");
	if (!vd_is_pow2(h->gtes) || h->gtes > MAX_GTES)
		return bad(why, EINVAL, "has grain tables of a size that makes no sense");
	if (h->capacity > MAX_CAPACITY ||
	    vd_div_up(vd_div_up(h->capacity, h->grain), h->gtes) > MAX_GD_ENTRIES)
		return bad(why, EINVAL, "is larger than such a disk can be");
	if (h->desc_at > UINT32_MAX || h->desc_len > VMDK_MAX_DESCRIPTOR / VMDK_SECTOR)
		return bad(why, EINVAL, "has a descriptor in an impossible place");
	return 0;
}

uint32_t vmdk_gd_entries(const struct vmdk_header *h)
{
	return (uint32_t)vd_div_up(vd_div_up(h->capacity, h->grain), h->gtes);
}

void vmdk_header_encode(const struct vmdk_header *h, uint8_t *p)
{
	memset(p, 0, VMDK_SECTOR);
	store_le32(p, VMDK_MAGIC);
	store_le32(p + 4, h->version);
	store_le32(p + 8, h->flags);
	store_le64(p + 12, h->capacity);
	store_le64(p + 20, h->grain);
	store_le64(p + 28, h->desc_at);
	store_le64(p + 36, h->desc_len);
	store_le32(p + 44, h->gtes);
	store_le64(p + 48, h->rgd_at);
	store_le64(p + 56, h->gd_at);
	store_le64(p + 64, h->overhead);
	p[VMDK_UNCLEAN_AT] = h->unclean;
	memcpy(p + 73, newlines, 4);
	store_le16(p + 77, h->algorithm);
}

void vmdk_marker_encode(uint8_t *p, uint64_t sectors, uint32_t type)
{
	memset(p, 0, VMDK_SECTOR);
	store_le64(p, sectors);
	store_le32(p + VMDK_MARKER_BYTES, type);
}
