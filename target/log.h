/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * log.h - messages of the daemon, to stderr
 *
 * A peer's mistake is one line with its address and what was wrong.  Text that
 * came from a peer goes through log_safe() first.
 */
#ifndef TARGET_LOG_H
#define TARGET_LOG_H

#include <stddef.h>

#include "core/compiler.h"
#include "vdisk.h"

enum log_level { LOG_WARN, LOG_INFO, LOG_DEBUG };
void log_init(const char *program, enum log_level level);

void log_warnx(const char *fmt, ...) PRINTF_FMT(1, 2);
void log_info(const char *fmt, ...) PRINTF_FMT(1, 2);
void log_debug(const char *fmt, ...) PRINTF_FMT(1, 2);
NORETURN void fatalx(const char *fmt, ...) PRINTF_FMT(1, 2);

/* Copy @text with everything that is not printable ASCII replaced by '?'. */
const char *log_safe(char *buf, size_t size, const char *text);

/* Fill @err (may be NULL) and return -code. */
int fail(struct vdisk_error *err, int code, const char *fmt, ...) PRINTF_FMT(3, 4);

#endif
