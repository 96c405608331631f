/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* memory.h - the guest's RAM, below and above the gap */
#ifndef VMM_KVM_MEMORY_H
#define VMM_KVM_MEMORY_H

#include "vdisk.h"
#include "vmm-lite/virtio/memory.h"
#include "vmm-lite/words.h"

#define RAM_MIN		MEMORY_MIN
#define RAM_MAX		MEMORY_MAX

/* of ram_new() */
enum {
	RAM_HUGE = 1,		/* from the host's pool of huge pages (-ENOMEM: there are too few) */
	RAM_SHARED = 2,		/* another process maps it too */
};

struct ram {
	struct guest_memory map;
	uint64_t size;
	bool huge;
	int fd;			/* owned: a sealed memfd; or -1: private memory */
};

/* @size is a multiple of 1 MiB, with RAM_HUGE of 2 MiB. */
int ram_new(struct ram *out, uint64_t size, unsigned flags, struct vdisk_error *err);
/* All zero again, as after power-on. */
int ram_clear(struct ram *ram, struct vdisk_error *err);
/* [@host, @host + @len) of it is not needed; it reads as zeroes next.  Whole pages only. */
void ram_give_back(struct ram *ram, void *host, uint64_t len);
void ram_free(struct ram *ram);

/* Where RAM below the gap ends. */
uint64_t ram_low_end(const struct guest_memory *map);

#endif
