/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * label.c - the binary structures of a physical volume
 *
 * One of the first four sectors of the device is the label.  It holds the PV
 * header: who it is, and two lists of areas, each ended by an entry of zeroes:
 * where extents are, and where metadata is.  (An extension may follow with
 * flags and the areas of boot loaders; nothing of it concerns us.)
 *
 *	label		 0 "LABELONE"   8 le64 sector   16 le32 CRC of bytes 20 to 511
 *			20 le32 offset of the PV header   24 "LVM2 001"
 *	PV header	 0 uuid[32]   32 le64 device size   40 areas
 *	area		 0 le64 offset   8 le64 size
 *
 * A metadata area begins with a sector of its own, and the rest is a ring into
 * which each new text of the group is written behind the last one; what does
 * not fit before the end goes on at its start, 512 bytes into the area.
 *
 *	area header	 0 le32 CRC of bytes 4 to 511   4 magic[16]   20 le32 version
 *			24 le64 start of this area   32 le64 its size   40 slots
 *	slot		 0 le64 offset   8 le64 size   16 le32 CRC of the text
 *			20 le32 flags (1: ignored)
 *
 * Slot 0 is the committed text.  Slot 1 is one that was being written and may
 * or may not be whole: it never counts.
 */
#include <ctype.h>
#include <errno.h>
#include <zlib.h>

#include "lvm/lvm.h"

#define CRC_START	0xf597a6cfu
#define SLOT_IGNORED	1u

static const uint8_t mda_magic[16] = {
	' ', 'L', 'V', 'M', '2', ' ', 'x', '[', '5', 'A', '%', 'r', '0', 'N', '*', '>',
};

uint32_t lvm_crc(const void *buf, size_t len)
{
	return ~(uint32_t)crc32_z(~CRC_START, buf, len);
}

bool lvm_id_text(char out[LVM_ID_TEXT], const uint8_t id[LVM_ID_LEN])
{
	static const uint8_t group[] = { 6, 4, 4, 4, 4, 4, 6 };
	char *p = out;

	for (unsigned i = 0; i < LVM_ID_LEN; i++)
		if (!isalnum(id[i]) && id[i] != '!' && id[i] != '#')
			return false;
	for (unsigned i = 0; i < ARRAY_SIZE(group); i++) {
		if (i)
			*p++ = '-';
		memcpy(p, id, group[i]);
		p += group[i];
		id += group[i];
	}
	*p = '\0';
	return true;
}

/* A list of areas in [*pos, end) of @sector, up to its zero entry.  NULL, or what is wrong. */
static const char *areas_decode(struct lvm_area *area, unsigned *n, const uint8_t *sector,
				size_t *pos)
{
	for (*n = 0; ; ) {
		struct lvm_area a;
		uint64_t end;

		if (*pos + 16 > LVM_SECTOR)
			return "its list of areas does not end";
		a.offset = load_le64(sector + *pos);
		a.length = load_le64(sector + *pos + 8);
		*pos += 16;
		if (!a.offset)
			return NULL;
		if (!vd_add(a.offset, a.length, &end) || a.offset % LVM_SECTOR)
			return "an area has an impossible place";
		if (*n == LVM_AREAS_MAX)
			return "it has too many areas";
		area[(*n)++] = a;
	}
}

static int header_decode(struct lvm_label *out, const uint8_t *sector, size_t pos,
			 const char **why)
{
	struct lvm_label l;

	if (pos < 32 || pos > LVM_SECTOR - 40) {
		*why = "its header is outside of the label";
		return -EINVAL;
	}
	if (!lvm_id_text(l.uuid, sector + pos)) {
		*why = "its UUID is none";
		return -EINVAL;
	}
	l.size = load_le64(sector + pos + 32);
	pos += 40;
	*why = areas_decode(l.data, &l.n_data, sector, &pos);
	if (!*why)
		*why = areas_decode(l.meta, &l.n_meta, sector, &pos);
	if (*why)
		return -EINVAL;
	*out = l;
	return 0;
}

int lvm_label_decode(struct lvm_label *out, const uint8_t *head, size_t len, const char **why)
{
	int r = -ENOENT;

	for (size_t at = 0; at + LVM_SECTOR <= MIN(len, (size_t)LVM_LABEL_SCAN); at += LVM_SECTOR) {
		const uint8_t *s = head + at;

		if (memcmp(s, "LABELONE", 8) != 0 || memcmp(s + 24, "LVM2 001", 8) != 0)
			continue;
		/* one that does not hold is passed over for a good one behind it */
		r = -EINVAL;
		if (load_le64(s + 8) != at / LVM_SECTOR) {
			*why = "its label was written for another sector";
			continue;
		}
		if (load_le32(s + 16) != lvm_crc(s + 20, LVM_SECTOR - 20)) {
			*why = "the checksum of its label is wrong";
			continue;
		}
		return header_decode(out, s, load_le32(s + 20), why);
	}
	return r;
}

int lvm_mda_decode(struct lvm_text_place *out, const uint8_t h[LVM_MDA_HEADER],
		   const struct lvm_area *area, const char **why)
{
	struct lvm_text_place p = {
		.offset = load_le64(h + 40), .size = load_le64(h + 48),
		.crc = load_le32(h + 56), .ignored = load_le32(h + 60) & SLOT_IGNORED,
	};

	if (load_le32(h) != lvm_crc(h + 4, LVM_MDA_HEADER - 4))
		*why = "the checksum of a metadata area is wrong";
	else if (memcmp(h + 4, mda_magic, sizeof(mda_magic)) != 0 || load_le32(h + 20) != 1)
		*why = "a metadata area is of an unknown kind";
	else if (load_le64(h + 24) != area->offset || load_le64(h + 32) != area->length)
		*why = "a metadata area says that it belongs elsewhere";
	else if (area->length <= LVM_MDA_HEADER)
		*why = "a metadata area is too small";
	else
		*why = NULL;
	if (*why)
		return -EINVAL;
	p.empty = p.offset == 0;
	if (!p.empty && (p.offset < LVM_MDA_HEADER || p.offset >= area->length ||
			 p.size == 0 || p.size > area->length - LVM_MDA_HEADER)) {
		*why = "a metadata area points outside of itself";
		return -EINVAL;
	}
	*out = p;
	return 0;
}

int lvm_text_read(char **out, size_t *len, struct vdisk *device, const struct lvm_area *area,
		  const struct lvm_text_place *place, const char **why)
{
	uint64_t first = MIN(place->size, area->length - place->offset);
	AUTO_FREE char *text = NULL;
	int r;

	*why = NULL;
	if (place->size > LVM_TEXT_MAX) {
		*why = "its metadata is larger than anything sane";
		return -EINVAL;
	}
	text = malloc((size_t)place->size + 1);
	if (!text)
		return -ENOMEM;
	r = vd_pread(device, text, (size_t)first, area->offset + place->offset);
	if (r == 0 && first < place->size)
		r = vd_pread(device, text + first, (size_t)(place->size - first),
			     area->offset + LVM_MDA_HEADER);
	if (r < 0)
		return r;
	if (lvm_crc(text, (size_t)place->size) != place->crc) {
		*why = "the checksum of its metadata is wrong";
		return -EINVAL;
	}
	text[place->size] = '\0';
	*len = (size_t)place->size;
	*out = STEAL(text);
	return 0;
}
