/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sanitize.c - SANITIZE (SBC-3, 4.11 and 5.19): nothing that was on the medium can
 * be read back through this unit
 *
 * The operation belongs to the unit, not to the command that started it: neither
 * aborts, nor resets, nor the loss of the initiator stop it.  It runs as disk
 * requests of the target's own, one chunk after the other, and ends with a flush;
 * until then the unit is not ready, and tells how far it is.  With IMMED the
 * command is answered at once, else at the end.
 *
 * OVERWRITE writes the pattern over every block, as often as it is asked to, each
 * second time inverted if INVERT says so.  BLOCK ERASE gives all blocks back; they
 * read as zeroes.  CRYPTO ERASE is not offered: there is no key to throw away.
 * Old copies that lie below (backing files, snapshots, a file system's journal, a
 * flash translation layer) are none of what this unit shows, and stay.
 *
 * A failed operation leaves the unit refusing access to the medium until the next
 * one, or EXIT FAILURE MODE where the initiator had allowed that (AUSE).
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "target/log.h"
#include "target/scsi/op.h"

#define CHUNK	(1u << 20)

enum service_action { OVERWRITE = 1, BLOCK_ERASE = 2, LEAVE_FAILURE = 0x1f };

struct scsi_sanitize {
	struct scsi_unit *unit;		/* borrowed; NULL: it is gone meanwhile */
	struct vdisk *disk;		/* owned reference */
	uint64_t size;
	struct scsi_background background;
	bool erase;
	bool invert;
	bool stop;			/* the program ends */
	unsigned pass, passes;		/* from 0 */
	uint64_t at;			/* bytes of this pass */
	struct scsi_task *waiting;	/* without IMMED: to be answered at the end */
	uint64_t pace;			/* bytes a second, 0: no limit */
	uint8_t *chunk;			/* owned: CHUNK bytes of the pattern */
	bool inverted;			/* so it is in @chunk */
};

uint16_t scsi_sanitize_progress(const struct scsi_unit *u)
{
	const struct scsi_sanitize *s = u->sanitize;
	double total, done;

	if (!s)
		return 0;
	total = (double)s->size * s->passes;
	done = (double)s->size * s->pass + (double)s->at;
	return (uint16_t)MIN(done * 65536 / total, 65535.0);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void invert_chunk(struct scsi_sanitize *s)
{
	s->inverted = !s->inverted;
	for (uint32_t i = 0; i < CHUNK; i++)
		s->chunk[i] = (uint8_t)~s->chunk[i];
}

/* On a worker: the next chunk, and, with a limit, the time that it may not be faster than. */
static int sanitize_chunk(struct vdisk_request *req)
{
	struct scsi_sanitize *s = container_of(req, struct scsi_sanitize, background.req);
	uint64_t left = s->size - s->at, start = now_ns(), took, may;
	struct timespec ts;
	int r;

	if (left == 0)
		return vdisk_flush(s->disk);
	left = MIN(left, s->erase ? (uint64_t)CHUNK << 6 : CHUNK);
	if (s->erase)
		r = vdisk_zero(s->disk, s->at, left, VDISK_REQ_UNMAP);
	else
		r = vdisk_write(s->disk, s->chunk, (size_t)left, s->at);
	if (r < 0 || !s->pace)
		return r;
	may = left * 1000000000u / s->pace;
	took = now_ns() - start;
	if (took < may) {
		ts = (struct timespec) { .tv_sec = (time_t)((may - took) / 1000000000u),
					 .tv_nsec = (long)((may - took) % 1000000000u) };
		nanosleep(&ts, NULL);
	}
	return 0;
}

static void sanitize_free(struct scsi_sanitize *s)
{
	if (!s)
		return;
	vdisk_close(s->disk, NULL);	/* the unit has, or had, one too */
	free(s->chunk);
	free(s);
}

static void finish(struct scsi_sanitize *s, int result)
{
	struct scsi_unit *u = s->unit;
	struct scsi_task *t = s->waiting;

	if (result < 0)
		log_warnx("%s: sanitizing failed: %s", vdisk_name(s->disk), strerror(-result));
	if (u) {
		u->sanitize = NULL;
		u->gates--;
		u->sanitize_failed = result < 0;
	}
	sanitize_free(s);
	if (t) {
		t->io.result = result;
		scsi_resume(t);
	}
}

static void chunk_done(struct scsi_background *b)
{
	struct scsi_sanitize *s = container_of(b, struct scsi_sanitize, background);
	const struct vdisk_request *req = &b->req;
	bool flushed = s->at == s->size;

	if (req->result < 0 || s->stop || (flushed && s->pass + 1 >= s->passes)) {
		finish(s, req->result < 0 ? req->result : s->stop ? -ECANCELED : 0);
		return;
	}
	if (flushed) {
		s->pass++;
		s->at = 0;
		if (s->invert)
			invert_chunk(s);
	} else {
		s->at += MIN(s->size - s->at, s->erase ? (uint64_t)CHUNK << 6 : CHUNK);
	}
	scsi_background_start(b);
}

void scsi_sanitize_stop(struct scsi_unit *u)
{
	if (u->sanitize)
		u->sanitize->stop = true;
}

void scsi_sanitize_orphan(struct scsi_unit *u)
{
	if (u->sanitize)
		u->sanitize->unit = NULL;
}

enum {
	LIST = SCSI_STATE_START + 1,
	ALONE,		/* no disk request of anyone is in flight any more */
	ENDED,
};

/* The command goes, whatever the reason; an operation that has begun stays. */
static void task_end(struct scsi_task *t)
{
	sanitize_free(t->priv);
	t->priv = NULL;
	if (t->unit->sanitize && t->unit->sanitize->waiting == t)
		t->unit->sanitize->waiting = NULL;
}

/*
 * Requests that are in flight would write behind our back: wait for them, with the
 * whole unit for ourselves, by way of a flush.
 */
static enum scsi_step prepare(struct scsi_task *t, struct scsi_sanitize *s)
{
	t->priv = s;
	t->at_end = task_end;
	t->exclusive = true;
	t->lba = 0;
	t->n_blocks = t->unit->blocks;
	scsi_gate(t);
	return scsi_start_io(t, VDISK_OP_FLUSH, NULL, 0, 0, 0, ALONE);
}

/* The pattern, over and over, as far as it goes in each block */
static void fill(struct scsi_sanitize *s, const uint8_t *pattern, uint32_t len, uint32_t block)
{
	for (uint32_t at = 0; at < CHUNK; at++)
		s->chunk[at] = pattern[at % block % len];
}

static enum scsi_step start(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	struct scsi_sanitize *s = t->priv;
	bool immediate = t->cdb[1] & 0x80;

	if (t->io.result < 0)
		return scsi_io_failed(t);
	if (u->sanitize)
		return scsi_check(t, SCSI_NOT_READY, SCSI_ASC_SANITIZE_IN_PROGRESS);
	t->priv = NULL;
	t->exclusive = t->holds = false;
	s->unit = u;
	s->disk = vdisk_ref(u->disk);
	s->size = scsi_unit_bytes(u);
	s->pace = u->target->sanitize_rate;
	s->background.target = u->target;
	s->background.done = chunk_done;
	s->background.req.op = VDISK_OP_CALL;
	s->background.req.call = sanitize_chunk;
	s->background.req.disk = s->disk;
	u->sanitize = s;
	u->gates++;
	u->sanitize_failed = false;
	u->sanitize_locked = !(t->cdb[1] & 0x20);	/* AUSE */
	log_info("LUN %u of %s: sanitizing", u->lun, u->target->name);
	scsi_background_start(&s->background);
	if (immediate)
		return scsi_good(t);
	s->waiting = t;
	return scsi_wait(t, ENDED);
}

static struct scsi_sanitize *new(bool chunk)
{
	struct scsi_sanitize *s = calloc(1, sizeof(*s));

	if (s && chunk) {
		s->chunk = malloc(CHUNK);
		if (!s->chunk) {
			free(s);
			return NULL;
		}
	}
	if (s)
		s->passes = 1;
	return s;
}

static enum scsi_step no_memory(struct scsi_task *t)
{
	return scsi_check(t, SCSI_HARDWARE_ERROR, SCSI_ASC_INTERNAL_FAILURE);
}

/* 5.19.2.2: count and inversion, the pattern's length, the pattern */
static enum scsi_step overwrite(struct scsi_task *t)
{
	uint32_t block = scsi_block(t->unit), len;
	struct scsi_sanitize *s;

	if (t->transfer < 4 || t->transfer != load_be16(t->cdb + 7))
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	len = load_be16(t->buf + 2);
	if ((t->buf[0] & 0x1f) == 0)
		return scsi_bad_list(t, 0);
	if (len == 0 || len > block || len != t->transfer - 4)
		return scsi_bad_list(t, 2);
	s = new(true);
	if (!s)
		return no_memory(t);
	s->passes = t->buf[0] & 0x1f;
	s->invert = t->buf[0] & 0x80;
	fill(s, t->buf + 4, len, block);
	return prepare(t, s);
}

static enum scsi_step block_erase(struct scsi_task *t)
{
	struct scsi_sanitize *s = new(false);

	if (!s)
		return no_memory(t);
	s->erase = true;
	return prepare(t, s);
}

/* A failed one that did not allow it (AUSE) is left only by another SANITIZE. */
static enum scsi_step exit_failure(struct scsi_task *t)
{
	if (t->unit->sanitize)
		return scsi_check(t, SCSI_NOT_READY, SCSI_ASC_SANITIZE_IN_PROGRESS);
	if (t->unit->sanitize_failed && t->unit->sanitize_locked)
		return scsi_bad_cdb(t, 1, 4);
	t->unit->sanitize_failed = false;
	return scsi_good(t);
}

static enum scsi_step begin(struct scsi_task *t)
{
	uint16_t len = load_be16(t->cdb + 7);
	uint8_t action = t->cdb[1] & 0x1f;

	if (action == OVERWRITE) {
		if (len < 5 || len > scsi_block(t->unit) + 4)
			return scsi_bad_cdb(t, 7, 7);
		return scsi_want_list(t, len, LIST);
	}
	if (len)
		return scsi_bad_cdb(t, 7, 7);
	return action == BLOCK_ERASE ? block_erase(t) : exit_failure(t);
}

enum scsi_step scsi_sanitize(struct scsi_task *t)
{
	switch (t->state) {
	case SCSI_STATE_START:
		return begin(t);
	case LIST:
		return overwrite(t);
	case ALONE:
		return start(t);
	default:
		if (t->io.result < 0)
			return scsi_check(t, SCSI_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED);
		return scsi_good(t);
	}
}
