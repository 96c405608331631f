/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount_kernel.c - vdisk mount by the kernel's own file systems
 *
 * Each volume gets a loop device, on its file where it is one run of bytes there, else
 * on a view of it by FUSE; it goes with the last mount of it.  Mount points inside the
 * guest's tree are found by the kernel without leaving that tree (openat2), whatever
 * links the guest has put there.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "cli/mount.h"
#include "cli/program.h"
#include "kernel/host.h"

/* A volume as a block device. */
struct device {
	struct vdisk *volume;		/* borrowed: what it was made for */
	struct vdisk *layer;		/* owned: what it is of, if that is not the volume itself */
	bool mounted;
	char *view;			/* owned: the file that FUSE makes of it, if need be */
	struct vdisk_fuse *fuse;	/* owned */
	pthread_t thread;
	struct vd_loop loop;
	char path[32];			/* "" until it is there */
};

struct kernel {
	const struct mount_plan *plan;
	const struct mount_args *a;
	const char *dir;
	struct running *running;	/* borrowed */
	json_t *mounts;			/* borrowed from running: what has been mounted */
	struct device *device;		/* owned: one for each volume of the plan */
	unsigned n_devices;
};

/* ---- devices ---- */

static void *run_view(void *arg)
{
	struct device *d = arg;

	vdisk_fuse_run(d->fuse, NULL);
	return NULL;
}

/* A file for the loop device: the disk's own, or a view. */
static int device_file(struct kernel *k, struct device *d, uint64_t *offset)
{
	const struct running *r = k->running;
	struct vdisk_error err = { 0 };
	int fd = -1;

	if (!d->layer && vd_plain_run(d->volume, &fd, offset))
		return dup(fd);
	*offset = 0;
	if (asprintf(&d->view, "%.*s-%u.img", (int)(strlen(r->path) - strlen(".json")), r->path,
		     k->n_devices) < 0)
		return -1;
	unlink(d->view);
	fd = open(d->view, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		cli_error("%s: %m", d->view);
		return -1;
	}
	close(fd);
	if (vdisk_fuse_mount(&d->fuse, d->layer ? d->layer : d->volume, d->view, &err) < 0) {
		cli_fail(&err);
		return -1;
	}
	if (pthread_create(&d->thread, NULL, run_view, d) != 0) {
		vdisk_fuse_free(STEAL(d->fuse));
		cli_error("cannot start a thread");
		return -1;
	}
	json_array_append_new(json_object_get(r->info, "views"), json_string(d->view));
	fd = open(d->view, (d->layer || vdisk_writable(d->volume) ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		cli_error("%s: %m", d->view);
	return fd;
}

static int device_start(struct kernel *k, struct device *d)
{
	struct vdisk_error err = { 0 };
	bool read_only = !d->layer && (k->a->read_only || !vdisk_writable(d->volume));
	uint64_t offset = 0;
	AUTO_CLOSE int fd = device_file(k, d, &offset);

	if (fd < 0)
		return CLI_FAILED;
	if (vd_loop_attach(&d->loop, fd, vdisk_name(d->volume), offset, vdisk_size(d->volume), 0,
			   VD_LOOP_AUTOCLEAR | (read_only ? VD_LOOP_READ_ONLY : 0), &err) < 0)
		return cli_fail(&err);
	snprintf(d->path, sizeof(d->path), "/dev/loop%d", d->loop.number);
	return CLI_OK;
}

static void device_end(struct device *d)
{
	char path[64];

	/* the loop device goes with the mount, as soon as udev and the like have closed it */
	if (d->path[0]) {
		if (d->loop.fd >= 0)
			close(d->loop.fd);
		snprintf(path, sizeof(path), "/sys/block/%s/loop", d->path + strlen("/dev/"));
		for (int i = 0; i < 500 && access(path, F_OK) == 0; i++)
			usleep(10000);
	}
	if (d->fuse) {
		vdisk_fuse_stop(d->fuse);
		pthread_join(d->thread, NULL);
		vdisk_fuse_free(d->fuse);
	}
	if (d->view) {
		unlink(d->view);
		free(d->view);
	}
	vdisk_close(d->layer, NULL);
}

/* The device of a volume, made when it is needed first; NULL after a message. */
static struct device *device_of(struct kernel *k, struct vdisk *volume)
{
	struct device *d;

	for (unsigned i = 0; i < k->n_devices; i++)
		if (k->device[i].volume == volume)
			return &k->device[i];
	d = &k->device[k->n_devices];
	*d = (struct device) { .volume = volume, .loop.fd = -1 };
	if (device_start(k, d) != CLI_OK) {
		device_end(d);
		return NULL;
	}
	k->n_devices++;
	return d;
}

/*
 * A journal that has to be replayed first cannot be where nothing may be written: then the
 * device becomes one of a throw-away layer over the volume.
 */
static int device_layered(struct kernel *k, struct device *d)
{
	struct vdisk *volume = d->volume;
	struct vdisk_error err = { 0 };

	device_end(d);
	*d = (struct device) { .volume = volume, .loop.fd = -1 };
	if (vdisk_open_overlay(&d->layer, volume, NULL, &err) < 0)
		return cli_fail(&err);
	return device_start(k, d);
}

/* ---- mounts ---- */

static int run_mount(const char *type, const char *options, const char *device, const char *dir,
		     bool quiet)
{
	const char *argv[] = { "mount", "-t", type, "-o", options, device, dir, NULL };

	return program_run(argv, PROGRAM_OURS, quiet ? PROGRAM_NOWHERE : PROGRAM_OURS);
}

/* Where a directory of the guest's tree is for this host, never outside of it. */
static int inside(const char *top, const char *path, char out[PATH_MAX])
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT,
	};
	AUTO_CLOSE int dir = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int fd = dir < 0 ? -1 :
		(int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
	char proc[40];
	ssize_t n = -1;

	if (fd >= 0) {
		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
		n = readlink(proc, out, PATH_MAX - 1);
	}
	if (n < 0) {
		cli_note("%s: left out: %m", path);
		return CLI_FAILED;
	}
	out[n] = '\0';
	return CLI_OK;
}

static void wrote_down(struct kernel *k, const char *dir, const char *device)
{
	json_array_append_new(k->mounts, json_pack("{s:s, s:s}", "dir", dir, "device", device));
}

static int mount_bind(struct kernel *k, const struct mount_point *p, const char *dir)
{
	char from[PATH_MAX];

	if (inside(k->dir, p->bind, from) != CLI_OK)
		return CLI_FAILED;
	if (mount(from, dir, NULL, MS_BIND, NULL) < 0) {
		cli_error("%s: %m", p->path);
		return CLI_FAILED;
	}
	wrote_down(k, dir, "");
	return CLI_OK;
}

/* mount(8) knows helpers like ntfs-3g, and loads modules. */
static int mount_volume(struct kernel *k, const struct mount_point *p, const char *dir)
{
	AUTO_FREE char *options = NULL;
	struct vdisk_probe probe = { 0 };
	struct vdisk_error err = { 0 };
	const char *type = k->a->all ? NULL : k->a->type;
	bool read_only = k->a->read_only || p->read_only, again;
	struct device *d;
	int status;

	if (!type) {
		if (vdisk_probe(p->volume, &probe, &err) < 0)
			return cli_fail(&err);
		type = probe.type;
		if (strcmp(probe.usage, "filesystem") != 0) {
			cli_error("%s: no file system%s%s", p->name[0] ? p->name :
				  vdisk_name(p->volume), *type ? ", but " : "", type);
			return CLI_FAILED;
		}
	}
	d = device_of(k, p->volume);
	/* a copy of a disk has the UUID of the disk */
	if (!d || asprintf(&options, "nosuid,nodev%s%s%s%s%s%s", !strcmp(type, "xfs") ? ",nouuid" : "",
			   read_only ? ",ro" : "",
			   p->options[0] ? "," : "", p->options,
			   k->a->options ? "," : "", k->a->options ? k->a->options : "") < 0)
		return CLI_FAILED;
	again = k->a->read_only && !d->mounted && !d->layer;
	status = run_mount(type, options, d->path, dir, again);
	if (status != CLI_OK && again) {
		status = device_layered(k, d);
		if (status == CLI_OK)
			status = run_mount(type, options, d->path, dir, false);
	}
	if (status != CLI_OK)
		return CLI_FAILED;
	d->mounted = true;
	wrote_down(k, dir, d->path);
	if (p == k->plan->point)
		json_object_set_new(k->running->info, "type", json_string(type));
	return CLI_OK;
}

static void unmount_all(struct kernel *k)
{
	for (size_t i = json_array_size(k->mounts); i--;) {
		const char *dir = json_string_value(json_object_get(json_array_get(k->mounts, i),
								    "dir"));

		umount2(dir, UMOUNT_NOFOLLOW);
	}
}

/* The root has to be there; what does not work below it is left out, and has been said. */
static int mount_all(struct kernel *k)
{
	for (unsigned i = 0; i < k->plan->n; i++) {
		const struct mount_point *p = &k->plan->point[i];
		char dir[PATH_MAX];
		int status;

		if (i == 0)
			snprintf(dir, sizeof(dir), "%s", k->dir);
		else if (inside(k->dir, p->path, dir) != CLI_OK)
			continue;
		status = p->volume ? mount_volume(k, p, dir) : mount_bind(k, p, dir);
		if (status != CLI_OK && i == 0)
			return CLI_FAILED;
	}
	return running_save(k->running);
}

/* ---- until the end ---- */

static bool still_mounted(const struct kernel *k)
{
	struct stat st;
	char how[300];

	for (unsigned i = 0; i < k->n_devices; i++)
		if (stat(k->device[i].path, &st) == 0 && vd_in_use(&st, how, sizeof(how)) &&
		    !strncmp(how, "mounted", 7))
			return true;
	return false;
}

static void block_signals(sigset_t *signals)
{
	sigemptyset(signals);
	sigaddset(signals, SIGINT);
	sigaddset(signals, SIGTERM);
	sigaddset(signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, signals, NULL);
}

/* Until it is unmounted, by whomever; a signal asks for that. */
static void wait_for_end(struct kernel *k, const sigset_t *signals)
{
	struct pollfd p = { .events = POLLPRI | POLLERR };
	const struct timespec now = { 0 };

	p.fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	while (still_mounted(k)) {
		if (sigtimedwait(signals, NULL, &now) > 0)
			unmount_all(k);
		poll(&p, 1, 500);
	}
	if (p.fd >= 0)
		close(p.fd);
}

int mount_kernel(struct running *running, const struct mount_plan *plan, const char *locator,
		 const char *dir, const struct mount_args *a, struct vdisk_error *problem)
{
	struct kernel k = { .plan = plan, .a = a, .dir = dir, .running = running };
	sigset_t signals;
	int status, r = 0;

	block_signals(&signals);
	k.device = calloc(plan->n, sizeof(*k.device));
	status = k.device ? mount_describe(running, locator, dir, "", "kernel", a) : CLI_FAILED;
	if (status == CLI_OK) {
		k.mounts = json_array();
		json_object_set_new(running->info, "mounts", k.mounts);
		json_object_set_new(running->info, "views", json_array());
		status = mount_all(&k);
	}
	if (status == CLI_OK) {
		/* the mounts keep them */
		for (unsigned i = 0; i < k.n_devices; i++) {
			close(k.device[i].loop.fd);
			k.device[i].loop.fd = -1;
		}
		running_ready();
		wait_for_end(&k, &signals);
	} else if (k.mounts) {
		unmount_all(&k);
	}
	for (unsigned i = 0; i < k.n_devices; i++)
		device_end(&k.device[i]);
	for (unsigned i = 0; status == CLI_OK && r == 0 && i < plan->n; i++)
		if (plan->point[i].volume && vdisk_writable(plan->point[i].volume))
			r = vdisk_flush(plan->point[i].volume);
	if (r < 0) {
		problem->code = -r;
		snprintf(problem->msg, sizeof(problem->msg), "%s", strerror(-r));
	}
	free(k.device);
	return status != CLI_OK || r < 0 ? CLI_FAILED : CLI_OK;
}
