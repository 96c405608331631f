/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keeper.c - the processes of isolated disks, and who starts them again
 *
 * One loop: a child's end, or the end of the VMM.  Which child failed is known
 * by its process id, that the VMM is gone by the end of a channel, which it has
 * alone.  A child ends by itself when its connection is closed, after it has
 * written out what it holds.
 *
 * A throw-away layer dies with its process, so such a disk is not started
 * again: its guest would find other bytes than it has written.  What is not started again
 * is replaced by a process that fails each request: a driver has no word for a disk that
 * is gone, and would wait for its requests, and with it whoever wants to stop the guest.
 */
#include "vmm-lite/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/args.h"
#include "core/driver.h"
#include "core/fds.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vhost/command.h"

#define TRIES		150	/* to start one again: its lock, or its target, may come free */
#define TRY_MS		200
#define LIVED_S		5	/* one that lived longer did not fail at the start */
#define DEATHS_MAX	20	/* in a row, shorter than that */

struct kept {
	const struct disk_option *disk;
	int channel, control;	/* owned: our end; the child's end */
	pid_t pid;
	time_t since;
	unsigned deaths;
	unsigned tries;		/* to start it, after its death */
	bool failing;		/* it is not the disk's process any more, but one in its place */
	bool ending, over;	/* the VMM is done with it; so are we */
};

struct keeper {
	const struct options *options;
	char program[4096];
	unsigned queues, n;
	struct kept kept[DISKS_MAX];
	int signals;
	bool alone;		/* of a disk that was attached: nobody waits for us */
};

bool keeper_isolated(const struct options *o, const struct disk_option *d)
{
	/* what reaches a network is never opened in the process of the guest */
	return o->isolate || vdisk_is_remote(d->locator) || vdisk_is_remote(d->backing);
}

/* ---- the channel ---- */

static void say(const struct kept *k, enum keeper_says what, int value, int fd)
{
	struct keeper_word word = { .says = what, .value = value };
	struct iovec iov = { .iov_base = &word, .iov_len = sizeof(word) };

	/* if nobody hears it, nobody needs it */
	(void)vd_send_fds(k->channel, &iov, 1, &fd, fd >= 0, MSG_DONTWAIT);
}

int keeper_hear(int channel, bool wait, struct keeper_word *word, int *fd)
{
	unsigned n_fds;
	ssize_t n = vd_recv_fds(channel, word, sizeof(*word), fd, 1, &n_fds, wait ? 0 : MSG_DONTWAIT);

	if (!n_fds)
		*fd = -1;
	if (n <= 0)
		return (int)n;
	return n == sizeof(*word) ? 1 : -EPROTO;
}

int keeper_tell_end(int channel)
{
	static const char end = KEEPER_END;

	return send(channel, &end, 1, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int keeper_wait_end(int channel)
{
	struct keeper_word word;
	int fd, r;

	do {	/* there may have been a new one in between */
		r = keeper_hear(channel, true, &word, &fd);
		if (fd >= 0)
			close(fd);
	} while (r > 0 && word.says == KEEPER_NEW);
	if (r <= 0)
		return -EPIPE;
	return word.says == KEEPER_ENDED && !word.value ? 0 : -EIO;
}

/* ---- starting one ---- */

static void execute(const struct keeper *k, const struct kept *d, int connection, int ready)
{
	struct vhost_place p = {
		.fd = connection, .control_fd = d->control, .ready_fd = ready, .queues = k->queues,
		.poll_us = k->options->poll_us, .no_sandbox = k->options->no_sandbox,
		.detach = k->alone, .failing = d->failing,
	};
	int keep[] = { connection, ready, d->control };
	struct vhost_command c;
	sigset_t none;

	if (vhost_command(&c, d->disk, &p) < 0)
		_exit(1);
	/* why it cannot be started is told once */
	if (d->tries > 1)
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	for (unsigned i = 0; i < ARRAY_SIZE(keep); i++)
		fcntl(keep[i], F_SETFD, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* if the keeper is killed nobody would start it again: a last will */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	vd_execv(k->program, c.arg);
	log_warnx("%s: %m", k->program);
	_exit(1);
}

/* Wait until it has its disk open; false: it ended instead, or the VMM is done with it. */
static bool is_ready(const struct kept *d, int ready)
{
	struct pollfd fds[2] = {
		{ .fd = ready, .events = POLLIN }, { .fd = d->channel, .events = POLLIN | POLLRDHUP },
	};
	char byte;

	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return fds[0].revents && read(ready, &byte, 1) == 1;
}

static bool start_once(struct keeper *k, struct kept *d)
{
	int sock[2], ready[2];
	bool good;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		return false;
	if (pipe2(ready, O_CLOEXEC) < 0) {
		close(sock[0]);
		close(sock[1]);
		return false;
	}
	d->pid = fork();
	if (d->pid == 0)
		execute(k, d, sock[1], ready[1]);
	close(sock[1]);
	close(ready[1]);
	good = d->pid > 0 && is_ready(d, ready[0]);
	close(ready[0]);
	if (good) {
		d->since = time(NULL);
		say(d, d->failing ? KEEPER_FAILING : KEEPER_NEW, d->pid, sock[0]);
	} else if (d->pid > 0) {
		kill(d->pid, SIGTERM);	/* unless it has ended by itself */
		waitpid(d->pid, NULL, 0);
		d->pid = 0;
	}
	close(sock[0]);
	return good;
}

/* The VMM's one word: it is done with this disk. */
static void listen_to(struct kept *d)
{
	char byte;
	ssize_t n = recv(d->channel, &byte, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	d->ending = true;
	/* it ended before it was told to, or not at all */
	if (!d->pid) {
		say(d, KEEPER_ENDED, 1, -1);
		d->over = true;
	}
}

static void give_up(struct keeper *k, struct kept *d, const char *why)
{
	log_warnx("%s: %s", d->disk->locator, why);
	d->tries = 0;
	d->failing = true;
	if (start_once(k, d) || d->over)
		return;
	say(d, KEEPER_GONE, 0, -1);
	d->over = true;
}

/* It died.  Its successor may have to wait for the lock, or for its target. */
static void start_again(struct keeper *k, struct kept *d, int status)
{
	/* one that ended well has had its connection closed, by a VMM that has left it to another */
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		d->deaths = 0;
	else
		d->deaths = time(NULL) - d->since < LIVED_S ? d->deaths + 1 : 0;
	if (WIFSIGNALED(status))
		log_warnx("%s: its process was ended by signal %d, and is started again",
			  d->disk->locator, WTERMSIG(status));
	else
		log_warnx("%s: its process ended with status %d, and is started again",
			  d->disk->locator, WEXITSTATUS(status));
	if (d->disk->snapshot) {
		give_up(k, d, "what was written to its throw-away layer is lost with it");
		return;
	}
	for (d->tries = 1; d->deaths < DEATHS_MAX && d->tries <= TRIES; d->tries++) {
		if (start_once(k, d)) {
			d->tries = 0;
			return;
		}
		listen_to(d);
		if (d->over)
			return;
		usleep(TRY_MS * 1000);
	}
	give_up(k, d, "it cannot be started again");
}

/* ---- the loop ---- */

static void child_ended(struct keeper *k, pid_t pid, int status)
{
	for (unsigned i = 0; i < k->n; i++) {
		struct kept *d = &k->kept[i];

		if (d->pid != pid)
			continue;
		d->pid = 0;
		if (d->ending || d->failing) {
			bool well = WIFEXITED(status) && !WEXITSTATUS(status) && !d->failing;

			say(d, d->ending ? KEEPER_ENDED : KEEPER_GONE, !well, -1);
			d->over = true;
		} else {
			start_again(k, d, status);
		}
	}
}

static bool all_over(const struct keeper *k)
{
	for (unsigned i = 0; i < k->n; i++)
		if (!k->kept[i].over)
			return false;
	return true;
}

static void loop(struct keeper *k)
{
	while (!all_over(k)) {
		struct pollfd fds[DISKS_MAX + 1] = { { .fd = k->signals, .events = POLLIN } };
		struct signalfd_siginfo info;
		int status;
		pid_t pid;

		for (unsigned i = 0; i < k->n; i++)
			fds[i + 1] = (struct pollfd) {
				.fd = k->kept[i].ending || k->kept[i].over ? -1 : k->kept[i].channel,
				.events = POLLIN,
			};
		if (poll(fds, k->n + 1, -1) < 0)
			continue;
		/* the VMM's word comes first: what ends after it was to end */
		for (unsigned i = 0; i < k->n; i++)
			if (fds[i + 1].revents)
				listen_to(&k->kept[i]);
		if (fds[0].revents && read(k->signals, &info, sizeof(info)) < 0)
			continue;
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			for (unsigned i = 0; i < k->n; i++)
				if (!k->kept[i].ending && !k->kept[i].over)
					listen_to(&k->kept[i]);
			child_ended(k, pid, status);
		}
	}
}

/* The VMM's descriptors are not for us, or they would stay open when it is gone. */
static void close_others(const struct keeper *k)
{
	for (int fd = 3; fd < 4096; fd++) {
		bool ours = false;

		for (unsigned i = 0; i < k->n; i++)
			ours |= fd == k->kept[i].channel || fd == k->kept[i].control;
		if (!ours)
			close(fd);
	}
	close_range(4096, ~0u, 0);
}

/* Who started us has seen how it went, and goes on. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; null >= 0 && i < 3; i++)
		dup2(null, i);
}

NORETURN
static void keep(struct keeper *k)
{
	sigset_t set;

	/* what a terminal sends is for the VMM */
	if (k->alone)
		setsid();
	else
		setpgid(0, 0);
	close_others(k);
	prctl(PR_SET_NAME, "vmm-keeper");
	signal(SIGPIPE, SIG_IGN);
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	k->signals = signalfd(-1, &set, SFD_CLOEXEC);
	for (unsigned i = 0; i < k->n; i++)
		if (!start_once(k, &k->kept[i])) {
			say(&k->kept[i], KEEPER_GONE, 0, -1);
			k->kept[i].over = true;
		}
	if (k->alone)
		leave_terminal();
	loop(k);
	_exit(0);
}

/* ---- the VMM's side ---- */

static int make_ends(struct kept *d, struct keeper_ends *e)
{
	int channel[2], control[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0)
		return -errno;
	e->channel = channel[0];
	d->channel = channel[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		return -errno;
	e->control = control[0];
	d->control = control[1];
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e->events) < 0 ? -errno : 0;
}

int keeper_alone(const struct options *o, unsigned queues, struct vdisk_error *err)
{
	struct keeper k = { .options = o, .queues = queues, .n = 1, .alone = true };
	int r = vhost_program(k.program, err);

	if (r < 0)
		return r;
	k.kept[0] = (struct kept) {
		.disk = &o->disk[0], .channel = o->keep[0], .control = o->keep[1],
	};
	fcntl(o->keep[0], F_SETFD, FD_CLOEXEC);
	fcntl(o->keep[1], F_SETFD, FD_CLOEXEC);
	keep(&k);
}

int keeper_start(const struct options *o, unsigned queues, struct keeper_ends *ends,
		 struct vdisk_error *err)
{
	struct keeper k = { .options = o, .queues = queues };
	int r = 0;
	pid_t pid;

	for (unsigned i = 0; i < o->n_disks; i++)
		ends[i] = (struct keeper_ends) { -1, -1, { -1, -1 } };
	for (unsigned i = 0; !r && i < o->n_disks; i++) {
		if (!keeper_isolated(o, &o->disk[i]))
			continue;
		k.kept[k.n].disk = &o->disk[i];
		r = make_ends(&k.kept[k.n++], &ends[i]);
	}
	if (r < 0)
		return vd_fail(err, -r, "sockets for isolated disks: %s", strerror(-r));
	if (!k.n)
		return 0;
	r = vhost_program(k.program, err);
	if (r < 0)
		return r;
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return vd_fail(err, errno, "fork: %m");
	if (pid == 0)
		keep(&k);
	for (unsigned i = 0; i < k.n; i++) {
		close(k.kept[i].channel);
		close(k.kept[i].control);
	}
	return 0;
}
