/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clone.c - vdisk uuid --clone: fresh identifiers for a copy of a disk
 *
 * First everything is looked at, on the disk opened for reading, and a list is
 * made: each identifier with its new one, and each file of the guest in which
 * one of the old ones stands.  That list is shown before anything is written.
 * Then the files are changed, then the file systems, then the partition table;
 * the new ones are as long as the old, so that files keep their size.
 *
 *   { "identifiers": [ { "volume", "what", "old", "new" } ],
 *     "files": [ { "volume", "path", "places" } ], "unchanged": [ { "volume", "what", "reason" } ] }
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <sys/random.h>

#include "cli/label.h"
#include "cli/replace.h"

#define FILE_MAX (4u << 20)

struct id {
	char volume[264];
	char what[48];		/* "ext4", "partition", "table" */
	char old[64], new[64];
	unsigned part;		/* of a partition's own */
	bool on_volume;		/* of what it holds */
};

struct file {
	char volume[264];
	char *path;		/* owned */
	unsigned places;
};

struct plan {
	struct id *ids;		/* owned */
	size_t n_ids;
	struct file *files;	/* owned */
	size_t n_files;
	json_t *unchanged;	/* owned */
	bool in_initramfs;	/* something that an initramfs may have noted down */
	int status;
};

/* ---- identifiers ---- */

static struct id *add_id(struct plan *p, const char *volume, const char *what, const char *old)
{
	struct id *v = reallocarray(p->ids, p->n_ids + 1, sizeof(*v)), *id;

	if (!v) {
		p->status = CLI_FAILED;
		return NULL;
	}
	p->ids = v;
	id = &v[p->n_ids++];
	*id = (struct id) { .part = 0 };
	snprintf(id->volume, sizeof(id->volume), "%s", volume);
	snprintf(id->what, sizeof(id->what), "%s", what);
	snprintf(id->old, sizeof(id->old), "%s", old);
	return id;
}

/* Other digits where digits are: as long as the old one, and of the same look. */
static void make_new(struct id *id)
{
	bool upper = strpbrk(id->old, "ABCDEF"), uuid = strlen(id->old) == 36;
	uint8_t raw[64];
	size_t i, digit = 0;

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		abort();	/* (does not fail once the machine has started) */
	for (i = 0; id->old[i]; i++) {
		unsigned v = raw[i] & 15;

		if (!isxdigit((unsigned char)id->old[i])) {
			id->new[i] = id->old[i];
			continue;
		}
		if (uuid && digit == 12)	/* RFC 9562: version 4, variant 10 */
			v = 4;
		if (uuid && digit == 16)
			v = 8 | (v & 3);
		if (!uuid && digit == 0)
			v |= 1;	/* no serial number is zero */
		id->new[i] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[v];
		digit++;
	}
	id->new[i] = '\0';
}

static void plan_table(struct plan *p, struct vdisk *disk)
{
	AUTO_FREE struct vdisk_parts *t = NULL;
	struct vdisk_error err = { 0 };
	char table_new[64], name[16];
	struct id *id;

	if (vdisk_parts_read(&t, disk, &err) < 0) {
		p->status = cli_fail(&err);
		return;
	}
	if (!t->scheme[0])
		return;
	id = add_id(p, "", "table", t->id);
	if (!id)
		return;
	make_new(id);
	snprintf(table_new, sizeof(table_new), "%s", id->new);
	for (unsigned i = 0; i < t->count; i++) {
		snprintf(name, sizeof(name), "p%u", t->part[i].number);
		id = add_id(p, name, "partition", t->part[i].uuid);
		if (!id)
			return;
		if (!strcmp(t->scheme, "dos")) {	/* the table's, and the number */
			snprintf(id->new, sizeof(id->new), "%.40s-%02x", table_new, t->part[i].number);
		} else {
			make_new(id);
			id->part = t->part[i].number;
		}
	}
}

static int plan_volume(void *arg, const struct vdisk_volume *volume)
{
	struct plan *p = arg;
	struct vdisk_probe probe = { 0 };
	struct vdisk_error err = { 0 };
	const char *why;
	struct id *id;

	if (vdisk_probe(volume->disk, &probe, &err) < 0) {
		p->status = cli_fail(&err);
		return 0;
	}
	if (!*probe.type)
		return 0;
	why = cli_uuid_refusal(&probe);
	if (*why || !*probe.uuid) {
		json_array_append_new(p->unchanged, json_pack("{s:s, s:s, s:s}", "volume",
			volume->name, "what", probe.type, "reason", *why ? why : "it has none"));
		return 0;
	}
	id = add_id(p, volume->name, probe.type, probe.uuid);
	if (!id)
		return 0;
	id->on_volume = true;
	make_new(id);
	p->in_initramfs |= !strcmp(probe.type, "swap") || !strcmp(probe.type, "crypto_LUKS");
	return 0;
}

/* ---- text ---- */

static bool is_edge(char c)
{
	return !isalnum((unsigned char)c) && c != '-' && c != '_';
}

/* Put the new identifiers into @text; how many places that were. */
static unsigned substitute(const struct plan *p, char *text, size_t len)
{
	unsigned n = 0;

	for (size_t i = 0; i < len; i++) {
		if (i && !is_edge(text[i - 1]))
			continue;
		for (size_t k = 0; k < p->n_ids; k++) {
			const struct id *id = &p->ids[k];
			size_t old = strlen(id->old);
			bool upper;

			/* (the id of an MBR alone is too short to be believed) */
			if (old < 9 || old > len - i || strncasecmp(text + i, id->old, old) != 0 ||
			    (i + old < len && !is_edge(text[i + old])))
				continue;
			upper = false;
			for (size_t c = 0; c < old; c++)
				upper |= isupper((unsigned char)text[i + c]) != 0;
			for (size_t c = 0; c < old; c++)
				text[i + c] = (char)(upper ? toupper((unsigned char)id->new[c]) :
						     id->new[c]);
			n++;
			i += old - 1;
			break;
		}
	}
	return n;
}

/* ---- files ---- */

/* In the root file system, and in one that is /boot or the EFI system partition. */
static const char *const paths[] = {
	"/etc/fstab", "/etc/crypttab", "/etc/default/grub", "/etc/kernel/cmdline",
	"/etc/initramfs-tools/conf.d/resume", "/etc/dracut.conf", "/etc/mdadm/mdadm.conf",
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
	{ "/EFI/debian", ".cfg" }, { "/EFI/ubuntu", ".cfg" }, { "/EFI/fedora", ".cfg" },
	{ "/EFI/centos", ".cfg" }, { "/EFI/redhat", ".cfg" }, { "/EFI/rocky", ".cfg" },
	{ "/EFI/almalinux", ".cfg" }, { "/EFI/opensuse", ".cfg" }, { "/EFI/BOOT", ".cfg" },
};

struct look {
	struct plan *plan;
	struct vdisk_fs *fs;
	const char *volume;
	const char *dir, *end;
};

static void look_file(struct look *l, const char *path)
{
	struct plan *p = l->plan;
	struct vdisk_error err = { 0 };
	AUTO_FREE void *data = NULL;
	struct file *v;
	size_t len;
	unsigned n;

	if (vdisk_fs_load(l->fs, path, FILE_MAX, &data, &len, &err) < 0) {
		if (err.code != ENOENT && err.code != ENOTDIR)
			cli_note("%s: not looked into: %s", l->volume, err.msg);
		return;
	}
	n = substitute(p, data, len);
	if (!n)
		return;
	v = reallocarray(p->files, p->n_files + 1, sizeof(*v));
	if (v) {
		p->files = v;
		v[p->n_files] = (struct file) { .path = strdup(path), .places = n };
		snprintf(v[p->n_files].volume, sizeof(v->volume), "%s", l->volume);
		if (v[p->n_files].path) {
			p->n_files++;
			return;
		}
	}
	p->status = CLI_FAILED;
}

static int look_entry(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct look *l = arg;
	size_t n = strlen(name), end = strlen(l->end);
	char path[512];

	(void)st;
	if (n > end && !strcasecmp(name + n - end, l->end) &&
	    snprintf(path, sizeof(path), "%s/%s", l->dir, name) < (int)sizeof(path))
		look_file(l, path);
	return 0;
}

static int look_volume(void *arg, const struct vdisk_volume *volume)
{
	struct look l = { .plan = arg, .volume = volume->name };

	if (vdisk_fs_open(&l.fs, volume->disk, 0, NULL) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		look_file(&l, paths[i]);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		l.dir = dirs[i].dir;
		l.end = dirs[i].end;
		vdisk_fs_list(l.fs, l.dir, look_entry, &l, NULL);
	}
	vdisk_fs_close(l.fs, NULL);
	return 0;
}

/* ---- showing ---- */

static int show_json(const struct plan *p)
{
	json_t *ids = json_array(), *files = json_array();

	for (size_t i = 0; i < p->n_ids; i++)
		json_array_append_new(ids, json_pack("{s:s, s:s, s:s, s:s}", "volume",
			p->ids[i].volume, "what", p->ids[i].what, "old", p->ids[i].old, "new",
			p->ids[i].new));
	for (size_t i = 0; i < p->n_files; i++)
		json_array_append_new(files, json_pack("{s:s, s:s, s:I}", "volume",
			p->files[i].volume, "path", p->files[i].path, "places",
			(json_int_t)p->files[i].places));
	return cli_print_json(json_pack("{s:o, s:o, s:O}", "identifiers", ids, "files", files,
					"unchanged", p->unchanged));
}

static int show(const struct plan *p)
{
	if (cli.json)
		return show_json(p);
	for (size_t i = 0; i < p->n_ids; i++)
		printf("%-12s %-10s %s -> %s\n", *p->ids[i].volume ? p->ids[i].volume : "disk",
		       p->ids[i].what, p->ids[i].old, p->ids[i].new);
	for (size_t i = 0; i < p->n_files; i++)
		printf("%s:%s: %u place%s\n", *p->files[i].volume ? p->files[i].volume : "disk",
		       p->files[i].path, p->files[i].places, p->files[i].places == 1 ? "" : "s");
	for (size_t i = 0; i < json_array_size(p->unchanged); i++) {
		json_t *u = json_array_get(p->unchanged, i);

		printf("%s: %s stays: %s\n", json_string_value(json_object_get(u, "volume")),
		       json_string_value(json_object_get(u, "what")),
		       json_string_value(json_object_get(u, "reason")));
	}
	return CLI_OK;
}

/* ---- doing ---- */

static int change_files(void *arg, const struct vdisk_volume *volume)
{
	struct plan *p = arg;
	struct vdisk_error err = { 0 };
	struct vdisk_fs *fs = NULL;

	for (size_t i = 0; p->status == CLI_OK && i < p->n_files; i++) {
		AUTO_FREE void *data = NULL;
		size_t len;

		if (strcmp(p->files[i].volume, volume->name) != 0)
			continue;
		if ((!fs && vdisk_fs_open(&fs, volume->disk, VDISK_FS_WRITE, &err) < 0) ||
		    vdisk_fs_load(fs, p->files[i].path, FILE_MAX, &data, &len, &err) < 0) {
			p->status = cli_fail(&err);
			break;
		}
		substitute(p, data, len);
		p->status = cli_replace(fs, p->files[i].path, data, len);
	}
	if (fs && vdisk_fs_close(fs, &err) < 0)
		p->status = cli_fail(&err);
	return p->status == CLI_OK ? 0 : 1;
}

static int change_volume(void *arg, const struct vdisk_volume *volume)
{
	struct plan *p = arg;

	for (size_t i = 0; p->status == CLI_OK && i < p->n_ids; i++)
		if (p->ids[i].on_volume && !strcmp(p->ids[i].volume, volume->name))
			p->status = cli_set_uuid(volume->disk,
						 *volume->name ? volume->name : "the disk",
						 p->ids[i].new);
	return p->status == CLI_OK ? 0 : 1;
}

static int change_table(const struct plan *p, struct vdisk *disk)
{
	struct vdisk_part_change c = { .size = sizeof(c) };
	struct vdisk_error err = { 0 };

	for (size_t i = 0; i < p->n_ids; i++) {
		const struct id *id = &p->ids[i];
		int r = 0;

		c.uuid = id->new;
		if (id->part)
			r = vdisk_parts_change(disk, id->part, &c, &err);
		else if (!id->on_volume && !*id->volume)
			r = vdisk_parts_set_id(disk, id->new, &err);
		if (r < 0)
			return cli_fail(&err);
	}
	return CLI_OK;
}

static int apply(struct plan *p, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open(&disk, locator, VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	if (vdisk_each_volume(disk, change_files, p, &err) < 0 ||
	    (p->status == CLI_OK && vdisk_each_volume(disk, change_volume, p, &err) < 0))
		p->status = cli_fail(&err);
	if (p->status == CLI_OK)
		p->status = change_table(p, disk);
	if (cli_close(&disk) != CLI_OK)
		p->status = CLI_FAILED;
	if (p->status != CLI_OK)
		cli_error("%s: only a part of the identifiers was changed; run it again on a fresh "
			  "copy", locator);
	else if (p->in_initramfs)
		cli_note("the guest's initramfs may have noted down the former UUID of swap space or "
			 "LUKS: let the guest make it anew");
	return p->status;
}

static int make_plan(struct plan *p, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open(&disk, locator, 0) < 0)
		return CLI_FAILED;
	plan_table(p, disk);
	if (vdisk_each_volume(disk, plan_volume, p, &err) < 0 ||
	    vdisk_each_volume(disk, look_volume, p, &err) < 0)
		return cli_fail(&err);
	if (p->status == CLI_OK && !p->n_ids) {
		cli_error("%s: there is no identifier on it that can be changed", locator);
		return CLI_FAILED;
	}
	return p->status;
}

int cli_clone(const char *locator, bool only_show)
{
	struct plan p = { .unchanged = json_array() };
	int status = make_plan(&p, locator);

	if (status == CLI_OK)
		status = show(&p);
	if (status == CLI_OK && !only_show) {
		fflush(stdout);
		status = cli_confirm("%s gets these new identifiers", locator) ? apply(&p, locator) :
			 CLI_FAILED;
	}
	for (size_t i = 0; i < p.n_files; i++)
		free(p.files[i].path);
	free(p.files);
	free(p.ids);
	json_decref(p.unchanged);
	return status;
}
