/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile disk process behind our own front end, and a keeper's channel.
 *
 * Input: two bytes (half of how many bytes of it are the process's answers, how many
 * its events), then these (see liar.h), then what the keeper says.  When the answers
 * are used up the connection is closed.
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

#include "tests/fuzz/liar.h"
#include "vmm-lite/vhost/front.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY	0x10000u

struct back_end {
	struct input in;
	int sock;
};

static uint8_t *memory;
static int memory_fd;

static void *back_end(void *arg)
{
	struct back_end *b = arg;
	uint8_t how;

	while (liar_answers(&b->in, b->sock, memory_fd, &how))
		;
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
	b = (struct back_end) { .sock = sock[1], .in = { data, answers } };
	o.memory_fd = memory_fd;
	o.ends = (struct keeper_ends) {
		.channel = channel[0], .control = control[0], .events = { events[0], dup(events[1]) },
	};
	(void)vhost_send(channel[1], &new, sizeof(new), &sock[0], 1);
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
