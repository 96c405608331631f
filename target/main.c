/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* main.c - vdiskd, the storage server: the table of its modes */
#include <stdio.h>

#include "core/args.h"
#include "target/log.h"
#include "target/modes.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} modes[] = {
	{ "export", vdiskd_export, "serve disks over iSCSI until interrupted" },
};

static int usage(void)
{
	fprintf(stderr, "Usage: vdiskd [OPTION...]\n       vdiskd MODE [OPTION...]\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		fprintf(stderr, "  %-10s %s\n", modes[i].name, modes[i].help);
	fprintf(stderr, "\n\"vdiskd --help\" and \"vdiskd MODE --help\" tell more.\n");
	return 2;
}

int main(int argc, char **argv)
{
	argv = vd_take_args(argc, argv);
	if (!argv) {
		fprintf(stderr, "vdiskd: the command line: %m\n");
		return 1;
	}
	if (argc < 2 || argv[1][0] == '-')
		return vdiskd_daemon(argc, argv);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(argv[1], modes[i].name))
			return modes[i].run(argc - 1, argv + 1);
	fprintf(stderr, "vdiskd: unknown mode: %s\n", argv[1]);
	return usage();
}
