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
#include "cli/steady.h"
#include "core/args.h"
#include "vmm-lite/words.h"

#define MAX_PORTALS 16u

/* A command line that grows; its strings are borrowed. */
struct arguments {
	const char **list;
	size_t n;
};

struct export_args {
	struct arguments iscsi;		/* for vdiskd, as they came; has room for all */
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
	OPT_CHAP, OPT_CHAP_MUTUAL, OPT_CHAP_DIGESTS, OPT_NETWORK, OPT_INITIATOR, OPT_ALIAS,
	OPT_PHYSICAL, OPT_REMOVABLE, OPT_THRESHOLD, OPT_STATE_DIR, OPT_SANITIZE_RATE, OPT_THREADS,
	OPT_PIN, OPT_BUSY_POLL,
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
	{ "serial", OPT_SERIAL, "TEXT", 0,
	  "The disk's serial number, up to 32 characters (vhost-user: 20)", 0 },
	{ "verbose", 'v', NULL, 0, "Say who connects; twice: say more", 0 },
	{ NULL, 0, NULL, 0, "Over iSCSI (see vdiskd(8)):", 2 },
	{ "chap", OPT_CHAP, "USER:FILE", 0,
	  "Only who proves to be USER, by the secret in FILE; may be repeated", 2 },
	{ "chap-mutual", OPT_CHAP_MUTUAL, "USER:FILE", 0, "Prove to initiators who we are", 2 },
	{ "chap-digests", OPT_CHAP_DIGESTS, "NAME,...", 0, "Of sha3-256, sha256, sha1, md5", 2 },
	{ "network", OPT_NETWORK, "NET,...", 0, "Only from these; !NET: not from these", 2 },
	{ "initiator", OPT_INITIATOR, "NAME,...", 0, "Only for these, with * and ?", 2 },
	{ "alias", OPT_ALIAS, "TEXT", 0, "The target's name for people", 2 },
	{ "physical-block-size", OPT_PHYSICAL, "512|4096", 0, "What initiators shall align to", 2 },
	{ "removable", OPT_REMOVABLE, NULL, 0, "The media can be ejected", 2 },
	{ "threshold", OPT_THRESHOLD, "PERCENT", 0,
	  "Tell initiators when no more is left of a thin disk", 2 },
	{ "state-dir", OPT_STATE_DIR, "DIR", 0, "Keep persistent reservations there", 2 },
	{ "sanitize-rate", OPT_SANITIZE_RATE, "SIZE", 0, "A second, at most, for SANITIZE", 2 },
	{ "threads", OPT_THREADS, "N", 0, "Threads that serve connections (1)", 2 },
	{ "pin", OPT_PIN, NULL, 0, "Each of them on a processor of its own", 2 },
	{ "busy-poll", OPT_BUSY_POLL, "US", 0, "Poll that long before sleeping", 2 },
	{ NULL, 0, NULL, 0, "For guests of QEMU, User-Mode Linux and others:", 1 },
	{ "vhost-user", OPT_VHOST, "SOCKET", 0, "Serve one disk as a vhost-user-blk back end", 1 },
	{ "queues", OPT_QUEUES, "N", 0, "Queues, each with its thread (default: processors)", 1 },
	{ "cache", OPT_CACHE, "writeback|writethrough|none|unsafe", 0,
	  "Through the host's page cache (default); each write durable before it completes; past "
	  "the cache; with flushes that do nothing", 1 },
	{ "limit", OPT_LIMIT, "SPEC", 0, "bytes=SIZE,ops=N,burst=MS: at most this a second", 1 },
	{ "snapshot", OPT_SNAPSHOT, NULL, 0, "What the guest writes is thrown away", 1 },
	{ "poll", OPT_POLL, "US", 0, "Look at an idle queue this long before sleeping", 1 },
	{ "control", OPT_CONTROL, "SOCKET", 0,
	  "Take a line there: stats, limit SPEC, resize BYTES", 1 },
	{ 0 },
};

static void add(struct arguments *a, const char *arg)
{
	a->list[a->n++] = arg;
	a->list[a->n] = NULL;
}

/* An option that vdiskd has under the same name */
static bool pass_on(struct arguments *a, int key, const char *arg)
{
	static const struct { int key; const char *option; } options[] = {
		{ OPT_CHAP, "--chap" }, { OPT_CHAP_MUTUAL, "--chap-mutual" },
		{ OPT_CHAP_DIGESTS, "--chap-digests" }, { OPT_NETWORK, "--network" },
		{ OPT_INITIATOR, "--initiator" }, { OPT_ALIAS, "--alias" },
		{ OPT_PHYSICAL, "--physical-block-size" }, { OPT_REMOVABLE, "--removable" },
		{ OPT_THRESHOLD, "--threshold" }, { OPT_STATE_DIR, "--state-dir" },
		{ OPT_SANITIZE_RATE, "--sanitize-rate" }, { OPT_THREADS, "--threads" },
		{ OPT_PIN, "--pin" }, { OPT_BUSY_POLL, "--busy-poll" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (options[i].key != key)
			continue;
		add(a, options[i].option);
		if (arg)
			add(a, arg);
		return true;
	}
	return false;
}

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
	case OPT_SERIAL:	a->serial = arg; return 0;	/* of either */
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
	return pass_on(&a->iscsi, key, arg) ? 0 : ARGP_ERR_UNKNOWN;
}

static const struct argp export_argp = {
	.options = export_options, .parser = parse_export, .children = cli_disk,
	.args_doc = "DISK...",
	.doc = "Serve disks to other machines and programs until interrupted, and print what to "
	       "type there.\vThe disks become the LUNs 0, 1, ... of one iSCSI target.  Without --chap, "
	       "--network or --initiator, whoever reaches the portal may use them.",
};

static void add_option(struct arguments *a, const char *option, const char *value)
{
	if (!value)
		return;
	add(a, option);
	add(a, value);
}

/* What the servers have in common. */
static void add_disk_options(struct arguments *line, const struct export_args *a)
{
	add_option(line, "--format", cli.format);
	add_option(line, "--refs", words_refs_name(cli.refs));
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
	add_option(line, "--serial", a->serial);
	for (size_t i = 0; i < a->iscsi.n; i++)
		add(line, a->iscsi.list[i]);
	add_disk_options(line, a);
	add(line, "--");
	for (; *disks; disks++)
		add(line, *disks);
}

int cmd_export(int argc, char **argv)
{
	AUTO_FREE const char **list = calloc(3 * (size_t)argc + 2 * MAX_PORTALS + 32, sizeof(*list));
	AUTO_FREE const char **iscsi = calloc(2 * (size_t)argc + 2, sizeof(*iscsi));
	struct export_args a = { .iscsi.list = iscsi };
	char **disks;
	AUTO_FREE char *server = NULL;
	struct arguments line = { .list = list };

	if (!list || !iscsi) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	disks = cli_parse(&export_argp, argc, argv, &a, 1, -1);
	if (!!a.fuse + !!a.vhost + !!a.n_portals != 1)
		cli_usage("say how: one of --iscsi ADDRESS[:PORT], --vhost-user SOCKET, --fuse FILE");
	if (disks[1] && !a.n_portals)
		cli_usage("%s is for one disk", a.fuse ? "--fuse" : "--vhost-user");
	if (a.iscsi.n && !a.n_portals)
		cli_usage("%s goes with --iscsi", a.iscsi.list[0]);
	if (a.serial && a.fuse)
		cli_usage("--serial goes with --iscsi and --vhost-user");
	if (!a.vhost && (a.control || a.cache || a.queues || a.limit || a.poll ||
			 a.snapshot))
		cli_usage("--cache, --limit and the others of their group go with --vhost-user");
	if (a.fuse)
		return cli_export_fuse(a.fuse, disks[0], a.read_only);
	if (cli.share && !a.read_only)
		cli_usage("--force-share is for reading only: use it with -r");
	for (char **d = disks; a.read_only && *d; d++)
		*d = steady_locator(*d);	/* ours until the server takes over */
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
	vd_execv(server, list);
	cli_error("%s: %s", server, strerror(errno));
	return CLI_FAILED;
}
