/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parts.c - partition tables: good ones, damaged ones, and what only looks like one */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <zlib.h>

#include <cmocka.h>

#include "part/part.h"
#include "tests/unit/medium.h"

#define MIB (UINT64_C(1) << 20)

static const uint8_t linux_guid[16] = {
	0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47,
	0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
};

/* ---- making disks ---- */

static struct vdisk *new_disk(uint64_t size)
{
	struct vdisk *d;

	assert_int_equal(vdisk_open_memory(&d, size, NULL), 0);
	return d;
}

static void put(struct vdisk *d, const void *p, size_t len, uint64_t off)
{
	assert_int_equal(vdisk_write(d, p, len, off), 0);
}

static void set_entry(uint8_t *sector, unsigned i, uint8_t status, uint8_t type, uint32_t start,
		      uint32_t count)
{
	uint8_t *p = sector + 446 + 16 * i;

	p[0] = status;
	p[4] = type;
	store_le32(p + 8, start);
	store_le32(p + 12, count);
}

static void sign(uint8_t *sector)
{
	sector[510] = 0x55;
	sector[511] = 0xaa;
}

static void put_record(struct vdisk *d, uint64_t lba, uint32_t start, uint32_t count,
		       uint32_t link, uint32_t link_count)
{
	uint8_t s[512] = { 0 };

	set_entry(s, 0, 0, 0x83, start, count);
	if (link_count)
		set_entry(s, 1, 0, 0x05, link, link_count);
	sign(s);
	put(d, s, sizeof(s), lba * 512);
}

struct gpt_spec {
	uint32_t sector;
	uint32_t entry_size, n_entries, header_size;
	uint64_t backup_lba;	/* 0: the last */
	unsigned parts;
};

static void put_gpt_header(struct vdisk *d, const struct gpt_spec *g, uint64_t lba, uint64_t other,
			   uint64_t entries_lba, const uint8_t *entries)
{
	uint8_t h[4096] = { 0 };
	uint64_t array = ((uint64_t)g->entry_size * g->n_entries + g->sector - 1) / g->sector;
	uint64_t last = lba > other ? lba : other;

	memcpy(h, "EFI PART", 8);
	store_le32(h + 8, 0x10000);
	store_le32(h + 12, g->header_size);
	store_le64(h + 24, lba);
	store_le64(h + 32, other);
	store_le64(h + 40, 2 + array);
	store_le64(h + 48, last - array - 1);
	memset(h + 56, 0x11, 16);
	store_le64(h + 72, entries_lba);
	store_le32(h + 80, g->n_entries);
	store_le32(h + 84, g->entry_size);
	store_le32(h + 88, (uint32_t)crc32(0, entries, (uInt)(g->entry_size * g->n_entries)));
	store_le32(h + 16, (uint32_t)crc32(0, h, g->header_size));
	put(d, h, g->sector, lba * g->sector);
	put(d, entries, (size_t)g->entry_size * g->n_entries, entries_lba * g->sector);
}

static void put_protective(struct vdisk *d, uint32_t count)
{
	uint8_t s[512] = { 0 };

	set_entry(s, 0, 0, 0xee, 1, count);
	sign(s);
	put(d, s, sizeof(s), 0);
}

/* A GPT with @parts partitions of 1 MiB from 1 MiB on, called "part N". */
static void put_gpt(struct vdisk *d, struct gpt_spec g)
{
	uint64_t last;
	uint8_t *entries;

	g.sector = g.sector ? g.sector : 512;
	g.entry_size = g.entry_size ? g.entry_size : 128;
	g.n_entries = g.n_entries ? g.n_entries : 128;
	g.header_size = g.header_size ? g.header_size : 92;
	last = g.backup_lba ? g.backup_lba : vdisk_size(d) / g.sector - 1;
	entries = calloc(g.n_entries, g.entry_size);
	for (unsigned i = 0; i < g.parts; i++) {
		uint8_t *e = entries + (size_t)i * g.entry_size;

		memcpy(e, linux_guid, 16);
		memset(e + 16, (int)i + 1, 16);
		store_le64(e + 32, (i + 1) * MIB / g.sector);
		store_le64(e + 40, (i + 2) * MIB / g.sector - 1);
		store_le64(e + 48, 4);
		for (unsigned k = 0; k < 5; k++)
			e[56 + 2 * k] = (uint8_t)"part "[k];
		e[66] = (uint8_t)('1' + i);
	}
	put_protective(d, (uint32_t)last);
	put_gpt_header(d, &g, 1, last, 2, entries);
	put_gpt_header(d, &g, last, 1,
		       last - ((uint64_t)g.n_entries * g.entry_size + g.sector - 1) / g.sector,
		       entries);
	free(entries);
}

static void damage(struct vdisk *d, uint64_t off)
{
	uint8_t b;

	assert_int_equal(vdisk_read(d, &b, 1, off), 0);
	b ^= 0x5a;
	put(d, &b, 1, off);
}

static struct vdisk_parts *read_parts(struct vdisk *d)
{
	struct vdisk_parts *p;
	struct vdisk_error err = { 0 };

	if (vdisk_parts_read(&p, d, &err) < 0)
		fail_msg("%s", err.msg);
	return p;
}

/* ---- MBR ---- */

static void mbr_primary(void **state UNUSED)
{
	struct vdisk *d = new_disk(64 * MIB);
	struct vdisk_parts *p;
	uint8_t s[512] = { 0 };

	store_le32(s + 440, 0x1234abcd);
	set_entry(s, 0, 0x80, 0x83, 2048, 2048);
	set_entry(s, 2, 0, 0x82, 8192, 2048);
	sign(s);
	put(d, s, sizeof(s), 0);
	p = read_parts(d);
	assert_string_equal(p->scheme, "dos");
	assert_string_equal(p->id, "1234abcd");
	assert_string_equal(p->problem, "");
	assert_int_equal(p->count, 2);
	assert_int_equal(p->part[0].number, 1);
	assert_int_equal(p->part[0].offset, MIB);
	assert_int_equal(p->part[0].length, MIB);
	assert_int_equal(p->part[0].attrs, 0x80);
	assert_string_equal(p->part[0].type, "0x83");
	assert_string_equal(p->part[0].type_name, "Linux");
	assert_string_equal(p->part[0].uuid, "1234abcd-01");
	assert_int_equal(p->part[1].number, 3);
	assert_string_equal(p->part[1].uuid, "1234abcd-03");
	free(p);
	vdisk_close(d, NULL);
}

/* 100 logical partitions, every kind of extended type, an empty record among them */
static void mbr_logical(void **state UNUSED)
{
	static const uint8_t types[] = { 0x05, 0x0f, 0x85 };

	for (unsigned t = 0; t < 3; t++) {
		struct vdisk *d = new_disk(64 * MIB);
		struct vdisk_parts *p;
		uint8_t s[512] = { 0 };

		set_entry(s, 0, 0, 0x83, 64, 64);
		set_entry(s, 1, 0, types[t], 2048, 120000);
		sign(s);
		put(d, s, sizeof(s), 0);
		for (uint32_t i = 0; i < 101; i++)
			put_record(d, 2048 + i * 100, 10, i == 50 ? 0 : 90, (i + 1) * 100,
				   i < 100 ? 100 : 0);
		p = read_parts(d);
		assert_int_equal(p->count, 102);
		assert_true(p->part[1].extended);
		assert_int_equal(p->part[2].number, 5);
		assert_int_equal(p->part[2].offset, (2048 + 10) * 512);
		assert_int_equal(p->part[101].number, 104);
		assert_int_equal(p->part[101].offset, (2048 + 100 * 100 + 10) * 512);
		assert_string_equal(p->problem, "");
		free(p);
		vdisk_close(d, NULL);
	}
}

static void mbr_logical_damaged(void **state UNUSED)
{
	static const struct {
		uint32_t link;		/* of the second record */
		bool signature;		/* of the third */
		unsigned count;		/* logical partitions found */
		const char *problem;
	} cases[] = {
		{ 200, true, 3, "" },
		{ 0, true, 2, "comes back" },
		{ 100, true, 2, "comes back" },
		{ 20000, true, 2, "leaves its extended partition" },
		{ UINT32_MAX, true, 2, "leaves its extended partition" },
		{ 200, false, 2, "no extended boot record" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vdisk *d = new_disk(16 * MIB);
		struct vdisk_parts *p;
		uint8_t s[512] = { 0 };

		set_entry(s, 0, 0, 0x05, 2048, 20000);
		sign(s);
		put(d, s, sizeof(s), 0);
		put_record(d, 2048, 10, 50, 100, 100);
		put_record(d, 2148, 10, 50, cases[i].link, 100);
		put_record(d, 2248, 10, 50, 0, 0);
		if (!cases[i].signature)
			damage(d, 2248 * 512 + 511);
		p = read_parts(d);
		assert_int_equal(p->count, 1 + cases[i].count);
		if (!strstr(p->problem, cases[i].problem) ||
		    !cases[i].problem[0] != !p->problem[0])
			fail_msg("case %zu: '%s'", i, p->problem);
		free(p);
		vdisk_close(d, NULL);
	}
}

static void mbr_bounds(void **state UNUSED)
{
	struct vdisk *d = new_disk(16 * MIB), *part;
	struct vdisk_error err = { 0 };
	struct vdisk_parts *p;
	uint8_t s[512] = { 0 };

	set_entry(s, 0, 0, 0x83, 2048, 4096);
	set_entry(s, 1, 0, 0x83, 4096, 4096);
	sign(s);
	put(d, s, sizeof(s), 0);
	p = read_parts(d);
	assert_non_null(strstr(p->problem, "1 and 2 overlap"));
	free(p);

	set_entry(s, 1, 0, 0x83, UINT32_MAX, UINT32_MAX);
	put(d, s, sizeof(s), 0);
	p = read_parts(d);
	assert_non_null(strstr(p->problem, "ends past the disk"));
	assert_int_equal(p->count, 2);
	assert_int_equal(p->part[1].offset, (uint64_t)UINT32_MAX * 512);
	free(p);
	assert_int_equal(vdisk_open_part(&part, d, "p2", &err), -EINVAL);
	assert_int_equal(vdisk_open_part(&part, d, "p1", &err), 0);
	assert_int_equal(vdisk_size(part), 2 * MIB);
	vdisk_close(part, NULL);
	vdisk_close(d, NULL);
}

/* 4 KiB sectors show by where the extended boot record is */
static void mbr_large_sectors(void **state UNUSED)
{
	struct vdisk *d = new_disk(64 * MIB);
	struct vdisk_parts *p;
	uint8_t s[512] = { 0 }, e[512] = { 0 };

	set_entry(s, 0, 0, 0x0f, 256, 1024);
	sign(s);
	put(d, s, sizeof(s), 0);
	set_entry(e, 0, 0, 0x83, 16, 100);
	sign(e);
	put(d, e, sizeof(e), 256 * 4096);
	p = read_parts(d);
	assert_int_equal(p->sector_size, 4096);
	assert_int_equal(p->count, 2);
	assert_int_equal(p->part[1].offset, (256 + 16) * 4096);
	assert_int_equal(p->part[1].length, 100 * 4096);
	free(p);
	vdisk_close(d, NULL);
}

/* File systems straight on the disk: 55 AA, but no table. */
static void superfloppies(void **state UNUSED)
{
	static const struct {
		const char *what;
		const char *oem;	/* at 3 */
		bool fat;
		uint8_t code;		/* what is in the place of the entries */
	} cases[] = {
		{ "NTFS", "NTFS    ", false, 0 },
		{ "exFAT", "EXFAT   ", false, 0 },
		{ "BitLocker", "-FVE-FS-", false, 0 },
		{ "FAT, zeroes", "mkfs.fat", true, 0 },
		{ "FAT, code", "MSWIN4.1", true, 0x80 },
		{ "boot code", "        ", false, 0x61 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vdisk *d = new_disk(16 * MIB), *part;
		struct vdisk_error err;
		struct vdisk_parts *p;
		uint8_t s[512] = { 0xeb, 0x3c, 0x90 };

		memcpy(s + 3, cases[i].oem, 8);
		if (cases[i].fat) {
			store_le16(s + 11, 512);
			s[13] = 4;
			store_le16(s + 14, 1);
			s[16] = 2;
			s[21] = 0xf8;
		}
		memset(s + 446, cases[i].code, 64);
		sign(s);
		put(d, s, sizeof(s), 0);
		p = read_parts(d);
		if (p->scheme[0] || p->count)
			fail_msg("%s is taken for a %s table", cases[i].what, p->scheme);
		free(p);
		assert_int_equal(vdisk_open_part(&part, d, "p1", &err), -ENOENT);
		vdisk_close(d, NULL);
	}
}

static void empty_tables(void **state UNUSED)
{
	struct vdisk *d = new_disk(16 * MIB), *tiny = new_disk(100);
	struct vdisk_parts *p = read_parts(d);
	uint8_t s[512] = { 0 };

	assert_string_equal(p->scheme, "");
	free(p);
	p = read_parts(tiny);
	assert_string_equal(p->scheme, "");
	free(p);
	sign(s);
	put(d, s, sizeof(s), 0);
	p = read_parts(d);
	assert_string_equal(p->scheme, "dos");
	assert_int_equal(p->count, 0);
	free(p);
	vdisk_close(tiny, NULL);
	vdisk_close(d, NULL);
}

/* ---- GPT ---- */

static void gpt_good(void **state UNUSED)
{
	static const struct gpt_spec specs[] = {
		{ .parts = 3 },
		{ .parts = 3, .sector = 4096 },
		{ .parts = 2, .entry_size = 256 },
		{ .parts = 2, .entry_size = 512, .n_entries = 16 },
		{ .parts = 4, .n_entries = 4 },
		{ .parts = 1, .header_size = 512 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		struct vdisk *d = new_disk(16 * MIB);
		struct vdisk_parts *p;

		put_gpt(d, specs[i]);
		p = read_parts(d);
		assert_string_equal(p->scheme, "gpt");
		assert_string_equal(p->problem, "");
		assert_true(p->primary_ok && p->backup_ok && !p->backup_misplaced && !p->hybrid);
		assert_int_equal(p->sector_size, specs[i].sector ? specs[i].sector : 512);
		assert_int_equal(p->count, specs[i].parts);
		assert_string_equal(p->id, "11111111-1111-1111-1111-111111111111");
		assert_int_equal(p->part[0].offset, MIB);
		assert_int_equal(p->part[0].length, MIB);
		assert_int_equal(p->part[0].attrs, 4);
		assert_string_equal(p->part[0].name, "part 1");
		assert_string_equal(p->part[0].type, "0fc63daf-8483-4772-8e79-3d69d8477de4");
		assert_string_equal(p->part[0].type_name, "Linux filesystem");
		free(p);
		vdisk_close(d, NULL);
	}
}

static void gpt_damaged(void **state UNUSED)
{
	static const struct {
		uint64_t at[2];		/* bytes damaged; LBAs from the end are negative */
		bool primary, backup;
		unsigned count;
	} cases[] = {
		{ { 512 + 40, 0 }, false, true, 2 },		/* primary header */
		{ { 1024 + 60, 0 }, false, true, 2 },		/* primary entries */
		{ { 16 * MIB - 512 + 40, 0 }, true, false, 2 },
		{ { 16 * MIB - 512 - 128 * 128 + 3, 0 }, true, false, 2 },
		{ { 512 + 40, 16 * MIB - 512 + 40 }, false, false, 0 },
		{ { 1024 + 60, 16 * MIB - 512 + 20 }, false, false, 0 },
		{ { 512, 0 }, false, true, 2 },			/* the signature */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vdisk *d = new_disk(16 * MIB);
		struct vdisk_parts *p;

		put_gpt(d, (struct gpt_spec) { .parts = 2 });
		for (unsigned k = 0; k < 2; k++)
			if (cases[i].at[k])
				damage(d, cases[i].at[k]);
		p = read_parts(d);
		assert_string_equal(p->scheme, "gpt");
		assert_int_equal(p->primary_ok, cases[i].primary);
		assert_int_equal(p->backup_ok, cases[i].backup);
		assert_int_equal(p->count, cases[i].count);
		assert_true(p->problem[0]);
		free(p);
		vdisk_close(d, NULL);
	}
}

/* The backup is where the disk used to end; with the primary gone it still is found. */
static void gpt_grown(void **state UNUSED)
{
	struct vdisk *d = new_disk(32 * MIB);
	struct vdisk_parts *p;

	put_gpt(d, (struct gpt_spec) { .parts = 2, .backup_lba = 16 * MIB / 512 - 1 });
	p = read_parts(d);
	assert_true(p->primary_ok && p->backup_ok && p->backup_misplaced);
	assert_non_null(strstr(p->problem, "not at the end"));
	free(p);
	damage(d, 512 + 20);
	p = read_parts(d);
	assert_true(!p->primary_ok && p->backup_ok && p->backup_misplaced);
	assert_int_equal(p->count, 2);
	free(p);
	vdisk_close(d, NULL);
}

static void gpt_cut_off(void **state UNUSED)
{
	struct vdisk *d = new_disk(32 * MIB), *small = new_disk(2 * MIB), *part;
	uint8_t *copy = malloc(2 * MIB);
	struct vdisk_parts *p;

	put_gpt(d, (struct gpt_spec) { .parts = 3 });
	assert_int_equal(vdisk_read(d, copy, 2 * MIB, 0), 0);
	put(small, copy, 2 * MIB, 0);
	p = read_parts(small);
	assert_true(p->primary_ok && !p->backup_ok);
	assert_int_equal(p->count, 3);
	assert_true(p->problem[0]);
	assert_int_equal(vdisk_open_part(&part, small, "p3", NULL), -EINVAL);
	assert_int_equal(vdisk_open_part(&part, small, "p1", NULL), 0);
	vdisk_close(part, NULL);
	free(p);
	free(copy);
	vdisk_close(small, NULL);
	vdisk_close(d, NULL);
}

static void gpt_and_mbr(void **state UNUSED)
{
	struct vdisk *d = new_disk(16 * MIB);
	struct vdisk_parts *p;
	uint8_t s[512] = { 0 };

	/* hybrid, the protective entry not first */
	put_gpt(d, (struct gpt_spec) { .parts = 2 });
	set_entry(s, 0, 0, 0x83, 2048, 2048);
	set_entry(s, 1, 0, 0xee, 1, 2047);
	sign(s);
	put(d, s, sizeof(s), 0);
	p = read_parts(d);
	assert_string_equal(p->scheme, "gpt");
	assert_true(p->hybrid);
	assert_int_equal(p->count, 2);
	free(p);

	/* a plain MBR over a former GPT wins */
	memset(s + 446, 0, 64);
	set_entry(s, 0, 0, 0x83, 4096, 2048);
	put(d, s, sizeof(s), 0);
	p = read_parts(d);
	assert_string_equal(p->scheme, "dos");
	assert_int_equal(p->count, 1);
	free(p);

	/* the MBR lost: only a faultless primary counts */
	memset(s, 0, sizeof(s));
	put(d, s, sizeof(s), 0);
	p = read_parts(d);
	assert_string_equal(p->scheme, "gpt");
	assert_non_null(strstr(p->problem, "protective MBR"));
	free(p);
	damage(d, 1024);
	p = read_parts(d);
	assert_string_equal(p->scheme, "");
	free(p);
	vdisk_close(d, NULL);
}

/* Leftovers of a table in the other sector size do not count. */
static void gpt_both_sizes(void **state UNUSED)
{
	struct vdisk *d = new_disk(16 * MIB);
	struct vdisk_parts *p;

	put_gpt(d, (struct gpt_spec) { .parts = 1, .n_entries = 16 });
	put_gpt(d, (struct gpt_spec) { .parts = 2, .sector = 4096 });
	damage(d, 512 + 8);
	p = read_parts(d);
	assert_int_equal(p->sector_size, 4096);
	assert_int_equal(p->count, 2);
	free(p);
	vdisk_close(d, NULL);
}

static void gpt_headers(void **state UNUSED)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
	} cases[] = {
		{ 12, 4, 91 }, { 12, 4, 513 }, { 12, 4, UINT32_MAX },	/* header size */
		{ 24, 8, 2 },						/* its own LBA */
		{ 72, 8, 0 }, { 72, 8, 1 }, { 72, 8, UINT64_MAX }, { 72, 8, 32767 },
		{ 80, 4, UINT32_MAX }, { 80, 4, 1 << 20 },		/* entries */
		{ 84, 4, 0 }, { 84, 4, 64 }, { 84, 4, 129 }, { 84, 4, 384 },
		{ 84, 4, UINT32_C(1) << 31 },
		{ 40, 8, UINT64_MAX }, { 48, 8, UINT64_MAX }, { 48, 8, 0 },
	};
	struct vdisk *d = new_disk(16 * MIB);
	struct gpt_header h;
	uint8_t good[512], bad[512];
	const char *why;

	put_gpt(d, (struct gpt_spec) { .parts = 2 });
	assert_int_equal(vdisk_read(d, good, 512, 512), 0);
	assert_int_equal(gpt_header_decode(&h, good, 512, 1, 32768, &why), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t size;

		memcpy(bad, good, 512);
		if (cases[i].bytes == 8)
			store_le64(bad + cases[i].at, cases[i].value);
		else
			store_le32(bad + cases[i].at, (uint32_t)cases[i].value);
		size = MIN(load_le32(bad + 12), 512u);
		store_le32(bad + 16, 0);
		store_le32(bad + 16, (uint32_t)crc32(0, bad, size));
		assert_int_equal(gpt_header_decode(&h, bad, 512, 1, 32768, &why), -EINVAL);
		assert_non_null(why);
	}
	vdisk_close(d, NULL);
}

static void gpt_names(void **state UNUSED)
{
	static const struct {
		uint16_t in[4];
		const char *out;
	} cases[] = {
		{ { 'r', 'o', 0, 'x' }, "ro" },
		{ { 0xe4, 0x20ac, 0 }, "\xc3\xa4\xe2\x82\xac" },
		{ { 0xd83d, 0xde00, 0 }, "\xf0\x9f\x98\x80" },
		{ { 0xd83d, 'x', 0 }, "\xef\xbf\xbdx" },
		{ { 0xde00, 0xd83d, 0 }, "\xef\xbf\xbd\xef\xbf\xbd" },
	};
	uint8_t e[128] = { 0 };
	struct gpt_entry out;

	memcpy(e, linux_guid, 16);
	store_le64(e + 32, 34);
	store_le64(e + 40, 34);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (unsigned k = 0; k < 4; k++)
			store_le16(e + 56 + 2 * k, cases[i].in[k]);
		assert_int_equal(gpt_entry_decode(&out, e, 512), 1);
		assert_string_equal(out.name, cases[i].out);
	}
	/* 36 units without a NUL, the last one half a pair */
	for (unsigned k = 0; k < 36; k++)
		store_le16(e + 56 + 2 * k, k == 35 ? 0xd83d : 0xffff);
	assert_int_equal(gpt_entry_decode(&out, e, 512), 1);
	assert_int_equal(strlen(out.name), 108);

	store_le64(e + 40, 33);
	assert_int_equal(gpt_entry_decode(&out, e, 512), -EINVAL);
	store_le64(e + 40, UINT64_MAX);
	assert_int_equal(gpt_entry_decode(&out, e, 512), -EINVAL);
	memset(e, 0, 16);
	assert_int_equal(gpt_entry_decode(&out, e, 512), 0);
}

/* ---- opening ---- */

static void open_by_name(void **state UNUSED)
{
	static const struct {
		const char *part;
		int result;
		uint64_t offset;
	} cases[] = {
		{ "p1", 0, MIB }, { "p3", 0, 3 * MIB },
		{ "p4", -ENOENT, 0 }, { "p0", -ENOENT, 0 }, { "p", -EINVAL, 0 },
		{ "p1x", -EINVAL, 0 }, { "p-1", -EINVAL, 0 }, { "p 1", -EINVAL, 0 },
		{ "p99999999999999999999", -EINVAL, 0 }, { "1", -EINVAL, 0 }, { "", -EINVAL, 0 },
		{ "label=part 2", 0, 2 * MIB }, { "label=nothing", -ENOENT, 0 },
		{ "label=", -EINVAL, 0 },
		{ "uuid=03030303-0303-0303-0303-030303030303", 0, 3 * MIB },
		{ "uuid=03030303-0303-0303-0303-030303030304", -ENOENT, 0 },
		{ "vg0/root", -ENOENT, 0 },
	};
	struct vdisk *d = new_disk(16 * MIB);

	put_gpt(d, (struct gpt_spec) { .parts = 3 });
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vdisk *part = NULL;
		struct vdisk_error err = { 0 };
		uint8_t mark = (uint8_t)(i + 1), got = 0;
		int r = vdisk_open_part(&part, d, cases[i].part, &err);

		if (r != cases[i].result)
			fail_msg("%s: %d (%s)", cases[i].part, r, err.msg);
		if (r < 0) {
			assert_null(part);
			assert_true(err.msg[0]);
			continue;
		}
		assert_int_equal(vdisk_size(part), MIB);
		put(d, &mark, 1, cases[i].offset + 5);
		assert_int_equal(vdisk_read(part, &got, 1, 5), 0);
		assert_int_equal(got, mark);
		vdisk_close(part, NULL);
	}
	vdisk_close(d, NULL);
}

/* ---- editing ---- */

static void edit(void **state UNUSED)
{
	struct vdisk *d = new_disk(64 * MIB);
	struct vdisk_part_add_opts o = { .size = sizeof(o), .length = 10 * MIB, .name = "a b" };
	struct vdisk_error err = { 0 };
	struct vdisk_parts *p;

	assert_int_equal(vdisk_parts_add(d, &o, &err), -ENOENT);
	assert_int_equal(vdisk_parts_init(d, "lvm", &err), -EINVAL);
	assert_int_equal(vdisk_parts_init(d, "gpt", &err), 0);
	assert_int_equal(vdisk_parts_add(d, &o, &err), 1);
	o.type = "swap";
	o.start = 20 * MIB + 1;
	o.name = NULL;
	assert_int_equal(vdisk_parts_add(d, &o, &err), 2);
	o.length = 100 * MIB;
	assert_int_equal(vdisk_parts_add(d, &o, &err), -ENOSPC);
	o.type = "no such";
	assert_int_equal(vdisk_parts_add(d, &o, &err), -EINVAL);
	p = read_parts(d);
	assert_string_equal(p->problem, "");
	assert_int_equal(p->count, 2);
	assert_int_equal(p->part[0].offset, MIB);
	assert_int_equal(p->part[0].length, 10 * MIB);
	assert_string_equal(p->part[0].name, "a b");
	assert_int_equal(p->part[1].offset, 21 * MIB);
	assert_string_equal(p->part[1].type, "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");
	free(p);

	assert_int_equal(vdisk_parts_init(d, "mbr", &err), 0);
	p = read_parts(d);
	assert_string_equal(p->scheme, "dos");
	assert_int_equal(p->count, 0);
	free(p);
	vdisk_close(d, NULL);
}

/* ---- power fails in an edit ---- */

/* Tables with one partition in use, whole or with one copy damaged. */
static const char *make_table(struct vdisk *d, unsigned kind)
{
	static const char *const names[] = {
		"GPT", "GPT, primary damaged", "GPT, backup damaged", "MBR", "MBR with logical",
	};
	struct vdisk_part_add_opts o = { .size = sizeof(o), .length = MIB / 2 };

	if (kind >= ARRAY_SIZE(names))
		return NULL;
	assert_int_equal(vdisk_parts_init(d, kind < 3 ? "gpt" : "mbr", NULL), 0);
	if (kind == 4) {
		o.type = "extended";
		o.length = 0;
		assert_int_equal(vdisk_parts_add(d, &o, NULL), 1);
		o.type = NULL;
		o.length = MIB / 2;
	}
	assert_true(vdisk_parts_add(d, &o, NULL) > 0);
	if (kind == 1)
		damage(d, 512 + 20);
	if (kind == 2)
		damage(d, vdisk_size(d) - 512 + 20);
	return names[kind];
}

/* Add a partition until the power fails at write @n; is it complete before that? */
static bool add_interrupted(const uint8_t *disk, const struct vdisk_parts *before, const char *what,
			    unsigned n, enum fate fate)
{
	static struct medium first, second;
	struct vdisk *d = new_medium(&first, disk, MEDIUM_CAPACITY, n, fate);
	struct vdisk_part_add_opts o = { .size = sizeof(o), .length = MIB / 2 };
	int number = vdisk_parts_add(d, &o, NULL);
	bool complete = !first.off;
	struct vdisk_parts *after;

	assert_int_equal(number < 0, first.off);
	vdisk_close(d, NULL);
	d = new_medium(&second, first.stable, first.stable_size, UINT32_MAX, ALL_ARRIVE);
	after = read_parts(d);
	if (after->count != before->count && after->count != before->count + 1)
		fail_msg("%s, power lost at write %u: %u partitions (%s)", what, n, after->count,
			 after->problem);
	assert_memory_equal(after->part, before->part, before->count * sizeof(before->part[0]));
	if (complete && (after->count != before->count + 1 || after->problem[0]))
		fail_msg("%s: %u partitions, %s", what, after->count, after->problem);
	free(after);
	vdisk_close(d, NULL);
	return complete;
}

static void edit_interrupted(void **state UNUSED)
{
	static struct medium made;
	static uint8_t empty[MEDIUM_CAPACITY];

	for (unsigned kind = 0; ; kind++) {
		struct vdisk *d = new_medium(&made, empty, MEDIUM_CAPACITY, UINT32_MAX, ALL_ARRIVE);
		const char *what = make_table(d, kind);
		struct vdisk_parts *before = read_parts(d);

		for (int fate = ALL_ARRIVE; what && fate <= EVERY_OTHER; fate++)
			for (unsigned n = 0; n < 100; n++)
				if (add_interrupted(made.now, before, what, n, (enum fate)fate))
					break;
		free(before);
		vdisk_close(d, NULL);
		if (!what)
			break;
	}
}

static void types(void **state UNUSED)
{
	static const struct {
		const char *scheme, *text, *out;
	} cases[] = {
		{ "dos", "linux", "0x83" }, { "dos", "83", "0x83" }, { "dos", "0x8E", "0x8e" },
		{ "dos", "c", "0x0c" }, { "dos", "00", NULL }, { "dos", "100", NULL },
		{ "dos", "0fc63daf-8483-4772-8e79-3d69d8477de4", NULL },
		{ "gpt", "Linux", "0fc63daf-8483-4772-8e79-3d69d8477de4" },
		{ "gpt", "82", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" },
		{ "gpt", "esp", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" },
		{ "gpt", "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
		  "0fc63daf-8483-4772-8e79-3d69d8477de4" },
		{ "gpt", "0fc63daf-8483-4772-8e79-3d69d8477deg", NULL }, { "gpt", "", NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char out[40] = "";
		int r = vdisk_part_type(out, cases[i].scheme, cases[i].text, NULL);

		assert_int_equal(r, cases[i].out ? 0 : -EINVAL);
		assert_string_equal(out, cases[i].out ? cases[i].out : "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mbr_primary),
		cmocka_unit_test(mbr_logical),
		cmocka_unit_test(mbr_logical_damaged),
		cmocka_unit_test(mbr_bounds),
		cmocka_unit_test(mbr_large_sectors),
		cmocka_unit_test(superfloppies),
		cmocka_unit_test(empty_tables),
		cmocka_unit_test(gpt_good),
		cmocka_unit_test(gpt_damaged),
		cmocka_unit_test(gpt_grown),
		cmocka_unit_test(gpt_cut_off),
		cmocka_unit_test(gpt_and_mbr),
		cmocka_unit_test(gpt_both_sizes),
		cmocka_unit_test(gpt_headers),
		cmocka_unit_test(gpt_names),
		cmocka_unit_test(open_by_name),
		cmocka_unit_test(edit),
		cmocka_unit_test(edit_interrupted),
		cmocka_unit_test(types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
