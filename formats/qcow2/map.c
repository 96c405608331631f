/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map.c - where guest bytes are, and where new ones go
 *
 * An L2 entry describes a cluster; an extended one its 32 subclusters too.  In
 * what follows a "unit" is the smallest thing that an entry can describe: the
 * subcluster, or the cluster where there are none.
 *
 * An answer is one run of units of a kind, in one piece below; it goes on over
 * as many tables as are in memory.  In place a unit can be written if its
 * cluster has the COPIED flag: its refcount is one, nobody else sees it.
 */
#include <errno.h>

#include "formats/qcow2/state.h"

struct run {
	enum vd_kind kind;
	uint64_t host;		/* DATA: of the first byte; CODED: the entry */
	uint64_t len;
	bool copied;		/* DATA: can be written in place */
};

static uint64_t entry_get(const struct qcow2 *q, const struct qcow2_table *t, uint64_t i)
{
	return load_be64(t->data + (i << q->entry_bits));
}

static uint64_t bitmap_get(const struct qcow2 *q, const struct qcow2_table *t, uint64_t i)
{
	return q->extl2 ? load_be64(t->data + (i << 4) + 8) : 0;
}

static void entry_put(struct qcow2 *q, struct qcow2_table *t, uint64_t i, uint64_t entry,
		      uint64_t bitmap)
{
	uint64_t at = i << q->entry_bits;

	store_be64(t->data + at, entry);
	if (q->extl2)
		store_be64(t->data + at + 8, bitmap);
	qcow2_table_dirty(q, t, at, at + (UINT64_C(1) << q->entry_bits));
}

static uint64_t cluster_mask(const struct qcow2 *q)
{
	return q->cluster_size - 1;
}

static uint64_t entry_index(const struct qcow2 *q, uint64_t guest)
{
	return (guest & ((UINT64_C(1) << q->span_bits) - 1)) >> q->cluster_bits;
}

/* Does the entry have a cluster of its own?  With a data file offset 0 is one. */
static bool has_host(const struct qcow2 *q, uint64_t entry)
{
	if (entry & QCOW2_COMPRESSED)
		return false;
	return (entry & QCOW2_OFFSET_MASK) || (q->data_file && (entry & QCOW2_COPIED));
}

static bool is_copied(const struct qcow2 *q, uint64_t entry)
{
	return has_host(q, entry) && (q->data_file || (entry & QCOW2_COPIED));
}

bool qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first, uint64_t *n)
{
	uint64_t off, len;

	if (q->data_file)
		return false;
	if (entry & QCOW2_COMPRESSED) {
		qcow2_compressed(&q->h, entry, &off, &len);
		*first = off >> q->cluster_bits;
		*n = ((off + len - 1) >> q->cluster_bits) - *first + 1;
		return true;
	}
	*first = (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits;
	*n = 1;
	return *first != 0;
}

static void free_entry(struct qcow2 *q, uint64_t entry, bool punch)
{
	uint64_t first, n;

	if (qcow2_entry_clusters(q, entry, &first, &n))
		qcow2_free(q, first, n, punch);
}

/* ---- reading entries ---- */

/* The bits of subclusters [first, first + n) */
static uint32_t sub_mask(unsigned first, unsigned n)
{
	return (uint32_t)(((UINT64_C(1) << n) - 1) << first);
}

/* The run of subclusters that begins @in bytes into a cluster. */
static int classify_sub(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, uint64_t in,
			struct run *run)
{
	uint32_t alloc = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32), same;
	unsigned first = (unsigned)(in >> q->sub_bits), n;

	/* specification: "Extended L2 Entries": not both; allocated needs a cluster */
	if ((alloc & zero) || (alloc && !has_host(q, entry)))
		return -EIO;
	if (alloc >> first & 1) {
		run->kind = VD_DATA;
		same = alloc;
	} else if (zero >> first & 1) {
		run->kind = VD_ZERO;
		same = zero;
	} else {
		run->kind = VD_HOLE;
		same = ~(alloc | zero);
	}
	same = ~(same >> first);
	n = same ? (unsigned)__builtin_ctz(same) : QCOW2_SUBCLUSTERS;
	n = MIN(n, QCOW2_SUBCLUSTERS - first);
	run->len = ((uint64_t)(first + n) << q->sub_bits) - in;
	return 0;
}

/* What the entry says about the cluster at @guest, from @in bytes on. */
static int classify(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, uint64_t guest,
		    uint64_t in, struct run *run)
{
	uint64_t host = entry & QCOW2_OFFSET_MASK;
	int r = 0;

	run->len = q->cluster_size - in;
	run->host = host + in;
	run->copied = is_copied(q, entry);
	if (entry & QCOW2_COMPRESSED) {
		run->kind = VD_CODED;
		run->host = entry;
		return q->data_file ? -EIO : 0;
	}
	if ((host & cluster_mask(q)) || (q->data_file && has_host(q, entry) && host != guest))
		return -EIO;
	if (q->extl2)
		r = classify_sub(q, entry, bitmap, in, run);
	else if (entry & QCOW2_ZERO)
		run->kind = VD_ZERO;
	else
		run->kind = has_host(q, entry) ? VD_DATA : VD_HOLE;
	if (q->h.version < 3 && run->kind == VD_ZERO)
		return -EIO;
	return r;
}

/* The run at @pos, at most @len bytes, as far as this table tells. */
static int walk(const struct qcow2 *q, const struct qcow2_table *t, uint64_t pos, uint64_t len,
		struct run *run)
{
	uint64_t in = pos & cluster_mask(q), i = entry_index(q, pos), n, step, want;
	int r = classify(q, entry_get(q, t, i), bitmap_get(q, t, i), pos - in, in, run);

	if (r < 0 || run->len >= len || run->kind == VD_CODED)
		return r;
	n = UINT64_C(1) << (q->span_bits - q->cluster_bits);
	if (!q->extl2) {
		/* the same entry again and again, but for a growing offset */
		want = entry_get(q, t, i);
		step = has_host(q, want) ? q->cluster_size : 0;
		while (run->len < len && ++i < n && entry_get(q, t, i) == (want += step))
			run->len += q->cluster_size;
		return 0;
	}
	/* a run that ends inside a cluster ends here */
	while (run->len < len && !((pos + run->len) & cluster_mask(q)) && ++i < n) {
		struct run next = { 0 };

		r = classify(q, entry_get(q, t, i), bitmap_get(q, t, i), pos + run->len, 0, &next);
		if (r < 0 || next.kind != run->kind ||
		    (run->kind == VD_DATA && (next.host != run->host + run->len ||
					      next.copied != run->copied)))
			break;
		run->len += next.len;
	}
	return 0;
}

/* Join @next to @run, if they are one. */
static bool join(struct run *run, const struct run *next, bool write)
{
	if (run->kind != next->kind || run->kind == VD_CODED)
		return false;
	if (run->kind == VD_DATA && (next->host != run->host + run->len ||
				     (write && next->copied != run->copied)))
		return false;
	run->len += next->len;
	return true;
}

/* Under the lock.  May answer for more than @len. */
static int find(struct qcow2 *q, uint64_t off, uint64_t len, bool nowait, bool write,
		struct run *run)
{
	uint64_t span = UINT64_C(1) << q->span_bits, done = 0;

	while (done < len) {
		uint64_t pos = off + done;
		uint32_t i = (uint32_t)(pos >> q->span_bits);
		struct qcow2_table *t;
		struct run next = { 0 };
		int r;

		if (!(q->l1[i] & QCOW2_OFFSET_MASK)) {
			next = (struct run){ .kind = VD_HOLE, .len = span - (pos & (span - 1)) };
		} else {
			r = qcow2_table_get(q, false, i, nowait || done, &t);
			if (r == 0)
				r = walk(q, t, pos, len - done, &next);
			if (r == QCOW2_RETRY)
				continue;
			if (r < 0)
				return done ? 0 : r;
		}
		if (!done)
			*run = next;
		else if (!join(run, &next, write))
			break;
		done = run->len;
		/* it ended before the table did */
		if ((off + done) & (span - 1))
			break;
	}
	return 0;
}

static void answer(struct qcow2 *q, const struct run *run, uint64_t off, uint64_t len,
		   struct vd_extent *ext)
{
	uint64_t coded_len;

	ext->kind = run->kind;
	ext->flags = 0;
	ext->len = MIN(run->len, len);
	if (run->kind == VD_DATA) {
		ext->below = q->data_file ? q->disk->data : q->file;
		ext->off = run->host;
	} else if (run->kind == VD_CODED) {
		qcow2_compressed(&q->h, run->host, &ext->off, &coded_len);
		ext->below = q->file;
		ext->codec = q->codec;
		ext->coded_len = (uint32_t)coded_len;
		ext->unit_off = vd_align_down(off, q->cluster_size);
		ext->unit_len = (uint32_t)q->cluster_size;
	}
}

/* ---- allocating ---- */

/* The L2 table of L1 entry @i, made or copied so that it can be changed. */
static int l2_for_update(struct qcow2 *q, uint32_t i, bool nowait, struct qcow2_table **out)
{
	uint64_t entry = q->l1[i], old = entry & QCOW2_OFFSET_MASK, first, n;
	struct qcow2_table *t = NULL;
	bool fresh;
	int r = 0;

	if (old)
		r = qcow2_table_get(q, false, i, nowait, &t);
	if (r == 0 && old && (entry & QCOW2_COPIED) &&
	    (t->dirty || q->n_dirty * q->cluster_size < QCOW2_DIRTY_BYTES)) {
		*out = t;
		return 0;
	}
	if (r)
		return r;
	/* making room must not drop this very table */
	if (t)
		t->pins++;
	r = qcow2_table_room(q, nowait);
	if (r == 0 && !(old && (entry & QCOW2_COPIED)))
		r = qcow2_alloc(q, 1, nowait, &first, &n, &fresh);
	if (t)
		t->pins--;
	if (r)
		return r;
	if (old && (entry & QCOW2_COPIED)) {
		*out = t;
		return 0;
	}
	if (!t) {
		r = qcow2_table_new(q, false, i, first << q->cluster_bits, &t);
		if (r < 0) {
			qcow2_unalloc(q, first, 1);
			return r;
		}
	} else {
		/* shared with a snapshot: the same table at a new place */
		t->off = first << q->cluster_bits;
		qcow2_table_dirty(q, t, 0, q->cluster_size);
		qcow2_free(q, old >> q->cluster_bits, 1, false);
	}
	q->l1[i] = first << q->cluster_bits | QCOW2_COPIED;
	if (!qcow2_l1_dirty(q)) {
		q->l1_dirty_lo = i;
		q->l1_dirty_hi = i + 1;
	} else {
		q->l1_dirty_lo = MIN(q->l1_dirty_lo, i);
		q->l1_dirty_hi = MAX(q->l1_dirty_hi, i + 1);
	}
	*out = t;
	return 0;
}

/* Clusters from entry @i on, at most @max, that need new space of their own:
 * nothing to be written in place, nothing to be kept. */
static uint64_t count_new(const struct qcow2 *q, const struct qcow2_table *t, uint64_t i,
			  uint64_t max)
{
	uint64_t n = 1;

	for (; n < max; n++) {
		uint64_t entry = entry_get(q, t, i + n);

		if (is_copied(q, entry) ||
		    (q->extl2 && (has_host(q, entry) || (entry & QCOW2_COMPRESSED))))
			break;
	}
	return n;
}

/* Clusters from entry @i on, at most @max, that are allocated, ours and read as
 * zeroes: their space is used, in one piece. */
static uint64_t count_kept(const struct qcow2 *q, const struct qcow2_table *t, uint64_t i,
			   uint64_t max)
{
	uint64_t first = entry_get(q, t, i), n = 1;

	while (n < max && entry_get(q, t, i + n) == first + n * q->cluster_size)
		n++;
	return n;
}

/* Fill in the answer for new space: guest [lo, hi) lies at @host. */
static void answer_new(struct qcow2 *q, struct qcow2_table *t, uint64_t off, uint64_t len,
		       uint64_t lo, uint64_t hi, uint64_t host, struct vd_extent *ext)
{
	/* a data file ends where the disk does */
	if (q->data_file && hi > atomic_load(&q->disk->size))
		hi = atomic_load(&q->disk->size);
	ext->kind = VD_DATA;
	ext->flags = VD_EXT_NEW;
	ext->len = MIN(len, hi - off);
	ext->below = q->data_file ? q->disk->data : q->file;
	ext->off = host + (off - lo);
	ext->new_off = lo;
	ext->new_len = hi - lo;
	ext->cookie = t;
	ext->cookie2 = host - (lo & cluster_mask(q));
	t->pins++;
}

/* Space inside a cluster that is already ours: allocated zeroes, or subclusters
 * without data. */
static void use_kept(struct qcow2 *q, struct qcow2_table *t, uint64_t off, uint64_t len,
		     const struct run *run, struct vd_extent *ext)
{
	uint64_t unit = UINT64_C(1) << q->sub_bits, in = off & cluster_mask(q);
	uint64_t i = entry_index(q, off), lo = vd_align_down(off, unit), hi, max;
	uint64_t host = (entry_get(q, t, i) & QCOW2_OFFSET_MASK) + (in - (off - lo));

	if (q->extl2) {
		/* not over subclusters with data: others may be writing there */
		hi = MIN(vd_align_up(off + len, unit), off + run->len);
		max = off - in + q->cluster_size;
		hi = MIN(hi, max);
	} else {
		max = (UINT64_C(1) << (q->span_bits - q->cluster_bits)) - i;
		max = MIN(max, (in + len + cluster_mask(q)) >> q->cluster_bits);
		hi = lo + count_kept(q, t, i, max) * q->cluster_size;
	}
	answer_new(q, t, off, len, lo, hi, host, ext);
}

static int use_new(struct qcow2 *q, struct qcow2_table *t, uint64_t off, uint64_t len, bool nowait,
		   struct vd_extent *ext)
{
	uint64_t unit = UINT64_C(1) << q->sub_bits, in = off & cluster_mask(q);
	uint64_t i = entry_index(q, off), lo = vd_align_down(off, unit), hi, n, first;
	uint64_t entry = entry_get(q, t, i);
	bool fresh = false;
	int r;

	n = (UINT64_C(1) << (q->span_bits - q->cluster_bits)) - i;
	n = MIN(n, (in + len + cluster_mask(q)) >> q->cluster_bits);
	if (q->extl2 && (has_host(q, entry) || (entry & QCOW2_COMPRESSED))) {
		/* leaves its old cluster as a whole */
		n = 1;
		unit = q->cluster_size;
		lo = off - in;
	} else {
		n = count_new(q, t, i, n);
	}
	if (q->data_file) {
		first = (off - in) >> q->cluster_bits;
	} else {
		t->pins++;
		r = qcow2_alloc(q, n, nowait, &first, &n, &fresh);
		t->pins--;
		if (r)
			return r;
	}
	hi = MIN(vd_align_up(off + len, unit), off - in + n * q->cluster_size);
	answer_new(q, t, off, len, lo, hi, (first << q->cluster_bits) + (lo & cluster_mask(q)),
		   ext);
	if (fresh && q->file->grows && q->file->fresh_zero)
		ext->flags |= VD_EXT_FRESH;
	return 0;
}

/* One cluster in coded form: specification, "Compressed Clusters Descriptor". */
static int use_coded(struct qcow2 *q, struct qcow2_table *t, uint64_t off, bool nowait,
		     struct vd_extent *ext)
{
	uint64_t host, sectors, len = ext->coded_len;
	int r;

	if (q->data_file)
		return -ENOTSUP;
	if (!len || len > q->cluster_size || (off & cluster_mask(q)))
		return -EINVAL;
	t->pins++;
	r = qcow2_alloc_bytes(q, len, nowait, &host);
	t->pins--;
	if (r)
		return r;
	sectors = ((host & 511) + len - 1) >> 9;	/* after the first */
	ext->kind = VD_CODED;
	ext->flags = VD_EXT_NEW;
	ext->len = q->cluster_size;
	ext->below = q->file;
	ext->off = host;
	ext->codec = q->codec;
	ext->unit_off = ext->new_off = off;
	ext->unit_len = (uint32_t)q->cluster_size;
	ext->new_len = q->cluster_size;
	ext->cookie = t;
	ext->cookie2 = QCOW2_COMPRESSED | sectors << (62 - (q->cluster_bits - 8)) | host;
	t->pins++;
	return 0;
}

static int map_alloc(struct qcow2 *q, uint64_t off, uint64_t len, unsigned flags,
		     struct vd_extent *ext)
{
	bool nowait = flags & VD_MAP_NOWAIT;
	struct qcow2_table *t;
	uint64_t i, entry;
	struct run run = { 0 };
	int r;

	r = l2_for_update(q, (uint32_t)(off >> q->span_bits), nowait, &t);
	if (r)
		return r;
	if (flags & VD_MAP_CODED)
		return use_coded(q, t, off, nowait, ext);
	r = walk(q, t, off, len, &run);
	if (r < 0)
		return r;
	if (run.kind == VD_DATA && run.copied) {
		answer(q, &run, off, len, ext);	/* somebody was faster */
		return 0;
	}
	i = entry_index(q, off);
	entry = entry_get(q, t, i);
	if (!is_copied(q, entry))
		return use_new(q, t, off, len, nowait, ext);
	use_kept(q, t, off, len, &run, ext);
	return 0;
}

/* ---- zeroes and discards ---- */

/* What an entry becomes when (a part of) its cluster is zeroed or dropped. */
struct change {
	enum vd_intent intent;
	bool unmap;		/* may give the space back */
	bool hole_is_zero;	/* nothing shows through a hole */
};

/* false: the engine has to write the zeroes. */
static bool change_cluster(const struct qcow2 *q, const struct change *c, uint64_t *entry,
			   uint64_t *bitmap)
{
	bool zero = !q->extl2 && (*entry & (QCOW2_ZERO | QCOW2_COMPRESSED)) == QCOW2_ZERO;
	bool drop = c->unmap || !is_copied(q, *entry);

	if (!drop) {	/* keep the space */
		if (q->h.version < 3)
			return false;
		if (!q->extl2)
			*entry |= QCOW2_ZERO;
		*bitmap = UINT64_C(0xffffffff) << 32;
		return true;
	}
	if (zero && !has_host(q, *entry))
		return true;
	if (c->hole_is_zero) {
		*entry = *bitmap = 0;
	} else if (q->h.version >= 3) {
		*entry = q->extl2 ? 0 : QCOW2_ZERO;
		*bitmap = UINT64_C(0xffffffff) << 32;
	} else {
		return false;	/* version 2 cannot say it */
	}
	return true;
}

/* Subclusters @mask of an extended entry. */
static bool change_subclusters(const struct qcow2 *q, const struct change *c, uint32_t mask,
			       uint64_t *entry, uint64_t *bitmap)
{
	uint32_t alloc = (uint32_t)*bitmap, zero = (uint32_t)(*bitmap >> 32);

	if (*entry & QCOW2_COMPRESSED)
		return c->intent == VD_MAP_DISCARD;
	alloc &= ~mask;
	zero |= mask;
	if (!alloc && c->unmap && has_host(q, *entry))
		*entry = 0;
	*bitmap = (uint64_t)zero << 32 | alloc;
	return true;
}

/* Nothing shows through a hole here. */
static bool hole_is_zero(const struct qcow2 *q, uint64_t pos)
{
	return !q->disk->backing || pos >= atomic_load(&q->disk->backing->size);
}

/* The part of [pos, end) in the cluster of pos, in whole units: true if any. */
static bool whole_units(const struct qcow2 *q, uint64_t pos, uint64_t end, uint64_t *hi)
{
	uint64_t unit = UINT64_C(1) << q->sub_bits;

	/* what is behind the end of the disk does not matter */
	if (end == atomic_load(&q->disk->size))
		end = vd_align_up(end, q->cluster_size);
	*hi = MIN(vd_align_down(pos, q->cluster_size) + q->cluster_size, vd_align_down(end, unit));
	return !(pos & (unit - 1)) && *hi > pos;
}

/* Less than a unit at @pos. */
static int change_part(struct qcow2 *q, uint64_t pos, uint64_t end, enum vd_intent intent,
		       unsigned flags, struct vd_extent *ext)
{
	uint64_t unit = UINT64_C(1) << q->sub_bits;
	struct run run = { 0 };
	int r;

	ext->len = MIN(end, vd_align_down(pos, unit) + unit) - pos;
	ext->kind = VD_DONE;
	if (intent == VD_MAP_DISCARD)
		return 0;
	r = find(q, pos, ext->len, flags & VD_MAP_NOWAIT, false, &run);
	if (r < 0)
		return r;
	if (run.kind != VD_ZERO && (run.kind != VD_HOLE || !hole_is_zero(q, pos)))
		ext->kind = VD_COPY;
	return 0;
}

/* One cluster: 0 done, 1 the engine has to write, or as l2_for_update(). */
static int change_one(struct qcow2 *q, uint64_t pos, uint64_t hi, const struct change *c,
		      bool nowait, enum vd_kind *kind)
{
	uint32_t i1 = (uint32_t)(pos >> q->span_bits);
	uint64_t i = entry_index(q, pos), entry, bitmap, old, old_bitmap;
	uint64_t in = pos & cluster_mask(q);
	unsigned first = (unsigned)(in >> q->sub_bits), n = (unsigned)((hi - pos) >> q->sub_bits);
	struct qcow2_table *t;
	bool can;
	int r;

	*kind = VD_DONE;
	old = old_bitmap = 0;
	if (q->l1[i1] & QCOW2_OFFSET_MASK) {
		r = qcow2_table_get(q, false, i1, nowait, &t);
		if (r)
			return r;
		old = entry_get(q, t, i);
		old_bitmap = bitmap_get(q, t, i);
	}
	if (q->data_raw) {
		/* the data file must show what we do */
		*kind = has_host(q, old) ? VD_COPY : VD_DONE;
		return 0;
	}
	entry = old;
	bitmap = old_bitmap;
	if (!old && !old_bitmap && c->hole_is_zero)
		return 0;
	if (hi - pos == q->cluster_size)
		can = change_cluster(q, c, &entry, &bitmap);
	else
		can = change_subclusters(q, c, sub_mask(first, n), &entry, &bitmap);
	if (!q->extl2)
		bitmap = 0;
	if (!can)
		*kind = VD_COPY;
	if (!can || (entry == old && bitmap == old_bitmap))
		return 0;
	r = l2_for_update(q, i1, nowait, &t);
	if (r)
		return r;
	entry_put(q, t, i, entry, bitmap);
	if (has_host(q, old) ? !has_host(q, entry) : old & QCOW2_COMPRESSED)
		free_entry(q, old, c->unmap);
	return 0;
}

static int map_change(struct qcow2 *q, uint64_t off, uint64_t len, enum vd_intent intent,
		      unsigned flags, struct vd_extent *ext)
{
	struct change c = {
		.intent = intent,
		.unmap = intent == VD_MAP_DISCARD || (flags & VD_MAP_UNMAP),
	};
	uint64_t end = off + len, pos = off, hi, span = UINT64_C(1) << q->span_bits;
	bool nowait = flags & VD_MAP_NOWAIT;
	enum vd_kind kind = VD_DONE;
	int r;

	if (!whole_units(q, off, end, &hi))
		return change_part(q, off, end, intent, flags, ext);
	/* as far as this table goes, as long as the answer is the same */
	while (whole_units(q, pos, end, &hi)) {
		enum vd_kind next;

		c.hole_is_zero = hole_is_zero(q, pos);
		if (!(q->l1[pos >> q->span_bits] & QCOW2_OFFSET_MASK) && c.hole_is_zero) {
			next = VD_DONE;
			hi = MAX(end, hi);
			hi = MIN(hi, vd_align_down(pos, span) + span);
		} else {
			r = change_one(q, pos, hi, &c, nowait, &next);
			if (r == QCOW2_RETRY && pos == off)
				return r;
			if (r && pos > off)
				break;
			if (r)
				return r;
		}
		if (pos == off)
			kind = next;
		else if (kind != next)
			break;
		pos = hi;
		if (pos >= end || !(pos & (span - 1)))
			break;
	}
	ext->kind = kind;
	ext->len = MIN(pos, end) - off;
	return 0;
}

/* The entry at @pos becomes empty.  As l2_for_update(). */
static int drop_one(struct qcow2 *q, uint64_t pos)
{
	uint32_t i1 = (uint32_t)(pos >> q->span_bits);
	uint64_t i = entry_index(q, pos), entry;
	struct qcow2_table *t;
	int r = qcow2_table_get(q, false, i1, false, &t);

	if (r || !((entry = entry_get(q, t, i)) | bitmap_get(q, t, i)))
		return r;
	r = l2_for_update(q, i1, false, &t);
	if (r)
		return r;
	entry_put(q, t, i, 0, 0);
	free_entry(q, entry, true);
	return 0;
}

int qcow2_drop(struct qcow2 *q, uint64_t off, uint64_t end)
{
	uint64_t span = UINT64_C(1) << q->span_bits;
	int r = 0;

	pthread_mutex_lock(&q->lock);
	while (r >= 0 && off < end && off >> q->span_bits < q->h.l1_size) {
		if (!(q->l1[off >> q->span_bits] & QCOW2_OFFSET_MASK)) {
			off = vd_align_down(off, span) + span;
			continue;
		}
		r = drop_one(q, off);
		if (r == 0)
			off += q->cluster_size;
	}
	pthread_mutex_unlock(&q->lock);
	return r < 0 ? r : 0;
}

/* ---- the driver's operations ---- */

/* Too much is waiting to be free: get it written out. */
static int reclaim(struct qcow2 *q, bool nowait)
{
	int r;

	if (q->n_freed < 65536 || q->freed[0].txn <= q->durable_txn)
		return 0;
	if (nowait)
		return -EAGAIN;
	r = qcow2_writeout(q, true);
	return r < 0 ? r : QCOW2_RETRY;
}

static int map_write(struct qcow2 *q, uint64_t off, uint64_t len, unsigned flags,
		     struct vd_extent *ext)
{
	struct run run = { 0 };
	int r = find(q, off, len, flags & VD_MAP_NOWAIT, true, &run);

	if (r < 0)
		return r;
	if (run.kind != VD_DATA || !run.copied)
		return VD_NEED_ALLOC;
	answer(q, &run, off, len, ext);
	return 0;
}

static int map_read(struct qcow2 *q, uint64_t off, uint64_t len, unsigned flags,
		    struct vd_extent *ext)
{
	struct run run = { 0 };
	int r = find(q, off, len, flags & VD_MAP_NOWAIT, false, &run);

	if (r < 0)
		return r;
	answer(q, &run, off, len, ext);
	return 0;
}

int qcow2_map(struct vdisk *disk, uint64_t off, uint64_t len, enum vd_intent intent,
	      unsigned flags, struct vd_extent *ext)
{
	bool read = intent == VD_MAP_READ || intent == VD_MAP_REPORT;
	bool nowait = flags & VD_MAP_NOWAIT;
	struct qcow2 *q = disk->priv;
	int r;

	pthread_mutex_lock(&q->lock);
	do {
		r = 0;
		if (!read && !atomic_load_explicit(&q->began, memory_order_relaxed))
			r = qcow2_begin(q, nowait);
		if (r)
			continue;
		if (read)
			r = map_read(q, off, len, flags, ext);
		else if (intent == VD_MAP_WRITE && !(flags & VD_MAP_ALLOC))
			r = map_write(q, off, len, flags, ext);
		else
			r = reclaim(q, nowait);
		if (r || read || (intent == VD_MAP_WRITE && !(flags & VD_MAP_ALLOC)))
			continue;
		if (intent == VD_MAP_WRITE)
			r = map_alloc(q, off, len, flags, ext);
		else
			r = map_change(q, off, len, intent, flags, ext);
	} while (r == QCOW2_RETRY);
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* The data is there: entries for what lies at @host. */
static void link_clusters(struct qcow2 *q, struct qcow2_table *t, const struct vd_extent *ext)
{
	uint64_t end = ext->new_off + ext->new_len, host = ext->cookie2;

	for (uint64_t pos = ext->new_off; pos < end; host += q->cluster_size) {
		uint64_t guest = vd_align_down(pos, q->cluster_size), i = entry_index(q, pos);
		uint64_t hi = MIN(vd_align_up(end, UINT64_C(1) << q->sub_bits),
				  guest + q->cluster_size), old = entry_get(q, t, i);
		uint32_t mask = sub_mask((unsigned)((pos - guest) >> q->sub_bits),
					 (unsigned)((hi - pos) >> q->sub_bits));
		uint64_t bitmap = old & QCOW2_COMPRESSED ? 0 : bitmap_get(q, t, i);

		bitmap |= mask;
		bitmap &= ~((uint64_t)mask << 32);
		entry_put(q, t, i, host | QCOW2_COPIED, bitmap);
		if ((old & QCOW2_COMPRESSED) || (old & QCOW2_OFFSET_MASK) != host)
			free_entry(q, old, false);
		pos = hi;
	}
}

static void link_coded(struct qcow2 *q, struct qcow2_table *t, const struct vd_extent *ext)
{
	uint64_t i = entry_index(q, ext->new_off), old = entry_get(q, t, i);

	entry_put(q, t, i, ext->cookie2, 0);
	free_entry(q, old, false);
}

/* Give back what no entry ever pointed to. */
static void unlink_new(struct qcow2 *q, struct qcow2_table *t, const struct vd_extent *ext)
{
	uint64_t i = entry_index(q, ext->new_off), first, n;

	if (ext->cookie2 & QCOW2_COMPRESSED) {
		if (qcow2_entry_clusters(q, ext->cookie2, &first, &n))
			qcow2_unalloc(q, first, n);
		return;
	}
	if (q->data_file || (has_host(q, entry_get(q, t, i)) &&
			     (entry_get(q, t, i) & QCOW2_OFFSET_MASK) == ext->cookie2))
		return;		/* it was ours before */
	n = ((ext->new_off & cluster_mask(q)) + ext->new_len + cluster_mask(q)) >> q->cluster_bits;
	qcow2_unalloc(q, ext->cookie2 >> q->cluster_bits, n);
}

void qcow2_commit(struct vdisk *disk, struct vd_extent *ext, int result)
{
	struct qcow2_table *t = ext->cookie;
	struct qcow2 *q = disk->priv;

	pthread_mutex_lock(&q->lock);
	if (result < 0)
		unlink_new(q, t, ext);
	else if (ext->cookie2 & QCOW2_COMPRESSED)
		link_coded(q, t, ext);
	else
		link_clusters(q, t, ext);
	t->pins--;
	pthread_mutex_unlock(&q->lock);
}
