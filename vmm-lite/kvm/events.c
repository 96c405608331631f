/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* events.c - what happens to a running machine, as its ACPI code asks for it */
#include "vmm-lite/kvm/events.h"

#include <string.h>

#include "core/compiler.h"
#include "vmm-lite/kvm/layout.h"

enum { HAPPENED = 0, PLUGGED = 4, WANTED_BACK = 8, EJECT = 12 };

void events_init(struct events *e, struct irq *irq, void (*ejected)(void *arg, unsigned slot),
		 void *arg)
{
	*e = (struct events) { .irq = irq, .ejected = ejected, .arg = arg };
	pthread_mutex_init(&e->lock, NULL);
}

void events_destroy(struct events *e)
{
	pthread_mutex_destroy(&e->lock);
}

static void happen(struct events *e, uint32_t what, uint32_t *slots, unsigned slot)
{
	pthread_mutex_lock(&e->lock);
	e->happened |= what;
	if (slots)
		*slots |= UINT32_C(1) << slot;
	pthread_mutex_unlock(&e->lock);
	/* an edge */
	irq_line(e->irq, GSI_EVENTS, true);
	irq_line(e->irq, GSI_EVENTS, false);
}

void events_power_button(struct events *e)
{
	happen(e, EVENT_POWER_BUTTON, NULL, 0);
}

void events_plugged(struct events *e, unsigned slot)
{
	happen(e, EVENT_PCI, &e->plugged, slot);
}

void events_want_back(struct events *e, unsigned slot)
{
	happen(e, EVENT_PCI, &e->wanted_back, slot);
}

void events_read(struct events *e, unsigned off, uint8_t *buf, unsigned len)
{
	uint32_t *reg = off == HAPPENED ? &e->happened : off == PLUGGED ? &e->plugged :
			off == WANTED_BACK ? &e->wanted_back : NULL;

	memset(buf, 0, len);
	if (!reg || len != 4)
		return;
	pthread_mutex_lock(&e->lock);
	store_le32(buf, *reg);
	*reg = 0;
	pthread_mutex_unlock(&e->lock);
}

void events_write(struct events *e, unsigned off, const uint8_t *buf, unsigned len)
{
	uint32_t slots;

	if (off != EJECT || len != 4)
		return;
	slots = load_le32(buf);
	for (unsigned i = 0; i < 32; i++)
		if (slots >> i & 1)
			e->ejected(e->arg, i);
}
