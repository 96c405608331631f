/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* try_guest.c - the command that is put into a guest's files, and what is read back */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "cli/try_guest.h"
#include "core/driver.h"

/* A file system in memory, made by mke2fs from a shell line's root/. */
static struct vdisk_fs *make_fs(struct vdisk **disk, const char *line)
{
	char dir[] = "/tmp/try_guest.XXXXXX", path[64];
	struct vdisk_open_opts opts = { .size = sizeof(opts), .flags = VDISK_OPEN_WRITE, .format = "raw" };
	AUTO_FREE char *full = NULL;
	struct vdisk_error err = { 0 };
	struct vdisk_fs *fs;

	assert_non_null(mkdtemp(dir));
	assert_true(asprintf(&full, "cd %s && PATH=$PATH:/sbin:/usr/sbin && mkdir -p root/bin && : > root/bin/sh && %s && "
			     "truncate -s 4M disk && mke2fs -q -F -t ext4 -d root disk", dir, line) > 0);
	if (system(full) != 0)
		fail_msg("failed: %s", full);
	snprintf(path, sizeof(path), "%s/disk", dir);
	if (vdisk_open(disk, path, &opts, &err) < 0 ||
	    vdisk_fs_open(&fs, *disk, VDISK_FS_WRITE, &err) < 0)
		fail_msg("%s", err.msg);
	free(full);
	assert_true(asprintf(&full, "rm -rf %s", dir) > 0);
	assert_int_equal(system(full), 0);
	return fs;
}

static void drop_fs(struct vdisk_fs *fs, struct vdisk *disk)
{
	assert_int_equal(vdisk_fs_close(fs, NULL), 0);
	assert_int_equal(vdisk_close(disk, NULL), 0);
}

static void put_text(struct vdisk_fs *fs, const char *path, const char *text)
{
	struct vdisk_file *f;

	assert_int_equal(vdisk_file_open(&f, fs, path, VDISK_FILE_WRITE | VDISK_FILE_CREATE |
					 VDISK_FILE_TRUNC, 0644, NULL), 0);
	assert_int_equal(vdisk_file_write(f, text, strlen(text), 0, NULL), strlen(text));
	assert_int_equal(vdisk_file_close(f, NULL), 0);
}

static int count_one(void *arg, const char *name, const struct vdisk_stat *st)
{
	(void)name, (void)st;
	++*(unsigned *)arg;
	return 0;
}

static unsigned count(struct vdisk_fs *fs, const char *path)
{
	unsigned n = 0;

	return vdisk_fs_list(fs, path, count_one, &n, NULL) == 0 ? n : 0;
}

static struct try_command command(void)
{
	static char words[5][8] = { "echo", "it's", "", "a b", "$x" };
	static char *argv[] = { words[0], words[1], words[2], words[3], words[4], NULL };

	return (struct try_command) { .argv = argv };
}

/* A systemd that enforces SELinux; twice over the same files, and out again. */
static void in_and_out(void **state)
{
	struct try_command c = command();
	struct vdisk_error err = { 0 };
	struct vdisk *disk;
	struct vdisk_fs *fs = make_fs(&disk, "mkdir -p root/usr/lib/systemd root/etc/selinux && "
				      ": > root/usr/lib/systemd/systemd && "
				      "printf '# c\\nSELINUX=enforcing\\n' > root/etc/selinux/config");
	char link[128];
	size_t len;
	void *text;

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		if (try_put(fs, &c, &err) < 0)
			fail_msg("%s", err.msg);
	assert_string_equal(c.append, "enforcing=0");
	assert_int_equal(vdisk_fs_load(fs, "/etc/vdisk-try/run", 4096, &text, &len, NULL), 0);
	assert_non_null(strstr(text, "(exec 'echo' 'it'\\''s' '' 'a b' '$x')"));
	free(text);
	assert_int_equal(vdisk_fs_readlink(fs, "/etc/systemd/system/multi-user.target.wants/"
					   "vdisk-try.service", link, sizeof(link), NULL), 0);
	assert_string_equal(link, "/etc/systemd/system/vdisk-try.service");
	assert_false(try_is_done(fs));
	assert_int_equal(try_remove(fs, &err), 0);
	assert_int_equal(try_remove(fs, &err), 0);
	assert_int_equal(count(fs, "/etc/systemd/system"), 1);	/* the .wants, which is systemd's */
	assert_int_equal(count(fs, "/etc/systemd/system/multi-user.target.wants"), 0);
	assert_int_equal(count(fs, "/etc/vdisk-try"), 0);
	drop_fs(fs, disk);
}

static int fetch(struct vdisk_fs *fs, char *out, size_t size, int *status, struct vdisk_error *err)
{
	int fd = memfd_create("out", 0), none = open("/dev/null", O_WRONLY), r;
	ssize_t n;

	assert_true(fd >= 0 && none >= 0);
	r = try_fetch(fs, fd, none, status, err);
	n = pread(fd, out, size - 1, 0);
	assert_true(n >= 0);
	out[n] = '\0';
	close(fd);
	close(none);
	return r;
}

static void results(void **state)
{
	static const struct { const char *text; int status; } good[] = {
		{ "0\n", 0 }, { "255\n", 255 }, { "127", 127 },
	};
	static const char *const bad[] = { "", "x\n", "256\n", "-1\n", "\033[2J\n" };
	struct vdisk_error err = { 0 };
	struct vdisk *disk;
	struct vdisk_fs *fs = make_fs(&disk, "mkdir -p root/etc/vdisk-try && echo hello > root/etc/vdisk-try/out && "
				      "echo secret > root/etc/passwd");
	char out[64];
	int status;

	(void)state;
	/* not at its end: what there is, and no status */
	assert_int_equal(fetch(fs, out, sizeof(out), &status, &err), 0);
	assert_string_equal(out, "hello\n");
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		put_text(fs, "/etc/vdisk-try/status", good[i].text);
		assert_int_equal(fetch(fs, out, sizeof(out), &status, &err), 1);
		assert_int_equal(status, good[i].status);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put_text(fs, "/etc/vdisk-try/status", bad[i]);
		assert_int_equal(fetch(fs, out, sizeof(out), &status, &err), -EINVAL);
	}
	put_text(fs, "/etc/vdisk-try/status", "much more than a number of three digits\n");
	assert_true(fetch(fs, out, sizeof(out), &status, &err) < 0);
	/* a link leads to the guest's own files and nowhere else */
	assert_int_equal(vdisk_fs_remove(fs, "/etc/vdisk-try/out", NULL), 0);
	assert_int_equal(vdisk_fs_symlink(fs, "../../../../../../etc/passwd", "/etc/vdisk-try/out", NULL), 0);
	put_text(fs, "/etc/vdisk-try/status", "0\n");
	assert_int_equal(fetch(fs, out, sizeof(out), &status, &err), 1);
	assert_string_equal(out, "secret\n");
	drop_fs(fs, disk);
}

static void no_shell(void **state)
{
	struct try_command c = command();
	struct vdisk_error err = { 0 };
	struct vdisk *disk;
	struct vdisk_fs *fs = make_fs(&disk, "rm root/bin/sh");

	(void)state;
	assert_int_equal(try_put(fs, &c, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "/bin/sh"));
	drop_fs(fs, disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_and_out),
		cmocka_unit_test(results),
		cmocka_unit_test(no_shell),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
