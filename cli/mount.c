/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.c - vdisk mount, umount: a guest's file systems as directories of this host */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/running.h"

struct mount_args {
	bool read_only, foreground, allow_other, permissions;
};

enum { OPT_ALLOW_OTHER = 0x3000, OPT_PERMISSIONS };

static const struct argp_option mount_options[] = {
	{ "read-only", 'r', NULL, 0, "Change nothing", 0 },
	{ "foreground", 'F', NULL, 0, "Do not go into the background", 0 },
	{ "allow-other", OPT_ALLOW_OTHER, NULL, 0,
	  "Other users may go there too; permissions are checked", 0 },
	{ "permissions", OPT_PERMISSIONS, NULL, 0,
	  "Check permissions for whoever mounts, too", 0 },
	{ 0 },
};

static error_t parse_mount(int key, char *arg, struct argp_state *state)
{
	struct mount_args *a = state->input;

	(void)arg;
	switch (key) {
	case 'r':
		a->read_only = true;
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
	       "\vWithout PART it is the root file system that inspection of the disk finds.",
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
		    bool read_only)
{
	json_object_set_new(r->info, "disk", json_string(locator));
	json_object_set_new(r->info, "dir", json_string(dir));
	json_object_set_new(r->info, "type", json_string(type));
	json_object_set_new(r->info, "how", json_string("fuse"));
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
	    describe(&running, locator, dir, vdisk_fs_type(fs), a->read_only) != CLI_OK) {
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
		status = mount_fuse(volume, args[0], dir, &a);
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
	const char *argv[] = { "fusermount3", "-u", "--", dir, NULL };
	pid_t pid;
	int status;

	if (umount2(dir, UMOUNT_NOFOLLOW) == 0)
		return CLI_OK;
	if (errno != EPERM) {
		cli_error("%s: cannot unmount: %m", dir);
		return CLI_FAILED;
	}
	pid = fork();
	if (pid == 0) {
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return CLI_OK;
	cli_error("%s: cannot unmount", dir);
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
