/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * boot.c - vdisk boot: boot a guest from its disk
 *
 * The kernel, the initrd and the command line are the guest's own, found by
 * vdisk_boot_find() and handed over as sealed memory, never as names.  vmm-lite
 * then opens the disks itself, with their locks, and runs the guest; this
 * process waits for it, so that
 *
 *   - a reboot looks at the disk again: what the guest installed is what boots;
 *   - the terminal is put right whatever ends the VMM.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "cli/cli.h"
#include "cli/commands.h"

#define EXTRA_DISKS	23u
#define VMM_REBOOT	16	/* vmm-lite's exit status, see vmm-lite(8) */
#define ARGS_MAX	128u

struct boot_args {
	const char *memory, *cpus, *kernel, *initrd, *append, *entry, *cache, *time_limit;
	const char *disk[EXTRA_DISKS];
	unsigned n_disks;
	bool read_only, snapshot, list, reboot_exits, force, stats, keep_console;
};

enum {
	OPT_KERNEL = 0x20000, OPT_INITRD, OPT_APPEND, OPT_DISK, OPT_SNAPSHOT, OPT_ENTRY, OPT_LIST,
	OPT_REBOOT, OPT_TIME_LIMIT, OPT_FORCE, OPT_STATS, OPT_CACHE, OPT_CONSOLE,
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
	{ "append", OPT_APPEND, "TEXT", 0, "Add to the kernel's command line", 1 },
	{ "kernel", OPT_KERNEL, "FILE", 0, "A kernel of this host's instead of the guest's", 1 },
	{ "initrd", OPT_INITRD, "FILE", 0, "Its initial RAM disk", 1 },
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
	case 'm':		a->memory = arg; break;
	case 'c':		a->cpus = arg; break;
	case 'r':		a->read_only = true; break;
	case OPT_SNAPSHOT:	a->snapshot = true; break;
	case OPT_CACHE:		a->cache = arg; break;
	case OPT_ENTRY:		a->entry = arg; break;
	case OPT_LIST:		a->list = true; break;
	case OPT_APPEND:	a->append = arg; break;
	case OPT_KERNEL:	a->kernel = arg; break;
	case OPT_INITRD:	a->initrd = arg; break;
	case OPT_TIME_LIMIT:	a->time_limit = arg; break;
	case OPT_FORCE:		a->force = true; break;
	case OPT_STATS:		a->stats = true; break;
	case OPT_CONSOLE:
		a->keep_console = second_of(state, "--console", arg, "serial", "keep");
		break;
	case OPT_REBOOT:
		a->reboot_exits = second_of(state, "--reboot", arg, "again", "exit");
		break;
	case OPT_DISK:
		if (a->n_disks == EXTRA_DISKS)
			argp_error(state, "more than %u further disks", EXTRA_DISKS);
		else
			a->disk[a->n_disks++] = arg;
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

/* ---- what to boot ---- */

static int find_boot(struct vdisk_boot *boot, const char *locator, const struct boot_args *a)
{
	struct vdisk_boot_opts opts = {
		.size = sizeof(opts), .entry = a->entry, .append = a->append,
	};
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_error err = { 0 };

	if (cli_open(&disk, locator, 0) != CLI_OK)
		return CLI_FAILED;
	if (vdisk_boot_find(boot, disk, &opts, &err) < 0)
		return cli_fail(&err);
	cli_note("booting '%s': %s, found in %s%s%s", boot->title, boot->kernel, locator,
		 boot->source[0] == '#' ? "" : ", ", boot->source);
	return CLI_OK;
}

static json_t *entry_json(const struct vdisk_boot *b, int index, bool chosen)
{
	return json_pack("{si sb ss ss ss ss ss}", "number", index, "default", chosen, "title",
			 b->title, "id", b->id, "kernel", b->kernel, "initrd", b->initrd, "cmdline",
			 b->cmdline);
}

static int list_entries(const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	AUTO_FREE struct vdisk_boot *list = NULL;
	struct vdisk_error err = { 0 };
	json_t *array;
	int n, chosen;

	if (cli_open(&disk, locator, 0) != CLI_OK)
		return CLI_FAILED;
	n = vdisk_boot_list(disk, &list, &chosen, &err);
	if (n < 0)
		return cli_fail(&err);
	if (!cli.json) {
		for (int i = 0; i < n; i++)
			printf("%c %2d  %s\n", i == chosen ? '*' : ' ', i, list[i].title);
		return CLI_OK;
	}
	array = json_array();
	for (int i = 0; i < n; i++)
		json_array_append_new(array, entry_json(&list[i], i, i == chosen));
	return cli_print_json(json_pack("{so}", "entries", array));
}

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = text; (p = strstr(p, word)); p += len)
		if ((p == text || p[-1] == ' ') && (!p[len] || p[len] == ' ' || p[len] == ','))
			return true;
	return false;
}

/* The last console= is the one that /dev/console is. */
static int kernel_cmdline(char **out, const char *text, const struct boot_args *a)
{
	bool add = !a->keep_console && !has_word(text, "console=ttyS0");

	if (asprintf(out, "%s%s%s", text, add && *text ? " " : "", add ? "console=ttyS0" : "") < 0) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	return CLI_OK;
}

/* ---- running the VMM ---- */

struct command {
	const char *arg[ARGS_MAX];
	unsigned n;
	char kernel_fd[16], initrd_fd[16];
};

static void add(struct command *c, const char *arg)
{
	c->arg[c->n++] = arg;	/* ARGS_MAX is more than all options and disks give */
}

static void add_pair(struct command *c, const char *option, const char *value)
{
	if (!value)
		return;
	add(c, option);
	add(c, value);
}

static void add_disk(struct command *c, const char *locator, const char *format, bool read_only,
		     const struct boot_args *a)
{
	add_pair(c, "--disk", locator);
	add_pair(c, "--format", format);
	add_pair(c, "--cache", a->cache);
	if (read_only)
		add(c, "--read-only");
	if (a->snapshot)
		add(c, "--snapshot");
}

static void build_command(struct command *c, const char *vmm, const char *locator,
			  const char *cmdline, const struct boot_args *a)
{
	add(c, vmm);
	add_pair(c, "--memory", a->memory);
	add_pair(c, "--cpus", a->cpus);
	add_pair(c, "--append", cmdline);
	add_pair(c, "--reboot", "exit");
	add_pair(c, "--time-limit", a->time_limit);
	if (a->force)
		add(c, "--force");
	if (a->stats)
		add(c, "--stats");
	add_disk(c, locator, cli.format, a->read_only, a);
	for (unsigned i = 0; i < a->n_disks; i++)
		add_disk(c, a->disk[i], NULL, false, a);
}

static pid_t running;

static void pass_on(int signal_number)
{
	if (running > 0)
		kill(running, signal_number);
}

static int exec_vmm(const struct command *c, const int *keep_open, pid_t parent)
{
	/* it must not outlive us, not even if we are killed */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		return CLI_FAILED;
	for (int i = 0; i < 2; i++)
		if (keep_open[i] >= 0)
			fcntl(keep_open[i], F_SETFD, 0);
	execv(c->arg[0], (char *const *)(uintptr_t)c->arg);
	cli_error("%s: %m", c->arg[0]);
	return CLI_FAILED;
}

/* The VMM's exit status; 1 if a signal ended it. */
static int run_vmm(const struct command *c, int kernel_fd, int initrd_fd)
{
	int keep_open[] = { kernel_fd, initrd_fd }, status;
	pid_t parent = getpid();

	fflush(NULL);
	running = fork();
	if (running < 0) {
		cli_error("fork: %m");
		return CLI_FAILED;
	}
	if (running == 0)
		_exit(exec_vmm(c, keep_open, parent));
	while (waitpid(running, &status, 0) < 0)
		if (errno != EINTR)
			return CLI_FAILED;
	running = 0;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	cli_error("vmm-lite was ended by signal %d (%s)", WTERMSIG(status),
		  strsignal(WTERMSIG(status)));
	return CLI_FAILED;
}

static int boot_once(const char *vmm, const char *locator, const struct boot_args *a)
{
	struct vdisk_boot boot = { .kernel_fd = -1, .initrd_fd = -1 };
	AUTO_FREE char *cmdline = NULL;
	struct command c = { 0 };
	int status;

	if (!a->kernel && find_boot(&boot, locator, a) != CLI_OK)
		return CLI_FAILED;
	status = kernel_cmdline(&cmdline, a->kernel ? (a->append ? a->append : "") : boot.cmdline, a);
	if (status == CLI_OK) {
		build_command(&c, vmm, locator, cmdline, a);
		snprintf(c.kernel_fd, sizeof(c.kernel_fd), "fd:%d", boot.kernel_fd);
		snprintf(c.initrd_fd, sizeof(c.initrd_fd), "fd:%d", boot.initrd_fd);
		add_pair(&c, "--kernel", a->kernel ? a->kernel : c.kernel_fd);
		add_pair(&c, "--initrd", a->initrd ? a->initrd :
			 boot.initrd_fd >= 0 ? c.initrd_fd : NULL);
		status = run_vmm(&c, boot.kernel_fd, boot.initrd_fd);
	}
	vdisk_boot_clear(&boot);
	return status;
}

/* Before anything is read: can guests run here at all? */
static int check_kvm(const char *vmm, const struct boot_args *a)
{
	struct command c = { 0 };

	add(&c, vmm);
	add(&c, "--check");
	if (a->force)
		add(&c, "--force");
	return run_vmm(&c, -1, -1);
}

int cmd_boot(int argc, char **argv)
{
	struct boot_args a = { 0 };
	char **args = cli_parse(&boot_argp, argc, argv, &a, 1, 1);
	struct sigaction forward = { .sa_handler = pass_on };
	AUTO_FREE char *vmm = NULL;
	struct termios terminal;
	bool is_terminal = !tcgetattr(STDIN_FILENO, &terminal);
	int status;

	if (a.list)
		return list_entries(args[0]);
	if (a.initrd && !a.kernel)
		cli_usage("--initrd goes with --kernel");
	if (cli_sibling(&vmm, "vmm-lite") != CLI_OK || check_kvm(vmm, &a) != CLI_OK)
		return CLI_FAILED;
	sigemptyset(&forward.sa_mask);
	sigaction(SIGTERM, &forward, NULL);
	sigaction(SIGHUP, &forward, NULL);
	signal(SIGINT, SIG_IGN);	/* the guest's, or vmm-lite's */
	do {
		status = boot_once(vmm, args[0], &a);
		if (is_terminal)
			tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
	} while (status == VMM_REBOOT && !a.reboot_exits);
	return status;
}
