/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * line.h - a pseudo-terminal between a User-Mode Linux guest's console and ours
 *
 * A thread carries bytes between the pseudo-terminal and the tty that the console
 * reads.  Nothing is dropped: a guest whose output nobody takes waits.
 */
#ifndef VMM_UML_LINE_H
#define VMM_UML_LINE_H

#include "vdisk.h"
#include "vmm-lite/tty.h"

struct line {
	struct tty tty;
	int master, slave;	/* owned; the slave is the guest's, -1 once it has it */
	int wake_fd;		/* owned: eventfd */
	pthread_t thread;
	bool has_thread;
	_Atomic bool stop;
};

int line_new(struct line *l, struct vdisk_error *err);
/* The guest has its end: let go of ours of it, and carry. */
int line_start(struct line *l, struct vdisk_error *err);
void line_resize(struct line *l, uint16_t columns, uint16_t rows);
/* The guest has ended: take what it has said last. */
void line_finish(struct line *l);
void line_free(struct line *l);

#endif
