/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parts_lvm.c - vdisk parts: LVM volume groups
 *
 * In the tree a group stands below the first of its physical volumes, and the
 * others say where; hidden volumes, which are pieces of others, are left out.
 * The JSON has all of them:
 *
 *   "physical-volumes": [ { "disk", "partition" (0: the whole disk), "uuid", "size", "group",
 *                           "problem" } ],
 *   "volume-groups": [ { "name", "uuid", "seqno", "extent-size", "size", "free", "problem",
 *       "physical-volumes": [ { "uuid", "disk", "partition" (null: missing), "size", "device",
 *                               "missing", "problem" } ],
 *       "volumes": [ { "name", "locator", "uuid", "type", "size", "hidden", "writable",
 *                      "reason", "content" } ] } ]
 *
 * "device" is where LVM saw it last; "reason" says why a volume cannot be
 * opened, or is null.
 */
#include <stdio.h>
#include <string.h>

#include "cli/parts.h"
#include "core/driver.h"

struct group {
	const struct vdisk_vg *vg;
	struct vdisk_probe *content;	/* owned: of each volume */
};

struct parts_lvm {
	struct vdisk *disk;	/* borrowed */
	struct vdisk_lvm *lvm;	/* owned */
	struct group *groups;	/* owned */
	unsigned n_groups;
};

/* ---- finding out ---- */

static void probe_volume(const struct parts_lvm *p, const struct vdisk_vg *vg,
			 const struct vdisk_lv *lv, struct vdisk_probe *out)
{
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;

	if (lv->hidden || lv->reason[0])
		return;
	if (vdisk_open_lv(&d, p->lvm, vg->uuid, lv->uuid, 0, &err) < 0 ||
	    parts_probe(d, out, &err) < 0)
		cli_note("%s", err.msg);
	vdisk_close(d, NULL);
}

static bool read_groups(struct parts_lvm *p)
{
	const struct vdisk_vg *vg;
	unsigned n = 0;

	while (vdisk_lvm_vg(p->lvm, n))
		n++;
	p->groups = calloc(n + 1, sizeof(*p->groups));
	for (unsigned i = 0; p->groups && (vg = vdisk_lvm_vg(p->lvm, i)); i++) {
		struct group *g = &p->groups[p->n_groups];

		if (!vd_vg_is_on(vg, 0))	/* another disk's */
			continue;
		p->n_groups++;
		g->vg = vg;
		g->content = calloc(vg->n_lvs + 1, sizeof(*g->content));
		if (!g->content)
			return false;
		for (unsigned k = 0; k < vg->n_lvs; k++)
			probe_volume(p, vg, &vg->lv[k], &g->content[k]);
	}
	return p->groups;
}

int parts_lvm_read(struct parts_lvm **out, struct vdisk *disk)
{
	struct parts_lvm *p = calloc(1, sizeof(*p));
	struct vdisk_error err = { 0 };

	if (p)
		p->disk = disk;
	if (p && vd_lvm_scan(&p->lvm, disk, &err) < 0) {
		parts_lvm_free(p);
		return cli_fail(&err);
	}
	if (!p || !read_groups(p)) {
		parts_lvm_free(p);
		cli_error("out of memory");
		return CLI_FAILED;
	}
	*out = p;
	return CLI_OK;
}

void parts_lvm_free(struct parts_lvm *p)
{
	if (!p)
		return;
	for (unsigned i = 0; p->groups && i < p->n_groups; i++)
		free(p->groups[i].content);
	free(p->groups);
	vdisk_lvm_free(p->lvm);
	free(p);
}

/* ---- as JSON ---- */

static json_t *json_locator(const struct vdisk_vg *vg, const struct vdisk_lv *lv)
{
	char text[sizeof(vg->name) + sizeof(lv->name) + 1];

	snprintf(text, sizeof(text), "%s/%s", vg->name, lv->name);
	return json_string(text);
}

static json_t *json_volume(const struct group *g, unsigned n)
{
	const struct vdisk_lv *lv = &g->vg->lv[n];

	return json_pack("{s:s, s:o, s:s, s:o, s:I, s:b, s:b, s:o, s:o}",
			 "name", lv->name, "locator", json_locator(g->vg, lv), "uuid", lv->uuid,
			 "type", parts_json_text(lv->type), "size", (json_int_t)lv->size,
			 "hidden", lv->hidden, "writable", lv->writable,
			 "reason", parts_json_text(lv->reason),
			 "content", parts_json_content(&g->content[n]));
}

static const char *disk_name(const struct parts_lvm *p, const struct vdisk_pv *pv)
{
	return vdisk_name(pv->disk ? p->disk->with[pv->disk - 1] : p->disk);
}

static json_t *json_member(const struct parts_lvm *p, const struct vdisk_pv *pv)
{
	return json_pack("{s:s, s:o, s:o, s:I, s:o, s:b, s:o}", "uuid", pv->uuid,
			 "disk", pv->missing ? json_null() : json_string(disk_name(p, pv)),
			 "partition", pv->missing ? json_null() : json_integer(pv->part),
			 "size", (json_int_t)pv->size, "device", parts_json_text(pv->hint),
			 "missing", pv->missing, "problem", parts_json_text(pv->problem));
}

static json_t *json_group(const struct parts_lvm *p, const struct group *g)
{
	const struct vdisk_vg *vg = g->vg;
	json_t *pvs = json_array(), *lvs = json_array();

	for (unsigned i = 0; i < vg->n_pvs; i++)
		json_array_append_new(pvs, json_member(p, &vg->pv[i]));
	for (unsigned i = 0; i < vg->n_lvs; i++)
		json_array_append_new(lvs, json_volume(g, i));
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o}",
			 "name", vg->name, "uuid", vg->uuid, "seqno", (json_int_t)vg->seqno,
			 "extent-size", (json_int_t)vg->extent_size, "size", (json_int_t)vg->size,
			 "free", (json_int_t)vg->free, "problem", parts_json_text(vg->problem),
			 "physical-volumes", pvs, "volumes", lvs);
}

void parts_lvm_json(const struct parts_lvm *p, json_t *into)
{
	json_t *pvs = json_array(), *groups = json_array();
	const struct vdisk_pv *pv;

	for (unsigned i = 0; (pv = vdisk_lvm_pv(p->lvm, i)); i++)
		json_array_append_new(pvs, json_pack("{s:s, s:I, s:o, s:I, s:o, s:o}",
			"disk", disk_name(p, pv), "partition", (json_int_t)pv->part, "uuid", parts_json_text(pv->uuid),
			"size", (json_int_t)pv->size, "group", parts_json_text(pv->vg),
			"problem", parts_json_text(pv->problem)));
	for (unsigned i = 0; i < p->n_groups; i++)
		json_array_append_new(groups, json_group(p, &p->groups[i]));
	json_object_set_new(into, "physical-volumes", pvs);
	json_object_set_new(into, "volume-groups", groups);
}

/* ---- for people ---- */

static void add_volume(struct libscols_table *t, struct libscols_line *parent,
		       const struct group *g, unsigned n)
{
	const struct vdisk_lv *lv = &g->vg->lv[n];
	char name[sizeof(g->vg->name) + sizeof(lv->name) + 1];
	struct libscols_line *l = lv->hidden ? NULL : scols_table_new_line(t, parent);

	if (!l)
		return;
	snprintf(name, sizeof(name), "%s/%s", g->vg->name, lv->name);
	scols_line_set_data(l, NAME, name);
	parts_set_bytes(l, SIZE, lv->size);
	scols_line_set_data(l, TYPE, lv->type);
	parts_set_content(l, &g->content[n]);
	if (lv->reason[0])
		scols_line_set_data(l, CONTENT, "(closed)");
}

static void add_free(struct libscols_table *t, struct libscols_line *parent, uint64_t size)
{
	struct libscols_line *l = size ? scols_table_new_line(t, parent) : NULL;

	if (!l)
		return;
	scols_line_set_data(l, NAME, "(free)");
	parts_set_bytes(l, SIZE, size);
}

/* The partition of the first physical volume that is on this disk. */
static unsigned first_part(const struct vdisk_vg *vg)
{
	for (unsigned i = 0; i < vg->n_pvs; i++)
		if (!vg->pv[i].missing && !vg->pv[i].disk)
			return vg->pv[i].part;
	return 0;
}

static void add_group(struct libscols_table *t, struct libscols_line *parent,
		      const struct group *g, unsigned part)
{
	struct libscols_line *l = scols_table_new_line(t, parent);
	unsigned first = first_part(g->vg);
	char text[32];

	if (!l)
		return;
	scols_line_set_data(l, NAME, g->vg->name);
	if (first != part) {
		snprintf(text, sizeof(text), "see p%u", first);
		scols_line_set_data(l, TYPE, text);
		return;
	}
	scols_line_set_data(l, TYPE, "volume group");
	parts_set_bytes(l, SIZE, g->vg->size);
	scols_line_set_data(l, UUID, g->vg->uuid);
	for (unsigned i = 0; i < g->vg->n_lvs; i++)
		add_volume(t, l, g, i);
	add_free(t, l, g->vg->free);
}

void parts_lvm_tree(const struct parts_lvm *p, struct libscols_table *t,
		    struct libscols_line *parent, unsigned part)
{
	for (unsigned i = 0; i < p->n_groups; i++) {
		const struct vdisk_vg *vg = p->groups[i].vg;

		for (unsigned k = 0; k < vg->n_pvs; k++)
			if (!vg->pv[k].missing && !vg->pv[k].disk && vg->pv[k].part == part) {
				add_group(t, parent, &p->groups[i], part);
				break;
			}
	}
}

static void print_missing(const struct vdisk_vg *vg)
{
	for (unsigned i = 0; i < vg->n_pvs; i++)
		if (vg->pv[i].missing)
			printf("missing: physical volume %s of %s, last seen as %s\n",
			       vg->pv[i].uuid, vg->name,
			       vg->pv[i].hint[0] ? vg->pv[i].hint : "nothing known");
}

void parts_lvm_problems(const struct parts_lvm *p)
{
	const struct vdisk_pv *pv;

	for (unsigned i = 0; (pv = vdisk_lvm_pv(p->lvm, i)); i++)
		if (pv->problem[0] && pv->disk)
			printf("problem: physical volume on %s: %s\n", disk_name(p, pv), pv->problem);
		else if (pv->problem[0] && pv->part)
			printf("problem: physical volume p%u: %s\n", pv->part, pv->problem);
		else if (pv->problem[0])
			printf("problem: physical volume: %s\n", pv->problem);
	for (unsigned i = 0; i < p->n_groups; i++) {
		const struct vdisk_vg *vg = p->groups[i].vg;

		if (vg->problem[0])
			printf("problem: volume group %s: %s\n", vg->name, vg->problem);
		print_missing(vg);
		for (unsigned k = 0; k < vg->n_lvs; k++)
			if (!vg->lv[k].hidden && vg->lv[k].reason[0])
				printf("closed: %s/%s: %s\n", vg->name, vg->lv[k].name,
				       vg->lv[k].reason);
	}
}
