/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* part_table.c - vdisk part convert, verify, repair, backup, restore: the whole table */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/part.h"
#include "part/part.h"

#define DUMP_MAX (1u << 20)

/* ---- convert ---- */

/* "names, attributes": a list with room for all there can be, 128 partitions too */
struct losses {
	char text[1000];
};

static void lose(struct losses *l, const char *what)
{
	size_t n = strlen(l->text);

	snprintf(l->text + n, sizeof(l->text) - n, "%s%s", n ? ", " : "", what);
}

/* Has the type no word for the other kind of table, so that it becomes "Linux"? */
static bool type_goes(const char *to, const char *from, const char *type)
{
	char there[40], back[40];

	part_type_convert(there, to, type);
	part_type_convert(back, from, there);
	return strcasecmp(back, type) != 0;
}

static void find_losses(struct losses *l, struct vdisk *disk, const struct vdisk_parts *t,
			const char *to)
{
	bool gpt = !strcmp(t->scheme, "gpt"), names = false, attrs = false;
	char types[700] = "";
	uint8_t boot[440];

	for (unsigned i = 0; i < t->count; i++) {
		const struct vdisk_part *p = &t->part[i];
		size_t n = strlen(types);

		names |= p->name[0];
		attrs |= p->attrs;
		if (!p->extended && type_goes(to, t->scheme, p->type))
			snprintf(types + n, sizeof(types) - n, "%sp%u", n ? " " : "the types of ",
				 p->number);
	}
	lose(l, gpt ? "the partitions' UUIDs" : "the partitions' ids (PARTUUID)");
	if (names)
		lose(l, "their names");
	if (attrs)
		lose(l, gpt ? "their attributes" : "which one is active");
	if (types[0])
		lose(l, types);
	if (vdisk_read(disk, boot, sizeof(boot), 0) == 0)
		for (size_t i = 0; i < sizeof(boot); i++)
			if (boot[i]) {
				lose(l, "the boot code");
				return;
			}
}

static bool may_convert(struct vdisk *disk, const char *locator, const char *to)
{
	AUTO_FREE struct vdisk_parts *t = NULL;
	struct losses l = { 0 };

	/* what cannot be converted is refused soon, with the reason */
	if (vdisk_parts_read(&t, disk, NULL) < 0 || !t->scheme[0] || !t->count ||
	    !strcmp(t->scheme, to))
		return true;
	find_losses(&l, disk, t, to);
	return cli_confirm("%s: made %s, the table loses %s; what is in the partitions stays. "
			   "Go on?", locator, !strcmp(to, "gpt") ? "a GPT" : "an MBR", l.text);
}

int part_convert(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK gpt|mbr",
		.doc = "Make the partition table one of the other kind, with the same partitions at "
		       "the same places.  What the other kind has no place for is lost, and named "
		       "before: UUIDs, names, attributes, boot code (the boot loader has to be "
		       "installed again).",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 2, 2);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (strcmp(args[1], "gpt") && strcmp(args[1], "mbr") && strcmp(args[1], "dos"))
		cli_usage("the table is gpt or mbr, not '%s'", args[1]);
	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	if (!may_convert(disk, args[0], !strcmp(args[1], "gpt") ? "gpt" : "dos"))
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
