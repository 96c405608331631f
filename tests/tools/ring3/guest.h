/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest.h - what the guests without an operating system share: ports, console, PCI */
#ifndef RING3_GUEST_H
#define RING3_GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

/* Where it lies; from boot_params or from hvm_start_info. */
extern u32 cmdline_at;
void main(void);

static inline void outb(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outl(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline u32 inl(u16 port)
{
	u32 v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

#define reg8(a)		(*(volatile u8 *)(a))
#define reg16(a)	(*(volatile u16 *)(a))
#define reg32(a)	(*(volatile u32 *)(a))
#define fence()		__asm__ volatile("lock addl $0, -4(%%rsp)" ::: "memory", "cc")

/* ---- the serial port, and the end ---- */

static void say(const char *s)
{
	while (*s)
		outb(0x3f8, (u8)*s++);
}

static void say_number(u64 v)
{
	char digits[21], *p = digits + 20;

	*p = 0;
	do {
		*--p = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	say(p);
}

/* The register of vmm-lite; and the exit device that QEMU is given. */
static void power(u8 v)
{
	for (;;) {
		outb(0x600, v);
		outb(0xf4, v);
	}
}

static void fail(const char *why, u64 n)
{
	say("FAILED: ");
	say(why);
	say(" ");
	say_number(n);
	say("\n");
	power(1);
}

/* ---- PCI, virtio ---- */

static u64 common, notify, device_config;
static u32 notify_step;

static u32 pci_read(u32 slot, u32 off)
{
	outl(0xcf8, 0x80000000u | slot << 11 | (off & 0xfc));
	return inl(0xcfc);
}

/* Where a capability's BAR is; only the first 4 GiB are mapped. */
static u64 bar_of(u32 slot, u32 cap)
{
	u32 at = 0x10 + 4 * (pci_read(slot, cap + 4) & 7), low = pci_read(slot, at);

	if ((low & 6) == 4 && pci_read(slot, at + 4))
		fail("a BAR above 4 GiB, slot", slot);
	return low & ~15u;
}

/* The first virtio block device behind slot @after; 0: there is none. */
static u32 disk_slot(u32 after)
{
	for (u32 slot = after + 1; slot < 32; slot++)
		if (pci_read(slot, 0) == 0x10421af4)
			return slot;
	return 0;
}

static void find_disk(u32 slot)
{
	u32 cap;

	if (!slot)
		fail("no virtio disk, slot", slot);
	outl(0xcf8, 0x80000000u | slot << 11 | 4);
	outl(0xcfc, 6);			/* decode memory, master */
	for (cap = pci_read(slot, 0x34) & 0xff; cap; cap = pci_read(slot, cap) >> 8 & 0xff) {
		u32 head = pci_read(slot, cap);
		u64 at;

		if ((head & 0xff) != 9 || head >> 24 < 1 || head >> 24 > 4)
			continue;
		at = bar_of(slot, cap) + pci_read(slot, cap + 8);
		if (head >> 24 == 1) {
			common = at;
		} else if (head >> 24 == 2) {
			notify = at;
			notify_step = pci_read(slot, cap + 16);
		} else if (head >> 24 == 4) {
			device_config = at;
		}
	}
	if (!common || !notify || !device_config)
		fail("capabilities, slot", slot);
}

static inline const char *command_line(void)
{
	return (const char *)(u64)cmdline_at;
}

#endif
