/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * export.c - vdisk export: hand disks to others over a protocol
 *
 * The servers are programs of their own, which drop their privileges before
 * they serve anyone; this finds the one that is asked for and becomes it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

#define MAX_PORTALS 16u

struct export_args {
	const char *portals[MAX_PORTALS];
	unsigned n_portals;
	const char *iqn;
	const char *fuse;	/* the file that shall be the disk */
	const char *vhost;	/* the socket */
	const char *control, *cache, *serial, *queues, *limit, *poll;	/* with ->vhost */
	bool snapshot;
	bool read_only;
	unsigned verbose;
};

enum {
	OPT_ISCSI = 0x2000, OPT_IQN, OPT_BLOCK, OPT_FUSE, OPT_VHOST, OPT_CONTROL, OPT_CACHE,
	OPT_SERIAL, OPT_QUEUES, OPT_LIMIT, OPT_POLL, OPT_SNAPSHOT,
};

static const struct argp_option export_options[] = {
	{ "iscsi", OPT_ISCSI, "PORTAL", 0,
	  "Serve over iSCSI on ADDRESS[:PORT]; may be repeated", 0 },
	{ "iqn", OPT_IQN, "NAME", 0,
	  "The iSCSI target's name (default: iqn.2026-11.org.vdisk: and the first file's name)", 0 },
	{ "fuse", OPT_FUSE, "FILE", 0,
	  "Show one disk to this host's programs as FILE, by FUSE", 0 },
	{ "block-size", OPT_BLOCK, "512|4096", 0, "The disks' logical blocks", 0 },
	{ "read-only", 'r', NULL, 0, "Let nobody write", 0 },
	{ "verbose", 'v', NULL, 0, "Say who connects; twice: say more", 0 },
	{ NULL, 0, NULL, 0, "For guests of QEMU, User-Mode Linux and others:", 1 },
	{ "vhost-user", OPT_VHOST, "SOCKET", 0, "Serve one disk as a vhost-user-blk back end", 1 },
	{ "queues", OPT_QUEUES, "N", 0, "Queues, each with its thread (default: processors)", 1 },
	{ "cache", OPT_CACHE, "writeback|writethrough|none|unsafe", 0,
	  "Through the host's page cache (default); each write durable before it completes; past "
	  "the cache; with flushes that do nothing", 1 },
	{ "limit", OPT_LIMIT, "SPEC", 0, "bytes=SIZE,ops=N,burst=MS: at most this a second", 1 },
	{ "serial", OPT_SERIAL, "TEXT", 0, "The disk's serial number, up to 20 characters", 1 },
	{ "snapshot", OPT_SNAPSHOT, NULL, 0, "What the guest writes is thrown away", 1 },
	{ "poll", OPT_POLL, "US", 0, "Look at an idle queue this long before sleeping", 1 },
	{ "control", OPT_CONTROL, "SOCKET", 0,
	  "Take a line there: stats, limit SPEC, resize BYTES", 1 },
	{ 0 },
};

static error_t parse_export(int key, char *arg, struct argp_state *state)
{
	struct export_args *a = state->input;

	switch (key) {
	case OPT_ISCSI:
		if (a->n_portals == MAX_PORTALS)
			cli_usage("--iscsi: at most %u portals", MAX_PORTALS);
		a->portals[a->n_portals++] = arg;
		return 0;
	case OPT_IQN:
		a->iqn = arg;
		return 0;
	case OPT_FUSE:
		a->fuse = arg;
		return 0;
	case OPT_VHOST:		a->vhost = arg; return 0;
	case OPT_CONTROL:	a->control = arg; return 0;
	case OPT_CACHE:		a->cache = arg; return 0;
	case OPT_SERIAL:	a->serial = arg; return 0;
	case OPT_QUEUES:	a->queues = arg; return 0;
	case OPT_LIMIT:		a->limit = arg; return 0;
	case OPT_POLL:		a->poll = arg; return 0;
	case OPT_SNAPSHOT:	a->snapshot = true; return 0;
	case OPT_BLOCK:
		cli.block_size = (uint32_t)cli_number("--block-size", arg, 512, 4096);
		if (cli.block_size != 512 && cli.block_size != 4096)
			cli_usage("--block-size is 512 or 4096, not '%s'", arg);
		return 0;
	case 'r':
		a->read_only = true;
		return 0;
	case 'v':
		a->verbose++;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp export_argp = {
	.options = export_options, .parser = parse_export, .children = cli_disk,
	.args_doc = "DISK...",
	.doc = "Serve disks to other machines and programs until interrupted, and print what to "
	       "type there.\vThe disks become the LUNs 0, 1, ... of one iSCSI target.  There is no "
	       "authentication: whoever reaches the portal may use them.",
};

/* A command line that grows; its strings are borrowed. */
struct arguments {
	const char **list;
	size_t n;
};

static void add(struct arguments *a, const char *arg)
{
	a->list[a->n++] = arg;
	a->list[a->n] = NULL;
}

static void add_option(struct arguments *a, const char *option, const char *value)
{
	if (!value)
		return;
	add(a, option);
	add(a, value);
}

static const char *refs_name(void)
{
	switch (cli.refs) {
	case VDISK_REFS_NONE:
		return "none";
	case VDISK_REFS_DIR:
		return "dir";
	case VDISK_REFS_ANY:
		return "any";
	case VDISK_REFS_DEFAULT:
		break;
	}
	return NULL;
}

/* What the servers have in common. */
static void add_disk_options(struct arguments *line, const struct export_args *a)
{
	add_option(line, "--format", cli.format);
	add_option(line, "--refs", refs_name());
	if (cli.block_size)
		add_option(line, "--block-size", cli.block_size == 4096 ? "4096" : "512");
	if (a->read_only)
		add(line, "--read-only");
	if (cli.share)
		add(line, "--force-share");
	if (cli.quiet)
		add(line, "--quiet");
	for (unsigned i = 0; i < MIN(a->verbose, 2u); i++)
		add(line, "--verbose");
}

static void add_vhost(struct arguments *line, const struct export_args *a)
{
	add_option(line, "--socket", a->vhost);
	add_option(line, "--control", a->control);
	add_option(line, "--cache", a->cache);
	add_option(line, "--serial", a->serial);
	add_option(line, "--queues", a->queues);
	add_option(line, "--limit", a->limit);
	add_option(line, "--poll", a->poll);
	if (a->snapshot)
		add(line, "--snapshot");
}

static void add_all(struct arguments *line, const struct export_args *a, char **disks)
{
	for (unsigned i = 0; i < a->n_portals; i++)
		add_option(line, "--portal", a->portals[i]);
	add_option(line, "--iqn", a->iqn);
	add_disk_options(line, a);
	add(line, "--");
	for (; *disks; disks++)
		add(line, *disks);
}

int cmd_export(int argc, char **argv)
{
	struct export_args a = { 0 };
	char **disks = cli_parse(&export_argp, argc, argv, &a, 1, -1);
	AUTO_FREE const char **list = calloc((size_t)argc + 2 * MAX_PORTALS + 32, sizeof(*list));
	AUTO_FREE char *server = NULL;
	struct arguments line = { .list = list };

	if (!!a.fuse + !!a.vhost + !!a.n_portals != 1)
		cli_usage("say how: one of --iscsi ADDRESS[:PORT], --vhost-user SOCKET, --fuse FILE");
	if (disks[1] && !a.n_portals)
		cli_usage("%s is for one disk", a.fuse ? "--fuse" : "--vhost-user");
	if (!a.vhost && (a.control || a.cache || a.serial || a.queues || a.limit || a.poll ||
			 a.snapshot))
		cli_usage("--cache, --limit and the others of their group go with --vhost-user");
	if (a.fuse)
		return cli_export_fuse(a.fuse, disks[0], a.read_only);
	if (cli.share && !a.read_only)
		cli_usage("--force-share is for reading only: use it with -r");
	if (!list) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	if (cli_sibling(&server, a.vhost ? "vdisk-vhost" : "vdiskd") != CLI_OK)
		return CLI_FAILED;
	if (a.vhost) {
		add(&line, "vdisk-vhost");
		add_vhost(&line, &a);
		add_disk_options(&line, &a);
		add(&line, "--");
		add(&line, disks[0]);
	} else {
		add(&line, "vdiskd");
		add(&line, "export");
		add_all(&line, &a, disks);
	}
	execv(server, (char *const *)(uintptr_t)list);
	cli_error("%s: %s", server, strerror(errno));
	return CLI_FAILED;
}
