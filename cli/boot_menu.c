/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* boot_menu.c - what a guest's disk would boot: choosing from it, printing it */
#include <stdio.h>
#include <string.h>

#include "cli/guest.h"

int boot_menu_choose(struct vdisk_boot *out, const char *locator, const char *format,
		     const struct boot_choice *c)
{
	struct vdisk_boot_opts opts = {
		.size = sizeof(opts), .entry = c->entry, .append = c->append,
		.recovery = c->recovery,
	};
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open_format(&disk, locator, format, 0) != CLI_OK)
		return CLI_FAILED;
	if (vdisk_boot_find(out, disk, &opts, &err) < 0)
		return cli_fail(&err);
	cli_note("booting '%s': %s, found in %s%s%s", out->title, out->kernel, locator,
		 out->source[0] == '#' ? "" : ", ", out->source);
	return CLI_OK;
}

static json_t *entry_json(const struct vdisk_boot *b, int index, bool chosen)
{
	return json_pack("{si sb ss ss ss ss ss}", "number", index, "default", chosen, "title",
			 b->title, "id", b->id, "kernel", b->kernel, "initrd", b->initrd, "cmdline",
			 b->cmdline);
}

int boot_menu_print(const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	AUTO_FREE struct vdisk_boot *list = NULL;
	struct vdisk_error err = { 0 };
	json_t *array;
	int n, chosen;

	if (cli_open(&disk, locator, 0) != CLI_OK)
		return CLI_FAILED;
	n = vdisk_boot_list(disk, &list, &chosen, &err);
	if (n < 0)
		return cli_fail(&err);
	if (!cli.json) {
		for (int i = 0; i < n; i++)
			printf("%c %2d  %s\n", i == chosen ? '*' : ' ', i, list[i].title);
		return CLI_OK;
	}
	array = json_array();
	for (int i = 0; i < n; i++)
		json_array_append_new(array, entry_json(&list[i], i, i == chosen));
	return cli_print_json(json_pack("{so}", "entries", array));
}

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = text; (p = strstr(p, word)); p += len)
		if ((p == text || p[-1] == ' ') && (!p[len] || p[len] == ' ' || p[len] == ','))
			return true;
	return false;
}

/* The last console= is the one that /dev/console is. */
int boot_cmdline(char **out, const char *text, bool keep_console)
{
	bool add = !keep_console && !has_word(text, "console=ttyS0");

	if (asprintf(out, "%s%s%s", text, add && *text ? " " : "", add ? "console=ttyS0" : "") < 0) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	return CLI_OK;
}
