/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* memory.h - the guest's RAM: one sealed memfd, below and above the gap */
#ifndef VMM_KVM_MEMORY_H
#define VMM_KVM_MEMORY_H

#include "vdisk.h"
#include "vmm-lite/virtio/memory.h"

#define RAM_MIN		(32ull << 20)
#define RAM_MAX		(1ull << 40)

struct ram {
	struct guest_memory map;
	uint64_t size;
	bool huge;
	int fd;			/* owned */
};

/*
 * @size is a multiple of 1 MiB; @huge: of 2 MiB, and from the host's pool of
 * huge pages (-ENOMEM if there are too few).
 */
int ram_new(struct ram *out, uint64_t size, bool huge, struct vdisk_error *err);
/* All zero again, as after power-on. */
int ram_clear(struct ram *ram, struct vdisk_error *err);
/* [@host, @host + @len) of it is not needed; it reads as zeroes next.  Whole pages only. */
void ram_give_back(struct ram *ram, void *host, uint64_t len);
void ram_free(struct ram *ram);

/* Where RAM below the gap ends. */
uint64_t ram_low_end(const struct guest_memory *map);

#endif
