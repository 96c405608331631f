/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The checksum of ext4: ours in place of libext2fs's, and the same. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <ext2fs/ext2fs.h>
#include <string.h>

static uint8_t data[8192 + 16];

static void *library(const char *name)
{
	void *handle = dlopen("libext2fs.so.2", RTLD_NOW | RTLD_NOLOAD);

	assert_non_null(handle);
	return dlsym(handle, name);
}

static void same(void **state)
{
	__typeof__(ext2fs_crc32c_le) *theirs = NULL;
	void *f = library("ext2fs_crc32c_le");
	uint32_t crc = 0x12345678;

	(void)state;
	memcpy(&theirs, &f, sizeof(f));
	assert_non_null(theirs);
	assert_true(theirs != ext2fs_crc32c_le);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)((crc = crc * 1103515245u + 12345u) >> 16);
	/* the check value of CRC-32C, without its last inversion */
	assert_int_equal(ext2fs_crc32c_le(~0u, (const uint8_t *)"123456789", 9), ~0xe3069283u);
	for (size_t len = 0; len < 300; len++)
		for (size_t at = 0; at < 16; at += 5)
			assert_int_equal(ext2fs_crc32c_le(crc, data + at, len),
					 theirs(crc, data + at, len));
	for (size_t len = 1024; len <= 8192; len *= 2)
		assert_int_equal(ext2fs_crc32c_le(0, data + 3, len), theirs(0, data + 3, len));
}

/* It is ours that the library calls: what it finds by that name is in this program. */
static void called(void **state)
{
	Dl_info info, program;
	void *f = dlsym(RTLD_DEFAULT, "ext2fs_crc32c_le");

	(void)state;
	assert_non_null(f);
	assert_int_not_equal(dladdr(f, &info), 0);
	assert_int_not_equal(dladdr(data, &program), 0);
	assert_string_equal(info.dli_fname, program.dli_fname);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same),
		cmocka_unit_test(called),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
