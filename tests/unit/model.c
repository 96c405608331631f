/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * model.c - random operations on a disk against a flat array
 *
 * Each configuration is one image, some hundreds of random reads, writes,
 * compressed writes, zeroes, discards, flushes, resizes, snapshots and reopens,
 * one by one and several in flight in a queue.  What the disk must hold is kept
 * in an array; at the end qemu-img checks the image and compares it with the
 * array.
 *
 *	MODEL_SEED=N   repeat a run (the seed is printed)
 *	MODEL_OPS=N    operations for each configuration
 *	MODEL_TRACE=1  print every operation
 *	MODEL_CONF=TXT only configurations whose name contains TXT
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/compiler.h"
#include "vdisk.h"

#define MAX_SNAPSHOTS	3
#define MAX_BATCH	8

struct conf {
	const char *name;
	const char *format;
	struct vdisk_option options[6];
	uint64_t size;		/* of the disk at first, about */
	const char *backing;	/* its format, or NULL */
	uint64_t backing_size;
	bool no_snapshots, no_resize, no_compress;
};

#define OPT(k, v) { .key = (k), .value = (v) }
#define K 1024u
#define M (1024u * 1024u)

static const struct conf confs[] = {
	{ .name = "raw", .format = "raw", .size = 4 * M, .no_snapshots = true,
	  .no_compress = true },
	{ .name = "default", .format = "qcow2", .size = 8 * M },
	{ .name = "cluster 512", .format = "qcow2", .size = 1 * M,
	  .options = { OPT("cluster_size", "512") } },
	{ .name = "cluster 512 refcount 64", .format = "qcow2", .size = 1 * M,
	  .options = { OPT("cluster_size", "512"), OPT("refcount_bits", "64") } },
	{ .name = "cluster 512 refcount 1", .format = "qcow2", .size = 1 * M,
	  .no_snapshots = true,
	  .options = { OPT("cluster_size", "512"), OPT("refcount_bits", "1") } },
	{ .name = "cluster 1k refcount 2", .format = "qcow2", .size = 1 * M,
	  .no_snapshots = true,
	  .options = { OPT("cluster_size", "1k"), OPT("refcount_bits", "2") } },
	{ .name = "cluster 4k refcount 4", .format = "qcow2", .size = 3 * M,
	  .options = { OPT("cluster_size", "4k"), OPT("refcount_bits", "4") } },
	{ .name = "cluster 4k backing", .format = "qcow2", .size = 3 * M,
	  .options = { OPT("cluster_size", "4k") }, .backing = "qcow2", .backing_size = 2 * M },
	{ .name = "cluster 16k refcount 8", .format = "qcow2", .size = 4 * M,
	  .options = { OPT("cluster_size", "16k"), OPT("refcount_bits", "8") } },
	{ .name = "cluster 2M", .format = "qcow2", .size = 20 * M,
	  .options = { OPT("cluster_size", "2M") } },
	{ .name = "cluster 2M refcount 32 backing", .format = "qcow2", .size = 12 * M,
	  .options = { OPT("cluster_size", "2M"), OPT("refcount_bits", "32") },
	  .backing = "raw", .backing_size = 16 * M },
	{ .name = "backing raw", .format = "qcow2", .size = 6 * M, .backing = "raw",
	  .backing_size = 4 * M + 512 },
	{ .name = "backing qcow2, longer", .format = "qcow2", .size = 4 * M,
	  .backing = "qcow2", .backing_size = 6 * M },
	{ .name = "extended L2", .format = "qcow2", .size = 8 * M,
	  .options = { OPT("extended_l2", "on") } },
	{ .name = "extended L2 backing", .format = "qcow2", .size = 6 * M,
	  .options = { OPT("extended_l2", "on"), OPT("cluster_size", "128k") },
	  .backing = "raw", .backing_size = 7 * M },
	{ .name = "extended L2 16k backing", .format = "qcow2", .size = 3 * M,
	  .options = { OPT("extended_l2", "on"), OPT("cluster_size", "16k") },
	  .backing = "qcow2", .backing_size = 2 * M },
	{ .name = "extended L2 2M", .format = "qcow2", .size = 16 * M,
	  .options = { OPT("extended_l2", "on"), OPT("cluster_size", "2M") } },
	{ .name = "version 2", .format = "qcow2", .size = 6 * M,
	  .options = { OPT("compat", "0.10") } },
	{ .name = "version 2 backing", .format = "qcow2", .size = 4 * M,
	  .options = { OPT("compat", "0.10"), OPT("cluster_size", "8k") }, .backing = "raw",
	  .backing_size = 3 * M },
	{ .name = "lazy refcounts", .format = "qcow2", .size = 6 * M,
	  .options = { OPT("lazy_refcounts", "on") } },
	{ .name = "zstd", .format = "qcow2", .size = 6 * M,
	  .options = { OPT("compression_type", "zstd") } },
	{ .name = "zstd refcount 1 cluster 32k", .format = "qcow2", .size = 4 * M,
	  .no_snapshots = true,
	  .options = { OPT("compression_type", "zstd"), OPT("refcount_bits", "1"),
		       OPT("cluster_size", "32k") } },
	{ .name = "data file", .format = "qcow2", .size = 6 * M, .no_snapshots = true,
	  .no_compress = true, .options = { OPT("data_file", "data") } },
	{ .name = "data file backing", .format = "qcow2", .size = 4 * M, .no_snapshots = true,
	  .no_compress = true, .options = { OPT("data_file", "data") }, .backing = "raw",
	  .backing_size = 3 * M },
	{ .name = "data file raw", .format = "qcow2", .size = 6 * M, .no_snapshots = true,
	  .no_compress = true,
	  .options = { OPT("data_file", "data"), OPT("data_file_raw", "on") } },
	{ .name = "data file extended L2", .format = "qcow2", .size = 6 * M,
	  .no_snapshots = true, .no_compress = true,
	  .options = { OPT("data_file", "data"), OPT("extended_l2", "on") } },
	{ .name = "preallocated", .format = "qcow2", .size = 4 * M,
	  .options = { OPT("preallocation", "metadata") } },
#define VMDK .format = "vmdk", .no_snapshots = true, .no_resize = true, .no_compress = true
	{ .name = "vmdk", VMDK, .size = 80 * M },
	{ .name = "vmdk zeroed grains", VMDK, .size = 6 * M,
	  .options = { OPT("zeroed_grain", "on") } },
	{ .name = "vmdk backing", VMDK, .size = 6 * M, .backing = "vmdk", .backing_size = 4 * M },
	{ .name = "vmdk zeroed grains backing", VMDK, .size = 4 * M,
	  .options = { OPT("zeroed_grain", "on") }, .backing = "vmdk", .backing_size = 5 * M },
	{ .name = "vmdk split", VMDK, .size = 6 * M,
	  .options = { OPT("subformat", "twoGbMaxExtentSparse") } },
	{ .name = "vmdk flat", VMDK, .size = 4 * M,
	  .options = { OPT("subformat", "monolithicFlat") } },
};

struct snap {
	char name[16];
	uint8_t *mem;
	uint64_t size;
};

struct model {
	const struct conf *conf;
	char dir[256], path[300];
	struct vdisk *disk;
	struct vdisk_queue *queue;
	uint8_t *mem, *tmp;
	uint64_t size, max, unit;
	struct snap snaps[MAX_SNAPSHOTS];
	unsigned n_snaps, serial;
	uint64_t seed;
	unsigned step;
	char log[16][96];
};

static uint64_t rng;

static uint64_t rnd(void)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return rng * UINT64_C(2685821657736338717);
}

static uint64_t below(uint64_t n)
{
	return rnd() % n;
}

PRINTF_FMT(2, 3)
static void bad(struct model *m, const char *fmt, ...)
{
	va_list ap;

	for (unsigned i = m->step < 15 ? 0 : m->step - 15; i <= m->step; i++)
		print_error("  %s\n", m->log[i % 16]);
	va_start(ap, fmt);
	vprint_error(fmt, ap);
	va_end(ap);
	fail_msg("%s: step %u, MODEL_SEED=%" PRIu64 " (%s kept)", m->conf->name, m->step, m->seed,
		 m->dir);
}

PRINTF_FMT(2, 3)
static void note(struct model *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m->log[m->step % 16], sizeof(m->log[0]), fmt, ap);
	va_end(ap);
	if (getenv("MODEL_TRACE"))
		print_message("%u: %s\n", m->step, m->log[m->step % 16]);
}

static void ok(struct model *m, int r, const char *what)
{
	if (r < 0)
		bad(m, "%s: %s\n", what, strerror(-r));
}

/* Contents: mostly compressible, sometimes not. */
static void fill(uint8_t *p, uint64_t len)
{
	uint64_t kind = below(4), v = rnd();

	for (uint64_t i = 0; i < len; i++) {
		if (kind == 0 || (i & 63) == 0)
			v = rnd();
		p[i] = (uint8_t)(v >> (i & 7));
	}
}

/* A random range, by preference around units and their borders. */
static void range(struct model *m, uint64_t *off, uint64_t *len)
{
	uint64_t unit = m->unit ? m->unit : 4096, grain = below(4) ? 512 : 1;
	uint64_t most = below(8) ? MIN(3 * unit, m->size) : m->size;

	most = MIN(most, UINT64_C(3) * M);
	*off = below(m->size);
	if (below(3) == 0)
		*off -= *off % unit;
	*off -= *off % grain;
	*len = 1 + below(most);
	if (below(3) == 0)
		*len = unit * (1 + below(4));
	*len = vd_align_up(*len, grain);
	*len = MIN(*len, m->size - *off);
}

static void compare(struct model *m, const uint8_t *got, const uint8_t *want, uint64_t off,
		    uint64_t len)
{
	if (!memcmp(got, want, len))
		return;
	for (uint64_t i = 0; i < len; i++)
		if (got[i] != want[i])
			bad(m, "byte %" PRIu64 " (unit %" PRIu64 " + %" PRIu64
			    ") is %02x, not %02x\n", off + i, m->unit ? (off + i) / m->unit : 0,
			    m->unit ? (off + i) % m->unit : 0, got[i], want[i]);
}

/* ---- one by one ---- */

static void do_read(struct model *m)
{
	uint64_t off, len;

	range(m, &off, &len);
	note(m, "read %" PRIu64 "+%" PRIu64, off, len);
	ok(m, vdisk_read(m->disk, m->tmp, len, off), "read");
	compare(m, m->tmp, m->mem + off, off, len);
}

static void do_write(struct model *m)
{
	uint64_t off, len;

	range(m, &off, &len);
	note(m, "write %" PRIu64 "+%" PRIu64, off, len);
	fill(m->mem + off, len);
	ok(m, vdisk_write(m->disk, m->mem + off, len, off), "write");
}

static void do_zero(struct model *m)
{
	unsigned flags = below(2) ? VDISK_REQ_UNMAP : 0;
	uint64_t off, len;

	range(m, &off, &len);
	note(m, "zero %" PRIu64 "+%" PRIu64 "%s", off, len, flags ? " unmap" : "");
	memset(m->mem + off, 0, len);
	ok(m, vdisk_zero(m->disk, off, len, flags), "zero");
}

/* Whole units are zero now; the rest is as it was, or zero. */
static void adopt_discard(struct model *m, uint64_t off, uint64_t len)
{
	struct vdisk_limits l;
	uint64_t unit, lo, hi;

	vdisk_get_limits(m->disk, &l);
	unit = l.unit ? l.unit : 4096;
	lo = vd_align_up(off, unit);
	hi = off + len == m->size ? off + len : vd_align_down(off + len, unit);
	ok(m, vdisk_read(m->disk, m->tmp, len, off), "read");
	for (uint64_t i = 0; i < len; i++) {
		bool whole = l.zero_discard && l.unit && off + i >= lo && off + i < hi;

		if (m->tmp[i] != 0 && (whole || m->tmp[i] != m->mem[off + i]))
			bad(m, "byte %" PRIu64 " after a discard is %02x\n", off + i, m->tmp[i]);
		m->mem[off + i] = m->tmp[i];
	}
}

static void do_discard(struct model *m)
{
	uint64_t off, len;

	range(m, &off, &len);
	note(m, "discard %" PRIu64 "+%" PRIu64, off, len);
	ok(m, vdisk_discard(m->disk, off, len), "discard");
	adopt_discard(m, off, len);
}

static void do_flush(struct model *m)
{
	note(m, "flush");
	ok(m, vdisk_flush(m->disk), "flush");
}

/* ---- several in flight ---- */

static uint8_t random_op(struct model *m)
{
	static const uint8_t ops[] = {
		VDISK_OP_READ, VDISK_OP_WRITE, VDISK_OP_WRITE, VDISK_OP_WRITE, VDISK_OP_ZERO,
		VDISK_OP_DISCARD,
	};

	(void)m;
	return ops[below(ARRAY_SIZE(ops))];
}

static void reap_all(struct model *m, unsigned n)
{
	struct vdisk_request *done[MAX_BATCH];

	while (n > 0) {
		int got = vdisk_queue_reap(m->queue, done, MAX_BATCH, 60000);

		if (got == 0)
			bad(m, "%u requests are lost\n", n);
		for (int i = 0; i < got; i++)
			ok(m, done[i]->result, "queued request");
		n -= got > 0 ? (unsigned)got : 0;
	}
}

/* Requests side by side, at any byte: neighbours share units. */
static void do_batch(struct model *m)
{
	struct vdisk_request req[MAX_BATCH] = { 0 }, *list[MAX_BATCH];
	struct iovec iov[MAX_BATCH];
	uint64_t off, len;
	unsigned n = 0;

	range(m, &off, &len);
	note(m, "batch %" PRIu64 "+%" PRIu64, off, len);
	for (uint64_t at = off, end = off + len; at < end && n < MAX_BATCH - 1; n++) {
		uint64_t part = MIN(1 + below(len / 2 + 1), end - at);
		struct vdisk_request *q = &req[n];

		q->disk = m->disk;
		q->op = random_op(m);
		q->offset = at;
		q->length = part;
		iov[n] = (struct iovec){ m->mem + at, part };
		q->iov = &iov[n];
		q->iovcnt = q->op == VDISK_OP_READ || q->op == VDISK_OP_WRITE;
		if (q->op == VDISK_OP_WRITE)
			fill(m->mem + at, part);
		else if (q->op == VDISK_OP_ZERO)
			memset(m->mem + at, 0, part);
		else if (q->op == VDISK_OP_READ)
			iov[n].iov_base = m->tmp + (at - off);
		if (below(8) == 0)
			q->flags |= VDISK_REQ_FUA;
		list[n] = q;
		at += part;
	}
	if (below(3) == 0) {
		req[n] = (struct vdisk_request){ .disk = m->disk, .op = VDISK_OP_FLUSH };
		list[n] = &req[n];
		n++;
	}
	vdisk_queue_submit(m->queue, list, n);
	reap_all(m, n);
	for (unsigned i = 0; i < n; i++) {
		if (req[i].op == VDISK_OP_READ)
			compare(m, iov[i].iov_base, m->mem + req[i].offset, req[i].offset,
				req[i].length);
		else if (req[i].op == VDISK_OP_DISCARD)
			adopt_discard(m, req[i].offset, req[i].length);
	}
}

static void do_compressed(struct model *m)
{
	struct vdisk_request req = { 0 }, *list[1] = { &req };
	uint64_t units = (m->size + m->unit - 1) / m->unit;
	struct iovec v;

	req.disk = m->disk;
	req.op = VDISK_OP_WRITE;
	req.flags = VDISK_REQ_COMPRESS;
	req.offset = below(units) * m->unit;
	req.length = MIN(m->unit * (1 + below(4)), m->size - req.offset);
	note(m, "compressed write %" PRIu64 "+%" PRIu64, req.offset, req.length);
	fill(m->mem + req.offset, req.length);
	v = (struct iovec){ m->mem + req.offset, req.length };
	req.iov = &v;
	req.iovcnt = 1;
	vdisk_queue_submit(m->queue, list, 1);
	reap_all(m, 1);
}

/* ---- the disk as a whole ---- */

static void open_disk(struct model *m)
{
	struct vdisk_open_opts o = {
		.size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = m->conf->format,
	};
	struct vdisk_error err = { 0 };
	struct vdisk_limits l;

	if (vdisk_open(&m->disk, m->path, &o, &err) < 0)
		bad(m, "%s\n", err.msg);
	vdisk_get_limits(m->disk, &l);
	m->unit = l.unit;
	if (vdisk_size(m->disk) != m->size)
		bad(m, "size is %" PRIu64 ", not %" PRIu64 "\n", vdisk_size(m->disk), m->size);
}

static void close_disk(struct model *m)
{
	struct vdisk_error err = { 0 };

	if (vdisk_close(STEAL(m->disk), &err) < 0)
		bad(m, "close: %s\n", err.msg);
}

static void do_reopen(struct model *m)
{
	note(m, "reopen");
	close_disk(m);
	open_disk(m);
}

static void do_resize(struct model *m)
{
	uint64_t to = (1 + below(m->max / 512)) * 512;
	struct vdisk_error err = { 0 };

	if (m->conf->no_resize)
		return;
	if (m->n_snaps && strstr(m->conf->name, "version 2"))
		return;
	note(m, "resize %" PRIu64 " to %" PRIu64, m->size, to);
	if (vdisk_resize(m->disk, to, &err) < 0)
		bad(m, "%s\n", err.msg);
	if (to > m->size)
		memset(m->mem + m->size, 0, to - m->size);
	m->size = to;
	if (vdisk_size(m->disk) != to)
		bad(m, "size is %" PRIu64 "\n", vdisk_size(m->disk));
}

/* Narrow counts overflow where several coded clusters share one: refused, and
 * nothing has changed. */
static bool refcount_full(const struct model *m, const struct vdisk_error *err)
{
	return strstr(m->conf->name, "refcount 4") && err->code == ERANGE;
}

static void snapshot_create(struct model *m)
{
	struct snap *s = &m->snaps[m->n_snaps];
	struct vdisk_error err = { 0 };

	snprintf(s->name, sizeof(s->name), "s%u", m->serial++);
	note(m, "snapshot create %s", s->name);
	if (vdisk_snapshot_create(m->disk, s->name, &err) < 0) {
		if (!refcount_full(m, &err))
			bad(m, "%s\n", err.msg);
		return;
	}
	s->size = m->size;
	s->mem = malloc(m->size);
	memcpy(s->mem, m->mem, m->size);
	m->n_snaps++;
}

static void snapshot_apply(struct model *m, const struct snap *s)
{
	struct vdisk_error err = { 0 };

	note(m, "snapshot apply %s", s->name);
	if (vdisk_snapshot_apply(m->disk, s->name, &err) < 0) {
		if (!refcount_full(m, &err))
			bad(m, "%s\n", err.msg);
		return;
	}
	memcpy(m->mem, s->mem, s->size);
	m->size = s->size;
}

static void snapshot_delete(struct model *m, struct snap *s)
{
	struct vdisk_error err = { 0 };

	note(m, "snapshot delete %s", s->name);
	if (vdisk_snapshot_delete(m->disk, s->name, &err) < 0)
		bad(m, "%s\n", err.msg);
	free(s->mem);
	*s = m->snaps[--m->n_snaps];
}

static void snapshot_read(struct model *m, const struct snap *s)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .flags = VDISK_OPEN_SHARE };
	struct vdisk_error err = { 0 };
	struct vdisk *d;
	char name[400];

	note(m, "snapshot read %s", s->name);
	ok(m, vdisk_flush(m->disk), "flush");
	snprintf(name, sizeof(name), "%s@%s", m->path, s->name);
	if (vdisk_open(&d, name, &o, &err) < 0)
		bad(m, "%s\n", err.msg);
	if (vdisk_size(d) != s->size)
		bad(m, "size of the snapshot is %" PRIu64 "\n", vdisk_size(d));
	ok(m, vdisk_read(d, m->tmp, s->size, 0), "read");
	compare(m, m->tmp, s->mem, 0, s->size);
	vdisk_close(d, NULL);
}

static void do_snapshot(struct model *m)
{
	if (m->conf->no_snapshots)
		return;
	switch (below(4)) {
	case 0:
		if (m->n_snaps < MAX_SNAPSHOTS)
			snapshot_create(m);
		break;
	case 1:
		if (m->n_snaps)
			snapshot_apply(m, &m->snaps[below(m->n_snaps)]);
		break;
	case 2:
		if (m->n_snaps)
			snapshot_delete(m, &m->snaps[below(m->n_snaps)]);
		break;
	default:
		if (m->n_snaps)
			snapshot_read(m, &m->snaps[below(m->n_snaps)]);
	}
}

static void step(struct model *m)
{
	uint64_t what = below(100);

	note(m, "nothing");
	if (what < 22)
		do_read(m);
	else if (what < 44)
		do_write(m);
	else if (what < 52)
		do_zero(m);
	else if (what < 60)
		do_discard(m);
	else if (what < 66)
		do_flush(m);
	else if (what < 84)
		do_batch(m);
	else if (what < 92 && !m->conf->no_compress)
		do_compressed(m);
	else if (what < 94)
		do_reopen(m);
	else if (what < 96)
		do_resize(m);
	else
		do_snapshot(m);
}

/* ---- a run ---- */

static void make_image(struct model *m, const char *name, const char *format, uint64_t size,
		       const struct vdisk_option *options, const char *backing,
		       const char *backing_format)
{
	struct vdisk_create_opts o = {
		.size = sizeof(o), .format = format, .options = options, .backing = backing,
		.backing_format = backing_format,
	};
	struct vdisk_error err = { 0 };
	char path[300];

	while (options && options[o.n_options].key)
		o.n_options++;
	snprintf(path, sizeof(path), "%.250s/%s", m->dir, name);
	if (vdisk_create(path, size, &o, &err) < 0)
		bad(m, "%s\n", err.msg);
}

/* The backing disk, and what of it shows through. */
static void make_backing(struct model *m)
{
	const struct conf *c = m->conf;
	struct vdisk_open_opts o = {
		.size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = c->backing,
	};
	AUTO_FREE uint8_t *mem = calloc(1, c->backing_size);
	struct vdisk *d;
	char path[300];

	make_image(m, "base", c->backing, c->backing_size, NULL, NULL, NULL);
	snprintf(path, sizeof(path), "%.250s/base", m->dir);
	ok(m, vdisk_open(&d, path, &o, NULL), "open base");
	for (uint64_t at = 0; at < c->backing_size; at += 100000) {
		uint64_t n = MIN(UINT64_C(70000), c->backing_size - at);

		fill(mem + at, n);
		ok(m, vdisk_write(d, mem + at, n, at), "write base");
	}
	ok(m, vdisk_close(d, NULL), "close base");
	memcpy(m->mem, mem, MIN(c->backing_size, m->size));
}

/* A stranger's view of the same image. */
static void ask_qemu(struct model *m)
{
	bool raw = !strcmp(m->conf->format, "raw");
	char flat[300], cmd[1200];
	int fd;

	snprintf(flat, sizeof(flat), "%.250s/flat", m->dir);
	fd = open(flat, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (uint64_t at = 0; at < m->size;) {
		ssize_t n = pwrite(fd, m->mem + at, m->size - at, (off_t)at);

		if (n <= 0)
			bad(m, "writing %s: %s\n", flat, strerror(errno));
		at += (uint64_t)n;
	}
	close(fd);
	snprintf(cmd, sizeof(cmd), "cd '%s' && qemu-img check -q '%s' >&2", m->dir, m->path);
	if (!raw && system(cmd))
		bad(m, "qemu-img check finds something\n");
	snprintf(cmd, sizeof(cmd), "cd '%s' && qemu-img compare -q -f raw -F %s '%s' '%s' >&2",
		 m->dir, m->conf->format, flat, m->path);
	if (system(cmd))
		bad(m, "qemu-img compare finds a difference\n");
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", m->dir);
	if (system(cmd))
		bad(m, "cannot remove %s\n", m->dir);
}

static void run_conf(const struct conf *c, uint64_t seed, unsigned ops, bool threads)
{
	struct vdisk_queue_opts qo = {
		.size = sizeof(qo), .backend = threads ? VDISK_QUEUE_THREADS : VDISK_QUEUE_AUTO,
	};
	struct model m = { .conf = c, .seed = seed };
	/* mostly in memory, where flushes cost nothing */
	const char *tmp = (seed + (uint64_t)(c - confs)) % 4 && access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp";

	snprintf(m.dir, sizeof(m.dir), "%.200s/vdisk-model.XXXXXX", tmp);
	assert_non_null(mkdtemp(m.dir));
	snprintf(m.path, sizeof(m.path), "%.250s/image", m.dir);
	m.max = c->size + c->size / 2;
	m.size = (c->size / 2 + below(c->size / 2)) / 512 * 512;
	m.mem = calloc(1, m.max);
	m.tmp = malloc(m.max);
	assert_int_equal(vdisk_queue_new(&m.queue, &qo, NULL), 0);
	if (c->backing)
		make_backing(&m);
	make_image(&m, "image", c->format, m.size, c->options, c->backing ? "base" : NULL,
		   c->backing);
	open_disk(&m);
	for (m.step = 0; m.step < ops; m.step++)
		step(&m);
	note(&m, "the end");
	ok(&m, vdisk_read(m.disk, m.tmp, m.size, 0), "read");
	compare(&m, m.tmp, m.mem, 0, m.size);
	close_disk(&m);
	ask_qemu(&m);
	vdisk_queue_free(m.queue);
	for (unsigned i = 0; i < m.n_snaps; i++)
		free(m.snaps[i].mem);
	free(m.mem);
	free(m.tmp);
}

static void model(void **state)
{
	const char *only = getenv("MODEL_CONF"), *seed_text = getenv("MODEL_SEED");
	const char *ops_text = getenv("MODEL_OPS");
	unsigned ops = ops_text ? (unsigned)atoi(ops_text) : 780;
	uint64_t seed;

	(void)state;
	assert_int_equal(getrandom(&seed, sizeof(seed), 0), (ssize_t)sizeof(seed));
	seed >>= 1;
	if (seed_text)
		seed = strtoull(seed_text, NULL, 10);
	print_message("MODEL_SEED=%" PRIu64 "\n", seed);
	for (unsigned i = 0; i < ARRAY_SIZE(confs); i++) {
		if (only && !strstr(confs[i].name, only))
			continue;
		rng = (seed * UINT64_C(0xbf58476d1ce4e5b9) + i * UINT64_C(0x9e3779b97f4a7c15)) | 1;
		rnd();
		run_conf(&confs[i], seed, ops, (seed + i) & 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(model) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
