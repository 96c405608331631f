/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * liar.h - a vhost-user back end that says what a fuzzer's input says
 *
 * For each answer that is waited for the input has a byte (1: the header is as it should
 * be; 2: a descriptor comes along; 4: another length, its upper three bits; 8: the end; 16:
 * the payload is in the input, too), and what it says.
 */
#ifndef TESTS_FUZZ_LIAR_H
#define TESTS_FUZZ_LIAR_H

#include <assert.h>
#include <sys/socket.h>

#include "core/driver.h"
#include "vmm-lite/vhost/talk.h"
#include "vmm-lite/vhost/wire.h"

struct input {
	const uint8_t *data;
	size_t size;
};

/* How many of @n bytes there are; zeroes behind them. */
static inline size_t take(struct input *in, void *out, size_t n)
{
	size_t got = MIN(n, in->size);

	memset(out, 0, n);
	memcpy(out, in->data, got);
	in->data += got;
	in->size -= got;
	return got;
}

static inline bool liar_reads(int sock, void *buf, size_t len)
{
	return len == 0 || recv(sock, buf, len, MSG_WAITALL) == (ssize_t)len;
}

/* How long the answer is that is waited for; 0: none is. */
static inline uint32_t liar_wanted(uint32_t request, uint32_t flags, uint32_t len)
{
	switch (request) {
	case VHOST_GET_FEATURES:
	case VHOST_GET_PROTOCOL_FEATURES:
	case VHOST_GET_QUEUE_NUM:
	case VHOST_GET_VRING_BASE:
		return 8;
	case VHOST_GET_CONFIG:
	case VHOST_GET_INFLIGHT_FD:
		return len;
	default:
		return flags & VHOST_NEED_REPLY ? 8 : 0;
	}
}

/* What lets the other side go on, unless the input has something else to say. */
static inline void liar_good_answer(uint32_t request, uint8_t *p, uint32_t len)
{
	memset(p, 0, len);
	if (request == VHOST_GET_FEATURES || request == VHOST_GET_PROTOCOL_FEATURES)
		memset(p, 0xff, 8);
	if (request == VHOST_GET_QUEUE_NUM)
		put64(p, 2);
}

/*
 * Hear one message, and answer it, with @fd where it sends one.  false: the end, as *how
 * (the input's byte) wants it, or (0) as there is nothing more to hear or to say.
 */
static inline bool liar_answers(struct input *in, int sock, int fd, uint8_t *how)
{
	uint8_t bytes[VHOST_HEADER_BYTES + VHOST_PAYLOAD_MAX], *payload = bytes + VHOST_HEADER_BYTES;
	uint32_t request, len;

	*how = 0;
	if (!liar_reads(sock, bytes, VHOST_HEADER_BYTES))
		return false;
	request = get32(bytes);
	len = get32(bytes + 8);
	assert(len <= VHOST_PAYLOAD_MAX);
	if (!liar_reads(sock, payload, len))
		return false;
	len = liar_wanted(request, get32(bytes + 4), len);
	if (!len)
		return true;
	if (!take(in, how, 1) || *how & 8)
		return false;
	if (*how & 16)
		take(in, payload, len);
	else
		liar_good_answer(request, payload, len);
	put32(bytes + 4, VHOST_VERSION | VHOST_REPLY);
	if (*how & 4)
		len = *how >> 5;
	put32(bytes + 8, len);
	if (!(*how & 1))
		take(in, bytes, VHOST_HEADER_BYTES);
	(void)vhost_send(sock, bytes, VHOST_HEADER_BYTES + len, &fd, *how >> 1 & 1);
	return true;
}

#endif
