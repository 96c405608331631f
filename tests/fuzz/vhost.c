/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile vhost-user front end: the input is a list of messages, and its end
 * is the start of the guest's memory.
 *
 * Input: how many bytes the messages have (2), then for each: the request (1),
 * a byte (1: wants a reply; 2 bits: how many descriptors; 2 bits: which), the
 * payload's length (1) and the payload; then the memory.
 */
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/vhost/session.h"
#include "vmm-lite/virtio/blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY	0x10000u
#define DISK	0x40000u

static struct virtio_device *dev;
static int fds[4];	/* memory, a doorbell, a pipe's writing end, a socket */

static void set_up(void)
{
	struct blk_options o = { .queues = 2 };
	struct vdisk *disk;
	int pair[2];

	signal(SIGPIPE, SIG_IGN);
	assert(!vdisk_open_memory(&disk, DISK, NULL));
	o.disk = disk;
	assert(!blk_new(&dev, &o, NULL));
	fds[0] = memfd_create("guest", MFD_CLOEXEC);
	assert(!ftruncate(fds[0], MEMORY));
	fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert(!pipe(pair));
	fds[2] = pair[1];
	assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fds[3] = pair[1];
}

static size_t one_message(struct vhost_session *s, const uint8_t *data, size_t size, bool *more)
{
	static struct vhost_answer answer;
	uint8_t bytes[VHOST_HEADER_BYTES] = { data[0] }, payload[VHOST_PAYLOAD_MAX] = { 0 };
	unsigned n = data[1] >> 1 & 3, which = data[1] >> 3 & 3;
	size_t len = MIN((size_t)data[2], size - 3);
	struct vhost_header h;
	int mine[VHOST_FDS_MAX];

	bytes[4] = (uint8_t)(VHOST_VERSION | (data[1] & 1 ? VHOST_NEED_REPLY : 0));
	bytes[8] = (uint8_t)len;
	memcpy(payload, data + 3, len);
	*more = !vhost_decode_header(&h, bytes);
	if (!*more)
		return len + 3;
	for (unsigned i = 0; i < n; i++)
		mine[i] = dup(fds[(which + (i ? which : 0)) % 4]);
	*more = vhost_session_message(s, &h, payload, mine, n, &answer) >= 0 ||
		h.request > VHOST_REM_MEM_REG;
	assert(answer.len <= sizeof(answer.bytes));
	return len + 3;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vhost_session *s;
	size_t messages;
	bool more = true;

	if (!dev)
		set_up();
	if (size < 2)
		return 0;
	messages = MIN((size_t)load_le16(data), size - 2);
	data += 2;
	size -= 2;
	assert(!ftruncate(fds[0], 0) && !ftruncate(fds[0], MEMORY));
	assert(pwrite(fds[0], data + messages, MIN(size - messages, (size_t)MEMORY), 0) >= 0);
	assert(!vhost_session_new(&s, dev));
	while (more && messages >= 3) {
		size_t used = one_message(s, data, messages, &more);

		data += used;
		messages -= used;
	}
	vhost_session_free(s);
	return 0;
}
