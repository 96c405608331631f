/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memory.h - the guest's memory as devices see it
 *
 * A list of regions, each at a guest-physical address and mapped somewhere in
 * this process.  It is the transport's; it does not change while a device
 * runs.  What lies in it may change at any instant: read once, then check.
 */
#ifndef VMM_VIRTIO_MEMORY_H
#define VMM_VIRTIO_MEMORY_H

#include <stdint.h>

#define GUEST_REGIONS_MAX	32

struct guest_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *host;
};

struct guest_memory {
	unsigned n;
	struct guest_region region[GUEST_REGIONS_MAX];
};

/* Where [gpa, gpa + len) is, or NULL unless all of it lies in one region. */
static inline void *guest_at(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < mem->n; i++) {
		const struct guest_region *r = &mem->region[i];

		if (gpa >= r->gpa && gpa - r->gpa <= r->size && len <= r->size - (gpa - r->gpa))
			return r->host + (gpa - r->gpa);
	}
	return NULL;
}

#endif
