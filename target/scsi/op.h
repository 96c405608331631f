/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* op.h - the command table's rows, and what the handlers share */
#ifndef SCSI_OP_H
#define SCSI_OP_H

#include "core/compiler.h"
#include "target/scsi/scsi.h"

#define SCSI_NO_SERVICE_ACTION 0xff

/* Where a CDB has its LBA and its number of blocks, to check them by one rule. */
enum scsi_lba_rule {
	SCSI_LBA_NONE,
	SCSI_LBA_6,	/* 21 bits at 1; 8 bits at 4, 0 means 256 */
	SCSI_LBA_10,	/* 32 at 2; 16 at 7 */
	SCSI_LBA_12,	/* 32 at 2; 32 at 6 */
	SCSI_LBA_16,	/* 64 at 2; 32 at 10 */
};

/* What another nexus' reservation allows (SPC-4, table 65). */
enum scsi_reserved {
	SCSI_RESERVED_ALLOW,	/* always */
	SCSI_RESERVED_READ,	/* if only writing is exclusive */
	SCSI_RESERVED_DENY,
};

enum scsi_op_flags {
	SCSI_OP_WRITES = 1 << 0,	/* refused by a write-protected unit */
	SCSI_OP_NO_UNIT = 1 << 1,	/* answered for a unit that is not there */
	SCSI_OP_PAST_ATTENTION = 1 << 2, /* runs although a unit attention is pending */
	SCSI_OP_TO_END = 1 << 3,	/* a number of blocks of 0 means up to the end */
};

struct scsi_op {
	uint8_t opcode;
	uint8_t service_action;		/* in byte 1, or SCSI_NO_SERVICE_ACTION */
	uint8_t lba;			/* enum scsi_lba_rule */
	uint8_t reserved;		/* enum scsi_reserved */
	uint8_t flags;			/* enum scsi_op_flags */
	/* The bits that may be set, byte by byte; a set bit outside ends the command. */
	uint8_t usage[SCSI_CDB_MAX];
	/* Run the command from task->state; called again after each step. */
	enum scsi_step (*run)(struct scsi_task *task);
};

extern const struct scsi_op scsi_ops[];
extern const unsigned scsi_n_ops;
unsigned scsi_cdb_len(uint8_t opcode);
/* Whether any operation has this opcode; if with service actions in @has_actions. */
bool scsi_opcode_known(uint8_t opcode, bool *has_actions);
const struct scsi_op *scsi_op_find(uint8_t opcode, uint8_t service_action);

/* ---- for handlers ---- */

/* Every handler starts here. */
#define SCSI_STATE_START 0

enum scsi_step scsi_good(struct scsi_task *t);
enum scsi_step scsi_check(struct scsi_task *t, uint8_t key, uint16_t asc);
enum scsi_step scsi_check_info(struct scsi_task *t, uint8_t key, uint16_t asc, uint64_t info);
enum scsi_step scsi_bad_cdb(struct scsi_task *t, uint16_t byte, int8_t bit);
enum scsi_step scsi_bad_list(struct scsi_task *t, uint16_t byte);
/* task->buf, of at least @size bytes; false: the pool is exhausted (then TASK SET FULL). */
bool scsi_get_buf(struct scsi_task *t, uint32_t size);
enum scsi_step scsi_no_buf(struct scsi_task *t);
/* Answer with @len bytes of task->buf, cut to @alloc (the CDB's allocation length). */
enum scsi_step scsi_reply(struct scsi_task *t, uint32_t len, uint32_t alloc);
/* Ask for a parameter list of @len bytes into task->buf (all of it at once). */
enum scsi_step scsi_want_list(struct scsi_task *t, uint32_t len, uint8_t next_state);

/* Whatever is the reason: the medium, the server, or what this initiator may do. */
static inline bool scsi_read_only(const struct scsi_task *t)
{
	return t->unit->read_only || !scsi_view_has(t->nexus->view.writable, t->unit->lun);
}

static inline uint64_t scsi_unit_bytes(const struct scsi_unit *u)
{
	return u->blocks << u->block_shift;
}

/* Raise a unit attention for all nexuses but @except (NULL: all). */
void scsi_attention_all(struct scsi_unit *u, const struct scsi_nexus *except, uint16_t asc);
/* The oldest one, taken off; 0 if there is none. */
uint16_t scsi_attention_take(struct scsi_nexus *n, uint16_t lun);

/* spc.c */
enum scsi_step scsi_test_unit_ready(struct scsi_task *t);
enum scsi_step scsi_request_sense(struct scsi_task *t);
enum scsi_step scsi_inquiry(struct scsi_task *t);
enum scsi_step scsi_report_luns(struct scsi_task *t);
enum scsi_step scsi_report_opcodes(struct scsi_task *t);
enum scsi_step scsi_report_tmfs(struct scsi_task *t);
/* mode.c */
enum scsi_step scsi_mode_sense(struct scsi_task *t);
enum scsi_step scsi_mode_select(struct scsi_task *t);
/* sbc.c */
enum scsi_step scsi_read_capacity_10(struct scsi_task *t);
enum scsi_step scsi_read_capacity_16(struct scsi_task *t);
enum scsi_step scsi_get_lba_status(struct scsi_task *t);
enum scsi_step scsi_start_stop(struct scsi_task *t);
enum scsi_step scsi_sync_cache(struct scsi_task *t);
enum scsi_step scsi_prefetch(struct scsi_task *t);
enum scsi_step scsi_read(struct scsi_task *t);
enum scsi_step scsi_write(struct scsi_task *t);
enum scsi_step scsi_verify(struct scsi_task *t);
enum scsi_step scsi_write_verify(struct scsi_task *t);
enum scsi_step scsi_write_same(struct scsi_task *t);
enum scsi_step scsi_unmap(struct scsi_task *t);

#define SCSI_MAX_UNMAP_DESCRIPTORS	256u
#define SCSI_MAX_WRITE_SAME		(1u << 22)	/* blocks */

#endif
