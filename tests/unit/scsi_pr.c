/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reservations: types against commands, preempting, moving, and the loss of power. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/lib/scsi_world.h"

static struct world w;
static struct act act[4];

static int setup(void **state UNUSED)
{
	world_open(&w);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		for (uint16_t lun = 0; lun < 3; lun++)
			while (scsi_attention_take(&w.nexus[i], lun))
				;
	return 0;
}

static int teardown(void **state UNUSED)
{
	world_close(&w);
	return 0;
}

static int cmd(unsigned who, const void *cdb, size_t len, const void *out, uint32_t out_len)
{
	act_start(&act[0], &w, who, 0, SCSI_SIMPLE, cdb, len, out, out_len);
	assert_true(act[0].over);
	return act[0].t.status;
}
#define CDB(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, IGNORE, MOVE };

static int pr_out(unsigned who, uint8_t action, uint8_t type, uint64_t key, uint64_t new_key,
		  uint8_t flags)
{
	uint8_t list[24] = { [20] = flags };

	store_be64(list, key);
	store_be64(list + 8, new_key);
	return cmd(who, CDB(0x5f, action, type, 0, 0, 0, 0, 0, 24, 0), list, sizeof(list));
}

static int readable(unsigned who)
{
	return cmd(who, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 0);
}

static int writable(unsigned who)
{
	static const uint8_t block[512];

	return cmd(who, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), block, sizeof(block));
}

static uint16_t attention(unsigned who)
{
	return scsi_attention_take(&w.nexus[who], 0);
}

/* SPC-4, table 65: holder, another registrant, a stranger */
static void test_types(void **state UNUSED)
{
	static const struct { uint8_t type; int reg_read, reg_write, read, write; } types[] = {
		{ 1, 0, 0x18, 0, 0x18 }, { 3, 0x18, 0x18, 0x18, 0x18 }, { 5, 0, 0, 0, 0x18 },
		{ 6, 0, 0, 0x18, 0x18 }, { 7, 0, 0, 0, 0x18 }, { 8, 0, 0, 0x18, 0x18 },
	};

	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, REGISTER, 0, 0, 6, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, REGISTER, 0, 0, 7, 0), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(pr_out(2, RESERVE, 1, 0, 0, 0), SCSI_RESERVATION_CONFLICT);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		assert_int_equal(pr_out(0, RESERVE, types[i].type, 5, 0, 0), SCSI_GOOD);
		assert_int_equal(pr_out(0, RESERVE, types[i].type, 5, 0, 0), SCSI_GOOD);
		assert_int_equal(readable(0), SCSI_GOOD);
		assert_int_equal(writable(0), SCSI_GOOD);
		assert_int_equal(readable(1), types[i].reg_read);
		assert_int_equal(writable(1), types[i].reg_write);
		assert_int_equal(readable(2), types[i].read);
		assert_int_equal(writable(2), types[i].write);
		/* asking is free for all; MODE SENSE is not */
		assert_int_equal(cmd(2, CDB(0x12, 0, 0, 0, 96, 0), NULL, 0), SCSI_GOOD);
		assert_int_equal(cmd(2, CDB(0x00, 0, 0, 0, 0, 0), NULL, 0), SCSI_GOOD);
		assert_int_equal(cmd(2, CDB(0x1a, 8, 0x3f, 0, 255, 0), NULL, 0),
				 SCSI_RESERVATION_CONFLICT);
		/* RESERVE is not beside it, and starting is allowed where stopping is not */
		assert_int_equal(cmd(0, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), SCSI_RESERVATION_CONFLICT);
		assert_int_equal(cmd(2, CDB(0x1b, 0, 0, 0, 1, 0), NULL, 0), SCSI_GOOD);
		assert_int_equal(cmd(2, CDB(0x1b, 0, 0, 0, 0, 0), NULL, 0), SCSI_RESERVATION_CONFLICT);
		/* another type is an error; then it is over, and registrants learn of it */
		pr_out(0, RELEASE, types[i].type == 1 ? 3 : 1, 5, 0, 0);
		assert_int_equal(act[0].t.status, SCSI_CHECK_CONDITION);
		assert_int_equal(load_be16(act[0].t.sense + 12), SCSI_ASC_INVALID_RELEASE);
		assert_int_equal(attention(1), 0);
		assert_int_equal(pr_out(0, RELEASE, types[i].type, 5, 0, 0), SCSI_GOOD);
		assert_int_equal(attention(1), types[i].type >= 5 ? SCSI_ASC_RESERVATIONS_RELEASED : 0);
		assert_int_equal(attention(2), 0);
		assert_int_equal(writable(2), SCSI_GOOD);
	}
}

static void test_preempt(void **state UNUSED)
{
	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, REGISTER, 0, 0, 6, 0), SCSI_GOOD);
	assert_int_equal(pr_out(2, REGISTER, 0, 0, 7, 0), SCSI_GOOD);
	assert_int_equal(pr_out(0, RESERVE, 1, 5, 0, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, PREEMPT, 3, 6, 99, 0), SCSI_RESERVATION_CONFLICT);
	pr_out(1, PREEMPT, 3, 6, 0, 0);
	assert_int_equal(load_be16(act[0].t.sense + 12), SCSI_ASC_INVALID_FIELD_IN_LIST);
	/* the holder's key: its registration goes, the reservation is another one now */
	assert_int_equal(pr_out(1, PREEMPT, 3, 6, 5, 0), SCSI_GOOD);
	assert_int_equal(attention(0), SCSI_ASC_REGISTRATIONS_PREEMPTED);
	assert_int_equal(attention(2), SCSI_ASC_RESERVATIONS_RELEASED);
	assert_int_equal(attention(1), 0);
	assert_int_equal(writable(0), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(writable(1), SCSI_GOOD);
	/* all registrants hold it: key 0 takes them all out */
	assert_int_equal(pr_out(1, RELEASE, 3, 6, 0, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, RESERVE, 8, 6, 0, 0), SCSI_GOOD);
	assert_int_equal(pr_out(2, PREEMPT, 7, 7, 0, 0), SCSI_GOOD);
	assert_int_equal(attention(1), SCSI_ASC_REGISTRATIONS_PREEMPTED);
	assert_int_equal(w.target->units[0]->pr.n, 1);
	assert_int_equal(w.target->units[0]->pr.type, 7);
	assert_int_equal(pr_out(2, CLEAR, 0, 7, 0, 0), SCSI_GOOD);
	assert_int_equal(w.target->units[0]->pr.n, 0);
	assert_int_equal(writable(0), SCSI_GOOD);
}

/* PREEMPT AND ABORT answers when what it aborts has stopped, and leaves others alone. */
static void test_preempt_and_abort(void **state UNUSED)
{
	static const uint8_t block[512];
	uint8_t list[24] = { 0 };

	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, REGISTER, 0, 0, 6, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, RESERVE, 5, 6, 0, 0), SCSI_GOOD);
	act[1].hold_io = act[2].hold_io = true;
	act_start(&act[1], &w, 1, 0, SCSI_SIMPLE, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), block, 512);
	act_start(&act[2], &w, 2, 0, SCSI_SIMPLE, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 0);
	assert_true(act[1].held && act[2].held);
	store_be64(list, 5);
	store_be64(list + 8, 6);
	act_start(&act[3], &w, 0, 0, SCSI_SIMPLE, CDB(0x5f, PREEMPT_ABORT, 1, 0, 0, 0, 0, 0, 24, 0),
		  list, sizeof(list));
	assert_false(act[3].over);
	assert_true(act[1].aborted);
	assert_false(act[2].aborted);
	/* it is in force, and another one waits its turn */
	assert_int_equal(writable(1), SCSI_CHECK_CONDITION);	/* the unit attention */
	assert_int_equal(writable(1), SCSI_RESERVATION_CONFLICT);
	act_go(&act[1]);
	assert_true(act[3].over);
	assert_int_equal(act[3].t.status, SCSI_GOOD);
	act_go(&act[2]);
	assert_true(act[2].over);
	assert_int_equal(act[2].t.status, SCSI_GOOD);
}

/* SPEC_I_PT: register others as well, all of them or none. */
static int register_with(unsigned who, uint64_t new_key, const char *const *ports, unsigned n)
{
	uint8_t list[28 + 2 * 260] = { [20] = 0x08 };
	uint32_t len = 28;

	store_be64(list + 8, new_key);
	for (unsigned i = 0; i < n; i++) {
		struct scsi_port port;

		assert_int_equal(scsi_port_iscsi(&port, ports[i]), 0);
		memcpy(list + len, port.id, port.len);
		len += port.len;
	}
	store_be32(list + 24, len - 28);
	return cmd(who, CDB(0x5f, REGISTER, 0, 0, 0, 0, 0, 0, (uint8_t)len, 0), list, len);
}

static void test_others(void **state UNUSED)
{
	static const char *const others[] = {
		"iqn.2026-11.test:initiator1,i,0x00023d000001", "iqn.2026-11.test:absent,i,0x00023d0000ff",
	};
	const struct scsi_pr *pr = &w.target->units[0]->pr;
	uint8_t list[28] = { [15] = 9, [20] = 0x08 };

	assert_int_equal(register_with(0, 9, others, 2), SCSI_GOOD);
	assert_int_equal(pr->n, 3);
	assert_int_equal(pr->generation, 1);
	assert_int_equal(pr_out(0, RESERVE, 6, 9, 0, 0), SCSI_GOOD);	/* registrants only */
	assert_int_equal(writable(1), SCSI_GOOD);
	assert_int_equal(writable(2), SCSI_RESERVATION_CONFLICT);
	/* it can use its registration as if it were its own: it is */
	assert_int_equal(pr_out(1, REGISTER, 0, 9, 10, 0), SCSI_GOOD);
	/* who is there already is a conflict, and nobody is added; nor by one who is registered */
	assert_int_equal(register_with(2, 7, others, 2), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(pr->n, 3);
	assert_int_equal(writable(2), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(register_with(0, 9, others, 1), SCSI_RESERVATION_CONFLICT);	/* its key is not 0 */
	/* with another action, cut off, or with what is no TransportID */
	assert_int_equal(cmd(0, CDB(0x5f, IGNORE, 0, 0, 0, 0, 0, 0, 28, 0), list, 28), SCSI_CHECK_CONDITION);
	assert_int_equal(load_be16(act[0].t.sense + 12), SCSI_ASC_INVALID_FIELD_IN_LIST);
	list[27] = 4;
	assert_int_equal(cmd(2, CDB(0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 28, 0), list, 28), SCSI_CHECK_CONDITION);
	assert_int_equal(load_be16(act[0].t.sense + 12), SCSI_ASC_PARAMETER_LIST_LENGTH);
	assert_int_equal(pr->n, 3);
}

/* ALL_TG_PT: the registration is good through every port of the target. */
static void test_all_ports(void **state UNUSED)
{
	struct scsi_port port = w.nexus[0].port;

	scsi_nexus_fini(&w.nexus[1]);		/* the first initiator once more, through port 2 */
	scsi_nexus_init(&w.nexus[1], w.target, &act_ops, &port, 2);
	while (attention(1))
		;
	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 0), SCSI_GOOD);
	assert_int_equal(pr_out(0, RESERVE, 5, 5, 0, 0), SCSI_GOOD);
	assert_int_equal(writable(1), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(pr_out(0, REGISTER, 0, 5, 0, 0), SCSI_GOOD);
	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 0x04), SCSI_GOOD);
	assert_int_equal(pr_out(0, RESERVE, 5, 5, 0, 0), SCSI_GOOD);
	assert_int_equal(writable(1), SCSI_GOOD);
	assert_int_equal(writable(2), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(cmd(2, CDB(0x5e, 3, 0, 0, 0, 0, 0, 4, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(act[0].in[8 + 12] & 0x02, 0x02);
	/* through that port it can be given up, too */
	assert_int_equal(pr_out(1, RELEASE, 5, 5, 0, 0), SCSI_GOOD);
	assert_int_equal(pr_out(1, REGISTER, 0, 5, 0, 0), SCSI_GOOD);
	assert_int_equal(w.target->units[0]->pr.n, 0);
}

/* While somebody holds a RESERVE there are no persistent ones; scope and type of REGISTER do not matter. */
static void test_reserve_6(void **state UNUSED)
{
	assert_int_equal(cmd(0, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 0), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(pr_out(1, REGISTER, 0, 0, 5, 0), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(cmd(0, CDB(0x5e, 0, 0, 0, 0, 0, 0, 4, 0, 0), NULL, 0), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(cmd(0, CDB(0x17, 0, 0, 0, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(pr_out(0, REGISTER, 0x15, 0, 5, 0), SCSI_GOOD);
}

/* Several at a time, one after the other: one that fails does not leave the next one waiting. */
static void test_turns(void **state UNUSED)
{
	static const uint8_t first[24] = { [15] = 5, [20] = 1 }, wrong[24] = { [7] = 9, [15] = 6 },
			     last[24] = { [15] = 7 };
	int fd = memfd_create("state", MFD_CLOEXEC);

	assert_int_equal(scsi_unit_restore(w.target->units[0], fd, NULL), 0);
	act[1].hold_io = true;		/* while it is written to the file */
	act_start(&act[1], &w, 0, 0, SCSI_SIMPLE, CDB(0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0), first, 24);
	assert_true(act[1].held);
	act_start(&act[2], &w, 1, 0, SCSI_SIMPLE, CDB(0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0), wrong, 24);
	act_start(&act[3], &w, 2, 0, SCSI_SIMPLE, CDB(0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0), last, 24);
	assert_false(act[2].over || act[3].over);
	act_go(&act[1]);
	assert_true(act[1].over && act[2].over && act[3].over);
	assert_int_equal(act[1].t.status, SCSI_GOOD);
	assert_int_equal(act[2].t.status, SCSI_RESERVATION_CONFLICT);
	assert_int_equal(act[3].t.status, SCSI_GOOD);
	assert_int_equal(w.target->units[0]->pr.n, 2);
}

static int move(unsigned who, uint64_t key, uint64_t new_key, const char *port, uint8_t flags)
{
	uint8_t list[24 + 260] = { [17] = flags, [19] = 1 };
	struct scsi_port to;

	assert_int_equal(scsi_port_iscsi(&to, port), 0);
	store_be64(list, key);
	store_be64(list + 8, new_key);
	store_be32(list + 20, to.len);
	memcpy(list + 24, to.id, to.len);
	return cmd(who, CDB(0x5f, MOVE, 0, 0, 0, 0, 0, 0, (uint8_t)(24 + to.len), 0), list,
		   24u + to.len);
}

static void test_move(void **state UNUSED)
{
	static const char other[] = "iqn.2026-11.test:initiator1,i,0x00023d000001";

	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 0), SCSI_GOOD);
	assert_int_equal(move(0, 5, 9, other, 0), SCSI_RESERVATION_CONFLICT);	/* not reserved */
	assert_int_equal(pr_out(0, RESERVE, 3, 5, 0, 0), SCSI_GOOD);
	assert_int_equal(move(0, 5, 0, other, 0), SCSI_CHECK_CONDITION);
	assert_int_equal(move(0, 5, 9, "iqn.2026-11.test:initiator0,i,0x00023d000000", 0),
			 SCSI_CHECK_CONDITION);				/* to itself */
	assert_int_equal(move(0, 5, 9, other, 2), SCSI_GOOD);		/* UNREG */
	assert_int_equal(writable(0), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(writable(1), SCSI_GOOD);
	assert_int_equal(cmd(2, CDB(0x5e, 3, 0, 0, 0, 0, 0, 4, 0, 0), NULL, 0), SCSI_GOOD);
	assert_int_equal(load_be64(act[0].in + 8), 9);
	assert_int_equal(act[0].in[8 + 12], 1);				/* R_HOLDER */
	assert_int_equal(act[0].in[8 + 24], 0x45);
	assert_string_equal(act[0].in + 8 + 28, other);
}

/* What APTPL promises: the state file gives back registrations and reservation. */
static void test_power(void **state UNUSED)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	struct scsi_unit *u = w.target->units[0];
	uint8_t byte;

	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 1), SCSI_CHECK_CONDITION);	/* nowhere */
	assert_int_equal(scsi_unit_restore(u, dup(fd), NULL), 0);
	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 1), SCSI_GOOD);
	assert_int_equal(pr_out(1, REGISTER, 0, 0, 6, 1), SCSI_GOOD);
	assert_int_equal(pr_out(0, RESERVE, 6, 5, 0, 0), SCSI_GOOD);
	/* forget it all, as at the end of the process; and what was never to be kept */
	assert_int_equal(scsi_unit_restore(u, dup(fd), NULL), 0);
	assert_int_equal(u->pr.n, 2);
	assert_int_equal(u->pr.type, 6);
	assert_int_equal(writable(0), SCSI_GOOD);
	assert_int_equal(writable(1), SCSI_GOOD);
	assert_int_equal(writable(2), SCSI_RESERVATION_CONFLICT);
	/* the newest copy is torn: the one before it counts */
	assert_int_equal(pr_out(1, REGISTER, 0, 6, 0, 1), SCSI_GOOD);
	assert_int_equal(u->pr.n, 1);
	byte = 0x55;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)(u->state_seq % 2 * (64u << 10) + 33)), 1);
	assert_int_equal(scsi_unit_restore(u, dup(fd), NULL), 0);
	assert_int_equal(u->pr.n, 2);
	/* none is whole: not to be taken for "nobody holds it" */
	for (unsigned slot = 0; slot < 2; slot++)
		assert_int_equal(pwrite(fd, &byte, 1, slot * (64u << 10) + 34), 1);
	assert_int_equal(scsi_unit_restore(u, fd, NULL), -EUCLEAN);
	assert_int_equal(u->pr.n, 2);		/* as before */
	close(fd);
	/* without APTPL nothing is kept */
	fd = memfd_create("state", MFD_CLOEXEC);
	assert_int_equal(scsi_unit_restore(u, dup(fd), NULL), 0);
	assert_int_equal(pr_out(0, REGISTER, 0, 0, 5, 1), SCSI_GOOD);
	assert_int_equal(pr_out(0, IGNORE, 0, 0, 5, 0), SCSI_GOOD);
	assert_int_equal(scsi_unit_restore(u, fd, NULL), 0);
	assert_int_equal(u->pr.n, 0);
}

/* CVE-2020-28374's kind: a copy reaches only what the initiator sees. */
static void test_copy_stays_inside(void **state UNUSED)
{
	uint8_t list[16 + 32 + 28] = { 1, 0, 0, 32, [11] = 28 }, page[1024], *d = list + 16;
	struct scsi_view one = { .visible = { 1 }, .writable = { 1 } };

	scsi_designators(w.target->units[1], 1, page);
	assert_int_equal(page[1] & 0x0f, 3);		/* LUN 1's NAA comes first */
	d[0] = 0xe4;
	memcpy(d + 4, page, 12);
	d[30] = 2;
	d += 32;
	d[0] = 2, d[3] = 24, d[11] = 8, d[27] = 16;
	assert_int_equal(cmd(0, CDB(0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, sizeof(list), 0, 0), list,
			     sizeof(list)), SCSI_GOOD);
	scsi_nexus_set_view(&w.nexus[0], &one);
	while (attention(0))
		;
	cmd(0, CDB(0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, sizeof(list), 0, 0), list, sizeof(list));
	assert_int_equal(act[0].t.status, SCSI_CHECK_CONDITION);
	assert_int_equal(act[0].t.sense[2], SCSI_COPY_ABORTED);
}

int main(void)
{
#define WITH_WORLD(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_WORLD(test_types),
		WITH_WORLD(test_preempt),
		WITH_WORLD(test_preempt_and_abort),
		WITH_WORLD(test_others),
		WITH_WORLD(test_all_ports),
		WITH_WORLD(test_reserve_6),
		WITH_WORLD(test_turns),
		WITH_WORLD(test_move),
		WITH_WORLD(test_power),
		WITH_WORLD(test_copy_stays_inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
