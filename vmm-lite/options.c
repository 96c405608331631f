/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* options.c - vmm-lite's command line */
#include "vmm-lite/options.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vdisk.h"
#include "vmm-lite/end.h"

enum {
	OPT_KERNEL = 0x10000, OPT_INITRD, OPT_APPEND, OPT_DISK, OPT_FORMAT, OPT_SERIAL,
	OPT_SNAPSHOT, OPT_CACHE, OPT_REBOOT, OPT_TIME_LIMIT, OPT_FORCE, OPT_NO_SANDBOX,
	OPT_STATS, OPT_CHECK, OPT_ON_SHUTDOWN, OPT_ON_RESET, OPT_ON_CRASH, OPT_HUGE_PAGES,
	OPT_FAST_KERNEL, OPT_NAME, OPT_CONTROL, OPT_CARRY, OPT_LIMIT, OPT_POLL, OPT_NET,
	OPT_PORT, OPT_BACKING, OPT_BACKING_FORMAT, OPT_REFS, OPT_KEEP_RAW, OPT_ISOLATE,
	OPT_CONSOLE, OPT_FILE, OPT_LAYER, OPT_KVM, OPT_BLOCK, OPT_KEEP,
};

static const struct argp_option options[] = {
	{ "memory", 'm', "SIZE", 0, "Memory, with K, M, G or in MiB (default 512)", 0 },
	{ "huge-pages", OPT_HUGE_PAGES, NULL, 0, "Memory from the host's pool of 2 MiB pages", 0 },
	{ "cpus", 'c', "N", 0, "Processors (default 1)", 0 },
	{ "kernel", OPT_KERNEL, "FILE", 0,
	  "Linux: bzImage, vmlinux or compressed vmlinux; fd:N is an open descriptor", 0 },
	{ "fast-kernel", OPT_FAST_KERNEL, NULL, 0,
	  "Decompress a bzImage here instead of in the guest (no random load address)", 0 },
	{ "initrd", OPT_INITRD, "FILE", 0, "Initial RAM disk; fd:N likewise", 0 },
	{ "append", OPT_APPEND, "TEXT", 0, "The kernel's command line", 0 },
	{ NULL, 0, NULL, 0, "Disks (each --disk is one more; what follows it is about it):", 1 },
	{ "disk", OPT_DISK, "DISK", 0, "A disk, by its locator", 1 },
	{ "format", 'f', "FMT", 0, "The image's format, instead of looking for it", 1 },
	{ "backing", OPT_BACKING, "DISK", 0, "What it is on top of, whatever the image says", 1 },
	{ "backing-format", OPT_BACKING_FORMAT, "FMT", 0, "The format of that", 1 },
	{ "refs", OPT_REFS, "none|dir|any", 0, "Which other files its image may name", 1 },
	{ "read-only", 'r', NULL, 0, "The guest cannot write", 1 },
	{ "keep-raw", OPT_KEEP_RAW, NULL, 0, "The guest cannot write what would make its raw disk an image "
	  "of another format", 1 },
	{ "snapshot", OPT_SNAPSHOT, NULL, 0, "What the guest writes is thrown away", 1 },
	{ "file", OPT_FILE, "N=NAME", 0, "N is an open descriptor of one of the files that the disk "
	  "consists of; if there are any, all there are", 1 },
	{ "layer", OPT_LAYER, "N", 0, "As --snapshot, in the open file N", 1 },
	{ "cache", OPT_CACHE, "writeback|writethrough|none|unsafe", 0,
	  "Through the host's page cache (default), the same with every write durable, past it, "
	  "or with flushes that do nothing", 1 },
	{ "limit", OPT_LIMIT, "LIMITS", 0,
	  "bytes=10M,ops=500 a second, burst=200 milliseconds of it at once", 1 },
	{ "block-size", OPT_BLOCK, "512|4096", 0, "The disk's logical blocks", 1 },
	{ "serial", OPT_SERIAL, "TEXT", 0, "Serial number, up to 20 characters", 1 },
	{ "isolate-disks", OPT_ISOLATE, NULL, 0, "Each disk in a process of its own, which is started "
	  "again if it dies; an iSCSI disk always is", 1 },
	{ "net", OPT_NET, "tap:N|stream:N[,mac=ADDRESS]", 0,
	  "A network card: N is a descriptor of a tap device, or of a stream of frames as passt has "
	  "them", 1 },
	{ "port", OPT_PORT, "NAME=fd:N", 0, "A named port of a virtio console: what the guest writes there "
	  "goes to this descriptor", 1 },
	{ "console", OPT_CONSOLE, "serial|virtio", 0, "Whose the terminal is: COM1's (default; ttyS0 in "
	  "the guest), or a virtio console's (hvc0)", 1 },
	{ "poll", OPT_POLL, "MICROSECONDS", 0, "How long at most an idle disk thread looks for more "
	  "before it sleeps (default: 200 if the host has processors to spare, else 0)", 1 },
	{ NULL, 0, NULL, 0, "How it ends:", 2 },
	{ "reboot", OPT_REBOOT, "again|exit", 0,
	  "The same as --on-reset=reset (default) and --on-reset=exit", 2 },
	{ "on-shutdown", OPT_ON_SHUTDOWN, "reset|exit[:CODE]", 0,
	  "When the guest powers off (default exit:0)", 2 },
	{ "on-reset", OPT_ON_RESET, "reset|exit[:CODE]", 0,
	  "When it resets (default reset; exit is exit:16)", 2 },
	{ "on-crash", OPT_ON_CRASH, "reset|exit[:CODE]", 0,
	  "When its kernel panics (exit:17, the default) or it faults thrice (exit:18)", 2 },
	{ "time-limit", OPT_TIME_LIMIT, "SECONDS", 0, "Stop after this time, with status 19", 2 },
	{ NULL, 0, NULL, 0, "While it runs:", 2 },
	{ "name", OPT_NAME, "NAME", 0, "The guest's name", 2 },
	{ "control", OPT_CONTROL, "fd:N", 0, "A listening socket for vdisk vm", 2 },
	{ "carry", OPT_CARRY, "fd:N", 0, "One end of a socket pair (seqpacket): what became of the disks "
	  "in the life before is read there, and left for the one after a reset that ends this process",
	  2 },
	{ NULL, 0, NULL, 0, "For tests and troubleshooting:", 3 },
	{ "check", OPT_CHECK, NULL, 0, "Only say whether KVM here can run guests", 3 },
	{ "force", OPT_FORCE, NULL, 0, "Run although the processor cannot virtualize", 3 },
	{ "no-sandbox", OPT_NO_SANDBOX, NULL, 0, "Keep all system calls", 3 },
	{ "keep", OPT_KEEP, "N,M", OPTION_HIDDEN, NULL, 3 },
	{ "kvm", OPT_KVM, "N", 0, "N is an open descriptor of /dev/kvm", 3 },
	{ "stats", OPT_STATS, NULL, 0, "Count the guest's exits", 3 },
	{ "verbose", 'v', NULL, 0, "Say more", 3 },
	{ 0 },
};

static unsigned parse_number(struct argp_state *state, const char *what, const char *text,
			     unsigned min, unsigned max)
{
	unsigned n = min;

	if (words_number(text, min, max, &n) < 0)
		argp_error(state, "%s: '%s' is not a number from %u to %u", what, text, min, max);
	return n;
}

static void parse_action(struct argp_state *state, const char *option, const char *text,
			 struct end_action *out)
{
	if (words_end(text, out) < 0)
		argp_error(state, "%s is " words_end_help ", not '%s'", option, text);
}

static void add_nic(struct options *o, const char *text, struct argp_state *state)
{
	struct nic_option n = { .mac = { 0x52, 0x54, 0x00, 0x76, 0x64, (uint8_t)o->n_nics } };
	int end = 0;

	n.stream = !strncmp(text, "stream:", 7);
	if (o->n_nics == NICS_MAX)
		argp_error(state, "more than %u network cards", NICS_MAX);
	if ((!n.stream && strncmp(text, "tap:", 4)) ||
	    sscanf(strchr(text, ':') + 1, "%d%n", &n.fd, &end) != 1 || n.fd < 0)
		argp_error(state, "--net is tap:N or stream:N, not '%s'", text);
	text = strchr(text, ':') + 1 + end;
	if (*text && (strncmp(text, ",mac=", 5) || words_mac(text + 5, n.mac) < 0))
		argp_error(state, "--net: '%s' is not ,mac=" words_mac_help, text);
	o->nic[o->n_nics++] = n;
}

/* The name stays in the argument, which is cut behind it. */
static void add_port(struct options *o, char *text, struct argp_state *state)
{
	char *value = strchr(text, '=');

	if (o->n_ports == PORTS_MAX)
		argp_error(state, "more than %u ports", PORTS_MAX);
	if (!value || strncmp(value, "=fd:", 4))
		argp_error(state, "--port is NAME=fd:N, not '%s'", text);
	*value = '\0';
	o->port[o->n_ports++] = (struct port_option) {
		.name = text, .fd = (int)parse_number(state, "--port", value + 4, 0, 65535),
	};
}

static void add_disk(struct options *o, const char *locator, struct argp_state *state)
{
	if (o->n_disks == DISKS_MAX)
		argp_error(state, "more than %u disks", DISKS_MAX);
	else
		o->disk[o->n_disks++].locator = locator;
}

static void add_file(struct argp_state *state, struct disk_option *d, char *text)
{
	struct vdisk_open_file *more = realloc(d->files, (d->n_files + 1) * sizeof(*more));

	if (!more || words_file(text, &more[d->n_files]) < 0)
		argp_failure(state, VMM_USAGE, 0, "--file is " words_file_help ", not '%s'", text);
	d->files = more;
	d->n_files++;
}

static error_t parse_disk_option(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	struct disk_option *d = &o->disk[o->n_disks - 1];

	if (!o->n_disks) {
		argp_error(state, "this option follows the --disk that it is about");
		return 0;
	}
	switch (key) {
	case 'f':
		d->format = arg;
		break;
	case 'r':
		d->read_only = true;
		break;
	case OPT_BACKING:
		d->backing = arg;
		break;
	case OPT_BACKING_FORMAT:
		d->backing_format = arg;
		break;
	case OPT_REFS:
		if (words_refs(arg, &d->refs) < 0)
			argp_error(state, "--refs is " words_refs_help ", not '%s'", arg);
		break;
	case OPT_KEEP_RAW:
		d->keep_raw = true;
		break;
	case OPT_SNAPSHOT:
		d->snapshot = true;
		break;
	case OPT_SERIAL:
		if (!words_serial_ok(arg))
			argp_error(state, "--serial is " words_serial_help ", not '%s'", arg);
		d->serial = arg;
		break;
	case OPT_FILE:
		add_file(state, d, arg);
		break;
	case OPT_LAYER:
		d->layer_fd = (int)parse_number(state, "--layer", arg, 3, 65535);
		d->snapshot = true;
		break;
	case OPT_CACHE:
		if (words_cache(arg, &d->cache) < 0)
			argp_error(state, "--cache is " words_cache_help ", not '%s'", arg);
		break;
	case OPT_BLOCK:
		if (words_block_size(arg, &d->block_size) < 0)
			argp_error(state, "--block-size is " words_block_size_help ", not '%s'", arg);
		break;
	case OPT_LIMIT:
		if (words_limits(arg, &d->limits) < 0)
			argp_error(state, "--limit is " words_limits_help ", not '%s'", arg);
		break;
	}
	return 0;
}

/* Of vdisk vm attach-disk: two descriptors, for keeper_alone(). */
static void parse_keep(struct options *o, const char *text, struct argp_state *state)
{
	int end = 0;

	if (sscanf(text, "%d,%d%n", &o->keep[0], &o->keep[1], &end) != 2 || text[end] ||
	    o->keep[0] < 3 || o->keep[1] < 3)
		argp_error(state, "--keep is N,M, not '%s'", text);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'm':
		if (words_memory(arg, &o->memory) < 0)
			argp_error(state, "--memory is " words_memory_help ", not '%s'", arg);
		break;
	case 'c':
		o->vcpus = parse_number(state, "--cpus", arg, 1, CPUS_MAX);
		break;
	case 'v':
		o->verbose = true;
		break;
	case OPT_KERNEL:
		o->kernel = arg;
		break;
	case OPT_INITRD:
		o->initrd = arg;
		break;
	case OPT_APPEND:
		o->cmdline = arg;
		break;
	case OPT_DISK:
		add_disk(o, arg, state);
		break;
	case 'f':
	case 'r':
	case OPT_BACKING:
	case OPT_BACKING_FORMAT:
	case OPT_REFS:
	case OPT_KEEP_RAW:
	case OPT_SNAPSHOT:
	case OPT_SERIAL:
	case OPT_CACHE:
	case OPT_LIMIT:
	case OPT_BLOCK:
	case OPT_FILE:
	case OPT_LAYER:
		return parse_disk_option(key, arg, state);
	case OPT_REBOOT:
		if (strcmp(arg, "exit") && strcmp(arg, "again"))
			argp_error(state, "--reboot is again or exit, not '%s'", arg);
		o->on[ON_RESET] = (struct end_action) { .reset = !strcmp(arg, "again"),
							.code = -1 };
		break;
	case OPT_ON_SHUTDOWN:
		parse_action(state, "--on-shutdown", arg, &o->on[ON_SHUTDOWN]);
		break;
	case OPT_ON_RESET:
		parse_action(state, "--on-reset", arg, &o->on[ON_RESET]);
		break;
	case OPT_ON_CRASH:
		parse_action(state, "--on-crash", arg, &o->on[ON_CRASH]);
		break;
	case OPT_POLL:
		o->poll_us = (int)parse_number(state, "--poll", arg, 0, 10000);
		break;
	case OPT_NET:
		add_nic(o, arg, state);
		break;
	case OPT_PORT:
		add_port(o, arg, state);
		break;
	case OPT_NAME:
		o->name = arg;
		break;
	case OPT_CONTROL:
		if (strncmp(arg, "fd:", 3))
			argp_error(state, "--control is fd:N, not '%s'", arg);
		else
			o->control_fd = (int)parse_number(state, "--control", arg + 3, 0, 65535);
		break;
	case OPT_CARRY:
		if (strncmp(arg, "fd:", 3))
			argp_error(state, "--carry is fd:N, not '%s'", arg);
		else
			o->carry_fd = (int)parse_number(state, "--carry", arg + 3, 0, 65535);
		break;
	case OPT_ISOLATE:
		o->isolate = true;
		break;
	case OPT_KEEP:
		parse_keep(o, arg, state);
		break;
	case OPT_KVM:
		o->kvm_fd = (int)parse_number(state, "--kvm", arg, 3, 65535);
		break;
	case OPT_CONSOLE:
		o->virtio_console = !strcmp(arg, "virtio");
		if (!o->virtio_console && strcmp(arg, "serial"))
			argp_error(state, "--console is serial or virtio, not '%s'", arg);
		break;
	case OPT_HUGE_PAGES:
		o->huge_pages = true;
		break;
	case OPT_FAST_KERNEL:
		o->fast_kernel = true;
		break;
	case OPT_TIME_LIMIT:
		o->time_limit = parse_number(state, "--time-limit", arg, 1, 1000000);
		break;
	case OPT_CHECK:
		o->check = true;
		break;
	case OPT_FORCE:
		o->force = true;
		break;
	case OPT_NO_SANDBOX:
		o->no_sandbox = true;
		break;
	case OPT_STATS:
		o->stats = true;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "'%s' is too much", arg);
		break;
	case ARGP_KEY_END:
		if (o->keep[0] >= 0 && o->n_disks != 1)
			argp_error(state, "--keep is about one disk");
		if (!o->kernel && !o->check && o->keep[0] < 0)
			argp_error(state, "--kernel is missing");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

#define DOC "\v" \
	       "The guest's console is on standard input and output; Ctrl-] q ends it.\n" \
	       "Exit status: 0 power-off, 1 error, 2 usage, 16 reset (--on-reset=exit), " \
	       "17 the guest panicked, 18 triple fault, 19 time limit, 20 stopped from outside."

/* As the guest sees them, and show tells; a disk's process has to know. */
static void name_disks(struct options *o)
{
	for (unsigned i = 0; i < o->n_disks; i++) {
		if (o->disk[i].serial)
			continue;
		snprintf(o->serial_text[i], sizeof(o->serial_text[i]), "vdisk%u", i);
		o->disk[i].serial = o->serial_text[i];
	}
}

void options_parse(struct options *out, int argc, char **argv, const char *what)
{
	char doc[1024];
	struct argp argp = { .options = options, .parser = parse, .doc = doc };

	snprintf(doc, sizeof(doc), "%s" DOC, what);
	*out = (struct options) { .memory = 512ull << 20, .vcpus = 1, .cmdline = "", .control_fd = -1,
		.carry_fd = -1, .kvm_fd = -1, .poll_us = -1, .keep = { -1, -1 },
		.pid = getpid(),
		.on = { [ON_SHUTDOWN] = { .code = -1 }, [ON_CRASH] = { .code = -1 },
			[ON_RESET] = { .reset = true, .code = -1 } } };
	argp_err_exit_status = VMM_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, out))
		exit(VMM_USAGE);
	name_disks(out);
}
