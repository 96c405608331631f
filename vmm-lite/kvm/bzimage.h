/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bzimage.h - the set-up header of a Linux kernel as distributions ship it */
#ifndef VMM_KVM_BZIMAGE_H
#define VMM_KVM_BZIMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "vdisk.h"

#define BZIMAGE_HEAD_BYTES	0x290u	/* all of the set-up header that we know */
#define BZIMAGE_MAX		(256ull << 20)
#define BZIMAGE_ENTRY_64	0x200u	/* behind the start of the code */

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
	HDR_PAYLOAD_OFFSET = 0x248,
	HDR_PAYLOAD_LENGTH = 0x24c,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
};

struct bzimage {		/* checked */
	uint64_t code_offset;	/* of the protected-mode kernel in the file */
	uint64_t code_size;
	uint64_t payload_offset; /* of the compressed kernel in the file */
	uint64_t payload_size;
	uint64_t preferred;	/* load address */
	uint32_t alignment;
	uint32_t init_size;	/* memory it needs from its load address on */
	uint32_t initrd_end_max; /* the initrd ends at or below */
	uint32_t cmdline_max;	/* bytes, without the NUL */
	uint32_t header_end;	/* of the set-up header, in the file */
};

/* Decode the first @len bytes of a file of @file_size bytes. */
int bzimage_parse(struct bzimage *out, const uint8_t *head, size_t len, uint64_t file_size,
		  struct vdisk_error *err);

#endif
