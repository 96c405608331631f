/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* host_disk.c - a disk's block device and the maps on it; see attached.h */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "cli/attached.h"
#include "cli/running.h"

/* What stands for "no device-mapper device" in the UUIDs of maps. */
#define PLAIN_UUID "devnode_%u:%u_Wh5pYvM"

static bool is_plain(const char *locator, struct stat *st)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE | VDISK_OPEN_NO_BACKING,
		.format = cli.format, .refs = cli.refs,
	};
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err;
	bool plain = false;

	if (vdisk_locator_parse(&loc, locator, &err) < 0)
		return false;
	if (!loc.snapshot && !loc.part && !loc.path && stat(loc.source, st) == 0) {
		if (S_ISBLK(st->st_mode))
			plain = true;
		else if (S_ISREG(st->st_mode) && vdisk_open(&disk, locator, &opts, &err) == 0)
			plain = !strcmp(vdisk_format(disk), "raw");
	}
	vdisk_locator_clear(&loc);
	return plain;
}

int host_disk_open(struct host_disk *h, const char *locator)
{
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	int status = CLI_OK;

	*h = (struct host_disk) { .locator = locator };
	if (vdisk_locator_parse(&loc, locator, &err) < 0)
		return cli_fail(&err);
	if (stat(loc.source, &h->st) < 0) {
		cli_error("%s: %m", loc.source);
		status = CLI_FAILED;
	} else if (!S_ISREG(h->st.st_mode) && !S_ISBLK(h->st.st_mode)) {
		cli_error("%s: neither a file nor a block device", loc.source);
		status = CLI_FAILED;
	} else {
		h->plain = is_plain(locator, &h->st);
	}
	vdisk_locator_clear(&loc);
	return status;
}

const char *host_delimiter(const struct host_disk *h)
{
	size_t n = strlen(h->name);

	return n && h->name[n - 1] >= '0' && h->name[n - 1] <= '9' ? "p" : "";
}

/* ---- its device ---- */

struct by_dev {
	unsigned major, minor;
	struct vd_dm_device found;
};

static int match_dev(void *arg, const struct vd_dm_device *d)
{
	struct by_dev *b = arg;

	if (d->major != b->major || d->minor != b->minor)
		return 0;
	b->found = *d;
	return 1;
}

/* What identifies the disk in the UUIDs of its maps. */
static void find_uuid(struct host_disk *h)
{
	struct by_dev b = { .major = h->major, .minor = h->minor };

	snprintf(h->uuid, sizeof(h->uuid), PLAIN_UUID, h->major, h->minor);
	if (h->major == 7 || vd_dm_available(NULL) < 0 || vd_dm_each(match_dev, &b, NULL) != 1)
		return;
	/* whatever symbolic link it was given by */
	snprintf(h->name, sizeof(h->name), "%s", b.found.name);
	if (b.found.uuid[0])
		snprintf(h->uuid, sizeof(h->uuid), "%s", b.found.uuid);
}

static void use_loop(struct host_disk *h, int number)
{
	snprintf(h->device, sizeof(h->device), "/dev/loop%d", number);
	snprintf(h->name, sizeof(h->name), "loop%d", number);
	h->major = 7;
	h->minor = (unsigned)number;
	find_uuid(h);
}

/* @st is the device's. */
static void use_device(struct host_disk *h, const char *device)
{
	const char *name = strrchr(device, '/');

	snprintf(h->device, sizeof(h->device), "%s", device);
	snprintf(h->name, sizeof(h->name), "%s", name ? name + 1 : device);
	h->major = major(h->st.st_rdev);
	h->minor = minor(h->st.st_rdev);
	find_uuid(h);
}

bool host_disk_find(struct host_disk *h)
{
	AUTO_FREE char *view = NULL;
	int n;

	if (h->plain && S_ISBLK(h->st.st_mode)) {
		use_device(h, h->locator);
		return true;
	}
	n = h->plain ? vd_loop_of(&h->st, 0) : -1;
	/* a plain file, too, may have a view: of its snapshot */
	if (n < 0) {
		view = view_find(h->locator);
		if (!view || stat(view, &h->st) < 0)
			return false;
		if (S_ISBLK(h->st.st_mode)) {	/* NBD */
			use_device(h, view);
			return true;
		}
		n = vd_loop_of(&h->st, 0);
	}
	if (n >= 0)
		use_loop(h, n);
	return n >= 0;
}

void host_disk_guess(struct host_disk *h)
{
	use_loop(h, vd_loop_next());
}

/* A writer that holds the image's lock keeps us off. */
static int check_unused(const char *file)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_WRITE, .format = "raw",
	};
	struct vdisk_error err = { 0 };
	struct vdisk *disk;

	if (access(file, W_OK) < 0)
		return CLI_OK;
	if (vdisk_open(&disk, file, &opts, &err) < 0)
		return cli_fail(&err);
	vdisk_close(disk, NULL);
	return CLI_OK;
}

static int attach_loop(struct host_disk *h, const char *file, bool read_only)
{
	struct vdisk_error err = { 0 };
	AUTO_CLOSE int fd = open(file, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	AUTO_FREE char *real = realpath(file, NULL);
	struct vd_loop loop;

	if (fd < 0 && !read_only && (errno == EROFS || errno == EACCES)) {
		read_only = true;
		fd = open(file, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0) {
		cli_error("%s: %m", file);
		return CLI_FAILED;
	}
	if (vd_loop_attach(&loop, fd, real ? real : file, 0, 0, 0,
			   read_only ? VD_LOOP_READ_ONLY : 0, &err) < 0)
		return cli_fail(&err);
	close(loop.fd);
	use_loop(h, loop.number);
	return CLI_OK;
}

int host_disk_make(struct host_disk *h, bool read_only, bool keep_lock)
{
	AUTO_FREE char *view = NULL;
	const char *file = h->locator;
	int status;

	if (host_disk_find(h))
		return CLI_OK;
	if (!h->plain || keep_lock) {
		view = view_start(h->locator, read_only, h->plain);
		if (!view)
			return CLI_FAILED;
		file = view;
		if (!h->plain && host_disk_find(h))	/* by NBD */
			return CLI_OK;
	} else if (!read_only && check_unused(file) != CLI_OK) {
		return CLI_FAILED;
	}
	status = attach_loop(h, file, read_only);
	if (status != CLI_OK)
		view_stop(h->locator);
	return status;
}

int host_disk_drop(struct host_disk *h, bool verbose)
{
	struct vdisk_error err = { 0 };
	char how[300];

	if (h->plain && S_ISBLK(h->st.st_mode))
		return CLI_OK;
	if (S_ISBLK(h->st.st_mode)) {		/* NBD, which goes with the view */
		if (vd_in_use(&h->st, how, sizeof(how))) {
			cli_error("%s: is in use: %s", h->device, how);
			return CLI_FAILED;
		}
	} else if (h->device[0]) {
		if (vd_loop_detach((int)h->minor, &err) < 0)
			return cli_fail(&err);
		if (verbose)
			printf("loop deleted : %s\n", h->device);
	}
	return view_stop(h->locator);
}

/* ---- its maps ---- */

int host_map_set(struct vd_dm_device *out, const struct host_disk *h, const char *name,
		 const char *id, const struct vd_dm_segment *segments, unsigned n,
		 bool read_only, bool wait)
{
	struct vdisk_error err = { 0 };
	char uuid[200];

	snprintf(uuid, sizeof(uuid), "%s-%s", id, h->uuid);
	if (vd_dm_set(out, name, uuid, segments, n, read_only, wait, &err) < 0)
		return cli_fail(&err);
	return CLI_OK;
}

struct maps {
	const struct host_disk *h;
	struct vd_dm_device *v;	/* owned */
	size_t n;
};

/* Is it one of the disk's?  Its UUID ends in the disk's, its table is on the device. */
static int collect(void *arg, const struct vd_dm_device *d)
{
	struct maps *m = arg;
	size_t len = strlen(d->uuid), end = strlen(m->h->uuid);
	struct vd_dm_device *v;

	if ((strncmp(d->uuid, "part", 4) != 0 && strncmp(d->uuid, "lv", 2) != 0) ||
	    len <= end || d->uuid[len - end - 1] != '-' ||
	    strcmp(d->uuid + len - end, m->h->uuid) != 0 ||
	    !vd_dm_is_linear_on(d->name, m->h->major, m->h->minor))
		return 0;
	v = reallocarray(m->v, m->n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	m->v = v;
	v[m->n++] = *d;
	return 0;
}

int host_each_map(const struct host_disk *h,
		  int (*each)(void *arg, const struct vd_dm_device *d), void *arg)
{
	struct maps m = { .h = h };
	struct vdisk_error err = { 0 };
	int r = vd_dm_each(collect, &m, &err);

	if (r < 0) {
		free(m.v);
		if (err.code)
			cli_fail(&err);
		return -1;
	}
	for (size_t i = 0; r == 0 && i < m.n; i++)
		r = each(arg, &m.v[i]);
	free(m.v);
	return r;
}

static int sweep_map(void *arg, const struct vd_dm_device *d)
{
	(void)arg;
	return vd_dm_remove(d->name, VD_DM_DEFERRED, NULL) < 0;
}

void host_disk_sweep(const char *view)
{
	const char *name = strrchr(view, '.');
	struct host_disk h = { .locator = view };
	int n;

	if (!strncmp(view, "/dev/nbd", 8) && stat(view, &h.st) == 0) {
		use_device(&h, view);
		if (vd_dm_available(NULL) == 0)
			host_each_map(&h, sweep_map, NULL);
		return;
	}
	if (!name || strcmp(name, ".img") != 0)		/* a plain file, which is whole */
		return;
	n = vd_loop_on_name(view);
	if (n >= 0) {
		use_loop(&h, n);
		if (vd_dm_available(NULL) == 0)
			host_each_map(&h, sweep_map, NULL);
		vd_loop_detach(n, NULL);
	}
	running_unmount_dead(view);
	unlink(view);
}

/* ---- a throw-away snapshot of it ---- */

#define SNAPSHOT_CHUNK	"8"	/* sectors */

static void use_map(struct host_disk *h, const struct vd_dm_device *d)
{
	snprintf(h->name, sizeof(h->name), "%s", d->name);
	snprintf(h->device, sizeof(h->device), "/dev/mapper/%s", d->name);
	snprintf(h->uuid, sizeof(h->uuid), "%s", d->uuid);
	h->major = d->major;
	h->minor = d->minor;
}

struct by_uuid {
	char uuid[170];
	struct vd_dm_device found;
};

static int match_uuid(void *arg, const struct vd_dm_device *d)
{
	struct by_uuid *b = arg;

	if (strcmp(d->uuid, b->uuid) != 0)
		return 0;
	b->found = *d;
	return 1;
}

bool host_disk_find_snapshot(struct host_disk *h)
{
	struct by_uuid b;

	snprintf(b.uuid, sizeof(b.uuid), "snap-%s", h->uuid);
	if (vd_dm_each(match_uuid, &b, NULL) != 1)
		return false;
	use_map(h, &b.found);
	return true;
}

/* Where the changes go: sparse, as large as all of the disk needs, and without a name. */
static int changes_device(struct vd_loop *loop, uint64_t size, struct vdisk_error *err)
{
	const char *dir = getenv("TMPDIR");
	AUTO_FREE char *path = NULL;
	AUTO_CLOSE int fd = -1;

	if (!dir || !*dir)
		dir = "/var/tmp";
	if (asprintf(&path, "%s/vdisk-XXXXXX", dir) < 0)
		return CLI_FAILED;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	if (fd < 0 || ftruncate(fd, (off_t)(size + size / 64 + (1u << 20))) < 0) {
		cli_error("%s: no room for the changes: %m", dir);
		return CLI_FAILED;
	}
	return vd_loop_attach(loop, fd, "snapshot", 0, 0, 0, VD_LOOP_AUTOCLEAR, err) < 0 ?
	       cli_fail(err) : CLI_OK;
}

static uint64_t device_size(const char *path)
{
	AUTO_DISK struct vdisk *disk = NULL;
	const struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE, .format = "raw",
	};
	struct vdisk_error err = { 0 };

	if (vdisk_open(&disk, path, &opts, &err) < 0) {
		cli_fail(&err);
		return 0;
	}
	return vdisk_size(disk);
}

int host_disk_snapshot(struct host_disk *h)
{
	struct vd_dm_segment s = { .target = "snapshot" };
	struct vdisk_error err = { 0 };
	struct vd_dm_device d = { 0 };
	struct vd_loop loop;
	char name[160];
	uint64_t size;
	int status;

	if (vd_dm_available(&err) < 0)
		return cli_fail(&err);
	if (host_disk_find_snapshot(h))
		return CLI_OK;
	size = device_size(h->device);
	if (!size || changes_device(&loop, size, &err) != CLI_OK)
		return CLI_FAILED;
	s.length = size / 512;
	/* N: nobody needs the changes after it is gone */
	snprintf(s.params, sizeof(s.params), "%u:%u 7:%d N " SNAPSHOT_CHUNK, h->major, h->minor,
		 loop.number);
	snprintf(name, sizeof(name), "%s-snapshot", h->name);
	status = host_map_set(&d, h, name, "snap", &s, 1, false, true);
	close(loop.fd);		/* the map keeps it */
	if (status == CLI_OK)
		use_map(h, &d);
	return status;
}
