/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * steady.c - see steady.h
 *
 * What a snapshot of now shows is what a power cut would have left: journals are replayed
 * when the file system in it is opened, into a throw-away layer, as always with -r.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "cli/program.h"
#include "cli/steady.h"
#include "kernel/host.h"

#define MAX_FILES 64u

/* ---- LVM ---- */

/* Run lvm(8); what it prints in @out (may be NULL). */
static int run_lvm(const char *const *argv, char *out, size_t size)
{
	int pad = out ? program_pad() : PROGRAM_NOWHERE;
	int status = program_run(argv, pad, PROGRAM_NOWHERE);

	if (out)
		program_said(&pad, out, size);
	return status == CLI_OK ? 0 : -EIO;
}

/* The volume group and logical volume of a device of device-mapper, to be freed. */
static bool lvm_names(const struct stat *st, char **vg, char **lv)
{
	struct vd_dm_device d;

	return S_ISBLK(st->st_mode) && geteuid() == 0 &&
	       vd_dm_find(&d, major(st->st_rdev), minor(st->st_rdev)) == 0 &&
	       strncmp(d.uuid, "LVM-", 4) == 0 && vd_dm_lvm_names(d.name, vg, lv);
}

/* The device of a new snapshot, to be freed; NULL: there is none. */
static char *lvm_snapshot(struct steady *s, const struct stat *st)
{
	AUTO_FREE char *vg = NULL;
	AUTO_FREE char *lv = NULL;
	AUTO_FREE char *origin = NULL;
	char type[64] = "", name[40];
	char *device = NULL;

	if (!lvm_names(st, &vg, &lv) || asprintf(&origin, "%s/%s", vg, lv) < 0)
		return NULL;
	snprintf(name, sizeof(name), "vdisk_read_%d", getpid());
	{
		const char *const ask[] = { "lvm", "lvs", "--noheadings", "-o", "segtype", origin, NULL };

		if (run_lvm(ask, type, sizeof(type)) < 0)
			return NULL;
	}
	{
		bool thin = strstr(type, "thin");
		const char *const make[] = {
			"lvm", "lvcreate", "-qq", "-y", "-s", "-n", name, thin ? "-kn" : "-l",
			thin ? "-ay" : "10%ORIGIN", origin, NULL,
		};

		if (run_lvm(make, NULL, 0) < 0)
			return NULL;
	}
	if (asprintf(&s->lvm, "%s/%s", vg, name) < 0) {
		s->lvm = NULL;
		return NULL;
	}
	if (asprintf(&device, "/dev/%s", s->lvm) < 0)
		return NULL;
	return device;
}

void steady_sweep(const char *lvm)
{
	const char *const remove[] = { "lvm", "lvremove", "-qq", "-y", lvm, NULL };

	if (run_lvm(remove, NULL, 0) < 0)
		cli_error("%s: the snapshot that was read is still there (lvremove)", lvm);
}

void steady_end(struct steady *s)
{
	if (s->lvm)
		steady_sweep(s->lvm);
	free(s->lvm);
	s->lvm = NULL;
}

/* ---- a file that shares its blocks ---- */

static unsigned layers(struct vdisk *disk)
{
	unsigned n = 1;

	while ((disk = vdisk_backing(disk)))
		n++;
	return n;
}

/* A nameless file beside @path with the same blocks, read-only; -1: not here. */
static int clone_file(const char *path, int fd)
{
	AUTO_FREE char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL, proc[40];
	AUTO_CLOSE int copy = -1;

	if (!dir)
		return -1;
	if (slash)
		slash[slash == dir] = '\0';
	copy = open(slash ? dir : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (copy < 0 || ioctl(copy, FICLONE, fd) < 0)
		return -1;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", copy);
	return open(proc, O_RDONLY | O_CLOEXEC);
}

/* The same image on a clone of its top file; what is below that nobody writes. */
static struct vdisk *open_clone(struct vdisk *live, const char *locator)
{
	struct vdisk_open_file file[MAX_FILES];
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE, .format = cli.format,
		.refs = cli.refs, .block_size = cli.block_size, .files = file,
	};
	struct vdisk *disk = NULL;
	AUTO_CLOSE int fd = -1;

	opts.n_files = vdisk_list_files(live, file, MAX_FILES);
	/* one that keeps its data in another file is of two moments */
	if (!opts.n_files || opts.n_files > MAX_FILES || opts.n_files != layers(live))
		return NULL;
	fd = clone_file(file[0].path, file[0].fd);
	if (fd < 0)
		return NULL;
	file[0].fd = fd;
	return vdisk_open(&disk, locator, &opts, NULL) < 0 ? NULL : disk;
}

/* ---- a snapshot in the image ---- */

static void age_text(char out[40], int64_t seconds)
{
	if (seconds < 120)
		snprintf(out, 40, "%d s", (int)seconds);
	else if (seconds < 7200)
		snprintf(out, 40, "%d min", (int)(seconds / 60));
	else if (seconds < 2 * 86400)
		snprintf(out, 40, "%d h", (int)(seconds / 3600));
	else
		snprintf(out, 40, "%d days", (int)(seconds / 86400));
}

/* The newest one's locator, to be freed, and what is to be said of it; NULL: there is none. */
static char *newest_snapshot(struct vdisk *live, const char *locator, char about[200])
{
	AUTO_FREE struct vdisk_snapshot *v = NULL;
	struct vdisk_locator loc = { 0 };
	char *text = NULL, age[40];
	int n = vdisk_snapshot_list(live, &v, NULL), newest = 0;

	for (int i = 1; i < n; i++)
		if (v[i].date_sec > v[newest].date_sec ||
		    (v[i].date_sec == v[newest].date_sec && v[i].date_nsec >= v[newest].date_nsec))
			newest = i;
	if (n <= 0 || vdisk_locator_parse(&loc, locator, NULL) < 0)
		return NULL;
	if (!loc.snapshot) {
		loc.snapshot = strdup(v[newest].id);
		text = vdisk_locator_format(&loc);
	}
	vdisk_locator_clear(&loc);
	age_text(age, MAX((int64_t)time(NULL) - v[newest].date_sec, 0));
	snprintf(about, 200, "read is its snapshot '%.128s', %s old", v[newest].name, age);
	return text;
}

/* That one, open; which it is, is said.  NULL: there is none. */
static struct vdisk *open_snapshot(struct vdisk *live, const char *locator, const char *who)
{
	char about[200];
	AUTO_FREE char *text = newest_snapshot(live, locator, about);
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE, .format = cli.format,
		.refs = cli.refs, .block_size = cli.block_size,
	};
	struct vdisk *disk = NULL;

	if (!text || vdisk_open(&disk, text, &opts, NULL) < 0)
		return NULL;
	cli_note("%s: %s", who, about);
	return disk;
}

/* ---- which way ---- */

/* By whom a device is written, as far as the kernel tells. */
static bool device_busy(const struct stat *st, char *how, size_t size)
{
	if (!S_ISBLK(st->st_mode))
		return false;
	if (vd_in_use(st, how, size))
		return true;
	if (vd_dm_opened(major(st->st_rdev), minor(st->st_rdev)) <= 0)
		return false;
	snprintf(how, size, "open in another program");
	vd_opener_of(st, how + strlen(how), size - strlen(how));
	return true;
}

static bool source_stat(const char *locator, struct stat *st, bool *whole)
{
	struct vdisk_locator loc = { 0 };
	bool ok;

	if (vdisk_locator_parse(&loc, locator, NULL) < 0)
		return false;
	ok = stat(loc.source, st) == 0;
	*whole = !loc.snapshot && !loc.part && !loc.path;
	vdisk_locator_clear(&loc);
	return ok;
}

static void now_text(char out[16])
{
	time_t now = time(NULL);
	struct tm tm;

	strftime(out, 16, "%H:%M:%S", localtime_r(&now, &tm));
}

/* @who: "DISK: in use by ..." */
static int open_other(struct vdisk **out, struct steady *s, const char *locator,
		      const struct stat *st, const char *who)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE, .format = cli.format,
		.refs = cli.refs, .block_size = cli.block_size,
	};
	AUTO_DISK struct vdisk *live = NULL;
	AUTO_FREE char *device = NULL;
	struct vdisk_error err = { 0 };
	char now[16];

	now_text(now);
	if (st && (device = lvm_snapshot(s, st))) {
		if (vdisk_open(out, device, &opts, &err) < 0)
			return cli_fail(&err);
		cli_note("%s: read is an LVM snapshot of %s (%s), as after a power cut", who, now,
			 s->lvm);
		return CLI_OK;
	}
	if (vdisk_open(&live, locator, &opts, &err) < 0)
		return cli_fail(&err);
	if ((*out = open_clone(live, locator))) {
		cli_note("%s: read is how it was at %s, as after a power cut", who, now);
		return CLI_OK;
	}
	if ((*out = open_snapshot(live, locator, who)))
		return CLI_OK;
	if (!cli.share && !(st && S_ISBLK(st->st_mode))) {
		cli_error("%s; there is no snapshot to read, and none can be made; --force-share "
			  "reads it as it is, maybe torn", who);
		return CLI_FAILED;
	}
	cli_note("%s: read is what is there at each moment, which may be torn", who);
	*out = STEAL(live);
	return CLI_OK;
}

static int try_open(struct vdisk **out, const char *locator, struct vdisk_error *err)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .format = cli.format, .refs = cli.refs,
		.block_size = cli.block_size,
	};
	struct vdisk *with[CLI_WITH_MAX];
	int r = cli_with_open(with, &opts.n_with, 0, err);

	if (r < 0)
		return r;
	opts.with = with;
	r = vdisk_open(out, locator, &opts, err);
	cli_with_close(with, opts.n_with);
	return r;
}

bool steady_needed(const char *locator)
{
	struct vdisk *disk;
	int r = try_open(&disk, locator, NULL);

	if (r == 0)
		vdisk_close(disk, NULL);
	return r == -EBUSY;
}

int steady_open(struct vdisk **out, struct steady *s, const char *locator)
{
	struct vdisk_error err = { 0 };
	char how[300], who[700];
	struct stat st;
	bool whole;
	int r;

	*s = (struct steady) { 0 };
	if (source_stat(locator, &st, &whole) && whole && device_busy(&st, how, sizeof(how))) {
		snprintf(who, sizeof(who), "%s: %s", locator, how);
		return open_other(out, s, locator, &st, who);
	}
	r = try_open(out, locator, &err);
	if (r != -EBUSY)
		return r < 0 ? cli_fail(&err) : CLI_OK;
	snprintf(who, sizeof(who), "%.*s", (int)strcspn(err.msg, ";"), err.msg);
	return open_other(out, s, locator, NULL, who);
}

int steady_look(struct vdisk **out, const char *locator)
{
	struct steady s = { 0 };
	struct vdisk_error err = { 0 };
	char who[700], how[300];
	struct stat st;
	bool whole;
	int r;

	if (cli.share)
		return cli_open(out, locator, 0) < 0 ? CLI_FAILED : CLI_OK;
	r = try_open(out, locator, &err);
	if (r == 0 && source_stat(locator, &st, &whole) && device_busy(&st, how, sizeof(how)))
		cli_note("%s: %s: read is what is there at each moment, which may be torn", locator,
			 how);
	if (r != -EBUSY)
		return r < 0 ? cli_fail(&err) : CLI_OK;
	snprintf(who, sizeof(who), "%.*s", (int)strcspn(err.msg, ";"), err.msg);
	return open_other(out, &s, locator, NULL, who);
}

char *steady_locator(const char *locator)
{
	const struct vdisk_open_opts share = {
		.size = sizeof(share), .flags = VDISK_OPEN_SHARE, .format = cli.format,
		.refs = cli.refs, .block_size = cli.block_size,
	};
	AUTO_DISK struct vdisk *disk = NULL, *live = NULL, *snapshot = NULL;
	struct vdisk_error err = { 0 };
	AUTO_FREE char *text = NULL;
	char about[200];

	if (!cli.share && try_open(&disk, locator, &err) == -EBUSY &&
	    vdisk_open(&live, locator, &share, NULL) == 0)
		text = newest_snapshot(live, locator, about);
	if (!text || vdisk_open(&snapshot, text, &share, NULL) < 0)
		return strdup(locator);
	err.msg[strcspn(err.msg, ";")] = '\0';
	cli_note("%s: %s", err.msg, about);
	return STEAL(text);
}
