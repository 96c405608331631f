/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* names.c - mkdir, rm, mv, ln, chmod, chown: changing files in a disk */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/files.h"

struct names_args {
	bool parents, recursive, force, symbolic, nofollow;
	const char *mode;
};

static error_t parse_names(int key, char *arg, struct argp_state *state)
{
	struct names_args *a = state->input;

	switch (key) {
	case 'p':
		a->parents = true;
		return 0;
	case 'm':
		a->mode = arg;
		return 0;
	case 'r':
	case 'R':
		a->recursive = true;
		return 0;
	case 'f':
		a->force = true;
		return 0;
	case 's':
		a->symbolic = true;
		return 0;
	case 'n':
		a->nofollow = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* Run @fn for each DISK:PATH, all of them open for writing. */
static int for_each(char **args, const struct names_args *a,
		    int (*fn)(struct cli_file *f, const struct names_args *a))
{
	int status = CLI_OK;

	for (; *args && status == CLI_OK; args++) {
		AUTO_FILE struct cli_file f = { 0 };

		status = cli_file_open(&f, *args, true);
		if (status == CLI_OK)
			status = fn(&f, a);
	}
	return cli_files_close(status);
}

/* ---- modes ---- */

/* One clause of a symbolic mode, "u+rwx"; NULL if it is none. */
static const char *mode_clause(const char *p, uint32_t *mode, bool is_dir)
{
	uint32_t who = 0, bits = 0, mask;
	char op;

	for (; strchr("ugoa", *p) && *p; p++)
		who |= *p == 'u' ? 04700 : *p == 'g' ? 02070 : *p == 'o' ? 01007 : 07777;
	if (!who)
		who = 07777;
	if (!*p || !strchr("+-=", *p))
		return NULL;
	op = *p++;
	for (; *p && strchr("rwxXst", *p); p++) {
		switch (*p) {
		case 'r': bits |= 0444; break;
		case 'w': bits |= 0222; break;
		case 'x': bits |= 0111; break;
		case 'X': bits |= is_dir || (*mode & 0111) ? 0111 : 0; break;
		case 's': bits |= 06000; break;
		case 't': bits |= 01000; break;
		}
	}
	if (*p && *p != ',')
		return NULL;
	mask = bits & who;
	if (op == '+')
		*mode |= mask;
	else if (op == '-')
		*mode &= ~mask;
	else
		*mode = (*mode & ~who) | mask;
	return *p ? p + 1 : p;
}

static bool mode_apply(const char *text, uint32_t *mode, bool is_dir)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	if (*text >= '0' && *text <= '7' && !*end && v <= 07777) {
		*mode = (uint32_t)v;
		return true;
	}
	*mode &= 07777;
	do {
		text = mode_clause(text, mode, is_dir);
	} while (text && *text);
	return text;
}

static void mode_check(const char *text)
{
	uint32_t mode = 0;

	if (!mode_apply(text, &mode, false))
		cli_usage("'%s' is not a mode", text);
}

static int chmod_one(void *arg, struct vdisk_fs *fs, const char *path, const struct vdisk_stat *st)
{
	const struct names_args *a = arg;
	struct vdisk_error err = { 0 };
	uint32_t mode = st->mode;

	if (S_ISLNK(st->mode) && a->recursive)
		return CLI_OK;
	mode_apply(a->mode, &mode, S_ISDIR(st->mode));
	return vdisk_fs_chmod(fs, path, mode, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

static int chmod_path(struct cli_file *f, const struct names_args *a)
{
	struct names_args copy = *a;

	return cli_walk(f->fs, f->path, a->recursive, chmod_one, &copy);
}

int cmd_chmod(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "recursive", 'R', NULL, 0, "What is below a directory too", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_names, .children = cli_disk,
		.args_doc = "MODE DISK:PATH...",
		.doc = "Change the permissions of files inside a disk; MODE is octal or symbolic (u+x).",
	};
	struct names_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 2, -1);

	a.mode = args[0];
	mode_check(a.mode);
	return for_each(args + 1, &a, chmod_path);
}

/* ---- chown ---- */

/* The id of a name in the guest's /etc/passwd or /etc/group: NAME:x:ID: */
static int guest_id(struct vdisk_fs *fs, const char *file, const char *name, uint32_t *id)
{
	AUTO_FREE void *data = NULL;
	struct vdisk_error err = { 0 };
	size_t len, n = strlen(name);
	char *end, *line, *save = NULL;
	unsigned long v = strtoul(name, &end, 10);

	if (*name >= '0' && *name <= '9' && !*end && v < UINT32_MAX) {
		*id = (uint32_t)v;
		return CLI_OK;
	}
	if (vdisk_fs_load(fs, file, 16 << 20, &data, &len, &err) < 0)
		return cli_fail(&err);
	for (line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *p = line + n;

		if (strncmp(line, name, n) != 0 || *p != ':' || !(p = strchr(p + 1, ':')))
			continue;
		v = strtoul(p + 1, &end, 10);
		if (end != p + 1 && *end == ':' && v < UINT32_MAX) {
			*id = (uint32_t)v;
			return CLI_OK;
		}
	}
	cli_error("%s: no '%s' in it", file, name);
	return CLI_FAILED;
}

struct chown_ctx {
	uint32_t uid, gid;
	bool nofollow;
};

static int chown_one(void *arg, struct vdisk_fs *fs, const char *path, const struct vdisk_stat *st)
{
	const struct chown_ctx *c = arg;
	struct vdisk_error err = { 0 };

	(void)st;
	return vdisk_fs_chown(fs, path, c->uid, c->gid, c->nofollow, &err) < 0 ? cli_fail(&err) :
	       CLI_OK;
}

static int chown_path(struct cli_file *f, const struct names_args *a)
{
	struct chown_ctx c = { UINT32_MAX, UINT32_MAX, a->nofollow || a->recursive };
	AUTO_FREE char *user = strdup(a->mode);
	char *group = user ? strchr(user, ':') : NULL;
	int r = CLI_OK;

	if (group)
		*group++ = '\0';
	if (user && *user)
		r = guest_id(f->fs, "/etc/passwd", user, &c.uid);
	if (r == CLI_OK && group && *group)
		r = guest_id(f->fs, "/etc/group", group, &c.gid);
	return r == CLI_OK ? cli_walk(f->fs, f->path, a->recursive, chown_one, &c) : r;
}

int cmd_chown(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "recursive", 'R', NULL, 0, "What is below a directory too", 0 },
		{ "no-dereference", 'n', NULL, 0, "A symbolic link itself, not what it names", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_names, .children = cli_disk,
		.args_doc = "[USER][:GROUP] DISK:PATH...",
		.doc = "Change the owner of files inside a disk; names are the guest's.",
	};
	struct names_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 2, -1);

	a.mode = args[0];
	return for_each(args + 1, &a, chown_path);
}

/* ---- mkdir ---- */

static int make_dir(struct vdisk_fs *fs, const char *path, uint32_t mode, bool may_exist)
{
	struct vdisk_error err = { 0 };
	struct vdisk_stat st;
	int r = vdisk_fs_mkdir(fs, path, mode, &err);

	if (r == -EEXIST && may_exist && vdisk_fs_stat(fs, path, false, &st, NULL) == 0 &&
	    S_ISDIR(st.mode))
		return CLI_OK;
	return r < 0 ? cli_fail(&err) : CLI_OK;
}

static int mkdir_path(struct cli_file *f, const struct names_args *a)
{
	uint32_t mode = 0755;
	int r = CLI_OK;

	if (a->mode)
		mode_apply(a->mode, &mode, true);
	for (char *p = f->path; a->parents && r == CLI_OK && (p = strchr(p + 1, '/'));) {
		*p = '\0';
		r = make_dir(f->fs, f->path, 0755, true);
		*p = '/';
	}
	return r == CLI_OK ? make_dir(f->fs, f->path, mode, a->parents) : r;
}

int cmd_mkdir(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "parents", 'p', NULL, 0, "Those above it too, and no error if it exists", 0 },
		{ "mode", 'm', "MODE", 0, "Its permissions (default: 0755)", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_names, .children = cli_disk,
		.args_doc = "DISK:PATH...", .doc = "Make directories inside a disk.",
	};
	struct names_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, -1);

	if (a.mode)
		mode_check(a.mode);
	return for_each(args, &a, mkdir_path);
}

/* ---- rm ---- */

static int rm_path(struct cli_file *f, const struct names_args *a)
{
	struct vdisk_error err = { 0 };
	struct vdisk_stat st;
	int r = vdisk_fs_stat(f->fs, f->path, true, &st, &err);

	if (r == -ENOENT && a->force)
		return CLI_OK;
	if (r == 0 && S_ISDIR(st.mode) && !a->recursive) {
		cli_error("%s: is a directory (use -r)", f->path);
		return CLI_FAILED;
	}
	if (r == 0)
		r = vdisk_fs_remove_tree(f->fs, f->path, &err);
	return r < 0 ? cli_fail(&err) : CLI_OK;
}

int cmd_rm(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "recursive", 'r', NULL, 0, "Directories and all that is in them", 0 },
		{ "force", 'f', NULL, 0, "No error if it does not exist", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_names, .children = cli_disk,
		.args_doc = "DISK:PATH...", .doc = "Remove files inside a disk.",
	};
	struct names_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 1, -1);

	return for_each(args, &a, rm_path);
}

/* ---- mv, ln ---- */

/* Where a file called like @from goes: into @to if that is a directory. */
static char *destination(struct cli_file *to, const char *from)
{
	struct vdisk_stat st;

	if (vdisk_fs_stat(to->fs, to->path, false, &st, NULL) == 0 && S_ISDIR(st.mode)) {
		AUTO_FREE char *name = cli_basename(from);

		return name ? cli_join(to->path, name) : NULL;
	}
	return strdup(to->path);
}

static int move(struct cli_file *from, struct cli_file *to)
{
	AUTO_FREE char *path = destination(to, from->path);
	struct vdisk_error err = { 0 };

	if (from->fs != to->fs) {
		cli_error("files can be moved inside one file system only: use cp and rm");
		return CLI_FAILED;
	}
	if (!path) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	return vdisk_fs_rename(from->fs, from->path, path, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

int cmd_mv(int argc, char **argv)
{
	static const struct argp argp = {
		.children = cli_disk, .args_doc = "DISK:FROM... DISK:TO",
		.doc = "Rename files inside a disk, or move them into a directory.",
	};
	char **args = cli_parse(&argp, argc, argv, NULL, 2, -1), **last = args;
	AUTO_FILE struct cli_file to = { 0 };
	struct vdisk_stat st;
	int status;

	while (last[1])
		last++;
	status = cli_file_open(&to, *last, true);
	if (status == CLI_OK && last - args > 1 &&
	    (vdisk_fs_stat(to.fs, to.path, false, &st, NULL) < 0 || !S_ISDIR(st.mode))) {
		cli_error("%s: not a directory", to.path);
		status = CLI_FAILED;
	}
	for (; args < last && status == CLI_OK; args++) {
		AUTO_FILE struct cli_file from = { 0 };

		status = cli_file_open(&from, *args, true);
		if (status == CLI_OK)
			status = move(&from, &to);
	}
	return cli_files_close(status);
}

static int make_link(struct cli_file *to, const char *target, const struct names_args *a)
{
	AUTO_FREE char *path = destination(to, target);
	struct vdisk_error err = { 0 };
	int r = 0;

	if (!path) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	if (a->force) {
		r = vdisk_fs_remove(to->fs, path, &err);
		r = r == -ENOENT ? 0 : r;
	}
	if (r == 0)
		r = a->symbolic ? vdisk_fs_symlink(to->fs, target, path, &err) :
				  vdisk_fs_link(to->fs, target, path, &err);
	return r < 0 ? cli_fail(&err) : CLI_OK;
}

int cmd_ln(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "symbolic", 's', NULL, 0, "A symbolic link; TARGET is its text", 0 },
		{ "force", 'f', NULL, 0, "Replace what has that name", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options, .parser = parse_names, .children = cli_disk,
		.args_doc = "DISK:TARGET DISK:NAME\n-s TARGET DISK:NAME",
		.doc = "Give a file inside a disk another name, or make a symbolic link.",
	};
	struct names_args a = { 0 };
	char **args = cli_parse(&argp, argc, argv, &a, 2, 2);
	AUTO_FILE struct cli_file to = { 0 }, from = { 0 };
	int status = cli_file_open(&to, args[1], true);

	if (status == CLI_OK && !a.symbolic)
		status = cli_file_open(&from, args[0], true);
	if (status == CLI_OK && !a.symbolic && from.fs != to.fs) {
		cli_error("both names must be in the same file system");
		status = CLI_FAILED;
	}
	if (status == CLI_OK)
		status = make_link(&to, a.symbolic ? args[0] : from.path, &a);
	return cli_files_close(status);
}
