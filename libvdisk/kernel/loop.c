/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* loop.c - loop devices: block devices on files */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/blkpg.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "core/driver.h"
#include "kernel/host.h"

#define TRIES 16

/* The name of the file that loop device @n lies on. */
static bool backing_file(int n, char *file, size_t size)
{
	char path[64];
	AUTO_CLOSE int fd = -1;
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/block/loop%d/loop/backing_file", n);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	len = read(fd, file, size - 1);
	if (len <= 0)
		return false;
	file[len] = '\0';
	file[strcspn(file, "\n")] = '\0';
	return true;
}

/* Does loop device @n lie on that file? */
static bool is_on(int n, const struct stat *st)
{
	char path[64], file[PATH_MAX + 16];
	struct loop_info64 info;
	struct stat other;
	AUTO_CLOSE int fd = -1;

	if (!backing_file(n, file, sizeof(file)))
		return false;
	if (stat(file, &other) == 0 && other.st_ino == st->st_ino && other.st_dev == st->st_dev)
		return true;
	/* renamed, or in another mount namespace: the device itself knows, if it tells us */
	snprintf(path, sizeof(path), "/dev/loop%d", n);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0 &&
	       info.lo_inode == st->st_ino && info.lo_device == st->st_dev;
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* The numbers of all loop devices in sysfs, ascending. */
static int *loop_numbers(size_t *count)
{
	DIR *dir = opendir("/sys/block");
	int *v = NULL, *more;
	size_t n = 0, room = 0;
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		int number, used = 0;

		if (sscanf(e->d_name, "loop%d%n", &number, &used) != 1 || e->d_name[used])
			continue;
		if (n == room) {
			room = room ? 2 * room : 16;
			more = reallocarray(v, room, sizeof(*v));
			if (!more)
				break;
			v = more;
		}
		v[n++] = number;
	}
	if (dir)
		closedir(dir);
	if (n)
		qsort(v, n, sizeof(*v), by_number);
	*count = n;
	return v;
}

int vd_loop_of(const struct stat *st, int nth)
{
	size_t count;
	AUTO_FREE int *v = loop_numbers(&count);

	for (size_t i = 0; i < count; i++)
		if (is_on(v[i], st) && nth-- == 0)
			return v[i];
	return -1;
}

int vd_loop_on_name(const char *name)
{
	char file[PATH_MAX + 16];
	size_t count;
	AUTO_FREE int *v = loop_numbers(&count);

	for (size_t i = 0; i < count; i++)
		if (backing_file(v[i], file, sizeof(file)) && !strcmp(file, name))
			return v[i];
	return -1;
}

int vd_loop_next(void)
{
	AUTO_CLOSE int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	char path[64];
	size_t count;
	AUTO_FREE int *v = NULL;
	int n = ctl >= 0 ? ioctl(ctl, LOOP_CTL_GET_FREE) : -1;

	if (n >= 0)
		return n;
	v = loop_numbers(&count);
	n = 0;
	for (size_t i = 0; i < count && v[i] <= n; i++) {
		snprintf(path, sizeof(path), "/sys/block/loop%d/loop", v[i]);
		if (access(path, F_OK) < 0)
			return v[i];
		n = v[i] + 1;
	}
	return n;
}

/* Where there is no udev, the kernel's devtmpfs may still be slow, or be missing. */
static int open_device(int number, bool read_only)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/loop%d", number);
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && mknod(path, S_IFBLK | 0660, makedev(7, number)) == 0)
		fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	return fd;
}

int vd_loop_attach(struct vd_loop *out, int fd, const char *name, uint64_t offset, uint64_t size,
		   uint32_t block_size, unsigned flags, struct vdisk_error *err)
{
	AUTO_CLOSE int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config config = {
		.fd = (uint32_t)fd,
		.block_size = block_size,
		.info.lo_offset = offset,
		.info.lo_sizelimit = size,
		.info.lo_flags = (flags & VD_LOOP_READ_ONLY ? LO_FLAGS_READ_ONLY : 0u) |
				 (flags & VD_LOOP_AUTOCLEAR ? LO_FLAGS_AUTOCLEAR : 0u),
	};

	struct stat st;

	if (ctl < 0)
		return vd_fail(err, errno, "/dev/loop-control: %m: no loop devices here");
	/* the kernel takes the size that it knows, which for a file of FUSE may be none yet */
	if (fstat(fd, &st) < 0)
		return vd_fail(err, errno, "%s: %m", name);
	snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", name);
	/* somebody else may take the free one before us */
	for (int i = 0; i < TRIES; i++) {
		int n = ioctl(ctl, LOOP_CTL_GET_FREE), loop;

		if (n < 0)
			return vd_fail(err, errno, "no free loop device: %m");
		loop = open_device(n, flags & VD_LOOP_READ_ONLY);
		if (loop < 0)
			return vd_fail(err, errno, "/dev/loop%d: %m", n);
		if (ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
			*out = (struct vd_loop) { .number = n, .fd = loop };
			return 0;
		}
		close(loop);
		if (errno != EBUSY)
			return vd_fail(err, errno, "/dev/loop%d: cannot attach %s: %m", n, name);
	}
	return vd_fail(err, EBUSY, "no free loop device");
}

int vd_loop_partitions(const char *device, struct vdisk_error *err)
{
	AUTO_CLOSE int fd = open(device, O_RDONLY | O_CLOEXEC);
	struct loop_info64 info;

	if (fd < 0)
		return vd_fail(err, errno, "%s: %m", device);
	if (ioctl(fd, LOOP_GET_STATUS64, &info) == 0) {
		info.lo_flags |= LO_FLAGS_PARTSCAN;
		if (ioctl(fd, LOOP_SET_STATUS64, &info) < 0)
			return vd_fail(err, errno, "%s: %m", device);
	}
	/* others, like NBD, need no asking */
	if (ioctl(fd, BLKRRPART) < 0 && errno != EINVAL)
		return vd_fail(err, errno, "%s: the kernel does not make its partitions: %m",
			       device);
	return 0;
}

int vd_loop_add_partition(const char *device, unsigned number, uint64_t offset, uint64_t length)
{
	AUTO_CLOSE int fd = open(device, O_RDONLY | O_CLOEXEC);
	struct blkpg_partition part = {
		.start = (long long)offset, .length = (long long)length, .pno = (int)number,
	};
	struct blkpg_ioctl_arg arg = {
		.op = BLKPG_ADD_PARTITION, .datalen = sizeof(part), .data = &part,
	};

	if (fd < 0 || (ioctl(fd, BLKPG, &arg) < 0 && errno != EBUSY))
		return -errno;
	return 0;
}

int vd_loop_detach(int number, struct vdisk_error *err)
{
	AUTO_CLOSE int fd = open_device(number, true);
	char path[64];

	if (fd < 0 || (ioctl(fd, LOOP_CLR_FD) < 0 && errno != ENXIO))
		return vd_fail(err, errno, "/dev/loop%d: cannot detach: %m", number);
	close(STEAL_FD(fd));
	/* with another opener (udev looks at it) it goes when that one closes */
	snprintf(path, sizeof(path), "/sys/block/loop%d/loop", number);
	for (int i = 0; i < 100 && access(path, F_OK) == 0; i++)
		usleep(10000);
	return 0;
}
