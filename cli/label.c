/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * label.c - label, uuid: show and change
 *
 * ext, FAT and swap space are changed in process (ext with rare features by tune2fs); XFS, btrfs, exFAT, NTFS and
 * LUKS by their own programs, on the volume as a file.
 */
#include "cli/label.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "cli/commands.h"
#include "cli/view.h"

/* ---- programs ---- */

#define VALUE "<value>"		/* stands for the label or UUID */
#define VIEW "<disk>"		/* and this for the volume */

static const struct tool {
	const char *type;
	const char *label[6], *uuid[7];
	unsigned label_max;	/* bytes */
	bool serial;		/* its UUID is 16 hexadecimal digits, or 8 */
	unsigned digits;
} tools[] = {
	{ "xfs", { "xfs_admin", "-L", VALUE, VIEW }, { "xfs_admin", "-U", VALUE, VIEW }, 12, false, 0 },
	{ "btrfs", { "btrfs", "filesystem", "label", VIEW, VALUE },
	  { "btrfstune", "-f", "-U", VALUE, VIEW }, 255, false, 0 },
	{ "exfat", { "exfatlabel", VIEW, VALUE }, { "exfatlabel", "-i", VIEW, VALUE }, 44, true, 8 },
	{ "ntfs", { "ntfslabel", "-f", VIEW, VALUE }, { "ntfslabel", "-f", VALUE, VIEW }, 128, true, 16 },
	{ "crypto_LUKS", { "cryptsetup", "config", VIEW, "--label", VALUE },
	  { "cryptsetup", "-q", "luksUUID", "--uuid", VALUE, VIEW }, 47, false, 0 },
};

/* ext with features that files are not written with in process (quota, casefold, ...) */
static const char *const ext_label[] = { "tune2fs", "-L", VALUE, VIEW };
static const char *const ext_uuid[] = { "tune2fs", "-f", "-U", VALUE, VIEW };

static const struct tool *find_tool(const char *type)
{
	for (size_t i = 0; i < ARRAY_SIZE(tools); i++)
		if (!strcmp(tools[i].type, type))
			return &tools[i];
	return NULL;
}

static int run_tool(struct vdisk *volume, const char *name, const char *const *words, size_t max,
		    const char *value)
{
	char *argv[8] = { NULL };
	int r;

	for (size_t i = 0; i < max && words[i]; i++) {
		/* posix_spawn() takes them as char *, and does not write */
		const char *w = !strcmp(words[i], VALUE) ? value :
				!strcmp(words[i], VIEW) ? cli_view : words[i];

		argv[i] = (char *)(uintptr_t)w;
	}
	r = cli_view_run_quiet(volume, name, argv);
	if (r > 0)
		cli_error("%s: %s ended with status %d", name, words[0], r);
	return r == 0 ? CLI_OK : CLI_FAILED;
}

const char *cli_uuid_refusal(const struct vdisk_probe *p)
{
	static const char *const known[] = { "ext2", "ext3", "ext4", "ext4dev", "vfat", "swap" };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(p->type, known[i]))
			return "";
	if (find_tool(p->type))
		return "";
	if (!strcmp(p->type, "LVM2_member"))
		return "a physical volume of LVM: names of groups and volumes are changed by vdisk rename, "
		       "UUIDs of all of it by vdisk uuid --clone";
	if (!strcmp(p->usage, "raid"))
		return "names and UUIDs of RAID members cannot be changed here: use mdadm "
		       "--assemble --update=uuid";
	return *p->type ? "labels and UUIDs of this kind cannot be changed" :
			  "nothing that is known is on it";
}

static int probe_volume(struct vdisk *volume, const char *name, struct vdisk_probe *out)
{
	struct vdisk_error err = { 0 };
	const char *why;

	if (vdisk_probe(volume, out, &err) < 0)
		return cli_fail(&err);
	why = cli_uuid_refusal(out);
	if (!*why)
		return CLI_OK;
	cli_error("%s%s%s%s: %s", name, *out->type ? " (" : "", out->type, *out->type ? ")" : "", why);
	return CLI_FAILED;
}

int cli_set_label(struct vdisk *volume, const char *name, const char *label)
{
	struct vdisk_error err = { 0 };
	struct vdisk_probe probe = { 0 };
	const struct tool *tool;
	int r;

	if (probe_volume(volume, name, &probe) != CLI_OK)
		return CLI_FAILED;
	tool = find_tool(probe.type);
	if (!tool) {
		r = vdisk_set_label(volume, label, &err);
		if (r == -ENOTSUP && !strncmp(probe.type, "ext", 3) && strlen(label) <= 16)
			return run_tool(volume, name, ext_label, ARRAY_SIZE(ext_label), label);
		return r < 0 ? cli_fail(&err) : CLI_OK;
	}
	if (strlen(label) > tool->label_max || strpbrk(label, "\n")) {
		cli_error("'%s': a label of %s has at most %u bytes, and no line breaks", label,
			  tool->type, tool->label_max);
		return CLI_FAILED;
	}
	if (!strcmp(tool->type, "xfs") && !*label)
		label = "--";	/* what xfs_admin calls none */
	return run_tool(volume, name, tool->label, ARRAY_SIZE(tool->label), label);
}

/* @text as the program wants it. */
static int tool_value(char out[64], const struct tool *tool, const char *text)
{
	uint8_t raw[16];
	unsigned digits = 0;

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw)) {
		cli_error("no random numbers: %m");
		return CLI_FAILED;
	}
	if (!tool->serial && strcmp(text, "random") != 0) {
		for (size_t i = 0; text[i]; i++)
			digits += isxdigit((unsigned char)text[i]) != 0;
		if (strlen(text) != 36 || digits != 32) {
			cli_error("'%s' is not a UUID", text);
			return CLI_FAILED;
		}
		snprintf(out, 64, "%s", text);
		return CLI_OK;
	}
	if (!tool->serial) {
		raw[6] = (uint8_t)((raw[6] & 0x0f) | 0x40);
		raw[8] = (uint8_t)((raw[8] & 0x3f) | 0x80);
		for (size_t i = 0, n = 0; i < 16; i++)
			n += (size_t)sprintf(out + n, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" :
					     "%02x", raw[i]);
		return CLI_OK;
	}
	/* a serial number: "1234-ABCD", or 16 digits */
	if (strcmp(text, "random") != 0) {
		size_t n = 0;

		for (size_t i = 0; text[i] && n < tool->digits + 1; i++)
			if (isxdigit((unsigned char)text[i]))
				out[n++] = text[i];
			else if (text[i] != '-')
				n = 63;
		if (n != tool->digits) {
			cli_error("'%s' is no serial number of %s, which has %u hexadecimal digits",
				  text, tool->type, tool->digits);
			return CLI_FAILED;
		}
		out[n] = '\0';
		return CLI_OK;
	}
	for (size_t i = 0; i < tool->digits / 2; i++)
		sprintf(out + 2 * i, "%02X", raw[i]);
	return CLI_OK;
}

int cli_set_uuid(struct vdisk *volume, const char *name, const char *uuid)
{
	struct vdisk_error err = { 0 };
	struct vdisk_probe probe = { 0 };
	const struct tool *tool;
	char value[64], option[96];
	int r;

	if (probe_volume(volume, name, &probe) != CLI_OK)
		return CLI_FAILED;
	tool = find_tool(probe.type);
	if (!tool) {
		r = vdisk_set_uuid(volume, uuid, &err);
		/* tune2fs 1.47 leaves the MMP block with the checksum of the old one */
		if (r == -ENOTSUP && !strncmp(probe.type, "ext", 3) && !strstr(err.msg, "\"mmp\""))
			return run_tool(volume, name, ext_uuid, ARRAY_SIZE(ext_uuid), uuid);
		return r < 0 ? cli_fail(&err) : CLI_OK;
	}
	if (tool_value(value, tool, uuid) != CLI_OK)
		return CLI_FAILED;
	if (!strcmp(tool->type, "exfat"))
		snprintf(option, sizeof(option), "0x%s", value);
	else if (!strcmp(tool->type, "ntfs"))
		snprintf(option, sizeof(option), "--new-serial=%s", value);
	else
		snprintf(option, sizeof(option), "%s", value);
	return run_tool(volume, name, tool->uuid, ARRAY_SIZE(tool->uuid), option);
}

/* ---- the commands ---- */

/* The table of a disk that has one: its id is the UUID of the disk. */
static int table_of(struct vdisk_parts **out, struct vdisk *disk, const char *locator)
{
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	bool part;

	if (vdisk_locator_parse(&loc, locator, &err) < 0)
		return cli_fail(&err);
	part = loc.part;
	vdisk_locator_clear(&loc);
	if (!part && vdisk_parts_read(out, disk, &err) < 0)
		return cli_fail(&err);
	return CLI_OK;
}

static int show(const char *locator, const char *key, struct vdisk *disk,
		const struct vdisk_parts *table)
{
	struct vdisk_probe probe = { 0 };
	struct vdisk_error err = { 0 };
	const char *value;

	if (table && table->scheme[0]) {
		if (cli.json)
			return cli_print_json(json_pack("{s:s, s:s, s:s}", "type", table->scheme,
							"label", "", "uuid", table->id));
		if (!strcmp(key, "uuid")) {
			puts(table->id);
			return CLI_OK;
		}
		cli_error("%s has partitions: name one of them, as #p1", locator);
		return CLI_FAILED;
	}
	if (vdisk_probe(disk, &probe, &err) < 0)
		return cli_fail(&err);
	if (!*probe.type) {
		cli_error("%s: nothing that is known", locator);
		return CLI_FAILED;
	}
	value = !strcmp(key, "label") ? probe.label : probe.uuid;
	if (!cli.json) {
		puts(value);
		return CLI_OK;
	}
	return cli_print_json(json_pack("{s:s, s:s, s:s}", "type", probe.type, "label", probe.label,
					"uuid", probe.uuid));
}

static int change(const char *locator, const char *key, struct vdisk *disk,
		  const struct vdisk_parts *table, const char *value)
{
	struct vdisk_error err = { 0 };
	bool uuid = !strcmp(key, "uuid");

	if (!table || !table->scheme[0])
		return uuid ? cli_set_uuid(disk, locator, value) : cli_set_label(disk, locator, value);
	if (uuid)
		return vdisk_parts_set_id(disk, value, &err) < 0 ? cli_fail(&err) : CLI_OK;
	cli_error("%s has partitions: name one of them, as #p1", locator);
	return CLI_FAILED;
}

static int label_or_uuid(char **args, const char *key)
{
	AUTO_FREE struct vdisk_parts *table = NULL;
	AUTO_DISK struct vdisk *disk = NULL;

	if (cli_open(&disk, args[0], args[1] ? VDISK_OPEN_WRITE : 0) < 0 ||
	    table_of(&table, disk, args[0]) != CLI_OK)
		return CLI_FAILED;
	if (!args[1])
		return show(args[0], key, disk, table);
	if (change(args[0], key, disk, table, args[1]) != CLI_OK)
		return CLI_FAILED;
	return cli_close(&disk);
}

int cmd_label(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK[#PART] [LABEL]",
		.doc = "Show or change the label of a file system (ext, FAT; with their own "
		       "programs XFS, btrfs, exFAT, NTFS), swap space or LUKS.",
	};

	return label_or_uuid(cli_parse(&argp, argc, argv, NULL, 1, 2), "label");
}

struct uuid_args {
	bool clone, show;
};

enum { OPT_CLONE = 0x22000 };

static error_t parse_uuid(int key, char *arg UNUSED, struct argp_state *state)
{
	struct uuid_args *a = state->input;

	switch (key) {
	case OPT_CLONE:
		a->clone = true;
		return 0;
	case 'n':
		a->show = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int cmd_uuid(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "clone", OPT_CLONE, NULL, 0, "Give a copy of a disk fresh identifiers everywhere, and "
		  "write them into its fstab, crypttab and boot loader configuration", 0 },
		{ "dry-run", 'n', NULL, 0, "With --clone: list what would change, and change nothing",
		  0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_uuid, .children = cli_disk,
		.args_doc = "DISK[#PART] [UUID|random]\n--clone DISK",
		.doc = "Show or change the UUID of a file system (ext, FAT; with their own programs "
		       "XFS, btrfs, exFAT, NTFS), swap space or LUKS, or the id of a partition table.",
	};
	struct uuid_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, 2);

	if (a.show && !a.clone)
		cli_usage("--dry-run is for --clone");
	if (a.clone && args[1])
		cli_usage("--clone takes a disk only");
	return a.clone ? cli_clone(args[0], a.show) : label_or_uuid(args, "uuid");
}
