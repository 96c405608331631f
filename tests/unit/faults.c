/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * faults.c - the n-th read, write, sync or allocation of memory fails
 *
 * The same workload over and over, with one fault a little later each time,
 * until it gets through without meeting it.  Each time
 *
 *   - whatever operation met the fault says so, or did not need what failed;
 *   - the image opens again, a check finds no corruption, and what was flushed
 *     before the fault and not touched since is there.
 *
 * Leaks and wild accesses are the sanitizers' business.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "formats/qcow2/qcow2.h"
#include "tests/lib/memlog.h"

#define BLOCK	3000u
#define BLOCKS	400u
#define SIZE	((uint64_t)2 << 20)

/* ---- memory that runs out: the linker sends these calls here (--wrap) ---- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static _Atomic bool armed;
static _Atomic uint64_t allocations, fail_allocation;
static _Atomic bool allocation_failed;

static bool out_of_memory(void)
{
	if (!armed || atomic_fetch_add(&allocations, 1) + 1 != fail_allocation)
		return false;
	allocation_failed = true;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return out_of_memory() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return out_of_memory() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return out_of_memory() ? NULL : __real_realloc(p, size);
}

/* ---- the workload ---- */

enum state { KNOWN, UNKNOWN };

struct world {
	struct vdisk_option options[4];
	unsigned n_options;
	bool snapshots;
	struct memlog mem;
	struct vdisk *disk;
	uint8_t want[BLOCKS];		/* each block is filled with one byte */
	uint8_t flushed[BLOCKS];
	enum state state[BLOCKS];	/* does it hold ->want? */
	bool safe[BLOCKS];		/* ->flushed is durable, and not touched since */
	unsigned errors;
	uint64_t n;
	const char *what;
};

static bool bad(struct world *w, int r)
{
	w->errors += r < 0;
	return r < 0;
}

static void touched(struct world *w, unsigned i, uint8_t v, bool failed)
{
	w->want[i] = v;
	w->state[i] = failed ? UNKNOWN : KNOWN;
	w->safe[i] = false;
}

static void write_blocks(struct world *w, unsigned first, unsigned n, uint8_t v)
{
	AUTO_FREE uint8_t *buf = __real_malloc(n * BLOCK);
	bool failed;

	memset(buf, v, n * BLOCK);
	failed = bad(w, vdisk_write(w->disk, buf, n * BLOCK, first * BLOCK));
	for (unsigned i = first; i < first + n; i++)
		touched(w, i, v, failed);
}

static void zero_blocks(struct world *w, unsigned first, unsigned n, unsigned flags)
{
	bool failed = bad(w, vdisk_zero(w->disk, first * BLOCK, n * BLOCK, flags));

	for (unsigned i = first; i < first + n; i++)
		touched(w, i, 0, failed);
}

static void discard_blocks(struct world *w, unsigned first, unsigned n)
{
	bad(w, vdisk_discard(w->disk, first * BLOCK, n * BLOCK));
	for (unsigned i = first; i < first + n; i++)
		touched(w, i, 0, true);
}

static void flush(struct world *w)
{
	if (bad(w, vdisk_flush(w->disk)))
		return;
	for (unsigned i = 0; i < BLOCKS; i++) {
		w->safe[i] = w->state[i] == KNOWN;
		w->flushed[i] = w->want[i];
	}
}

/* A unit in coded form, over what was there. */
static void write_coded(struct world *w, uint64_t unit_off, uint8_t v)
{
	uint64_t unit = w->disk->unit;
	AUTO_FREE uint8_t *plain = __real_malloc(unit);
	AUTO_FREE uint8_t *coded = __real_malloc(unit);
	ssize_t len;
	bool failed;

	memset(plain, v, unit);
	len = vd_encode_unit(w->disk, plain, coded, false);
	failed = bad(w, len < 0 ? (int)len : vd_write_coded(w->disk, unit_off, coded,
							     (uint32_t)len));
	for (unsigned i = 0; i < BLOCKS; i++) {
		bool inside = i * (uint64_t)BLOCK >= unit_off &&
			      (i + 1) * (uint64_t)BLOCK <= unit_off + unit;

		if (i * (uint64_t)BLOCK < unit_off + unit && (i + 1) * (uint64_t)BLOCK > unit_off)
			touched(w, i, v, failed || !inside);
	}
}

static void verify(struct world *w, bool reopened)
{
	AUTO_FREE uint8_t *buf = __real_malloc(BLOCK);

	for (unsigned i = 0; i < BLOCKS; i++) {
		uint8_t want = reopened ? w->flushed[i] : w->want[i];
		int r;

		if (reopened ? !w->safe[i] : w->state[i] != KNOWN)
			continue;
		r = vdisk_read(w->disk, buf, BLOCK, i * BLOCK);
		if (r < 0 && !reopened && !bad(w, r))
			continue;
		for (unsigned k = 0; r == 0 && k < BLOCK; k++)
			if (buf[k] != want)
				fail_msg("%s %" PRIu64 ": block %u, byte %u is %02x, not %02x (%s)",
					 w->what, w->n, i, k, buf[k], want,
					 reopened ? "reopened" : "before");
		if (r < 0 && reopened)
			fail_msg("%s %" PRIu64 ": block %u: %s", w->what, w->n, i, strerror(-r));
	}
}

/* Back to a snapshot: what blocks hold then, the caller knows. */
static void snapshots(struct world *w)
{
	uint8_t then[BLOCKS];
	enum state state[BLOCKS];
	struct vdisk_error err;
	int r;

	if (bad(w, vdisk_snapshot_create(w->disk, "one", &err)))
		return;
	memcpy(then, w->want, sizeof(then));
	memcpy(state, w->state, sizeof(state));
	write_blocks(w, 5, 60, 0x77);
	r = vdisk_snapshot_apply(w->disk, "one", &err);
	for (unsigned i = 0; i < BLOCKS; i++)
		touched(w, i, then[i], bad(w, r) || state[i] != KNOWN);
	bad(w, vdisk_snapshot_delete(w->disk, "one", &err));
}

static void work(struct world *w)
{
	struct vdisk_open_opts o = {
		.size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = "qcow2",
	};
	struct vdisk *file = memlog_disk(&w->mem, "image");
	struct vdisk_error err;
	bool failed;

	armed = true;
	failed = bad(w, vdisk_open_on(&w->disk, file, &o, &err));
	if (!failed) {
		write_blocks(w, 0, 40, 0x11);
		write_blocks(w, 200, 3, 0x22);
		flush(w);
		write_blocks(w, 10, 100, 0x33);
		zero_blocks(w, 20, 30, 0);
		zero_blocks(w, 60, 30, VDISK_REQ_UNMAP);
		discard_blocks(w, 100, 40);
		write_coded(w, 8 * w->disk->unit, 0x44);
		write_coded(w, 9 * w->disk->unit, 0x45);
		flush(w);
		write_blocks(w, 140, 100, 0x55);
		verify(w, false);
		if (w->snapshots)
			snapshots(w);
		bad(w, vdisk_resize(w->disk, SIZE * 2, &err));
		write_blocks(w, 300, 20, 0x66);
		bad(w, vdisk_resize(w->disk, SIZE, &err));
		flush(w);
		write_blocks(w, 330, 20, 0x67);
		bad(w, vdisk_close(STEAL(w->disk), &err));
	}
	armed = false;
	vdisk_close(file, NULL);
}

static void finding(void *arg, const char *text)
{
	(void)arg;
	print_error("  %s\n", text);
}

/* With nothing failing any more. */
static void inspect(struct world *w)
{
	struct vdisk_open_opts o = {
		.size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = "qcow2",
	};
	struct vdisk *file = memlog_disk(&w->mem, "image");
	struct vdisk_check_result res = { 0 };
	struct vdisk_error err = { 0 };

	if (vdisk_open_on(&w->disk, file, &o, &err) < 0)
		fail_msg("%s %" PRIu64 ": %s", w->what, w->n, err.msg);
	verify(w, true);
	if (vdisk_close(STEAL(w->disk), &err) < 0)
		fail_msg("%s %" PRIu64 ": %s", w->what, w->n, err.msg);
	if (qcow2_check_file(file, NULL, 0, &res, NULL, NULL, &err) < 0)
		fail_msg("%s %" PRIu64 ": %s", w->what, w->n, err.msg);
	if (res.corruptions) {
		qcow2_check_file(file, NULL, 0, &res, finding, NULL, NULL);
		fail_msg("%s %" PRIu64 ": %" PRIu64 " corruptions", w->what, w->n, res.corruptions);
	}
	vdisk_close(file, NULL);
}

/* Returns whether the fault was met. */
static bool run(struct world *w, int kind, uint64_t n)
{
	static const char *const names[] = { "read", "write", "sync", "allocation" };
	struct vdisk_create_opts co = {
		.size = sizeof(co), .options = w->options, .n_options = w->n_options,
	};
	struct vdisk_error err = { 0 };
	struct vdisk *file;
	bool met;

	w->what = names[kind];
	w->n = n;
	w->errors = 0;
	memset(w->want, 0, sizeof(w->want));
	memset(w->flushed, 0, sizeof(w->flushed));
	memset(w->state, 0, sizeof(w->state));
	for (unsigned i = 0; i < BLOCKS; i++)
		w->safe[i] = true;
	memlog_init(&w->mem);
	memlog_reserve(&w->mem, 4 * SIZE);
	file = memlog_disk(&w->mem, "image");
	if (vd_qcow2.create(file, SIZE, &co, &err) < 0)
		fail_msg("%s", err.msg);
	vdisk_close(file, NULL);

	allocations = 0;
	allocation_failed = false;
	fail_allocation = kind == FAULT_KINDS ? n : 0;
	memset(w->mem.count, 0, sizeof(w->mem.count));
	if (kind < FAULT_KINDS)
		w->mem.fail[kind] = n;
	work(w);
	met = w->mem.failed || allocation_failed;
	/* a read or a sync that fails is never of no account; a write may be a
	 * hint (space given back), and memory may be wanted for something that
	 * can be left out */
	if (met && (kind == FAULT_READ || kind == FAULT_SYNC))
		assert_true(w->errors > 0);
	if (!met)
		assert_int_equal(w->errors, 0);
	memset(w->mem.fail, 0, sizeof(w->mem.fail));
	inspect(w);
	memlog_clear(&w->mem);
	return met;
}

static void faults(struct world *w)
{
	for (int kind = 0; kind <= FAULT_KINDS; kind++) {
		uint64_t n = 1;

		while (run(w, kind, n))
			n++;
		print_message("%s: %" PRIu64 " faults\n", w->what, n - 1);
		assert_true(n > 5);
	}
}

#define OPT(k, v) { .key = (k), .value = (v) }

static void small_clusters(void **state)
{
	struct world w = {
		.options = { OPT("cluster_size", "4k") }, .n_options = 1, .snapshots = true,
	};

	(void)state;
	faults(&w);
}

static void default_clusters(void **state)
{
	struct world w = { .snapshots = true };

	(void)state;
	faults(&w);
}

static void lazy(void **state)
{
	struct world w = { .options = { OPT("lazy_refcounts", "on") }, .n_options = 1 };

	(void)state;
	faults(&w);
}

static void subclusters(void **state)
{
	struct world w = {
		.options = { OPT("extended_l2", "on"), OPT("cluster_size", "16k") },
		.n_options = 2, .snapshots = true,
	};

	(void)state;
	faults(&w);
}

/* The refcount table has to grow on the way. */
static void tiny_clusters(void **state)
{
	struct world w = {
		.options = { OPT("cluster_size", "512"), OPT("refcount_bits", "64") },
		.n_options = 2,
	};

	(void)state;
	faults(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_clusters), cmocka_unit_test(default_clusters),
		cmocka_unit_test(lazy), cmocka_unit_test(subclusters),
		cmocka_unit_test(tiny_clusters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
