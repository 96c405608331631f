/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* elf.h - a kernel as a 64-bit ELF file: vmlinux, or anything with a PVH entry */
#ifndef VMM_KVM_ELF_H
#define VMM_KVM_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vdisk.h"

#define ELF_HEAD_BYTES	4096u	/* the program headers lie in them */
#define ELF_PARTS_MAX	16u
#define ELF_NOTES_MAX	65536u	/* bytes */

struct elf_part {
	uint64_t offset, file_size;	/* in the file */
	uint64_t gpa, size;		/* in memory; size >= file_size, the rest is zero */
};

struct elf_kernel {		/* checked */
	unsigned n_parts, n_notes;
	struct elf_part part[ELF_PARTS_MAX];	/* to be loaded; between 1 MiB and the gap */
	struct elf_part note[ELF_PARTS_MAX];	/* note segments: only offset and file_size */
	uint64_t entry;		/* physical: in one of the parts */
	uint64_t end;		/* of the memory it uses */
};

/* Decode the first @len bytes of a file of @file_size bytes. */
int elf_parse(struct elf_kernel *out, const uint8_t *head, size_t len, uint64_t file_size,
	      struct vdisk_error *err);

/*
 * The 32-bit entry point that a note segment names (XEN_ELFNOTE_PHYS32_ENTRY).
 * True, or false if there is none.
 */
bool elf_pvh_entry(uint32_t *out, const uint8_t *notes, size_t len);

#endif
