/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header: good ones come out and go back in, bad ones are refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "formats/qcow2/qcow2.h"

#define LEN 65536

/* A version 3 header of a disk of 1 GiB with clusters of 64 KiB. */
static void good(uint8_t *p)
{
	memset(p, 0, LEN);
	store_be32(p, QCOW2_MAGIC);
	store_be32(p + 4, 3);
	store_be32(p + 20, 16);
	store_be64(p + 24, UINT64_C(1) << 30);
	store_be32(p + 36, 2);
	store_be64(p + 40, 3 * 65536);
	store_be64(p + 48, 65536);
	store_be32(p + 56, 1);
	store_be32(p + 96, 4);
	store_be32(p + 100, 104);
}

static void put_ext(uint8_t *p, uint64_t *at, uint32_t type, const void *data, uint32_t len)
{
	store_be32(p + *at, type);
	store_be32(p + *at + 4, len);
	memcpy(p + *at + 8, data, len);
	*at += 8 + vd_align_up(len, 8);
}

static void decodes(void **state)
{
	AUTO_FREE uint8_t *p = malloc(LEN);
	AUTO_FREE uint8_t *again = malloc(LEN);
	struct qcow2_header h, h2;
	struct vdisk_error err = { 0 };
	uint64_t at = 104;
	uint8_t bitmaps[24] = { 0 };

	(void)state;
	good(p);
	store_be32(bitmaps, 2);
	store_be64(bitmaps + 8, 200);
	store_be64(bitmaps + 16, 10 * 65536);
	put_ext(p, &at, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	put_ext(p, &at, 0x12345678, "whatever", 8);
	put_ext(p, &at, QCOW2_EXT_BITMAPS, bitmaps, 24);
	put_ext(p, &at, 0x9abcdef0, "", 0);
	store_be64(p + 8, 60000);
	store_be32(p + 16, 4);
	memcpy(p + 60000, "base", 4);
	assert_int_equal(qcow2_header_decode(&h, p, LEN, &err), 0);
	assert_string_equal(h.backing_name, "base");
	assert_string_equal(h.backing_format, "raw");
	assert_true(h.has_bitmaps);
	assert_int_equal(h.n_ext, 2);
	assert_int_equal(qcow2_header_usable(&h, &err), 0);
	assert_int_equal(qcow2_header_fits(&h, 4 * 65536, &err), 0);
	assert_int_equal(qcow2_header_fits(&h, 3 * 65536, &err), -EINVAL);

	assert_int_equal(qcow2_header_encode(&h, again, LEN, &err), 0);
	assert_int_equal(qcow2_header_decode(&h2, again, LEN, &err), 0);
	assert_string_equal(h2.backing_name, "base");
	assert_int_equal(h2.n_ext, 2);
	assert_int_equal(h2.ext[0].type, 0x12345678);
	assert_memory_equal(h2.ext[0].data, "whatever", 8);
	assert_int_equal(h2.bitmap_dir_offset, 10 * 65536);
	assert_int_equal(h2.size, h.size);
	qcow2_header_clear(&h);
	qcow2_header_clear(&h2);
}

static void version_2(void **state)
{
	AUTO_FREE uint8_t *p = malloc(LEN);
	struct vdisk_error err = { 0 };
	struct qcow2_header h;

	(void)state;
	good(p);
	store_be32(p + 4, 2);
	memset(p + 72, 0, 40);	/* no feature words there: extensions */
	assert_int_equal(qcow2_header_decode(&h, p, LEN, &err), 0);
	assert_int_equal(h.refcount_order, 4);
	assert_int_equal(h.header_length, 72);
	qcow2_header_clear(&h);
	assert_int_equal(qcow2_header_decode(&h, p, 72, &err), 0);
	qcow2_header_clear(&h);
	assert_int_equal(qcow2_header_decode(&h, p, 71, &err), -EINVAL);
}

/* One field changed to something that must not pass. */
static const struct {
	unsigned at, bytes;
	uint64_t value;
	const char *says;
} wrong[] = {
	{ 0, 4, 0x514649fa, "no qcow2 header" },
	{ 4, 4, 1, "version 1" },
	{ 4, 4, 4, "version 4" },
	{ 20, 4, 8, "cluster size" },
	{ 20, 4, 22, "cluster size" },
	{ 24, 8, UINT64_MAX, "too small" },
	{ 24, 8, (UINT64_C(1) << 30) + 1, "too small" },
	{ 32, 4, 3, "encryption method" },
	{ 36, 4, 1, "too small" },
	{ 36, 4, UINT32_MAX, "too large" },
	{ 40, 8, 3 * 65536 + 512, "not aligned" },
	{ 40, 8, UINT64_C(0xffffffffffff0000), "out of range" },
	{ 48, 8, 1, "not aligned" },
	{ 56, 4, UINT32_MAX, "too large" },
	{ 60, 4, 65537, "too many" },
	{ 96, 4, 7, "64 bits" },
	{ 100, 4, 103, "header length" },
	{ 100, 4, 108, "header length" },
	{ 100, 4, 65536 + 8, "first cluster" },
	{ 72, 8, QCOW2_INCOMPAT_COMPRESSION, "compression type" },
	{ 8, 8, 50, "first cluster" },
	{ 8, 8, 65530, "first cluster" },
	{ 16, 4, 1024, "too long" },
};

static void refuses(void **state)
{
	AUTO_FREE uint8_t *p = malloc(LEN);

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct vdisk_error err = { 0 };
		struct qcow2_header h;
		int r;

		good(p);
		store_be64(p + 8, 1000);
		store_be32(p + 16, 10);
		memset(p + 1000, 'x', 10);
		if (wrong[i].bytes == 8)
			store_be64(p + wrong[i].at, wrong[i].value);
		else
			store_be32(p + wrong[i].at, (uint32_t)wrong[i].value);
		r = qcow2_header_decode(&h, p, LEN, &err);
		if (r >= 0 || !strstr(err.msg, wrong[i].says))
			fail_msg("%u: %d '%s', not '%s'", i, r, err.msg, wrong[i].says);
	}
}

static void refuses_extensions(void **state)
{
	AUTO_FREE uint8_t *p = malloc(LEN);
	struct vdisk_error err = { 0 };
	struct qcow2_header h;
	uint64_t at = 104;

	(void)state;
	good(p);
	put_ext(p, &at, QCOW2_EXT_BACKING_FORMAT, "r\0w", 3);
	assert_int_equal(qcow2_header_decode(&h, p, LEN, &err), -EINVAL);
	good(p);
	store_be32(p + 104, 0x11111111);
	store_be32(p + 108, UINT32_MAX);
	assert_int_equal(qcow2_header_decode(&h, p, LEN, &err), -EINVAL);
	good(p);
	at = 104;
	for (unsigned i = 0; i < QCOW2_MAX_EXTENSIONS + 1; i++)
		put_ext(p, &at, 0x22222222, "", 0);
	assert_int_equal(qcow2_header_decode(&h, p, LEN, &err), -EINVAL);
	good(p);
	at = 104;
	put_ext(p, &at, QCOW2_EXT_BITMAPS, "short", 5);
	assert_int_equal(qcow2_header_decode(&h, p, LEN, &err), -EINVAL);
}

static void names_features(void **state)
{
	AUTO_FREE uint8_t *p = malloc(LEN);
	struct vdisk_error err = { 0 };
	struct qcow2_header h;
	uint8_t table[48] = { 0, 40 };
	uint64_t at = 104;

	(void)state;
	good(p);
	memcpy(table + 2, "warp\x1b drive", 11);
	put_ext(p, &at, QCOW2_EXT_FEATURE_TABLE, table, 48);
	store_be64(p + 72, UINT64_C(1) << 40 | UINT64_C(1) << 41);
	assert_int_equal(qcow2_header_decode(&h, p, LEN, &err), 0);
	assert_int_equal(qcow2_header_usable(&h, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "\"warp? drive\""));
	assert_non_null(strstr(err.msg, "bit 41"));
	qcow2_header_clear(&h);
}

/* A small cluster has no room for the feature names: they go, the rest stays. */
static void small_cluster(void **state)
{
	struct qcow2_header h = { .version = 3, .cluster_bits = 9, .refcount_order = 4 };
	struct vdisk_error err = { 0 };
	uint8_t buf[512];

	(void)state;
	assert_int_equal(qcow2_header_name_features(&h, &err), 0);
	h.backing_name = strdup("a-backing-file-with-a-name.qcow2");
	h.backing_format = strdup("qcow2");
	assert_int_equal(qcow2_header_encode(&h, buf, sizeof(buf), &err), 0);
	assert_int_equal(load_be32(buf + 16), 32);
	free(h.backing_name);
	h.backing_name = malloc(1001);
	memset(h.backing_name, 'n', 1000);
	h.backing_name[1000] = '\0';
	assert_int_equal(qcow2_header_encode(&h, buf, sizeof(buf), &err), -ENOSPC);
	qcow2_header_clear(&h);
}

/* Fields of every width, and that neighbours stay as they are. */
static void refcount_fields(void **state)
{
	(void)state;
	for (unsigned order = 0; order <= 6; order++) {
		uint64_t max = order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
		uint8_t block[64];

		memset(block, 0xff, sizeof(block));
		for (unsigned i = 0; i < 8; i++)
			qcow2_refcount_put(block, order, i, i & max);
		for (unsigned i = 0; i < 8; i++)
			assert_true(qcow2_refcount_get(block, order, i) == (i & max));
		if (order < 6)
			assert_true(qcow2_refcount_get(block, order, 8) == max);
	}
	/* below a byte, the least significant bits come first */
	uint8_t bits[1] = { 0 };

	qcow2_refcount_put(bits, 1, 1, 3);
	assert_int_equal(bits[0], 0x0c);
}

static void compressed_descriptors(void **state)
{
	struct qcow2_header h = { .cluster_bits = 16 };
	uint64_t off, len;

	(void)state;
	qcow2_compressed(&h, QCOW2_COMPRESSED | UINT64_C(3) << 54 | 0x10064, &off, &len);
	assert_int_equal(off, 0x10064);
	assert_int_equal(len, 4 * 512 - 0x64);
	h.cluster_bits = 9;	/* the offset has 61 bits */
	qcow2_compressed(&h, QCOW2_COMPRESSED | UINT64_C(1) << 61 | 0x200, &off, &len);
	assert_int_equal(off, 0x200);
	assert_int_equal(len, 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes), cmocka_unit_test(version_2), cmocka_unit_test(refuses),
		cmocka_unit_test(refuses_extensions), cmocka_unit_test(names_features),
		cmocka_unit_test(small_cluster), cmocka_unit_test(refcount_fields),
		cmocka_unit_test(compressed_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
