/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grub_legacy.c - what would GRUB 0.9x boot?  menu.lst, or grub.conf
 *
 * Lines of a command and its words.  What stands before the first "title" is
 * for the whole menu; each title begins an entry.  Partitions count from 0, and a
 * path without a device is on the entry's root, which at first is the
 * configuration's own volume.  Passwords do not protect anything here.
 */
#include "guest/bootcfg.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

struct legacy {
	struct boot_menu *menu;
	const struct boot_env *env;
	struct arena *a;
	unsigned volume;	/* of the configuration */
	const char *dir;
	int root;		/* the volume that paths mean; -1: nothing of this disk */
	struct boot_entry *entry; /* that is being read, or NULL */
	const char *preset;	/* "default", "fallback" */
	const char *fallback;
};

/* "hd0,0" and "hd0,0,a": -1 if there is no such volume.  A guest has one drive here. */
static int find_device(const struct legacy *g, const char *name, size_t len)
{
	const char *comma = memchr(name, ',', len);
	unsigned long number = 0;
	char *end;

	if (len < 3 || strncmp(name, "hd", 2) != 0)
		return -1;
	if (comma) {
		number = strtoul(comma + 1, &end, 10);
		if (end == comma + 1 || number > 1000 || (end != name + len && *end != ','))
			return -1;
		number++;
	}
	for (unsigned i = 0; i < g->env->n_volumes; i++)
		if (g->env->volumes[i].number == number && !g->env->volumes[i].lvm[0])
			return (int)i;
	return -1;
}

/* "(hd0,0)" at the beginning; *rest is what follows. */
static int device_of(const struct legacy *g, const char *text, const char **rest)
{
	const char *close = *text == '(' ? strchr(text, ')') : NULL;

	*rest = close ? close + 1 : text;
	return close ? find_device(g, text + 1, (size_t)(close - text - 1)) : g->root;
}

/* path NULL if there is no such place */
static struct boot_file resolve(const struct legacy *g, const char *text)
{
	const char *path;
	int volume = device_of(g, text, &path);

	if (volume < 0 || *path != '/')
		return (struct boot_file) { .path = NULL };
	return (struct boot_file) { .volume = (unsigned)volume, .path = arena_strdup(g->a, path) };
}

static void set_root(struct legacy *g, const char *value)
{
	const char *rest;

	if (*value == '(')
		g->root = device_of(g, value, &rest);
}

static void set_root_by_uuid(struct legacy *g, const char *uuid)
{
	g->root = -1;
	for (unsigned i = 0; i < g->env->n_volumes && g->root < 0; i++)
		if (!strcasecmp(g->env->volumes[i].uuid, uuid))
			g->root = (int)i;
}

/* find --set-root [--ignore-floppies] FILE */
static void find(struct legacy *g, const char *value)
{
	bool set = false;
	const char *word;

	while ((word = boot_next_word(g->a, &value, " \t"))) {
		set |= !strcmp(word, "--set-root");
		for (unsigned i = 0; *word == '/' && set && i < g->env->n_volumes; i++) {
			if (boot_is_file(g->env, i, word)) {
				g->root = (int)i;
				return;
			}
		}
	}
}

static void set_kernel(struct legacy *g, const char *value)
{
	const char *word = boot_next_word(g->a, &value, " \t");

	while (word && !strncmp(word, "--", 2))	/* --type=, --no-mem-option */
		word = boot_next_word(g->a, &value, " \t");
	if (!word)
		return;
	g->entry->kernel = resolve(g, word);
	g->entry->cmdline = arena_strdup(g->a, value + strspn(value, " \t"));
}

static void set_initrd(struct legacy *g, const char *value)
{
	const char *word = boot_next_word(g->a, &value, " \t");
	struct boot_file f = { .path = NULL };

	if (word)
		f = resolve(g, word);
	if (!f.path)
		return;
	g->entry->initrd = arena_alloc(g->a, sizeof(f));
	g->entry->initrd[0] = f;
	g->entry->n_initrd = 1;
}

static void begin_entry(struct legacy *g, const char *title)
{
	g->entry = boot_menu_add(g->menu);
	g->entry->title = title;
	g->entry->number = arena_printf(g->a, "%u", g->menu->n_entries - 1);
	g->root = (int)g->volume;
}

static void run(struct legacy *g, const struct boot_line *l)
{
	if (!strcasecmp(l->key, "title")) {
		begin_entry(g, l->value);
	} else if (!strcasecmp(l->key, "default") && !g->entry) {
		g->preset = l->value;
	} else if (!strcasecmp(l->key, "fallback") && !g->entry) {
		g->fallback = l->value;
	} else if (!strcasecmp(l->key, "root") || !strcasecmp(l->key, "rootnoverify")) {
		set_root(g, l->value);
	} else if (!strcasecmp(l->key, "uuid")) {
		set_root_by_uuid(g, l->value);
	} else if (!strcasecmp(l->key, "find")) {
		find(g, l->value);
	} else if (g->entry && !strcasecmp(l->key, "kernel")) {
		set_kernel(g, l->value);
	} else if (g->entry && !strcasecmp(l->key, "initrd")) {
		set_initrd(g, l->value);
	} else if (g->entry && (!strcasecmp(l->key, "module") ||
				!strcasecmp(l->key, "chainloader"))) {
		g->entry->kernel.path = NULL;	/* a hypervisor, another loader */
	}
}

/* The number that "savedefault" has left in a file of its own. */
static const char *saved_default(struct legacy *g)
{
	const char *text;
	size_t len;

	text = boot_load_text(g->a, g->env, g->volume, arena_printf(g->a, "%s/default", g->dir),
			      &len);
	return text ? arena_strndup(g->a, text, strspn(text, "0123456789")) : "";
}

static int by_number(const struct boot_menu *menu, const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	return *text >= '0' && *text <= '9' && !*end && n < menu->n_entries ? (int)n : -1;
}

static void choose(struct legacy *g, const char *selector)
{
	struct boot_menu *menu = g->menu;
	const char *preset = g->preset, *word, *list = g->fallback;
	int n;

	if (selector) {
		menu->chosen = boot_select_flat(menu, selector);
		return;
	}
	if (!strcasecmp(preset, "saved"))
		preset = saved_default(g);
	menu->chosen = by_number(menu, preset);
	if (menu->chosen < 0 && menu->n_entries)
		menu->chosen = 0;
	while ((word = boot_next_word(g->a, &list, " \t")) && menu->n_fallback < BOOT_FALLBACKS_MAX) {
		n = by_number(menu, word);
		if (n >= 0)
			menu->fallback[menu->n_fallback++] = n;
	}
}

int legacy_menu(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
		const char *path, const char *selector)
{
	const char *slash = strrchr(path, '/'), *text;
	struct legacy g = {
		.menu = menu, .env = env, .a = &menu->arena, .volume = volume, .root = (int)volume,
		.dir = arena_printf(&menu->arena, "%.*s", (int)(slash - path), path),
		.preset = "0", .fallback = "",
	};
	struct boot_line line;
	size_t len;

	text = boot_load_text(g.a, env, volume, path, &len);
	if (!text)
		return -ENOENT;
	while (boot_next_line(&line, g.a, &text, " \t="))
		run(&g, &line);
	choose(&g, selector);
	return 0;
}
