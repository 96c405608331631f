/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cli.h - what the commands of vdisk share
 *
 * A command is a function in a file of its own (or of its family), one line in
 * the table of main.c, and a prototype in commands.h.  It describes
 * its options to argp, with cli_common or cli_disk as children; cli_parse()
 * then gives it its arguments, and the shared options are in `cli`:
 *
 *	static const struct argp argp = {
 *		.options = options, .parser = parse, .children = cli_disk,
 *		.args_doc = "DISK", .doc = "Say what is wrong with an image.",
 *	};
 *
 *	int cmd_check(int argc, char **argv)
 *	{
 *		struct check_args a = { 0 };
 *		char **args = cli_parse(&argp, argc, argv, &a, 1, 1);
 *		AUTO_DISK struct vdisk *disk = NULL;
 *
 *		if (cli_open(&disk, args[0], 0) < 0)
 *			return CLI_FAILED;
 *		...
 *	}
 *
 * A parser gets `a` as state->input, and answers ARGP_ERR_UNKNOWN to what is
 * not its own.  Its options win over shared ones of the same name.
 *
 * Messages go to stderr and data to stdout.  Whoever finds an error prints it,
 * once, and what it returns is only an exit status from there on.
 */
#ifndef CLI_H
#define CLI_H

#include <argp.h>
#include <jansson.h>
#include <libsmartcols.h>

#include "core/compiler.h"
#include "vdisk.h"

enum cli_status {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_DIFFERENT = 3,	/* found different or damaged */
};

#define CLI_WITH_MAX 16

/* The shared options, as given. */
struct cli {
	const char *name;	/* "vdisk check", for messages about usage */
	bool json;
	bool quiet;
	bool yes;
	bool progress;		/* plain lines, also without a terminal */
	bool share;		/* --force-share */
	const char *format;	/* NULL: probe */
	enum vdisk_refs refs;
	uint32_t block_size;	/* logical block of the disk, 0: what it says */
	/* a disk that is on top of another, though its image does not say so: whoever
	 * opens this locator gets that one below it */
	struct {
		const char *locator, *backing, *backing_format;
	} overlay;
	/* a name that nobody gave, and what messages have instead (NULL: none) */
	struct {
		const char *name, *shown;
	} alias;
	/* --with: other disks of the machine */
	const char *with[CLI_WITH_MAX];
	unsigned n_with;
};
extern struct cli cli;

/* ---- arguments ---- */

/* -h -q -y --json --progress */
extern const struct argp_child cli_common[];
/* those, and for commands that open a disk: -f/--format --refs -U/--force-share */
extern const struct argp_child cli_disk[];

/*
 * Parse the options; what is left, @min to @max of it (-1: any number), is
 * returned as a NULL-terminated list.  Wrong usage ends the program.
 */
char **cli_parse(const struct argp *argp, int argc, char **argv, void *input, int min, int max);

/* "vdisk check: MESSAGE", a hint at --help, and exit 2. */
void cli_usage(const char *fmt, ...) PRINTF_FMT(1, 2) NORETURN;

/* Bytes with K, M, G, T, P (binary); wrong ones are wrong usage. */
uint64_t cli_size(const char *what, const char *text);
/* "[+|-]SIZE" of something that has @size now. */
uint64_t cli_new_size(uint64_t size, const char *text);
/* A decimal number between @min and @max, likewise. */
unsigned long cli_number(const char *what, const char *text, unsigned long min, unsigned long max);

/* "-o K=V,K=V": fills an array that grows; a comma in a value is written ",,". */
struct cli_options {
	struct vdisk_option *list;
	unsigned n;
};
void cli_add_options(struct cli_options *o, const char *text);
void cli_free_option(struct vdisk_option *o);
/* A usage error if a format has no such option. */
void cli_check_options(const struct cli_options *o, const char *format);
void cli_free_options(struct cli_options *o);

/* ---- messages ---- */

/* "vdisk: MESSAGE" on stderr */
void cli_error(const char *fmt, ...) PRINTF_FMT(1, 2);
/* The same unless -q. */
void cli_note(const char *fmt, ...) PRINTF_FMT(1, 2);
/* Print @err; CLI_FAILED */
int cli_fail(const struct vdisk_error *err);

/*
 * Ask whether to go on, for what destroys data.  -y says yes; without a
 * terminal to ask on the answer is no, and a message says so.
 */
bool cli_confirm(const char *fmt, ...) PRINTF_FMT(1, 2);

/* ---- disks ---- */

/*
 * Open a locator with the shared options and @flags (enum vdisk_open_flags).
 * On failure the error has been printed.
 */
int cli_open(struct vdisk **out, const char *locator, uint32_t flags);
/* The same with a format of its own instead of --format. */
int cli_open_format(struct vdisk **out, const char *locator, const char *format, uint32_t flags);
/*
 * Open the disks of --with into @list, with @flags as the one that they go with, as
 * vdisk_open_opts takes them; 0 or -errno.  cli_with_close() when that is open.
 */
int cli_with_open(struct vdisk *list[CLI_WITH_MAX], unsigned *n, uint32_t flags,
		  struct vdisk_error *err);
void cli_with_close(struct vdisk *list[CLI_WITH_MAX], unsigned n);
/* Close and clear; prints what goes wrong.  CLI_OK or CLI_FAILED. */
int cli_close(struct vdisk **disk);
void cli_auto_disk(struct vdisk **disk);
#define AUTO_DISK __attribute__((cleanup(cli_auto_disk)))

/* ---- images ---- */

/* What the end of a file's name says: "qcow2", ...; else "raw". */
const char *cli_format_of_name(const char *path);
/* Print the "-o" options of a format. */
int cli_list_options(const char *format);
/* Does nothing of worth stand there, or may it go? */
bool cli_may_overwrite(const char *path);
/* Look for the format of a backing file that @image will refer to as @backing. */
int cli_backing_format(char out[32], const char *image, const char *backing);
json_t *cli_snapshot_json(const struct vdisk_snapshot *s);

/* ---- output ---- */

/* "1.5 GiB"; plain bytes below 1 KiB.  @buf is returned. */
const char *cli_human(char buf[32], uint64_t bytes);

/* Print JSON on stdout and drop the reference.  CLI_OK or CLI_FAILED. */
int cli_print_json(json_t *json);

/* A table for libsmartcols, plain or (--json) as JSON under @name. */
struct libscols_table *cli_table(const char *name);
/* Print and free it. */
int cli_print_table(struct libscols_table *table);

/*
 * A line with percentage, rate and remaining time: on a terminal once a second
 * has passed, or plain lines with --progress.  One thread at a time.
 */
struct cli_progress {
	const char *what;
	uint64_t total, done;
	uint64_t start_ns, shown_ns;
	bool wanted, drawn;
};
void cli_progress_start(struct cli_progress *p, const char *what, uint64_t total);
void cli_progress_set(struct cli_progress *p, uint64_t done);
void cli_progress_end(struct cli_progress *p);
/* As a callback of the library: @arg is the struct cli_progress. */
int cli_progress_cb(void *arg, uint64_t done, uint64_t total);

/* ---- interruption ---- */

/* Have @path removed if a signal ends the program (SIGINT, SIGTERM, SIGHUP). */
void cli_temp_add(const char *path);
/* It is no longer ours to remove. */
void cli_temp_forget(const char *path);

/* ---- other programs ---- */

/*
 * The path of a program of this package, to be freed: beside this one, as in
 * a build directory, else where it is installed.  Prints what goes wrong.
 */
int cli_sibling(char **out, const char *name);

/* ---- exports ---- */

/* Serve a disk as the file @file until it is unmounted or a signal comes. */
int cli_export_fuse(const char *file, const char *locator, bool read_only);

/* ---- the commands ---- */

struct cli_command {
	const char *name;	/* NULL: @help is the title of a group */
	int (*run)(int argc, char **argv);
	const char *help;
};

/* A command that is a family of commands: "vdisk part init", ... */
struct cli_family {
	const char *name;
	const char *synopsis;	/* what follows the name, for the usage */
	const struct cli_command *commands;
	size_t count;
};
/* Run the one that argv[1] names, or print which there are.  An exit status. */
int cli_run_family(const struct cli_family *family, int argc, char **argv);

#endif
