/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check.c - is a qcow2 image consistent?
 *
 * Works on a cold image, from the medium alone.  In three steps:
 *
 *   count     walk everything that refers to clusters - header, L1 and L2
 *             tables of the active disk and of all snapshots, data (compressed
 *             data touches neighbours), snapshot table, bitmaps, the encryption
 *             header, refcount table and blocks - and count the references to
 *             each cluster.  Entries that make no sense are findings here.
 *   compare   with the refcounts on the medium.  Too low is a corruption (the
 *             cluster would be handed out while in use), too high is a leak.
 *   copied    the COPIED flags of the active tables must say whether the
 *             refcount is one: they permit writing in place.
 *
 * An L2 table is read once, however many L1 entries refer to it; what it refers
 * to is counted so many times.  So the work is linear in what is really in the
 * file, whatever a hostile image claims.
 *
 * Refcounts of clusters beyond the end of the file are not looked at.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "formats/qcow2/check.h"

#define REPORT_MAX	1000
#define PIECE_ENTRIES	8192u	/* of a table, read at once */

void check_finding(struct check *c, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	if (c->quiet || !c->report || c->n_reported > REPORT_MAX)
		return;
	if (c->n_reported++ == REPORT_MAX) {
		c->report(c->arg, "there are more findings, which are not listed");
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->report(c->arg, text);
}

#define corrupt(c, ...) ((c)->res.corruptions++, check_finding(c, __VA_ARGS__))

/* ---- counting ---- */

static unsigned cluster_bits(const struct check *c)
{
	return c->h.cluster_bits;
}

static uint64_t cluster_size(const struct check *c)
{
	return qcow2_cluster_size(&c->h);
}

static bool is_aligned(const struct check *c, uint64_t off)
{
	return (off & (cluster_size(c) - 1)) == 0;
}

/* Does a cluster at @off begin inside the file? */
static bool in_file(const struct check *c, uint64_t off)
{
	return off >> cluster_bits(c) < c->clusters;
}

/* Count the clusters of [off, off + len), which is a structure called @what. */
static int count_region(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	uint64_t end;

	if (len == 0)
		return 0;
	if (!vd_add(off, len - 1, &end) || !in_file(c, end)) {
		corrupt(c, "%s at %#" PRIx64 " reaches past the end of the file", what, off);
		return -ERANGE;
	}
	for (uint64_t i = off >> cluster_bits(c); i <= end >> cluster_bits(c); i++) {
		int r = counts_add(&c->counts, i, 1, COUNT_META);

		if (r < 0)
			return r;
	}
	return 0;
}

/* -ERANGE has been reported; it only means that the count is incomplete. */
static int tolerate(struct check *c, int r)
{
	if (r == -ERANGE) {
		c->incomplete = true;
		return 0;
	}
	return r;
}

/*
 * Read a piece of a table of 64-bit entries: @*n of them from entry @i of
 * @total on.  What cannot be read is an error of the check, and told so.
 */
static int read_entries(struct check *c, uint64_t *piece, uint64_t off, uint64_t i,
			uint64_t total, uint64_t *n, const char *what)
{
	int r;

	*n = MIN(total - i, (uint64_t)PIECE_ENTRIES);
	r = vd_pread_pad(c->file, piece, *n * 8, off + i * 8);
	if (r < 0) {
		c->res.errors++;
		check_finding(c, "%s at %#" PRIx64 " cannot be read", what, off + i * 8);
		return -ERANGE;
	}
	for (uint64_t k = 0; k < *n; k++)
		piece[k] = load_be64(&piece[k]);
	return 0;
}

bool check_may_write(const struct check *c, const struct counts *counts, uint64_t off,
		     enum count_kind kind)
{
	uint64_t cluster = off >> cluster_bits(c);
	const struct count_group *g = counts_find(counts, cluster);

	return g && g->kind[cluster % COUNTS_GROUP] == kind &&
	       (kind == COUNT_L2 || g->n[cluster % COUNTS_GROUP] == 1);
}

/* Write a corrected table or entry, if that is what this pass is for. */
static int write_fixed(struct check *c, bool fix, const struct counts *counts, uint64_t table,
		       enum count_kind kind, const void *bytes, size_t len, uint64_t off)
{
	if (!fix || !check_may_write(c, counts, table, kind))
		return 0;
	return vd_pwrite(c->file, bytes, len, off);
}

/* ---- L2 tables ---- */

/* What an entry refers to. */
struct entry_ref {
	uint64_t first, last;	/* clusters of the file; first > last: none */
	bool allocated;
	bool compressed;
};

/* An entry that reads as zeroes, where what was meant cannot be known. */
static void make_zero(const struct check *c, uint64_t *entry, uint64_t *bitmap)
{
	*entry = c->h.version >= 3 && !qcow2_extended_l2(&c->h) ? QCOW2_ZERO : 0;
	*bitmap = qcow2_extended_l2(&c->h) ? UINT64_C(0xffffffff00000000) : 0;
}

static const char *judge_compressed(const struct check *c, uint64_t *entry, uint64_t *bitmap,
				    struct entry_ref *ref)
{
	const char *wrong = NULL;
	uint64_t off, len, end;

	if (c->h.incompatible & QCOW2_INCOMPAT_DATA_FILE) {
		make_zero(c, entry, bitmap);
		return "is compressed, which an external data file does not allow";
	}
	qcow2_compressed(&c->h, *entry, &off, &len);
	if (off < cluster_size(c) || off >= c->file_size) {
		make_zero(c, entry, bitmap);
		return "is compressed, but its data lie outside the file";
	}
	end = off + len - 1;
	if (*bitmap) {
		wrong = "is compressed, but has a subcluster bitmap";
		*bitmap = 0;
	}
	if (*entry & QCOW2_COPIED) {
		wrong = "is compressed, but marked as copied";
		*entry &= ~QCOW2_COPIED;
	}
	ref->allocated = ref->compressed = true;
	ref->first = off >> cluster_bits(c);
	ref->last = MIN(end >> cluster_bits(c), c->clusters - 1);
	return wrong;
}

static const char *judge_bitmap(uint64_t off, uint64_t *bitmap)
{
	uint64_t both = *bitmap & *bitmap >> 32 & UINT32_MAX;

	if (!off && (*bitmap & UINT32_MAX)) {
		*bitmap &= ~(uint64_t)UINT32_MAX;
		return "has subclusters, but no cluster";
	}
	if (both) {
		*bitmap &= ~(both << 32);
		return "has subclusters that are both data and zero";
	}
	return NULL;
}

static const char *judge_standard(const struct check *c, uint64_t *entry, uint64_t *bitmap,
				  struct entry_ref *ref)
{
	bool external = c->h.incompatible & QCOW2_INCOMPAT_DATA_FILE;
	bool ext = qcow2_extended_l2(&c->h);
	uint64_t reserved = QCOW2_L2_RESERVED | (ext || c->h.version < 3 ? QCOW2_ZERO : 0);
	uint64_t off = *entry & QCOW2_OFFSET_MASK;
	const char *wrong = NULL;

	if (off && !is_aligned(c, off)) {
		make_zero(c, entry, bitmap);
		return "has an offset that is not aligned";
	}
	if (off && !external && !in_file(c, off)) {
		make_zero(c, entry, bitmap);
		return "refers to a cluster outside the file";
	}
	if (*entry & reserved) {
		wrong = "has reserved bits set";
		*entry &= ~reserved;
	}
	if (ext && !(external && (*entry & QCOW2_COPIED))) {
		const char *text = judge_bitmap(off, bitmap);

		wrong = text ? text : wrong;
	}
	ref->allocated = off || (external && (*entry & QCOW2_COPIED));
	if (off && !external)
		ref->first = ref->last = off >> cluster_bits(c);
	return wrong;
}

/*
 * Judge an L2 entry (and its bitmap, with extended entries).  NULL if it is
 * sound; else what is wrong, and the two are changed to what should stand
 * there.  @ref describes them after the change.
 */
static const char *judge(const struct check *c, uint64_t *entry, uint64_t *bitmap,
			 struct entry_ref *ref)
{
	*ref = (struct entry_ref) { .first = 1 };
	if (*entry & QCOW2_COMPRESSED)
		return judge_compressed(c, entry, bitmap, ref);
	return judge_standard(c, entry, bitmap, ref);
}

static void get_entry(const struct check *c, size_t i, uint64_t *entry, uint64_t *bitmap)
{
	const uint8_t *p = c->buf + (i << qcow2_l2_entry_bits(&c->h));

	*entry = load_be64(p);
	*bitmap = qcow2_extended_l2(&c->h) ? load_be64(p + 8) : 0;
}

static void put_entry(struct check *c, size_t i, uint64_t entry, uint64_t bitmap)
{
	uint8_t *p = c->buf + (i << qcow2_l2_entry_bits(&c->h));

	store_be64(p, entry);
	if (qcow2_extended_l2(&c->h))
		store_be64(p + 8, bitmap);
}

static int read_l2(struct check *c, const struct check_l2 *t)
{
	int r = vd_pread_pad(c->file, c->buf, cluster_size(c), t->off);

	if (r < 0) {
		c->res.errors++;
		check_finding(c, "L2 table at %#" PRIx64 " cannot be read", t->off);
		c->incomplete = true;
	}
	return r;
}

static int count_l2(struct check *c, const struct check_l2 *t)
{
	size_t n = (size_t)1 << qcow2_l2_bits(&c->h);
	bool changed = false;

	if (read_l2(c, t) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t entry, bitmap;
		struct entry_ref ref;
		const char *wrong;

		get_entry(c, i, &entry, &bitmap);
		if (!entry && !bitmap)
			continue;
		wrong = judge(c, &entry, &bitmap, &ref);
		if (wrong) {
			corrupt(c, "entry %zu of the L2 table at %#" PRIx64 " %s", i, t->off, wrong);
			c->bad_entries = true;
			put_entry(c, i, entry, bitmap);
			changed = true;
		}
		for (uint64_t k = ref.first; k <= ref.last; k++) {
			int r = counts_add(&c->counts, k, t->refs, COUNT_DATA);

			if (r < 0)
				return r;
		}
	}
	return write_fixed(c, changed && c->fix_entries, &c->before, t->off, COUNT_L2, c->buf,
			   cluster_size(c), t->off);
}

/* ---- L1 tables ---- */

static int l2_by_offset(const void *a, const void *b)
{
	const struct check_l2 *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Sort the list of L2 tables, and make one of those that are the same. */
static void merge_l2(struct check *c)
{
	size_t n = 0;

	if (!c->n_l2)
		return;
	qsort(c->l2, c->n_l2, sizeof(*c->l2), l2_by_offset);
	for (size_t i = 0; i < c->n_l2; i++) {
		struct check_l2 *last = n ? &c->l2[n - 1] : NULL;

		if (last && last->off == c->l2[i].off) {
			last->refs += c->l2[i].refs;
			last->l1_index = MIN(last->l1_index, c->l2[i].l1_index);
		} else {
			c->l2[n++] = c->l2[i];
		}
	}
	c->n_l2 = n;
}

static int add_l2(struct check *c, uint64_t off, uint32_t l1_index)
{
	if (c->n_l2 == c->l2_room) {
		if (c->n_l2)
			merge_l2(c);
		if (c->n_l2 * 2 >= c->l2_room) {
			size_t room = c->l2_room ? 2 * c->l2_room : 1024;
			struct check_l2 *l2 = reallocarray(c->l2, room, sizeof(*l2));

			if (!l2)
				return -ENOMEM;
			c->l2 = l2;
			c->l2_room = room;
		}
	}
	c->l2[c->n_l2++] = (struct check_l2) { .off = off, .refs = 1, .l1_index = l1_index };
	return counts_add(&c->counts, off >> cluster_bits(c), 1, COUNT_L2);
}

/* Judge an L1 entry as judge() does; the table is the one at @table. */
static int count_l1_entry(struct check *c, uint64_t table, uint32_t i, uint64_t entry, bool active)
{
	uint64_t off = entry & QCOW2_OFFSET_MASK, good = entry;
	const char *wrong = NULL;
	uint8_t bytes[8];
	int r;

	if (entry & QCOW2_L1_RESERVED) {
		wrong = "has reserved bits set";
		good &= ~QCOW2_L1_RESERVED;
	}
	if (off && (!is_aligned(c, off) || !in_file(c, off))) {
		wrong = is_aligned(c, off) ? "refers to an L2 table outside the file" :
			"has an offset that is not aligned";
		good = off = 0;
	}
	if (wrong) {
		corrupt(c, "entry %u of the L1 table at %#" PRIx64 " %s", i, table, wrong);
		c->bad_entries = true;
		store_be64(bytes, good);
		r = write_fixed(c, c->fix_entries, &c->before, table + 8ull * i, COUNT_META, bytes,
				sizeof(bytes), table + 8ull * i);
		if (r < 0)
			return r;
	}
	return off ? add_l2(c, off, active ? i : CHECK_NOT_ACTIVE) : 0;
}

static int count_l1(struct check *c, uint64_t off, uint32_t entries, bool active, const char *what)
{
	AUTO_FREE uint64_t *piece = malloc(PIECE_ENTRIES * 8);
	int r = count_region(c, off, 8ull * entries, what);

	if (!piece)
		return -ENOMEM;
	for (uint64_t i = 0, n; i < entries && r == 0; i += n) {
		r = read_entries(c, piece, off, i, entries, &n, what);
		for (uint64_t k = 0; k < n && r == 0; k++)
			if (piece[k])
				r = count_l1_entry(c, off, (uint32_t)(i + k), piece[k], active);
	}
	return tolerate(c, r);
}

/* ---- snapshots (specification: "Snapshots") ---- */

struct snapshot_l1 {
	uint64_t off;
	uint32_t entries;
	uint64_t length;	/* of the snapshot's entry in the table */
};

static int read_snapshot(struct check *c, uint64_t at, struct snapshot_l1 *out)
{
	uint8_t p[40];
	uint64_t len;
	int r = vd_pread(c->file, p, sizeof(p), at);

	if (r < 0)
		return -ERANGE;
	len = 40ull + load_be32(p + 36) + load_be16(p + 12) + load_be16(p + 14);
	*out = (struct snapshot_l1) {
		.off = load_be64(p),
		.entries = load_be32(p + 8),
		.length = vd_align_up(len, 8),
	};
	return 0;
}

static int count_snapshot(struct check *c, uint32_t i, const struct snapshot_l1 *s)
{
	if (!is_aligned(c, s->off) || 8ull * s->entries > QCOW2_MAX_L1_BYTES) {
		corrupt(c, "snapshot %u has an invalid L1 table (%u entries at %#" PRIx64 ")", i,
			s->entries, s->off);
		c->incomplete = true;
		return 0;
	}
	return count_l1(c, s->off, s->entries, false, "L1 table of a snapshot");
}

static int count_snapshots(struct check *c)
{
	uint64_t at = c->h.snapshots_offset;
	int r;

	for (uint32_t i = 0; i < c->h.n_snapshots; i++) {
		struct snapshot_l1 s;

		r = read_snapshot(c, at, &s);
		if (r == 0 && s.length > QCOW2_MAX_SNAPSHOT_TABLE - (at - c->h.snapshots_offset))
			r = -ERANGE;
		if (r < 0) {
			corrupt(c, "the snapshot table is damaged at %#" PRIx64, at);
			return tolerate(c, r);
		}
		r = count_snapshot(c, i, &s);
		if (r < 0)
			return r;
		at += s.length;
	}
	r = count_region(c, c->h.snapshots_offset, at - c->h.snapshots_offset, "snapshot table");
	return tolerate(c, r);
}

/* ---- bitmaps (specification: "Bitmaps") ---- */

static int count_bitmap(struct check *c, uint64_t off, uint32_t entries)
{
	AUTO_FREE uint64_t *piece = malloc(PIECE_ENTRIES * 8);
	int r;

	if (!piece)
		return -ENOMEM;
	if (!is_aligned(c, off) || entries > QCOW2_MAX_BITMAP_TABLE) {
		corrupt(c, "bitmap table at %#" PRIx64 " is invalid", off);
		return -ERANGE;
	}
	r = count_region(c, off, 8ull * entries, "bitmap table");
	for (uint64_t i = 0, n; i < entries && r == 0; i += n) {
		r = read_entries(c, piece, off, i, entries, &n, "bitmap table");
		for (uint64_t k = 0; k < n && r == 0; k++) {
			uint64_t data = piece[k] & QCOW2_OFFSET_MASK;

			/* bit 0 means all ones, where there is no cluster */
			if ((piece[k] & ~QCOW2_OFFSET_MASK & ~UINT64_C(1)) ||
			    (data && ((piece[k] & 1) || !is_aligned(c, data)))) {
				corrupt(c, "entry %" PRIu64 " of the bitmap table at %#" PRIx64
					" is invalid", i + k, off);
				r = -ERANGE;
			} else if (data) {
				r = count_region(c, data, cluster_size(c), "bitmap data");
			}
		}
	}
	return r;
}

static int count_bitmap_directory(struct check *c)
{
	uint64_t at = c->h.bitmap_dir_offset, end;
	int r = count_region(c, at, c->h.bitmap_dir_size, "bitmap directory");

	if (r < 0)
		return r;
	end = at + c->h.bitmap_dir_size;
	for (uint32_t i = 0; i < c->h.n_bitmaps; i++) {
		uint8_t p[24];
		uint64_t len;

		if (end - at < sizeof(p) || vd_pread_pad(c->file, p, sizeof(p), at) < 0)
			goto damaged;
		len = vd_align_up(24ull + load_be32(p + 20) + load_be16(p + 18), 8);
		if (len > end - at)
			goto damaged;
		r = count_bitmap(c, load_be64(p), load_be32(p + 8));
		if (r < 0)
			return r;
		at += len;
	}
	return 0;
damaged:
	corrupt(c, "the bitmap directory is damaged at %#" PRIx64, at);
	return -ERANGE;
}

/* Without the autoclear bit they are leftovers that nobody may use. */
static int count_bitmaps(struct check *c)
{
	int r;

	if (!c->h.has_bitmaps || !(c->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	r = count_bitmap_directory(c);
	if (r == -ERANGE)
		c->bad_bitmaps = true;
	return tolerate(c, r);
}

/* ---- the rest ---- */

/* specification: "Full disk encryption header pointer" */
static int count_crypto(struct check *c)
{
	for (unsigned i = 0; i < c->h.n_ext; i++) {
		const struct qcow2_extension *e = &c->h.ext[i];
		int r;

		if (e->type != QCOW2_EXT_CRYPTO || e->len < 16)
			continue;
		r = count_region(c, load_be64(e->data), load_be64(e->data + 8),
				 "encryption header");
		if (r < 0)
			return tolerate(c, r);
	}
	return 0;
}

static const char *judge_refblock(const struct check *c, uint64_t entry)
{
	if (entry & QCOW2_REFTABLE_RESERVED)
		return "has reserved bits set";
	if (!is_aligned(c, entry))
		return "has an offset that is not aligned";
	if (!in_file(c, entry))
		return "refers to a block outside the file";
	return NULL;
}

static int count_refblocks(struct check *c)
{
	for (size_t i = 0; i < c->n_reftable; i++) {
		uint64_t entry = c->reftable[i];
		const char *wrong;
		int r;

		if (!entry)
			continue;
		wrong = judge_refblock(c, entry);
		if (wrong) {
			corrupt(c, "entry %zu of the refcount table %s", i, wrong);
			c->bad_refcounts = true;
			c->reftable[i] = 0;
			continue;
		}
		r = counts_add(&c->counts, entry >> cluster_bits(c), 1, COUNT_META);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_reftable(struct check *c)
{
	uint64_t bytes = (uint64_t)c->h.reftable_clusters << cluster_bits(c);
	int r = count_region(c, c->h.reftable_offset, bytes, "refcount table");

	if (r == -ERANGE) {
		c->bad_refcounts = true;
		return 0;
	}
	if (r < 0)
		return r;
	c->reftable = malloc(bytes ? bytes : 1);
	if (!c->reftable)
		return -ENOMEM;
	for (uint64_t i = 0, n; i < bytes / 8; i += n) {
		r = read_entries(c, c->reftable + i, c->h.reftable_offset, i, bytes / 8, &n,
				 "refcount table");
		if (r < 0) {
			c->bad_refcounts = true;
			return 0;
		}
	}
	c->n_reftable = bytes / 8;
	return 0;
}

static int count_refcounts(struct check *c)
{
	int r;

	if (c->skip_refcounts)
		return 0;
	r = read_reftable(c);
	return r < 0 ? r : count_refblocks(c);
}

static void forget(struct check *c)
{
	counts_clear(&c->counts);
	free(c->l2);
	free(c->reftable);
	c->l2 = NULL;
	c->reftable = NULL;
	c->n_l2 = c->l2_room = c->n_reftable = 0;
	c->res = (struct vdisk_check_result) { 0 };
	c->bad_refcounts = c->bad_bitmaps = c->bad_entries = c->incomplete = false;
}

int check_count(struct check *c)
{
	int r;

	forget(c);
	c->file_size = c->file->size;
	c->clusters = (c->file_size >> cluster_bits(c)) + !is_aligned(c, c->file_size);
	r = counts_add(&c->counts, 0, 1, COUNT_META);
	if (r == 0)
		r = count_l1(c, c->h.l1_offset, c->h.l1_size, true, "L1 table");
	if (r == 0)
		r = count_snapshots(c);
	if (r == 0)
		r = count_bitmaps(c);
	if (r == 0)
		r = count_crypto(c);
	if (r == 0)
		r = count_refcounts(c);
	if (r < 0)
		return r;
	merge_l2(c);
	for (size_t i = 0; i < c->n_l2 && r == 0; i++)
		r = count_l2(c, &c->l2[i]);
	return r;
}

/* ---- comparing ---- */

static bool is_refblock_shared(const struct check *c, uint64_t off)
{
	const struct count_group *g = counts_find(&c->counts, off >> cluster_bits(c));

	return g && g->n[(off >> cluster_bits(c)) % COUNTS_GROUP] > 1;
}

int check_read_refblock(struct check *c, size_t i)
{
	int r = vd_pread_pad(c->file, c->buf, cluster_size(c), c->reftable[i]);

	if (r < 0) {
		c->res.errors++;
		check_finding(c, "refcount block at %#" PRIx64 " cannot be read", c->reftable[i]);
	}
	return r;
}

static void compare_cluster(struct check *c, struct count_group *g, uint64_t cluster,
			    uint64_t refcount)
{
	uint64_t n = g ? g->n[cluster % COUNTS_GROUP] : 0;

	if (g && refcount == 1)
		g->one |= UINT64_C(1) << cluster % COUNTS_GROUP;
	if (refcount == n)
		return;
	if (refcount < n) {
		corrupt(c, "cluster %" PRIu64 " has refcount %" PRIu64 " but %" PRIu64
			" references", cluster, refcount, n);
	} else {
		c->res.leaks++;
		check_finding(c, "cluster %" PRIu64 " is leaked: refcount %" PRIu64 ", %" PRIu64
			      " references", cluster, refcount, n);
	}
}

/* The block in ->buf covers the clusters from @first on. */
static void compare_block(struct check *c, uint64_t first)
{
	uint64_t n = UINT64_C(1) << qcow2_refblock_bits(&c->h);

	n = MIN(n, c->clusters - first);
	for (uint64_t i = 0; i < n; i++) {
		struct count_group *g = counts_find(&c->counts, first + i);
		uint64_t end = MIN(i + COUNTS_GROUP, n);

		for (; i < end; i++)
			compare_cluster(c, g, first + i,
					qcow2_refcount_get(c->buf, c->h.refcount_order, i));
		i--;
	}
}

/* A block that something else refers to as well can hold no refcounts. */
static int compare_refcounts(struct check *c)
{
	unsigned bits = qcow2_refblock_bits(&c->h);

	for (size_t i = 0; i < c->n_reftable; i++) {
		if (!c->reftable[i] || (uint64_t)i > (c->clusters - 1) >> bits)
			continue;
		if (is_refblock_shared(c, c->reftable[i])) {
			corrupt(c, "refcount block %zu at %#" PRIx64 " is used for something else "
				"too", i, c->reftable[i]);
			c->reftable[i] = 0;
			c->bad_refcounts = true;
		} else if (check_read_refblock(c, i) < 0) {
			c->reftable[i] = 0;
			c->bad_refcounts = true;
		} else {
			compare_block(c, (uint64_t)i << bits);
		}
	}
	return 0;
}

/* References to clusters whose refcount is nowhere, and clusters with two uses. */
static int compare_groups(struct check *c)
{
	struct count_group **list = counts_sorted(&c->counts);
	unsigned bits = qcow2_refblock_bits(&c->h);

	if (!list)
		return -ENOMEM;
	for (size_t k = 0; k < c->counts.used; k++) {
		struct count_group *g = list[k];
		uint64_t first = g->index * COUNTS_GROUP;
		bool covered = first >> bits < c->n_reftable && c->reftable[first >> bits];

		for (unsigned i = 0; i < COUNTS_GROUP; i++) {
			if (!g->n[i])
				continue;
			c->res.image_end = (first + i + 1) << cluster_bits(c);
			if (!covered) {
				compare_cluster(c, g, first + i, 0);
				c->bad_refcounts = true;
			}
			if ((g->kind[i] & COUNT_META && g->n[i] > 1) ||
			    (g->kind[i] & COUNT_L2 && g->kind[i] & COUNT_DATA))
				corrupt(c, "cluster %" PRIu64 " is used for two things at once",
					first + i);
		}
	}
	free(list);
	return 0;
}

/* ---- COPIED flags ---- */

/* Is the refcount of the cluster at @off one? */
static bool is_single(const struct check *c, uint64_t off)
{
	uint64_t cluster = off >> cluster_bits(c);
	const struct count_group *g = counts_find(&c->counts, cluster);

	return g && (g->one >> cluster % COUNTS_GROUP & 1);
}

static void count_use(struct check *c, const struct entry_ref *ref, uint64_t *next)
{
	if (!ref->allocated)
		return;
	c->res.allocated_clusters++;
	if (ref->compressed) {
		/* coded clusters always count as fragments */
		c->res.compressed_clusters++;
		c->res.fragmented_clusters++;
		return;
	}
	if (ref->first > ref->last)
		return;		/* in a data file */
	if (*next && ref->first != *next)
		c->res.fragmented_clusters++;
	*next = ref->first + 1;
}

/* With an external data file, clusters are where the guest has them. */
static bool is_misplaced(const struct check *c, const struct check_l2 *t, size_t i, uint64_t entry)
{
	uint64_t guest = ((uint64_t)t->l1_index << qcow2_l1_span_bits(&c->h)) +
			 ((uint64_t)i << cluster_bits(c));

	return (c->h.incompatible & QCOW2_INCOMPAT_DATA_FILE) &&
	       (entry & QCOW2_OFFSET_MASK) != guest;
}

static int copied_l2(struct check *c, const struct check_l2 *t, uint64_t *next)
{
	size_t n = (size_t)1 << qcow2_l2_bits(&c->h);
	bool changed = false;

	if (read_l2(c, t) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t entry, bitmap, was;
		struct entry_ref ref;
		bool single;

		get_entry(c, i, &entry, &bitmap);
		was = entry;
		if (!entry || judge(c, &entry, &bitmap, &ref))
			continue;
		count_use(c, &ref, next);
		if (!ref.allocated || ref.compressed)
			continue;
		if (is_misplaced(c, t, i, entry))
			corrupt(c, "entry %zu of the L2 table at %#" PRIx64 " is not at its place in "
				"the data file", i, t->off);
		single = (c->h.incompatible & QCOW2_INCOMPAT_DATA_FILE) ||
			 is_single(c, entry & QCOW2_OFFSET_MASK);
		if (single == !!(entry & QCOW2_COPIED))
			continue;
		corrupt(c, "entry %zu of the L2 table at %#" PRIx64 " is %smarked as copied, but the "
			"refcount is %sone", i, t->off, single ? "not " : "", single ? "" : "not ");
		put_entry(c, i, was ^ QCOW2_COPIED, bitmap);
		changed = true;
	}
	return write_fixed(c, changed && c->fix_copied, &c->counts, t->off, COUNT_L2, c->buf,
			   cluster_size(c), t->off);
}

static int copied_l1_entry(struct check *c, uint32_t i, uint64_t entry)
{
	uint64_t off = entry & QCOW2_OFFSET_MASK;
	uint8_t bytes[8];
	bool single;

	if (!off || !is_aligned(c, off) || !in_file(c, off))
		return 0;
	single = is_single(c, off);
	if (single == !!(entry & QCOW2_COPIED))
		return 0;
	corrupt(c, "entry %u of the L1 table is %smarked as copied, but the refcount is %sone", i,
		single ? "not " : "", single ? "" : "not ");
	store_be64(bytes, entry ^ QCOW2_COPIED);
	return write_fixed(c, c->fix_copied, &c->counts, c->h.l1_offset + 8ull * i, COUNT_META,
			   bytes, sizeof(bytes), c->h.l1_offset + 8ull * i);
}

static int copied_l1(struct check *c)
{
	AUTO_FREE uint64_t *piece = malloc(PIECE_ENTRIES * 8);
	int r = 0;

	if (!piece)
		return -ENOMEM;
	for (uint64_t i = 0, n; i < c->h.l1_size && r == 0; i += n) {
		r = read_entries(c, piece, c->h.l1_offset, i, c->h.l1_size, &n, "L1 table");
		for (uint64_t k = 0; k < n && r == 0; k++)
			r = copied_l1_entry(c, (uint32_t)(i + k), piece[k]);
	}
	return tolerate(c, r);
}

int check_copied(struct check *c)
{
	uint64_t next = 0;
	int r = copied_l1(c);

	for (size_t i = 0; i < c->n_l2 && r == 0; i++)
		if (c->l2[i].l1_index != CHECK_NOT_ACTIVE)
			r = copied_l2(c, &c->l2[i], &next);
	return r;
}

/* ---- the whole ---- */

int check_scan(struct check *c)
{
	int r = check_count(c);

	if (r == 0)
		r = compare_refcounts(c);
	if (r == 0)
		r = compare_groups(c);
	if (r == 0)
		r = check_copied(c);
	c->res.total_clusters = (c->h.size >> cluster_bits(c)) + !is_aligned(c, c->h.size);
	return r;
}

/* What can be checked at all: an L1 table that is in the file. */
static int check_open(struct check *c, struct vdisk_error *err)
{
	uint64_t l1;
	int r = qcow2_header_read(&c->h, c->file, err);

	if (r < 0)
		return r;
	r = qcow2_header_usable(&c->h, err);
	if (r < 0)
		return r;
	l1 = vd_align_up(8ull * c->h.l1_size, cluster_size(c));
	if (l1 && !vd_in_range(c->h.l1_offset, l1,
			       vd_align_up(c->file->size, cluster_size(c))))
		return vd_fail(err, EINVAL, "qcow2: the L1 table at %#" PRIx64 " reaches past the "
			       "end of the file", c->h.l1_offset);
	c->buf = malloc(cluster_size(c));
	return c->buf ? 0 : vd_fail(err, ENOMEM, "out of memory");
}

static int run(struct check *c, unsigned flags, struct vdisk_error *err)
{
	int r = check_scan(c);

	if (r == 0 && flags)
		r = check_repair(c, flags);
	if (r == -EFBIG)
		return vd_fail(err, EFBIG, "qcow2: the image has more clusters than a check can "
			       "count");
	if (r < 0)
		return vd_fail(err, -r, "qcow2: check: %s", strerror(-r));
	return 0;
}

int qcow2_check_file(struct vdisk *file, struct vdisk *data UNUSED, unsigned flags,
		     struct vdisk_check_result *out,
		     void (*report)(void *arg, const char *finding), void *arg,
		     struct vdisk_error *err)
{
	struct check c = { .file = file, .report = report, .arg = arg };
	int r = check_open(&c, err);

	if (r == 0)
		r = run(&c, flags, err);
	if (r == 0)
		*out = c.res;
	forget(&c);
	free(c.buf);
	qcow2_header_clear(&c.h);
	return r;
}
