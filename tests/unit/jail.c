/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* jail.c - the process that reads a guest's files: what it can, and what it cannot */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "core/landlock.h"
#include "guest/jail.h"

struct test {
	int what;
	char got[256];
	size_t got_len;
	uint32_t type;
	int answer;
};

static struct vdisk *new_disk(void)
{
	struct vdisk *disk;
	char pattern[4096];

	assert_int_equal(vdisk_open_memory(&disk, 1 << 20, NULL), 0);
	memset(pattern, 'p', sizeof(pattern));
	assert_int_equal(vdisk_write(disk, pattern, sizeof(pattern), 8192), 0);
	return disk;
}

static int receive(void *arg, uint32_t type, const void *data, size_t len, struct vdisk_error *err)
{
	struct test *t = arg;

	t->type = type;
	t->got_len = len;
	memcpy(t->got, data, MIN(len, sizeof(t->got)));
	return t->answer < 0 ? vd_fail(err, -t->answer, "refused") : 0;
}

/* What the parent lends, see below. */
static struct vd_lent_fs lent;

static int run(int (*inside)(struct vdisk *, struct jail *, void *, struct vdisk_error *),
	       struct test *t, unsigned seconds, struct vdisk_error *err)
{
	const struct jail_opts opts = {
		.inside = inside, .receive = receive, .arg = t, .seconds = seconds, .what = "test",
		.lent = &lent, .n_lent = lent.fs != NULL,
	};
	struct vdisk *disk = new_disk();
	char after[4096];
	int r = jail_run(disk, &opts, err);

	/* whatever the child did, the disk is as it was */
	assert_int_equal(vdisk_read(disk, after, sizeof(after), 8192), 0);
	assert_true(after[0] == 'p' && after[4095] == 'p');
	assert_int_equal(vdisk_close(disk, NULL), 0);
	return r;
}

/* ---- what it can ---- */

static int read_and_send(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	char data[4];

	(void)arg;
	if (vdisk_size(disk) != 1 << 20)
		return vd_fail(err, EINVAL, "size");
	if (vdisk_read(disk, data, sizeof(data), 8190) < 0)
		return vd_fail(err, EIO, "read");
	return jail_send(jail, 7, data, sizeof(data));
}

static void reads(void **state)
{
	struct test t = { 0 };

	(void)state;
	assert_int_equal(run(read_and_send, &t, 20, NULL), 0);
	assert_int_equal(t.type, 7);
	assert_int_equal(t.got_len, 4);
	assert_memory_equal(t.got, "\0\0pp", 4);
}

/* Writes are seen by the child, across pieces of the wire, and by nobody else. */
static int write_and_read(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	size_t len = 600 << 10, i;
	AUTO_FREE char *out = malloc(len), *in = malloc(len);

	(void)arg;
	for (i = 0; i < len; i++)
		out[i] = (char)(i * 31 + (i >> 12));
	if (vdisk_write(disk, out, len, 4096) < 0 || vdisk_flush(disk) < 0)
		return vd_fail(err, EIO, "write");
	if (vdisk_read(disk, in, len, 4096) < 0 || memcmp(in, out, len) != 0)
		return vd_fail(err, EIO, "read back");
	return jail_send(jail, 1, "same", 4);
}

static void writes_to_a_layer(void **state)
{
	struct test t = { 0 };
	struct vdisk_error err = { 0 };

	(void)state;
	assert_int_equal(run(write_and_read, &t, 20, &err), 0);
	assert_memory_equal(t.got, "same", 4);
}

static int fail_inside(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	(void)disk, (void)jail, (void)arg;
	return vd_fail(err, ENOTSUP, "a \033[31mred\033[0m reason");
}

static int read_past_end(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	char c;

	(void)jail, (void)arg;
	return vdisk_read(disk, &c, 1, 1 << 20) == -EINVAL ? vd_fail(err, ENOANO, "refused") : 0;
}

static void errors(void **state)
{
	struct vdisk_error err = { 0 };
	struct test t = { .answer = -EDOM };

	(void)state;
	assert_int_equal(run(fail_inside, &t, 20, &err), -ENOTSUP);
	assert_string_equal(err.msg, "a ?[31mred?[0m reason");
	assert_int_equal(run(read_past_end, &t, 20, &err), -ENOANO);
	/* the receiver's refusal ends it */
	assert_int_equal(run(read_and_send, &t, 20, &err), -EDOM);
	assert_string_equal(err.msg, "refused");
}

/* ---- what it cannot ---- */

#define CALLS	462		/* as many as Linux 6.12 has */

static int forbidden(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	const struct test *t = arg;

	(void)disk, (void)jail, (void)err;
	/* arguments that no rule with a condition admits */
	errno = 0;
	(void)syscall(t->what, 0x7fff, 0x7fff, PROT_EXEC, 0x7fff, 0, 0);
	return -errno;
}

/* Each that is not on the list, one child each. */
static void forbidden_calls_kill(void **state)
{
	struct vdisk_error err;
	struct test t = { 0 };

	(void)state;
	for (t.what = 0; t.what < CALLS; t.what++) {
		enum jail_verdict v = jail_verdict(t.what);
		int r;

		/* uretprobe, uprobe: no filter sees them, the kernel itself sends SIGILL */
		if (v == JAIL_ALLOWS || t.what == 335 || t.what == 336)
			continue;
		r = run(forbidden, &t, 20, &err);
		if (v == JAIL_REFUSES ? r != -EACCES : r != -EINVAL ||
		    !strstr(err.msg, "ended by signal 31"))	/* SIGSYS */
			fail_msg("forbidden call %d: %d, %s", t.what, r, err.msg);
	}
	t.what = 9999;		/* there is none */
	assert_int_equal(run(forbidden, &t, 20, &err), -EINVAL);
}

static int open_files(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	int fd, n;

	(void)disk, (void)jail, (void)arg;
	if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
		return vd_fail(err, EIO, "opened a file");
	if (ioctl(3, FIONREAD, &n) == 0 || errno != EACCES)
		return vd_fail(err, EIO, "ioctl works");
	for (fd = 4; fd < 64; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			return vd_fail(err, EIO, "descriptor %d is open", fd);
	return 0;
}

static void no_files(void **state)
{
	struct vdisk_error err = { 0 };
	struct test t = { 0 };
	int fd = open("/dev/null", O_RDONLY), r;

	(void)state;
	r = run(open_files, &t, 20, &err);
	if (r < 0)
		fail_msg("%s", err.msg);
	close(fd);
}

static int crash(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	(void)disk, (void)jail, (void)arg, (void)err;
	signal(SIGSEGV, SIG_DFL);
	__builtin_trap();
}

static int quit(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	(void)disk, (void)jail, (void)arg, (void)err;
	/* not _exit(): LeakSanitizer's would look for leaks, with forbidden calls */
	syscall(SYS_exit_group, 0);
	return 0;
}

static int hang(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	volatile int x = 1;

	(void)disk, (void)jail, (void)arg, (void)err;
	while (x)
		;
	return 0;
}

/* A child that has been taken over speaks the wire as it likes. */
static int babble(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	const struct test *t = arg;
	uint8_t noise[256];

	(void)disk, (void)jail, (void)err;
	memset(noise, t->what, sizeof(noise));
	for (;;)
		if (write(3, noise, sizeof(noise)) < 0)
			_exit(1);
}

static void bad_children(void **state)
{
	struct vdisk_error err = { 0 };
	struct test t = { 0 };

	(void)state;
	assert_int_equal(run(crash, &t, 20, &err), -EINVAL);
	assert_int_equal(run(quit, &t, 20, &err), -EINVAL);
	if (!strstr(err.msg, "ended early"))
		fail_msg("%s", err.msg);
	assert_int_equal(run(hang, &t, 1, &err), -ETIMEDOUT);
	for (t.what = 0; t.what < 256; t.what += 51)
		assert_true(run(babble, &t, 1, &err) < 0);
}

static int too_long(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	AUTO_FREE char *data = calloc(1, JAIL_MESSAGE_MAX + 1);
	int r = jail_send(jail, 0, data, JAIL_MESSAGE_MAX + 1);

	(void)disk, (void)arg;
	return r < 0 ? vd_fail(err, -r, "too long") : 0;
}

static void long_messages(void **state)
{
	struct test t = { 0 };

	(void)state;
	assert_int_equal(run(too_long, &t, 20, NULL), -EMSGSIZE);
}

enum { HELD = 10, MISSING, LEAKS };

/* Run it in a process of its own, without the filter of calls, which is in front of it. */
static void under_landlock(int (*lock)(void), bool (*holds)(int fd))
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), status;
	pid_t pid = fork();

	assert_true(pid >= 0 && fd >= 0);
	if (pid == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (lock() < 0)
			_exit(MISSING);
		_exit(holds(fd) ? HELD : LEAKS);
	}
	close(fd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == MISSING)
		skip();
	assert_int_equal(WEXITSTATUS(status), HELD);
}

static bool nothing_holds(int fd)
{
	char c;

	if (open("/dev/null", O_RDONLY) >= 0 || open("/tmp", O_DIRECTORY) >= 0 ||
	    mkdir("/tmp/landlock-leaks", 0700) == 0 || errno != EACCES)
		return false;
	return read(fd, &c, 1) == 0;	/* what was open stays open */
}

static void landlock(void **state)
{
	(void)state;
	under_landlock(vd_landlock_nothing, nothing_holds);
}

static bool files_hold(int fd)
{
	char path[64];

	(void)fd;
	snprintf(path, sizeof(path), "/tmp/landlock-%d", (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, 100) < 0 || unlink(path) < 0)
		return false;
	if (mkdir(path, 0700) == 0 || errno != EACCES || mkfifo(path, 0600) == 0 || errno != EACCES ||
	    symlink("x", path) == 0 || errno != EACCES)
		return false;
	return execl("/bin/true", "true", (char *)NULL) < 0 && errno == EACCES;
}

static void landlock_files(void **state)
{
	(void)state;
	under_landlock(vd_landlock_files, files_hold);
}

/* ---- file systems that the parent reads for it ---- */

#define MANY 20000u	/* more names than fit into one answer */

/* Node 1 is the root, 2 a file of 300000 bytes 'f', 3 a link to it; 10 and more are empty files. */
static int stub_lookup(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t *ino,
		       struct vdisk_error *err)
{
	(void)fs, (void)err;
	assert_null(strchr(name, '/'));	/* whatever the child asks */
	if (dir != 1)
		return -ENOTDIR;
	*ino = !strcmp(name, "file") ? 2 : !strcmp(name, "link") ? 3 : 0;
	return *ino ? 0 : -ENOENT;
}

static int stub_stat(struct vdisk_fs *fs, uint64_t ino, struct vdisk_stat *out,
		     struct vdisk_error *err)
{
	(void)fs, (void)err;
	*out = (struct vdisk_stat) { .ino = ino };
	out->mode = ino == 1 ? S_IFDIR | 0755 : ino == 3 ? S_IFLNK | 0777 : S_IFREG | 0644;
	out->size = ino == 2 ? 300000 : 0;
	return ino <= MANY + 10 ? 0 : -ESTALE;
}

static int stub_list(struct vdisk_fs *fs, uint64_t dir, vd_fs_each *each, void *arg,
		     struct vdisk_error *err)
{
	char name[64];
	int r = dir == 1 ? 0 : -ENOTDIR;

	(void)fs, (void)err;
	for (unsigned i = 0; r == 0 && i < MANY; i++) {
		snprintf(name, sizeof(name), "a-file-with-a-name-of-some-length-%u", i);
		r = each(arg, name, i + 10);
	}
	return r;
}

static int stub_readlink(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			 struct vdisk_error *err)
{
	(void)fs, (void)err;
	snprintf(buf, size, "file");
	return ino == 3 ? 0 : -EINVAL;
}

static ssize_t stub_read(struct vdisk_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off,
			 struct vdisk_error *err)
{
	size_t n = ino == 2 && off < 300000 ? MIN(len, (size_t)(300000 - off)) : 0;

	(void)fs, (void)err;
	memset(buf, 'f', n);
	return (ssize_t)n;
}

static const struct vd_fs_ops stub_ops = {
	.name = "stub", .lookup = stub_lookup, .stat = stub_stat, .list = stub_list,
	.readlink = stub_readlink, .read = stub_read,
};

static int count(void *arg, const char *name, const struct vdisk_stat *st)
{
	unsigned *n = arg;
	char want[64];

	snprintf(want, sizeof(want), "a-file-with-a-name-of-some-length-%u", *n);
	if (strcmp(name, want) != 0 || st->ino != *n + 10)
		return -EBADMSG;
	(*n)++;
	return 0;
}

static int ask_lent(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	struct vdisk_fs *fs = NULL;
	const char *inside = NULL;
	void *data = NULL;
	size_t len = 0;
	unsigned n = 0;
	int r = vd_lent_open(&fs, &inside, disk, jail, "vg/root");

	(void)arg;
	if (vd_lent_open(&fs, &inside, disk, jail, "vg/other") != -ENOENT || r < 0 ||
	    strcmp(inside, "@") != 0)
		return vd_fail(err, EBADMSG, "open");
	if (vdisk_fs_load(fs, "/link", 1 << 20, &data, &len, err) < 0)
		return -err->code;
	if (len != 300000 || ((char *)data)[0] != 'f' || ((char *)data)[len - 1] != 'f')
		return vd_fail(err, EBADMSG, "%zu bytes", len);
	if (vdisk_fs_load(fs, "/none", 1 << 20, &data, &len, NULL) != -ENOENT)
		return vd_fail(err, EBADMSG, "a file that is not there");
	r = vdisk_fs_list(fs, "/", count, &n, err);
	if (r < 0 || n != MANY)
		return vd_fail(err, EBADMSG, "%u names, %d", n, r);
	return vdisk_fs_close(fs, err);
}

/* A child that was taken over: each question is answered with an error, or not at all. */
static int ask_badly(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	static const struct vd_lent_question bad[] = {
		{ .fs = 1, .what = LENT_STAT, .node = 1, .len = 1000 },
		{ .fs = ~0u, .what = LENT_READ, .node = 2, .len = 1000 },
		{ .what = LENT_READ + 1, .node = 2, .len = 1000 },
		{ .what = LENT_STAT, .node = 1, .len = 3 },
		{ .what = LENT_STAT, .node = UINT64_MAX, .len = 1000 },
		{ .what = LENT_LOOKUP, .node = 1, .len = 8, .name = "" },
		{ .what = LENT_LOOKUP, .node = 1, .len = 8, .name = "../../etc" },
		{ .what = LENT_LOOKUP, .node = 1, .len = 3, .name = "file" },
		{ .what = LENT_READLINK, .node = 3, .len = 0 },
		{ .what = LENT_LIST, .node = 7, .len = 1000 },
	};
	struct vd_lent_question q = { .what = LENT_LOOKUP, .node = 1, .len = 8 };
	static char buf[JAIL_ANSWER_MAX];

	(void)disk, (void)arg;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (jail_ask(jail, &bad[i], sizeof(bad[i]), buf, sizeof(buf)) >= 0)
			return vd_fail(err, EBADMSG, "question %zu", i);
	memset(q.name, 'x', sizeof(q.name));	/* without an end */
	if (jail_ask(jail, &q, sizeof(q), buf, sizeof(buf)) >= 0)
		return vd_fail(err, EBADMSG, "a name without an end");
	/* more than there may be in an answer */
	q = (struct vd_lent_question) { .what = LENT_READ, .node = 2, .len = ~0u };
	if (jail_ask(jail, &q, sizeof(q), buf, sizeof(buf)) != JAIL_ANSWER_MAX)
		return vd_fail(err, EBADMSG, "a long answer");
	q.off = UINT64_MAX;
	if (jail_ask(jail, &q, sizeof(q), buf, sizeof(buf)) != 0)
		return vd_fail(err, EBADMSG, "past the end");
	/* of another length: that ends it */
	jail_ask(jail, &q, sizeof(q) - 1, buf, sizeof(buf));
	return 0;
}

static void lent_file_systems(void **state)
{
	struct vdisk_fs fs = { .ops = &stub_ops, .root = 1, .type = "stub" };
	struct vdisk_error err = { 0 };
	struct test t = { 0 };

	(void)state;
	lent = (struct vd_lent_fs) { .volume = "vg/root", .inside = "@", .fs = &fs };
	if (run(ask_lent, &t, 20, &err) != 0)
		fail_msg("%s", err.msg);
	assert_int_equal(run(ask_badly, &t, 20, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "may be damaged on purpose"));
	lent.fs = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads),
		cmocka_unit_test(writes_to_a_layer),
		cmocka_unit_test(errors),
		cmocka_unit_test(forbidden_calls_kill),
		cmocka_unit_test(no_files),
		cmocka_unit_test(bad_children),
		cmocka_unit_test(long_messages),
		cmocka_unit_test(lent_file_systems),
		cmocka_unit_test(landlock),
		cmocka_unit_test(landlock_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
