/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rpm.h - the three kinds of database in which rpm has its packages
 *
 *   rpm.c         a package's header; ndb; which kind it is
 *   rpm_sqlite.c  the table "Packages" of an SQLite database
 *   rpm_bdb.c     a Berkeley DB hash
 *
 * Each reads a database that is in memory, and hands over its blobs one after
 * the other.  All is checked, as it comes from a guest.
 */
#ifndef VD_GUEST_RPM_H
#define VD_GUEST_RPM_H

#include "core/compiler.h"

struct rpm_db {
	const uint8_t *p;	/* borrowed */
	size_t len;
	const uint8_t *wal;	/* borrowed: SQLite's journal beside it, or NULL */
	size_t wal_len;
	/* A blob; what it returns, unless 0, ends the reading and becomes its result. */
	int (*each)(void *arg, const uint8_t *blob, size_t len);
	void *arg;
	const char *why;	/* what is wrong, with -EINVAL */
};

/* -EINVAL with @why, also in callbacks */
int rpm_bad(struct rpm_db *db, const char *why);
int rpm_sqlite(struct rpm_db *db);
int rpm_bdb(struct rpm_db *db);
int rpm_ndb(struct rpm_db *db);

bool rpm_is_sqlite(const struct rpm_db *db);
bool rpm_is_bdb(const struct rpm_db *db);

/* Room for @len bytes at *buf, which has *room; 0, -ENOMEM. */
int rpm_room(uint8_t **buf, size_t *room, size_t len);

#endif
