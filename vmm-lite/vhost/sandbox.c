/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sandbox.c - what the vhost-user server gives up
 *
 * The front end is a guest, or close to one.  When its first message is read,
 * the disk and the sockets are open; what is left is this table.
 */
#include "vmm-lite/vhost/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/calls.h"
#include "core/driver.h"
#include "vmm-lite/log.h"

#define CALL(name)	SCMP_SYS(name)

static const struct rule {
	int call;
	const char *why;
} calls[] = {
	{ CALL(accept4), "a front end, or who asks at the control socket" },
	{ CALL(recvmsg), "messages, and the memory and doorbells in them" },
	{ CALL(sendmsg), "answers" },
	{ CALL(recvfrom), "the control socket" },
	{ CALL(sendto), "the control socket" },
	{ CALL(setsockopt), "how long an answer may take" },
	{ CALL(memfd_create), "the record of what is in flight" },
	/* disks, on descriptors that are open */
	{ CALL(read), "eventfds; disks" },
	{ CALL(write), "eventfds; disks; messages" },
	{ CALL(readv), "frames of a network card; libiscsi" },
	{ CALL(writev), "frames of a network card; libiscsi" },
	{ CALL(pread64), "disks" },
	{ CALL(pwrite64), "disks" },
	{ CALL(preadv), "disks" },
	{ CALL(pwritev), "disks" },
	{ CALL(preadv2), "disks: what the page cache has, without waiting" },
	{ CALL(pwritev2), "disks: durable writes" },
	{ CALL(lseek), "where a file has holes" },
	{ CALL(fallocate), "discard, zeroes" },
	{ CALL(fdatasync), "flush" },
	{ CALL(ftruncate), "an image that grows; the record of what is in flight" },
	{ CALL(newfstatat), "how long the memory of a front end is (fstat)" },
	{ CALL(fstat), "how other C libraries spell it" },
	{ CALL(io_uring_enter), "a queue's ring" },
	{ CALL(io_uring_register), "a queue's ring" },
	{ CALL(fcntl), "descriptors that came in messages; locks" },
	{ CALL(close), "what a front end takes back" },
	/* waiting */
	{ CALL(poll), "all the loops" },
	{ CALL(epoll_wait), "a disk's doorbells" },
	{ CALL(epoll_ctl), "the same" },
	{ CALL(futex), "locks" },
	{ CALL(clock_gettime), "where the vDSO cannot tell the time" },
	{ CALL(restart_syscall), "the kernel's own way to go on after a signal" },
	/* memory and threads; more, by its arguments: allow_some() */
	{ CALL(munmap), "memory" },
	{ CALL(mremap), "memory" },
	{ CALL(madvise), "memory" },
	{ CALL(brk), "memory" },
	{ CALL(set_robust_list), "a worker begins" },
	{ CALL(rseq), "a worker begins" },
	{ CALL(exit), "a worker ends" },
	{ CALL(exit_group), "the end" },
	{ CALL(sched_getaffinity), "how many processors there are" },
	{ CALL(sysinfo), "how much memory qsort() may use for a long list" },
	{ CALL(gettid), "abort()" },
	{ CALL(getpid), "abort()" },
	{ CALL(rt_sigaction), "signals" },
	{ CALL(rt_sigprocmask), "signals" },
	{ CALL(rt_sigreturn), "signals" },
#if SANITIZED
	{ CALL(sigaltstack), "a thread ends" },
#endif
};

/* A remote disk: its connection may have to be made again. */
static const struct rule network_calls[] = {
	{ CALL(socket), "a new connection, and the C library's resolver" },
	{ CALL(connect), "the same" },
	{ CALL(bind), "the resolver: which addresses this host has (netlink)" },
	{ CALL(getsockname), "the same" },
	{ CALL(getsockopt), "whether it is connected" },
	{ CALL(dup2), "libiscsi puts a new connection in the old one's place" },
	{ CALL(clock_nanosleep), "libiscsi waits before it tries again" },
	{ CALL(ioctl), "the resolver: how much there is to read" },
	{ CALL(uname), "the resolver: its own name" },
	{ CALL(eventfd2), "a session made again" },
	{ CALL(gettimeofday), "the resolver, where the vDSO cannot tell the time" },
};

static int allow_all(scmp_filter_ctx ctx, const struct rule *list, size_t n)
{
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		r = vd_allow_call(ctx, list[i].call, 0, 0, 0);
	return r;
}

/* By their arguments: no code from data, threads but no processes, signals for ourselves. */
static int allow_some(scmp_filter_ctx ctx)
{
	const uint64_t thread = CLONE_THREAD | CLONE_VM;
	int r = vd_allow_call(ctx, CALL(mmap), 2, PROT_EXEC, 0);

	if (!r)
		r = vd_allow_call(ctx, CALL(mprotect), 2, PROT_EXEC, 0);
	if (!r)
		r = vd_allow_call(ctx, CALL(clone), 0, thread, thread);
	if (!r)		/* its flags are in memory; the C library falls back to clone() */
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), CALL(clone3), 0);
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(tgkill), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	return r;
}

bool vhost_allows(int call, bool network)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].call == call)
			return true;
	for (size_t i = 0; network && i < ARRAY_SIZE(network_calls); i++)
		if (network_calls[i].call == call)
			return true;
	return false;
}

bool vhost_judges(int call)
{
	return call == CALL(mmap) || call == CALL(mprotect) || call == CALL(clone) ||
		call == CALL(tgkill) || call == CALL(ioctl) || call == CALL(unlink);
}

bool vhost_refuses(int call, bool network)
{
	return call == CALL(clone3) || (network && call == CALL(openat));
}

static int load(const char *const *unlinks, bool network)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!r)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!r)
		r = allow_all(ctx, calls, ARRAY_SIZE(calls));
	if (!r)
		r = allow_some(ctx);
	if (!r && network)
		r = allow_all(ctx, network_calls, ARRAY_SIZE(network_calls));
	else if (!r)	/* a guest discards, and its disk is a block device */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(ioctl), 1,
				     SCMP_A1_32(SCMP_CMP_EQ, BLKDISCARD));
	if (!r && !network)	/* ... and may have been made larger */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(ioctl), 1,
				     SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)BLKGETSIZE64));
	if (!r && !network)	/* a network card's driver says what it can do itself */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(ioctl), 1,
				     SCMP_A1_32(SCMP_CMP_EQ, TUNSETOFFLOAD));
	/* the resolver would like to read its configuration, and takes no for an answer */
	if (!r && network)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), CALL(openat), 0);
	/* the sockets' names, and nothing else */
	for (; !r && *unlinks; unlinks++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(unlink), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)(uintptr_t)*unlinks));
	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

static void forbidden(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	log_warnx("system call %d is not allowed here: stopped", info->si_syscall);
	_exit(1);
}

int vhost_drop_privileges(struct vdisk_error *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };
	struct rlimit no_core = { 0, 0 };

	/* more arenas would make malloc() open files, when no thread may any more */
	mallopt(M_ARENA_MAX, 1);
	if (setrlimit(RLIMIT_CORE, &no_core) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capset, &head, none) < 0)
		return vd_fail(err, errno, "cannot give up privileges: %m");
	return 0;
}

int vhost_filter(const char *const *unlinks, bool network, struct vdisk_error *err)
{
	struct sigaction action = { .sa_sigaction = forbidden, .sa_flags = SA_SIGINFO };
	int r;

	sigemptyset(&action.sa_mask);
	if (sigaction(SIGSYS, &action, NULL) < 0)
		return vd_fail(err, errno, "sigaction: %m");
	r = load(unlinks, network);
	return r < 0 ? vd_fail(err, -r, "cannot filter system calls: %s", strerror(-r)) : 0;
}
