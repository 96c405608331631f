/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uml_initramfs.c - the initramfs of a User-Mode Linux guest
 *
 * The disks are looked into here, where libvdisk is: which volume is the root,
 * what the logical volumes are made of.  The guest's first process gets that as a list of
 * things to do (vmm-lite/uml/init.c has its grammar), beside the modules of
 * UML's kernel that are needed.  The archive is "newc" cpio, as the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst has it.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "cli/uml.h"

#define MODULES_AT	"/usr/lib/uml/modules"
#define PIECES_MAX	4096u	/* of a logical volume */
#define SECTOR		512u

/* ---- the kernel ---- */

int uml_kernel(char **out)
{
	const char *path = getenv("PATH");

	for (const char *p = path ? path : "/usr/bin"; *p; ) {
		size_t len = strcspn(p, ":");
		char *name;

		if (asprintf(&name, "%.*s/linux.uml", (int)len, p) < 0)
			return CLI_FAILED;
		if (access(name, X_OK) == 0) {
			*out = name;
			return CLI_OK;
		}
		free(name);
		p += len + (p[len] == ':');
	}
	cli_error("linux.uml is not installed: it is in Debian's package user-mode-linux");
	return CLI_FAILED;
}

/* Its version is the name of its modules' directory. */
static int kernel_release(char out[64], const char *kernel)
{
	AUTO_FREE char *command = NULL;
	FILE *p;
	bool ok;

	if (asprintf(&command, "'%s' --version", kernel) < 0)
		return CLI_FAILED;
	/* NOLINTNEXTLINE(cert-env33-c): the path is quoted, and has no quote in it */
	p = strchr(kernel, '\'') ? NULL : popen(command, "re");
	ok = p && fgets(out, 64, p);
	if (p && pclose(p))
		ok = false;
	if (!ok) {
		cli_error("%s does not say its version", kernel);
		return CLI_FAILED;
	}
	out[strcspn(out, "\n")] = '\0';
	return CLI_OK;
}

/* ---- the archive ---- */

struct archive {
	FILE *f;		/* over a memory file */
	unsigned inode;
	bool failed;
};

static void pad(struct archive *a)
{
	static const char zero[4];
	long at = ftell(a->f);

	if (at < 0 || fwrite(zero, 1, (size_t)(-at & 3), a->f) != (size_t)(-at & 3))
		a->failed = true;
}

static void add_entry(struct archive *a, const char *name, unsigned mode, dev_t dev,
		      const void *data, size_t len)
{
	fprintf(a->f, "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X", ++a->inode,
		mode, 0u, 0u, 1u, 0u, len, 0u, 0u, (unsigned)major(dev), (unsigned)minor(dev),
		strlen(name) + 1, 0u);
	fwrite(name, 1, strlen(name) + 1, a->f);
	pad(a);
	if (fwrite(data ? data : "", 1, len, a->f) != len)
		a->failed = true;
	pad(a);
}

static int add_file(struct archive *a, const char *name, const char *from, unsigned mode)
{
	AUTO_CLOSE int fd = open(from, O_RDONLY | O_CLOEXEC);
	AUTO_FREE void *data = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 64 << 20) {
		cli_error("%s: %s", from, fd < 0 ? strerror(errno) : "not a file of the right kind");
		return CLI_FAILED;
	}
	data = malloc((size_t)st.st_size + 1);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size) {
		cli_error("%s: cannot be read", from);
		return CLI_FAILED;
	}
	add_entry(a, name, mode, 0, data, (size_t)st.st_size);
	return CLI_OK;
}

/* ---- modules ---- */

struct modules {
	struct archive *archive;
	FILE *conf;
	char dir[128];
	char *deps;		/* owned: modules.dep */
	char loaded[4096];	/* " NAME NAME " */
};

/* The line of modules.dep for a module's file name; NULL: it is built in, or unknown. */
static const char *dep_line(const struct modules *m, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = m->deps; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
		size_t path = strcspn(p, ":\n");

		if (path > len + 3 && !strncmp(p + path - len - 3, name, len) &&
		    p[path - len - 4] == '/' && !strncmp(p + path - 3, ".ko", 3))
			return p;
	}
	return NULL;
}

static int add_module_file(struct modules *m, const char *path, size_t len)
{
	char from[512], name[256], word[260];
	const char *slash = memrchr(path, '/', len);
	size_t base = slash ? (size_t)(slash + 1 - path) : 0, used;

	snprintf(name, sizeof(name), "%.*s", (int)(len - base), path + base);
	snprintf(word, sizeof(word), " %s ", name);
	if (strstr(m->loaded, word))
		return CLI_OK;
	used = strlen(m->loaded);
	if (used + strlen(name) + 2 > sizeof(m->loaded))
		return CLI_FAILED;
	snprintf(m->loaded + used, sizeof(m->loaded) - used, "%s ", name);
	snprintf(from, sizeof(from), "%s/%.*s", m->dir, (int)len, path);
	fprintf(m->conf, "module /%s\n", name);
	return add_file(m->archive, name, from, S_IFREG | 0644);
}

/* A module after those that it needs, which its line lists last first. */
static int add_module(struct modules *m, const char *name)
{
	const char *line = dep_line(m, name), *end, *p;
	int status = CLI_OK;

	if (!line)
		return CLI_OK;
	end = line + strcspn(line, "\n");
	p = line + strcspn(line, ":");
	while (status == CLI_OK && end > p + 1) {
		const char *space = memrchr(p, ' ', (size_t)(end - p));

		if (!space)
			break;
		status = add_module_file(m, space + 1, (size_t)(end - space - 1));
		end = space;
	}
	return status == CLI_OK ? add_module_file(m, line, strcspn(line, ":")) : status;
}

static int load_deps(struct modules *m, const char *kernel)
{
	char release[64], path[160];
	FILE *f;
	size_t n;

	if (kernel_release(release, kernel) != CLI_OK)
		return CLI_FAILED;
	snprintf(m->dir, sizeof(m->dir), MODULES_AT "/%s", release);
	snprintf(path, sizeof(path), "%s/modules.dep", m->dir);
	f = fopen(path, "re");
	m->deps = malloc(1 << 20);
	if (!f || !m->deps) {
		cli_error("%s: %m", path);
		if (f)
			fclose(f);
		return CLI_FAILED;
	}
	n = fread(m->deps, 1, (1 << 20) - 1, f);
	m->deps[n] = '\0';
	fclose(f);
	m->loaded[0] = ' ';
	return CLI_OK;
}

/* ---- the disks ---- */

/* "vg-lv", with the dashes of each doubled. */
static void mapper_name(char out[280], const char *vg, const char *lv)
{
	const char *part[] = { vg, lv };
	size_t n = 0;

	for (unsigned i = 0; i < 2; i++) {
		for (const char *p = part[i]; *p && n < 270; p++) {
			out[n++] = *p;
			if (*p == '-')
				out[n++] = '-';
		}
		if (i == 0)
			out[n++] = '-';
	}
	out[n] = '\0';
}

struct wanted {
	FILE *conf;
	struct vdisk *disk;	/* borrowed */
	const char *by;		/* "UUID=", "LABEL=": which volume is the root; NULL: by name */
	const char *value;
	char name[264];		/* of the root volume */
	bool found;
};

/* A UUID as the device mapper has it: without dashes.  (LVM in the guest knows it by that.) */
static void put_plain(FILE *f, const char *uuid)
{
	for (; *uuid; uuid++)
		if (*uuid != '-')
			fputc(*uuid, f);
}

/* A table for the device mapper; a volume of too many pieces is left out. */
static void write_volume(struct wanted *w, const struct vdisk_volume *v)
{
	char name[280];
	uint64_t size = vdisk_size(v->disk), off = 0;
	AUTO_FREE char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	unsigned pieces = 0;

	mapper_name(name, v->vg->name, v->lv->name);
	while (f && off < size && pieces++ < PIECES_MAX) {
		uint64_t at, run;

		if (vdisk_map_onto(v->disk, w->disk, off, size - off, &at, &run) < 0)
			break;
		fprintf(f, "target %llu %llu /dev/vda %llu\n", (unsigned long long)(off / SECTOR),
			(unsigned long long)(run / SECTOR), (unsigned long long)(at / SECTOR));
		off += run;
	}
	if (f)
		fclose(f);
	if (off < size) {
		cli_note("logical volume %s/%s is left out: User-Mode Linux gets linear ones only",
			 v->vg->name, v->lv->name);
		return;
	}
	fprintf(w->conf, "volume %s LVM-", name);
	put_plain(w->conf, v->vg->uuid);
	put_plain(w->conf, v->lv->uuid);
	fprintf(w->conf, "\n%s", text);
}

static int look_at(void *arg, const struct vdisk_volume *v)
{
	struct wanted *w = arg;
	struct vdisk_probe p;

	if (v->lv)
		write_volume(w, v);
	if (w->by && !w->found && vdisk_probe(v->disk, &p, NULL) == 0 &&
	    !strcasecmp(!strcmp(w->by, "UUID=") ? p.uuid : p.label, w->value)) {
		memcpy(w->name, v->name, sizeof(w->name));
		w->found = true;
	}
	return 0;
}

static void root_device(char out[320], const char *volume)
{
	const char *slash = strchr(volume, '/');
	char vg[264], name[280];

	if (!*volume) {
		snprintf(out, 320, "/dev/vda");
	} else if (!slash) {
		snprintf(out, 320, "/dev/vda%s", volume + 1);
	} else {
		snprintf(vg, sizeof(vg), "%.*s", (int)(slash - volume), volume);
		mapper_name(name, vg, slash + 1);
		snprintf(out, 320, "/dev/mapper/%s", name);
	}
}

/* The last KEY=value word of a command line; false if there is none. */
static bool last_word(char out[256], const char *cmdline, const char *key)
{
	bool found = false;

	for (const char *p = cmdline; p && (p = strstr(p, key)); p += strlen(key)) {
		size_t len = strcspn(p + strlen(key), " ");

		if (p != cmdline && p[-1] != ' ')
			continue;
		if (len >= 256)
			continue;
		snprintf(out, 256, "%.*s", (int)len, p + strlen(key));
		found = true;
	}
	return found;
}

/* Does the command line want the root read-only?  The last word of the two counts. */
static bool wants_ro(const char *cmdline, bool ro)
{
	for (const char *p = cmdline; *p; p += strspn(p, " ")) {
		size_t len = strcspn(p, " ");

		if (len == 2 && (!strncmp(p, "ro", 2) || !strncmp(p, "rw", 2)))
			ro = p[1] == 'o';
		p += len;
	}
	return ro;
}

/* root= of the given command line, else of the guest's own configuration. */
static void configured_root(char out[256], bool *ro, const struct guest *g, struct vdisk *disk)
{
	struct vdisk_boot boot = { .kernel_fd = -1, .initrd_fd = -1 };
	struct vdisk_boot_opts opts = { .size = sizeof(opts) };

	out[0] = '\0';
	*ro = wants_ro(g->cmdline, false);
	if (last_word(out, g->cmdline, "root="))
		return;
	if (vdisk_boot_find(&boot, disk, &opts, NULL) < 0)
		return;
	last_word(out, boot.cmdline, "root=");
	*ro = wants_ro(g->cmdline, wants_ro(boot.cmdline, false));
	vdisk_boot_clear(&boot);
}

static int write_root(struct wanted *w, const struct guest *g)
{
	struct vdisk_error err = { 0 };
	char root[256], device[320];
	bool ro = false;

	configured_root(root, &ro, g, w->disk);
	for (unsigned i = 0; i < 2; i++) {
		static const char *const by[] = { "UUID=", "LABEL=" };

		if (strncmp(root, by[i], strlen(by[i])))
			continue;
		w->by = by[i];
		w->value = root + strlen(by[i]);
		w->value += *w->value == '"';
		root[strcspn(root, "\"")] = *w->value ? root[strcspn(root, "\"")] : '\0';
	}
	if (vdisk_each_volume(w->disk, look_at, w, &err) < 0)
		return cli_fail(&err);
	if (!w->found && !strncmp(root, "/dev/", 5)) {
		snprintf(device, sizeof(device), "%s", root);
	} else {
		if (!w->found && vdisk_root_name(w->name, w->disk, &err) < 0)
			return cli_fail(&err);
		root_device(device, w->name);
	}
	cli_note("root file system: %s", device);
	fprintf(w->conf, "root %s\n", device);
	if (ro || g->disk[0].read_only)
		fprintf(w->conf, "ro\n");
	if (last_word(root, g->cmdline, "init="))
		fprintf(w->conf, "init %s\n", root);
	return CLI_OK;
}

static int write_conf(struct modules *m, const struct guest *g)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct wanted w = { .conf = m->conf };
	int status = add_module(m, "virtio_uml");

	if (status == CLI_OK)
		status = add_module(m, "virtio_blk");
	if (status == CLI_OK && g->n_nics)
		status = add_module(m, "virtio_net");
	if (status == CLI_OK)
		status = add_module(m, "dm-mod");
	if (status != CLI_OK)
		return status;
	if (cli_open_format(&disk, g->disk[0].locator, g->disk[0].format, 0) < 0)
		return CLI_FAILED;
	fprintf(m->conf, "agent /dev/tty%d\nwait /dev/vda\n", GUEST_AGENT_TTY);
	w.disk = disk;
	return write_root(&w, g);
}

static int fill(struct archive *a, const struct guest *g, const char *kernel, const char *init)
{
	static const char *const dirs[] = { "dev", "proc", "sys", "root" };
	AUTO_FREE char *conf = NULL;
	size_t len;
	struct modules m = { .archive = a, .conf = open_memstream(&conf, &len) };
	int status = m.conf ? load_deps(&m, kernel) : CLI_FAILED;

	for (unsigned i = 0; i < ARRAY_SIZE(dirs); i++)
		add_entry(a, dirs[i], S_IFDIR | 0755, 0, NULL, 0);
	/* what init says before it has mounted anything */
	add_entry(a, "dev/console", S_IFCHR | 0600, makedev(5, 1), NULL, 0);
	if (status == CLI_OK)
		status = add_file(a, "init", init, S_IFREG | 0755);
	if (status == CLI_OK)
		status = write_conf(&m, g);
	free(m.deps);
	if (m.conf)
		fclose(m.conf);
	if (status == CLI_OK)
		add_entry(a, "conf", S_IFREG | 0644, 0, conf, len);
	add_entry(a, "TRAILER!!!", 0, 0, NULL, 0);
	return status;
}

int uml_initramfs(int *out, const struct guest *g)
{
	AUTO_CLOSE int fd = memfd_create("initramfs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	AUTO_FREE char *init = NULL, *kernel = NULL;
	struct archive a = { 0 };
	int status;

	if (uml_kernel(&kernel) != CLI_OK || cli_sibling(&init, "vdisk-uml-init") != CLI_OK)
		return CLI_FAILED;
	a.f = fd < 0 ? NULL : fdopen(dup(fd), "we");
	if (!a.f) {
		cli_error("initramfs: %m");
		return CLI_FAILED;
	}
	status = fill(&a, g, kernel, init);
	if (fclose(a.f) || a.failed) {
		cli_error("initramfs: no memory");
		return CLI_FAILED;
	}
	if (status == CLI_OK)
		*out = STEAL_FD(fd);
	return status;
}
