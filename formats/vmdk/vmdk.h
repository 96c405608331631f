/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk.h - VMware's virtual disks, as they are on the medium
 *
 * After VMware's "Virtual Disk Format 5.0" technical note.  A disk is described by
 * a text, the descriptor, and consists of extents, one after the other: flat files
 * (plain bytes), ranges of zeroes, and sparse files.  A sparse file begins with a
 * header; a grain directory (GD) points to grain tables (GT), and an entry of those
 * (GTE) to a grain, commonly 64 KiB.  All of that is counted in sectors of 512
 * bytes, and little-endian.  There is a second, redundant copy of directory and
 * tables, but not of grains.
 *
 * Subformats, as the descriptor's createType says:
 *
 *	monolithicSparse	one sparse file, which has the descriptor in it
 *	twoGbMaxExtentSparse	a descriptor file, and sparse files of about 2 GiB
 *	monolithicFlat		a descriptor file and one flat file
 *	twoGbMaxExtentFlat	a descriptor file and several
 *	streamOptimized		one sparse file with compressed grains, written from
 *				front to back: its directory is at the end
 */
#ifndef VD_VMDK_H
#define VD_VMDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vdisk_error;

#define VMDK_SECTOR		512u

/* ---- the header of a sparse file (header.c) ---- */

#define VMDK_MAGIC		0x564d444bu	/* "KDMV" */
#define COWD_MAGIC		0x44574f43u	/* "COWD": ESX 3 and older */
#define VMDK_GD_AT_END		UINT64_MAX

#define VMDK_FLAG_NEWLINES	(1u << 0)
#define VMDK_FLAG_REDUNDANT	(1u << 1)
#define VMDK_FLAG_ZERO_GRAINS	(1u << 2)	/* a GTE of 1 is a grain of zeroes */
#define VMDK_FLAG_COMPRESSED	(1u << 16)
#define VMDK_FLAG_MARKERS	(1u << 17)

#define VMDK_DEFLATE		1u

/* where the byte "was not closed" is */
#define VMDK_UNCLEAN_AT		72u

struct vmdk_header {
	bool cowd;
	uint32_t version;
	uint32_t flags;
	uint64_t capacity;	/* this and all below: sectors, if not said otherwise */
	uint64_t grain;
	uint64_t desc_at, desc_len;	/* 0: no descriptor in this file */
	uint32_t gtes;		/* in a grain table */
	uint64_t rgd_at, gd_at;
	uint64_t overhead;
	bool unclean;
	uint16_t algorithm;
};

/*
 * The header in the 512 bytes at @p.  -EINVAL or -ENOTSUP, and @why: a sentence that
 * stays.  All limits are checked that the sector alone tells: what comes out can be
 * multiplied without overflow.
 */
int vmdk_header_decode(struct vmdk_header *h, const uint8_t *p, const char **why);
void vmdk_header_encode(const struct vmdk_header *h, uint8_t *p);
/* Entries of the directory. */
uint32_t vmdk_gd_entries(const struct vmdk_header *h);

/* Markers of a stream-optimized file. */
enum { VMDK_EOS = 0, VMDK_GT = 1, VMDK_GD = 2, VMDK_FOOTER = 3 };
#define VMDK_MARKER_BYTES	12u	/* before a grain: lba, length */
/* A metadata marker: one sector. */
void vmdk_marker_encode(uint8_t *p, uint64_t sectors, uint32_t type);

/* ---- the descriptor (descriptor.c) ---- */

#define VMDK_NO_PARENT		UINT32_MAX
#define VMDK_MAX_DESCRIPTOR	(1u << 20)
#define VMDK_MAX_EXTENTS	4096u

enum vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };
enum vmdk_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };

struct vmdk_line {
	enum vmdk_access access;
	enum vmdk_kind kind;
	uint64_t sectors;
	uint64_t offset;	/* FLAT: where in the file, sectors */
	char *name;		/* owned; NULL: ZERO */
};

struct vmdk_descriptor {
	uint32_t cid;
	uint32_t parent_cid;
	size_t cid_at, parent_cid_at;	/* where in the text their digits are ... */
	unsigned cid_digits, parent_cid_digits;	/* ... and how many */
	char *type;		/* owned: createType */
	char *adapter;		/* owned: ddb.adapterType, or NULL */
	char *parent;		/* owned: parentFileNameHint, or NULL */
	struct vmdk_line *line;	/* owned */
	unsigned n_lines;
};

/* Is that how a descriptor begins? */
bool vmdk_descriptor_begins(const uint8_t *p, size_t len);
/* 0, -ENOMEM, -EINVAL or -ENOTSUP with a sentence.  @text need not end with a NUL. */
int vmdk_descriptor_parse(struct vmdk_descriptor *d, const char *text, size_t len,
			  struct vdisk_error *err);
void vmdk_descriptor_clear(struct vmdk_descriptor *d);

#endif
