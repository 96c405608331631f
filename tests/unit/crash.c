/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crash.c - what is left of an image when the machine stops
 *
 * A workload runs over a disk that logs every write and every sync.  A crash
 * may leave everything up to the last sync, and of what came after it any part
 * of any write (in units of 512 bytes).  At every sync, and at random after
 * every write between them, such images are made, and
 *
 *   - a check finds no corruption; leaks are allowed.  (Where the image's dirty
 *     bit is set, opening it for writing repairs it first, so: after that.)
 *   - it opens, and each sector holds what it held at the last flush that had
 *     completed, or something written since.
 *
 * While a flush is about to sync, other threads may write: what they are given
 * then must not be clusters that tables on the medium still refer to.
 *
 *	CRASH_SEED=N  repeat a run (the seed is printed)
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>

#include <cmocka.h>

#include "formats/qcow2/qcow2.h"
#include "tests/lib/memlog.h"

#define SECTOR	512u
#define OPS	80
#define TORN	2		/* images for each point between two syncs */
#define BY_QEMU	4		/* of these, qemu-img looks at so many */

struct conf {
	const char *name;
	struct vdisk_option options[4];
	uint64_t size;
	bool backing, snapshots;
	bool vmdk;
};

#define OPT(k, v) { .key = (k), .value = (v) }

static const struct conf confs[] = {
	{ .name = "default", .size = 4 << 20 },
	{ .name = "4k", .size = 2 << 20, .options = { OPT("cluster_size", "4k") } },
	{ .name = "512, wide refcounts", .size = 3 << 20,
	  .options = { OPT("cluster_size", "512"), OPT("refcount_bits", "64") } },
	{ .name = "backing", .size = 2 << 20, .backing = true,
	  .options = { OPT("cluster_size", "8k") } },
	{ .name = "lazy", .size = 2 << 20,
	  .options = { OPT("lazy_refcounts", "on"), OPT("cluster_size", "4k") } },
	{ .name = "snapshots", .size = 2 << 20, .snapshots = true,
	  .options = { OPT("cluster_size", "4k") } },
	{ .name = "snapshots, backing", .size = 2 << 20, .snapshots = true, .backing = true,
	  .options = { OPT("cluster_size", "16k") } },
	{ .name = "extended L2", .size = 3 << 20, .options = { OPT("extended_l2", "on") } },
	{ .name = "vmdk", .size = 1 << 20, .vmdk = true },
	{ .name = "vmdk, zeroed grains, backing", .size = 1 << 20, .vmdk = true, .backing = true,
	  .options = { OPT("zeroed_grain", "on") } },
};

static const struct vd_driver *driver(const struct conf *c)
{
	return c->vmdk ? &vd_vmdk : &vd_qcow2;
}

/* Every sector is filled with one stamp. */
struct change {
	uint32_t op;
	uint64_t stamp;
	struct change *older;	/* owned */
};

struct op {
	size_t begin, end;	/* in the log */
	bool flush;		/* after it, all before it is durable */
};

struct world {
	const struct conf *conf;
	char dir[64], path[96];
	struct memlog log;
	struct vdisk *disk;
	uint64_t sectors;
	uint64_t *now;		/* stamps */
	uint64_t *base;		/* at the beginning */
	struct change **history;
	struct op ops[5 * OPS];
	uint32_t n_ops;
	unsigned snapshots;
	uint64_t *snap;		/* the contents of the one snapshot */
	uint64_t next_stamp, seed;
	unsigned asked_qemu;
};

static uint64_t rng;

static uint64_t rnd(void)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return rng * UINT64_C(2685821657736338717);
}

static void ok(struct world *w, int r, const char *what)
{
	if (r < 0)
		fail_msg("%s: %s: %s (CRASH_SEED=%" PRIu64 ")", w->conf->name, what, strerror(-r),
			 w->seed);
}

/* ---- the workload ---- */

static void changed(struct world *w, uint64_t sector, uint64_t stamp)
{
	struct change *c = malloc(sizeof(*c));

	*c = (struct change){ .op = w->n_ops, .stamp = stamp, .older = w->history[sector] };
	w->history[sector] = c;
	w->now[sector] = stamp;
}

static void fill(uint8_t *p, uint64_t stamp)
{
	for (unsigned i = 0; i < SECTOR; i += 8)
		memcpy(p + i, &stamp, 8);
}

static void range(struct world *w, uint64_t unit, uint64_t *first, uint64_t *n)
{
	/* (whole grains, now and then) */
	uint64_t most = w->conf->vmdk && rnd() % 4 == 0 ? 512 : 48;

	*first = rnd() % w->sectors / unit * unit;
	*n = MIN((1 + rnd() % most / unit) * unit, w->sectors - *first);
}

static void do_write(struct world *w, unsigned flags)
{
	struct vdisk_request req = { .disk = w->disk, .op = VDISK_OP_WRITE, .flags = (uint8_t)flags };
	struct vdisk_request *list[1] = { &req }, *done[1];
	uint64_t first, n, unit = flags & VDISK_REQ_COMPRESS ? w->disk->unit / SECTOR : 1;
	AUTO_FREE uint8_t *buf = NULL;
	struct vdisk_queue *queue = NULL;
	struct iovec v;

	range(w, unit, &first, &n);
	buf = malloc(n * SECTOR);
	for (uint64_t i = 0; i < n; i++) {
		changed(w, first + i, w->next_stamp++);
		fill(buf + i * SECTOR, w->now[first + i]);
	}
	if (!flags) {
		ok(w, vdisk_write(w->disk, buf, n * SECTOR, first * SECTOR), "write");
		return;
	}
	v = (struct iovec){ buf, n * SECTOR };
	req.iov = &v;
	req.iovcnt = 1;
	req.offset = first * SECTOR;
	req.length = n * SECTOR;
	ok(w, vdisk_queue_new(&queue, NULL, NULL), "queue");
	vdisk_queue_submit(queue, list, 1);
	ok(w, vdisk_queue_reap(queue, done, 1, -1), "reap");
	ok(w, req.result, "compressed write");
	vdisk_queue_free(queue);
}

static uint64_t stamp_at(struct world *w, struct vdisk *disk, uint64_t sector)
{
	uint8_t buf[SECTOR], want[SECTOR];
	uint64_t stamp;

	ok(w, vdisk_read(disk, buf, SECTOR, sector * SECTOR), "read");
	memcpy(&stamp, buf, 8);
	fill(want, stamp);
	if (memcmp(buf, want, SECTOR))
		fail_msg("%s: sector %" PRIu64 " is mixed (CRASH_SEED=%" PRIu64 ")", w->conf->name,
			 sector, w->seed);
	return stamp;
}

static void do_zero(struct world *w, bool discard)
{
	uint64_t first, n;

	range(w, 1, &first, &n);
	ok(w, discard ? vdisk_discard(w->disk, first * SECTOR, n * SECTOR) :
			vdisk_zero(w->disk, first * SECTOR, n * SECTOR,
				   rnd() & 1 ? VDISK_REQ_UNMAP : 0), "zero");
	for (uint64_t i = first; i < first + n; i++)
		changed(w, i, discard ? stamp_at(w, w->disk, i) : 0);
}

/* Before a flush's sync takes effect: somebody else writes, an operation of its own. */
static void meanwhile(void *arg)
{
	struct world *w = arg;

	if (w->n_ops + OPS >= ARRAY_SIZE(w->ops))
		return;
	w->n_ops++;
	w->ops[w->n_ops].begin = w->log.n;
	/* (these may sync too, while others wait for them: nobody else in between) */
	w->log.before_sync = NULL;
	for (uint64_t i = rnd() % 3; i; i--)
		do_write(w, 0);
	w->log.before_sync = meanwhile;
	w->ops[w->n_ops].end = w->log.n;
}

static void do_flush(struct world *w)
{
	struct op *op = &w->ops[w->n_ops];

	w->log.before_sync = meanwhile;
	w->log.before_sync_arg = w;
	ok(w, vdisk_flush(w->disk), "flush");
	w->log.before_sync = NULL;
	op->flush = true;
}

static void do_snapshot(struct world *w)
{
	struct vdisk_error err = { 0 };
	int r;

	if (!w->snapshots) {
		r = vdisk_snapshot_create(w->disk, "s", &err);
		memcpy(w->snap, w->now, w->sectors * 8);
		w->snapshots = 1;
	} else if (rnd() & 1) {
		r = vdisk_snapshot_apply(w->disk, "s", &err);
		for (uint64_t i = 0; i < w->sectors; i++)
			if (w->now[i] != w->snap[i])
				changed(w, i, w->snap[i]);
	} else {
		r = vdisk_snapshot_delete(w->disk, "s", &err);
		w->snapshots = 0;
	}
	if (r < 0)
		fail_msg("%s: %s (CRASH_SEED=%" PRIu64 ")", w->conf->name, err.msg, w->seed);
	w->ops[w->n_ops].flush = true;
}

static void work(struct world *w)
{
	for (unsigned i = 0; i < OPS; i++, w->n_ops++) {
		struct op *op = &w->ops[w->n_ops];
		uint64_t what = rnd() % 100;

		op->begin = w->log.n;
		if (what < 52) {
			do_write(w, 0);
		} else if (what < 60) {
			do_write(w, w->conf->vmdk ? 0 : VDISK_REQ_COMPRESS);
		} else if (what < 78) {
			do_zero(w, what & 1);
		} else if (what < 94 || !w->conf->snapshots) {
			do_flush(w);
		} else {
			do_snapshot(w);
		}
		op->end = w->log.n;
	}
}

/* ---- after the crash ---- */

static bool allowed(const struct world *w, uint64_t sector, uint64_t stamp, uint32_t flushed,
		    uint32_t started)
{
	for (const struct change *c = w->history[sector]; c; c = c->older) {
		if (c->op > started)
			continue;
		if (c->stamp == stamp)
			return true;
		if (c->op < flushed)
			return false;	/* durable, so nothing older */
	}
	return w->base[sector] == stamp;
}

static void finding(void *arg, const char *text)
{
	(void)arg;
	print_error("  %s\n", text);
}

static int check_image(struct world *w, struct vdisk *file, struct vdisk_check_result *res,
		       void (*report)(void *arg, const char *text), struct vdisk_error *err)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .format = driver(w->conf)->name };
	struct vdisk *disk;
	int r;

	if (!w->conf->vmdk)
		return qcow2_check_file(file, NULL, 0, res, report, NULL, err);
	r = vdisk_open_on(&disk, file, &o, err);
	if (r == 0) {
		r = vdisk_check(disk, 0, res, report, NULL, err);
		vdisk_close(disk, NULL);
	}
	return r;
}

static void check_clean(struct world *w, struct memlog *image, size_t at, const char *when)
{
	struct vdisk *file = memlog_disk(image, w->path);
	struct vdisk_check_result res = { 0 };
	struct vdisk_error err = { 0 };

	if (check_image(w, file, &res, NULL, &err) < 0)
		fail_msg("%s: log %zu, %s: %s (CRASH_SEED=%" PRIu64 ")", w->conf->name, at, when,
			 err.msg, w->seed);
	if (res.corruptions) {
		check_image(w, file, &res, finding, &err);
		fail_msg("%s: log %zu, %s: %" PRIu64 " corruptions (CRASH_SEED=%" PRIu64 ")",
			 w->conf->name, at, when, res.corruptions, w->seed);
	}
	vdisk_close(file, NULL);
}

static bool is_dirty(const struct world *w, const struct memlog *image)
{
	return !w->conf->vmdk && load_be32(image->mem + 4) >= 3 &&
	       (load_be64(image->mem + 72) & QCOW2_INCOMPAT_DIRTY);
}

static void ask_qemu(struct world *w, const struct memlog *image, bool dirty)
{
	char cmd[300], path[128];
	FILE *f;
	int r;

	snprintf(path, sizeof(path), "%s/crashed", w->dir);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(image->mem, 1, image->size, f), image->size);
	fclose(f);
	snprintf(cmd, sizeof(cmd), "cd %s && qemu-img check -q %s crashed >qemu.out 2>&1; r=$?; "
		 "[ $r = 0 ] || [ $r = 3 ] || { cat qemu.out >&2; exit 1; }", w->dir,
		 dirty ? "-r all" : "");
	r = system(cmd);
	if (r)
		fail_msg("%s: qemu-img check finds corruption (CRASH_SEED=%" PRIu64 ")",
			 w->conf->name, w->seed);
}

/* @image is what the crash at log position @at has left. */
static void inspect(struct world *w, struct memlog *image, size_t at)
{
	struct vdisk_open_opts o = {
		.size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = driver(w->conf)->name,
	};
	uint32_t flushed = 0, started = 0;
	struct vdisk_error err = { 0 };
	struct vdisk *file, *disk;
	bool dirty = is_dirty(w, image);

	for (uint32_t i = 0; i < w->n_ops; i++) {
		if (w->ops[i].flush && w->ops[i].end <= at)
			flushed = i + 1;
		if (w->ops[i].begin < at)
			started = i;
	}
	if (!dirty)
		check_clean(w, image, at, "after the crash");
	if (w->asked_qemu < BY_QEMU && rnd() % 8 == 0) {
		w->asked_qemu++;
		ask_qemu(w, image, dirty);
	}
	file = memlog_disk(image, w->path);
	if (vdisk_open_on(&disk, file, &o, &err) < 0)
		fail_msg("%s: log %zu: %s (CRASH_SEED=%" PRIu64 ")", w->conf->name, at, err.msg,
			 w->seed);
	vdisk_close(file, NULL);
	for (uint64_t i = 0; i < w->sectors; i++) {
		uint64_t stamp = stamp_at(w, disk, i);

		if (!allowed(w, i, stamp, flushed, started))
			fail_msg("%s: log %zu: sector %" PRIu64 " has %" PRIx64 ", now %" PRIx64
				 " (flushed to %u, CRASH_SEED=%" PRIu64 ")", w->conf->name, at, i,
				 stamp, w->now[i], flushed, w->seed);
	}
	ok(w, vdisk_close(disk, NULL), "close");
	check_clean(w, image, at, "after opening");
}

static void crash_at(struct world *w, const struct memlog *durable, size_t sync, size_t at)
{
	struct memlog image;

	memlog_copy(&image, durable);
	for (size_t i = sync; i < at; i++) {
		uint64_t how = rnd() % 4;

		if (w->log.log[i].kind == MEMLOG_TRUNCATE || how < 2)
			memlog_replay(&image, &w->log.log[i], false, rnd);
		else if (how == 2)
			memlog_replay(&image, &w->log.log[i], true, rnd);
	}
	inspect(w, &image, at);
	memlog_clear(&image);
}

static void replay(struct world *w, const struct memlog *start)
{
	size_t sync = 0, torn = 0, syncs = 0;
	struct memlog durable;

	memlog_copy(&durable, start);
	for (size_t at = 0; at <= w->log.n; at++) {
		if (at == w->log.n || w->log.log[at].kind == MEMLOG_SYNC) {
			for (; sync < at; sync++)
				memlog_replay(&durable, &w->log.log[sync], false, NULL);
			crash_at(w, &durable, at, at);
			syncs++;
			continue;
		}
		for (unsigned i = 0; i < TORN; i++, torn++)
			crash_at(w, &durable, sync, at + 1);
	}
	print_message("%s: %zu log entries, crashed at %zu syncs and %zu times between\n",
		      w->conf->name, w->log.n, syncs, torn);
	memlog_clear(&durable);
}

/* ---- a run ---- */

static void make_backing(struct world *w)
{
	const char *format = w->conf->vmdk ? "vmdk" : "raw";
	struct vdisk_create_opts co = { .size = sizeof(co), .format = format };
	struct vdisk_open_opts o = {
		.size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = format,
	};
	struct vdisk *base;
	uint8_t buf[SECTOR];
	char path[128];

	snprintf(path, sizeof(path), "%s/base", w->dir);
	ok(w, vdisk_create(path, w->conf->size, &co, NULL), "create");
	ok(w, vdisk_open(&base, path, &o, NULL), "open");
	for (uint64_t i = 0; i < w->sectors; i += 1 + rnd() % 3) {
		w->base[i] = w->now[i] = w->next_stamp++;
		fill(buf, w->now[i]);
		ok(w, vdisk_write(base, buf, SECTOR, i * SECTOR), "write");
	}
	ok(w, vdisk_close(base, NULL), "close");
}

static void run_conf(const struct conf *c, uint64_t seed)
{
	struct vdisk_create_opts co = {
		.size = sizeof(co), .format = driver(c)->name, .options = c->options,
		.backing = c->backing ? "base" : NULL,
		.backing_format = !c->backing ? NULL : c->vmdk ? "vmdk" : "raw",
	};
	struct vdisk_open_opts o = {
		.size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = driver(c)->name,
	};
	struct world w = { .conf = c, .seed = seed, .next_stamp = UINT64_C(0x1000) };
	struct vdisk_error err = { 0 };
	struct memlog start;
	struct vdisk *file;
	char cmd[128];

	while (c->options[co.n_options].key)
		co.n_options++;
	strcpy(w.dir, "/tmp/vdisk-crash.XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	snprintf(w.path, sizeof(w.path), "%s/image", w.dir);
	w.sectors = c->size / SECTOR;
	w.now = calloc(w.sectors, 8);
	w.base = calloc(w.sectors, 8);
	w.snap = calloc(w.sectors, 8);
	w.history = calloc(w.sectors, sizeof(struct change *));
	if (c->backing)
		make_backing(&w);
	memlog_init(&w.log);
	file = memlog_disk(&w.log, w.path);
	if (driver(c)->create(file, c->size, &co, &err) < 0)
		fail_msg("%s", err.msg);
	memlog_copy(&start, &w.log);
	w.log.logging = true;
	if (vdisk_open_on(&w.disk, file, &o, &err) < 0)
		fail_msg("%s", err.msg);
	vdisk_close(file, NULL);
	work(&w);
	w.ops[w.n_ops].begin = w.log.n;
	ok(&w, vdisk_close(w.disk, NULL), "close");
	w.ops[w.n_ops].end = w.log.n;
	w.ops[w.n_ops].flush = true;
	w.n_ops++;

	replay(&w, &start);
	memlog_clear(&start);
	memlog_clear(&w.log);
	for (uint64_t i = 0; i < w.sectors; i++)
		for (struct change *h = w.history[i], *older; h; h = older) {
			older = h->older;
			free(h);
		}
	free(w.history);
	free(w.now);
	free(w.base);
	free(w.snap);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", w.dir);
	assert_int_equal(system(cmd), 0);
}

static void crash(void **state)
{
	const char *text = getenv("CRASH_SEED"), *only = getenv("CRASH_CONF");
	uint64_t seed;

	(void)state;
	assert_int_equal(getrandom(&seed, sizeof(seed), 0), (ssize_t)sizeof(seed));
	seed >>= 1;
	if (text)
		seed = strtoull(text, NULL, 10);
	print_message("CRASH_SEED=%" PRIu64 "\n", seed);
	for (unsigned i = 0; i < ARRAY_SIZE(confs); i++) {
		rng = (seed * UINT64_C(0xbf58476d1ce4e5b9) + i * UINT64_C(0x9e3779b97f4a7c15)) | 1;
		if (!only || strstr(confs[i].name, only))
			run_conf(&confs[i], seed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(crash) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
