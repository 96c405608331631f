/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest.c - the process that runs a guest; see guest.h */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/guest.h"
#include "core/args.h"

static pid_t running;

static void pass_on(int signal_number)
{
	if (running > 0)
		kill(running, signal_number);
}

/* On a terminal the interrupt key is the guest's, or the engine's. */
static void pass_signals_on(void)
{
	struct sigaction forward = { .sa_handler = pass_on };

	sigemptyset(&forward.sa_mask);
	sigaction(SIGTERM, &forward, NULL);
	sigaction(SIGHUP, &forward, NULL);
	if (isatty(STDIN_FILENO))
		signal(SIGINT, SIG_IGN);
	else
		sigaction(SIGINT, &forward, NULL);
}

static int execute(const char *const *argv, const int *keep_open, unsigned n, pid_t parent)
{
	/* it must not outlive us, not even if we are killed */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		return CLI_FAILED;
	for (unsigned i = 0; i < n; i++)
		if (keep_open[i] >= 0)
			fcntl(keep_open[i], F_SETFD, 0);
	vd_execv(argv[0], argv);
	cli_error("%s: %m", argv[0]);
	return CLI_FAILED;
}

static int run_process(const char *const *argv, const int *keep_open, unsigned n_keep_open,
		       const int *hand_over, unsigned n_hand_over, int *signal_number)
{
	pid_t parent = getpid();
	int status;

	*signal_number = 0;
	pass_signals_on();
	fflush(NULL);
	running = fork();
	if (running < 0) {
		cli_error("fork: %m");
		return CLI_FAILED;
	}
	if (running == 0) {
		for (unsigned i = 0; i < n_hand_over; i++)
			fcntl(hand_over[i], F_SETFD, 0);
		_exit(execute(argv, keep_open, n_keep_open, parent));
	}
	/* a disk that the guest gives back is free then */
	for (unsigned i = 0; i < n_hand_over; i++)
		close(hand_over[i]);
	while (waitpid(running, &status, 0) < 0)
		if (errno != EINTR)
			return CLI_FAILED;
	running = 0;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	*signal_number = WTERMSIG(status);
	return CLI_FAILED;
}

int guest_process(const char *const *argv, const int *keep_open, unsigned n_keep_open)
{
	return guest_process_handing(argv, keep_open, n_keep_open, NULL, 0);
}

int guest_process_handing(const char *const *argv, const int *keep_open, unsigned n_keep_open,
			  const int *hand_over, unsigned n_hand_over)
{
	const char *name = strrchr(argv[0], '/');
	int number, status = run_process(argv, keep_open, n_keep_open, hand_over, n_hand_over,
					 &number);

	if (number)
		cli_error("%s was ended by signal %d (%s)", name ? name + 1 : argv[0], number,
			  strsignal(number));
	return status;
}
