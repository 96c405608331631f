/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* replace.h - a new content for a file in a disk */
#ifndef CLI_REPLACE_H
#define CLI_REPLACE_H

#include "cli/cli.h"

/*
 * Give the file @path (through links, if it is one; made if there is none) the
 * content @data, at once: it is written beside the old one, with owner, mode and
 * extended attributes of that, and takes its name.  CLI_OK or CLI_FAILED.
 */
int cli_replace(struct vdisk_fs *fs, const char *path, const void *data, size_t len);

#endif
