/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* running.c - see running.h */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "cli/attached.h"
#include "cli/program.h"
#include "cli/running.h"
#include "cli/steady.h"

#define MAX_INFO 65536
#define PLACE_SECONDS 60

static int ready_fd = -1;	/* where the first process waits */

/* ---- the directory ---- */

char *running_dir(void)
{
	const char *own = getenv("VDISK_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	char *dir = NULL;
	struct stat st;
	int n;

	if (own && *own)
		n = asprintf(&dir, "%s", own);
	else if (geteuid() == 0)
		n = asprintf(&dir, "/run/vdisk");
	else if (xdg && *xdg)
		n = asprintf(&dir, "%s/vdisk", xdg);
	else
		n = asprintf(&dir, "/tmp/vdisk-%u", geteuid());
	if (n < 0) {
		cli_error("out of memory");
		return NULL;
	}
	if ((mkdir(dir, 0700) < 0 && errno != EEXIST) || lstat(dir, &st) < 0) {
		cli_error("%s: %m", dir);
	} else if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
		cli_error("%s: not a directory that only you can write to", dir);
	} else {
		return dir;
	}
	free(dir);
	return NULL;
}

/* ---- one of them ---- */

const char *running_string(const struct running *r, const char *key)
{
	const char *s = json_string_value(json_object_get(r->info, key));

	return s ? s : "";
}

long running_number(const struct running *r, const char *key)
{
	return (long)json_integer_value(json_object_get(r->info, key));
}

void running_clear(struct running *r)
{
	free(r->path);
	if (r->fd >= 0)
		close(r->fd);
	json_decref(r->info);
	*r = (struct running) { .fd = -1 };
}

int running_new(struct running *out, const char *kind)
{
	AUTO_FREE char *dir = running_dir();

	*out = (struct running) { .fd = -1 };
	if (!dir)
		return CLI_FAILED;
	if (asprintf(&out->path, "%s/%s-%d.json", dir, kind, getpid()) < 0) {
		out->path = NULL;
		cli_error("out of memory");
		return CLI_FAILED;
	}
	/* the lock comes before the name: nobody sees it without */
	out->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (out->fd >= 0) {
		char proc[40];

		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", out->fd);
		unlink(out->path);
		if (flock(out->fd, LOCK_EX | LOCK_NB) < 0 ||
		    linkat(AT_FDCWD, proc, AT_FDCWD, out->path, AT_SYMLINK_FOLLOW) < 0) {
			cli_error("%s: %m", out->path);
			running_clear(out);
			return CLI_FAILED;
		}
	} else {
		cli_error("%s: %m", out->path);
		running_clear(out);
		return CLI_FAILED;
	}
	out->info = json_pack("{s:s, s:i}", "kind", kind, "pid", getpid());
	return running_save(out);
}

int running_save(struct running *r)
{
	AUTO_FREE char *text = json_dumps(r->info, JSON_INDENT(2));
	size_t len = text ? strlen(text) : 0;

	if (!text || pwrite(r->fd, text, len, 0) != (ssize_t)len ||
	    ftruncate(r->fd, (off_t)len) < 0) {
		cli_error("%s: cannot write", r->path);
		return CLI_FAILED;
	}
	return CLI_OK;
}

void running_end(struct running *r, const char *problem)
{
	if (problem && r->info) {
		json_object_set_new(r->info, "problem", json_string(problem));
		running_save(r);
	} else if (r->path) {
		unlink(r->path);
	}
	running_clear(r);
}

static json_t *load(int fd)
{
	AUTO_FREE char *text = malloc(MAX_INFO);
	ssize_t n = text ? pread(fd, text, MAX_INFO, 0) : -1;

	return n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
}

static int open_one(struct running *out, const char *dir, const char *name)
{
	*out = (struct running) { .fd = -1 };
	if (asprintf(&out->path, "%s/%s", dir, name) < 0) {
		out->path = NULL;
		return -1;
	}
	out->fd = open(out->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (out->fd < 0) {
		running_clear(out);
		return -1;
	}
	out->alive = flock(out->fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	if (!out->alive)
		flock(out->fd, LOCK_UN);
	out->info = load(out->fd);
	return 0;
}

int running_each(int (*each)(void *arg, struct running *r), void *arg)
{
	AUTO_FREE char *dir = running_dir();
	struct dirent **list;
	int n = dir ? scandir(dir, &list, NULL, alphasort) : -1, r = 0;

	for (int i = 0; i < n; i++) {
		const char *end = strrchr(list[i]->d_name, '.');
		struct running one;

		if (r == 0 && end && !strcmp(end, ".json") &&
		    open_one(&one, dir, list[i]->d_name) == 0) {
			r = each(arg, &one);
			running_clear(&one);
		}
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return r;
}

int running_wait(struct running *r)
{
	struct stat st;
	int status = CLI_OK;

	while (flock(r->fd, LOCK_EX) < 0)
		if (errno != EINTR)
			break;
	if (fstat(r->fd, &st) == 0 && st.st_nlink) {	/* else it ended well */
		json_t *info = load(r->fd);
		const char *problem = json_string_value(json_object_get(info, "problem"));

		cli_error("%s", problem ? problem : "the process that served it was killed");
		unlink(r->path);
		json_decref(info);
		status = CLI_FAILED;
	}
	flock(r->fd, LOCK_UN);
	return status;
}

/* ---- what killed processes left ---- */

void running_unmount_dead(const char *dir)
{
	const char *argv[] = { "fusermount3", "-u", "-z", "-q", "--", dir, NULL };
	struct statx sx;

	/* only what has lost its server, whatever the kernel remembers of it */
	if (statx(AT_FDCWD, dir, AT_STATX_FORCE_SYNC, STATX_TYPE, &sx) == 0 || errno != ENOTCONN)
		return;
	if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
		(void)program_run(argv, PROGRAM_NOWHERE, PROGRAM_NOWHERE);
}

/* Is it still that device that is mounted there?  "": any. */
static bool is_mounted_from(const char *dir, const char *device)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192], where[4097], source[4097];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		const char *rest = strstr(line, " - ");

		found = sscanf(line, "%*d %*d %*s %*s %4096s", where) == 1 && rest &&
			sscanf(rest, " - %*s %4096s", source) == 1 && !strcmp(where, dir) &&
			(!*device || !strcmp(source, device));
	}
	if (f)
		fclose(f);
	return found;
}

/* What the kernel mounted, the last one first; false: something is busy. */
static bool unmount_kernel(const struct running *r)
{
	const json_t *mounts = json_object_get(r->info, "mounts");
	const json_t *views = json_object_get(r->info, "views");
	/* without its view a file system is of no use to anyone who has it open */
	int flags = UMOUNT_NOFOLLOW | (json_array_size(views) ? MNT_DETACH : 0);

	for (size_t i = json_array_size(mounts); i--;) {
		const json_t *m = json_array_get(mounts, i);
		const char *dir = json_string_value(json_object_get(m, "dir"));
		const char *device = json_string_value(json_object_get(m, "device"));

		if (dir && device && is_mounted_from(dir, device) && umount2(dir, flags) < 0 &&
		    errno == EBUSY)
			return false;
	}
	for (size_t i = 0; i < json_array_size(views); i++) {
		const char *view = json_string_value(json_array_get(views, i));

		if (view) {
			running_unmount_dead(view);
			unlink(view);
		}
	}
	return true;
}

static int sweep_one(void *arg, struct running *r)
{
	const char *problem = running_string(r, "problem");

	(void)arg;
	if (r->alive || flock(r->fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	if (*problem) {
		cli_error("%s: %s (since then it is not there any more)",
			  running_string(r, "disk"), problem);
	} else if (r->info) {
		const char *dir = running_string(r, "dir");

		if (!unmount_kernel(r)) {
			cli_note("%s at %s: the process that served it (%ld) was killed; it stays "
				 "mounted as long as it is busy", running_string(r, "disk"), dir,
				 running_number(r, "pid"));
			return 0;
		}
		if (*dir)
			running_unmount_dead(dir);
		if (*running_string(r, "lvm-snapshot"))
			steady_sweep(running_string(r, "lvm-snapshot"));
		if (!strcmp(running_string(r, "kind"), "view"))
			host_disk_sweep(running_string(r, "file"));
		cli_note("%s%s%s: the process that served it (%ld) was killed; its remains are cleared%s",
			 running_string(r, "disk"), *dir ? " at " : "", dir,
			 running_number(r, "pid"),
			 json_is_true(json_object_get(r->info, "read-only")) ? "" :
			 ", and what it had not saved yet is lost");
	}
	unlink(r->path);
	return 0;
}

/*
 * What something was to be mounted on by a process that was killed right then: see kernel_fs.c.
 * It has such a name only for a moment.
 */
static void sweep_places(void)
{
	AUTO_FREE char *dir = running_dir();
	DIR *d = dir ? opendir(dir) : NULL;
	struct dirent *e;
	struct stat st;

	while (d && (e = readdir(d)))
		if (!strncmp(e->d_name, "fs-", 3) &&
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_mtime + PLACE_SECONDS < time(NULL) &&
		    (S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && !st.st_size)))
			unlinkat(dirfd(d), e->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
	if (d)
		closedir(d);
}

void running_sweep(void)
{
	running_each(sweep_one, NULL);
	sweep_places();
}

/* ---- into the background ---- */

void running_begin(bool foreground)
{
	int fds[2], status = CLI_FAILED;
	char byte;
	pid_t pid;

	if (foreground)
		return;
	fflush(NULL);
	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		cli_error("cannot start a process: %m");
		exit(CLI_FAILED);
	}
	if (pid == 0) {
		close(fds[0]);
		ready_fd = fds[1];
		setsid();
		return;
	}
	close(fds[1]);
	if (read(fds[0], &byte, 1) == 1)
		_exit(CLI_OK);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : CLI_FAILED);
}

void running_ready(void)
{
	int null;

	if (ready_fd < 0)
		return;
	fflush(NULL);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		close(null);
	}
	if (chdir("/") < 0 || write(ready_fd, "", 1) != 1)
		exit(CLI_FAILED);
	close(ready_fd);
	ready_fd = -1;
}
