/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bls.c - Boot Loader Specification entries, type 1
 *
 * A directory (loader/entries) of small files, one for each kernel: lines of a
 * key and a value.  GRUB's blscfg and systemd-boot (loader.c) both read them; kernel and
 * initrd paths are relative to the file system that holds the entries.
 *
 * The newest comes first, compared as rpm compares name, version and release
 * of the file's name without ".conf", which is what blscfg does.
 */
#include "guest/bootcfg.h"

#include <stdio.h>
#include <strings.h>

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
	const struct boot_env *env;
	unsigned volume;
	struct bls_entry *entry;
	unsigned cap_initrd;
	bool any_program;	/* "efi": perhaps not a kernel at all */
	const char *(*expand)(void *ctx, const char *text);
	void *ctx;
};

static void add_initrds(struct reader *r, const char *text)
{
	struct boot_entry *e = &r->entry->boot;
	const char *path;

	while ((path = boot_next_word(r->a, &text, " \t"))) {
		arena_grow(r->a, e->initrd, e->n_initrd, r->cap_initrd);
		e->initrd[e->n_initrd++] = (struct boot_file) { .volume = r->volume, .path = path };
	}
}

static void read_line(struct reader *r, const char *key, const char *value)
{
	struct boot_entry *e = &r->entry->boot;

	if (!strcmp(key, "title")) {
		e->title = value;
	} else if (!strcmp(key, "version")) {
		r->entry->version = value;
	} else if (!strcmp(key, "machine-id")) {
		r->entry->machine_id = value;
	} else if (!strcmp(key, "sort-key")) {
		r->entry->sort_key = value;
	} else if (!strcmp(key, "linux") || !strcmp(key, "efi") || !strcmp(key, "uki")) {
		r->any_program = !strcmp(key, "efi");
		e->kernel = (struct boot_file) { .volume = r->volume, .path = value };
	} else if (!strcmp(key, "initrd")) {
		add_initrds(r, r->expand ? r->expand(r->ctx, value) : value);
	} else if (!strcmp(key, "options")) {
		value = r->expand ? r->expand(r->ctx, value) : value;
		e->cmdline = *e->cmdline ? arena_printf(r->a, "%s %s", e->cmdline, value) : value;
	}
}

static bool for_this_machine(const char *architecture)
{
	return !strcasecmp(architecture, "x64") || !strcasecmp(architecture, "x86-64");
}

/* Is it an entry that can be shown? */
static bool read_entry(struct reader *r, const char *text)
{
	struct boot_line line;

	while (boot_next_line(&line, r->a, &text, " \t")) {
		if (!strcmp(line.key, "architecture") && !for_this_machine(line.value))
			return false;
		if (*line.value)
			read_line(r, line.key, line.value);
	}
	if (!r->entry->boot.kernel.path)
		return false;
	/* a unified image; or else a kernel that has an EFI stub, or another program */
	return uki_read(r->entry, r->a, r->env, r->entry->boot.kernel) == 0 ||
	       !r->any_program || r->entry->boot.n_initrd;
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
		struct bls_entry e = {
			.boot = { .title = names[i], .id = names[i], .cmdline = "" },
			.sort_key = "", .machine_id = "", .version = "", .tries_left = -1,
		};
		struct reader reader = {
			.a = a, .env = env, .volume = volume, .entry = &e, .expand = expand,
			.ctx = ctx,
		};

		text = boot_load_text(a, env, volume,
				      arena_printf(a, "%s/%s.conf", dir, names[i]), &len);
		if (!text || len > ENTRY_MAX || !read_entry(&reader, text))
			continue;
		arena_grow(a, out->entry, out->n, out->cap);
		out->entry[out->n++] = e;
	}
	return 0;
}
