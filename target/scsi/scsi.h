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
 *	SCSI_DATA_IN	send task->seg_len bytes of task->buf (or of task->file); if
 *			task->last, with the status, and the command is over; else
 *			scsi_step() as soon as task->buf may be overwritten
 *	SCSI_WAIT	nothing: the command waits for others; its nexus' resume()
 *			will be called once, then scsi_step()
 *	SCSI_DONE	answer with status and sense: the command is over
 *	}
 *	scsi_finish(task)	when its buffers are needed no more
 *
 * The device server never blocks (what may block is a VDISK_OP_CALL), moves data
 * in buffers of the pool that it is given only, and knows nothing of the wire;
 * large transfers go through in segments of at most SCSI_SEGMENT bytes, so a
 * task's memory is bounded whatever the CDB asks for.  Disk requests point into
 * the same buffers as the transport's scatter lists: nothing is copied in between.
 *
 * Threads: a target, with its units, nexuses and tasks, belongs to one thread.
 *
 * Order (SAM-5, 8.6; order.c).  Commands run as they come, all at once, but for
 * two kinds that have to wait their turn before they touch the medium: those with
 * the ORDERED attribute, for older ones of their nexus, and what must be alone on
 * its blocks (COMPARE AND WRITE, ORWRITE, WRITE ATOMIC), for disk requests on the
 * same blocks.  Nobody waits for what another initiator has yet to send.
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
#define SCSI_SERIAL_MAX	32u
#define SCSI_THRESHOLD_SHIFT 11	/* of thin-provisioning thresholds, in blocks */

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
	SCSI_COPY_ABORTED = 0xa,
	SCSI_ABORTED_COMMAND = 0xb,
	SCSI_MISCOMPARE = 0xe,
};

/* additional sense code and qualifier in one number */
enum scsi_asc {
	SCSI_ASC_NONE = 0x0000,
	SCSI_ASC_STANDBY = 0x040b,
	SCSI_ASC_UNAVAILABLE = 0x040c,
	SCSI_ASC_SANITIZE_IN_PROGRESS = 0x041b,
	SCSI_ASC_WRITE_ERROR = 0x0c00,
	SCSI_ASC_UNEXPECTED_UNSOLICITED_DATA = 0x0c0c,
	SCSI_ASC_NOT_ENOUGH_UNSOLICITED_DATA = 0x0c0d,
	SCSI_ASC_COPY_TARGET_NOT_REACHABLE = 0x0d02,
	SCSI_ASC_UNRECOVERED_READ = 0x1100,
	SCSI_ASC_PARAMETER_LIST_LENGTH = 0x1a00,
	SCSI_ASC_DEFECT_LIST_NOT_FOUND = 0x1c00,
	SCSI_ASC_MISCOMPARE = 0x1d00,
	SCSI_ASC_INVALID_OPCODE = 0x2000,
	SCSI_ASC_LBA_OUT_OF_RANGE = 0x2100,
	SCSI_ASC_INVALID_FIELD_IN_CDB = 0x2400,
	SCSI_ASC_NO_LUN = 0x2500,
	SCSI_ASC_INVALID_FIELD_IN_LIST = 0x2600,
	SCSI_ASC_INVALID_RELEASE = 0x2604,
	SCSI_ASC_TOO_MANY_TARGET_DESCRIPTORS = 0x2606,
	SCSI_ASC_UNSUPPORTED_TARGET_DESCRIPTOR = 0x2607,
	SCSI_ASC_TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608,
	SCSI_ASC_UNSUPPORTED_SEGMENT_DESCRIPTOR = 0x2609,
	SCSI_ASC_INLINE_DATA_LENGTH = 0x260b,
	SCSI_ASC_WRITE_PROTECTED = 0x2700,
	SCSI_ASC_SOFTWARE_WRITE_PROTECTED = 0x2702,
	SCSI_ASC_SPACE_ALLOCATION_FAILED = 0x2707,
	SCSI_ASC_MEDIUM_CHANGED = 0x2800,
	SCSI_ASC_POWER_ON = 0x2900,
	SCSI_ASC_LUN_RESET = 0x2903,
	SCSI_ASC_MODE_CHANGED = 0x2a01,
	SCSI_ASC_RESERVATIONS_PREEMPTED = 0x2a03,
	SCSI_ASC_RESERVATIONS_RELEASED = 0x2a04,
	SCSI_ASC_REGISTRATIONS_PREEMPTED = 0x2a05,
	SCSI_ASC_ACCESS_STATE_CHANGED = 0x2a06,
	SCSI_ASC_CAPACITY_CHANGED = 0x2a09,
	SCSI_ASC_CLEARED_BY_ANOTHER = 0x2f00,
	SCSI_ASC_SANITIZE_FAILED = 0x3103,
	SCSI_ASC_THRESHOLD_REACHED = 0x3807,
	SCSI_ASC_SAVING_NOT_SUPPORTED = 0x3900,
	SCSI_ASC_NO_MEDIUM = 0x3a00,
	SCSI_ASC_LUNS_CHANGED = 0x3f0e,
	SCSI_ASC_INTERNAL_FAILURE = 0x4400,
	SCSI_ASC_CRC_ERROR = 0x4705,
	SCSI_ASC_REMOVAL_PREVENTED = 0x5302,
	SCSI_ASC_NO_REGISTRATION_RESOURCES = 0x5504,
};

struct scsi_sense {
	uint8_t key;
	uint16_t asc;		/* enum scsi_asc */
	bool has_info;
	uint64_t info;
	bool has_progress;	/* of what is going on, in 65536ths */
	uint16_t progress;
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

/*
 * An initiator port, as its TransportID (SPC-4, 7.6.4) says it: protocol and
 * format, length, and for iSCSI the name in small letters.
 */
struct scsi_port {
	uint16_t len;
	uint8_t id[260];
};
/* From what follows the header in an iSCSI TransportID: "NAME,i,0xISID". */
int scsi_port_iscsi(struct scsi_port *out, const char *text);

/* A persistent registration: an initiator port's, through a target port. */
struct scsi_registrant {
	uint64_t key;
	uint16_t target_port;		/* 0: all of them */
	struct scsi_port port;
};

#define SCSI_MAX_REGISTRANTS	128u

/* Persistent reservations (SPC-4, 5.13; pr.c) */
struct scsi_pr {
	uint32_t generation;
	uint8_t type;			/* enum scsi_pr_type, 0: no reservation */
	bool aptpl;			/* kept when the power goes */
	uint16_t holder;		/* in @reg; not for "all registrants" types */
	uint16_t n;
	struct scsi_registrant *reg;	/* owned */
};

enum scsi_unit_type {
	SCSI_DISK = 0x00,
	SCSI_CDROM = 0x05,
};

struct scsi_tmf;
TAILQ_HEAD(scsi_tmf_list, scsi_tmf);

struct scsi_tmf {
	/* the caller's */
	enum scsi_tmf_function {	/* SAM-5, 7 */
		SCSI_ABORT_TASK,	/* one task */
		SCSI_ABORT_TASK_SET,	/* the nexus' tasks on the unit */
		SCSI_CLEAR_TASK_SET,	/* everyone's tasks on the unit */
		SCSI_LUN_RESET,
		SCSI_TARGET_RESET,	/* all units */
		SCSI_NEXUS_LOSS,	/* the nexus' tasks on all units */
		SCSI_ABORT_PREEMPTED,	/* of PERSISTENT RESERVE OUT: the unit's marked tasks */
	} function;
	struct scsi_nexus *nexus;
	struct scsi_unit *unit;		/* NULL where the function is not of one unit */
	struct scsi_task *task;		/* ABORT_TASK */
	void (*done)(struct scsi_tmf *tmf);	/* called once; may free it */
	/* the device server's */
	TAILQ_ENTRY(scsi_tmf) link;
	uint64_t serial;
};

/* Soft thresholds of a thin unit (threshold.c), in sets of 1 << SCSI_THRESHOLD_SHIFT blocks */
enum { SCSI_AVAILABLE, SCSI_USED, SCSI_THRESHOLDS };
struct scsi_thresholds {
	bool report;			/* LBPERE */
	struct { bool enabled; uint32_t count; } at[SCSI_THRESHOLDS];
};

struct scsi_unit {
	struct scsi_target *target;	/* borrowed */
	struct vdisk *disk;		/* owned reference */
	uint16_t lun;
	uint8_t type;			/* enum scsi_unit_type */
	uint8_t block_shift;
	uint64_t blocks;
	bool read_only;
	bool leaving;			/* on its way out: not there for new commands */
	bool removable;
	bool loaded;			/* the medium is in and spinning */
	uint32_t physical;		/* what to say of physical blocks; 0: what the disk says */
	struct vdisk_limits limits;
	uint64_t id;			/* of designators and serial number */
	char serial[SCSI_SERIAL_MAX + 1];
	/* mode pages: what an initiator may change */
	bool write_cache;		/* WCE */
	bool descriptor_sense;		/* D_SENSE */
	bool software_protect;		/* SWP */
	struct scsi_thresholds thresholds;

	struct scsi_task_list tasks;
	unsigned gates;			/* tasks for which others may have to wait */
	bool waking, wake_again;

	const struct scsi_nexus *reserved_by;	/* RESERVE; NULL: nobody */
	struct scsi_pr pr;
	struct scsi_task *pr_task;	/* the PERSISTENT RESERVE OUT under way, or NULL */
	struct scsi_tmf pr_tmf;		/* what it aborts */
	bool pr_aborting;
	int state_fd;			/* owned: where reservations are kept, -1: nowhere */
	uint64_t state_seq;		/* of the newest copy in it */

	bool whole_blocks;		/* someone relies on commands that nobody sees half
					 * done: no reading from the file (sbc.c) */
	struct scsi_sanitize *sanitize;	/* owned: under way, or NULL */
	bool sanitize_failed;
	bool sanitize_locked;		/* and only another SANITIZE helps */

	uint8_t threshold_percent;	/* of the unit that is left: the default; 0: none */
	bool watching;			/* some threshold is in force */
	bool reached[SCSI_THRESHOLDS];	/* as it was when it was last counted */
	uint8_t reached_last;		/* which of them the unit attention is about */
	uint64_t unwatched;		/* bytes written since then */
	struct scsi_watch *watch;	/* the count under way, or NULL */
};

struct scsi_target_ops {
	/* Start a disk request of the target's own; scsi_background_done() ends it. */
	void (*submit)(struct scsi_target *target, struct vdisk_request *req);
};

#define SCSI_MAX_PORTS	16u

/* ALUA (SPC-4, 5.15): each target port is a group of its own with the same number. */
enum scsi_access_state {
	SCSI_OPTIMIZED = 0x0,
	SCSI_NON_OPTIMIZED = 0x1,
	SCSI_STANDBY = 0x2,
	SCSI_UNAVAILABLE = 0x3,
};

struct scsi_copy_status {	/* of the last EXTENDED COPY of a nexus */
	uint8_t list_id;
	uint8_t status;		/* 0: under way, 1: done, 2: failed */
	uint16_t segments;
	uint64_t bytes;
	uint8_t sense_len;
	uint8_t sense[SCSI_SENSE_MAX];
	bool valid;
};

struct scsi_target {
	char *name;			/* owned: of the target device, for designators */
	const struct scsi_target_ops *ops;	/* NULL: nothing runs in the background */
	void *owner;			/* the transport's */
	struct scsi_unit *units[SCSI_MAX_LUNS];	/* owned */
	LIST_HEAD(scsi_nexus_list, scsi_nexus) nexuses;
	struct scsi_tmf_list tmfs;	/* those that wait */
	uint64_t serial;		/* of the last task */
	struct {
		uint16_t id;		/* relative target port identifier */
		uint8_t access;		/* enum scsi_access_state */
	} ports[SCSI_MAX_PORTS];
	uint16_t n_ports;
	uint8_t access_why;		/* 0: never changed, 1: by SET TARGET PORT GROUPS,
					 * 2: by ourselves */
	unsigned background;		/* requests of our own in flight */
	uint64_t sanitize_rate;		/* bytes a second at most; 0: as fast as it goes */
};

struct scsi_nexus_ops {
	/*
	 * Stop this task.  If its disk request is in flight, finish it when that
	 * comes back; else scsi_end() it now.  No answer is sent.
	 */
	void (*abort)(struct scsi_task *task);
	/* The task waited (SCSI_WAIT): scsi_step() it. */
	void (*resume)(struct scsi_task *task);
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
	struct scsi_port port;		/* the initiator's */
	uint16_t target_port;		/* relative target port identifier */
	bool prevents[SCSI_MAX_LUNS];	/* PREVENT ALLOW MEDIUM REMOVAL */
	struct scsi_copy_status copy;
	unsigned attentions;		/* pending unit attentions, all units together */
	uint16_t attention[SCSI_MAX_LUNS][4];	/* enum scsi_asc, oldest first; 0: none */
};

struct scsi_target *scsi_target_new(const char *name);
/* No nexus may be left.  Closes the disks; the first error is the result. */
int scsi_target_free(struct scsi_target *target, struct vdisk_error *err);
/*
 * Stop what runs in the background; call it until it returns true, letting
 * requests come back in between, before the queue of target->ops goes.
 */
bool scsi_target_quiesce(struct scsi_target *target);

/*
 * This target is reached through a port @id > 0; a nexus that comes through one that
 * was not there before adds it.  False: there are too many (it works all the same).
 */
bool scsi_target_add_port(struct scsi_target *target, uint16_t id);

/*
 * Say how good the way through this port is (implicit ALUA); initiators are told if
 * it is another one now.  False: there are too many ports.
 */
bool scsi_target_set_access(struct scsi_target *target, uint16_t port,
			    enum scsi_access_state state);

struct scsi_unit_opts {
	bool read_only;
	bool removable;
	enum scsi_unit_type type;	/* SCSI_CDROM: implies both of the above */
	uint32_t physical_size;		/* of blocks, for initiators to align to; 0: the disk's */
	const char *serial;		/* the unit's serial number; NULL: made of target and LUN */
	uint8_t threshold_percent;	/* tell initiators when no more of it is left; 0: never */
};
/* Makes @disk the unit @lun; takes its own reference.  @opts may be NULL. */
int scsi_target_add_unit(struct scsi_target *target, uint16_t lun, struct vdisk *disk,
			 const struct scsi_unit_opts *opts, struct vdisk_error *err);
int scsi_target_add(struct scsi_target *target, uint16_t lun, struct vdisk *disk,
		    bool read_only, struct vdisk_error *err);
/*
 * Where this unit keeps its persistent reservations: an open file of its own,
 * empty at first.  Takes @fd on success and loads what is in it.  Not while a
 * nexus uses the unit.  -EUCLEAN: the file is something else or was damaged.
 */
int scsi_unit_restore(struct scsi_unit *unit, int fd, struct vdisk_error *err);
/* Tell initiators when no more than @percent of the unit is left; 0: do not. */
void scsi_unit_set_threshold(struct scsi_unit *unit, uint8_t percent);
/* The disk's size changed: tells everyone. */
void scsi_unit_resized(struct scsi_unit *unit);
/* Does this disk look like a CD: an ISO 9660 volume?  Reads it; blocks. */
bool scsi_looks_like_cdrom(struct vdisk *disk);

/*
 * Take a unit away, in two steps: first it is there for no new command any more
 * and initiators are told; then, when a SCSI_LUN_RESET of it is done, it is
 * removed, and the reference to its disk is the caller's.
 */
void scsi_unit_leave(struct scsi_unit *unit);
struct vdisk *scsi_unit_remove(struct scsi_unit *unit);

/*
 * @port (copied) may be NULL for an initiator that has no name; it cannot
 * register then.  @target_port: 1, 2, ...; 0 for one that is not an initiator.
 */
void scsi_nexus_init(struct scsi_nexus *nexus, struct scsi_target *target,
		     const struct scsi_nexus_ops *ops, const struct scsi_port *port,
		     uint16_t target_port);
/* None of its tasks may be left. */
void scsi_nexus_fini(struct scsi_nexus *nexus);

/* Change what the nexus may use; it is told if its list of LUNs is another one now. */
void scsi_nexus_set_view(struct scsi_nexus *nexus, const struct scsi_view *view);

/* A request that target->ops->submit() started came back. */
void scsi_background_done(struct vdisk_request *req);

/* The unit that an 8-byte LUN names; NULL if there is none that the nexus may see. */
struct scsi_unit *scsi_unit_find(const struct scsi_nexus *nexus, const uint8_t lun[8]);

/* ---- tasks ---- */

enum scsi_dir { SCSI_DIR_NONE, SCSI_DIR_IN, SCSI_DIR_OUT };

enum scsi_step { SCSI_IO, SCSI_DATA_IN, SCSI_DATA_OUT, SCSI_DONE, SCSI_WAIT };

/* SAM-5, 8.6 (without ACA) */
enum scsi_attribute { SCSI_SIMPLE, SCSI_ORDERED, SCSI_HEAD_OF_QUEUE };

struct scsi_task {
	/* set by the transport, before scsi_start() */
	struct scsi_nexus *nexus;
	struct pool *pool;
	uint8_t lun[8];
	uint8_t cdb[SCSI_CDB_MAX];
	uint32_t in_limit;	/* bytes that the initiator has room for */
	uint32_t out_limit;	/* bytes that it has for us */
	uint8_t attribute;	/* enum scsi_attribute */
	bool sends_files;	/* DATA_IN may be bytes of a file: ->file */

	/* set by the device server, for the transport */
	uint8_t dir;		/* enum scsi_dir */
	bool last;		/* DATA_IN: the status goes with it */
	uint8_t status;		/* enum scsi_status */
	uint8_t sense_len;
	uint8_t sense[SCSI_SENSE_MAX];
	uint64_t length;	/* of the data phase as the CDB has it: for residuals */
	uint8_t *buf;
	struct vdisk_sendable file; /* DATA_IN without ->buf: send these instead */
	uint64_t seg_offset;	/* in the data phase */
	uint32_t seg_len;
	struct vdisk_request io; /* ->user is the transport's */

	/* the device server's */
	const struct scsi_op *op;
	struct scsi_unit *unit;		/* NULL: no such unit */
	TAILQ_ENTRY(scsi_task) link;
	bool in_set;			/* linked in unit->tasks */
	bool aborted;
	bool in_io;			/* its disk request is in flight */
	bool started;			/* its turn came */
	bool gate;			/* counted in unit->gates */
	bool exclusive;			/* wants its blocks for itself, */
	bool holds;			/* and has them */
	bool preempted;			/* PREEMPT AND ABORT will end it */
	uint8_t parked;			/* why it waits (order.c) */
	uint64_t serial;
	void (*at_end)(struct scsi_task *task);	/* in scsi_end(); no request is in flight */
	void *priv;			/* at_end frees it */
	uint8_t state;			/* of op->run */
	uint32_t early;			/* bytes of the segment that the disk has already */
	bool early_over;		/* the rest is written together */
	struct vdisk *sent_from;	/* owned reference: ->file is of this disk */
	uint32_t buf_size;
	uint8_t *scratch;		/* second buffer, of buf_size */
	uint64_t lba;
	uint64_t n_blocks;
	uint64_t transfer;		/* bytes that will move: length, or less */
	uint64_t done;			/* bytes moved so far */
	struct iovec iov[2];
};

/*
 * SCSI_DATA_OUT goes on: @have bytes of the segment are in task->buf.  If true, the
 * transport may write @len bytes from @from of it now (vdisk_write_now(), @offset on
 * task->io.disk), instead of leaving all to the disk request that follows; then it
 * calls scsi_early_done() with what that said.  Until then the task counts as having
 * a request in flight.
 */
struct scsi_early {
	const uint8_t *from;
	uint32_t len;
	uint64_t offset;
};
bool scsi_early(struct scsi_task *task, uint32_t have, struct scsi_early *out);
void scsi_early_done(struct scsi_task *task, const struct scsi_early *early, int result);

enum scsi_step scsi_start(struct scsi_task *task);
enum scsi_step scsi_step(struct scsi_task *task);
/* End a task with a sense that the transport found (bad data-out and the like). */
void scsi_fail(struct scsi_task *task, uint8_t key, uint16_t asc);
/* Out of the task set: nothing of it will touch the medium any more. */
void scsi_end(struct scsi_task *task);
/* scsi_end(), and give back the buffers.  Not while its disk request is in flight. */
void scsi_finish(struct scsi_task *task);

/* ---- task management (SAM-5, 7) ---- */

/* Abort what the function covers; ->done() as soon as all of it has stopped. */
void scsi_tmf_start(struct scsi_tmf *tmf);

#endif
