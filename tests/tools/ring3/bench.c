/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench.c - a guest without an operating system that measures its virtio disk
 *
 * Its command line is a list of runs "OP:BYTES:DEPTH:MILLISECONDS", where OP is
 * r or w (random), R or W (sequential).  Each answers one line:
 *
 *	RUN r:4096:32 ops N us N iops N p50 NANOSECONDS p99 NANOSECONDS kicks N
 *
 * It polls and takes no interrupts, so the disk and its way through the VMM are
 * all there is to see.  It waits for nothing else, and uses one processor.
 */
#include "guest.h"

#define DEPTH_MAX	64u
#define QUEUE_MAX	256u
#define CHUNK		0x100000u
#define BUFFERS		0x4000000ul	/* 64 MiB, and DEPTH_MAX of them */
#define SLOTS		4096u		/* of the histogram: 64 powers of two, in 64 steps */

static struct {
	u64 addr;
	u32 len;
	u16 flags, next;
} desc[QUEUE_MAX] __attribute__((aligned(4096)));
static volatile u16 avail[QUEUE_MAX + 3] __attribute__((aligned(4096)));
static volatile struct {
	u16 flags, idx;
	struct {
		u32 id, len;
	} ring[QUEUE_MAX];
	u16 avail_event;
} used __attribute__((aligned(4096)));
static struct {
	u32 type, zero;
	u64 sector;
} header[DEPTH_MAX];
static volatile u8 status[DEPTH_MAX];
static u64 started[DEPTH_MAX];
static u32 histogram[SLOTS];
static u16 size, submitted, reaped;
static u64 sectors, khz, kicks;

extern u8 pvclock[64];

static inline u64 tsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

static u64 random_word(void)
{
	static u64 x = 88172645463325252ul;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

/* What KVM says about the clock: ns = ticks * 2^shift * mul / 2^32. */
static void find_frequency(void)
{
	u32 mul = *(volatile u32 *)(pvclock + 24);
	signed char shift = *(volatile signed char *)(pvclock + 28);

	if (!mul)
		fail("no KVM clock", 0);
	khz = (1000000ul << 32) / mul;
	khz = shift >= 0 ? khz >> shift : khz << -shift;
}

static void set_address(u64 reg, const volatile void *p)
{
	reg32(common + reg) = (u32)(u64)p;
	reg32(common + reg + 4) = 0;
}

static void start_disk(void)
{
	reg8(common + 20) = 0;
	while (reg8(common + 20))
		;
	reg8(common + 20) = 3;
	reg32(common + 8) = 0;
	reg32(common + 12) = 1u << 9 | 1u << 29;	/* flush, event index */
	reg32(common + 8) = 1;
	reg32(common + 12) = 1;				/* version 1 */
	reg8(common + 20) = 11;
	if (!(reg8(common + 20) & 8))
		fail("features, status", reg8(common + 20));
	reg16(common + 22) = 0;
	size = reg16(common + 24);
	if (size > QUEUE_MAX)
		size = QUEUE_MAX;
	reg16(common + 24) = size;
	set_address(32, desc);
	set_address(40, avail);
	set_address(48, &used);
	notify += reg16(common + 30) * notify_step;
	reg16(common + 28) = 1;
	avail[0] = 1;				/* no interrupts */
	avail[2 + size] = 0x7fff;
	reg8(common + 20) = 15;
	sectors = reg32(device_config) | (u64)reg32(device_config + 4) << 32;
}

static u16 avail_event(void)
{
	return *(volatile u16 *)((volatile u8 *)&used + 4 + 8 * size);
}

static void prepare(unsigned slot, u32 type, u64 sector, u32 len, u64 now)
{
	unsigned d = 3 * slot;

	header[slot].type = type;
	header[slot].sector = sector;
	status[slot] = 0xee;
	desc[d].addr = (u64)&header[slot];
	desc[d].len = 16;
	desc[d].flags = 1;
	desc[d].next = (u16)(d + 1);
	desc[d + 1].addr = BUFFERS + (u64)slot * CHUNK;
	desc[d + 1].len = len;
	desc[d + 1].flags = type == 1 ? 1 : 3;
	desc[d + 1].next = (u16)(d + 2);
	desc[d + 2].addr = (u64)&status[slot];
	desc[d + 2].len = 1;
	desc[d + 2].flags = 2;
	avail[2 + submitted % size] = (u16)d;
	submitted++;
	started[slot] = now;
}

static void ring(u16 old)
{
	__asm__ volatile("" ::: "memory");
	avail[1] = submitted;
	fence();
	if ((u16)(submitted - avail_event() - 1) < (u16)(submitted - old)) {
		kicks++;
		reg16(notify) = 0;
	}
}

/* Six bits behind the highest one. */
static unsigned slot_of(u64 ns)
{
	unsigned e = 63 - (unsigned)__builtin_clzl(ns | 64);

	return (e - 6) * 64 + (unsigned)(ns >> (e - 6) & 63);
}

static u64 percentile(u64 n, unsigned of_100)
{
	u64 seen = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		seen += histogram[i];
		if (seen * 100 >= n * of_100)
			return (64ul + i % 64) << i / 64;
	}
	return 0;
}

struct run {
	char op;
	u32 bytes, depth;
	u64 ms;
};

static u64 measure(const struct run *r, u64 *ticks)
{
	int random = r->op == 'r' || r->op == 'w';
	u32 type = r->op == 'w' || r->op == 'W';
	u64 n = sectors / (r->bytes / 512), at = 0, ops = 0, begin, end, now;
	u16 idle[DEPTH_MAX];
	unsigned n_idle = r->depth;

	for (unsigned i = 0; i < r->depth; i++) {
		idle[i] = (u16)i;
		for (u32 o = 0; o < r->bytes; o += 4096)	/* no first touch later */
			*(volatile u64 *)(BUFFERS + (u64)i * CHUNK + o) = i;
	}
	for (unsigned i = 0; i < SLOTS; i++)
		histogram[i] = 0;
	kicks = 0;
	begin = now = tsc();
	end = begin + r->ms * khz;
	for (;;) {
		u16 old = submitted;

		while (n_idle && now < end) {
			u64 block = random ? random_word() % n : at++ % n;

			prepare(idle[--n_idle], type, block * (r->bytes / 512), r->bytes, now);
		}
		if (submitted != old)
			ring(old);
		else if (n_idle == r->depth)
			break;
		while (used.idx == reaped) {
			__asm__ volatile("pause");
			if (tsc() - now > 20000 * khz)
				fail("no answer to request", reaped);
		}
		now = tsc();
		while (used.idx != reaped) {
			unsigned slot = used.ring[reaped % size].id / 3;

			reaped++;
			if (slot >= DEPTH_MAX || status[slot])
				fail("status", slot);
			histogram[slot_of((now - started[slot]) * 1000000 / khz)]++;
			idle[n_idle++] = (u16)slot;
			ops++;
		}
	}
	*ticks = tsc() - begin;
	return ops;
}

static void report(const struct run *r)
{
	u64 ticks, ops = measure(r, &ticks), us = ticks * 1000 / khz;
	const char op[] = { r->op, 0 };

	say("RUN ");
	say(op);
	say(":");
	say_number(r->bytes);
	say(":");
	say_number(r->depth);
	say(" ops ");
	say_number(ops);
	say(" us ");
	say_number(us);
	say(" iops ");
	say_number(ops * 1000000 / us);
	say(" p50 ");
	say_number(percentile(ops, 50));
	say(" p99 ");
	say_number(percentile(ops, 99));
	say(" kicks ");
	say_number(kicks);
	say("\n");
}

static u64 number(const char **p)
{
	u64 v = 0;

	if (**p == ':')
		(*p)++;
	while (**p >= '0' && **p <= '9')
		v = v * 10 + (u64)(*(*p)++ - '0');
	return v;
}

void main(void)
{
	const char *p = command_line();

	find_frequency();
	find_disk(disk_slot(0));
	start_disk();
	while (*p) {
		struct run r = { .op = *p++ };

		r.bytes = (u32)number(&p);
		r.depth = (u32)number(&p);
		r.ms = number(&p);
		if (r.bytes % 512 || !r.bytes || r.bytes > CHUNK || !r.depth ||
		    r.depth > DEPTH_MAX || 3 * r.depth > size)
			fail("a run of bytes", r.bytes);
		report(&r);
		while (*p == ' ')
			p++;
	}
	power(0x34);
}
