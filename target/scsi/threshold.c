/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * threshold.c - soft thresholds of logical block provisioning (SBC-3, 4.7.3.7 and 6.5.9)
 *
 * Two of them: little is left for the unit (what is available falls), much is used
 * (what is used rises).  Initiators set them by MODE SELECT and the administrator
 * sets the first one as the default.  When one is reached, every nexus gets one unit
 * attention; the threshold speaks again only after it was left in between.
 *
 * To count means to walk the unit's map, so it happens in the background, at most
 * once at a time, after every thousandth of the unit (and at least a MiB) that was
 * written or given back: a threshold is found that much too late at the most.
 *
 * Invariant: unit->watch is the count under way; whoever takes the unit away has it
 * forget the unit, and the count frees itself when it comes back.
 */
#include <errno.h>
#include <stdlib.h>

#include "target/log.h"
#include "target/scsi/op.h"

struct scsi_watch {
	struct scsi_background background;
	struct scsi_unit *unit;		/* borrowed; NULL: it is gone meanwhile */
	struct vdisk *disk;		/* owned reference */
	uint64_t size;
	uint64_t figure[SCSI_THRESHOLDS];	/* bytes */
};

static bool watching(const struct scsi_unit *u)
{
	const struct scsi_thresholds *th = &u->thresholds;

	return th->report && (th->at[SCSI_AVAILABLE].enabled || th->at[SCSI_USED].enabled) &&
	       u->limits.can_discard;
}

static uint64_t interval(const struct scsi_unit *u)
{
	return MAX((uint64_t)1 << 20, scsi_unit_bytes(u) >> 10);
}

/* On a worker */
static int count(struct vdisk_request *req)
{
	struct scsi_watch *w = container_of(req, struct scsi_watch, background.req);

	return scsi_provisioning(w->disk, w->size, &w->figure[SCSI_USED], &w->figure[SCSI_AVAILABLE]);
}

/* The threshold set is a range of counts; inside it or beyond, it is reached. */
static bool reached(const struct scsi_unit *u, unsigned which, uint64_t bytes)
{
	uint64_t sets = bytes >> (SCSI_THRESHOLD_SHIFT + u->block_shift);

	return which == SCSI_AVAILABLE ? sets <= u->thresholds.at[which].count :
					 sets >= u->thresholds.at[which].count;
}

static void judge(struct scsi_unit *u, const uint64_t figure[SCSI_THRESHOLDS])
{
	for (unsigned i = 0; i < SCSI_THRESHOLDS; i++) {
		bool now = u->thresholds.at[i].enabled && reached(u, i, figure[i]);

		if (now && !u->reached[i]) {
			u->reached_last = (uint8_t)i;
			log_info("LUN %u of %s: %llu MiB %s: the threshold is reached", u->lun,
				 u->target->name, (unsigned long long)figure[i] >> 20,
				 i == SCSI_AVAILABLE ? "are left" : "are used");
			scsi_attention_all(u, NULL, SCSI_ASC_THRESHOLD_REACHED);
		}
		u->reached[i] = now;
	}
}

static void counted(struct scsi_background *b)
{
	struct scsi_watch *w = container_of(b, struct scsi_watch, background);
	struct scsi_unit *u = w->unit;

	if (u) {
		u->watch = NULL;
		if (b->req.result == 0)
			judge(u, w->figure);
		if (u->unwatched >= interval(u))	/* more was written meanwhile */
			scsi_watch(u, 0);
	}
	vdisk_close(w->disk, NULL);	/* the unit has, or had, one too */
	free(w);
}

void scsi_watch(struct scsi_unit *u, uint64_t bytes)
{
	struct scsi_watch *w;

	u->unwatched = u->unwatched > UINT64_MAX - bytes ? UINT64_MAX : u->unwatched + bytes;
	if (u->watch || u->leaving || !u->target->ops || u->unwatched < interval(u))
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		return;		/* the next write tries again */
	*w = (struct scsi_watch) {
		.background = { .target = u->target, .done = counted },
		.unit = u, .disk = vdisk_ref(u->disk), .size = scsi_unit_bytes(u),
	};
	w->background.req.op = VDISK_OP_CALL;
	w->background.req.call = count;
	w->background.req.disk = w->disk;
	u->watch = w;
	u->unwatched = 0;
	scsi_background_start(&w->background);
}

void scsi_watch_orphan(struct scsi_unit *u)
{
	if (u->watch)
		u->watch->unit = NULL;
}

void scsi_set_thresholds(struct scsi_unit *u, const struct scsi_thresholds *to)
{
	u->thresholds = *to;
	u->reached[SCSI_AVAILABLE] = u->reached[SCSI_USED] = false;
	u->watching = watching(u);
	if (u->watching)
		scsi_watch(u, UINT64_MAX);	/* it may be reached already */
}

void scsi_unit_set_threshold(struct scsi_unit *u, uint8_t percent)
{
	struct scsi_thresholds th;

	if (u->threshold_percent == percent)
		return;
	u->threshold_percent = percent;
	th = scsi_default_thresholds(u);
	scsi_set_thresholds(u, &th);
}

struct scsi_thresholds scsi_default_thresholds(const struct scsi_unit *u)
{
	struct scsi_thresholds th = { 0 };

	if (u->threshold_percent) {
		th.report = true;
		th.at[SCSI_AVAILABLE].enabled = true;
		th.at[SCSI_AVAILABLE].count = (uint32_t)MIN(
			(u->blocks >> SCSI_THRESHOLD_SHIFT) * u->threshold_percent / 100,
			(uint64_t)UINT32_MAX);
	}
	return th;
}
