/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* arena.c - see arena.h */
#include "guest/arena.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#define CHUNK_SIZE 65536u

struct arena_chunk {
	struct arena_chunk *next;
	void *slot;		/* owned: see arena_slot() */
	size_t used, size;
	_Alignas(max_align_t) unsigned char data[];
};

void arena_init(struct arena *a, size_t limit)
{
	*a = (struct arena) { .limit = limit };
}

void arena_free(struct arena *a)
{
	struct arena_chunk *c, *next;

	for (c = a->chunks; c; c = next) {
		next = c->next;
		free(c->slot);
		free(c);
	}
	a->chunks = NULL;
}

int arena_run(struct arena *a, void (*fn)(void *arg), void *arg)
{
	jmp_buf here, *outer = a->out;
	int r = 0;

	a->out = &here;
	a->error = 0;
	if (setjmp(here) == 0)
		fn(arg);
	else
		r = a->error;
	a->out = outer;
	return r;
}

void arena_stop(struct arena *a, int error)
{
	a->error = error;
	longjmp(*a->out, 1);
}

static struct arena_chunk *new_chunk(struct arena *a, size_t size)
{
	struct arena_chunk *c;

	if (size > a->limit)
		arena_stop(a, -E2BIG);
	c = calloc(1, sizeof(*c) + size);
	if (!c)
		arena_stop(a, -ENOMEM);
	a->limit -= size;
	c->size = size;
	c->next = a->chunks;
	a->chunks = c;
	return c;
}

void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_chunk *c = a->chunks;
	void *p;

	if (size > a->limit)
		arena_stop(a, -E2BIG);
	size = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	if (!c || size > c->size - c->used) {
		size_t usual = MIN((size_t)CHUNK_SIZE, a->limit);

		c = new_chunk(a, MAX(size, usual));
	}
	p = c->data + c->used;
	c->used += size;
	return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
	size_t bytes;

	if (!vd_mul(n, size, &bytes))
		arena_stop(a, -E2BIG);
	return arena_alloc(a, bytes);
}

char *arena_strndup(struct arena *a, const char *s, size_t len)
{
	char *copy = arena_alloc(a, len + 1);

	memcpy(copy, s, len);
	return copy;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	char *text;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (len < 0)
		arena_stop(a, -EINVAL);
	text = arena_alloc(a, (size_t)len + 1);
	va_start(ap, fmt);
	vsnprintf(text, (size_t)len + 1, fmt, ap);
	va_end(ap);
	return text;
}

void **arena_slot(struct arena *a)
{
	/* a chunk of its own, with room for nothing, behind the one in use */
	struct arena_chunk *first = a->chunks, *c = new_chunk(a, 0);

	if (first) {
		a->chunks = first;
		c->next = first->next;
		first->next = c;
	}
	return &c->slot;
}
