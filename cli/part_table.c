/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* part_table.c - vdisk part convert, verify, repair, backup, restore: the whole table */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/part.h"

#define DUMP_MAX (1u << 20)

/* ---- convert ---- */

int part_convert(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK gpt|mbr",
		.doc = "Make the partition table one of the other kind, with the same partitions at "
		       "the same places.  Boot code in front of them is lost: the boot loader has "
		       "to be installed again.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 2, 2);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (strcmp(args[1], "gpt") && strcmp(args[1], "mbr") && strcmp(args[1], "dos"))
		cli_usage("the table is gpt or mbr, not '%s'", args[1]);
	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	if (vdisk_parts_convert(disk, args[1], &err) < 0)
		return cli_fail(&err);
	return cli_close(&disk);
}

/* ---- verify, repair ---- */

static void collect(void *arg, const char *text)
{
	if (cli.json)
		json_array_append_new(arg, json_string(text));
	else
		puts(text);
}

int part_verify(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK",
		.doc = "Say what is wrong with a partition table; the exit status is 3 if "
		       "anything is.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	json_t *problems = json_array();
	int n;

	if (cli_open(&disk, args[0], 0) < 0) {
		json_decref(problems);
		return CLI_FAILED;
	}
	n = vdisk_parts_verify(disk, collect, problems, &err);
	if (n >= 0 && cli.json)
		cli_print_json(json_pack("{s:O}", "problems", problems));
	json_decref(problems);
	if (n < 0)
		return cli_fail(&err);
	if (n == 0 && !cli.json && !cli.quiet)
		puts("healthy");
	return n ? CLI_DIFFERENT : CLI_OK;
}

int part_repair(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK",
		.doc = "Repair a partition table: each copy of a GPT from the other, the backup at "
		       "the end of a disk that was resized, the protective MBR; a chain of logical "
		       "partitions that leads astray is cut.  The exit status is 3 if something "
		       "is left that a person has to decide.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	json_t *done = json_array(), *left = json_array();
	int n, rest = 0;

	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0) {
		n = -EIO;
	} else {
		n = vdisk_parts_repair(disk, collect, done, &err);
		if (n == 0 && !cli.json && !cli.quiet)
			puts("nothing to repair");
		if (n >= 0)
			rest = vdisk_parts_verify(disk, collect, left, &err);
		if (n < 0 || rest < 0)
			cli_fail(&err);
		else if (cli.json)
			cli_print_json(json_pack("{s:O, s:O}", "repaired", done, "problems", left));
	}
	json_decref(done);
	json_decref(left);
	if (n < 0 || rest < 0 || cli_close(&disk) != CLI_OK)
		return CLI_FAILED;
	return rest ? CLI_DIFFERENT : CLI_OK;
}

/* ---- backup, restore ---- */

int part_backup(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK",
		.doc = "Print a partition table in the syntax of sfdisk --dump, for 'part restore' "
		       "and for sfdisk.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	AUTO_FREE char *text = NULL;

	if (cli_open(&disk, args[0], 0) < 0)
		return CLI_FAILED;
	if (vdisk_parts_dump(disk, &text, &err) < 0)
		return cli_fail(&err);
	fputs(text, stdout);
	return CLI_OK;
}

/* All of a file, or of standard input for NULL; NULL after printing why not. */
static char *read_dump(const char *path)
{
	FILE *f = path && strcmp(path, "-") != 0 ? fopen(path, "re") : stdin;
	char *buf = f ? malloc(DUMP_MAX + 1) : NULL;
	size_t n = buf ? fread(buf, 1, DUMP_MAX + 1, f) : 0;
	bool bad = !f || !buf || ferror(f);

	if (bad)
		cli_error("%s: %m", path ? path : "standard input");
	else if (n > DUMP_MAX)
		cli_error("%s: too long for a partition table", path ? path : "standard input");
	if (f && f != stdin)
		fclose(f);
	if (bad || n > DUMP_MAX) {
		free(buf);
		return NULL;
	}
	buf[n] = '\0';
	return buf;
}

int part_restore(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK [FILE]",
		.doc = "Write the partition table that a dump (of 'part backup', or sfdisk --dump) "
		       "describes; read from standard input without FILE.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 2);
	AUTO_FREE struct vdisk_parts *old = NULL;
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	AUTO_FREE char *text = NULL;

	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	text = read_dump(args[1]);
	if (!text)
		return CLI_FAILED;
	if (vdisk_parts_read(&old, disk, &err) < 0)
		return cli_fail(&err);
	if (old->count && !cli_confirm("%s has a partition table with %u partition%s, which "
				       "will be lost", args[0], old->count,
				       old->count == 1 ? "" : "s"))
		return CLI_FAILED;
	if (vdisk_parts_restore(disk, text, &err) < 0)
		return cli_fail(&err);
	return cli_close(&disk);
}
