/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk_words.h - how people describe a guest's disk
 *
 * The same options everywhere: behind a comma on the command line (DISK of boot and
 * try, --disk, vm attach-disk), as words of their own in a file (vdisk-vm(5)).
 */
#ifndef CLI_DISK_WORDS_H
#define CLI_DISK_WORDS_H

#include "vdisk.h"
#include "vmm-lite/words.h"

/* All strings are borrowed; NULL and 0: not said. */
struct guest_disk {
	const char *locator;
	const char *format;	/* NULL: probe */
	const char *cache;	/* NULL: writeback */
	const char *serial;
	const char *block_size;
	char limits[LIMITS_TEXT_MAX]; /* "": none */
	const char *backing;	/* what it is on top of, where its image does not say; NULL */
	const char *backing_format; /* NULL: probe */
	enum vdisk_refs refs;	/* which other files its image may name */
	const char *old_name;	/* what the guest called it elsewhere: "xvda"; NULL */
	bool read_only;
	bool keep_raw;		/* nobody stated that it is raw: what a guest writes must not change it */
	bool snapshot;		/* what is written is thrown away */
};

/* The option that a word is, checked.  -EINVAL: it is none, or none of these values. */
int guest_disk_word(struct guest_disk *d, const char *word, struct vdisk_error *err);
/* After the last of them: what they are together (a burst needs a limit).  0 or -EINVAL. */
int guest_disk_check(const struct guest_disk *d, struct vdisk_error *err);
/*
 * "DISK[,OPTION...]", cut apart in place: options are looked for from the end, so
 * that a name may have commas; a comma at the very end says that there are none.
 */
int guest_disk_parse(struct guest_disk *d, char *text, struct vdisk_error *err);

#endif
