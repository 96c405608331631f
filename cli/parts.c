/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parts.c - vdisk parts: everything on a disk in one look
 *
 * A tree of the disk, its partitions in the order in which they lie, the free
 * places between them, and what each holds.  The JSON has the same facts:
 *
 *   { "disk", "format", "size", "block-size",
 *     "content": CONTENT,              what lies straight on the disk, or null
 *     "table": { "scheme": "gpt"|"dos", "id", "sector-size", "problem" (the first one, or null),
 *                "problems": [ TEXT ], "primary-ok", "backup-ok", "backup-misplaced", "hybrid",
 *                "protective", "first-usable", "last-usable" (from there on: GPT only) } or null,
 *     "partitions": [ { "number", "start", "size", "type", "type-name", "name", "uuid",
 *                       "attributes", "active", "extended", "logical",
 *                       "content": CONTENT } ],
 *     "free": [ { "start", "size" } ],
 *     "physical-volumes", "volume-groups": see parts_lvm.c }
 *   CONTENT: { "type", "usage", "label", "uuid", "version", "block-size", "size", "free" (null
 *            where they are not known), "dirty": not cleanly unmounted } or null
 *
 * Numbers are bytes.  Of several disks: an array of these.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/parts.h"
#include "cli/steady.h"

#define GAP_MIN (1u << 20)	/* smaller places hold no partition */

struct item {
	uint64_t start, length;
	const struct vdisk_part *part; /* NULL: free */
	bool logical;		/* inside the extended partition */
	struct vdisk_probe content;
};

struct survey {
	struct vdisk *disk;
	struct vdisk_parts *parts;	/* owned */
	struct vdisk_probe content;	/* of the whole disk, if it has no table */
	struct item *items;		/* owned: as they lie */
	unsigned n_items;
	struct parts_lvm *lvm;		/* owned */
	json_t *problems;		/* owned: of the table */
};

/* ---- finding out ---- */

static int by_place(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	/* what contains comes before what is contained */
	return x->length > y->length ? -1 : x->length < y->length;
}

/* FAT has no count of what is free, but a table to look through. */
int parts_probe(struct vdisk *disk, struct vdisk_probe *out, struct vdisk_error *err)
{
	struct vdisk_fs_usage usage;
	struct vdisk_fs *fs;
	int r = vdisk_probe(disk, out, err);

	if (r < 0 || strcmp(out->type, "vfat") != 0 || vdisk_fs_open(&fs, disk, 0, NULL) < 0)
		return r;
	if (vdisk_fs_usage(fs, &usage, NULL) == 0) {
		out->fs_size = usage.total;
		out->fs_free = usage.free;
	}
	vdisk_fs_close(fs, NULL);
	return 0;
}

static void probe_part(struct survey *s, struct item *it)
{
	struct vdisk_error err = { 0 };
	struct vdisk *part;

	if (it->part->extended)
		return;
	if (vdisk_open_window(&part, s->disk, it->start, it->length, &err) < 0) {
		cli_note("partition %u: %s", it->part->number, err.msg);
		return;
	}
	if (parts_probe(part, &it->content, &err) < 0)
		cli_note("partition %u: %s", it->part->number, err.msg);
	vdisk_close(part, NULL);
}

static void add_parts(struct survey *s)
{
	const struct vdisk_part *extended = NULL;

	for (unsigned i = 0; i < s->parts->count; i++) {
		const struct vdisk_part *p = &s->parts->part[i];
		struct item *it = &s->items[s->n_items++];

		*it = (struct item) { .start = p->offset, .length = p->length, .part = p };
		it->logical = extended && !strcmp(s->parts->scheme, "dos") && p->number > 4;
		if (p->extended)
			extended = p;
		probe_part(s, it);
	}
}

/* A logical partition takes room for its boot record in front, too. */
static void add_gap(struct survey *s, uint64_t from, uint64_t to, bool logical)
{
	from = (from + GAP_MIN - 1) / GAP_MIN * GAP_MIN;
	if (from < to && to - from >= (logical ? 2 : 1) * GAP_MIN)
		s->items[s->n_items++] = (struct item) {
			.start = from, .length = to - from, .logical = logical,
		};
}

/* The free places in [pos, end) between the first @n items on one level. */
static void add_gaps(struct survey *s, unsigned n, uint64_t pos, uint64_t end, bool logical)
{
	for (unsigned i = 0; i < n; i++) {
		const struct item *it = &s->items[i];

		if (it->logical != logical)
			continue;
		add_gap(s, pos, MIN(it->start, end), logical);
		pos = MAX(pos, it->start + it->length);
	}
	add_gap(s, pos, end, logical);
}

static void note_problem(void *arg, const char *finding)
{
	json_array_append_new(arg, json_string(finding));
}

static int survey(struct survey *s, struct vdisk *disk)
{
	struct vdisk_error err = { 0 };
	uint64_t first, end;
	unsigned n;

	*s = (struct survey) { .disk = disk, .problems = json_array() };
	if (vdisk_parts_read(&s->parts, disk, &err) < 0)
		return cli_fail(&err);
	if (parts_lvm_read(&s->lvm, disk) != CLI_OK)
		return CLI_FAILED;
	if (!s->parts->scheme[0]) {
		return parts_probe(disk, &s->content, &err) < 0 ? cli_fail(&err) : CLI_OK;
	}
	if (vdisk_parts_verify(disk, note_problem, s->problems, &err) < 0)
		return cli_fail(&err);
	/* each item may have a gap before it and one after it */
	s->items = calloc(2 * (size_t)s->parts->count + 4, sizeof(*s->items));
	if (!s->items) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	add_parts(s);
	n = s->n_items;
	qsort(s->items, n, sizeof(*s->items), by_place);
	first = s->parts->first_usable ? s->parts->first_usable : s->parts->sector_size;
	end = s->parts->last_usable ? MIN(s->parts->last_usable, vdisk_size(disk)) :
	      vdisk_size(disk);
	add_gaps(s, n, first, end, false);
	for (unsigned i = 0; i < n; i++)
		if (s->items[i].part->extended)
			add_gaps(s, n, s->items[i].start, s->items[i].start + s->items[i].length,
				 true);
	qsort(s->items, s->n_items, sizeof(*s->items), by_place);
	return CLI_OK;
}

/* ---- as JSON ---- */

json_t *parts_json_text(const char *s)
{
	json_t *j = s[0] ? json_string(s) : json_null();

	return j ? j : json_null();
}

json_t *parts_json_content(const struct vdisk_probe *p)
{
	if (!p->type[0] && !p->usage[0])
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:b}",
			 "type", parts_json_text(p->type), "usage", parts_json_text(p->usage),
			 "label", parts_json_text(p->label), "uuid", parts_json_text(p->uuid),
			 "version", parts_json_text(p->version),
			 "block-size", (json_int_t)p->block_size,
			 "size", p->fs_size ? json_integer((json_int_t)p->fs_size) : json_null(),
			 "free", p->fs_size && p->fs_free != UINT64_MAX ? json_integer((json_int_t)p->fs_free) :
				 json_null(), "dirty", p->dirty);
}

static json_t *json_table(const struct survey *s)
{
	const struct vdisk_parts *t = s->parts;
	json_t *j;

	if (!t->scheme[0])
		return json_null();
	j = json_pack("{s:s, s:o, s:I, s:o, s:O}", "scheme", t->scheme, "id",
		      parts_json_text(t->id), "sector-size", (json_int_t)t->sector_size, "problem",
		      parts_json_text(t->problem), "problems", s->problems);
	if (!strcmp(t->scheme, "gpt"))
		json_object_update_new(j, json_pack("{s:b, s:b, s:b, s:b, s:b, s:I, s:I}",
			"primary-ok", t->primary_ok, "backup-ok", t->backup_ok,
			"backup-misplaced", t->backup_misplaced, "hybrid", t->hybrid,
			"protective", t->protective,
			"first-usable", (json_int_t)t->first_usable,
			"last-usable", (json_int_t)t->last_usable));
	return j;
}

static json_t *json_part(const struct item *it)
{
	const struct vdisk_part *p = it->part;

	return json_pack("{s:I, s:I, s:I, s:s, s:o, s:o, s:o, s:I, s:b, s:b, s:b, s:o}",
			 "number", (json_int_t)p->number,
			 "start", (json_int_t)p->offset, "size", (json_int_t)p->length,
			 "type", p->type, "type-name", parts_json_text(p->type_name),
			 "name", parts_json_text(p->name), "uuid", parts_json_text(p->uuid),
			 "attributes", (json_int_t)p->attrs,
			 "active", p->type[0] == '0' && p->type[1] == 'x' && (p->attrs & 0x80),
			 "extended", p->extended, "logical", it->logical,
			 "content", parts_json_content(&it->content));
}

static json_t *to_json(const struct survey *s)
{
	json_t *parts = json_array(), *gaps = json_array();
	struct vdisk_limits limits;
	json_t *all;

	vdisk_get_limits(s->disk, &limits);
	for (unsigned i = 0; i < s->n_items; i++) {
		const struct item *it = &s->items[i];

		if (it->part)
			json_array_append_new(parts, json_part(it));
		else
			json_array_append_new(gaps, json_pack("{s:I, s:I}",
				"start", (json_int_t)it->start, "size", (json_int_t)it->length));
	}
	all = json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o}",
		"disk", vdisk_name(s->disk), "format", vdisk_format(s->disk),
		"size", (json_int_t)vdisk_size(s->disk),
		"block-size", (json_int_t)limits.block_size,
		"content", parts_json_content(&s->content), "table", json_table(s),
		"partitions", parts, "free", gaps);
	if (all)
		parts_lvm_json(s->lvm, all);
	return all;
}

/* ---- for people ---- */

static struct libscols_table *new_table(void)
{
	static const struct {
		const char *name;
		double width;
		int flags;
	} columns[N_COLUMNS] = {
		[NAME] = { "NAME", 8, SCOLS_FL_TREE },
		[START] = { "START", 10, SCOLS_FL_RIGHT },
		[SIZE] = { "SIZE", 10, SCOLS_FL_RIGHT },
		[TYPE] = { "TYPE", 16, SCOLS_FL_TRUNC },
		[CONTENT] = { "CONTENT", 10, 0 },
		[USE] = { "USE", 4, SCOLS_FL_RIGHT },
		[LABEL] = { "LABEL", 10, 0 },
		[UUID] = { "UUID", 36, 0 },
	};
	struct libscols_table *t = cli_table("parts");

	/* only a terminal is too narrow for anything */
	int ignore = isatty(STDOUT_FILENO) ? 0 : SCOLS_FL_TRUNC;

	for (unsigned i = 0; t && i < N_COLUMNS; i++)
		scols_table_new_column(t, columns[i].name, columns[i].width,
				       columns[i].flags & ~ignore);
	return t;
}

void parts_set_bytes(struct libscols_line *l, enum parts_column column, uint64_t v)
{
	char text[32];

	scols_line_set_data(l, column, cli_human(text, v));
}

void parts_set_content(struct libscols_line *l, const struct vdisk_probe *p)
{
	char use[16];

	scols_line_set_data(l, CONTENT, p->type[0] ? p->type : p->usage);
	scols_line_set_data(l, LABEL, p->label);
	scols_line_set_data(l, UUID, p->uuid);
	if (p->fs_size && p->fs_free != UINT64_MAX) {
		snprintf(use, sizeof(use), "%u%%", (unsigned)(100 - 100.0 * (double)p->fs_free /
							      (double)p->fs_size + 0.5));
		scols_line_set_data(l, USE, use);
	}
}

static void describe_item(struct libscols_line *l, const struct item *it)
{
	char text[24];

	parts_set_bytes(l, START, it->start);
	parts_set_bytes(l, SIZE, it->length);
	if (!it->part) {
		scols_line_set_data(l, NAME, "(free)");
		return;
	}
	snprintf(text, sizeof(text), "p%u", it->part->number);
	scols_line_set_data(l, NAME, text);
	scols_line_set_data(l, TYPE,
			    it->part->type_name[0] ? it->part->type_name : it->part->type);
	parts_set_content(l, &it->content);
	if (!it->content.label[0] && it->part->name[0])
		scols_line_set_data(l, LABEL, it->part->name);
}

static void print_head(const struct survey *s)
{
	const struct vdisk_parts *t = s->parts;
	char size[32];

	printf("%s: %s, %s", vdisk_name(s->disk), cli_human(size, vdisk_size(s->disk)),
	       vdisk_format(s->disk));
	if (t->scheme[0])
		printf(", %s partition table with %u-byte sectors%s%s%s",
		       strcmp(t->scheme, "gpt") ? "MBR" : t->hybrid ? "hybrid GPT" : "GPT",
		       t->sector_size, t->id[0] ? ", " : "", t->id,
		       t->problem[0] ? "" : ", healthy");
	else
		printf(", no partition table");
	putchar('\n');
	for (size_t i = 0; i < json_array_size(s->problems); i++)
		printf("problem: %s\n", json_string_value(json_array_get(s->problems, i)));
}

static int print_tree(const struct survey *s)
{
	struct libscols_table *t = new_table();
	struct libscols_line *root, *extended = NULL;

	root = t ? scols_table_new_line(t, NULL) : NULL;
	if (!root) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	print_head(s);
	parts_lvm_problems(s->lvm);
	scols_line_set_data(root, NAME, "disk");
	parts_set_bytes(root, START, 0);
	parts_set_bytes(root, SIZE, vdisk_size(s->disk));
	parts_set_content(root, &s->content);
	parts_lvm_tree(s->lvm, t, root, 0);
	for (unsigned i = 0; i < s->n_items; i++) {
		const struct item *it = &s->items[i];
		struct libscols_line *l =
			scols_table_new_line(t, it->logical && extended ? extended : root);

		if (!l)
			break;
		describe_item(l, it);
		if (it->part)
			parts_lvm_tree(s->lvm, t, l, it->part->number);
		if (it->part && it->part->extended)
			extended = l;
	}
	return cli_print_table(t);
}

/* ---- the command ---- */

static int show(const char *locator, json_t *list)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct survey s;
	int status;

	if (steady_look(&disk, locator) != CLI_OK)
		return CLI_FAILED;
	status = survey(&s, disk);
	if (status == CLI_OK && !cli.json)
		status = print_tree(&s);
	else if (status == CLI_OK && json_array_append_new(list, to_json(&s)) < 0) {
		cli_error("%s: cannot be shown as JSON", locator);
		status = CLI_FAILED;
	}
	parts_lvm_free(s.lvm);
	json_decref(s.problems);
	free(s.items);
	free(s.parts);
	return status;
}

/* The disk and all others that were named. */
static int show_with(char **disks, unsigned which, json_t *list)
{
	unsigned given = cli.n_with;
	int status;

	for (unsigned i = 0; disks[i]; i++)
		if (i != which && cli.n_with < CLI_WITH_MAX)
			cli.with[cli.n_with++] = disks[i];
	status = show(disks[which], list);
	cli.n_with = given;
	return status;
}

int cmd_parts(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK...",
		.doc = "Show everything on a disk: partition table, partitions, free places, "
		       "LVM volumes, file systems with their labels.  Of several, which may have "
		       "parts of the same volume groups, one after the other.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, CLI_WITH_MAX);
	json_t *list = json_array();
	int status = CLI_OK;
	unsigned n;

	for (n = 0; args[n]; n++)
		;
	if (cli.n_with + n - 1 > CLI_WITH_MAX)
		cli_usage("more than %u disks at once", CLI_WITH_MAX + 1);
	for (unsigned i = 0; args[i]; i++) {
		if (i && !cli.json)
			putchar('\n');
		if (show_with(args, i, list) != CLI_OK)
			status = CLI_FAILED;
	}
	/* one disk is an object, several are an array of them */
	if (cli.json && status == CLI_OK)
		status = cli_print_json(args[1] ? json_incref(list) :
					json_incref(json_array_get(list, 0)));
	json_decref(list);
	return status;
}
