/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rng.c - a virtio entropy device (virtio 1.2, 5.4), from the host's getrandom()
 *
 * It needs no thread: a doorbell is answered on the spot, with at most a page
 * a request (the device may give less than was asked for).
 */
#include "vmm-lite/virtio/rng.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <sys/random.h>

#include "core/driver.h"

#define RNG_QUEUE_SIZE	16u
#define RNG_BYTES_MAX	4096u

struct rng {
	struct virtio_device dev;
	struct virtq vq;
	struct virtio_host host;
	bool broken;
};

static struct rng *of(struct virtio_device *dev)
{
	return container_of(dev, struct rng, dev);
}

static uint32_t fill(const struct virtq_chain *c, const struct iovec *iov)
{
	uint32_t done = 0;

	for (unsigned i = c->n_out; i < c->n_out + c->n_in && iov[i].iov_base; i++) {
		size_t len = MIN(iov[i].iov_len, (size_t)(RNG_BYTES_MAX - done));
		ssize_t n = len ? getrandom(iov[i].iov_base, len, 0) : 0;

		if (n < 0)
			break;
		done += (uint32_t)n;
	}
	return done;
}

static void rng_kick(struct virtio_device *dev, unsigned queue)
{
	struct rng *rng = of(dev);
	struct iovec iov[RNG_QUEUE_SIZE];
	struct virtq_chain chain;
	int r = 0;

	if (rng->broken || !rng->vq.size)
		return;
	do {
		while ((r = virtq_pop(&rng->vq, &chain, iov)) > 0)
			virtq_put(&rng->vq, chain.head, fill(&chain, iov));
	} while (!r && virtq_listen(&rng->vq));
	if (virtq_publish(&rng->vq))
		rng->host.interrupt(rng->host.arg, queue);
	if (r < 0) {
		rng->broken = true;
		rng->host.broken(rng->host.arg);
	}
}

static int rng_start(struct virtio_device *dev, const struct virtio_start *s)
{
	struct rng *rng = of(dev);

	rng->host = s->host;
	rng->broken = false;
	rng->vq.size = 0;
	if (!s->queue[0].size)
		return 0;
	return virtq_init(&rng->vq, s->mem, &s->queue[0],
			  s->features & UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX);
}

static void rng_stop(struct virtio_device *dev)
{
	of(dev)->vq.size = 0;
}

static void rng_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	(void)dev;
	(void)off;
	memset(buf, 0, len);
}

static void rng_free(struct virtio_device *dev)
{
	free(of(dev));
}

static const struct virtio_device_ops rng_ops = {
	.start		= rng_start,
	.stop		= rng_stop,
	.config_read	= rng_config_read,
	.kick		= rng_kick,
	.free		= rng_free,
};

int rng_new(struct virtio_device **out, struct vdisk_error *err)
{
	struct rng *rng = calloc(1, sizeof(*rng));

	if (!rng)
		return vd_fail(err, ENOMEM, "out of memory");
	rng->dev = (struct virtio_device) {
		.ops = &rng_ops, .id = VIRTIO_ID_RNG, .n_queues = 1, .queue_size = RNG_QUEUE_SIZE,
		.features = UINT64_C(1) << VIRTIO_F_VERSION_1 |
			    UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC |
			    UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX,
	};
	*out = &rng->dev;
	return 0;
}
