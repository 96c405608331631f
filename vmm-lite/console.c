/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * console.c - standard input and output as the guest's serial console
 *
 * The main thread's loop.  Output is written only when poll() says that it
 * will not block, and at most PIPE_BUF bytes at a time, so the descriptor need
 * not be made non-blocking (it may be shared with others, who would be
 * surprised).  A reader that is slow fills the serial port's ring, not a vCPU.
 */
#include "vmm-lite/console.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/terminal.h"

static int make_signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	/* before any thread is started: they all inherit it */
	if (pthread_sigmask(SIG_BLOCK, &set, NULL))
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int console_init(struct console *c, struct serial *serial, unsigned time_limit,
		 struct vdisk_error *err)
{
	struct itimerspec limit = { .it_value.tv_sec = (time_t)time_limit };

	*c = (struct console) { .serial = serial, .timer_fd = -1, .signal_fd = -1 };
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0)
		return vd_fail(err, errno, "eventfd: %m");
	c->signal_fd = make_signal_fd();
	if (c->signal_fd < 0)
		return vd_fail(err, errno, "signalfd: %m");
	if (!time_limit)
		return 0;
	c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->timer_fd < 0 || timerfd_settime(c->timer_fd, 0, &limit, NULL) < 0)
		return vd_fail(err, errno, "timerfd: %m");
	return 0;
}

void console_destroy(struct console *c)
{
	close(c->wake_fd);
	close(c->signal_fd);
	if (c->timer_fd >= 0)
		close(c->timer_fd);
}

void console_wake(void *console)
{
	const struct console *c = console;
	uint64_t one = 1;

	if (write(c->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warnx("eventfd: %m");
}

static void write_output(struct console *c)
{
	uint8_t buf[PIPE_BUF];
	size_t len = serial_peek(c->serial, buf, sizeof(buf));
	ssize_t n = len ? write(STDOUT_FILENO, buf, len) : 0;
	uint64_t lost;

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		c->output_lost = true;
	if (n > 0)
		serial_consume(c->serial, (size_t)n);
	lost = serial_lost(c->serial);
	if (lost)
		log_warnx("the reader is slow: %" PRIu64 " bytes of console output were dropped",
			  lost);
}

/* Nobody reads: the guest need not know. */
static void discard_output(struct console *c)
{
	serial_consume(c->serial, SERIAL_OUT_SIZE);
	(void)serial_lost(c->serial);
}

static enum vmm_end read_input(struct console *c, size_t room)
{
	uint8_t buf[256];
	ssize_t n = read(STDIN_FILENO, buf, MIN(room, sizeof(buf)));
	enum escape e;
	size_t len;

	if (n <= 0) {
		if (!n || (errno != EAGAIN && errno != EINTR))
			c->input_ended = true;
		return VMM_RUNNING;
	}
	len = (size_t)n;
	e = terminal_filter(buf, &len);
	serial_input(c->serial, buf, len);
	if (e == ESCAPE_HELP)
		log_warnx("Ctrl-] q: end the guest at once, Ctrl-] r: reset it, "
			  "Ctrl-] Ctrl-]: send Ctrl-]");
	return e == ESCAPE_QUIT ? VMM_STOPPED : e == ESCAPE_REBOOT ? VMM_REBOOT : VMM_RUNNING;
}

static void drain(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;		/* EAGAIN: nothing there */
}

static bool output_waits(struct console *c)
{
	uint8_t byte;

	return serial_peek(c->serial, &byte, 1) > 0;
}

enum vmm_end console_run(struct console *c, const struct machine *m)
{
	enum { END, SIGNAL, TIMER, WAKE, INPUT, OUTPUT, N };

	for (;;) {
		size_t room = c->input_ended ? 0 : serial_room(c->serial);
		struct pollfd fds[N] = {
			[END] = { .fd = machine_end_fd(m), .events = POLLIN },
			[SIGNAL] = { .fd = c->signal_fd, .events = POLLIN },
			[TIMER] = { .fd = c->timer_fd, .events = POLLIN },
			[WAKE] = { .fd = c->wake_fd, .events = POLLIN },
			[INPUT] = { .fd = room ? STDIN_FILENO : -1, .events = POLLIN },
			[OUTPUT] = { .fd = output_waits(c) ? STDOUT_FILENO : -1,
				     .events = POLLOUT },
		};
		enum vmm_end end = VMM_RUNNING;

		if (poll(fds, N, -1) < 0 && errno != EINTR) {
			log_warnx("poll: %m");
			return VMM_ERROR;
		}
		if (fds[WAKE].revents)
			drain(c->wake_fd);
		if (fds[OUTPUT].revents && !c->output_lost)
			write_output(c);
		if (c->output_lost)
			discard_output(c);
		if (fds[INPUT].revents)
			end = read_input(c, room);
		if (fds[END].revents)
			return machine_end(m);
		if (end != VMM_RUNNING)
			return end;
		if (fds[SIGNAL].revents)
			return VMM_STOPPED;
		if (fds[TIMER].revents)
			return VMM_TIME_LIMIT;
	}
}

void console_finish(struct console *c)
{
	while (!c->output_lost && output_waits(c)) {
		struct pollfd out = { .fd = STDOUT_FILENO, .events = POLLOUT };

		if (poll(&out, 1, 1000) <= 0)
			return;
		write_output(c);
	}
}
