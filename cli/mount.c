/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.c - vdisk mount, umount: a guest's file systems as directories of this host */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/mount.h"
#include "cli/program.h"
#include "cli/running.h"
#include "cli/steady.h"
#include "kernel/host.h"

enum { OPT_ALLOW_OTHER = 0x3000, OPT_PERMISSIONS, OPT_FUSE };

static const struct argp_option mount_options[] = {
	{ "all", 'a', NULL, 0, "The guest's whole tree, as its fstab describes it", 0 },
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
	case 'a':
		a->all = true;
		return 0;
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
	.args_doc = "DISK[#PART] DIR\n--all DISK DIR",
	.doc = "Show the files of a disk at a directory of this host, until 'vdisk umount DIR'."
	       "\vWithout PART it is the root file system that inspection of the disk finds.  "
	       "By FUSE (ext and FAT), without root; as root by the kernel.",
};

static bool can_be_read(const char *source)
{
	const struct vdisk_open_opts opts = {
		.size = sizeof(opts), .format = cli.format, .refs = cli.refs,
		.block_size = cli.block_size,
	};
	struct vdisk *disk;

	if (vdisk_open(&disk, source, &opts, NULL) < 0)
		return false;
	vdisk_close(disk, NULL);
	return true;
}

/* What cannot be written (a snapshot, a file of somebody else) may still be read. */
static int open_writable(struct vdisk **out, const char *source)
{
	AUTO_DISK struct vdisk *disk = NULL;

	if (cli_open(&disk, source, VDISK_OPEN_WRITE) == 0 && vdisk_writable(disk)) {
		*out = STEAL(disk);
		return CLI_OK;
	}
	if (disk || can_be_read(source))
		cli_error("%s: it can be mounted read-only, with -r", source);
	return CLI_FAILED;
}

/* The disk that a locator names, and the partition of it, to be freed. */
static int open_disk(struct vdisk **out, struct steady *steady, char **part, const char *locator,
		     const struct mount_args *a)
{
	AUTO_FREE char *source = NULL;
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	int status = CLI_FAILED;

	if (vdisk_locator_parse(&loc, locator, &err) < 0)
		return cli_fail(&err);
	*part = STEAL(loc.part);
	if (loc.path && strcmp(loc.path, "/") != 0)
		cli_error("%s: a file cannot be mounted, only a file system", locator);
	else if (a->all && *part)
		cli_error("%s: --all takes a whole disk", locator);
	else if (!(source = vdisk_locator_format(&loc)))
		cli_error("out of memory");
	else if (a->read_only)
		status = steady_open(out, steady, source);
	else
		status = open_writable(out, source);
	vdisk_locator_clear(&loc);
	return status;
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

int mount_describe(struct running *r, const char *locator, const char *dir, const char *type,
		   const char *how, const struct mount_args *a)
{
	if (a->lvm)
		json_object_set_new(r->info, "lvm-snapshot", json_string(a->lvm));
	json_object_set_new(r->info, "disk", json_string(locator));
	json_object_set_new(r->info, "dir", json_string(dir));
	json_object_set_new(r->info, "type", json_string(type));
	json_object_set_new(r->info, "how", json_string(how));
	json_object_set_new(r->info, "read-only", json_boolean(a->read_only));
	return running_save(r);
}

/* ---- by FUSE ---- */

/* The file systems of the plan, one mounted in the other. */
struct fuse_tree {
	struct vdisk_mount *mount;	/* owned */
	struct vdisk_fs **fs;		/* owned, in the order of the plan */
	unsigned n;
};

/* One that is below the root: what does not work is left out. */
static void tree_add(struct fuse_tree *t, const struct mount_point *p, bool read_only)
{
	struct vdisk_error err = { 0 };
	struct vdisk_fs *fs;

	if (vdisk_fs_open(&fs, p->volume, read_only || p->read_only ? 0 :
			  VDISK_FS_WRITE | VDISK_FS_JOURNAL, &err) < 0) {
		cli_note("%s: left out: %s", p->path, err.msg);
		return;
	}
	if (vdisk_mount_add(t->mount, fs, p->path, &err) < 0) {
		cli_note("%s: left out: %s", p->path, err.msg);
		vdisk_fs_close(fs, NULL);
		return;
	}
	t->fs[t->n++] = fs;
}

static int tree_start(struct fuse_tree *t, struct running *running, const struct mount_plan *plan,
		      const char *locator, const char *dir, const struct mount_args *a,
		      struct vdisk_error *err)
{
	const struct vdisk_mount_opts opts = {
		.size = sizeof(opts), .source = locator,
		.flags = (a->allow_other ? VDISK_MOUNT_ALLOW_OTHER : 0u) |
			 (a->permissions ? VDISK_MOUNT_PERMISSIONS : 0u),
	};
	bool read_only = a->read_only || plan->point[0].read_only;
	int r;

	t->fs = calloc(plan->n, sizeof(struct vdisk_fs *));
	if (!t->fs)
		return -ENOMEM;
	r = vdisk_fs_open(&t->fs[0], plan->point[0].volume,
			  read_only ? 0 : VDISK_FS_WRITE | VDISK_FS_JOURNAL, err);
	if (r < 0)
		return r;
	t->n = 1;
	if (mount_describe(running, locator, dir, vdisk_fs_type(t->fs[0]), "fuse",
			   a) != CLI_OK)
		return -EIO;
	r = vdisk_mount_new(&t->mount, t->fs[0], dir, &opts, err);
	for (unsigned i = 1; r == 0 && i < plan->n; i++)
		tree_add(t, &plan->point[i], a->read_only);
	return r;
}

static int tree_end(struct fuse_tree *t, int r, struct vdisk_error *err)
{
	vdisk_mount_free(t->mount);
	while (t->n)
		if (vdisk_fs_close(t->fs[--t->n], r < 0 ? NULL : err) < 0)
			r = -EIO;
	free(t->fs);
	return r;
}

int mount_fuse(struct running *running, const struct mount_plan *plan, const char *locator,
	       const char *dir, const struct mount_args *a, struct vdisk_error *problem)
{
	struct fuse_tree t = { .n = 0 };
	struct vdisk_error err = { 0 };
	int r = tree_start(&t, running, plan, locator, dir, a, &err);

	if (r < 0) {
		tree_end(&t, r, NULL);
		return err.code ? cli_fail(&err) : CLI_FAILED;
	}
	r = tree_end(&t, serve(t.mount, &err), &err);
	if (r == 0)
		return CLI_OK;
	problem->code = -r;
	snprintf(problem->msg, sizeof(problem->msg), "%s", err.msg[0] ? err.msg : strerror(-r));
	return a->foreground ? cli_fail(problem) : CLI_FAILED;
}

/* Root has the kernel do it, where there are loop devices for that. */
static bool by_kernel(const struct mount_args *a)
{
	if (a->fuse || a->allow_other || a->permissions)
		return false;
	return geteuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0;
}

/* As cli_close(); the first problem is the one that counts. */
static int close_disk(struct vdisk **disk, struct vdisk_error *problem)
{
	struct vdisk_error err = { 0 };

	if (vdisk_close(STEAL(*disk), &err) == 0)
		return CLI_OK;
	if (!problem->code)
		*problem = err;
	return cli_fail(&err);
}

int cmd_mount(int argc, char **argv)
{
	struct mount_args a = { 0 };
	char **args = cli_parse(&mount_argp, argc, argv, &a, 2, 2);
	AUTO_DISK struct vdisk *disk = NULL;
	AUTO_FREE char *dir = NULL;
	AUTO_FREE char *part = NULL;
	struct mount_plan plan = { 0 };
	struct steady steady = { 0 };
	struct running running = { .fd = -1 };
	struct vdisk_error problem = { 0 };
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
	status = open_disk(&disk, &steady, &part, args[0], &a);
	a.lvm = steady.lvm;
	if (status == CLI_OK)
		status = mount_plan(&plan, disk, part, &a, by_kernel(&a));
	if (status == CLI_OK)
		status = running_new(&running, "mount");
	if (status == CLI_OK)
		status = (by_kernel(&a) ? mount_kernel : mount_fuse)(&running, &plan, args[0], dir,
								     &a, &problem);
	mount_plan_clear(&plan);
	if (close_disk(&disk, &problem) != CLI_OK)
		status = CLI_FAILED;
	steady_end(&steady);
	running_end(&running, problem.code ? problem.msg : NULL);
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
	if (program_run(argv, PROGRAM_OURS, PROGRAM_OURS) == CLI_OK)
		return CLI_OK;
	vd_user_of_mount(dir, who, sizeof(who));
	cli_error("%s: cannot unmount%s%s", dir, who[0] ? ", it is busy" : "", who);
	return CLI_FAILED;
}

/* What is mounted below the top goes first, the last one first; it may have gone already. */
static int unmount_below(const struct running *r)
{
	const json_t *mounts = json_object_get(r->info, "mounts");

	for (size_t i = json_array_size(mounts); i-- > 1;) {
		const char *dir = json_string_value(json_object_get(json_array_get(mounts, i),
								    "dir"));

		if (dir && umount2(dir, UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
			return unmount(dir);
	}
	return CLI_OK;
}

static int umount_one(void *arg, struct running *r)
{
	struct umount_ctx *c = arg;

	if (!r->alive || strcmp(running_string(r, "dir"), c->dir) != 0)
		return 0;
	c->found = true;
	c->status = unmount_below(r);
	if (c->status == CLI_OK)
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
