/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* packages.c - the databases of package managers */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/compiler.h"
#include "guest/packages.h"

struct list {
	char text[1024];
	int stop_after;
};

static int add(void *arg, const struct vdisk_package *p)
{
	struct list *l = arg;
	size_t n = strlen(l->text);

	snprintf(l->text + n, sizeof(l->text) - n, "%s|%s|%s\n", p->name, p->version, p->arch);
	return --l->stop_after == 0;
}

static void dpkg(void **state)
{
	static const struct { const char *status, *list; } cases[] = {
		{ "", "" },
		{ "\n\n\n", "" },
		{ "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n",
		  "a|1|all\n" },
		{ "Package: a\nStatus: install ok installed", "a||\n" },
		{ "Package: a\nStatus: install ok unpacked\n\nPackage: b\nStatus: hold ok installed\n",
		  "b||\n" },
		{ "Package: a\nStatus: deinstall ok config-files\n", "" },
		{ "Package: a\nStatus: installed\n", "" },
		{ "Package: a\n\nStatus: install ok installed\n", "" },
		{ "Status: install ok installed\nPackage:\n", "" },
		{ "Package: a\nStatus: install ok not-installed\n", "" },
		{ "Package: a\nDescription: x\n Version: 9\n Status: no\nStatus: x ok installed\n",
		  "a||\n" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct list l = { .text = "" };

		assert_int_equal(packages_dpkg(cases[i].status, add, &l), 0);
		assert_string_equal(l.text, cases[i].list);
	}
}

static void long_values_are_cut(void **state)
{
	struct list l = { .text = "" };
	char status[1024];

	(void)state;
	snprintf(status, sizeof(status), "Status: install ok installed\nPackage: %0500d\n", 7);
	assert_int_equal(packages_dpkg(status, add, &l), 0);
	assert_int_equal(strlen(l.text), 127 + 3);
}

static void apk(void **state)
{
	struct list l = { .text = "" };

	(void)state;
	assert_int_equal(packages_apk("C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\nF:lib\nR:ld.so\n\n"
				      "P:busybox\nV:1.36\nA:x86_64\n\n", add, &l), 0);
	assert_string_equal(l.text, "musl|1.2.4-r2|x86_64\nbusybox|1.36|x86_64\n");
	l = (struct list) { .stop_after = 1 };
	assert_int_equal(packages_apk("P:a\n\nP:b\n", add, &l), 1);
	assert_string_equal(l.text, "a||\n");
}

static void pacman(void **state)
{
	static const char *const bad[] = { "", "-", "--", "a", "a-1", "-1-1" };
	struct vdisk_package p;
	size_t i;

	(void)state;
	assert_int_equal(packages_pacman("gcc-libs-13.2.1-3", &p), 0);
	assert_string_equal(p.name, "gcc-libs");
	assert_string_equal(p.version, "13.2.1-3");
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(packages_pacman(bad[i], &p), -EINVAL);
}

/* ---- rpm ---- */

struct blob {
	uint8_t bytes[512];
	uint32_t entries, data;
};

static void put_entry(struct blob *b, uint32_t tag, uint32_t type, uint32_t at)
{
	uint8_t *e = b->bytes + 8 + 16 * b->entries++;

	store_be32(e, tag);
	store_be32(e + 4, type);
	store_be32(e + 8, at);
	store_be32(e + 12, 1);
}

static size_t finish(struct blob *b, const char *data, uint32_t len)
{
	store_be32(b->bytes, b->entries);
	store_be32(b->bytes + 4, len);
	memcpy(b->bytes + 8 + 16 * b->entries, data, len);
	return 8 + 16 * b->entries + len;
}

static void rpm_header(void **state)
{
	static const char data[] = "bash\0" "5.2\0" "1.fc39\0" "x86_64\0" "\0\0\0\7";
	struct blob b = { .entries = 0 };
	struct vdisk_package p;
	size_t len;

	(void)state;
	put_entry(&b, 63, 7, 0);	/* a region, and things that do not matter */
	put_entry(&b, 1000, 6, 0);
	put_entry(&b, 1001, 6, 5);
	put_entry(&b, 1002, 6, 9);
	put_entry(&b, 1022, 6, 16);
	put_entry(&b, 1003, 4, 23);
	put_entry(&b, 1004, 9, UINT32_MAX);
	len = finish(&b, data, sizeof(data) - 1);
	assert_int_equal(packages_rpm_header(b.bytes, len, &p), 0);
	assert_string_equal(p.name, "bash");
	assert_string_equal(p.version, "7:5.2-1.fc39");
	assert_string_equal(p.arch, "x86_64");
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(packages_rpm_header(b.bytes, cut, &p), -EINVAL);
}

static void rpm_header_bad(void **state)
{
	static const struct { uint32_t tag, type, at; const char *data; uint32_t len; } cases[] = {
		{ 1001, 6, 0, "x", 2 },			/* no name */
		{ 1000, 6, 0, "", 1 },
		{ 1000, 4, 0, "name", 5 },		/* not a string */
		{ 1000, 6, 5, "name", 5 },		/* outside */
		{ 1000, 6, UINT32_MAX, "name", 5 },
		{ 1000, 6, 0, "name", 4 },		/* without an end */
		{ 1003, 4, 1, "nam", 4 },
		{ 1003, 4, UINT32_MAX, "nam", 4 },
	};
	struct vdisk_package p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct blob b = { .entries = 0 };
		size_t len;

		put_entry(&b, cases[i].tag, cases[i].type, cases[i].at);
		if (cases[i].tag == 1003)
			put_entry(&b, 1000, 6, 0);
		len = finish(&b, cases[i].data, cases[i].len);
		assert_int_equal(packages_rpm_header(b.bytes, len, &p), -EINVAL);
		store_be32(b.bytes, 0x10000000);	/* sizes whose sum overflows */
		assert_int_equal(packages_rpm_header(b.bytes, len, &p), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dpkg),
		cmocka_unit_test(long_values_are_cut),
		cmocka_unit_test(apk),
		cmocka_unit_test(pacman),
		cmocka_unit_test(rpm_header),
		cmocka_unit_test(rpm_header_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
