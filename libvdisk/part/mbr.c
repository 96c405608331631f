/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mbr.c - master boot records and the chain of logical partitions
 *
 * An MBR is 512 bytes at the start of a disk: boot code, a disk signature at
 * 440, four entries of 16 bytes at 446, 55 AA at 510 (UEFI 2.10, 5.2.1).  The
 * same 55 AA ends the boot sector of FAT, NTFS, exFAT and others, so a file
 * system straight on a disk looks like a table to the careless: what is in
 * the place of the entries is then boot code, or zeroes.  mbr_classify() tells
 * them apart:
 *
 *   - a boot sector that says it is NTFS, exFAT, ReFS or BitLocker is one;
 *   - status bytes other than 00 and 80 are not entries;
 *   - a plausible FAT parameter block is a file system unless there are
 *     partitions that lie on the disk;
 *   - no entries at all is MBR_EMPTY: the caller looks for a file system.
 *
 * Logical partitions are a linked list of extended boot records in a primary
 * entry of type 05, 0F or 85.  In each, data entries count from that record,
 * links count from the start of the extended partition.  Lists from outside
 * may be circular or leave the partition: every record is visited once, must
 * lie inside, and at most EBR_MAX are followed.
 */
#include <errno.h>
#include <stdio.h>

#include "part/part.h"

#define EBR_MAX 1024

static bool has_signature(const uint8_t *sector)
{
	return sector[510] == 0x55 && sector[511] == 0xaa;
}

bool mbr_is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

bool mbr_decode(struct mbr *out, const uint8_t sector[MBR_SIZE])
{
	if (!has_signature(sector))
		return false;
	out->id = load_le32(sector + 440);
	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *p = sector + 446 + 16 * i;

		out->entry[i] = (struct mbr_entry) {
			.status = p[0],
			.type = p[4],
			.start = load_le32(p + 8),
			.count = load_le32(p + 12),
		};
	}
	return true;
}

/* The OEM names of boot sectors that no MBR code carries. */
static bool is_known_boot_sector(const uint8_t *s)
{
	static const char names[][9] = {
		"NTFS    ", "EXFAT   ", "-FVE-FS-", "ReFS\0\0\0\0",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (memcmp(s + 3, names[i], 8) == 0)
			return true;
	return false;
}

/* The parameter block that every FAT and its relatives start with. */
static bool has_fat_bpb(const uint8_t *s)
{
	uint16_t sector = load_le16(s + 11);
	uint8_t media = s[21];

	return (s[0] == 0xeb || s[0] == 0xe9) &&
	       sector >= 128 && sector <= 4096 && vd_is_pow2(sector) &&
	       vd_is_pow2(s[13]) &&			/* sectors in a cluster */
	       load_le16(s + 14) != 0 &&		/* reserved sectors */
	       s[16] >= 1 && s[16] <= 4 &&		/* FATs */
	       (media == 0xf0 || media >= 0xf8);
}

enum mbr_kind mbr_classify(struct mbr *out, const uint8_t sector[MBR_SIZE], uint64_t sectors)
{
	struct mbr mbr;
	unsigned used = 0, on_disk = 0, off_disk = 0;
	bool gpt = false;

	if (!mbr_decode(&mbr, sector))
		return MBR_NONE;
	for (unsigned i = 0; i < 4; i++) {
		const struct mbr_entry *e = &mbr.entry[i];

		if (e->status != 0 && e->status != 0x80)
			return MBR_NONE;
		if (e->count == 0)
			continue;
		used++;
		if (e->type == MBR_GPT)
			gpt = true;
		if (e->start < sectors)
			on_disk++;
		else
			off_disk++;
	}
	if (is_known_boot_sector(sector))
		return MBR_NONE;
	if (has_fat_bpb(sector) && (on_disk == 0 || off_disk > 0))
		return MBR_NONE;
	*out = mbr;
	if (gpt)
		return MBR_PROTECTIVE;
	if (used == 0)
		return MBR_EMPTY;
	return on_disk ? MBR_TABLE : MBR_NONE;
}

/* ---- logical partitions ---- */

struct mbr_reader {
	struct part_list *list;
	struct vdisk *disk;
	struct part_places *places;
	uint64_t sector;	/* bytes */
	uint64_t *seen;		/* owned: records visited, EBR_MAX of them */
	unsigned n_seen;
	unsigned next;		/* number of the next logical partition */
	uint32_t id;
};

static int add_part(struct mbr_reader *r, const struct mbr_entry *e, uint64_t lba, unsigned number)
{
	struct vdisk_part *p = part_list_add(r->list);

	if (!p)
		return -ENOMEM;
	p->number = number;
	/* 33 bits of sectors at most, of 4096 bytes: no overflow */
	p->offset = lba * r->sector;
	p->length = e->count * r->sector;
	p->attrs = e->status & 0x80;
	p->extended = mbr_is_extended(e->type);
	snprintf(p->type, sizeof(p->type), "0x%02x", e->type);
	snprintf(p->uuid, sizeof(p->uuid), "%08x-%02x", r->id, number);
	return 0;
}

static bool visit(struct mbr_reader *r, uint64_t lba)
{
	for (unsigned i = 0; i < r->n_seen; i++)
		if (r->seen[i] == lba)
			return false;
	r->seen[r->n_seen++] = lba;
	return true;
}

/*
 * The data entries of the record at @lba.  The last two are not used by
 * anyone who follows the rules, so they count only if they fit in.
 */
static int read_record(struct mbr_reader *r, const struct mbr *ebr, uint64_t lba,
		       const struct mbr_entry *ext)
{
	uint64_t end = (uint64_t)ext->start + ext->count;

	for (unsigned i = 0; i < 4; i++) {
		const struct mbr_entry *e = &ebr->entry[i];
		uint64_t start = lba + e->start;
		int ret;

		if (e->count == 0 || mbr_is_extended(e->type))
			continue;
		if (e->start == 0 || !vd_in_range(start, e->count, end)) {
			if (i < 2)
				part_problem(r->list, "the logical partition described at sector "
					     "%llu does not lie in its extended partition",
					     (unsigned long long)lba);
			if (i >= 2 || e->start == 0 || start >= end)
				continue;
		}
		ret = add_part(r, e, start, r->next);
		if (ret < 0)
			return ret;
		r->next++;
	}
	return 0;
}

static const struct mbr_entry *find_link(const struct mbr *ebr)
{
	for (unsigned i = 0; i < 4; i++)
		if (ebr->entry[i].count && mbr_is_extended(ebr->entry[i].type))
			return &ebr->entry[i];
	return NULL;
}

/* -ENODATA: no record there. */
static int read_sector(struct mbr_reader *r, uint64_t lba, struct mbr *out)
{
	uint8_t buf[MBR_SIZE];
	uint64_t off = lba * r->sector;
	int ret;

	if (!vd_in_range(off, sizeof(buf), r->disk->size))
		return -ENODATA;
	ret = vd_pread(r->disk, buf, sizeof(buf), off);
	if (ret < 0)
		return ret;
	return mbr_decode(out, buf) ? 0 : -ENODATA;
}

/* Follow the chain of the extended partition @ext. */
static int read_chain(struct mbr_reader *r, const struct mbr_entry *ext)
{
	uint64_t lba = ext->start, from = 0;	/* @from: whose link led to @lba */

	for (;;) {
		const struct mbr_entry *link;
		struct mbr ebr;
		int ret;

		if (r->n_seen == EBR_MAX) {
			part_problem(r->list, "more than %d extended boot records", EBR_MAX);
			return 0;
		}
		if (!visit(r, lba)) {
			part_problem(r->list, "the chain of logical partitions comes back to "
				     "sector %llu", (unsigned long long)lba);
			r->list->bad_link = from * r->sector;
			return 0;
		}
		ret = read_sector(r, lba, &ebr);
		if (ret == -ENODATA) {
			part_problem(r->list, "no extended boot record at sector %llu",
				     (unsigned long long)lba);
			r->list->bad_link = from * r->sector;
			return 0;
		}
		if (ret < 0)
			return ret;
		if (r->places) {
			ret = part_places_add(r->places, lba * r->sector, r->sector);
			if (ret < 0)
				return ret;
		}
		ret = read_record(r, &ebr, lba, ext);
		if (ret < 0)
			return ret;

		link = find_link(&ebr);
		if (!link)
			return 0;
		if (link->start >= ext->count) {
			part_problem(r->list, "the chain of logical partitions leaves its extended "
				     "partition at sector %llu", (unsigned long long)lba);
			r->list->bad_link = lba * r->sector;
			return 0;
		}
		from = lba;
		lba = (uint64_t)ext->start + link->start;
	}
}

/*
 * Sectors of which size?  The disk's; unless an extended partition shows that
 * the table was made for the other size.
 */
static uint64_t sector_size(struct mbr_reader *r, const struct mbr *mbr)
{
	uint32_t own = r->disk->block_size == 4096 ? 4096 : 512;
	uint32_t other = own == 512 ? 4096 : 512;

	for (unsigned i = 0; i < 4; i++) {
		const struct mbr_entry *e = &mbr->entry[i];
		struct mbr ebr;

		if (!e->count || !mbr_is_extended(e->type))
			continue;
		r->sector = own;
		if (read_sector(r, e->start, &ebr) == 0)
			return own;
		r->sector = other;
		return read_sector(r, e->start, &ebr) == 0 ? other : own;
	}
	return own;
}

int mbr_read(struct part_list *list, struct vdisk *disk, const struct mbr *mbr,
	     struct part_places *places, struct vdisk_error *err)
{
	AUTO_FREE uint64_t *seen = calloc(EBR_MAX, sizeof(*seen));
	struct mbr_reader r = {
		.list = list, .disk = disk, .places = places, .seen = seen, .next = 5,
		.id = mbr->id,
	};
	int ret = 0;

	if (!seen)
		return vd_fail(err, ENOMEM, "out of memory");
	r.sector = sector_size(&r, mbr);
	list->parts->scheme = "dos";
	list->parts->sector_size = (uint32_t)r.sector;
	snprintf(list->parts->id, sizeof(list->parts->id), "%08x", mbr->id);

	for (unsigned i = 0; i < 4 && ret == 0; i++)
		if (mbr->entry[i].count)
			ret = add_part(&r, &mbr->entry[i], mbr->entry[i].start, i + 1);
	for (unsigned i = 0; i < 4 && ret == 0; i++)
		if (mbr->entry[i].count && mbr_is_extended(mbr->entry[i].type))
			ret = read_chain(&r, &mbr->entry[i]);
	if (ret < 0)
		return vd_fail(err, -ret, "%s: reading the partition table: %s", disk->name,
			       strerror(-ret));
	return 0;
}
