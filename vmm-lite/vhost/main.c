/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - vdisk-vhost: one disk for one vhost-user front end
 *
 * Open the disk with its locks and the sockets, give up everything else, serve.
 * `vdisk export --vhost-user`, the engines of `vdisk boot` and --isolate-disks
 * start it.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/args.h"
#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vhost/failing.h"
#include "vmm-lite/vhost/sandbox.h"
#include "vmm-lite/vhost/server.h"
#include "vmm-lite/virtio/blk.h"
#include "vmm-lite/words.h"

struct options {
	const char *locator, *socket, *control, *format, *serial, *backing, *backing_format;
	int fd;			/* instead of ->socket; -1 */
	int control_fd;		/* -1 */
	int ready_fd;		/* gets a byte when front ends are welcome; -1 */
	unsigned queues, poll_us;
	uint32_t block_size;
	struct blk_limits limits;
	struct vdisk_open_file file[DISK_FILES_MAX]; /* already open */
	unsigned n_files;
	enum cache_mode cache;
	enum vdisk_refs refs;
	bool read_only, snapshot, keep_raw, share, once, detach, failing, no_sandbox, quiet, verbose;
};

enum {
	OPT_SOCKET = 0x30000, OPT_FD, OPT_CONTROL, OPT_CACHE, OPT_SERIAL, OPT_QUEUES, OPT_LIMIT,
	OPT_SNAPSHOT, OPT_BLOCK, OPT_POLL, OPT_ONCE, OPT_NO_SANDBOX, OPT_REFS, OPT_SHARE,
	OPT_READY, OPT_BACKING, OPT_BACKING_FORMAT, OPT_CONTROL_FD, OPT_FILE, OPT_DETACH, OPT_FAILING, OPT_KEEP_RAW,
};

static const struct argp_option option_table[] = {
	{ "socket", OPT_SOCKET, "PATH", 0, "Wait for front ends at this socket", 0 },
	{ "fd", OPT_FD, "N", 0, "... at this open one, or serve this connection", 0 },
	{ "control", OPT_CONTROL, "PATH", 0,
	  "A socket that takes a line: stats, limit SPEC, resize BYTES", 0 },
	{ "control-fd", OPT_CONTROL_FD, "N", 0, "The same on this open one, a packet a line", 0 },
	{ "ready", OPT_READY, "N", 0, "Write a byte to this descriptor once the disk is open", 0 },
	{ "detach", OPT_DETACH, NULL, 0, "Let go of the terminal once the disk is open", 0 },
	{ "failing", OPT_FAILING, NULL, 0, "Open nothing, and fail each request: stand in for DISK", 0 },
	{ "once", OPT_ONCE, NULL, 0, "End when the first front end has gone", 0 },
	{ NULL, 0, NULL, 0, "The disk:", 1 },
	{ "format", 'f', "FMT", 0, "The image's format, instead of looking for it", 1 },
	{ "backing", OPT_BACKING, "DISK", 0, "What it is on top of, whatever the image says", 1 },
	{ "backing-format", OPT_BACKING_FORMAT, "FMT", 0, "The format of that", 1 },
	{ "file", OPT_FILE, "N=NAME", 0, "N is an open descriptor of one of the files that the disk "
	  "consists of; if there are any, all there are", 1 },
	{ "refs", OPT_REFS, "none|dir|any", 0, "Which other files an image may name", 1 },
	{ "force-share", OPT_SHARE, NULL, 0, "Take no locks (with --read-only)", 1 },
	{ "read-only", 'r', NULL, 0, "The guest cannot write", 1 },
	{ "keep-raw", OPT_KEEP_RAW, NULL, 0, "The guest cannot write what would make its raw disk an image "
	  "of another format", 1 },
	{ "snapshot", OPT_SNAPSHOT, NULL, 0, "What the guest writes is thrown away", 1 },
	{ "cache", OPT_CACHE, "writeback|writethrough|none|unsafe", 0,
	  "Through the host's page cache (default); each write durable before it completes; past "
	  "the cache; with flushes that do nothing", 1 },
	{ "block-size", OPT_BLOCK, "512|4096", 0, "The disk's logical blocks", 1 },
	{ "serial", OPT_SERIAL, "TEXT", 0, "Serial number, up to 20 characters", 1 },
	{ "queues", OPT_QUEUES, "N", 0, "Queues, each with its thread (default: processors)", 1 },
	{ "limit", OPT_LIMIT, "SPEC", 0, "bytes=SIZE,ops=N,burst=MS: at most this a second", 1 },
	{ "poll", OPT_POLL, "US", 0, "Look at an idle queue this long before sleeping", 1 },
	{ NULL, 0, NULL, 0, "Messages:", 2 },
	{ "quiet", 'q', NULL, 0, "Do not say what to type on the other side", 2 },
	{ "verbose", 'v', NULL, 0, "Say who comes and goes", 2 },
	{ "no-sandbox", OPT_NO_SANDBOX, NULL, 0, "Keep all system calls", 2 },
	{ 0 },
};

static unsigned number(struct argp_state *state, const char *what, const char *text, unsigned min,
		       unsigned max)
{
	unsigned n = min;

	if (words_number(text, min, max, &n) < 0)
		argp_error(state, "%s: '%s' is not a number from %u to %u", what, text, min, max);
	return n;
}

static void parse_cache(struct options *o, const char *arg, struct argp_state *state)
{
	if (words_cache(arg, &o->cache) < 0)
		argp_error(state, "--cache is " words_cache_help ", not '%s'", arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case OPT_SOCKET:	o->socket = arg; break;
	case OPT_CONTROL:	o->control = arg; break;
	case OPT_FD:		o->fd = (int)number(state, "--fd", arg, 0, 1u << 20); break;
	case OPT_CONTROL_FD:
		o->control_fd = (int)number(state, "--control-fd", arg, 0, 1u << 20);
		break;
	case OPT_READY:		o->ready_fd = (int)number(state, "--ready", arg, 0, 1u << 20); break;
	case OPT_ONCE:		o->once = true; break;
	case OPT_DETACH:	o->detach = true; break;
	case OPT_FAILING:	o->failing = true; break;
	case 'f':		o->format = arg; break;
	case OPT_BACKING:	o->backing = arg; break;
	case OPT_BACKING_FORMAT: o->backing_format = arg; break;
	case OPT_REFS:
		if (words_refs(arg, &o->refs) < 0)
			argp_error(state, "--refs is " words_refs_help ", not '%s'", arg);
		break;
	case OPT_SHARE:		o->share = true; break;
	case 'r':		o->read_only = true; break;
	case OPT_KEEP_RAW:	o->keep_raw = true; break;
	case OPT_SNAPSHOT:	o->snapshot = true; break;
	case OPT_CACHE:		parse_cache(o, arg, state); break;
	case OPT_SERIAL:	o->serial = arg; break;
	case OPT_NO_SANDBOX:	o->no_sandbox = true; break;
	case 'q':		o->quiet = true; break;
	case 'v':		o->verbose = true; break;
	case OPT_BLOCK:
		if (words_block_size(arg, &o->block_size) < 0)
			argp_error(state, "--block-size is " words_block_size_help ", not '%s'", arg);
		break;
	case OPT_FILE:
		if (o->n_files == DISK_FILES_MAX || words_file(arg, &o->file[o->n_files++]) < 0)
			argp_error(state, "--file is " words_file_help ", up to %u, not '%s'",
				   DISK_FILES_MAX, arg);
		break;
	case OPT_QUEUES:
		o->queues = number(state, "--queues", arg, 1, BLK_QUEUES_MAX);
		break;
	case OPT_POLL:
		o->poll_us = number(state, "--poll", arg, 0, 100000);
		break;
	case OPT_LIMIT:
		if (words_limits(arg, &o->limits) < 0)
			argp_error(state, "--limit is " words_limits_help ", not '%s'", arg);
		break;
	case ARGP_KEY_ARG:
		if (o->locator)
			argp_error(state, "one disk only: '%s' is too much", arg);
		o->locator = arg;
		break;
	case ARGP_KEY_END:
		if (!o->locator || !o->socket == (o->fd < 0))
			argp_error(state, "a disk, and either --socket or --fd are needed");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	.options = option_table, .parser = parse, .args_doc = "DISK",
	.doc = "Serve a disk to a vhost-user front end: QEMU, User-Mode Linux and others.",
};

static int open_disk(struct vdisk **out, const struct options *o, struct vdisk_error *err)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .format = o->format, .refs = o->n_files ? VDISK_REFS_ANY : o->refs,
		.block_size = o->block_size, .backing = o->backing,
		.backing_format = o->backing_format, .files = o->n_files ? o->file : NULL,
		.n_files = o->n_files,
		.flags = (o->read_only || o->snapshot ? 0u : VDISK_OPEN_WRITE) |
			 (o->cache == CACHE_NONE ? VDISK_OPEN_DIRECT : 0u) |
			 (o->cache == CACHE_UNSAFE ? VDISK_OPEN_UNSAFE : 0u) |
			 (o->share ? VDISK_OPEN_SHARE : 0u),
	};
	struct vdisk *disk = NULL, *overlay = NULL;
	int r = vdisk_open(&disk, o->locator, &opts, err);

	if (r < 0 || !o->snapshot) {
		*out = disk;
		return r;
	}
	r = vdisk_open_overlay(&overlay, disk, NULL, err);
	vdisk_close(disk, NULL);
	*out = overlay;
	return r;
}

/* The disk has duplicates. */
static void close_passed(const struct options *o)
{
	for (unsigned i = 0; i < o->n_files; i++)
		close(o->file[i].fd);
}

/* Is a remote disk somewhere below? */
static bool is_remote(const struct vdisk *d)
{
	if (!d)
		return false;
	return !strcmp(vdisk_format(d), "iscsi") || is_remote(vdisk_below(d)) ||
	       is_remote(vdisk_backing(d));
}

static int open_sockets(struct vhost_server *s, const struct options *o, struct vdisk_error *err)
{
	int r = 0, listening = 0;
	socklen_t len = sizeof(listening);

	if (o->socket) {
		r = vhost_listen(&s->listen_fd, o->socket, err);
	} else if (getsockopt(o->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0) {
		return vd_fail(err, errno, "--fd %d is not a socket: %m", o->fd);
	} else {
		fcntl(o->fd, F_SETFD, FD_CLOEXEC);
		*(listening ? &s->listen_fd : &s->connection_fd) = o->fd;
	}
	if (o->control_fd >= 0) {
		fcntl(o->control_fd, F_SETFD, FD_CLOEXEC);
		s->lines_fd = o->control_fd;
	}
	if (!r && o->control)
		r = vhost_listen(&s->control_fd, o->control, err);
	return r;
}

/* Signals come by descriptor; blocked before any thread is started. */
static int take_signals(struct vhost_server *s, struct vdisk_error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? vd_fail(err, errno, "signalfd: %m") : 0;
}

static int make_device(struct vhost_server *s, const struct options *o, struct vdisk_error *err)
{
	struct blk_options b = {
		.disk = s->disk, .read_only = o->read_only, .serial = o->serial,
		.queues = o->queues ? o->queues : MIN(vd_cpus(), BLK_QUEUES_MAX),
		.write_through = o->cache == CACHE_WRITETHROUGH, .limits = o->limits, .poll_us = o->poll_us,
		.keep_raw = blk_keeps_raw(s->disk, o->format, o->keep_raw) ? log_kept_raw : NULL,
	};

	return blk_new(&s->dev, &b, err);
}

static void say_how(const struct options *o)
{
	if (o->quiet || !o->socket)
		return;
	printf("%s is served at %s; with QEMU:\n"
	       "  -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem\n"
	       "  -chardev socket,id=disk,path=%s,reconnect=1 -device vhost-user-blk-pci,chardev=disk\n"
	       "with User-Mode Linux: virtio_uml.device=%s:2\n", o->locator, o->socket, o->socket,
	       o->socket);
	fflush(stdout);
}

static int run(struct vhost_server *s, const struct options *o, struct vdisk_error *err)
{
	const char *unlinks[3] = { NULL };
	unsigned n = 0;
	int r = take_signals(s, err);

	if (o->socket)
		unlinks[n++] = o->socket;
	if (o->control)
		unlinks[n++] = o->control;
	if (!r && o->failing)
		r = vhost_open_failing(&s->disk, o->read_only, err);
	else if (!r)
		r = open_disk(&s->disk, o, err);
	close_passed(o);
	if (!r)
		r = open_sockets(s, o, err);
	if (!r)
		r = vhost_drop_privileges(err);
	if (!r)
		r = make_device(s, o, err);
	if (!r && o->detach)
		log_leave_terminal();
	if (!r && !o->no_sandbox)
		r = vhost_filter(unlinks, is_remote(s->disk), err);
	if (r < 0)
		return r;
	say_how(o);
	if (o->ready_fd >= 0) {
		if (write(o->ready_fd, "\n", 1) != 1)
			return vd_fail(err, EPIPE, "nobody waits for us any more");
		close(o->ready_fd);
	}
	r = vhost_serve(s);
	for (unsigned i = 0; i < n; i++)
		unlink(unlinks[i]);
	return r < 0 ? vd_fail(err, -r, "%s: %s", o->socket ? o->socket : "connection",
			       strerror(-r)) : 0;
}

int main(int argc, char **argv)
{
	struct options o = { .fd = -1, .control_fd = -1, .ready_fd = -1 };
	struct vhost_server server = {
		.listen_fd = -1, .connection_fd = -1, .control_fd = -1, .lines_fd = -1,
		.signal_fd = -1,
	};
	struct vdisk_error err = { 0 };
	int r, closed;

	argv = vd_take_args(argc, argv);
	if (!argv) {
		log_warnx("the command line: %m");
		return 2;
	}
	argp_err_exit_status = 2;
	if (argp_parse(&argp, argc, argv, 0, NULL, &o))
		return 2;
	log_set_verbose(o.verbose);
	r = run(&server, &o, &err);
	if (r < 0)
		log_warnx("%s", err.msg);
	if (server.dev)
		server.dev->ops->free(server.dev);
	closed = vdisk_close(server.disk, &err);
	if (closed < 0)
		log_warnx("%s", err.msg);
	return r < 0 || closed < 0;
}
