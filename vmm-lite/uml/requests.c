/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * requests.c - the commands of the control socket, for a guest on User-Mode Linux
 *
 * The protocol is vmm-lite(8)'s; what User-Mode Linux cannot do is refused by name.
 */
#include <errno.h>
#include <string.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/passed.h"
#include "vmm-lite/uml/uml.h"

static struct passed_about about(struct uml_disk *d)
{
	return (struct passed_about) {
		.id = d->id, .locator = d->locator, .serial = d->serial,
		.cache = words_cache_name(d->cache), .format = d->format, .limits = &d->limits,
		.bytes = d->bytes, .block_size = d->block_size, .keep_raw = d->keep_raw, .read_only = d->read_only,
		.leaving = d->leaving, .isolated = true, .process = relay_pid(d->relay),
		.restarts = relay_restarts(d->relay), .lost = d->lost,
	};
}

static json_t *disk_json(struct uml_disk *d)
{
	struct passed_about a;
	struct blk_stats s;

	(void)uml_disk_stats(d, &s);	/* its size, too; else the last one that it told */
	a = about(d);
	return passed_show(&a);
}

static int show(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;
	json_t *a = call->answer, *disks = json_array();

	(void)err;
	json_object_set_new(a, "name", json_string(u->options.name ? u->options.name : ""));
	json_object_set_new(a, "engine", json_string("uml"));
	json_object_set_new(a, "pid", json_integer(u->kernel));
	json_object_set_new(a, "memory", json_integer((json_int_t)u->options.memory));
	json_object_set_new(a, "cpus", json_integer(1));
	json_object_set_new(a, "seconds", json_integer((json_int_t)passed_seconds(&u->started)));
	/* each disk has a process of its own, also one that is attached */
	json_object_set_new(a, "isolate", json_true());
	json_object_set_new(a, "shared-memory", json_true());
	json_object_set_new(a, "next", json_integer(u->next_id));
	json_object_set_new(a, "resets", json_integer(0));
	json_object_set_new(a, "sandbox", passed_sandbox(&u->sandbox));
	/* its first process has come to where it takes and gives back devices */
	json_object_set_new(a, "agent", json_boolean(u->agent_ready));
	for (unsigned i = 0; i < u->n_disks; i++)
		json_array_append_new(disks, disk_json(u->disk[i]));
	json_object_set_new(a, "disks", disks);
	return 0;
}

static int stats(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;
	json_t *disks = json_array();

	(void)err;
	for (unsigned i = 0; i < u->n_disks; i++) {
		struct blk_stats b;

		if (uml_disk_stats(u->disk[i], &b) == 0)
			json_array_append_new(disks, passed_stats(u->disk[i]->id, &b));
	}
	json_object_set_new(call->answer, "disks", disks);
	return 0;
}

static int need_agent(const struct uml *u, struct vdisk_error *err)
{
	return u->agent_ready ? 0 : vd_fail(err, EAGAIN, "the guest is not up yet: try again");
}

static int stop(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;
	int r = need_agent(u, err);

	(void)call;
	if (!r && uml_agent_tell(u, "poweroff\n") < 0)
		r = vd_fail(err, EIO, "nobody in the guest listens any more");
	return r;
}

static int add_passed(struct uml *u, struct control_call *call, struct vdisk_error *err)
{
	struct passed_store store;
	struct disk_option o = { .ends = NULL };
	int r = passed_disk(&o, &store, call, err);

	if (!r && !o.ends)
		return vd_fail(err, EPERM, "this guest's disks are isolated, each in a process of its own");
	if (!r && o.serial && uml_disk_find(u, o.serial))
		r = vd_fail(err, EEXIST, "there is a disk '%s' already", o.serial);
	if (r < 0) {
		if (o.ends)
			keeper_close_ends(o.ends);
		return r;
	}
	return uml_disk_add(u, &o, true, err);
}

static int attach_disk(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;
	struct uml_disk *d;
	int r = need_agent(u, err);

	if (!r)
		r = add_passed(u, call, err);
	if (r < 0)
		return r;
	d = u->disk[u->n_disks - 1];
	if (uml_agent_tell(u, "bind %u\n", d->slot) < 0) {
		d->leaving = true;
		uml_disk_remove(u, d);
		return vd_fail(err, EIO, "nobody in the guest listens any more");
	}
	json_object_set_new(call->answer, "id", json_string(d->id));
	return 0;
}

static int named_disk(struct uml *u, const struct control_call *call, struct uml_disk **out,
		      struct vdisk_error *err)
{
	const char *id = passed_text(call, "disk");

	*out = id ? uml_disk_find(u, id) : NULL;
	return *out ? 0 : vd_fail(err, ENOENT, "there is no disk '%s'", id ? id : "");
}

static int detach_disk(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;
	struct uml_disk *d;
	int r = named_disk(u, call, &d, err);

	if (!r && d->leaving)
		return 0;
	if (!r)
		r = need_agent(u, err);
	if (!r && uml_agent_tell(u, "unbind %u\n", d->slot) < 0)
		r = vd_fail(err, EIO, "nobody in the guest listens any more");
	if (!r)
		d->leaving = true;
	return r;
}

static int resize_disk(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;
	struct uml_disk *d;
	struct blk_stats s;
	uint64_t bytes;
	int r = named_disk(u, call, &d, err);

	if (!r && uml_disk_stats(d, &s) < 0)
		r = vd_fail(err, ETIMEDOUT, "%s: its process does not answer", d->locator);
	if (!r)
		r = passed_size(call, d->bytes, &bytes, err);
	return r ? r : vhost_lines_resize(&d->lines, bytes, err);
}

static int limit(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;
	struct blk_limits limits;
	struct uml_disk *d;
	int r = named_disk(u, call, &d, err);

	if (!r)
		r = passed_limits(call, &limits, err);
	return r ? r : uml_disk_limit(d, &limits, err);
}

static int memory(void *uml, struct control_call *call, struct vdisk_error *err)
{
	(void)uml;
	(void)call;
	return vd_fail(err, ENOTSUP, "User-Mode Linux has no balloon: its memory stays as it is");
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

int uml_serve(void *uml, const char *command, struct control_call *call, struct vdisk_error *err)
{
	return control_serve(commands, ARRAY_SIZE(commands), uml, command, call, err);
}

/* ---- what one life leaves to the next ---- */

void uml_carry_out(struct uml *u)
{
	json_t *has;
	int r;

	if (u->options.carry_fd < 0)
		return;
	has = json_object();
	for (unsigned i = 0; i < u->n_disks; i++)
		if (!u->disk[i]->later && !u->disk[i]->leaving)
			json_object_set_new(has, u->disk[i]->id,
					    passed_limits_json(&u->disk[i]->limits));
	r = passed_leave_first(u->options.carry_fd, has, u->next_id);
	if (r < 0)
		log_warnx("disks: what has changed cannot be left for the next life: %s", strerror(-r));
	for (unsigned i = 0; !r && i < u->n_disks; i++) {
		struct uml_disk *d = u->disk[i];
		struct passed_about a = about(d);
		struct keeper_ends ends = d->ends;
		bool stays = d->later && !d->leaving && !d->lost;
		int left = 0;

		ends.control = d->lines.fd;
		if (stays)
			left = passed_leave_disk(u->options.carry_fd, &a, &ends, NULL, 0);
		if (left < 0)
			log_warnx("%s: %s does not outlive this reset: %s", d->id, d->locator,
				  strerror(-left));
		d->left = stays && !left;
	}
}

/* Of those of the command line, the ones that the guest still has, with their limits. */
static int find_first(struct uml *u, const json_t *message, struct vdisk_error *err)
{
	const json_t *has = json_object_get(message, "has");
	json_int_t next = json_integer_value(json_object_get(message, "next"));
	int r = 0;

	for (unsigned i = u->n_disks; !r && i-- > 0; ) {
		struct uml_disk *d = u->disk[i];
		const char *limits = json_string_value(json_object_get(has, d->id));

		if (!limits) {
			d->leaving = true;	/* the slot stays free */
			uml_disk_remove(u, d);
		} else if (words_limits(limits, &d->limits) < 0) {
			r = vd_fail(err, EPROTO, "%s: '%.80s' are no limits", d->id, limits);
		} else {
			r = vhost_lines_limit(&d->lines, &d->limits, err);
		}
	}
	if (next > (json_int_t)u->next_id && next < 1 << 30)
		u->next_id = (unsigned)next;
	return r;
}

static int find_disk(struct uml *u, struct control_call *call, struct vdisk_error *err)
{
	const char *id = passed_text(call, "id");
	struct uml_disk *d;
	int r;

	if (!id || strlen(id) >= sizeof(d->id) || uml_disk_find(u, id))
		return vd_fail(err, EPROTO, "a disk without an id of its own was left");
	r = add_passed(u, call, err);
	if (r < 0)
		return r;
	d = u->disk[u->n_disks - 1];
	memset(d->id, 0, sizeof(d->id));
	memcpy(d->id, id, strlen(id));
	u->next_id--;	/* it took none */
	return 0;
}

static int find_one(void *uml, struct control_call *call, struct vdisk_error *err)
{
	struct uml *u = uml;

	return json_object_get(call->request, "has") ? find_first(u, call->request, err) :
						       find_disk(u, call, err);
}

int uml_carry_in(struct uml *u, struct vdisk_error *err)
{
	return u->options.carry_fd < 0 ? 0 : passed_find(u->options.carry_fd, find_one, u, err);
}
