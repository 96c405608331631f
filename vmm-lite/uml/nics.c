/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nics.c - the network cards of a User-Mode Linux guest
 *
 * Each is the virtio card that guests on KVM have, behind a vhost-user socket in a
 * process of its own: it has the guest's memory, and the tap device or passt's socket,
 * and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/uml/uml.h"
#include "vmm-lite/vhost/sandbox.h"
#include "vmm-lite/vhost/server.h"
#include "vmm-lite/virtio/net.h"

/* Signals come by descriptor, as vhost_serve() wants them. */
static int take_signals(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGSYS);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int serve(const struct uml *u, const struct nic_option *o, int sock)
{
	const char *unlinks[] = { NULL };
	struct vhost_server s = {
		.listen_fd = sock, .connection_fd = -1, .control_fd = -1, .lines_fd = -1,
		.signal_fd = take_signals(), .once = true,
	};
	struct net_options n = { .fd = o->fd, .stream = o->stream };
	struct vdisk_error err = { 0 };
	int r = s.signal_fd < 0 ? -errno : 0;

	memcpy(n.mac, o->mac, 6);
	if (!r)
		r = vhost_drop_privileges(&err);
	if (!r)
		r = net_new(&s.dev, &n, &err);
	if (!r && !u->options.no_sandbox)
		r = vhost_filter(unlinks, false, &err);
	if (r < 0) {
		log_warnx("network card: %s", err.msg[0] ? err.msg : strerror(-r));
		return 1;
	}
	r = vhost_serve(&s);
	s.dev->ops->free(s.dev);
	return r < 0;
}

/* All but the terminal's, the socket, and the other side of the wire. */
static void close_others(int a, int b)
{
	unsigned low = (unsigned)MIN(a, b), high = (unsigned)MAX(a, b);

	if (low > 3)
		close_range(3, low - 1, 0);
	if (high > low + 1)
		close_range(low + 1, high - 1, 0);
	close_range(high + 1, ~0u, 0);
}

int uml_nic_add(struct uml *u, const struct nic_option *o, struct vdisk_error *err)
{
	struct uml_nic *n = &u->nic[u->n_nics];
	AUTO_CLOSE int sock = -1;
	pid_t parent = getpid();
	char path[108];

	n->slot = u->options.n_disks + u->n_nics;
	uml_slot_path(u, n->slot, path);
	sock = uml_listen(path, err);
	if (sock < 0)
		return sock;
	n->pid = fork();
	if (n->pid < 0)
		return vd_fail(err, errno, "fork: %m");
	if (n->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		prctl(PR_SET_NAME, "vdisk-net");
		setpgid(0, 0);
		if (getppid() != parent)
			_exit(1);
		close_others(sock, o->fd);
		_exit(serve(u, o, sock));
	}
	/* the other side ends when the card does */
	close(o->fd);
	u->slot[n->slot] = SLOT_USED;
	u->n_nics++;
	return 0;
}

void uml_nics_finish(struct uml *u)
{
	char path[108];

	for (unsigned i = 0; i < u->n_nics; i++) {
		kill(u->nic[i].pid, SIGTERM);
		while (waitpid(u->nic[i].pid, NULL, 0) < 0 && errno == EINTR)
			;
		uml_slot_path(u, u->nic[i].slot, path);
		unlink(path);
	}
	u->n_nics = 0;
}
