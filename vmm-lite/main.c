/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - vmm-lite: run one Linux guest on KVM
 *
 * The order is the point: open everything that was not passed open (KVM, kernel,
 * initrd, disks with their locks), give up privileges, filter system calls, and only
 * then read what a guest may have written - images, the kernel -, start the disks'
 * threads, make the machine and let the guest run.  A reset makes the
 * machine anew from the same open descriptors; the disks stay.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/args.h"
#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/sandbox.h"
#include "vmm-lite/terminal.h"
#include "vmm-lite/virtio/balloon.h"
#include "vmm-lite/virtio/console.h"
#include "vmm-lite/virtio/net.h"
#include "vmm-lite/virtio/rng.h"
#include "vmm-lite/vmm.h"

#define LOOK_MS		2000	/* how often it is looked whether a disk has grown */

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

/* Do all the disks' files come as descriptors?  Then they can wait for the sandbox. */
static bool disks_passed(const struct options *o)
{
	for (unsigned i = 0; i < o->n_disks; i++)
		if (!o->disk[i].n_files && !o->disk[i].ends)
			return false;
	return true;
}

static int open_disks(struct vmm *v, struct vdisk_error *err)
{
	int r = 0;

	for (unsigned i = 0; !r && i < v->options.n_disks; i++)
		r = disk_add(v, &v->options.disk[i], err);
	return r;
}

/* A disk that is given back must not stay open here. */
static void close_passed(const struct options *o)
{
	for (unsigned i = 0; i < o->n_disks; i++)
		for (unsigned k = 0; k < o->disk[i].n_files; k++)
			close(o->disk[i].files[k].fd);
}

static int open_everything(struct vmm *v, struct vdisk_error *err)
{
	const struct options *o = &v->options;
	int r = kvm_open(&v->kvm_fd, o->kvm_fd, o->force, err);

	if (!r)
		r = open_file(&v->kernel_fd, "kernel", o->kernel, err);
	if (!r)
		r = kernel_unpack_prepare(v->kernel_fd, o->fast_kernel, err);
	if (!r && o->initrd)
		r = open_file(&v->initrd_fd, "initrd", o->initrd, err);
	if (!r && !disks_passed(o))
		r = open_disks(v, err);
	return r;
}

/* Before anything else is opened, as that would be open in the disks' processes too. */
static int isolate_disks(struct vmm *v, struct vdisk_error *err)
{
	struct options *o = &v->options;
	int r = keeper_start(o, disk_queues(o), v->ends, err);

	for (unsigned i = 0; !r && i < o->n_disks; i++)
		if (v->ends[i].channel >= 0)
			o->disk[i].ends = &v->ends[i];
	return r;
}

static void give_back(void *ram, void *host, uint64_t len)
{
	ram_give_back(ram, host, len);
}

static int make_devices(struct vmm *v, struct vdisk_error *err)
{
	const struct options *o = &v->options;
	int r = rng_new(&v->rng, err);

	if (!r)
		r = balloon_new(&v->balloon, give_back, &v->ram, err);
	if (!r && o->n_ports)
		r = ports_new(&v->ports, o->port, o->n_ports, o->no_sandbox ? NULL : sandbox_net, err);
	for (unsigned i = 0; !r && i < o->n_nics; i++) {
		struct net_options n = {
			.fd = o->nic[i].fd, .stream = o->nic[i].stream,
			.confine = o->no_sandbox ? NULL : sandbox_net,
		};

		memcpy(n.mac, o->nic[i].mac, 6);
		r = net_new(&v->nic[i], &n, err);
	}

	for (unsigned i = 0; !r && i < v->n_disks; i++)
		r = disk_start(v, v->disk[i], err);
	return r;
}

static int close_everything(struct vmm *v, struct vdisk_error *err)
{
	int r;

	control_destroy(&v->control);
	r = disks_close(v, err);
	for (unsigned i = 0; i < NICS_MAX; i++)
		if (v->nic[i])
			v->nic[i]->ops->free(v->nic[i]);
	if (v->ports)
		v->ports->ops->free(v->ports);
	if (v->vconsole)
		v->vconsole->ops->free(v->vconsole);
	if (v->balloon)
		v->balloon->ops->free(v->balloon);
	if (v->rng)
		v->rng->ops->free(v->rng);
	ram_free(&v->ram);
	return r;
}

/* ---- a machine's life ---- */

/* A vCPU's thread: the main thread does the rest, see turn(). */
static void unplugged(void *arg, struct virtio_device *dev)
{
	struct vmm *v = arg;

	pthread_mutex_lock(&v->disks_lock);
	for (unsigned i = 0; i < v->n_disks; i++)
		if (v->disk[i]->dev == dev)
			v->disk[i]->gone = true;
	pthread_mutex_unlock(&v->disks_lock);
	console_wake(&v->console);
}

static enum vmm_end ended(void *arg)
{
	const struct vmm *v = arg;

	return machine_end(v->machine);
}

static void turn(void *arg)
{
	struct vmm *v = arg;

	disks_reap(v, false);
	disks_look_for_growth(v);
}

static void new_console(void *arg, int fd)
{
	struct vmm *v = arg;

	console_add_viewer(&v->console, fd);
}

/* Tell the guest how large its terminal is, if it is news and there is somebody to tell. */
static void resized(void *arg)
{
	struct vmm *v = arg;
	uint16_t columns, rows;

	if (!v->vconsole)
		return;
	terminal_size(&columns, &rows);
	if (vconsole_resize(v->vconsole, columns, rows) && v->machine)
		machine_config_changed(v->machine, v->vconsole);
}

/* The device whose other side the terminal is. */
static int make_console(struct vmm *v, struct vdisk_error *err)
{
	int r = 0;

	if (v->options.virtio_console) {
		r = vconsole_new(&v->vconsole, err);
		v->serial.tty.unread = true;
		if (!r)
			resized(v);
	}
	if (r < 0)
		return r;
	return console_init(&v->console, v->vconsole ? vconsole_tty(v->vconsole) : &v->serial.tty,
			    v->options.time_limit, err);
}

static void print_stats(const struct vmm *v)
{
	struct machine_stats s;

	machine_stats(v->machine, &s);
	log_warnx("exits %" PRIu64 " port %" PRIu64 " (serial %" PRIu64 " pci %" PRIu64 ") memory %"
		  PRIu64 " other %" PRIu64, s.exits, s.port, s.serial, s.pci, s.memory, s.other);
	for (unsigned i = 0; i < v->n_disks; i++) {
		struct blk_stats b;

		if (disk_stats(v->disk[i], &b) < 0)
			continue;
		log_warnx("%s: reads %" PRIu64 " writes %" PRIu64 " flushes %" PRIu64 " interrupts %"
			  PRIu64 " sleeps %" PRIu64 " batches %" PRIu64 " enters %" PRIu64,
			  v->disk[i]->id, b.reads, b.writes, b.flushes, b.interrupts, b.sleeps,
			  b.batches, b.enters);
	}
}

/* One life of the machine, from power-on to whatever ends it. */
static int run_machine(struct vmm *v, bool first, enum vmm_end *end, struct vdisk_error *err)
{
	const struct options *o = &v->options;
	struct virtio_device *device[DISKS_MAX + NICS_MAX + 4];
	struct console_others others = {
		.control = o->control_fd >= 0 ? &v->control : NULL, .turn = turn, .turn_ms = LOOK_MS,
		.ended = ended, .watch_fd = -1, .resized = resized, .arg = v,
	};
	struct machine_config config = {
		.ram = &v->ram, .serial = &v->serial, .devices = device,
		.unplugged = unplugged, .unplugged_arg = v,
		.confine = o->no_sandbox ? NULL : sandbox_vcpu,
		.boot = { .kernel_fd = v->kernel_fd, .initrd_fd = v->initrd_fd,
			  .cmdline = o->cmdline, .vcpus = o->vcpus },
	};
	int r = first ? 0 : ram_clear(&v->ram, err);

	/* one that was to leave is gone with the machine that had it */
	for (unsigned i = v->n_disks; i-- > 0; )
		v->disk[i]->gone |= v->disk[i]->leaving;
	disks_reap(v, true);
	for (unsigned i = 0; i < v->n_disks; i++)
		device[config.n_devices++] = v->disk[i]->dev;
	for (unsigned i = 0; i < o->n_nics; i++)
		device[config.n_devices++] = v->nic[i];
	if (v->vconsole)
		device[config.n_devices++] = v->vconsole;
	device[config.n_devices++] = v->rng;
	device[config.n_devices++] = v->balloon;
	if (v->ports)
		device[config.n_devices++] = v->ports;
	if (!r)
		r = machine_new(&v->machine, v->kvm_fd, &config, err);
	if (r < 0)
		return r;
	v->lives++;
	if (!r)
		r = machine_start(v->machine, err);
	others.end_fd = machine_end_fd(v->machine);
	if (!r)
		*end = console_run(&v->console, &others);
	machine_stop(v->machine);
	if (o->stats)
		print_stats(v);
	machine_free(STEAL(v->machine));
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

static unsigned ram_flags(const struct vmm *v)
{
	unsigned flags = v->options.huge_pages ? RAM_HUGE : 0;

	/* disks may come later, too */
	if (v->options.isolate)
		flags |= RAM_SHARED;
	for (unsigned i = 0; i < v->options.n_disks; i++)
		if (v->options.disk[i].ends)
			flags |= RAM_SHARED;
	return flags;
}

static int run(struct vmm *v, enum vmm_end *end, struct vdisk_error *err)
{
	int r = make_console(v, err);
	bool first = true;

	if (!r && !v->options.no_sandbox)
		r = sandbox_enter(&v->sandbox, v->options.memory, err);
	if (!r)
		r = ram_new(&v->ram, v->options.memory, ram_flags(v), err);
	if (!r)
		terminal_raw();
	/* from here on nothing is opened; kernel and initrd are a guest's, and suspect */
	if (!r && !v->options.no_sandbox)
		r = sandbox_filter(&v->sandbox, err);
	/* nor are images read any earlier, if their files came with the command line */
	if (!r && disks_passed(&v->options))
		r = open_disks(v, err);
	close_passed(&v->options);
	if (!r)
		r = carry_in(v, err);
	if (!r)
		r = make_devices(v, err);
	if (!r)
		r = kernel_unpack(&v->kernel_fd, v->options.fast_kernel, err);
	do {
		if (!r)
			r = run_machine(v, first, end, err);
		first = false;
	} while (!r && again(&v->options, end));
	if (!r && *end == VMM_REBOOT)
		carry_out(v);
	console_finish(&v->console);
	terminal_restore();
	return r;
}

int main(int argc, char **argv)
{
	static struct vmm v = { .kvm_fd = -1, .kernel_fd = -1, .initrd_fd = -1, .ram.fd = -1,
		.disks_lock = PTHREAD_MUTEX_INITIALIZER };
	struct vdisk_error err = { 0 };
	enum vmm_end end = VMM_ERROR;
	size_t seed;
	int r, closed;

	/* more arenas would make malloc() open files, when no thread may any more */
	mallopt(M_ARENA_MAX, 1);
	if (getrandom(&seed, sizeof(seed), 0) == sizeof(seed))
		json_object_seed(seed | 1);
	argv = vd_take_args(argc, argv);
	if (!argv) {
		log_warnx("the command line: %m");
		return VMM_ERROR;
	}
	options_parse(&v.options, argc, argv, "Run one Linux guest on KVM.");
	log_set_verbose(v.options.verbose);
	signal(SIGPIPE, SIG_IGN);
	clock_gettime(CLOCK_MONOTONIC, &v.started);
	control_init(&v.control, v.options.control_fd);
	v.control.serve = vmm_serve;
	v.control.console = new_console;
	v.control.arg = &v;
	if (v.options.keep[0] >= 0) {
		r = keeper_alone(&v.options, disk_queues(&v.options), &err);
	} else if (v.options.check) {
		r = kvm_open(&v.kvm_fd, v.options.kvm_fd, v.options.force, &err);
	} else {
		serial_init(&v.serial);
		terminal_look();
		/* it keeps the rights that are given up below */
		r = isolate_disks(&v, &err);
		if (!r && !v.options.no_sandbox)
			r = sandbox_prepare(&v.sandbox, &err);
		if (v.sandbox.pid)
			v.options.pid = v.sandbox.outside;
		if (!r)
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
