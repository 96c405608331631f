/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit.h - from a disk to a logical unit, for all modes of the daemon */
#ifndef TARGET_UNIT_H
#define TARGET_UNIT_H

#include <sys/types.h>

#include "target/scsi/scsi.h"

/* An ISO image by name and by content: a disk may well hold one and be none.  Reads. */
bool unit_is_cdrom(const char *locator, struct vdisk *disk);
/*
 * Keep the unit's persistent reservations in its own file in @dir, which one server
 * at a time uses, and load what is there.  The file is given to @owner if root
 * makes it.
 */
int unit_restore(struct scsi_unit *unit, const char *dir, uid_t owner, struct vdisk_error *err);

/* That file's name, to be freed; NULL: no memory. */
char *unit_state_file(const char *dir, const char *target, unsigned lun);

#endif
