/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs_fat.c - writing FAT: random operations against a model
 *
 * A volume that mkfs.fat made is changed at random through the library, and a
 * model in memory with it.  Every file and directory must be as the model says,
 * also after the volume was closed and opened again, and fsck.fat must find
 * nothing.  $STEPS operations (2000; LONG=1: 50000) of each kind of FAT;
 * $SEED repeats a run.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vdisk.h"

#define FILES 48
#define SIZE_LIMIT (192u << 10)
#define DEPTH 4

struct node {
	bool used, dir;
	int parent;		/* index; 0 is the root */
	char name[300];
	uint8_t *data;
	size_t size;
};

struct model {
	char image[64];
	struct vdisk *disk;
	struct vdisk_fs *fs;
	struct node n[FILES];
	uint64_t rng;
	unsigned full;		/* operations that found the volume full */
};

static uint64_t rnd(struct model *m, uint64_t below)
{
	m->rng ^= m->rng << 13;
	m->rng ^= m->rng >> 7;
	m->rng ^= m->rng << 17;
	return m->rng % below;
}

static void path_of(const struct model *m, int i, char *out, size_t size)
{
	char up[2048] = "";

	if (i == 0) {
		snprintf(out, size, "/");
		return;
	}
	if (m->n[i].parent)
		path_of(m, m->n[i].parent, up, sizeof(up));
	assert_true((size_t)snprintf(out, size, "%s/%s", up, m->n[i].name) < size);
}

static int depth_of(const struct model *m, int i)
{
	int d = 0;

	for (; i; i = m->n[i].parent)
		d++;
	return d;
}

static bool is_below(const struct model *m, int i, int of)
{
	for (; i; i = m->n[i].parent)
		if (i == of)
			return true;
	return of == 0;
}

static int pick(struct model *m, bool dir, bool root)
{
	int all[FILES], count = 0;

	for (int i = root ? 0 : 1; i < FILES; i++)
		if (m->n[i].used && m->n[i].dir == dir)
			all[count++] = i;
	return count ? all[rnd(m, (uint64_t)count)] : -1;
}

static int unused(const struct model *m)
{
	for (int i = 1; i < FILES; i++)
		if (!m->n[i].used)
			return i;
	return -1;
}

static int named(const struct model *m, int parent, const char *name)
{
	for (int i = 1; i < FILES; i++)
		if (m->n[i].used && m->n[i].parent == parent && !strcasecmp(m->n[i].name, name))
			return i;
	return -1;
}

static void make_name(struct model *m, char *out, size_t size)
{
	static const char *const shapes[] = {
		"F#.TXT", "file#", "A long name number #.text", "..dots#", "Grüße # ☃",
		"UPPER#", "name.with.dots.#", "a+b=#;,[x]", "𝄞#",
	};
	const char *shape = shapes[rnd(m, sizeof(shapes) / sizeof(shapes[0]))];
	int at = (int)(strchr(shape, '#') - shape);
	char tail[200] = "";

	if (rnd(m, 12) == 0)
		memset(tail, 'x', (size_t)rnd(m, sizeof(tail) - 1));
	snprintf(out, size, "%.*s%u%s%s", at, shape, (unsigned)rnd(m, 30), shape + at + 1, tail);
}

static void mount_it(struct model *m)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_WRITE, .format = "raw",
	};
	struct vdisk_error err = { 0 };

	if (vdisk_open(&m->disk, m->image, &opts, &err) < 0 ||
	    vdisk_fs_open(&m->fs, m->disk, VDISK_FS_WRITE, &err) < 0)
		fail_msg("%s", err.msg);
}

static void unmount_it(struct model *m)
{
	struct vdisk_error err = { 0 };

	if (vdisk_fs_close(m->fs, &err) < 0 || vdisk_close(m->disk, &err) < 0)
		fail_msg("%s", err.msg);
}

static int sh(const char *fmt, ...)
{
	char command[400];
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	r = system(command);
	return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

/* ---- comparing ---- */

static void check_file(struct model *m, int i)
{
	struct vdisk_error err = { 0 };
	char path[2048];
	size_t len = 0;
	void *data = NULL;

	path_of(m, i, path, sizeof(path));
	if (vdisk_fs_load(m->fs, path, SIZE_LIMIT * 2, &data, &len, &err) < 0)
		fail_msg("%s", err.msg);
	if (len != m->n[i].size || (len && memcmp(data, m->n[i].data, len) != 0))
		fail_msg("%s: not what was written (%zu bytes for %zu)", path, len, m->n[i].size);
	free(data);
}

struct seen {
	struct model *m;
	int dir;
	unsigned count;
};

static int see(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct seen *s = arg;
	int i = named(s->m, s->dir, name);

	if (i < 0 || strcmp(s->m->n[i].name, name) != 0)
		fail_msg("'%s' is there, but should not be", name);
	assert_int_equal(S_ISDIR(st->mode), s->m->n[i].dir);
	if (!S_ISDIR(st->mode))
		assert_int_equal(st->size, s->m->n[i].size);
	s->count++;
	return 0;
}

static void check_all(struct model *m)
{
	for (int i = 0; i < FILES; i++) {
		struct seen s = { m, i, 0 };
		struct vdisk_error err = { 0 };
		unsigned want = 0;
		char path[2048];

		if (!m->n[i].used)
			continue;
		if (!m->n[i].dir) {
			check_file(m, i);
			continue;
		}
		path_of(m, i, path, sizeof(path));
		if (vdisk_fs_list(m->fs, path, see, &s, &err) < 0)
			fail_msg("%s", err.msg);
		for (int k = 1; k < FILES; k++)
			want += m->n[k].used && m->n[k].parent == i;
		assert_int_equal(s.count, want);
	}
}

/* ---- operations ---- */

static bool was_full(struct model *m, int r)
{
	if (r == -ENOSPC)
		m->full++;
	return r == -ENOSPC;
}

static void op_create(struct model *m)
{
	int i = unused(m), parent = pick(m, true, true);
	bool dir = rnd(m, 4) == 0;
	struct vdisk_error err = { 0 };
	struct vdisk_file *f = NULL;
	char path[2048];
	int r;

	if (i < 0 || (dir && depth_of(m, parent) >= DEPTH))
		return;
	m->n[i] = (struct node) { .dir = dir, .parent = parent };
	make_name(m, m->n[i].name, sizeof(m->n[i].name));
	path_of(m, i, path, sizeof(path));
	r = dir ? vdisk_fs_mkdir(m->fs, path, 0755, &err) :
		  vdisk_file_open(&f, m->fs, path, VDISK_FILE_CREATE | VDISK_FILE_EXCL, 0644, &err);
	if (named(m, parent, m->n[i].name) >= 0) {
		assert_int_equal(r, -EEXIST);
		return;
	}
	if (was_full(m, r))
		return;
	if (r < 0)
		fail_msg("create: %s", err.msg);
	m->n[i].used = true;
	vdisk_file_close(f, NULL);
}

static void model_write(struct node *n, const uint8_t *buf, size_t len, size_t off)
{
	if (off + len > n->size) {
		n->data = realloc(n->data, off + len);
		assert_non_null(n->data);
		memset(n->data + n->size, 0, off + len - n->size);
		n->size = off + len;
	}
	if (buf)
		memcpy(n->data + off, buf, len);
}

static void op_write(struct model *m)
{
	static uint8_t buf[48 << 10];
	int i = pick(m, false, false);
	struct vdisk_error err = { 0 };
	struct vdisk_file *f = NULL;
	size_t len, off;
	char path[2048];
	ssize_t r;

	if (i < 0)
		return;
	len = 1 + (size_t)rnd(m, rnd(m, 3) ? 3000 : sizeof(buf));
	off = rnd(m, 3) ? m->n[i].size : (size_t)rnd(m, m->n[i].size + 20000);
	if (off + len > SIZE_LIMIT)
		return;
	for (size_t k = 0; k < len; k++)
		buf[k] = (uint8_t)rnd(m, 256);
	path_of(m, i, path, sizeof(path));
	assert_int_equal(vdisk_file_open(&f, m->fs, path, VDISK_FILE_WRITE, 0, &err), 0);
	r = vdisk_file_write(f, buf, len, off, &err);
	vdisk_file_close(f, NULL);
	if (was_full(m, (int)r))
		return;
	if (r != (ssize_t)len)
		fail_msg("write: %s", err.msg);
	model_write(&m->n[i], buf, len, off);
}

static void op_truncate(struct model *m)
{
	int i = pick(m, false, false);
	struct vdisk_error err = { 0 };
	struct vdisk_file *f = NULL;
	size_t size;
	char path[2048];
	int r;

	if (i < 0)
		return;
	size = (size_t)(rnd(m, 4) ? rnd(m, m->n[i].size + 1) : rnd(m, SIZE_LIMIT));
	path_of(m, i, path, sizeof(path));
	assert_int_equal(vdisk_file_open(&f, m->fs, path, VDISK_FILE_WRITE, 0, &err), 0);
	r = vdisk_file_truncate(f, size, &err);
	vdisk_file_close(f, NULL);
	if (was_full(m, r))
		return;
	if (r < 0)
		fail_msg("truncate: %s", err.msg);
	if (size > m->n[i].size)
		model_write(&m->n[i], NULL, size - m->n[i].size, m->n[i].size);
	m->n[i].size = size;
}

static void forget(struct model *m, int i)
{
	free(m->n[i].data);
	m->n[i] = (struct node) { 0 };
}

static bool is_empty(const struct model *m, int dir)
{
	for (int i = 1; i < FILES; i++)
		if (m->n[i].used && m->n[i].parent == dir)
			return false;
	return true;
}

static void op_remove(struct model *m)
{
	int i = pick(m, rnd(m, 4) == 0, false), r;
	struct vdisk_error err = { 0 };
	char path[2048];

	if (i < 0)
		return;
	path_of(m, i, path, sizeof(path));
	r = vdisk_fs_remove(m->fs, path, &err);
	if (m->n[i].dir && !is_empty(m, i)) {
		assert_int_equal(r, -ENOTEMPTY);
		return;
	}
	if (r < 0)
		fail_msg("remove: %s", err.msg);
	forget(m, i);
}

static void op_rename(struct model *m)
{
	int i = pick(m, rnd(m, 3) == 0, false), parent = pick(m, true, true), there, r;
	char from[2048], to[2048], name[300], old[300];
	struct vdisk_error err = { 0 };
	int old_parent;

	if (i < 0 || depth_of(m, parent) >= DEPTH)
		return;
	path_of(m, i, from, sizeof(from));
	make_name(m, name, sizeof(name));
	if (rnd(m, 6) == 0) {	/* the same one in other letters */
		parent = m->n[i].parent;
		snprintf(name, sizeof(name), "%s", m->n[i].name);
		name[0] ^= (name[0] | 32) >= 'a' && (name[0] | 32) <= 'z' ? 32 : 0;
	}
	there = named(m, parent, name);
	memcpy(old, m->n[i].name, sizeof(old));
	old_parent = m->n[i].parent;
	snprintf(m->n[i].name, sizeof(m->n[i].name), "%s", name);
	if (m->n[i].dir && is_below(m, parent, i)) {
		memcpy(m->n[i].name, old, sizeof(old));
		path_of(m, parent, to, sizeof(to) - 301);
		strcat(to, "/");
		strcat(to, name);
		assert_true(vdisk_fs_rename(m->fs, from, to, &err) < 0);
		return;
	}
	m->n[i].parent = parent;
	path_of(m, i, to, sizeof(to));
	r = vdisk_fs_rename(m->fs, from, to, &err);
	if (there >= 0 && there != i &&
	    (m->n[there].dir != m->n[i].dir || (m->n[there].dir && !is_empty(m, there)))) {
		assert_true(r < 0);
	} else if (r == -ENOSPC) {
		m->full++;
		if (there >= 0 && there != i)	/* what was in the way has gone already */
			forget(m, there);
	} else if (r < 0) {
		fail_msg("rename: %s", err.msg);
	} else {
		if (there >= 0 && there != i)
			forget(m, there);
		return;
	}
	memcpy(m->n[i].name, old, sizeof(old));
	m->n[i].parent = old_parent;
}

static void step(struct model *m)
{
	switch (rnd(m, 12)) {
	case 0: case 1: case 2:
		op_create(m);
		break;
	case 3: case 4: case 5: case 6:
		op_write(m);
		break;
	case 7:
		op_truncate(m);
		break;
	case 8: case 9:
		op_rename(m);
		break;
	case 10:
		op_remove(m);
		break;
	case 11:
		if (pick(m, false, false) >= 0)
			check_file(m, pick(m, false, false));
		break;
	}
}

static void fsck(struct model *m, unsigned long at)
{
	if (sh("fsck.fat -nv %s > %s.log 2>&1", m->image, m->image) != 0) {
		sh("cat %s.log", m->image);
		fail_msg("fsck.fat is not content after %lu steps", at);
	}
}

static void run_model(const char *options, const char *size)
{
	struct model m = { .n[0] = { .used = true, .dir = true } };
	const char *steps_env = getenv("STEPS"), *seed = getenv("SEED");
	unsigned long steps = steps_env ? strtoul(steps_env, NULL, 10) :
			      getenv("LONG") ? 50000 : 2000;

	if (sh("command -v mkfs.fat fsck.fat > /dev/null") != 0)
		skip();
	snprintf(m.image, sizeof(m.image), "/tmp/vdisk-fat.XXXXXX");
	close(mkstemp(m.image));
	m.rng = seed ? strtoull(seed, NULL, 10) : 88172645463325252ull;
	print_message("%s: seed %llu, %lu steps\n", options, (unsigned long long)m.rng, steps);
	assert_int_equal(sh("truncate -s %s %s && mkfs.fat %s %s > /dev/null", size, m.image,
			    options, m.image), 0);
	mount_it(&m);
	for (unsigned long i = 1; i <= steps; i++) {
		step(&m);
		if (i % 200)
			continue;
		check_all(&m);
		unmount_it(&m);
		if (i % 1000 == 0 || i == 200)
			fsck(&m, i);
		mount_it(&m);
	}
	check_all(&m);
	unmount_it(&m);
	fsck(&m, steps);
	print_message("(%u times full)\n", m.full);
	for (int i = 0; i < FILES; i++)
		forget(&m, i);
	sh("rm -f %s %s.log", m.image, m.image);
}

static void fat12_full(void **state) { (void)state; run_model("-F 12 -r 64", "700K"); }
static void fat16_random(void **state) { (void)state; run_model("-F 16", "20M"); }
static void fat32_random(void **state) { (void)state; run_model("-F 32 -s 1", "36M"); }

/* ---- files in use ---- */

static void held_files(void **state)
{
	struct model m = { .full = 0 };
	struct vdisk_file *f = NULL, *g = NULL;
	struct vdisk_fs_usage before, after;
	char buf[6];
	void *data;
	size_t len;

	(void)state;
	if (sh("command -v mkfs.fat fsck.fat > /dev/null") != 0)
		skip();
	snprintf(m.image, sizeof(m.image), "/tmp/vdisk-fat.XXXXXX");
	close(mkstemp(m.image));
	assert_int_equal(sh("truncate -s 4M %s && mkfs.fat %s > /dev/null", m.image, m.image), 0);
	mount_it(&m);
	assert_int_equal(vdisk_fs_usage(m.fs, &before, NULL), 0);
	assert_int_equal(vdisk_file_open(&f, m.fs, "/one", VDISK_FILE_CREATE | VDISK_FILE_WRITE,
					 0644, NULL), 0);
	assert_int_equal(vdisk_file_write(f, "first", 5, 0, NULL), 5);
	/* it moves, another one comes to its place, and both stay what they are */
	assert_int_equal(vdisk_fs_rename(m.fs, "/one", "/another name", NULL), 0);
	assert_int_equal(vdisk_file_open(&g, m.fs, "/TWO", VDISK_FILE_CREATE | VDISK_FILE_WRITE,
					 0644, NULL), 0);
	assert_int_equal(vdisk_file_write(g, "other", 5, 0, NULL), 5);
	assert_int_equal(vdisk_file_write(f, "again", 5, 5, NULL), 5);
	assert_int_equal(vdisk_fs_load(m.fs, "/another name", 100, &data, &len, NULL), 0);
	assert_int_equal(len, 10);
	assert_memory_equal(data, "firstagain", 10);
	free(data);
	/* removed, but in use */
	assert_int_equal(vdisk_fs_remove(m.fs, "/another name", NULL), 0);
	assert_int_equal(vdisk_fs_remove(m.fs, "/TWO", NULL), 0);
	assert_int_equal(vdisk_file_read(f, buf, 5, 5, NULL), 5);
	assert_memory_equal(buf, "again", 5);
	assert_int_equal(vdisk_file_write(f, "x", 1, 70000, NULL), 1);
	assert_int_equal(vdisk_file_close(f, NULL), 0);
	assert_int_equal(vdisk_file_close(g, NULL), 0);
	assert_int_equal(vdisk_fs_usage(m.fs, &after, NULL), 0);
	assert_int_equal(before.free, after.free);
	unmount_it(&m);
	fsck(&m, 0);
	sh("rm -f %s %s.log", m.image, m.image);
}

/* A program that ends without closing leaves a volume that says so. */
static void not_closed(void **state)
{
	struct model m = { .full = 0 };
	struct vdisk_error err = { 0 };
	int status;
	pid_t pid;

	(void)state;
	if (sh("command -v mkfs.fat fsck.fat > /dev/null") != 0)
		skip();
	snprintf(m.image, sizeof(m.image), "/tmp/vdisk-fat.XXXXXX");
	close(mkstemp(m.image));
	assert_int_equal(sh("truncate -s 40M %s && mkfs.fat -F 32 -s 1 %s > /dev/null", m.image,
			    m.image), 0);
	pid = fork();
	if (pid == 0) {
		m.rng = 4711;
		m.n[0] = (struct node) { .used = true, .dir = true };
		mount_it(&m);
		for (unsigned i = 0; i < 300; i++)
			step(&m);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	{
		struct vdisk_open_opts opts = {
			.size = sizeof(opts), .flags = VDISK_OPEN_WRITE, .format = "raw",
		};

		assert_int_equal(vdisk_open(&m.disk, m.image, &opts, &err), 0);
		assert_int_equal(vdisk_fs_open(&m.fs, m.disk, VDISK_FS_WRITE, &err), -EUCLEAN);
		assert_non_null(strstr(err.msg, "not cleanly unmounted"));
		vdisk_close(m.disk, NULL);
	}
	assert_int_equal(sh("fsck.fat -a %s > /dev/null", m.image), 1);
	fsck(&m, 300);
	mount_it(&m);
	unmount_it(&m);
	sh("rm -f %s %s.log", m.image, m.image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fat12_full),
		cmocka_unit_test(fat16_random),
		cmocka_unit_test(fat32_random),
		cmocka_unit_test(held_files),
		cmocka_unit_test(not_closed),
	};

	setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
