/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmfile.c - guests described by files: our own format, and Xen's as they are found */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/vmfile.h"
#include "core/driver.h"

static void parse(struct vmfile *v, const char *text)
{
	struct vdisk_error err = { 0 };

	if (vmfile_parse(v, "/etc/xen/guest.cfg", text, &err) < 0)
		fail_msg("%s", err.msg);
}

static void check_refused(const char *text, const char *why)
{
	struct vdisk_error err = { 0 };
	struct vmfile v;

	assert_int_equal(vmfile_parse(&v, "guest.cfg", text, &err), -EINVAL);
	if (!strstr(err.msg, why) || strncmp(err.msg, "guest.cfg:", 10) != 0)
		fail_msg("'%s' is not in '%s'", why, err.msg);
}

static bool has_note(const struct vmfile *v, const char *text)
{
	for (unsigned i = 0; i < v->n_notes; i++)
		if (strstr(v->notes[i], text))
			return true;
	return false;
}

static void check_disk(const struct guest_disk *d, const char *locator, const char *format,
		       const char *old_name, bool read_only)
{
	assert_string_equal(d->locator, locator);
	if (format)
		assert_string_equal(d->format, format);
	else
		assert_null(d->format);
	if (old_name)
		assert_string_equal(d->old_name, old_name);
	else
		assert_null(d->old_name);
	assert_int_equal(d->read_only, read_only);
}

static void own(void **state)
{
	struct vmfile v;

	(void)state;
	parse(&v, "# a web server\nname web-1\nmemory 2G   # enough\n\n\tcpus 2\n"
	      "disk \"images/web 1.qcow2\" cache=none\ndisk /dev/vg/data format=raw read-only\n"
	      "disk iscsi://host/iqn.x/0 snapshot serial=lun-0 burst=9 limit=bytes=1M,ops=5 block-size=4096\n"
	      "append quiet  console=tty0 # not a comment\nentry \"Debian, with Linux\"\n"
	      "on-reset exit:3\non-crash reset\ntime-limit 60\nconsole keep\n"
	      "engine uml\nnet user\nnet bridge:virbr0,mac=02:00:00:00:00:01");
	assert_false(v.xen);
	assert_string_equal(v.name, "web-1");
	assert_string_equal(v.memory, "2G");
	assert_string_equal(v.cpus, "2");
	assert_int_equal(v.n_disks, 3);
	check_disk(&v.disk[0], "/etc/xen/images/web 1.qcow2", NULL, NULL, false);
	assert_string_equal(v.disk[0].cache, "none");
	check_disk(&v.disk[1], "/dev/vg/data", "raw", NULL, true);
	check_disk(&v.disk[2], "iscsi://host/iqn.x/0", NULL, NULL, false);
	assert_true(v.disk[2].snapshot);
	assert_string_equal(v.disk[2].serial, "lun-0");
	assert_string_equal(v.disk[2].limits, "bytes=1M,ops=5,burst=9");
	assert_string_equal(v.disk[2].block_size, "4096");
	assert_string_equal(v.append, "quiet  console=tty0 # not a comment");
	assert_string_equal(v.entry, "Debian, with Linux");
	assert_string_equal(v.on_reset, "exit:3");
	assert_string_equal(v.on_crash, "reset");
	assert_null(v.on_shutdown);
	assert_string_equal(v.time_limit, "60");
	assert_string_equal(v.console, "keep");
	assert_string_equal(v.engine, "uml");
	assert_int_equal(v.n_nets, 2);
	assert_string_equal(v.net[0], "user");
	assert_string_equal(v.net[1], "bridge:virbr0,mac=02:00:00:00:00:01");
	assert_int_equal(v.n_notes, 0);
	vmfile_free(&v);
}

static void own_refused(void **state)
{
	(void)state;
	check_refused("", "no disk");
	check_refused("name x\n", "no disk");
	check_refused("disk a\nname www.example.org\n", "'www-example-org' would do");
	check_refused("disk a\nname www.example.org\n", "no dots");
	check_refused("disk a\nname -x\n", "does not begin");
	check_refused("disk a\nname \"\"\n", "does not begin");
	check_refused("disk a\nmemroy 1G\n", "guest.cfg:2: unknown key 'memroy'");
	check_refused("disk\n", "needs a value");
	check_refused("disk a b\n", "no option 'b'");
	check_refused("disk a cache=foo\n", "writeback, writethrough, none or unsafe");
	check_refused("disk a serial=this-is-much-too-long-for-it\n", "up to 20");
	check_refused("disk a limit=much\n", "bytes=SIZE");
	check_refused("disk a burst=9\n", "bytes=SIZE");
	check_refused("disk a block-size=513\n", "512 or 4096");
	check_refused("memory 0\ndisk a\n", "guest.cfg:1: memory is 32 MiB to 1 TiB");
	check_refused("name a\ndisk a\nname b\n", "guest.cfg:3: 'name' is there a second time");
	check_refused("disk a\ncpus 65\n", "1 to 64");
	check_refused("disk a\ntime-limit never\n", "seconds");
	check_refused("disk \"a\nname x\n", "has no end");
	check_refused("disk a\nmemory 64 2\n", "something follows");
	check_refused("disk a\non-reset exit:256\n", "reset, exit or exit:N");
	check_refused("disk a\non-reset exit:\n", "reset, exit or exit:N");
	check_refused("disk a\non-reset again\n", "reset, exit or exit:N");
	check_refused("disk a\nconsole hvc0\n", "serial, virtio or keep");
	check_refused("disk a\nengine xen\n", "kvm or uml, not 'xen'");
	check_refused("disk a\nnet eth0\n", "user, tap:DEV or bridge:DEV");
	check_refused("disk a\nnet user\nnet user\nnet user\nnet user\nnet user\n",
		      "more than 4 network cards");
	check_refused("kernel k\nentry 1\ndisk a\n", "boot menu");
}

/* A para-virtual guest of the old days, its kernel in dom0, its disks logical volumes. */
static void xm_para_virtual(void **state)
{
	struct vmfile v;

	(void)state;
	parse(&v, "#  -*- mode: python; -*-\n"
	      "# Python configuration setup for 'xm create'.\n\n"
	      "kernel      = '/boot/vmlinuz-2.6.26-2-xen-amd64'\n"
	      "ramdisk     = '/boot/initrd.img-2.6.26-2-xen-amd64'\n"
	      "vcpus       = '2'\nmemory      = '256'\n\n"
	      "#\n#  Disk device(s).\n#\nroot        = '/dev/xvda2 ro'\n"
	      "disk        = [\n"
	      "                  'phy:/dev/DiskStore/web-disk,xvda2,w',\n"
	      "                  'phy:/dev/DiskStore/web-swap,xvda1,w', # swap\n"
	      "              ]\n\n"
	      "name        = 'web'\nvif         = [ 'ip=10.0.0.7,mac=00:16:3E:01:02:03,bridge=xenbr0' ]\n"
	      "on_poweroff = 'destroy'\non_reboot   = 'restart'\non_crash    = 'preserve'\n"
	      "extra = \"4 console=hvc0\"\n");
	assert_true(v.xen);
	assert_string_equal(v.name, "web");
	assert_string_equal(v.memory, "256");
	assert_string_equal(v.cpus, "2");
	assert_string_equal(v.kernel, "/boot/vmlinuz-2.6.26-2-xen-amd64");
	assert_string_equal(v.append, "root=/dev/xvda2 ro 4 console=hvc0");
	assert_int_equal(v.n_disks, 2);
	check_disk(&v.disk[0], "/dev/DiskStore/web-disk", NULL, "xvda2", false);
	check_disk(&v.disk[1], "/dev/DiskStore/web-swap", NULL, "xvda1", false);
	assert_string_equal(v.on_shutdown, "exit");
	assert_string_equal(v.on_reset, "reset");
	assert_string_equal(v.on_crash, "exit");
	assert_true(has_note(&v, "'preserve' is taken as 'destroy'"));
	assert_int_equal(v.n_nets, 1);
	assert_string_equal(v.net[0], "bridge:xenbr0,mac=00:16:3E:01:02:03");
	assert_true(has_note(&v, "vif: 'ip=10.0.0.7' is left out"));
	vmfile_free(&v);
}

/* pygrub; xl's disks; a hardware guest; pv-grub. */
static void boot_loaders(void **state)
{
	static const char *const texts[] = {
		"bootloader = \"/usr/bin/pygrub\"\nbootloader_args = [ '--entry=2', '-q' ]\n",
		"kernel = '/usr/lib/xen-4.8/boot/pv-grub-x86_64.gz'\nextra = '(hd0,0)/boot/grub/menu.lst'\n",
		"builder = 'hvm'\nkernel = \"/usr/lib/xen/boot/hvmloader\"\nvnc = 1; stdvga = 0\n",
		"type = 'pvh'\nbootloader = 'pygrub'\nkernel = '/ignored'\nramdisk='/ignored'\n",
	};
	char text[512];
	struct vmfile v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		snprintf(text, sizeof(text), "%sdisk = [ '/a.img,raw,xvda,rw' ]\nmemory = 512\n", texts[i]);
		parse(&v, text);
		assert_null(v.kernel);
		assert_null(v.initrd);
		assert_int_equal(v.n_disks, 1);
		if (i == 0) {
			assert_string_equal(v.entry, "2");
			assert_true(has_note(&v, "'-q' is left out"));
		}
		if (i == 3)
			assert_true(has_note(&v, "the guest's own kernel"));
		vmfile_free(&v);
	}
}

static void disk_grammar(void **state)
{
	static const struct {
		const char *spec, *locator, *format, *old_name;
		bool read_only;
	} cases[] = {
		{ "/dev/vg/guest-volume,,xvda", "/dev/vg/guest-volume", NULL, "xvda", false },
		{ "/dev/vg/guest-volume,raw,xvda,rw", "/dev/vg/guest-volume", "raw", "xvda", false },
		{ "format=raw, vdev=xvda, access=rw, target=/dev/vg/a,b", "/dev/vg/a,b", "raw", "xvda",
		  false },
		{ "raw,/x", "/etc/xen/raw", NULL, NULL, false },
		{ "/dev/vg/guest-volume , raw , hdb , ro", "/dev/vg/guest-volume", "raw", "hdb", true },
		{ "/root/image.iso,,hdc,cdrom", "/root/image.iso", "raw", "hdc", true },
		{ "/root/image.iso,,hdc,,cdrom", "/root/image.iso", "raw", "hdc", true },
		{ "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/i.iso", "/root/i.iso",
		  "raw", "hdc", true },
		{ "raw:/root/image.iso,hdc:cdrom,ro", "/root/image.iso", "raw", "hdc", true },
		{ "file:/srv/xen/disk.img,ioemu:hda,w", "/srv/xen/disk.img", NULL, "hda", false },
		{ "tap:aio:/srv/disk.img,xvda1,w", "/srv/disk.img", NULL, "xvda1", false },
		{ "tap:qcow2:disk.qcow2,xvdb,w!", "/etc/xen/disk.qcow2", "qcow2", "xvdb", false },
		{ "tap2:vhd:/srv/disk.vhd,sda,r", "/srv/disk.vhd", "vhd", "sda", true },
		{ "vdev=xvda,discard,direct-io-safe,backendtype=qdisk,format=qcow2,target=/a:b=c,d",
		  "/a:b=c,d", "qcow2", "xvda", false },
		{ "/a,qcow2,xvdaa3,w", "/a", "qcow2", "xvdaa3", false },
	};
	char text[512];
	struct vmfile v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(text, sizeof(text), "disk = ['%s']\n", cases[i].spec);
		parse(&v, text);
		assert_int_equal(v.n_disks, 1);
		check_disk(&v.disk[0], cases[i].locator, cases[i].format, cases[i].old_name,
			   cases[i].read_only);
		vmfile_free(&v);
	}
	parse(&v, "disk = [ ',,hdc,cdrom', '/a,xvda,zzz' ]");
	assert_int_equal(v.n_disks, 1);
	assert_true(has_note(&v, "without a medium"));
	assert_true(has_note(&v, "'zzz' of a disk is left out"));
	vmfile_free(&v);
	check_refused("disk = [ ',,xvda' ]", "no target");
	check_refused("disk = [ '' ]", "no target");
	check_refused("disk = [ 'vdev=xvda,script=block-iscsi,target=x' ]", "cannot be had");
}

static void xen_syntax(void **state)
{
	struct vmfile v;

	(void)state;
	parse(&v, "extra=\"a\\\"b\" ;memory=64;name='a_b'\ndisk=['/a',\n\n'/b'] # two\ndisk += [ '/c', ]\n"
	      "pci = [ '01:00.0' ]\nvfb = [ 'vnc=1' ]\nusbdevice = 'tablet'\nextra = \"\"\n"
	      "uuid = 0x1f\nboot='c' \\\n\n");
	assert_string_equal(v.name, "a_b");
	assert_int_equal(v.n_disks, 3);
	check_disk(&v.disk[2], "/c", NULL, NULL, false);
	assert_true(has_note(&v, "left out: pci, vfb, usbdevice"));
	vmfile_free(&v);

	check_refused("a = b + 1\ndisk = ['/a']\n", "Python is not run");
	check_refused("disk = ['/a']\nimport os\n", "guest.cfg:2: not an assignment");
	check_refused("disk = ['/a'\n", "a list has no end");
	check_refused("disk = ['/a' '/b']\n", "no ','");
	check_refused("disk = ['/a\n']\n", "a string has no end");
	check_refused("disk = \nname='x'\n", "no value");
	check_refused("a == 1\n", "not an assignment");
	check_refused("name = 'a.b.c'\ndisk = ['/a']\n", "'a-b-c' would do");
	check_refused("memory = '1G'\ndisk = ['/a']\n", "guest.cfg:1: 'memory' is a number");
	check_refused("import os\ndisk = ['/a']\n", "guest.cfg:1: not an assignment (Python is not run)");
	check_refused("name = 'x'\n", "no disk");
}

static void hostile(void **state)
{
	static const char *const units[] = {
		"disk a\n", "disk = ['/a']\n", "x = [[[[[[", "x = 'a';", "append a\n", "\"", "x='", "=",
		"disk = ['a,b,c,d,e,f,g,h,,,,,,,,,,']\n", "a=1\n", "bootloader_args='--entry=1 -a -b -c'\n",
		"disk=['tap:tap:tap:tap:tap:tap:']\n", "\\\n", "#", "usb=1;",
	};
	struct vdisk_error err = { 0 };
	struct vmfile v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		size_t len = strlen(units[i]), n = VMFILE_MAX / len;
		char *text = test_malloc(len * n + 1);

		for (size_t k = 0; k < n; k++)
			memcpy(text + k * len, units[i], len);
		text[len * n] = '\0';
		assert_true(vmfile_parse(&v, "guest.cfg", text, &err) < 0);
		assert_true(err.msg[0]);
		test_free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own),
		cmocka_unit_test(own_refused),
		cmocka_unit_test(xm_para_virtual),
		cmocka_unit_test(boot_loaders),
		cmocka_unit_test(disk_grammar),
		cmocka_unit_test(xen_syntax),
		cmocka_unit_test(hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
