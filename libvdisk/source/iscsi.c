/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iscsi.c - the source whose bytes are a LUN of an iSCSI target
 *
 * A transfer becomes READ(16) or WRITE(16) commands of at most what the target
 * takes, all of them in flight at once; a flush is SYNCHRONIZE CACHE.  These
 * go through ->start() and block nobody.  Zeroes (WRITE SAME), discards (UNMAP)
 * and questions about allocation (GET LBA STATUS) are commands that a worker
 * waits for.
 *
 * What the LUN can do is asked once, when it is opened; a command that turns
 * out not to exist is not tried again.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

#include "source/iscsi.h"

#define PIECE_MAX	((uint64_t)1 << 20)	/* bytes of a command */
#define ZERO_MAX	((uint64_t)64 << 20)	/* bytes of a WRITE SAME that writes */
#define UNMAP_MAX	((uint64_t)16 << 30)	/* bytes of a command that gives back; blocks fit 32 bits */
#define ANSWER_BYTES	512u
#define STATUS_BYTES	(8u + 16u * 255u)
#define STATUS_MS	1000	/* how long an answer about allocation is good */

struct lun {
	struct iscsi_address address;	/* owned */
	struct iscsi_session *session;	/* owned */
	struct vdisk *disk;		/* the one that we are */
	char product[26];
	struct iscsi_capacity capacity;	/* as of opening; the size may change */
	struct iscsi_limits limits;
	struct iscsi_provisioning provisioning;
	struct iscsi_mode mode;
	uint64_t identity;
	uint64_t piece;			/* bytes of a READ or WRITE */
	_Atomic bool no_write_same, no_status;
	bool no_data_out;		/* WRITE SAME knows zeroes without being given some */

	/* ---- new connections and attentions, on the session's thread ---- */
	_Atomic bool probed;
	_Atomic bool measuring;		/* ->remeasure is on its way */
	struct iscsi_command remeasure;
	uint8_t remeasure_buf[32];
	uint8_t question_buf[2][ANSWER_BYTES];

	/* ---- the last answer about allocation ---- */
	pthread_mutex_t status_lock;
	uint64_t status_start, status_end;	/* blocks */
	bool status_mapped;
	int64_t status_when;
	unsigned status_changes;
	_Atomic unsigned changes;	/* of what is stored */
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- commands ---- */

static struct iscsi_command query(uint8_t op, uint8_t cdb_len, uint8_t *buf, uint32_t len)
{
	return (struct iscsi_command) {
		.cdb = { op }, .cdb_len = cdb_len, .direction = ISCSI_READ, .length = len, .buf = buf,
	};
}

static struct iscsi_command inquiry(int page, uint8_t *buf, uint16_t len)
{
	struct iscsi_command c = query(0x12, 6, buf, len);

	if (page >= 0) {
		c.cdb[1] = 1;	/* EVPD */
		c.cdb[2] = (uint8_t)page;
	}
	store_be16(c.cdb + 3, len);
	return c;
}

static struct iscsi_command read_capacity(uint8_t *buf, uint32_t len)
{
	struct iscsi_command c = query(0x9e, 16, buf, len);

	c.cdb[1] = 0x10;
	store_be32(c.cdb + 10, len);
	return c;
}

static struct iscsi_command mode_sense(uint8_t *buf, uint16_t len)
{
	struct iscsi_command c = query(0x5a, 10, buf, len);

	c.cdb[1] = 0x08;	/* DBD */
	c.cdb[2] = 0x08;	/* the caching page; its header is what we are after */
	store_be16(c.cdb + 7, len);
	return c;
}

static struct iscsi_command supported(uint8_t op, uint8_t *buf, uint32_t len)
{
	struct iscsi_command c = query(0xa3, 12, buf, len);

	c.cdb[1] = 0x0c;
	c.cdb[2] = 1;	/* one command, by its operation code */
	c.cdb[3] = op;
	store_be32(c.cdb + 6, len);
	return c;
}

static struct iscsi_command lba_status(uint64_t block, uint8_t *buf, uint32_t len)
{
	struct iscsi_command c = query(0x9e, 16, buf, len);

	c.cdb[1] = 0x12;
	store_be64(c.cdb + 2, block);
	store_be32(c.cdb + 10, len);
	return c;
}

/* ---- transfers ---- */

struct transfer {
	struct vd_aio *aio;
	struct lun *lun;
	_Atomic unsigned left;	/* commands that are not over */
	_Atomic int error;
	struct iscsi_command cmd[];
};

static void transfer_over(struct iscsi_command *c, int result)
{
	struct transfer *t = c->user;
	int none = 0;

	if (result < 0)
		atomic_compare_exchange_strong(&t->error, &none, result);
	if (atomic_fetch_sub(&t->left, 1) != 1)
		return;
	if (t->aio->op == VDISK_OP_WRITE)
		atomic_fetch_add(&t->lun->changes, 1);
	t->aio->done(t->aio, t->error);
	free(t);
}

static void flush_over(struct iscsi_command *c, int result)
{
	/* a device without a cache need not have the command */
	transfer_over(c, result == -EOPNOTSUPP ? 0 : result);
}

static struct iscsi_command transfer_command(const struct vd_aio *aio, uint32_t block_size,
					     uint64_t off, uint64_t len)
{
	bool write = aio->op == VDISK_OP_WRITE;
	struct iscsi_command c = {
		.cdb = { write ? 0x8a : 0x88 }, .cdb_len = 16,
		.direction = write ? ISCSI_WRITE : ISCSI_READ, .length = (uint32_t)len,
		.exact = true, .done = transfer_over,
	};

	if (write && aio->fua)
		c.cdb[1] = 0x08;
	store_be64(c.cdb + 2, off / block_size);
	store_be32(c.cdb + 10, (uint32_t)(len / block_size));
	return c;
}

/*
 * Split @aio into commands; NULL: no memory.  The buffers' descriptions are
 * copied, as the session writes to them for moments.
 */
static struct iscsi_command *transfer_split(struct lun *l, struct vd_aio *aio)
{
	size_t n = (size_t)((aio->len + l->piece - 1) / l->piece);
	struct vd_sg sg = { .iov = aio->iov, .cnt = aio->iovcnt };
	struct transfer *t = malloc(sizeof(*t) + n * sizeof(t->cmd[0]) +
				    (aio->iovcnt + n) * sizeof(struct iovec));
	struct iovec *iov;

	if (!t)
		return NULL;
	iov = (struct iovec *)(void *)(t->cmd + n);
	t->aio = aio;
	t->lun = l;
	t->left = (unsigned)n;
	t->error = 0;
	for (size_t i = 0; i < n; i++) {
		struct iscsi_command *c = &t->cmd[i];
		uint64_t at = i * l->piece, taken;

		*c = transfer_command(aio, l->capacity.block_size, aio->off + at,
				      MIN(aio->len - at, l->piece));
		c->iov = iov;
		c->iovcnt = vd_sg_take(&sg, c->length, iov, UINT_MAX, &taken);
		iov += c->iovcnt;
		c->user = t;
		c->next = i + 1 < n ? c + 1 : NULL;
	}
	return t->cmd;
}

static struct iscsi_command *flush_command(struct lun *l, struct vd_aio *aio)
{
	struct transfer *t = malloc(sizeof(*t) + sizeof(t->cmd[0]));

	if (!t)
		return NULL;
	t->aio = aio;
	t->lun = l;
	t->left = 1;
	t->error = 0;
	t->cmd[0] = (struct iscsi_command) {	/* all of the LUN */
		.cdb = { 0x91 }, .cdb_len = 16, .done = flush_over, .user = t,
	};
	return t->cmd;
}

/* Engine: begin a list of transfers. */
static void lun_start(struct vdisk *d, struct vd_aio *list)
{
	struct lun *l = d->priv;
	struct iscsi_command *first = NULL, **tail = &first;

	for (struct vd_aio *aio = list, *next; aio; aio = next) {
		next = aio->next;	/* done, it may be gone */
		if (aio->op == VDISK_OP_WRITE)
			atomic_fetch_add(&l->changes, 1);
		if (aio->op != VDISK_OP_FLUSH && aio->len == 0) {
			aio->done(aio, 0);
			continue;
		}
		*tail = aio->op == VDISK_OP_FLUSH ? flush_command(l, aio) : transfer_split(l, aio);
		if (!*tail)
			aio->done(aio, -ENOMEM);
		while (*tail)
			tail = &(*tail)->next;
	}
	if (first)
		iscsi_session_submit(l->session, first);
}

/* ---- transfers that a thread waits for ---- */

static bool aligned(const struct vdisk *d, uint64_t off, uint64_t len)
{
	return !((off | len) & (d->block_size - 1));
}

static int transfer_wait(struct vdisk *d, uint8_t op, const struct iovec *iov, unsigned iovcnt,
			 uint64_t len, uint64_t off, bool fua)
{
	struct vd_aio aio = {
		.op = op, .fua = fua, .iov = iov, .iovcnt = iovcnt, .off = off, .len = len,
	};

	return vd_aio_wait(d, &aio);
}

static int lun_sync(struct vdisk *d)
{
	return transfer_wait(d, VDISK_OP_FLUSH, NULL, 0, 0, 0, false);
}

static int write_wait(struct vdisk *d, const struct iovec *iov, unsigned iovcnt, uint64_t len,
		      uint64_t off, bool fua)
{
	int r = transfer_wait(d, VDISK_OP_WRITE, iov, iovcnt, len, off, fua && !d->no_fua);

	return r == 0 && fua && d->no_fua ? lun_sync(d) : r;
}

/*
 * A range that does not consist of whole blocks: through a buffer that does.
 * alloc_lock of a source serialises writes of this kind, so that two of them
 * do not undo each other's edges.
 */
static int bounce(struct vdisk *d, const struct iovec *iov, unsigned iovcnt, uint64_t len,
		  uint64_t off, bool write, bool fua)
{
	uint64_t start = vd_align_down(off, d->block_size);
	uint64_t end = vd_align_up(off + len, d->block_size);
	struct vd_sg sg = { .iov = iov, .cnt = iovcnt };
	AUTO_FREE uint8_t *mem = malloc((size_t)(end - start));
	struct iovec whole = { mem, (size_t)(end - start) };
	int r;

	if (!mem)
		return -ENOMEM;
	if (!write) {
		r = transfer_wait(d, VDISK_OP_READ, &whole, 1, whole.iov_len, start, false);
		if (r == 0)
			vd_sg_copy_in(&sg, mem + (off - start), (size_t)len);
		return r;
	}
	pthread_mutex_lock(&d->alloc_lock);
	r = transfer_wait(d, VDISK_OP_READ, &whole, 1, whole.iov_len, start, false);
	if (r == 0) {
		vd_sg_copy_out(&sg, mem + (off - start), (size_t)len);
		r = write_wait(d, &whole, 1, whole.iov_len, start, fua);
	}
	pthread_mutex_unlock(&d->alloc_lock);
	return r;
}

static int lun_preadv(struct vdisk *d, const struct iovec *iov, int iovcnt, uint64_t len,
		      uint64_t off)
{
	if (!aligned(d, off, len))
		return bounce(d, iov, (unsigned)iovcnt, len, off, false, false);
	return transfer_wait(d, VDISK_OP_READ, iov, (unsigned)iovcnt, len, off, false);
}

static int lun_pwritev(struct vdisk *d, const struct iovec *iov, int iovcnt, uint64_t len,
		       uint64_t off, bool fua)
{
	if (!aligned(d, off, len))
		return bounce(d, iov, (unsigned)iovcnt, len, off, true, fua);
	return write_wait(d, iov, (unsigned)iovcnt, len, off, fua);
}

/* ---- zeroes and discards ---- */

/* WRITE SAME(16) of zeroes; @block: one of them. */
static int write_same(struct lun *l, uint64_t lba, uint32_t blocks, bool unmap, uint8_t *block)
{
	struct iovec iov = { block, l->capacity.block_size };
	struct iscsi_command c = { .cdb = { 0x93 }, .cdb_len = 16 };

	c.cdb[1] = (uint8_t)((unmap ? 0x08 : 0) | (l->no_data_out ? 0x01 : 0));
	store_be64(c.cdb + 2, lba);
	store_be32(c.cdb + 10, blocks);
	if (!l->no_data_out) {
		c.direction = ISCSI_WRITE;
		c.length = l->capacity.block_size;
		c.iov = &iov;
		c.iovcnt = 1;
	}
	return iscsi_session_run(l->session, &c);
}

/* @off and @len are whole blocks. */
static int zero_blocks(struct vdisk *d, uint64_t off, uint64_t len, bool unmap)
{
	struct lun *l = d->priv;
	uint32_t size = d->block_size;
	AUTO_FREE uint8_t *block = calloc(1, size);
	uint64_t most = (unmap ? UNMAP_MAX : ZERO_MAX) / size;
	int r = 0;

	if (!block)
		return -ENOMEM;
	if (l->limits.max_write_same)
		most = MIN(most, l->limits.max_write_same);
	for (uint64_t lba = off / size, left = len / size; r == 0 && left > 0; ) {
		uint32_t n = (uint32_t)MIN(left, most);

		atomic_fetch_add(&l->changes, 1);
		r = write_same(l, lba, n, unmap, block);
		lba += n;
		left -= n;
	}
	atomic_fetch_add(&l->changes, 1);
	if (r == -EOPNOTSUPP || r == -EINVAL) {
		l->no_write_same = true;
		return -EOPNOTSUPP;
	}
	return r;
}

static int zero_edge(struct vdisk *d, uint64_t off, uint64_t len)
{
	uint8_t zero[4096] = { 0 };
	struct iovec iov = { zero, (size_t)len };

	return len ? bounce(d, &iov, 1, len, off, true, false) : 0;
}

static int lun_zero(struct vdisk *d, uint64_t off, uint64_t len, bool unmap)
{
	struct lun *l = d->priv;
	uint64_t start = vd_align_up(off, d->block_size);
	uint64_t end = vd_align_down(off + len, d->block_size);
	int r;

	if (l->no_write_same || start >= end)
		return -EOPNOTSUPP;	/* the engine writes them */
	/* what is given back reads as zeroes only where the target says so */
	unmap = unmap && l->provisioning.write_same && l->capacity.zeroed;
	r = zero_blocks(d, start, end - start, unmap);
	if (r == 0)
		r = zero_edge(d, off, start - off);
	return r ? r : zero_edge(d, end, off + len - end);
}

static int unmap_range(struct lun *l, uint64_t lba, uint32_t blocks)
{
	uint8_t list[24] = { 0 };
	struct iovec iov = { list, sizeof(list) };
	struct iscsi_command c = {
		.cdb = { 0x42 }, .cdb_len = 10, .direction = ISCSI_WRITE, .length = sizeof(list),
		.iov = &iov, .iovcnt = 1,
	};

	store_be16(c.cdb + 7, sizeof(list));
	store_be16(list, sizeof(list) - 2);
	store_be16(list + 2, 16);	/* one descriptor: a discard is one range */
	store_be64(list + 8, lba);
	store_be32(list + 16, blocks);
	return iscsi_session_run(l->session, &c);
}

/* Whole granules only: the target need not do anything for less. */
static void to_granules(const struct lun *l, uint64_t *start, uint64_t *end)
{
	uint64_t g = l->limits.granularity, shift = 0;

	if (g < 2)
		return;
	if (l->limits.has_alignment)
		shift = l->limits.alignment % g;
	*start = (*start + g - 1 - shift) / g * g + shift;
	/* what is left at the end of the LUN counts as whole */
	if (*end < l->capacity.blocks)
		*end = *end < shift ? 0 : (*end - shift) / g * g + shift;
}

static int lun_discard(struct vdisk *d, uint64_t off, uint64_t len)
{
	struct lun *l = d->priv;
	uint64_t start = vd_align_up(off, d->block_size) / d->block_size;
	uint64_t end = (off + len) / d->block_size;
	uint64_t most = UNMAP_MAX / d->block_size;
	AUTO_FREE uint8_t *block = NULL;
	int r = 0;

	if (d->no_discard)
		return -EOPNOTSUPP;
	if (l->provisioning.unmap && l->limits.max_unmap)
		most = MIN(most, (uint64_t)l->limits.max_unmap);
	else if (!l->provisioning.unmap && l->limits.max_write_same)
		most = MIN(most, l->limits.max_write_same);
	if (!l->provisioning.unmap && !(block = calloc(1, d->block_size)))
		return -ENOMEM;
	to_granules(l, &start, &end);
	while (r == 0 && start < end) {
		uint32_t n = (uint32_t)MIN(end - start, most);

		atomic_fetch_add(&l->changes, 1);
		r = l->provisioning.unmap ? unmap_range(l, start, n) :
					    write_same(l, start, n, true, block);
		start += n;
	}
	atomic_fetch_add(&l->changes, 1);
	return r;
}

/* ---- where there is data ---- */

/* Ask the target, from @block on; status_lock is held. */
static int ask_status(struct lun *l, uint64_t block)
{
	AUTO_FREE uint8_t *buf = malloc(STATUS_BYTES);
	struct iscsi_command c = lba_status(block, buf, STATUS_BYTES);
	unsigned changes = l->changes;
	uint64_t n = 0;
	int r;

	if (!buf)
		return -ENOMEM;
	r = iscsi_session_run(l->session, &c);
	if (r == 0)
		r = iscsi_decode_status(&l->status_mapped, &n, block, UINT64_MAX - block, buf, c.got);
	if (r < 0)
		return r;
	l->status_start = block;
	l->status_end = block + n;
	l->status_when = now_ms();
	l->status_changes = changes;
	return 0;
}

static int lun_report(struct vdisk *d, uint64_t off, uint64_t len, struct vd_extent *e)
{
	struct lun *l = d->priv;
	uint64_t block = off / d->block_size;
	int r = 0;

	*e = (struct vd_extent) { .kind = VD_DATA, .len = len };
	if (!l->capacity.provisioned || !l->capacity.zeroed || l->no_status)
		return 0;
	pthread_mutex_lock(&l->status_lock);
	if (block < l->status_start || block >= l->status_end || l->status_changes != l->changes ||
	    now_ms() - l->status_when > STATUS_MS)
		r = ask_status(l, block);
	if (r == 0) {
		e->kind = l->status_mapped ? VD_DATA : VD_HOLE;
		e->len = MIN(len, l->status_end * d->block_size - off);
	} else if (r == -EOPNOTSUPP || r == -EINVAL) {
		l->no_status = true;	/* all of it may be data */
		r = 0;
	}
	pthread_mutex_unlock(&l->status_lock);
	return r;
}

/* ---- its size ---- */

static uint64_t bytes_of(const struct iscsi_capacity *c)
{
	return c->blocks * c->block_size;
}

static int measure(struct lun *l, struct iscsi_capacity *out)
{
	uint8_t buf[32] = { 0 };
	struct iscsi_command c = read_capacity(buf, sizeof(buf));
	int r = iscsi_session_run(l->session, &c);

	return r < 0 ? r : iscsi_decode_capacity(out, buf, c.got);
}

/* A LUN whose blocks have another size is another LUN. */
static bool take_size(struct lun *l, const struct iscsi_capacity *c)
{
	if (c->block_size != l->capacity.block_size)
		return false;
	l->disk->size = bytes_of(c);
	return true;
}

static int lun_resize(struct vdisk *d, uint64_t size, struct vdisk_error *err)
{
	struct lun *l = d->priv;
	struct iscsi_capacity c;
	int r = measure(l, &c);

	if (r < 0)
		return vd_fail(err, -r, "%s: cannot get its size: %s", d->name, strerror(-r));
	if (!take_size(l, &c))
		return vd_fail(err, ESTALE, "%s: it is another LUN now", d->name);
	return size <= d->size ? 0 :
		vd_fail(err, ENOSPC, "%s: is %llu bytes at the target, and made larger only there",
			d->name, (unsigned long long)d->size);
}

/* ---- new connections, and what the target tells by itself ---- */

static void remeasured(struct iscsi_command *c, int result)
{
	struct lun *l = c->user;
	struct iscsi_capacity now;

	if (result == 0 && iscsi_decode_capacity(&now, l->remeasure_buf, c->got) == 0)
		take_size(l, &now);
	l->measuring = false;
}

static void on_attention(void *arg, uint16_t code)
{
	struct lun *l = arg;

	/* capacity data has changed */
	if (code != 0x2a09 || !l->probed || atomic_exchange(&l->measuring, true))
		return;
	l->remeasure = read_capacity(l->remeasure_buf, sizeof(l->remeasure_buf));
	l->remeasure.done = remeasured;
	l->remeasure.user = l;
	iscsi_session_submit(l->session, &l->remeasure);
}

static unsigned on_questions(void *arg, struct iscsi_command *cmds, unsigned max)
{
	struct lun *l = arg;

	if (!l->probed || max < 2)
		return 0;
	cmds[0] = read_capacity(l->question_buf[0], 32);
	cmds[1] = inquiry(0x83, l->question_buf[1], ANSWER_BYTES);
	return 2;
}

static int on_answers(void *arg, const struct iscsi_command *cmds, const int *results, unsigned n)
{
	struct lun *l = arg;
	struct iscsi_capacity c;
	uint64_t identity;
	int r = results[0];

	(void)n;
	if (r == 0)
		r = iscsi_decode_capacity(&c, l->question_buf[0], cmds[0].got);
	if (r < 0)
		return r;
	identity = results[1] ? 0 : iscsi_decode_identity(l->question_buf[1], cmds[1].got);
	if (l->identity && identity && identity != l->identity)
		return -ESTALE;
	return take_size(l, &c) ? 0 : -ESTALE;
}

/* ---- opening ---- */

static int probe_unit(struct lun *l, struct vdisk_error *err)
{
	uint8_t buf[96];
	struct iscsi_command c = inquiry(-1, buf, sizeof(buf));
	const char *name = l->address.name;
	int r = iscsi_session_run(l->session, &c);

	if (r == 0)
		r = iscsi_decode_inquiry(l->product, buf, c.got);
	if (r == -ENXIO)
		return vd_fail(err, ENXIO, "%s: the target has no LUN %u", name, l->address.lun);
	if (r == -EMEDIUMTYPE)
		return vd_fail(err, ENOTSUP, "%s: not a disk", name);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot ask what it is: %s", name, strerror(-r));
	r = measure(l, &l->capacity);
	if (r == -EMEDIUMTYPE)
		return vd_fail(err, ENOTSUP, "%s: its blocks are neither 512 nor up to 4096 bytes", name);
	if (r == -ENXIO)
		return vd_fail(err, ENXIO, "%s: the target has no LUN %u", name, l->address.lun);
	return r < 0 ? vd_fail(err, -r, "%s: cannot get its size: %s", name, strerror(-r)) : 0;
}

/* What it can do; what it does not tell, it cannot. */
static void probe_abilities(struct lun *l)
{
	uint8_t buf[ANSWER_BYTES];
	struct iscsi_command c = inquiry(0x83, buf, sizeof(buf));
	bool there;

	if (iscsi_session_run(l->session, &c) == 0)
		l->identity = iscsi_decode_identity(buf, c.got);
	c = inquiry(0xb0, buf, 64);
	if (iscsi_session_run(l->session, &c) == 0)
		(void)iscsi_decode_limits(&l->limits, buf, c.got);
	c = inquiry(0xb2, buf, 64);
	if (l->capacity.provisioned && iscsi_session_run(l->session, &c) == 0)
		(void)iscsi_decode_provisioning(&l->provisioning, buf, c.got);
	c = mode_sense(buf, 252);
	if (iscsi_session_run(l->session, &c) == 0)
		(void)iscsi_decode_mode(&l->mode, buf, c.got);
	c = supported(0x93, buf, 64);
	if (iscsi_session_run(l->session, &c) == 0) {
		iscsi_decode_write_same(&there, &l->no_data_out, buf, c.got);
		l->no_write_same = !there;
	}
}

static void set_up(struct vdisk *d, struct lun *l)
{
	uint64_t most = (uint64_t)l->limits.max_transfer * l->capacity.block_size;
	uint64_t granule = (uint64_t)l->limits.granularity * l->capacity.block_size;

	d->size = bytes_of(&l->capacity);
	d->block_size = l->capacity.block_size;
	d->no_fua = !l->mode.fua;
	d->no_discard = !l->capacity.provisioned ||
			(!l->provisioning.unmap && !l->provisioning.write_same);
	d->discard_keeps = !l->capacity.zeroed || (granule > d->block_size &&
			   (!vd_is_pow2(granule) ||
			    (l->limits.has_alignment && l->limits.alignment % l->limits.granularity)));
	if (!d->no_discard && !d->discard_keeps && granule > d->block_size)
		d->unit = granule;
	l->piece = most ? MIN(most, PIECE_MAX) : PIECE_MAX;
	l->piece = MAX(vd_align_down(l->piece, d->block_size), (uint64_t)d->block_size);
}

static void lun_free(struct lun *l)
{
	iscsi_session_close(l->session);
	iscsi_address_clear(&l->address);
	pthread_mutex_destroy(&l->status_lock);
	free(l);
}

static int lun_close(struct vdisk *d, struct vdisk_error *err)
{
	(void)err;
	lun_free(STEAL(d->priv));
	return 0;
}

static void lun_info(struct vdisk *d, struct vd_info_sink *sink)
{
	struct lun *l = d->priv;

	vd_info_string(sink, "target", "%s", l->address.target);
	vd_info_uint(sink, "lun", l->address.lun);
	vd_info_string(sink, "product", "%s", l->product);
	vd_info_bool(sink, "write-protected", l->mode.write_protected);
	vd_info_bool(sink, "thin", l->capacity.provisioned);
}

static const struct vd_driver iscsi_driver = {
	.name = "iscsi",
	.close = lun_close,
	.preadv = lun_preadv,
	.pwritev = lun_pwritev,
	.sync = lun_sync,
	.start = lun_start,
	.zero = lun_zero,
	.discard = lun_discard,
	.report = lun_report,
	.resize = lun_resize,
	.info = lun_info,
};

static int lun_open(struct lun *l, struct vdisk *d, struct vdisk_error *err)
{
	struct iscsi_hooks hooks = {
		.questions = on_questions, .answers = on_answers, .attention = on_attention,
		.arg = l,
	};
	int r = iscsi_session_open(&l->session, &l->address, err);

	if (r < 0)
		return r;
	iscsi_session_set_hooks(l->session, &hooks);
	r = probe_unit(l, err);
	if (r < 0)
		return r;
	probe_abilities(l);
	set_up(d, l);
	l->probed = true;
	if (d->flags & VDISK_OPEN_WRITE && l->mode.write_protected)
		return vd_fail(err, EROFS, "%s: is write-protected at the target; it can be opened "
			       "read-only", d->name);
	return 0;
}

int vd_iscsi_open(struct vdisk **out, const char *uri, const struct vdisk_open_opts *opts,
		  struct vdisk_error *err)
{
	struct lun *l = calloc(1, sizeof(*l));
	struct vdisk *d = NULL;
	int r;

	if (!l)
		return vd_fail(err, ENOMEM, "out of memory");
	pthread_mutex_init(&l->status_lock, NULL);
	r = iscsi_address_parse(&l->address, uri, err);
	if (r == 0) {
		d = l->disk = vd_disk_new(&iscsi_driver, l->address.name, 0);
		r = d ? 0 : vd_fail(err, ENOMEM, "out of memory");
	}
	if (r == 0) {
		d->flags = opts->flags;
		d->priv = l;
		r = lun_open(l, d, err);
	}
	if (r < 0) {
		lun_free(l);
		vd_disk_free(d);
		return r;
	}
	*out = d;
	return 0;
}
