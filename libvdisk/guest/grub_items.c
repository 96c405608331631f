/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grub_items.c - menuentry, submenu and blscfg, and the menu they make
 *
 * They leave items while the configuration runs.  Afterwards each item's body
 * is run in turn, to see what it loads.
 */
#include "guest/grub_eval.h"

#include <errno.h>

static struct grub_item *add_item(struct grub *g)
{
	struct grub_item *item;

	if (++g->n_items > BOOT_ENTRIES_MAX)
		arena_stop(g->a, -E2BIG);
	item = arena_alloc(g->a, sizeof(*item));
	item->title = item->id = "";
	*g->items->tail = item;
	g->items->tail = &item->next;
	g->items->n++;
	return item;
}

/* menuentry and submenu: TITLE [--class C]... [--id I] ... { BODY } */
int grub_add_menu_entry(struct grub *g, const struct grub_args *args, struct grub_node *body)
{
	static const char *const with_value[] = { "--class", "--users", "--hotkey", "--source" };
	struct grub_item *item;
	const char *arg;
	unsigned i, k;

	if (g->entry || args->n < 2)
		return 1;
	item = add_item(g);
	item->submenu = !strcmp(args->v[0], "submenu");
	item->body = body;
	for (i = 1; i < args->n; i++) {
		arg = args->v[i];
		for (k = 0; k < ARRAY_SIZE(with_value) && strcmp(arg, with_value[k]) != 0; k++)
			;
		if (k < ARRAY_SIZE(with_value)) {
			i++;
		} else if (!strcmp(arg, "--id") && i + 1 < args->n) {
			item->id = args->v[++i];
		} else if (!strncmp(arg, "--id=", 5)) {
			item->id = arg + 5;
		} else if (arg[0] != '-' || arg[1] != '-') {
			if (!item->args.n)
				item->title = arg;
			grub_add_arg(g, &item->args, arg);
		}
	}
	return 0;
}

static const char *expand_for_bls(void *ctx, const char *text)
{
	struct grub *g = ctx;
	struct grub_word *word;
	struct grub_parser p;
	struct grub_args out = { 0 };
	char *quoted, *to;

	/* Only variables count in a BLS value: read it as one quoted word. */
	to = quoted = arena_alloc(g->a, 2 * strlen(text) + 3);
	*to++ = '"';
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			*to++ = '\\';
		*to++ = *text;
	}
	*to++ = '"';
	grub_parser_init(&p, g->a, quoted, (size_t)(to - quoted));
	word = grub_parse_word(&p);
	if (word)
		grub_expand_word(g, &out, word);
	return out.n ? out.v[0] : "";
}

static int add_bls(struct grub *g, const char *device, const char *dir)
{
	int volume = grub_find_device(g, device, strlen(device)), r;
	struct bls_entries list = { 0 };
	struct grub_item *item;
	unsigned i;

	if (volume < 0)
		return 1;
	r = bls_read(&list, g->a, g->env, (unsigned)volume, dir, expand_for_bls, g);
	for (i = 0; r == 0 && i < list.n; i++) {
		item = add_item(g);
		item->ready = &list.entry[i].boot;
		item->title = list.entry[i].boot.title;
		item->id = list.entry[i].boot.id;
	}
	return list.n ? 0 : 1;
}

/*
 * Fedora's command: the entries of $blsdir, or of the usual places, on the
 * device that holds /boot.
 */
int grub_cmd_blscfg(struct grub *g, const struct grub_args *args)
{
	const char *dirs[] = { grub_get(g, "blsdir"), "/loader/entries", "/boot/loader/entries" };
	const char *devices[] = { grub_get(g, "boot"), grub_get(g, "root") };
	struct boot_file f;
	unsigned d, i;

	if (g->entry)
		return 1;
	if (args->n > 1) {
		f = grub_resolve(g, args->v[1]);
		return f.path ? add_bls(g, grub_device_name(g, f.volume), f.path) : 1;
	}
	for (d = 0; d < ARRAY_SIZE(devices); d++)
		for (i = 0; devices[d] && i < ARRAY_SIZE(dirs); i++)
			if (dirs[i] && add_bls(g, devices[d], dirs[i]) == 0)
				return 0;
	return 1;
}

/* ---- from the items to the entries ---- */

static const char *nested_name(struct grub *g, const char *outer, const char *name)
{
	return *outer ? arena_printf(g->a, "%s>%s", outer, name) : name;
}

static void run_entry(struct grub *g, const struct grub_item *item, struct boot_entry *e)
{
	struct grub_scope scope = grub_enter_scope(g);

	g->entry = e;
	g->params = item->args;
	grub_run_list(g, item->body);
	g->entry = NULL;
	grub_leave_scope(g, &scope);
}

static struct boot_item *open_submenu(struct grub *g, const struct grub_item *item, const char *title,
				      const char *number)
{
	struct grub_item_list inner = { .tail = &inner.first }, *outer = g->items;
	struct grub_scope scope = grub_enter_scope(g);
	struct boot_item *items;

	grub_enter_call(g);
	g->items = &inner;
	g->params = item->args;
	grub_run_list(g, item->body);
	g->flow = FLOW_RUN;
	items = grub_flatten(g, inner.first, title, number);
	g->items = outer;
	g->calls--;
	grub_leave_scope(g, &scope);
	return items;
}

struct boot_item *grub_flatten(struct grub *g, const struct grub_item *item, const char *title,
				 const char *number)
{
	struct boot_item *first = NULL, **tail = &first;
	unsigned n = 0;

	for (; item; item = item->next, n++) {
		const char *full = nested_name(g, title, item->title);
		const char *place = nested_name(g, number, arena_printf(g->a, "%u", n));
		struct boot_item *b = arena_alloc(g->a, sizeof(*b));
		struct boot_entry *e;

		b->title = item->title;
		b->id = item->id;
		b->entry = -1;
		if (item->submenu) {
			b->child = open_submenu(g, item, full, place);
		} else {
			b->entry = (int)g->menu->n_entries;
			e = boot_menu_add(g->menu);
			if (item->ready)
				*e = *item->ready;
			e->title = full;
			e->number = place;
			e->id = item->id;
			if (!item->ready)
				run_entry(g, item, e);
		}
		*tail = b;
		tail = &b->next;
	}
	return first;
}
