/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * newest.c - what to boot where nothing usable says it: the newest kernel
 *
 * Kernels are looked for in /boot of each volume, and in the top directory of
 * a volume that has none there (a separate /boot).  The initrd is the one
 * whose name has the kernel's version; kernels that have none come behind those that do, as
 * an upgrade that was interrupted leaves them.  root= comes from the guest's fstab, or
 * is the file system that has one.
 */
#include "guest/bootcfg.h"

#include <errno.h>
#include <stdio.h>

static const char *const kernel_prefixes[] = { "vmlinuz-", "linux-", "bzImage-", "kernel-" };

const char *boot_kernel_version(const char *name)
{
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(kernel_prefixes); i++) {
		len = strlen(kernel_prefixes[i]);
		if (!strncmp(name, kernel_prefixes[i], len) && name[len])
			return name + len;
	}
	return NULL;
}

static bool is_kernel(const char *name)
{
	size_t len = strlen(name);

	if (len > 255 || strstr(name, ".old") || strstr(name, ".sig") || strstr(name, ".hmac"))
		return false;
	return boot_kernel_version(name) || !strcmp(name, "vmlinuz") || !strcmp(name, "bzImage");
}

static int rank(const char *name)
{
	const char *version = boot_kernel_version(name);

	if (!version)
		return 0;		/* a bare "vmlinuz": last */
	return strstr(version, "rescue") ? 1 : 2;
}

static int newest_first(const void *pa, const void *pb)
{
	const char *a = *(const char *const *)pa, *b = *(const char *const *)pb;
	int c = rank(b) - rank(a);

	if (!c && rank(a))
		c = version_cmp(boot_kernel_version(b), boot_kernel_version(a));
	return c ? c : strcmp(a, b);
}

/* "initrd.img-VERSION", "initramfs-VERSION.img", ... or without version and dash */
static const char *find_initrd(struct boot_menu *menu, const struct boot_env *env,
			       unsigned volume, const char *dir, const char *kernel)
{
	static const struct { const char *before, *behind; } names[] = {
		{ "initrd.img", "" }, { "initramfs", ".img" }, { "initrd", "" },
		{ "initrd", ".img" }, { "initramfs", "" },
	};
	const char *version = boot_kernel_version(kernel), *path;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		path = arena_printf(&menu->arena, "%s/%s%s%s%s", dir, names[i].before,
				    version ? "-" : "", version ? version : "", names[i].behind);
		if (boot_is_file(env, volume, path))
			return path;
	}
	return NULL;
}

/* ---- root= ---- */

const char *fstab_root(struct arena *a, const char *fstab)
{
	const char *device, *point;
	size_t dev_len, point_len;

	for (; *fstab; fstab += strcspn(fstab, "\n"), fstab += *fstab == '\n') {
		device = fstab + strspn(fstab, " \t");
		dev_len = strcspn(device, " \t\n");
		point = device + dev_len + strspn(device + dev_len, " \t");
		point_len = strcspn(point, " \t\n");
		if (*device != '#' && point_len == 1 && *point == '/')
			return arena_strndup(a, device, dev_len);
	}
	return NULL;
}

static bool starts_with(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

const char *boot_root_arg(struct arena *a, const struct boot_env *env, unsigned volume,
			  bool has_initrd)
{
	const struct boot_volume *v = &env->volumes[volume];
	const char *device = NULL;
	size_t len;
	char *fstab;

	/* without an initrd the kernel itself must find it: by partition */
	if (!has_initrd && v->part_uuid[0])
		return arena_printf(a, "PARTUUID=%s", v->part_uuid);
	if (!has_initrd && !v->lvm[0])
		return v->number ? arena_printf(a, "/dev/vda%u", v->number) : "/dev/vda";
	fstab = boot_load_text(a, env, volume, "/etc/fstab", &len);
	if (fstab)
		device = fstab_root(a, fstab);
	if (device && (starts_with(device, "UUID=") || starts_with(device, "LABEL=") ||
		       starts_with(device, "PARTUUID=") || starts_with(device, "/dev/mapper/")))
		return device;
	/* a name like /dev/sda1 was true on some other machine */
	if (v->uuid[0])
		return arena_printf(a, "UUID=%s", v->uuid);
	if (!device && v->lvm[0])
		return arena_printf(a, "/dev/mapper/%s", v->lvm);
	return device ? device : v->number ? arena_printf(a, "/dev/vda%u", v->number) : "/dev/vda";
}

int boot_find_root(const struct boot_env *env)
{
	static const char *const signs[] = {
		"/etc/fstab", "/etc/os-release", "/usr/lib/os-release", "/sbin/init",
		"/usr/sbin/init", "/usr/lib/systemd/systemd",
	};
	unsigned i, k;

	for (k = 0; k < ARRAY_SIZE(signs); k++)
		for (i = 0; i < env->n_volumes; i++)
			if (boot_is_file(env, i, signs[k]))
				return (int)i;
	return -1;
}

/* @initrd NULL: it has none. */
static void add_kernel(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
		       const char *dir, const char *name, const char *initrd)
{
	struct arena *a = &menu->arena;
	struct boot_entry *e = boot_menu_add(menu);
	int root = boot_find_root(env);

	e->title = name;
	e->number = arena_printf(a, "%u", menu->n_entries - 1);
	e->kernel = (struct boot_file) { .volume = volume, .path = arena_printf(a, "%s/%s", dir, name) };
	if (initrd) {
		e->initrd = arena_alloc(a, sizeof(*e->initrd));
		e->initrd[0] = (struct boot_file) { .volume = volume, .path = initrd };
		e->n_initrd = 1;
	}
	e->cmdline = arena_printf(a, "root=%s ro",
				  boot_root_arg(a, env, root >= 0 ? (unsigned)root : volume,
						initrd != NULL));
}

/* Those that have an initrd, then those that have none. */
static void add_kernels(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
			const char *dir, const char **names, unsigned n)
{
	const char **initrds = arena_alloc(&menu->arena, n * sizeof(*initrds));

	for (unsigned k = 0; k < n; k++) {
		initrds[k] = find_initrd(menu, env, volume, dir, names[k]);
		if (initrds[k])
			add_kernel(menu, env, volume, dir, names[k], initrds[k]);
	}
	for (unsigned k = 0; k < n; k++)
		if (!initrds[k])
			add_kernel(menu, env, volume, dir, names[k], NULL);
}

int newest_menu(struct boot_menu *menu, const struct boot_env *env, const char *selector)
{
	static const char *const dirs[] = { "/boot", "" };
	const char **names;
	unsigned d, i;
	int n;

	for (d = 0; d < ARRAY_SIZE(dirs); d++) {
		for (i = 0; i < env->n_volumes; i++) {
			n = boot_list(&menu->arena, env, i, *dirs[d] ? dirs[d] : "/", is_kernel,
				      &names);
			if (n <= 0)
				continue;
			qsort(names, (size_t)n, sizeof(*names), newest_first);
			add_kernels(menu, env, i, dirs[d], names, (unsigned)n);
			menu->chosen = boot_select_flat(menu, selector ? selector : "0");
			return 0;
		}
	}
	return -ENOENT;
}
