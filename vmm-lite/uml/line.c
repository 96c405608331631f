/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* line.c - see line.h */
#include "vmm-lite/uml/line.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "core/driver.h"

static void wake(struct line *l)
{
	uint64_t one = 1;

	(void)!write(l->wake_fd, &one, sizeof(one));
}

/* Input came, or output went. */
static void changed(struct tty *t)
{
	wake(container_of(t, struct line, tty));
}

int line_new(struct line *l, struct vdisk_error *err)
{
	struct termios t;

	tty_init(&l->tty);
	l->tty.changed = changed;
	l->slave = -1;
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (l->wake_fd < 0 || l->master < 0 || unlockpt(l->master) < 0)
		return vd_fail(err, errno, "a pseudo-terminal for the guest's console: %m");
	l->slave = ioctl(l->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (l->slave < 0 || tcgetattr(l->slave, &t) < 0)
		return vd_fail(err, errno, "a pseudo-terminal for the guest's console: %m");
	/* the guest has a line discipline of its own */
	cfmakeraw(&t);
	return tcsetattr(l->slave, TCSANOW, &t) < 0 ? vd_fail(err, errno, "tcsetattr: %m") : 0;
}

/* What the guest has said, as far as there is room.  False: it has gone. */
static bool take_output(struct line *l)
{
	uint8_t buf[4096];
	ssize_t n;
	size_t room;

	pthread_mutex_lock(&l->tty.lock);
	room = TTY_OUT_SIZE - tty_out_used(&l->tty);
	pthread_mutex_unlock(&l->tty.lock);
	if (!room)
		return true;
	n = read(l->master, buf, MIN(room, sizeof(buf)));
	if (n > 0) {
		pthread_mutex_lock(&l->tty.lock);
		tty_put(&l->tty, buf, (size_t)n);
		pthread_mutex_unlock(&l->tty.lock);
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void give_input(struct line *l, uint8_t *rest, size_t *n)
{
	ssize_t done;

	if (!*n) {
		pthread_mutex_lock(&l->tty.lock);
		*n = tty_get(&l->tty, rest, 256);
		pthread_mutex_unlock(&l->tty.lock);
	}
	done = *n ? write(l->master, rest, *n) : 0;
	if (done > 0) {
		*n -= (size_t)done;
		memmove(rest, rest + done, *n);
	}
}

static void *carry(void *arg)
{
	struct line *l = arg;
	uint8_t rest[256];	/* keys that the guest has not taken yet */
	size_t n = 0;
	bool there = true;

	while (there && !l->stop) {
		struct pollfd fds[] = {
			{ .fd = l->master }, { .fd = l->wake_fd, .events = POLLIN },
		};
		uint64_t count;

		pthread_mutex_lock(&l->tty.lock);
		if (tty_out_used(&l->tty) < TTY_OUT_SIZE)
			fds[0].events |= POLLIN;
		if (n || tty_in_used(&l->tty))
			fds[0].events |= POLLOUT;
		pthread_mutex_unlock(&l->tty.lock);
		/* a guest that has gone must not keep us busy while nobody reads */
		if (!fds[0].events)
			fds[0].fd = -1;
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents)
			(void)!read(l->wake_fd, &count, sizeof(count));
		if (fds[0].revents & POLLOUT)
			give_input(l, rest, &n);
		if (fds[0].revents & (POLLIN | POLLHUP | POLLERR))
			there = take_output(l);
	}
	return NULL;
}

int line_start(struct line *l, struct vdisk_error *err)
{
	int r;

	close(STEAL_FD(l->slave));
	r = pthread_create(&l->thread, NULL, carry, l);
	l->has_thread = !r;
	return r ? vd_fail(err, r, "cannot start a thread: %s", strerror(r)) : 0;
}

void line_resize(struct line *l, uint16_t columns, uint16_t rows)
{
	struct winsize w = { .ws_col = columns, .ws_row = rows };

	if (columns && rows)
		ioctl(l->master, TIOCSWINSZ, &w);
}

void line_finish(struct line *l)
{
	if (l->has_thread) {
		l->stop = true;
		wake(l);
		pthread_join(l->thread, NULL);
		l->has_thread = false;
	}
	/* as much as is in the pseudo-terminal still */
	for (unsigned i = 0; l->master >= 0 && i < TTY_OUT_SIZE / 4096; i++) {
		struct pollfd p = { .fd = l->master, .events = POLLIN };

		if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLIN) || !take_output(l))
			break;
	}
}

void line_free(struct line *l)
{
	line_finish(l);
	if (l->master >= 0)
		close(l->master);
	if (l->slave >= 0)
		close(l->slave);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	l->master = l->slave = l->wake_fd = -1;
}
