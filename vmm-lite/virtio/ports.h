/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ports.h - a virtio console (virtio 1.2, 5.3) of named ports on which a guest writes
 *
 * In a Linux guest they are /dev/virtio-ports/NAME (udev), or /dev/vportNpM.  What is
 * written there goes to a descriptor, as fast as that takes it.
 */
#ifndef VMM_VIRTIO_PORTS_H
#define VMM_VIRTIO_PORTS_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"

#define PORTS_MAX	4u
#define PORT_NAME_MAX	31u

struct port_option {
	const char *name;	/* borrowed for as long as the device is */
	int fd;			/* borrowed; it need not be non-blocking */
};

/* @confine is called by the device's thread as it starts; NULL ok. */
int ports_new(struct virtio_device **out, const struct port_option *port, unsigned n,
	      void (*confine)(void), struct vdisk_error *err);

#endif
