/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uki.c - unified kernel images (UAPI specification "Unified Kernel Image")
 *
 * A PE program for the firmware, with the kernel in its section .linux, the
 * initrd in .initrd, early microcode in .ucode, and texts: .cmdline, .osrel (an
 * os-release), .uname (the version).  Programs beside it, in IMAGE.extra.d/,
 * add to the command line.  Of an image with several profiles, what comes
 * before the first and in the first counts.
 */
#include <errno.h>
#include <stdio.h>

#include "guest/bootcfg.h"
#include "guest/pe.h"

enum { TEXT_MAX = 65536 };

struct uki {
	struct pe_section kernel, initrd, ucode, cmdline, osrel, uname; /* len 0: not there */
};

static int read_headers(struct pe *pe, struct arena *a, const struct boot_env *env,
			const struct boot_file *f)
{
	uint8_t *head = arena_alloc(a, PE_HEAD_MAX);
	uint64_t size;
	ssize_t n;

	if (env->stat(env->arg, f->volume, f->path, &size) != 0)
		return -ENOENT;
	n = env->read(env->arg, f->volume, f->path, 0, head, PE_HEAD_MAX);
	return n < 0 ? (int)n : pe_decode(pe, head, (size_t)n, size);
}

static void sort_out(struct uki *out, const struct pe *pe)
{
	const struct { const char *name; struct pe_section *to; } wanted[] = {
		{ ".linux", &out->kernel }, { ".initrd", &out->initrd }, { ".ucode", &out->ucode },
		{ ".cmdline", &out->cmdline }, { ".osrel", &out->osrel }, { ".uname", &out->uname },
	};
	unsigned profiles = 0, i, k;

	*out = (struct uki) { .kernel.len = 0 };
	for (i = 0; i < pe->n && profiles <= 1; i++) {
		profiles += !strcmp(pe->section[i].name, ".profile");
		for (k = 0; k < ARRAY_SIZE(wanted) && profiles <= 1; k++)
			if (!strcmp(pe->section[i].name, wanted[k].name))
				*wanted[k].to = pe->section[i];
	}
}

/* A section as a text, without what pads its end; "" if it is not there. */
static char *section_text(struct arena *a, const struct boot_env *env, const struct boot_file *f,
			  const struct pe_section *s)
{
	size_t len = (size_t)MIN(s->len, (uint64_t)TEXT_MAX);
	char *text = arena_alloc(a, len + 1);
	ssize_t n = 0;

	if (len)
		n = env->read(env->arg, f->volume, f->path, s->off, text, len);
	text[MAX(n, (ssize_t)0)] = '\0';
	len = strlen(text);
	while (len && strchr(" \t\r\n", text[len - 1]))
		text[--len] = '\0';
	return text;
}

static const char *one_line(char *text)
{
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '\r' || *p == '\t')
			*p = ' ';
	return text;
}

/* PRETTY_NAME of an os-release. */
static const char *pretty_name(struct arena *a, const char *osrel)
{
	struct boot_line line;
	size_t len;

	while (boot_next_line(&line, a, &osrel, "=")) {
		if (strcmp(line.key, "PRETTY_NAME") != 0)
			continue;
		len = strlen(line.value);
		if (len >= 2 && strchr("\"'", line.value[0]) && line.value[len - 1] == line.value[0])
			return arena_strndup(a, line.value + 1, len - 2);
		return line.value;
	}
	return "";
}

static bool is_addon(const char *name)
{
	size_t len = strlen(name), end = strlen(".addon.efi");

	return len > end && len < 256 && !strcmp(name + len - end, ".addon.efi");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *with_addons(struct arena *a, const struct boot_env *env,
			       const struct boot_file *f, const char *cmdline)
{
	const char *dir = arena_printf(a, "%s.extra.d", f->path), **names;
	struct boot_file addon = { .volume = f->volume };
	struct uki u;
	struct pe pe;
	int n = boot_list(a, env, f->volume, dir, is_addon, &names);

	if (n > 0)
		qsort(names, (size_t)n, sizeof(*names), by_name);
	for (int i = 0; i < n; i++) {
		addon.path = arena_printf(a, "%s/%s", dir, names[i]);
		if (read_headers(&pe, a, env, &addon) < 0)
			continue;
		sort_out(&u, &pe);
		if (u.cmdline.len)
			cmdline = arena_printf(a, "%s%s%s", cmdline, *cmdline ? " " : "",
					       one_line(section_text(a, env, &addon, &u.cmdline)));
	}
	return cmdline;
}

static struct boot_file part_of(const struct boot_file *f, const struct pe_section *s)
{
	return (struct boot_file) { f->volume, f->path, s->off, s->len };
}

int uki_read(struct bls_entry *e, struct arena *a, const struct boot_env *env,
	     struct boot_file file)
{
	const char *name;
	struct uki u;
	struct pe pe;
	int r = read_headers(&pe, a, env, &file);

	if (r < 0)
		return r;
	sort_out(&u, &pe);
	if (pe.machine != PE_MACHINE_X86_64 || !u.kernel.len)
		return -EMEDIUMTYPE;
	e->boot.kernel = part_of(&file, &u.kernel);
	e->boot.initrd = arena_array(a, 2, sizeof(*e->boot.initrd));
	e->boot.n_initrd = 0;
	if (u.ucode.len)
		e->boot.initrd[e->boot.n_initrd++] = part_of(&file, &u.ucode);
	if (u.initrd.len)
		e->boot.initrd[e->boot.n_initrd++] = part_of(&file, &u.initrd);
	if (!*e->boot.cmdline)
		e->boot.cmdline = one_line(section_text(a, env, &file, &u.cmdline));
	e->boot.cmdline = with_addons(a, env, &file, e->boot.cmdline);
	if (!*e->version)
		e->version = one_line(section_text(a, env, &file, &u.uname));
	name = pretty_name(a, section_text(a, env, &file, &u.osrel));
	if (*name && (!*e->boot.title || e->boot.title == e->boot.id))
		e->boot.title = name;
	return 0;
}
