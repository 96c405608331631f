/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * talk.h - vhost-user's messages on a socket, for either side
 *
 * These wait.  A peer that has gone, or a socket that was shut down, is -EPIPE.
 */
#ifndef VMM_VHOST_TALK_H
#define VMM_VHOST_TALK_H

#include "vmm-lite/vhost/msg.h"

/* ---- either side ---- */

/* All of @len bytes, with descriptors (borrowed) that go along with the first. */
int vhost_send(int sock, const void *bytes, size_t len, const int *fds, unsigned n_fds);

/*
 * The next message of a front end: @payload has room for VHOST_PAYLOAD_MAX bytes, @fds for
 * VHOST_FDS_MAX, which are the caller's whatever is returned.  1; 0: it has gone; -EPROTO;
 * -errno.
 */
int vhost_next(int sock, struct vhost_header *h, uint8_t *payload, int *fds, unsigned *n_fds);

/* ---- a front end ---- */

int vhost_say(int sock, uint32_t request, bool need_reply, const void *payload, uint32_t len,
	      const int *fds, unsigned n_fds);

/* The answer to @request, exactly @len bytes; *fd (NULL: none is expected) is -1 or comes with it. */
int vhost_hear_answer(int sock, uint32_t request, void *payload, uint32_t len, int *fd);

/* A message that is only done or (-EREMOTEIO) refused. */
int vhost_tell(int sock, uint32_t request, const void *payload, uint32_t len, const int *fds,
	       unsigned n_fds);
int vhost_tell_u64(int sock, uint32_t request, uint64_t v);
int vhost_tell_ring(int sock, uint32_t request, uint32_t ring, uint32_t n);
int vhost_tell_ring_fd(int sock, uint32_t request, uint32_t ring, int fd);

int vhost_ask_u64(int sock, uint32_t request, uint64_t *out);

/* The other direction: what a back end says by itself.  0, or it is not that and no more is read. */
int vhost_hear_config_change(int sock);

#endif
