/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A host that refuses io_uring, as containers do: threads serve, and nobody has to ask for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/compiler.h"
#include "vdisk.h"

/* EPERM for its first system call */
static int refuse_ring(void **state UNUSED)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };

	unsetenv("VDISK_QUEUE");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void test_asked_for(void **state UNUSED)
{
	const struct vdisk_queue_opts opts = {
		.size = sizeof(opts), .backend = VDISK_QUEUE_URING,
	};
	struct vdisk_error err = { 0 };
	struct vdisk_queue *q = NULL;

	assert_int_equal(vdisk_queue_new(&q, &opts, &err), -EPERM);
	assert_null(q);
	assert_non_null(strstr(err.msg, "io_uring"));
}

static void test_threads(void **state UNUSED)
{
	struct vdisk_queue *q = NULL;
	struct vdisk *mem = NULL;
	uint8_t out[512] = { 0x5a }, in[512] = { 0 };
	struct iovec iov = { out, sizeof(out) };
	struct vdisk_request req = {
		.op = VDISK_OP_WRITE, .iov = &iov, .iovcnt = 1, .offset = 4096, .length = 512,
		.flags = VDISK_REQ_FUA,		/* what a worker does */
	}, *one = &req;

	assert_int_equal(vdisk_queue_new(&q, NULL, NULL), 0);
	assert_string_equal(vdisk_queue_name(q), "threads");
	assert_int_equal(vdisk_open_memory(&mem, 1 << 20, NULL), 0);
	req.disk = mem;
	vdisk_queue_submit(q, &one, 1);
	assert_int_equal(vdisk_queue_reap(q, &one, 1, -1), 1);
	assert_int_equal(req.result, 0);
	assert_int_equal(vdisk_read(mem, in, sizeof(in), 4096), 0);
	assert_memory_equal(in, out, sizeof(in));
	vdisk_queue_free(q);
	assert_int_equal(vdisk_close(mem, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_for),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, refuse_ring, NULL);
}
