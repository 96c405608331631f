/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * scsi_world.h - a target on disks in memory with several initiators, driven as a
 * transport drives it; for unit tests and the fuzzer.  Disk requests are run to
 * their end at once, those of the target's own when world_pump() is called.
 */
#ifndef SCSI_WORLD_H
#define SCSI_WORLD_H

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "core/compiler.h"
#include "target/reactor/pool.h"
#include "target/scsi/op.h"

#define WORLD_DISK	(1u << 20)
#define WORLD_NEXUSES	3u
#define WORLD_IN	(64u << 10)	/* bytes that an initiator has room for */

struct world {
	struct vdisk *disk[3];
	struct vdisk_queue *queue;
	struct pool *pool;
	struct scsi_target *target;
	struct scsi_nexus nexus[WORLD_NEXUSES];
	struct vdisk_request *background[8];	/* of the target's own: one for each unit and purpose */
	unsigned n_background;
};

/* A command under way. */
struct act {
	struct scsi_task t;
	struct world *w;
	const uint8_t *out;
	uint32_t out_len;
	uint8_t in[WORLD_IN];
	uint32_t in_len;
	bool over, aborted;
	bool hold_io;		/* stop before the disk request, until act_go() */
	bool held;
};

static inline void world_io(struct world *w, struct vdisk_request *req)
{
	struct vdisk_request *done;
	int n;

	vdisk_queue_submit(w->queue, &req, 1);
	do		/* the fuzzer has a timer */
		n = vdisk_queue_reap(w->queue, &done, 1, -1);
	while (n == -EINTR);
	assert(n == 1 && done == req);
	(void)n;
}

static inline void act_step(struct act *a, enum scsi_step step)
{
	struct scsi_task *t = &a->t;

	for (;; step = scsi_step(t)) {
		switch (step) {
		case SCSI_IO:
			if (a->hold_io) {
				a->held = true;
				return;
			}
			world_io(a->w, &t->io);
			if (t->aborted)
				goto over;
			break;
		case SCSI_DATA_OUT:
			assert(t->seg_offset + t->seg_len <= a->out_len);
			memcpy(t->buf, a->out + t->seg_offset, t->seg_len);
			break;
		case SCSI_DATA_IN:
			assert(t->seg_offset + t->seg_len <= WORLD_IN);
			memcpy(a->in + t->seg_offset, t->buf, t->seg_len);
			a->in_len += t->seg_len;
			if (t->last)
				goto over;
			break;
		case SCSI_WAIT:
			return;
		case SCSI_DONE:
			goto over;
		}
	}
over:
	a->over = true;
	scsi_finish(t);
}

static inline void act_start(struct act *a, struct world *w, unsigned nexus, uint8_t lun,
			     uint8_t attribute, const uint8_t *cdb, size_t cdb_len,
			     const uint8_t *out, uint32_t out_len)
{
	memset(&a->t, 0, sizeof(a->t));
	a->w = w;
	a->out = out;
	a->out_len = out_len;
	a->in_len = 0;
	a->over = a->aborted = a->held = false;
	a->t.nexus = &w->nexus[nexus];
	a->t.pool = w->pool;
	a->t.lun[1] = lun;
	a->t.attribute = attribute;
	memcpy(a->t.cdb, cdb, cdb_len);
	a->t.out_limit = out_len;
	a->t.in_limit = WORLD_IN;
	act_step(a, scsi_start(&a->t));
}

/* The disk request that was held back is done now. */
static inline void act_go(struct act *a)
{
	a->hold_io = a->held = false;
	world_io(a->w, &a->t.io);
	if (a->t.aborted) {
		a->over = true;
		scsi_finish(&a->t);
	} else {
		act_step(a, scsi_step(&a->t));
	}
}

static inline void act_abort(struct scsi_task *t)
{
	struct act *a = container_of(t, struct act, t);

	t->aborted = true;
	a->aborted = true;
	if (a->held)
		return;
	a->over = true;
	scsi_finish(t);
}

static inline void act_resume(struct scsi_task *t)
{
	act_step(container_of(t, struct act, t), scsi_step(t));
}

static const struct scsi_nexus_ops act_ops = { .abort = act_abort, .resume = act_resume };

static inline void world_submit(struct scsi_target *target, struct vdisk_request *req)
{
	struct world *w = target->owner;

	assert(w->n_background < ARRAY_SIZE(w->background));
	w->background[w->n_background++] = req;
}

static const struct scsi_target_ops world_ops = { .submit = world_submit };

/* Run the target's own requests; at most @max. */
static inline void world_pump(struct world *w, unsigned max)
{
	while (w->n_background && max--) {
		struct vdisk_request *req = w->background[0];

		memmove(w->background, w->background + 1, --w->n_background * sizeof(req));
		world_io(w, req);
		scsi_background_done(req);
	}
}

static inline void world_connect(struct world *w, unsigned i)
{
	struct scsi_port port;
	char text[64];
	int r;

	snprintf(text, sizeof(text), "iqn.2026-11.test:Initiator%u,i,0x00023d00000%u", i, i);
	r = scsi_port_iscsi(&port, text);
	assert(r == 0);
	(void)r;
	scsi_nexus_init(&w->nexus[i], w->target, &act_ops, &port, 1);
}

/* LUN 0: a disk that keeps its reservations, 1: removable, 2: a CD-ROM. */
static inline void world_open(struct world *w)
{
	static const struct scsi_unit_opts opts[3] = {
		{ .type = SCSI_DISK }, { .removable = true }, { .type = SCSI_CDROM },
	};
	int r = vdisk_queue_new(&w->queue, NULL, NULL);

	w->n_background = 0;
	w->pool = pool_new(16u << 20);
	w->target = scsi_target_new("iqn.2026-11.test:world");
	assert(r == 0 && w->pool && w->target);
	w->target->ops = &world_ops;
	w->target->owner = w;
	for (uint16_t i = 0; i < 3; i++) {
		r = vdisk_open_memory(&w->disk[i], WORLD_DISK, NULL);
		assert(r == 0);
		r = scsi_target_add_unit(w->target, i, w->disk[i], &opts[i], NULL);
		assert(r == 0);
	}
	(void)r;
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		world_connect(w, i);
}

/* No command may be under way. */
static inline void world_close(struct world *w)
{
	int r;

	while (!scsi_target_quiesce(w->target))
		world_pump(w, 1);
	for (unsigned i = 0; i < WORLD_NEXUSES; i++)
		scsi_nexus_fini(&w->nexus[i]);
	assert(pool_used(w->pool) == 0);
	r = scsi_target_free(w->target, NULL);
	assert(r == 0);
	(void)r;
	for (unsigned i = 0; i < 3; i++)
		vdisk_close(w->disk[i], NULL);
	vdisk_queue_free(w->queue);
	pool_free(w->pool);
}

#endif
