/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* passed.h - disks that come with a request, their files as descriptors */
#ifndef VMM_PASSED_H
#define VMM_PASSED_H

#include "vmm-lite/control.h"
#include "vmm-lite/keeper.h"
#include "vmm-lite/options.h"

/* Is it reached over a network? */
bool passed_is_remote(const char *locator);

struct passed_store {
	struct vdisk_open_file files[CONTROL_FDS_MAX];
	struct keeper_ends ends;
};

/*
 * What attach-disk asks for, checked.  Strings are the request's, @store is what
 * @out points into.  A disk has either files, or ("isolated") a process of its own with
 * the four descriptors of its keeper's ends, which are @out's from then on; neither, if
 * it is remote.
 */
int passed_disk(struct disk_option *out, struct passed_store *store, struct control_call *call,
		struct vdisk_error *err);

/* How show and stats describe a disk's part that is the same everywhere. */
json_t *passed_limits_json(const struct blk_limits *l);
json_t *passed_stats_json(const char *id, const struct blk_stats *b);

/* ---- what one life of a guest leaves to the next: messages in a pair of sockets ---- */

/* Takes @message.  -errno: it cannot be left. */
int passed_leave(int carry_fd, json_t *message, const int *fds, unsigned n);
/* Each that was left, until an error; descriptors that @one does not take are closed. */
int passed_find(int carry_fd, int (*one)(void *arg, struct control_call *call, struct vdisk_error *err),
		void *arg, struct vdisk_error *err);

#endif
