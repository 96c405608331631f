/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file.c - the source that has a file descriptor: regular files, block
 * devices, and memory (a file without a name)
 *
 * The engine reads and writes the descriptor itself; this file opens, locks,
 * and does what is not reading or writing: sizes, holes, zeroes, discards.
 * Only regular files and block devices are opened: a FIFO would hang, a
 * terminal or a character device has no offsets.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "core/engine.h"
#include "kernel/host.h"

static bool is_blkdev(const struct vdisk *d)
{
	return !d->fresh_zero;
}

static int file_sync(struct vdisk *d)
{
	return fdatasync(d->fd) < 0 ? -errno : 0;
}

static int fd_fallocate(int fd, int mode, uint64_t off, uint64_t len)
{
	while (fallocate(fd, mode, (off_t)off, (off_t)len) < 0) {
		if (errno == EINTR)
			continue;
		return errno == ENOSYS || errno == ENODEV ? -EOPNOTSUPP : -errno;
	}
	return 0;
}

/* Devices zero whole blocks only; the rest is written by the engine. */
static bool device_misaligned(const struct vdisk *d, uint64_t off, uint64_t len)
{
	return is_blkdev(d) && (off | len) & (d->block_size - 1);
}

static int file_zero(struct vdisk *d, uint64_t off, uint64_t len, bool unmap)
{
	int r = -EOPNOTSUPP;

	if (device_misaligned(d, off, len))
		return r;
	if (unmap)
		r = fd_fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
	if (r == -EOPNOTSUPP)
		r = fd_fallocate(d->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
	return r;
}

static int file_discard(struct vdisk *d, uint64_t off, uint64_t len)
{
	uint64_t range[2];

	if (!is_blkdev(d))
		return fd_fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
	range[0] = vd_align_up(off, d->block_size);
	range[1] = vd_align_down(off + len, d->block_size);
	if (range[0] >= range[1])
		return 0;
	range[1] -= range[0];
	return ioctl(d->fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

static int file_report(struct vdisk *d, uint64_t off, uint64_t len, struct vd_extent *e)
{
	off_t data, hole;

	*e = (struct vd_extent) { .kind = VD_DATA, .len = len };
	if (is_blkdev(d))
		return 0;
	data = lseek(d->fd, (off_t)off, SEEK_DATA);
	if (data < 0 && errno == ENXIO) {	/* nothing from here to the end */
		e->kind = VD_HOLE;
		return 0;
	}
	if (data < 0)	/* no such call here: all of it may be data */
		return 0;
	if ((uint64_t)data > off) {
		e->kind = VD_HOLE;
		e->len = MIN(len, (uint64_t)data - off);
		return 0;
	}
	hole = lseek(d->fd, (off_t)off, SEEK_HOLE);
	if (hole > 0 && (uint64_t)hole > off)
		e->len = MIN(len, (uint64_t)hole - off);
	return 0;
}

static int file_resize(struct vdisk *d, uint64_t size, struct vdisk_error *err)
{
	if (is_blkdev(d))
		return size <= d->size ? 0 :
			vd_fail(err, ENOSPC, "%s: a device of %llu bytes cannot grow", d->name,
				(unsigned long long)d->size);
	if (size > INT64_MAX)
		return vd_fail(err, EFBIG, "%s: size too large", d->name);
	if (ftruncate(d->fd, (off_t)size) < 0)
		return vd_fail(err, errno, "%s: cannot resize: %s", d->name, strerror(errno));
	d->size = size;
	return 0;
}

static int file_size(int fd, const struct stat *st, uint64_t *size)
{
	if (S_ISBLK(st->st_mode))
		return ioctl(fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
	*size = (uint64_t)st->st_size;
	return 0;
}

static int file_refresh(struct vdisk *d, uint64_t *size)
{
	struct stat st;

	return fstat(d->fd, &st) < 0 ? -errno : file_size(d->fd, &st, size);
}

static const struct vd_driver file_driver = {
	.name = "file",
	.sync = file_sync,
	.zero = file_zero,
	.discard = file_discard,
	.report = file_report,
	.resize = file_resize,
	.refresh = file_refresh,
};

int vd_truncate(struct vdisk *d, uint64_t size)
{
	return d->drv->resize ? d->drv->resize(d, size, NULL) : -EOPNOTSUPP;
}

/* ---- opening ---- */

static uint32_t direct_alignment(int fd, const struct stat *st)
{
	struct statx sx;
	int size = 0;

	if (S_ISBLK(st->st_mode))
		return ioctl(fd, BLKSSZGET, &size) == 0 && size > 0 ? (uint32_t)size : 4096;
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
	    sx.stx_mask & STATX_DIOALIGN && vd_is_pow2(sx.stx_dio_offset_align))
		return MAX(sx.stx_dio_offset_align, sx.stx_dio_mem_align);
	return 4096;
}

static bool in_memory(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
	       fs.f_type == HUGETLBFS_MAGIC;
}

/* Fill in what the descriptor says.  d->fd is set. */
static int file_inspect(struct vdisk *d, struct vdisk_error *err)
{
	struct stat st;
	uint64_t size;
	int block;

	if (fstat(d->fd, &st) < 0)
		return vd_fail(err, errno, "%s: %s", d->name, strerror(errno));
	if (S_ISREG(st.st_mode)) {
		d->size = (uint64_t)st.st_size;
		d->grows = d->fresh_zero = true;
		d->never_blocks = in_memory(d->fd);
	} else if (S_ISBLK(st.st_mode)) {
		if (file_size(d->fd, &st, &size) < 0)
			return vd_fail(err, errno, "%s: cannot get its size: %s", d->name,
				       strerror(errno));
		d->size = size;
		if (ioctl(d->fd, BLKSSZGET, &block) == 0 && vd_is_pow2((uint64_t)block))
			d->block_size = (uint32_t)block;
	} else {
		return vd_fail(err, EINVAL, "%s: neither a regular file nor a block device",
			       d->name);
	}
	if (d->flags & VDISK_OPEN_DIRECT)
		d->io_align = direct_alignment(d->fd, &st);
	return 0;
}

int vdisk_open_fd(struct vdisk **out, int fd, const char *name,
		  const struct vdisk_open_opts *opts, struct vdisk_error *err)
{
	struct vdisk *d = vd_disk_new(&file_driver, name, 0);
	int r;

	if (!d)
		return vd_fail(err, ENOMEM, "out of memory");
	d->flags = opts ? opts->flags : 0;
	d->fd = fd;
	r = file_inspect(d, err);
	if (r == 0 && opts && opts->block_size)
		d->block_size = opts->block_size;
	if (r < 0) {
		d->fd = -1;	/* still the caller's */
		vd_disk_free(d);
		return r;
	}
	*out = d;
	return 0;
}

/* Not a path but one of the descriptors that came with the options. */
static int open_given(struct vdisk **out, const char *path, const struct vdisk_open_opts *opts,
		      struct vdisk_error *err)
{
	AUTO_CLOSE int fd = -1;
	int r = -1;

	for (unsigned i = 0; fd < 0 && i < opts->n_files; i++) {
		if (strcmp(opts->files[i].path, path))
			continue;
		r = fcntl(opts->files[i].fd, F_GETFL);
		fd = fcntl(opts->files[i].fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0 || r < 0)
			return vd_fail(err, errno, "%s: descriptor %d: %s", path,
				       opts->files[i].fd, strerror(errno));
	}
	if (fd < 0)
		return vd_fail(err, EACCES, "%s: not among the files that were passed", path);
	if (opts->flags & VDISK_OPEN_WRITE && (r & O_ACCMODE) != O_RDWR)
		return vd_fail(err, EACCES, "%s: was not passed for writing", path);
	r = vdisk_open_fd(out, fd, path, opts, err);
	if (r == 0)
		(void)STEAL_FD(fd);
	return r;
}

/* A loop device, a mount or whatever else the kernel has made of it comes first. */
static int refuse_in_use(const char *path, const struct stat *st, struct vdisk_error *err)
{
	char how[400] = "", who[160] = "";

	if (!vd_in_use(st, how, sizeof(how)))
		vd_opener_of(st, who, sizeof(who));
	return vd_fail(err, EBUSY, "%s: in use by this host: %s%s", path,
		       how[0] ? how : "another program has it open", who);
}

int vd_file_open(struct vdisk **out, const char *path, const struct vdisk_open_opts *opts,
		 struct vdisk_error *err)
{
	bool write = opts->flags & VDISK_OPEN_WRITE;
	int how = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	AUTO_CLOSE int fd = -1;
	struct stat st;
	int r;

	if (opts->n_files)
		return open_given(out, path, opts, err);
	if (stat(path, &st) < 0)
		return vd_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return vd_fail(err, EINVAL, "%s: neither a regular file nor a block device", path);
	if (opts->flags & VDISK_OPEN_DIRECT)
		how |= O_DIRECT;
	/* of a device: nobody has it mounted or holds it */
	if (S_ISBLK(st.st_mode) && write)
		how |= O_EXCL;
	if (write && vd_loop_of(&st, 0) >= 0)
		return refuse_in_use(path, &st, err);
	fd = open(path, how);
	if (fd < 0 && errno == EBUSY && S_ISBLK(st.st_mode))
		return refuse_in_use(path, &st, err);
	if (fd < 0)
		return vd_fail(err, errno, "%s: cannot open%s: %s", path,
			       write ? " for writing" : "", strerror(errno));
	if (!(opts->flags & VDISK_OPEN_SHARE)) {
		r = vd_lock_image(fd, path, write, err);
		if (r < 0)
			return r;
	}
	r = vdisk_open_fd(out, fd, path, opts, err);
	if (r == 0)
		(void)STEAL_FD(fd);
	return r;
}

int vdisk_open_memory(struct vdisk **out, uint64_t length, struct vdisk_error *err)
{
	struct vdisk_open_opts opts = { .size = sizeof(opts), .flags = VDISK_OPEN_WRITE };
	AUTO_CLOSE int fd = memfd_create("vdisk", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return vd_fail(err, errno, "cannot get memory for a disk: %s", strerror(errno));
	if (length > INT64_MAX || ftruncate(fd, (off_t)length) < 0)
		return vd_fail(err, EFBIG, "memory disk: size too large");
	r = vdisk_open_fd(out, fd, "memory", &opts, err);
	if (r == 0)
		(void)STEAL_FD(fd);
	return r;
}
