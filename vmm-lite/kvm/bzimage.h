/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bzimage.h - a Linux kernel as distributions ship it, by the 64-bit boot protocol */
#ifndef VMM_KVM_BZIMAGE_H
#define VMM_KVM_BZIMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "vdisk.h"
#include "vmm-lite/virtio/memory.h"

#define BZIMAGE_HEAD_BYTES	0x290u	/* all of the set-up header that we know */
#define BZIMAGE_MAX		(256ull << 20)
#define INITRD_MAX		(1ull << 30)

struct bzimage {		/* checked */
	uint64_t code_offset;	/* of the protected-mode kernel in the file */
	uint64_t code_size;
	uint64_t preferred;	/* load address */
	uint32_t alignment;
	uint32_t init_size;	/* memory it needs from its load address on */
	uint32_t initrd_end_max; /* the initrd ends at or below */
	uint32_t cmdline_max;	/* bytes, without the NUL */
	uint32_t header_end;	/* of the set-up header, in the file */
};

/* Decode the first @len bytes of a file of @file_size bytes. */
int bzimage_parse(struct bzimage *out, const uint8_t *head, size_t len, uint64_t file_size,
		  struct vdisk_error *err);

struct boot_source {
	int kernel_fd;
	int initrd_fd;		/* -1: none */
	const char *cmdline;
	unsigned vcpus;
};

struct boot_entry {		/* where the first processor starts */
	uint64_t rip, rsi, cr3, rsp;
};

/*
 * Put kernel, initrd, command line, boot_params, ACPI tables, page tables, GDT
 * and reset stub into the guest's memory, which is all zero.
 */
int boot_load(const struct guest_memory *mem, const struct boot_source *src,
	      struct boot_entry *entry, struct vdisk_error *err);

#endif
