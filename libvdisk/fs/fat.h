/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat.h - FAT12, FAT16 and FAT32, between the files that read it
 *
 * fat.c      the volume: boot sector, chains of clusters, the ops table
 * fat_dir.c  directories and their names
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

#endif
