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
 * Filters add up: a thread may install more, never remove one, so vCPU threads
 * put theirs on top of the process's.
 */
#include "vmm-lite/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <termios.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/terminal.h"

#define CALL(name)	SCMP_SYS(name)

/* The process: the terminal, the disks, and a machine made anew at reboot. */
static const int process_calls[] = {
	/* disk I/O on descriptors that are open, by ring or by hand */
	CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(pread64), CALL(pwrite64),
	CALL(preadv), CALL(pwritev), CALL(preadv2), CALL(pwritev2), CALL(lseek),
	CALL(fallocate), CALL(fdatasync), CALL(fsync), CALL(ftruncate), CALL(fstat),
	CALL(newfstatat),	/* how this libc spells fstat */
	CALL(fstatfs), CALL(statx), /* what a new disk lies on; its alignment */
	CALL(io_uring_setup), CALL(io_uring_enter), CALL(io_uring_register),
	CALL(fcntl),		/* locks are given back; flags */
	CALL(close),		/* ... and at the end */
	/* the control socket, its answers, the descriptors of new disks */
	CALL(accept4), CALL(recvmsg), CALL(sendmsg), CALL(sendto), CALL(recvfrom),
	/* waiting */
	CALL(poll), CALL(ppoll), CALL(epoll_wait), CALL(epoll_pwait), CALL(epoll_ctl),
	CALL(epoll_create1), CALL(eventfd2), CALL(futex), CALL(nanosleep),
	CALL(clock_nanosleep), CALL(clock_gettime), CALL(gettimeofday), CALL(sched_yield),
	CALL(restart_syscall),
	/* memory, and threads: vCPUs after a reboot, workers of the library */
	CALL(mmap), CALL(munmap), CALL(mremap), CALL(madvise), CALL(brk), CALL(mprotect),
	CALL(clone), CALL(clone3), CALL(set_robust_list), CALL(rseq), CALL(exit),
	CALL(exit_group), CALL(sched_getaffinity), CALL(sched_setaffinity), CALL(gettid),
	CALL(getpid), CALL(membarrier), CALL(sysinfo), CALL(getrandom),
	CALL(memfd_create),	/* a kernel, decompressed */
	/* signals: stopping a vCPU, restoring the terminal on the way out */
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(tgkill),
	CALL(tkill), CALL(sigaltstack),
	/* a vCPU's thread installs its own filter */
	CALL(seccomp), CALL(prctl),
};

/* A vCPU: runs the guest, serves its accesses, starts and stops devices. */
static const int vcpu_calls[] = {
	CALL(read), CALL(write),		/* eventfds: doorbells, interrupts, wake-ups */
	CALL(futex), CALL(sched_yield),		/* locks, waiting for a device to stop */
	CALL(getrandom),			/* the entropy device */
	CALL(mmap), CALL(munmap), CALL(brk), CALL(mprotect), CALL(madvise), /* malloc */
	CALL(rt_sigreturn), CALL(rt_sigprocmask), CALL(tgkill), CALL(gettid), CALL(getpid),
	CALL(restart_syscall), CALL(exit), CALL(exit_group), CALL(clock_gettime),
	CALL(rt_sigaction), CALL(set_robust_list), CALL(rseq),
};

static const uint32_t process_ioctls[] = {
	/* the machine, made anew at reboot */
	KVM_CREATE_VM, KVM_CHECK_EXTENSION, KVM_GET_VCPU_MMAP_SIZE, KVM_GET_SUPPORTED_CPUID,
	KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR, KVM_CREATE_IRQCHIP,
	KVM_SET_USER_MEMORY_REGION, KVM_CREATE_VCPU, KVM_SET_CPUID2, KVM_GET_LAPIC,
	KVM_SET_LAPIC, KVM_SET_FPU, KVM_SET_MSRS, KVM_GET_SREGS, KVM_SET_SREGS, KVM_SET_REGS,
	/* while it runs: also the vCPUs', see below */
	KVM_RUN, KVM_GET_REGS, KVM_IRQ_LINE, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD,
	BLKDISCARD,	/* a guest discards, and its disk is a block device */
	BLKGETSIZE64, BLKSSZGET, /* a new disk that is one */
	/* the terminal's settings, put back at the end; is it one? (stdio) */
	TCSETS, TCGETS,
};

static const uint32_t vcpu_ioctls[] = {
	KVM_RUN,
	KVM_GET_REGS,			/* to explain an exit that ends the guest */
	KVM_IRQ_LINE,			/* the serial port */
	KVM_SET_GSI_ROUTING, KVM_IRQFD,	/* the guest sets up a message interrupt */
	KVM_IOEVENTFD,			/* the guest moves a BAR */
	TCSETS,				/* the terminal, if this thread ends the process */
};

static _Atomic bool confined;

static int allow(scmp_filter_ctx ctx, const int *calls, size_t n_calls, const uint32_t *ioctls,
		 size_t n_ioctls)
{
	int r = 0;

	for (size_t i = 0; !r && i < n_calls; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
	for (size_t i = 0; !r && i < n_ioctls; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				     SCMP_A1_32(SCMP_CMP_EQ, ioctls[i]));
	return r;
}

/*
 * Opening a file fails without ending the process: malloc(), when it gives
 * memory back, would like to read /proc/sys/vm/overcommit_memory, and takes no
 * for an answer.
 */
static int refuse_files(scmp_filter_ctx ctx)
{
	int r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), CALL(openat), 0);

	return r ? r : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), CALL(open), 0);
}

static int load_filter(bool whole_process)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, whole_process);
	/* compare fast: many rules, one of them a hundred thousand times a second */
	if (!r)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!r)
		r = refuse_files(ctx);
	if (!r && whole_process)
		r = allow(ctx, process_calls, ARRAY_SIZE(process_calls), process_ioctls,
			  ARRAY_SIZE(process_ioctls));
	else if (!r)
		r = allow(ctx, vcpu_calls, ARRAY_SIZE(vcpu_calls), vcpu_ioctls,
			  ARRAY_SIZE(vcpu_ioctls));
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

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	/* those that a later exec could gain are out of reach by no_new_privs */
	return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

int sandbox_drop_privileges(struct vdisk_error *err)
{
	struct rlimit no_core = { 0, 0 };
	int r;

	if (setrlimit(RLIMIT_CORE, &no_core) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return vd_fail(err, errno, "cannot give up privileges: %m");
	r = drop_capabilities();
	if (r < 0)
		return vd_fail(err, -r, "cannot drop capabilities: %s", strerror(-r));
	return 0;
}

int sandbox_filter(struct vdisk_error *err)
{
	struct sigaction action = { .sa_sigaction = forbidden, .sa_flags = SA_SIGINFO };
	int r;

	sigemptyset(&action.sa_mask);
	if (sigaction(SIGSYS, &action, NULL) < 0)
		return vd_fail(err, errno, "sigaction: %m");
	r = load_filter(true);
	if (r < 0)
		return vd_fail(err, -r, "cannot filter system calls: %s", strerror(-r));
	confined = true;
	return 0;
}

void sandbox_vcpu(void)
{
	int r = confined ? load_filter(false) : 0;

	if (r < 0) {
		log_warnx("cannot filter a vCPU's system calls: %s", strerror(-r));
		_exit(1);
	}
}
