/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* irq.h - which interrupt line leads where: IO-APIC pins and messages (MSI) */
#ifndef VMM_KVM_IRQ_H
#define VMM_KVM_IRQ_H

#include <pthread.h>
#include <stdint.h>

#include "vdisk.h"

#define MSI_MAX	512u

struct irq_msi {
	int fd;			/* owned: a write to this eventfd is an interrupt */
	uint64_t address;
	uint32_t data;
	bool routed, used;
};

struct irq {
	pthread_mutex_t lock;	/* guards the routes */
	int vm_fd;		/* borrowed */
	unsigned n_msi;
	struct irq_msi msi[MSI_MAX];
};

int irq_init(struct irq *irq, int vm_fd, struct vdisk_error *err);
void irq_destroy(struct irq *irq);

/* A new message interrupt, leading nowhere yet; its number, or -errno. */
int irq_msi_new(struct irq *irq);
/* It is not needed any more; nobody fires it. */
void irq_msi_free(struct irq *irq, unsigned msi);
/* Lead it to @address/@data (PCI 3.0, 6.8); 0 or -errno. */
int irq_msi_route(struct irq *irq, unsigned msi, uint64_t address, uint32_t data);
void irq_msi_fire(struct irq *irq, unsigned msi);

/* Drive an IO-APIC pin. */
void irq_line(struct irq *irq, unsigned gsi, bool level);

#endif
