/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile driver: the input is two virtqueues and the memory behind them.
 * Whatever it holds, the block device answers or asks for a reset, touches
 * nothing outside, and stops.
 *
 * Input: features (1 byte), queue size (1 byte: power of two), the available
 * indices (2 x 1 byte), then pieces of memory: a place (2 bytes, times 16), a
 * length (1 byte) and the bytes.
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY	0x10000u
#define DISK	0x40000u
#define QUEUES	2u

static struct virtio_device *dev;
static struct vdisk *disk;
static uint8_t *memory;
static int kick_fd[QUEUES];

static void on_interrupt(void *arg, unsigned queue)
{
	(void)arg;
	assert(queue < QUEUES);
}

static void on_broken(void *arg)
{
	(void)arg;
}

static void set_up(void)
{
	struct blk_options o = { .queues = QUEUES };

	/* a guard page behind it catches what ASan cannot know of */
	memory = mmap(NULL, MEMORY + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(memory != MAP_FAILED &&
	       !mprotect(memory, MEMORY, PROT_READ | PROT_WRITE));
	assert(!vdisk_open_memory(&disk, DISK, NULL));
	o.disk = disk;
	assert(!blk_new(&dev, &o, NULL));
	for (unsigned i = 0; i < QUEUES; i++)
		kick_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_memory map = { .n = 1, .region[0] = { .gpa = 0, .size = MEMORY } };
	struct virtq_setup setup[QUEUES];
	struct virtio_start s = {
		.mem = &map, .queue = setup,
		.host = { .interrupt = on_interrupt, .broken = on_broken },
	};
	unsigned n;

	if (!dev)
		set_up();
	if (size < 4)
		return 0;
	map.region[0].host = memory;
	memset(memory, 0, MEMORY);
	n = 1u << data[1] % 9;
	s.features = data[0] & 1 ? dev->features : dev->features & UINT32_MAX >> 3;
	for (unsigned i = 0; i < QUEUES; i++) {
		uint64_t base = 0x2000ul * i;

		setup[i] = (struct virtq_setup) {
			.size = (uint16_t)n, .desc = base, .avail = base + 0x1000,
			.used = base + 0x1800 - (data[0] & 2 ? 0x10 : 0), .kick_fd = kick_fd[i],
		};
		store_le16(memory + setup[i].avail + 2, data[2 + i]);
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
	if (dev->ops->start(dev, &s) < 0)
		return 0;
	dev->ops->stop(dev);
	return 0;
}
