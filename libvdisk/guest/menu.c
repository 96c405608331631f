/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * menu.c - from a guest's files to its boot menu: which configuration counts
 *
 * In this order: a GRUB 2 configuration, Boot Loader Specification entries and
 * unified images, syslinux and its kin, GRUB legacy, the newest kernel.  A configuration counts when at least one of its entries
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

/* ---- lines and words ---- */

char *boot_next_word(struct arena *a, const char **text, const char *separators)
{
	const char *start = *text + strspn(*text, separators);
	size_t len = strcspn(start, separators);

	*text = start + len;
	return len ? arena_strndup(a, start, len) : NULL;
}

bool boot_next_line(struct boot_line *out, struct arena *a, const char **text,
		    const char *separators)
{
	const char *p = *text, *end, *value;
	size_t len;

	for (; *p; p = *end ? end + 1 : end) {
		p += strspn(p, " \t\r");
		end = p + strcspn(p, "\n");
		if (*p == '#' || p == end)
			continue;
		*text = *end ? end + 1 : end;
		while (strchr(" \t\r", end[-1]))
			end--;
		for (len = 0; p + len < end && !strchr(separators, p[len]); len++)
			;
		out->key = arena_strndup(a, p, len);
		value = p + len;
		while (value < end && (strchr(separators, *value) || strchr(" \t", *value)))
			value++;
		out->value = arena_strndup(a, value, (size_t)(end - value));
		return true;
	}
	*text = p;
	return false;
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

static int newest_kernel(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
			 const char *path, const char *selector)
{
	(void)volume, (void)path;
	return newest_menu(menu, env, selector);
}

struct attempt {
	struct boot_menu *menu;
	const struct boot_env *env;
	boot_menu_fn *read;
	unsigned volume;
	char path[64];		/* a configuration, a directory of entries */
	const struct boot_wish *wish;
	int result;
};

static void evaluate(void *arg)
{
	struct attempt *t = arg;

	t->result = t->read(t->menu, t->env, t->volume, t->path, t->wish->entry);
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

/* What the entry names and is not there; NULL: nothing. */
static const struct boot_file *missing(const struct boot_env *env, const struct boot_entry *e)
{
	unsigned i;

	if (!boot_is_file(env, e->kernel.volume, e->kernel.path))
		return &e->kernel;
	for (i = 0; i < e->n_initrd; i++)
		if (!boot_is_file(env, e->initrd[i].volume, e->initrd[i].path))
			return &e->initrd[i];
	return NULL;
}

static bool usable(const struct boot_env *env, const struct boot_entry *e)
{
	return e->kernel.path && !missing(env, e);
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

/* The chosen entry, its fallbacks, the next one that can be booted, then from the top. */
static int next_usable(const struct boot_menu *menu, const struct boot_env *env)
{
	unsigned from = menu->chosen > 0 ? (unsigned)menu->chosen : 0, i, k;

	if (menu->chosen >= 0 && usable(env, &menu->entries[menu->chosen]))
		return menu->chosen;
	for (i = 0; i < menu->n_fallback; i++)
		if (usable(env, &menu->entries[menu->fallback[i]]))
			return menu->fallback[i];
	for (k = 0; k < menu->n_entries; k++) {
		i = (from + k) % menu->n_entries;
		if (usable(env, &menu->entries[i]))
			return (int)i;
	}
	return -1;
}

bool boot_is_recovery(const char *cmdline)
{
	static const char *const words[] = {
		"single", "recovery", "emergency", "rescue", "systemd.unit=rescue.target",
		"systemd.unit=emergency.target",
	};

	for (size_t len; *cmdline; cmdline += len) {
		cmdline += strspn(cmdline, " ");
		len = strcspn(cmdline, " ");
		for (size_t i = 0; i < ARRAY_SIZE(words); i++)
			if (len == strlen(words[i]) && !strncmp(cmdline, words[i], len))
				return true;
	}
	return false;
}

/* The menu's own way to repair what @chosen boots; @chosen if it has none. */
static int recovery_of(const struct boot_menu *menu, const struct boot_env *env, int chosen)
{
	const struct boot_file *kernel = &menu->entries[chosen].kernel, *other;

	for (unsigned i = 0; i < menu->n_entries; i++) {
		other = &menu->entries[i].kernel;
		if (usable(env, &menu->entries[i]) && boot_is_recovery(menu->entries[i].cmdline) &&
		    other->volume == kernel->volume && !strcmp(other->path, kernel->path))
			return (int)i;
	}
	return chosen;
}

static void say_why_not(char *why, size_t size, const struct boot_menu *menu,
			const struct boot_env *env)
{
	const char *wrong = menu->why_not ? menu->why_not : "", *and = *wrong ? "; " : "";
	const struct boot_entry *e;

	if (!menu->n_entries) {
		snprintf(why, size, "it has no entries%s%s", and, wrong);
		return;
	}
	e = &menu->entries[menu->chosen > 0 ? menu->chosen : 0];
	if (e->kernel.path)
		snprintf(why, size, "none of its entries can be booted: '%.40s' wants %.100s, which does "
			 "not exist%s%s", e->title, missing(env, e)->path, and, wrong);
	else
		snprintf(why, size, "none of its entries loads a Linux kernel that exists%s%s", and,
			 wrong);
	boot_clean_text(why, size);
}

/* 1: this is the menu; 0: not usable, @why says so. */
static int try_config(struct attempt *t, char *why, size_t why_size)
{
	struct boot_menu *menu = t->menu;
	int r, usable_entry;

	*menu = (struct boot_menu) { .chosen = -1 };
	arena_init(&menu->arena, BOOT_MEMORY_MAX);
	r = arena_run(&menu->arena, evaluate, t);
	if (r == 0)
		r = t->result;
	if (r == 0)
		r = arena_run(&menu->arena, fix_paths, t);
	if (r == 0) {
		usable_entry = next_usable(menu, t->env);
		if (usable_entry >= 0) {
			if (!t->wish->entry)
				menu->chosen = usable_entry;
			if (t->wish->recovery && menu->chosen >= 0 &&
			    usable(t->env, &menu->entries[menu->chosen]))
				menu->chosen = recovery_of(menu, t->env, menu->chosen);
			return 1;
		}
		say_why_not(why, why_size, menu, t->env);
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
	char source[512];	/* what was not passed over */
};

/* Best first; a path that ends in "/" is a directory. */
static const struct source {
	boot_menu_fn *read;
	const char *path;
} sources[] = {
	{ grub_menu, "/boot/grub/grub.cfg" },
	{ grub_menu, "/boot/grub2/grub.cfg" },
	{ grub_menu, "/grub/grub.cfg" },
	{ grub_menu, "/grub2/grub.cfg" },
	{ grub_menu, "/EFI/debian/grub.cfg" },
	{ grub_menu, "/EFI/ubuntu/grub.cfg" },
	{ grub_menu, "/EFI/fedora/grub.cfg" },
	{ grub_menu, "/EFI/redhat/grub.cfg" },
	{ grub_menu, "/EFI/centos/grub.cfg" },
	{ grub_menu, "/EFI/almalinux/grub.cfg" },
	{ grub_menu, "/EFI/rocky/grub.cfg" },
	{ grub_menu, "/EFI/opensuse/grub.cfg" },
	{ grub_menu, "/EFI/BOOT/grub.cfg" },
	{ loader_menu, "/boot/loader/entries/" },
	{ loader_menu, "/loader/entries/" },
	{ loader_menu, "/EFI/Linux/" },
	{ syslinux_menu, "/boot/extlinux/extlinux.conf" },
	{ syslinux_menu, "/extlinux/extlinux.conf" },
	{ syslinux_menu, "/boot/extlinux.conf" },
	{ syslinux_menu, "/extlinux.conf" },
	{ syslinux_menu, "/boot/syslinux/extlinux.conf" },
	{ syslinux_menu, "/boot/syslinux/syslinux.cfg" },
	{ syslinux_menu, "/syslinux/syslinux.cfg" },
	{ syslinux_menu, "/boot/isolinux/isolinux.cfg" },
	{ syslinux_menu, "/isolinux/isolinux.cfg" },
	{ syslinux_menu, "/isolinux.cfg" },
	{ syslinux_menu, "/syslinux.cfg" },
	{ legacy_menu, "/boot/grub/menu.lst" },
	{ legacy_menu, "/grub/menu.lst" },
	{ legacy_menu, "/boot/grub/grub.conf" },
	{ legacy_menu, "/grub/grub.conf" },
};

static void volume_prefix(char *out, size_t size, const struct attempt *t)
{
	const char *name = t->env->volumes[t->volume].name;

	if (name[0])
		snprintf(out, size, "#%s:", name);
	else
		out[0] = '\0';
}

/* Try @source on each volume that has it; 1: t->menu is read. */
static int try_source(struct attempt *t, const struct source *source, struct passed *passed)
{
	size_t len = strlen(source->path);
	bool directory = source->path[len - 1] == '/';
	char why[240] = "", prefix[280];
	uint64_t size;

	snprintf(t->path, sizeof(t->path), "%.*s", (int)(len - directory), source->path);
	t->read = source->read;
	for (t->volume = 0; t->volume < t->env->n_volumes; t->volume++) {
		if (t->env->stat(t->env->arg, t->volume, t->path, &size) != directory)
			continue;
		volume_prefix(prefix, sizeof(prefix), t);
		if (!directory && size > BOOT_CONFIG_MAX)
			snprintf(why, sizeof(why), "it is too big");
		else if (try_config(t, why, sizeof(why))) {
			snprintf(passed->source, sizeof(passed->source), "%s%s", prefix, t->path);
			return 1;
		}
		/* keep the first reason: it belongs to the best source */
		if (!passed->why[0])
			snprintf(passed->why, sizeof(passed->why), "%.200s%s: %s", prefix, t->path,
				 why);
	}
	return 0;
}

struct naming {
	struct boot_menu *menu;
	const struct passed *passed;
	bool newest;
};

static void name_source(void *arg)
{
	const struct naming *n = arg;
	struct arena *a = &n->menu->arena;
	const char *why = n->passed->why;

	n->menu->source = n->newest ?
		arena_printf(a, "%s: newest kernel", *why ? why : "no boot configuration") :
		arena_strdup(a, n->passed->source);
}

int boot_menu_read(struct boot_menu *out, const struct boot_env *env, const struct boot_wish *wish,
		   struct vdisk_error *err)
{
	static const struct boot_wish none;
	struct passed passed = { .why = "" };
	struct naming naming = { .menu = out, .passed = &passed };
	struct attempt t = { .menu = out, .env = env, .wish = wish ? wish : &none };
	const char *entry = t.wish->entry;
	char why[192] = "";
	bool found = false;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(sources) && !found; i++)
		found = try_source(&t, &sources[i], &passed);
	if (!found) {
		t.read = newest_kernel;
		naming.newest = true;
		if (!try_config(&t, why, sizeof(why)))
			return vd_fail(err, ENOENT, "boot: no kernel on this disk%s%s",
				       passed.why[0] ? "; " : "", passed.why);
	}
	r = arena_run(&out->arena, name_source, &naming);
	if (r < 0)
		vd_fail(err, -r, "boot: %s", strerror(-r));
	else if (entry && out->chosen < 0)
		r = vd_fail(err, ENOENT, "boot: no entry '%s' in the boot menu (--list shows it)%s%s",
			    entry, passed.why[0] ? "; " : "", passed.why);
	else if (entry && !usable(env, &out->entries[out->chosen]))
		r = vd_fail(err, ENOENT, "boot: entry '%s' loads no Linux kernel that exists",
			    entry);
	if (r < 0)
		boot_menu_free(out);
	return r;
}

void boot_menu_free(struct boot_menu *menu)
{
	arena_free(&menu->arena);
}
