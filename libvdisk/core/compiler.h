/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* compiler.h - attributes, ownership, checked arithmetic, byte order */
#ifndef VD_COMPILER_H
#define VD_COMPILER_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRINTF_FMT(fmt, args)	__attribute__((format(printf, fmt, args)))
#define MUST_CHECK		__attribute__((warn_unused_result))
#define UNUSED			__attribute__((unused))
#define NORETURN		__attribute__((noreturn))
#define ALWAYS_INLINE		inline __attribute__((always_inline))
#define FALLTHROUGH		__attribute__((fallthrough))
#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)

#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) \
	((type *)(void *)((char *)(p) - offsetof(type, member)))

#define MIN(a, b) ({ __typeof__(a) vd_a_ = (a); __typeof__(b) vd_b_ = (b); \
		     vd_a_ < vd_b_ ? vd_a_ : vd_b_; })
#define MAX(a, b) ({ __typeof__(a) vd_a_ = (a); __typeof__(b) vd_b_ = (b); \
		     vd_a_ > vd_b_ ? vd_a_ : vd_b_; })

/* ---- ownership: AUTO_* declares the owner, STEAL hands it over ---- */

static inline void vd_auto_free(void *p)
{
	free(*(void **)p);
}

static inline void vd_auto_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define AUTO_FREE	__attribute__((cleanup(vd_auto_free)))
#define AUTO_CLOSE	__attribute__((cleanup(vd_auto_close)))
#define STEAL(p)	({ __typeof__(p) *vd_p_ = &(p); __typeof__(p) vd_v_ = *vd_p_; \
			   *vd_p_ = NULL; vd_v_; })
#define STEAL_FD(fd)	({ int *vd_p_ = &(fd), vd_v_ = *vd_p_; *vd_p_ = -1; vd_v_; })

/* ---- arithmetic on values from outside ---- */

/* Does [off, off+len) lie in [0, size)?  Never overflows. */
static inline bool vd_in_range(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

/* The value of a hexadecimal digit, or -1. */
static inline int vd_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* false on overflow */
#define vd_add(a, b, out)	(!__builtin_add_overflow(a, b, out))
#define vd_mul(a, b, out)	(!__builtin_mul_overflow(a, b, out))

/* @unit is a power of two; the caller knows that @v + unit does not overflow. */
static inline uint64_t vd_align_down(uint64_t v, uint64_t unit)
{
	return v & ~(unit - 1);
}

static inline uint64_t vd_align_up(uint64_t v, uint64_t unit)
{
	return (v + unit - 1) & ~(unit - 1);
}

/* How many @unit it takes for @v. */
static inline uint64_t vd_div_up(uint64_t v, uint64_t unit)
{
	return v / unit + (v % unit != 0);
}

static inline bool vd_is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* ---- bytes from outside: never a cast to a struct ---- */

#define VD_LOAD_STORE(bits) \
static inline uint##bits##_t load_be##bits(const void *p) \
{ uint##bits##_t v; memcpy(&v, p, sizeof(v)); return be##bits##toh(v); } \
static inline uint##bits##_t load_le##bits(const void *p) \
{ uint##bits##_t v; memcpy(&v, p, sizeof(v)); return le##bits##toh(v); } \
static inline void store_be##bits(void *p, uint##bits##_t v) \
{ v = htobe##bits(v); memcpy(p, &v, sizeof(v)); } \
static inline void store_le##bits(void *p, uint##bits##_t v) \
{ v = htole##bits(v); memcpy(p, &v, sizeof(v)); }
VD_LOAD_STORE(16)
VD_LOAD_STORE(32)
VD_LOAD_STORE(64)

static inline uint32_t load_be24(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2];
}

static inline void store_be24(void *p, uint32_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)(v >> 16);
	b[1] = (uint8_t)(v >> 8);
	b[2] = (uint8_t)v;
}

/* Is this built with AddressSanitizer, which makes system calls of its own? */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
