/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdiskd.conf: what is right, and what is wrong, with the line that it is wrong in. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "core/compiler.h"
#include "target/config.h"
#include "target/iscsi/chap.h"

/* The secret is the path, without its slash. */
static int secret(const char *path, uint8_t out[ISCSI_SECRET_MAX], struct vdisk_error *err)
{
	size_t len = strlen(path + 1);

	if (!strcmp(path, "/missing")) {
		snprintf(err->msg, sizeof(err->msg), "no such file");
		return -ENOENT;
	}
	memcpy(out, path + 1, len);
	return (int)len;
}

static int parse(struct config **out, const char *text, struct vdisk_error *err)
{
	return config_parse(out, "conf", text, strlen(text), secret, err);
}

static void test_whole(void **state UNUSED)
{
	static const char text[] =
		"# a comment\r\n"
		"user vdiskd\n"
		"state-directory /var/lib/vdiskd\nsanitize-rate 100M\n"
		"threads 3 {\n pin\n busy-poll 50\n}\n"
		"\n"
		"portal 192.0.2.1            # the port is 3260\n"
		"portal [2001:db8::1]:860 {\n"
		"\tgroup 2\n"
		"\tadvertise [2001:db8::99]\n"
		"}\n"
		"portal 10.0.0.1:0 {\n"
		"	advertise no\n"
		"}\n"
		"limits {\n"
		"  nop-interval 0\n"
		"  sessions 7\n"
		"}\n"
		"chap-user alice {\n"
		"  secret-file /alice-has-a-secret\n"
		"}\n"
		"chap-user \"the \\\"server\\\"\\\\\" {\n"
		"  secret-file /the-server-has-one-too\n"
		"}\n"
		"discovery {\n"
		"  network 192.0.2.0/24 2001:db8::/32\n"
		"  chap alice\n"
		"}\n"
		"target iqn.2026-11.test:a {\n"
		"  alias \"mail and news\"\n"
		"  group 1 2\n"
		"  network 192.0.2.0/24 !192.0.2.66\n"
		"  chap alice\n"
		"  chap-mutual \"the \\\"server\\\"\\\\\"\n"
		"  chap-digests sha256 sha3-256\n"
		"  initiator iqn.1993-08.org.debian:a* iqn.x:b {\n"
		"    luns 0 4-6\n"
		"    read-only 5\n"
		"  }\n"
		"  initiator iqn.x:c {\n"
		"    read-only\n"
		"  }\n"
		"  lun 0 \"/srv/a disk.qcow2@clean#p1\" {\n"
		"    read-only\n"
		"    force-share\n"
		"    block-size 4096\n"
		"    format qcow2\n"
		"    refs none\n"
		"  }\n"
		"  lun 5 /srv/b#c {\n"
		"    removable\n"
		"    physical-block-size 4096\n"
		"    serial A-1\n"
		"    size 10G\n"
		"  }\n"
		"}\n"
		"target iqn.2026-11.test:gone {\n"
		"  redirect 192.0.2.9 permanent\n"
		"}";
	struct vdisk_error err = { 0 };
	struct config *c;
	const struct config_target *t;

	if (parse(&c, text, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(c->user, "vdiskd");
	assert_int_equal(c->reactors.threads, 3);
	assert_int_equal(c->reactors.busy_us, 50);
	assert_true(c->reactors.pin);
	assert_int_equal(c->n_portals, 3);
	assert_string_equal(c->portals[0].address, "192.0.2.1:3260");
	assert_int_equal(c->portals[0].group, 1);
	assert_null(c->portals[0].advertise);
	assert_string_equal(c->portals[1].address, "[2001:db8::1]:860");
	assert_int_equal(c->portals[1].group, 2);
	assert_string_equal(c->portals[1].advertise, "[2001:db8::99]:3260");
	assert_string_equal(c->portals[2].advertise, "");
	assert_int_equal(c->limits.nop_interval, 0);
	assert_int_equal(c->limits.sessions, 7);
	assert_int_equal(c->limits.login_timeout, 15);
	assert_int_equal(c->discovery.n_nets, 2);
	assert_int_equal(c->discovery.auth.n_users, 1);
	assert_int_equal(c->discovery.auth.digests, ISCSI_CHAP_ALL);
	t = &c->targets[0];
	assert_string_equal(t->alias, "mail and news");
	assert_int_equal(t->access.n_groups, 2);
	assert_string_equal(t->access.auth.self.name, "the \"server\"\\");
	assert_int_equal(t->access.auth.self.secret_len, 22);
	assert_int_equal(t->access.auth.digests, 1u << ISCSI_CHAP_SHA256 | 1u << ISCSI_CHAP_SHA3_256);
	assert_int_equal(t->access.n_rules, 3);
	assert_int_equal(t->access.rules[1].view.visible[0], 0x71);
	assert_int_equal(t->access.rules[1].view.writable[0], ~0x20u);
	assert_int_equal(t->access.rules[2].view.visible[7], UINT32_MAX);
	assert_int_equal(t->access.rules[2].view.writable[7], 0);
	assert_int_equal(t->n_luns, 2);
	assert_string_equal(t->luns[0].disk, "/srv/a disk.qcow2@clean#p1");
	assert_true(t->luns[0].read_only && t->luns[0].share);
	assert_int_equal(t->luns[0].block_size, 4096);
	assert_int_equal(config_lun_opts(&t->luns[0]).flags, VDISK_OPEN_SHARE);
	assert_int_equal(config_lun_opts(&t->luns[1]).flags, VDISK_OPEN_WRITE);
	assert_string_equal(t->luns[1].disk, "/srv/b#c");
	assert_true(t->luns[1].removable);
	assert_int_equal(t->luns[1].physical_size, 4096);
	assert_int_equal(t->luns[1].block_size, 0);
	assert_string_equal(t->luns[1].serial, "A-1");
	assert_int_equal(t->luns[1].size, 10ull << 30);
	assert_string_equal(c->state_dir, "/var/lib/vdiskd");
	assert_int_equal(c->sanitize_rate, 100u << 20);
	assert_true(config_lun_same(&t->luns[0], &t->luns[0]));
	assert_false(config_lun_same(&t->luns[0], &t->luns[1]));
	assert_string_equal(c->targets[1].access.redirect, "192.0.2.9:3260");
	assert_true(c->targets[1].access.redirect_permanent);
	config_free(c);
}

#define P "portal 127.0.0.1\n"
#define T P "target iqn.a:b {\n"
#define U "chap-user u {\nsecret-file /twelve-bytes\n}\nchap-user v {\nsecret-file /twelve-bytes\n}\n"

static void test_wrong(void **state UNUSED)
{
	static const struct { const char *text; unsigned line; const char *says; } cases[] = {
		{ "", 0, "no portal" },
		{ "nonsense\n", 1, "'nonsense' is not a directive" },
		{ P "lun 0 /a\n", 2, "does not belong here" },
		{ P "Portal 127.0.0.2\n", 2, "not a directive" },
		{ "user\n", 1, "has 0 arguments, not 1" },
		{ "user a b\n", 1, "has 2 arguments, not 1" },
		{ "user a\nuser b\n", 2, "comes twice" },
		{ "user a {\n", 1, "has no block" },
		{ P "portal 127.0.0.1:3260\n", 2, "in line 1" },
		{ "portal localhost\n", 1, "not ADDRESS" },
		{ "portal 127.0.0.1:65536\n", 1, "not ADDRESS" },
		{ "portal 127.0.0.1:\n", 1, "not ADDRESS" },
		{ "portal ::1\n", 1, "not ADDRESS" },
		{ "portal [127.0.0.1]\n", 1, "not ADDRESS" },
		{ "portal [::1]x\n", 1, "not ADDRESS" },
		{ "portal 127.0.0.1 {\n group 0\n}\n", 2, "not a number" },
		{ "portal 127.0.0.1 {\n group 65536\n}\n", 2, "not a number" },
		{ "portal 127.0.0.1 {\n advertise :3260\n}\n", 2, "neither" },
		{ "portal 127.0.0.1 {\n", 1, "not closed" },
		{ "portal 127.0.0.1 { group 2\n", 1, "follows the '{'" },
		{ "}\n", 1, "without a block" },
		{ "{\n", 1, "without a directive" },
		{ P "} x\n", 2, "follows the '}'" },
		{ "user \"a\n", 1, "not closed" },
		{ "user \"a\"b\n", 1, "no blank" },
		{ "user a\"b\"\n", 1, "quote inside" },
		{ "user a\x01\n", 1, "control character" },
		{ "limits {\n sessions x\n}\n", 2, "not a number" },
		{ "limits {\n sessions -1\n}\n", 2, "not a number" },
		{ "limits {\n sessions 99999999999999999999\n}\n", 2, "not a number" },
		{ "limits {\n login-timeout 0\n}\n", 2, "not a number" },
		{ "limits {\n colour 3\n}\n", 2, "not a directive" },
		{ "threads 0\n", 1, "not a number" },
		{ "threads 65\n", 1, "not a number" },
		{ "chap-user u\n", 1, "no secret-file" },
		{ "chap-user u {\n}\n", 2, "no secret-file" },
		{ "chap-user u {\nsecret-file /missing\n}\n", 2, "no such file" },
		{ "chap-user u {\nsecret-file /eleven-byte\n}\n", 2, "less than 12" },
		{ U "chap-user u {\nsecret-file /twelve-bytes\n}\n", 7, "twice" },
		{ "chap-user \"\" {\n", 1, "1 to 255" },
		{ P "target b {\n", 2, "not an iSCSI name" },
		{ T "lun 0 /a\n}\ntarget IQN.a:B {\n", 5, "not an iSCSI name" },
		{ T "lun 0 /a\n}\ntarget iqn.A:b {\n", 5, "in line 2" },
		{ T "}\n", 3, "has no LUN" },
		{ T "lun 256 /a\n", 3, "not a number" },
		{ T "lun 0 /a\nlun 0 /b\n", 4, "already" },
		{ T "lun 0\n", 3, "not 2" },
		{ T "lun 0 /a {\nblock-size 1024\n", 4, "512 or 4096" },
		{ T "lun 0 /a {\nrefs some\n", 4, "none of" },
		{ T "lun 0 /a {\nserial \"a b\"\n", 4, "without blanks" },
		{ T "lun 0 /a {\nsize 0\n", 4, "not a size" },
		{ T "lun 0 /a {\nsize 1G\nread-only\n}\n", 6, "cannot get a size" },
		{ P "state-directory x\n", 2, "whole path" },
		{ T "lun 0 /a {\nforce-share\n}\n", 5, "read-only" },
		{ T "lun 0 /a {\nread-only\nread-only\n", 5, "twice" },
		{ T "network 192.0.2.1/24\n", 3, "not a network" },
		{ T "initiator iqn.[ab]\n", 3, "not an initiator" },
		{ T "lun 0 /a\ninitiator i {\nluns 3-1\n", 5, "not a number" },
		{ T "lun 0 /a\ninitiator i {\nluns 0-256\n", 5, "not a number" },
		{ T "lun 0 /a\ninitiator i {\nluns 1\n}\n}\n", 7, "none of its LUNs" },
		{ T "chap u\n", 3, "no chap-user \"u\"" },
		{ U T "lun 0 /a\nchap u u\n", 10, "named twice" },
		{ U T "lun 0 /a\nchap-mutual u\n}\n", 11, "need chap users" },
		{ U T "lun 0 /a\nchap u\nchap-mutual v\n}\n", 12, "same secret" },
		{ U T "chap u\nchap-digests md4\n", 10, "none of md5" },
		{ T "group 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n", 3, "or less" },
		{ T "lun 0 /a\ngroup 9\n}\n", 2, "no portal is in a group" },
		{ T "redirect host.example\n", 3, "not ADDRESS" },
		{ T "redirect 192.0.2.1 now\n", 3, "neither" },
		{ "discovery {\nlun 0 /a\n", 2, "does not belong" },
		{ "discovery {\ninitiator i {\n", 2, "has no block" },
		{ U "discovery {\nchap-mutual u\n}\n", 9, "need chap users" },
	};
	struct vdisk_error err;
	struct config *c = NULL;
	char where[32];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(&err, 0, sizeof(err));
		assert_int_equal(parse(&c, cases[i].text, &err), -EINVAL);
		assert_null(c);
		if (!strstr(err.msg, cases[i].says))
			fail_msg("case %zu: '%s' is not in: %s", i, cases[i].says, err.msg);
		snprintf(where, sizeof(where), "conf:%u: ", cases[i].line);
		if (cases[i].line && strncmp(err.msg, where, strlen(where)) != 0)
			fail_msg("case %zu: not in line %u: %s", i, cases[i].line, err.msg);
		assert_null(strstr(err.msg, "twelve-bytes"));	/* no secret in a message */
	}
	assert_int_equal(config_parse(&c, "conf", "user a\0b\n", 9, secret, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "NUL"));
}

static void test_secret_file(void **state UNUSED)
{
	static const struct { mode_t mode; const char *text; int result; } cases[] = {
		{ 0600, "a secret of mine\n", 16 },
		{ 0640, "a secret of mine", 16 },
		{ 0400, "a secret of mine\r\nand more", 16 },
		{ 0600, "", 0 },
		{ 0644, "a secret of mine\n", -EPERM },
		{ 0601, "a secret of mine\n", -EPERM },
		{ 0660, "a secret of mine\n", -EPERM },
	};
	char dir[] = "/tmp/vdiskd-config.XXXXXX", path[64], big[2000];
	uint8_t out[ISCSI_SECRET_MAX];
	struct vdisk_error err;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/secret", dir);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		f = fopen(path, "w");
		assert_non_null(f);
		fputs(cases[i].text, f);
		fclose(f);
		chmod(path, cases[i].mode);
		assert_int_equal(config_read_secret(path, out, &err), cases[i].result);
		if (cases[i].result > 0)
			assert_memory_equal(out, "a secret of mine", 16);
		unlink(path);
	}
	memset(big, 'x', sizeof(big));
	for (size_t n = 300; n < sizeof(big); n += 1000) {
		f = fopen(path, "w");
		fwrite(big, 1, n, f);
		fclose(f);
		chmod(path, 0600);
		assert_true(config_read_secret(path, out, &err) < 0);
		unlink(path);
	}
	assert_int_equal(config_read_secret(dir, out, &err), -EINVAL);
	assert_int_equal(config_read_secret(path, out, &err), -ENOENT);
	assert_int_equal(config_read_secret("relative", out, &err), -EINVAL);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_secret_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
