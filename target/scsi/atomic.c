/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * atomic.c - commands that have their blocks for themselves: COMPARE AND WRITE,
 * ORWRITE, WRITE ATOMIC (SBC-3, 5.3 and 5.12; SBC-4, 5.49)
 *
 * order.c holds back disk requests of others on the same blocks from the first
 * request of these to their end.  Each has all of its data before that, or (ORWRITE
 * of more than a segment) works block range by block range.
 *
 * What WRITE ATOMIC promises: other commands see all of it or nothing, and a
 * single write carries it, so that the end of this process does not tear it.  The
 * file system below decides what a loss of power does, as for any write.
 */
#include "target/reactor/pool.h"
#include "target/scsi/op.h"

enum {
	RECEIVED = SCSI_STATE_START + 1,
	LOADED,
	WRITTEN,
};

static enum scsi_step want_all(struct scsi_task *t, uint64_t length)
{
	t->dir = SCSI_DIR_OUT;
	t->length = length;
	t->transfer = length;
	if (!scsi_get_buf(t, (uint32_t)length))
		return scsi_no_buf(t);
	t->seg_offset = 0;
	t->seg_len = (uint32_t)length;
	t->state = RECEIVED;
	return SCSI_DATA_OUT;
}

/* ---- COMPARE AND WRITE ---- */

static enum scsi_step compared(struct scsi_task *t)
{
	uint32_t len = (uint32_t)scsi_range_bytes(t), i = 0;

	if (t->io.result < 0)
		return scsi_io_failed(t);
	if (!memcmp(t->buf, t->scratch, len))
		return scsi_start_io(t, VDISK_OP_WRITE, t->buf + len, scsi_lba_bytes(t), len,
				     scsi_write_flags(t, scsi_cdb_fua(t)), WRITTEN);
	while (t->buf[i] == t->scratch[i])
		i++;
	return scsi_check_info(t, SCSI_MISCOMPARE, SCSI_ASC_MISCOMPARE, i);
}

enum scsi_step scsi_compare_and_write(struct scsi_task *t)
{
	uint64_t len = scsi_range_bytes(t);

	switch (t->state) {
	case SCSI_STATE_START:
		if (t->n_blocks > scsi_max_compare(t->unit))
			return scsi_bad_cdb(t, 13, 7);
		/* what to compare and what to write: no more and no less, or it means something else */
		if (t->out_limit != 2 * len)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_CDB);
		if (len == 0)
			return scsi_good(t);
		return want_all(t, 2 * len);
	case RECEIVED:
		if (!scsi_get_scratch(t))
			return scsi_no_buf(t);
		return scsi_start_io(t, VDISK_OP_READ, t->scratch, scsi_lba_bytes(t), len, 0, LOADED);
	case LOADED:
		return compared(t);
	default:
		return t->io.result < 0 ? scsi_io_failed(t) : scsi_good(t);
	}
}

/* ---- ORWRITE ---- */

static enum scsi_step want_more(struct scsi_task *t)
{
	t->seg_offset = t->done;
	t->seg_len = (uint32_t)MIN(t->transfer - t->done, (uint64_t)SCSI_SEGMENT);
	t->state = RECEIVED;
	return SCSI_DATA_OUT;
}

static enum scsi_step orwrite_start(struct scsi_task *t)
{
	t->dir = SCSI_DIR_OUT;
	t->length = scsi_range_bytes(t);
	t->transfer = vd_align_down(MIN(t->length, (uint64_t)t->out_limit), scsi_block(t->unit));
	if (t->transfer == 0)
		return scsi_good(t);
	if (!scsi_get_buf(t, (uint32_t)MIN(t->transfer, (uint64_t)SCSI_SEGMENT)))
		return scsi_no_buf(t);
	return want_more(t);
}

/* Blocks are let go while more data are fetched: what waits for others must not hold. */
static enum scsi_step orwrite_written(struct scsi_task *t)
{
	if (t->io.result < 0)
		return scsi_io_failed(t);
	t->done += t->seg_len;
	if (t->done == t->transfer)
		return scsi_good(t);
	t->holds = false;
	return want_more(t);
}

enum scsi_step scsi_orwrite(struct scsi_task *t)
{
	uint64_t at = scsi_lba_bytes(t) + t->done;

	switch (t->state) {
	case SCSI_STATE_START:
		return orwrite_start(t);
	case RECEIVED:
		if (!scsi_get_scratch(t))
			return scsi_no_buf(t);
		return scsi_start_io(t, VDISK_OP_READ, t->scratch, at, t->seg_len, 0, LOADED);
	case LOADED:
		if (t->io.result < 0)
			return scsi_io_failed(t);
		for (uint32_t i = 0; i < t->seg_len; i++)
			t->buf[i] |= t->scratch[i];
		return scsi_start_io(t, VDISK_OP_WRITE, t->buf, at, t->seg_len,
				     scsi_write_flags(t, scsi_cdb_fua(t)), WRITTEN);
	default:
		return orwrite_written(t);
	}
}

/* ---- WRITE ATOMIC (16): up to two buffers, written by one request ---- */

static enum scsi_step atomic_received(struct scsi_task *t)
{
	uint64_t len = scsi_range_bytes(t);
	enum scsi_step step;
	uint8_t *first;

	t->done += t->seg_len;
	if (t->done < len) {		/* the first half goes to the second buffer */
		if (!scsi_get_scratch(t))
			return scsi_no_buf(t);
		first = t->buf;
		t->buf = t->scratch;
		t->scratch = first;
		return want_more(t);
	}
	step = scsi_start_io(t, VDISK_OP_WRITE, t->buf, scsi_lba_bytes(t), len,
			     scsi_write_flags(t, scsi_cdb_fua(t)), WRITTEN);
	if (t->scratch) {
		t->iov[0] = (struct iovec) { .iov_base = t->scratch, .iov_len = SCSI_SEGMENT };
		t->iov[1] = (struct iovec) { .iov_base = t->buf, .iov_len = len - SCSI_SEGMENT };
		t->io.iovcnt = 2;
	}
	return step;
}

enum scsi_step scsi_write_atomic(struct scsi_task *t)
{
	uint64_t len = scsi_range_bytes(t);

	switch (t->state) {
	case SCSI_STATE_START:
		if (load_be16(t->cdb + 10) != 0)	/* an ATOMIC BOUNDARY: we have none */
			return scsi_bad_cdb(t, 10, 7);
		if (len > SCSI_MAX_ATOMIC)
			return scsi_bad_cdb(t, 12, 7);
		if (len == 0)
			return scsi_good(t);
		/* half of it cannot be done */
		if (t->out_limit < len)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_CDB);
		t->dir = SCSI_DIR_OUT;
		t->length = t->transfer = len;
		if (!scsi_get_buf(t, (uint32_t)MIN(len, (uint64_t)SCSI_SEGMENT)))
			return scsi_no_buf(t);
		return want_more(t);
	case RECEIVED:
		return atomic_received(t);
	default:
		return t->io.result < 0 ? scsi_io_failed(t) : scsi_good(t);
	}
}
