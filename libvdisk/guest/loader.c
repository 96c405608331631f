/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loader.c - what would systemd-boot show?
 *
 * The menu is made of Boot Loader Specification entries (type 1) and unified
 * kernel images (type 2) on all volumes: the EFI partition and a separate
 * /boot count as one.  Order and default are those of systemd-boot: entries
 * that have used up their tries go last, then sort-key, machine-id and version count, then
 * the name.  loader.conf's "default" is a pattern for the id; what the firmware
 * remembers ("@saved") is not on the disk.
 */
#include "guest/bootcfg.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <strings.h>

/* ---- boot counters: NAME+LEFT or NAME+LEFT-DONE before the extension ---- */

static const char *skip_digits(const char *p)
{
	while (isdigit((unsigned char)*p))
		p++;
	return p;
}

/* The id without its counter; *left becomes the tries left, -1 without a counter. */
static const char *split_counter(struct arena *a, const char *id, int *left)
{
	const char *plus = strrchr(id, '+'), *end;

	*left = -1;
	if (!plus || !isdigit((unsigned char)plus[1]))
		return id;
	end = skip_digits(plus + 1);
	if (*end == '-' && isdigit((unsigned char)end[1]))
		end = skip_digits(end + 1);
	if (*end && strcmp(end, ".efi") != 0)
		return id;
	*left = (int)MIN(strtoul(plus + 1, NULL, 10), 1000ul);
	return arena_printf(a, "%.*s%s", (int)(plus - id), id, end);
}

/* ---- order ---- */

static int compare(const void *pa, const void *pb)
{
	const struct bls_entry *a = pa, *b = pb;
	int c = (a->tries_left == 0) - (b->tries_left == 0);

	if (!c)
		c = !*a->sort_key - !*b->sort_key;
	if (!c && *a->sort_key) {
		c = strcmp(a->sort_key, b->sort_key);
		if (!c)
			c = strcmp(a->machine_id, b->machine_id);
		if (!c)
			c = version_cmp(b->version, a->version);
	}
	if (!c)
		c = version_cmp(b->boot.id, a->boot.id);
	if (!c)
		c = strcmp(b->boot.id, a->boot.id);
	return c ? c : b->tries_left - a->tries_left;
}

/* ---- unified images ---- */

static bool is_image(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && len < 256 && !strcasecmp(name + len - 4, ".efi");
}

static void add_images(struct bls_entries *out, struct arena *a, const struct boot_env *env,
		       unsigned volume)
{
	const char **names;
	int n = boot_list(a, env, volume, "/EFI/Linux", is_image, &names);

	for (int i = 0; i < n; i++) {
		struct bls_entry e = {
			.boot = { .title = names[i], .id = names[i], .cmdline = "" },
			.sort_key = "", .machine_id = "", .version = "", .tries_left = -1,
		};
		struct boot_file f = {
			.volume = volume, .path = arena_printf(a, "/EFI/Linux/%s", names[i]),
		};

		if (uki_read(&e, a, env, f) < 0)
			continue;
		arena_grow(a, out->entry, out->n, out->cap);
		out->entry[out->n++] = e;
	}
}

/* ---- the menu ---- */

/* The last "default" of the first loader.conf that has one; NULL: none. */
static const char *default_pattern(struct arena *a, const struct boot_env *env)
{
	static const char *const files[] = { "/loader/loader.conf", "/boot/loader/loader.conf" };
	const char *pattern = NULL, *text;
	struct boot_line line;
	size_t len, i;

	for (unsigned v = 0; v < env->n_volumes; v++) {
		for (i = 0; i < ARRAY_SIZE(files); i++) {
			text = boot_load_text(a, env, v, files[i], &len);
			while (text && boot_next_line(&line, a, &text, " \t"))
				if (!strcmp(line.key, "default") && *line.value)
					pattern = line.value;
			if (pattern)
				return pattern;
		}
	}
	return NULL;
}

static int default_entry(struct boot_menu *menu, const char *pattern)
{
	for (unsigned i = 0; pattern && i < menu->n_entries; i++) {
		const char *id = menu->entries[i].id;

		if (!fnmatch(pattern, id, FNM_CASEFOLD) ||
		    !fnmatch(pattern, arena_printf(&menu->arena, "%s.conf", id), FNM_CASEFOLD))
			return (int)i;
	}
	return menu->n_entries ? 0 : -1;
}

/* Titles that are not the only one of their kind get the version behind them. */
static void tell_apart(struct bls_entries *list, struct arena *a)
{
	bool *twice = arena_array(a, list->n + 1, sizeof(*twice));

	for (unsigned i = 0; i < list->n; i++)
		for (unsigned k = 0; k < list->n && !twice[i]; k++)
			twice[i] = k != i && !strcmp(list->entry[i].boot.title,
						     list->entry[k].boot.title);
	for (unsigned i = 0; i < list->n; i++) {
		struct bls_entry *e = &list->entry[i];

		if (twice[i] && *e->version)
			e->boot.title = arena_printf(a, "%s (%s)", e->boot.title, e->version);
	}
}

int loader_menu(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
		const char *path, const char *selector)
{
	static const char *const dirs[] = { "/loader/entries", "/boot/loader/entries" };
	struct bls_entries list = { 0 };
	struct arena *a = &menu->arena;
	struct boot_entry *e;
	size_t len;

	(void)volume, (void)path;	/* only what the menu was found by */
	for (unsigned v = 0; v < env->n_volumes; v++) {
		for (unsigned i = 0; i < ARRAY_SIZE(dirs); i++)
			bls_read(&list, a, env, v, dirs[i], NULL, NULL);
		add_images(&list, a, env, v);
	}
	for (unsigned i = 0; i < list.n; i++)
		list.entry[i].boot.id = split_counter(a, list.entry[i].boot.id,
						      &list.entry[i].tries_left);
	if (list.n)
		qsort(list.entry, list.n, sizeof(*list.entry), compare);
	tell_apart(&list, a);
	for (unsigned i = 0; i < list.n; i++) {
		e = boot_menu_add(menu);
		*e = list.entry[i].boot;
		e->number = arena_printf(a, "%u", i);
	}
	if (!selector) {
		menu->chosen = default_entry(menu, default_pattern(a, env));
		return 0;
	}
	menu->chosen = boot_select_flat(menu, selector);
	len = strlen(selector);
	if (menu->chosen < 0 && len > 5 && !strcmp(selector + len - 5, ".conf"))
		menu->chosen = boot_select_flat(menu, arena_strndup(a, selector, len - 5));
	return 0;
}
