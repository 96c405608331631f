/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose turn it is: task attributes, commands with blocks of their own, SANITIZE, media. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/lib/scsi_world.h"

static struct world w;
static struct act act[6];
static uint8_t block[1024];

static int setup(void **state UNUSED)
{
	world_open(&w);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		for (uint16_t lun = 0; lun < 3; lun++)
			while (scsi_attention_take(&w.nexus[i], lun))
				;
	for (unsigned i = 0; i < ARRAY_SIZE(act); i++)
		act[i].hold_io = false;
	return 0;
}

static int teardown(void **state UNUSED)
{
	world_close(&w);
	return 0;
}

#define CDB(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })
#define READ(lba) CDB(0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0), NULL, 0
#define WRITE(lba) CDB(0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0), block, 512
#define COMPARE(lba) CDB(0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, 1, 0, 0), block, 1024

static int cmd(unsigned who, uint8_t lun, const void *cdb, size_t len, const void *out,
	       uint32_t out_len)
{
	act_start(&act[0], &w, who, lun, SCSI_SIMPLE, cdb, len, out, out_len);
	assert_true(act[0].over);
	return act[0].t.status;
}

static void assert_sense(uint8_t key, uint16_t asc)
{
	assert_int_equal(act[0].t.status, SCSI_CHECK_CONDITION);
	assert_int_equal(act[0].t.sense[2], key);
	assert_int_equal(load_be16(act[0].t.sense + 12), asc);
}

/* ORDERED waits for older ones of its nexus, newer ones for it; others go on. */
static void test_attributes(void **state UNUSED)
{
	for (unsigned i = 1; i < 4; i++)
		act[i].hold_io = true;
	act_start(&act[1], &w, 0, 0, SCSI_SIMPLE, READ(0));
	act_start(&act[2], &w, 0, 0, SCSI_ORDERED, WRITE(1));
	act_start(&act[3], &w, 0, 0, SCSI_SIMPLE, READ(2));
	assert_true(act[1].held);
	assert_false(act[2].held || act[3].held);
	act_start(&act[4], &w, 0, 0, SCSI_HEAD_OF_QUEUE, READ(3));
	assert_true(act[4].over);
	act_start(&act[4], &w, 1, 0, SCSI_SIMPLE, READ(3));
	assert_true(act[4].over);
	act_go(&act[1]);
	assert_true(act[1].over && act[2].held);
	assert_false(act[3].held);
	act_go(&act[2]);
	assert_true(act[2].over && act[3].held);
	act_go(&act[3]);
	assert_true(act[3].over);
}

/* What has data but no disk request waits, too, and is waited for, once the data are here. */
static void test_order_of_lists(void **state UNUSED)
{
	static const uint8_t on[] = { 0, 0, 0, 0, 0x08, 18, 0x04, [24 - 1] = 0 }, off[24] = { [4] = 0x08, 18 };

	act[1].hold_io = act[3].hold_io = true;
	act_start(&act[1], &w, 0, 0, SCSI_SIMPLE, READ(0));
	act_start(&act[2], &w, 0, 0, SCSI_ORDERED, CDB(0x15, 0x10, 0, 0, 24, 0), off, 24);
	assert_false(act[2].over);
	assert_true(w.target->units[0]->write_cache);
	/* newer ones wait for it: a list, and a write with its first segment */
	act_start(&act[4], &w, 0, 0, SCSI_SIMPLE, CDB(0x15, 0x10, 0, 0, 24, 0), on, 24);
	act_start(&act[3], &w, 0, 0, SCSI_SIMPLE, WRITE(9));
	assert_false(act[4].over || act[3].held);
	/* of another nexus: it does not */
	assert_int_equal(cmd(1, 0, CDB(0x15, 0x10, 0, 0, 24, 0), on, 24), SCSI_GOOD);
	act_go(&act[1]);
	assert_true(act[2].over && act[4].over && act[3].held);
	assert_int_equal(act[2].t.status, SCSI_GOOD);
	assert_true(w.target->units[0]->write_cache);		/* off, then on again */
	act_go(&act[3]);
	while (scsi_attention_take(&w.nexus[0], 0))	/* of the other one's change */
		;
	/* one that waits with its data can be aborted */
	act[1].hold_io = true;
	act_start(&act[1], &w, 0, 0, SCSI_SIMPLE, READ(0));
	act_start(&act[2], &w, 0, 0, SCSI_ORDERED, CDB(0x15, 0x10, 0, 0, 24, 0), off, 24);
	act_abort(&act[2].t);
	act_go(&act[1]);
	assert_true(act[1].over);
	assert_true(w.target->units[0]->write_cache);
}

/* Nobody writes between the comparison and the write; other blocks are nobody's matter. */
static void test_compare_is_alone(void **state UNUSED)
{
	act[1].hold_io = true;
	act_start(&act[1], &w, 0, 0, SCSI_SIMPLE, COMPARE(4));	/* zeroes, to zeroes */
	assert_true(act[1].held);
	act_start(&act[2], &w, 1, 0, SCSI_SIMPLE, WRITE(4));
	act_start(&act[3], &w, 2, 0, SCSI_SIMPLE, COMPARE(4));
	assert_false(act[2].over || act[3].over);
	assert_int_equal(cmd(1, 0, WRITE(5)), SCSI_GOOD);
	act_go(&act[1]);
	assert_true(act[1].over && act[2].over && act[3].over);
	/* a write in flight is waited for */
	act[1].hold_io = true;
	act_start(&act[1], &w, 0, 0, SCSI_SIMPLE, WRITE(4));
	act_start(&act[2], &w, 1, 0, SCSI_SIMPLE, COMPARE(4));
	act_start(&act[3], &w, 2, 0, SCSI_SIMPLE, WRITE(4));	/* behind the one that waits */
	assert_false(act[2].over || act[3].over);
	act_go(&act[1]);
	assert_true(act[2].over && act[3].over);
	/* one that waits can be aborted, and holds up nobody any more */
	act[1].hold_io = true;
	act_start(&act[1], &w, 0, 0, SCSI_SIMPLE, WRITE(4));
	act_start(&act[2], &w, 1, 0, SCSI_SIMPLE, COMPARE(4));
	act_start(&act[3], &w, 2, 0, SCSI_SIMPLE, WRITE(4));
	act_abort(&act[2].t);
	assert_true(act[3].over);
	act_go(&act[1]);
	assert_int_equal(w.target->units[0]->gates, 0);
}

static void test_compare_and_write(void **state UNUSED)
{
	memset(block, 0, sizeof(block));
	memset(block + 512, 'b', 512);
	assert_int_equal(cmd(0, 0, COMPARE(7)), SCSI_GOOD);
	cmd(0, 0, COMPARE(7));
	assert_sense(SCSI_MISCOMPARE, SCSI_ASC_MISCOMPARE);
	assert_int_equal(load_be32(act[0].t.sense + 3), 0);
	memset(block, 'b', 512);
	block[17] = 0;
	cmd(0, 0, COMPARE(7));
	assert_int_equal(load_be32(act[0].t.sense + 3), 17);	/* the first byte that differs */
	cmd(0, 0, CDB(0x89, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0), block, 512);
	assert_sense(SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_CDB);
	memset(block, 0, sizeof(block));
}

/* One write, of as much as two buffers hold. */
static void test_write_atomic(void **state UNUSED)
{
	static uint8_t data[SCSI_MAX_ATOMIC], back[SCSI_MAX_ATOMIC];

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 >> 7);
	for (unsigned blocks = SCSI_MAX_ATOMIC / 512; blocks; blocks = blocks * 2 / 5) {
		data[0] ^= 0xff;
		assert_int_equal(cmd(0, 0, CDB(0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
					       (uint8_t)(blocks >> 8), (uint8_t)blocks, 0, 0),
				     data, blocks * 512), SCSI_GOOD);
		assert_int_equal(vdisk_read(w.disk[0], back, sizeof(back), 0), 0);
		assert_memory_equal(back, data, sizeof(data));
	}
	cmd(0, 0, CDB(0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0), data, 512);
	assert_sense(SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_CDB);	/* a boundary */
}

/* SANITIZE: it waits for what is in flight, survives an abort, and says how far it is. */
static void test_sanitize(void **state UNUSED)
{
	static const uint8_t list[] = { 0x82, 0, 0, 4, 'w', 'i', 'p', 'e' };	/* twice, inverted */
	uint8_t byte;

	act[1].hold_io = true;
	act_start(&act[1], &w, 1, 0, SCSI_SIMPLE, WRITE(0));
	act_start(&act[2], &w, 0, 0, SCSI_SIMPLE, CDB(0x48, 1, 0, 0, 0, 0, 0, 0, 8, 0), list, 8);
	assert_null(w.target->units[0]->sanitize);
	act_go(&act[1]);
	assert_non_null(w.target->units[0]->sanitize);
	assert_false(act[2].over);
	cmd(1, 0, READ(0));
	assert_sense(SCSI_NOT_READY, SCSI_ASC_SANITIZE_IN_PROGRESS);
	world_pump(&w, 2);
	assert_int_equal(cmd(1, 0, CDB(0x03, 0, 0, 0, 252, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act[0].in[15], 0x80);
	assert_in_range(load_be16(act[0].in + 16), 1, 65535);
	act_abort(&act[2].t);
	assert_non_null(w.target->units[0]->sanitize);
	world_pump(&w, UINT32_MAX);
	assert_null(w.target->units[0]->sanitize);
	assert_int_equal(vdisk_read(w.disk[0], &byte, 1, WORLD_DISK - 3), 0);
	assert_int_equal(byte, (uint8_t)~'i');
	assert_int_equal(cmd(1, 0, READ(0)), SCSI_GOOD);
}

static void test_media(void **state UNUSED)
{
	assert_int_equal(cmd(0, 1, CDB(0x1e, 0, 0, 0, 1, 0), NULL, 0), SCSI_GOOD);
	cmd(1, 1, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0);
	assert_sense(SCSI_ILLEGAL_REQUEST, SCSI_ASC_REMOVAL_PREVENTED);
	assert_int_equal(cmd(0, 1, CDB(0x1e, 0, 0, 0, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(cmd(1, 1, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0), SCSI_GOOD);
	cmd(0, 1, READ(0));
	assert_sense(SCSI_NOT_READY, SCSI_ASC_NO_MEDIUM);
	assert_int_equal(cmd(1, 1, CDB(0x1b, 0, 0, 0, 3, 0), NULL, 0), SCSI_GOOD);
	cmd(0, 1, READ(0));
	assert_sense(SCSI_UNIT_ATTENTION, SCSI_ASC_MEDIUM_CHANGED);
	assert_int_equal(cmd(0, 1, READ(0)), SCSI_GOOD);
	/* the CD-ROM: its type, its blocks, and no writing */
	assert_int_equal(cmd(0, 2, CDB(0x12, 0, 0, 0, 96, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act[0].in[0], 0x05);
	assert_int_equal(act[0].in[1], 0x80);
	assert_int_equal(cmd(0, 2, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(load_be32(act[0].in), WORLD_DISK / 2048 - 1);
	assert_int_equal(load_be32(act[0].in + 4), 2048);
	cmd(0, 2, WRITE(0));
	assert_sense(SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_OPCODE);
	assert_int_equal(cmd(0, 2, CDB(0x43, 0, 0, 0, 0, 0, 0, 1, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act[0].in_len, 20);
	assert_int_equal(load_be32(act[0].in + 16), WORLD_DISK / 2048);	/* the lead-out */
}

static void test_alua(void **state UNUSED)
{
	static const uint8_t standby[] = { 0, 0, 0, 0, SCSI_STANDBY, 0, 0, 1 };
	static const uint8_t optimized[] = { 0, 0, 0, 0, SCSI_OPTIMIZED, 0, 0, 1 };
	static const uint8_t nowhere[] = { 0, 0, 0, 0, SCSI_OPTIMIZED, 0, 0, 9 };

	assert_int_equal(cmd(0, 0, CDB(0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), standby, 8), SCSI_GOOD);
	assert_int_equal(scsi_attention_take(&w.nexus[1], 0), SCSI_ASC_ACCESS_STATE_CHANGED);
	cmd(1, 0, READ(0));
	assert_sense(SCSI_NOT_READY, SCSI_ASC_STANDBY);
	assert_int_equal(cmd(1, 0, CDB(0x12, 0, 0, 0, 96, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(cmd(1, 0, CDB(0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(load_be32(act[0].in), 12);
	assert_int_equal(act[0].in[4], SCSI_STANDBY);
	cmd(0, 0, CDB(0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), nowhere, 8);
	assert_sense(SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_LIST);
	assert_int_equal(cmd(1, 0, CDB(0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), optimized, 8), SCSI_GOOD);
	scsi_attention_take(&w.nexus[0], 0);
	assert_int_equal(cmd(0, 0, READ(0)), SCSI_GOOD);
}

/* A live resize is told to everyone, once. */
static void test_resized(void **state UNUSED)
{
	uint64_t blocks = w.target->units[0]->blocks;

	w.target->units[0]->blocks = blocks / 2;	/* as if it had been smaller before */
	scsi_unit_resized(w.target->units[0]);
	assert_int_equal(w.target->units[0]->blocks, blocks);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++) {
		cmd(i, 0, READ(0));
		assert_sense(SCSI_UNIT_ATTENTION, SCSI_ASC_CAPACITY_CHANGED);
		assert_int_equal(cmd(i, 0, READ(0)), SCSI_GOOD);
	}
}

int main(void)
{
#define WITH_WORLD(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_WORLD(test_attributes),
		WITH_WORLD(test_order_of_lists),
		WITH_WORLD(test_compare_is_alone),
		WITH_WORLD(test_compare_and_write),
		WITH_WORLD(test_write_atomic),
		WITH_WORLD(test_sanitize),
		WITH_WORLD(test_media),
		WITH_WORLD(test_alua),
		WITH_WORLD(test_resized),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
