/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map.c - vdisk map and measure: where the bytes of a disk are, and how many */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

/* ---- map ---- */

static const struct argp map_argp = {
	.children = cli_disk, .args_doc = "DISK",
	.doc = "Say what each run of a disk's bytes is and where it is stored.",
};

static const char *kind_name(enum vdisk_extent_kind kind)
{
	switch (kind) {
	case VDISK_DATA:
		return "data";
	case VDISK_ZERO:
		return "zero";
	case VDISK_HOLE:
		return "hole";
	case VDISK_CODED:
		return "compressed";
	}
	return "unknown";
}

/* Do two answers describe one run? */
static bool joins(const struct vdisk_extent *a, const struct vdisk_extent *b)
{
	if (a->kind != b->kind || a->depth != b->depth || a->source != b->source)
		return false;
	return a->kind != VDISK_DATA || !a->source ||
	       a->source_offset + a->length == b->source_offset;
}

/* The fields and values of "qemu-img map --output=json". */
static json_t *extent_json(const struct vdisk_extent *e)
{
	json_t *o = json_object();
	bool stored = e->kind == VDISK_DATA || e->kind == VDISK_CODED;

	json_object_set_new(o, "start", json_integer((json_int_t)e->offset));
	json_object_set_new(o, "length", json_integer((json_int_t)e->length));
	json_object_set_new(o, "depth", json_integer(e->depth));
	json_object_set_new(o, "kind", json_string(kind_name(e->kind)));
	json_object_set_new(o, "present", json_boolean(e->kind != VDISK_HOLE));
	json_object_set_new(o, "zero", json_boolean(!stored));
	json_object_set_new(o, "data", json_boolean(stored));
	json_object_set_new(o, "compressed", json_boolean(e->kind == VDISK_CODED));
	if (e->kind == VDISK_DATA && e->source) {
		json_object_set_new(o, "offset", json_integer((json_int_t)e->source_offset));
		json_object_set_new(o, "file", json_string(vdisk_name(e->source)));
	}
	return o;
}

static void print_extent(const struct vdisk_extent *e)
{
	printf("%#-18" PRIx64 " %#-18" PRIx64 " %-10s %5u", e->offset, e->length,
	       kind_name(e->kind), e->depth);
	if (e->kind == VDISK_DATA && e->source)
		printf(" %#-18" PRIx64 " %s", e->source_offset, vdisk_name(e->source));
	putchar('\n');
}

struct map_output {
	json_t *array;		/* --json, else NULL */
	struct vdisk_extent last;
};

static void put_last(struct map_output *out)
{
	if (!out->last.length)
		return;
	if (out->array)
		json_array_append_new(out->array, extent_json(&out->last));
	else
		print_extent(&out->last);
}

static void put(struct map_output *out, const struct vdisk_extent *e)
{
	if (out->last.length && joins(&out->last, e)) {
		out->last.length += e->length;
		return;
	}
	put_last(out);
	out->last = *e;
}

int cmd_map(int argc, char **argv)
{
	char **args = cli_parse(&map_argp, argc, argv, NULL, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct map_output out = { .array = cli.json ? json_array() : NULL };
	struct vdisk_extent e = { 0 };

	if (cli_open(&disk, args[0], 0) < 0)
		return CLI_FAILED;
	if (!cli.json)
		printf("%-18s %-18s %-10s %5s %-18s %s\n", "OFFSET", "LENGTH", "KIND", "DEPTH",
		       "AT", "IN");
	for (uint64_t at = 0; at < vdisk_size(disk); at += e.length) {
		int r = vdisk_map(disk, at, vdisk_size(disk) - at, &e);

		if (r < 0) {
			cli_error("%s: cannot map offset %" PRIu64 ": %s", args[0], at,
				  strerror(-r));
			json_decref(out.array);
			return CLI_FAILED;
		}
		put(&out, &e);
	}
	put_last(&out);
	return cli.json ? cli_print_json(out.array) : CLI_OK;
}

/* ---- measure ---- */

struct measure_args {
	const char *format, *size;
	struct cli_options options;
};

static const struct argp_option measure_options[] = {
	{ "output-format", 'O', "FMT", 0, "The format to measure for (default: raw)", 0 },
	{ "option", 'o', "K=V,...", 0, "Options of that format", 0 },
	{ "size", 's', "SIZE", 0, "Measure an empty disk of this size", 0 },
	{ 0 },
};

static error_t parse_measure(int key, char *arg, struct argp_state *state)
{
	struct measure_args *a = state->input;

	switch (key) {
	case 'O':
		a->format = arg;
		return 0;
	case 'o':
		cli_add_options(&a->options, arg);
		return 0;
	case 's':
		a->size = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp measure_argp = {
	.options = measure_options, .parser = parse_measure, .children = cli_disk,
	.args_doc = "DISK\n--size SIZE",
	.doc = "Say how large a file would be that holds a disk in another format.",
};

int cmd_measure(int argc, char **argv)
{
	struct measure_args a = { .format = "raw" };
	char **args = cli_parse(&measure_argp, argc, argv, &a, 0, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	uint64_t size, required, full;
	int r;

	if (!args[0] == !a.size)
		cli_usage("one of DISK and --size is needed");
	cli_check_options(&a.options, a.format);
	if (args[0] && cli_open(&disk, args[0], 0) < 0)
		return CLI_FAILED;
	size = disk ? vdisk_size(disk) : cli_size("--size", a.size);
	r = vdisk_measure(disk, size, a.format, a.options.list, a.options.n, &required, &full,
			  &err);
	cli_free_options(&a.options);
	if (r < 0)
		return cli_fail(&err);
	if (cli.json)
		return cli_print_json(json_pack("{s:I,s:I}", "required", (json_int_t)required,
						"fully-allocated", (json_int_t)full));
	printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", required, full);
	return CLI_OK;
}
