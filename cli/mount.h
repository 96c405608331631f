/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.h - between vdisk mount and the two ways of doing it */
#ifndef CLI_MOUNT_H
#define CLI_MOUNT_H

#include "cli/cli.h"
#include "cli/running.h"

struct mount_args {
	bool all, read_only, foreground, allow_other, permissions, fuse;
	const char *options, *type;
	const char *lvm;	/* the snapshot that is mounted, which goes afterwards; else NULL */
};

/* ---- what is to be mounted ---- */

struct mount_point {
	char path[256];		/* in the guest: "/", "/boot/efi" */
	struct vdisk *volume;	/* owned reference; NULL: it is a bind mount of @bind */
	char name[264];		/* of the volume, as the PART of a locator */
	char bind[256];		/* in the guest */
	char options[256];	/* for the kernel: the ones of fstab that are harmless */
	bool read_only;
};

struct mount_plan {
	struct mount_point *point;	/* owned; the root first, each after what it needs */
	unsigned n;
};

/* The one volume that is meant, or with a->all the tree that the guest's fstab describes.
 * What is left out is said, with the reason. */
int mount_plan(struct mount_plan *out, struct vdisk *disk, const char *part,
	       const struct mount_args *a, bool by_kernel);
void mount_plan_clear(struct mount_plan *plan);

/*
 * The two ways; both return when all is unmounted again.  @r is new, and for the caller
 * to end, when the disk is closed: who waits for that shall find the disk free.  What
 * could not be saved is in @problem.
 */
int mount_fuse(struct running *r, const struct mount_plan *plan, const char *locator,
	       const char *dir, const struct mount_args *a, struct vdisk_error *problem);
int mount_kernel(struct running *r, const struct mount_plan *plan, const char *locator,
		 const char *dir, const struct mount_args *a, struct vdisk_error *problem);

/* Write down what is mounted where, for those who ask or clear up. */
int mount_describe(struct running *r, const char *locator, const char *dir, const char *type,
		   const char *how, const struct mount_args *a);

#endif
