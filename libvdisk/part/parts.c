/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parts.c - which partitions a disk has, and opening one of them
 *
 * Which table counts, by the first sector:
 *
 *   protective MBR       the GPT, even if both copies turn out damaged
 *   plausible MBR        the MBR; a GPT beside it is a leftover
 *   nothing at all       a faultless primary GPT (somebody lost the MBR)
 *   an empty MBR         the MBR, unless a file system lies straight on the
 *                        disk: boot sectors of file systems look like it
 *
 * See mbr.c for what a plausible MBR is.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "part/part.h"

/* ---- lists that readers fill ---- */

struct vdisk_part *part_list_add(struct part_list *list)
{
	if (list->parts->count == list->room) {
		unsigned room = list->room ? 2 * list->room : 8;
		struct vdisk_parts *p = realloc(list->parts, sizeof(*p) + room * sizeof(p->part[0]));

		if (!p)
			return NULL;
		list->parts = p;
		list->room = room;
	}
	list->parts->part[list->parts->count] = (struct vdisk_part) { 0 };
	return &list->parts->part[list->parts->count++];
}

void part_problem(struct part_list *list, const char *fmt, ...)
{
	char text[sizeof(list->parts->problem)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!list->parts->problem[0])
		memcpy(list->parts->problem, text, sizeof(text));
	list->findings++;
	if (list->report)
		list->report(list->arg, text);
}

int part_places_add(struct part_places *places, uint64_t offset, uint64_t length)
{
	if (places->count == places->room) {
		unsigned room = places->room ? 2 * places->room : 8;
		struct part_place *p = reallocarray(places->place, room, sizeof(*p));

		if (!p)
			return -ENOMEM;
		places->place = p;
		places->room = room;
	}
	places->place[places->count++] = (struct part_place) { offset, length };
	return 0;
}

/* ---- what is found wrong in any scheme ---- */

static int by_offset(const void *a, const void *b)
{
	const struct vdisk_part *x = *(struct vdisk_part *const *)a;
	const struct vdisk_part *y = *(struct vdisk_part *const *)b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* What the partitions of a GPT owe to it, and to one another (UEFI 5.3.2, 5.3.3). */
static void check_entries(struct part_list *list)
{
	const struct vdisk_parts *parts = list->parts;

	if (strcmp(parts->scheme, "gpt") != 0)
		return;
	for (unsigned i = 0; i < parts->count; i++) {
		const struct vdisk_part *p = &parts->part[i];

		if (p->offset < parts->first_usable ||
		    p->offset + p->length > parts->last_usable)
			part_problem(list, "partition %u does not lie in the usable range",
				     p->number);
		/* (a table has thousands of entries only when somebody means harm) */
		for (unsigned k = 0; k < i && i < 256; k++)
			if (!strcmp(p->uuid, parts->part[k].uuid))
				part_problem(list, "partitions %u and %u have the same UUID",
					     parts->part[k].number, p->number);
	}
}

/* Extended partitions are meant to contain others, and are left out. */
static int check_bounds(struct part_list *list, uint64_t disk_size)
{
	struct vdisk_parts *parts = list->parts;
	AUTO_FREE struct vdisk_part **sorted = NULL;
	const struct vdisk_part *widest = NULL;
	unsigned n = 0;

	if (!parts->count)
		return 0;
	sorted = calloc(parts->count, sizeof(struct vdisk_part *));
	if (!sorted)
		return -ENOMEM;
	for (unsigned i = 0; i < parts->count; i++) {
		struct vdisk_part *p = &parts->part[i];

		if (!vd_in_range(p->offset, p->length, disk_size))
			part_problem(list, "partition %u ends past the disk", p->number);
		if (!p->extended)
			sorted[n++] = p;
	}
	check_entries(list);
	qsort(sorted, n, sizeof(struct vdisk_part *), by_offset);
	for (unsigned i = 0; i < n; i++) {
		if (widest && sorted[i]->offset - widest->offset < widest->length)
			part_problem(list, "partitions %u and %u overlap", widest->number,
				     sorted[i]->number);
		if (!widest || sorted[i]->offset + sorted[i]->length >
			       widest->offset + widest->length)
			widest = sorted[i];
	}
	return 0;
}

static int name_types(struct vdisk_parts *parts)
{
	struct part_types *types;

	if (!parts->count)
		return 0;
	types = part_types_new();
	if (!types)
		return -ENOMEM;
	for (unsigned i = 0; i < parts->count; i++)
		part_type_name(types, parts->scheme, parts->part[i].type,
			       parts->part[i].type_name, sizeof(parts->part[i].type_name));
	part_types_free(types);
	return 0;
}

/* ---- reading ---- */

static bool is_file_system(struct vdisk *disk)
{
	struct vdisk_probe probe;

	return vdisk_probe(disk, &probe, NULL) == 0 && probe.type[0];
}

static int read_any(struct part_list *list, struct vdisk *disk, struct part_places *places,
		    struct vdisk_error *err)
{
	uint8_t sector[MBR_SIZE];
	struct mbr mbr;
	int r;

	if (disk->size < sizeof(sector))
		return 0;
	r = vd_pread(disk, sector, sizeof(sector), 0);
	if (r < 0)
		return vd_fail(err, -r, "%s: reading the first sector: %s", disk->name,
			       strerror(-r));
	switch (mbr_classify(&mbr, sector, disk->size / 512)) {
	case MBR_PROTECTIVE:
		r = gpt_read(list, disk, &mbr, places, err);
		return r == -ENOENT ? 0 : r;
	case MBR_TABLE:
		return mbr_read(list, disk, &mbr, places, err);
	case MBR_EMPTY:
		if (is_file_system(disk))
			return 0;
		return mbr_read(list, disk, &mbr, places, err);
	case MBR_NONE:
		break;
	}
	if (mbr_decode(&mbr, sector))
		return 0;	/* a boot sector */
	r = gpt_read(list, disk, NULL, places, err);
	return r == -ENOENT ? 0 : r;
}

/* How a table is read. */
typedef int read_fn(struct part_list *list, struct vdisk *disk, struct part_places *places,
		    struct vdisk_error *err);

static int list_read(struct part_list *list, struct vdisk *disk, struct part_places *places,
		     read_fn *read, struct vdisk_error *err)
{
	int r;

	list->parts = calloc(1, sizeof(struct vdisk_parts));
	if (!list->parts)
		return vd_fail(err, ENOMEM, "out of memory");
	list->parts->scheme = "";
	list->parts->sector_size = disk->block_size == 4096 ? 4096 : 512;
	r = read(list, disk, places, err);
	if (r == 0) {
		r = check_bounds(list, disk->size);
		if (r == 0)
			r = name_types(list->parts);
		if (r < 0)
			vd_fail(err, -r, "out of memory");
	}
	if (r < 0)
		free(STEAL(list->parts));
	return r;
}

int part_list_read(struct part_list *list, struct vdisk *disk, struct part_places *places,
		   struct vdisk_error *err)
{
	return list_read(list, disk, places, read_any, err);
}

static int read_gpt(struct part_list *list, struct vdisk *disk, struct part_places *places,
		    struct vdisk_error *err)
{
	int r = gpt_read(list, disk, NULL, places, err);

	return r == -ENOENT ? 0 : r;
}

int part_gpt_read(struct vdisk_parts **out, struct vdisk *disk, struct vdisk_error *err)
{
	struct part_list list = { 0 };
	int r = list_read(&list, disk, NULL, read_gpt, err);

	if (r == 0)
		*out = list.parts;
	return r;
}

int part_table_read(struct vdisk_parts **out, struct vdisk *disk, struct part_places *places,
		    struct vdisk_error *err)
{
	struct part_list list = { 0 };
	int r = part_list_read(&list, disk, places, err);

	if (r == 0)
		*out = list.parts;
	return r;
}

int vdisk_parts_read(struct vdisk_parts **out, struct vdisk *disk, struct vdisk_error *err)
{
	return part_table_read(out, disk, NULL, err);
}

/* ---- opening ---- */

static int open_entry(struct vdisk **out, struct vdisk *disk, const struct vdisk_part *p,
		      struct vdisk_error *err)
{
	if (!vd_in_range(p->offset, p->length, disk->size) || p->length == 0)
		return vd_fail(err, EINVAL, "%s: partition %u (%llu bytes at %llu) ends past the "
			       "disk", disk->name, p->number, (unsigned long long)p->length,
			       (unsigned long long)p->offset);
	return vdisk_open_window(out, disk, p->offset, p->length, err);
}

static int open_number(struct vdisk **out, struct vdisk *disk, const struct vdisk_parts *parts,
		       const char *digits, struct vdisk_error *err)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(digits, &end, 10);
	if (!isdigit((unsigned char)digits[0]) || *end || errno)
		return vd_fail(err, EINVAL, "'p%s' is no partition: it should be p1, p2, ...",
			       digits);
	for (unsigned i = 0; i < parts->count; i++)
		if (parts->part[i].number == number)
			return open_entry(out, disk, &parts->part[i], err);
	if (!parts->scheme[0])
		return vd_fail(err, ENOENT, "%s: there is no partition table", disk->name);
	if (!parts->count && parts->problem[0])
		return vd_fail(err, ENOENT, "%s: no partition %lu: %s", disk->name, number,
			       parts->problem);
	return vd_fail(err, ENOENT, "%s: there is no partition %lu", disk->name, number);
}

struct wanted {
	const char *label;	/* one of the two */
	const char *uuid;
};

static bool table_matches(const struct vdisk_part *p, const struct wanted *w)
{
	if (w->label)
		return strcmp(p->name, w->label) == 0;
	return strcasecmp(p->uuid, w->uuid) == 0;
}

static bool probe_matches(struct vdisk *disk, const struct wanted *w)
{
	struct vdisk_probe probe;

	if (vdisk_probe(disk, &probe, NULL) < 0)
		return false;
	if (w->label)
		return strcmp(probe.label, w->label) == 0;
	return strcasecmp(probe.uuid, w->uuid) == 0;
}

/* What was found so far; the names of two are enough for the message. */
struct found {
	unsigned n;
	char name[2][264];	/* as in a locator: "p1", "vg/lv" */
};

static void found_add(struct found *f, const char *fmt, ...) PRINTF_FMT(2, 3);
static void found_add(struct found *f, const char *fmt, ...)
{
	va_list ap;

	if (f->n < ARRAY_SIZE(f->name)) {
		va_start(ap, fmt);
		vsnprintf(f->name[f->n], sizeof(f->name[0]), fmt, ap);
		va_end(ap);
	}
	f->n++;
}

static void find_in_table(struct found *f, const struct vdisk_parts *parts,
			  const struct wanted *w)
{
	for (unsigned i = 0; i < parts->count; i++)
		if (table_matches(&parts->part[i], w))
			found_add(f, "p%u", parts->part[i].number);
}

struct content_search {
	struct found *found;
	const struct wanted *wanted;
};

static int match_content(void *arg, const struct vdisk_volume *volume)
{
	const struct content_search *c = arg;

	if (probe_matches(volume->disk, c->wanted))
		found_add(c->found, "%s", volume->name);
	return 0;
}

static int open_wanted(struct vdisk **out, struct vdisk *disk, const struct vdisk_parts *parts,
		       const struct wanted *w, struct vdisk_error *err)
{
	const char *what = w->label ? "label" : "UUID", *value = w->label ? w->label : w->uuid;
	struct found f = { .n = 0 };
	int r;

	if (!value[0])
		return vd_fail(err, EINVAL, "an empty label or UUID names no partition");
	if (!parts->scheme[0] && probe_matches(disk, w)) {
		*out = vdisk_ref(disk);
		return 0;
	}
	find_in_table(&f, parts, w);
	if (!f.n) {
		r = vdisk_each_volume(disk, match_content,
				      &(struct content_search) { &f, w }, err);
		if (r < 0)
			return r;
	}
	if (!f.n)
		return vd_fail(err, ENOENT, "%s: no partition has the %s '%s'", disk->name, what,
			       value);
	if (f.n > 1)
		return vd_fail(err, ENOTUNIQ, "%s: %s and %s both have the %s '%s'; use #%s or #%s",
			       disk->name, f.name[0], f.name[1], what, value, f.name[0],
			       f.name[1]);
	return vdisk_open_part(out, disk, f.name[0], err);
}

/* "VG/LV" */
static int open_volume(struct vdisk **out, struct vdisk *disk, const char *part,
		       struct vdisk_error *err)
{
	AUTO_FREE char *vg = strdup(part);
	struct vdisk_lvm *lvm = NULL;
	char *slash;
	int r;

	if (!vg)
		return vd_fail(err, ENOMEM, "out of memory");
	slash = strchr(vg, '/');
	*slash = '\0';
	r = vd_lvm_scan(&lvm, disk, err);
	if (r < 0)
		return r;
	r = vdisk_open_lv(out, lvm, vg, slash + 1, disk->flags & VDISK_OPEN_WRITE, err);
	vdisk_lvm_free(lvm);
	return r < 0 ? vd_fail_prefix(err, r, "%s", disk->name) : 0;
}

int vdisk_open_part(struct vdisk **out, struct vdisk *disk, const char *part,
		    struct vdisk_error *err)
{
	AUTO_FREE struct vdisk_parts *parts = NULL;
	struct wanted w = { 0 };
	int r;

	if (strncmp(part, "label=", 6) == 0)
		w.label = part + 6;
	else if (strncmp(part, "uuid=", 5) == 0)
		w.uuid = part + 5;
	else if (strchr(part, '/'))
		return open_volume(out, disk, part, err);
	else if (part[0] != 'p')
		return vd_fail(err, EINVAL, "'%s' is no partition: it should be pN, label=..., "
			       "uuid=... or VG/LV", part);

	r = vdisk_parts_read(&parts, disk, err);
	if (r < 0)
		return r;
	if (w.label || w.uuid)
		return open_wanted(out, disk, parts, &w, err);
	return open_number(out, disk, parts, part + 1, err);
}
