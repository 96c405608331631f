/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rpm_sqlite.c - the blobs in the table "Packages" of an SQLite database
 *
 * A walk through one table is the small part of SQLite's format that is needed
 * here, so the library, which would open files, is not.  (Database file format:
 * https://www.sqlite.org/fileformat2.html, whose sections are named below.)
 *
 * What a writer has committed to the write-ahead log counts before what is in
 * the file: of a machine that was copied while it ran, the newest packages may
 * be there only.  Frames count up to the last commit behind which no checksum
 * fails (section 4).
 *
 * Each page is in one tree or chain, so that nothing sane visits more pages than
 * there are; that ends loops.
 */
#include "guest/rpm.h"

#include <errno.h>
#include <string.h>

enum {
	DEPTH_MAX = 24,
	LEAF = 0x0d, INTERIOR = 0x05,
	WAL_HEADER = 32, FRAME_HEADER = 24,
};

struct sqlite {
	struct rpm_db *db;
	size_t page_size, usable;
	uint32_t n_pages;
	uint32_t visits;	/* that are left */
	size_t *in_wal;		/* owned: by page number, where it is in the log, or 0 */
	uint8_t *record;	/* owned: the one being read */
	size_t room;
	uint32_t root;		/* of the table; 0: not found */
	int (*each)(struct sqlite *s, const uint8_t *record, size_t len);
};

bool rpm_is_sqlite(const struct rpm_db *db)
{
	return db->len >= 100 && !memcmp(db->p, "SQLite format 3", 16);
}

/* ---- pages ---- */

/* Checksum of 8-byte words, continued in @sum (4.2). */
static void wal_sum(uint32_t sum[2], const uint8_t *p, size_t len, bool big)
{
	for (size_t i = 0; i < len; i += 8) {
		sum[0] += (big ? load_be32(p + i) : load_le32(p + i)) + sum[1];
		sum[1] += (big ? load_be32(p + i + 4) : load_le32(p + i + 4)) + sum[0];
	}
}

/* Which frames of the log are valid; the last commit among them is of @pages pages. */
static size_t wal_frames(const struct sqlite *s, uint32_t *pages)
{
	const uint8_t *w = s->db->wal;
	size_t size = FRAME_HEADER + s->page_size, good = 0;
	uint32_t sum[2] = { 0, 0 };
	bool big;

	if (s->db->wal_len < WAL_HEADER || (load_be32(w) | 1) != 0x377f0683 ||
	    load_be32(w + 8) != s->page_size)
		return 0;
	big = load_be32(w) & 1;
	wal_sum(sum, w, 24, big);
	if (load_be32(w + 24) != sum[0] || load_be32(w + 28) != sum[1])
		return 0;
	for (size_t n = 0; size <= s->db->wal_len - WAL_HEADER - n * size; n++) {
		const uint8_t *f = w + WAL_HEADER + n * size;

		wal_sum(sum, f, 8, big);
		wal_sum(sum, f + FRAME_HEADER, s->page_size, big);
		if (memcmp(f + 8, w + 16, 8) != 0 || load_be32(f + 16) != sum[0] ||
		    load_be32(f + 20) != sum[1] || !load_be32(f))
			break;
		if (load_be32(f + 4)) {
			good = n + 1;
			*pages = load_be32(f + 4);
		}
	}
	return good;
}

static int read_wal(struct sqlite *s)
{
	size_t size = FRAME_HEADER + s->page_size, frames;
	uint32_t pages = s->n_pages;

	if (!s->db->wal)
		return 0;
	frames = wal_frames(s, &pages);
	if (!frames)
		return 0;
	if (pages > s->n_pages + frames)
		return rpm_bad(s->db, "its write-ahead log makes no sense");
	s->n_pages = pages;
	s->in_wal = calloc((size_t)pages + 1, sizeof(*s->in_wal));
	if (!s->in_wal)
		return -ENOMEM;
	for (size_t n = 0; n < frames; n++) {	/* (the last one of a page stays) */
		size_t at = WAL_HEADER + n * size;
		uint32_t page = load_be32(s->db->wal + at);

		if (page <= pages)
			s->in_wal[page] = at + FRAME_HEADER;
	}
	return 0;
}

/* A page by its number, from 1; NULL with a reason. */
static const uint8_t *get_page(struct sqlite *s, uint32_t n)
{
	uint64_t at = (uint64_t)(n - 1) * s->page_size;

	if (n == 0 || n > s->n_pages)
		return rpm_bad(s->db, "it points at a page that is not there"), NULL;
	if (!s->visits--)
		return rpm_bad(s->db, "its pages form a loop"), NULL;
	if (s->in_wal && s->in_wal[n])
		return s->db->wal + s->in_wal[n];
	if (at > s->db->len || s->page_size > s->db->len - at)
		return rpm_bad(s->db, "it is cut off"), NULL;
	return s->db->p + at;
}

/* ---- records ---- */

/* A variable-length integer before @end; what is behind it, or NULL (1.6). */
static const uint8_t *get_varint(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 9 && p < end; i++, p++) {
		if (i == 8) {
			*out = v << 8 | *p;
			return p + 1;
		}
		v = v << 7 | (*p & 0x7f);
		if (!(*p & 0x80)) {
			*out = v;
			return p + 1;
		}
	}
	return NULL;
}

/* How many bytes a value of serial type @type takes (2.1). */
static uint64_t value_size(uint64_t type)
{
	static const uint8_t sizes[] = { 0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0 };

	return type < ARRAY_SIZE(sizes) ? sizes[type] : (type - 12) / 2;
}

struct value {
	uint64_t type;
	const uint8_t *p;
	size_t len;
};

/* Column @n of a record. */
static bool get_column(const uint8_t *rec, size_t len, unsigned n, struct value *out)
{
	const uint8_t *end = rec + len, *p, *types_end;
	uint64_t head, type, at;

	p = get_varint(rec, end, &head);
	if (!p || head > len || head < (uint64_t)(p - rec))
		return false;
	types_end = rec + head;
	at = head;
	for (unsigned i = 0; ; i++) {
		uint64_t size;

		p = get_varint(p, types_end, &type);
		if (!p)
			return false;
		size = value_size(type);
		if (size > len - at)
			return false;
		if (i == n) {
			*out = (struct value) { type, rec + at, (size_t)size };
			return true;
		}
		at += size;
	}
}

static bool is_text(const struct value *v, const char *text)
{
	return v->type >= 13 && v->type % 2 && v->len == strlen(text) &&
	       !memcmp(v->p, text, v->len);
}

/* A row of the schema (2.6): type, name, table, root page, SQL. */
static int take_schema(struct sqlite *s, const uint8_t *rec, size_t len)
{
	struct value type, name, root;
	uint64_t page = 0;

	if (!get_column(rec, len, 0, &type) || !get_column(rec, len, 1, &name) ||
	    !get_column(rec, len, 3, &root))
		return rpm_bad(s->db, "its schema makes no sense");
	if (!is_text(&type, "table") || !is_text(&name, "Packages"))
		return 0;
	for (size_t i = 0; root.type <= 6 && i < root.len; i++)
		page = page << 8 | root.p[i];
	if (root.type == 9)
		page = 1;
	if (page == 0 || page > UINT32_MAX)
		return rpm_bad(s->db, "its schema makes no sense");
	s->root = (uint32_t)page;
	return 0;
}

/* A row of "Packages": number (which is the row's own), blob. */
static int take_blob(struct sqlite *s, const uint8_t *rec, size_t len)
{
	struct value blob;

	if (!get_column(rec, len, 1, &blob) || blob.type < 12 || blob.type % 2)
		return rpm_bad(s->db, "a row of its table of packages makes no sense");
	return s->db->each(s->db->arg, blob.p, blob.len);
}

/* ---- trees ---- */

/* What of a payload lies on the leaf itself (1.6). */
static size_t local_size(const struct sqlite *s, uint64_t payload)
{
	size_t most = s->usable - 35, least = (s->usable - 12) * 32 / 255 - 23, k;

	if (payload <= most)
		return (size_t)payload;
	k = least + (size_t)((payload - least) % (s->usable - 4));
	return k <= most ? k : least;
}

/* The rest of a record from its chain of pages. */
static int read_overflow(struct sqlite *s, uint32_t page, size_t at, size_t len)
{
	while (at < len) {
		const uint8_t *p = get_page(s, page);
		size_t n = MIN(len - at, s->usable - 4);

		if (!p)
			return -EINVAL;
		memcpy(s->record + at, p + 4, n);
		at += n;
		page = load_be32(p);
	}
	return 0;
}

static int read_cell(struct sqlite *s, const uint8_t *page, size_t at)
{
	const uint8_t *end = page + s->usable, *p;
	uint64_t payload, row;
	size_t local;
	int r;

	p = get_varint(page + at, end, &payload);
	if (p)
		p = get_varint(p, end, &row);
	if (!p || payload > s->db->len + s->db->wal_len)
		return rpm_bad(s->db, "a row is larger than the file");
	local = local_size(s, payload);
	if (local > (size_t)(end - p) || (payload > local && (size_t)(end - p) - local < 4))
		return rpm_bad(s->db, "a row ends outside of its page");
	if (payload == local)
		return s->each(s, p, local);
	r = rpm_room(&s->record, &s->room, (size_t)payload);
	if (r < 0)
		return r;
	memcpy(s->record, p, local);
	r = read_overflow(s, load_be32(p + local), local, (size_t)payload);
	return r < 0 ? r : s->each(s, s->record, (size_t)payload);
}

static int walk(struct sqlite *s, uint32_t number, unsigned depth)
{
	const uint8_t *page = get_page(s, number), *h;
	size_t head, cells, first;
	int r = 0;

	if (!page)
		return -EINVAL;
	h = number == 1 ? page + 100 : page;
	head = (size_t)(h - page);
	cells = load_be16(h + 3);
	first = head + (h[0] == LEAF ? 8 : 12);
	if ((h[0] != LEAF && h[0] != INTERIOR) || depth > DEPTH_MAX ||
	    first + 2 * cells > s->usable)
		return rpm_bad(s->db, "a page of its table makes no sense");
	for (size_t i = 0; i < cells && r == 0; i++) {
		size_t at = load_be16(page + first + 2 * i);

		if (at < first + 2 * cells || at > s->usable - 4)
			return rpm_bad(s->db, "a row lies outside of its page");
		r = h[0] == LEAF ? read_cell(s, page, at) : walk(s, load_be32(page + at), depth + 1);
	}
	return r == 0 && h[0] == INTERIOR ? walk(s, load_be32(h + 8), depth + 1) : r;
}

static int read_all(struct sqlite *s)
{
	int r = read_wal(s);

	s->visits = s->n_pages;
	s->each = take_schema;
	if (r == 0)
		r = walk(s, 1, 0);
	if (r == 0 && !s->root)
		return rpm_bad(s->db, "it has no table of packages");
	s->each = take_blob;
	return r == 0 ? walk(s, s->root, 0) : r;
}

int rpm_sqlite(struct rpm_db *db)
{
	struct sqlite s = { .db = db, .page_size = load_be16(db->p + 16) };
	int r;

	if (s.page_size == 1)
		s.page_size = 65536;
	if (s.page_size < 512 || s.page_size & (s.page_size - 1) || db->p[20] > s.page_size - 480 ||
	    load_be32(db->p + 56) > 1 || db->len / s.page_size >= UINT32_MAX / 2)
		return rpm_bad(db, "its header makes no sense");
	s.usable = s.page_size - db->p[20];
	s.n_pages = (uint32_t)(db->len / s.page_size);
	r = read_all(&s);
	free(s.record);
	free(s.in_wal);
	return r;
}
