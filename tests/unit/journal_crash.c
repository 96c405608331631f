/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * journal_crash.c - what is left of an ext file system that is written through its
 * journal, when the machine stops
 *
 * A workload of names, contents and attributes runs on a file system open with
 * VDISK_FS_JOURNAL, on a disk that logs every write and every flush.  A power cut may
 * leave everything up to the last flush, and of what came after that any blocks of any
 * write.  At every flush, and after every write between them (without the others, and
 * with random parts of all of them), such an image is made, and
 *
 *   - e2fsck replays its journal, and a second e2fsck finds nothing wrong at all;
 *   - so after our own replay;
 *   - what was there at the last commit is there, with the same contents.
 *
 *	CRASH_SEED=N repeats a run; LONG=1 makes it longer.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fs/fs.h"
#include "tests/lib/memlog.h"

#define FILES	12u
#define DIRS	3u
#define SIZE	(12u << 20)

static uint64_t rng, seed;

static uint64_t rnd(void)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return rng * UINT64_C(2685821657736338717);
}

/* What a file held at a commit: its length, and the byte it is full of. */
struct content {
	bool there;
	uint32_t len;
	uint8_t byte;
};

struct commit {
	size_t at;			/* entries of the log then */
	struct content file[FILES];
};

struct world {
	const char *options;		/* of mke2fs */
	uint64_t block;
	struct memlog log, base;
	struct vdisk *disk;
	struct vdisk_fs *fs;
	struct content file[FILES];	/* now */
	struct commit commit[200];
	unsigned n_commits;
	char path[48];			/* of the image that is looked at */
	unsigned images;
};

/* ---- the workload ---- */

static void name_of(char out[32], unsigned i)
{
	snprintf(out, 32, "/d%u/file%u", i % DIRS, i);
}

static void must(const struct world *w, int64_t r, const char *what, const struct vdisk_error *err)
{
	if (r < 0)
		fail_msg("%s: %s: %s (CRASH_SEED=%" PRIu64 ")", w->options, what, err->msg, seed);
}

static void write_file(struct world *w, unsigned i)
{
	static uint8_t buf[200000];
	struct content *c = &w->file[i];
	struct vdisk_error err = { 0 };
	struct vdisk_file *f;
	char name[32];

	name_of(name, i);
	*c = (struct content) { true, (uint32_t)(rnd() % sizeof(buf)), (uint8_t)rnd() };
	memset(buf, c->byte, sizeof(buf));
	must(w, vdisk_file_open(&f, w->fs, name, VDISK_FILE_WRITE | VDISK_FILE_CREATE |
				VDISK_FILE_TRUNC, 0644, &err), "open", &err);
	must(w, vdisk_file_write(f, buf, c->len, 0, &err), "write", &err);
	must(w, vdisk_file_close(f, &err), "close", &err);
}

static void step(struct world *w)
{
	unsigned i = (unsigned)(rnd() % FILES), k = (unsigned)(rnd() % FILES);
	struct vdisk_error err = { 0 };
	struct vdisk_file *f;
	char name[32], other[32], value[300];

	name_of(name, i);
	name_of(other, k);
	switch (rnd() % 8) {
	case 0: case 1: case 2:
		write_file(w, i);
		break;
	case 3:
		if (!w->file[i].there)
			break;
		must(w, vdisk_fs_remove(w->fs, name, &err), "remove", &err);
		w->file[i].there = false;
		break;
	case 4:
		if (!w->file[i].there || i == k)
			break;
		must(w, vdisk_fs_rename(w->fs, name, other, &err), "rename", &err);
		w->file[k] = w->file[i];
		w->file[i].there = false;
		break;
	case 5:
		if (!w->file[i].there)
			break;
		w->file[i].len /= 2;
		must(w, vdisk_file_open(&f, w->fs, name, VDISK_FILE_WRITE, 0, &err), "open", &err);
		must(w, vdisk_file_truncate(f, w->file[i].len, &err), "truncate", &err);
		must(w, vdisk_file_close(f, &err), "close", &err);
		break;
	case 6:
		snprintf(name, sizeof(name), "/new%" PRIu64, rnd() % 6);
		if (vdisk_fs_mkdir(w->fs, name, 0755, NULL) == -EEXIST)
			must(w, vdisk_fs_remove(w->fs, name, &err), "rmdir", &err);
		break;
	case 7:
		memset(value, 'x', sizeof(value));
		if (w->file[i].there)
			must(w, vdisk_fs_setxattr(w->fs, name, "user.name", value,
						  rnd() % sizeof(value), &err), "xattr", &err);
		break;
	}
}

static void commit(struct world *w)
{
	struct vdisk_error err = { 0 };
	struct commit *c = &w->commit[w->n_commits];

	must(w, w->fs->ops->commit(w->fs, &err), "commit", &err);
	assert_true(w->n_commits < ARRAY_SIZE(w->commit));
	c->at = w->log.n;
	memcpy(c->file, w->file, sizeof(w->file));
	w->n_commits++;
}

/* ---- looking at what is left ---- */

static int run(const char *command)
{
	int status = system(command);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void store(const struct world *w, const struct memlog *image)
{
	int fd = open(w->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, image->mem, image->size), image->size);
	close(fd);
}

static void check_clean(const struct world *w, const char *after, size_t at)
{
	char command[300];

	snprintf(command, sizeof(command), "e2fsck -fn %s >%s.log 2>&1", w->path, w->path);
	if (run(command) == 0)
		return;
	snprintf(command, sizeof(command), "cat %s.log >&2; cp %s /tmp/journal_crash.failed", w->path,
		 w->path);
	run(command);
	fail_msg("%s: after %s, stopped at write %zu: e2fsck finds something "
		 "(CRASH_SEED=%" PRIu64 "; kept in /tmp/journal_crash.failed)", w->options, after, at,
		 seed);
}

/* Each file of the last commit is as it was then, or as it became since. */
static void check_contents(const struct world *w, const struct commit *last, size_t at)
{
	const struct vdisk_open_opts opts = { .size = sizeof(opts), .format = "raw" };
	struct vdisk_error err = { 0 };
	struct vdisk *disk;
	struct vdisk_fs *fs;

	must(w, vdisk_open(&disk, w->path, &opts, &err), "open", &err);
	must(w, vdisk_fs_open(&fs, disk, 0, &err), "open", &err);
	for (unsigned i = 0; last && i < FILES; i++) {
		const struct content *c = &last->file[i];
		struct vdisk_stat st;
		char name[32];

		name_of(name, i);
		/* files that did not change since; contents are not journalled */
		if (memcmp(c, &w->commit[last - w->commit + 1].file[i], sizeof(*c)) != 0)
			continue;
		if (c->there != (vdisk_fs_stat(fs, name, true, &st, NULL) == 0) ||
		    (c->there && st.size != c->len))
			fail_msg("%s: stopped at write %zu: %s is not what was committed "
				 "(CRASH_SEED=%" PRIu64 ")", w->options, at, name, seed);
		if (c->there && c->len) {
			AUTO_FREE void *data = NULL;
			size_t len;

			must(w, vdisk_fs_load(fs, name, SIZE, &data, &len, &err), "load", &err);
			for (size_t k = 0; k < len; k++)
				if (((uint8_t *)data)[k] != c->byte)
					fail_msg("%s: stopped at write %zu: %s differs at %zu "
						 "(CRASH_SEED=%" PRIu64 ")", w->options, at, name,
						 k, seed);
		}
	}
	vdisk_fs_close(fs, NULL);
	vdisk_close(disk, NULL);
}

static void look_at(struct world *w, const struct memlog *image, const struct commit *last,
		    size_t at)
{
	const struct vdisk_open_opts opts = {
		.size = sizeof(opts), .format = "raw", .flags = VDISK_OPEN_WRITE,
	};
	struct vdisk_error err = { 0 };
	char command[300];
	struct vdisk *disk;
	struct vdisk_fs *fs;
	int status;

	store(w, image);
	if (w->images++ % 2) {
		snprintf(command, sizeof(command), "e2fsck -p -E journal_only %s >%s.log 2>&1", w->path,
			 w->path);
		status = run(command);
		if (status != 0 && status != 1)
			fail_msg("%s: stopped at write %zu: e2fsck does not replay it: %d "
				 "(CRASH_SEED=%" PRIu64 ")", w->options, at, status, seed);
		check_clean(w, "e2fsck's replay", at);
	} else {
		must(w, vdisk_open(&disk, w->path, &opts, &err), "open", &err);
		must(w, vdisk_fs_open(&fs, disk, VDISK_FS_WRITE, &err), "replay", &err);
		must(w, vdisk_fs_close(fs, &err), "close", &err);
		must(w, vdisk_close(disk, &err), "close", &err);
		check_clean(w, "our replay", at);
	}
	check_contents(w, last, at);
}

/*
 * Some of the blocks of a write, by random bits.  A block is not torn itself: the superblock
 * has a checksum, and is rewritten in place by the kernel, too.
 */
static void replay_some(const struct world *w, struct memlog *image, const struct memlog_entry *e)
{
	uint64_t end = e->off + e->len, n;

	for (uint64_t at = e->off; e->kind == MEMLOG_WRITE && at < end; at += n) {
		struct memlog_entry piece = *e;

		n = MIN(vd_align_down(at, w->block) + w->block, end) - at;
		piece.off = at;
		piece.len = n;
		piece.data = e->data ? e->data + (at - e->off) : NULL;
		if (rnd() & 1)
			memlog_replay(image, &piece, false, rnd);
	}
}

/* Every state that a power cut can leave, more or less. */
static void cut_everywhere(struct world *w)
{
	struct memlog synced;
	unsigned c = 0, after_sync = 0;
	size_t stride = getenv("LONG") ? 1 : w->log.n / 60 + 1;

	memlog_copy(&synced, &w->base);
	for (size_t i = 0, from = 0; i < w->log.n; i++) {
		const struct memlog_entry *e = &w->log.log[i];
		struct memlog image;

		while (c < w->n_commits && w->commit[c].at <= i)
			c++;
		after_sync++;
		/* the last commit's successor says which files changed meanwhile */
		if (c && c < w->n_commits &&
		    (e->kind == MEMLOG_SYNC || after_sync < 4 || rnd() % stride == 0)) {
			memlog_copy(&image, &synced);
			for (size_t k = from; k < i; k++) {
				if (e->kind == MEMLOG_SYNC)
					memlog_replay(&image, &w->log.log[k], false, rnd);
				else if (rnd() % 2)
					replay_some(w, &image, &w->log.log[k]);
			}
			if (e->kind != MEMLOG_SYNC)
				memlog_replay(&image, e, false, rnd);
			look_at(w, &image, &w->commit[c - 1], i);
			memlog_clear(&image);
		}
		if (e->kind == MEMLOG_SYNC) {
			for (; from < i; from++)
				memlog_replay(&synced, &w->log.log[from], false, rnd);
			from = i + 1;
			after_sync = 0;
		}
	}
	memlog_clear(&synced);
}

/* ---- */

static void load(struct world *w)
{
	char command[300];
	int fd;

	snprintf(command, sizeof(command), "rm -f %s; truncate -s %u %s && mke2fs -q -F %s %s", w->path,
		 SIZE, w->path, w->options, w->path);
	assert_int_equal(run(command), 0);
	memlog_init(&w->log);
	memlog_reserve(&w->log, SIZE);
	fd = open(w->path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, w->log.mem, SIZE), SIZE);
	close(fd);
	w->log.size = SIZE;
}

static void one(const char *options)
{
	static struct world w;
	unsigned steps = getenv("LONG") ? 60 : 12;
	struct vdisk_error err = { 0 };
	char name[64];

	memset(&w, 0, sizeof(w));
	w.options = options;
	w.block = strstr(options, "-b 4096") ? 4096 : 1024;
	snprintf(w.path, sizeof(w.path), "/dev/shm/journal_crash.%d", getpid());
	load(&w);
	w.disk = memlog_disk(&w.log, "disk");
	memlog_copy(&w.base, &w.log);
	w.log.logging = true;
	must(&w, vdisk_fs_open(&w.fs, w.disk, VDISK_FS_WRITE | VDISK_FS_JOURNAL, &err), "open", &err);
	for (unsigned i = 0; i < DIRS; i++) {
		snprintf(name, sizeof(name), "/d%u", i);
		must(&w, vdisk_fs_mkdir(w.fs, name, 0755, &err), "mkdir", &err);
	}
	commit(&w);
	for (unsigned i = 0; i < steps; i++) {
		for (unsigned k = 0; k < 3; k++)
			step(&w);
		if (rnd() % 3 == 0 || i + 1 == steps)
			commit(&w);
	}
	must(&w, vdisk_fs_close(w.fs, &err), "close", &err);
	vdisk_close(w.disk, NULL);
	cut_everywhere(&w);
	print_message("%s: %zu writes and flushes, %u images looked at\n", options, w.log.n, w.images);
	assert_true(w.images > 10);
	memlog_clear(&w.log);
	memlog_clear(&w.base);
	unlink(w.path);
	snprintf(name, sizeof(name), "%s.log", w.path);
	unlink(name);
}

static void ext4(void **state)
{
	(void)state;
	one("-t ext4 -J size=1 -b 1024");
}

static void ext4_blocks(void **state)
{
	(void)state;
	one("-t ext4 -J size=4 -b 4096 -O inline_data");
}

static void ext3(void **state)
{
	(void)state;
	one("-t ext3 -J size=1 -b 1024");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ext4), cmocka_unit_test(ext4_blocks), cmocka_unit_test(ext3),
	};
	const char *given = getenv("CRASH_SEED");

	if (run("mke2fs -V >/dev/null 2>&1; [ $? != 127 ] && e2fsck -V >/dev/null 2>&1") != 0) {
		puts("SKIP: mke2fs or e2fsck is not installed");
		return 77;
	}
	if (given)
		seed = strtoull(given, NULL, 0);
	else if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return 1;
	rng = seed | 1;
	print_message("CRASH_SEED=%" PRIu64 "\n", seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
