/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat_write.c - making, changing and removing files on FAT
 *
 * FAT has no owners, no permissions but "read-only", no links and no devices.
 * Owners and permissions are taken and forgotten, as a mount with "quiet" does,
 * so that trees of other systems can be copied into it; what is no file and no
 * directory is refused.
 *
 * See fat.h for the order in which things are written.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/fat.h"
#include "fs/volume.h"

#define SIZE_MAX_FAT UINT32_MAX

/* ---- entries of nodes ---- */

static int entry_write(struct fat *f, uint64_t ino, const uint8_t entry[FAT_ENTRY],
		       struct vdisk_error *err)
{
	struct fat_held *h = fat_held_find(f, ino);

	if (h && !h->at) {
		memcpy(h->entry, entry, FAT_ENTRY);
		return 0;
	}
	return fat_disk_write(f, entry, FAT_ENTRY, h ? h->at : ino, err);
}

static void set_first(const struct fat *f, uint8_t *e, uint32_t cluster)
{
	store_le16(e + 26, (uint16_t)cluster);
	if (f->g.bits == 32)
		store_le16(e + 20, (uint16_t)(cluster >> 16));
}

static void set_modified(uint8_t *e, struct timespec t)
{
	uint16_t date, time;
	uint8_t unused;

	fat_time_encode(t, &date, &time, &unused);
	store_le16(e + 22, time);
	store_le16(e + 24, date);
}

static void set_accessed(uint8_t *e, struct timespec t)
{
	uint16_t date, time;
	uint8_t unused;

	fat_time_encode(t, &date, &time, &unused);
	store_le16(e + 18, date);
}

static void set_created(uint8_t *e, struct timespec t)
{
	uint16_t date, time;

	fat_time_encode(t, &date, &time, e + 13);
	store_le16(e + 14, time);
	store_le16(e + 16, date);
}

static struct timespec now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t;
}

/* ---- contents ---- */

static uint32_t clusters_of(const struct fat *f, uint64_t size)
{
	return (uint32_t)((size + f->g.cluster - 1) / f->g.cluster);
}

/* Free what was appended to a chain behind @last (0: all of it). */
static int give_back(struct fat *f, uint32_t *first, uint32_t last)
{
	uint32_t next = *first;

	if (last && (fat_next_cluster(f, last, &next, NULL) != 0 ||
		     fat_table_put(f, last, 0x0fffffff, NULL) < 0))
		return 0;
	if (!last)
		*first = 0;
	return fat_chain_free(f, next, NULL);
}

/* Let the chain from @first have @want clusters at least; all or nothing. */
static int grow_chain(struct fat *f, uint32_t *first, uint32_t want, struct vdisk_error *err)
{
	uint32_t last = 0, have = 0, c;
	int r = 0;

	if (!want)
		return 0;
	if (*first) {
		r = fat_chain_seek(f, *first, want - 1, &last, err);
		if (r <= 0)
			return r;
		have = f->last_index + 1;
	}
	r = 0;
	c = last;
	for (; r == 0 && have < want; have++) {
		r = fat_cluster_new(f, c, &c, err);
		if (r == 0 && !*first)
			*first = c;
	}
	if (r < 0 && *first)
		give_back(f, first, last);
	return r;
}

/* Write @buf (NULL: zeroes) to [off, off + len) of a chain that reaches so far. */
static int write_chain(struct fat *f, uint32_t first, const uint8_t *buf, uint64_t len,
		       uint64_t off, struct vdisk_error *err)
{
	while (len > 0) {
		uint64_t at, piece;
		int r = fat_chain_map(f, first, off, len, &at, &piece, err);

		if (r > 0)
			return vd_fail(err, EUCLEAN, "its chain of clusters ends before it does");
		if (r == 0)
			r = buf ? fat_disk_write(f, buf, (size_t)piece, at, err) :
				  fat_disk_zero(f, at, piece, err);
		if (r < 0)
			return r;
		buf = buf ? buf + piece : NULL;
		off += piece;
		len -= piece;
	}
	return 0;
}

/* Have room for @end bytes, with zeroes from the present end up to @off. */
static int reach(struct fat *f, struct fat_node *n, uint64_t off, uint64_t end,
		 struct vdisk_error *err)
{
	uint32_t first = f->last_first, index = f->last_index, cluster = f->last_cluster;
	int r = grow_chain(f, &n->first, clusters_of(f, end), err);

	/* the next piece to be written is where the last one ended */
	if (first && first == n->first && (uint64_t)index * f->g.cluster <= off) {
		f->last_first = first;
		f->last_index = index;
		f->last_cluster = cluster;
	}
	if (r == 0 && off > n->size)
		r = write_chain(f, n->first, NULL, off - n->size, n->size, err);
	return r;
}

static int read_file(struct fat *f, uint64_t ino, uint8_t e[FAT_ENTRY], struct fat_node *n,
		     struct vdisk_error *err)
{
	int r = ino == FAT_ROOT_INO ? vd_fail(err, EISDIR, "is a directory") :
				      fat_entry_read(f, ino, e, err);

	if (r == 0)
		fat_node_decode(n, e, f->g.bits);
	if (r == 0 && n->attr & FAT_DIRECTORY)
		r = vd_fail(err, EISDIR, "is a directory");
	return r == 0 ? fat_mark(f, err) : r;
}

ssize_t fat_write(struct vdisk_fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
		  struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	uint8_t e[FAT_ENTRY];
	struct fat_node n;
	uint64_t end;
	int r;

	if (!vd_add(off, len, &end) || end > SIZE_MAX_FAT)
		return vd_fail(err, EFBIG, "a file in FAT has less than 4 GiB");
	if (!len)
		return 0;
	r = read_file(f, ino, e, &n, err);
	if (r == 0)
		r = reach(f, &n, off, end, err);
	if (r == 0)
		r = write_chain(f, n.first, buf, len, off, err);
	if (r == 0)
		r = fat_table_flush(f, err);
	if (r < 0)
		return r;
	e[11] |= 0x20;	/* to be archived */
	set_first(f, e, n.first);
	store_le32(e + 28, (uint32_t)MAX(end, (uint64_t)n.size));
	set_modified(e, now());
	r = entry_write(f, ino, e, err);
	return r < 0 ? r : (ssize_t)len;
}

static int shrink(struct fat *f, uint64_t ino, uint8_t e[FAT_ENTRY], const struct fat_node *n,
		  uint32_t size, struct vdisk_error *err)
{
	uint32_t last = 0, next = 0;
	int r = 0;

	if (size) {
		r = fat_chain_seek(f, n->first, clusters_of(f, size) - 1, &last, err);
		if (r > 0)
			return vd_fail(err, EUCLEAN, "its chain of clusters ends before it does");
	} else {
		set_first(f, e, 0);
	}
	if (r == 0)
		r = entry_write(f, ino, e, err);
	if (r < 0)
		return r;
	if (!last)
		r = fat_chain_free(f, n->first, err);
	else if (fat_next_cluster(f, last, &next, err) == 0) {
		r = fat_table_put(f, last, 0x0fffffff, err);
		if (r == 0)
			r = fat_chain_free(f, next, err);
	}
	return r == 0 ? fat_table_flush(f, err) : r;
}

int fat_truncate(struct vdisk_fs *fs, uint64_t ino, uint64_t size, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	uint8_t e[FAT_ENTRY];
	struct fat_node n;
	int r;

	if (size > SIZE_MAX_FAT)
		return vd_fail(err, EFBIG, "a file in FAT has less than 4 GiB");
	r = read_file(f, ino, e, &n, err);
	if (r < 0)
		return r;
	store_le32(e + 28, (uint32_t)size);
	set_modified(e, now());
	if (size <= n.size)
		return shrink(f, ino, e, &n, (uint32_t)size, err);
	r = reach(f, &n, size, size, err);
	if (r == 0)
		r = fat_table_flush(f, err);
	set_first(f, e, n.first);
	return r == 0 ? entry_write(f, ino, e, err) : r;
}

/* ---- places in directories ---- */

struct slots {
	const struct fat *f;
	unsigned need, n;
	uint64_t at[FAT_NAME_ENTRIES];
	bool ended;		/* the entries from here on were never used */
	uint64_t stale;		/* an entry behind them that is not zero, but should be; 0: none */
};

static int find_slot(void *arg, const uint8_t e[FAT_ENTRY], uint64_t at)
{
	struct slots *s = arg;

	if (s->n == s->need) {	/* one more was looked at: what ends the directory */
		s->stale = s->ended && e[0] ? at : 0;
		return 1;
	}
	s->ended |= e[0] == 0;
	if (!s->ended && e[0] != 0xe5) {
		s->n = 0;
		return 0;
	}
	/* the number of a file in use must not become that of another */
	for (const struct fat_held *h = s->f->held; h; h = h->next)
		if (h->ino == at && h->at != at) {
			s->n = 0;
			if (s->ended)
				s->stale = 0;
			return 0;
		}
	s->at[s->n++] = at;
	return s->n == s->need && !s->ended ? 1 : 0;
}

/* Append a cluster of zeroes to a directory. */
static int extend_dir(struct fat *f, uint64_t dir, struct vdisk_error *err)
{
	uint32_t last = 0, c = 0;
	struct fat_node n;
	int r = fat_node_read(f, dir, &n, err);

	if (r < 0)
		return r;
	if (dir == FAT_ROOT_INO && f->g.root_size)
		return vd_fail(err, ENOSPC, "the root directory is full");
	r = fat_chain_seek(f, n.first, MIN(FAT_DIR_MAX / f->g.cluster, f->g.n_clusters) - 1, &last,
			   err);
	if (r == 0)
		return vd_fail(err, ENOSPC, "the directory is full");
	if (r > 0)
		r = fat_cluster_new(f, 0, &c, err);
	if (r == 0)
		r = fat_disk_zero(f, f->g.data + (uint64_t)(c - 2) * f->g.cluster, f->g.cluster, err);
	if (r == 0)
		r = fat_table_put(f, last, c, err);
	return r == 0 ? fat_table_flush(f, err) : r;
}

static int find_slots(struct fat *f, uint64_t dir, unsigned need, struct slots *out,
		      struct vdisk_error *err)
{
	for (;;) {
		int r;

		*out = (struct slots) { .f = f, .need = need };
		r = fat_dir_raw(f, dir, find_slot, out, err);
		if (r < 0 || out->n == need)
			return MIN(r, 0);
		r = extend_dir(f, dir, err);
		if (r < 0)
			return r;
	}
}

/* Enter @name in a directory; @at: where the node's own entry got. */
static int enter(struct fat *f, uint64_t dir, const struct fat_new_name *name, uint64_t *at,
		 struct vdisk_error *err)
{
	static const uint8_t zero[FAT_ENTRY];
	struct slots s;
	int r = find_slots(f, dir, name->n, &s, err);

	if (r == 0 && s.stale)
		r = fat_disk_write(f, zero, sizeof(zero), s.stale, err);
	for (unsigned i = 0, k; r == 0 && i < name->n; i = k) {
		for (k = i + 1; k < name->n && s.at[k] == s.at[k - 1] + FAT_ENTRY; k++)
			;
		r = fat_disk_write(f, name->entry[i], (size_t)(k - i) * FAT_ENTRY, s.at[i], err);
	}
	if (r == 0)
		*at = s.at[name->n - 1];
	return r;
}

struct own_entries {
	uint64_t target;
	uint64_t at[FAT_NAME_ENTRIES]; /* of the long name before it */
	unsigned n;
};

static int find_own(void *arg, const uint8_t e[FAT_ENTRY], uint64_t at)
{
	struct own_entries *o = arg;

	if (at == o->target)
		return 1;
	if (e[0] == 0xe5 || (e[11] & 0x3f) != FAT_LONG_NAME)
		o->n = 0;
	else if (o->n < FAT_NAME_ENTRIES)
		o->at[o->n++] = at;
	return 0;
}

/* Mark the entry at @at, and those of its long name, as removed. */
static int leave(struct fat *f, uint64_t dir, uint64_t at, struct vdisk_error *err)
{
	static const uint8_t removed = 0xe5;
	struct own_entries o = { .target = at };
	int r = fat_dir_raw(f, dir, find_own, &o, err);

	if (r == 0)
		return vd_fail(err, EUCLEAN, "its entry is not in the directory");
	if (r > 0)
		r = fat_disk_write(f, &removed, 1, at, err);
	for (unsigned i = 0; r == 0 && i < o.n; i++)
		r = fat_disk_write(f, &removed, 1, o.at[i], err);
	return r;
}

struct taken {
	struct fat *f;
	uint64_t dir;
	uint64_t own;		/* an entry that does not count */
	const uint8_t *name;
	struct vdisk_error *err;
};

static int same_short(void *arg, const uint8_t e[FAT_ENTRY], uint64_t at)
{
	const struct taken *t = arg;

	if (e[0] == 0)
		return 2;
	return e[0] != 0xe5 && !(e[11] & FAT_VOLUME) && at != t->own &&
	       memcmp(e, t->name, 11) == 0;
}

static int is_taken(void *arg, const uint8_t name[11])
{
	struct taken *t = arg;
	int r;

	t->name = name;
	r = fat_dir_raw(t->f, t->dir, same_short, t, t->err);
	return r == 2 ? 0 : r;
}

/* ---- create ---- */

/* A cluster with "." and ".."; @e is the entry of the new directory. */
static int make_dir(struct fat *f, uint64_t parent, uint8_t *e, struct vdisk_error *err)
{
	uint8_t dots[2][FAT_ENTRY];
	struct fat_node up;
	uint32_t c = 0;
	uint64_t at;
	int r = fat_node_read(f, parent, &up, err);

	if (r == 0)
		r = fat_cluster_new(f, 0, &c, err);
	if (r < 0)
		return r;
	set_first(f, e, c);
	memcpy(dots[0], e, FAT_ENTRY);
	memcpy(dots[0], ".          ", 11);
	memcpy(dots[1], e, FAT_ENTRY);
	memcpy(dots[1], "..         ", 11);
	dots[0][11] = dots[1][11] = FAT_DIRECTORY;
	set_first(f, dots[1], parent == FAT_ROOT_INO ? 0 : up.first);
	at = f->g.data + (uint64_t)(c - 2) * f->g.cluster;
	r = fat_disk_zero(f, at, f->g.cluster, err);
	if (r == 0)
		r = fat_disk_write(f, dots, sizeof(dots), at, err);
	if (r == 0)
		r = fat_table_flush(f, err);
	if (r < 0)
		fat_chain_free(f, c, NULL);
	return r;
}

static void describe(uint8_t *e, const struct vdisk_stat *st, unsigned attrs)
{
	struct timespec t = now();

	memset(e, 0, FAT_ENTRY);
	e[11] = S_ISDIR(st->mode) ? FAT_DIRECTORY : 0x20;
	if (!S_ISDIR(st->mode) && !(st->mode & 0222))
		e[11] |= FAT_READ_ONLY;
	set_created(e, attrs & VD_ATTR_CRTIME ? st->crtime : t);
	set_accessed(e, attrs & VD_ATTR_ATIME ? st->atime : t);
	set_modified(e, attrs & VD_ATTR_MTIME ? st->mtime : t);
}

int fat_create(struct vdisk_fs *fs, uint64_t dir, const char *name, const struct vdisk_stat *st,
	       unsigned attrs, const char *target, uint64_t *ino, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct taken taken = { .f = f, .dir = dir, .err = err };
	struct fat_new_name new;
	uint8_t *e;
	int r;

	(void)target;
	if (!S_ISREG(st->mode) && !S_ISDIR(st->mode))
		return vd_fail(err, ENOTSUP, "FAT has files and directories only, no %s",
			       S_ISLNK(st->mode) ? "symbolic links" : "devices, fifos or sockets");
	r = fat_mark(f, err);
	if (r < 0)
		return r;
	describe(new.entry[0], st, attrs);
	r = fat_name_new(&new, name, is_taken, &taken, err);
	if (r < 0)
		return r;
	e = new.entry[new.n - 1];
	if (S_ISDIR(st->mode)) {
		r = make_dir(f, dir, e, err);
		if (r < 0)
			return r;
	}
	r = enter(f, dir, &new, ino, err);
	if (r < 0 && S_ISDIR(st->mode)) {
		struct fat_node n;

		fat_node_decode(&n, e, f->g.bits);
		fat_chain_free(f, n.first, NULL);
	}
	return r;
}

int fat_link(struct vdisk_fs *fs, uint64_t ino, uint64_t dir, const char *name,
	     struct vdisk_error *err)
{
	(void)fs, (void)ino, (void)dir, (void)name;
	return vd_fail(err, ENOTSUP, "a file in FAT has one name only");
}

int fat_setattr(struct vdisk_fs *fs, uint64_t ino, const struct vdisk_stat *st, unsigned attrs,
		struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	uint8_t e[FAT_ENTRY], before[FAT_ENTRY];
	int r;

	if (ino == FAT_ROOT_INO)
		return 0;
	r = fat_entry_read(f, ino, e, err);
	if (r < 0)
		return r;
	memcpy(before, e, sizeof(e));
	if (attrs & VD_ATTR_MODE && !(e[11] & FAT_DIRECTORY))
		e[11] = (uint8_t)(st->mode & 0222 ? e[11] & ~FAT_READ_ONLY : e[11] | FAT_READ_ONLY);
	if (attrs & VD_ATTR_ATIME)
		set_accessed(e, st->atime);
	if (attrs & VD_ATTR_MTIME)
		set_modified(e, st->mtime);
	if (attrs & VD_ATTR_CRTIME)
		set_created(e, st->crtime);
	if (!memcmp(before, e, sizeof(e)))
		return 0;
	r = fat_mark(f, err);
	return r < 0 ? r : entry_write(f, ino, e, err);
}

/* ---- remove, rename ---- */

int fat_unlink(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
	       struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct fat_held *h = fat_held_find(f, ino);
	uint8_t e[FAT_ENTRY];
	struct fat_node n;
	int r = fat_mark(f, err);

	(void)name;
	if (r == 0)
		r = fat_entry_read(f, ino, e, err);
	if (r == 0)
		r = leave(f, dir, h ? h->at : ino, err);
	if (r < 0)
		return r;
	if (h) {	/* it goes when its last user does */
		memcpy(h->entry, e, sizeof(e));
		h->at = 0;
		return 0;
	}
	fat_node_decode(&n, e, f->g.bits);
	r = fat_chain_free(f, n.first, err);
	return r == 0 ? fat_table_flush(f, err) : r;
}

/* Let ".." of the directory from cluster @first on mean @up. */
static int set_parent(struct fat *f, uint32_t first, uint64_t up, struct vdisk_error *err)
{
	uint64_t at = f->g.data + (uint64_t)(first - 2) * f->g.cluster + FAT_ENTRY;
	uint8_t e[FAT_ENTRY] = { 0 };
	struct fat_node parent;
	int r = fat_node_read(f, up, &parent, err);

	if (r == 0 && !fat_exists(f, first))
		r = vd_fail(err, EUCLEAN, "it begins in cluster %u, which is none", first);
	if (r == 0)
		r = fat_disk_read(f, e, sizeof(e), at, err);
	if (r < 0 || memcmp(e, "..         ", 11) != 0)
		return r;
	set_first(f, e, up == FAT_ROOT_INO ? 0 : parent.first);
	return fat_disk_write(f, e, sizeof(e), at, err);
}

int fat_rename(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
	       uint64_t to_dir, const char *to_name, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct fat_held *h = fat_held_find(f, ino);
	uint64_t from = h ? h->at : ino, at = 0;
	struct taken taken = { .f = f, .dir = to_dir, .own = from, .err = err };
	struct fat_new_name new = { 0 };
	struct fat_node n;
	int r = fat_mark(f, err);

	(void)name;
	if (r == 0)
		r = fat_entry_read(f, ino, new.entry[0], err);
	if (r < 0)
		return r;
	fat_node_decode(&n, new.entry[0], f->g.bits);
	r = fat_name_new(&new, to_name, is_taken, &taken, err);
	if (r == 0)
		r = enter(f, to_dir, &new, &at, err);
	if (r == 0 && n.attr & FAT_DIRECTORY && dir != to_dir)
		r = set_parent(f, n.first, to_dir, err);
	if (r == 0)
		r = leave(f, dir, from, err);
	if (r == 0 && h)
		h->at = at;
	return r;
}

int fat_below(struct vdisk_fs *fs, uint64_t dir, uint64_t node, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct fat_node d, n;
	int r = fat_node_read(f, dir, &d, err);

	if (r == 0)
		r = fat_node_read(f, node, &n, err);
	for (unsigned depth = 0; r == 0 && depth < VD_PATH_MAX; depth++) {
		uint8_t e[FAT_ENTRY];

		if (d.first == n.first)
			return 1;
		if (dir == FAT_ROOT_INO || !d.first || d.first == f->g.root_cluster)
			return 0;
		if (!fat_exists(f, d.first))
			break;
		r = fat_disk_read(f, e, sizeof(e),
				  f->g.data + (uint64_t)(d.first - 2) * f->g.cluster + FAT_ENTRY, err);
		if (r == 0 && memcmp(e, "..         ", 11) != 0)
			return vd_fail(err, EUCLEAN, "a directory without \"..\"");
		if (r == 0)
			fat_node_decode(&d, e, f->g.bits);
	}
	return r < 0 ? r : vd_fail(err, ELOOP, "directories nest too deeply");
}

/* ---- nodes in use ---- */

int fat_hold(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct fat_held *h = fat_held_find(f, ino);

	if (ino == FAT_ROOT_INO)
		return 0;
	if (!h) {
		h = calloc(1, sizeof(*h));
		if (!h)
			return vd_fail(err, ENOMEM, "out of memory");
		h->ino = h->at = ino;
		h->next = f->held;
		f->held = h;
	}
	h->refs++;
	return 0;
}

int fat_release(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct fat_node n;
	int r = 0;

	for (struct fat_held **p = &f->held; *p; p = &(*p)->next) {
		struct fat_held *h = *p;

		if (h->ino != ino || --h->refs)
			continue;
		if (!h->at) {
			fat_node_decode(&n, h->entry, f->g.bits);
			r = fat_chain_free(f, n.first, err);
			if (r == 0)
				r = fat_table_flush(f, err);
		}
		*p = h->next;
		free(h);
		break;
	}
	return r;
}

/* ---- label and serial number ---- */

/* Change @len bytes of the boot sector, which FAT32 has a copy of. */
static int change_boot(struct fat *f, const void *bytes, size_t len, unsigned at16, unsigned at32,
		       unsigned signature, struct vdisk_error *err)
{
	unsigned at = f->g.bits == 32 ? at32 : at16;
	uint8_t boot[512];
	uint64_t copy;
	int r = fat_disk_read(f, boot, sizeof(boot), 0, err);

	if (r < 0)
		return r;
	/* the extended fields are there only if this says so */
	if (boot[f->g.bits == 32 ? 66 : 38] < 0x28 || boot[f->g.bits == 32 ? 66 : 38] > signature)
		return 1;
	r = fat_disk_write(f, bytes, len, at, err);
	copy = f->g.bits == 32 ? load_le16(boot + 50) : 0;
	if (r < 0 || !copy || copy >= load_le16(boot + 14))
		return r;
	copy *= load_le16(boot + 11);
	r = fat_disk_read(f, boot, sizeof(boot), copy, err);
	return r < 0 || boot[510] != 0x55 || boot[511] != 0xaa ? r :
	       fat_disk_write(f, bytes, len, copy + at, err);
}

static int find_volume(void *arg, const uint8_t e[FAT_ENTRY], uint64_t at)
{
	uint64_t *found = arg;

	if (e[0] == 0)
		return 2;
	if (e[0] == 0xe5 || (e[11] & 0x3f) == FAT_LONG_NAME || !(e[11] & FAT_VOLUME))
		return 0;
	*found = at;
	return 1;
}

int fat_set_label(struct vdisk_fs *fs, const char *label, struct vdisk_error *err)
{
	static const uint8_t removed = 0xe5;
	struct fat *f = fs->priv;
	struct fat_new_name entry = { .n = 1 };
	uint8_t name[11];
	uint64_t at = 0;
	int r = fat_label_encode(name, label, err);

	if (r == 0)
		r = fat_mark(f, err);
	if (r == 0)
		r = fat_dir_raw(f, FAT_ROOT_INO, find_volume, &at, err);
	if (r < 0)
		return r;
	if (!*label) {
		r = at ? fat_disk_write(f, &removed, 1, at, err) : 0;
	} else if (at) {
		r = fat_disk_write(f, name, sizeof(name), at, err);
	} else {
		memcpy(entry.entry[0], name, sizeof(name));
		entry.entry[0][11] = FAT_VOLUME;
		set_modified(entry.entry[0], now());
		r = enter(f, FAT_ROOT_INO, &entry, &at, err);
	}
	if (r == 0)
		r = change_boot(f, *label ? (const char *)name : "NO NAME    ", sizeof(name), 43, 71,
				0x29, err);
	return MIN(r, 0);
}

int fat_set_serial(struct vdisk_fs *fs, const char *text, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	uint8_t raw[16], number[4];
	unsigned high, low;
	char end;
	int r;

	if (!strcmp(text, "random")) {
		r = vd_uuid_parse(text, raw, err);
		if (r < 0)
			return r;
		memcpy(number, raw, 4);
	} else {
		if (strlen(text) != 9 || strspn(text, "0123456789abcdefABCDEF") != 4 ||
		    sscanf(text, "%4x-%4x%c", &high, &low, &end) != 2)
			return vd_fail(err, EINVAL, "'%s' is no serial number of FAT, which is like "
				       "12AB-34CD", text);
		store_le32(number, high << 16 | low);
	}
	r = fat_mark(f, err);
	if (r == 0)
		r = change_boot(f, number, sizeof(number), 39, 67, 0x29, err);
	return r > 0 ? vd_fail(err, ENOTSUP, "this FAT has no serial number") : r;
}
