/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>

#include "core/driver.h"

void vdisk_redact(char *text)
{
	static const char scheme[] = "iscsi://";

	while ((text = strstr(text, scheme))) {
		char *at, *percent;

		text += strlen(scheme);
		at = memrchr(text, '@', strcspn(text, "/"));
		percent = at ? memchr(text, '%', (size_t)(at - text)) : NULL;
		if (percent)
			memmove(percent, at, strlen(at) + 1);
	}
}

/* for clang's analyzer they are macros */
#undef vd_fail
#undef vd_fail_prefix

int vd_fail(struct vdisk_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
		vdisk_redact(err->msg);
	}
	return -code;
}

int vd_fail_prefix(struct vdisk_error *err, int r, const char *fmt, ...)
{
	char text[sizeof(err->msg)];
	va_list ap;
	size_t n;

	if (!err)
		return r;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	vdisk_redact(text);
	n = strlen(text);
	/* the old message moves right; what does not fit falls off its end */
	if (n + 2 < sizeof(err->msg)) {
		size_t keep = MIN(strlen(err->msg), sizeof(err->msg) - n - 3);

		memmove(err->msg + n + 2, err->msg, keep);
		err->msg[n + 2 + keep] = '\0';
		memcpy(err->msg, text, n);
		memcpy(err->msg + n, ": ", 2);
	}
	err->code = -r;
	return r;
}
