/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench.c - the first process of a Linux that measures its disk
 *
 * The kernel's command line has runs=KIND:BYTES:DEPTH:MS,...; KIND is r or w
 * (random), R or W (one after the other).  For each it prints BEGIN when it starts
 * and RUN with what was done when it ends, so that whoever reads can look at the
 * back end's processor time in between.  With count=N each run is N requests, with
 * talk it waits for a line of input before it begins and after it has ended.  KIND s is
 * r with a system call for each request: the others submit all that they have at once.
 *
 * Without runs= it says INIT and switches a machine of vmm-lite off in the shortest
 * way, so that what is counted is the way up to here.
 *
 * Built static, alone in an initramfs with the modules of virtio_blk, which it loads
 * in the order of their names.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 64u

static uint64_t rng = 88172645463325252u, size;
static unsigned long requests;	/* of each run; 0: by time */
static int disk, talk;

static void off(const char *why)
{
	if (why)
		printf("FAILED %s: %s\n", why, strerror(errno));
	fflush(stdout);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void prepare(struct iocb *cb, char kind, uint32_t bytes, uint64_t *at, void *buf)
{
	int in_order = kind == 'R' || kind == 'W';
	uint64_t n = size / bytes, block = in_order ? (*at)++ % n : next() % n;

	memset(cb, 0, sizeof(*cb));
	cb->aio_fildes = (uint32_t)disk;
	cb->aio_lio_opcode = kind == 'r' || kind == 'R' || kind == 's' ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
	cb->aio_buf = (uintptr_t)buf;
	cb->aio_nbytes = bytes;
	cb->aio_offset = (int64_t)(block * bytes);
}

/* What the disk's interrupts have been so far. */
static unsigned long interrupts(void)
{
	FILE *f = fopen("/proc/interrupts", "r");
	unsigned long all = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "-req."))
			all += strtoul(strchr(line, ':') + 1, NULL, 10);
	if (f)
		fclose(f);
	return all;
}

static void wait_for_line(void)
{
	int c;

	fflush(stdout);
	while (talk && (c = getchar()) != '\n')
		if (c == EOF)
			off("input");
}

static void submit(aio_context_t ctx, struct iocb **list, long n, long at_once)
{
	for (; n > 0; n -= at_once, list += at_once)
		if (syscall(SYS_io_submit, ctx, at_once, list) != at_once)
			off("io_submit");
}

static void run(char kind, uint32_t bytes, unsigned depth, unsigned ms)
{
	static struct iocb cb[DEPTH_MAX], *list[DEPTH_MAX];
	static struct io_event done[DEPTH_MAX];
	aio_context_t ctx = 0;
	uint64_t count = 0, at = 0;
	unsigned long before;
	double start, end;
	char *mem;
	long n = depth;

	if (depth > DEPTH_MAX || posix_memalign((void **)&mem, 4096, (size_t)bytes * depth) ||
	    syscall(SYS_io_setup, depth, &ctx) < 0)
		off("io_setup");
	memset(mem, 0x5a, (size_t)bytes * depth);
	printf("BEGIN %c:%u:%u\n", kind, bytes, depth);
	wait_for_line();
	before = interrupts();
	start = now();
	end = start + ms / 1e3;
	for (unsigned i = 0; i < depth; i++) {
		prepare(&cb[i], kind, bytes, &at, mem + (size_t)bytes * i);
		list[i] = &cb[i];
	}
	for (;;) {
		submit(ctx, list, n, kind == 's' || n == 0 ? 1 : n);
		n = syscall(SYS_io_getevents, ctx, 1L, (long)depth, done, NULL);
		for (long i = 0; i < n; i++) {
			struct iocb *c = (struct iocb *)(uintptr_t)done[i].obj;

			if (done[i].res != (int64_t)bytes)
				off("transfer");
			count++;
			prepare(c, kind, bytes, &at, (void *)(uintptr_t)c->aio_buf);
			list[i] = c;
		}
		if (requests ? count >= requests : now() >= end)
			break;
	}
	end = now();
	before = interrupts() - before;
	printf("RUN %c:%u:%u %.0f\n", kind, bytes, depth, (double)count / (end - start));
	printf("INTERRUPTS %lu\n", before);
	printf("COUNT %llu\n", (unsigned long long)count);
	wait_for_line();
	syscall(SYS_io_destroy, ctx);
	free(mem);
}

static void load_drivers(void)
{
	struct dirent **name;
	int n = scandir("/", &name, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		int fd = strstr(name[i]->d_name, ".ko") ? open(name[i]->d_name, O_RDONLY) : -1;

		/* it may be in the kernel already */
		if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
			off(name[i]->d_name);
	}
}

static void find_disk(void)
{
	for (int i = 0; i < 500 && (disk = open("/dev/vda", O_RDWR | O_DIRECT)) < 0; i++)
		usleep(10000);
	if (disk < 0 || ioctl(disk, BLKGETSIZE64, &size) < 0)
		off("/dev/vda");
}

int main(void)
{
	static char line[4096];
	char *runs, kind;
	unsigned bytes, depth, ms;
	int used = 0;
	FILE *f;

	(void)!chdir("/");
	mkdir("/proc", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	f = fopen("/proc/cmdline", "r");
	if (!f || !fgets(line, sizeof(line), f))
		off("command line");
	runs = strstr(line, " runs=");
	if (!runs) {
		printf("INIT\n");
		fflush(stdout);
		if (iopl(3) == 0)
			outb(0x34, 0x600);	/* S5, as vmm-lite's ACPI tables say */
		off(NULL);
	}
	runs++;
	if (strstr(line, " count="))
		requests = strtoul(strstr(line, " count=") + 7, NULL, 10);
	talk = strstr(line, " talk") != NULL;
	load_drivers();
	find_disk();
	for (runs += 5; sscanf(runs, "%c:%u:%u:%u%n", &kind, &bytes, &depth, &ms, &used) == 4;
	     runs += used + (runs[used] == ','))
		run(kind, bytes, depth, ms);
	off(NULL);
}
