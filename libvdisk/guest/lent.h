/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lent.h - file systems of a guest that we have no driver for, read for the jailed child
 *
 * The child that inspects a disk has the disk's bytes and our own drivers.  A file system
 * that only the host's kernel reads (XFS, btrfs ...) stays with the parent, which answers
 * the child's questions about it: names, attributes, bytes, and nothing else.
 */
#ifndef VD_GUEST_LENT_H
#define VD_GUEST_LENT_H

#include "fs/fs.h"

struct vd_lent_fs {
	char volume[264];	/* the volume that it is on: "p2", "vg0/root", "" for the disk */
	/* the directory of it that is shown as its root, "@" or "@/.snapshots/1/snapshot", where
	 * a boot loader's paths begin with it; "" */
	char inside[64];
	struct vdisk_fs *fs;	/* borrowed */
};

/* vdisk_inspect() and vdisk_boot_list() with such file systems. */
int vd_inspect(struct vdisk_inspection **out, struct vdisk *disk, const struct vd_lent_fs *lent,
	       unsigned n_lent, struct vdisk_error *err);
int vd_boot_list(struct vdisk *disk, const struct vd_lent_fs *lent, unsigned n_lent,
		 struct vdisk_boot **out, int *chosen, struct vdisk_error *err);

/* ---- the questions, between jail.c and lent.c ---- */

enum vd_lent_what { LENT_LOOKUP, LENT_STAT, LENT_LIST, LENT_READLINK, LENT_READ };

struct vd_lent_question {
	uint32_t fs;		/* which of them */
	uint32_t what;		/* enum vd_lent_what */
	uint64_t node;
	uint64_t off;		/* READ: in the file; LIST: entries to leave out */
	uint32_t len;		/* bytes that may come back */
	char name[VD_NAME_MAX + 1];	/* LOOKUP */
};

/*
 * In the parent: answer a question, which is untrusted.  Bytes in @buf, at most @size, or
 * -errno.  LIST: for each entry the node, the length of its name (u16) and the name, until
 * there is no more room; nothing at the end.
 */
ssize_t vd_lent_answer(const struct vd_lent_fs *lent, unsigned n_lent,
		       const struct vd_lent_question *q, void *buf, size_t size);

struct jail;
/*
 * In the child: the file system on that volume, and what stands before its paths (borrowed); -ENOENT.
 */
int vd_lent_open(struct vdisk_fs **out, const char **inside, struct vdisk *disk,
		 struct jail *jail, const char *volume);

#endif
