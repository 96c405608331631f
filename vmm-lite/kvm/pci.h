/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pci.h - PCI bus 0: configuration space by ports CF8/CFC and in memory, and memory BARs */
#ifndef VMM_KVM_PCI_H
#define VMM_KVM_PCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCI_SLOTS	32
#define PCI_CONFIG_SIZE	256

struct pci_device;

/*
 * What a device adds to its configuration space.  @off, @len: 1, 2 or 4 bytes,
 * inside the BAR or the configuration space.
 */
struct pci_ops {
	/* No bus lock is held. */
	void (*bar_read)(struct pci_device *dev, uint32_t off, void *buf, unsigned len);
	void (*bar_write)(struct pci_device *dev, uint32_t off, const void *buf, unsigned len);
	/* dev->bar_gpa has changed.  Under the bus lock. */
	void (*bar_moved)(struct pci_device *dev);
	/* A configuration access is about to read, or has written; under the bus lock.  NULL ok. */
	void (*config_read)(struct pci_device *dev, unsigned off, unsigned len);
	void (*config_written)(struct pci_device *dev, unsigned off, unsigned len);
	void (*free)(struct pci_device *dev);
};

struct pci_device {
	const struct pci_ops *ops;	/* NULL: configuration space only */
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE];	/* bits that the guest may change */
	uint32_t bar_size;		/* BAR 0, a power of two; 0: none */
	uint64_t bar_gpa;		/* where it is decoded; 0: nowhere */
	unsigned cap_end;		/* first free byte for capabilities */
	unsigned cap_last;		/* the last capability, 0: none */
};

struct pci_bus {
	/* taken first; read: a device is being used, write: one is taken away */
	pthread_rwlock_t in_use;
	pthread_mutex_t lock;		/* guards address, slots, configuration, bar_gpa */
	uint32_t address;		/* as written to CF8 */
	struct pci_device *slot[PCI_SLOTS]; /* owned, but for the bridge */
	struct pci_device bridge;
};

struct pci_id {
	uint16_t vendor, device, sub_vendor, sub_device;
	uint8_t revision;
	uint32_t class_code;		/* 24 bits */
};

void pci_bus_init(struct pci_bus *bus);
/* Frees the devices. */
void pci_bus_destroy(struct pci_bus *bus);

void pci_device_init(struct pci_device *dev, const struct pci_ops *ops, const struct pci_id *id);
/* A 32-bit memory BAR 0 of @size bytes, a power of two. */
void pci_add_bar(struct pci_device *dev, uint32_t size);
/* Returns where the capability is; @len counts its two header bytes. */
unsigned pci_add_capability(struct pci_device *dev, uint8_t id, unsigned len);
/* Into a free slot (its number), with a place for its BAR.  -ENOSPC; takes @dev on success. */
int pci_plug(struct pci_bus *bus, struct pci_device *dev);
/* Free what is in @slot, if anything is.  Not from within a device's own operation. */
void pci_unplug(struct pci_bus *bus, unsigned slot);

/* Ports CF8..CFF; @port counts from CF8. */
void pci_port_read(struct pci_bus *bus, unsigned port, void *buf, unsigned len);
void pci_port_write(struct pci_bus *bus, unsigned port, const void *buf, unsigned len);

/* A memory access: did a BAR claim it, or configuration space (ECAM)? */
bool pci_memory_read(struct pci_bus *bus, uint64_t gpa, void *buf, unsigned len);
bool pci_memory_write(struct pci_bus *bus, uint64_t gpa, const void *buf, unsigned len);

#endif
