/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bzimage.c - a Linux kernel as distributions ship it, by the 64-bit boot protocol
 *
 * References are to the kernel's Documentation/x86/boot.rst.  The real-mode
 * part of the file is not used, but for its set-up header, which goes into
 * boot_params.  The rest is placed at its preferred address (a relocatable
 * kernel never goes below it anyway), and entered 0x200 bytes in, in long mode
 * with identity page tables, RSI pointing at boot_params.
 *
 * Everything in the header comes from a guest's disk and is checked in
 * bzimage_parse(), which is pure.
 *
 * The reset stub: a kernel on hardware-reduced ACPI without EFI ends its reboot
 * in the BIOS entry point, F000:FFF0 in real mode.  Zeroes there would spin for
 * ever without an exit; ours writes the reset register.
 */
#include "vmm-lite/kvm/bzimage.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/kvm/acpi.h"
#include "vmm-lite/kvm/layout.h"
#include "vmm-lite/kvm/memory.h"

/* the set-up header, in the file and in boot_params alike */
enum {
	HDR_START = 0x1f1,
	HDR_SETUP_SECTS = 0x1f1,
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP_LENGTH = 0x201,
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_TYPE_OF_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_RAMDISK_IMAGE = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMDLINE_PTR = 0x228,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_ALIGNMENT = 0x230,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
};

/* the rest of boot_params ("zero page") */
enum {
	BP_ACPI_RSDP = 0x070,
	BP_E820_ENTRIES = 0x1e8,
	BP_E820_TABLE = 0x2d0,
};

enum { E820_RAM = 1, E820_RESERVED = 2 };

#define LOADED_HIGH		0x01
#define XLF_KERNEL_64		0x01
#define SETUP_RNG_SEED		9
#define ENTRY_64		0x200

int bzimage_parse(struct bzimage *out, const uint8_t *head, size_t len, uint64_t file_size,
		  struct vdisk_error *err)
{
	struct bzimage k = { 0 };
	uint64_t last;
	unsigned version, sects;

	if (file_size > BZIMAGE_MAX)
		return vd_fail(err, EFBIG, "kernel: %" PRIu64 " MiB is too large", file_size >> 20);
	if (len < BZIMAGE_HEAD_BYTES || load_le16(head + HDR_BOOT_FLAG) != 0xaa55 ||
	    memcmp(head + HDR_MAGIC, "HdrS", 4))
		return vd_fail(err, ENOEXEC, "kernel: not a Linux bzImage");
	version = load_le16(head + HDR_VERSION);
	if (version < 0x20c)
		return vd_fail(err, ENOTSUP, "kernel: boot protocol %u.%02u is older than 2.12",
			       version >> 8, version & 0xff);
	if (!(head[HDR_LOADFLAGS] & LOADED_HIGH) ||
	    !(load_le16(head + HDR_XLOADFLAGS) & XLF_KERNEL_64))
		return vd_fail(err, ENOTSUP, "kernel: has no 64-bit entry point");

	sects = head[HDR_SETUP_SECTS] ? head[HDR_SETUP_SECTS] : 4;
	k.code_offset = (sects + 1) * UINT64_C(512);
	if (k.code_offset >= file_size || file_size - k.code_offset <= ENTRY_64)
		return vd_fail(err, ENOEXEC, "kernel: the file ends before its code at %" PRIu64,
			       k.code_offset);
	k.code_size = file_size - k.code_offset;
	k.header_end = HDR_MAGIC + head[HDR_JUMP_LENGTH];
	if (k.header_end < HDR_INIT_SIZE + 4)
		return vd_fail(err, ENOEXEC, "kernel: its header ends at %#" PRIx32, k.header_end);
	k.header_end = MIN(k.header_end, BZIMAGE_HEAD_BYTES);

	k.preferred = load_le64(head + HDR_PREF_ADDRESS);
	k.init_size = load_le32(head + HDR_INIT_SIZE);
	k.alignment = load_le32(head + HDR_ALIGNMENT);
	k.cmdline_max = load_le32(head + HDR_CMDLINE_SIZE);
	last = load_le32(head + HDR_INITRD_ADDR_MAX);
	k.initrd_end_max = (uint32_t)MIN(last + 1, (uint64_t)GUEST_GAP);
	if (!vd_is_pow2(k.alignment) || k.alignment < 4096 || k.alignment > 1u << 30)
		return vd_fail(err, ENOEXEC, "kernel: alignment %#" PRIx32 " is not possible",
			       k.alignment);
	if (k.preferred < GUEST_HIGH_MEMORY || k.preferred >= GUEST_GAP ||
	    k.preferred % k.alignment)
		return vd_fail(err, ENOEXEC, "kernel: load address %#" PRIx64 " is not possible",
			       k.preferred);
	if (k.init_size < k.code_size)
		return vd_fail(err, ENOEXEC, "kernel: needs %" PRIu32 " bytes to run, but has %" PRIu64,
			       k.init_size, k.code_size);
	*out = k;
	return 0;
}

/* ---- pieces of memory ---- */

static void *low_memory(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
	void *p = guest_at(mem, gpa, len);

	/* RAM_MIN covers every fixed address */
	if (!p)
		abort();
	return p;
}

static int load_file(const struct guest_memory *mem, const char *what, int fd, uint64_t off,
		     uint64_t size, uint64_t gpa, struct vdisk_error *err)
{
	uint8_t *p = guest_at(mem, gpa, size);

	if (!p)
		return vd_fail(err, ENOMEM, "%s: does not fit into the guest's memory", what);
	while (size) {
		ssize_t n = pread(fd, p, size, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return vd_fail(err, errno, "%s: %m", what);
		if (!n)
			return vd_fail(err, EIO, "%s: became shorter while it was read", what);
		p += n;
		off += (uint64_t)n;
		size -= (uint64_t)n;
	}
	return 0;
}

static int file_size(int fd, const char *what, uint64_t max, uint64_t *out,
		     struct vdisk_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return vd_fail(err, errno, "%s: %m", what);
	if (!S_ISREG(st.st_mode))
		return vd_fail(err, EINVAL, "%s: not a regular file", what);
	if ((uint64_t)st.st_size > max)
		return vd_fail(err, EFBIG, "%s: larger than %" PRIu64 " MiB", what, max >> 20);
	*out = (uint64_t)st.st_size;
	return 0;
}

/* ---- boot_params ---- */

static void e820_add(uint8_t *bp, uint64_t start, uint64_t size, uint32_t type)
{
	uint8_t *e = bp + BP_E820_TABLE + 20 * bp[BP_E820_ENTRIES]++;

	store_le64(e, start);
	store_le64(e + 8, size);
	store_le32(e + 16, type);
}

static void fill_e820(uint8_t *bp, const struct guest_memory *mem)
{
	uint64_t low = ram_low_end(mem);

	e820_add(bp, 0, GUEST_LOW_END, E820_RAM);
	e820_add(bp, GUEST_LOW_END, GUEST_HIGH_MEMORY - GUEST_LOW_END, E820_RESERVED);
	e820_add(bp, GUEST_HIGH_MEMORY, low - GUEST_HIGH_MEMORY, E820_RAM);
	for (unsigned i = 1; i < mem->n; i++)
		e820_add(bp, mem->region[i].gpa, mem->region[i].size, E820_RAM);
}

/* The kernel's random numbers start from this (and it wipes it). */
static int add_rng_seed(uint8_t *bp, const struct guest_memory *mem, struct vdisk_error *err)
{
	uint8_t *d = low_memory(mem, GUEST_SETUP_DATA, 16 + 32);

	store_le64(d, 0);	/* no next one */
	store_le32(d + 8, SETUP_RNG_SEED);
	store_le32(d + 12, 32);
	if (getrandom(d + 16, 32, 0) != 32)
		return vd_fail(err, EIO, "getrandom: %m");
	store_le64(bp + HDR_SETUP_DATA, GUEST_SETUP_DATA);
	return 0;
}

static int add_cmdline(uint8_t *bp, const struct guest_memory *mem, const struct bzimage *k,
		       const char *cmdline, struct vdisk_error *err)
{
	size_t len = strlen(cmdline), max = MIN(k->cmdline_max, GUEST_CMDLINE_MAX - 1);

	if (len > max)
		return vd_fail(err, E2BIG, "command line of %zu bytes: the kernel takes %zu", len,
			       max);
	memcpy(low_memory(mem, GUEST_CMDLINE, len + 1), cmdline, len + 1);
	store_le32(bp + HDR_CMDLINE_PTR, GUEST_CMDLINE);
	return 0;
}

/* At the top of low memory, out of the kernel's way. */
static int add_initrd(uint8_t *bp, const struct guest_memory *mem, const struct bzimage *k,
		      uint64_t kernel_end, int fd, struct vdisk_error *err)
{
	uint64_t end = MIN(ram_low_end(mem), (uint64_t)k->initrd_end_max), start, size;
	int r = file_size(fd, "initrd", INITRD_MAX, &size, err);

	if (r < 0 || !size)
		return r;
	if (size > end || (start = vd_align_down(end - size, 4096)) < kernel_end)
		return vd_fail(err, ENOMEM,
			       "initrd of %" PRIu64 " MiB: the guest needs more memory (-m)",
			       (size >> 20) + 1);
	r = load_file(mem, "initrd", fd, 0, size, start, err);
	if (r < 0)
		return r;
	store_le32(bp + HDR_RAMDISK_IMAGE, (uint32_t)start);
	store_le32(bp + HDR_RAMDISK_SIZE, (uint32_t)size);
	return 0;
}

/* ---- the state that the entry point wants ---- */

/* 4 GiB mapped one to one by 2 MiB pages. */
static void fill_page_tables(const struct guest_memory *mem)
{
	enum { PRESENT = 1, WRITE = 2, LARGE = 0x80 };
	uint8_t *pml4 = low_memory(mem, GUEST_PAGE_TABLES, 6 * 4096);
	uint8_t *pdpt = pml4 + 4096, *pd = pdpt + 4096;

	store_le64(pml4, (GUEST_PAGE_TABLES + 4096) | PRESENT | WRITE);
	for (unsigned i = 0; i < 4; i++)
		store_le64(pdpt + 8 * i,
			   (GUEST_PAGE_TABLES + 4096 * (2 + i)) | PRESENT | WRITE);
	for (uint64_t i = 0; i < 2048; i++)
		store_le64(pd + 8 * i, i << 21 | PRESENT | WRITE | LARGE);
}

/* Selectors 0x10 code, 0x18 data, as the protocol says. */
static void fill_gdt(const struct guest_memory *mem)
{
	uint8_t *gdt = low_memory(mem, GUEST_GDT, 32);

	store_le64(gdt + 0x10, 0x00af9b000000ffff);
	store_le64(gdt + 0x18, 0x00cf93000000ffff);
}

static void fill_reset_stub(const struct guest_memory *mem)
{
	static const uint8_t stub[] = {
		0xba, PORT_POWER & 0xff, PORT_POWER >> 8, /* mov $PORT_POWER, %dx */
		0xb0, POWER_RESET,			/* mov $POWER_RESET, %al */
		0xee,					/* out %al, %dx */
		0xf4,					/* hlt */
		0xeb, 0xfd,				/* jmp to the hlt */
	};

	memcpy(low_memory(mem, GUEST_RESET_STUB, sizeof(stub)), stub, sizeof(stub));
}

int boot_load(const struct guest_memory *mem, const struct boot_source *src,
	      struct boot_entry *entry, struct vdisk_error *err)
{
	uint8_t head[BZIMAGE_HEAD_BYTES] = { 0 }, *bp;
	struct bzimage k;
	uint64_t size;
	ssize_t n;
	int r = file_size(src->kernel_fd, "kernel", BZIMAGE_MAX, &size, err);

	if (r < 0)
		return r;
	n = pread(src->kernel_fd, head, sizeof(head), 0);
	if (n < 0)
		return vd_fail(err, errno, "kernel: %m");
	r = bzimage_parse(&k, head, (size_t)n, size, err);
	if (!r && !vd_in_range(k.preferred, k.init_size, ram_low_end(mem)))
		r = vd_fail(err, ENOMEM, "kernel: needs %" PRIu64 " MiB of guest memory (-m)",
			    ((k.preferred + k.init_size) >> 20) + 1);
	if (!r)
		r = load_file(mem, "kernel", src->kernel_fd, k.code_offset, k.code_size,
			      k.preferred, err);
	if (r < 0)
		return r;

	/* all zero, but for the header: fields that we do not know stay unset */
	bp = low_memory(mem, GUEST_BOOT_PARAMS, 4096);
	memcpy(bp + HDR_START, head + HDR_START, k.header_end - HDR_START);
	bp[HDR_TYPE_OF_LOADER] = 0xff;
	fill_e820(bp, mem);
	r = add_cmdline(bp, mem, &k, src->cmdline, err);
	if (!r && src->initrd_fd >= 0)
		r = add_initrd(bp, mem, &k, k.preferred + k.init_size, src->initrd_fd, err);
	if (!r)
		r = add_rng_seed(bp, mem, err);
	if (r < 0)
		return r;
	if (!acpi_build(low_memory(mem, GUEST_ACPI, GUEST_ACPI_MAX), GUEST_ACPI_MAX, GUEST_ACPI,
			src->vcpus))
		return vd_fail(err, E2BIG, "no room for the ACPI tables");
	store_le64(bp + BP_ACPI_RSDP, GUEST_ACPI);
	fill_page_tables(mem);
	fill_gdt(mem);
	fill_reset_stub(mem);
	*entry = (struct boot_entry) {
		.rip = k.preferred + ENTRY_64, .rsi = GUEST_BOOT_PARAMS, .cr3 = GUEST_PAGE_TABLES,
		.rsp = GUEST_BOOT_PARAMS,
	};
	return 0;
}
