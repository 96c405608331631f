/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* console.h - a virtio console with one port */
#ifndef VMM_VIRTIO_CONSOLE_H
#define VMM_VIRTIO_CONSOLE_H

#include "vdisk.h"
#include "vmm-lite/tty.h"
#include "vmm-lite/virtio/device.h"

int vconsole_new(struct virtio_device **out, struct vdisk_error *err);
/* What the terminal reads and writes; the device's. */
struct tty *vconsole_tty(struct virtio_device *dev);
/*
 * The terminal's size, in characters (0, 0: not known).  True if that is
 * news: the transport then tells the driver that the configuration changed.
 */
bool vconsole_resize(struct virtio_device *dev, uint16_t columns, uint16_t rows);

#endif
