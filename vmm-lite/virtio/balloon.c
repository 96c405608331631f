/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * balloon.c - a virtio memory balloon (virtio 1.2, 5.5) that gives free pages back
 *
 * Queues: 0 inflate, 1 deflate, 2 reporting.  Without a statistics queue and
 * without hints the reporting queue would be number 4 by the list in 5.5.2, but
 * queues of features that are not offered do not exist, and Linux numbers those
 * that do one after the other.  It needs no thread: a doorbell is answered on
 * the spot.
 *
 * Inflate and deflate carry arrays of page numbers, 4 KiB each.  A reported
 * buffer is the free memory itself.  Memory that comes back reads as zeroes,
 * which is what the guest must expect (it did not offer PAGE_POISON).
 */
#include "vmm-lite/virtio/balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>

#include "core/driver.h"

#define BALLOON_QUEUE_SIZE	128u
#define PAGE			4096u
#define CONFIG_BYTES		8u
#define FEATURE(bit)		(UINT64_C(1) << (bit))

enum { INFLATE, DEFLATE, REPORT, N_QUEUES };

struct balloon {
	struct virtio_device dev;
	struct virtio_host host;
	const struct guest_memory *mem;	/* borrowed while started */
	struct virtq vq[N_QUEUES];
	bool broken;
	_Atomic uint32_t wanted, actual;	/* pages */
	void (*give_back)(void *arg, void *host, uint64_t len);
	void *arg;
};

static struct balloon *of(struct virtio_device *dev)
{
	return container_of(dev, struct balloon, dev);
}

/* Page numbers, 32 bits each; a run of them is given back at once. */
static void inflate(struct balloon *b, const struct iovec *iov, unsigned n)
{
	uint64_t start = 0, len = 0;

	for (; n; n--, iov++) {
		const uint8_t *p = iov->iov_base;

		for (size_t i = 0; p && i + 4 <= iov->iov_len; i += 4) {
			uint64_t gpa = (uint64_t)load_le32(p + i) * PAGE;

			if (len && gpa == start + len) {
				len += PAGE;
				continue;
			}
			if (len && guest_at(b->mem, start, len))
				b->give_back(b->arg, guest_at(b->mem, start, len), len);
			start = gpa;
			len = PAGE;
		}
	}
	if (len && guest_at(b->mem, start, len))
		b->give_back(b->arg, guest_at(b->mem, start, len), len);
}

static void report(struct balloon *b, const struct virtq_chain *c, const struct iovec *iov)
{
	for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++)
		if (iov[i].iov_base)
			b->give_back(b->arg, iov[i].iov_base, iov[i].iov_len);
}

static void balloon_kick(struct virtio_device *dev, unsigned queue)
{
	struct balloon *b = of(dev);
	struct virtq *vq = &b->vq[queue];
	struct iovec iov[BALLOON_QUEUE_SIZE];
	struct virtq_chain c;
	int r = 0;

	if (b->broken || !vq->size)
		return;
	do {
		while ((r = virtq_pop(vq, &c, iov)) > 0) {
			if (queue == INFLATE)
				inflate(b, iov, c.n_out);
			else if (queue == REPORT)
				report(b, &c, iov);
			virtq_put(vq, c.head, 0);
		}
	} while (!r && virtq_listen(vq));
	if (virtq_publish(vq))
		b->host.interrupt(b->host.arg, queue);
	if (r < 0) {
		b->broken = true;
		b->host.broken(b->host.arg);
	}
}

static int balloon_start(struct virtio_device *dev, const struct virtio_start *s)
{
	struct balloon *b = of(dev);
	int r = 0;

	b->host = s->host;
	b->mem = s->mem;
	b->broken = false;
	for (unsigned i = 0; !r && i < N_QUEUES; i++) {
		b->vq[i].size = 0;
		if (s->queue[i].size)
			r = virtq_init(&b->vq[i], s->mem, &s->queue[i],
				       s->features & FEATURE(VIRTIO_RING_F_EVENT_IDX));
	}
	return r;
}

static void balloon_stop(struct virtio_device *dev)
{
	struct balloon *b = of(dev);

	for (unsigned i = 0; i < N_QUEUES; i++)
		b->vq[i].size = 0;
	b->actual = 0;
}

static void balloon_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	const struct balloon *b = of(dev);
	uint8_t c[CONFIG_BYTES];

	store_le32(c, b->wanted);
	store_le32(c + 4, b->actual);
	memset(buf, 0, len);
	if (off < sizeof(c))
		memcpy(buf, c + off, MIN(len, CONFIG_BYTES - off));
}

static void balloon_config_write(struct virtio_device *dev, uint32_t off, const void *buf,
				 uint32_t len)
{
	if (off == 4 && len == 4)
		of(dev)->actual = load_le32(buf);
}

static void balloon_free(struct virtio_device *dev)
{
	free(of(dev));
}

static const struct virtio_device_ops balloon_ops = {
	.start		= balloon_start,
	.stop		= balloon_stop,
	.config_read	= balloon_config_read,
	.config_write	= balloon_config_write,
	.kick		= balloon_kick,
	.free		= balloon_free,
};

int balloon_new(struct virtio_device **out, void (*give_back)(void *arg, void *host, uint64_t len),
		void *arg, struct vdisk_error *err)
{
	struct balloon *b = calloc(1, sizeof(*b));

	if (!b)
		return vd_fail(err, ENOMEM, "out of memory");
	b->give_back = give_back;
	b->arg = arg;
	b->dev = (struct virtio_device) {
		.ops = &balloon_ops, .id = VIRTIO_ID_BALLOON, .n_queues = N_QUEUES,
		.queue_size = BALLOON_QUEUE_SIZE, .config_len = CONFIG_BYTES,
		.features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
			    FEATURE(VIRTIO_RING_F_EVENT_IDX) |
			    FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
			    FEATURE(VIRTIO_BALLOON_F_REPORTING),
	};
	*out = &b->dev;
	return 0;
}

void balloon_set(struct virtio_device *dev, uint64_t bytes)
{
	of(dev)->wanted = (uint32_t)MIN(bytes / PAGE, (uint64_t)UINT32_MAX);
}

uint64_t balloon_actual(struct virtio_device *dev)
{
	return (uint64_t)of(dev)->actual * PAGE;
}
