/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors over a socket: they arrive, closed on exec; or none is left open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/compiler.h"
#include "core/fds.h"

static unsigned open_count(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void pair(int sock[2], int type)
{
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sock), 0);
}

/* @n times the same one, with the word "text". */
static ssize_t send_copies(int sock, int fd, unsigned n)
{
	struct iovec iov[] = { { (void *)(uintptr_t)"te", 2 }, { (void *)(uintptr_t)"xt", 2 } };
	int fds[VD_FDS_MAX + 1];

	for (unsigned i = 0; i < n; i++)
		fds[i] = fd;
	return vd_send_fds(sock, iov, 2, fds, n, MSG_DONTWAIT);
}

static void arrive(void **state)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	int sock[2], fds[VD_FDS_MAX], end[2];
	char text[8], byte = 'x';
	unsigned n;

	(void)state;
	for (size_t t = 0; t < ARRAY_SIZE(types); t++)
		for (unsigned count = 0; count <= VD_FDS_MAX; count += count ? 21 : 1) {
			pair(sock, types[t]);
			assert_int_equal(pipe(end), 0);
			assert_int_equal(send_copies(sock[0], end[1], count), 4);
			assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), fds, count ? count : 1,
						     &n, 0), 4);
			assert_memory_equal(text, "text", 4);
			assert_int_equal(n, count);
			close(end[1]);
			for (unsigned i = 0; i < n; i++) {
				assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
				assert_int_equal(write(fds[i], &byte, 1), 1);
			}
			vd_close_fds(fds, n);
			for (unsigned i = 0; i < n; i++)
				assert_int_equal(read(end[0], &byte, 1), 1);
			assert_int_equal(read(end[0], &byte, 1), 0);	/* all are closed */
			close(end[0]);
			close(sock[0]);
			assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), fds, 1, &n, 0), 0);
			assert_int_equal(n, 0);
			close(sock[1]);
		}
}

static void more_than_room(void **state)
{
	unsigned before, n = 7;
	int sock[2], fds[4];
	char text[8];

	(void)state;
	pair(sock, SOCK_STREAM);
	before = open_count();
	assert_int_equal(send_copies(sock[0], sock[0], 5), 4);
	assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), fds, 4, &n, 0), -EMSGSIZE);
	assert_int_equal(n, 0);
	assert_int_equal(send_copies(sock[0], sock[0], 1), 4);
	assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), NULL, 0, &n, 0), -EMSGSIZE);
	assert_int_equal(open_count(), before);
	/* and the next is as ever */
	assert_int_equal(send_copies(sock[0], sock[0], 0), 4);
	assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), NULL, 0, &n, 0), 4);
	assert_int_equal(send_copies(sock[0], sock[0], VD_FDS_MAX + 1), -E2BIG);
	assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), fds, 4, &n, MSG_DONTWAIT), -EAGAIN);
	assert_int_equal(n, 0);
	close(sock[0]);
	close(sock[1]);
}

/* A stranger sends more than the buffer for them holds. */
static void more_than_the_most(void **state)
{
	enum { MANY = 200 };
	union {
		char bytes[CMSG_SPACE(MANY * sizeof(int))];
		struct cmsghdr align;
	} control = { .bytes = { 0 } };
	struct iovec iov = { (void *)(uintptr_t)"t", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int sock[2], fds[VD_FDS_MAX], many[MANY];
	unsigned before, n;
	char text[8];

	(void)state;
	pair(sock, SOCK_STREAM);
	before = open_count();
	for (unsigned i = 0; i < MANY; i++)
		many[i] = sock[0];
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(many));
	memcpy(CMSG_DATA(c), many, sizeof(many));
	assert_int_equal(sendmsg(sock[0], &m, 0), 1);
	assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), fds, VD_FDS_MAX, &n, 0), -EMSGSIZE);
	assert_int_equal(open_count(), before);
	close(sock[0]);
	close(sock[1]);
}

/* Not all can be opened: then none is. */
static void more_than_may_be_open(void **state)
{
	struct rlimit old, low;
	unsigned before, n;
	int sock[2], fds[8];
	char text[8];

	(void)state;
	pair(sock, SOCK_STREAM);
	before = open_count();
	assert_int_equal(send_copies(sock[0], sock[0], 8), 4);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = (struct rlimit) { (rlim_t)sock[1] + 4, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), fds, 8, &n, 0), -EMSGSIZE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(open_count(), before);
	close(sock[0]);
	close(sock[1]);
}

/* Other things that come beside the bytes are not taken for descriptors. */
static void credentials(void **state)
{
	int sock[2], fds[4], on = 1;
	char text[8];
	unsigned n;

	(void)state;
	pair(sock, SOCK_SEQPACKET);
	assert_int_equal(setsockopt(sock[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	assert_int_equal(send_copies(sock[0], sock[0], 2), 4);
	assert_int_equal(vd_recv_fds(sock[1], text, sizeof(text), fds, 4, &n, 0), 4);
	assert_int_equal(n, 2);
	vd_close_fds(fds, n);
	close(sock[0]);
	close(sock[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arrive),
		cmocka_unit_test(more_than_room),
		cmocka_unit_test(more_than_the_most),
		cmocka_unit_test(more_than_may_be_open),
		cmocka_unit_test(credentials),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
