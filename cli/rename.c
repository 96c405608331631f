/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rename.c - vdisk rename: other names for LVM groups and volumes
 *
 * A name of LVM is an address: it stands in the guest's fstab and on the kernel's
 * command line, so these change with it (--no-files: they do not).
 *
 *   { "renamed": [ { "old", "new" } ], "files": [ { "volume", "path", "places" } ] }
 */
#include <errno.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/rewrite.h"

struct rename_args {
	bool show, no_files;
};

/* What is renamed, with the words that guests use for it. */
struct renaming {
	const char *vg, *lv;	/* lv: NULL for a group; into `target` */
	const char *name;
	char *target;		/* owned: PART of the locator */
	struct rewrite rewrite;
	char **text;		/* owned, and what it points at: the words */
	size_t n_texts;
};

/* ---- words ---- */

/* As device-mapper has it: "vg--0-root". */
static void dm_name(char out[520], const char *vg, const char *lv)
{
	const char *part[] = { vg, lv };

	for (unsigned i = 0; i < 2; i++) {
		for (const char *p = part[i]; *p; p++) {
			if (*p == '-')
				*out++ = '-';
			*out++ = *p;
		}
		if (i == 0)
			*out++ = '-';
	}
	*out = '\0';
}

static int add_word(struct renaming *r, const char *prefix, const char *old, const char *new)
{
	struct rewrite *w = &r->rewrite;
	struct rewrite_word *words = reallocarray(w->words, w->n_words + 1, sizeof(*words));
	char **text;

	w->words = words ? words : w->words;
	text = words ? reallocarray(r->text, r->n_texts + 2, sizeof(char *)) : NULL;
	if (!text)
		return -ENOMEM;
	r->text = text;
	text += r->n_texts;
	if (asprintf(&text[0], "%s%s", prefix, old) < 0)
		return -ENOMEM;
	r->n_texts++;
	if (asprintf(&text[1], "%s%s", prefix, new) < 0)
		return -ENOMEM;
	r->n_texts++;
	words[w->n_words++] = (struct rewrite_word) { .old = text[0], .new = text[1], .name = true };
	return 0;
}

static int add_volume(struct renaming *r, const char *vg, const char *lv)
{
	const char *new_vg = r->lv ? vg : r->name, *new_lv = r->lv ? r->name : lv;
	static const char *const by_path[] = { "/dev/", "rd.lvm.lv=", "rd_LVM_LV=" };
	static const char *const by_dm[] = { "/dev/mapper/", "lvm/", "dm-name-" };
	char old_dm[520], new_dm[520], old[264], new[264];
	int n = 0;

	snprintf(old, sizeof(old), "%s/%s", vg, lv);
	snprintf(new, sizeof(new), "%s/%s", new_vg, new_lv);
	dm_name(old_dm, vg, lv);
	dm_name(new_dm, new_vg, new_lv);
	for (size_t i = 0; i < ARRAY_SIZE(by_path) && n == 0; i++)
		n = add_word(r, by_path[i], old, new);
	for (size_t i = 0; i < ARRAY_SIZE(by_dm) && n == 0; i++)
		n = add_word(r, by_dm[i], old_dm, new_dm);
	return n;
}

static int add_words(struct renaming *r, const struct vdisk_vg *vg)
{
	int n = 0;

	for (unsigned i = 0; i < vg->n_lvs && n == 0; i++)
		if (!r->lv || !strcmp(vg->lv[i].name, r->lv) || !strcmp(vg->lv[i].uuid, r->lv))
			n = add_volume(r, vg->name, vg->lv[i].name);
	if (!r->lv && n == 0)
		n = add_word(r, "rd.lvm.vg=", vg->name, r->name);
	if (!r->lv && n == 0)
		n = add_word(r, "rd_LVM_VG=", vg->name, r->name);
	if (n < 0)
		cli_error("out of memory");
	return n < 0 ? CLI_FAILED : CLI_OK;
}

static void clear(struct renaming *r)
{
	for (size_t i = 0; i < r->n_texts; i++)
		free(r->text[i]);
	free(r->text);
	free(r->target);
	free(r->rewrite.words);
	rewrite_clear(&r->rewrite);
}

/* ---- the group ---- */

static int change(const struct renaming *r, struct vdisk *disk, bool only_check)
{
	struct vdisk_lvm_change c = {
		.size = sizeof(c), .only_check = only_check, .vg_name = r->lv ? NULL : r->name,
		.lv = r->lv, .lv_name = r->lv ? r->name : NULL,
	};
	struct vdisk_error err = { 0 };
	struct vdisk_lvm *lvm = NULL;
	int n = vdisk_lvm_scan(&lvm, &disk, 1, &err);

	if (n == 0)
		n = vdisk_lvm_change(lvm, r->vg, &c, &err);
	vdisk_lvm_free(lvm);
	return n < 0 ? cli_fail(&err) : CLI_OK;
}

static int find_words(struct renaming *r, struct vdisk *disk)
{
	struct vdisk_error err = { 0 };
	struct vdisk_lvm *lvm = NULL;
	const struct vdisk_vg *vg;
	int status = CLI_OK;

	if (vdisk_lvm_scan(&lvm, &disk, 1, &err) < 0)
		return cli_fail(&err);
	for (unsigned i = 0; status == CLI_OK && (vg = vdisk_lvm_vg(lvm, i)); i++)
		if (!strcmp(vg->name, r->vg) || !strcmp(vg->uuid, r->vg))
			status = add_words(r, vg);
	vdisk_lvm_free(lvm);
	return status;
}

static int show(const struct renaming *r)
{
	const char *old = r->lv ? r->lv : r->vg;

	if (cli.json)
		return cli_print_json(json_pack("{s:[{s:s, s:s}], s:o}", "renamed", "old", old, "new",
						r->name, "files", rewrite_json(&r->rewrite)));
	printf("%s -> %s\n", old, r->name);
	rewrite_show(&r->rewrite);
	return CLI_OK;
}

static int plan(struct renaming *r, const char *locator, const struct rename_args *a)
{
	AUTO_DISK struct vdisk *disk = NULL;
	int status;

	if (cli_open(&disk, locator, 0) < 0)
		return CLI_FAILED;
	status = change(r, disk, true);
	if (status == CLI_OK && !a->no_files)
		status = find_words(r, disk);
	if (status == CLI_OK && !a->no_files)
		status = rewrite_find(&r->rewrite, disk);
	if (status == CLI_OK && (a->show || cli.json || !cli.quiet))
		status = show(r);
	return status;
}

static int apply(struct renaming *r, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	int status;

	if (cli_open(&disk, locator, VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	status = rewrite_apply(&r->rewrite, disk);
	if (status == CLI_OK)
		status = change(r, disk, false);
	if (cli_close(&disk) != CLI_OK)
		status = CLI_FAILED;
	if (status == CLI_OK && r->rewrite.n_files)
		cli_note("the guest's initramfs may have noted down the former name: let the guest make "
			 "it anew");
	return status;
}

static error_t parse(int key, char *arg UNUSED, struct argp_state *state)
{
	struct rename_args *a = state->input;

	switch (key) {
	case 'n':
		a->show = true;
		return 0;
	case 'F':
		a->no_files = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int cmd_rename(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "dry-run", 'n', NULL, 0, "Say what would change, and change nothing", 0 },
		{ "no-files", 'F', NULL, 0, "Leave the guest's fstab, crypttab and boot loader "
		  "configuration as they are", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse, .children = cli_disk,
		.args_doc = "DISK#VG NAME\nDISK#VG/LV NAME",
		.doc = "Give an LVM volume group or logical volume another name, in its metadata and in "
		       "the guest's configuration.",
	};
	struct rename_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 2, 2), *slash;
	struct renaming r = { .name = args[1] };
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	AUTO_FREE char *disk = NULL;
	int status;

	if (vdisk_locator_parse(&loc, args[0], &err) < 0)
		return cli_fail(&err);
	r.target = STEAL(loc.part);
	if (!r.target || loc.path) {
		vdisk_locator_clear(&loc);
		free(r.target);
		cli_usage("'%s' names no LVM group or volume: it should be DISK#VG or DISK#VG/LV",
			  args[0]);
	}
	disk = vdisk_locator_format(&loc);
	vdisk_locator_clear(&loc);
	r.vg = r.target;
	slash = strchr(r.target, '/');
	if (slash) {
		*slash = '\0';
		r.lv = slash + 1;
	}
	status = disk ? plan(&r, disk, &a) : CLI_FAILED;
	if (status == CLI_OK && !a.show) {
		fflush(stdout);
		status = apply(&r, disk);
	}
	clear(&r);
	return status;
}
