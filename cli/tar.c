/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tar.c - tar, untar: trees out of a disk and into one */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/files.h"

static const struct argp_option options[] = {
	{ "file", 'F', "FILE", 0, "This file instead of standard output or input", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	const char **file = state->input;

	if (key != 'F')
		return ARGP_ERR_UNKNOWN;
	*file = arg;
	return 0;
}

static int progress(void *arg, uint64_t done)
{
	struct cli_progress *p = arg;

	/* how much is still to come is not known */
	if (p->total < done)
		p->total = done;
	cli_progress_set(p, done);
	return 0;
}

static int open_archive(const char *file, int flags, int std)
{
	int fd = file ? open(file, flags | O_CLOEXEC, 0666) : dup(std);

	if (fd < 0)
		cli_error("%s: %m", file ? file : "standard stream");
	else if (!file && isatty(fd)) {
		cli_error("an archive is not for a terminal: redirect it, or use --file");
		close(fd);
		return -1;
	}
	return fd;
}

int cmd_tar(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options, .parser = parse, .children = cli_disk,
		.args_doc = "DISK:DIR",
		.doc = "Write a directory inside a disk as a tar archive, with owners, modes, "
		       "times, links, devices, holes and extended attributes.",
	};
	const char *file = NULL;
	char **args = cli_parse(&argp, argc, argv, &file, 1, 1);
	AUTO_FILE struct cli_file f = { 0 };
	struct cli_progress p = { 0 };
	struct vdisk_tar_opts o = { .size = sizeof(o), .progress = progress, .arg = &p };
	struct vdisk_error err = { 0 };
	AUTO_CLOSE int fd = -1;
	int status = cli_file_open(&f, args[0], false);

	if (status == CLI_OK)
		fd = open_archive(file, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
	if (fd < 0)
		return cli_files_close(CLI_FAILED);
	cli_progress_start(&p, "packing", 0);
	if (vdisk_fs_tar_out(f.fs, f.path, fd, &o, &err) < 0)
		status = cli_fail(&err);
	cli_progress_end(&p);
	if (file && close(STEAL_FD(fd)) < 0) {
		cli_error("%s: %m", file);
		status = CLI_FAILED;
	}
	return cli_files_close(status);
}

int cmd_untar(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options, .parser = parse, .children = cli_disk,
		.args_doc = "DISK:DIR",
		.doc = "Unpack a tar archive, compressed or not, into a directory inside a disk.",
	};
	const char *file = NULL;
	char **args = cli_parse(&argp, argc, argv, &file, 1, 1);
	AUTO_FILE struct cli_file f = { 0 };
	struct cli_progress p = { 0 };
	struct vdisk_tar_opts o = { .size = sizeof(o), .progress = progress, .arg = &p };
	struct vdisk_error err = { 0 };
	AUTO_CLOSE int fd = open_archive(file, O_RDONLY, STDIN_FILENO);
	int status = fd < 0 ? CLI_FAILED : cli_file_open(&f, args[0], true);

	if (status != CLI_OK)
		return cli_files_close(status);
	cli_progress_start(&p, "unpacking", 0);
	if (vdisk_fs_tar_in(f.fs, f.path, fd, &o, &err) < 0)
		status = cli_fail(&err);
	cli_progress_end(&p);
	return cli_files_close(status);
}
