/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check.c - are the tables whole, and is every grain somebody's?
 *
 * Read from the file, not from what is in memory.  Of two copies of a table the first
 * is the one that programs use; where only one makes sense, that one is right.  What a
 * repair can do: write the good copy over the other, take entries out that point to
 * nothing (what they described reads as if never written), and make grains that nobody
 * refers to holes.  Copies that differ, and grains without an owner, are what a crash
 * may leave; they count as leaks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "formats/vmdk/state.h"

/* Of the file, in sectors. */
struct span {
	uint64_t at, len;
};

struct check {
	struct vmdk_extent *x;
	bool repair, repair_leaks;
	struct vdisk_check_result *res;
	void (*report)(void *arg, const char *finding);
	void *arg;
	struct span *used;	/* owned: all that something refers to */
	size_t n_used, used_space;
};

static void PRINTF_FMT(2, 3) say(const struct check *c, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	if (!c->report)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->report(c->arg, text);
}

/* ---- directories ---- */

struct directory {
	uint64_t at;		/* bytes */
	uint8_t *p;		/* owned; as on the medium; NULL: cannot be read */
	bool good;
};

static int directory_read(const struct check *c, struct directory *d, uint64_t sector)
{
	const struct vmdk_extent *x = c->x;
	uint64_t bytes = (uint64_t)x->n_gd * 4;

	d->at = sector * VMDK_SECTOR;
	if (sector > UINT32_MAX || !vd_in_range(d->at, bytes, x->file->size))
		return 0;
	d->p = malloc(bytes + 1);
	if (!d->p)
		return -ENOMEM;
	d->good = vd_pread(x->file, d->p, bytes, d->at) == 0;
	for (uint32_t i = 0; i < x->n_gd && d->good; i++) {
		uint64_t at = (uint64_t)load_le32(d->p + (size_t)i * 4) * VMDK_SECTOR;

		d->good = !at || vd_in_range(at, vmdk_table_bytes(x), x->file->size);
	}
	return 0;
}

/* ---- tables ---- */

static int use(struct check *c, uint64_t at, uint64_t len)
{
	if (!len)
		return 0;
	if (c->n_used == c->used_space) {
		size_t n = MAX(c->used_space * 2, (size_t)4096);
		struct span *more = reallocarray(c->used, n, sizeof(*more));

		if (!more)
			return -ENOMEM;
		c->used = more;
		c->used_space = n;
	}
	c->used[c->n_used++] = (struct span) { at, len };
	return 0;
}

static bool entry_good(const struct vmdk_extent *x, uint32_t gte)
{
	if (gte == 0 || (gte == 1 && x->h.flags & VMDK_FLAG_ZERO_GRAINS))
		return true;
	return (uint64_t)gte * VMDK_SECTOR < x->file->size;
}

/* @t, of the disk's table @index: entries that point to nothing.  true: it was changed. */
static bool check_entries(struct check *c, uint8_t *t, uint32_t index, int *r)
{
	struct vmdk_extent *x = c->x;
	bool changed = false;

	for (uint32_t i = 0; i < x->h.gtes && *r == 0; i++) {
		uint32_t gte = load_le32(t + i * 4);

		if (!entry_good(x, gte)) {
			c->res->corruptions++;
			say(c, "the grain at %" PRIu64 " points to sector %" PRIu32
			    ", behind the end of the file",
			    x->start + index * x->span + i * x->grain, gte);
			if (!c->repair)
				continue;
			store_le32(t + i * 4, 0);
			c->res->corruptions_fixed++;
			changed = true;
		} else if (gte > 1 || (gte && !(x->h.flags & VMDK_FLAG_ZERO_GRAINS))) {
			c->res->allocated_clusters++;
			c->res->compressed_clusters += !!(x->h.flags & VMDK_FLAG_COMPRESSED);
			/* (of a compressed one we know only where it begins) */
			*r = use(c, gte, x->h.flags & VMDK_FLAG_COMPRESSED ? 1 : x->h.grain);
		}
	}
	return changed;
}

static int check_table(struct check *c, const struct directory *d, const struct directory *other,
		       uint32_t index, uint8_t *t, uint8_t *copy)
{
	struct vmdk_extent *x = c->x;
	size_t len = vmdk_table_bytes(x);
	uint64_t at = (uint64_t)load_le32(d->p + (size_t)index * 4) * VMDK_SECTOR, copy_at = 0;
	bool changed, differ;
	int r;

	if (!at)
		return 0;
	r = use(c, at / VMDK_SECTOR, vd_div_up(len, VMDK_SECTOR));
	if (r == 0)
		r = vd_pread(x->file, t, len, at);
	if (r < 0)
		return r;
	if (other->good)
		copy_at = (uint64_t)load_le32(other->p + (size_t)index * 4) * VMDK_SECTOR;
	if (copy_at == at)	/* a repaired directory: one copy is left */
		copy_at = 0;
	if (copy_at)
		r = use(c, copy_at / VMDK_SECTOR, vd_div_up(len, VMDK_SECTOR));
	if (r == 0 && copy_at)
		r = vd_pread(x->file, copy, len, copy_at);
	if (r < 0)
		return r;
	changed = check_entries(c, t, index, &r);
	differ = copy_at && memcmp(t, copy, len) != 0;
	if (differ && !changed) {
		/* harmless: a crash can leave that, and the first one counts */
		c->res->leaks++;
		c->res->leaks_fixed += c->repair || c->repair_leaks;
		say(c, "the second copy of grain table %" PRIu32 " is not like the first", index);
	}
	if (r == 0 && c->repair && changed)
		r = vd_pwrite(x->file, t, len, at);
	if (r == 0 && (c->repair || c->repair_leaks) && differ)
		r = vd_pwrite(x->file, t, len, copy_at);
	return r;
}

/* Grains of [from, end) that are not holes in the file. */
static uint64_t count_lost(const struct check *c, uint64_t from, uint64_t end)
{
	uint64_t lost = 0;

	while (from < end) {
		struct vdisk_extent e = { 0 };

		if (vdisk_map(c->x->file, from, end - from, &e) < 0)
			return 0;
		if (e.kind == VDISK_DATA)
			lost += e.length;
		from += e.length;
	}
	return vd_div_up(lost, c->x->grain);
}

static int by_place(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

/* Nobody's: the file's bytes [from, end). */
static void check_gap(struct check *c, uint64_t from, uint64_t end)
{
	struct vmdk_extent *x = c->x;
	/* (it may be any number) */
	uint64_t overhead = MIN(x->h.overhead, x->file->size / VMDK_SECTOR) * VMDK_SECTOR, lost;

	from = vd_align_up(MAX(from, overhead), x->grain);
	end = vd_align_down(end, x->grain);
	/* (on a device there is always more) */
	if (x->h.flags & VMDK_FLAG_COMPRESSED || !x->file->grows || from >= end)
		return;
	lost = count_lost(c, from, end);
	if (!lost)
		return;
	c->res->leaks += lost;
	say(c, "%" PRIu64 " grains between byte %" PRIu64 " and %" PRIu64
	    " of the file are nobody's", lost, from, end);
	if (c->repair || c->repair_leaks) {
		vd_discard_hint(x->file, from, end - from);
		c->res->leaks_fixed += lost;
	}
}

/* What overlaps, and space that nobody has. */
static int check_space(struct check *c)
{
	struct vmdk_extent *x = c->x;
	uint64_t end = 1, gd_len = vd_div_up((uint64_t)x->n_gd * 4, VMDK_SECTOR);
	bool compressed = x->h.flags & VMDK_FLAG_COMPRESSED;
	int r = use(c, x->h.gd_at, gd_len);

	if (r == 0 && x->h.desc_at)
		r = use(c, x->h.desc_at, x->h.desc_len);
	if (r == 0 && x->h.flags & VMDK_FLAG_REDUNDANT && x->h.rgd_at && !compressed && !x->h.cowd)
		r = use(c, x->h.rgd_at, gd_len);
	if (r < 0)
		return r;
	qsort(c->used, c->n_used, sizeof(*c->used), by_place);
	for (size_t i = 0; i < c->n_used; i++) {
		const struct span *s = &c->used[i];

		if (s->at < end) {
			c->res->corruptions++;
			say(c, "what begins at sector %" PRIu64 " overlaps what is before it", s->at);
		} else {
			check_gap(c, end * VMDK_SECTOR, s->at * VMDK_SECTOR);
		}
		end = MAX(end, s->at + s->len);
	}
	if (!compressed)
		check_gap(c, end * VMDK_SECTOR, x->file->size);
	c->res->image_end = MAX(c->res->image_end, end * VMDK_SECTOR);
	return 0;
}

static int check_tables(struct check *c, const struct directory *d, const struct directory *other)
{
	size_t len = vmdk_table_bytes(c->x);
	AUTO_FREE uint8_t *buf = malloc(len * 2);
	int r = buf ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < c->x->n_gd && r == 0; i++)
		r = check_table(c, d, other, i, buf, buf + len);
	return r == 0 ? check_space(c) : r;
}

/* Which directory is right, and are both? */
static int check_directories(struct check *c, struct directory *gd, struct directory *rgd,
			     bool both)
{
	struct vmdk_extent *x = c->x;
	struct directory *good = gd->good ? gd : rgd, *bad = gd->good ? rgd : gd;
	int r = 0;

	if (!gd->good && !rgd->good) {
		c->res->corruptions++;
		say(c, "the grain directory is damaged%s", both ? ", and so is its copy" : "");
		return 0;
	}
	if (both && !bad->good) {
		c->res->corruptions++;
		say(c, "%s is damaged", bad == gd ? "the grain directory" :
		    "the copy of the grain directory");
		/* both then use the same tables: one copy is better than none */
		if (c->repair && bad->p) {
			r = vd_pwrite(x->file, good->p, (size_t)x->n_gd * 4, bad->at);
			c->res->corruptions_fixed += r == 0;
		}
	}
	return r < 0 ? r : check_tables(c, good, bad);
}

static int check_extent(struct check *c)
{
	struct vmdk_extent *x = c->x;
	bool both = !x->h.cowd && x->h.flags & VMDK_FLAG_REDUNDANT && x->h.rgd_at &&
		    !(x->h.flags & VMDK_FLAG_COMPRESSED);
	struct directory gd = { 0 }, rgd = { 0 };
	int r = directory_read(c, &gd, x->h.gd_at);

	if (r == 0 && both)
		r = directory_read(c, &rgd, x->h.rgd_at);
	if (r == 0)
		r = check_directories(c, &gd, &rgd, both);
	if (r == 0)
		c->res->total_clusters += vd_div_up(x->len, x->grain);
	free(gd.p);
	free(rgd.p);
	return r;
}

int vmdk_check(struct vdisk *disk, unsigned flags, struct vdisk_check_result *out,
	       void (*report)(void *arg, const char *finding), void *arg,
	       struct vdisk_error *err)
{
	struct vmdk *v = disk->priv;
	struct check c = {
		.res = out, .report = report, .arg = arg,
		.repair = flags & VDISK_CHECK_REPAIR,
		.repair_leaks = flags & VDISK_CHECK_REPAIR_LEAKS,
	};
	int r = vmdk_settle(v);

	for (unsigned i = 0; i < v->n_x && r == 0; i++) {
		c.x = &v->x[i];
		c.n_used = 0;
		if (c.x->kind == VMDK_SPARSE)
			r = check_extent(&c);
	}
	free(c.used);
	/* what is left */
	out->corruptions -= out->corruptions_fixed;
	out->leaks -= out->leaks_fixed;
	if (r == 0 && flags)
		r = vd_flush(disk->file);
	/* what is in memory may be wrong now */
	if (flags)
		disk->failed = true;
	return r < 0 ? vd_fail(err, -r, "%s: vmdk: checking: %s", disk->name, strerror(-r)) : 0;
}
