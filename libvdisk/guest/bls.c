/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bls.c - Boot Loader Specification entries, type 1
 *
 * A directory (loader/entries) of small files, one for each kernel: lines of a
 * key and a value.  GRUB's blscfg and systemd-boot both read them; kernel and
 * initrd paths are relative to the file system that holds the entries.
 *
 * The newest comes first, compared as rpm compares name, version and release
 * of the file's name without ".conf", which is what blscfg does.
 */
#include "guest/bootcfg.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>

enum { ENTRY_MAX = 65536 };

static bool is_entry(const char *name)
{
	size_t len = strlen(name);

	return len > 5 && len < 256 && !strcmp(name + len - 5, ".conf");
}

/* ---- order ---- */

/* name-version-release, split at the last two dashes. */
static void split_nvr(char *text, const char **version, const char **release)
{
	char *dash;

	*version = *release = "";
	dash = strrchr(text, '-');
	if (!dash)
		return;
	*dash = '\0';
	*release = dash + 1;
	dash = strrchr(text, '-');
	if (!dash) {
		*version = *release;
		*release = "";
		return;
	}
	*dash = '\0';
	*version = dash + 1;
}

static int newest_first(const void *pa, const void *pb)
{
	const char *av, *ar, *bv, *br;
	char a[256], b[256];
	int c;

	snprintf(a, sizeof(a), "%s", *(const char *const *)pa);
	snprintf(b, sizeof(b), "%s", *(const char *const *)pb);
	split_nvr(a, &av, &ar);
	split_nvr(b, &bv, &br);
	c = version_cmp(b, a);
	if (!c)
		c = version_cmp(bv, av);
	if (!c)
		c = version_cmp(br, ar);
	return c ? c : strcmp(*(const char *const *)pb, *(const char *const *)pa);
}

/* ---- one entry ---- */

struct reader {
	struct arena *a;
	unsigned volume;
	struct boot_entry *entry;
	unsigned cap_initrd;
	const char *(*expand)(void *ctx, const char *text);
	void *ctx;
};

static void add_initrds(struct reader *r, const char *text)
{
	struct boot_entry *e = r->entry;
	size_t len;

	for (;;) {
		text += strspn(text, " \t");
		len = strcspn(text, " \t");
		if (!len)
			return;
		arena_grow(r->a, e->initrd, e->n_initrd, r->cap_initrd);
		e->initrd[e->n_initrd++] = (struct boot_file) {
			r->volume, arena_strndup(r->a, text, len)
		};
		text += len;
	}
}

static void read_line(struct reader *r, const char *key, const char *value)
{
	struct boot_entry *e = r->entry;

	if (!strcmp(key, "title")) {
		e->title = value;
	} else if (!strcmp(key, "linux")) {
		e->kernel = (struct boot_file) { r->volume, value };
	} else if (!strcmp(key, "initrd")) {
		add_initrds(r, r->expand ? r->expand(r->ctx, value) : value);
	} else if (!strcmp(key, "options")) {
		value = r->expand ? r->expand(r->ctx, value) : value;
		e->cmdline = *e->cmdline ? arena_printf(r->a, "%s %s", e->cmdline, value) : value;
	}
}

static void read_entry(struct reader *r, const char *text)
{
	const char *end, *key, *value;
	size_t len;

	for (; *text; text = *end ? end + 1 : end) {
		text += strspn(text, " \t\r");
		end = text + strcspn(text, "\n");
		len = strcspn(text, " \t\n");
		if (*text == '#' || !len || text + len == end)
			continue;
		key = arena_strndup(r->a, text, len);
		text += len + strspn(text + len, " \t");
		for (len = (size_t)(end - text); len && strchr(" \t\r", text[len - 1]); len--)
			;
		value = arena_strndup(r->a, text, len);
		read_line(r, key, value);
	}
}

int bls_read(struct bls_entries *out, struct arena *a, const struct boot_env *env,
	     unsigned volume, const char *dir,
	     const char *(*expand)(void *ctx, const char *text), void *ctx)
{
	const char **names;
	size_t i, len;
	char *text;
	int n;

	n = boot_list(a, env, volume, dir, is_entry, &names);
	if (n <= 0)
		return n;
	for (i = 0; i < (size_t)n; i++)
		names[i] = arena_strndup(a, names[i], strlen(names[i]) - strlen(".conf"));
	qsort(names, (size_t)n, sizeof(*names), newest_first);
	for (i = 0; i < (size_t)n; i++) {
		struct boot_entry e = { .title = names[i], .id = names[i], .cmdline = "" };
		struct reader reader = {
			.a = a, .volume = volume, .entry = &e, .expand = expand, .ctx = ctx,
		};

		text = boot_load_text(a, env, volume,
				      arena_printf(a, "%s/%s.conf", dir, names[i]), &len);
		if (!text || len > ENTRY_MAX)
			continue;
		read_entry(&reader, text);
		if (!e.kernel.path)
			continue;
		arena_grow(a, out->entry, out->n, out->cap);
		out->entry[out->n++] = e;
	}
	return 0;
}

/* ---- a directory of entries by itself ---- */

/* loader.conf(5): "default" is a pattern for the entry's file name. */
static int loader_default(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
			  const char *dir)
{
	const char *slash = strrchr(dir, '/'), *pattern = NULL, *line;
	struct arena *a = &menu->arena;
	size_t len;
	unsigned i;
	char *text;

	text = boot_load_text(a, env, volume,
			      arena_printf(a, "%.*s/loader.conf", (int)(slash - dir), dir), &len);
	for (line = text; line && *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (strncmp(line, "default", 7) != 0 || !strchr(" \t", line[7]) || !line[7])
			continue;
		line += 7 + strspn(line + 7, " \t");
		pattern = arena_strndup(a, line, strcspn(line, " \t\r\n"));
	}
	for (i = 0; pattern && i < menu->n_entries; i++)
		if (!fnmatch(pattern, menu->entries[i].id, 0) ||
		    !fnmatch(pattern, arena_printf(a, "%s.conf", menu->entries[i].id), 0))
			return (int)i;
	return menu->n_entries ? 0 : -1;
}

int bls_menu(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
	     const char *dir, const char *selector)
{
	struct bls_entries list = { 0 };
	struct boot_entry *e;
	unsigned i;
	int r;

	r = bls_read(&list, &menu->arena, env, volume, dir, NULL, NULL);
	for (i = 0; i < list.n; i++) {
		e = boot_menu_add(menu);
		*e = list.entry[i];
		e->number = arena_printf(&menu->arena, "%u", i);
	}
	menu->chosen = selector ? boot_select_flat(menu, selector) :
		loader_default(menu, env, volume, dir);
	return r;
}
