/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * terminal.c - the person's terminal, as the guest's console
 *
 * In raw mode every key goes to the guest, Ctrl-C too; Ctrl-] is ours, and the
 * key after it says what to do.  The settings are put back at exit, and by the
 * handlers of the signals that would end the process.
 */
#include "vmm-lite/terminal.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/log.h"

static struct termios saved;
static _Atomic bool is_raw;
static bool after_escape, in_foreground;

void terminal_restore(void)
{
	if (atomic_exchange(&is_raw, false)) {
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
		log_set_raw(false);
	}
}

static void restore_and_die(int signal_number)
{
	terminal_restore();
	signal(signal_number, SIG_DFL);
	raise(signal_number);
	if (getpid() == 1)	/* a namespace's first process: what has no handler is lost on it */
		_exit(128 + signal_number);
}

static void restore_on_signals(void)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT };
	struct sigaction action = { .sa_handler = restore_and_die, .sa_flags = (int)SA_RESETHAND };

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
		sigaction(fatal[i], &action, NULL);
}

void terminal_look(void)
{
	in_foreground = isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

void terminal_raw(void)
{
	struct termios t;

	if (!in_foreground || tcgetattr(STDIN_FILENO, &saved) < 0)
		return;
	restore_on_signals();
	atexit(terminal_restore);
	t = saved;
	cfmakeraw(&t);
	if (tcsetattr(STDIN_FILENO, TCSANOW, &t) < 0)
		return;
	is_raw = true;
	log_set_raw(true);
}

void terminal_size(uint16_t *columns, uint16_t *rows)
{
	struct winsize w = { 0 };

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w) < 0)
		w = (struct winsize) { 0 };
	*columns = w.ws_col;
	*rows = w.ws_row;
}

enum escape terminal_filter(uint8_t *data, size_t *len)
{
	size_t kept = 0;

	for (size_t i = 0; i < *len; i++) {
		uint8_t c = data[i];

		if (!after_escape && c == ESCAPE_KEY) {
			after_escape = true;
			continue;
		}
		if (after_escape && c != ESCAPE_KEY) {
			after_escape = false;
			*len = kept;
			return c == 'q' || c == 'x' ? ESCAPE_QUIT :
			       c == 'r' ? ESCAPE_REBOOT : ESCAPE_HELP;
		}
		after_escape = false;	/* Ctrl-] twice sends one */
		data[kept++] = c;
	}
	*len = kept;
	return ESCAPE_NONE;
}
