/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* log.c - one line to standard error; each is one write() */
#include "vmm-lite/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define GUEST_LINES	20	/* of what a guest can provoke */

static _Atomic bool verbose_lines;
static _Atomic bool raw_terminal;
static _Atomic unsigned guest_lines;

PRINTF_FMT(1, 0)
static void log_line(const char *fmt, va_list ap)
{
	char line[600];
	size_t n;
	int r;

	snprintf(line, sizeof(line), "%.32s: ", program_invocation_short_name);
	n = strlen(line);
	/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is the caller's */
	r = vsnprintf(line + n, sizeof(line) - n - 2, fmt, ap);
	if (r < 0)
		return;
	n += MIN((size_t)r, sizeof(line) - n - 3);
	if (raw_terminal)
		line[n++] = '\r';
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return;		/* nobody to tell */
}

void log_warnx(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	if (!verbose_lines)
		return;
	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void log_guest(const char *fmt, ...)
{
	unsigned n = atomic_fetch_add(&guest_lines, 1);
	va_list ap;

	if (n > GUEST_LINES) {
		atomic_store(&guest_lines, GUEST_LINES + 1);
		return;
	}
	if (n == GUEST_LINES) {
		log_warnx("the guest goes on making mistakes; no more of them are shown");
		return;
	}
	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void log_kept_raw(const char *serial, const char *format)
{
	log_guest("%.20s: the guest may not write the beginning of a %s image to a disk that nobody has "
		  "said to be raw (format=raw would allow it)", serial, format);
}

void log_set_verbose(bool verbose)
{
	verbose_lines = verbose;
}

void log_set_raw(bool raw)
{
	raw_terminal = raw;
}

void log_leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; null >= 0 && i < 3; i++)
		dup2(null, i);
}
