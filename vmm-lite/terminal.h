/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terminal.h - the person's terminal, as the guest's console */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <stddef.h>
#include <stdint.h>

/* Is standard input a terminal, and we in its foreground?  Asked before there are namespaces. */
void terminal_look(void);
/*
 * Raw mode, if standard input is a terminal and we are in its foreground.
 * Whatever ends the process (but SIGKILL) puts it back as it was.
 */
void terminal_raw(void);
/* Safe in a signal handler; does nothing the second time. */
void terminal_restore(void);

/* Its size in characters; 0, 0: there is none, or it does not know. */
void terminal_size(uint16_t *columns, uint16_t *rows);

#define ESCAPE_KEY	0x1d	/* Ctrl-] */

enum escape { ESCAPE_NONE, ESCAPE_QUIT, ESCAPE_REBOOT, ESCAPE_HELP };

/*
 * Take the escape sequences out of @data, in place; @len becomes what is left
 * for the guest.  Stops at the first one, dropping the rest.
 */
enum escape terminal_filter(uint8_t *data, size_t *len);

#endif
