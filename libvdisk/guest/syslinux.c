/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * syslinux.c - what would SYSLINUX, EXTLINUX or ISOLINUX boot?
 *
 * Lines of a keyword, in any case, and its value.  What stands before the
 * first LABEL is for all of them.  Paths are relative to the configuration's
 * directory, unless they begin with "/".  U-Boot reads the same files.
 *
 * Other files are included to a limit, and lines are limited; a label whose
 * kernel is a module of the loader itself (*.c32) is no Linux.
 */
#include "guest/bootcfg.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

enum { MAX_FILES = 32, MAX_DEPTH = 8, MAX_LINES = 100000 };

struct syslinux {
	struct boot_menu *menu;
	const struct boot_env *env;
	struct arena *a;
	unsigned volume;
	const char *dir;	/* that paths are relative to; "" the root */
	struct boot_entry *entry; /* that is being read, or NULL */
	bool own_append;	/* ->entry has an APPEND of its own */
	const char *append;	/* for entries without one */
	const char *default_label, *on_timeout;
	int menu_default;	/* index; -1 */
	unsigned files, depth, lines;
	bool in_text;		/* of TEXT HELP */
};

static void read_file(struct syslinux *s, const char *path);

/* ---- paths ---- */

/* An absolute path without "." and "..", from one relative to s->dir. */
static const char *absolute(struct syslinux *s, const char *text)
{
	const char *p, *word;
	char *out, *end;

	if (!strncmp(text, "::", 2))
		text += 2;
	p = *text == '/' ? text : arena_printf(s->a, "%s/%s", s->dir, text);
	end = out = arena_alloc(s->a, strlen(p) + 2);
	while ((word = boot_next_word(s->a, &p, "/"))) {
		if (!strcmp(word, "..")) {
			while (end > out && *--end != '/')
				;
			*end = '\0';
		} else if (strcmp(word, ".") != 0) {
			*end++ = '/';
			end = stpcpy(end, word);
		}
	}
	return end == out ? "/" : out;
}

static struct boot_file file_at(struct syslinux *s, const char *text)
{
	return (struct boot_file) { .volume = s->volume, .path = absolute(s, text) };
}

/* ---- an entry ---- */

static bool is_module(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && !strcasecmp(name + len - 4, ".c32");
}

static void add_initrds(struct syslinux *s, const char *list)
{
	struct boot_entry *e = s->entry;
	const char *word, *count = list;
	unsigned n = 0;

	while (boot_next_word(s->a, &count, ", \t"))
		n++;
	e->initrd = arena_array(s->a, n + 1, sizeof(*e->initrd));
	e->n_initrd = 0;
	while ((word = boot_next_word(s->a, &list, ", \t")))
		e->initrd[e->n_initrd++] = file_at(s, word);
}

/* The words of APPEND; initrd= is the loader's own, the last one counts. */
static const char *take_append(struct syslinux *s, const char *text)
{
	char *out = arena_alloc(s->a, strlen(text) + 1), *end = out;
	const char *word, *initrd = NULL;

	while ((word = boot_next_word(s->a, &text, " \t"))) {
		if (!strncmp(word, "initrd=", 7)) {
			initrd = word + 7;
			continue;
		}
		if (end > out)
			*end++ = ' ';
		end = stpcpy(end, word);
	}
	if (initrd && *initrd && !s->entry->n_initrd)
		add_initrds(s, initrd);
	return out;
}

static void finish_entry(struct syslinux *s)
{
	struct boot_entry *e = s->entry;

	if (!e)
		return;
	if (e->kernel.path)
		e->cmdline = take_append(s, s->own_append ? e->cmdline : s->append);
	s->entry = NULL;
}

static void begin_entry(struct syslinux *s, const char *label)
{
	finish_entry(s);
	s->entry = boot_menu_add(s->menu);
	s->entry->title = s->entry->id = label;
	s->entry->number = arena_printf(s->a, "%u", s->menu->n_entries - 1);
	s->own_append = false;
}

static void set_kernel(struct syslinux *s, const char *value)
{
	const char *path = boot_next_word(s->a, &value, " \t");

	if (path && !is_module(path))
		s->entry->kernel = file_at(s, path);
}

/* ---- the menu's lines ---- */

/* MENU LABEL has a caret before the letter to press. */
static const char *without_caret(struct syslinux *s, const char *text)
{
	const char *caret = strchr(text, '^');

	return caret ? arena_printf(s->a, "%.*s%s", (int)(caret - text), text, caret + 1) : text;
}

static void run_menu_line(struct syslinux *s, const char *value)
{
	const char *word = boot_next_word(s->a, &value, " \t");

	value += strspn(value, " \t");
	if (!word)
		return;
	if (!strcasecmp(word, "include")) {
		value = boot_next_word(s->a, &value, " \t");
		if (value)
			read_file(s, absolute(s, value));
	} else if (s->entry && !strcasecmp(word, "label") && *value) {
		s->entry->title = without_caret(s, value);
	} else if (s->entry && !strcasecmp(word, "default")) {
		s->menu_default = (int)s->menu->n_entries - 1;
	}
}

static void run_entry_line(struct syslinux *s, const struct boot_line *l)
{
	if (!strcasecmp(l->key, "kernel") || !strcasecmp(l->key, "linux")) {
		set_kernel(s, l->value);
	} else if (!strcasecmp(l->key, "initrd")) {
		add_initrds(s, l->value);
	} else if (!strcasecmp(l->key, "append")) {
		s->entry->cmdline = strcmp(l->value, "-") ? l->value : "";
		s->own_append = true;
	}
}

static void run(struct syslinux *s, const struct boot_line *l)
{
	const char *value = l->value;

	if (++s->lines > MAX_LINES)
		arena_stop(s->a, -ELOOP);
	if (s->in_text) {
		s->in_text = strcasecmp(l->key, "endtext") != 0;
	} else if (!strcasecmp(l->key, "text")) {
		s->in_text = true;
	} else if (!strcasecmp(l->key, "label")) {
		begin_entry(s, value);
	} else if (!strcasecmp(l->key, "menu")) {
		run_menu_line(s, value);
	} else if (!strcasecmp(l->key, "include")) {
		value = boot_next_word(s->a, &value, " \t");
		if (value)
			read_file(s, absolute(s, value));
	} else if (!strcasecmp(l->key, "default")) {
		s->default_label = value;
	} else if (!strcasecmp(l->key, "ontimeout")) {
		s->on_timeout = value;
	} else if (s->entry) {
		run_entry_line(s, l);
	} else if (!strcasecmp(l->key, "append")) {
		s->append = value;
	}
}

static void read_file(struct syslinux *s, const char *path)
{
	struct boot_line line;
	const char *text;
	size_t len;

	if (++s->files > MAX_FILES || s->depth == MAX_DEPTH)
		arena_stop(s->a, -ELOOP);
	text = boot_load_text(s->a, s->env, s->volume, path, &len);
	s->depth++;
	while (text && boot_next_line(&line, s->a, &text, " \t"))
		run(s, &line);
	s->depth--;
}

/* ---- which one ---- */

static int find_label(const struct boot_menu *menu, const char *label)
{
	for (unsigned i = 0; i < menu->n_entries; i++)
		if (!strcasecmp(menu->entries[i].id, label))
			return (int)i;
	return -1;
}

/*
 * "LABEL WORDS" of DEFAULT or ONTIMEOUT: the words go behind the entry's own.
 * What is not a label is a kernel, with its options.
 */
static int choose_by_line(struct syslinux *s, const char *line)
{
	const char *label = boot_next_word(s->a, &line, " \t");
	struct boot_entry *e;
	int i;

	line += strspn(line, " \t");
	i = label ? find_label(s->menu, label) : -1;
	if (i >= 0 && *line) {
		e = &s->menu->entries[i];
		e->cmdline = arena_printf(s->a, "%s%s%s", e->cmdline, *e->cmdline ? " " : "", line);
	}
	if (i >= 0 || !label || is_module(label))
		return i;
	if (!boot_is_file(s->env, s->volume, absolute(s, label)))
		return -1;
	begin_entry(s, label);
	set_kernel(s, label);
	s->entry->cmdline = line;
	s->own_append = true;
	finish_entry(s);
	return (int)s->menu->n_entries - 1;
}

int syslinux_menu(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
		  const char *path, const char *selector)
{
	struct syslinux s = {
		.menu = menu, .env = env, .a = &menu->arena, .volume = volume,
		.dir = arena_printf(&menu->arena, "%.*s", (int)(strrchr(path, '/') - path), path),
		.append = "", .menu_default = -1,
	};

	read_file(&s, path);
	finish_entry(&s);
	if (selector) {
		menu->chosen = boot_select_flat(menu, selector);
		return 0;
	}
	menu->chosen = s.on_timeout ? choose_by_line(&s, s.on_timeout) : -1;
	if (menu->chosen < 0)
		menu->chosen = s.menu_default;
	if (menu->chosen < 0 && s.default_label)
		menu->chosen = choose_by_line(&s, s.default_label);
	if (menu->chosen < 0 && menu->n_entries)
		menu->chosen = 0;
	return 0;
}
