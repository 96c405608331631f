/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * server.c - units, nexuses, tasks and task management; the checks that every
 * command goes through before its handler sees it
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include <isa-l/crc64.h>

#include "target/log.h"
#include "target/reactor/pool.h"
#include "target/scsi/op.h"

/* ---- target and units ---- */

struct scsi_target *scsi_target_new(const char *name)
{
	struct scsi_target *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->name = strdup(name);
	if (!t->name) {
		free(t);
		return NULL;
	}
	LIST_INIT(&t->nexuses);
	TAILQ_INIT(&t->tmfs);
	return t;
}

int scsi_target_free(struct scsi_target *t, struct vdisk_error *err)
{
	int result = 0;

	if (!t)
		return 0;
	assert(LIST_EMPTY(&t->nexuses));
	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++) {
		struct scsi_unit *u = t->units[i];
		int r;

		if (!u)
			continue;
		r = u->read_only ? 0 : vdisk_flush(u->disk);
		if (r < 0 && result == 0)
			result = fail(err, -r, "%s: flush: %s", vdisk_name(u->disk), strerror(-r));
		r = vdisk_close(u->disk, result ? NULL : err);
		if (r < 0 && result == 0)
			result = r;
		free(u);
	}
	free(t->name);
	free(t);
	return result;
}

/* The same for the same target name and LUN, whatever else changes. */
static uint64_t unit_id(const char *name, uint16_t lun)
{
	char text[300];
	int n = snprintf(text, sizeof(text), "%s,%u", name, lun);

	return crc64_ecma_refl(0, (const unsigned char *)text, (uint64_t)n);
}

int scsi_target_add(struct scsi_target *t, uint16_t lun, struct vdisk *disk,
		    bool read_only, struct vdisk_error *err)
{
	struct scsi_unit *u;

	if (lun >= SCSI_MAX_LUNS || t->units[lun])
		return fail(err, EINVAL, "LUN %u: not free", lun);
	if (vdisk_size(disk) < 4096)
		return fail(err, EINVAL, "%s: too small to be a disk: %llu bytes",
			    vdisk_name(disk), (unsigned long long)vdisk_size(disk));
	u = calloc(1, sizeof(*u));
	if (!u)
		return fail(err, ENOMEM, "out of memory");
	u->target = t;
	u->disk = vdisk_ref(disk);
	u->lun = lun;
	u->read_only = read_only || !vdisk_writable(disk);
	vdisk_get_limits(disk, &u->limits);
	if (u->limits.block_size != 4096)
		u->limits.block_size = 512;
	u->block_shift = u->limits.block_size == 4096 ? 12 : 9;
	u->blocks = vdisk_size(disk) >> u->block_shift;
	u->id = unit_id(t->name, lun);
	u->write_cache = true;
	TAILQ_INIT(&u->tasks);
	t->units[lun] = u;
	return 0;
}

/* SAM-5, 4.7: peripheral device and flat space addressing, one level */
struct scsi_unit *scsi_unit_find(const struct scsi_nexus *nexus, const uint8_t lun[8])
{
	unsigned n;

	for (int i = 2; i < 8; i++)
		if (lun[i])
			return NULL;
	switch (lun[0] >> 6) {
	case 0:
		if (lun[0])
			return NULL;
		n = lun[1];
		break;
	case 1:
		n = (lun[0] & 0x3fu) << 8 | lun[1];
		break;
	default:
		return NULL;
	}
	if (n >= SCSI_MAX_LUNS || !scsi_view_has(nexus->view.visible, n))
		return NULL;
	return nexus->target->units[n] && !nexus->target->units[n]->leaving ?
	       nexus->target->units[n] : NULL;
}

/* ---- nexuses and unit attentions ---- */

static void attention_add(struct scsi_nexus *n, uint16_t lun, uint16_t asc)
{
	uint16_t *queue = n->attention[lun];

	for (unsigned i = 0; i < ARRAY_SIZE(n->attention[0]); i++) {
		if (queue[i] == asc)
			return;
		if (queue[i] == 0) {
			queue[i] = asc;
			n->attentions++;
			return;
		}
	}
	/* full: what is pending already makes the initiator look again */
}

uint16_t scsi_attention_take(struct scsi_nexus *n, uint16_t lun)
{
	uint16_t *queue = n->attention[lun];
	uint16_t asc = queue[0];
	size_t depth = ARRAY_SIZE(n->attention[0]);

	if (asc == 0)
		return 0;
	memmove(queue, queue + 1, (depth - 1) * sizeof(queue[0]));
	queue[depth - 1] = 0;
	n->attentions--;
	return asc;
}

void scsi_attention_all(struct scsi_unit *u, const struct scsi_nexus *except, uint16_t asc)
{
	struct scsi_nexus *n;

	LIST_FOREACH(n, &u->target->nexuses, link)
		if (n != except)
			attention_add(n, u->lun, asc);
}

void scsi_nexus_init(struct scsi_nexus *n, struct scsi_target *t, const struct scsi_nexus_ops *ops)
{
	*n = (struct scsi_nexus) { .target = t, .ops = ops, .view = SCSI_VIEW_ALL };
	LIST_INSERT_HEAD(&t->nexuses, n, link);
	for (uint16_t lun = 0; lun < SCSI_MAX_LUNS; lun++)
		if (t->units[lun])
			attention_add(n, lun, SCSI_ASC_POWER_ON);
}

void scsi_nexus_set_view(struct scsi_nexus *n, const struct scsi_view *view)
{
	bool other = memcmp(view->visible, n->view.visible, sizeof(view->visible)) != 0;

	n->view = *view;
	/* SPC-4, 5.14: reported by any unit that is still there */
	for (uint16_t lun = 0; other && lun < SCSI_MAX_LUNS; lun++)
		if (n->target->units[lun] && scsi_view_has(view->visible, lun))
			attention_add(n, lun, SCSI_ASC_LUNS_CHANGED);
}

void scsi_nexus_fini(struct scsi_nexus *n)
{
	struct scsi_tmf *tmf, *next;

	LIST_REMOVE(n, link);
	/* nobody waits any more for what it asked to be aborted elsewhere */
	for (tmf = TAILQ_FIRST(&n->target->tmfs); tmf; tmf = next) {
		next = TAILQ_NEXT(tmf, link);
		if (tmf->nexus != n)
			continue;
		TAILQ_REMOVE(&n->target->tmfs, tmf, link);
		tmf->done(tmf);
	}
}

/* ---- what handlers use ---- */

enum scsi_step scsi_good(struct scsi_task *t)
{
	t->status = SCSI_GOOD;
	return SCSI_DONE;
}

static enum scsi_step check(struct scsi_task *t, const struct scsi_sense *s)
{
	t->status = SCSI_CHECK_CONDITION;
	t->sense_len = scsi_sense_encode(t->sense, s, t->unit && t->unit->descriptor_sense);
	return SCSI_DONE;
}

enum scsi_step scsi_check(struct scsi_task *t, uint8_t key, uint16_t asc)
{
	return check(t, &(struct scsi_sense) { .key = key, .asc = asc });
}

enum scsi_step scsi_check_info(struct scsi_task *t, uint8_t key, uint16_t asc, uint64_t info)
{
	return check(t, &(struct scsi_sense) {
		.key = key, .asc = asc, .has_info = true, .info = info,
	});
}

enum scsi_step scsi_bad_cdb(struct scsi_task *t, uint16_t byte, int8_t bit)
{
	return check(t, &(struct scsi_sense) {
		.key = SCSI_ILLEGAL_REQUEST, .asc = SCSI_ASC_INVALID_FIELD_IN_CDB,
		.has_field = true, .field_in_cdb = true, .field = byte, .bit = bit,
	});
}

enum scsi_step scsi_bad_list(struct scsi_task *t, uint16_t byte)
{
	return check(t, &(struct scsi_sense) {
		.key = SCSI_ILLEGAL_REQUEST, .asc = SCSI_ASC_INVALID_FIELD_IN_LIST,
		.has_field = true, .field = byte, .bit = -1,
	});
}

bool scsi_get_buf(struct scsi_task *t, uint32_t size)
{
	if (t->buf)
		return size <= t->buf_size;
	t->buf = pool_get(t->pool, size);
	t->buf_size = size;
	return t->buf;
}

enum scsi_step scsi_no_buf(struct scsi_task *t)
{
	t->status = SCSI_TASK_SET_FULL;
	return SCSI_DONE;
}

enum scsi_step scsi_reply(struct scsi_task *t, uint32_t len, uint32_t alloc)
{
	t->dir = SCSI_DIR_IN;
	t->length = MIN(len, alloc);
	t->seg_offset = 0;
	t->seg_len = MIN((uint32_t)t->length, t->in_limit);
	t->status = SCSI_GOOD;
	if (t->seg_len == 0)
		return SCSI_DONE;
	t->last = true;
	return SCSI_DATA_IN;
}

enum scsi_step scsi_want_list(struct scsi_task *t, uint32_t len, uint8_t next_state)
{
	t->dir = SCSI_DIR_OUT;
	t->length = len;
	t->transfer = MIN(len, t->out_limit);
	t->state = next_state;
	if (t->transfer == 0)
		return t->op->run(t);
	if (!scsi_get_buf(t, (uint32_t)t->transfer))
		return scsi_no_buf(t);
	t->seg_offset = 0;
	t->seg_len = (uint32_t)t->transfer;
	return SCSI_DATA_OUT;
}

/* ---- a command's way to its handler ---- */

static void decode_lba(struct scsi_task *t)
{
	const uint8_t *c = t->cdb;

	switch (t->op->lba) {
	case SCSI_LBA_6:
		t->lba = load_be24(c + 1) & 0x1fffff;
		t->n_blocks = c[4] ? c[4] : 256;
		break;
	case SCSI_LBA_10:
		t->lba = load_be32(c + 2);
		t->n_blocks = load_be16(c + 7);
		break;
	case SCSI_LBA_12:
		t->lba = load_be32(c + 2);
		t->n_blocks = load_be32(c + 6);
		break;
	case SCSI_LBA_16:
		t->lba = load_be64(c + 2);
		t->n_blocks = load_be32(c + 10);
		break;
	}
}

/* 0, or the step that ends the command */
static bool lba_ok(struct scsi_task *t)
{
	if (t->op->lba == SCSI_LBA_NONE)
		return true;
	decode_lba(t);
	if (!vd_in_range(t->lba, t->n_blocks, t->unit->blocks))
		return false;
	if (t->n_blocks == 0 && (t->op->flags & SCSI_OP_TO_END))
		t->n_blocks = t->unit->blocks - t->lba;
	return true;
}

/* The first bit that is set although the table does not allow it; false: none. */
static bool reserved_bit(const struct scsi_task *t, uint16_t *byte, int8_t *bit)
{
	unsigned len = scsi_cdb_len(t->op->opcode);

	for (unsigned i = 1; i < len; i++) {
		uint8_t wrong = (uint8_t)(t->cdb[i] & ~t->op->usage[i]);

		if (!wrong)
			continue;
		*byte = (uint16_t)i;
		*bit = (int8_t)(31 - __builtin_clz(wrong));
		return true;
	}
	return false;
}

static enum scsi_step write_protected(struct scsi_task *t)
{
	return scsi_check(t, SCSI_DATA_PROTECT, scsi_read_only(t) ?
			  SCSI_ASC_WRITE_PROTECTED : SCSI_ASC_SOFTWARE_WRITE_PROTECTED);
}

static enum scsi_step dispatch(struct scsi_task *t)
{
	bool has_actions;
	uint16_t asc, byte;
	int8_t bit;

	t->op = scsi_op_find(t->cdb[0], t->cdb[1] & 0x1f);
	if (!t->unit && !(t->op && t->op->flags & SCSI_OP_NO_UNIT))
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_NO_LUN);
	if (t->unit && t->nexus->attentions &&
	    !(t->op && t->op->flags & SCSI_OP_PAST_ATTENTION)) {
		asc = scsi_attention_take(t->nexus, t->unit->lun);
		if (asc)
			return scsi_check(t, SCSI_UNIT_ATTENTION, asc);
	}
	if (!t->op && scsi_opcode_known(t->cdb[0], &has_actions) && has_actions)
		return scsi_bad_cdb(t, 1, 4);
	if (!t->op)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_OPCODE);
	if (reserved_bit(t, &byte, &bit))
		return scsi_bad_cdb(t, byte, bit);
	if (!t->unit)
		return t->op->run(t);	/* nothing to protect, and no LBA */
	if (t->op->flags & SCSI_OP_WRITES && (scsi_read_only(t) || t->unit->software_protect))
		return write_protected(t);
	if (!lba_ok(t))
		return scsi_check_info(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE, t->lba);
	return t->op->run(t);
}

static enum scsi_step stepped(struct scsi_task *t, enum scsi_step step)
{
	if (step == SCSI_DONE || (step == SCSI_DATA_IN && t->last))
		scsi_end(t);		/* invariant 1 */
	return step;
}

enum scsi_step scsi_start(struct scsi_task *t)
{
	t->dir = SCSI_DIR_NONE;
	t->last = t->aborted = false;
	t->sense_len = 0;
	t->length = t->transfer = t->done = 0;
	t->buf = t->scratch = NULL;
	t->state = SCSI_STATE_START;
	t->serial = ++t->nexus->target->serial;
	t->unit = scsi_unit_find(t->nexus, t->lun);
	t->in_set = t->unit;
	if (t->unit) {
		TAILQ_INSERT_TAIL(&t->unit->tasks, t, link);
		t->io.disk = t->unit->disk;
	}
	return stepped(t, dispatch(t));
}

enum scsi_step scsi_step(struct scsi_task *t)
{
	return stepped(t, t->op->run(t));
}

void scsi_fail(struct scsi_task *t, uint8_t key, uint16_t asc)
{
	stepped(t, scsi_check(t, key, asc));
}

void scsi_finish(struct scsi_task *t)
{
	scsi_end(t);
	pool_put(t->pool, t->buf, t->buf_size);
	pool_put(t->pool, t->scratch, t->buf_size);
	t->buf = t->scratch = NULL;
}

/* ---- a unit goes ---- */

void scsi_unit_leave(struct scsi_unit *u)
{
	struct scsi_target *t = u->target;

	u->leaving = true;
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++)
		if (t->units[lun] && !t->units[lun]->leaving)
			scsi_attention_all(t->units[lun], NULL, SCSI_ASC_LUNS_CHANGED);
}

struct vdisk *scsi_unit_remove(struct scsi_unit *u)
{
	struct vdisk *disk = u->disk;

	assert(u->leaving && TAILQ_EMPTY(&u->tasks));
	u->target->units[u->lun] = NULL;
	free(u);
	return disk;
}

/* ---- task management ---- */

static bool covers(const struct scsi_tmf *tmf, const struct scsi_task *t)
{
	if (t->serial > tmf->serial)
		return false;		/* invariant 2 */
	switch (tmf->function) {
	case SCSI_ABORT_TASK:
		return t == tmf->task;
	case SCSI_ABORT_TASK_SET:
	case SCSI_NEXUS_LOSS:
		return t->nexus == tmf->nexus;
	case SCSI_CLEAR_TASK_SET:
	case SCSI_LUN_RESET:
	case SCSI_TARGET_RESET:
		break;
	}
	return true;
}

/* A task that @tmf covers and that is not @aborted yet (or still there at all). */
static struct scsi_task *find_covered(const struct scsi_tmf *tmf, bool aborted_too)
{
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++) {
		struct scsi_unit *u = tmf->nexus->target->units[lun];
		struct scsi_task *t;

		if (!u || (tmf->unit && tmf->unit != u))
			continue;
		TAILQ_FOREACH(t, &u->tasks, link)
			if (covers(tmf, t) && (aborted_too || !t->aborted))
				return t;
	}
	return NULL;
}

static void raise_attentions(const struct scsi_tmf *tmf)
{
	bool all = tmf->function == SCSI_TARGET_RESET;

	if (tmf->function != SCSI_LUN_RESET && !all)
		return;
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++) {
		struct scsi_unit *u = tmf->nexus->target->units[lun];

		if (!u || (!all && u != tmf->unit))
			continue;
		u->software_protect = false;
		u->descriptor_sense = false;
		u->write_cache = true;
		scsi_attention_all(u, tmf->nexus, SCSI_ASC_LUN_RESET);
	}
}

static void abort_task(const struct scsi_tmf *tmf, struct scsi_task *t)
{
	t->aborted = true;
	if (tmf->function == SCSI_CLEAR_TASK_SET && t->nexus != tmf->nexus)
		attention_add(t->nexus, t->unit->lun, SCSI_ASC_CLEARED_BY_ANOTHER);
	t->nexus->ops->abort(t);
}

void scsi_tmf_start(struct scsi_tmf *tmf)
{
	struct scsi_target *target = tmf->nexus->target;
	struct scsi_task *t;

	tmf->serial = target->serial;
	raise_attentions(tmf);
	while ((t = find_covered(tmf, false)))
		abort_task(tmf, t);
	if (find_covered(tmf, true))
		TAILQ_INSERT_TAIL(&target->tmfs, tmf, link);
	else
		tmf->done(tmf);
}

/* A function that waits and has nothing left to wait for. */
static struct scsi_tmf *find_ready(struct scsi_target *target)
{
	struct scsi_tmf *tmf;

	TAILQ_FOREACH(tmf, &target->tmfs, link)
		if (!find_covered(tmf, true))
			return tmf;
	return NULL;
}

void scsi_end(struct scsi_task *t)
{
	struct scsi_target *target = t->nexus->target;
	struct scsi_tmf *tmf;

	if (!t->in_set)
		return;
	TAILQ_REMOVE(&t->unit->tasks, t, link);
	t->in_set = false;
	while (!TAILQ_EMPTY(&target->tmfs) && (tmf = find_ready(target))) {
		TAILQ_REMOVE(&target->tmfs, tmf, link);
		tmf->done(tmf);
	}
}
