/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check.c - vdisk check: is the metadata of an image consistent? */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

struct check_args {
	unsigned flags;
};

static const struct argp_option check_options[] = {
	{ "repair", 'r', "leaks|all", OPTION_ARG_OPTIONAL,
	  "Repair what can be repaired: leaked space only, or all (the default)", 0 },
	{ 0 },
};

static error_t parse_check(int key, char *arg, struct argp_state *state)
{
	struct check_args *a = state->input;

	if (key != 'r')
		return ARGP_ERR_UNKNOWN;
	if (!arg || !strcmp(arg, "all"))
		a->flags = VDISK_CHECK_REPAIR | VDISK_CHECK_REPAIR_LEAKS;
	else if (!strcmp(arg, "leaks"))
		a->flags = VDISK_CHECK_REPAIR_LEAKS;
	else
		argp_error(state, "--repair is leaks or all, not '%s'", arg);
	return 0;
}

static const struct argp check_argp = {
	.options = check_options, .parser = parse_check, .children = cli_disk,
	.args_doc = "DISK",
	.doc = "Check the consistency of an image.\v"
	       "Exit status 0: consistent (or made so), 3: leaks or damage are left.",
};

static void report(void *arg UNUSED, const char *finding)
{
	if (!cli.quiet)
		fprintf(stderr, "%s\n", finding);
}

static json_t *to_json(const struct vdisk *disk, const struct vdisk_check_result *c)
{
	const struct {
		const char *key;
		uint64_t value;
	} fields[] = {
		{ "check-errors", c->errors },
		{ "corruptions", c->corruptions },
		{ "corruptions-fixed", c->corruptions_fixed },
		{ "leaks", c->leaks },
		{ "leaks-fixed", c->leaks_fixed },
		{ "total-clusters", c->total_clusters },
		{ "allocated-clusters", c->allocated_clusters },
		{ "compressed-clusters", c->compressed_clusters },
		{ "fragmented-clusters", c->fragmented_clusters },
		{ "image-end-offset", c->image_end },
	};
	json_t *o = json_object();

	json_object_set_new(o, "filename", json_string(vdisk_name(disk)));
	json_object_set_new(o, "format", json_string(vdisk_format(disk)));
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		json_object_set_new(o, fields[i].key, json_integer((json_int_t)fields[i].value));
	return o;
}

static void print_text(const struct vdisk_check_result *c)
{
	char human[32];

	if (c->corruptions_fixed || c->leaks_fixed)
		printf("repaired: %" PRIu64 " errors, %" PRIu64 " leaked clusters\n",
		       c->corruptions_fixed, c->leaks_fixed);
	if (c->corruptions || c->leaks || c->errors)
		printf("found: %" PRIu64 " errors, %" PRIu64 " leaked clusters, %" PRIu64
		       " could not be checked\n", c->corruptions, c->leaks, c->errors);
	else
		puts("no errors");
	if (c->total_clusters)
		printf("%" PRIu64 " of %" PRIu64 " clusters allocated, %" PRIu64 " compressed, "
		       "%" PRIu64 " fragmented\n", c->allocated_clusters, c->total_clusters,
		       c->compressed_clusters, c->fragmented_clusters);
	if (c->image_end)
		printf("in use up to %s\n", cli_human(human, c->image_end));
}

int cmd_check(int argc, char **argv)
{
	struct check_args a = { 0 };
	char **args = cli_parse(&check_argp, argc, argv, &a, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_check_result result;
	struct vdisk_error err = { 0 };
	uint32_t flags = VDISK_OPEN_CHECK | VDISK_OPEN_NO_BACKING |
			 (a.flags ? VDISK_OPEN_WRITE : 0);

	if (cli_open(&disk, args[0], flags) < 0)
		return CLI_FAILED;
	if (vdisk_check(disk, a.flags, &result, report, NULL, &err) < 0)
		return cli_fail(&err);
	if (cli.json) {
		if (cli_print_json(to_json(disk, &result)) != CLI_OK)
			return CLI_FAILED;
	} else if (!cli.quiet) {
		print_text(&result);
	}
	if (cli_close(&disk) != CLI_OK)
		return CLI_FAILED;
	return result.corruptions || result.leaks || result.errors ? CLI_DIFFERENT : CLI_OK;
}
