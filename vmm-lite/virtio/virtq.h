/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtq.h - a split virtqueue from the device's side (virtio 1.2, 2.7)
 *
 * One thread uses a queue at a time.  Errors of the driver's that leave no
 * way to answer (a ring index out of range, a chain that loops, a buffer given
 * twice) break the queue: virtq_pop() returns -EPROTO, and the device asks to
 * be reset.  A buffer outside the guest's memory is not one of them: the
 * chain is marked, and the request can be failed in its status byte.
 */
#ifndef VMM_VIRTIO_VIRTQ_H
#define VMM_VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm-lite/virtio/memory.h"

#define VIRTQ_SIZE_MAX	1024

/*
 * A queue's record of what is in flight, in memory that outlives this process:
 * the layout is vhost-user's (split rings).  Another process that finds it can
 * do again what this one has taken and not given back.
 */
#define VIRTQ_RECORD_HEADER	16u
#define VIRTQ_RECORD_ENTRY	16u

struct virtq_setup {		/* as the driver wrote it: unchecked */
	uint16_t size;		/* 0: the queue is not used */
	uint64_t desc, avail, used;
	int kick_fd;		/* readable when the driver has rung; borrowed */
	/* Go on where another device stopped: at this entry of the available
	 * ring, and where the used ring says.  Else both begin at 0. */
	bool resume;
	uint16_t next_avail;
	uint8_t *record;	/* of size entries, 8-aligned, borrowed; or NULL */
};

struct virtq {
	const struct guest_memory *mem;	/* borrowed */
	uint16_t size;
	uint16_t last_avail;	/* next entry of the available ring to take */
	uint16_t used_idx;	/* next entry of the used ring to fill */
	uint16_t used_seen;	/* used_idx as last published */
	bool event_idx;		/* VIRTIO_F_EVENT_IDX was negotiated */
	const uint8_t *desc;	/* in guest memory */
	uint8_t *avail, *used;
	uint64_t busy[VIRTQ_SIZE_MAX / 64]; /* a bit for each head in flight */
	uint8_t *record;	/* shared memory, or NULL */
	uint64_t taken;		/* requests so far, in the record's count */
	uint16_t again[VIRTQ_SIZE_MAX]; /* heads that the record asks to do again */
	uint16_t n_again, next_again;
};

/*
 * A request's buffers.  iov[0 .. n_out) is for the device to read, the n_in
 * after them for it to write; none of them is empty.  An iov_base of NULL is
 * outside the guest's memory (and @bad_memory is set).
 */
struct virtq_chain {
	uint16_t head;
	uint16_t n_out, n_in;
	bool bad_memory;
	uint64_t out_len, in_len;
};

/* Bytes of the record of a queue with @size entries. */
static inline uint32_t virtq_record_bytes(uint32_t size)
{
	return VIRTQ_RECORD_HEADER + VIRTQ_RECORD_ENTRY * size;
}

/* -EINVAL: size, alignment or address is not possible. */
int virtq_init(struct virtq *q, const struct guest_memory *mem, const struct virtq_setup *setup,
	       bool event_idx);

/*
 * Take the next request; @iov has room for q->size.  1, 0 when there is none,
 * -EPROTO when the queue is broken.
 */
int virtq_pop(struct virtq *q, struct virtq_chain *chain, struct iovec *iov);

/* Give a request back, @len bytes of it written.  The driver sees it at virtq_publish(). */
void virtq_put(struct virtq *q, uint16_t head, uint32_t len);

/* Let the driver see what was put; does it want an interrupt? */
bool virtq_publish(struct virtq *q);

/* Ask for no doorbells, while the queue is looked at anyway. */
void virtq_quiet(struct virtq *q);
/* Ask for doorbells again.  True: there is something already, take it first. */
bool virtq_listen(struct virtq *q);

#endif
