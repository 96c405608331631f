/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memlog.h - a source in memory that remembers and fails
 *
 * What a test needs below a format: every write, truncation and sync is logged,
 * so that any state which a crash may leave can be made from the log; and the
 * n-th read, write or sync can be made to fail.
 */
#ifndef MEMLOG_H
#define MEMLOG_H

#include "core/driver.h"

enum memlog_kind { MEMLOG_WRITE, MEMLOG_TRUNCATE, MEMLOG_SYNC };

struct memlog_entry {
	enum memlog_kind kind;
	uint64_t off, len;
	uint8_t *data;		/* owned; NULL: zeroes */
};

enum memlog_fault { FAULT_READ, FAULT_WRITE, FAULT_SYNC, FAULT_KINDS };

struct memlog {
	uint8_t *mem;		/* owned */
	uint64_t size, space;
	bool logging;
	struct memlog_entry *log; /* owned */
	size_t n, log_space;
	uint64_t count[FAULT_KINDS]; /* calls so far */
	uint64_t fail[FAULT_KINDS];  /* the call that fails, counted from 1; 0: none */
	bool failed;		/* one has */
	/* Called before a sync takes effect, with no lock held: what another
	 * thread might do meanwhile.  May be NULL. */
	void (*before_sync)(void *arg);
	void *before_sync_arg;
	pthread_mutex_t lock;
};

void memlog_init(struct memlog *m);
void memlog_clear(struct memlog *m);
/* Memory for so many bytes now, not when they are written; m is new. */
void memlog_reserve(struct memlog *m, uint64_t space);
/* The content alone; no log. */
void memlog_copy(struct memlog *to, const struct memlog *from);
/* A writable disk on it, by the name of a file beside which others may be found. */
struct vdisk *memlog_disk(struct memlog *m, const char *name);
/* Do a logged entry to another one; @torn: only some of its sectors, by random bits. */
void memlog_replay(struct memlog *to, const struct memlog_entry *e, bool torn,
		   uint64_t (*random)(void));

#endif
