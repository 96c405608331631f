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
#include "cli/vm.h"

struct boot_args {
	struct guest_args g;
	bool read_only, snapshot, list;
};

enum { OPT_SNAPSHOT = 0x21000, OPT_LIST };

static const struct argp_option boot_options[] = {
	{ "read-only", 'r', NULL, 0, "The guest cannot write to DISK", 0 },
	{ "snapshot", OPT_SNAPSHOT, NULL, 0, "What the guest writes is thrown away", 0 },
	{ "throw-away", 0, NULL, OPTION_ALIAS, NULL, 0 },
	{ "list", OPT_LIST, NULL, 0, "List the entries of the boot menu", 1 },
	{ 0 },
};

static error_t parse_boot(int key, char *arg, struct argp_state *state)
{
	struct boot_args *a = state->input;

	(void)arg;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->g;
		break;
	case 'r':
		a->read_only = true;
		break;
	case OPT_SNAPSHOT:
		a->snapshot = true;
		break;
	case OPT_LIST:
		a->list = true;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp_child boot_children[] = {
	{ &guest_argp, 0, NULL, 0 }, { 0 },
};

static const struct argp boot_argp = {
	.options = boot_options, .parser = parse_boot, .children = boot_children, .args_doc = "DISK",
	.doc = "Boot the guest that is on a disk, with its own kernel, on KVM.\v"
	       "The guest's serial console is this terminal; Ctrl-] q ends the guest at once.\n"
	       "Exit status: 0 the guest powered off, 1 it could not be run, 2 usage, 16 it reset "
	       "(--on-reset=exit), 17 it panicked, 18 triple fault, 19 time limit, 20 it was stopped "
	       "from outside.",
};

/* The first disk gets its own options, all of them the common ones. */
static void set_disks(struct boot_args *a, const char *locator)
{
	struct guest *g = &a->g.guest;

	g->disk[0] = (struct guest_disk) {
		.locator = locator, .format = cli.format, .read_only = a->read_only,
	};
	for (unsigned i = 0; i < g->n_disks; i++) {
		g->disk[i].cache = a->g.cache;
		g->disk[i].snapshot = a->snapshot;
	}
}

int cmd_boot(int argc, char **argv)
{
	struct boot_args a = { .g = GUEST_ARGS_INIT };
	char **args = cli_parse(&boot_argp, argc, argv, &a, 1, 1);
	const struct engine *engine = &engine_kvm;
	struct termios terminal;
	bool is_terminal = !tcgetattr(STDIN_FILENO, &terminal);
	struct vm_entry entry;
	int status, exit_status;

	if (a.list)
		return boot_menu_print(args[0]);
	set_disks(&a, args[0]);
	/* before anything is read: can guests run here at all? */
	if (engine->check(&a.g.guest) != CLI_OK)
		return CLI_FAILED;
	if (vm_register(&entry, a.g.guest.name, args[0]) != CLI_OK)
		return CLI_FAILED;
	a.g.guest.name = entry.name;
	a.g.guest.control_fd = entry.listen_fd;
	do {
		status = guest_boot(engine, &a.g);
		if (is_terminal)
			tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
	} while (guest_goes_on(&a.g, status, &exit_status));
	vm_unregister(&entry);
	return exit_status;
}
