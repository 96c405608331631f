/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* trim.c - vdisk trim: unused blocks of file systems become holes in the image */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/commands.h"

struct trim {
	const char *locator;
	json_t *list;		/* owned */
	unsigned done;
	bool failed;
	struct vdisk_error whole; /* why an undivided disk cannot be trimmed */
};

static void tell(struct trim *t, const char *name, const char *type, uint64_t bytes)
{
	char human[32];

	t->done++;
	json_array_append_new(t->list, json_pack("{s:s, s:s, s:I}", "volume", name, "type", type,
						 "bytes", (json_int_t)bytes));
	if (!cli.json && !cli.quiet)
		printf("%s%s%s: %s of %s hold nothing\n", t->locator, *name ? "#" : "", name,
		       cli_human(human, bytes), type);
}

static int trim_volume(void *arg, const struct vdisk_volume *volume)
{
	struct trim *t = arg;
	struct vdisk_fs *fs = NULL;
	struct vdisk_error err = { 0 };
	uint64_t bytes = 0;
	int r = vdisk_fs_open(&fs, volume->disk, VDISK_FS_WRITE, &err);

	if (r == -EMEDIUMTYPE) {
		t->whole = err;
		return 0;
	}
	if (r == 0)
		r = vdisk_fs_trim(fs, &bytes, &err);
	if (r == 0)
		tell(t, volume->name, vdisk_fs_type(fs), bytes);
	if (fs) {
		int r2 = vdisk_fs_close(fs, r < 0 ? NULL : &err);

		r = r < 0 ? r : r2;
	}
	if (r < 0) {
		t->failed = true;
		cli_fail(&err);
	}
	return 0;	/* the others may be in order */
}

int cmd_trim(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK[#PART]",
		.doc = "Give back the unused blocks of the file systems (ext2, ext3, ext4, FAT) on a "
		       "disk: they become holes in its image.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct trim t = { .locator = args[0], .list = json_array() };
	struct vdisk_error err = { 0 };
	int status = CLI_FAILED;

	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) == 0) {
		if (vdisk_each_volume(disk, trim_volume, &t, &err) < 0)
			cli_fail(&err);
		else if (!t.done && !t.failed)
			cli_error(t.whole.code ? "%s" : "%s: no file system that can be trimmed",
				  t.whole.code ? t.whole.msg : args[0]);
		else
			status = t.failed ? CLI_FAILED : CLI_OK;
	}
	if (status == CLI_OK && cli.json)
		status = cli_print_json(json_pack("{s:O}", "trimmed", t.list));
	json_decref(t.list);
	if (disk && cli_close(&disk) != CLI_OK)
		status = CLI_FAILED;
	return status;
}
