/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench.c - vdisk bench: how fast is a disk through a queue?
 *
 * One thread keeps --qd requests in flight: what comes back in one reap is
 * submitted again in one batch.  The clock is read once a batch; latencies,
 * which need it for every request, are measured only when asked for.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/commands.h"

struct bench_args {
	bool write, random;
	uint64_t bs, step, range, count;
	unsigned long qd;
	double seconds;
	bool latency, direct;
};

enum {
	OPT_RW = 0x2000, OPT_BS, OPT_QD, OPT_TIME, OPT_SIZE, OPT_COUNT, OPT_LATENCY, OPT_DIRECT,
	OPT_STEP,
};

static const struct argp_option bench_options[] = {
	{ "rw", OPT_RW, "read|write|randread|randwrite", 0, "What to do (default: randread)", 0 },
	{ "bs", OPT_BS, "SIZE", 0, "Bytes a request (default: 4K)", 0 },
	{ "qd", OPT_QD, "N", 0, "Requests in flight (default: 32)", 0 },
	{ "time", OPT_TIME, "SECONDS", 0, "How long (default: 3)", 0 },
	{ "count", OPT_COUNT, "N", 0, "Stop after so many requests", 0 },
	{ "size", OPT_SIZE, "SIZE", 0, "Only the first SIZE bytes of the disk", 0 },
	{ "step", OPT_STEP, "SIZE", 0, "From one request to the next (default: --bs)", 0 },
	{ "latency", OPT_LATENCY, NULL, 0, "Measure how long each request takes, too", 0 },
	{ "direct", OPT_DIRECT, NULL, 0, "Bypass the page cache", 0 },
	{ 0 },
};

static error_t parse_bench(int key, char *arg, struct argp_state *state)
{
	struct bench_args *a = state->input;
	char *end;

	switch (key) {
	case OPT_RW:
		a->random = !strncmp(arg, "rand", 4);
		a->write = !strcmp(arg + (a->random ? 4 : 0), "write");
		if (!a->write && strcmp(arg + (a->random ? 4 : 0), "read"))
			cli_usage("--rw is read, write, randread or randwrite, not '%s'", arg);
		return 0;
	case OPT_BS:
		a->bs = cli_size("--bs", arg);
		if (a->bs == 0 || a->bs > 64 << 20)
			cli_usage("--bs: from 512 bytes to 64 MiB");
		return 0;
	case OPT_QD:
		a->qd = cli_number("--qd", arg, 1, 4096);
		return 0;
	case OPT_TIME:
		a->seconds = strtod(arg, &end);
		if (end == arg || *end || !(a->seconds > 0))
			cli_usage("--time: '%s' is not a number of seconds", arg);
		return 0;
	case OPT_COUNT:
		a->count = cli_number("--count", arg, 1, UINT32_MAX);
		return 0;
	case OPT_SIZE:
		a->range = cli_size("--size", arg);
		return 0;
	case OPT_STEP:
		a->step = cli_size("--step", arg);
		return 0;
	case OPT_LATENCY:
		a->latency = true;
		return 0;
	case OPT_DIRECT:
		a->direct = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp bench_argp = {
	.options = bench_options, .parser = parse_bench, .children = cli_disk,
	.args_doc = "DISK", .doc = "Measure how fast a disk is.  Writing destroys what it holds.",
};

/* Latencies in buckets of an eighth of a power of two. */
#define SUB_BITS 3
struct histogram {
	uint64_t count[64 << SUB_BITS];
	uint64_t max;
};

static void add(struct histogram *h, uint64_t ns)
{
	unsigned top = 63 - (unsigned)__builtin_clzll(ns | 1);
	unsigned shift = top > SUB_BITS ? top - SUB_BITS : 0;

	h->count[((uint64_t)shift << SUB_BITS) + (ns >> shift)]++;
	h->max = MAX(h->max, ns);
}

static uint64_t percentile(const struct histogram *h, uint64_t total, double p)
{
	uint64_t want = (uint64_t)((double)total * p / 100), sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(h->count); i++) {
		size_t shift = i >> SUB_BITS ? (i >> SUB_BITS) - 1 : 0;

		sum += h->count[i];
		if (sum > want)
			return MIN((uint64_t)(i - (shift << SUB_BITS)) << shift, h->max);
	}
	return h->max;
}

struct bench {
	const struct bench_args *args;
	struct vdisk *disk;
	struct vdisk_queue *queue;
	struct vdisk_request *reqs, **batch;	/* owned */
	struct iovec *iov;			/* owned */
	uint8_t *buffers;			/* owned */
	uint64_t *started;			/* owned; with --latency */
	uint64_t blocks, next, seed;
	uint64_t submitted, done;
	struct histogram histogram;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t next_block(struct bench *b)
{
	uint64_t block = b->next;

	if (b->args->random) {
		b->seed ^= b->seed << 13;
		b->seed ^= b->seed >> 7;
		b->seed ^= b->seed << 17;
		return (uint64_t)(((unsigned __int128)b->seed * b->blocks) >> 64);
	}
	b->next = block + 1 < b->blocks ? block + 1 : 0;
	return block;
}

static void setup_requests(struct bench *b)
{
	for (unsigned long i = 0; i < b->args->qd; i++) {
		b->iov[i] = (struct iovec) { b->buffers + i * b->args->bs, (size_t)b->args->bs };
		b->reqs[i] = (struct vdisk_request) {
			.disk = b->disk,
			.op = b->args->write ? VDISK_OP_WRITE : VDISK_OP_READ,
			.iov = &b->iov[i], .iovcnt = 1, .length = b->args->bs,
		};
		b->batch[i] = &b->reqs[i];
	}
}

static void submit(struct bench *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		b->batch[i]->offset = next_block(b) * b->args->step;
		if (b->started)
			b->started[b->batch[i] - b->reqs] = now_ns();
	}
	b->submitted += n;
	vdisk_queue_submit(b->queue, b->batch, n);
}

/* Count what is in the batch; -errno of the first failure. */
static int account(struct bench *b, unsigned n)
{
	uint64_t now = b->started ? now_ns() : 0;

	b->done += n;
	for (unsigned i = 0; i < n; i++) {
		if (b->batch[i]->result < 0)
			return b->batch[i]->result;
		if (b->started)
			add(&b->histogram, now - b->started[b->batch[i] - b->reqs]);
	}
	return 0;
}

static int run(struct bench *b, uint64_t *elapsed)
{
	uint64_t start = now_ns(), now;
	uint64_t end = start + (uint64_t)(b->args->seconds * 1e9);
	unsigned qd = (unsigned)b->args->qd;
	int n, r;

	submit(b, qd);
	for (;;) {
		n = vdisk_queue_reap(b->queue, b->batch, qd, -1);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? n : -EIO;
		r = account(b, (unsigned)n);
		if (r < 0)
			return r;
		now = now_ns();
		if (now >= end || (b->args->count && b->submitted >= b->args->count))
			break;
		submit(b, (unsigned)n);
	}
	/* what is still in flight has been paid for: count it */
	while ((n = vdisk_queue_reap(b->queue, b->batch, qd, -1)) > 0 || n == -EINTR) {
		if (n > 0 && (r = account(b, (unsigned)n)) < 0)
			return r;
	}
	*elapsed = now_ns() - start;
	return n;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static json_t *latencies(const struct bench *b)
{
	static const struct {
		const char *key;
		double p;
	} points[] = { { "p50", 50 }, { "p90", 90 }, { "p99", 99 }, { "p99.9", 99.9 } };
	json_t *o = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(points); i++)
		json_object_set_new(o, points[i].key, json_real(
			(double)percentile(&b->histogram, b->done, points[i].p) / 1e3));
	json_object_set_new(o, "max", json_real((double)b->histogram.max / 1e3));
	return o;
}

static int print_result(const struct bench *b, double wall, double cpu)
{
	double ops = (double)b->done;
	json_t *o, *lat = b->args->latency ? latencies(b) : NULL, *v;
	const char *key;

	if (cli.json) {
		o = json_pack("{s:s,s:I,s:i,s:s,s:I,s:f,s:f,s:f,s:f,s:f}",
			      "rw", b->args->random ? b->args->write ? "randwrite" : "randread" :
				    b->args->write ? "write" : "read",
			      "bs", (json_int_t)b->args->bs, "qd", (int)b->args->qd,
			      "backend", vdisk_queue_name(b->queue),
			      "ops", (json_int_t)b->done, "seconds", wall, "iops", ops / wall,
			      "mb-per-second", ops * (double)b->args->bs / wall / 1e6,
			      "cpu-seconds", cpu, "cpu-us-per-op", cpu * 1e6 / ops);
		if (lat)
			json_object_set_new(o, "latency-us", lat);
		return cli_print_json(o);
	}
	printf("%.0f IOPS, %.1f MB/s, %.2f us of CPU an operation (%s, %" PRIu64 " in %.2f s)\n",
	       ops / wall, ops * (double)b->args->bs / wall / 1e6, cpu * 1e6 / ops,
	       vdisk_queue_name(b->queue), b->done, wall);
	json_object_foreach(lat, key, v)
		printf("  %-5s %10.1f us\n", key, json_real_value(v));
	json_decref(lat);
	return CLI_OK;
}

static int measure(struct bench *b)
{
	const struct bench_args *a = b->args;
	struct vdisk_queue_opts opts = { .size = sizeof(opts), .depth = (uint32_t)a->qd };
	struct vdisk_error err = { 0 };
	uint64_t elapsed = 0;
	double cpu;
	int r;

	if (vdisk_queue_new(&b->queue, &opts, &err) < 0)
		return cli_fail(&err);
	setup_requests(b);
	cpu = cpu_seconds();
	r = run(b, &elapsed);
	cpu = cpu_seconds() - cpu;
	if (r < 0) {
		cli_error("%s: %s", vdisk_name(b->disk), strerror(-r));
		r = CLI_FAILED;
	} else {
		r = print_result(b, (double)elapsed / 1e9, cpu);
	}
	vdisk_queue_free(b->queue);
	return r;
}

static int with_buffers(struct bench *b)
{
	const struct bench_args *a = b->args;
	int status = CLI_FAILED;

	b->reqs = calloc(a->qd, sizeof(*b->reqs));
	b->batch = calloc(a->qd, sizeof(struct vdisk_request *));
	b->iov = calloc(a->qd, sizeof(*b->iov));
	b->started = a->latency ? calloc(a->qd, sizeof(*b->started)) : NULL;
	if (posix_memalign((void **)&b->buffers, 4096, a->qd * a->bs))
		b->buffers = NULL;
	if (b->reqs && b->batch && b->iov && b->buffers && (b->started || !a->latency)) {
		memset(b->buffers, 0xa5, a->qd * a->bs);
		status = measure(b);
	} else {
		cli_error("out of memory");
	}
	free(b->reqs);
	free(b->batch);
	free(b->iov);
	free(b->started);
	free(b->buffers);
	return status;
}

int cmd_bench(int argc, char **argv)
{
	struct bench_args a = { .bs = 4096, .qd = 32, .seconds = 3, .random = true };
	char **args = cli_parse(&bench_argp, argc, argv, &a, 1, 1);
	AUTO_DISK struct vdisk *disk = NULL;
	struct bench b = { .args = &a, .seed = UINT64_C(0x9e3779b97f4a7c15) };
	int status;

	if (a.write && !cli_confirm("writing destroys what %s holds", args[0]))
		return CLI_FAILED;
	if (cli_open(&disk, args[0], (a.write ? VDISK_OPEN_WRITE : 0) |
		     (a.direct ? VDISK_OPEN_DIRECT : 0)) < 0)
		return CLI_FAILED;
	if (!a.range || a.range > vdisk_size(disk))
		a.range = vdisk_size(disk);
	if (!a.step)
		a.step = a.bs;
	if (a.range < a.bs) {
		cli_error("%s: smaller than one request", args[0]);
		return CLI_FAILED;
	}
	b.disk = disk;
	b.blocks = (a.range - a.bs) / a.step + 1;
	status = with_buffers(&b);
	return cli_close(&disk) == CLI_OK ? status : CLI_FAILED;
}
