/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ls.c - ls, cat, stat: looking at files in a disk */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/files.h"

/* ---- ls ---- */

struct ls_args {
	bool details, recursive;
};

struct ls_entry {
	char *name;		/* owned */
	char *target;		/* owned; of a symbolic link */
	struct vdisk_stat st;
};

struct ls_list {
	struct ls_entry *v;	/* owned */
	size_t n, room;
	struct vdisk_fs *fs;
	const char *dir;
};

static const struct argp_option ls_options[] = {
	{ "long", 'l', NULL, 0, "Mode, owner, size and time too", 0 },
	{ "recursive", 'R', NULL, 0, "The directories below too", 0 },
	{ 0 },
};

static error_t ls_parse(int key, char *arg UNUSED, struct argp_state *state)
{
	struct ls_args *a = state->input;

	switch (key) {
	case 'l':
		a->details = true;
		return 0;
	case 'R':
		a->recursive = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* Control characters in a name must not reach a terminal. */
static void print_name(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 32 || *s == 127)
			printf("\\%03o", (unsigned char)*s);
		else
			putchar(*s);
}

static int ls_add(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct ls_list *l = arg;
	char target[4096];

	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct ls_entry *v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->n] = (struct ls_entry) { .name = strdup(name), .st = *st };
	if (S_ISLNK(st->mode)) {
		AUTO_FREE char *path = cli_join(l->dir, name);

		if (path && vdisk_fs_readlink(l->fs, path, target, sizeof(target), NULL) == 0)
			l->v[l->n].target = strdup(target);
	}
	return l->v[l->n++].name ? 0 : -ENOMEM;
}

static int ls_by_name(const void *a, const void *b)
{
	return strcmp(((const struct ls_entry *)a)->name, ((const struct ls_entry *)b)->name);
}

static void ls_print(const struct ls_entry *e, bool details)
{
	char mode[11], when[32], size[32];
	struct tm tm;

	if (details) {
		localtime_r(&e->st.mtime.tv_sec, &tm);
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
		if (S_ISCHR(e->st.mode) || S_ISBLK(e->st.mode))
			snprintf(size, sizeof(size), "%u, %u", e->st.rdev_major, e->st.rdev_minor);
		else
			snprintf(size, sizeof(size), "%llu", (unsigned long long)e->st.size);
		printf("%s %3u %5u %5u %10s %s ", cli_mode_string(mode, e->st.mode), e->st.nlink,
		       e->st.uid, e->st.gid, size, when);
	}
	print_name(e->name);
	if (details && e->target) {
		fputs(" -> ", stdout);
		print_name(e->target);
	}
	putchar('\n');
}

static void ls_free(struct ls_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].name);
		free(l->v[i].target);
	}
	free(l->v);
}

static int ls_dir(struct vdisk_fs *fs, const char *path, const struct ls_args *a, json_t *json,
		  unsigned depth)
{
	struct ls_list l = { .fs = fs, .dir = path };
	struct vdisk_error err = { 0 };
	int status = CLI_OK;

	if (vdisk_fs_list(fs, path, ls_add, &l, &err) < 0) {
		if (!err.code)
			snprintf(err.msg, sizeof(err.msg), "out of memory");
		status = cli_fail(&err);
	}
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), ls_by_name);
	if (a->recursive && !json)
		printf("%s%s:\n", depth ? "\n" : "", path);
	for (size_t i = 0; i < l.n; i++) {
		AUTO_FREE char *full = a->recursive ? cli_join(path, l.v[i].name) : NULL;

		if (json)
			json_array_append_new(json, cli_stat_json(full ? full : l.v[i].name,
								  &l.v[i].st, l.v[i].target));
		else
			ls_print(&l.v[i], a->details);
	}
	for (size_t i = 0; a->recursive && depth < 1000 && i < l.n && status == CLI_OK; i++) {
		AUTO_FREE char *full = cli_join(path, l.v[i].name);

		if (full && S_ISDIR(l.v[i].st.mode))
			status = ls_dir(fs, full, a, json, depth + 1);
	}
	ls_free(&l);
	return status;
}

static int ls_path(struct cli_file *f, const struct ls_args *a, json_t *json)
{
	struct ls_list l = { .fs = f->fs, .dir = "" };
	struct vdisk_error err = { 0 };
	struct vdisk_stat st;
	size_t len = strlen(f->path);
	bool follow = !a->details || (len && f->path[len - 1] == '/');

	if (vdisk_fs_stat(f->fs, f->path, !follow, &st, &err) < 0 &&
	    (!follow || vdisk_fs_stat(f->fs, f->path, true, &st, &err) < 0))
		return cli_fail(&err);
	if (S_ISDIR(st.mode))
		return ls_dir(f->fs, f->path, a, json, 0);
	if (ls_add(&l, f->path, &st) == 0) {
		if (json)
			json_array_append_new(json, cli_stat_json(f->path, &st, l.v[0].target));
		else
			ls_print(&l.v[0], a->details);
	}
	ls_free(&l);
	return CLI_OK;
}

int cmd_ls(int argc, char **argv)
{
	static const struct argp argp = {
		.options = ls_options, .parser = ls_parse, .children = cli_disk,
		.args_doc = "DISK:PATH",
		.doc = "List a directory inside a disk.",
	};
	struct ls_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, 1);
	AUTO_FILE struct cli_file f = { 0 };
	json_t *json = cli.json ? json_array() : NULL;
	int status = cli_file_open(&f, args[0], false);

	if (status == CLI_OK)
		status = ls_path(&f, &a, json);
	if (json && status == CLI_OK)
		status = cli_print_json(json);
	else
		json_decref(json);
	return cli_files_close(status);
}

/* What several files are given to: until it fails */
static int for_each_file(char **names, int (*each)(struct cli_file *f))
{
	int status = CLI_OK;

	for (; *names && status == CLI_OK; names++) {
		AUTO_FILE struct cli_file f = { 0 };

		status = cli_file_open(&f, *names, false);
		if (status == CLI_OK)
			status = each(&f);
	}
	return cli_files_close(status);
}

/* ---- cat ---- */

static int cat(struct cli_file *f)
{
	static uint8_t buf[1 << 20];
	struct vdisk_error err = { 0 };
	struct vdisk_file *file;
	uint64_t off = 0;
	ssize_t n;

	if (vdisk_file_open(&file, f->fs, f->path, 0, 0, &err) < 0)
		return cli_fail(&err);
	while ((n = vdisk_file_read(file, buf, sizeof(buf), off, &err)) > 0) {
		if (fwrite(buf, 1, (size_t)n, stdout) < (size_t)n)
			break;	/* main.c tells */
		off += (uint64_t)n;
	}
	vdisk_file_close(file, NULL);
	if (n < 0)
		return cli_fail(&err);
	return CLI_OK;
}

int cmd_cat(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK:PATH...",
		.doc = "Write files inside a disk to standard output.",
	};

	return for_each_file(cli_parse(&argp, argc, argv, NULL, 1, -1), cat);
}

/* ---- stat ---- */

static void print_time(const char *what, struct timespec t)
{
	char when[40];
	struct tm tm;

	localtime_r(&t.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%-9s %s.%09ld\n", what, when, t.tv_nsec);
}

static int stat_xattrs(struct cli_file *f, json_t *json)
{
	char names[65536];
	struct vdisk_error err = { 0 };
	ssize_t n = vdisk_fs_listxattr(f->fs, f->path, names, sizeof(names), &err), len;

	if (n < 0)
		return cli_fail(&err);
	for (char *p = names; p < names + n; p += strlen(p) + 1) {
		len = vdisk_fs_getxattr(f->fs, f->path, p, NULL, 0, &err);
		if (len < 0)
			return cli_fail(&err);
		if (json)
			json_object_set_new(json, p, json_integer(len));
		else
			printf("%-9s %s (%zd bytes)\n", p == names ? "xattrs" : "", p, len);
	}
	return CLI_OK;
}

static int print_stat(struct cli_file *f)
{
	struct vdisk_error err = { 0 };
	struct vdisk_stat st;
	char target[4096] = "", mode[11];
	json_t *json, *xattrs;

	if (vdisk_fs_stat(f->fs, f->path, true, &st, &err) < 0)
		return cli_fail(&err);
	if (S_ISLNK(st.mode) &&
	    vdisk_fs_readlink(f->fs, f->path, target, sizeof(target), &err) < 0)
		return cli_fail(&err);
	if (cli.json) {
		json = cli_stat_json(f->path, &st, *target ? target : NULL);
		xattrs = json_object();
		json_object_set_new(json, "xattrs", xattrs);
		if (stat_xattrs(f, xattrs) != CLI_OK) {
			json_decref(json);
			return CLI_FAILED;
		}
		return cli_print_json(json);
	}
	printf("%-9s ", "file");
	print_name(f->path);
	if (*target) {
		fputs(" -> ", stdout);
		print_name(target);
	}
	printf("\n%-9s %s (%04o)\n", "mode", cli_mode_string(mode, st.mode), st.mode & 07777);
	printf("%-9s %u:%u\n", "owner", st.uid, st.gid);
	if (S_ISCHR(st.mode) || S_ISBLK(st.mode))
		printf("%-9s %u:%u\n", "device", st.rdev_major, st.rdev_minor);
	printf("%-9s %llu (%llu allocated)\n", "size", (unsigned long long)st.size,
	       (unsigned long long)st.allocated);
	printf("%-9s %llu\n%-9s %u\n", "inode", (unsigned long long)st.ino, "links", st.nlink);
	print_time("modified", st.mtime);
	print_time("accessed", st.atime);
	print_time("changed", st.ctime);
	print_time("created", st.crtime);
	return stat_xattrs(f, NULL);
}

int cmd_stat(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK:PATH...",
		.doc = "Print the attributes of files inside a disk.",
	};

	return for_each_file(cli_parse(&argp, argc, argv, NULL, 1, -1), print_stat);
}
