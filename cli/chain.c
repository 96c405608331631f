/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* chain.c - vdisk rebase and commit: images and their backing files */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

/* ---- rebase ---- */

struct rebase_args {
	const char *backing, *format;
	bool unsafe;
};

static const struct argp_option rebase_options[] = {
	{ "backing", 'b', "FILE", 0, "The new backing file; '' for none", 0 },
	{ "backing-format", 'F', "FMT", 0, "Its format", 0 },
	{ "unsafe", 'u', NULL, 0, "Only change the name: the data is known to be the same, "
	  "as after the file was moved", 0 },
	{ 0 },
};

static error_t parse_rebase(int key, char *arg, struct argp_state *state)
{
	struct rebase_args *a = state->input;

	switch (key) {
	case 'b':
		a->backing = arg;
		return 0;
	case 'F':
		a->format = arg;
		return 0;
	case 'u':
		a->unsafe = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp rebase_argp = {
	.options = rebase_options, .parser = parse_rebase, .children = cli_disk,
	.args_doc = "DISK",
	.doc = "Put an image onto another backing file.  What it reads does not change: "
	       "what differs between the old and the new backing is copied into it.",
};

/* Open the new backing as the image will refer to it, and learn its format. */
static int open_new_backing(struct vdisk **out, struct vdisk *disk, struct rebase_args *a)
{
	struct vdisk_error err = { 0 };

	if (vdisk_open_backing(out, disk, a->backing, a->format,
			       cli.share ? VDISK_OPEN_SHARE : 0, &err) < 0)
		return cli_fail(&err);
	if (!a->format)
		cli_note("%s: taken as %s; -F says so for certain", a->backing,
			 vdisk_format(*out));
	a->format = vdisk_format(*out);
	return CLI_OK;
}

int cmd_rebase(int argc, char **argv)
{
	struct rebase_args a = { 0 };
	char **args = cli_parse(&rebase_argp, argc, argv, &a, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL, *base = NULL;
	struct cli_progress progress;
	struct vdisk_copy_opts opts = {
		.size = sizeof(opts), .progress = cli_progress_cb, .progress_arg = &progress,
	};
	struct vdisk_error err = { 0 };
	int r;

	if (!a.backing)
		cli_usage("-b names the new backing file");
	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE |
		     (a.unsafe ? VDISK_OPEN_NO_BACKING : 0)) < 0)
		return CLI_FAILED;
	if (!*a.backing)
		a.backing = a.format = NULL;
	else if (!(a.unsafe && a.format) && open_new_backing(&base, disk, &a) != CLI_OK)
		return CLI_FAILED;
	if (a.unsafe) {
		r = vdisk_set_backing(disk, a.backing, a.format, &err);
	} else {
		cli_progress_start(&progress, "rebase", vdisk_size(disk));
		r = vdisk_rebase(disk, base, a.backing, a.format, &opts, &err);
		cli_progress_end(&progress);
	}
	return r < 0 ? cli_fail(&err) : cli_close(&disk);
}

/* ---- commit ---- */

static const struct argp_option commit_options[] = {
	{ "keep", 'd', NULL, 0, "Leave the image as it is, instead of emptying it", 0 },
	{ 0 },
};

static error_t parse_commit(int key, char *arg, struct argp_state *state)
{
	bool *keep = state->input;

	(void)arg;
	if (key != 'd')
		return ARGP_ERR_UNKNOWN;
	*keep = true;
	return 0;
}

static const struct argp commit_argp = {
	.options = commit_options, .parser = parse_commit, .children = cli_disk,
	.args_doc = "DISK",
	.doc = "Write what an image holds into its backing file.\v"
	       "The image is empty afterwards and reads as before.  "
	       "Other images on the same backing file become invalid.",
};

int cmd_commit(int argc, char **argv)
{
	bool keep = false;
	char **args = cli_parse(&commit_argp, argc, argv, &keep, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL, *base = NULL;
	struct cli_progress progress;
	struct vdisk_copy_opts opts = {
		.size = sizeof(opts), .progress = cli_progress_cb, .progress_arg = &progress,
	};
	struct vdisk_error err = { 0 };
	int r;

	if (cli_open(&disk, args[0], VDISK_OPEN_NO_BACKING | (keep ? 0 : VDISK_OPEN_WRITE)) < 0)
		return CLI_FAILED;
	if (keep && !strcmp(vdisk_format(disk), "vmdk")) {
		cli_error("%s: a vmdk knows its parent by a content ID that is another one "
			  "afterwards: it cannot be left as it is", args[0]);
		return CLI_FAILED;
	}
	if (vdisk_open_backing(&base, disk, NULL, NULL, VDISK_OPEN_WRITE, &err) < 0)
		return cli_fail(&err);
	cli_progress_start(&progress, "commit", vdisk_size(disk));
	r = vdisk_commit(base, disk, &opts, &err);
	cli_progress_end(&progress);
	if (r < 0)
		return cli_fail(&err);
	/* not before what it held is safe */
	if (cli_close(&base) != CLI_OK)
		return CLI_FAILED;
	if (!keep && vdisk_empty(disk, &err) < 0)
		return cli_fail(&err);
	return cli_close(&disk);
}
