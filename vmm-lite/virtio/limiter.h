/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * limiter.h - so many bytes and operations a second, and no more
 *
 * Virtual time (GCRA): a request to a disk that may do N a second moves a clock on by
 * 1/N s; whoever finds a clock more than the burst ahead of the real one waits.  What
 * was not used is lost, but for the burst.  In any span of T seconds a disk so does at most
 * N * (T + burst), and one request; and while there is always one that waits, N * T.
 *
 * Time is the caller's, in nanoseconds from any beginning: CLOCK_MONOTONIC, or a test's.
 */
#ifndef VMM_VIRTIO_LIMITER_H
#define VMM_VIRTIO_LIMITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define LIMITER_BURST_MS	100u

struct blk_limits {
	uint64_t bytes, ops;	/* a second; 0: as many as it wants */
	uint64_t burst_ms;	/* this much of it at once; 0: LIMITER_BURST_MS */
};

struct limiter {
	_Atomic bool active;	/* false: there is no need to ask */
	pthread_mutex_t lock;
	struct blk_limits limits;
	uint64_t bytes_at, ops_at;	/* the clocks, ns */
};

void limiter_init(struct limiter *l, const struct blk_limits *limits);
void limiter_destroy(struct limiter *l);
/* New limits hold from now on, whatever was done before. */
void limiter_set(struct limiter *l, const struct blk_limits *limits);
/* 0: a request may be taken now; else when to ask again. */
uint64_t limiter_wait(struct limiter *l, uint64_t now);
/* One was taken, with so many bytes. */
void limiter_charge(struct limiter *l, uint64_t now, uint64_t bytes);

#endif
