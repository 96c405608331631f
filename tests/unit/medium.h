/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * medium.h - a disk in memory that loses power, for tests
 *
 * Writes succeed until the n-th; from then on all fails.  ->now is what reads
 * see, ->stable what is left after the power came back: all that was flushed,
 * and of the writes since then all, none or every other one.
 */
#ifndef TEST_MEDIUM_H
#define TEST_MEDIUM_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/engine.h"

#define MEDIUM_CAPACITY	(4u << 20)

enum fate { ALL_ARRIVE, NONE_ARRIVE, EVERY_OTHER };

struct medium {
	uint8_t stable[MEDIUM_CAPACITY];	/* flushed */
	uint8_t now[MEDIUM_CAPACITY];		/* with what was written since */
	uint64_t stable_size;
	unsigned writes_left;		/* until the power fails */
	bool off;
	enum fate fate;
	unsigned since_flush;
};

static int mem_preadv(struct vdisk *d, const struct iovec *iov, int n, uint64_t len, uint64_t off)
{
	struct medium *m = d->priv;

	if (!vd_in_range(off, len, d->size))
		return -EINVAL;
	for (int i = 0; i < n; i++) {
		memcpy(iov[i].iov_base, m->now + off, iov[i].iov_len);
		off += iov[i].iov_len;
	}
	return 0;
}

static void arrive(struct medium *m, const void *p, size_t len, uint64_t off)
{
	memcpy(m->now + off, p, len);
	if (m->fate == ALL_ARRIVE || (m->fate == EVERY_OTHER && m->since_flush++ % 2)) {
		memcpy(m->stable + off, p, len);
		m->stable_size = MAX(m->stable_size, off + len);
	}
}

static int mem_pwritev(struct vdisk *d, const struct iovec *iov, int n, uint64_t len, uint64_t off,
		       bool fua UNUSED)
{
	struct medium *m = d->priv;

	assert_true(vd_in_range(off, len, MEDIUM_CAPACITY));
	if (m->writes_left == 0)
		m->off = true;
	if (m->off)
		return -EIO;
	m->writes_left--;
	for (int i = 0; i < n; i++) {
		arrive(m, iov[i].iov_base, iov[i].iov_len, off);
		off += iov[i].iov_len;
	}
	if (off > d->size)
		d->size = off;
	return 0;
}

static int mem_sync(struct vdisk *d)
{
	struct medium *m = d->priv;

	if (m->off)
		return -EIO;
	memcpy(m->stable, m->now, d->size);
	m->stable_size = d->size;
	m->since_flush = 0;
	return 0;
}

static const struct vd_driver medium_driver = {
	.name = "medium",
	.preadv = mem_preadv,
	.pwritev = mem_pwritev,
	.sync = mem_sync,
};

static inline struct vdisk *new_medium(struct medium *m, const uint8_t *bytes, uint64_t size,
				unsigned writes, enum fate fate)
{
	struct vdisk *d = vd_disk_new(&medium_driver, "medium", size);

	memset(m, 0, sizeof(*m));
	memcpy(m->stable, bytes, size);
	memcpy(m->now, bytes, size);
	m->stable_size = size;
	m->writes_left = writes;
	m->fate = fate;
	d->priv = m;
	d->flags = VDISK_OPEN_WRITE;
	d->grows = d->fresh_zero = true;
	return d;
}

#endif
