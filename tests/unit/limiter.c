/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The limits of a disk, in simulated time: what a guest that always wants more gets is
 * within 5 % of the limits, however late its disk's thread wakes up, and never more than the burst
 * and one request above them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/limiter.h"

#define NS	UINT64_C(1000000000)
#define MS	(NS / 1000)

struct guest {
	uint64_t min, max;	/* size of a request */
	uint64_t late_max;	/* how much too late it is looked at again, ns */
	uint64_t idle;		/* now and then it wants nothing for so long, ns */
};

struct got {
	uint64_t bytes, ops;
};

static uint64_t random_up_to(unsigned *seed, uint64_t max)
{
	return max ? ((uint64_t)rand_r(seed) << 31 | (uint64_t)rand_r(seed)) % (max + 1) : 0;
}

/* Most of it in any second is checked while it goes on; all of @seconds comes back. */
static struct got run(const struct blk_limits *limits, const struct guest *g, unsigned seconds)
{
	uint64_t start = 12345 * NS, now = start, second = start;
	uint64_t burst = limits->burst_ms ? limits->burst_ms : 100;
	struct got all = { 0 }, one = { 0 };
	struct limiter l;
	unsigned seed = 1;

	limiter_init(&l, limits);
	assert_true(l.active);
	while (now < start + seconds * NS) {
		uint64_t wait = limiter_wait(&l, now), size;

		if (wait) {
			assert_true(wait > now);
			now = wait + random_up_to(&seed, g->late_max);
			continue;
		}
		size = g->min + random_up_to(&seed, g->max - g->min);
		limiter_charge(&l, now, size);
		all.bytes += size;
		all.ops++;
		if (now >= second + NS) {
			second = now;
			one = (struct got) { 0 };
		}
		one.bytes += size;
		one.ops++;
		if (limits->bytes)
			assert_true(one.bytes <= limits->bytes * (1000 + burst) / 1000 + g->max);
		if (limits->ops)
			assert_true(one.ops <= limits->ops * (1000 + burst) / 1000 + 1);
		if (g->idle && all.ops % 100 == 0)
			now += g->idle;
	}
	limiter_destroy(&l);
	return all;
}

static void assert_within(uint64_t got, uint64_t want, double below, double above)
{
	if ((double)got < (double)want * below || (double)got > (double)want * above)
		fail_msg("%llu instead of %llu", (unsigned long long)got, (unsigned long long)want);
}

static void test_bytes(void **state)
{
	static const struct guest guests[] = {
		{ .min = 512, .max = 512 },
		{ .min = 4096, .max = 4096, .late_max = 5 * MS },
		{ .min = 512, .max = 1 << 20, .late_max = 50 * MS },
		{ .min = 1 << 20, .max = 1 << 20, .late_max = 1 * MS },
	};
	static const uint64_t rates[] = { 100000, 1 << 20, 10 << 20, UINT64_C(3) << 30 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(guests); i++)
		for (size_t k = 0; k < ARRAY_SIZE(rates); k++) {
			struct blk_limits limits = { .bytes = rates[k] };

			/* (so long that the burst at the beginning and the last request are lost in it) */
			if (rates[k] >> 30 && guests[i].min < 4096)
				continue;
			assert_within(run(&limits, &guests[i], rates[k] >> 30 ? 4 : 100).bytes,
				      rates[k] * (rates[k] >> 30 ? 4 : 100), 0.95, 1.05);
		}
}

static void test_ops(void **state)
{
	static const uint64_t rates[] = { 7, 50, 1000, 100000 };

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(rates); k++) {
		struct guest g = { .min = 512, .max = 1 << 20, .late_max = 20 * MS };
		struct blk_limits limits = { .ops = rates[k] };

		assert_within(run(&limits, &g, 60).ops, rates[k] * 60, 0.95, 1.05);
	}
}

/* The lower one of the two holds. */
static void test_both(void **state)
{
	struct guest small = { .min = 512, .max = 512 }, large = { .min = 1 << 16, .max = 1 << 16 };
	struct blk_limits limits = { .bytes = 1 << 20, .ops = 100, .burst_ms = 20 };

	(void)state;
	assert_within(run(&limits, &small, 60).ops, 100 * 60, 0.95, 1.05);
	assert_within(run(&limits, &large, 60).bytes, (1 << 20) * UINT64_C(60), 0.95, 1.05);
}

/* Who was idle may catch up with the burst and no more. */
static void test_idle(void **state)
{
	struct guest g = { .min = 4096, .max = 4096, .idle = 2 * NS };
	struct blk_limits limits = { .ops = 100, .burst_ms = 500 };
	struct got got = run(&limits, &g, 100);

	(void)state;
	/* a hundred take half a second beside the burst, and then nothing for two */
	assert_within(got.ops, 100 * 100 / 2.5, 0.9, 1.1);
}

/* The burst, then steadily. */
static void test_beginning(void **state)
{
	struct blk_limits limits = { .ops = 10, .burst_ms = 1000 };
	struct limiter l;
	uint64_t now = 5 * NS;
	unsigned n = 0;

	(void)state;
	limiter_init(&l, &limits);
	while (!limiter_wait(&l, now)) {
		limiter_charge(&l, now, 512);
		n++;
	}
	assert_int_equal(n, 11);
	assert_int_equal(limiter_wait(&l, now), now + NS / 10);
	/* new limits forget the debts */
	limits.ops = 1000;
	limiter_set(&l, &limits);
	assert_int_equal(limiter_wait(&l, now), 0);
	limits = (struct blk_limits) { 0 };
	limiter_set(&l, &limits);
	assert_false(l.active);
	limiter_destroy(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_ops),
		cmocka_unit_test(test_both),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_beginning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
