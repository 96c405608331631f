/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext_crc.c - the checksum of ext4, by the processor's own instruction
 *
 * libext2fs computes a CRC-32C over each inode and directory block that it reads or
 * writes, by tables, which takes much of the time of ls -R and of serving a mount.
 * It calls the function by its public name, and a program's comes
 * before a library's, as with malloc(); so here is the same function again, by
 * ISA-L, which has it by tables too where the processor lacks the instruction.
 */
#include <stdint.h>

#include <ext2fs/ext2fs.h>
#include <isa-l/crc.h>

__attribute__((visibility("default")))
__u32 ext2fs_crc32c_le(__u32 crc, unsigned char const *p, size_t len)
{
	/* of no more than a block */
	return crc32_iscsi((unsigned char *)(uintptr_t)p, (int)len, crc);
}
