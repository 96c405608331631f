/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * front.h - a virtio block device whose requests another process does (vhost-user)
 *
 * The other process (vdisk-vhost) has the guest's memory, the doorbells and the
 * rings; this one only tells it where they are.  If it dies, the next one finds
 * in shared memory what was in flight, does it, and the guest sees nothing.
 */
#ifndef VMM_VHOST_FRONT_H
#define VMM_VHOST_FRONT_H

#include "vmm-lite/keeper.h"
#include "vmm-lite/virtio/blk.h"
#include "vmm-lite/virtio/device.h"

struct front_options {
	const char *name;		/* for messages; borrowed */
	struct keeper_ends ends;	/* the device's from now on, also on failure */
	unsigned queues;
	int memory_fd;			/* borrowed: all of the guest's memory, region after region */
	void (*confine)(void);		/* called by the device's thread as it starts; NULL ok */
	/* The disk's size is another one: tell the guest.  On the device's thread. */
	void (*config_changed)(void *arg);
	/* There is a new process, with the limits that it was started with; likewise.  NULL ok. */
	void (*restarted)(void *arg);
	void *arg;
};

/* Waits for the disk's process.  Starts a thread. */
int front_new(struct virtio_device **out, const struct front_options *o, struct vdisk_error *err);

/*
 * The device is not needed any more: stop the disk's process and wait for it, so many
 * milliseconds at most (-1: for ever).  0, or that it could not write out all.  -EAGAIN, with
 * no message: it is still writing; to be asked again.
 */
int front_end(struct virtio_device *dev, int wait_ms, struct vdisk_error *err);

uint64_t front_bytes(struct virtio_device *dev);
bool front_read_only(struct virtio_device *dev);
pid_t front_pid(struct virtio_device *dev);
/* How often its process was started again. */
unsigned front_restarts(struct virtio_device *dev);
/* It died and could not be: each request fails. */
bool front_lost(struct virtio_device *dev);
/* Its keeper's ends, borrowed: for the process that takes the device over. */
struct keeper_ends front_ends(struct virtio_device *dev);

/* As blk_get_stats() and blk_set_limits(); -errno: the process does not answer. */
int front_get_stats(struct virtio_device *dev, struct blk_stats *out);
int front_set_limits(struct virtio_device *dev, const struct blk_limits *limits,
		     struct vdisk_error *err);
int front_resize(struct virtio_device *dev, uint64_t bytes, struct vdisk_error *err);

#endif
