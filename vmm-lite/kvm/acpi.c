/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * acpi.c - the tables that tell a kernel what machine this is (ACPI 6.4)
 *
 * The machine is "hardware-reduced" (4.1): no PM timer, no fixed buttons, no
 * SCI; and it says that there is no VGA, no CMOS clock and no keyboard
 * controller, so that a kernel probes for none of them.  What is left:
 *
 *	RSDP -> XSDT -> FADT -> DSDT	COM1, PCI bus 0 with its slots, the panic port,
 *					the event device and its power button, \_S5
 *	             -> MADT		local APICs, one IO-APIC
 *
 * Stock kernels (CONFIG_X86_MPPARSE=n) find their processors and the IO-APIC
 * nowhere but in the MADT.
 *
 * The DSDT is assembled by a small AML writer (20.2).  Its package lengths
 * always take three bytes, so they can be filled in when a block ends.
 */
#include "vmm-lite/kvm/acpi.h"

#include <assert.h>
#include <string.h>

#include "core/compiler.h"
#include "vmm-lite/kvm/events.h"
#include "vmm-lite/kvm/layout.h"
#include "vmm-lite/kvm/pci.h"

#define HEADER_BYTES	36
#define FADT_BYTES	276
#define RSDP_BYTES	36

/* ---- a buffer that remembers that it overflowed ---- */

struct out {
	uint8_t *p;
	size_t used, size;
	bool full;
};

static void put(struct out *o, const void *data, size_t len)
{
	if (len > o->size - o->used) {
		o->full = true;
		return;
	}
	memcpy(o->p + o->used, data, len);
	o->used += len;
}

static void put8(struct out *o, unsigned v)
{
	uint8_t b = (uint8_t)v;

	put(o, &b, 1);
}

static void put16(struct out *o, unsigned v)
{
	uint8_t b[2];

	store_le16(b, (uint16_t)v);
	put(o, b, sizeof(b));
}

static void put32(struct out *o, uint32_t v)
{
	uint8_t b[4];

	store_le32(b, v);
	put(o, b, sizeof(b));
}

static void put64(struct out *o, uint64_t v)
{
	uint8_t b[8];

	store_le64(b, v);
	put(o, b, sizeof(b));
}

static void put_zero(struct out *o, size_t n)
{
	while (n--)
		put8(o, 0);
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

/* ---- tables (5.2.6) ---- */

static size_t table_begin(struct out *o, const char *signature, unsigned revision)
{
	size_t start;

	put_zero(o, -o->used & 15);
	start = o->used;
	put(o, signature, 4);
	put32(o, 0);		/* length, by table_end() */
	put8(o, revision);
	put8(o, 0);		/* checksum, by table_end() */
	put(o, "VDISK ", 6);
	put(o, "VMMLITE ", 8);
	put32(o, 1);
	put(o, "VDSK", 4);
	put32(o, 1);
	return start;
}

static void table_end(struct out *o, size_t start)
{
	uint8_t *t = o->p + start;

	if (o->full)
		return;
	store_le32(t + 4, (uint32_t)(o->used - start));
	t[9] = checksum(t, o->used - start);
}

/* ---- AML ---- */

enum {
	AML_NAME = 0x08, AML_BYTE = 0x0a, AML_WORD = 0x0b, AML_DWORD = 0x0c,
	AML_STRING = 0x0d, AML_SCOPE = 0x10, AML_BUFFER = 0x11, AML_PACKAGE = 0x12,
	AML_METHOD = 0x14, AML_DUAL_NAME = 0x2e, AML_MULTI_NAME = 0x2f,
	AML_EXT = 0x5b, AML_EXT_REGION = 0x80, AML_EXT_FIELD = 0x81, AML_EXT_DEVICE = 0x82,
	AML_ROOT = 0x5c, AML_LOCAL0 = 0x60, AML_LOCAL1 = 0x61, AML_STORE = 0x70, AML_AND = 0x7b,
	AML_NOTIFY = 0x86, AML_IF = 0xa0,
};

/* of Notify() (5.6.6) */
enum { NOTIFY_DEVICE_CHECK = 1, NOTIFY_EJECT = 3, NOTIFY_BUTTON = 0x80 };

static size_t block_begin(struct out *o)
{
	size_t at = o->used;

	put_zero(o, 3);
	return at;
}

/* The length counts its own three bytes: 4 bits, then 8, then 8 (20.2.4). */
static void block_end(struct out *o, size_t at)
{
	size_t len = o->used - at;

	if (o->full)
		return;
	assert(len < 1 << 20);
	o->p[at] = (uint8_t)(0x80 | (len & 15));
	o->p[at + 1] = (uint8_t)(len >> 4);
	o->p[at + 2] = (uint8_t)(len >> 12);
}

static void aml_name(struct out *o, const char *name)
{
	put8(o, AML_NAME);
	put(o, name, 4);
}

static void aml_string(struct out *o, const char *s)
{
	put8(o, AML_STRING);
	put(o, s, strlen(s) + 1);
}

/* A compressed EISA id, "PNP0501" (19.3.4); stored with its bytes swapped. */
static void aml_eisa_id(struct out *o, const char *id)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | ((uint32_t)(id[i] - '@') & 31);
	for (unsigned i = 3; i < 7; i++) {
		unsigned digit = (unsigned)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);

		v = v << 4 | digit;
	}
	put8(o, AML_DWORD);
	put32(o, __builtin_bswap32(v));
}

static void aml_dword(struct out *o, uint32_t v)
{
	put8(o, AML_DWORD);
	put32(o, v);
}

static size_t method_begin(struct out *o, const char *name, unsigned args)
{
	size_t at;

	put8(o, AML_METHOD);
	at = block_begin(o);
	put(o, name, 4);
	put8(o, 8 | args);	/* serialized */
	return at;
}

/* Local = REGISTER, which is in \_SB */
static void aml_load(struct out *o, unsigned local, const char *name)
{
	put8(o, AML_STORE);
	put8(o, AML_ROOT);
	put8(o, AML_DUAL_NAME);
	put(o, "_SB_", 4);
	put(o, name, 4);
	put8(o, local);
}

/* If (Local & bits) { ... block_end() } */
static size_t if_bits(struct out *o, unsigned local, uint32_t bits)
{
	size_t at;

	put8(o, AML_IF);
	at = block_begin(o);
	put8(o, AML_AND);
	put8(o, local);
	aml_dword(o, bits);
	put8(o, 0);		/* the result goes nowhere else */
	return at;
}

static size_t device_begin(struct out *o, const char *name)
{
	size_t at;

	put8(o, AML_EXT);
	put8(o, AML_EXT_DEVICE);
	at = block_begin(o);
	put(o, name, 4);
	return at;
}

/* _CRS is a buffer of resource descriptors, closed by an end tag (6.4). */
struct crs {
	size_t block, size_at, data_at;
};

static struct crs crs_begin(struct out *o)
{
	struct crs c;

	aml_name(o, "_CRS");
	put8(o, AML_BUFFER);
	c.block = block_begin(o);
	put8(o, AML_WORD);
	c.size_at = o->used;
	put16(o, 0);
	c.data_at = o->used;
	return c;
}

static void crs_end(struct out *o, struct crs c)
{
	put8(o, 0x79);		/* end tag, no checksum */
	put8(o, 0);
	if (!o->full)
		store_le16(o->p + c.size_at, (uint16_t)(o->used - c.data_at));
	block_end(o, c.block);
}

static void crs_io(struct out *o, unsigned base, unsigned len)
{
	put8(o, 0x47);		/* I/O port descriptor, 16-bit decode (6.4.2.5) */
	put8(o, 1);
	put16(o, base);
	put16(o, base);
	put8(o, 1);
	put8(o, len);
}

static void crs_irq(struct out *o, unsigned irq)
{
	put8(o, 0x22);		/* IRQ descriptor: edge, active high (6.4.2.1) */
	put16(o, 1u << irq);
}

/* Extended interrupt (6.4.3.6): edge, active high, exclusive. */
static void crs_interrupt(struct out *o, uint32_t gsi)
{
	put8(o, 0x89);
	put16(o, 6);
	put8(o, 3);
	put8(o, 1);
	put32(o, gsi);
}

/* Word address space (6.4.3.5.3): type 1 I/O, 2 bus numbers. */
static void crs_word_range(struct out *o, unsigned type, unsigned flags, unsigned min,
			   unsigned max)
{
	put8(o, 0x88);
	put16(o, 13);
	put8(o, type);
	put8(o, 0x0c);		/* minimum and maximum are fixed */
	put8(o, flags);
	put16(o, 0);
	put16(o, min);
	put16(o, max);
	put16(o, 0);
	put16(o, max - min + 1);
}

static void crs_memory_range(struct out *o, uint32_t base, uint32_t len)
{
	put8(o, 0x87);		/* double word address space (6.4.3.5.2) */
	put16(o, 23);
	put8(o, 0);		/* memory */
	put8(o, 0x0c);
	put8(o, 1);		/* read and write, not cacheable */
	put32(o, 0);
	put32(o, base);
	put32(o, base + (len - 1));
	put32(o, 0);
	put32(o, len);
}

static void slot_name(char *name, unsigned slot)
{
	static const char digit[] = "0123456789ABCDEF";

	memcpy(name, "SL", 2);
	name[2] = digit[slot >> 4];
	name[3] = digit[slot & 15];
	name[4] = 0;
}

/* A slot whose device may come and go: the guest's own driver for that finds it so. */
static void dsdt_slot(struct out *o, unsigned slot)
{
	char name[5];
	size_t dev, method;

	slot_name(name, slot);
	dev = device_begin(o, name);
	aml_name(o, "_ADR");
	aml_dword(o, slot << 16);
	aml_name(o, "_SUN");
	put8(o, AML_BYTE);
	put8(o, slot);
	method = method_begin(o, "_EJ0", 1);
	put8(o, AML_STORE);
	aml_dword(o, UINT32_C(1) << slot);
	put8(o, AML_ROOT);
	put8(o, AML_DUAL_NAME);
	put(o, "_SB_EJCT", 8);
	block_end(o, method);
	block_end(o, dev);
}

static void dsdt_pci(struct out *o)
{
	size_t dev = device_begin(o, "PCI0");
	struct crs c;

	aml_name(o, "_HID");
	aml_eisa_id(o, "PNP0A03");
	aml_name(o, "_UID");
	put8(o, 0);
	c = crs_begin(o);
	crs_word_range(o, 2, 0, 0, 0);
	crs_io(o, PORT_PCI_ADDRESS, 8);
	crs_word_range(o, 1, 3, 0x1000, 0xffff);
	crs_memory_range(o, GUEST_PCI_WINDOW, GUEST_PCI_WINDOW_SIZE);
	crs_end(o, c);
	for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
		dsdt_slot(o, slot);
	block_end(o, dev);
}

/* \_SB.PEVT's registers (events.h). */
static void dsdt_registers(struct out *o)
{
	static const char *const name[] = { "EVTS", "PLUG", "BACK", "EJCT" };
	size_t field;

	put8(o, AML_EXT);
	put8(o, AML_EXT_REGION);
	put(o, "EREG", 4);
	put8(o, 1);		/* system I/O */
	put8(o, AML_WORD);
	put16(o, PORT_EVENTS);
	put8(o, AML_BYTE);
	put8(o, 16);
	put8(o, AML_EXT);
	put8(o, AML_EXT_FIELD);
	field = block_begin(o);
	put(o, "EREG", 4);
	put8(o, 3);		/* in double words, no lock */
	for (unsigned i = 0; i < ARRAY_SIZE(name); i++) {
		put(o, name[i], 4);
		put8(o, 32);	/* bits */
	}
	block_end(o, field);
}

/* Tell each slot whose bit is set in REGISTER. */
static void notify_slots(struct out *o, const char *reg, unsigned what)
{
	aml_load(o, AML_LOCAL1, reg);
	for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
		size_t cond = if_bits(o, AML_LOCAL1, UINT32_C(1) << slot);
		char name[5];

		put8(o, AML_NOTIFY);
		put8(o, AML_ROOT);
		put8(o, AML_MULTI_NAME);
		put8(o, 3);
		put(o, "_SB_PCI0", 8);
		slot_name(name, slot);
		put(o, name, 4);
		put8(o, AML_BYTE);
		put8(o, what);
		block_end(o, cond);
	}
}

/* The generic event device (5.6.9), and the power button that it speaks for. */
static void dsdt_events(struct out *o)
{
	size_t dev, method, cond;
	struct crs c;

	dsdt_registers(o);
	dev = device_begin(o, "PWRB");
	aml_name(o, "_HID");
	aml_eisa_id(o, "PNP0C0C");
	block_end(o, dev);

	dev = device_begin(o, "GED_");
	aml_name(o, "_HID");
	aml_string(o, "ACPI0013");
	aml_name(o, "_UID");
	put8(o, 0);
	c = crs_begin(o);
	crs_interrupt(o, GSI_EVENTS);
	crs_end(o, c);
	method = method_begin(o, "_EVT", 1);
	aml_load(o, AML_LOCAL0, "EVTS");
	cond = if_bits(o, AML_LOCAL0, EVENT_POWER_BUTTON);
	put8(o, AML_NOTIFY);
	put8(o, AML_ROOT);
	put8(o, AML_DUAL_NAME);
	put(o, "_SB_PWRB", 8);
	put8(o, AML_BYTE);
	put8(o, NOTIFY_BUTTON);
	block_end(o, cond);
	cond = if_bits(o, AML_LOCAL0, EVENT_PCI);
	notify_slots(o, "PLUG", NOTIFY_DEVICE_CHECK);
	notify_slots(o, "BACK", NOTIFY_EJECT);
	block_end(o, cond);
	block_end(o, method);
	block_end(o, dev);
}

static void dsdt_serial(struct out *o)
{
	size_t dev = device_begin(o, "COM1");
	struct crs c;

	aml_name(o, "_HID");
	aml_eisa_id(o, "PNP0501");
	aml_name(o, "_UID");
	put8(o, 1);		/* OneOp */
	c = crs_begin(o);
	crs_io(o, PORT_SERIAL, 8);
	crs_irq(o, GSI_SERIAL);
	crs_end(o, c);
	block_end(o, dev);
}

/* The panic port: a write says that the kernel has panicked (QEMU0001). */
static void dsdt_panic(struct out *o)
{
	size_t dev = device_begin(o, "PEVT");
	struct crs c;

	aml_name(o, "_HID");
	aml_string(o, "QEMU0001");
	aml_name(o, "_STA");
	put8(o, AML_BYTE);
	put8(o, 0x0f);
	c = crs_begin(o);
	crs_io(o, PORT_PVPANIC, 1);
	crs_end(o, c);
	block_end(o, dev);
}

static size_t build_dsdt(struct out *o)
{
	size_t table = table_begin(o, "DSDT", 2), scope, pkg;

	/* Name(\_S5, Package(4) { 5, 0, 0, 0 }): what to write to power off */
	aml_name(o, "_S5_");
	put8(o, AML_PACKAGE);
	pkg = block_begin(o);
	put8(o, 4);
	put8(o, AML_BYTE);
	put8(o, POWER_S5);
	put_zero(o, 3);
	block_end(o, pkg);

	put8(o, AML_SCOPE);
	scope = block_begin(o);
	put(o, "_SB_", 4);
	dsdt_events(o);
	dsdt_pci(o);
	dsdt_serial(o);
	dsdt_panic(o);
	block_end(o, scope);
	table_end(o, table);
	return table;
}

/* A generic address: one byte-wide I/O port (5.2.3.2). */
static void put_port(struct out *o, unsigned port)
{
	put8(o, 1);		/* system I/O */
	put8(o, 8);
	put8(o, 0);
	put8(o, 1);		/* byte access */
	put64(o, port);
}

static size_t build_fadt(struct out *o, uint64_t dsdt)
{
	enum {
		NO_VGA = 1 << 2, NO_CMOS_CLOCK = 1 << 5,
		WBINVD = 1 << 0, PWR_BUTTON = 1 << 4, SLP_BUTTON = 1 << 5,
		TMR_VAL_EXT = 1 << 8, RESET_REG_SUP = 1 << 10, HW_REDUCED = 1 << 20,
	};
	size_t t = table_begin(o, "FACP", 6);

	put32(o, 0);			/* FIRMWARE_CTRL */
	put32(o, (uint32_t)dsdt);
	put_zero(o, 109 - 44);
	put16(o, NO_VGA | NO_CMOS_CLOCK);	/* IAPC_BOOT_ARCH; no 8042 bit either */
	put8(o, 0);
	put32(o, WBINVD | PWR_BUTTON | SLP_BUTTON | TMR_VAL_EXT | RESET_REG_SUP | HW_REDUCED);
	put_port(o, PORT_POWER);		/* RESET_REG */
	put8(o, POWER_RESET);
	put16(o, 0);
	put8(o, 4);			/* minor version */
	put64(o, 0);			/* X_FIRMWARE_CTRL */
	put64(o, dsdt);
	put_zero(o, 244 - 148);
	put_port(o, PORT_POWER);		/* SLEEP_CONTROL_REG */
	put_port(o, PORT_SLEEP_STATUS);
	put64(o, 0);			/* hypervisor vendor: unnamed */
	table_end(o, t);
	assert(o->full || o->used - t == FADT_BYTES);
	return t;
}

static size_t build_madt(struct out *o, unsigned vcpus)
{
	size_t t = table_begin(o, "APIC", 5);

	put32(o, GUEST_LAPIC);
	put32(o, 0);			/* no dual 8259 to take over from */
	for (unsigned i = 0; i < vcpus; i++) {
		put8(o, 0);		/* processor local APIC */
		put8(o, 8);
		put8(o, i);
		put8(o, i);
		put32(o, 1);		/* enabled */
	}
	put8(o, 1);			/* IO-APIC */
	put8(o, 12);
	put8(o, 0);
	put8(o, 0);
	put32(o, GUEST_IOAPIC);
	put32(o, 0);			/* its first global interrupt */
	put8(o, 4);			/* LINT1 of every processor is NMI */
	put8(o, 6);
	put8(o, 0xff);
	put16(o, 0);
	put8(o, 1);
	table_end(o, t);
	return t;
}

/* PCI Firmware Specification 3.3, 4.1.2: where configuration space is in memory */
static size_t build_mcfg(struct out *o)
{
	size_t t = table_begin(o, "MCFG", 1);

	put_zero(o, 8);
	put64(o, GUEST_ECAM);
	put16(o, 0);			/* segment */
	put8(o, 0);			/* first and last bus */
	put8(o, 0);
	put_zero(o, 4);
	table_end(o, t);
	return t;
}

static size_t build_xsdt(struct out *o, uint64_t fadt, uint64_t madt, uint64_t mcfg)
{
	size_t t = table_begin(o, "XSDT", 1);

	put64(o, fadt);
	put64(o, madt);
	put64(o, mcfg);
	table_end(o, t);
	return t;
}

/* 5.2.5.3: two checksums, of the first 20 bytes and of all */
static void build_rsdp(uint8_t *p, uint64_t xsdt)
{
	memset(p, 0, RSDP_BYTES);
	memcpy(p, "RSD PTR ", 8);
	memcpy(p + 9, "VDISK ", 6);
	p[15] = 2;
	store_le32(p + 20, RSDP_BYTES);
	store_le64(p + 24, xsdt);
	p[8] = checksum(p, 20);
	p[32] = checksum(p, RSDP_BYTES);
}

size_t acpi_build(uint8_t *buf, size_t size, uint64_t gpa, unsigned vcpus)
{
	struct out o = { .p = buf, .size = size };
	size_t dsdt, fadt, madt, mcfg, xsdt;

	put_zero(&o, RSDP_BYTES);
	dsdt = build_dsdt(&o);
	fadt = build_fadt(&o, gpa + dsdt);
	madt = build_madt(&o, vcpus);
	mcfg = build_mcfg(&o);
	xsdt = build_xsdt(&o, gpa + fadt, gpa + madt, gpa + mcfg);
	if (o.full)
		return 0;
	build_rsdp(buf, gpa + xsdt);
	return o.used;
}
