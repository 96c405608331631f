/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pe.c - see pe.h
 *
 * Microsoft's "PE Format": a DOS header whose word at 0x3c says where "PE\0\0"
 * is, the COFF header behind that, an optional header of the length it names, and
 * one header of 40 bytes for each section.
 */
#include "guest/pe.h"

#include <errno.h>
#include <string.h>

#include "core/driver.h"

enum { COFF_SIZE = 24, SECTION_SIZE = 40 };	/* COFF with its signature */

static int decode_section(struct pe_section *s, const uint8_t *p, uint64_t size)
{
	uint32_t memory_len = load_le32(p + 8), file_len = load_le32(p + 16);

	memcpy(s->name, p, 8);
	s->name[8] = '\0';
	s->off = load_le32(p + 20);
	/* what is stored is padded; what is longer in memory is zeroes there */
	s->len = memory_len ? MIN(memory_len, file_len) : file_len;
	return s->len && (s->off > size || s->len > size - s->off) ? -EINVAL : 0;
}

int pe_decode(struct pe *out, const uint8_t *head, size_t head_len, uint64_t size)
{
	size_t at, sections, n;
	int r = 0;

	if (head_len < 64 || head[0] != 'M' || head[1] != 'Z')
		return -EMEDIUMTYPE;
	at = load_le32(head + 0x3c);
	if (at > head_len || COFF_SIZE > head_len - at)
		return -EMEDIUMTYPE;
	if (memcmp(head + at, "PE\0\0", 4) != 0)
		return -EMEDIUMTYPE;
	n = load_le16(head + at + 6);
	sections = at + COFF_SIZE + load_le16(head + at + 20);
	if (n > PE_SECTIONS_MAX || sections > head_len || n * SECTION_SIZE > head_len - sections)
		return -EINVAL;
	out->machine = load_le16(head + at + 4);
	out->n = (unsigned)n;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = decode_section(&out->section[i], head + sections + i * SECTION_SIZE, size);
	return r;
}
