/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmfile.h - a guest described by a file: our own small format, or Xen's
 *
 * Pure functions over the file's text; nothing is opened.  vdisk-vm(5) has the
 * formats.  All strings live in the arena.
 */
#ifndef CLI_VMFILE_H
#define CLI_VMFILE_H

#include "cli/disk_words.h"
#include "guest/arena.h"
#include "vdisk.h"

enum {
	VMFILE_MAX = 256 << 10,		/* bytes of a file */
	VMFILE_MEMORY = 4 << 20,	/* for one evaluation */
	VMFILE_DISKS = 24,
	VMFILE_NETS = 4,
};

/* Everything that is not said is NULL or false. */
struct vmfile {
	struct arena arena;		/* owns all strings */
	bool xen;
	const char *name;
	const char *memory, *cpus;
	const char *kernel, *initrd;	/* files of this host */
	const char *append;		/* without kernel: behind the guest's own */
	const char *entry;
	bool recovery;
	const char *console;		/* "serial", "virtio", "keep" */
	const char *engine;		/* "kvm", "uml" */
	const char *on_shutdown, *on_reset, *on_crash; /* "reset", "exit", "exit:N" */
	const char *time_limit;
	struct guest_disk disk[VMFILE_DISKS];
	unsigned n_disks;
	const char *net[VMFILE_NETS];	/* as --net takes them */
	unsigned n_nets;
	/* sentences for people: what was left out or understood differently */
	const char **notes;
	unsigned n_notes, cap_notes;
};

/*
 * Read @text, the content of @file (whose directory relative paths start
 * from).  Messages name the line.  -EINVAL; free @out with vmfile_free(), after success only.
 */
int vmfile_parse(struct vmfile *out, const char *file, const char *text, struct vdisk_error *err);
void vmfile_free(struct vmfile *v);

/* Letters, digits, '-' and '_', at most 60, no dots.  -EINVAL with a better proposal. */
int vmfile_check_name(const char *name, struct vdisk_error *err);

/* ---- between vmfile.c and vmfile_xen.c ---- */

struct vmfile_reader {
	struct vmfile *v;
	const char *file, *dir;	/* for messages; "" or with a / at its end */
	const char *p;		/* what is left of the text */
	unsigned line;		/* of p, from 1 */
	struct vdisk_error *err;
};

/* Ends the evaluation with "FILE:LINE: ...". */
NORETURN void vmfile_wrong(struct vmfile_reader *r, const char *fmt, ...) PRINTF_FMT(2, 3);
void vmfile_note(struct vmfile_reader *r, const char *fmt, ...) PRINTF_FMT(2, 3);
/* What a key says, if it is nothing that cannot be: @to is a member of @r->v. */
void vmfile_set(struct vmfile_reader *r, const char **to, const char *text);
/* A path as it stands, or from the file's directory. */
const char *vmfile_path(struct vmfile_reader *r, const char *path);
struct guest_disk *vmfile_add_disk(struct vmfile_reader *r);
void vmfile_add_net(struct vmfile_reader *r, const char *option);
void vmfile_read_xen(struct vmfile_reader *r);

#endif
