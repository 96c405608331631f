/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * events.h - what happens to a running machine, as its ACPI code asks for it
 *
 * Four 32-bit registers at PORT_EVENTS; the generic event device (ACPI 6.4,
 * 5.6.9) of the DSDT reads them when its interrupt comes:
 *
 *	+0	what happened; reading clears	EVENT_POWER_BUTTON, EVENT_PCI
 *	+4	slots that something was put into; reading clears
 *	+8	slots that shall be given back; reading clears
 *	+12	written: this slot (a bit) is not used any more, its device may go
 */
#ifndef VMM_KVM_EVENTS_H
#define VMM_KVM_EVENTS_H

#include <pthread.h>
#include <stdint.h>

#include "vmm-lite/kvm/irq.h"

#define EVENT_POWER_BUTTON	1u
#define EVENT_PCI		2u

struct events {
	pthread_mutex_t lock;	/* guards the registers */
	struct irq *irq;	/* borrowed */
	uint32_t happened, plugged, wanted_back;
	/* A slot is given back; by a vCPU's thread, no lock held. */
	void (*ejected)(void *arg, unsigned slot);
	void *arg;
};

void events_init(struct events *e, struct irq *irq, void (*ejected)(void *arg, unsigned slot),
		 void *arg);
void events_destroy(struct events *e);

/* Any thread. */
void events_power_button(struct events *e);
void events_plugged(struct events *e, unsigned slot);
void events_want_back(struct events *e, unsigned slot);

/* The guest's side; @off is 0..15. */
void events_read(struct events *e, unsigned off, uint8_t *buf, unsigned len);
void events_write(struct events *e, unsigned off, const uint8_t *buf, unsigned len);

#endif
