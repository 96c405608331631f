/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile journal.  The input is the journal in blocks of 1 KiB; the file
 * system it writes into is as large again.
 */
#include "fs/jbd2.h"

#define BLOCK 1024u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t n = (uint32_t)(size / BLOCK);
	uint64_t blocks[512];
	struct vd_jbd2 j = {
		.blocks = blocks, .n_blocks = n, .block_size = BLOCK, .fs_blocks = 2u * n,
	};

	if (n < 2 || n > 512 || vdisk_open_memory(&j.disk, 2u * n * BLOCK, NULL) < 0)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		blocks[i] = i;
	if (vdisk_write(j.disk, data, (size_t)n * BLOCK, 0) == 0)
		vd_jbd2_replay(&j, NULL);
	vdisk_close(j.disk, NULL);
	return 0;
}
