/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xcopy.c - EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4, 6.4, 6.18 to 6.20)
 *
 * Copies blocks between units of this target, inside the server: zeroes stay
 * zeroes, and blocks are shared where the file system below can
 * (vdisk_copy_range()).  A copy runs on a worker, a piece at a time, so that it can
 * be stopped in between.
 *
 * A target descriptor names a unit by one of its designators from page 83, and only
 * among those that the initiator sees through this very nexus: what it may not read
 * it cannot have copied, and what it may not write it cannot overwrite.
 *
 * Offered: identification target descriptors (E4h) and block to block segments
 * (02h).  One list at a time is held for each nexus; that is what RECEIVE COPY
 * STATUS tells about.
 */
#include <errno.h>
#include <stdlib.h>

#include "target/scsi/op.h"

#define HEADER		16u
#define TARGET_LEN	32u
#define SEGMENT_LEN	28u
#define MAX_TARGETS	16u
#define MAX_SEGMENTS	16u
#define MAX_LIST	(MAX_TARGETS * TARGET_LEN + MAX_SEGMENTS * SEGMENT_LEN)
#define PIECE		(16u << 20)	/* bytes between two looks at whether to go on */

#define IDENTIFICATION	0xe4
#define BLOCK_TO_BLOCK	0x02

#define UNREACHABLE	0x0804		/* additional sense: unreachable copy target */

struct segment {
	struct scsi_unit *src, *dst;	/* valid while unit_there() */
	struct vdisk *src_disk, *dst_disk;	/* owned references: the unit may go meanwhile */
	uint16_t src_lun, dst_lun;
	uint64_t from, to, bytes;
};

struct copy {
	uint8_t list_id;
	bool held;			/* its result may be asked for */
	struct scsi_unit *units[MAX_TARGETS];
	unsigned n_targets, n_segments;
	struct segment segments[MAX_SEGMENTS];
	unsigned at;			/* the segment under way, */
	uint64_t done;			/* and what is done of it */
	uint64_t total;
	bool flush[MAX_SEGMENTS];	/* the target has its cache off */
};

/* ---- whom a descriptor means ---- */

/* 7.8.6: has @u this designator of the logical unit (association 0)? */
static bool has_designator(const struct scsi_unit *u, const struct scsi_nexus *n, const uint8_t *d)
{
	uint8_t page[1024];
	uint32_t len = scsi_designators(u, n->target_port, page);

	if (d[3] == 0 || d[3] > 20)
		return false;
	for (uint32_t at = 0; at < len; at += 4u + page[at + 3]) {
		const uint8_t *own = page + at;

		if ((own[0] & 0x0f) == (d[0] & 0x0f) && (own[1] & 0x3f) == (d[1] & 0x3f) &&
		    (own[1] & 0x30) == 0 && own[3] == d[3] && !memcmp(own + 4, d + 4, d[3]))
			return true;
	}
	return false;
}

static struct scsi_unit *find_unit(const struct scsi_nexus *n, const uint8_t *designator)
{
	for (uint16_t lun = 0; lun < SCSI_MAX_LUNS; lun++) {
		struct scsi_unit *u = n->target->units[lun];

		if (u && !u->leaving && u->type == SCSI_DISK && scsi_view_has(n->view.visible, lun) &&
		    has_designator(u, n, designator))
			return u;
	}
	return NULL;
}

/* ---- the parameter list (6.4.3) ---- */

static enum scsi_step bad_length(struct scsi_task *t)
{
	return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
}

static enum scsi_step decode_target(struct scsi_task *t, struct copy *c, uint32_t at, bool *ok)
{
	const uint8_t *d = t->buf + at;
	uint32_t block = load_be24(d + 29);
	struct scsi_unit *u;

	*ok = false;
	if (d[0] != IDENTIFICATION)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_UNSUPPORTED_TARGET_DESCRIPTOR);
	if ((d[1] & 0x1f) != SCSI_DISK)
		return scsi_bad_list(t, (uint16_t)(at + 1));
	u = find_unit(t->nexus, d + 4);
	if (u && block && block != scsi_block(u))
		return scsi_bad_list(t, (uint16_t)(at + 29));
	c->units[c->n_targets++] = u;	/* not being there is an error when it is used */
	*ok = true;
	return SCSI_DONE;
}

static enum scsi_step decode_segment(struct scsi_task *t, struct copy *c, uint32_t at, bool *ok)
{
	const uint8_t *d = t->buf + at;
	uint16_t src = load_be16(d + 4), dst = load_be16(d + 6);
	struct segment *s = &c->segments[c->n_segments];
	uint64_t blocks = load_be16(d + 10), from = load_be64(d + 12), to = load_be64(d + 20);

	*ok = false;
	if (d[0] != BLOCK_TO_BLOCK)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_UNSUPPORTED_SEGMENT_DESCRIPTOR);
	if (load_be16(d + 2) != SEGMENT_LEN - 4)
		return scsi_bad_list(t, (uint16_t)(at + 2));
	if (src >= c->n_targets || dst >= c->n_targets || !c->units[src] || !c->units[dst])
		return scsi_check(t, SCSI_COPY_ABORTED, UNREACHABLE);
	*s = (struct segment) { .src = c->units[src], .dst = c->units[dst] };
	s->bytes = blocks << (d[1] & 0x02 ? s->dst : s->src)->block_shift;	/* DC */
	if (s->bytes % scsi_block(s->src) || s->bytes % scsi_block(s->dst) ||
	    !vd_in_range(from, s->bytes >> s->src->block_shift, s->src->blocks) ||
	    !vd_in_range(to, s->bytes >> s->dst->block_shift, s->dst->blocks))
		return scsi_check(t, SCSI_COPY_ABORTED, SCSI_ASC_NONE);
	s->src_disk = vdisk_ref(s->src->disk);
	s->dst_disk = vdisk_ref(s->dst->disk);
	s->src_lun = s->src->lun;
	s->dst_lun = s->dst->lun;
	s->from = from << s->src->block_shift;
	s->to = to << s->dst->block_shift;
	c->n_segments++;
	*ok = true;
	return SCSI_DONE;
}

/* Does the unit's state, and everyone else's claims on it, let us? */
static enum scsi_step may_use(struct scsi_task *t, const struct scsi_unit *u, bool write, bool *ok)
{
	*ok = false;
	if (scsi_reserved(u, t->nexus, write ? SCSI_RESERVED_DENY : SCSI_RESERVED_READ)) {
		t->status = SCSI_RESERVATION_CONFLICT;
		return SCSI_DONE;
	}
	if (!u->loaded || u->sanitize || u->sanitize_failed)
		return scsi_check(t, SCSI_COPY_ABORTED, SCSI_ASC_COPY_TARGET_NOT_REACHABLE);
	if (write && scsi_protected(u, t->nexus))
		return scsi_check(t, SCSI_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
	*ok = true;
	return SCSI_DONE;
}

static enum scsi_step decode_descriptors(struct scsi_task *t, struct copy *c, uint32_t targets,
					 uint32_t segments, bool *ok)
{
	enum scsi_step step = SCSI_DONE;
	uint32_t at = HEADER;

	*ok = true;
	for (; *ok && at < HEADER + targets; at += TARGET_LEN)
		step = decode_target(t, c, at, ok);
	for (; *ok && at < HEADER + targets + segments; at += SEGMENT_LEN)
		step = decode_segment(t, c, at, ok);
	for (unsigned i = 0; *ok && i < c->n_segments; i++) {
		step = may_use(t, c->segments[i].src, false, ok);
		if (*ok)
			step = may_use(t, c->segments[i].dst, true, ok);
	}
	return step;
}

static enum scsi_step decode(struct scsi_task *t, struct copy *c, bool *ok)
{
	const uint8_t *p = t->buf;
	uint64_t len = t->transfer;
	uint32_t targets, segments;

	*ok = false;
	if (len < HEADER || len != load_be32(t->cdb + 10))
		return bad_length(t);
	targets = load_be16(p + 2);
	segments = load_be32(p + 8);
	if (load_be32(p + 12) != 0)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_INLINE_DATA_LENGTH);
	if ((uint64_t)targets + segments > MIN(len - HEADER, (uint64_t)MAX_LIST))
		return bad_length(t);
	if (targets / TARGET_LEN > MAX_TARGETS)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_TOO_MANY_TARGET_DESCRIPTORS);
	/* a descriptor of a kind that we do not have may be shorter: look at it first */
	if (targets % TARGET_LEN)
		return bad_length(t);
	if (segments / SEGMENT_LEN > MAX_SEGMENTS)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_TOO_MANY_SEGMENT_DESCRIPTORS);
	if (segments >= 4 && p[HEADER + targets] != BLOCK_TO_BLOCK)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_UNSUPPORTED_SEGMENT_DESCRIPTOR);
	if (segments % SEGMENT_LEN)
		return bad_length(t);
	c->list_id = p[0];
	c->held = (p[1] & 0x18) != 0x18;	/* LIST ID USAGE 11b: there is no identifier */
	return decode_descriptors(t, c, targets, segments, ok);
}

/* ---- copying ---- */

enum {
	LIST = SCSI_STATE_START + 1,
	COPIED,
	FLUSHED,
};

/* On a worker */
static int copy_piece(struct vdisk_request *req)
{
	const struct copy *c = scsi_task_of(req)->priv;
	const struct segment *s = &c->segments[c->at];

	return vdisk_copy_range(s->dst_disk, s->to + c->done, s->src_disk, s->from + c->done,
				MIN(s->bytes - c->done, (uint64_t)PIECE));
}

/* Without a cache, what was copied has to be safe before the answer. */
static int flush_targets(struct vdisk_request *req)
{
	const struct copy *c = scsi_task_of(req)->priv;
	int r = 0;

	for (unsigned i = 0; i < c->n_segments && r == 0; i++)
		if (c->flush[i])
			r = vdisk_flush(c->segments[i].dst_disk);
	return r;
}

static void remember(struct scsi_task *t, const struct copy *c, bool failed)
{
	struct scsi_copy_status *status = &t->nexus->copy;

	if (!c->held)
		return;
	*status = (struct scsi_copy_status) {
		.list_id = c->list_id, .valid = true, .status = failed ? 2 : 1,
		.segments = (uint16_t)c->at, .bytes = c->total,
	};
	if (failed) {
		status->sense_len = t->sense_len;
		memcpy(status->sense, t->sense, t->sense_len);
	}
}

static bool unit_there(const struct scsi_task *t, const struct scsi_unit *u, uint16_t lun)
{
	return t->nexus->target->units[lun] == u && !u->leaving;
}

static enum scsi_step copy_next(struct scsi_task *t)
{
	struct copy *c = t->priv;

	while (c->at < c->n_segments && c->done == c->segments[c->at].bytes) {
		c->at++;
		c->done = 0;
	}
	if (c->at < c->n_segments) {
		const struct segment *s = &c->segments[c->at];

		/* they may have become someone else's since the last piece, or gone */
		if (!unit_there(t, s->src, s->src_lun) || !unit_there(t, s->dst, s->dst_lun))
			return scsi_check(t, SCSI_COPY_ABORTED, UNREACHABLE);
		c->flush[c->at] = !s->dst->write_cache;
		if (scsi_reserved(s->src, t->nexus, SCSI_RESERVED_READ) ||
		    scsi_reserved(s->dst, t->nexus, SCSI_RESERVED_DENY)) {
			t->status = SCSI_RESERVATION_CONFLICT;
			return SCSI_DONE;
		}
		return scsi_start_call(t, copy_piece, COPIED);
	}
	return scsi_start_call(t, flush_targets, FLUSHED);
}

static enum scsi_step copy_failed(struct scsi_task *t)
{
	if (t->io.result == -ENOSPC || t->io.result == -EDQUOT)
		scsi_check(t, SCSI_DATA_PROTECT, SCSI_ASC_SPACE_ALLOCATION_FAILED);
	else
		scsi_check(t, SCSI_COPY_ABORTED, SCSI_ASC_NONE);
	remember(t, t->priv, true);
	return SCSI_DONE;
}

static enum scsi_step copied(struct scsi_task *t)
{
	struct copy *c = t->priv;
	uint64_t n = MIN(c->segments[c->at].bytes - c->done, (uint64_t)PIECE);

	if (t->io.result < 0)
		return copy_failed(t);
	c->done += n;
	c->total += n;
	if (unit_there(t, c->segments[c->at].dst, c->segments[c->at].dst_lun) &&
	    c->segments[c->at].dst->watching)
		scsi_watch(c->segments[c->at].dst, n);
	return copy_next(t);
}

static void task_end(struct scsi_task *t)
{
	const struct copy *c = t->priv;

	for (unsigned i = 0; i < MAX_SEGMENTS; i++) {
		vdisk_close(c->segments[i].src_disk, NULL);
		vdisk_close(c->segments[i].dst_disk, NULL);
	}
	free(t->priv);
	t->priv = NULL;
}

static enum scsi_step begin(struct scsi_task *t)
{
	struct copy *c = calloc(1, sizeof(*c));
	enum scsi_step step;
	bool ok;

	if (!c)
		return scsi_no_buf(t);
	t->priv = c;
	t->at_end = task_end;
	step = decode(t, c, &ok);
	return ok ? copy_next(t) : step;
}

enum scsi_step scsi_extended_copy(struct scsi_task *t)
{
	uint32_t len = load_be32(t->cdb + 10);

	switch (t->state) {
	case SCSI_STATE_START:
		if (len == 0)
			return scsi_good(t);
		if (len > SCSI_SEGMENT)
			return bad_length(t);
		return scsi_want_list(t, len, LIST);
	case LIST:
		return begin(t);
	case COPIED:
		return copied(t);
	default:
		if (t->io.result < 0)
			return copy_failed(t);
		remember(t, t->priv, false);
		return scsi_good(t);
	}
}

/* ---- RECEIVE COPY RESULTS ---- */

static uint32_t copy_status(const struct scsi_copy_status *s, uint8_t *p)
{
	store_be32(p, 8);
	p[4] = (uint8_t)(0x80 | s->status);	/* HDD: nothing is held besides */
	store_be16(p + 5, s->segments);
	p[7] = 1;				/* in KiB */
	store_be32(p + 8, (uint32_t)MIN(s->bytes >> 10, (uint64_t)UINT32_MAX));
	return 12;
}

static uint32_t operating_parameters(uint8_t *p)
{
	store_be16(p + 8, MAX_TARGETS);
	store_be16(p + 10, MAX_SEGMENTS);
	store_be32(p + 12, MAX_LIST);
	store_be32(p + 16, 0xffffu << 12);	/* a segment's bytes: 16 bits of blocks */
	store_be16(p + 34, 255);		/* copies at once, */
	p[36] = 255;
	p[37] = 9;				/* in units of 512 bytes */
	p[43] = 2;				/* descriptor types: */
	p[44] = BLOCK_TO_BLOCK;
	p[45] = IDENTIFICATION;
	store_be32(p, 46 - 4);
	return 46;
}

static uint32_t failure_details(const struct scsi_copy_status *s, uint8_t *p)
{
	p[56] = SCSI_CHECK_CONDITION;
	store_be16(p + 58, s->sense_len);
	memcpy(p + 60, s->sense, s->sense_len);
	store_be32(p, 60u + s->sense_len - 4);
	return 60u + s->sense_len;
}

enum scsi_step scsi_receive_copy(struct scsi_task *t)
{
	enum { STATUS = 0, PARAMETERS = 3, DETAILS = 4 };
	struct scsi_copy_status *s = &t->nexus->copy;
	uint32_t alloc = load_be32(t->cdb + 10);
	uint8_t action = t->cdb[1] & 0x1f;

	if (action != PARAMETERS && (!s->valid || s->list_id != t->cdb[2]))
		return scsi_bad_cdb(t, 2, 7);
	if (action == DETAILS && s->status != 2)
		return scsi_bad_cdb(t, 2, 7);
	if (!scsi_get_buf(t, 128))
		return scsi_no_buf(t);
	memset(t->buf, 0, 128);
	if (action == PARAMETERS)
		return scsi_reply(t, operating_parameters(t->buf), alloc);
	if (action == STATUS)
		return scsi_reply(t, copy_status(s, t->buf), alloc);
	s->valid = false;		/* told once */
	return scsi_reply(t, failure_details(s, t->buf), alloc);
}
