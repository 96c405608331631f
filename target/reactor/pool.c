/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pool.c - buddy allocator over 512 KiB blocks, and object free lists
 *
 * Each block of POOL_BUFFER_MAX bytes is a binary tree of halves.  A free half
 * is linked through its own first bytes; a byte per smallest unit tells whether
 * a free buffer starts there, and of what order, which is all that merging
 * needs.
 *
 * Splitting and merging touch a page for each order.  So the last few buffers
 * of each size that came back stay whole, on a stack beside the tree, and are
 * what the next request of that size gets; when the tree is empty, they go back
 * to it, and another try is made.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include "core/compiler.h"
#include "target/reactor/pool.h"

#define ORDERS		8u	/* 4 KiB << 7 = 512 KiB */
#define UNITS		(1u << (ORDERS - 1))
#define NOT_FREE	0xff
#define HOT_BYTES	(512u << 10)	/* of each order that are kept on its stack, */
#define HOT_MAX		32u		/* and buffers */

_Static_assert(POOL_BUFFER_MIN << (ORDERS - 1) == POOL_BUFFER_MAX, "orders fit the sizes");

struct half {			/* lives in the free buffer itself */
	LIST_ENTRY(half) link;
};

struct pool {
	uint8_t *base;		/* the whole reservation; touched as needed */
	size_t blocks, used_blocks;
	size_t used;
	uint8_t *order;		/* a byte a unit; owned */
	LIST_HEAD(half_list, half) free[ORDERS];
	struct {
		void *buf[HOT_MAX];	/* last in, first out */
		unsigned n;
	} hot[ORDERS];
};

struct pool *pool_new(size_t limit)
{
	size_t blocks = (limit + POOL_BUFFER_MAX - 1) / POOL_BUFFER_MAX;
	AUTO_FREE struct pool *p = calloc(1, sizeof(*p));
	AUTO_FREE uint8_t *order = malloc(blocks * UNITS);
	void *base;

	if (!p || !order)
		return NULL;
	base = mmap(NULL, blocks * POOL_BUFFER_MAX, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	memset(order, NOT_FREE, blocks * UNITS);
	p->base = base;
	p->blocks = blocks;
	p->order = STEAL(order);
	return STEAL(p);
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	assert(p->used == 0);
	munmap(p->base, p->blocks * POOL_BUFFER_MAX);
	free(p->order);
	free(p);
}

static unsigned order_for(size_t size)
{
	assert(size > 0 && size <= POOL_BUFFER_MAX);
	if (size <= POOL_BUFFER_MIN)
		return 0;
	return 32 - (unsigned)__builtin_clz((uint32_t)((size - 1) / POOL_BUFFER_MIN));
}

static size_t unit_of(const struct pool *p, const void *buf)
{
	return (size_t)((const uint8_t *)buf - p->base) / POOL_BUFFER_MIN;
}

static void link_free(struct pool *p, void *buf, unsigned order)
{
	struct half *h = buf;

	p->order[unit_of(p, buf)] = (uint8_t)order;
	LIST_INSERT_HEAD(&p->free[order], h, link);
}

static void unlink_free(struct pool *p, struct half *h)
{
	p->order[unit_of(p, h)] = NOT_FREE;
	LIST_REMOVE(h, link);
}

/* A free buffer of exactly this order, off its list; NULL if the limit is reached. */
static void *take(struct pool *p, unsigned order)
{
	unsigned from = order;
	struct half *h;

	while (from < ORDERS && LIST_EMPTY(&p->free[from]))
		from++;
	if (from < ORDERS) {
		h = LIST_FIRST(&p->free[from]);
		unlink_free(p, h);
	} else if (p->used_blocks < p->blocks) {
		h = (struct half *)(void *)(p->base + p->used_blocks++ * POOL_BUFFER_MAX);
		from = ORDERS - 1;
	} else {
		return NULL;
	}
	while (from > order) {
		from--;
		link_free(p, (uint8_t *)h + ((size_t)POOL_BUFFER_MIN << from), from);
	}
	return h;
}

/* Back into the tree, merged with its free neighbours. */
static void merge(struct pool *p, void *buf, unsigned order)
{
	size_t unit = unit_of(p, buf);

	for (; order < ORDERS - 1; order++) {
		size_t buddy = unit ^ (size_t)1 << order;

		if (p->order[buddy] != order)
			break;
		unlink_free(p, (struct half *)(void *)(p->base + buddy * POOL_BUFFER_MIN));
		unit &= ~((size_t)1 << order);
	}
	link_free(p, p->base + unit * POOL_BUFFER_MIN, order);
}

/* Were there any? */
static bool merge_hot(struct pool *p)
{
	bool any = false;

	for (unsigned order = 0; order < ORDERS; order++) {
		any |= p->hot[order].n > 0;
		while (p->hot[order].n > 0)
			merge(p, p->hot[order].buf[--p->hot[order].n], order);
	}
	return any;
}

void *pool_get(struct pool *p, size_t size)
{
	unsigned order = order_for(size);
	void *buf;

	if (p->hot[order].n > 0) {
		buf = p->hot[order].buf[--p->hot[order].n];
	} else {
		buf = take(p, order);
		if (!buf && merge_hot(p))
			buf = take(p, order);
	}
	if (buf)
		p->used += (size_t)POOL_BUFFER_MIN << order;
	return buf;
}

void pool_put(struct pool *p, void *buf, size_t size)
{
	unsigned order;

	if (!buf)
		return;
	order = order_for(size);
	p->used -= (size_t)POOL_BUFFER_MIN << order;
	if (p->hot[order].n < MIN(HOT_MAX, HOT_BYTES / POOL_BUFFER_MIN >> order))
		p->hot[order].buf[p->hot[order].n++] = buf;
	else
		merge(p, buf, order);
}

size_t pool_used(const struct pool *p)
{
	return p->used;
}

void *slab_get(struct slab *s)
{
	void *object = s->free;

	if (object)
		s->free = *(void **)object;
	else
		object = calloc(1, s->size);
	if (object)
		s->live++;
	return object;
}

void slab_put(struct slab *s, void *object)
{
	*(void **)object = s->free;
	s->free = object;
	s->live--;
}

void slab_clear(struct slab *s)
{
	while (s->free) {
		void *object = s->free;

		s->free = *(void **)object;
		free(object);
	}
}
