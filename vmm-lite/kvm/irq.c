/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * irq.c - which interrupt line leads where: IO-APIC pins and messages (MSI)
 *
 * KVM takes its routing table only as a whole.  Global interrupts 0..23 are
 * the IO-APIC's pins; from 24 on each is one message, fired by writing an
 * eventfd that KVM watches (irqfd), so that a device's thread needs no access
 * to the VM.
 */
#include "vmm-lite/kvm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/kvm/layout.h"
#include "vmm-lite/log.h"

static int set_routes(struct irq *irq)
{
	AUTO_FREE struct kvm_irq_routing *t = NULL;
	unsigned n = 0;

	t = calloc(1, sizeof(*t) + (GSI_MSI_FIRST + irq->n_msi) * sizeof(t->entries[0]));
	if (!t)
		return -ENOMEM;
	for (; n < GSI_MSI_FIRST; n++)
		t->entries[n] = (struct kvm_irq_routing_entry) {
			.gsi = n, .type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = n },
		};
	for (unsigned i = 0; i < irq->n_msi; i++) {
		const struct irq_msi *m = &irq->msi[i];

		if (!m->routed)
			continue;
		t->entries[n++] = (struct kvm_irq_routing_entry) {
			.gsi = GSI_MSI_FIRST + i, .type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { .address_lo = (uint32_t)m->address,
				   .address_hi = (uint32_t)(m->address >> 32), .data = m->data },
		};
	}
	t->nr = n;
	return ioctl(irq->vm_fd, KVM_SET_GSI_ROUTING, t) < 0 ? -errno : 0;
}

int irq_init(struct irq *irq, int vm_fd, struct vdisk_error *err)
{
	int r;

	memset(irq, 0, sizeof(*irq));
	irq->vm_fd = vm_fd;
	pthread_mutex_init(&irq->lock, NULL);
	r = set_routes(irq);
	if (r < 0) {
		pthread_mutex_destroy(&irq->lock);
		return vd_fail(err, -r, "KVM_SET_GSI_ROUTING: %s", strerror(-r));
	}
	return 0;
}

void irq_destroy(struct irq *irq)
{
	for (unsigned i = 0; i < irq->n_msi; i++)
		if (irq->msi[i].used)
			close(irq->msi[i].fd);
	pthread_mutex_destroy(&irq->lock);
}

int irq_msi_new(struct irq *irq)
{
	unsigned i = 0;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	pthread_mutex_lock(&irq->lock);
	while (i < irq->n_msi && irq->msi[i].used)
		i++;
	if (i < MSI_MAX) {
		irq->msi[i] = (struct irq_msi) { .fd = fd, .used = true };
		irq->n_msi = MAX(irq->n_msi, i + 1);
	}
	pthread_mutex_unlock(&irq->lock);
	if (i < MSI_MAX)
		return (int)i;
	close(fd);
	return -ENOSPC;
}

static int watch_eventfd(struct irq *irq, unsigned msi, bool on)
{
	struct kvm_irqfd f = {
		.fd = (uint32_t)irq->msi[msi].fd, .gsi = GSI_MSI_FIRST + msi,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return ioctl(irq->vm_fd, KVM_IRQFD, &f) < 0 ? -errno : 0;
}

void irq_msi_free(struct irq *irq, unsigned msi)
{
	struct irq_msi *m = &irq->msi[msi];

	pthread_mutex_lock(&irq->lock);
	if (m->routed) {
		m->routed = false;
		(void)watch_eventfd(irq, msi, false);
		(void)set_routes(irq);
	}
	close(m->fd);
	*m = (struct irq_msi) { .fd = -1 };
	pthread_mutex_unlock(&irq->lock);
}

int irq_msi_route(struct irq *irq, unsigned msi, uint64_t address, uint32_t data)
{
	struct irq_msi *m = &irq->msi[msi];
	bool first;
	int r = 0;

	pthread_mutex_lock(&irq->lock);
	first = !m->routed;
	if (first || m->address != address || m->data != data) {
		m->address = address;
		m->data = data;
		m->routed = true;
		r = set_routes(irq);
		if (!r && first)
			r = watch_eventfd(irq, msi, true);
	}
	pthread_mutex_unlock(&irq->lock);
	return r;
}

void irq_msi_fire(struct irq *irq, unsigned msi)
{
	uint64_t one = 1;

	/* EAGAIN: so many are pending that one more makes no difference */
	if (write(irq->msi[msi].fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warnx("interrupt %u: %m", msi);
}

void irq_line(struct irq *irq, unsigned gsi, bool level)
{
	struct kvm_irq_level l = { .irq = gsi, .level = level };

	if (ioctl(irq->vm_fd, KVM_IRQ_LINE, &l) < 0)
		log_warnx("interrupt line %u: %m", gsi);
}
