/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cpu.h - what a virtual processor is, and its state at the 64-bit entry */
#ifndef VMM_KVM_CPU_H
#define VMM_KVM_CPU_H

#include <linux/kvm.h>

#include "vdisk.h"
#include "vmm-lite/kvm/load.h"

/* What KVM can offer; free() it. */
int cpu_supported(struct kvm_cpuid2 **out, int kvm_fd, struct vdisk_error *err);

/*
 * Make CPUID, local APIC, FPU and MSRs of processor @id of @n.  @entry: it is
 * the first one, and starts there; NULL: it waits for INIT and SIPI.
 */
int cpu_setup(int vcpu_fd, int kvm_fd, const struct kvm_cpuid2 *supported, unsigned id, unsigned n,
	      const struct boot_entry *entry, struct vdisk_error *err);

#endif
