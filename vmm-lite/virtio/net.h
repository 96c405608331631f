/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* net.h - a virtio network card (virtio 1.2, 5.1) on a tap device or a stream socket */
#ifndef VMM_VIRTIO_NET_H
#define VMM_VIRTIO_NET_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"

struct net_options {
	int fd;			/* the card's from now on, on success; non-blocking */
	bool stream;		/* a socket of length-prefixed frames (passt); else a tap */
	uint8_t mac[6];
	void (*confine)(void);	/* called by the card's thread as it starts; NULL ok */
};

/* A tap must have IFF_VNET_HDR; its header size and offloads are set here. */
int net_new(struct virtio_device **out, const struct net_options *opts, struct vdisk_error *err);

#endif
