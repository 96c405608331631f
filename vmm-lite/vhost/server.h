/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * server.h - the program's one thread beside the disk's: sockets and signals
 *
 * One front end at a time; the next one waits in the socket's backlog.  A second
 * socket, if wanted, is for people and their programs: a line in, a line out.
 *
 *	stats			ok reads=... writes=... ...
 *	limit SPEC		as words_limits() has it
 *	resize BYTES		the image, and what the guest sees of it
 */
#ifndef VMM_VHOST_SERVER_H
#define VMM_VHOST_SERVER_H

#include "vdisk.h"
#include "vmm-lite/virtio/device.h"

struct vhost_server {
	struct vdisk *disk;		/* borrowed; NULL: no block device, and no lines then */
	struct virtio_device *dev;	/* borrowed */
	int listen_fd;			/* owned; -1: none but the given connection */
	int connection_fd;		/* owned; -1: none yet */
	int control_fd;			/* owned; listening, or -1 */
	int lines_fd;			/* owned; the same, a packet a line, for good; -1 */
	int signal_fd;			/* owned: what ends the program */
	bool once;			/* end with the first front end */
	uint64_t looked_ms;		/* the loop's: when it was looked whether the disk has grown */
};

/* Until a signal comes, or (->once) the front end is gone.  0 or -errno. */
int vhost_serve(struct vhost_server *server);

/*
 * A listening socket at @path; a stale one is replaced, one in use is not, nor
 * is anything else.
 */
int vhost_listen(int *out, const char *path, struct vdisk_error *err);

#endif
