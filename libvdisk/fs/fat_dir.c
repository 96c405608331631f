/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat_dir.c - directories of FAT and the names in them
 *
 * A directory is a row of 32-byte entries, up to the first that begins with a
 * zero.  A name of up to 8.3 characters is in the entry itself, in the
 * alphabet of the PC (code page 437); a longer or more colourful one stands in
 * entries of its own before it, in UTF-16, backwards, with a checksum of the
 * short name, by which leftovers are told from what belongs there.
 *
 *	short	 0 name[11]   11 attributes   12 case of the name   13 created
 *		20 le16 first cluster, high   22 modified   26 low   28 le32 size
 *	long	 0 number (0x40: the last, first in the row)   1, 14, 28 name
 *		11 attributes (0x0f)   13 checksum
 */
#include <errno.h>
#include <uchar.h>

#include "fs/fat.h"

#define LONG_UNITS	13u	/* UTF-16 units in one entry */
#define LONG_MAX_PARTS	20u

/* ---- characters ---- */

static const char16_t cp437[128 + 1] =
	u"ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐"
	u"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0";

/* A name being written; ->len beyond its room: it does not fit. */
struct text {
	char *out;
	size_t len;
	bool bad;
};

static void put_byte(struct text *t, unsigned b)
{
	if (t->len < VD_NAME_MAX)
		t->out[t->len++] = (char)b;
	else
		t->bad = true;
}

static void put_char(struct text *t, uint32_t c)
{
	if (c < 0x20 || c == '/' || c == 0x7f)
		t->bad = true;
	if (c < 0x80) {
		put_byte(t, c);
	} else if (c < 0x800) {
		put_byte(t, 0xc0 | c >> 6);
		put_byte(t, 0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		put_byte(t, 0xe0 | c >> 12);
		put_byte(t, 0x80 | (c >> 6 & 0x3f));
		put_byte(t, 0x80 | (c & 0x3f));
	} else {
		put_byte(t, 0xf0 | c >> 18);
		put_byte(t, 0x80 | (c >> 12 & 0x3f));
		put_byte(t, 0x80 | (c >> 6 & 0x3f));
		put_byte(t, 0x80 | (c & 0x3f));
	}
}

/* false: no name that a file can have; @out is unspecified then. */
static bool finish(struct text *t)
{
	t->out[t->len] = '\0';
	return !t->bad && t->len && strcmp(t->out, ".") != 0 && strcmp(t->out, "..") != 0;
}

static bool long_text(char *out, const uint16_t *unit, unsigned n)
{
	struct text t = { .out = out };

	for (unsigned i = 0; i < n && unit[i]; i++) {
		uint32_t c = unit[i];

		if (c >= 0xd800 && c < 0xdc00 && i + 1 < n && unit[i + 1] >= 0xdc00 &&
		    unit[i + 1] < 0xe000)
			c = 0x10000 + ((c - 0xd800) << 10) + (unit[++i] - 0xdc00u);
		else if (c >= 0xd800 && c < 0xe000)
			t.bad = true;
		put_char(&t, c);
	}
	return finish(&t);
}

/* @n characters of a short name without the blanks behind them. */
static void short_part(struct text *t, const uint8_t *p, unsigned n, bool lower)
{
	while (n && p[n - 1] == ' ')
		n--;
	for (unsigned i = 0; i < n; i++) {
		uint32_t c = p[i] < 0x80 ? p[i] : cp437[p[i] - 0x80];

		put_char(t, lower && c >= 'A' && c <= 'Z' ? c + 32 : c);
	}
}

static bool short_text(char *out, const uint8_t e[FAT_ENTRY])
{
	struct text t = { .out = out };
	uint8_t base[8];

	memcpy(base, e, 8);
	if (base[0] == 0x05)	/* 0xe5 itself marks a removed entry */
		base[0] = 0xe5;
	short_part(&t, base, 8, e[12] & 0x08);
	if (memcmp(e + 8, "   ", 3) != 0) {
		put_byte(&t, '.');
		short_part(&t, e + 8, 3, e[12] & 0x10);
	}
	return finish(&t);
}

/* ---- entries ---- */

void fat_time_encode(struct timespec t, uint16_t *date, uint16_t *time, uint8_t *hundredths)
{
	struct tm tm;

	*date = 1 << 5 | 1;	/* the first day there is, and the last */
	*time = 0;
	*hundredths = 0;
	if (!gmtime_r(&t.tv_sec, &tm) || tm.tm_year < 80)
		return;
	if (tm.tm_year > 207)
		tm = (struct tm) { .tm_year = 207, .tm_mon = 11, .tm_mday = 31 };
	*date = (uint16_t)((tm.tm_year - 80) << 9 | (tm.tm_mon + 1) << 5 | tm.tm_mday);
	*time = (uint16_t)(tm.tm_hour << 11 | tm.tm_min << 5 | tm.tm_sec / 2);
	*hundredths = (uint8_t)(tm.tm_sec % 2 * 100 + t.tv_nsec / 10000000);
}

/* Dates count from 1980, hours are nobody's: taken as UTC. */
static struct timespec decode_time(uint16_t date, uint16_t time, uint8_t hundredths)
{
	struct tm tm = {
		.tm_year = 80 + (date >> 9), .tm_mon = (date >> 5 & 15) - 1, .tm_mday = date & 31,
		.tm_hour = time >> 11, .tm_min = time >> 5 & 63, .tm_sec = (time & 31) * 2,
	};

	if (!date)
		return (struct timespec) { 0 };
	return (struct timespec) {
		.tv_sec = timegm(&tm) + hundredths / 100,
		.tv_nsec = hundredths % 100 * 10000000,
	};
}

void fat_node_decode(struct fat_node *out, const uint8_t e[FAT_ENTRY], unsigned bits)
{
	*out = (struct fat_node) {
		.attr = e[11],
		.first = load_le16(e + 26) | (bits == 32 ? (uint32_t)load_le16(e + 20) << 16 : 0),
		.size = e[11] & FAT_DIRECTORY ? 0 : load_le32(e + 28),
		.created = decode_time(load_le16(e + 16), load_le16(e + 14), e[13]),
		.modified = decode_time(load_le16(e + 24), load_le16(e + 22), 0),
		.accessed = decode_time(load_le16(e + 18), 0, 0),
	};
}

uint8_t fat_short_sum(const uint8_t name[11])
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < 11; i++)
		sum = (uint8_t)((sum >> 1 | sum << 7) + name[i]);
	return sum;
}

/* A long name on its way: parts come from the last to the first. */
struct gather {
	uint16_t unit[LONG_MAX_PARTS * LONG_UNITS];
	unsigned n;		/* units; 0: none */
	unsigned expect;	/* the next part's number; 0: complete */
	uint8_t sum;
};

static void gather_part(struct gather *g, const uint8_t e[FAT_ENTRY])
{
	static const uint8_t places[LONG_UNITS] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30 };
	unsigned number = e[0] & 0x3f;

	if (e[0] & 0x40) {
		*g = (struct gather) { .n = number * LONG_UNITS, .expect = number, .sum = e[13] };
		if (number > LONG_MAX_PARTS)
			g->n = 0;
	}
	if (!g->n || !number || number != g->expect || e[13] != g->sum) {
		g->n = 0;
		return;
	}
	for (unsigned i = 0; i < LONG_UNITS; i++)
		g->unit[(number - 1) * LONG_UNITS + i] = load_le16(e + places[i]);
	g->expect--;
}

/* The names of the entry @e, behind what was gathered.  false: it has none. */
static bool entry_name(struct fat_name *out, const struct gather *g, const uint8_t e[FAT_ENTRY])
{
	bool has_short = short_text(out->alias, e);

	if (g->n && !g->expect && g->sum == fat_short_sum(e) && long_text(out->text, g->unit, g->n)) {
		if (!has_short)
			out->alias[0] = '\0';
		return true;
	}
	memcpy(out->text, out->alias, sizeof(out->text));
	return has_short;
}

/* ---- directories ---- */

struct scan {
	int (*each)(void *arg, const struct fat_name *name, uint64_t ino);
	void *arg;
	struct gather gather;
};

#define SCAN_ENDED INT32_MIN

/* @len bytes of entries that lie at @at. */
static int scan_entries(struct scan *s, const uint8_t *p, size_t len, uint64_t at)
{
	for (size_t i = 0; i + FAT_ENTRY <= len; i += FAT_ENTRY) {
		const uint8_t *e = p + i;
		struct fat_name name;
		int r;

		if (e[0] == 0)
			return SCAN_ENDED;
		if (e[0] == 0xe5) {
			s->gather.n = 0;
			continue;
		}
		if ((e[11] & 0x3f) == FAT_LONG_NAME) {
			gather_part(&s->gather, e);
			continue;
		}
		if (!(e[11] & FAT_VOLUME) && entry_name(&name, &s->gather, e)) {
			r = s->each(s->arg, &name, at + i);
			if (r)
				return r;
		}
		s->gather.n = 0;
	}
	return 0;
}

/* The next piece of the directory: where, and how long.  0; 1: there is none. */
static int next_piece(struct fat *f, bool fixed, const struct fat_node *n, uint64_t off,
		      uint64_t want, uint64_t *at, uint64_t *len, struct vdisk_error *err)
{
	if (!fixed)
		return fat_chain_map(f, n->first, off, want, at, len, err);
	if (off >= f->g.root_size)
		return 1;
	*at = f->g.root + off;
	*len = MIN(want, f->g.root_size - off);
	return 0;
}

/* What to do with a piece of a directory. */
typedef int each_piece(void *arg, const uint8_t *p, size_t len, uint64_t at);

static int each_of(struct fat *f, uint64_t dir, each_piece *each, void *arg,
		   struct vdisk_error *err)
{
	bool fixed = dir == FAT_ROOT_INO && f->g.root_size;
	struct fat_node n;
	uint8_t buf[4096];
	int r = fat_node_read(f, dir, &n, err);

	for (uint64_t off = 0, len; r == 0; off += len) {
		uint64_t at;

		if (off >= FAT_DIR_MAX)
			return vd_fail(err, EUCLEAN, "the directory is too long");
		r = next_piece(f, fixed, &n, off, sizeof(buf), &at, &len, err);
		if (r != 0)
			return r < 0 ? r : 0;
		if (!vd_in_range(at, len, vdisk_size(f->disk)))
			return vd_fail(err, EUCLEAN, "the directory goes on past the volume");
		r = vdisk_read(f->disk, buf, (size_t)len, at);
		if (r < 0)
			return vd_fail(err, -r, "reading a directory: %s", strerror(-r));
		r = each(arg, buf, (size_t)len, at);
	}
	return r;
}

static int scan_piece(void *arg, const uint8_t *p, size_t len, uint64_t at)
{
	return scan_entries(arg, p, len, at);
}

int fat_dir_each(struct fat *f, uint64_t dir,
		 int (*each)(void *arg, const struct fat_name *name, uint64_t ino), void *arg,
		 struct vdisk_error *err)
{
	struct scan s = { .each = each, .arg = arg };
	int r = each_of(f, dir, scan_piece, &s, err);

	return r == SCAN_ENDED ? 0 : r;
}

struct raw {
	int (*each)(void *arg, const uint8_t entry[FAT_ENTRY], uint64_t at);
	void *arg;
};

static int raw_piece(void *arg, const uint8_t *p, size_t len, uint64_t at)
{
	const struct raw *raw = arg;
	int r = 0;

	for (size_t i = 0; r == 0 && i + FAT_ENTRY <= len; i += FAT_ENTRY)
		r = raw->each(raw->arg, p + i, at + i);
	return r;
}

int fat_dir_raw(struct fat *f, uint64_t dir,
		int (*each)(void *arg, const uint8_t entry[FAT_ENTRY], uint64_t at), void *arg,
		struct vdisk_error *err)
{
	struct raw raw = { each, arg };

	return each_of(f, dir, raw_piece, &raw, err);
}
