/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd.c - a disk as a block device of this host, through the kernel's NBD client
 *
 * The kernel sends its requests into one end of a pair of sockets, and we, in the same
 * process, answer them at the other: no network and no other program.  Compared with a
 * loop device on a view by FUSE there is one page cache less, and discards arrive.
 *
 *   1. Several threads take turns in receiving a request, work on it side by side, and
 *      take turns in answering.
 *   2. A device stays ours from NBD_SET_SOCK to the end of NBD_DO_IT, which a thread
 *      spends in the kernel; when we die, the kernel ends the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nbd.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "core/driver.h"
#include "kernel/host.h"

#define DEVICES		256		/* looked at for a free one */
#define THREADS		4u
#define MAX_IO		(32u << 20)	/* the kernel's own limit */
#define REQUEST_SIZE	28u
#define REPLY_SIZE	16u

struct vd_nbd {
	struct vdisk *disk;		/* owned reference */
	int number;
	int device;			/* owned: /dev/nbdN */
	int ours, theirs;		/* owned: the sockets */
	pthread_t keeper;		/* in NBD_DO_IT */
	pthread_t worker[THREADS];
	unsigned n_workers;
	pthread_mutex_t receive, answer;
};

struct request {
	uint32_t type, flags;
	uint8_t handle[8];		/* goes back as it is */
	uint64_t from;
	uint32_t len;
};

/* ---- requests ---- */

static int move_all(int fd, void *buf, size_t len, bool out)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = out ? send(fd, p, len, MSG_NOSIGNAL) : recv(fd, p, len, MSG_WAITALL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int decode(struct request *r, const uint8_t p[REQUEST_SIZE])
{
	if (load_be32(p) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	*r = (struct request) {
		.type = load_be32(p + 4) & 0xffff, .flags = load_be32(p + 4) & 0xffff0000,
		.from = load_be64(p + 16), .len = load_be32(p + 24),
	};
	memcpy(r->handle, p + 8, sizeof(r->handle));
	return r->len > MAX_IO && (r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE) ?
	       -EPROTO : 0;
}

static int carry_out(struct vdisk *disk, const struct request *r, void *buf)
{
	uint64_t size = vdisk_size(disk);
	int e;

	if (r->type != NBD_CMD_FLUSH && (r->from > size || r->len > size - r->from))
		return -EINVAL;
	switch (r->type) {
	case NBD_CMD_READ:
		return vdisk_read(disk, buf, r->len, r->from);
	case NBD_CMD_WRITE:
		e = vdisk_write(disk, buf, r->len, r->from);
		return e == 0 && (r->flags & NBD_CMD_FLAG_FUA) ? vdisk_flush(disk) : e;
	case NBD_CMD_FLUSH:
		return vdisk_writable(disk) ? vdisk_flush(disk) : 0;
	case NBD_CMD_TRIM:
		return vdisk_discard(disk, r->from, r->len);
	}
	return -EINVAL;
}

/* Errors as NBD numbers them. */
static uint32_t nbd_error(int e)
{
	switch (e) {
	case 0: return 0;
	case -EPERM: case -EROFS: return 1;
	case -ENOMEM: return 12;
	case -EINVAL: return 22;
	case -ENOSPC: return 28;
	}
	return 5;
}

static int answer(struct vd_nbd *n, const struct request *r, int e, void *buf)
{
	uint8_t reply[REPLY_SIZE];
	int s;

	store_be32(reply, NBD_REPLY_MAGIC);
	store_be32(reply + 4, nbd_error(e));
	memcpy(reply + 8, r->handle, sizeof(r->handle));
	pthread_mutex_lock(&n->answer);
	s = move_all(n->ours, reply, sizeof(reply), true);
	if (s == 0 && e == 0 && r->type == NBD_CMD_READ)
		s = move_all(n->ours, buf, r->len, true);
	pthread_mutex_unlock(&n->answer);
	return s;
}

/* The next request, with what is to be written; rule 1. */
static int next_request(struct vd_nbd *n, struct request *r, void **buf, size_t *room)
{
	uint8_t head[REQUEST_SIZE];
	int e;

	pthread_mutex_lock(&n->receive);
	e = move_all(n->ours, head, sizeof(head), false);
	if (e == 0)
		e = decode(r, head);
	if (e == 0 && r->type == NBD_CMD_DISC)
		e = -EPIPE;
	if (e == 0 && (r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE) && r->len > *room) {
		free(*buf);
		*room = (r->len + 65535u) & ~65535u;
		*buf = aligned_alloc(4096, *room);
		if (!*buf) {
			*room = 0;
			e = -ENOMEM;
		}
	}
	if (e == 0 && r->type == NBD_CMD_WRITE)
		e = move_all(n->ours, *buf, r->len, false);
	pthread_mutex_unlock(&n->receive);
	return e;
}

static void *work(void *arg)
{
	struct vd_nbd *n = arg;
	struct request r;
	void *buf = NULL;
	size_t room = 0;

	/* the kernel may be waiting for us to free memory */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	while (next_request(n, &r, &buf, &room) == 0)
		if (answer(n, &r, carry_out(n->disk, &r, buf), buf) < 0)
			break;
	free(buf);
	/* whatever ended this one ends the device */
	shutdown(n->ours, SHUT_RDWR);
	return NULL;
}

/* ---- the device ---- */

static void *keep(void *arg)
{
	struct vd_nbd *n = arg;

	ioctl(n->device, NBD_DO_IT);
	shutdown(n->ours, SHUT_RDWR);
	return NULL;
}

static int configure(struct vd_nbd *n)
{
	struct vdisk_limits limits;
	unsigned long flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;

	vdisk_get_limits(n->disk, &limits);
	if (!vdisk_writable(n->disk))
		flags |= NBD_FLAG_READ_ONLY;
	else if (limits.can_discard)
		flags |= NBD_FLAG_SEND_TRIM;
	/* the first tells whether the device is free */
	if (ioctl(n->device, NBD_SET_SOCK, n->theirs) < 0)
		return -errno;
	if (ioctl(n->device, NBD_SET_BLKSIZE, (unsigned long)limits.block_size) < 0 ||
	    ioctl(n->device, NBD_SET_SIZE_BLOCKS,
		  (unsigned long)(vdisk_size(n->disk) / limits.block_size)) < 0 ||
	    ioctl(n->device, NBD_SET_FLAGS, flags) < 0) {
		int e = -errno;

		ioctl(n->device, NBD_CLEAR_SOCK);
		return e;
	}
	return 0;
}

static int take_device(struct vd_nbd *n, struct vdisk_error *err)
{
	char path[64];

	for (n->number = 0; n->number < DEVICES; n->number++) {
		int e;

		snprintf(path, sizeof(path), "/sys/block/nbd%d/pid", n->number);
		if (access(path, F_OK) == 0)
			continue;
		snprintf(path, sizeof(path), "/dev/nbd%d", n->number);
		n->device = open(path, O_RDWR | O_CLOEXEC);
		if (n->device < 0 && errno == ENOENT)
			break;
		if (n->device < 0)
			return vd_fail(err, errno, "%s: %m", path);
		e = configure(n);
		if (e == 0)
			return 0;
		close(n->device);
		n->device = -1;
		if (e != -EBUSY)
			return vd_fail(err, -e, "%s: %s", path, strerror(-e));
	}
	return vd_fail(err, EBUSY, "no free NBD device");
}

bool vd_nbd_available(void)
{
	return geteuid() == 0 && access("/dev/nbd0", R_OK | W_OK) == 0 &&
	       access("/sys/block/nbd0", F_OK) == 0;
}

static void nbd_free(struct vd_nbd *n)
{
	if (n->device >= 0)
		close(n->device);
	if (n->ours >= 0)
		close(n->ours);
	if (n->theirs >= 0)
		close(n->theirs);
	vdisk_close(n->disk, NULL);
	free(n);
}

/* Until the kernel has taken the device up, its size is not known. */
static void wait_ready(const struct vd_nbd *n)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/nbd%d/pid", n->number);
	for (int i = 0; i < 500 && access(path, F_OK) < 0; i++)
		usleep(2000);
}

int vd_nbd_start(struct vd_nbd **out, struct vdisk *disk, struct vdisk_error *err)
{
	struct vd_nbd *n = calloc(1, sizeof(*n));
	int pair[2], r;

	if (!n)
		return vd_fail(err, ENOMEM, "out of memory");
	n->device = n->ours = n->theirs = -1;
	n->disk = vdisk_ref(disk);
	pthread_mutex_init(&n->receive, NULL);
	pthread_mutex_init(&n->answer, NULL);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		r = vd_fail(err, errno, "socketpair: %m");
		nbd_free(n);
		return r;
	}
	n->ours = pair[0];
	n->theirs = pair[1];
	r = take_device(n, err);
	if (r < 0) {
		nbd_free(n);
		return r;
	}
	if (pthread_create(&n->keeper, NULL, keep, n) != 0) {
		ioctl(n->device, NBD_CLEAR_SOCK);
		nbd_free(n);
		return vd_fail(err, EAGAIN, "cannot start a thread");
	}
	while (n->n_workers < THREADS &&
	       pthread_create(&n->worker[n->n_workers], NULL, work, n) == 0)
		n->n_workers++;
	if (!n->n_workers) {
		vd_nbd_stop(n);
		vd_nbd_wait(n);
		return vd_fail(err, EAGAIN, "cannot start a thread");
	}
	wait_ready(n);
	*out = n;
	return 0;
}

int vd_nbd_number(const struct vd_nbd *n)
{
	return n->number;
}

void vd_nbd_stop(struct vd_nbd *n)
{
	ioctl(n->device, NBD_DISCONNECT);
}

void vd_nbd_wait(struct vd_nbd *n)
{
	pthread_join(n->keeper, NULL);
	for (unsigned i = 0; i < n->n_workers; i++)
		pthread_join(n->worker[i], NULL);
	ioctl(n->device, NBD_CLEAR_SOCK);
	nbd_free(n);
}
