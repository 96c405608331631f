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

static json_t *entry_json(const struct vdisk_boot *b, bool chosen)
{
	return json_pack("{ss sb ss ss ss ss ss}", "number", b->number, "default", chosen, "title",
			 b->title, "id", b->id, "kernel", b->kernel, "initrd", b->initrd, "cmdline",
			 b->cmdline);
}

int boot_menu_print(const char *locator, const char *format)
{
	AUTO_DISK struct vdisk *disk = NULL;
	AUTO_FREE struct vdisk_boot *list = NULL;
	struct vdisk_error err = { 0 };
	json_t *array;
	int n, chosen;

	if (cli_open_format(&disk, locator, format, 0) != CLI_OK)
		return CLI_FAILED;
	n = vdisk_boot_list(disk, &list, &chosen, &err);
	if (n < 0)
		return cli_fail(&err);
	if (!cli.json) {
		for (int i = 0; i < n; i++)
			printf("%c %-4s %s\n", i == chosen ? '*' : ' ', list[i].number,
			       list[i].title);
		return CLI_OK;
	}
	array = json_array();
	for (int i = 0; i < n; i++)
		json_array_append_new(array, entry_json(&list[i], i == chosen));
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
int boot_cmdline(char **out, const char *text, const char *tty)
{
	char word[32] = "";

	if (tty)
		snprintf(word, sizeof(word), "console=%s", tty);
	if (*word && has_word(text, word))
		word[0] = '\0';
	if (asprintf(out, "%s%s%s", text, *word && *text ? " " : "", word) < 0) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	return CLI_OK;
}

/* ---- root= ---- */

/* Behind "/dev/": the letters of a disk and the number of a partition; 0 if it is not that. */
static size_t disk_letters(const char *name, const char **letters)
{
	static const char *const prefixes[] = { "xvd", "sd", "hd" };

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t len = strlen(prefixes[i]), n;

		if (strncmp(name, prefixes[i], len) != 0)
			continue;
		*letters = name + len;
		n = strspn(*letters, "abcdefghijklmnopqrstuvwxyz");
		return (*letters)[n + strspn(*letters + n, "0123456789")] ? 0 : n;
	}
	return 0;
}

/* The new name of @name, without "/dev/"; false if it stays. */
static bool new_name(char out[64], const char *name, const struct guest *g)
{
	bool known = false;
	const char *letters;

	if (!disk_letters(name, &letters))
		return false;
	for (unsigned i = 0; i < g->n_disks; i++) {
		const char *old = g->disk[i].old_name;
		size_t len = old ? strlen(old) : 0;

		known |= old != NULL;
		/* a disk that was given to the guest as a partition is a whole one here */
		if (old && !strncmp(name, old, len) &&
		    strspn(name + len, "0123456789") == strlen(name + len)) {
			snprintf(out, 64, "vd%c%.16s", 'a' + (int)i, name + len);
			return true;
		}
	}
	if (!known)
		snprintf(out, 64, "vd%.32s", letters);
	return !known;
}

int boot_fix_root(char **out, const char *text, const struct guest *g)
{
	const char *p = text, *root = NULL;
	char old[64], new[64];
	size_t len;

	/* the last one counts */
	for (; (p = strstr(p, "root=/dev/")); p += 5)
		if (p == text || p[-1] == ' ')
			root = p + strlen("root=/dev/");
	len = root ? strcspn(root, " ") : 0;
	snprintf(old, sizeof(old), "%.*s", (int)MIN(len, sizeof(old) - 1), root ? root : "");
	if (root && len < sizeof(old) && new_name(new, old, g)) {
		cli_note("root=/dev/%s is /dev/%s here (the guest's /etc/fstab may name it, too)", old,
			 new);
		if (asprintf(out, "%.*s%s%s", (int)(root - text), text, new, root + len) >= 0)
			return CLI_OK;
	} else {
		*out = strdup(text);
		if (*out)
			return CLI_OK;
	}
	cli_error("out of memory");
	return CLI_FAILED;
}
