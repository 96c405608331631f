/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* part_change.c - vdisk part delete, resize, type, name, uuid, flag: one partition */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/part.h"
#include "cli/view.h"

/* ---- "DISK#pN" ---- */

static unsigned number_of(const char *part)
{
	unsigned long n = 0;
	char *end = NULL;

	if (part && part[0] == 'p' && part[1] >= '1' && part[1] <= '9')
		n = strtoul(part + 1, &end, 10);
	return end && !*end && n <= UINT32_MAX ? (unsigned)n : 0;
}

static int find_part(struct part_arg *a, unsigned number)
{
	struct vdisk_error err = { 0 };

	if (vdisk_parts_read(&a->parts, a->disk, &err) < 0)
		return cli_fail(&err);
	for (unsigned i = 0; i < a->parts->count; i++)
		if (a->parts->part[i].number == number)
			a->part = &a->parts->part[i];
	if (a->part)
		return CLI_OK;
	cli_error(a->parts->scheme[0] ? "%s: there is no partition %u" :
		  "%s: there is no partition table, and no partition %u in it", a->locator, number);
	return CLI_FAILED;
}

int part_arg_open(struct part_arg *a, const char *text, uint32_t flags)
{
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	unsigned number;

	if (vdisk_locator_parse(&loc, text, &err) < 0)
		return cli_fail(&err);
	number = loc.path ? 0 : number_of(loc.part);
	free(loc.part);
	loc.part = NULL;
	a->locator = vdisk_locator_format(&loc);
	vdisk_locator_clear(&loc);
	if (!number)
		cli_usage("'%s' should name a partition by its number: DISK#p1", text);
	if (!a->locator) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	if (cli_open(&a->disk, a->locator, flags) < 0)
		return CLI_FAILED;
	return find_part(a, number);
}

void part_arg_close(struct part_arg *a)
{
	cli_close(&a->disk);
	free(a->parts);
	free(a->locator);
	*a = (struct part_arg) { 0 };
}

void part_note_moved(struct vdisk *disk, const struct vdisk_parts *was)
{
	AUTO_FREE struct vdisk_parts *now = NULL;

	if (was->backup_misplaced && vdisk_parts_read(&now, disk, NULL) == 0 &&
	    !now->backup_misplaced)
		cli_note("the disk was grown: the backup table was moved to its end");
}

static int finish(struct part_arg *a, int r, const struct vdisk_error *err)
{
	part_note_moved(a->disk, a->parts);
	return r < 0 ? cli_fail(err) : cli_close(&a->disk);
}

/* ---- delete ---- */

static bool may_delete(const struct part_arg *a)
{
	struct vdisk_probe probe = { 0 };
	struct vdisk *d = NULL;
	char size[32];

	if (a->part->extended)
		return cli_confirm("%s#p%u is an extended partition; the logical ones in it go too",
				   a->locator, a->part->number);
	if (vdisk_open_window(&d, a->disk, a->part->offset, a->part->length, NULL) == 0)
		vdisk_probe(d, &probe, NULL);
	vdisk_close(d, NULL);
	if (!probe.type[0] && !probe.usage[0])
		return true;
	return cli_confirm("%s#p%u (%s) holds %s%s%s%s", a->locator, a->part->number,
			   cli_human(size, a->part->length), probe.type[0] ? probe.type : "data",
			   probe.label[0] ? " '" : "", probe.label, probe.label[0] ? "'" : "");
}

int part_delete(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK#pN",
		.doc = "Delete a partition.  What it held stays on the disk, but is no longer "
		       "found.  Logical partitions behind a deleted one get lower numbers.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	AUTO_PART struct part_arg a = { 0 };
	struct vdisk_error err = { 0 };

	if (part_arg_open(&a, args[0], VDISK_OPEN_WRITE) != CLI_OK || !may_delete(&a))
		return CLI_FAILED;
	return finish(&a, vdisk_parts_delete(a.disk, a.part->number, &err), &err);
}

/* ---- resize ---- */

struct resize_args {
	bool fs;
};

enum { OPT_FS = 0x21000 };

static error_t parse_resize(int key, char *arg UNUSED, struct argp_state *state)
{
	struct resize_args *r = state->input;

	if (key == OPT_FS)
		r->fs = true;
	/* "-1G": how much less, not an option */
	return key == OPT_FS ? 0 : ARGP_ERR_UNKNOWN;
}

static uint64_t wanted_length(const char *text, uint64_t now)
{
	uint64_t n, sum;

	if (!strcmp(text, "100%"))
		return UINT64_MAX;
	n = cli_size("the size", *text == '+' || *text == '-' ? text + 1 : text);
	if (*text == '-') {
		if (n >= now)
			cli_usage("the partition has only %" PRIu64 " bytes", now);
		return now - n;
	}
	if (*text != '+')
		return n;
	if (!vd_add(now, n, &sum))
		cli_usage("'%s' is too much", text);
	return sum;
}

/*
 * Run one of e2fsprogs on the partition; @last may be NULL.  Its exit status, or -1.  What it
 * says is for when it fails; resize2fs complains that the partition is no file to be cut.
 */
static int run_tool(const struct part_arg *a, const char *const tool[3], const char *last)
{
	const struct vdisk_part *p = a->part;
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;
	AUTO_FREE char *name = NULL;
	char *argv[6] = { NULL };
	unsigned n = 0;
	int r;

	for (unsigned i = 0; i < 3 && tool[i]; i++)
		argv[n++] = (char *)(uintptr_t)tool[i];
	argv[n++] = cli_view;
	argv[n++] = (char *)(uintptr_t)last;
	if (asprintf(&name, "%s#p%u", a->locator, p->number) < 0 ||
	    vdisk_open_window(&d, a->disk, p->offset, p->length, &err) < 0) {
		cli_fail(&err);
		return -1;
	}
	r = cli_view_run_quiet(d, name, argv);
	return cli_close(&d) == CLI_OK ? r : -1;
}

/* Bring the ext file system in it to @length bytes, or to the partition's size (0). */
static int resize_ext(const struct part_arg *a, uint64_t length)
{
	static const char *const check[3] = { "e2fsck", "-fp" }, *const tool[3] = { "resize2fs" };
	char sectors[32];
	int r = run_tool(a, check, NULL);

	if (r < 0 || r > 1) {
		cli_error("e2fsck is not content with partition %u (status %d): repair it first, "
			  "with 'vdisk fsck'", a->part->number, r);
		return CLI_FAILED;
	}
	snprintf(sectors, sizeof(sectors), "%" PRIu64 "s", length / 512);
	r = run_tool(a, tool, length ? sectors : NULL);
	if (r == 0)
		return CLI_OK;
	cli_error("resize2fs ended with status %d", r);
	return CLI_FAILED;
}

static bool holds_ext(const struct part_arg *a)
{
	struct vdisk_probe probe = { 0 };
	struct vdisk *d = NULL;

	if (vdisk_open_window(&d, a->disk, a->part->offset, a->part->length, NULL) == 0)
		vdisk_probe(d, &probe, NULL);
	vdisk_close(d, NULL);
	if (!strncmp(probe.type, "ext", 3))
		return true;
	cli_error("%s#p%u holds %s: --fs is for ext2, ext3 and ext4", a->locator, a->part->number,
		  probe.type[0] ? probe.type : "no file system");
	return false;
}

/* Would what is in the partition be cut off? */
static bool may_shrink(const struct part_arg *a)
{
	struct vdisk_probe probe = { 0 };
	struct vdisk *d = NULL;

	if (a->part->extended)
		return true;
	if (vdisk_open_window(&d, a->disk, a->part->offset, a->part->length, NULL) == 0)
		vdisk_probe(d, &probe, NULL);
	vdisk_close(d, NULL);
	return !probe.type[0] ||
	       cli_confirm("%s#p%u holds %s, whose end may be cut off (--fs shrinks ext with it)",
			   a->locator, a->part->number, probe.type);
}

static int resize(struct part_arg *a, uint64_t length, bool fs)
{
	uint64_t sector = a->parts->sector_size;
	bool shrink = length < a->part->length;
	struct vdisk_error err = { 0 };
	unsigned number = a->part->number;
	int r;

	if (fs && !holds_ext(a))
		return CLI_FAILED;
	if (shrink && length % sector)
		length += sector - length % sector;
	if (shrink && !(fs ? resize_ext(a, length) == CLI_OK : may_shrink(a)))
		return CLI_FAILED;
	r = vdisk_parts_resize(a->disk, number, length, &err);
	part_note_moved(a->disk, a->parts);
	if (r < 0)
		return cli_fail(&err);
	free(a->parts);
	a->parts = NULL;
	a->part = NULL;
	if (find_part(a, number) != CLI_OK)
		return CLI_FAILED;
	return fs && !shrink ? resize_ext(a, 0) : CLI_OK;
}

/* argp takes "-1G" for options: give it the size behind a "--". */
static char **protect_size(int *argc, char **argv)
{
	char **v = calloc((size_t)*argc + 2, sizeof(char *));
	int n = 0, last = *argc - 1;

	if (!v || *argc < 3 || argv[last][0] != '-' || argv[last][1] < '0' || argv[last][1] > '9') {
		free(v);
		return argv;
	}
	for (int i = 0; i < last; i++)
		if (strcmp(argv[i], "--") != 0)
			v[n++] = argv[i];
	/* options may follow the disk, so "--" goes before all that is no option */
	v[n++] = (char *)(uintptr_t)"--";
	v[n++] = argv[last];
	*argc = n;
	return v;
}

int part_resize(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "fs", OPT_FS, NULL, 0, "Grow or shrink the ext file system in it, too", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_resize, .children = cli_disk,
		.args_doc = "DISK#pN [+|-]SIZE|100%",
		.doc = "Move the end of a partition: to a size, by a size, or (100%) up to "
		       "whatever comes next.",
	};
	struct resize_args r = { 0 };
	char **args, **safe = protect_size(&argc, argv);
	AUTO_PART struct part_arg a = { 0 };
	int status;

	args = cli_parse(&argp, argc, safe, &r, 2, 2);
	if (part_arg_open(&a, args[0], VDISK_OPEN_WRITE) != CLI_OK)
		return CLI_FAILED;
	status = resize(&a, wanted_length(args[1], a.part->length), r.fs);
	if (safe != argv)
		free(safe);
	return status == CLI_OK ? cli_close(&a.disk) : status;
}

/* ---- type, name, uuid ---- */

static int show(const char *key, const char *value)
{
	if (cli.json)
		return cli_print_json(json_pack("{s:s}", key, value));
	puts(value);
	return CLI_OK;
}

int part_type(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK#pN [TYPE]",
		.doc = "Show or change the type of a partition: a name (linux, swap, esp, lvm, raid, "
		       "home, boot, root, data, linux-lvm ..., or as fdisk lists them), an MBR byte "
		       "such as 8e, or a GUID.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 2);
	struct vdisk_part_change c = { .size = sizeof(c), .type = args[1] };
	AUTO_PART struct part_arg a = { 0 };
	struct vdisk_error err = { 0 };

	if (part_arg_open(&a, args[0], args[1] ? VDISK_OPEN_WRITE : 0) != CLI_OK)
		return CLI_FAILED;
	if (args[1])
		return finish(&a, vdisk_parts_change(a.disk, a.part->number, &c, &err), &err);
	return cli.json ? cli_print_json(json_pack("{s:s, s:s}", "type", a.part->type, "type-name",
						   a.part->type_name)) :
	       show("type", a.part->type);
}

int part_name(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK#pN [NAME]",
		.doc = "Show or change the name of a partition in a GPT.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 2);
	struct vdisk_part_change c = { .size = sizeof(c), .name = args[1] };
	AUTO_PART struct part_arg a = { 0 };
	struct vdisk_error err = { 0 };

	if (part_arg_open(&a, args[0], args[1] ? VDISK_OPEN_WRITE : 0) != CLI_OK)
		return CLI_FAILED;
	if (args[1])
		return finish(&a, vdisk_parts_change(a.disk, a.part->number, &c, &err), &err);
	return show("name", a.part->name);
}

static int table_uuid(const char *locator, const char *id)
{
	AUTO_FREE struct vdisk_parts *parts = NULL;
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open(&disk, locator, id ? VDISK_OPEN_WRITE : 0) < 0)
		return CLI_FAILED;
	if (id && vdisk_parts_set_id(disk, id, &err) < 0)
		return cli_fail(&err);
	if (id)
		return cli_close(&disk);
	if (vdisk_parts_read(&parts, disk, &err) < 0)
		return cli_fail(&err);
	if (parts->scheme[0])
		return show("id", parts->id);
	cli_error("%s: there is no partition table", locator);
	return CLI_FAILED;
}

int part_uuid(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK[#pN] [UUID|random]",
		.doc = "Show or change the UUID of a partition in a GPT, or (without #pN) the id of "
		       "the table: a GUID, or the 8 hexadecimal digits of an MBR.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 2);
	struct vdisk_part_change c = { .size = sizeof(c), .uuid = args[1] };
	AUTO_PART struct part_arg a = { 0 };
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	bool part;

	if (vdisk_locator_parse(&loc, args[0], &err) < 0)
		return cli_fail(&err);
	part = loc.part;
	vdisk_locator_clear(&loc);
	if (!part)
		return table_uuid(args[0], args[1]);
	if (part_arg_open(&a, args[0], args[1] ? VDISK_OPEN_WRITE : 0) != CLI_OK)
		return CLI_FAILED;
	if (args[1])
		return finish(&a, vdisk_parts_change(a.disk, a.part->number, &c, &err), &err);
	return show("uuid", a.part->uuid);
}

/* ---- flags ---- */

/* UEFI 2.10, table 5.7, and the bits that types of Linux and Windows give a meaning. */
static const struct {
	const char *name;
	bool gpt;
	uint64_t bit;
} flags[] = {
	{ "active", false, 0x80 },
	{ "boot", false, 0x80 },
	{ "required", true, 1ull << 0 },
	{ "no-block-io", true, 1ull << 1 },
	{ "legacy-boot", true, 1ull << 2 },
	{ "grow-file-system", true, 1ull << 59 },
	{ "read-only", true, 1ull << 60 },
	{ "shadow-copy", true, 1ull << 61 },
	{ "hidden", true, 1ull << 62 },
	{ "no-auto", true, 1ull << 63 },
};

static uint64_t flag_bit(const char *name, bool gpt)
{
	char *end;
	unsigned long bit;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (!strcmp(flags[i].name, name) && flags[i].gpt == gpt)
			return flags[i].bit;
	bit = strtoul(name, &end, 10);
	if (gpt && *name >= '0' && *name <= '9' && !*end && bit < 64)
		return 1ull << bit;
	if (!gpt)
		cli_usage("'%s' is no flag of an MBR, which has only 'active'", name);
	cli_usage("'%s' is no flag of a GPT: required, no-block-io, legacy-boot, grow-file-system, "
		  "read-only, shadow-copy, hidden, no-auto, or the number of a bit", name);
}

static int show_flags(const struct part_arg *a, bool gpt)
{
	uint64_t left = gpt ? a->part->attrs : a->part->attrs & 0x80;
	json_t *list = json_array();
	char number[24];

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].gpt == gpt && left & flags[i].bit) {
			json_array_append_new(list, json_string(flags[i].name));
			left &= ~flags[i].bit;
		}
	for (unsigned i = 0; i < 64; i++)
		if (left >> i & 1) {
			snprintf(number, sizeof(number), "%u", i);
			json_array_append_new(list, json_string(number));
		}
	if (cli.json)
		return cli_print_json(json_pack("{s:o}", "flags", list));
	for (size_t i = 0; i < json_array_size(list); i++)
		puts(json_string_value(json_array_get(list, i)));
	json_decref(list);
	return CLI_OK;
}

int part_flag(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK#pN [FLAG [on|off]]",
		.doc = "Show or change the flags of a partition.  In an MBR: active.  In a GPT: "
		       "required, no-block-io, legacy-boot, grow-file-system, read-only, "
		       "shadow-copy, hidden, no-auto, or the number of a bit.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 3);
	struct vdisk_part_change c = { .size = sizeof(c) };
	const char *state = args[1] && args[2] ? args[2] : "on";
	AUTO_PART struct part_arg a = { 0 };
	struct vdisk_error err = { 0 };
	bool gpt;

	if (strcmp(state, "on") != 0 && strcmp(state, "off") != 0)
		cli_usage("a flag is on or off, not '%s'", state);
	if (part_arg_open(&a, args[0], args[1] ? VDISK_OPEN_WRITE : 0) != CLI_OK)
		return CLI_FAILED;
	gpt = !strcmp(a.parts->scheme, "gpt");
	if (!args[1])
		return show_flags(&a, gpt);
	if (!strcmp(state, "on"))
		c.set_attrs = flag_bit(args[1], gpt);
	else
		c.clear_attrs = flag_bit(args[1], gpt);
	return finish(&a, vdisk_parts_change(a.disk, a.part->number, &c, &err), &err);
}
