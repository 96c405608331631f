/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * descriptor.c - the text that says what a disk consists of
 *
 *	# Disk DescriptorFile
 *	version=1
 *	CID=12345678
 *	parentCID=ffffffff
 *	createType="monolithicFlat"
 *	RW 8388608 FLAT "disk-flat.vmdk" 0
 *	ddb.adapterType = "lsilogic"
 *
 * Lines end with LF or CR LF; names of keys are of any case, values with or without
 * quotes, and what we do not know is passed over.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/driver.h"
#include "formats/vmdk/vmdk.h"

#define FIRST_LINE	"# Disk DescriptorFile"

/* A piece of the text. */
struct piece {
	const char *p;
	size_t len;
};

struct parser {
	struct vmdk_descriptor *d;
	const char *text;
	unsigned line;
	struct vdisk_error *err;
};

static int bad(const struct parser *ps, int code, const char *what)
{
	return vd_fail(ps->err, code, "descriptor, line %u: %s", ps->line, what);
}

static struct piece trim(struct piece s)
{
	while (s.len && isspace((unsigned char)s.p[0]))
		s.p++, s.len--;
	while (s.len && isspace((unsigned char)s.p[s.len - 1]))
		s.len--;
	return s;
}

/* The next word of @rest, which is then what follows it; a word in quotes may have spaces. */
static struct piece next_word(struct piece *rest)
{
	struct piece s = trim(*rest), word = { s.p, 0 };
	bool quoted = s.len && s.p[0] == '"';
	size_t used;

	if (quoted)
		word.p++;
	used = quoted ? 1 : 0;
	while (used < s.len && (quoted ? s.p[used] != '"' : !isspace((unsigned char)s.p[used])))
		used++;
	word.len = used - (quoted ? 1 : 0);
	if (quoted && used < s.len)
		used++;
	*rest = (struct piece) { s.p + used, s.len - used };
	return word;
}

static bool is_word(struct piece s, const char *word)
{
	return s.len == strlen(word) && !strncasecmp(s.p, word, s.len);
}

static int take_string(const struct parser *ps, struct piece s, char **out)
{
	free(*out);
	*out = strndup(s.p, s.len);
	return *out ? 0 : vd_fail(ps->err, ENOMEM, "out of memory");
}

static int take_number(const struct parser *ps, struct piece s, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!s.len)
		return bad(ps, EINVAL, "a number is missing");
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] < '0' || s.p[i] > '9' || v > max / 10)
			return bad(ps, EINVAL, "a number makes no sense");
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	if (v > max)
		return bad(ps, EINVAL, "a number makes no sense");
	*out = v;
	return 0;
}

/* @at, @digits: where it stands, so that another one can be written there. */
static int take_id(const struct parser *ps, struct piece s, uint32_t *out, size_t *at,
		   unsigned *digits)
{
	uint32_t v = 0;

	if (!s.len || s.len > 8)
		return bad(ps, EINVAL, "a content ID has one to eight digits");
	for (size_t i = 0; i < s.len; i++) {
		int digit = vd_hex_digit(s.p[i]);

		if (digit < 0)
			return bad(ps, EINVAL, "a content ID is a hexadecimal number");
		v = v << 4 | (uint32_t)digit;
	}
	*out = v;
	*at = (size_t)(s.p - ps->text);
	*digits = (unsigned)s.len;
	return 0;
}

static int take_key(const struct parser *ps, struct piece key, struct piece value)
{
	struct vmdk_descriptor *d = ps->d;

	if (is_word(key, "CID"))
		return take_id(ps, value, &d->cid, &d->cid_at, &d->cid_digits);
	if (is_word(key, "parentCID"))
		return take_id(ps, value, &d->parent_cid, &d->parent_cid_at,
			       &d->parent_cid_digits);
	if (is_word(key, "createType"))
		return take_string(ps, value, &d->type);
	if (is_word(key, "parentFileNameHint"))
		return take_string(ps, value, &d->parent);
	if (is_word(key, "ddb.adapterType"))
		return take_string(ps, value, &d->adapter);
	return 0;
}

static int extent_kind(const struct parser *ps, struct piece s, enum vmdk_kind *out)
{
	static const struct {
		const char *word;
		enum vmdk_kind kind;
	} kinds[] = {
		{ "FLAT", VMDK_FLAT }, { "VMFS", VMDK_FLAT },
		{ "SPARSE", VMDK_SPARSE }, { "VMFSSPARSE", VMDK_SPARSE },
		{ "ZERO", VMDK_ZERO },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_word(s, kinds[i].word)) {
			*out = kinds[i].kind;
			return 0;
		}
	return vd_fail(ps->err, ENOTSUP, "descriptor, line %u: extents of the kind '%.*s' are not supported",
		       ps->line, (int)MIN(s.len, (size_t)20), s.p);
}

static int take_extent(const struct parser *ps, enum vmdk_access access, struct piece rest)
{
	struct vmdk_descriptor *d = ps->d;
	struct piece sectors = next_word(&rest), kind = next_word(&rest);
	struct vmdk_line *more, *line;
	int r;

	if (d->n_lines == VMDK_MAX_EXTENTS)
		return bad(ps, EINVAL, "there are too many extents");
	more = reallocarray(d->line, d->n_lines + 1, sizeof(*d->line));
	if (!more)
		return vd_fail(ps->err, ENOMEM, "out of memory");
	d->line = more;
	line = &d->line[d->n_lines++];
	*line = (struct vmdk_line) { .access = access };
	/* (in bytes it has to be less than 2^63, and so has the sum of all) */
	r = take_number(ps, sectors, UINT64_C(1) << 41, &line->sectors);
	if (r == 0)
		r = extent_kind(ps, kind, &line->kind);
	if (r < 0 || line->kind == VMDK_ZERO)
		return r;
	r = take_string(ps, next_word(&rest), &line->name);
	if (r == 0 && !line->name[0])
		r = bad(ps, EINVAL, "an extent has no name");
	rest = trim(rest);
	if (r == 0 && line->kind == VMDK_FLAT && rest.len)
		r = take_number(ps, next_word(&rest), UINT64_C(1) << 53, &line->offset);
	return r;
}

static int take_line(const struct parser *ps, struct piece s)
{
	static const struct {
		const char *word;
		enum vmdk_access access;
	} accesses[] = {
		{ "RW", VMDK_RW }, { "RDONLY", VMDK_RDONLY }, { "NOACCESS", VMDK_NOACCESS },
	};
	struct piece rest = s, first, value;
	const char *is;

	s = trim(s);
	if (!s.len || s.p[0] == '#')
		return 0;
	rest = s;
	first = next_word(&rest);
	for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++)
		if (is_word(first, accesses[i].word) && rest.len)
			return take_extent(ps, accesses[i].access, rest);
	is = memchr(s.p, '=', s.len);
	if (!is)
		return 0;
	rest = trim((struct piece) { is + 1, s.len - (size_t)(is + 1 - s.p) });
	value = rest.len && rest.p[0] == '"' ? next_word(&rest) : rest;
	return take_key(ps, trim((struct piece) { s.p, (size_t)(is - s.p) }), value);
}

bool vmdk_descriptor_begins(const uint8_t *p, size_t len)
{
	struct piece s = trim((struct piece) { (const char *)p, len });

	return s.len >= strlen(FIRST_LINE) && !strncasecmp(s.p, FIRST_LINE, strlen(FIRST_LINE));
}

int vmdk_descriptor_parse(struct vmdk_descriptor *d, const char *text, size_t len,
			  struct vdisk_error *err)
{
	struct parser ps = { .d = d, .text = text, .err = err };
	int r = 0;

	*d = (struct vmdk_descriptor) { .parent_cid = VMDK_NO_PARENT };
	/* in a sparse file it is followed by zeroes */
	len = strnlen(text, len);
	for (size_t at = 0; at < len && r == 0; ) {
		const char *end = memchr(text + at, '\n', len - at);
		size_t n = end ? (size_t)(end - text) - at : len - at;

		ps.line++;
		r = take_line(&ps, (struct piece) { text + at, n });
		at += n + 1;
	}
	if (r == 0 && !d->type)
		r = vd_fail(err, EINVAL, "the descriptor has no createType");
	if (r == 0 && !d->cid_digits)
		r = vd_fail(err, EINVAL, "the descriptor has no content ID (CID)");
	if (r < 0)
		vmdk_descriptor_clear(d);
	return r;
}

void vmdk_descriptor_clear(struct vmdk_descriptor *d)
{
	for (unsigned i = 0; i < d->n_lines; i++)
		free(d->line[i].name);
	free(d->line);
	free(d->type);
	free(d->adapter);
	free(d->parent);
	*d = (struct vmdk_descriptor) { .cid = 0 };
}
