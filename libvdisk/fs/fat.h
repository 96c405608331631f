/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat.h - FAT12, FAT16 and FAT32, between the files that read and write it
 *
 * fat.c        the volume: boot sector, chains of clusters, reading, the ops table
 * fat_dir.c    directories and the names in them
 * fat_table.c  changing the table: allocation, and whether the volume is clean
 * fat_name.c   entries for a new name
 * fat_write.c  making, changing and removing files
 */
#ifndef VD_FAT_H
#define VD_FAT_H

#include "fs/fs.h"

#define FAT_ROOT_INO	1u	/* every other node: where its entry is on the disk */
#define FAT_DIR_MAX	(2u << 20)	/* bytes of a directory: 65536 entries */
#define FAT_ENTRY	32u

/* What the boot sector says, checked. */
struct fat_geometry {
	unsigned bits;		/* 12, 16 or 32 */
	uint32_t cluster;	/* bytes */
	uint32_t n_clusters;	/* numbered from 2 */
	uint64_t fat, fat_size;	/* bytes: the one in use */
	uint64_t root, root_size;	/* bytes: of 12 and 16; size 0: a chain */
	uint32_t root_cluster;	/* of 32 */
	uint64_t data;		/* bytes: where cluster 2 begins */
	uint64_t first_fat;	/* bytes */
	unsigned n_fats;	/* copies that are kept the same, from there on */
	uint64_t info;		/* bytes: the FSInfo sector of 32, 0: none */
};

/* NULL, or why it is no FAT. */
const char *fat_geometry_decode(struct fat_geometry *out, const uint8_t *boot, size_t len);

struct fat {
	struct fat_geometry g;
	struct vdisk *disk;	/* borrowed */
	uint8_t *window;	/* owned: a piece of the table */
	uint64_t window_at;
	size_t window_len;	/* 0: nothing is there yet */
	/* the place in a chain that was found last */
	uint32_t last_first, last_index, last_cluster;

	/* writing */
	bool writable;
	bool marked;		/* as not cleanly unmounted, by us */
	size_t dirty_from, dirty_to; /* of the window; equal: nothing */
	size_t window_room;
	uint32_t next_free;	/* where to look for a free cluster */
	uint32_t n_free;	/* as FSInfo says; UINT32_MAX: not known */
	struct fat_held *held;	/* owned: nodes in use */
};

/*
 * A node in use: its number stays while its entry moves, or is removed.  An
 * entry whose place was such a number is not used again.
 */
struct fat_held {
	struct fat_held *next;
	uint64_t ino;
	uint64_t at;		/* where its entry is; 0: in ->entry only */
	unsigned refs;
	uint8_t entry[FAT_ENTRY];
};

enum fat_attr {
	FAT_READ_ONLY = 0x01, FAT_VOLUME = 0x08, FAT_DIRECTORY = 0x10,
	FAT_LONG_NAME = 0x0f,
};

/* A directory entry, or the root. */
struct fat_node {
	uint8_t attr;
	uint32_t first;		/* cluster; 0: none */
	uint32_t size;
	struct timespec created, modified, accessed;
};

void fat_node_decode(struct fat_node *out, const uint8_t entry[FAT_ENTRY], unsigned bits);
int fat_node_read(struct fat *f, uint64_t ino, struct fat_node *out, struct vdisk_error *err);
/* The entry itself, which the root does not have. */
int fat_entry_read(struct fat *f, uint64_t ino, uint8_t entry[FAT_ENTRY], struct vdisk_error *err);
struct fat_held *fat_held_find(struct fat *f, uint64_t ino);

/* Bytes of the volume. */
int fat_disk_read(struct fat *f, void *buf, size_t len, uint64_t off, struct vdisk_error *err);
bool fat_exists(const struct fat *f, uint32_t cluster);
/* What the table says of a cluster that exists. */
int fat_table_get(struct fat *f, uint32_t cluster, uint32_t *out, struct vdisk_error *err);
int fat_table_load(struct fat *f, uint64_t off, struct vdisk_error *err);
/* The one after @cluster.  0; 1: it was the last. */
int fat_next_cluster(struct fat *f, uint32_t cluster, uint32_t *next, struct vdisk_error *err);
/* Cluster number @index of a chain.  0; 1: it is shorter, and the last one is in @cluster. */
int fat_chain_seek(struct fat *f, uint32_t first, uint32_t index, uint32_t *cluster,
		   struct vdisk_error *err);

/*
 * Where byte @off of the chain from @first is on the disk, and how many bytes
 * from there on lie in one piece, at most @want.  0; 1: the chain has ended.
 */
int fat_chain_map(struct fat *f, uint32_t first, uint64_t off, uint64_t want, uint64_t *at,
		  uint64_t *len, struct vdisk_error *err);

/* UTF-8. */
struct fat_name {
	char text[VD_NAME_MAX + 1];	/* the long name where there is one */
	char alias[VD_NAME_MAX + 1];	/* the short one */
};
/* Stops when @each returns non-zero, which is then returned. */
int fat_dir_each(struct fat *f, uint64_t dir,
		 int (*each)(void *arg, const struct fat_name *name, uint64_t ino), void *arg,
		 struct vdisk_error *err);

/*
 * The same, of every entry as it is on the disk; @at is its place.  One that
 * begins with 0 is the first of those never used, and all behind it are told of, too.
 */
int fat_dir_raw(struct fat *f, uint64_t dir,
		int (*each)(void *arg, const uint8_t entry[FAT_ENTRY], uint64_t at), void *arg,
		struct vdisk_error *err);
uint8_t fat_short_sum(const uint8_t name[11]);

/* ---- the table, to be changed (fat_table.c) ---- */

/*
 * Order: data, then the table, then the entry that refers to both; the other way
 * round where something goes.  So what a program that ends at any moment leaves
 * are clusters that belong to nobody.  The volume is marked as not clean from
 * the first change until fat_table_clean().
 */
int fat_disk_write(struct fat *f, const void *buf, size_t len, uint64_t off,
		   struct vdisk_error *err);
int fat_disk_zero(struct fat *f, uint64_t off, uint64_t len, struct vdisk_error *err);
int fat_table_put(struct fat *f, uint32_t cluster, uint32_t value, struct vdisk_error *err);
/* Write what is dirty in the window, to all copies. */
int fat_table_flush(struct fat *f, struct vdisk_error *err);
/* A free cluster becomes the end of a chain, behind @prev unless that is 0. */
int fat_cluster_new(struct fat *f, uint32_t prev, uint32_t *out, struct vdisk_error *err);
/* Free a chain from @first on (0: there is none). */
int fat_chain_free(struct fat *f, uint32_t first, struct vdisk_error *err);
/* Is the volume marked as not cleanly unmounted? */
int fat_table_open(struct fat *f, const uint8_t boot[512], bool *clean, struct vdisk_error *err);
int fat_mark(struct fat *f, struct vdisk_error *err);
/* Write out everything, and take the mark away again. */
int fat_table_clean(struct fat *f, struct vdisk_error *err);

/* ---- new names (fat_name.c) ---- */

#define FAT_NAME_ENTRIES 21u	/* 20 of a long name and the short one */

struct fat_new_name {
	uint8_t entry[FAT_NAME_ENTRIES][FAT_ENTRY]; /* the last one is for the node */
	unsigned n;
};

/*
 * The entries for @name: short name, attributes and times of the last one are
 * the caller's but for the name.  @taken tells whether a short name is there.
 * -EINVAL, -ENAMETOOLONG: no name that FAT can store.
 */
int fat_name_new(struct fat_new_name *out, const char *name,
		 int (*taken)(void *arg, const uint8_t name[11]), void *arg,
		 struct vdisk_error *err);
/* A label: 11 bytes, upper case.  -EINVAL with a sentence. */
int fat_label_encode(uint8_t out[11], const char *label, struct vdisk_error *err);
/* UTC. */
void fat_time_encode(struct timespec t, uint16_t *date, uint16_t *time, uint8_t *hundredths);

/* ---- ops (fat_write.c) ---- */

int fat_create(struct vdisk_fs *fs, uint64_t dir, const char *name, const struct vdisk_stat *st,
	       unsigned attrs, const char *target, uint64_t *ino, struct vdisk_error *err);
int fat_setattr(struct vdisk_fs *fs, uint64_t ino, const struct vdisk_stat *st, unsigned attrs,
		struct vdisk_error *err);
ssize_t fat_write(struct vdisk_fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
		  struct vdisk_error *err);
int fat_truncate(struct vdisk_fs *fs, uint64_t ino, uint64_t size, struct vdisk_error *err);
int fat_link(struct vdisk_fs *fs, uint64_t ino, uint64_t dir, const char *name,
	     struct vdisk_error *err);
int fat_unlink(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
	       struct vdisk_error *err);
int fat_rename(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
	       uint64_t to_dir, const char *to_name, struct vdisk_error *err);
int fat_below(struct vdisk_fs *fs, uint64_t dir, uint64_t node, struct vdisk_error *err);
int fat_hold(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err);
int fat_release(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err);
int fat_set_label(struct vdisk_fs *fs, const char *label, struct vdisk_error *err);
/* The serial number, as "1234-ABCD" or "random". */
int fat_set_serial(struct vdisk_fs *fs, const char *text, struct vdisk_error *err);

#endif
