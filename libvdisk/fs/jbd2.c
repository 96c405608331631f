/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * jbd2.c - the journal of ext3, ext4: replay, and writing it
 *
 * The format is that of the kernel's Documentation/filesystems/ext4/journal.rst.
 * A log of transactions runs around in the journal's blocks [first, last).  Each
 * is: descriptor blocks that tell where the data blocks after them belong,
 * revoke blocks that name blocks whose older copies must not be replayed, and a
 * commit block.  All carry the number of their transaction; the log ends where
 * no block of the expected number stands.
 *
 *   1. Three passes: scan finds the last committed transaction and verifies
 *      every checksum on the way, revoke collects the revoked blocks, replay
 *      writes.  So nothing is written before all of it has been read once.
 *   2. A transaction without its commit block never happened, whatever its
 *      blocks look like.
 *   3. A committed transaction with a wrong checksum is damage, not an end.
 *   4. No pass takes more steps than the journal has blocks.
 *   5. Only after a flush of the replayed blocks is the journal marked empty.
 *
 * Fast commits (changes in short form behind the log) are not replayed; where
 * there are any the journal is refused.
 *
 * The writer has at most one transaction in the log, from its first block on:
 *
 *   6. A transaction is written after a flush (of the data it refers to, and of
 *      the superblock that expects its number), and is flushed before its blocks
 *      go to their places.  So the log is valid exactly while these may be half
 *      written.
 *   7. When they are in their places, flushed, the superblock expects the next
 *      number, which makes the log empty again.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include <ext2fs/ext2fs.h>

#include "fs/jbd2.h"

#define MAGIC		0xc03b3998u
#define SB_SIZE		1024u
#define HEADER_SIZE	12u
#define MAX_REVOKED	(4u << 20)
#define N_HASH		4096u
#define FC_TAG_HEAD	9u

enum block_type {
	DESCRIPTOR = 1, COMMIT = 2, SUPER_V1 = 3, SUPER_V2 = 4, REVOKE = 5,
};

enum features {
	COMPAT_CHECKSUM = 1,
	INCOMPAT_REVOKE = 1, INCOMPAT_64BIT = 2, INCOMPAT_ASYNC_COMMIT = 4,
	INCOMPAT_CSUM_V2 = 8, INCOMPAT_CSUM_V3 = 16, INCOMPAT_FAST_COMMIT = 32,
	INCOMPAT_KNOWN = 63,
};

enum tag_flags {
	TAG_ESCAPE = 1,		/* its first four bytes were the magic, and are zeroed */
	TAG_SAME_UUID = 2,	/* no UUID follows the tag */
	TAG_LAST = 8,
};

enum pass { SCAN, REVOKES, REPLAY };

struct revoked {
	struct revoked *next;
	uint64_t block;
	uint32_t sequence;	/* the latest transaction that revoked it */
};

struct log {
	struct vd_jbd2 *j;
	struct vdisk_error *err;
	uint8_t *buf;		/* owned: a block of the log */
	uint8_t *data;		/* owned: a data block */
	uint32_t first, last, start;
	uint32_t sequence;	/* of the first transaction */
	uint32_t end;		/* scan: the first number that was not committed */
	uint32_t compat, incompat;
	uint32_t seed;		/* of checksums v2, v3 */
	bool csum;		/* v2 or v3 */

	uint32_t at;		/* the next block of the log */
	uint32_t steps;		/* rule 4 */
	uint32_t expect;	/* the number of the transaction we are in */
	uint32_t crc_v1;
	bool bad;		/* scan: a wrong checksum in this transaction */

	struct revoked *revoked[N_HASH]; /* owned */
	unsigned n_revoked;
};

/* ---- blocks ---- */

static int read_block(struct log *l, uint32_t n, uint8_t *buf)
{
	uint64_t block = l->j->blocks[n];
	int r;

	if (block >= l->j->fs_blocks)
		return vd_fail(l->err, EUCLEAN, "its block %u is not on the disk", n);
	r = vd_pread(l->j->disk, buf, l->j->block_size, block * l->j->block_size);
	return r < 0 ? vd_fail(l->err, -r, "cannot read block %u: %s", n, strerror(-r)) : 0;
}

/* The next block of the log, around its end. */
static int next_block(struct log *l, uint8_t *buf)
{
	uint32_t n = l->at;

	if (l->steps++ >= l->last - l->first)
		return vd_fail(l->err, EUCLEAN, "its log runs in a circle");
	if (++l->at >= l->last)
		l->at = l->first;
	return read_block(l, n, buf);
}

/* ---- checksums ---- */

/* crc32c of a block with the four bytes at @at taken as zero. */
static uint32_t block_crc(struct log *l, const uint8_t *buf, uint32_t at)
{
	static const uint8_t zero[4];
	uint32_t crc = ext2fs_crc32c_le(l->seed, buf, at);

	crc = ext2fs_crc32c_le(crc, zero, sizeof(zero));
	return ext2fs_crc32c_le(crc, buf + at + 4, l->j->block_size - at - 4);
}

/* Descriptor and revoke blocks end in their checksum. */
static bool tail_ok(struct log *l)
{
	uint32_t at = l->j->block_size - 4;

	return !l->csum || load_be32(l->buf + at) == block_crc(l, l->buf, at);
}

static bool commit_ok(struct log *l)
{
	if (l->csum)
		return load_be32(l->buf + 16) == block_crc(l, l->buf, 16);
	/* v1: h_chksum_type 1 (crc32), h_chksum_size 4, over the blocks before */
	if ((l->compat & COMPAT_CHECKSUM) && l->buf[12] == 1 && l->buf[13] == 4)
		return load_be32(l->buf + 16) == l->crc_v1;
	return true;
}

static bool data_ok(struct log *l, uint32_t stored)
{
	uint8_t seq[4];
	uint32_t crc;

	if (!l->csum)
		return true;
	store_be32(seq, l->expect);
	crc = ext2fs_crc32c_le(l->seed, seq, sizeof(seq));
	crc = ext2fs_crc32c_le(crc, l->data, l->j->block_size);
	return l->incompat & INCOMPAT_CSUM_V3 ? crc == stored : (crc & 0xffff) == stored;
}

/* ---- descriptor blocks ---- */

struct tag {
	uint64_t block;
	uint32_t flags;
	uint32_t checksum;
};

static uint32_t tag_size(const struct log *l)
{
	if (l->incompat & INCOMPAT_CSUM_V3)
		return 16;
	return 8 + (l->incompat & INCOMPAT_CSUM_V2 ? 2 : 0) +
	       (l->incompat & INCOMPAT_64BIT ? 4 : 0);
}

static void tag_decode(const struct log *l, const uint8_t *p, struct tag *t)
{
	bool wide = l->incompat & INCOMPAT_64BIT;

	t->block = load_be32(p);
	if (l->incompat & INCOMPAT_CSUM_V3) {
		t->flags = load_be32(p + 4);
		t->checksum = load_be32(p + 12);
	} else {
		t->checksum = load_be16(p + 4);
		t->flags = load_be16(p + 6);
	}
	if (wide)
		t->block |= (uint64_t)load_be32(p + 8) << 32;
}

/* ---- revoked blocks ---- */

static struct revoked **revoked_slot(struct log *l, uint64_t block)
{
	return &l->revoked[(block * 0x9e3779b97f4a7c15u >> 40) % N_HASH];
}

static struct revoked *revoked_find(struct log *l, uint64_t block)
{
	struct revoked *v = *revoked_slot(l, block);

	while (v && v->block != block)
		v = v->next;
	return v;
}

static int revoke_one(struct log *l, uint64_t block)
{
	struct revoked *v = revoked_find(l, block), **slot = revoked_slot(l, block);

	if (v) {	/* numbers wrap around */
		if ((int32_t)(l->expect - v->sequence) > 0)
			v->sequence = l->expect;
		return 0;
	}
	if (l->n_revoked++ >= MAX_REVOKED)
		return vd_fail(l->err, EUCLEAN, "it revokes more than %u blocks", MAX_REVOKED);
	v = malloc(sizeof(*v));
	if (!v)
		return vd_fail(l->err, ENOMEM, "out of memory");
	*v = (struct revoked) { .next = *slot, .block = block, .sequence = l->expect };
	*slot = v;
	return 0;
}

static bool is_revoked(struct log *l, uint64_t block)
{
	const struct revoked *v = revoked_find(l, block);

	return v && (int32_t)(v->sequence - l->expect) >= 0;
}

static int revoke_block(struct log *l)
{
	uint32_t used = load_be32(l->buf + HEADER_SIZE), room = l->j->block_size;
	uint32_t width = l->incompat & INCOMPAT_64BIT ? 8 : 4;
	int r = 0;

	room -= l->csum ? 4 : 0;
	if (used > room || used < HEADER_SIZE + 4)
		return vd_fail(l->err, EUCLEAN, "a revoke block of %u bytes", used);
	for (uint32_t at = HEADER_SIZE + 4; r == 0 && at + width <= used; at += width)
		r = revoke_one(l, width == 8 ? load_be64(l->buf + at) : load_be32(l->buf + at));
	return r;
}

/* ---- the passes ---- */

static int replay_data(struct log *l, const struct tag *t)
{
	uint32_t bs = l->j->block_size;
	int r;

	if (is_revoked(l, t->block))
		return 0;
	if (t->flags & TAG_ESCAPE)
		store_be32(l->data, MAGIC);
	r = vd_pwrite(l->j->disk, l->data, bs, t->block * bs);
	if (r < 0)
		return vd_fail(l->err, -r, "cannot write block %llu: %s",
			       (unsigned long long)t->block, strerror(-r));
	return 0;
}

static int one_data(struct log *l, enum pass pass, const struct tag *t)
{
	int r;

	if (pass == REVOKES) {
		if (l->steps++ >= l->last - l->first)
			return vd_fail(l->err, EUCLEAN, "its log runs in a circle");
		if (++l->at >= l->last)
			l->at = l->first;
		return 0;
	}
	r = next_block(l, l->data);
	if (r < 0)
		return r;
	if (pass == REPLAY)
		return replay_data(l, t);
	if (l->compat & COMPAT_CHECKSUM)
		l->crc_v1 = ext2fs_crc32_be(l->crc_v1, l->data, l->j->block_size);
	if (t->block >= l->j->fs_blocks || !data_ok(l, t->checksum))
		l->bad = true;
	return 0;
}

static int descriptor(struct log *l, enum pass pass)
{
	uint32_t size = tag_size(l), room = l->j->block_size - (l->csum ? 4 : 0);
	struct tag t = { 0 };
	int r = 0;

	if (pass == SCAN) {
		if (!tail_ok(l))
			l->bad = true;
		if (l->compat & COMPAT_CHECKSUM)
			l->crc_v1 = ext2fs_crc32_be(l->crc_v1, l->buf, l->j->block_size);
	}
	for (uint32_t at = HEADER_SIZE; r == 0 && !(t.flags & TAG_LAST) && at + size <= room;) {
		tag_decode(l, l->buf + at, &t);
		at += size + (t.flags & TAG_SAME_UUID ? 0 : 16);
		r = one_data(l, pass, &t);
	}
	return r;
}

/* 1: go on with the next transaction; 0: the log ends here. */
static int commit(struct log *l, enum pass pass)
{
	if (pass == SCAN) {
		bool ok = commit_ok(l) && !l->bad;

		if (!ok && (l->incompat & INCOMPAT_ASYNC_COMMIT))
			return 0;	/* it may have been on its way */
		if (!ok)		/* rule 3 */
			return vd_fail(l->err, EUCLEAN,
				       "transaction %u has a wrong checksum: check the file system (vdisk fsck)",
				       l->expect);
	}
	l->expect++;
	l->bad = false;
	l->crc_v1 = ~0u;
	return 1;
}

/* Handle the block in l->buf: 1 go on, 0 the end, or an error. */
static int one_block(struct log *l, enum pass pass)
{
	int r;

	if (load_be32(l->buf) != MAGIC || load_be32(l->buf + 8) != l->expect)
		return 0;
	switch (load_be32(l->buf + 4)) {
	case DESCRIPTOR:
		r = descriptor(l, pass);
		break;
	case REVOKE:
		if (pass == SCAN && !tail_ok(l))
			l->bad = true;
		r = pass == REVOKES ? revoke_block(l) : 0;
		break;
	case COMMIT:
		return commit(l, pass);
	default:
		return 0;
	}
	return r < 0 ? r : 1;
}

static int run_pass(struct log *l, enum pass pass)
{
	int r = 1;

	l->at = l->start;
	l->steps = 0;
	l->expect = l->sequence;
	l->crc_v1 = ~0u;
	l->bad = false;
	while (r > 0 && (pass == SCAN || l->expect != l->end)) {
		r = next_block(l, l->buf);
		if (r == 0)
			r = one_block(l, pass);
	}
	if (pass == SCAN)
		l->end = l->expect;
	return r < 0 ? r : 0;
}

/* ---- the superblock of the journal ---- */

static int load_super(struct log *l, uint8_t *sb)
{
	uint32_t type, n_fc;
	int r = read_block(l, 0, l->buf);

	if (r < 0)
		return r;
	memcpy(sb, l->buf, SB_SIZE);
	type = load_be32(sb + 4);
	if (load_be32(sb) != MAGIC || (type != SUPER_V1 && type != SUPER_V2))
		return vd_fail(l->err, EUCLEAN, "it has no superblock");
	if (load_be32(sb + 12) != l->j->block_size)
		return vd_fail(l->err, EUCLEAN, "block size %u", load_be32(sb + 12));
	l->last = load_be32(sb + 16);
	l->first = load_be32(sb + 20);
	l->sequence = load_be32(sb + 24);
	l->start = load_be32(sb + 28);
	l->j->had_error = load_be32(sb + 32);
	if (type == SUPER_V2) {
		l->compat = load_be32(sb + 36);
		l->incompat = load_be32(sb + 40);
	}
	if (l->incompat & ~(uint32_t)INCOMPAT_KNOWN)
		return vd_fail(l->err, ENOTSUP, "unknown features %#x",
			       l->incompat & ~(uint32_t)INCOMPAT_KNOWN);
	l->csum = l->incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3);
	l->seed = ext2fs_crc32c_le(~0u, sb + 48, 16);
	if (l->last > l->j->n_blocks || l->first < 1 || l->first >= l->last)
		return vd_fail(l->err, EUCLEAN, "blocks %u to %u of %u", l->first, l->last,
			       l->j->n_blocks);
	if (l->incompat & INCOMPAT_FAST_COMMIT) {
		n_fc = load_be32(sb + 84) ? load_be32(sb + 84) : 256;
		if (n_fc >= l->last - l->first)
			return vd_fail(l->err, EUCLEAN, "%u blocks for fast commits", n_fc);
		l->last -= n_fc;
	}
	if (l->start && (l->start < l->first || l->start >= l->last))
		return vd_fail(l->err, EUCLEAN, "the log starts at block %u", l->start);
	return 0;
}

static int check_super_csum(struct log *l, const uint8_t *sb)
{
	static const uint8_t zero[4];
	uint32_t crc;

	if (!l->csum)
		return 0;
	if (sb[80] != 4)
		return vd_fail(l->err, ENOTSUP, "checksum type %u", sb[80]);
	crc = ext2fs_crc32c_le(~0u, sb, 252);
	crc = ext2fs_crc32c_le(crc, zero, sizeof(zero));
	crc = ext2fs_crc32c_le(crc, sb + 256, SB_SIZE - 256);
	if (crc != load_be32(sb + 252))
		return vd_fail(l->err, EUCLEAN, "its superblock has a wrong checksum");
	return 0;
}

/* Are there fast commits that follow the last transaction? (ext4_fc_head) */
static int check_fast_commits(struct log *l)
{
	if (!(l->incompat & INCOMPAT_FAST_COMMIT))
		return 0;
	for (uint32_t n = l->last; n <= l->last + 1 && n < l->j->n_blocks; n++) {
		int r = read_block(l, n, l->buf);

		if (r < 0)
			return r;
		if (load_le16(l->buf) == FC_TAG_HEAD && load_le32(l->buf + 8) == l->end)
			return vd_fail(l->err, ENOTSUP,
				       "it holds fast commits: mount or check the file system first (vdisk fsck)");
	}
	return 0;
}

/* Rule 5. */
static int mark_empty(struct log *l, uint8_t *sb)
{
	uint64_t off = l->j->blocks[0] * l->j->block_size;
	int r = vdisk_flush(l->j->disk);

	store_be32(sb + 24, l->end + 1);
	store_be32(sb + 28, 0);
	store_be32(sb + 32, 0);
	if (l->csum) {
		store_be32(sb + 252, 0);
		store_be32(sb + 252, ext2fs_crc32c_le(~0u, sb, SB_SIZE));
	}
	if (r == 0)
		r = vd_pwrite(l->j->disk, sb, SB_SIZE, off);
	if (r == 0)
		r = vdisk_flush(l->j->disk);
	return r < 0 ? vd_fail(l->err, -r, "cannot write its superblock: %s", strerror(-r)) : 0;
}

static void log_free(struct log *l)
{
	for (unsigned i = 0; i < N_HASH; i++)
		while (l->revoked[i]) {
			struct revoked *v = l->revoked[i];

			l->revoked[i] = v->next;
			free(v);
		}
	free(l->buf);
	free(l->data);
	free(l);
}

static int replay(struct log *l)
{
	uint8_t sb[SB_SIZE];
	int r = load_super(l, sb);

	if (r == 0)
		r = check_super_csum(l, sb);
	if (r < 0)
		return r;
	l->end = l->sequence;
	if (l->start) {
		r = run_pass(l, SCAN);
		if (r == 0)
			r = check_fast_commits(l);
		if (r == 0)
			r = run_pass(l, REVOKES);
		if (r == 0)
			r = run_pass(l, REPLAY);
	}
	return r < 0 ? r : mark_empty(l, sb);
}

int vd_jbd2_replay(struct vd_jbd2 *j, struct vdisk_error *err)
{
	struct log *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return vd_fail(err, ENOMEM, "out of memory");
	l->j = j;
	l->err = err;
	l->buf = malloc(j->block_size);
	l->data = malloc(j->block_size);
	r = l->buf && l->data ? replay(l) : vd_fail(err, ENOMEM, "out of memory");
	log_free(l);
	return r;
}

/* ---- writing ---- */

#define MAX_BATCH 256u

struct vd_jbd2_writer {
	struct log l;			/* of it: features, bounds, seed, the next number */
	uint8_t sb[SB_SIZE];
	uint8_t *scratch;		/* owned: descriptors, and blocks that are escaped */
	uint32_t n_scratch;		/* blocks in use of it */
	/* what is to be written next, one block after the other on the disk */
	struct iovec iov[MAX_BATCH];
	unsigned n_iov;
	uint64_t batch_at;		/* block */
};

int vd_jbd2_writer_open(struct vd_jbd2_writer **out, struct vd_jbd2 *j, struct vdisk_error *err)
{
	struct vd_jbd2_writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return vd_fail(err, ENOMEM, "out of memory");
	w->l.j = j;
	w->l.err = err;
	w->l.buf = malloc(j->block_size);
	r = w->l.buf ? load_super(&w->l, w->sb) : vd_fail(err, ENOMEM, "out of memory");
	if (r == 0)
		r = check_super_csum(&w->l, w->sb);
	if (r == 0 && w->l.start)
		r = vd_fail(err, EUCLEAN, "the journal is not empty");
	/* wider numbers of blocks need the feature */
	if (r == 0 && j->fs_blocks > UINT32_MAX && !(w->l.incompat & INCOMPAT_64BIT))
		r = vd_fail(err, ENOTSUP, "the journal is too old for a file system of this size");
	w->l.err = NULL;
	if (r < 0)
		vd_jbd2_writer_free(w);
	else
		*out = w;
	return r;
}

void vd_jbd2_writer_free(struct vd_jbd2_writer *w)
{
	if (!w)
		return;
	free(w->l.buf);
	free(w->scratch);
	free(w);
}

/* Tags that a descriptor block holds; the first one is followed by a UUID. */
static uint32_t tags_in_block(const struct log *l)
{
	return (l->j->block_size - HEADER_SIZE - 16 - (l->csum ? 4 : 0)) / tag_size(l);
}

uint32_t vd_jbd2_writer_room(const struct vd_jbd2_writer *w)
{
	uint32_t room = w->l.last - w->l.first - 1, tags = tags_in_block(&w->l);

	return (uint32_t)((uint64_t)room * tags / (tags + 1)) - 1;
}

static int write_super(struct vd_jbd2_writer *w, struct vdisk_error *err)
{
	int r;

	store_be32(w->sb + 24, w->l.sequence);
	store_be32(w->sb + 28, w->l.start);
	if (w->l.csum) {
		store_be32(w->sb + 252, 0);
		store_be32(w->sb + 252, ext2fs_crc32c_le(~0u, w->sb, SB_SIZE));
	}
	r = vd_pwrite(w->l.j->disk, w->sb, SB_SIZE, w->l.j->blocks[0] * w->l.j->block_size);
	return r < 0 ? vd_fail(err, -r, "cannot write the journal: %s", strerror(-r)) : 0;
}

int vd_jbd2_mark(struct vd_jbd2_writer *w, bool on, struct vdisk_error *err)
{
	w->l.start = on ? w->l.first : 0;
	return write_super(w, err);
}

int vd_jbd2_written(struct vd_jbd2_writer *w, struct vdisk_error *err)
{
	w->l.sequence++;
	return write_super(w, err);
}

static int batch_flush(struct vd_jbd2_writer *w)
{
	uint32_t bs = w->l.j->block_size;
	int r = w->n_iov ? vd_pwritev(w->l.j->disk, w->iov, (int)w->n_iov,
				      (uint64_t)w->n_iov * bs, w->batch_at * bs) : 0;

	w->n_iov = 0;
	return r;
}

/* Put a block at the next place of the log; @data stays until batch_flush(). */
static int put_block(struct vd_jbd2_writer *w, const uint8_t *data)
{
	uint64_t block = w->l.j->blocks[w->l.at++];
	int r = 0;

	if (w->n_iov == MAX_BATCH || (w->n_iov && block != w->batch_at + w->n_iov))
		r = batch_flush(w);
	if (!w->n_iov)
		w->batch_at = block;
	w->iov[w->n_iov++] = (struct iovec) {
		.iov_base = (void *)(uintptr_t)data, .iov_len = w->l.j->block_size,
	};
	return r;
}

static uint8_t *scratch_block(struct vd_jbd2_writer *w)
{
	uint8_t *p = w->scratch + (size_t)w->n_scratch++ * w->l.j->block_size;

	memset(p, 0, w->l.j->block_size);
	return p;
}

static void put_header(const struct vd_jbd2_writer *w, uint8_t *p, enum block_type type)
{
	store_be32(p, MAGIC);
	store_be32(p + 4, type);
	store_be32(p + 8, w->l.sequence);
}

static void put_tag(struct log *l, uint8_t *p, const struct vd_jbd2_block *b,
		    const uint8_t *stored, uint32_t flags)
{
	uint8_t seq[4];
	uint32_t crc = 0;

	if (l->csum) {
		store_be32(seq, l->sequence);
		crc = ext2fs_crc32c_le(l->seed, seq, sizeof(seq));
		crc = ext2fs_crc32c_le(crc, stored, l->j->block_size);
	}
	store_be32(p, (uint32_t)b->nr);
	if (l->incompat & INCOMPAT_CSUM_V3) {
		store_be32(p + 4, flags);
		store_be32(p + 12, crc);
	} else {
		store_be16(p + 4, (uint16_t)crc);
		store_be16(p + 6, (uint16_t)flags);
	}
	if (l->incompat & INCOMPAT_64BIT)
		store_be32(p + 8, (uint32_t)(b->nr >> 32));
}

/*
 * A descriptor and the @n blocks that it describes.  It is complete before it is put: where
 * the journal is in pieces, it is written before the last of its blocks is.
 */
static int put_described(struct vd_jbd2_writer *w, const struct vd_jbd2_block *blocks, uint32_t n)
{
	struct log *l = &w->l;
	uint8_t *d = scratch_block(w), *escaped = d + l->j->block_size;
	uint32_t at = HEADER_SIZE;
	int r;

	put_header(w, d, DESCRIPTOR);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t flags = (i ? TAG_SAME_UUID : 0u) | (i + 1 == n ? TAG_LAST : 0u);
		const uint8_t *data = blocks[i].data;

		if (load_be32(data) == MAGIC) {
			uint8_t *copy = scratch_block(w);

			memcpy(copy + 4, data + 4, l->j->block_size - 4);
			data = copy;
			flags |= TAG_ESCAPE;
		}
		put_tag(l, d + at, &blocks[i], data, flags);
		at += tag_size(l);
		if (!i) {
			memcpy(d + at, w->sb + 48, 16);
			at += 16;
		}
	}
	if (l->csum)
		store_be32(d + l->j->block_size - 4, block_crc(l, d, l->j->block_size - 4));
	r = put_block(w, d);
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		bool is_escaped = load_be32(blocks[i].data) == MAGIC;

		r = put_block(w, is_escaped ? escaped : blocks[i].data);
		escaped += is_escaped ? l->j->block_size : 0;
	}
	return r;
}

static int put_commit(struct vd_jbd2_writer *w)
{
	uint8_t *c = scratch_block(w);
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	put_header(w, c, COMMIT);
	store_be64(c + 48, (uint64_t)now.tv_sec);
	store_be32(c + 56, (uint32_t)now.tv_nsec);
	if (w->l.csum)
		store_be32(c + 16, block_crc(&w->l, c, 16));
	return put_block(w, c);
}

/* Blocks of ours that a transaction needs: descriptors, the commit, escaped ones. */
static size_t scratch_needed(const struct vd_jbd2_writer *w, const struct vd_jbd2_block *blocks,
			     uint32_t n)
{
	size_t need = n / tags_in_block(&w->l) + 3;

	for (uint32_t i = 0; i < n; i++)
		need += load_be32(blocks[i].data) == MAGIC;
	return need;
}

int vd_jbd2_write(struct vd_jbd2_writer *w, const struct vd_jbd2_block *blocks, uint32_t n,
		  struct vdisk_error *err)
{
	uint32_t tags = tags_in_block(&w->l);
	int r = 0;

	if (n > vd_jbd2_writer_room(w))
		return vd_fail(err, ENOSPC, "%u blocks do not fit into the journal", n);
	free(w->scratch);
	w->scratch = calloc(scratch_needed(w, blocks, n), w->l.j->block_size);
	if (!w->scratch)
		return vd_fail(err, ENOMEM, "out of memory");
	w->n_scratch = 0;
	w->n_iov = 0;
	w->l.at = w->l.first;
	for (uint32_t i = 0; r == 0 && i < n; i += tags)
		r = put_described(w, blocks + i, MIN(n - i, tags));
	if (r == 0)
		r = batch_flush(w);
	/* the commit block says that all of this is there: it must not get there first */
	if (r == 0)
		r = vdisk_flush(w->l.j->disk);
	if (r == 0)
		r = put_commit(w);
	if (r == 0)
		r = batch_flush(w);
	if (r == 0)
		r = vdisk_flush(w->l.j->disk);
	return r < 0 ? vd_fail(err, -r, "cannot write the journal: %s", strerror(-r)) : 0;
}
