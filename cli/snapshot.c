/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot.c - vdisk snapshot: states of a disk that its image keeps */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/commands.h"

static const struct argp snapshot_argp = {
	.children = cli_disk,
	.args_doc = "list DISK\ncreate DISK NAME\napply DISK NAME\ndelete DISK NAME",
	.doc = "Keep the state of a disk inside its image, go back to it, or drop it.\v"
	       "NAME may be the number that list shows.  DISK@NAME opens a snapshot for reading.",
};

json_t *cli_snapshot_json(const struct vdisk_snapshot *s)
{
	return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "id", s->id, "name", s->name,
			 "virtual-size", (json_int_t)s->disk_size,
			 "vm-state-size", (json_int_t)s->vm_state_size,
			 "vm-clock-ns", (json_int_t)s->vm_clock_ns,
			 "date-sec", (json_int_t)s->date_sec, "date-nsec", (json_int_t)s->date_nsec);
}

static void add_line(struct libscols_table *t, const struct vdisk_snapshot *s)
{
	struct libscols_line *line = scols_table_new_line(t, NULL);
	char text[64];
	time_t date = (time_t)s->date_sec;
	struct tm tm;

	if (!line)
		return;
	scols_line_set_data(line, 0, s->id);
	scols_line_set_data(line, 1, s->name);
	if (localtime_r(&date, &tm) && strftime(text, sizeof(text), "%F %T", &tm))
		scols_line_set_data(line, 2, text);
	scols_line_set_data(line, 3, cli_human(text, s->disk_size));
	scols_line_set_data(line, 4, cli_human(text, s->vm_state_size));
}

static int list_snapshots(struct vdisk *disk)
{
	AUTO_FREE struct vdisk_snapshot *list = NULL;
	struct vdisk_error err = { 0 };
	int n = vdisk_snapshot_list(disk, &list, &err);
	struct libscols_table *t;

	if (n < 0)
		return cli_fail(&err);
	if (cli.json) {
		json_t *array = json_array();

		for (int i = 0; i < n; i++)
			json_array_append_new(array, cli_snapshot_json(&list[i]));
		return cli_print_json(array);
	}
	t = cli_table("snapshots");
	if (!t)
		return cli_print_table(t);
	scols_table_new_column(t, "ID", 0, 0);
	scols_table_new_column(t, "NAME", 0, 0);
	scols_table_new_column(t, "DATE", 0, 0);
	scols_table_new_column(t, "SIZE", 0, SCOLS_FL_RIGHT);
	scols_table_new_column(t, "VM STATE", 0, SCOLS_FL_RIGHT);
	for (int i = 0; i < n; i++)
		add_line(t, &list[i]);
	return cli_print_table(t);
}

static const struct {
	const char *name;
	int (*run)(struct vdisk *disk, const char *name, struct vdisk_error *err);
} verbs[] = {
	{ "list", NULL },
	{ "create", vdisk_snapshot_create },
	{ "apply", vdisk_snapshot_apply },
	{ "delete", vdisk_snapshot_delete },
};

int cmd_snapshot(int argc, char **argv)
{
	char **args = cli_parse(&snapshot_argp, argc, argv, NULL, 2, 3);
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };
	size_t v = 0;

	while (v < ARRAY_SIZE(verbs) && strcmp(args[0], verbs[v].name))
		v++;
	if (v == ARRAY_SIZE(verbs))
		cli_usage("'%s' is not list, create, apply or delete", args[0]);
	if (!verbs[v].run != !args[2])
		cli_usage("'%s' takes %s", args[0], verbs[v].run ? "DISK and NAME" : "only DISK");
	if (cli_open(&disk, args[1], VDISK_OPEN_NO_BACKING |
		     (verbs[v].run ? VDISK_OPEN_WRITE : 0)) < 0)
		return CLI_FAILED;
	if (!verbs[v].run)
		return list_snapshots(disk);
	if (verbs[v].run(disk, args[2], &err) < 0)
		return cli_fail(&err);
	return cli_close(&disk);
}
