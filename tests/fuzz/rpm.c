/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rpm.c - hostile databases of rpm
 *
 * The first byte is how much of the rest is SQLite's log, in 1/256; of the log, the
 * checksums are made right, so that it counts.  A database that begins with "H" is
 * a single header.
 */
#include <assert.h>
#include <errno.h>

#include "core/compiler.h"
#include "guest/packages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int each(void *arg, const struct vdisk_package *p)
{
	unsigned *n = arg;

	assert(memchr(p->name, 0, sizeof(p->name)) && p->name[0]);
	assert(memchr(p->version, 0, sizeof(p->version)));
	assert(memchr(p->arch, 0, sizeof(p->arch)));
	return ++*n > 10000;	/* (cells of a page may share their bytes) */
}

static void sum(uint32_t s[2], const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		s[0] += load_le32(p + i) + s[1];
		s[1] += load_le32(p + i + 4) + s[0];
	}
}

static void mend_log(uint8_t *w, size_t len, size_t page)
{
	uint32_t s[2] = { 0, 0 };

	if (len < 32 || page < 512 || page % 8)
		return;
	store_be32(w, 0x377f0682);
	store_be32(w + 8, (uint32_t)page);
	sum(s, w, 24);
	store_be32(w + 24, s[0]);
	store_be32(w + 28, s[1]);
	for (size_t at = 32; len - at >= page + 24; at += page + 24) {
		memcpy(w + at + 8, w + 16, 8);
		sum(s, w + at, 8);
		sum(s, w + at + 24, page);
		store_be32(w + at + 16, s[0]);
		store_be32(w + at + 20, s[1]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk_package package;
	const char *why = NULL;
	size_t wal, len;
	uint8_t *db, *log;
	unsigned n = 0;
	int r;

	if (size < 2)
		return 0;
	wal = (size - 1) * data[0] / 256;
	len = size - 1 - wal;
	db = memcpy(malloc(len + 1), data + 1, len);
	log = memcpy(malloc(wal + 1), data + 1 + len, wal);
	if (db[0] == 'H' && packages_rpm_header(db + 1, len - 1, &package) == 0)
		each(&n, &package);
	mend_log(log, wal, len > 18 ? load_be16(db + 16) : 0);
	r = packages_rpm(db, len, wal ? log : NULL, wal, each, &n, &why);
	assert(r == 0 || r == 1 || (r == -EINVAL) == (why != NULL));
	free(db);
	free(log);
	return 0;
}
