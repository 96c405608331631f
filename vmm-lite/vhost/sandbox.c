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
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"

#define CALL(name)	SCMP_SYS(name)

static const int calls[] = {
	/* the front end: connections, messages, the memory and doorbells in them */
	CALL(accept4), CALL(recvmsg), CALL(recvfrom), CALL(sendmsg), CALL(sendto),
	CALL(setsockopt), CALL(memfd_create),
	/* disk I/O on descriptors that are open, by ring or by hand */
	CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(pread64), CALL(pwrite64),
	CALL(preadv), CALL(pwritev), CALL(preadv2), CALL(pwritev2), CALL(lseek),
	CALL(fallocate), CALL(fdatasync), CALL(fsync), CALL(ftruncate), CALL(fstat),
	CALL(newfstatat),	/* how this libc spells fstat */
	CALL(io_uring_setup), CALL(io_uring_enter), CALL(io_uring_register),
	CALL(fcntl), CALL(close),
	/* waiting */
	CALL(poll), CALL(ppoll), CALL(epoll_wait), CALL(epoll_pwait), CALL(epoll_ctl),
	CALL(epoll_create1), CALL(eventfd2), CALL(futex), CALL(nanosleep),
	CALL(clock_nanosleep), CALL(clock_gettime), CALL(gettimeofday), CALL(sched_yield),
	CALL(restart_syscall),
	/* memory, and the library's workers */
	CALL(mmap), CALL(munmap), CALL(mremap), CALL(madvise), CALL(brk), CALL(mprotect),
	CALL(clone), CALL(clone3), CALL(set_robust_list), CALL(rseq), CALL(exit),
	CALL(exit_group), CALL(sched_getaffinity), CALL(gettid), CALL(getpid), CALL(sysinfo),
	CALL(getrandom), CALL(membarrier), CALL(prctl),
	/* signals */
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(tgkill),
	CALL(sigaltstack),
};

/* A remote disk: its connection may have to be made again. */
static const int network_calls[] = {
	CALL(socket), CALL(bind), CALL(connect), CALL(getsockopt), CALL(getpeername), CALL(getsockname),
	CALL(shutdown), CALL(ioctl), CALL(dup2), CALL(uname),
};

static int allow_all(scmp_filter_ctx ctx, const int *list, size_t n)
{
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, list[i], 0);
	return r;
}

bool vhost_allows(int call, bool network)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i] == call)
			return true;
	for (size_t i = 0; network && i < ARRAY_SIZE(network_calls); i++)
		if (network_calls[i] == call)
			return true;
	return false;
}

bool vhost_refuses(int call)
{
	return call == CALL(openat);
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
	if (!r && network)
		r = allow_all(ctx, network_calls, ARRAY_SIZE(network_calls));
	else if (!r)	/* a guest discards, and its disk is a block device */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(ioctl), 1,
				     SCMP_A1_32(SCMP_CMP_EQ, BLKDISCARD));
	if (!r && !network)	/* a network card's driver says what it can do itself */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(ioctl), 1,
				     SCMP_A1_32(SCMP_CMP_EQ, TUNSETOFFLOAD));
	/* malloc() would like to read a file of /proc, and takes no for an answer */
	if (!r)
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
