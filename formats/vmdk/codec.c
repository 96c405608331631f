/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec.c - compressed grains: zlib streams, behind a marker
 *
 *	0 le64 the grain's first sector on the disk
 *	8 le32 length of the stream that follows
 *
 * The last grain of a disk may be short.  Every grain of a stream-optimized file must
 * be compressed, also where it gets longer by that.
 */
#include <errno.h>
#include <libdeflate.h>

#include "formats/vmdk/state.h"

#define FAST_LEVEL	1
#define BEST_LEVEL	12

/* Deflate stores what it cannot compress in blocks of up to 65535 bytes, 5 more each. */
uint32_t vmdk_coded_bound(uint64_t grain)
{
	return (uint32_t)vd_align_up(grain + grain / 1024 + 64 + VMDK_MARKER_BYTES, VMDK_SECTOR);
}

static int inflate_grain(void *dst, size_t dst_len, const void *src, size_t src_len)
{
	struct libdeflate_decompressor *c = libdeflate_alloc_decompressor();
	enum libdeflate_result res;
	size_t used, made = 0;

	if (!c)
		return -ENOMEM;
	res = libdeflate_zlib_decompress_ex(c, src, src_len, dst, dst_len, &used, &made);
	libdeflate_free_decompressor(c);
	if (res != LIBDEFLATE_SUCCESS)
		return -EIO;
	memset((uint8_t *)dst + made, 0, dst_len - made);
	return 0;
}

static int decode_marked(void *dst, size_t dst_len, const void *src, size_t src_len)
{
	const uint8_t *p = src;
	uint32_t len;

	if (src_len < VMDK_MARKER_BYTES)
		return -EIO;
	len = load_le32(p + 8);
	if (!len || len > src_len - VMDK_MARKER_BYTES)
		return -EIO;
	return inflate_grain(dst, dst_len, p + VMDK_MARKER_BYTES, len);
}

static ssize_t encode(void *dst, size_t dst_len, const void *src, size_t src_len, int level)
{
	struct libdeflate_compressor *c =
		libdeflate_alloc_compressor(level <= 0 ? FAST_LEVEL : BEST_LEVEL);
	size_t n;

	if (!c)
		return -ENOMEM;
	n = libdeflate_zlib_compress(c, src, src_len, dst, dst_len);
	libdeflate_free_compressor(c);
	return n ? (ssize_t)n : -ENOSPC;
}

const struct vd_codec vmdk_grain = {
	.name = "deflate",
	.decode = decode_marked,
	.encode = encode,
};

const struct vd_codec vmdk_bare_grain = {
	.name = "deflate",
	.decode = inflate_grain,
	.encode = encode,
};
