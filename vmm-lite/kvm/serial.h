/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* serial.h - a 16550A; knows neither KVM nor the terminal */
#ifndef VMM_KVM_SERIAL_H
#define VMM_KVM_SERIAL_H

#include "vmm-lite/tty.h"

/* Called with the lock held, by whoever caused it; it must not call back. */
struct serial_host {
	void (*interrupt)(void *arg, bool level);
	void *arg;
};

struct serial {
	struct tty tty;		/* the terminal's side; its lock guards all of it */
	struct serial_host host;
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo;
	bool thri;		/* the "transmitter empty" interrupt is pending */
	bool thri_held;		/* ... is due, but the reader is behind */
	bool level;		/* of the interrupt line */
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

#endif
