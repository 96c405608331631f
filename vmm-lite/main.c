/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - vmm-lite: run one Linux guest on KVM
 *
 * The order is the point: open everything (KVM, kernel, initrd, disks with
 * their locks), give up privileges, start the disks' threads, make the machine,
 * filter system calls, and only then let the guest run.  A reset makes the
 * machine anew from the same open descriptors; the disks stay.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/console.h"
#include "vmm-lite/kvm/machine.h"
#include "vmm-lite/log.h"
#include "vmm-lite/options.h"
#include "vmm-lite/sandbox.h"
#include "vmm-lite/terminal.h"
#include "vmm-lite/virtio/blk.h"
#include "vmm-lite/virtio/rng.h"

struct vmm {
	struct options options;
	int kvm_fd, kernel_fd, initrd_fd;	/* owned */
	struct vdisk *disk[DISKS_MAX];		/* owned, until they are devices */
	struct virtio_device *device[DISKS_MAX + 1]; /* owned */
	unsigned n_devices;
	struct ram ram;				/* owned */
	struct serial serial;
	struct console console;
};

static int open_file(int *out, const char *what, const char *name, struct vdisk_error *err)
{
	char *end;
	int fd;

	if (!strncmp(name, "fd:", 3)) {
		fd = (int)strtol(name + 3, &end, 10);
		if (*end || end == name + 3 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return vd_fail(err, EBADF, "%s: '%s' is not an open descriptor", what,
				       name);
	} else {
		fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return vd_fail(err, errno, "%s: %s: %m", what, name);
	}
	*out = fd;
	return 0;
}

static uint32_t open_flags(const struct disk_option *d)
{
	uint32_t flags = 0;

	if (!d->read_only && !d->snapshot)
		flags |= VDISK_OPEN_WRITE;
	if (d->direct)
		flags |= VDISK_OPEN_DIRECT;
	if (d->unsafe)
		flags |= VDISK_OPEN_UNSAFE;
	return flags;
}

static int open_disk(struct vdisk **out, const struct disk_option *d, struct vdisk_error *err)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = open_flags(d), .format = d->format,
	};
	struct vdisk *disk = NULL, *overlay = NULL;
	int r = vdisk_open(&disk, d->locator, &opts, err);

	if (r < 0 || !d->snapshot) {
		*out = disk;
		return r;
	}
	r = vdisk_open_overlay(&overlay, disk, NULL, err);
	vdisk_close(disk, NULL);
	*out = overlay;
	return r;
}

static int open_everything(struct vmm *v, struct vdisk_error *err)
{
	const struct options *o = &v->options;
	int r = kvm_open(&v->kvm_fd, o->force, err);

	if (!r)
		r = open_file(&v->kernel_fd, "kernel", o->kernel, err);
	if (!r && o->initrd)
		r = open_file(&v->initrd_fd, "initrd", o->initrd, err);
	for (unsigned i = 0; !r && i < o->n_disks; i++)
		r = open_disk(&v->disk[i], &o->disk[i], err);
	return r;
}

/* One queue for each vCPU that can run at once. */
static unsigned queue_count(unsigned vcpus)
{
	unsigned n = MIN(vcpus, vd_cpus());

	return MIN(n, BLK_QUEUES_MAX);
}

static int make_devices(struct vmm *v, struct vdisk_error *err)
{
	int r = 0;

	for (unsigned i = 0; !r && i < v->options.n_disks; i++) {
		const struct disk_option *d = &v->options.disk[i];
		char serial[BLK_ID_BYTES + 1];
		struct blk_options b = {
			.disk = v->disk[i], .read_only = d->read_only,
			.queues = queue_count(v->options.vcpus), .serial = serial,
		};

		snprintf(serial, sizeof(serial), "vdisk%u", i);
		if (d->serial)
			b.serial = d->serial;
		r = blk_new(&v->device[v->n_devices], &b, err);
		v->n_devices += !r;
	}
	if (!r)
		r = rng_new(&v->device[v->n_devices], err);
	v->n_devices += !r;
	return r;
}

/* Disks that cannot write out what they hold must not end in status 0. */
static int close_everything(struct vmm *v, struct vdisk_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < v->n_devices; i++)
		v->device[i]->ops->free(v->device[i]);
	for (unsigned i = 0; i < v->options.n_disks; i++) {
		int one = vdisk_close(v->disk[i], r < 0 ? NULL : err);

		if (one < 0 && !r)
			r = one;
	}
	ram_free(&v->ram);
	return r;
}

static void print_stats(const struct machine *m)
{
	struct machine_stats s;

	machine_stats(m, &s);
	log_warnx("exits %" PRIu64 " port %" PRIu64 " memory %" PRIu64 " other %" PRIu64, s.exits,
		  s.port, s.memory, s.other);
}

/* One life of the machine, from power-on to whatever ends it. */
static int run_machine(struct vmm *v, bool first, enum vmm_end *end, struct vdisk_error *err)
{
	const struct options *o = &v->options;
	struct machine_config config = {
		.ram = &v->ram, .serial = &v->serial, .devices = v->device,
		.n_devices = v->n_devices, .wake = console_wake, .wake_arg = &v->console,
		.confine = o->no_sandbox ? NULL : sandbox_vcpu,
		.boot = { .kernel_fd = v->kernel_fd, .initrd_fd = v->initrd_fd,
			  .cmdline = o->cmdline, .vcpus = o->vcpus },
	};
	struct machine *m = NULL;
	int r = first ? 0 : ram_clear(&v->ram, err);

	if (!r)
		r = machine_new(&m, v->kvm_fd, &config, err);
	if (r < 0)
		return r;
	if (!r)
		r = machine_start(m, err);
	if (!r)
		*end = console_run(&v->console, m);
	machine_stop(m);
	if (o->stats)
		print_stats(m);
	machine_free(m);
	return r;
}

/* What the guest did, and what shall happen then: again, or the exit status in @end. */
static bool again(const struct options *o, enum vmm_end *end)
{
	const struct end_action *a;

	switch (*end) {
	case VMM_POWER_OFF:
		a = &o->on[ON_SHUTDOWN];
		break;
	case VMM_REBOOT:
		a = &o->on[ON_RESET];
		break;
	case VMM_PANIC:
	case VMM_TRIPLE_FAULT:
		a = &o->on[ON_CRASH];
		break;
	default:
		return false;
	}
	if (!a->reset && a->code >= 0)
		*end = (enum vmm_end)a->code;
	return a->reset;
}

static int run(struct vmm *v, enum vmm_end *end, struct vdisk_error *err)
{
	int r = sandbox_drop_privileges(err);
	bool first = true;

	if (!r)
		r = console_init(&v->console, &v->serial, v->options.time_limit, err);
	if (!r)
		r = make_devices(v, err);
	if (!r)
		r = ram_new(&v->ram, v->options.memory, v->options.huge_pages, err);
	if (!r)
		terminal_raw();
	/* from here on nothing is opened; kernel and initrd are a guest's, and suspect */
	if (!r && !v->options.no_sandbox)
		r = sandbox_filter(err);
	if (!r)
		r = kernel_unpack(&v->kernel_fd, v->options.fast_kernel, err);
	do {
		if (!r)
			r = run_machine(v, first, end, err);
		first = false;
	} while (!r && again(&v->options, end));
	console_finish(&v->console);
	terminal_restore();
	return r;
}

int main(int argc, char **argv)
{
	static struct vmm v = { .kvm_fd = -1, .kernel_fd = -1, .initrd_fd = -1, .ram.fd = -1 };
	struct vdisk_error err = { 0 };
	enum vmm_end end = VMM_ERROR;
	int r, closed;

	options_parse(&v.options, argc, argv);
	log_set_verbose(v.options.verbose);
	signal(SIGPIPE, SIG_IGN);
	if (v.options.check) {
		r = kvm_open(&v.kvm_fd, v.options.force, &err);
	} else {
		serial_init(&v.serial);
		r = open_everything(&v, &err);
		if (!r)
			r = run(&v, &end, &err);
	}
	if (r < 0)
		log_warnx("%s", err.msg);
	else if (v.options.check)
		end = VMM_POWER_OFF;
	closed = close_everything(&v, &err);
	if (closed < 0)
		log_warnx("%s", err.msg);
	return r < 0 || closed < 0 ? VMM_ERROR : (int)end;
}
