/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * jail.c - the child process without privileges, and the wire to it
 *
 * What the child keeps, and why:
 *   - descriptor 3, a socket to the parent, and 0 to 2 on /dev/null;
 *   - read, write: on that socket, since there is nothing else;
 *   - memory without execution: mmap, munmap, mremap, mprotect, brk, madvise;
 *   - memory files (memfd_create, ftruncate, pread, pwrite, lseek, fstat,
 *     close, fcntl): libblkid wants a descriptor to probe;
 *   - futex, clock_gettime, getrandom, exit_group and the like: the C library.
 * Opening files and asking devices fails with EACCES; anything else kills the
 * child.  Where the kernel has Landlock, no file could be opened anyway.  Its
 * memory, processor time and number of files are limited.
 *
 * The wire, both ways: a header of fixed size, then its bytes.  The child
 * asks READ (answered by a status and the bytes) and WRITE (answered by a
 * status), sends MESSAGE, which is not answered, ASKs about a file system that the
 * parent reads for it (answered by a count and the bytes), and at last DONE with its
 * result.  The parent never waits longer for the child than the time limit.
 */
#include "guest/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "core/calls.h"
#include "core/landlock.h"

enum {
	SOCKET_FD = 3,
	PIECE = 256 << 10,		/* of a read or write on the wire */
	MEMORY = 768 << 20,		/* that the child may map */
	OPEN_FILES = 32,
	WITH_MAX = 16,			/* disks that go with the one that is read */
	PATIENCE = 5,			/* seconds for each second of processor time */
};
#define WRITTEN_MAX	((uint64_t)1 << 30)	/* by the child, into its layer */

enum op { OP_READ, OP_WRITE, OP_MESSAGE, OP_ASK, OP_DONE };

struct header {
	uint32_t op;
	int32_t status;		/* DONE, answers: 0 or -errno; to ASK: bytes behind it */
	uint32_t type;		/* MESSAGE; READ, WRITE: which disk, see struct remote */
	uint32_t len;		/* of the bytes behind it; READ: that are wanted */
	uint64_t off;		/* READ, WRITE */
};

/* A disk in the child: the one that is read is number 0, those that go with it follow. */
struct remote {
	int fd;
	uint32_t number;
};

struct jail {
	int fd;
	const struct jail_opts *opts;	/* borrowed */
};

/* ---- the child's side ---- */

static int send_all(int fd, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	while (len > 0) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EPIPE;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive_all(int fd, void *data, size_t len)
{
	char *p = data;
	ssize_t n;

	while (len > 0) {
		n = read(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EPIPE;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int jail_send(struct jail *jail, uint32_t type, const void *data, size_t len)
{
	struct header h = { .op = OP_MESSAGE, .type = type, .len = (uint32_t)len };
	int r;

	if (len > JAIL_MESSAGE_MAX)
		return -EMSGSIZE;
	r = send_all(jail->fd, &h, sizeof(h));
	return r < 0 ? r : send_all(jail->fd, data, len);
}

ssize_t jail_ask(struct jail *jail, const void *question, size_t len, void *buf, size_t size)
{
	struct header h = { .op = OP_ASK, .len = (uint32_t)len };
	int r = send_all(jail->fd, &h, sizeof(h));

	if (r == 0)
		r = send_all(jail->fd, question, len);
	if (r == 0)
		r = receive_all(jail->fd, &h, sizeof(h));
	if (r == 0 && h.status > 0)
		r = (size_t)h.status > size ? -EPIPE : receive_all(jail->fd, buf, (size_t)h.status);
	return r < 0 ? r : h.status;
}

const struct vd_lent_fs *jail_lent(const struct jail *jail, unsigned *n)
{
	*n = jail->opts->n_lent;
	return jail->opts->lent;
}

/* One read or write of at most PIECE bytes. */
static int remote_piece(const struct remote *remote, enum op op, void *buf, size_t len, uint64_t off)
{
	struct header h = { .op = op, .type = remote->number, .len = (uint32_t)len, .off = off };
	int fd = remote->fd, r = send_all(fd, &h, sizeof(h));

	if (r == 0 && op == OP_WRITE)
		r = send_all(fd, buf, len);
	if (r == 0)
		r = receive_all(fd, &h, sizeof(h));
	if (r == 0)
		r = h.status;
	return r == 0 && op == OP_READ ? receive_all(fd, buf, len) : r;
}

static int remote_iov(struct vdisk *disk, enum op op, const struct iovec *iov, int iovcnt,
		      uint64_t off)
{
	const struct remote *remote = disk->priv;
	size_t done, n;
	int i, r;

	for (i = 0; i < iovcnt; i++) {
		for (done = 0; done < iov[i].iov_len; done += n, off += n) {
			n = MIN(iov[i].iov_len - done, (size_t)PIECE);
			r = remote_piece(remote, op, (char *)iov[i].iov_base + done, n, off);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int remote_preadv(struct vdisk *disk, const struct iovec *iov, int iovcnt, uint64_t len,
			 uint64_t off)
{
	(void)len;
	return remote_iov(disk, OP_READ, iov, iovcnt, off);
}

static int remote_pwritev(struct vdisk *disk, const struct iovec *iov, int iovcnt, uint64_t len,
			  uint64_t off, bool fua)
{
	(void)len, (void)fua;
	return remote_iov(disk, OP_WRITE, iov, iovcnt, off);
}

static int remote_sync(struct vdisk *disk)
{
	(void)disk;
	return 0;	/* nothing of it is meant to last */
}

static const struct vd_driver remote_driver = {
	.name = "jail",
	.preadv = remote_preadv,
	.pwritev = remote_pwritev,
	.sync = remote_sync,
};

static const int plain[] = {
	SCMP_SYS(read), SCMP_SYS(write),
	SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(lseek), SCMP_SYS(fstat),
	SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(fcntl),
	SCMP_SYS(fadvise64), SCMP_SYS(close),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(brk), SCMP_SYS(madvise),
	SCMP_SYS(futex), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(getrandom), SCMP_SYS(getpid), SCMP_SYS(gettid),
	SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
	SCMP_SYS(exit_group),
	SCMP_SYS(sysinfo),	/* how much memory qsort() may use for a long list */
};

static const int refused[] = {
	SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(stat), SCMP_SYS(lstat),
	SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
	SCMP_SYS(ioctl), SCMP_SYS(statfs), SCMP_SYS(fstatfs),
};

/* Only where argument @arg, masked, is @value. */
static const struct {
	int call;
	unsigned arg;
	uint64_t mask, value;
} conditional[] = {
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0 },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
	/* fstat(3) is newfstatat(fd, "", ..., AT_EMPTY_PATH) */
	{ SCMP_SYS(newfstatat), 3, UINT64_MAX, AT_EMPTY_PATH },
};

static int allow_calls(scmp_filter_ctx ctx)
{
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < ARRAY_SIZE(plain); i++)
		r = vd_allow_call(ctx, plain[i], 0, 0, 0);
	for (i = 0; r == 0 && i < ARRAY_SIZE(refused); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), refused[i], 0);
	for (i = 0; r == 0 && i < ARRAY_SIZE(conditional); i++)
		r = vd_allow_call(ctx, conditional[i].call, conditional[i].arg, conditional[i].mask,
				  conditional[i].value);
	return r;
}

enum jail_verdict jail_verdict(int call)
{
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (plain[i] == call)
			return JAIL_ALLOWS;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (refused[i] == call)
			return JAIL_REFUSES;
	for (size_t i = 0; i < ARRAY_SIZE(conditional); i++)
		if (conditional[i].call == call)
			return JAIL_JUDGES;
	return JAIL_KILLS;
}

static int limit(int what, uint64_t value)
{
	struct rlimit l = { value, value };

	return setrlimit((__rlimit_resource_t)what, &l) < 0 ? -errno : 0;
}

/* Bytes of address space in use. */
static uint64_t mapped_now(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f) {
		if (fscanf(f, "%lu", &pages) != 1)
			pages = 0;
		fclose(f);
	}
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int limit_resources(const struct vdisk *disk, unsigned seconds)
{
	uint64_t mapped = mapped_now();
	/* a memory file that libblkid probes is as long as the disk, but sparse */
	uint64_t file = MAX(vdisk_size(disk), (uint64_t)MEMORY);
	int r = limit(RLIMIT_CORE, 0);

	if (r == 0 && mapped && !SANITIZED)
		r = limit(RLIMIT_AS, mapped + MEMORY);
	if (r == 0)
		r = limit(RLIMIT_CPU, seconds);
	if (r == 0)
		r = limit(RLIMIT_FSIZE, file);
	if (r == 0)
		r = limit(RLIMIT_NOFILE, OPEN_FILES);
	return r;
}

/* Give away everything but the socket. */
static int drop_files(int socket)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fd;

	if (null < 0)
		return -errno;
	/* a sanitizer's report is worth more than a closed descriptor */
	for (fd = 0; fd < (SANITIZED ? 2 : 3); fd++)
		if (dup2(null, fd) < 0)
			return -errno;
	if (socket != SOCKET_FD && dup2(socket, SOCKET_FD) < 0)
		return -errno;
	return close_range(SOCKET_FD + 1, ~0u, 0) < 0 ? -errno : 0;
}

static int drop_calls(void)
{
	scmp_filter_ctx ctx;
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	r = vd_landlock_nothing();
	if (r < 0 && r != -ENOSYS && r != -EOPNOTSUPP)
		return r;
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!ctx)
		return -ENOMEM;
	r = allow_calls(ctx);
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

static int confine(int socket, const struct vdisk *disk, unsigned seconds)
{
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "vdisk-jail");
	r = limit_resources(disk, seconds);
	if (r == 0)
		r = drop_files(socket);
	return r < 0 ? r : drop_calls();
}

static struct vdisk *remote_disk(const struct vdisk *disk, uint32_t number)
{
	struct vdisk *d = vd_disk_new(&remote_driver, vdisk_name(disk), vdisk_size(disk));
	struct remote *remote = malloc(sizeof(*remote));

	if (!d || !remote)
		_exit(1);
	*remote = (struct remote) { .fd = SOCKET_FD, .number = number };
	d->flags = VDISK_OPEN_WRITE;
	d->block_size = disk->block_size;
	d->priv = remote;
	return d;
}

static NORETURN void child(int socket, const struct vdisk *disk, const struct jail_opts *opts)
{
	struct jail jail = { .fd = SOCKET_FD, .opts = opts };
	struct vdisk_error err = { 0 };
	struct header h = { .op = OP_DONE, .len = sizeof(err) };
	struct vdisk *remote = remote_disk(disk, 0), *with[WITH_MAX];
	unsigned n = disk->n_with;
	int r;

	for (unsigned i = 0; i < n; i++)
		with[i] = remote_disk(disk->with[i], i + 1);
	if (vd_take_with(remote, with, n, NULL) < 0)
		_exit(1);
	r = confine(socket, disk, opts->seconds);
	if (r < 0)
		vd_fail(&err, -r, "%s: cannot confine the process that reads the guest's files: %s",
			opts->what, strerror(-r));
	else
		r = opts->inside(remote, &jail, opts->arg, &err);
	h.status = r;
	if (send_all(SOCKET_FD, &h, sizeof(h)) < 0 || send_all(SOCKET_FD, &err, sizeof(err)) < 0)
		_exit(1);
	_exit(0);
}

/* ---- the parent's side ---- */

struct warden {
	int fd;			/* owned by jail_run() */
	struct vdisk *disk;	/* borrowed */
	struct vdisk *layer[1 + WITH_MAX];	/* owned: where writes go; NULL until the first */
	uint64_t written;
	struct timespec deadline;
	const struct jail_opts *opts;
	uint8_t *buf;		/* owned: JAIL_MESSAGE_MAX */
};

static int ms_left(const struct warden *w)
{
	struct timespec now;
	long long ms;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (w->deadline.tv_sec - now.tv_sec) * 1000LL +
	     (w->deadline.tv_nsec - now.tv_nsec) / 1000000;
	return ms > 0 ? (int)ms : 0;
}

/* All of it before the deadline: 0, -ETIMEDOUT, -EPIPE when the child is gone. */
static int transfer(struct warden *w, void *data, size_t len, bool out)
{
	struct pollfd p = { .fd = w->fd, .events = out ? POLLOUT : POLLIN };
	char *at = data;
	ssize_t n;

	while (len > 0) {
		n = out ? send(w->fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT) :
			recv(w->fd, at, len, MSG_DONTWAIT);
		if (n > 0) {
			at += n;
			len -= (size_t)n;
			continue;
		}
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return -EPIPE;
		if (poll(&p, 1, ms_left(w)) == 0)
			return -ETIMEDOUT;
	}
	return 0;
}

static int answer(struct warden *w, int status)
{
	struct header h = { .status = status };

	return transfer(w, &h, sizeof(h), true);
}

/* The disk of that number; NULL: there is none. */
static struct vdisk *disk_of(const struct warden *w, uint32_t number)
{
	if (number > w->disk->n_with)
		return NULL;
	return number ? w->disk->with[number - 1] : w->disk;
}

static int serve_read(struct warden *w, const struct header *h)
{
	struct vdisk *disk = disk_of(w, h->type);
	int r = -EINVAL, r2;

	if (h->len <= PIECE && disk)
		r = vdisk_read(w->layer[h->type] ? w->layer[h->type] : disk, w->buf, h->len, h->off);
	r2 = answer(w, r);
	if (r2 < 0 || r < 0)
		return r2;
	return transfer(w, w->buf, h->len, true);
}

static int serve_write(struct warden *w, const struct header *h)
{
	struct vdisk *disk = disk_of(w, h->type);
	int r;

	if (h->len > PIECE || !disk)
		return -EPROTO;
	r = transfer(w, w->buf, h->len, false);
	if (r < 0)
		return r;
	w->written += h->len;
	r = w->written > WRITTEN_MAX ? -ENOSPC : 0;
	if (r == 0 && !w->layer[h->type])
		r = vdisk_open_overlay(&w->layer[h->type], disk, NULL, NULL);
	if (r == 0)
		r = vdisk_write(w->layer[h->type], w->buf, h->len, h->off);
	return answer(w, r);
}

static int serve_question(struct warden *w, const struct header *h)
{
	struct vd_lent_question q;
	ssize_t n;
	int r;

	if (h->len != sizeof(q))
		return -EPROTO;
	r = transfer(w, &q, sizeof(q), false);
	if (r < 0)
		return r;
	n = vd_lent_answer(w->opts->lent, w->opts->n_lent, &q, w->buf, JAIL_ANSWER_MAX);
	r = answer(w, (int)n);
	return r < 0 || n <= 0 ? r : transfer(w, w->buf, (size_t)n, true);
}

static int serve_message(struct warden *w, const struct header *h, struct vdisk_error *err)
{
	int r;

	if (h->len > JAIL_MESSAGE_MAX)
		return -EPROTO;
	r = transfer(w, w->buf, h->len, false);
	return r < 0 ? r : w->opts->receive(w->opts->arg, h->type, w->buf, h->len, err);
}

/* A sentence from the child: plain text, whatever it sends. */
static int child_error(struct warden *w, const struct header *h, struct vdisk_error *err)
{
	struct vdisk_error said = { 0 };
	int r;
	char *p;

	if (h->len != sizeof(said))
		return -EPROTO;
	r = transfer(w, &said, sizeof(said), false);
	if (r < 0)
		return r;
	if (h->status >= 0)
		return 0;
	if (h->status < -4095)
		return -EPROTO;
	said.msg[sizeof(said.msg) - 1] = '\0';
	for (p = said.msg; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return vd_fail(err, -h->status, "%s", said.msg[0] ? said.msg : strerror(-h->status));
}

/* Until the child is done. */
static int serve(struct warden *w, struct vdisk_error *err)
{
	struct header h;
	int r;

	for (;;) {
		r = transfer(w, &h, sizeof(h), false);
		if (r < 0)
			return r;
		switch (h.op) {
		case OP_READ:
			r = serve_read(w, &h);
			break;
		case OP_WRITE:
			r = serve_write(w, &h);
			break;
		case OP_MESSAGE:
			r = serve_message(w, &h, err);
			break;
		case OP_ASK:
			r = serve_question(w, &h);
			break;
		case OP_DONE:
			return child_error(w, &h, err);
		default:
			return -EPROTO;
		}
		if (r < 0)
			return r;
	}
}

/*
 * How the child ended, for the message where it did not say so itself; the seconds of
 * processor time that it took.
 */
static unsigned how_it_ended(pid_t pid, char *text, size_t size)
{
	struct rusage used = { 0 };
	int status;
	pid_t r;

	do
		r = wait4(pid, &status, 0, &used);
	while (r < 0 && errno == EINTR);
	if (r == pid && WIFSIGNALED(status))
		snprintf(text, size, "it was ended by signal %d", WTERMSIG(status));
	else
		snprintf(text, size, "it ended early");
	return (unsigned)(used.ru_utime.tv_sec + used.ru_stime.tv_sec +
			  (used.ru_utime.tv_usec + used.ru_stime.tv_usec + 500000) / 1000000);
}

static int explain(const struct warden *w, int r, const char *ended, struct vdisk_error *err)
{
	const char *what = w->opts->what, *name = vdisk_name(w->disk);

	switch (r) {
	case -ETIMEDOUT:
		return vd_fail(err, ETIMEDOUT, "%s: %s: reading the guest's files takes too long "
			       "(%u s of processor time, or %u s)", what, name, w->opts->seconds,
			       w->opts->seconds * PATIENCE);
	case -EPIPE:
	case -EPROTO:
		return vd_fail(err, EINVAL, "%s: %s: the process that reads the guest's files failed: "
			       "%s; the disk may be damaged on purpose", what, name, ended);
	default:
		return r;	/* said where it was found */
	}
}

int jail_run(struct vdisk *disk, const struct jail_opts *opts, struct vdisk_error *err)
{
	AUTO_FREE uint8_t *buf = malloc(JAIL_MESSAGE_MAX);
	AUTO_CLOSE int mine = -1;
	struct warden w = { .disk = disk, .opts = opts, .buf = buf };
	char ended[64];
	int pair[2], r;
	pid_t pid;

	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	if (disk->n_with > WITH_MAX)
		return vd_fail(err, E2BIG, "%s: more than %d other disks with it",
			       vdisk_name(disk), (int)WITH_MAX);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return vd_fail(err, errno, "%s: socketpair: %s", opts->what, strerror(errno));
	mine = pair[0];
	pid = fork();
	if (pid == 0)
		child(pair[1], disk, opts);
	close(pair[1]);
	if (pid < 0)
		return vd_fail(err, errno, "%s: fork: %s", opts->what, strerror(errno));
	w.fd = mine;
	clock_gettime(CLOCK_MONOTONIC, &w.deadline);
	w.deadline.tv_sec += opts->seconds * PATIENCE;
	r = serve(&w, err);
	kill(pid, SIGKILL);	/* one that has ended keeps its reason */
	if (how_it_ended(pid, ended, sizeof(ended)) >= opts->seconds && r == -EPIPE)
		r = -ETIMEDOUT;	/* its limit ended it */
	for (unsigned i = 0; i <= WITH_MAX; i++)
		vdisk_close(w.layer[i], NULL);
	return explain(&w, r, ended, err);
}
