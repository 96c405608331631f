/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pe.c - headers of PE programs: what is accepted lies inside of the file */
#include "core/driver.h"
#include "guest/pe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t file_size;
	struct pe pe;

	/* the first bytes: how much longer the file is than what was read of it */
	if (size < 4)
		return 0;
	file_size = size - 4 + load_le32(data);
	if (pe_decode(&pe, data + 4, MIN(size - 4, (size_t)PE_HEAD_MAX), file_size) < 0)
		return 0;
	if (pe.n > PE_SECTIONS_MAX)
		abort();
	for (unsigned i = 0; i < pe.n; i++) {
		const struct pe_section *s = &pe.section[i];

		if (strlen(s->name) > 8 ||
		    (s->len && (s->off > file_size || s->len > file_size - s->off)))
			abort();
	}
	return 0;
}
