/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The device server against disks in memory, driven as a transport drives it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "core/compiler.h"
#include "target/reactor/pool.h"
#include "target/scsi/op.h"

#define DISK_SIZE (4u << 20)

struct world {
	struct vdisk *disk;
	struct vdisk_queue *queue;
	struct pool *pool;
	struct scsi_target *target;
	struct scsi_nexus nexus, other;
	struct scsi_task task;
	uint8_t in[DISK_SIZE];		/* what the initiator got */
	uint32_t in_len;
};

static void no_abort(struct scsi_task *task)
{
	scsi_end(task);
}

static const struct scsi_nexus_ops ops = { .abort = no_abort };

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	assert_int_equal(vdisk_open_memory(&w->disk, DISK_SIZE, NULL), 0);
	assert_int_equal(vdisk_queue_new(&w->queue, NULL, NULL), 0);
	w->pool = pool_new(16u << 20);
	w->target = scsi_target_new("iqn.2026-11.test:unit");
	assert_int_equal(scsi_target_add(w->target, 0, w->disk, false, NULL), 0);
	assert_int_equal(scsi_target_add(w->target, 5, w->disk, true, NULL), 0);
	assert_int_equal(scsi_target_add(w->target, 5, w->disk, true, NULL), -EINVAL);
	scsi_nexus_init(&w->nexus, w->target, &ops, NULL, 1);
	scsi_nexus_init(&w->other, w->target, &ops, NULL, 1);
	while (scsi_attention_take(&w->nexus, 0) || scsi_attention_take(&w->nexus, 5))
		;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	assert_int_equal(pool_used(w->pool), 0);
	scsi_nexus_fini(&w->nexus);
	scsi_nexus_fini(&w->other);
	assert_int_equal(scsi_target_free(w->target, NULL), 0);
	vdisk_queue_free(w->queue);
	vdisk_close(w->disk, NULL);
	pool_free(w->pool);
	free(w);
	return 0;
}

static void do_io(struct world *w, struct vdisk_request *req)
{
	struct vdisk_request *done;

	vdisk_queue_submit(w->queue, &req, 1);
	assert_int_equal(vdisk_queue_reap(w->queue, &done, 1, -1), 1);
	assert_ptr_equal(done, req);
}

/* Run a command to its end; its status. */
static int run(struct world *w, uint8_t lun, const void *cdb, size_t cdb_len,
	       const void *out, uint32_t out_len, uint32_t in_len)
{
	struct scsi_task *t = &w->task;
	enum scsi_step step;

	memset(t, 0, sizeof(*t));
	t->nexus = &w->nexus;
	t->pool = w->pool;
	t->lun[1] = lun;
	memcpy(t->cdb, cdb, cdb_len);
	t->out_limit = out_len;
	t->in_limit = in_len;
	w->in_len = 0;
	for (step = scsi_start(t); ; step = scsi_step(t)) {
		if (step == SCSI_IO) {
			do_io(w, &t->io);
		} else if (step == SCSI_DATA_OUT) {
			assert_true(t->seg_offset + t->seg_len <= out_len);
			memcpy(t->buf, (const uint8_t *)out + t->seg_offset, t->seg_len);
		} else if (step == SCSI_DATA_IN) {
			assert_true(t->seg_offset + t->seg_len <= in_len);
			memcpy(w->in + t->seg_offset, t->buf, t->seg_len);
			w->in_len += t->seg_len;
			if (t->last)
				break;
		} else {
			break;
		}
	}
	assert_false(t->in_set);
	scsi_finish(t);
	return t->status;
}

#define CDB(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })
#define NO_DATA NULL, 0, 0
#define IN(n) NULL, 0, n

static void assert_sense(const struct world *w, uint8_t key, uint16_t asc)
{
	assert_int_equal(w->task.status, SCSI_CHECK_CONDITION);
	assert_int_equal(w->task.sense[0] & 0x7f, 0x70);
	assert_int_equal(w->task.sense[2], key);
	assert_int_equal(load_be16(w->task.sense + 12), asc);
}

static void test_sense_formats(void **state UNUSED)
{
	const struct scsi_sense s = {
		.key = 5, .asc = 0x2400, .has_info = true, .info = 0x123456789ull,
		.has_field = true, .field_in_cdb = true, .field = 7, .bit = 3,
	};
	uint8_t b[SCSI_SENSE_MAX];

	assert_int_equal(scsi_sense_encode(b, &s, false), 18);
	assert_int_equal(b[0], 0x70);		/* the information does not fit */
	assert_int_equal(b[7], 10);
	assert_int_equal(b[15], 0x80 | 0x40 | 0x08 | 3);
	assert_int_equal(load_be16(b + 16), 7);
	assert_int_equal(scsi_sense_encode(b, &s, true), 28);
	assert_int_equal(b[0], 0x72);
	assert_int_equal(b[7], 20);
	assert_int_equal(load_be64(b + 12), 0x123456789ull);
	assert_int_equal(b[20], 2);
	assert_int_equal(load_be16(b + 25), 7);
}

/* The table is in order, and says nothing impossible. */
static void test_table(void **state UNUSED)
{
	for (unsigned i = 0; i < scsi_n_ops; i++) {
		const struct scsi_op *op = &scsi_ops[i];
		unsigned len = scsi_cdb_len(op->opcode);

		assert_true(len >= 6 && len <= 16);
		assert_int_equal(op->usage[0], op->opcode);
		assert_int_equal(op->usage[len - 1], 0);	/* CONTROL */
		for (unsigned k = len; k < SCSI_CDB_MAX; k++)
			assert_int_equal(op->usage[k], 0);
		assert_non_null(op->run);
		if (i)
			assert_true(op->opcode > op[-1].opcode ||
				    (op->opcode == op[-1].opcode &&
				     op->service_action > op[-1].service_action));
		assert_ptr_equal(scsi_op_find(op->opcode, op->service_action), op);
	}
	assert_null(scsi_op_find(0x9e, 0x1f));
	assert_null(scsi_op_find(0x01, 0));
}

static void test_inquiry(void **state)
{
	struct world *w = *state;

	assert_int_equal(run(w, 0, CDB(0x12, 0, 0, 0, 96, 0), IN(96)), 0);
	assert_int_equal(w->in_len, 96);
	assert_int_equal(w->in[0], 0);
	assert_int_equal(w->in[4], 91);
	assert_memory_equal(w->in + 8, "VDISK   ", 8);
	assert_int_equal(run(w, 0, CDB(0x12, 0, 0, 0, 5, 0), IN(255)), 0);
	assert_int_equal(w->in_len, 5);			/* allocation length */
	assert_int_equal(run(w, 0, CDB(0x12, 0, 0, 0, 96, 0), IN(36)), 0);
	assert_int_equal(w->in_len, 36);		/* what the transport takes */
	assert_int_equal(w->task.length, 96);
	assert_int_equal(run(w, 9, CDB(0x12, 0, 0, 0, 96, 0), IN(96)), 0);
	assert_int_equal(w->in[0], 0x7f);		/* nothing there */
	run(w, 0, CDB(0x12, 0, 0x83, 0, 96, 0), IN(96));
	assert_sense(w, 5, 0x2400);			/* a page without EVPD */
	run(w, 0, CDB(0x12, 1, 0x84, 0, 96, 0), IN(96));
	assert_sense(w, 5, 0x2400);
	run(w, 0, CDB(0x12, 2, 0, 0, 96, 0), IN(96));
	assert_sense(w, 5, 0x2400);			/* CMDDT */
	assert_int_equal(w->task.sense[15], 0x80 | 0x40 | 0x08 | 1);
	assert_int_equal(load_be16(w->task.sense + 16), 1);
}

static void test_vital_data(void **state)
{
	struct world *w = *state;
	uint32_t at = 4, n = 0;
	uint8_t pages[16];
	unsigned n_pages;

	assert_int_equal(run(w, 0, CDB(0x12, 1, 0, 0, 255, 0), IN(255)), 0);
	n_pages = load_be16(w->in + 2);
	assert_in_range(n_pages, 6, sizeof(pages));
	memcpy(pages, w->in + 4, n_pages);
	for (unsigned i = 0; i < n_pages; i++) {
		const uint8_t cdb[6] = { 0x12, 1, pages[i], 2, 0, 0 };

		assert_true(i == 0 || pages[i] > pages[i - 1]);
		assert_int_equal(run(w, 0, cdb, 6, IN(512)), 0);
		assert_int_equal(w->in[1], pages[i]);
		assert_int_equal(w->in_len, 4 + load_be16(w->in + 2));
	}
	/* designators follow each other without a gap */
	assert_int_equal(run(w, 0, CDB(0x12, 1, 0x83, 2, 0, 0), IN(512)), 0);
	for (; at < w->in_len; n++)
		at += 4 + w->in[at + 3];
	assert_int_equal(at, w->in_len);
	assert_true(n >= 4);
	assert_int_equal(w->in[5] & 0x0f, 3);
	assert_int_equal(w->in[8] >> 4, 3);		/* NAA, locally assigned */
}

static void test_capacity(void **state)
{
	struct world *w = *state;

	assert_int_equal(run(w, 0, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), IN(8)), 0);
	assert_int_equal(load_be32(w->in), DISK_SIZE / 512 - 1);
	assert_int_equal(load_be32(w->in + 4), 512);
	assert_int_equal(run(w, 0, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), IN(32)), 0);
	assert_int_equal(load_be64(w->in), DISK_SIZE / 512 - 1);
	run(w, 0, CDB(0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), IN(32));
	assert_sense(w, 5, 0x2400);			/* a service action we have not */
}

static void test_luns(void **state)
{
	struct world *w = *state;

	assert_int_equal(run(w, 77, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256)), 0);
	assert_int_equal(load_be32(w->in), 16);
	assert_int_equal(w->in[9], 0);
	assert_int_equal(w->in[17], 5);
	run(w, 0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0), IN(256));
	assert_sense(w, 5, 0x2400);
	run(w, 0, CDB(0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256));
	assert_sense(w, 5, 0x2400);
	run(w, 1, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2500);
}

/* What one initiator may use of the target is its own affair. */
static void test_view(void **state)
{
	struct world *w = *state;
	struct scsi_view view = SCSI_VIEW_ALL;
	uint8_t block[512] = { 0 };

	view.visible[0] = 1u << 0;
	view.writable[0] = 0;
	scsi_nexus_set_view(&w->nexus, &view);
	run(w, 0, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 6, 0x3f0e);
	run(w, 5, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2500);
	assert_int_equal(run(w, 0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256)), 0);
	assert_int_equal(load_be32(w->in), 8);
	run(w, 0, CDB(0x0a, 0, 0, 0, 1, 0), block, 512, 0);
	assert_sense(w, 7, 0x2700);
	assert_int_equal(run(w, 0, CDB(0x1a, 8, 0x0a, 0, 255, 0), IN(255)), 0);
	assert_true(w->in[2] & 0x80);			/* WP */
	/* the same again is no news; writable again, neither */
	scsi_nexus_set_view(&w->nexus, &view);
	view.writable[0] = 1;
	scsi_nexus_set_view(&w->nexus, &view);
	assert_int_equal(run(w, 0, CDB(0x0a, 0, 0, 0, 1, 0), block, 512, 0), 0);
}

/* A unit goes while initiators are here. */
static void test_leave(void **state)
{
	struct world *w = *state;

	scsi_unit_leave(w->target->units[5]);
	run(w, 0, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 6, 0x3f0e);
	run(w, 5, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2500);
	assert_int_equal(run(w, 0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), IN(256)), 0);
	assert_int_equal(load_be32(w->in), 8);
	vdisk_close(scsi_unit_remove(w->target->units[5]), NULL);
	assert_null(w->target->units[5]);
	assert_int_equal(scsi_target_add(w->target, 5, w->disk, true, NULL), 0);
}

static void test_bad_commands(void **state)
{
	struct world *w = *state;

	run(w, 0, CDB(0xff, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2000);
	run(w, 0, CDB(0x7f, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2000);
	/* no buffers to write and read: where others leaked memory and used it after its end */
	run(w, 0, CDB(0x3b, 2, 0, 0, 0, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2000);
	run(w, 0, CDB(0x3c, 2, 0, 0, 0, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2000);
	/* every bit that the table does not allow is refused, in every command */
	for (unsigned i = 0; i < scsi_n_ops; i++) {
		const struct scsi_op *op = &scsi_ops[i];
		uint8_t cdb[16] = { op->opcode };
		unsigned len = scsi_cdb_len(op->opcode);

		if (!scsi_op_supported(op, w->target->units[0]))
			continue;
		if (op->service_action != SCSI_NO_SERVICE_ACTION)
			cdb[1] = op->service_action;
		for (unsigned bit = 8; bit < len * 8; bit++) {
			if (op->usage[bit / 8] & 1u << bit % 8)
				continue;
			cdb[bit / 8] ^= (uint8_t)(1u << bit % 8);
			run(w, 0, cdb, len, NO_DATA);
			assert_sense(w, 5, 0x2400);
			assert_int_equal(w->task.sense[15] & 7, bit % 8);
			assert_int_equal(load_be16(w->task.sense + 16), bit / 8);
			cdb[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
}

/* Every size of READ and WRITE moves the same bytes; large ones go in segments. */
static void test_read_write(void **state)
{
	static uint8_t data[2048 * 512];
	struct world *w = *state;

	fill(data, sizeof(data), 1);
	assert_int_equal(run(w, 0, CDB(0x0a, 0, 0, 8, 0, 0), data, 256 * 512, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x08, 0, 0, 8, 0, 0), IN(256 * 512)), 0);
	assert_int_equal(w->in_len, 256 * 512);
	assert_memory_equal(w->in, data, w->in_len);
	fill(data, sizeof(data), 2);
	assert_int_equal(run(w, 0, CDB(0x2a, 0x18, 0, 0, 0, 3, 0, 8, 0, 0), data, sizeof(data), 0), 0);
	assert_int_equal(run(w, 0, CDB(0xa8, 0, 0, 0, 0, 3, 0, 0, 8, 0, 0, 0), IN(sizeof(data))), 0);
	assert_int_equal(w->in_len, sizeof(data));
	assert_memory_equal(w->in, data, sizeof(data));
	assert_int_equal(run(w, 0, CDB(0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0), data, 512, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0), IN(512)), 0);
	assert_memory_equal(w->in, data, 512);
	/* less data than blocks: whole blocks of it are written; less room: cut */
	assert_int_equal(run(w, 0, CDB(0x2a, 0, 0, 0, 0, 1, 0, 0, 2, 0), data + 512, 700, 0), 0);
	assert_int_equal(w->task.length, 1024);
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0), IN(700)), 0);
	assert_int_equal(w->in_len, 700);
	assert_memory_equal(w->in, data + 512, 512);
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0), NO_DATA), 0);
	assert_int_equal(w->task.length, 1024);
}

static void test_range(void **state)
{
	struct world *w = *state;
	uint8_t block[512] = { 0 };

	/* 0x2000 blocks */
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 0x1f, 0xff, 0, 0, 1, 0), IN(512)), 0);
	run(w, 0, CDB(0x28, 0, 0, 0, 0x20, 0, 0, 0, 1, 0), IN(512));
	assert_sense(w, 5, 0x2100);
	assert_int_equal(load_be32(w->task.sense + 3), 0x2000);
	run(w, 0, CDB(0x2a, 0, 0, 0, 0x1f, 0xff, 0, 0, 2, 0), block, 512, 0);
	assert_sense(w, 5, 0x2100);
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 0x20, 0, 0, 0, 0, 0), NO_DATA), 0);
	run(w, 0, CDB(0x28, 0, 0, 0, 0x20, 1, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2100);
	run(w, 0, CDB(0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0), IN(512));
	assert_sense(w, 5, 0x2100);
	run(w, 0, CDB(0x93, 1, 0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0, 0, 0, 2, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2100);
	run(w, 0, CDB(0x35, 0, 0, 0, 0x20, 1, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 5, 0x2100);
	assert_int_equal(run(w, 0, CDB(0x91, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), NO_DATA), 0);
}

static void test_protected(void **state)
{
	struct world *w = *state;
	uint8_t block[512] = { 0 };

	for (unsigned i = 0; i < scsi_n_ops; i++) {
		uint8_t cdb[16] = { scsi_ops[i].opcode };

		if (!(scsi_ops[i].flags & SCSI_OP_WRITES) ||
		    !scsi_op_supported(&scsi_ops[i], w->target->units[5]))
			continue;
		run(w, 5, cdb, sizeof(cdb), block, sizeof(block), 0);
		assert_sense(w, 7, 0x2700);
	}
	/* software write protection, by MODE SELECT; other nexuses are told */
	block[4] = 0x0a, block[5] = 10, block[7] = 0x10, block[8] = 0x08;
	block[12] = block[13] = 0xff;
	assert_int_equal(run(w, 0, CDB(0x15, 0x10, 0, 0, 16, 0), block, 16, 0), 0);
	run(w, 0, CDB(0x0a, 0, 0, 0, 1, 0), block, 512, 0);
	assert_sense(w, 7, 0x2702);
	assert_int_equal(scsi_attention_take(&w->other, 0), SCSI_ASC_POWER_ON);
	assert_int_equal(scsi_attention_take(&w->other, 0), SCSI_ASC_MODE_CHANGED);
	assert_int_equal(run(w, 0, CDB(0x1a, 8, 0x0a, 0, 255, 0), IN(255)), 0);
	assert_true(w->in[2] & 0x80);			/* WP */
	block[8] = 0;
	assert_int_equal(run(w, 0, CDB(0x15, 0x10, 0, 0, 16, 0), block, 16, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x0a, 0, 0, 0, 1, 0), block, 512, 0), 0);
}

static void test_mode(void **state)
{
	struct world *w = *state;
	uint8_t list[64] = { [4] = 0x08, [5] = 0x12, [6] = 0x04 };

	assert_int_equal(run(w, 0, CDB(0x1a, 0, 0x3f, 0, 255, 0), IN(255)), 0);
	assert_int_equal(w->in[0], w->in_len - 1);
	assert_int_equal(w->in[3], 8);
	assert_int_equal(load_be24(w->in + 9), 512);
	assert_int_equal(run(w, 0, CDB(0x5a, 0x18, 0x3f, 0xff, 0, 0, 0, 2, 0, 0), IN(512)), 0);
	assert_int_equal(load_be16(w->in), w->in_len - 2);
	assert_int_equal(run(w, 0, CDB(0x1a, 8, 0x48, 0, 255, 0), IN(255)), 0);
	assert_int_equal(w->in[4 + 2], 0x04);		/* changeable: WCE */
	run(w, 0, CDB(0x1a, 8, 0xc8, 0, 255, 0), IN(255));
	assert_sense(w, 5, 0x3900);
	run(w, 0, CDB(0x1a, 8, 0x05, 0, 255, 0), IN(255));
	assert_sense(w, 5, 0x2400);
	run(w, 0, CDB(0x1a, 8, 0x08, 7, 255, 0), IN(255));
	assert_sense(w, 5, 0x2400);
	/* the cache off: writes carry FUA */
	list[6] = 0;
	assert_int_equal(run(w, 0, CDB(0x15, 0x10, 0, 0, 24, 0), list, 24, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x0a, 0, 0, 0, 1, 0), w->in, 512, 0), 0);
	assert_true(w->task.io.flags & VDISK_REQ_FUA);
	list[6] = 0x04;
	assert_int_equal(run(w, 0, CDB(0x15, 0x10, 0, 0, 24, 0), list, 24, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x0a, 0, 0, 0, 1, 0), w->in, 512, 0), 0);
	assert_false(w->task.io.flags & VDISK_REQ_FUA);
	/* wrong lists */
	list[7] = 1;
	run(w, 0, CDB(0x15, 0x10, 0, 0, 24, 0), list, 24, 0);
	assert_sense(w, 5, 0x2600);
	list[7] = 0, list[5] = 0x11;
	run(w, 0, CDB(0x15, 0x10, 0, 0, 24, 0), list, 24, 0);
	assert_sense(w, 5, 0x2600);
	list[5] = 0x12;
	for (unsigned n = 1; n < 24; n++) {
		if (n == 4)
			continue;	/* a header alone changes nothing */
		run(w, 0, (const uint8_t[]){ 0x15, 0x10, 0, 0, (uint8_t)n, 0 }, 6, list, n, 0);
		assert_sense(w, 5, 0x1a00);
	}
	list[3] = 8;
	run(w, 0, CDB(0x15, 0x10, 0, 0, 24, 0), list, 24, 0);
	assert_sense(w, 5, 0x2600);			/* another block size */
	/* descriptor sense, once asked for */
	memset(list, 0, sizeof(list));
	list[4] = 0x0a, list[5] = 10, list[6] = 4, list[7] = 0x10, list[12] = list[13] = 0xff;
	assert_int_equal(run(w, 0, CDB(0x15, 0x10, 0, 0, 16, 0), list, 16, 0), 0);
	run(w, 0, CDB(0xff, 0, 0, 0, 0, 0), NO_DATA);
	assert_int_equal(w->task.sense[0], 0x72);
}

static void test_verify(void **state)
{
	static uint8_t data[1500 * 512];
	struct world *w = *state;

	fill(data, sizeof(data), 3);
	assert_int_equal(run(w, 0, CDB(0xaa, 0, 0, 0, 0, 0, 0, 0, 5, 0xdc, 0, 0), data, sizeof(data), 0), 0);
	assert_int_equal(run(w, 0, CDB(0x2f, 0, 0, 0, 0, 0, 0, 5, 0xdc, 0), NO_DATA), 0);
	assert_int_equal(run(w, 0, CDB(0x2f, 2, 0, 0, 0, 0, 0, 5, 0xdc, 0), data, sizeof(data), 0), 0);
	data[700001] ^= 1;
	run(w, 0, CDB(0x2f, 2, 0, 0, 0, 0, 0, 5, 0xdc, 0), data, sizeof(data), 0);
	assert_sense(w, 0xe, 0x1d00);
	assert_int_equal(load_be32(w->task.sense + 3), 700001);
	run(w, 0, CDB(0x2f, 4, 0, 0, 0, 0, 0, 0, 1, 0), data, 512, 0);
	assert_sense(w, 5, 0x2400);
	/* one block against many */
	assert_int_equal(run(w, 0, CDB(0x41, 0, 0, 0, 0, 0, 0, 0, 20, 0), data, 512, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x2f, 6, 0, 0, 0, 0, 0, 0, 20, 0), data, 512, 0), 0);
	run(w, 0, CDB(0x2f, 6, 0, 0, 0, 0, 0, 0, 21, 0), data, 512, 0);
	assert_sense(w, 0xe, 0x1d00);
	assert_int_equal(run(w, 0, CDB(0x2e, 2, 0, 0, 0, 30, 0, 0, 2, 0), data, 1024, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 0, 30, 0, 0, 2, 0), IN(1024)), 0);
	assert_memory_equal(w->in, data, 1024);
}

static bool is_zero(struct world *w, uint8_t lba, uint8_t blocks)
{
	const uint8_t cdb[10] = { 0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0 };

	assert_int_equal(run(w, 0, cdb, 10, IN(blocks * 512u)), 0);
	for (uint32_t i = 0; i < w->in_len; i++)
		if (w->in[i])
			return false;
	return true;
}

static void test_write_same_unmap(void **state)
{
	struct world *w = *state;
	uint8_t block[512], list[8 + 2 * 16] = { 0 }, can;

	memset(block, 0xa5, sizeof(block));
	assert_int_equal(run(w, 0, CDB(0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0), block, 512, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 7, 0xff, 0, 0, 2, 0), IN(1024)), 0);
	assert_int_equal(w->in[511], 0xa5);
	assert_int_equal(w->in[512], 0);
	assert_int_equal(run(w, 0, CDB(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0), NO_DATA), 0);
	assert_true(is_zero(w, 3, 4));
	assert_false(is_zero(w, 2, 1));
	assert_false(is_zero(w, 7, 1));
	run(w, 0, CDB(0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0), block, 511, 0);
	assert_sense(w, 5, 0x2400);
	run(w, 0, CDB(0x93, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0), block, 512, 0);
	assert_sense(w, 5, 0x2400);			/* ANCHOR */

	can = w->target->units[0]->limits.can_discard;
	w->target->units[0]->limits.can_discard = true;
	assert_int_equal(run(w, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0), NO_DATA), 0);
	store_be16(list, 6);
	assert_int_equal(run(w, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0), list, 8, 0), 0);
	run(w, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0), list, 7, 0);
	assert_sense(w, 5, 0x1a00);
	store_be16(list + 2, 32);
	store_be64(list + 8, 10), store_be32(list + 16, 3);
	store_be64(list + 24, 50), store_be32(list + 32, 1);
	run(w, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24, 0);
	assert_sense(w, 5, 0x1a00);			/* the second one is cut off */
	assert_int_equal(run(w, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), list, 40, 0), 0);
	assert_true(is_zero(w, 10, 3) && is_zero(w, 50, 1));
	assert_false(is_zero(w, 13, 1) || is_zero(w, 51, 1));
	/* nothing happens when one of them is wrong */
	store_be64(list + 8, 20);
	store_be64(list + 24, 0x2000);
	run(w, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), list, 40, 0);
	assert_sense(w, 5, 0x2100);
	assert_false(is_zero(w, 20, 1));
	w->target->units[0]->limits.can_discard = can;
}

static void test_attention(void **state)
{
	struct world *w = *state;

	scsi_attention_all(w->target->units[0], NULL, SCSI_ASC_LUN_RESET);
	assert_int_equal(run(w, 0, CDB(0x12, 0, 0, 0, 36, 0), IN(36)), 0);
	assert_int_equal(run(w, 5, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA), 0);
	run(w, 0, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA);
	assert_sense(w, 6, 0x2903);
	assert_int_equal(run(w, 0, CDB(0x00, 0, 0, 0, 0, 0), NO_DATA), 0);
	/* REQUEST SENSE returns it as data */
	scsi_attention_all(w->target->units[0], NULL, SCSI_ASC_LUN_RESET);
	assert_int_equal(run(w, 0, CDB(0x03, 0, 0, 0, 252, 0), IN(252)), 0);
	assert_int_equal(w->in[2], 6);
	assert_int_equal(run(w, 0, CDB(0x03, 1, 0, 0, 252, 0), IN(252)), 0);
	assert_int_equal(w->in[0], 0x72);
	assert_int_equal(w->in[1], 0);
	assert_int_equal(run(w, 9, CDB(0x03, 0, 0, 0, 252, 0), IN(252)), 0);
	assert_int_equal(load_be16(w->in + 12), 0x2500);
}

static void test_supported_opcodes(void **state)
{
	struct world *w = *state;
	unsigned n_ops = 0;

	for (unsigned i = 0; i < scsi_n_ops; i++)
		n_ops += scsi_op_supported(&scsi_ops[i], w->target->units[0]);
	assert_in_range(n_ops, 60, scsi_n_ops - 1);
	assert_int_equal(run(w, 0, CDB(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0), IN(4096)), 0);
	assert_int_equal(load_be32(w->in), 8 * n_ops);
	assert_int_equal(run(w, 0, CDB(0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0x10, 0, 0, 0), IN(4096)), 0);
	assert_int_equal(load_be32(w->in), 20 * n_ops);
	assert_int_equal(run(w, 0, CDB(0xa3, 0x0c, 1, 0x28, 0, 0, 0, 0, 0x10, 0, 0, 0), IN(4096)), 0);
	assert_int_equal(w->in[1], 3);
	assert_int_equal(load_be16(w->in + 2), 10);
	assert_int_equal(w->in[4], 0x28);
	assert_int_equal(run(w, 0, CDB(0xa3, 0x0c, 2, 0x9e, 0, 0x10, 0, 0, 0x10, 0, 0, 0), IN(4096)), 0);
	assert_int_equal(w->in[5], 0x10);
	assert_int_equal(run(w, 0, CDB(0xa3, 0x0c, 3, 0x01, 0, 0, 0, 0, 0x10, 0, 0, 0), IN(4096)), 0);
	assert_int_equal(w->in[1], 1);
	run(w, 0, CDB(0xa3, 0x0c, 1, 0x9e, 0, 0, 0, 0, 0x10, 0, 0, 0), IN(4096));
	assert_sense(w, 5, 0x2400);
	run(w, 0, CDB(0xa3, 0x0c, 2, 0x28, 0, 0, 0, 0, 0x10, 0, 0, 0), IN(4096));
	assert_sense(w, 5, 0x2400);
}

static void test_lba_status(void **state)
{
	struct world *w = *state;
	uint8_t block[4096];

	memset(block, 1, sizeof(block));
	assert_int_equal(run(w, 0, CDB(0x2a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0), block, 4096, 0), 0);
	assert_int_equal(run(w, 0, CDB(0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 1, 0, 0, 0), IN(256)), 0);
	assert_int_equal(load_be64(w->in + 8), 0x1000);
	assert_int_equal(w->in[20], 0);			/* mapped */
	run(w, 0, CDB(0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 1, 0, 0, 0), IN(256));
	assert_sense(w, 5, 0x2100);
	run(w, 0, CDB(0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0), IN(256));
	assert_sense(w, 5, 0x2400);
}

/* When the pool is empty, a command is turned away, not lost. */
static void test_no_buffers(void **state)
{
	struct world *w = *state;
	void *held[32];
	unsigned n = 0;

	while (n < 32 && (held[n] = pool_get(w->pool, POOL_BUFFER_MAX)))
		n++;
	assert_int_equal(n, 32);
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), IN(512)), SCSI_TASK_SET_FULL);
	pool_put(w->pool, held[--n], POOL_BUFFER_MAX);
	assert_int_equal(run(w, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), IN(512)), SCSI_GOOD);
	while (n)
		pool_put(w->pool, held[--n], POOL_BUFFER_MAX);
}

static unsigned tmfs_done;

static void tmf_done(struct scsi_tmf *tmf UNUSED)
{
	tmfs_done++;
}

static void late_abort(struct scsi_task *task UNUSED)
{
	/* its disk request is in flight: the test ends it */
}

/* A reset answers only when the command's disk request is back. */
static void test_reset_waits(void **state)
{
	static const struct scsi_nexus_ops late = { .abort = late_abort };
	struct world *w = *state;
	struct scsi_task *t = &w->task, newer = { .nexus = &w->nexus, .pool = w->pool };
	struct scsi_tmf reset = {
		.function = SCSI_LUN_RESET, .nexus = &w->other, .unit = w->target->units[0],
		.done = tmf_done,
	}, abort = {
		.function = SCSI_ABORT_TASK, .nexus = &w->nexus, .unit = w->target->units[0],
		.task = t, .done = tmf_done,
	};

	tmfs_done = 0;
	w->nexus.ops = &late;
	memset(t, 0, sizeof(*t));
	t->nexus = &w->nexus;
	t->pool = w->pool;
	t->cdb[0] = 0x28, t->cdb[8] = 1;
	t->in_limit = 512;
	assert_int_equal(scsi_start(t), SCSI_IO);
	scsi_tmf_start(&reset);
	scsi_tmf_start(&abort);
	assert_int_equal(tmfs_done, 0);
	assert_true(t->aborted);
	do_io(w, &t->io);
	/* one that came later does not hold them up */
	newer.cdb[0] = 0x28, newer.cdb[8] = 1;
	newer.in_limit = 512;
	assert_int_equal(scsi_start(&newer), SCSI_DONE);	/* the unit attention */
	assert_int_equal(scsi_start(&newer), SCSI_IO);
	scsi_finish(t);
	assert_int_equal(tmfs_done, 2);
	do_io(w, &newer.io);
	assert_int_equal(scsi_step(&newer), SCSI_DATA_IN);
	scsi_finish(&newer);
	w->nexus.ops = &ops;
}

static void test_pool(void **state UNUSED)
{
	struct pool *p = pool_new(4u << 20);
	void *buf[1024];
	unsigned n = 0, seed = 5;
	size_t size[1024];

	/* buffers of all sizes, freed in another order; then all is one piece again */
	for (; n < 1024; n++) {
		seed = seed * 1103515245 + 12345;
		size[n] = 1 + (seed >> 8) % (64u << 10);
		buf[n] = pool_get(p, size[n]);
		if (!buf[n])
			break;
		assert_int_equal((uintptr_t)buf[n] % 4096, 0);
		memset(buf[n], (int)n, size[n]);
	}
	assert_in_range(n, 50, 1023);
	for (unsigned i = 0; i < n; i += 2)
		assert_int_equal(((uint8_t *)buf[i])[size[i] - 1], (uint8_t)i);
	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = k; i < n; i += 2)
			pool_put(p, buf[i], size[i]);
	assert_int_equal(pool_used(p), 0);
	for (n = 0; n < 8; n++)
		assert_non_null(buf[n] = pool_get(p, POOL_BUFFER_MAX));
	assert_null(pool_get(p, 1));
	while (n)
		pool_put(p, buf[--n], POOL_BUFFER_MAX);
	pool_free(p);
}

int main(void)
{
#define WITH_WORLD(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sense_formats),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_pool),
		WITH_WORLD(test_inquiry),
		WITH_WORLD(test_vital_data),
		WITH_WORLD(test_capacity),
		WITH_WORLD(test_luns),
		WITH_WORLD(test_view),
		WITH_WORLD(test_leave),
		WITH_WORLD(test_bad_commands),
		WITH_WORLD(test_read_write),
		WITH_WORLD(test_range),
		WITH_WORLD(test_protected),
		WITH_WORLD(test_mode),
		WITH_WORLD(test_verify),
		WITH_WORLD(test_write_same_unmap),
		WITH_WORLD(test_attention),
		WITH_WORLD(test_supported_opcodes),
		WITH_WORLD(test_lba_status),
		WITH_WORLD(test_no_buffers),
		WITH_WORLD(test_reset_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
