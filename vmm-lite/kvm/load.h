/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* load.h - a kernel, its initrd and its command line into the guest's memory */
#ifndef VMM_KVM_LOAD_H
#define VMM_KVM_LOAD_H

#include <stdbool.h>

#include "vdisk.h"
#include "vmm-lite/virtio/memory.h"

#define KERNEL_MAX		(256ull << 20)
#define INITRD_MAX		(1ull << 30)

struct boot_source {
	int kernel_fd;		/* bzImage or ELF; see kernel_unpack() */
	int initrd_fd;		/* -1: none */
	const char *cmdline;
	unsigned vcpus;
};

struct boot_entry {		/* where the first processor starts */
	bool pvh;		/* in 32-bit protected mode, with rbx; else long mode, rsi */
	uint64_t rip, rsi, rbx, cr3, rsp;
};

/* Will kernel_unpack() have something to do?  Then load what it needs, which opens files. */
int kernel_unpack_prepare(int fd, bool fast, struct vdisk_error *err);

/*
 * A compressed vmlinux becomes a plain one; with @fast, so does a bzImage (it
 * is then entered without decompressing itself, and not at a random address).
 * *@fd may be replaced by a new descriptor.
 */
int kernel_unpack(int *fd, bool fast, struct vdisk_error *err);

/*
 * Put kernel, initrd, command line, boot parameters, ACPI tables, page tables,
 * GDT and reset stub into the guest's memory, which is all zero.
 */
int boot_load(const struct guest_memory *mem, const struct boot_source *src,
	      struct boot_entry *entry, struct vdisk_error *err);

#endif
