/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* memory.c - the guest's RAM: one sealed memfd, below and above the gap */
#include "vmm-lite/kvm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/kvm/layout.h"

static int map_region(struct ram *ram, uint64_t gpa, uint64_t size, uint64_t off,
		      struct vdisk_error *err)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd,
		       (off_t)off);

	if (p == MAP_FAILED)
		return vd_fail(err, errno, "cannot map %" PRIu64 " MiB of guest memory: %m",
			       size >> 20);
	/* neither is a promise: core dumps get small, page tables get short */
	(void)madvise(p, size, MADV_DONTDUMP);
	(void)madvise(p, size, MADV_HUGEPAGE);
	ram->map.region[ram->map.n++] = (struct guest_region) {
		.gpa = gpa, .size = size, .host = p,
	};
	return 0;
}

int ram_new(struct ram *out, uint64_t size, struct vdisk_error *err)
{
	struct ram ram = { .size = size };
	uint64_t low = MIN(size, (uint64_t)GUEST_GAP);
	int r;

	if (size < RAM_MIN || size > RAM_MAX || size % (1 << 20))
		return vd_fail(err, EINVAL, "guest memory must be %llu MiB to %llu GiB, in whole MiB",
			       RAM_MIN >> 20, RAM_MAX >> 30);
	ram.fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ram.fd < 0)
		return vd_fail(err, errno, "memfd_create: %m");
	r = ftruncate(ram.fd, (off_t)size) < 0 ?
	    vd_fail(err, errno, "cannot set aside %" PRIu64 " MiB: %m", size >> 20) : 0;
	/* nobody can cut it short under us */
	if (!r && fcntl(ram.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		r = vd_fail(err, errno, "cannot seal guest memory: %m");
	if (!r)
		r = map_region(&ram, 0, low, 0, err);
	if (!r && size > low)
		r = map_region(&ram, GUEST_ABOVE_GAP, size - low, low, err);
	if (r < 0) {
		ram_free(&ram);
		return r;
	}
	*out = ram;
	return 0;
}

int ram_clear(struct ram *ram, struct vdisk_error *err)
{
	if (fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      (off_t)ram->size) < 0)
		return vd_fail(err, errno, "cannot clear guest memory: %m");
	return 0;
}

void ram_free(struct ram *ram)
{
	for (unsigned i = 0; i < ram->map.n; i++)
		munmap(ram->map.region[i].host, ram->map.region[i].size);
	if (ram->fd >= 0)
		close(ram->fd);
	*ram = (struct ram) { .fd = -1 };
}

uint64_t ram_low_end(const struct guest_memory *map)
{
	return map->region[0].size;
}
