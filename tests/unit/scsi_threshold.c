/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Soft thresholds of thin units: their mode page, and one unit attention for each nexus. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/lib/scsi_world.h"

#define SIZE	(256ull << 20)
#define MIB	2048u		/* blocks: a threshold set */

static struct world w;
static struct act act;

/* The world's LUN 0 is too small for thresholds: LUN 3 is a thin disk of 256 MiB. */
static int setup_with(uint8_t percent)
{
	const struct scsi_unit_opts opts = { .threshold_percent = percent };
	char path[] = "/tmp/vdisk-threshold.XXXXXX";
	struct vdisk_open_opts open = { .size = sizeof(open), .flags = VDISK_OPEN_WRITE, .format = "raw" };
	struct vdisk *disk;
	int fd = mkstemp(path);

	world_open(&w);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	assert_int_equal(vdisk_open(&disk, path, &open, NULL), 0);
	unlink(path);
	assert_int_equal(scsi_target_add_unit(w.target, 3, disk, &opts, NULL), 0);
	vdisk_close(disk, NULL);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		for (uint16_t lun = 0; lun < 4; lun++)
			while (scsi_attention_take(&w.nexus[i], lun))
				;
	return 0;
}

static int setup(void **state UNUSED)
{
	return setup_with(0);
}

static int setup_tenth(void **state UNUSED)
{
	return setup_with(90);
}

static int teardown(void **state UNUSED)
{
	world_close(&w);
	return 0;
}

static int cmd(unsigned who, const void *cdb, size_t len, const void *out, uint32_t out_len)
{
	act_start(&act, &w, who, 3, SCSI_SIMPLE, cdb, len, out, out_len);
	assert_true(act.over);
	world_pump(&w, 1);
	return act.t.status;
}
#define CDB(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

/* Write a mebibyte at this one. */
static void write_mib(unsigned who, uint8_t mib)
{
	static const uint8_t data[1 << 20] = { 1 };
	const uint32_t lba = mib * MIB;

	assert_int_equal(cmd(who, CDB(0x2a, 0, 0, (uint8_t)(lba >> 16), (uint8_t)(lba >> 8), 0, 0, MIB >> 8, 0, 0),
			     data, sizeof(data)), SCSI_GOOD);
}

/* The page as MODE SELECT takes it, with both thresholds as given (0: off) */
static int set(unsigned who, uint32_t available, uint32_t used)
{
	uint8_t list[4 + 12 + 32] = {
		[4] = 0x01, 10, 0xc0, 0x80,
		[16] = 0x5c, 0x02, 0, 28, [33] = 0x01, [41] = 0x02,
	};

	list[32] = available ? 0x80 : 0;
	list[40] = 0x01 | (used ? 0x80 : 0);
	store_be32(list + 36, available);
	store_be32(list + 44, used);
	return cmd(who, CDB(0x15, 0x10, 0, 0, sizeof(list), 0), list, sizeof(list));
}

static uint16_t attention(unsigned who)
{
	return scsi_attention_take(&w.nexus[who], 3);
}

static void test_page(void **state UNUSED)
{
	assert_int_equal(cmd(0, CDB(0x1a, 8, 0x1c, 0x02, 255, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act.in_len, 4 + 32);
	assert_int_equal(act.in[4], 0x5c);
	assert_int_equal(act.in[5], 0x02);
	assert_int_equal(load_be16(act.in + 6), 28);
	assert_int_equal(act.in[4 + 16], 0x00);		/* off: falling, what is available */
	assert_int_equal(act.in[4 + 17], 0x01);
	assert_int_equal(act.in[4 + 24], 0x01);		/* rising, what is used */
	assert_int_equal(act.in[4 + 25], 0x02);
	/* all subpages have it, all pages alone have not */
	assert_int_equal(cmd(0, CDB(0x1a, 8, 0x3f, 0xff, 255, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act.in_len, 4 + 12 + 20 + 12 + 12 + 32);
	assert_int_equal(cmd(0, CDB(0x1a, 8, 0x3f, 0x00, 255, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act.in_len, 4 + 12 + 20 + 12 + 12);
	assert_int_equal(cmd(0, CDB(0x1a, 8, 0x1c, 0x03, 255, 0), NULL, 0), SCSI_CHECK_CONDITION);
	assert_int_equal(cmd(0, CDB(0x1a, 8, 0x1c, 0xff, 255, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act.in_len, 4 + 12 + 32);
	/* what is set is there; others are told that it changed */
	assert_int_equal(set(0, 10, 200), SCSI_GOOD);
	assert_int_equal(attention(1), SCSI_ASC_MODE_CHANGED);
	assert_int_equal(attention(2), SCSI_ASC_MODE_CHANGED);
	assert_int_equal(cmd(0, CDB(0x1a, 8, 0x1c, 0x02, 255, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act.in[4 + 16], 0x80);
	assert_int_equal(load_be32(act.in + 4 + 20), 10);
	assert_int_equal(act.in[4 + 24], 0x81);
	assert_int_equal(load_be32(act.in + 4 + 28), 200);
	/* the direction is not to be changed, nor the length */
	static const uint8_t other[4 + 32] = { [4] = 0x5c, 0x02, 0, 28, [20] = 0x81, 0x01, [28] = 0x01, 0x02 };
	static const uint8_t cut[4 + 20] = { [4] = 0x5c, 0x02, 0, 16, [20] = 0x80, 0x01 };

	assert_int_equal(cmd(0, CDB(0x15, 0x10, 0, 0, sizeof(other), 0), other, sizeof(other)),
			 SCSI_CHECK_CONDITION);
	assert_int_equal(load_be16(act.t.sense + 12), SCSI_ASC_INVALID_FIELD_IN_LIST);
	assert_int_equal(cmd(0, CDB(0x15, 0x10, 0, 0, sizeof(cut), 0), cut, sizeof(cut)),
			 SCSI_CHECK_CONDITION);
	assert_int_equal(load_be16(act.t.sense + 12), SCSI_ASC_PARAMETER_LIST_LENGTH);
}

/* Reached: once for each nexus, and again only after it was left. */
static void test_used(void **state UNUSED)
{
	uint8_t unmap[24] = { [1] = 22, [3] = 16, [11] = 0, [17] = 0x10 };

	assert_int_equal(set(0, 0, 3), SCSI_GOOD);
	for (unsigned i = 1; i < WORLD_NEXUSES; i++)
		assert_int_equal(attention(i), SCSI_ASC_MODE_CHANGED);
	write_mib(0, 10);
	write_mib(0, 11);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		assert_int_equal(attention(i), 0);
	write_mib(0, 12);
	/* as a sense, with the place of the descriptor in the page */
	assert_int_equal(cmd(1, CDB(0, 0, 0, 0, 0, 0), NULL, 0), SCSI_CHECK_CONDITION);
	assert_int_equal(act.t.sense[0], 0xf0);
	assert_int_equal(act.t.sense[2], SCSI_UNIT_ATTENTION);
	assert_int_equal(load_be16(act.t.sense + 12), 0x3807);
	assert_int_equal(load_be32(act.t.sense + 3), 24);
	assert_int_equal(cmd(1, CDB(0, 0, 0, 0, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(attention(0), SCSI_ASC_THRESHOLD_REACHED);
	/* by REQUEST SENSE, too */
	assert_int_equal(cmd(2, CDB(3, 0, 0, 0, 252, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(load_be16(act.in + 12), 0x3807);
	write_mib(0, 13);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		assert_int_equal(attention(i), 0);
	/* 0x1000 blocks: 2 MiB are given back, so it is left; then it is reached again */
	store_be32(unmap + 12, 10 * MIB);
	store_be32(unmap + 16, 2 * MIB);
	assert_int_equal(cmd(0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), unmap, sizeof(unmap)), SCSI_GOOD);
	assert_int_equal(attention(0), 0);
	write_mib(0, 20);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		assert_int_equal(attention(i), SCSI_ASC_THRESHOLD_REACHED);
}

static void test_off(void **state UNUSED)
{
	uint8_t recovery[4 + 12] = { [4] = 0x01, 10, 0xc0, 0x00 };

	/* without LBPERE nothing is said, and nothing is counted */
	assert_int_equal(set(0, 0, 1), SCSI_GOOD);
	assert_int_equal(cmd(0, CDB(0x15, 0x10, 0, 0, sizeof(recovery), 0), recovery, sizeof(recovery)), SCSI_GOOD);
	while (attention(1))
		;
	write_mib(0, 1);
	write_mib(0, 2);
	assert_null(w.target->units[3]->watch);
	assert_int_equal(attention(1), 0);
}

static void reset_done(struct scsi_tmf *tmf UNUSED)
{
}

/* The administrator's: 90 % have to be left. */
static void test_default(void **state UNUSED)
{
	assert_int_equal(cmd(0, CDB(0x1a, 8, 0x9c, 0x02, 255, 0), NULL, 0), SCSI_GOOD);	/* the default */
	assert_int_equal(act.in[4 + 16], 0x80);
	assert_int_equal(load_be32(act.in + 4 + 20), 256 * 90 / 100);
	for (uint8_t i = 0; i < 26; i++)
		write_mib(0, i);
	assert_int_equal(attention(0), SCSI_ASC_THRESHOLD_REACHED);
	assert_int_equal(attention(1), SCSI_ASC_THRESHOLD_REACHED);
	assert_int_equal(attention(1), 0);
	/* what an initiator set instead lasts until the unit is reset */
	struct scsi_tmf tmf = {
		.function = SCSI_LUN_RESET, .nexus = &w.nexus[0], .unit = w.target->units[3], .done = reset_done,
	};

	assert_int_equal(set(0, 0, 255), SCSI_GOOD);
	assert_false(w.target->units[3]->thresholds.at[SCSI_AVAILABLE].enabled);
	scsi_tmf_start(&tmf);
	assert_true(w.target->units[3]->thresholds.at[SCSI_AVAILABLE].enabled);
	/* the unit goes while it is counted */
	assert_non_null(w.target->units[3]->watch);
	scsi_unit_leave(w.target->units[3]);
	vdisk_close(scsi_unit_remove(w.target->units[3]), NULL);
	world_pump(&w, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_page, setup, teardown),
		cmocka_unit_test_setup_teardown(test_used, setup, teardown),
		cmocka_unit_test_setup_teardown(test_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_default, setup_tenth, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
