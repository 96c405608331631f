/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine_kvm.c - guests on KVM, by vmm-lite
 *
 * vmm-lite opens the disks itself, with their locks; kernel and initrd reach
 * it as descriptors.  A reset ends it, so that the disk is looked at again; what became
 * of the disks meanwhile goes from one life to the next through a socket pair
 * (vmm-lite/carry.c).
 */
#include <stdio.h>

#include "cli/guest.h"

#define ARGS_MAX	256u	/* more than all options and disks give */

struct command {
	const char *arg[ARGS_MAX];
	unsigned n;
	char kernel_fd[16], initrd_fd[16], control_fd[16], carry_fd[16], nic[GUEST_NICS_MAX][48],
		port[GUEST_PORTS_MAX][48];
};

static void add(struct command *c, const char *arg)
{
	c->arg[c->n++] = arg;
}

static void add_pair(struct command *c, const char *option, const char *value)
{
	if (!value)
		return;
	add(c, option);
	add(c, value);
}

static void add_disk(struct command *c, const struct guest_disk *d)
{
	add_pair(c, "--disk", d->locator);
	add_pair(c, "--format", d->format);
	add_pair(c, "--cache", d->cache);
	add_pair(c, "--backing", d->backing);
	add_pair(c, "--backing-format", d->backing_format);
	if (d->read_only)
		add(c, "--read-only");
	if (d->snapshot)
		add(c, "--snapshot");
}

/* A file by its name, or a descriptor that the process inherits. */
static void add_file(struct command *c, const char *option, const char *name, int fd,
		     char text[16])
{
	if (!name && fd < 0)
		return;
	if (!name)
		snprintf(text, 16, "fd:%d", fd);
	add_pair(c, option, name ? name : text);
}

static void build_command(struct command *c, const char *vmm, const struct guest *g)
{
	add(c, vmm);
	add_pair(c, "--memory", g->memory);
	add_pair(c, "--cpus", g->cpus);
	add_pair(c, "--append", g->cmdline);
	add_pair(c, "--reboot", "exit");
	add_pair(c, "--time-limit", g->time_limit);
	if (g->force)
		add(c, "--force");
	if (g->stats)
		add(c, "--stats");
	if (g->virtio_console)
		add_pair(c, "--console", "virtio");
	if (g->fast_kernel)
		add(c, "--fast-kernel");
	if (g->huge_pages)
		add(c, "--huge-pages");
	if (g->isolate)
		add(c, "--isolate-disks");
	for (unsigned i = 0; i < g->n_disks; i++)
		add_disk(c, &g->disk[i]);
	for (unsigned i = 0; i < g->n_nics; i++) {
		snprintf(c->nic[i], sizeof(c->nic[i]), "%s:%d%s%s",
			 g->nic[i].stream ? "stream" : "tap", g->nic[i].fd,
			 g->nic[i].mac[0] ? ",mac=" : "", g->nic[i].mac);
		add_pair(c, "--net", c->nic[i]);
	}
	for (unsigned i = 0; i < g->n_ports; i++) {
		snprintf(c->port[i], sizeof(c->port[i]), "%.31s=fd:%d", g->port[i].name, g->port[i].fd);
		add_pair(c, "--port", c->port[i]);
	}
	add_pair(c, "--name", g->name);
	if (g->control_fd > 0)
		add_file(c, "--control", NULL, g->control_fd, c->control_fd);
	if (g->carry_fd > 0)
		add_file(c, "--carry", NULL, g->carry_fd, c->carry_fd);
	add_file(c, "--kernel", g->kernel, g->kernel_fd, c->kernel_fd);
	add_file(c, "--initrd", g->initrd, g->initrd_fd, c->initrd_fd);
}

static int kvm_run(const struct guest *g)
{
	int keep_open[4 + GUEST_NICS_MAX + GUEST_PORTS_MAX] = {
		g->kernel_fd, g->initrd_fd, g->control_fd > 0 ? g->control_fd : -1,
		g->carry_fd > 0 ? g->carry_fd : -1,
	};
	AUTO_FREE char *vmm = NULL;
	struct command c = { 0 };

	if (cli_sibling(&vmm, "vmm-lite") != CLI_OK)
		return CLI_FAILED;
	for (unsigned i = 0; i < GUEST_NICS_MAX; i++)
		keep_open[4 + i] = i < g->n_nics ? g->nic[i].fd : -1;
	for (unsigned i = 0; i < GUEST_PORTS_MAX; i++)
		keep_open[4 + GUEST_NICS_MAX + i] = i < g->n_ports ? g->port[i].fd : -1;
	build_command(&c, vmm, g);
	return guest_process(c.arg, keep_open, ARRAY_SIZE(keep_open));
}

static int kvm_check(const struct guest *g)
{
	AUTO_FREE char *vmm = NULL;
	struct command c = { 0 };

	if (cli_sibling(&vmm, "vmm-lite") != CLI_OK)
		return CLI_FAILED;
	add(&c, vmm);
	add(&c, "--check");
	if (g->force)
		add(&c, "--force");
	return guest_process(c.arg, NULL, 0);
}

const struct engine engine_kvm = {
	.name = "kvm",
	.check = kvm_check,
	.run = kvm_run,
};
