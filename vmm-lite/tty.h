/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tty.h - the bytes on their way between a guest's console device and the terminal
 *
 * A ring each way.  What the device puts in is taken at once or dropped and
 * counted: a vCPU never waits for the reader.  The device may look at how full
 * the ring is, and have its guest wait where that is possible without spinning.
 */
#ifndef VMM_TTY_H
#define VMM_TTY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TTY_OUT_SIZE	65536u	/* powers of two */
#define TTY_IN_SIZE	1024u

struct tty {
	pthread_mutex_t lock;	/* guards all of it, and the device's own state; held for moments */
	/*
	 * Both are called with the lock held, by whoever caused it, and must not
	 * call back.  There is output where there was none, or room for input
	 * again (NULL: nobody listens):
	 */
	void (*wake)(void *arg);
	void *wake_arg;
	/* Input came, or output went: the device's.  NULL: it does not care. */
	void (*changed)(struct tty *t);
	bool unread;		/* there is no terminal: output is not kept, nor counted */
	bool in_full;		/* input was refused */
	uint64_t lost;		/* bytes of output dropped since last told */
	uint32_t out_head, out_tail, in_head, in_tail;	/* free-running */
	uint8_t out[TTY_OUT_SIZE], in[TTY_IN_SIZE];
};

void tty_init(struct tty *t);
void tty_destroy(struct tty *t);

/* ---- the device's side, with the lock held ---- */

static inline uint32_t tty_out_used(const struct tty *t)
{
	return t->out_head - t->out_tail;
}

static inline uint32_t tty_in_used(const struct tty *t)
{
	return t->in_head - t->in_tail;
}

/* Output; what finds no room is dropped. */
void tty_put(struct tty *t, const uint8_t *data, size_t len);
/* Input that came; how much. */
size_t tty_get(struct tty *t, uint8_t *data, size_t max);
/* As if it had come from the terminal; dropped where there is no room. */
void tty_loop_back(struct tty *t, uint8_t v);
/* Forget the input. */
void tty_clear_input(struct tty *t);

/* ---- the terminal's side ---- */

/* How many bytes were taken. */
size_t tty_input(struct tty *t, const uint8_t *data, size_t len);
size_t tty_room(struct tty *t);
/* Copy out what waits, without taking it away; then say how much got through. */
size_t tty_peek(struct tty *t, uint8_t *data, size_t max);
void tty_consume(struct tty *t, size_t len);
/* Bytes that were lost since the last call. */
uint64_t tty_lost(struct tty *t);

#endif
