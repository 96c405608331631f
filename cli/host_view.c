/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* host_view.c - views of disks as files, served in the background; see attached.h */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/attached.h"
#include "cli/running.h"
#include "cli/steady.h"

/* A locator that means the same from every directory. */
static char *absolute(const char *locator)
{
	struct vdisk_locator loc = { 0 };
	char *real, *out = NULL;

	if (vdisk_locator_parse(&loc, locator, NULL) < 0)
		return NULL;
	real = realpath(loc.source, NULL);
	if (real) {
		free(loc.source);
		loc.source = real;
		out = vdisk_locator_format(&loc);
	}
	vdisk_locator_clear(&loc);
	return out;
}

struct find_ctx {
	const char *disk;
	char *file;		/* of the one that was found */
	bool stop;
	int status;
};

static int find_one(void *arg, struct running *r)
{
	struct find_ctx *c = arg;

	if (!r->alive || strcmp(running_string(r, "kind"), "view") != 0 ||
	    strcmp(running_string(r, "disk"), c->disk) != 0)
		return 0;
	c->file = strdup(running_string(r, "file"));
	if (c->stop) {
		kill((pid_t)running_number(r, "pid"), SIGTERM);
		c->status = running_wait(r);
	}
	return 1;
}

char *view_find(const char *locator)
{
	AUTO_FREE char *disk = absolute(locator);
	struct find_ctx c = { .disk = disk };

	if (disk)
		running_each(find_one, &c);
	return c.file;
}

int view_stop(const char *locator)
{
	AUTO_FREE char *disk = absolute(locator);
	struct find_ctx c = { .disk = disk, .stop = true };

	if (disk)
		running_each(find_one, &c);
	free(c.file);
	return c.status;
}

/* ---- the process that serves ---- */

static struct vdisk_fuse *serving;

static void stop(int sig)
{
	(void)sig;
	vdisk_fuse_stop(serving);
}

static int serve(struct vdisk *disk, const char *locator, bool read_only, struct running *r)
{
	const struct sigaction sa = { .sa_handler = stop };
	AUTO_FREE char *file = NULL;
	struct vdisk_error err = { 0 };
	int fd, n;

	if (asprintf(&file, "%.*s.img", (int)strlen(r->path) - (int)strlen(".json"), r->path) < 0)
		return CLI_FAILED;
	unlink(file);
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		cli_error("%s: %m", file);
		return CLI_FAILED;
	}
	close(fd);
	json_object_set_new(r->info, "disk", json_string(locator));
	json_object_set_new(r->info, "file", json_string(file));
	json_object_set_new(r->info, "read-only", json_boolean(read_only));
	if (running_save(r) != CLI_OK || vdisk_fuse_mount(&serving, disk, file, &err) < 0) {
		unlink(file);
		return err.code ? cli_fail(&err) : CLI_FAILED;
	}
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	running_ready();
	n = vdisk_fuse_run(serving, &err);
	vdisk_fuse_free(serving);
	unlink(file);
	return n < 0 ? CLI_FAILED : CLI_OK;
}

/* ---- the same by NBD ---- */

static struct vd_nbd *serving_nbd;

static void stop_nbd(int sig)
{
	(void)sig;
	vd_nbd_stop(serving_nbd);
}

/* The device is what stands in "file". */
static int serve_nbd(struct vdisk *disk, const char *locator, bool read_only, struct running *r)
{
	const struct sigaction sa = { .sa_handler = stop_nbd };
	struct vdisk_error err = { 0 };
	char device[32];

	if (vd_nbd_start(&serving_nbd, disk, &err) < 0)
		return cli_fail(&err);
	snprintf(device, sizeof(device), "/dev/nbd%d", vd_nbd_number(serving_nbd));
	json_object_set_new(r->info, "disk", json_string(locator));
	json_object_set_new(r->info, "file", json_string(device));
	json_object_set_new(r->info, "read-only", json_boolean(read_only));
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (running_save(r) != CLI_OK)
		vd_nbd_stop(serving_nbd);
	running_ready();
	vd_nbd_wait(serving_nbd);
	return CLI_OK;
}

/* Only keep the locks of the file, until a signal. */
static int hold(const char *locator, bool read_only, struct running *r)
{
	sigset_t signals;
	int sig;

	json_object_set_new(r->info, "disk", json_string(locator));
	json_object_set_new(r->info, "file", json_string(locator));
	json_object_set_new(r->info, "read-only", json_boolean(read_only));
	if (running_save(r) != CLI_OK)
		return CLI_FAILED;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	running_ready();
	return sigwait(&signals, &sig) == 0 ? CLI_OK : CLI_FAILED;
}

static NORETURN void view_process(const char *locator, const char *disk_name, bool read_only,
				  bool plain)
{
	struct running r = { .fd = -1 };
	struct vdisk *disk = NULL;
	struct steady steady = { 0 };
	struct vdisk_error err = { 0 };
	int status;

	if (read_only && !plain)
		status = steady_open(&disk, &steady, locator);
	else
		status = cli_open(&disk, locator, read_only ? 0 : VDISK_OPEN_WRITE);
	if (status == CLI_OK)
		status = running_new(&r, "view");
	if (status == CLI_OK && steady.lvm)
		json_object_set_new(r.info, "lvm-snapshot", json_string(steady.lvm));
	if (status == CLI_OK)
		status = plain ? hold(disk_name, read_only, &r) :
			 vd_nbd_available() ? serve_nbd(disk, disk_name, read_only, &r) :
					      serve(disk, disk_name, read_only, &r);
	if (disk && vdisk_close(disk, &err) < 0) {
		running_end(&r, err.msg);
		exit(CLI_FAILED);
	}
	steady_end(&steady);
	running_end(&r, NULL);
	exit(status == CLI_OK ? CLI_OK : CLI_FAILED);
}

char *view_start(const char *locator, bool read_only, bool plain)
{
	AUTO_FREE char *disk = absolute(locator);
	char *file = view_find(locator);
	pid_t pid;
	int status = 0;

	if (file)
		return file;
	if (!disk) {
		cli_error("%s: no such disk", locator);
		return NULL;
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		running_begin(false);	/* returns in the process that stays */
		view_process(locator, disk, read_only, plain);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != CLI_OK)
		return NULL;
	return view_find(locator);
}
