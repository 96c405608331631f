/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * machine.h - one guest: memory, processors, interrupts, buses, power
 *
 * Made from things that outlive it (RAM, serial port, devices), so that a
 * reboot in place is: free the machine, make it again.
 */
#ifndef VMM_KVM_MACHINE_H
#define VMM_KVM_MACHINE_H

#include "vmm-lite/end.h"
#include "vmm-lite/kvm/load.h"
#include "vmm-lite/kvm/memory.h"
#include "vmm-lite/kvm/serial.h"
#include "vmm-lite/virtio/device.h"

struct machine_config {
	struct ram *ram;			/* borrowed; cleared */
	struct serial *serial;			/* borrowed */
	struct virtio_device *const *devices;	/* borrowed */
	unsigned n_devices;
	struct boot_source boot;
	/*
	 * The guest has given back what was unplugged; by a vCPU's thread, or by
	 * machine_free(), when the device is stopped and not touched any more.
	 */
	void (*unplugged)(void *arg, struct virtio_device *dev);
	void *unplugged_arg;
	/* Called by each vCPU's thread before it enters the guest. */
	void (*confine)(void);
};

struct machine_stats {
	uint64_t exits;			/* to user space: port + memory + other */
	uint64_t port, memory, other;
	uint64_t serial, pci;		/* of port: the serial port's, PCI configuration's */
};

struct machine;

/*
 * -ENODEV, -EACCES: no KVM for us.  -ENOTSUP: KVM, but not one that can run
 * ordinary guests (@force: try anyway).  @passed: its descriptor, if it is open
 * already; else -1.
 */
int kvm_open(int *out, int passed, bool force, struct vdisk_error *err);

int machine_new(struct machine **out, int kvm_fd, const struct machine_config *config,
		struct vdisk_error *err);
/* Start the processors. */
int machine_start(struct machine *m, struct vdisk_error *err);
/* Readable once the guest has ended; borrowed. */
int machine_end_fd(const struct machine *m);
enum vmm_end machine_end(const struct machine *m);
/* One more device, while it runs; the guest is told. */
int machine_plug(struct machine *m, struct virtio_device *dev, struct vdisk_error *err);
/* Ask the guest to give @dev back; config->unplugged tells when it has.  -ENOENT. */
int machine_unplug(struct machine *m, const struct virtio_device *dev, struct vdisk_error *err);
/* @dev's configuration has changed: tell its driver. */
void machine_config_changed(struct machine *m, const struct virtio_device *dev);
/* What a person would do; the guest may do as it likes. */
void machine_power_button(struct machine *m);
/* Stop the processors. */
void machine_stop(struct machine *m);
/* The same, and the devices finish what is in flight. */
void machine_free(struct machine *m);
/* When it is stopped. */
void machine_stats(const struct machine *m, struct machine_stats *out);

#endif
