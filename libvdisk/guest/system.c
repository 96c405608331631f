/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* system.c - see system.h; pure functions over text that ends with a NUL */
#include "guest/system.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/compiler.h"

/* KEY=value or KEY="value", as a shell would read it (os-release(5)). */
static void read_assignment(const char *text, const char *key, char *out, size_t size)
{
	size_t len = strlen(key), n = 0;
	char quote = 0;

	for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
		if (strncmp(text, key, len) != 0 || text[len] != '=')
			continue;
		text += len + 1;
		if (*text == '"' || *text == '\'')
			quote = *text++;
		while (*text && *text != '\n' && *text != quote && n + 1 < size) {
			if (*text == '\\' && quote != '\'' && text[1] && text[1] != '\n')
				text++;
			out[n++] = *text++;
		}
		out[n] = '\0';
		return;
	}
}

void system_os_release(const char *text, struct vdisk_inspection *f)
{
	read_assignment(text, "PRETTY_NAME", f->name, sizeof(f->name));
	read_assignment(text, "ID", f->id, sizeof(f->id));
	read_assignment(text, "VERSION_ID", f->version, sizeof(f->version));
	read_assignment(text, "VERSION_CODENAME", f->codename, sizeof(f->codename));
}

void system_hostname(const char *text, char *out, size_t size)
{
	/* the first line that is no comment */
	for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
		text += strspn(text, " \t");
		if (*text && *text != '#' && *text != '\n') {
			snprintf(out, size, "%.*s", (int)strcspn(text, " \t\r\n"), text);
			return;
		}
	}
}

/* "\040" and the like stand for characters that separate (fstab(5)). */
static const char *fstab_field(const char *text, char *out, size_t size)
{
	size_t n = 0;

	text += strspn(text, " \t");
	while (*text && !strchr(" \t\r\n", *text)) {
		char c = *text++;

		if (c == '\\' && text[0] >= '0' && text[0] <= '3' && isdigit((unsigned char)text[1]) &&
		    isdigit((unsigned char)text[2])) {
			c = (char)((text[0] - '0') * 64 + (text[1] - '0') * 8 + (text[2] - '0'));
			text += 3;
		}
		if (n + 1 < size)
			out[n++] = c;
	}
	out[n] = '\0';
	return text;
}

int system_fstab(const char *text, int (*each)(void *arg, const struct vdisk_fstab *f), void *arg)
{
	unsigned line = 1;
	int r = 0;

	for (; r == 0 && *text; text += strcspn(text, "\n"), text += *text == '\n', line++) {
		struct vdisk_fstab f = { .line = line };
		const char *p = fstab_field(text, f.device, sizeof(f.device));

		if (!f.device[0] || f.device[0] == '#')
			continue;
		p = fstab_field(p, f.mount_point, sizeof(f.mount_point));
		p = fstab_field(p, f.type, sizeof(f.type));
		fstab_field(p, f.options, sizeof(f.options));
		r = each(arg, &f);
	}
	return r;
}
