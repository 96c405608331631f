/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parts.c - the input is a disk: read its partition table, open and edit
 *
 * Checksums do not stop the fuzzer: with VD_FUZZING the reader takes any.
 */
#include <assert.h>
#include <stdio.h>

#include "core/compiler.h"
#include "vdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_table(const struct vdisk_parts *t)
{
	assert(t->sector_size == 512 || t->sector_size == 4096);
	assert(t->scheme[0] || !t->count);
	for (unsigned i = 0; i < t->count; i++) {
		const struct vdisk_part *p = &t->part[i];

		assert(p->length > 0 && p->offset <= INT64_MAX &&
		       p->length <= INT64_MAX - p->offset);
		assert(p->number > 0 && p->type[0]);
		assert(memchr(p->name, '\0', sizeof(p->name)));
	}
}

static void open_some(struct vdisk *disk, const struct vdisk_parts *t)
{
	uint8_t buf[512];

	for (unsigned i = 0; i < t->count && i < 8; i++) {
		struct vdisk *part;
		char name[16];

		snprintf(name, sizeof(name), "p%u", t->part[i].number);
		if (vdisk_open_part(&part, disk, name, NULL) < 0)
			continue;
		assert(vdisk_size(part) <= vdisk_size(disk));
		if (vdisk_size(part) >= sizeof(buf))
			(void)vdisk_read(part, buf, sizeof(buf), vdisk_size(part) - sizeof(buf));
		vdisk_close(part, NULL);
	}
}

/* What was refused has changed nothing; what was done can be read. */
static void edit(struct vdisk *disk, const struct vdisk_parts *before)
{
	struct vdisk_parts *after;
	int number = vdisk_parts_add(disk, NULL, NULL);

	assert(vdisk_parts_read(&after, disk, NULL) == 0);
	if (number < 0)
		assert(after->count == before->count);
	free(after);
}

/* Whatever it was: repaired, told, changed, it ends, and what is left can be read. */
static void change(struct vdisk *disk, const struct vdisk_parts *t)
{
	const struct vdisk_part_change c = { .size = sizeof(c), .type = "swap", .set_attrs = 0x80 };
	struct vdisk_parts *after;
	char *dump = NULL;

	vdisk_parts_verify(disk, NULL, NULL, NULL);
	vdisk_parts_repair(disk, NULL, NULL, NULL);
	if (t->count) {
		vdisk_parts_resize(disk, t->part[0].number, UINT64_MAX, NULL);
		vdisk_parts_change(disk, t->part[t->count - 1].number, &c, NULL);
	}
	if (t->count > 1)
		vdisk_parts_delete(disk, t->part[1].number, NULL);
	if (vdisk_parts_dump(disk, &dump, NULL) == 0)
		vdisk_parts_restore(disk, dump, NULL);
	free(dump);
	vdisk_parts_convert(disk, strcmp(t->scheme, "gpt") ? "gpt" : "mbr", NULL);
	assert(vdisk_parts_read(&after, disk, NULL) == 0);
	check_table(after);
	free(after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk_parts *t;
	struct vdisk *disk, *part;

	if (size == 0 || vdisk_open_memory(&disk, size, NULL) < 0)
		return 0;
	assert(vdisk_write(disk, data, size, 0) == 0);
	if (vdisk_parts_read(&t, disk, NULL) == 0) {
		check_table(t);
		open_some(disk, t);
		if (t->count && vdisk_open_part(&part, disk, "label=root", NULL) == 0)
			vdisk_close(part, NULL);
		if (size % 2 == 0)
			edit(disk, t);
		if (size % 3 == 0)
			change(disk, t);
		free(t);
	}
	vdisk_close(disk, NULL);
	return 0;
}
