/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* talk.c - see talk.h */
#include "vmm-lite/vhost/talk.h"

#include <errno.h>
#include <sys/socket.h>

#include "core/compiler.h"
#include "core/fds.h"
#include "vmm-lite/vhost/wire.h"

/* ---- bytes ---- */

int vhost_send(int sock, const void *bytes, size_t len, const int *fds, unsigned n_fds)
{
	struct iovec iov = { (void *)(uintptr_t)bytes, len };

	return vd_send_fds(sock, &iov, 1, fds, n_fds, 0) == (ssize_t)len ? 0 : -EPIPE;
}

/* All of @len bytes, and the descriptors that come with the first; 0: the peer has gone. */
static int receive(int sock, void *buf, size_t len, int *fds, unsigned *n_fds)
{
	unsigned none;
	ssize_t n = vd_recv_fds(sock, buf, len, fds, fds ? VHOST_FDS_MAX : 0, fds ? n_fds : &none,
				MSG_WAITALL);

	if (n <= 0)
		return (int)n;
	return (size_t)n == len ? 1 : -EPROTO;
}

int vhost_next(int sock, struct vhost_header *h, uint8_t *payload, int *fds, unsigned *n_fds)
{
	uint8_t bytes[VHOST_HEADER_BYTES];
	int r;

	*n_fds = 0;
	r = receive(sock, bytes, sizeof(bytes), fds, n_fds);
	if (r > 0 && vhost_decode_header(h, bytes) < 0)
		r = -EPROTO;
	if (r > 0 && h->size)
		r = receive(sock, payload, h->size, NULL, NULL);
	return r;
}

/* ---- a front end ---- */

int vhost_say(int sock, uint32_t request, bool need_reply, const void *payload, uint32_t len,
	      const int *fds, unsigned n_fds)
{
	uint8_t bytes[VHOST_HEADER_BYTES + VHOST_PAYLOAD_MAX];

	if (len > VHOST_PAYLOAD_MAX)
		return -E2BIG;
	put32(bytes, request);
	put32(bytes + 4, VHOST_VERSION | (need_reply ? VHOST_NEED_REPLY : 0));
	put32(bytes + 8, len);
	if (len)
		memcpy(bytes + VHOST_HEADER_BYTES, payload, len);
	return vhost_send(sock, bytes, VHOST_HEADER_BYTES + len, fds, n_fds);
}

int vhost_hear_answer(int sock, uint32_t request, void *payload, uint32_t len, int *fd)
{
	uint8_t header[VHOST_HEADER_BYTES];
	int fds[VHOST_FDS_MAX], r;
	unsigned n = 0;

	r = receive(sock, header, sizeof(header), fds, &n);
	if (fd)
		*fd = n == 1 ? fds[0] : -1;
	if (!fd || n != 1)	/* not what was asked for */
		vd_close_fds(fds, n);
	if (r <= 0)
		return -EPIPE;
	if (get32(header) != request || !(get32(header + 4) & VHOST_REPLY) ||
	    get32(header + 8) != len)
		return -EPROTO;
	return receive(sock, payload, len, NULL, NULL) > 0 ? 0 : -EPIPE;
}

int vhost_tell(int sock, uint32_t request, const void *payload, uint32_t len, const int *fds,
	       unsigned n_fds)
{
	uint8_t refused[8];
	int r = vhost_say(sock, request, true, payload, len, fds, n_fds);

	if (!r)
		r = vhost_hear_answer(sock, request, refused, sizeof(refused), NULL);
	return r ? r : get64(refused) ? -EREMOTEIO : 0;
}

int vhost_tell_u64(int sock, uint32_t request, uint64_t v)
{
	uint8_t payload[8];

	put64(payload, v);
	return vhost_tell(sock, request, payload, sizeof(payload), NULL, 0);
}

int vhost_tell_ring(int sock, uint32_t request, uint32_t ring, uint32_t n)
{
	uint8_t payload[8];

	put32(payload, ring);
	put32(payload + 4, n);
	return vhost_tell(sock, request, payload, sizeof(payload), NULL, 0);
}

int vhost_tell_ring_fd(int sock, uint32_t request, uint32_t ring, int fd)
{
	uint8_t payload[8];

	put64(payload, ring);
	return vhost_tell(sock, request, payload, sizeof(payload), &fd, 1);
}

int vhost_ask_u64(int sock, uint32_t request, uint64_t *out)
{
	uint8_t answer[8];
	int r = vhost_say(sock, request, false, NULL, 0, NULL, 0);

	if (!r)
		r = vhost_hear_answer(sock, request, answer, sizeof(answer), NULL);
	if (!r)
		*out = get64(answer);
	return r;
}

int vhost_hear_config_change(int sock)
{
	uint8_t header[VHOST_HEADER_BYTES];

	return receive(sock, header, sizeof(header), NULL, NULL) > 0 &&
	       get32(header) == VHOST_BACKEND_CONFIG_CHANGE && get32(header + 8) == 0 ? 0 : -EPROTO;
}
