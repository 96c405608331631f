/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* grub_load.c - what a configuration loads: other files, environment blocks, Linux */
#include "guest/grub_eval.h"

#include <stdio.h>

/* ---- other files ---- */

int grub_run_file(struct grub *g, struct boot_file f)
{
	size_t len;
	char *text;

	text = f.path ? boot_load_text(g->a, g->env, f.volume, f.path, &len) : NULL;
	if (!text)
		return 1;
	grub_run_text(g, text, len);
	if (g->flow == FLOW_RETURN)
		g->flow = FLOW_RUN;
	return 0;
}

int grub_cmd_source(struct grub *g, const struct grub_args *args)
{
	/* inside an entry it would replace the menu: not Linux, for us */
	if (args->n < 2 || g->entry)
		return 1;
	return grub_run_file(g, grub_resolve(g, args->v[1]));
}

/* A value of an environment block: a backslash hides what follows. */
static const char *env_value(struct grub *g, const char *p, size_t len)
{
	char *value = arena_alloc(g->a, len + 1), *to = value;
	size_t i;

	for (i = 0; i < len; i++) {
		if (p[i] == '\\' && i + 1 < len)
			i++;
		*to++ = p[i];
	}
	return value;
}

static bool wanted(const struct grub_args *args, unsigned from, const char *name)
{
	unsigned i;

	for (i = from; i < args->n; i++)
		if (!strcmp(args->v[i], name))
			return true;
	return from == args->n;
}

static const char *env_block_end(const char *p, const char *end)
{
	/* a newline behind a backslash is part of the value */
	for (; p < end && *p != '\n'; p++)
		if (*p == '\\' && p + 1 < end)
			p++;
	return p;
}

static void load_env_block(struct grub *g, const char *p, const char *end,
			   const struct grub_args *args, unsigned from)
{
	const char *line, *eq, *name;

	for (; p < end; p++) {
		line = p;
		p = env_block_end(p, end);
		eq = memchr(line, '=', (size_t)(p - line));
		if (*line == '#' || !eq || eq == line)
			continue;
		name = arena_strndup(g->a, line, (size_t)(eq - line));
		if (wanted(args, from, name))
			grub_set(g, name, env_value(g, eq + 1, (size_t)(p - eq - 1)));
	}
}

int grub_cmd_load_env(struct grub *g, const struct grub_args *args)
{
	static const char signature[] = "# GRUB Environment Block\n";
	const char *path = NULL, *text;
	struct boot_file f;
	unsigned i = 1;
	size_t len;

	for (; i < args->n && args->v[i][0] == '-'; i++) {
		if ((!strcmp(args->v[i], "-f") || !strcmp(args->v[i], "--file")) && i + 1 < args->n)
			path = args->v[++i];
		else if (!strncmp(args->v[i], "--file=", 7))
			path = args->v[i] + 7;
	}
	if (!path)
		path = arena_printf(g->a, "%s/grubenv", grub_value(g, "prefix"));
	f = grub_resolve(g, path);
	text = f.path ? boot_load_text(g->a, g->env, f.volume, f.path, &len) : NULL;
	if (!text || strncmp(text, signature, sizeof(signature) - 1) != 0)
		return 1;
	load_env_block(g, text, text + len, args, i);
	return 0;
}

/* ---- loading Linux ---- */

/*
 * Command line words as GRUB hands them to Linux: one with a space in quotes,
 * quotes and backslashes behind a backslash.
 */
static const char *quote_for_linux(struct grub *g, const char *word)
{
	bool space = strchr(word, ' ') != NULL;
	char *text, *to;

	if (!space && !strpbrk(word, "\\'\""))
		return word;
	to = text = arena_alloc(g->a, 2 * strlen(word) + 3);
	if (space)
		*to++ = '"';
	for (; *word; word++) {
		if (strchr("\\'\"", *word))
			*to++ = '\\';
		*to++ = *word;
	}
	if (space)
		*to++ = '"';
	return text;
}

int grub_cmd_linux(struct grub *g, const struct grub_args *args)
{
	struct grub_args words = { 0 };
	unsigned i;

	if (!g->entry || args->n < 2)
		return 1;
	g->entry->kernel = grub_resolve(g, args->v[1]);
	if (!g->entry->kernel.path)
		return 1;
	for (i = 2; i < args->n; i++)
		grub_add_arg(g, &words, quote_for_linux(g, args->v[i]));
	g->entry->cmdline = grub_join(g, &words, 0);
	return 0;
}

int grub_cmd_initrd(struct grub *g, const struct grub_args *args)
{
	struct boot_entry *e = g->entry;
	struct boot_file f;
	unsigned i;

	if (!e || args->n < 2)
		return 1;
	e->initrd = arena_array(g->a, args->n, sizeof(*e->initrd));
	e->n_initrd = 0;
	for (i = 1; i < args->n; i++) {
		f = grub_resolve(g, args->v[i]);
		if (f.path)
			e->initrd[e->n_initrd++] = f;
	}
	return e->n_initrd == args->n - 1 ? 0 : 1;
}

/* Another boot loader, and nothing for us; or a unified kernel image. */
int grub_cmd_chainloader(struct grub *g, const struct grub_args *args)
{
	struct bls_entry image = { .boot.title = "x", .boot.id = "", .version = "x" };
	struct boot_file f = { .path = NULL };

	if (!g->entry)
		return 1;
	for (unsigned i = 1; i < args->n && !f.path; i++)
		if (args->v[i][0] == '/' || args->v[i][0] == '(')
			f = grub_resolve(g, args->v[i]);
	image.boot.cmdline = "";
	if (!f.path || uki_read(&image, g->a, g->env, f) < 0)
		return 1;
	g->entry->kernel = image.boot.kernel;
	g->entry->initrd = image.boot.initrd;
	g->entry->n_initrd = image.boot.n_initrd;
	g->entry->cmdline = image.boot.cmdline;
	return 0;
}
