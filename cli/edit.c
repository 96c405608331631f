/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* edit.c - vdisk edit: a file in a disk, in the editor of this host */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/replace.h"

#define EDIT_MAX (256u << 20)

static const char *editor(void)
{
	const char *e = getenv("VISUAL");

	if (!e || !*e)
		e = getenv("EDITOR");
	return e && *e ? e : "vi";
}

/* Write the file to be edited; its descriptor, or -1. */
static int put_temp(char *path, const void *data, size_t len)
{
	int fd = mkostemps(path, 0, O_CLOEXEC);

	if (fd < 0 || (len && write(fd, data, len) != (ssize_t)len)) {
		cli_error("%s: %m", path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static int run_editor(const char *path)
{
	AUTO_FREE char *command = NULL;
	int status;

	/* as everybody does: the variable may hold arguments, so a shell takes it apart */
	setenv("VDISK_EDIT_FILE", path, 1);
	if (asprintf(&command, "%s \"$VDISK_EDIT_FILE\"", editor()) < 0) {
		command = NULL;
		return CLI_FAILED;
	}
	status = system(command);	/* NOLINT(cert-env33-c): a shell is what is wanted */
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return CLI_OK;
	cli_error("%s ended with status %d; nothing was changed", editor(),
		  WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return CLI_FAILED;
}

static char *get_temp(const char *path, size_t *len)
{
	FILE *f = fopen(path, "re");
	char *buf = NULL;
	size_t n = 0;

	if (f && fseek(f, 0, SEEK_END) == 0) {
		long size = ftell(f);

		rewind(f);
		buf = size >= 0 ? malloc((size_t)size + 1) : NULL;
		n = buf ? fread(buf, 1, (size_t)size, f) : 0;
	}
	if (!f || !buf || ferror(f)) {
		cli_error("%s: %m", path);
		free(buf);
		buf = NULL;
	}
	if (f)
		fclose(f);
	*len = n;
	return buf;
}

static int edit(struct cli_file *f, char *temp)
{
	struct vdisk_error err = { 0 };
	AUTO_FREE void *old = NULL;
	AUTO_FREE char *now = NULL;
	size_t old_len = 0, len;
	AUTO_CLOSE int fd = -1;

	if (vdisk_fs_load(f->fs, f->path, EDIT_MAX, &old, &old_len, &err) < 0 &&
	    err.code != ENOENT)
		return cli_fail(&err);
	fd = put_temp(temp, old, old_len);
	if (fd < 0 || run_editor(temp) != CLI_OK)
		return CLI_FAILED;
	now = get_temp(temp, &len);	/* by its name: editors write a new file */
	if (!now)
		return CLI_FAILED;
	if (len == old_len && (!len || !memcmp(old, now, len))) {
		cli_note("%s: not changed", f->path);
		return CLI_OK;
	}
	return cli_replace(f->fs, f->path, now, len);
}

int cmd_edit(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK[#PART]:/PATH",
		.doc = "Edit a file in a disk with $VISUAL, $EDITOR or vi.  It is put back at once, "
		       "with its owner, mode and extended attributes, if it was changed.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 1, 1);
	const char *base = getenv("TMPDIR");
	AUTO_FREE char *temp = NULL;
	AUTO_FILE struct cli_file f = { 0 };
	int status;

	if (!cli_is_guest_file(args[0]))
		cli_usage("'%s' names no file in a disk: DISK:/PATH", args[0]);
	if (cli_file_open(&f, args[0], true) != CLI_OK)
		return cli_files_close(CLI_FAILED);
	if (asprintf(&temp, "%s/vdisk-edit.XXXXXX", base && *base ? base : "/tmp") < 0) {
		temp = NULL;
		cli_error("out of memory");
		return cli_files_close(CLI_FAILED);
	}
	status = edit(&f, temp);
	unlink(temp);
	return cli_files_close(status);
}
