/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vm_attach.c - vdisk vm attach-disk: one more disk for a guest that runs
 *
 * A disk of files is opened and locked here, with all its backing files, and goes over
 * as descriptors; the guest's process then has the lock.  A disk that is to have a
 * process of its own - the guest's disks are isolated, or it is one of a network - is
 * started here, with its keeper: the guest's process gets its connection, and could not
 * have asked for it.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/guest.h"
#include "cli/vm.h"
#include "vmm-lite/keeper.h"

enum { OPT_CACHE = 0x22800, OPT_SERIAL };

#define READY_S		150	/* a target may be away for a while */

static error_t parse_attach(int key, char *arg, struct argp_state *state)
{
	struct guest_disk *d = state->input;
	enum cache_mode cache;

	switch (key) {
	case 'r':
		d->read_only = true;
		break;
	case OPT_CACHE:
		if (words_cache(arg, &cache) < 0)
			argp_error(state, "--cache is " words_cache_help ", not '%s'", arg);
		d->cache = arg;
		break;
	case OPT_SERIAL:
		if (!words_serial_ok(arg))
			argp_error(state, "--serial is " words_serial_help ", not '%s'", arg);
		d->serial = arg;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* What is said of the disk behind commas wins over the options. */
static void disk_of(struct guest_disk *out, char *arg)
{
	struct guest_disk given = *out;

	guest_disk_arg(out, arg, cli.format);
	out->read_only |= given.read_only;
	if (!out->cache)
		out->cache = given.cache;
	if (!out->serial)
		out->serial = given.serial;
	if (out->snapshot)
		cli_usage("a disk of a running guest has no throw-away layer: make an image on top of it "
			  "(vdisk create -b)");
}

/* NULL, and a message: a name in it is not UTF-8. */
static json_t *attach_request(const struct guest_disk *d)
{
	json_t *r = json_pack("{ss ss sb ss* ss* ss*}", "do", "attach-disk", "locator", d->locator,
			      "read-only", d->read_only, "format", d->format, "cache", d->cache,
			      "serial", d->serial);

	if (!r)
		cli_error("%s: a name that is not UTF-8 cannot be passed on", d->locator);
	if (r && d->limits[0])
		json_object_set_new(r, "limits", json_string(d->limits));
	if (r && d->keep_raw && !d->read_only)
		json_object_set_new(r, "keep-raw", json_true());
	if (r && d->block_size)
		json_object_set_new(r, "block-size", json_integer(atoi(d->block_size)));
	return r;
}

static int send_request(const char *guest, json_t *request, const int *fds, unsigned n)
{
	json_t *answer = NULL;
	int status = vm_ask(&answer, guest, request, fds, n);

	if (status == CLI_OK)
		printf("%s\n", json_string_value(json_object_get(answer, "id")));
	json_decref(answer);
	return status;
}

/* ---- by its files ---- */

static int attach_files(const char *guest, const struct guest_disk *d)
{
	uint32_t flags = d->read_only ? 0 : VDISK_OPEN_WRITE;
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_open_file files[VM_FILES_MAX];
	json_t *names = json_array(), *request;
	int fds[VM_FILES_MAX];
	unsigned n;

	if (d->cache && !strcmp(d->cache, "none"))
		flags |= VDISK_OPEN_DIRECT;
	if (cli_open_format(&disk, d->locator, d->format, flags) < 0) {
		json_decref(names);
		return CLI_FAILED;
	}
	n = vdisk_list_files(disk, files, VM_FILES_MAX);
	if (n > VM_FILES_MAX) {
		cli_error("%s: consists of more than %d files", d->locator, VM_FILES_MAX);
		json_decref(names);
		return CLI_FAILED;
	}
	for (unsigned i = 0; i < n; i++) {
		fds[i] = files[i].fd;
		json_array_append_new(names, json_string(files[i].path));
	}
	request = attach_request(d);
	if (!request || json_array_size(names) != n) {
		json_decref(names);
		return CLI_FAILED;
	}
	json_object_set_new(request, "files", names);
	return send_request(guest, request, fds, n);
}

/* ---- by a process of its own ---- */

/* Until the keeper has something to say: that the disk is open, or that it never will be. */
static int wait_for_disk(int channel, const char *locator)
{
	struct pollfd p = { .fd = channel, .events = POLLIN };
	struct keeper_word word = { .says = KEEPER_GONE };

	if (poll(&p, 1, READY_S * 1000) <= 0 || !(p.revents & POLLIN))
		cli_error("%s: its process does not come up", locator);
	else if (recv(channel, &word, sizeof(word), MSG_PEEK) == sizeof(word) && word.says == KEEPER_NEW)
		return CLI_OK;
	return CLI_FAILED;	/* it has said why itself */
}

static int attach_isolated(const char *guest, const struct guest_disk *disk, const json_t *shown)
{
	struct guest_disk d = *disk;
	int channel[2] = { -1, -1 }, control[2] = { -1, -1 }, events[2] = { -1, -1 }, status;
	char serial[32];
	json_t *request;

	if (!d.serial) {
		snprintf(serial, sizeof(serial), "vdisk%lld",
			 (long long)json_integer_value(json_object_get(shown, "next")));
		d.serial = serial;
	}
	request = attach_request(&d);
	if (!request)
		return CLI_FAILED;
	json_object_set_new(request, "isolated", json_true());
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, events) < 0) {
		cli_error("socketpair: %m");
		status = CLI_FAILED;
	} else {
		status = guest_keep_disk(&d, (unsigned)json_integer_value(json_object_get(shown, "cpus")),
					 channel[1], control[1]);
	}
	close(channel[1]);
	close(control[1]);
	if (status == CLI_OK)
		status = wait_for_disk(channel[0], d.locator);
	if (status == CLI_OK)
		status = send_request(guest, request,
				      (int[]) { channel[0], control[0], events[0], events[1] }, 4);
	else
		json_decref(request);
	close(channel[0]);
	close(control[0]);
	close(events[0]);
	close(events[1]);
	return status;
}

/* ---- the command ---- */

static int attach(const char *guest, struct guest_disk *d)
{
	json_t *shown = NULL;
	int status;

	if (vm_ask(&shown, guest, json_pack("{ss}", "do", "show"), NULL, 0) != CLI_OK)
		return CLI_FAILED;
	if (vdisk_is_remote(d->locator) || json_is_true(json_object_get(shown, "isolate")))
		status = attach_isolated(guest, d, shown);
	else
		status = attach_files(guest, d);
	json_decref(shown);
	return status;
}

int vm_attach(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "read-only", 'r', NULL, 0, "The guest cannot write to it", 0 },
		{ "cache", OPT_CACHE, "writeback|writethrough|none|unsafe", 0, "As in vdisk boot", 0 },
		{ "serial", OPT_SERIAL, "TEXT", 0, "Serial number, up to 20 characters", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_attach, .children = cli_disk,
		.args_doc = "NAME DISK[,OPTION...]",
		.doc = "Give a running guest one more disk; prints its id. The guest finds it by "
		       "itself. OPTION: format=, cache=, serial=, limit=, block-size=, read-only.",
	};
	struct guest_disk d = { 0 };
	char **args = cli_parse(&argp, argc, argv, &d, 2, 2);

	disk_of(&d, args[1]);
	guest_pin_format(&d);
	return attach(args[0], &d);
}
