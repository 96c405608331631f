/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap.c - persistent bitmaps, as far as a writer that does not keep them
 *
 * A bitmap with the "auto" flag must reflect every change of the disk.  We do
 * not record changes, so before the first one such bitmaps are marked "in use",
 * which is how the specification says that their contents may be wrong
 * ("Bitmap directory entry", flags).  The rest of the extension, and bitmaps
 * that nobody records into, stay as they are and stay valid.
 */
#include <errno.h>

#include "formats/qcow2/state.h"

#define ENTRY_FIXED	24
#define FLAG_IN_USE	1u
#define FLAG_AUTO	2u

/* Mark the entries of the directory: bytes changed, or -EIO if it is malformed. */
static int mark(uint8_t *dir, uint64_t size, unsigned n)
{
	uint64_t at = 0;
	int changed = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t len;
		uint32_t flags;

		if (!vd_in_range(at, ENTRY_FIXED, size))
			return -EIO;
		flags = load_be32(dir + at + 12);
		len = ENTRY_FIXED + (uint64_t)load_be16(dir + at + 18) +
		      load_be32(dir + at + 20);
		if ((flags & FLAG_AUTO) && !(flags & FLAG_IN_USE)) {
			store_be32(dir + at + 12, flags | FLAG_IN_USE);
			changed++;
		}
		at += vd_align_up(len, 8);
	}
	return changed;
}

int qcow2_bitmaps_in_use(struct qcow2 *q)
{
	uint64_t size = q->h.bitmap_dir_size;
	AUTO_FREE uint8_t *dir = NULL;
	int r;

	if (!q->h.has_bitmaps || !(q->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	if (vd_in_range(q->h.bitmap_dir_offset, size, atomic_load(&q->file->size))) {
		dir = malloc(size);
		if (!dir)
			return -ENOMEM;
		r = vd_pread(q->file, dir, size, q->h.bitmap_dir_offset);
		if (r < 0)
			return r;
		r = mark(dir, size, q->h.n_bitmaps);
		if (r > 0)
			r = vd_pwrite(q->file, dir, size, q->h.bitmap_dir_offset);
		if (r == 0)
			r = vd_flush(q->file);
		if (r != -EIO)
			return r;
	}
	/* It makes no sense: then none of them does (autoclear bit 0). */
	q->h.autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
	r = qcow2_poke_header(q);
	return r < 0 ? r : vd_flush(q->file);
}
