/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.c - vdisk mount, umount: a guest's file systems as directories of this host */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/running.h"
#include "kernel/host.h"

struct mount_args {
	bool read_only, foreground, allow_other, permissions, fuse;
	const char *options, *type;
};

enum { OPT_ALLOW_OTHER = 0x3000, OPT_PERMISSIONS, OPT_FUSE };

static const struct argp_option mount_options[] = {
	{ "read-only", 'r', NULL, 0, "Change nothing", 0 },
	{ "foreground", 'F', NULL, 0, "Do not go into the background", 0 },
	{ "options", 'o', "OPTIONS", 0, "As root: mount options for the kernel", 0 },
	{ "type", 't', "TYPE", 0, "As root: the file system's type", 0 },
	{ "fuse", OPT_FUSE, NULL, 0, "As root, too: by FUSE, not by the kernel", 0 },
	{ "allow-other", OPT_ALLOW_OTHER, NULL, 0,
	  "Other users may go there too; permissions are checked", 0 },
	{ "permissions", OPT_PERMISSIONS, NULL, 0,
	  "Check permissions for whoever mounts, too", 0 },
	{ 0 },
};

static error_t parse_mount(int key, char *arg, struct argp_state *state)
{
	struct mount_args *a = state->input;

	switch (key) {
	case 'r':
		a->read_only = true;
		return 0;
	case 'o':
		a->options = arg;
		return 0;
	case 't':
		a->type = arg;
		return 0;
	case OPT_FUSE:
		a->fuse = true;
		return 0;
	case 'F':
		a->foreground = true;
		return 0;
	case OPT_ALLOW_OTHER:
		a->allow_other = true;
		return 0;
	case OPT_PERMISSIONS:
		a->permissions = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp mount_argp = {
	.options = mount_options, .parser = parse_mount, .children = cli_disk,
	.args_doc = "DISK[#PART] DIR",
	.doc = "Show the files of a disk at a directory of this host, until 'vdisk umount DIR'."
	       "\vWithout PART it is the root file system that inspection of the disk finds.  "
	       "By FUSE (ext and FAT), without root; as root by the kernel.",
};

/* The volume that a locator names, or the root file system on the disk. */
static int open_volume(struct vdisk **out, const char *locator, uint32_t flags)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	bool part;

	if (vdisk_locator_parse(&loc, locator, &err) < 0)
		return cli_fail(&err);
	part = loc.part;
	if (loc.path && strcmp(loc.path, "/") != 0) {
		cli_error("%s: a file cannot be mounted, only a file system", locator);
		vdisk_locator_clear(&loc);
		return CLI_FAILED;
	}
	vdisk_locator_clear(&loc);
	if (cli_open(&disk, locator, flags) < 0)
		return CLI_FAILED;
	if (part) {
		*out = STEAL(disk);
		return CLI_OK;
	}
	return vdisk_open_root(out, disk, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

/* ---- serving ---- */

struct stopper {
	struct vdisk_mount *mount;
	sigset_t signals;
};

/* A signal unmounts; the loop then ends by itself. */
static void *wait_for_signal(void *arg)
{
	struct stopper *s = arg;
	int sig;

	while (sigwait(&s->signals, &sig) == 0)
		if (vdisk_mount_stop(s->mount, true, NULL) == 0)
			break;
	return NULL;
}

static int serve(struct vdisk_mount *mount, struct vdisk_error *err)
{
	struct stopper s = { .mount = mount };
	pthread_t thread;
	int r;

	sigemptyset(&s.signals);
	sigaddset(&s.signals, SIGINT);
	sigaddset(&s.signals, SIGTERM);
	sigaddset(&s.signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &s.signals, NULL);
	if (pthread_create(&thread, NULL, wait_for_signal, &s) != 0)
		return -EAGAIN;
	running_ready();
	r = vdisk_mount_run(mount, err);
	pthread_cancel(thread);
	pthread_join(thread, NULL);
	return r;
}

static int describe(struct running *r, const char *locator, const char *dir, const char *type,
		    const char *how, bool read_only)
{
	json_object_set_new(r->info, "disk", json_string(locator));
	json_object_set_new(r->info, "dir", json_string(dir));
	json_object_set_new(r->info, "type", json_string(type));
	json_object_set_new(r->info, "how", json_string(how));
	json_object_set_new(r->info, "read-only", json_boolean(read_only));
	return running_save(r);
}

static int mount_fuse(struct vdisk *volume, const char *locator, const char *dir,
		      const struct mount_args *a)
{
	const struct vdisk_mount_opts opts = {
		.size = sizeof(opts), .source = locator,
		.flags = (a->allow_other ? VDISK_MOUNT_ALLOW_OTHER : 0u) |
			 (a->permissions ? VDISK_MOUNT_PERMISSIONS : 0u),
	};
	struct running running = { .fd = -1 };
	struct vdisk_mount *mount = NULL;
	struct vdisk_error err = { 0 };
	struct vdisk_fs *fs;
	int r;

	if (vdisk_fs_open(&fs, volume, a->read_only ? 0 : VDISK_FS_WRITE | VDISK_FS_JOURNAL,
			  &err) < 0)
		return cli_fail(&err);
	if (running_new(&running, "mount") != CLI_OK ||
	    describe(&running, locator, dir, vdisk_fs_type(fs), "fuse",
		     a->read_only) != CLI_OK) {
		running_end(&running, NULL);
		vdisk_fs_close(fs, NULL);
		return CLI_FAILED;
	}
	r = vdisk_mount_new(&mount, fs, dir, &opts, &err);
	if (r < 0) {
		running_end(&running, NULL);
		vdisk_fs_close(fs, NULL);
		return cli_fail(&err);
	}
	r = serve(mount, &err);
	vdisk_mount_free(mount);
	if (vdisk_fs_close(fs, r < 0 ? NULL : &err) < 0)
		r = -EIO;
	running_end(&running, r < 0 ? (err.msg[0] ? err.msg : strerror(-r)) : NULL);
	return r < 0 && a->foreground ? cli_fail(&err) : r < 0 ? CLI_FAILED : CLI_OK;
}

/* ---- by the kernel ---- */

struct kernel_mount {
	struct vdisk *volume;		/* borrowed */
	const char *dir;
	char *view;			/* owned: the file that FUSE makes of it, if need be */
	struct vdisk_fuse *fuse;	/* owned */
	pthread_t thread;
	struct vd_loop loop;
	char device[32];
};

static void *run_view(void *arg)
{
	struct kernel_mount *k = arg;

	vdisk_fuse_run(k->fuse, NULL);
	return NULL;
}

/* A file for the loop device: the disk's own, or a view. */
static int kernel_file(struct kernel_mount *k, const struct running *r, uint64_t *offset)
{
	struct vdisk_error err = { 0 };
	int fd = -1;

	if (vd_plain_run(k->volume, &fd, offset))
		return dup(fd);
	*offset = 0;
	if (asprintf(&k->view, "%.*s.img", (int)(strlen(r->path) - strlen(".json")), r->path) < 0)
		return -1;
	unlink(k->view);
	fd = open(k->view, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		cli_error("%s: %m", k->view);
		return -1;
	}
	close(fd);
	if (vdisk_fuse_mount(&k->fuse, k->volume, k->view, &err) < 0) {
		cli_fail(&err);
		return -1;
	}
	if (pthread_create(&k->thread, NULL, run_view, k) != 0) {
		vdisk_fuse_free(STEAL(k->fuse));
		cli_error("cannot start a thread");
		return -1;
	}
	fd = open(k->view, (vdisk_writable(k->volume) ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		cli_error("%s: %m", k->view);
	return fd;
}

static void kernel_end(struct kernel_mount *k)
{
	char path[64];

	/* the loop device goes with the mount, as soon as udev and the like have closed it */
	if (k->device[0]) {
		if (k->loop.fd >= 0)
			close(k->loop.fd);
		snprintf(path, sizeof(path), "/sys/block/%s/loop", k->device + strlen("/dev/"));
		for (int i = 0; i < 500 && access(path, F_OK) == 0; i++)
			usleep(10000);
	}
	if (k->fuse) {
		vdisk_fuse_stop(k->fuse);
		pthread_join(k->thread, NULL);
		vdisk_fuse_free(k->fuse);
	}
	if (k->view) {
		unlink(k->view);
		free(k->view);
	}
}

static int run_program(const char *const *argv)
{
	pid_t pid;
	int status = 0;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		cli_error("%s: %m", argv[0]);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? CLI_OK : CLI_FAILED;
}

/* mount(8) knows helpers like ntfs-3g, and loads modules. */
static int kernel_attach(struct kernel_mount *k, const struct running *r, const char *type,
			 const struct mount_args *a)
{
	AUTO_FREE char *options = NULL;
	const char *argv[] = { "mount", "-t", type, "-o", NULL, k->device, k->dir, NULL };
	struct vdisk_error err = { 0 };
	uint64_t offset = 0;
	AUTO_CLOSE int fd = kernel_file(k, r, &offset);

	if (fd < 0)
		return CLI_FAILED;
	if (vd_loop_attach(&k->loop, fd, vdisk_name(k->volume), offset, vdisk_size(k->volume), 0,
			   VD_LOOP_AUTOCLEAR | (a->read_only ? VD_LOOP_READ_ONLY : 0), &err) < 0)
		return cli_fail(&err);
	snprintf(k->device, sizeof(k->device), "/dev/loop%d", k->loop.number);
	if (asprintf(&options, "nosuid,nodev%s%s%s", a->read_only ? ",ro" : "",
		     a->options ? "," : "", a->options ? a->options : "") < 0)
		return CLI_FAILED;
	argv[4] = options;
	return run_program(argv);
}

static bool still_mounted(const struct kernel_mount *k)
{
	struct stat st;
	char how[300];

	return stat(k->device, &st) == 0 && vd_in_use(&st, how, sizeof(how)) &&
	       !strncmp(how, "mounted", 7);
}

/* Until it is unmounted, by whomever; a signal asks for that. */
static void kernel_wait(const struct kernel_mount *k)
{
	struct pollfd p = { .events = POLLPRI | POLLERR };
	const struct timespec now = { 0 };
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	p.fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	while (still_mounted(k)) {
		if (sigtimedwait(&signals, NULL, &now) > 0)
			umount2(k->dir, UMOUNT_NOFOLLOW);
		poll(&p, 1, 500);
	}
	if (p.fd >= 0)
		close(p.fd);
}

static int mount_kernel(struct vdisk *volume, const char *locator, const char *dir,
			const struct mount_args *a)
{
	struct kernel_mount k = { .volume = volume, .dir = dir, .loop.fd = -1 };
	struct running running = { .fd = -1 };
	struct vdisk_error err = { 0 };
	struct vdisk_probe probe = { 0 };
	const char *type = a->type;
	sigset_t signals;
	int status, r;

	if (!type) {
		if (vdisk_probe(volume, &probe, &err) < 0)
			return cli_fail(&err);
		type = probe.type;
		if (strcmp(probe.usage, "filesystem") != 0) {
			cli_error("%s: no file system%s%s", locator, *type ? ", but " : "", type);
			return CLI_FAILED;
		}
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	status = running_new(&running, "mount");
	if (status == CLI_OK)
		status = describe(&running, locator, dir, type, "kernel", a->read_only);
	if (status == CLI_OK)
		status = kernel_attach(&k, &running, type, a);
	if (status != CLI_OK) {
		kernel_end(&k);
		running_end(&running, NULL);
		return status;
	}
	close(k.loop.fd);	/* the mount keeps it */
	k.loop.fd = -1;
	running_ready();
	kernel_wait(&k);
	kernel_end(&k);
	r = vdisk_writable(volume) ? vdisk_flush(volume) : 0;
	running_end(&running, r < 0 ? strerror(-r) : NULL);
	return r < 0 ? CLI_FAILED : CLI_OK;
}

/* Root has the kernel do it, where there are loop devices for that. */
static bool by_kernel(const struct mount_args *a)
{
	if (a->fuse || a->allow_other || a->permissions)
		return false;
	return geteuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0;
}

int cmd_mount(int argc, char **argv)
{
	struct mount_args a = { 0 };
	char **args = cli_parse(&mount_argp, argc, argv, &a, 2, 2);
	AUTO_DISK struct vdisk *volume = NULL;
	AUTO_FREE char *dir = NULL;
	struct stat st;
	int status;

	running_sweep();
	dir = realpath(args[1], NULL);
	if (!dir || stat(dir, &st) < 0) {
		cli_error("%s: %m", args[1]);
		return CLI_FAILED;
	}
	if (!S_ISDIR(st.st_mode)) {
		cli_error("%s: not a directory", dir);
		return CLI_FAILED;
	}
	running_begin(a.foreground);
	status = open_volume(&volume, args[0], a.read_only ? 0 : VDISK_OPEN_WRITE);
	if (status == CLI_OK)
		status = by_kernel(&a) ? mount_kernel(volume, args[0], dir, &a) :
					 mount_fuse(volume, args[0], dir, &a);
	if (cli_close(&volume) != CLI_OK)
		status = CLI_FAILED;
	return status;
}

/* ---- umount ---- */

struct umount_ctx {
	const char *dir;
	bool found;
	int status;
};

static int unmount(const char *dir)
{
	const char *argv[] = { "fusermount3", "-u", "-q", "--", dir, NULL };
	char who[200];

	if (umount2(dir, UMOUNT_NOFOLLOW) == 0)
		return CLI_OK;
	if (errno == EBUSY) {
		vd_user_of_mount(dir, who, sizeof(who));
		cli_error("%s: is busy%s", dir, who);
		return CLI_FAILED;
	}
	if (errno != EPERM) {
		cli_error("%s: cannot unmount: %m", dir);
		return CLI_FAILED;
	}
	if (run_program(argv) == CLI_OK)
		return CLI_OK;
	vd_user_of_mount(dir, who, sizeof(who));
	cli_error("%s: cannot unmount%s%s", dir, who[0] ? ", it is busy" : "", who);
	return CLI_FAILED;
}

static int umount_one(void *arg, struct running *r)
{
	struct umount_ctx *c = arg;

	if (!r->alive || strcmp(running_string(r, "dir"), c->dir) != 0)
		return 0;
	c->found = true;
	c->status = unmount(c->dir);
	if (c->status == CLI_OK)
		c->status = running_wait(r);
	return 1;
}

int cmd_umount(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "DIR...",
		.doc = "Unmount what 'vdisk mount' has mounted; when this returns, all of it is "
		       "on the disk.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, -1);
	int status = CLI_OK;

	running_sweep();
	for (; *args; args++) {
		AUTO_FREE char *dir = realpath(*args, NULL);
		struct umount_ctx c = { .dir = dir };

		if (!dir) {
			cli_error("%s: %m", *args);
			status = CLI_FAILED;
			continue;
		}
		running_each(umount_one, &c);
		if (!c.found)
			cli_error("%s: nothing is mounted there by vdisk", dir);
		if (!c.found || c.status != CLI_OK)
			status = CLI_FAILED;
	}
	return status;
}
