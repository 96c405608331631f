/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* log.h - one line to standard error, for the person who runs the guest */
#ifndef VMM_LOG_H
#define VMM_LOG_H

#include "core/compiler.h"

void log_warnx(const char *fmt, ...) PRINTF_FMT(1, 2);
void log_info(const char *fmt, ...) PRINTF_FMT(1, 2);
/* Something that the guest can make happen as often as it likes: a few, then silence. */
void log_guest(const char *fmt, ...) PRINTF_FMT(1, 2);
/* struct blk_options' keep_raw */
void log_kept_raw(const char *serial, const char *format);
void log_set_verbose(bool verbose);
/* Whoever waits for the end of our output would wait for ever: nobody hears us from now on. */
void log_leave_terminal(void);
/* The terminal is in raw mode: end lines with CR LF. */
void log_set_raw(bool raw);

#endif
