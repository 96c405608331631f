/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine.h - what the files of the core share; drivers see driver.h only */
#ifndef VD_ENGINE_H
#define VD_ENGINE_H

#include "core/driver.h"

/* ---- scatter-gather: a position in a list of buffers ---- */

struct vd_sg {
	const struct iovec *iov;
	unsigned cnt;
	size_t skip;	/* bytes of iov[0] already used */
};

#define VD_SG_BATCH 64

/* Take up to @len bytes as at most @max buffers; @taken tells how many bytes. */
unsigned vd_sg_take(struct vd_sg *sg, uint64_t len, struct iovec *out, unsigned max,
		    uint64_t *taken);
void vd_sg_zero(struct vd_sg *sg, uint64_t len);
void vd_sg_copy_in(struct vd_sg *sg, const void *src, size_t len);	/* src -> buffers */
void vd_sg_copy_out(struct vd_sg *sg, void *dst, size_t len);		/* buffers -> dst */

/* ---- requests inside a disk ---- */

/*
 * A request is inside each mapped disk that it passes, from before map until
 * its bytes have moved and it has committed.  Inside, it never waits for a drain of
 * the same disk, so that a drain always ends.
 */
unsigned vd_enter(struct vdisk *disk);
/* The same, or false where a drain would have to be waited for. */
bool vd_try_enter(struct vdisk *disk, unsigned *gen);
void vd_leave(struct vdisk *disk, unsigned gen);

/* Wait until nobody is inside, and keep everyone out until vd_drain_end(). */
void vd_drain(struct vdisk *disk);
void vd_drain_end(struct vdisk *disk);

/* ---- allocations in flight: between map(ALLOC) and commit ---- */

struct vd_flight {
	struct vd_flight *next;
	uint64_t off, len;
};

/* Does an allocation of units that [off, off+len) touches run?  flight_lock is not held. */
bool vd_flight_busy(struct vdisk *disk, uint64_t off, uint64_t len);
void vd_flight_begin(struct vdisk *disk, struct vd_flight *f, uint64_t off, uint64_t len);
void vd_flight_end(struct vdisk *disk, struct vd_flight *f);

/* ---- blocking execution (io.c) ---- */

int vd_io_read(struct vdisk *disk, struct vd_sg *sg, uint64_t off, uint64_t len);
int vd_io_write(struct vdisk *disk, struct vd_sg *sg, uint64_t off, uint64_t len, unsigned flags);
int vd_io_zero(struct vdisk *disk, uint64_t off, uint64_t len, unsigned flags);
int vd_io_discard(struct vdisk *disk, uint64_t off, uint64_t len);
/* Straight to a source; reads past its end give zeroes. */
int vd_source_read(struct vdisk *disk, struct vd_sg *sg, uint64_t off, uint64_t len);
int vd_source_write(struct vdisk *disk, struct vd_sg *sg, uint64_t off, uint64_t len, bool fua);
/* A write ended at @end: a source that grows is that large now. */
void vd_source_grew(struct vdisk *disk, uint64_t end);
/* A request of the public API, run to its end on this thread. */
int vd_io_run(struct vdisk_request *req);
/* Is what a caller asks for sane?  0, -EINVAL, -EROFS, -EIO ... */
int vd_io_validate(const struct vdisk_request *req);

/* Does the old content of [off, off+len) read as zeroes, as far as the maps
 * tell?  @flags: VD_MAP_NOWAIT.  The caller is inside @disk. */
bool vd_reads_zero(struct vdisk *disk, uint64_t off, uint64_t len, unsigned flags);

void vd_decoded_free(struct vdisk *disk);

/* ---- disks (disk.c) ---- */

void vd_disk_free(struct vdisk *disk);
static inline bool vd_is_source(const struct vdisk *disk)
{
	return !disk->drv->map;
}

/* ---- sources ---- */

int vd_file_open(struct vdisk **out, const char *path, const struct vdisk_open_opts *opts,
		 struct vdisk_error *err);
/* "iscsi://..."? */
bool vd_iscsi_is(const char *name);
int vd_iscsi_open(struct vdisk **out, const char *uri, const struct vdisk_open_opts *opts,
		  struct vdisk_error *err);
/* QEMU-compatible locks on an image file; the descriptor keeps them. */
int vd_lock_image(int fd, const char *path, bool write, struct vdisk_error *err);

/* ---- the worker pool (pool.c) ---- */

struct vd_job {
	struct vd_job *next;
	void (*run)(struct vd_job *job);
};
void vd_pool_submit(struct vd_job *job);
/* Set by a thread that is one of several at the same work: there vd_parallel()
 * runs on its caller alone, as spreading more would only cost switches. */
extern _Thread_local bool vd_is_worker;

#endif
