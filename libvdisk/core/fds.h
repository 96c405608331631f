/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fds.h - open descriptors that travel over a Unix socket (SCM_RIGHTS) */
#ifndef VD_FDS_H
#define VD_FDS_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#define VD_FDS_MAX	64u	/* with one message */

/*
 * As sendmsg(2), without a SIGPIPE: bytes, with descriptors (borrowed, may be none) that go
 * along with the first of them.  How many bytes were sent, or -errno; -E2BIG: more than
 * VD_FDS_MAX descriptors.
 */
ssize_t vd_send_fds(int sock, const struct iovec *iov, unsigned n_iov, const int *fds,
		    unsigned n_fds, int flags);

/*
 * As recvmsg(2): up to @len bytes, and the descriptors that came with them, up to @room,
 * closed on exec and the caller's.  How many bytes (0: the peer has gone), or -errno; then
 * *n_fds is 0 and nothing stays open.  -EMSGSIZE: there came more descriptors than @room, or
 * than this process may open; the bytes are gone.
 */
ssize_t vd_recv_fds(int sock, void *buf, size_t len, int *fds, unsigned room, unsigned *n_fds,
		    int flags);

void vd_close_fds(const int *fds, unsigned n);

#endif
