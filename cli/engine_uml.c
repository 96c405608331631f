/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine_uml.c - guests on User-Mode Linux, where KVM cannot run them
 *
 * The kernel is UML's, an ordinary program.  Its disks are vhost-user sockets,
 * each served by a vdisk-vhost process; they and the sockets' directory are gone
 * when the guest is.  The initramfs is ours: uml_initramfs.c looks into the
 * disks and writes down what there is to do.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "cli/guest.h"
#include "cli/uml.h"

#define ARGS_MAX	64u

struct server {
	char socket[108];	/* as long as an address may be */
	pid_t pid;		/* 0: not running */
};

struct run {
	const struct guest *g;
	char dir[92];		/* private; "" before it exists */
	struct server server[GUEST_DISKS_MAX];
	char *kernel, *shim, *vhost; /* owned */
};

/* ---- disks ---- */

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path));
	if (sock < 0 || bind(sock, (const void *)&addr, sizeof(addr)) < 0 || listen(sock, 1) < 0) {
		cli_error("%s: %m", path);
		if (sock >= 0)
			close(sock);
		return -1;
	}
	return sock;
}

static void exec_server(const struct run *r, const struct guest_disk *d, int sock, int ready,
			pid_t parent)
{
	char fd[16], ready_fd[16];
	const char *argv[24];
	unsigned n = 0;

	/* it lives as long as the guest: a terminal's signals are not for it */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(CLI_FAILED);
	setpgid(0, 0);
	fcntl(sock, F_SETFD, 0);
	fcntl(ready, F_SETFD, 0);
	snprintf(fd, sizeof(fd), "%d", sock);
	snprintf(ready_fd, sizeof(ready_fd), "%d", ready);
	argv[n++] = r->vhost;
	argv[n++] = "--once";
	argv[n++] = "--queues=1";
	argv[n++] = "--fd";
	argv[n++] = fd;
	argv[n++] = "--ready";
	argv[n++] = ready_fd;
	if (d->format) {
		argv[n++] = "--format";
		argv[n++] = d->format;
	}
	if (d->cache) {
		argv[n++] = "--cache";
		argv[n++] = d->cache;
	}
	if (d->backing) {
		argv[n++] = "--backing";
		argv[n++] = d->backing;
	}
	if (d->backing_format) {
		argv[n++] = "--backing-format";
		argv[n++] = d->backing_format;
	}
	if (d->read_only)
		argv[n++] = "--read-only";
	if (d->snapshot)
		argv[n++] = "--snapshot";
	argv[n++] = "--";
	argv[n++] = d->locator;
	argv[n] = NULL;
	execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(CLI_FAILED);
}

/* Started, and the disk is open with its locks. */
static int start_server(struct run *r, unsigned i)
{
	struct server *s = &r->server[i];
	AUTO_CLOSE int sock = -1, ready = -1, end = -1;
	pid_t parent = getpid();
	int ends[2];
	char byte;

	snprintf(s->socket, sizeof(s->socket), "%s/disk%u", r->dir, i);
	sock = listen_at(s->socket);
	if (sock < 0)
		return CLI_FAILED;
	if (pipe2(ends, O_CLOEXEC) < 0) {
		cli_error("pipe: %m");
		return CLI_FAILED;
	}
	ready = ends[0];
	end = ends[1];
	fflush(NULL);
	s->pid = fork();
	if (s->pid == 0)
		exec_server(r, &r->g->disk[i], sock, end, parent);
	if (s->pid < 0) {
		s->pid = 0;
		cli_error("fork: %m");
		return CLI_FAILED;
	}
	close(STEAL_FD(end));
	/* it says why not, if not */
	return read(ready, &byte, 1) == 1 ? CLI_OK : CLI_FAILED;
}

/* The guest is gone; the servers' result is the disks'. */
static int finish_servers(struct run *r)
{
	int status = CLI_OK, how;

	for (unsigned i = 0; i < r->g->n_disks; i++) {
		struct server *s = &r->server[i];

		if (s->pid <= 0)
			continue;
		/* one that has a guest's connection to end is doing so; this is for those
		 * that never got one */
		kill(s->pid, SIGTERM);
		while (waitpid(s->pid, &how, 0) < 0 && errno == EINTR)
			;
		if (!WIFEXITED(how) || WEXITSTATUS(how))
			status = CLI_FAILED;
		unlink(s->socket);
	}
	return status;
}

/* ---- the guest ---- */

struct arguments {
	const char *arg[ARGS_MAX];
	unsigned n;
	char text[GUEST_DISKS_MAX + GUEST_PORTS_MAX + 4][160];
	unsigned n_text;
};

PRINTF_FMT(2, 3)
static void addf(struct arguments *a, const char *fmt, ...)
{
	char *text = a->text[a->n_text++];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(a->text[0]), fmt, ap);
	va_end(ap);
	a->arg[a->n++] = text;
}

/* Memory as vmm-lite takes it: bytes with K, M, G, or else MiB. */
static int memory_mib(const struct guest *g, unsigned long *out)
{
	uint64_t bytes = 512ull << 20;

	if (g->memory && vdisk_parse_size(g->memory, &bytes) < 0) {
		cli_error("--memory: '%s' is not a size", g->memory);
		return CLI_USAGE;
	}
	*out = (unsigned long)(bytes < 1 << 20 ? bytes : bytes >> 20);
	return CLI_OK;
}

static int run_kernel(struct run *r, int initramfs)
{
	struct arguments a = { .n = 0 };
	struct rlimit no_core = { 0, 0 };
	unsigned seconds = r->g->time_limit ? (unsigned)cli_number("--time-limit", r->g->time_limit,
								   1, 1000000) : 0;
	unsigned long mib;
	int keep_open[1 + GUEST_PORTS_MAX], number, status = memory_mib(r->g, &mib);

	if (status != CLI_OK)
		return status;
	a.arg[a.n++] = r->kernel;
	addf(&a, "mem=%luM", mib);
	addf(&a, "initrd=/proc/self/fd/%d", initramfs);
	addf(&a, "uml_dir=%s", r->dir);
	a.arg[a.n++] = "umid=guest";
	for (unsigned i = 0; i < r->g->n_disks; i++)
		addf(&a, "virtio_uml.device=%s:2", r->server[i].socket);
	/* its serial lines lose their output at the first open; its consoles do not */
	a.arg[a.n++] = "con=null";
	a.arg[a.n++] = "con0=fd:0,fd:1";
	for (unsigned i = 0; i < r->g->n_ports; i++)
		addf(&a, "con%u=null,fd:%d", GUEST_PORT_TTY + i, r->g->port[i].fd);
	a.arg[a.n++] = "ssl=null";
	a.arg[a.n++] = "console=tty0";
	a.arg[a.n++] = "selinux=0";
	a.arg[a.n++] = "quiet";
	if (r->g->cmdline && *r->g->cmdline)
		a.arg[a.n++] = r->g->cmdline;	/* the kernel joins its arguments */
	setrlimit(RLIMIT_CORE, &no_core);
	setenv("LD_PRELOAD", r->shim, 1);
	keep_open[0] = initramfs;
	for (unsigned i = 0; i < GUEST_PORTS_MAX; i++)
		keep_open[1 + i] = i < r->g->n_ports ? r->g->port[i].fd : -1;
	status = guest_process_limited(a.arg, keep_open, ARRAY_SIZE(keep_open), seconds, &number);
	unsetenv("LD_PRELOAD");
	if (number == SIGTERM || number == SIGINT || number == SIGHUP)
		return GUEST_STOPPED;
	if (number)
		cli_error("User-Mode Linux was ended by signal %d (%s)", number, strsignal(number));
	return status;
}

static void remove_dir(const struct run *r)
{
	char path[128];

	/* what UML leaves in its directory when it is killed */
	static const char *const left[] = { "mconsole", "pid", "" };

	for (unsigned i = 0; r->dir[0] && i < 3; i++) {
		snprintf(path, sizeof(path), "%s/guest/%s", r->dir, left[i]);
		if (unlink(path) < 0)
			rmdir(path);
	}
	if (r->dir[0])
		rmdir(r->dir);
}

static int run_guest(struct run *r)
{
	AUTO_CLOSE int initramfs = -1;
	int status = uml_initramfs(&initramfs, r->g);
	const char *tmp = getenv("TMPDIR");

	if (status != CLI_OK)
		return status;
	if (!tmp || strlen(tmp) > 72)
		tmp = "/tmp";
	snprintf(r->dir, sizeof(r->dir), "%.72s/vdisk-uml.XXXXXX", tmp);
	if (!mkdtemp(r->dir)) {
		cli_error("%s: %m", r->dir);
		r->dir[0] = '\0';
		return CLI_FAILED;
	}
	for (unsigned i = 0; status == CLI_OK && i < r->g->n_disks; i++)
		status = start_server(r, i);
	if (status == CLI_OK)
		status = run_kernel(r, initramfs);
	if (finish_servers(r) != CLI_OK && status == CLI_OK)
		status = CLI_FAILED;
	remove_dir(r);
	return status;
}

static int uml_run(const struct guest *g)
{
	struct run r = { .g = g };
	int status = uml_kernel(&r.kernel);

	if (status == CLI_OK)
		status = cli_sibling(&r.shim, "vdisk-uml.so");
	if (status == CLI_OK)
		status = cli_sibling(&r.vhost, "vdisk-vhost");
	if (status == CLI_OK)
		status = run_guest(&r);
	free(r.kernel);
	free(r.shim);
	free(r.vhost);
	return status;
}

static int uml_check(const struct guest *g)
{
	AUTO_FREE char *kernel = NULL, *shim = NULL, *init = NULL;

	if (g->kernel || g->initrd) {
		cli_error("--engine uml brings its own kernel: --kernel and --initrd are for kvm");
		return CLI_FAILED;
	}
	if (g->virtio_console) {
		cli_error("--engine uml has a console of its own: --console virtio is for kvm");
		return CLI_FAILED;
	}
	if (uml_kernel(&kernel) != CLI_OK || cli_sibling(&shim, "vdisk-uml.so") != CLI_OK)
		return CLI_FAILED;
	return cli_sibling(&init, "vdisk-uml-init");
}

const struct engine engine_uml = {
	.name = "uml",
	.own_kernel = true,
	.check = uml_check,
	.run = uml_run,
};
