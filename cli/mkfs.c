/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mkfs.c - mkfs, fsck: the real tools, on a volume of any disk in any format */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/view.h"

#define MAX_ARGS 48
#define OLD_SIGNATURES (128u << 10)

struct mkfs_args {
	const char *type, *label, *uuid;
	struct cli_options options;
};

/* "-o" by names that say what they mean, as options of mke2fs. */
static const struct {
	const char *key, *flag;
} ext_options[] = {
	{ "block-size", "-b" }, { "inode-size", "-I" }, { "inodes", "-N" },
	{ "inode-ratio", "-i" }, { "reserved", "-m" }, { "features", "-O" },
	{ "extended", "-E" }, { "usage", "-T" }, { "journal", "-J" }, { "cluster-size", "-C" },
};

static const struct argp_option mkfs_options[] = {
	{ "type", 't', "TYPE", 0, "ext2, ext3, ext4 (the default), swap, xfs, btrfs, "
	  "vfat, fat12, fat16, fat32, exfat or ntfs, by their own tools", 0 },
	{ "label", 'L', "LABEL", 0, "Its label", 0 },
	{ "uuid", 'U', "UUID", 0, "Its UUID", 0 },
	{ "options", 'o', "K=V,...", 0, "For ext: block-size, inode-size, inodes, inode-ratio, "
	  "reserved, features, extended, usage, journal, cluster-size", 0 },
	{ 0 },
};

static error_t mkfs_parse(int key, char *arg, struct argp_state *state)
{
	struct mkfs_args *a = state->input;

	switch (key) {
	case 't':
		a->type = arg;
		return 0;
	case 'L':
		a->label = arg;
		return 0;
	case 'U':
		a->uuid = arg;
		return 0;
	case 'o':
		cli_add_options(&a->options, arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

struct command {
	char *v[MAX_ARGS];
	unsigned n;
};

static void add(struct command *c, const char *flag, const char *value)
{
	/* posix_spawn() takes them as char *, and does not write */
	if (c->n + 3 >= MAX_ARGS)
		cli_usage("too many options");
	if (flag)
		c->v[c->n++] = (char *)(uintptr_t)flag;
	if (value)
		c->v[c->n++] = (char *)(uintptr_t)value;
}

static void ext_command(struct command *c, const struct mkfs_args *a)
{
	add(c, "mke2fs", "-q");
	add(c, "-F", NULL);	/* whether it may be lost was asked already */
	add(c, "-t", a->type);
	if (a->label)
		add(c, "-L", a->label);
	if (a->uuid)
		add(c, "-U", a->uuid);
	for (unsigned i = 0; i < a->options.n; i++) {
		size_t k;

		for (k = 0; k < ARRAY_SIZE(ext_options); k++)
			if (!strcmp(ext_options[k].key, a->options.list[i].key))
				break;
		if (k == ARRAY_SIZE(ext_options))
			cli_usage("no option '%s' for %s", a->options.list[i].key, a->type);
		add(c, ext_options[k].flag, a->options.list[i].value);
	}
	add(c, NULL, cli_view);
}

/* What the other tools call it.  Whether it may be lost was asked already: "force". */
static const struct other {
	const char *type, *program;
	const char *force[3];
	const char *label, *uuid;	/* NULL: it takes none */
} others[] = {
	{ "xfs", "mkfs.xfs", { "-q", "-f" }, "-L", "-m" },
	{ "btrfs", "mkfs.btrfs", { "-q", "-f" }, "-L", "-U" },
	{ "vfat", "mkfs.fat", { NULL }, "-n", "-i" },
	{ "fat", "mkfs.fat", { NULL }, "-n", "-i" },
	{ "fat12", "mkfs.fat", { "-F", "12" }, "-n", "-i" },
	{ "fat16", "mkfs.fat", { "-F", "16" }, "-n", "-i" },
	{ "fat32", "mkfs.fat", { "-F", "32" }, "-n", "-i" },
	{ "exfat", "mkfs.exfat", { NULL }, "-L", NULL },
	{ "ntfs", "mkfs.ntfs", { "-q", "-Q", "-F" }, "-L", NULL },
};

/* As the tool wants it: xfs has "uuid=" before it, FAT no hyphen in its serial number. */
static void other_uuid(struct command *c, const struct other *o, const char *uuid, char *text,
		       size_t size)
{
	size_t n = 0;

	if (!strcmp(o->uuid, "-m")) {
		snprintf(text, size, "uuid=%s", uuid);
	} else {
		for (const char *p = uuid; *p && n + 1 < size; p++)
			if (*p != '-' || strcmp(o->uuid, "-i") != 0)
				text[n++] = *p;
		text[n] = '\0';
	}
	add(c, o->uuid, text);
}

static void other_command(struct command *c, const struct mkfs_args *a, char text[64])
{
	const struct other *o = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (!strcmp(others[i].type, a->type))
			o = &others[i];
	if (!o)
		cli_usage("'%s' is no type of file system that can be made here", a->type);
	if (a->options.n)
		cli_usage("options are for ext file systems");
	if (a->uuid && !o->uuid)
		cli_usage("%s takes no UUID", a->type);
	add(c, o->program, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(o->force) && o->force[i]; i++)
		add(c, o->force[i], NULL);
	if (a->label)
		add(c, o->label, a->label);
	if (a->uuid && strcmp(a->uuid, "random") != 0)	/* which is what they do */
		other_uuid(c, o, a->uuid, text, 64);
	add(c, NULL, cli_view);
}

/* Whatever is recognised on the volume is somebody's. */
static bool may_format(struct vdisk *disk, const char *locator)
{
	AUTO_FREE struct vdisk_parts *parts = NULL;
	struct vdisk_probe probe = { 0 };

	if (vdisk_probe(disk, &probe, NULL) == 0 && (*probe.type || *probe.usage))
		return cli_confirm("%s holds %s%s%s; all of it will be lost. Go on?", locator,
				   *probe.type ? probe.type : "data", *probe.label ? " " : "", probe.label);
	if (vdisk_parts_read(&parts, disk, NULL) == 0 && parts->count)
		return cli_confirm("%s has a partition table (%u partitions); all of it will be lost. Go on?",
				   locator, parts->count);
	return true;
}

/*
 * Not all tools remove what was there: a btrfs would still be seen 64 KiB behind the start of an
 * NTFS, and a RAID array's superblock at the end of anything.
 */
static int wipe(struct vdisk *disk)
{
	uint64_t size = vdisk_size(disk), end = MIN(size, (uint64_t)OLD_SIGNATURES);
	int r = vdisk_zero(disk, 0, end, 0);

	if (r == 0)
		r = vdisk_zero(disk, size - end, end, 0);
	if (r < 0)
		cli_error("%s: %s", vdisk_name(disk), strerror(-r));
	return r < 0 ? CLI_FAILED : CLI_OK;
}

int cmd_mkfs(int argc, char **argv)
{
	static const struct argp argp = {
		.options = mkfs_options, .parser = mkfs_parse, .children = cli_disk,
		.args_doc = "DISK[#PART]",
		.doc = "Make a file system, or swap space, on a volume of a disk.",
	};
	struct mkfs_args a = { .type = "ext4" };
	char **args = cli_parse(&argp, argc, argv, &a, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	struct command c = { 0 };
	char text[64];
	int r;

	if (!strncmp(a.type, "ext", 3))
		ext_command(&c, &a);
	else if (strcmp(a.type, "swap") != 0)
		other_command(&c, &a, text);
	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	/* before what was there goes */
	if (c.n && !cli_view_has(c.v[0])) {
		cli_error("%s: %s (the program for this is not installed)", c.v[0], strerror(ENOENT));
		return CLI_FAILED;
	}
	if (!may_format(disk, args[0]) || wipe(disk) != CLI_OK)
		return CLI_FAILED;
	if (c.n) {
		r = cli_view_run_quiet(disk, args[0], c.v);
		if (r > 0)
			cli_error("%s ended with status %d", c.v[0], r);
	} else {
		r = vdisk_make_swap(disk, a.label, a.uuid, &err);
		if (r < 0)
			cli_fail(&err);
	}
	cli_free_options(&a.options);
	return cli_close(&disk) == CLI_OK && r == 0 ? CLI_OK : CLI_FAILED;
}

/* ---- fsck ---- */

struct fsck_args {
	char answer;		/* 'n', 'p', 'y' or 0 */
	bool force;
};

static const struct argp_option fsck_options[] = {
	{ "no", 'n', NULL, 0, "Only look; the disk is opened read-only", 0 },
	{ "preen", 'p', NULL, 0, "Repair what is safe to repair", 0 },
	{ "assume-yes", 'y', NULL, 0, "Repair everything", 0 },
	{ "force", 'F', NULL, 0, "Check even if it seems clean", 0 },
	{ 0 },
};

static error_t fsck_parse(int key, char *arg UNUSED, struct argp_state *state)
{
	struct fsck_args *a = state->input;

	switch (key) {
	case 'n':
	case 'p':
	case 'y':
		if (a->answer && a->answer != key)
			cli_usage("-n, -p and -y exclude each other");
		a->answer = (char)key;
		return 0;
	case 'F':
		a->force = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

struct only {
	struct vdisk *volume;	/* owned: the first with a file system */
	unsigned n;
};

static int count_file_systems(void *arg, const struct vdisk_volume *volume)
{
	struct only *only = arg;
	struct vdisk_probe probe = { 0 };

	if (vdisk_probe(volume->disk, &probe, NULL) == 0 && !strcmp(probe.usage, "filesystem") &&
	    only->n++ == 0)
		only->volume = vdisk_ref(volume->disk);
	return 0;
}

/*
 * The volume that is meant: the disk itself if it is not divided, the only
 * volume that has a file system, else the guest's root.  Journals are left to the tool.
 */
static int fsck_volume(struct vdisk **out, struct vdisk *disk, struct vdisk_error *err)
{
	AUTO_FREE struct vdisk_parts *parts = NULL;
	struct only only = { .n = 0 };
	int r = vdisk_parts_read(&parts, disk, err);

	if (r == 0)
		r = vdisk_each_volume(disk, count_file_systems, &only, err);
	if (r == 0 && (only.n == 1 || (only.n == 0 && !parts->count))) {
		*out = only.n ? only.volume : vdisk_ref(disk);
		return 0;
	}
	vdisk_close(only.volume, NULL);
	return r < 0 ? r : vdisk_open_root(out, disk, err);
}

/*
 * Which program checks what, and how it is told "only look", "repair what is
 * safe" and "repair everything".  NULL: it cannot be told that.
 */
static const struct checker {
	const char *type;	/* or how it begins */
	const char *program, *sub;
	const char *no, *preen, *yes, *force, *always;
} checkers[] = {
	{ "ext", "e2fsck", NULL, "-n", "-p", "-y", "-f", NULL },
	{ "vfat", "fsck.fat", NULL, "-n", "-a", "-a", NULL, NULL },
	{ "exfat", "fsck.exfat", NULL, "-n", "-p", "-y", NULL, NULL },
	{ "xfs", "xfs_repair", NULL, "-n", NULL, "", NULL, "-f" },
	{ "btrfs", "btrfs", "check", "--readonly", "--readonly", "--repair", "--force", NULL },
	{ "ntfs", "ntfsfix", NULL, "-n", "", "-d", NULL, NULL },
};

static const struct checker *find_checker(const char *type)
{
	for (size_t i = 0; i < ARRAY_SIZE(checkers); i++)
		if (!strncmp(checkers[i].type, type, strlen(checkers[i].type)))
			return &checkers[i];
	return NULL;
}

static void fsck_command(struct command *c, const struct checker *k, const struct fsck_args *a)
{
	const char *answer = a->answer == 'n' ? k->no : a->answer == 'p' ? k->preen :
			     a->answer == 'y' ? k->yes : "";

	if (!answer) {	/* XFS replays its log when it is mounted, and knows no small repairs */
		cli_note("%s cannot repair only what is safe; it only looks", k->program);
		answer = k->no;
	}
	add(c, k->program, k->sub);
	if (k->always)
		add(c, k->always, NULL);
	if (a->force && k->force)
		add(c, k->force, NULL);
	if (*answer)
		add(c, answer, NULL);
	/* e2fsck shows how far it is, where somebody looks */
	if (!strcmp(k->program, "e2fsck") && !cli.quiet && isatty(STDOUT_FILENO))
		add(c, "-C0", NULL);
	add(c, NULL, cli_view);
}

int cmd_fsck(int argc, char **argv)
{
	static const struct argp argp = {
		.options = fsck_options, .parser = fsck_parse, .children = cli_disk,
		.args_doc = "DISK[#PART]",
		.doc = "Check the file system on a volume of a disk with the program that is made for "
		       "it: e2fsck, fsck.fat, fsck.exfat, xfs_repair, btrfs check or ntfsfix.  The "
		       "exit status is that program's; of e2fsck: 0 clean, 1 repaired, 4 errors "
		       "left, 8 and more could not be checked.",
	};
	struct fsck_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL, *volume = NULL;
	struct vdisk_error err = { 0 };
	struct vdisk_probe probe = { 0 };
	const struct checker *checker;
	struct command c = { 0 };
	int r;

	if (cli_open(&disk, args[0], a.answer == 'n' ? 0 : VDISK_OPEN_WRITE) < 0)
		return 8;
	if (fsck_volume(&volume, disk, &err) < 0 || vdisk_probe(volume, &probe, &err) < 0) {
		cli_fail(&err);
		return 8;
	}
	if (!*probe.type) {
		/* a superblock so damaged that it is not recognised: ext's has copies */
		cli_note("%s: no file system was recognised; trying e2fsck", args[0]);
		snprintf(probe.type, sizeof(probe.type), "ext4");
	}
	checker = find_checker(probe.type);
	if (!checker) {
		cli_error("%s: it holds %s, which has no checker here", args[0], probe.type);
		return 8;
	}
	fsck_command(&c, checker, &a);
	r = cli_view_run(volume, args[0], c.v);
	if (cli_close(&volume) != CLI_OK || cli_close(&disk) != CLI_OK)
		return 8;
	return r < 0 ? 8 : r;
}
