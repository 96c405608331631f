/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * requests.c - the commands of the control socket
 *
 * Each is a function in the table at the end.  A new disk comes with the
 * descriptors of all its files, in the order of their names in the request:
 * this process opens nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/passed.h"
#include "vmm-lite/vhost/front.h"
#include "vmm-lite/virtio/balloon.h"
#include "vmm-lite/vmm.h"

static json_t *disk_json(const struct vmm_disk *d)
{
	struct passed_about about = disk_about(d);

	return passed_show(&about);
}

static int show(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	json_t *a = call->answer, *disks = json_array();

	(void)err;
	json_object_set_new(a, "name", json_string(v->options.name ? v->options.name : ""));
	json_object_set_new(a, "pid", json_integer(v->options.pid));
	json_object_set_new(a, "memory", json_integer((json_int_t)v->options.memory));
	json_object_set_new(a, "balloon", json_integer((json_int_t)balloon_actual(v->balloon)));
	json_object_set_new(a, "cpus", json_integer(v->options.vcpus));
	json_object_set_new(a, "seconds", json_integer((json_int_t)passed_seconds(&v->started)));
	json_object_set_new(a, "isolate", json_boolean(v->options.isolate));
	json_object_set_new(a, "shared-memory", json_boolean(v->ram.fd >= 0));
	json_object_set_new(a, "next", json_integer(v->next_id));
	json_object_set_new(a, "resets", json_integer(v->lives - 1));
	json_object_set_new(a, "sandbox", passed_sandbox(&v->sandbox));
	for (unsigned i = 0; i < v->n_disks; i++)
		json_array_append_new(disks, disk_json(v->disk[i]));
	json_object_set_new(a, "disks", disks);
	return 0;
}

static int stats(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	json_t *disks = json_array();
	struct machine_stats s;

	(void)err;
	for (unsigned i = 0; i < v->n_disks; i++) {
		struct blk_stats b;

		if (disk_stats(v->disk[i], &b) < 0)
			continue;
		json_array_append_new(disks, passed_stats(v->disk[i]->id, &b));
	}
	json_object_set_new(call->answer, "disks", disks);
	machine_stats(v->machine, &s);
	json_object_set_new(call->answer, "exits", json_pack("{sI sI sI sI sI sI}", "all",
			    (json_int_t)s.exits, "port", (json_int_t)s.port, "serial",
			    (json_int_t)s.serial, "pci", (json_int_t)s.pci, "memory",
			    (json_int_t)s.memory, "other", (json_int_t)s.other));
	return 0;
}

static int stop(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	(void)call;
	(void)err;
	machine_power_button(v->machine);
	return 0;
}

int disk_add_passed(struct vmm *v, struct control_call *call, struct vdisk_error *err)
{
	struct passed_store store;
	struct disk_option o = { .ends = NULL };
	int r = passed_disk(&o, &store, call, err);

	if (!r && o.serial && disk_find(v, o.serial))
		r = vd_fail(err, EEXIST, "there is a disk '%s' already", o.serial);
	if (!r && !o.ends && v->options.isolate)
		r = vd_fail(err, EPERM, "this guest's disks are isolated, each in a process of its own");
	if (!r && !o.ends && !o.n_files)
		r = vd_fail(err, EINVAL, "a remote disk needs a process of its own");
	if (!r)
		r = disk_add(v, &o, err);
	if (r < 0 && o.ends)
		keeper_close_ends(o.ends);
	if (!r)
		v->disk[v->n_disks - 1]->later = true;
	return r;
}

static int attach_disk(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	struct vmm_disk *d;
	int r = disk_add_passed(v, call, err);

	if (r < 0)
		return r;
	d = v->disk[v->n_disks - 1];
	r = disk_start(v, d, err);
	if (!r)
		r = machine_plug(v->machine, d->dev, err);
	if (r < 0) {
		disk_remove(v, d, -1, NULL);
		return r;
	}
	json_object_set_new(call->answer, "id", json_string(d->id));
	return 0;
}

static int named_disk(struct vmm *v, const struct control_call *call, struct vmm_disk **out,
		      struct vdisk_error *err)
{
	const char *id = passed_text(call, "disk");

	*out = id ? disk_find(v, id) : NULL;
	if (!*out)
		return vd_fail(err, ENOENT, "there is no disk '%s'", id ? id : "");
	return 0;
}

static int detach_disk(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	struct vmm_disk *d;
	int r = named_disk(v, call, &d, err);

	if (!r)
		r = machine_unplug(v->machine, d->dev, err);
	if (!r)
		d->leaving = true;
	return r;
}

static int resize_disk(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	struct vmm_disk *d;
	uint64_t bytes;
	int r = named_disk(v, call, &d, err);

	if (!r)
		r = passed_size(call, disk_bytes(d), &bytes, err);
	if (!r)
		r = disk_resize(d, bytes, err);
	/* an isolated one's process tells of it */
	if (!r && d->disk)
		machine_config_changed(v->machine, d->dev);
	return r;
}

static int limit(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	struct blk_limits limits = { 0 };
	struct vmm_disk *d;
	int r = named_disk(v, call, &d, err);

	if (!r)
		r = passed_limits(call, &limits, err);
	if (!r)
		r = disk_limit(d, &limits, err);
	if (!r)
		d->limits = limits;
	return r;
}

/* The guest shall do with so much memory; with less than a quarter it could not live. */
static int memory(void *vmm, struct control_call *call, struct vdisk_error *err)
{
	struct vmm *v = vmm;
	json_int_t bytes = json_integer_value(json_object_get(call->request, "bytes"));
	uint64_t all = v->options.memory;

	if (bytes <= 0 || (uint64_t)bytes > all || (uint64_t)bytes < all / 4)
		return vd_fail(err, EINVAL, "memory: %" PRIu64 " to %" PRIu64 " MiB are possible",
			       all >> 22, all >> 20);
	balloon_set(v->balloon, all - (uint64_t)bytes);
	machine_config_changed(v->machine, v->balloon);
	return 0;
}

static const struct control_command commands[] = {
	{ "show", show },
	{ "stats", stats },
	{ "stop", stop },
	{ "attach-disk", attach_disk },
	{ "detach-disk", detach_disk },
	{ "resize-disk", resize_disk },
	{ "limit", limit },
	{ "memory", memory },
};

int vmm_serve(void *vmm, const char *command, struct control_call *call, struct vdisk_error *err)
{
	return control_serve(commands, ARRAY_SIZE(commands), vmm, command, call, err);
}
