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
#include "formats/vmdk/state.h"
#include "tests/fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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

static bool is_sound(struct vdisk *file)
{
	struct vdisk_check_result res = { 0 };
	struct vdisk *d = image_open(file, "vmdk", VDISK_OPEN_NO_BACKING);
	int r = d ? vdisk_check(d, 0, &res, NULL, NULL, NULL) : -1;

	vdisk_close(d, NULL);
	return r == 0 && !res.corruptions && !res.errors;
}

static void repair(struct vdisk *file)
{
	struct vdisk_check_result a = { 0 };
	struct vdisk *d = image_open(file, "vmdk", VDISK_OPEN_NO_BACKING | VDISK_OPEN_WRITE |
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
	d = image_open(file, "vmdk", 0);
	if (d) {
		image_look(d);
		vdisk_close(d, NULL);
	}
	/* as it is, or after it was written to */
	if (data[size - 1] & 1) {
		bool sound = is_sound(file);

		d = image_open(file, "vmdk", VDISK_OPEN_WRITE);
		if (d) {
			image_change(d);
			(void)vdisk_flush(d);
			vdisk_close(d, NULL);
			assert(!sound || is_sound(file));
		}
	}
	repair(file);
	vdisk_close(file, NULL);
	return 0;
}
