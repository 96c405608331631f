/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * state.h - an open VMDK
 *
 * Grain tables are read when they are needed, and written back (flush.c).  There are
 * no refcounts: new grains and tables come from the end of the file, or were freed
 * before.  What keeps the medium consistent at every instant:
 *
 *  V1  A table's entry is written after the grain that it points to is durable, and a
 *      directory's entry after its table.
 *  V2  A grain that is dropped is given to nobody, nor made a hole, before the tables
 *      without it are durable and no request that may still use it is left.
 *  V3  What is written out is one instant's copy of all dirty tables.
 *
 * Both copies of a table are written; which of them a crash leaves behind does not
 * matter, as both follow V1.
 *
 * v->lock guards what is not said to be constant.  It is not held across I/O.
 */
#ifndef VMDK_STATE_H
#define VMDK_STATE_H

#include "core/driver.h"
#include "formats/vmdk/vmdk.h"

/* Tables in memory, and how many of them may be dirty before they are written. */
#define VMDK_CACHE_BYTES	(24u << 20)
#define VMDK_DIRTY_BYTES	(8u << 20)

struct vmdk_extent;

/* Bytes of a file that can be used again. */
struct vmdk_free {
	uint64_t at, len;
};

struct vmdk_table {
	struct vmdk_extent *x;
	uint32_t index;		/* in the directory */
	unsigned slot;		/* in v->table */
	unsigned pins;		/* must stay: an allocation in flight, or being written */
	bool loading;		/* gte is not there yet */
	bool used;		/* since the clock's hand passed */
	bool dirty;
	uint8_t gte[];		/* as on the medium */
};

struct vmdk_extent {
	/* constant */
	enum vmdk_kind kind;
	uint64_t start, len;	/* of the disk, bytes */
	struct vdisk *file;	/* borrowed: the disk's ->file, or one of its ->others */
	uint64_t offset;	/* FLAT: in file, bytes */
	struct vmdk_header h;	/* SPARSE */
	uint64_t grain;		/* bytes */
	uint64_t span;		/* of a table, bytes of the disk */
	uint32_t n_gd;
	uint32_t bound;		/* a compressed grain takes at most these bytes */

	uint32_t *gd, *rgd;	/* owned; sectors; rgd NULL: no second copy */
	struct vmdk_table **table; /* owned; those in memory, by index */
	bool gd_dirty;
	uint64_t next;		/* bytes: behind all that is in use in the file */
	uint64_t fresh_from;	/* the file was never longer than this */
	struct vmdk_free *free;	/* owned */
	size_t n_free, free_space;
};

/* Grains on their way to being free (V2). */
struct vmdk_freed {
	struct vmdk_extent *x;
	uint64_t at, len;	/* bytes, in its file */
	uint64_t txn;		/* the write-out that has the tables without them */
	unsigned grace;
};

struct vmdk {
	/* constant */
	struct vdisk *disk;
	struct vmdk_descriptor d;
	struct vdisk *desc_file; /* borrowed: where the descriptor is ... */
	uint64_t desc_at;	/* ... and at which byte */
	struct vmdk_extent *x;	/* owned; sorted, without gaps */
	unsigned n_x;
	bool writable;
	bool stream;		/* written from front to back */
	size_t max_tables, max_dirty;

	pthread_mutex_t lock;
	pthread_cond_t cond;	/* a table arrived, a write-out or the beginning ended */
	_Atomic bool began;	/* the duties of the first write are done */
	bool busy;		/* somebody does them, or writes out */
	bool finished;		/* a stream that has its end */

	struct vmdk_table **table; /* owned */
	size_t n_tables, tables_space;
	size_t n_dirty;
	size_t hand;		/* the clock's */

	struct vmdk_freed *freed; /* owned */
	size_t n_freed, freed_space;
	uint64_t txn;		/* the one that is collecting changes, from 1 */
	uint64_t durable_txn;	/* all up to this one are durable */
};

/* ---- open.c ---- */

/* The extent in which @off, of a disk that is not empty, is. */
struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t off);
/* Read header and directory of @x's file; @v->disk->flags has VDISK_OPEN_CHECK: without
 * the directory. */
int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, struct vdisk_error *err);

/* ---- table.c: under the lock ---- */

/* The lock was dropped; look again. */
#define VMDK_RETRY	1

/* The table of @x at @index, which the directory has.  0, VMDK_RETRY, -EAGAIN (@nowait),
 * -errno.  It stays while the lock is held, or where it is pinned. */
int vmdk_table_get(struct vmdk *v, struct vmdk_extent *x, uint32_t index, bool nowait,
		   struct vmdk_table **out);
/* Make room for one more table: as above. */
int vmdk_table_room(struct vmdk *v, bool nowait);
/* An empty one, for which there is room.  -ENOMEM. */
int vmdk_table_new(struct vmdk *v, struct vmdk_extent *x, uint32_t index,
		   struct vmdk_table **out);
void vmdk_table_dirty(struct vmdk *v, struct vmdk_table *t);
void vmdk_tables_free(struct vmdk *v);

static inline uint32_t vmdk_gte(const struct vmdk_table *t, uint64_t i)
{
	return load_le32(t->gte + i * 4);
}

static inline size_t vmdk_table_bytes(const struct vmdk_extent *x)
{
	return (size_t)x->h.gtes * 4;
}

/* ---- flush.c ---- */

/* The duties of a first write: 0, VMDK_RETRY, -EAGAIN (@nowait), -errno.  Under the lock. */
int vmdk_begin(struct vmdk *v, bool nowait);
/* Write @cid over the @digits hexadecimal ones at @at of the descriptor, durably. */
int vmdk_write_cid(struct vmdk *v, size_t at, unsigned digits, uint32_t cid);
/* Write out all that is dirty.  Under the lock, which it drops.  0 or -errno. */
int vmdk_writeout(struct vmdk *v);
/* Drop bytes of a file that the tables do not refer to from write-out @txn on: they are
 * free later, by V2.  Under the lock; never fails (out of memory leaks them). */
void vmdk_drop(struct vmdk *v, struct vmdk_extent *x, uint64_t at, uint64_t len, uint64_t txn);
/* The end: nothing is dirty, all that was freed is free, the files are marked as closed.
 * On a drained disk. */
int vmdk_settle(struct vmdk *v);
int vmdk_flush(struct vdisk *disk, bool nowait);

/* ---- map.c ---- */

int vmdk_map(struct vdisk *disk, uint64_t off, uint64_t len, enum vd_intent intent,
	     unsigned flags, struct vd_extent *ext);
void vmdk_commit(struct vdisk *disk, struct vd_extent *ext, int result);

/* ---- codec.c ---- */

/* Decodes a grain behind its marker; encodes without one (map.c writes it). */
extern const struct vd_codec vmdk_grain;
/* No marker: what follows the stream in its sectors is not looked at. */
extern const struct vd_codec vmdk_bare_grain;
/* The most bytes that a compressed grain takes in its file, marker and all. */
uint32_t vmdk_coded_bound(uint64_t grain);

/* ---- stream.c ---- */

/* Write tables, directory and footer of a stream-optimized file; on a drained disk or
 * in a flush, without the lock. */
int vmdk_stream_finish(struct vmdk *v);
/* The same of an empty one, whose header is @h, from byte @at on. */
int vmdk_stream_empty(struct vdisk *file, const struct vmdk_header *h, uint64_t at);

/* ---- create.c, check.c, empty.c ---- */

int vmdk_create(struct vdisk *file, uint64_t length, const struct vdisk_create_opts *opts,
		struct vdisk_error *err);
int vmdk_measure(uint64_t length, uint64_t data, const struct vdisk_option *options, unsigned n,
		 uint64_t *required, uint64_t *full, struct vdisk_error *err);
int vmdk_check(struct vdisk *disk, unsigned flags, struct vdisk_check_result *out,
	       void (*report)(void *arg, const char *finding), void *arg,
	       struct vdisk_error *err);
int vmdk_empty(struct vdisk *disk, struct vdisk_error *err);
extern const char *const vmdk_options[];

#endif
