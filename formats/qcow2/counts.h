/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * counts.h - how often each cluster of an image is referred to
 *
 * A sparse array: groups of 64 clusters in a hash table, made when one of them
 * is first referred to.  A hostile image can claim a file of exabytes, but
 * memory grows only with the references that it really contains, and at most
 * to COUNTS_MAX groups.
 */
#ifndef QCOW2_COUNTS_H
#define QCOW2_COUNTS_H

#include "core/compiler.h"

#define COUNTS_GROUP	64u
#define COUNTS_MAX	(4u << 20)	/* groups: 268 million clusters, about 1.4 GiB */

enum count_kind {
	COUNT_META = 1 << 0,	/* anything that may only be referred to once */
	COUNT_L2 = 1 << 1,
	COUNT_DATA = 1 << 2,
};

struct count_group {
	uint64_t index;		/* of its first cluster, / COUNTS_GROUP */
	uint64_t one;		/* bit i: the refcount on the medium is 1 */
	uint8_t kind[COUNTS_GROUP]; /* enum count_kind, or-ed */
	uint32_t n[COUNTS_GROUP]; /* references, saturating */
};

struct counts {
	struct count_group **slot; /* owned: open addressing */
	size_t slots, used;
};

void counts_clear(struct counts *c);
/* Add @n references to @cluster.  0, -ENOMEM or -EFBIG. */
int counts_add(struct counts *c, uint64_t cluster, uint32_t n, enum count_kind kind);
/* The group of @cluster, or NULL if nothing refers to any of it. */
struct count_group *counts_find(const struct counts *c, uint64_t cluster);
/* All groups by index; an array to free().  NULL: no memory. */
struct count_group **counts_sorted(const struct counts *c);

#endif
