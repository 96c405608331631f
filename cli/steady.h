/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* steady.h - reading a disk that somebody else is writing, as it was at one moment */
#ifndef CLI_STEADY_H
#define CLI_STEADY_H

#include "cli/cli.h"

struct steady {
	char *lvm;		/* owned: "VG/LV" of the snapshot that was made; else NULL */
};

/* Does somebody write it, so that steady_open() would not just open it? */
bool steady_needed(const char *locator);

/*
 * Open a disk read-only.  One that is being written elsewhere is read from a snapshot, where
 * there is a way to have one: of its logical volume, of its file (by a file system that
 * shares blocks), or the newest one in the image; which, and how old it is, is said.
 * Else it is refused, or with --force-share read as it is, with a warning.
 */
int steady_open(struct vdisk **out, struct steady *s, const char *locator);
/*
 * The same for a command that only looks: of a device no snapshot is made for it - that it is
 * read while in use is said - and there is nothing to end.
 */
int steady_look(struct vdisk **out, const char *locator);
/*
 * For a server that opens the disk itself: the locator to give it, to be freed; of a disk that
 * is being written that of its newest snapshot, if it has one, which is said.
 */
char *steady_locator(const char *locator);
/* After the disk is closed. */
void steady_end(struct steady *s);
/* Remove the snapshot @lvm, which a killed process left. */
void steady_sweep(const char *lvm);

#endif
