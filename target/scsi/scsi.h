/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * scsi.h - the device server: CDBs in, data, status and sense out
 *
 * A target has logical units, each on a struct vdisk, and nexuses, one for each
 * initiator port that is logged in through some transport.  The transport makes
 * a task from each command and drives it:
 *
 *	step = scsi_start(task);
 *	for (;;) switch (step) {
 *	SCSI_IO		task->io to a disk queue; when it comes back: scsi_step()
 *	SCSI_DATA_OUT	fetch task->seg_len bytes of the initiator's data, from
 *			seg_offset, into task->buf; then scsi_step()
 *	SCSI_DATA_IN	send task->seg_len bytes of task->buf; if task->last, with
 *			the status, and the command is over; else scsi_step() as
 *			soon as task->buf may be overwritten
 *	SCSI_DONE	answer with status and sense: the command is over
 *	}
 *	scsi_finish(task)	when its buffers are needed no more
 *
 * The device server never blocks, never allocates but from the pool that it is
 * given, and knows nothing of the wire; large transfers go through in segments
 * of at most SCSI_SEGMENT bytes, so a task's memory is bounded whatever the CDB
 * asks for.  Disk requests point into the same buffers as the transport's
 * scatter lists: nothing is copied in between.
 *
 * Threads: a target, with its units, nexuses and tasks, belongs to one thread.
 *
 * Invariants
 *   1. A task is in its unit's task set from scsi_start() until the command is
 *      over, or is aborted with no disk request of it in flight (scsi_end()).
 *   2. A task management function answers when no task that it covers is in a
 *      task set any more; tasks that came later do not hold it up.
 */
#ifndef SCSI_H
#define SCSI_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "vdisk.h"

#define SCSI_SEGMENT	(512u << 10)
#define SCSI_SENSE_MAX	32
#define SCSI_MAX_LUNS	256
#define SCSI_CDB_MAX	16

struct pool;
struct scsi_op;
struct scsi_task;

/* SAM-5, 5.3.1 */
enum scsi_status {
	SCSI_GOOD = 0x00,
	SCSI_CHECK_CONDITION = 0x02,
	SCSI_BUSY = 0x08,
	SCSI_RESERVATION_CONFLICT = 0x18,
	SCSI_TASK_SET_FULL = 0x28,
	SCSI_TASK_ABORTED = 0x40,
};

/* SPC-4, 4.5.6 */
enum scsi_sense_key {
	SCSI_NO_SENSE = 0x0,
	SCSI_NOT_READY = 0x2,
	SCSI_MEDIUM_ERROR = 0x3,
	SCSI_HARDWARE_ERROR = 0x4,
	SCSI_ILLEGAL_REQUEST = 0x5,
	SCSI_UNIT_ATTENTION = 0x6,
	SCSI_DATA_PROTECT = 0x7,
	SCSI_ABORTED_COMMAND = 0xb,
	SCSI_MISCOMPARE = 0xe,
};

/* additional sense code and qualifier in one number */
enum scsi_asc {
	SCSI_ASC_NONE = 0x0000,
	SCSI_ASC_WRITE_ERROR = 0x0c00,
	SCSI_ASC_UNEXPECTED_UNSOLICITED_DATA = 0x0c0c,
	SCSI_ASC_NOT_ENOUGH_UNSOLICITED_DATA = 0x0c0d,
	SCSI_ASC_UNRECOVERED_READ = 0x1100,
	SCSI_ASC_PARAMETER_LIST_LENGTH = 0x1a00,
	SCSI_ASC_MISCOMPARE = 0x1d00,
	SCSI_ASC_INVALID_OPCODE = 0x2000,
	SCSI_ASC_LBA_OUT_OF_RANGE = 0x2100,
	SCSI_ASC_INVALID_FIELD_IN_CDB = 0x2400,
	SCSI_ASC_NO_LUN = 0x2500,
	SCSI_ASC_INVALID_FIELD_IN_LIST = 0x2600,
	SCSI_ASC_WRITE_PROTECTED = 0x2700,
	SCSI_ASC_SPACE_ALLOCATION_FAILED = 0x2707,
	SCSI_ASC_SOFTWARE_WRITE_PROTECTED = 0x2702,
	SCSI_ASC_POWER_ON = 0x2900,
	SCSI_ASC_LUN_RESET = 0x2903,
	SCSI_ASC_MODE_CHANGED = 0x2a01,
	SCSI_ASC_CLEARED_BY_ANOTHER = 0x2f00,
	SCSI_ASC_SAVING_NOT_SUPPORTED = 0x3900,
	SCSI_ASC_LUNS_CHANGED = 0x3f0e,
	SCSI_ASC_INTERNAL_FAILURE = 0x4400,
	SCSI_ASC_CRC_ERROR = 0x4705,
};

struct scsi_sense {
	uint8_t key;
	uint16_t asc;		/* enum scsi_asc */
	bool has_info;
	uint64_t info;
	bool has_field;		/* the byte (and bit) that was wrong */
	bool field_in_cdb;
	uint16_t field;
	int8_t bit;		/* -1: the whole byte */
};
/* Encode as fixed or descriptor format (SPC-4, 4.5); bytes written. */
uint8_t scsi_sense_encode(uint8_t out[SCSI_SENSE_MAX], const struct scsi_sense *s,
			  bool descriptor);

/* ---- target, units, nexuses ---- */

TAILQ_HEAD(scsi_task_list, scsi_task);

struct scsi_unit {
	struct scsi_target *target;	/* borrowed */
	struct vdisk *disk;		/* owned reference */
	uint16_t lun;
	uint8_t block_shift;
	uint64_t blocks;
	bool read_only;
	bool leaving;			/* on its way out: not there for new commands */
	struct vdisk_limits limits;
	uint64_t id;			/* of designators and serial number */
	/* mode pages: what an initiator may change */
	bool write_cache;		/* WCE */
	bool descriptor_sense;		/* D_SENSE */
	bool software_protect;		/* SWP */
	struct scsi_task_list tasks;
};

struct scsi_tmf;
TAILQ_HEAD(scsi_tmf_list, scsi_tmf);

struct scsi_target {
	char *name;			/* owned: of the target device, for designators */
	struct scsi_unit *units[SCSI_MAX_LUNS];	/* owned */
	LIST_HEAD(scsi_nexus_list, scsi_nexus) nexuses;
	struct scsi_tmf_list tmfs;	/* those that wait */
	uint64_t serial;		/* of the last task */
};

struct scsi_nexus_ops {
	/*
	 * Stop this task.  If its disk request is in flight, finish it when that
	 * comes back; else scsi_end() it now.  No answer is sent.
	 */
	void (*abort)(struct scsi_task *task);
};

/* What a nexus may use of its target: a bit for each LUN.  The rest is not there for it. */
struct scsi_view {
	uint32_t visible[SCSI_MAX_LUNS / 32];
	uint32_t writable[SCSI_MAX_LUNS / 32];
};
#define SCSI_VIEW_ALL ((struct scsi_view) { \
	.visible = { [0 ... SCSI_MAX_LUNS / 32 - 1] = UINT32_MAX }, \
	.writable = { [0 ... SCSI_MAX_LUNS / 32 - 1] = UINT32_MAX }, })

static inline bool scsi_view_has(const uint32_t *luns, unsigned lun)
{
	return luns[lun / 32] >> lun % 32 & 1;
}

static inline void scsi_view_add(uint32_t *luns, unsigned lun)
{
	luns[lun / 32] |= 1u << lun % 32;
}

struct scsi_nexus {
	struct scsi_target *target;	/* borrowed */
	struct scsi_view view;		/* all of it, until scsi_nexus_set_view() */
	const struct scsi_nexus_ops *ops;
	LIST_ENTRY(scsi_nexus) link;
	unsigned attentions;		/* pending unit attentions, all units together */
	uint16_t attention[SCSI_MAX_LUNS][4];	/* enum scsi_asc, oldest first; 0: none */
};

struct scsi_target *scsi_target_new(const char *name);
/* No nexus may be left.  Closes the disks; the first error is the result. */
int scsi_target_free(struct scsi_target *target, struct vdisk_error *err);
/* Makes @disk the unit @lun; takes its own reference. */
int scsi_target_add(struct scsi_target *target, uint16_t lun, struct vdisk *disk,
		    bool read_only, struct vdisk_error *err);

/*
 * Take a unit away, in two steps: first it is there for no new command any more
 * and initiators are told; then, when a SCSI_LUN_RESET of it is done, it is
 * removed, and the reference to its disk is the caller's.
 */
void scsi_unit_leave(struct scsi_unit *unit);
struct vdisk *scsi_unit_remove(struct scsi_unit *unit);

void scsi_nexus_init(struct scsi_nexus *nexus, struct scsi_target *target,
		     const struct scsi_nexus_ops *ops);
/* None of its tasks may be left. */
void scsi_nexus_fini(struct scsi_nexus *nexus);

/* Change what the nexus may use; it is told if its list of LUNs is another one now. */
void scsi_nexus_set_view(struct scsi_nexus *nexus, const struct scsi_view *view);

/* The unit that an 8-byte LUN names; NULL if there is none that the nexus may see. */
struct scsi_unit *scsi_unit_find(const struct scsi_nexus *nexus, const uint8_t lun[8]);

/* ---- tasks ---- */

enum scsi_dir { SCSI_DIR_NONE, SCSI_DIR_IN, SCSI_DIR_OUT };

enum scsi_step { SCSI_IO, SCSI_DATA_IN, SCSI_DATA_OUT, SCSI_DONE };

struct scsi_task {
	/* set by the transport, before scsi_start() */
	struct scsi_nexus *nexus;
	struct pool *pool;
	uint8_t lun[8];
	uint8_t cdb[SCSI_CDB_MAX];
	uint32_t in_limit;	/* bytes that the initiator has room for */
	uint32_t out_limit;	/* bytes that it has for us */

	/* set by the device server, for the transport */
	uint8_t dir;		/* enum scsi_dir */
	bool last;		/* DATA_IN: the status goes with it */
	uint8_t status;		/* enum scsi_status */
	uint8_t sense_len;
	uint8_t sense[SCSI_SENSE_MAX];
	uint64_t length;	/* of the data phase as the CDB has it: for residuals */
	uint8_t *buf;
	uint64_t seg_offset;	/* in the data phase */
	uint32_t seg_len;
	struct vdisk_request io; /* ->user is the transport's */

	/* the device server's */
	const struct scsi_op *op;
	struct scsi_unit *unit;		/* NULL: no such unit */
	TAILQ_ENTRY(scsi_task) link;
	bool in_set;			/* linked in unit->tasks */
	bool aborted;
	uint64_t serial;
	uint8_t state;			/* of op->run */
	uint32_t buf_size;
	uint8_t *scratch;		/* second buffer, of buf_size */
	uint64_t lba;
	uint64_t n_blocks;
	uint64_t transfer;		/* bytes that will move: length, or less */
	uint64_t done;			/* bytes moved so far */
	struct iovec iov;
};

enum scsi_step scsi_start(struct scsi_task *task);
enum scsi_step scsi_step(struct scsi_task *task);
/* End a task with a sense that the transport found (bad data-out and the like). */
void scsi_fail(struct scsi_task *task, uint8_t key, uint16_t asc);
/* Out of the task set: nothing of it will touch the medium any more. */
void scsi_end(struct scsi_task *task);
/* scsi_end(), and give back the buffers.  Not while its disk request is in flight. */
void scsi_finish(struct scsi_task *task);

/* ---- task management (SAM-5, 7) ---- */

enum scsi_tmf_function {
	SCSI_ABORT_TASK,	/* one task */
	SCSI_ABORT_TASK_SET,	/* the nexus' tasks on the unit */
	SCSI_CLEAR_TASK_SET,	/* everyone's tasks on the unit */
	SCSI_LUN_RESET,
	SCSI_TARGET_RESET,	/* all units */
	SCSI_NEXUS_LOSS,	/* the nexus' tasks on all units */
};

struct scsi_tmf {
	/* the caller's */
	enum scsi_tmf_function function;
	struct scsi_nexus *nexus;
	struct scsi_unit *unit;		/* NULL where the function is not of one unit */
	struct scsi_task *task;		/* ABORT_TASK */
	void (*done)(struct scsi_tmf *tmf);	/* called once; may free it */
	/* the device server's */
	TAILQ_ENTRY(scsi_tmf) link;
	uint64_t serial;
};
/* Abort what the function covers; ->done() as soon as all of it has stopped. */
void scsi_tmf_start(struct scsi_tmf *tmf);

#endif
