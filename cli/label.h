/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* label.h - labels and UUIDs of whatever is on a volume */
#ifndef CLI_LABEL_H
#define CLI_LABEL_H

#include "cli/cli.h"

/*
 * Change the label or the UUID ("random": a new one) of what is on @volume, in
 * process where we can and else by the program that is made for it.  @name is
 * for messages.  CLI_OK or CLI_FAILED.
 */
int cli_set_label(struct vdisk *volume, const char *name, const char *label);
int cli_set_uuid(struct vdisk *volume, const char *name, const char *uuid);
/* "", or why the UUID of such a thing cannot be changed. */
const char *cli_uuid_refusal(const struct vdisk_probe *probe);

/* uuid --clone (clone.c) */
int cli_clone(const char *locator, bool only_show);

#endif
