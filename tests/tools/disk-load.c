/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk-load.c - random requests to a disk, each checked against a model
 *
 * usage: disk-load [-t SECONDS] [-q SLOTS] [-s SEED] [-b BYTES] [-r] DISK
 *
 * A slot is one request in flight in a megabyte of its own, whose content is
 * known at every moment.  Lengths and offsets are multiples of BYTES (default
 * 512; 1 for any).  At the end everything is flushed and read once more.
 * -r: only read what is there, twice, and compare.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vdisk.h"

#define SLOT_BYTES	((uint64_t)1 << 20)
#define LENGTH_MAX	((uint64_t)256 << 10)

struct slot {
	struct vdisk_request req;
	struct iovec iov[2];
	uint64_t base;
	uint8_t *model, *buf;
	uint8_t last;	/* enum vdisk_op */
	bool settle;	/* what was discarded is being looked at */
};

static uint64_t rng;
static uint64_t grain = 512, counted, errors;
static struct vdisk_queue *queue;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static void fatal(const char *what, const char *why)
{
	fprintf(stderr, "disk-load: %s: %s\n", what, why);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void set(struct slot *s, uint8_t op, uint64_t off, uint64_t len)
{
	struct vdisk_request *r = &s->req;
	uint64_t cut = len > 4096 ? 4096 : len;

	s->last = op;
	r->op = op;
	r->flags = 0;
	r->offset = s->base + off;
	r->length = len;
	/* two buffers, as guests have them */
	s->iov[0] = (struct iovec) { s->buf, cut };
	s->iov[1] = (struct iovec) { s->buf + cut, len - cut };
	r->iov = s->iov;
	r->iovcnt = len > cut ? 2 : 1;
}

static void choose(struct slot *s)
{
	uint64_t what = next() % 100;
	uint64_t len = (next() % (next() % 8 ? 32768 : LENGTH_MAX) / grain + 1) * grain;
	uint64_t off = next() % (SLOT_BYTES - len + 1) / grain * grain;

	s->settle = false;
	if (what < 40) {
		set(s, VDISK_OP_READ, off, len);
		memset(s->buf, 0xee, len);
	} else if (what < 84) {
		set(s, VDISK_OP_WRITE, off, len);
		if (what >= 80)
			s->req.flags = VDISK_REQ_FUA;
		for (uint64_t i = 0; i < len; i++)
			s->buf[i] = (uint8_t)(i % 8 ? s->buf[i - 1] * 5u + 1u : next());
		memcpy(s->model + off, s->buf, len);
	} else if (what < 91) {
		set(s, VDISK_OP_ZERO, off, len);
		if (what % 2)
			s->req.flags = VDISK_REQ_UNMAP;
		memset(s->model + off, 0, len);
	} else if (what < 96) {
		set(s, VDISK_OP_DISCARD, off, len);
	} else {
		set(s, VDISK_OP_FLUSH, 0, 0);
	}
}

/* Of what was discarded, each byte is what it was, or zero. */
static bool take_discarded(struct slot *s, uint64_t off, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++) {
		if (s->buf[i] && s->buf[i] != s->model[off + i])
			return false;
		s->model[off + i] = s->buf[i];
	}
	return true;
}

/* Look at an answer; true: the slot is free for the next request. */
static bool finish(struct slot *s)
{
	uint64_t off = s->req.offset - s->base, len = s->req.length;
	bool good = true;

	counted++;
	if (s->req.result < 0) {
		fprintf(stderr, "disk-load: operation %u at %llu, %llu bytes: %s\n", s->last,
			(unsigned long long)s->req.offset, (unsigned long long)len,
			strerror(-s->req.result));
		errors++;
		return true;
	}
	if (s->last == VDISK_OP_DISCARD) {
		set(s, VDISK_OP_READ, off, len);
		s->settle = true;
		return false;
	}
	if (s->settle)
		good = take_discarded(s, off, len);
	else if (s->last == VDISK_OP_READ)
		good = !memcmp(s->buf, s->model + off, len);
	if (!good) {
		fprintf(stderr, "disk-load: wrong bytes in %llu bytes at %llu%s\n",
			(unsigned long long)len, (unsigned long long)s->req.offset,
			s->settle ? " after a discard" : "");
		errors++;
	}
	return true;
}

static void run(struct slot *slots, unsigned n, double seconds)
{
	struct vdisk_request *batch[256], *go[256];
	double end = now() + seconds;
	unsigned busy = n;

	for (unsigned i = 0; i < n; i++) {
		choose(&slots[i]);
		go[i] = &slots[i].req;
	}
	vdisk_queue_submit(queue, go, n);
	while (busy) {
		int got = vdisk_queue_reap(queue, batch, ARRAY_SIZE(batch), -1);
		unsigned n_go = 0;

		for (int i = 0; i < got; i++) {
			struct slot *s = batch[i]->user;
			bool free_now = finish(s);

			if (free_now && (now() >= end || errors)) {
				busy--;
				continue;
			}
			if (free_now)
				choose(s);
			go[n_go++] = &s->req;
		}
		vdisk_queue_submit(queue, go, n_go);
	}
}

static void check_all(struct vdisk *d, struct slot *slots, unsigned n)
{
	int r = vdisk_flush(d);

	if (r < 0)
		fatal("flush", strerror(-r));
	for (unsigned i = 0; i < n; i++) {
		r = vdisk_read(d, slots[i].buf, SLOT_BYTES, slots[i].base);
		if (r < 0)
			fatal("read", strerror(-r));
		if (memcmp(slots[i].buf, slots[i].model, SLOT_BYTES))
			fatal("at the end", "wrong bytes");
	}
}

static void read_twice(struct vdisk *d, struct slot *slots, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (vdisk_read(d, slots[i].model, SLOT_BYTES, slots[i].base) < 0 ||
		    vdisk_read(d, slots[i].buf, SLOT_BYTES, slots[i].base) < 0 ||
		    memcmp(slots[i].buf, slots[i].model, SLOT_BYTES))
			fatal("read", "failed, or differs");
}

int main(int argc, char **argv)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .flags = VDISK_OPEN_WRITE };
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;
	struct slot *slots;
	double seconds = 3;
	unsigned n = 16;
	bool read_only = false;
	int c;

	rng = (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	while ((c = getopt(argc, argv, "t:q:s:b:r")) != -1) {
		switch (c) {
		case 't': seconds = atof(optarg); break;
		case 'q': n = (unsigned)atoi(optarg); break;
		case 's': rng = strtoull(optarg, NULL, 10); break;
		case 'b': grain = strtoull(optarg, NULL, 10); break;
		case 'r': read_only = true; o.flags = 0; break;
		default: return 2;
		}
	}
	if (optind + 1 != argc || !rng || !n || n > 256 || !grain)
		return 2;
	printf("seed %llu\n", (unsigned long long)rng);
	fflush(stdout);
	if (vdisk_open(&d, argv[optind], &o, &err) < 0)
		fatal("open", err.msg);
	if (vdisk_size(d) / SLOT_BYTES < n)
		fatal(argv[optind], "too small");
	if (vdisk_queue_new(&queue, NULL, &err) < 0)
		fatal("queue", err.msg);
	slots = calloc(n, sizeof(*slots));
	for (unsigned i = 0; slots && i < n; i++) {
		struct slot *s = &slots[i];

		s->base = i * SLOT_BYTES;
		s->req.disk = d;
		s->req.user = s;
		s->model = malloc(SLOT_BYTES);
		s->buf = malloc(SLOT_BYTES);
		if (!s->model || !s->buf)
			fatal("memory", "none");
		if (!read_only && vdisk_read(d, s->model, SLOT_BYTES, s->base) < 0)
			fatal("read", "failed");
	}
	if (read_only) {
		read_twice(d, slots, n);
	} else {
		run(slots, n, seconds);
		check_all(d, slots, n);
	}
	vdisk_queue_free(queue);
	if (vdisk_close(d, &err) < 0)
		fatal("close", err.msg);
	for (unsigned i = 0; i < n; i++) {
		free(slots[i].model);
		free(slots[i].buf);
	}
	free(slots);
	printf("%llu operations, %llu errors\n", (unsigned long long)counted,
	       (unsigned long long)errors);
	return errors != 0;
}
