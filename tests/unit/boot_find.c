/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * boot_find.c - vdisk_boot_find() and vdisk_inspect() on whole disks
 *
 * The disks are made by sfdisk and mke2fs from a directory of files.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/driver.h"

static char dir[64];

/* A command line in the directory; must succeed. */
static void sh(const char *line)
{
	AUTO_FREE char *full = NULL;

	assert_true(asprintf(&full, "cd %s && PATH=$PATH:/usr/sbin:/sbin && %s", dir, line) > 0);
	if (system(full) != 0)
		fail_msg("failed: %s", line);
}

static void put(const char *path, const char *text)
{
	AUTO_FREE char *full = NULL;
	FILE *f;

	assert_true(asprintf(&full, "mkdir -p \"$(dirname root/%s)\"", path) > 0);
	sh(full);
	free(full);
	assert_true(asprintf(&full, "%s/root/%s", dir, path) > 0);
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

#define UUID "9d0b9a54-3ec0-4b3c-8d4c-7f7c3a3b0a11"

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/boot_find.XXXXXX");
	assert_non_null(mkdtemp(dir));
	put("boot/grub/grub.cfg",
	    "search --fs-uuid --set=root " UUID "\n"
	    "menuentry 'First' --id one { linux /boot/vmlinuz-6.1 root=UUID=" UUID " ro\n"
	    " initrd /boot/ucode /boot/initrd.img-6.1\n }\n"
	    "menuentry 'W\303\244hle \033[31mmich' { linux /boot/vmlinuz-6.1 second \n}\n"
	    "menuentry 'bell' { linux /boot/vmlinuz-6.1 \"a\007b\" \n}\n"
	    "menuentry 'long' { linux /boot/vmlinuz-6.1 $long }\n"
	    "menuentry 'Other' { chainloader +1 }\n");
	put("boot/vmlinuz-6.1", "");
	sh("head -c 3000001 /dev/urandom > root/boot/vmlinuz-6.1");
	sh("head -c 13 /dev/urandom > root/boot/ucode");
	sh("head -c 700000 /dev/urandom > root/boot/initrd.img-6.1");
	put("etc/os-release", "PRETTY_NAME=\"Test \\\"OS\\\" 1\"\nID=test\nVERSION_ID='1'\n");
	put("etc/hostname", "# comment\nguest \n");
	put("etc/fstab", "# c\nLABEL=r / ext4 defaults 0 1\n\n\t/dev/sdb1 /mnt/a\\040b xfs ro\n");
	put("var/lib/dpkg/status",
	    "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n\n"
	    "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
	    "Package: zlib1g\nEssential: no\nStatus: hold ok installed\nVersion: 1:1.2\n"
	    "Description: x\n .\n Status: install ok installed\n");
	sh("mkdir -p root/bin && cp /bin/true root/bin/sh");
	sh("truncate -s 40M disk.raw && printf 'label: gpt\\nsize=4M\\nsize=32M\\n' | "
	   "sfdisk -q disk.raw");
	sh("mke2fs -q -F -t ext4 -U " UUID " -L r -d root -E offset=$((5 << 20)) disk.raw 32M");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sh("rm -rf \"$PWD\"");
	return 0;
}

static struct vdisk *open_disk(const char *name)
{
	AUTO_FREE char *path = NULL;
	struct vdisk_error err = { 0 };
	struct vdisk_open_opts opts = { .size = sizeof(opts), .format = "raw" };
	struct vdisk *disk;

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	if (vdisk_open(&disk, path, &opts, &err) < 0)
		fail_msg("%s", err.msg);
	return disk;
}

/* Does @fd hold what the shell words say, and is it sealed? */
static void check_content(int fd, uint64_t size, const char *command)
{
	AUTO_FREE char *line = NULL;
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, size);
	assert_true(asprintf(&line, "%s | cmp - /proc/%d/fd/%d", command, (int)getpid(), fd) > 0);
	sh(line);
	assert_int_equal(write(fd, "x", 1), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE |
			 F_SEAL_SEAL);
}

static void finds(void **state)
{
	struct vdisk *disk = open_disk("disk.raw");
	struct vdisk_error err = { 0 };
	struct vdisk_boot_opts opts = { .size = sizeof(opts), .append = "console=ttyS0 quiet" };
	struct vdisk_boot boot;

	(void)state;
	if (vdisk_boot_find(&boot, disk, &opts, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(boot.title, "First");
	assert_string_equal(boot.id, "one");
	assert_string_equal(boot.number, "0");
	assert_string_equal(boot.kernel, "/boot/vmlinuz-6.1");
	assert_string_equal(boot.initrd, "/boot/ucode");
	assert_string_equal(boot.source, "#p2:/boot/grub/grub.cfg");
	assert_string_equal(boot.cmdline, "root=UUID=" UUID " ro console=ttyS0 quiet");
	check_content(boot.kernel_fd, boot.kernel_size, "cat root/boot/vmlinuz-6.1");
	/* the second one starts at a multiple of 4 */
	check_content(boot.initrd_fd, boot.initrd_size,
		      "(cat root/boot/ucode; printf '\\0\\0\\0'; cat root/boot/initrd.img-6.1)");
	assert_int_equal(boot.initrd_size, 700016);
	vdisk_boot_clear(&boot);
	vdisk_boot_clear(&boot);
	vdisk_close(disk, NULL);
}

static void entries(void **state)
{
	struct vdisk *disk = open_disk("disk.raw");
	struct vdisk_boot_opts opts = { .size = sizeof(opts), .no_files = true };
	struct vdisk_error err;
	struct vdisk_boot boot, *list;
	int chosen;

	(void)state;
	assert_int_equal(vdisk_boot_list(disk, &list, &chosen, NULL), 5);
	assert_int_equal(chosen, 0);
	assert_string_equal(list[1].title, "W\303\244hle ?[31mmich");
	assert_string_equal(list[2].cmdline, "a?b");
	assert_string_equal(list[4].kernel, "");
	assert_int_equal(list[0].kernel_fd, -1);
	assert_int_equal(list[0].kernel_size, 3000001);
	free(list);

	opts.entry = "1";
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), 0);
	assert_string_equal(boot.cmdline, "second");
	assert_int_equal(boot.kernel_fd, -1);
	assert_int_equal(boot.initrd_fd, -1);
	opts.entry = "bell";
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, &err), -EINVAL);
	opts.entry = "Other";
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, &err), -ENOENT);
	opts.entry = "9";
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "'9'"));
	opts.entry = NULL;
	opts.append = "not\nprintable";
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, &err), -EINVAL);
	vdisk_close(disk, NULL);
}

static void command_line_limit(void **state)
{
	struct vdisk *disk = open_disk("disk.raw");
	struct vdisk_boot_opts opts = { .size = sizeof(opts), .no_files = true };
	struct vdisk_boot boot;
	char words[2048];

	(void)state;
	opts.entry = "1";	/* "second" */
	memset(words, 'x', sizeof(words));
	opts.append = words;
	words[2047 - 7] = '\0';
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), 0);
	assert_int_equal(strlen(boot.cmdline), 2047);
	words[2047 - 7] = 'x';
	words[2047 - 6] = '\0';
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), -EFBIG);
	vdisk_close(disk, NULL);
}

/* More than qsort() sorts on its stack; and a command line that is too long is one entry's alone. */
static void many(void **state)
{
	struct vdisk_boot_opts opts = { .size = sizeof(opts), .no_files = true };
	struct vdisk_boot boot, *list;
	struct vdisk *disk;
	int chosen;

	(void)state;
	sh("mkdir -p many/boot && for i in $(seq 300); do echo > many/boot/vmlinuz-6.1.$i; done && "
	   "truncate -s 8M many.raw && mke2fs -q -F -t ext4 -d many many.raw");
	disk = open_disk("many.raw");
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), 0);
	assert_string_equal(boot.kernel, "/boot/vmlinuz-6.1.300");
	assert_int_equal(vdisk_boot_list(disk, &list, &chosen, NULL), 300);
	free(list);
	vdisk_close(disk, NULL);

	sh("mkdir -p many/boot/grub && printf 'menuentry \"%s\" { linux /boot/vmlinuz-6.1.1 %s }\n' "
	   "a \"$(head -c 3000 /dev/zero | tr '\\0' x)\" b short > many/boot/grub/grub.cfg && "
	   "mke2fs -q -F -t ext4 -d many many.raw");
	disk = open_disk("many.raw");
	assert_int_equal(vdisk_boot_list(disk, &list, &chosen, NULL), 2);
	assert_int_equal(strlen(list[0].cmdline), 2047);
	assert_string_equal(list[1].cmdline, "short");
	free(list);
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), -EFBIG);
	opts.entry = "b";
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), 0);
	vdisk_close(disk, NULL);

	sh("head -c 1100000 /dev/zero | tr '\\0' '#' > many/boot/grub/grub.cfg && "
	   "mke2fs -q -F -t ext4 -d many many.raw");
	disk = open_disk("many.raw");
	opts.entry = NULL;
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), 0);
	assert_string_equal(boot.source, "/boot/grub/grub.cfg: it is too big: newest kernel");
	vdisk_close(disk, NULL);
}

/* A journal that needs replay: read through a layer, the disk stays as it was. */
static void after_a_crash(void **state)
{
	struct vdisk_boot_opts opts = { .size = sizeof(opts) };
	struct vdisk_boot boot;
	struct vdisk *disk;

	(void)state;
	sh("dd if=disk.raw of=fs.raw bs=1M skip=5 count=32 status=none && "
	   "debugfs -w -R 'feature needs_recovery' fs.raw > /dev/null 2>&1 && "
	   "dumpe2fs -h fs.raw 2>/dev/null | grep -q needs_recovery && "
	   "sha256sum fs.raw > before");
	disk = open_disk("fs.raw");
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, NULL), 0);
	assert_string_equal(boot.source, "/boot/grub/grub.cfg");
	check_content(boot.kernel_fd, boot.kernel_size, "cat root/boot/vmlinuz-6.1");
	vdisk_boot_clear(&boot);
	vdisk_close(disk, NULL);
	sh("sha256sum -c --quiet before");
}

static void inspects(void **state)
{
	struct vdisk *disk = open_disk("disk.raw");
	struct vdisk_inspection *in;
	struct vdisk_error err = { 0 };

	(void)state;
	if (vdisk_inspect(&in, disk, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(in->name, "Test \"OS\" 1");
	assert_string_equal(in->id, "test");
	assert_string_equal(in->version, "1");
	assert_string_equal(in->codename, "");
	assert_string_equal(in->hostname, "guest");
	assert_string_equal(in->arch, "x86_64");
	assert_string_equal(in->root, "p2");
	assert_string_equal(in->root_uuid, UUID);
	assert_string_equal(in->root_label, "r");
	assert_int_equal(in->n_fstab, 2);
	assert_int_equal(in->fstab[1].line, 4);
	assert_string_equal(in->fstab[1].mount_point, "/mnt/a b");
	assert_string_equal(in->fstab[1].options, "ro");
	assert_int_equal(in->n_kernels, 1);
	assert_string_equal(in->kernels[0].version, "6.1");
	assert_string_equal(in->kernels[0].initrd, "/boot/initrd.img-6.1");
	assert_true(in->packages_known);
	assert_string_equal(in->packaging, "dpkg");
	assert_int_equal(in->n_packages, 2);
	assert_string_equal(in->packages[0].name, "bash");
	assert_string_equal(in->packages[1].version, "1:1.2");
	vdisk_inspection_free(in);
	vdisk_inspection_free(NULL);
	vdisk_close(disk, NULL);
}

static void nothing_there(void **state)
{
	struct vdisk_boot_opts opts = { .size = sizeof(opts) };
	struct vdisk_inspection *in;
	struct vdisk_error err = { 0 };
	struct vdisk_boot boot;
	struct vdisk *disk;

	(void)state;
	assert_int_equal(vdisk_open_memory(&disk, 8 << 20, NULL), 0);
	assert_int_equal(vdisk_boot_find(&boot, disk, &opts, &err), -ENOENT);
	assert_int_equal(vdisk_inspect(&in, disk, &err), -ENOENT);
	vdisk_close(disk, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds),
		cmocka_unit_test(entries),
		cmocka_unit_test(command_line_limit),
		cmocka_unit_test(many),
		cmocka_unit_test(after_a_crash),
		cmocka_unit_test(inspects),
		cmocka_unit_test(nothing_there),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
