/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grub.c - a guest's boot configuration, as hostile as it gets
 *
 * The input is the text of several files with a line "==NAME==" before each;
 * the first may do without one, as a grub.cfg.  What comes out must be whole: every entry a
 * kernel path that starts with '/', and a choice that is in the menu.
 */
#include <errno.h>
#include <stdio.h>

#include "guest/bootcfg.h"

enum { MAX_FILES = 16 };

struct input {
	struct { char path[128]; const char *text; size_t len; } file[MAX_FILES];
	unsigned n;
};

static void split(struct input *in, const char *data, size_t size)
{
	const char *end = data + size, *p = data, *mark, *close;

	in->n = 1;
	/* the first file may have its own name, too */
	if (size > 4 && !memcmp(data, "==/", 3) && (close = memmem(data, MIN(size, 120u), "==\n", 3))) {
		snprintf(in->file[0].path, sizeof(in->file[0].path), "%.*s",
			 (int)(close - data - 2), data + 2);
		in->file[0].text = p = close + 3;
	} else {
		snprintf(in->file[0].path, sizeof(in->file[0].path), "/boot/grub/grub.cfg");
		in->file[0].text = data;
	}
	while (in->n < MAX_FILES && (mark = memmem(p, (size_t)(end - p), "\n==/", 4))) {
		close = memmem(mark + 3, (size_t)(end - mark - 3), "==\n", 3);
		if (!close || (size_t)(close - mark - 3) >= sizeof(in->file[0].path))
			break;
		in->file[in->n - 1].len = (size_t)(mark + 1 - in->file[in->n - 1].text);
		snprintf(in->file[in->n].path, sizeof(in->file[0].path), "%.*s",
			 (int)(close - mark - 3), mark + 3);
		in->file[in->n++].text = p = close + 3;
	}
	in->file[in->n - 1].len = (size_t)(end - in->file[in->n - 1].text);
}

static int find(const struct input *in, const char *path)
{
	unsigned i;

	for (i = 0; i < in->n; i++)
		if (!strcmp(in->file[i].path, path))
			return (int)i;
	return -ENOENT;
}

static int in_load(void *arg, unsigned volume, const char *path, size_t max, void **data, size_t *len)
{
	const struct input *in = arg;
	int i = volume == 0 ? find(in, path) : -ENOENT;
	char *copy;

	if (i < 0)
		return i;
	if (in->file[i].len > max)
		return -EFBIG;
	copy = malloc(in->file[i].len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, in->file[i].text, in->file[i].len);
	copy[in->file[i].len] = '\0';
	*data = copy;
	*len = in->file[i].len;
	return 0;
}

static int in_stat(void *arg, unsigned volume, const char *path, uint64_t *size)
{
	const struct input *in = arg;
	int i = find(in, path);

	if (volume == 0 && i >= 0) {
		*size = in->file[i].len;
		return 0;
	}
	/* kernels are there when their name says so */
	*size = 1;
	if (volume >= 1 && strstr(path, "vmlinuz"))
		return 0;
	return strstr(path, "loader/entries") || strstr(path, "/EFI/Linux") ? 1 : -ENOENT;
}

static int in_list(void *arg, unsigned volume, const char *path,
		   void (*each)(void *ctx, const char *name), void *ctx)
{
	const struct input *in = arg;
	size_t len = strlen(path);
	unsigned i;

	for (i = 0; volume == 0 && i < in->n; i++)
		if (!strncmp(in->file[i].path, path, len) && in->file[i].path[len] == '/')
			each(ctx, in->file[i].path + len + 1);
	return 0;
}

static ssize_t in_read(void *arg, unsigned volume, const char *path, uint64_t off, void *buf,
		       size_t len)
{
	const struct input *in = arg;
	int i = volume == 0 ? find(in, path) : -ENOENT;

	if (i < 0)
		return i;
	len = off < in->file[i].len ? MIN(len, in->file[i].len - (size_t)off) : 0;
	memcpy(buf, in->file[i].text + off, len);
	return (ssize_t)len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct boot_volume volumes[] = {
		{ .number = 1, .uuid = "1111-2222", .label = "root", .type = "ext4" },
		{ .number = 2, .uuid = "3333-4444", .label = "boot", .type = "ext4" },
		{ .name = "vg/root", .lvm = "vg-root", .lvmid = "aaaaaa-bbbb/cccccc-dddd",
		  .uuid = "5555-6666", .type = "ext4" },
	};
	struct input in;
	struct boot_env env = {
		.arg = &in, .volumes = volumes, .n_volumes = ARRAY_SIZE(volumes),
		.load = in_load, .stat = in_stat, .list = in_list, .read = in_read,
	};
	struct boot_menu menu;
	unsigned i;

	split(&in, (const char *)data, size);
	if (boot_menu_read(&menu, &env, NULL, NULL) < 0)
		return 0;
	if (menu.chosen < 0 || (unsigned)menu.chosen >= menu.n_entries)
		abort();
	for (i = 0; i < menu.n_entries; i++)
		if (menu.entries[i].kernel.path && menu.entries[i].kernel.path[0] != '/')
			abort();
	boot_menu_free(&menu);
	return 0;
}
