/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * export.c - "vdiskd export": one iSCSI target in the foreground
 *
 * Everything is opened first; then privileges are dropped, and one reactor
 * serves the target until SIGINT or SIGTERM.  The first signal asks initiators
 * to log out, finishes what is in flight and flushes the disks; a second one
 * drops the connections without waiting.
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "target/export_access.h"
#include "target/iscsi/chap.h"
#include "target/iscsi/server.h"
#include "target/log.h"
#include "target/modes.h"
#include "target/sandbox.h"
#include "target/service.h"
#include "target/unit.h"

#define MAX_PORTALS	16u
#define BUFFER_LIMIT	(1ull << 30)	/* of data in flight, reserved, not used up front */
#define NAME_PREFIX	"iqn.2026-11.org.vdisk:"

struct export {
	const char *name;		/* --iqn; NULL: from the first disk */
	const char *portals[MAX_PORTALS];
	unsigned n_portals;
	bool read_only, removable, quiet;
	struct reactor_opts reactors;
	const char *state_dir;		/* --state-dir; NULL: reservations end with us */
	uint64_t sanitize_rate;
	uint32_t physical;
	const char *serial, *alias;	/* NULL: none */
	unsigned threshold;		/* percent; 0: none */
	struct export_access access;
	struct vdisk_open_opts open;
	char **disks;
	unsigned n_disks;

	struct iscsi_portal *listening[MAX_PORTALS];	/* borrowed */
	struct reactor *reactor;
	struct iscsi_server server;
	struct scsi_target *target;
	struct reactor_source signals;
};

static void help(void)
{
	puts("Usage: vdiskd export [OPTION...] DISK...\n"
	     "Serve disks as the LUNs 0, 1, ... of one iSCSI target until interrupted.\n\n"
	     "  -p, --portal=ADDRESS[:PORT]  listen here; may be repeated (127.0.0.1:3260)\n"
	     "  -n, --iqn=NAME               the target's name (" NAME_PREFIX "FILE)\n"
	     "  -r, --read-only              initiators may not write\n"
	     "  -f, --format=FMT             the disks' image format, instead of probing\n"
	     "  -b, --block-size=512|4096    logical blocks\n"
	     "      --physical-block-size=512|4096  what initiators shall align to\n"
	     "      --removable              the media can be ejected\n"
	     "      --serial=TEXT            the unit's serial number (with one disk)\n"
	     "      --threshold=PERCENT      tell initiators when no more is left of a thin disk\n"
	     "      --alias=TEXT             the target's name for people\n"
	     "      --network=NET[,...]      who may use it, by address; !NET: who may not\n"
	     "      --initiator=NAME[,...]   by name, with * and ?\n"
	     "      --chap=USER:FILE         by the secret in this file; may be repeated\n"
	     "      --chap-mutual=USER:FILE  prove to initiators who we are\n"
	     "      --chap-digests=NAME[,...]  of sha3-256, sha256, sha1, md5\n"
	     "      --state-dir=DIR          keep persistent reservations there\n"
	     "      --sanitize-rate=BYTES    a second, at most, for SANITIZE\n"
	     "      --refs=none|dir|any      which other files an image may name\n"
	     "  -U, --force-share            open although others have it open (with -r)\n"
	     "  -t, --threads=N              threads that serve connections (1)\n"
	     "      --pin                    each of them on a processor of its own\n"
	     "      --busy-poll=MICROSECONDS poll that long before sleeping (0)\n"
	     "  -q, --quiet                  do not print what to type elsewhere\n"
	     "  -v, --verbose                say who logs in; twice: say more\n"
	     "  -h, --help                   this");
}

/* ---- what to type on the other side ---- */

/* "iqn.2026-11.org.vdisk:" and the file's name in the characters that names have. */
static char *default_name(const char *locator)
{
	const char *slash = strrchr(locator, '/'), *base = slash ? slash + 1 : locator;
	char *name = NULL;

	if (asprintf(&name, NAME_PREFIX "%.128s", base) < 0)
		return NULL;
	for (char *c = name + strlen(NAME_PREFIX); *c; c++)
		*c = isalnum((unsigned char)*c) || strchr(".-", *c) ?
		     (char)tolower((unsigned char)*c) : '-';
	return name;
}

/* An address to type: the host's name where we listen on all of them. */
static void reachable(char *out, size_t size, const char *address)
{
	char host[65] = "localhost";

	if (strncmp(address, "0.0.0.0:", 8) != 0 && strncmp(address, "[::]:", 5) != 0) {
		snprintf(out, size, "%s", address);
		return;
	}
	gethostname(host, sizeof(host) - 1);
	snprintf(out, size, "%s:%s", host, strrchr(address, ':') + 1);
}

static void print_recipe(const struct export *e)
{
	char at[ISCSI_ADDRESS_MAX + 65];

	assert(e->target);
	for (unsigned lun = 0; lun < e->n_disks; lun++) {
		const struct scsi_unit *u = e->target->units[lun];

		printf("LUN %u: %s, %.1f MiB in blocks of %u%s\n", lun, e->disks[lun],
		       (double)(u->blocks << u->block_shift) / (1 << 20), 1u << u->block_shift,
		       u->read_only ? ", read-only" : "");
	}
	for (unsigned i = 0; i < e->n_portals; i++) {
		reachable(at, sizeof(at), e->listening[i]->address);
		printf("\non portal %s:\n"
		       "  iscsiadm -m discovery -t sendtargets -p %s\n"
		       "  iscsiadm -m node -T %s -p %s --login\n"
		       "  iscsi-ls -s iscsi://%s/\n"
		       "  qemu-img info iscsi://%s/%s/0\n",
		       at, at, e->target->name, at, at, at, e->target->name);
	}
	printf("\nInterrupt to end.\n");
	fflush(stdout);
}

/* ---- opening ---- */

static int open_disk(struct export *e, unsigned lun, struct vdisk_error *err)
{
	struct scsi_unit_opts opts = { .read_only = e->read_only, .removable = e->removable,
				       .physical_size = e->physical, .serial = e->serial,
				       .threshold_percent = (uint8_t)e->threshold };
	struct vdisk *disk;
	int r = vdisk_open(&disk, e->disks[lun], &e->open, err);

	if (r < 0)
		return r;
	opts.type = unit_is_cdrom(e->disks[lun], disk) ? SCSI_CDROM : SCSI_DISK;
	r = scsi_target_add_unit(e->target, (uint16_t)lun, disk, &opts, err);
	if (r == 0 && e->state_dir && opts.type == SCSI_DISK)
		r = unit_restore(e->target->units[lun], e->state_dir, 0, err);
	vdisk_close(disk, NULL);	/* the target has its own reference */
	return r;
}

static void signalled(struct reactor_source *source, uint32_t events UNUSED)
{
	struct export *e = container_of(source, struct export, signals);
	struct signalfd_siginfo info;

	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (e->server.stopping)
		iscsi_server_drop(&e->server);
	else
		iscsi_server_stop(&e->server);
}

static int open_all(struct export *e, struct vdisk_error *err)
{
	AUTO_FREE char *name = e->name ? strdup(e->name) : default_name(e->disks[0]);
	struct iscsi_access access = { 0 };
	struct iscsi_target *target;
	const char *missing;
	int r;

	e->signals = (struct reactor_source) {
		.fd = service_signals((const int[]){ SIGINT, SIGTERM, 0 }), .ready = signalled,
	};
	if (e->signals.fd < 0)
		return fail(err, -e->signals.fd, "signalfd: %s", strerror(-e->signals.fd));
	service_raise_limits();
	if (!name)
		return fail(err, ENOMEM, "out of memory");
	if (!iscsi_name_valid(name))
		return fail(err, EINVAL, "%s: not an iSCSI name (RFC 7143, 4.2.7)", name);
	e->target = scsi_target_new(name);
	if (!e->target)
		return fail(err, ENOMEM, "out of memory");
	e->target->sanitize_rate = e->sanitize_rate;
	for (unsigned lun = 0; lun < e->n_disks; lun++) {
		r = open_disk(e, lun, err);
		if (r < 0)
			return r;
	}
	service_no_core();
	if (!iscsi_chap_init(&missing))
		log_warnx("libcrypto has no %s: CHAP does without", missing);
	r = export_access_end(&e->access, name, &access, err);
	if (r == 0)
		r = sandbox_files(err);
	if (r == 0)
		r = reactor_new(&e->reactor, BUFFER_LIMIT, err);
	if (r < 0) {
		iscsi_access_clear(&access);
		return r;
	}
	iscsi_server_init(&e->server, e->reactor);
	target = iscsi_server_add_target(&e->server, e->target);
	if (target)
		target->access = access;
	else
		iscsi_access_clear(&access);
	if (target && e->alias)
		target->alias = strdup(e->alias);
	r = reactor_spawn(e->reactor, &e->reactors, err);
	if (r < 0)
		return r;
	if (!target || reactor_add(e->reactor, &e->signals, EPOLLIN) < 0)
		return fail(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < e->n_portals; i++) {
		e->listening[i] = iscsi_portal_add(&e->server, e->portals[i], err);
		if (!e->listening[i])
			return -EINVAL;
	}
	return sandbox_enter(&(struct sandbox_opts) { 0 }, err);
}

/* ---- running ---- */

static int serve(struct export *e, struct vdisk_error *err)
{
	while (!e->server.stopping || e->server.n_conns || !scsi_target_quiesce(e->target)) {
		int r = reactor_turn(e->reactor, -1);

		if (r < 0)
			return fail(err, -r, "waiting for events: %s", strerror(-r));
	}
	return 0;
}

/* Close what is open, in whatever state it is; the first error counts. */
static int close_all(struct export *e, struct vdisk_error *err)
{
	int r;

	if (e->reactor) {
		iscsi_server_fini(&e->server);
		reactor_free(e->reactor);
	}
	r = scsi_target_free(e->target, err);
	if (e->signals.fd >= 0)
		close(e->signals.fd);
	return r;
}

static int parse_refs(struct export *e, const char *text)
{
	static const struct { const char *name; enum vdisk_refs refs; } names[] = {
		{ "none", VDISK_REFS_NONE }, { "dir", VDISK_REFS_DIR }, { "any", VDISK_REFS_ANY },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i].name, text)) {
			e->open.refs = names[i].refs;
			return 0;
		}
	return -EINVAL;
}

static int parse_number(const char *text, unsigned max, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || n > max)
		return -EINVAL;
	*out = (unsigned)n;
	return 0;
}

static const char *option_name(const struct option *options, int value)
{
	while (options->val != value)
		options++;
	return options->name;
}

/* 0: go on; 1: all is done (help); -EINVAL */
static int parse(struct export *e, int argc, char **argv)
{
	enum { REFS = 256, PIN, BUSY, REMOVABLE, PHYSICAL, STATE_DIR, SANITIZE_RATE, SERIAL,
	       THRESHOLD, ALIAS, NETWORK, INITIATOR, CHAP, CHAP_MUTUAL, CHAP_DIGESTS };
	static const struct option options[] = {
		{ "portal", required_argument, NULL, 'p' },
		{ "iqn", required_argument, NULL, 'n' },
		{ "read-only", no_argument, NULL, 'r' },
		{ "format", required_argument, NULL, 'f' },
		{ "block-size", required_argument, NULL, 'b' },
		{ "refs", required_argument, NULL, REFS },
		{ "physical-block-size", required_argument, NULL, PHYSICAL },
		{ "removable", no_argument, NULL, REMOVABLE },
		{ "state-dir", required_argument, NULL, STATE_DIR },
		{ "sanitize-rate", required_argument, NULL, SANITIZE_RATE },
		{ "serial", required_argument, NULL, SERIAL },
		{ "threshold", required_argument, NULL, THRESHOLD },
		{ "alias", required_argument, NULL, ALIAS },
		{ "network", required_argument, NULL, NETWORK },
		{ "initiator", required_argument, NULL, INITIATOR },
		{ "chap", required_argument, NULL, CHAP },
		{ "chap-mutual", required_argument, NULL, CHAP_MUTUAL },
		{ "chap-digests", required_argument, NULL, CHAP_DIGESTS },
		{ "force-share", no_argument, NULL, 'U' },
		{ "threads", required_argument, NULL, 't' },
		{ "pin", no_argument, NULL, PIN },
		{ "busy-poll", required_argument, NULL, BUSY },
		{ "quiet", no_argument, NULL, 'q' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c, r, level = LOG_WARN;

	while ((c = getopt_long(argc, argv, "p:n:rf:b:t:Uqvh", options, NULL)) != -1) {
		switch (c) {
		case 'p':
			if (e->n_portals == MAX_PORTALS)
				return -EINVAL;
			e->portals[e->n_portals++] = optarg;
			break;
		case 'n':
			e->name = optarg;
			break;
		case 'r':
			e->read_only = true;
			break;
		case 'f':
			e->open.format = optarg;
			break;
		case 'b':
			e->open.block_size = !strcmp(optarg, "4096") ? 4096 : 512;
			if (e->open.block_size == 512 && strcmp(optarg, "512") != 0)
				return -EINVAL;
			break;
		case REFS:
			if (parse_refs(e, optarg) < 0)
				return -EINVAL;
			break;
		case 't':
			if (parse_number(optarg, REACTOR_MAX, &e->reactors.threads) < 0)
				return -EINVAL;
			break;
		case PIN:
			e->reactors.pin = true;
			break;
		case BUSY:
			if (parse_number(optarg, 1000000, &e->reactors.busy_us) < 0)
				return -EINVAL;
			break;
		case PHYSICAL:
			e->physical = !strcmp(optarg, "4096") ? 4096 : 512;
			if (e->physical == 512 && strcmp(optarg, "512") != 0)
				return -EINVAL;
			break;
		case REMOVABLE:
			e->removable = true;
			break;
		case STATE_DIR:
			e->state_dir = optarg;
			break;
		case SANITIZE_RATE:
			if (vdisk_parse_size(optarg, &e->sanitize_rate) < 0)
				return -EINVAL;
			break;
		case SERIAL:
			e->serial = optarg;
			break;
		case THRESHOLD:
			if (parse_number(optarg, 99, &e->threshold) < 0 || e->threshold == 0)
				return -EINVAL;
			break;
		case ALIAS:
			e->alias = optarg;
			break;
		case NETWORK:
		case INITIATOR:
		case CHAP_DIGESTS:
			if (export_access_rule(&e->access, option_name(options, c), optarg) < 0)
				return -EINVAL;
			break;
		case CHAP:
		case CHAP_MUTUAL:
			r = export_access_user(&e->access, option_name(options, c), optarg);
			if (r == -EINVAL)
				return r;
			if (r < 0) {
				fprintf(stderr, "vdiskd export: --%s=%s: %s\n", option_name(options, c),
					optarg, strerror(-r));
				return r;
			}
			break;
		case 'U':
			e->open.flags |= VDISK_OPEN_SHARE;
			break;
		case 'q':
			e->quiet = true;
			break;
		case 'v':
			level++;
			break;
		case 'h':
			help();
			return 1;
		default:
			return -EINVAL;
		}
	}
	log_init("vdiskd", (enum log_level)MIN(level, (int)LOG_DEBUG));
	e->disks = argv + optind;
	e->n_disks = (unsigned)(argc - optind);
	if (!e->n_portals)
		e->portals[e->n_portals++] = "127.0.0.1:3260";
	if (!e->read_only)
		e->open.flags |= VDISK_OPEN_WRITE;
	if (e->serial && (e->n_disks != 1 || strlen(e->serial) > SCSI_SERIAL_MAX))
		return -EINVAL;
	return e->n_disks && e->n_disks <= SCSI_MAX_LUNS ? 0 : -EINVAL;
}

int vdiskd_export(int argc, char **argv)
{
	struct export e = { .open.size = sizeof(e.open), .signals.fd = -1 };
	struct vdisk_error err = { 0 }, close_err = { 0 };
	int r = parse(&e, argc, argv);

	if (r == 1)
		return 0;
	if (r < 0) {
		fprintf(stderr, "vdiskd export: wrong usage; see --help\n");
		return 2;
	}
	r = open_all(&e, &err);
	if (r == 0) {
		if (!e.quiet)
			print_recipe(&e);
		r = serve(&e, &err);
	}
	if (r < 0)
		log_warnx("%s", err.msg);
	if (close_all(&e, &close_err) < 0) {
		log_warnx("%s", close_err.msg);
		r = -EIO;
	}
	return r < 0 ? 1 : 0;
}
