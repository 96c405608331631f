/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LD_PRELOAD shim for linux.uml (6.1) on hosts whose XSAVE area is larger
 * than the 2696 bytes UML was built for (any CPU with AMX).
 *
 * Since 5.x the host refuses PTRACE_SETREGSET(NT_X86_XSTATE) unless the whole
 * XSAVE area is supplied, so UML dies with "ptrace set fp regs failed,
 * errno = 14".  Pad UML's short buffer with zeroes up to the host's size and
 * drop the state components that lie beyond what UML saved.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { XSTATE_MAX = 65536, XSTATE_BV = 512, UML_FEATURES = 0x2ff };

static long set_xstate(pid_t pid, const struct iovec *short_iov)
{
	static uint8_t full[XSTATE_MAX] __attribute__((aligned(64)));
	struct iovec iov = { full, sizeof full };
	uint64_t features;

	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov) < 0)
		return -1;	/* iov_len is now the host's size */
	if (iov.iov_len > short_iov->iov_len) {
		memset(full, 0, iov.iov_len);
		memcpy(full, short_iov->iov_base, short_iov->iov_len);
		memcpy(&features, full + XSTATE_BV, sizeof features);
		features &= UML_FEATURES;
		memcpy(full + XSTATE_BV, &features, sizeof features);
	} else {
		iov = *short_iov;
	}
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	va_start(ap, request);
	pid_t pid = va_arg(ap, pid_t);
	void *addr = va_arg(ap, void *);
	void *data = va_arg(ap, void *);
	va_end(ap);

	if (request == PTRACE_SETREGSET && (uintptr_t)addr == NT_X86_XSTATE)
		return set_xstate(pid, data);

	long peeked = 0;
	int peek = request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA
		   || request == PTRACE_PEEKUSER;
	long rc = syscall(SYS_ptrace, request, pid, addr, peek ? &peeked : data);
	return rc < 0 || !peek ? rc : peeked;
}
