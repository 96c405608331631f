/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text is a locator or an error, and what format() writes means the same again. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const char *a, const char *b)
{
	assert(!a == !b && (!a || !strcmp(a, b)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk_locator loc = { 0 }, again = { 0 };
	char *text = strndup((const char *)data, size), *back;

	if (text && vdisk_locator_parse(&loc, text, NULL) == 0) {
		assert(loc.source[0]);
		back = vdisk_locator_format(&loc);
		assert(back && vdisk_locator_parse(&again, back, NULL) == 0);
		/* a file of the fuzzer's machine may win over the second splitting */
		if (!strncmp(back, "file:", 5)) {
			same(loc.source, again.source);
			same(loc.snapshot, again.snapshot);
			same(loc.part, again.part);
		}
		free(back);
		vdisk_locator_clear(&again);
		vdisk_locator_clear(&loc);
	}
	free(text);
	return 0;
}
