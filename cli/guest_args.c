/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest_args.c - the options that say what a guest is, and one run of it */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/guest.h"
#include "cli/vmfile.h"

enum {
	OPT_KERNEL = 0x20000, OPT_INITRD, OPT_APPEND, OPT_DISK, OPT_ENTRY, OPT_REBOOT,
	OPT_NET, OPT_NAME, OPT_FAST_KERNEL, OPT_HUGE_PAGES, OPT_TIME_LIMIT, OPT_FORCE, OPT_STATS, OPT_CACHE, OPT_CONSOLE, OPT_RECOVERY,
	OPT_ON_SHUTDOWN, OPT_ON_RESET, OPT_ON_CRASH, OPT_ENGINE, OPT_ISOLATE,
};

static const struct argp_option options[] = {
	{ "memory", 'm', "SIZE", 0, "The guest's memory, with K, M, G or in MiB (default 512)", 0 },
	{ "cpus", 'c', "N", 0, "Its processors (default 1)", 0 },
	{ "engine", OPT_ENGINE, "kvm|uml", 0,
	  "Run it on KVM, or on User-Mode Linux with that one's kernel (default: where it can run)",
	  0 },
	{ "disk", OPT_DISK, "DISK[,OPTION...]", 0, "One more disk (/dev/vdb, ...); of it: format=, cache=, "
	  "serial=, limit=, block-size=, read-only, snapshot", 0 },
	{ "cache", OPT_CACHE, "writeback|writethrough|none|unsafe", 0,
	  "Of all disks: through the host's page cache (default), the same with every write durable, "
	  "past it, or with flushes that do nothing", 0 },
	{ NULL, 0, NULL, 0, "What is booted:", 1 },
	{ "entry", OPT_ENTRY, "N|TITLE|ID", 0, "An entry of the guest's boot menu", 1 },
	{ "recovery", OPT_RECOVERY, NULL, 0,
	  "Its entry for repairs, or the default with a shell for one user", 1 },
	{ "append", OPT_APPEND, "TEXT", 0, "Add to the kernel's command line", 1 },
	{ "kernel", OPT_KERNEL, "FILE", 0, "A kernel of this host's instead of the guest's", 1 },
	{ "initrd", OPT_INITRD, "FILE", 0, "An initial RAM disk of this host's", 1 },
	{ "console", OPT_CONSOLE, "serial|virtio|keep", 0,
	  "The terminal is a serial port, and console=ttyS0 added to the command line (default); or a "
	  "virtio console, console=hvc0; or leave the command line as it is", 1 },
	{ NULL, 0, NULL, 0, "How it ends:", 2 },
	{ "on-shutdown", OPT_ON_SHUTDOWN, "reset|exit[:N]", 0,
	  "When the guest powers off: boot it again, or end (default; status 0)", 2 },
	{ "on-reset", OPT_ON_RESET, "reset|exit[:N]", 0,
	  "When it resets: boot it again (default), or end (status 16)", 2 },
	{ "on-crash", OPT_ON_CRASH, "reset|exit[:N]", 0,
	  "When its kernel panics or it faults thrice: the same (default exit; status 17, 18)", 2 },
	{ "reboot", OPT_REBOOT, "again|exit", OPTION_HIDDEN, NULL, 2 },
	{ "fast-kernel", OPT_FAST_KERNEL, NULL, 0,
	  "Decompress the kernel here instead of in the guest (no random load address)", 1 },
	{ "isolate-disks", OPT_ISOLATE, NULL, 0,
	  "Each disk in a process of its own, which is started again if it dies", 0 },
	{ "huge-pages", OPT_HUGE_PAGES, NULL, 0, "Memory from the host's pool of huge pages", 0 },
	{ "net", OPT_NET, "user|tap:DEV|bridge:DEV[,mac=ADDRESS]|none", 0,
	  "A network card: through passt, without privileges; on a tap device that there is; on a "
	  "new one in a bridge; or none, whatever a file says", 0 },
	{ "name", OPT_NAME, "NAME", 0,
	  "What vdisk vm calls the guest (default: after its disk)", 2 },
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

void guest_set_console(struct guest_args *a)
{
	a->guest.virtio_console = a->choice.console && !strcmp(a->choice.console, "virtio");
}

static void parse_end(struct argp_state *state, const char *option, struct end_action *out,
		      bool *said, const char *arg)
{
	*said = true;
	if (words_end(arg, out) < 0)
		argp_error(state, "%s is " words_end_help ", not '%s'", option, arg);
}

void guest_disk_arg(struct guest_disk *out, char *arg, const char *format)
{
	struct vdisk_error err = { 0 };

	*out = (struct guest_disk) { .format = format, .refs = cli.refs };
	if (guest_disk_parse(out, arg, &err) < 0)
		cli_usage("%s", err.msg);
}

static void serial_of(char out[32], const struct guest *g, unsigned i)
{
	snprintf(out, 32, "%s", g->disk[i].serial ? g->disk[i].serial : "");
	if (!g->disk[i].serial)
		snprintf(out, 32, "vdisk%u", i);
}

static bool is_written(const struct guest_disk *d)
{
	return !d->read_only && !d->snapshot;
}

void guest_share_sectors(struct guest_disk *first)
{
	if (first->block_size)
		cli.block_size = (uint32_t)atoi(first->block_size);
	else if (cli.block_size)
		first->block_size = cli.block_size == 4096 ? "4096" : "512";
}

void guest_check_disks(const struct guest *g)
{
	char a[32], b[32];

	for (unsigned i = 0; i < g->n_disks; i++) {
		for (unsigned k = 0; k < i; k++) {
			serial_of(a, g, i);
			serial_of(b, g, k);
			if (!strcmp(a, b))
				cli_usage("two disks have the serial number '%s'", a);
			if (!strcmp(g->disk[i].locator, g->disk[k].locator) &&
			    (is_written(&g->disk[i]) || is_written(&g->disk[k])))
				cli_usage("%s is there twice, and the guest could write to it",
					  g->disk[i].locator);
		}
	}
}

static void parse_memory(struct argp_state *state, const char *arg)
{
	uint64_t bytes;

	if (words_memory(arg, &bytes) < 0)
		argp_error(state, "--memory is " words_memory_help ", not '%s'", arg);
}

static void parse_number(struct argp_state *state, const char *what, const char *arg, unsigned max)
{
	unsigned n;

	if (words_number(arg, 1, max, &n) < 0)
		argp_error(state, "%s is a number from 1 to %u, not '%s'", what, max, arg);
}

static void add_nic(struct argp_state *state, struct guest_args *a, const char *arg)
{
	struct net_words w;

	if (!strcmp(arg, "none"))
		a->no_nics = true;
	else if (a->guest.n_nics == GUEST_NICS_MAX)
		argp_error(state, "more than %d network cards", GUEST_NICS_MAX);
	else if (words_net(arg, &w) < 0)
		argp_error(state, "--net is " words_net_help " or none, not '%s'", arg);
	else
		a->guest.nic[a->guest.n_nics++].option = arg;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct guest_args *a = state->input;
	struct vdisk_error why = { 0 };
	enum cache_mode cache;

	switch (key) {
	case 'm':
		parse_memory(state, arg);
		a->guest.memory = arg;
		break;
	case 'c':
		parse_number(state, "--cpus", arg, CPUS_MAX);
		a->guest.cpus = arg;
		break;
	case OPT_CACHE:
		if (words_cache(arg, &cache) < 0)
			argp_error(state, "--cache is " words_cache_help ", not '%s'", arg);
		a->cache = arg;
		break;
	case OPT_ENGINE:
		if (strcmp(arg, "kvm") && strcmp(arg, "uml"))
			argp_error(state, "--engine is kvm or uml, not '%s'", arg);
		a->engine = arg;
		break;
	case OPT_ENTRY:		a->choice.entry = arg; break;
	case OPT_RECOVERY:	a->choice.recovery = true; break;
	case OPT_APPEND:	a->choice.append = arg; break;
	case OPT_KERNEL:	a->guest.kernel = arg; break;
	case OPT_INITRD:	a->guest.initrd = arg; break;
	case OPT_FAST_KERNEL:	a->guest.fast_kernel = true; break;
	case OPT_ISOLATE:	a->guest.isolate = true; break;
	case OPT_HUGE_PAGES:	a->guest.huge_pages = true; break;
	case OPT_NET:		add_nic(state, a, arg); break;
	case OPT_NAME:
		if (vmfile_check_name(arg, &why) < 0)
			argp_error(state, "--name: %s", why.msg);
		a->guest.name = arg;
		break;
	case OPT_TIME_LIMIT:
		parse_number(state, "--time-limit", arg, TIME_LIMIT_MAX);
		a->guest.time_limit = arg;
		break;
	case OPT_FORCE:		a->guest.force = true; break;
	case OPT_STATS:		a->guest.stats = true; break;
	case OPT_ON_SHUTDOWN:
		parse_end(state, "--on-shutdown", &a->on_shutdown, &a->said_shutdown, arg);
		break;
	case OPT_ON_RESET:
		parse_end(state, "--on-reset", &a->on_reset, &a->said_reset, arg);
		break;
	case OPT_ON_CRASH:
		parse_end(state, "--on-crash", &a->on_crash, &a->said_crash, arg);
		break;
	case OPT_REBOOT:
		a->said_reset = true;
		a->on_reset.reset = !second_of(state, "--reboot", arg, "again", "exit");
		break;
	case OPT_CONSOLE:
		if (strcmp(arg, "serial") && strcmp(arg, "virtio") && strcmp(arg, "keep"))
			argp_error(state, "--console is serial, virtio or keep, not '%s'", arg);
		a->choice.console = arg;
		break;
	case OPT_DISK:
		if (a->guest.n_disks == GUEST_DISKS_MAX)
			argp_error(state, "more than %d disks", GUEST_DISKS_MAX);
		else
			a->disk_arg[a->guest.n_disks++] = arg;
		break;
	case ARGP_KEY_SUCCESS:
		for (unsigned i = 1; i < a->guest.n_disks; i++)
			guest_disk_arg(&a->guest.disk[i], a->disk_arg[i], NULL);
		guest_set_console(a);
		if (a->guest.kernel && (a->choice.entry || a->choice.recovery))
			argp_error(state, "--entry and --recovery choose a kernel of the guest's, "
				   "--kernel is one of this host's");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* The format of what the disk's bytes are in: a file, a device, a LUN. */
static const char *source_format(const struct vdisk *d)
{
	while (vdisk_below(d) && vdisk_below(vdisk_below(d)))
		d = vdisk_below(d);
	return vdisk_below(d) ? vdisk_format(d) : NULL;
}

void guest_pin_format(struct guest_disk *d)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE | VDISK_OPEN_NO_BACKING,
	};
	struct vdisk *disk;

	/* one that cannot be opened now cannot be later, either, and that will say why */
	if (d->format || vdisk_open(&disk, d->locator, &opts, NULL) < 0)
		return;
	d->format = source_format(disk);
	d->keep_raw = d->format && !strcmp(d->format, "raw");
	vdisk_close(disk, NULL);
}

const struct argp guest_argp = { .options = options, .parser = parse, .children = cli_disk };

const struct engine *guest_engine(const struct guest_args *a)
{
	const struct engine *e = a->engine && !strcmp(a->engine, "uml") ? &engine_uml : &engine_kvm;

	if (e->own_kernel && a->choice.entry) {
		cli_error("--engine %s brings its own kernel: --entry is for kvm", e->name);
		return NULL;
	}
	if (e->check(&a->guest) == CLI_OK)
		return e;
	/* what needs the kernel of its own cannot have another one */
	if (a->engine || a->guest.kernel || a->guest.initrd || a->choice.entry)
		return NULL;
	if (engine_uml.check(&a->guest) != CLI_OK)
		return NULL;
	cli_note("as KVM cannot run guests here, this one runs on User-Mode Linux, with its kernel "
		 "instead of its own (--engine decides)");
	return &engine_uml;
}

/* The console= to add; NULL: none. */
static const char *console_tty(const char *console)
{
	if (!console || !strcmp(console, "serial"))
		return "ttyS0";
	return !strcmp(console, "virtio") ? "hvc0" : NULL;
}

/* What is left of the time limit, for one more life; false: nothing. */
static bool time_left(char out[16], struct guest_args *a)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!a->until)
		a->until = now.tv_sec + atoi(a->guest.time_limit);
	snprintf(out, 16, "%lld", (long long)(a->until - now.tv_sec));
	return a->until > now.tv_sec;
}

int guest_boot(const struct engine *engine, struct guest_args *a)
{
	struct vdisk_boot boot = { .kernel_fd = -1, .initrd_fd = -1 };
	const char *append = a->choice.append ? a->choice.append : "";
	AUTO_FREE char *with_console = NULL, *cmdline = NULL, *own = NULL;
	struct guest guest = a->guest;
	int status = CLI_OK;
	char left[16];

	if (guest.time_limit && !time_left(left, a))
		return GUEST_TIME_LIMIT;
	guest.time_limit = guest.time_limit ? left : NULL;
	if (!guest.kernel && !engine->own_kernel)
		status = boot_menu_choose(&boot, guest.disk[0].locator, guest.disk[0].format,
					  &a->choice);
	/* as vdisk_boot_find() adds it to the guest's own */
	if (engine->own_kernel && a->choice.recovery)
		append = asprintf(&own, "%s%ssingle", append, *append ? " " : "") < 0 ? append : own;
	if (status == CLI_OK)
		status = boot_cmdline(&with_console,
				      guest.kernel || engine->own_kernel ? append : boot.cmdline,
				      engine->own_kernel ? NULL : console_tty(a->choice.console));
	if (status == CLI_OK)
		status = boot_fix_root(&cmdline, with_console, &guest);
	if (status == CLI_OK) {
		guest.cmdline = cmdline;
		guest.kernel_fd = boot.kernel_fd;
		guest.initrd_fd = boot.initrd_fd;
		status = guest_net_open(&guest);
		if (status == CLI_OK)
			status = engine->run(&guest);
		guest_net_close(&guest);
	}
	vdisk_boot_clear(&boot);
	return status;
}

bool guest_goes_on(const struct guest_args *a, int status, int *exit_status)
{
	const struct end_action *end = status == 0 ? &a->on_shutdown :
		status == GUEST_REBOOT ? &a->on_reset :
		status == GUEST_PANIC || status == GUEST_TRIPLE_FAULT ? &a->on_crash : NULL;

	*exit_status = end && end->code >= 0 ? end->code : status;
	return end && end->reset;
}
