/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk.h - libvdisk: any guest disk, opened, mapped and moved
 *
 * A disk (struct vdisk) is anything with a size that can be read at an offset:
 * an image file in any format, a block device, a partition, a snapshot.  Disks
 * stack.  A person names one by a locator,
 *
 *	SOURCE[@SNAPSHOT][#PART]        and a file in it   ...:/path
 *
 * Conventions
 *   - Offsets, lengths and sizes are bytes, in uint64_t.
 *   - Functions return 0 (or a documented positive number) or -errno.
 *   - A struct vdisk_error is the caller's, may be NULL, and is written only on
 *     failure: the code and one sentence for a person.
 *   - An "out" pointer comes first and is untouched on failure.
 *   - Options structs start with their own size; zero means the default for
 *     every other member, and a NULL options pointer means all defaults.
 *   - A disk may be used from any number of threads.  A queue belongs to one.
 *   - Freeing or closing NULL does nothing.
 */
#ifndef VDISK_H
#define VDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VDISK_API __attribute__((visibility("default")))

/* ---- errors ---- */

struct vdisk_error {
	int code;		/* errno value, 0 if none */
	char msg[508];		/* one sentence, no newline */
};

/* ---- disks ---- */

struct vdisk;

enum vdisk_open_flags {
	VDISK_OPEN_WRITE = 1 << 0,
	/* take no locks and respect none; only without WRITE (--force-share) */
	VDISK_OPEN_SHARE = 1 << 1,
	/* bypass the host's page cache (O_DIRECT) */
	VDISK_OPEN_DIRECT = 1 << 2,
	/* leave the backing disk closed: its holes read as zeroes */
	VDISK_OPEN_NO_BACKING = 1 << 3,
	/* open an image even if it is marked or found inconsistent, for check */
	VDISK_OPEN_CHECK = 1 << 4,
	/* flushes do nothing: for throw-away disks */
	VDISK_OPEN_UNSAFE = 1 << 5,
};

/*
 * Which other files an image may name (backing files, data files).  Names that
 * look like a protocol ("json:", "nbd:", "http://") are always refused.
 */
enum vdisk_refs {
	VDISK_REFS_DEFAULT,	/* below the image's directory, or absolute paths
				 * of regular files and block devices */
	VDISK_REFS_NONE,
	VDISK_REFS_DIR,		/* below the image's directory only */
	VDISK_REFS_ANY,		/* any path, ".." too */
};

/* A file that is open already, under the name by which it would be opened. */
struct vdisk_open_file {
	const char *path;
	int fd;
};

struct vdisk_open_opts {
	size_t size;		/* sizeof(struct vdisk_open_opts) */
	uint32_t flags;		/* enum vdisk_open_flags */
	enum vdisk_refs refs;
	const char *format;	/* NULL: probe */
	uint32_t block_size;	/* logical block, 512 or 4096; 0: what the source says */
	/*
	 * For a process that may not open files: if there are any, no path is
	 * opened or looked at; a name that is not among them fails with -EACCES.
	 * The descriptors stay the caller's (duplicates are used), were opened with
	 * the same flags, and carry their locks with them.
	 */
	const struct vdisk_open_file *files;
	unsigned n_files;
	/*
	 * The locator of the disk that fills this one's holes, and its format (NULL:
	 * probe), whatever the image says of that: for layers whose base has no name
	 * that an image could have.  -ENOTSUP where the format knows no backing files.
	 */
	const char *backing, *backing_format;
	/*
	 * Other disks of the same machine, for volume groups that lie on several: logical volumes
	 * of this one are looked for on all of them.  References are taken.
	 */
	struct vdisk *const *with;
	unsigned n_with;
};

/*
 * Open the disk that @locator names.  The locator may have @SNAPSHOT (opened
 * read-only) and #PART, but no :/path (see vdisk_locator_parse()).
 * Errors: -ENOENT, -EACCES; -EBUSY when another program has it open (the
 * message says who, where it can be known); -EINVAL for a damaged image;
 * -ENOTSUP for a feature that is not supported, by name.
 */
VDISK_API int vdisk_open(struct vdisk **out, const char *locator,
			 const struct vdisk_open_opts *opts, struct vdisk_error *err);

/*
 * Open a format on a disk that is already open.  Takes its own reference to
 * @below.  @opts->format must be set, there is no probing.
 */
VDISK_API int vdisk_open_on(struct vdisk **out, struct vdisk *below,
			    const struct vdisk_open_opts *opts, struct vdisk_error *err);

/*
 * The files that a disk is made of, its backing chain included, as
 * vdisk_open_opts.files wants them; both members are the disk's.  Returns how
 * many there are; at most @max are filled in.
 */
VDISK_API unsigned vdisk_list_files(const struct vdisk *disk, struct vdisk_open_file *out,
				    unsigned max);

/* A disk that is bytes [offset, offset + length) of @below (own reference). */
VDISK_API int vdisk_open_window(struct vdisk **out, struct vdisk *below,
				uint64_t offset, uint64_t length, struct vdisk_error *err);

/*
 * A disk of @length bytes of memory, all zero, not shared with anyone.
 */
VDISK_API int vdisk_open_memory(struct vdisk **out, uint64_t length, struct vdisk_error *err);

/* A disk on an open file descriptor of a file or block device.  Takes the
 * descriptor on success only. */
VDISK_API int vdisk_open_fd(struct vdisk **out, int fd, const char *name,
			    const struct vdisk_open_opts *opts, struct vdisk_error *err);

/*
 * A writable, throw-away layer over @base (own reference): reads see @base until
 * they are overwritten; @base is never written.  The layer lives in an unlinked
 * file in @dir (NULL: $TMPDIR or /var/tmp).
 */
VDISK_API int vdisk_open_overlay(struct vdisk **out, struct vdisk *base,
				 const char *dir, struct vdisk_error *err);
/*
 * The two steps of it, for a process that may not open files: the file's
 * descriptor (which has no name, but may be given one), and the layer in it.  The second takes the descriptor on success only.
 */
VDISK_API int vdisk_scratch_file(int *out, const char *dir, struct vdisk_error *err);
VDISK_API int vdisk_open_overlay_on(struct vdisk **out, struct vdisk *base, int fd,
				    struct vdisk_error *err);

VDISK_API struct vdisk *vdisk_ref(struct vdisk *disk);

/*
 * Drop a reference.  The last one writes out what is dirty, and closes; its
 * result tells whether that succeeded (the disk is gone either way).
 */
VDISK_API int vdisk_close(struct vdisk *disk, struct vdisk_error *err);

VDISK_API uint64_t vdisk_size(const struct vdisk *disk);
VDISK_API bool vdisk_writable(const struct vdisk *disk);
/* The locator or description under which it was opened; lives as long as it. */
VDISK_API const char *vdisk_name(const struct vdisk *disk);
/* "file", "raw", "qcow2", "vmdk", "window", ... */
VDISK_API const char *vdisk_format(const struct vdisk *disk);
/* The disk whose bytes fill the holes; NULL if none (borrowed). */
VDISK_API struct vdisk *vdisk_backing(const struct vdisk *disk);
/* The disk that a format or window maps to; NULL for a source (borrowed). */
VDISK_API struct vdisk *vdisk_below(const struct vdisk *disk);
/*
 * The file descriptor of a source, -1 for anything else.  For fstat() and the
 * like; borrowed.
 */
VDISK_API int vdisk_fd(const struct vdisk *disk);

struct vdisk_limits {
	uint32_t block_size;	/* logical block: 512 or 4096 */
	uint32_t physical_size;	/* best alignment of writes, >= block_size */
	uint64_t unit;		/* allocation unit (cluster), 0 if none */
	bool can_discard;	/* discard frees space somewhere */
	bool zero_discard;	/* a discarded whole unit reads as zeroes */
};
VDISK_API void vdisk_get_limits(const struct vdisk *disk, struct vdisk_limits *out);

/* ---- data, synchronous ---- */

/* All or nothing reported: 0 or -errno.  A range past the end is -EINVAL. */
VDISK_API int vdisk_read(struct vdisk *disk, void *buf, size_t len, uint64_t off);
VDISK_API int vdisk_write(struct vdisk *disk, const void *buf, size_t len, uint64_t off);

enum vdisk_req_flags {
	VDISK_REQ_FUA = 1 << 0,		/* durable before it completes */
	VDISK_REQ_UNMAP = 1 << 1,	/* ZERO: may give the space back */
	VDISK_REQ_COMPRESS = 1 << 2,	/* WRITE: store compressed; whole units only */
};

/* Make [off, off+len) read as zeroes.  @flags: VDISK_REQ_UNMAP, VDISK_REQ_FUA. */
VDISK_API int vdisk_zero(struct vdisk *disk, uint64_t off, uint64_t len, unsigned flags);
/* Advise that the bytes are no longer needed.  Whole units are given back and
 * read as zeroes afterwards where vdisk_limits.zero_discard says so. */
VDISK_API int vdisk_discard(struct vdisk *disk, uint64_t off, uint64_t len);
/* After success, everything that completed before survives a crash. */
VDISK_API int vdisk_flush(struct vdisk *disk);

/* ---- where the bytes are ---- */

enum vdisk_extent_kind {
	VDISK_DATA,	/* stored as it is */
	VDISK_ZERO,	/* known to be zero, and allocated or marked so */
	VDISK_HOLE,	/* nothing stored in any layer: reads as zeroes */
	VDISK_CODED,	/* stored compressed */
};

struct vdisk_extent {
	uint64_t offset;	/* as asked */
	uint64_t length;	/* > 0: how far the answer holds */
	enum vdisk_extent_kind kind;
	unsigned depth;		/* 0: in this disk's own layer, 1: in its backing, ... */
	/*
	 * DATA: the source that holds the bytes, and where (borrowed); NULL if
	 * they are not in one plain run.  CODED: where the coded bytes start.
	 */
	struct vdisk *source;
	uint64_t source_offset;
};

/*
 * Describe the disk from @off, for at most @len bytes: one answer, followed
 * down to the source through every layer.
 */
VDISK_API int vdisk_map(struct vdisk *disk, uint64_t off, uint64_t len,
			struct vdisk_extent *out);
/* The same, of this disk's own layer only: HOLE means "ask the backing". */
VDISK_API int vdisk_map_own(struct vdisk *disk, uint64_t off, uint64_t len,
			    struct vdisk_extent *out);

/*
 * Where the bytes at @off of @disk are on @base, which is a disk somewhere below
 * it: one run, at most @len bytes.  What device mapper calls a linear target.
 * -ENOTSUP: they are not stored there as they are.
 */
VDISK_API int vdisk_map_onto(struct vdisk *disk, const struct vdisk *base, uint64_t off,
			     uint64_t len, uint64_t *base_off, uint64_t *run);

/* ---- queues ---- */

enum vdisk_op {
	VDISK_OP_READ,
	VDISK_OP_WRITE,
	VDISK_OP_FLUSH,
	VDISK_OP_ZERO,
	VDISK_OP_DISCARD,
	VDISK_OP_CALL,		/* run ->call on a thread that may block */
};

/*
 * One request.  The caller's memory, with its buffers, from submission until
 * it comes back from vdisk_queue_reap(); each comes back exactly once.
 */
struct vdisk_request {
	struct vdisk *disk;	/* borrowed */
	uint8_t op;		/* enum vdisk_op */
	uint8_t flags;		/* enum vdisk_req_flags */
	uint32_t iovcnt;
	const struct iovec *iov; /* READ, WRITE: sums up to length */
	uint64_t offset;
	uint64_t length;
	void *user;		/* the caller's */
	int result;		/* out: 0 or -errno */
	/* CALL: whatever blocks and belongs to nobody's hot path; its return is the
	 * result, and nothing else of the request is looked at */
	int (*call)(struct vdisk_request *req);
	struct vdisk_request *next; /* the queue's while it has the request */
	uint64_t reserved[56];	/* the queue's */
};

struct vdisk_queue;

enum vdisk_queue_backend {
	VDISK_QUEUE_AUTO,	/* io_uring, else threads; $VDISK_QUEUE decides */
	VDISK_QUEUE_URING,
	VDISK_QUEUE_THREADS,
};

struct vdisk_queue_opts {
	size_t size;		/* sizeof(struct vdisk_queue_opts) */
	uint32_t depth;		/* expected requests in flight, 0: 128; not a limit */
	enum vdisk_queue_backend backend;
};

/*
 * A thread's own submission and completion queue.  Only the thread that uses
 * it may call these; several disks may share a queue.
 */
VDISK_API int vdisk_queue_new(struct vdisk_queue **out, const struct vdisk_queue_opts *opts,
			      struct vdisk_error *err);
/* Waits for what is in flight, dropping the results. */
VDISK_API void vdisk_queue_free(struct vdisk_queue *queue);

/*
 * Start requests.  Never fails and never blocks on I/O: what is wrong with a
 * request comes back as its result.  What the page cache holds is served at
 * once; the rest is started when the batch ends (one system call).
 */
VDISK_API void vdisk_queue_submit(struct vdisk_queue *queue,
				  struct vdisk_request *const *reqs, unsigned n);

/*
 * Fetch finished requests, at most @max.  Waits up to @timeout_ms (-1: for
 * ever, 0: not at all) until there is at least one.  Returns how many; 0 when
 * the time is up or nothing is in flight; -EINTR.
 */
VDISK_API int vdisk_queue_reap(struct vdisk_queue *queue, struct vdisk_request **done,
			       unsigned max, int timeout_ms);

/*
 * A descriptor that is readable when vdisk_queue_reap() may have something;
 * borrowed.  What is served at once needs no wake-up: after submitting, reap
 * until it returns 0 before polling.
 */
VDISK_API int vdisk_queue_fd(struct vdisk_queue *queue);
/* Bytes that can be sent from the file that they are in. */
struct vdisk_sendable {
	int fd;			/* borrowed */
	uint64_t offset;	/* in it */
	bool lasting;		/* always in memory; else they are now */
};

/*
 * Can sendfile(2) take [offset, offset + length) from where it is, instead of its
 * being read into a buffer?  Yes (0) if it is one run of one file, if sending it
 * now waits for nothing, and if nothing but writes to these very bytes changes what
 * is at that place: what is sent is what they are when they are sent, or a little
 * later, when a network card fetches them.  Else -EAGAIN: read them.  Never blocks;
 * any thread.
 */
VDISK_API int vdisk_sendable(struct vdisk *disk, uint64_t offset, uint64_t length,
			     struct vdisk_sendable *out);

/*
 * Write now, on this thread, if that is no more than a copy into the page cache: the
 * whole range is one run of one file that has its space already.  Else -EAGAIN, and
 * some of it may be written, or -errno.  For parts of a write that goes on: as data
 * arrive, they are written while the processor's cache has them.  Any thread.
 */
VDISK_API int vdisk_write_now(struct vdisk *disk, const void *buf, uint64_t length,
			      uint64_t offset);

/* "io_uring" or "threads" */
VDISK_API const char *vdisk_queue_name(const struct vdisk_queue *queue);

/* ---- locators ---- */

struct vdisk_locator {
	char *source;	/* path or URI; owned */
	char *snapshot;	/* owned or NULL */
	char *part;	/* "p1", "label=root", "uuid=...", "vg/lv"; owned or NULL */
	char *path;	/* "/etc/fstab"; owned or NULL */
};

/*
 * Split a locator.  A file that exists under the whole name wins over any
 * splitting; "file:" with percent-escapes names any file.
 */
VDISK_API int vdisk_locator_parse(struct vdisk_locator *out, const char *text,
				  struct vdisk_error *err);
VDISK_API void vdisk_locator_clear(struct vdisk_locator *loc);
/* The pieces without the path put together again, escaped; the caller frees. */
VDISK_API char *vdisk_locator_format(const struct vdisk_locator *loc);

/* Does it name a disk of another host (iscsi://...), which is reached over a network?  NULL: no. */
VDISK_API bool vdisk_is_remote(const char *locator);

/*
 * Take secrets out of a text that may have locators in it (iscsi://user%secret@host/...),
 * before it is shown.  Messages of the library's and names of disks have none.
 */
VDISK_API void vdisk_redact(char *text);

/* A number of bytes as people write it: K, M, G, T, P, E are binary.  -EINVAL. */
VDISK_API int vdisk_parse_size(const char *text, uint64_t *out);

/* ---- images ---- */

struct vdisk_option {		/* one K=V of "-o" */
	const char *key;
	const char *value;
};

struct vdisk_create_opts {
	size_t size;		/* sizeof(struct vdisk_create_opts) */
	const char *format;	/* NULL: raw */
	const char *backing;	/* as it shall stand in the image; NULL: none */
	const char *backing_format; /* required with a backing file */
	const struct vdisk_option *options;
	unsigned n_options;
	bool overwrite;		/* replace what exists */
	enum vdisk_refs refs;
};

/* Make an image file of @length bytes (UINT64_MAX: as large as its backing). */
VDISK_API int vdisk_create(const char *path, uint64_t length,
			   const struct vdisk_create_opts *opts, struct vdisk_error *err);

/* Change the size.  Growing reads as zeroes; shrinking drops what is beyond. */
VDISK_API int vdisk_resize(struct vdisk *disk, uint64_t length, struct vdisk_error *err);

/*
 * Take over that the file or device of a raw disk was made larger by somebody else.
 * 1: it was, and vdisk_size() says so; 0: nothing changed, or this is not a disk that
 * others may change (being smaller is nothing that could be taken over).  If it was, waits
 * for requests in flight, as vdisk_resize() does; else it costs a system call, and may be
 * asked every now and then.  -errno if its size cannot be had.
 */
VDISK_API int vdisk_refresh(struct vdisk *disk);

struct vdisk_check_result {
	uint64_t corruptions;
	uint64_t leaks;		/* clusters */
	uint64_t corruptions_fixed;
	uint64_t leaks_fixed;
	uint64_t errors;	/* could not be checked */
	uint64_t total_clusters, allocated_clusters, compressed_clusters;
	uint64_t fragmented_clusters;
	uint64_t image_end;	/* first byte after the last one in use */
};
enum vdisk_check_flags {
	VDISK_CHECK_REPAIR_LEAKS = 1 << 0,
	VDISK_CHECK_REPAIR = 1 << 1,	/* everything, leaks too */
};
/* @report (may be NULL) gets a sentence for each finding. */
VDISK_API int vdisk_check(struct vdisk *disk, unsigned flags,
			  struct vdisk_check_result *out,
			  void (*report)(void *arg, const char *finding), void *arg,
			  struct vdisk_error *err);

struct vdisk_snapshot {
	char id[64];
	char name[256];
	uint64_t disk_size;
	uint64_t vm_state_size;
	uint64_t vm_clock_ns;
	int64_t date_sec;
	uint32_t date_nsec;
};
/* @out: an array to free(); its length is returned. */
VDISK_API int vdisk_snapshot_list(struct vdisk *disk, struct vdisk_snapshot **out,
				  struct vdisk_error *err);
VDISK_API int vdisk_snapshot_create(struct vdisk *disk, const char *name, struct vdisk_error *err);
/* @name is a name or an id; a name wins.  The disk goes back to that state. */
VDISK_API int vdisk_snapshot_apply(struct vdisk *disk, const char *name, struct vdisk_error *err);
VDISK_API int vdisk_snapshot_delete(struct vdisk *disk, const char *name, struct vdisk_error *err);

/* Change the name of the backing file in the image; moves no data.  NULL: none. */
VDISK_API int vdisk_set_backing(struct vdisk *disk, const char *backing,
				const char *backing_format, struct vdisk_error *err);

/* Change "-o" options of an existing image. */
VDISK_API int vdisk_amend(struct vdisk *disk, const struct vdisk_option *options,
			  unsigned n, struct vdisk_error *err);

/* What is known about an image, piece by piece, for people and for JSON. */
enum vdisk_info_type { VDISK_INFO_STRING, VDISK_INFO_UINT, VDISK_INFO_BOOL };
struct vdisk_info_item {
	const char *key;	/* stable, lower-case-with-dashes */
	enum vdisk_info_type type;
	const char *string;
	uint64_t uint;		/* also for BOOL */
};
/* Format-specific facts of this layer; stops when @each returns non-zero. */
VDISK_API int vdisk_info(struct vdisk *disk,
			 int (*each)(void *arg, const struct vdisk_info_item *item), void *arg);
/* The backing file as it stands in the image, and its format ("" if none stated). */
VDISK_API const char *vdisk_backing_name(const struct vdisk *disk);
VDISK_API const char *vdisk_backing_format(const struct vdisk *disk);

/*
 * The name of the format that a file would be taken for whose first bytes are @head (512 of
 * them suffice), where nobody states one; NULL: it would be raw.
 */
VDISK_API const char *vdisk_format_of(const void *head, size_t len);

/* The n-th known image format's name, NULL after the last. */
VDISK_API const char *vdisk_format_name(unsigned n);
/* "key\tvalues\tmeaning" for the n-th "-o" option of a format, or NULL. */
VDISK_API const char *vdisk_format_option(const char *format, unsigned n);

/*
 * How large a file would be that holds @length bytes of @disk (NULL: an empty
 * one) in format @format: @required for
 * what is there, @full when everything gets written.
 */
VDISK_API int vdisk_measure(struct vdisk *disk, uint64_t length, const char *format,
			    const struct vdisk_option *options, unsigned n,
			    uint64_t *required, uint64_t *full, struct vdisk_error *err);

/* ---- whole disks ---- */

enum vdisk_copy_flags {
	/* the target reads as zeroes before the copy: zeroes are left out */
	VDISK_COPY_TARGET_ZERO = 1 << 0,
	/* write zeroes too, so that all of the target is allocated */
	VDISK_COPY_FULL = 1 << 1,
	/* store compressed; the target's format must be able to */
	VDISK_COPY_COMPRESS = 1 << 2,
	/* only what the source's own layer has, not what its backing disk fills in */
	VDISK_COPY_OWN_LAYER = 1 << 3,
	/* with COMPRESS: as small as possible, not as fast */
	VDISK_COPY_BEST = 1 << 4,
};

struct vdisk_copy_opts {
	size_t size;		/* sizeof(struct vdisk_copy_opts) */
	uint32_t flags;		/* enum vdisk_copy_flags; of vdisk_copy() */
	unsigned workers;	/* threads, at most 64; 0: what suits the machine, under
				 * 64 MiB of memory */
	uint64_t sparse;	/* zeroes in a row that are worth leaving out; 0: 4 KiB,
				 * or the target's unit where that is more */
	/* Called by one thread at a time.  Non-zero stops: -ECANCELED. */
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *progress_arg;
};

/* Copy all of @src to the start of @dst, which must be at least as large. */
VDISK_API int vdisk_copy(struct vdisk *dst, struct vdisk *src,
			 const struct vdisk_copy_opts *opts, struct vdisk_error *err);

/*
 * Make @len bytes from @dst_off of @dst read as those from @src_off of @src do now.
 * The disks may be the same and the ranges overlap.  What reads as zeroes becomes
 * zeroes that may take no space, and blocks are shared where the file system can;
 * the rest is read and written.  Blocks; writes by others at the same time end up
 * before or after, byte by byte.
 */
VDISK_API int vdisk_copy_range(struct vdisk *dst, uint64_t dst_off, struct vdisk *src,
			       uint64_t src_off, uint64_t len);

/*
 * Do two disks read the same?  The shorter one goes on with zeroes.  Returns 0
 * if so, 1 if not, and then @offset is the first byte that differs.
 */
VDISK_API int vdisk_compare(struct vdisk *a, struct vdisk *b,
			    const struct vdisk_copy_opts *opts, uint64_t *offset,
			    struct vdisk_error *err);

/*
 * Open the file that @name would mean if it stood in @disk's image as its
 * backing file, under the same policy; NULL: the one that stands there.
 * @flags: enum vdisk_open_flags.
 */
VDISK_API int vdisk_open_backing(struct vdisk **out, struct vdisk *disk, const char *name,
				 const char *format, uint32_t flags, struct vdisk_error *err);

/*
 * Write what @disk's own layer has into @base, its backing disk opened for
 * writing, which grows to @disk's size where it is smaller.  @disk is not
 * changed (open it with VDISK_OPEN_NO_BACKING) and reads as before.
 */
VDISK_API int vdisk_commit(struct vdisk *base, struct vdisk *disk,
			   const struct vdisk_copy_opts *opts, struct vdisk_error *err);

/*
 * Drop everything that @disk's image holds itself, so that its backing disk
 * shows everywhere: after vdisk_commit(), when @base is durable, this changes
 * nothing that @disk reads, and gives its space back.  A crash in the middle
 * leaves some of it in place.
 */
VDISK_API int vdisk_empty(struct vdisk *disk, struct vdisk_error *err);

/*
 * Put @disk onto another backing disk, @base (NULL: none), without changing
 * what it reads: what would differ is copied into it first.  @name and
 * @format: as vdisk_set_backing().  @disk still has the old backing disk open
 * and must be opened again to see the new one.
 */
VDISK_API int vdisk_rebase(struct vdisk *disk, struct vdisk *base, const char *name,
			   const char *format, const struct vdisk_copy_opts *opts,
			   struct vdisk_error *err);

/* ---- partitions ----
 *
 * Whatever changes a GPT on a disk that was grown moves its backup to the end of
 * the disk first, and extends the usable range.
 */

struct vdisk_part {
	unsigned number;	/* 1..; MBR logical partitions from 5 */
	uint64_t offset;	/* bytes */
	uint64_t length;
	char type[40];		/* GPT: GUID in lower case; MBR: "0x83" */
	char type_name[64];	/* "Linux filesystem", or "" */
	char name[112];		/* GPT, UTF-8 */
	char uuid[40];		/* GPT: GUID; MBR: "1234abcd-01" */
	uint64_t attrs;		/* GPT attributes; MBR: 0x80 if active */
	bool extended;		/* MBR: a container of logical partitions */
};

struct vdisk_parts {
	const char *scheme;	/* "gpt", "dos", or "" where there is no table */
	char id[40];		/* disk GUID, or MBR signature "1234abcd" */
	uint32_t sector_size;	/* of the table: 512 or 4096 */
	bool primary_ok;	/* GPT */
	bool backup_ok;		/* GPT */
	bool backup_misplaced;	/* GPT: valid, but not in the last sector */
	bool hybrid;		/* GPT with real MBR entries */
	bool protective;	/* GPT behind a protective MBR */
	uint64_t first_usable;	/* bytes; GPT */
	uint64_t last_usable;	/* bytes; GPT, one past the end */
	char problem[160];	/* the first thing found wrong, or "" */
	unsigned count;
	struct vdisk_part part[];
};

/*
 * @out: to free().  No table at all is success with scheme "", and a damaged
 * one is success with a problem (both copies of a GPT: and without partitions).
 * Bounds of partitions do not overflow, but may lie past the end of the disk.
 */
VDISK_API int vdisk_parts_read(struct vdisk_parts **out, struct vdisk *disk,
			       struct vdisk_error *err);
/*
 * Open the partition or logical volume that the PART of a locator names, on an
 * open disk.
 */
VDISK_API int vdisk_open_part(struct vdisk **out, struct vdisk *disk, const char *part,
			      struct vdisk_error *err);

/*
 * What a person calls a type ("linux", "swap", "esp", "lvm", "83", a GUID) as
 * tables of @scheme have it in vdisk_part.type.
 */
VDISK_API int vdisk_part_type(char out[40], const char *scheme, const char *text,
			      struct vdisk_error *err);

/*
 * Write an empty table.  @scheme: "gpt" or "dos" ("mbr").  What the disk held is
 * lost, so ask first.
 */
VDISK_API int vdisk_parts_init(struct vdisk *disk, const char *scheme, struct vdisk_error *err);

struct vdisk_part_add_opts {
	size_t size;		/* sizeof(struct vdisk_part_add_opts) */
	uint64_t start;		/* bytes, rounded up to 1 MiB; 0: the first place that fits */
	uint64_t length;	/* bytes, rounded up to sectors; 0: as much as is free there */
	const char *type;	/* as for vdisk_part_type(); NULL: Linux */
	const char *name;	/* GPT; NULL: none */
};
/*
 * Add a partition and return its number.  In an MBR whose four entries
 * hold an extended partition, further ones become logical.
 * Errors: -ENOENT no table, -ENOSPC no room.
 */
VDISK_API int vdisk_parts_add(struct vdisk *disk, const struct vdisk_part_add_opts *opts,
			      struct vdisk_error *err);

/* Delete a partition; an extended one goes with what is in it, and deleting a logical
 * one gives those behind it lower numbers.  What it held stays where it is. */
VDISK_API int vdisk_parts_delete(struct vdisk *disk, unsigned number, struct vdisk_error *err);
/*
 * Move the end of a partition, so that it has @length bytes, rounded up to
 * sectors; UINT64_MAX: up to whatever comes next.  What it holds is not touched.
 * Errors: -ENOSPC when something else is there, -EUCLEAN when partitions overlap
 * or lie outside.
 */
VDISK_API int vdisk_parts_resize(struct vdisk *disk, unsigned number, uint64_t length,
				 struct vdisk_error *err);

struct vdisk_part_change {
	size_t size;		/* sizeof(struct vdisk_part_change) */
	const char *type;	/* as for vdisk_part_type(); here and below NULL: leave it */
	const char *name;	/* GPT */
	const char *uuid;	/* GPT; "random": a new one */
	uint64_t set_attrs, clear_attrs; /* bits of vdisk_part.attrs; MBR: 0x80 only, which
				 * is taken from the others */
};
VDISK_API int vdisk_parts_change(struct vdisk *disk, unsigned number,
				 const struct vdisk_part_change *change, struct vdisk_error *err);
/* The id of the table: a GUID, or the 8 hexadecimal digits of an MBR; "random": a new one. */
VDISK_API int vdisk_parts_set_id(struct vdisk *disk, const char *id, struct vdisk_error *err);
/*
 * Make a table of the other kind with the same partitions at the same places.
 * Of more than four, some become logical ones of an MBR, numbered from 5 in the
 * order in which they lie; each needs a free sector in front.  Boot code does not
 * survive.  -ENOSPC or -EFBIG, and nothing changed, where they do not fit into it.
 */
VDISK_API int vdisk_parts_convert(struct vdisk *disk, const char *scheme, struct vdisk_error *err);

/* Call @report (may be NULL) with a sentence for each thing that is wrong with the
 * table, and return how many there are. */
VDISK_API int vdisk_parts_verify(struct vdisk *disk,
				 void (*report)(void *arg, const char *finding), void *arg,
				 struct vdisk_error *err);
/*
 * Repair the table: each copy of a GPT from the other, the backup at the end of the disk,
 * a protective MBR; in an MBR, a chain of logical partitions that leads astray is cut.
 * @report: what was done.  Returns how much that was; what needs a person's decision
 * (overlapping partitions) stays, and is found by vdisk_parts_verify() afterwards.
 * Errors: -EUCLEAN when no copy is left.
 */
VDISK_API int vdisk_parts_repair(struct vdisk *disk,
				 void (*report)(void *arg, const char *done), void *arg,
				 struct vdisk_error *err);
/* The table in the syntax of sfdisk --dump; @out: to free(). */
VDISK_API int vdisk_parts_dump(struct vdisk *disk, char **out, struct vdisk_error *err);
/* Write the table that such a dump describes; the one in force is lost. */
VDISK_API int vdisk_parts_restore(struct vdisk *disk, const char *dump, struct vdisk_error *err);

/* What a volume holds, by its signatures (libblkid). */
struct vdisk_probe {
	char type[32];		/* "ext4", "swap", "LVM2_member", ...; "" unknown */
	char usage[16];		/* "filesystem", "raid", "crypto", "other"; "ambivalent"
				 * where several signatures contradict each other */
	char label[256];
	char uuid[64];
	char version[32];
	uint32_t block_size;
	/* bytes, as its superblock has them (ext, XFS, btrfs; NTFS and exFAT: only the size); a size of
	 * 0, and free space of UINT64_MAX, are not known */
	uint64_t fs_size, fs_free;
	bool dirty;		/* not cleanly unmounted: a journal to replay, or a mark (ext, FAT) */
};
VDISK_API int vdisk_probe(struct vdisk *disk, struct vdisk_probe *out, struct vdisk_error *err);

/* ---- LVM2 ---- */

struct vdisk_lvm;

struct vdisk_pv {
	char uuid[40];		/* as LVM writes it: "abcdef-ghij-..." */
	char vg[128];		/* name of its group, "" if it is in none */
	char hint[128];		/* where LVM saw it last: "/dev/sda2", or "" */
	uint64_t size;		/* bytes; of a missing one: as recorded */
	bool missing;		/* not on the given disks, or given up by its group */
	unsigned disk;		/* unless missing: index into the given disks */
	unsigned part;		/* and the partition's number, 0 for the whole disk */
	char problem[160];	/* what is wrong with it, or "" */
};

struct vdisk_lv {
	char name[128];
	char uuid[40];
	char type[32];		/* "linear", "striped", "raid1", "thin", ... */
	uint64_t size;		/* bytes */
	bool hidden;		/* a piece of another volume */
	bool writable;		/* may be opened for writing, if the disks are */
	char reason[224];	/* why it cannot be opened, or "" */
};

struct vdisk_vg {
	char name[128];
	char uuid[40];
	uint64_t seqno;		/* of its metadata, which was the newest found */
	uint64_t extent_size;	/* bytes */
	uint64_t size, free;	/* bytes of all its physical volumes */
	const struct vdisk_pv *pv;
	unsigned n_pvs;
	const struct vdisk_lv *lv;
	unsigned n_lvs;
	char problem[160];	/* the first thing found wrong, or "" */
};

/*
 * Find the physical volumes on @disks (each as a whole or in its partitions)
 * and the groups that they make up.  None at all is success; a damaged one has
 * a problem.  The kernel's LVM is not involved.  Takes references to @disks.
 */
VDISK_API int vdisk_lvm_scan(struct vdisk_lvm **out, struct vdisk *const *disks, unsigned n,
			     struct vdisk_error *err);
VDISK_API void vdisk_lvm_free(struct vdisk_lvm *lvm);
/* The n-th group, and the n-th physical volume that was found; NULL after the last. */
VDISK_API const struct vdisk_vg *vdisk_lvm_vg(const struct vdisk_lvm *lvm, unsigned n);
VDISK_API const struct vdisk_pv *vdisk_lvm_pv(const struct vdisk_lvm *lvm, unsigned n);

/*
 * Open a logical volume; @vg and @lv are names or UUIDs.  @flags:
 * VDISK_OPEN_WRITE, else it is read-only.  Linear, striped, raid0, raid1 and
 * mirror volumes can be opened; those with copies only for reading.  The volume
 * keeps what it needs open, @lvm may be freed before it.
 * Errors: -ENOENT; -ENOTUNIQ for two groups of that name; -ENOTSUP for a kind
 * that is not supported; -ENODEV when a physical volume is missing; -EROFS.
 */
VDISK_API int vdisk_open_lv(struct vdisk **out, const struct vdisk_lvm *lvm, const char *vg,
			    const char *lv, uint32_t flags, struct vdisk_error *err);

struct vdisk_lvm_uuid {
	const char *from;	/* of a group, a physical or a logical volume of it */
	const char *to;		/* as LVM writes it: "abcdef-ghij-..." */
};

struct vdisk_lvm_change {
	size_t size;		/* sizeof(struct vdisk_lvm_change) */
	const char *vg_name;	/* the group's new name; NULL: leave it */
	const char *lv;		/* a logical volume, by name or UUID, and */
	const char *lv_name;	/* its new name; NULL: none is renamed */
	const struct vdisk_lvm_uuid *uuids;
	unsigned n_uuids;
	bool only_check;	/* say whether it could be done, and change nothing; the disks
				 * may be open for reading only */
};
/*
 * Change names and UUIDs of the group @vg (name or UUID), in the metadata of all
 * of its physical volumes, which must be there and open for writing; the pieces
 * of a renamed volume go with it.  After a crash in the middle the group has
 * either the old names or the new ones, all of them; not so when the UUIDs of the
 * group or of physical volumes change, by which its copies know each other.  @lvm knows the
 * old state: scan again.
 * Errors: -EINVAL, -EEXIST for names; -ENODEV, -EUCLEAN when something is missing
 * or damaged; -EPERM for an exported, read-only, clustered or shared group; -EROFS;
 * -ENOSPC when the metadata areas are too small.  Then nothing is changed.
 */
VDISK_API int vdisk_lvm_change(struct vdisk_lvm *lvm, const char *vg,
			       const struct vdisk_lvm_change *change, struct vdisk_error *err);
/* A new random UUID in LVM's form. */
VDISK_API int vdisk_lvm_uuid_new(char out[40], struct vdisk_error *err);

/* ---- volumes: whatever may hold a file system ---- */

struct vdisk_volume {
	struct vdisk *disk;	/* borrowed: reference it to keep it */
	char name[264];		/* as the PART of a locator: "p1", "vg0/root"; "": all of it */
	const struct vdisk_part *part;	/* NULL unless it is a partition */
	const struct vdisk_vg *vg;	/* NULL unless it is a logical volume */
	const struct vdisk_lv *lv;
};

/*
 * Call @each with all volumes of @disk, opened for writing where @disk is and
 * they can be: the whole disk, if it has no partition table, or the partitions
 * in the order of the table; then logical volumes.  What cannot be opened is
 * left out.  Stops when @each returns non-zero, which is then returned.
 */
VDISK_API int vdisk_each_volume(struct vdisk *disk,
				int (*each)(void *arg, const struct vdisk_volume *volume),
				void *arg, struct vdisk_error *err);

/* ---- file systems ---- */

struct vdisk_fs;
struct vdisk_file;

enum vdisk_fs_flags {
	VDISK_FS_WRITE = 1 << 0,
	/*
	 * Write through the file system's journal, where it has one: whatever stops
	 * us, it is as it was at some moment between the last sync and now.  For
	 * long uses; without it, what is interrupted has to be checked (vdisk fsck).
	 */
	VDISK_FS_JOURNAL = 1 << 1,
};

struct vdisk_stat {
	uint64_t ino;
	uint64_t size;
	uint64_t allocated;	/* bytes on the medium */
	uint32_t mode;		/* type and permissions, as in stat(2) */
	uint32_t uid, gid;
	uint32_t nlink;
	uint32_t rdev_major, rdev_minor;
	struct timespec atime, mtime, ctime, crtime;
};

/*
 * A file system, with the files open in it, belongs to one thread at a time.
 *
 * Open the file system on @disk (own reference).  A journal that needs replay
 * is replayed: into the disk when it is open for writing, else into a
 * throw-away overlay; never read stale.
 * Errors: -EMEDIUMTYPE where no file system is recognised, -EUCLEAN for a damaged
 * one or, to be written, one that must be checked first; -ENOTSUP with the feature.
 */
VDISK_API int vdisk_fs_open(struct vdisk_fs **out, struct vdisk *disk, unsigned flags,
			    struct vdisk_error *err);
VDISK_API int vdisk_fs_close(struct vdisk_fs *fs, struct vdisk_error *err);
VDISK_API int vdisk_fs_sync(struct vdisk_fs *fs, struct vdisk_error *err);
/* "ext4", ... */
VDISK_API const char *vdisk_fs_type(const struct vdisk_fs *fs);

struct vdisk_fs_usage {
	uint64_t block_size;
	uint64_t total, free, available; /* bytes */
	uint64_t inodes, inodes_free;
};
VDISK_API int vdisk_fs_usage(struct vdisk_fs *fs, struct vdisk_fs_usage *out,
			     struct vdisk_error *err);

/*
 * Paths are absolute; symbolic links are followed inside the file system as if
 * it were the root, never out of it.  @nofollow: not the last component.
 */
VDISK_API int vdisk_fs_stat(struct vdisk_fs *fs, const char *path, bool nofollow,
			    struct vdisk_stat *out, struct vdisk_error *err);
/* Each entry but "." and "..", in directory order; stops when @each returns non-zero
 * (which is then returned). */
VDISK_API int vdisk_fs_list(struct vdisk_fs *fs, const char *path,
			    int (*each)(void *arg, const char *name, const struct vdisk_stat *st),
			    void *arg, struct vdisk_error *err);
/* NUL-terminated; -ENAMETOOLONG if it does not fit. */
VDISK_API int vdisk_fs_readlink(struct vdisk_fs *fs, const char *path, char *buf, size_t size,
				struct vdisk_error *err);
/* A whole file, at most @max bytes (-EFBIG), with a NUL behind it; free() it. */
VDISK_API int vdisk_fs_load(struct vdisk_fs *fs, const char *path, size_t max,
			    void **data, size_t *len, struct vdisk_error *err);

enum vdisk_file_flags {
	VDISK_FILE_WRITE = 1 << 0,
	VDISK_FILE_CREATE = 1 << 1,
	VDISK_FILE_EXCL = 1 << 2,
	VDISK_FILE_TRUNC = 1 << 3,
};
VDISK_API int vdisk_file_open(struct vdisk_file **out, struct vdisk_fs *fs, const char *path,
			      unsigned flags, uint32_t mode, struct vdisk_error *err);
/* Bytes moved (less only at the end of the file), or -errno. */
VDISK_API ssize_t vdisk_file_read(struct vdisk_file *f, void *buf, size_t len, uint64_t off,
				  struct vdisk_error *err);
VDISK_API ssize_t vdisk_file_write(struct vdisk_file *f, const void *buf, size_t len, uint64_t off,
				   struct vdisk_error *err);
VDISK_API int vdisk_file_truncate(struct vdisk_file *f, uint64_t size, struct vdisk_error *err);
/* The next run of data at or after @off; length 0 at the end. */
VDISK_API int vdisk_file_next_data(struct vdisk_file *f, uint64_t off, uint64_t *start,
				   uint64_t *length, struct vdisk_error *err);
VDISK_API int vdisk_file_close(struct vdisk_file *f, struct vdisk_error *err);

VDISK_API int vdisk_fs_mkdir(struct vdisk_fs *fs, const char *path, uint32_t mode,
			     struct vdisk_error *err);
/* Files, links and empty directories. */
VDISK_API int vdisk_fs_remove(struct vdisk_fs *fs, const char *path, struct vdisk_error *err);
/* A directory goes with all that is in it. */
VDISK_API int vdisk_fs_remove_tree(struct vdisk_fs *fs, const char *path,
				   struct vdisk_error *err);
/* As rename(2): what is at @to goes, if it is of the same sort. */
VDISK_API int vdisk_fs_rename(struct vdisk_fs *fs, const char *from, const char *to,
			      struct vdisk_error *err);
VDISK_API int vdisk_fs_link(struct vdisk_fs *fs, const char *existing, const char *path,
			    struct vdisk_error *err);
VDISK_API int vdisk_fs_symlink(struct vdisk_fs *fs, const char *target, const char *path,
			       struct vdisk_error *err);
VDISK_API int vdisk_fs_mknod(struct vdisk_fs *fs, const char *path, uint32_t mode,
			     uint32_t rdev_major, uint32_t rdev_minor, struct vdisk_error *err);
VDISK_API int vdisk_fs_chmod(struct vdisk_fs *fs, const char *path, uint32_t mode,
			     struct vdisk_error *err);
VDISK_API int vdisk_fs_chown(struct vdisk_fs *fs, const char *path, uint32_t uid, uint32_t gid,
			     bool nofollow, struct vdisk_error *err);
VDISK_API int vdisk_fs_utimes(struct vdisk_fs *fs, const char *path, struct timespec atime,
			      struct timespec mtime, bool nofollow, struct vdisk_error *err);
/* xattrs of the path itself (never following a last link); names as in xattr(7).
 * get: bytes, or -ERANGE; list: names each with its NUL, as listxattr(2). */
VDISK_API ssize_t vdisk_fs_getxattr(struct vdisk_fs *fs, const char *path, const char *name,
				    void *buf, size_t size, struct vdisk_error *err);
VDISK_API ssize_t vdisk_fs_listxattr(struct vdisk_fs *fs, const char *path, char *buf, size_t size,
				     struct vdisk_error *err);
VDISK_API int vdisk_fs_setxattr(struct vdisk_fs *fs, const char *path, const char *name,
				const void *value, size_t size, struct vdisk_error *err);
VDISK_API int vdisk_fs_removexattr(struct vdisk_fs *fs, const char *path, const char *name,
				   struct vdisk_error *err);

/* Tell the disk which parts of a file system open for writing hold nothing (discard);
 * @bytes: how much that is. */
VDISK_API int vdisk_fs_trim(struct vdisk_fs *fs, uint64_t *bytes, struct vdisk_error *err);

/* ---- trees of files ---- */

struct vdisk_tar_opts {
	size_t size;		/* sizeof(struct vdisk_tar_opts) */
	/* may be NULL; after each piece, with the bytes of files so far; non-zero stops */
	int (*progress)(void *arg, uint64_t done);
	void *arg;
};
/* Write the tree at @dir to @fd as a tar archive (pax), with all attributes. */
VDISK_API int vdisk_fs_tar_out(struct vdisk_fs *fs, const char *dir, int fd,
			       const struct vdisk_tar_opts *opts, struct vdisk_error *err);
/*
 * Unpack a tar archive (any kind, compressed or not) from @fd into @dir, as if
 * that were the root: no member and no link leads out of it.
 */
VDISK_API int vdisk_fs_tar_in(struct vdisk_fs *fs, const char *dir, int fd,
			      const struct vdisk_tar_opts *opts, struct vdisk_error *err);

/* ---- volumes ---- */

/* Make swap space of @disk.  @label and @uuid ("random") may be NULL. */
VDISK_API int vdisk_make_swap(struct vdisk *disk, const char *label, const char *uuid,
			      struct vdisk_error *err);
/* Change the label or the UUID ("random": a new one) of the file system or swap space
 * on @disk; vdisk_probe() reads them. */
VDISK_API int vdisk_set_label(struct vdisk *disk, const char *label, struct vdisk_error *err);
VDISK_API int vdisk_set_uuid(struct vdisk *disk, const char *uuid, struct vdisk_error *err);

/* ---- a disk as a file of this host, by FUSE ---- */

struct vdisk_fuse;

/* Mount @disk (own reference) over the regular file @path, which then is the disk. */
VDISK_API int vdisk_fuse_mount(struct vdisk_fuse **out, struct vdisk *disk, const char *path,
			       struct vdisk_error *err);
/* Serve until it is unmounted or stopped; 0 in both cases. */
VDISK_API int vdisk_fuse_run(struct vdisk_fuse *fuse, struct vdisk_error *err);
/* End vdisk_fuse_run(); from any thread, and from signal handlers. */
VDISK_API void vdisk_fuse_stop(struct vdisk_fuse *fuse);
/* Unmount and free.  Not while vdisk_fuse_run() runs. */
VDISK_API void vdisk_fuse_free(struct vdisk_fuse *fuse);

/* ---- a file system as a directory of this host, by FUSE ---- */

struct vdisk_mount;

enum vdisk_mount_flags {
	/* other users may go there too; the kernel checks permissions then */
	VDISK_MOUNT_ALLOW_OTHER = 1 << 0,
	/* the kernel checks permissions; else whoever mounts may do everything */
	VDISK_MOUNT_PERMISSIONS = 1 << 1,
};

struct vdisk_mount_opts {
	size_t size;		/* sizeof(struct vdisk_mount_opts) */
	uint32_t flags;		/* enum vdisk_mount_flags */
	unsigned threads;	/* at most so many at work; 0: what suits the machine */
	const char *source;	/* what /proc/mounts shall say; NULL: the disk's name */
};

/*
 * Show @fs at the directory @dir.  @fs belongs to the mount until vdisk_mount_free(),
 * and is closed by the caller after that.  Set-user-ID bits and devices in it have
 * no effect on this host.
 */
VDISK_API int vdisk_mount_new(struct vdisk_mount **out, struct vdisk_fs *fs, const char *dir,
			      const struct vdisk_mount_opts *opts, struct vdisk_error *err);
/*
 * Before vdisk_mount_run(): show another file system at the directory @path of
 * those that are there already, an absolute path without "..".  Links and names
 * do not lead from one into the other.
 */
VDISK_API int vdisk_mount_add(struct vdisk_mount *mount, struct vdisk_fs *fs, const char *path,
			      struct vdisk_error *err);
/*
 * Serve until it is unmounted.  Everything is on the disk then, and durable; an
 * error says that some of it is not.
 */
VDISK_API int vdisk_mount_run(struct vdisk_mount *mount, struct vdisk_error *err);
/*
 * Unmount, from another thread than the one in vdisk_mount_run(), which then ends.
 * -EBUSY while files there are open; with @force they are cut off, after what
 * programs have written so far has been saved.
 */
VDISK_API int vdisk_mount_stop(struct vdisk_mount *mount, bool force, struct vdisk_error *err);
/* Not while vdisk_mount_run() runs. */
VDISK_API void vdisk_mount_free(struct vdisk_mount *mount);

/*
 * The volume that holds the root of the guest on @disk: the first whose file
 * system has /etc/os-release or /etc/fstab, or the only file system there is.
 */
VDISK_API int vdisk_open_root(struct vdisk **out, struct vdisk *disk, struct vdisk_error *err);
/* The same one's name, as in struct vdisk_volume. */
VDISK_API int vdisk_root_name(char out[264], struct vdisk *disk, struct vdisk_error *err);

/* ---- booting: what a disk says it boots ---- */

struct vdisk_boot_opts {
	size_t size;		/* sizeof(struct vdisk_boot_opts) */
	const char *entry;	/* which: its number, title or id, "a>b" in a submenu;
				 * NULL: the configuration's default */
	const char *append;	/* put at the end of the command line; may be NULL */
	bool no_files;		/* leave kernel_fd and initrd_fd at -1 */
	bool recovery;		/* the menu's entry for repairs, else a shell for one user
				 * ("single"); without "quiet" and the like */
};

struct vdisk_boot {
	int kernel_fd;		/* sealed memfd, owned; -1: none */
	int initrd_fd;		/* sealed memfd, owned, all initrds put together; -1: none */
	uint64_t kernel_size;	/* bytes; of the file in the guest */
	uint64_t initrd_size;
	char cmdline[2048];	/* printable, without the boot loader's own words */
	char title[256];	/* of the entry, submenus before it: "a>b" */
	char id[256];		/* of the entry; "" if it has none */
	char number[64];	/* where it is in the menu: "1>0" */
	char kernel[512];	/* path in its file system */
	char initrd[512];	/* the first one's path; "" if none */
	char source[512];	/* what it was found in: "#p1:/boot/grub/grub.cfg", or, with
				 * no usable configuration, "no boot configuration: newest
				 * kernel" and why */
};

/*
 * Find out what @disk boots, from the boot loader configurations in its file
 * systems: GRUB 2, Boot Loader Specification entries and unified kernel images,
 * SYSLINUX and its kin, GRUB legacy; else the newest kernel there is.
 * Everything is read in a child process without privileges, which gets nothing
 * but @disk; the disk is only read.  @out: vdisk_boot_clear() it.
 * Errors: -ENOENT for no kernel or no such entry, -EFBIG for a file or a
 * command line beyond the limits (kernel 256 MiB, initrd 1 GiB), -EINVAL for a
 * damaged file system, -ETIMEDOUT.
 */
VDISK_API int vdisk_boot_find(struct vdisk_boot *out, struct vdisk *disk,
			      const struct vdisk_boot_opts *opts, struct vdisk_error *err);
/*
 * Every entry, in the order of the menu, without files; @out: an array to
 * free(), whose length is returned.  Command lines are cut to what there is room
 * for.  @chosen (may be NULL): the index of the default entry, -1 if none.
 */
VDISK_API int vdisk_boot_list(struct vdisk *disk, struct vdisk_boot **out, int *chosen,
			      struct vdisk_error *err);
/* Close the descriptors. */
VDISK_API void vdisk_boot_clear(struct vdisk_boot *boot);

/* ---- inspection: which system is on a disk ---- */

struct vdisk_fstab {
	unsigned line;		/* of the file, from 1 */
	char device[256];	/* as it stands there: "LABEL=root" */
	char mount_point[256];
	char type[32];
	char options[256];
	char volume[264];	/* the volume of the disk that is meant, as the PART of a locator;
				 * "" if none is, or for pseudo file systems */
	bool missing;		/* it names a volume, and none of the disk's is that */
};

struct vdisk_kernel {
	char version[128];	/* from its name; "" if it has none */
	char path[256];		/* in its file system */
	char initrd[256];	/* "" if none fits */
};

struct vdisk_package {
	char name[128];
	char version[128];
	char arch[32];
};

/* All text is clean for a terminal; "" where it is not known. */
struct vdisk_inspection {
	char name[256];		/* "Debian GNU/Linux 12 (bookworm)" */
	char id[64];		/* os-release: "debian" */
	char version[64];
	char codename[64];
	char arch[32];		/* "x86_64", of the system's programs */
	char hostname[256];
	char root[264];		/* "p1", "vg0/root"; "" if the whole disk is the root */
	char root_type[32];	/* "ext4" */
	char root_uuid[64];
	char root_label[256];
	char packaging[16];	/* "dpkg", "rpm", "apk", "pacman" */
	bool packages_known;	/* the list below is complete */
	char packages_problem[256];	/* why it is not, or "" */
	bool unclean;		/* its root was not cleanly unmounted */
	struct vdisk_fstab *fstab;
	struct vdisk_kernel *kernels;	/* newest first */
	struct vdisk_package *packages;
	unsigned n_fstab, n_kernels, n_packages;
};

/*
 * Find the system on @disk and describe it; as with vdisk_boot_find(), a
 * process without privileges does the reading.  @out: vdisk_inspection_free()
 * it.  -ENOENT where no root file system is found.
 */
VDISK_API int vdisk_inspect(struct vdisk_inspection **out, struct vdisk *disk,
			    struct vdisk_error *err);
VDISK_API void vdisk_inspection_free(struct vdisk_inspection *in);

#ifdef __cplusplus
}
#endif
#endif
