/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * elf.c - a kernel as a 64-bit ELF file: vmlinux, or anything with a PVH entry
 *
 * What is loaded comes from the program headers alone.  Everything is checked
 * against the file's size and the memory below the gap; the note walk moves on
 * by at least its 12 header bytes each step, whatever the sizes say.
 */
#include "vmm-lite/kvm/elf.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#include "core/driver.h"
#include "vmm-lite/kvm/layout.h"

#define XEN_ELFNOTE_PHYS32_ENTRY	18u

static int add_part(struct elf_kernel *k, const struct elf_part *p, struct vdisk_error *err)
{
	if (!p->size)
		return 0;
	if (p->file_size > p->size)
		return vd_fail(err, ENOEXEC, "kernel: a segment of %" PRIu64 " bytes has %" PRIu64
			       " in the file", p->size, p->file_size);
	if (p->gpa < GUEST_HIGH_MEMORY || !vd_in_range(p->gpa, p->size, GUEST_GAP))
		return vd_fail(err, ENOEXEC, "kernel: a segment at %#" PRIx64 " of %#" PRIx64
			       " bytes is not possible", p->gpa, p->size);
	k->part[k->n_parts++] = *p;
	k->end = MAX(k->end, p->gpa + p->size);
	return 0;
}

static int add_header(struct elf_kernel *k, const uint8_t *ph, uint64_t file_size,
		      uint64_t virtual_entry, struct vdisk_error *err)
{
	struct elf_part p = {
		.offset = load_le64(ph + offsetof(Elf64_Phdr, p_offset)),
		.file_size = load_le64(ph + offsetof(Elf64_Phdr, p_filesz)),
		.gpa = load_le64(ph + offsetof(Elf64_Phdr, p_paddr)),
		.size = load_le64(ph + offsetof(Elf64_Phdr, p_memsz)),
	};
	uint64_t vaddr = load_le64(ph + offsetof(Elf64_Phdr, p_vaddr));
	uint32_t type = load_le32(ph);

	if (type != PT_LOAD && type != PT_NOTE)
		return 0;
	if (!vd_in_range(p.offset, p.file_size, file_size))
		return vd_fail(err, ENOEXEC, "kernel: a segment at offset %" PRIu64
			       " ends past the file", p.offset);
	if (type == PT_NOTE) {
		k->note[k->n_notes++] = p;
		return 0;
	}
	/* the entry is physical in vmlinux, but virtual where a linker was left alone */
	if (!k->entry && virtual_entry >= vaddr && virtual_entry - vaddr < p.size)
		k->entry = p.gpa + (virtual_entry - vaddr);
	if (virtual_entry >= p.gpa && virtual_entry - p.gpa < p.size)
		k->entry = virtual_entry;
	return add_part(k, &p, err);
}

int elf_parse(struct elf_kernel *out, const uint8_t *head, size_t len, uint64_t file_size,
	      struct vdisk_error *err)
{
	struct elf_kernel k = { 0 };
	uint64_t phoff, entry;
	unsigned n, size;
	int r = 0;

	if (len < sizeof(Elf64_Ehdr) || memcmp(head, ELFMAG, SELFMAG))
		return vd_fail(err, ENOEXEC, "kernel: not an ELF file");
	if (head[EI_CLASS] != ELFCLASS64 || head[EI_DATA] != ELFDATA2LSB ||
	    load_le16(head + offsetof(Elf64_Ehdr, e_machine)) != EM_X86_64)
		return vd_fail(err, ENOTSUP, "kernel: an ELF file, but not for x86-64");
	entry = load_le64(head + offsetof(Elf64_Ehdr, e_entry));
	phoff = load_le64(head + offsetof(Elf64_Ehdr, e_phoff));
	size = load_le16(head + offsetof(Elf64_Ehdr, e_phentsize));
	n = load_le16(head + offsetof(Elf64_Ehdr, e_phnum));
	if (size != sizeof(Elf64_Phdr) || !n || n > ELF_PARTS_MAX ||
	    !vd_in_range(phoff, (uint64_t)n * size, len))
		return vd_fail(err, ENOEXEC, "kernel: %u program headers of %u bytes at %" PRIu64
			       " are not possible", n, size, phoff);
	for (unsigned i = 0; !r && i < n; i++)
		r = add_header(&k, head + phoff + (uint64_t)i * size, file_size, entry, err);
	if (!r && !k.entry)
		r = vd_fail(err, ENOEXEC, "kernel: its entry point %#" PRIx64
			    " is not in what it loads", entry);
	if (!r)
		*out = k;
	return r;
}

bool elf_pvh_entry(uint32_t *out, const uint8_t *notes, size_t len)
{
	size_t at = 0;

	while (at <= len && len - at >= 12) {
		uint64_t name_len = load_le32(notes + at), desc_len = load_le32(notes + at + 4);
		uint32_t type = load_le32(notes + at + 8);
		uint64_t name = at + 12, desc = name + vd_align_up(name_len, 4);
		uint64_t next = desc + vd_align_up(desc_len, 4);

		if (!vd_in_range(name, name_len, len) || !vd_in_range(desc, desc_len, len))
			return false;
		if (type == XEN_ELFNOTE_PHYS32_ENTRY && name_len == 4 && desc_len >= 4 &&
		    !memcmp(notes + name, "Xen", 4)) {
			*out = load_le32(notes + desc);
			return true;
		}
		at = next;
	}
	return false;
}
