/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile disk process behind our own front end, and a keeper's channel.
 *
 * Input: two bytes (half of how many bytes of it are the process's answers, how many
 * its events), then these, then what the keeper says.  For each answer that the front
 * end waits for there is a byte (1: the header is as it should be; 2: a descriptor comes
 * along; 4: another length; 8: it ends here; 16: the payload is in the input, too), and
 * what it says.  When the answers are used up the connection is closed.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/vhost/front.h"
#include "vmm-lite/vhost/msg.h"
#include "vmm-lite/vhost/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY	0x10000u

struct back_end {
	int sock;
	const uint8_t *data;
	size_t size;
};

static uint8_t *memory;
static int memory_fd;

static size_t take(struct back_end *b, void *out, size_t n)
{
	size_t got = MIN(n, b->size);

	memset(out, 0, n);
	memcpy(out, b->data, got);
	b->data += got;
	b->size -= got;
	return got;
}

static bool read_all(int sock, void *buf, size_t len)
{
	return len == 0 || recv(sock, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static void send_with(int sock, const void *bytes, size_t len, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .bytes = { 0 } };
	struct iovec iov = { (void *)(uintptr_t)bytes, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	(void)!sendmsg(sock, &msg, MSG_NOSIGNAL);
}

static uint32_t wanted_bytes(uint32_t request, uint32_t flags, uint32_t len)
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

/* What lets the front end go on, unless the input has something else to say. */
static void good_answer(uint32_t request, uint8_t *p, uint32_t len)
{
	memset(p, 0, len);
	if (request == VHOST_GET_FEATURES || request == VHOST_GET_PROTOCOL_FEATURES)
		memset(p, 0xff, 8);
	if (request == VHOST_GET_QUEUE_NUM)
		put64(p, 2);
}

static void *back_end(void *arg)
{
	uint8_t header[VHOST_HEADER_BYTES], payload[4096], said[4096];
	struct back_end *b = arg;
	uint32_t request, len;
	uint8_t how;

	while (read_all(b->sock, header, sizeof(header))) {
		request = get32(header);
		len = get32(header + 8);
		assert(len <= sizeof(payload));
		if (!read_all(b->sock, payload, len))
			break;
		len = wanted_bytes(request, get32(header + 4), len);
		if (!len)
			continue;
		if (!take(b, &how, 1) || how & 8)
			break;
		if (how & 16)
			take(b, payload, len);
		else
			good_answer(request, payload, len);
		put32(header + 4, VHOST_VERSION | VHOST_REPLY);
		if (how & 4)
			len = how >> 5;
		put32(header + 8, len);
		if (!(how & 1))
			take(b, header, sizeof(header));
		memcpy(said, header, sizeof(header));
		memcpy(said + sizeof(header), payload, len);
		send_with(b->sock, said, sizeof(header) + len, how & 2 ? memory_fd : -1);
	}
	close(b->sock);
	return NULL;
}

static void interrupt(void *arg, unsigned queue)
{
	(void)arg;
	assert(queue < 2);
}

static void broken(void *arg)
{
	(void)arg;
}

static void make_pair(int type, int pair[2])
{
	assert(!socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair));
}

static void use(struct virtio_device *dev)
{
	const struct guest_memory mem = {
		.n = 1, .region = { { .gpa = 0, .size = MEMORY, .host = memory } },
	};
	struct virtq_setup queue[2] = {
		{ .size = 16, .desc = 0x1000, .avail = 0x2000, .used = 0x3000 },
		{ .size = 0 },
	};
	struct virtio_start start = {
		.mem = &mem, .queue = queue, .features = dev->features & ~(UINT64_C(1) << 30),
		.host = { .interrupt = interrupt, .broken = broken },
	};
	struct blk_stats stats;
	uint8_t config[64];

	queue[0].kick_fd = queue[1].kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	dev->ops->config_read(dev, 0, config, sizeof(config));
	dev->ops->config_write(dev, 32, "", 1);
	(void)dev->ops->start(dev, &start);
	(void)front_get_stats(dev, &stats);
	(void)front_resize(dev, 4096, NULL);
	dev->ops->stop(dev);
	if (front_end(dev, 0, NULL) == -EAGAIN)
		(void)front_end(dev, -1, NULL);
	close(queue[0].kick_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct keeper_word new = { .says = KEEPER_NEW, .value = 1 };
	int sock[2], channel[2], control[2], events[2];
	size_t answers, said;
	struct front_options o = { .name = "fuzz", .queues = 2 };
	struct virtio_device *dev;
	struct back_end b;
	pthread_t thread;

	if (!memory) {
		signal(SIGPIPE, SIG_IGN);
		memory_fd = memfd_create("guest", MFD_CLOEXEC);
		assert(!ftruncate(memory_fd, MEMORY));
		memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
		assert(memory != MAP_FAILED);
	}
	if (size < 2)
		return 0;
	answers = MIN((size_t)data[0] * 2, size - 2);
	said = MIN((size_t)data[1], size - 2 - answers);
	data += 2;
	size -= 2 + answers + said;
	make_pair(SOCK_STREAM, sock);
	make_pair(SOCK_SEQPACKET, channel);
	make_pair(SOCK_SEQPACKET, control);
	make_pair(SOCK_STREAM, events);
	b = (struct back_end) { .sock = sock[1], .data = data, .size = answers };
	o.memory_fd = memory_fd;
	o.ends = (struct keeper_ends) {
		.channel = channel[0], .control = control[0], .events = { events[0], dup(events[1]) },
	};
	send_with(channel[1], &new, sizeof(new), sock[0]);
	close(sock[0]);
	if (size)
		(void)!send(channel[1], data + answers + said, size, MSG_NOSIGNAL);
	(void)!send(events[1], data + answers, said, MSG_NOSIGNAL);
	/* nothing else comes */
	shutdown(channel[1], SHUT_WR);
	shutdown(control[1], SHUT_WR);
	shutdown(events[1], SHUT_WR);
	assert(!pthread_create(&thread, NULL, back_end, &b));
	if (!front_new(&dev, &o, NULL)) {
		use(dev);
		dev->ops->free(dev);
	}
	pthread_join(thread, NULL);
	close(channel[1]);
	close(control[1]);
	close(events[1]);
	return 0;
}
