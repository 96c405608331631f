/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* log.c - see log.h */
#include <stdarg.h>
#include <stdio.h>

#include "target/log.h"

static const char *name = "vdiskd";
static enum log_level verbosity = LOG_WARN;

void log_init(const char *program, enum log_level level)
{
	name = program;
	verbosity = level;
}

__attribute__((format(printf, 2, 0)))
static void vlog(enum log_level level, const char *fmt, va_list ap)
{
	char line[1024];

	if (level > verbosity)
		return;
	vsnprintf(line, sizeof(line), fmt, ap);
	fprintf(stderr, "%s: %s\n", name, line);
}

#define DEFINE_LOG(function, level)		\
void function(const char *fmt, ...)		\
{						\
	va_list ap;				\
						\
	va_start(ap, fmt);			\
	vlog(level, fmt, ap);			\
	va_end(ap);				\
}
DEFINE_LOG(log_warnx, LOG_WARN)
DEFINE_LOG(log_info, LOG_INFO)
DEFINE_LOG(log_debug, LOG_DEBUG)

void fatalx(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(LOG_WARN, fmt, ap);
	va_end(ap);
	exit(1);
}

const char *log_safe(char *buf, size_t size, const char *text)
{
	size_t i;

	for (i = 0; i + 1 < size && text[i]; i++)
		buf[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	buf[i] = '\0';
	return buf;
}

int fail(struct vdisk_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
	}
	return -code;
}
