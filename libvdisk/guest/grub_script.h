/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* grub_script.h - the syntax of GRUB 2's configuration language, as a tree */
#ifndef VD_GUEST_GRUB_SCRIPT_H
#define VD_GUEST_GRUB_SCRIPT_H

#include "guest/arena.h"

/* A word is a row of parts; only a part knows whether quotes protect it. */
struct grub_part {
	struct grub_part *next;
	const char *text;	/* the letters, or the variable's name */
	bool variable;
	bool quoted;		/* a variable's value is not split at spaces */
};

struct grub_word {
	struct grub_word *next;
	struct grub_part *parts; /* none: an empty word ("") */
	bool quoted;		/* stands even if it expands to nothing */
};

enum grub_kind {
	GRUB_COMMAND,		/* words, perhaps a { block } as the last argument */
	GRUB_IF,		/* cond, body, otherwise */
	GRUB_WHILE,		/* cond, body; negated: until */
	GRUB_FOR,		/* name, words, body */
	GRUB_FUNCTION,		/* name, body */
};

struct grub_node {
	enum grub_kind kind;
	struct grub_node *next;	/* the following statement */
	const char *name;
	struct grub_word *words;
	struct grub_node *cond, *body, *otherwise;
	bool has_block;
	bool negated;
};

struct grub_parser {
	struct arena *arena;	/* borrowed: where the tree lives */
	const char *p, *end;	/* what is left */
	unsigned line;		/* of p, from 1 */
	unsigned depth;
	const char *wrong;	/* a syntax error, for people; NULL: none */
	/* one token that was looked at and not taken */
	int token;
	struct grub_word *word;
	bool have_token;
};

void grub_parser_init(struct grub_parser *p, struct arena *arena, const char *text, size_t len);

/*
 * The next statement of the top level: 1 and a node, 0 at the end of the text,
 * -1 for a syntax error (p->wrong), after which parsing goes on behind the
 * line that is wrong - as GRUB does it, which reads a statement at a time.
 */
int grub_parse_statement(struct grub_parser *p, struct grub_node **out);

/* The text's first word, NULL if it does not begin with one. */
struct grub_word *grub_parse_word(struct grub_parser *p);

#endif
