/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * edit.c - making and changing partition tables, through libfdisk
 *
 * libfdisk edits a file descriptor, and knows nothing of our disks.  It gets a
 * sparse memory file as long as the disk with the table's own sectors copied in
 * (first and last MiB, and whatever else the table in force occupies), changes
 * that, and the sectors that then differ from the disk are written back.  So a
 * terabyte disk costs some pages of memory, and an edit a few writes.
 *
 * Order, so that at every instant one copy of the table is whole:
 *   1. the backup copy of a GPT, which lies behind the usable range; flush
 *   2. everything else but sector 0, from the end of the disk to its start:
 *      a new boot record of a logical partition before the link to it; flush
 *   3. sector 0; flush
 * Where only the backup was good, 2 comes before 1.
 */
#include "part/edit.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

void part_edit_end(struct edit *e)
{
	if (e->cxt) {
		fdisk_deassign_device(e->cxt, 1);
		fdisk_unref_context(e->cxt);
	}
	if (e->fd >= 0)
		close(e->fd);
	free(e->places.place);
	free(e->old);
}

/* ---- into the memory file ---- */

static int copy_in(struct edit *e, uint64_t off, uint64_t len)
{
	AUTO_FREE uint8_t *buf = NULL;
	uint64_t size = e->disk->size;
	int r;

	if (off >= size)
		return 0;
	len = MIN(len, size - off);
	buf = malloc(len ? len : 1);
	if (!buf)
		return -ENOMEM;
	r = vd_pread(e->disk, buf, len, off);
	if (r < 0)
		return r;
	/* by sectors, and only what is not zero: keep it sparse */
	for (uint64_t i = 0; i < len; i += 512) {
		size_t n = (size_t)MIN((uint64_t)512, len - i);

		if ((buf[i] || memcmp(buf + i, buf + i + 1, n - 1) != 0) &&
		    pwrite(e->fd, buf + i, n, (off_t)(off + i)) != (ssize_t)n)
			return -errno;
	}
	return 0;
}

static int copy_table(struct edit *e)
{
	uint64_t size = e->disk->size;
	int r = copy_in(e, 0, EDGE);

	if (r == 0 && size > EDGE)
		r = copy_in(e, size - EDGE, EDGE);
	for (unsigned i = 0; i < e->places.count && r == 0; i++)
		r = copy_in(e, e->places.place[i].offset, e->places.place[i].length);
	return r;
}

int part_edit_begin(struct edit *e, struct vdisk *disk, struct vdisk_error *err)
{
	int r;

	*e = (struct edit) { .disk = disk, .fd = -1 };
	r = part_table_read(&e->old, disk, &e->places, err);
	if (r < 0)
		return r;
	e->sector = e->old->sector_size;
	e->fd = memfd_create("vdisk-parts", MFD_CLOEXEC);
	if (e->fd < 0 || ftruncate(e->fd, (off_t)(uint64_t)disk->size) < 0)
		r = -errno;
	else
		r = copy_table(e);
	if (r < 0)
		r = vd_fail(err, -r, "%s: reading the partition table: %s", disk->name,
			    strerror(-r));
	if (r < 0)
		part_edit_end(e);
	return r;
}

int part_edit_assign(struct edit *e, struct vdisk_error *err)
{
	int r;

	e->cxt = fdisk_new_context();
	if (!e->cxt)
		return vd_fail(err, ENOMEM, "out of memory");
	fdisk_disable_dialogs(e->cxt, 1);
	fdisk_save_user_sector_size(e->cxt, e->sector, e->sector);
	/* on a small disk libfdisk's own is right: with 1 MiB it runs into its assertions */
	if (e->disk->size >= 4 * (uint64_t)EDGE)
		fdisk_save_user_grain(e->cxt, EDGE);
	r = fdisk_assign_device_by_fd(e->cxt, e->fd, e->path ? e->path : e->disk->name, 0);
	if (r < 0)
		return vd_fail(err, -r, "%s: the partition table editor cannot use the disk: %s",
			       e->disk->name, strerror(-r));
	return 0;
}

/* libfdisk must see the same table, or it would write something else over it. */
static int check_same(struct edit *e, struct vdisk_error *err)
{
	const char *name = "";

	if (fdisk_has_label(e->cxt))
		name = fdisk_label_get_name(fdisk_get_label(e->cxt, NULL));
	if (strcmp(name, e->old->scheme) != 0)
		return vd_fail(err, EINVAL, "%s: the %s partition table is damaged%s%s",
			       e->disk->name, e->old->scheme, e->old->problem[0] ? ": " : "",
			       e->old->problem);
	return 0;
}

/*
 * On a disk that was grown, move the backup to the end and let the usable range
 * reach there.  libfdisk would do the first half when it writes, so that nobody
 * would do the second.
 */
static int fit_to_disk(struct edit *e, struct vdisk_error *err)
{
	struct vdisk *disk = e->disk;
	int r;

	part_edit_end(e);
	r = vdisk_parts_repair(disk, NULL, NULL, err);
	return r < 0 ? r : part_edit_begin(e, disk, err);
}

int part_edit_look(struct edit *e, struct vdisk *disk, struct vdisk_error *err)
{
	int r;

	if (!vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: not open for writing", disk->name);
	r = part_edit_begin(e, disk, err);
	if (r == 0 && e->old->primary_ok && e->old->backup_misplaced)
		r = fit_to_disk(e, err);
	if (r < 0 || e->old->scheme[0])
		return r;
	part_edit_end(e);
	return vd_fail(err, ENOENT, "%s: there is no partition table; make one with 'part init'",
		       disk->name);
}

int part_edit_open(struct edit *e, struct vdisk *disk, struct vdisk_error *err)
{
	int r = part_edit_look(e, disk, err);

	if (r < 0)
		return r;
	r = part_edit_assign(e, err);
	if (r == 0)
		r = check_same(e, err);
	if (r < 0)
		part_edit_end(e);
	return r;
}

/* ---- back to the disk ---- */


struct changes {
	uint64_t *offset;	/* owned: of sectors, rising */
	size_t count, room;
};

static int changes_add(struct changes *c, uint64_t offset)
{
	if (c->count == c->room) {
		size_t room = c->room ? 2 * c->room : 64;
		uint64_t *p = reallocarray(c->offset, room, sizeof(*p));

		if (!p)
			return -ENOMEM;
		c->offset = p;
		c->room = room;
	}
	c->offset[c->count++] = offset;
	return 0;
}

/* Compare [off, end), which is data in the memory file. */
static int find_changes(struct edit *e, struct changes *c, uint64_t off, uint64_t end)
{
	uint8_t now[4096], then[4096];

	for (off = vd_align_down(off, e->sector); off < end; off += e->sector) {
		size_t n = (size_t)MIN((uint64_t)e->sector, e->disk->size - off);
		int r;

		if (pread(e->fd, now, n, (off_t)off) != (ssize_t)n)
			return -EIO;
		r = vd_pread(e->disk, then, n, off);
		if (r == 0 && memcmp(now, then, n) != 0)
			r = changes_add(c, off);
		if (r < 0)
			return r;
	}
	return 0;
}

static int collect_changes(struct edit *e, struct changes *c)
{
	off_t pos = 0;

	for (;;) {
		off_t start = lseek(e->fd, pos, SEEK_DATA), end;
		int r;

		if (start < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(e->fd, start, SEEK_HOLE);
		if (end < 0)
			return -errno;
		r = find_changes(e, c, (uint64_t)start, (uint64_t)end);
		if (r < 0)
			return r;
		pos = end;
	}
}

/* Write the changed sectors in [from, to), last one first, and flush. */
static int write_changes(struct edit *e, const struct changes *c, uint64_t from, uint64_t to)
{
	uint8_t buf[4096];
	bool any = false;

	for (size_t i = c->count; i-- > 0; ) {
		uint64_t off = c->offset[i];
		size_t n = (size_t)MIN((uint64_t)e->sector, e->disk->size - off);
		int r;

		if (off < from || off >= to)
			continue;
		if (pread(e->fd, buf, n, (off_t)off) != (ssize_t)n)
			return -EIO;
		r = vdisk_write(e->disk, buf, n, off);
		if (r < 0)
			return r;
		any = true;
	}
	return any ? vdisk_flush(e->disk) : 0;
}

int part_edit_write(struct edit *e, struct vdisk_error *err)
{
	struct changes c = { 0 };
	/* a GPT's backup lies in the last sectors, never beyond the first half */
	uint64_t backup = e->backup_at ? e->backup_at : e->cxt && fdisk_is_label(e->cxt, GPT) ?
			  (fdisk_get_last_lba(e->cxt) + 1) * e->sector : UINT64_MAX;
	bool backup_first = e->old->primary_ok || !e->old->backup_ok;
	int r = e->cxt ? fdisk_write_disklabel(e->cxt) : 0;

	if (r == 0)
		r = collect_changes(e, &c);
	if (r == 0)
		r = backup_first ? write_changes(e, &c, backup, UINT64_MAX) :
		    write_changes(e, &c, e->sector, backup);
	if (r == 0)
		r = backup_first ? write_changes(e, &c, e->sector, backup) :
		    write_changes(e, &c, backup, UINT64_MAX);
	if (r == 0)
		r = write_changes(e, &c, 0, e->sector);
	free(c.offset);
	if (r < 0)
		return vd_fail(err, -r, "%s: writing the partition table: %s", e->disk->name,
			       strerror(-r));
	return 0;
}

/* ---- a new table ---- */

int part_edit_empty(struct edit *e, struct vdisk_error *err)
{
	if (ftruncate(e->fd, 0) < 0 || ftruncate(e->fd, (off_t)(uint64_t)e->disk->size) < 0)
		return vd_fail(err, errno, "%s: a memory file: %s", e->disk->name,
			       strerror(errno));
	return 0;
}

int part_edit_clear(struct edit *e, struct vdisk_error *err)
{
	int r = part_edit_empty(e, err);

	return r < 0 ? r : part_edit_assign(e, err);
}

static int init_table(struct edit *e, const char *scheme, struct vdisk_error *err)
{
	/* what was there goes, signatures of former file systems at the start too */
	int r = part_edit_clear(e, err);

	if (r < 0)
		return r;
	r = fdisk_create_disklabel(e->cxt, scheme);
	if (r < 0)
		return vd_fail(err, -r, "%s: a %s table does not fit on it: %s", e->disk->name,
			       scheme, strerror(-r));
	return 0;
}

int part_edit_wipe(struct vdisk *disk)
{
	uint64_t size = disk->size, head = MIN((uint64_t)EDGE, size);
	uint64_t tail = MIN((uint64_t)EDGE, size - head);
	int r = vdisk_zero(disk, 0, head, 0);

	if (r == 0 && tail)
		r = vdisk_zero(disk, size - tail, tail, 0);
	return r;
}

int vdisk_parts_init(struct vdisk *disk, const char *scheme, struct vdisk_error *err)
{
	struct edit e;
	int r;

	if (strcmp(scheme, "mbr") == 0)
		scheme = "dos";
	if (strcmp(scheme, "dos") != 0 && strcmp(scheme, "gpt") != 0)
		return vd_fail(err, EINVAL, "'%s' is no kind of partition table: gpt or mbr",
			       scheme);
	if (!vdisk_writable(disk))
		return vd_fail(err, EROFS, "%s: not open for writing", disk->name);
	if (disk->size < EDGE)
		return vd_fail(err, ENOSPC, "%s: too small for partitions", disk->name);
	r = part_edit_begin(&e, disk, err);
	if (r < 0)
		return r;
	e.sector = disk->block_size == 4096 ? 4096 : 512;
	r = init_table(&e, scheme, err);
	if (r == 0) {
		r = part_edit_wipe(disk);
		if (r < 0)
			vd_fail(err, -r, "%s: clearing its ends: %s", disk->name, strerror(-r));
	}
	if (r == 0)
		r = part_edit_write(&e, err);
	part_edit_end(&e);
	return r;
}

/* ---- a new partition ---- */

int part_edit_check_name(const char *name, struct vdisk_error *err)
{
	unsigned units = 0;

	for (const char *p = name; *p; p++)	/* of UTF-16, from UTF-8 */
		units += (*p & 0xc0) == 0x80 ? 0 : (*p & 0xf8) == 0xf0 ? 2 : 1;
	if (units > 36)
		return vd_fail(err, EINVAL, "the name of a partition has at most 36 characters, "
			       "'%s' has %u", name, units);
	return 0;
}

/* Fill @pa from the options; values that are left out follow defaults. */
static int describe_new(struct edit *e, struct fdisk_partition *pa,
			const struct vdisk_part_add_opts *opts, const char *type,
			struct vdisk_error *err)
{
	struct fdisk_label *label = fdisk_get_label(e->cxt, NULL);
	struct fdisk_parttype *pt;
	uint64_t sectors, start;

	fdisk_partition_partno_follow_default(pa, 1);
	if (opts->start) {
		if (!vd_add(opts->start, EDGE - 1, &start))
			return vd_fail(err, EINVAL, "a start of %llu bytes is out of range",
				       (unsigned long long)opts->start);
		fdisk_partition_set_start(pa, vd_align_down(start, EDGE) / e->sector);
	} else {
		fdisk_partition_start_follow_default(pa, 1);
	}
	if (opts->length) {
		sectors = opts->length / e->sector + !!(opts->length % e->sector);
		fdisk_partition_set_size(pa, sectors);
	} else {
		fdisk_partition_end_follow_default(pa, 1);
	}
	if (opts->name && part_edit_check_name(opts->name, err) < 0)
		return -EINVAL;
	if (opts->name && fdisk_partition_set_name(pa, opts->name) < 0)
		return vd_fail(err, ENOMEM, "out of memory");
	pt = fdisk_label_parse_parttype(label, type);
	if (!pt)
		return vd_fail(err, EINVAL, "'%s' is no partition type", type);
	fdisk_partition_set_type(pa, pt);
	fdisk_unref_parttype(pt);
	return 0;
}

static bool all_primaries_taken(const struct edit *e)
{
	unsigned primary = 0;

	if (strcmp(e->old->scheme, "dos") != 0)
		return false;
	for (unsigned i = 0; i < e->old->count; i++) {
		if (e->old->part[i].number > 4)
			return false;
		primary++;
	}
	return primary == 4;
}

static int add_failed(struct edit *e, const struct vdisk_part_add_opts *opts, int r,
		      struct vdisk_error *err)
{
	if (all_primaries_taken(e))
		return vd_fail(err, ENOSPC, "%s: an MBR has four partitions unless one is extended; "
			       "delete one, or make the table a GPT (vdisk part convert)",
			       e->disk->name);
	if (r == -ENOSPC || r == -ERANGE || r == -EINVAL)
		return vd_fail(err, ENOSPC, "%s: there is no room for a partition of %llu bytes%s",
			       e->disk->name, (unsigned long long)opts->length,
			       opts->start ? " at that place" : "");
	return vd_fail(err, -r, "%s: adding a partition: %s", e->disk->name, strerror(-r));
}

static int add_partition(struct edit *e, const struct vdisk_part_add_opts *opts,
			 struct vdisk_error *err)
{
	char type[40];
	struct fdisk_partition *pa;
	size_t number;
	int r = vdisk_part_type(type, e->old->scheme, opts->type ? opts->type : "linux", err);

	if (r < 0)
		return r;
	if (opts->name && strcmp(e->old->scheme, "dos") == 0)
		return vd_fail(err, EINVAL, "%s: partitions of an MBR have no names",
			       e->disk->name);
	pa = fdisk_new_partition();
	if (!pa)
		return vd_fail(err, ENOMEM, "out of memory");
	r = describe_new(e, pa, opts, type, err);
	if (r == 0) {
		r = fdisk_add_partition(e->cxt, pa, &number);
		if (r < 0)
			r = add_failed(e, opts, r, err);
		else
			r = (int)number + 1;
	}
	fdisk_unref_partition(pa);
	return r;
}

int vdisk_parts_add(struct vdisk *disk, const struct vdisk_part_add_opts *opts,
		    struct vdisk_error *err)
{
	static const struct vdisk_part_add_opts defaults = { .size = sizeof(defaults) };
	struct edit e;
	int number, r = part_edit_open(&e, disk, err);

	if (r < 0)
		return r;
	number = add_partition(&e, opts ? opts : &defaults, err);
	if (number > 0) {
		r = part_edit_write(&e, err);
		if (r < 0)
			number = r;
	}
	part_edit_end(&e);
	return number;
}
