/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check.h - the checker's state, for check.c and repair.c */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include "formats/qcow2/counts.h"
#include "formats/qcow2/qcow2.h"

/* A distinct L2 table. */
struct check_l2 {
	uint64_t off;
	uint32_t refs;		/* L1 entries that refer to it, in all L1 tables */
	uint32_t l1_index;	/* of one in the active L1 table, or CHECK_NOT_ACTIVE */
};

#define CHECK_NOT_ACTIVE UINT32_MAX

struct check {
	struct vdisk *file;	/* borrowed */
	struct qcow2_header h;	/* owned */
	uint64_t file_size;
	uint64_t clusters;	/* of the file, the last one may be short */

	struct vdisk_check_result res;
	void (*report)(void *arg, const char *finding);
	void *arg;
	unsigned n_reported;
	bool quiet;		/* count findings, but do not report them */

	struct counts counts;	/* owned */
	struct counts before;	/* owned: those of the pass before, while entries are fixed */
	struct check_l2 *l2;	/* owned: sorted by offset, once counted */
	size_t n_l2, l2_room;
	uint64_t *reftable;	/* owned: offsets of refcount blocks, 0: none or unusable */
	size_t n_reftable;
	uint8_t *buf;		/* owned: a cluster */
	uint64_t n_copies;	/* clusters that a repair made, at most as many as there were */

	/* what a pass shall do */
	bool fix_entries;	/* write entries that make sense over those that do not */
	bool fix_copied;
	bool skip_refcounts;	/* do not count the refcount structures themselves */

	/* what a pass found */
	bool bad_refcounts;	/* their structures are damaged: rebuild them */
	bool bad_bitmaps;
	bool bad_entries;	/* entries in L1 or L2 tables that cannot be what was meant */
	bool incomplete;	/* something is unreadable: there may be more references */
};

/* Count all references and compare them with what the medium says. */
int check_scan(struct check *c);
/* Only count them; with ->fix_entries, correct entries on the way. */
int check_count(struct check *c);
/* Check the COPIED flags; with ->fix_copied, correct them. */
int check_copied(struct check *c);
void check_finding(struct check *c, const char *fmt, ...) PRINTF_FMT(2, 3);

/*
 * Is the cluster at @off a table of @kind, L1 (COUNT_META) or L2, and nothing
 * else?  Otherwise to write an entry there would damage something.
 */
bool check_may_write(const struct check *c, const struct counts *counts, uint64_t off,
		     enum count_kind kind);

/* Read the refcount block of table entry @i into ->buf; 0, or -errno. */
int check_read_refblock(struct check *c, size_t i);

/* Repair what check_scan() found. */
int check_repair(struct check *c, unsigned flags);

#endif
