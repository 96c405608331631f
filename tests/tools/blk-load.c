/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk-load.c - what a request costs the block device, without a guest
 *
 * usage: blk-load [-b BYTES] [-q DEPTH] [-n COUNT] [-w] [-d] [-v] [-p POLL-US] DISK
 *
 * This process is both: a driver that keeps DEPTH requests in a virtqueue, and
 * the device on its own thread, as a guest or a vhost-user front end would have
 * it.  Printed: requests a second, the device's processor time for each, and the
 * same of a thread that does nothing but preadv2() or pwritev2() of the same blocks
 * of the same file.  With depth 1 also the least that is possible for whoever sleeps in
 * between: that thread, but woken by an eventfd before each call and writing another one
 * after it.  -d: past the page cache.  -v: what the device has counted, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/blk.h"

#define SIZE		256u
#define DEPTH_MAX	64u
#define DESC		0x10000u
#define AVAIL		0x14000u
#define USED		0x18000u
#define HEADERS		0x20000u	/* 16 bytes and a status for each slot */
#define BUFFERS		0x100000u

static uint8_t *mem;
static int kick_fd, call_fd;
static uint64_t rng = 88172645463325252u;
static unsigned bytes = 4096, depth = 32;
static uint64_t count = 200000, blocks;
static bool writes, direct, counts;

static void fatal(const char *what, int error)
{
	fprintf(stderr, "blk-load: %s: %s\n", what, strerror(error));
	exit(1);
}

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void on_interrupt(void *arg, unsigned queue)
{
	uint64_t one = 1;

	(void)arg, (void)queue;
	(void)!write(call_fd, &one, sizeof(one));
}

static void on_broken(void *arg)
{
	(void)arg;
	fatal("the device", EPROTO);
}

static void set_desc(unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned follows)
{
	uint8_t *d = mem + DESC + 16 * i;

	store_le64(d, addr);
	store_le32(d + 8, len);
	store_le16(d + 12, (uint16_t)flags);
	store_le16(d + 14, (uint16_t)follows);
}

/* Slot @i has descriptors 3i, 3i + 1 and 3i + 2 for good. */
static void lay_out(unsigned i)
{
	uint64_t header = HEADERS + 32 * i;

	set_desc(3 * i, header, 16, VRING_DESC_F_NEXT, 3 * i + 1);
	set_desc(3 * i + 1, BUFFERS + (uint64_t)bytes * i, bytes,
		 VRING_DESC_F_NEXT | (writes ? 0 : VRING_DESC_F_WRITE), 3 * i + 2);
	set_desc(3 * i + 2, header + 16, 1, VRING_DESC_F_WRITE, 0);
}

static void post(uint16_t *avail, unsigned slot)
{
	uint8_t *header = mem + HEADERS + 32 * slot;

	store_le32(header, writes ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
	store_le64(header + 8, next() % blocks * bytes / 512);
	header[16] = 0xff;
	store_le16(mem + AVAIL + 4 + 2 * (*avail % SIZE), (uint16_t)(3 * slot));
	++*avail;
}

static void publish(uint16_t avail)
{
	__atomic_store_n((uint16_t *)(void *)(mem + AVAIL + 2), avail, __ATOMIC_SEQ_CST);
}

static uint16_t used_index(void)
{
	return __atomic_load_n((uint16_t *)(void *)(mem + USED + 2), __ATOMIC_SEQ_CST);
}

static void drive(void)
{
	struct pollfd p = { .fd = call_fd, .events = POLLIN };
	uint16_t avail = 0, seen = 0, told = 0;
	uint64_t left = count, n, one = 1;

	for (unsigned i = 0; i < depth && left; i++, left--) {
		lay_out(i);
		post(&avail, i);
	}
	while (seen != avail) {
		uint16_t event;

		publish(avail);
		/* EVENT_IDX: does the device want to be rung? */
		event = __atomic_load_n((uint16_t *)(void *)(mem + USED + 4 + 8 * SIZE), __ATOMIC_SEQ_CST);
		if ((uint16_t)(avail - event - 1) < (uint16_t)(avail - told))
			(void)!write(kick_fd, &one, sizeof(one));
		told = avail;
		/* ... and tell when we want to be */
		store_le16(mem + AVAIL + 4 + 2 * SIZE, seen);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (used_index() == seen) {
			poll(&p, 1, -1);
			(void)!read(call_fd, &n, sizeof(n));
		}
		while (seen != used_index()) {
			unsigned slot = load_le32(mem + USED + 4 + 8 * (seen % SIZE)) / 3;

			seen++;
			if (mem[HEADERS + 32 * slot + 16])
				fatal("a request", EIO);
			if (left) {
				post(&avail, slot);
				left--;
			}
		}
	}
}

/* ---- for comparison ---- */

struct comparison {
	const char *path;
	bool sleeps;
	double each;	/* of its processor time, in seconds */
};

/* The processor time of one call, for nothing but the same transfers. */
static void *bare(void *arg)
{
	struct comparison *c = arg;
	AUTO_CLOSE int fd = open(c->path, (writes ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0));
	struct iovec iov = { mem + BUFFERS, bytes };
	double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
	uint64_t n, one = 1;

	if (fd < 0)
		fatal(c->path, errno);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t slot = i % depth;
		off_t off = (off_t)(next() % blocks * bytes);

		iov.iov_base = mem + BUFFERS + bytes * slot;
		if (c->sleeps)
			(void)!read(kick_fd, &n, sizeof(n));
		if ((writes ? pwritev2(fd, &iov, 1, off, 0) : preadv2(fd, &iov, 1, off, 0)) != (ssize_t)bytes)
			fatal(c->path, errno);
		if (c->sleeps)
			(void)!write(call_fd, &one, sizeof(one));
	}
	c->each = (seconds(CLOCK_THREAD_CPUTIME_ID) - begin) / (double)count;
	return NULL;
}

static double least_asleep(const char *path)
{
	struct comparison c = { .path = path, .sleeps = true };
	struct pollfd p;
	uint64_t n, one = 1;
	pthread_t thread;

	close(kick_fd);
	kick_fd = eventfd(0, 0);
	call_fd = eventfd(0, EFD_NONBLOCK);
	p = (struct pollfd) { .fd = call_fd, .events = POLLIN };
	if (pthread_create(&thread, NULL, bare, &c))
		fatal("a thread", EAGAIN);
	for (uint64_t i = 0; i < count; i++) {
		(void)!write(kick_fd, &one, sizeof(one));
		poll(&p, 1, -1);
		(void)!read(call_fd, &n, sizeof(n));
	}
	pthread_join(thread, NULL);
	return c.each;
}

int main(int argc, char **argv)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .flags = VDISK_OPEN_WRITE };
	struct guest_memory map;
	struct virtq_setup setup = { .size = SIZE, .desc = DESC, .avail = AVAIL, .used = USED };
	struct virtio_start start = {
		.mem = &map, .queue = &setup,
		.host = { .interrupt = on_interrupt, .broken = on_broken },
	};
	struct blk_options b = { .queues = 1 };
	struct vdisk_error err = { 0 };
	struct virtio_device *dev = NULL;
	struct blk_stats stats;
	struct comparison alone = { 0 };
	struct vdisk *d = NULL;
	double wall, all, own;
	size_t size;
	int c;

	while ((c = getopt(argc, argv, "b:q:n:wdvp:")) != -1) {
		switch (c) {
		case 'b': bytes = (unsigned)atoi(optarg); break;
		case 'q': depth = (unsigned)atoi(optarg); break;
		case 'n': count = strtoull(optarg, NULL, 10); break;
		case 'w': writes = true; break;
		case 'd': direct = true; break;
		case 'v': counts = true; break;
		case 'p': b.poll_us = (unsigned)atoi(optarg); break;
		default: return 2;
		}
	}
	if (optind + 1 != argc || !depth || depth > DEPTH_MAX || bytes < 512 || bytes % 512)
		return 2;
	size = BUFFERS + (size_t)bytes * depth;
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (mem == MAP_FAILED)
		fatal("memory", errno);
	map = (struct guest_memory) { .n = 1, .region = { { .gpa = 0, .size = size, .host = mem } } };
	if (direct)
		o.flags |= VDISK_OPEN_DIRECT;
	if (vdisk_open(&d, argv[optind], &o, &err) < 0) {
		fprintf(stderr, "blk-load: %s\n", err.msg);
		return 1;
	}
	blocks = vdisk_size(d) / bytes;
	b.disk = d;
	kick_fd = eventfd(0, EFD_NONBLOCK);
	call_fd = eventfd(0, EFD_NONBLOCK);
	setup.kick_fd = kick_fd;
	if (!blocks || blk_new(&dev, &b, &err) < 0)
		fatal("the device", EINVAL);
	start.features = dev->features;
	if (dev->ops->start(dev, &start) < 0)
		fatal("the device", EINVAL);
	wall = seconds(CLOCK_MONOTONIC);
	all = seconds(CLOCK_PROCESS_CPUTIME_ID);
	own = seconds(CLOCK_THREAD_CPUTIME_ID);
	drive();
	wall = seconds(CLOCK_MONOTONIC) - wall;
	own = seconds(CLOCK_THREAD_CPUTIME_ID) - own;
	all = seconds(CLOCK_PROCESS_CPUTIME_ID) - all;
	dev->ops->stop(dev);
	blk_get_stats(dev, &stats);
	dev->ops->free(dev);
	vdisk_close(d, NULL);
	alone.path = argv[optind];
	(void)bare(&alone);
	printf("%.0f /s, %.3f us of the device's, %.3f us bare", (double)count / wall,
	       (all - own) / (double)count * 1e6, alone.each * 1e6);
	if (depth == 1)
		printf(", %.3f us with a doorbell", least_asleep(argv[optind]) * 1e6);
	printf("\n");
	if (counts)
		printf("requests %" PRIu64 " batches %" PRIu64 " interrupts %" PRIu64 " sleeps %" PRIu64
		       " enters %" PRIu64 "\n", stats.reads + stats.writes, stats.batches,
		       stats.interrupts, stats.sleeps, stats.enters);
	return 0;
}
