/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clone.c - vdisk uuid --clone: fresh identifiers for a copy of a disk
 *
 * First everything is looked at, on the disk opened for reading, and a list is
 * made: each identifier with its new one, and each file of the guest in which
 * one of the old ones stands.  That list is shown before anything is written.
 * Then the files are changed, then the file systems, then LVM's metadata, then
 * the partition table.
 *
 *   { "identifiers": [ { "volume", "what", "old", "new" } ],
 *     "files": [ { "volume", "path", "places" } ], "unchanged": [ { "volume", "what", "reason" } ] }
 */
#include <ctype.h>
#include <stdio.h>
#include <sys/random.h>

#include "cli/label.h"
#include "cli/rewrite.h"

struct id {
	char volume[264];
	char what[48];		/* "ext4", "partition", "table" */
	char old[64], new[64];
	unsigned part;		/* of a partition's own */
	bool on_volume;		/* of what it holds */
	char vg[40];		/* of LVM: the group's UUID */
	char old_plain[64], new_plain[64];	/* of LVM: without dashes */
};

struct plan {
	struct id *ids;		/* owned */
	size_t n_ids;
	struct rewrite rewrite;	/* its words: owned */
	json_t *unchanged;	/* owned */
	bool in_initramfs;	/* something that an initramfs may have noted down */
	int status;
};

/* ---- identifiers ---- */

static struct id *add_id(struct plan *p, const char *volume, const char *what, const char *old)
{
	struct id *v = reallocarray(p->ids, p->n_ids + 1, sizeof(*v)), *id;

	if (!v) {
		p->status = CLI_FAILED;
		return NULL;
	}
	p->ids = v;
	id = &v[p->n_ids++];
	*id = (struct id) { .part = 0 };
	snprintf(id->volume, sizeof(id->volume), "%s", volume);
	snprintf(id->what, sizeof(id->what), "%s", what);
	snprintf(id->old, sizeof(id->old), "%s", old);
	return id;
}

/*
 * Other digits where digits are: as long as the old one, and of the same look.  (The
 * serial number of a volume is always told in capitals, also where it has no letter.)
 */
static void make_new(struct id *id)
{
	bool uuid = strlen(id->old) == 36;
	bool upper = strpbrk(id->old, "ABCDEF") || (id->on_volume && !uuid);
	uint8_t raw[64];
	size_t i, digit = 0;

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		abort();	/* (does not fail once the machine has started) */
	for (i = 0; id->old[i]; i++) {
		unsigned v = raw[i] & 15;

		if (!isxdigit((unsigned char)id->old[i])) {
			id->new[i] = id->old[i];
			continue;
		}
		if (uuid && digit == 12)	/* RFC 9562: version 4, variant 10 */
			v = 4;
		if (uuid && digit == 16)
			v = 8 | (v & 3);
		if (!uuid && digit == 0)
			v |= 1;	/* no serial number is zero */
		id->new[i] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[v];
		digit++;
	}
	id->new[i] = '\0';
}

static void plan_table(struct plan *p, struct vdisk *disk)
{
	AUTO_FREE struct vdisk_parts *t = NULL;
	struct vdisk_error err = { 0 };
	char table_new[64], name[16];
	struct id *id;

	if (vdisk_parts_read(&t, disk, &err) < 0) {
		p->status = cli_fail(&err);
		return;
	}
	if (!t->scheme[0])
		return;
	id = add_id(p, "", "table", t->id);
	if (!id)
		return;
	make_new(id);
	snprintf(table_new, sizeof(table_new), "%s", id->new);
	for (unsigned i = 0; i < t->count; i++) {
		snprintf(name, sizeof(name), "p%u", t->part[i].number);
		id = add_id(p, name, "partition", t->part[i].uuid);
		if (!id)
			return;
		if (!strcmp(t->scheme, "dos")) {	/* the table's, and the number */
			snprintf(id->new, sizeof(id->new), "%.40s-%02x", table_new, t->part[i].number);
		} else {
			make_new(id);
			id->part = t->part[i].number;
		}
	}
}

static int plan_volume(void *arg, const struct vdisk_volume *volume)
{
	struct plan *p = arg;
	struct vdisk_probe probe = { 0 };
	struct vdisk_error err = { 0 };
	const char *why;
	struct id *id;

	if (vdisk_probe(volume->disk, &probe, &err) < 0) {
		p->status = cli_fail(&err);
		return 0;
	}
	if (!*probe.type || !strcmp(probe.type, "LVM2_member"))
		return 0;	/* (see plan_lvm() for these) */
	why = cli_uuid_refusal(&probe);
	if (volume->lv && !volume->lv->writable)
		why = "the volume has snapshots or copies, which would be ruined";
	if (*why || !*probe.uuid) {
		json_array_append_new(p->unchanged, json_pack("{s:s, s:s, s:s}", "volume",
			volume->name, "what", probe.type, "reason", *why ? why : "it has none"));
		return 0;
	}
	id = add_id(p, volume->name, probe.type, probe.uuid);
	if (!id)
		return 0;
	id->on_volume = true;
	make_new(id);
	p->in_initramfs |= !strcmp(probe.type, "swap") || !strcmp(probe.type, "crypto_LUKS");
	return 0;
}

/* ---- LVM ---- */

struct lvm_ids {
	struct vdisk_lvm_uuid *uuids;	/* owned */
	unsigned n;
};

/* The identifiers of @vg that the plan has. */
static int ids_of_group(const struct plan *p, const char *vg, struct lvm_ids *out)
{
	out->uuids = calloc(p->n_ids + 1, sizeof(*out->uuids));
	out->n = 0;
	if (!out->uuids) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	for (size_t i = 0; i < p->n_ids; i++)
		if (!strcmp(p->ids[i].vg, vg))
			out->uuids[out->n++] = (struct vdisk_lvm_uuid) { p->ids[i].old, p->ids[i].new };
	return CLI_OK;
}

static void add_lvm_id(struct plan *p, const char *volume, const char *what, const char *old,
		       const struct vdisk_vg *vg)
{
	struct id *id = add_id(p, volume, what, old);
	struct vdisk_error err = { 0 };

	if (!id)
		return;
	snprintf(id->vg, sizeof(id->vg), "%s", vg->uuid);
	if (vdisk_lvm_uuid_new(id->new, &err) < 0)
		p->status = cli_fail(&err);
}

static void plan_group(struct plan *p, struct vdisk_lvm *lvm, const struct vdisk_vg *vg)
{
	struct vdisk_lvm_change c = { .size = sizeof(c), .only_check = true };
	struct vdisk_error err = { 0 };
	size_t before = p->n_ids;
	struct lvm_ids ids;
	char name[264];

	add_lvm_id(p, vg->name, "LVM group", vg->uuid, vg);
	for (unsigned i = 0; i < vg->n_pvs; i++) {
		snprintf(name, sizeof(name), "p%u", vg->pv[i].part);
		add_lvm_id(p, vg->pv[i].part ? name : "", "LVM2_member", vg->pv[i].uuid, vg);
	}
	for (unsigned i = 0; i < vg->n_lvs; i++) {
		snprintf(name, sizeof(name), "%s/%s", vg->name, vg->lv[i].name);
		add_lvm_id(p, name, "LVM volume", vg->lv[i].uuid, vg);
	}
	if (p->status != CLI_OK || ids_of_group(p, vg->uuid, &ids) != CLI_OK)
		return;
	c.uuids = ids.uuids;
	c.n_uuids = ids.n;
	if (vdisk_lvm_change(lvm, vg->uuid, &c, &err) < 0) {
		p->n_ids = before;
		json_array_append_new(p->unchanged, json_pack("{s:s, s:s, s:s}", "volume", vg->name,
							      "what", "LVM group", "reason", err.msg));
	}
	free(ids.uuids);
}

static void plan_lvm(struct plan *p, struct vdisk *disk)
{
	struct vdisk_lvm *lvm = NULL;
	struct vdisk_error err = { 0 };
	const struct vdisk_vg *vg;
	const struct vdisk_pv *pv;

	if (vdisk_lvm_scan(&lvm, &disk, 1, &err) < 0) {
		p->status = cli_fail(&err);
		return;
	}
	for (unsigned i = 0; p->status == CLI_OK && (vg = vdisk_lvm_vg(lvm, i)); i++)
		plan_group(p, lvm, vg);
	for (unsigned i = 0; (pv = vdisk_lvm_pv(lvm, i)); i++) {
		char name[16] = "";

		if (pv->part)
			snprintf(name, sizeof(name), "p%u", pv->part);
		if (!pv->vg[0])
			json_array_append_new(p->unchanged, json_pack("{s:s, s:s, s:s}", "volume",
				name, "what", "LVM2_member", "reason",
				pv->problem[0] ? pv->problem : "it is in no volume group"));
	}
	vdisk_lvm_free(lvm);
}

static int change_lvm(const struct plan *p, struct vdisk *disk)
{
	struct vdisk_lvm *lvm = NULL;
	struct vdisk_error err = { 0 };
	int status = CLI_OK;

	if (vdisk_lvm_scan(&lvm, &disk, 1, &err) < 0)
		return cli_fail(&err);
	for (size_t i = 0; status == CLI_OK && i < p->n_ids; i++) {
		struct vdisk_lvm_change c = { .size = sizeof(c) };
		struct lvm_ids ids;

		if (!p->ids[i].vg[0] || strcmp(p->ids[i].vg, p->ids[i].old) != 0)
			continue;	/* (a group's own comes first) */
		status = ids_of_group(p, p->ids[i].vg, &ids);
		c.uuids = ids.uuids;
		c.n_uuids = ids.n;
		if (status == CLI_OK && vdisk_lvm_change(lvm, p->ids[i].vg, &c, &err) < 0)
			status = cli_fail(&err);
		free(ids.uuids);
	}
	vdisk_lvm_free(lvm);
	return status;
}

/* ---- what files say ---- */

/* A physical volume also stands in LVM's list of devices, without its dashes. */
static void without_dashes(char out[64], const char *id)
{
	for (; *id; id++)
		if (*id != '-')
			*out++ = *id;
	*out = '\0';
}

/* The words that change; the id of an MBR alone is too short to be believed. */
static int make_words(struct plan *p)
{
	struct rewrite *w = &p->rewrite;

	w->words = calloc(2 * p->n_ids + 1, sizeof(*w->words));
	if (!w->words) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	for (size_t i = 0; i < p->n_ids; i++) {
		struct id *id = &p->ids[i];

		if (strlen(id->old) < 9)
			continue;
		w->words[w->n_words++] = (struct rewrite_word) {
			.old = id->old, .new = id->new, .any_case = !id->vg[0],
		};
		if (!id->vg[0])
			continue;
		without_dashes(id->old_plain, id->old);
		without_dashes(id->new_plain, id->new);
		w->words[w->n_words++] = (struct rewrite_word) { id->old_plain, id->new_plain, false, false };
	}
	return CLI_OK;
}

/* ---- showing ---- */

static int show_json(const struct plan *p)
{
	json_t *ids = json_array();

	for (size_t i = 0; i < p->n_ids; i++)
		json_array_append_new(ids, json_pack("{s:s, s:s, s:s, s:s}", "volume",
			p->ids[i].volume, "what", p->ids[i].what, "old", p->ids[i].old, "new",
			p->ids[i].new));
	return cli_print_json(json_pack("{s:o, s:o, s:O}", "identifiers", ids, "files",
					rewrite_json(&p->rewrite),
					"unchanged", p->unchanged));
}

static int show(const struct plan *p)
{
	if (cli.json)
		return show_json(p);
	for (size_t i = 0; i < p->n_ids; i++)
		printf("%-12s %-10s %s -> %s\n", *p->ids[i].volume ? p->ids[i].volume : "disk",
		       p->ids[i].what, p->ids[i].old, p->ids[i].new);
	rewrite_show(&p->rewrite);
	for (size_t i = 0; i < json_array_size(p->unchanged); i++) {
		json_t *u = json_array_get(p->unchanged, i);

		printf("%s: %s stays: %s\n", json_string_value(json_object_get(u, "volume")),
		       json_string_value(json_object_get(u, "what")),
		       json_string_value(json_object_get(u, "reason")));
	}
	return CLI_OK;
}

/* ---- doing ---- */

static int change_volume(void *arg, const struct vdisk_volume *volume)
{
	struct plan *p = arg;

	for (size_t i = 0; p->status == CLI_OK && i < p->n_ids; i++)
		if (p->ids[i].on_volume && !strcmp(p->ids[i].volume, volume->name))
			p->status = cli_set_uuid(volume->disk,
						 *volume->name ? volume->name : "the disk",
						 p->ids[i].new);
	return p->status == CLI_OK ? 0 : 1;
}

static int change_table(const struct plan *p, struct vdisk *disk)
{
	struct vdisk_part_change c = { .size = sizeof(c) };
	struct vdisk_error err = { 0 };

	for (size_t i = 0; i < p->n_ids; i++) {
		const struct id *id = &p->ids[i];
		int r = 0;

		c.uuid = id->new;
		if (id->part)
			r = vdisk_parts_change(disk, id->part, &c, &err);
		else if (!id->on_volume && !*id->volume && !id->vg[0])
			r = vdisk_parts_set_id(disk, id->new, &err);
		if (r < 0)
			return cli_fail(&err);
	}
	return CLI_OK;
}

static int apply(struct plan *p, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open(&disk, locator, VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	p->status = rewrite_apply(&p->rewrite, disk);
	if (p->status == CLI_OK && vdisk_each_volume(disk, change_volume, p, &err) < 0)
		p->status = cli_fail(&err);
	if (p->status == CLI_OK)
		p->status = change_lvm(p, disk);
	if (p->status == CLI_OK)
		p->status = change_table(p, disk);
	if (cli_close(&disk) != CLI_OK)
		p->status = CLI_FAILED;
	if (p->status != CLI_OK)
		cli_error("%s: only a part of the identifiers was changed; run it again on a fresh "
			  "copy", locator);
	else if (p->in_initramfs)
		cli_note("the guest's initramfs may have noted down the former UUID of swap space or "
			 "LUKS: let the guest make it anew");
	return p->status;
}

static int make_plan(struct plan *p, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open(&disk, locator, 0) < 0)
		return CLI_FAILED;
	plan_table(p, disk);
	if (vdisk_each_volume(disk, plan_volume, p, &err) < 0)
		return cli_fail(&err);
	if (p->status == CLI_OK)
		plan_lvm(p, disk);
	if (p->status == CLI_OK)
		p->status = make_words(p);
	if (p->status == CLI_OK)
		p->status = rewrite_find(&p->rewrite, disk);
	if (p->status == CLI_OK && !p->n_ids) {
		cli_error("%s: there is no identifier on it that can be changed", locator);
		return CLI_FAILED;
	}
	return p->status;
}

int cli_clone(const char *locator, bool only_show)
{
	struct plan p = { .unchanged = json_array() };
	int status = make_plan(&p, locator);

	if (status == CLI_OK)
		status = show(&p);
	if (status == CLI_OK && !only_show) {
		fflush(stdout);
		status = cli_confirm("%s gets these new identifiers", locator) ? apply(&p, locator) :
			 CLI_FAILED;
	}
	free(p.rewrite.words);
	rewrite_clear(&p.rewrite);
	free(p.ids);
	json_decref(p.unchanged);
	return status;
}
