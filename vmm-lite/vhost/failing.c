/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* failing.c - see failing.h */
#include "vmm-lite/vhost/failing.h"

#include <errno.h>

#include "core/driver.h"

#define BYTES	(UINT64_C(1) << 60)

static int failing_preadv(struct vdisk *disk, const struct iovec *iov, int n, uint64_t len, uint64_t off)
{
	(void)disk;
	(void)iov;
	(void)n;
	(void)len;
	(void)off;
	return -EIO;
}

static int failing_pwritev(struct vdisk *disk, const struct iovec *iov, int n, uint64_t len,
			   uint64_t off, bool fua)
{
	(void)fua;
	return failing_preadv(disk, iov, n, len, off);
}

static int failing_sync(struct vdisk *disk)
{
	(void)disk;
	return -EIO;
}

static int failing_discard(struct vdisk *disk, uint64_t off, uint64_t len)
{
	return failing_preadv(disk, NULL, 0, len, off);
}

static int failing_zero(struct vdisk *disk, uint64_t off, uint64_t len, bool unmap)
{
	(void)unmap;
	return failing_preadv(disk, NULL, 0, len, off);
}

static const struct vd_driver failing = {
	.name	 = "failing",
	.preadv	 = failing_preadv,
	.pwritev = failing_pwritev,
	.sync	 = failing_sync,
	.zero	 = failing_zero,
	.discard = failing_discard,
};

int vhost_open_failing(struct vdisk **out, bool read_only, struct vdisk_error *err)
{
	struct vdisk *d = vd_disk_new(&failing, "failing", BYTES);

	if (!d)
		return vd_fail(err, ENOMEM, "out of memory");
	if (!read_only)
		d->flags |= VDISK_OPEN_WRITE;
	*out = d;
	return 0;
}
