/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * monitor.c - the command line of a monitor, vmm-lite or vmm-uml, and one run of it
 *
 * Everything is opened here, disks with their locks, and reaches the monitor as
 * descriptors; what is no file (a disk of another host) is opened by its own process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "cli/guest.h"
#include "core/args.h"

#define ARGS_MAX	1024u	/* more than all options and disks give */
#define FILES_MAX	256u	/* of all disks together */

struct command {
	const char *arg[ARGS_MAX];
	unsigned n;
	char kernel_fd[16], initrd_fd[16], control_fd[16], carry_fd[16], nic[GUEST_NICS_MAX][48],
		port[GUEST_PORTS_MAX][48], kvm_fd[16], layer_fd[GUEST_DISKS_MAX][16];
	/* opened for it: descriptors, and the text of each option --file, owned */
	int fd[FILES_MAX + GUEST_DISKS_MAX + 3];
	unsigned n_fds;
	char *file[FILES_MAX];
	unsigned n_files;
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

static uint32_t open_flags(const struct guest_disk *d)
{
	uint32_t flags = d->read_only || d->snapshot ? 0 : VDISK_OPEN_WRITE;

	return flags | (d->cache && !strcmp(d->cache, "none") ? VDISK_OPEN_DIRECT : 0);
}

/* Is each of the disks below a file? */
static bool all_files(const struct vdisk *d)
{
	return !d || (strcmp(vdisk_format(d), "iscsi") && all_files(vdisk_below(d)) &&
		      all_files(vdisk_backing(d)));
}

/* Descriptors of all that the disk consists of; the locks live as long as those do. */
static int pass_files(struct command *c, const struct vdisk *disk)
{
	struct vdisk_open_file file[FILES_MAX];
	unsigned n = vdisk_list_files(disk, file, FILES_MAX);

	if (c->n_files + n > FILES_MAX) {
		cli_error("the disks consist of more than %u files", FILES_MAX);
		return CLI_FAILED;
	}
	for (unsigned i = 0; i < n; i++) {
		int fd = fcntl(file[i].fd, F_DUPFD_CLOEXEC, 3);

		if (fd < 0 || asprintf(&c->file[c->n_files], "%d=%s", fd, file[i].path) < 0) {
			cli_error("%s: %m", file[i].path);
			if (fd >= 0)
				close(fd);
			return CLI_FAILED;
		}
		c->fd[c->n_fds++] = fd;
		add_pair(c, "--file", c->file[c->n_files++]);
	}
	return CLI_OK;
}

static int pass_layer(struct command *c, char text[16])
{
	struct vdisk_error err;
	int fd;

	if (vdisk_scratch_file(&fd, NULL, &err) < 0)
		return cli_fail(&err);
	c->fd[c->n_fds++] = fd;
	snprintf(text, 16, "%d", fd);
	add_pair(c, "--layer", text);
	return CLI_OK;
}

static int open_disk(struct command *c, const struct guest_disk *d, char layer[16])
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = open_flags(d), .format = d->format,
		.backing = d->backing, .backing_format = d->backing_format, .refs = d->refs,
		.block_size = d->block_size ? (uint32_t)atoi(d->block_size) : 0,
	};
	struct vdisk_error err = { 0 };
	struct vdisk *disk = NULL;
	int status = CLI_OK;

	if (vdisk_open(&disk, d->locator, &opts, &err) < 0)
		return cli_fail(&err);
	if (all_files(disk)) {
		status = pass_files(c, disk);
		if (status == CLI_OK && d->snapshot)
			status = pass_layer(c, layer);
	} else if (d->snapshot) {
		add(c, "--snapshot");
	}
	/* before the guest runs: it is vmm-lite's from now on */
	if (cli_close(&disk) != CLI_OK)
		status = CLI_FAILED;
	return status;
}

static int add_disk(struct command *c, const struct guest_disk *d, bool isolate, char layer[16])
{
	add_pair(c, "--disk", d->locator);
	add_pair(c, "--format", d->format);
	add_pair(c, "--cache", d->cache);
	add_pair(c, "--serial", d->serial);
	add_pair(c, "--block-size", d->block_size);
	add_pair(c, "--limit", d->limits[0] ? d->limits : NULL);
	add_pair(c, "--backing", d->backing);
	add_pair(c, "--backing-format", d->backing_format);
	if (d->read_only)
		add(c, "--read-only");
	else if (d->keep_raw && !d->snapshot)
		add(c, "--keep-raw");
	/* one that has a process of its own is opened by that */
	if (!isolate && !vdisk_is_remote(d->locator) && !vdisk_is_remote(d->backing))
		return open_disk(c, d, layer);
	add_pair(c, "--refs", words_refs_name(d->refs));
	if (d->snapshot)
		add(c, "--snapshot");
	return CLI_OK;
}

/* A descriptor that the process inherits. */
static void add_fd(struct command *c, const char *option, int fd, char text[16])
{
	if (fd < 0)
		return;
	snprintf(text, 16, "fd:%d", fd);
	add_pair(c, option, text);
}

/* A file of this host's, or one that is open already. */
static int add_file(struct command *c, const char *option, const char *name, int fd, char text[16])
{
	if (name) {
		fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			cli_error("%s: %s: %m", option + 2, name);
			return CLI_FAILED;
		}
		c->fd[c->n_fds++] = fd;
	}
	add_fd(c, option, fd, text);
	return CLI_OK;
}

/* Without it vmm-lite says what is wrong. */
static void open_kvm(struct command *c)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	c->fd[c->n_fds++] = fd;
	snprintf(c->kvm_fd, sizeof(c->kvm_fd), "%d", fd);
	add_pair(c, "--kvm", c->kvm_fd);
}

static int build_command(struct command *c, const char *vmm, const struct guest *g,
			 const char *kernel)
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
	if (!kernel)
		open_kvm(c);
	for (unsigned i = 0; i < g->n_disks; i++)
		if (add_disk(c, &g->disk[i], g->isolate, c->layer_fd[i]) != CLI_OK)
			return CLI_FAILED;
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
		add_fd(c, "--control", g->control_fd, c->control_fd);
	if (g->carry_fd > 0)
		add_fd(c, "--carry", g->carry_fd, c->carry_fd);
	add_pair(c, "--kernel", kernel);
	if (!kernel && add_file(c, "--kernel", g->kernel, g->kernel_fd, c->kernel_fd) != CLI_OK)
		return CLI_FAILED;
	return add_file(c, "--initrd", g->initrd, g->initrd_fd, c->initrd_fd);
}

int guest_monitor(const struct guest *g, const char *program, const char *kernel)
{
	int keep_open[4 + GUEST_NICS_MAX + GUEST_PORTS_MAX] = {
		g->kernel_fd, g->initrd_fd, g->control_fd > 0 ? g->control_fd : -1,
		g->carry_fd > 0 ? g->carry_fd : -1,
	};
	AUTO_FREE char *vmm = NULL;
	struct command c = { 0 };
	int status;

	if (cli_sibling(&vmm, program) != CLI_OK)
		return CLI_FAILED;
	for (unsigned i = 0; i < GUEST_NICS_MAX; i++)
		keep_open[4 + i] = i < g->n_nics ? g->nic[i].fd : -1;
	for (unsigned i = 0; i < GUEST_PORTS_MAX; i++)
		keep_open[4 + GUEST_NICS_MAX + i] = i < g->n_ports ? g->port[i].fd : -1;
	status = build_command(&c, vmm, g, kernel);
	if (status == CLI_OK)
		status = guest_process_handing(c.arg, keep_open, ARRAY_SIZE(keep_open), c.fd, c.n_fds);
	else
		for (unsigned i = 0; i < c.n_fds; i++)
			close(c.fd[i]);
	for (unsigned i = 0; i < c.n_files; i++)
		free(c.file[i]);
	return status;
}

int guest_keep_disk(const struct guest_disk *d, unsigned cpus, int channel, int control)
{
	AUTO_FREE char *vmm = NULL;
	struct command c = { 0 };
	char ends[32], queues[16];
	pid_t pid;

	if (cli_sibling(&vmm, "vmm-lite") != CLI_OK)
		return CLI_FAILED;
	snprintf(ends, sizeof(ends), "%d,%d", channel, control);
	snprintf(queues, sizeof(queues), "%u", cpus ? cpus : 1);
	add(&c, vmm);
	add_pair(&c, "--keep", ends);
	add_pair(&c, "--cpus", queues);
	if (add_disk(&c, d, true, c.layer_fd[0]) != CLI_OK)
		return CLI_FAILED;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		cli_error("fork: %m");
		return CLI_FAILED;
	}
	if (pid == 0) {
		fcntl(channel, F_SETFD, 0);
		fcntl(control, F_SETFD, 0);
		vd_execv(c.arg[0], c.arg);
		cli_error("%s: %m", c.arg[0]);
		_exit(CLI_FAILED);
	}
	/* it outlives us, and ends with the guest */
	return CLI_OK;
}
