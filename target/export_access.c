/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* export_access.c - see export_access.h */
#include <errno.h>
#include <stdlib.h>

#include "core/compiler.h"
#include "target/export_access.h"
#include "target/log.h"

static int begin(struct export_access *a)
{
	if (!a->users)
		a->users = open_memstream(&a->users_text, &a->users_len);
	if (!a->rules)
		a->rules = open_memstream(&a->rules_text, &a->rules_len);
	return a->users && a->rules ? 0 : -ENOMEM;
}

/* A word as the configuration has it: in quotes */
static void put_word(FILE *f, const char *word, size_t len)
{
	fputs(" \"", f);
	for (size_t i = 0; i < len; i++) {
		if (word[i] == '"' || word[i] == '\\')
			fputc('\\', f);
		fputc(word[i], f);
	}
	fputc('"', f);
}

int export_access_user(struct export_access *a, const char *directive, const char *value)
{
	const char *colon = strchr(value, ':');
	AUTO_FREE char *path = colon ? realpath(colon + 1, NULL) : NULL;

	if (!colon || colon == value || begin(a) < 0)
		return -EINVAL;
	if (!path)
		return -errno;
	fputs("chap-user", a->users);
	put_word(a->users, value, (size_t)(colon - value));
	fputs(" {\nsecret-file", a->users);
	put_word(a->users, path, strlen(path));
	fputs("\n}\n", a->users);
	fputs(directive, a->rules);
	put_word(a->rules, value, (size_t)(colon - value));
	fputc('\n', a->rules);
	return 0;
}

int export_access_rule(struct export_access *a, const char *directive, const char *value)
{
	if (begin(a) < 0)
		return -ENOMEM;
	fputs(directive, a->rules);
	for (;;) {
		size_t n = strcspn(value, ",");

		put_word(a->rules, value, n);
		if (!value[n])
			break;
		value += n + 1;
	}
	fputc('\n', a->rules);
	return 0;
}

int export_access_end(struct export_access *a, const char *name, struct iscsi_access *out,
		      struct vdisk_error *err)
{
	AUTO_FREE char *text = NULL;
	struct config *config;
	int n = -1, r;

	if (!a->users)
		return 0;
	fclose(a->users);
	fclose(a->rules);
	if (a->users_text && a->rules_text)
		n = asprintf(&text, "portal :0\n%starget %s {\nlun 0 disk\n%s}\n", a->users_text, name,
			     a->rules_text);
	free(a->users_text);
	free(a->rules_text);
	*a = (struct export_access) { 0 };
	if (n < 0)
		return fail(err, ENOMEM, "out of memory");
	r = config_parse(&config, "the options", text, (size_t)n, config_read_secret, err);
	if (r < 0)
		return r;
	*out = config->targets[0].access;
	config->targets[0].access = (struct iscsi_access) { 0 };
	config_free(config);
	return 0;
}
