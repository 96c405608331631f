/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* serial.h - a 16550A; knows neither KVM nor the terminal */
#ifndef VMM_KVM_SERIAL_H
#define VMM_KVM_SERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIAL_OUT_SIZE	65536u	/* powers of two */
#define SERIAL_IN_SIZE	1024u

/* Both are called with the lock held, by whoever caused it; they must not call back. */
struct serial_host {
	void (*interrupt)(void *arg, bool level);
	/* There is output where there was none, or room for input again. */
	void (*wake)(void *arg);
	void *arg;
};

struct serial {
	pthread_mutex_t lock;	/* guards all of it; held for moments only */
	struct serial_host host;
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo;
	bool thri;		/* the "transmitter empty" interrupt is pending */
	bool thri_held;		/* ... is due, but the reader is behind */
	bool level;		/* of the interrupt line */
	bool in_full;		/* input was refused */
	uint64_t lost;		/* bytes of output dropped since last told */
	uint32_t out_head, out_tail, in_head, in_tail;	/* free-running */
	uint8_t out[SERIAL_OUT_SIZE], in[SERIAL_IN_SIZE];
};

/* Connected to nothing. */
void serial_init(struct serial *s);
void serial_destroy(struct serial *s);
/* A machine's from now on, as after power-on; but what is on its way out stays. */
void serial_attach(struct serial *s, const struct serial_host *host);
void serial_detach(struct serial *s);

/* The guest's side; @reg is 0..7. */
uint8_t serial_read(struct serial *s, unsigned reg);
void serial_write(struct serial *s, unsigned reg, uint8_t v);

/* The terminal's side.  How many bytes were taken. */
size_t serial_input(struct serial *s, const uint8_t *data, size_t len);
size_t serial_room(struct serial *s);
/* Copy out what waits, without taking it away; then say how much got through. */
size_t serial_peek(struct serial *s, uint8_t *data, size_t max);
void serial_consume(struct serial *s, size_t len);
/* Bytes that were lost since the last call. */
uint64_t serial_lost(struct serial *s);

#endif
