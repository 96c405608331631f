/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec.c - compressed clusters: raw deflate and zstd
 *
 * Pure functions over memory, on any thread; what they need beside it is the
 * thread's own, made at its first cluster and freed when it ends.
 *
 * Deflate streams must not look back further than 4 KiB: that is the window
 * other readers inflate with.  A stream with a larger one decodes there as long
 * as the whole cluster is inflated in one step, and fails otherwise.  ISA-L
 * (hist_bits) and zlib (windowBits) can be told; libdeflate cannot, so it only
 * decodes.
 */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include "formats/qcow2/state.h"

#define WINDOW_BITS	12
#define FAST_LEVEL	3	/* of ISA-L: within 8 % of zlib's size, 13 times as fast */
#define ZSTD_FAST	1
#define ZSTD_BEST	12

struct contexts {
	struct libdeflate_decompressor *inflate;
	struct isal_zstream *isal;
	uint8_t *isal_buf;
	z_stream zlib;
	bool zlib_ready;
	ZSTD_CCtx *zc;
	ZSTD_DCtx *zd;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int key_error;

static void contexts_free(void *arg)
{
	struct contexts *c = arg;

	libdeflate_free_decompressor(c->inflate);
	free(c->isal);
	free(c->isal_buf);
	if (c->zlib_ready)
		deflateEnd(&c->zlib);
	ZSTD_freeCCtx(c->zc);
	ZSTD_freeDCtx(c->zd);
	free(c);
}

static void make_key(void)
{
	key_error = pthread_key_create(&key, contexts_free);
}

/* This thread's; NULL: no memory. */
static struct contexts *contexts(void)
{
	struct contexts *c;

	pthread_once(&once, make_key);
	if (key_error)
		return NULL;
	c = pthread_getspecific(key);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (c && pthread_setspecific(key, c)) {
		free(c);
		c = NULL;
	}
	return c;
}

/* ---- deflate ---- */

static int deflate_decode(void *dst, size_t dst_len, const void *src, size_t src_len)
{
	struct contexts *c = contexts();
	enum libdeflate_result res;
	size_t used, made;

	if (c && !c->inflate)
		c->inflate = libdeflate_alloc_decompressor();
	if (!c || !c->inflate)
		return -ENOMEM;
	/* "ex": what follows the stream in its last sector is not ours */
	res = libdeflate_deflate_decompress_ex(c->inflate, src, src_len, dst, dst_len, &used,
					       &made);
	return res == LIBDEFLATE_SUCCESS && made == dst_len ? 0 : -EIO;
}

static int isal_ready(struct contexts *c)
{
	if (!c->isal)
		c->isal = malloc(sizeof(*c->isal));
	if (!c->isal_buf)
		c->isal_buf = malloc(ISAL_DEF_LVL3_DEFAULT);
	if (!c->isal || !c->isal_buf)
		return -ENOMEM;
	isal_deflate_init(c->isal);
	c->isal->level = FAST_LEVEL;
	c->isal->level_buf = c->isal_buf;
	c->isal->level_buf_size = ISAL_DEF_LVL3_DEFAULT;
	c->isal->hist_bits = WINDOW_BITS;
	return 0;
}

static ssize_t encode_isal(struct contexts *c, uint8_t *dst, size_t dst_len, uint8_t *src,
			   size_t src_len)
{
	struct isal_zstream *s;

	if (isal_ready(c) < 0)
		return -ENOMEM;
	s = c->isal;
	s->end_of_stream = 1;
	s->flush = NO_FLUSH;
	s->next_in = src;
	s->avail_in = (uint32_t)src_len;
	s->next_out = dst;
	s->avail_out = (uint32_t)dst_len;
	if (isal_deflate(s) != COMP_OK)
		return -EIO;
	return s->internal_state.state == ZSTATE_END && s->avail_out ?
	       (ssize_t)s->total_out : -ENOSPC;
}

static ssize_t encode_zlib(struct contexts *c, uint8_t *dst, size_t dst_len, uint8_t *src,
			   size_t src_len)
{
	z_stream *z = &c->zlib;

	if (!c->zlib_ready && deflateInit2(z, Z_BEST_COMPRESSION, Z_DEFLATED, -WINDOW_BITS, 9,
					   Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	c->zlib_ready = true;
	deflateReset(z);
	z->next_in = src;
	z->avail_in = (uInt)src_len;
	z->next_out = dst;
	z->avail_out = (uInt)dst_len;
	return deflate(z, Z_FINISH) == Z_STREAM_END && z->avail_out ? (ssize_t)z->total_out :
								      -ENOSPC;
}

static ssize_t deflate_encode(void *dst, size_t dst_len, const void *src, size_t src_len,
			      int level)
{
	struct contexts *c = contexts();
	uint8_t *in = (uint8_t *)(uintptr_t)src;	/* neither writes to it */
	ssize_t n = -EIO;

	if (!c)
		return -ENOMEM;
	if (level <= 0)
		n = encode_isal(c, dst, dst_len, in, src_len);
	return n == -EIO ? encode_zlib(c, dst, dst_len, in, src_len) : n;
}

const struct vd_codec qcow2_deflate = {
	.name = "deflate",
	.decode = deflate_decode,
	.encode = deflate_encode,
};

/* ---- zstd ---- */

static int zstd_decode(void *dst, size_t dst_len, const void *src, size_t src_len)
{
	struct contexts *c = contexts();
	ZSTD_outBuffer out = { .dst = dst, .size = dst_len };
	ZSTD_inBuffer in = { .src = src, .size = src_len };

	if (c && !c->zd)
		c->zd = ZSTD_createDCtx();
	if (!c || !c->zd)
		return -ENOMEM;
	ZSTD_DCtx_reset(c->zd, ZSTD_reset_session_only);
	while (out.pos < out.size) {
		size_t before = in.pos + out.pos;

		if (ZSTD_isError(ZSTD_decompressStream(c->zd, &out, &in)) ||
		    in.pos + out.pos == before)
			return -EIO;
	}
	return 0;
}

static ssize_t zstd_encode(void *dst, size_t dst_len, const void *src, size_t src_len, int level)
{
	struct contexts *c = contexts();
	size_t n;

	if (c && !c->zc)
		c->zc = ZSTD_createCCtx();
	if (!c || !c->zc)
		return -ENOMEM;
	n = ZSTD_compressCCtx(c->zc, dst, dst_len, src, src_len,
			      level <= 0 ? ZSTD_FAST : ZSTD_BEST);
	return ZSTD_isError(n) || n >= dst_len ? -ENOSPC : (ssize_t)n;
}

const struct vd_codec qcow2_zstd = {
	.name = "zstd",
	.decode = zstd_decode,
	.encode = zstd_encode,
};
