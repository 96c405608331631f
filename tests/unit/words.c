/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* words.c - what people write of a guest and of its disks, and what is refused */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/disk_words.h"
#include "core/compiler.h"

static void memory(void **state)
{
	static const char *const bad[] = { "", "0", "31", "-1", "1x", "33554433", "2T", "12345678901234567890" };
	uint64_t n = 7;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(words_memory(bad[i], &n), -EINVAL);
	assert_int_equal(n, 7);
	assert_int_equal(words_memory("64", &n), 0);
	assert_int_equal(n, 64 << 20);
	assert_int_equal(words_memory("1G", &n), 0);
	assert_int_equal(n, 1 << 30);
}

static void numbers_and_ends(void **state)
{
	struct end_action a;
	unsigned n;

	(void)state;
	assert_int_equal(words_number("64", 1, 64, &n), 0);
	assert_int_equal(n, 64);
	assert_int_equal(words_number("65", 1, 64, &n), -EINVAL);
	assert_int_equal(words_number("+1", 1, 64, &n), -EINVAL);
	assert_int_equal(words_number("1 ", 1, 64, &n), -EINVAL);
	assert_int_equal(words_number("99999999999999999999999", 1, ~0u, &n), -EINVAL);
	assert_int_equal(words_end("exit:255", &a), 0);
	assert_true(!a.reset && a.code == 255);
	assert_int_equal(words_end("reset", &a), 0);
	assert_true(a.reset && a.code == -1);
	assert_int_equal(words_end("exit", &a), 0);
	assert_true(!a.reset && a.code == -1);
	assert_int_equal(words_end("exit:256", &a), -EINVAL);
	assert_int_equal(words_end("exit:", &a), -EINVAL);
}

static void limits(void **state)
{
	static const char *const bad[] = { "", "bytes", "bytes=", "bytes=0", "burst=5", "ops=1,", ",ops=1",
					   "ops=1,,bytes=1", "ops=x", "bytes=1,burst=60001" };
	char text[LIMITS_TEXT_MAX];
	struct blk_limits l;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(words_limits(bad[i], &l), -EINVAL);
	assert_int_equal(words_limits("burst=200,bytes=10M,ops=1K", &l), 0);
	assert_true(l.bytes == 10 << 20 && l.ops == 1024 && l.burst_ms == 200);
	words_format_limits(text, &l);
	assert_string_equal(text, "bytes=10485760,ops=1024,burst=200");
	assert_int_equal(words_limits("none", &l), 0);
	words_format_limits(text, &l);
	assert_string_equal(text, "none");
	l = (struct blk_limits) { UINT64_MAX, UINT64_MAX, 60000 };
	words_format_limits(text, &l);
	assert_int_equal(words_limits(text, &l), 0);
	assert_true(l.bytes == UINT64_MAX && l.burst_ms == 60000);
}

static void cards(void **state)
{
	static const char *const bad[] = { "", "users", "user,mac=", "tap:", "tap:a-name-too-long-for-it",
					   "tap:../x", "bridge:,mac=52:54:00:00:00:01", "user,mac=01:00:00:00:00:01",
					   "user,mac=52:54:00:00:00:01x", "user,mac=52:54:0:0:0:1", "stream:3" };
	struct net_words w;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(words_net(bad[i], &w), -EINVAL);
	assert_int_equal(words_net("user", &w), 0);
	assert_true(w.kind == NET_USER && !w.has_mac);
	assert_int_equal(words_net("bridge:br0,mac=52:54:00:00:0a:01", &w), 0);
	assert_true(w.kind == NET_BRIDGE && w.has_mac && w.mac[4] == 10);
	assert_string_equal(w.dev, "br0");
}

static void check_disk(const char *text, const char *locator, const char *format, const char *serial,
		       const char *limit, bool read_only)
{
	struct guest_disk d = { 0 };
	struct vdisk_error err = { 0 };
	char copy[256];

	snprintf(copy, sizeof(copy), "%s", text);
	if (guest_disk_parse(&d, copy, &err) < 0)
		fail_msg("%s: %s", text, err.msg);
	assert_string_equal(d.locator, locator);
	assert_string_equal(d.format ? d.format : "", format);
	assert_string_equal(d.serial ? d.serial : "", serial);
	assert_string_equal(d.limits, limit);
	assert_int_equal(d.read_only, read_only);
}

static void disks(void **state)
{
	static const char *const bad[] = {
		"a,cache=foo", "a,serial=", "a,serial=abcdefghijklmnopqrstu", "a,block-size=1024",
		"a,ops=0", "a,burst=10", "a,limit=x",
	};
	struct guest_disk d = { 0 };

	(void)state;
	check_disk("a.raw", "a.raw", "", "", "", false);
	check_disk("a,b.raw,read-only", "a,b.raw", "", "", "", true);
	check_disk("a.raw,format=raw,serial=one,ro", "a.raw", "raw", "one", "", true);
	check_disk("a,limit=bytes=1M,ops=5", "a", "", "", "bytes=1M,ops=5", false);
	check_disk("a,ops=5,burst=9", "a", "", "", "ops=5,burst=9", false);
	/* names that look like options */
	check_disk("a,read-only,", "a,read-only", "", "", "", false);
	check_disk("a,b=c", "a,b=c", "", "", "", false);
	check_disk(",read-only", ",read-only", "", "", "", false);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char copy[64];

		snprintf(copy, sizeof(copy), "%s", bad[i]);
		d = (struct guest_disk) { 0 };
		assert_int_equal(guest_disk_parse(&d, copy, NULL), -EINVAL);
	}
	assert_int_equal(guest_disk_word(&d, "nothing", NULL), -EINVAL);
	assert_int_equal(guest_disk_word(&d, "limit=bytes=2M,burst=5", NULL), 0);
	/* in any order; a burst alone is none */
	d = (struct guest_disk) { 0 };
	assert_int_equal(guest_disk_word(&d, "burst=5", NULL), 0);
	assert_int_equal(guest_disk_check(&d, NULL), -EINVAL);
	assert_int_equal(guest_disk_word(&d, "ops=10", NULL), 0);
	assert_int_equal(guest_disk_check(&d, NULL), 0);
}

static void files(void **state)
{
	char good[] = "12=/a=b", bad[] = "2=x", none[] = "12=", word[] = "x";
	struct vdisk_open_file f;

	(void)state;
	assert_int_equal(words_file(good, &f), 0);
	assert_true(f.fd == 12 && !strcmp(f.path, "/a=b"));
	assert_int_equal(words_file(bad, &f), -EINVAL);
	assert_int_equal(words_file(none, &f), -EINVAL);
	assert_int_equal(words_file(word, &f), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory), cmocka_unit_test(numbers_and_ends), cmocka_unit_test(limits),
		cmocka_unit_test(cards), cmocka_unit_test(disks), cmocka_unit_test(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
