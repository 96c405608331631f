/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fds.c - open descriptors that travel over a Unix socket; see fds.h */
#include "core/fds.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "core/compiler.h"

union control {
	char bytes[CMSG_SPACE(VD_FDS_MAX * sizeof(int))];
	struct cmsghdr align;
};

void vd_close_fds(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

ssize_t vd_send_fds(int sock, const struct iovec *iov, unsigned n_iov, const int *fds,
		    unsigned n_fds, int flags)
{
	union control control = { .bytes = { 0 } };
	struct msghdr msg = {
		.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n_iov,
	};
	ssize_t n;

	if (n_fds > VD_FDS_MAX)
		return -E2BIG;
	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* All that came, into @all; how many. */
static unsigned unpack(struct msghdr *msg, int all[VD_FDS_MAX])
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t more = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		/* there is room for no more in all the headers together */
		memcpy(all + n, CMSG_DATA(c), more * sizeof(int));
		n += (unsigned)more;
	}
	return n;
}

ssize_t vd_recv_fds(int sock, void *buf, size_t len, int *fds, unsigned room, unsigned *n_fds,
		    int flags)
{
	union control control;
	struct iovec iov = { buf, len };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	int all[VD_FDS_MAX];
	unsigned came;
	ssize_t n;

	*n_fds = 0;
	do
		n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	came = unpack(&msg, all);
	if (came > room || msg.msg_flags & MSG_CTRUNC) {
		vd_close_fds(all, came);
		return -EMSGSIZE;
	}
	if (came)
		memcpy(fds, all, came * sizeof(int));
	*n_fds = came;
	return n;
}
