/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * order.c - whose turn it is (SAM-5, 8.6), and who has blocks for itself
 *
 * Almost always nobody needs to be asked: unit->gates is 0.  It counts the tasks
 * that others may have to wait for: ORDERED ones, and exclusive ones, which must
 * be alone on their blocks from their first disk request to their end.
 *
 * A task that has to wait is parked, before its first step, when the first of its
 * data has come, or with its disk request prepared; each end of a task or of a request looks at the parked
 * ones again.  The rules, for task T and another one U of the same unit:
 *
 *   1. T is ORDERED: it waits for older U of its own nexus, and for disk requests
 *      of others that are in flight.
 *   2. U is ORDERED, older, of T's nexus: T waits, unless T is HEAD OF QUEUE.
 *   3. T or U is exclusive and their blocks overlap: T waits for U's request in
 *      flight, for a U that has its blocks, and for an older U that is parked for them.
 *
 * Tasks wait for older ones, or for those that hold their blocks, which wait for
 * nobody: so there is no circle.  And they wait for requests in flight, or for
 * their own initiator, but never for data that another one has yet to send.
 */
#include "target/scsi/op.h"

void scsi_gate(struct scsi_task *t)
{
	if (t->gate)
		return;
	t->gate = true;
	t->unit->gates++;
}

/* The bytes that a task's next, or present, disk request is about; false: none of them. */
static bool io_range(const struct scsi_task *t, uint64_t *from, uint64_t *to)
{
	if (t->exclusive) {
		*from = scsi_lba_bytes(t);
		*to = *from + scsi_range_bytes(t);
		return true;
	}
	*from = t->io.offset;
	*to = t->io.offset + t->io.length;
	return t->io.op != VDISK_OP_FLUSH && t->io.op != VDISK_OP_CALL;
}

static bool overlap(const struct scsi_task *a, const struct scsi_task *b)
{
	uint64_t a_from, a_to, b_from, b_to;

	return io_range(a, &a_from, &a_to) && io_range(b, &b_from, &b_to) &&
	       a_from < b_to && b_from < a_to;
}

/* Rules 1 and 2, before the task has started */
static bool waits_its_turn(const struct scsi_task *t, const struct scsi_task *older)
{
	if (t->attribute == SCSI_ORDERED && (older->nexus == t->nexus || older->in_io))
		return true;
	return older->attribute == SCSI_ORDERED && older->nexus == t->nexus &&
	       t->attribute != SCSI_HEAD_OF_QUEUE;
}

/* Rule 3, for a task that is about to start a disk request */
static bool waits_for_blocks(const struct scsi_task *t, const struct scsi_task *u, bool older)
{
	if (!t->exclusive && !u->exclusive)
		return false;
	if (!u->in_io && !u->holds &&
	    !(u->exclusive && older && u->parked == SCSI_PARKED_IO))
		return false;
	return overlap(t, u);
}

bool scsi_may_go(struct scsi_task *t)
{
	bool older = true, io = t->parked == SCSI_PARKED_IO || t->parked == SCSI_RUNS;
	const struct scsi_task *u;

	if (t->holds)
		return true;
	TAILQ_FOREACH(u, &t->unit->tasks, link) {
		if (u == t) {
			older = false;
			continue;
		}
		if (older && !t->started && waits_its_turn(t, u))
			return false;
		if (io && waits_for_blocks(t, u, older))
			return false;
	}
	t->started = true;
	t->holds = io && t->exclusive;
	return true;
}

enum scsi_step scsi_wait(struct scsi_task *t, uint8_t next_state)
{
	t->state = next_state;
	t->parked = SCSI_PARKED_HANDLER;
	return SCSI_WAIT;
}

void scsi_resume(struct scsi_task *t)
{
	t->nexus->ops->resume(t);
}

static struct scsi_task *find_next(struct scsi_unit *u)
{
	struct scsi_task *t;

	TAILQ_FOREACH(t, &u->tasks, link)
		if ((t->parked == SCSI_PARKED_START || t->parked == SCSI_PARKED_DATA ||
		     t->parked == SCSI_PARKED_IO) &&
		    !t->aborted && scsi_may_go(t))
			return t;
	return NULL;
}

/* What is let go may end at once and wake others: that is done here, in a loop. */
void scsi_wake(struct scsi_unit *u)
{
	struct scsi_task *t;

	u->wake_again = true;
	if (u->waking)
		return;
	u->waking = true;
	while (u->wake_again) {
		u->wake_again = false;
		while ((t = find_next(u)))
			t->nexus->ops->resume(t);
	}
	u->waking = false;
}
