/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grub_places.c - where things are: devices, paths, search, probe
 *
 * A device name means a volume of this guest or nothing.
 */
#include "guest/grub_eval.h"

#include <errno.h>
#include <strings.h>

static int find_lvm(const struct grub *g, const char *name, size_t len)
{
	for (unsigned i = 0; i < g->env->n_volumes; i++)
		if (!strncmp(g->env->volumes[i].lvm, name, len) && !g->env->volumes[i].lvm[len])
			return (int)i;
	return -1;
}

/* "VG-UUID/LV-UUID"; grub-install writes both with LVM's dashes. */
static int find_lvmid(const struct grub *g, const char *id, size_t len)
{
	for (unsigned i = 0; i < g->env->n_volumes; i++) {
		const char *its = g->env->volumes[i].lvmid;

		if (*its && strlen(its) == len && !memcmp(its, id, len))
			return (int)i;
	}
	return -1;
}

/*
 * The volume that a device name means: "hd0,gpt2", "hd0,2", "ahci0,msdos1", "hd0",
 * "lvm/vg0-root", "lvmid/VG-UUID/LV-UUID".  Which drive does not matter, a guest has one here.  -1: none.
 */
int grub_find_device(const struct grub *g, const char *name, size_t len)
{
	const char *comma = memrchr(name, ',', len);
	unsigned long number = 0;
	unsigned i;
	char *end;

	if (len > 4 && !strncmp(name, "lvm/", 4))
		return find_lvm(g, name + 4, len - 4);
	if (len > 6 && !strncmp(name, "lvmid/", 6))
		return find_lvmid(g, name + 6, len - 6);
	if (memchr(name, '/', len))	/* mduuid/..., cryptouuid/... */
		return -1;
	if (comma) {
		comma++;
		while (comma < name + len && (*comma < '0' || *comma > '9'))
			comma++;
		number = strtoul(comma, &end, 10);
		if (end == comma || end != name + len)
			return -1;
	}
	for (i = 0; i < g->env->n_volumes; i++)
		if (g->env->volumes[i].number == number && !g->env->volumes[i].lvm[0])
			return (int)i;
	return -1;
}

const char *grub_device_name(struct grub *g, unsigned volume)
{
	const struct boot_volume *v = &g->env->volumes[volume];
	unsigned number = v->number;

	if (v->lvm[0])
		return arena_printf(g->a, "lvm/%s", v->lvm);
	return number ? arena_printf(g->a, "hd0,%u", number) : "hd0";
}

/* "(hd0,gpt1)/path" or "/path" on $root; path NULL if there is no such place. */
struct boot_file grub_resolve(struct grub *g, const char *text)
{
	const char *device = grub_value(g, "root"), *close;
	size_t len = strlen(device);
	int volume;

	if (*text == '(') {
		close = strchr(text, ')');
		if (!close)
			return (struct boot_file) { 0 };
		device = text + 1;
		len = (size_t)(close - device);
		text = close + 1;
	}
	volume = grub_find_device(g, device, len);
	if (volume < 0 || *text != '/')
		return (struct boot_file) { 0 };
	return (struct boot_file) { .volume = (unsigned)volume, .path = arena_strdup(g->a, text) };
}

/* ---- search, probe ---- */

static bool search_fits(struct grub *g, char by, unsigned volume, const char *name)
{
	const struct boot_volume *v = &g->env->volumes[volume];
	uint64_t size;

	switch (by) {
	case 'u':
		return !strcasecmp(v->uuid, name);
	case 'l':
		return !strcmp(v->label, name);
	default:
		return g->env->stat(g->env->arg, volume, name, &size) == 0;
	}
}

static int search(struct grub *g, char by, const char *name, const char *variable)
{
	unsigned i;

	for (i = 0; *name && i < g->env->n_volumes; i++) {
		if (search_fits(g, by, i, name)) {
			if (variable)
				grub_set(g, variable, grub_device_name(g, i));
			return 0;
		}
	}
	return 1;
}

int grub_cmd_search(struct grub *g, const struct grub_args *args)
{
	const char *variable = NULL, *name = "", *arg;
	char by = 'f';
	unsigned i;

	for (i = 1; i < args->n; i++) {
		arg = args->v[i];
		if (!strcmp(arg, "--set") || !strcmp(arg, "-s"))
			variable = "root";
		else if (!strncmp(arg, "--set=", 6))
			variable = arg + 6;
		else if (!strcmp(arg, "--fs-uuid") || !strcmp(arg, "-u"))
			by = 'u';
		else if (!strcmp(arg, "--label") || !strcmp(arg, "--fs-label") ||
			 !strcmp(arg, "-l"))
			by = 'l';
		else if (!strcmp(arg, "--file") || !strcmp(arg, "-f"))
			by = 'f';
		else if (!strcmp(arg, "--hint"))
			i++;	/* its value */
		else if (arg[0] != '-')
			name = arg;
	}
	return search(g, by, name, variable);
}

/* search.fs_uuid NAME [VARIABLE [HINT...]] */
int grub_cmd_search_short(struct grub *g, const struct grub_args *args)
{
	const char *kind = args->v[0] + strlen("search.");
	char by = !strcmp(kind, "fs_uuid") ? 'u' : !strcmp(kind, "fs_label") ? 'l' : 'f';

	if (args->n < 2)
		return 1;
	return search(g, by, args->v[1], args->n > 2 ? args->v[2] : NULL);
}

int grub_cmd_probe(struct grub *g, const struct grub_args *args)
{
	const char *variable = NULL, *device = "", *arg, *value = "";
	const struct boot_volume *v;
	char what = 0;
	size_t len;
	unsigned i;
	int volume;

	for (i = 1; i < args->n; i++) {
		arg = args->v[i];
		if (!strncmp(arg, "--set=", 6))
			variable = arg + 6;
		else if ((!strcmp(arg, "--set") || !strcmp(arg, "-s")) && i + 1 < args->n)
			variable = args->v[++i];
		else if (!strcmp(arg, "--fs-uuid") || !strcmp(arg, "-u"))
			what = 'u';
		else if (!strcmp(arg, "--label") || !strcmp(arg, "-l"))
			what = 'l';
		else if (!strcmp(arg, "--fs") || !strcmp(arg, "-f"))
			what = 'f';
		else if (!strcmp(arg, "--part-uuid"))
			what = 'p';
		else if (arg[0] != '-')
			device = arg;
	}
	len = strlen(device);
	if (len >= 2 && device[0] == '(' && device[len - 1] == ')') {
		device++;
		len -= 2;
	}
	volume = grub_find_device(g, device, len);
	if (volume < 0 || !what)
		return 1;
	v = &g->env->volumes[volume];
	value = what == 'u' ? v->uuid : what == 'l' ? v->label : what == 'f' ? v->type :
		v->part_uuid;
	if (variable)
		grub_set(g, variable, value);
	return 0;
}
