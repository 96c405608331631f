/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unpack.h - a compressed file as it is inside */
#ifndef VMM_KVM_UNPACK_H
#define VMM_KVM_UNPACK_H

#include "vdisk.h"

/* Do these first bytes say gzip, bzip2, xz, lzma, lz4 or zstd? */
bool unpack_knows(const uint8_t *head, size_t len);

/* Load what unpack() needs: while files can still be opened. */
int unpack_prepare(struct vdisk_error *err);

/*
 * Bytes [@off, @off + @len) of @fd, decompressed into memory: a descriptor (the
 * caller's).  -EFBIG past @max bytes, -EINVAL where they are damaged.
 */
int unpack(int *out_fd, int fd, uint64_t off, uint64_t len, uint64_t max,
	   struct vdisk_error *err);

#endif
