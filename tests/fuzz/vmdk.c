/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk.c - the input is a descriptor, and an image: look at it, check it, write to it,
 * repair it
 *
 * Nothing is promised about what a damaged image reads as.  But nothing may crash, hang
 * or ask for memory out of proportion; a header that decodes must survive encoding; an
 * image that is sound stays so when it is written to; and what a repair calls clean, a
 * check must call clean.
 */
#include <assert.h>

#include "formats/vmdk/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t buf[128 << 10];

static void header(const uint8_t *data)
{
	uint8_t sector[VMDK_SECTOR];
	struct vmdk_header a, b;
	const char *why = NULL;

	if (vmdk_header_decode(&a, data, &why) < 0) {
		assert(why);
		return;
	}
	if (a.cowd)
		return;
	vmdk_header_encode(&a, sector);
	assert(vmdk_header_decode(&b, sector, &why) == 0);
	assert(a.capacity == b.capacity && a.grain == b.grain && a.gtes == b.gtes);
	assert(a.gd_at == b.gd_at && a.rgd_at == b.rgd_at && a.flags == b.flags);
	assert(vmdk_gd_entries(&a) == vmdk_gd_entries(&b));
}

static void descriptor(const uint8_t *data, size_t size)
{
	struct vmdk_descriptor d;

	(void)vmdk_descriptor_begins(data, size);
	if (vmdk_descriptor_parse(&d, (const char *)data, size, NULL) < 0)
		return;
	assert(d.type && d.cid_digits >= 1 && d.cid_digits <= 8);
	assert(vd_in_range(d.cid_at, d.cid_digits, size));
	for (unsigned i = 0; i < d.n_lines; i++)
		assert(d.line[i].kind == VMDK_ZERO || d.line[i].name[0]);
	vmdk_descriptor_clear(&d);
}

static struct vdisk *open_image(struct vdisk *file, uint32_t flags)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = flags, .refs = VDISK_REFS_NONE, .format = "vmdk",
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
	struct vdisk_extent ext;

	for (unsigned i = 0; i < 256 && off < size && vdisk_map(d, off, size - off, &ext) == 0; i++) {
		assert(ext.length > 0 && ext.length <= size - off);
		off += ext.length;
	}
	(void)vdisk_read(d, buf, (size_t)MIN(size, (uint64_t)sizeof(buf)), 0);
	if (size > sizeof(buf))
		(void)vdisk_read(d, buf, sizeof(buf), size - sizeof(buf));
	(void)vdisk_info(d, on_info, NULL);
}

static void change(struct vdisk *d)
{
	uint64_t size = vdisk_size(d);

	memset(buf, 0x5a, 8192);
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
	(void)vdisk_flush(d);
}

static bool is_sound(struct vdisk *file)
{
	struct vdisk_check_result res = { 0 };
	struct vdisk *d = open_image(file, VDISK_OPEN_NO_BACKING);
	int r = d ? vdisk_check(d, 0, &res, NULL, NULL, NULL) : -1;

	vdisk_close(d, NULL);
	return r == 0 && !res.corruptions && !res.errors;
}

static void repair(struct vdisk *file)
{
	struct vdisk_check_result a = { 0 };
	struct vdisk *d = open_image(file, VDISK_OPEN_NO_BACKING | VDISK_OPEN_WRITE |
				     VDISK_OPEN_CHECK);
	int r = d ? vdisk_check(d, VDISK_CHECK_REPAIR, &a, NULL, NULL, NULL) : -1;

	vdisk_close(d, NULL);
	if (r == 0 && !a.corruptions && !a.errors)
		assert(is_sound(file));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk *file, *d;

	descriptor(data, size);
	if (size < VMDK_SECTOR || vdisk_open_memory(&file, size, NULL) < 0)
		return 0;
	header(data);
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
	repair(file);
	vdisk_close(file, NULL);
	return 0;
}
