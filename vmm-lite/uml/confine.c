/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * confine.c - what User-Mode Linux's process is left with
 *
 * Root in the guest can load code into the guest's kernel, which is a process of ours: so
 * this is not a process that may be broken into, but one that is the guest's.  It has to
 * execute a program, map memory that can be executed, trace its children and connect to
 * its disks, which vmm-lite need not, and the table below is longer for it; what it finds
 * there is a file system with nothing of the host's but programs' libraries, no network,
 * and no process but its own.
 */
#include "vmm-lite/uml/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "core/calls.h"
#include "core/driver.h"
#include "vmm-lite/userns.h"
#include "vmm-lite/vhost/sandbox.h"

#define NAMESPACES	((unsigned long)(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | \
					 CLONE_NEWUTS))

/* ---- processes ---- */

pid_t confine_fork(struct sandbox_state *s)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	unsigned long own_users = uid ? CLONE_NEWUSER : 0;
	AUTO_CLOSE int parent = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct pollfd gone = { .fd = parent, .events = POLLIN };
	long pid;

	*s = (struct sandbox_state) { 0 };
	if (parent < 0)
		return -1;
	pid = syscall(SYS_clone, SIGCHLD | NAMESPACES | own_users, NULL, NULL, NULL, NULL);
	if (pid >= 0)
		s->pid = s->net = s->ipc = true;
	else
		pid = fork();
	if (pid != 0)
		return (pid_t)pid;
	/* (getppid() knows nobody outside of a namespace) */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poll(&gone, 1, 0) != 0)
		_exit(1);
	if (s->pid && own_users)
		s->user = userns_map(uid, gid);
	return 0;
}

/* ---- files ---- */

/* Attached where /proc was, which nobody else sees: the namespace is our own. */
static int make_root(void)
{
	AUTO_CLOSE int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), root = -1;

	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "mode", "755", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	root = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	if (root < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    move_mount(root, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -1;
	return STEAL_FD(root);
}

/* The directories above @path, an absolute name, below @root. */
static bool make_parents(int root, const char *path)
{
	char name[4096];

	for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		snprintf(name, sizeof(name), "%.*s", (int)(p - path - 1), path + 1);
		if (mkdirat(root, name, 0755) < 0 && errno != EEXIST)
			return false;
	}
	return true;
}

/* A directory of the host's in its place; as a link where it is one. */
static bool show(int root, const char *path, uint64_t attributes)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | attributes };
	AUTO_CLOSE int tree = -1;
	char to[4096];
	ssize_t n = readlink(path, to, sizeof(to) - 1);

	if (!make_parents(root, path))
		return false;
	if (n > 0) {
		to[n] = '\0';
		return symlinkat(to, root, path + 1) == 0;
	}
	tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (tree < 0)
		return errno == ENOENT;
	return !mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) &&
	       !mkdirat(root, path + 1, 0755) &&
	       !move_mount(tree, "", root, path + 1, MOVE_MOUNT_F_EMPTY_PATH);
}

/* From the beginning, wherever its descriptor stands. */
static bool copy(int root, const char *path, int from)
{
	AUTO_CLOSE int to = -1;
	ssize_t n;

	if (!make_parents(root, path))
		return false;
	to = openat(root, path + 1, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0555);
	if (to < 0 || lseek(from, 0, SEEK_SET) < 0)
		return false;
	do
		n = sendfile(to, from, NULL, 1 << 20);
	while (n > 0);
	return n == 0;
}

static bool fill_root(int root, const char *dir, int shim, int cpus, int initrd)
{
	static const char *const libraries[] = { "/usr/lib", "/usr/lib64", "/lib", "/lib64" };
	struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY };

	for (size_t i = 0; i < ARRAY_SIZE(libraries); i++)
		if (!show(root, libraries[i], MOUNT_ATTR_RDONLY))
			return false;
	return show(root, dir, MOUNT_ATTR_NOEXEC) && copy(root, CONFINE_SHIM, shim) &&
	       copy(root, "/proc/cpuinfo", cpus) && copy(root, CONFINE_INITRD, initrd) &&
	       !mount_setattr(root, "", AT_EMPTY_PATH, &read_only, sizeof(read_only));
}

void confine_files(struct sandbox_state *s, const char *dir, const char *shim, int initrd)
{
	AUTO_CLOSE int its_shim = open(shim, O_RDONLY | O_CLOEXEC);
	/* which of the processor's features a guest may use */
	AUTO_CLOSE int cpus = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int root = -1;

	if (!s->pid)
		return;
	root = make_root();
	if (root < 0)
		return;
	s->mount = its_shim >= 0 && cpus >= 0 && fill_root(root, dir, its_shim, cpus, initrd) &&
		   !fchdir(root) && !syscall(SYS_pivot_root, ".", ".") &&
		   !umount2(".", MNT_DETACH) && !chdir("/");
	if (!s->mount)
		umount2("/proc", MNT_DETACH);
}

/* ---- system calls ---- */

#define CALL(name)	SCMP_SYS(name)

static const struct rule {
	int call;
	const char *why;
	/* if @mask: only where argument @arg, masked, is @value */
	unsigned arg;
	uint64_t mask, value;
} rules[] = {
	{ CALL(execveat), "the kernel itself" },
	/* what the loader and the C library do before its main() */
	{ CALL(arch_prctl), "a program begins" },
	{ CALL(set_tid_address), "a program begins" },
	{ CALL(set_robust_list), "a program begins" },
	{ CALL(rseq), "a program begins" },
	{ CALL(prlimit64), "a program begins; the stack that it wants" },
	{ CALL(getrandom), "a program begins; the entropy device" },
	{ CALL(uname), "the host's name for the processor" },
	/* files: its libraries, its directory */
	{ CALL(openat), "libraries, initrd, what is in its directory" },
	{ CALL(access), "the loader" },
	{ CALL(newfstatat), "the initrd's size; the directory" },
	{ CALL(fstat), "how other C libraries spell it" },
	{ CALL(statfs), "what its memory would lie on, if not in a memory file" },
	{ CALL(getdents64), "what is left of another in its directory" },
	{ CALL(mkdir), "its directory" },
	{ CALL(rmdir), "its directory" },
	{ CALL(unlink), "its directory" },
	{ CALL(memfd_create), "the guest's memory" },
	{ CALL(fallocate), "the guest's memory, given back" },
	{ CALL(lseek), "the guest's memory; whether a console is a file" },
	{ CALL(read), "consoles, the initrd, libraries" },
	{ CALL(write), "consoles" },
	{ CALL(pread64), "libraries" },
	{ CALL(fsync), "the guest's memory" },
	{ CALL(close), "files" },
	{ CALL(dup2), "consoles" },
	{ CALL(fcntl), "consoles that do not wait" },
	{ CALL(ioctl), "consoles", 1, UINT32_MAX, TCGETS },
	{ CALL(ioctl), "consoles", 1, UINT32_MAX, TCSETSW },
	{ CALL(ioctl), "consoles", 1, UINT32_MAX, TCSETSF },
	{ CALL(ioctl), "consoles", 1, UINT32_MAX, TIOCGWINSZ },
	{ CALL(ioctl), "a thread that waits for a console to change its size", 1, UINT32_MAX, TIOCGPGRP },
	{ CALL(ioctl), "the same", 1, UINT32_MAX, TIOCSCTTY },
	{ CALL(ioctl), "the same", 1, UINT32_MAX, TIOCSPGRP },
	/* its devices: sockets of names in its directory */
	{ CALL(socket), "disks and network cards", 0, UINT64_MAX, AF_UNIX },
	{ CALL(socketpair), "its threads", 0, UINT64_MAX, AF_UNIX },
	{ CALL(connect), "disks and network cards" },
	{ CALL(bind), "its management console, in its directory" },
	{ CALL(sendmsg), "disks and network cards" },
	{ CALL(recvmsg), "disks and network cards" },
	{ CALL(sendto), "its management console" },
	{ CALL(recvfrom), "its management console" },
	{ CALL(eventfd2), "interrupts of a device" },
	{ CALL(epoll_create), "interrupts" },
	{ CALL(epoll_ctl), "interrupts" },
	{ CALL(epoll_wait), "interrupts" },
	{ CALL(poll), "its threads" },
	/* time */
	{ CALL(clock_gettime), "where the vDSO cannot tell the time" },
	{ CALL(gettimeofday), "where the vDSO cannot tell the time" },
	{ CALL(timer_create), "the clock's interrupt" },
	{ CALL(timer_settime), "the clock's interrupt" },
	{ CALL(timer_gettime), "the clock's interrupt" },
	{ CALL(restart_syscall), "the kernel's own way to go on after a signal" },
	/* memory; the guest's programs are in it */
	{ CALL(mmap), "memory" },
	{ CALL(munmap), "memory" },
	{ CALL(mprotect), "memory" },
	{ CALL(madvise), "memory" },
	{ CALL(brk), "memory" },
	{ CALL(modify_ldt), "the segments of its processes" },
	/* the guest's processes, which are its children */
	{ CALL(clone), "a process of the guest's; no namespaces", 0,
	  NAMESPACES | CLONE_NEWUSER | CLONE_NEWCGROUP, 0 },
	{ CALL(ptrace), "its processes" },
	{ CALL(wait4), "its processes" },
	{ CALL(kill), "its processes: there are no others in its namespace" },
	{ CALL(tgkill), "itself" },
	{ CALL(futex), "the C library's locks" },
	{ CALL(getpid), "who am I" },
	{ CALL(gettid), "who am I" },
	{ CALL(getppid), "a process of the guest's" },
	{ CALL(getpgrp), "consoles" },
	{ CALL(setsid), "a process of the guest's" },
	{ CALL(prctl), "a name; the end of its parent" },
	{ CALL(rt_sigaction), "signals" },
	{ CALL(rt_sigprocmask), "signals" },
	{ CALL(rt_sigreturn), "signals" },
	{ CALL(rt_sigsuspend), "signals" },
	{ CALL(sigaltstack), "signals" },
	{ CALL(exit), "the end" },
	{ CALL(exit_group), "the end" },
};

static int load_filter(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (size_t i = 0; !r && i < ARRAY_SIZE(rules); i++) {
		const struct rule *u = &rules[i];

		r = vd_allow_call(ctx, u->call, u->arg, u->mask, u->value);
	}
	/* its flags are in memory; the C library falls back to clone() */
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), CALL(clone3), 0);
	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

int confine_calls(struct sandbox_state *s, struct vdisk_error *err)
{
	int r = vhost_drop_privileges(err);

	if (r < 0)
		return r;
	r = load_filter();
	if (r < 0)
		return vd_fail(err, -r, "cannot filter system calls: %s", strerror(-r));
	s->filter = true;
	return 0;
}

enum sandbox_verdict confine_verdict(int call)
{
	if (call == CALL(clone3))
		return SANDBOX_REFUSES;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].call == call && !rules[i].mask)
			return SANDBOX_ALLOWS;
	return SANDBOX_KILLS;
}
