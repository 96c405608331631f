/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmfile.c - files that describe a guest: ours and Xen's */
#include <stdio.h>

#include "cli/vmfile.h"
#include "core/driver.h"

static void touch(const char *text)
{
	if (text && strlen(text) > VMFILE_MAX + 4096)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk_error err = { 0 };
	struct vmfile v;
	char *text;

	if (size > VMFILE_MAX)
		return 0;
	text = strndup((const char *)data, size);
	if (!text)
		return 0;
	if (vmfile_parse(&v, "dir/guest.cfg", text, &err) < 0) {
		if (!err.msg[0])
			abort();
		free(text);
		return 0;
	}
	if (v.n_disks > VMFILE_DISKS || (!v.n_disks && !v.kernel))
		abort();
	touch(v.name);
	touch(v.append);
	for (unsigned i = 0; i < v.n_disks; i++) {
		if (!v.disk[i].locator)
			abort();
		touch(v.disk[i].locator);
		touch(v.disk[i].format);
		touch(v.disk[i].old_name);
	}
	for (unsigned i = 0; i < v.n_notes; i++)
		touch(v.notes[i]);
	vmfile_free(&v);
	free(text);
	return 0;
}
