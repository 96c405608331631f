/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every system call that the sandbox does not list, tried by each kind of thread, is stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm-lite/sandbox.h"

#define CALLS	462		/* as many as Linux 6.12 has */

static volatile int stopped;

static void note(int signal_number, siginfo_t *info, void *context)
{
	(void)signal_number;
	(void)context;
	stopped = info->si_syscall + 1;
}

static void enter(enum sandbox_kind kind)
{
	struct sandbox_state s = { 0 };
	struct vdisk_error err = { 0 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || sandbox_filter(&s, &err) < 0)
		_exit(10);
	if (kind == SANDBOX_VCPU)
		sandbox_vcpu();
	if (kind == SANDBOX_DISK)
		sandbox_disk();
	if (kind == SANDBOX_NET)
		sandbox_net();
	if (kind == SANDBOX_FRONT)
		sandbox_front();
}

/* Those that are processes of their own. */
static void enter_process(enum sandbox_kind kind)
{
	struct vdisk_error err = { 0 };
	pid_t child = 1;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    (kind == SANDBOX_PARENT ? sandbox_parent(child) : sandbox_filter_uml(&child, 1, &err)) < 0)
		_exit(10);
}

/* In a child that is filtered: the first call that was not treated as it should be, 0: none. */
static int try_all(enum sandbox_kind kind)
{
	struct sigaction action = { .sa_sigaction = note, .sa_flags = SA_SIGINFO };

	if (kind == SANDBOX_PARENT || kind == SANDBOX_UML)
		enter_process(kind);
	else
		enter(kind);
	sigaction(SIGSYS, &action, NULL);
	for (int call = 1; call < CALLS; call++) {
		enum sandbox_verdict v = sandbox_verdict(kind, call);
		long r;

		if (v == SANDBOX_ALLOWS || call == SYS_tgkill)
			continue;
		/* uretprobe, uprobe: no filter sees them, the kernel itself sends SIGILL */
		if (call == 335 || call == 336)
			continue;
		/* arguments that no rule with a condition admits */
		stopped = 0;
		r = syscall(call, 0x7fff, 0x7fff, PROT_EXEC, 0x7fff, 0, 0);
		if (v == SANDBOX_KILLS && stopped != call + 1)
			return call;
		if (v == SANDBOX_REFUSES && (stopped || r != -1 || (errno != EACCES && errno != ENOSYS)))
			return call;
	}
	/* 0 is read(), which is allowed; numbers that there are not */
	stopped = 0;
	syscall(9999);
	return stopped == 10000 ? 0 : 9999;
}

static void *nothing(void *arg)
{
	return arg;
}

static int in_child(int (*run)(enum sandbox_kind kind), enum sandbox_kind kind)
{
	/* not every kind may write() */
	int *answer = mmap(NULL, sizeof(*answer), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, got;
	pid_t pid;

	assert_ptr_not_equal(answer, MAP_FAILED);
	*answer = -1;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		*answer = run(kind);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	got = *answer;
	munmap(answer, sizeof(*answer));
	return got >= 0 ? got : -status;
}

static const enum sandbox_kind all_kinds[] = {
	SANDBOX_PROCESS, SANDBOX_VCPU, SANDBOX_DISK, SANDBOX_NET, SANDBOX_FRONT, SANDBOX_PARENT,
	SANDBOX_UML,
};

static void every_call(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(all_kinds) / sizeof(all_kinds[0]); i++) {
		int r = in_child(try_all, all_kinds[i]);

		if (r)
			fail_msg("kind %d: call %d was not stopped", all_kinds[i], r);
	}
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void confine(enum sandbox_kind kind)
{
	if (kind == SANDBOX_PARENT || kind == SANDBOX_UML)
		enter_process(kind);
	else
		enter(kind);
}

static volatile int caught;

static void catch(int number)
{
	caught = number;
}

/* What the C library does on the way: memory, a signal that is handled. */
static int library(enum sandbox_kind kind)
{
	struct sigaction action = { .sa_handler = catch };
	char *p, *big;

	confine(kind);
	big = malloc(1 << 20);
	p = malloc(3000);
	big = big ? realloc(big, 8 << 20) : NULL;
	if (!big || !p)
		return 1;
	free(big);
	free(p);
	malloc_trim(0);
	if (sigaction(SIGUSR2, &action, NULL) < 0 || raise(SIGUSR2) || caught != SIGUSR2)
		return 2;
	return 0;
}

/* Some also start threads, and sort. */
static int more_library(enum sandbox_kind kind)
{
	int list[4096];
	pthread_t t;

	enter(kind);
	for (int i = 0; i < 4096; i++)
		list[i] = 4096 - i;
	qsort(list, 4096, sizeof(list[0]), by_number);
	if (list[0] != 1 || pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL))
		return 1;
	return 0;
}

/* A failed assertion is said, and is not taken for a forbidden call. */
static int fails(enum sandbox_kind kind)
{
	confine(kind);
	abort();
}

static void what_the_library_does(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(all_kinds) / sizeof(all_kinds[0]); i++) {
		/* (a realloc() of AddressSanitizer's copies) */
		int r = all_kinds[i] == SANDBOX_PARENT ? 0 : in_child(library, all_kinds[i]);

		if (r)
			fail_msg("kind %d: %d", all_kinds[i], r);
		r = in_child(fails, all_kinds[i]);
		if (r != -SIGABRT)
			fail_msg("kind %d: abort() ended it with %d", all_kinds[i], r);
	}
	assert_int_equal(in_child(more_library, SANDBOX_PROCESS), 0);
	assert_int_equal(in_child(more_library, SANDBOX_DISK), 0);
}

/* What depends on arguments: each must be stopped. */
static int try_arguments(enum sandbox_kind kind)
{
	static const unsigned long requests[] = {
		KVM_SET_USER_MEMORY_REGION, KVM_CREATE_VCPU, KVM_CREATE_VM, KVM_SET_SREGS,
		TIOCSTI, FIONREAD,
	};
	struct sigaction action = { .sa_sigaction = note, .sa_flags = SA_SIGINFO };

	enter(kind);
	sigaction(SIGSYS, &action, NULL);
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		if (kind == SANDBOX_PROCESS && i < 4)
			continue;	/* it makes machines */
		stopped = 0;
		syscall(SYS_ioctl, -1, requests[i], 0);
		if (!stopped)
			return 100 + (int)i;
	}
	stopped = 0;
	syscall(SYS_tgkill, getpid() + 1, 1, 0);	/* somebody else */
	if (!stopped)
		return 200;
	stopped = 0;
	syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);	/* a process */
	if (!stopped)
		return 201;
	stopped = 0;
	syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!stopped)
		return 202;
	stopped = 0;
	syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
	return stopped ? 0 : 203;
}

static void arguments(void **state)
{
	(void)state;
	assert_int_equal(in_child(try_arguments, SANDBOX_PROCESS), 0);
	assert_int_equal(in_child(try_arguments, SANDBOX_VCPU), 0);
	assert_int_equal(in_child(try_arguments, SANDBOX_DISK), 0);
	assert_int_equal(in_child(try_arguments, SANDBOX_NET), 0);
}

/* As it is in earnest: a message, and status 1. */
static int try_in_earnest(enum sandbox_kind kind)
{
	enter(kind);
	syscall(SYS_socket, 1, 1, 0);
	return 0;
}

static void the_end(void **state)
{
	int r;

	(void)state;
	r = in_child(try_in_earnest, SANDBOX_PROCESS);
	assert_int_equal(r, -(1 << 8));
}

/* After the jail: no file can be reached, by no name, and no descriptor tells of one. */
static int try_jail(enum sandbox_kind kind)
{
	struct sandbox_state s;
	struct vdisk_error err = { 0 };

	(void)kind;
	if (sandbox_prepare(&s, &err) < 0)
		return 6;
	if (sandbox_enter(&s, 1 << 30, &err) < 0)
		return 1;
	if (s.mount && (!access("/etc/passwd", F_OK) || !access("/proc/self", F_OK) ||
			open("/x", O_CREAT | O_WRONLY, 0600) >= 0))
		return 2;
	if (s.landlock && open("/", O_RDONLY | O_DIRECTORY) >= 0)
		return 3;
	if (prctl(PR_GET_DUMPABLE) || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return 4;
	if (s.pid && getpid() != 1)
		return 7;
	return unshare(CLONE_NEWNET) == 0 ? 5 : 0;
}

static void jail(void **state)
{
	(void)state;
	assert_int_equal(in_child(try_jail, SANDBOX_PROCESS), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call),
		cmocka_unit_test(what_the_library_does),
		cmocka_unit_test(arguments),
		cmocka_unit_test(the_end),
		cmocka_unit_test(jail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
