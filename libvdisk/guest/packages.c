/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * packages.c - which packages are installed, from the managers' own files
 *
 * dpkg keeps paragraphs of "Field: value" in /var/lib/dpkg/status; apk keeps
 * paragraphs of "L:value" in /lib/apk/db/installed; pacman has a directory for
 * each package.  rpm's databases are not text: see rpm.c.
 */
#include "guest/packages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/compiler.h"

struct field {
	const char *name;	/* with its colon, "Package:" */
	size_t offset, size;	/* of the member of struct vdisk_package */
};

#define FIELD(text, member) \
	{ text, offsetof(struct vdisk_package, member), sizeof(((struct vdisk_package *)0)->member) }

static void take_field(struct vdisk_package *p, const struct field *f, const char *line, size_t len)
{
	size_t name = strlen(f->name);

	if (len < name || strncmp(line, f->name, name) != 0)
		return;
	line += name;
	len -= name;
	while (len && *line == ' ') {
		line++;
		len--;
	}
	snprintf((char *)p + f->offset, f->size, "%.*s", (int)MIN(len, f->size), line);
}

/* A paragraph's end: an empty line. */
static const char *paragraph_end(const char *p)
{
	const char *end = strstr(p, "\n\n");

	return end ? end + 1 : p + strlen(p);
}

static struct vdisk_package read_paragraph(const char *p, const char *end,
					   const struct field *fields, size_t n)
{
	struct vdisk_package package = { .name = "" };
	size_t i, len;

	for (; p < end; p += len + 1) {
		len = strcspn(p, "\n");
		for (i = 0; i < n; i++)
			take_field(&package, &fields[i], p, len);
	}
	return package;
}

/* "Status: WANT FLAG STATE" */
static bool is_installed(const char *p, const char *end)
{
	static const char state[] = " ok installed";
	size_t len;

	for (; p < end; p += len + 1) {
		len = strcspn(p, "\n");
		if (!strncmp(p, "Status:", 7))
			return len >= sizeof(state) &&
			       !strncmp(p + len - strlen(state), state, strlen(state));
	}
	return false;
}

int packages_dpkg(const char *status, package_fn *each, void *arg)
{
	static const struct field fields[] = {
		FIELD("Package:", name), FIELD("Version:", version), FIELD("Architecture:", arch),
	};
	struct vdisk_package package;
	const char *end;
	int r = 0;

	for (; r == 0 && *status; status = end + (*end == '\n')) {
		end = paragraph_end(status);
		if (!is_installed(status, end))
			continue;
		package = read_paragraph(status, end, fields, ARRAY_SIZE(fields));
		if (package.name[0])
			r = each(arg, &package);
	}
	return r;
}

int packages_apk(const char *installed, package_fn *each, void *arg)
{
	static const struct field fields[] = {
		FIELD("P:", name), FIELD("V:", version), FIELD("A:", arch),
	};
	struct vdisk_package package;
	const char *end;
	int r = 0;

	for (; r == 0 && *installed; installed = end + (*end == '\n')) {
		end = paragraph_end(installed);
		package = read_paragraph(installed, end, fields, ARRAY_SIZE(fields));
		if (package.name[0])
			r = each(arg, &package);
	}
	return r;
}

int packages_pacman(const char *dir, struct vdisk_package *out)
{
	const char *release = strrchr(dir, '-'), *version = release;

	while (version && version > dir && *--version != '-')
		;
	if (!release || version <= dir)
		return -EINVAL;
	*out = (struct vdisk_package) { .name = "" };
	snprintf(out->name, sizeof(out->name), "%.*s", (int)(version - dir), dir);
	snprintf(out->version, sizeof(out->version), "%s", version + 1);
	return 0;
}
