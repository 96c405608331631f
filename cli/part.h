/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* part.h - between the files of "vdisk part" */
#ifndef CLI_PART_H
#define CLI_PART_H

#include "cli/cli.h"

/* A partition that a command names, and the disk that it is on. */
struct part_arg {
	struct vdisk *disk;	/* owned */
	struct vdisk_parts *parts; /* owned: its table */
	const struct vdisk_part *part; /* in it */
	char *locator;		/* owned: of the disk */
};

/* Open "DISK#pN" with @flags.  What goes wrong is printed. */
int part_arg_open(struct part_arg *out, const char *text, uint32_t flags);
void part_arg_close(struct part_arg *a);
#define AUTO_PART __attribute__((cleanup(part_arg_close)))

/*
 * A change of a GPT moves its backup to the end of a disk that was grown: say so.
 * @was: as vdisk_parts_read() had it before the change.
 */
void part_note_moved(struct vdisk *disk, const struct vdisk_parts *was);

/* subcommands (part_change.c, part_table.c) */
int part_delete(int argc, char **argv);
int part_resize(int argc, char **argv);
int part_type(int argc, char **argv);
int part_name(int argc, char **argv);
int part_uuid(int argc, char **argv);
int part_flag(int argc, char **argv);
int part_convert(int argc, char **argv);
int part_verify(int argc, char **argv);
int part_repair(int argc, char **argv);
int part_backup(int argc, char **argv);
int part_restore(int argc, char **argv);

#endif
