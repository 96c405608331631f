/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* counts.c - a sparse array of reference counts; see counts.h */
#include <errno.h>

#include "formats/qcow2/counts.h"

void counts_clear(struct counts *c)
{
	for (size_t i = 0; i < c->slots; i++)
		free(c->slot[i]);
	free(c->slot);
	*c = (struct counts) { 0 };
}

/* Fibonacci hashing: neighbours spread, multiples of powers of two as well. */
static size_t slot_of(const struct counts *c, uint64_t index)
{
	size_t i = (size_t)((index * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (c->slots - 1);

	while (c->slot[i] && c->slot[i]->index != index)
		i = (i + 1) & (c->slots - 1);
	return i;
}

static int grow(struct counts *c)
{
	struct counts bigger = { .slots = c->slots ? 2 * c->slots : 256, .used = c->used };

	bigger.slot = calloc(bigger.slots, sizeof(*bigger.slot));
	if (!bigger.slot)
		return -ENOMEM;
	for (size_t i = 0; i < c->slots; i++)
		if (c->slot[i])
			bigger.slot[slot_of(&bigger, c->slot[i]->index)] = c->slot[i];
	free(c->slot);
	*c = bigger;
	return 0;
}

static int make_group(struct counts *c, uint64_t index, struct count_group **out)
{
	struct count_group *g;

	if (c->used == COUNTS_MAX)
		return -EFBIG;
	if (2 * c->used >= c->slots) {
		int r = grow(c);

		if (r < 0)
			return r;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->index = index;
	c->slot[slot_of(c, index)] = g;
	c->used++;
	*out = g;
	return 0;
}

struct count_group *counts_find(const struct counts *c, uint64_t cluster)
{
	return c->slots ? c->slot[slot_of(c, cluster / COUNTS_GROUP)] : NULL;
}

int counts_add(struct counts *c, uint64_t cluster, uint32_t n, enum count_kind kind)
{
	struct count_group *g = counts_find(c, cluster);
	unsigned i = cluster % COUNTS_GROUP;

	if (!g) {
		int r = make_group(c, cluster / COUNTS_GROUP, &g);

		if (r < 0)
			return r;
	}
	if (__builtin_add_overflow(g->n[i], n, &g->n[i]))
		g->n[i] = UINT32_MAX;
	g->kind[i] |= (uint8_t)kind;
	return 0;
}

static int by_index(const void *a, const void *b)
{
	const struct count_group *x = *(struct count_group *const *)a;
	const struct count_group *y = *(struct count_group *const *)b;

	return x->index < y->index ? -1 : x->index > y->index;
}

struct count_group **counts_sorted(const struct counts *c)
{
	struct count_group **list = calloc(c->used + 1, sizeof(*list));
	size_t n = 0;

	if (!list)
		return NULL;
	for (size_t i = 0; i < c->slots; i++)
		if (c->slot[i])
			list[n++] = c->slot[i];
	qsort(list, n, sizeof(*list), by_index);
	return list;
}
