/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grub_eval.h - between the files that evaluate GRUB 2 configurations
 *
 *   grub.c		running statements; the commands of the language itself
 *   grub_vars.c	variables, and how words become arguments
 *   grub_test.c	test and [
 *   grub_places.c	devices and paths, search, probe
 *   grub_load.c	other files, environment blocks, linux, initrd, chainloader
 *   grub_items.c	menuentry, submenu, blscfg, and the menu they make
 */
#ifndef VD_GUEST_GRUB_EVAL_H
#define VD_GUEST_GRUB_EVAL_H

#include "guest/bootcfg.h"
#include "guest/grub_script.h"

enum {
	GRUB_STEPS_MAX = 200000,
	GRUB_CALLS_MAX = 48,
	GRUB_VALUE_MAX = 65536,	/* bytes of a variable's value */
	GRUB_WORDS_MAX = 4096,	/* of one command, expanded */
	GRUB_VARIABLES_MAX = 2048,
};

struct grub_variable {
	const char *name, *value;
};

struct grub_function {
	struct grub_function *next;
	const char *name;
	struct grub_node *body;
};

struct grub_args {
	const char **v;
	unsigned n, cap;
};

struct grub_item {
	struct grub_item *next;
	const char *title, *id;
	struct grub_node *body;
	struct grub_args args;	/* $1... of the body: the title first */
	bool submenu;
	const struct boot_entry *ready; /* of a BLS entry: no body to run */
};

struct grub_item_list {
	struct grub_item *first, **tail;
	unsigned n;
};

enum grub_flow { FLOW_RUN, FLOW_BREAK, FLOW_CONTINUE, FLOW_RETURN, FLOW_LEAVE };

struct grub {
	struct boot_menu *menu;
	struct arena *a;
	const struct boot_env *env;

	struct grub_variable *vars;
	unsigned n_vars, cap_vars;
	struct grub_function *functions;
	struct grub_args params;	/* $1... */
	int status;		/* $? */
	enum grub_flow flow;
	unsigned flow_levels;
	unsigned steps, calls;

	struct grub_item_list *items; /* where menuentry puts them */
	unsigned n_items;
	struct boot_entry *entry; /* whose body is running, or NULL */
};

/* argv[0] is the command's name; 0 true, 1 false, as in a shell. */
typedef int grub_command(struct grub *g, const struct grub_args *args);

/* ---- grub.c ---- */

int grub_run_list(struct grub *g, const struct grub_node *node);
/* Run a text; a wrong statement is passed over, as GRUB does it. */
void grub_run_text(struct grub *g, const char *text, size_t len);
/* Both stop the evaluation at their limit; calls are left with g->calls--. */
void grub_count_step(struct grub *g);
void grub_enter_call(struct grub *g);

/* ---- grub_vars.c ---- */

const char *grub_get(const struct grub *g, const char *name);	/* NULL: not set */
const char *grub_value(const struct grub *g, const char *name);	/* "": not set */
void grub_set(struct grub *g, const char *name, const char *value);
void grub_unset(struct grub *g, const char *name);
/* "name=value"; 1 if it is not that. */
int grub_assign(struct grub *g, const char *text);

/* Entries and submenus run with variables of their own. */
struct grub_scope {
	struct grub_variable *vars;
	unsigned n_vars, cap_vars;
	struct grub_args params;
};
struct grub_scope grub_enter_scope(struct grub *g);
void grub_leave_scope(struct grub *g, const struct grub_scope *s);

void grub_add_arg(struct grub *g, struct grub_args *args, const char *text);
/* The arguments from @from on, with spaces between them. */
const char *grub_join(struct grub *g, const struct grub_args *args, unsigned from);
void grub_expand_word(struct grub *g, struct grub_args *out, const struct grub_word *word);
struct grub_args grub_expand_words(struct grub *g, const struct grub_word *word);

/* ---- grub_places.c ---- */

int grub_find_device(const struct grub *g, const char *name, size_t len);
const char *grub_device_name(struct grub *g, unsigned volume);
/* "(hd0,gpt1)/path" or "/path" on $root; path NULL if there is no such place. */
struct boot_file grub_resolve(struct grub *g, const char *text);
grub_command grub_cmd_search, grub_cmd_search_short, grub_cmd_probe;

/* ---- grub_test.c ---- */

grub_command grub_cmd_test;

/* ---- grub_load.c ---- */

/* 1 if there is no such file. */
int grub_run_file(struct grub *g, struct boot_file f);
grub_command grub_cmd_source, grub_cmd_load_env, grub_cmd_linux, grub_cmd_initrd,
	grub_cmd_chainloader;

/* ---- grub_items.c ---- */

/* menuentry and submenu: TITLE [--class C]... [--id I] ... { BODY } */
int grub_add_menu_entry(struct grub *g, const struct grub_args *args, struct grub_node *body);
grub_command grub_cmd_blscfg;
/* Run the items' bodies: entries in g->menu, and a tree to choose from. */
struct boot_item *grub_flatten(struct grub *g, const struct grub_item *item, const char *title,
			       const char *number);

#endif
