/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pci.c - PCI bus 0: configuration space by ports CF8/CFC and in memory, and memory BARs
 *
 * Configuration space is bytes and a mask of writable bits, so sizing a BAR
 * (write ones, read back) needs no code.  BARs are placed before the guest
 * starts, as firmware would; a guest that moves one is followed.
 *
 * A device found under the lock may be used without it, as long as ->in_use is
 * held for reading: a device is unplugged with it held for writing.
 */
#include "vmm-lite/kvm/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "core/compiler.h"
#include "vmm-lite/kvm/layout.h"

#define ADDRESS_ENABLE	0x80000000u

void pci_device_init(struct pci_device *dev, const struct pci_ops *ops, const struct pci_id *id)
{
	dev->ops = ops;
	store_le16(dev->config + PCI_VENDOR_ID, id->vendor);
	store_le16(dev->config + PCI_DEVICE_ID, id->device);
	dev->config[PCI_REVISION_ID] = id->revision;
	store_le16(dev->config + PCI_CLASS_PROG, (uint16_t)id->class_code);
	dev->config[PCI_CLASS_DEVICE + 1] = (uint8_t)(id->class_code >> 16);
	store_le16(dev->config + PCI_SUBSYSTEM_VENDOR_ID, id->sub_vendor);
	store_le16(dev->config + PCI_SUBSYSTEM_ID, id->sub_device);
	store_le16(dev->writable + PCI_COMMAND,
		   PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	dev->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	dev->writable[PCI_INTERRUPT_LINE] = 0xff;
	dev->cap_end = 0x40;
}

void pci_add_bar(struct pci_device *dev, uint32_t size)
{
	dev->bar_size = size;
	store_le32(dev->writable + PCI_BASE_ADDRESS_0, ~(size - 1));
}

unsigned pci_add_capability(struct pci_device *dev, uint8_t id, unsigned len)
{
	unsigned at = dev->cap_end;

	dev->config[at] = id;
	if (dev->cap_last)
		dev->config[dev->cap_last + 1] = (uint8_t)at;
	else
		dev->config[PCI_CAPABILITY_LIST] = (uint8_t)at;
	store_le16(dev->config + PCI_STATUS, PCI_STATUS_CAP_LIST);
	dev->cap_last = at;
	dev->cap_end = (at + len + 3) & ~3u;
	return at;
}

/* Where BAR 0 is decoded now. */
static uint64_t decoded(const struct pci_device *dev)
{
	if (!dev->bar_size || !(dev->config[PCI_COMMAND] & PCI_COMMAND_MEMORY))
		return 0;
	return load_le32(dev->config + PCI_BASE_ADDRESS_0) & ~(uint64_t)(dev->bar_size - 1);
}

static void update_bar(struct pci_device *dev)
{
	uint64_t now = decoded(dev);

	if (now == dev->bar_gpa)
		return;
	dev->bar_gpa = now;
	dev->ops->bar_moved(dev);
}

/* Does some device's BAR, decoded or not, touch [at, at + size)? */
static bool taken(const struct pci_bus *bus, uint64_t at, uint64_t size, uint64_t *end)
{
	for (unsigned i = 1; i < PCI_SLOTS; i++) {
		const struct pci_device *d = bus->slot[i];
		uint64_t start = d ? load_le32(d->config + PCI_BASE_ADDRESS_0) & ~UINT32_C(15) : 0;

		if (d && d->bar_size && at < start + d->bar_size && start < at + size) {
			*end = start + d->bar_size;
			return true;
		}
	}
	return false;
}

/* A place in the window for a BAR; 0: there is none. */
static uint32_t place_bar(const struct pci_bus *bus, uint32_t size)
{
	uint64_t at = GUEST_PCI_WINDOW, end;

	while (taken(bus, at, size, &end))
		at = vd_align_up(end, size);
	return vd_in_range(at - GUEST_PCI_WINDOW, size, GUEST_PCI_WINDOW_SIZE) ? (uint32_t)at : 0;
}

int pci_plug(struct pci_bus *bus, struct pci_device *dev)
{
	unsigned slot = 0;
	int r = -ENOSPC;

	pthread_mutex_lock(&bus->lock);
	while (slot < PCI_SLOTS && bus->slot[slot])
		slot++;
	if (slot < PCI_SLOTS) {
		uint32_t at = dev->bar_size ? place_bar(bus, dev->bar_size) : 0;

		if (at)
			store_le32(dev->config + PCI_BASE_ADDRESS_0, at);
		if (at || !dev->bar_size) {
			bus->slot[slot] = dev;
			r = (int)slot;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return r;
}

void pci_unplug(struct pci_bus *bus, unsigned slot)
{
	struct pci_device *dev;

	pthread_rwlock_wrlock(&bus->in_use);
	pthread_mutex_lock(&bus->lock);
	dev = slot && slot < PCI_SLOTS ? bus->slot[slot] : NULL;
	if (dev && dev->bar_gpa) {
		dev->bar_gpa = 0;
		dev->ops->bar_moved(dev);
	}
	if (dev)
		bus->slot[slot] = NULL;
	pthread_mutex_unlock(&bus->lock);
	pthread_rwlock_unlock(&bus->in_use);
	if (dev)
		dev->ops->free(dev);
}

void pci_bus_init(struct pci_bus *bus)
{
	static const struct pci_id bridge = {
		.vendor = 0x1b36, .device = 0x0008, .sub_vendor = 0x1af4, .sub_device = 0x1100,
		.class_code = 0x060000,
	};

	memset(bus, 0, sizeof(*bus));
	pthread_mutex_init(&bus->lock, NULL);
	pthread_rwlock_init(&bus->in_use, NULL);
	pci_device_init(&bus->bridge, NULL, &bridge);
	bus->slot[0] = &bus->bridge;
}

void pci_bus_destroy(struct pci_bus *bus)
{
	for (unsigned i = 1; i < PCI_SLOTS; i++)
		if (bus->slot[i])
			bus->slot[i]->ops->free(bus->slot[i]);
	pthread_mutex_destroy(&bus->lock);
	pthread_rwlock_destroy(&bus->in_use);
}

/* The device that CF8 selects, and the register; NULL if there is none. */
static struct pci_device *selected(struct pci_bus *bus, unsigned port, unsigned *off)
{
	uint32_t a = bus->address;

	*off = (a & 0xfc) + (port - 4);
	if (!(a & ADDRESS_ENABLE) || a & 0x00ff0700)	/* bus 0, function 0 */
		return NULL;
	return bus->slot[a >> 11 & 31];
}

static void config_read(struct pci_device *dev, unsigned off, uint8_t *buf, unsigned len)
{
	if (dev->ops && dev->ops->config_read)
		dev->ops->config_read(dev, off, len);
	memcpy(buf, dev->config + off, len);
}

static void config_write(struct pci_device *dev, unsigned off, const uint8_t *buf, unsigned len)
{
	for (unsigned i = 0; i < len; i++) {
		uint8_t mask = dev->writable[off + i], *c = &dev->config[off + i];

		*c = (uint8_t)((*c & ~mask) | (buf[i] & mask));
	}
	if (!dev->ops)
		return;
	update_bar(dev);
	if (dev->ops->config_written)
		dev->ops->config_written(dev, off, len);
}

void pci_port_read(struct pci_bus *bus, unsigned port, void *buf, unsigned len)
{
	struct pci_device *dev;
	unsigned off;

	memset(buf, 0xff, len);
	pthread_mutex_lock(&bus->lock);
	if (port == 0 && len == 4) {
		store_le32(buf, bus->address);
	} else if (port >= 4 && port + len <= 8) {
		dev = selected(bus, port, &off);
		if (dev)
			config_read(dev, off, buf, len);
	}
	pthread_mutex_unlock(&bus->lock);
}

void pci_port_write(struct pci_bus *bus, unsigned port, const void *buf, unsigned len)
{
	struct pci_device *dev;
	unsigned off;

	pthread_mutex_lock(&bus->lock);
	if (port == 0 && len == 4) {
		bus->address = load_le32(buf);
	} else if (port >= 4 && port + len <= 8) {
		dev = selected(bus, port, &off);
		if (dev)
			config_write(dev, off, buf, len);
	}
	pthread_mutex_unlock(&bus->lock);
}

/* Enhanced configuration access (PCI Express 7.2.2): the function whose register @gpa is.
 * Nothing has more than the 256 bytes of conventional PCI.  NULL if there is none. */
static struct pci_device *enhanced(struct pci_bus *bus, uint64_t gpa, unsigned len, unsigned *off)
{
	uint32_t a = (uint32_t)(gpa - GUEST_ECAM);

	*off = a & 0xfff;
	if (a >> 12 & 7 || len > 4 || !vd_in_range(*off, len, PCI_CONFIG_SIZE))
		return NULL;
	return bus->slot[a >> 15 & 31];
}

static bool is_enhanced(uint64_t gpa, unsigned len)
{
	return gpa >= GUEST_ECAM && vd_in_range(gpa - GUEST_ECAM, len, GUEST_ECAM_SIZE);
}

static void enhanced_read(struct pci_bus *bus, uint64_t gpa, void *buf, unsigned len)
{
	struct pci_device *dev;
	unsigned off;

	memset(buf, 0xff, len);
	pthread_mutex_lock(&bus->lock);
	dev = enhanced(bus, gpa, len, &off);
	if (dev)
		config_read(dev, off, buf, len);
	pthread_mutex_unlock(&bus->lock);
}

static void enhanced_write(struct pci_bus *bus, uint64_t gpa, const void *buf, unsigned len)
{
	struct pci_device *dev;
	unsigned off;

	pthread_mutex_lock(&bus->lock);
	dev = enhanced(bus, gpa, len, &off);
	if (dev)
		config_write(dev, off, buf, len);
	pthread_mutex_unlock(&bus->lock);
}

static struct pci_device *find_bar(struct pci_bus *bus, uint64_t gpa, unsigned len, uint32_t *off)
{
	struct pci_device *found = NULL;

	pthread_mutex_lock(&bus->lock);
	for (unsigned i = 1; i < PCI_SLOTS && !found; i++) {
		struct pci_device *dev = bus->slot[i];

		if (dev && dev->bar_gpa && gpa >= dev->bar_gpa &&
		    vd_in_range(gpa - dev->bar_gpa, len, dev->bar_size)) {
			*off = (uint32_t)(gpa - dev->bar_gpa);
			found = dev;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return found;
}

bool pci_memory_read(struct pci_bus *bus, uint64_t gpa, void *buf, unsigned len)
{
	struct pci_device *dev;
	uint32_t off;

	if (is_enhanced(gpa, len)) {
		enhanced_read(bus, gpa, buf, len);
		return true;
	}
	pthread_rwlock_rdlock(&bus->in_use);
	dev = find_bar(bus, gpa, len, &off);
	if (dev)
		dev->ops->bar_read(dev, off, buf, len);
	pthread_rwlock_unlock(&bus->in_use);
	return dev;
}

bool pci_memory_write(struct pci_bus *bus, uint64_t gpa, const void *buf, unsigned len)
{
	struct pci_device *dev;
	uint32_t off;

	if (is_enhanced(gpa, len)) {
		enhanced_write(bus, gpa, buf, len);
		return true;
	}
	pthread_rwlock_rdlock(&bus->in_use);
	dev = find_bar(bus, gpa, len, &off);
	if (dev)
		dev->ops->bar_write(dev, off, buf, len);
	pthread_rwlock_unlock(&bus->in_use);
	return dev;
}
