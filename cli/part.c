/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* part.c - vdisk part: make and change partition tables */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/part.h"

/* ---- init ---- */

enum { OPT_START = 0x20000, OPT_SIZE, OPT_TYPE, OPT_NAME };

/* What would be lost, in words; "" for nothing. */
static int describe_contents(char *out, size_t size, struct vdisk *disk)
{
	struct vdisk_error err = { 0 };
	AUTO_FREE struct vdisk_parts *parts = NULL;
	struct vdisk_probe probe;

	*out = '\0';
	if (vdisk_parts_read(&parts, disk, &err) < 0 || vdisk_probe(disk, &probe, &err) < 0)
		return cli_fail(&err);
	if (parts->scheme[0])
		snprintf(out, size, "a partition table with %u partition%s", parts->count,
			 parts->count == 1 ? "" : "s");
	else if (probe.type[0] || probe.usage[0])
		snprintf(out, size, "%s%s%s%s", probe.type[0] ? probe.type : "data",
			 probe.label[0] ? " '" : "", probe.label, probe.label[0] ? "'" : "");
	return CLI_OK;
}

static int part_init(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK gpt|mbr",
		.doc = "Give a disk an empty partition table.  What it held is lost.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 2, 2);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	char contents[400];

	if (strcmp(args[1], "gpt") && strcmp(args[1], "mbr") && strcmp(args[1], "dos"))
		cli_usage("the table is gpt or mbr, not '%s'", args[1]);
	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0 ||
	    describe_contents(contents, sizeof(contents), disk) != CLI_OK)
		return CLI_FAILED;
	if (contents[0] && !cli_confirm("%s holds %s, which will be lost", args[0], contents))
		return CLI_FAILED;
	if (vdisk_parts_init(disk, args[1], &err) < 0)
		return cli_fail(&err);
	return cli_close(&disk);
}

/* ---- add ---- */

static error_t parse_add(int key, char *arg, struct argp_state *state)
{
	struct vdisk_part_add_opts *o = state->input;

	switch (key) {
	case OPT_START:
		o->start = cli_size("--start", arg);
		return 0;
	case OPT_SIZE:
		o->length = strcmp(arg, "100%") ? cli_size("--size", arg) : 0;
		if (!o->length && strcmp(arg, "100%"))
			cli_usage("--size: a partition has at least one sector");
		return 0;
	case OPT_TYPE:
		o->type = arg;
		return 0;
	case OPT_NAME:
		o->name = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int print_added(struct vdisk *disk, unsigned number)
{
	AUTO_FREE struct vdisk_parts *parts = NULL;
	struct vdisk_error err = { 0 };

	if (!cli.json) {
		printf("p%u\n", number);
		return CLI_OK;
	}
	if (vdisk_parts_read(&parts, disk, &err) < 0)
		return cli_fail(&err);
	for (unsigned i = 0; i < parts->count; i++) {
		const struct vdisk_part *p = &parts->part[i];

		if (p->number == number)
			return cli_print_json(json_pack("{s:I, s:I, s:I, s:s, s:s}",
				"number", (json_int_t)number, "start", (json_int_t)p->offset,
				"size", (json_int_t)p->length, "type", p->type,
				"uuid", p->uuid));
	}
	cli_error("partition %u is not there after it was added", number);
	return CLI_FAILED;
}

static int part_add(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "start", OPT_START, "S", 0,
		  "Where it begins, rounded up to 1 MiB (default: the first place)", 0 },
		{ "size", OPT_SIZE, "S|100%", 0, "Its size (default: all that is free there)", 0 },
		{ "type", OPT_TYPE, "T", 0, "linux (the default), swap, esp, lvm, raid, home, boot, "
		  "root, data, an MBR byte such as 83, or a GUID", 0 },
		{ "name", OPT_NAME, "N", 0, "Its name in a GPT", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_add, .children = cli_disk,
		.args_doc = "DISK", .doc = "Add a partition; prints which it became, as p1.",
	};
	struct vdisk_part_add_opts opts = { .size = sizeof(opts) };
	char **args = cli_parse(&argp, argc, argv, &opts, 1, 1);
	AUTO_FREE struct vdisk_parts *before = NULL;
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	int number, status;

	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	if (vdisk_parts_read(&before, disk, &err) < 0)
		return cli_fail(&err);
	number = vdisk_parts_add(disk, &opts, &err);
	part_note_moved(disk, before);
	if (number < 0)
		return cli_fail(&err);
	status = print_added(disk, (unsigned)number);
	return cli_close(&disk) == CLI_OK ? status : CLI_FAILED;
}

/* ---- the family ---- */

static const struct cli_command subcommands[] = {
	{ "init", part_init, "Give a disk an empty partition table" },
	{ "add", part_add, "Add a partition" },
	{ "delete", part_delete, "Delete a partition" },
	{ "resize", part_resize, "Move the end of a partition (--fs: with its ext file system)" },
	{ "type", part_type, "Show or change the type of a partition" },
	{ "name", part_name, "Show or change its name" },
	{ "uuid", part_uuid, "Show or change its UUID, or the id of the table" },
	{ "flag", part_flag, "Show or change its flags" },
	{ "convert", part_convert, "Make an MBR a GPT, or a GPT an MBR" },
	{ "verify", part_verify, "Say what is wrong with a table" },
	{ "repair", part_repair, "Repair a table, from its backup if need be" },
	{ "backup", part_backup, "Print a table as sfdisk does" },
	{ "restore", part_restore, "Write a table that was printed" },
};

int cmd_part(int argc, char **argv)
{
	static const struct cli_family family = {
		"part", "COMMAND [OPTION...] DISK [ARGUMENT...]", subcommands, ARRAY_SIZE(subcommands),
	};

	return cli_run_family(&family, argc, argv);
}
