/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lvm.c - hostile LVM2 metadata
 *
 * Input that begins with "B" is the first sectors of a device and a sector
 * that would be the header of its metadata area, which get the checksums that
 * they need.  Everything else is the text of a group, whose physical volumes
 * are then found on two disks; and it is written with other names, which must be
 * a group of that name again, with the next number.  What can be opened must map to bytes on those
 * disks, outside of their metadata, everywhere.
 */
#include <assert.h>
#include <stdio.h>

#include "lvm/lvm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_SIZE ((uint64_t)64 << 20)
#define MDA_AT 4096u
#define MDA_SIZE ((1u << 20) - MDA_AT)

static void binary(const uint8_t *data, size_t size)
{
	uint8_t head[LVM_LABEL_SCAN + LVM_MDA_HEADER] = { 0 };
	uint8_t *mda = head + LVM_LABEL_SCAN;
	struct lvm_text_place place;
	struct lvm_label label;
	const char *why = NULL;

	memcpy(head, data, MIN(size, sizeof(head)));
	for (unsigned i = 0; i < 4; i++)
		store_le32(head + 512 * i + 16, lvm_crc(head + 512 * i + 20, 492));
	store_le32(mda, lvm_crc(mda + 4, 508));
	if (lvm_label_decode(&label, head, LVM_LABEL_SCAN, &why) < 0)
		return;
	assert(strlen(label.uuid) == 38);
	for (unsigned i = 0; i < label.n_meta; i++) {
		const struct lvm_area *a = &label.meta[i];

		assert(a->offset + a->length >= a->offset);
		if (lvm_mda_decode(&place, mda, a, &why) < 0 || place.empty)
			continue;
		assert(place.offset >= LVM_MDA_HEADER && place.offset < a->length);
		assert(place.size && place.size <= a->length - LVM_MDA_HEADER);
	}
}

static struct lvm_device *devices(void)
{
	static struct lvm_device dev[2];

	for (unsigned i = 0; i < 2 && !dev[i].disk; i++) {
		assert(vdisk_open_memory(&dev[i].disk, DISK_SIZE, NULL) == 0);
		dev[i].size = DISK_SIZE;
		dev[i].label.meta[0] = (struct lvm_area) { MDA_AT, MDA_SIZE };
		dev[i].label.n_meta = 1;
	}
	return dev;
}

static void check_range(struct vdisk *d, uint64_t off)
{
	struct vdisk_extent e;
	uint8_t byte;

	assert(vdisk_map(d, off, vdisk_size(d) - off, &e) == 0);
	assert(e.length > 0 && e.length <= vdisk_size(d) - off);
	if (e.kind == VDISK_DATA) {
		assert(vd_in_range(e.source_offset, e.length, DISK_SIZE));
		assert(e.source_offset >= MDA_AT + MDA_SIZE ||
		       (e.source_offset >= LVM_LABEL_SCAN && e.source_offset + e.length <= MDA_AT));
	}
	assert(vdisk_read(d, &byte, 1, off) == 0);
}

static void open_volume(const struct lvm_group *g, const struct lvm_lv *lv)
{
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;
	uint64_t size;

	assert(!lv->code == !lv->shown->reason[0]);
	if (lv->code || lvm_volume_open(&d, devices(), g, lv, !lv->fixed, &err) < 0)
		return;
	size = vdisk_size(d);
	assert(size == lv->shown->size && size > 0);
	for (uint64_t i = 0; i < 64; i++)
		check_range(d, size / 64 * i + i % (size / 64 + 1));
	check_range(d, size - 1);
	vdisk_close(d, NULL);
}

static void change(const uint8_t *data, size_t size)
{
	struct vdisk_lvm_change ch = {
		.size = sizeof(ch), .vg_name = "renamed", .lv_name = size % 2 ? "other" : NULL,
	};
	struct lvm_config config = { 0 };
	struct lvm_group *g = NULL;
	uint64_t seqno;
	char *copy = memcpy(malloc(size + 1), data, size), *out = NULL;
	size_t len = 0;

	copy[size] = '\0';
	if (lvm_config_parse(&config, copy, size, NULL) == 0 && lvm_group_parse(&g, &config, NULL) == 0) {
		for (unsigned i = 0; i < g->shown.n_lvs; i++)
			if (!g->shown.lv[i].hidden)
				ch.lv = g->shown.lv[i].name;
		seqno = g->shown.seqno;
		if (lvm_text_change(&out, &len, (const char *)data, size, &ch, NULL) == 0) {
			lvm_config_clear(&config);
			lvm_group_free(g);
			assert(lvm_config_parse(&config, out, len, NULL) == 0);
			assert(lvm_group_parse(&g, &config, NULL) == 0);
			assert(!strcmp(g->shown.name, "renamed") && g->shown.seqno == seqno + 1);
		}
	}
	lvm_group_free(g);
	lvm_config_clear(&config);
}

static void text(const uint8_t *data, size_t size)
{
	char *copy = memcpy(malloc(size + 1), data, size);
	struct lvm_config config = { 0 };
	struct lvm_group *g = NULL;

	copy[size] = '\0';
	change(data, size);
	if (lvm_config_parse(&config, copy, size, NULL) < 0)
		return;
	if (lvm_group_parse(&g, &config, NULL) == 0) {
		for (unsigned i = 0; i < g->shown.n_pvs && i < 2; i++)
			g->pv[i].found = (int)i;
		assert(lvm_group_check(g, devices(), NULL) == 0);
		for (unsigned i = 0; i < g->shown.n_lvs; i++)
			open_volume(g, &g->lv[i]);
	}
	lvm_group_free(g);
	lvm_config_clear(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && data[0] == 'B')
		binary(data + 1, size - 1);
	else
		text(data, size);
	return 0;
}
