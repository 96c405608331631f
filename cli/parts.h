/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parts.h - between the files of "vdisk parts" */
#ifndef CLI_PARTS_H
#define CLI_PARTS_H

#include "cli/cli.h"

enum parts_column { NAME, START, SIZE, TYPE, CONTENT, USE, LABEL, UUID, N_COLUMNS };

void parts_set_bytes(struct libscols_line *l, enum parts_column column, uint64_t v);
void parts_set_content(struct libscols_line *l, const struct vdisk_probe *p);
json_t *parts_json_content(const struct vdisk_probe *p);
/* vdisk_probe(), and how full a FAT is. */
int parts_probe(struct vdisk *disk, struct vdisk_probe *out, struct vdisk_error *err);
/* Null for "". */
json_t *parts_json_text(const char *s);

/* ---- LVM (parts_lvm.c) ---- */

struct parts_lvm;

/* The volume groups on @disk and what their volumes hold.  CLI_OK or CLI_FAILED. */
int parts_lvm_read(struct parts_lvm **out, struct vdisk *disk);
void parts_lvm_free(struct parts_lvm *p);
void parts_lvm_json(const struct parts_lvm *p, json_t *into);
/* Below the line of the physical volume in partition @part (0: the whole disk): its group. */
void parts_lvm_tree(const struct parts_lvm *p, struct libscols_table *t,
		    struct libscols_line *parent, unsigned part);
/* A line for each thing that is wrong, or that cannot be opened. */
void parts_lvm_problems(const struct parts_lvm *p);

#endif
