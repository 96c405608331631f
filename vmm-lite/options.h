/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* options.h - vmm-lite's command line */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define DISKS_MAX	24u

struct disk_option {
	const char *locator;
	const char *format;	/* NULL: probe */
	const char *serial;	/* NULL: "vdiskN" */
	bool read_only;
	bool snapshot;		/* what the guest writes is thrown away */
	bool direct;
	bool unsafe;		/* flushes do nothing */
};

struct options {
	uint64_t memory;	/* bytes */
	unsigned vcpus;
	const char *kernel, *initrd; /* a path, or "fd:N" */
	const char *cmdline;
	struct disk_option disk[DISKS_MAX];
	unsigned n_disks;
	bool reboot_exits;
	unsigned time_limit;	/* seconds, 0: none */
	bool force, no_sandbox, stats, verbose, check;
};

/* Ends the program where the command line is wrong. */
void options_parse(struct options *out, int argc, char **argv);

#endif
