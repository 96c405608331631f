/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* program.c - programs of the host that are run and waited for; see program.h */
#include "cli/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

static void redirect(int from, int to)
{
	if (to == PROGRAM_NOWHERE)
		to = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (to >= 0)
		dup2(to, from);
}

int program_run(const char *const *argv, int out, int err)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		cli_error("%s: %m", argv[0]);
		return CLI_FAILED;
	}
	if (pid == 0) {
		redirect(STDOUT_FILENO, out);
		redirect(STDERR_FILENO, err);
		if (out >= 0 || err >= 0)
			setenv("LC_ALL", "C", 1);
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		cli_error("%s: %m", argv[0]);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return CLI_FAILED;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? CLI_OK : CLI_FAILED;
}

int program_pad(void)
{
	return memfd_create("output", MFD_CLOEXEC);
}

void program_said(int *pad, char *text, size_t size)
{
	ssize_t n = *pad >= 0 ? pread(*pad, text, size - 1, 0) : 0;

	text[n > 0 ? n : 0] = '\0';
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	for (size_t len = strlen(text); len && text[len - 1] == ' '; len--)
		text[len - 1] = '\0';
	if (*pad >= 0)
		close(STEAL_FD(*pad));
}
