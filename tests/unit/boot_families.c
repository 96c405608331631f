/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * boot_families.c - boot configurations other than GRUB 2's
 *
 * systemd-boot with entries, counters and unified images; extlinux as Alpine
 * and u-boot-menu write it, isolinux menus; GRUB legacy of old Debian, CentOS and of
 * EC2 images.  GRUB 2 and blscfg are in bootcfg.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "guest/pe.h"
#include "tests/unit/guest_files.h"

#define MID "6d5b8b1c0d3f4d4fb1d2f5a4c3b2a190"

static const struct boot_volume esp_and_root[] = {
	{ .number = 1, .name = "p1", .uuid = "12AB-34CD", .label = "ESP", .type = "vfat" },
	{ .number = 2, .name = "p2", .uuid = UUID, .label = "root", .type = "ext4", .part_uuid = "aaaa-02" },
};

#define READ_ESP(menu, files, sel) \
	read_menu(menu, esp_and_root, ARRAY_SIZE(esp_and_root), files, ARRAY_SIZE(files), sel)

/* ---- systemd-boot ---- */

#define ENTRY(title, version, sort_key, options) \
	"title      " title "\nversion    " version "\nmachine-id " MID "\n" sort_key \
	"options    " options "\n" \
	"linux      /" MID "/" version "/linux\ninitrd     /" MID "/" version "/initrd.img-" version "\n"

#define ENTRY_KERNEL(version) \
	{ 0, "/" MID "/" version "/linux", NULL, 0 }, \
	{ 0, "/" MID "/" version "/initrd.img-" version, NULL, 0 }

/* As kernel-install writes them. */
static void systemd_boot(void **state)
{
	static const struct file files[] = {
		{ 0, "/loader/loader.conf", "#timeout 3\nconsole-mode keep\ndefault " MID "-*\n", 0 },
		{ 0, "/loader/entries/" MID "-6.1.0-9-amd64.conf",
		  ENTRY("Debian GNU/Linux 12 (bookworm)", "6.1.0-9-amd64", "sort-key   debian\n",
			"root=UUID=" UUID " ro quiet systemd.machine_id=" MID), 0 },
		{ 0, "/loader/entries/" MID "-6.1.0-25-amd64.conf",
		  ENTRY("Debian GNU/Linux 12 (bookworm)", "6.1.0-25-amd64", "sort-key   debian\n",
			"root=UUID=" UUID " ro quiet"), 0 },
		{ 0, "/loader/entries/arm.conf", "title ARM\narchitecture aa64\nlinux /arm\n", 0 },
		{ 0, "/loader/entries/shell.conf", "title Shell\nefi /shellx64.efi\n", 0 },
		{ 0, "/shellx64.efi", NULL, 0 },
		ENTRY_KERNEL("6.1.0-9-amd64"), ENTRY_KERNEL("6.1.0-25-amd64"),
	};
	struct boot_menu menu;

	(void)state;
	assert_int_equal(READ_ESP(&menu, files, NULL), 0);
	assert_string_equal(menu.source, "#p1:/loader/entries");
	assert_int_equal(menu.n_entries, 2);
	/* titles that are the same say their version */
	assert_string_equal(menu.entries[0].title, "Debian GNU/Linux 12 (bookworm) (6.1.0-25-amd64)");
	check_boots(0, &menu, "/" MID "/6.1.0-25-amd64/linux",
		    "/" MID "/6.1.0-25-amd64/initrd.img-6.1.0-25-amd64", "root=UUID=" UUID " ro quiet");
	check_boots(READ_ESP(&menu, files, MID "-6.1.0-9-amd64.conf"), &menu,
		    "/" MID "/6.1.0-9-amd64/linux", "/" MID "/6.1.0-9-amd64/initrd.img-6.1.0-9-amd64",
		    "root=UUID=" UUID " ro quiet systemd.machine_id=" MID);
	assert_int_equal(READ_ESP(&menu, files, "arm"), -ENOENT);
}

static void boot_order(void **state)
{
	/* sort-key wins over the version, no sort-key comes behind, no tries left last */
	static const struct file files[] = {
		{ 0, "/loader/entries/a+0-3.conf", ENTRY("bad", "9.0", "sort-key aaa\n", "bad"), 0 },
		{ 0, "/loader/entries/b+2-1.conf", ENTRY("tried", "6.2", "sort-key bbb\n", "tried"), 0 },
		{ 0, "/loader/entries/c.conf", ENTRY("newer", "7.0", "sort-key ccc\n", "newer"), 0 },
		{ 0, "/loader/entries/d.conf", ENTRY("plain", "8.0", "", "plain"), 0 },
		{ 0, "/loader/entries/e.conf", ENTRY("older", "6.0", "sort-key bbb\n", "older"), 0 },
		ENTRY_KERNEL("9.0"), ENTRY_KERNEL("6.2"), ENTRY_KERNEL("7.0"), ENTRY_KERNEL("8.0"),
		ENTRY_KERNEL("6.0"),
	};
	static const char *const want[] = { "tried", "older", "newer", "plain", "bad" };
	struct boot_menu menu;

	(void)state;
	assert_int_equal(READ_ESP(&menu, files, NULL), 0);
	assert_int_equal(menu.n_entries, 5);
	for (unsigned i = 0; i < 5; i++)
		assert_string_equal(menu.entries[i].title, want[i]);
	assert_string_equal(menu.entries[0].id, "b");
	assert_int_equal(menu.chosen, 0);
	boot_menu_free(&menu);
	check_boots(READ_ESP(&menu, files, "a"), &menu, "/" MID "/9.0/linux",
		    "/" MID "/9.0/initrd.img-9.0", "bad");
}

/* ---- unified kernel images ---- */

struct image {
	uint8_t data[8192];
	size_t len;
	unsigned n;
};

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, unsigned v)
{
	put16(p, v);
	put16(p + 2, v >> 16);
}

static void image_begin(struct image *i)
{
	*i = (struct image) { .len = 2048 };
	memcpy(i->data, "MZ", 2);
	put32(i->data + 0x3c, 0x80);
	memcpy(i->data + 0x80, "PE\0\0", 4);
	put16(i->data + 0x84, PE_MACHINE_X86_64);
	put16(i->data + 0x94, 240);	/* of the optional header */
}

static void image_add(struct image *i, const char *name, const char *text)
{
	uint8_t *p = i->data + 0x98 + 240 + 40 * i->n++;
	size_t len = strlen(text), padded = (len + 511) / 512 * 512;

	strncpy((char *)p, name, 8);
	put32(p + 8, (unsigned)len);
	put32(p + 16, (unsigned)padded);
	put32(p + 20, (unsigned)i->len);
	memcpy(i->data + i->len, text, len);
	i->len += padded;
	put16(i->data + 0x86, i->n);
}

static void make_image(struct image *i, const char *version)
{
	image_begin(i);
	image_add(i, ".text", "program");
	image_add(i, ".osrel", "NAME=\"Fedora Linux\"\nPRETTY_NAME=\"Fedora Linux 41 (Cloud)\"\n");
	image_add(i, ".cmdline", "root=UUID=" UUID "\nro\tquiet \n");
	image_add(i, ".uname", version);
	image_add(i, ".ucode", "microcode");
	image_add(i, ".initrd", "the initrd");
	image_add(i, ".linux", "the kernel");
}

static const char *part(struct image *i, const struct boot_file *f)
{
	static char text[64];

	assert_true(f->len < sizeof(text) && f->off + f->len <= i->len);
	snprintf(text, sizeof(text), "%.*s", (int)f->len, (const char *)i->data + f->off);
	return text;
}

static void unified_images(void **state)
{
	static struct image newer, older, addon;
	const struct file files[] = {
		{ 0, "/EFI/Linux/" MID "-6.11.4+3.efi", (char *)newer.data, sizeof(newer.data) },
		{ 0, "/EFI/Linux/" MID "-6.9.1.efi", (char *)older.data, sizeof(older.data) },
		{ 0, "/EFI/Linux/" MID "-6.9.1.efi.extra.d/a.addon.efi", (char *)addon.data,
		  sizeof(addon.data) },
		{ 0, "/EFI/Linux/readme.efi", "not a program", 0 },
		{ 0, "/loader/loader.conf", "timeout 5\n", 0 },
		{ 1, "/etc/fstab", "UUID=" UUID " / ext4 defaults 0 1\n", 0 },
	};
	const struct boot_entry *e;
	struct boot_menu menu;

	(void)state;
	make_image(&newer, "6.11.4");
	make_image(&older, "6.9.1");
	image_begin(&addon);
	image_add(&addon, ".cmdline", "added=1");
	assert_int_equal(READ_ESP(&menu, files, NULL), 0);
	assert_string_equal(menu.source, "#p1:/EFI/Linux");
	assert_int_equal(menu.n_entries, 2);
	e = chosen(&menu);
	assert_string_equal(e->id, MID "-6.11.4.efi");
	assert_string_equal(e->title, "Fedora Linux 41 (Cloud) (6.11.4)");
	assert_string_equal(e->cmdline, "root=UUID=" UUID " ro quiet");
	assert_string_equal(part(&newer, &e->kernel), "the kernel");
	assert_int_equal(e->n_initrd, 2);
	assert_string_equal(part(&newer, &e->initrd[0]), "microcode");
	assert_string_equal(part(&newer, &e->initrd[1]), "the initrd");
	assert_string_equal(menu.entries[1].cmdline, "root=UUID=" UUID " ro quiet added=1");
	boot_menu_free(&menu);
	/* by its title, as by its id */
	assert_int_equal(READ_ESP(&menu, files, "Fedora Linux 41 (Cloud) (6.9.1)"), 0);
	assert_int_equal(menu.chosen, 1);
	boot_menu_free(&menu);
}

/* An entry of type 1 and a GRUB menu may name an image, too; options of the entry's own win. */
static void images_by_entries(void **state)
{
	static struct image image;
	const struct file entry[] = {
		{ 0, "/loader/entries/a.conf", "title A\nuki /EFI/vmlinuz.efi\noptions own\n", 0 },
		{ 0, "/EFI/vmlinuz.efi", (char *)image.data, sizeof(image.data) },
	};
	const struct file grub[] = {
		{ 1, "/boot/grub2/grub.cfg", "menuentry 'UKI' {\n search --set=root --label ESP\n"
		  " chainloader /EFI/vmlinuz.efi\n}\n", 0 },
		{ 0, "/EFI/vmlinuz.efi", (char *)image.data, sizeof(image.data) },
	};
	struct boot_menu menu;

	(void)state;
	make_image(&image, "6.11.4");
	assert_int_equal(READ_ESP(&menu, entry, NULL), 0);
	assert_string_equal(chosen(&menu)->cmdline, "own");
	assert_string_equal(part(&image, &chosen(&menu)->kernel), "the kernel");
	boot_menu_free(&menu);
	assert_int_equal(READ_ESP(&menu, grub, NULL), 0);
	assert_string_equal(part(&image, &chosen(&menu)->kernel), "the kernel");
	assert_string_equal(chosen(&menu)->cmdline, "root=UUID=" UUID " ro quiet");
	boot_menu_free(&menu);
}

static void damaged_images(void **state)
{
	static struct image good, bad;
	const struct file files[] = {
		{ 0, "/EFI/Linux/bad.efi", (char *)bad.data, sizeof(bad.data) },
		{ 1, "/boot/vmlinuz-6.1", NULL, 0 }, { 1, "/etc/fstab", "LABEL=root / ext4 x 0 1\n", 0 },
	};
	static const struct { size_t at; unsigned value; } damage[] = {
		{ 0, 0 },			/* no MZ */
		{ 0x3c, 0xfffffff0 }, { 0x3c, 8180 }, { 0x80, 0 },
		{ 0x84, 0xaa64 },		/* another machine */
		{ 0x86, 0xffff },		/* sections */
		{ 0x94, 0xffff },		/* the optional header's length */
		{ 0x98 + 240 + 6 * 40 + 20, 0xffffff00 },	/* .linux outside */
		{ 0x98 + 240 + 6 * 40 + 20, 8191 },
	};
	struct boot_menu menu;
	struct pe pe;

	(void)state;
	make_image(&good, "6");
	for (unsigned i = 0; i < ARRAY_SIZE(damage); i++) {
		bad = good;
		(damage[i].at == 0x84 || damage[i].at == 0x86 || damage[i].at == 0x94 ? put16 : put32)
			(bad.data + damage[i].at, damage[i].value);
		if (damage[i].at == 0x98 + 240 + 6 * 40 + 20)
			put32(bad.data + damage[i].at - 12, 1000), put32(bad.data + damage[i].at - 4, 1000);
		assert_int_equal(READ_ESP(&menu, files, NULL), 0);
		if (!strstr(menu.source, "newest kernel"))
			fail_msg("damage %u was not seen", i);
		boot_menu_free(&menu);
	}
	/* every length of the headers, up to where they are whole */
	for (size_t len = 0; len < 0x98 + 240 + 7 * 40; len++)
		assert_true(pe_decode(&pe, good.data, len, good.len) < 0);
	assert_int_equal(pe_decode(&pe, good.data, 2048, good.len), 0);
	assert_int_equal(pe.n, 7);
}

/* ---- extlinux and its kin ---- */

/* Alpine's update-extlinux: relative paths, a menu, the file in /boot itself. */
static void alpine(void **state)
{
	static const struct file files[] = {
		{ 1, "/boot/extlinux.conf",
		  "# Generated by update-extlinux 6.04_pre1-r15\nDEFAULT menu.c32\nPROMPT 0\n"
		  "MENU TITLE Alpine/Linux Boot Menu\nMENU HIDDEN\nMENU AUTOBOOT Alpine will be booted\n"
		  "TIMEOUT 10\nLABEL virt\n  MENU DEFAULT\n  MENU LABEL Linux virt\n"
		  "  LINUX vmlinuz-virt\n  INITRD initramfs-virt\n"
		  "  APPEND root=UUID=" UUID " modules=sd-mod,usb-storage,ext4 quiet rootfstype=ext4\n\n"
		  "MENU SEPARATOR\n", 0 },
		{ 1, "/boot/vmlinuz-virt", NULL, 0 }, { 1, "/boot/initramfs-virt", NULL, 0 },
	};
	struct boot_menu menu;

	(void)state;
	assert_int_equal(READ_ESP(&menu, files, NULL), 0);
	assert_string_equal(menu.source, "#p2:/boot/extlinux.conf");
	assert_string_equal(menu.entries[0].title, "Linux virt");
	assert_string_equal(menu.entries[0].id, "virt");
	check_boots(0, &menu, "/boot/vmlinuz-virt", "/boot/initramfs-virt",
		    "root=UUID=" UUID " modules=sd-mod,usb-storage,ext4 quiet rootfstype=ext4");
}

/* Debian's u-boot-menu: DEFAULT names a label, kernels by absolute path. */
static void u_boot_menu(void **state)
{
	static const struct file files[] = {
		{ 1, "/boot/extlinux/extlinux.conf",
		  "## /boot/extlinux/extlinux.conf\ndefault l0\nmenu title U-Boot menu\nprompt 0\n"
		  "timeout 50\n\n\nlabel l0\n\tmenu label Debian GNU/Linux 12 6.1.0-25-amd64\n"
		  "\tlinux /boot/vmlinuz-6.1.0-25-amd64\n\tinitrd /boot/initrd.img-6.1.0-25-amd64\n"
		  "\tfdtdir /usr/lib/linux-image-6.1.0-25-amd64/\n\t\n"
		  "\tappend root=/dev/vda2 ro quiet\n\nlabel l0r\n"
		  "\tmenu label Debian GNU/Linux 12 6.1.0-25-amd64 (rescue target)\n"
		  "\tlinux /boot/vmlinuz-6.1.0-25-amd64\n\tinitrd /boot/initrd.img-6.1.0-25-amd64\n"
		  "\tappend root=/dev/vda2 ro single\n", 0 },
		{ 1, "/boot/vmlinuz-6.1.0-25-amd64", NULL, 0 },
		{ 1, "/boot/initrd.img-6.1.0-25-amd64", NULL, 0 },
	};
	struct guest g = { esp_and_root, 2, files, ARRAY_SIZE(files) };
	struct boot_env env = {
		.arg = &g, .volumes = esp_and_root, .n_volumes = 2, .load = guest_load,
		.stat = guest_stat, .list = guest_list, .read = guest_read,
	};
	struct boot_menu menu;

	(void)state;
	check_boots(READ_ESP(&menu, files, NULL), &menu, "/boot/vmlinuz-6.1.0-25-amd64",
		    "/boot/initrd.img-6.1.0-25-amd64", "root=/dev/vda2 ro quiet");
	check_boots(READ_ESP(&menu, files, "l0r"), &menu, "/boot/vmlinuz-6.1.0-25-amd64",
		    "/boot/initrd.img-6.1.0-25-amd64", "root=/dev/vda2 ro single");
	check_boots(boot_menu_read(&menu, &env, &(struct boot_wish) { .recovery = true }, NULL), &menu,
		    "/boot/vmlinuz-6.1.0-25-amd64", "/boot/initrd.img-6.1.0-25-amd64",
		    "root=/dev/vda2 ro single");
}

/* Live systems: included files, initrds in APPEND, help texts, submenus, modules. */
static void isolinux(void **state)
{
	static const struct file files[] = {
		{ 0, "/isolinux/isolinux.cfg", "path \ninclude menu.cfg\ndefault vesamenu.c32\n", 0 },
		{ 0, "/isolinux/menu.cfg", "menu hshift 7\nmenu include stdmenu.cfg\ninclude txt.cfg\n"
		  "menu begin advanced\nmenu title Advanced\n\tlabel rescue\n\t\tmenu label ^Rescue\n"
		  "\t\tkernel /live/vmlinuz\n\t\tappend - \nmenu end\n"
		  "label hdt\n\tkernel hdt.c32\n\tappend modules=a\nlabel xen\n\tkernel mboot.c32\n"
		  "\tappend /xen.gz --- /live/vmlinuz\nlabel localboot\n\tlocalboot -1\n", 0 },
		{ 0, "/isolinux/stdmenu.cfg", "menu color title * #FFFFFFFF *\n", 0 },
		{ 0, "/isolinux/txt.cfg", "APPEND quiet\nlabel live\n\tmenu label ^Live system\n"
		  "\tmenu default\n\tKERNEL ../live/./vmlinuz\n"
		  "\tappend initrd=/live/ucode.img,/live/initrd.img boot=live components\n"
		  "\ttext help\nlabel this is no label\n  kernel /nothing\n\tendtext\n"
		  "label plain\n\tkernel /live/vmlinuz\n", 0 },
		{ 0, "/live/vmlinuz", NULL, 0 }, { 0, "/live/initrd.img", NULL, 0 },
		{ 0, "/live/ucode.img", NULL, 0 },
	};
	struct boot_menu menu;

	(void)state;
	assert_int_equal(READ_ESP(&menu, files, NULL), 0);
	assert_int_equal(menu.n_entries, 6);
	assert_string_equal(chosen(&menu)->title, "Live system");
	assert_string_equal(chosen(&menu)->kernel.path, "/live/vmlinuz");
	assert_string_equal(chosen(&menu)->cmdline, "boot=live components");
	assert_int_equal(chosen(&menu)->n_initrd, 2);
	assert_string_equal(chosen(&menu)->initrd[1].path, "/live/initrd.img");
	boot_menu_free(&menu);
	check_boots(READ_ESP(&menu, files, "plain"), &menu, "/live/vmlinuz", NULL, "quiet");
	check_boots(READ_ESP(&menu, files, "Rescue"), &menu, "/live/vmlinuz", NULL, "");
	assert_int_equal(READ_ESP(&menu, files, "hdt"), -ENOENT);
	assert_int_equal(READ_ESP(&menu, files, "xen"), -ENOENT);
}

/* Without labels: DEFAULT is a command line; and with words behind a label. */
static void syslinux_default(void **state)
{
	static const struct file bare[] = {
		{ 0, "/syslinux.cfg", "DEFAULT vmlinuz initrd=initrd.gz root=/dev/ram0\r\n", 0 },
		{ 0, "/vmlinuz", NULL, 0 }, { 0, "/initrd.gz", NULL, 0 },
	};
	static const struct file words[] = {
		{ 0, "/syslinux/syslinux.cfg", "default linux auto=true\nontimeout gone\n"
		  "label linux\nkernel /vmlinuz\nappend a b\n", 0 },
		{ 0, "/vmlinuz", NULL, 0 },
	};
	struct boot_menu menu;

	(void)state;
	check_boots(READ_ESP(&menu, bare, NULL), &menu, "/vmlinuz", "/initrd.gz", "root=/dev/ram0");
	check_boots(READ_ESP(&menu, words, NULL), &menu, "/vmlinuz", NULL, "a b auto=true");
}

/* ---- GRUB legacy ---- */

/* CentOS 6, as anaconda and grubby leave it: /boot on a partition of its own. */
static void centos6(void **state)
{
	static const struct file files[] = {
		{ 0, "/grub/grub.conf",
		  "# grub.conf generated by anaconda\n#\n#          root (hd0,0)\n#boot=/dev/vda\n"
		  "default=1\ntimeout=5\nsplashimage=(hd0,0)/grub/splash.xpm.gz\nhiddenmenu\n"
		  "password --md5 $1$abc$def\n"
		  "title CentOS (2.6.32-754.el6.x86_64)\n\troot (hd0,0)\n"
		  "\tkernel /vmlinuz-2.6.32-754.el6.x86_64 ro root=/dev/mapper/vg-root rhgb quiet\n"
		  "\tinitrd /initramfs-2.6.32-754.el6.x86_64.img\n"
		  "title CentOS (2.6.32-71.el6.x86_64)\n\troot (hd0,0)\n"
		  "\tkernel /vmlinuz-2.6.32-71.el6.x86_64 ro root=/dev/mapper/vg-root\n"
		  "\tinitrd /initramfs-2.6.32-71.el6.x86_64.img\n", 0 },
		{ 0, "/vmlinuz-2.6.32-754.el6.x86_64", NULL, 0 },
		{ 0, "/initramfs-2.6.32-754.el6.x86_64.img", NULL, 0 },
		{ 0, "/vmlinuz-2.6.32-71.el6.x86_64", NULL, 0 },
		{ 0, "/initramfs-2.6.32-71.el6.x86_64.img", NULL, 0 },
	};
	struct boot_menu menu;

	(void)state;
	assert_int_equal(READ_ESP(&menu, files, NULL), 0);
	assert_string_equal(menu.source, "#p1:/grub/grub.conf");
	check_boots(0, &menu, "/vmlinuz-2.6.32-71.el6.x86_64", "/initramfs-2.6.32-71.el6.x86_64.img",
		    "ro root=/dev/mapper/vg-root");
	check_boots(READ_ESP(&menu, files, "0"), &menu, "/vmlinuz-2.6.32-754.el6.x86_64",
		    "/initramfs-2.6.32-754.el6.x86_64.img", "ro root=/dev/mapper/vg-root rhgb quiet");
}

/* Debian's old update-grub, with savedefault; and Ubuntu's "uuid". */
static void debian_menu_lst(void **state)
{
	static const struct file files[] = {
		{ 1, "/boot/grub/menu.lst",
		  "# menu.lst - See: grub(8), info grub, update-grub(8)\ndefault\t\tsaved\n"
		  "timeout\t\t5\ncolor cyan/blue white/blue\n"
		  "### BEGIN AUTOMAGIC KERNELS LIST\n## ## Start Default Options ##\n"
		  "# kopt=root=/dev/hda1 ro\n# groot=(hd0,1)\n## ## End Default Options ##\n\n"
		  "title\t\tDebian GNU/Linux, kernel 2.6.26-2-amd64\nroot\t\t(hd0,1)\n"
		  "kernel\t\t/boot/vmlinuz-2.6.26-2-amd64 root=/dev/hda1 ro quiet\n"
		  "initrd\t\t/boot/initrd.img-2.6.26-2-amd64\nsavedefault\n\n"
		  "title\t\tUbuntu, single-user\nuuid\t\t" UUID "\n"
		  "kernel\t\t/boot/vmlinuz-2.6.26-2-amd64 ro single\n"
		  "initrd\t\t/boot/initrd.img-2.6.26-2-amd64\nquiet\n\n"
		  "title\t\tXen\nroot\t\t(hd0,1)\nkernel\t\t/boot/xen.gz\n"
		  "module\t\t/boot/vmlinuz-2.6.26-2-amd64 root=/dev/hda1\n\n"
		  "title\t\tWindows\nrootnoverify\t(hd0,0)\nmakeactive\nchainloader\t+1\n", 0 },
		{ 1, "/boot/grub/default", "1\n#\n#\n#WARNING: do not edit\n", 0 },
		{ 1, "/boot/vmlinuz-2.6.26-2-amd64", NULL, 0 }, { 1, "/boot/xen.gz", NULL, 0 },
		{ 1, "/boot/initrd.img-2.6.26-2-amd64", NULL, 0 },
	};
	struct boot_menu menu;

	(void)state;
	check_boots(READ_ESP(&menu, files, NULL), &menu, "/boot/vmlinuz-2.6.26-2-amd64",
		    "/boot/initrd.img-2.6.26-2-amd64", "ro single");
	check_boots(READ_ESP(&menu, files, "0"), &menu, "/boot/vmlinuz-2.6.26-2-amd64",
		    "/boot/initrd.img-2.6.26-2-amd64", "root=/dev/hda1 ro quiet");
	assert_int_equal(READ_ESP(&menu, files, "Xen"), -ENOENT);
	assert_int_equal(READ_ESP(&menu, files, "Windows"), -ENOENT);
}

/* PV-GRUB of cloud images: the disk is the file system; and fallbacks. */
static void pv_grub(void **state)
{
	static const struct boot_volume whole[] = { { .name = "", .uuid = UUID, .type = "ext4" } };
	static const struct file files[] = {
		{ 0, "/boot/grub/menu.lst", "default 0\nfallback 2 1\ntimeout 0\n"
		  "title gone\nroot (hd0)\nkernel /boot/gone console=hvc0\n"
		  "title second\nroot (hd0)\nkernel /boot/k console=hvc0 second\n"
		  "title third\nfind --set-root /boot/k\nkernel --no-mem-option (hd0)/boot/k third\n"
		  "title other\nroot (hd0,4)\nkernel /boot/k\n", 0 },
		{ 0, "/boot/k", NULL, 0 },
	};
	struct boot_menu menu;

	(void)state;
	check_boots(read_menu(&menu, whole, 1, files, ARRAY_SIZE(files), NULL), &menu, "/boot/k", NULL,
		    "third");
	assert_int_equal(read_menu(&menu, whole, 1, files, ARRAY_SIZE(files), "other"), -ENOENT);
}

/* ---- hostile ---- */

static void check_falls_back(const char *path, const char *text, size_t len)
{
	const struct file files[] = {
		{ 1, path, text, len }, { 1, "/etc/fstab", "LABEL=root / ext4 x 0 1\n", 0 },
		{ 1, "/boot/vmlinuz-6.1", NULL, 0 }, { 1, "/boot/initrd.img-6.1", NULL, 0 },
		{ 1, "/loop", "include /loop\n", 0 },
	};
	struct boot_menu menu;

	check_boots(READ_ESP(&menu, files, NULL), &menu, "/boot/vmlinuz-6.1", "/boot/initrd.img-6.1",
		    "root=LABEL=root ro");
}

static char *repeat(const char *text, size_t n)
{
	size_t len = strlen(text);
	char *all = test_malloc(len * n + 1);

	for (size_t i = 0; i < n; i++)
		memcpy(all + len * i, text, len);
	all[len * n] = '\0';
	return all;
}

static void hostile(void **state)
{
	static const char *const paths[] = {
		"/boot/extlinux/extlinux.conf", "/boot/grub/menu.lst", "/loader/entries/x.conf",
	};
	static const struct { const char *unit; size_t n; } texts[] = {
		{ "label x\n", 100000 }, { "title x\n", 100000 }, { "include /loop\n", 1 },
		{ "include /boot/extlinux/extlinux.conf\n", 20000 }, { "../", 300000 },
		{ "label x\nkernel /../../../../etc/passwd\n", 3 }, { "=", 500000 }, { "\\", 500000 },
		{ "menu begin\n", 50000 }, { "title x\nroot (hd0,99999999999999999999)\nkernel /k\n", 9 },
		{ "title x\nroot (((((((\nkernel (hd0,0/k\n", 9 }, { "initrd a,b,c,d,e,f,g,h\n", 40000 },
		{ "label x\ninitrd a,b,c,d,e,f,g,h\n", 30000 }, { " ", 1000000 }, { "\n", 1000000 },
		{ "a", BOOT_CONFIG_MAX + 1 }, { "default saved\nfallback 0 0 0 0 0 0 0 0 0 0 0 9\n", 5 },
		{ "options a\nlinux /k\n", 30000 }, { "\r\n\t \r\n", 100000 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
		char *text = repeat(texts[i].unit, texts[i].n);

		for (unsigned k = 0; k < ARRAY_SIZE(paths); k++)
			check_falls_back(paths[k], text, 0);
		test_free(text);
	}
	/* NULs end the text and nothing else */
	for (unsigned k = 0; k < ARRAY_SIZE(paths); k++)
		check_falls_back(paths[k], "label x\0\0\0title\n", 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(systemd_boot),
		cmocka_unit_test(boot_order),
		cmocka_unit_test(unified_images),
		cmocka_unit_test(images_by_entries),
		cmocka_unit_test(damaged_images),
		cmocka_unit_test(alpine),
		cmocka_unit_test(u_boot_menu),
		cmocka_unit_test(isolinux),
		cmocka_unit_test(syslinux_default),
		cmocka_unit_test(centos6),
		cmocka_unit_test(debian_menu_lst),
		cmocka_unit_test(pv_grub),
		cmocka_unit_test(hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
