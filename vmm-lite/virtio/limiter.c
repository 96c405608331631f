/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* limiter.c - see limiter.h */
#include "vmm-lite/virtio/limiter.h"

#include "core/compiler.h"

#define NS		UINT64_C(1000000000)

void limiter_init(struct limiter *l, const struct blk_limits *limits)
{
	pthread_mutex_init(&l->lock, NULL);
	limiter_set(l, limits);
}

void limiter_destroy(struct limiter *l)
{
	pthread_mutex_destroy(&l->lock);
}

void limiter_set(struct limiter *l, const struct blk_limits *limits)
{
	pthread_mutex_lock(&l->lock);
	l->limits = *limits;
	if (!l->limits.burst_ms)
		l->limits.burst_ms = LIMITER_BURST_MS;
	l->bytes_at = l->ops_at = 0;
	l->active = limits->bytes || limits->ops;
	pthread_mutex_unlock(&l->lock);
}

uint64_t limiter_wait(struct limiter *l, uint64_t now)
{
	uint64_t at, burst;

	pthread_mutex_lock(&l->lock);
	at = MAX(l->bytes_at, l->ops_at);
	burst = l->limits.burst_ms * (NS / 1000);
	pthread_mutex_unlock(&l->lock);
	return at > now + burst ? at - burst : 0;
}

static uint64_t cost_ns(uint64_t n, uint64_t per_second)
{
	return per_second ? (uint64_t)((unsigned __int128)n * NS / per_second) : 0;
}

void limiter_charge(struct limiter *l, uint64_t now, uint64_t bytes)
{
	pthread_mutex_lock(&l->lock);
	l->bytes_at = MAX(l->bytes_at, now) + cost_ns(bytes, l->limits.bytes);
	l->ops_at = MAX(l->ops_at, now) + cost_ns(1, l->limits.ops);
	pthread_mutex_unlock(&l->lock);
}
