/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* common.c - shared options, messages, progress and output of the commands */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "vmm-lite/words.h"

struct cli cli = { .name = "vdisk" };

/* ---- arguments ---- */

enum { OPT_JSON = 0x10000, OPT_PROGRESS, OPT_REFS, OPT_SECTOR, OPT_WITH };

static const struct argp_option common_options[] = {
	{ "help", 'h', NULL, 0, "Show this help", -1 },
	{ "json", OPT_JSON, NULL, 0, "Print data as JSON", -1 },
	{ "quiet", 'q', NULL, 0, "Say only what went wrong", -1 },
	{ "yes", 'y', NULL, 0, "Do not ask, the answer is yes", -1 },
	{ "progress", OPT_PROGRESS, NULL, 0, "Show progress as plain lines", -1 },
	{ 0 },
};

static error_t parse_common(int key, char *arg UNUSED, struct argp_state *state)
{
	switch (key) {
	case 'h':
		argp_state_help(state, state->out_stream, ARGP_HELP_STD_HELP);
		return 0;
	case 'q':
		cli.quiet = true;
		return 0;
	case 'y':
		cli.yes = true;
		return 0;
	case OPT_JSON:
		cli.json = true;
		return 0;
	case OPT_PROGRESS:
		cli.progress = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp common_argp = { .options = common_options, .parser = parse_common };

const struct argp_child cli_common[] = {
	{ &common_argp, 0, NULL, 0 },
	{ 0 },
};

static const struct argp_option disk_options[] = {
	{ "format", 'f', "FMT", 0, "The image's format, instead of looking for it", -2 },
	{ "refs", OPT_REFS, "none|dir|any", 0,
	  "Which other files an image may name: none, those below its directory, or any; "
	  "by default those below its directory and absolute paths of files and block devices", -2 },
	{ "force-share", 'U', NULL, 0,
	  "Read although another program may be writing: what is read may be inconsistent", -2 },
	{ "sector-size", OPT_SECTOR, "512|4096", 0,
	  "The sectors that the guest sees, where the disk does not tell: for partition tables", -2 },
	{ "with", OPT_WITH, "DISK", 0,
	  "Another disk of the same machine, which has a part of its LVM volume groups", -2 },
	{ 0 },
};

static error_t parse_disk(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'f':
		cli.format = arg;
		return 0;
	case 'U':
		cli.share = true;
		return 0;
	case OPT_WITH:
		if (cli.n_with == CLI_WITH_MAX)
			argp_error(state, "--with: at most %u disks", CLI_WITH_MAX);
		cli.with[cli.n_with++] = arg;
		return 0;
	case OPT_SECTOR:
		if (strcmp(arg, "512") != 0 && strcmp(arg, "4096") != 0)
			argp_error(state, "--sector-size is 512 or 4096, not '%s'", arg);
		cli.block_size = (uint32_t)strtoul(arg, NULL, 10);
		return 0;
	case OPT_REFS:
		if (words_refs(arg, &cli.refs) < 0)
			argp_error(state, "--refs is " words_refs_help ", not '%s'", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp disk_argp = { .options = disk_options, .parser = parse_disk };

const struct argp_child cli_disk[] = {
	{ &disk_argp, 0, NULL, 0 },
	{ &common_argp, 0, NULL, 0 },
	{ 0 },
};

char **cli_parse(const struct argp *argp, int argc, char **argv, void *input, int min, int max)
{
	static char name[64];
	int first = argc;

	snprintf(name, sizeof(name), "vdisk %s", argv[0]);
	cli.name = argv[0] = name;
	argp_err_exit_status = CLI_USAGE;
	if (argp_parse(argp, argc, argv, ARGP_NO_HELP, &first, input))
		exit(CLI_USAGE);
	if (argc - first < min)
		cli_usage("too few arguments");
	if (max >= 0 && argc - first > max)
		cli_usage("too many arguments: '%s'", argv[first + max]);
	return argv + first;
}

void cli_usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", cli.name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry '%s --help'.\n", cli.name);
	exit(CLI_USAGE);
}

uint64_t cli_size(const char *what, const char *text)
{
	uint64_t size;

	if (vdisk_parse_size(text, &size) < 0)
		cli_usage("%s: '%s' is not a size (bytes, or a number with K, M, G or T)",
			  what, text);
	return size;
}

uint64_t cli_new_size(uint64_t size, const char *text)
{
	uint64_t n = cli_size("SIZE", text + strspn(text, "+-"));

	if (*text == '+') {
		if (!vd_add(size, n, &size))
			cli_usage("SIZE: %s is too much", text);
		return size;
	}
	if (*text == '-') {
		if (n > size)
			cli_usage("SIZE: the disk has only %llu bytes", (unsigned long long)size);
		return size - n;
	}
	return n;
}

unsigned long cli_number(const char *what, const char *text, unsigned long min, unsigned long max)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || n < min || n > max)
		cli_usage("%s: '%s' is not a number from %lu to %lu", what, text, min, max);
	return n;
}

static void add_option(struct cli_options *o, char *item)
{
	char *eq = strchr(item, '=');
	struct vdisk_option *list;

	if (eq)
		*eq = '\0';
	if (!*item)
		cli_usage("-o takes KEY=VALUE");
	list = reallocarray(o->list, o->n + 1, sizeof(*list));
	if (!list)
		cli_usage("out of memory");
	o->list = list;
	/* As with qemu-img, a key alone turns something on. */
	list[o->n++] = (struct vdisk_option) { .key = item, .value = eq ? eq + 1 : "on" };
}

void cli_add_options(struct cli_options *o, const char *text)
{
	while (*text) {
		char *item = malloc(strlen(text) + 1), *p = item;

		if (!item)
			cli_usage("out of memory");
		while (*text && (*text != ',' || text[1] == ',')) {
			if (*text == ',')
				text++;
			*p++ = *text++;
		}
		*p = '\0';
		if (*text == ',')
			text++;
		add_option(o, item);
	}
}

void cli_free_option(struct vdisk_option *o)
{
	free((void *)(uintptr_t)o->key);	/* the value is behind it */
}

static bool has_option(const char *format, const char *key)
{
	const char *option;
	size_t len = strlen(key);

	for (unsigned i = 0; (option = vdisk_format_option(format, i)); i++)
		if (!strncmp(option, key, len) && option[len] == '\t')
			return true;
	return false;
}

void cli_check_options(const struct cli_options *o, const char *format)
{
	for (unsigned i = 0; i < o->n; i++)
		if (!has_option(format, o->list[i].key))
			cli_usage("%s has no option '%s'; '-o help' lists them", format,
				  o->list[i].key);
}

void cli_free_options(struct cli_options *o)
{
	for (unsigned i = 0; i < o->n; i++)
		cli_free_option(&o->list[i]);
	free(o->list);
	*o = (struct cli_options) { 0 };
}

/* ---- messages ---- */

/* @text, or a new one instead of it, with the person's name for what has another one here. */
static char *without_alias(char *text)
{
	const char *at = cli.alias.name ? strstr(text, cli.alias.name) : NULL;
	char *better;

	if (!at || asprintf(&better, "%.*s%s%s", (int)(at - text), text, cli.alias.shown,
			    at + strlen(cli.alias.name)) < 0)
		return text;
	free(text);
	return better;
}

PRINTF_FMT(1, 0)
static void print_message(const char *fmt, va_list ap)
{
	AUTO_FREE char *text = NULL;

	fflush(stdout);
	if (vasprintf(&text, fmt, ap) < 0) {
		text = NULL;
		return;
	}
	text = without_alias(text);
	vdisk_redact(text);
	fprintf(stderr, "vdisk: %s\n", text);
}

void cli_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_message(fmt, ap);
	va_end(ap);
}

void cli_note(const char *fmt, ...)
{
	va_list ap;

	if (cli.quiet)
		return;
	va_start(ap, fmt);
	print_message(fmt, ap);
	va_end(ap);
}

int cli_fail(const struct vdisk_error *err)
{
	cli_error("%s", err->msg[0] ? err->msg : strerror(err->code));
	return CLI_FAILED;
}

bool cli_confirm(const char *fmt, ...)
{
	char question[512], answer[16];
	va_list ap;

	if (cli.yes)
		return true;
	va_start(ap, fmt);
	vsnprintf(question, sizeof(question), fmt, ap);
	va_end(ap);
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
		cli_error("%s: not without -y, as there is no terminal to ask on", question);
		return false;
	}
	fprintf(stderr, "vdisk: %s; go on? [y/N] ", question);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return true;
	cli_error("nothing was changed");
	return false;
}

/* ---- disks ---- */

int cli_with_open(struct vdisk *list[CLI_WITH_MAX], unsigned *n, uint32_t flags,
		  struct vdisk_error *err)
{
	static bool before;
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = flags, .refs = cli.refs,
		.block_size = cli.block_size,
	};
	int r = 0;

	*n = 0;
	for (unsigned i = 0; r == 0 && i < cli.n_with; i++) {
		r = vdisk_open(&list[*n], cli.with[i], &opts, err);
		/* the other disk of this command may have it: "convert a#vg/lv out" */
		if (r == -EBUSY && before && flags & VDISK_OPEN_WRITE) {
			opts.flags &= ~(uint32_t)VDISK_OPEN_WRITE;
			r = vdisk_open(&list[*n], cli.with[i], &opts, err);
			opts.flags = flags;
		}
		*n += r == 0;
	}
	if (r < 0)
		cli_with_close(list, *n);
	before = true;
	return r;
}

void cli_with_close(struct vdisk *list[CLI_WITH_MAX], unsigned n)
{
	while (n)
		vdisk_close(list[--n], NULL);
}

int cli_open_format(struct vdisk **out, const char *locator, const char *format, uint32_t flags)
{
	struct vdisk_error err = { 0 };
	struct vdisk_open_opts opts = {
		.size = sizeof(opts),
		.flags = flags,
		.refs = cli.refs,
		.format = format,
		.block_size = cli.block_size,
	};
	struct vdisk *with[CLI_WITH_MAX];
	int r;

	if (cli.share && !(flags & VDISK_OPEN_WRITE))
		opts.flags |= VDISK_OPEN_SHARE;
	if (cli.overlay.locator && !strcmp(locator, cli.overlay.locator) &&
	    !(flags & VDISK_OPEN_NO_BACKING)) {
		opts.backing = cli.overlay.backing;
		opts.backing_format = cli.overlay.backing_format;
	}
	r = cli_with_open(with, &opts.n_with, opts.flags, &err);
	if (r == 0) {
		opts.with = with;
		r = vdisk_open(out, locator, &opts, &err);
		cli_with_close(with, opts.n_with);
	}
	if (r < 0)
		cli_fail(&err);
	return r;
}

int cli_open(struct vdisk **out, const char *locator, uint32_t flags)
{
	if (cli.share && flags & VDISK_OPEN_WRITE)
		cli_usage("--force-share is only for reading");
	return cli_open_format(out, locator, cli.format, flags);
}

int cli_close(struct vdisk **disk)
{
	struct vdisk_error err = { 0 };
	struct vdisk *d = *disk;

	*disk = NULL;
	if (vdisk_close(d, &err) < 0)
		return cli_fail(&err);
	return CLI_OK;
}

void cli_auto_disk(struct vdisk **disk)
{
	cli_close(disk);
}

/* ---- output ---- */

const char *cli_human(char buf[32], uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	double v = (double)bytes;
	int u = -1;

	while (v >= 1024 && u < (int)sizeof(units) - 2) {
		v /= 1024;
		u++;
	}
	if (u < 0)
		snprintf(buf, 32, "%" PRIu64 " B", bytes);
	else
		snprintf(buf, 32, "%.3g %ciB", v, units[u]);
	return buf;
}

int cli_print_json(json_t *json)
{
	int r;

	if (!json) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	r = json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
	putchar('\n');
	json_decref(json);
	return r ? CLI_FAILED : CLI_OK;
}

struct libscols_table *cli_table(const char *name)
{
	struct libscols_table *t = scols_new_table();

	if (!t)
		return NULL;
	scols_table_set_name(t, name);
	scols_table_enable_json(t, cli.json);
	if (!isatty(STDOUT_FILENO))
		scols_table_set_termforce(t, SCOLS_TERMFORCE_NEVER);
	return t;
}

int cli_print_table(struct libscols_table *table)
{
	int r = table ? scols_print_table(table) : -ENOMEM;

	scols_unref_table(table);
	if (r < 0)
		cli_error("cannot print the table: %s", strerror(-r));
	return r < 0 ? CLI_FAILED : CLI_OK;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void cli_progress_start(struct cli_progress *p, const char *what, uint64_t total)
{
	*p = (struct cli_progress) { .what = what, .total = total, .start_ns = now_ns() };
	p->shown_ns = p->start_ns;
	p->wanted = !cli.quiet && (cli.progress || isatty(STDERR_FILENO));
}

static void draw_progress(struct cli_progress *p, uint64_t now)
{
	double seconds = (double)(now - p->start_ns) / 1e9;
	double rate = seconds > 0 ? (double)p->done / seconds : 0;
	double percent = p->total ? 100.0 * (double)p->done / (double)p->total : 100;
	char human[32];
	unsigned long left = rate > 0 ? (unsigned long)((double)(p->total - p->done) / rate) : 0;

	fprintf(stderr, "%s%s: %5.1f %%  %s/s  %lu:%02lu left%s", cli.progress ? "" : "\r",
		p->what, percent, cli_human(human, (uint64_t)rate), left / 60, left % 60,
		cli.progress ? "\n" : "\033[K");
	fflush(stderr);
	p->drawn = true;
	p->shown_ns = now;
}

void cli_progress_set(struct cli_progress *p, uint64_t done)
{
	uint64_t now, every = cli.progress ? 500000000 : p->drawn ? 200000000 : 1000000000;

	p->done = done < p->total ? done : p->total;
	if (!p->wanted)
		return;
	now = now_ns();
	if (now - p->shown_ns >= every)
		draw_progress(p, now);
}

void cli_progress_end(struct cli_progress *p)
{
	if (cli.quiet)
		return;
	if (cli.progress) {
		p->done = p->total;
		draw_progress(p, now_ns());
	} else if (p->drawn) {
		fputs("\r\033[K", stderr);
	}
}

int cli_progress_cb(void *arg, uint64_t done, uint64_t total)
{
	struct cli_progress *p = arg;

	p->total = total;
	cli_progress_set(p, done);
	return 0;
}

/* ---- interruption ---- */

static char *volatile temps[8];

static void on_signal(int sig)
{
	for (size_t i = 0; i < ARRAY_SIZE(temps); i++) {
		if (temps[i])
			unlink(temps[i]);
	}
	/* SA_RESETHAND: this time the default action ends us, with the right status */
	raise(sig);
}

void cli_temp_add(const char *path)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	for (size_t i = 0; i < ARRAY_SIZE(temps); i++) {
		if (!temps[i]) {
			temps[i] = strdup(path);
			break;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
}

void cli_temp_forget(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(temps); i++) {
		char *temp = temps[i];

		if (temp && !strcmp(temp, path)) {
			temps[i] = NULL;
			free(temp);
		}
	}
}

/* ---- families of commands ---- */

static void print_family(const struct cli_family *family, FILE *out)
{
	int width = 10;

	for (size_t i = 0; i < family->count; i++)
		width = MAX(width, (int)strlen(family->commands[i].name));
	fprintf(out, "Usage: vdisk %s %s\n", family->name, family->synopsis);
	for (size_t i = 0; i < family->count; i++)
		fprintf(out, "  %-*s %s\n", width, family->commands[i].name, family->commands[i].help);
}

int cli_run_family(const struct cli_family *family, int argc, char **argv)
{
	static char name[32];

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		print_family(family, stdout);
		return CLI_OK;
	}
	for (size_t i = 0; argc > 1 && i < family->count; i++) {
		if (strcmp(argv[1], family->commands[i].name) != 0)
			continue;
		snprintf(name, sizeof(name), "%s %s", family->name, argv[1]);
		argv[1] = name;
		return family->commands[i].run(argc - 1, argv + 1);
	}
	if (argc > 1)
		cli_error("there is no command '%s %s'", family->name, argv[1]);
	print_family(family, stderr);
	return CLI_USAGE;
}
