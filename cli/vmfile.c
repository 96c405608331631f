/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmfile.c - see vmfile.h; the format of our own */
#include "cli/vmfile.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/driver.h"

/* ---- shared with vmfile_xen.c ---- */

void vmfile_wrong(struct vmfile_reader *r, const char *fmt, ...)
{
	char text[384];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	vd_fail(r->err, EINVAL, "%s:%u: %s", r->file, r->line, text);
	arena_stop(&r->v->arena, -EINVAL);
}

void vmfile_note(struct vmfile_reader *r, const char *fmt, ...)
{
	struct vmfile *v = r->v;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	arena_grow(&v->arena, v->notes, v->n_notes, v->cap_notes);
	v->notes[v->n_notes++] = arena_strdup(&v->arena, text);
}

const char *vmfile_path(struct vmfile_reader *r, const char *path)
{
	size_t scheme = strspn(path, "abcdefghijklmnopqrstuvwxyz0123456789+");

	if (*path == '/' || !*path || !*r->dir || (scheme && path[scheme] == ':'))
		return path;
	return arena_printf(&r->v->arena, "%s%s", r->dir, path);
}

void vmfile_set(struct vmfile_reader *r, const char **to, const char *text)
{
	struct vmfile *v = r->v;
	struct vdisk_error why;
	uint64_t memory;
	unsigned n;

	if (to == &v->memory && words_memory(text, &memory) < 0)
		vmfile_wrong(r, "memory is " words_memory_help ", not '%.40s'", text);
	if (to == &v->cpus && words_number(text, 1, CPUS_MAX, &n) < 0)
		vmfile_wrong(r, "a guest has " words_cpus_help ", not '%.40s'", text);
	if (to == &v->time_limit && words_number(text, 1, TIME_LIMIT_MAX, &n) < 0)
		vmfile_wrong(r, "time-limit is a number of seconds, not '%.40s'", text);
	if (to == &v->name && vmfile_check_name(text, &why) < 0)
		vmfile_wrong(r, "%s", why.msg);
	*to = text;
}

struct guest_disk *vmfile_add_disk(struct vmfile_reader *r)
{
	if (r->v->n_disks == VMFILE_DISKS)
		vmfile_wrong(r, "more than %d disks", VMFILE_DISKS);
	return &r->v->disk[r->v->n_disks++];
}

void vmfile_add_net(struct vmfile_reader *r, const char *option)
{
	if (r->v->n_nets == VMFILE_NETS)
		vmfile_wrong(r, "more than %d network cards", VMFILE_NETS);
	r->v->net[r->v->n_nets++] = option;
}

static bool name_char(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_';
}

int vmfile_check_name(const char *name, struct vdisk_error *err)
{
	char better[64];
	size_t n = 0;

	while (name_char(name[n]))
		n++;
	if (n && n <= 60 && !name[n] && isalnum((unsigned char)*name))
		return 0;
	for (n = 0; n < sizeof(better) - 1 && name[n]; n++)
		better[n] = name_char(name[n]) ? name[n] : '-';
	better[n] = '\0';
	if (!n || !isalnum((unsigned char)better[0]))
		return vd_fail(err, EINVAL, "the name '%.64s' does not begin with a letter or digit", name);
	return vd_fail(err, EINVAL, "the name '%.64s' is not up to 60 letters, digits, '-' and '_'%s: "
		       "'%s' would do", name, strchr(name, '.') ? " (no dots)" : "", better);
}

/* ---- our own format ---- */

/* A word, in double quotes where it has spaces; NULL at the end of the line. */
static const char *next_word(struct vmfile_reader *r)
{
	const char *start, *end;

	r->p += strspn(r->p, " \t\r");
	if (*r->p == '#')
		r->p += strcspn(r->p, "\n");
	if (!*r->p || *r->p == '\n')
		return NULL;
	if (*r->p == '"') {
		start = r->p + 1;
		end = start + strcspn(start, "\"\n");
		if (*end != '"')
			vmfile_wrong(r, "a \" has no end");
		r->p = end + 1;
	} else {
		start = r->p;
		end = start + strcspn(start, " \t\r\n");
		r->p = end;
	}
	return arena_strndup(&r->v->arena, start, (size_t)(end - start));
}

static const char *value(struct vmfile_reader *r, const char *key)
{
	const char *word = next_word(r);

	if (!word)
		vmfile_wrong(r, "'%.64s' needs a value", key);
	return word;
}

/* What is left of the line, as it stands. */
static const char *rest(struct vmfile_reader *r, const char *key)
{
	const char *start, *end;

	(void)key;
	r->p += strspn(r->p, " \t\r");
	start = r->p;
	r->p += strcspn(r->p, "\n");
	for (end = r->p; end > start && strchr(" \t\r", end[-1]); end--)
		;
	return arena_strndup(&r->v->arena, start, (size_t)(end - start));
}

static void read_disk(struct vmfile_reader *r)
{
	struct guest_disk *d = vmfile_add_disk(r);
	struct vdisk_error why;
	const char *word;

	d->locator = vmfile_path(r, value(r, "disk"));
	while ((word = next_word(r)))
		if (guest_disk_word(d, word, &why) < 0)
			vmfile_wrong(r, "%s", why.msg);
	if (guest_disk_check(d, &why) < 0)
		vmfile_wrong(r, "%s", why.msg);
}

static const char *read_end(struct vmfile_reader *r, const char *key)
{
	const char *word = value(r, key);
	struct end_action a;

	if (words_end(word, &a) < 0)
		vmfile_wrong(r, "'%s' is " words_end_help ", not '%.64s'", key, word);
	return word;
}

static void read_net(struct vmfile_reader *r)
{
	const char *word = value(r, "net");
	struct net_words w;

	if (words_net(word, &w) < 0)
		vmfile_wrong(r, "'net' is " words_net_help ", not '%.64s'", word);
	vmfile_add_net(r, word);
}

/* One of a few words. */
static const char *choice(struct vmfile_reader *r, const char *key, const char *const *words)
{
	const char *word = value(r, key), *all = words[0];

	for (unsigned i = 0; words[i]; i++)
		if (!strcmp(word, words[i]))
			return word;
	for (unsigned i = 1; words[i]; i++)
		all = arena_printf(&r->v->arena, "%s%s%s", all, words[i + 1] ? ", " : " or ",
				   words[i]);
	vmfile_wrong(r, "'%s' is %s, not '%.64s'", key, all, word);
}

static const char *read_console(struct vmfile_reader *r, const char *key)
{
	return choice(r, key, (const char *const[]) { "serial", "virtio", "keep", NULL });
}

static const char *read_engine(struct vmfile_reader *r, const char *key)
{
	return choice(r, key, (const char *const[]) { "kvm", "uml", NULL });
}

static const char *read_path(struct vmfile_reader *r, const char *key)
{
	return vmfile_path(r, value(r, key));
}

static void read_key(struct vmfile_reader *r, const char *key)
{
	struct vmfile *v = r->v;
	const struct {
		const char *key, **to;
		const char *(*read)(struct vmfile_reader *r, const char *key);
	} keys[] = {
		{ "name", &v->name, value }, { "memory", &v->memory, value },
		{ "cpus", &v->cpus, value }, { "entry", &v->entry, value },
		{ "time-limit", &v->time_limit, value },
		{ "kernel", &v->kernel, read_path }, { "initrd", &v->initrd, read_path },
		{ "append", &v->append, rest },
		{ "console", &v->console, read_console }, { "engine", &v->engine, read_engine },
		{ "on-shutdown", &v->on_shutdown, read_end },
		{ "on-reset", &v->on_reset, read_end }, { "on-crash", &v->on_crash, read_end },
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(key, keys[i].key) != 0)
			continue;
		if (*keys[i].to)
			vmfile_wrong(r, "'%s' is there a second time", key);
		vmfile_set(r, keys[i].to, keys[i].read(r, key));
		return;
	}
	if (!strcmp(key, "disk"))
		read_disk(r);
	else if (!strcmp(key, "net"))
		read_net(r);
	else if (!strcmp(key, "recovery"))
		v->recovery = true;
	else
		vmfile_wrong(r, "unknown key '%.64s'; see vdisk-vm(5)", key);
}

static void read_own(struct vmfile_reader *r)
{
	const char *key;

	for (; *r->p; r->p++, r->line++) {
		key = next_word(r);
		if (key)
			read_key(r, key);
		if (next_word(r))
			vmfile_wrong(r, "something follows the value of '%.64s'", key);
		if (!*r->p)
			break;
	}
}

/* ---- both ---- */

/* Xen's files are assignments: "key = value"; xm's were Python, which had more. */
static bool looks_like_xen(const char *p)
{
	static const char *const python[] = { "import", "from", "def" };
	const char *word;

	for (;;) {
		p += strspn(p, " \t\r\n;");
		if (*p != '#')
			break;
		p += strcspn(p, "\n");
	}
	word = p;
	p += strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
	for (size_t i = 0; i < ARRAY_SIZE(python); i++)
		if ((size_t)(p - word) == strlen(python[i]) && !strncmp(word, python[i], (size_t)(p - word)))
			return true;
	p += strspn(p, " \t");
	return *p == '=' || (*p == '+' && p[1] == '=');
}

static void check(struct vmfile_reader *r)
{
	struct vmfile *v = r->v;

	r->line = MAX(r->line, 1u);
	if (!v->n_disks && !v->kernel)
		vmfile_wrong(r, "no disk, and no kernel either");
	if (v->kernel && (v->entry || v->recovery))
		vmfile_wrong(r, "an entry of the guest's boot menu and a kernel of this host's");
	if (v->initrd && !v->kernel)
		vmfile_note(r, "the initrd goes with the guest's own kernel");
}

static void read_all(void *arg)
{
	struct vmfile_reader *r = arg;
	const char *slash = strrchr(r->file, '/');

	r->dir = slash ? arena_strndup(&r->v->arena, r->file, (size_t)(slash - r->file) + 1) : "";
	r->v->xen = looks_like_xen(r->p);
	if (r->v->xen)
		vmfile_read_xen(r);
	else
		read_own(r);
	check(r);
}

int vmfile_parse(struct vmfile *out, const char *file, const char *text, struct vdisk_error *err)
{
	struct vdisk_error why = { 0 };
	struct vmfile_reader r = { .v = out, .file = file, .p = text, .line = 1, .err = &why };
	int result;

	memset(out, 0, sizeof(*out));
	arena_init(&out->arena, VMFILE_MEMORY);
	result = arena_run(&out->arena, read_all, &r);
	if (result == 0)
		return 0;
	arena_free(&out->arena);
	return why.msg[0] ? vd_fail(err, EINVAL, "%s", why.msg) :
			    vd_fail(err, -result, "%s: %s", file, strerror(-result));
}

void vmfile_free(struct vmfile *v)
{
	arena_free(&v->arena);
}
