/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * change.c - changing partitions, and whole tables
 *
 * Partitions never move: what changes is where they end, what they are called
 * and of what type they are.  How far one can reach is computed here, from the
 * table in force, and the new end put into it by length.c: libfdisk has rules of
 * its own for where partitions may lie, which it asserts.
 *
 * A table of the other kind is made from the old one's partitions at the same
 * places.  Logical partitions become ordinary ones of a GPT; of a GPT with more
 * than four partitions some become logical, where there is room (logical.c).
 *
 * Dumps are in sfdisk's syntax, which libfdisk writes and reads.
 */
#include "part/edit.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "fs/volume.h"

static const struct vdisk_part *find_part(const struct edit *e, unsigned number,
					  struct vdisk_error *err)
{
	for (unsigned i = 0; i < e->old->count; i++)
		if (e->old->part[i].number == number)
			return &e->old->part[i];
	vd_fail(err, ENOENT, "%s: there is no partition %u", e->disk->name, number);
	return NULL;
}

static bool is_gpt(const struct edit *e)
{
	return strcmp(e->old->scheme, "gpt") == 0;
}

static bool is_logical(const struct edit *e, const struct vdisk_part *p)
{
	return !is_gpt(e) && p->number > 4;
}

static int edit_failed(const struct edit *e, int r, const char *what, struct vdisk_error *err)
{
	return r < 0 ? vd_fail(err, -r, "%s: %s: %s", e->disk->name, what, strerror(-r)) : 0;
}

/* ---- delete ---- */

int vdisk_parts_delete(struct vdisk *disk, unsigned number, struct vdisk_error *err)
{
	struct edit e;
	int r = part_edit_open(&e, disk, err);

	if (r < 0)
		return r;
	r = find_part(&e, number, err) ? 0 : -ENOENT;
	if (r == 0)
		r = edit_failed(&e, fdisk_delete_partition(e.cxt, number - 1),
				"deleting a partition", err);
	if (r == 0)
		r = part_edit_write(&e, err);
	part_edit_end(&e);
	return r;
}

/* ---- resize ---- */

/* The first byte behind @p that is somebody else's. */
static uint64_t limit_of(const struct edit *e, const struct vdisk_part *p)
{
	uint64_t end = e->old->last_usable ? MIN(e->old->last_usable, (uint64_t)e->disk->size) :
		       vd_align_down(e->disk->size, e->sector);

	for (unsigned i = 0; i < e->old->count; i++) {
		const struct vdisk_part *q = &e->old->part[i];

		if (is_logical(e, p) && q->extended && q->number <= 4 && q->offset < p->offset &&
		    q->offset + q->length > p->offset)
			end = MIN(end, q->offset + q->length);
		else if (q->offset > p->offset && !(p->extended && is_logical(e, q)))
			end = MIN(end, q->offset);
	}
	/* boot records of the logical partitions that follow */
	for (unsigned i = 0; !p->extended && i < e->places.count; i++)
		if (e->places.place[i].offset > p->offset)
			end = MIN(end, e->places.place[i].offset);
	return end;
}

/* An extended partition keeps what is in it. */
static uint64_t least_of(const struct edit *e, const struct vdisk_part *p)
{
	uint64_t least = e->sector;

	for (unsigned i = 0; p->extended && i < e->old->count; i++) {
		const struct vdisk_part *q = &e->old->part[i];

		if (is_logical(e, q))
			least = MAX(least, q->offset + q->length - p->offset);
	}
	return least;
}

/* Does @p lie where partitions may, and, if it is logical, in one that is extended? */
static bool lies_right(const struct edit *e, const struct vdisk_part *p)
{
	uint64_t first = is_gpt(e) ? e->old->first_usable : e->sector;
	uint64_t end = is_gpt(e) ? MIN(e->old->last_usable, (uint64_t)e->disk->size) :
				   vd_align_down(e->disk->size, e->sector);

	if (p->offset < first || !vd_in_range(p->offset, p->length, end))
		return false;
	for (unsigned i = 0; i < e->old->count && is_logical(e, p); i++) {
		const struct vdisk_part *q = &e->old->part[i];

		if (q->extended && q->number <= 4 && p->offset > q->offset &&
		    vd_in_range(p->offset - q->offset, p->length, q->length))
			return true;
	}
	return !is_logical(e, p);
}

static bool overlap(const struct edit *e, const struct vdisk_part *p, const struct vdisk_part *q)
{
	if ((p->extended && is_logical(e, q)) || (q->extended && is_logical(e, p)))
		return false;
	return p->offset < q->offset + q->length && q->offset < p->offset + p->length;
}

/* A table that makes no sense is not made worse. */
static int check_places(const struct edit *e, struct vdisk_error *err)
{
	for (unsigned i = 0; i < e->old->count; i++) {
		const struct vdisk_part *p = &e->old->part[i];

		if (!lies_right(e, p))
			return vd_fail(err, EUCLEAN, "%s: partition %u lies where none may be: "
				       "see 'part verify'", e->disk->name, p->number);
		for (unsigned j = 0; j < i; j++)
			if (overlap(e, p, &e->old->part[j]))
				return vd_fail(err, EUCLEAN, "%s: partitions %u and %u overlap: "
					       "see 'part verify'", e->disk->name,
					       e->old->part[j].number, p->number);
	}
	return 0;
}

static int resize_part(struct edit *e, const struct vdisk_part *p, uint64_t length,
		       struct vdisk_error *err)
{
	uint64_t limit = limit_of(e, p), room = limit > p->offset ? limit - p->offset : 0;

	if (length == UINT64_MAX)	/* whole MiB where that is no loss to speak of */
		length = room - p->length >= EDGE ? vd_align_down(limit, EDGE) - p->offset : room;
	else if (length <= UINT64_MAX - e->sector)
		length = (length + e->sector - 1) / e->sector * e->sector;
	if (length > room)
		return vd_fail(err, ENOSPC, "%s: there is room for %llu bytes at the place of "
			       "partition %u, not for %llu", e->disk->name,
			       (unsigned long long)room, p->number, (unsigned long long)length);
	if (length < least_of(e, p))
		return vd_fail(err, EINVAL, p->extended ?
			       "%s: the logical partitions in partition %u need %llu bytes" :
			       "%s: partition %u has at least %llu bytes", e->disk->name,
			       p->number, (unsigned long long)least_of(e, p));
	return edit_failed(e, part_put_length(e, p, length), "resizing a partition", err);
}

int vdisk_parts_resize(struct vdisk *disk, unsigned number, uint64_t length,
		       struct vdisk_error *err)
{
	const struct vdisk_part *p;
	struct edit e;
	int r = part_edit_look(&e, disk, err);

	if (r < 0)
		return r;
	p = find_part(&e, number, err);
	r = p ? check_places(&e, err) : -ENOENT;
	if (r == 0)
		r = resize_part(&e, p, length, err);
	if (r == 0)
		r = part_edit_write(&e, err);
	part_edit_end(&e);
	return r;
}

/* ---- type, name, UUID, flags ---- */

static int change_type(struct edit *e, unsigned n, const char *text, struct vdisk_error *err)
{
	struct fdisk_label *label = fdisk_get_label(e->cxt, NULL);
	struct fdisk_parttype *pt;
	char type[40];
	int r = vdisk_part_type(type, e->old->scheme, text, err);

	if (r < 0)
		return r;
	pt = fdisk_label_parse_parttype(label, type);
	if (!pt)
		return vd_fail(err, EINVAL, "'%s' is no partition type", text);
	r = edit_failed(e, fdisk_set_partition_type(e->cxt, n, pt), "changing a type", err);
	fdisk_unref_parttype(pt);
	return r;
}

/* What only a GPT has: a name and a UUID. */
static int change_names(struct edit *e, unsigned n, const struct vdisk_part_change *c,
			struct vdisk_error *err)
{
	struct fdisk_partition *pa;
	char uuid[37];
	uint8_t raw[16];
	int r = 0;

	if (!is_gpt(e))
		return vd_fail(err, EINVAL, "%s: partitions of an MBR have no names and no UUIDs "
			       "of their own", e->disk->name);
	if (c->name && part_edit_check_name(c->name, err) < 0)
		return -EINVAL;
	if (c->uuid) {
		r = vd_uuid_parse(c->uuid, raw, err);
		if (r < 0)
			return r;
		vd_uuid_text(uuid, raw);
		for (unsigned i = 0; i < e->old->count; i++)
			if (e->old->part[i].number != n + 1 && !strcmp(e->old->part[i].uuid, uuid))
				return vd_fail(err, EEXIST, "%s: partition %u has this UUID",
					       e->disk->name, e->old->part[i].number);
	}
	pa = fdisk_new_partition();
	if (!pa)
		return vd_fail(err, ENOMEM, "out of memory");
	if (c->name)
		r = fdisk_partition_set_name(pa, c->name);
	if (r == 0 && c->uuid)
		r = fdisk_partition_set_uuid(pa, uuid);
	if (r == 0)
		r = fdisk_set_partition(e->cxt, n, pa);
	fdisk_unref_partition(pa);
	return edit_failed(e, r, "changing name or UUID", err);
}

static int change_attrs(struct edit *e, const struct vdisk_part *p,
			const struct vdisk_part_change *c, struct vdisk_error *err)
{
	uint64_t attrs = (p->attrs | c->set_attrs) & ~c->clear_attrs;
	int r = 0;

	if (attrs == p->attrs)
		return 0;
	if (is_gpt(e))
		r = fdisk_gpt_set_partition_attrs(e->cxt, p->number - 1, attrs);
	else if ((c->set_attrs | c->clear_attrs) & ~(uint64_t)0x80)
		return vd_fail(err, EINVAL, "%s: the only flag in an MBR is 'active'",
			       e->disk->name);
	else
		r = fdisk_toggle_partition_flag(e->cxt, p->number - 1, DOS_FLAG_ACTIVE);
	return edit_failed(e, r, "changing flags", err);
}

/* One partition of an MBR is active at most. */
static int deactivate_others(struct edit *e, unsigned number, struct vdisk_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < e->old->count; i++) {
		const struct vdisk_part *p = &e->old->part[i];

		if (p->number != number && p->attrs & 0x80)
			r = fdisk_toggle_partition_flag(e->cxt, p->number - 1, DOS_FLAG_ACTIVE);
	}
	return edit_failed(e, r, "changing flags", err);
}

static int change_part(struct edit *e, const struct vdisk_part *p,
		       const struct vdisk_part_change *c, struct vdisk_error *err)
{
	int r = 0;

	if (c->type)
		r = change_type(e, p->number - 1, c->type, err);
	if (r == 0 && (c->name || c->uuid))
		r = change_names(e, p->number - 1, c, err);
	if (r == 0 && (c->set_attrs || c->clear_attrs))
		r = change_attrs(e, p, c, err);
	if (r == 0 && !is_gpt(e) && c->set_attrs & 0x80)
		r = deactivate_others(e, p->number, err);
	return r;
}

int vdisk_parts_change(struct vdisk *disk, unsigned number, const struct vdisk_part_change *c,
		       struct vdisk_error *err)
{
	const struct vdisk_part *p;
	struct edit e;
	int r = part_edit_open(&e, disk, err);

	if (r < 0)
		return r;
	p = find_part(&e, number, err);
	r = p ? change_part(&e, p, c, err) : -ENOENT;
	if (r == 0)
		r = part_edit_write(&e, err);
	part_edit_end(&e);
	return r;
}

/* "random", or what the table's kind calls an id, as libfdisk wants it. */
static int parse_id(const struct edit *e, const char *text, char out[40], struct vdisk_error *err)
{
	uint8_t raw[16];
	const char *p = strncasecmp(text, "0x", 2) ? text : text + 2;
	int r;

	if (is_gpt(e) || !strcmp(text, "random")) {
		r = vd_uuid_parse(text, raw, err);
		if (r < 0)
			return r;
		if (is_gpt(e))
			vd_uuid_text(out, raw);
		else
			snprintf(out, 40, "0x%08x", load_le32(raw) | 1);
		return 0;
	}
	if (strlen(p) != 8 || strspn(p, "0123456789abcdefABCDEF") != 8)
		return vd_fail(err, EINVAL, "'%s' is no id of an MBR: it has 8 hexadecimal digits",
			       text);
	snprintf(out, 40, "0x%s", p);
	return 0;
}

int vdisk_parts_set_id(struct vdisk *disk, const char *id, struct vdisk_error *err)
{
	char text[40];
	struct edit e;
	int r = part_edit_open(&e, disk, err);

	if (r < 0)
		return r;
	r = parse_id(&e, id, text, err);
	if (r == 0)
		r = edit_failed(&e, fdisk_set_disklabel_id_from_string(e.cxt, text),
				"changing the table's id", err);
	if (r == 0)
		r = part_edit_write(&e, err);
	part_edit_end(&e);
	return r;
}

/* ---- the other kind of table ---- */

/* The type of @p in tables of @scheme. */
static struct fdisk_parttype *convert_type(struct fdisk_label *label, const char *scheme,
					   const struct vdisk_part *p)
{
	char type[40];

	part_type_convert(type, scheme, p->type);
	return fdisk_label_parse_parttype(label, type);
}

static int copy_part(struct edit *e, const char *scheme, const struct vdisk_part *p,
		     size_t number, struct vdisk_error *err)
{
	struct fdisk_label *label = fdisk_get_label(e->cxt, NULL);
	struct fdisk_parttype *pt = convert_type(label, scheme, p);
	struct fdisk_partition *pa = fdisk_new_partition();
	size_t got;
	int r = pa && pt ? 0 : -ENOMEM;

	if (r == 0) {
		fdisk_partition_set_partno(pa, number);
		fdisk_partition_set_start(pa, p->offset / e->sector);
		fdisk_partition_set_size(pa, p->length / e->sector);
		fdisk_partition_size_explicit(pa, 1);
		fdisk_partition_set_type(pa, pt);
		r = fdisk_add_partition(e->cxt, pa, &got);
	}
	fdisk_unref_partition(pa);
	fdisk_unref_parttype(pt);
	if (r == -ENOMEM)
		return vd_fail(err, ENOMEM, "out of memory");
	if (r < 0)
		return vd_fail(err, ENOSPC, "%s: partition %u does not fit into a table of the "
			       "other kind: it lies where the table has to be, or its end is out "
			       "of reach", e->disk->name, p->number);
	return 0;
}

/* 0, or 1: more partitions than an MBR has entries */
static int can_convert(const struct edit *e, const char *scheme, struct vdisk_error *err)
{
	unsigned n = 0;

	if (!e->old->scheme[0])
		return vd_fail(err, ENOENT, "%s: there is no partition table", e->disk->name);
	if (!strcmp(scheme, e->old->scheme))
		return vd_fail(err, EEXIST, "%s: the table is a %s already", e->disk->name,
			       is_gpt(e) ? "GPT" : "MBR");
	if (is_gpt(e) && !e->old->primary_ok && !e->old->backup_ok)
		return vd_fail(err, EUCLEAN, "%s: %s", e->disk->name, e->old->problem);
	for (unsigned i = 0; i < e->old->count; i++) {
		const struct vdisk_part *p = &e->old->part[i];

		n += !p->extended;
		if (is_gpt(e) && (p->offset + p->length) / e->sector > UINT32_MAX)
			return vd_fail(err, EFBIG, "%s: partition %u ends beyond what an MBR can "
				       "say", e->disk->name, p->number);
	}
	return n > 4 && is_gpt(e);
}

static int convert_table(struct edit *e, const char *scheme, struct vdisk_error *err)
{
	bool keep_numbers = true;
	int r = can_convert(e, scheme, err);

	if (r > 0)
		return part_make_logical(e, err);
	if (r == 0)
		r = part_edit_clear(e, err);
	/* (libfdisk leaves the first MiB free, unless told) */
	for (unsigned i = 0; r == 0 && i < e->old->count; i++)
		if (e->old->part[i].offset / e->sector < fdisk_get_first_lba(e->cxt))
			fdisk_set_first_lba(e->cxt, e->old->part[i].offset / e->sector);
	if (r == 0)
		r = edit_failed(e, fdisk_create_disklabel(e->cxt, scheme), "making the new table",
				err);
	for (unsigned i = 0; i < e->old->count; i++)
		keep_numbers &= strcmp(scheme, "gpt") == 0 || e->old->part[i].number <= 4;
	for (unsigned i = 0, n = 0; r == 0 && i < e->old->count; i++) {
		const struct vdisk_part *p = &e->old->part[i];

		if (!p->extended) {
			r = copy_part(e, scheme, p, keep_numbers ? p->number - 1 : n, err);
			n++;
		}
	}
	return r;
}

/* A GPT that is no longer in force must not be found: its headers are zeroed. */
static int forget_gpt(const struct edit *e)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < e->places.count; i++)
		r = vdisk_zero(e->disk, e->places.place[i].offset, e->places.place[i].length, 0);
	return r == 0 ? vdisk_flush(e->disk) : r;
}

int vdisk_parts_convert(struct vdisk *disk, const char *scheme, struct vdisk_error *err)
{
	struct edit e;
	int r;

	if (!strcmp(scheme, "mbr"))
		scheme = "dos";
	if (strcmp(scheme, "dos") != 0 && strcmp(scheme, "gpt") != 0)
		return vd_fail(err, EINVAL, "'%s' is no kind of partition table: gpt or mbr",
			       scheme);
	if (!vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: not open for writing", disk->name);
	r = part_edit_begin(&e, disk, err);
	if (r < 0)
		return r;
	r = convert_table(&e, scheme, err);
	if (r == 0)
		r = part_edit_write(&e, err);
	if (r == 0 && is_gpt(&e))
		r = edit_failed(&e, forget_gpt(&e), "clearing the former table", err);
	part_edit_end(&e);
	return r;
}

/* ---- dumps ---- */

/* Partitions are listed as device names: the disk's, without what would end one. */
static void dump_name(char *out, size_t size, const char *name)
{
	const char *base = strrchr(name, '/');
	size_t n = 0;

	for (const char *p = base ? base + 1 : name; *p && n + 1 < size; p++)
		out[n++] = isalnum((unsigned char)*p) || strchr("._-", *p) ? *p : '_';
	out[n] = '\0';
}

static int write_dump(struct edit *e, char **out, struct vdisk_error *err)
{
	struct fdisk_script *dp = fdisk_new_script(e->cxt);
	char *text = NULL;
	size_t len = 0;
	FILE *f = dp ? open_memstream(&text, &len) : NULL;
	int r = f ? fdisk_script_read_context(dp, NULL) : -ENOMEM;

	if (r == 0)
		r = fdisk_script_write_file(dp, f);
	if (f && fclose(f) != 0 && r == 0)
		r = -errno;
	fdisk_unref_script(dp);
	if (r < 0) {
		free(text);
		return edit_failed(e, r, "writing a dump of the partition table", err);
	}
	*out = text;
	return 0;
}

int vdisk_parts_dump(struct vdisk *disk, char **out, struct vdisk_error *err)
{
	char name[128];
	struct edit e;
	int r = part_edit_begin(&e, disk, err);

	if (r < 0)
		return r;
	dump_name(name, sizeof(name), disk->name);
	e.path = name;
	if (!e.old->scheme[0])
		r = vd_fail(err, ENOENT, "%s: there is no partition table", disk->name);
	if (r == 0)
		r = part_edit_assign(&e, err);
	if (r == 0)
		r = write_dump(&e, out, err);
	part_edit_end(&e);
	return r;
}

static int apply_dump(struct edit *e, struct fdisk_script *dp, struct vdisk_error *err)
{
	const char *label = fdisk_script_get_header(dp, "label");
	const char *sector = fdisk_script_get_header(dp, "sector-size");
	int r;

	if (!label || (strcmp(label, "gpt") != 0 && strcmp(label, "dos") != 0))
		return vd_fail(err, EINVAL, "the dump is of a table '%s', not dos or gpt",
			       label ? label : "");
	if (sector && strcmp(sector, "512") != 0 && strcmp(sector, "4096") != 0)
		return vd_fail(err, EINVAL, "the dump speaks of sectors of %s bytes", sector);
	e->sector = sector ? (uint32_t)strtoul(sector, NULL, 10) :
		    e->disk->block_size == 4096 ? 4096 : 512;
	/* the context that read the script knows the old table */
	fdisk_deassign_device(e->cxt, 1);
	if (ftruncate(e->fd, 0) < 0 || ftruncate(e->fd, (off_t)(uint64_t)e->disk->size) < 0)
		return vd_fail(err, errno, "%s: a memory file: %m", e->disk->name);
	fdisk_save_user_sector_size(e->cxt, e->sector, e->sector);
	r = fdisk_assign_device_by_fd(e->cxt, e->fd, e->path, 0);
	if (r == 0)
		r = fdisk_apply_script(e->cxt, dp);
	if (r < 0)
		return vd_fail(err, -r, "%s: the dump does not fit on it: %s", e->disk->name,
			       strerror(-r));
	return 0;
}

int vdisk_parts_restore(struct vdisk *disk, const char *text, struct vdisk_error *err)
{
	struct fdisk_script *dp = NULL;
	struct edit e;
	FILE *f = NULL;
	int r;

	if (!vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: not open for writing", disk->name);
	if (!*text)
		return vd_fail(err, EINVAL, "the dump is empty");
	r = part_edit_begin(&e, disk, err);
	if (r < 0)
		return r;
	e.path = "disk";
	r = part_edit_assign(&e, err);
	if (r == 0) {
		dp = fdisk_new_script(e.cxt);
		/* (only read; fmemopen wants to be able to write) */
		f = dp ? fmemopen((void *)(uintptr_t)text, strlen(text), "r") : NULL;
		if (!f)
			r = vd_fail(err, ENOMEM, "out of memory");
		else if (fdisk_script_read_file(dp, f) != 0)
			r = vd_fail(err, EINVAL, "line %d of the dump cannot be understood",
				    fdisk_script_get_nlines(dp));
	}
	if (r == 0)
		r = apply_dump(&e, dp, err);
	if (r == 0)
		r = part_edit_write(&e, err);
	if (r == 0 && is_gpt(&e) && fdisk_is_label(e.cxt, DOS))
		r = edit_failed(&e, forget_gpt(&e), "clearing the former table", err);
	if (f)
		fclose(f);
	fdisk_unref_script(dp);
	part_edit_end(&e);
	return r;
}
