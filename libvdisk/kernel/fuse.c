/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse.c - a disk as a file of this host
 *
 * A FUSE file system that is one regular file and nothing else, mounted over a
 * file that exists.  So programs that know nothing of image formats (mke2fs,
 * e2fsck, losetup, qemu) work on any disk, and no privilege is needed where
 * fusermount3 is installed.
 *
 *   1. The file has the disk's size and keeps it.
 *   2. Nothing is written later than the program that wrote it was told: the
 *      kernel's write-back cache stays off, fsync is a flush of the disk.
 *   3. The loop ends when the file is unmounted or vdisk_fuse_stop() is called;
 *      requests under way are finished.
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "core/driver.h"
#include "kernel/session.h"

#define ATTR_SECONDS 3600.0
#define THREADS 4u

struct vdisk_fuse {
	struct vdisk *disk;		/* owned reference */
	struct vd_session session;
	struct timespec since;
};

static struct vdisk_fuse *fuse_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- operations ---- */

static void fill_stat(struct vdisk_fuse *f, struct stat *st)
{
	uint64_t size = vdisk_size(f->disk);

	*st = (struct stat) {
		.st_ino = FUSE_ROOT_ID,
		.st_mode = S_IFREG | (vdisk_writable(f->disk) ? 0600 : 0400),
		.st_nlink = 1,
		.st_uid = geteuid(),
		.st_gid = getegid(),
		.st_size = (off_t)size,
		.st_blocks = (blkcnt_t)(size / 512),
		.st_blksize = 65536,
		.st_atim = f->since, .st_mtim = f->since, .st_ctim = f->since,
	};
}

static void op_init(void *arg, struct fuse_conn_info *conn)
{
	(void)arg;
	conn->max_write = VD_SESSION_IO;
	conn->max_readahead = VD_SESSION_IO;
	conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	if (ino != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill_stat(fuse_of(req), &st);
	fuse_reply_attr(req, &st, ATTR_SECONDS);
}

/* Times are accepted and forgotten; the size stays (rule 1). */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int which,
		       struct fuse_file_info *fi)
{
	(void)ino, (void)fi;
	if ((which & FUSE_SET_ATTR_SIZE) &&
	    (uint64_t)attr->st_size != vdisk_size(fuse_of(req)->disk)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (which & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	op_getattr(req, FUSE_ROOT_ID, NULL);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOENT);
	} else if ((fi->flags & O_ACCMODE) != O_RDONLY && !vdisk_writable(fuse_of(req)->disk)) {
		fuse_reply_err(req, EROFS);
	} else {
		fi->keep_cache = 1;	/* nobody else changes the disk */
		fuse_reply_open(req, fi);
	}
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off,
		    struct fuse_file_info *fi)
{
	struct vdisk_fuse *f = fuse_of(req);
	uint64_t size = vdisk_size(f->disk), at = (uint64_t)off;
	uint8_t *buf = vd_session_buffer();
	int r;

	(void)ino, (void)fi;
	if (at >= size) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	len = (size_t)MIN((uint64_t)len, size - at);
	len = MIN(len, (size_t)VD_SESSION_IO);
	r = buf ? vdisk_read(f->disk, buf, len, at) : -ENOMEM;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, (char *)buf, len);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t len, off_t off,
		     struct fuse_file_info *fi)
{
	struct vdisk_fuse *f = fuse_of(req);
	uint64_t size = vdisk_size(f->disk), at = (uint64_t)off;
	int r;

	(void)ino, (void)fi;
	if (at >= size) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	len = (size_t)MIN((uint64_t)len, size - at);
	r = vdisk_write(f->disk, buf, len, at);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_write(req, len);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino, (void)fi;
	fuse_reply_err(req, 0);		/* close() promises nothing */
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct vdisk_fuse *f = fuse_of(req);

	(void)ino, (void)datasync, (void)fi;
	fuse_reply_err(req, vdisk_writable(f->disk) ? -vdisk_flush(f->disk) : 0);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	struct vdisk_fuse *f = fuse_of(req);
	uint64_t size = vdisk_size(f->disk), at = (uint64_t)off, n = (uint64_t)len;
	int r = 0;

	(void)ino, (void)fi;
	if (at >= size || n > size - at) {
		if (!(mode & FALLOC_FL_KEEP_SIZE)) {
			fuse_reply_err(req, EOPNOTSUPP);
			return;
		}
		n = at < size ? size - at : 0;
	}
	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:		/* space is found when it is written */
		break;
	case FALLOC_FL_PUNCH_HOLE:
		r = n ? vdisk_zero(f->disk, at, n, VDISK_REQ_UNMAP) : 0;
		break;
	case FALLOC_FL_ZERO_RANGE:
		r = n ? vdisk_zero(f->disk, at, n, 0) : 0;
		break;
	default:
		r = -EOPNOTSUPP;
	}
	fuse_reply_err(req, -r);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	struct vdisk_fuse *f = fuse_of(req);
	uint64_t size = vdisk_size(f->disk), at = (uint64_t)off;

	(void)ino, (void)fi;
	if ((whence != SEEK_DATA && whence != SEEK_HOLE) || off < 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	while (at < size) {
		struct vdisk_extent ext;
		bool data;
		int r = vdisk_map(f->disk, at, size - at, &ext);

		if (r < 0) {
			fuse_reply_err(req, -r);
			return;
		}
		data = ext.kind == VDISK_DATA || ext.kind == VDISK_CODED;
		if (data == (whence == SEEK_DATA))
			break;
		at += ext.length;
	}
	if (at >= size && (whence == SEEK_DATA || (uint64_t)off >= size))
		fuse_reply_err(req, ENXIO);
	else
		fuse_reply_lseek(req, (off_t)at);
}

static const struct fuse_lowlevel_ops fuse_ops = {
	.init = op_init,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
};

/* ---- mounting and serving ---- */

int vdisk_fuse_mount(struct vdisk_fuse **out, struct vdisk *disk, const char *path,
		     struct vdisk_error *err)
{
	struct vdisk_fuse *f;
	char options[64];
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return vd_fail(err, errno, "%s: %m", path);
	if (!S_ISREG(st.st_mode))
		return vd_fail(err, EINVAL, "%s: not a regular file to mount the disk over", path);
	f = calloc(1, sizeof(*f));
	if (!f)
		return vd_fail(err, ENOMEM, "out of memory");
	f->disk = vdisk_ref(disk);
	clock_gettime(CLOCK_REALTIME, &f->since);
	snprintf(options, sizeof(options), "fsname=vdisk,subtype=vdisk%s",
		 vdisk_writable(disk) ? "" : ",ro");
	r = vd_session_start(&f->session, path, &fuse_ops, sizeof(fuse_ops), f, options, err);
	if (r < 0) {
		vdisk_fuse_free(f);
		return r;
	}
	*out = f;
	return 0;
}

int vdisk_fuse_run(struct vdisk_fuse *f, struct vdisk_error *err)
{
	return vd_session_serve(&f->session, THREADS, err);
}

void vdisk_fuse_stop(struct vdisk_fuse *f)
{
	vd_session_stop(&f->session);
}

void vdisk_fuse_free(struct vdisk_fuse *f)
{
	if (!f)
		return;
	vd_session_end(&f->session);
	vdisk_close(f->disk, NULL);
	free(f);
}
