/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sbc.c - block commands (SBC-3)
 *
 * A transfer is a loop over segments: the handler asks for data or a disk
 * request, is called again when it is there, and looks at task->state to see
 * where it was.  task->done counts what is finished, in bytes of the LBA range.
 */
#include <errno.h>

#include "target/reactor/pool.h"
#include "target/scsi/op.h"

enum {
	RECEIVED = SCSI_STATE_START + 1, /* a segment of data-out is in buf */
	WRITTEN,			/* the disk has it */
	READ_BACK,			/* scratch has what is on the medium */
	LOADED,				/* buf has what was read */
	FINISHING,			/* the one disk request that there was */
};

#define EARLY_MIN	(64u << 10)	/* of data-out; a multiple of any block */
#define LEND_MIN	(64u << 10)	/* less is read faster than it is asked for */

static uint32_t whole_blocks(const struct scsi_task *t, uint64_t bytes)
{
	return (uint32_t)vd_align_up(bytes, scsi_block(t->unit));
}

/* ---- capacity, provisioning ---- */

/* On a worker: somebody may have made the disk larger, below us. */
static int look_again(struct vdisk_request *req)
{
	return vdisk_refresh(req->disk);
}

/* Who asks for the capacity is told what it is now, and the others that it changed. */
static bool looked(struct scsi_task *t, enum scsi_step *step)
{
	if (t->state == SCSI_STATE_START) {
		*step = scsi_start_call(t, look_again, FINISHING);
		return false;
	}
	if (t->io.result > 0)
		scsi_unit_grown(t->unit, t->nexus);
	return true;
}

enum scsi_step scsi_read_capacity_10(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	enum scsi_step step;

	if (!looked(t, &step))
		return step;
	if (!scsi_get_buf(t, 8))
		return scsi_no_buf(t);
	store_be32(t->buf, (uint32_t)MIN(u->blocks - 1, (uint64_t)UINT32_MAX));
	store_be32(t->buf + 4, 1u << u->block_shift);
	return scsi_reply(t, 8, 8);
}

enum scsi_step scsi_read_capacity_16(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	unsigned exponent = 0;
	enum scsi_step step;

	if (!looked(t, &step))
		return step;
	if (!scsi_get_buf(t, 32))
		return scsi_no_buf(t);
	memset(t->buf, 0, 32);
	store_be64(t->buf, u->blocks - 1);
	store_be32(t->buf + 8, 1u << u->block_shift);
	while (exponent < 15 && 1ull << (u->block_shift + exponent) < u->limits.physical_size)
		exponent++;
	t->buf[13] = (uint8_t)exponent;
	if (u->limits.can_discard)
		t->buf[14] = 0x80 | 0x40;	/* LBPME, LBPRZ */
	return scsi_reply(t, 32, load_be32(t->cdb + 10));
}

#define LBA_STATUS_MAX 64u

/* Is @blocks from @at one more piece of the run in descriptor @d? */
static bool lba_status_joins(const uint8_t *d, uint32_t blocks, uint8_t status)
{
	return d[12] == status && UINT32_MAX - load_be32(d + 8) >= blocks;
}

/* The run at @at, in whole blocks; a block is mapped if any of it is. */
static int lba_status_run(const struct scsi_unit *u, uint64_t at, uint32_t *blocks, uint8_t *status)
{
	struct vdisk_extent e;
	int r = vdisk_map(u->disk, at, scsi_unit_bytes(u) - at, &e);

	if (r < 0)
		return r;
	*status = e.kind == VDISK_HOLE || e.kind == VDISK_ZERO;
	*blocks = (uint32_t)MIN(e.length >> u->block_shift, (uint64_t)UINT32_MAX);
	if (*blocks == 0) {
		*blocks = 1;
		*status = 0;
	}
	return 0;
}

/* On a worker, as maps may have to be read: the descriptors, from the 8th byte of the buffer. */
static int lba_status_call(struct vdisk_request *req)
{
	struct scsi_task *t = scsi_task_of(req);
	const struct scsi_unit *u = t->unit;
	uint64_t at = t->lba << u->block_shift;
	uint32_t n = 8;

	while (at < scsi_unit_bytes(u)) {
		uint8_t *d = t->buf + n, status;
		uint32_t blocks;
		int r = lba_status_run(u, at, &blocks, &status);

		if (r < 0)
			return r;
		if (n > 8 && lba_status_joins(d - 16, blocks, status)) {
			store_be32(d - 8, load_be32(d - 8) + blocks);
		} else if (n == 8 + 16 * LBA_STATUS_MAX) {
			break;
		} else {
			store_be64(d, at >> u->block_shift);
			store_be32(d + 8, blocks);
			d[12] = status;
			n += 16;
		}
		at += (uint64_t)blocks << u->block_shift;
	}
	store_be32(t->buf, n - 4);
	return 0;
}

/* SBC-3, 5.4: runs of blocks that are mapped (0) or deallocated (1) */
enum scsi_step scsi_get_lba_status(struct scsi_task *t)
{
	uint32_t alloc = load_be32(t->cdb + 10);

	if (t->state == FINISHING) {
		if (t->io.result < 0)
			return scsi_check_info(t, SCSI_MEDIUM_ERROR, SCSI_ASC_UNRECOVERED_READ,
					       t->lba);
		return scsi_reply(t, load_be32(t->buf) + 4, alloc);
	}
	t->lba = load_be64(t->cdb + 2);
	if (t->lba >= t->unit->blocks)
		return scsi_check_info(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE, t->lba);
	if (alloc < 24)
		return scsi_bad_cdb(t, 10, 7);
	if (!scsi_get_buf(t, 8 + 16 * LBA_STATUS_MAX))
		return scsi_no_buf(t);
	memset(t->buf, 0, 8 + 16 * LBA_STATUS_MAX);
	return scsi_start_call(t, lba_status_call, FINISHING);
}

/* ---- cache and medium ---- */

static enum scsi_step flush(struct scsi_task *t)
{
	if (t->state == FINISHING)
		return t->io.result < 0 ? scsi_io_failed(t) : scsi_good(t);
	return scsi_start_io(t, VDISK_OP_FLUSH, NULL, 0, 0, 0, FINISHING);
}

/* The whole cache is written out whatever the range is (5.24 allows it). */
enum scsi_step scsi_sync_cache(struct scsi_task *t)
{
	return flush(t);
}

static bool removal_prevented(const struct scsi_unit *u)
{
	const struct scsi_nexus *n;

	LIST_FOREACH(n, &u->target->nexuses, link)
		if (n->prevents[u->lun])
			return true;
	return false;
}

/*
 * Stopping makes the data safe.  A removable medium goes out and comes in by LOEJ
 * (SBC-3, 5.25); a fixed one stays where it is.
 */
enum scsi_step scsi_start_stop(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	bool start = t->cdb[4] & 0x01, load = t->cdb[4] & 0x02, no_flush = t->cdb[4] & 0x04;
	bool power = t->cdb[4] & 0xf0;

	if (t->state == FINISHING)
		return flush(t);
	/* starting hurts nobody (SPC-4, table 65) */
	if (!(start && !power) && scsi_reserved(u, t->nexus, SCSI_RESERVED_DENY)) {
		t->status = SCSI_RESERVATION_CONFLICT;
		return SCSI_DONE;
	}
	if (power)			/* a power condition: nothing to do */
		return scsi_good(t);
	if (load && !u->removable)
		return scsi_bad_cdb(t, 4, 1);
	if (load && removal_prevented(u))
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_REMOVAL_PREVENTED);
	if (load && start && !u->loaded)
		scsi_attention_all(u, t->nexus, SCSI_ASC_MEDIUM_CHANGED);
	if (load)
		u->loaded = start;
	return start || no_flush || u->read_only ? scsi_good(t) : flush(t);
}

/* SPC-4, 6.17 (of 2009): by nexus, until it allows it, is lost or the unit is reset */
enum scsi_step scsi_prevent_allow(struct scsi_task *t)
{
	bool prevent = t->cdb[4] & 0x01;

	if (prevent && scsi_reserved(t->unit, t->nexus, SCSI_RESERVED_DENY)) {
		t->status = SCSI_RESERVATION_CONFLICT;
		return SCSI_DONE;
	}
	t->nexus->prevents[t->unit->lun] = prevent;
	return scsi_good(t);
}

/*
 * SBC-3, 5.17 and 5.18: there are no defects.  The list has the format that was
 * asked for where a list of no entries has it.
 */
enum scsi_step scsi_read_defects(struct scsi_task *t)
{
	bool twelve = t->cdb[0] == 0xb7;
	uint8_t wanted = twelve ? t->cdb[1] : t->cdb[2];
	uint32_t alloc = twelve ? load_be32(t->cdb + 6) : load_be16(t->cdb + 7);

	if (!scsi_get_buf(t, 8))
		return scsi_no_buf(t);
	memset(t->buf, 0, 8);
	t->buf[1] = wanted & 0x1f;
	return scsi_reply(t, twelve ? 8 : 4, alloc);
}

/* Bring the start of the range into the host's cache; more would only push out more. */
enum scsi_step scsi_prefetch(struct scsi_task *t)
{
	uint32_t len = (uint32_t)MIN(scsi_range_bytes(t), (uint64_t)SCSI_SEGMENT);

	if (t->state == FINISHING)
		return t->io.result < 0 ? scsi_io_failed(t) : scsi_good(t);
	if (len == 0 || !scsi_get_buf(t, len))
		return scsi_good(t);
	return scsi_start_io(t, VDISK_OP_READ, t->buf, scsi_lba_bytes(t), len, 0, FINISHING);
}

/* ---- READ ---- */

static enum scsi_step loaded(struct scsi_task *t)
{
	t->done += t->seg_len;
	t->status = SCSI_GOOD;
	t->last = t->done == t->transfer;
	t->state = WRITTEN;
	return SCSI_DATA_IN;
}

/*
 * The segment need not be read: it can be sent from the file.  A command that is
 * under way is not seen by those that want blocks for themselves (order.c) while
 * its data are only being sent; so not where there are any.
 */
static bool lend_segment(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;

	if (!t->sends_files || t->seg_len < LEND_MIN || u->gates || u->whole_blocks ||
	    vdisk_sendable(u->disk, scsi_lba_bytes(t) + t->done, t->seg_len, &t->file) < 0)
		return false;
	if (!t->sent_from)
		t->sent_from = vdisk_ref(u->disk);
	pool_put(t->pool, STEAL(t->buf), t->buf_size);
	return true;
}

static enum scsi_step read_more(struct scsi_task *t)
{
	uint32_t len = (uint32_t)MIN(t->transfer - t->done, (uint64_t)SCSI_SEGMENT);

	t->seg_offset = t->done;
	t->seg_len = len;
	if (lend_segment(t))
		return loaded(t);
	if (!scsi_get_buf(t, whole_blocks(t, len)))
		return scsi_no_buf(t);
	/* a transfer that the initiator cut short still reads whole blocks */
	return scsi_start_io(t, VDISK_OP_READ, t->buf, scsi_lba_bytes(t) + t->done, whole_blocks(t, len), 0,
			    LOADED);
}

enum scsi_step scsi_read(struct scsi_task *t)
{
	switch (t->state) {
	case SCSI_STATE_START:
		t->dir = SCSI_DIR_IN;
		t->length = scsi_range_bytes(t);
		t->transfer = MIN(t->length, (uint64_t)t->in_limit);
		return t->transfer ? read_more(t) : scsi_good(t);
	case LOADED:
		return t->io.result < 0 ? scsi_io_failed(t) : loaded(t);
	default:		/* sent */
		return read_more(t);
	}
}

/* ---- WRITE, VERIFY ---- */

static enum scsi_step want_more(struct scsi_task *t)
{
	t->seg_offset = t->done;
	t->seg_len = (uint32_t)MIN(t->transfer - t->done, (uint64_t)SCSI_SEGMENT);
	t->state = RECEIVED;
	return SCSI_DATA_OUT;
}

/* Start a data-out phase of the whole range; what comes is whole blocks. */
static enum scsi_step start_out(struct scsi_task *t)
{
	t->dir = SCSI_DIR_OUT;
	t->length = scsi_range_bytes(t);
	t->transfer = vd_align_down(MIN(t->length, (uint64_t)t->out_limit),
				    scsi_block(t->unit));
	if (t->transfer == 0)
		return scsi_good(t);
	if (!scsi_get_buf(t, (uint32_t)MIN(t->transfer, (uint64_t)SCSI_SEGMENT)))
		return scsi_no_buf(t);
	return want_more(t);
}

static enum scsi_step segment_done(struct scsi_task *t)
{
	t->done += t->seg_len;
	t->early = 0;
	return t->done == t->transfer ? scsi_good(t) : want_more(t);
}

/*
 * A command that fails may have written any part of its data, so the first ones can
 * be on their way before the last ones are here.  What must be durable goes in one.
 */
bool scsi_early(struct scsi_task *t, uint32_t have, struct scsi_early *out)
{
	uint32_t len;

	if (have < t->early + EARLY_MIN || t->early_over || t->op->run != scsi_write ||
	    t->state != RECEIVED || t->unit->gates || scsi_write_flags(t, scsi_cdb_fua(t)))
		return false;
	len = (uint32_t)vd_align_down(have - t->early, EARLY_MIN);
	*out = (struct scsi_early) {
		.from = t->buf + t->early, .len = len,
		.offset = scsi_lba_bytes(t) + t->done + t->early,
	};
	t->io.op = VDISK_OP_WRITE;	/* for order.c */
	t->io.offset = out->offset;
	t->io.length = len;
	t->in_io = true;
	return true;
}

void scsi_early_done(struct scsi_task *t, const struct scsi_early *early, int result)
{
	t->in_io = false;
	if (result == 0)
		t->early += early->len;
	else
		t->early_over = true;	/* whatever it is, the request will meet it */
	if (unlikely(t->unit->gates))
		scsi_wake(t->unit);
}

enum scsi_step scsi_write(struct scsi_task *t)
{
	switch (t->state) {
	case SCSI_STATE_START:
		return start_out(t);
	case RECEIVED:
		if (t->early == t->seg_len)
			return segment_done(t);
		return scsi_start_io(t, VDISK_OP_WRITE, t->buf + t->early,
				     scsi_lba_bytes(t) + t->done + t->early, t->seg_len - t->early,
				     scsi_write_flags(t, scsi_cdb_fua(t)), WRITTEN);
	default:
		return t->io.result < 0 ? scsi_io_failed(t) : segment_done(t);
	}
}

static enum scsi_step read_back(struct scsi_task *t, uint32_t len)
{
	if (!scsi_get_scratch(t))
		return scsi_no_buf(t);
	return scsi_start_io(t, VDISK_OP_READ, t->scratch, scsi_lba_bytes(t) + t->done, len, 0, READ_BACK);
}

/* Sense has the offset of the first byte that differs (5.36). */
static enum scsi_step miscompare(struct scsi_task *t, uint64_t offset)
{
	return scsi_check_info(t, SCSI_MISCOMPARE, SCSI_ASC_MISCOMPARE, offset);
}

static uint32_t first_difference(const uint8_t *a, const uint8_t *b, uint32_t len)
{
	uint32_t i = 0;

	while (i < len && a[i] == b[i])
		i++;
	return i;
}

static enum scsi_step compare_segment(struct scsi_task *t)
{
	if (t->io.result < 0)
		return scsi_io_failed(t);
	if (memcmp(t->buf, t->scratch, t->seg_len) != 0)
		return miscompare(t, t->done + first_difference(t->buf, t->scratch, t->seg_len));
	return segment_done(t);
}

enum scsi_step scsi_write_verify(struct scsi_task *t)
{
	if ((t->cdb[1] & 0x06) > 0x02)	/* BYTCHK 2 and 3 */
		return scsi_bad_cdb(t, 1, 2);
	switch (t->state) {
	case SCSI_STATE_START:
		return start_out(t);
	case RECEIVED:
		return scsi_start_io(t, VDISK_OP_WRITE, t->buf, scsi_lba_bytes(t) + t->done, t->seg_len,
				VDISK_REQ_FUA, WRITTEN);
	case WRITTEN:
		return t->io.result < 0 ? scsi_io_failed(t) : read_back(t, t->seg_len);
	default:
		/* without BYTCHK only reading it was asked for, but as it is here */
		return compare_segment(t);
	}
}

/* BYTCHK 0: the medium can be read. */
static enum scsi_step verify_medium(struct scsi_task *t)
{
	uint64_t left;

	if (t->state == SCSI_STATE_START) {
		t->seg_len = 0;
		if (t->n_blocks == 0)
			return scsi_good(t);
		if (!scsi_get_buf(t, (uint32_t)MIN(scsi_range_bytes(t), (uint64_t)SCSI_SEGMENT)))
			return scsi_no_buf(t);
	} else if (t->io.result < 0) {
		return scsi_io_failed(t);
	}
	t->done += t->seg_len;
	left = scsi_range_bytes(t) - t->done;
	if (left == 0)
		return scsi_good(t);
	t->seg_len = (uint32_t)MIN(left, (uint64_t)SCSI_SEGMENT);
	return scsi_start_io(t, VDISK_OP_READ, t->buf, scsi_lba_bytes(t) + t->done, t->seg_len, 0, READ_BACK);
}

/* BYTCHK 1: the data are compared, block by block. */
static enum scsi_step verify_data(struct scsi_task *t)
{
	switch (t->state) {
	case SCSI_STATE_START:
		return start_out(t);
	case RECEIVED:
		return read_back(t, t->seg_len);
	default:
		return compare_segment(t);
	}
}

/* BYTCHK 3: one block is compared with each of the range. */
static enum scsi_step verify_same(struct scsi_task *t)
{
	uint32_t block = scsi_block(t->unit);

	switch (t->state) {
	case SCSI_STATE_START:
		if (t->n_blocks == 0)
			return scsi_good(t);
		return scsi_want_list(t, block, RECEIVED);
	case RECEIVED:
		if (t->transfer < block)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
		break;
	default:
		if (t->io.result < 0)
			return scsi_io_failed(t);
		if (memcmp(t->buf, t->scratch, block) != 0)
			return miscompare(t, first_difference(t->buf, t->scratch, block));
		t->done += block;
		if (t->done == scsi_range_bytes(t))
			return scsi_good(t);
	}
	return read_back(t, block);
}

enum scsi_step scsi_verify(struct scsi_task *t)
{
	switch (t->cdb[1] >> 1 & 3) {
	case 0:
		return verify_medium(t);
	case 1:
		return verify_data(t);
	case 3:
		return verify_same(t);
	}
	return scsi_bad_cdb(t, 1, 2);
}

/* ---- WRITE SAME, UNMAP ---- */

static bool all_zero(const uint8_t *p, uint32_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* The pattern block, repeated over as much of a segment as the range needs. */
static bool repeat_block(struct scsi_task *t)
{
	uint32_t block = scsi_block(t->unit);
	uint32_t size = (uint32_t)MIN(scsi_range_bytes(t), (uint64_t)SCSI_SEGMENT);
	uint8_t *buf = pool_get(t->pool, size);

	if (!buf)
		return false;
	for (uint32_t at = 0; at < size; at += block)
		memcpy(buf + at, t->buf, block);
	pool_put(t->pool, t->buf, t->buf_size);
	t->buf = buf;
	t->buf_size = size;
	return true;
}

static enum scsi_step same_more(struct scsi_task *t)
{
	t->seg_len = (uint32_t)MIN(scsi_range_bytes(t) - t->done, (uint64_t)t->buf_size);
	return scsi_start_io(t, VDISK_OP_WRITE, t->buf, scsi_lba_bytes(t) + t->done, t->seg_len,
			scsi_write_flags(t, false), WRITTEN);
}

static enum scsi_step same_zero(struct scsi_task *t)
{
	uint8_t unmap = t->cdb[1] & 0x08 && t->unit->limits.can_discard ? VDISK_REQ_UNMAP : 0;

	return scsi_start_io(t, VDISK_OP_ZERO, NULL, scsi_lba_bytes(t), scsi_range_bytes(t),
			(uint8_t)(scsi_write_flags(t, false) | unmap), FINISHING);
}

static enum scsi_step same_start(struct scsi_task *t)
{
	bool no_data = t->cdb[0] == 0x93 && t->cdb[1] & 0x01;	/* NDOB */

	/* one block of data, no more and no less */
	if (!no_data && t->out_limit != scsi_block(t->unit))
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_CDB);
	if (t->n_blocks > SCSI_MAX_WRITE_SAME)
		return scsi_bad_cdb(t, t->cdb[0] == 0x93 ? 10 : 7, 7);
	if (no_data)
		return t->n_blocks ? same_zero(t) : scsi_good(t);
	return scsi_want_list(t, scsi_block(t->unit), RECEIVED);
}

enum scsi_step scsi_write_same(struct scsi_task *t)
{
	bool unmap = t->cdb[1] & 0x08 && t->unit->limits.can_discard;

	switch (t->state) {
	case SCSI_STATE_START:
		return same_start(t);
	case RECEIVED:
		if (t->n_blocks == 0)
			return scsi_good(t);
		/*
		 * Who sets UNMAP wants the blocks gone; they read as zeroes then,
		 * which is what conformance tests expect whatever block came along.
		 */
		if (unmap || all_zero(t->buf, scsi_block(t->unit)))
			return same_zero(t);
		return repeat_block(t) ? same_more(t) : scsi_no_buf(t);
	case WRITTEN:
		if (t->io.result < 0)
			return scsi_io_failed(t);
		t->done += t->seg_len;
		return t->done == scsi_range_bytes(t) ? scsi_good(t) : same_more(t);
	default:
		return t->io.result < 0 ? scsi_io_failed(t) : scsi_good(t);
	}
}

/*
 * UNMAP (5.28).  We zero with leave to give the space back, so that what was
 * unmapped reads as zeroes to the last block, whatever the cluster size below.
 */
static enum scsi_step unmap_next(struct scsi_task *t)
{
	uint32_t end = 8 + load_be16(t->buf + 2) / 16 * 16u;

	while (t->done < end) {
		const uint8_t *d = t->buf + t->done;
		uint64_t lba = load_be64(d), blocks = load_be32(d + 8);

		t->done += 16;
		if (blocks)
			return scsi_start_io(t, VDISK_OP_ZERO, NULL, lba << t->unit->block_shift,
					blocks << t->unit->block_shift,
					(uint8_t)(VDISK_REQ_UNMAP | scsi_write_flags(t, false)),
					WRITTEN);
	}
	return scsi_good(t);
}

/* All descriptors are checked before the first takes effect. */
static enum scsi_step unmap_list(struct scsi_task *t)
{
	uint32_t descriptors;

	if (t->transfer == 0)
		return scsi_good(t);
	if (t->transfer < 8)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	descriptors = load_be16(t->buf + 2) / 16u;
	if (descriptors > (t->transfer - 8) / 16)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	if (descriptors > SCSI_MAX_UNMAP_DESCRIPTORS)
		return scsi_bad_list(t, 2);
	for (uint32_t i = 0; i < descriptors; i++) {
		const uint8_t *d = t->buf + 8 + 16 * i;

		if (!vd_in_range(load_be64(d), load_be32(d + 8), t->unit->blocks))
			return scsi_check_info(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE,
					       load_be64(d));
	}
	t->done = 8;
	return unmap_next(t);
}

enum scsi_step scsi_unmap(struct scsi_task *t)
{
	switch (t->state) {
	case SCSI_STATE_START:
		if (!t->unit->limits.can_discard)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_OPCODE);
		return scsi_want_list(t, load_be16(t->cdb + 7), RECEIVED);
	case RECEIVED:
		return unmap_list(t);
	default:
		return t->io.result < 0 ? scsi_io_failed(t) : unmap_next(t);
	}
}
