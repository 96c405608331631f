/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * console.c - standard input and output as the guest's console
 *
 * The main thread's loop.  Output is written only when poll() says that it
 * will not block, and at most PIPE_BUF bytes at a time, so the descriptor need
 * not be made non-blocking (it may be shared with others, who would be
 * surprised).  A reader that is slow fills the device's ring, not a vCPU.
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
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/control.h"
#include "vmm-lite/log.h"
#include "vmm-lite/terminal.h"

static int make_signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGWINCH);
	/* before any thread is started: they all inherit it */
	if (pthread_sigmask(SIG_BLOCK, &set, NULL))
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int console_init(struct console *c, struct tty *tty, unsigned time_limit, struct vdisk_error *err)
{
	struct itimerspec limit = { .it_value.tv_sec = (time_t)time_limit };

	memset(c, 0, sizeof(*c));
	c->tty = tty;
	c->timer_fd = c->signal_fd = -1;
	for (unsigned i = 0; i < VIEWERS_MAX; i++)
		c->viewer[i] = -1;
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0)
		return vd_fail(err, errno, "eventfd: %m");
	tty->wake = console_wake;
	tty->wake_arg = c;
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

void console_wake(void *console)
{
	const struct console *c = console;
	uint64_t one = 1;

	if (write(c->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warnx("eventfd: %m");
}

/* ---- viewers: they see what standard output sees, if they keep up ---- */

static void drop_viewer(struct console *c, unsigned i)
{
	close(c->viewer[i]);
	c->viewer[i] = -1;
}

static void show(struct console *c, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		c->backlog[c->said++ % BACKLOG_SIZE] = data[i];
	for (unsigned i = 0; i < VIEWERS_MAX; i++)
		if (c->viewer[i] >= 0 &&
		    send(c->viewer[i], data, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
		    errno != EAGAIN)
			drop_viewer(c, i);
}

void console_add_viewer(struct console *c, int fd)
{
	uint64_t from = c->said - MIN(c->said, (uint64_t)BACKLOG_SIZE);
	size_t at = from % BACKLOG_SIZE, first = MIN(BACKLOG_SIZE - at, (size_t)(c->said - from));

	for (unsigned i = 0; i < VIEWERS_MAX; i++) {
		if (c->viewer[i] >= 0)
			continue;
		c->viewer[i] = fd;
		(void)send(fd, c->backlog + at, first, MSG_NOSIGNAL | MSG_DONTWAIT);
		(void)send(fd, c->backlog, (size_t)(c->said - from) - first,
			   MSG_NOSIGNAL | MSG_DONTWAIT);
		return;
	}
	close(fd);
}

static void read_viewer(struct console *c, unsigned i)
{
	size_t room = tty_room(c->tty);
	uint8_t buf[256];
	ssize_t n;

	if (!room)
		return;
	n = recv(c->viewer[i], buf, MIN(room, sizeof(buf)), MSG_DONTWAIT);
	if (n > 0)
		tty_input(c->tty, buf, (size_t)n);
	else if (!n || (errno != EAGAIN && errno != EINTR))
		drop_viewer(c, i);
}

static void write_output(struct console *c)
{
	uint8_t buf[PIPE_BUF];
	size_t len = tty_peek(c->tty, buf, sizeof(buf));
	ssize_t n = len ? write(STDOUT_FILENO, buf, len) : 0;
	uint64_t lost;

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		c->output_lost = true;
	if (n > 0) {
		show(c, buf, (size_t)n);
		tty_consume(c->tty, (size_t)n);
	}
	lost = tty_lost(c->tty);
	if (lost)
		log_warnx("the reader is slow: %" PRIu64 " bytes of console output were dropped",
			  lost);
}

/* Nobody reads: the guest need not know. */
static void discard_output(struct console *c)
{
	uint8_t buf[PIPE_BUF];
	size_t len;

	while ((len = tty_peek(c->tty, buf, sizeof(buf)))) {
		show(c, buf, len);
		tty_consume(c->tty, len);
	}
	(void)tty_lost(c->tty);
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
	tty_input(c->tty, buf, len);
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

/* One signal; true: it ends the guest. */
static bool take_signal(struct console *c, const struct console_others *others)
{
	struct signalfd_siginfo info;

	if (read(c->signal_fd, &info, sizeof(info)) != sizeof(info))
		return false;
	if (info.ssi_signo != SIGWINCH)
		return true;
	others->resized(others->arg);
	return false;
}

static bool output_waits(struct console *c)
{
	uint8_t byte;

	return tty_peek(c->tty, &byte, 1) > 0;
}

enum vmm_end console_run(struct console *c, const struct console_others *others)
{
	enum { END, SIGNAL, TIMER, WAKE, WATCH, INPUT, OUTPUT, VIEWER, CONTROL = VIEWER + VIEWERS_MAX,
	       N = CONTROL + CONTROL_CLIENTS_MAX + 1 };

	for (;;) {
		size_t room = c->input_ended ? 0 : tty_room(c->tty);
		struct pollfd fds[N] = {
			[END] = { .fd = others->end_fd, .events = POLLIN },
			[SIGNAL] = { .fd = c->signal_fd, .events = POLLIN },
			[TIMER] = { .fd = c->timer_fd, .events = POLLIN },
			[WAKE] = { .fd = c->wake_fd, .events = POLLIN },
			[WATCH] = { .fd = others->watch_fd, .events = POLLIN },
			[INPUT] = { .fd = room ? STDIN_FILENO : -1, .events = POLLIN },
			[OUTPUT] = { .fd = output_waits(c) ? STDOUT_FILENO : -1,
				     .events = POLLOUT },
		};
		unsigned n = others->control ? N : CONTROL;
		enum vmm_end end = VMM_RUNNING;

		for (unsigned i = 0; i < VIEWERS_MAX; i++)
			fds[VIEWER + i] = (struct pollfd) {
				.fd = tty_room(c->tty) ? c->viewer[i] : -1, .events = POLLIN,
			};
		if (others->control)
			control_poll(others->control, fds + CONTROL);
		if (poll(fds, n, others->turn_ms) < 0) {
			if (errno == EINTR)
				continue;
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
		for (unsigned i = 0; i < VIEWERS_MAX; i++)
			if (fds[VIEWER + i].revents)
				read_viewer(c, i);
		if (fds[END].revents)
			return others->ended(others->arg);
		if (fds[WATCH].revents)
			others->watched(others->arg);
		if (others->control)
			control_handle(others->control, fds + CONTROL);
		if (others->turn)
			others->turn(others->arg);
		if (others->control && end == VMM_RUNNING) {
			end = others->control->asked;
			others->control->asked = VMM_RUNNING;
		}
		if (end != VMM_RUNNING)
			return end;
		if (fds[SIGNAL].revents && take_signal(c, others))
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
