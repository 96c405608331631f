/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bounce.h - a block device that never sees the guest's memory
 *
 * For a device whose requests another process does while the guest's memory is
 * private to this one: it gets rings and buffers in a memory file, which both can
 * map, and what it reads and writes there is copied from and to the guest.
 */
#ifndef VMM_VIRTIO_BOUNCE_H
#define VMM_VIRTIO_BOUNCE_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"

/* The memory: rings, and buffers for requests of together 64 MiB; used as far as needed. */
struct bounce_memory {
	int fd;			/* owned: a sealed memory file; -1: none */
	uint8_t *map;		/* owned: all of it */
	uint64_t bytes;
};

/* For a device of @queues.  -errno: nothing is owned. */
int bounce_memory_new(struct bounce_memory *out, unsigned queues, struct vdisk_error *err);
/* As long as there is no device on it.  Of one that is all zero: nothing. */
void bounce_memory_free(struct bounce_memory *m);

struct bounce_options {
	struct virtio_device *inner;	/* a block device (virtio 1.2, 5.2); owned, also on failure */
	struct bounce_memory memory;	/* owned, also on failure */
	void (*confine)(void);		/* called by the device's thread as it starts; NULL ok */
};

/* What the guest sees is @out.  Starts a thread, idle until ->start(). */
int bounce_new(struct virtio_device **out, const struct bounce_options *o, struct vdisk_error *err);

#endif
