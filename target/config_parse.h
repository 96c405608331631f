/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * config_parse.h - between the files of the configuration's parser
 *
 *	config.c		lines, words, blocks: calls the directives
 *	config_directives.c	the table of directives, and what each does
 *	config_file.c		files, and the end of a configuration
 */
#ifndef TARGET_CONFIG_PARSE_H
#define TARGET_CONFIG_PARSE_H

#include "core/compiler.h"
#include "target/config.h"

/* where a directive may be; a bit each */
enum scope {
	TOP = 1, PORTAL = 2, USER = 4, LIMITS = 8, DISCOVERY = 16, TARGET = 32, LUN = 64,
	INITIATOR = 128, THREADS = 256,
};

struct parser {
	struct config *config;		/* owned until it is handed over */
	config_secret_fn *secret;
	struct vdisk_error *err;
	const char *path;
	unsigned line;
	enum scope scope[4];		/* TOP first */
	unsigned block_line[4];
	unsigned depth;			/* of scope[] */
	uint64_t seen[4];		/* directives that came in this block, a bit each */
	unsigned rule_first;		/* rules of the initiator block */
	bool rule_luns, rule_read_only;	/* its directives that came */
};

struct directive {
	const char *name;
	unsigned in;			/* enum scope, as bits */
	uint8_t min, max;		/* arguments */
	enum scope opens;		/* the block that may follow it; 0: none */
	bool often;			/* more than once in a block */
	/* it came, with these arguments; arg[-1] is its name */
	int (*run)(struct parser *p, char **arg, unsigned n);
	/* its block is over, or its line if there is none */
	int (*end)(struct parser *p);
};
extern const struct directive config_directives[];
extern const unsigned config_n_directives;

#define CONFIG_WORDS_MAX 64u

/* A message with file and line; -EINVAL. */
int config_bad(struct parser *p, const char *fmt, ...) PRINTF_FMT(2, 3);
int config_no_memory(struct parser *p);
/* Before the first line, and after the last one: what needs the whole to be seen. */
void config_begin(struct parser *p);
int config_finish(struct parser *p);

#endif
