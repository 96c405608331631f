/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* balloon.h - a virtio memory balloon (virtio 1.2, 5.5) that gives free pages back */
#ifndef VMM_VIRTIO_BALLOON_H
#define VMM_VIRTIO_BALLOON_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"

/*
 * What the guest puts into the balloon, or reports as free, is given back to
 * the host.  @give_back: [@host, @host + @len) is not needed; called under the
 * transport's lock.
 */
int balloon_new(struct virtio_device **out, void (*give_back)(void *arg, void *host, uint64_t len),
		void *arg, struct vdisk_error *err);

/* How much of its memory the guest shall do without; then tell it of the change. */
void balloon_set(struct virtio_device *dev, uint64_t bytes);
/* ... and does. */
uint64_t balloon_actual(struct virtio_device *dev);

#endif
