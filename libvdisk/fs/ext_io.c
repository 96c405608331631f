/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext_io.c - libext2fs reads and writes a struct vdisk
 *
 * libext2fs works on single blocks and rewrites the same few (bitmaps, inode
 * tables, directories) again and again, so between it and the disk stands a
 * write-back cache of blocks.  File data goes through vd_ext_io_read() and
 * vd_ext_io_write(): short pieces through the cache too, where neighbours grow
 * together, long ones past it.
 *
 *   1. A cached block is newer than the disk, if dirty, and equal to it, if not.
 *   2. Dirty blocks are written in ascending order, neighbours together, when
 *      the cache is full of them and at a flush.
 *   3. After a failed write everything fails: the caller must not go on and
 *      write metadata that refers to what never arrived.
 *
 * With a journal (vd_ext_io_log), metadata does not reach its place but through a
 * transaction:
 *
 *   4. A dirty block is metadata (what libext2fs writes) or file data.  Data may be
 *      written at any time; metadata stays in the cache until vd_ext_io_commit().
 *   5. So what is not metadata must not go to blocks that the file system, as it
 *      was at the last commit, still uses: ext.c keeps freed ones from being
 *      allocated before the next.
 *
 * Blocks are of the channel's block size; changing that (libext2fs does, while
 * it looks for the superblock) empties the cache.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "fs/ext.h"

#define CACHE_BYTES	(16u << 20)
#define BYPASS_BYTES	(128u << 10)	/* longer transfers go past the cache */
#define MERGE_BLOCKS	256u		/* blocks in one write, at most */

struct block {
	struct block *next;		/* in its hash chain */
	struct block *newer, *older;	/* by last use */
	uint64_t nr;
	bool dirty;
	bool meta;			/* rule 4; dirty blocks only */
	uint8_t data[];
};

struct ext_io {
	struct vdisk *disk;		/* owned reference */
	struct block **hash;		/* owned */
	unsigned n_hash;		/* a power of two */
	unsigned n_blocks, n_dirty, max_blocks;
	struct block *newest, *oldest;
	int failed;			/* rule 3: 0 or -errno */
	struct vd_jbd2_writer *log;	/* borrowed; NULL: no journal, or not now */
	unsigned n_meta;		/* dirty blocks of metadata, with a log */
	struct struct_io_stats stats;
};

static _Thread_local struct vdisk *next_disk;

void vd_ext_io_next(struct vdisk *disk)
{
	next_disk = disk;
}

static struct ext_io *io_of(io_channel ch)
{
	return ch->private_data;
}

static uint32_t block_size(io_channel ch)
{
	return (uint32_t)ch->block_size;
}

/* ---- the cache ---- */

static struct block **slot(struct ext_io *io, uint64_t nr)
{
	return &io->hash[(nr * 0x9e3779b97f4a7c15u >> 32) & (io->n_hash - 1)];
}

static void unuse(struct ext_io *io, struct block *b)
{
	*(b->newer ? &b->newer->older : &io->newest) = b->older;
	*(b->older ? &b->older->newer : &io->oldest) = b->newer;
}

static void use(struct ext_io *io, struct block *b)
{
	b->newer = NULL;
	b->older = io->newest;
	*(io->newest ? &io->newest->newer : &io->oldest) = b;
	io->newest = b;
}

static struct block *find(struct ext_io *io, uint64_t nr)
{
	struct block *b = *slot(io, nr);

	while (b && b->nr != nr)
		b = b->next;
	if (b && io->newest != b) {
		unuse(io, b);
		use(io, b);
	}
	return b;
}

static void set_meta(struct ext_io *io, struct block *b, bool meta)
{
	if (b->meta != meta)
		io->n_meta += meta ? 1u : -1u;
	b->meta = meta;
}

static void set_dirty(struct ext_io *io, struct block *b, bool dirty)
{
	if (b->dirty != dirty)
		io->n_dirty += dirty ? 1u : -1u;
	b->dirty = dirty;
	if (!dirty)
		set_meta(io, b, false);
}

static void drop(struct ext_io *io, struct block *b)
{
	struct block **p = slot(io, b->nr);

	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	unuse(io, b);
	set_dirty(io, b, false);
	io->n_blocks--;
	free(b);
}

static int by_nr(const void *a, const void *b)
{
	uint64_t x = (*(struct block *const *)a)->nr, y = (*(struct block *const *)b)->nr;

	return (x > y) - (x < y);
}

static int write_run(io_channel ch, struct block **v, unsigned n)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	struct iovec iov[MERGE_BLOCKS];
	int r;

	for (unsigned i = 0; i < n; i++)
		iov[i] = (struct iovec) { .iov_base = v[i]->data, .iov_len = bs };
	r = vd_pwritev(io->disk, iov, (int)n, (uint64_t)n * bs, v[0]->nr * bs);
	if (r < 0)
		return io->failed = r;
	io->stats.bytes_written += (uint64_t)n * bs;
	for (unsigned i = 0; i < n; i++)
		set_dirty(io, v[i], false);
	return 0;
}

/* The dirty blocks, with or without those of metadata, in ascending order; to be freed. */
static struct block **dirty_blocks(struct ext_io *io, bool data, bool meta, unsigned *n)
{
	struct block **v = calloc(io->n_dirty + 1, sizeof(struct block *));

	*n = 0;
	for (struct block *b = io->oldest; v && b; b = b->newer)
		if (b->dirty && (b->meta ? meta : data))
			v[(*n)++] = b;
	if (v)
		qsort(v, *n, sizeof(struct block *), by_nr);
	return v;
}

/* Rule 2; metadata not before the log has it. */
static int write_blocks(io_channel ch, bool data, bool meta)
{
	struct ext_io *io = io_of(ch);
	AUTO_FREE struct block **v = NULL;
	unsigned n = 0, i, run;

	if (io->failed || !io->n_dirty)
		return io->failed;
	v = dirty_blocks(io, data, meta, &n);
	if (!v)
		return -ENOMEM;
	for (i = 0; i < n; i += run) {
		int r;

		for (run = 1; i + run < n && run < MERGE_BLOCKS; run++)
			if (v[i + run]->nr != v[i]->nr + run)
				break;
		r = write_run(ch, v + i, run);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_back(io_channel ch)
{
	return write_blocks(ch, true, !io_of(ch)->log);
}

/* Make room for one more.  With a log the cache may grow beyond its bound: rule 4. */
static int make_room(io_channel ch)
{
	struct ext_io *io = io_of(ch);
	struct block *b = io->oldest;
	int r = 0;

	if (b->dirty && !b->meta)
		r = write_back(ch);
	/* those that stay are looked at again when they are the oldest once more */
	for (unsigned i = 0; r == 0 && i < io->n_blocks; i++) {
		b = io->oldest;
		if (!b->dirty) {
			drop(io, b);
			break;
		}
		if (!b->meta) {
			r = write_back(ch);
			continue;
		}
		unuse(io, b);
		use(io, b);
	}
	return r;
}

/* A new entry, its contents undefined; NULL: no memory, or a write-back failed. */
static struct block *add(io_channel ch, uint64_t nr)
{
	struct ext_io *io = io_of(ch);
	struct block *b;

	if (io->n_blocks >= io->max_blocks) {
		if (make_room(ch) < 0)
			return NULL;
	}
	b = malloc(sizeof(*b) + block_size(ch));
	if (!b)
		return NULL;
	b->nr = nr;
	b->dirty = b->meta = false;
	b->next = *slot(io, nr);
	*slot(io, nr) = b;
	use(io, b);
	io->n_blocks++;
	return b;
}

static void empty(struct ext_io *io)
{
	while (io->oldest)
		drop(io, io->oldest);
}

static void forget(io_channel ch, uint64_t block, uint64_t count)
{
	struct ext_io *io = io_of(ch);

	if (count > io->n_blocks) {
		struct block *next;

		for (struct block *b = io->oldest; b; b = next) {
			next = b->newer;
			if (b->nr >= block && b->nr - block < count)
				drop(io, b);
		}
		return;
	}
	for (uint64_t i = 0; i < count; i++) {
		struct block *b = find(io, block + i);

		if (b)
			drop(io, b);
	}
}

/* ---- bytes ---- */

static int read_past_cache(io_channel ch, uint8_t *buf, size_t len, uint64_t off)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	int r = vd_pread(io->disk, buf, len, off);

	if (r < 0 || !io->n_dirty)
		return r;
	for (uint64_t nr = off / bs; nr <= (off + len - 1) / bs; nr++) {
		struct block *b = find(io, nr);
		uint64_t from = MAX(nr * bs, off), to = MIN((nr + 1) * bs, off + len);

		if (b && b->dirty)
			memcpy(buf + (from - off), b->data + (from - nr * bs), to - from);
	}
	return 0;
}

/* The block @nr with its contents. */
static int get(io_channel ch, uint64_t nr, struct block **out)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	struct block *b = find(io, nr);
	int r;

	if (!b) {
		b = add(ch, nr);
		if (!b)
			return io->failed ? io->failed : -ENOMEM;
		r = vd_pread_pad(io->disk, b->data, bs, nr * bs);
		if (r < 0) {
			drop(io, b);
			return r;
		}
		io->stats.bytes_read += bs;
	}
	*out = b;
	return 0;
}

int vd_ext_io_read(io_channel ch, void *buf, size_t len, uint64_t off)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	uint8_t *p = buf;

	if (!vd_in_range(off, len, vdisk_size(io->disk)))
		return -EIO;	/* the file system is larger than its disk */
	if (len > BYPASS_BYTES)
		return read_past_cache(ch, buf, len, off);
	while (len) {
		size_t in = (size_t)(off % bs), n = MIN((size_t)(bs - in), len);
		struct block *b = NULL;
		int r = get(ch, off / bs, &b);

		if (r < 0 || !b)
			return r;
		memcpy(p, b->data + in, n);
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

static int write_past_cache(io_channel ch, const void *buf, size_t len, uint64_t off)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	const uint8_t *p = buf;
	int r = vd_pwrite(io->disk, buf, len, off);

	if (r < 0)
		return io->failed = r;
	io->stats.bytes_written += len;
	for (uint64_t nr = off / bs; io->n_blocks && nr <= (off + len - 1) / bs; nr++) {
		struct block *b = find(io, nr);
		uint64_t from = MAX(nr * bs, off), to = MIN((nr + 1) * bs, off + len);

		if (b)
			memcpy(b->data + (from - nr * bs), p + (from - off), to - from);
		if (b && to - from == bs)
			set_dirty(io, b, false);
	}
	return 0;
}

static int write_bytes(io_channel ch, const void *buf, size_t len, uint64_t off, bool meta)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	const uint8_t *p = buf;

	if (io->failed)
		return io->failed;
	if (!vd_in_range(off, len, vdisk_size(io->disk)))
		return -EIO;
	if (len > BYPASS_BYTES && !(meta && io->log))
		return write_past_cache(ch, buf, len, off);
	while (len) {
		size_t in = (size_t)(off % bs), n = MIN((size_t)(bs - in), len);
		struct block *b = NULL;
		int r = 0;

		if (n == bs) {
			b = find(io, off / bs);
			if (!b)
				b = add(ch, off / bs);
			if (!b)
				r = io->failed ? io->failed : -ENOMEM;
		} else {
			r = get(ch, off / bs, &b);
		}
		if (r < 0 || !b)
			return r;
		memcpy(b->data + in, p, n);
		set_dirty(io, b, true);
		if (io->log && meta)
			set_meta(io, b, true);
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

int vd_ext_io_write(io_channel ch, const void *buf, size_t len, uint64_t off)
{
	return write_bytes(ch, buf, len, off, false);
}

/* ---- the log ---- */

void vd_ext_io_log(io_channel ch, struct vd_jbd2_writer *log)
{
	io_of(ch)->log = log;
}

unsigned vd_ext_io_pending(io_channel ch)
{
	return io_of(ch)->n_meta;
}

static int log_blocks(struct ext_io *io, struct block **v, unsigned n, struct vdisk_error *err)
{
	AUTO_FREE struct vd_jbd2_block *blocks = calloc(n, sizeof(*blocks));

	if (!blocks)
		return vd_fail(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < n; i++)
		blocks[i] = (struct vd_jbd2_block) { .nr = v[i]->nr, .data = v[i]->data };
	return vd_jbd2_write(io->log, blocks, n, err);
}

int vd_ext_io_commit(io_channel ch, struct vdisk_error *err)
{
	struct ext_io *io = io_of(ch);
	AUTO_FREE struct block **v = NULL;
	unsigned n = 0;
	int r = write_blocks(ch, true, false);

	if (r == 0)
		r = vdisk_flush(io->disk);
	if (r < 0)
		return io->failed = vd_fail(err, -r, "cannot write: %s", strerror(-r));
	v = dirty_blocks(io, false, true, &n);
	if (!v)
		return vd_fail(err, ENOMEM, "out of memory");
	if (!n)
		return 0;
	/* what does not fit is the caller's to take another way */
	if (n > vd_jbd2_writer_room(io->log))
		return vd_fail(err, ENOSPC, "the journal is too small for %u blocks", n);
	r = log_blocks(io, v, n, err);
	if (r < 0)
		return io->failed = r;
	r = write_blocks(ch, false, true);
	if (r == 0)
		r = vdisk_flush(io->disk);
	if (r < 0)
		return io->failed = vd_fail(err, -r, "cannot write: %s", strerror(-r));
	r = vd_jbd2_written(io->log, err);
	return r < 0 ? io->failed = r : 0;
}

bool vd_ext_io_share(io_channel ch, uint64_t off, uint64_t len, bool write)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);

	if (io->failed || !vd_in_range(off, len, vdisk_size(io->disk)))
		return false;
	if (write) {
		forget(ch, off / bs, len / bs);
		return true;
	}
	for (uint64_t nr = off / bs; io->n_dirty && nr <= (off + len - 1) / bs; nr++) {
		struct block *b = find(io, nr);

		if (b && b->dirty)
			return false;
	}
	return true;
}

/* ---- the manager, as libext2fs wants it ---- */

/* @count blocks, or -@count bytes; false if it does not fit the types. */
static bool extent_of(io_channel ch, unsigned long long block, int count, uint64_t *off,
		      size_t *len)
{
	*len = count < 0 ? (size_t)-(int64_t)count : (size_t)count * block_size(ch);
	return vd_mul((uint64_t)block, (uint64_t)block_size(ch), off);
}

static errcode_t ext_read(io_channel ch, unsigned long long block, int count, void *data)
{
	uint64_t off;
	size_t len;

	if (!extent_of(ch, block, count, &off, &len))
		return EXT2_ET_SHORT_READ;
	return -vd_ext_io_read(ch, data, len, off);
}

static errcode_t ext_write(io_channel ch, unsigned long long block, int count, const void *data)
{
	uint64_t off;
	size_t len;

	if (!extent_of(ch, block, count, &off, &len))
		return EXT2_ET_SHORT_WRITE;
	return -write_bytes(ch, data, len, off, true);
}

static errcode_t ext_read_32(io_channel ch, unsigned long block, int count, void *data)
{
	return ext_read(ch, block, count, data);
}

static errcode_t ext_write_32(io_channel ch, unsigned long block, int count, const void *data)
{
	return ext_write(ch, block, count, data);
}

static errcode_t ext_write_byte(io_channel ch, unsigned long offset, int count, const void *data)
{
	return count < 0 ? EINVAL : -write_bytes(ch, data, (size_t)count, offset, true);
}

static errcode_t ext_flush(io_channel ch)
{
	struct ext_io *io = io_of(ch);
	int r;

	if (io->log)	/* libext2fs flushes in the middle; vd_ext_io_commit() does it */
		return 0;
	r = write_back(ch);
	if (r == 0 && vdisk_writable(io->disk))
		r = vdisk_flush(io->disk);
	if (r < 0)
		io->failed = r;
	return -r;
}

static errcode_t ext_zeroout(io_channel ch, unsigned long long block, unsigned long long count)
{
	static const uint8_t zeroes[BYPASS_BYTES];
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	uint64_t off, len;
	int r;

	if (!vd_mul((uint64_t)block, (uint64_t)bs, &off) ||
	    !vd_mul((uint64_t)count, (uint64_t)bs, &len) ||
	    !vd_in_range(off, len, vdisk_size(io->disk)))
		return EXT2_ET_SHORT_WRITE;
	if (io->failed)
		return -io->failed;
	for (; io->log && len > sizeof(zeroes); len -= sizeof(zeroes)) {
		r = write_bytes(ch, zeroes, sizeof(zeroes), off, true);
		if (r < 0)
			return -r;
		off += sizeof(zeroes);
	}
	if (len <= sizeof(zeroes))
		return -write_bytes(ch, zeroes, len, off, true);
	forget(ch, block, count);
	r = vdisk_zero(io->disk, off, len, 0);
	if (r < 0)
		io->failed = r;
	return -r;
}

/* Freed blocks are given back to the image; that this fails hurts nobody. */
static errcode_t ext_discard(io_channel ch, unsigned long long block, unsigned long long count)
{
	struct ext_io *io = io_of(ch);
	uint32_t bs = block_size(ch);
	uint64_t off, len;

	if (io->log)		/* rule 5 */
		return 0;
	forget(ch, block, count);
	if (vd_mul((uint64_t)block, (uint64_t)bs, &off) &&
	    vd_mul((uint64_t)count, (uint64_t)bs, &len) &&
	    vd_in_range(off, len, vdisk_size(io->disk)))
		vdisk_discard(io->disk, off, len);
	return 0;
}

static errcode_t ext_set_blksize(io_channel ch, int size)
{
	struct ext_io *io = io_of(ch);
	unsigned n_hash = 256;
	struct block **hash;
	int r;

	if (size == ch->block_size)
		return 0;
	if (size < 1024 || size > 65536)
		return EXT2_ET_UNEXPECTED_BLOCK_SIZE;
	r = write_back(ch);
	if (r < 0)
		return -r;
	empty(io);
	while (n_hash < CACHE_BYTES / (unsigned)size)
		n_hash *= 2;
	hash = calloc(n_hash, sizeof(struct block *));
	if (!hash)
		return EXT2_ET_NO_MEMORY;
	free(io->hash);
	io->hash = hash;
	io->n_hash = n_hash;
	io->max_blocks = CACHE_BYTES / (unsigned)size;
	ch->block_size = size;
	return 0;
}

static errcode_t ext_get_stats(io_channel ch, io_stats *stats)
{
	*stats = &io_of(ch)->stats;
	return 0;
}

static errcode_t ext_set_option(io_channel ch, const char *option, const char *arg)
{
	(void)ch, (void)option, (void)arg;
	return EXT2_ET_INVALID_ARGUMENT;
}

static errcode_t ext_readahead(io_channel ch, unsigned long long block, unsigned long long count)
{
	(void)ch, (void)block, (void)count;
	return 0;
}

static errcode_t ext_close(io_channel ch)
{
	struct ext_io *io = io_of(ch);
	int r;

	if (--ch->refcount > 0)
		return 0;
	r = write_back(ch);
	empty(io);
	vdisk_close(io->disk, NULL);	/* fs.c has another reference */
	free(io->hash);
	free(io);
	free(ch->name);
	free(ch);
	return -r;
}

static errcode_t ext_open_io(const char *name, int flags, io_channel *out)
{
	io_channel ch = calloc(1, sizeof(*ch));
	struct ext_io *io = calloc(1, sizeof(*io));
	errcode_t r = EXT2_ET_NO_MEMORY;

	(void)flags;
	if (!ch || !io)
		goto fail;
	ch->name = strdup(name);
	if (!ch->name)
		goto fail;
	ch->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	ch->manager = &vd_ext_io;
	ch->refcount = 1;
	ch->private_data = io;
	io->stats.num_fields = 2;
	r = ext_set_blksize(ch, 1024);
	if (r)
		goto fail;
	io->disk = vdisk_ref(next_disk);
	*out = ch;
	return 0;
fail:
	if (ch)
		free(ch->name);
	free(ch);
	free(io);
	return r;
}

struct struct_io_manager vd_ext_io = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "vdisk I/O manager",
	.open = ext_open_io,
	.close = ext_close,
	.set_blksize = ext_set_blksize,
	.read_blk = ext_read_32,
	.write_blk = ext_write_32,
	.read_blk64 = ext_read,
	.write_blk64 = ext_write,
	.write_byte = ext_write_byte,
	.flush = ext_flush,
	.discard = ext_discard,
	.zeroout = ext_zeroout,
	.cache_readahead = ext_readahead,
	.get_stats = ext_get_stats,
	.set_option = ext_set_option,
};
