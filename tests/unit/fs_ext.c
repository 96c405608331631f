/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files in ext2/3/4.  Every file system is made by mke2fs, and after each test
 * e2fsck -fn must find nothing.  The random test does the same operations to a
 * directory of the host, whose kernel is the model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "core/driver.h"

static char dir[64];
static char image[80];

/* ---- helpers ---- */

static int run(const char *fmt, ...) PRINTF_FMT(1, 2);
static int run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	status = system(cmd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void make_fs(const char *options, const char *size)
{
	unlink(image);
	assert_int_equal(run("PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F %s %s %s >%s/log 2>&1",
			     options, image, size, dir), 0);
}

static void fsck_clean(void)
{
	if (run("PATH=$PATH:/sbin:/usr/sbin e2fsck -fn %s >%s/fsck 2>&1", image, dir) != 0) {
		run("cat %s/fsck >&2", dir);
		fail_msg("e2fsck found errors");
	}
}

static int debugfs(const char *command)
{
	return run("PATH=$PATH:/sbin:/usr/sbin debugfs -R '%s' %s >%s/out 2>%s/log", command,
		   image, dir, dir);
}

struct opened {
	struct vdisk *disk;
	struct vdisk_fs *fs;
};

static struct opened open_fs(unsigned flags)
{
	struct vdisk_open_opts o = {
		.size = sizeof(o), .format = "raw",
		.flags = flags & VDISK_FS_WRITE ? VDISK_OPEN_WRITE | VDISK_OPEN_UNSAFE : 0,
	};
	struct vdisk_error err = { 0 };
	struct opened x = { 0 };

	if (vdisk_open(&x.disk, image, &o, &err) < 0 ||
	    vdisk_fs_open(&x.fs, x.disk, flags, &err) < 0)
		fail_msg("%s", err.msg);
	return x;
}

static void close_fs(struct opened *x)
{
	struct vdisk_error err = { 0 };

	if (vdisk_fs_close(x->fs, &err) < 0 || vdisk_close(x->disk, &err) < 0)
		fail_msg("%s", err.msg);
	fsck_clean();
}

#define OK(call) do { \
	struct vdisk_error err_ = { 0 }; \
	struct vdisk_error *err = &err_; \
	if ((call) < 0) \
		fail_msg("%s: %s", #call, err_.msg); \
} while (0)

#define FAILS(want_, call) do { \
	struct vdisk_error err_ = { 0 }; \
	struct vdisk_error *err = &err_; \
	assert_int_equal(call, -(want_)); \
	assert_int_equal(err_.code, want_); \
	assert_true(err_.msg[0]); \
} while (0)

static void put(struct vdisk_fs *fs, const char *path, const void *data, size_t len)
{
	struct vdisk_file *f;

	OK(vdisk_file_open(&f, fs, path, VDISK_FILE_WRITE | VDISK_FILE_CREATE | VDISK_FILE_TRUNC,
			   0644, err));
	OK(vdisk_file_write(f, data, len, 0, err));
	OK(vdisk_file_close(f, err));
}

static void expect_file(struct vdisk_fs *fs, const char *path, const void *data, size_t len)
{
	void *got;
	size_t n;

	OK(vdisk_fs_load(fs, path, 1u << 30, &got, &n, err));
	assert_int_equal(n, len);
	assert_memory_equal(got, data, len);
	free(got);
}

static uint64_t free_bytes(struct vdisk_fs *fs)
{
	struct vdisk_fs_usage u;

	OK(vdisk_fs_usage(fs, &u, err));
	return u.free;
}

/* ---- what all the kinds of ext must do ---- */

static const char *const kinds[] = {
	"-t ext2 -b 1024", "-t ext3", "-t ext4", "-t ext4 -b 1024 -I 128",
	"-t ext4 -O ^metadata_csum,^64bit", "-t ext4 -O bigalloc -C 16384", "-t ext4 -b 65536 -N 1024",
	"-t ext4 -O inline_data,ea_inode", "-t ext4 -O ^has_journal,^extent,^64bit",
	"-t ext4 -O meta_bg,^resize_inode", "-t ext4 -O metadata_csum_seed,orphan_file",
};

static void names(struct vdisk_fs *fs)
{
	struct vdisk_stat st, st2;
	char buf[600], target[300];

	OK(vdisk_fs_mkdir(fs, "/etc", 0750, err));
	FAILS(EEXIST, vdisk_fs_mkdir(fs, "/etc", 0755, err));
	FAILS(EEXIST, vdisk_fs_mkdir(fs, "/", 0755, err));
	FAILS(ENOENT, vdisk_fs_mkdir(fs, "/no/such", 0755, err));
	put(fs, "/etc/fstab", "hello\n", 6);
	FAILS(ENOTDIR, vdisk_fs_mkdir(fs, "/etc/fstab/x", 0755, err));
	FAILS(EISDIR, vdisk_fs_load(fs, "/etc", 10, (void *[]){ NULL }, (size_t[]){ 0 }, err));
	FAILS(EFBIG, vdisk_fs_load(fs, "/etc/fstab", 5, (void *[]){ NULL }, (size_t[]){ 0 }, err));
	expect_file(fs, "/etc/fstab", "hello\n", 6);
	OK(vdisk_fs_stat(fs, "/etc", false, &st, err));
	assert_int_equal(st.mode, S_IFDIR | 0750);
	assert_int_equal(st.nlink, 2);

	/* links: relative, absolute, too many, out of the root, slow ones */
	OK(vdisk_fs_symlink(fs, "fstab", "/etc/rel", err));
	OK(vdisk_fs_symlink(fs, "/etc/rel", "/abs", err));
	OK(vdisk_fs_symlink(fs, "../../../../etc/fstab", "/etc/up", err));
	OK(vdisk_fs_symlink(fs, "loop", "/loop", err));
	OK(vdisk_fs_symlink(fs, "etc", "/dirlink", err));
	OK(vdisk_fs_symlink(fs, "/etc/made", "/tomake", err));
	expect_file(fs, "/abs", "hello\n", 6);
	expect_file(fs, "/etc/up", "hello\n", 6);
	expect_file(fs, "/dirlink/../etc/./fstab", "hello\n", 6);
	expect_file(fs, "etc//fstab", "hello\n", 6);
	FAILS(ELOOP, vdisk_fs_stat(fs, "/loop", false, &st, err));
	OK(vdisk_fs_stat(fs, "/loop", true, &st, err));
	FAILS(ENOTDIR, vdisk_fs_stat(fs, "/etc/fstab/", false, &st, err));
	put(fs, "/tomake", "x", 1);
	expect_file(fs, "/etc/made", "x", 1);
	memset(target, 'a', sizeof(target) - 1);
	target[sizeof(target) - 1] = '\0';
	OK(vdisk_fs_symlink(fs, target, "/slow", err));
	OK(vdisk_fs_readlink(fs, "/slow", buf, sizeof(buf), err));
	assert_string_equal(buf, target);
	FAILS(ENAMETOOLONG, vdisk_fs_readlink(fs, "/slow", buf, 10, err));
	FAILS(EINVAL, vdisk_fs_readlink(fs, "/etc", buf, sizeof(buf), err));
	memset(buf, 'n', sizeof(buf));
	buf[0] = '/';
	buf[300] = '\0';
	FAILS(ENAMETOOLONG, vdisk_fs_mkdir(fs, buf, 0755, err));
	buf[256] = '\0';
	OK(vdisk_fs_mkdir(fs, buf, 0755, err));
	OK(vdisk_fs_remove(fs, buf, err));

	/* hard links */
	OK(vdisk_fs_link(fs, "/etc/fstab", "/etc/second", err));
	FAILS(EPERM, vdisk_fs_link(fs, "/etc", "/etc2", err));
	FAILS(EEXIST, vdisk_fs_link(fs, "/etc/fstab", "/etc/second", err));
	OK(vdisk_fs_stat(fs, "/etc/second", false, &st, err));
	OK(vdisk_fs_stat(fs, "/etc/fstab", false, &st2, err));
	assert_int_equal(st.ino, st2.ino);
	assert_int_equal(st.nlink, 2);
	OK(vdisk_fs_remove(fs, "/etc/second", err));
	OK(vdisk_fs_stat(fs, "/etc/fstab", false, &st, err));
	assert_int_equal(st.nlink, 1);
}

static void renames(struct vdisk_fs *fs)
{
	struct vdisk_stat st;

	OK(vdisk_fs_mkdir(fs, "/r", 0755, err));
	OK(vdisk_fs_mkdir(fs, "/r/a", 0755, err));
	OK(vdisk_fs_mkdir(fs, "/r/a/b", 0755, err));
	OK(vdisk_fs_mkdir(fs, "/r/c", 0755, err));
	put(fs, "/r/f", "f", 1);
	put(fs, "/r/g", "gg", 2);
	FAILS(EINVAL, vdisk_fs_rename(fs, "/r/a", "/r/a/b/x", err));
	FAILS(EINVAL, vdisk_fs_rename(fs, "/r/a", "/r/a/x", err));
	FAILS(ENOTEMPTY, vdisk_fs_rename(fs, "/r/c", "/r/a", err));
	FAILS(EISDIR, vdisk_fs_rename(fs, "/r/f", "/r/c", err));
	FAILS(ENOTDIR, vdisk_fs_rename(fs, "/r/c", "/r/f", err));
	FAILS(ENOENT, vdisk_fs_rename(fs, "/r/none", "/r/x", err));
	FAILS(EBUSY, vdisk_fs_rename(fs, "/", "/r/x", err));
	FAILS(EBUSY, vdisk_fs_rename(fs, "/r/a/.", "/r/x", err));
	OK(vdisk_fs_rename(fs, "/r/f", "/r/g", err));
	expect_file(fs, "/r/g", "f", 1);
	OK(vdisk_fs_rename(fs, "/r/a", "/r/c", err));
	OK(vdisk_fs_stat(fs, "/r/c/b", false, &st, err));
	OK(vdisk_fs_rename(fs, "/r/c/b", "/moved", err));
	put(fs, "/moved/../up", "u", 1);
	expect_file(fs, "/up", "u", 1);
	OK(vdisk_fs_stat(fs, "/r", false, &st, err));
	assert_int_equal(st.nlink, 3);
	FAILS(ENOTEMPTY, vdisk_fs_remove(fs, "/r", err));
	FAILS(EBUSY, vdisk_fs_remove(fs, "/", err));
	FAILS(EBUSY, vdisk_fs_remove(fs, "/r/.", err));
	OK(vdisk_fs_remove_tree(fs, "/r", err));
	FAILS(ENOENT, vdisk_fs_stat(fs, "/r", false, &st, err));
	OK(vdisk_fs_remove(fs, "/moved", err));
}

static void attributes(struct vdisk_fs *fs, bool large_inodes)
{
	struct timespec at = { 5000000000, 123456789 }, mt = { -3, 999999999 };
	struct vdisk_stat st;

	put(fs, "/attr", "x", 1);
	OK(vdisk_fs_chmod(fs, "/attr", 06751, err));
	OK(vdisk_fs_chown(fs, "/attr", 100000, 0xfffffffe, false, err));
	OK(vdisk_fs_chown(fs, "/attr", UINT32_MAX, UINT32_MAX, false, err));
	OK(vdisk_fs_utimes(fs, "/attr", at, mt, false, err));
	OK(vdisk_fs_stat(fs, "/attr", false, &st, err));
	assert_int_equal(st.mode, S_IFREG | 06751);
	assert_int_equal(st.uid, 100000);
	assert_int_equal(st.gid, 0xfffffffe);
	if (large_inodes) {
		assert_int_equal(st.atime.tv_sec, at.tv_sec);
		assert_int_equal(st.atime.tv_nsec, at.tv_nsec);
		assert_int_equal(st.mtime.tv_sec, mt.tv_sec);
		assert_int_equal(st.mtime.tv_nsec, mt.tv_nsec);
		assert_true(st.crtime.tv_sec > 1600000000);
	} else {
		assert_int_equal(st.atime.tv_sec, INT32_MAX);
	}
	OK(vdisk_fs_mknod(fs, "/null", S_IFCHR | 0666, 1, 3, err));
	OK(vdisk_fs_mknod(fs, "/big", S_IFBLK | 0600, 259, 70000, err));
	OK(vdisk_fs_mknod(fs, "/fifo", S_IFIFO | 0600, 0, 0, err));
	OK(vdisk_fs_mknod(fs, "/sock", S_IFSOCK | 0600, 0, 0, err));
	FAILS(EINVAL, vdisk_fs_mknod(fs, "/huge", S_IFBLK | 0600, 5000, 0, err));
	FAILS(EINVAL, vdisk_fs_mknod(fs, "/odd", S_IFDIR | 0600, 0, 0, err));
	OK(vdisk_fs_stat(fs, "/null", false, &st, err));
	assert_int_equal(st.mode, S_IFCHR | 0666);
	assert_int_equal(st.rdev_major << 8 | st.rdev_minor, 1 << 8 | 3);
	OK(vdisk_fs_stat(fs, "/big", false, &st, err));
	assert_int_equal(st.rdev_major, 259);
	assert_int_equal(st.rdev_minor, 70000);
}

static void xattrs(struct vdisk_fs *fs)
{
	/* as Linux has them: version 2; user rw, group r, mask rw, other -; user 1000 rw */
	static const uint8_t acl[] = {
		2, 0, 0, 0,
		1, 0, 6, 0, 255, 255, 255, 255,  2, 0, 6, 0, 0xe8, 3, 0, 0,
		4, 0, 4, 0, 255, 255, 255, 255,  16, 0, 6, 0, 255, 255, 255, 255,
		32, 0, 0, 0, 255, 255, 255, 255,
	};
	uint8_t cap[20] = { 1, 0, 0, 2, 0, 0x20 }, value[700], got[800];
	char list[300];
	ssize_t n = 0;

	memset(value, 0x5a, sizeof(value));
	put(fs, "/x", "x", 1);
	FAILS(ENODATA, (int)vdisk_fs_getxattr(fs, "/x", "user.none", got, sizeof(got), err));
	OK(vdisk_fs_setxattr(fs, "/x", "user.small", "v", 1, err));
	OK(vdisk_fs_setxattr(fs, "/x", "user.empty", "", 0, err));
	OK(vdisk_fs_setxattr(fs, "/x", "security.capability", cap, sizeof(cap), err));
	OK(vdisk_fs_setxattr(fs, "/x", "system.posix_acl_access", acl, sizeof(acl), err));
	OK(vdisk_fs_setxattr(fs, "/x", "user.large", value, sizeof(value), err));
	OK(vdisk_fs_setxattr(fs, "/x", "trusted.t", "tt", 2, err));
	FAILS(ENOTSUP, vdisk_fs_setxattr(fs, "/x", "system.data", "v", 1, err));
	FAILS(ENOTSUP, vdisk_fs_setxattr(fs, "/x", "nonsense", "v", 1, err));
	OK(n = vdisk_fs_getxattr(fs, "/x", "user.large", got, sizeof(got), err));
	assert_int_equal(n, sizeof(value));
	assert_memory_equal(got, value, sizeof(value));
	OK(n = vdisk_fs_getxattr(fs, "/x", "user.large", NULL, 0, err));
	assert_int_equal(n, sizeof(value));
	FAILS(ERANGE, (int)vdisk_fs_getxattr(fs, "/x", "user.large", got, 5, err));
	OK(n = vdisk_fs_getxattr(fs, "/x", "system.posix_acl_access", got, sizeof(got), err));
	assert_int_equal(n, sizeof(acl));
	assert_memory_equal(got, acl, sizeof(acl));
	OK(n = vdisk_fs_getxattr(fs, "/x", "security.capability", got, sizeof(got), err));
	assert_memory_equal(got, cap, sizeof(cap));
	OK(n = vdisk_fs_listxattr(fs, "/x", list, sizeof(list), err));
	assert_int_equal(n, sizeof("user.small") + sizeof("user.empty") + sizeof("user.large") +
			 sizeof("security.capability") + sizeof("system.posix_acl_access") +
			 sizeof("trusted.t"));
	FAILS(ERANGE, (int)vdisk_fs_listxattr(fs, "/x", list, 12, err));
	OK(vdisk_fs_removexattr(fs, "/x", "user.large", err));
	FAILS(ENODATA, vdisk_fs_removexattr(fs, "/x", "user.large", err));
	OK(n = vdisk_fs_getxattr(fs, "/x", "user.empty", got, sizeof(got), err));
	assert_int_equal(n, 0);
}

static void contents(struct vdisk_fs *fs)
{
	AUTO_FREE uint8_t *a = malloc(3 << 20), *b = malloc(3 << 20);
	struct vdisk_file *f;
	struct vdisk_stat st;
	uint64_t start, len;
	ssize_t n = 0;

	for (size_t i = 0; i < 3 << 20; i++)
		a[i] = (uint8_t)(i * 31 + (i >> 9));
	put(fs, "/big.bin", a, 3 << 20);
	expect_file(fs, "/big.bin", a, 3 << 20);

	/* sparse, in the middle and at the end */
	OK(vdisk_file_open(&f, fs, "/sparse", VDISK_FILE_WRITE | VDISK_FILE_CREATE, 0600, err));
	OK(vdisk_file_write(f, "begin", 5, 0, err));
	OK(vdisk_file_write(f, "middle", 6, 5 << 20, err));
	OK(vdisk_file_truncate(f, 20 << 20, err));
	OK(vdisk_fs_stat(fs, "/sparse", false, &st, err));
	assert_int_equal(st.size, 20 << 20);
	assert_true(st.allocated <= 512 << 10);
	OK(vdisk_file_next_data(f, 0, &start, &len, err));
	assert_int_equal(start, 0);
	assert_true(len >= 5 && len <= 64 << 10);
	OK(vdisk_file_next_data(f, len, &start, &len, err));
	assert_true(start <= 5 << 20 && start + len >= (5 << 20) + 6 && start > 4 << 20);
	OK(vdisk_file_next_data(f, start + len, &start, &len, err));
	assert_int_equal(len, 0);
	OK(n = vdisk_file_read(f, b, 16, (5 << 20) - 4, err));
	assert_int_equal(n, 16);
	assert_memory_equal(b, "\0\0\0\0middle\0\0\0\0\0\0", 16);
	OK(n = vdisk_file_read(f, b, 16, (20 << 20) - 3, err));
	assert_int_equal(n, 3);
	OK(n = vdisk_file_read(f, b, 16, 1ull << 40, err));
	assert_int_equal(n, 0);

	/* what was cut off does not come back */
	OK(vdisk_file_truncate(f, 3, err));
	OK(vdisk_file_truncate(f, 9000, err));
	OK(n = vdisk_file_read(f, b, 9000, 0, err));
	assert_int_equal(n, 9000);
	assert_memory_equal(b, "beg\0\0\0\0", 7);
	OK(vdisk_file_truncate(f, 2, err));
	OK(vdisk_file_write(f, "z", 1, 4, err));
	OK(n = vdisk_file_read(f, b, 10, 0, err));
	assert_int_equal(n, 5);
	assert_memory_equal(b, "be\0\0z", 5);

	/* a removed file stays as long as it is open */
	OK(vdisk_fs_remove(fs, "/sparse", err));
	OK(vdisk_file_write(f, "still", 5, 0, err));
	OK(n = vdisk_file_read(f, b, 10, 0, err));
	assert_memory_equal(b, "still", 5);
	OK(vdisk_file_close(f, err));

	FAILS(EEXIST, vdisk_file_open(&f, fs, "/big.bin",
				      VDISK_FILE_WRITE | VDISK_FILE_CREATE | VDISK_FILE_EXCL, 0, err));
	OK(vdisk_file_open(&f, fs, "/big.bin", 0, 0, err));
	FAILS(EBADF, (int)vdisk_file_write(f, "x", 1, 0, err));
	OK(vdisk_file_close(f, err));
}

static int count(void *arg, const char *name, const struct vdisk_stat *st)
{
	(void)name, (void)st;
	(*(unsigned *)arg)++;
	return 0;
}

static void many_names(struct vdisk_fs *fs, unsigned n)
{
	struct vdisk_stat st;
	unsigned seen = 0;
	char path[80];

	OK(vdisk_fs_mkdir(fs, "/many", 0755, err));
	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/many/a-rather-long-name-for-a-file-%u", i);
		OK(vdisk_fs_mknod(fs, path, S_IFREG | 0644, 0, 0, err));
	}
	OK(vdisk_fs_list(fs, "/many", count, &seen, err));
	assert_int_equal(seen, n);
	for (unsigned i = 0; i < n; i += 3) {
		snprintf(path, sizeof(path), "/many/a-rather-long-name-for-a-file-%u", i);
		OK(vdisk_fs_remove(fs, path, err));
		FAILS(ENOENT, vdisk_fs_stat(fs, path, true, &st, err));
	}
	for (unsigned i = 0; i < n; i += 3) {
		snprintf(path, sizeof(path), "/many/again%u", i);
		OK(vdisk_fs_symlink(fs, "target", path, err));
	}
	seen = 0;
	OK(vdisk_fs_list(fs, "/many", count, &seen, err));
	assert_int_equal(seen, n);
}

static void test_kinds(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct opened x;
		uint64_t before;

		make_fs(kinds[i], "32M");
		x = open_fs(VDISK_FS_WRITE);
		before = free_bytes(x.fs);
		print_message("%s: %s\n", kinds[i], vdisk_fs_type(x.fs));
		names(x.fs);
		renames(x.fs);
		attributes(x.fs, !strstr(kinds[i], "-I 128"));
		xattrs(x.fs);
		OK(vdisk_fs_sync(x.fs, err));
		fsck_clean();
		contents(x.fs);
		many_names(x.fs, 700);
		close_fs(&x);

		/* everything can go again, and gives all its space back */
		x = open_fs(VDISK_FS_WRITE);
		expect_file(x.fs, "/abs", "hello\n", 6);
		for (const char *const *p = (const char *const []){ "etc", "abs", "loop", "dirlink",
		     "tomake", "slow", "up", "attr", "null", "big", "fifo", "sock", "x", "big.bin",
		     "many", NULL }; *p; p++)
			OK(vdisk_fs_remove_tree(x.fs, *p, err));
		assert_true(free_bytes(x.fs) == before);
		close_fs(&x);
	}
}

/* ---- other people's file systems ---- */

static void test_strangers(void **state)
{
	struct opened x;
	char *long_text = malloc(100001);
	struct vdisk_stat st;

	(void)state;
	memset(long_text, 'q', 100000);
	long_text[100000] = '\0';
	/* a tree as mke2fs makes it, with hashed directories (e2fsck -D) and inline data */
	assert_int_equal(run("rm -rf %s/tree && mkdir -p %s/tree/d && cd %s/tree && "
			     "for i in $(seq 2000); do echo $i >d/file-number-$i; done; "
			     "echo tiny >tiny; ln -s tiny link; mkfifo fifo; "
			     "head -c 100000 /dev/zero | tr '\\0' q >long", dir, dir, dir), 0);
	for (unsigned inl = 0; inl < 2; inl++) {
		char options[200];

		snprintf(options, sizeof(options), "-t ext4 -d %s/tree -O %sinline_data", dir,
			 inl ? "" : "^");
		make_fs(options, "40M");
		run("PATH=$PATH:/sbin:/usr/sbin e2fsck -fyD %s >%s/log 2>&1", image, dir);
		x = open_fs(0);
		expect_file(x.fs, "/link", "tiny\n", 5);
		expect_file(x.fs, "/long", long_text, 100000);
		expect_file(x.fs, "/d/file-number-1999", "1999\n", 5);
		FAILS(EROFS, vdisk_fs_mkdir(x.fs, "/no", 0755, err));
		FAILS(ENOENT, vdisk_fs_stat(x.fs, "/d/file-number-2001", false, &st, err));
		close_fs(&x);
		x = open_fs(VDISK_FS_WRITE);
		for (unsigned i = 1; i < 2000; i++) {
			char path[64], to[64];

			snprintf(path, sizeof(path), "/d/file-number-%u", i);
			snprintf(to, sizeof(to), "/d/moved-to-another-name-%u", i);
			if (i % 3)
				OK(vdisk_fs_rename(x.fs, path, to, err));
			else
				OK(vdisk_fs_remove(x.fs, path, err));
		}
		put(x.fs, "/tiny", long_text, 100000);
		expect_file(x.fs, "/link", long_text, 100000);
		put(x.fs, "/tiny", "small", 5);
		close_fs(&x);
		assert_int_equal(debugfs("cat /d/moved-to-another-name-1000"), 0);
		assert_int_equal(run("test \"$(cat %s/out)\" = 1000", dir), 0);
	}
	free(long_text);
}

static void test_full(void **state)
{
	AUTO_FREE char *big = calloc(1, 16 << 20);
	struct vdisk_file *f;
	struct vdisk_error e = { 0 };
	struct opened x;
	char path[40];
	ssize_t n;
	unsigned i;
	int r = 0;

	(void)state;
	for (unsigned ext4 = 0; ext4 < 2; ext4++) {
		make_fs(ext4 ? "-t ext4 -N 64" : "-t ext2 -b 1024 -N 64", "8M");
		x = open_fs(VDISK_FS_WRITE);
		OK(vdisk_file_open(&f, x.fs, "/f", VDISK_FILE_WRITE | VDISK_FILE_CREATE, 0600, err));
		memset(big, 'b', 16 << 20);
		n = vdisk_file_write(f, big, 16 << 20, 3, &e);
		assert_int_equal(n, -ENOSPC);
		assert_non_null(strstr(e.msg, "no space"));
		OK(vdisk_file_close(f, err));
		OK(vdisk_fs_sync(x.fs, err));
		fsck_clean();
		/* the last blocks may have been too few for data and its map */
		for (i = 0; i < 20 && r == 0; i++) {
			snprintf(path, sizeof(path), "/d%u", i);
			r = vdisk_fs_mkdir(x.fs, path, 0755, &e);
		}
		assert_int_equal(r, -ENOSPC);
		r = 0;
		OK(vdisk_fs_remove(x.fs, "/f", err));
		for (i = 0; i < 100 && r == 0; i++) {
			snprintf(path, sizeof(path), "/inode%u", i);
			r = vdisk_fs_mknod(x.fs, path, S_IFREG, 0, 0, &e);
		}
		assert_int_equal(r, -ENOSPC);
		assert_non_null(strstr(e.msg, "no inodes"));
		r = 0;
		close_fs(&x);
	}
}

static void test_refused(void **state)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .format = "raw" };
	struct vdisk_fs *fs = NULL;
	struct vdisk *d;

	(void)state;
	make_fs("-t ext4", "8M");
	run("PATH=$PATH:/sbin:/usr/sbin debugfs -w -R 'ssv state 2' %s >/dev/null 2>&1", image);
	o.flags = VDISK_OPEN_WRITE;
	OK(vdisk_open(&d, image, &o, err));
	FAILS(EUCLEAN, vdisk_fs_open(&fs, d, VDISK_FS_WRITE, err));
	OK(vdisk_fs_open(&fs, d, 0, err));
	vdisk_fs_close(fs, NULL);
	vdisk_close(d, NULL);
	make_fs("-t ext4 -O quota", "8M");
	OK(vdisk_open(&d, image, &o, err));
	FAILS(ENOTSUP, vdisk_fs_open(&fs, d, VDISK_FS_WRITE, err));
	vdisk_close(d, NULL);
	/* a file system cut short, and none at all */
	make_fs("-t ext4", "8M");
	assert_int_equal(truncate(image, 5 << 20), 0);
	OK(vdisk_open(&d, image, &o, err));
	FAILS(EUCLEAN, vdisk_fs_open(&fs, d, 0, err));
	vdisk_close(d, NULL);
	OK(vdisk_open_memory(&d, 1 << 20, err));
	FAILS(EMEDIUMTYPE, vdisk_fs_open(&fs, d, 0, err));
	vdisk_close(d, NULL);
}

/* Everything in the middle of a change: the mark "in use" is there. */
static void test_mark(void **state)
{
	struct opened x;

	(void)state;
	make_fs("-t ext4", "8M");
	x = open_fs(VDISK_FS_WRITE);
	put(x.fs, "/a", "a", 1);
	debugfs("show_super_stats -h");
	assert_int_equal(run("grep -q 'state: *not clean' %s/out", dir), 0);
	OK(vdisk_fs_sync(x.fs, err));
	debugfs("show_super_stats -h");
	assert_int_equal(run("grep -q 'state: *clean' %s/out", dir), 0);
	close_fs(&x);
}

/* ---- random operations against the host ---- */

static uint64_t seed;

static unsigned rnd(unsigned n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(seed >> 33) % n;
}

static void random_path(char *buf, size_t size, char *host, size_t host_size)
{
	static const char *const parts[] = { "a", "b", "c", "dd", "e1", "name-that-is-longer" };
	unsigned depth = 1 + rnd(3);

	buf[0] = '\0';
	for (unsigned i = 0; i < depth; i++)
		snprintf(buf + strlen(buf), size - strlen(buf), "/%s", parts[rnd(ARRAY_SIZE(parts))]);
	snprintf(host, host_size, "%s/model%s", dir, buf);
}

static int host_write(const char *path, const uint8_t *data, size_t len, uint64_t off, int flags)
{
	int fd = open(path, O_WRONLY | O_NOFOLLOW | flags, 0644), r = 0;

	if (fd < 0)
		return -errno;
	if (pwrite(fd, data, len, (off_t)off) != (ssize_t)len)
		r = -errno;
	close(fd);
	return r;
}

static int our_write(struct vdisk_fs *fs, const char *path, const uint8_t *data, size_t len,
		     uint64_t off, unsigned flags)
{
	struct vdisk_stat st;
	struct vdisk_file *f;
	ssize_t n;
	int r = vdisk_fs_stat(fs, path, true, &st, NULL);

	if (r == 0 && S_ISLNK(st.mode))
		return -ELOOP;	/* as O_NOFOLLOW has it */
	r = vdisk_file_open(&f, fs, path, VDISK_FILE_WRITE | flags, 0644, NULL);
	if (r < 0)
		return r;
	n = vdisk_file_write(f, data, len, off, NULL);
	r = vdisk_file_close(f, NULL);
	return n < 0 ? (int)n : r;
}

static int sys(int r)
{
	return r < 0 ? -errno : 0;
}

static void one_op(struct vdisk_fs *fs, unsigned n)
{
	static uint8_t data[200000];
	char path[200], host[300], path2[200], host2[300];
	unsigned op = rnd(100);
	int want, got;

	random_path(path, sizeof(path), host, sizeof(host));
	random_path(path2, sizeof(path2), host2, sizeof(host2));
	if (op < 20) {
		want = sys(mkdir(host, 0755));
		got = vdisk_fs_mkdir(fs, path, 0755, NULL);
	} else if (op < 45) {
		size_t len = 1 + rnd(rnd(4) ? 9000 : sizeof(data));
		uint64_t off = rnd(3) ? rnd(5000) : rnd(2000000);

		memset(data, (int)n | 1, len);
		want = host_write(host, data, len, off, O_CREAT);
		got = our_write(fs, path, data, len, off, VDISK_FILE_CREATE);
	} else if (op < 52) {
		uint64_t size = rnd(2) ? rnd(20000) : rnd(3000000);
		struct vdisk_file *f;
		struct vdisk_stat st;

		if (vdisk_fs_stat(fs, path, true, &st, NULL) < 0 || !S_ISREG(st.mode))
			return;
		want = sys(truncate(host, (off_t)size));
		got = vdisk_file_open(&f, fs, path, VDISK_FILE_WRITE, 0, NULL);
		if (got == 0) {
			got = vdisk_file_truncate(f, size, NULL);
			vdisk_file_close(f, NULL);
		}
	} else if (op < 70) {
		struct stat st;

		want = sys(lstat(host, &st));
		if (want == 0)
			want = sys(S_ISDIR(st.st_mode) ? rmdir(host) : unlink(host));
		got = vdisk_fs_remove(fs, path, NULL);
	} else if (op < 85) {
		want = sys(rename(host, host2));
		got = vdisk_fs_rename(fs, path, path2, NULL);
		/* which of two reasons is told first differs */
		if (want < 0 && got < 0)
			got = want;
	} else if (op < 92) {
		want = sys(linkat(AT_FDCWD, host, AT_FDCWD, host2, 0));
		got = vdisk_fs_link(fs, path, path2, NULL);
		if (want < 0 && got < 0)
			got = want;
	} else if (op < 97) {
		snprintf(host2, sizeof(host2), "%.*s%u", (int)rnd(90), "no/where/to/be/found/or/perhaps"
			 "/a/long/path/that/needs/a/block/of/its/own/because/it/is/long", n);
		want = sys(symlink(host2, host));
		got = vdisk_fs_symlink(fs, host2, path, NULL);
	} else {
		want = sys(fchmodat(AT_FDCWD, host, n & 0777, 0));
		got = vdisk_fs_chmod(fs, path, n & 0777, NULL);
	}
	if (getenv("TRACE"))
		print_message("%u: %u %s %s\n", n, op, path, path2);
	if (want != got)
		fail_msg("operation %u (%u) on %s, %s: host %d, we %d", n, op, path, path2, want, got);
}

struct compare_ctx {
	struct vdisk_fs *fs;
	const char *path;
	unsigned n;
};

static void compare_dir(struct vdisk_fs *fs, const char *path);

static int compare_one(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct compare_ctx *c = arg;
	char path[500], host[600], a[400] = "", b[400] = "";
	struct stat h;

	if (!strcmp(name, "lost+found"))
		return 0;
	c->n++;
	snprintf(path, sizeof(path), "%s/%s", c->path, name);
	snprintf(host, sizeof(host), "%s/model%s", dir, path);
	assert_int_equal(lstat(host, &h), 0);
	assert_int_equal(h.st_mode & S_IFMT, st->mode & S_IFMT);
	if (!S_ISLNK(h.st_mode))
		assert_int_equal(h.st_mode, st->mode);
	if (S_ISREG(h.st_mode)) {
		AUTO_FREE char *data = malloc((size_t)h.st_size + 1);
		int fd = open(host, O_RDONLY);

		assert_int_equal(h.st_size, st->size);
		assert_int_equal(h.st_nlink, st->nlink);
		assert_int_equal(read(fd, data, (size_t)h.st_size), h.st_size);
		close(fd);
		expect_file(c->fs, path, data, (size_t)h.st_size);
	} else if (S_ISLNK(h.st_mode)) {
		assert_true(readlink(host, a, sizeof(a) - 1) > 0);
		OK(vdisk_fs_readlink(c->fs, path, b, sizeof(b), err));
		assert_string_equal(a, b);
	} else {
		compare_dir(c->fs, path);
	}
	return 0;
}

static void compare_dir(struct vdisk_fs *fs, const char *path)
{
	struct compare_ctx c = { .fs = fs, .path = path };
	char host[600];
	struct dirent *de;
	DIR *d;

	OK(vdisk_fs_list(fs, *path ? path : "/", compare_one, &c, err));
	snprintf(host, sizeof(host), "%s/model%s", dir, path);
	d = opendir(host);
	assert_non_null(d);
	while ((de = readdir(d)))
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
			c.n--;
	closedir(d);
	assert_int_equal(c.n, 0);
}

static void test_random(void **state)
{
	static const char *const types[] = { "-t ext4", "-t ext2 -b 1024",
		"-t ext4 -O inline_data", "-t ext4 -O bigalloc" };
	unsigned steps = getenv("LONG") ? 20000 : 1500;
	const char *s = getenv("SEED");

	(void)state;
	umask(0);
	for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
		struct opened x;

		seed = s ? strtoull(s, NULL, 0) : 42 + t;
		print_message("%s: seed %" PRIu64 "\n", types[t], seed);
		assert_int_equal(run("rm -rf %s/model && mkdir %s/model", dir, dir), 0);
		make_fs(types[t], "64M");
		x = open_fs(VDISK_FS_WRITE);
		for (unsigned i = 0; i < steps; i++) {
			one_op(x.fs, i);
			if (getenv("TRACE"))
				compare_dir(x.fs, "");
			if (i % 500 == 499) {
				compare_dir(x.fs, "");
				close_fs(&x);
				x = open_fs(VDISK_FS_WRITE);
			}
		}
		compare_dir(x.fs, "");
		close_fs(&x);
	}
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/vdisk-fs.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(image, sizeof(image), "%s/image", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return run("rm -rf %s", dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_mark),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
