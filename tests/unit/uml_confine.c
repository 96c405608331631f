/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What User-Mode Linux's process is left with: every call outside its filter, tried, and its files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm-lite/uml/confine.h"

#define CALLS	462		/* as many as Linux 6.12 has */
#define EXISTS	1000		/* an answer: all that was to be so is */

/* In a child of its own: does this call end it? */
static bool is_stopped(long call, long a, long b)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		syscall(call, a, b, 0x7fff, 0x7fff, 0, 0);
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
	       WTERMSIG(status) == SIGSYS;
}

/* The first call that is not treated as it should be; EXISTS: none. */
static int try_all(const char *dir)
{
	struct sandbox_state s = { 0 };
	struct vdisk_error err = { 0 };

	(void)dir;
	if (confine_calls(&s, &err) < 0 || !s.filter)
		return 0;
	for (int call = 1; call < CALLS; call++) {
		/* uretprobe, uprobe: no filter sees them */
		if (call == 335 || call == 336 || confine_verdict(call) == SANDBOX_ALLOWS)
			continue;
		if (confine_verdict(call) == SANDBOX_REFUSES) {
			if (syscall(call, NULL, 0) != -1 || errno != ENOSYS)
				return call;
		/* arguments that no rule admits */
		} else if (!is_stopped(call, call == SYS_clone ? CLONE_NEWUSER : 0x7fff, 0x7fff)) {
			return call;
		}
	}
	return EXISTS;
}

static int try_arguments(const char *dir)
{
	struct sandbox_state s = { 0 };
	struct vdisk_error err = { 0 };

	(void)dir;
	if (confine_calls(&s, &err) < 0)
		return 1;
	if (!is_stopped(SYS_socket, AF_INET, SOCK_STREAM) || !is_stopped(SYS_socket, AF_NETLINK, SOCK_RAW))
		return 2;
	if (is_stopped(SYS_socket, AF_UNIX, SOCK_STREAM))
		return 3;
	/* keys for the terminal that it was started from */
	if (!is_stopped(SYS_ioctl, 0, TIOCSTI) || is_stopped(SYS_ioctl, 0, TCGETS))
		return 4;
	if (!is_stopped(SYS_clone, CLONE_NEWNS | SIGCHLD, 0) || !is_stopped(SYS_clone, CLONE_NEWPID, 0))
		return 5;
	return EXISTS;
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), r;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	r = fd >= 0 && connect(fd, (const void *)&addr, sizeof(addr)) == 0 ? 0 : -errno;
	close(fd);
	return r;
}

/* What there is and what there is not; @dir: its directory, beside which is a socket "outside". */
static int look_around(const char *dir)
{
	struct sockaddr_in loopback = { .sin_family = AF_INET, .sin_port = htons(9) };
	char path[128], outside[128];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/made", dir);
	snprintf(outside, sizeof(outside), "%s.outside", dir);
	if (getpid() != 1 || kill(-1, 0) == 0 || errno != ESRCH)
		return 1;
	if (stat("/etc", &st) == 0 || stat("/proc/self", &st) == 0 || stat("/dev", &st) == 0)
		return 2;
	if (stat(CONFINE_SHIM, &st) < 0 || stat(CONFINE_INITRD, &st) < 0 || st.st_size != 6 ||
	    stat("/proc/cpuinfo", &st) < 0 || st.st_size == 0)
		return 3;
	if (open("/made", O_WRONLY | O_CREAT, 0600) >= 0 || errno != EROFS)
		return 4;
	if (open("/usr/lib/made", O_WRONLY | O_CREAT, 0600) >= 0 || errno != EROFS)
		return 5;
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	if (fd < 0 || close(fd) < 0)
		return 6;
	/* sockets that have names out there */
	if (connect_to(outside) != -ENOENT)
		return 7;
	/* not even the loopback device is up */
	inet_pton(AF_INET, "127.0.0.1", &loopback.sin_addr);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (const void *)&loopback, sizeof(loopback)) == 0 || errno != ENETUNREACH)
		return 8;
	return EXISTS;
}

/* Not where namespaces are not allowed: -1. */
static int confined(int (*look)(const char *dir), const char *dir)
{
	int initrd = memfd_create("initrd", MFD_CLOEXEC), status;
	struct sandbox_state s;
	int fds[2], answer = 0;
	pid_t pid;

	assert_int_equal(write(initrd, "initrd", 6), 6);
	assert_int_equal(pipe(fds), 0);
	pid = confine_fork(&s);
	assert_true(pid >= 0);
	if (!pid) {
		confine_files(&s, dir, "/proc/self/exe", initrd);
		answer = s.pid && s.mount ? look(dir) : -1;
		_exit(write(fds[1], &answer, sizeof(answer)) < 0);
	}
	close(fds[1]);
	if (read(fds[0], &answer, sizeof(answer)) != sizeof(answer))
		answer = -2;
	close(fds[0]);
	close(initrd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return answer;
}

static void every_call(void **state)
{
	int r = confined(try_all, *state);

	if (r == -1)
		skip();
	if (r != EXISTS)
		fail_msg("call %d is not treated as it should be", r);
}

static void arguments(void **state)
{
	int r = confined(try_arguments, *state);

	if (r == -1)
		skip();
	assert_int_equal(r, EXISTS);
}

static void files(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int outside = socket(AF_UNIX, SOCK_STREAM, 0), r;
	char path[128];

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s.outside", (const char *)*state);
	assert_int_equal(bind(outside, (const void *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(outside, 1), 0);
	assert_int_equal(connect_to(addr.sun_path), 0);
	r = confined(look_around, *state);
	unlink(addr.sun_path);
	close(outside);
	if (r == -1)
		skip();
	assert_int_equal(r, EXISTS);
	/* what it made, it made in the directory that others see too */
	snprintf(path, sizeof(path), "%s/made", (const char *)*state);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(access("/proc/self", F_OK), 0);
}

/* A process that waits for ever: it has the other end of a pipe to us open. */
static void ends_with_its_parent(void **state)
{
	int fds[2], status;
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct sandbox_state s;

		if (confine_fork(&s) == 0) {
			if (write(fds[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		for (;;)
			pause();
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}

static int make_dir(void **state)
{
	static char dir[] = "/tmp/vdisk-confine.XXXXXX";

	*state = mkdtemp(dir);
	return *state ? 0 : -1;
}

static int remove_dir(void **state)
{
	return rmdir(*state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call),
		cmocka_unit_test(arguments),
		cmocka_unit_test(files),
		cmocka_unit_test(ends_with_its_parent),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
