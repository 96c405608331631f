/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that pokes about in PCI configuration space and in the registers of
 * an entropy device, a balloon and a console, which its queues then lead into its memory.
 *
 * Eight bytes an access: what (bits 0-1: port read, port write, memory read,
 * memory write), its length, where, and the data.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/compiler.h"
#include "vmm-lite/kvm/layout.h"
#include "vmm-lite/kvm/virtio_pci.h"
#include "vmm-lite/virtio/balloon.h"
#include "vmm-lite/virtio/console.h"
#include "vmm-lite/virtio/rng.h"

#define MEMORY	0x10000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- no KVM: interrupts that go nowhere ---- */

static unsigned messages;

int irq_msi_new(struct irq *irq)
{
	(void)irq;
	return (int)messages++;
}

void irq_msi_free(struct irq *irq, unsigned msi)
{
	(void)irq;
	assert(msi < messages);
}

int irq_msi_route(struct irq *irq, unsigned msi, uint64_t address, uint32_t value)
{
	(void)irq, (void)address, (void)value;
	assert(msi < messages);
	return 0;
}

void irq_msi_fire(struct irq *irq, unsigned msi)
{
	(void)irq;
	assert(msi < messages);
}

static uint8_t memory[MEMORY];

static void give_back(void *arg, void *host, uint64_t len)
{
	(void)arg;
	assert((uint8_t *)host >= memory && len <= MEMORY &&
	       (size_t)((uint8_t *)host - memory) <= MEMORY - len);
	memset(host, 0, len);
}

static void access_one(struct pci_bus *bus, const uint8_t *a)
{
	unsigned len = 1u << (a[1] & 3);
	uint16_t where = load_le16(a + 2);
	uint8_t buf[8] = { 0 };

	memcpy(buf, a + 4, 4);
	memcpy(buf + 4, a + 4, 4);
	switch (a[0] & 3) {
	case 0:
		pci_port_read(bus, where & 7, buf, MIN(len, 4u));
		break;
	case 1:
		/* mostly a register that there is */
		if (!(where & 0xf000) && !(where & 7)) {
			store_le32(buf, 0x80000000u | (load_le32(buf) & 0x18fc));
			len = 4;
		}
		pci_port_write(bus, where & 7, buf, MIN(len, 4u));
		break;
	case 2:
		pci_memory_read(bus, GUEST_PCI_WINDOW + where, buf, len);
		break;
	case 3:
		pci_memory_write(bus, GUEST_PCI_WINDOW + where, buf, len);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_memory map = {
		.n = 1, .region = { { .size = MEMORY, .host = memory } },
	};
	static struct pci_bus bus;
	struct virtio_device *dev[3];
	int slot[3];

	messages = 0;
	memset(memory, 0, sizeof(memory));
	if (size > 512) {		/* what the queues hold */
		memcpy(memory, data, 512);
		data += 512;
		size -= 512;
	}
	pci_bus_init(&bus);
	if (rng_new(&dev[0], NULL) || balloon_new(&dev[1], give_back, NULL, NULL) ||
	    vconsole_new(&dev[2], NULL))
		abort();
	for (int i = 0; i < 3; i++) {
		slot[i] = virtio_pci_plug(&bus, dev[i], NULL, &map, -1, NULL);
		assert(slot[i] > 0);
	}
	for (; size >= 8; data += 8, size -= 8) {
		access_one(&bus, data);
		tty_input(vconsole_tty(dev[2]), data, data[1] >> 5);	/* somebody types */
		tty_consume(vconsole_tty(dev[2]), data[1]);
	}
	vconsole_resize(dev[2], 80, 25);
	virtio_pci_config_changed(&bus, (unsigned)slot[2]);
	virtio_pci_config_changed(&bus, (unsigned)slot[1]);
	pci_unplug(&bus, (unsigned)slot[0]);
	pci_bus_destroy(&bus);
	for (int i = 0; i < 3; i++)
		dev[i]->ops->free(dev[i]);
	return 0;
}
