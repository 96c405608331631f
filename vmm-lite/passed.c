/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* passed.c - see passed.h */
#include "vmm-lite/passed.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/driver.h"
#include "core/fds.h"

const char *passed_text(const struct control_call *call, const char *key)
{
	return json_string_value(json_object_get(call->request, key));
}

static int options_of(struct disk_option *o, const struct control_call *call,
		      struct vdisk_error *err)
{
	const char *cache = passed_text(call, "cache"), *limits = passed_text(call, "limits");
	const json_t *block = json_object_get(call->request, "block-size");
	json_int_t block_size = json_integer_value(block);

	if (cache && words_cache(cache, &o->cache) < 0)
		return vd_fail(err, EINVAL, "cache is " words_cache_help ", not '%.40s'", cache);
	if (o->serial && !words_serial_ok(o->serial))
		return vd_fail(err, EINVAL, "serial is " words_serial_help ", not '%.40s'", o->serial);
	if (block && block_size != 512 && block_size != 4096)
		return vd_fail(err, EINVAL, "block-size is " words_block_size_help);
	o->block_size = (uint32_t)block_size;
	o->keep_raw = json_is_true(json_object_get(call->request, "keep-raw"));
	if (limits && words_limits(limits, &o->limits) < 0)
		return vd_fail(err, EINVAL, "'%.80s' are no limits", limits);
	return 0;
}

static int take_files(struct disk_option *o, struct passed_store *store,
		      const struct control_call *call, struct vdisk_error *err)
{
	json_t *names = json_object_get(call->request, "files");

	if (json_array_size(names) != call->n_fds || (!call->n_fds && !vdisk_is_remote(o->locator)))
		return vd_fail(err, EINVAL, "attach-disk: a locator, and a descriptor for each of "
			       "\"files\" are needed");
	for (unsigned i = 0; i < call->n_fds; i++) {
		store->files[i].path = json_string_value(json_array_get(names, i));
		store->files[i].fd = call->fds[i];
		if (!store->files[i].path)
			return vd_fail(err, EINVAL, "attach-disk: \"files\" are names");
	}
	o->files = store->files;
	o->n_files = call->n_fds;
	return 0;
}

static int take_ends(struct disk_option *o, struct passed_store *store, struct control_call *call,
		     struct vdisk_error *err)
{
	if (call->n_fds != 4 || json_object_get(call->request, "files"))
		return vd_fail(err, EINVAL, "attach-disk: an isolated disk has four descriptors and no "
			       "files");
	store->ends = (struct keeper_ends) {
		.channel = call->fds[0], .control = call->fds[1],
		.events = { call->fds[2], call->fds[3] },
	};
	for (unsigned i = 0; i < 4; i++)
		call->fds[i] = -1;
	o->ends = &store->ends;
	return 0;
}

int passed_disk(struct disk_option *out, struct passed_store *store, struct control_call *call,
		struct vdisk_error *err)
{
	struct disk_option o = {
		.locator = passed_text(call, "locator"), .format = passed_text(call, "format"),
		.serial = passed_text(call, "serial"),
		.read_only = json_is_true(json_object_get(call->request, "read-only")),
	};
	int r;

	if (!o.locator)
		return vd_fail(err, EINVAL, "attach-disk: a locator is needed");
	r = options_of(&o, call, err);
	if (!r && json_is_true(json_object_get(call->request, "isolated")))
		r = take_ends(&o, store, call, err);
	else if (!r)
		r = take_files(&o, store, call, err);
	if (!r)
		*out = o;
	return r;
}

int passed_size(const struct control_call *call, uint64_t now, uint64_t *out, struct vdisk_error *err)
{
	json_int_t bytes = json_integer_value(json_object_get(call->request, "bytes"));

	if (bytes <= 0 || bytes % 512)
		return vd_fail(err, EINVAL, "resize-disk: a disk's size is a multiple of 512 bytes, "
			       "not %" PRId64, (int64_t)bytes);
	if ((uint64_t)bytes < now && !json_is_true(json_object_get(call->request, "shrink")))
		return vd_fail(err, EINVAL, "resize-disk: that would cut off the disk's end");
	*out = (uint64_t)bytes;
	return 0;
}

int passed_limits(const struct control_call *call, struct blk_limits *out, struct vdisk_error *err)
{
	const char *text = passed_text(call, "limits");

	return text && words_limits(text, out) == 0 ? 0 :
		vd_fail(err, EINVAL, "limits are " words_limits_help ", not '%.80s'", text ? text : "");
}

/* ---- what is told ---- */

json_t *passed_sandbox(const struct sandbox_state *s)
{
	return json_pack("{sb sb sb sb sb si sb}", "user", s->user, "pid", s->pid, "mount", s->mount,
			 "net", s->net, "ipc", s->ipc, "landlock", s->landlock, "filter", s->filter);
}

json_t *passed_limits_json(const struct blk_limits *l)
{
	char text[LIMITS_TEXT_MAX];

	words_format_limits(text, l);
	return json_string(text);
}

json_t *passed_show(const struct passed_about *d)
{
	json_t *j = json_pack("{ss ss ss ss sI ss so sb sb sb}", "id", d->id, "locator", d->locator,
			      "format", d->format ? d->format : "", "serial", d->serial, "bytes",
			      (json_int_t)d->bytes, "cache", d->cache, "limits",
			      passed_limits_json(d->limits), "read-only", d->read_only, "leaving",
			      d->leaving, "isolated", d->isolated);

	if (d->isolated) {
		json_object_set_new(j, "process", json_integer(d->process));
		json_object_set_new(j, "restarts", json_integer(d->restarts));
		json_object_set_new(j, "lost", json_boolean(d->lost));
	}
	return j;
}

json_t *passed_stats(const char *id, const struct blk_stats *b)
{
	return json_pack("{ss sI sI sI sI sI sI sI sI sI sI sI}", "id", id,
			 "reads", (json_int_t)b->reads, "writes", (json_int_t)b->writes,
			 "flushes", (json_int_t)b->flushes, "discards", (json_int_t)b->discards,
			 "errors", (json_int_t)b->errors,
			 "read-bytes", (json_int_t)b->read_bytes,
			 "written-bytes", (json_int_t)b->written_bytes,
			 "interrupts", (json_int_t)b->interrupts, "sleeps", (json_int_t)b->sleeps,
			 "batches", (json_int_t)b->batches, "enters", (json_int_t)b->enters);
}

uint64_t passed_seconds(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)(now.tv_sec - since->tv_sec);
}

/* ---- lives ---- */

/* Takes @message. */
static int leave(int carry_fd, json_t *message, const int *fds, unsigned n)
{
	AUTO_FREE char *text = json_dumps(message, JSON_COMPACT);
	struct iovec iov = { text, text ? strlen(text) : 0 };
	ssize_t sent;

	json_decref(message);
	if (!text)
		return -EILSEQ;
	sent = vd_send_fds(carry_fd, &iov, 1, fds, n, MSG_DONTWAIT);
	return sent < 0 ? (int)sent : 0;
}

int passed_leave_first(int carry_fd, json_t *has, unsigned next_id)
{
	return leave(carry_fd, json_pack("{so si}", "has", has, "next", (int)next_id), NULL, 0);
}

int passed_leave_disk(int carry_fd, const struct passed_about *d, const struct keeper_ends *ends,
		      const struct vdisk_open_file *files, unsigned n_files)
{
	int fds[CONTROL_FDS_MAX] = { ends->channel, ends->control, ends->events[0], ends->events[1] };
	json_t *names, *message;

	if (n_files > CONTROL_FDS_MAX)
		return -E2BIG;
	message = json_pack("{ss ss ss* ss ss sb so}", "id", d->id, "locator", d->locator, "format",
			    d->format, "serial", d->serial, "cache", d->cache, "read-only",
			    d->read_only, "limits", passed_limits_json(d->limits));
	if (!message)
		return -EILSEQ;
	if (d->block_size)
		json_object_set_new(message, "block-size", json_integer(d->block_size));
	if (d->keep_raw)
		json_object_set_new(message, "keep-raw", json_true());
	if (d->isolated) {
		json_object_set_new(message, "isolated", json_true());
		return leave(carry_fd, message, fds, 4);
	}
	names = json_array();
	for (unsigned i = 0; i < n_files; i++) {
		fds[i] = files[i].fd;
		json_array_append_new(names, json_string(files[i].path));
	}
	json_object_set_new(message, "files", names);
	return leave(carry_fd, message, fds, n_files);
}

/* The length of a message and its descriptors; 0: there are no more. */
static ssize_t receive(int fd, char *text, int *fds, unsigned *n_fds)
{
	ssize_t n = vd_recv_fds(fd, text, CONTROL_LINE_MAX, fds, CONTROL_FDS_MAX, n_fds, MSG_DONTWAIT);

	return n == -EAGAIN ? 0 : n;
}

static int hand_out(const char *text, size_t len, int *fds, unsigned n_fds,
		    int (*one)(void *arg, struct control_call *call, struct vdisk_error *err),
		    void *arg, struct vdisk_error *err)
{
	struct control_call call = {
		.request = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), .fds = fds,
		.n_fds = n_fds,
	};
	int r;

	if (json_is_object(call.request))
		r = one(arg, &call, err);
	else
		r = vd_fail(err, EPROTO, "what was left before the reset is not understood");
	json_decref(call.request);
	vd_close_fds(fds, n_fds);
	return r;
}

int passed_find(int carry_fd, int (*one)(void *arg, struct control_call *call, struct vdisk_error *err),
		void *arg, struct vdisk_error *err)
{
	AUTO_FREE char *text = malloc(CONTROL_LINE_MAX);
	int fds[CONTROL_FDS_MAX], r = 0;
	unsigned n_fds;
	ssize_t n;

	if (!text)
		return vd_fail(err, ENOMEM, "out of memory");
	while (!r && (n = receive(carry_fd, text, fds, &n_fds)) != 0) {
		if (n < 0)
			r = vd_fail(err, (int)-n, "disks of before the reset: %s", strerror((int)-n));
		else
			r = hand_out(text, (size_t)n, fds, n_fds, one, arg, err);
	}
	return r;
}
