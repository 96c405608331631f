/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk.h - a virtio block device on a disk (virtio 1.2, 5.2) */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"

#define BLK_QUEUES_MAX	16u
#define BLK_QUEUE_SIZE	256u
#define BLK_ID_BYTES	20u

struct blk_options {
	struct vdisk *disk;	/* the device takes its own reference */
	bool read_only;		/* also if the disk is not writable */
	unsigned queues;	/* 1..BLK_QUEUES_MAX */
	const char *serial;	/* at most BLK_ID_BYTES characters, or NULL */
};

/* Starts a thread for each queue, idle until ->start(). */
int blk_new(struct virtio_device **out, const struct blk_options *opts, struct vdisk_error *err);

#endif
