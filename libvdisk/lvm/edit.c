/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * edit.c - LVM2 metadata with other names and UUIDs
 *
 * The text is not made anew from what we know of it, as that is not all there
 * is: the places to change are found in the tree, and only those are written
 * differently.  Everything else, also of kinds of volumes that we cannot open,
 * stays as it was.
 *
 * A logical volume's name is that of its section, and stands wherever another
 * one is made of it: in segments, under the keys in `references`.  The hidden
 * pieces of a volume are called after it ("root_rimage_0") and get its new name.
 * A string that is the old name under a key that we do not know might be a
 * reference or not, so then the change is refused.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>

#include "lvm/lvm.h"

struct patch {
	uint32_t at, end;	/* of the old text */
	char *with;		/* owned */
};

struct rename {
	char old[LVM_NAME_MAX + 1], new[LVM_NAME_MAX + 1];
};

struct edit {
	const struct lvm_config *c;
	const struct lvm_node *vg, *pvs, *lvs;	/* lvs: may be NULL */
	struct patch *patch;	/* owned */
	size_t n_patches, room;
	struct rename *ren;	/* owned: the first is what was asked for */
	size_t n_ren;
	struct vdisk_error *err;
};

static int no_memory(struct edit *e)
{
	return vd_fail(e->err, ENOMEM, "out of memory");
}

/* ---- patches ---- */

static int patch(struct edit *e, const struct lvm_node *n, const char *fmt, ...) PRINTF_FMT(3, 4);
static int patch(struct edit *e, const struct lvm_node *n, const char *fmt, ...)
{
	struct patch p = { .at = n->at, .end = n->end };
	va_list ap;
	int r;

	if (e->n_patches == e->room) {
		size_t room = e->room ? 2 * e->room : 32;
		struct patch *more = reallocarray(e->patch, room, sizeof(*more));

		if (!more)
			return no_memory(e);
		e->patch = more;
		e->room = room;
	}
	va_start(ap, fmt);
	r = vasprintf(&p.with, fmt, ap);
	va_end(ap);
	if (r < 0)
		return no_memory(e);
	e->patch[e->n_patches++] = p;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct patch *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static int apply(struct edit *e, char **out, size_t *out_len, const char *text, size_t len)
{
	size_t size = len + 1, done = 0;
	char *to;

	qsort(e->patch, e->n_patches, sizeof(*e->patch), by_place);
	for (size_t i = 0; i < e->n_patches; i++)
		size += strlen(e->patch[i].with);	/* less what goes */
	to = *out = malloc(size);
	if (!to)
		return no_memory(e);
	for (size_t i = 0; i < e->n_patches; i++) {
		const struct patch *p = &e->patch[i];

		to = mempcpy(to, text + done, p->at - done);
		to = mempcpy(to, p->with, strlen(p->with));
		done = p->end;
	}
	to = mempcpy(to, text + done, len - done);
	*to = '\0';
	*out_len = (size_t)(to - *out);
	return 0;
}

/* ---- logical volumes ---- */

static const char *const references[] = {
	"stripes", "mirrors", "mirror_log", "raids", "raid0_lvs", "cow_store", "origin",
	"merging_store", "thin_pool", "merge", "external_origin", "metadata", "pool", "data",
	"cache_pool", "writecache", "meta_dev", "vdo_pool", "create",
};

/* Strings of segments that are none, whatever they say. */
static const char *const others[] = {
	"type", "cache_mode", "cache_policy", "policy", "write_policy", "mode", "internal_hash",
	"discards", "tags", "flags", "status", "id", "metadata_id", "data_id", "metadata_format",
	"profile", "creation_host",
};

static bool is_among(const char *const *list, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], key))
			return true;
	return false;
}

static const struct rename *find_rename(const struct edit *e, const char *name)
{
	for (size_t i = 0; i < e->n_ren; i++)
		if (!strcmp(e->ren[i].old, name))
			return &e->ren[i];
	return NULL;
}

static const struct lvm_node *find_lv(const struct edit *e, const char *name)
{
	const struct lvm_node *lv = e->lvs ? lvm_find(e->c, e->lvs, name) : NULL;

	return lv && lv->type == LVM_SECTION ? lv : NULL;
}

static bool is_hidden(const struct edit *e, const struct lvm_node *lv)
{
	return !lvm_has_flag(e->c, lv, "status", "VISIBLE");
}

/* A snapshot's store has no VISIBLE, but is what people know as the snapshot. */
static bool is_store(const struct edit *e, const char *name)
{
	for (const struct lvm_node *lv = lvm_first(e->c, e->lvs); lv; lv = lvm_next(e->c, lv))
		for (const struct lvm_node *s = lvm_first(e->c, lv); s; s = lvm_next(e->c, s)) {
			const char *store;

			if (lv->type == LVM_SECTION && s->type == LVM_SECTION &&
			    (lvm_get_string(e->c, s, "cow_store", &store) ||
			     lvm_get_string(e->c, s, "merging_store", &store)) &&
			    !strcmp(store, name))
				return true;
		}
	return false;
}

/* Call @each for the strings in a segment and the sections in it, with their key. */
static int each_string(struct edit *e, const struct lvm_node *in,
		       int (*each)(struct edit *e, const char *key, const struct lvm_node *n))
{
	int r = 0;

	for (const struct lvm_node *n = lvm_first(e->c, in); n && r == 0; n = lvm_next(e->c, n)) {
		const char *key = in->type == LVM_ARRAY ? in->name : n->name;

		if (n->type == LVM_STRING)
			r = each(e, key, n);
		else if (n->type != LVM_NUMBER)
			r = each_string(e, n, each);
	}
	return r;
}

static int each_segment(struct edit *e, const struct lvm_node *lv,
			int (*each)(struct edit *e, const char *key, const struct lvm_node *n))
{
	int r = 0;

	for (const struct lvm_node *s = lvm_first(e->c, lv); s && r == 0; s = lvm_next(e->c, s))
		if (s->type == LVM_SECTION)
			r = each_string(e, s, each);
	return r;
}

static int add_rename(struct edit *e, const char *old, const char *new, const char *suffix)
{
	struct rename ren, *more;

	snprintf(ren.old, sizeof(ren.old), "%s", old);
	if (snprintf(ren.new, sizeof(ren.new), "%s%s", new, suffix) >= (int)sizeof(ren.new))
		return vd_fail(e->err, EINVAL, "'%s%s' is too long for a name", new, suffix);
	more = reallocarray(e->ren, e->n_ren + 1, sizeof(*more));
	if (!more)
		return no_memory(e);
	e->ren = more;
	more[e->n_ren++] = ren;
	return 0;
}

/* A piece of a volume that is renamed is renamed as well. */
static int follow_reference(struct edit *e, const char *key, const struct lvm_node *n)
{
	const struct lvm_node *lv = find_lv(e, n->string);
	size_t len = strlen(e->ren[0].old);

	if (!lv || !is_hidden(e, lv) || find_rename(e, n->string) ||
	    !is_among(references, ARRAY_SIZE(references), key) ||
	    strncmp(n->string, e->ren[0].old, len) != 0 || n->string[len] != '_')
		return 0;
	return add_rename(e, n->string, e->ren[0].new, n->string + len);
}

static int patch_reference(struct edit *e, const char *key, const struct lvm_node *n)
{
	const struct rename *ren = find_rename(e, n->string);

	if (!ren || is_among(others, ARRAY_SIZE(others), key))
		return 0;
	if (!is_among(references, ARRAY_SIZE(references), key))
		return vd_fail(e->err, ENOTSUP, "the metadata has '%.80s' in \"%.40s\", which is not "
			       "known: the volume cannot be renamed here", n->string, key);
	/* a physical volume of that name comes first */
	if (lvm_find(e->c, e->pvs, n->string) && strcmp(key, "create") != 0)
		return vd_fail(e->err, ENOTSUP, "a physical volume is called '%.80s' in the metadata, "
			       "too: the volume cannot be renamed here", n->string);
	return patch(e, n, "\"%s\"", ren->new);
}

/* What LVM keeps for itself. */
static bool is_reserved(const char *name)
{
	static const char *const inside[] = {
		"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage",
		"_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin",
		"_wcorig",
	};

	if (!strncmp(name, "snapshot", 8) || !strncmp(name, "pvmove", 6))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(inside); i++)
		if (strstr(name, inside[i]))
			return true;
	return false;
}

static const struct lvm_node *find_lv_or_uuid(const struct edit *e, const char *name)
{
	const struct lvm_node *lv = find_lv(e, name);
	const char *id;

	if (lv || !e->lvs)
		return lv;
	for (lv = lvm_first(e->c, e->lvs); lv; lv = lvm_next(e->c, lv))
		if (lv->type == LVM_SECTION && lvm_get_string(e->c, lv, "id", &id) &&
		    !strcmp(id, name))
			return lv;
	return NULL;
}

/* Was there, once, and may be named where we do not look. */
static bool in_history(const struct edit *e, const char *name)
{
	const struct lvm_node *h = lvm_find(e->c, e->vg, "historical_logical_volumes");

	for (const struct lvm_node *s = h ? lvm_first(e->c, h) : NULL; s; s = lvm_next(e->c, s)) {
		const char *was;

		if ((lvm_get_string(e->c, s, "name", &was) && !strcmp(was, name)) ||
		    (lvm_get_string(e->c, s, "origin", &was) && !strcmp(was, name)) ||
		    lvm_has_flag(e->c, s, "descendants", name))
			return true;
	}
	return false;
}

static int rename_lv(struct edit *e, const char *name, const char *new)
{
	const struct lvm_node *lv = find_lv_or_uuid(e, name);
	int r;

	if (!lv)
		return vd_fail(e->err, ENOENT, "volume group %s has no volume '%s'", e->vg->name,
			       name);
	if (!lvm_good_name(new) || is_reserved(new))
		return vd_fail(e->err, EINVAL, "'%s' is no name for a logical volume", new);
	if (is_hidden(e, lv) && !is_store(e, lv->name))
		return vd_fail(e->err, EPERM, "%s/%s is a piece of another volume", e->vg->name,
			       lv->name);
	if (lvm_has_flag(e->c, lv, "status", "LOCKED") || is_reserved(lv->name))
		return vd_fail(e->err, EPERM, "%s/%s is being moved", e->vg->name, lv->name);
	if (in_history(e, lv->name))
		return vd_fail(e->err, ENOTSUP, "the group's history of removed volumes names %s: it "
			       "cannot be renamed here", lv->name);
	r = add_rename(e, lv->name, new, "");
	for (size_t i = 0; i < e->n_ren && r == 0; i++)	/* it grows while we go */
		r = each_segment(e, find_lv(e, e->ren[i].old), follow_reference);
	for (size_t i = 0; i < e->n_ren && r == 0; i++) {
		if (lvm_find(e->c, e->lvs, e->ren[i].new))
			return vd_fail(e->err, EEXIST, "%s/%s exists already", e->vg->name,
				       e->ren[i].new);
		r = patch(e, find_lv(e, e->ren[i].old), "%s", e->ren[i].new);
	}
	for (lv = lvm_first(e->c, e->lvs); lv && r == 0; lv = lvm_next(e->c, lv))
		if (lv->type == LVM_SECTION)
			r = each_segment(e, lv, patch_reference);
	return r;
}

/* ---- UUIDs ---- */

static bool is_uuid(const char *text)
{
	uint8_t raw[LVM_ID_LEN];
	char again[LVM_ID_TEXT];
	unsigned n = 0;

	for (const char *p = text; *p && n < LVM_ID_LEN; p++)
		if (*p != '-')
			raw[n++] = (uint8_t)*p;
	return n == LVM_ID_LEN && lvm_id_text(again, raw) && !strcmp(again, text);
}

static int change_uuid(struct edit *e, const struct lvm_node *in, const struct vdisk_lvm_uuid *u,
		       unsigned *n)
{
	const struct lvm_node *id = in->type == LVM_SECTION ? lvm_find(e->c, in, "id") : NULL;

	if (!id || id->type != LVM_STRING || strcmp(id->string, u->from) != 0)
		return 0;
	(*n)++;
	return patch(e, id, "\"%s\"", u->to);
}

static int change_uuids(struct edit *e, const struct vdisk_lvm_uuid *u)
{
	const struct lvm_node *const lists[] = { e->pvs, e->lvs };
	unsigned n = 0;
	int r;

	if (!is_uuid(u->to))
		return vd_fail(e->err, EINVAL, "'%s' is not a UUID of LVM", u->to);
	r = change_uuid(e, e->vg, u, &n);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		for (const struct lvm_node *s = lists[i] ? lvm_first(e->c, lists[i]) : NULL;
		     s && r == 0; s = lvm_next(e->c, s))
			r = change_uuid(e, s, u, &n);
	if (r == 0 && n != 1)
		r = vd_fail(e->err, n ? ENOTUNIQ : ENOENT, "volume group %s has %s with the UUID %s",
			    e->vg->name, n ? "several things" : "nothing", u->from);
	return r;
}

/* ---- the whole ---- */

/* "/dev/VG/LV" must not be longer than LVM's buffers. */
static int check_lengths(const struct edit *e, const struct vdisk_lvm_change *ch)
{
	const char *vg = ch->vg_name ? ch->vg_name : e->vg->name;

	for (const struct lvm_node *lv = e->lvs ? lvm_first(e->c, e->lvs) : NULL; lv;
	     lv = lvm_next(e->c, lv)) {
		const struct rename *ren = find_rename(e, lv->name);
		const char *name = ren ? ren->new : lv->name;

		if ((ren || ch->vg_name) && strlen(vg) + strlen(name) + 8 > LVM_NAME_MAX + 1)
			return vd_fail(e->err, EINVAL, "'%s/%s' is too long for a name", vg, name);
	}
	return 0;
}

static int may_change(const struct edit *e)
{
	const char *vg = e->vg->name, *lock = "", *why = NULL;

	lvm_get_string(e->c, e->vg, "lock_type", &lock);
	if (lvm_has_flag(e->c, e->vg, "status", "EXPORTED"))
		why = "it is exported";
	else if (lvm_has_flag(e->c, e->vg, "status", "CLUSTERED"))
		why = "it belongs to a cluster";
	else if (*lock && strcmp(lock, "none") != 0)
		why = "hosts share it through a lock manager";
	else if (!lvm_has_flag(e->c, e->vg, "status", "WRITE"))
		why = "it is marked read-only";
	else if (lvm_has_flag(e->c, e->vg, "status", "PARTIAL") ||
		 lvm_has_flag(e->c, e->vg, "flags", "PARTIAL"))
		why = "a physical volume is missing";
	return why ? vd_fail(e->err, EPERM, "volume group %s cannot be changed: %s", vg, why) : 0;
}

/* Who has written it, and which number it has. */
static int sign(struct edit *e)
{
	const struct lvm_node *root = &e->c->node[0], *n = lvm_find(e->c, e->vg, "seqno");
	int r;

	if (!n || n->type != LVM_NUMBER || n->number < 0 || n->number >= UINT32_MAX)
		return vd_fail(e->err, EUCLEAN, "volume group %s: its sequence number makes no sense",
			       e->vg->name);
	r = patch(e, n, "%lld", (long long)n->number + 1);
	n = lvm_find(e->c, root, "description");
	if (r == 0 && n && n->type == LVM_STRING)
		r = patch(e, n, "\"Written by vdisk\"");
	return r;
}

static int change(struct edit *e, const struct vdisk_lvm_change *ch)
{
	int r = may_change(e);

	if (r == 0)
		r = sign(e);
	if (r == 0 && ch->vg_name && !lvm_good_name(ch->vg_name))
		return vd_fail(e->err, EINVAL, "'%s' is no name for a volume group", ch->vg_name);
	if (r == 0 && ch->vg_name)
		r = patch(e, e->vg, "%s", ch->vg_name);
	if (r == 0 && ch->lv_name)
		r = rename_lv(e, ch->lv ? ch->lv : "", ch->lv_name);
	for (unsigned i = 0; i < ch->n_uuids && r == 0; i++)
		r = change_uuids(e, &ch->uuids[i]);
	return r == 0 ? check_lengths(e, ch) : r;
}

static char *copy_text(const char *text, size_t len)
{
	char *copy = malloc(len + 1);

	if (copy)
		memcpy(copy, text, len);
	if (copy)
		copy[len] = '\0';
	return copy;
}

/* What we made must be a group again, whatever the text was like. */
static int check_again(struct edit *e, const char *text, size_t len)
{
	struct lvm_config c = { 0 };
	struct lvm_group *g = NULL;
	char *copy = copy_text(text, len);
	int r = copy ? lvm_config_parse(&c, copy, len, e->err) : no_memory(e);

	if (r == 0)
		r = lvm_group_parse(&g, &c, e->err);
	lvm_group_free(g);
	lvm_config_clear(&c);
	return r;
}

int lvm_text_change(char **out, size_t *out_len, const char *text, size_t len,
		    const struct vdisk_lvm_change *ch, struct vdisk_error *err)
{
	struct lvm_config c = { 0 };
	struct edit e = { .c = &c, .err = err };
	char *copy = copy_text(text, len), *made = NULL;
	size_t made_len = 0;
	int r = copy ? lvm_config_parse(&c, copy, len, err) : no_memory(&e);

	if (r < 0)
		return r;
	e.vg = lvm_group_find(&c, &e.pvs);
	e.lvs = e.vg ? lvm_find(&c, e.vg, "logical_volumes") : NULL;
	if (e.lvs && e.lvs->type != LVM_SECTION)
		e.lvs = NULL;
	r = e.vg ? change(&e, ch) : vd_fail(err, EINVAL, "there is no volume group in the metadata");
	if (r == 0)
		r = apply(&e, &made, &made_len, text, len);
	if (r == 0)
		r = check_again(&e, made, made_len);
	for (size_t i = 0; i < e.n_patches; i++)
		free(e.patch[i].with);
	free(e.patch);
	free(e.ren);
	lvm_config_clear(&c);
	if (r < 0) {
		free(made);
		return r;
	}
	*out = made;
	*out_len = made_len;
	return 0;
}

int vdisk_lvm_uuid_new(char out[LVM_ID_TEXT], struct vdisk_error *err)
{
	static const char digits[] =
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	uint8_t raw[LVM_ID_LEN];

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return vd_fail(err, EIO, "no random numbers: %m");
	for (unsigned i = 0; i < LVM_ID_LEN; i++)
		raw[i] = (uint8_t)digits[raw[i] % (sizeof(digits) - 1)];
	lvm_id_text(out, raw);
	return 0;
}
