/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guest_files.h - a guest that is a table of volumes and files, for the tests
 * of the evaluators (which include this after cmocka.h)
 */
#ifndef GUEST_FILES_H
#define GUEST_FILES_H

#include "guest/bootcfg.h"

struct file {
	unsigned volume;
	const char *path;
	const char *text;	/* NULL: "x" */
	size_t len;		/* 0: of the text */
};

struct guest {
	const struct boot_volume *volumes;
	unsigned n_volumes;
	const struct file *files;
	size_t n_files;
};

/* ---- the environment ---- */

static const struct file *find(const struct guest *g, unsigned volume, const char *path)
{
	size_t i;

	for (i = 0; i < g->n_files; i++)
		if (g->files[i].volume == volume && !strcmp(g->files[i].path, path))
			return &g->files[i];
	return NULL;
}

static const char *text_of(const struct file *f)
{
	return f->text ? f->text : "x";
}

static size_t len_of(const struct file *f)
{
	return f->len ? f->len : strlen(text_of(f));
}

static int guest_load(void *arg, unsigned volume, const char *path, size_t max, void **data,
		      size_t *len)
{
	const struct file *f = find(arg, volume, path);

	if (!f)
		return -ENOENT;
	*len = len_of(f);
	if (*len > max)
		return -EFBIG;
	*data = calloc(1, *len + 1);
	if (!*data)
		return -ENOMEM;
	memcpy(*data, text_of(f), *len);
	return 0;
}

static int guest_stat(void *arg, unsigned volume, const char *path, uint64_t *size)
{
	const struct guest *g = arg;
	const struct file *f = find(g, volume, path);
	size_t i, len = strlen(path);

	if (f) {
		*size = len_of(f);
		return 0;
	}
	for (i = 0; i < g->n_files; i++)
		if (g->files[i].volume == volume && !strncmp(g->files[i].path, path, len) &&
		    g->files[i].path[len] == '/')
			return 1;
	return -ENOENT;
}

static int guest_list(void *arg, unsigned volume, const char *path,
		      void (*each)(void *ctx, const char *name), void *ctx)
{
	const struct guest *g = arg;
	size_t i, len = strcmp(path, "/") ? strlen(path) : 0;
	bool any = false;

	for (i = 0; i < g->n_files; i++) {
		const struct file *f = &g->files[i];

		if (f->volume != volume || strncmp(f->path, path, len) != 0 || f->path[len] != '/')
			continue;
		any = true;
		if (!strchr(f->path + len + 1, '/'))
			each(ctx, f->path + len + 1);
	}
	return any ? 0 : -ENOENT;
}

static ssize_t guest_read(void *arg, unsigned volume, const char *path, uint64_t off, void *buf,
			  size_t len)
{
	const struct file *f = find(arg, volume, path);
	size_t size = f ? len_of(f) : 0;

	if (!f)
		return -ENOENT;
	len = off < size ? MIN(len, size - (size_t)off) : 0;
	memcpy(buf, text_of(f) + off, len);
	return (ssize_t)len;
}

#define UUID "0ac8f6b4-2f0c-4cd5-9b35-6a8a2cf5d1aa"
#define BOOT_UUID "6b1f3fd0-77f5-4f5e-8f0b-0d5a4a3bb001"

static const struct boot_volume one_volume[] = {
	{ .number = 1, .name = "p1", .uuid = UUID, .label = "root", .type = "ext4", .part_uuid = "aaaa-01" },
};
static const struct boot_volume two_volumes[] = {
	{ .number = 1, .name = "p1", .uuid = BOOT_UUID, .label = "boot", .type = "ext4" },
	{ .number = 3, .name = "p3", .uuid = UUID, .label = "root", .type = "ext4", .part_uuid = "aaaa-03" },
};

static int read_menu(struct boot_menu *menu, const struct boot_volume *volumes, unsigned n_volumes,
		     const struct file *files, size_t n_files, const char *selector)
{
	struct guest g = { volumes, n_volumes, files, n_files };
	struct boot_env env = {
		.arg = &g, .volumes = volumes, .n_volumes = n_volumes,
		.load = guest_load, .stat = guest_stat, .list = guest_list, .read = guest_read,
	};
	struct vdisk_error err = { 0 };
	struct boot_wish wish = { .entry = selector };
	int r = boot_menu_read(menu, &env, &wish, &err);

	if (r < 0)
		print_message("# %s\n", err.msg);
	assert_true(r == 0 || (r == err.code * -1 && err.msg[0]));
	return r;
}

#define READ1(menu, files, sel) \
	read_menu(menu, one_volume, ARRAY_SIZE(one_volume), files, ARRAY_SIZE(files), sel)
#define READ2(menu, files, sel) \
	read_menu(menu, two_volumes, ARRAY_SIZE(two_volumes), files, ARRAY_SIZE(files), sel)

static const struct boot_entry *chosen(const struct boot_menu *menu)
{
	assert_in_range(menu->chosen, 0, menu->n_entries - 1);
	return &menu->entries[menu->chosen];
}

/* Read, compare what is booted, free. */
static void check_boots(int r, struct boot_menu *menu, const char *kernel, const char *initrd,
			const char *cmdline)
{
	const struct boot_entry *e;

	assert_int_equal(r, 0);
	e = chosen(menu);
	assert_string_equal(e->kernel.path, kernel);
	if (initrd) {
		assert_int_equal(e->n_initrd, 1);
		assert_string_equal(e->initrd[0].path, initrd);
	} else {
		assert_int_equal(e->n_initrd, 0);
	}
	assert_string_equal(e->cmdline, cmdline);
	boot_menu_free(menu);
}

#endif
