/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* grub_test.c - "test" and "[" of GRUB's language */
#include "guest/grub_eval.h"

#include <errno.h>

struct test {
	struct grub *g;
	const char **v;
	unsigned n, i, depth;
};

static bool test_or(struct test *t);

static int file_type(struct grub *g, const char *text, uint64_t *size)
{
	struct boot_file f = grub_resolve(g, text);

	return f.path ? g->env->stat(g->env->arg, f.volume, f.path, size) : -ENOENT;
}

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

	if (t->i >= t->n || t->depth >= GRUB_CALLS_MAX)
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

int grub_cmd_test(struct grub *g, const struct grub_args *args)
{
	struct test t = { .g = g, .v = args->v, .n = args->n, .i = 1 };

	if (!strcmp(args->v[0], "[") && t.n > 1 && !strcmp(t.v[t.n - 1], "]"))
		t.n--;
	return t.n > 1 && test_or(&t) ? 0 : 1;
}
