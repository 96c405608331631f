/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guest_text.c - hostile files in which a guest says what it is and has
 *
 * The first byte chooses the file: F fstab, O os-release, H hostname, D dpkg's status,
 * A apk's, P a directory of pacman's.  What comes out is text that ends, and
 * not more of it than there was.
 */
#include <assert.h>

#include "core/compiler.h"
#include "guest/packages.h"
#include "guest/system.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	size_t bytes, entries;
	unsigned line;
};

#define ENDS(array) assert(memchr(array, 0, sizeof(array)))

static int each_package(void *arg, const struct vdisk_package *p)
{
	struct seen *s = arg;

	ENDS(p->name);
	ENDS(p->version);
	ENDS(p->arch);
	assert(p->name[0]);
	s->bytes += strlen(p->name) + strlen(p->version) + strlen(p->arch);
	s->entries++;
	return 0;
}

static int each_mount(void *arg, const struct vdisk_fstab *f)
{
	struct seen *s = arg;

	ENDS(f->device);
	ENDS(f->mount_point);
	ENDS(f->type);
	ENDS(f->options);
	assert(f->device[0] && f->line > s->line);
	s->line = f->line;
	s->bytes += strlen(f->device) + strlen(f->mount_point) + strlen(f->type) + strlen(f->options);
	return 0;
}

static void os_release(const char *text)
{
	static struct vdisk_inspection in;

	memset(&in, 0, sizeof(in));
	system_os_release(text, &in);
	system_hostname(text, in.hostname, sizeof(in.hostname));
	ENDS(in.name);
	ENDS(in.id);
	ENDS(in.version);
	ENDS(in.codename);
	ENDS(in.hostname);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk_package package;
	struct seen s = { 0 };
	char *text;

	if (!size)
		return 0;
	text = memcpy(malloc(size), data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0]) {
	case 'F':
		assert(system_fstab(text, each_mount, &s) == 0);
		break;
	case 'D':
		assert(packages_dpkg(text, each_package, &s) == 0);
		break;
	case 'A':
		assert(packages_apk(text, each_package, &s) == 0);
		break;
	case 'P':
		if (packages_pacman(text, &package) == 0)
			each_package(&s, &package);
		break;
	default:
		os_release(text);
	}
	assert(s.bytes <= size && s.entries <= size);
	free(text);
	return 0;
}
