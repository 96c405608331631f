/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat_name.c - the directory entries that a new name needs
 *
 * A name that is 8.3 in upper case needs one.  Any other is stored as it is, in
 * UTF-16, in up to twenty entries before that of the node, which gets a short
 * name that nothing else in the directory has: what can be kept of the name in
 * the short alphabet, cut, and with ~1, ~2 ... at its end where something was
 * lost (Microsoft's FAT specification, "Basis-Name Generation").
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "fs/fat.h"

#define UNITS_MAX	255u
#define PART_UNITS	13u

/* ---- UTF-8 ---- */

/* The next character of @p; 0: it is none. */
static uint32_t next_char(const uint8_t **p)
{
	const uint8_t *s = *p;
	unsigned n = s[0] < 0x80 ? 0 : s[0] >= 0xc2 && s[0] < 0xe0 ? 1 :
		     s[0] >= 0xe0 && s[0] < 0xf0 ? 2 : s[0] >= 0xf0 && s[0] < 0xf5 ? 3 : 9;
	uint32_t c = n == 0 ? s[0] : s[0] & (0x3fu >> n);

	if (n == 9)
		return 0;
	for (unsigned i = 1; i <= n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	*p = s + n + 1;
	if ((n == 2 && c < 0x800) || (n == 3 && (c < 0x10000 || c > 0x10ffff)) ||
	    (c >= 0xd800 && c < 0xe000))
		return 0;
	return c;
}

/* Units of UTF-16, their number, or -errno. */
static int to_utf16(uint16_t unit[UNITS_MAX], const char *name, struct vdisk_error *err)
{
	const uint8_t *p = (const uint8_t *)name;
	unsigned n = 0;

	while (*p) {
		uint32_t c = next_char(&p);

		if (!c)
			return vd_fail(err, EINVAL, "the name is not UTF-8, which FAT needs");
		if (c < 0x20 || c == 0x7f || (c < 0x80 && strchr("\"*/:<>?\\|", (int)c)))
			return vd_fail(err, EINVAL, "a name in FAT has no control characters and none "
				       "of \"*/:<>?\\|");
		if (n + (c >= 0x10000 ? 2 : 1) > UNITS_MAX)
			return vd_fail(err, ENAMETOOLONG, "a name in FAT has at most %u characters",
				       UNITS_MAX);
		if (c >= 0x10000) {
			unit[n++] = (uint16_t)(0xd800 + ((c - 0x10000) >> 10));
			unit[n++] = (uint16_t)(0xdc00 + ((c - 0x10000) & 0x3ff));
		} else {
			unit[n++] = (uint16_t)c;
		}
	}
	if (!n || unit[n - 1] == '.' || unit[n - 1] == ' ')
		return vd_fail(err, EINVAL, "a name in FAT does not end in a dot or a blank");
	return (int)n;
}

/* ---- short names ---- */

static bool short_char(char c)
{
	return isupper((unsigned char)c) || isdigit((unsigned char)c) ||
	       (c && strchr("$%'-_@~`!(){}^#&", c));
}

/* 8.3 in upper case as it stands. */
static bool is_short(uint8_t out[11], const char *name)
{
	const char *dot = strchr(name, '.');
	size_t base = dot ? (size_t)(dot - name) : strlen(name);
	size_t ext = dot ? strlen(dot + 1) : 0;

	if (!base || base > 8 || ext > 3 || (dot && !ext))
		return false;
	memset(out, ' ', 11);
	for (size_t i = 0; i < base; i++) {
		if (!short_char(name[i]))
			return false;
		out[i] = (uint8_t)name[i];
	}
	for (size_t i = 0; i < ext; i++) {
		if (!short_char(dot[1 + i]))
			return false;
		out[8 + i] = (uint8_t)dot[1 + i];
	}
	return true;
}

/* Append what can be kept of [@p, @end); true if anything but case was lost. */
static bool keep(uint8_t *out, size_t room, const char *p, const char *end)
{
	bool lost = false;
	size_t n = 0;

	for (; p < end; p++) {
		char c = (char)toupper((unsigned char)*p);

		if (c == ' ' || c == '.') {
			lost = true;
			continue;
		}
		if ((*p & 0xc0) == 0x80)
			continue;	/* the rest of a character that became '_' */
		if (n == room)
			return true;
		if (!short_char(c)) {
			c = '_';
			lost = true;
		}
		out[n++] = (uint8_t)c;
	}
	return lost;
}

static bool basis(uint8_t out[11], const char *name)
{
	const char *start = name + strspn(name, ". "), *dot = strrchr(start, '.');
	const char *end = dot ? dot : start + strlen(start);
	bool lost = start != name;

	memset(out, ' ', 11);
	lost |= keep(out, 8, start, end);
	if (dot)
		lost |= keep(out + 8, 3, dot + 1, dot + strlen(dot));
	if (out[0] == ' ') {
		out[0] = '_';
		lost = true;
	}
	return lost;
}

/* Put @tail behind what fits of the base. */
static void put_tail(uint8_t out[11], const uint8_t base[11], unsigned keep_max, const char *tail)
{
	size_t n = strlen(tail), at = 0;

	memcpy(out, base, 11);
	while (at < keep_max && at < 8 - n && base[at] != ' ')
		at++;
	memset(out + at, ' ', 8 - at);
	memcpy(out + at, tail, n);
}

static int find_alias(uint8_t out[11], const char *name,
		      int (*taken)(void *arg, const uint8_t name[11]), void *arg,
		      struct vdisk_error *err)
{
	uint8_t base[11];
	bool lost = basis(base, name);
	uint32_t hash = 5381;
	char tail[12];
	int r;

	memcpy(out, base, 11);
	r = lost ? 1 : taken(arg, out);
	for (unsigned i = 1; r > 0 && i <= 4; i++) {
		snprintf(tail, sizeof(tail), "~%u", i);
		put_tail(out, base, 6, tail);
		r = taken(arg, out);
	}
	for (const char *p = name; *p; p++)
		hash = hash * 33 + (uint8_t)*p;
	for (unsigned i = 0; r > 0 && i < 65536; i++) {
		snprintf(tail, sizeof(tail), "%04X~1", (hash + i) & 0xffff);
		put_tail(out, base, 2, tail);
		r = taken(arg, out);
	}
	return r > 0 ? vd_fail(err, ENOSPC, "there is no short name left for it") : r;
}

/* ---- entries ---- */

static void long_entry(uint8_t *e, const uint16_t *unit, unsigned n, unsigned part, bool last,
		       uint8_t sum)
{
	static const uint8_t places[PART_UNITS] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30 };

	memset(e, 0, FAT_ENTRY);
	e[0] = (uint8_t)((part + 1) | (last ? 0x40 : 0));
	e[11] = FAT_LONG_NAME;
	e[13] = sum;
	for (unsigned i = 0; i < PART_UNITS; i++) {
		unsigned at = part * PART_UNITS + i;

		store_le16(e + places[i], at < n ? unit[at] : at == n ? 0 : 0xffff);
	}
}

int fat_name_new(struct fat_new_name *out, const char *name,
		 int (*taken)(void *arg, const uint8_t name[11]), void *arg,
		 struct vdisk_error *err)
{
	uint16_t unit[UNITS_MAX];
	uint8_t alias[11], sum;
	unsigned parts;
	int n = to_utf16(unit, name, err), r;

	if (n < 0)
		return n;
	out->n = 1;
	out->entry[0][12] = 0;
	if (is_short(alias, name)) {
		r = taken(arg, alias);
		if (r <= 0) {
			memcpy(out->entry[0], alias, 11);
			return r;
		}
		/* the short name of another file: this one needs a long name too */
	}
	r = find_alias(alias, name, taken, arg, err);
	if (r < 0)
		return r;
	parts = ((unsigned)n + PART_UNITS - 1) / PART_UNITS;
	memcpy(out->entry[parts], out->entry[0], FAT_ENTRY);
	memcpy(out->entry[parts], alias, 11);
	sum = fat_short_sum(alias);
	for (unsigned i = 0; i < parts; i++)
		long_entry(out->entry[parts - 1 - i], unit, (unsigned)n, i, i == parts - 1, sum);
	out->n = parts + 1;
	return 0;
}

int fat_label_encode(uint8_t out[11], const char *label, struct vdisk_error *err)
{
	size_t n = strlen(label);

	if (n > 11)
		return vd_fail(err, EINVAL, "'%s': a label of FAT has at most 11 characters", label);
	memset(out, ' ', 11);
	for (size_t i = 0; i < n; i++) {
		char c = (char)toupper((unsigned char)label[i]);

		if ((!short_char(c) && c != ' ') || (i == 0 && c == ' '))
			return vd_fail(err, EINVAL, "'%s': a label of FAT is made of letters, digits, "
				       "blanks and some of the other characters of ASCII", label);
		out[i] = (uint8_t)c;
	}
	return 0;
}
