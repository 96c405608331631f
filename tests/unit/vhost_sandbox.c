/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every system call that the disk server's filter does not list, tried, is stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm-lite/vhost/sandbox.h"

#define CALLS	462		/* as many as Linux 6.12 has */

static volatile int stopped;
static const char *const unlinks[] = { "/nowhere/socket", NULL };

static void note(int signal_number, siginfo_t *info, void *context)
{
	(void)signal_number;
	(void)context;
	stopped = info->si_syscall + 1;
}

static int enter(bool network)
{
	struct sigaction action = { .sa_sigaction = note, .sa_flags = SA_SIGINFO };
	struct vdisk_error err = { 0 };

	if (vhost_drop_privileges(&err) < 0 || vhost_filter(unlinks, network, &err) < 0)
		return -1;
	return sigaction(SIGSYS, &action, NULL);
}

static bool is_stopped(long call, long a, long b)
{
	stopped = 0;
	syscall(call, a, b, 0x7fff, 0x7fff, 0, 0);
	return stopped == (int)call + 1;
}

/* In a child: the first call that was not treated as it should be; 0: none. */
static int try_all(bool network)
{
	if (enter(network) < 0)
		return 20000;
	for (int call = 1; call < CALLS; call++) {
		/* uretprobe, uprobe: no filter sees them */
		if (call == 335 || call == 336 || vhost_allows(call, network))
			continue;
		if (vhost_refuses(call, network)) {
			stopped = 0;
			if (syscall(call, -1, "", 0) != -1 || (errno != EACCES && errno != ENOSYS) || stopped)
				return call;
		/* arguments that no rule admits */
		} else if (!is_stopped(call, call == SYS_clone ? 0 : 0x7fff, 0x7fff)) {
			return call;
		}
	}
	return is_stopped(9999, 0, 0) ? 0 : 9999;
}

/* What depends on arguments: the sockets' names only, one ioctl only. */
static int try_arguments(bool network)
{
	if (enter(network) < 0)
		return 20000;
	if (!is_stopped(SYS_unlink, (long)(intptr_t)"/nowhere/else", 0))
		return 1;
	stopped = 0;
	if (unlink(unlinks[0]) != -1 || errno != ENOENT || stopped)
		return 2;
	/* with a network the library needs more of them */
	if (!network && (!is_stopped(SYS_ioctl, -1, FIONREAD) || !is_stopped(SYS_ioctl, -1, BLKZEROOUT)))
		return 3;
	stopped = 0;
	if (ioctl(-1, BLKDISCARD, NULL) != -1 || errno != EBADF || stopped)
		return 4;
	if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		return 6;
	if (!is_stopped(SYS_tgkill, getpid() + 1, 1) || !is_stopped(SYS_clone, SIGCHLD, 0))
		return 7;
	if (!network && (!is_stopped(SYS_socket, AF_INET, SOCK_STREAM) || !is_stopped(SYS_connect, -1, 0)))
		return 5;
	return 0;
}

static int in_child(int (*run)(bool network), bool network)
{
	int fds[2], answer = -1, status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		answer = run(network);
		if (write(fds[1], &answer, sizeof(answer)) < 0)
			_exit(9);
		_exit(0);
	}
	close(fds[1]);
	if (read(fds[0], &answer, sizeof(answer)) != sizeof(answer))
		answer = -1;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return answer >= 0 ? answer : -status;
}

static void every_call(void **state)
{
	(void)state;
	for (int network = 0; network < 2; network++) {
		int r = in_child(try_all, network);

		if (r)
			fail_msg("network %d: call %d was not stopped", network, r);
	}
}

static void arguments(void **state)
{
	(void)state;
	for (int network = 0; network < 2; network++)
		assert_int_equal(in_child(try_arguments, network), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call),
		cmocka_unit_test(arguments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
