/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* attach.c - vdisk attach, detach, attached: a disk and its volumes as block devices */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/running.h"
#include "cli/steady.h"

struct attach_args {
	bool read_only, deferred, snapshot;
};

enum { OPT_SNAPSHOT = 0x3100 };

static error_t parse_attach(int key, char *arg, struct argp_state *state)
{
	struct attach_args *a = state->input;

	(void)arg;
	switch (key) {
	case 'r':
		a->read_only = true;
		return 0;
	case 'D':
		a->deferred = true;
		return 0;
	case OPT_SNAPSHOT:
		a->snapshot = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- what is there, for people and for JSON ---- */

static json_t *device_json(const char *path, const char *volume)
{
	return json_pack("{s:s, s:s}", "device", path, "volume", volume);
}

static int print_disk(json_t *disk)
{
	size_t i;
	json_t *d;

	if (cli.json)
		return cli_print_json(disk);
	json_array_foreach(json_object_get(disk, "devices"), i, d) {
		const char *volume = json_string_value(json_object_get(d, "volume"));

		printf("%s%s%s\n", json_string_value(json_object_get(d, "device")),
		       *volume ? "  " : "", volume);
	}
	json_decref(disk);
	return CLI_OK;
}

/* ---- attach ---- */

struct attach {
	struct host_disk h;
	const struct attach_args *a;
	struct vdisk *disk;	/* borrowed */
	json_t *devices;
	int status;
};

/* "p1" for a partition as kpartx has it, "-VG-LV" for a logical volume. */
static void volume_names(const struct attach *t, const struct vdisk_volume *v, char name[400],
			 char id[300])
{
	size_t n;

	if (v->part) {
		snprintf(name, 400, "%s%s%u", t->h.name, host_delimiter(&t->h), v->part->number);
		snprintf(id, 300, "part%u", v->part->number);
		return;
	}
	snprintf(name, 400, "%s-%s", t->h.name, v->name);
	snprintf(id, 300, "lv-%s", v->name);
	for (n = 0; name[n]; n++)
		if (name[n] == '/')
			name[n] = '-';
	for (n = 0; id[n]; n++)
		if (id[n] == '/')
			id[n] = '-';
}

/* Without device-mapper: a loop device on the disk's, for a volume that is one run of it. */
static int loop_volume(void *arg, const struct vdisk_volume *v)
{
	struct attach *t = arg;
	AUTO_FREE struct vd_dm_segment *segments = NULL;
	bool read_only = t->a->read_only || (v->lv && !v->lv->writable);
	struct vdisk_error err = { 0 };
	struct vd_loop loop;
	unsigned long long at = 0;
	char path[32];
	AUTO_CLOSE int fd = -1;
	int n;

	if (!v->lv)		/* the kernel makes partitions */
		return 0;
	n = vd_dm_table(&segments, v->disk, t->disk, t->h.major, t->h.minor, &err);
	if (n > 1)
		snprintf(err.msg, sizeof(err.msg), "it is in %d pieces, which takes device-mapper, "
			 "and there is none here (modprobe dm-mod)", n);
	if (n != 1 || sscanf(segments[0].params, "%*u:%*u %llu", &at) != 1) {
		cli_note("%s: no device is made: %s", v->name, err.msg);
		return 0;
	}
	fd = open(t->h.device, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0) {
		cli_error("%s: %m", t->h.device);
		t->status = CLI_FAILED;
		return 0;
	}
	if (vd_loop_attach(&loop, fd, v->name, at * 512, segments[0].length * 512, 0,
			   read_only ? VD_LOOP_READ_ONLY : 0, &err) < 0) {
		t->status = cli_fail(&err);
		return 0;
	}
	close(loop.fd);
	snprintf(path, sizeof(path), "/dev/loop%d", loop.number);
	json_array_append_new(t->devices, device_json(path, v->name));
	return 0;
}

static int attach_volume(void *arg, const struct vdisk_volume *v)
{
	struct attach *t = arg;
	AUTO_FREE struct vd_dm_segment *segments = NULL;
	struct vdisk_error err = { 0 };
	struct vd_dm_device d;
	char name[400], id[300], path[420];
	int n;

	if (!v->name[0])	/* all of the disk */
		return 0;
	volume_names(t, v, name, id);
	n = vd_dm_table(&segments, v->disk, t->disk, t->h.major, t->h.minor, &err);
	if (n < 0) {
		cli_note("%s: no device is made: %s", v->name, err.msg);
		return 0;
	}
	if (host_map_set(&d, &t->h, name, id, segments, (unsigned)n,
			 t->a->read_only || (v->lv && !v->lv->writable), true) != CLI_OK) {
		t->status = CLI_FAILED;
		return 0;
	}
	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	json_array_append_new(t->devices, device_json(path, v->name));
	return 0;
}

#define NODE_MS	1000	/* until there is a node of a partition that the kernel has */

/* Is there a node of a partition?  Where the kernel does not know it, no wait helps. */
static bool partition_node(const char *path, unsigned *waited)
{
	AUTO_FREE char *known = NULL;

	if (asprintf(&known, "/sys/class/block/%s", path + strlen("/dev/")) < 0)
		return false;
	for (; access(path, F_OK) < 0; *waited += 5) {
		if (access(known, F_OK) < 0 || *waited >= NODE_MS)
			return false;
		usleep(5000);
	}
	return true;
}

/*
 * Without device-mapper the partitions are the kernel's: those it finds itself, and, as it
 * may not know the kind of table, those that we tell it of.
 */
static void kernel_partitions(struct attach *t)
{
	struct vdisk_error err = { 0 };
	struct vdisk_parts *parts = NULL;
	unsigned waited = 0;
	char path[200], name[16];

	if (vd_loop_partitions(t->h.device, &err) < 0) {
		cli_note("%s", err.msg);
		return;
	}
	if (vdisk_parts_read(&parts, t->disk, &err) < 0)
		return;
	for (unsigned i = 0; i < parts->count; i++) {
		const struct vdisk_part *p = &parts->part[i];

		snprintf(path, sizeof(path), "%s%s%u", t->h.device, host_delimiter(&t->h),
			 p->number);
		snprintf(name, sizeof(name), "p%u", p->number);
		if (!p->extended)
			vd_loop_add_partition(t->h.device, p->number, p->offset, p->length);
		if (partition_node(path, &waited))
			json_array_append_new(t->devices, device_json(path, name));
		else if (!p->extended)
			cli_note("%s: no device is made: the kernel does not take it", name);
	}
	free(parts);
}

/* ---- what is attached already ---- */

static bool is_read_only(const struct stat *st)
{
	char path[64], c = '0';
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/ro", major(st->st_rdev),
		 minor(st->st_rdev));
	f = fopen(path, "re");
	if (f) {
		c = (char)getc(f);
		fclose(f);
	}
	return c == '1';
}

struct otherwise {
	bool read_only;
	char path[160];		/* the first device that is the other thing */
};

static int look_at_map(void *arg, const struct vd_dm_device *d)
{
	struct otherwise *o = arg;
	struct stat st = { .st_rdev = makedev(d->major, d->minor) };

	/* (a volume of LVM may be one that nobody writes) */
	if (strncmp(d->uuid, "part", 4) != 0 || is_read_only(&st) == o->read_only)
		return 0;
	snprintf(o->path, sizeof(o->path), "/dev/mapper/%s", d->name);
	return 1;
}

/* A device that can be written is no answer to -r, nor one that cannot to its absence. */
static int check_attached(const struct attach *t)
{
	struct host_disk h = t->h;
	struct otherwise o = { .read_only = t->a->read_only || t->a->snapshot };
	struct stat st;

	if (!host_disk_find(&h))
		return CLI_OK;
	/* a device that is not ours is what it is */
	if (!(h.plain && S_ISBLK(h.st.st_mode)) && stat(h.device, &st) == 0 &&
	    is_read_only(&st) != o.read_only)
		snprintf(o.path, sizeof(o.path), "%s", h.device);
	else if (vd_dm_available(NULL) == 0 && !t->a->snapshot)
		host_each_map(&h, look_at_map, &o);
	if (!o.path[0])
		return CLI_OK;
	cli_error("%s: is attached %s already, as %s: detach it first", h.locator,
		  o.read_only ? "for writing" : "read-only", o.path);
	return CLI_FAILED;
}

static int attach(struct attach *t, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE,
		.format = t->h.plain ? "raw" : cli.format, .refs = cli.refs,
	};
	struct vdisk_error err = { 0 };
	bool dm = vd_dm_available(NULL) == 0;
	int r;

	if (check_attached(t) != CLI_OK)
		return CLI_FAILED;
	/* of a file that somebody writes, what is attached is a view of a snapshot */
	if (t->a->read_only && S_ISREG(t->h.st.st_mode) && t->h.plain && steady_needed(locator))
		t->h.plain = false;
	if (host_disk_make(&t->h, t->a->read_only || t->a->snapshot, true) != CLI_OK)
		return CLI_FAILED;
	if (t->a->snapshot && host_disk_snapshot(&t->h) != CLI_OK) {
		host_disk_drop(&t->h, false);
		return CLI_FAILED;
	}
	if (vdisk_open(&disk, locator, &opts, &err) < 0)
		return cli_fail(&err);
	t->disk = disk;
	json_array_append_new(t->devices, device_json(t->h.device, ""));
	if (!dm)
		kernel_partitions(t);
	vd_dm_hold();
	r = vdisk_each_volume(disk, dm ? attach_volume : loop_volume, t, &err);
	vd_dm_settle();
	return r < 0 ? cli_fail(&err) : t->status;
}

int cmd_attach(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "read-only", 'r', NULL, 0, "Read-only devices", 0 },
		{ "snapshot", OPT_SNAPSHOT, NULL, 0,
		  "Devices that can be written; the disk is not, and what is written is thrown away",
		  0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_attach, .children = cli_disk,
		.args_doc = "DISK",
		.doc = "Make block devices of a disk, its partitions and its logical volumes, and "
		       "print their names.",
	};
	struct attach_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, 1);
	struct attach t = { .a = &a };
	json_t *all;

	running_sweep();
	if (host_disk_open(&t.h, args[0]) != CLI_OK)
		return CLI_FAILED;
	t.devices = json_array();
	if (attach(&t, args[0]) != CLI_OK) {
		json_decref(t.devices);
		return CLI_FAILED;
	}
	all = json_pack("{s:s, s:o}", "disk", args[0], "devices", t.devices);
	return print_disk(all);
}

/* ---- detach ---- */

struct detach {
	unsigned flags;
	int status;
};

static int detach_map(void *arg, const struct vd_dm_device *d)
{
	struct detach *t = arg;
	struct vdisk_error err = { 0 };

	if (vd_dm_remove(d->name, t->flags, &err) < 0)
		t->status = cli_fail(&err);
	return 0;
}

/* The snapshot over a disk's device, with the maps on it. */
static int detach_snapshot(struct detach *t, const struct host_disk *h)
{
	struct host_disk snapshot = *h;
	struct vdisk_error err = { 0 };

	if (!host_disk_find_snapshot(&snapshot))
		return CLI_OK;
	if (host_each_map(&snapshot, detach_map, t) < 0)
		return CLI_FAILED;
	if (t->status == CLI_OK && vd_dm_remove(snapshot.name, t->flags, &err) < 0)
		t->status = cli_fail(&err);
	return CLI_OK;
}

/* Call @each for the loop devices of volumes on the disk's device; they may go meanwhile. */
static int each_volume_loop(const struct host_disk *h, int (*each)(void *arg, int number), void *arg)
{
	int number[64], n = 0, r = 0;
	struct stat st;

	if (stat(h->device, &st) < 0)
		return 0;
	while (n < (int)ARRAY_SIZE(number) && (number[n] = vd_loop_of(&st, n)) >= 0)
		n++;
	for (int i = 0; r == 0 && i < n; i++)
		r = each(arg, number[i]);
	return r;
}

static int detach_loop(void *arg, int number)
{
	struct detach *t = arg;
	struct vdisk_error err = { 0 };
	char path[32], how[300];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/loop%d", number);
	if (stat(path, &st) == 0 && vd_in_use(&st, how, sizeof(how))) {
		cli_error("%s: is in use: %s", path, how);
		t->status = CLI_FAILED;
		return 1;
	}
	if (vd_loop_detach(number, &err) < 0)
		t->status = cli_fail(&err);
	return 0;
}

static int detach(const char *locator, const struct attach_args *a)
{
	struct detach t = { .flags = a->deferred ? VD_DM_DEFERRED : VD_DM_RETRY };
	struct host_disk h;
	char how[300];
	int status;

	if (host_disk_open(&h, locator) != CLI_OK)
		return CLI_FAILED;
	if (!host_disk_find(&h)) {
		cli_error("%s: is not attached", locator);
		return CLI_FAILED;
	}
	if (vd_dm_available(NULL) == 0) {
		vd_dm_hold();
		status = detach_snapshot(&t, &h);
		if (status == CLI_OK && host_each_map(&h, detach_map, &t) < 0)
			status = CLI_FAILED;
		vd_dm_settle();
		if (status != CLI_OK)
			return status;
	} else {
		struct stat st;

		each_volume_loop(&h, detach_loop, &t);
		if (t.status == CLI_OK && stat(h.device, &st) == 0 && vd_in_use(&st, how, sizeof(how))) {
			cli_error("%s: %s is in use: %s", locator, h.device, how);
			return CLI_FAILED;
		}
	}
	return t.status == CLI_OK ? host_disk_drop(&h, false) : t.status;
}

/* A device that attach printed stands for its disk. */
struct by_name {
	const char *name;
	char *disk;
};

static int match_view(void *arg, struct running *r)
{
	struct by_name *b = arg;
	const char *disk = running_string(r, "disk");
	struct host_disk h;

	if (!r->alive || strcmp(running_string(r, "kind"), "view") != 0 ||
	    host_disk_open(&h, disk) != CLI_OK || !host_disk_find(&h) ||
	    strncmp(b->name, h.name, strlen(h.name)) != 0)
		return 0;
	b->disk = strdup(disk);
	return 1;
}

int cmd_detach(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "deferred", 'D', NULL, 0, "Devices that are busy go with their last user", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_attach, .children = cli_disk,
		.args_doc = "DISK|DEVICE",
		.doc = "Take the block devices of a disk away, and wait until all is saved.",
	};
	struct attach_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, 1);
	const char *name = strrchr(args[0], '/');
	struct by_name b = { .name = name ? name + 1 : args[0] };
	int status;

	running_sweep();
	if (!strncmp(args[0], "/dev/", 5) || access(args[0], F_OK) < 0)
		running_each(match_view, &b);
	status = detach(b.disk ? b.disk : args[0], &a);
	free(b.disk);
	return status;
}

/* ---- attached ---- */

static int list_map(void *arg, const struct vd_dm_device *d)
{
	char path[160];

	snprintf(path, sizeof(path), "/dev/mapper/%s", d->name);
	json_array_append_new(arg, json_string(path));
	return 0;
}

static int list_loop(void *arg, int number)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/loop%d", number);
	json_array_append_new(arg, json_string(path));
	return 0;
}

static int list_view(void *arg, struct running *r)
{
	const char *disk = running_string(r, "disk");
	json_t *devices, *one;
	struct host_disk h;

	if (!r->alive || strcmp(running_string(r, "kind"), "view") != 0 ||
	    host_disk_open(&h, disk) != CLI_OK || !host_disk_find(&h))
		return 0;
	devices = json_array();
	json_array_append_new(devices, json_string(h.device));
	if (vd_dm_available(NULL) == 0) {
		struct host_disk snapshot = h;

		host_each_map(&h, list_map, devices);
		if (host_disk_find_snapshot(&snapshot)) {
			json_array_append_new(devices, json_string(snapshot.device));
			host_each_map(&snapshot, list_map, devices);
		}
	}
	if (vd_dm_available(NULL) < 0)
		each_volume_loop(&h, list_loop, devices);
	one = json_pack("{s:s, s:o, s:i, s:o}", "disk", disk, "devices", devices, "pid",
			(int)running_number(r, "pid"), "read-only",
			json_boolean(json_is_true(json_object_get(r->info, "read-only"))));
	json_array_append_new(arg, one);
	return 0;
}

int cmd_attached(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .doc = "List the disks that are attached, and their devices.",
	};
	json_t *all = json_array(), *one, *d;
	size_t i, j;

	cli_parse(&argp, argc, argv, NULL, 0, 0);
	running_sweep();
	running_each(list_view, all);
	if (cli.json)
		return cli_print_json(all);
	json_array_foreach(all, i, one) {
		printf("%s%s\n", json_string_value(json_object_get(one, "disk")),
		       json_is_true(json_object_get(one, "read-only")) ? " (read-only)" : "");
		json_array_foreach(json_object_get(one, "devices"), j, d)
			printf("  %s\n", json_string_value(d));
	}
	json_decref(all);
	return CLI_OK;
}
