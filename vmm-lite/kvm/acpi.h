/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* acpi.h - the tables that tell a kernel what machine this is */
#ifndef VMM_KVM_ACPI_H
#define VMM_KVM_ACPI_H

#include <stddef.h>
#include <stdint.h>

/*
 * Write RSDP, XSDT, FADT, MADT and DSDT for @vcpus processors into @buf, which
 * is at guest address @gpa; the RSDP is at its start.  Returns the bytes used,
 * 0 if @size is too small.
 */
size_t acpi_build(uint8_t *buf, size_t size, uint64_t gpa, unsigned vcpus);

#endif
