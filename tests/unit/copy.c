/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole disks: copy and compare against what plain memory says. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vdisk.h"

#define MIB (1u << 20)

static struct vdisk *memory(uint64_t size)
{
	struct vdisk *d = NULL;

	assert_int_equal(vdisk_open_memory(&d, size, NULL), 0);
	return d;
}

/* A raw disk in an unlinked file of its own. */
static struct vdisk *file(uint64_t size)
{
	char path[] = "/tmp/vdisk-copy-XXXXXX";
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_WRITE, .format = "raw",
	};
	struct vdisk *d = NULL;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(vdisk_open_fd(&d, fd, "test", &opts, NULL), 0);
	return d;
}

static uint64_t stored(struct vdisk *d)
{
	struct stat st;

	while (vdisk_below(d))
		d = vdisk_below(d);
	assert_int_equal(fstat(vdisk_fd(d), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* Runs of data and of zeroes, of lengths from 1 to @max. */
static uint8_t *pattern(uint64_t size, unsigned seed, unsigned max)
{
	uint8_t *buf = calloc(1, size ? size : 1);
	uint64_t at = 0;

	assert_non_null(buf);
	srandom(seed);
	while (at < size) {
		uint64_t n = (uint64_t)random() % max + 1;

		if (n > size - at)
			n = size - at;
		if (random() & 1)
			memset(buf + at, (int)(random() % 255 + 1), n);
		at += n;
	}
	return buf;
}

static void holds(struct vdisk *d, const uint8_t *want, uint64_t size)
{
	uint8_t *got = malloc(size ? size : 1);

	assert_non_null(got);
	assert_int_equal(vdisk_read(d, got, size, 0), 0);
	assert_memory_equal(got, want, size);
	free(got);
}

static void test_copy(void **state)
{
	static const uint64_t sizes[] = { 0, 512, 4096, 4096 * 3 + 512, MIB, 3 * MIB + 512 * 7,
					  9 * MIB + 1 };
	static const unsigned runs[] = { 700, 9000, 3 * MIB };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (unsigned workers = 1; workers <= 5; workers += 2) {
			uint64_t size = sizes[i];
			uint8_t *want = pattern(size, (unsigned)i + workers, runs[workers / 2]);
			struct vdisk *src = file(size), *dst = file(size + 512);
			struct vdisk_copy_opts opts = {
				.size = sizeof(opts), .workers = workers,
				.flags = VDISK_COPY_TARGET_ZERO,
			};
			uint64_t offset;

			assert_int_equal(vdisk_write(src, want, size, 0), 0);
			assert_int_equal(vdisk_copy(dst, src, &opts, NULL), 0);
			holds(dst, want, size);
			assert_int_equal(vdisk_compare(src, dst, &opts, &offset, NULL), 0);
			vdisk_close(src, NULL);
			vdisk_close(dst, NULL);
			free(want);
		}
	}
}

/* A target that is not known to be zero gets the zeroes too. */
static void test_copy_over(void **state)
{
	uint64_t size = 5 * MIB + 512;
	uint8_t *want = pattern(size, 7, 2 * MIB), *junk = malloc(size);

	(void)state;
	memset(junk, 0x55, size);
	for (int full = 0; full < 2; full++) {
		struct vdisk *src = file(size), *dst = file(size);
		struct vdisk_copy_opts opts = {
			.size = sizeof(opts), .flags = full ? VDISK_COPY_FULL : 0,
		};

		/* source: only the data, so that it has real holes */
		for (uint64_t at = 0; at < size; at += 512) {
			if (want[at] || memcmp(want + at, want + at + 1, 511))
				assert_int_equal(vdisk_write(src, want + at, 512, at), 0);
		}
		assert_int_equal(vdisk_write(dst, junk, size, 0), 0);
		assert_int_equal(vdisk_copy(dst, src, &opts, NULL), 0);
		holds(dst, want, size);
		if (full)
			assert_true(stored(dst) >= size);
		vdisk_close(src, NULL);
		vdisk_close(dst, NULL);
	}
	free(want);
	free(junk);
}

static void test_sparse(void **state)
{
	uint8_t *want = calloc(1, 4 * MIB);
	struct vdisk *src = file(4 * MIB), *fine = file(4 * MIB), *coarse = file(4 * MIB),
		     *all = file(4 * MIB);
	struct vdisk_copy_opts opts = { .size = sizeof(opts), .flags = VDISK_COPY_TARGET_ZERO };

	(void)state;
	for (size_t at = 0; at < 4 * MIB; at += 65536)
		memset(want + at, 1, 4096);	/* 4 KiB of data in every 64 */
	assert_int_equal(vdisk_write(src, want, 4 * MIB, 0), 0);
	assert_int_equal(vdisk_copy(fine, src, &opts, NULL), 0);
	assert_true(stored(fine) <= MIB / 2);
	opts.sparse = 128 << 10;
	assert_int_equal(vdisk_copy(coarse, src, &opts, NULL), 0);
	assert_true(stored(coarse) > 3 * MIB);
	opts.flags |= VDISK_COPY_FULL;
	assert_int_equal(vdisk_copy(all, src, &opts, NULL), 0);
	assert_true(stored(all) >= 4 * MIB);
	holds(fine, want, 4 * MIB);
	holds(coarse, want, 4 * MIB);
	holds(all, want, 4 * MIB);
	vdisk_close(src, NULL);
	vdisk_close(fine, NULL);
	vdisk_close(coarse, NULL);
	vdisk_close(all, NULL);
	free(want);
}

static void test_own_layer(void **state)
{
	struct vdisk *base = memory(4 * MIB), *over = NULL, *dst = memory(4 * MIB);
	struct vdisk_copy_opts opts = { .size = sizeof(opts), .flags = VDISK_COPY_OWN_LAYER };
	uint8_t *a = malloc(4 * MIB), *b = malloc(4 * MIB);

	(void)state;
	memset(a, 1, 4 * MIB);
	memset(b, 2, 4 * MIB);
	assert_int_equal(vdisk_write(base, a, 4 * MIB, 0), 0);
	assert_int_equal(vdisk_write(dst, b, 4 * MIB, 0), 0);
	assert_int_equal(vdisk_open_overlay(&over, base, "/tmp", NULL), 0);
	memset(a, 3, MIB);
	assert_int_equal(vdisk_write(over, a, MIB, MIB), 0);
	assert_int_equal(vdisk_zero(over, 3 * MIB, MIB / 2, 0), 0);
	assert_int_equal(vdisk_copy(dst, over, &opts, NULL), 0);
	memset(b + MIB, 3, MIB);
	memset(b + 3 * MIB, 0, MIB / 2);
	holds(dst, b, 4 * MIB);		/* and nothing of the base */
	vdisk_close(over, NULL);
	vdisk_close(base, NULL);
	vdisk_close(dst, NULL);
	free(a);
	free(b);
}

static void test_compare(void **state)
{
	uint64_t size = 6 * MIB + 512, offset = 0;
	uint8_t *want = pattern(size, 3, MIB);

	(void)state;
	srandom(42);
	for (int round = 0; round < 60; round++) {
		struct vdisk *a = file(size), *b = round % 3 ? file(size) : file(size + 2 * MIB);
		struct vdisk_copy_opts opts = { .size = sizeof(opts), .workers = 3 };
		uint64_t first = UINT64_MAX;

		assert_int_equal(vdisk_write(a, want, size, 0), 0);
		assert_int_equal(vdisk_write(b, want, size, 0), 0);
		for (int flips = round % 4; flips > 0; flips--) {
			uint64_t at = (uint64_t)random() % vdisk_size(b);
			uint8_t byte = at < size ? (uint8_t)~want[at] : 1;

			assert_int_equal(vdisk_write(b, &byte, 1, at), 0);
			first = at < first ? at : first;
		}
		assert_int_equal(vdisk_compare(a, b, &opts, &offset, NULL), first != UINT64_MAX);
		if (first != UINT64_MAX)
			assert_int_equal(offset, first);
		assert_int_equal(vdisk_compare(b, a, &opts, &offset, NULL), first != UINT64_MAX);
		vdisk_close(a, NULL);
		vdisk_close(b, NULL);
	}
	free(want);
}

struct seen {
	uint64_t last, stop_at;
	unsigned calls;
};

static int progress(void *arg, uint64_t done, uint64_t total)
{
	struct seen *s = arg;

	assert_true(done >= s->last && done <= total && total == 8 * MIB);
	s->last = done;
	s->calls++;
	return done >= s->stop_at;
}

static void test_progress(void **state)
{
	uint8_t *want = pattern(8 * MIB, 1, 3 * MIB);
	struct vdisk *src = memory(8 * MIB), *dst = memory(8 * MIB);
	struct seen seen = { .stop_at = UINT64_MAX };
	struct vdisk_copy_opts opts = {
		.size = sizeof(opts), .workers = 2, .progress = progress, .progress_arg = &seen,
	};
	struct vdisk_error err = { 0 };

	(void)state;
	assert_int_equal(vdisk_write(src, want, 8 * MIB, 0), 0);
	assert_int_equal(vdisk_copy(dst, src, &opts, &err), 0);
	assert_int_equal(seen.last, 8 * MIB);
	assert_true(seen.calls > 1);
	seen = (struct seen) { .stop_at = 2 * MIB };
	assert_int_equal(vdisk_copy(dst, src, &opts, &err), -ECANCELED);
	assert_int_equal(err.code, ECANCELED);
	assert_true(seen.last < 8 * MIB);
	vdisk_close(src, NULL);
	vdisk_close(dst, NULL);
	free(want);
}

static void test_refused(void **state)
{
	struct vdisk *big = memory(MIB), *small = memory(MIB / 2), *raw = file(MIB);
	struct vdisk_copy_opts opts = { .size = sizeof(opts), .flags = VDISK_COPY_COMPRESS };
	struct vdisk_error err = { 0 };

	(void)state;
	assert_int_equal(vdisk_copy(small, big, NULL, &err), -ENOSPC);
	assert_int_equal(err.code, ENOSPC);
	assert_int_equal(vdisk_copy(raw, big, &opts, &err), -ENOTSUP);
	assert_int_equal(err.code, ENOTSUP);
	vdisk_close(big, NULL);
	vdisk_close(small, NULL);
	vdisk_close(raw, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_copy_over),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_own_layer),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
