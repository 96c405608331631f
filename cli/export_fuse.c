/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* export_fuse.c - vdisk export --fuse: a disk as a file of this host */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/steady.h"

static struct vdisk_fuse *serving;

static void stop(int sig)
{
	(void)sig;
	vdisk_fuse_stop(serving);
}

/* The file to mount over: one that is there, or an empty one that goes again. */
static int make_file(const char *file, bool *made)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	*made = fd >= 0;
	if (fd >= 0) {
		close(fd);
		return CLI_OK;
	}
	if (stat(file, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size) {
		cli_error("%s: not a new name, nor an empty file", file);
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int serve(struct vdisk *disk, const char *file)
{
	const struct sigaction sa = { .sa_handler = stop };
	struct vdisk_error err = { 0 };
	int status = CLI_OK;

	if (vdisk_fuse_mount(&serving, disk, file, &err) < 0)
		return cli_fail(&err);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	if (!cli.quiet) {
		printf("%s is the file %s, until interrupted or: fusermount3 -u %s\n",
		       vdisk_name(disk), file, file);
		fflush(stdout);
	}
	if (vdisk_fuse_run(serving, &err) < 0)
		status = cli_fail(&err);
	vdisk_fuse_free(serving);
	return status;
}

int cli_export_fuse(const char *file, const char *locator, bool read_only)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct steady steady = { 0 };
	bool made;
	int status;

	if (read_only ? steady_open(&disk, &steady, locator) != CLI_OK :
			cli_open(&disk, locator, VDISK_OPEN_WRITE) < 0)
		return CLI_FAILED;
	status = make_file(file, &made);
	if (status == CLI_OK) {
		status = serve(disk, file);
		if (made)
			unlink(file);
	}
	if (cli_close(&disk) != CLI_OK)
		status = CLI_FAILED;
	steady_end(&steady);
	return status;
}
