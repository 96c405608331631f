/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * config.c - the text in which LVM2 writes its metadata, read into a tree
 *
 *	file    = { entry }
 *	entry   = name "{" { entry } "}"  |  name "=" value
 *	value   = item  |  "[" [ item { "," item } [ "," ] ] "]"
 *	item    = integer | "string" with \" and \\ | 'string'
 *	a "#" outside of strings begins a comment that ends with the line
 *
 * The text comes from the disk.  The parser is a loop that keeps the open
 * sections on a stack of LVM_DEPTH_MAX, and makes at most LVM_NODES_MAX nodes;
 * strings are unescaped in place, where they only get shorter.
 */
#include <ctype.h>
#include <errno.h>

#include "lvm/lvm.h"

struct parser {
	struct lvm_config *c;
	char *p;		/* what comes next */
	const char *end;	/* the NUL behind the text */
	unsigned line;
	struct {
		uint32_t section;
		uint32_t last;	/* its last child so far, or 0 */
	} open[LVM_DEPTH_MAX];
	unsigned depth;		/* of open[] that is in use, from 1 */
	struct vdisk_error *err;
};

static int bad(struct parser *ps, const char *what)
{
	return vd_fail(ps->err, EINVAL, "metadata line %u: %s", ps->line, what);
}

static void skip_space(struct parser *ps)
{
	for (; ps->p < ps->end; ps->p++) {
		if (*ps->p == '#')
			while (ps->p < ps->end && *ps->p != '\n')
				ps->p++;
		if (*ps->p == '\n')
			ps->line++;
		else if (ps->p == ps->end || !isspace((unsigned char)*ps->p))
			return;
	}
}

static uint32_t place(const struct parser *ps, const char *p)
{
	return (uint32_t)(p - ps->c->text);
}

/* Is @ch next?  Then it is taken. */
static bool accept(struct parser *ps, char ch)
{
	skip_space(ps);
	if (ps->p == ps->end || *ps->p != ch)
		return false;
	ps->p++;
	return true;
}

/* A new node at the end of the list that @last is the last of, in @in. */
static int add_node(struct parser *ps, uint32_t in, uint32_t *last, enum lvm_node_type type,
		    const char *name)
{
	struct lvm_config *c = ps->c;

	if (c->count == c->room) {
		uint32_t room = c->room ? 2 * c->room : 256;
		struct lvm_node *more;

		if (room > LVM_NODES_MAX)
			return bad(ps, "too much of everything");
		more = reallocarray(c->node, room, sizeof(*more));
		if (!more)
			return vd_fail(ps->err, ENOMEM, "out of memory");
		c->node = more;
		c->room = room;
	}
	c->node[c->count] = (struct lvm_node) { .type = type, .name = name };
	if (c->count) {
		if (*last)
			c->node[*last].next = c->count;
		else
			c->node[in].child = c->count;
	}
	*last = c->count++;
	return 0;
}

/* ---- values ---- */

static int parse_string(struct parser *ps, struct lvm_node *n)
{
	char quote = *ps->p++, *to = ps->p;

	n->string = to;
	for (; ps->p < ps->end && *ps->p != quote; ps->p++) {
		if (*ps->p == '\\' && quote == '"' && ps->p + 1 < ps->end &&
		    (ps->p[1] == '"' || ps->p[1] == '\\'))
			ps->p++;
		if (*ps->p == '\n')
			ps->line++;
		if (!*ps->p)
			return bad(ps, "a NUL in a string");
		*to++ = *ps->p;
	}
	if (ps->p == ps->end)
		return bad(ps, "a string does not end");
	ps->p++;
	*to = '\0';	/* on the closing quote, or before it */
	return 0;
}

static int parse_number(struct parser *ps, struct lvm_node *n)
{
	char *end;

	errno = 0;
	n->number = strtoll(ps->p, &end, 10);
	if (end == ps->p)
		return bad(ps, "a value is neither number nor string");
	if (errno)
		return bad(ps, "a number is out of range");
	/* some newer setting, perhaps; none of those that count has a fraction */
	if (*end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	ps->p = end;
	return 0;
}

/* Fill in node @at. */
static int parse_item(struct parser *ps, uint32_t at)
{
	struct lvm_node *n = &ps->c->node[at];
	bool string;
	int r;

	skip_space(ps);
	string = ps->p < ps->end && (*ps->p == '"' || *ps->p == '\'');
	n->at = place(ps, ps->p);
	n->type = string ? LVM_STRING : LVM_NUMBER;
	r = string ? parse_string(ps, n) : parse_number(ps, n);
	n->end = place(ps, ps->p);
	return r;
}

static int parse_array(struct parser *ps, uint32_t at)
{
	uint32_t last = 0;

	ps->c->node[at].type = LVM_ARRAY;
	while (!accept(ps, ']')) {
		int r = add_node(ps, at, &last, LVM_NUMBER, "");

		if (r == 0)
			r = parse_item(ps, last);
		if (r < 0)
			return r;
		if (!accept(ps, ',') && (ps->p == ps->end || *ps->p != ']'))
			return bad(ps, "an array goes on without a comma");
	}
	return 0;
}

/* ---- entries ---- */

static bool is_name_char(char ch)
{
	return isalnum((unsigned char)ch) || strchr("_-.+/@:%", ch);
}

static int parse_name(struct parser *ps, char **name, size_t *len)
{
	*name = ps->p;
	while (ps->p < ps->end && *ps->p && is_name_char(*ps->p))
		ps->p++;
	*len = (size_t)(ps->p - *name);
	return *len ? 0 : bad(ps, "a name was expected");
}

static int parse_entry(struct parser *ps)
{
	char *name;
	size_t len;
	uint32_t section = ps->open[ps->depth - 1].section;
	bool opens, array;
	int r = parse_name(ps, &name, &len);

	if (r < 0)
		return r;
	opens = accept(ps, '{');
	if (!opens && !accept(ps, '='))
		return bad(ps, "neither '{' nor '=' after a name");
	name[len] = '\0';	/* what was there is taken */
	if (opens && ps->depth == LVM_DEPTH_MAX)
		return bad(ps, "sections are nested too deeply");
	r = add_node(ps, section, &ps->open[ps->depth - 1].last, LVM_SECTION, name);
	if (r < 0)
		return r;
	if (opens) {
		struct lvm_node *n = &ps->c->node[ps->c->count - 1];

		n->at = place(ps, name);
		n->end = n->at + (uint32_t)len;
		ps->open[ps->depth].section = ps->c->count - 1;
		ps->open[ps->depth++].last = 0;
		return 0;
	}
	array = accept(ps, '[');
	return array ? parse_array(ps, ps->c->count - 1) : parse_item(ps, ps->c->count - 1);
}

static int parse_all(struct parser *ps)
{
	uint32_t root = 0;
	int r = add_node(ps, 0, &root, LVM_SECTION, "");

	ps->open[0].section = 0;
	ps->depth = 1;
	while (r == 0) {
		skip_space(ps);
		/* the text has its own NUL at the end */
		if (ps->p == ps->end || !*ps->p)
			return ps->depth > 1 ? bad(ps, "a section does not end") : 0;
		if (!accept(ps, '}'))
			r = parse_entry(ps);
		else if (--ps->depth == 0)
			r = bad(ps, "'}' without a section");
	}
	return r;
}

int lvm_config_parse(struct lvm_config *out, char *text, size_t len, struct vdisk_error *err)
{
	struct lvm_config c = { .text = text };
	struct parser ps = { .c = &c, .p = text, .end = text + len, .line = 1, .err = err };
	int r = len <= LVM_TEXT_MAX ? parse_all(&ps) : bad(&ps, "too much of everything");

	if (r < 0)
		lvm_config_clear(&c);
	else
		*out = c;
	return r;
}

void lvm_config_clear(struct lvm_config *c)
{
	free(c->node);
	free(c->text);
	*c = (struct lvm_config) { 0 };
}

/* ---- looking things up ---- */

const struct lvm_node *lvm_first(const struct lvm_config *c, const struct lvm_node *in)
{
	return in->child ? &c->node[in->child] : NULL;
}

const struct lvm_node *lvm_next(const struct lvm_config *c, const struct lvm_node *n)
{
	return n->next ? &c->node[n->next] : NULL;
}

const struct lvm_node *lvm_find(const struct lvm_config *c, const struct lvm_node *in,
				const char *name)
{
	for (const struct lvm_node *n = lvm_first(c, in); n; n = lvm_next(c, n))
		if (!strcmp(n->name, name))
			return n;
	return NULL;
}

bool lvm_get_number(const struct lvm_config *c, const struct lvm_node *in, const char *name,
		    uint64_t *out)
{
	const struct lvm_node *n = lvm_find(c, in, name);

	if (!n || n->type != LVM_NUMBER || n->number < 0)
		return false;
	*out = (uint64_t)n->number;
	return true;
}

bool lvm_get_string(const struct lvm_config *c, const struct lvm_node *in, const char *name,
		    const char **out)
{
	const struct lvm_node *n = lvm_find(c, in, name);

	if (!n || n->type != LVM_STRING)
		return false;
	*out = n->string;
	return true;
}

bool lvm_has_flag(const struct lvm_config *c, const struct lvm_node *in, const char *name,
		  const char *flag)
{
	const struct lvm_node *array = lvm_find(c, in, name);

	if (!array || array->type != LVM_ARRAY)
		return false;
	for (const struct lvm_node *n = lvm_first(c, array); n; n = lvm_next(c, n))
		if (n->type == LVM_STRING && !strcmp(n->string, flag))
			return true;
	return false;
}
