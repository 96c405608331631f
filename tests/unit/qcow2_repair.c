/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2_repair.c - the power fails while an image is being repaired
 *
 * An image is damaged and repaired on a disk that loses power at the n-th
 * write, for n = 0, 1, ... until the repair completes.  Of the writes since
 * the last flush, all, none or every other one reach the medium.  Whatever
 * stands then, a second repair must end with a clean image and the same data.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "formats/qcow2/qcow2.h"
#include "tests/unit/medium.h"

#define DISK_SIZE	(128u << 10)
#define CLUSTER		512u

/* ---- an image to damage ---- */

static uint8_t image[MEDIUM_CAPACITY], expected[DISK_SIZE], got[DISK_SIZE];
static uint64_t image_size;
static struct qcow2_header hdr;

static struct vdisk *open_qcow2(struct vdisk *file, uint32_t flags)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .format = "qcow2", .flags = flags };
	struct vdisk_error err = { 0 };
	struct vdisk *d;

	if (vdisk_open_on(&d, file, &o, &err) < 0)
		fail_msg("%s", err.msg);
	return d;
}

/* Data, a snapshot that shares some of it, and data after that. */
static int make_image(void **state UNUSED)
{
	static const struct vdisk_option options[] = { { "cluster_size", "512" } };
	struct vdisk_create_opts o = {
		.size = sizeof(o), .format = "qcow2", .options = options, .n_options = 1,
		.overwrite = true,
	};
	char path[] = "/tmp/vdisk-repair-XXXXXX";
	int fd = mkstemp(path);
	struct vdisk_error err = { 0 };
	struct vdisk *d;

	if (fd < 0 || vdisk_create(path, DISK_SIZE, &o, &err) < 0 ||
	    vdisk_open(&d, path, &(struct vdisk_open_opts) {
			.size = sizeof(struct vdisk_open_opts), .format = "qcow2",
			.flags = VDISK_OPEN_WRITE }, &err) < 0)
		fail_msg("%s", err.msg);
	for (unsigned i = 0; i < 40000; i++)
		expected[i + 1000] = (uint8_t)(i / 7 + 1);
	assert_int_equal(vdisk_write(d, expected, 60000, 0), 0);
	assert_int_equal(vdisk_snapshot_create(d, "one", &err), 0);
	memset(expected + 3000, 0xee, 5000);
	assert_int_equal(vdisk_write(d, expected + 3000, 5000, 3000), 0);
	assert_int_equal(vdisk_close(d, &err), 0);
	close(fd);
	fd = open(path, 0);
	image_size = (uint64_t)pread(fd, image, sizeof(image), 0);
	close(fd);
	unlink(path);
	assert_int_equal(qcow2_header_decode(&hdr, image, image_size, &err), 0);
	return 0;
}

static int drop_image(void **state UNUSED)
{
	qcow2_header_clear(&hdr);
	return 0;
}

static uint8_t *l1_entry(uint8_t *img, unsigned i)
{
	return img + hdr.l1_offset + 8 * i;
}

static uint8_t *l2_entry(uint8_t *img, unsigned i)
{
	uint64_t l2 = load_be64(l1_entry(img, i / 64)) & QCOW2_OFFSET_MASK;

	return img + l2 + 8 * (i % 64);
}

static uint8_t *refblock(uint8_t *img)
{
	return img + load_be64(img + hdr.reftable_offset);
}

static void flip(uint8_t *p, uint64_t bits)
{
	store_be64(p, load_be64(p) ^ bits);
}

/* Every kind keeps the guest's data within reach. */
static const char *damage(uint8_t *img, unsigned kind)
{
	switch (kind) {
	case 0:
		memset(refblock(img), 0, CLUSTER);
		return "all refcounts zero";
	case 1:
		memset(refblock(img) + 100, 0x77, 100);
		return "refcounts too high";
	case 2:
		store_be64(img + hdr.reftable_offset, 0);
		return "no refcount block";
	case 3:
		store_be64(img + hdr.reftable_offset, load_be64(img + hdr.reftable_offset) + 8);
		return "refcount block unaligned";
	case 4:
		for (unsigned i = 0; i < 100; i += 3)
			flip(l2_entry(img, i), QCOW2_COPIED);
		flip(l1_entry(img, 0), QCOW2_COPIED);
		return "COPIED flags wrong";
	case 5:
		flip(l2_entry(img, 7), 2);
		flip(l1_entry(img, 0), 1);
		store_be16(refblock(img) + 2, 9);
		return "reserved bits, and a leak";
	case 6:
		memset(refblock(img), 0, 128);
		store_be64(img + 72, QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
		return "dirty and corrupt";
	}
	return NULL;
}

/* ---- the tests ---- */

static void expect_clean(struct vdisk *file, const char *what, unsigned n)
{
	struct vdisk_check_result res = { 0 };
	struct vdisk_error err = { 0 };
	struct vdisk *d;

	if (qcow2_check_file(file, NULL, VDISK_CHECK_REPAIR, &res, NULL, NULL, &err) < 0)
		fail_msg("%s, power lost at write %u: %s", what, n, err.msg);
	if (res.corruptions || res.leaks || res.errors)
		fail_msg("%s, power lost at write %u: not clean after a second repair", what, n);
	d = open_qcow2(file, 0);
	assert_int_equal(vdisk_size(d), DISK_SIZE);
	assert_int_equal(vdisk_read(d, got, DISK_SIZE, 0), 0);
	if (memcmp(got, expected, DISK_SIZE))
		fail_msg("%s, power lost at write %u: the data changed", what, n);
	vdisk_close(d, NULL);
}

/* Repair until the power fails at write @n; is it complete before that? */
static bool repair_interrupted(const uint8_t *damaged, const char *what, unsigned n, enum fate fate)
{
	static struct medium first, second;
	struct vdisk *file = new_medium(&first, damaged, image_size, n, fate);
	struct vdisk_check_result res = { 0 };
	int r = qcow2_check_file(file, NULL, VDISK_CHECK_REPAIR, &res, NULL, NULL, NULL);
	bool complete = !first.off;

	assert_int_equal(r < 0, first.off);
	if (complete && (res.corruptions || res.leaks || res.errors))
		fail_msg("%s: not repaired", what);
	vdisk_close(file, NULL);
	file = new_medium(&second, first.stable, first.stable_size, UINT32_MAX, ALL_ARRIVE);
	expect_clean(file, what, n);
	vdisk_close(file, NULL);
	return complete;
}

static void power_fails(void **state UNUSED)
{
	static uint8_t damaged[MEDIUM_CAPACITY];
	unsigned runs = 0;

	for (unsigned kind = 0; ; kind++) {
		const char *what;

		memcpy(damaged, image, sizeof(image));
		what = damage(damaged, kind);
		if (!what)
			break;
		for (int fate = ALL_ARRIVE; fate <= EVERY_OTHER; fate++)
			for (unsigned n = 0; ; n++) {
				runs++;
				if (repair_interrupted(damaged, what, n, (enum fate)fate))
					break;
			}
	}
	print_message("%u interrupted repairs\n", runs);
	assert_true(runs > 60);
}

/* A check alone writes nothing, and finds every kind of damage. */
static void check_only_reads(void **state UNUSED)
{
	static uint8_t damaged[MEDIUM_CAPACITY];
	static struct medium m;

	for (unsigned kind = 0; ; kind++) {
		struct vdisk_check_result res = { 0 };
		struct vdisk *file;

		memcpy(damaged, image, sizeof(image));
		if (!damage(damaged, kind))
			break;
		file = new_medium(&m, damaged, image_size, 0, ALL_ARRIVE);
		assert_int_equal(qcow2_check_file(file, NULL, 0, &res, NULL, NULL, NULL), 0);
		assert_false(m.off);
		assert_true(res.corruptions + res.leaks > 0);
		vdisk_close(file, NULL);
	}
}

/* Opening an image that was not closed repairs it, but changes no entry. */
static void dirty_open(void **state UNUSED)
{
	static uint8_t damaged[MEDIUM_CAPACITY];
	static struct medium m;
	struct vdisk_open_opts o = {
		.size = sizeof(o), .format = "qcow2", .flags = VDISK_OPEN_WRITE,
	};
	struct vdisk *file, *d;

	memcpy(damaged, image, sizeof(image));
	damage(damaged, 6);
	store_be64(damaged + 72, QCOW2_INCOMPAT_DIRTY);
	file = new_medium(&m, damaged, image_size, UINT32_MAX, ALL_ARRIVE);
	d = open_qcow2(file, VDISK_OPEN_WRITE);
	vdisk_close(d, NULL);
	expect_clean(file, "dirty", 0);
	vdisk_close(file, NULL);

	flip(l2_entry(damaged, 7), 1024 * 1024);	/* outside the file */
	file = new_medium(&m, damaged, image_size, UINT32_MAX, ALL_ARRIVE);
	assert_true(vdisk_open_on(&d, file, &o, NULL) < 0);
	assert_memory_equal(l2_entry(m.now, 7), l2_entry(damaged, 7), 8);
	vdisk_close(file, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(check_only_reads),
		cmocka_unit_test(power_fails),
		cmocka_unit_test(dirty_open),
	};

	return cmocka_run_group_tests(tests, make_image, drop_image);
}
