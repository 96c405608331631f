/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * arena.h - memory for one evaluation of somebody else's text
 *
 * Everything is freed at once.  Asking for more than the limit, or more than
 * there is, ends the evaluation: arena_stop() jumps back to arena_run(), so
 * that the evaluators have one way out instead of a check at each string.
 * Between the two, nothing may be held that is not in the arena.
 */
#ifndef VD_GUEST_ARENA_H
#define VD_GUEST_ARENA_H

#include <setjmp.h>

#include "core/compiler.h"

struct arena {
	struct arena_chunk *chunks;	/* owned; the first one is being filled */
	size_t limit;			/* bytes still allowed */
	jmp_buf *out;			/* of the innermost arena_run() */
	int error;			/* why it stopped: -errno */
};

void arena_init(struct arena *a, size_t limit);
void arena_free(struct arena *a);

/* Call fn(arg).  0, or the -errno of the arena_stop() that ended it. */
int arena_run(struct arena *a, void (*fn)(void *arg), void *arg);
NORETURN void arena_stop(struct arena *a, int error);

/* Zeroed memory. */
void *arena_alloc(struct arena *a, size_t size);
void *arena_array(struct arena *a, size_t n, size_t size);
char *arena_strndup(struct arena *a, const char *s, size_t len);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_FMT(2, 3);
/* A place for a malloc()ed pointer that the arena will free; NULL until set. */
void **arena_slot(struct arena *a);

/* A vector that grows: room for one more behind the @n there are. */
#define arena_grow(a, vec, n, cap) do {						\
	if ((n) == (cap)) {							\
		size_t vd_cap_ = (cap) ? 2 * (size_t)(cap) : 8;			\
		__typeof__(vec) vd_new_ = arena_array((a), vd_cap_, sizeof(*(vec))); \
		if (n)								\
			memcpy(vd_new_, (vec), (n) * sizeof(*(vec)));		\
		(vec) = vd_new_;						\
		(cap) = (__typeof__(cap))vd_cap_;				\
	}									\
} while (0)

#endif
