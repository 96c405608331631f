/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memory.c - the guest's RAM, below and above the gap
 *
 * Private memory, which the kernel backs with transparent huge pages nearly
 * everywhere: a guest then faults once for 2 MiB, and its page tables and ours are
 * short.  What another process maps too (isolated disks), and what comes from the
 * pool of huge pages, is one sealed memfd; a memfd has huge pages only if the host's
 * shmem_enabled says so, which distributions leave at "never".
 */
#include "vmm-lite/kvm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/kvm/layout.h"

#define HUGE_2MB	(21u << 26)	/* MFD_HUGE_2MB, which this libc does not have */
#define HUGE_PAGE	(UINT64_C(2) << 20)

/* Private memory that begins where a huge page may. */
static void *map_private(uint64_t size)
{
	uint8_t *p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t skip;

	if (p == MAP_FAILED)
		return p;
	skip = -(uintptr_t)p & (HUGE_PAGE - 1);
	if (skip)
		munmap(p, skip);
	munmap(p + skip + size, HUGE_PAGE - skip);
	/* as a memfd has one (/proc/PID/smaps) */
	(void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p + skip, size, "guest-ram");
	return p + skip;
}

static int map_region(struct ram *ram, uint64_t gpa, uint64_t size, uint64_t off,
		      struct vdisk_error *err)
{
	void *p;

	if (ram->fd >= 0)
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd,
			 (off_t)off);
	else
		p = map_private(size);
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

static int make_memfd(struct ram *ram, struct vdisk_error *err)
{
	int r;

	ram->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING |
			       (ram->huge ? MFD_HUGETLB | HUGE_2MB : 0));
	if (ram->fd < 0)
		return vd_fail(err, errno, "memfd_create: %m");
	r = set_size(ram, err);
	/* nobody can cut it short under us */
	if (!r && fcntl(ram->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		r = vd_fail(err, errno, "cannot seal guest memory: %m");
	return r;
}

int ram_new(struct ram *out, uint64_t size, unsigned flags, struct vdisk_error *err)
{
	struct ram ram = { .size = size, .huge = flags & RAM_HUGE, .fd = -1 };
	uint64_t low = MIN(size, (uint64_t)GUEST_GAP);
	int r = 0;

	if (size < RAM_MIN || size > RAM_MAX || size % (1 << 20))
		return vd_fail(err, EINVAL, "guest memory must be " words_memory_help);
	if (ram.huge && size % HUGE_PAGE)
		return vd_fail(err, EINVAL, "guest memory in huge pages is in whole 2 MiB");
	if (flags)
		r = make_memfd(&ram, err);
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
	for (unsigned i = 0; ram->fd < 0 && i < ram->map.n; i++)
		if (madvise(ram->map.region[i].host, ram->map.region[i].size, MADV_DONTNEED) < 0)
			return vd_fail(err, errno, "cannot clear guest memory: %m");
	if (ram->fd >= 0 && fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				      (off_t)ram->size) < 0)
		return vd_fail(err, errno, "cannot clear guest memory: %m");
	return ram->huge ? set_size(ram, err) : 0;
}

static void drop(const struct ram *ram, uint8_t *host, uint64_t off, uint64_t len)
{
	if (ram->fd < 0)
		(void)madvise(host, len, MADV_DONTNEED);
	else
		(void)fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
				(off_t)len);
}

void ram_give_back(struct ram *ram, void *host, uint64_t len)
{
	uint64_t off = 0;

	/* huge pages stay ours: the pool could be empty when they are wanted again */
	if (ram->huge)
		return;
	for (unsigned i = 0; i < ram->map.n; i++) {
		const struct guest_region *g = &ram->map.region[i];
		uint64_t at = (uint64_t)((uint8_t *)host - g->host);

		if ((uint8_t *)host >= g->host && vd_in_range(at, len, g->size)) {
			uint64_t start = vd_align_up(at, 4096), end = vd_align_down(at + len, 4096);

			if (start < end)
				drop(ram, g->host + start, off + start, end - start);
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
