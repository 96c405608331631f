/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat.c - FAT12, FAT16 and FAT32, the file systems of EFI partitions
 *
 * A volume is: reserved sectors, of which the first describes the rest; one or
 * more copies of the table; for 12 and 16 the root directory; clusters.  A file
 * is a chain of clusters, and the table tells of each which one comes next.
 *
 * There are no inodes: what a file is stands in its directory entry, and the
 * place of this entry on the disk is the node's number here.  Nothing is kept
 * but a window of the table and the place in a chain that was found last, so
 * that reading a file from start to end follows its chain once.
 *
 * Everything in the volume is untrusted.  A chain ends after as many clusters
 * as the volume has, a directory after FAT_DIR_MAX bytes; what leads outside
 * is an error there, and what can still be read is read.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/fat.h"

#define WINDOW_SIZE (64u << 10)
#define WINDOW_WRITE (1u << 20)	/* allocation and chains are often apart */

/* ---- the boot sector ---- */

static bool plausible(const uint8_t *b)
{
	uint32_t sector = load_le16(b + 11);

	return (b[0] == 0xeb || b[0] == 0xe9 || !memcmp(b + 54, "FAT", 3) ||
		!memcmp(b + 82, "FAT", 3)) &&
	       vd_is_pow2(sector) && sector >= 512 && sector <= 4096 &&
	       vd_is_pow2(b[13]) && load_le16(b + 14) && b[16] &&
	       (b[21] == 0xf0 || b[21] >= 0xf8);
}

const char *fat_geometry_decode(struct fat_geometry *out, const uint8_t *b, size_t len)
{
	struct fat_geometry g = { .bits = 32 };
	uint64_t sector, sectors, table, n;
	unsigned active = 0;

	if (len < 512 || !plausible(b))
		return "it has no boot sector of FAT";
	sector = load_le16(b + 11);
	sectors = load_le16(b + 19) ? load_le16(b + 19) : load_le32(b + 32);
	table = load_le16(b + 22);
	if (!table) {		/* FAT32, whatever the number of clusters */
		table = load_le32(b + 36);
		g.root_cluster = load_le32(b + 44);
		/* flags: bit 7, only one copy is kept up to date */
		if (load_le16(b + 40) & 0x80)
			active = load_le16(b + 40) & 15;
	}
	if (!table || active >= b[16])
		return "its table has no size";
	g.cluster = (uint32_t)sector * b[13];
	g.fat = (load_le16(b + 14) + active * table) * sector;
	g.fat_size = table * sector;
	g.first_fat = g.fat;
	g.n_fats = 1;
	if (load_le16(b + 22) || !(load_le16(b + 40) & 0x80))
		g.n_fats = b[16];
	if (!load_le16(b + 22) && load_le16(b + 48) && load_le16(b + 48) < load_le16(b + 14))
		g.info = load_le16(b + 48) * sector;
	g.root = (load_le16(b + 14) + b[16] * table) * sector;
	g.root_size = (uint64_t)load_le16(b + 17) * FAT_ENTRY;
	g.data = g.root + (g.root_size + sector - 1) / sector * sector;
	if (sectors * sector <= g.data)
		return "it has no room for clusters";
	n = (sectors * sector - g.data) / g.cluster;
	if (load_le16(b + 22))
		g.bits = n > 4084 ? 16 : 12;
	/* more of them than the table describes do not exist */
	n = MIN(n, g.fat_size * 8 / g.bits - 2);
	g.n_clusters = (uint32_t)MIN(n, (uint64_t)0x0ffffff5);
	if (!g.n_clusters)
		return "it has no clusters";
	if (g.bits == 32)
		g.root_size = 0;
	else if (!g.root_size)
		return "its root directory has no size";
	*out = g;
	return NULL;
}

/* ---- chains ---- */

int fat_disk_read(struct fat *f, void *buf, size_t len, uint64_t off, struct vdisk_error *err)
{
	int r;

	if (!vd_in_range(off, len, vdisk_size(f->disk)))
		return vd_fail(err, EUCLEAN, "it goes on past the end of the volume");
	r = vdisk_read(f->disk, buf, len, off);
	return r < 0 ? vd_fail(err, -r, "reading at %llu: %s", (unsigned long long)off,
			       strerror(-r)) : 0;
}

/* Have [off, off + 4) of the table, as far as there is so much, in the window. */
int fat_table_load(struct fat *f, uint64_t off, struct vdisk_error *err)
{
	size_t len;
	int r;

	if (f->window_len && off >= f->window_at &&
	    MIN(off + 4, f->g.fat_size) <= f->window_at + f->window_len)
		return 0;
	if (f->dirty_to > f->dirty_from) {
		r = fat_table_flush(f, err);
		if (r < 0)
			return r;
	}
	f->window_len = 0;
	f->window_at = off & ~(uint64_t)511;
	len = (size_t)MIN((uint64_t)f->window_room, f->g.fat_size - f->window_at);
	r = fat_disk_read(f, f->window, len, f->g.fat + f->window_at, err);
	if (r == 0)
		f->window_len = len;
	return r;
}

/* What the table says of @cluster, which exists. */
int fat_table_get(struct fat *f, uint32_t cluster, uint32_t *out, struct vdisk_error *err)
{
	uint64_t off = (uint64_t)cluster * f->g.bits / 8;
	const uint8_t *p;
	int r = fat_table_load(f, off, err);

	if (r < 0)
		return r;
	p = f->window + (off - f->window_at);
	if (f->g.bits == 32)
		*out = load_le32(p) & 0x0fffffff;
	else if (f->g.bits == 16)
		*out = load_le16(p);
	else
		*out = cluster & 1 ? load_le16(p) >> 4 : load_le16(p) & 0xfff;
	return 0;
}

bool fat_exists(const struct fat *f, uint32_t cluster)
{
	return cluster >= 2 && cluster - 2 < f->g.n_clusters;
}

/* The one after @cluster.  0; 1: it was the last. */
int fat_next_cluster(struct fat *f, uint32_t cluster, uint32_t *next, struct vdisk_error *err)
{
	uint32_t end = (uint32_t)((1ull << (f->g.bits == 32 ? 28 : f->g.bits)) - 8);
	uint32_t v = 0;
	int r = fat_table_get(f, cluster, &v, err);

	if (r < 0)
		return r;
	if (v >= end)
		return 1;
	if (!fat_exists(f, v))
		return vd_fail(err, EUCLEAN, "cluster %u leads to cluster %u, which is none",
			       cluster, v);
	*next = v;
	return 0;
}

/* Cluster number @index of a chain.  0; 1: it is shorter. */
int fat_chain_seek(struct fat *f, uint32_t first, uint32_t index, uint32_t *cluster,
		      struct vdisk_error *err)
{
	uint32_t at = 0, c = first;

	*cluster = 0;
	if (!fat_exists(f, first))
		return vd_fail(err, EUCLEAN, "it begins in cluster %u, which is none", first);
	if (index >= f->g.n_clusters)
		return vd_fail(err, EUCLEAN, "it is longer than the volume");
	if (f->last_first == first && f->last_index <= index) {
		at = f->last_index;
		c = f->last_cluster;
	}
	for (; at < index; at++) {
		int r = fat_next_cluster(f, c, &c, err);

		if (r < 0)
			return r;
		if (r > 0) {
			f->last_first = first;
			f->last_index = at;
			f->last_cluster = *cluster = c;
			return 1;
		}
	}
	f->last_first = first;
	f->last_index = index;
	f->last_cluster = *cluster = c;
	return 0;
}

int fat_chain_map(struct fat *f, uint32_t first, uint64_t off, uint64_t want, uint64_t *at,
		  uint64_t *len, struct vdisk_error *err)
{
	uint32_t size = f->g.cluster, index = (uint32_t)(off / size), c = 0, next = 0;
	int r = fat_chain_seek(f, first, index, &c, err);

	if (r != 0)
		return r;
	*at = f->g.data + (uint64_t)(c - 2) * size + off % size;
	*len = size - off % size;
	/* clusters that follow one another are one piece; a broken end is met later */
	while (*len < want && fat_next_cluster(f, c, &next, NULL) == 0 && next == c + 1) {
		c = next;
		*len += size;
	}
	*len = MIN(*len, want);
	return 0;
}

/* ---- nodes ---- */

struct fat_held *fat_held_find(struct fat *f, uint64_t ino)
{
	struct fat_held *h = f->held;

	while (h && h->ino != ino)
		h = h->next;
	return h;
}

int fat_entry_read(struct fat *f, uint64_t ino, uint8_t entry[FAT_ENTRY], struct vdisk_error *err)
{
	const struct fat_held *h = fat_held_find(f, ino);

	if (h && !h->at) {
		memcpy(entry, h->entry, FAT_ENTRY);
		return 0;
	}
	return fat_disk_read(f, entry, FAT_ENTRY, h ? h->at : ino, err);
}

int fat_node_read(struct fat *f, uint64_t ino, struct fat_node *out, struct vdisk_error *err)
{
	uint8_t entry[FAT_ENTRY];
	int r;

	if (ino == FAT_ROOT_INO) {
		*out = (struct fat_node) { .attr = FAT_DIRECTORY, .first = f->g.root_cluster };
		return 0;
	}
	r = fat_entry_read(f, ino, entry, err);
	if (r == 0)
		fat_node_decode(out, entry, f->g.bits);
	return r;
}

/* Bytes of a directory's chain. */
static uint64_t directory_size(struct fat *f, uint64_t ino, const struct fat_node *n)
{
	uint32_t c = 0, count = 0;

	if (ino == FAT_ROOT_INO && f->g.root_size)
		return f->g.root_size;
	while ((uint64_t)count * f->g.cluster < FAT_DIR_MAX &&
	       fat_chain_seek(f, n->first, count, &c, NULL) == 0)
		count++;
	return (uint64_t)count * f->g.cluster;
}

/* As the kernel shows it when nobody says otherwise. */
static int fat_stat(struct vdisk_fs *fs, uint64_t ino, struct vdisk_stat *out,
		    struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct fat_node n;
	int r = fat_node_read(f, ino, &n, err);

	if (r < 0)
		return r;
	*out = (struct vdisk_stat) {
		.ino = ino, .size = n.size, .nlink = 1, .mode = S_IFREG | 0755,
		.atime = n.accessed, .mtime = n.modified, .ctime = n.modified,
		.crtime = n.created,
	};
	if (n.attr & FAT_DIRECTORY) {
		out->mode = S_IFDIR | 0755;
		out->nlink = 2;
		out->size = directory_size(f, ino, &n);
	}
	if (n.attr & FAT_READ_ONLY)
		out->mode &= ~(uint32_t)0222;
	out->allocated = (out->size + f->g.cluster - 1) / f->g.cluster * f->g.cluster;
	return 0;
}

static ssize_t fat_read(struct vdisk_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off,
			struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	struct fat_node n;
	size_t done = 0;
	int r = fat_node_read(f, ino, &n, err);

	if (r < 0)
		return r;
	if (off >= n.size)
		return 0;
	len = (size_t)MIN((uint64_t)len, n.size - off);
	while (done < len) {
		uint64_t at, piece;

		r = fat_chain_map(f, n.first, off + done, len - done, &at, &piece, err);
		if (r > 0)
			return vd_fail(err, EUCLEAN, "its chain of clusters ends before it does");
		if (r == 0)
			r = fat_disk_read(f, (uint8_t *)buf + done, (size_t)piece, at, err);
		if (r < 0)
			return r;
		done += (size_t)piece;
	}
	return (ssize_t)done;
}

static int fat_next_data(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t *start,
			 uint64_t *length, struct vdisk_error *err)
{
	struct fat_node n;
	int r = fat_node_read(fs->priv, ino, &n, err);

	if (r < 0)
		return r;
	*start = off;
	*length = off < n.size ? n.size - off : 0;	/* there are no holes */
	return 0;
}

/* ---- directories ---- */

/* The number of the node whose entry is at @at. */
static uint64_t number_of(const struct fat *f, uint64_t at)
{
	for (const struct fat_held *h = f->held; h; h = h->next)
		if (h->at == at)
			return h->ino;
	return at;
}

struct lookup {
	const char *name;
	uint64_t ino;
};

static int compare(void *arg, const struct fat_name *name, uint64_t ino)
{
	struct lookup *l = arg;

	if (strcasecmp(name->text, l->name) != 0 && strcasecmp(name->alias, l->name) != 0)
		return 0;
	l->ino = ino;
	return 1;
}

static int fat_lookup(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t *ino,
		      struct vdisk_error *err)
{
	struct lookup l = { .name = name };
	int r = fat_dir_each(fs->priv, dir, compare, &l, err);

	if (r < 0)
		return r;
	if (!r)
		return -ENOENT;
	*ino = number_of(fs->priv, l.ino);
	return 0;
}

struct list {
	struct fat *f;
	vd_fs_each *each;
	void *arg;
};

static int list_one(void *arg, const struct fat_name *name, uint64_t ino)
{
	struct list *l = arg;

	return l->each(l->arg, name->text, number_of(l->f, ino));
}

static int fat_list(struct vdisk_fs *fs, uint64_t dir, vd_fs_each *each, void *arg,
		    struct vdisk_error *err)
{
	struct list l = { fs->priv, each, arg };

	return fat_dir_each(fs->priv, dir, list_one, &l, err);
}

/* ---- the whole ---- */

static bool fat_match(const uint8_t *head, size_t len)
{
	struct fat_geometry g;

	return fat_geometry_decode(&g, head, len) == NULL;
}

static int open_writable(struct fat *f, const uint8_t boot[512], struct vdisk_error *err)
{
	bool clean = true;
	int r = fat_table_open(f, boot, &clean, err);

	if (r == 0 && !clean)
		return vd_fail(err, EUCLEAN, "it was not cleanly unmounted, and must be checked "
			       "before it is written to (vdisk fsck)");
	return r;
}

static int fat_open(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct fat *f;
	uint8_t boot[512];
	const char *why;
	int r;

	f = calloc(1, sizeof(*f));
	if (!f)
		return vd_fail(err, ENOMEM, "out of memory");
	f->disk = fs->disk;
	f->writable = fs->writable;
	f->window_room = f->writable ? WINDOW_WRITE : WINDOW_SIZE;
	f->window = malloc(f->window_room);
	r = f->window ? fat_disk_read(f, boot, sizeof(boot), 0, err) :
			vd_fail(err, ENOMEM, "out of memory");
	if (r == 0) {
		why = fat_geometry_decode(&f->g, boot, sizeof(boot));
		r = why ? vd_fail(err, EUCLEAN, "%s", why) : 0;
	}
	if (r == 0 && f->writable)
		r = open_writable(f, boot, err);
	if (r < 0) {
		free(f->window);
		free(f);
		return r;
	}
	fs->priv = f;
	fs->root = FAT_ROOT_INO;
	snprintf(fs->type, sizeof(fs->type), "vfat");
	return 0;
}

static int fat_sync(struct vdisk_fs *fs, struct vdisk_error *err)
{
	return fat_table_clean(fs->priv, err);
}

static int fat_close(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct fat *f = STEAL(fs->priv);
	int r;

	while (f->held) {	/* files whose users did not close them */
		struct fat_held *h = f->held;

		f->held = h->next;
		free(h);
	}
	r = fat_table_clean(f, err);
	free(f->window);
	free(f);
	return r;
}

static int fat_usage(struct vdisk_fs *fs, struct vdisk_fs_usage *out, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	uint64_t n_free = 0;

	for (uint32_t c = 2; c - 2 < f->g.n_clusters; c++) {
		uint32_t v;
		int r = fat_table_get(f, c, &v, err);

		if (r < 0)
			return r;
		n_free += v == 0;
	}
	*out = (struct vdisk_fs_usage) {
		.block_size = f->g.cluster,
		.total = (uint64_t)f->g.n_clusters * f->g.cluster,
		.free = n_free * f->g.cluster, .available = n_free * f->g.cluster,
	};
	return 0;
}

static int fat_each_free(struct vdisk_fs *fs, int (*each)(void *arg, uint64_t off, uint64_t len),
			 void *arg, struct vdisk_error *err)
{
	struct fat *f = fs->priv;
	uint32_t from = 0, end = f->g.n_clusters + 2;
	int r = 0;

	for (uint32_t c = 2; r == 0 && c <= end; c++) {
		uint32_t v = 1;

		if (c < end)
			r = fat_table_get(f, c, &v, err);
		if (r == 0 && v == 0 && !from)
			from = c;
		if (r == 0 && v != 0 && from) {
			r = each(arg, f->g.data + (uint64_t)(from - 2) * f->g.cluster,
				 (uint64_t)(c - from) * f->g.cluster);
			from = 0;
		}
	}
	return r;
}

const struct vd_fs_ops vd_fat_ops = {
	.name = "fat",
	.match = fat_match,
	.open = fat_open,
	.close = fat_close,
	.sync = fat_sync,
	.usage = fat_usage,
	.lookup = fat_lookup,
	.stat = fat_stat,
	.list = fat_list,
	.read = fat_read,
	.next_data = fat_next_data,
	.create = fat_create,
	.setattr = fat_setattr,
	.write = fat_write,
	.truncate = fat_truncate,
	.link = fat_link,
	.unlink = fat_unlink,
	.rename = fat_rename,
	.below = fat_below,
	.caseless = true,
	.each_free = fat_each_free,
	.set_label = fat_set_label,
	.hold = fat_hold,
	.release = fat_release,
};
