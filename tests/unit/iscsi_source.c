/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The iSCSI source: addresses and secrets, and what a target may say. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "source/iscsi.h"

static struct iscsi_address good(const char *uri)
{
	struct iscsi_address a = { 0 };
	struct vdisk_error err = { 0 };

	if (iscsi_address_split(&a, uri, &err) < 0)
		fail_msg("%s: %s", uri, err.msg);
	return a;
}

#define IQN "iqn.2026-11.org.example:disk"

static void addresses(void **state)
{
	struct iscsi_address a = good("iscsi://host/" IQN "/3");

	(void)state;
	assert_string_equal(a.host, "host");
	assert_string_equal(a.port, "3260");
	assert_string_equal(a.target, IQN);
	assert_int_equal(a.lun, 3);
	assert_null(a.user);
	assert_int_equal(a.limit_s, ISCSI_LIMIT_S);
	assert_false(a.header_digest);
	iscsi_address_clear(&a);

	a = good("iscsi://me%se%cr@et@[fe80::1]:860/iqn.2026-11.org.example%3Adisk/0"
		 "?header-digest=crc32c&timeout=7&initiator=iqn.2026-11.test%3Ame");
	assert_string_equal(a.user, "me");
	assert_string_equal(a.secret, "se%cr@et");
	assert_string_equal(a.host, "fe80::1");
	assert_string_equal(a.port, "860");
	assert_string_equal(a.target, IQN);
	assert_true(a.header_digest);
	assert_int_equal(a.limit_s, 7);
	assert_string_equal(a.initiator, "iqn.2026-11.test:me");
	/* what people see of it */
	assert_null(strstr(a.name, "se%cr"));
	assert_non_null(strstr(a.name, "iscsi://me@[fe80::1]:860/iqn."));
	iscsi_address_clear(&a);
}

static void bad_addresses(void **state)
{
	static const char *const bad[] = {
		"iscsi://", "iscsi://host", "iscsi://host/", "iscsi://host/" IQN, "iscsi:///" IQN "/0",
		"iscsi://host/" IQN "/x", "iscsi://host/" IQN "/-1", "iscsi://host/" IQN "/16384",
		"iscsi://host/" IQN "/1x", "iscsi://host:0/" IQN "/1", "iscsi://host:65536/" IQN "/1",
		"iscsi://host:/" IQN "/1", "iscsi://[::1/" IQN "/1", "iscsi://[::1]x/" IQN "/1",
		"iscsi://@host/" IQN "/1", "iscsi://%s@host/" IQN "/1", "iscsi://host/disk/1",
		"iscsi://host/iqn.2026-11.a%0/1", "iscsi://host/iqn.2026-11.a%2/1",
		"iscsi://host/iqn.2026 11.a/1", "iscsi://host/iqn.a%00b/1",
		"iscsi://host/" IQN "/1?timeout=0", "iscsi://host/" IQN "/1?timeout=",
		"iscsi://host/" IQN "/1?timeout", "iscsi://host/" IQN "/1?timeout=9z",
		"iscsi://host/" IQN "/1?header-digest=md5", "iscsi://host/" IQN "/1?what",
		"iscsi://host/" IQN "/1?initiator=me", "nbd://host/" IQN "/1",
	};
	char long_name[400] = "iscsi://host/iqn.";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct iscsi_address a = { .lun = 77 };
		struct vdisk_error err = { 0 };

		if (iscsi_address_split(&a, bad[i], &err) != -EINVAL || !err.msg[0] || a.lun != 77)
			fail_msg("'%s' was taken", bad[i]);
	}
	memset(long_name + strlen(long_name), 'a', 300);
	memcpy(long_name + 330, "/0", 3);
	assert_int_equal(iscsi_address_split(&(struct iscsi_address) { 0 }, long_name, NULL), -EINVAL);
}

/* ---- secrets ---- */

static void secrets(void **state)
{
	char path[] = "/tmp/iscsi-secret.XXXXXX";
	int fd = mkstemp(path);
	struct iscsi_address a;
	struct vdisk_error err = { 0 };

	(void)state;
	assert_true(fd >= 0 && write(fd, "from the file\nmore\n", 19) == 19);
	unsetenv("VDISK_ISCSI_USER");
	unsetenv("VDISK_ISCSI_SECRET");
	unsetenv("VDISK_ISCSI_SECRET_FILE");
	setenv("VDISK_ISCSI_INITIATOR", "iqn.2026-11.test:env", 1);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://me@host/" IQN "/0", &err), -EACCES);
	assert_non_null(strstr(err.msg, "VDISK_ISCSI_SECRET_FILE"));
	setenv("VDISK_ISCSI_SECRET", "from outside", 1);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://me@host/" IQN "/0", NULL), 0);
	assert_string_equal(a.secret, "from outside");
	assert_string_equal(a.initiator, "iqn.2026-11.test:env");
	iscsi_address_clear(&a);
	/* a file comes first, the address before both */
	setenv("VDISK_ISCSI_SECRET_FILE", path, 1);
	setenv("VDISK_ISCSI_USER", "you", 1);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://host/" IQN "/0", NULL), 0);
	assert_string_equal(a.user, "you");
	assert_string_equal(a.secret, "from the file");
	iscsi_address_clear(&a);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://me%here@host/" IQN "/0", NULL), 0);
	assert_string_equal(a.secret, "here");
	iscsi_address_clear(&a);
	/* one that everybody can read is none */
	fchmod(fd, 0644);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://me@host/" IQN "/0", &err), -EPERM);
	fchmod(fd, 0600);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://me@host/" IQN "/0", &err), -EINVAL);
	unlink(path);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://me@host/" IQN "/0", &err), -ENOENT);
	setenv("VDISK_ISCSI_INITIATOR", "nonsense", 1);
	assert_int_equal(iscsi_address_parse(&a, "iscsi://me%x@host/" IQN "/0", &err), -EINVAL);
	close(fd);
}

static void no_secret_is_shown(void **state)
{
	char text[] = "a iscsi://me%s3cret@h/i, b iscsi://h/i@x%y, c iscsi://you%a%b@c@h/";
	struct vdisk_error err;

	(void)state;
	vdisk_redact(text);
	assert_string_equal(text, "a iscsi://me@h/i, b iscsi://h/i@x%y, c iscsi://you@h/");
	assert_int_equal(vdisk_open(&(struct vdisk *) { NULL }, "iscsi://me%s3cret@host/x/0:/etc/fstab",
				    NULL, &err), -EINVAL);
	assert_null(strstr(err.msg, "s3cret"));
	assert_true(vdisk_open(&(struct vdisk *) { NULL }, "iscsi://me%s3cret@host/x/0", NULL, &err) < 0);
	assert_null(strstr(err.msg, "s3cret"));
}

/* ---- the login ---- */

/* A login response in the bytes at @p; its length. */
static size_t response(uint8_t *p, uint8_t flags, const char *text, size_t len)
{
	memset(p, 0, ISCSI_BHS + len + 4);
	p[0] = 0x23;
	p[1] = flags;
	store_be24(p + 5, (uint32_t)len);
	memcpy(p + ISCSI_BHS, text, len);
	return iscsi_pdu_length(p);
}

#define STEP(flags, text) \
	(n = response(p, flags, text, sizeof(text)), iscsi_proof_step(&step, p, n))
#define METHOD		"TargetPortalGroupTag=1\0AuthMethod=CHAP"
#define CHALLENGE	"CHAP_A=5\0CHAP_I=7\0CHAP_C=0x5a"
#define ANSWER		"CHAP_N=x\0CHAP_R=0x00"

static void proof(void **state)
{
	enum iscsi_proof step = ISCSI_PROOF_METHOD;
	uint8_t p[200];
	size_t n;

	(void)state;
	assert_int_equal(STEP(0x00, METHOD), 0);
	assert_int_equal(STEP(0x00, CHALLENGE), 0);
	assert_int_equal(step, ISCSI_PROOF_ANSWER);
	assert_int_equal(STEP(0x81, ANSWER), 0);
	assert_int_equal(step, ISCSI_PROOF_DONE);
	assert_int_equal(STEP(0x87, ""), 0);
	/* ways around it */
	step = ISCSI_PROOF_METHOD;
	assert_int_equal(STEP(0x87, ""), -EACCES);
	assert_int_equal(STEP(0x04, ""), -EACCES);
	assert_int_equal(STEP(0x83, ANSWER), -EACCES);
	assert_int_equal(STEP(0x00, METHOD "\0" CHALLENGE), -EACCES);
	assert_int_equal(STEP(0x00, CHALLENGE), 0);	/* too early: it is none */
	assert_int_equal(STEP(0x81, ANSWER), -EACCES);
	assert_int_equal(STEP(0x00, METHOD), 0);
	assert_int_equal(STEP(0x81, ANSWER), -EACCES);
	assert_int_equal(STEP(0x00, "CHAP_A=5\0CHAP_I=7\0XCHAP_C=0x5a"), 0);
	assert_int_equal(step, ISCSI_PROOF_CHALLENGE);
	assert_int_equal(STEP(0x00, CHALLENGE), 0);
	assert_int_equal(STEP(0x81, CHALLENGE), -EACCES);
	/* not a whole PDU */
	n = response(p, 0, METHOD, sizeof(METHOD));
	assert_int_equal(iscsi_proof_step(&step, p, n - 1), -EACCES);
	assert_int_equal(iscsi_proof_step(&step, p, 47), -EACCES);
}

/* ---- answers ---- */

static void sense(void **state)
{
	uint8_t fixed[18] = { 0xf0, 0, 5, [7] = 10, [12] = 0x24, [13] = 0x01 };
	uint8_t described[8] = { 0x72, 7, 0x27, 0x07 };
	struct iscsi_sense s;

	(void)state;
	assert_true(iscsi_decode_sense(&s, fixed, sizeof(fixed)));
	assert_int_equal(s.key, 5);
	assert_int_equal(s.code, 0x2401);
	assert_true(iscsi_decode_sense(&s, fixed, 8));	/* no room for a code */
	assert_int_equal(s.code, 0);
	assert_true(iscsi_decode_sense(&s, described, sizeof(described)));
	assert_int_equal(s.key, 7);
	assert_int_equal(s.code, 0x2707);
	assert_false(iscsi_decode_sense(&s, described, 3));
	assert_false(iscsi_decode_sense(&s, fixed, 2));
	assert_false(iscsi_decode_sense(&s, fixed, 0));
	fixed[0] = 0x7f;
	assert_false(iscsi_decode_sense(&s, fixed, sizeof(fixed)));
}

static void verdicts(void **state)
{
	static const struct {
		uint8_t status, key;
		uint16_t code;
		int result;	/* 1: again */
	} want[] = {
		{ 0x00, 0, 0, 0 }, { 0x04, 0, 0, 0 }, { 0x08, 0, 0, 1 }, { 0x28, 0, 0, 1 },
		{ 0x40, 0, 0, 1 }, { 0x18, 0, 0, -EBUSY }, { 0x55, 0, 0, -EIO },
		{ 2, 1, 0x1700, 0 }, { 2, 2, 0x0401, 1 }, { 2, 2, 0x3a00, -ENOMEDIUM },
		{ 2, 2, 0x3e00, -EIO }, { 2, 3, 0x1100, -EIO }, { 2, 4, 0x4400, -EIO },
		{ 2, 5, 0x2000, -EOPNOTSUPP }, { 2, 5, 0x2100, -EINVAL }, { 2, 5, 0x2400, -EINVAL },
		{ 2, 5, 0x2500, -ENXIO }, { 2, 6, 0x2900, 1 }, { 2, 6, 0x2a09, 1 }, { 2, 6, 0, 1 },
		{ 2, 7, 0x2700, -EROFS }, { 2, 7, 0x2707, -ENOSPC }, { 2, 8, 0, -EIO },
		{ 2, 0xb, 0x4700, 1 }, { 2, 0xd, 0, -ENOSPC }, { 2, 0xe, 0x1d00, -EILSEQ },
		{ 2, 0xf, 0, -EIO },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		struct iscsi_sense s = { .key = want[i].key, .code = want[i].code };
		struct iscsi_verdict v = iscsi_judge(want[i].status, &s);

		if (v.again != (want[i].result == 1) || (!v.again && v.result != want[i].result))
			fail_msg("status %#x, sense %x/%04x: again %d, %d", want[i].status,
				 want[i].key, want[i].code, v.again, v.result);
		assert_int_equal(v.attention != 0, want[i].status == 2 && want[i].key == 6);
	}
	assert_int_equal(iscsi_judge(2, NULL).result, -EIO);
}

static void capacity(void **state)
{
	uint8_t p[32] = { [5] = 1, [10] = 0x02, [14] = 0xc0 };
	struct iscsi_capacity c;

	(void)state;
	store_be64(p, 0xffff);
	assert_int_equal(iscsi_decode_capacity(&c, p, sizeof(p)), 0);
	assert_int_equal(c.blocks, 0x10000);
	assert_int_equal(c.block_size, 512);
	assert_true(c.provisioned && c.zeroed);
	assert_int_equal(iscsi_decode_capacity(&c, p, 12), 0);
	assert_false(c.provisioned);
	assert_int_equal(iscsi_decode_capacity(&c, p, 11), -EINVAL);
	store_be64(p, UINT64_MAX);	/* + 1 */
	assert_int_equal(iscsi_decode_capacity(&c, p, sizeof(p)), -EINVAL);
	store_be64(p, UINT64_MAX / 512);
	assert_int_equal(iscsi_decode_capacity(&c, p, sizeof(p)), -EINVAL);
	store_be64(p, 100);
	for (uint32_t size = 0; size < 70000; size = size ? size * 2 : 1) {
		store_be32(p + 8, size);
		assert_int_equal(iscsi_decode_capacity(&c, p, sizeof(p)),
				 size >= 512 && size <= 4096 ? 0 : -EMEDIUMTYPE);
	}
	store_be32(p + 8, 520);
	assert_int_equal(iscsi_decode_capacity(&c, p, sizeof(p)), -EMEDIUMTYPE);
}

static void pages(void **state)
{
	uint8_t p[64] = { 0, 0xb0, 0, 0x3c, 1 };
	struct iscsi_limits l;
	struct iscsi_provisioning pr;
	uint64_t one, two;

	(void)state;
	store_be32(p + 8, 2048);
	store_be32(p + 20, 8192);
	store_be32(p + 24, 32);
	store_be32(p + 28, 8);
	store_be32(p + 32, 0x80000003);
	store_be64(p + 36, 65536);
	assert_int_equal(iscsi_decode_limits(&l, p, sizeof(p)), 0);
	assert_true(l.max_transfer == 2048 && l.max_unmap == 8192 && l.max_unmap_ranges == 32);
	assert_true(l.granularity == 8 && l.has_alignment && l.alignment == 3);
	assert_true(l.max_write_same == 65536 && l.no_whole_write_same);
	/* as much as there is of it, whatever its length says */
	assert_int_equal(iscsi_decode_limits(&l, p, 16), 0);
	assert_true(l.max_transfer == 2048 && !l.max_unmap && !l.max_write_same);
	assert_int_equal(iscsi_decode_limits(&l, p, 10), -EINVAL);
	p[3] = 4;
	assert_int_equal(iscsi_decode_limits(&l, p, sizeof(p)), -EINVAL);
	p[1] = 0xb2;
	p[5] = 0xc0;
	assert_int_equal(iscsi_decode_provisioning(&pr, p, sizeof(p)), 0);
	assert_true(pr.unmap && pr.write_same);
	assert_int_equal(iscsi_decode_provisioning(&pr, p, 5), -EINVAL);
	assert_int_equal(iscsi_decode_limits(&l, p, sizeof(p)), -EINVAL);

	memset(p, 0, sizeof(p));
	p[1] = 0x83;
	p[3] = 40;
	assert_int_equal(iscsi_decode_identity(p, sizeof(p)), 0);	/* empty designators */
	memcpy(p + 4, (uint8_t[]) { 1, 3, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8 }, 12);
	one = iscsi_decode_identity(p, sizeof(p));
	assert_true(one != 0);
	p[15] = 9;
	two = iscsi_decode_identity(p, sizeof(p));
	assert_true(two != 0 && two != one);
	p[16] = 1, p[17] = 0x13, p[19] = 4, p[20] = 5;	/* of the port: does not count */
	assert_true(iscsi_decode_identity(p, sizeof(p)) == two);
	p[7] = 200;	/* past the end */
	assert_int_equal(iscsi_decode_identity(p, sizeof(p)), 0);
}

static void small_answers(void **state)
{
	uint8_t unit[36] = { [4] = 31 }, mode[8] = { [3] = 0x90 };
	uint8_t opcodes[20] = { 0, 3, 0, 16, 0x93, 0xff };
	struct iscsi_mode m;
	char product[26];
	bool there, no_data;

	(void)state;
	memcpy(unit + 8, "VDISK   A disk\0\n \x80        ", 24);
	assert_int_equal(iscsi_decode_inquiry(product, unit, sizeof(unit)), 0);
	assert_string_equal(product, "VDISK A disk");
	memset(unit + 8, 'x', 24);
	assert_int_equal(iscsi_decode_inquiry(product, unit, sizeof(unit)), 0);
	assert_int_equal(strlen(product), 25);
	assert_int_equal(iscsi_decode_inquiry(product, unit, 4), -EINVAL);
	assert_int_equal(iscsi_decode_inquiry(product, unit, 9), 0);
	unit[0] = 0x7f;
	assert_int_equal(iscsi_decode_inquiry(product, unit, sizeof(unit)), -ENXIO);
	unit[0] = 0x01;	/* a tape */
	assert_int_equal(iscsi_decode_inquiry(product, unit, sizeof(unit)), -EMEDIUMTYPE);
	assert_int_equal(iscsi_decode_mode(&m, mode, sizeof(mode)), 0);
	assert_true(m.write_protected && m.fua);
	assert_int_equal(iscsi_decode_mode(&m, mode, 7), -EINVAL);
	iscsi_decode_write_same(&there, &no_data, opcodes, sizeof(opcodes));
	assert_true(there && no_data);
	opcodes[5] = 0xfe;
	iscsi_decode_write_same(&there, &no_data, opcodes, sizeof(opcodes));
	assert_true(there && !no_data);
	opcodes[1] = 1;
	iscsi_decode_write_same(&there, &no_data, opcodes, sizeof(opcodes));
	assert_false(there);
	iscsi_decode_write_same(&there, &no_data, opcodes, 5);
	assert_false(there);
}

static void descriptor(uint8_t *p, uint64_t start, uint32_t n, uint8_t status)
{
	store_be64(p, start);
	store_be32(p + 8, n);
	p[12] = status;
}

static void allocation(void **state)
{
	uint8_t p[8 + 4 * 16] = { 0 };
	uint64_t n;
	bool mapped;

	(void)state;
	store_be32(p, sizeof(p) - 4);
	descriptor(p + 8, 90, 20, 0);
	descriptor(p + 24, 110, 10, 0);
	descriptor(p + 40, 120, 5, 1);
	descriptor(p + 56, 125, 5, 2);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 100, 1000, p, sizeof(p)), 0);
	assert_true(mapped && n == 20);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 100, 7, p, sizeof(p)), 0);
	assert_true(mapped && n == 7);
	descriptor(p + 8, 100, 20, 1);	/* a gap, or more of the same, or less than we ask for */
	descriptor(p + 24, 121, 10, 1);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 110, 1000, p, sizeof(p)), 0);
	assert_true(!mapped && n == 10);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 99, 1000, p, sizeof(p)), -EINVAL);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 120, 1000, p, sizeof(p)), -EINVAL);
	descriptor(p + 8, UINT64_MAX - 3, 20, 1);
	assert_int_equal(iscsi_decode_status(&mapped, &n, UINT64_MAX - 2, 1, p, sizeof(p)), -EINVAL);
	descriptor(p + 8, 100, 0, 1);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 100, 1000, p, sizeof(p)), -EINVAL);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 100, 1000, p, 23), -EINVAL);
	store_be32(p, 4);
	assert_int_equal(iscsi_decode_status(&mapped, &n, 100, 1000, p, sizeof(p)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses),
		cmocka_unit_test(bad_addresses),
		cmocka_unit_test(secrets),
		cmocka_unit_test(no_secret_is_shown),
		cmocka_unit_test(proof),
		cmocka_unit_test(sense),
		cmocka_unit_test(verdicts),
		cmocka_unit_test(capacity),
		cmocka_unit_test(pages),
		cmocka_unit_test(small_answers),
		cmocka_unit_test(allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
