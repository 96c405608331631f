/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* kernel.c - User-Mode Linux's process: its command line, its end, its agent */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/beside.h"
#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/uml/confine.h"
#include "vmm-lite/uml/uml.h"

#define ARGS_MAX	(UML_SLOTS_MAX + PORTS_MAX + 24)
#define VIRTIO_NET	1u
#define VIRTIO_BLOCK	2u

struct arguments {
	char *arg[ARGS_MAX];	/* owned */
	unsigned n;
};

PRINTF_FMT(2, 3)
static void add(struct arguments *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&a->arg[a->n], fmt, ap) < 0)
		a->arg[a->n] = NULL;
	va_end(ap);
	if (a->arg[a->n])
		a->n++;
}

static bool is_nic(const struct uml *u, unsigned slot)
{
	return slot >= u->options.n_disks && slot < u->options.n_disks + u->options.n_nics;
}

static void add_devices(struct arguments *a, const struct uml *u)
{
	char path[108];

	/* without a platform id of its own each counts on from the one before */
	for (unsigned i = 0; i < u->n_slots; i++) {
		uml_slot_path(u, i, path);
		add(a, "virtio_uml.device=%s:%u", path, is_nic(u, i) ? VIRTIO_NET : VIRTIO_BLOCK);
	}
}

static void fill_arguments(struct arguments *a, const struct uml *u, int initrd, int agent)
{
	const struct options *o = &u->options;

	add(a, "%s", o->kernel);
	add(a, "mem=%lluM", (unsigned long long)(o->memory >> 20));
	if (u->sandbox.mount)
		add(a, "initrd=%s", CONFINE_INITRD);
	else
		add(a, "initrd=/proc/self/fd/%d", initrd);
	add(a, "uml_dir=%s", u->dir);
	add(a, "umid=guest");
	/* the guest has no business with this host's files */
	add(a, "hostfs=%s/nothing", u->dir);
	add_devices(a, u);
	/* its serial lines lose their output at the first open; its consoles do not */
	add(a, "con=null");
	add(a, "con0=fd:%d", u->line.slave);
	add(a, "con%u=fd:%d", UML_AGENT_TTY, agent);
	for (unsigned i = 0; i < o->n_ports; i++)
		add(a, "con%u=null,fd:%d", UML_PORT_TTY + i, o->port[i].fd);
	add(a, "ssl=null");
	add(a, "console=tty0");
	add(a, "selinux=0");
	/* until the root is mounted, where init.c lets it say more: what UML says of devices that
	 * it has not would only disturb ("quiet" is for UML's own beginning) */
	add(a, "quiet");
	add(a, "loglevel=2");
	if (*o->cmdline)
		add(a, "%s", o->cmdline);	/* the kernel joins its arguments */
}

/*
 * The first process of a namespace, if there is one.  It waits until all is there that it
 * needs; what it is left with, it tells.
 */
NORETURN
static void execute(struct uml *u, int initrd, int agent)
{
	AUTO_CLOSE int kernel = open(u->options.kernel, O_PATH | O_CLOEXEC);
	int go = u->start[1];
	char shim[PATH_MAX], preload[PATH_MAX + 16], byte;
	/* nothing of our environment is for it, a secret least */
	char *environment[] = { preload, NULL };
	struct vdisk_error err = { 0 };
	struct arguments a = { .n = 0 };
	sigset_t none;

	setpgid(0, 0);
	if (read(go, &byte, 1) != 1)
		_exit(VMM_ERROR);
	/* sockets and ports of ours are not for it */
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
	fcntl(initrd, F_SETFD, 0);
	fcntl(agent, F_SETFD, 0);
	fcntl(u->line.slave, F_SETFD, 0);
	for (unsigned i = 0; i < u->options.n_ports; i++)
		fcntl(u->options.port[i].fd, F_SETFD, 0);
	if (vd_beside(shim, "vdisk-uml.so") < 0)
		_exit(VMM_ERROR);
	if (!u->options.no_sandbox)
		confine_files(&u->sandbox, u->dir, shim, initrd);
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", u->sandbox.mount ? CONFINE_SHIM : shim);
	fill_arguments(&a, u, initrd, agent);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (!u->options.no_sandbox && confine_calls(&u->sandbox, &err) < 0) {
		log_warnx("%s", err.msg);
		_exit(VMM_ERROR);
	}
	if (write(go, &u->sandbox, sizeof(u->sandbox)) < 0)
		_exit(VMM_ERROR);
	execveat(kernel, "", a.arg, environment, AT_EMPTY_PATH);
	log_warnx("%s: %m", u->options.kernel);
	_exit(VMM_ERROR);
}

static int initrd_fd(const struct uml *u, struct vdisk_error *err)
{
	const char *name = u->options.initrd;
	unsigned fd;

	if (!name || strncmp(name, "fd:", 3) || words_number(name + 3, 3, 65535, &fd) < 0)
		return vd_fail(err, EINVAL, "--initrd is fd:N here, not '%s'", name ? name : "");
	return (int)fd;
}

int uml_kernel_prepare(struct uml *u, int agent, struct vdisk_error *err)
{
	int initrd = initrd_fd(u, err);

	if (initrd < 0)
		return initrd;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, u->start) < 0)
		return vd_fail(err, errno, "socketpair: %m");
	fflush(NULL);
	u->kernel = u->options.no_sandbox ? fork() : confine_fork(&u->sandbox);
	if (u->kernel == 0) {
		close(u->start[0]);
		execute(u, initrd, agent);
	}
	close(STEAL_FD(u->start[1]));
	if (u->kernel < 0) {
		u->kernel = 0;
		return vd_fail(err, errno, "fork: %m");
	}
	/* what it has alone, it ends with it */
	for (unsigned i = 0; i < u->options.n_ports; i++)
		close(u->options.port[i].fd);
	close(initrd);
	u->kernel_fd = (int)syscall(SYS_pidfd_open, u->kernel, 0);
	return u->kernel_fd < 0 ? vd_fail(err, errno, "pidfd_open: %m") : 0;
}

int uml_kernel_start(struct uml *u, struct vdisk_error *err)
{
	if (send(u->start[0], "", 1, MSG_NOSIGNAL) != 1)
		return vd_fail(err, errno, "User-Mode Linux's process: %m");
	/* (one that does not answer has said why, and its end is seen to) */
	if (recv(u->start[0], &u->sandbox, sizeof(u->sandbox), 0) < 0)
		log_warnx("User-Mode Linux's process: %m");
	close(STEAL_FD(u->start[0]));
	return 0;
}

enum vmm_end uml_kernel_end(struct uml *u, bool kill_it)
{
	int how = 0;

	if (u->kernel <= 0)
		return VMM_ERROR;
	if (kill_it)
		kill(u->kernel, SIGKILL);
	while (waitpid(u->kernel, &how, 0) < 0 && errno == EINTR)
		;
	u->kernel = 0;
	if (WIFEXITED(how))
		return (enum vmm_end)WEXITSTATUS(how);
	if (!kill_it)
		log_warnx("User-Mode Linux was ended by signal %d (%s)", WTERMSIG(how),
			  strsignal(WTERMSIG(how)));
	return VMM_ERROR;
}

/* ---- the agent ---- */

int uml_agent_tell(struct uml *u, const char *fmt, ...)
{
	char line[64];
	va_list ap;
	int n;

	if (!u->agent_ready)
		return -ENOTCONN;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return send(u->agent_fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n ? 0 : -EPIPE;
}

static struct uml_disk *disk_on(struct uml *u, unsigned slot)
{
	for (unsigned i = 0; i < u->n_disks; i++)
		if (u->disk[i]->slot == slot)
			return u->disk[i];
	return NULL;
}

/* What it says may come from anybody in the guest: it is about the guest alone. */
static void obey(struct uml *u, const char *line)
{
	struct uml_disk *d;
	unsigned slot;
	int error;

	if (!strcmp(line, "ready")) {
		u->agent_ready = true;
	} else if (sscanf(line, "unbound %u", &slot) == 1) {
		d = disk_on(u, slot);
		/* the guest's processes may hold the connection still, that has no user any more */
		if (d && d->leaving)
			relay_finish(d->relay);
	} else if (sscanf(line, "failed %u %d", &slot, &error) == 2) {
		d = disk_on(u, slot);
		if (!d || (!d->later && !d->leaving))
			return;
		log_guest("%s: the guest does not %s %s: %s", d->id, d->leaving ? "give back" : "take",
			  d->locator, strerror(error));
		d->leaving = !d->leaving;
		/* one that it has not had leaves its slot as good as before */
		if (d->leaving)
			relay_finish(d->relay);
	}
}

void uml_agent_hear(struct uml *u)
{
	char *end;
	ssize_t n = recv(u->agent_fd, u->heard + u->n_heard, sizeof(u->heard) - 1 - u->n_heard,
			 MSG_DONTWAIT);

	/* (what has ended would be told of for ever) */
	if (n == 0) {
		u->agent_ready = false;
		epoll_ctl(u->watch_fd, EPOLL_CTL_DEL, u->agent_fd, NULL);
	}
	if (n <= 0)
		return;
	u->n_heard += (size_t)n;
	u->heard[u->n_heard] = '\0';
	while ((end = memchr(u->heard, '\n', u->n_heard))) {
		size_t len = (size_t)(end - u->heard) + 1;

		*end = '\0';
		u->heard[strcspn(u->heard, "\r")] = '\0';
		obey(u, u->heard);
		u->n_heard -= len;
		memmove(u->heard, end + 1, u->n_heard + 1);
	}
	/* nothing that is as long is a word of the agent's */
	if (u->n_heard == sizeof(u->heard) - 1)
		u->n_heard = 0;
}
