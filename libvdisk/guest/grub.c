/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grub.c - what would GRUB 2 boot?
 *
 * Runs a grub.cfg the way GRUB does: statement by statement, with variables,
 * functions, tests, searches for file systems, other configuration files and
 * environment blocks.  menuentry and submenu leave items in a menu; when the
 * configuration has been read, each item's body is run in turn, to see which
 * kernel, initrds and command line it loads.  Then $default is looked up.
 *
 * What has to do with screens, keys, sound, networks and other boot loaders is
 * accepted and does nothing.  Nothing is ever written: next_entry, which GRUB
 * would clear, is honoured and stays.
 *
 * The text comes from the guest, so
 *   1. every command counts as a step, and steps are limited;
 *   2. calls, sourced files and submenus nest to a limit;
 *   3. all memory is in the menu's arena, which has a limit;
 *   4. device names mean volumes of this guest and nothing else.
 */
#include "guest/grub_eval.h"

#include <errno.h>

/* ---- commands ---- */

static int cmd_true(struct grub *g, const struct grub_args *args)
{
	(void)g, (void)args;
	return 0;
}

static int cmd_false(struct grub *g, const struct grub_args *args)
{
	(void)g, (void)args;
	return 1;
}

static int cmd_set(struct grub *g, const struct grub_args *args)
{
	return args->n > 1 ? grub_assign(g, args->v[1]) : 0;
}

static int cmd_export(struct grub *g, const struct grub_args *args)
{
	unsigned i;

	/* All variables reach submenus here; what counts is "export a=b". */
	for (i = 1; i < args->n; i++)
		if (strchr(args->v[i], '='))
			grub_assign(g, args->v[i]);
	return 0;
}

static int cmd_unset(struct grub *g, const struct grub_args *args)
{
	unsigned i;

	for (i = 1; i < args->n; i++)
		grub_unset(g, args->v[i]);
	return 0;
}

static int cmd_setparams(struct grub *g, const struct grub_args *args)
{
	struct grub_args params = { 0 };
	unsigned i;

	for (i = 1; i < args->n; i++)
		grub_add_arg(g, &params, args->v[i]);
	g->params = params;
	return 0;
}

static int cmd_shift(struct grub *g, const struct grub_args *args)
{
	unsigned long n = args->n > 1 ? strtoul(args->v[1], NULL, 10) : 1;

	if (n > g->params.n)
		return 1;
	g->params.v += n;
	g->params.n -= (unsigned)n;
	g->params.cap -= (unsigned)n;
	return 0;
}

static int leave_levels(struct grub *g, const struct grub_args *args, enum grub_flow flow)
{
	unsigned long n = args->n > 1 ? strtoul(args->v[1], NULL, 10) : 1;

	g->flow = flow;
	g->flow_levels = n ? (unsigned)MIN(n, 1000ul) : 1;
	return 0;
}

static int cmd_break(struct grub *g, const struct grub_args *args)
{
	return leave_levels(g, args, FLOW_BREAK);
}

static int cmd_continue(struct grub *g, const struct grub_args *args)
{
	return leave_levels(g, args, FLOW_CONTINUE);
}

static int cmd_return(struct grub *g, const struct grub_args *args)
{
	g->flow = FLOW_RETURN;
	return args->n > 1 ? (int)(strtol(args->v[1], NULL, 10) & 255) : g->status;
}

/* exit, reboot, halt: nothing after it happens. */
static int cmd_leave(struct grub *g, const struct grub_args *args)
{
	(void)args;
	g->flow = FLOW_LEAVE;
	return 0;
}

/* ---- running ---- */

void grub_count_step(struct grub *g)
{
	if (++g->steps > GRUB_STEPS_MAX)
		arena_stop(g->a, -ELOOP);
}

void grub_enter_call(struct grub *g)
{
	if (++g->calls > GRUB_CALLS_MAX)
		arena_stop(g->a, -ELOOP);
}

/* Run a text; a wrong statement is passed over, as GRUB does it. */
void grub_run_text(struct grub *g, const char *text, size_t len)
{
	struct grub_parser parser;
	struct grub_node *node;
	int r;

	grub_enter_call(g);
	grub_parser_init(&parser, g->a, text, len);
	while (g->flow == FLOW_RUN && (r = grub_parse_statement(&parser, &node)) != 0) {
		grub_count_step(g);
		if (r > 0)
			grub_run_list(g, node);
		else if (!g->menu->why_not)
			g->menu->why_not = arena_printf(g->a, "line %u: %s", parser.line,
							parser.wrong);
	}
	g->calls--;
}

/* Accepted, and of no consequence for which kernel is loaded. */
static const char *const ignored[] = {
	"background_color", "background_image", "badram", "clear", "cutmem", "devicetree", "echo",
	"gfxmode", "insmod", "keymap", "loadfont", "load_video", "play", "rmmod", "save_env",
	"serial", "sleep", "terminal_input", "terminal_output", "cpuid", "cryptomount",
};

static const struct {
	const char *name;
	grub_command *run;
} commands[] = {
	{ "[", grub_cmd_test },
	{ "test", grub_cmd_test },
	{ "true", cmd_true },
	{ ":", cmd_true },
	{ "false", cmd_false },
	{ "set", cmd_set },
	{ "export", cmd_export },
	{ "unset", cmd_unset },
	{ "setparams", cmd_setparams },
	{ "shift", cmd_shift },
	{ "break", cmd_break },
	{ "continue", cmd_continue },
	{ "return", cmd_return },
	{ "exit", cmd_leave },
	{ "normal_exit", cmd_leave },
	{ "reboot", cmd_leave },
	{ "halt", cmd_leave },
	{ "search", grub_cmd_search },
	{ "search.fs_uuid", grub_cmd_search_short },
	{ "search.fs_label", grub_cmd_search_short },
	{ "search.file", grub_cmd_search_short },
	{ "probe", grub_cmd_probe },
	{ "source", grub_cmd_source },
	{ ".", grub_cmd_source },
	{ "configfile", grub_cmd_source },
	{ "normal", grub_cmd_source },
	{ "load_env", grub_cmd_load_env },
	{ "blscfg", grub_cmd_blscfg },
	{ "linux", grub_cmd_linux },
	{ "linux16", grub_cmd_linux },
	{ "linuxefi", grub_cmd_linux },
	{ "initrd", grub_cmd_initrd },
	{ "initrd16", grub_cmd_initrd },
	{ "initrdefi", grub_cmd_initrd },
	{ "chainloader", grub_cmd_chainloader },
};

static int call_function(struct grub *g, const struct grub_function *f, const struct grub_args *args)
{
	struct grub_args saved = g->params;
	int r;

	grub_enter_call(g);
	cmd_setparams(g, args);
	r = grub_run_list(g, f->body);
	if (g->flow == FLOW_RETURN) {
		g->flow = FLOW_RUN;
		r = g->status;
	}
	g->params = saved;
	g->calls--;
	return r;
}

static int run_argv(struct grub *g, const struct grub_args *args)
{
	const char *name = args->v[0];
	const struct grub_function *f;
	unsigned i;

	for (f = g->functions; f; f = f->next)
		if (!strcmp(f->name, name))
			return call_function(g, f, args);
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].run(g, args);
	for (i = 0; i < ARRAY_SIZE(ignored); i++)
		if (!strcmp(ignored[i], name))
			return 0;
	if (!strcmp(name, "eval")) {
		const char *text = grub_join(g, args, 1);

		grub_run_text(g, text, strlen(text));
		return g->status;
	}
	if (name[0] != '=' && strchr(name, '='))
		return grub_assign(g, name);
	return 1;
}

static int run_command(struct grub *g, const struct grub_node *node)
{
	struct grub_args args = grub_expand_words(g, node->words);
	bool negated;
	int r;

	negated = args.n > 1 && !strcmp(args.v[0], "!");
	if (negated) {
		args.v++;
		args.n--;
		args.cap--;
	}
	if (!args.n)
		return 0;
	if (node->has_block)
		r = !strcmp(args.v[0], "menuentry") || !strcmp(args.v[0], "submenu") ?
			grub_add_menu_entry(g, &args, node->body) : 1;
	else
		r = run_argv(g, &args);
	return negated ? !r : r;
}

/* Has the loop's body asked to leave?  One level of break or continue is used up. */
static bool leave_loop(struct grub *g)
{
	if (g->flow == FLOW_BREAK) {
		if (--g->flow_levels == 0)
			g->flow = FLOW_RUN;
		return true;
	}
	if (g->flow == FLOW_CONTINUE && --g->flow_levels == 0) {
		g->flow = FLOW_RUN;
		return false;
	}
	return g->flow != FLOW_RUN;
}

static int run_while(struct grub *g, const struct grub_node *node)
{
	int r = 0;

	for (;;) {
		grub_count_step(g);
		if ((grub_run_list(g, node->cond) == 0) == node->negated || g->flow != FLOW_RUN)
			return r;
		r = grub_run_list(g, node->body);
		if (leave_loop(g))
			return r;
	}
}

static int run_for(struct grub *g, const struct grub_node *node)
{
	struct grub_args words = grub_expand_words(g, node->words);
	unsigned i;
	int r = 0;

	for (i = 0; i < words.n; i++) {
		grub_count_step(g);
		grub_set(g, node->name, words.v[i]);
		r = grub_run_list(g, node->body);
		if (leave_loop(g))
			break;
	}
	return r;
}

static int define_function(struct grub *g, const struct grub_node *node)
{
	struct grub_function *f = arena_alloc(g->a, sizeof(*f));

	f->name = node->name;
	f->body = node->body;
	f->next = g->functions;
	g->functions = f;
	return 0;
}

static int run_node(struct grub *g, const struct grub_node *node)
{
	switch (node->kind) {
	case GRUB_COMMAND:
		return run_command(g, node);
	case GRUB_IF:
		if (grub_run_list(g, node->cond) == 0)
			return g->flow == FLOW_RUN ? grub_run_list(g, node->body) : 0;
		return node->otherwise && g->flow == FLOW_RUN ? grub_run_list(g, node->otherwise) : 0;
	case GRUB_WHILE:
		return run_while(g, node);
	case GRUB_FOR:
		return run_for(g, node);
	case GRUB_FUNCTION:
		return define_function(g, node);
	}
	return 1;
}

int grub_run_list(struct grub *g, const struct grub_node *node)
{
	int r = 0;

	for (; node && g->flow == FLOW_RUN; node = node->next) {
		grub_count_step(g);
		r = g->status = run_node(g, node);
	}
	return r;
}

/* ---- the whole ---- */

/* What GRUB itself has set before it reads the configuration. */
static void set_initial(struct grub *g, unsigned volume, const char *config)
{
	static const char *const yes[] = {
		"feature_chainloader_bpb", "feature_ntldr", "feature_platform_search_hint",
		"feature_default_font_path", "feature_all_video_module",
		"feature_menuentry_id", "feature_menuentry_options", "feature_200_final",
		"feature_nativedisk_cmd", "feature_timeout_style",
	};
	const char *device = grub_device_name(g, volume), *slash = strrchr(config, '/');
	const char *prefix = arena_printf(g->a, "(%s)%.*s", device, (int)(slash - config), config);
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(yes); i++)
		grub_set(g, yes[i], "y");
	grub_set(g, "grub_cpu", "x86_64");
	grub_set(g, "grub_platform", "pc");
	grub_set(g, "root", device);
	grub_set(g, "prefix", prefix);
	grub_set(g, "cmdpath", prefix);
	grub_set(g, "config_directory", prefix);
	grub_set(g, "config_file", arena_printf(g->a, "(%s)%s", device, config));
}

/* "fallback" is a list of selectors. */
static void set_fallbacks(struct grub *g, const struct boot_item *tree)
{
	const char *list = grub_value(g, "fallback"), *word;
	struct boot_menu *menu = g->menu;
	int entry;

	while (menu->n_fallback < BOOT_FALLBACKS_MAX && (word = boot_next_word(g->a, &list, " \t"))) {
		entry = boot_select(tree, word);
		if (entry >= 0)
			menu->fallback[menu->n_fallback++] = entry;
	}
}

int grub_menu(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
	      const char *config, const char *selector)
{
	struct grub_item_list items = { .tail = &items.first };
	struct grub g = { .menu = menu, .a = &menu->arena, .env = env, .items = &items };
	struct boot_item *tree;

	set_initial(&g, volume, config);
	if (grub_run_file(&g, (struct boot_file) { .volume = volume, .path = config }) != 0)
		return -ENOENT;
	g.flow = FLOW_RUN;
	tree = grub_flatten(&g, items.first, "", "");
	menu->chosen = boot_select(tree, selector ? selector : grub_value(&g, "default"));
	set_fallbacks(&g, tree);
	/* GRUB takes the first where the default is nowhere */
	if (menu->chosen < 0 && !selector)
		menu->chosen = boot_select(tree, "0");
	return 0;
}
