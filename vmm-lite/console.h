/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* console.h - standard input and output as the guest's console, and why it ends */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <stdbool.h>

#include "vdisk.h"
#include "vmm-lite/end.h"
#include "vmm-lite/tty.h"

#define VIEWERS_MAX	4u
#define BACKLOG_SIZE	16384u	/* a power of two */

struct control;

struct console {
	struct tty *tty;	/* borrowed: the console device's */
	int wake_fd;		/* owned: eventfd, see console_wake() */
	int signal_fd;		/* owned */
	int timer_fd;		/* owned; -1: no time limit */
	bool input_ended;
	bool output_lost;	/* nobody reads any more */
	int viewer[VIEWERS_MAX];	/* owned: further connections (vdisk vm console); -1 */
	uint8_t backlog[BACKLOG_SIZE];	/* what was said last, for those who come late */
	uint64_t said;
};

/* What else the main thread looks after, and what happens there. */
struct console_others {
	/* Readable once the guest has ended, and how it has. */
	int end_fd;
	enum vmm_end (*ended)(void *arg);
	struct control *control;	/* NULL: none */
	/* After each turn, and after so many milliseconds without one (-1); NULL ok. */
	int turn_ms;
	void (*turn)(void *arg);
	/* Something else that may be readable, and who looks at it then; -1: nothing. */
	int watch_fd;
	void (*watched)(void *arg);
	/* The terminal has another size. */
	void (*resized)(void *arg);
	void *arg;
};

int console_init(struct console *c, struct tty *tty, unsigned time_limit, struct vdisk_error *err);
/* The console device has output, or room; any thread. */
void console_wake(void *console);
/* Carry bytes to and fro until the guest ends or somebody ends it. */
enum vmm_end console_run(struct console *c, const struct console_others *others);
/* One more connection that sees and types; takes @fd. */
void console_add_viewer(struct console *c, int fd);
/* Bring out what is left, for a second at most. */
void console_finish(struct console *c);

#endif
