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

/* All of a unit but its disk. */
static void unit_clear(struct scsi_unit *u)
{
	scsi_pr_clear(&u->pr);
	if (u->state_fd >= 0)
		close(u->state_fd);
	free(u);
}

/* Give a unit back; the first error of its disk is the result. */
static int unit_free(struct scsi_unit *u, struct vdisk_error *err)
{
	int result = u->read_only ? 0 : vdisk_flush(u->disk), r;

	if (result < 0)
		fail(err, -result, "%s: flush: %s", vdisk_name(u->disk), strerror(-result));
	r = vdisk_close(u->disk, result ? NULL : err);
	unit_clear(u);
	return result < 0 ? result : r;
}

int scsi_target_free(struct scsi_target *t, struct vdisk_error *err)
{
	int result = 0;

	if (!t)
		return 0;
	assert(LIST_EMPTY(&t->nexuses) && t->background == 0);
	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++) {
		int r = t->units[i] ? unit_free(t->units[i], result ? NULL : err) : 0;

		if (result == 0)
			result = r;
	}
	free(t->name);
	free(t);
	return result;
}

bool scsi_target_quiesce(struct scsi_target *t)
{
	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++)
		if (t->units[i])
			scsi_sanitize_stop(t->units[i]);
	return t->background == 0;
}

/* The same for the same target name and LUN, whatever else changes. */
static uint64_t unit_id(const char *name, uint16_t lun)
{
	char text[300];
	int n = snprintf(text, sizeof(text), "%s,%u", name, lun);

	return crc64_ecma_refl(0, (const unsigned char *)text, (uint64_t)n);
}

static void set_geometry(struct scsi_unit *u)
{
	vdisk_get_limits(u->disk, &u->limits);
	if (u->physical)
		u->limits.physical_size = u->physical;
	if (u->type == SCSI_CDROM) {
		u->block_shift = 11;		/* what every CD has */
		u->limits.can_discard = false;
	} else {
		u->block_shift = u->limits.block_size == 4096 ? 12 : 9;
	}
	u->blocks = vdisk_size(u->disk) >> u->block_shift;
}

int scsi_target_add_unit(struct scsi_target *t, uint16_t lun, struct vdisk *disk,
			 const struct scsi_unit_opts *opts, struct vdisk_error *err)
{
	static const struct scsi_unit_opts plain = { .type = SCSI_DISK };
	struct scsi_unit *u;
	struct scsi_nexus *n;

	if (!opts)
		opts = &plain;
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
	u->type = (uint8_t)opts->type;
	u->read_only = opts->read_only || opts->type == SCSI_CDROM || !vdisk_writable(disk);
	u->removable = opts->removable || opts->type == SCSI_CDROM;
	u->loaded = true;
	u->physical = opts->physical_size;
	/* who is given a serial number is the same unit under any name */
	if (opts->serial) {
		snprintf(u->serial, sizeof(u->serial), "%s", opts->serial);
		u->id = unit_id(u->serial, 0);
	} else {
		u->id = unit_id(t->name, lun);
		snprintf(u->serial, sizeof(u->serial), "%016llx", (unsigned long long)u->id);
	}
	u->write_cache = true;
	u->state_fd = -1;
	set_geometry(u);
	scsi_unit_set_threshold(u, opts->threshold_percent);
	TAILQ_INIT(&u->tasks);
	t->units[lun] = u;
	/* 5.9.3 of SPC-4: who is here already learns of it through any other unit */
	LIST_FOREACH(n, &t->nexuses, link)
		for (uint16_t i = 0; i < SCSI_MAX_LUNS; i++)
			if (t->units[i])
				scsi_attention_add(n, i, i == lun ? SCSI_ASC_POWER_ON :
								    SCSI_ASC_LUNS_CHANGED);
	return 0;
}

int scsi_target_add(struct scsi_target *t, uint16_t lun, struct vdisk *disk,
		    bool read_only, struct vdisk_error *err)
{
	return scsi_target_add_unit(t, lun, disk, &(struct scsi_unit_opts) {
		.read_only = read_only,
	}, err);
}

/* (not memcmp(): there are holes between the members) */
static bool same_thresholds(const struct scsi_thresholds *a, const struct scsi_thresholds *b)
{
	bool same = a->report == b->report;

	for (size_t i = 0; i < ARRAY_SIZE(a->at); i++)
		same &= a->at[i].enabled == b->at[i].enabled && a->at[i].count == b->at[i].count;
	return same;
}

void scsi_unit_grown(struct scsi_unit *u, const struct scsi_nexus *except)
{
	struct scsi_thresholds was = scsi_default_thresholds(u), now;
	uint64_t before = u->blocks;

	set_geometry(u);
	now = scsi_default_thresholds(u);
	if (same_thresholds(&u->thresholds, &was))
		scsi_set_thresholds(u, &now);
	if (u->blocks != before)
		scsi_attention_all(u, except, SCSI_ASC_CAPACITY_CHANGED);
}

void scsi_unit_resized(struct scsi_unit *u)
{
	scsi_unit_grown(u, NULL);
}

/* ECMA-119, 8.4: the first volume descriptor is in sector 16. */
bool scsi_looks_like_cdrom(struct vdisk *disk)
{
	uint8_t sector[2048];

	return vdisk_size(disk) >= 17 * sizeof(sector) &&
	       vdisk_read(disk, sector, sizeof(sector), 16 * sizeof(sector)) == 0 &&
	       !memcmp(sector + 1, "CD001", 5);
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

void scsi_attention_add(struct scsi_nexus *n, uint16_t lun, uint16_t asc)
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

bool scsi_attention_sense(struct scsi_nexus *n, const struct scsi_unit *u, struct scsi_sense *out)
{
	uint16_t asc = scsi_attention_take(n, u->lun);

	*out = (struct scsi_sense) { .key = asc ? SCSI_UNIT_ATTENTION : SCSI_NO_SENSE, .asc = asc };
	if (asc == SCSI_ASC_THRESHOLD_REACHED) {	/* SBC-3, 4.7.3.7.4: where its descriptor is */
		out->has_info = true;
		out->info = scsi_threshold_offset(u->reached_last);
	}
	return asc;
}

void scsi_attention_all(struct scsi_unit *u, const struct scsi_nexus *except, uint16_t asc)
{
	struct scsi_nexus *n;

	LIST_FOREACH(n, &u->target->nexuses, link)
		if (n != except)
			scsi_attention_add(n, u->lun, asc);
}

void scsi_nexus_init(struct scsi_nexus *n, struct scsi_target *t, const struct scsi_nexus_ops *ops,
		     const struct scsi_port *port, uint16_t target_port)
{
	*n = (struct scsi_nexus) {
		.target = t, .ops = ops, .target_port = target_port, .view = SCSI_VIEW_ALL,
	};
	if (port)
		n->port = *port;
	if (target_port)
		scsi_target_add_port(t, target_port);
	LIST_INSERT_HEAD(&t->nexuses, n, link);
	for (uint16_t lun = 0; lun < SCSI_MAX_LUNS; lun++)
		if (t->units[lun])
			scsi_attention_add(n, lun, SCSI_ASC_POWER_ON);
}

static struct scsi_tmf *find_of_nexus(const struct scsi_nexus *n)
{
	struct scsi_tmf *tmf;

	TAILQ_FOREACH(tmf, &n->target->tmfs, link)
		if (tmf->nexus == n)
			return tmf;
	return NULL;
}

void scsi_nexus_set_view(struct scsi_nexus *n, const struct scsi_view *view)
{
	bool other = memcmp(view->visible, n->view.visible, sizeof(view->visible)) != 0;

	n->view = *view;
	/* SPC-4, 5.14: reported by any unit that is still there */
	for (uint16_t lun = 0; other && lun < SCSI_MAX_LUNS; lun++)
		if (n->target->units[lun] && scsi_view_has(view->visible, lun))
			scsi_attention_add(n, lun, SCSI_ASC_LUNS_CHANGED);
}

void scsi_nexus_fini(struct scsi_nexus *n)
{
	struct scsi_tmf *tmf;

	LIST_REMOVE(n, link);
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++)
		if (n->target->units[lun] && n->target->units[lun]->reserved_by == n)
			n->target->units[lun]->reserved_by = NULL;	/* SPC-2, 5.5.1 */
	/* nobody waits any more for what it asked to be aborted elsewhere */
	while ((tmf = find_of_nexus(n))) {
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

enum scsi_step scsi_check_sense(struct scsi_task *t, const struct scsi_sense *s)
{
	t->status = SCSI_CHECK_CONDITION;
	t->sense_len = scsi_sense_encode(t->sense, s, t->unit && t->unit->descriptor_sense);
	return SCSI_DONE;
}

enum scsi_step scsi_check(struct scsi_task *t, uint8_t key, uint16_t asc)
{
	return scsi_check_sense(t, &(struct scsi_sense) { .key = key, .asc = asc });
}

enum scsi_step scsi_check_info(struct scsi_task *t, uint8_t key, uint16_t asc, uint64_t info)
{
	return scsi_check_sense(t, &(struct scsi_sense) {
		.key = key, .asc = asc, .has_info = true, .info = info,
	});
}

enum scsi_step scsi_bad_cdb(struct scsi_task *t, uint16_t byte, int8_t bit)
{
	return scsi_check_sense(t, &(struct scsi_sense) {
		.key = SCSI_ILLEGAL_REQUEST, .asc = SCSI_ASC_INVALID_FIELD_IN_CDB,
		.has_field = true, .field_in_cdb = true, .field = byte, .bit = bit,
	});
}

enum scsi_step scsi_bad_list(struct scsi_task *t, uint16_t byte)
{
	return scsi_check_sense(t, &(struct scsi_sense) {
		.key = SCSI_ILLEGAL_REQUEST, .asc = SCSI_ASC_INVALID_FIELD_IN_LIST,
		.has_field = true, .field = byte, .bit = -1,
	});
}

bool scsi_get_scratch(struct scsi_task *t)
{
	if (!t->scratch)
		t->scratch = pool_get(t->pool, t->buf_size);
	return t->scratch;
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

enum scsi_step scsi_start_io(struct scsi_task *t, enum vdisk_op op, uint8_t *buf, uint64_t offset,
			     uint64_t len, uint8_t flags, uint8_t next_state)
{
	t->iov[0] = (struct iovec) { .iov_base = buf, .iov_len = buf ? len : 0 };
	t->io.op = (uint8_t)op;
	t->io.flags = flags;
	t->io.iov = t->iov;
	t->io.iovcnt = buf ? 1 : 0;
	t->io.offset = offset;
	t->io.length = len;
	t->state = next_state;
	return SCSI_IO;
}

enum scsi_step scsi_start_call(struct scsi_task *t, int (*call)(struct vdisk_request *),
			       uint8_t next_state)
{
	t->io.call = call;
	return scsi_start_io(t, VDISK_OP_CALL, NULL, 0, 0, 0, next_state);
}

enum scsi_step scsi_io_failed(struct scsi_task *t)
{
	uint64_t lba = t->io.offset >> t->unit->block_shift;

	if (t->io.op == VDISK_OP_READ)
		return scsi_check_info(t, SCSI_MEDIUM_ERROR, SCSI_ASC_UNRECOVERED_READ, lba);
	if (t->io.result == -ENOSPC || t->io.result == -EDQUOT)	/* SBC-3, 4.7.3.6 */
		return scsi_check(t, SCSI_DATA_PROTECT, SCSI_ASC_SPACE_ALLOCATION_FAILED);
	if (t->io.op == VDISK_OP_FLUSH || t->io.op == VDISK_OP_CALL)
		return scsi_check(t, SCSI_MEDIUM_ERROR, SCSI_ASC_WRITE_ERROR);
	return scsi_check_info(t, SCSI_MEDIUM_ERROR, SCSI_ASC_WRITE_ERROR, lba);
}

uint8_t scsi_write_flags(const struct scsi_task *t, bool fua)
{
	return fua || !t->unit->write_cache ? VDISK_REQ_FUA : 0;
}

bool scsi_cdb_fua(const struct scsi_task *t)
{
	return scsi_cdb_len(t->cdb[0]) > 6 && t->cdb[1] & 0x08;
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
	case SCSI_LBA_16_8:
		t->lba = load_be64(c + 2);
		t->n_blocks = c[13];
		break;
	case SCSI_LBA_16_16:
		t->lba = load_be64(c + 2);
		t->n_blocks = load_be16(c + 12);
		break;
	}
}

/* The range is one of the unit's, and not more than a command may transfer. */
static bool lba_ok(struct scsi_task *t, enum scsi_step *step)
{
	static const uint8_t length_at[] = {
		[SCSI_LBA_10] = 7, [SCSI_LBA_12] = 6, [SCSI_LBA_16] = 10,
	};

	if (t->op->lba == SCSI_LBA_NONE)
		return true;
	decode_lba(t);
	if (!vd_in_range(t->lba, t->n_blocks, t->unit->blocks)) {
		*step = scsi_check_info(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE, t->lba);
		return false;
	}
	if (t->op->flags & SCSI_OP_TO_END) {
		if (t->n_blocks == 0)
			t->n_blocks = t->unit->blocks - t->lba;
	} else if (t->n_blocks > SCSI_MAX_TRANSFER >> t->unit->block_shift) {
		*step = scsi_bad_cdb(t, length_at[t->op->lba], 7);
		return false;
	}
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
	return scsi_check(t, SCSI_DATA_PROTECT, scsi_read_only(t->unit, t->nexus) ?
			  SCSI_ASC_WRITE_PROTECTED : SCSI_ASC_SOFTWARE_WRITE_PROTECTED);
}

/* Is the port that this came through one that runs the command (SPC-4, 5.15.2.4)? */
static bool port_lets(const struct scsi_task *t, uint16_t *asc)
{
	const struct scsi_target *target = t->nexus->target;
	int port = scsi_find_port(target, t->nexus->target_port);
	uint8_t access = port >= 0 ? target->ports[port].access : SCSI_OPTIMIZED;

	if (access == SCSI_STANDBY) {
		*asc = SCSI_ASC_STANDBY;
		return t->op->flags & SCSI_OP_STANDBY;
	}
	*asc = SCSI_ASC_UNAVAILABLE;
	return access != SCSI_UNAVAILABLE || t->op->flags & SCSI_OP_UNAVAILABLE;
}

static enum scsi_step sanitizing(struct scsi_task *t)
{
	return scsi_check_sense(t, &(struct scsi_sense) {
		.key = SCSI_NOT_READY, .asc = SCSI_ASC_SANITIZE_IN_PROGRESS,
		.has_progress = true, .progress = scsi_sanitize_progress(t->unit),
	});
}

/* The state of the unit, and of others' claims on it; true: the command may run. */
static bool unit_lets(struct scsi_task *t, enum scsi_step *step)
{
	const struct scsi_unit *u = t->unit;
	uint16_t flags = t->op->flags, asc;

	if (unlikely(t->nexus->target->access_why) && !port_lets(t, &asc)) {
		*step = scsi_check(t, SCSI_NOT_READY, asc);
		return false;
	}
	if ((unlikely(u->reserved_by) && u->reserved_by != t->nexus &&
	     !(flags & SCSI_OP_PAST_RESERVE)) ||
	    (unlikely(u->pr.type) && scsi_reserved(u, t->nexus, t->op->reserved))) {
		t->status = SCSI_RESERVATION_CONFLICT;
		*step = SCSI_DONE;
		return false;
	}
	if (unlikely(u->sanitize) && !(flags & SCSI_OP_SANITIZING)) {
		*step = sanitizing(t);
		return false;
	}
	if (unlikely(u->sanitize_failed) && !(flags & SCSI_OP_SANITIZING)) {
		*step = scsi_check(t, SCSI_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED);
		return false;
	}
	if (unlikely(!u->loaded) && !(flags & SCSI_OP_NO_MEDIUM)) {
		*step = scsi_check(t, SCSI_NOT_READY, SCSI_ASC_NO_MEDIUM);
		return false;
	}
	if (flags & SCSI_OP_WRITES && scsi_protected(u, t->nexus)) {
		*step = write_protected(t);
		return false;
	}
	return true;
}

static enum scsi_step dispatch(struct scsi_task *t)
{
	bool has_actions;
	enum scsi_step step;
	struct scsi_sense sense;
	uint16_t byte;
	int8_t bit;

	t->op = scsi_op_find(t->cdb[0], t->cdb[1] & 0x1f);
	if (t->op && t->unit && !scsi_op_supported(t->op, t->unit))
		t->op = NULL;
	if (!t->unit && !(t->op && t->op->flags & SCSI_OP_NO_UNIT))
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_NO_LUN);
	if (t->unit && t->nexus->attentions &&
	    !(t->op && t->op->flags & SCSI_OP_PAST_ATTENTION) &&
	    scsi_attention_sense(t->nexus, t->unit, &sense))
		return scsi_check_sense(t, &sense);
	if (!t->op && scsi_opcode_known(t->cdb[0], &has_actions, t->unit) && has_actions)
		return scsi_bad_cdb(t, 1, 4);
	if (!t->op)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_OPCODE);
	if (reserved_bit(t, &byte, &bit))
		return scsi_bad_cdb(t, byte, bit);
	if (!t->unit)
		return t->op->run(t);	/* nothing to protect, and no LBA */
	if (!unit_lets(t, &step))
		return step;
	if (!lba_ok(t, &step))
		return step;
	if (t->op->flags & SCSI_OP_EXCLUSIVE && t->n_blocks) {
		t->exclusive = t->unit->whole_blocks = true;
		scsi_gate(t);
	}
	return t->op->run(t);
}

static enum scsi_step stepped(struct scsi_task *t, enum scsi_step step)
{
	if (step == SCSI_IO) {
		t->in_io = true;
		if (unlikely(t->unit->gates)) {
			if (t->unit->sanitize && !(t->op->flags & SCSI_OP_SANITIZING)) {
				step = sanitizing(t);	/* what it still meant to do */
				scsi_end(t);
				return step;
			}
			t->in_io = scsi_may_go(t);
			t->parked = t->in_io ? SCSI_RUNS : SCSI_PARKED_IO;
			return t->in_io ? SCSI_IO : SCSI_WAIT;
		}
	} else if (step == SCSI_DONE || (step == SCSI_DATA_IN && t->last)) {
		scsi_end(t);		/* invariant 1 */
	}
	return step;
}

/* Not its turn yet.  A command with data-out fetches them first, see scsi_step(). */
static bool park_at_start(struct scsi_task *t)
{
	if (t->attribute == SCSI_ORDERED)
		scsi_gate(t);
	if (likely(!t->unit->gates) || t->out_limit)
		return false;
	t->parked = SCSI_PARKED_START;
	if (!scsi_may_go(t))
		return true;
	t->parked = SCSI_RUNS;
	return false;
}

enum scsi_step scsi_start(struct scsi_task *t)
{
	t->dir = SCSI_DIR_NONE;
	t->last = t->aborted = t->in_io = t->started = t->gate = false;
	t->exclusive = t->holds = t->preempted = false;
	t->parked = SCSI_RUNS;
	t->at_end = NULL;
	t->priv = NULL;
	t->sense_len = 0;
	t->length = t->transfer = t->done = 0;
	t->buf = t->scratch = NULL;
	t->sent_from = NULL;
	t->early = 0;
	t->early_over = false;
	t->state = SCSI_STATE_START;
	t->serial = ++t->nexus->target->serial;
	t->unit = scsi_unit_find(t->nexus, t->lun);
	t->in_set = t->unit;
	if (t->unit) {
		TAILQ_INSERT_TAIL(&t->unit->tasks, t, link);
		t->io.disk = t->unit->disk;
		if (park_at_start(t))
			return SCSI_WAIT;
	}
	return stepped(t, dispatch(t));
}

enum scsi_step scsi_step(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	uint8_t parked = t->parked;
	enum scsi_step step;

	t->parked = SCSI_RUNS;
	if (unlikely(parked == SCSI_PARKED_IO)) {
		t->in_io = true;
		return SCSI_IO;
	}
	if (unlikely(parked == SCSI_PARKED_START))
		return stepped(t, dispatch(t));
	/* its data are here: whatever the command does with them has to wait its turn */
	if (unlikely(u && u->gates) && parked == SCSI_RUNS && t->dir == SCSI_DIR_OUT && !t->in_io &&
	    !t->started) {
		t->parked = SCSI_PARKED_DATA;
		if (!scsi_may_go(t))
			return SCSI_WAIT;
		t->parked = SCSI_RUNS;
	}
	t->in_io = false;
	step = stepped(t, t->op->run(t));
	if (unlikely(u && u->gates))
		scsi_wake(u);
	return step;
}

void scsi_fail(struct scsi_task *t, uint8_t key, uint16_t asc)
{
	t->parked = SCSI_RUNS;
	stepped(t, scsi_check(t, key, asc));
}

void scsi_finish(struct scsi_task *t)
{
	scsi_end(t);
	pool_put(t->pool, t->buf, t->buf_size);
	pool_put(t->pool, t->scratch, t->buf_size);
	t->buf = t->scratch = NULL;
	if (unlikely(t->sent_from != NULL))
		(void)vdisk_close(STEAL(t->sent_from), NULL);
}

/* ---- what the target does for itself ---- */

void scsi_background_start(struct scsi_background *b)
{
	b->target->background++;
	b->target->ops->submit(b->target, &b->req);
}

void scsi_background_done(struct vdisk_request *req)
{
	struct scsi_background *b = container_of(req, struct scsi_background, req);

	b->target->background--;
	b->done(b);
}

/* ---- a unit goes ---- */

void scsi_unit_leave(struct scsi_unit *u)
{
	struct scsi_target *t = u->target;

	u->leaving = true;
	scsi_sanitize_stop(u);
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++)
		if (t->units[lun] && !t->units[lun]->leaving)
			scsi_attention_all(t->units[lun], NULL, SCSI_ASC_LUNS_CHANGED);
}

struct vdisk *scsi_unit_remove(struct scsi_unit *u)
{
	struct vdisk *disk = u->disk;

	assert(u->leaving && TAILQ_EMPTY(&u->tasks));
	u->target->units[u->lun] = NULL;
	scsi_sanitize_orphan(u);
	scsi_watch_orphan(u);
	unit_clear(u);
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
	case SCSI_ABORT_PREEMPTED:
		return t->preempted;
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

/* What a reset of a unit does besides (SAM-5, 6.3.3; SPC-2, 5.5.1; SBC-3, 5.15). */
static void reset_unit(struct scsi_unit *u)
{
	struct scsi_thresholds defaults = scsi_default_thresholds(u);
	struct scsi_nexus *n;

	u->software_protect = false;
	u->descriptor_sense = false;
	u->write_cache = true;
	scsi_set_thresholds(u, &defaults);
	u->reserved_by = NULL;
	LIST_FOREACH(n, &u->target->nexuses, link)
		n->prevents[u->lun] = false;
	scsi_attention_all(u, NULL, SCSI_ASC_LUN_RESET);	/* who asked for it, too */
}

static void reset_units(const struct scsi_tmf *tmf)
{
	bool all = tmf->function == SCSI_TARGET_RESET;

	if (tmf->function != SCSI_LUN_RESET && !all)
		return;
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++) {
		struct scsi_unit *u = tmf->nexus->target->units[lun];

		if (u && (all || u == tmf->unit))
			reset_unit(u);
	}
}

static void abort_task(const struct scsi_tmf *tmf, struct scsi_task *t)
{
	t->aborted = true;
	if (tmf->function == SCSI_CLEAR_TASK_SET && t->nexus != tmf->nexus)
		scsi_attention_add(t->nexus, t->unit->lun, SCSI_ASC_CLEARED_BY_ANOTHER);
	t->nexus->ops->abort(t);
}

void scsi_tmf_start(struct scsi_tmf *tmf)
{
	struct scsi_target *target = tmf->nexus->target;
	struct scsi_task *t;

	tmf->serial = target->serial;
	reset_units(tmf);
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
	if (unlikely(t->unit->watching) && t->op && t->op->flags & SCSI_OP_WRITES)
		scsi_watch(t->unit, t->op->lba == SCSI_LBA_NONE ? UINT64_MAX : scsi_range_bytes(t));
	if (t->at_end)
		t->at_end(t);
	TAILQ_REMOVE(&t->unit->tasks, t, link);
	t->in_set = t->in_io = false;
	if (t->gate)
		t->unit->gates--;
	if (t->gate || t->unit->gates)
		scsi_wake(t->unit);
	while (!TAILQ_EMPTY(&target->tmfs) && (tmf = find_ready(target))) {
		TAILQ_REMOVE(&target->tmfs, tmf, link);
		tmf->done(tmf);
	}
}
