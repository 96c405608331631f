/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * boot.c - vdisk boot: boot a guest from its disk
 *
 * The kernel, the initrd and the command line are the guest's own, found by
 * vdisk_boot_find() and handed over as sealed memory, never as names.  The
 * engine then runs the guest in a process of its own; this process waits for it, so that
 *
 *   - a reboot looks at the disk again: what the guest installed is what boots;
 *   - the terminal is put right whatever ends the engine.
 */
#include <string.h>
#include <termios.h>

#include "cli/commands.h"
#include "cli/guest.h"

struct boot_args {
	struct guest guest;	/* disk[0] is the one that is booted */
	struct boot_choice choice;
	const char *cache;
	bool read_only, snapshot, list, reboot_exits;
};

enum {
	OPT_KERNEL = 0x20000, OPT_INITRD, OPT_APPEND, OPT_DISK, OPT_SNAPSHOT, OPT_ENTRY, OPT_LIST,
	OPT_REBOOT, OPT_TIME_LIMIT, OPT_FORCE, OPT_STATS, OPT_CACHE, OPT_CONSOLE, OPT_RECOVERY,
};

static const struct argp_option boot_options[] = {
	{ "memory", 'm', "SIZE", 0, "The guest's memory, with K, M, G or in MiB (default 512)", 0 },
	{ "cpus", 'c', "N", 0, "Its processors (default 1)", 0 },
	{ "read-only", 'r', NULL, 0, "The guest cannot write to DISK", 0 },
	{ "snapshot", OPT_SNAPSHOT, NULL, 0, "What the guest writes is thrown away", 0 },
	{ "throw-away", 0, NULL, OPTION_ALIAS, NULL, 0 },
	{ "disk", OPT_DISK, "DISK", 0, "One more disk (/dev/vdb, ...)", 0 },
	{ "cache", OPT_CACHE, "writeback|none|unsafe", 0,
	  "Through the host's page cache (default), past it, or with flushes that do nothing", 0 },
	{ NULL, 0, NULL, 0, "What is booted:", 1 },
	{ "entry", OPT_ENTRY, "N|TITLE|ID", 0, "An entry of the guest's boot menu", 1 },
	{ "list", OPT_LIST, NULL, 0, "List the entries of the boot menu", 1 },
	{ "recovery", OPT_RECOVERY, NULL, 0,
	  "Its entry for repairs, or the default with a shell for one user", 1 },
	{ "append", OPT_APPEND, "TEXT", 0, "Add to the kernel's command line", 1 },
	{ "kernel", OPT_KERNEL, "FILE", 0, "A kernel of this host's instead of the guest's", 1 },
	{ "initrd", OPT_INITRD, "FILE", 0, "An initial RAM disk of this host's", 1 },
	{ "console", OPT_CONSOLE, "serial|keep", 0,
	  "Add console=ttyS0 to the command line (default), or leave it as it is", 1 },
	{ NULL, 0, NULL, 0, "How it ends:", 2 },
	{ "reboot", OPT_REBOOT, "again|exit", 0,
	  "What a reset does: boot again (default), or end with status 16", 2 },
	{ "time-limit", OPT_TIME_LIMIT, "SECONDS", 0, "Stop after this time, with status 19", 2 },
	{ "force", OPT_FORCE, NULL, 0, "Try although KVM here cannot run guests", 2 },
	{ "stats", OPT_STATS, NULL, 0, "Count the guest's exits", 2 },
	{ 0 },
};

/* One of two words; the first is the default. */
static bool second_of(struct argp_state *state, const char *option, const char *arg,
		      const char *first, const char *second)
{
	if (strcmp(arg, first) && strcmp(arg, second))
		argp_error(state, "%s is %s or %s, not '%s'", option, first, second, arg);
	return !strcmp(arg, second);
}

static error_t parse_boot(int key, char *arg, struct argp_state *state)
{
	struct boot_args *a = state->input;

	switch (key) {
	case 'm':		a->guest.memory = arg; break;
	case 'c':		a->guest.cpus = arg; break;
	case 'r':		a->read_only = true; break;
	case OPT_SNAPSHOT:	a->snapshot = true; break;
	case OPT_CACHE:		a->cache = arg; break;
	case OPT_ENTRY:		a->choice.entry = arg; break;
	case OPT_RECOVERY:	a->choice.recovery = true; break;
	case OPT_LIST:		a->list = true; break;
	case OPT_APPEND:	a->choice.append = arg; break;
	case OPT_KERNEL:	a->guest.kernel = arg; break;
	case OPT_INITRD:	a->guest.initrd = arg; break;
	case OPT_TIME_LIMIT:	a->guest.time_limit = arg; break;
	case OPT_FORCE:		a->guest.force = true; break;
	case OPT_STATS:		a->guest.stats = true; break;
	case OPT_CONSOLE:
		a->choice.keep_console = second_of(state, "--console", arg, "serial", "keep");
		break;
	case OPT_REBOOT:
		a->reboot_exits = second_of(state, "--reboot", arg, "again", "exit");
		break;
	case OPT_DISK:
		if (a->guest.n_disks == GUEST_DISKS_MAX)
			argp_error(state, "more than %d disks", GUEST_DISKS_MAX);
		else
			a->guest.disk[a->guest.n_disks++].locator = arg;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp boot_argp = {
	.options = boot_options, .parser = parse_boot, .children = cli_disk, .args_doc = "DISK",
	.doc = "Boot the guest that is on a disk, with its own kernel, on KVM.\v"
	       "The guest's serial console is this terminal; Ctrl-] q ends the guest at once.\n"
	       "Exit status: 0 the guest powered off, 1 it could not be run, 2 usage, 16 it reset "
	       "(--reboot=exit), 17 it panicked, 18 triple fault, 19 time limit, 20 it was stopped "
	       "from outside.",
};

/* The first disk gets its own options, all of them the common ones. */
static void set_disks(struct boot_args *a, const char *locator)
{
	a->guest.disk[0] = (struct guest_disk) {
		.locator = locator, .format = cli.format, .read_only = a->read_only,
	};
	for (unsigned i = 0; i < a->guest.n_disks; i++) {
		a->guest.disk[i].cache = a->cache;
		a->guest.disk[i].snapshot = a->snapshot;
	}
}

static int boot_once(const struct engine *engine, const struct boot_args *a)
{
	struct vdisk_boot boot = { .kernel_fd = -1, .initrd_fd = -1 };
	const char *append = a->choice.append ? a->choice.append : "";
	AUTO_FREE char *cmdline = NULL;
	struct guest guest = a->guest;
	int status = CLI_OK;

	if (!guest.kernel)
		status = boot_menu_choose(&boot, guest.disk[0].locator, &a->choice);
	if (status == CLI_OK)
		status = boot_cmdline(&cmdline, guest.kernel ? append : boot.cmdline,
				      a->choice.keep_console);
	if (status == CLI_OK) {
		guest.cmdline = cmdline;
		guest.kernel_fd = boot.kernel_fd;
		guest.initrd_fd = boot.initrd_fd;
		status = engine->run(&guest);
	}
	vdisk_boot_clear(&boot);
	return status;
}

int cmd_boot(int argc, char **argv)
{
	struct boot_args a = { .guest.n_disks = 1 };
	char **args = cli_parse(&boot_argp, argc, argv, &a, 1, 1);
	const struct engine *engine = &engine_kvm;
	struct termios terminal;
	bool is_terminal = !tcgetattr(STDIN_FILENO, &terminal);
	int status;

	if (a.list)
		return boot_menu_print(args[0]);
	if (a.guest.kernel && (a.choice.entry || a.choice.recovery))
		cli_usage("--entry and --recovery choose a kernel of the guest's, --kernel one of this host");
	set_disks(&a, args[0]);
	/* before anything is read: can guests run here at all? */
	if (engine->check(&a.guest) != CLI_OK)
		return CLI_FAILED;
	do {
		status = boot_once(engine, &a);
		if (is_terminal)
			tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
	} while (status == GUEST_REBOOT && !a.reboot_exits);
	return status;
}
