/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iscsi-load.c - a cheap iSCSI load: many commands for little CPU of its own
 *
 * For benchmarks, where the initiator must not be what is measured, and for
 * tests that need many sessions, many logins, or writes whose fate is known.
 * One thread; what a socket holds is taken by one call, parsed in place, and
 * the commands that replace the finished ones leave by one call.  Data read
 * are thrown away inside the kernel where they are large (MSG_TRUNC), except
 * with --check.  Sending blocks: a target that stops reading stops us.
 *
 * Verified writes (--log): the LUN's first blocks are slots; every write carries
 * its slot and a number that grows with each write of the slot, of which there
 * is only one at a time.  When the target dies, the log has for each slot the
 * last number acknowledged as durable and the last one sent; --check reads the
 * slots and demands a number between the two, in a block that is whole.
 */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <isa-l/crc.h>

#include "core/compiler.h"

#define BHS		48u
#define RX_SIZE		(1u << 20)
#define SKIP_MIN	(64u << 10)	/* more than this of data is skipped by the kernel */
#define MAX_DEPTH	256u
#define NO_TAG		0xffffffffu
#define TAG_SYNC	0xfffffffeu
#define IOVS		512u

enum durable { DURABLE_NONE, DURABLE_FUA, DURABLE_WCE, DURABLE_SYNC };

static struct {
	const char *host, *port, *iqn, *log, *check;
	unsigned conns, depth, block, seconds, lun;
	unsigned cycles, sessions;
	bool write, sequential, json, header_digest, data_digest;
	enum durable durable;
	uint64_t bare;			/* size of the file, in bytes; 0: an iSCSI target */
	uint64_t slots;			/* verified writes: how many blocks of them */
	pid_t pid;			/* of the target */
	int cpu;
} opt = { .conns = 1, .depth = 32, .block = 4096, .seconds = 3, .cpu = -1 };

/* A command under way; its tag is its index. */
struct command {
	bool busy;
	uint64_t slot;			/* verified writes */
	uint8_t *data;			/* owned, opt.block bytes; writes */
};

struct conn {
	int fd;				/* owned */
	unsigned index;
	uint32_t cmd_sn, max_cmd_sn, exp_stat_sn;
	/* negotiated */
	uint32_t max_send, first_burst;
	bool immediate, initial_r2t;

	uint8_t *rx;			/* owned, RX_SIZE */
	size_t have;
	uint8_t pdu[BHS];		/* header of the PDU whose data are being skipped */
	bool in_pdu;
	uint64_t skip;			/* what is left of them */
	struct iovec iov[IOVS];
	unsigned n_iov;
	uint8_t heads[IOVS][BHS + 4];
	uint8_t tails[IOVS][4];
	unsigned n_heads;

	struct command commands[MAX_DEPTH];
	uint64_t next_lba;		/* in opt.block */
	bool syncing;
	unsigned since_sync;
	bool lost;
};

static uint64_t done_commands, failed_commands;
static uint64_t lun_blocks, lun_units;	/* of the LUN's own size; of opt.block */
static uint32_t lun_block_size;
/* verified writes, an entry a slot */
static uint32_t *sent, *written, *durable, *syncing;

_Noreturn static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("iscsi-load: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void *must(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t random_u64(void)
{
	static uint64_t x = 0x9e3779b97f4a7c15;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static uint32_t crc(const void *buf, uint32_t len)
{
	return ~crc32_iscsi((unsigned char *)(uintptr_t)buf, (int)len, 0xffffffffu);
}

/* ---- sending ---- */

/* False, and c->lost, when the target is gone. */
static bool flush(struct conn *c)
{
	struct iovec *iov = c->iov;
	unsigned n = c->n_iov;

	while (n > 0 && !c->lost) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
		ssize_t r = sendmsg(c->fd, &msg, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			c->lost = true;
		while (r > 0) {
			size_t part = MIN((size_t)r, iov->iov_len);

			iov->iov_base = (uint8_t *)iov->iov_base + part;
			iov->iov_len -= part;
			r -= (ssize_t)part;
			if (iov->iov_len == 0)
				iov++, n--;
		}
	}
	c->n_iov = c->n_heads = 0;
	return !c->lost;
}

/* A header to fill in; put() sends it, with its data. */
static uint8_t *head(struct conn *c)
{
	if (c->n_iov + 3 > IOVS)
		flush(c);
	memset(c->heads[c->n_heads], 0, BHS);
	return c->heads[c->n_heads];
}

static void put(struct conn *c, const void *data, uint32_t len)
{
	uint8_t *h = c->heads[c->n_heads], *tail = c->tails[c->n_heads];
	uint32_t head_len = BHS;

	c->n_heads++;
	store_be32(h + 4, len);
	if (opt.header_digest) {
		store_le32(h + BHS, crc(h, BHS));
		head_len += 4;
	}
	c->iov[c->n_iov++] = (struct iovec) { h, head_len };
	if (len == 0)
		return;
	c->iov[c->n_iov++] = (struct iovec) { (void *)(uintptr_t)data, len };
	if (opt.data_digest) {
		store_le32(tail, crc(data, len));
		c->iov[c->n_iov++] = (struct iovec) { tail, 4 };
	}
}

static void put_command(struct conn *c, uint32_t tag, uint8_t flags, uint32_t expected,
			const uint8_t cdb[16], const void *data, uint32_t len)
{
	uint8_t *h = head(c);

	h[0] = 0x01;
	h[1] = flags | 1;		/* simple */
	h[9] = (uint8_t)opt.lun;
	store_be32(h + 16, tag);
	store_be32(h + 20, expected);
	store_be32(h + 24, c->cmd_sn++);
	store_be32(h + 28, c->exp_stat_sn);
	memcpy(h + 32, cdb, 16);
	put(c, data, len);
}

/* Data-Out PDUs for [offset, offset + len) of a command's data */
static void put_data_out(struct conn *c, uint32_t tag, uint32_t ttt, const uint8_t *lun,
			 uint32_t offset, uint32_t len)
{
	const uint8_t *data = c->commands[tag].data + offset;

	for (uint32_t sn = 0, n; len > 0; sn++, data += n, offset += n, len -= n) {
		uint8_t *h = head(c);

		n = MIN(len, c->max_send);
		h[0] = 0x05;
		h[1] = n == len ? 0x80 : 0;
		if (lun)
			memcpy(h + 8, lun, 8);
		store_be32(h + 16, tag);
		store_be32(h + 20, ttt);
		store_be32(h + 28, c->exp_stat_sn);
		store_be32(h + 36, sn);
		store_be32(h + 40, offset);
		put(c, data, n);
	}
}

static void cdb_rw(uint8_t cdb[16], bool write, uint64_t unit, bool fua)
{
	uint32_t blocks = opt.block / lun_block_size;

	memset(cdb, 0, 16);
	cdb[0] = write ? 0x8a : 0x88;
	cdb[1] = fua ? 0x08 : 0;
	store_be64(cdb + 2, unit * blocks);
	store_be32(cdb + 10, blocks);
}

static void start_read(struct conn *c, uint32_t tag, uint64_t unit)
{
	uint8_t cdb[16];

	cdb_rw(cdb, false, unit, false);
	c->commands[tag].slot = unit;
	put_command(c, tag, 0xc0, opt.block, cdb, NULL, 0);
}

static void start_write(struct conn *c, uint32_t tag, uint64_t unit)
{
	uint32_t burst = MIN(c->first_burst, opt.block);
	uint32_t immediate = c->immediate ? MIN(c->max_send, burst) : 0;
	uint32_t first = c->initial_r2t ? immediate : burst;
	uint8_t cdb[16];

	cdb_rw(cdb, true, unit, opt.durable == DURABLE_FUA);
	put_command(c, tag, first > immediate ? 0x20 : 0xa0, opt.block, cdb,
		    c->commands[tag].data, immediate);
	if (first > immediate)
		put_data_out(c, tag, NO_TAG, NULL, immediate, first - immediate);
}

/* ---- verified writes ---- */

/* Every 16 bytes of a slot's block say which slot and which write of it. */
static void fill_block(uint8_t *p, uint64_t slot, uint32_t number)
{
	for (uint32_t i = 0; i < opt.block; i += 16) {
		store_be64(p + i, slot);
		store_be32(p + i + 8, number);
		store_be32(p + i + 12, i);
	}
}

static void check_block(const uint8_t *p, uint64_t slot)
{
	AUTO_FREE uint8_t *want = must(malloc(opt.block));
	uint32_t number = load_be32(p + 8);

	fill_block(want, slot, number);
	if (number == 0 && sent[slot] == 0)
		return;			/* never written */
	if (memcmp(p, want, opt.block) != 0) {
		memset(want, 0, opt.block);
		if (durable[slot] != 0 || memcmp(p, want, opt.block) != 0)
			die("slot %llu: neither one write nor another (%u durable, %u sent)",
			    (unsigned long long)slot, durable[slot], sent[slot]);
		number = 0;
	}
	if (number < durable[slot] || number > sent[slot])
		die("slot %llu has write %u, but %u was acknowledged as durable, and %u sent",
		    (unsigned long long)slot, number, durable[slot], sent[slot]);
}

static void log_save(void)
{
	FILE *f = must(fopen(opt.log, "w"));
	uint64_t n = 0;

	for (uint64_t i = 0; i < opt.slots; i++) {
		fprintf(f, "%u %u\n", durable[i], sent[i]);
		n += durable[i] > 0;
	}
	if (fclose(f) != 0)
		die("%s: %s", opt.log, strerror(errno));
	printf("%llu writes acknowledged, %llu of %llu slots hold a durable one\n",
	       (unsigned long long)done_commands, (unsigned long long)n,
	       (unsigned long long)opt.slots);
}

static void log_load(const char *path, bool may_be_new)
{
	FILE *f = fopen(path, "r");

	sent = must(calloc(opt.slots, sizeof(*sent)));
	written = must(calloc(opt.slots, sizeof(*written)));
	durable = must(calloc(opt.slots, sizeof(*durable)));
	syncing = must(calloc(opt.slots, sizeof(*syncing)));
	if (!f && may_be_new && errno == ENOENT)
		return;
	if (!f)
		die("%s: %s", path, strerror(errno));
	for (uint64_t i = 0; i < opt.slots; i++)
		if (fscanf(f, "%u %u", &durable[i], &sent[i]) != 2)
			die("%s: not a log of %llu slots", path, (unsigned long long)opt.slots);
	fclose(f);
	/* what was not acknowledged may be there or not; from here on it is what it is */
	memcpy(written, durable, opt.slots * sizeof(*written));
}

/* Slots are shared out among the commands, so that each has one write at a time. */
static void start_verified(struct conn *c, uint32_t tag)
{
	uint64_t n = opt.conns * (uint64_t)opt.depth, mine = c->index * (uint64_t)opt.depth + tag;
	uint64_t slot = mine + n * (random_u64() % (opt.slots / n));

	c->commands[tag].slot = slot;
	fill_block(c->commands[tag].data, slot, ++sent[slot]);
	start_write(c, tag, slot);
}

static void verified_done(struct conn *c, uint64_t slot)
{
	written[slot] = sent[slot];
	if (opt.durable == DURABLE_FUA || opt.durable == DURABLE_WCE)
		durable[slot] = sent[slot];
	if (opt.durable == DURABLE_SYNC && ++c->since_sync >= 2 * opt.depth && !c->syncing) {
		uint8_t cdb[16] = { 0x91 };

		c->since_sync = 0;
		c->syncing = true;
		memcpy(syncing, written, opt.slots * sizeof(*syncing));
		put_command(c, TAG_SYNC, 0x80, 0, cdb, NULL, 0);
	}
}

static void sync_done(struct conn *c)
{
	c->syncing = false;
	for (uint64_t i = 0; i < opt.slots; i++)
		durable[i] = MAX(durable[i], syncing[i]);
}

/* ---- one PDU at a time, before and after the load ---- */

static bool recv_all(struct conn *c, void *buf, size_t len)
{
	for (size_t got = 0; got < len;) {
		ssize_t r = recv(c->fd, (uint8_t *)buf + got, len - got, 0);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return false;
		got += (size_t)r;
	}
	return true;
}

static void numbers(struct conn *c, const uint8_t *h)
{
	c->max_cmd_sn = load_be32(h + 32);
	c->exp_stat_sn = load_be32(h + 24) + 1;
}

/* The next PDU into h and data (at most @size, the rest dropped); its length or -1. */
static int recv_pdu(struct conn *c, bool digests, uint8_t h[BHS], uint8_t *data, size_t size)
{
	uint32_t len, padded;
	uint8_t drop[8192], digest[4];

	if (!recv_all(c, h, BHS) || (digests && opt.header_digest && !recv_all(c, digest, 4)))
		return -1;
	len = load_be32(h + 4) & 0xffffff;
	padded = len + (-len & 3);
	for (uint32_t at = 0, n; at < padded; at += n) {
		bool keep = at < size;

		n = (uint32_t)MIN(padded - at, keep ? size - at : sizeof(drop));
		if (!recv_all(c, keep ? data + at : drop, n))
			return -1;
	}
	if (digests && opt.data_digest && len && !recv_all(c, digest, 4))
		return -1;
	numbers(c, h);
	return (int)len;
}

/* Text of the login answer: the value of a key, or NULL */
static const char *value_of(const char *text, int len, const char *key)
{
	size_t n = strlen(key);

	for (const char *p = text; p < text + len; p += strlen(p) + 1)
		if (!strncmp(p, key, n) && p[n] == '=')
			return p + n + 1;
	return NULL;
}

static bool connect_to(struct conn *c)
{
	static struct addrinfo *list;
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	const int on = 1;

	if (!list && getaddrinfo(opt.host, opt.port, &hints, &list) != 0)
		die("%s:%s: no such address", opt.host, opt.port);
	c->fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket: %s", strerror(errno));
	if (connect(c->fd, list->ai_addr, list->ai_addrlen) < 0) {
		close(c->fd);
		c->fd = -1;
		return false;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return true;
}

/* One request, straight into the operational stage and out of it. */
static bool log_in(struct conn *c)
{
	char text[1024], answer[8193];
	uint8_t h[BHS], *l;
	const char *v;
	int n;

	if (!connect_to(c))
		return false;
	n = snprintf(text, sizeof(text),
		     "InitiatorName=iqn.2026-11.org.vdisk.test:load%d-%u%cTargetName=%s%c"
		     "SessionType=Normal%cHeaderDigest=%s%cDataDigest=%s%cInitialR2T=No%c"
		     "ImmediateData=Yes%cFirstBurstLength=262144%cMaxBurstLength=1048576%c"
		     "MaxRecvDataSegmentLength=262144%cMaxOutstandingR2T=4%c",
		     (int)getpid(), c->index, 0, opt.iqn, 0, 0, opt.header_digest ? "CRC32C" : "None", 0,
		     opt.data_digest ? "CRC32C" : "None", 0, 0, 0, 0, 0, 0, 0);
	memset(text + n, 0, sizeof(text) - (size_t)n);
	l = head(c);
	l[0] = 0x43;
	l[1] = 0x80 | 1 << 2 | 3;
	l[8] = 0x80;
	store_be32(l + 10, c->index + 1);
	store_be32(l + 24, c->cmd_sn = 1);
	store_be32(l + 4, (uint32_t)n);
	c->iov[c->n_iov++] = (struct iovec) { l, BHS };
	c->iov[c->n_iov++] = (struct iovec) { text, (size_t)n + (-n & 3) };
	if (!flush(c))
		return false;
	n = recv_pdu(c, false, h, (uint8_t *)answer, sizeof(answer) - 1);
	if (n < 0)
		return false;
	if (load_be16(h + 36) != 0 || (h[1] & 0x83) != 0x83)
		die("login refused: status 0x%04x", load_be16(h + 36));
	answer[MIN((size_t)n, sizeof(answer) - 1)] = '\0';
	v = value_of(answer, n, "MaxRecvDataSegmentLength");
	c->max_send = v ? (uint32_t)strtoul(v, NULL, 10) : 8192;
	v = value_of(answer, n, "FirstBurstLength");
	c->first_burst = v ? (uint32_t)strtoul(v, NULL, 10) : 65536;
	v = value_of(answer, n, "ImmediateData");
	c->immediate = !v || !strcmp(v, "Yes");
	v = value_of(answer, n, "InitialR2T");
	c->initial_r2t = !v || !strcmp(v, "Yes");
	c->exp_stat_sn = load_be32(h + 24) + 1;
	return true;
}

/* The server understands nothing but reads and writes (tests/tools/bare-server). */
static bool begin_bare(struct conn *c)
{
	if (!connect_to(c))
		return false;
	c->cmd_sn = 1;
	c->max_cmd_sn = MAX_DEPTH;
	c->max_send = c->first_burst = 1u << 20;
	c->immediate = true;
	lun_block_size = 512;
	lun_blocks = opt.bare / lun_block_size;
	lun_units = opt.bare / opt.block;
	return true;
}

static void log_out(struct conn *c)
{
	uint8_t h[BHS], *l = head(c);

	l[0] = 0x46;
	l[1] = 0x80;
	store_be32(l + 16, 1);
	store_be32(l + 24, c->cmd_sn);
	store_be32(l + 28, c->exp_stat_sn);
	put(c, NULL, 0);
	if (!flush(c) || recv_pdu(c, true, h, NULL, 0) < 0 || (h[0] & 0x3f) != 0x26)
		die("no answer to a logout");
	close(c->fd);
	c->fd = -1;
}

/* A command by itself; its status, or -1.  The data read are in @data. */
static int command(struct conn *c, const uint8_t cdb[16], uint8_t flags, void *data, uint32_t len)
{
	bool write = flags & 0x20;
	uint8_t h[BHS];

	put_command(c, 0, flags, len, cdb, data, write ? len : 0);
	if (!flush(c))
		return -1;
	do {
		if (recv_pdu(c, true, h, write ? NULL : data, write ? 0 : len) < 0)
			return -1;
	} while ((h[0] & 0x3f) != 0x21 && !((h[0] & 0x3f) == 0x25 && h[1] & 1));
	return h[3];
}

/* Unit attentions away, and the size of the LUN. */
static bool get_ready(struct conn *c)
{
	uint8_t cdb[16] = { 0 }, capacity[32];

	for (int i = 0; command(c, cdb, 0x80, NULL, 0) != 0; i++)
		if (i == 8)
			return false;
	cdb[0] = 0x9e;
	cdb[1] = 0x10;
	cdb[13] = sizeof(capacity);
	if (command(c, cdb, 0xc0, capacity, sizeof(capacity)) != 0)
		return false;
	lun_blocks = load_be64(capacity) + 1;
	lun_block_size = load_be32(capacity + 8);
	lun_units = lun_blocks * lun_block_size / opt.block;
	return lun_block_size != 0 && lun_units > 0 && opt.block % lun_block_size == 0;
}

static void cache_off(struct conn *c)
{
	uint8_t select[16] = { 0x15, 0x10, 0, 0, 24 }, page[24] = { [4] = 0x08, [5] = 0x12 };

	if (command(c, select, 0xa0, page, sizeof(page)) != 0)
		die("the write cache cannot be switched off");
}

/* ---- the load ---- */

static bool start_one(struct conn *c, uint32_t tag)
{
	uint64_t unit;

	/* signed difference: is the window open? */
	if ((int32_t)(c->max_cmd_sn - c->cmd_sn) < 0)
		return false;
	c->commands[tag].busy = true;
	if (opt.log) {
		start_verified(c, tag);
		return true;
	}
	unit = opt.sequential ? c->next_lba++ % lun_units : random_u64() % lun_units;
	if (opt.write)
		start_write(c, tag, unit);
	else
		start_read(c, tag, unit);
	return true;
}

static void refill(struct conn *c)
{
	for (uint32_t tag = 0; tag < opt.depth; tag++)
		if (!c->commands[tag].busy && !start_one(c, tag))
			break;
}

static void finished(struct conn *c, uint32_t tag, uint8_t status)
{
	if (status != 0)
		failed_commands++;
	if (tag == TAG_SYNC) {
		sync_done(c);
		return;
	}
	if (tag >= opt.depth || !c->commands[tag].busy)
		die("an answer with tag 0x%x, which is not ours", tag);
	c->commands[tag].busy = false;
	done_commands++;
	if (opt.log && status == 0)
		verified_done(c, c->commands[tag].slot);
	start_one(c, tag);
}

static void handle(struct conn *c, const uint8_t *h)
{
	uint32_t tag = load_be32(h + 16);

	c->max_cmd_sn = load_be32(h + 32);
	switch (h[0] & 0x3f) {
	case 0x21:
		c->exp_stat_sn = load_be32(h + 24) + 1;
		finished(c, tag, h[3]);
		break;
	case 0x25:
		if (h[1] & 1) {
			c->exp_stat_sn = load_be32(h + 24) + 1;
			finished(c, tag, h[3]);
		}
		break;
	case 0x31:
		put_data_out(c, tag, load_be32(h + 20), h + 8, load_be32(h + 40), load_be32(h + 44));
		break;
	case 0x20: {			/* a ping: answer it */
		uint8_t *n = head(c);

		memcpy(n + 8, h + 8, 8);
		n[0] = 0x40;
		n[1] = 0x80;
		store_be32(n + 16, NO_TAG);
		store_be32(n + 20, load_be32(h + 20));
		store_be32(n + 24, c->cmd_sn);
		store_be32(n + 28, c->exp_stat_sn);
		put(c, NULL, 0);
		break;
	}
	case 0x32:			/* asked to log out: that is the end */
		c->lost = true;
		break;
	default:
		die("unexpected PDU 0x%02x", h[0]);
	}
}

/*
 * All PDUs that are here.  One is handled when its data are through: until then,
 * the target may need the tag of its command.
 */
static void parse(struct conn *c)
{
	size_t at = 0, head_len = BHS + (opt.header_digest ? 4 : 0);

	for (;;) {
		size_t left = c->have - at, drop = (size_t)MIN(c->skip, (uint64_t)left);
		const uint8_t *h;
		uint32_t len;

		at += drop;
		c->skip -= drop;
		if (c->skip == 0 && c->in_pdu) {
			c->in_pdu = false;
			handle(c, c->pdu);
		}
		if (c->skip || c->have - at < head_len)
			break;
		h = c->rx + at;
		len = load_be32(h + 4) & 0xffffff;
		c->skip = len + (-len & 3) + (len && opt.data_digest ? 4 : 0);
		memcpy(c->pdu, h, BHS);
		c->in_pdu = true;
		at += head_len;
	}
	memmove(c->rx, c->rx + at, c->have - at);
	c->have -= at;
}

/* Take what there is; waits for it if there is only one connection. */
static void receive(struct conn *c)
{
	bool skip = c->skip > SKIP_MIN;
	ssize_t r = skip ? recv(c->fd, NULL, c->skip, MSG_TRUNC | (opt.conns > 1 ? MSG_DONTWAIT : 0)) :
			   recv(c->fd, c->rx + c->have, RX_SIZE - c->have,
				opt.conns > 1 ? MSG_DONTWAIT : 0);

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0) {
		c->lost = true;
		return;
	}
	if (skip)
		c->skip -= (uint64_t)r;
	else
		c->have += (size_t)r;
	parse(c);
	/* the window may have been closed to some */
	if (c->n_iov == 0)
		refill(c);
	flush(c);
}

static double cpu_seconds(pid_t pid)
{
	char path[64], line[1024];
	unsigned long long user, sys;
	const char *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "r");
	if (!f || !fgets(line, sizeof(line), f))
		die("%s: cannot read it", path);
	fclose(f);
	p = strrchr(line, ')');
	if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &sys) != 2)
		die("%s: not understood", path);
	return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
		(double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static struct conn *conns_new(unsigned n)
{
	struct conn *conns = must(calloc(n, sizeof(*conns)));

	for (unsigned i = 0; i < n; i++) {
		conns[i].index = i;
		conns[i].fd = -1;
	}
	return conns;
}

static void conn_buffers(struct conn *c)
{
	c->rx = must(malloc(RX_SIZE));
	for (unsigned i = 0; i < opt.depth; i++) {
		c->commands[i].data = must(malloc(opt.block));
		memset(c->commands[i].data, 0xa5, opt.block);
	}
}

static void conns_free(struct conn *conns, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (conns[i].fd >= 0)
			close(conns[i].fd);
		free(conns[i].rx);
		for (unsigned k = 0; k < MAX_DEPTH; k++)
			free(conns[i].commands[k].data);
	}
	free(conns);
}

static bool any_lost(const struct conn *conns)
{
	for (unsigned i = 0; i < opt.conns; i++)
		if (conns[i].lost)
			return true;
	return false;
}

static void run_until(struct conn *conns, uint64_t end)
{
	AUTO_CLOSE int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[64];

	for (unsigned i = 0; i < opt.conns; i++) {
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &conns[i] };

		epoll_ctl(ep, EPOLL_CTL_ADD, conns[i].fd, &ev);
		conns[i].next_lba = lun_units / opt.conns * i;
		refill(&conns[i]);
		flush(&conns[i]);
	}
	while (!any_lost(conns) && (end == 0 || now_ns() < end)) {
		int n;

		if (opt.conns == 1) {
			receive(conns);
			continue;
		}
		n = epoll_wait(ep, events, ARRAY_SIZE(events), 1000);
		for (int i = 0; i < n; i++)
			receive(events[i].data.ptr);
	}
}

static void report(double wall, double client, double target)
{
	double n = (double)MAX(done_commands, 1ull), mb = n * opt.block / wall / 1e6;

	if (opt.json)
		printf("{\"iops\": %.0f, \"mb-per-s\": %.1f, \"client-us-per-op\": %.3f, "
		       "\"target-us-per-op\": %.3f, \"failed\": %llu}\n", n / wall, mb,
		       client * 1e6 / n, target * 1e6 / n, (unsigned long long)failed_commands);
	else
		printf("%.0f /s, %.1f MB/s, %.2f us CPU a command here, %.2f us in the target\n",
		       n / wall, mb, client * 1e6 / n, target * 1e6 / n);
}

static int load(void)
{
	struct conn *conns = conns_new(opt.conns);
	double target, own;
	uint64_t start;

	for (unsigned i = 0; i < opt.conns; i++) {
		conn_buffers(&conns[i]);
		if (opt.bare ? !begin_bare(&conns[i]) : !log_in(&conns[i]) || !get_ready(&conns[i]))
			die("cannot use the LUN");
		if (opt.durable == DURABLE_WCE && i == 0)
			cache_off(&conns[i]);
	}
	/* once more: what the mode select of the first one told the others */
	for (unsigned i = 0; opt.durable == DURABLE_WCE && i < opt.conns; i++)
		get_ready(&conns[i]);
	if (opt.log) {
		if (opt.slots > lun_units || opt.slots < opt.conns * (uint64_t)opt.depth)
			die("--slots does not fit");
		log_load(opt.log, true);
	}
	start = now_ns();
	own = own_cpu_seconds();
	target = opt.pid ? cpu_seconds(opt.pid) : 0;
	run_until(conns, opt.log && opt.seconds == 0 ? 0 : start + opt.seconds * 1000000000ull);
	if (opt.log)
		log_save();
	else if (any_lost(conns))
		die("the connection is lost");
	else
		report((double)(now_ns() - start) / 1e9, own_cpu_seconds() - own,
		       opt.pid ? cpu_seconds(opt.pid) - target : 0);
	conns_free(conns, opt.conns);
	return failed_commands ? 1 : 0;
}

/* Read every slot and compare with the log. */
static int check_slots(void)
{
	struct conn *c = conns_new(1);
	AUTO_FREE uint8_t *block = must(malloc(opt.block));
	uint8_t cdb[16];

	if (!log_in(c) || !get_ready(c))
		die("cannot use the LUN");
	log_load(opt.check, false);
	for (uint64_t slot = 0; slot < opt.slots; slot++) {
		cdb_rw(cdb, false, slot, false);
		if (command(c, cdb, 0xc0, block, opt.block) != 0)
			die("slot %llu cannot be read", (unsigned long long)slot);
		check_block(block, slot);
		done_commands += durable[slot] > 0;
	}
	printf("%llu durable slots are there\n", (unsigned long long)done_commands);
	log_out(c);
	conns_free(c, 1);
	return 0;
}

static int login_cycles(void)
{
	uint64_t start = now_ns();

	for (unsigned i = 0; i < opt.cycles; i++) {
		struct conn *c = conns_new(1);

		c->index = i % 64;
		if (!log_in(c))
			die("login %u failed", i);
		log_out(c);
		conns_free(c, 1);
	}
	printf("%u logins in %.1f s\n", opt.cycles, (double)(now_ns() - start) / 1e9);
	return 0;
}

/* Hold sessions, use each, and stay until standard input ends. */
static int hold_sessions(void)
{
	struct conn *conns = conns_new(opt.sessions);
	struct rlimit limit;
	char c;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	for (unsigned i = 0; i < opt.sessions; i++)
		if (!log_in(&conns[i]) || !get_ready(&conns[i]))
			die("session %u: no login", i);
	printf("%u sessions\n", opt.sessions);
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	for (unsigned i = 0; i < opt.sessions; i++) {
		if (!get_ready(&conns[i]))
			die("session %u is gone", i);
		log_out(&conns[i]);
	}
	conns_free(conns, opt.sessions);
	return 0;
}

static unsigned number(const char *text, unsigned max)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*end == 'k')
		v <<= 10, end++;
	else if (*end == 'M')
		v <<= 20, end++;
	if (end == text || *end || v > max)
		die("%s: not a number up to %u", text, max);
	return (unsigned)v;
}

static void help(void)
{
	puts("Usage: iscsi-load [OPTION...] ADDRESS:PORT TARGET\n"
	     "Load an iSCSI target, and tell its rate and the CPU time of a command.\n\n"
	     "  -c, --connections=N    sessions side by side (1)\n"
	     "  -q, --depth=N          commands under way in each (32)\n"
	     "  -b, --block=SIZE       bytes a command (4k)\n"
	     "  -w, --write            instead of reading\n"
	     "  -s, --sequential       instead of random places\n"
	     "  -t, --time=SECONDS     (3)\n"
	     "  -l, --lun=N            (0)\n"
	     "      --header-digest, --data-digest\n"
	     "      --pid=PID          the target's process, for its CPU time\n"
	     "      --cpu=N            run on this processor\n"
	     "      --bare=SIZE        the server is bare-server, with a file of this size\n"
	     "      --json\n\n"
	     "  --log=FILE --slots=N --durable=fua|wce|sync\n"
	     "                         verified writes until the target is gone (or --time)\n"
	     "  --check=FILE --slots=N read them back\n"
	     "  --cycles=N             log in and out N times\n"
	     "  --sessions=N           hold N sessions until standard input ends");
}

static void parse_options(int argc, char **argv)
{
	enum { HEADER = 256, DATA, PID, CPU, BARE, JSON, LOG, SLOTS, DURABLE, CHECK, CYCLES, SESSIONS };
	static const struct option options[] = {
		{ "connections", required_argument, NULL, 'c' },
		{ "depth", required_argument, NULL, 'q' },
		{ "block", required_argument, NULL, 'b' },
		{ "write", no_argument, NULL, 'w' },
		{ "sequential", no_argument, NULL, 's' },
		{ "time", required_argument, NULL, 't' },
		{ "lun", required_argument, NULL, 'l' },
		{ "header-digest", no_argument, NULL, HEADER },
		{ "data-digest", no_argument, NULL, DATA },
		{ "pid", required_argument, NULL, PID },
		{ "cpu", required_argument, NULL, CPU },
		{ "bare", required_argument, NULL, BARE },
		{ "json", no_argument, NULL, JSON },
		{ "log", required_argument, NULL, LOG },
		{ "slots", required_argument, NULL, SLOTS },
		{ "durable", required_argument, NULL, DURABLE },
		{ "check", required_argument, NULL, CHECK },
		{ "cycles", required_argument, NULL, CYCLES },
		{ "sessions", required_argument, NULL, SESSIONS },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;
	char *colon;

	while ((c = getopt_long(argc, argv, "c:q:b:wst:l:h", options, NULL)) != -1) {
		switch (c) {
		case 'c': opt.conns = number(optarg, 1024); break;
		case 'q': opt.depth = number(optarg, MAX_DEPTH); break;
		case 'b': opt.block = number(optarg, 8u << 20); break;
		case 'w': opt.write = true; break;
		case 's': opt.sequential = true; break;
		case 't': opt.seconds = number(optarg, 86400); break;
		case 'l': opt.lun = number(optarg, 255); break;
		case HEADER: opt.header_digest = true; break;
		case DATA: opt.data_digest = true; break;
		case PID: opt.pid = (pid_t)number(optarg, 1u << 30); break;
		case CPU: opt.cpu = (int)number(optarg, 1023); break;
		case BARE: opt.bare = number(optarg, UINT32_MAX); break;
		case JSON: opt.json = true; break;
		case LOG: opt.log = optarg; break;
		case SLOTS: opt.slots = number(optarg, 1u << 30); break;
		case DURABLE:
			opt.durable = !strcmp(optarg, "fua") ? DURABLE_FUA :
				      !strcmp(optarg, "wce") ? DURABLE_WCE :
				      !strcmp(optarg, "sync") ? DURABLE_SYNC : DURABLE_NONE;
			break;
		case CHECK: opt.check = optarg; break;
		case CYCLES: opt.cycles = number(optarg, 1u << 30); break;
		case SESSIONS: opt.sessions = number(optarg, 100000); break;
		case 'h': help(); exit(0);
		default: exit(2);
		}
	}
	if (argc - optind != 2 || !(colon = strrchr(argv[optind], ':')) || !opt.conns || !opt.depth ||
	    ((opt.log || opt.check) && !opt.slots) || (opt.log && !opt.durable)) {
		fprintf(stderr, "iscsi-load: wrong usage; see --help\n");
		exit(2);
	}
	*colon = '\0';
	opt.host = argv[optind];
	opt.port = colon + 1;
	opt.iqn = argv[optind + 1];
}

int main(int argc, char **argv)
{
	parse_options(argc, argv);
	if (opt.cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET((unsigned)opt.cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set) < 0)
			die("processor %d: %s", opt.cpu, strerror(errno));
	}
	if (opt.cycles)
		return login_cycles();
	if (opt.sessions)
		return hold_sessions();
	return opt.check ? check_slots() : load();
}
