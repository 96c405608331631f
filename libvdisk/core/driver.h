/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * driver.h - what a format or a source sees of the core, and the core of them
 *
 * A driver is one of two things:
 *
 *   a source has bytes: it reads and writes them (->preadv ...), or hands the
 *   engine a file descriptor and lets it do so;
 *
 *   a format has a map: ->map() tells where the bytes of a range are, and the
 *   engine moves them.  A format never moves guest data itself.
 *
 * The engine (io.c, queue.c) walks the stack of maps, splits requests, follows
 * backing disks, fills copy-on-write edges, decodes coded runs, zero-fills.
 *
 * How an allocating write runs
 *
 *   1. map(WRITE) without VD_MAP_ALLOC: the driver answers DATA for bytes that
 *      can be written in place, else returns VD_NEED_ALLOC.
 *   2. The engine takes disk->alloc_lock, waits until no other allocation of
 *      the same units is in flight, and calls map(WRITE | ALLOC).  The driver
 *      answers with fresh space: DATA with VD_EXT_NEW and the guest range
 *      [new_off, new_off + new_len) that this space stands for; the metadata
 *      on the medium still says the old thing, and so does map(READ).
 *   3. alloc_lock is dropped.  The engine writes the caller's bytes there, and
 *      old contents (read through map) or zeroes around them.
 *   4. commit(): the metadata in memory now says the new thing - or, with a
 *      negative result, the space is given back.  commit never blocks.
 *
 * What a driver owes at flush: metadata that refers to data must reach the
 * medium after that data (and after the refcounts that protect it).
 *
 * Freed space: a request that mapped a unit before it was freed may still be
 * moving bytes there.  A driver must not hand freed space out again before
 * vd_grace_over() says that no such request is left.
 */
#ifndef VD_DRIVER_H
#define VD_DRIVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/compiler.h"
#include "vdisk.h"

/* ---- errors ---- */

/* Fill @err (may be NULL) and return -code, so a failure is one statement. */
int vd_fail(struct vdisk_error *err, int code, const char *fmt, ...) PRINTF_FMT(3, 4);
/* Put "what: " before the message that a callee left, and return -err->code. */
int vd_fail_prefix(struct vdisk_error *err, int r, const char *fmt, ...) PRINTF_FMT(3, 4);
#ifdef __clang_analyzer__	/* which cannot know that these are negative */
#define vd_fail(...)		((void)vd_fail(__VA_ARGS__), -1)
#define vd_fail_prefix(...)	((void)vd_fail_prefix(__VA_ARGS__), -1)
#endif

/* Positive, outside errno's range: map(WRITE) cannot be done in place. */
#define VD_NEED_ALLOC	4096

/* ---- map ---- */

enum vd_intent {
	VD_MAP_READ,
	VD_MAP_WRITE,
	VD_MAP_ZERO,	/* make the range read as zeroes */
	VD_MAP_DISCARD,	/* the range is no longer needed */
	VD_MAP_REPORT,	/* as READ, but never has side effects; for vdisk_map */
};

enum vd_map_flags {
	VD_MAP_NOWAIT = 1 << 0,	/* -EAGAIN rather than I/O or a long lock */
	VD_MAP_ALLOC = 1 << 1,	/* WRITE: may allocate; alloc_lock is held */
	VD_MAP_UNMAP = 1 << 2,	/* ZERO: may give space back */
	VD_MAP_CODED = 1 << 3,	/* WRITE with ALLOC: space for ext->coded_len coded
				 * bytes, standing for one whole unit */
};

enum vd_kind {
	VD_DATA = VDISK_DATA,	/* at ->off of ->below */
	VD_ZERO = VDISK_ZERO,
	VD_HOLE = VDISK_HOLE,	/* ask the backing disk, zero where there is none */
	VD_CODED = VDISK_CODED,
	VD_DONE,		/* ZERO, DISCARD: the driver did it */
	VD_COPY,		/* ZERO: the engine shall write zeroes through WRITE */
};

struct vd_extent;

/* A codec decodes one unit.  Pure; called on any thread. */
struct vd_codec {
	const char *name;
	/* Decode @src into exactly @dst_len bytes; src may have trailing garbage.
	 * 0 or -EIO. */
	int (*decode)(void *dst, size_t dst_len, const void *src, size_t src_len);
	/* Encode; the encoded length, or -ENOSPC if it does not fit into dst_len: the
	 * unit is then stored plain. */
	ssize_t (*encode)(void *dst, size_t dst_len, const void *src, size_t src_len, int level);
};

struct vd_extent {
	enum vd_kind kind;
	uint32_t flags;		/* enum vd_ext_flags */
	uint64_t len;		/* > 0: bytes from the asked offset on */
	struct vdisk *below;	/* DATA, CODED: borrowed */
	uint64_t off;		/* DATA: where in below.  CODED: of the first coded byte */

	/* CODED: the bytes [off, off + coded_len) of below (which may stop at
	 * its end) decode to the guest range [unit_off, unit_off + unit_len). */
	const struct vd_codec *codec;
	uint32_t coded_len;	/* also in: WRITE with VD_MAP_CODED */
	uint32_t unit_len;
	uint64_t unit_off;

	/* VD_EXT_NEW: a commit is owed for [new_off, new_off + new_len), which
	 * contains [asked, asked + len) and lies in one piece in below. */
	uint64_t new_off;
	uint64_t new_len;
	void *cookie;		/* the driver's, until commit */
	uint64_t cookie2;
};

enum vd_ext_flags {
	VD_EXT_NEW = 1 << 0,
	/* new space that reads as zeroes already: zero edges need no writing */
	VD_EXT_FRESH = 1 << 1,
};

/* ---- drivers ---- */

struct vd_open_ctx {
	struct vdisk *disk;	/* being opened: ->file is set, flags, name too */
	const struct vdisk_open_opts *opts;
	const char *snapshot;	/* open this internal snapshot, or NULL */
	unsigned depth;		/* of the backing chain */
};

struct vd_info_sink;

/*
 * One transfer of a source that is asynchronous by itself (->start): the
 * engine's memory, the driver's from ->start() until it calls ->done().
 */
#define VD_AIO_IOVS	256u

struct vd_aio {
	struct vd_aio *next;
	uint8_t op;		/* VDISK_OP_READ, VDISK_OP_WRITE, VDISK_OP_FLUSH */
	bool fua;		/* WRITE: durable before it is done */
	unsigned iovcnt;	/* at most VD_AIO_IOVS */
	const struct iovec *iov;
	uint64_t off, len;	/* multiples of the disk's block size */
	/* 0 or -errno.  Once; on any thread, and it does not block. */
	void (*done)(struct vd_aio *aio, int result);
};

struct vd_driver {
	const char *name;
	/* "key\tvalues\tmeaning" for each create/amend option, NULL at the end; may be NULL */
	const char *const *options;

	/* ---- formats: identity ---- */

	/*
	 * How sure are we that the first @len bytes of a disk of @size bytes are
	 * ours?  0 no, 100 certainly.  NULL: never probed.
	 */
	int (*probe)(const uint8_t *head, size_t len, uint64_t size);
	/*
	 * Read the metadata: set disk->size, ->priv, ->unit; open the backing
	 * and data files (vd_open_ref()).  May block.  On failure everything it
	 * made is undone.
	 */
	int (*open)(struct vd_open_ctx *ctx, struct vdisk_error *err);
	/* Write an empty image of @length bytes onto @file, which is empty. */
	int (*create)(struct vdisk *file, uint64_t length, const struct vdisk_create_opts *opts,
		      struct vdisk_error *err);
	/* No request is in flight.  Write out what is dirty; free ->priv. */
	int (*close)(struct vdisk *disk, struct vdisk_error *err);

	/* ---- formats: the map; any thread, several at once ---- */

	/*
	 * Describe [off, off + len), len > 0 and in range, from its first byte;
	 * may answer for less, never for nothing.  With NOWAIT returns -EAGAIN
	 * instead of blocking.  ZERO, DISCARD and ALLOC hold disk->alloc_lock,
	 * and no allocation of the units they touch is in flight.  For a
	 * DISCARD of less than a unit, answer DONE.
	 */
	int (*map)(struct vdisk *disk, uint64_t off, uint64_t len, enum vd_intent intent,
		   unsigned flags, struct vd_extent *ext);
	/*
	 * End what a VD_EXT_NEW answer began.  @result < 0: the data did not
	 * arrive, undo.  Any thread, must not block on I/O.  NULL if the driver
	 * never answers NEW.
	 */
	void (*commit)(struct vdisk *disk, struct vd_extent *ext, int result);
	/*
	 * Write dirty metadata in a safe order, so that a flush of the disks
	 * below (->data, ->others, ->file) makes all of it durable; the engine does
	 * that flush afterwards.
	 * With @nowait: -EAGAIN if there is anything to write.  NULL: nothing
	 * is ever dirty.
	 */
	int (*flush)(struct vdisk *disk, bool nowait);
	/* How VDISK_REQ_COMPRESS writes are to be encoded.  NULL: they cannot be. */
	const struct vd_codec *(*codec)(struct vdisk *disk, int *level);

	/* ---- sources; only blocking calls, any thread ---- */

	/* All of it, or -errno; past the end is -EINVAL.  iov sums up to len. */
	int (*preadv)(struct vdisk *disk, const struct iovec *iov, int iovcnt, uint64_t len,
		      uint64_t off);
	/* Grows the disk where ->grows says so.  @fua: durable on return. */
	int (*pwritev)(struct vdisk *disk, const struct iovec *iov, int iovcnt, uint64_t len,
		       uint64_t off, bool fua);
	int (*sync)(struct vdisk *disk);
	/*
	 * Begin a list of transfers; never blocks, may call ->done at once.  Beside
	 * ->preadv and the others, which take what is not aligned.  NULL: a worker
	 * waits in those for each transfer.
	 */
	void (*start)(struct vdisk *disk, struct vd_aio *list);
	/* -EOPNOTSUPP: the engine writes zeroes. */
	int (*zero)(struct vdisk *disk, uint64_t off, uint64_t len, bool unmap);
	int (*discard)(struct vdisk *disk, uint64_t off, uint64_t len);
	/* Allocation: kind DATA or HOLE, and ->len.  NULL: all DATA. */
	int (*report)(struct vdisk *disk, uint64_t off, uint64_t len, struct vd_extent *ext);

	/* ---- control; no request is in flight, the disk is drained ---- */

	int (*resize)(struct vdisk *disk, uint64_t length, struct vdisk_error *err);
	/* The size, if what is below may be made larger by others; may be NULL, then
	 * it may not.  Only asks, also while requests are in flight: ->size, of what is
	 * below too, is the engine's. */
	int (*refresh)(struct vdisk *disk, uint64_t *size);
	/* Hold nothing any more: the backing disk shows everywhere.  NULL: it
	 * cannot have one. */
	int (*empty)(struct vdisk *disk, struct vdisk_error *err);
	int (*check)(struct vdisk *disk, unsigned flags, struct vdisk_check_result *out,
		     void (*report)(void *arg, const char *finding), void *arg,
		     struct vdisk_error *err);
	int (*snapshot_list)(struct vdisk *disk, struct vdisk_snapshot **out,
			     struct vdisk_error *err);
	int (*snapshot_create)(struct vdisk *disk, const char *name, struct vdisk_error *err);
	int (*snapshot_apply)(struct vdisk *disk, const char *name, struct vdisk_error *err);
	int (*snapshot_delete)(struct vdisk *disk, const char *name, struct vdisk_error *err);
	int (*set_backing)(struct vdisk *disk, const char *name, const char *format,
			   struct vdisk_error *err);
	int (*amend)(struct vdisk *disk, const struct vdisk_option *options, unsigned n,
		     struct vdisk_error *err);
	void (*info)(struct vdisk *disk, struct vd_info_sink *sink);
	/* @data and @zero bytes, in whole units of the disk, of @length. */
	int (*measure)(uint64_t length, uint64_t data, const struct vdisk_option *options,
		       unsigned n, uint64_t *required, uint64_t *full, struct vdisk_error *err);
};

void vd_info_string(struct vd_info_sink *s, const char *key, const char *fmt, ...) PRINTF_FMT(3, 4);
void vd_info_uint(struct vd_info_sink *s, const char *key, uint64_t v);
void vd_info_bool(struct vd_info_sink *s, const char *key, bool v);

/* ---- a disk, as drivers see it ---- */

/*
 * Lock order: ctl_lock, alloc_lock of the upper disk, alloc_lock of the lower
 * disk, the driver's own locks, flight_lock.
 */
struct vdisk {
	const struct vd_driver *drv;
	void *priv;		/* the driver's */

	struct vdisk *file;	/* owned: the disk that holds the format's metadata */
	struct vdisk *data;	/* owned: an external data file, or NULL */
	struct vdisk *backing;	/* owned: fills the holes, or NULL */
	struct vdisk **with;	/* owned: see vdisk_open_opts */
	unsigned n_with;
	struct vdisk **others;	/* owned, and so are those in it: more that the map answers with */
	unsigned n_others;

	_Atomic uint64_t size;
	uint32_t block_size;	/* logical block: 512 or 4096 */
	uint64_t unit;		/* allocation unit, 0 if none */
	bool coded_only;	/* takes only whole coded units, also where that saves nothing */
	unsigned flags;		/* enum vdisk_open_flags */
	enum vdisk_refs refs;
	char *name;		/* owned: for messages, and to find relative names */
	char *backing_name;	/* owned: as in the image, or NULL */
	char *backing_format;	/* owned: as in the image, or NULL */

	/* sources on a file descriptor: the engine does the I/O itself */
	int fd;			/* owned; -1 */
	bool never_blocks;	/* tmpfs and the like: plain preadv is best */
	bool grows;		/* a write past the end extends it, with zeroes between */
	bool fresh_zero;	/* space past the old end reads as zeroes */
	_Atomic uint8_t mincore; /* what of it is in memory can be asked for; see queue.c */
	uint32_t io_align;	/* O_DIRECT: alignment of memory, offset, length; 0 none */
	bool no_fua;		/* ->start: takes no durable writes */
	bool no_discard;	/* ->discard is there, but this one cannot */
	bool discard_keeps;	/* what is discarded need not read as zeroes */

	/* Set when metadata may be half written: writes get -EIO from then on. */
	_Atomic bool failed;

	/* ---- the engine's; drivers keep out ---- */
	_Atomic unsigned users;		/* references */
	pthread_mutex_t ctl_lock;	/* one control operation at a time */
	pthread_mutex_t alloc_lock;	/* see ->map; may be held across metadata I/O */
	pthread_mutex_t flight_lock;	/* guards flights; short */
	pthread_cond_t flight_cond;	/* a flight ended, a drain ended, a request left */
	struct vd_flight *flights;	/* allocations between map and commit */
	_Atomic unsigned n_flights;
	_Atomic unsigned epoch;		/* generation of requests, for vd_grace_over */
	_Atomic unsigned active[2];	/* requests inside, by generation & 1 */
	_Atomic unsigned draining;
	struct vd_decoded *decoded;	/* owned: recently decoded units, or NULL */
};

/* Have @disk keep @other, whose reference it takes over, also on failure.  -ENOMEM. */
int vd_keep_other(struct vdisk *disk, struct vdisk *other);

/* A new disk of @size bytes with one reference, to be opened by @drv; NULL: no memory. */
struct vdisk *vd_disk_new(const struct vd_driver *drv, const char *name, uint64_t size);

/* ---- a disk and others of the same machine ---- */

/* Give @d the other disks, as vdisk_open_opts has them. */
int vd_take_with(struct vdisk *d, struct vdisk *const *with, unsigned n, struct vdisk_error *err);
/* vdisk_lvm_scan() of @disk, which is number 0 then, and the others. */
int vd_lvm_scan(struct vdisk_lvm **out, struct vdisk *disk, struct vdisk_error *err);
/* Has the group a physical volume on that one of the disks? */
bool vd_vg_is_on(const struct vdisk_vg *vg, unsigned disk);

/* ---- what the core does for drivers ---- */

/*
 * Whole-range blocking I/O on another disk, for metadata.  vd_pread past the
 * end gives zeroes (the last cluster of a file may be short) where @pad says so.
 */
int vd_pread(struct vdisk *disk, void *buf, size_t len, uint64_t off) MUST_CHECK;
int vd_pread_pad(struct vdisk *disk, void *buf, size_t len, uint64_t off) MUST_CHECK;
/* A source whose ->grows is set is extended. */
int vd_pwrite(struct vdisk *disk, const void *buf, size_t len, uint64_t off) MUST_CHECK;
int vd_pwritev(struct vdisk *disk, const struct iovec *iov, int iovcnt, uint64_t len,
	       uint64_t off) MUST_CHECK;
/* Flush a disk and what is below it (a barrier between metadata writes). */
int vd_flush(struct vdisk *disk) MUST_CHECK;
/*
 * Is there metadata in memory only, so that this process's end (not only the
 * host's) would lose what was written since the last flush?  Never blocks.
 */
bool vd_unsaved(struct vdisk *disk);
/*
 * Let a second thread, the kernel's, copy half of what large reads find in the page
 * cache, if there is a second processor.  The owner's thread.
 */
void vd_queue_share_copies(struct vdisk_queue *queue);
/* How often this queue has called io_uring_enter(2).  The owner's thread. */
uint64_t vd_queue_enters(const struct vdisk_queue *queue);
/* Punch a hole where possible; errors do not matter to the caller's promise. */
void vd_discard_hint(struct vdisk *disk, uint64_t off, uint64_t len);
int vd_zero_range(struct vdisk *disk, uint64_t off, uint64_t len) MUST_CHECK;
/* Zeroes that take up space. */
int vd_write_zeroes(struct vdisk *disk, uint64_t off, uint64_t len) MUST_CHECK;
/* Set the length of the source (files; -EOPNOTSUPP for devices that are too small). */
int vd_truncate(struct vdisk *disk, uint64_t size) MUST_CHECK;

/*
 * Open a file that an image refers to, under the policy of @disk->refs:
 * relative names from the directory of the referring file, no protocols, no
 * cycles, at most VD_MAX_DEPTH deep.  @format NULL: probe (only where nobody
 * stated one).  @writable: for data files.
 */
#define VD_MAX_DEPTH 64
int vd_open_ref(struct vd_open_ctx *ctx, struct vdisk **out, const char *name,
		const char *format, bool writable, struct vdisk_error *err);

/* ->start() of @aio, and wait for its result. */
int vd_aio_wait(struct vdisk *disk, struct vd_aio *aio);

/* The generation now: what is freed from here on is safe once vd_grace_over(). */
unsigned vd_grace_now(struct vdisk *disk);
/* Have all requests ended that could have mapped before @when? Never blocks. */
bool vd_grace_over(struct vdisk *disk, unsigned when);

/* Find an option's value in a list, NULL if it is not there (the last one counts). */
const char *vd_option(const struct vdisk_option *o, unsigned n, const char *key);
/* Booleans on/off/true/false/yes/no; sizes: vdisk_parse_size().  -EINVAL. */
int vd_parse_bool(const char *text, bool *out);
/* -EINVAL and a sentence if an option is not in @drv's table. */
int vd_check_options(const struct vd_driver *drv, const struct vdisk_option *o, unsigned n,
		     struct vdisk_error *err);

/*
 * VDISK_REQ_COMPRESS in two steps, for callers that encode on several threads
 * and store in order.  @plain is one unit, zero-padded at the end of the disk.
 * Returns the length in @coded, which has vd_coded_room(), or -ENOSPC: store plain.
 * @best: as small as it gets, else fast.
 */
static inline size_t vd_coded_room(const struct vdisk *disk)
{
	return (size_t)(disk->coded_only ? disk->unit + disk->unit / 1024 + 64 : disk->unit);
}
ssize_t vd_encode_unit(struct vdisk *disk, const void *plain, void *coded, bool best);
int vd_write_coded(struct vdisk *disk, uint64_t unit_off, const void *coded, uint32_t coded_len);

/* ---- the worker pool ---- */

/*
 * Run fn(arg, i) for i in [0, n) on the workers and the caller, which returns
 * when all are done.  At most one fn a processor at a time.
 */
void vd_parallel(void (*fn)(void *arg, unsigned i), void *arg, unsigned n);
unsigned vd_cpus(void);

extern const struct vd_driver vd_raw;
extern const struct vd_driver vd_qcow2;
extern const struct vd_driver vd_vmdk;
/* All image formats, NULL at the end (formats/list.c). */
extern const struct vd_driver *const vd_formats[];

#endif
