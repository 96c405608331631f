/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The target's pool of data buffers: sizes, limits, merging; and its slabs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/compiler.h"
#include "target/reactor/pool.h"

#define LIMIT (4u << 20)

/* Sizes are rounded up to powers of two; buffers are aligned and do not overlap. */
static void test_sizes(void **state UNUSED)
{
	static const size_t sizes[] = {
		1, 4096, 4097, 8192, 8193, 65536, 65537, 262144, 262145, POOL_BUFFER_MAX,
	};
	struct pool *p = pool_new(LIMIT);
	uint8_t *buf[ARRAY_SIZE(sizes)];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t before = pool_used(p), taken;

		buf[i] = pool_get(p, sizes[i]);
		assert_non_null(buf[i]);
		assert_int_equal((uintptr_t)buf[i] % POOL_BUFFER_MIN, 0);
		taken = pool_used(p) - before;
		assert_true(taken >= sizes[i] && vd_is_pow2(taken) && taken >= POOL_BUFFER_MIN);
		assert_true(taken < 2 * sizes[i] || taken == POOL_BUFFER_MIN);
		memset(buf[i], (int)i, sizes[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(buf[i][0], i);
		assert_int_equal(buf[i][sizes[i] - 1], i);
		pool_put(p, buf[i], sizes[i]);
	}
	assert_int_equal(pool_used(p), 0);
	pool_put(p, NULL, 17);
	pool_free(p);
}

/* What came back last is handed out first. */
static void test_hot(void **state UNUSED)
{
	struct pool *p = pool_new(LIMIT);
	void *a = pool_get(p, 4096), *b = pool_get(p, 4096);

	pool_put(p, a, 4096);
	pool_put(p, b, 4096);
	assert_ptr_equal(pool_get(p, 4096), b);
	assert_ptr_equal(pool_get(p, 4096), a);
	pool_put(p, a, 4096);
	pool_put(p, b, 4096);
	pool_free(p);
}

/* Memory used for one size serves any other later, whatever was kept apart. */
static void test_limit(void **state UNUSED)
{
	enum { N = LIMIT / POOL_BUFFER_MIN };
	struct pool *p = pool_new(LIMIT);
	void **buf = malloc(N * sizeof(*buf));

	for (unsigned round = 0; round < 3; round++) {
		for (size_t size = POOL_BUFFER_MIN; size <= POOL_BUFFER_MAX; size *= 2) {
			size_t n = LIMIT / size;

			for (size_t i = 0; i < n; i++) {
				buf[i] = pool_get(p, size);
				assert_non_null(buf[i]);
			}
			assert_null(pool_get(p, size));
			assert_null(pool_get(p, 1));
			assert_int_equal(pool_used(p), LIMIT);
			/* forwards and backwards */
			for (size_t i = 0; i < n; i++)
				pool_put(p, buf[round & 1 ? i : n - 1 - i], size);
			assert_int_equal(pool_used(p), 0);
		}
	}
	free(buf);
	pool_free(p);
}

/* Any order of sizes: nothing overlaps, nothing is lost. */
static void test_random(void **state UNUSED)
{
	enum { N = 200 };
	struct { uint8_t *buf; size_t size; uint8_t mark; } held[N] = { 0 };
	struct pool *p = pool_new(LIMIT);
	unsigned x = 4711;

	for (unsigned step = 0; step < 20000; step++) {
		unsigned i;

		x = x * 1664525 + 1013904223;
		i = (x >> 8) % N;
		if (held[i].buf) {
			assert_int_equal(held[i].buf[0], held[i].mark);
			assert_int_equal(held[i].buf[held[i].size - 1], held[i].mark);
			pool_put(p, STEAL(held[i].buf), held[i].size);
			continue;
		}
		held[i].size = 1 + (x >> 4) % (POOL_BUFFER_MAX >> (x >> 28) % 8);
		held[i].buf = pool_get(p, held[i].size);
		held[i].mark = (uint8_t)step;
		if (held[i].buf)
			held[i].buf[0] = held[i].buf[held[i].size - 1] = held[i].mark;
	}
	for (unsigned i = 0; i < N; i++)
		pool_put(p, held[i].buf, held[i].size);
	assert_int_equal(pool_used(p), 0);
	for (unsigned i = 0; i < LIMIT / POOL_BUFFER_MAX; i++)
		held[i].buf = pool_get(p, POOL_BUFFER_MAX);
	for (unsigned i = 0; i < LIMIT / POOL_BUFFER_MAX; i++) {
		assert_non_null(held[i].buf);
		pool_put(p, held[i].buf, POOL_BUFFER_MAX);
	}
	pool_free(p);
}

static void test_slab(void **state UNUSED)
{
	struct slab s = { .size = 100 };
	uint8_t *a = slab_get(&s), *b = slab_get(&s);

	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(a[i] | b[i], 0);
	memset(a, 7, 100);
	slab_put(&s, a);
	assert_int_equal(s.live, 1);
	assert_ptr_equal(slab_get(&s), a);
	assert_int_equal(a[99], 7);	/* as it was left */
	slab_put(&s, a);
	slab_put(&s, b);
	assert_int_equal(s.live, 0);
	slab_clear(&s);
	assert_null(s.free);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_hot),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_slab),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
