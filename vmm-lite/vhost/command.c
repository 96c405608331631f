/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* command.c - see command.h */
#include "vmm-lite/vhost/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/beside.h"
#include "core/driver.h"

static void add(struct vhost_command *c, const char *option, const char *value)
{
	if (!value)
		return;
	c->arg[c->n++] = option;
	c->arg[c->n++] = value;
}

static void add_flag(struct vhost_command *c, const char *option, bool wanted)
{
	if (wanted)
		c->arg[c->n++] = option;
}

static void add_number(struct vhost_command *c, const char *option, unsigned value)
{
	char *text = c->number[c->n_numbers++];

	snprintf(text, sizeof(c->number[0]), "%u", value);
	add(c, option, text);
}

static int add_files(struct vhost_command *c, const struct disk_option *d)
{
	if (d->n_files > DISK_FILES_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < d->n_files; i++) {
		if (asprintf(&c->file[i], "%d=%s", d->files[i].fd, d->files[i].path) < 0)
			return -ENOMEM;
		add(c, "--file", c->file[i]);
	}
	return 0;
}

int vhost_command(struct vhost_command *c, const struct disk_option *d,
		  const struct vhost_place *p)
{
	int r;

	*c = (struct vhost_command) { .arg = { "vdisk-vhost", "--quiet" }, .n = 2 };
	add_number(c, "--fd", (unsigned)p->fd);
	add_number(c, "--control-fd", (unsigned)p->control_fd);
	add_number(c, "--ready", (unsigned)p->ready_fd);
	add_number(c, "--queues", p->queues);
	if (p->poll_us > 0)
		add_number(c, "--poll", (unsigned)p->poll_us);
	add_flag(c, "--once", p->once);
	add_flag(c, "--no-sandbox", p->no_sandbox);
	add_flag(c, "--detach", p->detach);
	add_flag(c, "--failing", p->failing);
	add(c, "--format", d->format);
	add(c, "--backing", d->backing);
	add(c, "--backing-format", d->backing_format);
	add(c, "--refs", words_refs_name(d->refs));
	add(c, "--serial", d->serial);
	add(c, "--cache", words_cache_name(d->cache));
	if (d->block_size)
		add_number(c, "--block-size", d->block_size);
	if (d->limits.bytes || d->limits.ops) {
		words_format_limits(c->limits, &d->limits);
		add(c, "--limit", c->limits);
	}
	add_flag(c, "--keep-raw", d->keep_raw);
	add_flag(c, "--read-only", d->read_only);
	add_flag(c, "--snapshot", d->snapshot);
	r = add_files(c, d);
	add(c, "--", d->locator);
	return r;
}

int vhost_program(char out[PATH_MAX], struct vdisk_error *err)
{
	int r = vd_beside(out, "vdisk-vhost");

	if (r < 0)
		return vd_fail(err, -r, "/proc/self/exe: %s", strerror(-r));
	return access(out, X_OK) < 0 ?
		vd_fail(err, errno, "%s: %m: disks cannot have processes of their own", out) : 0;
}
