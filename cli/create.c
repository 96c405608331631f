/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* create.c - vdisk create, resize, amend */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/commands.h"

/* ---- formats and their options ---- */

const char *cli_format_of_name(const char *path)
{
	static const char *const others[] = { "vdi", "vhd", "vpc", "vhdx", "hdd", "qed", "qcow" };
	const char *dot = strrchr(path, '.');

	for (unsigned i = 0; dot && vdisk_format_name(i); i++) {
		if (!strcasecmp(dot + 1, vdisk_format_name(i)))
			return vdisk_format_name(i);
	}
	for (size_t i = 0; dot && i < ARRAY_SIZE(others); i++) {
		if (!strcasecmp(dot + 1, others[i]))
			cli_usage("%s: %s images are not made by vdisk; state the format if it is to "
				  "be another one", path, others[i]);
	}
	return "raw";
}

int cli_list_options(const char *format)
{
	struct libscols_table *t = cli_table("options");
	const char *option;

	if (!t)
		return cli_print_table(t);
	scols_table_new_column(t, "OPTION", 0, 0);
	scols_table_new_column(t, "VALUES", 0, 0);
	scols_table_new_column(t, "MEANING", 1, SCOLS_FL_WRAP);
	for (unsigned i = 0; (option = vdisk_format_option(format, i)); i++) {
		struct libscols_line *line = scols_table_new_line(t, NULL);
		AUTO_FREE char *copy = strdup(option);
		char *rest = copy;

		for (size_t c = 0; line && rest && c < 3; c++)
			scols_line_set_data(line, c, strsep(&rest, "\t"));
	}
	return cli_print_table(t);
}

bool cli_may_overwrite(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return true;
	if (S_ISREG(st.st_mode) && st.st_size == 0)
		return true;
	return cli_confirm("%s exists and what it holds would be lost", path);
}

/* ---- create ---- */

struct create_args {
	const char *format, *backing, *backing_format;
	struct cli_options options;
	bool list;
};

static const struct argp_option create_options[] = {
	{ "format", 'f', "FMT", 0, "Format of the new image: raw, qcow2, vmdk "
	  "(default: what the file's name ends in, else raw)", 0 },
	{ "option", 'o', "K=V,...", 0, "Options of the format; '-o help' lists them", 0 },
	{ "backing", 'b', "FILE", 0, "Show this image where nothing has been written", 0 },
	{ "backing-format", 'F', "FMT", 0, "The backing file's format", 0 },
	{ 0 },
};

static error_t parse_create(int key, char *arg, struct argp_state *state)
{
	struct create_args *a = state->input;

	switch (key) {
	case 'f':
		a->format = arg;
		return 0;
	case 'b':
		a->backing = arg;
		return 0;
	case 'F':
		a->backing_format = arg;
		return 0;
	case 'o':
		if (!strcmp(arg, "help") || !strcmp(arg, "?"))
			a->list = true;
		else
			cli_add_options(&a->options, arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp create_argp = {
	.options = create_options, .parser = parse_create, .children = cli_disk,
	.args_doc = "FILE [SIZE]",
	.doc = "Make an image.  With a backing file, SIZE may be left out: it is the backing's.",
};

/*
 * The format to write into the image for its backing file, where the user gave
 * none.  It is looked for once, now, and stated from then on.
 */
int cli_backing_format(char out[32], const char *image, const char *backing)
{
	AUTO_DISK struct vdisk *disk = NULL;
	AUTO_FREE char *path = NULL;
	const char *slash = strrchr(image, '/');

	if (backing[0] == '/' || !slash)
		path = strdup(backing);
	else if (asprintf(&path, "%.*s/%s", (int)(slash - image), image, backing) < 0)
		path = NULL;
	if (!path || cli_open_format(&disk, path, NULL, VDISK_OPEN_NO_BACKING) < 0)
		return CLI_FAILED;
	snprintf(out, 32, "%s", vdisk_format(disk));
	cli_note("%s: taken as %s; -F says so for certain", backing, out);
	return CLI_OK;
}

int cmd_create(int argc, char **argv)
{
	struct create_args a = { 0 };
	char **args = cli_parse(&create_argp, argc, argv, &a, 0, 2);
	struct vdisk_create_opts opts = { .size = sizeof(opts), .overwrite = true };
	struct vdisk_error err = { 0 };
	uint64_t size = UINT64_MAX;
	char probed[32];
	int r;

	if (a.list)
		return cli_list_options(a.format ? a.format : args[0] ?
					cli_format_of_name(args[0]) : "qcow2");
	if (!args[0])
		cli_usage("too few arguments");
	if (args[1])
		size = cli_size("SIZE", args[1]);
	else if (!a.backing)
		cli_usage("without a backing file, a SIZE is needed");
	opts.format = a.format ? a.format : cli_format_of_name(args[0]);
	cli_check_options(&a.options, opts.format);
	if (!cli_may_overwrite(args[0]))
		return CLI_FAILED;
	if (a.backing && !a.backing_format) {
		if (cli_backing_format(probed, args[0], a.backing) != CLI_OK)
			return CLI_FAILED;
		a.backing_format = probed;
	}
	opts.backing = a.backing;
	opts.backing_format = a.backing_format;
	opts.options = a.options.list;
	opts.n_options = a.options.n;
	opts.refs = cli.refs;
	r = vdisk_create(args[0], size, &opts, &err);
	cli_free_options(&a.options);
	return r < 0 ? cli_fail(&err) : CLI_OK;
}

/* ---- resize ---- */

struct resize_args {
	bool shrink;
};

static const struct argp_option resize_options[] = {
	{ "shrink", 's', NULL, 0, "Cut off what is beyond the new end without asking", 0 },
	{ 0 },
};

static error_t parse_resize(int key, char *arg UNUSED, struct argp_state *state)
{
	struct resize_args *a = state->input;

	if (key != 's')
		return ARGP_ERR_UNKNOWN;
	a->shrink = true;
	return 0;
}

static const struct argp resize_argp = {
	.options = resize_options, .parser = parse_resize, .children = cli_disk,
	.args_doc = "DISK [+|-]SIZE",
	.doc = "Change the size of a disk.  What is added reads as zeroes; making it smaller "
	       "drops what is beyond, and asks.",
};

int cmd_resize(int argc, char **argv)
{
	struct resize_args a = { 0 };
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	const char *size_arg = argc > 2 ? argv[argc - 1] : NULL;
	char **args, now[32], then[32];
	uint64_t size;

	/* "-1G" is not an option */
	if (size_arg && size_arg[0] == '-' && size_arg[1] >= '0' && size_arg[1] <= '9')
		argv[--argc] = NULL;
	else
		size_arg = NULL;
	args = cli_parse(&resize_argp, argc, argv, &a, size_arg ? 1 : 2, size_arg ? 1 : 2);
	if (!size_arg)
		size_arg = args[1];
	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	size = cli_new_size(vdisk_size(disk), size_arg);
	if (size < vdisk_size(disk) && !a.shrink &&
	    !cli_confirm("%s has %s, and what is beyond %s would be lost", args[0],
			 cli_human(now, vdisk_size(disk)), cli_human(then, size)))
		return CLI_FAILED;
	if (vdisk_resize(disk, size, &err) < 0)
		return cli_fail(&err);
	return cli_close(&disk);
}

/* ---- amend ---- */

struct amend_args {
	struct cli_options options;
	bool list;
};

static const struct argp_option amend_options[] = {
	{ "option", 'o', "K=V,...", 0, "What to change; '-o help' lists what there is", 0 },
	{ 0 },
};

static error_t parse_amend(int key, char *arg, struct argp_state *state)
{
	struct amend_args *a = state->input;

	if (key != 'o')
		return ARGP_ERR_UNKNOWN;
	if (!strcmp(arg, "help") || !strcmp(arg, "?"))
		a->list = true;
	else
		cli_add_options(&a->options, arg);
	return 0;
}

static const struct argp amend_argp = {
	.options = amend_options, .parser = parse_amend, .children = cli_disk,
	.args_doc = "DISK", .doc = "Change options of an image that exists.",
};

int cmd_amend(int argc, char **argv)
{
	struct amend_args a = { 0 };
	char **args = cli_parse(&amend_argp, argc, argv, &a, 0, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	int r;

	if (a.list)
		return cli_list_options(cli.format ? cli.format : "qcow2");
	if (!args[0])
		cli_usage("too few arguments");
	if (!a.options.n)
		cli_usage("nothing to change: use -o");
	if (cli_open(&disk, args[0], VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	cli_check_options(&a.options, vdisk_format(disk));
	r = vdisk_amend(disk, a.options.list, a.options.n, &err);
	cli_free_options(&a.options);
	return r < 0 ? cli_fail(&err) : cli_close(&disk);
}
