/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmfile_xen.c - configuration files of Xen's xm and xl (xl.cfg(5))
 *
 * They look like Python, of which assignments of strings, numbers and lists
 * of strings are read; anything else is refused, because nothing here runs
 * Python.  Keys that have no meaning for us are named in a note and left out.
 *
 * A disk is "target,format,vdev,access", with places that may be empty or
 * written as key=value (xl-disk-configuration(5)), or has one of the old prefixes
 * (phy:, file:, tap:qcow2:, ...), behind which the format has no place of its own.
 */
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#include "cli/vmfile.h"

struct xen {
	struct vmfile_reader *r;
	const char *root, *extra, *cmdline;
	const char *ignored;	/* keys, for the note */
	bool own_boot;		/* a boot loader for the guest's own disk was named */
};

/* ---- the syntax ---- */

static void skip_space(struct vmfile_reader *r, bool lines)
{
	for (; *r->p; r->p++) {
		if (*r->p == '#') {
			r->p += strcspn(r->p, "\n");
			if (!*r->p)
				return;
		}
		if (*r->p == '\\' && r->p[1] == '\n') {
			r->p++;
			r->line++;
			continue;
		}
		if (*r->p == '\n' && lines)
			r->line++;
		else if (!strchr(" \t\r", *r->p))
			return;
	}
}

static const char *read_quoted(struct vmfile_reader *r)
{
	char quote = *r->p++, *out = arena_alloc(&r->v->arena, strcspn(r->p, "\n") + 1), *to = out;

	for (; *r->p && *r->p != quote && *r->p != '\n'; r->p++) {
		if (*r->p == '\\' && r->p[1] && strchr("\\'\"", r->p[1]))
			r->p++;
		*to++ = *r->p;
	}
	if (*r->p != quote)
		vmfile_wrong(r, "a string has no end");
	r->p++;
	return out;
}

/* One string or number; NULL if there is none. */
static const char *read_scalar(struct vmfile_reader *r)
{
	const char *start = r->p;

	if (*r->p == '\'' || *r->p == '"')
		return read_quoted(r);
	while (isalnum((unsigned char)*r->p) || *r->p == '_' || *r->p == '.')
		r->p++;
	if (r->p == start)
		return NULL;
	return arena_strndup(&r->v->arena, start, (size_t)(r->p - start));
}

struct values {
	const char **v;
	unsigned n, cap;
};

static void add_value(struct vmfile_reader *r, struct values *out, const char *text)
{
	arena_grow(&r->v->arena, out->v, out->n, out->cap);
	out->v[out->n++] = text;
}

static void read_list(struct vmfile_reader *r, struct values *out)
{
	char close = *r->p++ == '[' ? ']' : ')';
	const char *text;

	for (;;) {
		skip_space(r, true);
		if (*r->p == close)
			break;
		text = read_scalar(r);
		if (!text)
			vmfile_wrong(r, "a list has no end, or something in it that is not a string");
		add_value(r, out, text);
		skip_space(r, true);
		if (*r->p == ',')
			r->p++;
		else if (!*r->p)
			vmfile_wrong(r, "a list has no end");
		else if (*r->p != close)
			vmfile_wrong(r, "no ',' between the elements of a list");
	}
	r->p++;
}

/* A string, a number, or a list of them. */
static struct values read_value(struct vmfile_reader *r, const char *key)
{
	struct values out = { .n = 0 };
	const char *text;

	skip_space(r, false);
	if (*r->p == '[' || *r->p == '(') {
		read_list(r, &out);
	} else {
		text = read_scalar(r);
		if (!text)
			vmfile_wrong(r, "'%.64s' has no value", key);
		add_value(r, &out, text);
	}
	skip_space(r, false);
	if (*r->p == ';')
		r->p++;
	else if (*r->p && *r->p != '\n')
		vmfile_wrong(r, "'%.64s' is more than a string, a number or a list of strings (Python is "
			     "not run)", key);
	return out;
}

/* ---- disks ---- */

static bool any_of(const char *word, const char *const *list)
{
	for (; *list; list++)
		if (!strcasecmp(word, *list))
			return true;
	return false;
}

static bool is_format(const char *word)
{
	static const char *const formats[] = { "raw", "qcow", "qcow2", "qed", "vhd", "vhdx", "vmdk",
					       "vdi", NULL };

	return any_of(word, formats);
}

static bool is_access(const char *word)
{
	static const char *const words[] = { "r", "ro", "w", "rw", "w!", "r!", NULL };

	return any_of(word, words);
}

/* "xvda", "hdc", "sda1": the letters and the partition behind a prefix */
static bool is_vdev(const char *word)
{
	static const char *const prefixes[] = { "xvd", "hd", "sd", "vd" };

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t len = strlen(prefixes[i]);
		const char *p = word + len;

		if (strncmp(word, prefixes[i], len) != 0 || !islower((unsigned char)*p))
			continue;
		while (islower((unsigned char)*p))
			p++;
		while (isdigit((unsigned char)*p))
			p++;
		return !*p;
	}
	return false;
}

struct spec {
	const char *target, *format, *vdev, *access;
	bool cdrom;
};

/* Old prefixes, one behind the other: "tap:qcow2:/x", "file:/x". */
static const char *strip_prefixes(struct vmfile_reader *r, struct spec *s, const char *text)
{
	static const char *const plain[] = { "phy", "file", "tap", "tap2", "tapdisk", "aio", "ioemu",
					     NULL };
	const char *colon, *word;

	while ((colon = strchr(text, ':')) && text[0] != '/') {
		word = arena_strndup(&r->v->arena, text, (size_t)(colon - text));
		if (is_format(word))
			s->format = word;
		else if (!any_of(word, plain))
			break;
		text = colon + 1;
	}
	return text;
}

/* "hda:cdrom", "ioemu:hda" */
static const char *clean_vdev(struct vmfile_reader *r, struct spec *s, const char *word)
{
	const char *colon;

	if (!strncmp(word, "ioemu:", 6))
		word += 6;
	colon = strchr(word, ':');
	if (!colon)
		return word;
	s->cdrom |= !strcasecmp(colon + 1, "cdrom");
	return arena_strndup(&r->v->arena, word, (size_t)(colon - word));
}

/* A word without "key=": what it is shows by its place and its look. */
static void take_word(struct vmfile_reader *r, struct spec *s, const char *word, unsigned place)
{
	const char *vdev = clean_vdev(r, s, word);

	if (place == 0)
		s->target = strip_prefixes(r, s, word);
	else if (is_vdev(vdev))
		s->vdev = vdev;
	else if (is_access(word))
		s->access = word;
	else if (is_format(word))
		s->format = word;
	else if (!strcasecmp(word, "cdrom"))
		s->cdrom = true;
	else if (strcasecmp(word, "discard") && strcasecmp(word, "no-discard") &&
		 strcasecmp(word, "direct-io-safe"))
		vmfile_note(r, "line %u: '%.64s' of a disk is left out", r->line, word);
}

static bool key_is(const char *word, const char *key, const char **value)
{
	size_t len = strlen(key);

	if (strncasecmp(word, key, len) != 0 || word[len] != '=')
		return false;
	*value = word + len + 1;
	return true;
}

/* 0: not "key=value" at all; 1: taken; 2: target, which the rest of the text belongs to */
static int take_key(struct vmfile_reader *r, struct spec *s, const char *word)
{
	const char *value;

	if (key_is(word, "target", &value))
		return 2;
	if (key_is(word, "format", &value))
		s->format = value;
	else if (key_is(word, "vdev", &value))
		s->vdev = clean_vdev(r, s, value);
	else if (key_is(word, "access", &value))
		s->access = value;
	else if (key_is(word, "devtype", &value))
		s->cdrom |= !strcasecmp(value, "cdrom");
	else if (key_is(word, "script", &value) || key_is(word, "backend", &value))
		vmfile_wrong(r, "a disk's '%.64s' cannot be had here", word);
	else if (!key_is(word, "backendtype", &value))
		return 0;
	return 1;
}

static const char *trimmed(struct arena *a, const char *text, size_t len)
{
	while (len && strchr(" \t", text[len - 1]))
		len--;
	return arena_strndup(a, text, len);
}

static struct spec parse_disk(struct vmfile_reader *r, const char *text)
{
	struct arena *a = &r->v->arena;
	struct spec s = { .target = NULL };
	unsigned place = 0;
	const char *word;
	size_t len;
	int taken;

	for (;; text++) {
		text += strspn(text, " \t");
		len = strcspn(text, ",");
		word = trimmed(a, text, len);
		taken = take_key(r, &s, word);
		if (taken == 2) {
			s.target = strip_prefixes(r, &s, text + strlen("target="));
			break;
		}
		if (!taken && *word)
			take_word(r, &s, word, place);
		place += !taken;
		text += len;
		if (!*text)
			break;
	}
	return s;
}

static void add_disk(struct vmfile_reader *r, const char *text)
{
	struct spec s = parse_disk(r, text);
	struct guest_disk *d;

	if (!s.target || !*s.target) {
		if (!s.cdrom)
			vmfile_wrong(r, "the disk '%.128s' has no target", text);
		vmfile_note(r, "line %u: a drive without a medium is left out", r->line);
		return;
	}
	d = vmfile_add_disk(r);
	d->locator = vmfile_path(r, s.target);
	d->format = s.format;
	d->old_name = s.vdev && is_vdev(s.vdev) ? s.vdev : NULL;
	d->read_only = s.cdrom || (s.access && (s.access[0] == 'r' && s.access[1] != 'w'));
	/* CD images were never anything but raw */
	if (s.cdrom && !d->format)
		d->format = "raw";
}

/* ---- keys ---- */

static const char *on_event(struct vmfile_reader *r, const char *key, const char *action)
{
	bool again = !strcmp(action, "restart") || !strcmp(action, "coredump-restart") ||
		!strcmp(action, "rename-restart");

	if (!again && strcmp(action, "destroy") != 0)
		vmfile_note(r, "%s: '%.64s' is taken as 'destroy'", key, action);
	else if (!strcmp(action, "rename-restart"))
		vmfile_note(r, "%s: 'rename-restart' is taken as 'restart'", key);
	return again ? "reset" : "exit";
}

/* A kernel that only is there to find the guest's own. */
static bool is_boot_loader(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	return !strncmp(name, "pv-grub", 7) || !strncmp(name, "pvgrub", 6) ||
	       !strncmp(name, "grub-", 5) || !strncmp(name, "hvmloader", 9);
}

static void set_kernel(struct xen *x, const char *path)
{
	if (is_boot_loader(path))
		x->own_boot = true;
	else
		x->r->v->kernel = vmfile_path(x->r, path);
}

/* pygrub's --entry; the rest was about its menu. */
static void set_loader_args(struct xen *x, const struct values *v)
{
	for (unsigned i = 0; i < v->n; i++) {
		const char *p = v->v[i], *word;

		while (*(p += strspn(p, " \t"))) {
			word = arena_strndup(&x->r->v->arena, p, strcspn(p, " \t"));
			p += strlen(word);
			if (!strncmp(word, "--entry=", 8))
				x->r->v->entry = word + 8;
			else
				vmfile_note(x->r, "bootloader_args: '%.64s' is left out", word);
		}
	}
}

static void ignore(struct xen *x, const char *key)
{
	x->ignored = x->ignored ? arena_printf(&x->r->v->arena, "%s, %s", x->ignored, key) : key;
}

/* An element of vif: a network card in a bridge of this host's (xl-network-configuration(5)). */
static void add_vif(struct xen *x, const char *text)
{
	struct arena *a = &x->r->v->arena;
	const char *mac = NULL, *bridge = "xenbr0", *word;
	size_t len;

	for (;; text++) {
		text += strspn(text, " \t");
		len = strcspn(text, ",");
		word = trimmed(a, text, len);
		if (!key_is(word, "mac", &mac) && !key_is(word, "bridge", &bridge) && *word &&
		    strncmp(word, "type=", 5) != 0 && strncmp(word, "model=", 6) != 0)
			vmfile_note(x->r, "vif: '%.64s' is left out", word);
		text += len;
		if (!*text)
			break;
	}
	vmfile_add_net(x->r, arena_printf(a, "bridge:%s%s%s", bridge, mac ? ",mac=" : "",
					  mac ? mac : ""));
}

static void set_list(struct xen *x, const char *key, const struct values *v)
{
	if (!strcmp(key, "disk")) {
		for (unsigned i = 0; i < v->n; i++)
			add_disk(x->r, v->v[i]);
	} else if (!strcmp(key, "bootloader_args")) {
		set_loader_args(x, v);
	} else if (!strcmp(key, "vif")) {
		for (unsigned i = 0; i < v->n; i++)
			add_vif(x, v->v[i]);
	} else if (v->n) {
		ignore(x, key);
	}
}

/* What makes no difference to a guest that runs here. */
static bool is_silent(const char *key)
{
	static const char *const keys[] = {
		"builder", "type", "uuid", "maxmem", "maxvcpus", "boot", "acpi", "apic", "pae", "hap",
		"serial", "localtime", "rtc_timeoffset", "xen_platform_pci", "viridian", "vnc", "sdl",
		"stdvga", "nographic", "firmware", "cpus", "cpu_weight", "cpu_cap", NULL,
	};

	return any_of(key, keys);
}

static void set_number(struct vmfile_reader *r, const char **to, const char *key, const char *text)
{
	if (!*text || strspn(text, "0123456789") != strlen(text))
		vmfile_wrong(r, "'%s' is a number, not '%.64s'", key, text);
	vmfile_set(r, to, text);
}

static void set_string(struct xen *x, const char *key, const char *value)
{
	struct vmfile *v = x->r->v;

	if (!strcmp(key, "name"))
		vmfile_set(x->r, &v->name, value);
	else if (!strcmp(key, "memory"))
		set_number(x->r, &v->memory, key, value);
	else if (!strcmp(key, "vcpus"))
		set_number(x->r, &v->cpus, key, value);
	else if (!strcmp(key, "kernel"))
		set_kernel(x, value);
	else if (!strcmp(key, "ramdisk"))
		v->initrd = vmfile_path(x->r, value);
	else if (!strcmp(key, "root"))
		x->root = value;
	else if (!strcmp(key, "extra"))
		x->extra = value;
	else if (!strcmp(key, "cmdline"))
		x->cmdline = value;
	else if (!strcmp(key, "bootloader"))
		x->own_boot = true;
	else if (!strcmp(key, "on_poweroff") || !strcmp(key, "on_shutdown"))
		v->on_shutdown = on_event(x->r, key, value);
	else if (!strcmp(key, "on_reboot"))
		v->on_reset = on_event(x->r, key, value);
	else if (!strcmp(key, "on_crash"))
		v->on_crash = on_event(x->r, key, value);
	else if (!is_silent(key))
		ignore(x, key);
}

static void finish(struct xen *x)
{
	struct vmfile *v = x->r->v;
	const char *extra = x->extra ? x->extra : "";

	if (v->kernel && x->own_boot) {
		vmfile_note(x->r, "a boot loader is named: the guest's own kernel is booted, not %.200s",
			    v->kernel);
		v->kernel = v->initrd = NULL;
	}
	if (x->cmdline)
		v->append = x->cmdline;
	else if (x->root)
		v->append = arena_printf(&v->arena, "root=%s%s%s", x->root, *extra ? " " : "", extra);
	else
		v->append = x->extra;
	if (x->ignored)
		vmfile_note(x->r, "not supported, left out: %.400s", x->ignored);
}

void vmfile_read_xen(struct vmfile_reader *r)
{
	struct xen x = { .r = r };

	for (;;) {
		const char *key;
		struct values v;
		bool list;
		size_t len;

		skip_space(r, true);
		if (*r->p == ';') {
			r->p++;
			continue;
		}
		if (!*r->p)
			break;
		for (len = 0; isalnum((unsigned char)r->p[len]) || r->p[len] == '_'; len++)
			;
		key = arena_strndup(&r->v->arena, r->p, len);
		r->p += len;
		skip_space(r, false);
		if (*r->p == '+' && r->p[1] == '=')
			r->p++;
		if (!len || *r->p != '=' || r->p[1] == '=')
			vmfile_wrong(r, "not an assignment (Python is not run)");
		r->p++;
		skip_space(r, false);
		list = *r->p == '[' || *r->p == '(' || !strcmp(key, "disk") ||
			!strcmp(key, "bootloader_args") || !strcmp(key, "vif");
		v = read_value(r, key);
		if (list)
			set_list(&x, key, &v);
		else
			set_string(&x, key, v.v[0]);
	}
	finish(&x);
}
