/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* options.h - vmm-lite's command line */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vdisk.h"
#include "vmm-lite/virtio/blk.h"
#include "vmm-lite/virtio/ports.h"
#include "vmm-lite/words.h"

#define DISKS_MAX	24u
#define NICS_MAX	4u

struct keeper_ends;

struct disk_option {
	const char *locator;
	const char *format;	/* NULL: probe */
	const char *backing;	/* a locator, instead of what the image says; NULL */
	const char *backing_format; /* NULL: probe */
	enum vdisk_refs refs;
	const char *serial;	/* NULL only in what is attached: "vdiskN" */
	enum cache_mode cache;
	uint32_t block_size;	/* 0: the disk's own */
	bool read_only;
	bool snapshot;		/* what the guest writes is thrown away */
	bool keep_raw;		/* see struct blk_options */
	int layer_fd;		/* a nameless file for ->snapshot; 0: make one */
	struct blk_limits limits;
	struct vdisk_open_file *files; /* NULL: its files are opened by name */
	unsigned n_files;
	const struct keeper_ends *ends;	/* it has a process of its own; NULL: it has not */
};

struct nic_option {
	int fd;
	bool stream;
	uint8_t mac[6];
};

/* What the guest does, and what happens then. */
enum on_event { ON_SHUTDOWN, ON_RESET, ON_CRASH, ON_COUNT };

struct options {
	uint64_t memory;	/* bytes */
	unsigned vcpus;
	const char *kernel, *initrd; /* a path, or "fd:N" */
	const char *cmdline;
	struct disk_option disk[DISKS_MAX];
	unsigned n_disks;
	char serial_text[DISKS_MAX][16]; /* of those that were given none */
	struct nic_option nic[NICS_MAX];
	unsigned n_nics;
	struct port_option port[PORTS_MAX];
	unsigned n_ports;
	struct end_action on[ON_COUNT];
	unsigned time_limit;	/* seconds, 0: none */
	const char *name;	/* for people; NULL: none */
	int control_fd;		/* a listening socket; -1: none */
	int carry_fd;		/* see carry.c; -1: none */
	int kvm_fd;			/* /dev/kvm, open; -1: not yet */
	pid_t pid;		/* ours, as others see it */
	int poll_us;		/* -1: as fits the processors there are */
	bool virtio_console;	/* the terminal is a virtio console's, not COM1's */
	bool huge_pages, fast_kernel;
	bool isolate;		/* each disk in a process of its own */
	int keep[2];		/* be the keeper of the one disk: its ends of channel and control; -1 */
	bool force, no_sandbox, stats, verbose, check;
};

/* @what the program does, for --help.  Ends the program where the command line is wrong. */
void options_parse(struct options *out, int argc, char **argv, const char *what);

#endif
