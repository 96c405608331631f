/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vm.c - vdisk vm: running guests, through their control sockets
 *
 * One request, one answer, a line of JSON each; see vmm-lite(8).
 */
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/vm.h"
#include "core/fds.h"
#include "vmm-lite/words.h"

#define ANSWER_MAX	(1u << 20)
#define ESCAPE_KEY	0x1d	/* Ctrl-] */

/* ---- asking ---- */

static int send_request(int fd, json_t *request, const int *fds, unsigned n_fds)
{
	AUTO_FREE char *text = json_dumps(request, JSON_COMPACT);
	struct iovec iov[] = { { text, text ? strlen(text) : 0 },
			       { (void *)(uintptr_t)"\n", 1 } };
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = vd_send_fds(fd, iov, 2, fds, n_fds, 0);
	return n == (ssize_t)iov[0].iov_len + 1 ? 0 : n < 0 ? (int)n : -EIO;
}

/* A guest that is stopped does not answer: wait for one so many seconds, 0 for ever. */
static void set_patience(int fd, time_t seconds)
{
	struct timeval tv = { .tv_sec = seconds };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
}

/* One line; what follows it stays in the socket. */
static int read_answer(json_t **out, int fd)
{
	AUTO_FREE char *line = malloc(ANSWER_MAX);
	ssize_t got = 0;
	size_t n = 0;

	while (line && n < ANSWER_MAX && (got = recv(fd, line + n, 1, 0)) == 1 && line[n] != '\n')
		n++;
	if (got < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	*out = got == 1 && n < ANSWER_MAX ? json_loadb(line, n, 0, NULL) : NULL;
	return *out ? 0 : -ECONNRESET;
}

/* -errno of the connection, without a message; 0: an answer, good or bad. */
static int ask_quietly(json_t **answer, const char *name, json_t *request, const int *fds,
		       unsigned n_fds, int *keep, time_t patience)
{
	AUTO_CLOSE int fd = vm_connect(name);
	int r;

	if (fd < 0)
		return fd;
	json_object_set_new(request, "vdisk-vm", json_integer(1));
	set_patience(fd, patience);
	r = send_request(fd, request, fds, n_fds);
	if (r == 0)
		r = read_answer(answer, fd);
	if (r == 0 && keep) {
		set_patience(fd, 0);
		*keep = STEAL_FD(fd);
	}
	return r;
}

static int complain(const char *name, int error)
{
	if (error == -ENOENT)
		cli_error("there is no guest '%s' (vdisk vm list)", name);
	else if (error == -ECONNREFUSED)
		cli_error("guest '%s' is dead: its process is gone", name);
	else if (error == -ETIMEDOUT)
		cli_error("guest '%s' does not answer", name);
	else if (error == -EAGAIN)
		cli_error("guest '%s' does not answer: it is just being started, or stopped", name);
	else
		cli_error("guest '%s': %s", name, strerror(-error));
	return CLI_FAILED;
}

/* Takes @request.  CLI_OK: it did it; else there was a message. */
static int ask_with(json_t **answer, const char *name, json_t *request, const int *fds,
		    unsigned n_fds, int *keep)
{
	json_t *a = NULL;
	int r = ask_quietly(&a, name, request, fds, n_fds, keep, 10);

	json_decref(request);
	if (r < 0)
		return complain(name, r);
	if (!json_is_true(json_object_get(a, "ok"))) {
		const char *why = json_string_value(json_object_get(a, "error"));

		cli_error("guest '%s': %s", name, why ? why : "no");
		json_decref(a);
		return CLI_FAILED;
	}
	if (answer)
		*answer = a;
	else
		json_decref(a);
	return CLI_OK;
}

static int ask(json_t **answer, const char *name, json_t *request)
{
	return ask_with(answer, name, request, NULL, 0, NULL);
}

int vm_ask(json_t **answer, const char *name, json_t *request, const int *fds, unsigned n_fds)
{
	return ask_with(answer, name, request, fds, n_fds, NULL);
}

/* ---- list, show, stats ---- */

static json_t *describe(const char *name)
{
	json_t *request = json_pack("{ss}", "do", "show"), *a = NULL, *known;
	int r = ask_quietly(&a, name, request, NULL, 0, NULL, 2);

	json_decref(request);
	if (!r) {
		json_object_set_new(a, "state", json_string("running"));
		json_object_del(a, "ok");
		return a;
	}
	known = vm_info(name);
	if (!json_is_object(known)) {
		json_decref(known);
		known = json_pack("{ss}", "name", name);
	}
	json_object_set_new(known, "state", json_string(r == -ECONNREFUSED ? "dead" : "silent"));
	return known;
}

static const char *first_disk(json_t *guest)
{
	const char *s = json_string_value(json_object_get(json_array_get(
				json_object_get(guest, "disks"), 0), "locator"));

	if (!s)
		s = json_string_value(json_object_get(guest, "disk"));
	return s ? s : "";
}

static int vm_list(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .doc = "List the guests that run, and those that died.",
	};
	json_t *all = json_array();
	char **names;

	cli_parse(&argp, argc, argv, NULL, 0, 0);
	names = vm_names();
	for (size_t i = 0; names && names[i]; i++) {
		json_array_append_new(all, describe(names[i]));
		free(names[i]);
	}
	free(names);
	if (cli.json)
		return cli_print_json(json_pack("{so}", "guests", all));
	if (json_array_size(all))
		printf("%-20s %-8s %8s %8s %4s  %s\n", "NAME", "STATE", "PID", "MEMORY", "CPUS",
		       "DISK");
	for (size_t i = 0; i < json_array_size(all); i++) {
		json_t *g = json_array_get(all, i);
		json_int_t memory = json_integer_value(json_object_get(g, "memory"));

		printf("%-20s %-8s %8" PRId64 " %7" PRId64 "M %4" PRId64 "  %s\n",
		       json_string_value(json_object_get(g, "name")),
		       json_string_value(json_object_get(g, "state")),
		       (int64_t)json_integer_value(json_object_get(g, "pid")),
		       (int64_t)memory >> 20,
		       (int64_t)json_integer_value(json_object_get(g, "cpus")), first_disk(g));
	}
	json_decref(all);
	return CLI_OK;
}

/* What is said of a disk only where it is not what it mostly is. */
static void show_unless(json_t *d, const char *key, const char *usual)
{
	const char *value = json_string_value(json_object_get(d, key));

	if (value && strcmp(value, usual))
		printf(" (%s %s)", key, value);
}

static void show_disk(json_t *d)
{
	static const char *const flags[] = { "read-only", "isolated", "leaving" };

	printf("  %-8s %-8s %12" PRId64 " bytes  %s", json_string_value(json_object_get(d, "id")),
	       json_string_value(json_object_get(d, "format")),
	       (int64_t)json_integer_value(json_object_get(d, "bytes")),
	       json_string_value(json_object_get(d, "locator")));
	show_unless(d, "serial", "");
	show_unless(d, "cache", "writeback");
	show_unless(d, "limits", "none");
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (json_is_true(json_object_get(d, flags[i])))
			printf(" (%s)", flags[i]);
	if (json_is_true(json_object_get(d, "lost")))
		printf(" (lost: its process died)");
	putchar('\n');
}

/* What there is of it, and what the system did not allow (root needs no user namespace). */
static void show_sandbox(json_t *sandbox)
{
	const char *key;
	json_t *value;

	if (!json_is_object(sandbox))
		return;
	printf("  sandbox:");
	json_object_foreach(sandbox, key, value) {
		/* numbers are versions */
		bool there = json_is_true(value) || json_integer_value(value) > 0;

		if (there)
			printf(" %s", key);
		else if (strcmp(key, "user") != 0)
			printf(" (no %s)", key);
	}
	putchar('\n');
}

static int vm_show(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "NAME", .doc = "Say what a guest is.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	json_t *a = NULL, *disks;

	if (ask(&a, args[0], json_pack("{ss}", "do", "show")) != CLI_OK)
		return CLI_FAILED;
	json_object_del(a, "ok");
	if (cli.json)
		return cli_print_json(a);
	printf("%s: %" PRId64 " MiB, %" PRId64 " processors, process %" PRId64 ", up %" PRId64
	       " s, %" PRId64 " resets\n", args[0],
	       (int64_t)json_integer_value(json_object_get(a, "memory")) >> 20,
	       (int64_t)json_integer_value(json_object_get(a, "cpus")),
	       (int64_t)json_integer_value(json_object_get(a, "pid")),
	       (int64_t)json_integer_value(json_object_get(a, "seconds")),
	       (int64_t)json_integer_value(json_object_get(a, "resets")));
	disks = json_object_get(a, "disks");
	for (size_t i = 0; i < json_array_size(disks); i++)
		show_disk(json_array_get(disks, i));
	show_sandbox(json_object_get(a, "sandbox"));
	json_decref(a);
	return CLI_OK;
}

static int vm_stats(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "NAME",
		.doc = "Counters of a guest, as JSON: its exits to the monitor, and what its disks "
		       "have done.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	json_t *a = NULL;

	if (ask(&a, args[0], json_pack("{ss}", "do", "stats")) != CLI_OK)
		return CLI_FAILED;
	json_object_del(a, "ok");
	return cli_print_json(a);
}

/* ---- console ---- */

/* Until the guest or the person ends it. */
static int carry(int fd)
{
	struct pollfd fds[] = {
		{ .fd = fd, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN },
	};
	char buf[4096];
	ssize_t n;

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return CLI_FAILED;
		if (fds[0].revents) {
			n = read(fd, buf, sizeof(buf));
			if (n <= 0 || write(STDOUT_FILENO, buf, (size_t)n) != n)
				return CLI_OK;
		}
		if (fds[1].revents) {
			n = read(STDIN_FILENO, buf, sizeof(buf));
			if (n > 0 && memchr(buf, ESCAPE_KEY, (size_t)n))
				return CLI_OK;
			if (n > 0 && send(fd, buf, (size_t)n, MSG_NOSIGNAL) < 0)
				return CLI_OK;
			if (n <= 0)
				fds[1].fd = -1;	/* only looking on, from now */
		}
	}
}

static int vm_console(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "NAME",
		.doc = "Be the guest's serial console too; Ctrl-] ends that. What it said last is "
		       "shown first.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	AUTO_CLOSE int fd = -1;
	struct termios saved, raw;
	bool terminal = !tcgetattr(STDIN_FILENO, &saved);
	int status;

	if (ask_with(NULL, args[0], json_pack("{ss}", "do", "console"), NULL, 0, &fd) != CLI_OK)
		return CLI_FAILED;
	if (terminal) {
		raw = saved;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	status = carry(fd);
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	return status;
}

/* ---- stop, kill, reset ---- */

static bool is_there(const char *name)
{
	AUTO_CLOSE int fd = vm_connect(name);

	return fd >= 0 || fd == -EAGAIN;
}

static void pause_briefly(void)
{
	nanosleep(&(struct timespec) { .tv_nsec = 50000000 }, NULL);
}

struct wait_args {
	unsigned long seconds;
};

enum { OPT_WAIT = 0x22000, OPT_SHRINK };

static error_t parse_wait(int key, char *arg, struct argp_state *state)
{
	struct wait_args *a = state->input;

	if (key != OPT_WAIT)
		return ARGP_ERR_UNKNOWN;
	a->seconds = cli_number("--wait", arg, 0, 1000000);
	return 0;
}

static const struct argp_option wait_options[] = {
	{ "wait", OPT_WAIT, "SECONDS", 0, "How long to wait for it (default 30; 0: not at all)", 0 },
	{ 0 },
};

static int vm_stop(int argc, char **argv)
{
	static const struct argp argp = {
		.options = wait_options, .parser = parse_wait, .children = cli_common,
		.args_doc = "NAME",
		.doc = "Press the guest's power button, and wait until it is off.",
	};
	struct wait_args a = { .seconds = 30 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, 1);

	if (ask(NULL, args[0], json_pack("{ss}", "do", "stop")) != CLI_OK)
		return CLI_FAILED;
	for (unsigned long i = 0; i < a.seconds * 20 && is_there(args[0]); i++)
		pause_briefly();
	if (!a.seconds || !is_there(args[0]))
		return CLI_OK;
	cli_error("guest '%s' has not powered off in %lu s (vdisk vm kill pulls the plug)", args[0],
		  a.seconds);
	return CLI_FAILED;
}

static int vm_kill(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "NAME",
		.doc = "Pull the guest's plug: what it flushed is safe, the rest is lost. Of a guest "
		       "that is dead already, remove what it left.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	json_t *request = json_pack("{ss}", "do", "kill"), *a = NULL;
	int r = ask_quietly(&a, args[0], request, NULL, 0, NULL, 5);

	json_decref(request);
	json_decref(a);
	if (r == -ECONNREFUSED) {
		vm_forget(args[0]);
		return CLI_OK;
	}
	if (r < 0)
		return complain(args[0], r);
	for (unsigned i = 0; i < 400 && is_there(args[0]); i++)
		pause_briefly();
	return CLI_OK;
}

static int vm_reset(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "NAME",
		.doc = "Press the guest's reset button.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);

	return ask(NULL, args[0], json_pack("{ss}", "do", "reset"));
}

/* ---- disks ---- */

/* A disk of a guest that was shown, by its id or serial number. */
static json_t *find_disk(json_t *guest, const char *id)
{
	json_t *disks = json_object_get(guest, "disks");

	for (size_t i = 0; i < json_array_size(disks); i++) {
		json_t *d = json_array_get(disks, i);

		if (!strcmp(json_string_value(json_object_get(d, "id")), id) ||
		    !strcmp(json_string_value(json_object_get(d, "serial")), id))
			return d;
	}
	return NULL;
}

/* Has the guest the disk still? */
static bool has_disk(const char *name, const char *id)
{
	json_t *request = json_pack("{ss}", "do", "show"), *a = NULL;
	bool found = ask_quietly(&a, name, request, NULL, 0, NULL, 10) == 0 && find_disk(a, id);

	json_decref(request);
	json_decref(a);
	return found;
}

static int vm_detach(int argc, char **argv)
{
	static const struct argp argp = {
		.options = wait_options, .parser = parse_wait, .children = cli_common,
		.args_doc = "NAME ID",
		.doc = "Ask a guest to give a disk back, and wait until it has. ID is what attach-disk "
		       "printed, or its serial number.",
	};
	struct wait_args a = { .seconds = 30 };
	char **args = cli_parse(&argp, argc, argv, &a, 2, 2);

	if (ask(NULL, args[0], json_pack("{ss ss}", "do", "detach-disk", "disk", args[1])) != CLI_OK)
		return CLI_FAILED;
	for (unsigned long i = 0; i < a.seconds * 20 && has_disk(args[0], args[1]); i++)
		pause_briefly();
	if (!a.seconds || !has_disk(args[0], args[1]))
		return CLI_OK;
	cli_error("guest '%s' has not given %s back in %lu s", args[0], args[1], a.seconds);
	return CLI_FAILED;
}

static error_t parse_shrink(int key, char *arg, struct argp_state *state)
{
	(void)arg;
	if (key != OPT_SHRINK)
		return ARGP_ERR_UNKNOWN;
	*(bool *)state->input = true;
	return 0;
}

/* How large the disk is: CLI_OK, or a message. */
static int size_of_disk(uint64_t *out, const char *name, const char *id)
{
	json_t *a = NULL, *d;

	if (ask(&a, name, json_pack("{ss}", "do", "show")) != CLI_OK)
		return CLI_FAILED;
	d = find_disk(a, id);
	*out = (uint64_t)json_integer_value(json_object_get(d, "bytes"));
	json_decref(a);
	if (d)
		return CLI_OK;
	cli_error("guest '%s': there is no disk '%s'", name, id);
	return CLI_FAILED;
}

static int vm_resize(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "shrink", OPT_SHRINK, NULL, 0, "Cut off the disk's end if SIZE is less", 0 }, { 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_shrink, .children = cli_common,
		.args_doc = "NAME ID [+|-]SIZE",
		.doc = "Give a disk of a running guest another size; the guest sees it at once.",
	};
	bool shrink = false;
	char **args = cli_parse(&argp, argc, argv, &shrink, 3, 3);
	uint64_t size = 0;

	if (strchr("+-", *args[2]) && size_of_disk(&size, args[0], args[1]) != CLI_OK)
		return CLI_FAILED;
	size = cli_new_size(size, args[2]);
	return ask(NULL, args[0], json_pack("{ss ss sI sb}", "do", "resize-disk", "disk", args[1],
					    "bytes", (json_int_t)size, "shrink", shrink));
}

static int vm_limit(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "NAME ID LIMITS",
		.doc = "Limit what a guest does with a disk: bytes=10M,ops=500 (a second) and "
		       "burst=200 (milliseconds of it at once), any of them; none: no limits.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 3, 3);
	struct blk_limits limits;

	if (words_limits(args[2], &limits) < 0)
		cli_usage("LIMITS are " words_limits_help ", not '%s'", args[2]);
	return ask(NULL, args[0], json_pack("{ss ss ss}", "do", "limit", "disk", args[1], "limits",
					    args[2]));
}

static int vm_memory(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "NAME SIZE",
		.doc = "Let a guest do with less memory than it was started with (its balloon takes the "
		       "rest), or with all of it again.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 2, 2);
	uint64_t size = cli_size("SIZE", args[1]);

	return ask(NULL, args[0], json_pack("{ss sI}", "do", "memory", "bytes", (json_int_t)size));
}

/* ---- networks ---- */

static void check_interface(const char *name)
{
	if (!*name || strlen(name) > 15 ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
	    strlen(name))
		cli_usage("'%s' is not a name of an interface", name);
}

static void print_bridge(const char *bridge, const char *dev)
{
	if (!if_nametoindex(bridge))
		printf("ip link add name %s type bridge\n"
		       "ip link set dev %s up\n", bridge, bridge);
	printf("ip link set dev %s master %s\n"
	       "ip link set dev %s up\n", dev, bridge, dev);
}

/* The table has the device's name, so that a second one, or a second time, adds nothing twice. */
static void print_nat(const char *dev)
{
	printf("ip address add 192.168.87.1/24 dev %s\n"
	       "ip link set dev %s up\n"
	       "sysctl -q -w net.ipv4.ip_forward=1\n"
	       "nft -f - <<'END'\n"
	       "table ip vdisk-%s\n"
	       "delete table ip vdisk-%s\n"
	       "table ip vdisk-%s {\n"
	       "\tchain nat {\n"
	       "\t\ttype nat hook postrouting priority 100\n"
	       "\t\tip saddr 192.168.87.0/24 oifname != \"%s\" masquerade\n"
	       "\t}\n"
	       "}\n"
	       "END\n"
	       "# in the guest: address 192.168.87.2/24, gateway 192.168.87.1\n", dev, dev, dev, dev,
	       dev, dev);
}

static int vm_net(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_common, .args_doc = "bridge BRIDGE DEV|nat DEV",
		.doc = "Print what root would type, or feed to sh, so that guests can be on "
		       "--net tap:DEV: in a bridge, or behind this host's address (192.168.87.0/24, "
		       "the host is .1).",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 2, 3);
	const char *dev = args[2] ? args[2] : args[1];
	const struct passwd *pw = getpwuid(geteuid());

	if (strcmp(args[0], args[2] ? "bridge" : "nat"))
		cli_usage("it is bridge BRIDGE DEV, or nat DEV");
	for (size_t i = 1; args[i]; i++)
		check_interface(args[i]);
	printf("ip tuntap add dev %s mode tap vnet_hdr user %s\n", dev, pw ? pw->pw_name : "root");
	if (args[2])
		print_bridge(args[1], dev);
	else
		print_nat(dev);
	return CLI_OK;
}

/* ---- the family ---- */

static const struct cli_command subcommands[] = {
	{ "list", vm_list, "guests that run, and those that died" },
	{ "show", vm_show, "what a guest is" },
	{ "console", vm_console, "be its serial console too" },
	{ "stop", vm_stop, "press its power button" },
	{ "reset", vm_reset, "press its reset button" },
	{ "kill", vm_kill, "pull its plug" },
	{ "attach-disk", vm_attach, "give it one more disk" },
	{ "detach-disk", vm_detach, "take a disk away" },
	{ "resize-disk", vm_resize, "change the size of a disk" },
	{ "limit", vm_limit, "limit what it does with a disk" },
	{ "memory", vm_memory, "let it do with less memory" },
	{ "stats", vm_stats, "its counters" },
	{ "net", vm_net, "what root types to prepare networks" },
};

int cmd_vm(int argc, char **argv)
{
	static const struct cli_family family = {
		"vm", "COMMAND [OPTION...] [NAME [ARGUMENT...]]", subcommands, ARRAY_SIZE(subcommands),
	};

	return cli_run_family(&family, argc, argv);
}
