/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sandbox.c - what is given up once everything is open
 *
 * When the guest's first instruction runs, disks, KVM, kernel and initrd are
 * open already, so nothing needs to be opened, executed or connected any more.
 * Every permission that is left stands in one of the two tables below with its
 * reason.  A call outside them is reported by number and ends the process; the
 * terminal is restored first.
 *
 * Our parent stays outside of our process-id namespace: it waits for us, and can do
 * nothing else (stand_by()).
 *
 * Filters add up: a thread may install more, never remove one.  The process's
 * is what any of its threads may do; those of vCPUs and of disks put a narrower
 * one on top of it.
 *
 * See docs/THREATS.md for what this is meant to stop.
 */
#include "vmm-lite/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/calls.h"
#include "core/driver.h"
#include "core/landlock.h"
#include "vmm-lite/log.h"
#include "vmm-lite/terminal.h"
#include "vmm-lite/userns.h"

/* ---- what is left ---- */

enum { MAIN = 1, VCPU = 2, DISK = 4, NET = 8, FRONT = 16,
       ALL = MAIN | VCPU | DISK | NET | FRONT, PARENT = 32,
       UML = 64 };	/* all threads of vmm-uml */

static const struct rule {
	int call;
	unsigned who;
	const char *why;
	/* if @mask: only where argument @arg, masked, is @value */
	unsigned arg;
	uint64_t mask, value;
} rules[] = {
#define CALL(name)	SCMP_SYS(name)
	{ CALL(read), ALL | UML, "eventfds: doorbells, wake-ups; the terminal; disks" },
	{ CALL(write), ALL | PARENT | UML, "eventfds: interrupts; the terminal; messages; disks" },
	/* disks, on descriptors that are open */
	{ CALL(readv), NET, "frames" },
	{ CALL(writev), NET, "frames" },
	{ CALL(pread64), MAIN | DISK, "disks; kernel and initrd at each start" },
	{ CALL(pwrite64), MAIN | DISK, "disks: metadata" },
	{ CALL(preadv), MAIN | DISK, "disks" },
	{ CALL(pwritev), MAIN | DISK, "disks" },
	{ CALL(preadv2), DISK, "disks: what the page cache has, without waiting" },
	{ CALL(pwritev2), MAIN | DISK, "disks: durable writes" },
	{ CALL(lseek), MAIN | DISK, "where a file has holes" },
	{ CALL(fallocate), MAIN | DISK | VCPU, "discard, zeroes; the guest's memory, cleared, given back" },
	{ CALL(fdatasync), MAIN | DISK, "flush" },
	{ CALL(ftruncate), MAIN | DISK, "an image that grows" },
	{ CALL(newfstatat), MAIN | DISK, "kernel, initrd, new disks: their size (fstat)" },
	{ CALL(fstat), MAIN | DISK, "how other C libraries spell it" },
	{ CALL(fstatfs), MAIN, "what a new disk lies on" },
	{ CALL(statx), MAIN, "the alignment that a new disk wants" },
	{ CALL(io_uring_setup), DISK, "a queue's ring" },
	{ CALL(io_uring_enter), DISK, "a queue's ring" },
	{ CALL(io_uring_register), DISK, "a queue's ring" },
	{ CALL(fcntl), MAIN | DISK | UML, "locks of disks; descriptors of new ones" },
	{ CALL(close), MAIN | VCPU | DISK | FRONT | UML, "a device that the guest gives back; the end" },
	/* the control socket */
	{ CALL(accept4), MAIN | UML, "the control socket" },
	{ CALL(recvmsg), MAIN | FRONT | UML, "requests, and the descriptors of new disks; isolated disks" },
	{ CALL(sendmsg), MAIN | FRONT | UML, "answers; isolated disks" },
	{ CALL(sendto), MAIN | NET | UML, "the console, to who looks on; frames" },
	{ CALL(recvfrom), MAIN | NET | UML, "keys from there; frames" },
	/* vmm-uml: a socket for each disk */
	{ CALL(socket), UML, "where the driver of a new disk is awaited", 0, UINT64_MAX, AF_UNIX },
	{ CALL(bind), UML, "the same" },
	{ CALL(listen), UML, "the same" },
	{ CALL(unlink), UML, "one of a disk that was there before" },
	{ CALL(setsockopt), UML, "how long the rest of a message may take" },
	{ CALL(shutdown), UML, "a relay that is over; the end" },
	/* waiting */
	{ CALL(poll), MAIN | DISK | NET | FRONT | UML, "all the loops" },
	{ CALL(epoll_wait), DISK | UML, "a disk's doorbells; processes that end, the agent" },
	{ CALL(epoll_ctl), DISK | UML, "the same" },
	{ CALL(epoll_create1), MAIN, "the same, of a new disk" },
	{ CALL(eventfd2), MAIN | DISK | UML, "a machine made anew; a new disk" },
	{ CALL(futex), ALL | PARENT | UML, "locks" },
	{ CALL(clock_gettime), ALL | UML, "where the vDSO cannot tell the time" },
	{ CALL(restart_syscall), ALL | PARENT | UML, "the kernel's own way to go on after a signal" },
	/* memory and threads; no code from data, no processes */
	{ CALL(mmap), ALL | PARENT | UML, "memory", 2, PROT_EXEC, 0 },
	{ CALL(mprotect), ALL | UML, "a thread's stack", 2, PROT_EXEC, 0 },
	{ CALL(munmap), ALL | PARENT | UML, "memory" },
	{ CALL(mremap), ALL | UML, "memory" },
	{ CALL(madvise), ALL | PARENT | UML, "memory" },
	{ CALL(brk), ALL | PARENT | UML, "memory" },
	{ CALL(clone), MAIN | DISK | UML, "vCPUs after a reset, workers of the library, new disks", 0,
	  CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM },
	{ CALL(set_robust_list), MAIN | DISK | UML, "a thread begins" },
	{ CALL(rseq), MAIN | DISK | UML, "a thread begins" },
	{ CALL(exit), ALL | UML, "a thread ends" },
	{ CALL(exit_group), ALL | PARENT | UML, "the end" },
	{ CALL(sched_getaffinity), MAIN | DISK, "how many processors there are" },
	{ CALL(gettid), ALL | PARENT | UML, "who am I" },
	{ CALL(getpid), ALL | PARENT | UML, "who are we" },
	{ CALL(sysinfo), MAIN | DISK, "how much memory qsort() may use for a long list" },
	{ CALL(getrandom), MAIN | VCPU, "the entropy device; a kernel's seed" },
	{ CALL(memfd_create), MAIN, "a kernel, decompressed; memory for a new disk's process" },
	/* signals: stopping a vCPU, restoring the terminal on the way out */
	{ CALL(rt_sigaction), ALL | PARENT | UML, "signals" },
	{ CALL(rt_sigprocmask), ALL | PARENT | UML, "signals" },
	{ CALL(rt_sigreturn), ALL | PARENT | UML, "signals" },
#if SANITIZED
	{ CALL(sigaltstack), ALL | PARENT | UML, "a thread ends" },
	{ CALL(getrandom), ALL | UML, "a thread begins" },
#endif
	/* (tgkill: see own_process()) */
	{ CALL(rt_sigtimedwait), PARENT, "signals for the guest's process, and its end" },
	{ CALL(wait4), PARENT | UML, "how it ended" },
	/* (kill: see load_filter()) */
	/* a thread installs its own filter */
	{ CALL(seccomp), MAIN, "a narrower filter" },
	{ CALL(prctl), MAIN, "a narrower filter", 0, UINT32_MAX, PR_SET_NO_NEW_PRIVS },
	{ CALL(prctl), MAIN, "a thread's name", 0, UINT32_MAX, PR_SET_NAME },
};

static const struct ioctl_rule {
	uint32_t request;
	unsigned who;
	const char *why;
} ioctls[] = {
	{ KVM_CREATE_VM, MAIN, "the machine, made anew at a reset" },
	{ KVM_CHECK_EXTENSION, MAIN, "the same" },
	{ KVM_GET_VCPU_MMAP_SIZE, MAIN, "the same" },
	{ KVM_GET_SUPPORTED_CPUID, MAIN, "the same" },
	{ KVM_SET_IDENTITY_MAP_ADDR, MAIN, "the same" },
	{ KVM_SET_TSS_ADDR, MAIN, "the same" },
	{ KVM_CREATE_IRQCHIP, MAIN, "the same" },
	{ KVM_SET_USER_MEMORY_REGION, MAIN, "the same" },
	{ KVM_CREATE_VCPU, MAIN, "the same" },
	{ KVM_REGISTER_COALESCED_MMIO, MAIN, "the same" },
	{ KVM_SET_CPUID2, MAIN, "the same" },
	{ KVM_GET_LAPIC, MAIN, "the same" },
	{ KVM_SET_LAPIC, MAIN, "the same" },
	{ KVM_SET_FPU, MAIN, "the same" },
	{ KVM_SET_MSRS, MAIN, "the same" },
	{ KVM_GET_SREGS, MAIN, "the same" },
	{ KVM_SET_SREGS, MAIN, "the same" },
	{ KVM_SET_REGS, MAIN, "the same" },
	{ KVM_RUN, VCPU, "the guest" },
	{ KVM_GET_REGS, VCPU, "to explain an exit that ends the guest" },
	{ KVM_IRQ_LINE, MAIN | VCPU, "the serial port, the event device" },
	{ KVM_SET_GSI_ROUTING, MAIN | VCPU, "the guest sets up a message interrupt" },
	{ KVM_IRQFD, MAIN | VCPU, "the same" },
	{ KVM_IOEVENTFD, MAIN | VCPU, "the guest moves a BAR; devices come and go" },
	{ TUNSETOFFLOAD, VCPU, "a network card is started" },
	{ TUNSETVNETHDRSZ, MAIN, "a network card on a tap device" },
	{ BLKDISCARD, DISK, "a guest discards, and its disk is a block device" },
	{ BLKGETSIZE64, MAIN, "a new disk that is one" },
	{ BLKSSZGET, MAIN, "the same" },
	{ TCSETS, ALL | UML, "the terminal, put back by whoever ends the process" },
	{ TCGETS, MAIN | UML, "stdio: is it a terminal?" },
	{ TIOCSWINSZ, UML, "its size, told on to the guest's" },
	{ TIOCGWINSZ, MAIN | UML, "the terminal's size" },
};

/*
 * Refused, but not fatal.  When somebody else has a new disk locked, the message would
 * like to name him, from /proc; clone3() hides its flags in memory, and the C library
 * falls back to clone(), whose flags can be judged.  (malloc() opens files of /proc and
 * /sys for arenas of threads: there is only one arena, see main().)
 */
static const struct refusal {
	int call, error;
	unsigned who;
} refusals[] = {
	{ CALL(openat), EACCES, MAIN | UML }, { CALL(clone3), ENOSYS, MAIN | DISK | UML },
};

/* ---- filters ---- */

static _Atomic bool confined;

/* A signal goes to our own threads only. */
static int own_process(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(tgkill), 1,
				SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
}

static int add_rules(scmp_filter_ctx ctx, unsigned who)
{
	int r = own_process(ctx);

	for (size_t i = 0; !r && i < ARRAY_SIZE(refusals); i++)
		if (refusals[i].who & who)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO((uint32_t)refusals[i].error),
					     refusals[i].call, 0);
	for (size_t i = 0; !r && i < ARRAY_SIZE(rules); i++) {
		const struct rule *u = &rules[i];

		if (u->who & who)
			r = vd_allow_call(ctx, u->call, u->arg, u->mask, u->value);
	}
	for (size_t i = 0; !r && i < ARRAY_SIZE(ioctls); i++)
		if (ioctls[i].who & who)
			r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
					     SCMP_A1_32(SCMP_CMP_EQ, ioctls[i].request));
	return r;
}

/* @child: @n processes that may be sent signals. */
static int load_filter(unsigned who, bool all_threads, const pid_t *child, unsigned n)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, all_threads);
	/* compare fast: many rules, one of them a hundred thousand times a second */
	if (!r)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!r)
		r = add_rules(ctx, who);
	for (unsigned i = 0; !r && i < n; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(kill), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)child[i]));
	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

/* A forbidden call: say which, restore the terminal, end. */
static void forbidden(int number, siginfo_t *info, void *context)
{
	const ucontext_t *u = context;

	(void)number;
	terminal_restore();
	log_warnx("system call %d (%#llx, %#llx) is not allowed here: stopped", info->si_syscall,
		  u->uc_mcontext.gregs[REG_RDI], u->uc_mcontext.gregs[REG_RSI]);
	_exit(1);
}

static int catch_forbidden(void)
{
	struct sigaction action = { .sa_sigaction = forbidden, .sa_flags = SA_SIGINFO };

	sigemptyset(&action.sa_mask);
	return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

int sandbox_parent(pid_t child)
{
	int r = catch_forbidden();

	(void)prctl(PR_SET_NAME, "vmm-lite-parent", 0, 0, 0);
	return r < 0 ? r : load_filter(PARENT, false, &child, 1);
}

/* For all its threads. */
static int filter_process(unsigned who, const pid_t *own, unsigned n, struct vdisk_error *err)
{
	int r = catch_forbidden();

	if (!r)
		r = load_filter(who, true, own, n);
	return r < 0 ? vd_fail(err, -r, "cannot filter system calls: %s", strerror(-r)) : 0;
}

int sandbox_filter_uml(const pid_t *own, unsigned n, struct vdisk_error *err)
{
	return filter_process(UML, own, n, err);
}

int sandbox_filter(struct sandbox_state *s, struct vdisk_error *err)
{
	int r = filter_process(ALL, NULL, 0, err);

	confined = s->filter = r == 0;
	return r;
}

/* @name: what the thread is called (ps -L, top -H; tests/tools/reached goes by it). */
static void narrow(unsigned who, const char *name)
{
	int r;

	(void)prctl(PR_SET_NAME, name, 0, 0, 0);
	r = confined ? load_filter(who, false, NULL, 0) : 0;

	if (r < 0) {
		log_warnx("cannot filter a thread's system calls: %s", strerror(-r));
		_exit(1);
	}
}

void sandbox_vcpu(void)
{
	narrow(VCPU, "vcpu");
}

void sandbox_disk(void)
{
	narrow(DISK, "disk");
}

void sandbox_net(void)
{
	narrow(NET, "net");
}

void sandbox_front(void)
{
	narrow(FRONT, "front");
}

static unsigned who_is(enum sandbox_kind kind)
{
	switch (kind) {
	case SANDBOX_VCPU:	return VCPU;
	case SANDBOX_DISK:	return DISK;
	case SANDBOX_NET:	return NET;
	case SANDBOX_FRONT:	return FRONT;
	case SANDBOX_PARENT:	return PARENT;
	case SANDBOX_UML:	return UML;
	default:		return ALL;
	}
}

enum sandbox_verdict sandbox_verdict(enum sandbox_kind kind, int call)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		if (refusals[i].call == call && refusals[i].who & who_is(kind))
			return SANDBOX_REFUSES;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].call == call && rules[i].who & who_is(kind) && !rules[i].mask)
			return SANDBOX_ALLOWS;
	return SANDBOX_KILLS;
}

bool sandbox_lists(enum sandbox_kind kind, int call)
{
	unsigned who = kind == SANDBOX_PROCESS ? MAIN : who_is(kind);

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].call == call && rules[i].who & who)
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(ioctls); i++)
		if (call == SCMP_SYS(ioctl) && ioctls[i].who & who)
			return true;
	return false;
}

/* ---- privileges ---- */

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	/* those that a later exec could gain are out of reach by no_new_privs */
	return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

static void new_user(struct sandbox_state *s)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (uid != 0 && unshare(CLONE_NEWUSER) == 0)
		s->user = userns_map(uid, gid);
}

/* ---- the parent, outside of the namespace ---- */

static void end_like(int status)
{
	int number = WTERMSIG(status);
	sigset_t set;

	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	signal(number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(number);
	_exit(128 + number);
}

/*
 * Wait for the guest's process.  None of its descriptors stay open here, or a
 * disk that is detached would stay locked.
 */
NORETURN static void stand_by(pid_t child, int told, const sigset_t *signals)
{
	struct rlimit no_core = { 0, 0 };
	int status, number;
	char byte;

	/* it has seen to it that it does not outlive us; or has ended */
	(void)!read(told, &byte, 1);
	closefrom(3);
	setrlimit(RLIMIT_CORE, &no_core);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    drop_capabilities() < 0 || sandbox_parent(child) < 0) {
		kill(child, SIGKILL);
		_exit(1);
	}
	for (;;) {
		number = sigwaitinfo(signals, NULL);
		if (number == SIGCHLD && waitpid(child, &status, WNOHANG) == child)
			end_like(status);
		if (number > 0 && number != SIGCHLD)
			kill(child, number);
	}
}

/* /proc is still the one of before. */
static pid_t pid_outside(void)
{
	char text[16];
	ssize_t n = readlink("/proc/self", text, sizeof(text) - 1);

	if (n <= 0)
		return getpid();
	text[n] = '\0';
	return (pid_t)strtol(text, NULL, 10);
}

static int new_pids(struct sandbox_state *s, struct vdisk_error *err)
{
	sigset_t signals, before;
	int told[2];
	pid_t pid;

	if (unshare(CLONE_NEWPID) < 0)
		return 0;
	/* there is no way back: threads could not be made any more */
	if (pipe2(told, O_CLOEXEC) < 0)
		return vd_fail(err, errno, "pipe: %m");
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGQUIT);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, &before);
	pid = fork();
	if (pid < 0)
		return vd_fail(err, errno, "fork: %m");
	if (pid > 0) {
		close(told[1]);
		stand_by(pid, told[0], &signals);
	}
	close(told[0]);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (write(told[1], "", 1) != 1)
		_exit(1);
	close(told[1]);
	/*
	 * Signals without a handler are lost on a namespace's first process, and
	 * these have none before the console takes them: keep them until then.
	 */
	sigdelset(&before, SIGCHLD);
	sigaddset(&before, SIGTERM);
	sigaddset(&before, SIGINT);
	sigaddset(&before, SIGHUP);
	sigprocmask(SIG_SETMASK, &before, NULL);
	s->pid = true;
	return 0;
}

int sandbox_prepare(struct sandbox_state *s, struct vdisk_error *err)
{
	int r;

	*s = (struct sandbox_state) { 0 };
	new_user(s);
	r = new_pids(s, err);
	s->outside = pid_outside();
	return r;
}

/* An empty, read-only file system is all there is. */
static bool empty_root(void)
{
	/* /proc is everywhere, and nobody needs it any more */
	return !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		      "size=4k,nr_inodes=1,mode=500") &&
	       !chdir("/proc") && !syscall(SYS_pivot_root, ".", ".") &&
	       !umount2(".", MNT_DETACH) && !chdir("/") &&
	       !mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		      NULL);
}

static void set_limit(int which, uint64_t value)
{
	struct rlimit l = { value, value };

	/* one that is lower already stays */
	(void)setrlimit((__rlimit_resource_t)which, &l);
}

static int no_new_rights(struct vdisk_error *err)
{
	struct rlimit no_core = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &no_core) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return vd_fail(err, errno, "cannot give up privileges: %m");
	return 0;
}

int sandbox_enter(struct sandbox_state *s, uint64_t memory, struct vdisk_error *err)
{
	int r;

	s->net = !unshare(CLONE_NEWNET);
	s->ipc = !unshare(CLONE_NEWIPC | CLONE_NEWUTS);
	s->mount = !unshare(CLONE_NEWNS) && empty_root();
	r = no_new_rights(err);
	if (r < 0)
		return r;
	set_limit(RLIMIT_NOFILE, 4096);
#ifndef __SANITIZE_ADDRESS__
	set_limit(RLIMIT_AS, memory + (UINT64_C(8) << 30));	/* stacks, rings, caches */
#else
	(void)memory;
#endif
	s->landlock = vd_landlock_nothing() < 0 ? 0 : vd_landlock_version();
	r = drop_capabilities();
	return r < 0 ? vd_fail(err, -r, "cannot drop capabilities: %s", strerror(-r)) : 0;
}

int sandbox_enter_uml(const char *dir, struct vdisk_error *err)
{
	int r = no_new_rights(err);

	if (r < 0)
		return r;
	r = vd_landlock_sockets(dir);
	if (r == -ENOSYS || r == -EOPNOTSUPP)
		r = 0;
	if (!r)
		r = drop_capabilities();
	return r < 0 ? vd_fail(err, -r, "cannot give up privileges: %s", strerror(-r)) : 0;
}
