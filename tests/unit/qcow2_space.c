/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest discards comes back to the file system while the image is in use: by its second flush. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vdisk.h"

#define MIB	(UINT64_C(1) << 20)

static uint64_t allocated(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* As a guest's disk does it, or whoever waits. */
static void flush(struct vdisk *disk, struct vdisk_queue *queue)
{
	struct vdisk_request r = { .disk = disk, .op = VDISK_OP_FLUSH }, *one = &r, *done;

	if (!queue) {
		assert_int_equal(vdisk_flush(disk), 0);
		return;
	}
	vdisk_queue_submit(queue, &one, 1);
	assert_int_equal(vdisk_queue_reap(queue, &done, 1, -1), 1);
	assert_int_equal(r.result, 0);
}

static void shrinks(void **state)
{
	struct vdisk_create_opts create = { .size = sizeof(create), .format = "qcow2" };
	struct vdisk_open_opts open = {
		.size = sizeof(open), .flags = VDISK_OPEN_WRITE, .format = "qcow2",
	};
	char dir[] = "/tmp/vdisk-space-XXXXXX", path[64];
	struct vdisk_queue *queue = NULL;
	struct vdisk *disk = NULL;
	uint8_t *data = malloc(2 * MIB);
	uint64_t full;

	(void)state;
	assert_non_null(data);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
	memset(data, 1, 2 * MIB);
	assert_int_equal(vdisk_create(path, 64 * MIB, &create, NULL), 0);
	assert_int_equal(vdisk_open(&disk, path, &open, NULL), 0);
	/* (more than once: the space is used again, and given back again) */
	assert_int_equal(vdisk_queue_new(&queue, NULL, NULL), 0);
	for (unsigned round = 0; round < 4; round++) {
		struct vdisk_queue *by = round < 2 ? NULL : queue;

		assert_int_equal(vdisk_write(disk, data, 2 * MIB, 4 * MIB), 0);
		flush(disk, by);
		full = allocated(path);
		assert_int_equal(vdisk_discard(disk, 4 * MIB, 2 * MIB), 0);
		flush(disk, by);
		flush(disk, by);
		assert_true(full - allocated(path) >= 2 * MIB);
		assert_int_equal(vdisk_read(disk, data, 2 * MIB, 4 * MIB), 0);
		for (size_t i = 0; i < 2 * MIB; i++)
			assert_int_equal(data[i], 0);
		memset(data, 2, 2 * MIB);
	}
	vdisk_queue_free(queue);
	assert_int_equal(vdisk_close(disk, NULL), 0);
	unlink(path);
	rmdir(dir);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shrinks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
