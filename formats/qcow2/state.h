/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * state.h - an open qcow2 image
 *
 * Metadata lives in memory and is written back (flush.c).  The rules that keep
 * the medium consistent at every instant, cited by number in the code:
 *
 *  R1  A refcount on the medium is never less than the references on the
 *      medium.  New counts are written before the tables that use them.
 *  R2  A table reaches the medium before anything that points to it: refcount
 *      blocks before the refcount table, L2 tables before the L1 table, a
 *      moved refcount table before the header; and guest data before its entry.
 *  R3  A cluster that is dropped keeps its count, and so is not given to
 *      anybody, until the tables without it are durable and no request that
 *      may still use it is left (struct qcow2_freed).
 *  R4  What is written out is one instant's copy of all dirty metadata, so
 *      that R1 holds between the pieces of it.
 *
 * With lazy refcounts the dirty bit stands on the medium instead, and R1 holds
 * only again once it is cleared.
 *
 * Locks: q->lock guards everything below that is not said to be constant; it is
 * short, and dropped around I/O.  Functions that may drop it say so by
 * returning QCOW2_RETRY: what was known before may have changed, start over.
 */
#ifndef QCOW2_STATE_H
#define QCOW2_STATE_H

#include <sys/queue.h>

#include "formats/qcow2/qcow2.h"

/* The lock was dropped; look again. */
#define QCOW2_RETRY	1

/* Tables in memory, and how much of that may be dirty before it is written. */
#define QCOW2_CACHE_BYTES	(24u << 20)
#define QCOW2_DIRTY_BYTES	(8u << 20)

/* An L2 table or a refcount block: one cluster. */
struct qcow2_table {
	uint8_t *data;		/* owned; as on the medium */
	uint64_t off;		/* in the file */
	uint32_t index;		/* of the L1 or refcount table entry that points here */
	unsigned slot;		/* in q->tables */
	unsigned pins;		/* must stay: an allocation in flight, or being written */
	bool refblock;
	bool loading;		/* data is not there yet */
	bool used;		/* since the clock's hand passed */
	bool dirty;		/* on q->dirty */
	uint32_t dirty_lo, dirty_hi; /* bytes */
	TAILQ_ENTRY(qcow2_table) link;
};
TAILQ_HEAD(qcow2_tables, qcow2_table);

/* Clusters on their way to being free (R3). */
struct qcow2_freed {
	uint64_t first;
	uint64_t n;
	uint64_t txn;		/* the write-out that has the tables without them */
	unsigned grace;
	bool punch;		/* give the space back to the file system */
};

struct qcow2 {
	/* constant after open, but for control operations on a drained disk */
	struct vdisk *disk;
	struct vdisk *file;	/* borrowed: disk->file */
	struct qcow2_header h;
	unsigned cluster_bits;
	uint64_t cluster_size;
	unsigned entry_bits;	/* log2 of an L2 entry's bytes */
	unsigned span_bits;	/* log2 of the guest bytes of one L2 table */
	unsigned sub_bits;	/* log2 of the smallest unit of an entry */
	unsigned block_bits;	/* log2 of the refcounts in a block */
	bool extl2;
	bool data_file;		/* guest data is in disk->data, at the guest's offsets */
	bool data_raw;
	bool lazy;		/* lazy refcounts */
	bool writable;
	const struct vd_codec *codec;
	size_t max_tables;

	pthread_mutex_t lock;
	pthread_cond_t cond;	/* a table arrived, a write-out ended */

	/* the first write's duties (bitmap.c, open.c) */
	_Atomic bool began;
	bool beginning;

	uint64_t *l1;		/* owned; host order; h.l1_size entries */
	struct qcow2_table **l2; /* owned; the tables in memory, by L1 index */
	uint32_t l1_dirty_lo, l1_dirty_hi; /* entries */

	uint64_t *reftable;	/* owned; host order */
	struct qcow2_table **blocks; /* owned; refcount blocks in memory, by index */
	uint32_t reftable_entries;
	uint32_t reftable_dirty_lo, reftable_dirty_hi;
	bool reftable_grown;	/* larger than its place in the file */

	struct qcow2_table **tables; /* owned; all in memory */
	size_t n_tables, tables_space;
	size_t hand;		/* the clock's */
	struct qcow2_tables dirty;
	size_t n_dirty;
	size_t n_dirty_l2;

	/* allocation */
	uint64_t hint;		/* no cluster below this one is free */
	uint64_t byte_off;	/* where the next coded cluster may go on, or 0 */
	uint64_t fresh_from;	/* bytes of the file from here on were never written */
	struct qcow2_freed *freed; /* owned */
	size_t n_freed, freed_space;

	/* write-outs */
	bool flushing;
	uint64_t txn;		/* the one that is collecting changes */
	uint64_t written_txn;	/* all up to this one have been written ... */
	uint64_t durable_txn;	/* ... and these are durable */
};

static inline bool qcow2_l1_dirty(const struct qcow2 *q)
{
	return q->l1_dirty_lo < q->l1_dirty_hi;
}

static inline bool qcow2_reftable_dirty(const struct qcow2 *q)
{
	return q->reftable_grown || q->reftable_dirty_lo < q->reftable_dirty_hi;
}

/* ---- open.c ---- */

/* (Re)read L1 and refcount table as the header says; nothing is dirty. */
int qcow2_load(struct qcow2 *q, struct vdisk_error *err);
void qcow2_unload(struct qcow2 *q);
/* The duties of a first write: 0, QCOW2_RETRY, -EAGAIN (@nowait), -errno. */
int qcow2_begin(struct qcow2 *q, bool nowait);
/* The same for a change of the whole image, without the lock: and nothing is dirty. */
int qcow2_begin_control(struct qcow2 *q);
/* Write those header fields that change in operation: one 512-byte sector. */
int qcow2_poke_header(struct qcow2 *q);
/* Set or clear the dirty bit, durably; nothing in version 2.  Not under the lock. */
int qcow2_set_dirty(struct qcow2 *q, bool dirty, struct vdisk_error *err);

/* ---- cache.c: all under the lock ---- */

/* A table that the L1 or the refcount table points to.  0, QCOW2_RETRY, -EAGAIN
 * (@nowait), -errno.  Valid while the lock is held, or pinned. */
int qcow2_table_get(struct qcow2 *q, bool refblock, uint32_t index, bool nowait,
		    struct qcow2_table **out);
/* Make sure that qcow2_table_new() finds room: as above. */
int qcow2_table_room(struct qcow2 *q, bool nowait);
/* A new one, all zero and all dirty, to lie at @off.  -ENOMEM. */
int qcow2_table_new(struct qcow2 *q, bool refblock, uint32_t index, uint64_t off,
		    struct qcow2_table **out);
void qcow2_table_dirty(struct qcow2 *q, struct qcow2_table *t, uint64_t lo, uint64_t hi);
void qcow2_table_clean(struct qcow2 *q, struct qcow2_table *t);
/* Forget one, dirty or not. */
void qcow2_table_drop(struct qcow2 *q, struct qcow2_table *t);

/* ---- refcount.c: all under the lock ---- */

int qcow2_refcount(struct qcow2 *q, uint64_t cluster, bool nowait, uint64_t *out);
/* Add to a run of counts; may drop the lock.  An error leaves an increase undone.
 * -ERANGE: over or under. */
int qcow2_refcount_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta);
/* A run of at least one and at most @want clusters, from now on counted once.
 * @fresh: the file was never that long.  0, QCOW2_RETRY, -EAGAIN (@nowait), -errno. */
int qcow2_alloc(struct qcow2 *q, uint64_t want, bool nowait, uint64_t *first, uint64_t *n,
		bool *fresh);
/* @n clusters in one run, for a table; may drop the lock. */
int qcow2_alloc_run(struct qcow2 *q, uint64_t n, uint64_t *first);
/* The last cluster that is counted; may drop the lock. */
int qcow2_last_used(struct qcow2 *q, uint64_t *out);
/* Space for @len coded bytes, at most a cluster. */
int qcow2_alloc_bytes(struct qcow2 *q, uint64_t len, bool nowait, uint64_t *off);
/* Drop a reference to each: later, by R3.  Never fails (out of memory leaks). */
void qcow2_free(struct qcow2 *q, uint64_t first, uint64_t n, bool punch);
/* The same for what was never referred to. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n);
/* Give out what R3 allows to.  Drops the lock. */
void qcow2_release(struct qcow2 *q);

/* ---- flush.c ---- */

/* Write out everything that is dirty; drops the lock.  @refs: the refcounts
 * even if they are lazy. */
int qcow2_writeout(struct qcow2 *q, bool refs);
/* Until nothing is dirty and everything freed is free: for control operations
 * and close, on a drained disk.  Without the lock. */
int qcow2_settle(struct qcow2 *q);
int qcow2_flush(struct vdisk *disk, bool nowait);

/* ---- map.c ---- */

int qcow2_map(struct vdisk *disk, uint64_t off, uint64_t len, enum vd_intent intent,
	      unsigned flags, struct vd_extent *ext);
void qcow2_commit(struct vdisk *disk, struct vd_extent *ext, int result);
/* The clusters of the file that an L2 entry holds a reference to: false if none. */
bool qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first, uint64_t *n);
/* Make the entries of [off, end) empty, whole clusters of a drained disk. */
int qcow2_drop(struct qcow2 *q, uint64_t off, uint64_t end);

/* ---- codec.c ---- */

extern const struct vd_codec qcow2_deflate;
extern const struct vd_codec qcow2_zstd;

/* ---- snapshot.c ---- */

/* A snapshot's entry in the table, with what we do not know of it. */
struct qcow2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_size;
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_ns;
	uint64_t vm_state_size;
	uint64_t disk_size;
	char *id, *name;	/* owned; with a NUL behind them */
	uint16_t id_len, name_len;
	uint8_t *extra;		/* owned */
	uint32_t extra_len;
};

/* @out: owned by the caller, qcow2_snapshots_free().  @bytes: of the table. */
int qcow2_snapshots_read(const struct qcow2_header *h, struct vdisk *file,
			 struct qcow2_snapshot **out, uint64_t *bytes, struct vdisk_error *err);
void qcow2_snapshots_free(struct qcow2_snapshot *s, unsigned n);
/* The one of this name, else of this id; NULL if there is none. */
struct qcow2_snapshot *qcow2_snapshot_find(struct qcow2_snapshot *s, unsigned n,
					   const char *name);
/* Write the table again, with what version 3 wants of it. */
int qcow2_snapshots_upgrade(struct qcow2 *q, struct vdisk_error *err);
int qcow2_snapshot_list(struct vdisk *disk, struct vdisk_snapshot **out, struct vdisk_error *err);
int qcow2_snapshot_create(struct vdisk *disk, const char *name, struct vdisk_error *err);
int qcow2_snapshot_apply(struct vdisk *disk, const char *name, struct vdisk_error *err);
int qcow2_snapshot_delete(struct vdisk *disk, const char *name, struct vdisk_error *err);

/* ---- bitmap.c ---- */

/* Mark the bitmaps that should have recorded what is written from now on. */
int qcow2_bitmaps_in_use(struct qcow2 *q);

/* ---- create.c, resize.c, amend.c ---- */

int qcow2_create(struct vdisk *file, uint64_t length, const struct vdisk_create_opts *opts,
		 struct vdisk_error *err);
int qcow2_measure(uint64_t length, uint64_t data, const struct vdisk_option *options, unsigned n,
		  uint64_t *required, uint64_t *full, struct vdisk_error *err);
int qcow2_resize(struct vdisk *disk, uint64_t length, struct vdisk_error *err);
int qcow2_empty(struct vdisk *disk, struct vdisk_error *err);
int qcow2_set_backing(struct vdisk *disk, const char *name, const char *format,
		      struct vdisk_error *err);
int qcow2_amend(struct vdisk *disk, const struct vdisk_option *options, unsigned n,
		struct vdisk_error *err);

#endif
