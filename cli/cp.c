/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cp.c - cp: files between this host and disks, and between disks
 *
 * Both sides are trees (tree.h); each source is copied to a name in the
 * destination's tree.  Holes stay holes.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/tree.h"

#define CHUNK		(1u << 20)
#define MAX_DEPTH	1000u

struct cp_args {
	bool recursive, archive;
};

struct copied {			/* a file with several names, by its first copy */
	struct copied *next;
	uint64_t ino;
	char *path;		/* owned */
};

struct cp {
	const struct cp_args *a;
	struct tree from, to;
	struct copied *copied[256];	/* owned */
	uint8_t *buf;			/* owned: CHUNK */
	unsigned depth;
};

static const struct argp_option options[] = {
	{ "recursive", 'r', NULL, 0, "Directories and what is in them; links as links", 0 },
	{ "archive", 'a', NULL, 0, "As -r, and keep modes, owners, times, extended attributes, "
	  "hard links and devices", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg UNUSED, struct argp_state *state)
{
	struct cp_args *a = state->input;

	switch (key) {
	case 'a':
		a->archive = true;
		a->recursive = true;
		return 0;
	case 'r':
		a->recursive = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int copy_data(struct cp *c, uint64_t size, struct vdisk_error *err)
{
	uint64_t at = 0, start, len;
	int r;

	for (;;) {
		r = c->from.ops->next_data(&c->from, at, &start, &len, err);
		if (r < 0)
			return r;
		if (!len)
			break;
		for (at = start; at < start + len;) {
			ssize_t n = c->from.ops->read(&c->from, c->buf,
						      (size_t)MIN(start + len - at,
								  (uint64_t)CHUNK), at, err);

			if (n <= 0)
				return (int)n;	/* it got shorter meanwhile */
			for (ssize_t done = 0; done < n;) {
				ssize_t w = c->to.ops->write(&c->to, c->buf + done,
							     (size_t)(n - done),
							     at + (uint64_t)done, err);

				if (w < 0)
					return (int)w;
				done += w;
			}
			at += (uint64_t)n;
		}
	}
	return at < size ? c->to.ops->truncate(&c->to, size, err) : 0;
}

static int copy_file(struct cp *c, const char *from, const char *to, const struct vdisk_stat *st,
		     bool follow, struct vdisk_error *err)
{
	int r = c->from.ops->open(&c->from, from, follow, err), r2;

	if (r < 0)
		return r;
	r = c->to.ops->create(&c->to, to, st->mode & 0777, err);
	if (r == 0) {
		r = copy_data(c, st->size, err);
		r2 = c->to.ops->close(&c->to, r < 0 ? NULL : err);
		r = r < 0 ? r : r2;
	}
	c->from.ops->close(&c->from, NULL);
	return r;
}

static int copy_xattrs(struct cp *c, const char *from, const char *to, struct vdisk_error *err)
{
	AUTO_FREE char *names = malloc(65536);
	ssize_t n, len;
	int r = 0;

	if (!names)
		return -ENOMEM;
	n = c->from.ops->listxattr(&c->from, from, names, 65536, err);
	for (char *p = names; n > 0 && r == 0 && p < names + n; p += strlen(p) + 1) {
		len = c->from.ops->getxattr(&c->from, from, p, c->buf, 65536, err);
		if (len < 0)
			return (int)len;
		r = c->to.ops->setxattr(&c->to, to, p, c->buf, (size_t)len, err);
		/* what the other side has no place or permission for stays behind */
		if (r == -ENOTSUP || r == -EPERM)
			r = 0;
	}
	return n < 0 ? (int)n : r;
}

static const char *copy_of(struct cp *c, uint64_t ino)
{
	for (const struct copied *p = c->copied[ino % ARRAY_SIZE(c->copied)]; p; p = p->next)
		if (p->ino == ino)
			return p->path;
	return NULL;
}

static void remember(struct cp *c, uint64_t ino, const char *path)
{
	struct copied **slot = &c->copied[ino % ARRAY_SIZE(c->copied)];
	struct copied *p = malloc(sizeof(*p));

	if (p)
		p->path = strdup(path);
	if (!p || !p->path) {
		free(p);	/* then it is copied twice */
		return;
	}
	p->ino = ino;
	p->next = *slot;
	*slot = p;
}

static int copy_node(struct cp *c, const char *from, const char *to, bool top,
		     struct vdisk_error *err);

struct names {
	char **v;
	size_t n, room;
};

static int add_name(void *arg, const char *name)
{
	struct names *l = arg;

	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		char **v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->n] = strdup(name);
	return l->v[l->n] ? (l->n++, 0) : -ENOMEM;
}

static int copy_dir(struct cp *c, const char *from, const char *to, struct vdisk_error *err)
{
	struct vdisk_stat old;
	struct names l = { 0 };
	int r;

	if (c->depth >= MAX_DEPTH) {
		snprintf(err->msg, sizeof(err->msg), "%s: directories nest too deeply", from);
		return -ELOOP;
	}
	/* a directory that is there already takes what comes; nothing else does */
	r = c->to.ops->stat(&c->to, to, false, &old, NULL) == 0 && S_ISDIR(old.mode) ? 0 :
	    c->to.ops->mkdir(&c->to, to, err);
	if (r == 0)
		r = c->from.ops->list(&c->from, from, add_name, &l, err);
	c->depth++;
	for (size_t i = 0; i < l.n; i++) {
		AUTO_FREE char *a = NULL, *b = NULL;

		if (r == 0 && (asprintf(&a, "%s/%s", from, l.v[i]) < 0 ||
			       asprintf(&b, "%s/%s", to, l.v[i]) < 0))
			r = -ENOMEM;
		if (r == 0)
			r = copy_node(c, a, b, false, err);
		free(l.v[i]);
	}
	c->depth--;
	free(l.v);
	return r;
}

static int make_room(struct cp *c, const char *to, struct vdisk_error *err)
{
	struct vdisk_stat old;

	if (c->to.ops->stat(&c->to, to, false, &old, NULL) < 0)
		return 0;
	return c->to.ops->remove(&c->to, to, err);
}

/* Anything but directories and the contents of plain files. */
static int copy_special(struct cp *c, const char *from, const char *to,
			const struct vdisk_stat *st, struct vdisk_error *err)
{
	char target[4096];
	int r = make_room(c, to, err);

	if (r < 0)
		return r;
	if (!S_ISLNK(st->mode))
		return c->to.ops->mknod(&c->to, to, st, err);
	r = c->from.ops->readlink(&c->from, from, target, sizeof(target), err);
	return r < 0 ? r : c->to.ops->symlink(&c->to, target, to, err);
}

static int copy_attrs(struct cp *c, const char *from, const char *to, const struct vdisk_stat *st,
		      struct vdisk_error *err)
{
	int r = c->to.ops->set(&c->to, to, st, TREE_OWNER, err);

	/* changing the owner drops capabilities; changing attributes touches times */
	if (r == 0)
		r = copy_xattrs(c, from, to, err);
	return r == 0 ? c->to.ops->set(&c->to, to, st, TREE_MODE | TREE_TIMES, err) : r;
}

static int copy_node(struct cp *c, const char *from, const char *to, bool top,
		     struct vdisk_error *err)
{
	bool follow = top && !c->a->recursive;
	struct vdisk_stat st;
	const char *first;
	int r = c->from.ops->stat(&c->from, from, follow, &st, err);

	if (r < 0)
		return r;
	if (c->a->archive && !S_ISDIR(st.mode) && st.nlink > 1) {
		first = copy_of(c, st.ino);
		if (first) {
			r = make_room(c, to, err);
			return r < 0 ? r : c->to.ops->link(&c->to, first, to, err);
		}
		remember(c, st.ino, to);
	}
	if (S_ISDIR(st.mode)) {
		if (!c->a->recursive) {
			snprintf(err->msg, sizeof(err->msg), "%s: is a directory (use -r)", from);
			return -EISDIR;
		}
		r = copy_dir(c, from, to, err);
	} else if (S_ISREG(st.mode)) {
		r = copy_file(c, from, to, &st, follow, err);
	} else if (S_ISLNK(st.mode) || c->a->archive) {
		r = copy_special(c, from, to, &st, err);
	} else {
		cli_note("%s: not copied, a device or the like (use -a)", from);
		return 0;
	}
	return r == 0 && c->a->archive ? copy_attrs(c, from, to, &st, err) : r;
}

/* ---- the two sides ---- */

/* Open the directory that @path is in as a tree; *@name: its last name. */
static int open_side(struct tree *t, struct cli_file *f, const char *text, bool write, char **name)
{
	bool guest = cli_is_guest_file(text);
	AUTO_FREE char *path = NULL;
	char *slash;

	if (guest && cli_file_open(f, text, write) != CLI_OK)
		return CLI_FAILED;
	path = strdup(guest ? f->path : text);
	*name = path ? cli_basename(path) : NULL;
	if (!*name) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	for (size_t n = strlen(path); n > 1 && path[n - 1] == '/';)
		path[--n] = '\0';
	slash = strrchr(path, '/');
	if (!**name || !strcmp(*name, ".") || !strcmp(*name, "..")) {
		/* the directory itself */
		free(*name);
		*name = strdup(".");
	} else if (slash) {
		slash[slash == path] = '\0';
	} else {
		memcpy(path, guest ? "/" : ".", 2);
	}
	return guest ? tree_open_guest(t, f->fs, path, text) : tree_open_host(t, path);
}

/* Is @text a directory (then things go into it)? */
static bool is_dir(struct tree *t, const char *name)
{
	struct vdisk_stat st;

	return t->ops->stat(t, name, true, &st, NULL) == 0 && S_ISDIR(st.mode);
}

static int copy_one(struct cp *c, const char *source, const char *dest, bool into)
{
	AUTO_FILE struct cli_file from = { 0 }, to = { 0 };
	AUTO_FREE char *from_name = NULL, *to_name = NULL, *whole = NULL;
	struct vdisk_error err = { 0 };
	int status = CLI_FAILED, r;

	if (open_side(&c->from, &from, source, false, &from_name) != CLI_OK)
		return CLI_FAILED;
	/* into a directory: that is the tree, and the name is the source's */
	if (into && asprintf(&whole, "%s/%s", dest,
			     strcmp(from_name, ".") ? from_name : "") < 0)
		whole = NULL;
	if (into && !strcmp(from_name, ".") && whole)
		whole[strlen(whole) - 1] = '\0';
	if ((!into || whole) &&
	    open_side(&c->to, &to, into ? whole : dest, true, &to_name) == CLI_OK) {
		r = copy_node(c, from_name, to_name, true, &err);
		if (r < 0) {
			if (!err.msg[0])
				snprintf(err.msg, sizeof(err.msg), "%s: %s", source, strerror(-r));
			cli_error("%s", err.msg);
		} else {
			status = CLI_OK;
		}
		tree_close(&c->to);
	}
	tree_close(&c->from);
	return status;
}

static int dest_is_dir(const char *dest, bool *into)
{
	AUTO_FILE struct cli_file f = { 0 };
	AUTO_FREE char *name = NULL;
	struct tree t;

	if (open_side(&t, &f, dest, true, &name) != CLI_OK)
		return CLI_FAILED;
	*into = is_dir(&t, name);
	tree_close(&t);
	return CLI_OK;
}

int cmd_cp(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options, .parser = parse, .children = cli_disk,
		.args_doc = "SOURCE... DEST",
		.doc = "Copy files; each side is a path of this host or DISK:PATH.",
	};
	struct cp_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 2, -1), **last = args;
	struct cp c = { .a = &a };
	bool into = false;
	int status;

	while (last[1])
		last++;
	status = dest_is_dir(*last, &into);	/* opens it for writing before any reading */
	if (status == CLI_OK && !into && (last - args > 1 || (*last)[strlen(*last) - 1] == '/')) {
		cli_error("%s: not a directory", *last);
		status = CLI_FAILED;
	}
	c.buf = malloc(CHUNK);
	if (!c.buf) {
		cli_error("out of memory");
		status = CLI_FAILED;
	}
	for (; args < last && status == CLI_OK; args++)
		status = copy_one(&c, *args, *last, into);
	free(c.buf);
	for (size_t i = 0; i < ARRAY_SIZE(c.copied); i++)
		while (c.copied[i]) {
			struct copied *p = c.copied[i];

			c.copied[i] = p->next;
			free(p->path);
			free(p);
		}
	return cli_files_close(status);
}
