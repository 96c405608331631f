/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * view.c - see view.h
 *
 * The disk is mounted by FUSE over an empty file in a temporary directory, and
 * served by a thread while the program runs.  A program that looks at a file of
 * its own, without a partition table around it, needs no options for that.  The file
 * has the disk's name and the program runs in its directory: so what it says of
 * "guest.qcow2#p1" is what a person takes it for.
 */
#include "cli/view.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

char cli_view[] = "<view>";

static volatile pid_t child;

/* What would end us ends the program first; the view is taken down after it. */
static void forward(int sig)
{
	if (child > 0)
		kill(child, sig);
}

static void signals(struct sigaction old[3], bool begin)
{
	static const int which[3] = { SIGINT, SIGTERM, SIGHUP };
	const struct sigaction sa = { .sa_handler = forward, .sa_flags = SA_RESTART };

	for (size_t i = 0; i < ARRAY_SIZE(which); i++)
		sigaction(which[i], begin ? &sa : &old[i], begin ? &old[i] : NULL);
}

static void *serve(void *arg)
{
	struct vdisk_error err = { 0 };

	if (vdisk_fuse_run(arg, &err) < 0)
		cli_fail(&err);
	return NULL;
}

static int output = -1;	/* where the program's output goes; -1: where ours does */

/* The tools live in sbin, which is not in everybody's PATH. */
static void widen_path(void)
{
	static bool done;
	AUTO_FREE char *path = NULL;
	const char *before = getenv("PATH");

	if (!done && asprintf(&path, "%s:/usr/sbin:/sbin", before ? before : "/usr/bin") >= 0)
		setenv("PATH", path, 1);
	done = true;
}

bool cli_view_has(const char *program)
{
	AUTO_FREE char *path = NULL;
	const char *all;
	char *rest, *dir;

	widen_path();
	all = getenv("PATH");
	path = strdup(all ? all : "");
	rest = path;
	while (rest && (dir = strsep(&rest, ":"))) {
		AUTO_FREE char *file = NULL;

		if (asprintf(&file, "%s/%s", dir, program) >= 0 && access(file, X_OK) == 0)
			return true;
	}
	return false;
}

static int run(const char *dir, char **argv)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t defaults;
	pid_t pid;
	int r, status = 0;

	if (!argv[0])
		return -1;
	widen_path();
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGINT);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addchdir_np(&actions, dir);
	if (output >= 0) {
		posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
		posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
	}
	fflush(stdout);
	r = posix_spawnp(&pid, argv[0], &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	if (r) {
		cli_error("%s: %s%s", argv[0], strerror(r), r == ENOENT ?
			  " (the program for this is not installed)" : "");
		return -1;
	}
	child = pid;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	child = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_mounted(struct vdisk *disk, const char *dir, const char *file, char **argv)
{
	struct vdisk_fuse *fuse;
	struct vdisk_error err = { 0 };
	struct sigaction old[3];
	pthread_t thread;
	int r;

	if (vdisk_fuse_mount(&fuse, disk, file, &err) < 0) {
		cli_fail(&err);
		return -1;
	}
	signals(old, true);
	r = pthread_create(&thread, NULL, serve, fuse);
	if (r) {
		cli_error("cannot start a thread: %s", strerror(r));
		r = -1;
	} else {
		r = run(dir, argv);
		vdisk_fuse_stop(fuse);
		pthread_join(thread, NULL);
	}
	signals(old, false);
	vdisk_fuse_free(fuse);
	return r;
}

/*
 * "guest.qcow2#vg0-root": the locator without its directory, as the name of a file.  Programs
 * find tags in a '=', options in a '?' and in front of a '-'.
 */
static void file_name(char out[128], const char *locator)
{
	struct vdisk_locator loc = { 0 };
	const char *base;

	snprintf(out, 128, "disk");
	if (vdisk_locator_parse(&loc, locator, NULL) < 0)
		return;
	base = strrchr(loc.source, '/');
	base = base && base[1] ? base + 1 : loc.source;
	snprintf(out, 128, "%s%.60s%s%s%s%s", *base == '-' ? "_" : "", base, loc.snapshot ? "@" : "",
		 loc.snapshot ? loc.snapshot : "", loc.part ? "#" : "", loc.part ? loc.part : "");
	for (char *p = out; *p; p++)
		if (strchr("/=?", *p) || (unsigned char)*p < ' ')
			*p = '-';
	vdisk_locator_clear(&loc);
}

int cli_view_run(struct vdisk *disk, const char *locator, char **argv)
{
	const char *base = getenv("TMPDIR");
	AUTO_FREE char *dir = NULL;
	AUTO_FREE char *file = NULL;
	char name[128];
	int r = -1, fd;

	if (asprintf(&dir, "%s/vdisk.XXXXXX", base && *base ? base : "/tmp") < 0 ||
	    !mkdtemp(dir)) {
		cli_error("cannot make a temporary directory: %m");
		return -1;
	}
	file_name(name, locator);
	if (asprintf(&file, "%s/%s", dir, name) < 0)
		file = NULL;
	fd = file ? open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
	if (fd < 0) {
		cli_error("%s: %m", dir);
	} else {
		close(fd);
		for (char **a = argv; *a; a++)
			if (*a == cli_view)
				*a = name;
		r = run_mounted(disk, dir, file, argv);
		unlink(file);
	}
	rmdir(dir);
	return r;
}

int cli_view_run_quiet(struct vdisk *disk, const char *locator, char **argv)
{
	AUTO_CLOSE int fd = memfd_create("output", MFD_CLOEXEC);
	char buf[4096];
	ssize_t n;
	int r;

	output = fd;
	r = cli_view_run(disk, locator, argv);
	output = -1;
	for (off_t at = 0; r != 0 && fd >= 0 && (n = pread(fd, buf, sizeof(buf), at)) > 0; at += n)
		fwrite(buf, 1, (size_t)n, stderr);
	return r;
}
