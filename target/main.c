/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* main.c - vdiskd, the storage server: the table of its modes */
#include <stdio.h>

#include "target/log.h"
#include "target/modes.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} modes[] = {
	{ "export", vdiskd_export, "serve disks over iSCSI until interrupted" },
};

static int usage(FILE *to)
{
	fprintf(to, "Usage: vdiskd MODE [OPTION...]\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		fprintf(to, "  %-10s %s\n", modes[i].name, modes[i].help);
	fprintf(to, "\n\"vdiskd MODE --help\" tells more.\n");
	return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return usage(stderr);
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
		return usage(stdout);
	if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version")) {
		puts("vdiskd " VDISK_VERSION);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(argv[1], modes[i].name))
			return modes[i].run(argc - 1, argv + 1);
	fprintf(stderr, "vdiskd: unknown mode: %s\n", argv[1]);
	return usage(stderr);
}
