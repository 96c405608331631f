/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* df.c - df: how full the file systems on disks are */
#include <errno.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/steady.h"

enum column { COL_NAME, COL_TYPE, COL_LABEL, COL_SIZE, COL_USED, COL_AVAIL, COL_USE, COL_IFREE };

static struct libscols_table *df_table(void)
{
	static const struct {
		const char *name;
		int flags, json;
	} columns[] = {
		{ "FILESYSTEM", 0, SCOLS_JSON_STRING },
		{ "TYPE", 0, SCOLS_JSON_STRING },
		{ "LABEL", 0, SCOLS_JSON_STRING },
		{ "SIZE", SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
		{ "USED", SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
		{ "AVAIL", SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
		{ "USE%", SCOLS_FL_RIGHT, SCOLS_JSON_STRING },
		{ "IFREE", SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	};
	struct libscols_table *t = cli_table("filesystems");

	for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
		struct libscols_column *c = scols_table_new_column(t, columns[i].name, 0,
								   columns[i].flags);

		scols_column_set_json_type(c, columns[i].json);
	}
	return t;
}

static void set_bytes(struct libscols_line *line, enum column col, uint64_t v)
{
	char buf[32];

	if (cli.json)
		snprintf(buf, sizeof(buf), "%llu", (unsigned long long)v);
	else
		cli_human(buf, v);
	scols_line_set_data(line, col, buf);
}

static int df_volume(struct libscols_table *t, struct vdisk *volume, const char *name,
		     struct vdisk_error *err)
{
	struct vdisk_fs_usage u;
	struct vdisk_probe probe = { 0 };
	struct libscols_line *line;
	struct vdisk_fs *fs;
	uint64_t used;
	char buf[32];
	int r = vdisk_fs_open(&fs, volume, 0, err);

	if (r < 0)
		return r;
	r = vdisk_fs_usage(fs, &u, err);
	vdisk_probe(volume, &probe, NULL);
	line = r == 0 ? scols_table_new_line(t, NULL) : NULL;
	if (line) {
		used = u.total > u.free ? u.total - u.free : 0;
		scols_line_set_data(line, COL_NAME, name);
		scols_line_set_data(line, COL_TYPE, vdisk_fs_type(fs));
		scols_line_set_data(line, COL_LABEL, probe.label);
		set_bytes(line, COL_SIZE, u.total);
		set_bytes(line, COL_USED, used);
		set_bytes(line, COL_AVAIL, u.available);
		snprintf(buf, sizeof(buf), "%llu%%", used + u.available ?
			 (unsigned long long)((used * 100 + used + u.available - 1) /
					      (used + u.available)) : 0ull);
		scols_line_set_data(line, COL_USE, buf);
		snprintf(buf, sizeof(buf), "%llu", (unsigned long long)u.inodes_free);
		scols_line_set_data(line, COL_IFREE, buf);
	}
	vdisk_fs_close(fs, NULL);
	return r;
}

struct df {
	struct libscols_table *table;
	const char *locator;
	unsigned shown;
	struct vdisk_error whole;	/* why the disk itself is none, if it has no parts */
};

/* A volume of the disk; what holds no file system is skipped. */
static int df_each(void *arg, const struct vdisk_volume *volume)
{
	struct df *d = arg;
	AUTO_FREE char *name = NULL;
	struct vdisk_error err = { 0 };

	if (!volume->name[0]) {
		d->shown += df_volume(d->table, volume->disk, d->locator, &d->whole) == 0;
		return 0;
	}
	if (asprintf(&name, "%s#%s", d->locator, volume->name) < 0)
		return -ENOMEM;
	if (df_volume(d->table, volume->disk, name, &err) == 0)
		d->shown++;
	else if (err.code != EMEDIUMTYPE)
		cli_note("%s", err.msg);
	return 0;
}

static int df_disk(struct libscols_table *t, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct df d = { .table = t, .locator = locator };
	struct vdisk_error err = { 0 };

	if (steady_look(&disk, locator) != CLI_OK)
		return CLI_FAILED;
	if (vdisk_each_volume(disk, df_each, &d, &err) < 0)
		return cli_fail(&err);
	return d.shown == 0 && d.whole.code ? cli_fail(&d.whole) : CLI_OK;
}

int cmd_df(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK...",
		.doc = "Show how full the file systems on disks are.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, -1);
	struct libscols_table *t = df_table();
	int status = CLI_OK;

	for (; *args; args++)
		if (df_disk(t, *args) != CLI_OK)
			status = CLI_FAILED;
	if (cli_print_table(t) != CLI_OK)
		status = CLI_FAILED;
	return status;
}
