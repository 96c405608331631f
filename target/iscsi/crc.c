/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crc.c - CRC32C for header and data digests (RFC 7143, 13.1)
 *
 * ISA-L's folding code is an order of magnitude faster than one stream of the
 * processor's crc32 instruction on data, and slower on the 48 bytes of a
 * header, whose length does not repay its set-up; so short runs take the
 * instruction where there is one.
 */
#include <string.h>

#include <isa-l/crc.h>

#include "core/compiler.h"
#include "target/iscsi/pdu.h"

/* ISA-L promises not to write to its argument, but does not say so in C. */
static uint32_t crc_long(uint32_t crc, const void *buf, uint32_t len)
{
	return crc32_iscsi((unsigned char *)(uintptr_t)buf, (int)len, crc);
}

#ifdef __x86_64__
#include <nmmintrin.h>

#define SHORT_RUN 128

__attribute__((target("sse4.2")))
static uint32_t crc_short(uint32_t crc, const uint8_t *p, uint32_t len)
{
	uint64_t wide = crc;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t word;

		memcpy(&word, p, sizeof(word));
		wide = _mm_crc32_u64(wide, word);
	}
	crc = (uint32_t)wide;
	for (; len; p++, len--)
		crc = _mm_crc32_u8(crc, *p);
	return crc;
}

uint32_t iscsi_crc(uint32_t crc, const void *buf, uint32_t len)
{
	if (len <= SHORT_RUN && __builtin_cpu_supports("sse4.2"))
		return ~crc_short(~crc, buf, len);
	return ~crc_long(~crc, buf, len);
}
#else
uint32_t iscsi_crc(uint32_t crc, const void *buf, uint32_t len)
{
	return ~crc_long(~crc, buf, len);
}
#endif
