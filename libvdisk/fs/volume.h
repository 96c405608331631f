/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* volume.h - labels and UUIDs of what is on a volume */
#ifndef VD_VOLUME_H
#define VD_VOLUME_H

#include "core/driver.h"

/* "random", or the usual text; -EINVAL with a sentence. */
int vd_uuid_parse(const char *text, uint8_t out[16], struct vdisk_error *err);

/* In lower case; @out has 37 bytes. */
void vd_uuid_text(char *out, const uint8_t uuid[16]);

bool vd_is_swap(struct vdisk *disk);
int vd_swap_set_label(struct vdisk *disk, const char *label, struct vdisk_error *err);
int vd_swap_set_uuid(struct vdisk *disk, const uint8_t uuid[16], struct vdisk_error *err);

#endif
