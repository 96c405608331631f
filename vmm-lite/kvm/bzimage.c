/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bzimage.c - the set-up header of a Linux kernel as distributions ship it
 *
 * References are to the kernel's Documentation/x86/boot.rst.  Everything in the
 * header comes from a guest's disk and is checked here, in a pure function.
 */
#include "vmm-lite/kvm/bzimage.h"

#include <errno.h>
#include <inttypes.h>

#include "core/driver.h"
#include "vmm-lite/kvm/layout.h"

#define LOADED_HIGH		0x01
#define XLF_KERNEL_64		0x01

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
		return vd_fail(err, ENOEXEC, "kernel: neither a Linux bzImage nor an ELF file");
	version = load_le16(head + HDR_VERSION);
	if (version < 0x20c)
		return vd_fail(err, ENOTSUP, "kernel: boot protocol %u.%02u is older than 2.12",
			       version >> 8, version & 0xff);
	if (!(head[HDR_LOADFLAGS] & LOADED_HIGH) ||
	    !(load_le16(head + HDR_XLOADFLAGS) & XLF_KERNEL_64))
		return vd_fail(err, ENOTSUP, "kernel: has no 64-bit entry point");

	sects = head[HDR_SETUP_SECTS] ? head[HDR_SETUP_SECTS] : 4;
	k.code_offset = (sects + 1) * UINT64_C(512);
	if (k.code_offset >= file_size || file_size - k.code_offset <= BZIMAGE_ENTRY_64)
		return vd_fail(err, ENOEXEC, "kernel: the file ends before its code at %" PRIu64,
			       k.code_offset);
	k.code_size = file_size - k.code_offset;
	k.header_end = HDR_MAGIC + head[HDR_JUMP_LENGTH];
	if (k.header_end < HDR_INIT_SIZE + 4)
		return vd_fail(err, ENOEXEC, "kernel: its header ends at %#" PRIx32, k.header_end);
	k.header_end = MIN(k.header_end, BZIMAGE_HEAD_BYTES);

	k.preferred = load_le64(head + HDR_PREF_ADDRESS);
	k.init_size = load_le32(head + HDR_INIT_SIZE);
	k.payload_offset = k.code_offset + load_le32(head + HDR_PAYLOAD_OFFSET);
	k.payload_size = load_le32(head + HDR_PAYLOAD_LENGTH);
	if (!vd_in_range(k.payload_offset, k.payload_size, file_size))
		return vd_fail(err, ENOEXEC, "kernel: its payload ends past the file");
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
