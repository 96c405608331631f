/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine and the queue, both back ends, on raw disks, windows and overlays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/engine.h"

#define SIZE ((uint64_t)4 << 20)

struct world {
	char path[64];
	struct vdisk *disk;	/* on a file in /tmp */
	struct vdisk *mem;	/* on a memfd */
	struct vdisk *over;	/* overlay of disk */
	uint8_t *model, *over_model;
};

static enum vdisk_queue_backend backend;

static int setup(void **state)
{
	struct vdisk_open_opts rw = { .size = sizeof(rw), .flags = VDISK_OPEN_WRITE, .format = "raw" };
	struct world *w = calloc(1, sizeof(*w));
	struct vdisk *mem = NULL;
	int fd;

	strcpy(w->path, "/var/tmp/vdisk-queue.XXXXXX");
	fd = mkstemp(w->path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	assert_int_equal(vdisk_open(&w->disk, w->path, &rw, NULL), 0);
	assert_int_equal(vdisk_open_memory(&mem, SIZE, NULL), 0);
	assert_int_equal(vdisk_open_on(&w->mem, mem, &rw, NULL), 0);
	vdisk_close(mem, NULL);
	w->model = calloc(1, SIZE);
	for (uint64_t i = 0; i < SIZE; i++)
		w->model[i] = (uint8_t)(i * 7 + i / 4096);
	assert_int_equal(vdisk_write(w->disk, w->model, SIZE, 0), 0);
	assert_int_equal(vdisk_write(w->mem, w->model, SIZE, 0), 0);
	assert_int_equal(vdisk_open_overlay(&w->over, w->disk, NULL, NULL), 0);
	w->over_model = malloc(SIZE);
	memcpy(w->over_model, w->model, SIZE);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	vdisk_close(w->over, NULL);
	vdisk_close(w->disk, NULL);
	vdisk_close(w->mem, NULL);
	unlink(w->path);
	free(w->model);
	free(w->over_model);
	free(w);
	return 0;
}

static struct vdisk_queue *new_queue(void)
{
	struct vdisk_queue_opts o = { .size = sizeof(o), .depth = 16, .backend = backend };
	struct vdisk_queue *q = NULL;

	assert_int_equal(vdisk_queue_new(&q, &o, NULL), 0);
	return q;
}

static int one(struct vdisk_queue *q, struct vdisk_request *r)
{
	struct vdisk_request *done = NULL;

	vdisk_queue_submit(q, &r, 1);
	assert_int_equal(vdisk_queue_reap(q, &done, 1, 10000), 1);
	assert_ptr_equal(done, r);
	assert_int_equal(vdisk_queue_reap(q, &done, 1, 0), 0);
	return r->result;
}

/* Random requests, several in flight, never two on the same 64 KiB unless both read. */
static void hammer(struct vdisk *disk, uint8_t *model, unsigned rounds, unsigned seed)
{
	enum { DEPTH = 8 };
	struct vdisk_queue *q = new_queue();
	static struct vdisk_request reqs[DEPTH];
	struct iovec iov[DEPTH][3];
	uint8_t *buf = malloc(DEPTH * 65536);

	for (unsigned n = 0; n < rounds; n++) {
		struct vdisk_request *batch[DEPTH], *done[DEPTH];
		unsigned got = 0;

		for (unsigned i = 0; i < DEPTH; i++) {
			uint64_t lane = SIZE / DEPTH * i;
			uint64_t off = lane + rand_r(&seed) % (SIZE / DEPTH - 65536);
			uint32_t len = 1 + rand_r(&seed) % 65535;
			uint8_t *b = buf + i * 65536;
			size_t cut = len / 3;
			unsigned op = rand_r(&seed) % 8;

			if (op < 2)
				off &= ~4095ull, len = (len | 4095) & ~4095u, len = len ? len : 4096;
			if (off + len > lane + SIZE / DEPTH)
				len = 4096, off = lane;
			if (len > 65536)
				len = 65536;
			cut = len / 3;
			iov[i][0] = (struct iovec) { b, cut };
			iov[i][1] = (struct iovec) { b + cut, 0 };
			iov[i][2] = (struct iovec) { b + cut, len - cut };
			memset(&reqs[i], 0xa5, sizeof(reqs[i]));
			reqs[i].disk = disk;
			reqs[i].flags = 0;
			reqs[i].offset = off;
			reqs[i].length = len;
			reqs[i].iov = iov[i];
			reqs[i].iovcnt = 3;
			if (op == 7) {
				reqs[i].op = VDISK_OP_ZERO;
				memset(model + off, 0, len);
			} else if (op & 1) {
				reqs[i].op = VDISK_OP_WRITE;
				reqs[i].flags = op == 3 ? VDISK_REQ_FUA : 0;
				for (uint32_t k = 0; k < len; k++)
					b[k] = (uint8_t)rand_r(&seed);
				memcpy(model + off, b, len);
			} else {
				reqs[i].op = VDISK_OP_READ;
				memset(b, 0xee, len);
			}
			batch[i] = &reqs[i];
		}
		vdisk_queue_submit(q, batch, n % 3 ? DEPTH : 1);
		if (n % 3 == 0)
			for (unsigned i = 1; i < DEPTH; i++)
				vdisk_queue_submit(q, batch + i, 1);
		while (got < DEPTH) {
			int r = vdisk_queue_reap(q, done, DEPTH, 10000);

			assert_true(r > 0);
			got += (unsigned)r;
			for (int k = 0; k < r; k++) {
				assert_int_equal(done[k]->result, 0);
				if (done[k]->op == VDISK_OP_READ)
					assert_memory_equal(done[k]->iov[0].iov_base,
							    model + done[k]->offset, done[k]->length);
			}
		}
		if (n % 16 == 0) {
			struct vdisk_request f = { .disk = disk, .op = VDISK_OP_FLUSH };

			assert_int_equal(one(q, &f), 0);
		}
	}
	vdisk_queue_free(q);
	uint8_t *all = malloc(SIZE);
	assert_int_equal(vdisk_read(disk, all, SIZE, 0), 0);
	assert_memory_equal(all, model, SIZE);
	free(all);
	free(buf);
}

static void test_hammer(void **state)
{
	struct world *w = *state;
	uint8_t *before = malloc(SIZE);

	memcpy(before, w->model, SIZE);
	hammer(w->over, w->over_model, 150, 3);
	/* the overlay's base is untouched */
	assert_int_equal(vdisk_read(w->disk, w->over_model, SIZE, 0), 0);
	assert_memory_equal(before, w->over_model, SIZE);
	hammer(w->mem, w->model, 150, 2);
	hammer(w->disk, before, 150, 1);
	free(before);
}

static void test_window(void **state)
{
	struct world *w = *state;
	struct vdisk *win = NULL, *in = NULL;
	uint8_t b[4096];

	assert_int_equal(vdisk_open_window(&win, w->disk, 1 << 20, 2 << 20, NULL), 0);
	assert_int_equal(vdisk_open_window(&in, win, 4096, 8192, NULL), 0);
	assert_int_equal(vdisk_read(in, b, 4096, 4096), 0);
	assert_memory_equal(b, w->model + (1 << 20) + 8192, 4096);
	assert_int_equal(vdisk_read(in, b, 4096, 4097), -EINVAL);
	assert_int_equal(vdisk_read(in, b, 1, UINT64_MAX), -EINVAL);
	assert_int_equal(vdisk_open_window(&win, w->disk, SIZE, 1, NULL), -EINVAL);
	hammer(w->disk, w->model, 5, 9);
	vdisk_close(win, NULL);
	assert_int_equal(vdisk_read(in, b, 4096, 0), 0);
	vdisk_close(in, NULL);
}

static void test_refused(void **state)
{
	struct world *w = *state;
	struct vdisk_queue *q = new_queue();
	char b[16];
	struct iovec v = { b, 16 };
	struct vdisk_request r = { .disk = w->disk, .op = VDISK_OP_READ, .iov = &v, .iovcnt = 1,
				   .offset = SIZE - 15, .length = 16 };
	struct vdisk_open_opts ro = { .size = sizeof(ro), .format = "raw", .flags = VDISK_OPEN_SHARE };
	struct vdisk *disk = NULL;

	assert_int_equal(one(q, &r), -EINVAL);
	r.offset = UINT64_MAX;
	assert_int_equal(one(q, &r), -EINVAL);
	assert_int_equal(vdisk_open(&disk, w->path, &ro, NULL), 0);
	r = (struct vdisk_request) { .disk = disk, .op = VDISK_OP_WRITE, .iov = &v, .iovcnt = 1, .length = 16 };
	assert_int_equal(one(q, &r), -EROFS);
	vdisk_close(disk, NULL);
	vdisk_queue_free(q);
}

/* A program with a poll loop of its own sees every completion through the descriptor. */
static void test_poll(void **state)
{
	struct world *w = *state;
	struct vdisk_queue *q = new_queue();
	struct vdisk_request reqs[32], *p[32], *done[8];
	unsigned got = 0;

	for (unsigned i = 0; i < 32; i++) {
		reqs[i] = (struct vdisk_request) {
			.disk = w->disk, .op = VDISK_OP_ZERO, .offset = i * 8192, .length = 4096,
		};
		p[i] = &reqs[i];
	}
	vdisk_queue_submit(q, p, 32);
	while (got < 32) {
		struct pollfd pfd = { .fd = vdisk_queue_fd(q), .events = POLLIN };
		int r;

		while ((r = vdisk_queue_reap(q, done, 8, 0)) > 0)
			got += (unsigned)r;
		assert_int_equal(r, 0);
		if (got < 32)
			assert_int_equal(poll(&pfd, 1, 10000), 1);
	}
	vdisk_queue_free(q);
}

/* ... also if it is asleep by the time the request ends, and is left alone afterwards. */
static void test_poll_asleep(void **state)
{
	struct world *w = *state;
	struct vdisk_queue *q = new_queue();
	struct pollfd pfd = { .fd = vdisk_queue_fd(q), .events = POLLIN };
	struct vdisk_request req, *p = &req, *done[1];

	for (unsigned i = 0; i < 50; i++) {
		/* by turns one that a worker does and one that may be done at once */
		bool zero = i % 2 == 0;
		static uint8_t buf[4096];
		struct iovec iov = { buf, sizeof(buf) };

		req = (struct vdisk_request) {
			.disk = w->disk, .op = zero ? VDISK_OP_ZERO : VDISK_OP_READ,
			.length = zero ? SIZE / 2 : sizeof(buf), .iov = &iov, .iovcnt = 1,
		};
		vdisk_queue_submit(q, &p, 1);
		while (vdisk_queue_reap(q, done, 1, 0) == 0)
			assert_int_equal(poll(&pfd, 1, 10000), 1);
		assert_ptr_equal(done[0], &req);
		assert_int_equal(req.result, 0);
		assert_int_equal(vdisk_queue_reap(q, done, 1, 0), 0);
		assert_int_equal(poll(&pfd, 1, 0), 0);
	}
	vdisk_queue_free(q);
}

static void test_free_in_flight(void **state)
{
	struct world *w = *state;
	struct vdisk_queue *q = new_queue();
	struct vdisk_request reqs[16], *p[16];

	for (unsigned i = 0; i < 16; i++) {
		reqs[i] = (struct vdisk_request) {
			.disk = w->disk, .op = VDISK_OP_ZERO, .offset = i * 4096, .length = 4096,
		};
		p[i] = &reqs[i];
	}
	vdisk_queue_submit(q, p, 16);
	vdisk_queue_free(q);
}

/* Large reads of which the kernel copies half: in memory, from the page cache, or partly. */
static void test_shared_copies(void **state)
{
	enum { DEPTH = 4, ROUNDS = 40 };
	struct world *w = *state;
	struct vdisk *disks[] = { w->mem, w->disk };
	struct vdisk_queue *q = new_queue();
	uint8_t *buf = malloc(DEPTH * SIZE);
	unsigned seed = 11;
	int fd = open(w->path, O_RDONLY | O_CLOEXEC);
	cpu_set_t cpus;

	vd_queue_share_copies(q);
	assert_int_equal(fdatasync(fd), 0);
	for (unsigned n = 0; n < ROUNDS; n++) {
		struct vdisk_request reqs[DEPTH], *batch[DEPTH], *done[DEPTH];
		struct iovec iov[DEPTH][3];
		unsigned depth = n % 3 ? DEPTH : 1;

		if (n % 8 == 5)
			assert_int_equal(posix_fadvise(fd, rand_r(&seed) % SIZE, 0, POSIX_FADV_DONTNEED), 0);
		memset(buf, 0xee, DEPTH * SIZE);
		for (unsigned i = 0; i < depth; i++) {
			uint64_t len = (400 << 10) + rand_r(&seed) % (2 << 20);
			size_t cut = 1 + rand_r(&seed) % (len - 1);
			uint8_t *b = buf + i * SIZE;

			iov[i][0] = (struct iovec) { b, cut };
			iov[i][1] = (struct iovec) { b + cut, 0 };
			iov[i][2] = (struct iovec) { b + cut, len - cut };
			reqs[i] = (struct vdisk_request) {
				.disk = disks[n / 2 % 2], .op = VDISK_OP_READ, .length = len,
				.offset = rand_r(&seed) % (SIZE - len), .iov = iov[i], .iovcnt = 3,
			};
			batch[i] = &reqs[i];
		}
		vdisk_queue_submit(q, batch, depth);
		for (unsigned got = 0; got < depth;) {
			int r = vdisk_queue_reap(q, done, DEPTH, 10000);

			assert_true(r > 0);
			got += (unsigned)r;
		}
		for (unsigned i = 0; i < depth; i++) {
			assert_int_equal(reqs[i].result, 0);
			assert_memory_equal(buf + i * SIZE, w->model + reqs[i].offset, reqs[i].length);
			assert_int_equal(buf[i * SIZE + reqs[i].length], 0xee);
		}
	}
	/* memory alone needs no ring: it was asked to help */
	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	assert_int_equal(vd_queue_enters(q) > 0,
			 CPU_COUNT(&cpus) > 1 && !strcmp(vdisk_queue_name(q), "io_uring"));
	vdisk_queue_free(q);
	close(fd);
	free(buf);
}

static void test_map(void **state)
{
	struct world *w = *state;
	struct vdisk_extent e;

	assert_int_equal(vdisk_zero(w->disk, 1 << 20, 1 << 20, VDISK_REQ_UNMAP), 0);
	assert_int_equal(vdisk_map(w->disk, 0, SIZE, &e), 0);
	assert_int_equal(e.kind, VDISK_DATA);
	assert_int_equal(e.length, 1 << 20);
	assert_int_equal(e.source_offset, 0);
	assert_true(vdisk_fd(e.source) >= 0);
	assert_int_equal(vdisk_map(w->disk, 1 << 20, SIZE, &e), 0);
	assert_int_equal(e.kind, VDISK_HOLE);
	assert_int_equal(e.length, 1 << 20);
	assert_int_equal(vdisk_map(w->over, 0, SIZE, &e), 0);
	assert_int_equal(e.depth, 1);
	assert_int_equal(vdisk_map_own(w->over, 0, SIZE, &e), 0);
	assert_int_equal(e.kind, VDISK_HOLE);
	assert_int_equal(vdisk_map(w->disk, SIZE, 1, &e), -EINVAL);
}

static void test_resize_and_locks(void **state)
{
	struct world *w = *state;
	struct vdisk_open_opts rw = { .size = sizeof(rw), .flags = VDISK_OPEN_WRITE, .format = "raw" };
	struct vdisk *second = NULL;
	struct vdisk_error err = { 0 };
	uint8_t b[512];

	assert_int_equal(vdisk_open(&second, w->path, &rw, &err), -EBUSY);
	assert_null(second);
	assert_non_null(strstr(err.msg, w->path));
	assert_int_equal(vdisk_resize(w->disk, SIZE + 4096, NULL), 0);
	assert_int_equal(vdisk_read(w->disk, b, 512, SIZE + 3584), 0);
	assert_int_equal(b[511], 0);
	assert_int_equal(vdisk_resize(w->disk, SIZE, NULL), 0);
	assert_int_equal(vdisk_read(w->disk, b, 512, SIZE), -EINVAL);
}

static void parallel_add(void *arg, unsigned i)
{
	atomic_fetch_add((_Atomic unsigned *)arg, i);
}

static void test_parallel(void **state)
{
	_Atomic unsigned sum = 0;

	(void)state;
	vd_parallel(parallel_add, &sum, 1000);
	assert_int_equal(sum, 499500);
	vd_parallel(parallel_add, &sum, 0);
	assert_int_equal(sum, 499500);
}

/* What may be sent from its file, and that it is the right place there. */
static void test_sendable(void **state)
{
	struct world *w = *state;
	struct vdisk *window = NULL;
	struct vdisk_sendable there;
	uint8_t *got = malloc(SIZE);

	assert_int_equal(vdisk_read(w->disk, got, SIZE, 0), 0);		/* into the page cache */
	assert_int_equal(vdisk_sendable(w->mem, 4096, 100000, &there), 0);
	assert_true(there.lasting);
	assert_int_equal(pread(there.fd, got, 100000, (off_t)there.offset), 100000);
	assert_memory_equal(got, w->model + 4096, 100000);
	assert_int_equal(vdisk_open_window(&window, w->mem, 512 * 77, 1 << 20, NULL), 0);
	assert_int_equal(vdisk_sendable(window, 512, 65536, &there), 0);
	assert_int_equal(pread(there.fd, got, 65536, (off_t)there.offset), 65536);
	assert_memory_equal(got, w->model + 512 * 78, 65536);
	assert_int_equal(vdisk_sendable(window, 1 << 20, 512, &there), -EAGAIN);
	assert_int_equal(vdisk_sendable(window, (1 << 20) - 512, 1024, &there), -EAGAIN);
	assert_int_equal(vdisk_sendable(window, UINT64_MAX, 2, &there), -EAGAIN);
	assert_int_equal(vdisk_sendable(window, 0, 0, &there), -EAGAIN);
	vdisk_close(window, NULL);
	/* an overlay may put these bytes elsewhere, or others in their place */
	assert_int_equal(vdisk_sendable(w->over, 0, 65536, &there), -EAGAIN);
	/* a file on a disk: if it is in memory (the system may think otherwise) */
	if (vdisk_sendable(w->disk, 8192, 65536, &there) == 0) {
		assert_false(there.lasting);
		assert_int_equal(pread(there.fd, got, 65536, (off_t)there.offset), 65536);
		assert_memory_equal(got, w->model + 8192, 65536);
		assert_int_equal(vdisk_flush(w->disk), 0);
		assert_int_equal(posix_fadvise(there.fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		assert_int_equal(vdisk_sendable(w->disk, 0, 1 << 20, &there), -EAGAIN);
	}
	free(got);
}

static void test_write_now(void **state)
{
	struct world *w = *state;
	uint8_t *got = malloc(SIZE);

	memset(w->model + 12345, 0x3c, 77777);
	assert_int_equal(vdisk_write_now(w->disk, w->model + 12345, 77777, 12345), 0);
	assert_int_equal(vdisk_read(w->disk, got, SIZE, 0), 0);
	assert_memory_equal(got, w->model, SIZE);
	assert_int_equal(vdisk_write_now(w->disk, got, 512, SIZE), -EINVAL);
	/* nothing is allocated: that is for whoever may wait */
	assert_int_equal(vdisk_write_now(w->over, got, 65536, 0), -EAGAIN);
	assert_int_equal(vdisk_read(w->over, got, SIZE, 0), 0);
	assert_memory_equal(got, w->model, SIZE);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_hammer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poll, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poll_asleep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_free_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_copies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_map, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resize_and_locks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sendable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_now, setup, teardown),
		cmocka_unit_test(test_parallel),
	};
	int failed;

	backend = VDISK_QUEUE_URING;
	failed = cmocka_run_group_tests_name("io_uring", tests, NULL, NULL);
	backend = VDISK_QUEUE_THREADS;
	failed += cmocka_run_group_tests_name("threads", tests, NULL, NULL);
	return failed;
}
