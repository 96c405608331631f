/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inspect.c - which system is on a disk: vdisk_inspect()
 *
 * The root file system is the one with an fstab or an os-release.  Its files
 * are read in a jailed child, which sends what it finds as messages of fixed
 * size; the parent collects them, cleans their text, and finds the volumes that
 * the lines of fstab mean.
 */
#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "guest/jail.h"
#include "guest/packages.h"
#include "guest/system.h"
#include "guest/volumes.h"

enum {
	SECONDS = 60,
	DATABASE_MAX = 256 << 20,	/* bytes of a package database */
	LISTED_MAX = 100000,		/* packages, mounts, kernels */
};

enum message { MSG_FACTS, MSG_FSTAB, MSG_KERNEL, MSG_PACKAGE };

struct survey {
	struct vdisk_inspection *in;	/* owned; the parent's */
	/* the child's */
	struct jail *jail;
	struct arena arena;
	const struct boot_env *env;
	struct guest_volumes *volumes;
	unsigned root;
	struct vdisk_inspection facts;
};

/* ---- in the child ---- */

static char *load(struct survey *s, const char *path)
{
	size_t len;

	return boot_load_text(&s->arena, s->env, s->root, path, &len);
}

static int send_package(void *arg, const struct vdisk_package *p)
{
	struct survey *s = arg;

	return jail_send(s->jail, MSG_PACKAGE, p, sizeof(*p));
}

static void read_os_release(struct survey *s)
{
	const char *text = load(s, "/etc/os-release");

	if (!text)
		text = load(s, "/usr/lib/os-release");
	if (text)
		system_os_release(text, &s->facts);
}

static void read_hostname(struct survey *s)
{
	const char *text = load(s, "/etc/hostname");

	if (text)
		system_hostname(text, s->facts.hostname, sizeof(s->facts.hostname));
}

/* From the ELF header of a program that every system has. */
static void read_arch(struct survey *s)
{
	static const char *const programs[] = {
		"/bin/sh", "/usr/bin/env", "/sbin/init", "/bin/busybox", "/usr/lib/systemd/systemd",
	};
	static const struct { uint16_t machine; const char *name; } names[] = {
		{ EM_X86_64, "x86_64" }, { EM_386, "i386" }, { EM_AARCH64, "aarch64" },
		{ EM_ARM, "arm" }, { EM_RISCV, "riscv64" }, { EM_PPC64, "ppc64" },
		{ EM_S390, "s390x" }, { EM_MIPS, "mips" }, { EM_LOONGARCH, "loongarch64" },
	};
	struct vdisk_fs *fs = s->volumes->fs[s->root];
	struct vdisk_file *file;
	uint8_t head[20];
	uint16_t machine;
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(programs) && !s->facts.arch[0]; i++) {
		ssize_t n;

		if (!boot_is_file(s->env, s->root, programs[i]) ||
		    vdisk_file_open(&file, fs, programs[i], 0, 0, NULL) < 0)
			continue;
		n = vdisk_file_read(file, head, sizeof(head), 0, NULL);
		vdisk_file_close(file, NULL);
		if (n != sizeof(head) || memcmp(head, ELFMAG, SELFMAG) != 0)
			continue;
		machine = head[EI_DATA] == ELFDATA2MSB ? load_be16(head + 18) : load_le16(head + 18);
		for (k = 0; k < ARRAY_SIZE(names); k++)
			if (names[k].machine == machine)
				snprintf(s->facts.arch, sizeof(s->facts.arch), "%s", names[k].name);
	}
}

static int send_fstab_line(void *arg, const struct vdisk_fstab *f)
{
	struct survey *s = arg;

	return jail_send(s->jail, MSG_FSTAB, f, sizeof(*f));
}

static void send_fstab(void *arg)
{
	struct survey *s = arg;
	const char *text = load(s, "/etc/fstab");

	if (text && system_fstab(text, send_fstab_line, s) < 0)
		arena_stop(&s->arena, -EPIPE);
}

struct kernels {
	struct survey *s;
	struct boot_menu menu;
};

static void read_kernels(void *arg)
{
	struct kernels *ks = arg;
	struct vdisk_kernel k;
	const struct boot_entry *e;
	const char *version;
	unsigned i;

	if (newest_menu(&ks->menu, ks->s->env, NULL) < 0)
		return;
	for (i = 0; i < ks->menu.n_entries; i++) {
		e = &ks->menu.entries[i];
		version = boot_kernel_version(e->title);
		k = (struct vdisk_kernel) { .version = "" };
		snprintf(k.version, sizeof(k.version), "%s", version ? version : "");
		snprintf(k.path, sizeof(k.path), "%s", e->kernel.path);
		if (e->n_initrd)
			snprintf(k.initrd, sizeof(k.initrd), "%s", e->initrd[0].path);
		if (jail_send(ks->s->jail, MSG_KERNEL, &k, sizeof(k)) < 0)
			arena_stop(&ks->menu.arena, -EPIPE);
	}
}

static int send_kernels(struct survey *s)
{
	struct kernels ks = { .s = s, .menu.chosen = -1 };
	int r;

	arena_init(&ks.menu.arena, BOOT_MEMORY_MAX);
	r = arena_run(&ks.menu.arena, read_kernels, &ks);
	boot_menu_free(&ks.menu);
	return r;
}

static int send_pacman(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct vdisk_package p;

	(void)st;
	return packages_pacman(name, &p) < 0 ? 0 : send_package(arg, &p);
}

/* The list stays unknown, and why. */
static int packages_unknown(struct survey *s, const char *fmt, ...) PRINTF_FMT(2, 3);
static int packages_unknown(struct survey *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->facts.packages_problem, sizeof(s->facts.packages_problem), fmt, ap);
	va_end(ap);
	return 0;
}

static bool load_database(struct survey *s, const char *path, void **data, size_t *len)
{
	struct vdisk_error err = { 0 };

	if (vdisk_fs_load(s->volumes->fs[s->root], path, DATABASE_MAX, data, len, &err) == 0)
		return true;
	packages_unknown(s, "%.180s", err.msg);
	return false;
}

static int send_text(struct survey *s, const char *path,
		     int (*read)(const char *text, package_fn *each, void *arg))
{
	void *text = NULL;
	size_t len;
	int r;

	if (!load_database(s, path, &text, &len))
		return 0;
	r = read(text, send_package, s);
	free(text);
	s->facts.packages_known = r == 0;
	return r;
}

static int send_rpm(struct survey *s, const char *path)
{
	AUTO_FREE void *data = NULL;
	AUTO_FREE void *wal = NULL;
	const char *why = NULL;
	size_t len, wal_len = 0;
	char wal_path[64];
	int r;

	snprintf(wal_path, sizeof(wal_path), "%s-wal", path);
	if (!load_database(s, path, &data, &len) ||
	    (boot_is_file(s->env, s->root, wal_path) && !load_database(s, wal_path, &wal, &wal_len)))
		return 0;
	r = packages_rpm(data, len, wal, wal_len, send_package, s, &why);
	s->facts.packages_known = r == 0;
	return why ? packages_unknown(s, "%s: %s", path, why) : r;
}

static int send_pacman_list(struct survey *s, const char *path)
{
	struct vdisk_error err = { 0 };
	int r = vdisk_fs_list(s->volumes->fs[s->root], path, send_pacman, s, &err);

	s->facts.packages_known = r == 0;
	return r < 0 ? packages_unknown(s, "%.180s", err.msg) : r;
}

/* A database that is there, but cannot be read, leaves the list unknown. */
static int send_packages(struct survey *s)
{
	static const struct {
		const char *packaging, *path;
		int (*text)(const char *text, package_fn *each, void *arg);
	} databases[] = {
		{ "dpkg", "/var/lib/dpkg/status", packages_dpkg },
		{ "apk", "/lib/apk/db/installed", packages_apk },
		/* the newest kind first: others may be left over */
		{ "rpm", "/usr/lib/sysimage/rpm/rpmdb.sqlite", NULL },
		{ "rpm", "/var/lib/rpm/rpmdb.sqlite", NULL },
		{ "rpm", "/usr/lib/sysimage/rpm/Packages.db", NULL },
		{ "rpm", "/var/lib/rpm/Packages.db", NULL },
		{ "rpm", "/usr/lib/sysimage/rpm/Packages", NULL },
		{ "rpm", "/var/lib/rpm/Packages", NULL },
	};
	static const char pacman[] = "/var/lib/pacman/local";
	struct vdisk_inspection *f = &s->facts;
	uint64_t size;

	for (size_t i = 0; i < ARRAY_SIZE(databases); i++) {
		if (!boot_is_file(s->env, s->root, databases[i].path))
			continue;
		snprintf(f->packaging, sizeof(f->packaging), "%s", databases[i].packaging);
		return databases[i].text ? send_text(s, databases[i].path, databases[i].text) :
					   send_rpm(s, databases[i].path);
	}
	if (s->env->stat(s->env->arg, s->root, pacman, &size) != 1)
		return 0;
	snprintf(f->packaging, sizeof(f->packaging), "pacman");
	return send_pacman_list(s, pacman);
}

static void read_facts(void *arg)
{
	struct survey *s = arg;
	const struct boot_volume *v = &s->volumes->volume[s->root];
	struct vdisk_inspection *f = &s->facts;

	snprintf(f->root, sizeof(f->root), "%s", v->name);
	snprintf(f->root_type, sizeof(f->root_type), "%s", v->type);
	snprintf(f->root_uuid, sizeof(f->root_uuid), "%s", v->uuid);
	snprintf(f->root_label, sizeof(f->root_label), "%s", v->label);
	read_os_release(s);
	read_hostname(s);
	read_arch(s);
}

static int inside(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	struct survey *s = arg;
	struct guest_volumes v = { 0 };
	struct boot_env env;
	int r, root;

	r = guest_volumes_open(&v, disk, jail, err);
	if (r < 0)
		return r;
	env = guest_volumes_env(&v);
	root = boot_find_root(&env);
	if (root < 0)
		return vd_fail(err, ENOENT, "inspect: %s: no root file system found%s%s",
			       vdisk_name(disk), v.trouble[0] ? "; " : "", v.trouble);
	s->jail = jail;
	s->env = &env;
	s->volumes = &v;
	s->root = (unsigned)root;
	arena_init(&s->arena, BOOT_MEMORY_MAX);
	r = arena_run(&s->arena, read_facts, s);
	if (r == 0)
		r = arena_run(&s->arena, send_fstab, s);
	if (r == 0)
		r = send_kernels(s);
	if (r == 0)
		r = send_packages(s);
	if (r == 0)
		r = jail_send(jail, MSG_FACTS, &s->facts, sizeof(s->facts));
	/* nothing is freed: the child ends here */
	return r < 0 ? vd_fail(err, -r, "inspect: %s: %s", vdisk_name(disk), strerror(-r)) : 0;
}

/* ---- in the parent ---- */

#define CLEAN(p, member) boot_clean_text((p)->member, sizeof((p)->member))

static int receive_facts(struct vdisk_inspection *in, const void *data, size_t len)
{
	struct vdisk_inspection facts;

	if (len != sizeof(facts))
		return -EPROTO;
	memcpy(&facts, data, len);
	/* all but the lists, which are ours */
	facts.fstab = in->fstab;
	facts.kernels = in->kernels;
	facts.packages = in->packages;
	facts.n_fstab = in->n_fstab;
	facts.n_kernels = in->n_kernels;
	facts.n_packages = in->n_packages;
	/* a bool holds 0 or 1 only */
	facts.packages_known = *((const char *)data +
				 offsetof(struct vdisk_inspection, packages_known)) != 0;
	facts.unclean = false;	/* the parent finds that out */
	*in = facts;
	CLEAN(in, name);
	CLEAN(in, id);
	CLEAN(in, version);
	CLEAN(in, codename);
	CLEAN(in, arch);
	CLEAN(in, hostname);
	CLEAN(in, root);
	CLEAN(in, root_type);
	CLEAN(in, root_uuid);
	CLEAN(in, root_label);
	CLEAN(in, packaging);
	CLEAN(in, packages_problem);
	return 0;
}

/* Room for one more element, which is returned; NULL without memory. */
static void *add(void *list, unsigned *n, size_t size)
{
	char **array = list, *grown = *array;

	/* grows by doubling: at powers of two */
	if ((*n & (*n - 1)) == 0) {
		grown = reallocarray(*array, *n ? 2 * (size_t)*n : 1, size);
		if (!grown)
			return NULL;
		*array = grown;
	}
	return grown + (size_t)(*n)++ * size;
}

static int receive(void *arg, uint32_t type, const void *data, size_t len,
		   struct vdisk_error *err)
{
	struct vdisk_inspection *in = ((struct survey *)arg)->in;
	struct vdisk_fstab *f;
	struct vdisk_kernel *k;
	struct vdisk_package *p;

	if (in->n_fstab + in->n_kernels + in->n_packages >= LISTED_MAX)
		return -EPROTO;
	switch (type) {
	case MSG_FACTS:
		return receive_facts(in, data, len);
	case MSG_FSTAB:
		f = len == sizeof(*f) ? add(&in->fstab, &in->n_fstab, sizeof(*f)) : NULL;
		if (!f)
			break;
		memcpy(f, data, len);
		CLEAN(f, device);
		CLEAN(f, mount_point);
		CLEAN(f, type);
		CLEAN(f, options);
		f->volume[0] = '\0';
		f->missing = false;
		return 0;
	case MSG_KERNEL:
		k = len == sizeof(*k) ? add(&in->kernels, &in->n_kernels, sizeof(*k)) : NULL;
		if (!k)
			break;
		memcpy(k, data, len);
		CLEAN(k, version);
		CLEAN(k, path);
		CLEAN(k, initrd);
		return 0;
	case MSG_PACKAGE:
		p = len == sizeof(*p) ? add(&in->packages, &in->n_packages, sizeof(*p)) : NULL;
		if (!p)
			break;
		memcpy(p, data, len);
		CLEAN(p, name);
		CLEAN(p, version);
		CLEAN(p, arch);
		return 0;
	default:
		return -EPROTO;
	}
	return vd_fail(err, EPROTO, "inspect: a message of the wrong size, or no memory for it");
}

/* ---- fstab, resolved ---- */

/* "/dev/mapper/vg-lv": as device-mapper writes it, a dash in a name is doubled. */
static bool is_mapper_name(const char *name, const char *vg, const char *lv)
{
	const char *part[] = { vg, lv };

	for (unsigned i = 0; i < 2; i++) {
		for (const char *p = part[i]; *p; p++) {
			if (*name++ != *p || (*p == '-' && *name++ != '-'))
				return false;
		}
		if (i == 0 && *name++ != '-')
			return false;
	}
	return !*name;
}

/*
 * "/dev/sda2", "/dev/vdb1", "/dev/nvme0n1p3": the partition's number, on the
 * first disk of a guest; 0 for anything else.
 */
static unsigned disk_partition(const char *device)
{
	static const char *const disks[] = {
		"/dev/sda", "/dev/vda", "/dev/hda", "/dev/xvda", "/dev/nvme0n1p", "/dev/mmcblk0p",
	};

	for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
		size_t n = strlen(disks[i]);
		unsigned long number;
		char *end;

		if (strncmp(device, disks[i], n) != 0 || !isdigit((unsigned char)device[n]))
			continue;
		number = strtoul(device + n, &end, 10);
		return *end || number > 1024 ? 0 : (unsigned)number;
	}
	return 0;
}

/* What follows @prefix in @text, NULL if it does not begin so; quotes around it are left off. */
static const char *behind(const char *text, const char *prefix, char *buf, size_t size)
{
	size_t n = strlen(prefix);

	if (strncmp(text, prefix, n) != 0)
		return NULL;
	text += n;
	n = strlen(text);
	if (n >= 2 && text[0] == '"' && text[n - 1] == '"') {
		text++;
		n -= 2;
	}
	snprintf(buf, size, "%.*s", (int)n, text);
	return buf;
}

static bool is_meant(const char *device, const struct vdisk_volume *v,
		     const struct vdisk_probe *probe)
{
	char buf[256];
	const char *x;

	if ((x = behind(device, "UUID=", buf, sizeof(buf))) ||
	    (x = behind(device, "/dev/disk/by-uuid/", buf, sizeof(buf))))
		return *x && strcasecmp(x, probe->uuid) == 0;
	if ((x = behind(device, "LABEL=", buf, sizeof(buf))) ||
	    (x = behind(device, "/dev/disk/by-label/", buf, sizeof(buf))))
		return *x && strcmp(x, probe->label) == 0;
	if ((x = behind(device, "PARTUUID=", buf, sizeof(buf))) ||
	    (x = behind(device, "/dev/disk/by-partuuid/", buf, sizeof(buf))))
		return *x && v->part && strcasecmp(x, v->part->uuid) == 0;
	if ((x = behind(device, "PARTLABEL=", buf, sizeof(buf))) ||
	    (x = behind(device, "/dev/disk/by-partlabel/", buf, sizeof(buf))))
		return *x && v->part && strcmp(x, v->part->name) == 0;
	if ((x = behind(device, "/dev/mapper/", buf, sizeof(buf))))
		return v->lv && is_mapper_name(x, v->vg->name, v->lv->name);
	if (v->lv && (x = behind(device, "/dev/", buf, sizeof(buf))))
		return strcmp(x, v->name) == 0;
	return v->part && disk_partition(device) == v->part->number;
}

static int resolve_volume(void *arg, const struct vdisk_volume *v)
{
	struct vdisk_inspection *in = arg;
	struct vdisk_probe probe = { 0 };

	if (vdisk_probe(v->disk, &probe, NULL) < 0)
		return 0;
	for (unsigned i = 0; i < in->n_fstab; i++)
		if (!in->fstab[i].volume[0] && is_meant(in->fstab[i].device, v, &probe)) {
			memcpy(in->fstab[i].volume, v->name, sizeof(in->fstab[i].volume));
			in->fstab[i].missing = false;
		}
	if (!strcmp(v->name, in->root))
		in->unclean = probe.dirty;
	return 0;
}

/* Does @device name a block device, rather than "proc" or "server:/export"? */
static bool names_volume(const char *device)
{
	return !strncmp(device, "/dev/", 5) || !strncmp(device, "UUID=", 5) ||
	       !strncmp(device, "LABEL=", 6) || !strncmp(device, "PART", 4);
}

static int resolve_fstab(struct vdisk_inspection *in, struct vdisk *disk, struct vdisk_error *err)
{
	for (unsigned i = 0; i < in->n_fstab; i++)
		in->fstab[i].missing = names_volume(in->fstab[i].device);
	return vdisk_each_volume(disk, resolve_volume, in, err);
}

int vd_inspect(struct vdisk_inspection **out, struct vdisk *disk, const struct vd_lent_fs *lent,
	       unsigned n_lent, struct vdisk_error *err)
{
	struct survey s = { .in = calloc(1, sizeof(*s.in)) };
	const struct jail_opts opts = {
		.inside = inside, .receive = receive, .arg = &s, .seconds = SECONDS,
		.what = "inspect", .lent = lent, .n_lent = n_lent,
	};
	int r;

	if (!s.in)
		return vd_fail(err, ENOMEM, "out of memory");
	r = jail_run(disk, &opts, err);
	if (r == 0)
		r = resolve_fstab(s.in, disk, err);
	if (r < 0)
		vdisk_inspection_free(s.in);
	else
		*out = s.in;
	return r;
}

int vdisk_inspect(struct vdisk_inspection **out, struct vdisk *disk, struct vdisk_error *err)
{
	return vd_inspect(out, disk, NULL, 0, err);
}

void vdisk_inspection_free(struct vdisk_inspection *in)
{
	if (!in)
		return;
	free(in->fstab);
	free(in->kernels);
	free(in->packages);
	free(in);
}
