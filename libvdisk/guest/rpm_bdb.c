/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rpm_bdb.c - the blobs in a Berkeley DB hash, rpm's "Packages" of old
 *
 * All numbers are in the order of the machine that wrote them, which the magic
 * number tells.  Which bucket a page belongs to does not matter: every page that
 * holds pairs is read, wherever it is.
 *
 *	meta	12 magic   20 bytes of a page   24 encryption   25 type (8)   32 last page
 *	page	16 next page   20 items   22 free space from / bytes used   25 type   26 items
 *	item	u16 offset in the page; key, data, key, ...; each goes up to the one before
 *		0 kind: 1 the bytes follow, 3 unused[3], u32 first page, u32 length
 *
 * The key is the package's number; 0 has the next free number and no package.
 * A large value is a chain of pages of type 7, whose "bytes used" count.
 */
#include "guest/rpm.h"

#include <errno.h>
#include <string.h>

enum {
	MAGIC = 0x061561, META = 8, UNSORTED = 2, SORTED = 13, OVERFLOW = 7,
	HEADER = 26, INLINE = 1, OFF_PAGE = 3,
};

struct bdb {
	struct rpm_db *db;
	bool big;
	size_t page_size;
	uint32_t n_pages;
	uint32_t visits;	/* of overflow pages that are left: no page is in two chains */
	uint8_t *value;		/* owned */
	size_t room;
};

static uint32_t get32(const struct bdb *b, const uint8_t *p)
{
	return b->big ? load_be32(p) : load_le32(p);
}

static size_t get16(const struct bdb *b, const uint8_t *p)
{
	return b->big ? load_be16(p) : load_le16(p);
}

bool rpm_is_bdb(const struct rpm_db *db)
{
	return db->len >= 512 &&
	       (load_le32(db->p + 12) == MAGIC || load_be32(db->p + 12) == MAGIC);
}

static int read_chain(struct bdb *b, uint32_t page, size_t len)
{
	size_t at = 0;
	int r = len > b->db->len ? rpm_bad(b->db, "a package is larger than the file") :
				   rpm_room(&b->value, &b->room, len);

	while (r == 0 && at < len) {
		const uint8_t *p = b->db->p + (size_t)page * b->page_size;
		size_t used;

		if (page == 0 || page >= b->n_pages || p[25] != OVERFLOW)
			return rpm_bad(b->db, "a package is on a page that is not there");
		if (!b->visits--)
			return rpm_bad(b->db, "its pages form a loop");
		used = get16(b, p + 22);
		if (used > b->page_size - HEADER || used > len - at)
			return rpm_bad(b->db, "a package is longer than it says");
		/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): rpm_room() made room */
		memcpy(b->value + at, p + HEADER, used);
		at += used;
		page = get32(b, p + 16);
	}
	return r;
}

static int take_pair(struct bdb *b, const uint8_t *key, size_t key_len, const uint8_t *data,
		     size_t data_len)
{
	uint32_t len;
	int r;

	if (key_len != 5 || key[0] != INLINE)
		return rpm_bad(b->db, "a package's number makes no sense");
	if (!get32(b, key + 1))
		return 0;
	if (data_len >= 1 && data[0] == INLINE)
		return b->db->each(b->db->arg, data + 1, data_len - 1);
	if (data_len < 12 || data[0] != OFF_PAGE)
		return rpm_bad(b->db, "a package is of an unknown kind");
	len = get32(b, data + 8);
	r = read_chain(b, get32(b, data + 4), len);
	return r < 0 ? r : b->db->each(b->db->arg, b->value, len);
}

static int read_page(struct bdb *b, const uint8_t *page)
{
	size_t n = get16(b, page + 20), end = b->page_size, key = 0, key_end = 0;
	int r = 0;

	if (n % 2 || HEADER + 2 * n > b->page_size)
		return rpm_bad(b->db, "a page makes no sense");
	for (size_t i = 0; i < n && r == 0; i++) {
		size_t at = get16(b, page + HEADER + 2 * i);

		if (at < HEADER + 2 * n || at >= end)
			return rpm_bad(b->db, "an item lies outside of its page");
		if (i % 2)
			r = take_pair(b, page + key, key_end - key, page + at, end - at);
		key = at;
		key_end = end;
		end = at;
	}
	return r;
}

int rpm_bdb(struct rpm_db *db)
{
	struct bdb b = { .db = db, .big = load_be32(db->p + 12) == MAGIC };
	int r = 0;

	b.page_size = get32(&b, db->p + 20);
	b.n_pages = get32(&b, db->p + 32);
	if (b.page_size < 512 || b.page_size > 65536 || b.page_size & (b.page_size - 1) ||
	    db->p[25] != META)
		return rpm_bad(db, "its header makes no sense");
	if (db->p[24])
		return rpm_bad(db, "it is encrypted");
	if (b.n_pages++ >= db->len / b.page_size)
		return rpm_bad(db, "it is cut off");
	b.visits = b.n_pages;
	for (uint32_t i = 1; i < b.n_pages && r == 0; i++) {
		const uint8_t *page = db->p + (size_t)i * b.page_size;

		if (page[25] == UNSORTED || page[25] == SORTED)
			r = read_page(&b, page);
	}
	free(b.value);
	return r;
}
