/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disks.c - the disks of a User-Mode Linux guest: a process each
 *
 * The keeper starts the processes, and again when they die.  A relay waits at the
 * slot's socket for the guest's driver; when that has gone, or there will be no process
 * any more, it is over, and the disk with it.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/uml/uml.h"

#define END_MS	1000

void uml_slot_path(const struct uml *u, unsigned slot, char out[108])
{
	snprintf(out, 108, "%s/s%u", u->dir, slot);
}

int uml_listen(const char *path, struct vdisk_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path));
	unlink(path);	/* of a disk that was here before */
	if (sock < 0 || bind(sock, (const void *)&addr, sizeof(addr)) < 0 || listen(sock, 1) < 0)
		return vd_fail(err, errno, "%s: %m", path);
	return STEAL_FD(sock);
}

/* ---- its relay ---- */

/* A new process has the limits that it was started with. */
static void restarted(void *arg)
{
	struct uml_disk *d = arg;
	struct vdisk_error err;
	struct blk_limits limits;

	pthread_mutex_lock(&d->lock);
	limits = d->limits;
	pthread_mutex_unlock(&d->lock);
	if (vhost_lines_limit(&d->lines, &limits, &err) < 0)
		log_warnx("%s", err.msg);
}

static int start(struct uml *u, struct uml_disk *d, struct vdisk_error *err)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = d };
	struct relay_options o = {
		.name = d->locator, .channel = d->ends.channel, .restarted = restarted, .arg = d,
	};
	char path[108];
	int r;

	uml_slot_path(u, d->slot, path);
	o.listen_fd = uml_listen(path, err);
	if (o.listen_fd < 0)
		return o.listen_fd;
	r = relay_new(&d->relay, &o, err);
	if (r < 0)
		close(o.listen_fd);
	else if (epoll_ctl(u->watch_fd, EPOLL_CTL_ADD, relay_fd(d->relay), &event) < 0)
		r = vd_fail(err, errno, "epoll_ctl: %m");
	/* of a guest that runs, only the driver waits */
	else if (!d->later && relay_wait(d->relay) < 0)
		r = vd_fail(err, EIO, "%s: its process could not be started", d->locator);
	return r;
}

/* ---- the list ---- */

static char *copy(const char *s)
{
	return s ? strdup(s) : NULL;
}

/* Waits for its process, if there is one; what that could not write out is an error of ours. */
static void disk_free(struct uml *u, struct uml_disk *d)
{
	enum relay_end end = RELAY_LOST;
	char path[108];

	if (d->relay) {
		epoll_ctl(u->watch_fd, EPOLL_CTL_DEL, relay_fd(d->relay), NULL);
		end = relay_free(d->relay);
		uml_slot_path(u, d->slot, path);
		unlink(path);
	}
	if (end == RELAY_FAILED)
		log_warnx("%s: its process could not write out all that it held", d->locator);
	if (d->relay && (end == RELAY_FAILED || end == RELAY_LOST))
		u->disks_failed = true;
	vhost_lines_destroy(&d->lines);
	keeper_close_ends(&d->ends);
	pthread_mutex_destroy(&d->lock);
	free(d->locator);
	free(d->format);
	free(d->serial);
	free(d);
}

static int find_slot(struct uml *u)
{
	for (unsigned i = 0; i < u->n_slots; i++)
		if (u->slot[i] == SLOT_FREE)
			return (int)i;
	return -1;
}

static struct uml_disk *disk_new(struct uml *u, const struct disk_option *o)
{
	struct uml_disk *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->cache = o->cache;
	d->block_size = o->block_size;
	d->keep_raw = o->keep_raw;
	d->limits = o->limits;
	d->read_only = o->read_only;
	d->snapshot = o->snapshot;
	d->locator = copy(o->locator);
	d->format = copy(o->format);
	if (o->serial)
		d->serial = copy(o->serial);
	else if (asprintf(&d->serial, "vdisk%u", u->next_id) < 0)
		d->serial = NULL;
	if (!d->locator || !d->serial || (o->format && !d->format)) {
		free(d->locator);
		free(d->format);
		free(d->serial);
		free(d);
		return NULL;
	}
	vdisk_redact(d->locator);	/* it is only shown */
	pthread_mutex_init(&d->lock, NULL);
	d->ends = *o->ends;
	d->ends.control = -1;
	vhost_lines_init(&d->lines, o->ends->control, d->locator);
	snprintf(d->id, sizeof(d->id), "disk%u", u->next_id);
	return d;
}

int uml_disk_add(struct uml *u, const struct disk_option *o, bool later, struct vdisk_error *err)
{
	int r, slot = later ? find_slot(u) : (int)u->n_disks;
	struct uml_disk *d = NULL;

	if (u->n_disks == DISKS_MAX || slot < 0)
		r = vd_fail(err, ENOSPC, "the guest has all the disks that it can have (%u)",
			    u->n_disks);
	else
		r = (d = disk_new(u, o)) ? 0 : vd_fail(err, ENOMEM, "out of memory");
	if (r < 0) {
		keeper_close_ends(o->ends);
		return r;
	}
	d->slot = (unsigned)slot;
	d->later = later;
	r = start(u, d, err);
	if (r < 0) {
		disk_free(u, d);
		return r;
	}
	u->next_id++;
	u->slot[slot] = SLOT_USED;
	u->disk[u->n_disks++] = d;
	return 0;
}

struct uml_disk *uml_disk_find(struct uml *u, const char *id)
{
	for (unsigned i = 0; i < u->n_disks; i++)
		if (!strcmp(u->disk[i]->id, id) || !strcmp(u->disk[i]->serial, id))
			return u->disk[i];
	return NULL;
}

int uml_disk_stats(struct uml_disk *d, struct blk_stats *out)
{
	/* none is there to answer while it is started again */
	return d->lost || relay_is_away(d->relay) ? -EAGAIN :
		vhost_lines_stats(&d->lines, out, &d->bytes);
}

int uml_disk_limit(struct uml_disk *d, const struct blk_limits *limits, struct vdisk_error *err)
{
	int r = vhost_lines_limit(&d->lines, limits, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&d->lock);
	d->limits = *limits;
	pthread_mutex_unlock(&d->lock);
	return 0;
}

void uml_disk_changed(struct uml *u, struct uml_disk *d)
{
	struct pollfd end = { .fd = u->kernel_fd, .events = POLLIN };

	switch (relay_look(d->relay)) {
	case RELAY_SERVES:
		return;
	case RELAY_LET_GO:
		/* with the kernel, most often, whose end is to be seen any moment then */
		if (!d->leaving && poll(&end, 1, END_MS) > 0)
			return;
		FALLTHROUGH;
	case RELAY_BEREFT:
		if (!d->leaving && !d->lost)
			log_warnx("%s: the guest has lost this disk", d->locator);
		relay_finish(d->relay);
		return;
	case RELAY_FAILS:
		log_warnx("%s: the guest has lost this disk", d->locator);
		d->lost = true;
		return;
	case RELAY_FINISHED:
		uml_disk_remove(u, d);
	}
}

void uml_disk_remove(struct uml *u, struct uml_disk *d)
{
	/* a driver that lost its connection takes its device away for good */
	u->slot[d->slot] = d->leaving ? SLOT_FREE : SLOT_LOST;
	for (unsigned i = 0; i < u->n_disks; i++) {
		if (u->disk[i] != d)
			continue;
		memmove(&u->disk[i], &u->disk[i + 1], (u->n_disks - i - 1) * sizeof(d));
		u->n_disks--;
		break;
	}
	disk_free(u, d);
}

void uml_disks_finish(struct uml *u)
{
	/* all at once, as each may have much to write */
	for (unsigned i = 0; i < u->n_disks; i++)
		if (u->disk[i]->left)
			relay_leave(u->disk[i]->relay);
		else
			relay_finish(u->disk[i]->relay);
	while (u->n_disks)
		disk_free(u, u->disk[--u->n_disks]);
}
