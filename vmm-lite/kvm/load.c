/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * load.c - a kernel, its initrd and its command line into the guest's memory
 *
 * Three ways in, each for what it is meant for:
 *
 *	bzImage		the 64-bit boot protocol (Documentation/x86/boot.rst): placed at
 *			its preferred address (a relocatable kernel never goes below it
 *			anyway), entered 0x200 bytes in, in long mode with identity page
 *			tables, RSI pointing at boot_params
 *	ELF with a PVH	(xen/include/public/arch-x86/hvm/start_info.h): 32-bit protected
 *	note		mode, paging off, EBX pointing at hvm_start_info
 *	other ELF	vmlinux: as bzImage, but entered where the file says
 *
 * The real-mode part of a bzImage is not used, but for its set-up header.
 *
 * The reset stub: a kernel on hardware-reduced ACPI without EFI ends its reboot
 * in the BIOS entry point, F000:FFF0 in real mode.  Zeroes there would spin for
 * ever without an exit; ours writes the reset register.
 */
#include "vmm-lite/kvm/load.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/kvm/acpi.h"
#include "vmm-lite/kvm/bzimage.h"
#include "vmm-lite/kvm/elf.h"
#include "vmm-lite/kvm/layout.h"
#include "vmm-lite/kvm/memory.h"
#include "vmm-lite/kvm/unpack.h"

/* the rest of boot_params ("zero page") */
enum {
	BP_ACPI_RSDP = 0x070,
	BP_E820_ENTRIES = 0x1e8,
	BP_E820_TABLE = 0x2d0,
};

/* struct hvm_start_info, version 1 */
enum {
	PVH_VERSION = 4,
	PVH_MODULES = 12,
	PVH_MODLIST = 16,
	PVH_CMDLINE = 24,
	PVH_RSDP = 32,
	PVH_MEMMAP = 40,
	PVH_MEMMAP_ENTRIES = 48,
	PVH_SIZE = 56,
	/* where we put what it points at, from its start */
	PVH_MODLIST_AT = 0x80,
	PVH_MEMMAP_AT = 0x100,
};

enum { E820_RAM = 1, E820_RESERVED = 2 };

#define SETUP_RNG_SEED		9
#define PVH_MAGIC		0x336ec578u
#define VMLINUX_ALIGNMENT	0x1000000u	/* what a header would have said */

/* A kernel that is in memory, and what it wants of the rest. */
struct loaded {
	uint8_t head[BZIMAGE_HEAD_BYTES];	/* its set-up header, or one made up */
	uint64_t end;		/* of the memory that is its own */
	uint32_t initrd_end_max;
	uint32_t cmdline_max;
	uint64_t cmdline_len;
	uint64_t initrd, initrd_size;
};

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

/* ---- what is told to the kernel ---- */

static unsigned memory_map(const struct guest_memory *mem,
			   void (*add)(void *arg, uint64_t start, uint64_t size, uint32_t type),
			   void *arg)
{
	uint64_t low = ram_low_end(mem);

	add(arg, 0, GUEST_LOW_END, E820_RAM);
	add(arg, GUEST_LOW_END, GUEST_HIGH_MEMORY - GUEST_LOW_END, E820_RESERVED);
	add(arg, GUEST_HIGH_MEMORY, low - GUEST_HIGH_MEMORY, E820_RAM);
	/* Linux uses the space that MCFG names only where this reserves it */
	add(arg, GUEST_ECAM, GUEST_ECAM_SIZE, E820_RESERVED);
	for (unsigned i = 1; i < mem->n; i++)
		add(arg, mem->region[i].gpa, mem->region[i].size, E820_RAM);
	return mem->n + 3;
}

static void e820_add(void *arg, uint64_t start, uint64_t size, uint32_t type)
{
	uint8_t *bp = arg, *e = bp + BP_E820_TABLE + 20 * bp[BP_E820_ENTRIES]++;

	store_le64(e, start);
	store_le64(e + 8, size);
	store_le32(e + 16, type);
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

static int add_cmdline(struct loaded *k, const struct guest_memory *mem, const char *cmdline,
		       struct vdisk_error *err)
{
	size_t len = strlen(cmdline), max = MIN(k->cmdline_max, GUEST_CMDLINE_MAX - 1);

	if (len > max)
		return vd_fail(err, E2BIG, "command line of %zu bytes: the kernel takes %zu", len,
			       max);
	memcpy(low_memory(mem, GUEST_CMDLINE, len + 1), cmdline, len + 1);
	return 0;
}

/* At the top of low memory, out of the kernel's way. */
static int add_initrd(struct loaded *k, const struct guest_memory *mem, int fd,
		      struct vdisk_error *err)
{
	uint64_t end = MIN(ram_low_end(mem), (uint64_t)k->initrd_end_max), start, size;
	int r = file_size(fd, "initrd", INITRD_MAX, &size, err);

	if (r < 0 || !size)
		return r;
	if (size > end || (start = vd_align_down(end - size, 4096)) < k->end)
		return vd_fail(err, ENOMEM,
			       "initrd of %" PRIu64 " MiB: the guest needs more memory (-m)",
			       (size >> 20) + 1);
	k->initrd = start;
	k->initrd_size = size;
	return load_file(mem, "initrd", fd, 0, size, start, err);
}

static int fill_boot_params(const struct loaded *k, const struct guest_memory *mem,
			    struct vdisk_error *err)
{
	uint8_t *bp = low_memory(mem, GUEST_BOOT_PARAMS, 4096);

	/* all zero, but for the header: fields that we do not know stay unset */
	memcpy(bp + HDR_START, k->head + HDR_START, sizeof(k->head) - HDR_START);
	bp[HDR_TYPE_OF_LOADER] = 0xff;
	store_le32(bp + HDR_CMDLINE_PTR, GUEST_CMDLINE);
	store_le32(bp + HDR_RAMDISK_IMAGE, (uint32_t)k->initrd);
	store_le32(bp + HDR_RAMDISK_SIZE, (uint32_t)k->initrd_size);
	memory_map(mem, e820_add, bp);
	store_le64(bp + BP_ACPI_RSDP, GUEST_ACPI);
	return add_rng_seed(bp, mem, err);
}

static void pvh_map_add(void *arg, uint64_t start, uint64_t size, uint32_t type)
{
	uint8_t **e = arg;

	store_le64(*e, start);
	store_le64(*e + 8, size);
	store_le32(*e + 16, type);
	*e += 24;
}

static void fill_start_info(const struct loaded *k, const struct guest_memory *mem)
{
	uint8_t *info = low_memory(mem, GUEST_START_INFO, 4096), *map = info + PVH_MEMMAP_AT;

	store_le32(info, PVH_MAGIC);
	store_le32(info + PVH_VERSION, 1);
	store_le64(info + PVH_CMDLINE, GUEST_CMDLINE);
	store_le64(info + PVH_RSDP, GUEST_ACPI);
	store_le64(info + PVH_MEMMAP, GUEST_START_INFO + PVH_MEMMAP_AT);
	store_le32(info + PVH_MEMMAP_ENTRIES, memory_map(mem, pvh_map_add, &map));
	if (!k->initrd_size)
		return;
	store_le32(info + PVH_MODULES, 1);
	store_le64(info + PVH_MODLIST, GUEST_START_INFO + PVH_MODLIST_AT);
	store_le64(info + PVH_MODLIST_AT, k->initrd);
	store_le64(info + PVH_MODLIST_AT + 8, k->initrd_size);
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

/* ---- kernels ---- */

static int load_bzimage(struct loaded *k, const struct guest_memory *mem, int fd, size_t len,
			uint64_t size, struct boot_entry *entry, struct vdisk_error *err)
{
	struct bzimage b;
	int r = bzimage_parse(&b, k->head, len, size, err);

	if (!r && !vd_in_range(b.preferred, b.init_size, ram_low_end(mem)))
		r = vd_fail(err, ENOMEM, "kernel: needs %" PRIu64 " MiB of guest memory (-m)",
			    ((b.preferred + b.init_size) >> 20) + 1);
	if (!r)
		r = load_file(mem, "kernel", fd, b.code_offset, b.code_size, b.preferred, err);
	if (r < 0)
		return r;
	memset(k->head + b.header_end, 0, sizeof(k->head) - b.header_end);
	k->end = b.preferred + b.init_size;
	k->initrd_end_max = b.initrd_end_max;
	k->cmdline_max = b.cmdline_max;
	entry->rip = b.preferred + BZIMAGE_ENTRY_64;
	return 0;
}

/* The PVH entry that a note names, if any does; it must lie in what is loaded. */
static int find_pvh(const struct elf_kernel *e, int fd, struct boot_entry *entry,
		    struct vdisk_error *err)
{
	AUTO_FREE uint8_t *notes = malloc(ELF_NOTES_MAX);
	uint32_t at;

	if (!notes)
		return vd_fail(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < e->n_notes; i++) {
		size_t want = (size_t)MIN(e->note[i].file_size, (uint64_t)ELF_NOTES_MAX);
		ssize_t n = pread(fd, notes, want, (off_t)e->note[i].offset);

		if (n < 0)
			return vd_fail(err, errno, "kernel: %m");
		if (!elf_pvh_entry(&at, notes, (size_t)n))
			continue;
		for (unsigned p = 0; p < e->n_parts; p++)
			if (at >= e->part[p].gpa && at - e->part[p].gpa < e->part[p].size) {
				entry->pvh = true;
				entry->rip = at;
				return 0;
			}
		return vd_fail(err, ENOEXEC, "kernel: its PVH entry point %#" PRIx32
			       " is not in what it loads", at);
	}
	return 0;
}

/* What a vmlinux has no header to say. */
static void made_up_header(uint8_t *head)
{
	memset(head, 0, BZIMAGE_HEAD_BYTES);
	store_le16(head + HDR_BOOT_FLAG, 0xaa55);
	memcpy(head + HDR_MAGIC, "HdrS", 4);
	store_le32(head + HDR_ALIGNMENT, VMLINUX_ALIGNMENT);
}

static int load_elf(struct loaded *k, const struct guest_memory *mem, int fd, uint64_t size,
		    struct boot_entry *entry, struct vdisk_error *err)
{
	AUTO_FREE uint8_t *head = malloc(ELF_HEAD_BYTES);
	struct elf_kernel e;
	ssize_t n;
	int r;

	if (!head)
		return vd_fail(err, ENOMEM, "out of memory");
	n = pread(fd, head, ELF_HEAD_BYTES, 0);
	if (n < 0)
		return vd_fail(err, errno, "kernel: %m");
	r = elf_parse(&e, head, (size_t)n, size, err);
	if (!r && e.end > ram_low_end(mem))
		r = vd_fail(err, ENOMEM, "kernel: needs %" PRIu64 " MiB of guest memory (-m)",
			    (e.end >> 20) + 1);
	for (unsigned i = 0; !r && i < e.n_parts; i++)
		r = load_file(mem, "kernel", fd, e.part[i].offset, e.part[i].file_size,
			      e.part[i].gpa, err);
	if (r < 0)
		return r;
	k->end = e.end;
	k->initrd_end_max = 0x80000000;
	k->cmdline_max = 2047;
	entry->rip = e.entry;
	made_up_header(k->head);
	return find_pvh(&e, fd, entry, err);
}

static int load_kernel(struct loaded *k, const struct guest_memory *mem, int fd,
		       struct boot_entry *entry, struct vdisk_error *err)
{
	uint64_t size;
	ssize_t n;
	int r = file_size(fd, "kernel", KERNEL_MAX, &size, err);

	if (r < 0)
		return r;
	n = pread(fd, k->head, sizeof(k->head), 0);
	if (n < 0)
		return vd_fail(err, errno, "kernel: %m");
	if (n > 4 && !memcmp(k->head, "\x7f" "ELF", 4))
		return load_elf(k, mem, fd, size, entry, err);
	return load_bzimage(k, mem, fd, (size_t)n, size, entry, err);
}

static void fill_low_memory(const struct guest_memory *mem)
{
	fill_page_tables(mem);
	fill_gdt(mem);
	fill_reset_stub(mem);
}

int boot_load(const struct guest_memory *mem, const struct boot_source *src,
	      struct boot_entry *entry, struct vdisk_error *err)
{
	struct boot_entry e = { .cr3 = GUEST_PAGE_TABLES, .rsp = GUEST_BOOT_PARAMS };
	struct loaded k = { 0 };
	int r = load_kernel(&k, mem, src->kernel_fd, &e, err);

	if (!r)
		r = add_cmdline(&k, mem, src->cmdline, err);
	if (!r && src->initrd_fd >= 0)
		r = add_initrd(&k, mem, src->initrd_fd, err);
	if (r < 0)
		return r;
	if (!acpi_build(low_memory(mem, GUEST_ACPI, GUEST_ACPI_MAX), GUEST_ACPI_MAX, GUEST_ACPI,
			src->vcpus))
		return vd_fail(err, E2BIG, "no room for the ACPI tables");
	fill_low_memory(mem);
	if (e.pvh) {
		fill_start_info(&k, mem);
		e.rbx = GUEST_START_INFO;
	} else {
		r = fill_boot_params(&k, mem, err);
		e.rsi = GUEST_BOOT_PARAMS;
	}
	if (!r)
		*entry = e;
	return r;
}

int kernel_unpack_prepare(int fd, bool fast, struct vdisk_error *err)
{
	uint8_t head[8];
	ssize_t n = pread(fd, head, sizeof(head), 0);

	return fast || (n > 0 && unpack_knows(head, (size_t)n)) ? unpack_prepare(err) : 0;
}

int kernel_unpack(int *fd, bool fast, struct vdisk_error *err)
{
	uint8_t head[BZIMAGE_HEAD_BYTES] = { 0 };
	struct bzimage b;
	uint64_t off = 0, size;
	int r = file_size(*fd, "kernel", KERNEL_MAX, &size, err), plain;
	ssize_t n;

	if (r < 0)
		return r;
	n = pread(*fd, head, sizeof(head), 0);
	if (n < 0)
		return vd_fail(err, errno, "kernel: %m");
	if (!unpack_knows(head, (size_t)n)) {
		if (!fast || bzimage_parse(&b, head, (size_t)n, size, NULL) < 0)
			return 0;
		if (pread(*fd, head, 8, (off_t)b.payload_offset) != 8 || !unpack_knows(head, 8))
			return vd_fail(err, ENOTSUP, "kernel: its payload is compressed in a way "
				       "that is not known here (leave out --fast-kernel)");
		off = b.payload_offset;
		/* the last four bytes are the size when decompressed */
		size = b.payload_size - 4;
	}
	r = unpack(&plain, *fd, off, size, KERNEL_MAX, err);
	if (r < 0)
		return r;
	close(*fd);
	*fd = plain;
	return 0;
}
