/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disks.c - the guest's disks: opened at the start, or passed to a running guest */
#include <errno.h>
#include <stdio.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vhost/front.h"
#include "vmm-lite/virtio/blk.h"
#include "vmm-lite/virtio/bounce.h"
#include "vmm-lite/vmm.h"

#define END_MS		100	/* for a disk's process to write out what it holds, at first */

static uint32_t open_flags(const struct disk_option *d)
{
	uint32_t flags = 0;

	if (!d->read_only && !d->snapshot)
		flags |= VDISK_OPEN_WRITE;
	if (d->cache == CACHE_NONE)
		flags |= VDISK_OPEN_DIRECT;
	if (d->cache == CACHE_UNSAFE)
		flags |= VDISK_OPEN_UNSAFE;
	return flags;
}

static int open_disk(struct vdisk **out, const struct disk_option *d, struct vdisk_error *err)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = open_flags(d), .format = d->format,
		.files = d->files, .n_files = d->n_files, .backing = d->backing,
		.backing_format = d->backing_format, .block_size = d->block_size,
		/* what is open already has been looked at by whoever opened it */
		.refs = d->n_files ? VDISK_REFS_ANY : d->refs,
	};
	struct vdisk *disk = NULL, *overlay = NULL;
	int r = vdisk_open(&disk, d->locator, &opts, err);

	if (r < 0 || !d->snapshot) {
		*out = disk;
		return r;
	}
	r = d->layer_fd ? vdisk_open_overlay_on(&overlay, disk, d->layer_fd, err) :
			  vdisk_open_overlay(&overlay, disk, NULL, err);
	vdisk_close(disk, NULL);
	*out = overlay;
	return r;
}

static void disk_free(struct vmm_disk *d)
{
	free(d->locator);
	free(d->format);
	free(d->serial);
	free(d);
}

static char *copy(const char *s)
{
	return s ? strdup(s) : NULL;
}

int disk_add(struct vmm *v, const struct disk_option *o, struct vdisk_error *err)
{
	struct vmm_disk *d;
	int r;

	if (v->n_disks == DISKS_MAX)
		return vd_fail(err, ENOSPC, "the guest has %u disks already", DISKS_MAX);
	d = calloc(1, sizeof(*d));
	if (!d)
		return vd_fail(err, ENOMEM, "out of memory");
	snprintf(d->id, sizeof(d->id), "disk%u", v->next_id);
	d->read_only = o->read_only;
	d->write_through = o->cache == CACHE_WRITETHROUGH;
	d->cache = words_cache_name(o->cache);
	d->snapshot = o->snapshot;
	d->limits = o->limits;
	d->block_size = o->block_size;
	d->keep_raw = o->keep_raw;
	d->locator = copy(o->locator);
	d->format = copy(o->format);
	if (o->serial)
		d->serial = copy(o->serial);
	else if (asprintf(&d->serial, "vdisk%u", v->next_id) < 0)
		d->serial = NULL;
	if (!d->locator || !d->serial || (o->format && !d->format)) {
		disk_free(d);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	d->console = &v->console;
	d->ends = (struct keeper_ends) { -1, -1, { -1, -1 } };
	if (o->ends)
		d->ends = *o->ends;
	r = o->ends ? 0 : open_disk(&d->disk, o, err);
	if (r < 0) {
		disk_free(d);
		return r;
	}
	vdisk_redact(d->locator);	/* from now on it is only shown */
	v->next_id++;
	pthread_mutex_lock(&v->disks_lock);
	v->disk[v->n_disks++] = d;
	pthread_mutex_unlock(&v->disks_lock);
	return 0;
}

unsigned disk_queues(const struct options *o)
{
	unsigned n = MIN(o->vcpus, vd_cpus());

	return MIN(n, BLK_QUEUES_MAX);
}

/* Polling pays only while the guest leaves a processor to the disk's threads. */
static unsigned poll_us(const struct options *o)
{
	if (o->poll_us >= 0)
		return (unsigned)o->poll_us;
	return o->vcpus < vd_cpus() ? 200 : 0;
}

static int start_here(struct vmm *v, struct vmm_disk *d, struct vdisk_error *err)
{
	struct blk_options b = {
		.disk = d->disk, .read_only = d->read_only,
		.queues = disk_queues(&v->options), .serial = d->serial,
		.write_through = d->write_through, .limits = d->limits,
		.poll_us = poll_us(&v->options),
		.keep_raw = blk_keeps_raw(d->disk, d->format, d->keep_raw) ? log_kept_raw : NULL,
		.confine = v->options.no_sandbox ? NULL : sandbox_disk,
	};

	return blk_new(&d->dev, &b, err);
}

static void size_changed(void *arg)
{
	struct vmm_disk *d = arg;

	d->changed = true;
	console_wake(d->console);
}

static void process_renewed(void *arg)
{
	struct vmm_disk *d = arg;

	d->renewed = true;
	console_wake(d->console);
}

/* Its process can map the guest's memory, or else some of our own. */
static int start_isolated(struct vmm *v, struct vmm_disk *d, struct vdisk_error *err)
{
	struct bounce_options b = {
		.memory.fd = -1, .confine = v->options.no_sandbox ? NULL : sandbox_front,
	};
	struct front_options f = {
		.name = d->locator, .ends = d->ends, .queues = disk_queues(&v->options),
		.memory_fd = v->ram.fd, .confine = b.confine,
		.config_changed = size_changed, .restarted = process_renewed, .arg = d,
	};
	int r = v->ram.fd < 0 ? bounce_memory_new(&b.memory, f.queues, err) : 0;

	if (r < 0)
		return r;
	if (b.memory.fd >= 0)
		f.memory_fd = b.memory.fd;
	d->ends = (struct keeper_ends) { -1, -1, { -1, -1 } };
	r = front_new(&d->front, &f, err);
	if (r < 0) {
		bounce_memory_free(&b.memory);
		return r;
	}
	d->dev = b.inner = d->front;
	if (b.memory.fd >= 0)
		r = bounce_new(&d->dev, &b, err);
	if (r < 0)
		d->dev = d->front = NULL;
	/* what it was started with may be what a life before this one had changed */
	else if (v->options.carry_fd >= 0)
		r = front_set_limits(d->front, &d->limits, err);
	return r;
}

int disk_start(struct vmm *v, struct vmm_disk *d, struct vdisk_error *err)
{
	if (!d->disk)
		return start_isolated(v, d, err);
	return start_here(v, d, err);
}

int disk_stats(struct vmm_disk *d, struct blk_stats *out)
{
	if (!d->disk)
		return front_get_stats(d->front, out);
	blk_get_stats(d->dev, out);
	return 0;
}

int disk_limit(struct vmm_disk *d, const struct blk_limits *limits, struct vdisk_error *err)
{
	if (!d->disk)
		return front_set_limits(d->front, limits, err);
	blk_set_limits(d->dev, limits);
	return 0;
}

int disk_resize(struct vmm_disk *d, uint64_t bytes, struct vdisk_error *err)
{
	return d->disk ? vdisk_resize(d->disk, bytes, err) : front_resize(d->front, bytes, err);
}

uint64_t disk_bytes(const struct vmm_disk *d)
{
	return d->disk ? vdisk_size(d->disk) : front_bytes(d->front);
}

bool disk_read_only(const struct vmm_disk *d)
{
	return d->read_only || (d->disk ? !vdisk_writable(d->disk) : front_read_only(d->front));
}

struct passed_about disk_about(const struct vmm_disk *d)
{
	return (struct passed_about) {
		.id = d->id, .locator = d->locator, .serial = d->serial, .cache = d->cache,
		.format = d->disk ? vdisk_format(d->disk) : d->format, .limits = &d->limits,
		.bytes = disk_bytes(d), .block_size = d->block_size, .keep_raw = d->keep_raw,
		.read_only = disk_read_only(d), .leaving = d->leaving, .isolated = !d->disk,
		.process = d->disk ? 0 : front_pid(d->front),
		.restarts = d->disk ? 0 : front_restarts(d->front),
		.lost = !d->disk && front_lost(d->front),
	};
}

struct vmm_disk *disk_find(struct vmm *v, const char *id)
{
	for (unsigned i = 0; i < v->n_disks; i++)
		if (!strcmp(v->disk[i]->id, id) || !strcmp(v->disk[i]->serial, id))
			return v->disk[i];
	return NULL;
}

int disk_remove(struct vmm *v, struct vmm_disk *d, int wait_ms, struct vdisk_error *err)
{
	int r = d->dev && !d->disk && !d->left ? front_end(d->front, wait_ms, err) : 0;
	unsigned i = 0;

	if (r == -EAGAIN)
		return r;
	while (i < v->n_disks && v->disk[i] != d)
		i++;
	pthread_mutex_lock(&v->disks_lock);
	v->n_disks--;
	memmove(&v->disk[i], &v->disk[i + 1], (v->n_disks - i) * sizeof(v->disk[0]));
	pthread_mutex_unlock(&v->disks_lock);
	if (d->dev)
		d->dev->ops->free(d->dev);
	keeper_close_ends(&d->ends);
	if (d->disk)
		r = vdisk_close(d->disk, err);
	disk_free(d);
	return r;
}

void disks_reap(struct vmm *v, bool wait)
{
	for (unsigned i = v->n_disks; i-- > 0; ) {
		struct vdisk_error err = { 0 };
		struct vmm_disk *d = v->disk[i];
		int r;

		if (!d->gone) {
			if (atomic_exchange(&d->renewed, false) &&
			    front_set_limits(d->front, &d->limits, &err) < 0)
				log_warnx("%s", err.msg);
			if (v->machine && atomic_exchange(&d->changed, false))
				machine_config_changed(v->machine, d->dev);
			continue;
		}
		/* a target may be away for minutes: the console, and who asks, need not wait */
		r = disk_remove(v, d, wait ? -1 : d->ending ? 0 : END_MS, &err);
		d->ending |= r == -EAGAIN;
		if (r < 0 && r != -EAGAIN)
			log_warnx("%s", err.msg);
	}
}

void disks_look_for_growth(struct vmm *v)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec == v->looked)
		return;
	v->looked = now.tv_sec;
	/* an isolated one's process looks itself */
	for (unsigned i = 0; i < v->n_disks; i++)
		if (v->disk[i]->disk && vdisk_refresh(v->disk[i]->disk) > 0 && v->machine)
			machine_config_changed(v->machine, v->disk[i]->dev);
}

/* Disks that cannot write out what they hold must not end in status 0. */
int disks_close(struct vmm *v, struct vdisk_error *err)
{
	int r = 0;

	while (v->n_disks) {
		struct vdisk_error one = { 0 };
		int got = disk_remove(v, v->disk[0], -1, &one);

		if (got < 0 && !r) {
			r = got;
			*err = one;
		}
	}
	return r;
}
