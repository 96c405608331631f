/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * config.c - vdiskd.conf(5): lines, words and blocks
 *
 * A line is a directive and its arguments, separated by blanks; arguments with
 * blanks in them are in double quotes; a "#" begins a comment.  Some directives
 * may be followed by a block of further ones, "{" at the line's end to "}" on a
 * line of its own.  The table of config_directives.c says which directive belongs
 * where and how many arguments it takes.
 *
 * It is strict: a directive that is not known, is in the wrong place, comes twice
 * or has an argument that is out of range is an error, with file and line.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "target/config_parse.h"
#include "target/log.h"

int config_bad(struct parser *p, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return fail(p->err, EINVAL, "%s:%u: %s", p->path, p->line, text);
}

int config_no_memory(struct parser *p)
{
	return fail(p->err, ENOMEM, "%s: out of memory", p->path);
}

/* What to do at the end of each open block. */
static const struct directive *opener(enum scope scope)
{
	for (unsigned i = 0; i < config_n_directives; i++)
		if (config_directives[i].opens == scope)
			return &config_directives[i];
	return NULL;
}

uint8_t config_access_state(const struct config_target *t, uint16_t group)
{
	for (unsigned i = 0; t && i < t->n_states; i++)
		if (t->states[i].group == group)
			return t->states[i].state;
	return SCSI_OPTIMIZED;
}

static int close_block(struct parser *p)
{
	const struct directive *d;

	if (p->depth == 1)
		return config_bad(p, "'}' without a block");
	d = opener(p->scope[--p->depth]);
	return d && d->end ? d->end(p) : 0;
}

static const struct directive *find_directive(const char *name, enum scope scope, bool *elsewhere)
{
	*elsewhere = false;
	for (unsigned i = 0; i < config_n_directives; i++) {
		if (strcmp(config_directives[i].name, name) != 0)
			continue;
		if (config_directives[i].in & scope)
			return &config_directives[i];
		*elsewhere = true;
	}
	return NULL;
}

static int run_directive(struct parser *p, char **words, unsigned n, bool block)
{
	enum scope scope = p->scope[p->depth - 1];
	bool elsewhere;
	const struct directive *d = find_directive(words[0], scope, &elsewhere);
	uint64_t bit;
	int r;

	if (!d)
		return config_bad(p, elsewhere ? "'%.64s' does not belong here" : "'%.64s' is not a directive",
			   words[0]);
	bit = UINT64_C(1) << (d - config_directives);
	if (!d->often && p->seen[p->depth - 1] & bit)
		return config_bad(p, "'%s' comes twice", d->name);
	p->seen[p->depth - 1] |= bit;
	if (n - 1 < d->min || n - 1 > d->max)
		return config_bad(p, "'%s' has %u argument%s, not %u%s", d->name, n - 1, n == 2 ? "" : "s",
			   n - 1 < d->min ? d->min : d->max, d->min == d->max ? "" :
			   n - 1 < d->min ? " or more" : " or less");
	if (block && !d->opens)
		return config_bad(p, "'%s' has no block", d->name);
	/* (functions see the scope that the directive is in) */
	r = d->run ? d->run(p, words + 1, n - 1) : 0;
	if (r < 0)
		return r;
	if (d->opens) {
		p->scope[p->depth] = d->opens;
		p->seen[p->depth] = 0;
		p->block_line[p->depth++] = p->line;
		return block ? 0 : close_block(p);
	}
	return 0;
}

/* ---- lines and words ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Take a word off *@s, in place; NULL at the end of the line.  @quoted: it was in quotes. */
static int next_word(struct parser *p, char **s, char **word, bool *quoted)
{
	char *in = *s, *out;

	while (is_blank(*in))
		in++;
	*word = NULL;
	*quoted = *in == '"';
	if (!*in || *in == '#')
		return 0;
	if (!*quoted) {
		*word = in;
		while (*in && !is_blank(*in)) {
			if (*in == '"')
				return config_bad(p, "a quote inside a word");
			in++;
		}
	} else {
		*word = out = ++in;
		while (*in != '"') {
			if (*in == '\\' && (in[1] == '"' || in[1] == '\\'))
				in++;
			if (!*in)
				return config_bad(p, "a quote is not closed");
			*out++ = *in++;
		}
		*out = '\0';
		in++;
		if (*in && !is_blank(*in))
			return config_bad(p, "no blank after the closing quote");
	}
	if (*in)
		*in++ = '\0';
	*s = in;
	return 0;
}

static int parse_line(struct parser *p, char *line)
{
	char *words[CONFIG_WORDS_MAX + 1], *word;
	unsigned n = 0;
	bool quoted, block = false;
	int r;

	for (char *c = line; *c; c++)
		if ((*c > 0 && *c < ' ' && *c != '\t' && *c != '\r') || *c == 0x7f)
			return config_bad(p, "a control character in the line");
	while ((r = next_word(p, &line, &word, &quoted)) == 0 && word) {
		if (block)
			return config_bad(p, "something follows the '{'");
		if (!quoted && !strcmp(word, "{"))
			block = true;
		else if (n == CONFIG_WORDS_MAX)
			return config_bad(p, "more than %u words", CONFIG_WORDS_MAX);
		else
			words[n++] = word;
	}
	if (r < 0)
		return r;
	if (n == 0)
		return block ? config_bad(p, "'{' without a directive") : 0;
	if (!strcmp(words[0], "}"))
		return n == 1 && !block ? close_block(p) : config_bad(p, "something follows the '}'");
	return run_directive(p, words, n, block);
}

static int parse_text(struct parser *p, const char *text, size_t len)
{
	while (len) {
		const char *eol = memchr(text, '\n', len);
		size_t n = eol ? (size_t)(eol - text) : len;
		AUTO_FREE char *line = strndup(text, n);
		int r;

		p->line++;
		if (!line)
			return config_no_memory(p);
		if (strlen(line) != n)
			return config_bad(p, "a NUL byte in the line");
		r = parse_line(p, line);
		if (r < 0)
			return r;
		text += n + !!eol;
		len -= n + !!eol;
	}
	if (p->depth > 1) {
		p->line = p->block_line[p->depth - 1];
		return config_bad(p, "the block that begins here is not closed");
	}
	return 0;
}

int config_parse(struct config **out, const char *path, const char *text, size_t len,
		 config_secret_fn *secret, struct vdisk_error *err)
{
	struct parser p = {
		.config = calloc(1, sizeof(*p.config)), .secret = secret, .err = err, .path = path,
		.scope = { TOP }, .depth = 1,
	};
	int r;

	if (!p.config)
		return config_no_memory(&p);
	config_begin(&p);
	p.config->path = strdup(path);
	r = p.config->path ? 0 : config_no_memory(&p);
	if (r == 0)
		r = parse_text(&p, text, len);
	if (r == 0)
		r = config_finish(&p);
	if (r < 0)
		config_free(p.config);
	else
		*out = p.config;
	return r;
}
