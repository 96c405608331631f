/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* failing.h - a disk that is not there any more */
#ifndef VMM_VHOST_FAILING_H
#define VMM_VHOST_FAILING_H

#include "vdisk.h"

/* As large as any, and each request to it fails. */
int vhost_open_failing(struct vdisk **out, bool read_only, struct vdisk_error *err);

#endif
