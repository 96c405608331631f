/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map.c - where the disk's bytes are, and where new ones go
 *
 * An answer is one run of grains of a kind, in one piece below; it goes on over as
 * many tables as are in memory.  Every grain can be written in place.  A grain that is
 * not there shows the parent; only where the header allows it can one be zero.
 */
#include <errno.h>

#include "formats/vmdk/state.h"

struct run {
	enum vd_kind kind;
	uint64_t host;		/* DATA, CODED: of the first byte of the run, of the grain */
	uint64_t len;
	uint32_t coded_len;
};

static enum vd_kind kind_of(const struct vmdk_extent *x, uint32_t gte)
{
	if (gte == 0)
		return VD_HOLE;
	if (gte == 1 && x->h.flags & VMDK_FLAG_ZERO_GRAINS)
		return VD_ZERO;
	return x->h.flags & VMDK_FLAG_COMPRESSED ? VD_CODED : VD_DATA;
}

/*
 * Compressed grains do not say in the table how long they are.  Mostly the next one
 * follows, and never do they take more than x->bound.
 */
static uint32_t coded_len(const struct vmdk_extent *x, const struct vmdk_table *t, uint64_t i)
{
	uint32_t gte = vmdk_gte(t, i), most = x->bound;

	for (uint64_t k = i + 1; k < x->h.gtes && k < i + 4; k++) {
		uint32_t next = vmdk_gte(t, k);

		if (next <= gte)
			continue;
		return (uint32_t)MIN((uint64_t)most, (uint64_t)(next - gte) * VMDK_SECTOR);
	}
	return most;
}

/* The run at @pos of the extent, at most @len bytes, as far as this table tells. */
static int walk(const struct vmdk_extent *x, const struct vmdk_table *t, uint64_t pos,
		uint64_t len, struct run *run)
{
	uint64_t in = pos % x->grain, i = pos % x->span / x->grain, size = x->file->size;
	uint64_t gte = vmdk_gte(t, i), step = 0;

	run->kind = kind_of(x, (uint32_t)gte);
	run->len = x->grain - in;
	run->host = gte * VMDK_SECTOR;
	/* (a grain that begins behind the end of its file is lost) */
	if ((run->kind == VD_DATA || run->kind == VD_CODED) && run->host >= size)
		return -EIO;
	if (run->kind == VD_CODED) {
		run->coded_len = coded_len(x, t, i);
		return 0;
	}
	if (run->kind == VD_DATA) {
		run->host += in;
		step = x->h.grain;
	}
	/* not over grains that are lost: who asks for those is told */
	while (run->len < len && ++i < x->h.gtes && vmdk_gte(t, i) == (gte += step) &&
	       (!step || gte * VMDK_SECTOR < size))
		run->len += x->grain;
	return 0;
}

static bool join(struct run *run, const struct run *next)
{
	if (run->kind != next->kind || run->kind == VD_CODED ||
	    (run->kind == VD_DATA && next->host != run->host + run->len))
		return false;
	run->len += next->len;
	return true;
}

/* (of a stream the directory is made at its end) */
static bool has_table(const struct vmdk_extent *x, uint32_t index)
{
	return x->gd[index] || x->table[index];
}

/* Under the lock.  May answer for more than @len. */
static int find(struct vmdk *v, struct vmdk_extent *x, uint64_t off, uint64_t len, bool nowait,
		struct run *run)
{
	uint64_t done = 0;

	while (done < len) {
		uint64_t pos = off + done;
		uint32_t index = (uint32_t)(pos / x->span);
		struct vmdk_table *t;
		struct run next = { .kind = VD_HOLE, .len = x->span - pos % x->span };
		int r = 0;

		if (has_table(x, index)) {
			r = vmdk_table_get(v, x, index, nowait || done, &t);
			if (r == VMDK_RETRY)
				continue;
			if (r == 0)
				r = walk(x, t, pos, len - done, &next);
			if (r < 0)
				return done ? 0 : r;
		}
		if (!done)
			*run = next;
		else if (!join(run, &next))
			break;
		done = run->len;
		/* it ended before the table did */
		if ((off + done) % x->span)
			break;
	}
	return 0;
}

static void answer(struct vmdk_extent *x, const struct run *run, uint64_t off, uint64_t len,
		   struct vd_extent *ext)
{
	ext->kind = run->kind;
	ext->flags = 0;
	ext->len = MIN(run->len, len);
	ext->below = x->file;
	ext->off = run->host;
	if (run->kind == VD_CODED) {
		ext->codec = x->h.flags & VMDK_FLAG_MARKERS ? &vmdk_grain : &vmdk_bare_grain;
		ext->coded_len = run->coded_len;
		ext->unit_off = x->start + vd_align_down(off, x->grain);
		ext->unit_len = (uint32_t)x->grain;
	}
}

/* ---- allocating ---- */

static bool fits(const struct vmdk_extent *x, uint64_t at, uint64_t len)
{
	/* entries are sectors in 32 bits */
	return vd_in_range(at, len, (uint64_t)UINT32_MAX * VMDK_SECTOR) &&
	       (x->file->grows || vd_in_range(at, len, x->file->size));
}

/* @len bytes behind all that is in use, from a multiple of @align on. */
static int from_end(struct vmdk_extent *x, uint64_t len, uint64_t align, uint64_t *at)
{
	uint64_t begin = vd_align_up(x->next, align);

	if (!fits(x, begin, len))
		return x->file->grows ? -EFBIG : -ENOSPC;
	x->next = begin + len;
	*at = begin;
	return 0;
}

/* A table for directory entry @index, which has none. */
static int new_table(struct vmdk *v, struct vmdk_extent *x, uint32_t index,
		     struct vmdk_table **out)
{
	uint64_t bytes = vd_align_up(vmdk_table_bytes(x), VMDK_SECTOR), at = 0, rat = 0;
	int r = v->stream ? 0 : from_end(x, bytes, VMDK_SECTOR, &at);

	if (r == 0 && x->rgd)
		r = from_end(x, bytes, VMDK_SECTOR, &rat);
	if (r == 0)
		r = vmdk_table_new(v, x, index, out);
	if (r < 0) {
		if (at)
			vmdk_drop(v, x, at, bytes, 0);
		if (rat)
			vmdk_drop(v, x, rat, bytes, 0);
		return r;
	}
	x->gd[index] = (uint32_t)(at / VMDK_SECTOR);
	if (x->rgd)
		x->rgd[index] = (uint32_t)(rat / VMDK_SECTOR);
	x->gd_dirty = !v->stream;
	vmdk_table_dirty(v, *out);
	return 0;
}

/* The table in which @off is, there to be changed. */
static int table_for_update(struct vmdk *v, struct vmdk_extent *x, uint64_t off, bool nowait,
			    struct vmdk_table **out)
{
	uint32_t index = (uint32_t)(off / x->span);
	int r = 0;

	if (v->n_dirty >= v->max_dirty || !has_table(x, index))
		r = vmdk_table_room(v, nowait);
	if (r)
		return r;
	return has_table(x, index) ? vmdk_table_get(v, x, index, nowait, out) :
				     new_table(v, x, index, out);
}

/* Space for at least one and at most @n grains, which is set to what there is. */
static int take_grains(struct vmdk_extent *x, uint64_t *n, uint64_t *at, bool *fresh)
{
	struct vmdk_free *f = x->n_free ? &x->free[x->n_free - 1] : NULL;
	int r;

	*fresh = false;
	if (f && f->len >= x->grain && f->at % x->grain == 0) {
		*n = MIN(*n, f->len / x->grain);
		*at = f->at;
		f->at += *n * x->grain;
		f->len -= *n * x->grain;
		x->n_free -= f->len < x->grain;
		return 0;
	}
	x->n_free -= f != NULL;		/* a table's space: too small, or awry */
	r = from_end(x, *n * x->grain, x->grain, at);
	*fresh = r == 0 && *at >= x->fresh_from && x->file->grows && x->file->fresh_zero;
	return r;
}

static int map_alloc(struct vmdk *v, struct vmdk_extent *x, uint64_t off, uint64_t len,
		     bool nowait, struct vd_extent *ext)
{
	uint64_t lo = vd_align_down(off, x->grain), hi, i, n, most, at;
	struct vmdk_table *t;
	struct run run = { 0 };
	bool fresh;
	int r = table_for_update(v, x, off, nowait, &t);

	if (r == 0)
		r = walk(x, t, off, len, &run);
	if (r)
		return r;
	if (run.kind == VD_DATA) {
		answer(x, &run, off, len, ext);	/* somebody was faster */
		return 0;
	}
	i = off % x->span / x->grain;
	most = MIN(x->h.gtes - i, vd_div_up(off + len - lo, x->grain));
	for (n = 1; n < most && kind_of(x, vmdk_gte(t, i + n)) != VD_DATA; n++)
		;
	r = take_grains(x, &n, &at, &fresh);
	if (r < 0)
		return r;
	/* the last grain may go on behind the extent's end */
	hi = MIN(lo + n * x->grain, x->len);
	ext->kind = VD_DATA;
	ext->flags = VD_EXT_NEW | (fresh ? VD_EXT_FRESH : 0);
	ext->len = MIN(len, hi - off);
	ext->below = x->file;
	ext->off = at + (off - lo);
	ext->new_off = x->start + lo;
	ext->new_len = hi - lo;
	ext->cookie = t;
	ext->cookie2 = at;
	t->pins++;
	return 0;
}

/* One compressed grain behind the others: its marker is written here, the stream behind
 * it by the engine. */
static int map_coded(struct vmdk *v, struct vmdk_extent *x, uint64_t off, struct vd_extent *ext)
{
	uint8_t marker[VMDK_MARKER_BYTES];
	struct vmdk_table *t;
	uint64_t at;
	int r = table_for_update(v, x, off, false, &t);

	if (r)
		return r;
	if (off % x->grain || !ext->coded_len || ext->coded_len > x->bound - VMDK_MARKER_BYTES)
		return -EINVAL;
	if (vmdk_gte(t, off % x->span / x->grain))
		return -EROFS;		/* written once only */
	r = from_end(x, VMDK_MARKER_BYTES + ext->coded_len, VMDK_SECTOR, &at);
	if (r < 0)
		return r;
	t->pins++;
	pthread_mutex_unlock(&v->lock);
	store_le64(marker, (x->start + off) / VMDK_SECTOR);
	store_le32(marker + 8, ext->coded_len);
	r = vd_pwrite(x->file, marker, sizeof(marker), at);
	pthread_mutex_lock(&v->lock);
	if (r < 0) {
		t->pins--;
		return r;
	}
	ext->kind = VD_CODED;
	ext->flags = VD_EXT_NEW;
	ext->len = MIN(x->grain, x->len - off);
	ext->below = x->file;
	ext->off = at + VMDK_MARKER_BYTES;
	ext->codec = &vmdk_grain;
	ext->unit_off = ext->new_off = x->start + off;
	ext->unit_len = (uint32_t)x->grain;
	ext->new_len = ext->len;
	ext->cookie = t;
	ext->cookie2 = at;
	return 0;
}

void vmdk_commit(struct vdisk *disk, struct vd_extent *ext, int result)
{
	struct vmdk *v = disk->priv;
	struct vmdk_table *t = ext->cookie;
	struct vmdk_extent *x = t->x;
	uint64_t first = (ext->new_off - x->start) % x->span / x->grain;
	uint64_t n = vd_div_up(ext->new_len, x->grain);

	pthread_mutex_lock(&v->lock);
	for (uint64_t i = 0; i < n && result >= 0; i++)
		store_le32(t->gte + (first + i) * 4,
			   (uint32_t)((ext->cookie2 + i * x->grain) / VMDK_SECTOR));
	if (result >= 0)
		vmdk_table_dirty(v, t);
	else if (!v->stream)
		vmdk_drop(v, x, ext->cookie2, n * x->grain, 0);
	t->pins--;
	pthread_mutex_unlock(&v->lock);
}

/* ---- zeroes and discards ---- */

struct change {
	enum vd_intent intent;
	bool unmap;		/* may give the space back */
	bool hole_is_zero;	/* nothing shows through a hole */
	bool can_zero;		/* grains of zeroes can be told */
};

/* What becomes of an entry; false: the engine has to write the zeroes. */
static bool change_entry(const struct vmdk_extent *x, const struct change *c, uint32_t *gte)
{
	enum vd_kind kind = kind_of(x, *gte);

	if (kind == VD_ZERO || (kind == VD_HOLE && c->hole_is_zero))
		return true;
	if (!c->hole_is_zero && !c->can_zero)
		return c->intent == VD_MAP_DISCARD;	/* it would show the parent: kept */
	if (kind == VD_DATA && !c->unmap)
		return false;
	*gte = c->hole_is_zero ? 0 : 1;
	return true;
}

/* Whole grains of one table, from @off on. */
static void change_grains(struct vmdk *v, struct vmdk_extent *x, struct vmdk_table *t,
			  const struct change *c, uint64_t off, uint64_t len, struct vd_extent *ext)
{
	uint64_t i = off % x->span / x->grain, done = 0;

	for (; done < len && i < x->h.gtes; i++, done += x->grain) {
		uint32_t old = vmdk_gte(t, i), gte = old;

		if (len - done < x->grain && off + len < x->len)
			break;
		if (!change_entry(x, c, &gte))
			break;
		if (gte == old)
			continue;
		store_le32(t->gte + i * 4, gte);
		vmdk_table_dirty(v, t);
		if (kind_of(x, old) == VD_DATA)
			vmdk_drop(v, x, (uint64_t)old * VMDK_SECTOR, x->grain, v->txn);
	}
	ext->kind = done ? VD_DONE : VD_COPY;
	ext->len = MIN(done ? done : x->grain, len);
}

/* A part of a grain. */
static void change_part(const struct vmdk_extent *x, const struct vmdk_table *t,
			const struct change *c, uint64_t off, uint64_t len, struct vd_extent *ext)
{
	enum vd_kind kind = t ? kind_of(x, vmdk_gte(t, off % x->span / x->grain)) : VD_HOLE;
	bool done = c->intent == VD_MAP_DISCARD || kind == VD_ZERO ||
		    (kind == VD_HOLE && c->hole_is_zero);

	ext->kind = done ? VD_DONE : VD_COPY;
	ext->len = MIN(len, x->grain - off % x->grain);
}

static int map_change(struct vmdk *v, struct vmdk_extent *x, uint64_t off, uint64_t len,
		      enum vd_intent intent, unsigned flags, struct vd_extent *ext)
{
	struct change c = {
		.intent = intent,
		.unmap = intent == VD_MAP_DISCARD || flags & VD_MAP_UNMAP,
		.hole_is_zero = v->d.parent_cid == VMDK_NO_PARENT,
		.can_zero = x->h.flags & VMDK_FLAG_ZERO_GRAINS,
	};
	uint32_t index = (uint32_t)(off / x->span);
	bool whole = off % x->grain == 0 && (len >= x->grain || off + len == x->len);
	bool nowait = flags & VD_MAP_NOWAIT;
	struct vmdk_table *t = NULL;
	int r;

	len = MIN(len, x->span - off % x->span);
	if (v->stream)
		return -EOPNOTSUPP;
	if (!has_table(x, index) && (c.hole_is_zero || !whole || !c.can_zero)) {
		ext->kind = intent == VD_MAP_DISCARD || c.hole_is_zero ? VD_DONE : VD_COPY;
		ext->len = whole ? len : MIN(len, x->grain - off % x->grain);
		return 0;
	}
	r = whole ? table_for_update(v, x, off, nowait, &t) :
		    vmdk_table_get(v, x, index, nowait, &t);
	if (r)
		return r;
	if (whole)
		change_grains(v, x, t, &c, off, len, ext);
	else
		change_part(x, t, &c, off, len, ext);
	return 0;
}

/* ---- the driver's ---- */

/* A sparse extent, under the lock: 0, VMDK_RETRY, VD_NEED_ALLOC, -errno. */
static int map_sparse(struct vmdk *v, struct vmdk_extent *x, uint64_t off, uint64_t len,
		      enum vd_intent intent, unsigned flags, struct vd_extent *ext)
{
	bool nowait = flags & VD_MAP_NOWAIT;
	struct run run = { 0 };
	int r;

	if (intent == VD_MAP_ZERO || intent == VD_MAP_DISCARD)
		return map_change(v, x, off, len, intent, flags, ext);
	if (intent == VD_MAP_WRITE && v->stream)
		return flags & VD_MAP_CODED ? map_coded(v, x, off, ext) :
		       nowait ? -EAGAIN : -EOPNOTSUPP;
	if (intent == VD_MAP_WRITE && flags & VD_MAP_CODED)
		return -EOPNOTSUPP;
	if (intent == VD_MAP_WRITE && flags & VD_MAP_ALLOC)
		return map_alloc(v, x, off, len, nowait, ext);
	r = find(v, x, off, len, nowait, &run);
	if (r < 0)
		return r;
	if (intent == VD_MAP_WRITE && run.kind != VD_DATA)
		return VD_NEED_ALLOC;
	answer(x, &run, off, len, ext);
	return 0;
}

/* There is no room for anything but zeroes. */
static int map_zero(uint64_t len, enum vd_intent intent, struct vd_extent *ext)
{
	if (intent == VD_MAP_WRITE)
		return -EROFS;
	ext->kind = intent == VD_MAP_READ || intent == VD_MAP_REPORT ? VD_ZERO : VD_DONE;
	ext->len = len;
	return 0;
}

int vmdk_map(struct vdisk *disk, uint64_t off, uint64_t len, enum vd_intent intent,
	     unsigned flags, struct vd_extent *ext)
{
	struct vmdk *v = disk->priv;
	struct vmdk_extent *x = vmdk_extent_at(v, off);
	bool change = intent != VD_MAP_READ && intent != VD_MAP_REPORT;
	int r;

	off -= x->start;
	len = MIN(len, x->len - off);
	if (x->kind == VMDK_ZERO)
		return map_zero(len, intent, ext);
	if (x->kind == VMDK_FLAT && (!change || atomic_load(&v->began))) {
		ext->kind = VD_DATA;
		ext->below = x->file;
		ext->off = x->offset + off;
		ext->len = len;
		return 0;
	}
	pthread_mutex_lock(&v->lock);
	do {
		r = change ? vmdk_begin(v, flags & VD_MAP_NOWAIT) : 0;
		if (r == 0 && x->kind == VMDK_SPARSE)
			r = map_sparse(v, x, off, len, intent, flags, ext);
	} while (r == VMDK_RETRY);
	pthread_mutex_unlock(&v->lock);
	/* (a flat extent, whose first write has begun now) */
	return r || x->kind == VMDK_SPARSE ? r :
	       vmdk_map(disk, x->start + off, len, intent, flags, ext);
}
