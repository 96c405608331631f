/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keeper.c - the processes of isolated disks, and who starts them again
 *
 * One loop, which waits for nothing else: a child that has its disk open, a child's
 * end, a word or the end of the VMM, the time to try again.  Which child failed is known
 * by its process id, that the VMM is gone by the end of a channel, which it has alone.  A
 * child ends by itself when its connection is closed, after it has written out what it
 * holds.  One disk whose target is away does not keep the others from being served.
 *
 * A throw-away layer dies with its process, so such a disk is not started
 * again: its guest would find other bytes than it has written.
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

enum kept_state {
	STARTING,	/* there is a process, which is opening the disk */
	SERVING,	/* it has it open, and the VMM its connection */
	WAITING,	/* there is none; the next is started at ->again_at */
	OVER,		/* the VMM is done with it, or was told that it is gone */
};

struct kept {
	const struct disk_option *disk;
	int channel, control;	/* owned: our end; the child's end */
	enum kept_state state;
	pid_t pid;		/* 0: none */
	int ready, sock;	/* owned while STARTING: tells that it is open; what to pass on; or -1 */
	time_t since;		/* SERVING; 0: it never was */
	uint64_t again_at;	/* milliseconds */
	unsigned deaths;
	unsigned tries;		/* to start it, after its death */
	bool failing;		/* it is not the disk's process any more, but one in its place */
	bool ending;		/* the VMM is done with it */
};

struct keeper {
	const struct options *options;
	char program[PATH_MAX];
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

int keeper_wait_end(int channel, int wait_ms)
{
	struct pollfd p = { .fd = channel, .events = POLLIN };
	struct keeper_word word = { .says = KEEPER_NEW };
	int fd, r;

	do {	/* there may have been a new one in between */
		r = poll(&p, 1, wait_ms);
		if (r == 0 || (r < 0 && errno == EINTR && wait_ms >= 0))
			return -EAGAIN;
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

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void drop_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Nothing more is done for this disk; the VMM hears why. */
static void end(struct kept *d, enum keeper_says what, int value)
{
	say(d, what, value, -1);
	d->state = OVER;
}

/* 0, or -errno and no process. */
static int make_process(const struct keeper *k, struct kept *d)
{
	int sock[2], ready[2], r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		return -errno;
	if (pipe2(ready, O_CLOEXEC) < 0) {
		r = -errno;
		close(sock[0]);
		close(sock[1]);
		return r;
	}
	d->pid = fork();
	if (d->pid == 0)
		execute(k, d, sock[1], ready[1]);
	if (d->pid < 0) {
		r = -errno;
		d->pid = 0;
	}
	close(sock[1]);
	close(ready[1]);
	d->sock = sock[0];
	d->ready = ready[0];
	return r;
}

static void start(struct keeper *k, struct kept *d);

/* Nobody can serve it: a process in its place says so to whoever asks. */
static void give_up(struct keeper *k, struct kept *d, const char *why)
{
	log_warnx("%s: %s", d->disk->locator, why);
	d->tries = 0;
	d->failing = true;
	start(k, d);
}

/* Its lock, or its target, may come free. */
static void not_started(struct keeper *k, struct kept *d)
{
	drop_fd(&d->sock);
	drop_fd(&d->ready);
	if (d->ending) {
		end(d, KEEPER_ENDED, 1);
	} else if (!d->since || d->failing) {
		end(d, KEEPER_GONE, 0);
	} else if (d->tries++ >= TRIES) {
		give_up(k, d, "it cannot be started again");
	} else {
		d->state = WAITING;
		d->again_at = now_ms() + TRY_MS;
	}
}

static void start(struct keeper *k, struct kept *d)
{
	d->state = STARTING;
	if (make_process(k, d) < 0)
		not_started(k, d);
}

/* It has its disk open; or it ends, and there will be a signal. */
static void hear_ready(struct kept *d)
{
	char byte;

	if (read(d->ready, &byte, 1) == 1) {
		d->state = SERVING;
		d->since = time(NULL);
		d->tries = 0;
		say(d, d->failing ? KEEPER_FAILING : KEEPER_NEW, d->pid, d->sock);
	} else {
		kill(d->pid, SIGTERM);
	}
	drop_fd(&d->ready);
	drop_fd(&d->sock);
}

/* The VMM's one word: it is done with this disk. */
static void listen_to(struct kept *d)
{
	char byte;
	ssize_t n = recv(d->channel, &byte, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	d->ending = true;
	/* it ended before it was told to, or was not there yet */
	if (!d->pid)
		end(d, KEEPER_ENDED, 1);
	else if (d->state == STARTING)
		kill(d->pid, SIGKILL);	/* it may be opening a disk for ever, and has done nothing */
}

/* It died, but nobody is done with it. */
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
	} else if (d->deaths >= DEATHS_MAX) {
		give_up(k, d, "it cannot be started again");
	} else {
		d->tries = 1;
		start(k, d);
	}
}

/* ---- the loop ---- */

static void child_ended(struct keeper *k, struct kept *d, int status)
{
	bool well = WIFEXITED(status) && !WEXITSTATUS(status) && !d->failing;

	d->pid = 0;
	if (d->state == STARTING)
		not_started(k, d);
	else if (d->ending)
		end(d, KEEPER_ENDED, !well);
	else if (d->failing)
		end(d, KEEPER_GONE, 0);
	else
		start_again(k, d, status);
}

static void reap(struct keeper *k)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (unsigned i = 0; i < k->n; i++) {
			struct kept *d = &k->kept[i];

			if (d->pid != pid)
				continue;
			/* the VMM's word comes first: what ends after it was to end */
			if (!d->ending)
				listen_to(d);
			child_ended(k, d, status);
		}
}

static bool all_over(const struct keeper *k)
{
	for (unsigned i = 0; i < k->n; i++)
		if (k->kept[i].state != OVER)
			return false;
	return true;
}

/* Start those whose time has come; how long until the next one's, in milliseconds. */
static int start_due(struct keeper *k)
{
	uint64_t next = UINT64_MAX, now = now_ms();

	for (unsigned i = 0; i < k->n; i++) {
		struct kept *d = &k->kept[i];

		if (d->state == WAITING && d->again_at <= now)
			start(k, d);
		if (d->state == WAITING)
			next = MIN(next, d->again_at);
	}
	return next == UINT64_MAX ? -1 : (int)(next - MIN(now, next));
}

static void loop(struct keeper *k)
{
	bool left = !k->alone;

	while (!all_over(k)) {
		struct pollfd fds[1 + 2 * DISKS_MAX] = { { .fd = k->signals, .events = POLLIN } };
		struct signalfd_siginfo info;
		int wait_ms;

		if (!left && k->kept[0].state != STARTING) {
			log_leave_terminal();	/* who started us goes on */
			left = true;
		}
		wait_ms = start_due(k);
		for (unsigned i = 0; i < k->n; i++) {
			const struct kept *d = &k->kept[i];

			fds[1 + 2 * i] = (struct pollfd) {
				.fd = d->ending || d->state == OVER ? -1 : d->channel, .events = POLLIN,
			};
			fds[2 + 2 * i] = (struct pollfd) { .fd = d->ready, .events = POLLIN };
		}
		if (poll(fds, 1 + 2 * k->n, wait_ms) < 0)
			continue;
		for (unsigned i = 0; i < k->n; i++) {
			if (fds[1 + 2 * i].revents)
				listen_to(&k->kept[i]);
			if (fds[2 + 2 * i].revents)
				hear_ready(&k->kept[i]);
		}
		if (!fds[0].revents || read(k->signals, &info, sizeof(info)) == sizeof(info))
			reap(k);
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
		start(k, &k->kept[i]);
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
		.ready = -1, .sock = -1,
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
		k.kept[k.n] = (struct kept) { .disk = &o->disk[i], .ready = -1, .sock = -1 };
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
