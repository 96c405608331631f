/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sandbox.c - every permission that the daemon keeps, with its reason
 *
 * By the time this runs, disks, sockets and the disk queue are open.  Nothing
 * that follows opens a file, makes a socket or starts a program: the calls that
 * would are not on the list, and fail with EPERM.  Only a server that can be told
 * to read its configuration again may open files - as the user that it has
 * become - and listen; starting a program it may not either.
 *
 * Descriptors stay as they were opened, so serving a root-owned disk as
 * "nobody" is no contradiction.
 */
#include <errno.h>
#include <grp.h>
#include <linux/prctl.h>
#include <pwd.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "core/compiler.h"
#include "core/landlock.h"
#include "target/log.h"
#include "target/sandbox.h"

/* Sanitizers look at other processes and files when they report. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const struct calls {
	const char *why;
	int calls[24];		/* -1 ends it */
} allowed[] = {
	{ "move data between sockets, disks and pipes",
	  { SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev),
	    SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv), SCMP_SYS(pwritev),
	    SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(sendmsg), SCMP_SYS(sendto),
	    SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(copy_file_range),
	    SCMP_SYS(sendfile), -1 } },
	{ "the disk queue; its ring is enabled when it is first used",
	  { SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register), -1 } },
	{ "make data durable, give back space, grow an image, find holes",
	  { SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range),
	    SCMP_SYS(fallocate), SCMP_SYS(ftruncate), SCMP_SYS(lseek), SCMP_SYS(fstat),
	    SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(fadvise64), SCMP_SYS(ioctl),
	    SCMP_SYS(fstatfs), -1 } },
	{ "image locks, descriptor flags",
	  { SCMP_SYS(fcntl), SCMP_SYS(flock), SCMP_SYS(close), SCMP_SYS(dup), -1 } },
	{ "accept connections",
	  { SCMP_SYS(accept4), SCMP_SYS(accept), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	    SCMP_SYS(setsockopt), SCMP_SYS(getsockopt), SCMP_SYS(shutdown), -1 } },
	{ "wait",
	  { SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(poll),
	    SCMP_SYS(ppoll), SCMP_SYS(futex), SCMP_SYS(eventfd2), SCMP_SYS(nanosleep),
	    SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
	    SCMP_SYS(restart_syscall), -1 } },
	{ "memory",
	  { SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
	    SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mincore), -1 } },
	{ "worker threads of the library, started when first needed",
	  { SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
	    SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(sched_getaffinity),
	    SCMP_SYS(sched_yield), SCMP_SYS(prlimit64), SCMP_SYS(exit),
	    SCMP_SYS(set_tid_address), SCMP_SYS(getrandom), -1 } },
	{ "signals, and the end",
	  { SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	    SCMP_SYS(sigaltstack), SCMP_SYS(tgkill), SCMP_SYS(exit_group), -1 } },
};

static const struct calls for_reload[] = {
	{ "open the configuration, secrets, disks and what these name",
	  { SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(access),
	    SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
	    SCMP_SYS(getcwd), SCMP_SYS(getdents64), SCMP_SYS(statfs), SCMP_SYS(geteuid),
	    SCMP_SYS(getuid), SCMP_SYS(memfd_create), -1 } },
	{ "remove the reservations of a LUN that was taken away",
	  { SCMP_SYS(unlink), SCMP_SYS(unlinkat), -1 } },
	{ "listen on further portals; connect() is for the resolver's choice of addresses",
	  { SCMP_SYS(socket), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(connect), -1 } },
};

/* "nobody", looked up while files can be opened */
static uid_t nobody_uid = 65534;
static gid_t nobody_gid = 65534;

static int landlock(int (*lock)(void), struct vdisk_error *err)
{
	int r;

	if (SANITIZED)
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(err, errno, "no_new_privs: %s", strerror(errno));
	r = lock();
	if (r < 0 && r != -ENOSYS && r != -EOPNOTSUPP)
		return fail(err, -r, "Landlock: %s", strerror(-r));
	return 0;
}

int sandbox_files(struct vdisk_error *err)
{
	const struct passwd *nobody = getpwnam("nobody");

	if (nobody) {
		nobody_uid = nobody->pw_uid;
		nobody_gid = nobody->pw_gid;
	}
	return landlock(vd_landlock_nothing, err);
}

int sandbox_files_only(struct vdisk_error *err)
{
	return landlock(vd_landlock_files, err);
}

static int become_nobody(struct vdisk_error *err)
{
	const struct passwd *nobody = getpwnam("nobody");
	uid_t uid = nobody ? nobody->pw_uid : nobody_uid;
	gid_t gid = nobody ? nobody->pw_gid : nobody_gid;

	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return fail(err, errno, "cannot become user \"nobody\": %s", strerror(errno));
	return 0;
}

/* With the groups that the user is in: one of them may be that of the disks. */
static int become_user(const char *name, struct vdisk_error *err)
{
	const struct passwd *pw = getpwnam(name);

	if (!pw)
		return fail(err, ENOENT, "there is no user \"%s\"", name);
	if (geteuid() == pw->pw_uid)
		return 0;
	if (geteuid() != 0)
		return fail(err, EPERM, "only root can become user \"%s\"", name);
	if (initgroups(name, pw->pw_gid) < 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		return fail(err, errno, "cannot become user \"%s\": %s", name, strerror(errno));
	return 0;
}

static int add_rules(scmp_filter_ctx filter, const struct calls *groups, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (const int *call = groups[i].calls; *call != -1; call++) {
			int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, *call, 0);

			if (r < 0)
				return r;
		}
	return 0;
}

static int filter_calls(bool reload, struct vdisk_error *err)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = filter ? add_rules(filter, allowed, ARRAY_SIZE(allowed)) : -ENOMEM;

	if (r == 0 && reload)
		r = add_rules(filter, for_reload, ARRAY_SIZE(for_reload));
	/* all threads: those of the queue exist already */
	if (r == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	if (r < 0)
		return fail(err, -r, "cannot install the system call filter: %s", strerror(-r));
	return 0;
}

int sandbox_user(const struct sandbox_opts *opts, uid_t *out, struct vdisk_error *err)
{
	const struct passwd *pw = getpwnam(opts->user ? opts->user : "nobody");

	if (!pw && opts->user)
		return fail(err, ENOENT, "there is no user \"%s\"", opts->user);
	*out = pw ? pw->pw_uid : 65534;
	return 0;
}

int sandbox_enter(const struct sandbox_opts *opts, struct vdisk_error *err)
{
	int r = 0;

	if (SANITIZED)
		return 0;
	if (opts->user)
		r = become_user(opts->user, err);
	else if (geteuid() == 0)
		r = become_nobody(err);
	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(err, errno, "no_new_privs: %s", strerror(errno));
	return filter_calls(opts->reload, err);
}
