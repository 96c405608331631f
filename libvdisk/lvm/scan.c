/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * scan.c - the physical volumes on some disks, and the groups that they make up
 *
 * Each physical volume may hold the metadata of its whole group, in one area or
 * two; they all say the same unless somebody was absent when the group changed.
 * So all of them are read, and of each group the text with the highest sequence
 * number counts.  What is stale, damaged, absent or there twice is noted where
 * it was found and makes only those volumes unusable that need it.
 *
 * Two devices with the UUID of one physical volume (a copied disk beside its
 * original) are both left out: nobody can tell which is meant.  A device that
 * its group has given up as missing holds old data and is left out too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "lvm/lvm.h"

#define DEVICES_MAX	128u

/* A text that has been read: the others of its group are mostly the same. */
struct text_seen {
	uint32_t crc;
	uint64_t size;
	uint64_t seqno;
	char vg[LVM_ID_TEXT];
};

struct scan {
	struct vdisk_lvm *lvm;
	struct text_seen *seen;	/* owned */
	unsigned n_seen;
	unsigned disk;		/* index of the one being looked at */
	struct vdisk_error *err;
};

/* The first problem stays. */
static void problem(char *to, size_t size, const char *fmt, ...) PRINTF_FMT(3, 4);
static void problem(char *to, size_t size, const char *fmt, ...)
{
	va_list ap;

	if (to[0])
		return;
	va_start(ap, fmt);
	vsnprintf(to, size, fmt, ap);
	va_end(ap);
}

#define dev_problem(dev, ...)	problem((dev)->shown.problem, sizeof((dev)->shown.problem), __VA_ARGS__)
#define vg_problem(g, ...)	problem((g)->shown.problem, sizeof((g)->shown.problem), __VA_ARGS__)

static int no_memory(struct scan *sc)
{
	return vd_fail(sc->err, ENOMEM, "out of memory");
}

/* ---- metadata ---- */

static struct lvm_group *find_group(const struct vdisk_lvm *lvm, const char *uuid)
{
	for (unsigned i = 0; i < lvm->n_groups; i++)
		if (!strcmp(lvm->group[i]->shown.uuid, uuid))
			return lvm->group[i];
	return NULL;
}

/* Take @g over: it is of a new group, newer than what we had, or dropped. */
static int add_group(struct scan *sc, struct lvm_group *g)
{
	struct vdisk_lvm *lvm = sc->lvm;
	struct lvm_group **more;

	for (unsigned i = 0; i < lvm->n_groups; i++) {
		struct lvm_group *old = lvm->group[i];

		if (strcmp(old->shown.uuid, g->shown.uuid) != 0)
			continue;
		/* the texts differ, or we would not be here */
		if (old->shown.seqno == g->shown.seqno)
			vg_problem(old, "two versions of its metadata both have the number %" PRIu64,
				   g->shown.seqno);
		if (old->shown.seqno < g->shown.seqno) {
			lvm->group[i] = g;
			g = old;
		}
		lvm_group_free(g);
		return 0;
	}
	more = reallocarray(lvm->group, lvm->n_groups + 1, sizeof(struct lvm_group *));
	if (!more) {
		lvm_group_free(g);
		return no_memory(sc);
	}
	lvm->group = more;
	lvm->group[lvm->n_groups++] = g;
	return 0;
}

static int remember(struct scan *sc, const struct lvm_text_place *p, const struct vdisk_vg *vg)
{
	struct text_seen *more = reallocarray(sc->seen, sc->n_seen + 1, sizeof(*more));

	if (!more)
		return no_memory(sc);
	sc->seen = more;
	more[sc->n_seen] = (struct text_seen) { .crc = p->crc, .size = p->size, .seqno = vg->seqno };
	snprintf(more[sc->n_seen++].vg, LVM_ID_TEXT, "%s", vg->uuid);
	return 0;
}

static int read_text(struct scan *sc, struct lvm_device *dev, struct vdisk *bytes,
		     const struct lvm_area *area, const struct lvm_text_place *place)
{
	struct lvm_config config = { 0 };
	struct lvm_group *g = NULL;
	struct vdisk_error err = { 0 };
	const char *why = NULL;
	char *text = NULL;
	size_t len = 0;
	int r;

	r = lvm_text_read(&text, &len, bytes, area, place, &why);
	if (r == -ENOMEM)
		return no_memory(sc);
	if (r < 0) {
		dev_problem(dev, "%s", why ? why : strerror(-r));
		return 0;
	}
	for (unsigned i = 0; i < sc->n_seen; i++)
		if (sc->seen[i].crc == place->crc && sc->seen[i].size == place->size) {
			snprintf(dev->vg, sizeof(dev->vg), "%s", sc->seen[i].vg);
			free(text);
			return 0;
		}
	r = lvm_config_parse(&config, text, len, &err);
	if (r == 0)
		r = lvm_group_parse(&g, &config, &err);
	lvm_config_clear(&config);
	if (r == -ENOMEM)
		return no_memory(sc);
	if (r < 0) {
		dev_problem(dev, "%.150s", err.msg);
		return 0;
	}
	snprintf(dev->vg, sizeof(dev->vg), "%s", g->shown.uuid);
	r = remember(sc, place, &g->shown);
	if (r < 0) {
		lvm_group_free(g);
		return r;
	}
	return add_group(sc, g);
}

static int read_area(struct scan *sc, struct lvm_device *dev, struct vdisk *bytes,
		     const struct lvm_area *area)
{
	uint8_t header[LVM_MDA_HEADER];
	struct lvm_text_place place = { .empty = true };
	const char *why = NULL;
	int r;

	if (!area->length || !vd_in_range(area->offset, area->length, dev->size)) {
		dev_problem(dev, "a metadata area lies past its end");
		return 0;
	}
	r = vd_pread(bytes, header, sizeof(header), area->offset);
	if (r == 0)
		r = lvm_mda_decode(&place, header, area, &why);
	if (r < 0) {
		dev_problem(dev, "%s", why ? why : strerror(-r));
		return 0;
	}
	if (place.ignored || place.empty)
		return 0;
	return read_text(sc, dev, bytes, area, &place);
}

/* ---- devices ---- */

static struct lvm_device *new_device(struct scan *sc)
{
	struct vdisk_lvm *lvm = sc->lvm;
	struct lvm_device *more = reallocarray(lvm->dev, lvm->n_devs + 1, sizeof(*more));

	if (!more)
		return NULL;
	lvm->dev = more;
	more[lvm->n_devs] = (struct lvm_device) { 0 };
	return &more[lvm->n_devs++];
}

/* A half of an MD mirror with its superblock at the end looks like a device of its own. */
static bool is_raid_member(struct vdisk *bytes)
{
	struct vdisk_probe probe;

	return vdisk_probe(bytes, &probe, NULL) == 0 && !strcmp(probe.usage, "raid") &&
	       strncmp(probe.type, "LVM", 3) != 0;
}

/* Look for a label on @bytes, which are @disk from @start on. */
static int try_device(struct scan *sc, struct vdisk *disk, struct vdisk *bytes, uint64_t start,
		      unsigned part)
{
	uint8_t head[LVM_LABEL_SCAN];
	size_t len = (size_t)MIN(vdisk_size(bytes), (uint64_t)sizeof(head));
	struct lvm_label label = { .n_meta = 0 };
	const char *why = NULL;
	struct lvm_device *dev;
	int r = vd_pread(bytes, head, len, 0);

	if (r < 0)
		return vd_fail(sc->err, -r, "%s: looking for LVM: %s", vdisk_name(disk),
			       strerror(-r));
	r = lvm_label_decode(&label, head, len, &why);
	if (r == -ENOENT)
		return 0;
	if (sc->lvm->n_devs == DEVICES_MAX)
		return vd_fail(sc->err, E2BIG, "%s: more than %u physical volumes",
			       vdisk_name(disk), DEVICES_MAX);
	dev = new_device(sc);
	if (!dev)
		return no_memory(sc);
	dev->disk = vdisk_ref(disk);
	dev->start = start;
	dev->size = dev->shown.size = vdisk_size(bytes);
	dev->shown.disk = sc->disk;
	dev->shown.part = part;
	dev->label = label;
	snprintf(dev->shown.uuid, sizeof(dev->shown.uuid), "%s", label.uuid);
	if (r < 0) {
		dev_problem(dev, "%s", why);
		return 0;
	}
	if (is_raid_member(bytes)) {
		dev_problem(dev, "it is a piece of a RAID array, which is not supported");
		dev->label.uuid[0] = '\0';
		return 0;
	}
	for (unsigned i = 0; i < label.n_meta; i++) {
		r = read_area(sc, dev, bytes, &label.meta[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int try_part(struct scan *sc, struct vdisk *disk, const struct vdisk_part *p)
{
	struct vdisk *bytes = NULL;
	int r;

	if (p->extended || !p->length || !vd_in_range(p->offset, p->length, vdisk_size(disk)))
		return 0;
	r = vdisk_open_window(&bytes, disk, p->offset, p->length, sc->err);
	if (r < 0)
		return r;
	r = try_device(sc, disk, bytes, p->offset, p->number);
	vdisk_close(bytes, NULL);
	return r;
}

static int scan_disk(struct scan *sc, struct vdisk *disk)
{
	AUTO_FREE struct vdisk_parts *parts = NULL;
	int r = vdisk_parts_read(&parts, disk, sc->err);

	if (r < 0)
		return r;
	if (!parts->scheme[0])
		return try_device(sc, disk, disk, 0, 0);
	for (unsigned i = 0; i < parts->count && r == 0; i++)
		r = try_part(sc, disk, &parts->part[i]);
	return r;
}

/* ---- who belongs to whom ---- */

static void note_duplicates(struct vdisk_lvm *lvm)
{
	for (unsigned i = 0; i < lvm->n_devs; i++)
		for (unsigned k = 0; k < i; k++) {
			struct lvm_device *a = &lvm->dev[i], *b = &lvm->dev[k];

			if (!a->shown.uuid[0] || strcmp(a->shown.uuid, b->shown.uuid) != 0 ||
			    !a->label.uuid[0])
				continue;
			dev_problem(a, "another device has the same UUID, so neither is used");
			dev_problem(b, "another device has the same UUID, so neither is used");
			a->label.uuid[0] = b->label.uuid[0] = '\0';
		}
}

/* The device of @pv in @g, unless its own metadata says that it has another group. */
static int find_device(const struct vdisk_lvm *lvm, const struct lvm_group *g,
		       const struct lvm_pv *pv)
{
	for (unsigned i = 0; i < lvm->n_devs; i++) {
		const struct lvm_device *dev = &lvm->dev[i];

		if (!strcmp(dev->label.uuid, pv->id) &&
		    (!dev->vg[0] || !strcmp(dev->vg, g->shown.uuid)))
			return (int)i;
	}
	return -1;
}

/* Say why @pv has no device, if we can tell. */
static void explain_missing(const struct vdisk_lvm *lvm, struct lvm_pv *pv)
{
	for (unsigned i = 0; i < lvm->n_devs; i++)
		if (!strcmp(lvm->dev[i].shown.uuid, pv->id))
			problem(pv->shown->problem, sizeof(pv->shown->problem), "%s",
				lvm->dev[i].shown.problem[0] ? lvm->dev[i].shown.problem :
				"its own metadata says that it is in another group");
}

static void match_pv(struct vdisk_lvm *lvm, struct lvm_group *g, struct lvm_pv *pv)
{
	struct vdisk_pv *shown = pv->shown;
	struct lvm_device *dev;

	pv->found = find_device(lvm, g, pv);
	if (pv->found < 0) {
		explain_missing(lvm, pv);
		return;
	}
	dev = &lvm->dev[pv->found];
	if (pv->lost)
		dev_problem(dev, "its group has given it up as missing: what it holds is old");
	snprintf(dev->shown.vg, sizeof(dev->shown.vg), "%s", g->shown.name);
	snprintf(dev->shown.hint, sizeof(dev->shown.hint), "%s", shown->hint);
	dev->shown.missing = pv->lost;
	*shown = dev->shown;
}

static int finish_group(struct scan *sc, struct lvm_group *g)
{
	struct vdisk_lvm *lvm = sc->lvm;
	unsigned missing = 0;

	for (unsigned i = 0; i < g->shown.n_pvs; i++) {
		match_pv(lvm, g, &g->pv[i]);
		missing += g->pv[i].shown->missing;
	}
	if (missing)
		vg_problem(g, "%u of its %u physical volumes %s missing", missing, g->shown.n_pvs,
			   missing == 1 ? "is" : "are");
	for (unsigned i = 0; i < lvm->n_groups; i++)
		if (lvm->group[i] != g && !strcmp(lvm->group[i]->shown.name, g->shown.name))
			vg_problem(g, "another group has the same name");
	return lvm_group_check(g, lvm->dev, sc->err);
}

/* Devices whose metadata was not the newest. */
static void note_stale(struct scan *sc)
{
	for (unsigned i = 0; i < sc->n_seen; i++) {
		const struct lvm_group *g = find_group(sc->lvm, sc->seen[i].vg);

		if (g && sc->seen[i].seqno < g->shown.seqno)
			vg_problem((struct lvm_group *)(uintptr_t)g, "metadata number %" PRIu64
				   " was found too, which is stale", sc->seen[i].seqno);
	}
}

/* ---- the public face ---- */

int vdisk_lvm_scan(struct vdisk_lvm **out, struct vdisk *const *disks, unsigned n,
		   struct vdisk_error *err)
{
	struct scan sc = { .lvm = calloc(1, sizeof(*sc.lvm)), .err = err };
	int r = 0;

	if (!sc.lvm)
		return no_memory(&sc);
	for (; sc.disk < n && r == 0; sc.disk++)
		r = scan_disk(&sc, disks[sc.disk]);
	note_duplicates(sc.lvm);
	for (unsigned i = 0; i < sc.lvm->n_groups && r == 0; i++)
		r = finish_group(&sc, sc.lvm->group[i]);
	note_stale(&sc);
	free(sc.seen);
	if (r < 0)
		vdisk_lvm_free(sc.lvm);
	else
		*out = sc.lvm;
	return r;
}

int vd_lvm_scan(struct vdisk_lvm **out, struct vdisk *disk, struct vdisk_error *err)
{
	AUTO_FREE struct vdisk **all = calloc(1 + (size_t)disk->n_with, sizeof(struct vdisk *));

	if (!all)
		return vd_fail(err, ENOMEM, "out of memory");
	all[0] = disk;
	for (unsigned i = 0; i < disk->n_with; i++)
		all[1 + i] = disk->with[i];
	return vdisk_lvm_scan(out, all, 1 + disk->n_with, err);
}

bool vd_vg_is_on(const struct vdisk_vg *vg, unsigned disk)
{
	for (unsigned i = 0; i < vg->n_pvs; i++)
		if (!vg->pv[i].missing && vg->pv[i].disk == disk)
			return true;
	return false;
}

void vdisk_lvm_free(struct vdisk_lvm *lvm)
{
	if (!lvm)
		return;
	for (unsigned i = 0; i < lvm->n_groups; i++)
		lvm_group_free(lvm->group[i]);
	for (unsigned i = 0; i < lvm->n_devs; i++)
		vdisk_close(lvm->dev[i].disk, NULL);
	free(lvm->group);
	free(lvm->dev);
	free(lvm);
}

const struct vdisk_vg *vdisk_lvm_vg(const struct vdisk_lvm *lvm, unsigned n)
{
	return n < lvm->n_groups ? &lvm->group[n]->shown : NULL;
}

const struct vdisk_pv *vdisk_lvm_pv(const struct vdisk_lvm *lvm, unsigned n)
{
	return n < lvm->n_devs ? &lvm->dev[n].shown : NULL;
}

int lvm_choose_group(const struct lvm_group **out, const struct vdisk_lvm *lvm, const char *name,
		     struct vdisk_error *err)
{
	const struct lvm_group *found = NULL;

	for (unsigned i = 0; i < lvm->n_groups; i++) {
		const struct lvm_group *g = lvm->group[i];

		if (strcmp(g->shown.name, name) != 0 && strcmp(g->shown.uuid, name) != 0)
			continue;
		if (found)
			return vd_fail(err, ENOTUNIQ, "two volume groups are called %s: use the UUID, "
				       "%s or %s", name, found->shown.uuid, g->shown.uuid);
		found = g;
	}
	if (!found && lvm->n_devs == 0)
		return vd_fail(err, ENOENT, "there is no volume group '%s', nor any LVM at all",
			       name);
	if (!found && lvm->n_groups == 0 && lvm->dev[0].shown.problem[0])
		return vd_fail(err, ENOENT, "there is no volume group '%s'; a physical volume has a "
			       "problem: %s", name, lvm->dev[0].shown.problem);
	if (!found)
		return vd_fail(err, ENOENT, "there is no volume group '%s'", name);
	*out = found;
	return 0;
}

int vdisk_open_lv(struct vdisk **out, const struct vdisk_lvm *lvm, const char *vg, const char *name,
		  uint32_t flags, struct vdisk_error *err)
{
	const struct lvm_group *g = NULL;
	const struct lvm_lv *lv = NULL;
	bool write = flags & VDISK_OPEN_WRITE;
	struct vdisk *d = NULL;
	int r = lvm_choose_group(&g, lvm, vg, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < g->shown.n_lvs && !lv; i++)
		if (!strcmp(g->lv[i].shown->name, name) || !strcmp(g->lv[i].shown->uuid, name))
			lv = &g->lv[i];
	if (!lv)
		return vd_fail(err, ENOENT, "volume group %s has no volume '%s'", g->shown.name,
			       name);
	if (lv->code)
		return vd_fail(err, lv->code, "%s/%s: %s", g->shown.name, name, lv->shown->reason);
	if (write && lv->fixed)
		return vd_fail(err, EROFS, "%s/%s cannot be opened for writing: it %s",
			       g->shown.name, name, lv->fixed);
	r = lvm_volume_open(&d, lvm->dev, g, lv, write, err);
	if (r < 0)
		return vd_fail_prefix(err, r, "%s/%s", g->shown.name, name);
	if (write && !vdisk_writable(d)) {
		vdisk_close(d, NULL);
		return vd_fail(err, EROFS, "%s/%s: a disk under it is open for reading only",
			       g->shown.name, name);
	}
	*out = d;
	return 0;
}
