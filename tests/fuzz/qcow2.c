/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2.c - the input is an image: look at it, check it, write to it, repair it
 *
 * Nothing is promised about what a damaged image reads as.  But nothing may
 * crash, hang or ask for memory out of proportion; a header that decodes must
 * survive encoding; an image that is sound stays so when it is written to; and
 * what a repair calls clean, a check must call clean.
 */
#include "formats/qcow2/qcow2.h"
#include "tests/fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void header(const uint8_t *data, size_t size)
{
	struct qcow2_header a, b;
	uint8_t *cluster;
	size_t len;

	if (qcow2_header_decode(&a, data, size, NULL) < 0)
		return;
	len = qcow2_cluster_size(&a);
	cluster = calloc(1, len);
	if (cluster && qcow2_header_encode(&a, cluster, len, NULL) == 0) {
		assert(qcow2_header_decode(&b, cluster, len, NULL) == 0);
		assert(a.size == b.size && a.l1_offset == b.l1_offset && a.l1_size == b.l1_size);
		assert(a.incompatible == b.incompatible && a.refcount_order == b.refcount_order);
		qcow2_header_clear(&b);
	}
	free(cluster);
	qcow2_header_clear(&a);
}

static void look(struct vdisk *d)
{
	struct vdisk_snapshot *list = NULL;

	image_look(d);
	if (vdisk_snapshot_list(d, &list, NULL) >= 0)
		free(list);
}

static void change(struct vdisk *d)
{
	image_change(d);
	if (vdisk_snapshot_create(d, "fuzz", NULL) == 0)
		(void)vdisk_write(d, image_buf, (size_t)MIN(vdisk_size(d), UINT64_C(512)), 0);
	(void)vdisk_snapshot_apply(d, "1", NULL);
	(void)vdisk_snapshot_delete(d, "1", NULL);
	(void)vdisk_flush(d);
}

static bool is_sound(struct vdisk *file)
{
	struct vdisk_check_result res;

	return qcow2_check_file(file, NULL, 0, &res, NULL, NULL, NULL) == 0 &&
	       !res.corruptions && !res.errors;
}

static void check(struct vdisk *file)
{
	struct vdisk_check_result a, b;

	(void)qcow2_check_file(file, NULL, 0, &a, NULL, NULL, NULL);
	if (qcow2_check_file(file, NULL, VDISK_CHECK_REPAIR, &a, NULL, NULL, NULL) < 0 ||
	    a.corruptions || a.errors)
		return;
	assert(qcow2_check_file(file, NULL, 0, &b, NULL, NULL, NULL) == 0);
	assert(!b.corruptions && !b.leaks && !b.errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk *file, *d;

	header(data, size);
	if (size < 72 || vdisk_open_memory(&file, size, NULL) < 0)
		return 0;
	assert(vdisk_write(file, data, size, 0) == 0);
	d = image_open(file, "qcow2", 0);
	if (d) {
		look(d);
		vdisk_close(d, NULL);
	}
	/* as it is, or after it was written to */
	if (data[size - 1] & 1) {
		bool sound = is_sound(file);

		d = image_open(file, "qcow2", VDISK_OPEN_WRITE);
		if (d) {
			change(d);
			vdisk_close(d, NULL);
			assert(!sound || is_sound(file));
		}
	}
	check(file);
	vdisk_close(file, NULL);
	return 0;
}
