/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount_plan.c - what vdisk mount mounts
 *
 * The lines of a guest's fstab are an enemy's: of their options only those are taken
 * that choose what is shown (ro, subvol=, subvolid=), and paths have no "..".
 */
#include <stdio.h>
#include <string.h>

#include "cli/files.h"
#include "cli/mount.h"
#include "cli/system.h"

void mount_plan_clear(struct mount_plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++)
		vdisk_close(plan->point[i].volume, NULL);
	free(plan->point);
	*plan = (struct mount_plan) { 0 };
}

/* ---- options ---- */

/* The value of the option @name in a list with commas ("" where it has none); NULL: not there. */
static const char *find_option(const char *options, const char *name, char *value, size_t size)
{
	size_t len = strlen(name);

	while (*options) {
		size_t n = strcspn(options, ",");

		if (n >= len && !strncmp(options, name, len) && (n == len || options[len] == '=')) {
			snprintf(value, size, "%.*s", n == len ? 0 : (int)(n - len - 1),
				 options + len + (n != len));
			return value;
		}
		options += n + (options[n] == ',');
	}
	return NULL;
}

static bool has_option(const struct vdisk_fstab *f, const char *name)
{
	char value[256];

	return find_option(f->options, name, value, sizeof(value));
}

static void take_options(struct mount_point *p, const struct vdisk_fstab *f)
{
	static const char *const taken[] = { "subvol", "subvolid" };
	char value[256];

	p->read_only = has_option(f, "ro");
	if (has_option(f, "subvol") || has_option(f, "subvolid"))
		p->options[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		size_t n = strlen(p->options);

		if (find_option(f->options, taken[i], value, sizeof(value)) && *value)
			snprintf(p->options + n, sizeof(p->options) - n, "%s%s=%s", n ? "," : "",
				 taken[i], value);
	}
}

/* ---- paths ---- */

/* Without double slashes and one at the end; false: it is not absolute, or leads up. */
static bool clean_path(const char *path, char *out, size_t size)
{
	size_t used = 0;

	if (*path != '/' || strlen(path) >= size)
		return false;
	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && !strncmp(path, "..", 2))
			return false;
		if (n && !(n == 1 && *path == '.')) {
			out[used++] = '/';
			memcpy(out + used, path, n);
			used += n;
		}
		path += n + (path[n] == '/');
	}
	if (!used)
		out[used++] = '/';
	out[used] = '\0';
	return true;
}

/* Is @path the directory @dir, or below it? */
static bool is_below(const char *path, const char *dir)
{
	size_t n = strcmp(dir, "/") ? strlen(dir) : 0;

	return !strncmp(path, dir, n) && (!path[n] || path[n] == '/');
}

/* ---- the plan ---- */

struct planner {
	struct mount_plan *plan;
	struct vdisk *disk;		/* borrowed */
	bool by_kernel;
};

static void leave_out(const struct vdisk_fstab *f, const char *why)
{
	cli_note("%s: left out: %s", f->mount_point, why);
}

static struct mount_point *plan_find(const struct mount_plan *plan, const char *path)
{
	for (unsigned i = 0; i < plan->n; i++)
		if (!strcmp(plan->point[i].path, path))
			return &plan->point[i];
	return NULL;
}

static int plan_add(struct mount_plan *plan, struct mount_point *p)
{
	struct mount_point *v = reallocarray(plan->point, plan->n + 1, sizeof(*v));

	if (!v) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	plan->point = v;
	v[plan->n++] = *p;
	p->volume = NULL;
	return CLI_OK;
}

/* Does @p need @other first: where it is mounted, or what it shows? */
static bool comes_after(const struct mount_point *p, const struct mount_point *other)
{
	return is_below(p->path, other->path) || (p->bind[0] && is_below(p->bind, other->path));
}

/* In the order of fstab, but each after what it needs. */
static void plan_sort(struct mount_plan *plan)
{
	struct mount_point *v = plan->point, next;

	for (unsigned i = 0; i < plan->n; i++) {
		unsigned best = i;
		bool found = false;

		for (unsigned k = i; k < plan->n && !found; k++) {
			found = true;
			for (unsigned l = i; l < plan->n && found; l++)
				found = l == k || !comes_after(&v[k], &v[l]);
			if (found)
				best = k;
		}
		next = v[best];
		memmove(v + i + 1, v + i, (best - i) * sizeof(*v));
		v[i] = next;
	}
}

/* The same volume may be mounted at several places (subvolumes): it is opened once. */
static int point_open(const struct planner *pl, struct mount_point *p, const char *name)
{
	struct vdisk_error err = { 0 };

	snprintf(p->name, sizeof(p->name), "%s", name);
	for (unsigned i = 0; i < pl->plan->n; i++) {
		const struct mount_point *other = &pl->plan->point[i];

		if (other->volume && !strcmp(other->name, name)) {
			p->volume = vdisk_ref(other->volume);
			return CLI_OK;
		}
	}
	if (!*name)
		p->volume = vdisk_ref(pl->disk);
	else if (vdisk_open_part(&p->volume, pl->disk, name, &err) < 0)
		return cli_fail(&err);
	return CLI_OK;
}

/* Why a line of fstab is not for us; NULL: it is. */
static const char *reason(const struct planner *pl, const struct vdisk_fstab *f)
{
	static const char *const network[] = {
		"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs",
		"fuse.sshfs", "fuse.glusterfs", "afs", "ocfs2", "gfs2",
	};

	if (!strcmp(f->type, "swap"))
		return "swap space";
	for (size_t i = 0; i < ARRAY_SIZE(network); i++)
		if (!strcmp(f->type, network[i]))
			return "a network file system";
	if (has_option(f, "_netdev"))
		return "it needs the network";
	if (has_option(f, "noauto"))
		return "noauto";
	if (has_option(f, "bind") || has_option(f, "rbind"))
		return pl->by_kernel ? NULL : "a bind mount, which needs root";
	if (f->missing)
		return has_option(f, "nofail") ? "its device is not on this disk (nofail)" :
						 "its device is not on this disk";
	if (!f->volume[0])
		return "not on a disk";
	return NULL;
}

static int plan_line(const struct planner *pl, const struct vdisk_fstab *f)
{
	struct mount_point p = { .path = "" }, *old;
	const char *why = reason(pl, f);
	int status;

	if (!strcmp(f->mount_point, "/") && !why) {	/* it is there already */
		take_options(&pl->plan->point[0], f);
		return CLI_OK;
	}
	if (why) {
		leave_out(f, why);
		return CLI_OK;
	}
	if (!clean_path(f->mount_point, p.path, sizeof(p.path)) || !strcmp(p.path, "/")) {
		leave_out(f, "no path that could be a mount point");
		return CLI_OK;
	}
	old = plan_find(pl->plan, p.path);
	if (old) {
		leave_out(f, "another line mounts there");
		return CLI_OK;
	}
	take_options(&p, f);
	if (has_option(f, "bind") || has_option(f, "rbind")) {
		if (!clean_path(f->device, p.bind, sizeof(p.bind))) {
			leave_out(f, "no path that could be bound there");
			return CLI_OK;
		}
		return plan_add(pl->plan, &p);
	}
	if (point_open(pl, &p, f->volume) != CLI_OK)
		return CLI_OK;		/* it has been said */
	status = plan_add(pl->plan, &p);
	vdisk_close(p.volume, NULL);
	return status;
}

/* A root that is a subvolume, unless fstab says so itself. */
static void take_inside(struct mount_point *root, const struct cli_system *system)
{
	if (system->inside[0])
		snprintf(root->options, sizeof(root->options), "subvol=%s", system->inside);
}

struct only {
	char name[264];		/* of the first */
	unsigned n;
};

static int count_file_systems(void *arg, const struct vdisk_volume *v)
{
	struct only *only = arg;
	struct vdisk_probe probe = { 0 };

	if (vdisk_probe(v->disk, &probe, NULL) == 0 && !strcmp(probe.usage, "filesystem") &&
	    only->n++ == 0)
		memcpy(only->name, v->name, sizeof(only->name));
	return only->n > 1;
}

/*
 * The volume with the guest's root.  Where we read none that is more than the only one we can
 * read, the kernel may; the only file system there is needs no signs of one.
 */
static int find_root(struct mount_point *root, struct vdisk *disk, char name[264], bool by_kernel,
		     struct vdisk_error *err)
{
	AUTO_DISK struct vdisk *volume = NULL;
	struct only only = { .n = 0 };
	struct cli_system system;
	int r = vdisk_root_name(name, disk, err);

	if (!by_kernel || (r == 0 && vdisk_open_root(&volume, disk, NULL) == 0 &&
			   files_is_root(volume)))
		return r;
	if (cli_inspect(&system, disk, NULL) < 0) {
		if (r == 0 || vdisk_each_volume(disk, count_file_systems, &only, NULL) < 0 ||
		    only.n != 1)
			return r;
		memcpy(name, only.name, sizeof(only.name));
		return 0;
	}
	memcpy(name, system.in->root, sizeof(system.in->root));
	take_inside(root, &system);
	cli_system_free(&system);
	return 0;
}

static int plan_tree(const struct planner *pl)
{
	struct cli_system system;
	const struct vdisk_inspection *in;
	struct vdisk_error err = { 0 };
	struct mount_point root = { .path = "/" };
	int status;

	if (cli_inspect(&system, pl->disk, &err) < 0)
		return cli_fail(&err);
	in = system.in;
	take_inside(&root, &system);
	status = point_open(pl, &root, in->root);
	if (status == CLI_OK)
		status = plan_add(pl->plan, &root);
	for (unsigned i = 0; status == CLI_OK && i < in->n_fstab; i++)
		status = plan_line(pl, &in->fstab[i]);
	plan_sort(pl->plan);
	cli_system_free(&system);
	return status;
}

int mount_plan(struct mount_plan *out, struct vdisk *disk, const char *part,
	       const struct mount_args *a, bool by_kernel)
{
	const struct planner pl = { .plan = out, .disk = disk, .by_kernel = by_kernel };
	struct mount_point root = { .path = "/" };
	struct vdisk_error err = { 0 };
	char name[264] = "";
	int status;

	if (a->all)
		return plan_tree(&pl);
	if (!part && find_root(&root, disk, name, by_kernel, &err) < 0)
		return cli_fail(&err);
	status = point_open(&pl, &root, part ? part : name);
	if (status == CLI_OK)
		status = plan_add(out, &root);
	vdisk_close(root.volume, NULL);
	return status;
}
