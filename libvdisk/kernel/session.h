/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* session.h - a FUSE session: how it begins, who serves it, how it ends */
#ifndef VD_SESSION_H
#define VD_SESSION_H

#include <sys/types.h>

#include "core/compiler.h"
#include "vdisk.h"

struct fuse_session;
struct fuse_lowlevel_ops;

#define VD_SESSION_IO (1u << 20)	/* the longest request */

struct vd_session {
	struct fuse_session *fuse;	/* owned */
	int stop_fd;			/* owned: eventfd, readable when it shall end; -1 */
	bool mounted;
	dev_t device;			/* of what is mounted; 0: not known */
	_Atomic bool begun;		/* the first request, the kernel's greeting, is answered */
};

/*
 * Mount over @path, with @options for fuse_session_new() ("-o").  @arg is what
 * fuse_req_userdata() gives.  vd_session_end() in any case.
 */
int vd_session_start(struct vd_session *s, const char *path, const struct fuse_lowlevel_ops *ops,
		     size_t ops_size, void *arg, const char *options, struct vdisk_error *err);
/* Serve with so many threads until it is unmounted or stopped; requests under way are finished. */
int vd_session_serve(struct vd_session *s, unsigned threads, struct vdisk_error *err);
/* End vd_session_serve(); from any thread, and from signal handlers. */
void vd_session_stop(struct vd_session *s);
/* Unmount and free what it owns. */
void vd_session_end(struct vd_session *s);
/* The calling thread's own buffer of VD_SESSION_IO bytes, aligned; NULL: no memory. */
uint8_t *vd_session_buffer(void);

#endif
