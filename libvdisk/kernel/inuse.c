/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inuse.c - who uses a file or a block device
 *
 * The kernel tells it in five places: /proc/self/mountinfo, /proc/swaps, the
 * holders in sysfs (device-mapper, md, bcache), the backing files of loop
 * devices, and the descriptors of processes.  A disk is in use, too, when one of
 * its partitions is, and a file when the loop device on it is there.
 *
 * All this is for messages and for refusing early.  What keeps two writers apart
 * is O_EXCL on devices and the locks of lock.c.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "kernel/host.h"

/* ---- processes ---- */

void vd_command_of(long pid, char *out, size_t size)
{
	char path[48];
	FILE *f;
	size_t n = 0;

	snprintf(path, sizeof(path), "/proc/%ld/cmdline", pid);
	f = fopen(path, "re");
	if (f) {
		n = fread(out, 1, size - 1, f);
		fclose(f);
	}
	while (n && !out[n - 1])
		n--;
	for (size_t i = 0; i < n; i++)
		if (iscntrl((unsigned char)out[i]) || !out[i])
			out[i] = ' ';
	out[n] = '\0';
}

static bool has_open(const char *pid, const struct stat *st)
{
	char path[300];
	struct stat other;
	struct dirent *e;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &other, 0) < 0)
			continue;
		found = S_ISBLK(st->st_mode) ?
			S_ISBLK(other.st_mode) && other.st_rdev == st->st_rdev :
			other.st_ino == st->st_ino && other.st_dev == st->st_dev;
	}
	if (dir)
		closedir(dir);
	return found;
}

void vd_opener_of(const struct stat *st, char *out, size_t size)
{
	char command[120];
	DIR *proc = opendir("/proc");
	struct dirent *e;

	out[0] = '\0';
	while (proc && (e = readdir(proc))) {
		long pid = strtol(e->d_name, NULL, 10);

		if (pid <= 0 || pid == getpid() || !has_open(e->d_name, st))
			continue;
		vd_command_of(pid, command, sizeof(command));
		snprintf(out, size, " (%s, pid %ld)", command[0] ? command : "a process", pid);
		break;
	}
	if (proc)
		closedir(proc);
}

/* Does the link @dir/@name lead to the file system @dev?  Without asking a FUSE server. */
static bool leads_to(int dir, const char *name, dev_t dev)
{
	struct statx sx;

	return statx(dir, name, AT_STATX_DONT_SYNC, STATX_TYPE, &sx) == 0 &&
	       makedev(sx.stx_dev_major, sx.stx_dev_minor) == dev;
}

static bool uses_mount(const char *pid, dev_t dev)
{
	char path[300];
	AUTO_CLOSE int proc = -1;
	struct dirent *e;
	bool found;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s", pid);
	proc = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		return false;
	found = leads_to(proc, "cwd", dev) || leads_to(proc, "root", dev) ||
		leads_to(proc, "exe", dev);
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = found ? NULL : opendir(path);
	while (dir && !found && (e = readdir(dir)))
		found = e->d_name[0] != '.' && leads_to(dirfd(dir), e->d_name, dev);
	if (dir)
		closedir(dir);
	return found;
}

void vd_user_of_mount(const char *mount_point, char *out, size_t size)
{
	char command[120];
	struct stat st;
	struct dirent *e;
	DIR *proc = NULL;

	out[0] = '\0';
	if (stat(mount_point, &st) == 0)
		proc = opendir("/proc");
	while (proc && (e = readdir(proc))) {
		long pid = strtol(e->d_name, NULL, 10);

		if (pid <= 0 || pid == getpid() || !uses_mount(e->d_name, st.st_dev))
			continue;
		vd_command_of(pid, command, sizeof(command));
		snprintf(out, size, " (%s, pid %ld)", command[0] ? command : "a process", pid);
		break;
	}
	if (proc)
		closedir(proc);
}

/* ---- what the kernel does with a device ---- */

/* Undo the kernel's \ooo for blanks and the like. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && isdigit((unsigned char)s[1]) && isdigit((unsigned char)s[2]) &&
		    isdigit((unsigned char)s[3])) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static bool is_mounted(dev_t dev, char *out, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192], where[4096], source[4096];
	unsigned major, minor;
	bool found = false;
	struct stat st;

	while (f && !found && fgets(line, sizeof(line), f)) {
		const char *rest = strstr(line, " - ");

		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major, &minor, where) != 3)
			continue;
		found = makedev(major, minor) == dev;
		/* btrfs and others have device numbers of their own */
		if (!found && rest && sscanf(rest, " - %*s %4095s", source) == 1 &&
		    source[0] == '/') {
			unescape(source);
			found = stat(source, &st) == 0 && S_ISBLK(st.st_mode) &&
				st.st_rdev == dev;
		}
	}
	if (f)
		fclose(f);
	if (!found)
		return false;
	unescape(where);
	snprintf(out, size, "mounted at %s", where);
	return true;
}

static bool is_swap(dev_t dev, char *out, size_t size)
{
	FILE *f = fopen("/proc/swaps", "re");
	char line[4200], path[4096];
	bool found = false;
	struct stat st;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%4095s", path) != 1 || path[0] != '/')
			continue;
		unescape(path);
		found = stat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == dev;
	}
	if (f)
		fclose(f);
	if (found)
		snprintf(out, size, "swap space of this host");
	return found;
}

static bool read_line(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(out, (int)size, f);

	if (f)
		fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = '\0';
	return ok;
}

static bool device_in_use(dev_t dev, unsigned depth, char *out, size_t size);

/* The first entry of a directory that is no dot. */
static bool first_entry(const char *path, char name[NAME_MAX + 1])
{
	DIR *dir = opendir(path);
	struct dirent *e;
	bool found = false;

	while (dir && !found && (e = readdir(dir)))
		if (e->d_name[0] != '.') {
			snprintf(name, NAME_MAX + 1, "%s", e->d_name);
			found = true;
		}
	if (dir)
		closedir(dir);
	return found;
}

static bool sysfs_dev(const char *dir, const char *name, dev_t *dev)
{
	char path[PATH_MAX], text[32];
	unsigned major, minor;

	snprintf(path, sizeof(path), "%s/%s/dev", dir, name);
	if (!read_line(path, text, sizeof(text)) || sscanf(text, "%u:%u", &major, &minor) != 2)
		return false;
	*dev = makedev(major, minor);
	return true;
}

static bool is_held(const char *sys, unsigned depth, char *out, size_t size)
{
	char dir[128], path[PATH_MAX], name[NAME_MAX + 1], dm[128], more[300] = "";
	dev_t dev;

	snprintf(dir, sizeof(dir), "%s/holders", sys);
	if (!first_entry(dir, name))
		return false;
	snprintf(path, sizeof(path), "%s/%s/dm/name", dir, name);
	if (read_line(path, dm, sizeof(dm)))
		snprintf(out, size, "held by device-mapper %s", dm);
	else
		snprintf(out, size, "held by %s", name);
	if (sysfs_dev(dir, name, &dev) && device_in_use(dev, depth + 1, more, sizeof(more))) {
		size_t n = strlen(out);

		snprintf(out + n, size - n, ", %s", more);
	}
	return true;
}

static bool partition_in_use(const char *sys, unsigned depth, char *out, size_t size)
{
	DIR *dir = opendir(sys);
	struct dirent *e;
	bool found = false;

	while (dir && !found && (e = readdir(dir))) {
		char path[PATH_MAX], more[300];
		dev_t dev;

		snprintf(path, sizeof(path), "%s/%s/partition", sys, e->d_name);
		if (access(path, F_OK) < 0 || !sysfs_dev(sys, e->d_name, &dev))
			continue;
		found = device_in_use(dev, depth + 1, more, sizeof(more));
		if (found)
			snprintf(out, size, "its partition %s is %s", e->d_name, more);
	}
	if (dir)
		closedir(dir);
	return found;
}

static bool loop_on(const struct stat *st, unsigned depth, char *out, size_t size)
{
	char more[300] = "", path[40];
	struct stat loop;
	int n = vd_loop_of(st, 0);

	if (n < 0)
		return false;
	snprintf(path, sizeof(path), "/dev/loop%d", n);
	if (stat(path, &loop) == 0 && S_ISBLK(loop.st_mode))
		device_in_use(loop.st_rdev, depth + 1, more, sizeof(more));
	snprintf(out, size, "attached to %s%s%s", path, more[0] ? ", which is " : "", more);
	return true;
}

static bool device_in_use(dev_t dev, unsigned depth, char *out, size_t size)
{
	struct stat st = { .st_mode = S_IFBLK, .st_rdev = dev };
	char sys[64];

	if (depth > 8)
		return false;
	snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	return is_mounted(dev, out, size) || is_swap(dev, out, size) ||
	       is_held(sys, depth, out, size) || partition_in_use(sys, depth, out, size) ||
	       (depth && loop_on(&st, depth, out, size));
}

bool vd_in_use(const struct stat *st, char *out, size_t size)
{
	if (S_ISBLK(st->st_mode) && device_in_use(st->st_rdev, 0, out, size))
		return true;
	return loop_on(st, 0, out, size);
}
