/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grub_script.c - the parser of GRUB 2's configuration language
 *
 * The language is a small shell (GRUB manual, section "Writing full
 * configuration files directly"): commands separated by newlines or
 * semicolons; if, while, until, for, function; quotes as in sh; variables.  A
 * command may end in a { block }, which menuentry and submenu keep for later.
 *
 * Words are kept unexpanded, because a function's or an entry's body is
 * parsed once and run later, with other variables.
 *
 * The text comes from the guest.  Nesting is limited, each token takes at
 * least one character, and all memory is the arena's.
 */
#include "guest/grub_script.h"

#include <ctype.h>
#include <errno.h>

enum { MAX_NESTING = 64 };

enum token { T_END, T_BREAK, T_OPEN, T_CLOSE, T_WORD, T_WRONG };

void grub_parser_init(struct grub_parser *p, struct arena *arena, const char *text, size_t len)
{
	*p = (struct grub_parser) { .arena = arena, .p = text, .end = text + len, .line = 1 };
}

/* ---- words ---- */

static bool ends_word(char c)
{
	return strchr(" \t\r\n;{}|&<>", c) != NULL;	/* NUL too */
}

static bool is_name_start(char c)
{
	return isalpha((unsigned char)c) || c == '_';
}

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* The letter @n places on, NUL behind the end. */
static char at(const struct grub_parser *p, size_t n)
{
	return n < (size_t)(p->end - p->p) ? p->p[n] : '\0';
}

struct word_builder {
	struct grub_parser *p;
	struct grub_word *word;
	struct grub_part **tail;
	char *text;		/* letters not yet in a part */
	size_t len, cap;
	bool quoted;		/* of those letters */
};

static void flush_text(struct word_builder *b)
{
	struct grub_part *part;

	if (!b->len)
		return;
	part = arena_alloc(b->p->arena, sizeof(*part));
	part->text = arena_strndup(b->p->arena, b->text, b->len);
	part->quoted = b->quoted;
	*b->tail = part;
	b->tail = &part->next;
	b->len = 0;
}

static void add_char(struct word_builder *b, char c, bool quoted)
{
	if (b->quoted != quoted)
		flush_text(b);
	b->quoted = quoted;
	arena_grow(b->p->arena, b->text, b->len, b->cap);
	b->text[b->len++] = c;
}

/* At a '$'.  What is no variable is an ordinary dollar sign. */
static void add_variable(struct word_builder *b, bool quoted)
{
	struct grub_parser *p = b->p;
	struct grub_part *part;
	size_t start = 1, len = 0;
	bool brace = at(p, 1) == '{';

	start += brace;
	if (is_name_start(at(p, start)))
		while (is_name(at(p, start + len)))
			len++;
	else if (isdigit((unsigned char)at(p, start)))
		while (isdigit((unsigned char)at(p, start + len)))
			len++;
	else if (at(p, start) && strchr("?#*@", at(p, start)))
		len = 1;

	if (!len || (brace && at(p, start + len) != '}')) {
		add_char(b, *p->p++, quoted);
		return;
	}
	flush_text(b);
	part = arena_alloc(p->arena, sizeof(*part));
	part->text = arena_strndup(p->arena, p->p + start, len);
	part->variable = true;
	part->quoted = quoted;
	*b->tail = part;
	b->tail = &part->next;
	p->p += start + len + brace;
}

static void count_line(struct grub_parser *p, char c)
{
	p->line += c == '\n';
}

/* At the opening quote. */
static void add_single_quoted(struct word_builder *b)
{
	struct grub_parser *p = b->p;

	for (p->p++; p->p < p->end && *p->p != '\''; p->p++) {
		count_line(p, *p->p);
		add_char(b, *p->p, true);
	}
	if (p->p == p->end)
		p->wrong = "a ' has no end";
	else
		p->p++;
}

static void add_double_quoted(struct word_builder *b)
{
	struct grub_parser *p = b->p;

	p->p++;
	while (p->p < p->end && *p->p != '"') {
		if (*p->p == '$') {
			add_variable(b, true);
			continue;
		}
		if (*p->p == '\\' && at(p, 1) && strchr("$\"\\\n", at(p, 1))) {
			p->p++;
			if (*p->p == '\n') {
				count_line(p, *p->p++);
				continue;
			}
		}
		count_line(p, *p->p);
		add_char(b, *p->p++, true);
	}
	if (p->p == p->end)
		p->wrong = "a \" has no end";
	else
		p->p++;
}

static struct grub_word *read_word(struct grub_parser *p)
{
	struct grub_word *word = arena_alloc(p->arena, sizeof(*word));
	struct word_builder b = { .p = p, .word = word, .tail = &word->parts };

	while (p->p < p->end && !ends_word(*p->p)) {
		if (*p->p == '\'' || *p->p == '"') {
			word->quoted = true;
			if (*p->p == '\'')
				add_single_quoted(&b);
			else
				add_double_quoted(&b);
		} else if (*p->p == '$' && at(p, 1) == '"') {
			p->p++;		/* $"translated": only the quotes matter here */
		} else if (*p->p == '$') {
			add_variable(&b, false);
		} else if (*p->p == '\\' && at(p, 1) == '\n') {
			p->p += 2;
			p->line++;
		} else if (*p->p == '\\' && at(p, 1)) {
			add_char(&b, p->p[1], true);
			p->p += 2;
		} else {
			add_char(&b, *p->p++, false);
		}
	}
	flush_text(&b);
	return word;
}

/* ---- tokens ---- */

static void skip_space(struct grub_parser *p)
{
	for (;;) {
		if (at(p, 0) == '\\' && at(p, 1) == '\n') {
			p->p += 2;
			p->line++;
		} else if (at(p, 0) == '#') {
			while (p->p < p->end && *p->p != '\n')
				p->p++;
		} else if (at(p, 0) && strchr(" \t\r", at(p, 0))) {
			p->p++;
		} else {
			return;
		}
	}
}

static enum token read_token(struct grub_parser *p)
{
	skip_space(p);
	if (p->p == p->end)
		return T_END;
	switch (*p->p) {
	case '\n':
		p->line++;
		FALLTHROUGH;
	case ';':
		p->p++;
		return T_BREAK;
	case '{':
		p->p++;
		return T_OPEN;
	case '}':
		p->p++;
		return T_CLOSE;
	case '|':
	case '&':
	case '<':
	case '>':
	case '\0':
		p->p++;
		p->wrong = "a character that has no meaning here";
		return T_WRONG;
	default:
		p->word = read_word(p);
		return p->wrong ? T_WRONG : T_WORD;
	}
}

static enum token peek(struct grub_parser *p)
{
	if (!p->have_token) {
		p->token = read_token(p);
		p->have_token = true;
	}
	return (enum token)p->token;
}

static void take(struct grub_parser *p)
{
	peek(p);
	p->have_token = false;
}

/* Is the next token the bare word @keyword? */
static bool at_keyword(struct grub_parser *p, const char *keyword)
{
	const struct grub_part *part;

	if (peek(p) != T_WORD || p->word->quoted)
		return false;
	part = p->word->parts;
	return part && !part->next && !part->variable && !strcmp(part->text, keyword);
}

static void skip_breaks(struct grub_parser *p)
{
	while (peek(p) == T_BREAK)
		take(p);
}

/* ---- statements ---- */

static struct grub_node *parse_statement(struct grub_parser *p);

static struct grub_node *wrong(struct grub_parser *p, const char *what)
{
	if (!p->wrong)
		p->wrong = what;
	return NULL;
}

static bool expect_keyword(struct grub_parser *p, const char *keyword, const char *what)
{
	skip_breaks(p);
	if (!at_keyword(p, keyword))
		return wrong(p, what) != NULL;
	take(p);
	return true;
}

static bool ends_list(struct grub_parser *p)
{
	static const char *const keywords[] = { "then", "elif", "else", "fi", "do", "done" };
	unsigned i;

	if (peek(p) != T_WORD)
		return true;
	for (i = 0; i < ARRAY_SIZE(keywords); i++)
		if (at_keyword(p, keywords[i]))
			return true;
	return false;
}

/* Statements up to a closing word or brace, which is left. */
static struct grub_node *parse_list(struct grub_parser *p)
{
	struct grub_node *first = NULL, **tail = &first;

	for (;;) {
		skip_breaks(p);
		if (ends_list(p))
			return first;
		*tail = parse_statement(p);
		if (!*tail)
			return NULL;
		tail = &(*tail)->next;
	}
}

static struct grub_node *parse_block(struct grub_parser *p)
{
	struct grub_node *body;

	take(p);			/* the opening brace */
	body = parse_list(p);
	if (p->wrong)
		return NULL;
	if (peek(p) != T_CLOSE)
		return wrong(p, "a { has no }");
	take(p);
	return body;
}

static struct grub_node *parse_if(struct grub_parser *p)
{
	struct grub_node *node = arena_alloc(p->arena, sizeof(*node));

	node->kind = GRUB_IF;
	take(p);			/* if, elif */
	node->cond = parse_list(p);
	if (!expect_keyword(p, "then", "an if has no then"))
		return NULL;
	node->body = parse_list(p);
	if (p->wrong)
		return NULL;
	if (at_keyword(p, "elif")) {
		if (++p->depth > MAX_NESTING)
			return wrong(p, "nested too deeply");
		node->otherwise = parse_if(p);	/* takes the one fi */
		p->depth--;
		return p->wrong ? NULL : node;
	}
	if (at_keyword(p, "else")) {
		take(p);
		node->otherwise = parse_list(p);
	}
	return expect_keyword(p, "fi", "an if has no fi") ? node : NULL;
}

static bool parse_do_done(struct grub_parser *p, struct grub_node *node)
{
	if (!expect_keyword(p, "do", "a loop has no do"))
		return false;
	node->body = parse_list(p);
	return expect_keyword(p, "done", "a loop has no done");
}

static struct grub_node *parse_while(struct grub_parser *p, bool negated)
{
	struct grub_node *node = arena_alloc(p->arena, sizeof(*node));

	node->kind = GRUB_WHILE;
	node->negated = negated;
	take(p);
	node->cond = parse_list(p);
	return parse_do_done(p, node) ? node : NULL;
}

/* The next token as a plain name: of a function, of a loop's variable. */
static const char *parse_name(struct grub_parser *p)
{
	const char *name;

	if (peek(p) != T_WORD || !p->word->parts || p->word->parts->variable ||
	    p->word->parts->next)
		return NULL;
	name = p->word->parts->text;
	take(p);
	return name;
}

static struct grub_word *parse_words(struct grub_parser *p)
{
	struct grub_word *first = NULL, **tail = &first;

	while (peek(p) == T_WORD) {
		*tail = p->word;
		tail = &p->word->next;
		take(p);
	}
	return first;
}

static struct grub_node *parse_for(struct grub_parser *p)
{
	struct grub_node *node = arena_alloc(p->arena, sizeof(*node));

	node->kind = GRUB_FOR;
	take(p);
	node->name = parse_name(p);
	if (!node->name || !at_keyword(p, "in"))
		return wrong(p, "a for has no 'in'");
	take(p);
	node->words = parse_words(p);
	return parse_do_done(p, node) ? node : NULL;
}

static struct grub_node *parse_function(struct grub_parser *p)
{
	struct grub_node *node = arena_alloc(p->arena, sizeof(*node));

	node->kind = GRUB_FUNCTION;
	take(p);
	node->name = parse_name(p);
	skip_breaks(p);
	if (!node->name || peek(p) != T_OPEN)
		return wrong(p, "a function has no body");
	node->body = parse_block(p);
	return p->wrong ? NULL : node;
}

static struct grub_node *parse_command(struct grub_parser *p)
{
	struct grub_node *node = arena_alloc(p->arena, sizeof(*node));

	node->kind = GRUB_COMMAND;
	node->words = parse_words(p);
	if (peek(p) == T_OPEN) {
		node->has_block = true;
		node->body = parse_block(p);
	}
	if (peek(p) == T_WRONG || p->wrong)
		return NULL;
	return node;
}

static struct grub_node *parse_statement(struct grub_parser *p)
{
	struct grub_node *node;

	if (++p->depth > MAX_NESTING)
		return wrong(p, "nested too deeply");
	if (at_keyword(p, "if"))
		node = parse_if(p);
	else if (at_keyword(p, "while") || at_keyword(p, "until"))
		node = parse_while(p, at_keyword(p, "until"));
	else if (at_keyword(p, "for"))
		node = parse_for(p);
	else if (at_keyword(p, "function"))
		node = parse_function(p);
	else
		node = parse_command(p);
	p->depth--;
	return p->wrong ? NULL : node;
}

int grub_parse_statement(struct grub_parser *p, struct grub_node **out)
{
	struct grub_node *node = NULL;

	p->wrong = NULL;
	p->depth = 0;
	skip_breaks(p);
	if (peek(p) == T_END)
		return 0;
	if (ends_list(p))
		wrong(p, "something ends here that did not begin");
	else
		node = parse_statement(p);
	if (!p->wrong) {
		*out = node;
		return 1;
	}
	/* go on behind this line; the token looked at is part of it */
	if (!(p->have_token && p->token == T_BREAK))
		while (p->p < p->end && *p->p != '\n')
			p->p++;
	p->have_token = false;
	return -1;
}

struct grub_word *grub_parse_word(struct grub_parser *p)
{
	return read_token(p) == T_WORD ? p->word : NULL;
}
