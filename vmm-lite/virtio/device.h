/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * device.h - between a virtio device and its transport
 *
 * A device knows virtqueues in memory, descriptors that wake it and a callback
 * that tells the driver; it does not know how the driver finds it.  A
 * transport (PCI in the VMM, vhost-user elsewhere) does the negotiation, and
 * then calls ->start() with what was agreed.
 */
#ifndef VMM_VIRTIO_DEVICE_H
#define VMM_VIRTIO_DEVICE_H

#include "vmm-lite/virtio/virtq.h"

/* What a device calls back; from any thread, until ->stop() returns. */
struct virtio_host {
	/* Used buffers of a queue were published, and the driver wants to know. */
	void (*interrupt)(void *arg, unsigned queue);
	/* The device cannot go on: set DEVICE_NEEDS_RESET, tell the driver (2.1.2). */
	void (*broken)(void *arg);
	/* The device configuration has changed.  NULL: the transport has no way to tell. */
	void (*config_changed)(void *arg);
	void *arg;
};

struct virtio_start {
	const struct guest_memory *mem;	/* borrowed until ->stop() */
	uint64_t features;		/* negotiated: a subset of those offered */
	const struct virtq_setup *queue; /* n_queues of them; borrowed for the call */
	struct virtio_host host;
};

struct virtio_device;

/* The transport calls one at a time, except ->config_read and ->kick. */
struct virtio_device_ops {
	/* DRIVER_OK.  -errno: the driver gets DEVICE_NEEDS_RESET; ->stop() is not called. */
	int (*start)(struct virtio_device *dev, const struct virtio_start *s);
	/* Finish what is in flight; afterwards no queue and no callback is touched. */
	void (*stop)(struct virtio_device *dev);
	/*
	 * For transports whose queues come and go one by one (vhost-user): the
	 * device was started with this queue's size 0, and so is again after
	 * ->queue_stop, which says where in the available ring to go on.  While no
	 * queue runs, ->start may be called again.  NULL: not possible.
	 */
	int (*queue_start)(struct virtio_device *dev, unsigned queue,
			   const struct virtq_setup *setup);
	uint16_t (*queue_stop)(struct virtio_device *dev, unsigned queue);
	/* Device configuration; past its end reads are zero and writes are nothing. */
	void (*config_read)(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len);
	/* May come before ->start().  NULL: all read-only. */
	void (*config_write)(struct virtio_device *dev, uint32_t off, const void *buf,
			     uint32_t len);
	/*
	 * A doorbell rang.  NULL: the device's own threads read the kick
	 * descriptors, and the transport wires doorbells to those.
	 */
	void (*kick)(struct virtio_device *dev, unsigned queue);
	/* Not started. */
	void (*free)(struct virtio_device *dev);
};

struct virtio_device {
	const struct virtio_device_ops *ops;
	uint16_t id;		/* 2 block, 4 entropy (virtio 1.2, 5) */
	uint16_t n_queues;
	uint16_t queue_size;	/* maximum */
	uint32_t config_len;
	uint64_t features;	/* offered */
};

#endif
