/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * daemon.c - "vdiskd": the server that a configuration file describes
 *
 * SIGHUP has the file read again; SIGTERM and SIGINT ask initiators to log out,
 * finish what is in flight and flush the disks, and a second one does not wait
 * for them.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>

#include "target/iscsi/chap.h"
#include "target/log.h"
#include "target/modes.h"
#include "target/sandbox.h"
#include "target/served.h"
#include "target/service.h"

#define BUFFER_LIMIT	(1ull << 30)	/* of data in flight, reserved, not used up front */

struct server {
	const char *path;
	bool check;
	struct reactor *reactor;	/* owned */
	struct served served;
	bool serving;			/* served is to be ended */
	struct reactor_source signals;	/* owns its descriptor */
};

static void help(void)
{
	puts("Usage: vdiskd [OPTION...]\n"
	     "Serve disks over iSCSI as " CONFIG_FILE " says.  SIGHUP reads it again.\n\n"
	     "  -c, --config=FILE  another file\n"
	     "      --check        say whether the file is right and its disks can be opened\n"
	     "  -v, --verbose      say who logs in; twice: say more\n"
	     "  -h, --help         this\n"
	     "  -V, --version      the version\n\n"
	     "\"vdiskd export --help\" tells how to serve some disks without such a file.");
}

static void tell_reloading(void)
{
	struct timespec now;
	char text[80];

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld",
		 (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
	notify(text);
}

static void reloaded(struct served *s, const struct vdisk_error *err)
{
	if (err)
		log_warnx("%s", err->msg);
	else
		log_info("%s is in force", s->config->path);
	notify(err ? "READY=1\nSTATUS=The last reload failed; see the log" :
		     "READY=1\nSTATUS=Serving");
}

static void signalled(struct reactor_source *source, uint32_t events UNUSED)
{
	struct server *s = container_of(source, struct server, signals);
	struct signalfd_siginfo info;

	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP) {
		tell_reloading();
		served_reload(&s->served);
	} else {
		notify("STOPPING=1");
		served_stop(&s->served);
	}
}

static void warn_unreadable(const char *path)
{
	if (access(path, R_OK) < 0)
		log_warnx("%s cannot be read by the user that the server runs as: it cannot be "
			  "reloaded", path);
}

static int start(struct server *s, struct config *config, struct vdisk_error *err)
{
	struct sandbox_opts sandbox = { .user = config->user, .reload = true };
	uid_t owner = 0;
	int r = sandbox_user(&sandbox, &owner, err);

	if (r < 0) {
		config_free(config);
		return r;
	}

	service_raise_limits();
	s->signals = (struct reactor_source) {
		.fd = service_signals((const int[]){ SIGINT, SIGTERM, SIGHUP, 0 }),
		.ready = signalled,
	};
	if (s->signals.fd < 0) {
		config_free(config);
		return fail(err, -s->signals.fd, "signalfd: %s", strerror(-s->signals.fd));
	}
	notify_open();
	r = sandbox_files_only(err);
	if (r == 0)
		r = reactor_new(&s->reactor, BUFFER_LIMIT, err);
	if (r < 0) {
		config_free(config);
		return r;
	}
	r = reactor_spawn(s->reactor, &config->reactors, err);
	if (r < 0) {
		config_free(config);
		return r;
	}
	s->serving = true;
	r = served_start(&s->served, s->reactor, config, owner, err);
	s->served.reloaded = reloaded;
	if (r == 0)
		r = service_jobs_open(s->reactor, err);
	if (r == 0 && reactor_add(s->reactor, &s->signals, EPOLLIN) < 0)
		r = fail(err, ENOMEM, "out of memory");
	if (r == 0)
		r = sandbox_enter(&sandbox, err);
	/* (a change of user makes the memory readable to its new owner) */
	service_no_core();
	if (r == 0)
		warn_unreadable(s->path);
	return r;
}

static int serve(struct server *s, struct vdisk_error *err)
{
	notify("READY=1\nSTATUS=Serving");
	while (!s->served.server.stopping || s->served.server.n_conns || !served_idle(&s->served)) {
		int r = reactor_turn(s->reactor, -1);

		if (r < 0)
			return fail(err, -r, "waiting for events: %s", strerror(-r));
	}
	return 0;
}

/* Close what is open, in whatever state it is. */
static int end(struct server *s, struct vdisk_error *err)
{
	int r = s->serving ? served_end(&s->served, err) : 0;

	service_jobs_close();
	reactor_free(s->reactor);
	if (s->signals.fd >= 0)
		close(s->signals.fd);
	return r;
}

/* 0: go on; 1: all is done (help); -EINVAL */
static int parse(struct server *s, int argc, char **argv)
{
	enum { CHECK = 256 };
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check", no_argument, NULL, CHECK },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int c, level = LOG_WARN;

	while ((c = getopt_long(argc, argv, "c:vhV", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			s->path = optarg;
			break;
		case CHECK:
			s->check = true;
			break;
		case 'v':
			level++;
			break;
		case 'h':
			help();
			return 1;
		case 'V':
			puts("vdiskd " VDISK_VERSION);
			return 1;
		default:
			return -EINVAL;
		}
	}
	log_init("vdiskd", (enum log_level)MIN(level, (int)LOG_DEBUG));
	return optind == argc ? 0 : -EINVAL;
}

static int check(const struct config *c)
{
	unsigned luns = 0, failed = served_try(c);

	for (unsigned i = 0; i < c->n_targets; i++)
		luns += c->targets[i].n_luns;
	if (failed == 0)
		printf("%s: %u portals, %u targets, %u LUNs: all right\n", c->path, c->n_portals,
		       c->n_targets, luns);
	return failed ? 1 : 0;
}

int vdiskd_daemon(int argc, char **argv)
{
	struct server s = { .path = CONFIG_FILE, .signals.fd = -1 };
	struct vdisk_error err = { 0 }, end_err = { 0 };
	struct config *config = NULL;
	const char *missing;
	int r = parse(&s, argc, argv);

	if (r == 1)
		return 0;
	if (r < 0) {
		fprintf(stderr, "vdiskd: wrong usage; see --help\n");
		return 2;
	}
	service_no_core();
	if (!iscsi_chap_init(&missing))
		log_warnx("libcrypto has no %s: CHAP does without", missing);
	r = config_load(&config, s.path, &err);
	if (r == 0 && s.check) {
		r = check(config);
		config_free(config);
		return r;
	}
	if (r == 0)
		r = start(&s, config, &err);
	if (r == 0)
		r = serve(&s, &err);
	if (r < 0)
		log_warnx("%s", err.msg);
	if (end(&s, &end_err) < 0) {
		log_warnx("%s", end_err.msg);
		r = -EIO;
	}
	return r < 0 ? 1 : 0;
}
