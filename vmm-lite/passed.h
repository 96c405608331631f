/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * passed.h - what requests are about, on either engine: disks that come with one, and those
 * that the guest has
 */
#ifndef VMM_PASSED_H
#define VMM_PASSED_H

#include <time.h>

#include "vmm-lite/control.h"
#include "vmm-lite/keeper.h"
#include "vmm-lite/options.h"
#include "vmm-lite/sandbox.h"

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

/* ---- what a request says; NULL, or an error in words of its own, where it does not ---- */

const char *passed_text(const struct control_call *call, const char *key);
/* resize-disk, of a disk of @now bytes: to how many. */
int passed_size(const struct control_call *call, uint64_t now, uint64_t *out, struct vdisk_error *err);
/* limit. */
int passed_limits(const struct control_call *call, struct blk_limits *out, struct vdisk_error *err);

/* ---- what it is told ---- */

/* A disk, as show tells of it and as one life leaves it to the next; all borrowed. */
struct passed_about {
	const char *id, *locator, *serial, *cache;
	const char *format;	/* NULL: found by probing */
	const struct blk_limits *limits;
	uint64_t bytes;
	uint32_t block_size;	/* 0: its own */
	bool keep_raw;		/* see struct blk_options */
	bool read_only, leaving;
	bool isolated;		/* it has a process of its own: */
	pid_t process;		/* ... this; 0: it is being started again */
	unsigned restarts;	/* ... which was started again so often */
	bool lost;		/* ... and cannot be any more */
};

json_t *passed_show(const struct passed_about *d);
json_t *passed_stats(const char *id, const struct blk_stats *b);
json_t *passed_sandbox(const struct sandbox_state *s);
json_t *passed_limits_json(const struct blk_limits *l);
uint64_t passed_seconds(const struct timespec *since);

/* ---- what one life of a guest leaves to the next: messages in a pair of sockets ---- */

/* Those of the command line: @has, taken, are the ids that the guest still has, with limits. */
int passed_leave_first(int carry_fd, json_t *has, unsigned next_id);
/* One that came later: its @files, or, if it is isolated, its keeper's @ends.  -errno: it cannot be left. */
int passed_leave_disk(int carry_fd, const struct passed_about *d, const struct keeper_ends *ends,
		      const struct vdisk_open_file *files, unsigned n_files);
/* Each that was left, until an error; descriptors that @one does not take are closed. */
int passed_find(int carry_fd, int (*one)(void *arg, struct control_call *call, struct vdisk_error *err),
		void *arg, struct vdisk_error *err);

#endif
