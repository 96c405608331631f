/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * info.c - vdisk info: what an image is, without its data
 *
 * A disk that another program writes to can be looked at too: there is nothing
 * to lose by reading its header, and "in-use" says that it may be changing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/commands.h"

struct info_args {
	bool chain;
};

static const struct argp_option info_options[] = {
	{ "chain", 'c', NULL, 0, "Its backing files too", 0 },
	{ "backing-chain", 0, NULL, OPTION_ALIAS, NULL, 0 },
	{ 0 },
};

static error_t parse_info(int key, char *arg UNUSED, struct argp_state *state)
{
	struct info_args *a = state->input;

	if (key != 'c')
		return ARGP_ERR_UNKNOWN;
	a->chain = true;
	return 0;
}

static const struct argp info_argp = {
	.options = info_options, .parser = parse_info, .children = cli_disk,
	.args_doc = "DISK", .doc = "Say what an image is.",
};

/* Bytes that its files take on their file systems, or -1; the disk is open without its
 * backing files. */
static json_int_t actual_size(struct vdisk *disk)
{
	unsigned n = vdisk_list_files(disk, NULL, 0);
	AUTO_FREE struct vdisk_open_file *file = calloc(n + 1, sizeof(*file));
	json_int_t sum = 0;
	struct stat st;

	if (!file || !n)
		return -1;
	vdisk_list_files(disk, file, n);
	for (unsigned i = 0; i < n; i++) {
		if (fstat(file[i].fd, &st) < 0)
			return -1;
		sum += (json_int_t)st.st_blocks * 512;
	}
	return sum;
}

static int add_item(void *arg, const struct vdisk_info_item *item)
{
	json_t *v = item->type == VDISK_INFO_STRING ? json_string(item->string) :
		    item->type == VDISK_INFO_BOOL ? json_boolean(item->uint) :
						    json_integer((json_int_t)item->uint);

	return json_object_set_new(arg, item->key, v);
}

/* A source that is no file: what there is to know of it. */
static void describe_source(json_t *o, struct vdisk *disk)
{
	json_t *facts = json_object();

	while (vdisk_below(disk))
		disk = vdisk_below(disk);
	if (vdisk_fd(disk) < 0)
		vdisk_info(disk, add_item, facts);
	if (json_object_size(facts)) {
		json_object_set_new(facts, "kind", json_string(vdisk_format(disk)));
		json_object_set(o, "source", facts);
	}
	json_decref(facts);
}

static json_t *snapshots(struct vdisk *disk)
{
	AUTO_FREE struct vdisk_snapshot *list = NULL;
	int n = vdisk_snapshot_list(disk, &list, NULL);
	json_t *array = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(array, cli_snapshot_json(&list[i]));
	return array;
}

static json_t *describe(struct vdisk *disk, bool in_use)
{
	json_t *o = json_object(), *specific = json_object(), *snaps = snapshots(disk);
	struct vdisk_limits limits;

	vdisk_get_limits(disk, &limits);
	json_object_set_new(o, "filename", json_string(vdisk_name(disk)));
	json_object_set_new(o, "format", json_string(vdisk_format(disk)));
	json_object_set_new(o, "virtual-size", json_integer((json_int_t)vdisk_size(disk)));
	if (actual_size(disk) >= 0)
		json_object_set_new(o, "actual-size", json_integer(actual_size(disk)));
	if (limits.unit)
		json_object_set_new(o, "cluster-size", json_integer((json_int_t)limits.unit));
	if (vdisk_backing_name(disk)) {
		json_object_set_new(o, "backing-filename", json_string(vdisk_backing_name(disk)));
		if (vdisk_backing_format(disk)[0])
			json_object_set_new(o, "backing-filename-format",
					    json_string(vdisk_backing_format(disk)));
	}
	json_object_set_new(o, "in-use", json_boolean(in_use));
	if (json_array_size(snaps))
		json_object_set(o, "snapshots", snaps);
	json_decref(snaps);
	vdisk_info(disk, add_item, specific);
	if (json_object_size(specific))
		json_object_set(o, "format-specific", specific);
	json_decref(specific);
	if (vdisk_below(disk))
		describe_source(o, disk);
	return o;
}

/* Open without its backing; when someone is writing to it, as it is. */
static int open_for_info(struct vdisk **out, const char *locator, bool *in_use)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .refs = cli.refs, .format = cli.format,
		.flags = VDISK_OPEN_NO_BACKING | (cli.share ? VDISK_OPEN_SHARE : 0),
	};
	struct vdisk_error err = { 0 };
	int r = vdisk_open(out, locator, &opts, &err);

	*in_use = r == -EBUSY;
	if (*in_use) {
		opts.flags |= VDISK_OPEN_SHARE;
		r = vdisk_open(out, locator, &opts, &err);
	}
	return r < 0 ? cli_fail(&err), r : 0;
}

/* The same for the backing file of @disk. */
static int next_in_chain(struct vdisk **disk, bool *in_use)
{
	uint32_t flags = VDISK_OPEN_NO_BACKING | (cli.share ? VDISK_OPEN_SHARE : 0);
	struct vdisk_error err = { 0 };
	struct vdisk *next = NULL;
	int r = vdisk_open_backing(&next, *disk, NULL, NULL, flags, &err);

	*in_use = r == -EBUSY;
	if (*in_use)
		r = vdisk_open_backing(&next, *disk, NULL, NULL, flags | VDISK_OPEN_SHARE, &err);
	if (r < 0)
		return cli_fail(&err);
	cli_close(disk);
	*disk = next;
	return CLI_OK;
}

static void print_field(const char *key, json_t *value)
{
	char human[32];

	printf("%-24s", key);
	if (json_is_string(value))
		printf("%s\n", json_string_value(value));
	else if (json_is_boolean(value))
		puts(json_is_true(value) ? "yes" : "no");
	else if (strstr(key, "size"))
		printf("%s (%" JSON_INTEGER_FORMAT " bytes)\n",
		       cli_human(human, (uint64_t)json_integer_value(value)),
		       json_integer_value(value));
	else
		printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
}

static void print_text(json_t *o)
{
	json_t *snaps = json_object_get(o, "snapshots"), *value;
	json_t *specific = json_object_get(o, "format-specific");
	json_t *source = json_object_get(o, "source");
	const char *key;
	size_t i;

	json_object_foreach(o, key, value) {
		if (value != snaps && value != specific && value != source)
			print_field(key, value);
	}
	json_object_foreach(specific, key, value) {
		if (!json_object_get(o, key))
			print_field(key, value);
	}
	json_object_foreach(source, key, value)
		print_field(key, value);
	if (!snaps)
		return;
	puts("snapshots");
	json_array_foreach(snaps, i, value)
		printf("  %-6s %s\n", json_string_value(json_object_get(value, "id")),
		       json_string_value(json_object_get(value, "name")));
}

int cmd_info(int argc, char **argv)
{
	struct info_args a = { 0 };
	char **args = cli_parse(&info_argp, argc, argv, &a, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	json_t *all = json_array();
	bool in_use;
	int status = CLI_OK;

	if (open_for_info(&disk, args[0], &in_use) < 0)
		status = CLI_FAILED;
	while (status == CLI_OK) {
		json_array_append_new(all, describe(disk, in_use));
		if (!a.chain || !vdisk_backing_name(disk))
			break;
		status = next_in_chain(&disk, &in_use);
	}
	if (status == CLI_OK && cli.json) {
		status = cli_print_json(json_incref(a.chain ? all : json_array_get(all, 0)));
	} else if (status == CLI_OK) {
		for (size_t i = 0; i < json_array_size(all); i++) {
			if (i)
				putchar('\n');
			print_text(json_array_get(all, i));
		}
	}
	json_decref(all);
	return status;
}
