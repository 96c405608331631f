/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert.c - vdisk convert and compare
 *
 * A new image is written under a temporary name beside its own, and renamed
 * when it is complete: a run that fails, is interrupted or killed never leaves
 * half an image under the name that was asked for.
 *
 * Like cp and qemu-img, convert leaves it to the kernel when the data goes to
 * the disk, unless --sync asks, or the new image takes the place of a file:
 * then the new one is made durable before the old one is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/commands.h"

struct convert_args {
	const char *format, *backing, *backing_format;
	struct cli_options options;
	uint64_t sparse;
	unsigned long workers;
	bool compress, best, full, existing, sync;
};

enum { OPT_SYNC = 0x1000 };

static const struct argp_option convert_options[] = {
	{ "output-format", 'O', "FMT", 0, "Format to write "
	  "(default: what the name of DST ends in, else raw)", 0 },
	{ "option", 'o', "K=V,...", 0, "Options of the new image; '-o help' lists them", 0 },
	{ "compress", 'c', NULL, 0, "Write compressed; with -o compression_level=best as small "
	  "as possible, not as fast", 0 },
	{ "jobs", 'j', "N", 0, "Threads (default: one a processor)", 0 },
	{ "sparse", 'S', "SIZE", 0, "Shortest run of zeroes to leave out (default: 4K); "
	  "0 writes every byte", 0 },
	{ "backing", 'B', "FILE", 0, "Backing file of DST, which must read as SRC's does: "
	  "only what SRC's own layer holds is copied", 0 },
	{ "backing-format", 'F', "FMT", 0, "Its format", 0 },
	{ "no-create", 'n', NULL, 0, "Write into DST, which exists and is large enough", 0 },
	{ "sync", OPT_SYNC, NULL, 0, "Return when the data is on the disk", 0 },
	{ 0 },
};

static error_t parse_convert(int key, char *arg, struct argp_state *state)
{
	struct convert_args *a = state->input;

	switch (key) {
	case 'O':
		a->format = arg;
		return 0;
	case 'o':
		if (!strcmp(arg, "help") || !strcmp(arg, "?"))
			exit(cli_list_options(a->format ? a->format : "qcow2"));
		cli_add_options(&a->options, arg);
		return 0;
	case 'c':
		a->compress = true;
		return 0;
	case 'j':
		a->workers = cli_number("-j", arg, 1, 64);
		return 0;
	case 'S':
		a->sparse = cli_size("-S", arg);
		a->full = a->sparse == 0;
		return 0;
	case 'B':
		a->backing = arg;
		return 0;
	case 'F':
		a->backing_format = arg;
		return 0;
	case 'n':
		a->existing = true;
		return 0;
	case OPT_SYNC:
		a->sync = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp convert_argp = {
	.options = convert_options, .parser = parse_convert, .children = cli_disk,
	.args_doc = "SRC DST",
	.doc = "Copy a disk into a new image, of the same or another format.\v"
	       "SRC may be a snapshot (DISK@NAME) or a partition (DISK#p1).",
};

/* compression_level is about writing: it is not stored in the image. */
static void take_level(struct convert_args *a)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < a->options.n; i++) {
		struct vdisk_option *o = &a->options.list[i];

		if (strcmp(o->key, "compression_level")) {
			a->options.list[kept++] = *o;
			continue;
		}
		a->best = !strcmp(o->value, "best");
		if (!a->best && strcmp(o->value, "fast"))
			cli_usage("compression_level is fast or best, not '%s'", o->value);
		cli_free_option(o);
	}
	a->options.n = kept;
}

/* ---- the new file ---- */

/* A name beside @path that is not taken. */
static char *temp_name(const char *path)
{
	AUTO_FREE char *dir = strdup(path), *base = strdup(path);
	char *name = NULL;
	int fd;

	if (!dir || !base ||
	    asprintf(&name, "%s/.%s.XXXXXX", dirname(dir), basename(base)) < 0)
		return NULL;
	fd = mkstemp(name);
	if (fd < 0) {
		cli_error("%s: cannot create: %m", path);
		free(name);
		return NULL;
	}
	close(fd);
	return name;
}

static int sync_path(const char *path, int flags)
{
	AUTO_CLOSE int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0) {
		cli_error("%s: cannot flush: %m", path);
		return CLI_FAILED;
	}
	return CLI_OK;
}

/* Give the finished image its name; with the mode that a new file gets. */
static int put_in_place(const char *temp, const char *path, bool sync)
{
	AUTO_FREE char *dir = strdup(path);
	mode_t mask = umask(0);
	struct stat st;
	bool replaces = stat(path, &st) == 0;

	umask(mask);
	if (chmod(temp, replaces ? st.st_mode & 07777 : 0666 & ~mask) < 0) {
		cli_error("%s: cannot set its mode: %m", temp);
		return CLI_FAILED;
	}
	if ((sync || replaces) && sync_path(temp, O_RDONLY) != CLI_OK)
		return CLI_FAILED;
	if (rename(temp, path) < 0) {
		cli_error("%s: cannot rename to %s: %m", temp, path);
		return CLI_FAILED;
	}
	cli_temp_forget(temp);
	return sync && dir ? sync_path(dirname(dir), O_RDONLY | O_DIRECTORY) : CLI_OK;
}

/* ---- copying ---- */

static int copy(struct vdisk *dst, struct vdisk *src, const struct convert_args *a, bool dst_zero)
{
	struct cli_progress progress;
	struct vdisk_copy_opts opts = {
		.size = sizeof(opts),
		.flags = (a->compress ? VDISK_COPY_COMPRESS : 0) |
			 (a->best ? VDISK_COPY_BEST : 0) |
			 (a->full ? VDISK_COPY_FULL : 0) |
			 (a->backing ? VDISK_COPY_OWN_LAYER : 0) |
			 (dst_zero ? VDISK_COPY_TARGET_ZERO : 0),
		.workers = (unsigned)a->workers,
		.sparse = a->sparse,
		.progress = cli_progress_cb,
		.progress_arg = &progress,
	};
	struct vdisk_error err = { 0 };
	int r;

	cli_progress_start(&progress, "convert", vdisk_size(src));
	r = vdisk_copy(dst, src, &opts, &err);
	cli_progress_end(&progress);
	return r < 0 ? cli_fail(&err) : CLI_OK;
}

static int flush(struct vdisk *disk)
{
	int r = vdisk_flush(disk);

	if (r == 0)
		return CLI_OK;
	cli_error("%s: cannot flush: %s", vdisk_name(disk), strerror(-r));
	return CLI_FAILED;
}

static int into_existing(struct vdisk *src, const char *path, const struct convert_args *a)
{
	AUTO_DISK struct vdisk *dst = NULL;

	if (cli_open_format(&dst, path, a->format, VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	if (!cli_confirm("what %s holds would be overwritten", path))
		return CLI_FAILED;
	if (copy(dst, src, a, false) != CLI_OK || (a->sync && flush(dst) != CLI_OK))
		return CLI_FAILED;
	return cli_close(&dst);
}

static int write_image(struct vdisk *src, const char *path, const struct convert_args *a)
{
	AUTO_DISK struct vdisk *dst = NULL;
	struct vdisk_create_opts opts = {
		.size = sizeof(opts), .format = a->format, .overwrite = true,
		.backing = a->backing, .backing_format = a->backing_format,
		.options = a->options.list, .n_options = a->options.n, .refs = cli.refs,
	};
	struct vdisk_error err = { 0 };

	if (vdisk_create(path, vdisk_size(src), &opts, &err) < 0)
		return cli_fail(&err);
	/* Nobody else knows the file yet: its order on the disk does not matter. */
	if (cli_open_format(&dst, path, a->format,
			    VDISK_OPEN_WRITE | (a->sync ? 0 : VDISK_OPEN_UNSAFE)) < 0)
		return CLI_FAILED;
	if (copy(dst, src, a, !a->backing) != CLI_OK || (a->sync && flush(dst) != CLI_OK))
		return CLI_FAILED;
	return cli_close(&dst);
}

static int into_new(struct vdisk *src, const char *name, const struct convert_args *a)
{
	AUTO_FREE char *temp = NULL, *real = realpath(name, NULL);
	AUTO_DISK struct vdisk *old = NULL;
	const char *path = real ? real : name;	/* a link stays a link */
	int status;

	if (!cli_may_overwrite(path))
		return CLI_FAILED;
	/* Held for its lock: a disk that someone uses is not replaced. */
	if (real && cli_open_format(&old, real, "raw", VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	temp = temp_name(path);
	if (!temp)
		return CLI_FAILED;
	cli_temp_add(temp);
	status = write_image(src, temp, a);
	if (status == CLI_OK)
		status = put_in_place(temp, path, a->sync);
	if (status != CLI_OK) {
		unlink(temp);
		cli_temp_forget(temp);
	}
	return status;
}

/* Neither a device nor anything else that must not be replaced by a file. */
static bool is_file_or_new(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 || S_ISREG(st.st_mode);
}

int cmd_convert(int argc, char **argv)
{
	struct convert_args a = { 0 };
	char **args = cli_parse(&convert_argp, argc, argv, &a, 2, 2);
	AUTO_DISK struct vdisk *src = NULL;
	char probed[32];
	int status;

	take_level(&a);
	if (a.backing && (a.compress || a.full))
		cli_usage("-B cannot be combined with -c or -S 0");
	if (cli_open(&src, args[0], 0) < 0)
		return CLI_FAILED;
	if (!a.existing && !a.format)
		a.format = cli_format_of_name(args[1]);
	if (a.format)
		cli_check_options(&a.options, a.format);
	if (a.backing && !a.backing_format) {
		if (cli_backing_format(probed, args[1], a.backing) != CLI_OK)
			return CLI_FAILED;
		a.backing_format = probed;
	}
	if (a.existing || !is_file_or_new(args[1]))
		status = into_existing(src, args[1], &a);
	else
		status = into_new(src, args[1], &a);
	cli_free_options(&a.options);
	return status;
}

/* ---- compare ---- */

struct compare_args {
	const char *second_format;
	bool strict;
};

static const struct argp_option compare_options[] = {
	{ "second-format", 'F', "FMT", 0, "The format of B", 0 },
	{ "strict", 's', NULL, 0, "Different sizes are a difference, even if only zeroes follow",
	  0 },
	{ 0 },
};

static error_t parse_compare(int key, char *arg, struct argp_state *state)
{
	struct compare_args *a = state->input;

	switch (key) {
	case 'F':
		a->second_format = arg;
		return 0;
	case 's':
		a->strict = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp compare_argp = {
	.options = compare_options, .parser = parse_compare, .children = cli_disk,
	.args_doc = "A B",
	.doc = "Do two disks hold the same?  Their formats do not matter.\v"
	       "Exit status 0: they do, 3: they differ.",
};

static int print_result(bool same, bool sizes, uint64_t offset)
{
	if (cli.json) {
		json_t *o = json_pack("{s:b}", "identical", same);

		if (!same && !sizes)
			json_object_set_new(o, "offset", json_integer((json_int_t)offset));
		if (sizes)
			json_object_set_new(o, "sizes-differ", json_true());
		if (cli_print_json(o) != CLI_OK)
			return CLI_FAILED;
	} else if (!cli.quiet) {
		if (same)
			puts("identical");
		else if (sizes)
			puts("different: their sizes");
		else
			printf("different from offset %" PRIu64 " on\n", offset);
	}
	return same ? CLI_OK : CLI_DIFFERENT;
}

int cmd_compare(int argc, char **argv)
{
	struct compare_args args = { 0 };
	char **names = cli_parse(&compare_argp, argc, argv, &args, 2, 2);
	AUTO_DISK struct vdisk *a = NULL, *b = NULL;
	struct cli_progress progress;
	struct vdisk_copy_opts opts = {
		.size = sizeof(opts), .progress = cli_progress_cb, .progress_arg = &progress,
	};
	struct vdisk_error err = { 0 };
	uint64_t offset = 0;
	int r;

	if (cli_open(&a, names[0], 0) < 0 ||
	    cli_open_format(&b, names[1], args.second_format, 0) < 0)
		return CLI_FAILED;
	if (args.strict && vdisk_size(a) != vdisk_size(b))
		return print_result(false, true, 0);
	if (vdisk_size(a) != vdisk_size(b))
		cli_note("the sizes differ; the shorter one is taken to go on with zeroes");
	cli_progress_start(&progress, "compare", MAX(vdisk_size(a), vdisk_size(b)));
	r = vdisk_compare(a, b, &opts, &offset, &err);
	cli_progress_end(&progress);
	return r < 0 ? cli_fail(&err) : print_result(r == 0, false, offset);
}
