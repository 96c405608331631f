/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount.c - a file system of a guest as a directory of this host
 *
 * A FUSE server over the file system drivers in fs/.  The kernel keeps names,
 * attributes, pages and small writes in its caches, as nobody else changes the
 * file system; what reaches us is what the caches lack, and long writes.
 *
 *   1. The driver is used under m->lock, by one thread at a time.  File data
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
 * Lock order: m->lock, then nothing.
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

#define MAX_IO		(1u << 20)
#define MAX_RUNS	64u
#define DIRECT_WRITE	(128u << 10)	/* shorter ones the driver collects */
#define COMMIT_SECONDS	5
#define FOR_EVER	86400.0
#define ATTR_SECONDS	1.0		/* how much space a file takes changes behind the kernel */
#define N_NODES		65536u

struct node {
	struct node *next;		/* in its hash chain */
	uint64_t ino;
	uint64_t lookups;		/* as the kernel counts */
	unsigned moving;		/* threads that move its bytes: rule 2 */
	bool held;			/* the driver keeps it: rule 3 */
	bool gone;			/* no longer in the table */
};

struct vdisk_mount {
	struct vdisk_fs *fs;		/* borrowed */
	struct fuse_session *session;	/* owned */
	char *dir;			/* owned */
	bool mounted;
	unsigned threads;
	uint32_t block_size;
	struct node root;

	pthread_mutex_t lock;		/* guards the rest, and fs */
	pthread_cond_t moved;		/* moving or writing went down */
	pthread_cond_t tick;		/* ending changed */
	unsigned writing;		/* threads that move bytes to the disk */
	bool dirty;			/* something changed since the last commit */
	bool ending;
	struct vdisk_error problem;	/* the first failure to save something */
	struct node *nodes[N_NODES];	/* owned */
	struct node *gone;		/* owned: those that are gone */
};

static struct vdisk_mount *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- nodes ---- */

static struct node *node_of(struct vdisk_mount *m, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &m->root : (struct node *)(uintptr_t)ino;
}

static struct node **node_slot(struct vdisk_mount *m, uint64_t ino)
{
	return &m->nodes[(ino * 0x9e3779b97f4a7c15u >> 40) % N_NODES];
}

/* The chain that a node is in. */
static struct node **node_chain(struct vdisk_mount *m, const struct node *n)
{
	return n->gone ? &m->gone : node_slot(m, n->ino);
}

static struct node *node_find(struct vdisk_mount *m, uint64_t ino)
{
	struct node *n = *node_slot(m, ino);

	if (ino == m->root.ino)
		return &m->root;
	while (n && n->ino != ino)
		n = n->next;
	return n;
}

static void node_insert(struct vdisk_mount *m, struct node *n)
{
	struct node **slot = node_chain(m, n);

	n->next = *slot;
	*slot = n;
}

static void node_remove(struct vdisk_mount *m, struct node *n)
{
	struct node **p = node_chain(m, n);

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
}

/* The node with one lookup more; NULL: no memory. */
static struct node *node_get(struct vdisk_mount *m, uint64_t ino)
{
	struct node *n = node_find(m, ino);

	if (!n) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return NULL;
		n->ino = ino;
		node_insert(m, n);
	}
	n->lookups++;
	return n;
}

static void remember(struct vdisk_mount *m, const struct vdisk_error *err)
{
	if (!m->problem.code)
		m->problem = *err;
}

static void node_forget(struct vdisk_mount *m, struct node *n, uint64_t count)
{
	struct vdisk_error err = { 0 };

	if (n == &m->root)
		return;
	n->lookups -= MIN(n->lookups, count);
	if (n->lookups || n->moving)
		return;
	node_remove(m, n);
	if (n->held) {
		m->dirty = true;
		if (m->fs->ops->release(m->fs, n->ino, &err) < 0)
			remember(m, &err);
	}
	free(n);
}

/* Before @ino loses a name: rule 3. */
static int node_hold(struct vdisk_mount *m, uint64_t ino, struct vdisk_error *err)
{
	struct node *n = node_find(m, ino);
	int r = 0;

	if (n && !n->held && m->fs->ops->hold) {
		r = m->fs->ops->hold(m->fs, ino, err);
		n->held = r == 0;
	}
	return r;
}

/* And after it. */
static void node_unlinked(struct vdisk_mount *m, uint64_t ino)
{
	struct node *n = node_find(m, ino);

	if (n && !m->fs->ops->hold) {
		node_remove(m, n);
		n->gone = true;
		node_insert(m, n);
	}
}

/* A name moved: where numbers are places, the node's changed. */
static void node_renamed(struct vdisk_mount *m, uint64_t old, uint64_t dir, const char *name)
{
	struct node *n = node_find(m, old);
	uint64_t ino = 0;

	if (!n || m->fs->ops->lookup(m->fs, dir, name, &ino, NULL) < 0 || ino == old)
		return;
	node_remove(m, n);
	n->ino = ino;
	node_insert(m, n);
}

/* Rule 2, with the lock held. */
static void wait_moved(struct vdisk_mount *m, const struct node *n)
{
	while (n->moving)
		pthread_cond_wait(&m->moved, &m->lock);
}

/* ---- attributes ---- */

static void fill_stat(struct vdisk_mount *m, const struct vdisk_stat *st, struct stat *out)
{
	*out = (struct stat) {
		.st_ino = st->ino ? st->ino : 1,
		.st_mode = st->mode,
		.st_nlink = st->nlink,
		.st_uid = st->uid, .st_gid = st->gid,
		.st_rdev = makedev(st->rdev_major, st->rdev_minor),
		.st_size = (off_t)MIN(st->size, (uint64_t)INT64_MAX),
		.st_blksize = m->block_size,
		.st_blocks = (blkcnt_t)(st->allocated / 512),
		.st_atim = st->atime, .st_mtim = st->mtime, .st_ctim = st->ctime,
	};
}

static int node_stat(struct vdisk_mount *m, uint64_t ino, struct stat *out)
{
	struct vdisk_stat st = { 0 };
	int r = m->fs->ops->stat(m->fs, ino, &st, NULL);

	if (r == 0)
		fill_stat(m, &st, out);
	return r;
}

static double attr_seconds(const struct vdisk_mount *m)
{
	return m->fs->writable ? ATTR_SECONDS : FOR_EVER;
}

/* What the kernel gets to know of @ino, with one lookup more. */
static int make_entry(struct vdisk_mount *m, uint64_t ino, struct fuse_entry_param *e)
{
	struct node *n;
	int r;

	*e = (struct fuse_entry_param) {
		.attr_timeout = attr_seconds(m), .entry_timeout = FOR_EVER,
	};
	r = node_stat(m, ino, &e->attr);
	if (r < 0)
		return r;
	n = node_get(m, ino);
	if (!n)
		return -ENOMEM;
	e->ino = n == &m->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
	return 0;
}

/* ---- the frame of an operation ---- */

/*
 * Take the lock; the driver's number of a node.  -ESTALE: it is gone.  What is
 * begun is ended by one of the replies below, which drop the lock first.
 */
static int begin(struct vdisk_mount *m, fuse_ino_t node, uint64_t *ino)
{
	const struct node *n = node_of(m, node);

	pthread_mutex_lock(&m->lock);
	*ino = n->ino;
	return n->gone ? -ESTALE : 0;
}

static int commit(struct vdisk_mount *m);

static int begin_change(struct vdisk_mount *m, fuse_ino_t node, uint64_t *ino)
{
	const struct node *n = node_of(m, node);

	pthread_mutex_lock(&m->lock);
	if (m->fs->ops->commit_due && m->fs->ops->commit_due(m->fs))
		commit(m);
	*ino = n->ino;
	if (n->gone)
		return -ESTALE;
	if (!m->fs->writable)
		return -EROFS;
	m->dirty = true;
	return 0;
}

static void reply_err(struct vdisk_mount *m, fuse_req_t req, int r)
{
	pthread_mutex_unlock(&m->lock);
	fuse_reply_err(req, r < 0 ? -r : 0);
}

static void reply_entry(struct vdisk_mount *m, fuse_req_t req, uint64_t ino, int r)
{
	struct fuse_entry_param e;

	if (r == 0)
		r = make_entry(m, ino, &e);
	pthread_mutex_unlock(&m->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_entry(req, &e);
}

static void reply_attr(struct vdisk_mount *m, fuse_req_t req, uint64_t ino, int r)
{
	struct stat st;

	if (r == 0)
		r = node_stat(m, ino, &st);
	pthread_mutex_unlock(&m->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, attr_seconds(m));
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
	conn->max_write = MAX_IO;
	conn->max_readahead = MAX_IO;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct vdisk_mount *m = mount_of(req);
	struct fuse_entry_param none = { .entry_timeout = FOR_EVER };
	uint64_t dir, ino = 0;
	int r = begin(m, parent, &dir);

	if (r == 0 && !strcmp(name, "."))
		ino = dir;
	else if (r == 0)
		r = m->fs->ops->lookup(m->fs, dir, name, &ino, NULL);
	if (r == -ENOENT) {	/* which the kernel may remember, too */
		pthread_mutex_unlock(&m->lock);
		fuse_reply_entry(req, &none);
		return;
	}
	reply_entry(m, req, ino, r);
}

static void op_forget(fuse_req_t req, fuse_ino_t node, uint64_t count)
{
	struct vdisk_mount *m = mount_of(req);

	pthread_mutex_lock(&m->lock);
	node_forget(m, node_of(m, node), count);
	pthread_mutex_unlock(&m->lock);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *list)
{
	struct vdisk_mount *m = mount_of(req);

	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < count; i++)
		node_forget(m, node_of(m, list[i].ino), list[i].nlookup);
	pthread_mutex_unlock(&m->lock);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct vdisk_mount *m = mount_of(req);
	uint64_t ino;
	int r = begin(m, node, &ino);

	(void)fi;
	reply_attr(m, req, ino, r);
}

static void op_readlink(fuse_req_t req, fuse_ino_t node)
{
	struct vdisk_mount *m = mount_of(req);
	char target[VD_PATH_MAX];
	uint64_t ino;
	int r = begin(m, node, &ino);

	if (r == 0)
		r = m->fs->ops->readlink ?
		    m->fs->ops->readlink(m->fs, ino, target, sizeof(target), NULL) : -EINVAL;
	pthread_mutex_unlock(&m->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, target);
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct vdisk_mount *m = mount_of(req);
	struct vdisk_fs_usage u = { 0 };
	struct statvfs st;
	uint64_t ino;
	int r = begin(m, node, &ino);

	if (r == 0)
		r = m->fs->ops->usage(m->fs, &u, NULL);
	pthread_mutex_unlock(&m->lock);
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

static int dir_load(struct vdisk_mount *m, struct dir_list *d, uint64_t ino)
{
	uint64_t up = ino;
	int r;

	dir_empty(d);
	m->fs->ops->lookup(m->fs, ino, "..", &up, NULL);
	r = dir_add(d, ".", ino);
	if (r == 0)
		r = dir_add(d, "..", up);
	if (r == 0)
		r = m->fs->ops->list(m->fs, ino, dir_add, d, NULL);
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
static size_t put_entry(struct vdisk_mount *m, fuse_req_t req, const struct dir_entry *en,
			bool plus, char *buf, size_t room, off_t next)
{
	struct fuse_entry_param e = { .attr.st_ino = en->ino };
	struct node *n;
	size_t len;

	if (!plus) {
		struct vdisk_stat st = { 0 };

		if (m->fs->ops->stat(m->fs, en->ino, &st, NULL) == 0)
			e.attr.st_mode = st.mode;
		return fuse_add_direntry(req, buf, room, en->name, &e.attr, next);
	}
	/* one that cannot be read is still shown; looking it up tells why */
	if (is_dots(en->name) || make_entry(m, en->ino, &e) < 0)
		e = (struct fuse_entry_param) { .attr.st_ino = en->ino };
	len = fuse_add_direntry_plus(req, buf, room, en->name, &e, next);
	if (len > room && e.ino) {
		n = node_of(m, e.ino);
		node_forget(m, n, 1);
	}
	return len;
}

static void read_dir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		     const struct fuse_file_info *fi, bool plus)
{
	struct vdisk_mount *m = mount_of(req);
	struct dir_list *d = dir_of(fi);
	AUTO_FREE char *buf = malloc(size);
	size_t used = 0;
	uint64_t ino;
	int r = begin(m, node, &ino);

	if (!buf)
		r = -ENOMEM;
	if (r == 0 && (!d->loaded || off == 0))
		r = dir_load(m, d, ino);
	for (size_t i = (size_t)off; r == 0 && i < d->n; i++) {
		size_t len = put_entry(m, req, &d->v[i], plus, buf + used, size - used,
				       (off_t)i + 1);

		if (len > size - used)
			break;
		used += len;
	}
	pthread_mutex_unlock(&m->lock);
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
	struct vdisk_mount *m = mount_of(req);
	struct vdisk_stat st = {
		.mode = mode, .uid = who->uid, .gid = who->gid,
		.rdev_major = major(dev), .rdev_minor = minor(dev),
	}, up = { 0 };
	unsigned attrs = VD_ATTR_MODE | VD_ATTR_UID | VD_ATTR_GID;
	uint64_t dir, ino = 0;
	int r = begin_change(m, parent, &dir);

	if (r == 0 && strlen(name) > VD_NAME_MAX)
		r = -ENAMETOOLONG;
	if (r == 0)
		r = m->fs->ops->stat(m->fs, dir, &up, NULL);
	if (r == 0 && (up.mode & S_ISGID))
		attrs &= ~(unsigned)VD_ATTR_GID;
	if (r == 0 && !m->fs->ops->create)
		r = -EROFS;
	if (r == 0)
		r = m->fs->ops->create(m->fs, dir, name, &st, attrs, target, &ino, NULL);
	reply_entry(m, req, ino, r);
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
static int find_place(struct vdisk_mount *m, uint64_t dir, const char *name, struct vd_place *out)
{
	int r;

	if (strlen(name) > VD_NAME_MAX)
		return -ENAMETOOLONG;
	*out = (struct vd_place) { .dir = dir };
	memcpy(out->name, name, strlen(name) + 1);
	r = m->fs->ops->lookup(m->fs, dir, name, &out->ino, NULL);
	return r == -ENOENT ? 0 : r;
}

static void take_name(fuse_req_t req, fuse_ino_t parent, const char *name, bool want_dir)
{
	struct vdisk_mount *m = mount_of(req);
	struct vd_place place;
	struct vdisk_stat st = { 0 };
	uint64_t dir;
	int r = begin_change(m, parent, &dir);

	if (r == 0)
		r = find_place(m, dir, name, &place);
	if (r == 0)
		r = place.ino ? m->fs->ops->stat(m->fs, place.ino, &st, NULL) : -ENOENT;
	if (r == 0 && S_ISDIR(st.mode) != want_dir)
		r = want_dir ? -ENOTDIR : -EISDIR;
	if (r == 0 && !want_dir)
		r = node_hold(m, place.ino, NULL);
	if (r == 0)
		r = vd_fs_remove_at(m->fs, &place, false, NULL);
	if (r == 0 && (want_dir || st.nlink <= 1))
		node_unlinked(m, place.ino);
	reply_err(m, req, r);
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
	struct vdisk_mount *m = mount_of(req);
	const struct node *to_dir = node_of(m, new_parent);
	struct vd_place from, to = { 0 };
	struct vdisk_stat st = { 0 };
	uint64_t dir;
	int r = begin_change(m, parent, &dir);

	if (r == 0 && to_dir->gone)
		r = -ESTALE;
	if (r == 0 && (flags & ~(unsigned)RENAME_NOREPLACE))
		r = -EINVAL;
	if (r == 0)
		r = find_place(m, dir, name, &from);
	if (r == 0)
		r = find_place(m, to_dir->ino, new_name, &to);
	if (r == 0 && to.ino && (flags & RENAME_NOREPLACE))
		r = -EEXIST;
	if (r == 0 && to.ino && to.ino != from.ino) {
		r = m->fs->ops->stat(m->fs, to.ino, &st, NULL);
		if (r == 0 && !S_ISDIR(st.mode))
			r = node_hold(m, to.ino, NULL);
	}
	if (r == 0)
		r = vd_fs_rename_at(m->fs, &from, &to, NULL);
	if (r == 0 && from.ino != to.ino) {
		if (to.ino && (S_ISDIR(st.mode) || st.nlink <= 1))
			node_unlinked(m, to.ino);
		node_renamed(m, from.ino, to.dir, to.name);
	}
	reply_err(m, req, r);
}

static void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t new_parent, const char *new_name)
{
	struct vdisk_mount *m = mount_of(req);
	const struct node *to_dir = node_of(m, new_parent);
	struct vdisk_stat st = { 0 };
	uint64_t ino;
	int r = begin_change(m, node, &ino);

	if (r == 0 && to_dir->gone)
		r = -ESTALE;
	if (r == 0 && !m->fs->ops->link)
		r = -EPERM;
	if (r == 0 && strlen(new_name) > VD_NAME_MAX)
		r = -ENAMETOOLONG;
	if (r == 0)
		r = m->fs->ops->stat(m->fs, ino, &st, NULL);
	if (r == 0 && !st.nlink)	/* its last name is gone */
		r = -ENOENT;
	if (r == 0)
		r = m->fs->ops->link(m->fs, ino, to_dir->ino, new_name, NULL);
	reply_entry(m, req, ino, r);
}

/* ---- changing attributes ---- */

static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int which,
		       struct fuse_file_info *fi)
{
	struct vdisk_mount *m = mount_of(req);
	struct vdisk_stat st = {
		.mode = attr->st_mode & 07777, .uid = attr->st_uid, .gid = attr->st_gid,
		.atime = attr->st_atim, .mtime = attr->st_mtim, .ctime = attr->st_ctim,
	};
	unsigned attrs = 0;
	uint64_t ino;
	int r = begin_change(m, node, &ino);

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
		wait_moved(m, node_of(m, node));
		r = attr->st_size < 0 ? -EINVAL :
		    m->fs->ops->truncate(m->fs, ino, (uint64_t)attr->st_size, NULL);
	}
	if (r == 0 && attrs)
		r = m->fs->ops->setattr(m->fs, ino, &st, attrs, NULL);
	reply_attr(m, req, ino, r);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name, const char *value,
			size_t size, int flags)
{
	struct vdisk_mount *m = mount_of(req);
	uint64_t ino;
	ssize_t have;
	int r = begin_change(m, node, &ino);

	if (r == 0 && !m->fs->ops->setxattr)
		r = -EOPNOTSUPP;
	if (r == 0 && flags) {
		have = m->fs->ops->getxattr(m->fs, ino, name, NULL, 0, NULL);
		if ((flags & XATTR_CREATE) && have >= 0)
			r = -EEXIST;
		else if ((flags & XATTR_REPLACE) && have < 0)
			r = (int)have;
	}
	if (r == 0)
		r = m->fs->ops->setxattr(m->fs, ino, name, value ? value : "", size, NULL);
	reply_err(m, req, r);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name)
{
	struct vdisk_mount *m = mount_of(req);
	uint64_t ino;
	int r = begin_change(m, node, &ino);

	if (r == 0)
		r = m->fs->ops->setxattr ?
		    m->fs->ops->setxattr(m->fs, ino, name, NULL, 0, NULL) : -EOPNOTSUPP;
	reply_err(m, req, r);
}

/* @name NULL: the list of names. */
static void read_xattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	struct vdisk_mount *m = mount_of(req);
	AUTO_FREE char *buf = malloc(size + 1);
	uint64_t ino;
	ssize_t n = begin(m, node, &ino);

	if (!buf)
		n = -ENOMEM;
	else if (n == 0 && !m->fs->ops->listxattr)
		n = name ? -EOPNOTSUPP : 0;
	else if (n == 0)
		n = name ? m->fs->ops->getxattr(m->fs, ino, name, buf, size, NULL) :
			   m->fs->ops->listxattr(m->fs, ino, buf, size, NULL);
	pthread_mutex_unlock(&m->lock);
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

/* A thread's own buffer of MAX_IO bytes; freed with the thread. */
static pthread_key_t buffer_key;

static void buffer_init(void)
{
	pthread_key_create(&buffer_key, free);
}

static uint8_t *thread_buffer(void)
{
	uint8_t *buf = pthread_getspecific(buffer_key);

	if (!buf) {
		buf = aligned_alloc(4096, MAX_IO);
		if (buf && pthread_setspecific(buffer_key, buf) != 0) {
			free(buf);
			buf = NULL;
		}
	}
	return buf;
}

/* Nobody needs ->open: told so once, the kernel stops asking. */
static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	(void)node, (void)fi;
	fuse_reply_err(req, ENOSYS);
}

/* Where [off, off + len) is, and the node marked as being moved. */
static int begin_move(struct vdisk_mount *m, struct node *n, uint64_t off, uint64_t len,
		      bool write, struct vd_fs_run *runs)
{
	int r = -EAGAIN;

	if (m->fs->ops->map)
		r = m->fs->ops->map(m->fs, n->ino, off, len, write, runs, MAX_RUNS, NULL);
	if (r > 0) {
		n->moving++;
		m->writing += write;
	}
	return r;
}

static void end_move(struct vdisk_mount *m, struct node *n, bool write, int r)
{
	pthread_mutex_lock(&m->lock);
	if (write && r < 0) {
		struct vdisk_error err = { .code = -r };

		snprintf(err.msg, sizeof(err.msg), "%s: cannot write: %s", vdisk_name(m->fs->disk),
			 strerror(-r));
		remember(m, &err);
		m->fs->ops->fail(m->fs, r);
	}
	m->writing -= write;
	n->moving--;
	if (!n->moving || (write && !m->writing))
		pthread_cond_broadcast(&m->moved);
	node_forget(m, n, 0);
	pthread_mutex_unlock(&m->lock);
}

static int move_runs(struct vdisk_mount *m, const struct vd_fs_run *runs, unsigned n,
		     uint8_t *buf, bool write, size_t *done)
{
	int r = 0;

	*done = 0;
	for (unsigned i = 0; r == 0 && i < n; i++) {
		if (write)
			r = vdisk_write(m->fs->disk, buf + *done, runs[i].len, runs[i].at);
		else if (runs[i].at == VD_FS_RUN_ZERO)
			memset(buf + *done, 0, runs[i].len);
		else
			r = vdisk_read(m->fs->disk, buf + *done, runs[i].len, runs[i].at);
		*done += runs[i].len;
	}
	return r;
}

/* Up to @len bytes; what was read, or -errno.  The lock is held before and not after. */
static ssize_t read_some(struct vdisk_mount *m, struct node *n, uint8_t *buf, size_t len,
			 uint64_t off)
{
	struct vd_fs_run runs[MAX_RUNS];
	size_t done = 0;
	ssize_t got;
	int r = begin_move(m, n, off, len, false, runs);

	if (r == -EAGAIN) {
		got = m->fs->ops->read(m->fs, n->ino, buf, len, off, NULL);
		pthread_mutex_unlock(&m->lock);
		return got;
	}
	pthread_mutex_unlock(&m->lock);
	if (r <= 0)
		return r;
	r = move_runs(m, runs, (unsigned)r, buf, false, &done);
	end_move(m, n, false, r);
	return r < 0 ? r : (ssize_t)done;
}

static void op_read(fuse_req_t req, fuse_ino_t node, size_t len, off_t off,
		    struct fuse_file_info *fi)
{
	struct vdisk_mount *m = mount_of(req);
	uint8_t *buf = thread_buffer();
	size_t done = 0;
	ssize_t n = 1;
	uint64_t ino;

	len = MIN(len, (size_t)MAX_IO);
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	while (done < len && n > 0) {
		n = begin(m, node, &ino);
		if (n < 0) {
			pthread_mutex_unlock(&m->lock);
			break;
		}
		n = read_some(m, node_of(m, node), buf + done, len - done,
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
static ssize_t write_some(struct vdisk_mount *m, struct node *n, const uint8_t *buf, size_t len,
			  uint64_t off)
{
	struct vd_fs_run runs[MAX_RUNS];
	size_t whole = len - len % m->block_size, done = 0;
	ssize_t put;
	int r = -EAGAIN;

	if (whole >= DIRECT_WRITE && off % m->block_size == 0)
		r = begin_move(m, n, off, whole, true, runs);
	if (r == -EAGAIN) {
		put = m->fs->ops->write(m->fs, n->ino, buf, len, off, NULL);
		pthread_mutex_unlock(&m->lock);
		return put;
	}
	pthread_mutex_unlock(&m->lock);
	if (r <= 0)
		return r;
	/* the buffer is only read from */
	r = move_runs(m, runs, (unsigned)r, (uint8_t *)(uintptr_t)buf, true, &done);
	end_move(m, n, true, r);
	return r < 0 ? r : (ssize_t)done;
}

static void op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t len, off_t off,
		     struct fuse_file_info *fi)
{
	struct vdisk_mount *m = mount_of(req);
	size_t done = 0;
	ssize_t n = 1;
	uint64_t ino;

	(void)fi;
	while (done < len && n > 0) {
		n = begin_change(m, node, &ino);
		if (n < 0) {
			pthread_mutex_unlock(&m->lock);
			break;
		}
		n = write_some(m, node_of(m, node), (const uint8_t *)buf + done, len - done,
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
	struct vdisk_mount *m = mount_of(req);
	struct vdisk_stat st = { 0 };
	uint64_t ino, end = (uint64_t)off + (uint64_t)len;
	int what = mode & ~FALLOC_FL_KEEP_SIZE;
	int r = begin_change(m, node, &ino);

	(void)fi;
	if (r == 0 && (!m->fs->ops->punch ||
		       (what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE)))
		r = -EOPNOTSUPP;
	if (r == 0) {
		wait_moved(m, node_of(m, node));
		r = m->fs->ops->punch(m->fs, ino, (uint64_t)off, (uint64_t)len, NULL);
	}
	if (r == 0 && !(mode & FALLOC_FL_KEEP_SIZE)) {
		r = m->fs->ops->stat(m->fs, ino, &st, NULL);
		if (r == 0 && st.size < end)
			r = m->fs->ops->truncate(m->fs, ino, end, NULL);
	}
	reply_err(m, req, r);
}

static void op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	struct vdisk_mount *m = mount_of(req);
	uint64_t ino, at = (uint64_t)off, start = 0, length = 0;
	struct vdisk_stat st = { 0 };
	int r = begin(m, node, &ino);

	(void)fi;
	if (r == 0 && (m->fs->writable || !m->fs->ops->next_data))
		r = -ENOSYS;	/* then to the kernel all is data */
	if (r == 0)
		r = m->fs->ops->stat(m->fs, ino, &st, NULL);
	if (r == 0 && at >= st.size)
		r = -ENXIO;
	while (r == 0) {
		r = m->fs->ops->next_data(m->fs, ino, at, &start, &length, NULL);
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
	pthread_mutex_unlock(&m->lock);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, (off_t)MIN(at, st.size));
}

/* ---- saving ---- */

/* Rule 4; the lock is held. */
static int commit(struct vdisk_mount *m)
{
	const struct vd_fs_ops *ops = m->fs->ops;
	struct vdisk_error err = { 0 };
	int r;

	if (!m->fs->writable)
		return 0;
	while (m->writing)
		pthread_cond_wait(&m->moved, &m->lock);
	if (!m->dirty)
		return 0;
	m->dirty = false;
	r = ops->commit ? ops->commit(m->fs, &err) : ops->sync(m->fs, &err);
	if (r < 0)
		remember(m, &err);
	return r;
}

static void op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	struct vdisk_mount *m = mount_of(req);
	uint64_t ino;
	int r = begin(m, node, &ino);

	(void)datasync, (void)fi;
	if (r == 0)
		r = commit(m);
	reply_err(m, req, r);
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
		if (m->ending || !m->dirty)
			continue;
		/* most of the waiting is done while others go on */
		pthread_mutex_unlock(&m->lock);
		vdisk_flush(m->fs->disk);
		pthread_mutex_lock(&m->lock);
		commit(m);
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

/* What libfuse would print is kept for the message. */
static _Thread_local char last_log[200];

static void keep_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	if (level > FUSE_LOG_WARNING)
		return;
	vsnprintf(last_log, sizeof(last_log), fmt, ap);
	last_log[strcspn(last_log, "\n")] = '\0';
}

static void mount_once(void)
{
	fuse_set_log_func(keep_log);
	buffer_init();
}

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
	uint32_t flags = o ? o->flags : 0;
	char options[1024];
	char arg0[] = "vdisk", arg1[] = "-o";
	char *argv[] = { arg0, arg1, options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	snprintf(options, sizeof(options), "nosuid,nodev,noatime,subtype=vdisk.%s%s%s%s,fsname=",
		 m->fs->type, m->fs->writable ? "" : ",ro",
		 flags & VDISK_MOUNT_ALLOW_OTHER ? ",allow_other" : "",
		 flags & (VDISK_MOUNT_ALLOW_OTHER | VDISK_MOUNT_PERMISSIONS) ?
			 ",default_permissions" : "");
	put_option(options, sizeof(options),
		   o && o->source ? o->source : vdisk_name(m->fs->disk));
	last_log[0] = '\0';
	m->session = fuse_session_new(&args, &mount_ops, sizeof(mount_ops), m);
	fuse_opt_free_args(&args);
	if (!m->session)
		return vd_fail(err, EIO, "%s: cannot start FUSE: %s", m->dir, last_log);
	if (fuse_session_mount(m->session, m->dir) != 0)
		return vd_fail(err, EIO, "%s: cannot mount: %s%s", m->dir,
			       last_log[0] ? last_log : "FUSE refused",
			       access("/dev/fuse", R_OK | W_OK) == 0 ? "" :
			       " (/dev/fuse is not accessible)");
	m->mounted = true;
	return 0;
}

int vdisk_mount_new(struct vdisk_mount **out, struct vdisk_fs *fs, const char *dir,
		    const struct vdisk_mount_opts *opts, struct vdisk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct vdisk_fs_usage usage = { 0 };
	struct vdisk_mount *m;
	pthread_condattr_t clock;
	struct stat st;
	int r;

	if (stat(dir, &st) < 0)
		return vd_fail(err, errno, "%s: %m", dir);
	if (!S_ISDIR(st.st_mode))
		return vd_fail(err, ENOTDIR, "%s: not a directory", dir);
	r = fs->ops->usage(fs, &usage, err);
	if (r < 0)
		return r;
	pthread_once(&once, mount_once);
	m = calloc(1, sizeof(*m));
	if (!m)
		return vd_fail(err, ENOMEM, "out of memory");
	m->dir = realpath(dir, NULL);
	m->fs = fs;
	m->root.ino = fs->root;
	m->block_size = (uint32_t)usage.block_size;
	m->threads = opts && opts->threads ? opts->threads : 4 + vd_cpus();
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->moved, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&m->tick, &clock);
	pthread_condattr_destroy(&clock);
	r = m->dir ? mount_start(m, opts, err) : vd_fail(err, errno, "%s: %m", dir);
	if (r < 0) {
		vdisk_mount_free(m);
		return r;
	}
	*out = m;
	return 0;
}

/* The kernel forgets everything at the end: nodes without a name are freed. */
static void forget_all(struct vdisk_mount *m)
{
	while (m->gone)
		node_forget(m, m->gone, UINT64_MAX);
	for (unsigned i = 0; i < N_NODES; i++)
		while (m->nodes[i])
			node_forget(m, m->nodes[i], UINT64_MAX);
}

struct worker {
	struct vdisk_mount *m;
	pthread_t thread;
	struct fuse_buf buf;
	int result;
};

/* Only while it waits for a request is a worker cancelled. */
static void *work(void *arg)
{
	struct worker *w = arg;
	struct vdisk_mount *m = w->m;
	int old, r;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	for (;;) {
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
		r = fuse_session_receive_buf(m->session, &w->buf);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r <= 0 || fuse_session_exited(m->session))
			break;		/* unmounted, or broken */
		fuse_session_process_buf(m->session, &w->buf);
	}
	w->result = r;
	pthread_mutex_lock(&m->lock);
	m->ending = true;
	pthread_cond_broadcast(&m->tick);
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

static int serve(struct vdisk_mount *m, struct worker *w)
{
	unsigned n;
	int r = 0;

	for (n = 0; r == 0 && n < m->threads; n++) {
		w[n].m = m;
		r = -pthread_create(&w[n].thread, NULL, work, &w[n]);
	}
	n -= r != 0;
	pthread_mutex_lock(&m->lock);
	while (r == 0 && !m->ending)
		pthread_cond_wait(&m->tick, &m->lock);
	m->ending = true;
	pthread_cond_broadcast(&m->tick);
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < n; i++)
		pthread_cancel(w[i].thread);
	for (unsigned i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		free(w[i].buf.mem);
		if (r == 0 && w[i].result < 0 && w[i].result != -ENODEV)
			r = w[i].result;
	}
	return r;
}

int vdisk_mount_run(struct vdisk_mount *m, struct vdisk_error *err)
{
	AUTO_FREE struct worker *workers = calloc(m->threads, sizeof(*workers));
	pthread_t committer;
	int r;

	if (!workers)
		return vd_fail(err, ENOMEM, "out of memory");
	r = pthread_create(&committer, NULL, commit_thread, m);
	if (r)
		return vd_fail(err, r, "cannot start a thread: %s", strerror(r));
	r = serve(m, workers);
	pthread_join(committer, NULL);

	pthread_mutex_lock(&m->lock);
	forget_all(m);
	commit(m);
	pthread_mutex_unlock(&m->lock);
	if (m->problem.code) {
		if (err)
			*err = m->problem;
		return -m->problem.code;
	}
	return r < 0 ? vd_fail(err, -r, "FUSE: %s", strerror(-r)) : 0;
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
		pthread_mutex_lock(&m->lock);
		m->ending = true;
		pthread_cond_broadcast(&m->tick);
		pthread_mutex_unlock(&m->lock);
	}
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot unmount: %s", m->dir, strerror(-r));
	return 0;
}

void vdisk_mount_free(struct vdisk_mount *m)
{
	if (!m)
		return;
	if (m->mounted)
		fuse_session_unmount(m->session);
	if (m->session)
		fuse_session_destroy(m->session);
	pthread_cond_destroy(&m->moved);
	pthread_cond_destroy(&m->tick);
	pthread_mutex_destroy(&m->lock);
	free(m->dir);
	free(m);
}
