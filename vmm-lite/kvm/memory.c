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

#define HUGE_2MB	(21u << 26)	/* MFD_HUGE_2MB, which this libc does not have */

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

/* Huge pages are taken from the pool now, or a page fault later would be SIGBUS. */
static int set_size(const struct ram *ram, struct vdisk_error *err)
{
	if (ftruncate(ram->fd, (off_t)ram->size) < 0)
		return vd_fail(err, errno, "cannot set aside %" PRIu64 " MiB: %m", ram->size >> 20);
	if (ram->huge && fallocate(ram->fd, 0, 0, (off_t)ram->size) < 0)
		return vd_fail(err, ENOMEM, "no %" PRIu64 " free huge pages of 2 MiB here "
			       "(vm.nr_hugepages)", ram->size >> 21);
	return 0;
}

int ram_new(struct ram *out, uint64_t size, bool huge, struct vdisk_error *err)
{
	struct ram ram = { .size = size, .huge = huge };
	uint64_t low = MIN(size, (uint64_t)GUEST_GAP);
	int r;

	if (size < RAM_MIN || size > RAM_MAX || size % (1 << 20))
		return vd_fail(err, EINVAL, "guest memory must be %llu MiB to %llu GiB, in whole MiB",
			       RAM_MIN >> 20, RAM_MAX >> 30);
	if (huge && size % (2 << 20))
		return vd_fail(err, EINVAL, "guest memory in huge pages is in whole 2 MiB");
	ram.fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING |
			      (huge ? MFD_HUGETLB | HUGE_2MB : 0));
	if (ram.fd < 0)
		return vd_fail(err, errno, "memfd_create: %m");
	r = set_size(&ram, err);
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
	return ram->huge ? set_size(ram, err) : 0;
}

void ram_give_back(struct ram *ram, void *host, uint64_t len)
{
	uint64_t page = ram->huge ? UINT64_C(2) << 20 : 4096, off = 0;

	for (unsigned i = 0; i < ram->map.n; i++) {
		const struct guest_region *g = &ram->map.region[i];
		uint64_t at = (uint64_t)((uint8_t *)host - g->host);

		if ((uint8_t *)host >= g->host && vd_in_range(at, len, g->size)) {
			uint64_t start = vd_align_up(off + at, page);
			uint64_t end = vd_align_down(off + at + len, page);

			/* huge pages stay ours: the pool could be empty when they are wanted again */
			if (start < end && !ram->huge)
				(void)fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						(off_t)start, (off_t)(end - start));
			return;
		}
		off += g->size;
	}
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
