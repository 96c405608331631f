/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * part.h - partition tables, between the files of this directory
 *
 * Decoders are pure: bytes in, checked host-order structs out.  Readers fetch
 * the bytes of a disk and hand them to the decoders.
 */
#ifndef VD_PART_H
#define VD_PART_H

#include "core/driver.h"

/* ---- MBR (mbr.c) ---- */

struct mbr_entry {
	uint8_t status;		/* 0x80 active, 0x00 not */
	uint8_t type;
	uint32_t start;		/* sectors, relative to what the table says */
	uint32_t count;		/* 0: the entry is empty */
};

struct mbr {
	uint32_t id;		/* disk signature */
	struct mbr_entry entry[4];
};

enum mbr_kind {
	MBR_NONE,		/* no table: nothing there, or a boot sector of a file system */
	MBR_EMPTY,		/* could be a table, without any partition in it */
	MBR_TABLE,
	MBR_PROTECTIVE,		/* has an entry of type 0xEE: a GPT follows */
};

#define MBR_SIZE	512
#define MBR_GPT		0xee	/* type of the protective entry */

/* false: no 55 AA at the end, @out untouched. */
bool mbr_decode(struct mbr *out, const uint8_t sector[MBR_SIZE]);
/* What the first sector of a disk of @sectors sectors is.  @out is set unless MBR_NONE. */
enum mbr_kind mbr_classify(struct mbr *out, const uint8_t sector[MBR_SIZE], uint64_t sectors);
bool mbr_is_extended(uint8_t type);

/* ---- GPT (gpt.c) ---- */

struct gpt_header {
	uint64_t lba;		/* of this header */
	uint64_t alternate;	/* of the other one */
	uint64_t first_usable;	/* LBA */
	uint64_t last_usable;	/* LBA, inclusive */
	uint64_t entries;	/* LBA of the array */
	uint32_t n_entries;
	uint32_t entry_size;
	uint32_t entries_crc;
	uint8_t guid[16];
};

struct gpt_entry {
	uint8_t type[16];
	uint8_t guid[16];
	uint64_t first, last;	/* LBA, inclusive; first <= last, no overflow in bytes */
	uint64_t attrs;
	char name[112];		/* UTF-8 */
};

#define GPT_HEADER_SIZE	92
#define GPT_ENTRY_SIZE	128
#define GPT_ARRAY_MAX	(4u << 20)	/* bytes of entries that we are willing to read */

/*
 * Decode the header in @sector (of @sector_size bytes) that was read from
 * @lba of a disk of @sectors sectors.  0, -ENOENT (no signature) or -EINVAL
 * with a reason in @why.
 */
int gpt_header_decode(struct gpt_header *out, const uint8_t *sector, uint32_t sector_size,
		      uint64_t lba, uint64_t sectors, const char **why);
/* 1: used, 0: empty, -EINVAL: its numbers make no sense. */
int gpt_entry_decode(struct gpt_entry *out, const uint8_t *bytes, uint32_t sector_size);
/* "12345678-..." in lower case; @out has 37 bytes. */
void gpt_guid_text(char *out, const uint8_t guid[16]);

/* ---- reading a whole table ---- */

/* What readers fill in; grows as needed. */
struct part_list {
	struct vdisk_parts *parts;	/* owned */
	unsigned room;
	/* for those who want every finding, not only the first; may be NULL */
	void (*report)(void *arg, const char *finding);
	void *arg;
	unsigned findings;
	uint64_t bad_link;		/* MBR: the boot record whose link leads astray, or 0 */
};

/* A new partition at the end; NULL: no memory. */
struct vdisk_part *part_list_add(struct part_list *list);
/* Note what is wrong with the table: all is reported, the first finding stays. */
void part_problem(struct part_list *list, const char *fmt, ...) PRINTF_FMT(2, 3);

/*
 * A place that the table's own structures occupy: for editors, which must
 * take them along.
 */
struct part_place {
	uint64_t offset;
	uint64_t length;
};

struct part_places {
	struct part_place *place;	/* owned */
	unsigned count, room;
};

int part_places_add(struct part_places *places, uint64_t offset, uint64_t length);

/* Read an MBR and its logical partitions; @places (may be NULL) gets the boot records. */
int mbr_read(struct part_list *list, struct vdisk *disk, const struct mbr *mbr,
	     struct part_places *places, struct vdisk_error *err);
/* Read a GPT.  @mbr is the protective one, NULL if there is none: then only a
 * faultless primary counts.  -ENOENT: there is no GPT. */
int gpt_read(struct part_list *list, struct vdisk *disk, const struct mbr *mbr,
	     struct part_places *places, struct vdisk_error *err);
/* Both headers, as far as they are good, for repair. */
struct gpt_state {
	struct gpt_header primary, backup;
	bool has_mbr;		/* a protective one */
	bool differ;		/* the copies do not say the same */
	bool fits;		/* the usable range lies on the disk */
};
void gpt_state(struct gpt_state *out, struct vdisk *disk, uint32_t sector_size);
/* Read whatever table there is into @list, whose parts are set on success. */
int part_list_read(struct part_list *list, struct vdisk *disk, struct part_places *places,
		   struct vdisk_error *err);
/* vdisk_parts_read(), and where the table is. */
int part_table_read(struct vdisk_parts **out, struct vdisk *disk, struct part_places *places,
		    struct vdisk_error *err);

/* The GPT, whatever the first sector says; one without a scheme if there is none. */
int part_gpt_read(struct vdisk_parts **out, struct vdisk *disk, struct vdisk_error *err);

/* ---- type names (types.c) ---- */

struct part_types;		/* the tables of libfdisk */
struct part_types *part_types_new(void);
void part_types_free(struct part_types *t);
/* Put the name of type @type ("0x83", a GUID) of @scheme into @out; "" if unknown. */
void part_type_name(struct part_types *t, const char *scheme, const char *type, char *out,
		    size_t size);

/* What type @type of the other scheme is in @scheme; Linux, if nothing fits better. */
void part_type_convert(char out[40], const char *scheme, const char *type);

#endif
