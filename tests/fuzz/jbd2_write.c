/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions into a journal whose superblock is hostile: what a transaction was said to
 * hold, replay brings to its place.  The input: the superblock's 1 KiB, then for each
 * transaction the number of its blocks and for each block two bytes, where it belongs and its
 * contents' first byte.
 */
#include <ext2fs/ext2fs.h>

#include "fs/jbd2.h"

#define BLOCK	1024u
#define JOURNAL	64u		/* blocks; the file system has as many behind them */
#define TOGETHER 24u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t blocks[JOURNAL];

static void journal_of(struct vd_jbd2 *j, struct vdisk *disk)
{
	for (uint32_t i = 0; i < JOURNAL; i++)
		blocks[i] = i;
	*j = (struct vd_jbd2) {
		.disk = disk, .blocks = blocks, .n_blocks = JOURNAL, .block_size = BLOCK,
		.fs_blocks = 2 * JOURNAL,
	};
}

/* As after a power cut: replay a copy, and look. */
static void check(struct vdisk *disk, const struct vd_jbd2_block *v, uint32_t n)
{
	static uint8_t all[2 * JOURNAL * BLOCK], block[BLOCK];
	struct vdisk *copy;
	struct vd_jbd2 j;

	if (vdisk_read(disk, all, sizeof(all), 0) < 0 || vdisk_open_memory(&copy, sizeof(all), NULL) < 0)
		abort();
	if (vdisk_write(copy, all, sizeof(all), 0) < 0)
		abort();
	journal_of(&j, copy);
	if (vd_jbd2_replay(&j, NULL) < 0)
		abort();
	for (uint32_t i = 0; i < n; i++)
		if (vdisk_read(copy, block, BLOCK, v[i].nr * BLOCK) < 0 ||
		    memcmp(block, v[i].data, BLOCK) != 0)
			abort();
	vdisk_close(copy, NULL);
}

/* One transaction from the input; false at its end. */
static bool transaction(struct vd_jbd2_writer *w, struct vdisk *disk, const uint8_t **p,
			const uint8_t *end)
{
	static uint8_t data[TOGETHER][BLOCK];
	struct vd_jbd2_block v[TOGETHER];
	uint32_t n = *p < end ? *(*p)++ % (TOGETHER + 1) : 0, k = 0;
	bool used[JOURNAL] = { false };

	for (uint32_t i = 0; i < n && end - *p >= 2; i++, *p += 2) {
		uint32_t nr = (*p)[0] % JOURNAL;

		if (used[nr])
			continue;
		used[nr] = true;
		memset(data[k], (*p)[1], BLOCK);
		/* what a descriptor begins with has to be hidden in the journal */
		if ((*p)[1] & 1)
			store_be32(data[k], 0xc03b3998);
		v[k] = (struct vd_jbd2_block) { .nr = JOURNAL + nr, .data = data[k] };
		k++;
	}
	if (!k || vd_jbd2_mark(w, true, NULL) < 0 || vd_jbd2_write(w, v, k, NULL) < 0)
		return false;
	check(disk, v, k);
	for (uint32_t i = 0; i < k; i++)
		if (vdisk_write(disk, v[i].data, BLOCK, v[i].nr * BLOCK) < 0)
			abort();
	return vd_jbd2_written(w, NULL) == 0;
}

/* The superblock, with the checksum that it may have to have: a random one is never right. */
static void put_superblock(uint8_t sb[BLOCK], const uint8_t *data)
{
	memcpy(sb, data, BLOCK);
	if (!(load_be32(sb + 40) & 0x18))
		return;
	sb[80] = 4;
	store_be32(sb + 252, 0);
	store_be32(sb + 252, ext2fs_crc32c_le(~0u, sb, BLOCK));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t sb[BLOCK];
	const uint8_t *p = data + BLOCK, *end = data + size;
	struct vd_jbd2_writer *w = NULL;
	struct vdisk *disk;
	struct vd_jbd2 j;

	if (size < BLOCK || size > 2 * BLOCK ||
	    vdisk_open_memory(&disk, 2 * JOURNAL * BLOCK, NULL) < 0)
		return 0;
	journal_of(&j, disk);
	put_superblock(sb, data);
	if (vdisk_write(disk, sb, BLOCK, 0) == 0 && vd_jbd2_replay(&j, NULL) == 0 &&
	    vd_jbd2_writer_open(&w, &j, NULL) == 0)
		for (unsigned i = 0; i < 20 && transaction(w, disk, &p, end); i++)
			;
	vd_jbd2_writer_free(w);
	vdisk_close(disk, NULL);
	return 0;
}
