/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk_copy_range() against memmove(): between disks, within one, overlapping, sparse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vdisk.h"

#define SIZE	(3u << 20)

static uint8_t want[2][SIZE], got[SIZE];

/* A disk in an unlinked file: in itself raw, or qcow2. */
static struct vdisk *open_disk(const char *format)
{
	char path[] = "/tmp/vdisk-range-XXXXXX";
	struct vdisk_create_opts create = { .size = sizeof(create), .format = format, .overwrite = true };
	struct vdisk_open_opts opts = { .size = sizeof(opts), .flags = VDISK_OPEN_WRITE, .format = format };
	struct vdisk *d = NULL;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(vdisk_create(path, SIZE, &create, NULL), 0);
	assert_int_equal(vdisk_open(&d, path, &opts, NULL), 0);
	unlink(path);
	return d;
}

static struct vdisk *memory(void)
{
	struct vdisk *d = NULL;

	assert_int_equal(vdisk_open_memory(&d, SIZE, NULL), 0);
	return d;
}

static void fill(struct vdisk *d, uint8_t *model, uint64_t off, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		model[off + i] = (uint8_t)(random() % 255 + 1);
	assert_int_equal(vdisk_write(d, model + off, len, off), 0);
}

static void holds(struct vdisk *d, const uint8_t *model)
{
	assert_int_equal(vdisk_read(d, got, SIZE, 0), 0);
	assert_memory_equal(got, model, SIZE);
}

/* Random ranges, at any byte, in both directions and within one disk, over each other. */
static void against_memmove(struct vdisk *a, struct vdisk *b)
{
	struct vdisk *disk[2] = { a, b };

	memset(want, 0, sizeof(want));
	srandom(7);
	for (unsigned i = 0; i < 60; i++) {
		unsigned from = (unsigned)random() & 1, to = (unsigned)random() & 1;
		uint64_t len = (uint64_t)random() % (i & 1 ? SIZE / 2 : 9000) + 1;
		uint64_t src = (uint64_t)random() % (SIZE - len + 1), dst = (uint64_t)random() % (SIZE - len + 1);

		if (i % 4 == 0)		/* near each other: they overlap */
			dst = src + len / 3 <= SIZE - len ? src + len / 3 : src;
		if (i % 3 == 0)
			fill(disk[from], want[from], src, len / 2 + 1 < 100000 ? len / 2 + 1 : 100000);
		assert_int_equal(vdisk_copy_range(disk[to], dst, disk[from], src, len), 0);
		memmove(want[to] + dst, want[from] + src, len);
	}
	holds(a, want[0]);
	holds(b, want[1]);
	vdisk_close(a, NULL);
	vdisk_close(b, NULL);
}

static void test_raw(void **state)
{
	(void)state;
	against_memmove(open_disk("raw"), open_disk("raw"));
}

static void test_qcow2(void **state)
{
	(void)state;
	against_memmove(open_disk("qcow2"), open_disk("raw"));
}

static void test_memory(void **state)
{
	(void)state;
	against_memmove(memory(), open_disk("qcow2"));
}

/* What reads as zeroes takes no space where it arrives, and data there are gone. */
static void test_zeroes(void **state)
{
	struct vdisk *src = open_disk("qcow2"), *dst = open_disk("qcow2");
	struct vdisk_extent e = { 0 };

	(void)state;
	memset(want, 0, sizeof(want));
	fill(dst, want[1], 0, SIZE);
	fill(src, want[0], 1 << 20, 65536);
	assert_int_equal(vdisk_copy_range(dst, 0, src, 0, SIZE), 0);
	holds(dst, want[0]);
	assert_int_equal(vdisk_map(dst, 0, SIZE, &e), 0);
	assert_true(e.kind == VDISK_ZERO || e.kind == VDISK_HOLE);
	assert_int_equal(e.length, 1 << 20);
	vdisk_close(src, NULL);
	vdisk_close(dst, NULL);
}

static void test_refused(void **state)
{
	struct vdisk *a = memory(), *b = memory();

	(void)state;
	memset(want, 0, sizeof(want));
	fill(a, want[0], 0, 512);
	assert_true(vdisk_copy_range(b, SIZE - 511, a, 0, 512) < 0);
	assert_true(vdisk_copy_range(b, 0, a, SIZE - 511, 512) < 0);
	assert_true(vdisk_copy_range(b, UINT64_MAX, a, 0, 2) < 0);
	assert_true(vdisk_copy_range(b, 0, a, 2, UINT64_MAX) < 0);
	assert_int_equal(vdisk_copy_range(b, SIZE, a, 0, 0), 0);
	holds(b, want[1]);
	vdisk_close(a, NULL);
	vdisk_close(b, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_qcow2),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_zeroes),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
