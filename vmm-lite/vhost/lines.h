/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lines.h - the other end of a disk process's --control-fd: a packet there, one back
 *
 * What server.h describes.  The process is not trusted: what it says are numbers
 * and a sentence.
 */
#ifndef VMM_VHOST_LINES_H
#define VMM_VHOST_LINES_H

#include <pthread.h>

#include "vdisk.h"
#include "vmm-lite/virtio/blk.h"

struct vhost_lines {
	int fd;			/* owned; -1: none */
	pthread_mutex_t lock;	/* one question at a time */
	const char *name;	/* of the disk, for messages; borrowed */
};

void vhost_lines_init(struct vhost_lines *l, int fd, const char *name);
void vhost_lines_destroy(struct vhost_lines *l);

/* -ETIMEDOUT: the process does not answer; *bytes (NULL ok) is the disk's size. */
int vhost_lines_stats(struct vhost_lines *l, struct blk_stats *out, uint64_t *bytes);
int vhost_lines_limit(struct vhost_lines *l, const struct blk_limits *limits,
		      struct vdisk_error *err);
int vhost_lines_resize(struct vhost_lines *l, uint64_t bytes, struct vdisk_error *err);

#endif
