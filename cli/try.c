/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * try.c - vdisk try: boot a disk, or run a command in it, and leave it as it was
 *
 * What the guest writes goes into a qcow2 overlay that has no name: a file in a
 * temporary directory, known only as a descriptor of this process.
 * Whatever ends this process ends the guest, and with both the file is gone.
 * Until then the disk is held open, so that nobody writes to it, and
 * many can try at once.
 *
 * A command is put into the overlay's files (try_guest.c).  What it prints comes through
 * two ports of the guest's as it is printed, or, where the guest has no driver for them, is
 * found in its files afterwards, as its exit status is; the guest's console is only shown
 * when that is not there.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>

#include "cli/commands.h"
#include "cli/guest.h"
#include "cli/try_guest.h"

enum {
	TRY_FAILED = 125,	/* no status of the command's */
	REBOOTS_MAX = 5,	/* before the command has come to its end */
	CONSOLE_TAIL = 4096,	/* bytes of it that are shown */
};

struct try_args {
	struct guest_args g;
	const char *keep;	/* NULL: not */
	bool commit, verbose;
};

/* A thread that carries what the guest prints on a port to a descriptor of ours. */
struct relay {
	int from;		/* owned: the end that is read; -1: none */
	int to;			/* owned */
	pthread_t thread;
};

struct attempt {
	struct try_args *args;
	struct guest_disk given; /* as it was given, with its options */
	const char *locator;
	char *const *command;	/* NULL: none */
	char *path;		/* owned: of the disk's file, absolute; NULL: it is another disk */
	struct vdisk *held;	/* owned: the disk, so that it stays as it is */
	int fd;			/* owned: the overlay */
	char overlay[64];	/* its name for other processes of ours */
	char *append;		/* owned: the command line's additions, or NULL */
	int console;		/* owned: where the console goes; -1: the terminal */
	struct relay relay[GUEST_PORTS_MAX];
};

enum { OPT_KEEP = 0x22000, OPT_COMMIT };

static const struct argp_option try_options[] = {
	{ "keep", OPT_KEEP, "NAME", 0,
	  "Keep what the guest has written: as a snapshot of DISK, or, with a / or the end .qcow2 in "
	  "NAME, as a new image on top of it", 0 },
	{ "commit", OPT_COMMIT, NULL, 0, "Write it into DISK, if the guest ended well", 0 },
	{ "verbose", 'v', NULL, 0, "With a COMMAND: show the guest's console on stderr", 0 },
	{ 0 },
};

static error_t parse_try(int key, char *arg, struct argp_state *state)
{
	struct try_args *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->g;
		break;
	case OPT_KEEP:
		a->keep = arg;
		break;
	case OPT_COMMIT:
		a->commit = true;
		break;
	case 'v':
		a->verbose = true;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp_child try_children[] = {
	{ &guest_argp, 0, NULL, 0 }, { 0 },
};

static const struct argp try_argp = {
	.options = try_options, .parser = parse_try, .children = try_children,
	.args_doc = "DISK [-- COMMAND [ARGUMENT...]]",
	.doc = "Boot a guest, or run a command in it, and leave its disk as it was.\v"
	       "A COMMAND runs as root once the guest is up; then the guest powers off, and the "
	       "command's output and exit status are those of vdisk try (125: it did not run to its "
	       "end).  Without one, the guest's console is this terminal, and the exit status is "
	       "that of vdisk boot.",
};

/* ---- the overlay ---- */

static bool is_file_name(const char *name)
{
	size_t len = strlen(name);

	return strchr(name, '/') || (len > 6 && !strcmp(name + len - 6, ".qcow2"));
}

/* The disk, held open; its path, if it is a file, which an image can name. */
static int hold_disk(struct attempt *t)
{
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	struct stat st;

	if (vdisk_locator_parse(&loc, t->locator, &err) < 0)
		return cli_fail(&err);
	if (!loc.snapshot && !loc.part && !loc.path && stat(loc.source, &st) == 0 &&
	    (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		t->path = realpath(loc.source, NULL);
	if (loc.snapshot && t->args->commit) {
		cli_error("%s: nothing can be written into a snapshot", t->locator);
		vdisk_locator_clear(&loc);
		return CLI_FAILED;
	}
	vdisk_locator_clear(&loc);
	if (cli_open(&t->held, t->locator, 0) != CLI_OK)
		return CLI_FAILED;
	/* the overlay names the disk, whatever the disk itself may name */
	cli.refs = VDISK_REFS_ANY;
	return CLI_OK;
}

/* Before anything has been done: can it be kept under that name? */
static int check_keep(const struct attempt *t)
{
	const char *name = t->args->keep;
	AUTO_FREE struct vdisk_snapshot *list = NULL;
	struct vdisk_error err = { 0 };
	int n;

	if (!t->path) {
		cli_error("%s: neither an image nor a snapshot could be made on top of it: what the "
			  "guest writes cannot be kept", t->locator);
		return CLI_FAILED;
	}
	if (is_file_name(name)) {
		if (access(name, F_OK) < 0)
			return CLI_OK;
		cli_error("%s: exists", name);
		return CLI_FAILED;
	}
	n = vdisk_snapshot_list(t->held, &list, &err);
	if (n == -ENOTSUP)
		cli_error("%s: %s images have no snapshots; --keep %s.qcow2 makes an image on top",
			  t->locator, vdisk_format(t->held), name);
	else if (n < 0)
		return cli_fail(&err);
	for (int i = 0; i < n; i++) {
		if (!strcmp(list[i].name, name)) {
			cli_error("%s: has a snapshot '%s' already", t->locator, name);
			return CLI_FAILED;
		}
	}
	return n < 0 ? CLI_FAILED : CLI_OK;
}

static char *scratch_directory(const struct try_args *a)
{
	const char *slash, *dir = getenv("TMPDIR");
	char *text;

	if (!a->keep || !is_file_name(a->keep))
		return strdup(dir && *dir ? dir : "/var/tmp");
	slash = strrchr(a->keep, '/');
	if (!slash)
		return strdup(".");
	if (slash == a->keep)
		return strdup("/");
	return asprintf(&text, "%.*s", (int)(slash - a->keep), a->keep) < 0 ? NULL : text;
}

static int make_overlay(struct attempt *t)
{
	AUTO_FREE char *dir = scratch_directory(t->args);
	struct vdisk_create_opts opts = {
		.size = sizeof(opts), .format = "qcow2", .backing = t->path,
		.backing_format = t->path ? vdisk_format(t->held) : NULL, .overwrite = true,
		.refs = VDISK_REFS_ANY,
	};
	struct vdisk_error err = { 0 };

	if (!dir) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	if (vdisk_scratch_file(&t->fd, dir, &err) < 0)
		return cli_fail(&err);
	snprintf(t->overlay, sizeof(t->overlay), "/proc/%d/fd/%d", (int)getpid(), t->fd);
	cli.alias.name = t->overlay;
	cli.alias.shown = t->locator;
	if (!t->path) {
		cli.overlay.locator = t->overlay;
		cli.overlay.backing = t->locator;
		cli.overlay.backing_format = cli.format;
	}
	return vdisk_create(t->overlay, vdisk_size(t->held), &opts, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

/* The guest's root in the overlay; close it with close_root(). */
struct root {
	struct vdisk *disk, *volume;
	struct vdisk_fs *fs;
};

static int open_root(struct root *out, const struct attempt *t, bool write)
{
	struct root root = { .disk = NULL };
	struct vdisk_error err = { 0 };

	if (cli_open_format(&root.disk, t->overlay, "qcow2", write ? VDISK_OPEN_WRITE : 0) < 0)
		return CLI_FAILED;
	if (vdisk_open_root(&root.volume, root.disk, &err) < 0 ||
	    vdisk_fs_open(&root.fs, root.volume, write ? VDISK_FS_WRITE : 0, &err) < 0) {
		vdisk_close(root.volume, NULL);
		vdisk_close(root.disk, NULL);
		return cli_fail(&err);
	}
	*out = root;
	return CLI_OK;
}

/* What could not be written out is said, unless @err says something already. */
static int close_root(struct root *root, int r, struct vdisk_error *err)
{
	int closed = vdisk_fs_close(root->fs, r < 0 ? NULL : err);

	if (r >= 0 && closed < 0)
		r = closed;
	closed = vdisk_close(root->volume, r < 0 ? NULL : err);
	if (r >= 0 && closed < 0)
		r = closed;
	closed = vdisk_close(root->disk, r < 0 ? NULL : err);
	return r >= 0 && closed < 0 ? closed : r;
}

/* ---- the command ---- */

static int put_command(struct attempt *t)
{
	struct try_command c = { .argv = t->command, .append = "" };
	const char *words = t->args->g.choice.append ? t->args->g.choice.append : "";
	struct vdisk_error err = { 0 };
	struct root root;
	int r;

	if (open_root(&root, t, true) != CLI_OK)
		return CLI_FAILED;
	r = try_put(root.fs, &c, &err);
	r = close_root(&root, r, &err);
	if (r < 0)
		return cli_fail(&err);
	if (asprintf(&t->append, "%s%s%s", words, *words && *c.append ? " " : "", c.append) < 0) {
		t->append = NULL;
		cli_error("out of memory");
		return CLI_FAILED;
	}
	t->args->g.choice.append = t->append;
	return CLI_OK;
}

static bool command_done(const struct attempt *t)
{
	struct root root;
	bool done;

	if (open_root(&root, t, false) != CLI_OK)
		return true;	/* no use in going on */
	done = try_is_done(root.fs);
	close_root(&root, 0, NULL);
	return done;
}

/* The end of the console, with nothing in it that a terminal would obey. */
static void show_console(int fd)
{
	unsigned char text[CONSOLE_TAIL];
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > (off_t)sizeof(text) ? size - (off_t)sizeof(text) : 0;
	ssize_t n = pread(fd, text, sizeof(text), from), i = 0;

	if (n <= 0)
		return;
	cli_error("the last lines of the guest's console:");
	while (from > 0 && i < n && text[i++] != '\n')
		;
	for (; i < n; i++)
		if (text[i] == '\n' || text[i] == '\t' || text[i] >= 0x20)
			fputc(text[i] == 0x7f || (text[i] & 0xe0) == 0x80 ? '?' : text[i], stderr);
}

/* The command's status; TRY_FAILED and why, if there is none. */
static int fetch_result(const struct attempt *t, int guest_status)
{
	struct vdisk_error err = { 0 };
	int status = TRY_FAILED, r;
	struct root root;

	if (open_root(&root, t, false) != CLI_OK)
		return TRY_FAILED;
	r = try_fetch(root.fs, STDOUT_FILENO, STDERR_FILENO, &status, &err);
	r = close_root(&root, r, &err);
	if (r == 1)
		return status;
	if (r < 0)
		cli_fail(&err);
	else if (guest_status == 0)
		cli_error("the guest powered off before the command came to its end");
	else
		cli_error("the guest ended (status %d) before the command came to its end",
			  guest_status);
	if (t->console >= 0 && !t->args->verbose)
		show_console(t->console);
	return TRY_FAILED;
}

/* ---- what it prints ---- */

static void *relay_thread(void *arg)
{
	const struct relay *r = arg;
	char buf[16384];
	ssize_t n;

	/* whoever does not want to read on (EPIPE) does not stop the command */
	while ((n = read(r->from, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
		for (ssize_t at = 0, w; at < n; at += w) {
			w = write(r->to, buf + at, (size_t)(n - at));
			if (w < 0 && errno == EINTR)
				w = 0;
			else if (w < 0)
				break;
		}
	return NULL;
}

/* The guest gets the other end. */
static int start_relay(struct relay *r, int to, int *end)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0) {
		cli_error("pipe: %m");
		return CLI_FAILED;
	}
	*r = (struct relay) { .from = ends[0], .to = to };
	if (pthread_create(&r->thread, NULL, relay_thread, r)) {
		close(ends[0]);
		close(ends[1]);
		r->from = -1;
		cli_error("cannot start a thread");
		return CLI_FAILED;
	}
	*end = ends[1];
	return CLI_OK;
}

static int start_relays(struct attempt *t)
{
	static const char *const names[] = { TRY_PORT_OUT, TRY_PORT_ERR };
	const int to[] = { STDOUT_FILENO, STDERR_FILENO };
	struct guest *g = &t->args->g.guest;

	for (unsigned i = 0; i < GUEST_PORTS_MAX; i++) {
		int end, fd = fcntl(to[i], F_DUPFD_CLOEXEC, 3);

		/* (standard output is the console's while the guest runs) */
		if (fd < 0 || start_relay(&t->relay[i], fd, &end) != CLI_OK)
			return CLI_FAILED;
		g->port[g->n_ports++] = (struct guest_port) { names[i], end };
	}
	return CLI_OK;
}

/* The guest is gone: until all that it has printed is out. */
static void finish_relays(struct attempt *t)
{
	struct guest *g = &t->args->g.guest;

	for (unsigned i = 0; i < g->n_ports; i++) {
		struct relay *r = &t->relay[i];

		close(g->port[i].fd);
		pthread_join(r->thread, NULL);
		close(r->from);
		close(r->to);
	}
	g->n_ports = 0;
}

/* ---- running ---- */

/* With a command nothing is read from the terminal, and the console goes elsewhere. */
static int run_quietly(const struct attempt *t, const struct engine *engine)
{
	AUTO_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	AUTO_CLOSE int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	int status = CLI_FAILED;

	fflush(stdout);
	if (null >= 0 && out >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
	    dup2(t->console, STDOUT_FILENO) >= 0)
		status = guest_boot(engine, &t->args->g);
	else
		cli_error("redirecting the console: %m");
	if (in >= 0)
		dup2(in, STDIN_FILENO);
	if (out >= 0)
		dup2(out, STDOUT_FILENO);
	return status;
}

static int run_command(struct attempt *t, const struct engine *engine)
{
	int status = start_relays(t), n = 0;

	/* a first boot may reset the guest before it is up */
	if (status == CLI_OK)
		do
			status = run_quietly(t, engine);
		while (status == GUEST_REBOOT && ++n <= REBOOTS_MAX && !command_done(t));
	finish_relays(t);
	return status;
}

static int run_on_terminal(const struct attempt *t, const struct engine *engine)
{
	struct termios terminal;
	bool is_terminal = !tcgetattr(STDIN_FILENO, &terminal);
	int status, exit_status;

	do {
		status = guest_boot(engine, &t->args->g);
		if (is_terminal)
			tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
	} while (guest_goes_on(&t->args->g, status, &exit_status));
	return exit_status;
}

/* ---- what stays ---- */

static int commit_into(struct vdisk *base, struct vdisk *overlay, struct vdisk_error *err)
{
	struct vdisk_copy_opts opts = { .size = sizeof(opts) };

	return vdisk_commit(base, overlay, &opts, err);
}

/* The disk's own state is put aside while the overlay's is written and named. */
static int make_snapshot(struct vdisk *base, struct vdisk *overlay, const char *name,
			 struct vdisk_error *err)
{
	char aside[64];
	int r, back;

	snprintf(aside, sizeof(aside), "vdisk-try-%d", (int)getpid());
	r = vdisk_snapshot_create(base, aside, err);
	if (r < 0)
		return r;
	r = commit_into(base, overlay, err);
	if (r == 0)
		r = vdisk_snapshot_create(base, name, err);
	back = vdisk_snapshot_apply(base, aside, r < 0 ? NULL : err);
	if (back == 0)
		back = vdisk_snapshot_delete(base, aside, r < 0 ? NULL : err);
	else
		cli_error("the disk's state before is in its snapshot '%s'", aside);
	return r < 0 ? r : back;
}

static int write_into_disk(struct attempt *t)
{
	AUTO_DISK struct vdisk *base = NULL, *overlay = NULL;
	struct vdisk_error err = { 0 };
	int r;

	/* from here on for writing, which those who share it rule out */
	if (cli_close(&t->held) != CLI_OK ||
	    cli_open_format(&base, t->path ? t->path : t->locator, cli.format, VDISK_OPEN_WRITE) < 0 ||
	    cli_open_format(&overlay, t->overlay, "qcow2", VDISK_OPEN_NO_BACKING) < 0)
		return CLI_FAILED;
	r = t->args->commit ? commit_into(base, overlay, &err) :
			      make_snapshot(base, overlay, t->args->keep, &err);
	return r < 0 ? cli_fail(&err) : cli_close(&base);
}

static int give_name(const struct attempt *t)
{
	char self[64];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", t->fd);
	if (fsync(t->fd) < 0 ||
	    linkat(AT_FDCWD, self, AT_FDCWD, t->args->keep, AT_SYMLINK_FOLLOW) < 0) {
		cli_error("%s: cannot be made: %m", t->args->keep);
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int take_command_out(const struct attempt *t)
{
	struct vdisk_error err = { 0 };
	struct root root;
	int r;

	if (open_root(&root, t, true) != CLI_OK)
		return CLI_FAILED;
	r = try_remove(root.fs, &err);
	r = close_root(&root, r, &err);
	return r < 0 ? cli_fail(&err) : CLI_OK;
}

static int keep_result(struct attempt *t, int guest_status, int status)
{
	const struct try_args *a = t->args;
	int r = CLI_OK;

	if (guest_status != 0 || (a->commit && status != 0)) {
		cli_error("nothing was %s, as the %s did not end well", a->commit ? "committed" : "kept",
			  guest_status ? "guest" : "command");
		return status ? status : CLI_FAILED;
	}
	if (t->command)
		r = take_command_out(t);
	if (r == CLI_OK)
		r = a->commit || !is_file_name(a->keep) ? write_into_disk(t) : give_name(t);
	if (r != CLI_OK)
		return t->command ? TRY_FAILED : r;
	if (a->commit)
		cli_note("%s has what the guest wrote", t->locator);
	else
		cli_note("kept as %s%s%s", is_file_name(a->keep) ? "" : t->locator,
			 is_file_name(a->keep) ? "" : "@", a->keep);
	return status;
}

/* ---- the whole ---- */

static int prepare(struct attempt *t)
{
	struct guest *g = &t->args->g.guest;
	const char *cache = t->args->g.cache;
	struct vdisk_error err = { 0 };

	if (hold_disk(t) != CLI_OK || (t->args->keep && check_keep(t) != CLI_OK) ||
	    make_overlay(t) != CLI_OK || (t->command && put_command(t) != CLI_OK))
		return CLI_FAILED;
	if (t->command) {
		if (t->args->verbose)
			t->console = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
		else if (vdisk_scratch_file(&t->console, "/var/tmp", &err) < 0)
			return cli_fail(&err);
	}
	g->disk[0] = t->given;
	g->disk[0].snapshot = false;	/* the overlay is that */
	g->disk[0].keep_raw = t->args->commit && !t->given.format && !strcmp(vdisk_format(t->held), "raw");
	g->disk[0].locator = t->overlay;
	g->disk[0].format = "qcow2";
	g->disk[0].backing = t->path ? NULL : t->locator;
	g->disk[0].backing_format = t->path ? NULL : cli.format;
	if (!g->disk[0].cache)
		g->disk[0].cache = cache;
	/* what is thrown away need not be safe before */
	if (!g->disk[0].cache && !t->args->keep && !t->args->commit)
		g->disk[0].cache = "unsafe";
	for (unsigned i = 1; i < g->n_disks; i++) {
		if (!g->disk[i].cache)
			g->disk[i].cache = cache;
		g->disk[i].snapshot = true;
	}
	return CLI_OK;
}

static int attempt_run(struct attempt *t, const struct engine *engine)
{
	int guest_status, status;

	if (prepare(t) != CLI_OK)
		return t->command ? TRY_FAILED : CLI_FAILED;
	guest_status = t->command ? run_command(t, engine) : run_on_terminal(t, engine);
	status = t->command ? fetch_result(t, guest_status) : guest_status;
	return t->args->keep || t->args->commit ? keep_result(t, guest_status, status) : status;
}

int cmd_try(int argc, char **argv)
{
	struct try_args a = { .g = GUEST_ARGS_INIT };
	char **args = cli_parse(&try_argp, argc, argv, &a, 1, -1);
	const struct engine *engine;
	struct attempt t = {
		.args = &a, .command = args[1] ? args + 1 : NULL, .fd = -1,
		.console = -1,
	};
	int status;

	if (a.keep && a.commit)
		cli_usage("--keep and --commit exclude each other");
	if (a.keep && !*a.keep)
		cli_usage("--keep needs a name");
	guest_disk_arg(&t.given, args[0], cli.format);
	t.locator = t.given.locator;
	cli.format = t.given.format;
	if (t.given.read_only)
		cli_usage("a disk to be tried is never written; read-only says nothing");
	t.given.refs = VDISK_REFS_ANY;	/* the overlay's; hold_disk() looks at the disk's own */
	a.g.guest.disk[0] = t.given;
	a.g.guest.disk[0].snapshot = true;
	guest_check_disks(&a.g.guest);
	guest_share_sectors(&t.given);
	engine = guest_engine(&a.g);
	if (!engine)
		return t.command ? TRY_FAILED : CLI_FAILED;
	for (unsigned i = 1; i < a.g.guest.n_disks; i++)
		guest_pin_format(&a.g.guest.disk[i]);
	if (t.command && !a.verbose)
		cli.quiet = true;
	status = attempt_run(&t, engine);
	vdisk_close(t.held, NULL);
	if (t.fd >= 0)
		close(t.fd);
	if (t.console >= 0)
		close(t.console);
	free(t.append);
	free(t.path);
	return status;
}
