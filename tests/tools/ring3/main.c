/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - a guest without an operating system that exercises its virtio disk
 *
 * Finds the first virtio block device on PCI bus 0, writes a pattern over all
 * of it in requests of changing size with several in flight, reads it back in
 * another order and compares, and asks for the identification.  Says on the
 * serial port what it did, and powers off; a mistake is a reset instead.  With
 * "spin" on its command line it does nothing, for ever; with "triple" it faults;
 * with "late" it waits for a second disk, and takes that; with "killN" it writes blocks all over the disk, from the N-th on, until
 * somebody ends it, and says after each flush how many are safe.
 */
#include "guest.h"

#define QUEUE	64u
#define DEPTH	16u		/* requests in flight, three descriptors each */
#define BUFFERS	0x4000000ul	/* 64 MiB */
#define CHUNK	0x10000u	/* room for each */

static struct {
	u64 addr;
	u32 len;
	u16 flags, next;
} desc[QUEUE] __attribute__((aligned(4096)));
static volatile struct {
	u16 flags, idx, ring[QUEUE], used_event;
} avail __attribute__((aligned(4096)));
static volatile struct {
	u16 flags, idx;
	struct {
		u32 id, len;
	} ring[QUEUE];
	u16 avail_event;
} used __attribute__((aligned(4096)));

static void set_address(u64 reg, const volatile void *p)
{
	reg32(common + reg) = (u32)(u64)p;
	reg32(common + reg + 4) = 0;
}

static void start_disk(void)
{
	reg8(common + 20) = 0;
	reg8(common + 20) = 3;			/* acknowledge, driver */
	reg32(common + 8) = 0;
	reg32(common + 12) = 1u << 9 | 1u << 29; /* flush, event index */
	reg32(common + 8) = 1;
	reg32(common + 12) = 1;			/* version 1 */
	reg8(common + 20) = 11;			/* features ok */
	if (!(reg8(common + 20) & 8))
		fail("features, status", reg8(common + 20));
	reg16(common + 22) = 0;
	reg16(common + 24) = QUEUE;
	set_address(32, desc);
	set_address(40, &avail);
	set_address(48, &used);
	reg16(common + 28) = 1;
	avail.used_event = 0x8000;		/* no interrupts: we poll */
	reg8(common + 20) = 15;
}

/* ---- requests ---- */

static struct {
	u32 type, zero;
	u64 sector;
} header[DEPTH];
static volatile u8 status[DEPTH];
static u32 length[DEPTH];
static u16 submitted, reaped;

static void submit(unsigned slot, u32 type, u64 sector, u32 len)
{
	unsigned d = 3 * slot;
	u16 old = submitted, event;

	header[slot].type = type;
	header[slot].sector = sector;
	length[slot] = len;
	status[slot] = 0xee;
	desc[d].addr = (u64)&header[slot];
	desc[d].len = 16;
	desc[d].flags = 1;
	desc[d].next = (u16)(d + 1);
	desc[d + 1].addr = BUFFERS + slot * CHUNK;
	desc[d + 1].len = len;
	desc[d + 1].flags = type == 1 ? 1 : 3;
	desc[d + 1].next = (u16)(d + 2);
	desc[d + 2].addr = (u64)&status[slot];
	desc[d + 2].len = 1;
	desc[d + 2].flags = 2;
	avail.ring[submitted % QUEUE] = (u16)d;
	fence();
	avail.idx = ++submitted;
	fence();
	event = used.avail_event;
	if ((u16)(submitted - event - 1) < (u16)(submitted - old))
		reg16(notify) = 0;
}

/* The next one that is done: its slot. */
static unsigned reap(void)
{
	u32 id, slot;

	for (u64 spins = 0; used.idx == reaped; spins++)
		if (spins > 20000000000ul)
			fail("no answer to request", reaped);
	fence();
	id = used.ring[reaped % QUEUE].id;
	slot = id / 3;
	if (id % 3 || slot >= DEPTH)
		fail("used id", id);
	if (status[slot])
		fail("status at sector", header[slot].sector);
	if (used.ring[reaped % QUEUE].len != (header[slot].type == 1 ? 1 : length[slot] + 1))
		fail("used length", used.ring[reaped % QUEUE].len);
	reaped++;
	return slot;
}

static u64 word_at(u64 sector, u32 i)
{
	return (sector * 64 + i) * 0x9e3779b97f4a7c15ul;
}

static void fill(unsigned slot, u64 sector, u32 len)
{
	u64 *p = (u64 *)(BUFFERS + slot * CHUNK);

	for (u32 i = 0; i < len / 8; i++)
		p[i] = word_at(sector, i);
}

static void compare(unsigned slot)
{
	const u64 *p = (const u64 *)(BUFFERS + slot * CHUNK);

	for (u32 i = 0; i < length[slot] / 8; i++)
		if (p[i] != word_at(header[slot].sector, i))
			fail("other data at sector", header[slot].sector + i / 64);
}

/* All of the disk once: @write, else read and compare; sizes go through 512 .. 64 KiB. */
static u64 pass(u64 sectors, int write, u32 size)
{
	u64 at = 0, n = 0, done = 0;
	unsigned slot = 0, busy = 0;

	while (at < sectors || busy) {
		if (at < sectors && busy < DEPTH && (n < DEPTH || n - done < DEPTH)) {
			u32 len = size > (sectors - at) * 512 ? (u32)(sectors - at) * 512 : size;

			if (n >= DEPTH)
				;	/* the slot that was reaped last */
			else
				slot = (unsigned)n;
			if (write)
				fill(slot, at, len);
			submit(slot, (u32)write, at, len);
			at += len / 512;
			size = size == CHUNK ? 512 : size * 2;
			n++;
			if (++busy < DEPTH && n < DEPTH)
				continue;
		}
		slot = reap();
		busy--;
		done++;
		if (!write)
			compare(slot);
	}
	return n;
}

/* Block @n goes where no other does: 7919 shares no factor with a power of two. */
static void write_for_ever(const char *from, u64 sectors)
{
	u64 n = 0, blocks = sectors / 8;

	while (*from >= '0' && *from <= '9')
		n = n * 10 + (u64)(*from++ - '0');
	while (n < blocks) {
		for (unsigned slot = 0; slot < 8; slot++, n++) {
			u64 sector = n * 7919 % blocks * 8;

			fill(slot, sector, 4096);
			submit(slot, 1, sector, 4096);
		}
		for (unsigned i = 0; i < 8; i++)
			reap();
		submit(0, 4, 0, 0);
		reap();
		say("flushed ");
		say_number(n);
		say("\n");
	}
}

void main(void)
{
	u32 slot, late = 0;
	u64 sectors, n;
	const char *cmdline = command_line();

	say("ring 3\n");
	while (cmdline[0] == 's')	/* spin: until somebody stops us */
		;
	if (cmdline[0] == 't')		/* triple: a fault, with no table of handlers */
		__asm__ volatile("int3");
	slot = disk_slot(0);
	while (cmdline[0] == 'l' && !(late = disk_slot(slot)))
		;			/* late: the disk that comes while we run */
	find_disk(late ? late : slot);
	start_disk();
	sectors = reg32(device_config);
	if (cmdline[0] == 'k')
		write_for_ever(cmdline + 4, sectors);
	say("sectors ");
	say_number(sectors);
	n = pass(sectors, 1, 512);
	say("\nwritten ");
	say_number(n);
	n = pass(sectors, 0, 4096);
	say("\ncompared ");
	say_number(n);
	submit(0, 8, 0, 20);
	reap();
	((char *)BUFFERS)[20] = 0;
	say("\nid ");
	say((const char *)BUFFERS);
	say("\n");
	power(0x34);
}
