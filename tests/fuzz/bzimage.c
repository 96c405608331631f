/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any file is a kernel that fits into memory where it says, or an error. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm-lite/kvm/load.h"
#include "vmm-lite/kvm/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ram ram;
	static int fd = -1;
	struct boot_source src = { .initrd_fd = -1, .cmdline = "root=/dev/vda1", .vcpus = 1 };
	struct boot_entry entry;

	if (fd < 0) {
		fd = memfd_create("kernel", MFD_CLOEXEC);
		assert(fd >= 0 && ram_new(&ram, RAM_MIN, 0, NULL) == 0);
	}
	assert(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	src.kernel_fd = fd;
	if (size > 8)
		src.initrd_fd = fd;	/* it will do as one */
	if (boot_load(&ram.map, &src, &entry, NULL) == 0)
		assert(guest_at(&ram.map, entry.rip, 1) &&
		       guest_at(&ram.map, entry.pvh ? entry.rbx : entry.rsi, 4096));
	return 0;
}
