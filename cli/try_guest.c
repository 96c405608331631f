/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* try_guest.c - see try_guest.h */
#include "cli/try_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/driver.h"

/* /etc is on the root file system, whatever else is mounted. */
#define DIR		"/etc/vdisk-try"
#define UNIT		"/etc/systemd/system/vdisk-try.service"
#define UNIT_LINK	"/etc/systemd/system/multi-user.target.wants/vdisk-try.service"
#define OPENRC_SCRIPT	"/etc/init.d/vdisk-try"
#define OPENRC_LINK	"/etc/runlevels/default/vdisk-try"
#define RCS_SCRIPT	"/etc/init.d/S99vdisk-try"

enum { STATUS_MAX = 16, COPY = 64 << 10 };

/* ---- files ---- */

static int put(struct vdisk_fs *fs, const char *path, const char *text, uint32_t mode,
	       struct vdisk_error *err)
{
	size_t len = strlen(text);
	struct vdisk_file *f = NULL;
	ssize_t n;
	int r;

	r = vdisk_file_open(&f, fs, path, VDISK_FILE_WRITE | VDISK_FILE_CREATE | VDISK_FILE_TRUNC,
			    mode, err);
	if (r < 0)
		return r;
	n = vdisk_file_write(f, text, len, 0, err);
	r = vdisk_file_close(f, n < 0 ? NULL : err);
	if (r == 0)
		r = vdisk_fs_chmod(fs, path, mode, err);
	return n < 0 ? (int)n : r;
}

static bool is_there(struct vdisk_fs *fs, const char *path)
{
	struct vdisk_stat st;

	return vdisk_fs_stat(fs, path, false, &st, NULL) == 0;
}

static bool is_directory(struct vdisk_fs *fs, const char *path)
{
	struct vdisk_stat st;

	return vdisk_fs_stat(fs, path, false, &st, NULL) == 0 && S_ISDIR(st.mode);
}

static int make_directory(struct vdisk_fs *fs, const char *path, struct vdisk_error *err)
{
	return is_directory(fs, path) ? 0 : vdisk_fs_mkdir(fs, path, 0755, err);
}

static int link_to(struct vdisk_fs *fs, const char *target, const char *path,
		   struct vdisk_error *err)
{
	vdisk_fs_remove(fs, path, NULL);
	return vdisk_fs_symlink(fs, target, path, err);
}

/* ---- the script ---- */

/* Each word in single quotes. */
static void print_words(FILE *out, char *const *argv)
{
	for (; *argv; argv++) {
		fputs(" '", out);
		for (const char *p = *argv; *p; p++) {
			if (*p == '\'')
				fputs("'\\''", out);
			else
				fputc(*p, out);
		}
		fputc('\'', out);
	}
}

/*
 * Where the output goes: to the ports of a virtio console that vdisk try has made
 * (TRY_PORT_OUT, TRY_PORT_ERR), or on User-Mode Linux to two of its consoles, as it is
 * printed; where the guest has no driver for them, into files that are read afterwards.
 * A command that sees a terminal prints other things, so there are pipes before one.
 */
static const char output_text[] =
	"out=" DIR "/out err=" DIR "/err tty=\n"
	"modprobe -q virtio_console 2>/dev/null\n"
	"n=0\n"
	"while [ -d /sys/class/virtio-ports ] && [ $n -lt 10 ]; do\n"
	"\to= e=\n"
	"\tfor p in /sys/class/virtio-ports/*; do\n"
	"\t\tcase $(cat $p/name 2>/dev/null) in\n"
	"\t\t" TRY_PORT_OUT ") o=/dev/${p##*/} ;;\n"
	"\t\t" TRY_PORT_ERR ") e=/dev/${p##*/} ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\t[ -c \"$o\" ] && [ -c \"$e\" ] && out=$o err=$e && break\n"
	"\tn=$((n + 1))\n"
	"\tsleep 0.1 2>/dev/null || sleep 1\n"
	"done\n"
	"if grep -qs 'User Mode Linux' /proc/cpuinfo && mkfifo " DIR "/o " DIR "/e 2>/dev/null &&\n"
	"\t\tstty -F " TRY_TTY_OUT " raw -echo 2>/dev/null && stty -F " TRY_TTY_ERR " raw -echo 2>/dev/null; then\n"
	"\tout=" DIR "/o err=" DIR "/e\n"
	"\tcat $out >" TRY_TTY_OUT " & tty=$!\n"
	"\tcat $err >" TRY_TTY_ERR " & tty=\"$tty $!\"\n"
	"fi\n";

/* What is in the pipes goes out; who keeps them open longer than that is not waited for. */
static const char output_end_text[] =
	"n=0\n"
	"for p in $tty; do\n"
	"\twhile kill -0 $p 2>/dev/null && [ $n -lt 50 ]; do\n"
	"\t\tn=$((n + 1))\n"
	"\t\tsleep 0.1 2>/dev/null || sleep 1\n"
	"\tdone\n"
	"done\n";

/*
 * The status is renamed into place when it is whole and everything before it
 * is on the disk.  As the kernel's init there is nobody else to mount or to switch off.
 */
static char *make_script(char *const *argv)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fputs("#!/bin/sh\n"
	      "# put here by vdisk try, for one run\n"
	      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
	      "HOME=/root\n"
	      "export PATH HOME\n"
	      "if [ $$ = 1 ]; then\n"
	      "\tmount -t devtmpfs devtmpfs /dev\n"	/* first: /dev/null is there */
	      "\tmount -t proc proc /proc\n"
	      "\tmount -t sysfs sysfs /sys\n"
	      "\tmount -o remount,rw /\n"
	      "fi\n"
	      "cd /root 2>/dev/null || cd /\n", out);
	fputs(output_text, out);
	/* in a subshell: a command that ends the shell must not end the script */
	fputs("(exec", out);
	print_words(out, argv);
	fputs(") </dev/null >$out 2>$err\n"
	      "s=$?\n", out);
	fputs(output_end_text, out);
	fputs("echo $s >" DIR "/status.new\n"
	      "sync\n"
	      "mv " DIR "/status.new " DIR "/status\n"
	      "sync\n"
	      "if [ $$ = 1 ]; then\n"
	      "\tmount -o remount,ro / 2>/dev/null\n"
	      "\tpoweroff -f 2>/dev/null || echo o >/proc/sysrq-trigger\n"
	      "\twhile :; do sleep 60; done\n"
	      "fi\n"
	      "if [ -d /run/systemd/system ]; then\n"
	      "\tsystemctl --no-block poweroff\n"
	      "else\n"
	      "\tpoweroff || halt -p || shutdown -h now\n"
	      "fi\n", out);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- who starts it ---- */

static const char unit_text[] =
	"[Unit]\n"
	"Description=Command of vdisk try\n"
	"After=multi-user.target\n"
	"[Service]\n"
	"Type=oneshot\n"
	"TimeoutStartSec=0\n"
	"ExecStart=/bin/sh " DIR "/run\n";

static const char openrc_text[] =
	"#!/sbin/openrc-run\n"
	"description=\"Command of vdisk try\"\n"
	"depend() { after *; }\n"
	"start() { /bin/sh " DIR "/run >/dev/null 2>&1 & }\n";

static const char init_text[] =
	"#!/bin/sh\n"
	"### BEGIN INIT INFO\n"
	"# Provides: vdisk-try\n"
	"# Required-Start: $all\n"
	"# Required-Stop:\n"
	"# Default-Start: 2 3 4 5\n"
	"# Default-Stop:\n"
	"# Short-Description: Command of vdisk try\n"
	"### END INIT INFO\n"
	"[ \"$1\" = stop ] || /bin/sh " DIR "/run >/dev/null 2>&1 &\n";

static int start_by_systemd(struct vdisk_fs *fs, struct vdisk_error *err)
{
	int r = make_directory(fs, "/etc/systemd", err);

	if (r == 0)
		r = make_directory(fs, "/etc/systemd/system", err);
	if (r == 0)
		r = make_directory(fs, "/etc/systemd/system/multi-user.target.wants", err);
	if (r == 0)
		r = put(fs, UNIT, unit_text, 0644, err);
	return r < 0 ? r : link_to(fs, UNIT, UNIT_LINK, err);
}

static int start_by_openrc(struct vdisk_fs *fs, struct vdisk_error *err)
{
	int r = put(fs, OPENRC_SCRIPT, openrc_text, 0755, err);

	return r < 0 ? r : link_to(fs, OPENRC_SCRIPT, OPENRC_LINK, err);
}

static int start_by_levels(struct vdisk_fs *fs, struct vdisk_error *err)
{
	int r = put(fs, OPENRC_SCRIPT, init_text, 0755, err);
	char dir[32], path[64];

	for (int level = 2; r == 0 && level <= 5; level++) {
		snprintf(dir, sizeof(dir), "/etc/rc%d.d", level);
		snprintf(path, sizeof(path), "%s/S99vdisk-try", dir);
		if (is_directory(fs, dir))
			r = link_to(fs, OPENRC_SCRIPT, path, err);
	}
	return r;
}

static int start_by_rcs(struct vdisk_fs *fs, struct vdisk_error *err)
{
	return put(fs, RCS_SCRIPT, init_text, 0755, err);
}

static const struct starter {
	const char *sign[2];	/* files or directories that tell */
	int (*start)(struct vdisk_fs *fs, struct vdisk_error *err);
} starters[] = {
	{ { "/usr/lib/systemd/systemd", "/lib/systemd/systemd" }, start_by_systemd },
	{ { "/sbin/openrc-run", "/usr/sbin/openrc-run" }, start_by_openrc },
	{ { "/etc/rc2.d", "/etc/rc3.d" }, start_by_levels },
	{ { "/etc/init.d/rcS" }, start_by_rcs },
};

/* Files made offline have no labels, which an enforcing SELinux would not run. */
static bool enforces_labels(struct vdisk_fs *fs)
{
	void *text = NULL;
	size_t len;
	bool found;

	if (vdisk_fs_load(fs, "/etc/selinux/config", COPY, &text, &len, NULL) < 0)
		return false;
	found = !strncmp(text, "SELINUX=enforcing", 17) || strstr(text, "\nSELINUX=enforcing");
	free(text);
	return found;
}

int try_put(struct vdisk_fs *fs, struct try_command *c, struct vdisk_error *err)
{
	AUTO_FREE char *script = make_script(c->argv);
	int r;

	if (!script)
		return vd_fail(err, ENOMEM, "out of memory");
	r = make_directory(fs, "/etc", err);
	if (r == 0)
		r = make_directory(fs, DIR, err);
	if (r == 0)
		r = put(fs, DIR "/run", script, 0755, err);
	if (r < 0)
		return r;
	c->append = enforces_labels(fs) ? "enforcing=0" : "";
	for (size_t i = 0; i < ARRAY_SIZE(starters); i++) {
		for (unsigned k = 0; k < 2; k++)
			if (starters[i].sign[k] && is_there(fs, starters[i].sign[k]))
				return starters[i].start(fs, err);
	}
	if (!is_there(fs, "/bin/sh"))
		return vd_fail(err, ENOTSUP, "try: the guest has no /bin/sh that could run a command");
	c->append = "init=" DIR "/run";
	return 0;
}

/* ---- afterwards ---- */

static int write_all(int fd, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Nothing was printed where the file is not there. */
static int copy_out(struct vdisk_fs *fs, const char *path, int fd, struct vdisk_error *err)
{
	AUTO_FREE char *buf = malloc(COPY);
	struct vdisk_file *f = NULL;
	uint64_t off = 0;
	ssize_t n;
	int r;

	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	if (!is_there(fs, path))
		return 0;
	n = vdisk_file_open(&f, fs, path, 0, 0, err);
	if (n < 0)
		return (int)n;
	while ((n = vdisk_file_read(f, buf, COPY, off, err)) > 0) {
		off += (uint64_t)n;
		r = write_all(fd, buf, (size_t)n);
		if (r < 0) {
			n = vd_fail(err, -r, "try: writing the command's output: %s", strerror(-r));
			break;
		}
	}
	vdisk_file_close(f, NULL);
	return n < 0 ? (int)n : 0;
}

bool try_is_done(struct vdisk_fs *fs)
{
	return is_there(fs, DIR "/status");
}

int try_fetch(struct vdisk_fs *fs, int out, int errors, int *status, struct vdisk_error *err)
{
	void *text = NULL;
	char *end;
	size_t len;
	long n;
	int r;

	r = copy_out(fs, DIR "/out", out, err);
	if (r == 0)
		r = copy_out(fs, DIR "/err", errors, err);
	if (r < 0 || !try_is_done(fs))
		return r;
	r = vdisk_fs_load(fs, DIR "/status", STATUS_MAX, &text, &len, err);
	if (r < 0)
		return r;
	n = strtol(text, &end, 10);
	if (end == text || n < 0 || n > 255)
		r = vd_fail(err, EINVAL, "try: the guest has left no exit status, but '%.16s'",
			    (char *)text);
	free(text);
	*status = (int)n;
	return r < 0 ? r : 1;
}

int try_remove(struct vdisk_fs *fs, struct vdisk_error *err)
{
	static const char *const files[] = {
		UNIT_LINK, UNIT, OPENRC_LINK, OPENRC_SCRIPT, RCS_SCRIPT, "/etc/rc2.d/S99vdisk-try",
		"/etc/rc3.d/S99vdisk-try", "/etc/rc4.d/S99vdisk-try", "/etc/rc5.d/S99vdisk-try",
	};
	struct vdisk_stat st;
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++)
		if (vdisk_fs_stat(fs, files[i], true, &st, NULL) == 0)
			r = vdisk_fs_remove(fs, files[i], err);
	if (r == 0 && is_there(fs, DIR))
		r = vdisk_fs_remove_tree(fs, DIR, err);
	return r;
}
