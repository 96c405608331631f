/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disks.c - the disks of a User-Mode Linux guest: a process each
 *
 * A process waits at its slot's socket for the guest's driver, and ends when that has
 * gone.  An end that nobody asked for is the end of the disk: UML's driver does not
 * connect twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/uml/uml.h"
#include "vmm-lite/vhost/command.h"

#define READY_S		30	/* for a disk of a running guest, whose console waits meanwhile */

void uml_slot_path(const struct uml *u, unsigned slot, char out[108])
{
	snprintf(out, 108, "%s/s%u", u->dir, slot);
}

int uml_listen(const char *path, struct vdisk_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path));
	unlink(path);	/* of a disk that was here before */
	if (sock < 0 || bind(sock, (const void *)&addr, sizeof(addr)) < 0 || listen(sock, 1) < 0)
		return vd_fail(err, errno, "%s: %m", path);
	return STEAL_FD(sock);
}

/* ---- a process ---- */

struct ends {
	int sock, control[2], ready[2];
};

static void close_ends(struct ends *e)
{
	int *fds[] = { &e->sock, &e->control[0], &e->control[1], &e->ready[0], &e->ready[1] };

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			close(STEAL_FD(*fds[i]));
}

static int make_ends(struct uml *u, unsigned slot, struct ends *e, struct vdisk_error *err)
{
	char path[108];

	*e = (struct ends) { -1, { -1, -1 }, { -1, -1 } };
	uml_slot_path(u, slot, path);
	e->sock = uml_listen(path, err);
	if (e->sock < 0)
		return e->sock;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, e->control) < 0 ||
	    pipe2(e->ready, O_CLOEXEC) < 0)
		return vd_fail(err, errno, "sockets for a disk: %m");
	return 0;
}

NORETURN
static void execute(const struct uml *u, const struct disk_option *o, const struct ends *e,
		    pid_t parent)
{
	struct vhost_place p = {
		.fd = e->sock, .control_fd = e->control[1], .ready_fd = e->ready[1],
		.queues = 1,	/* UML's processor is one */
		.poll_us = u->options.poll_us, .once = true, .no_sandbox = u->options.no_sandbox,
	};
	struct vhost_command c;
	sigset_t none;

	/* it lives as long as the guest: a terminal's signals are not for it */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent || vhost_command(&c, o, &p) < 0)
		_exit(1);
	setpgid(0, 0);
	/* sockets and ports of ours are not for it */
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	fcntl(e->sock, F_SETFD, 0);
	fcntl(e->control[1], F_SETFD, 0);
	fcntl(e->ready[1], F_SETFD, 0);
	for (unsigned i = 0; i < o->n_files; i++)
		fcntl(o->files[i].fd, F_SETFD, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(u->vhost, (char *const *)(uintptr_t)c.arg);
	log_warnx("%s: %m", u->vhost);
	_exit(1);
}

/* Until the disk is open, with its locks; it has said why not, if not. */
static int wait_ready(const struct ends *e, bool later)
{
	struct pollfd p = { .fd = e->ready[0], .events = POLLIN };
	char byte;
	int n;

	do
		n = poll(&p, 1, later ? READY_S * 1000 : -1);
	while (n < 0 && errno == EINTR);
	return n > 0 && read(e->ready[0], &byte, 1) == 1 ? 0 : -EIO;
}

static int start(struct uml *u, struct uml_disk *d, const struct disk_option *o,
		 struct vdisk_error *err)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = d };
	struct ends e;
	int r = make_ends(u, d->slot, &e, err);
	pid_t parent = getpid();

	if (!r) {
		d->pid = fork();
		if (d->pid == 0)
			execute(u, o, &e, parent);
		if (d->pid < 0)
			r = vd_fail(err, errno, "fork: %m");
	}
	if (!r) {
		close(STEAL_FD(e.ready[1]));
		r = wait_ready(&e, d->later);
		if (r < 0)
			vd_fail(err, EIO, "%s: its process could not be started", d->locator);
	}
	if (!r) {
		d->pid_fd = (int)syscall(SYS_pidfd_open, d->pid, 0);
		if (d->pid_fd < 0 || epoll_ctl(u->watch_fd, EPOLL_CTL_ADD, d->pid_fd, &event) < 0)
			r = vd_fail(err, errno, "watching a disk's process: %m");
	}
	if (!r)
		d->lines.fd = STEAL_FD(e.control[0]);
	else if (d->pid > 0) {
		kill(d->pid, SIGKILL);	/* it may be opening a disk for ever */
		waitpid(d->pid, NULL, 0);
		d->pid = 0;
	}
	close_ends(&e);
	return r;
}

/* ---- the list ---- */

static char *copy(const char *s)
{
	return s ? strdup(s) : NULL;
}

static void free_files(struct uml_disk *d)
{
	for (unsigned i = 0; i < d->n_files; i++) {
		close(d->files[i].fd);
		free((char *)(uintptr_t)d->files[i].path);
	}
	free(d->files);
	d->n_files = 0;
}

static void disk_free(struct uml_disk *d)
{
	vhost_lines_destroy(&d->lines);
	if (d->pid_fd >= 0)
		close(d->pid_fd);
	free_files(d);
	free(d->locator);
	free(d->secret_locator);
	free(d->format);
	free(d->serial);
	free(d);
}

/* Descriptors of our own, which keep the locks, for the guest's next life. */
static int keep_files(struct uml_disk *d, const struct disk_option *o)
{
	d->files = calloc(o->n_files + 1, sizeof(*d->files));
	for (unsigned i = 0; d->files && i < o->n_files; i++) {
		int fd = fcntl(o->files[i].fd, F_DUPFD_CLOEXEC, 3);

		if (fd < 0)
			return -errno;
		d->files[d->n_files++] = (struct vdisk_open_file) {
			.path = strdup(o->files[i].path), .fd = fd,
		};
		if (!d->files[i].path)
			return -ENOMEM;
	}
	return d->files ? 0 : -ENOMEM;
}

static int find_slot(struct uml *u)
{
	for (unsigned i = 0; i < u->n_slots; i++)
		if (u->slot[i] == SLOT_FREE)
			return (int)i;
	return -1;
}

static struct uml_disk *disk_new(struct uml *u, const struct disk_option *o)
{
	struct uml_disk *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->pid_fd = -1;
	d->cache = o->cache;
	d->block_size = o->block_size;
	d->limits = o->limits;
	d->read_only = o->read_only;
	d->snapshot = o->snapshot;
	d->locator = copy(o->locator);
	d->secret_locator = copy(o->locator);
	d->format = copy(o->format);
	if (o->serial)
		d->serial = copy(o->serial);
	else if (asprintf(&d->serial, "vdisk%u", u->next_id) < 0)
		d->serial = NULL;
	vhost_lines_init(&d->lines, -1, d->locator);
	snprintf(d->id, sizeof(d->id), "disk%u", u->next_id);
	if (d->locator && d->secret_locator && d->serial && (!o->format || d->format))
		return d;
	disk_free(d);
	return NULL;
}

int uml_disk_add(struct uml *u, const struct disk_option *o, bool later, struct vdisk_error *err)
{
	int r = 0, slot = later ? find_slot(u) : (int)u->n_disks;
	struct disk_option named = *o;
	struct uml_disk *d;

	if (u->n_disks == DISKS_MAX || slot < 0)
		return vd_fail(err, ENOSPC, "the guest has all the disks that it can have (%u)",
			       u->n_disks);
	d = disk_new(u, o);
	if (!d)
		return vd_fail(err, ENOMEM, "out of memory");
	d->slot = (unsigned)slot;
	d->later = later;
	named.serial = d->serial;
	if (later && keep_files(d, o) < 0)
		r = vd_fail(err, ENOMEM, "out of memory, or of descriptors");
	if (!r)
		r = start(u, d, &named, err);
	if (r < 0) {
		disk_free(d);
		return r;
	}
	vdisk_redact(d->locator);	/* from now on it is only shown */
	u->next_id++;
	u->slot[slot] = SLOT_USED;
	u->disk[u->n_disks++] = d;
	return 0;
}

struct uml_disk *uml_disk_find(struct uml *u, const char *id)
{
	for (unsigned i = 0; i < u->n_disks; i++)
		if (!strcmp(u->disk[i]->id, id) || !strcmp(u->disk[i]->serial, id))
			return u->disk[i];
	return NULL;
}

/* Its exit status; what it could not write out is an error of ours. */
static void reap(struct uml *u, struct uml_disk *d)
{
	int how = 0;

	if (d->pid <= 0)
		return;
	while (waitpid(d->pid, &how, 0) < 0 && errno == EINTR)
		;
	d->pid = 0;
	if (WIFEXITED(how) && !WEXITSTATUS(how))
		return;
	u->disks_failed = true;
	if (WIFSIGNALED(how))
		log_warnx("%s: its process was ended by signal %d", d->locator, WTERMSIG(how));
}

void uml_disk_ended(struct uml *u, struct uml_disk *d)
{
	reap(u, d);
	if (!d->leaving)
		log_warnx("%s: its process has ended: the guest has lost this disk", d->locator);
	uml_disk_remove(u, d);
}

void uml_disk_remove(struct uml *u, struct uml_disk *d)
{
	char path[108];

	uml_slot_path(u, d->slot, path);
	unlink(path);
	epoll_ctl(u->watch_fd, EPOLL_CTL_DEL, d->pid_fd, NULL);
	if (d->pid > 0) {
		kill(d->pid, SIGTERM);
		reap(u, d);
	}
	/* a driver that lost its connection takes its device away for good */
	u->slot[d->slot] = d->leaving ? SLOT_FREE : SLOT_LOST;
	for (unsigned i = 0; i < u->n_disks; i++) {
		if (u->disk[i] != d)
			continue;
		memmove(&u->disk[i], &u->disk[i + 1], (u->n_disks - i - 1) * sizeof(d));
		u->n_disks--;
		break;
	}
	disk_free(d);
}

void uml_disks_finish(struct uml *u)
{
	char path[108];

	/* one that has a guest's connection to end is doing so; the signal is for those
	 * that never got one */
	for (unsigned i = 0; i < u->n_disks; i++)
		if (u->disk[i]->pid > 0)
			kill(u->disk[i]->pid, SIGTERM);
	for (unsigned i = 0; i < u->n_disks; i++) {
		reap(u, u->disk[i]);
		uml_slot_path(u, u->disk[i]->slot, path);
		unlink(path);
	}
}

void uml_disks_free(struct uml *u)
{
	while (u->n_disks)
		disk_free(u->disk[--u->n_disks]);
}
