/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cpu.c - what a virtual processor is, and its state at the 64-bit entry
 *
 * The guest sees the host's processor as KVM can offer it, with as many cores
 * in one package as it has vCPUs, one thread each.  CPUID is set before any
 * MSR, as Linux 6.13 judges MSRs by it.
 */
#include "vmm-lite/kvm/cpu.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "core/driver.h"
#include "vmm-lite/kvm/layout.h"

#define CPUID_ENTRIES	256u

int cpu_supported(struct kvm_cpuid2 **out, int kvm_fd, struct vdisk_error *err)
{
	AUTO_FREE struct kvm_cpuid2 *c = NULL;

	c = calloc(1, sizeof(*c) + CPUID_ENTRIES * sizeof(c->entries[0]));
	if (!c)
		return vd_fail(err, ENOMEM, "out of memory");
	c->nent = CPUID_ENTRIES;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0)
		return vd_fail(err, errno, "KVM_GET_SUPPORTED_CPUID: %m");
	*out = STEAL(c);
	return 0;
}

/* Bits of APIC id that number @n cores. */
static uint32_t core_bits(unsigned n)
{
	return n > 1 ? 32 - (uint32_t)__builtin_clz(n - 1) : 0;
}

static void leaf_features(struct kvm_cpuid_entry2 *e, unsigned id, unsigned n, bool deadline)
{
	enum { HTT = 1 << 28, HYPERVISOR = 1u << 31, DEADLINE = 1 << 24 };

	e->ebx = (e->ebx & 0x0000ffff) | n << 16 | id << 24;
	if (n > 1)
		e->edx |= HTT;
	else
		e->edx &= ~(uint32_t)HTT;
	/* KVM leaves these two to us */
	e->ecx |= HYPERVISOR;
	if (deadline)
		e->ecx |= DEADLINE;
	else
		e->ecx &= ~(uint32_t)DEADLINE;
}

/* Intel's extended topology: a level of threads, one each, and one of cores. */
static void leaf_topology(struct kvm_cpuid_entry2 *e, unsigned id, unsigned n)
{
	e->eax = e->index == 1 ? core_bits(n) : 0;
	e->ebx = e->index == 0 ? 1 : e->index == 1 ? n : 0;
	e->ecx = e->index | (e->index == 0 ? 1u << 8 : e->index == 1 ? 2u << 8 : 0);
	e->edx = id;
}

static void adjust_leaf(struct kvm_cpuid_entry2 *e, unsigned id, unsigned n, bool deadline)
{
	switch (e->function) {
	case 1:
		leaf_features(e, id, n, deadline);
		break;
	case 4:			/* Intel's caches: L3 is shared by all cores */
		if (e->eax & 31) {
			unsigned sharing = (e->eax >> 5 & 7) >= 3 ? n - 1 : 0;

			e->eax = (e->eax & 0x3fff) | sharing << 14 | (n - 1) << 26;
		}
		break;
	case 6:			/* no energy/performance bias to set */
		e->ecx &= ~(UINT32_C(1) << 3);
		break;
	case 0xa:		/* no performance counters */
		e->eax = e->ebx = e->ecx = e->edx = 0;
		break;
	case 0xb:
	case 0x1f:
		leaf_topology(e, id, n);
		break;
	case 0x80000008:	/* AMD: cores in the package, bits of APIC id */
		e->ecx = (e->ecx & ~UINT32_C(0xf0ff)) | core_bits(n) << 12 | (n - 1);
		break;
	case 0x8000001e:
		e->eax = id;
		e->ebx = id & 0xff;	/* a core of one thread */
		e->ecx = 0;
		break;
	default:
		break;
	}
}

static int set_cpuid(int vcpu_fd, int kvm_fd, const struct kvm_cpuid2 *supported, unsigned id,
		     unsigned n, struct vdisk_error *err)
{
	size_t size = sizeof(*supported) + supported->nent * sizeof(supported->entries[0]);
	bool deadline = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	AUTO_FREE struct kvm_cpuid2 *c = malloc(size);

	if (!c)
		return vd_fail(err, ENOMEM, "out of memory");
	memcpy(c, supported, size);
	for (unsigned i = 0; i < c->nent; i++)
		adjust_leaf(&c->entries[i], id, n, deadline);
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, c) < 0)
		return vd_fail(err, errno, "vCPU %u: KVM_SET_CPUID2: %m", id);
	return 0;
}

/* LINT0 takes the (absent) PIC's interrupts, LINT1 is NMI: as firmware leaves it. */
static int set_lapic(int vcpu_fd, unsigned id, struct vdisk_error *err)
{
	enum { LVT_LINT0 = 0x350, LVT_LINT1 = 0x360, MODE_NMI = 0x400, MODE_EXTINT = 0x700 };
	struct kvm_lapic_state s;

	if (ioctl(vcpu_fd, KVM_GET_LAPIC, &s) < 0)
		return vd_fail(err, errno, "vCPU %u: KVM_GET_LAPIC: %m", id);
	store_le32(s.regs + LVT_LINT0, MODE_EXTINT);
	store_le32(s.regs + LVT_LINT1, MODE_NMI);
	if (ioctl(vcpu_fd, KVM_SET_LAPIC, &s) < 0)
		return vd_fail(err, errno, "vCPU %u: KVM_SET_LAPIC: %m", id);
	return 0;
}

static void set_msr(int vcpu_fd, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	/* one that this processor does not have is not missed */
	(void)ioctl(vcpu_fd, KVM_SET_MSRS, &m);
}

static void set_msrs(int vcpu_fd)
{
	enum { MISC_ENABLE = 0x1a0, FAST_STRING = 1, MTRR_DEF_TYPE = 0x2ff,
	       MTRR_ENABLED_WRITE_BACK = 0x806 };

	set_msr(vcpu_fd, MISC_ENABLE, FAST_STRING);
	set_msr(vcpu_fd, MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK);
}

static int set_fpu(int vcpu_fd, unsigned id, struct vdisk_error *err)
{
	struct kvm_fpu f = { .fcw = 0x37f, .mxcsr = 0x1f80 };

	if (ioctl(vcpu_fd, KVM_SET_FPU, &f) < 0)
		return vd_fail(err, errno, "vCPU %u: KVM_SET_FPU: %m", id);
	return 0;
}

/* Flat segments; interrupts off.  @long_mode: else 32-bit protected. */
static void set_segments(struct kvm_sregs *s, bool long_mode)
{
	enum { TYPE_CODE = 11, TYPE_DATA = 3, TYPE_BUSY_TSS = 11 };
	struct kvm_segment code = {
		.limit = UINT32_MAX, .selector = 0x10, .type = TYPE_CODE, .present = 1,
		.s = 1, .l = long_mode, .db = !long_mode, .g = 1,
	}, data = {
		.limit = UINT32_MAX, .selector = 0x18, .type = TYPE_DATA, .present = 1,
		.s = 1, .db = 1, .g = 1,
	};

	s->cs = code;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->tr = (struct kvm_segment) { .limit = 0x67, .type = TYPE_BUSY_TSS, .present = 1 };
	s->gdt.base = GUEST_GDT;
	s->gdt.limit = 31;
	s->idt.base = 0;
	s->idt.limit = 0;
}

/* boot.rst, "64-bit boot protocol", or PVH's start_info.h. */
static int set_entry(int vcpu_fd, const struct boot_entry *entry, struct vdisk_error *err)
{
	enum { CR0_PE = 1, CR0_ET = 1 << 4, CR0_PG = 1u << 31, CR4_PAE = 1 << 5,
	       EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };
	struct kvm_regs regs = {
		.rip = entry->rip, .rsi = entry->rsi, .rbx = entry->rbx, .rflags = 2,
	};
	struct kvm_sregs s;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &s) < 0)
		return vd_fail(err, errno, "KVM_GET_SREGS: %m");
	set_segments(&s, !entry->pvh);
	s.cr0 = CR0_PE | CR0_ET;
	s.cr4 = 0;
	if (!entry->pvh) {
		regs.rsp = entry->rsp;
		s.cr0 |= CR0_PG;
		s.cr3 = entry->cr3;
		s.cr4 = CR4_PAE;
		s.efer = EFER_LME | EFER_LMA;
	}
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &s) < 0)
		return vd_fail(err, errno, "KVM_SET_SREGS: %m");
	if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
		return vd_fail(err, errno, "KVM_SET_REGS: %m");
	return 0;
}

int cpu_setup(int vcpu_fd, int kvm_fd, const struct kvm_cpuid2 *supported, unsigned id, unsigned n,
	      const struct boot_entry *entry, struct vdisk_error *err)
{
	int r = set_cpuid(vcpu_fd, kvm_fd, supported, id, n, err);

	if (!r)
		r = set_lapic(vcpu_fd, id, err);
	if (!r)
		r = set_fpu(vcpu_fd, id, err);
	if (r < 0)
		return r;
	set_msrs(vcpu_fd);
	return entry ? set_entry(vcpu_fd, entry, err) : 0;
}
