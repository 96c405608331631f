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
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>

#include "cli/commands.h"
#include "cli/guest.h"
#include "cli/vm.h"
#include "cli/vmfile.h"

struct boot_args {
	struct guest_args g;
	const char *file;	/* that describes the guest; NULL: none */
	bool read_only, snapshot, list;
};

enum { OPT_SNAPSHOT = 0x21000, OPT_LIST };

static const struct argp_option boot_options[] = {
	{ "file", 'f', "FILE", 0, "The guest that FILE describes: vdisk-vm(5), or a file of Xen's", 0 },
	{ "read-only", 'r', NULL, 0, "The guest cannot write to DISK", 0 },
	{ "snapshot", OPT_SNAPSHOT, NULL, 0, "What the guest writes is thrown away", 0 },
	{ "throw-away", 0, NULL, OPTION_ALIAS, NULL, 0 },
	{ "list", OPT_LIST, NULL, 0, "List the entries of the boot menu", 1 },
	{ 0 },
};

static error_t parse_boot(int key, char *arg, struct argp_state *state)
{
	struct boot_args *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->g;
		break;
	case 'f':
		a->file = arg;
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
	.options = boot_options, .parser = parse_boot, .children = boot_children, .args_doc = "DISK\n-f FILE",
	.doc = "Boot the guest that is on a disk, with its own kernel, on KVM; or on "
	       "User-Mode Linux.\v"
	       "The guest's serial console is this terminal; Ctrl-] q ends the guest at once.\n"
	       "Exit status: 0 the guest powered off, 1 it could not be run, 2 usage, 16 it reset "
	       "(--on-reset=exit), 17 it panicked, 18 triple fault, 19 time limit, 20 it was stopped "
	       "from outside.",
};

static void set_disk_options(struct boot_args *a)
{
	struct guest *g = &a->g.guest;

	for (unsigned i = 0; i < g->n_disks; i++) {
		/* what is said of one disk wins over what is said of all */
		if (!g->disk[i].cache)
			g->disk[i].cache = a->g.cache;
		g->disk[i].snapshot |= a->snapshot;
		g->disk[i].refs = cli.refs;
	}
	g->disk[0].read_only |= a->read_only;
}

/* ---- a guest from a file ---- */

static char *load_file(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = calloc(1, VMFILE_MAX + 2);
	size_t len = 0;
	ssize_t n = 1;

	while (fd >= 0 && text && n > 0 && len <= VMFILE_MAX) {
		n = read(fd, text + len, VMFILE_MAX + 1 - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0 && text && n >= 0 && len <= VMFILE_MAX)
		return text;
	if (len > VMFILE_MAX)
		errno = EFBIG;
	cli_error("%s: %m", path);
	free(text);
	return NULL;
}

/* The file's value where no option has said something else. */
static void fill(const char **to, const char *value)
{
	if (!*to)
		*to = value;
}

static void fill_end(struct end_action *to, bool said, const char *value)
{
	if (value && !said)
		words_end(value, to);
}

/* The file's disks come first, --disk behind them. */
static void fill_disks(struct guest *g, const struct vmfile *v)
{
	struct guest_disk more[GUEST_DISKS_MAX];
	unsigned n_more = g->n_disks - 1;

	memcpy(more, g->disk + 1, n_more * sizeof(*more));
	if (v->n_disks + n_more > GUEST_DISKS_MAX)
		cli_usage("more than %d disks", GUEST_DISKS_MAX);
	for (unsigned i = 0; i < v->n_disks; i++)
		g->disk[i] = v->disk[i];
	memcpy(g->disk + v->n_disks, more, n_more * sizeof(*more));
	g->n_disks = v->n_disks + n_more;
}

/* Those of the command line are instead of the file's. */
static void fill_nics(struct guest_args *a, const struct vmfile *v)
{
	struct guest *g = &a->guest;

	if (g->n_nics || a->no_nics)
		return;
	if (v->n_nets > GUEST_NICS_MAX)
		cli_usage("more than %d network cards", GUEST_NICS_MAX);
	for (; g->n_nics < v->n_nets; g->n_nics++)
		g->nic[g->n_nics].option = v->net[g->n_nics];
}

static void fill_guest(struct guest_args *a, const struct vmfile *v)
{
	fill(&a->guest.name, v->name);
	fill(&a->guest.memory, v->memory);
	fill(&a->guest.cpus, v->cpus);
	fill(&a->guest.time_limit, v->time_limit);
	if (!a->choice.entry && !a->choice.recovery)
		fill(&a->guest.kernel, v->kernel);
	fill(&a->guest.initrd, v->initrd);
	fill(&a->choice.append, v->append);
	if (!a->guest.kernel)
		fill(&a->choice.entry, v->entry);
	a->choice.recovery |= v->recovery;
	fill(&a->choice.console, v->console);
	guest_set_console(a);
	fill(&a->engine, v->engine);
	fill_end(&a->on_shutdown, a->said_shutdown, v->on_shutdown);
	fill_end(&a->on_reset, a->said_reset, v->on_reset);
	fill_end(&a->on_crash, a->said_crash, v->on_crash);
	fill_disks(&a->guest, v);
	fill_nics(a, v);
}

/* @v lives as long as the guest: its strings are borrowed. */
static int read_vm_file(struct boot_args *a, struct vmfile *v)
{
	AUTO_FREE char *text = load_file(a->file);
	struct vdisk_error err = { 0 };

	if (!text)
		return CLI_FAILED;
	if (vmfile_parse(v, a->file, text, &err) < 0)
		return cli_fail(&err);
	for (unsigned i = 0; i < v->n_notes; i++)
		cli_note("%s: %s", a->file, v->notes[i]);
	fill_guest(&a->g, v);
	return CLI_OK;
}

static int set_guest(struct boot_args *a, char **args, struct vmfile *v)
{
	if (a->file && args[0])
		cli_usage("-f FILE names the disks itself; an image's format is --format");
	if (!a->file && !args[0])
		cli_usage("too few arguments");
	if (a->file && read_vm_file(a, v) != CLI_OK)
		return CLI_FAILED;
	if (!a->file)
		guest_disk_arg(&a->g.guest.disk[0], args[0], cli.format);
	set_disk_options(a);
	guest_share_sectors(&a->g.guest.disk[0]);
	guest_check_disks(&a->g.guest);
	return CLI_OK;
}

int cmd_boot(int argc, char **argv)
{
	struct boot_args a = { .g = GUEST_ARGS_INIT };
	char **args = cli_parse(&boot_argp, argc, argv, &a, 0, 1);
	struct vmfile vmfile = { .n_disks = 0 };
	const struct engine *engine;
	struct termios terminal;
	bool is_terminal = !tcgetattr(STDIN_FILENO, &terminal);
	int carry[2], status, exit_status;
	struct vm_entry entry;
	unsigned life = 0;

	if (set_guest(&a, args, &vmfile) != CLI_OK)
		return CLI_FAILED;
	if (a.list && !a.g.guest.n_disks)
		cli_usage("%s names no disk", a.file);
	if (a.list)
		return boot_menu_print(a.g.guest.disk[0].locator, a.g.guest.disk[0].format);
	/* before anything is read: can guests run here at all? */
	engine = guest_engine(&a.g);
	if (!engine)
		return CLI_FAILED;
	if (vm_register(&entry, a.g.guest.name, a.file ? a.file : args[0]) != CLI_OK)
		return CLI_FAILED;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, carry) < 0) {
		cli_error("socketpair: %m");
		vm_unregister(&entry);
		return CLI_FAILED;
	}
	a.g.guest.name = entry.name;
	a.g.guest.control_fd = entry.listen_fd;
	for (unsigned i = 0; i < a.g.guest.n_disks; i++)
		guest_pin_format(&a.g.guest.disk[i]);
	do {
		a.g.guest.carry_fd = carry[life++ % 2];
		status = guest_boot(engine, &a.g);
		if (is_terminal)
			tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
	} while (guest_goes_on(&a.g, status, &exit_status));
	vm_unregister(&entry);
	close(carry[0]);
	close(carry[1]);
	vmfile_free(&vmfile);
	return exit_status;
}
