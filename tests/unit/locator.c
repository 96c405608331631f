/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locators: what is split off, what an existing file prevents, and the way back. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vdisk.h"

struct want {
	const char *text, *source, *snapshot, *part, *path;
};

static void same(const char *what, const char *got, const char *want)
{
	if (!got != !want || (got && strcmp(got, want)))
		fail_msg("%s: got '%s', want '%s'", what, got ? got : "-", want ? want : "-");
}

static void check(const struct want *w)
{
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };

	if (vdisk_locator_parse(&loc, w->text, &err) < 0)
		fail_msg("%s: %s", w->text, err.msg);
	same(w->text, loc.source, w->source);
	same(w->text, loc.snapshot, w->snapshot);
	same(w->text, loc.part, w->part);
	same(w->text, loc.path, w->path);
	vdisk_locator_clear(&loc);
}

static void test_split(void **state)
{
	static const struct want wants[] = {
		{ "none.qcow2", "none.qcow2" },
		{ "none.qcow2@clean", "none.qcow2", "clean" },
		{ "none.qcow2#p1", "none.qcow2", NULL, "p1" },
		{ "none.qcow2@clean#p1:/etc/fstab", "none.qcow2", "clean", "p1", "/etc/fstab" },
		{ "/dev/D/vm1#vg0/root", "/dev/D/vm1", NULL, "vg0/root" },
		{ "none#label=a b", "none", NULL, "label=a b" },
		{ "none:/etc/fstab", "none", NULL, NULL, "/etc/fstab" },
		{ "none:/", "none", NULL, NULL, "/" },
		{ "none://etc", "none", NULL, NULL, "//etc" },
		{ "none:/a@b#c:/d", "none", NULL, NULL, "/a@b#c:/d" },
		{ "a@b/none", "a@b/none" },
		{ "dir/@snap", "dir/@snap" },
		{ "none@", "none@" },
		{ "none#", "none#" },
		{ "@x", "@x" },
		{ "#x", "#x" },
		{ ":/x", ":/x" },
		{ "iscsi://host/iqn.2003-01.org.x:t/1#p2", "iscsi://host/iqn.2003-01.org.x:t/1",
		  NULL, "p2" },
		{ "iscsi://user@host/iqn/1", "iscsi://user@host/iqn/1" },
		{ "nbd://host:10809/x#p1:/etc", "nbd://host:10809/x", NULL, "p1", "/etc" },
		{ "rbd:pool/image", "rbd:pool/image" },
		{ "file:a%40b%23c%3a", "a@b#c:" },
		{ "file:a%40b@s%40#p1:/x%y", "a@b", "s@", "p1", "/x%y" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++)
		check(&wants[i]);
}

static void touch(const char *name)
{
	int fd = open(name, O_CREAT | O_WRONLY, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void test_existing(void **state)
{
	static const char *const files[] = { "a", "a@b", "a#p1", "a#1.img", "x@y.img", "a:b",
					     "file:z", "d:/f" };
	static const struct want wants[] = {
		{ "a", "a" },
		{ "a@b", "a@b" },
		{ "a#p1", "a#p1" },
		{ "a@c", "a", "c" },
		{ "a#p2", "a", NULL, "p2" },
		{ "a@b@c", "a@b", "c" },
		{ "a@b#p1", "a@b", NULL, "p1" },
		{ "a#1.img@snap", "a#1.img", "snap" },
		{ "a#1.img@snap#p1", "a#1.img", "snap", "p1" },
		{ "x@y.img#p1", "x@y.img", NULL, "p1" },
		{ "a#label=u@v", "a", NULL, "label=u@v" },
		{ "a#label=u@v:/etc", "a", NULL, "label=u@v", "/etc" },
		{ "a:b", "a:b" },
		{ "a:b:/etc", "a:b", NULL, NULL, "/etc" },
		{ "file:z", "file:z" },
		{ "file:a%40b", "a@b" },
		{ "file:a@b", "a", "b" },
		{ "d:/f", "d:/f" },
		{ "d:/g", "d", NULL, NULL, "/g" },
	};
	char dir[] = "/tmp/vdisk-locator-XXXXXX", cwd[4096];

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	assert_non_null(mkdtemp(dir));
	assert_return_code(chdir(dir), errno);
	assert_return_code(mkdir("d:", 0700), errno);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		touch(files[i]);
	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++)
		check(&wants[i]);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlink(files[i]);
	rmdir("d:");
	assert_return_code(chdir(cwd), errno);
	rmdir(dir);
}

static void test_refused(void **state)
{
	static const char *const texts[] = { "", "file:", "file:%4", "file:%zz", "file:a%00", "file:a%",
					     "file:a@%00" };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char marker[] = "untouched";
		struct vdisk_locator loc = { .source = marker };
		struct vdisk_error err = { 0 };

		assert_int_equal(vdisk_locator_parse(&loc, texts[i], &err), -EINVAL);
		assert_int_equal(err.code, EINVAL);
		assert_true(err.msg[0]);
		assert_ptr_equal(loc.source, marker);
	}
}

/* What format() writes, parse() reads, whatever is in the pieces. */
static void test_round_trip(void **state)
{
	static const struct want wants[] = {
		{ "plain.img", "plain.img" },
		{ "file:a%40b%3Ac%23d%25e@s%231#label=x%40y", "a@b:c#d%e", "s#1", "label=x@y" },
		{ "none@b#vg/lv", "none", "b", "vg/lv" },
		{ "nbd://h:1/x#p1", "nbd://h:1/x", NULL, "p1" },
		{ "file:file%3Ax", "file:x" },
		{ "file:%2Fdir%2F@s", "/dir/", "s" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
		struct vdisk_locator loc = { 0 };
		char *text;

		check(&wants[i]);
		assert_int_equal(vdisk_locator_parse(&loc, wants[i].text, NULL), 0);
		text = vdisk_locator_format(&loc);
		same("format", text, wants[i].text);
		free(text);
		vdisk_locator_clear(&loc);
	}
}

static void test_size(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(vdisk_parse_size("0", &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(vdisk_parse_size("10G", &v), 0);
	assert_int_equal(v, UINT64_C(10) << 30);
	assert_int_equal(vdisk_parse_size("64kib", &v), 0);
	assert_int_equal(v, 65536);
	assert_int_equal(vdisk_parse_size("512B", &v), 0);
	assert_int_equal(v, 512);
	assert_int_equal(vdisk_parse_size("18446744073709551615", &v), 0);
	assert_true(v == UINT64_MAX);
	v = 7;
	assert_int_equal(vdisk_parse_size("16E", &v), -EINVAL);
	assert_int_equal(vdisk_parse_size("18446744073709551616", &v), -EINVAL);
	assert_int_equal(vdisk_parse_size("-1", &v), -EINVAL);
	assert_int_equal(vdisk_parse_size(" 1", &v), -EINVAL);
	assert_int_equal(vdisk_parse_size("", &v), -EINVAL);
	assert_int_equal(vdisk_parse_size("1GX", &v), -EINVAL);
	assert_int_equal(vdisk_parse_size("1.5G", &v), -EINVAL);
	assert_int_equal(v, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_existing),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
