/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lock.c - QEMU's image locks
 *
 * QEMU describes what it does with an image, and what it lets others do, by
 * shared open-file-description locks on single bytes: byte 100 + n for each
 * permission n it uses, byte 200 + n for each permission it does not share.
 * Having taken its bytes, a program asks whether anyone holds the opposite
 * ones.  With the same bytes, a running QEMU guest and vdisk refuse each
 * other, and readers of a file that nobody writes do not notice one another.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/engine.h"
#include "kernel/host.h"

/* How often, and how long in between, a lock is tried again that nobody seems to hold. */
#define TRIES	10u
#define PAUSE_MS	50

#define PERM_BASE	100
#define SHARED_BASE	200

enum perm {
	PERM_CONSISTENT_READ = 1 << 0,
	PERM_WRITE = 1 << 1,
	PERM_WRITE_UNCHANGED = 1 << 2,
	PERM_RESIZE = 1 << 3,
};
#define PERM_BITS 4

static int lock_byte(int fd, off_t at)
{
	struct flock fl = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1,
	};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* Does someone else hold this byte? */
static int test_byte(int fd, off_t at)
{
	struct flock fl = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
		return -errno;
	return fl.l_type == F_UNLCK ? 0 : -EBUSY;
}

/* Does one of this process's descriptors, but for @not, hold an OFD lock on the file? */
static bool pid_holds(const char *pid, const char *inode, const char *not)
{
	char path[300], line[512];
	DIR *dir;
	struct dirent *e;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%s/fdinfo", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (e = readdir(dir))) {
		FILE *f;

		if (e->d_name[0] == '.' || !strcmp(e->d_name, not))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%.20s", pid, e->d_name);
		f = fopen(path, "re");
		while (f && !found && fgets(line, sizeof(line), f))
			found = !strncmp(line, "lock:", 5) && strstr(line, "OFDLCK") &&
				strstr(line, inode);
		if (f)
			fclose(f);
	}
	closedir(dir);
	return found;
}

/*
 * " (qemu-system-x86_64 disk.qcow2, pid 123)" for the first other process with a lock there.
 * false: there is none, as far as one may look.
 */
static bool describe_holder(int fd, char *out, size_t size)
{
	char self[16], own[16], inode[64], command[100];
	struct stat st;
	struct dirent *e;
	DIR *proc;

	out[0] = '\0';
	if (fstat(fd, &st) < 0)
		return true;
	snprintf(self, sizeof(self), "%d", getpid());
	snprintf(inode, sizeof(inode), " %02x:%02x:%lu ", major(st.st_dev), minor(st.st_dev),
		 (unsigned long)st.st_ino);
	/* another descriptor of our own: that does not pass */
	snprintf(own, sizeof(own), "%d", fd);
	if (pid_holds(self, inode, own))
		return true;
	proc = opendir("/proc");
	if (!proc)
		return true;
	while ((e = readdir(proc))) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9' || !strcmp(e->d_name, self) ||
		    !pid_holds(e->d_name, inode, ""))
			continue;
		vd_command_of(strtol(e->d_name, NULL, 10), command, sizeof(command));
		snprintf(out, size, " (%s, pid %.20s)", command[0] ? command : "a process",
			 e->d_name);
		break;
	}
	closedir(proc);
	if (!out[0])
		vd_opener_of(&st, out, size);
	return out[0];
}

/* Take the locks, or those that are missing yet, and look for opposite ones: -EBUSY. */
static int try_lock(int fd, unsigned perm, unsigned unshared)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < PERM_BITS; i++) {
		if (perm & 1u << i)
			r = lock_byte(fd, PERM_BASE + i);
		if (r == 0 && unshared & 1u << i)
			r = lock_byte(fd, SHARED_BASE + i);
	}
	/* a file system without locks, or read-only media: nobody can write there unseen */
	if (r == -ENOLCK || r == -EOPNOTSUPP || r == -EINVAL || r == -ENOSYS)
		return 0;
	for (unsigned i = 0; r == 0 && i < PERM_BITS; i++) {
		if (perm & 1u << i)
			r = test_byte(fd, SHARED_BASE + i);
		if (r == 0 && unshared & 1u << i)
			r = test_byte(fd, PERM_BASE + i);
	}
	return r == -EAGAIN || r == -EACCES ? -EBUSY : r;
}

int vd_lock_image(int fd, const char *path, bool write, struct vdisk_error *err)
{
	unsigned perm = PERM_CONSISTENT_READ | (write ? PERM_WRITE | PERM_RESIZE : 0);
	unsigned unshared = PERM_WRITE | PERM_RESIZE;
	char who[160] = "";
	int r = try_lock(fd, perm, unshared);

	/* The files of a process that was killed with I/O in flight are closed a little after
	 * it is gone: io_uring lets go of them in the background. */
	for (unsigned i = 1; r == -EBUSY && i < TRIES && !describe_holder(fd, who, sizeof(who)); i++) {
		poll(NULL, 0, PAUSE_MS);
		r = try_lock(fd, perm, unshared);
	}
	if (r == -EBUSY)
		return vd_fail(err, EBUSY,
			       write ? "%s: in use by another program%s" :
				       "%s: open for writing in another program%s; "
				       "--force-share reads it all the same",
			       path, who);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot lock: %s", path, strerror(-r));
	return 0;
}
