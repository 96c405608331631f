/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * menu.c - from a guest's files to its boot menu: which configuration counts
 *
 * In this order: a GRUB 2 configuration, Boot Loader Specification entries,
 * the newest kernel.  A configuration counts when at least one of its entries
 * loads a kernel that exists; one that does not is passed over, and the menu
 * remembers why.
 */
#include "guest/bootcfg.h"

#include <errno.h>
#include <stdio.h>

/* ---- what the evaluators share ---- */

char *boot_load_text(struct arena *a, const struct boot_env *env, unsigned volume,
		     const char *path, size_t *len)
{
	void **slot = arena_slot(a);

	if (env->load(env->arg, volume, path, BOOT_CONFIG_MAX, slot, len) < 0) {
		*slot = NULL;
		return NULL;
	}
	if (*len > a->limit)
		arena_stop(a, -E2BIG);
	a->limit -= *len;
	return *slot;
}

bool boot_is_file(const struct boot_env *env, unsigned volume, const char *path)
{
	uint64_t size;

	return env->stat(env->arg, volume, path, &size) == 0;
}

void boot_clean_text(char *text, size_t size)
{
	unsigned char *p = (unsigned char *)text;
	unsigned more, i;

	text[size - 1] = '\0';
	while (*p) {
		more = *p >= 0xf0 && *p < 0xf5 ? 3 : *p >= 0xe0 && *p < 0xf0 ? 2 :
			*p >= 0xc2 && *p < 0xe0 ? 1 : 0;
		for (i = 1; i <= more && (p[i] & 0xc0) == 0x80; i++)
			;
		if (more && i > more && !(*p == 0xc2 && p[1] < 0xa0)) {
			p += more + 1;
		} else {
			if (*p < 0x20 || *p > 0x7e)
				*p = '?';
			p++;
		}
	}
}

struct listing {
	bool (*wanted)(const char *name);
	char *names;	/* owned: each with its NUL */
	size_t len;
	unsigned n;
	bool failed;
};

static void add_name(void *ctx, const char *name)
{
	struct listing *l = ctx;
	size_t len = strlen(name) + 1;
	char *grown;

	if (l->failed || l->n == BOOT_ENTRIES_MAX || len > 256 || !l->wanted(name))
		return;
	grown = realloc(l->names, l->len + len);
	if (!grown) {
		l->failed = true;
		return;
	}
	memcpy(grown + l->len, name, len);
	l->names = grown;
	l->len += len;
	l->n++;
}

int boot_list(struct arena *a, const struct boot_env *env, unsigned volume, const char *dir,
	      bool (*wanted)(const char *name), const char ***names)
{
	void **slot = arena_slot(a);
	struct listing l = { .wanted = wanted };
	const char *p;
	unsigned i;
	int r;

	/* a file system is at work below add_name(): it cannot stop the arena */
	r = env->list(env->arg, volume, dir, add_name, &l);
	*slot = l.names;
	if (r < 0)
		return r;
	if (l.failed)
		arena_stop(a, -ENOMEM);
	*names = arena_array(a, l.n + 1, sizeof(**names));
	for (i = 0, p = l.names; i < l.n; i++, p += strlen(p) + 1)
		(*names)[i] = p;
	return (int)l.n;
}

struct boot_entry *boot_menu_add(struct boot_menu *menu)
{
	struct boot_entry *e;

	if (menu->n_entries == BOOT_ENTRIES_MAX)
		arena_stop(&menu->arena, -E2BIG);
	arena_grow(&menu->arena, menu->entries, menu->n_entries, menu->cap_entries);
	e = &menu->entries[menu->n_entries++];
	e->title = e->number = e->id = e->cmdline = "";
	return e;
}

/* ---- selectors ---- */

static const struct boot_item *find_item(const struct boot_item *item, const char *name)
{
	const struct boot_item *i;
	unsigned long n;
	char *end;

	n = strtoul(name, &end, 10);
	if (*name >= '0' && *name <= '9' && !*end) {
		for (; item && n; n--)
			item = item->next;
		return item;
	}
	for (i = item; i; i = i->next)
		if (!strcmp(i->title, name) || (*i->id && !strcmp(i->id, name)))
			return i;
	return NULL;
}

static int first_entry(const struct boot_item *item)
{
	int r = -1;

	for (; item && r < 0; item = item->next)
		r = item->child ? first_entry(item->child) : item->entry;
	return r;
}

int boot_select(const struct boot_item *first, const char *selector)
{
	const struct boot_item *item;
	char name[1024];
	size_t n = 0;

	/* up to a single '>'; a doubled one stands for itself */
	while (*selector && n < sizeof(name) - 1) {
		if (*selector == '>' && *++selector != '>')
			break;
		name[n++] = *selector++;
	}
	name[n] = '\0';
	item = find_item(first, n ? name : "0");
	if (!item)
		return -1;
	if (!item->child)
		return item->entry;
	return *selector ? boot_select(item->child, selector) : first_entry(item->child);
}

int boot_select_flat(struct boot_menu *menu, const char *selector)
{
	struct boot_item *items = arena_array(&menu->arena, menu->n_entries + 1, sizeof(*items));
	unsigned i;

	for (i = 0; i < menu->n_entries; i++)
		items[i] = (struct boot_item) {
			.title = menu->entries[i].title, .id = menu->entries[i].id,
			.entry = (int)i, .next = i + 1 < menu->n_entries ? &items[i + 1] : NULL,
		};
	return boot_select(menu->n_entries ? items : NULL, selector);
}

/* ---- choosing a configuration ---- */

struct attempt {
	struct boot_menu *menu;
	const struct boot_env *env;
	unsigned volume;
	const char *path;	/* a configuration, a directory of entries; NULL: newest */
	const char *selector;
	bool bls;
	const char *why_passed;	/* borrowed: why better sources do not count */
	int result;
};

static void evaluate(void *arg)
{
	struct attempt *t = arg;

	if (!t->path)
		t->result = newest_menu(t->menu, t->env, t->selector);
	else if (t->bls)
		t->result = bls_menu(t->menu, t->env, t->volume, t->path, t->selector);
	else
		t->result = grub_menu(t->menu, t->env, t->volume, t->path, t->selector);
}

/*
 * Paths may be meant from the root or from /boot: entries written while /boot
 * was a directory outlive its move to a partition, and the reverse.
 */
static void fix_path(struct boot_menu *menu, const struct boot_env *env, struct boot_file *f)
{
	const char *other;

	if (boot_is_file(env, f->volume, f->path))
		return;
	other = strncmp(f->path, "/boot/", 6) ? arena_printf(&menu->arena, "/boot%s", f->path) :
		f->path + 5;
	if (boot_is_file(env, f->volume, other))
		f->path = other;
}

static bool usable(const struct boot_env *env, const struct boot_entry *e)
{
	unsigned i;

	if (!e->kernel.path || !boot_is_file(env, e->kernel.volume, e->kernel.path))
		return false;
	for (i = 0; i < e->n_initrd; i++)
		if (!boot_is_file(env, e->initrd[i].volume, e->initrd[i].path))
			return false;
	return true;
}

static void fix_paths(void *arg)
{
	struct attempt *t = arg;
	struct boot_entry *e;
	unsigned i, k;

	for (i = 0; i < t->menu->n_entries; i++) {
		e = &t->menu->entries[i];
		if (e->kernel.path)
			fix_path(t->menu, t->env, &e->kernel);
		for (k = 0; k < e->n_initrd; k++)
			fix_path(t->menu, t->env, &e->initrd[k]);
	}
}

/* The first entry from the chosen one on that can be booted, then from the top. */
static int next_usable(const struct boot_menu *menu, const struct boot_env *env)
{
	unsigned from = menu->chosen > 0 ? (unsigned)menu->chosen : 0, i, k;

	for (k = 0; k < menu->n_entries; k++) {
		i = (from + k) % menu->n_entries;
		if (usable(env, &menu->entries[i]))
			return (int)i;
	}
	return -1;
}

/* 1: this is the menu; 0: not usable, @why says so. */
static int try_config(struct attempt *t, char *why, size_t why_size)
{
	struct boot_menu *menu = t->menu;
	const char *wrong;
	int r, usable_entry;

	*menu = (struct boot_menu) { .chosen = -1 };
	arena_init(&menu->arena, BOOT_MEMORY_MAX);
	r = arena_run(&menu->arena, evaluate, t);
	if (r == 0)
		r = t->result;
	if (r == 0)
		r = arena_run(&menu->arena, fix_paths, t);
	wrong = menu->why_not;
	if (r == 0) {
		usable_entry = next_usable(menu, t->env);
		if (usable_entry >= 0) {
			if (!t->selector)
				menu->chosen = usable_entry;
			return 1;
		}
		snprintf(why, why_size, "%s%s%s", menu->n_entries ?
			 "none of its entries has a kernel that exists" : "it has no entries",
			 wrong ? "; " : "", wrong ? wrong : "");
	} else {
		snprintf(why, why_size, "%s", r == -ELOOP ? "it runs in circles" :
			 r == -E2BIG ? "it is too big" : strerror(-r));
	}
	arena_free(&menu->arena);
	return 0;
}

/* A source that was passed over, for the message. */
struct passed {
	char why[512];
};

static const char *const configs[] = {
	"/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg",
	"/EFI/debian/grub.cfg", "/EFI/ubuntu/grub.cfg", "/EFI/fedora/grub.cfg",
	"/EFI/redhat/grub.cfg", "/EFI/centos/grub.cfg", "/EFI/almalinux/grub.cfg",
	"/EFI/rocky/grub.cfg", "/EFI/BOOT/grub.cfg",
};
static const char *const entry_dirs[] = { "/boot/loader/entries", "/loader/entries" };

static void volume_prefix(char *out, size_t size, const struct attempt *t)
{
	const char *name = t->env->volumes[t->volume].name;

	if (name[0])
		snprintf(out, size, "#%s:", name);
	else
		out[0] = '\0';
}

/* Try @path on each volume that has it; 1: t->menu is read. */
static int try_path(struct attempt *t, const char *path, struct passed *passed)
{
	char why[192] = "", prefix[280];
	uint64_t size;

	t->path = path;
	for (t->volume = 0; t->volume < t->env->n_volumes; t->volume++) {
		if (t->env->stat(t->env->arg, t->volume, path, &size) != (t->bls ? 1 : 0))
			continue;
		if (try_config(t, why, sizeof(why)))
			return 1;
		/* keep the first reason: it belongs to the best source */
		volume_prefix(prefix, sizeof(prefix), t);
		if (!passed->why[0])
			snprintf(passed->why, sizeof(passed->why), "%s%s: %s", prefix, path, why);
	}
	return 0;
}

static int try_all(struct attempt *t, struct passed *passed)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(configs); i++)
		if (try_path(t, configs[i], passed))
			return 1;
	t->bls = true;
	for (i = 0; i < ARRAY_SIZE(entry_dirs); i++)
		if (try_path(t, entry_dirs[i], passed))
			return 1;
	return 0;
}

static void name_source(void *arg)
{
	struct attempt *t = arg;
	struct arena *a = &t->menu->arena;
	char prefix[280];

	if (!t->path) {
		t->menu->source = arena_printf(a, "%s: newest kernel", t->why_passed[0] ?
					       t->why_passed : "no boot configuration");
		return;
	}
	volume_prefix(prefix, sizeof(prefix), t);
	t->menu->source = arena_printf(a, "%s%s", prefix, t->path);
}

int boot_menu_read(struct boot_menu *out, const struct boot_env *env, const char *selector,
		   struct vdisk_error *err)
{
	struct passed passed = { .why = "" };
	struct attempt t = { .menu = out, .env = env, .selector = selector,
			     .why_passed = passed.why };
	char why[192] = "";
	int r;

	if (!try_all(&t, &passed)) {
		t.path = NULL;
		if (!try_config(&t, why, sizeof(why)))
			return vd_fail(err, ENOENT, "boot: no kernel on this disk%s%s",
				       passed.why[0] ? "; " : "", passed.why);
	}
	r = arena_run(&out->arena, name_source, &t);
	if (r < 0)
		vd_fail(err, -r, "boot: %s", strerror(-r));
	else if (selector && out->chosen < 0)
		r = vd_fail(err, ENOENT, "boot: no entry '%s' in the boot menu", selector);
	else if (selector && !usable(env, &out->entries[out->chosen]))
		r = vd_fail(err, ENOENT, "boot: entry '%s' loads no Linux kernel that exists",
			    selector);
	if (r < 0)
		boot_menu_free(out);
	return r;
}

void boot_menu_free(struct boot_menu *menu)
{
	arena_free(&menu->arena);
}
