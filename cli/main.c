/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* main.c - vdisk: the table of commands */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "core/args.h"

static const struct cli_command commands[] = {
	{ NULL, NULL, "Images" },
	{ "create", cmd_create, "make an image" },
	{ "info", cmd_info, "say what an image is" },
	{ "check", cmd_check, "check the consistency of an image, and repair it" },
	{ "convert", cmd_convert, "copy a disk into a new image" },
	{ "compare", cmd_compare, "do two disks hold the same?" },
	{ "map", cmd_map, "where the bytes of a disk are" },
	{ "measure", cmd_measure, "how large a disk would be in another format" },
	{ "resize", cmd_resize, "change the size of a disk" },
	{ "amend", cmd_amend, "change options of an image" },
	{ "snapshot", cmd_snapshot, "keep states of a disk and go back to them" },
	{ "rebase", cmd_rebase, "put an image onto another backing file" },
	{ "commit", cmd_commit, "write an image into its backing file" },

	{ NULL, NULL, "Partitions and volumes" },
	{ "parts", cmd_parts, "everything on a disk: table, partitions, file systems" },
	{ "part", cmd_part, "make and change partition tables" },
	{ "label", cmd_label, "show or change a label" },
	{ "uuid", cmd_uuid, "show or change a UUID" },
	{ "rename", cmd_rename, "rename an LVM volume group or volume" },
	{ "mkfs", cmd_mkfs, "make a file system" },
	{ "fsck", cmd_fsck, "check a file system" },
	{ "trim", cmd_trim, "make holes of what file systems do not use" },

	{ NULL, NULL, "Files" },
	{ "ls", cmd_ls, "list a directory" },
	{ "cat", cmd_cat, "print files" },
	{ "stat", cmd_stat, "print the attributes of files" },
	{ "cp", cmd_cp, "copy files into, out of and between disks" },
	{ "mkdir", cmd_mkdir, "make directories" },
	{ "rm", cmd_rm, "remove files" },
	{ "mv", cmd_mv, "rename files" },
	{ "ln", cmd_ln, "make links" },
	{ "chmod", cmd_chmod, "change permissions" },
	{ "chown", cmd_chown, "change owners" },
	{ "edit", cmd_edit, "edit a file" },
	{ "tar", cmd_tar, "pack a directory" },
	{ "untar", cmd_untar, "unpack an archive" },
	{ "df", cmd_df, "how full file systems are" },
	{ "inspect", cmd_inspect, "which system is on a disk, and what it boots" },

	{ NULL, NULL, "This host" },
	{ "mount", cmd_mount, "the files of a disk as a directory" },
	{ "umount", cmd_umount, "end that, and wait until all is saved" },
	{ "attach", cmd_attach, "block devices of a disk and its volumes" },
	{ "detach", cmd_detach, "take them away" },
	{ "attached", cmd_attached, "which disks are attached" },
	{ "kpartx", cmd_kpartx, "a block device of each partition, as kpartx does" },

	{ NULL, NULL, "Serving and running" },
	{ "boot", cmd_boot, "boot a guest from its disk" },
	{ "try", cmd_try, "boot a disk, or run a command in it, and leave it as it was" },
	{ "vm", cmd_vm, "guests that run: list, stop, console, disks that come and go" },
	{ "export", cmd_export, "serve disks: to other machines by iSCSI, to guests by vhost-user, as files" },
	{ "bench", cmd_bench, "measure how fast a disk is" },
};

static void print_help(FILE *out)
{
	fputs("Usage: vdisk COMMAND [OPTION...] [ARGUMENT...]\n"
	      "Look into, change, check, convert, export and boot any guest disk.\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct cli_command *c = &commands[i];

		if (c->name)
			fprintf(out, "  %-10s %s\n", c->name, c->help);
		else
			fprintf(out, "\n%s\n", c->help);
	}
	fputs("\nA disk is SOURCE[@SNAPSHOT][#PART], and a file in it DISK:/path.\n"
	      "'vdisk COMMAND --help' tells more; see also vdisk(1).\n", out);
}

static const struct cli_command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (commands[i].name && !strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

/* Data that did not reach stdout is a failure, not a detail. */
static int flush_output(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	cli_error("standard output: %m");
	return status == CLI_OK ? CLI_FAILED : status;
}

int main(int argc, char **argv)
{
	const struct cli_command *command;

	signal(SIGPIPE, SIG_DFL);
	argv = vd_take_args(argc, argv);
	if (!argv) {
		cli_error("the command line: %m");
		return CLI_FAILED;
	}
	if (argc < 2) {
		print_help(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_help(stdout);
		return flush_output(CLI_OK);
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("vdisk " VDISK_VERSION);
		return flush_output(CLI_OK);
	}
	command = find_command(argv[1]);
	if (!command) {
		cli_error("there is no command '%s'; 'vdisk --help' lists them", argv[1]);
		return CLI_USAGE;
	}
	return flush_output(command->run(argc - 1, argv + 1));
}
