/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * locator.c - how a person names a disk: SOURCE[@SNAPSHOT][#PART][:/path]
 *
 * A locator is read from the right, as what stands on the left is a file name,
 * where anything may be:
 *
 *   1. A file that exists under the whole name wins over any splitting.
 *   2. ":/..." from the first ":/" on is the path, if that is not the "://" of
 *      a URI.
 *   3. "#PART" begins at the last '#' and "@SNAPSHOT" at the last '@' before it,
 *      each with something on both sides, and a snapshot has no '/' in it.  Of
 *      the ways to take that - neither, one of them, both - the one that leaves
 *      the longest name of a file that exists wins; if none does, both are
 *      split off.
 *
 * "file:NAME" is NAME with percent-escapes: there, %40, %23 and %3A name the
 * characters that would split, and rule 1 does not apply.
 *
 * A URI (iscsi://, nbd://, nbd+unix://, rbd:) is a source too; nothing before
 * its "#PART" is looked at.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/driver.h"

static const char *const uri_schemes[] = {
	"iscsi://", "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "rbd:",
};

static bool is_uri(const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(uri_schemes); i++) {
		if (!strncmp(text, uri_schemes[i], strlen(uri_schemes[i])))
			return true;
	}
	return false;
}

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* Decode %XX in place; a NUL byte cannot be part of a name. */
static int unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (*s == '%') {
			int high = vd_hex_digit(s[1]), low = high < 0 ? -1 : vd_hex_digit(s[2]);

			if (low < 0 || (!high && !low))
				return -EINVAL;
			*out++ = (char)(high << 4 | low);
			s += 3;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
	return 0;
}

/* Cut @text at @at and return a copy of what follows the separator; NULL: no memory. */
static char *cut(char *at)
{
	*at = '\0';
	return strdup(at + 1);
}

/* Where the path begins (at its colon), or NULL. */
static char *find_path(char *text)
{
	for (char *p = strstr(text, ":/"); p; p = strstr(p + 1, ":/")) {
		if (p > text && p[2] != '/')
			return p;
		/* "disk://etc" is a path with two slashes, "nbd://" is not */
		if (p > text && p[2] == '/' && !is_uri(text))
			return p;
	}
	return NULL;
}

/* "p1", "label=", "uuid=", "vg/lv": anything but nothing. */
static char *find_part(char *text)
{
	char *p = strrchr(text, '#');

	return p && p > text && p[1] && p[1] != '/' ? p : NULL;
}

static char *find_snapshot(char *text)
{
	char *p = strrchr(text, '@');

	return p && p > text && p[1] && p[-1] != '/' && !strchr(p, '/') ? p : NULL;
}

/* Does a file exist under what is before @at? */
static bool exists_before(char *text, char *at)
{
	char c = *at;
	bool yes;

	*at = '\0';
	yes = exists(text);
	*at = c;
	return yes;
}

/* Split "#PART" and "@SNAPSHOT" off: rule 3.  @look: at the file system. */
static int split_source(struct vdisk_locator *loc, char *text, bool look)
{
	char *part = find_part(text);
	char *snapshot = look ? find_snapshot(text) : NULL;

	if (look && exists(text))
		return 0;
	/* "a#1.img@snap" when a#1.img exists: the '#' is part of the name */
	if (part && !(snapshot > part && exists_before(text, snapshot))) {
		loc->part = cut(part);
		if (!loc->part)
			return -ENOMEM;
		if (look && exists(text))
			return 0;
	}
	if (is_uri(text))
		return 0;
	snapshot = find_snapshot(text);
	if (snapshot) {
		loc->snapshot = cut(snapshot);
		if (!loc->snapshot)
			return -ENOMEM;
	}
	return 0;
}

static int parse_into(struct vdisk_locator *loc, char *text, bool escaped)
{
	bool look = !escaped && !is_uri(text);
	char *path;

	if (look && exists(text))
		return 0;
	path = find_path(text);
	if (path) {
		loc->path = cut(path);
		if (!loc->path)
			return -ENOMEM;
	}
	return split_source(loc, text, look);
}

int vdisk_locator_parse(struct vdisk_locator *out, const char *text, struct vdisk_error *err)
{
	struct vdisk_locator loc = { 0 };
	bool escaped = !strncmp(text, "file:", 5) && !exists(text);
	int r;

	if (escaped)
		text += 5;
	if (!*text)
		return vd_fail(err, EINVAL, "the name of a disk is empty");
	loc.source = strdup(text);
	r = loc.source ? parse_into(&loc, loc.source, escaped) : -ENOMEM;
	if (r == 0 && escaped) {
		r = unescape(loc.source);
		if (r == 0 && loc.snapshot)
			r = unescape(loc.snapshot);
		if (r == 0 && loc.part)
			r = unescape(loc.part);
		if (r == 0 && !*loc.source)
			r = -EINVAL;
	}
	if (r < 0) {
		vdisk_locator_clear(&loc);
		if (r == -ENOMEM)
			return vd_fail(err, ENOMEM, "out of memory");
		return vd_fail(err, EINVAL, "file:%s: a '%%' must be followed by two hexadecimal "
			       "digits other than 00", text);
	}
	*out = loc;
	return 0;
}

void vdisk_locator_clear(struct vdisk_locator *loc)
{
	free(loc->source);
	free(loc->snapshot);
	free(loc->part);
	free(loc->path);
	*loc = (struct vdisk_locator) { 0 };
}

/*
 * What must be written as %XX: what could split a locator, and '%'; in the name
 * of a snapshot '/' too, and in front of a partition's, where it ends the search,
 * and right before a snapshot, where none is looked for.
 */
#define ESCAPED		"%@#:"
#define ESCAPED_SNAPSHOT ESCAPED "/"

static void put_escaped(FILE *f, const char *s, const char *set)
{
	for (; *s; s++) {
		if (strchr(set, *s) || iscntrl((unsigned char)*s))
			fprintf(f, "%%%02X", (unsigned char)*s);
		else
			fputc(*s, f);
	}
}

/* "dir/@snapshot" would not be split. */
static bool slash_before_snapshot(const struct vdisk_locator *loc)
{
	return loc->snapshot && loc->source[strlen(loc->source) - 1] == '/';
}

static bool needs_escape(const struct vdisk_locator *loc)
{
	return strpbrk(loc->source, ESCAPED) || slash_before_snapshot(loc) ||
	       (loc->snapshot && strpbrk(loc->snapshot, ESCAPED_SNAPSHOT)) ||
	       (loc->part && (strpbrk(loc->part, ESCAPED) || loc->part[0] == '/'));
}

static void put(FILE *f, const char *s, bool escape, const char *set)
{
	if (escape)
		put_escaped(f, s, set);
	else
		fputs(s, f);
}

int vdisk_parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGTPE";
	uint64_t v;
	char *end;
	const char *u;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	u = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (u) {
		if (!vd_mul(v, UINT64_C(1) << 10 * (u - units + 1), &v))
			return -EINVAL;
		end++;
	} else if (*end == 'b' || *end == 'B') {
		end++;
	}
	/* "64K", "64KiB", "64KB": people write all of them */
	if (u && (!strcasecmp(end, "iB") || !strcasecmp(end, "B")))
		end += strlen(end);
	if (*end)
		return -EINVAL;
	*out = v;
	return 0;
}

char *vdisk_locator_format(const struct vdisk_locator *loc)
{
	bool escape = !is_uri(loc->source) && needs_escape(loc);
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	if (escape)
		fputs("file:", f);
	put(f, loc->source, escape,
	    escape && slash_before_snapshot(loc) ? ESCAPED_SNAPSHOT : ESCAPED);
	if (loc->snapshot) {
		fputc('@', f);
		put(f, loc->snapshot, escape, ESCAPED_SNAPSHOT);
	}
	if (loc->part) {
		fputc('#', f);
		put(f, loc->part, escape, loc->part[0] == '/' ? ESCAPED_SNAPSHOT : ESCAPED);
	}
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
