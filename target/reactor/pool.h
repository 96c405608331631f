/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pool.h - data buffers, and fixed-size objects, without malloc per command
 *
 * A pool belongs to one thread.  Buffers are powers of two from 4 KiB to
 * POOL_BUFFER_MAX, aligned to 4 KiB (fit for O_DIRECT), cut buddy fashion from
 * large mappings, so that memory used for one size serves another later; what
 * was freed last is handed out first, while the cache still holds it.  The
 * pool never grows beyond its limit: who gets NULL answers "task set full".
 */
#ifndef TARGET_POOL_H
#define TARGET_POOL_H

#include <stddef.h>
#include <stdint.h>

#define POOL_BUFFER_MIN	(4u << 10)
#define POOL_BUFFER_MAX	(512u << 10)

struct pool;

/* At most @limit bytes, rounded up to whole POOL_BUFFER_MAX.  NULL: no memory. */
struct pool *pool_new(size_t limit);
/* Every buffer must be back. */
void pool_free(struct pool *pool);

/* @size > 0 and at most POOL_BUFFER_MAX; contents undefined.  NULL: limit reached. */
void *pool_get(struct pool *pool, size_t size);
/* @size as given to pool_get().  NULL does nothing. */
void pool_put(struct pool *pool, void *buf, size_t size);
/* Bytes handed out now. */
size_t pool_used(const struct pool *pool);

/*
 * A free list of objects of one type: zeroed the first time, as they were left
 * afterwards.
 */
struct slab {
	size_t size;
	void *free;		/* linked through the first word */
	unsigned live;
};
void *slab_get(struct slab *slab);
void slab_put(struct slab *slab, void *object);
/* Give the free objects back to the system. */
void slab_clear(struct slab *slab);

#endif
