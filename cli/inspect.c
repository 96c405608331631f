/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inspect.c - vdisk inspect: which system is on a disk, and what it boots
 *
 * JSON:
 *   { "disk", "format", "size",
 *     "system": { "name", "id", "version", "codename", "arch", "hostname" },
 *     "clean": was it shut down cleanly,
 *     "root": { "partition" (or null), "type", "uuid", "label" },
 *     "partitions": [ { "number", "start", "size", "type-name", "name", "uuid" } ],
 *     "fstab": [ { "line", "device", "mount-point", "type", "options",
 *                  "volume": the PART of the disk that is meant (or null),
 *                  "missing": a volume that is not on this disk } ],
 *     "kernels": [ { "version", "path", "initrd" (or null) } ],
 *     "boot": { "source", "default": NUMBER (or null),
 *               "entries": [ { "number", "title", "id", "kernel", "initrd", "cmdline" } ] }
 *             or null,
 *     "packaging" (or null), "package-count" (or null), "package-problem" (why, or null),
 *     "packages": [ { "name", "version", "arch" } ]   with --packages }
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/steady.h"
#include "cli/system.h"

struct inspect {
	struct vdisk *disk;
	struct cli_system system;
	struct vdisk_parts *parts;	/* owned; may be NULL */
	bool packages;
};

static json_t *text_or_null(const char *s)
{
	json_t *j = s[0] ? json_string(s) : json_null();

	return j ? j : json_null();
}

/* ---- as JSON ---- */

static json_t *json_boot(const struct inspect *s)
{
	json_t *entries;

	if (s->system.n_boot < 0)
		return json_null();
	entries = json_array();
	for (int i = 0; i < s->system.n_boot; i++) {
		const struct vdisk_boot *b = &s->system.boot[i];

		json_array_append_new(entries, json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}",
			"number", b->number, "title", text_or_null(b->title),
			"id", text_or_null(b->id), "kernel", text_or_null(b->kernel),
			"initrd", text_or_null(b->initrd), "cmdline", text_or_null(b->cmdline)));
	}
	return json_pack("{s:o, s:o, s:o}", "source",
			 text_or_null(s->system.n_boot ? s->system.boot[0].source : ""), "default",
			 text_or_null(s->system.chosen >= 0 ? s->system.boot[s->system.chosen].number : ""),
			 "entries", entries);
}

static json_t *json_fstab(const struct vdisk_inspection *in)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < in->n_fstab; i++) {
		const struct vdisk_fstab *f = &in->fstab[i];

		json_array_append_new(list, json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:b}",
			"line", (json_int_t)f->line, "device", text_or_null(f->device),
			"mount-point", text_or_null(f->mount_point),
			"type", text_or_null(f->type), "options", text_or_null(f->options),
			"volume", text_or_null(f->volume), "missing", f->missing));
	}
	return list;
}

static json_t *json_kernels(const struct vdisk_inspection *in)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < in->n_kernels; i++)
		json_array_append_new(list, json_pack("{s:o, s:o, s:o}",
			"version", text_or_null(in->kernels[i].version),
			"path", text_or_null(in->kernels[i].path),
			"initrd", text_or_null(in->kernels[i].initrd)));
	return list;
}

static json_t *json_partitions(const struct vdisk_parts *parts)
{
	json_t *list = json_array();

	for (unsigned i = 0; parts && i < parts->count; i++) {
		const struct vdisk_part *p = &parts->part[i];

		json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:o, s:o, s:o}",
			"number", (json_int_t)p->number, "start", (json_int_t)p->offset,
			"size", (json_int_t)p->length, "type-name", text_or_null(p->type_name),
			"name", text_or_null(p->name), "uuid", text_or_null(p->uuid)));
	}
	return list;
}

static json_t *json_packages(const struct vdisk_inspection *in)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < in->n_packages; i++)
		json_array_append_new(list, json_pack("{s:o, s:o, s:o}",
			"name", text_or_null(in->packages[i].name),
			"version", text_or_null(in->packages[i].version),
			"arch", text_or_null(in->packages[i].arch)));
	return list;
}

static int print_json(const struct inspect *s)
{
	const struct vdisk_inspection *in = s->system.in;
	json_t *j = json_pack("{s:s, s:s, s:I, s:{s:o, s:o, s:o, s:o, s:o, s:o},"
			      " s:{s:o, s:o, s:o, s:o}, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"disk", vdisk_name(s->disk), "format", vdisk_format(s->disk),
		"size", (json_int_t)vdisk_size(s->disk),
		"system", "name", text_or_null(in->name), "id", text_or_null(in->id),
		"version", text_or_null(in->version), "codename", text_or_null(in->codename),
		"arch", text_or_null(in->arch), "hostname", text_or_null(in->hostname),
		"root", "partition", text_or_null(in->root), "type", text_or_null(in->root_type),
		"uuid", text_or_null(in->root_uuid), "label", text_or_null(in->root_label),
		"clean", !in->unclean,
		"partitions", json_partitions(s->parts), "fstab", json_fstab(in),
		"kernels", json_kernels(in), "boot", json_boot(s),
		"packaging", text_or_null(in->packaging), "package-count",
		in->packages_known ? json_integer(in->n_packages) : json_null(),
		"package-problem", text_or_null(in->packages_problem));

	if (s->packages)
		json_object_set_new(j, "packages", json_packages(in));
	return cli_print_json(j);
}

/* ---- for people ---- */

static int print_columns(const char *const *names, unsigned n,
			 const char *(*cell)(const struct inspect *s, unsigned row, unsigned column),
			 const struct inspect *s, unsigned rows)
{
	struct libscols_table *t = cli_table("inspect");
	struct libscols_line *line;

	for (unsigned c = 0; t && c < n; c++)
		scols_table_new_column(t, names[c], 8, 0);
	for (unsigned r = 0; t && r < rows; r++) {
		line = scols_table_new_line(t, NULL);
		for (unsigned c = 0; line && c < n; c++)
			scols_line_set_data(line, c, cell(s, r, c));
	}
	putchar('\n');
	fflush(stdout);
	return t ? cli_print_table(t) : CLI_FAILED;
}

static const char *fstab_cell(const struct inspect *s, unsigned row, unsigned column)
{
	const struct vdisk_fstab *f = &s->system.in->fstab[row];
	static char line[16];

	switch (column) {
	case 0:
		snprintf(line, sizeof(line), "%u", f->line);
		return line;
	case 1:
		return f->device;
	case 2:
		return f->mount_point;
	case 3:
		return f->type;
	case 4:
		return f->options;
	default:
		return f->missing ? "(not on this disk)" : f->volume;
	}
}

static const char *kernel_cell(const struct inspect *s, unsigned row, unsigned column)
{
	const struct vdisk_kernel *k = &s->system.in->kernels[row];

	return column == 0 ? k->path : k->initrd;
}

static const char *boot_cell(const struct inspect *s, unsigned row, unsigned column)
{
	const struct vdisk_boot *b = &s->system.boot[row];

	switch (column) {
	case 0:
		return (int)row == s->system.chosen ? "*" : "";
	case 1:
		return b->number;
	case 2:
		return b->title;
	default:
		return b->kernel[0] ? b->kernel : "(not Linux)";
	}
}

static const char *package_cell(const struct inspect *s, unsigned row, unsigned column)
{
	const struct vdisk_package *p = &s->system.in->packages[row];

	return column == 0 ? p->name : column == 1 ? p->version : p->arch;
}

static void print_system(const struct inspect *s)
{
	const struct vdisk_inspection *in = s->system.in;

	printf("%s%s%s", in->name[0] ? in->name : "unknown system", in->arch[0] ? ", " : "",
	       in->arch);
	if (in->hostname[0])
		printf(", host name %s", in->hostname);
	printf("\nroot: %s%s%s", in->root[0] ? "#" : "the whole disk", in->root, in->root[0] ? "" : ",");
	printf(" %s", in->root_type);
	if (in->root_label[0])
		printf(", label %s", in->root_label);
	if (in->root_uuid[0])
		printf(", UUID %s", in->root_uuid);
	if (in->unclean)
		printf("\nit was not shut down cleanly");
	printf("\npackages: ");
	if (in->packages_known)
		printf("%u (%s)\n", in->n_packages, in->packaging);
	else if (in->packages_problem[0])
		printf("%s, which cannot be read: %s\n", in->packaging, in->packages_problem);
	else
		printf("%s\n", in->packaging[0] ? in->packaging : "no known database");
	if (s->system.n_boot > 0)
		printf("boots from: %s\n", s->system.boot[0].source);
	else
		printf("boots: nothing; %s\n", s->system.boot_error.msg);
}

static int print_text(const struct inspect *s)
{
	static const char *const fstab[] = { "LINE", "DEVICE", "MOUNT POINT", "TYPE", "OPTIONS",
					     "VOLUME" };
	static const char *const kernels[] = { "KERNEL", "INITRD" };
	static const char *const entries[] = { "", "ENTRY", "TITLE", "KERNEL" };
	static const char *const packages[] = { "PACKAGE", "VERSION", "ARCH" };
	const struct vdisk_inspection *in = s->system.in;
	int r = CLI_OK;

	print_system(s);
	if (in->n_fstab)
		r = print_columns(fstab, ARRAY_SIZE(fstab), fstab_cell, s, in->n_fstab);
	if (r == CLI_OK && in->n_kernels)
		r = print_columns(kernels, ARRAY_SIZE(kernels), kernel_cell, s, in->n_kernels);
	if (r == CLI_OK && s->system.n_boot > 0)
		r = print_columns(entries, ARRAY_SIZE(entries), boot_cell, s, (unsigned)s->system.n_boot);
	if (r == CLI_OK && s->packages && in->n_packages)
		r = print_columns(packages, ARRAY_SIZE(packages), package_cell, s, in->n_packages);
	return r;
}

/* ---- the command ---- */

enum { OPT_PACKAGES = 256 };

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct inspect *s = state->input;

	(void)arg;
	if (key != OPT_PACKAGES)
		return ARGP_ERR_UNKNOWN;
	s->packages = true;
	return 0;
}

static int inspect(struct inspect *s)
{
	struct vdisk_error err = { 0 };

	if (cli_inspect(&s->system, s->disk, &err) < 0 ||
	    vdisk_parts_read(&s->parts, s->disk, &err) < 0)
		return cli_fail(&err);
	return cli.json ? print_json(s) : print_text(s);
}

int cmd_inspect(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "packages", OPT_PACKAGES, NULL, 0, "List the installed packages too", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse, .children = cli_disk, .args_doc = "DISK",
		.doc = "Say which operating system is on a disk: release, kernels, boot entries, "
		       "fstab, packages.\vThe files are read by a process without privileges; "
		       "the disk is not changed.",
	};
	struct inspect s = { .packages = false };
	char **args = cli_parse(&argp, argc, argv, &s, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	int status;

	if (steady_look(&disk, args[0]) != CLI_OK)
		return CLI_FAILED;
	s.disk = disk;
	status = inspect(&s);
	cli_system_free(&s.system);
	free(s.parts);
	return status;
}
