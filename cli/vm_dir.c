/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vm_dir.c - the directory of running guests; see vm.h */
#include "cli/vm.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cli/running.h"

static int make_dir(const char *path)
{
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* Nobody but us may put a socket there, or follow us to one. */
static int check_dir(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077) ? 0 : -EPERM;
}

/*
 * The directory, made if it is not there; NULL and a message.  What it lies in is ours alone,
 * too (running_dir()), or somebody could put another in its place after we have looked.
 */
static char *runtime_dir(bool make)
{
	AUTO_FREE char *parent = running_dir();
	char *dir = NULL;
	int r = 0;

	if (!parent)
		return NULL;
	if (asprintf(&dir, "%s/vm", parent) < 0) {
		cli_error("out of memory");
		return NULL;
	}
	if (make)
		r = make_dir(dir);
	if (!r)
		r = check_dir(dir);
	if (!r || (r == -ENOENT && !make))
		return dir;
	cli_error("%s: %s", dir, r == -EPERM ? "is not ours alone" : strerror(-r));
	free(dir);
	return NULL;
}

bool vm_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > VM_NAME_MAX || !isalnum((unsigned char)name[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_')
			return false;
	return true;
}

/* The last part of "iscsi://host/iqn.2026-11.org.example:web/0" that is a name: "web/0". */
static const char *remote_name(const char *locator)
{
	const char *target = strchr(strstr(locator, "://") + 3, '/'), *colon;

	if (!target)
		return locator;
	colon = strchr(target, ':');
	return colon ? colon + 1 : target + 1;
}

/* "/images/web.qcow2#p1" is "web" */
static void name_from(char *out, const char *locator)
{
	const char *slash = strrchr(locator, '/'), *p = slash && slash[1] ? slash + 1 : locator;
	size_t n = 0;

	if (vdisk_is_remote(locator))
		p = remote_name(locator);
	for (; *p && !strchr(".#@/", *p) && n < VM_NAME_MAX - 8; p++)
		if (isalnum((unsigned char)*p) || (n && (*p == '-' || *p == '_')))
			out[n++] = *p;
	out[n] = 0;
	if (!n)
		memcpy(out, "guest", 6);
}

static int socket_address(struct sockaddr_un *a, const char *path)
{
	*a = (struct sockaddr_un) { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(a->sun_path))
		return -ENAMETOOLONG;
	memcpy(a->sun_path, path, strlen(path) + 1);
	return 0;
}

/* -EAGAIN: it is there, but many wait there already and it does not take them. */
static int connect_to(const char *path)
{
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un a;
	int r = socket_address(&a, path);

	if (fd < 0)
		return -errno;
	if (r < 0)
		return r;
	/* (a blocking connect would wait for room, with the directory's lock held) */
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || fcntl(fd, F_SETFL, 0) < 0)
		return -errno;
	return STEAL_FD(fd);
}

/* A listening socket at @path; -EADDRINUSE: somebody is there already, and alive. */
static int listen_at(const char *path)
{
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un a;
	int r = socket_address(&a, path), other;

	if (fd < 0)
		return -errno;
	if (r < 0)
		return r;
	other = connect_to(path);
	if (other >= 0 || other == -EAGAIN) {
		if (other >= 0)
			close(other);
		return -EADDRINUSE;
	}
	if (other == -ECONNREFUSED)
		unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0600) < 0 ||
	    listen(fd, 8) < 0)
		return -errno;
	return STEAL_FD(fd);
}

static int write_info(const struct vm_entry *e, const char *locator)
{
	AUTO_FREE char *shown = locator ? strdup(locator) : NULL;
	json_t *j;
	int r;

	if (shown)
		vdisk_redact(shown);
	j = json_pack("{ss ss* sI sI}", "name", e->name, "disk", shown, "pid",
		      (json_int_t)getpid(), "started", (json_int_t)time(NULL));
	r = j ? json_dump_file(j, e->info, JSON_COMPACT) : -1;

	json_decref(j);
	return r;
}

/* Under the directory's lock: two that start at once do not take each other for dead. */
static int try_name(struct vm_entry *e, const char *dir, const char *name, const char *locator)
{
	int r;

	*e = (struct vm_entry) { .listen_fd = -1, .name = strdup(name) };
	if (asprintf(&e->socket, "%s/%s.sock", dir, name) < 0)
		e->socket = NULL;
	if (asprintf(&e->info, "%s/%s.json", dir, name) < 0)
		e->info = NULL;
	r = e->name && e->socket && e->info ? listen_at(e->socket) : -ENOMEM;
	if (r >= 0) {
		e->listen_fd = r;
		r = write_info(e, locator) < 0 ? -EIO : 0;
	}
	if (r < 0) {
		free(e->name);
		free(e->socket);
		free(e->info);
		*e = (struct vm_entry) { .listen_fd = -1 };
	}
	return r;
}

int vm_register(struct vm_entry *out, const char *name, const char *locator)
{
	AUTO_FREE char *dir = NULL;
	AUTO_CLOSE int lock = -1;
	char made[VM_NAME_MAX + 1], numbered[VM_NAME_MAX + 16];
	int r;

	if (name && !vm_name_ok(name)) {
		cli_error("'%s' is not a name for a guest: letters, digits, - and _ (no dots)", name);
		return CLI_FAILED;
	}
	*out = (struct vm_entry) { .listen_fd = -1 };
	dir = runtime_dir(true);
	if (!dir) {
		cli_note("the guest runs without a control socket: vdisk vm will not find it");
		out->name = strdup(name ? name : "");
		return CLI_OK;
	}
	lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX) < 0) {
		cli_error("%s: %m", dir);
		return CLI_FAILED;
	}
	name_from(made, locator);
	r = try_name(out, dir, name ? name : made, locator);
	for (unsigned i = 2; !name && r == -EADDRINUSE && i < 1000; i++) {
		snprintf(numbered, sizeof(numbered), "%s-%u", made, i);
		r = try_name(out, dir, numbered, locator);
	}
	if (!r)
		return CLI_OK;
	if (r == -EADDRINUSE)
		cli_error("a guest '%s' is running already", name ? name : made);
	else
		cli_error("%s/%s.sock: %s", dir, name ? name : made, strerror(-r));
	return CLI_FAILED;
}

void vm_unregister(struct vm_entry *e)
{
	if (e->listen_fd >= 0) {
		unlink(e->socket);
		unlink(e->info);
		close(e->listen_fd);
	}
	free(e->name);
	free(e->socket);
	free(e->info);
	*e = (struct vm_entry) { .listen_fd = -1 };
}

static char *path_of(const char *name, const char *suffix)
{
	AUTO_FREE char *dir = vm_name_ok(name) ? runtime_dir(false) : NULL;
	char *path = NULL;

	return dir && asprintf(&path, "%s/%s%s", dir, name, suffix) >= 0 ? path : NULL;
}

int vm_connect(const char *name)
{
	AUTO_FREE char *path = path_of(name, ".sock");

	return path ? connect_to(path) : -ENOENT;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char **vm_names(void)
{
	AUTO_FREE char *dir = runtime_dir(false);
	char **list = calloc(1, sizeof(*list));
	DIR *d = dir ? opendir(dir) : NULL;
	struct dirent *e;
	size_t n = 0;

	while (d && list && (e = readdir(d))) {
		size_t len = strlen(e->d_name);
		char **more;

		if (len < 6 || strcmp(e->d_name + len - 5, ".sock"))
			continue;
		more = realloc(list, (n + 2) * sizeof(*list));
		if (!more)
			break;
		list = more;
		list[n] = strndup(e->d_name, len - 5);
		if (list[n] && vm_name_ok(list[n]))
			n++;
		else
			free(list[n]);
		list[n] = NULL;
	}
	if (d)
		closedir(d);
	if (list)
		qsort(list, n, sizeof(*list), by_name);
	return list;
}

json_t *vm_info(const char *name)
{
	AUTO_FREE char *path = path_of(name, ".json");

	return path ? json_load_file(path, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

void vm_forget(const char *name)
{
	AUTO_FREE char *socket = path_of(name, ".sock"), *info = path_of(name, ".json");

	if (socket)
		unlink(socket);
	if (info)
		unlink(info);
}
