/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * boot_advisories.c - what has gone wrong elsewhere when a host reads what a
 * guest boots, advisory by advisory
 *
 *   XSA-443, CVE-2023-34325		damaged file systems, read with privileges
 *   XSA-198, CVE-2016-9379, -9380	the guest's text named files of the host
 *   XSA-160, CVE-2015-8341		kernels and initrds left behind after failures
 *   CVE-2007-4993			the configuration's text was executed
 *   CVE-2012-2625, -4544		kernels and initrds of any size
 *
 * The parent's half of boot.c is included, to be given messages that only a
 * child that was taken over would send.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "guest/boot.c"

#define UUID "9d0b9a54-3ec0-4b3c-8d4c-7f7c3a3b0a11"

static char dir[64];

static void sh(const char *line)
{
	AUTO_FREE char *full = NULL;

	assert_true(asprintf(&full, "cd %s && PATH=$PATH:/usr/sbin:/sbin && %s", dir, line) > 0);
	if (system(full) != 0)
		fail_msg("failed: %s", line);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/boot_advisories.XXXXXX");
	assert_non_null(mkdtemp(dir));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sh("rm -rf \"$PWD\"");
	return 0;
}

/* A disk that is a file system with /boot/grub/grub.cfg and what the shell line makes below root/. */
static struct vdisk *make_disk(const char *config, const char *line)
{
	struct vdisk_open_opts opts = { .size = sizeof(opts), .format = "raw" };
	struct vdisk_error err = { 0 };
	struct vdisk *disk;
	char path[128];
	FILE *f;

	sh("rm -rf root disk && mkdir -p root/boot/grub root/etc && truncate -s 20M disk");
	snprintf(path, sizeof(path), "%s/root/boot/grub/grub.cfg", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(config, f);
	assert_int_equal(fclose(f), 0);
	sh(line);
	sh("mke2fs -q -F -t ext4 -d root disk");
	snprintf(path, sizeof(path), "%s/disk", dir);
	if (vdisk_open(&disk, path, &opts, &err) < 0)
		fail_msg("%s", err.msg);
	return disk;
}

static unsigned count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void check_fails(struct vdisk *disk, const char *entry, int code, const char *why)
{
	struct vdisk_boot_opts opts = { .size = sizeof(opts), .entry = entry };
	struct vdisk_boot boot = { .kernel_fd = -7, .initrd_fd = -7 };
	unsigned open_before = count_entries("/proc/self/fd");
	unsigned files_before = count_entries(dir);
	struct vdisk_error err = { 0 };

	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, &err), -code);
	if (!strstr(err.msg, why))
		fail_msg("'%s' is not in: %s", why, err.msg);
	/* XSA-160: nothing stays, neither descriptors nor files */
	assert_int_equal(boot.kernel_fd, -7);
	assert_int_equal(count_entries("/proc/self/fd"), open_before);
	assert_int_equal(count_entries(dir), files_before);
}

/* XSA-198: whatever the text looks like, it names files of the guest, and comes back as text. */
static void names_stay_inside(void **state)
{
	struct vdisk *disk = make_disk(
		"menuentry 'up' { linux /../../../../etc/passwd x }\n"
		"menuentry 'link' { linux /boot/link y }\n"
		"menuentry 'proc' { linux /proc/self/mem z }\n"
		"menuentry 'quote' { linux '/boot/k\")(ramdisk /etc/shadow)(args \"' a }\n"
		"menuentry 'device' { linux (hd1)/dev/mem }\n"
		"menuentry 'control' { linux /boot/k \"a\nramdisk=/etc/shadow\" }\n",
		"echo guest-passwd > root/etc/passwd; ln -s ../../../../../../etc/passwd root/boot/link; "
		"echo k > root/boot/k; touch \"root/boot/k\\\")(ramdisk \"");
	static const char *const inside[] = { "up", "link" };
	struct vdisk_boot boot;
	struct vdisk_error err = { 0 };
	char text[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(inside); i++) {
		struct vdisk_boot_opts opts = { .size = sizeof(opts), .entry = inside[i] };

		if (vdisk_boot_find(&boot, disk, &opts, &err) < 0)
			fail_msg("%s: %s", inside[i], err.msg);
		memset(text, 0, sizeof(text));
		assert_true(pread(boot.kernel_fd, text, sizeof(text) - 1, 0) > 0);
		assert_string_equal(text, "guest-passwd\n");
		assert_int_equal(boot.initrd_fd, -1);
		vdisk_boot_clear(&boot);
	}
	check_fails(disk, "proc", ENOENT, "no Linux kernel");
	check_fails(disk, "quote", ENOENT, "no Linux kernel");
	check_fails(disk, "device", ENOENT, "no Linux kernel");
	check_fails(disk, "control", EINVAL, "cannot be printed");
	vdisk_close(disk, NULL);
}

/* CVE-2007-4993 */
static void nothing_is_executed(void **state)
{
	struct vdisk *disk = make_disk(
		"default=\"0; touch ran; `touch ran`$(touch ran)\"\n"
		"menuentry '`touch ran`$(touch ran);touch ran' {\n"
		"linux /boot/k $(touch ran) `touch ran` ;touch ran\n}\n",
		"echo k > root/boot/k");
	AUTO_FREE char *cwd = getcwd(NULL, 0);
	struct vdisk_error err = { 0 };
	struct vdisk_boot boot;

	(void)state;
	assert_int_equal(chdir(dir), 0);
	if (vdisk_boot_find(&boot, disk, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(boot.cmdline, "$(touch ran) `touch ran`");
	assert_string_equal(boot.title, "`touch ran`$(touch ran);touch ran");
	assert_int_equal(access("ran", F_OK), -1);
	assert_int_equal(chdir(cwd), 0);
	vdisk_boot_clear(&boot);
	vdisk_close(disk, NULL);
}

/* CVE-2012-2625, CVE-2012-4544 */
static void sizes_are_limited(void **state)
{
	struct vdisk *disk = make_disk(
		"menuentry 'kernel' { linux /boot/big }\n"
		"menuentry 'initrd' { linux /boot/k\n initrd /boot/bigger }\n"
		"menuentry 'sum' { linux /boot/k\n initrd /boot/half /boot/half /boot/half }\n"
		"menuentry 'words' { linux /boot/k $w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w$w }\n"
		"w=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		"xxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
		"echo k > root/boot/k; truncate -s 300M root/boot/big; truncate -s 1025M root/boot/bigger; "
		"truncate -s 400M root/boot/half");

	(void)state;
	check_fails(disk, "kernel", EFBIG, "more than 256 MiB");
	check_fails(disk, "words", EFBIG, "command line");
	if (getenv("LONG")) {	/* a gigabyte through a socket, with sanitizers */
		check_fails(disk, "initrd", EFBIG, "more than 1024 MiB");
		check_fails(disk, "sum", EFBIG, "more than 1024 MiB");
	}
	vdisk_close(disk, NULL);
}

/* XSA-443: bytes of the file system changed at random; an error or a menu, and always an answer. */
static void damaged_file_systems(void **state)
{
	unsigned rounds = getenv("LONG") ? 3000 : 60, seed = 20231010, ok = 0;
	struct vdisk *disk = make_disk("menuentry a { linux /boot/k a }\n", "echo k > root/boot/k");
	uint64_t size = vdisk_size(disk);
	struct vdisk *copy;
	uint8_t *bytes = test_malloc(size), byte;

	(void)state;
	assert_int_equal(vdisk_read(disk, bytes, size, 0), 0);
	for (unsigned i = 0; i < rounds; i++) {
		struct vdisk_boot_opts opts = { .size = sizeof(opts) };
		struct vdisk_error err = { 0 };
		struct vdisk_boot boot;

		assert_int_equal(vdisk_open_memory(&copy, size, NULL), 0);
		assert_int_equal(vdisk_write(copy, bytes, size, 0), 0);
		for (unsigned k = 0; k < 1 + i % 40; k++) {
			/* the superblock, the group descriptors and what follows them */
			uint64_t at = (unsigned)rand_r(&seed) % (k % 2 ? 4096u : 400u << 10);

			byte = (uint8_t)rand_r(&seed);
			assert_int_equal(vdisk_write(copy, &byte, 1, at), 0);
		}
		if (vdisk_boot_find(&boot, copy, &opts, &err) == 0) {
			ok++;
			vdisk_boot_clear(&boot);
		} else if (!err.msg[0]) {
			fail_msg("round %u failed without a word", i);
		}
		vdisk_close(copy, NULL);
	}
	print_message("# %u of %u damaged file systems still boot\n", ok, rounds);
	test_free(bytes);
	vdisk_close(disk, NULL);
}

/* ---- a child that was taken over ---- */

static struct search listing(bool list)
{
	static const struct vdisk_boot_opts opts = { .size = sizeof(opts) };

	return (struct search) { .opts = &opts, .list = list, .fd = { -1, -1 }, .chosen = -1 };
}

static void forget(struct search *s)
{
	for (unsigned i = 0; i < 2; i++)
		if (s->fd[i] >= 0)
			close(s->fd[i]);
	free(s->entries);
}

static void answers_are_checked(void **state)
{
	struct search s = listing(false);
	static const char bytes[1 << 20];
	struct vdisk_boot e;
	int32_t chosen;

	(void)state;
	/* no string has an end, everything is a control character */
	memset(&e, 0x1b, sizeof(e));
	assert_true(receive(&s, MSG_ENTRY, &e, sizeof(e), NULL) < 0);
	memset(e.cmdline, 0, sizeof(e.cmdline));
	assert_int_equal(receive(&s, MSG_ENTRY, &e, sizeof(e), NULL), 0);
	assert_true(memchr(s.entries[0].title, '\0', sizeof(e.title)) != NULL);
	assert_null(strchr(s.entries[0].title, 0x1b));
	assert_null(strchr(s.entries[0].kernel, 0x1b));
	/* descriptors are never the child's word */
	assert_int_equal(s.entries[0].kernel_fd, -1);
	assert_int_equal(s.entries[0].initrd_fd, -1);
	/* one entry, of one size; messages of no meaning */
	assert_int_equal(receive(&s, MSG_ENTRY, &e, sizeof(e), NULL), -EPROTO);
	assert_int_equal(receive(&s, MSG_ENTRY, &e, sizeof(e) - 1, NULL), -EPROTO);
	assert_int_equal(receive(&s, 99, &e, sizeof(e), NULL), -EPROTO);
	chosen = 1;
	assert_int_equal(receive(&s, MSG_CHOSEN, &chosen, 3, NULL), -EPROTO);
	assert_int_equal(receive(&s, MSG_CHOSEN, &chosen, 4, NULL), -EPROTO);
	chosen = -2;
	assert_int_equal(receive(&s, MSG_CHOSEN, &chosen, 4, NULL), -EPROTO);
	/* a kernel without an end */
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(receive(&s, MSG_KERNEL, bytes, sizeof(bytes), NULL), 0);
	assert_int_equal(receive(&s, MSG_KERNEL, bytes, 1, NULL), -EPROTO);
	forget(&s);

	/* a menu without an end, and files that nobody asked for */
	s = listing(true);
	memset(&e, 0, sizeof(e));
	for (unsigned i = 0; i < BOOT_ENTRIES_MAX; i++)
		assert_int_equal(receive(&s, MSG_ENTRY, &e, sizeof(e), NULL), 0);
	assert_int_equal(receive(&s, MSG_ENTRY, &e, sizeof(e), NULL), -EPROTO);
	assert_int_equal(receive(&s, MSG_KERNEL, bytes, 1, NULL), -EPROTO);
	assert_int_equal(receive(&s, MSG_INITRD, bytes, 1, NULL), -EPROTO);
	forget(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_stay_inside),
		cmocka_unit_test(nothing_is_executed),
		cmocka_unit_test(sizes_are_limited),
		cmocka_unit_test(damaged_file_systems),
		cmocka_unit_test(answers_are_checked),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
