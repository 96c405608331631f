/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * swap.c - swap space of Linux: make it, name it
 *
 * The first page is the header (linux/swap.h, union swap_header): at 1024 the
 * version, the last page, the number of bad pages, 16 bytes each of UUID and
 * label; at its end the signature.  Pages are taken to have 4096 bytes, numbers
 * to be little-endian.
 */
#include <errno.h>
#include <stdio.h>

#include "fs/volume.h"

#define PAGE		4096u
#define INFO		1024u
#define UUID_AT		(INFO + 12)
#define LABEL_AT	(INFO + 28)
#define LABEL_MAX	15u
#define SIGNATURE	"SWAPSPACE2"
#define SIGNATURE_AT	(PAGE - 10)

bool vd_is_swap(struct vdisk *disk)
{
	uint8_t sig[10];

	return vdisk_size(disk) >= 2 * PAGE &&
	       vd_pread(disk, sig, sizeof(sig), SIGNATURE_AT) == 0 &&
	       !memcmp(sig, SIGNATURE, sizeof(sig));
}

static int write_failed(struct vdisk *disk, int r, struct vdisk_error *err)
{
	return r < 0 ? vd_fail(err, -r, "%s: cannot write the swap header: %s", vdisk_name(disk),
			       strerror(-r)) : 0;
}

int vd_swap_set_label(struct vdisk *disk, const char *label, struct vdisk_error *err)
{
	char field[16] = "";
	int r;

	if (strlen(label) > LABEL_MAX)
		return vd_fail(err, EINVAL, "'%s': a label of swap space has at most %u bytes",
			       label, LABEL_MAX);
	memcpy(field, label, strlen(label));
	r = vd_pwrite(disk, field, sizeof(field), LABEL_AT);
	return write_failed(disk, r == 0 ? vdisk_flush(disk) : r, err);
}

int vd_swap_set_uuid(struct vdisk *disk, const uint8_t uuid[16], struct vdisk_error *err)
{
	int r = vd_pwrite(disk, uuid, 16, UUID_AT);

	return write_failed(disk, r == 0 ? vdisk_flush(disk) : r, err);
}

int vdisk_make_swap(struct vdisk *disk, const char *label, const char *uuid,
		    struct vdisk_error *err)
{
	uint64_t pages = vdisk_size(disk) / PAGE;
	uint8_t page[PAGE] = { 0 };
	int r;

	if (pages < 10)
		return vd_fail(err, EINVAL, "%s: too small for swap space", vdisk_name(disk));
	if (label && strlen(label) > LABEL_MAX)
		return vd_fail(err, EINVAL, "'%s': a label of swap space has at most %u bytes",
			       label, LABEL_MAX);
	r = vd_uuid_parse(uuid ? uuid : "random", page + UUID_AT, err);
	if (r < 0)
		return r;
	store_le32(page + INFO, 1);
	store_le32(page + INFO + 4, (uint32_t)MIN(pages - 1, (uint64_t)UINT32_MAX));
	if (label)
		memcpy(page + LABEL_AT, label, strlen(label));
	memcpy(page + SIGNATURE_AT, SIGNATURE, sizeof(SIGNATURE) - 1);
	r = vd_pwrite(disk, page, sizeof(page), 0);
	return write_failed(disk, r == 0 ? vdisk_flush(disk) : r, err);
}
