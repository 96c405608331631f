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
#include <sys/socket.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vmm.h"

union fds {
	char buf[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
	struct cmsghdr align;
};

/* ---- leaving it ---- */

static int leave(const struct vmm *v, json_t *message, const int *fds, unsigned n)
{
	AUTO_FREE char *text = json_dumps(message, JSON_COMPACT);
	struct iovec iov = { text, text ? strlen(text) : 0 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	union fds control = { 0 };

	json_decref(message);
	if (!text)
		return -EILSEQ;
	if (n) {
		struct cmsghdr *h;

		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n * sizeof(int));
	}
	return sendmsg(v->options.carry_fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Those that it was started with, as far as the guest has them still. */
static int leave_first(const struct vmm *v)
{
	json_t *has = json_object();

	for (unsigned i = 0; i < v->n_disks; i++)
		if (!v->disk[i]->later && !v->disk[i]->leaving)
			json_object_set_new(has, v->disk[i]->id, limits_json(&v->disk[i]->limits));
	return leave(v, json_pack("{so si}", "has", has, "next", v->next_id), NULL, 0);
}

static int leave_disk(const struct vmm *v, const struct vmm_disk *d)
{
	struct vdisk_open_file files[CONTROL_FDS_MAX];
	unsigned n = vdisk_list_files(d->disk, files, CONTROL_FDS_MAX);
	int fds[CONTROL_FDS_MAX];
	json_t *names = json_array();

	if (n > CONTROL_FDS_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < n; i++) {
		fds[i] = files[i].fd;
		json_array_append_new(names, json_string(files[i].path));
	}
	return leave(v, json_pack("{ss ss ss* ss ss sb so so}", "id", d->id, "locator", d->locator,
				  "format", d->format, "serial", d->serial, "cache", d->cache,
				  "read-only", d->read_only, "limits", limits_json(&d->limits),
				  "files", names), fds, n);
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
		const struct vmm_disk *d = v->disk[i];
		int left = d->later && !d->leaving ? leave_disk(v, d) : 0;

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
			r = disk_remove(v, d, err);
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

/* The length of a message and its descriptors; 0: there are no more. */
static ssize_t receive(int fd, char *text, int *fds, unsigned *n_fds)
{
	union fds control;
	struct iovec iov = { text, CONTROL_LINE_MAX };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*n_fds = 0;
	for (struct cmsghdr *h = n < 0 ? NULL : CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		*n_fds = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(h), *n_fds * sizeof(int));
	}
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	return n;
}

static int find_one(struct vmm *v, const char *text, size_t len, int *fds, unsigned n_fds,
		    struct vdisk_error *err)
{
	struct control_call call = {
		.request = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), .fds = fds,
		.n_fds = n_fds,
	};
	int r;

	if (!json_is_object(call.request))
		r = vd_fail(err, EPROTO, "what was left before the reset is not understood");
	else if (json_object_get(call.request, "has"))
		r = find_first(v, call.request, err);
	else
		r = find_disk(v, &call, err);
	json_decref(call.request);
	for (unsigned i = 0; i < n_fds; i++)
		close(fds[i]);
	return r;
}

int carry_in(struct vmm *v, struct vdisk_error *err)
{
	AUTO_FREE char *text = v->options.carry_fd < 0 ? NULL : malloc(CONTROL_LINE_MAX);
	int fds[CONTROL_FDS_MAX], r = 0;
	unsigned n_fds;
	ssize_t n;

	if (v->options.carry_fd < 0)
		return 0;
	if (!text)
		return vd_fail(err, ENOMEM, "out of memory");
	while (!r && (n = receive(v->options.carry_fd, text, fds, &n_fds)) != 0) {
		if (n < 0)
			r = vd_fail(err, (int)-n, "disks of before the reset: %s", strerror((int)-n));
		else
			r = find_one(v, text, (size_t)n, fds, n_fds, err);
	}
	return r;
}
