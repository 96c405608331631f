/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * carry.c - what outlives a reset that is a new process
 *
 * The launcher starts a process for each of the guest's lives, with the disks that it
 * was given first.  What happened to them since is left for the next process in a pair
 * of sockets that the launcher holds (seqpacket: a message each): one message for all
 * those that the guest still has, one, like the request attach-disk, for each disk that
 * came later, with its files.  Their locks wait with the descriptors.
 *
 * The one that left the messages may have been taken over by its guest.  So they are
 * read when this process can no longer open anything, and say nothing that the control
 * socket could not say.
 */
#include <errno.h>
#include <stdio.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/passed.h"
#include "vmm-lite/vhost/front.h"
#include "vmm-lite/vmm.h"

/* ---- leaving it ---- */

/* Those that it was started with, as far as the guest has them still. */
static int leave_first(const struct vmm *v)
{
	json_t *has = json_object();

	for (unsigned i = 0; i < v->n_disks; i++)
		if (!v->disk[i]->later && !v->disk[i]->leaving)
			json_object_set_new(has, v->disk[i]->id,
					    passed_limits_json(&v->disk[i]->limits));
	return passed_leave_first(v->options.carry_fd, has, v->next_id);
}

/* Its files, or the ends of its process, which starts again for its next user. */
static int leave_disk(const struct vmm *v, struct vmm_disk *d)
{
	struct passed_about about = disk_about(d);
	struct vdisk_open_file files[CONTROL_FDS_MAX];
	struct keeper_ends ends = { .channel = -1 };
	unsigned n = 0;
	int r;

	/* what is left is no more and no less than what was attached */
	about.format = d->format;
	about.read_only = d->read_only;
	if (d->disk)
		n = vdisk_list_files(d->disk, files, CONTROL_FDS_MAX);
	else
		ends = front_ends(d->front);
	r = passed_leave_disk(v->options.carry_fd, &about, &ends, files, n);
	d->left = !r && !d->disk;
	return r;
}

void carry_out(struct vmm *v)
{
	int r;

	if (v->options.carry_fd < 0)
		return;
	r = leave_first(v);
	if (r < 0)
		log_warnx("disks: what has changed cannot be left for the next life: %s", strerror(-r));
	for (unsigned i = 0; !r && i < v->n_disks; i++) {
		struct vmm_disk *d = v->disk[i];
		bool lost = !d->disk && front_lost(d->front);
		int left = d->later && !d->leaving && !lost ? leave_disk(v, d) : 0;

		if (left < 0)
			log_warnx("%s: %s does not outlive this reset: %s", d->id, d->locator,
				  strerror(-left));
	}
}

/* ---- finding it ---- */

static int find_first(struct vmm *v, const json_t *message, struct vdisk_error *err)
{
	const json_t *has = json_object_get(message, "has");
	json_int_t next = json_integer_value(json_object_get(message, "next"));
	int r = 0;

	for (unsigned i = v->n_disks; !r && i-- > 0; ) {
		struct vmm_disk *d = v->disk[i];
		const char *limits = json_string_value(json_object_get(has, d->id));

		if (!limits)
			r = disk_remove(v, d, -1, err);
		else if (words_limits(limits, &d->limits) < 0)
			r = vd_fail(err, EPROTO, "%s: '%.80s' are no limits", d->id, limits);
	}
	if (next > (json_int_t)v->next_id && next < 1 << 30)
		v->next_id = (unsigned)next;
	return r;
}

static int find_disk(struct vmm *v, struct control_call *call, struct vdisk_error *err)
{
	const char *id = json_string_value(json_object_get(call->request, "id"));
	struct vmm_disk *d;
	int r;

	if (!id || strlen(id) >= sizeof(d->id) || disk_find(v, id))
		return vd_fail(err, EPROTO, "a disk without an id of its own was left");
	r = disk_add_passed(v, call, err);
	if (r < 0)
		return r;
	d = v->disk[v->n_disks - 1];
	snprintf(d->id, sizeof(d->id), "%s", id);
	v->next_id--;	/* it took none */
	return 0;
}

static int find_one(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;

	return json_object_get(call->request, "has") ? find_first(v, call->request, err) :
						       find_disk(v, call, err);
}

int carry_in(struct vmm *v, struct vdisk_error *err)
{
	return v->options.carry_fd < 0 ? 0 : passed_find(v->options.carry_fd, find_one, v, err);
}
