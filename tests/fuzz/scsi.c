/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands and their parameter lists, from three initiators to three units.
 *
 * The input is a list of commands: a byte that says who (bits 0 and 1), which
 * attribute (2 and 3), whether its disk request comes back later (4), and (7) that
 * this is a task management function instead; a byte for the LUN and how much of
 * the operation in the background goes on meanwhile; the 16 bytes of the CDB; a byte
 * for the length of its data, in units of four; and those.
 */
#include "tests/lib/scsi_world.h"

#define MAX_ACTS 24u

static unsigned tmfs_waiting;

static void tmf_done(struct scsi_tmf *tmf)
{
	tmfs_waiting--;
	free(tmf);
}

static void start_tmf(struct world *w, uint8_t who, uint8_t lun, uint8_t function)
{
	static const enum scsi_tmf_function functions[] = {
		SCSI_ABORT_TASK_SET, SCSI_CLEAR_TASK_SET, SCSI_LUN_RESET, SCSI_TARGET_RESET,
		SCSI_NEXUS_LOSS,
	};
	struct scsi_tmf *tmf = calloc(1, sizeof(*tmf));

	assert(tmf);
	tmf->function = functions[function % ARRAY_SIZE(functions)];
	tmf->nexus = &w->nexus[who];
	tmf->unit = function % ARRAY_SIZE(functions) < 3 ? w->target->units[lun % 3] : NULL;
	tmf->done = tmf_done;
	tmfs_waiting++;
	scsi_tmf_start(tmf);
}

static struct act *free_act(struct act *acts)
{
	for (unsigned i = 0; i < MAX_ACTS; i++)
		if (acts[i].over)
			return &acts[i];
	return NULL;
}

/* One record; the bytes that it took, 0 when the input is over. */
static size_t one(struct world *w, struct act *acts, const uint8_t *p, size_t size)
{
	struct act *a = free_act(acts);
	uint32_t len;

	if (size < 19 || !a)
		return 0;
	world_pump(w, p[1] >> 4);
	if (p[0] & 0x80) {
		start_tmf(w, p[0] % WORLD_NEXUSES, p[1] & 3, p[2]);
		return 3;
	}
	len = p[18] * 4u;
	if (len > size - 19)
		return 0;
	a->hold_io = p[0] & 0x10;
	act_start(a, w, (p[0] & 3) % WORLD_NEXUSES, p[1] & 3, (p[0] >> 2 & 3) % 3, p + 2, 16,
		  p + 19, len);
	/* the oldest one that was held comes back at the latest when places get few */
	for (unsigned i = 0; i < MAX_ACTS && !free_act(acts); i++)
		if (acts[i].held)
			act_go(&acts[i]);
	return 19 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct act acts[MAX_ACTS];
	struct world w = { .n_background = 0 };
	size_t n;
	int fd = memfd_create("state", MFD_CLOEXEC), r;

	world_open(&w);
	r = scsi_unit_restore(w.target->units[0], fd, NULL);
	assert(r == 0);
	(void)r;
	for (unsigned i = 0; i < MAX_ACTS; i++)
		acts[i] = (struct act) { .over = true };
	while ((n = one(&w, acts, data, size))) {
		data += n;
		size -= n;
	}
	for (bool again = true; again; ) {	/* each may hold up others */
		again = false;
		for (unsigned i = 0; i < MAX_ACTS; i++)
			if (!acts[i].over && acts[i].held) {
				act_go(&acts[i]);
				again = true;
			}
	}
	world_pump(&w, UINT32_MAX);
	for (unsigned i = 0; i < MAX_ACTS; i++)
		assert(acts[i].over);		/* nobody waits for ever */
	assert(tmfs_waiting == 0);
	world_close(&w);
	return 0;
}
