/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - vmm-uml: run one guest on User-Mode Linux
 *
 * The counterpart of vmm-lite where KVM is missing, with the same command line, console
 * and control socket.  This process only looks after the others: it sees no disk's
 * bytes.  What the guest's kernel is left with is confine.c's.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/args.h"
#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/terminal.h"
#include "vmm-lite/uml/uml.h"

/* ---- what the console's loop calls ---- */

static enum vmm_end ended(void *arg)
{
	return uml_kernel_end(arg, false);
}

static void watched(void *arg)
{
	struct uml *u = arg;
	struct epoll_event event;

	/* one at a time: what is done for it may be the end of the next */
	if (epoll_wait(u->watch_fd, &event, 1, 0) != 1)
		return;
	if (event.data.ptr)
		uml_disk_changed(u, event.data.ptr);
	else
		uml_agent_hear(u);
}

static void resized(void *arg)
{
	struct uml *u = arg;
	uint16_t columns, rows;

	terminal_size(&columns, &rows);
	line_resize(&u->line, columns, rows);
}

static void new_console(void *arg, int fd)
{
	struct uml *u = arg;

	console_add_viewer(&u->console, fd);
}

/* ---- a life ---- */

static int make_agent(struct uml *u, int *its, struct vdisk_error *err)
{
	struct epoll_event event = { .events = EPOLLIN };
	int ends[2];

	u->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	if (u->watch_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return vd_fail(err, errno, "a socket for the guest's agent: %m");
	u->agent_fd = ends[0];
	*its = ends[1];
	return epoll_ctl(u->watch_fd, EPOLL_CTL_ADD, u->agent_fd, &event) < 0 ?
		vd_fail(err, errno, "epoll_ctl: %m") : 0;
}

/*
 * While there is one thread, and all is allowed, processes are forked off.  UML's processor
 * is one, and so is each disk's queue.
 */
static int make_processes(struct uml *u, int agent, struct vdisk_error *err)
{
	struct options *o = &u->options;
	int r = uml_kernel_prepare(u, agent, err);

	if (!r)
		r = keeper_start(o, 1, u->ends, err);
	for (unsigned i = 0; !r && i < o->n_nics; i++)
		r = uml_nic_add(u, &o->nic[i], err);
	return r;
}

static int make_disks(struct uml *u, struct vdisk_error *err)
{
	struct options *o = &u->options;
	int r = 0;

	for (unsigned i = 0; !r && i < o->n_disks; i++) {
		o->disk[i].ends = &u->ends[i];
		r = uml_disk_add(u, &o->disk[i], false, err);
	}
	return r ? r : uml_carry_in(u, err);
}

/* From here on nothing is started any more, and only what was started is ended. */
static int confine(struct uml *u, struct vdisk_error *err)
{
	pid_t own[1 + NICS_MAX] = { u->kernel };

	for (unsigned i = 0; i < u->n_nics; i++)
		own[1 + i] = u->nic[i].pid;
	return sandbox_filter_uml(own, 1 + u->n_nics, err);
}

static int start(struct uml *u, struct vdisk_error *err)
{
	AUTO_CLOSE int agent = -1;
	int r = uml_dir_make(u, err);

	if (!r)
		r = line_new(&u->line, err);
	if (!r)
		r = make_agent(u, &agent, err);
	u->n_slots = u->options.n_disks + u->options.n_nics + UML_SPARE_SLOTS;
	if (!r)
		r = make_processes(u, agent, err);
	if (!r && !u->options.no_sandbox)
		r = sandbox_enter_uml(u->dir, err);
	if (!r)
		r = make_disks(u, err);
	if (!r)
		r = console_init(&u->console, &u->line.tty, u->options.time_limit, err);
	if (r < 0)
		return r;
	resized(u);
	terminal_raw();
	r = uml_kernel_start(u, err);
	if (!r)
		r = line_start(&u->line, err);
	if (!r && !u->options.no_sandbox)
		r = confine(u, err);
	return r;
}

static void print_stats(struct uml *u)
{
	for (unsigned i = 0; i < u->n_disks; i++) {
		struct blk_stats b;

		if (uml_disk_stats(u->disk[i], &b) == 0)
			log_warnx("%s: reads %" PRIu64 " writes %" PRIu64 " flushes %" PRIu64
				  " interrupts %" PRIu64 " sleeps %" PRIu64, u->disk[i]->id, b.reads,
				  b.writes, b.flushes, b.interrupts, b.sleeps);
	}
}

static enum vmm_end run(struct uml *u)
{
	struct console_others others = {
		.control = u->options.control_fd >= 0 ? &u->control : NULL,
		.end_fd = u->kernel_fd, .ended = ended, .turn_ms = -1, .resized = resized,
		.watch_fd = u->watch_fd, .watched = watched, .arg = u,
	};
	enum vmm_end end = console_run(&u->console, &others);

	if (u->options.stats)
		print_stats(u);
	if (u->kernel)
		uml_kernel_end(u, true);
	line_finish(&u->line);
	console_finish(&u->console);
	return end;
}

/* All that it left. */
static void finish(struct uml *u, enum vmm_end end)
{
	if (u->kernel)
		uml_kernel_end(u, true);
	uml_nics_finish(u);
	if (end == VMM_REBOOT)
		uml_carry_out(u);
	uml_disks_finish(u);
	control_destroy(&u->control);
	line_free(&u->line);
	uml_dir_remove(u);
}

/* What is vmm-lite's alone. */
static int check_options(const struct options *o, struct vdisk_error *err)
{
	if (o->virtio_console)
		return vd_fail(err, EINVAL, "User-Mode Linux has consoles of its own: no --console virtio");
	if (o->huge_pages)
		return vd_fail(err, EINVAL, "User-Mode Linux has no use for --huge-pages");
	if (o->vcpus > 1)
		return vd_fail(err, EINVAL, "User-Mode Linux has one processor");
	return 0;
}

int main(int argc, char **argv)
{
	static struct uml u = { .watch_fd = -1, .agent_fd = -1, .kernel_fd = -1, .start = { -1, -1 },
		.sweeper_fd = -1, .line = { .master = -1, .slave = -1, .wake_fd = -1 } };
	struct vdisk_error err = { 0 };
	enum vmm_end end = VMM_ERROR;
	int r;

	argv = vd_take_args(argc, argv);
	if (!argv) {
		log_warnx("the command line: %m");
		return VMM_ERROR;
	}
	options_parse(&u.options, argc, argv, "Run one guest on User-Mode Linux.");
	u.options.isolate = true;
	log_set_verbose(u.options.verbose);
	signal(SIGPIPE, SIG_IGN);
	clock_gettime(CLOCK_MONOTONIC, &u.started);
	control_init(&u.control, u.options.control_fd);
	u.control.serve = uml_serve;
	u.control.console = new_console;
	u.control.arg = &u;
	terminal_look();
	r = check_options(&u.options, &err);
	if (r < 0) {
		log_warnx("%s", err.msg);
		return VMM_USAGE;
	}
	r = start(&u, &err);
	if (!r)
		end = run(&u);
	terminal_restore();
	if (r < 0)
		log_warnx("%s", err.msg);
	finish(&u, end);
	return u.disks_failed && end == VMM_POWER_OFF ? VMM_ERROR : (int)end;
}
