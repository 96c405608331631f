/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keeper.h - the processes of isolated disks, and who starts them again
 *
 * A disk that is isolated is served by a process of its own (vdisk-vhost).
 * The keeper is a small process that starts these and starts again what dies;
 * it is forked off before anything of the guest's is read, keeps the rights of
 * whoever started the guest, and never reads what a VMM says but one byte.
 */
#ifndef VMM_KEEPER_H
#define VMM_KEEPER_H

#include <sys/types.h>
#include <unistd.h>

#include "vmm-lite/options.h"

/* What the keeper tells on a disk's channel, one packet each. */
enum keeper_says {
	KEEPER_NEW,	/* with a connection to a new process, which has the disk open */
	KEEPER_FAILING,	/* it died, and is not started again: with a connection to one in its
			 * place that fails each request, so that the guest need not wait for ever */
	KEEPER_GONE,	/* it died, and there will be nothing in its place */
	KEEPER_ENDED,	/* after KEEPER_END: it ended, with this status */
};
struct keeper_word {
	uint32_t says;
	int32_t value;	/* NEW: its process id; ENDED: its exit status */
};
/* What it is told: the connection is going to be closed for good. */
#define KEEPER_END	'e'

/* The VMM's ends; all owned, -1: none. */
struct keeper_ends {
	int channel;	/* packets */
	int control;	/* packets: a line to the disk's process, a line back */
	int events[2];	/* stream; [0] is ours, [1] is passed on */
};

static inline void keeper_close_ends(const struct keeper_ends *e)
{
	const int fds[] = { e->channel, e->control, e->events[0], e->events[1] };

	for (unsigned i = 0; i < 4; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* Is it served by a process of its own? */
bool keeper_isolated(const struct options *o, const struct disk_option *d);

/*
 * Fork the keeper off, if any disk is isolated; @ends has an entry for each
 * disk.  To be called while there is one thread.  That a disk cannot be opened
 * is told by its process, and by KEEPER_GONE.
 */
int keeper_start(const struct options *o, unsigned queues, struct keeper_ends *ends,
		 struct vdisk_error *err);

/*
 * Be the keeper of the one disk in @o, for a VMM that runs already: whoever attaches a
 * disk starts it, with his own rights, so that the VMM need not be able to ask for disks.
 * Returns on failure only.
 */
int keeper_alone(const struct options *o, unsigned queues, struct vdisk_error *err);

/* Tell it that a disk's process is to end, before that loses its connection. */
int keeper_tell_end(int channel);
/*
 * Wait for that, so many milliseconds at most (-1: for ever): 0; -EAGAIN, it is still writing;
 * -EIO, it did not write out all that it held; -EPIPE, the keeper is gone.
 */
int keeper_wait_end(int channel, int wait_ms);

/* The next word on a channel; *fd is -1 or comes with it.  1, 0: the keeper is gone, -errno. */
int keeper_hear(int channel, bool wait, struct keeper_word *word, int *fd);

#endif
