/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * session.h - one vhost-user front end, from its connection to its end
 *
 * The transport between a front end in another process (QEMU, UML, our own VMM)
 * and a virtio device of ours.  A session is fed with one message at a time and
 * does not read the socket itself.
 */
#ifndef VMM_VHOST_SESSION_H
#define VMM_VHOST_SESSION_H

#include "vmm-lite/vhost/msg.h"
#include "vmm-lite/virtio/device.h"

struct vhost_session;

/* What goes back to the front end. */
struct vhost_answer {
	unsigned len;		/* 0: nothing */
	uint8_t bytes[VHOST_HEADER_BYTES + VHOST_PAYLOAD_MAX];
	int fd;			/* to pass with it; borrowed; -1: none */
};

int vhost_session_new(struct vhost_session **out, struct virtio_device *dev);

/*
 * Handle a message.  The descriptors are the session's from now on, whatever
 * comes of it.  -errno: the front end broke the protocol, or the device cannot
 * go on: end the connection.  What is only refused is told in the answer.
 */
int vhost_session_message(struct vhost_session *s, const struct vhost_header *h,
			  const uint8_t *payload, const int *fds, unsigned n_fds,
			  struct vhost_answer *answer);

/* The device's configuration (its size) has changed: tell the front end, if it can be told. */
void vhost_session_config_changed(struct vhost_session *s);

/* The front end is gone: finish what is in flight, and let go of its memory. */
void vhost_session_free(struct vhost_session *s);

/*
 * A front end can truncate the memory that it shares, and whoever touches it
 * then gets SIGBUS.  For the handler of that signal: put zeroes there, so that
 * the device goes on and the front end has only itself to blame.  False: it was
 * not that.  Async-signal-safe.
 */
bool vhost_session_patch_memory(struct vhost_session *s, const void *addr);

#endif
