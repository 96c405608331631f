/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* label.c - label, uuid: show and change */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/commands.h"

static int show(const char *locator, const char *key, struct vdisk *disk)
{
	struct vdisk_probe probe = { 0 };
	struct vdisk_error err = { 0 };
	const char *value;
	json_t *json;

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
	json = json_object();
	json_object_set_new(json, "type", json_string(probe.type));
	json_object_set_new(json, "label", json_string(probe.label));
	json_object_set_new(json, "uuid", json_string(probe.uuid));
	return cli_print_json(json);
}

static int label_or_uuid(const struct argp *argp, int argc, char **argv, const char *key,
			 int (*set)(struct vdisk *, const char *, struct vdisk_error *))
{
	char **args = cli_parse(argp, argc, argv, NULL, 1, 2);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open(&disk, args[0], args[1] ? VDISK_OPEN_WRITE : 0) < 0)
		return CLI_FAILED;
	if (!args[1])
		return show(args[0], key, disk);
	if (set(disk, args[1], &err) < 0)
		return cli_fail(&err);
	return cli_close(&disk);
}

int cmd_label(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK[#PART] [LABEL]",
		.doc = "Show or change the label of a file system (ext2, ext3, ext4) or swap space.",
	};

	return label_or_uuid(&argp, argc, argv, "label", vdisk_set_label);
}

int cmd_uuid(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK[#PART] [UUID|random]",
		.doc = "Show or change the UUID of a file system (ext2, ext3, ext4) or swap space.",
	};

	return label_or_uuid(&argp, argc, argv, "uuid", vdisk_set_uuid);
}
