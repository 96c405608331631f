/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * version.c - which of two versions is newer, as rpm sees it
 *
 * A version is a row of runs of digits and runs of letters; whatever else is
 * between them only separates.  Runs are compared one after the other: numbers
 * by value, letters by the alphabet, and a number is newer than letters.  Who
 * has more runs is newer, but "~" makes what follows older than nothing at all
 * (1.0~rc1 < 1.0), and "^" newer than nothing, older than anything else.
 */
#include "guest/bootcfg.h"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *skip_separators(const char *p)
{
	while (*p && !is_digit(*p) && !is_letter(*p) && *p != '~' && *p != '^')
		p++;
	return p;
}

static int sign(long long n)
{
	return (n > 0) - (n < 0);
}

/* One run of each; moves both behind it. */
static int compare_runs(const char **pa, const char **pb)
{
	const char *a = *pa, *b = *pb;
	bool digits = is_digit(*a);
	size_t la = 0, lb = 0;
	int c;

	if (digits) {
		while (*a == '0')
			a++;
		while (*b == '0')
			b++;
	}
	while (digits ? is_digit(a[la]) : is_letter(a[la]))
		la++;
	while (digits ? is_digit(b[lb]) : is_letter(b[lb]))
		lb++;
	*pa = a + la;
	*pb = b + lb;
	if (digits && la != lb)
		return la > lb ? 1 : -1;
	c = memcmp(a, b, MIN(la, lb));
	return c ? sign(c) : sign((long long)la - (long long)lb);
}

int version_cmp(const char *a, const char *b)
{
	int c;

	for (;;) {
		a = skip_separators(a);
		b = skip_separators(b);
		if (*a == '~' || *b == '~') {
			if (*a != *b)
				return *a == '~' ? -1 : 1;
			a++, b++;
			continue;
		}
		if (*a == '^' || *b == '^') {
			if (*a != *b)
				return *a == '^' ? (*b ? -1 : 1) : (*a ? 1 : -1);
			a++, b++;
			continue;
		}
		if (!*a || !*b)
			return (*a != '\0') - (*b != '\0');
		if (is_digit(*a) != is_digit(*b))
			return is_digit(*a) ? 1 : -1;
		c = compare_runs(&a, &b);
		if (c)
			return c;
	}
}
