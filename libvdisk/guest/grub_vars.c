/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* grub_vars.c - variables of GRUB's language, and how words become arguments */
#include "guest/grub_eval.h"

#include <errno.h>
#include <stdio.h>

const char *grub_get(const struct grub *g, const char *name)
{
	unsigned i;

	for (i = 0; i < g->n_vars; i++)
		if (!strcmp(g->vars[i].name, name))
			return g->vars[i].value;
	return NULL;
}

const char *grub_value(const struct grub *g, const char *name)
{
	const char *value = grub_get(g, name);

	return value ? value : "";
}

void grub_set(struct grub *g, const char *name, const char *value)
{
	size_t len = strlen(value);
	unsigned i;

	if (len > GRUB_VALUE_MAX)
		arena_stop(g->a, -E2BIG);
	value = arena_strndup(g->a, value, len);
	for (i = 0; i < g->n_vars; i++) {
		if (!strcmp(g->vars[i].name, name)) {
			g->vars[i].value = value;
			return;
		}
	}
	if (g->n_vars == GRUB_VARIABLES_MAX)
		arena_stop(g->a, -E2BIG);
	arena_grow(g->a, g->vars, g->n_vars, g->cap_vars);
	g->vars[g->n_vars].name = arena_strdup(g->a, name);
	g->vars[g->n_vars++].value = value;
}

void grub_unset(struct grub *g, const char *name)
{
	unsigned i;

	for (i = 0; i < g->n_vars; i++) {
		if (!strcmp(g->vars[i].name, name)) {
			g->vars[i] = g->vars[--g->n_vars];
			return;
		}
	}
}

int grub_assign(struct grub *g, const char *text)
{
	const char *eq = strchr(text, '=');

	if (!eq || eq == text)
		return 1;
	grub_set(g, arena_strndup(g->a, text, (size_t)(eq - text)), eq + 1);
	return 0;
}

struct grub_scope grub_enter_scope(struct grub *g)
{
	struct grub_scope s = { g->vars, g->n_vars, g->cap_vars, g->params };

	g->vars = arena_array(g->a, s.cap_vars, sizeof(*g->vars));
	if (s.n_vars)
		memcpy(g->vars, s.vars, s.n_vars * sizeof(*g->vars));
	return s;
}

void grub_leave_scope(struct grub *g, const struct grub_scope *s)
{
	g->vars = s->vars;
	g->n_vars = s->n_vars;
	g->cap_vars = s->cap_vars;
	g->params = s->params;
	g->flow = FLOW_RUN;
}

/* ---- words to arguments ---- */

void grub_add_arg(struct grub *g, struct grub_args *args, const char *text)
{
	if (args->n == GRUB_WORDS_MAX)
		arena_stop(g->a, -E2BIG);
	arena_grow(g->a, args->v, args->n, args->cap);
	args->v[args->n++] = text;
}

const char *grub_join(struct grub *g, const struct grub_args *args, unsigned from)
{
	size_t len = 1;
	char *text, *p;
	unsigned i;

	for (i = from; i < args->n; i++)
		len += strlen(args->v[i]) + 1;
	p = text = arena_alloc(g->a, len);
	for (i = from; i < args->n; i++) {
		if (i > from)
			*p++ = ' ';
		p = stpcpy(p, args->v[i]);
	}
	return text;
}

static const char *value_of(struct grub *g, const char *name)
{
	unsigned long n;

	if (!strcmp(name, "?"))
		return arena_printf(g->a, "%d", g->status);
	if (!strcmp(name, "#"))
		return arena_printf(g->a, "%u", g->params.n);
	if (!strcmp(name, "*") || !strcmp(name, "@"))
		return grub_join(g, &g->params, 0);
	if (name[0] >= '0' && name[0] <= '9') {
		n = strtoul(name, NULL, 10);
		return n >= 1 && n <= g->params.n ? g->params.v[n - 1] : "";
	}
	return grub_value(g, name);
}

struct expansion {
	struct grub *g;
	struct grub_args *out;
	char *text;
	size_t len, cap;
	bool any;	/* there is an argument, even if it is empty */
};

static void end_arg(struct expansion *x)
{
	if (x->any)
		grub_add_arg(x->g, x->out, arena_strndup(x->g->a, x->len ? x->text : "", x->len));
	x->len = 0;
	x->any = false;
}

static void append(struct expansion *x, const char *text, bool split)
{
	for (; *text; text++) {
		if (split && strchr(" \t\n", *text)) {
			end_arg(x);
			continue;
		}
		if (x->len == GRUB_VALUE_MAX)
			arena_stop(x->g->a, -E2BIG);
		arena_grow(x->g->a, x->text, x->len, x->cap);
		x->text[x->len++] = *text;
		x->any = true;
	}
}

void grub_expand_word(struct grub *g, struct grub_args *out, const struct grub_word *word)
{
	struct expansion x = { .g = g, .out = out, .any = word->quoted };
	const struct grub_part *part;
	unsigned i;

	for (part = word->parts; part; part = part->next) {
		if (part->variable && part->quoted && !strcmp(part->text, "@")) {
			/* "$@": each parameter stays one argument */
			for (i = 0; i < g->params.n; i++) {
				append(&x, g->params.v[i], false);
				if (i + 1 < g->params.n)
					end_arg(&x);
			}
		} else if (part->variable) {
			append(&x, value_of(g, part->text), !part->quoted);
		} else {
			append(&x, part->text, false);
		}
	}
	end_arg(&x);
}

struct grub_args grub_expand_words(struct grub *g, const struct grub_word *word)
{
	struct grub_args out = { 0 };

	for (; word; word = word->next)
		grub_expand_word(g, &out, word);
	return out;
}
