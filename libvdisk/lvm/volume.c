/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * volume.c - a logical volume as a disk
 *
 * The segments of a volume, sorted, with their legs resolved to disks and byte
 * offsets; the map is a binary search and the arithmetic of stripes.  A leg is
 * a range of one of the disks that the physical volumes are on, or another
 * volume, which is then a disk of its own.
 *
 * Of raid1 and mirror volumes one leg is read: what the kernel would read when
 * nothing is known to be better.  Each leg of a raid1 has a volume with a
 * superblock, from which we learn which legs are behind:
 *
 *	 0 le32 "DmRd"   12 le32 position of this leg   16 le64 events
 *	24 le64 legs known to have failed, one bit each
 *	32 le64 how far this leg is rebuilt, all ones when it is complete
 *
 * The superblock with the most events is the one to believe.  A leg counts if
 * it has as many, is not among the failed, and is complete; the first such one
 * is read, because that is also the one from which a new raid1 gets its first
 * synchronisation.  For the same reason it is always the first of a mirror.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "lvm/lvm.h"

struct place {
	struct vdisk *disk;	/* borrowed: the volume's ->file or one of its ->others */
	uint64_t offset;
};

struct seg {
	uint64_t start, length;
	uint64_t stripe_size;
	struct place *leg;	/* owned */
	uint32_t n_legs;
};

struct volume {
	struct seg *seg;	/* owned */
	uint32_t n_segs;
};

/* ---- the driver ---- */

static const struct seg *seg_at(const struct volume *v, uint64_t off)
{
	uint32_t low = 0, high = v->n_segs;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (v->seg[mid].start <= off)
			low = mid;
		else
			high = mid;
	}
	return &v->seg[low];
}

static int volume_map(struct vdisk *d, uint64_t off, uint64_t len, enum vd_intent intent,
		      unsigned flags, struct vd_extent *ext)
{
	const struct seg *s = seg_at(d->priv, off);
	const struct place *leg = s->leg;
	uint64_t in = off - s->start;

	(void)intent, (void)flags;
	ext->kind = VD_DATA;
	ext->len = MIN(len, s->length - in);
	if (s->n_legs > 1) {
		uint64_t stripe = in / s->stripe_size, within = in % s->stripe_size;

		ext->len = MIN(ext->len, s->stripe_size - within);
		leg += stripe % s->n_legs;
		in = stripe / s->n_legs * s->stripe_size + within;
	}
	ext->below = leg->disk;
	ext->off = leg->offset + in;
	return 0;
}

static void volume_free(struct volume *v)
{
	for (uint32_t i = 0; i < v->n_segs; i++)
		free(v->seg[i].leg);
	free(v->seg);
	free(v);
}

static int volume_close(struct vdisk *d, struct vdisk_error *err)
{
	(void)err;
	volume_free(STEAL(d->priv));
	return 0;
}

static const struct vd_driver volume_driver = {
	.name = "lvm",
	.close = volume_close,
	.map = volume_map,
};

/* ---- raid1: which leg ---- */

struct raid_super {
	bool valid;
	uint64_t events;
	uint64_t failed;
	uint64_t recovered;
};

struct opening {
	const struct lvm_device *dev;
	const struct lvm_group *g;
	bool writable;
	struct vdisk *d;	/* being made */
	struct vdisk_error *err;
};

static void read_super(const struct opening *o, const struct lvm_leg *leg, struct raid_super *out)
{
	const struct lvm_lv *meta = &o->g->lv[leg->meta];
	struct vdisk *d = NULL;
	uint8_t b[40];

	*out = (struct raid_super) { .valid = false };
	if (meta->code || lvm_volume_open(&d, o->dev, o->g, meta, false, NULL) < 0)
		return;
	if (vd_pread(d, b, sizeof(b), 0) == 0 && !memcmp(b, "DmRd", 4))
		*out = (struct raid_super) {
			.valid = true, .events = load_le64(b + 16), .failed = load_le64(b + 24),
			.recovered = load_le64(b + 32),
		};
	vdisk_close(d, NULL);
}

/* The leg to read; NULL: none is whole. */
static const struct lvm_leg *choose_leg(const struct opening *o, const struct lvm_seg *s)
{
	AUTO_FREE struct raid_super *super = calloc(s->n_legs, sizeof(*super));
	const struct raid_super *best = NULL;

	if (!super)
		return NULL;
	for (uint32_t i = 0; i < s->n_legs; i++) {
		read_super(o, &s->leg[i], &super[i]);
		if (super[i].valid && (!best || super[i].events > best->events))
			best = &super[i];
	}
	for (uint32_t i = 0; i < s->n_legs; i++) {
		const struct lvm_lv *image = &o->g->lv[s->leg[i].index];

		if (image->code || image->rebuilding)
			continue;
		/* never started, so nobody knows better than the order */
		if (!best)
			return &s->leg[i];
		if (super[i].valid && super[i].events == best->events &&
		    (i >= 64 || !(best->failed >> i & 1)) && super[i].recovered == UINT64_MAX)
			return &s->leg[i];
	}
	return NULL;
}

/* ---- opening ---- */

/* Have the volume keep @disk, whose reference it takes over. */
static int keep(const struct opening *o, struct vdisk *disk)
{
	if (o->d->file) {
		o->d->flags &= disk->flags;
		o->d->block_size = MAX(o->d->block_size, disk->block_size);
		return vd_keep_other(o->d, disk);
	}
	o->d->file = disk;
	o->d->flags = disk->flags;
	o->d->block_size = disk->block_size;
	return 0;
}

static bool is_kept(const struct opening *o, const struct vdisk *disk)
{
	for (unsigned i = 0; i < o->d->n_others; i++)
		if (o->d->others[i] == disk)
			return true;
	return o->d->file == disk;
}

static int resolve_leg(const struct opening *o, const struct lvm_leg *leg, struct place *out)
{
	uint64_t start = leg->start * o->g->extent_size;
	struct vdisk *sub = NULL;
	int r;

	if (!leg->is_lv) {
		const struct lvm_pv *pv = &o->g->pv[leg->index];
		const struct lvm_device *dev = &o->dev[pv->found];

		*out = (struct place) { dev->disk, dev->start + pv->pe_start + start };
		return is_kept(o, dev->disk) ? 0 : keep(o, vdisk_ref(dev->disk));
	}
	r = lvm_volume_open(&sub, o->dev, o->g, &o->g->lv[leg->index], o->writable, o->err);
	if (r < 0)
		return r;
	*out = (struct place) { sub, start };
	return keep(o, sub);
}

static int resolve_seg(const struct opening *o, const struct lvm_seg *from, struct seg *to)
{
	const struct lvm_leg *leg = from->leg;
	int r = 0;

	to->start = from->start * o->g->extent_size;
	to->length = from->count * o->g->extent_size;
	to->stripe_size = from->stripe_size;
	to->n_legs = from->n_legs;
	if (from->kind == LVM_RAID1 || from->kind == LVM_MIRROR)
		to->n_legs = 1;
	if (from->kind == LVM_RAID1) {
		leg = choose_leg(o, from);
		if (!leg)
			return vd_fail(o->err, EIO, "no copy of it is complete");
	}
	to->leg = calloc(to->n_legs, sizeof(*to->leg));
	if (!to->leg)
		return vd_fail(o->err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < to->n_legs && r == 0; i++)
		r = resolve_leg(o, &leg[i], &to->leg[i]);
	return r;
}

static int resolve(const struct opening *o, const struct lvm_lv *lv)
{
	struct volume *v = o->d->priv;
	int r = 0;

	v->seg = calloc(lv->n_segs, sizeof(*v->seg));
	if (!v->seg)
		return vd_fail(o->err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < lv->n_segs && r == 0; i++)
		r = resolve_seg(o, &lv->seg[i], &v->seg[v->n_segs++]);
	return r;
}

int lvm_volume_open(struct vdisk **out, const struct lvm_device *dev, const struct lvm_group *g,
		    const struct lvm_lv *lv, bool writable, struct vdisk_error *err)
{
	struct volume *v = calloc(1, sizeof(*v));
	struct opening o = {
		.dev = dev, .g = g, .writable = writable, .err = err,
		.d = v ? vd_disk_new(&volume_driver, lv->shown->name, lv->shown->size) : NULL,
	};
	int r;

	assert(!lv->code && lv->checked);
	if (!o.d) {
		free(v);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	o.d->priv = v;
	r = resolve(&o, lv);
	if (r < 0) {
		vdisk_close(o.d, NULL);
		return r;
	}
	if (!writable)
		o.d->flags &= ~(unsigned)VDISK_OPEN_WRITE;
	*out = o.d;
	return 0;
}
