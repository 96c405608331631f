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
	SCSI_LBA_16_8,	/* 64 at 2; 8 at 13 */
	SCSI_LBA_16_16,	/* 64 at 2; 16 at 12 */
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
	SCSI_OP_PAST_RESERVE = 1 << 4,	/* runs although another nexus did RESERVE */
	SCSI_OP_STANDBY = 1 << 5,	/* runs through a port in standby state */
	SCSI_OP_UNAVAILABLE = 1 << 6,	/* and through one that is unavailable */
	SCSI_OP_NO_MEDIUM = 1 << 7,	/* runs without a medium */
	SCSI_OP_SANITIZING = 1 << 8,	/* runs during SANITIZE, and after a failed one */
	/* who has it; neither: every unit */
	SCSI_OP_DISK = 1 << 9,
	SCSI_OP_CDROM = 1 << 10,
	SCSI_OP_THIN = 1 << 11,		/* only if blocks can be unmapped */
	SCSI_OP_REMOVABLE = 1 << 12,
	SCSI_OP_BACKGROUND = 1 << 13,	/* only where the target can run things in the background */
	SCSI_OP_EXCLUSIVE = 1 << 14,	/* its blocks are nobody else's while it runs */
};

struct scsi_op {
	uint8_t opcode;
	uint8_t service_action;		/* in byte 1, or SCSI_NO_SERVICE_ACTION */
	uint8_t dir;			/* enum scsi_dir: which way its data go, if there are any */
	uint8_t lba;			/* enum scsi_lba_rule */
	uint8_t reserved;		/* enum scsi_reserved */
	uint16_t flags;			/* enum scsi_op_flags */
	/* The bits that may be set, byte by byte; a set bit outside ends the command. */
	uint8_t usage[SCSI_CDB_MAX];
	/* Run the command from task->state; called again after each step. */
	enum scsi_step (*run)(struct scsi_task *task);
};

extern const struct scsi_op scsi_ops[];
extern const unsigned scsi_n_ops;
unsigned scsi_cdb_len(uint8_t opcode);
/* Whether any operation of @unit has this opcode; if with service actions in @has_actions. */
bool scsi_opcode_known(uint8_t opcode, bool *has_actions, const struct scsi_unit *unit);
const struct scsi_op *scsi_op_find(uint8_t opcode, uint8_t service_action);
/* Does this unit have the operation? */
bool scsi_op_supported(const struct scsi_op *op, const struct scsi_unit *unit);

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

enum scsi_step scsi_check_sense(struct scsi_task *t, const struct scsi_sense *sense);
/* Start a disk request on the task's unit; @buf NULL: without data. */
enum scsi_step scsi_start_io(struct scsi_task *t, enum vdisk_op op, uint8_t *buf, uint64_t offset,
			     uint64_t len, uint8_t flags, uint8_t next_state);
/* Run @call on a thread that may block. */
enum scsi_step scsi_start_call(struct scsi_task *t, int (*call)(struct vdisk_request *),
			       uint8_t next_state);
static inline struct scsi_task *scsi_task_of(struct vdisk_request *req)
{
	return container_of(req, struct scsi_task, io);
}
/* What a failed disk request means. */
enum scsi_step scsi_io_failed(struct scsi_task *t);
/* VDISK_REQ_FUA where the cache is off or the CDB says so. */
uint8_t scsi_write_flags(const struct scsi_task *t, bool fua);
bool scsi_cdb_fua(const struct scsi_task *t);
/* A second buffer as large as the first. */
bool scsi_get_scratch(struct scsi_task *t);

static inline uint64_t scsi_unit_bytes(const struct scsi_unit *u)
{
	return u->blocks << u->block_shift;
}
static inline uint32_t scsi_block(const struct scsi_unit *u)
{
	return 1u << u->block_shift;
}
static inline uint64_t scsi_lba_bytes(const struct scsi_task *t)
{
	return t->lba << t->unit->block_shift;
}
static inline uint64_t scsi_range_bytes(const struct scsi_task *t)
{
	return t->n_blocks << t->unit->block_shift;
}
/* Whatever is the reason: the medium, the server, or what this initiator may do. */
static inline bool scsi_read_only(const struct scsi_unit *u, const struct scsi_nexus *n)
{
	return u->read_only || !scsi_view_has(n->view.writable, u->lun);
}
static inline bool scsi_protected(const struct scsi_unit *u, const struct scsi_nexus *n)
{
	return scsi_read_only(u, n) || u->software_protect;
}

void scsi_attention_add(struct scsi_nexus *n, uint16_t lun, uint16_t asc);
/* Raise a unit attention for all nexuses but @except (NULL: all). */
void scsi_attention_all(struct scsi_unit *u, const struct scsi_nexus *except, uint16_t asc);
/* The disk is larger than it was: tells everyone but @except (NULL: all). */
void scsi_unit_grown(struct scsi_unit *u, const struct scsi_nexus *except);
/* The oldest one, taken off; 0 if there is none. */
uint16_t scsi_attention_take(struct scsi_nexus *n, uint16_t lun);
/* The same as a sense; false if there is none. */
bool scsi_attention_sense(struct scsi_nexus *n, const struct scsi_unit *u, struct scsi_sense *out);

/* Something that the target does for itself: a request that may block, then @done. */
struct scsi_background {
	struct scsi_target *target;	/* borrowed; outlives this */
	struct vdisk_request req;
	void (*done)(struct scsi_background *b);
};
void scsi_background_start(struct scsi_background *b);

/* The index of a target port; -1: there is none of this number. */
int scsi_find_port(const struct scsi_target *target, uint16_t id);

/* ---- order.c ---- */

enum scsi_parked {
	SCSI_RUNS,
	SCSI_PARKED_START,	/* before its first step, */
	SCSI_PARKED_DATA,	/* with the first of its data, */
	SCSI_PARKED_IO,		/* with a disk request prepared */
	SCSI_PARKED_HANDLER,	/* by what it does itself: scsi_wait() */
};
/* The task has a say in what may run: count it. */
void scsi_gate(struct scsi_task *t);
/* Is it this task's turn, with what it is about to do? */
bool scsi_may_go(struct scsi_task *t);
/* Something ended: let those go whose turn it is. */
void scsi_wake(struct scsi_unit *u);
/* A handler returns this to wait for scsi_resume(). */
enum scsi_step scsi_wait(struct scsi_task *t, uint8_t next_state);
void scsi_resume(struct scsi_task *t);

/* ---- pr.c, port.c, state.c ---- */

/* Does a reservation keep this nexus from a command of this kind? */
bool scsi_reserved(const struct scsi_unit *u, const struct scsi_nexus *n, enum scsi_reserved kind);
void scsi_pr_clear(struct scsi_pr *pr);
/* A persistent reservation's state as bytes: for the file, and back (-EUCLEAN). */
size_t scsi_pr_encode(const struct scsi_pr *pr, uint8_t *out, size_t size);
int scsi_pr_decode(struct scsi_pr *out, const uint8_t *p, size_t len);
/* Write @pr to the unit's file; blocks. */
int scsi_pr_save(struct scsi_unit *u, const struct scsi_pr *pr);
/* One TransportID, checked and made uniform; -EINVAL.  @used: its bytes. */
int scsi_port_decode(struct scsi_port *out, const uint8_t *p, size_t len, size_t *used);

/* ---- sanitize.c ---- */
void scsi_sanitize_stop(struct scsi_unit *u);
/* The unit goes; what still runs ends by itself. */
void scsi_sanitize_orphan(struct scsi_unit *u);
uint16_t scsi_sanitize_progress(const struct scsi_unit *u);

/* ---- provisioning.c ---- */
/* Bytes of the first @size that are used, and that are left below a disk; blocks, -errno. */
int scsi_provisioning(struct vdisk *disk, uint64_t size, uint64_t *used, uint64_t *available);

/* ---- threshold.c ---- */
/* Where the threshold's descriptor is in its mode page (SBC-3, 6.5.9) */
static inline uint32_t scsi_threshold_offset(unsigned which)
{
	return 16 + 8 * which;
}
/* So many bytes of the unit were written, or given back: count if it is time. */
void scsi_watch(struct scsi_unit *u, uint64_t bytes);
/* The unit goes; the count under way ends by itself. */
void scsi_watch_orphan(struct scsi_unit *u);
void scsi_set_thresholds(struct scsi_unit *u, const struct scsi_thresholds *to);
struct scsi_thresholds scsi_default_thresholds(const struct scsi_unit *u);

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

enum scsi_step scsi_compare_and_write(struct scsi_task *t);
enum scsi_step scsi_orwrite(struct scsi_task *t);
enum scsi_step scsi_write_atomic(struct scsi_task *t);
enum scsi_step scsi_read_defects(struct scsi_task *t);
enum scsi_step scsi_prevent_allow(struct scsi_task *t);
enum scsi_step scsi_sanitize(struct scsi_task *t);
/* provisioning.c */
enum scsi_step scsi_log_sense(struct scsi_task *t);
/* pr.c */
enum scsi_step scsi_reserve(struct scsi_task *t);
enum scsi_step scsi_release(struct scsi_task *t);
enum scsi_step scsi_pr_in(struct scsi_task *t);
enum scsi_step scsi_pr_out(struct scsi_task *t);
/* alua.c */
enum scsi_step scsi_report_groups(struct scsi_task *t);
enum scsi_step scsi_set_groups(struct scsi_task *t);
/* xcopy.c */
enum scsi_step scsi_extended_copy(struct scsi_task *t);
enum scsi_step scsi_receive_copy(struct scsi_task *t);
/* mmc.c */
enum scsi_step scsi_read_toc(struct scsi_task *t);
enum scsi_step scsi_get_configuration(struct scsi_task *t);
enum scsi_step scsi_event_status(struct scsi_task *t);
enum scsi_step scsi_disc_information(struct scsi_task *t);
enum scsi_step scsi_mechanism_status(struct scsi_task *t);

/* COMPARE AND WRITE's limit, in blocks: both halves fit a segment, and 8 bits */
static inline uint32_t scsi_max_compare(const struct scsi_unit *u)
{
	return MIN(SCSI_SEGMENT / 2 >> u->block_shift, 255u);
}
/* WRITE ATOMIC's limit, in bytes: a task's two buffers */
#define SCSI_MAX_ATOMIC		(2 * SCSI_SEGMENT)
/* The designators of page 83, into at least 1024 bytes; their length (spc.c). */
uint32_t scsi_designators(const struct scsi_unit *u, uint16_t target_port, uint8_t *p);

/* a transfer's limit, in bytes: well inside what a transport can say */
#define SCSI_MAX_TRANSFER		(1ull << 30)
#define SCSI_MAX_UNMAP_DESCRIPTORS	256u
#define SCSI_MAX_WRITE_SAME		(1u << 22)	/* blocks */

#endif
