/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile driver: the input is virtqueues and the memory behind them.
 * Whatever it holds, the block device, the same behind memory of its own, or a console
 * with a port, answers or asks for a reset, touches nothing outside, and stops.
 *
 * Input: features and which device (1 byte), queue size (1 byte: power of two), the available
 * indices (2 x 1 byte; the console's control queues have the same), then pieces of memory: a place (2 bytes, times 16), a
 * length (1 byte) and the bytes.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/blk.h"
#include "vmm-lite/virtio/bounce.h"
#include "vmm-lite/virtio/ports.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY	0x10000u
#define DISK	0x40000u
#define QUEUES	2u	/* of the block device */
#define PORT_QUEUES 4u	/* of the console */

static struct virtio_device *dev, *behind, *ports;
static struct vdisk *disk;
static uint8_t *memory;
static int kick_fd[PORT_QUEUES];

static void on_interrupt(void *arg, unsigned queue)
{
	(void)arg;
	assert(queue < PORT_QUEUES);
}

static void on_broken(void *arg)
{
	(void)arg;
}

static void set_up(void)
{
	struct port_option port = { .name = "port", .fd = open("/dev/null", O_WRONLY | O_CLOEXEC) };
	struct blk_options o = { .queues = QUEUES };
	struct bounce_options b = { .inner = NULL };

	/* a guard page behind it catches what ASan cannot know of */
	memory = mmap(NULL, MEMORY + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(memory != MAP_FAILED &&
	       !mprotect(memory, MEMORY, PROT_READ | PROT_WRITE));
	assert(!vdisk_open_memory(&disk, DISK, NULL));
	o.disk = disk;
	assert(!blk_new(&dev, &o, NULL));
	assert(!blk_new(&b.inner, &o, NULL) && !bounce_memory_new(&b.memory, QUEUES, NULL) &&
	       !bounce_new(&behind, &b, NULL));
	assert(!ports_new(&ports, &port, 1, NULL, NULL) && ports->n_queues == PORT_QUEUES);
	for (unsigned i = 0; i < PORT_QUEUES; i++)
		kick_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_memory map = { .n = 1, .region[0] = { .gpa = 0, .size = MEMORY } };
	struct virtq_setup setup[PORT_QUEUES];
	struct virtio_start s = {
		.mem = &map, .queue = setup,
		.host = { .interrupt = on_interrupt, .broken = on_broken },
	};
	struct virtio_device *d;
	unsigned n;

	if (!dev)
		set_up();
	if (size < 4)
		return 0;
	d = data[0] & 4 ? ports : data[0] & 8 ? behind : dev;
	map.region[0].host = memory;
	memset(memory, 0, MEMORY);
	n = 1u << data[1] % 9;
	s.features = data[0] & 1 ? d->features : d->features & UINT32_MAX >> 3;
	for (unsigned i = 0; i < d->n_queues; i++) {
		uint64_t base = 0x2000ul * i;

		setup[i] = (struct virtq_setup) {
			.size = (uint16_t)n, .desc = base, .avail = base + 0x1000,
			.used = base + 0x1800 - (data[0] & 2 ? 0x10 : 0), .kick_fd = kick_fd[i],
		};
		store_le16(memory + setup[i].avail + 2, data[2 + i % 2]);
	}
	data += 4;
	size -= 4;
	while (size >= 3) {
		size_t at = load_le16(data) * 16ul % MEMORY;
		size_t len = MIN((size_t)data[2], size - 3);

		memcpy(memory + at, data + 3, MIN(len, MEMORY - at));
		data += 3 + len;
		size -= 3 + len;
	}
	if (d->ops->start(d, &s) < 0)
		return 0;
	d->ops->stop(d);
	return 0;
}
