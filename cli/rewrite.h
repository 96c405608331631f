/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rewrite.h - words that change in the configuration of a guest
 *
 * Identifiers of disks stand in a guest's fstab, crypttab and boot loader
 * configuration.  First rewrite_find() looks at the files of all file systems that can be
 * read and lists those in which one of the old words stands; then
 * rewrite_apply() puts the new ones there.  A word counts only where no letter
 * or digit, dash or underscore touches it.
 */
#ifndef CLI_REWRITE_H
#define CLI_REWRITE_H

#include "cli/cli.h"

struct rewrite_word {
	const char *old, *new;	/* borrowed */
	bool any_case;		/* and the new one takes over the look */
	bool name;		/* part of a longer name where a '.' or '+' touches it, too */
};

struct rewrite_file {
	char volume[264];
	char *path;		/* owned */
	unsigned places;
};

struct rewrite {
	struct rewrite_word *words;	/* borrowed */
	size_t n_words;
	struct rewrite_file *files;	/* owned */
	size_t n_files;
};

/* Both print what goes wrong; CLI_OK or CLI_FAILED. */
int rewrite_find(struct rewrite *w, struct vdisk *disk);
int rewrite_apply(struct rewrite *w, struct vdisk *disk);
/* [ { "volume", "path", "places" } ] */
json_t *rewrite_json(const struct rewrite *w);
/* A line for each file. */
void rewrite_show(const struct rewrite *w);
void rewrite_clear(struct rewrite *w);

/* "p3:" or "vg0/root:"; "disk:" for a whole one. */
const char *rewrite_volume(char buf[280], const char *volume);

#endif
