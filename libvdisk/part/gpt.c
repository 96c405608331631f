/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gpt.c - GUID partition tables (UEFI 2.10, 5.3)
 *
 * Two copies of a header and an array of entries, both guarded by CRC32: the
 * primary at LBA 1, the backup where the primary says (the last LBA when it was
 * made; a disk that was grown since has it in the middle).  A copy counts only
 * if header and array are both good.  The first good one is used, in the order
 *
 *   primary; where a sound primary header says the backup is; the last LBA;
 *   where the protective MBR says that the disk ended.
 *
 * Sector size: the header is at byte 512 of a disk with 512-byte sectors and
 * at 4096 of one with 4 KiB sectors.  Image files do not record which, so both
 * are tried, the disk's own first; a good primary in one size beats a backup in
 * the other, since stale remains of a former table are common.
 *
 * A header that is good except that it speaks of sectors beyond the end (the
 * disk was cut off) is used, and the damage is told.
 */
#include <errno.h>
#include <stdio.h>
#include <zlib.h>

#include "part/part.h"

void gpt_guid_text(char *out, const uint8_t guid[16])
{
	/* Appendix A: the first three fields are little-endian */
	snprintf(out, 37, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 load_le32(guid), load_le16(guid + 4), load_le16(guid + 6), guid[8], guid[9],
		 guid[10], guid[11], guid[12], guid[13], guid[14], guid[15]);
}

/* ---- decoding ---- */

/* A fuzzer cannot find checksums, and would never come further. */
#ifdef VD_FUZZING
#define ANY_CHECKSUM true
#else
#define ANY_CHECKSUM false
#endif

static uint32_t header_crc(const uint8_t *p, uint32_t size)
{
	static const uint8_t zero[4];
	uLong crc = crc32(0, p, 16);

	crc = crc32(crc, zero, 4);
	return (uint32_t)crc32(crc, p + 20, size - 20);
}

/* 5.3.2, table 5.5 */
int gpt_header_decode(struct gpt_header *out, const uint8_t *p, uint32_t sector_size,
		      uint64_t lba, uint64_t sectors, const char **why)
{
	struct gpt_header h;
	uint32_t size = load_le32(p + 12);
	uint64_t bytes, array;

	*why = "no signature";
	if (memcmp(p, "EFI PART", 8) != 0)
		return -ENOENT;
	*why = "bad header size";
	if (size < GPT_HEADER_SIZE || size > sector_size)
		return -EINVAL;
	*why = "bad header checksum";
	if (!ANY_CHECKSUM && header_crc(p, size) != load_le32(p + 16))
		return -EINVAL;

	h = (struct gpt_header) {
		.lba = load_le64(p + 24),
		.alternate = load_le64(p + 32),
		.first_usable = load_le64(p + 40),
		.last_usable = load_le64(p + 48),
		.entries = load_le64(p + 72),
		.n_entries = load_le32(p + 80),
		.entry_size = load_le32(p + 84),
		.entries_crc = load_le32(p + 88),
	};
	memcpy(h.guid, p + 56, 16);

	*why = "the header was made for another place";
	if (h.lba != lba)
		return -EINVAL;
	*why = "bad entry size";
	if (h.entry_size < GPT_ENTRY_SIZE || !vd_is_pow2(h.entry_size))
		return -EINVAL;
	*why = "too many entries";
	bytes = (uint64_t)h.n_entries * h.entry_size;
	if (bytes > GPT_ARRAY_MAX)
		return -EINVAL;
	*why = "the entries do not lie on the disk";
	array = (bytes + sector_size - 1) / sector_size;
	if (h.entries == 0 || !vd_in_range(h.entries, array, sectors))
		return -EINVAL;
	*why = "the entries overlap the header";
	if (lba >= h.entries && lba - h.entries < array)
		return -EINVAL;
	*why = "the usable range makes no sense";
	if (h.first_usable > h.last_usable || h.last_usable > (uint64_t)INT64_MAX / sector_size - 1)
		return -EINVAL;

	*why = NULL;
	*out = h;
	return 0;
}

static void put_utf8(char **out, uint32_t c)
{
	char *p = *out;

	if (c < 0x80) {
		*p++ = (char)c;
	} else if (c < 0x800) {
		*p++ = (char)(0xc0 | c >> 6);
		*p++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*p++ = (char)(0xe0 | c >> 12);
		*p++ = (char)(0x80 | (c >> 6 & 0x3f));
		*p++ = (char)(0x80 | (c & 0x3f));
	} else {
		*p++ = (char)(0xf0 | c >> 18);
		*p++ = (char)(0x80 | (c >> 12 & 0x3f));
		*p++ = (char)(0x80 | (c >> 6 & 0x3f));
		*p++ = (char)(0x80 | (c & 0x3f));
	}
	*out = p;
}

/* 36 units of UTF-16LE, at most 108 bytes of UTF-8; broken surrogates become U+FFFD. */
static void decode_name(char *out, const uint8_t *p)
{
	for (unsigned i = 0; i < 36; i++) {
		uint32_t c = load_le16(p + 2 * i);

		if (c == 0)
			break;
		if (c >= 0xd800 && c < 0xe000) {
			uint32_t low = c < 0xdc00 && i < 35 ? load_le16(p + 2 * (i + 1)) : 0;

			if (low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
				i++;
			} else {
				c = 0xfffd;
			}
		}
		put_utf8(&out, c);
	}
	*out = '\0';
}

/* 5.3.3, table 5.6 */
int gpt_entry_decode(struct gpt_entry *out, const uint8_t *p, uint32_t sector_size)
{
	static const uint8_t zero[16];
	struct gpt_entry e = {
		.first = load_le64(p + 32),
		.last = load_le64(p + 40),
		.attrs = load_le64(p + 48),
	};

	if (memcmp(p, zero, 16) == 0)
		return 0;
	if (e.first > e.last || e.last > (uint64_t)INT64_MAX / sector_size - 1)
		return -EINVAL;
	memcpy(e.type, p, 16);
	memcpy(e.guid, p + 16, 16);
	decode_name(e.name, p + 56);
	*out = e;
	return 1;
}

/* ---- one copy of the table ---- */

struct gpt_copy {
	struct gpt_header h;	/* good if header_ok */
	uint8_t *entries;	/* owned; good if ok */
	const char *why;	/* what is wrong, if not ok */
	bool found;		/* has a signature, at least */
	bool header_ok;
	bool ok;
};

static void copy_clear(struct gpt_copy *c)
{
	free(c->entries);
	*c = (struct gpt_copy) { .why = "not there" };
}

/* What cannot be read is as good as damaged: the other copy may be fine. */
static void copy_load(struct gpt_copy *c, struct vdisk *disk, uint32_t sector, uint64_t lba)
{
	uint64_t sectors = disk->size / sector;
	uint8_t buf[4096];
	size_t len;
	int r;

	copy_clear(c);
	if (lba == 0 || lba >= sectors)
		return;
	if (vd_pread(disk, buf, sector, lba * sector) < 0) {
		c->why = "cannot be read";
		return;
	}
	r = gpt_header_decode(&c->h, buf, sector, lba, sectors, &c->why);
	c->found = r != -ENOENT;
	if (r < 0)
		return;
	c->header_ok = true;

	len = (size_t)c->h.n_entries * c->h.entry_size;
	c->entries = malloc(len ? len : 1);
	if (!c->entries) {
		c->why = "out of memory";
		return;
	}
	if (vd_pread(disk, c->entries, len, c->h.entries * sector) < 0) {
		c->why = "the entries cannot be read";
		return;
	}
	if (!ANY_CHECKSUM && (uint32_t)crc32(0, c->entries, (uInt)len) != c->h.entries_crc) {
		c->why = "bad checksum of the entries";
		return;
	}
	c->ok = true;
}

/* ---- the table, in one sector size ---- */

struct gpt_table {
	uint32_t sector;
	struct gpt_copy primary, backup;
};

static void table_clear(struct gpt_table *t)
{
	copy_clear(&t->primary);
	copy_clear(&t->backup);
}

/* The last LBA of the disk that the protective MBR was made for (5.2.3). */
static uint64_t protected_end(const struct mbr *mbr)
{
	for (unsigned i = 0; i < 4; i++) {
		const struct mbr_entry *e = &mbr->entry[i];

		if (e->type == MBR_GPT && e->count && e->count != UINT32_MAX)
			return (uint64_t)e->start + e->count - 1;
	}
	return 0;
}

static void table_load(struct gpt_table *t, struct vdisk *disk, uint32_t sector,
		       const struct mbr *mbr)
{
	uint64_t last = disk->size / sector - 1;

	t->sector = sector;
	copy_load(&t->primary, disk, sector, 1);
	if (t->primary.header_ok && t->primary.h.alternate != 1)
		copy_load(&t->backup, disk, sector, t->primary.h.alternate);
	else
		copy_clear(&t->backup);
	if (!t->backup.ok && last > 1 &&
	    !(t->primary.header_ok && t->primary.h.alternate == last))
		copy_load(&t->backup, disk, sector, last);
	if (!t->backup.ok && !t->primary.ok && mbr && protected_end(mbr) > 1)
		copy_load(&t->backup, disk, sector, protected_end(mbr));
}

/* Load @t in the sector size that fits best. */
static void table_find(struct gpt_table *t, struct vdisk *disk, const struct mbr *mbr)
{
	uint32_t own = disk->block_size == 4096 ? 4096 : 512;
	struct gpt_table first = { 0 };

	table_load(&first, disk, own, mbr);
	if (first.primary.ok) {
		*t = first;
		return;
	}
	table_load(t, disk, own == 512 ? 4096 : 512, mbr);
	if (t->primary.ok || (t->backup.ok && !first.backup.ok) ||
	    (!first.backup.ok && t->primary.found && !first.primary.found)) {
		table_clear(&first);
		return;
	}
	table_clear(t);
	*t = first;
}

/* ---- what is told ---- */

static int note_places(struct part_places *places, const struct gpt_copy *c, uint32_t sector)
{
	uint64_t len = (uint64_t)c->h.n_entries * c->h.entry_size;
	int r;

	if (!places || !c->header_ok)
		return 0;
	r = part_places_add(places, c->h.lba * sector, sector);
	if (r < 0)
		return r;
	return part_places_add(places, c->h.entries * sector,
			       (len + sector - 1) / sector * sector);
}

static int list_entries(struct part_list *list, const struct gpt_copy *c, uint32_t sector,
			uint64_t disk_size)
{
	for (uint32_t i = 0; i < c->h.n_entries; i++) {
		struct vdisk_part *p;
		struct gpt_entry e;
		int r = gpt_entry_decode(&e, c->entries + (size_t)i * c->h.entry_size, sector);

		if (r < 0)
			part_problem(list, "the bounds of partition %u make no sense", i + 1);
		if (r <= 0)
			continue;
		if (e.last >= disk_size / sector)
			part_problem(list, "partition %u ends past the disk", i + 1);
		p = part_list_add(list);
		if (!p)
			return -ENOMEM;
		p->number = i + 1;
		p->offset = e.first * sector;
		p->length = (e.last - e.first + 1) * sector;
		p->attrs = e.attrs;
		gpt_guid_text(p->type, e.type);
		gpt_guid_text(p->uuid, e.guid);
		memcpy(p->name, e.name, sizeof(p->name));
	}
	return 0;
}

static bool is_hybrid(const struct mbr *mbr)
{
	for (unsigned i = 0; i < 4; i++)
		if (mbr->entry[i].count && mbr->entry[i].type != MBR_GPT)
			return true;
	return false;
}

static bool copies_differ(const struct gpt_table *t)
{
	return t->primary.ok && t->backup.ok &&
	       (t->primary.h.entries_crc != t->backup.h.entries_crc ||
		t->primary.h.first_usable != t->backup.h.first_usable ||
		t->primary.h.last_usable != t->backup.h.last_usable ||
		t->primary.h.alternate != t->backup.h.lba || t->backup.h.alternate != 1 ||
		memcmp(t->primary.h.guid, t->backup.h.guid, 16) != 0);
}

static void describe(struct part_list *list, const struct gpt_table *t, uint64_t disk_size,
		     const struct mbr *mbr)
{
	struct vdisk_parts *parts = list->parts;
	const struct gpt_copy *c = t->primary.ok ? &t->primary : &t->backup;
	uint64_t last = disk_size / t->sector - 1;

	parts->scheme = "gpt";
	parts->sector_size = t->sector;
	parts->primary_ok = t->primary.ok;
	parts->backup_ok = t->backup.ok;
	parts->backup_misplaced = t->backup.ok && t->backup.h.lba != last;
	parts->hybrid = mbr && is_hybrid(mbr);
	parts->protective = mbr;
	if (!t->primary.ok)
		part_problem(list, "primary table: %s", t->primary.why);
	if (!t->backup.ok)
		part_problem(list, "backup table: %s", t->backup.why);
	if (!c->ok)
		return;
	gpt_guid_text(parts->id, c->h.guid);
	parts->first_usable = c->h.first_usable * t->sector;
	parts->last_usable = (c->h.last_usable + 1) * t->sector;
	if (c->h.last_usable > last)
		part_problem(list, "the table was made for a larger disk");
	else if (parts->backup_misplaced)
		part_problem(list, "the backup table is not at the end of the disk");
	if (copies_differ(t))
		part_problem(list, "primary and backup table differ");
	if (!mbr)
		part_problem(list, "the protective MBR is missing");
}

void gpt_state(struct gpt_state *out, struct vdisk *disk, uint32_t sector_size)
{
	struct gpt_table t = { 0 };
	uint8_t sector[MBR_SIZE];
	struct mbr mbr = { 0 };

	*out = (struct gpt_state) { 0 };
	out->has_mbr = vd_pread(disk, sector, sizeof(sector), 0) == 0 &&
		       mbr_classify(&mbr, sector, disk->size / 512) == MBR_PROTECTIVE;
	table_load(&t, disk, sector_size, out->has_mbr ? &mbr : NULL);
	out->primary = t.primary.h;
	out->backup = t.backup.h;
	out->differ = copies_differ(&t);
	out->fits = (t.primary.ok ? t.primary : t.backup).h.last_usable <
		    disk->size / sector_size - 1;
	table_clear(&t);
}

int gpt_read(struct part_list *list, struct vdisk *disk, const struct mbr *mbr,
	     struct part_places *places, struct vdisk_error *err)
{
	struct gpt_table t = { 0 };
	const struct gpt_copy *c;
	int r = 0;

	if (disk->size < 2 * 512)
		return -ENOENT;
	table_find(&t, disk, mbr);
	if (!mbr && !t.primary.ok) {
		table_clear(&t);
		return -ENOENT;
	}
	describe(list, &t, disk->size, mbr);
	c = t.primary.ok ? &t.primary : &t.backup;
	if (c->ok)
		r = list_entries(list, c, t.sector, disk->size);
	if (r == 0)
		r = note_places(places, &t.primary, t.sector);
	if (r == 0)
		r = note_places(places, &t.backup, t.sector);
	table_clear(&t);
	if (r < 0)
		return vd_fail(err, -r, "out of memory");
	return 0;
}
