/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rng.h - a virtio entropy device (virtio 1.2, 5.4), from the host's getrandom() */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"

int rng_new(struct virtio_device **out, struct vdisk_error *err);

#endif
