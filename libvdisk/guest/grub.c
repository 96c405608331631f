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
#include "guest/bootcfg.h"
#include "guest/grub_script.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

enum {
	MAX_STEPS = 200000,
	MAX_CALLS = 48,
	MAX_VALUE = 65536,	/* bytes of a variable's value */
	MAX_WORDS = 4096,	/* of one command, expanded */
	MAX_VARIABLES = 2048,
};

struct variable {
	const char *name, *value;
};

struct function {
	struct function *next;
	const char *name;
	struct grub_node *body;
};

struct args {
	const char **v;
	unsigned n, cap;
};

struct item {
	struct item *next;
	const char *title, *id;
	struct grub_node *body;
	struct args args;	/* $1... of the body: the title first */
	bool submenu;
	const struct boot_entry *ready; /* of a BLS entry: no body to run */
};

struct item_list {
	struct item *first, **tail;
	unsigned n;
};

enum flow { RUN, LOOP_BREAK, LOOP_CONTINUE, RETURN, LEAVE };

struct grub {
	struct boot_menu *menu;
	struct arena *a;
	const struct boot_env *env;

	struct variable *vars;
	unsigned n_vars, cap_vars;
	struct function *functions;
	struct args params;	/* $1... */
	int status;		/* $? */
	enum flow flow;
	unsigned flow_levels;
	unsigned steps, calls;

	struct item_list *items; /* where menuentry puts them */
	unsigned n_items;
	struct boot_entry *entry; /* whose body is running, or NULL */
};

static int run_list(struct grub *g, const struct grub_node *node);

/* ---- variables ---- */

static const char *get(const struct grub *g, const char *name)
{
	unsigned i;

	for (i = 0; i < g->n_vars; i++)
		if (!strcmp(g->vars[i].name, name))
			return g->vars[i].value;
	return NULL;
}

static const char *get_or_empty(const struct grub *g, const char *name)
{
	const char *value = get(g, name);

	return value ? value : "";
}

static void set(struct grub *g, const char *name, const char *value)
{
	size_t len = strlen(value);
	unsigned i;

	if (len > MAX_VALUE)
		arena_stop(g->a, -E2BIG);
	value = arena_strndup(g->a, value, len);
	for (i = 0; i < g->n_vars; i++) {
		if (!strcmp(g->vars[i].name, name)) {
			g->vars[i].value = value;
			return;
		}
	}
	if (g->n_vars == MAX_VARIABLES)
		arena_stop(g->a, -E2BIG);
	arena_grow(g->a, g->vars, g->n_vars, g->cap_vars);
	g->vars[g->n_vars].name = arena_strdup(g->a, name);
	g->vars[g->n_vars++].value = value;
}

static void unset(struct grub *g, const char *name)
{
	unsigned i;

	for (i = 0; i < g->n_vars; i++) {
		if (!strcmp(g->vars[i].name, name)) {
			g->vars[i] = g->vars[--g->n_vars];
			return;
		}
	}
}

/* Entries and submenus run with variables of their own. */
struct scope {
	struct variable *vars;
	unsigned n_vars, cap_vars;
	struct args params;
};

static struct scope enter_scope(struct grub *g)
{
	struct scope s = { g->vars, g->n_vars, g->cap_vars, g->params };

	g->vars = arena_array(g->a, s.cap_vars, sizeof(*g->vars));
	if (s.n_vars)
		memcpy(g->vars, s.vars, s.n_vars * sizeof(*g->vars));
	return s;
}

static void leave_scope(struct grub *g, const struct scope *s)
{
	g->vars = s->vars;
	g->n_vars = s->n_vars;
	g->cap_vars = s->cap_vars;
	g->params = s->params;
	g->flow = RUN;
}

/* ---- words to arguments ---- */

static void add_arg(struct grub *g, struct args *args, const char *text)
{
	if (args->n == MAX_WORDS)
		arena_stop(g->a, -E2BIG);
	arena_grow(g->a, args->v, args->n, args->cap);
	args->v[args->n++] = text;
}

static const char *join(struct grub *g, const struct args *args, unsigned from)
{
	size_t len = 1;
	char *text, *p;
	unsigned i;

	for (i = from; i < args->n; i++)
		len += strlen(args->v[i]) + 1;
	p = text = arena_alloc(g->a, len);
	for (i = from; i < args->n; i++) {
		if (i > from)
			*p++ = ' ';
		p = stpcpy(p, args->v[i]);
	}
	return text;
}

static const char *value_of(struct grub *g, const char *name)
{
	unsigned long n;

	if (!strcmp(name, "?"))
		return arena_printf(g->a, "%d", g->status);
	if (!strcmp(name, "#"))
		return arena_printf(g->a, "%u", g->params.n);
	if (!strcmp(name, "*") || !strcmp(name, "@"))
		return join(g, &g->params, 0);
	if (name[0] >= '0' && name[0] <= '9') {
		n = strtoul(name, NULL, 10);
		return n >= 1 && n <= g->params.n ? g->params.v[n - 1] : "";
	}
	return get_or_empty(g, name);
}

struct expansion {
	struct grub *g;
	struct args *out;
	char *text;
	size_t len, cap;
	bool any;	/* there is an argument, even if it is empty */
};

static void end_arg(struct expansion *x)
{
	if (x->any)
		add_arg(x->g, x->out, arena_strndup(x->g->a, x->len ? x->text : "", x->len));
	x->len = 0;
	x->any = false;
}

static void append(struct expansion *x, const char *text, bool split)
{
	for (; *text; text++) {
		if (split && strchr(" \t\n", *text)) {
			end_arg(x);
			continue;
		}
		if (x->len == MAX_VALUE)
			arena_stop(x->g->a, -E2BIG);
		arena_grow(x->g->a, x->text, x->len, x->cap);
		x->text[x->len++] = *text;
		x->any = true;
	}
}

static void expand_word(struct grub *g, struct args *out, const struct grub_word *word)
{
	struct expansion x = { .g = g, .out = out, .any = word->quoted };
	const struct grub_part *part;
	unsigned i;

	for (part = word->parts; part; part = part->next) {
		if (part->variable && part->quoted && !strcmp(part->text, "@")) {
			/* "$@": each parameter stays one argument */
			for (i = 0; i < g->params.n; i++) {
				append(&x, g->params.v[i], false);
				if (i + 1 < g->params.n)
					end_arg(&x);
			}
		} else if (part->variable) {
			append(&x, value_of(g, part->text), !part->quoted);
		} else {
			append(&x, part->text, false);
		}
	}
	end_arg(&x);
}

static struct args expand_words(struct grub *g, const struct grub_word *word)
{
	struct args out = { 0 };

	for (; word; word = word->next)
		expand_word(g, &out, word);
	return out;
}

/* ---- devices and paths ---- */

static int find_lvm(const struct grub *g, const char *name, size_t len)
{
	for (unsigned i = 0; i < g->env->n_volumes; i++)
		if (!strncmp(g->env->volumes[i].lvm, name, len) && !g->env->volumes[i].lvm[len])
			return (int)i;
	return -1;
}

/*
 * The volume that a device name means: "hd0,gpt2", "hd0,2", "ahci0,msdos1",
 * "hd0", "lvm/vg0-root".  Which drive does not matter, a guest has one here.  -1: none.
 */
static int find_device(const struct grub *g, const char *name, size_t len)
{
	const char *comma = memrchr(name, ',', len);
	unsigned long number = 0;
	unsigned i;
	char *end;

	if (len > 4 && !strncmp(name, "lvm/", 4))
		return find_lvm(g, name + 4, len - 4);
	if (memchr(name, '/', len))	/* lvmid/..., mduuid/..., cryptouuid/... */
		return -1;
	if (comma) {
		comma++;
		while (comma < name + len && (*comma < '0' || *comma > '9'))
			comma++;
		number = strtoul(comma, &end, 10);
		if (end == comma || end != name + len)
			return -1;
	}
	for (i = 0; i < g->env->n_volumes; i++)
		if (g->env->volumes[i].number == number && !g->env->volumes[i].lvm[0])
			return (int)i;
	return -1;
}

static const char *device_name(struct grub *g, unsigned volume)
{
	const struct boot_volume *v = &g->env->volumes[volume];
	unsigned number = v->number;

	if (v->lvm[0])
		return arena_printf(g->a, "lvm/%s", v->lvm);
	return number ? arena_printf(g->a, "hd0,%u", number) : "hd0";
}

/* "(hd0,gpt1)/path" or "/path" on $root; path NULL if there is no such place. */
static struct boot_file resolve(struct grub *g, const char *text)
{
	const char *device = get_or_empty(g, "root"), *close;
	size_t len = strlen(device);
	int volume;

	if (*text == '(') {
		close = strchr(text, ')');
		if (!close)
			return (struct boot_file) { 0 };
		device = text + 1;
		len = (size_t)(close - device);
		text = close + 1;
	}
	volume = find_device(g, device, len);
	if (volume < 0 || *text != '/')
		return (struct boot_file) { 0 };
	return (struct boot_file) { .volume = (unsigned)volume, .path = arena_strdup(g->a, text) };
}

static int file_type(struct grub *g, const char *text, uint64_t *size)
{
	struct boot_file f = resolve(g, text);

	return f.path ? g->env->stat(g->env->arg, f.volume, f.path, size) : -ENOENT;
}

/* ---- test ---- */

struct test {
	struct grub *g;
	const char **v;
	unsigned n, i, depth;
};

static bool test_or(struct test *t);

static bool test_file(struct grub *g, char op, const char *path)
{
	uint64_t size = 0;
	int type = file_type(g, path, &size);

	switch (op) {
	case 'd':
		return type == 1;
	case 'e':
		return type >= 0;
	case 's':
		return type == 0 && size > 0;
	default:
		return type == 0;
	}
}

/* 1 true, 0 false, -1: no such operator */
static int test_binary(const char *a, const char *op, const char *b)
{
	long long x, y;
	int c;

	if (!strcmp(op, "=") || !strcmp(op, "=="))
		return !strcmp(a, b);
	if (!strcmp(op, "!="))
		return strcmp(a, b) != 0;
	if (*op == '<' || *op == '>') {
		c = *op == '<' ? strcmp(a, b) : strcmp(b, a);
		if (!op[1])
			return c < 0;
		return op[1] == '=' && !op[2] ? c <= 0 : -1;
	}
	x = strtoll(a, NULL, 10);
	y = strtoll(b, NULL, 10);
	if (!strcmp(op, "-eq"))
		return x == y;
	if (!strcmp(op, "-ne"))
		return x != y;
	if (!strcmp(op, "-lt"))
		return x < y;
	if (!strcmp(op, "-le"))
		return x <= y;
	if (!strcmp(op, "-gt"))
		return x > y;
	if (!strcmp(op, "-ge"))
		return x >= y;
	return -1;
}

static bool test_primary(struct test *t)
{
	const char *word = t->v[t->i];
	int r;

	if (t->n - t->i >= 3) {
		r = test_binary(word, t->v[t->i + 1], t->v[t->i + 2]);
		if (r >= 0) {
			t->i += 3;
			return r;
		}
	}
	if (t->n - t->i >= 2 && word[0] == '-' && word[1] && !word[2] &&
	    strchr("nzdefs", word[1])) {
		const char *operand = t->v[t->i + 1];

		t->i += 2;
		if (word[1] == 'n' || word[1] == 'z')
			return (*operand == '\0') == (word[1] == 'z');
		return test_file(t->g, word[1], operand);
	}
	t->i++;
	return *word != '\0';
}

static bool test_not(struct test *t)
{
	bool r;

	if (t->i >= t->n || t->depth >= MAX_CALLS)
		return false;
	t->depth++;
	if (!strcmp(t->v[t->i], "!") && t->n - t->i >= 2) {
		t->i++;
		r = !test_not(t);
	} else if (!strcmp(t->v[t->i], "(")) {
		t->i++;
		r = test_or(t);
		if (t->i < t->n && !strcmp(t->v[t->i], ")"))
			t->i++;
	} else {
		r = test_primary(t);
	}
	t->depth--;
	return r;
}

static bool test_and(struct test *t)
{
	bool r = test_not(t);

	while (t->i < t->n && !strcmp(t->v[t->i], "-a")) {
		t->i++;
		r = test_not(t) && r;
	}
	return r;
}

static bool test_or(struct test *t)
{
	bool r = test_and(t);

	while (t->i < t->n && !strcmp(t->v[t->i], "-o")) {
		t->i++;
		r = test_and(t) || r;
	}
	return r;
}

/* ---- commands ---- */

/* argv[0] is the command's name; 0 true, 1 false, as in a shell. */
typedef int command_fn(struct grub *g, const struct args *args);

static int cmd_true(struct grub *g, const struct args *args)
{
	(void)g, (void)args;
	return 0;
}

static int cmd_false(struct grub *g, const struct args *args)
{
	(void)g, (void)args;
	return 1;
}

static int cmd_test(struct grub *g, const struct args *args)
{
	struct test t = { .g = g, .v = args->v, .n = args->n, .i = 1 };

	if (!strcmp(args->v[0], "[") && t.n > 1 && !strcmp(t.v[t.n - 1], "]"))
		t.n--;
	return t.n > 1 && test_or(&t) ? 0 : 1;
}

/* "name=value" */
static int assign(struct grub *g, const char *text)
{
	const char *eq = strchr(text, '=');

	if (!eq || eq == text)
		return 1;
	set(g, arena_strndup(g->a, text, (size_t)(eq - text)), eq + 1);
	return 0;
}

static int cmd_set(struct grub *g, const struct args *args)
{
	return args->n > 1 ? assign(g, args->v[1]) : 0;
}

static int cmd_export(struct grub *g, const struct args *args)
{
	unsigned i;

	/* All variables reach submenus here; what counts is "export a=b". */
	for (i = 1; i < args->n; i++)
		if (strchr(args->v[i], '='))
			assign(g, args->v[i]);
	return 0;
}

static int cmd_unset(struct grub *g, const struct args *args)
{
	unsigned i;

	for (i = 1; i < args->n; i++)
		unset(g, args->v[i]);
	return 0;
}

static int cmd_setparams(struct grub *g, const struct args *args)
{
	struct args params = { 0 };
	unsigned i;

	for (i = 1; i < args->n; i++)
		add_arg(g, &params, args->v[i]);
	g->params = params;
	return 0;
}

static int cmd_shift(struct grub *g, const struct args *args)
{
	unsigned long n = args->n > 1 ? strtoul(args->v[1], NULL, 10) : 1;

	if (n > g->params.n)
		return 1;
	g->params.v += n;
	g->params.n -= (unsigned)n;
	g->params.cap -= (unsigned)n;
	return 0;
}

static int leave_levels(struct grub *g, const struct args *args, enum flow flow)
{
	unsigned long n = args->n > 1 ? strtoul(args->v[1], NULL, 10) : 1;

	g->flow = flow;
	g->flow_levels = n ? (unsigned)MIN(n, 1000ul) : 1;
	return 0;
}

static int cmd_break(struct grub *g, const struct args *args)
{
	return leave_levels(g, args, LOOP_BREAK);
}

static int cmd_continue(struct grub *g, const struct args *args)
{
	return leave_levels(g, args, LOOP_CONTINUE);
}

static int cmd_return(struct grub *g, const struct args *args)
{
	g->flow = RETURN;
	return args->n > 1 ? (int)(strtol(args->v[1], NULL, 10) & 255) : g->status;
}

/* exit, reboot, halt: nothing after it happens. */
static int cmd_leave(struct grub *g, const struct args *args)
{
	(void)args;
	g->flow = LEAVE;
	return 0;
}

/* ---- search, probe ---- */

static bool search_fits(struct grub *g, char by, unsigned volume, const char *name)
{
	const struct boot_volume *v = &g->env->volumes[volume];
	uint64_t size;

	switch (by) {
	case 'u':
		return !strcasecmp(v->uuid, name);
	case 'l':
		return !strcmp(v->label, name);
	default:
		return g->env->stat(g->env->arg, volume, name, &size) == 0;
	}
}

static int search(struct grub *g, char by, const char *name, const char *variable)
{
	unsigned i;

	for (i = 0; *name && i < g->env->n_volumes; i++) {
		if (search_fits(g, by, i, name)) {
			if (variable)
				set(g, variable, device_name(g, i));
			return 0;
		}
	}
	return 1;
}

static int cmd_search(struct grub *g, const struct args *args)
{
	const char *variable = NULL, *name = "", *arg;
	char by = 'f';
	unsigned i;

	for (i = 1; i < args->n; i++) {
		arg = args->v[i];
		if (!strcmp(arg, "--set") || !strcmp(arg, "-s"))
			variable = "root";
		else if (!strncmp(arg, "--set=", 6))
			variable = arg + 6;
		else if (!strcmp(arg, "--fs-uuid") || !strcmp(arg, "-u"))
			by = 'u';
		else if (!strcmp(arg, "--label") || !strcmp(arg, "--fs-label") ||
			 !strcmp(arg, "-l"))
			by = 'l';
		else if (!strcmp(arg, "--file") || !strcmp(arg, "-f"))
			by = 'f';
		else if (!strcmp(arg, "--hint"))
			i++;	/* its value */
		else if (arg[0] != '-')
			name = arg;
	}
	return search(g, by, name, variable);
}

/* search.fs_uuid NAME [VARIABLE [HINT...]] */
static int cmd_search_short(struct grub *g, const struct args *args)
{
	const char *kind = args->v[0] + strlen("search.");
	char by = !strcmp(kind, "fs_uuid") ? 'u' : !strcmp(kind, "fs_label") ? 'l' : 'f';

	if (args->n < 2)
		return 1;
	return search(g, by, args->v[1], args->n > 2 ? args->v[2] : NULL);
}

static int cmd_probe(struct grub *g, const struct args *args)
{
	const char *variable = NULL, *device = "", *arg, *value = "";
	const struct boot_volume *v;
	char what = 0;
	size_t len;
	unsigned i;
	int volume;

	for (i = 1; i < args->n; i++) {
		arg = args->v[i];
		if (!strncmp(arg, "--set=", 6))
			variable = arg + 6;
		else if ((!strcmp(arg, "--set") || !strcmp(arg, "-s")) && i + 1 < args->n)
			variable = args->v[++i];
		else if (!strcmp(arg, "--fs-uuid") || !strcmp(arg, "-u"))
			what = 'u';
		else if (!strcmp(arg, "--label") || !strcmp(arg, "-l"))
			what = 'l';
		else if (!strcmp(arg, "--fs") || !strcmp(arg, "-f"))
			what = 'f';
		else if (!strcmp(arg, "--part-uuid"))
			what = 'p';
		else if (arg[0] != '-')
			device = arg;
	}
	len = strlen(device);
	if (len >= 2 && device[0] == '(' && device[len - 1] == ')') {
		device++;
		len -= 2;
	}
	volume = find_device(g, device, len);
	if (volume < 0 || !what)
		return 1;
	v = &g->env->volumes[volume];
	value = what == 'u' ? v->uuid : what == 'l' ? v->label : what == 'f' ? v->type :
		v->part_uuid;
	if (variable)
		set(g, variable, value);
	return 0;
}

/* ---- other files ---- */

static void count_step(struct grub *g)
{
	if (++g->steps > MAX_STEPS)
		arena_stop(g->a, -ELOOP);
}

static void enter_call(struct grub *g)
{
	if (++g->calls > MAX_CALLS)
		arena_stop(g->a, -ELOOP);
}

/* Run a text; a wrong statement is passed over, as GRUB does it. */
static void run_text(struct grub *g, const char *text, size_t len)
{
	struct grub_parser parser;
	struct grub_node *node;
	int r;

	enter_call(g);
	grub_parser_init(&parser, g->a, text, len);
	while (g->flow == RUN && (r = grub_parse_statement(&parser, &node)) != 0) {
		count_step(g);
		if (r > 0)
			run_list(g, node);
		else if (!g->menu->why_not)
			g->menu->why_not = arena_printf(g->a, "line %u: %s", parser.line,
							parser.wrong);
	}
	g->calls--;
}

static int run_file(struct grub *g, struct boot_file f)
{
	size_t len;
	char *text;

	text = f.path ? boot_load_text(g->a, g->env, f.volume, f.path, &len) : NULL;
	if (!text)
		return 1;
	run_text(g, text, len);
	if (g->flow == RETURN)
		g->flow = RUN;
	return 0;
}

static int cmd_source(struct grub *g, const struct args *args)
{
	/* inside an entry it would replace the menu: not Linux, for us */
	if (args->n < 2 || g->entry)
		return 1;
	return run_file(g, resolve(g, args->v[1]));
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

static bool wanted(const struct args *args, unsigned from, const char *name)
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
			   const struct args *args, unsigned from)
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
			set(g, name, env_value(g, eq + 1, (size_t)(p - eq - 1)));
	}
}

static int cmd_load_env(struct grub *g, const struct args *args)
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
		path = arena_printf(g->a, "%s/grubenv", get_or_empty(g, "prefix"));
	f = resolve(g, path);
	text = f.path ? boot_load_text(g->a, g->env, f.volume, f.path, &len) : NULL;
	if (!text || strncmp(text, signature, sizeof(signature) - 1) != 0)
		return 1;
	load_env_block(g, text, text + len, args, i);
	return 0;
}

/* ---- the menu ---- */

static struct item *add_item(struct grub *g)
{
	struct item *item;

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
static int add_menu_entry(struct grub *g, const struct args *args, struct grub_node *body)
{
	static const char *const with_value[] = { "--class", "--users", "--hotkey", "--source" };
	struct item *item;
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
			add_arg(g, &item->args, arg);
		}
	}
	return 0;
}

static const char *expand_for_bls(void *ctx, const char *text)
{
	struct grub *g = ctx;
	struct grub_word *word;
	struct grub_parser p;
	struct args out = { 0 };
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
		expand_word(g, &out, word);
	return out.n ? out.v[0] : "";
}

static int add_bls(struct grub *g, const char *device, const char *dir)
{
	int volume = find_device(g, device, strlen(device)), r;
	struct bls_entries list = { 0 };
	struct item *item;
	unsigned i;

	if (volume < 0)
		return 1;
	r = bls_read(&list, g->a, g->env, (unsigned)volume, dir, expand_for_bls, g);
	for (i = 0; r == 0 && i < list.n; i++) {
		item = add_item(g);
		item->ready = &list.entry[i];
		item->title = list.entry[i].title;
		item->id = list.entry[i].id;
	}
	return list.n ? 0 : 1;
}

/*
 * Fedora's command: the entries of $blsdir, or of the usual places, on the
 * device that holds /boot.
 */
static int cmd_blscfg(struct grub *g, const struct args *args)
{
	const char *dirs[] = { get(g, "blsdir"), "/loader/entries", "/boot/loader/entries" };
	const char *devices[] = { get(g, "boot"), get(g, "root") };
	struct boot_file f;
	unsigned d, i;

	if (g->entry)
		return 1;
	if (args->n > 1) {
		f = resolve(g, args->v[1]);
		return f.path ? add_bls(g, device_name(g, f.volume), f.path) : 1;
	}
	for (d = 0; d < ARRAY_SIZE(devices); d++)
		for (i = 0; devices[d] && i < ARRAY_SIZE(dirs); i++)
			if (dirs[i] && add_bls(g, devices[d], dirs[i]) == 0)
				return 0;
	return 1;
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

static int cmd_linux(struct grub *g, const struct args *args)
{
	struct args words = { 0 };
	unsigned i;

	if (!g->entry || args->n < 2)
		return 1;
	g->entry->kernel = resolve(g, args->v[1]);
	if (!g->entry->kernel.path)
		return 1;
	for (i = 2; i < args->n; i++)
		add_arg(g, &words, quote_for_linux(g, args->v[i]));
	g->entry->cmdline = join(g, &words, 0);
	return 0;
}

static int cmd_initrd(struct grub *g, const struct args *args)
{
	struct boot_entry *e = g->entry;
	struct boot_file f;
	unsigned i;

	if (!e || args->n < 2)
		return 1;
	e->initrd = arena_array(g->a, args->n, sizeof(*e->initrd));
	e->n_initrd = 0;
	for (i = 1; i < args->n; i++) {
		f = resolve(g, args->v[i]);
		if (f.path)
			e->initrd[e->n_initrd++] = f;
	}
	return e->n_initrd == args->n - 1 ? 0 : 1;
}

/* ---- running ---- */

/* Accepted, and of no consequence for which kernel is loaded. */
static const char *const ignored[] = {
	"background_color", "background_image", "badram", "clear", "cutmem", "devicetree", "echo",
	"gfxmode", "insmod", "keymap", "loadfont", "load_video", "play", "rmmod", "save_env",
	"serial", "sleep", "terminal_input", "terminal_output", "cpuid", "cryptomount",
};

static const struct {
	const char *name;
	command_fn *run;
} commands[] = {
	{ "[", cmd_test },
	{ "test", cmd_test },
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
	{ "search", cmd_search },
	{ "search.fs_uuid", cmd_search_short },
	{ "search.fs_label", cmd_search_short },
	{ "search.file", cmd_search_short },
	{ "probe", cmd_probe },
	{ "source", cmd_source },
	{ ".", cmd_source },
	{ "configfile", cmd_source },
	{ "normal", cmd_source },
	{ "load_env", cmd_load_env },
	{ "blscfg", cmd_blscfg },
	{ "linux", cmd_linux },
	{ "linux16", cmd_linux },
	{ "linuxefi", cmd_linux },
	{ "initrd", cmd_initrd },
	{ "initrd16", cmd_initrd },
	{ "initrdefi", cmd_initrd },
};

static int call_function(struct grub *g, const struct function *f, const struct args *args)
{
	struct args saved = g->params;
	int r;

	enter_call(g);
	cmd_setparams(g, args);
	r = run_list(g, f->body);
	if (g->flow == RETURN) {
		g->flow = RUN;
		r = g->status;
	}
	g->params = saved;
	g->calls--;
	return r;
}

static int run_argv(struct grub *g, const struct args *args)
{
	const char *name = args->v[0];
	const struct function *f;
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
		const char *text = join(g, args, 1);

		run_text(g, text, strlen(text));
		return g->status;
	}
	if (name[0] != '=' && strchr(name, '='))
		return assign(g, name);
	return 1;
}

static int run_command(struct grub *g, const struct grub_node *node)
{
	struct args args = expand_words(g, node->words);
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
			add_menu_entry(g, &args, node->body) : 1;
	else
		r = run_argv(g, &args);
	return negated ? !r : r;
}

/* Has the loop's body asked to leave?  One level of break or continue is used up. */
static bool leave_loop(struct grub *g)
{
	if (g->flow == LOOP_BREAK) {
		if (--g->flow_levels == 0)
			g->flow = RUN;
		return true;
	}
	if (g->flow == LOOP_CONTINUE && --g->flow_levels == 0) {
		g->flow = RUN;
		return false;
	}
	return g->flow != RUN;
}

static int run_while(struct grub *g, const struct grub_node *node)
{
	int r = 0;

	for (;;) {
		count_step(g);
		if ((run_list(g, node->cond) == 0) == node->negated || g->flow != RUN)
			return r;
		r = run_list(g, node->body);
		if (leave_loop(g))
			return r;
	}
}

static int run_for(struct grub *g, const struct grub_node *node)
{
	struct args words = expand_words(g, node->words);
	unsigned i;
	int r = 0;

	for (i = 0; i < words.n; i++) {
		count_step(g);
		set(g, node->name, words.v[i]);
		r = run_list(g, node->body);
		if (leave_loop(g))
			break;
	}
	return r;
}

static int define_function(struct grub *g, const struct grub_node *node)
{
	struct function *f = arena_alloc(g->a, sizeof(*f));

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
		if (run_list(g, node->cond) == 0)
			return g->flow == RUN ? run_list(g, node->body) : 0;
		return node->otherwise && g->flow == RUN ? run_list(g, node->otherwise) : 0;
	case GRUB_WHILE:
		return run_while(g, node);
	case GRUB_FOR:
		return run_for(g, node);
	case GRUB_FUNCTION:
		return define_function(g, node);
	}
	return 1;
}

static int run_list(struct grub *g, const struct grub_node *node)
{
	int r = 0;

	for (; node && g->flow == RUN; node = node->next) {
		count_step(g);
		r = g->status = run_node(g, node);
	}
	return r;
}

/* ---- from the items to the entries ---- */

static const char *nested_name(struct grub *g, const char *outer, const char *name)
{
	return *outer ? arena_printf(g->a, "%s>%s", outer, name) : name;
}

static void run_entry(struct grub *g, const struct item *item, struct boot_entry *e)
{
	struct scope scope = enter_scope(g);

	g->entry = e;
	g->params = item->args;
	run_list(g, item->body);
	g->entry = NULL;
	leave_scope(g, &scope);
}

static struct boot_item *flatten(struct grub *g, const struct item *item, const char *title,
				 const char *number);

static struct boot_item *open_submenu(struct grub *g, const struct item *item, const char *title,
				      const char *number)
{
	struct item_list inner = { .tail = &inner.first }, *outer = g->items;
	struct scope scope = enter_scope(g);
	struct boot_item *items;

	enter_call(g);
	g->items = &inner;
	g->params = item->args;
	run_list(g, item->body);
	g->flow = RUN;
	items = flatten(g, inner.first, title, number);
	g->items = outer;
	g->calls--;
	leave_scope(g, &scope);
	return items;
}

static struct boot_item *flatten(struct grub *g, const struct item *item, const char *title,
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
	const char *device = device_name(g, volume), *slash = strrchr(config, '/');
	const char *prefix = arena_printf(g->a, "(%s)%.*s", device, (int)(slash - config), config);
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(yes); i++)
		set(g, yes[i], "y");
	set(g, "grub_cpu", "x86_64");
	set(g, "grub_platform", "pc");
	set(g, "root", device);
	set(g, "prefix", prefix);
	set(g, "cmdpath", prefix);
	set(g, "config_directory", prefix);
	set(g, "config_file", arena_printf(g->a, "(%s)%s", device, config));
}

int grub_menu(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
	      const char *config, const char *selector)
{
	struct item_list items = { .tail = &items.first };
	struct grub g = { .menu = menu, .a = &menu->arena, .env = env, .items = &items };
	struct boot_item *tree;

	set_initial(&g, volume, config);
	if (run_file(&g, (struct boot_file) { volume, config }) != 0)
		return -ENOENT;
	g.flow = RUN;
	tree = flatten(&g, items.first, "", "");
	menu->chosen = boot_select(tree, selector ? selector : get_or_empty(&g, "default"));
	/* GRUB takes the first where the default is nowhere */
	if (menu->chosen < 0 && !selector)
		menu->chosen = boot_select(tree, "0");
	return 0;
}
