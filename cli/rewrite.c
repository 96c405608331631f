/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rewrite.c - see rewrite.h */
#include "cli/rewrite.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "cli/replace.h"

#define FILE_MAX (4u << 20)

/* ---- text ---- */

static bool is_edge(char c, bool name)
{
	return !isalnum((unsigned char)c) && c != '-' && c != '_' &&
	       (!name || (c != '.' && c != '+'));
}

/* Does @word stand at @at? */
static bool stands(const struct rewrite_word *word, const char *text, size_t len, size_t at)
{
	size_t n = strlen(word->old);

	if (n > len - at || (at && !is_edge(text[at - 1], word->name)) ||
	    (at + n < len && !is_edge(text[at + n], word->name)))
		return false;
	return (word->any_case ? strncasecmp : strncmp)(text + at, word->old, n) == 0;
}

static void put(FILE *out, const struct rewrite_word *word, const char *old)
{
	bool upper = false;

	for (size_t i = 0; word->any_case && word->old[i]; i++)
		upper |= isupper((unsigned char)old[i]) != 0;
	for (const char *p = word->new; *p; p++)
		fputc(upper ? toupper((unsigned char)*p) : *p, out);
}

/* @text with the new words, to be freed; how many places that were, or -ENOMEM. */
static long substitute(const struct rewrite *w, const char *text, size_t len, char **out,
		       size_t *out_len)
{
	FILE *f = open_memstream(out, out_len);
	long n = 0;

	for (size_t i = 0; f && i < len;) {
		size_t k = 0;

		while (k < w->n_words && !stands(&w->words[k], text, len, i))
			k++;
		if (k == w->n_words) {
			fputc(text[i++], f);
			continue;
		}
		put(f, &w->words[k], text + i);
		i += strlen(w->words[k].old);
		n++;
	}
	return f && fclose(f) == 0 ? n : -ENOMEM;
}

/* ---- files ---- */

/* In the root file system, and in one that is /boot or the EFI system partition. */
static const char *const paths[] = {
	"/etc/fstab", "/etc/crypttab", "/etc/default/grub", "/etc/kernel/cmdline",
	"/etc/initramfs-tools/conf.d/resume", "/etc/lvm/devices/system.devices",
	 "/etc/dracut.conf", "/etc/mdadm/mdadm.conf",
	"/boot/grub/grub.cfg", "/boot/grub/menu.lst", "/boot/grub/grub.conf", "/boot/grub/grubenv",
	"/boot/grub2/grub.cfg", "/boot/grub2/grubenv", "/boot/extlinux/extlinux.conf",
	"/boot/extlinux.conf", "/boot/syslinux/syslinux.cfg", "/boot/cmdline.txt",
	"/grub/grub.cfg", "/grub/menu.lst", "/grub/grub.conf", "/grub/grubenv", "/grub2/grub.cfg",
	"/grub2/grubenv", "/extlinux/extlinux.conf", "/extlinux.conf", "/syslinux/syslinux.cfg",
	"/syslinux.cfg", "/cmdline.txt", "/refind_linux.conf", "/boot/refind_linux.conf",
};

static const struct {
	const char *dir, *end;	/* files whose name ends so */
} dirs[] = {
	{ "/boot/loader/entries", ".conf" }, { "/loader/entries", ".conf" },
	{ "/efi/loader/entries", ".conf" }, { "/boot/efi/loader/entries", ".conf" },
	{ "/etc/dracut.conf.d", ".conf" }, { "/etc/default/grub.d", ".cfg" },
	{ "/etc/lvm/backup", "" },
	{ "/EFI/debian", ".cfg" }, { "/EFI/ubuntu", ".cfg" }, { "/EFI/fedora", ".cfg" },
	{ "/EFI/centos", ".cfg" }, { "/EFI/redhat", ".cfg" }, { "/EFI/rocky", ".cfg" },
	{ "/EFI/almalinux", ".cfg" }, { "/EFI/opensuse", ".cfg" }, { "/EFI/BOOT", ".cfg" },
};

struct look {
	struct rewrite *w;
	struct vdisk_fs *fs;
	const char *volume;
	const char *dir, *end;
	int status;
};

const char *rewrite_volume(char buf[280], const char *volume)
{
	snprintf(buf, 280, "%s:", *volume ? volume : "disk");
	return buf;
}

static int no_memory(struct look *l)
{
	cli_error("out of memory");
	return l->status = CLI_FAILED;
}

static void look_file(struct look *l, const char *path)
{
	struct rewrite *w = l->w;
	struct vdisk_error err = { 0 };
	AUTO_FREE void *data = NULL;
	AUTO_FREE char *now = NULL;
	struct rewrite_file *v;
	size_t len, now_len;
	char buf[280];
	long n;

	if (vdisk_fs_load(l->fs, path, FILE_MAX, &data, &len, &err) < 0) {
		if (err.code != ENOENT && err.code != ENOTDIR && err.code != EISDIR)
			cli_note("%s not looked into: %s", rewrite_volume(buf, l->volume), err.msg);
		return;
	}
	n = substitute(w, data, len, &now, &now_len);
	if (n == 0)
		return;
	v = n < 0 ? NULL : reallocarray(w->files, w->n_files + 1, sizeof(*v));
	if (!v) {
		no_memory(l);
		return;
	}
	w->files = v;
	v += w->n_files;
	*v = (struct rewrite_file) { .path = strdup(path), .places = (unsigned)n };
	snprintf(v->volume, sizeof(v->volume), "%s", l->volume);
	if (v->path)
		w->n_files++;
	else
		no_memory(l);
}

static int look_entry(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct look *l = arg;
	size_t n = strlen(name), end = strlen(l->end);
	char path[512];

	(void)st;
	if (n > end && name[0] != '.' && !strcasecmp(name + n - end, l->end) &&
	    snprintf(path, sizeof(path), "%s/%s", l->dir, name) < (int)sizeof(path))
		look_file(l, path);
	return 0;
}

static int look_volume(void *arg, const struct vdisk_volume *volume)
{
	struct look *l = arg;
	struct vdisk_probe probe = { 0 };
	char buf[280];

	l->volume = volume->name;
	if ((volume->lv && !volume->lv->writable) ||
	    vdisk_fs_open(&l->fs, volume->disk, 0, NULL) < 0) {
		if (vdisk_probe(volume->disk, &probe, NULL) == 0 && !strcmp(probe.usage, "filesystem"))
			cli_note("%s files in this %s cannot be changed: what they say of these "
				 "identifiers has to be changed by hand",
				 rewrite_volume(buf, volume->name), probe.type);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		look_file(l, paths[i]);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		l->dir = dirs[i].dir;
		l->end = dirs[i].end;
		vdisk_fs_list(l->fs, l->dir, look_entry, l, NULL);
	}
	vdisk_fs_close(l->fs, NULL);
	return l->status == CLI_OK ? 0 : 1;
}

int rewrite_find(struct rewrite *w, struct vdisk *disk)
{
	struct look l = { .w = w };
	struct vdisk_error err = { 0 };

	return vdisk_each_volume(disk, look_volume, &l, &err) < 0 ? cli_fail(&err) : l.status;
}

/* ---- doing ---- */

static int change_file(struct look *l, const struct rewrite_file *f)
{
	struct vdisk_error err = { 0 };
	AUTO_FREE void *data = NULL;
	AUTO_FREE char *now = NULL;
	size_t len, now_len;

	if (vdisk_fs_load(l->fs, f->path, FILE_MAX, &data, &len, &err) < 0)
		return l->status = cli_fail(&err);
	if (substitute(l->w, data, len, &now, &now_len) < 0)
		return no_memory(l);
	return l->status = cli_replace(l->fs, f->path, now, now_len);
}

static int change_volume(void *arg, const struct vdisk_volume *volume)
{
	struct look *l = arg;
	struct vdisk_error err = { 0 };

	l->fs = NULL;
	for (size_t i = 0; l->status == CLI_OK && i < l->w->n_files; i++) {
		if (strcmp(l->w->files[i].volume, volume->name) != 0)
			continue;
		if (!l->fs && vdisk_fs_open(&l->fs, volume->disk, VDISK_FS_WRITE, &err) < 0)
			l->status = cli_fail(&err);
		else
			change_file(l, &l->w->files[i]);
	}
	if (l->fs && vdisk_fs_close(l->fs, &err) < 0)
		l->status = cli_fail(&err);
	return l->status == CLI_OK ? 0 : 1;
}

int rewrite_apply(struct rewrite *w, struct vdisk *disk)
{
	struct look l = { .w = w };
	struct vdisk_error err = { 0 };

	return vdisk_each_volume(disk, change_volume, &l, &err) < 0 ? cli_fail(&err) : l.status;
}

/* ---- showing ---- */

json_t *rewrite_json(const struct rewrite *w)
{
	json_t *files = json_array();

	for (size_t i = 0; i < w->n_files; i++)
		json_array_append_new(files, json_pack("{s:s, s:s, s:I}", "volume",
			w->files[i].volume, "path", w->files[i].path, "places",
			(json_int_t)w->files[i].places));
	return files;
}

void rewrite_show(const struct rewrite *w)
{
	char buf[280];

	for (size_t i = 0; i < w->n_files; i++)
		printf("%s%s: %u place%s\n", rewrite_volume(buf, w->files[i].volume), w->files[i].path, w->files[i].places, w->files[i].places == 1 ? "" : "s");
}

void rewrite_clear(struct rewrite *w)
{
	for (size_t i = 0; i < w->n_files; i++)
		free(w->files[i].path);
	free(w->files);
	*w = (struct rewrite) { 0 };
}
