/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk.h - a virtio block device on a disk (virtio 1.2, 5.2) */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"
#include "vmm-lite/virtio/limiter.h"

#define BLK_QUEUES_MAX	16u
#define BLK_QUEUE_SIZE	256u
#define BLK_ID_BYTES	20u

struct blk_options {
	struct vdisk *disk;	/* the device takes its own reference */
	bool read_only;		/* also if the disk is not writable */
	unsigned queues;	/* 1..BLK_QUEUES_MAX */
	const char *serial;	/* at most BLK_ID_BYTES characters, or NULL */
	/* A disk that was found to be raw: nothing is written to its first sector by which it
	 * would be taken for an image of another format when it is opened again, and this
	 * is told of it, by a queue's thread, with the @serial (BLK_ID_BYTES at most, a NUL if
	 * shorter).  NULL: anything may be written. */
	void (*keep_raw)(const char *serial, const char *format);
	bool write_through;	/* a write is durable before it completes */
	struct blk_limits limits;
	void (*confine)(void);	/* called by each queue's thread as it starts; NULL ok */
	unsigned poll_us;	/* look at an idle queue at most this long before sleeping, as far
				 * as experience says that it pays */
};

/* Has ->keep_raw to be: if @asked, or if it is raw and nobody said what it is (@format NULL)? */
bool blk_keeps_raw(const struct vdisk *disk, const char *format, bool asked);

/* Starts a thread for each queue, idle until ->start(). */
int blk_new(struct virtio_device **out, const struct blk_options *opts, struct vdisk_error *err);

/* At any time, from any thread. */
void blk_set_limits(struct virtio_device *dev, const struct blk_limits *limits);

struct blk_stats {
	uint64_t reads, writes, flushes, discards, errors;	/* requests */
	uint64_t read_bytes, written_bytes;
	uint64_t interrupts, sleeps;
	uint64_t batches;	/* times that the used index was moved, over one request or many */
	uint64_t enters;	/* calls of io_uring_enter(2) */
};
void blk_get_stats(struct virtio_device *dev, struct blk_stats *out);

#endif
