/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guest.h - a guest that is to be run, and the engines that run it
 *
 * Whoever starts guests (boot.c) fills a struct guest from options or
 * a file; an engine turns it into a process and waits for that.
 */
#ifndef CLI_GUEST_H
#define CLI_GUEST_H

#include "cli/cli.h"
#include "cli/disk_words.h"

enum { GUEST_DISKS_MAX = 24, GUEST_NICS_MAX = 4, GUEST_PORTS_MAX = 2,
       GUEST_AGENT_TTY = 13 };

/* How a guest ends: the exit statuses of vmm-lite(8), which are those of vdisk boot. */
enum { GUEST_REBOOT = 16, GUEST_PANIC = 17, GUEST_TRIPLE_FAULT = 18, GUEST_TIME_LIMIT = 19 };

/* All strings are borrowed. */
struct guest {
	const char *memory, *cpus;	/* as vmm-lite takes them; NULL: its default */
	struct guest_disk disk[GUEST_DISKS_MAX]; /* the first is booted from */
	unsigned n_disks;
	const char *time_limit;		/* seconds; NULL: none */
	bool force, stats, fast_kernel, huge_pages;
	bool isolate;			/* each disk in a process of its own */
	bool virtio_console;		/* the terminal is hvc0 there, not ttyS0 */
	struct guest_nic {
		const char *option;	/* as --net took it */
		int fd;			/* -1 */
		bool stream;
		char mac[18];		/* "": the default */
	} nic[GUEST_NICS_MAX];
	unsigned n_nics;
	/* where it can write to descriptors of ours: a console's named ports, or on User-Mode
	 * Linux the consoles from the 14th on */
	struct guest_port {
		const char *name;
		int fd;
	} port[GUEST_PORTS_MAX];
	unsigned n_ports;
	const char *name;		/* NULL: none */
	int control_fd;			/* a listening socket; 0 or -1: none */
	int carry_fd;			/* where one life leaves its disks to the next; 0: nowhere */

	/* what it boots: files of this host, or else open descriptors (-1: none) */
	const char *kernel, *initrd;
	int kernel_fd, initrd_fd;
	const char *cmdline;
};

struct engine {
	const char *name;
	bool own_kernel;	/* the guest's kernel and initrd are not used */
	/* Can it run guests here?  CLI_OK, or CLI_FAILED and a message. */
	int (*check)(const struct guest *g);
	/* Until the guest ends; a reset ends it too.  Its exit status. */
	int (*run)(const struct guest *g);
};

extern const struct engine engine_kvm, engine_uml;

/*
 * Run a program as the guest's process: with @keep_open (-1: none) left open
 * for it, signals passed on, and never outliving us.  Its exit status; CLI_FAILED and a
 * message if a signal ended it.
 */
int guest_process(const char *const *argv, const int *keep_open, unsigned n_keep_open);
/* The same; @hand_over are left open for it and closed here. */
int guest_process_handing(const char *const *argv, const int *keep_open, unsigned n_keep_open,
			  const int *hand_over, unsigned n_hand_over);
/*
 * Run a monitor (vmm-lite, vmm-uml) for the guest and wait for it.  @kernel (NULL: the
 * guest's) is a program of this host that is run instead.
 */
int guest_monitor(const struct guest *g, const char *program, const char *kernel);

/*
 * Start the keeper of a disk that a running guest of so many processors is given; the
 * descriptors are its ends (vmm-lite/keeper.h).
 */
int guest_keep_disk(const struct guest_disk *d, unsigned cpus, int channel, int control);

/* ---- guest_net.c: network cards ---- */

/* Open what --net says of each: CLI_OK, or CLI_FAILED and a message that helps. */
int guest_net_open(struct guest *g);
void guest_net_close(struct guest *g);

/* ---- boot_menu.c: what a disk boots ---- */

struct boot_choice {
	const char *entry;	/* NULL: the configuration's own default */
	const char *append;
	bool recovery;		/* the entry for repairs, or a shell for one user */
	const char *console;	/* "serial", "virtio", "keep": the guest's own; NULL: serial */
};

/* Kernel, initrd and command line of the guest's own.  Prints what it chose. */
int boot_menu_choose(struct vdisk_boot *out, const char *locator, const char *format,
		     const struct boot_choice *c);
/* Print the entries. */
int boot_menu_print(const char *locator, const char *format);
/* @text, to be freed, with console=@tty at its end (NULL: as it is). */
int boot_cmdline(char **out, const char *text, const char *tty);
/*
 * @text, to be freed, with a root= that names a disk of another machine
 * (/dev/xvda1, /dev/sda1) made into what it is here.  Says so.
 */
int boot_fix_root(char **out, const char *text, const struct guest *g);

/* ---- guest_args.c: options that say what a guest is ---- */

struct guest_args {
	struct guest guest;	/* disk[0] is the caller's to fill in */
	struct boot_choice choice;
	const char *cache;	/* of all disks; NULL: writeback */
	const char *engine;	/* NULL: the first that can */
	char *disk_arg[GUEST_DISKS_MAX]; /* of --disk, until all options are known */
	bool no_nics;		/* none of a file's either */
	time_t until;		/* what is left of the time limit ends then; 0: it has not begun */
	struct end_action on_shutdown, on_reset, on_crash;
	bool said_shutdown, said_reset, said_crash; /* by an option: no file changes it */
};
#define GUEST_ARGS_INIT { .guest = { .n_disks = 1, .kernel_fd = -1, .initrd_fd = -1 }, \
			  .on_shutdown.code = -1, .on_crash.code = -1, \
			  .on_reset = { .reset = true, .code = -1 } }
/*
 * Where nobody stated a format: the one that it has now, before a guest writes to it.  A disk is
 * opened again in each of its guest's lives, and when its process dies; what a guest has
 * written must not make another image of it then.
 */
void guest_pin_format(struct guest_disk *d);
/* A disk as a command line has it, with its options; @format (NULL: probe) if it says none. */
void guest_disk_arg(struct guest_disk *out, char *arg, const char *format);
/* The sectors that the guest sees, of its first disk, and those of --sector-size are the
 * same: its partition table is in them. */
void guest_share_sectors(struct guest_disk *first);
/* Usage, if two of its disks are one, or would look like one to it. */
void guest_check_disks(const struct guest *g);
/* What choice.console means for the engine. */
void guest_set_console(struct guest_args *a);
extern const struct argp guest_argp;	/* its input is a struct guest_args */

/*
 * The engine that is asked for, or else one that can run the guest here; says
 * what it chose and why.  NULL, with a message: none can.
 */
const struct engine *guest_engine(const struct guest_args *a);
/* One life of the guest: choose what it boots, and run it.  Its exit status.  The time limit
 * is that of all its lives together. */
int guest_boot(const struct engine *engine, struct guest_args *a);
/* Is it booted again after it ended with @status?  If not, *exit_status is ours. */
bool guest_goes_on(const struct guest_args *a, int status, int *exit_status);

#endif
