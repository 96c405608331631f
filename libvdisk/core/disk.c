/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.c - opening, stacking and closing disks; which format a file has
 *
 * A format is probed only where nobody stated it.  What probing finds is the
 * format of this open only: a disk that was opened as raw stays raw whatever a
 * guest writes into it, because nothing is ever probed again, and an image
 * whose header states the format of its backing file is believed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/engine.h"

/* ---- life and death ---- */

struct vdisk *vd_disk_new(const struct vd_driver *drv, const char *name, uint64_t size)
{
	struct vdisk *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->name = strdup(name);
	if (!d->name) {
		free(d);
		return NULL;
	}
	d->drv = drv;
	d->size = size;
	d->block_size = 512;
	d->fd = -1;
	d->users = 1;
	pthread_mutex_init(&d->ctl_lock, NULL);
	pthread_mutex_init(&d->alloc_lock, NULL);
	pthread_mutex_init(&d->flight_lock, NULL);
	pthread_cond_init(&d->flight_cond, NULL);
	return d;
}

/* Free a disk whose driver has nothing open in it. */
void vd_disk_free(struct vdisk *d)
{
	if (!d)
		return;
	vdisk_close(d->backing, NULL);
	vdisk_close(d->data, NULL);
	for (unsigned i = 0; i < d->n_others; i++)
		vdisk_close(d->others[i], NULL);
	free(d->others);
	vdisk_close(d->file, NULL);
	vd_decoded_free(d);
	if (d->fd >= 0)
		close(d->fd);
	free(d->name);
	free(d->backing_name);
	free(d->backing_format);
	pthread_mutex_destroy(&d->ctl_lock);
	pthread_mutex_destroy(&d->alloc_lock);
	pthread_mutex_destroy(&d->flight_lock);
	pthread_cond_destroy(&d->flight_cond);
	free(d);
}

int vd_keep_other(struct vdisk *d, struct vdisk *other)
{
	struct vdisk **more = reallocarray(d->others, d->n_others + 1, sizeof(struct vdisk *));

	if (!more) {
		vdisk_close(other, NULL);
		return -ENOMEM;
	}
	d->others = more;
	d->others[d->n_others++] = other;
	return 0;
}

struct vdisk *vdisk_ref(struct vdisk *d)
{
	if (d)
		atomic_fetch_add_explicit(&d->users, 1, memory_order_relaxed);
	return d;
}

static int first_error(int a, int b)
{
	return a < 0 ? a : b;
}

int vdisk_close(struct vdisk *d, struct vdisk_error *err)
{
	int r = 0;

	if (!d || atomic_fetch_sub_explicit(&d->users, 1, memory_order_acq_rel) != 1)
		return 0;
	if (d->drv->close)
		r = d->drv->close(d, err);
	/* children report through the same sentence, the first one wins */
	r = first_error(r, vdisk_close(STEAL(d->backing), r < 0 ? NULL : err));
	r = first_error(r, vdisk_close(STEAL(d->data), r < 0 ? NULL : err));
	while (d->n_others)
		r = first_error(r, vdisk_close(d->others[--d->n_others], r < 0 ? NULL : err));
	r = first_error(r, vdisk_close(STEAL(d->file), r < 0 ? NULL : err));
	for (unsigned i = 0; i < d->n_with; i++)
		r = first_error(r, vdisk_close(d->with[i], r < 0 ? NULL : err));
	free(STEAL(d->with));
	vd_disk_free(d);
	return r;
}

/* ---- what a disk says of itself ---- */

uint64_t vdisk_size(const struct vdisk *d)
{
	return d->size;
}

bool vdisk_writable(const struct vdisk *d)
{
	return d->flags & VDISK_OPEN_WRITE && !d->failed;
}

const char *vdisk_name(const struct vdisk *d)
{
	return d->name;
}

const char *vdisk_format(const struct vdisk *d)
{
	return d->drv->name;
}

struct vdisk *vdisk_backing(const struct vdisk *d)
{
	return d->backing;
}

struct vdisk *vdisk_below(const struct vdisk *d)
{
	return d->file;
}

int vdisk_fd(const struct vdisk *d)
{
	return d->fd;
}

const char *vdisk_backing_name(const struct vdisk *d)
{
	return d->backing_name;
}

const char *vdisk_backing_format(const struct vdisk *d)
{
	return d->backing_format ? d->backing_format : "";
}

void vdisk_get_limits(const struct vdisk *d, struct vdisk_limits *out)
{
	const struct vdisk *bottom = d;
	struct vdisk_limits l = { .block_size = d->block_size };

	while (bottom->file)
		bottom = bottom->file;
	for (const struct vdisk *at = d; at; at = at->file) {
		if (at->unit > l.unit)
			l.unit = at->unit;
		/* a format with units of its own gives space back to itself */
		if (at->unit && at->drv->map) {
			l.can_discard = true;
			l.zero_discard = !at->discard_keeps;
		}
	}
	if (!l.can_discard) {
		l.can_discard = bottom->drv->discard && !bottom->no_discard;
		l.zero_discard = l.can_discard && !bottom->discard_keeps;
	}
	l.physical_size = MAX(l.block_size, 4096u);
	*out = l;
}

/* ---- probing ---- */

#define PROBE_LEN 4096

/* Formats that we know by sight but cannot open: never mistaken for raw. */
static const struct {
	const char *name, *magic;
	uint8_t off, len;
} strangers[] = {
	{ "vdi", "\x7f\x10\xda\xbe", 64, 4 },
	{ "vhdx", "vhdxfile", 0, 8 },
	{ "vhd", "conectix", 0, 8 },
	{ "parallels", "WithoutFreeSpace", 0, 16 },
	{ "parallels", "WithouFreSpacExt", 0, 16 },
	{ "qed", "QED\0", 0, 4 },
};

static const struct vd_driver *format_find(const char *name)
{
	for (unsigned i = 0; vd_formats[i]; i++)
		if (!strcasecmp(vd_formats[i]->name, name))
			return vd_formats[i];
	return NULL;
}

const char *vdisk_format_name(unsigned n)
{
	for (unsigned i = 0; vd_formats[i]; i++)
		if (i == n)
			return vd_formats[i]->name;
	return NULL;
}

const char *vdisk_format_option(const char *format, unsigned n)
{
	const struct vd_driver *drv = format_find(format);

	if (!drv || !drv->options)
		return NULL;
	for (unsigned i = 0; drv->options[i]; i++)
		if (i == n)
			return drv->options[i];
	return NULL;
}

/* NULL: raw, or @stranger. */
static const struct vd_driver *probe(const uint8_t *head, size_t len, uint64_t size,
				     const char **stranger)
{
	const struct vd_driver *best = NULL;
	int score = 0;

	*stranger = NULL;
	for (unsigned i = 0; vd_formats[i]; i++) {
		const struct vd_driver *drv = vd_formats[i];
		int s = drv->probe ? drv->probe(head, len, size) : 0;

		if (s > score) {
			score = s;
			best = drv;
		}
	}
	for (unsigned i = 0; score == 0 && i < ARRAY_SIZE(strangers); i++)
		if (strangers[i].off + strangers[i].len <= len &&
		    !memcmp(head + strangers[i].off, strangers[i].magic, strangers[i].len))
			*stranger = strangers[i].name;
	return best;
}

const char *vdisk_format_of(const void *head, size_t len)
{
	const char *stranger;
	const struct vd_driver *drv = probe(head, len, UINT64_MAX, &stranger);

	return drv && drv != &vd_raw ? drv->name : stranger;
}

static int format_probe(const struct vd_driver **out, struct vdisk *file, struct vdisk_error *err)
{
	uint8_t head[PROBE_LEN] = { 0 };
	size_t len = (size_t)MIN(file->size, (uint64_t)sizeof(head));
	const struct vd_driver *found;
	const char *stranger;
	int r;

	r = vd_pread(file, head, len, 0);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the first %zu bytes: %s", file->name, len,
			       strerror(-r));
	found = probe(head, len, file->size, &stranger);
	if (stranger)
		return vd_fail(err, ENOTSUP, "%s: looks like a %s image, which is not supported; "
			       "if it is a raw disk, say so with --format raw", file->name, stranger);
	*out = found ? found : &vd_raw;
	return 0;
}

static int format_choose(const struct vd_driver **out, struct vdisk *file, const char *format,
			 struct vdisk_error *err)
{
	if (!format)
		return format_probe(out, file, err);
	*out = format_find(format);
	if (!*out)
		return vd_fail(err, ENOTSUP, "%s: unknown image format '%s'", file->name, format);
	return 0;
}

/* ---- opening ---- */

/* Options of any older, smaller size: what is missing is zero. */
static struct vdisk_open_opts opts_normalise(const struct vdisk_open_opts *opts)
{
	struct vdisk_open_opts o = { 0 };

	if (opts)
		memcpy(&o, opts, MIN(opts->size, sizeof(o)));
	o.size = sizeof(o);
	if (o.flags & VDISK_OPEN_SHARE)
		o.flags &= ~(uint32_t)VDISK_OPEN_WRITE;
	return o;
}

/* Open @drv on @file, whose reference it takes over, also on failure. */
static int format_open(struct vdisk **out, const struct vd_driver *drv, struct vdisk *file,
		       const struct vdisk_open_opts *opts, const char *snapshot, unsigned depth,
		       struct vdisk_error *err)
{
	struct vdisk *d = vd_disk_new(drv, file->name, 0);
	struct vd_open_ctx ctx = {
		.disk = d, .opts = opts, .snapshot = snapshot, .depth = depth,
	};
	int r;

	if (!d) {
		vdisk_close(file, NULL);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	d->file = file;
	d->flags = opts->flags;
	if (snapshot || !(file->flags & VDISK_OPEN_WRITE))
		d->flags &= ~(unsigned)VDISK_OPEN_WRITE;
	d->refs = opts->refs;
	d->block_size = opts->block_size ? opts->block_size : file->block_size;
	r = drv->open(&ctx, err);
	if (r < 0) {
		vd_disk_free(d);
		return r;
	}
	*out = d;
	return 0;
}

int vdisk_open_on(struct vdisk **out, struct vdisk *below, const struct vdisk_open_opts *opts,
		  struct vdisk_error *err)
{
	struct vdisk_open_opts o = opts_normalise(opts);
	const struct vd_driver *drv;

	if (!o.format)
		return vd_fail(err, EINVAL, "%s: no format stated", below->name);
	drv = format_find(o.format);
	if (!drv)
		return vd_fail(err, ENOTSUP, "%s: unknown image format '%s'", below->name, o.format);
	return format_open(out, drv, vdisk_ref(below), &o, NULL, 0, err);
}

static int open_path(struct vdisk **out, const char *path, const char *snapshot,
		     const struct vdisk_open_opts *opts, unsigned depth, struct vdisk_error *err)
{
	const struct vd_driver *drv = NULL;
	struct vdisk *file = NULL;
	int r;

	r = vd_iscsi_is(path) && !opts->n_files ? vd_iscsi_open(&file, path, opts, err) :
						  vd_file_open(&file, path, opts, err);
	if (r < 0)
		return r;
	r = format_choose(&drv, file, opts->format, err);
	if (r < 0) {
		vdisk_close(file, NULL);
		return r;
	}
	return format_open(out, drv, file, opts, snapshot, depth, err);
}

/* "name:" with a letter first and no slash before the colon: somebody's protocol. */
static bool has_protocol(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");

	return n > 0 && name[n] == ':';
}

/* "disk:" and "disk:etc" were meant as paths: where the colon is, if the disk is there. */
static const char *forgotten_slash(const char *source)
{
	const char *colon = strrchr(source, ':');
	AUTO_FREE char *before = colon ? strndup(source, (size_t)(colon - source)) : NULL;
	struct stat st;

	return before && stat(source, &st) < 0 && stat(before, &st) == 0 ? colon : NULL;
}

/* What the caller says it is on top of. */
static int give_backing(struct vdisk *d, const struct vdisk_open_opts *opts, struct vdisk_error *err)
{
	struct vdisk_open_opts o = *opts;

	if (!d->drv->set_backing)
		return vd_fail(err, ENOTSUP, "%s: %s images are on top of nothing", d->name,
			       d->drv->name);
	o.format = o.backing_format;
	o.backing = o.backing_format = NULL;
	o.flags &= ~(uint32_t)(VDISK_OPEN_WRITE | VDISK_OPEN_CHECK | VDISK_OPEN_NO_BACKING);
	return vdisk_open(&d->backing, opts->backing, &o, err);
}

int vd_take_with(struct vdisk *d, struct vdisk *const *with, unsigned n, struct vdisk_error *err)
{
	d->with = n ? calloc(n, sizeof(struct vdisk *)) : NULL;
	if (n && !d->with)
		return vd_fail(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < n; i++)
		d->with[d->n_with++] = vdisk_ref(with[i]);
	return 0;
}

int vdisk_open(struct vdisk **out, const char *locator, const struct vdisk_open_opts *opts,
	       struct vdisk_error *err)
{
	struct vdisk_open_opts o = opts_normalise(opts);
	struct vdisk_locator loc = { 0 };
	const char *colon;
	struct vdisk *d = NULL;
	struct stat st;
	int r;

	if (o.backing)
		o.flags |= VDISK_OPEN_NO_BACKING;
	r = vdisk_locator_parse(&loc, locator, err);
	if (r < 0)
		return r;
	if (loc.path)
		r = vd_fail(err, EINVAL, "%s: names a file in a disk, not a disk", locator);
	else if (vd_iscsi_is(loc.source))
		r = open_path(&d, loc.source, NULL, &o, 0, err);
	else if ((colon = forgotten_slash(loc.source)))
		r = vd_fail(err, ENOENT, "'%s': a path in a disk begins with '/': '%.*s:/%s'",
			    loc.source, (int)(colon - loc.source), loc.source, colon + 1);
	else if (has_protocol(loc.source) && stat(loc.source, &st) < 0)
		r = vd_fail(err, ENOTSUP, "%s: this kind of source is not supported", loc.source);
	else
		r = open_path(&d, loc.source, loc.snapshot, &o, 0, err);
	if (r == 0 && o.backing)
		r = give_backing(d, &o, err);
	if (r == 0 && o.n_with)
		r = vd_take_with(d, o.with, o.n_with, err);
	if (r == 0 && loc.part) {
		struct vdisk *part = NULL;

		r = vdisk_open_part(&part, d, loc.part, err);
		vdisk_close(d, NULL);
		d = part;
	}
	vdisk_locator_clear(&loc);
	if (r == 0)
		*out = d;
	else
		vdisk_close(d, NULL);
	return r;
}

/* ---- files that images refer to ---- */

static bool has_dotdot(const char *name)
{
	for (const char *p = name; (p = strstr(p, "..")); p += 2)
		if ((p == name || p[-1] == '/') && (p[2] == '/' || !p[2]))
			return true;
	return false;
}

/* @name as the referring file @from means it; the caller frees. */
static char *resolve_name(const char *from, const char *name)
{
	const char *slash = strrchr(from, '/');
	char *path = NULL;

	if (name[0] == '/' || !slash)
		return strdup(name);
	if (asprintf(&path, "%.*s/%s", (int)(slash - from), from, name) < 0)
		return NULL;
	return path;
}

/* Does @path, with all links resolved, lie below the directory of @from? */
static bool below_directory(const char *from, const char *path)
{
	AUTO_FREE char *real = realpath(path, NULL);
	AUTO_FREE char *dir = NULL;
	AUTO_FREE char *copy = strdup(from);
	char *slash = copy ? strrchr(copy, '/') : NULL;
	size_t n;

	if (!real || !copy)
		return false;
	if (slash)
		slash[slash == copy] = '\0';
	dir = realpath(slash ? copy : ".", NULL);
	if (!dir)
		return false;
	n = strlen(dir);
	return !strncmp(real, dir, n) && (real[n] == '/' || (n == 1 && dir[0] == '/'));
}

static int ref_allowed(enum vdisk_refs refs, const char *from, const char *name, const char *path,
		       struct vdisk_error *err)
{
	struct stat st;

	if (refs == VDISK_REFS_NONE)
		return vd_fail(err, EPERM, "%s: refers to the file '%s', which --refs none forbids",
			       from, name);
	if (!name[0] || has_protocol(name))
		return vd_fail(err, EPERM, "%s: refers to '%s', which is not a plain file name",
			       from, name);
	if (stat(path, &st) < 0)
		return vd_fail(err, errno, "%s: refers to the file '%s': %s", from, path,
			       strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return vd_fail(err, EPERM,
			       "%s: refers to '%s', neither a regular file nor a block device",
			       from, path);
	if (refs == VDISK_REFS_ANY || (refs == VDISK_REFS_DEFAULT && name[0] == '/' &&
				       !has_dotdot(name)))
		return 0;
	if (!below_directory(from, path))
		return vd_fail(err, EPERM,
			       "%s: refers to '%s', outside its own directory; --refs any allows it",
			       from, name);
	return 0;
}

int vd_open_ref(struct vd_open_ctx *ctx, struct vdisk **out, const char *name, const char *format,
		bool writable, struct vdisk_error *err)
{
	struct vdisk *d = ctx->disk;
	struct vdisk_open_opts o = *ctx->opts;
	AUTO_FREE char *path = resolve_name(d->name, name);
	int r;

	if (!path)
		return vd_fail(err, ENOMEM, "out of memory");
	if (ctx->depth + 1 >= VD_MAX_DEPTH)
		return vd_fail(err, ELOOP, "%s: more than %u images refer to one another", d->name,
			       VD_MAX_DEPTH);
	/* whoever passed the files has judged their names */
	r = o.n_files ? 0 : ref_allowed(d->refs, d->name, name, path, err);
	if (r < 0)
		return r;
	o.format = format;
	o.block_size = 0;
	o.flags &= ~(uint32_t)(VDISK_OPEN_CHECK | VDISK_OPEN_NO_BACKING);
	if (!writable)
		o.flags &= ~(uint32_t)VDISK_OPEN_WRITE;
	return open_path(out, path, NULL, &o, ctx->depth + 1, err);
}

unsigned vdisk_list_files(const struct vdisk *d, struct vdisk_open_file *out, unsigned max)
{
	const struct vdisk *const below[] = { d->file, d->data, d->backing };
	unsigned n = 0;

	if (vdisk_fd(d) >= 0) {
		if (max)
			*out = (struct vdisk_open_file) { .path = d->name, .fd = d->fd };
		return 1;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(below); i++) {
		if (!below[i] || (i && below[i] == below[0]))
			continue;
		n += vdisk_list_files(below[i], n < max ? out + n : NULL, n < max ? max - n : 0);
	}
	for (unsigned i = 0; i < d->n_others; i++)
		n += vdisk_list_files(d->others[i], n < max ? out + n : NULL,
				      n < max ? max - n : 0);
	return n;
}

/* ---- options ---- */

const char *vd_option(const struct vdisk_option *o, unsigned n, const char *key)
{
	for (unsigned i = n; i-- > 0; )
		if (!strcmp(o[i].key, key))
			return o[i].value;
	return NULL;
}

int vd_parse_bool(const char *text, bool *out)
{
	static const char *const yes[] = { "on", "true", "yes", "1" };
	static const char *const no[] = { "off", "false", "no", "0" };

	for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcasecmp(text, yes[i]))
			return *out = true, 0;
		if (!strcasecmp(text, no[i]))
			return *out = false, 0;
	}
	return -EINVAL;
}

int vd_check_options(const struct vd_driver *drv, const struct vdisk_option *o, unsigned n,
		     struct vdisk_error *err)
{
	for (unsigned i = 0; i < n; i++) {
		size_t len = strlen(o[i].key);
		bool known = false;

		for (unsigned k = 0; !known && drv->options && drv->options[k]; k++)
			known = !strncmp(drv->options[k], o[i].key, len) &&
				drv->options[k][len] == '\t';
		if (!known)
			return vd_fail(err, EINVAL, "%s has no option '%s'", drv->name, o[i].key);
		if (!o[i].value)
			return vd_fail(err, EINVAL, "option '%s' needs a value", o[i].key);
	}
	return 0;
}

/* ---- creating ---- */

int vdisk_create(const char *path, uint64_t length, const struct vdisk_create_opts *opts,
		 struct vdisk_error *err)
{
	struct vdisk_create_opts o = { 0 };
	struct vdisk_open_opts file_opts = { .size = sizeof(file_opts), .flags = VDISK_OPEN_WRITE };
	const struct vd_driver *drv = &vd_raw;
	AUTO_CLOSE int fd = -1;
	struct vdisk *file = NULL;
	bool made = false;
	struct stat st;
	int r;

	if (opts)
		memcpy(&o, opts, MIN(opts->size, sizeof(o)));
	if (o.format && !(drv = format_find(o.format)))
		return vd_fail(err, ENOTSUP, "unknown image format '%s'", o.format);
	if (!drv->create)
		return vd_fail(err, ENOTSUP, "cannot create %s images", drv->name);
	r = vd_check_options(drv, o.options, o.n_options, err);
	if (r < 0)
		return r;
	if (vd_iscsi_is(path)) {
		r = vd_iscsi_open(&file, path, &file_opts, err);
	} else if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
		r = vd_file_open(&file, path, &file_opts, err);
	} else {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		made = fd >= 0;
		if (fd < 0 && errno == EEXIST && !o.overwrite)
			return vd_fail(err, EEXIST, "%s: exists", path);
		if (fd < 0 && errno != EEXIST)
			return vd_fail(err, errno, "%s: cannot create: %s", path, strerror(errno));
		r = vd_file_open(&file, path, &file_opts, err);
		if (r == 0 && ftruncate(vdisk_fd(file), 0) < 0)
			r = vd_fail(err, errno, "%s: cannot empty: %s", path, strerror(errno));
		if (r == 0)
			file->size = 0;
	}
	if (r == 0)
		r = drv->create(file, length, &o, err);
	if (r == 0) {
		r = vdisk_close(STEAL(file), err);
	} else {
		vdisk_close(file, NULL);
	}
	if (r < 0 && made)
		unlink(path);
	return r;
}
