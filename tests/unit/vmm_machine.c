/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the VMM tells and shows a guest: ACPI tables, kernel loading, serial port, PCI bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/serial_reg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/compiler.h"
#include "vmm-lite/kvm/acpi.h"
#include "vmm-lite/kvm/bzimage.h"
#include "vmm-lite/kvm/elf.h"
#include "vmm-lite/kvm/layout.h"
#include "vmm-lite/kvm/load.h"
#include "vmm-lite/kvm/memory.h"
#include "vmm-lite/kvm/pci.h"
#include "vmm-lite/kvm/serial.h"
#include "vmm-lite/terminal.h"

/* ---- ACPI ---- */

#define GPA	0xe0000u

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* A table at a guest address: in the buffer, whole, and with the right checksum. */
static const uint8_t *table(const uint8_t *buf, size_t size, uint64_t gpa, const char *signature)
{
	const uint8_t *t;
	uint32_t len;

	assert_true(gpa >= GPA && gpa - GPA + 36 <= size);
	t = buf + (gpa - GPA);
	assert_memory_equal(t, signature, 4);
	len = load_le32(t + 4);
	assert_true(len >= 36 && vd_in_range(gpa - GPA, len, size));
	assert_int_equal(sum(t, len), 0);
	return t;
}

static void acpi_tables(void **state)
{
	static const unsigned cpus[] = { 1, 2, 64 };
	uint8_t buf[8192];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
		const uint8_t *xsdt, *fadt, *madt, *mcfg, *dsdt, *e, *end;
		unsigned seen = 0, ioapics = 0;
		size_t size;

		memset(buf, 0xa5, sizeof(buf));
		size = acpi_build(buf, sizeof(buf), GPA, cpus[i]);
		assert_in_range(size, 500, sizeof(buf));
		assert_memory_equal(buf, "RSD PTR ", 8);
		assert_int_equal(sum(buf, 20), 0);
		assert_int_equal(sum(buf, 36), 0);
		xsdt = table(buf, size, load_le64(buf + 24), "XSDT");
		assert_int_equal(load_le32(xsdt + 4), 36 + 3 * 8);
		mcfg = table(buf, size, load_le64(xsdt + 52), "MCFG");
		assert_int_equal(load_le32(mcfg + 4), 60);
		assert_int_equal(load_le64(mcfg + 44), GUEST_ECAM);
		fadt = table(buf, size, load_le64(xsdt + 36), "FACP");
		assert_int_equal(load_le32(fadt + 4), 276);
		assert_true(load_le32(fadt + 112) & 1u << 20);	/* hardware-reduced */
		assert_int_equal(load_le64(fadt + 120), PORT_POWER);
		assert_int_equal(load_le64(fadt + 248), PORT_POWER);
		assert_int_equal(load_le64(fadt + 260), PORT_SLEEP_STATUS);
		dsdt = table(buf, size, load_le64(fadt + 140), "DSDT");
		assert_non_null(memmem(dsdt, load_le32(dsdt + 4), "_S5_\x12", 5));
		assert_non_null(memmem(dsdt, load_le32(dsdt + 4), "COM1", 4));
		assert_non_null(memmem(dsdt, load_le32(dsdt + 4), "QEMU0001", 9));
		assert_non_null(memmem(dsdt, load_le32(dsdt + 4), "ACPI0013", 9));
		assert_non_null(memmem(dsdt, load_le32(dsdt + 4), "SL1F", 4));
		madt = table(buf, size, load_le64(xsdt + 44), "APIC");
		end = madt + load_le32(madt + 4);
		for (e = madt + 44; e < end; e += e[1]) {
			assert_true(e[1] >= 2 && e + e[1] <= end);
			ioapics += e[0] == 1;
			if (e[0] == 0)
				assert_int_equal(e[3], seen++);
		}
		assert_int_equal(seen, cpus[i]);
		assert_int_equal(ioapics, 1);
	}
}

/* AML blocks: the lengths of what is nested end where they say. */
static void acpi_small_buffers(void **state)
{
	uint8_t buf[8192];
	size_t need;

	(void)state;
	need = acpi_build(buf, sizeof(buf), GPA, 2);
	assert_true(need > 0);
	for (size_t size = 0; size < need; size += size < 100 ? 1 : 13) {
		uint8_t *exact = malloc(size + 1);	/* ASan watches its end */

		assert_int_equal(acpi_build(exact, size, GPA, 2), 0);
		free(exact);
	}
	assert_int_equal(acpi_build(buf, need, GPA, 2), need);
}

/* ---- the kernel ---- */

#define CODE	0x1000u
#define FILE_SIZE (5 * 512 + CODE)

/* A header that is right; tests break it one field at a time. */
static void good_header(uint8_t *h)
{
	memset(h, 0, BZIMAGE_HEAD_BYTES);
	h[0x1f1] = 4;
	store_le16(h + 0x1fe, 0xaa55);
	h[0x200] = 0xeb;
	h[0x201] = 0x6a;
	memcpy(h + 0x202, "HdrS", 4);
	store_le16(h + 0x206, 0x20f);
	h[0x211] = 1;
	store_le32(h + 0x22c, 0x7fffffff);
	store_le32(h + 0x230, 0x200000);
	h[0x234] = 1;
	store_le16(h + 0x236, 0x7f);
	store_le32(h + 0x238, 2047);
	store_le64(h + 0x258, 0x1000000);
	store_le32(h + 0x260, 0x400000);
}

static void bzimage_headers(void **state)
{
	static const struct {
		const char *what;
		unsigned off, bytes;
		uint64_t value;
		int error;
	} bad[] = {
		{ "boot flag", 0x1fe, 2, 0x55aa, ENOEXEC },
		{ "magic", 0x202, 1, 'X', ENOEXEC },
		{ "old protocol", 0x206, 2, 0x20b, ENOTSUP },
		{ "not 64-bit", 0x236, 2, 0x7e, ENOTSUP },
		{ "zImage", 0x211, 1, 0, ENOTSUP },
		{ "code past the end", 0x1f1, 1, 200, ENOEXEC },
		{ "short header", 0x201, 1, 0x10, ENOEXEC },
		{ "alignment 0", 0x230, 4, 0, ENOEXEC },
		{ "alignment 3", 0x230, 4, 3, ENOEXEC },
		{ "alignment 2 GiB", 0x230, 4, 0x80000000, ENOEXEC },
		{ "loads at 0", 0x258, 8, 0, ENOEXEC },
		{ "loads into the gap", 0x258, 8, 0xc0000000, ENOEXEC },
		{ "loads very high", 0x258, 8, UINT64_MAX - 0x1fffff, ENOEXEC },
		{ "loads unaligned", 0x258, 8, 0x1001000, ENOEXEC },
		{ "runs in less than it is", 0x260, 4, 16, ENOEXEC },
	};
	uint8_t h[BZIMAGE_HEAD_BYTES], raw[8];
	struct bzimage k;

	(void)state;
	good_header(h);
	assert_int_equal(bzimage_parse(&k, h, sizeof(h), FILE_SIZE, NULL), 0);
	assert_int_equal(k.code_offset, 5 * 512);
	assert_int_equal(k.code_size, CODE);
	assert_int_equal(k.initrd_end_max, 0x80000000);
	h[0x1f1] = 0;		/* means 4 */
	assert_int_equal(bzimage_parse(&k, h, sizeof(h), FILE_SIZE, NULL), 0);
	assert_int_equal(k.code_offset, 5 * 512);
	for (size_t len = 0; len < sizeof(h); len++)
		assert_int_equal(bzimage_parse(&k, h, len, FILE_SIZE, NULL), -ENOEXEC);
	assert_int_equal(bzimage_parse(&k, h, sizeof(h), 5 * 512, NULL), -ENOEXEC);
	assert_int_equal(bzimage_parse(&k, h, sizeof(h), BZIMAGE_MAX + 1, NULL), -EFBIG);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vdisk_error err = { 0 };

		good_header(h);
		store_le64(raw, bad[i].value);
		memcpy(h + bad[i].off, raw, bad[i].bytes);
		if (bzimage_parse(&k, h, sizeof(h), FILE_SIZE, &err) != -bad[i].error)
			fail_msg("%s: %s", bad[i].what, err.msg);
		assert_non_null(strstr(err.msg, "kernel: "));
	}
}

static int memory_file(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	return fd;
}

/* ---- ELF ---- */

static const uint64_t elf_entry = 0x1000100;

/* A vmlinux of two segments, and a note that names a PVH entry; its length. */
static size_t good_elf(uint8_t *f)
{
	static const struct {
		uint32_t type;
		uint64_t off, vaddr, paddr, file_size, size;
	} ph[] = {
		{ 1, 0x1000, 0xffffffff81000000, 0x1000000, 0x200, 0x800 },
		{ 1, 0x1200, 0xffffffff82000000, 0x2000000, 0x100, 0x3000 },
		{ 4, 0x1300, 0, 0, 0x20, 0x20 },
	};

	memset(f, 0, 0x1400);
	memcpy(f, "\x7f" "ELF\2\1\1", 7);
	store_le16(f + 18, 62);
	store_le64(f + 24, elf_entry);
	store_le64(f + 32, 64);
	store_le16(f + 54, 56);
	store_le16(f + 56, ARRAY_SIZE(ph));
	for (size_t i = 0; i < ARRAY_SIZE(ph); i++) {
		uint8_t *p = f + 64 + 56 * i;

		store_le32(p, ph[i].type);
		store_le64(p + 8, ph[i].off);
		store_le64(p + 16, ph[i].vaddr);
		store_le64(p + 24, ph[i].paddr);
		store_le64(p + 32, ph[i].file_size);
		store_le64(p + 40, ph[i].size);
	}
	memset(f + 0x1000, 'A', 0x200);
	memset(f + 0x1200, 'B', 0x100);
	store_le32(f + 0x1300, 4);
	store_le32(f + 0x1304, 4);
	store_le32(f + 0x1308, 18);
	memcpy(f + 0x130c, "Xen", 4);
	store_le32(f + 0x1310, 0x1000040);
	return 0x1400;
}

static void elf_headers(void **state)
{
	static const struct {
		const char *what;
		unsigned off, bytes;
		uint64_t value;
		int error;
	} bad[] = {
		{ "magic", 0, 1, 'X', ENOEXEC },
		{ "32 bits", 4, 1, 1, ENOTSUP },
		{ "big-endian", 5, 1, 2, ENOTSUP },
		{ "another machine", 18, 2, 183, ENOTSUP },
		{ "no program headers", 56, 2, 0, ENOEXEC },
		{ "too many of them", 56, 2, 17, ENOEXEC },
		{ "of another size", 54, 2, 32, ENOEXEC },
		{ "far away", 32, 8, UINT64_MAX - 8, ENOEXEC },
		{ "segment past the file", 64 + 8, 8, 0x1300, ENOEXEC },
		{ "segment wraps", 64 + 32, 8, UINT64_MAX, ENOEXEC },
		{ "more in the file than in memory", 64 + 40, 8, 0x100, ENOEXEC },
		{ "in the first megabyte", 64 + 24, 8, 0x1000, ENOEXEC },
		{ "into the gap", 64 + 24, 8, 0xbffffff0, ENOEXEC },
		{ "address wraps", 64 + 24, 8, UINT64_MAX - 0x80, ENOEXEC },
		{ "entry elsewhere", 24, 8, 0x5000000, ENOEXEC },
		{ "note past the file", 64 + 112 + 32, 8, 0x2000, ENOEXEC },
	};
	uint8_t f[0x1400], raw[8];
	struct elf_kernel k;
	size_t size;

	(void)state;
	size = good_elf(f);
	assert_int_equal(elf_parse(&k, f, sizeof(f), size, NULL), 0);
	assert_int_equal(k.n_parts, 2);
	assert_int_equal(k.n_notes, 1);
	assert_int_equal(k.entry, elf_entry);
	assert_int_equal(k.end, 0x2003000);
	store_le64(f + 24, 0xffffffff81000100);		/* a virtual entry: the same */
	assert_int_equal(elf_parse(&k, f, sizeof(f), size, NULL), 0);
	assert_int_equal(k.entry, elf_entry);
	for (size_t len = 0; len < 64 + 3 * 56; len++)
		assert_int_equal(elf_parse(&k, f, len, size, NULL), -ENOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vdisk_error err = { 0 };

		good_elf(f);
		store_le64(raw, bad[i].value);
		memcpy(f + bad[i].off, raw, bad[i].bytes);
		if (elf_parse(&k, f, sizeof(f), size, &err) != -bad[i].error)
			fail_msg("%s: %s", bad[i].what, err.msg);
	}
}

static void elf_notes(void **state)
{
	uint8_t f[0x1400], note[48] = { 0 };
	uint32_t entry = 0;

	(void)state;
	good_elf(f);
	assert_true(elf_pvh_entry(&entry, f + 0x1300, 0x20));
	assert_int_equal(entry, 0x1000040);
	for (size_t len = 0; len < 0x14; len++)
		assert_false(elf_pvh_entry(&entry, f + 0x1300, len));
	/* behind another one; sizes that would walk back or for ever */
	store_le32(note, 3);
	store_le32(note + 4, 2);
	memcpy(note + 20, f + 0x1300, 0x14);
	assert_true(elf_pvh_entry(&entry, note, sizeof(note)));
	store_le32(note, UINT32_MAX);
	assert_false(elf_pvh_entry(&entry, note, sizeof(note)));
	store_le32(note, 0);
	store_le32(note + 4, UINT32_MAX - 2);
	assert_false(elf_pvh_entry(&entry, note, sizeof(note)));
	assert_false(elf_pvh_entry(&entry, (const uint8_t[64]) { 0 }, 64));
}

static void elf_into_memory(void **state)
{
	struct boot_source src = { .cmdline = "console=ttyS0", .vcpus = 1, .initrd_fd = -1 };
	uint8_t f[0x1400], *info;
	struct boot_entry entry;
	struct ram ram;

	(void)state;
	assert_int_equal(ram_new(&ram, 64 << 20, 0, NULL), 0);
	src.kernel_fd = memory_file(f, good_elf(f));
	src.initrd_fd = memory_file("initrd", 6);
	assert_int_equal(boot_load(&ram.map, &src, &entry, NULL), 0);
	assert_true(entry.pvh);
	assert_int_equal(entry.rip, 0x1000040);
	assert_memory_equal(guest_at(&ram.map, 0x1000000, 0x200), f + 0x1000, 0x200);
	assert_memory_equal(guest_at(&ram.map, 0x2000000, 0x100), f + 0x1200, 0x100);
	info = guest_at(&ram.map, entry.rbx, 4096);
	assert_int_equal(load_le32(info), 0x336ec578);
	assert_string_equal(guest_at(&ram.map, load_le64(info + 24), 16), "console=ttyS0");
	assert_int_equal(load_le32(info + 12), 1);
	assert_memory_equal(guest_at(&ram.map, load_le64(guest_at(&ram.map, load_le64(info + 16),
								 16)), 6), "initrd", 6);
	assert_int_equal(load_le32(info + 48), 4);
	/* without the note: by the 64-bit protocol */
	assert_int_equal(pwrite(src.kernel_fd, "\0", 1, 0x1308), 1);
	assert_int_equal(boot_load(&ram.map, &src, &entry, NULL), 0);
	assert_false(entry.pvh);
	assert_int_equal(entry.rip, elf_entry);
	assert_memory_equal(guest_at(&ram.map, entry.rsi + 0x202, 4), "HdrS", 4);
	/* a PVH entry that is not in it; more than the guest's memory */
	assert_int_equal(pwrite(src.kernel_fd, "\x12", 1, 0x1308), 1);
	assert_int_equal(pwrite(src.kernel_fd, "\x77", 1, 0x1313), 1);
	assert_int_equal(boot_load(&ram.map, &src, &entry, NULL), -ENOEXEC);
	assert_int_equal(pwrite(src.kernel_fd, "\x10", 1, 64 + 56 + 24 + 3), 1);
	assert_int_equal(boot_load(&ram.map, &src, &entry, NULL), -ENOMEM);
	close(src.kernel_fd);
	close(src.initrd_fd);
	ram_free(&ram);
}

static void kernel_into_memory(void **state)
{
	static uint8_t file[FILE_SIZE], initrd[5000];
	struct boot_source src = { .cmdline = "console=ttyS0", .vcpus = 2 };
	struct vdisk_error err = { 0 };
	struct boot_entry entry;
	struct ram ram;
	const uint8_t *bp, *stub;
	uint32_t start;
	char *longer = calloc(1, 3000);

	(void)state;
	good_header(file);
	memset(file + 5 * 512, 0x90, CODE);
	memset(initrd, 0x77, sizeof(initrd));
	src.kernel_fd = memory_file(file, sizeof(file));
	src.initrd_fd = memory_file(initrd, sizeof(initrd));
	assert_int_equal(ram_new(&ram, 64 << 20, 0, NULL), 0);
	assert_int_equal(boot_load(&ram.map, &src, &entry, NULL), 0);
	assert_int_equal(entry.rip, 0x1000200);
	assert_memory_equal(guest_at(&ram.map, 0x1000000, CODE), file + 5 * 512, CODE);
	bp = guest_at(&ram.map, entry.rsi, 4096);
	assert_int_equal(load_le64(bp + 0x70), GUEST_ACPI);
	assert_int_equal(bp[0x210], 0xff);
	assert_int_equal(bp[0x1e8], 4);			/* e820 entries */
	assert_int_equal(load_le64(bp + 0x2d0 + 40), 1 << 20);
	assert_int_equal(load_le64(bp + 0x2d0 + 48), 63 << 20);
	assert_string_equal(guest_at(&ram.map, load_le32(bp + 0x228), 14), "console=ttyS0");
	start = load_le32(bp + 0x218);
	assert_int_equal(start % 4096, 0);
	assert_int_equal(load_le32(bp + 0x21c), sizeof(initrd));
	assert_true(start >= 0x1400000);
	assert_memory_equal(guest_at(&ram.map, start, sizeof(initrd)), initrd, sizeof(initrd));
	assert_int_equal(load_le32(guest_at(&ram.map, load_le64(bp + 0x250) + 8, 4)), 9);
	stub = guest_at(&ram.map, GUEST_RESET_STUB, 9);
	assert_int_equal(stub[0], 0xba);
	/* the bytes of the header past what is known stay zero, as do those before it */
	assert_int_equal(bp[0x1f0], 0);

	/* again after a reset: the same */
	assert_int_equal(ram_clear(&ram, NULL), 0);
	assert_int_equal(load_le64(bp + 0x70), 0);
	assert_int_equal(boot_load(&ram.map, &src, &entry, NULL), 0);

	/* what does not fit says so */
	memset(longer, 'x', 2048);
	src.cmdline = longer;
	assert_int_equal(boot_load(&ram.map, &src, &entry, &err), -E2BIG);
	src.cmdline = "";
	assert_int_equal(ftruncate(src.initrd_fd, 50 << 20), 0);
	assert_int_equal(boot_load(&ram.map, &src, &entry, &err), -ENOMEM);
	assert_int_equal(ftruncate(src.initrd_fd, (1l << 30) + 1), 0);
	assert_int_equal(boot_load(&ram.map, &src, &entry, &err), -EFBIG);
	close(src.initrd_fd);
	src.initrd_fd = -1;
	store_le32(file + 0x260, 0x8000000);	/* needs 128 MiB */
	assert_int_equal(pwrite(src.kernel_fd, file, 1024, 0), 1024);
	assert_int_equal(boot_load(&ram.map, &src, &entry, &err), -ENOMEM);
	ram_free(&ram);
	close(src.kernel_fd);
	src.kernel_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	assert_int_equal(boot_load(&ram.map, &src, &entry, &err), -EINVAL);
	close(src.kernel_fd);
	free(longer);
}

static void memory_around_the_gap(void **state)
{
	struct ram ram;

	(void)state;
	assert_int_equal(ram_new(&ram, RAM_MIN - (1 << 20), 0, NULL), -EINVAL);
	assert_int_equal(ram_new(&ram, (64 << 20) + 1, 0, NULL), -EINVAL);
	assert_int_equal(ram_new(&ram, 5ull << 30, 0, NULL), 0);
	assert_int_equal(ram.map.n, 2);
	assert_int_equal(ram_low_end(&ram.map), GUEST_GAP);
	assert_non_null(guest_at(&ram.map, GUEST_GAP - 1, 1));
	assert_null(guest_at(&ram.map, GUEST_GAP - 1, 2));
	assert_null(guest_at(&ram.map, GUEST_GAP, 1));
	assert_null(guest_at(&ram.map, GUEST_ABOVE_GAP - 1, 1));
	assert_non_null(guest_at(&ram.map, GUEST_ABOVE_GAP, 2ull << 30));
	assert_null(guest_at(&ram.map, GUEST_ABOVE_GAP, (2ull << 30) + 1));
	assert_null(guest_at(&ram.map, UINT64_MAX, 1));
	assert_null(guest_at(&ram.map, 4096, UINT64_MAX));
	assert_ptr_equal((uint8_t *)guest_at(&ram.map, 0, 1), ram.map.region[0].host);
	ram_free(&ram);
}

/* ---- the serial port ---- */

struct line {
	struct serial s;
	bool level;
	unsigned edges, wakes;
};

static void on_line(void *arg, bool level)
{
	struct line *l = arg;

	assert_true(level != l->level);
	l->level = level;
	l->edges += level;
}

static void on_wake(void *arg)
{
	struct line *l = arg;

	l->wakes++;
}

static int serial_setup(void **state)
{
	struct line *l = calloc(1, sizeof(*l));
	struct serial_host host = { .interrupt = on_line, .arg = l };

	serial_init(&l->s);
	l->s.tty.wake = on_wake;
	l->s.tty.wake_arg = l;
	serial_attach(&l->s, &host);
	*state = l;
	return 0;
}

static int serial_teardown(void **state)
{
	struct line *l = *state;

	serial_destroy(&l->s);
	free(l);
	return 0;
}

/* What Linux' 8250 driver does to find out what it has. */
static void serial_is_a_16550a(void **state)
{
	struct line *l = *state;
	struct serial *s = &l->s;

	serial_write(s, UART_IER, 0);
	assert_int_equal(serial_read(s, UART_IER), 0);
	serial_write(s, UART_IER, 0xfd);
	assert_int_equal(serial_read(s, UART_IER), 0x0d);
	serial_write(s, UART_IER, 0);
	serial_write(s, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	assert_int_equal(serial_read(s, UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
	serial_write(s, UART_TX, 'x');
	assert_int_equal(serial_read(s, UART_RX), 'x');
	serial_write(s, UART_MCR, 0);
	serial_write(s, UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(serial_read(s, UART_IIR) >> 6, 3);
	serial_write(s, UART_SCR, 0xa5);
	assert_int_equal(serial_read(s, UART_SCR), 0xa5);
	serial_write(s, UART_LCR, UART_LCR_DLAB);
	serial_write(s, UART_DLL, 12);
	assert_int_equal(serial_read(s, UART_DLL), 12);
	serial_write(s, UART_LCR, 3);
	assert_int_equal(serial_read(s, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(l->edges, 0);
	assert_int_equal(tty_peek(&s->tty, (uint8_t[1]) { 0 }, 1), 0);	/* nothing went out */
}

static void serial_interrupts(void **state)
{
	struct line *l = *state;
	struct serial *s = &l->s;

	/* asking for THRI with an empty transmitter gives it at once */
	serial_write(s, UART_IER, UART_IER_THRI);
	assert_true(l->level);
	assert_int_equal(serial_read(s, UART_IIR) & 0x0f, UART_IIR_THRI);
	assert_false(l->level);		/* reading cleared it */
	assert_int_equal(serial_read(s, UART_IIR) & 0x0f, UART_IIR_NO_INT);
	serial_write(s, UART_TX, 'a');
	assert_true(l->level);
	assert_int_equal(l->wakes, 1);
	serial_write(s, UART_IER, 0);
	assert_false(l->level);
	/* data: reported before THRI, until it is read */
	serial_write(s, UART_IER, UART_IER_RDI | UART_IER_THRI);
	assert_int_equal(tty_input(&s->tty, (const uint8_t *)"hi", 2), 2);
	assert_int_equal(serial_read(s, UART_IIR) & 0x0f, UART_IIR_RDI);
	assert_true(serial_read(s, UART_LSR) & UART_LSR_DR);
	assert_int_equal(serial_read(s, UART_RX), 'h');
	assert_int_equal(serial_read(s, UART_RX), 'i');
	assert_false(serial_read(s, UART_LSR) & UART_LSR_DR);
	assert_int_equal(serial_read(s, UART_IIR) & 0x0f, UART_IIR_THRI);
	assert_false(l->level);
}

static void serial_slow_reader(void **state)
{
	struct line *l = *state;
	struct serial *s = &l->s;
	static uint8_t out[TTY_OUT_SIZE];
	unsigned sent = 0;

	/* a tty sends by interrupt: it is held back, and nothing is lost */
	serial_write(s, UART_IER, UART_IER_THRI);
	while (l->level && sent < 2 * TTY_OUT_SIZE) {
		assert_int_equal(serial_read(s, UART_IIR) & 0x0f, UART_IIR_THRI);
		for (unsigned i = 0; i < 16; i++)
			serial_write(s, UART_TX, (uint8_t)sent++);
	}
	assert_in_range(sent, TTY_OUT_SIZE / 2, TTY_OUT_SIZE / 2 + 16);
	/* the console polls: the transmitter is always empty, what does not fit is counted */
	for (unsigned i = 0; i < TTY_OUT_SIZE; i++) {
		assert_true(serial_read(s, UART_LSR) & UART_LSR_THRE);
		serial_write(s, UART_TX, 'c');
	}
	assert_int_equal(tty_lost(&s->tty), sent);
	assert_int_equal(tty_lost(&s->tty), 0);
	assert_false(l->level);
	assert_int_equal(tty_peek(&s->tty, out, sizeof(out)), sizeof(out));
	for (unsigned i = 0; i < sent; i++)
		assert_int_equal(out[i], (uint8_t)i);
	tty_consume(&s->tty, TTY_OUT_SIZE / 4);
	assert_false(l->level);
	tty_consume(&s->tty, TTY_OUT_SIZE / 2);
	assert_true(l->level);		/* more, please */
	tty_consume(&s->tty, UINT32_MAX);
	assert_int_equal(tty_peek(&s->tty, out, sizeof(out)), 0);
}

static void serial_full_input(void **state)
{
	struct line *l = *state;
	struct serial *s = &l->s;
	uint8_t in[TTY_IN_SIZE + 10] = { 0 };

	assert_int_equal(tty_input(&s->tty, in, sizeof(in)), TTY_IN_SIZE);
	assert_int_equal(tty_room(&s->tty), 0);
	for (unsigned i = 0; i < TTY_IN_SIZE; i++)
		serial_read(s, UART_RX);
	assert_int_equal(l->wakes, 1);
	assert_int_equal(tty_room(&s->tty), TTY_IN_SIZE);
}

/* ---- PCI ---- */

struct card {
	struct pci_device pci;
	uint8_t bar[0x1000];
	unsigned moves, freed;
};

static struct card card;

static void card_read(struct pci_device *d, uint32_t off, void *buf, unsigned len)
{
	memcpy(buf, container_of(d, struct card, pci)->bar + off, len);
}

static void card_write(struct pci_device *d, uint32_t off, const void *buf, unsigned len)
{
	memcpy(container_of(d, struct card, pci)->bar + off, buf, len);
}

static void card_moved(struct pci_device *d)
{
	container_of(d, struct card, pci)->moves++;
}

static void card_free(struct pci_device *d)
{
	container_of(d, struct card, pci)->freed++;
}

static const struct pci_ops card_ops = {
	.bar_read = card_read, .bar_write = card_write, .bar_moved = card_moved, .free = card_free,
};

static uint32_t config_read(struct pci_bus *bus, uint32_t slot, uint32_t off, unsigned len)
{
	uint8_t raw[4];

	store_le32(raw, 0x80000000u | slot << 11 | (off & ~3u));
	pci_port_write(bus, 0, raw, 4);
	memset(raw, 0, sizeof(raw));
	pci_port_read(bus, 4 + (off & 3), raw, len);
	return load_le32(raw);
}

static void config_write(struct pci_bus *bus, uint32_t slot, uint32_t off, uint32_t v,
			 unsigned len)
{
	uint8_t raw[4];

	store_le32(raw, 0x80000000u | slot << 11 | (off & ~3u));
	pci_port_write(bus, 0, raw, 4);
	store_le32(raw, v);
	pci_port_write(bus, 4 + (off & 3), raw, len);
}

static uint32_t enhanced_read(struct pci_bus *bus, uint32_t at, unsigned len)
{
	uint8_t raw[4] = { 0 };

	assert_true(pci_memory_read(bus, GUEST_ECAM + at, raw, len));
	return load_le32(raw);
}

static void pci_configuration(void **state)
{
	static const struct pci_id id = { .vendor = 0x1af4, .device = 0x1042, .class_code = 0x018000 };
	struct pci_bus bus;
	uint8_t raw[4] = { 0 };
	uint32_t at, where;

	(void)state;
	pci_bus_init(&bus);
	memset(&card, 0, sizeof(card));
	pci_device_init(&card.pci, &card_ops, &id);
	pci_add_bar(&card.pci, 0x1000);
	at = pci_add_capability(&card.pci, PCI_CAP_ID_VNDR, 17);
	assert_int_equal(at, 0x40);
	assert_int_equal(pci_add_capability(&card.pci, PCI_CAP_ID_MSIX, 12), 0x54);
	assert_int_equal(pci_plug(&bus, &card.pci), 1);

	/* mechanism 1 is there, and the bridge behind it */
	store_le32(raw, 0x80000000);
	pci_port_write(&bus, 0, raw, 4);
	pci_port_read(&bus, 0, raw, 4);
	assert_int_equal(load_le32(raw), 0x80000000);
	assert_int_equal(config_read(&bus, 0, PCI_CLASS_DEVICE, 2), 0x0600);
	/* nothing elsewhere: other slots, other buses, other functions, disabled */
	assert_int_equal(config_read(&bus, 2, 0, 4), UINT32_MAX);
	assert_int_equal(config_read(&bus, 1 << 5 | 1, 0, 4), UINT32_MAX);
	store_le32(raw, 0x80000900);
	pci_port_write(&bus, 0, raw, 4);
	pci_port_read(&bus, 4, raw, 4);
	assert_int_equal(load_le32(raw), UINT32_MAX);
	store_le32(raw, 0x00000800);
	pci_port_write(&bus, 0, raw, 4);
	pci_port_read(&bus, 4, raw, 4);
	assert_int_equal(load_le32(raw), UINT32_MAX);

	/* the same in memory: one page a function, and nothing behind 256 bytes */
	assert_int_equal(enhanced_read(&bus, 1 << 15, 4), 0x10421af4);
	assert_int_equal(enhanced_read(&bus, 1 << 15 | 2, 2), 0x1042);
	assert_int_equal(enhanced_read(&bus, 1 << 15 | 1 << 12, 4), UINT32_MAX);
	assert_int_equal(enhanced_read(&bus, 2 << 15, 4), UINT32_MAX);
	assert_int_equal(enhanced_read(&bus, 1 << 15 | 254, 4), UINT32_MAX);
	assert_int_equal(enhanced_read(&bus, 1 << 15 | 256, 4), UINT32_MAX);
	raw[0] = 0xa5;
	assert_true(pci_memory_write(&bus, GUEST_ECAM + (1 << 15) + PCI_INTERRUPT_LINE, raw, 1));
	assert_int_equal(config_read(&bus, 1, PCI_INTERRUPT_LINE, 1), 0xa5);
	assert_false(pci_memory_read(&bus, GUEST_ECAM + GUEST_ECAM_SIZE - 2, raw, 4));
	assert_false(pci_memory_read(&bus, GUEST_ECAM - 1, raw, 1));

	/* the card: read-only fields stay, capabilities are a list that ends */
	config_write(&bus, 1, 0, 0, 4);
	assert_int_equal(config_read(&bus, 1, 0, 4), 0x10421af4);
	assert_int_equal(config_read(&bus, 1, 2, 2), 0x1042);
	assert_int_equal(config_read(&bus, 1, 3, 1), 0x10);
	assert_true(config_read(&bus, 1, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
	assert_int_equal(config_read(&bus, 1, PCI_CAPABILITY_LIST, 1), 0x40);
	assert_int_equal(config_read(&bus, 1, 0x41, 1), 0x54);
	assert_int_equal(config_read(&bus, 1, 0x55, 1), 0);

	/* its BAR: placed, not decoded before it is asked for; sized; moved */
	where = config_read(&bus, 1, PCI_BASE_ADDRESS_0, 4);
	assert_true(where >= GUEST_PCI_WINDOW && where % 0x1000 == 0);
	assert_false(pci_memory_read(&bus, where, raw, 4));
	config_write(&bus, 1, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_int_equal(card.moves, 1);
	store_le32(raw, 0x12345678);
	assert_true(pci_memory_write(&bus, where + 0xffc, raw, 4));
	assert_int_equal(load_le32(card.bar + 0xffc), 0x12345678);
	assert_false(pci_memory_write(&bus, where + 0xffd, raw, 4));
	assert_false(pci_memory_write(&bus, where - 1, raw, 1));
	config_write(&bus, 1, PCI_COMMAND, 0, 2);
	config_write(&bus, 1, PCI_BASE_ADDRESS_0, UINT32_MAX, 4);
	assert_int_equal(config_read(&bus, 1, PCI_BASE_ADDRESS_0, 4), 0xfffff000);
	config_write(&bus, 1, PCI_BASE_ADDRESS_0, 0xd0000000, 4);
	config_write(&bus, 1, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_false(pci_memory_read(&bus, where, raw, 4));
	assert_true(pci_memory_read(&bus, 0xd0000ffc, raw, 4));
	assert_int_equal(load_le32(raw), 0x12345678);
	/* accesses that straddle the data register are nothing */
	pci_port_read(&bus, 6, raw, 4);
	pci_port_write(&bus, 6, raw, 4);
	pci_bus_destroy(&bus);
	assert_int_equal(card.freed, 1);
}

/* ---- the escape key ---- */

static void escape_key(void **state)
{
	uint8_t a[] = "ab\x1d\x1d" "c", b[] = "xy\x1dqz", c[] = { 'k', ESCAPE_KEY }, d[] = "r";
	size_t len = 5;

	(void)state;
	assert_int_equal(terminal_filter(a, &len), ESCAPE_NONE);
	assert_int_equal(len, 4);
	assert_memory_equal(a, "ab\x1d" "c", 4);
	len = 5;
	assert_int_equal(terminal_filter(b, &len), ESCAPE_QUIT);
	assert_int_equal(len, 2);
	len = 2;		/* in two reads */
	assert_int_equal(terminal_filter(c, &len), ESCAPE_NONE);
	assert_int_equal(len, 1);
	len = 1;
	assert_int_equal(terminal_filter(d, &len), ESCAPE_REBOOT);
	assert_int_equal(len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(acpi_tables),
		cmocka_unit_test(acpi_small_buffers),
		cmocka_unit_test(bzimage_headers),
		cmocka_unit_test(elf_headers),
		cmocka_unit_test(elf_notes),
		cmocka_unit_test(elf_into_memory),
		cmocka_unit_test(kernel_into_memory),
		cmocka_unit_test(memory_around_the_gap),
		cmocka_unit_test_setup_teardown(serial_is_a_16550a, serial_setup, serial_teardown),
		cmocka_unit_test_setup_teardown(serial_interrupts, serial_setup, serial_teardown),
		cmocka_unit_test_setup_teardown(serial_slow_reader, serial_setup, serial_teardown),
		cmocka_unit_test_setup_teardown(serial_full_input, serial_setup, serial_teardown),
		cmocka_unit_test(pci_configuration),
		cmocka_unit_test(escape_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
