/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmdk.c - headers, descriptors and grains that QEMU does not make */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <zlib.h>

#include <cmocka.h>

#include "formats/vmdk/state.h"

static struct vmdk_header sane(void)
{
	return (struct vmdk_header) {
		.version = 1, .flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT,
		.capacity = 1 << 20, .grain = 128, .gtes = 512, .desc_at = 1, .desc_len = 20,
		.rgd_at = 21, .gd_at = 100, .overhead = 256,
	};
}

static int decode(const struct vmdk_header *h, struct vmdk_header *out)
{
	uint8_t p[VMDK_SECTOR];
	const char *why = NULL;
	int r;

	vmdk_header_encode(h, p);
	r = vmdk_header_decode(out, p, &why);
	assert_true(r == 0 || why);
	return r;
}

static void headers(void **state)
{
	struct vmdk_header h = sane(), got;
	uint8_t p[VMDK_SECTOR];
	const char *why;

	(void)state;
	assert_int_equal(decode(&h, &got), 0);
	assert_int_equal(vmdk_gd_entries(&got), 16);
	for (unsigned v = 0; v < 6; v++) {
		h.version = v;
		assert_int_equal(decode(&h, &got), v >= 1 && v <= 3 ? 0 : -ENOTSUP);
	}
	for (uint64_t grain = 0; grain < 300; grain++) {
		h = sane();
		h.grain = grain;
		assert_int_equal(decode(&h, &got), vd_is_pow2(grain) ? 0 : -EINVAL);
	}
	h = sane();
	h.capacity = UINT64_MAX;
	assert_int_equal(decode(&h, &got), -EINVAL);
	h = sane();
	h.gtes = 3;
	assert_int_equal(decode(&h, &got), -EINVAL);
	h = sane();
	h.flags |= VMDK_FLAG_COMPRESSED;
	h.algorithm = 2;
	assert_int_equal(decode(&h, &got), -ENOTSUP);
	h = sane();
	vmdk_header_encode(&h, p);
	p[75] = '\n';	/* CR LF became LF LF */
	assert_int_equal(vmdk_header_decode(&got, p, &why), -EINVAL);
	memset(p, 0, sizeof(p));
	store_le32(p, COWD_MAGIC);
	store_le32(p + 4, 1);
	store_le32(p + 12, 8192);
	store_le32(p + 16, 1);
	store_le32(p + 20, 4);
	assert_int_equal(vmdk_header_decode(&got, p, &why), 0);
	assert_true(got.cowd && got.gtes == 4096 && vmdk_gd_entries(&got) == 2);
}

static int parse(const char *text, struct vmdk_descriptor *d)
{
	struct vdisk_error err = { 0 };
	int r = vmdk_descriptor_parse(d, text, strlen(text), &err);

	assert_true(r == 0 || err.msg[0]);
	return r;
}

static void descriptors(void **state)
{
	static const char *const bad[] = {
		"", "CID=1\n", "createType=\"x\"\n", "CID=123456789\ncreateType=x\n",
		"CID=\ncreateType=x\n", "CID=xyz\ncreateType=x\n",
		"CID=1\ncreateType=x\nRW 12a FLAT \"f\"\n", "CID=1\ncreateType=x\nRW FLAT \"f\"\n",
		"CID=1\ncreateType=x\nRW 12 FLAT\n", "CID=1\ncreateType=x\nRW 12 FLAT \"\"\n",
		"CID=1\ncreateType=x\nRW 99999999999999999999 FLAT \"f\"\n",
		"CID=1\ncreateType=x\nRW 12 VMFSRDM \"f\"\n", "CID=1\ncreateType=x\nRW 12 FLAT \"f\" -1\n",
	};
	const char *text = "# Disk DescriptorFile\r\n version = 1\r\ncid=00ab\r\nParentCID=ffffffff\r\n"
			   "createtype=\"vmfs\"\r\nencoding=\"UTF-8\"\r\n"
			   "rdonly 10 vmfs \"a = b.vmdk\"\r\nRW 5 ZERO\r\n"
			   "DDB.adaptertype = \"lsilogic\"";
	struct vmdk_descriptor d;

	(void)state;
	assert_int_equal(parse(text, &d), 0);
	assert_true(d.cid == 0xab && d.cid_digits == 4 && !memcmp(text + d.cid_at, "00ab", 4));
	assert_true(d.parent_cid == VMDK_NO_PARENT && !d.parent);
	assert_string_equal(d.type, "vmfs");
	assert_string_equal(d.adapter, "lsilogic");
	assert_int_equal(d.n_lines, 2);
	assert_true(d.line[0].access == VMDK_RDONLY && d.line[0].kind == VMDK_FLAT);
	assert_string_equal(d.line[0].name, "a = b.vmdk");
	assert_true(d.line[1].kind == VMDK_ZERO && d.line[1].sectors == 5);
	vmdk_descriptor_clear(&d);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(parse(bad[i], &d) < 0);
}

static void grains(void **state)
{
	uint8_t plain[4096], got[4096], coded[8192];
	uLongf len = sizeof(coded) - VMDK_MARKER_BYTES;

	(void)state;
	for (unsigned i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)(i * i >> 7);
	/* the last one of a disk may be short */
	assert_int_equal(compress(coded + VMDK_MARKER_BYTES, &len, plain, 1000), Z_OK);
	store_le64(coded, 7);
	store_le32(coded + 8, (uint32_t)len);
	assert_int_equal(vmdk_grain.decode(got, sizeof(got), coded, sizeof(coded)), 0);
	assert_memory_equal(got, plain, 1000);
	for (unsigned i = 1000; i < sizeof(got); i++)
		assert_int_equal(got[i], 0);
	assert_int_equal(vmdk_bare_grain.decode(got, sizeof(got), coded + VMDK_MARKER_BYTES, len), 0);
	/* longer than the grain, cut short, of no length, damaged */
	assert_int_equal(vmdk_grain.decode(got, 999, coded, sizeof(coded)), -EIO);
	assert_int_equal(vmdk_grain.decode(got, sizeof(got), coded, VMDK_MARKER_BYTES + len - 1), -EIO);
	assert_int_equal(vmdk_grain.decode(got, sizeof(got), coded, 3), -EIO);
	coded[VMDK_MARKER_BYTES + len - 1] ^= 1;
	assert_int_equal(vmdk_grain.decode(got, sizeof(got), coded, sizeof(coded)), -EIO);
	store_le32(coded + 8, 0);
	assert_int_equal(vmdk_grain.decode(got, sizeof(got), coded, sizeof(coded)), -EIO);
	/* what cannot be compressed still has room */
	for (unsigned i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)((i * 2654435761u) >> 13);
	assert_true(vmdk_grain.encode(coded, vmdk_coded_bound(4096), plain, 4096, 0) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(grains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
