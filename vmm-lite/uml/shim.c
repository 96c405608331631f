/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shim.c - preloaded into User-Mode Linux
 *
 * On processors with a large XSAVE area (AMX) the host refuses to set a
 * process's state from UML's shorter buffer, and UML dies.  Its buffer is put
 * into one of the host's size here, without the components that it does not know.
 *
 * And when the guest resets, UML would execute itself again, and when it panics,
 * dump core.  Both end with a status of their own instead.
 *
 * The guest's memory is a memory file, not one in a directory that the host has to have,
 * of a type and size that does.
 *
 * The guest's processes and UML's helpers end with it, however it ends: one that lost
 * its tracer would go on as a process of this host.  When it panics it would end its whole
 * process group instead, which is its caller's too.
 */
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define RESET_STATUS	16		/* of vdisk boot */
#define PANIC_STATUS	17
#define OLD_SETOPTIONS	21		/* what UML calls PTRACE_SETOPTIONS by */
#define AREA_MAX	65536u
#define FEATURES_AT	512u		/* XSTATE_BV, in the header behind the legacy area */
#define UML_FEATURES	UINT64_C(0x2ff)	/* up to AVX-512 and PKRU */

#define API __attribute__((visibility("default")))

static long set_state(pid_t pid, const struct iovec *given)
{
	static uint8_t area[AREA_MAX] __attribute__((aligned(64)));
	struct iovec iov = { .iov_base = area, .iov_len = sizeof(area) };
	uint64_t features;

	/* how large the host's is */
	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov) < 0)
		return -1;
	if (iov.iov_len <= given->iov_len)
		return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, given);
	memset(area, 0, iov.iov_len);
	memcpy(area, given->iov_base, given->iov_len);
	memcpy(&features, area + FEATURES_AT, sizeof(features));
	features &= UML_FEATURES;
	memcpy(area + FEATURES_AT, &features, sizeof(features));
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov);
}

API long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	long value = 0, r;
	void *addr, *data;
	pid_t pid;
	int peek = request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA ||
		   request == PTRACE_PEEKUSER;

	va_start(ap, request);
	pid = va_arg(ap, pid_t);
	addr = va_arg(ap, void *);
	data = va_arg(ap, void *);
	va_end(ap);
	if (request == PTRACE_SETREGSET && (uintptr_t)addr == NT_X86_XSTATE)
		return set_state(pid, data);
	/* a process that a guest's process forks off does not come by clone() below */
	if (request == PTRACE_SETOPTIONS || (int)request == OLD_SETOPTIONS)
		return syscall(SYS_ptrace, PTRACE_SETOPTIONS, pid, addr,
			       (uintptr_t)data | PTRACE_O_EXITKILL);
	r = syscall(SYS_ptrace, request, pid, addr, peek ? (void *)&value : data);
	return r < 0 || !peek ? r : value;
}

struct start {
	int (*fn)(void *arg);
	void *arg;
};

static int started(void *p)
{
	const struct start *s = p;

	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	return s->fn(s->arg);
}

/* All of UML's processes; what a new one needs to know is at the top of its stack. */
API int clone(int (*fn)(void *arg), void *stack, int flags, void *arg, ...)
{
	static int (*next)(int (*)(void *), void *, int, void *, ...);
	struct start *s = (struct start *)(((uintptr_t)stack & ~(uintptr_t)15) - sizeof(*s));

	if (!next)
		next = (int (*)(int (*)(void *), void *, int, void *, ...))dlsym(RTLD_NEXT, "clone");
	*s = (struct start) { fn, arg };
	return next(started, s, flags, s);
}

static int open_file(const char *path, int flags, unsigned mode)
{
	if ((flags & O_TMPFILE) == O_TMPFILE)
		return memfd_create("the guest's memory", MFD_CLOEXEC);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define OPEN(name) \
	API int name(const char *path, int flags, ...) \
	{ \
		unsigned mode; \
		va_list ap; \
\
		va_start(ap, flags); \
		mode = flags & O_CREAT ? va_arg(ap, unsigned) : 0; \
		va_end(ap); \
		return open_file(path, flags, mode); \
	}
OPEN(open)
OPEN(open64)

API int execvp(const char *file, char *const argv[])
{
	const char *name = strrchr(file, '/');

	name = name ? name + 1 : file;
	if (!strncmp(name, "linux", 5))
		_exit(RESET_STATUS);
	return (int)syscall(SYS_execve, file, argv, environ);
}

/* How UML ends itself after a panic, and its group before; abort() does not come here. */
API int kill(pid_t pid, int number)
{
	if (pid == 0)
		return 0;
	if (number == SIGABRT && pid == getpid())
		_exit(PANIC_STATUS);
	return (int)syscall(SYS_kill, pid, number);
}
