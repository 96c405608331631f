/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kernel_fs.c - file systems that only the kernel reads, for the commands about files
 *
 * The kernel needs a block device: a loop device, on the volume's file where it is one run
 * of bytes there.  For anything else (qcow2, ...) somebody has to serve a view of the
 * volume, and go on serving until the kernel has written everything, even if the command is
 * killed: a server in the same process would die with the mount, and the kernel would wait
 * for it for ever.  So the program becomes two: what was there first serves, in a mount
 * namespace of its own, and its child goes on with the command.  The one that was there
 * first then ends as its child did.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/kernel_fs.h"
#include "cli/program.h"
#include "cli/running.h"
#include "core/driver.h"
#include "kernel/host.h"

bool kernel_fs_possible(void)
{
	return geteuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0;
}

static void wait_for_loop(int number)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/loop%d/loop", number);
	for (int i = 0; i < 500 && access(path, F_OK) == 0; i++)
		usleep(10000);
}

static int attach(struct vd_loop *loop, int fd, struct vdisk *volume, uint64_t offset, bool writable,
		  struct vdisk_error *err)
{
	return vd_loop_attach(loop, fd, vdisk_name(volume), offset, vdisk_size(volume), 0,
			      VD_LOOP_AUTOCLEAR | (writable ? 0u : (unsigned)VD_LOOP_READ_ONLY), err);
}

/* Loop devices that a helper's process has: they go a moment after the mount. */
static int helped[16];
static unsigned n_helped;

void kernel_fs_end(void)
{
	while (n_helped)
		wait_for_loop(helped[--n_helped]);
}

/* By a program that mount(8) knows, like ntfs-3g: in a directory that only is there until then. */
static int mount_by_helper(int number, const char *helper, bool writable, struct vdisk_error *err)
{
	AUTO_FREE char *base = running_dir();
	AUTO_FREE char *dir = NULL;
	char device[32], said[300];
	const char *argv[] = {
		"mount", "-t", helper, "-o", writable ? "nosuid,nodev,noexec" : "ro,nosuid,nodev,noexec",
		device, NULL, NULL,
	};
	int root = -1, pad;

	snprintf(device, sizeof(device), "/dev/loop%d", number);
	if (!base || asprintf(&dir, "%s/fs-XXXXXX", base) < 0 || !mkdtemp(dir))
		return vd_fail(err, errno ? errno : EIO, "no place to mount %s: %m", device);
	argv[6] = dir;
	pad = program_pad();
	if (program_run(argv, pad, pad) == CLI_OK) {
		root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW);
		if (n_helped < ARRAY_SIZE(helped))
			helped[n_helped++] = number;
	}
	rmdir(dir);
	program_said(&pad, said, sizeof(said));
	if (root >= 0)
		return root;
	/* mount(8) knows no such type: there is no program for it */
	if (!*said || strstr(said, "unknown filesystem type"))
		return vd_fail(err, ENODEV, "this host has neither a kernel nor a program (%s) that "
			       "mounts it", helper);
	return vd_fail(err, EIO, "%s: %s", helper, said);
}

/* The root of the file system on a loop device, which then goes with it. */
static int mount_loop(int number, const char *type, bool writable, struct vdisk_error *err)
{
	char path[32];
	int r;

	snprintf(path, sizeof(path), "/dev/loop%d", number);
	if (strcmp(type, "ntfs") != 0)
		return vd_host_mount(path, type, !writable, err);
	/* (the kernel's "ntfs" was a driver that read only) */
	r = vd_host_mount(path, "ntfs3", !writable, err);
	return r == -ENODEV ? mount_by_helper(number, "ntfs-3g", writable, err) : r;
}

/* ---- the server ---- */

struct server {
	struct vdisk *volume;		/* borrowed */
	struct vdisk_fuse *fuse;	/* owned */
	pthread_t thread;
	struct vd_loop loop;
	bool writable;
};

static void *run_view(void *arg)
{
	struct server *s = arg;

	vdisk_fuse_run(s->fuse, NULL);
	return NULL;
}

/* A loop device on a view of the volume that has no name any more. */
static int server_start(struct server *s, struct vdisk_error *err)
{
	AUTO_FREE char *dir = running_dir();
	AUTO_FREE char *view = NULL;
	AUTO_CLOSE int fd = -1;
	int r;

	if (!dir || asprintf(&view, "%s/fs-XXXXXX", dir) < 0)
		return -ENOMEM;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
		return vd_fail(err, errno, "no mount namespace: %m");
	fd = mkstemp(view);
	if (fd < 0)
		return vd_fail(err, errno, "%s: %m", view);
	close(STEAL_FD(fd));
	r = vdisk_fuse_mount(&s->fuse, s->volume, view, err);
	if (r == 0 && pthread_create(&s->thread, NULL, run_view, s) != 0) {
		vdisk_fuse_free(STEAL(s->fuse));
		r = vd_fail(err, EAGAIN, "cannot start a thread");
	}
	if (r == 0) {
		fd = open(view, (s->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		r = fd < 0 ? vd_fail(err, errno, "%s: %m", view) :
			     attach(&s->loop, fd, s->volume, 0, s->writable, err);
		umount2(view, MNT_DETACH | UMOUNT_NOFOLLOW);
	}
	unlink(view);
	return r;
}

static int server_end(struct server *s)
{
	int r = 0;

	if (s->loop.fd >= 0)
		wait_for_loop(s->loop.number);
	if (s->fuse) {
		vdisk_fuse_stop(s->fuse);
		pthread_join(s->thread, NULL);
		vdisk_fuse_free(s->fuse);
	}
	if (s->writable)
		r = vdisk_flush(s->volume);
	return r;
}

static pid_t command;

static void pass_on(int sig)
{
	kill(command, sig);
}

/* Where the server says which loop device it is, or what went wrong. */
struct answer {
	int loop;		/* -1: an error */
	struct vdisk_error err;
};

/* Serve until the command has ended and the kernel has written everything; then end like it. */
static NORETURN void serve(struct vdisk *volume, struct vdisk *disk, bool writable, pid_t child,
			   int to, int from)
{
	const struct sigaction sa = { .sa_handler = pass_on, .sa_flags = SA_RESTART };
	struct server s = { .volume = volume, .writable = writable, .loop.fd = -1 };
	struct answer a = { .loop = -1 };
	struct vdisk_error err = { 0 };
	int status = 0, r;
	char byte;

	command = child;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	r = server_start(&s, &a.err);
	if (r == 0)
		a.loop = s.loop.number;
	/* until it has mounted it, or has ended */
	if (write(to, &a, sizeof(a)) == sizeof(a) && r == 0)
		while (read(from, &byte, 1) < 0 && errno == EINTR)
			;
	if (s.loop.fd >= 0)
		close(s.loop.fd);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	r = server_end(&s);
	if (r < 0)
		cli_error("%s: %s", vdisk_name(volume), strerror(-r));
	else if ((r = vdisk_close(volume, &err)) < 0 || (r = vdisk_close(disk, &err)) < 0)
		cli_fail(&err);
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
	}
	_exit(r < 0 && !WEXITSTATUS(status) ? CLI_FAILED : WEXITSTATUS(status));
}

/* In the child: the number of the loop device that the parent has made. */
static int served_loop(int from, struct vdisk_error *err)
{
	struct answer a = { .loop = -1 };

	if (read(from, &a, sizeof(a)) != sizeof(a))
		return vd_fail(err, EIO, "the server of the view has ended");
	if (a.loop < 0) {
		*err = a.err;
		return -a.err.code;
	}
	return a.loop;
}

/* Both ends of two pipes: from the server, and to it. */
static int mount_served(struct vdisk *volume, struct vdisk *disk, const char *type, bool writable,
			bool read_only, struct vdisk_error *err)
{
	int down[2], up[2], number, root;
	pid_t parent = getpid(), child;

	if (pipe2(down, O_CLOEXEC) < 0)
		return vd_fail(err, errno, "pipe: %m");
	if (pipe2(up, O_CLOEXEC) < 0) {
		close(down[0]);
		close(down[1]);
		return vd_fail(err, errno, "pipe: %m");
	}
	fflush(NULL);
	child = fork();
	if (child > 0) {
		close(down[0]);
		close(up[1]);
		serve(volume, disk, writable, child, down[1], up[0]);
	}
	close(down[1]);
	close(up[0]);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(CLI_FAILED);
		/* for ever: they are the parent's to close */
		vdisk_ref(volume);
		if (disk)
			vdisk_ref(disk);
	}
	number = child < 0 ? vd_fail(err, errno, "cannot start a process: %m") :
			     served_loop(down[0], err);
	root = number < 0 ? number : mount_loop(number, type, !read_only, err);
	/* the mount keeps the device from here on */
	close(up[1]);
	close(down[0]);
	return root;
}

/* ---- opening ---- */

static int mount_plain(struct vdisk *volume, const char *type, bool writable, int fd,
		       uint64_t offset, struct vdisk_error *err)
{
	struct vd_loop loop;
	int r = attach(&loop, fd, volume, offset, writable, err);

	if (r < 0)
		return r;
	r = mount_loop(loop.number, type, writable, err);
	close(loop.fd);
	return r;
}

/* A journal that has to be replayed cannot be where nothing may be written: then in a layer. */
static int mount_replayed(struct vdisk *volume, const char *type, struct vdisk_error *err)
{
	struct vdisk *layer;
	int r = vdisk_open_overlay(&layer, volume, NULL, err);

	return r < 0 ? r : mount_served(layer, NULL, type, true, true, err);
}

static int mount_volume(struct vdisk *volume, struct vdisk *disk, const char *type, bool writable,
			struct vdisk_error *err)
{
	uint64_t offset = 0;
	int fd = -1, r;

	if (!vd_plain_run(volume, &fd, &offset))
		return writable ? mount_served(volume, disk, type, true, false, err) :
			       mount_replayed(volume, type, err);
	r = mount_plain(volume, type, writable, fd, offset, err);
	if ((r == -EROFS || r == -EACCES) && !writable)
		r = mount_replayed(volume, type, err);
	return r;
}

/* Which directory of the file system is the root of a guest, if it is one: a btrfs may have
 * it in a subvolume.  -1: none. */
static int find_root(int top, const char **inside)
{
	static const char *const dirs[] = {
		".", "@", "root", "@rootfs", "@/.snapshots/1/snapshot",
	};
	static const char *const marks[] = { "etc/os-release", "usr/lib/os-release", "etc/fstab" };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		int dir = openat(top, dirs[i], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		for (size_t k = 0; dir >= 0 && k < ARRAY_SIZE(marks); k++)
			if (faccessat(dir, marks[k], F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
				*inside = i ? dirs[i] : "";
				return dir;
			}
		if (dir >= 0)
			close(dir);
	}
	return -1;
}

static int open_inside(struct vdisk_fs **out, const char **inside, struct vdisk *volume,
		       struct vdisk *disk, enum kernel_root root, bool writable,
		       struct vdisk_error *err)
{
	struct vdisk_probe probe = { 0 };
	int fd, dir, r = vdisk_probe(volume, &probe, err);

	if (r < 0)
		return r;
	if (strcmp(probe.usage, "filesystem") != 0)
		return -EMEDIUMTYPE;
	fd = mount_volume(volume, disk, probe.type, writable, err);
	if (fd < 0)
		return fd;
	*inside = "";
	dir = root == KERNEL_TOP ? -1 : find_root(fd, inside);
	if (dir >= 0 || root == KERNEL_ROOT) {
		close(fd);
		fd = dir;
	}
	if (fd < 0)
		return vd_fail(err, ENOENT, "%s: no root of a system", vdisk_name(volume));
	r = vd_host_fs(out, volume, fd, probe.type, writable, err);
	if (r < 0)
		close(fd);
	return r;
}

int kernel_fs_open(struct vdisk_fs **out, struct vdisk *volume, struct vdisk *disk,
		   enum kernel_root root, bool writable, struct vdisk_error *err)
{
	const char *inside;

	return open_inside(out, &inside, volume, disk, root, writable, err);
}

int kernel_fs_lend(struct vdisk_fs **out, const char **inside, struct vdisk *volume,
		   struct vdisk_error *err)
{
	return open_inside(out, inside, volume, NULL, KERNEL_ROOT_OR_TOP, false, err);
}

/* ---- which one is the root ---- */

struct candidates {
	char name[264];			/* of the first */
	unsigned n;
	bool search;			/* look into them: the first that is a root */
};

static int look_at(void *arg, const struct vdisk_volume *v)
{
	struct candidates *c = arg;
	struct vdisk_probe probe = { 0 };
	struct vdisk_fs *fs;

	if (vdisk_probe(v->disk, &probe, NULL) < 0 || strcmp(probe.usage, "filesystem") != 0 ||
	    !strncmp(probe.type, "ext", 3) || !strcmp(probe.type, "vfat"))
		return 0;
	if (c->search) {
		if (kernel_fs_open(&fs, v->disk, NULL, KERNEL_ROOT, false, NULL) < 0)
			return 0;
		vdisk_fs_close(fs, NULL);
	}
	if (c->n++ == 0)
		memcpy(c->name, v->name, sizeof(c->name));
	return c->search;
}

int kernel_fs_root(char name[264], struct vdisk *disk)
{
	struct candidates c = { .n = 0 };

	vdisk_each_volume(disk, look_at, &c, NULL);
	if (c.n > 1) {
		c = (struct candidates) { .search = true };
		vdisk_each_volume(disk, look_at, &c, NULL);
	}
	memcpy(name, c.name, sizeof(c.name));
	return c.n ? 0 : -ENOENT;
}
