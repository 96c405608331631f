/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lvm.h - LVM2 inside a disk, between the files of this directory
 *
 *   label.c    bytes of a physical volume -> where it is, which areas it has
 *   config.c   metadata text -> tree
 *   group.c    tree -> a volume group, checked
 *   scan.c     disks -> physical volumes -> groups: whose word counts
 *   volume.c   a logical volume as a disk: the map
 *   edit.c     text -> the same with other names and UUIDs (pure, too)
 *   write.c    that text, into all metadata areas of a group
 *
 * Everything up to group.c is pure: bytes in, checked host-order structs out.
 * Offsets and sizes are bytes, extents are numbers of extents.
 */
#ifndef VD_LVM_H
#define VD_LVM_H

#include "core/driver.h"

#define LVM_SECTOR	512u
#define LVM_ID_LEN	32u	/* characters of an identifier, on the medium */
#define LVM_ID_TEXT	40u	/* the same with its dashes and a NUL */
#define LVM_NAME_MAX	127u	/* of groups and volumes */

/* The CRC-32 of LVM: other start value, no final inversion. */
uint32_t lvm_crc(const void *buf, size_t len);
/* "abcdef-ghij-..."; false unless @id is made of the characters of identifiers. */
bool lvm_id_text(char out[LVM_ID_TEXT], const uint8_t id[LVM_ID_LEN]);

/* ---- labels and areas (label.c) ---- */

struct lvm_area {
	uint64_t offset;
	uint64_t length;	/* 0: up to the end of the device */
};

#define LVM_AREAS_MAX	8u	/* LVM2 writes one data and up to two metadata areas */
#define LVM_LABEL_SCAN	(4u * LVM_SECTOR)

struct lvm_label {
	char uuid[LVM_ID_TEXT];
	uint64_t size;		/* of the device, as it was when the label was written */
	struct lvm_area data[LVM_AREAS_MAX];
	unsigned n_data;
	struct lvm_area meta[LVM_AREAS_MAX];
	unsigned n_meta;
};

/*
 * Find the label in the first LVM_LABEL_SCAN bytes of a device.  0, -ENOENT
 * (there is none) or -EINVAL with a reason in @why.
 */
int lvm_label_decode(struct lvm_label *out, const uint8_t *head, size_t len, const char **why);

#define LVM_MDA_HEADER	512u	/* the text's ring begins behind it */

struct lvm_text_place {
	uint64_t offset;	/* of the text, from the start of the area */
	uint64_t size;
	uint32_t crc;
	bool ignored;		/* "vgchange --metadatacopies": not kept up to date */
	bool empty;		/* of no group (yet) */
};

/*
 * Decode the header of the metadata area @area (its length is known, not 0).
 * 0 or -EINVAL with a reason.  The text lies in the ring behind the header.
 */
int lvm_mda_decode(struct lvm_text_place *out, const uint8_t header[LVM_MDA_HEADER],
		   const struct lvm_area *area, const char **why);

#define LVM_TEXT_MAX	(16u << 20)

/*
 * The text of @place, put together from its one or two pieces, checked, with
 * a NUL behind it.  free() it.  0, -EINVAL with a reason, or -errno of reading.
 */
int lvm_text_read(char **out, size_t *len, struct vdisk *device, const struct lvm_area *area,
		  const struct lvm_text_place *place, const char **why);

/* ---- the text format (config.c) ---- */

enum lvm_node_type { LVM_SECTION, LVM_STRING, LVM_NUMBER, LVM_ARRAY };

/*
 * Nodes lie in one array and point at each other by index; 0, the root, ends
 * lists.  Elements of an array are nodes without a name.
 */
struct lvm_node {
	const char *name;	/* into the text; "" for elements and the root */
	const char *string;	/* STRING */
	int64_t number;		/* NUMBER */
	uint32_t child;		/* SECTION, ARRAY: the first one */
	uint32_t next;
	/* where in the text: the value with its quotes; of a SECTION its name (not of an ARRAY) */
	uint32_t at, end;
	enum lvm_node_type type;
};

struct lvm_config {
	struct lvm_node *node;	/* owned */
	uint32_t count, room;
	char *text;		/* owned; names and strings point into it */
};

#define LVM_DEPTH_MAX	16u
#define LVM_NODES_MAX	(1u << 20)

/* Takes @text (NUL-terminated, malloc'ed), also on failure.  0, -EINVAL, -ENOMEM. */
int lvm_config_parse(struct lvm_config *out, char *text, size_t len, struct vdisk_error *err);
void lvm_config_clear(struct lvm_config *c);
/* A child by its name; NULL. */
const struct lvm_node *lvm_find(const struct lvm_config *c, const struct lvm_node *in,
				const char *name);
/* The first child and the next sibling; NULL at the end. */
const struct lvm_node *lvm_first(const struct lvm_config *c, const struct lvm_node *in);
const struct lvm_node *lvm_next(const struct lvm_config *c, const struct lvm_node *n);
/* false: not there, or not of that type (negative, for numbers). */
bool lvm_get_number(const struct lvm_config *c, const struct lvm_node *in, const char *name,
		    uint64_t *out);
bool lvm_get_string(const struct lvm_config *c, const struct lvm_node *in, const char *name,
		    const char **out);
/* Is the string in the array @name? */
bool lvm_has_flag(const struct lvm_config *c, const struct lvm_node *in, const char *name,
		  const char *flag);

/* ---- a volume group (group.c) ---- */

enum lvm_seg_kind {
	LVM_STRIPED,	/* over physical volumes and other volumes; linear: one leg */
	LVM_RAID0,	/* striped over whole volumes */
	LVM_RAID1,	/* copies with a superblock volume each */
	LVM_MIRROR,	/* copies, the first of which counts */
	LVM_OTHER,	/* not mapped */
};

struct lvm_leg {
	bool is_lv;
	uint32_t index;		/* into pv[] or lv[] */
	uint64_t start;		/* first extent */
	uint32_t meta;		/* RAID1: the volume with the superblock, else UINT32_MAX */
};

struct lvm_seg {
	uint64_t start, count;	/* extents of the volume */
	uint64_t leg_count;	/* extents of each leg */
	enum lvm_seg_kind kind;
	uint64_t stripe_size;	/* bytes; 0 with one leg */
	struct lvm_leg *leg;	/* owned */
	uint32_t n_legs;
};

struct lvm_pv {
	char id[LVM_ID_TEXT];
	uint64_t pe_start;
	uint64_t pe_count;
	bool lost;		/* the group says that it is missing */
	int found;		/* the scan's index of the device, -1: not there */
	struct vdisk_pv *shown;	/* borrowed: the public face */
};

struct lvm_lv {
	struct lvm_seg *seg;	/* owned, by start */
	uint32_t n_segs;
	bool rebuilding;	/* a leg that is not complete yet */
	const char *fixed;	/* why it must not be written, or NULL */
	int code;		/* errno value to shown->reason, or 0 */
	bool checked, checking;	/* see check_lv() */
	struct vdisk_lv *shown;	/* borrowed: the public face */
};

struct lvm_group {
	struct vdisk_vg shown;	/* the public face */
	struct vdisk_pv *shown_pv;	/* owned: shown.pv */
	struct vdisk_lv *shown_lv;	/* owned: shown.lv */
	uint64_t extent_size;
	struct lvm_pv *pv;	/* owned, in the order of shown.pv */
	struct lvm_lv *lv;	/* owned, in the order of shown.lv */
};

#define LVM_STACK_MAX	8u	/* volumes on volumes */

/*
 * Make a group of the text of one metadata area.  What is wrong with a single
 * volume is noted as its reason; what is wrong with the whole is -EINVAL.
 */
int lvm_group_parse(struct lvm_group **out, const struct lvm_config *c, struct vdisk_error *err);
/* The section of the group, and its physical_volumes; NULL. */
const struct lvm_node *lvm_group_find(const struct lvm_config *c, const struct lvm_node **pvs);
/* A name as LVM allows it; it becomes part of locators and messages. */
bool lvm_good_name(const char *name);
void lvm_group_free(struct lvm_group *g);

/* Bytes with a label in front: a disk or one of its partitions. */
struct lvm_device {
	struct vdisk *disk;	/* owned reference: the whole disk */
	uint64_t start;		/* of the device on it */
	uint64_t size;
	struct lvm_label label;	/* uuid "": it has none that holds */
	char vg[LVM_ID_TEXT];	/* the group that its own metadata is of, or "" */
	struct vdisk_pv shown;
};

/* Say of each volume whether it can be used; pv[].found (into @dev) is known. */
int lvm_group_check(struct lvm_group *g, const struct lvm_device *dev, struct vdisk_error *err);

/* ---- all together (scan.c) ---- */

struct vdisk_lvm {
	struct lvm_device *dev;	/* owned */
	unsigned n_devs, room;
	struct lvm_group **group;	/* owned */
	unsigned n_groups;
};

/* The group of that name or UUID.  -ENOENT, -ENOTUNIQ. */
int lvm_choose_group(const struct lvm_group **out, const struct vdisk_lvm *lvm, const char *name,
		     struct vdisk_error *err);

/* ---- changing (edit.c) ---- */

/*
 * @text (@len bytes, without a NUL) with @change, and the next sequence number.
 * What is not touched stays as it is to the byte.  free() @out, which has a NUL
 * behind its @out_len bytes.
 */
int lvm_text_change(char **out, size_t *out_len, const char *text, size_t len,
		    const struct vdisk_lvm_change *change, struct vdisk_error *err);

/* ---- volumes (volume.c) ---- */

/* A volume without a reason against it; @writable: nor is it ->fixed. */
int lvm_volume_open(struct vdisk **out, const struct lvm_device *dev, const struct lvm_group *g,
		    const struct lvm_lv *lv, bool writable, struct vdisk_error *err);

#endif
