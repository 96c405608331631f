/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * system.c - see system.h
 *
 * A child mounts the file systems that we have no driver for, read-only, where nobody sees
 * them, and lends them to the jailed process that inspects the disk.  What comes back is as flat as
 * it is in memory: it goes through a pipe as it is, from a process of this program.
 */
#include "cli/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#include "cli/kernel_fs.h"
#include "guest/lent.h"

#define LENT_MAX 16u

/* ---- in the child ---- */

struct lender {
	struct vd_lent_fs lent[LENT_MAX];
	unsigned n;
	struct vdisk_error why;		/* the first that could not be had */
};

static bool needs_kernel(const struct vdisk_volume *v)
{
	struct vdisk_probe probe = { 0 };

	return vdisk_probe(v->disk, &probe, NULL) == 0 && !strcmp(probe.usage, "filesystem") &&
	       strncmp(probe.type, "ext", 3) != 0 && strcmp(probe.type, "vfat") != 0;
}

static int lend(void *arg, const struct vdisk_volume *v)
{
	struct lender *l = arg;
	struct vd_lent_fs *lent = &l->lent[l->n];
	struct vdisk_error err = { 0 };
	const char *inside = "";

	if (l->n == LENT_MAX || !needs_kernel(v))
		return 0;
	if (kernel_fs_lend(&lent->fs, &inside, v->disk, &err) < 0) {
		if (!l->why.code)
			l->why = err;
		return 0;
	}
	snprintf(lent->volume, sizeof(lent->volume), "%s", v->name);
	snprintf(lent->inside, sizeof(lent->inside), "%s", inside);
	l->n++;
	return 0;
}

static bool put(FILE *to, const void *data, size_t len)
{
	return !len || fwrite(data, len, 1, to) == 1;
}

static bool send_system(FILE *to, const struct cli_system *s)
{
	const struct vdisk_inspection *in = s->in;

	return put(to, s, sizeof(*s)) && put(to, in, sizeof(*in)) &&
	       put(to, in->fstab, in->n_fstab * sizeof(*in->fstab)) &&
	       put(to, in->kernels, in->n_kernels * sizeof(*in->kernels)) &&
	       put(to, in->packages, in->n_packages * sizeof(*in->packages)) &&
	       (s->n_boot <= 0 || put(to, s->boot, (size_t)s->n_boot * sizeof(*s->boot)));
}

static int inspect(struct cli_system *s, struct vdisk *disk, const struct lender *l,
		   struct vdisk_error *err)
{
	int r = vd_inspect(&s->in, disk, l ? l->lent : NULL, l ? l->n : 0, err);

	if (r < 0)
		return r;
	s->chosen = -1;
	/* a system that does not boot is still a system */
	s->n_boot = vd_boot_list(disk, l ? l->lent : NULL, l ? l->n : 0, &s->boot, &s->chosen,
				 &s->boot_error);
	return 0;
}

static NORETURN void child(FILE *to, struct vdisk *disk)
{
	struct lender l = { .n = 0 };
	struct cli_system s = { .n_boot = -1 };
	struct vdisk_error err = { 0 };
	int r = vdisk_each_volume(disk, lend, &l, &err);

	/* by now we may be another process, see kernel_fs.h */
	if (r == 0)
		r = inspect(&s, disk, &l, &err);
	if (r < 0 && l.why.code)
		err = l.why;
	for (unsigned i = 0; i < l.n && r == 0; i++)
		if (!strcmp(l.lent[i].volume, s.in->root))
			memcpy(s.inside, l.lent[i].inside, sizeof(s.inside));
	for (unsigned i = 0; i < l.n; i++)
		vdisk_fs_close(l.lent[i].fs, NULL);
	kernel_fs_end();
	if (put(to, &r, sizeof(r)) && (r < 0 ? put(to, &err, sizeof(err)) : send_system(to, &s)) &&
	    fflush(to) == 0)
		_exit(0);
	_exit(1);
}

/* ---- in the parent ---- */

static bool get(FILE *from, void *data, size_t len)
{
	return fread(data, len, 1, from) == 1;
}

/* @n elements of @size bytes; NULL where there are none, or *@ok becomes false. */
static void *get_list(FILE *from, size_t n, size_t size, bool *ok)
{
	void *list = n ? calloc(n, size) : NULL;

	if (n && (!list || !get(from, list, n * size)))
		*ok = false;
	return list;
}

static bool receive_system(FILE *from, struct cli_system *s)
{
	struct vdisk_inspection *in = calloc(1, sizeof(*in));
	bool ok = in && get(from, s, sizeof(*s)) && get(from, in, sizeof(*in));

	s->in = in;
	s->boot = NULL;
	if (!in)
		return false;
	in->fstab = NULL;
	in->kernels = NULL;
	in->packages = NULL;
	if (ok)
		in->fstab = get_list(from, in->n_fstab, sizeof(*in->fstab), &ok);
	if (ok)
		in->kernels = get_list(from, in->n_kernels, sizeof(*in->kernels), &ok);
	if (ok)
		in->packages = get_list(from, in->n_packages, sizeof(*in->packages), &ok);
	if (ok && s->n_boot > 0)
		s->boot = get_list(from, (size_t)s->n_boot, sizeof(*s->boot), &ok);
	return ok;
}

static int receive(FILE *from, struct cli_system *s, struct vdisk_error *err)
{
	struct vdisk_error why;
	int r;

	if (!get(from, &r, sizeof(r)) || (r < 0 && !get(from, &why, sizeof(why))))
		return vd_fail(err, EIO, "the process that inspects the disk has ended early");
	if (r < 0 && err)
		*err = why;
	if (r == 0 && !receive_system(from, s)) {
		cli_system_free(s);
		return vd_fail(err, EIO, "the process that inspects the disk has ended early");
	}
	return r;
}

static int inspect_by_kernel(struct cli_system *s, struct vdisk *disk, struct vdisk_error *err)
{
	FILE *from, *to;
	int pipes[2], r;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return vd_fail(err, errno, "pipe: %m");
	from = fdopen(pipes[0], "r");
	to = fdopen(pipes[1], "w");
	if (!from || !to) {
		close(pipes[0]);	/* each stream has nothing else, and we are about to end */
		close(pipes[1]);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(pipes[0]);
		child(to, disk);
	}
	fclose(to);
	r = pid < 0 ? vd_fail(err, errno, "cannot start a process: %m") : receive(from, s, err);
	fclose(from);
	/* it ends when nothing is mounted any more */
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r;
}

static int look_at(void *arg, const struct vdisk_volume *v)
{
	(void)arg;
	return needs_kernel(v);
}

int cli_inspect(struct cli_system *out, struct vdisk *disk, struct vdisk_error *err)
{
	int r;

	*out = (struct cli_system) { .n_boot = -1, .chosen = -1 };
	r = inspect(out, disk, NULL, err);
	if (r != -ENOENT || !kernel_fs_possible() || vdisk_each_volume(disk, look_at, NULL, NULL) <= 0)
		return r;
	return inspect_by_kernel(out, disk, err);
}

void cli_system_free(struct cli_system *s)
{
	vdisk_inspection_free(s->in);
	free(s->boot);
	s->in = NULL;
	s->boot = NULL;
}
