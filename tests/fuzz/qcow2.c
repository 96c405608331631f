/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2.c - the input is an image: look at it, check it, write to it, repair it
 *
 * Nothing is promised about what a damaged image reads as.  But nothing may
 * crash, hang or ask for memory out of proportion; a header that decodes must
 * survive encoding; an image that is sound stays so when it is written to; and
 * what a repair calls clean, a check must call clean.
 */
#include <assert.h>
#include <stdio.h>

#include "formats/qcow2/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t buf[128 << 10];

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

static struct vdisk *open_image(struct vdisk *file, uint32_t flags)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = flags, .refs = VDISK_REFS_NONE, .format = "qcow2",
	};
	struct vdisk *d;

	return vdisk_open_on(&d, file, &opts, NULL) == 0 ? d : NULL;
}

static int on_info(void *arg, const struct vdisk_info_item *item)
{
	(void)arg;
	assert(item->key[0]);
	return 0;
}

static void look(struct vdisk *d)
{
	uint64_t size = vdisk_size(d), off = 0;
	struct vdisk_snapshot *list = NULL;
	struct vdisk_extent ext;

	for (unsigned i = 0; i < 256 && off < size && vdisk_map(d, off, size - off, &ext) == 0; i++) {
		assert(ext.length > 0 && ext.length <= size - off);
		off += ext.length;
	}
	(void)vdisk_read(d, buf, (size_t)MIN(size, (uint64_t)sizeof(buf)), 0);
	if (size > sizeof(buf))
		(void)vdisk_read(d, buf, sizeof(buf), size - sizeof(buf));
	if (vdisk_snapshot_list(d, &list, NULL) >= 0)
		free(list);
	(void)vdisk_info(d, on_info, NULL);
}

static void change(struct vdisk *d)
{
	uint64_t size = vdisk_size(d);

	memset(buf, 0x5a, 4096);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t off = size / 8 * i;
		size_t len = (size_t)MIN(size - off, UINT64_C(700) * (i + 1));

		if (i == 3)
			(void)vdisk_zero(d, off, len, VDISK_REQ_UNMAP);
		else if (i == 5)
			(void)vdisk_discard(d, off, MIN(size - off, UINT64_C(100000)));
		else
			(void)vdisk_write(d, buf, len, off);
		if (i == 4)
			(void)vdisk_flush(d);
	}
	if (vdisk_snapshot_create(d, "fuzz", NULL) == 0)
		(void)vdisk_write(d, buf, (size_t)MIN(size, UINT64_C(512)), 0);
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
	d = open_image(file, 0);
	if (d) {
		look(d);
		vdisk_close(d, NULL);
	}
	/* as it is, or after it was written to */
	if (data[size - 1] & 1) {
		bool sound = is_sound(file);

		d = open_image(file, VDISK_OPEN_WRITE);
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
