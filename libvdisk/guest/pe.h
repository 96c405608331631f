/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pe.h - the sections of a PE program, as far as unified kernel images need it */
#ifndef VD_GUEST_PE_H
#define VD_GUEST_PE_H

#include <stddef.h>
#include <stdint.h>

enum {
	PE_SECTIONS_MAX = 96,		/* what the format allows */
	PE_HEAD_MAX = 65536,		/* bytes that hold all headers of a sane file */
	PE_MACHINE_X86_64 = 0x8664,
};

struct pe_section {
	char name[9];
	uint64_t off, len;	/* in the file, inside it */
};

struct pe {
	uint16_t machine;
	unsigned n;
	struct pe_section section[PE_SECTIONS_MAX];
};

/*
 * Decode the headers: @head is the file's beginning, at most PE_HEAD_MAX
 * bytes, @size the length of the whole file.  0; -EMEDIUMTYPE: not a PE program; -EINVAL:
 * a section lies outside of the file, or the headers do not fit.
 */
int pe_decode(struct pe *out, const uint8_t *head, size_t head_len, uint64_t size);

#endif
