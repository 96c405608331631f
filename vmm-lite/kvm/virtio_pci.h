/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* virtio_pci.h - a virtio device on the PCI bus (virtio 1.2, 4.1), modern only */
#ifndef VMM_KVM_VIRTIO_PCI_H
#define VMM_KVM_VIRTIO_PCI_H

#include "vmm-lite/kvm/irq.h"
#include "vmm-lite/kvm/pci.h"
#include "vmm-lite/virtio/device.h"

/*
 * Plug @dev (borrowed; not started) into @bus.  Interrupts go out through
 * @irq, doorbells come in through @vm_fd's ioeventfds.  Returns its slot.
 */
int virtio_pci_plug(struct pci_bus *bus, struct virtio_device *dev, struct irq *irq,
		    const struct guest_memory *mem, int vm_fd, struct vdisk_error *err);

/* The configuration of the device in @slot is another now: tell its driver. */
void virtio_pci_config_changed(struct pci_bus *bus, unsigned slot);

#endif
