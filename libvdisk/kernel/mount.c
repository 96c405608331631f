/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount.c - file systems of a guest as a directory of this host
 *
 * A FUSE server over the file system drivers in fs/: one, or several that are mounted
 * in each other, as one mount.  The kernel keeps names,
 * attributes, pages and small writes in its caches, as nobody else changes the
 * file system; what reaches us is what the caches lack, and long writes.
 *
 *   1. A driver is used under its tree's lock, by one thread at a time.  File data
 *      moves outside it: the driver says where the bytes are (->map), and the
 *      thread moves them between the kernel and the disk itself.
 *   2. A node that the kernel knows (a struct node, whose address is the number
 *      we tell it) keeps its blocks while someone moves bytes (node->moving):
 *      who would free some waits until nobody does.
 *   3. A node whose last name went lives on until the kernel forgets it; where
 *      the driver cannot do that, it is gone, and nothing reaches it any more.
 *   4. What changed is committed every five seconds, on fsync, and at the end;
 *      a commit waits for the writes under way.
 *   5. Nothing in the guest gets power over the host: no devices, no
 *      set-user-ID programs.
 *
 * There is no open: the kernel, once told so, spares us the call, and we do not
 * need it (rule 3).  Holes are reported on read-only mounts only: the kernel
 * does not tell us of pages it has not written yet.
 *
 * Lock order: a tree's, then that of one mounted in it; m->lock by itself.
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

#include "fs/fs.h"
#include "kernel/session.h"

#define MAX_RUNS	64u
#define DIRECT_WRITE	(128u << 10)	/* shorter ones the driver collects */
#define COMMIT_SECONDS	5
#define FOR_EVER	86400.0
#define ATTR_SECONDS	1.0		/* how much space a file takes changes behind the kernel */
#define N_NODES		65536u
#define TREE_SHIFT	48		/* no file system has nodes beyond that */
#define MAX_TREES	1000u

struct tree;

struct node {
	struct node *next;		/* in its hash chain */
	struct tree *tree;
	uint64_t ino;
	uint64_t lookups;		/* as the kernel counts */
	unsigned moving;		/* threads that move its bytes: rule 2 */
	bool held;			/* the driver keeps it: rule 3 */
	bool gone;			/* no longer in the table */
};

/* A file system, and where it is mounted. */
struct tree {
	struct tree *next;		/* mounted after this one */
	struct vdisk_fs *fs;		/* borrowed */
	char *path;			/* owned: where, "" for the first */
	struct tree *above;		/* the one that it is mounted in; NULL for the first */
	uint64_t covered, covered_in;	/* the directory there, and the one with its name */
	uint64_t number;		/* tells equal numbers of nodes apart */
	uint32_t block_size;
	struct node root;

	pthread_mutex_t lock;		/* guards the rest, and fs */
	pthread_cond_t moved;		/* moving or writing went down */
	unsigned writing;		/* threads that move bytes to the disk */
	bool dirty;			/* something changed since the last commit */
	struct vdisk_error problem;	/* the first failure to save something */
	struct node *nodes[N_NODES];	/* owned */
	struct node *gone;		/* owned: those that are gone */
};

struct vdisk_mount {
	struct tree *trees;		/* owned; fixed while it is served */
	struct vd_session session;
	char *dir;			/* owned */
	unsigned threads;
	bool mixed;			/* some can be written, others not */

	pthread_mutex_t lock;		/* guards ending */
	pthread_cond_t tick;		/* it changed */
	bool ending;
};

static struct vdisk_mount *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- nodes ---- */

static struct node *node_of(fuse_req_t req, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &mount_of(req)->trees->root : (struct node *)(uintptr_t)ino;
}

static struct tree *tree_of(fuse_req_t req, fuse_ino_t ino)
{
	return node_of(req, ino)->tree;
}

/* The tree that is mounted on a directory, or NULL. */
static struct tree *tree_on(const struct tree *t, uint64_t ino)
{
	struct tree *on = t->next;	/* it came later */

	while (on && (on->above != t || on->covered != ino))
		on = on->next;
	return on;
}

static struct node **node_slot(struct tree *t, uint64_t ino)
{
	return &t->nodes[(ino * 0x9e3779b97f4a7c15u >> 40) % N_NODES];
}

/* The chain that a node is in. */
static struct node **node_chain(struct tree *t, const struct node *n)
{
	return n->gone ? &t->gone : node_slot(t, n->ino);
}

static struct node *node_find(struct tree *t, uint64_t ino)
{
	struct node *n = *node_slot(t, ino);

	if (ino == t->root.ino)
		return &t->root;
	while (n && n->ino != ino)
		n = n->next;
	return n;
}

static void node_insert(struct tree *t, struct node *n)
{
	struct node **slot = node_chain(t, n);

	n->next = *slot;
	*slot = n;
}

static void node_remove(struct tree *t, struct node *n)
{
	struct node **p = node_chain(t, n);

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
}

/* The node with one lookup more; NULL: no memory. */
static struct node *node_get(struct tree *t, uint64_t ino)
{
	struct node *n = node_find(t, ino);

	if (!n) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return NULL;
		n->ino = ino;
		n->tree = t;
		node_insert(t, n);
	}
	n->lookups++;
	return n;
}

static void remember(struct tree *t, const struct vdisk_error *err)
{
	if (!t->problem.code)
		t->problem = *err;
}

static void node_forget(struct tree *t, struct node *n, uint64_t count)
{
	struct vdisk_error err = { 0 };

	if (n == &t->root)
		return;
	n->lookups -= MIN(n->lookups, count);
	if (n->lookups || n->moving)
		return;
	node_remove(t, n);
	if (n->held) {
		t->dirty = true;
		if (t->fs->ops->release(t->fs, n->ino, &err) < 0)
			remember(t, &err);
	}
	free(n);
}

/* Before @ino loses a name: rule 3. */
static int node_hold(struct tree *t, uint64_t ino, struct vdisk_error *err)
{
	struct node *n = node_find(t, ino);
	int r = 0;

	if (n && !n->held && t->fs->ops->hold) {
		r = t->fs->ops->hold(t->fs, ino, err);
		n->held = r == 0;
	}
	return r;
}

/* And after it. */
static void node_unlinked(struct tree *t, uint64_t ino)
{
	struct node *n = node_find(t, ino);

	if (n && !t->fs->ops->hold) {
		node_remove(t, n);
		n->gone = true;
		node_insert(t, n);
	}
}

/* A name moved: where numbers are places, the node's changed. */
static void node_renamed(struct tree *t, uint64_t old, uint64_t dir, const char *name)
{
	struct node *n = node_find(t, old);
	uint64_t ino = 0;

	if (!n || t->fs->ops->lookup(t->fs, dir, name, &ino, NULL) < 0 || ino == old)
		return;
	node_remove(t, n);
	n->ino = ino;
	node_insert(t, n);
}

/* Rule 2, with the lock held. */
static void wait_moved(struct tree *t, const struct node *n)
{
	while (n->moving)
		pthread_cond_wait(&t->moved, &t->lock);
}

/* ---- attributes ---- */

static void fill_stat(struct tree *t, const struct vdisk_stat *st, struct stat *out)
{
	*out = (struct stat) {
		.st_ino = (st->ino ? st->ino : 1) | t->number << TREE_SHIFT,
		.st_mode = st->mode,
		.st_nlink = st->nlink,
		.st_uid = st->uid, .st_gid = st->gid,
		.st_rdev = makedev(st->rdev_major, st->rdev_minor),
		.st_size = (off_t)MIN(st->size, (uint64_t)INT64_MAX),
		.st_blksize = t->block_size,
		.st_blocks = (blkcnt_t)(st->allocated / 512),
		.st_atim = st->atime, .st_mtim = st->mtime, .st_ctim = st->ctime,
	};
}

static int node_stat(struct tree *t, uint64_t ino, struct stat *out)
{
	struct vdisk_stat st = { 0 };
	int r = t->fs->ops->stat(t->fs, ino, &st, NULL);

	if (r == 0)
		fill_stat(t, &st, out);
	return r;
}

static double attr_seconds(const struct tree *t)
{
	return t->fs->writable ? ATTR_SECONDS : FOR_EVER;
}

/* What the kernel gets to know of @ino, with one lookup more. */
static int make_entry(struct tree *t, uint64_t ino, struct fuse_entry_param *e)
{
	struct node *n;
	int r;

	*e = (struct fuse_entry_param) {
		.attr_timeout = attr_seconds(t), .entry_timeout = FOR_EVER,
	};
	r = node_stat(t, ino, &e->attr);
	if (r < 0)
		return r;
	n = node_get(t, ino);
	if (!n)
		return -ENOMEM;
	e->ino = n == &t->root && !t->above ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
	return 0;
}

/* The same, and if something is mounted on it, of that. */
static int make_entry_over(struct tree *t, uint64_t ino, struct fuse_entry_param *e)
{
	struct tree *on = tree_on(t, ino);
	int r;

	if (!on)
		return make_entry(t, ino, e);
	pthread_mutex_lock(&on->lock);
	r = make_entry_over(on, on->fs->root, e);
	pthread_mutex_unlock(&on->lock);
	return r;
}

/* ---- the frame of an operation ---- */

/*
 * Take the lock; the driver's number of a node.  -ESTALE: it is gone.  What is
 * begun is ended by one of the replies below, which drop the lock first.
 */
static int begin(const struct node *n, uint64_t *ino)
{
	pthread_mutex_lock(&n->tree->lock);
	*ino = n->ino;
	return n->gone ? -ESTALE : 0;
}

static int commit(struct tree *t);

static int begin_change(const struct node *n, uint64_t *ino)
{
	struct tree *t = n->tree;

	pthread_mutex_lock(&t->lock);
	if (t->fs->ops->commit_due && t->fs->ops->commit_due(t->fs))
		commit(t);
	*ino = n->ino;
	if (n->gone)
		return -ESTALE;
	if (!t->fs->writable)
		return -EROFS;
	t->dirty = true;
	return 0;
}

static void reply_err(struct tree *t, fuse_req_t req, int r)
{
	pthread_mutex_unlock(&t->lock);
	fuse_reply_err(req, r < 0 ? -r : 0);
}

static void reply_entry(struct tree *t, fuse_req_t req, uint64_t ino, int r)
{
	struct fuse_entry_param e;

	if (r == 0)
		r = make_entry_over(t, ino, &e);
	pthread_mutex_unlock(&t->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_entry(req, &e);
}

static void reply_attr(struct tree *t, fuse_req_t req, uint64_t ino, int r)
{
	struct stat st;

	if (r == 0)
		r = node_stat(t, ino, &st);
	pthread_mutex_unlock(&t->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, attr_seconds(t));
}

/* ---- looking ---- */

static void op_init(void *arg, struct fuse_conn_info *conn)
{
	const unsigned unwanted = FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ |
		FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
		FUSE_CAP_ATOMIC_O_TRUNC |	/* there is no open to do it */
		FUSE_CAP_HANDLE_KILLPRIV;	/* clearing set-user-ID bits is the kernel's */
	const unsigned wanted = FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_PARALLEL_DIROPS |
		FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_READ |
		FUSE_CAP_ASYNC_DIO | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPORT_SUPPORT;

	(void)arg;
	conn->want = (conn->want & ~unwanted) | (wanted & conn->capable);
	conn->max_write = VD_SESSION_IO;
	conn->max_readahead = VD_SESSION_IO;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct tree *t = tree_of(req, parent);
	struct fuse_entry_param none = { .entry_timeout = FOR_EVER };
	uint64_t dir, ino = 0;
	int r = begin(node_of(req, parent), &dir);

	if (r == 0 && !strcmp(name, "."))
		ino = dir;
	else if (r == 0 && !strcmp(name, "..") && dir == t->fs->root && t->above) {
		pthread_mutex_unlock(&t->lock);
		dir = t->covered_in;
		t = t->above;
		pthread_mutex_lock(&t->lock);
		ino = dir;
	} else if (r == 0)
		r = t->fs->ops->lookup(t->fs, dir, name, &ino, NULL);
	if (r == -ENOENT) {	/* which the kernel may remember, too */
		pthread_mutex_unlock(&t->lock);
		fuse_reply_entry(req, &none);
		return;
	}
	reply_entry(t, req, ino, r);
}

static void forget(struct node *n, uint64_t count)
{
	struct tree *t = n->tree;

	pthread_mutex_lock(&t->lock);
	node_forget(t, n, count);
	pthread_mutex_unlock(&t->lock);
}

static void op_forget(fuse_req_t req, fuse_ino_t node, uint64_t count)
{
	forget(node_of(req, node), count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *list)
{
	for (size_t i = 0; i < count; i++)
		forget(node_of(req, list[i].ino), list[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct tree *t = tree_of(req, node);
	uint64_t ino;
	int r = begin(node_of(req, node), &ino);

	(void)fi;
	reply_attr(t, req, ino, r);
}

static void op_readlink(fuse_req_t req, fuse_ino_t node)
{
	struct tree *t = tree_of(req, node);
	char target[VD_PATH_MAX];
	uint64_t ino;
	int r = begin(node_of(req, node), &ino);

	if (r == 0)
		r = t->fs->ops->readlink ?
		    t->fs->ops->readlink(t->fs, ino, target, sizeof(target), NULL) : -EINVAL;
	pthread_mutex_unlock(&t->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, target);
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct tree *t = tree_of(req, node);
	struct vdisk_fs_usage u = { 0 };
	struct statvfs st;
	uint64_t ino;
	int r = begin(node_of(req, node), &ino);

	if (r == 0)
		r = t->fs->ops->usage(t->fs, &u, NULL);
	pthread_mutex_unlock(&t->lock);
	if (r < 0 || !u.block_size) {
		fuse_reply_err(req, r < 0 ? -r : EIO);
		return;
	}
	st = (struct statvfs) {
		.f_bsize = u.block_size, .f_frsize = u.block_size,
		.f_blocks = u.total / u.block_size, .f_bfree = u.free / u.block_size,
		.f_bavail = u.available / u.block_size,
		.f_files = u.inodes, .f_ffree = u.inodes_free, .f_favail = u.inodes_free,
		.f_namemax = VD_NAME_MAX,
	};
	fuse_reply_statfs(req, &st);
}

/* ---- directories ---- */

struct dir_entry {
	uint64_t ino;
	char *name;		/* owned */
};

/* All of a directory, read at once: its order cannot change under the reader. */
struct dir_list {
	struct dir_entry *v;	/* owned */
	size_t n, room;
	bool loaded;
};

static int dir_add(void *arg, const char *name, uint64_t ino)
{
	struct dir_list *d = arg;

	if (d->n == d->room) {
		size_t room = d->room ? 2 * d->room : 64;
		struct dir_entry *v = reallocarray(d->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		d->v = v;
		d->room = room;
	}
	d->v[d->n] = (struct dir_entry) { .ino = ino, .name = strdup(name) };
	return d->v[d->n].name ? (d->n++, 0) : -ENOMEM;
}

static void dir_empty(struct dir_list *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->v[i].name);
	free(d->v);
	*d = (struct dir_list) { 0 };
}

static int dir_load(struct tree *t, struct dir_list *d, uint64_t ino)
{
	uint64_t up = ino;
	int r;

	dir_empty(d);
	t->fs->ops->lookup(t->fs, ino, "..", &up, NULL);
	r = dir_add(d, ".", ino);
	if (r == 0)
		r = dir_add(d, "..", up);
	if (r == 0)
		r = t->fs->ops->list(t->fs, ino, dir_add, d, NULL);
	d->loaded = r == 0;
	return r;
}

static struct dir_list *dir_of(const struct fuse_file_info *fi)
{
	return (struct dir_list *)(uintptr_t)fi->fh;
}

static void op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct dir_list *d = calloc(1, sizeof(*d));

	(void)node;
	if (!d) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)d;
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	if (fuse_reply_open(req, fi) < 0)
		free(d);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	(void)node;
	dir_empty(dir_of(fi));
	free(dir_of(fi));
	fuse_reply_err(req, 0);
}

static bool is_dots(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/* One entry into @buf; its length, more than @room where it does not fit. */
static size_t put_entry(struct tree *t, fuse_req_t req, const struct dir_entry *en,
			bool plus, char *buf, size_t room, off_t next)
{
	struct fuse_entry_param e = { .attr.st_ino = en->ino };
	struct node *n;
	size_t len;

	if (!plus) {
		struct vdisk_stat st = { 0 };

		if (t->fs->ops->stat(t->fs, en->ino, &st, NULL) == 0)
			e.attr.st_mode = st.mode;
		return fuse_add_direntry(req, buf, room, en->name, &e.attr, next);
	}
	/* one that cannot be read is still shown; looking it up tells why */
	if (is_dots(en->name) || make_entry_over(t, en->ino, &e) < 0)
		e = (struct fuse_entry_param) { .attr.st_ino = en->ino };
	len = fuse_add_direntry_plus(req, buf, room, en->name, &e, next);
	if (len > room && e.ino) {
		n = node_of(req, e.ino);
		if (n->tree == t)	/* else a root, which nobody counts */
			node_forget(t, n, 1);
	}
	return len;
}

static void read_dir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		     const struct fuse_file_info *fi, bool plus)
{
	struct tree *t = tree_of(req, node);
	struct dir_list *d = dir_of(fi);
	AUTO_FREE char *buf = malloc(size);
	size_t used = 0;
	uint64_t ino;
	int r = begin(node_of(req, node), &ino);

	if (!buf)
		r = -ENOMEM;
	if (r == 0 && (!d->loaded || off == 0))
		r = dir_load(t, d, ino);
	for (size_t i = (size_t)off; r == 0 && i < d->n; i++) {
		size_t len = put_entry(t, req, &d->v[i], plus, buf + used, size - used,
				       (off_t)i + 1);

		if (len > size - used)
			break;
		used += len;
	}
	pthread_mutex_unlock(&t->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, buf, used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	read_dir(req, node, size, off, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	read_dir(req, node, size, off, fi, true);
}

/* ---- names ---- */

/* A new node belongs to whoever makes it; the driver knows of set-group-ID directories. */
static void make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev,
		 const char *target)
{
	const struct fuse_ctx *who = fuse_req_ctx(req);
	struct tree *t = tree_of(req, parent);
	struct vdisk_stat st = {
		.mode = mode, .uid = who->uid, .gid = who->gid,
		.rdev_major = major(dev), .rdev_minor = minor(dev),
	}, up = { 0 };
	unsigned attrs = VD_ATTR_MODE | VD_ATTR_UID | VD_ATTR_GID;
	uint64_t dir, ino = 0;
	int r = begin_change(node_of(req, parent), &dir);

	if (r == 0 && strlen(name) > VD_NAME_MAX)
		r = -ENAMETOOLONG;
	if (r == 0)
		r = t->fs->ops->stat(t->fs, dir, &up, NULL);
	if (r == 0 && (up.mode & S_ISGID))
		attrs &= ~(unsigned)VD_ATTR_GID;
	if (r == 0 && !t->fs->ops->create)
		r = -EROFS;
	if (r == 0)
		r = t->fs->ops->create(t->fs, dir, name, &st, attrs, target, &ino, NULL);
	reply_entry(t, req, ino, r);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
	make(req, parent, name, mode, dev, NULL);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, parent, name, S_IFDIR | (mode & 07777), 0, NULL);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make(req, parent, name, S_IFLNK | 0777, 0, target);
}

/* What a name stands for; place->ino is 0 where it does not exist. */
static int find_place(struct tree *t, uint64_t dir, const char *name, struct vd_place *out)
{
	int r;

	if (strlen(name) > VD_NAME_MAX)
		return -ENAMETOOLONG;
	*out = (struct vd_place) { .dir = dir };
	memcpy(out->name, name, strlen(name) + 1);
	r = t->fs->ops->lookup(t->fs, dir, name, &out->ino, NULL);
	if (r == 0 && tree_on(t, out->ino))
		return -EBUSY;
	return r == -ENOENT ? 0 : r;
}

static void take_name(fuse_req_t req, fuse_ino_t parent, const char *name, bool want_dir)
{
	struct tree *t = tree_of(req, parent);
	struct vd_place place;
	struct vdisk_stat st = { 0 };
	uint64_t dir;
	int r = begin_change(node_of(req, parent), &dir);

	if (r == 0)
		r = find_place(t, dir, name, &place);
	if (r == 0)
		r = place.ino ? t->fs->ops->stat(t->fs, place.ino, &st, NULL) : -ENOENT;
	if (r == 0 && S_ISDIR(st.mode) != want_dir)
		r = want_dir ? -ENOTDIR : -EISDIR;
	if (r == 0 && !want_dir)
		r = node_hold(t, place.ino, NULL);
	if (r == 0)
		r = vd_fs_remove_at(t->fs, &place, false, NULL);
	if (r == 0 && (want_dir || st.nlink <= 1))
		node_unlinked(t, place.ino);
	reply_err(t, req, r);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	take_name(req, parent, name, false);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	take_name(req, parent, name, true);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned flags)
{
	struct tree *t = tree_of(req, parent);
	const struct node *to_dir = node_of(req, new_parent);
	struct vd_place from, to = { 0 };
	struct vdisk_stat st = { 0 };
	uint64_t dir;
	int r = begin_change(node_of(req, parent), &dir);

	if (r == 0 && to_dir->tree != t)
		r = -EXDEV;
	if (r == 0 && to_dir->gone)
		r = -ESTALE;
	if (r == 0 && (flags & ~(unsigned)RENAME_NOREPLACE))
		r = -EINVAL;
	if (r == 0)
		r = find_place(t, dir, name, &from);
	if (r == 0)
		r = find_place(t, to_dir->ino, new_name, &to);
	if (r == 0 && to.ino && (flags & RENAME_NOREPLACE))
		r = -EEXIST;
	if (r == 0 && to.ino && to.ino != from.ino) {
		r = t->fs->ops->stat(t->fs, to.ino, &st, NULL);
		if (r == 0 && !S_ISDIR(st.mode))
			r = node_hold(t, to.ino, NULL);
	}
	if (r == 0)
		r = vd_fs_rename_at(t->fs, &from, &to, NULL);
	if (r == 0 && from.ino != to.ino) {
		if (to.ino && (S_ISDIR(st.mode) || st.nlink <= 1))
			node_unlinked(t, to.ino);
		node_renamed(t, from.ino, to.dir, to.name);
	}
	reply_err(t, req, r);
}

static void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t new_parent, const char *new_name)
{
	struct tree *t = tree_of(req, node);
	const struct node *to_dir = node_of(req, new_parent);
	struct vdisk_stat st = { 0 };
	uint64_t ino;
	int r = begin_change(node_of(req, node), &ino);

	if (r == 0 && to_dir->tree != t)
		r = -EXDEV;
	if (r == 0 && to_dir->gone)
		r = -ESTALE;
	if (r == 0 && !t->fs->ops->link)
		r = -EPERM;
	if (r == 0 && strlen(new_name) > VD_NAME_MAX)
		r = -ENAMETOOLONG;
	if (r == 0)
		r = t->fs->ops->stat(t->fs, ino, &st, NULL);
	if (r == 0 && !st.nlink)	/* its last name is gone */
		r = -ENOENT;
	if (r == 0)
		r = t->fs->ops->link(t->fs, ino, to_dir->ino, new_name, NULL);
	reply_entry(t, req, ino, r);
}

/* ---- changing attributes ---- */

static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int which,
		       struct fuse_file_info *fi)
{
	struct tree *t = tree_of(req, node);
	struct vdisk_stat st = {
		.mode = attr->st_mode & 07777, .uid = attr->st_uid, .gid = attr->st_gid,
		.atime = attr->st_atim, .mtime = attr->st_mtim, .ctime = attr->st_ctim,
	};
	unsigned attrs = 0;
	uint64_t ino;
	int r = begin_change(node_of(req, node), &ino);

	(void)fi;
	if (which & (FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)) {
		struct timespec now;

		clock_gettime(CLOCK_REALTIME, &now);
		if (which & FUSE_SET_ATTR_ATIME_NOW)
			st.atime = now;
		if (which & FUSE_SET_ATTR_MTIME_NOW)
			st.mtime = now;
	}
	attrs |= which & FUSE_SET_ATTR_MODE ? VD_ATTR_MODE : 0u;
	attrs |= which & FUSE_SET_ATTR_UID ? VD_ATTR_UID : 0u;
	attrs |= which & FUSE_SET_ATTR_GID ? VD_ATTR_GID : 0u;
	attrs |= which & FUSE_SET_ATTR_ATIME ? VD_ATTR_ATIME : 0u;
	attrs |= which & FUSE_SET_ATTR_MTIME ? VD_ATTR_MTIME : 0u;
	attrs |= which & FUSE_SET_ATTR_CTIME ? VD_ATTR_CTIME : 0u;
	if (r == 0 && (which & FUSE_SET_ATTR_SIZE)) {
		wait_moved(t, node_of(req, node));
		r = attr->st_size < 0 ? -EINVAL :
		    t->fs->ops->truncate(t->fs, ino, (uint64_t)attr->st_size, NULL);
	}
	if (r == 0 && attrs)
		r = t->fs->ops->setattr(t->fs, ino, &st, attrs, NULL);
	reply_attr(t, req, ino, r);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name, const char *value,
			size_t size, int flags)
{
	struct tree *t = tree_of(req, node);
	uint64_t ino;
	ssize_t have;
	int r = begin_change(node_of(req, node), &ino);

	if (r == 0 && !t->fs->ops->setxattr)
		r = -EOPNOTSUPP;
	if (r == 0 && flags) {
		have = t->fs->ops->getxattr(t->fs, ino, name, NULL, 0, NULL);
		if ((flags & XATTR_CREATE) && have >= 0)
			r = -EEXIST;
		else if ((flags & XATTR_REPLACE) && have < 0)
			r = (int)have;
	}
	if (r == 0)
		r = t->fs->ops->setxattr(t->fs, ino, name, value ? value : "", size, NULL);
	reply_err(t, req, r);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name)
{
	struct tree *t = tree_of(req, node);
	uint64_t ino;
	int r = begin_change(node_of(req, node), &ino);

	if (r == 0)
		r = t->fs->ops->setxattr ?
		    t->fs->ops->setxattr(t->fs, ino, name, NULL, 0, NULL) : -EOPNOTSUPP;
	reply_err(t, req, r);
}

/*
 * The kernel asks for an attribute before each write: told that there are none here at
 * all, which it takes to hold for every file system of the mount, it asks no more.
 */
static int no_xattrs(fuse_req_t req)
{
	return mount_of(req)->trees->next ? -EOPNOTSUPP : -ENOSYS;
}

/* @name NULL: the list of names. */
static void read_xattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	struct tree *t = tree_of(req, node);
	AUTO_FREE char *buf = malloc(size + 1);
	uint64_t ino;
	ssize_t n = begin(node_of(req, node), &ino);

	if (!buf)
		n = -ENOMEM;
	else if (n == 0 && !t->fs->ops->listxattr)
		n = name ? no_xattrs(req) : 0;
	else if (n == 0)
		n = name ? t->fs->ops->getxattr(t->fs, ino, name, buf, size, NULL) :
			   t->fs->ops->listxattr(t->fs, ino, buf, size, NULL);
	pthread_mutex_unlock(&t->lock);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	read_xattr(req, node, name, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size)
{
	read_xattr(req, node, NULL, size);
}

/* ---- contents ---- */

/*
 * Nobody needs ->open: told so once, the kernel stops asking.  Only where some file
 * systems cannot be written, which the kernel does not know, it has to be asked.
 */
static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	if (!mount_of(req)->mixed) {
		fuse_reply_err(req, ENOSYS);
	} else if ((fi->flags & O_ACCMODE) != O_RDONLY && !tree_of(req, node)->fs->writable) {
		fuse_reply_err(req, EROFS);
	} else {
		fi->keep_cache = 1;
		fuse_reply_open(req, fi);
	}
}

/* Where [off, off + len) is, and the node marked as being moved. */
static int begin_move(struct tree *t, struct node *n, uint64_t off, uint64_t len,
		      bool write, struct vd_fs_run *runs)
{
	int r = -EAGAIN;

	if (t->fs->ops->map)
		r = t->fs->ops->map(t->fs, n->ino, off, len, write, runs, MAX_RUNS, NULL);
	if (r > 0) {
		n->moving++;
		t->writing += write;
	}
	return r;
}

static void end_move(struct tree *t, struct node *n, bool write, int r)
{
	pthread_mutex_lock(&t->lock);
	if (write && r < 0) {
		struct vdisk_error err = { .code = -r };

		snprintf(err.msg, sizeof(err.msg), "%s: cannot write: %s", vdisk_name(t->fs->disk),
			 strerror(-r));
		remember(t, &err);
		t->fs->ops->fail(t->fs, r);
	}
	t->writing -= write;
	n->moving--;
	if (!n->moving || (write && !t->writing))
		pthread_cond_broadcast(&t->moved);
	node_forget(t, n, 0);
	pthread_mutex_unlock(&t->lock);
}

static int move_runs(struct tree *t, const struct vd_fs_run *runs, unsigned n,
		     uint8_t *buf, bool write, size_t *done)
{
	int r = 0;

	*done = 0;
	for (unsigned i = 0; r == 0 && i < n; i++) {
		if (write)
			r = vdisk_write(t->fs->disk, buf + *done, runs[i].len, runs[i].at);
		else if (runs[i].at == VD_FS_RUN_ZERO)
			memset(buf + *done, 0, runs[i].len);
		else
			r = vdisk_read(t->fs->disk, buf + *done, runs[i].len, runs[i].at);
		*done += runs[i].len;
	}
	return r;
}

/* Up to @len bytes; what was read, or -errno.  The lock is held before and not after. */
static ssize_t read_some(struct tree *t, struct node *n, uint8_t *buf, size_t len,
			 uint64_t off)
{
	struct vd_fs_run runs[MAX_RUNS];
	size_t done = 0;
	ssize_t got;
	int r = begin_move(t, n, off, len, false, runs);

	if (r == -EAGAIN) {
		got = t->fs->ops->read(t->fs, n->ino, buf, len, off, NULL);
		pthread_mutex_unlock(&t->lock);
		return got;
	}
	pthread_mutex_unlock(&t->lock);
	if (r <= 0)
		return r;
	r = move_runs(t, runs, (unsigned)r, buf, false, &done);
	end_move(t, n, false, r);
	return r < 0 ? r : (ssize_t)done;
}

static void op_read(fuse_req_t req, fuse_ino_t node, size_t len, off_t off,
		    struct fuse_file_info *fi)
{
	struct tree *t = tree_of(req, node);
	uint8_t *buf = vd_session_buffer();
	size_t done = 0;
	ssize_t n = 1;
	uint64_t ino;

	len = MIN(len, (size_t)VD_SESSION_IO);
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	while (done < len && n > 0) {
		n = begin(node_of(req, node), &ino);
		if (n < 0) {
			pthread_mutex_unlock(&t->lock);
			break;
		}
		n = read_some(t, node_of(req, node), buf + done, len - done,
			      (uint64_t)off + done);
		if (n > 0)
			done += (size_t)n;
	}
	/* the end of the file is where the kernel's cache has it, maybe farther than ours */
	if (n == 0 && done < len && !(fi && (fi->flags & O_DIRECT))) {
		memset(buf + done, 0, len - done);
		done = len;
	}
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_buf(req, (char *)buf, done);
}

/* The same for writing; the bytes written. */
static ssize_t write_some(struct tree *t, struct node *n, const uint8_t *buf, size_t len,
			  uint64_t off)
{
	struct vd_fs_run runs[MAX_RUNS];
	size_t whole = len - len % t->block_size, done = 0;
	ssize_t put;
	int r = -EAGAIN;

	if (whole >= DIRECT_WRITE && off % t->block_size == 0)
		r = begin_move(t, n, off, whole, true, runs);
	if (r == -EAGAIN) {
		put = t->fs->ops->write(t->fs, n->ino, buf, len, off, NULL);
		pthread_mutex_unlock(&t->lock);
		return put;
	}
	pthread_mutex_unlock(&t->lock);
	if (r <= 0)
		return r;
	/* the buffer is only read from */
	r = move_runs(t, runs, (unsigned)r, (uint8_t *)(uintptr_t)buf, true, &done);
	end_move(t, n, true, r);
	return r < 0 ? r : (ssize_t)done;
}

static void op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t len, off_t off,
		     struct fuse_file_info *fi)
{
	struct tree *t = tree_of(req, node);
	size_t done = 0;
	ssize_t n = 1;
	uint64_t ino;

	(void)fi;
	while (done < len && n > 0) {
		n = begin_change(node_of(req, node), &ino);
		if (n < 0) {
			pthread_mutex_unlock(&t->lock);
			break;
		}
		n = write_some(t, node_of(req, node), (const uint8_t *)buf + done, len - done,
			       (uint64_t)off + done);
		if (n > 0)
			done += (size_t)n;
	}
	if (done)
		fuse_reply_write(req, done);
	else
		fuse_reply_err(req, n < 0 ? (int)-n : EIO);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	struct tree *t = tree_of(req, node);
	struct vdisk_stat st = { 0 };
	uint64_t ino, end = (uint64_t)off + (uint64_t)len;
	int what = mode & ~FALLOC_FL_KEEP_SIZE;
	int r = begin_change(node_of(req, node), &ino);

	(void)fi;
	if (r == 0 && (!t->fs->ops->punch ||
		       (what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE)))
		r = -EOPNOTSUPP;
	if (r == 0) {
		wait_moved(t, node_of(req, node));
		r = t->fs->ops->punch(t->fs, ino, (uint64_t)off, (uint64_t)len, NULL);
	}
	if (r == 0 && !(mode & FALLOC_FL_KEEP_SIZE)) {
		r = t->fs->ops->stat(t->fs, ino, &st, NULL);
		if (r == 0 && st.size < end)
			r = t->fs->ops->truncate(t->fs, ino, end, NULL);
	}
	reply_err(t, req, r);
}

static void op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	struct tree *t = tree_of(req, node);
	uint64_t ino, at = (uint64_t)off, start = 0, length = 0;
	struct vdisk_stat st = { 0 };
	int r = begin(node_of(req, node), &ino);

	(void)fi;
	if (r == 0 && (t->fs->writable || !t->fs->ops->next_data))
		r = -ENOSYS;	/* then to the kernel all is data */
	if (r == 0)
		r = t->fs->ops->stat(t->fs, ino, &st, NULL);
	if (r == 0 && at >= st.size)
		r = -ENXIO;
	while (r == 0) {
		r = t->fs->ops->next_data(t->fs, ino, at, &start, &length, NULL);
		if (r < 0)
			break;
		if (whence == SEEK_DATA) {
			at = start;
			r = length ? 0 : -ENXIO;
			break;
		}
		if (!length || start > at)	/* a hole, or the end, is here */
			break;
		at = start + length;
		if (at >= st.size)
			break;
	}
	pthread_mutex_unlock(&t->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, (off_t)MIN(at, st.size));
}

/* ---- saving ---- */

/* Rule 4; the lock is held. */
static int commit(struct tree *t)
{
	const struct vd_fs_ops *ops = t->fs->ops;
	struct vdisk_error err = { 0 };
	int r;

	if (!t->fs->writable)
		return 0;
	while (t->writing)
		pthread_cond_wait(&t->moved, &t->lock);
	if (!t->dirty)
		return 0;
	t->dirty = false;
	r = ops->commit ? ops->commit(t->fs, &err) : ops->sync(t->fs, &err);
	if (r < 0)
		remember(t, &err);
	return r;
}

static void op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	struct tree *t = tree_of(req, node);
	uint64_t ino;
	int r = begin(node_of(req, node), &ino);

	(void)datasync, (void)fi;
	if (r == 0)
		r = commit(t);
	reply_err(t, req, r);
}

static void commit_tree(struct tree *t)
{
	bool dirty;

	pthread_mutex_lock(&t->lock);
	dirty = t->dirty;
	pthread_mutex_unlock(&t->lock);
	if (!dirty)
		return;
	/* most of the waiting is done while others go on */
	vdisk_flush(t->fs->disk);
	pthread_mutex_lock(&t->lock);
	commit(t);
	pthread_mutex_unlock(&t->lock);
}

static void *commit_thread(void *arg)
{
	struct vdisk_mount *m = arg;

	pthread_mutex_lock(&m->lock);
	while (!m->ending) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += COMMIT_SECONDS;
		pthread_cond_timedwait(&m->tick, &m->lock, &until);
		if (m->ending)
			break;
		pthread_mutex_unlock(&m->lock);
		for (struct tree *t = m->trees; t; t = t->next)
			commit_tree(t);
		pthread_mutex_lock(&m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

static const struct fuse_lowlevel_ops mount_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsync,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
};

/* ---- mounting and serving ---- */

/* In "-o" a comma and a backslash are escaped. */
static void put_option(char *out, size_t size, const char *text)
{
	size_t n = strlen(out);

	for (; *text && n + 3 < size; text++) {
		if (*text == ',' || *text == '\\')
			out[n++] = '\\';
		out[n++] = *text;
	}
	out[n] = '\0';
}

static int mount_start(struct vdisk_mount *m, const struct vdisk_mount_opts *o,
		       struct vdisk_error *err)
{
	const struct vdisk_fs *fs = m->trees->fs;
	uint32_t flags = o ? o->flags : 0;
	char options[1024];

	snprintf(options, sizeof(options), "nosuid,nodev,noatime,subtype=vdisk.%s%s%s%s,fsname=",
		 fs->type, fs->writable ? "" : ",ro",
		 flags & VDISK_MOUNT_ALLOW_OTHER ? ",allow_other" : "",
		 flags & (VDISK_MOUNT_ALLOW_OTHER | VDISK_MOUNT_PERMISSIONS) ?
			 ",default_permissions" : "");
	put_option(options, sizeof(options), o && o->source ? o->source : vdisk_name(fs->disk));
	return vd_session_start(&m->session, m->dir, &mount_ops, sizeof(mount_ops), m, options,
				err);
}

static void tree_free(struct tree *t)
{
	if (!t)
		return;
	pthread_cond_destroy(&t->moved);
	pthread_mutex_destroy(&t->lock);
	free(t->path);
	free(t);
}

static int tree_new(struct tree **out, struct vdisk_fs *fs, const char *path,
		    struct vdisk_error *err)
{
	struct vdisk_fs_usage usage = { 0 };
	struct tree *t;
	int r = fs->ops->usage(fs, &usage, err);

	if (r < 0)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return vd_fail(err, ENOMEM, "out of memory");
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->moved, NULL);
	t->path = strdup(path);
	if (!t->path) {
		tree_free(t);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	t->fs = fs;
	t->root.ino = fs->root;
	t->root.tree = t;
	t->block_size = (uint32_t)usage.block_size;
	*out = t;
	return 0;
}

int vdisk_mount_new(struct vdisk_mount **out, struct vdisk_fs *fs, const char *dir,
		    const struct vdisk_mount_opts *opts, struct vdisk_error *err)
{
	struct vdisk_mount *m;
	pthread_condattr_t clock;
	struct stat st;
	int r;

	if (stat(dir, &st) < 0)
		return vd_fail(err, errno, "%s: %m", dir);
	if (!S_ISDIR(st.st_mode))
		return vd_fail(err, ENOTDIR, "%s: not a directory", dir);
	m = calloc(1, sizeof(*m));
	if (!m)
		return vd_fail(err, ENOMEM, "out of memory");
	m->session.stop_fd = -1;
	m->threads = opts && opts->threads ? opts->threads : 4 + vd_cpus();
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&m->tick, &clock);
	pthread_condattr_destroy(&clock);
	m->dir = realpath(dir, NULL);
	r = m->dir ? tree_new(&m->trees, fs, "", err) : vd_fail(err, errno, "%s: %m", dir);
	if (r == 0)
		r = mount_start(m, opts, err);
	if (r < 0) {
		vdisk_mount_free(m);
		return r;
	}
	*out = m;
	return 0;
}

/* The tree that @path is in, and what is left of it there. */
static struct tree *tree_above(struct vdisk_mount *m, const char *path, const char **rest)
{
	struct tree *found = m->trees;
	size_t longest = 0;

	for (struct tree *t = m->trees; t; t = t->next) {
		size_t n = strlen(t->path);

		if (n < longest || strncmp(path, t->path, n) != 0 || (path[n] && path[n] != '/'))
			continue;
		found = t;
		longest = n;
	}
	*rest = path + longest;
	return found;
}

int vdisk_mount_add(struct vdisk_mount *m, struct vdisk_fs *fs, const char *path,
		    struct vdisk_error *err)
{
	struct tree *t, *above, **last = &m->trees;
	struct vdisk_stat st = { 0 };
	uint64_t number = 0;
	const char *rest;
	int r;

	above = tree_above(m, path, &rest);
	if (*path != '/' || !*rest || !strcmp(rest, "/"))
		return vd_fail(err, EINVAL, "%s: something is mounted there", path);
	r = tree_new(&t, fs, path, err);
	if (r < 0)
		return r;
	t->above = above;
	r = vd_fs_find(above->fs, rest, true, &t->covered, err);
	if (r == 0)
		r = above->fs->ops->stat(above->fs, t->covered, &st, err);
	if (r == 0 && !S_ISDIR(st.mode))
		r = vd_fail(err, ENOTDIR, "%s: not a directory", path);
	if (r == 0)
		r = above->fs->ops->lookup(above->fs, t->covered, "..", &t->covered_in, err);
	if (r == 0 && (t->covered == above->fs->root || tree_on(above, t->covered)))
		r = vd_fail(err, EBUSY, "%s: something is mounted there", path);
	for (; *last; last = &(*last)->next)
		number++;
	if (r == 0 && number >= MAX_TREES)
		r = vd_fail(err, E2BIG, "%s: too many file systems", path);
	if (r < 0) {
		tree_free(t);
		return r;
	}
	t->number = number;
	m->mixed = m->mixed || fs->writable != m->trees->fs->writable;
	*last = t;
	return 0;
}

/* The kernel forgets everything at the end: nodes without a name are freed. */
static void forget_all(struct tree *t)
{
	while (t->gone)
		node_forget(t, t->gone, UINT64_MAX);
	for (unsigned i = 0; i < N_NODES; i++)
		while (t->nodes[i])
			node_forget(t, t->nodes[i], UINT64_MAX);
}

int vdisk_mount_run(struct vdisk_mount *m, struct vdisk_error *err)
{
	pthread_t committer;
	int r = -pthread_create(&committer, NULL, commit_thread, m);

	if (r < 0)
		return vd_fail(err, -r, "cannot start a thread: %s", strerror(-r));
	r = vd_session_serve(&m->session, m->threads, err);
	pthread_mutex_lock(&m->lock);
	m->ending = true;
	pthread_cond_broadcast(&m->tick);
	pthread_mutex_unlock(&m->lock);
	pthread_join(committer, NULL);

	for (struct tree *t = m->trees; t; t = t->next) {
		pthread_mutex_lock(&t->lock);
		forget_all(t);
		commit(t);
		pthread_mutex_unlock(&t->lock);
		if (r == 0 && t->problem.code) {
			if (err)
				*err = t->problem;
			r = -t->problem.code;
		}
	}
	return r;
}

/* fusermount3, which may do what this user may not. */
static int run_fusermount(const char *dir, bool lazy)
{
	const char *argv[] = { "fusermount3", "-u", "-q", lazy ? "-z" : "--", lazy ? "--" : dir,
			       lazy ? dir : NULL, NULL };
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (pid < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

static int unmount(const char *dir, bool lazy)
{
	if (umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	return errno == EPERM ? run_fusermount(dir, lazy) : -errno;
}

int vdisk_mount_stop(struct vdisk_mount *m, bool force, struct vdisk_error *err)
{
	int fd, r = unmount(m->dir, false);

	if (r == -EBUSY && force) {
		fd = open(m->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0) {
			syncfs(fd);
			close(fd);
		}
		r = unmount(m->dir, true);
		vd_session_stop(&m->session);
	}
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot unmount: %s", m->dir, strerror(-r));
	return 0;
}

void vdisk_mount_free(struct vdisk_mount *m)
{
	if (!m)
		return;
	vd_session_end(&m->session);
	while (m->trees) {
		struct tree *t = m->trees;

		m->trees = t->next;
		tree_free(t);
	}
	pthread_cond_destroy(&m->tick);
	pthread_mutex_destroy(&m->lock);
	free(m->dir);
	free(m);
}
