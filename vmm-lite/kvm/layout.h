/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layout.h - the guest's physical addresses
 *
 *	0x00000500  GDT for the 64-bit entry
 *	0x00006000  hvm_start_info (PVH), its module list and memory map behind it
 *	0x00007000  boot_params ("zero page"), setup_data behind it
 *	0x00009000  page tables: 4 GiB, identity
 *	0x00020000  command line
 *	0x0009fc00  reserved up to 1 MiB: ACPI tables at 0xe0000, reset stub at 0xffff0
 *	0x00100000  RAM up to the gap: kernel at its preferred place, initrd at the top
 *	0xc0000000  the gap: PCI window, PCI configuration (ECAM), IO-APIC, local APICs,
 *	            KVM's own pages
 *	0x100000000 the rest of RAM
 */
#ifndef VMM_KVM_LAYOUT_H
#define VMM_KVM_LAYOUT_H

#include "vmm-lite/words.h"

#define GUEST_GDT		0x500u
#define GUEST_START_INFO	0x6000u
#define GUEST_BOOT_PARAMS	0x7000u
#define GUEST_SETUP_DATA	0x8000u
#define GUEST_PAGE_TABLES	0x9000u	/* PML4, PDPT, 4 page directories */
#define GUEST_CMDLINE		0x20000u
#define GUEST_CMDLINE_MAX	0x10000u
#define GUEST_LOW_END		0x9fc00u
#define GUEST_ACPI		0xe0000u
#define GUEST_ACPI_MAX		0x10000u
#define GUEST_RESET_STUB	0xffff0u
#define GUEST_HIGH_MEMORY	0x100000u	/* the first megabyte ends */

#define GUEST_GAP		0xc0000000u
#define GUEST_PCI_WINDOW	0xc0000000u
#define GUEST_PCI_WINDOW_SIZE	0x3eb00000u	/* up to the configuration space */
#define GUEST_ECAM		0xfeb00000u	/* PCI configuration, bus 0: 4 KiB a function */
#define GUEST_ECAM_SIZE		0x100000u	/* up to the IO-APIC */
#define GUEST_IOAPIC		0xfec00000u
#define GUEST_LAPIC		0xfee00000u
#define GUEST_IDENTITY_MAP	0xfffbc000u	/* KVM's: one page */
#define GUEST_TSS		0xfffbd000u	/* KVM's: three pages */
#define GUEST_ABOVE_GAP		0x100000000ull

#define PORT_SERIAL		0x3f8u
#define PORT_PVPANIC		0x505u
#define PORT_POWER		0x600u	/* reset register and sleep control */
#define PORT_SLEEP_STATUS	0x601u
#define PORT_EVENTS		0x620u	/* see events.h; 16 bytes */
#define PORT_I8042		0x64u
#define PORT_PCI_ADDRESS	0xcf8u
#define PORT_PCI_DATA		0xcfcu

#define GSI_SERIAL		4u
#define GSI_EVENTS		5u
#define GSI_MSI_FIRST		24u	/* behind the IO-APIC's pins */

#define POWER_RESET		0x01u	/* written to PORT_POWER */
#define POWER_SLP_EN		0x20u
#define POWER_SLP_TYP(v)	((v) << 2)
#define POWER_S5		5u

#define VCPUS_MAX		CPUS_MAX

#endif
