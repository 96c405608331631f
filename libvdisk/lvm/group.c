/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * group.c - a volume group, made of its metadata
 *
 * A group owns physical volumes, which are rows of extents of one size, and
 * logical volumes, which are lists of segments.  A segment is a range of the
 * volume's extents and says how it lies on its legs: extents of a physical
 * volume, or of another (hidden) logical volume.
 *
 *	striped		legs take turns, stripe by stripe; with one leg: linear
 *	raid0		the same over whole volumes
 *	raid1, mirror	each leg holds all of it
 *
 * Any other segment is known by its name only and makes its volume unusable.
 *
 * A copy-on-write snapshot is odd: the metadata shows a plain volume, which is
 * the store of saved blocks, and beside it a hidden one of type "snapshot"
 * that names the store and the origin.  The store read as a volume would be
 * garbage, and an origin written without the kernel would ruin its snapshots;
 * so the one cannot be opened and the other not for writing.
 *
 * What holds after lvm_group_check() of each volume without a reason
 *   1. Its segments cover it from 0 to its end, without gap or overlap.
 *   2. Each leg lies within its device, clear of metadata, or within its volume.
 *   3. No extent of anything belongs to two legs, so that volumes on volumes
 *      are trees, at most LVM_STACK_MAX high.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "lvm/lvm.h"

#define NO_META UINT32_MAX

static const char hidden_piece[] = "is a piece of another volume";

/* ---- names to indices ---- */

struct name {
	const char *text;
	uint32_t index;
};

struct names {
	struct name *name;	/* owned, sorted */
	uint32_t count;
};

static int by_text(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

/* The sections in @in, numbered as they come.  -EINVAL if two have one name. */
static int names_make(struct names *out, const struct lvm_config *c, const struct lvm_node *in)
{
	uint32_t n = 0;

	for (const struct lvm_node *s = lvm_first(c, in); s; s = lvm_next(c, s))
		n += s->type == LVM_SECTION;
	out->name = calloc(n + 1, sizeof(*out->name));
	if (!out->name)
		return -ENOMEM;
	for (const struct lvm_node *s = lvm_first(c, in); s; s = lvm_next(c, s))
		if (s->type == LVM_SECTION) {
			out->name[out->count] = (struct name) { s->name, out->count };
			out->count++;
		}
	qsort(out->name, n, sizeof(*out->name), by_text);
	for (uint32_t i = 1; i < n; i++)
		if (!strcmp(out->name[i - 1].text, out->name[i].text))
			return -EINVAL;
	return 0;
}

static bool names_find(const struct names *names, const char *text, uint32_t *index)
{
	struct name key = { .text = text };
	struct name *n = names->count ? bsearch(&key, names->name, names->count, sizeof(key),
						by_text) : NULL;

	if (n)
		*index = n->index;
	return n;
}

/* ---- parsing ---- */

struct build {
	const struct lvm_config *c;
	struct lvm_group *g;
	struct names pvs, lvs;
	struct vdisk_error *err;
};

static void reason(struct lvm_lv *lv, int code, const char *fmt, ...) PRINTF_FMT(3, 4);

/* The first reason stays. */
static void reason(struct lvm_lv *lv, int code, const char *fmt, ...)
{
	va_list ap;

	if (lv->code)
		return;
	lv->code = code;
	va_start(ap, fmt);
	vsnprintf(lv->shown->reason, sizeof(lv->shown->reason), fmt, ap);
	va_end(ap);
}

bool lvm_good_name(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > LVM_NAME_MAX || s[0] == '-' || !strcmp(s, ".") || !strcmp(s, ".."))
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("+_.-", *s))
			return false;
	return true;
}

/* "abcdef-ghij-...": only what is sure to be one is taken. */
static bool get_id(const struct build *b, const struct lvm_node *in, char out[LVM_ID_TEXT])
{
	uint8_t id[LVM_ID_LEN];
	const char *s;
	unsigned n = 0;

	if (!lvm_get_string(b->c, in, "id", &s))
		return false;
	for (; *s; s++)
		if (*s != '-') {
			if (n == LVM_ID_LEN)
				return false;
			id[n++] = (uint8_t)*s;
		}
	return n == LVM_ID_LEN && lvm_id_text(out, id);
}

/* Sectors in the text, bytes here. */
static bool get_sectors(const struct build *b, const struct lvm_node *in, const char *name,
			uint64_t *out)
{
	uint64_t v;

	return lvm_get_number(b->c, in, name, &v) && vd_mul(v, LVM_SECTOR, out);
}

static int parse_pv(struct build *b, const struct lvm_node *s, uint32_t index)
{
	struct lvm_group *g = b->g;
	struct lvm_pv *pv = &g->pv[index];
	struct vdisk_pv *shown = &g->shown_pv[index];
	const char *hint = "";
	uint64_t bytes;

	pv->shown = shown;
	pv->found = -1;
	if (!get_id(b, s, pv->id) || !get_sectors(b, s, "pe_start", &pv->pe_start) ||
	    !lvm_get_number(b->c, s, "pe_count", &pv->pe_count) ||
	    !vd_mul(pv->pe_count, g->extent_size, &bytes) ||
	    !vd_add(bytes, pv->pe_start, &bytes) || bytes > INT64_MAX)
		return vd_fail(b->err, EINVAL, "volume group %s: physical volume %s makes no sense",
			       g->shown.name, s->name);
	pv->lost = lvm_has_flag(b->c, s, "flags", "MISSING") ||
		   lvm_has_flag(b->c, s, "status", "MISSING");
	lvm_get_string(b->c, s, "device", &hint);
	get_sectors(b, s, "dev_size", &shown->size);
	shown->missing = true;
	snprintf(shown->uuid, sizeof(shown->uuid), "%s", pv->id);
	snprintf(shown->vg, sizeof(shown->vg), "%s", g->shown.name);
	snprintf(shown->hint, sizeof(shown->hint), "%s", hint);
	if (!vd_add(g->shown.size, pv->pe_count * g->extent_size, &g->shown.size))
		g->shown.size = UINT64_MAX;
	return 0;
}

/* ---- segments ---- */

/* How the legs stand in the text. */
static const struct seg_type {
	const char *name;
	enum lvm_seg_kind kind;
	const char *count;	/* key: how many legs */
	const char *legs;	/* key: the array */
	enum { WITH_START, ALONE, WITH_META } form;
} seg_types[] = {
	{ "striped", LVM_STRIPED, "stripe_count", "stripes", WITH_START },
	{ "linear", LVM_STRIPED, "stripe_count", "stripes", WITH_START },
	{ "mirror", LVM_MIRROR, "mirror_count", "mirrors", WITH_START },
	{ "raid1", LVM_RAID1, "device_count", "raids", WITH_META },
	{ "raid0", LVM_RAID0, "stripe_count", "raid0_lvs", ALONE },
	{ "raid0_meta", LVM_RAID0, "stripe_count", "raid0_lvs", WITH_META },
};

static const struct seg_type *find_type(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(seg_types); i++)
		if (!strcmp(seg_types[i].name, name))
			return &seg_types[i];
	return NULL;
}

/* One leg at *@n, which is moved behind it. */
static bool parse_leg(const struct build *b, const struct seg_type *t, const struct lvm_node **n,
		      struct lvm_leg *leg)
{
	const struct lvm_node *name = *n, *second = NULL;

	leg->meta = NO_META;
	if (t->form != ALONE && name)
		second = lvm_next(b->c, name);
	if (t->form == WITH_META) {
		/* "rmeta", "rimage" */
		if (!second || name->type != LVM_STRING ||
		    !names_find(&b->lvs, name->string, &leg->meta))
			return false;
		name = second;
	}
	if (!name || name->type != LVM_STRING)
		return false;
	if (t->form == WITH_START) {
		if (!second || second->type != LVM_NUMBER || second->number < 0)
			return false;
		leg->start = (uint64_t)second->number;
	}
	if (t->form != WITH_START || !names_find(&b->pvs, name->string, &leg->index)) {
		leg->is_lv = true;
		if (!names_find(&b->lvs, name->string, &leg->index))
			return false;
	}
	*n = lvm_next(b->c, second ? second : name);
	return true;
}

static int parse_legs(const struct build *b, const struct lvm_node *s, const struct seg_type *t,
		      struct lvm_seg *seg)
{
	const struct lvm_node *array = lvm_find(b->c, s, t->legs), *n;
	uint64_t count, elements = 0;

	if (!array || array->type != LVM_ARRAY || !lvm_get_number(b->c, s, t->count, &count))
		return -EINVAL;
	for (n = lvm_first(b->c, array); n; n = lvm_next(b->c, n))
		elements++;
	if (count == 0 || count > elements)
		return -EINVAL;
	seg->leg = calloc(count, sizeof(*seg->leg));
	if (!seg->leg)
		return -ENOMEM;
	seg->n_legs = (uint32_t)count;
	n = lvm_first(b->c, array);
	for (uint64_t i = 0; i < count; i++)
		if (!parse_leg(b, t, &n, &seg->leg[i]))
			return -EINVAL;
	return n ? -EINVAL : 0;
}

/* -EINVAL: it makes no sense; LVM_OTHER with a reason: it is not for us. */
static int parse_seg(const struct build *b, const struct lvm_node *s, struct lvm_lv *lv,
		     struct lvm_seg *seg)
{
	const struct seg_type *t;
	const char *type;
	int r;

	if (!lvm_get_number(b->c, s, "start_extent", &seg->start) ||
	    !lvm_get_number(b->c, s, "extent_count", &seg->count) || seg->count == 0 ||
	    !lvm_get_string(b->c, s, "type", &type))
		return -EINVAL;
	t = find_type(type);
	seg->kind = t ? t->kind : LVM_OTHER;
	if (!lv->shown->type[0])
		snprintf(lv->shown->type, sizeof(lv->shown->type), "%s", type);
	if (!t) {
		reason(lv, ENOTSUP, "volumes of type %.32s are not supported", type);
		return 0;
	}
	if (lvm_find(b->c, s, "data_offset"))
		reason(lv, ENOTSUP, "it is being reshaped");
	r = parse_legs(b, s, t, seg);
	if (r < 0)
		return r;
	seg->leg_count = seg->count;
	if (seg->kind != LVM_STRIPED && seg->kind != LVM_RAID0)
		return 0;
	if (seg->kind == LVM_STRIPED && seg->n_legs == 1 && seg->start == 0)
		snprintf(lv->shown->type, sizeof(lv->shown->type), "linear");
	if (seg->n_legs == 1)
		return 0;
	seg->leg_count = seg->count / seg->n_legs;
	if (seg->count % seg->n_legs || !get_sectors(b, s, "stripe_size", &seg->stripe_size) ||
	    seg->stripe_size == 0 || b->g->extent_size % seg->stripe_size)
		return -EINVAL;
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct lvm_seg *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sort the segments and see that they are the volume, all of it. */
static void join_segs(const struct build *b, struct lvm_lv *lv)
{
	uint64_t at = 0;

	qsort(lv->seg, lv->n_segs, sizeof(*lv->seg), by_start);
	for (uint32_t i = 0; i < lv->n_segs; i++) {
		if (lv->seg[i].start != at) {
			reason(lv, EINVAL, "its segments %s at extent %" PRIu64,
			       lv->seg[i].start > at ? "leave a gap" : "overlap", at);
			return;
		}
		at += lv->seg[i].count;		/* each is below 2^63 */
		if (at > INT64_MAX / b->g->extent_size) {
			reason(lv, EINVAL, "it is larger than anything sane");
			return;
		}
	}
	lv->shown->size = at * b->g->extent_size;
	if (!at)
		reason(lv, EINVAL, "it has no segments");
}

static int parse_segs(struct build *b, const struct lvm_node *s, struct lvm_lv *lv)
{
	uint32_t n = 0;

	for (const struct lvm_node *k = lvm_first(b->c, s); k; k = lvm_next(b->c, k))
		n += k->type == LVM_SECTION;
	lv->seg = calloc(n + 1, sizeof(*lv->seg));
	if (!lv->seg)
		return vd_fail(b->err, ENOMEM, "out of memory");
	for (const struct lvm_node *k = lvm_first(b->c, s); k; k = lvm_next(b->c, k)) {
		int r;

		if (k->type != LVM_SECTION)
			continue;
		r = parse_seg(b, k, lv, &lv->seg[lv->n_segs++]);
		if (r == -ENOMEM)
			return vd_fail(b->err, ENOMEM, "out of memory");
		if (r < 0) {
			struct lvm_seg *broken = &lv->seg[lv->n_segs - 1];

			reason(lv, EINVAL, "its %.64s makes no sense", k->name);
			free(STEAL(broken->leg));
			broken->n_legs = 0;
		}
	}
	join_segs(b, lv);
	return 0;
}

static int parse_lv(struct build *b, const struct lvm_node *s, uint32_t index)
{
	struct lvm_group *g = b->g;
	struct lvm_lv *lv = &g->lv[index];
	struct vdisk_lv *shown = &g->shown_lv[index];

	lv->shown = shown;
	if (!lvm_good_name(s->name))
		return vd_fail(b->err, EINVAL, "volume group %s: a logical volume has the impossible "
			       "name '%.80s'", g->shown.name, s->name);
	snprintf(shown->name, sizeof(shown->name), "%s", s->name);
	if (!get_id(b, s, shown->uuid))
		reason(lv, EINVAL, "its UUID is none");
	shown->hidden = !lvm_has_flag(b->c, s, "status", "VISIBLE");
	lv->rebuilding = lvm_has_flag(b->c, s, "status", "LV_REBUILD") ||
			 lvm_has_flag(b->c, s, "flags", "LV_REBUILD");
	if (!lvm_has_flag(b->c, s, "status", "WRITE"))
		lv->fixed = "is marked read-only";
	else if (shown->hidden)
		lv->fixed = hidden_piece;
	return parse_segs(b, s, lv);
}

/* "snapshot0": names the store and the origin. */
static int parse_snapshot(struct build *b, const struct lvm_node *s, uint32_t index)
{
	const struct lvm_node *seg = NULL;
	const char *origin = "", *store = "", *type = "";
	bool merging;
	uint32_t at;

	for (const struct lvm_node *k = lvm_first(b->c, s); k && !seg; k = lvm_next(b->c, k))
		if (k->type == LVM_SECTION)
			seg = k;
	if (!seg || !lvm_get_string(b->c, seg, "type", &type) || strcmp(type, "snapshot") != 0)
		return 0;
	b->g->shown_lv[index].hidden = true;
	merging = lvm_get_string(b->c, seg, "merging_store", &store);
	if (!merging)
		lvm_get_string(b->c, seg, "cow_store", &store);
	lvm_get_string(b->c, seg, "origin", &origin);
	if (names_find(&b->lvs, store, &at)) {
		struct lvm_lv *lv = &b->g->lv[at];

		lv->shown->hidden = false;
		snprintf(lv->shown->type, sizeof(lv->shown->type), "snapshot");
		lv->code = 0;
		reason(lv, ENOTSUP, "snapshots are not supported (its origin is %.100s)", origin);
	}
	if (names_find(&b->lvs, origin, &at)) {
		b->g->lv[at].fixed = "has snapshots, which would be ruined";
		if (merging)
			reason(&b->g->lv[at], ENOTSUP, "the snapshot %.100s is being merged into it", store);
	}
	return 0;
}

/* ---- the whole ---- */

/* Call @each for the sections in @in, numbered as names_make() does. */
static int for_sections(struct build *b, const struct lvm_node *in,
			int (*each)(struct build *b, const struct lvm_node *s, uint32_t index))
{
	uint32_t n = 0;

	for (const struct lvm_node *s = lvm_first(b->c, in); s; s = lvm_next(b->c, s)) {
		int r = s->type == LVM_SECTION ? each(b, s, n++) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_volumes(struct build *b, const struct lvm_node *pvs, const struct lvm_node *lvs)
{
	struct lvm_group *g = b->g;
	int r = names_make(&b->pvs, b->c, pvs);

	if (r == 0 && lvs)
		r = names_make(&b->lvs, b->c, lvs);
	if (r == -EINVAL)
		return vd_fail(b->err, EINVAL, "volume group %s: two volumes have one name",
			       g->shown.name);
	g->shown.n_pvs = b->pvs.count;
	g->shown.n_lvs = b->lvs.count;
	g->shown.pv = g->shown_pv = calloc(b->pvs.count + 1, sizeof(*g->shown_pv));
	g->shown.lv = g->shown_lv = calloc(b->lvs.count + 1, sizeof(*g->shown_lv));
	g->pv = calloc(b->pvs.count + 1, sizeof(*g->pv));
	g->lv = calloc(b->lvs.count + 1, sizeof(*g->lv));
	if (r < 0 || !g->shown_pv || !g->shown_lv || !g->pv || !g->lv)
		return vd_fail(b->err, ENOMEM, "out of memory");
	r = for_sections(b, pvs, parse_pv);
	if (r == 0 && lvs)
		r = for_sections(b, lvs, parse_lv);
	if (r == 0 && lvs)	/* when all volumes are known */
		r = for_sections(b, lvs, parse_snapshot);
	return r;
}

const struct lvm_node *lvm_group_find(const struct lvm_config *c, const struct lvm_node **pvs)
{
	const struct lvm_node *vg;

	for (vg = lvm_first(c, &c->node[0]); vg; vg = lvm_next(c, vg))
		if (vg->type == LVM_SECTION && (*pvs = lvm_find(c, vg, "physical_volumes")))
			return (*pvs)->type == LVM_SECTION ? vg : NULL;
	return NULL;
}

static int parse_group(struct build *b)
{
	const struct lvm_node *pvs, *lvs, *vg = lvm_group_find(b->c, &pvs);
	struct vdisk_vg *shown = &b->g->shown;

	if (!vg)
		return vd_fail(b->err, EINVAL, "there is no volume group in the metadata");
	if (!lvm_good_name(vg->name))
		return vd_fail(b->err, EINVAL, "a volume group has the impossible name '%.80s'",
			       vg->name);
	snprintf(shown->name, sizeof(shown->name), "%s", vg->name);
	if (!get_id(b, vg, shown->uuid) || !lvm_get_number(b->c, vg, "seqno", &shown->seqno) ||
	    !get_sectors(b, vg, "extent_size", &shown->extent_size) || !shown->extent_size)
		return vd_fail(b->err, EINVAL, "volume group %s: no UUID, sequence number or size "
			       "of extents", shown->name);
	b->g->extent_size = shown->extent_size;
	lvs = lvm_find(b->c, vg, "logical_volumes");
	if (lvs && lvs->type != LVM_SECTION)
		lvs = NULL;
	if (parse_volumes(b, pvs, lvs) < 0)
		return -EINVAL;
	for (uint32_t i = 0; i < shown->n_lvs; i++)
		if (lvm_has_flag(b->c, vg, "status", "EXPORTED"))
			b->g->lv[i].fixed = "is in an exported group";
		else if (!lvm_has_flag(b->c, vg, "status", "WRITE"))
			b->g->lv[i].fixed = "is in a read-only group";
	return 0;
}

int lvm_group_parse(struct lvm_group **out, const struct lvm_config *c, struct vdisk_error *err)
{
	struct vdisk_error why = { 0 };
	struct build b = { .c = c, .g = calloc(1, sizeof(*b.g)), .err = &why };
	int r = b.g ? parse_group(&b) : vd_fail(&why, ENOMEM, "out of memory");

	free(b.pvs.name);
	free(b.lvs.name);
	if (r < 0) {
		lvm_group_free(b.g);
		return vd_fail(err, why.code, "%s", why.msg);
	}
	*out = b.g;
	return 0;
}

void lvm_group_free(struct lvm_group *g)
{
	if (!g)
		return;
	for (uint32_t i = 0; g->lv && i < g->shown.n_lvs; i++) {
		for (uint32_t k = 0; k < g->lv[i].n_segs; k++)
			free(g->lv[i].seg[k].leg);
		free(g->lv[i].seg);
	}
	free(g->lv);
	free(g->pv);
	free(g->shown_lv);
	free(g->shown_pv);
	free(g);
}

/* ---- what can be used ---- */

/* A leg, or the superblock volume of one, as a range of extents that it takes. */
struct claim {
	bool is_lv;
	uint32_t index;
	uint64_t start, count;
	struct lvm_lv *by;
};

struct claims {
	struct claim *claim;	/* owned; NULL: only count them */
	size_t n;
};

static int by_claim(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->is_lv != y->is_lv)
		return x->is_lv ? 1 : -1;
	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

static void add_claim(struct claims *all, struct claim c)
{
	if (all->claim)
		all->claim[all->n] = c;
	all->n++;
}

static void collect_seg(struct claims *all, struct lvm_lv *lv, const struct lvm_seg *s)
{
	for (uint32_t i = 0; i < s->n_legs; i++) {
		const struct lvm_leg *leg = &s->leg[i];

		add_claim(all, (struct claim) { leg->is_lv, leg->index, leg->start, s->leg_count,
						lv });
		if (leg->meta != NO_META)
			add_claim(all, (struct claim) { true, leg->meta, 0, 1, lv });
	}
}

static void collect_claims(struct claims *all, struct lvm_group *g)
{
	all->n = 0;
	for (uint32_t i = 0; i < g->shown.n_lvs; i++)
		for (uint32_t k = 0; k < g->lv[i].n_segs; k++)
			collect_seg(all, &g->lv[i], &g->lv[i].seg[k]);
}

/* Invariant 3: nothing is used twice.  Also counts what is used at all. */
static int check_claims(struct lvm_group *g)
{
	AUTO_FREE struct claim *claim = NULL;
	const struct claim *widest = NULL;
	struct claims all = { NULL, 0 };
	uint64_t used = 0;

	collect_claims(&all, g);
	all.claim = claim = calloc(all.n + 1, sizeof(*claim));
	if (!claim)
		return -ENOMEM;
	collect_claims(&all, g);
	qsort(claim, all.n, sizeof(*claim), by_claim);
	for (size_t i = 0; i < all.n; i++) {
		const struct claim *c = &claim[i];

		if (widest && widest->is_lv == c->is_lv && widest->index == c->index) {
			if (c->start - widest->start < widest->count) {
				reason(c->by, EINVAL, "it overlaps the volume %s", widest->by->shown->name);
				reason(widest->by, EINVAL, "it overlaps the volume %s", c->by->shown->name);
			}
			if (c->start - widest->start >= widest->count ||
			    widest->count - (c->start - widest->start) < c->count)
				widest = c;
		} else {
			widest = c;
		}
		if (!c->is_lv && !vd_add(used, c->count, &used))
			used = UINT64_MAX;
	}
	if (vd_mul(used, g->extent_size, &used) && used < g->shown.size)
		g->shown.free = g->shown.size - used;
	return 0;
}

struct check {
	struct lvm_group *g;
	const struct lvm_device *dev;
};

static bool areas_touch(const struct lvm_area *a, uint64_t start, uint64_t len)
{
	return a->offset < start + len && start < a->offset + a->length;
}

/* What is wrong with where a leg lies, or NULL; of a missing device, little is known. */
static const char *place_problem(const struct check *ck, const struct lvm_leg *leg,
				 uint64_t count)
{
	const struct lvm_pv *pv = &ck->g->pv[leg->index];
	const struct lvm_device *dev;
	uint64_t start, len;

	if (!vd_in_range(leg->start, count, pv->pe_count))
		return "lies past the end of its physical volume";
	if (pv->found < 0)
		return NULL;
	dev = &ck->dev[pv->found];
	/* both are below 2^63: see parse_pv() */
	start = pv->pe_start + leg->start * ck->g->extent_size;
	len = count * ck->g->extent_size;
	if (!vd_in_range(start, len, dev->size))
		return "lies past the end of its device";
	if (start < LVM_LABEL_SCAN)
		return "lies on the label";
	for (unsigned i = 0; i < dev->label.n_meta; i++)
		if (areas_touch(&dev->label.meta[i], start, len))
			return "lies on the metadata";
	return NULL;
}

static bool check_lv(const struct check *ck, struct lvm_lv *lv, unsigned depth);

/* Invariant 2 for a leg on a physical volume; if it does not hold, @lv gets the
 * reason where @say is set. */
static bool check_pv_leg(const struct check *ck, struct lvm_lv *lv, const struct lvm_seg *s,
			 const struct lvm_leg *leg, bool say)
{
	const struct lvm_pv *pv = &ck->g->pv[leg->index];
	const char *why = place_problem(ck, leg, s->leg_count);

	if (why && say)
		reason(lv, EINVAL, "a piece at extent %" PRIu64 " of %s %s", leg->start, pv->id,
		       why);
	if (why || (!pv->lost && pv->found >= 0))
		return !why;
	if (say)
		reason(lv, ENODEV, "the physical volume %s (%.80s) is missing%s%.80s", pv->id,
		       pv->shown->hint[0] ? pv->shown->hint : "?",
		       pv->shown->problem[0] ? ": " : "", pv->shown->problem);
	return false;
}

/* The same for a leg on a volume. */
static bool check_lv_leg(const struct check *ck, struct lvm_lv *lv, const struct lvm_seg *s,
			 const struct lvm_leg *leg, unsigned depth, bool say)
{
	struct lvm_lv *sub = &ck->g->lv[leg->index];

	if (!check_lv(ck, sub, depth + 1)) {
		if (say)
			reason(lv, sub->code, "%.60s: %.150s", sub->shown->name,
			       sub->shown->reason);
		return false;
	}
	if (!vd_in_range(leg->start, s->leg_count, sub->shown->size / ck->g->extent_size)) {
		if (say)
			reason(lv, EINVAL, "it goes past the end of %.100s", sub->shown->name);
		return false;
	}
	if (sub->fixed && sub->fixed != hidden_piece)
		lv->fixed = sub->fixed;
	return true;
}

static bool check_leg(const struct check *ck, struct lvm_lv *lv, const struct lvm_seg *s,
		      const struct lvm_leg *leg, unsigned depth, bool say)
{
	return leg->is_lv ? check_lv_leg(ck, lv, s, leg, depth, say) :
			    check_pv_leg(ck, lv, s, leg, say);
}

static void check_seg(const struct check *ck, struct lvm_lv *lv, const struct lvm_seg *s,
		      unsigned depth)
{
	bool any = false;

	switch (s->kind) {
	case LVM_STRIPED:
	case LVM_RAID0:
		for (uint32_t i = 0; i < s->n_legs; i++)
			if (!check_leg(ck, lv, s, &s->leg[i], depth, true))
				return;
		return;
	case LVM_MIRROR:
		lv->fixed = "is a mirror, of which every copy would have to be written";
		check_leg(ck, lv, s, &s->leg[0], depth, true);
		return;
	case LVM_RAID1:
		lv->fixed = "is a raid1, of which every copy would have to be written";
		for (uint32_t i = 0; i < s->n_legs; i++) {
			check_lv(ck, &ck->g->lv[s->leg[i].meta], depth + 1);
			any |= check_leg(ck, lv, s, &s->leg[i], depth, false);
		}
		if (!any)
			check_leg(ck, lv, s, &s->leg[0], depth, true);
		return;
	case LVM_OTHER:
		return;		/* has its reason */
	}
}

/* May it be used?  Looks at each volume once. */
static bool check_lv(const struct check *ck, struct lvm_lv *lv, unsigned depth)
{
	if (lv->checking)
		return reason(lv, EINVAL, "it is made of itself"), false;
	if (depth > LVM_STACK_MAX)
		return reason(lv, EINVAL, "too many volumes are stacked"), false;
	if (!lv->checked) {
		lv->checking = true;
		for (uint32_t i = 0; i < lv->n_segs && !lv->shown->reason[0]; i++)
			check_seg(ck, lv, &lv->seg[i], depth);
		lv->checking = false;
		lv->checked = true;
	}
	return !lv->shown->reason[0];
}

int lvm_group_check(struct lvm_group *g, const struct lvm_device *dev, struct vdisk_error *err)
{
	struct check ck = { .g = g, .dev = dev };

	if (check_claims(g) < 0)
		return vd_fail(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < g->shown.n_lvs; i++) {
		struct lvm_lv *lv = &g->lv[i];

		lv->shown->writable = check_lv(&ck, lv, 0) && !lv->fixed;
	}
	return 0;
}
