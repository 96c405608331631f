/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* volumes.c - see volumes.h */
#include "guest/volumes.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

enum { VOLUMES_MAX = 128 };

/* As device-mapper has it, and GRUB after "lvm/": a dash in a name is doubled. */
static void lvm_name(char *out, size_t size, const struct vdisk_volume *v)
{
	const char *part[] = { v->vg->name, v->lv->name };
	size_t n = 0;

	for (unsigned i = 0; i < 2; i++) {
		for (const char *p = part[i]; *p && n + 3 < size; p++) {
			if (*p == '-')
				out[n++] = '-';
			out[n++] = *p;
		}
		if (i == 0)
			out[n++] = '-';
	}
	out[n] = '\0';
}

struct opener {
	struct guest_volumes *v;
	struct vdisk *disk;
	struct jail *jail;
};

/* By ourselves, or by the parent. */
static int open_fs(const struct opener *o, const struct vdisk_volume *from, struct vdisk_error *why)
{
	struct guest_volumes *v = o->v;
	int r = vdisk_fs_open(&v->fs[v->n], from->disk, 0, why);

	v->inside[v->n] = "";
	if (r == -EMEDIUMTYPE &&
	    vd_lent_open(&v->fs[v->n], &v->inside[v->n], o->disk, o->jail, from->name) == 0)
		r = 0;
	return r;
}

static int open_volume(void *arg, const struct vdisk_volume *from)
{
	const struct opener *o = arg;
	struct guest_volumes *v = o->v;
	struct boot_volume *volume = &v->volume[v->n];
	struct vdisk_error why = { 0 };
	struct vdisk_probe probe;
	int r;

	if (v->n == VOLUMES_MAX)
		return 1;
	r = vdisk_probe(from->disk, &probe, &why);
	if (r == 0 && !strcmp(probe.usage, "filesystem")) {
		r = open_fs(o, from, &why);
		if (r == 0) {
			volume->number = from->part ? from->part->number : 0;
			snprintf(volume->name, sizeof(volume->name), "%s", from->name);
			snprintf(volume->uuid, sizeof(volume->uuid), "%s", probe.uuid);
			snprintf(volume->label, sizeof(volume->label), "%s", probe.label);
			snprintf(volume->type, sizeof(volume->type), "%s", probe.type);
			snprintf(volume->part_uuid, sizeof(volume->part_uuid), "%s",
				 from->part ? from->part->uuid : "");
			if (from->lv) {
				lvm_name(volume->lvm, sizeof(volume->lvm), from);
				snprintf(volume->lvmid, sizeof(volume->lvmid), "%s/%s", from->vg->uuid,
					 from->lv->uuid);
			}
			v->n++;
		}
	}
	if (r < 0 && !v->trouble[0])
		snprintf(v->trouble, sizeof(v->trouble), "%.*s", (int)sizeof(v->trouble) - 1,
			 why.msg);
	return r == -ENOMEM ? r : 0;
}

int guest_volumes_open(struct guest_volumes *out, struct vdisk *disk, struct jail *jail,
		       struct vdisk_error *err)
{
	struct guest_volumes v = {
		.volume = calloc(VOLUMES_MAX, sizeof(*v.volume)),
		.fs = calloc(VOLUMES_MAX, sizeof(struct vdisk_fs *)),
		.inside = calloc(VOLUMES_MAX, sizeof(char *)),
	};
	struct opener o = { &v, disk, jail };
	int r;

	r = v.volume && v.fs && v.inside ? vdisk_each_volume(disk, open_volume, &o, err) :
			       vd_fail(err, ENOMEM, "out of memory");
	if (r < 0) {
		guest_volumes_close(&v);
		return r;
	}
	*out = v;
	return 0;
}

void guest_volumes_close(struct guest_volumes *v)
{
	unsigned i;

	for (i = 0; i < v->n; i++)
		vdisk_fs_close(v->fs[i], NULL);
	free(v->volume);
	free(v->fs);
	free(v->inside);
	*v = (struct guest_volumes) { 0 };
}

/* ---- as the evaluators see it ---- */

/* A boot loader's "/@/boot" is "/boot" of a system whose root is the subvolume "@". */
static const char *path_in(const struct guest_volumes *v, unsigned volume, const char *path)
{
	const char *inside = v->inside[volume];
	size_t n = strlen(inside);

	if (!n || path[0] != '/' || strncmp(path + 1, inside, n) != 0 ||
	    (path[n + 1] && path[n + 1] != '/'))
		return path;
	return path[n + 1] ? path + n + 1 : "/";
}

static int env_stat(void *arg, unsigned volume, const char *path, uint64_t *size)
{
	struct guest_volumes *v = arg;
	struct vdisk_stat st;
	int r;

	r = vdisk_fs_stat(v->fs[volume], path_in(v, volume, path), false, &st, NULL);
	if (r < 0)
		return r;
	*size = st.size;
	return S_ISREG(st.mode) ? 0 : S_ISDIR(st.mode) ? 1 : -ENOENT;
}

static int env_load(void *arg, unsigned volume, const char *path, size_t max, void **data,
		    size_t *len)
{
	struct guest_volumes *v = arg;
	uint64_t size;

	if (env_stat(arg, volume, path, &size) != 0)
		return -ENOENT;
	return vdisk_fs_load(v->fs[volume], path_in(v, volume, path), max, data, len, NULL);
}

struct lister {
	void (*each)(void *ctx, const char *name);
	void *ctx;
};

static int list_one(void *arg, const char *name, const struct vdisk_stat *st)
{
	struct lister *l = arg;

	(void)st;
	l->each(l->ctx, name);
	return 0;
}

static int env_list(void *arg, unsigned volume, const char *path,
		    void (*each)(void *ctx, const char *name), void *ctx)
{
	struct guest_volumes *v = arg;
	struct lister l = { each, ctx };

	return vdisk_fs_list(v->fs[volume], path_in(v, volume, path), list_one, &l, NULL);
}

static ssize_t env_read(void *arg, unsigned volume, const char *path, uint64_t off, void *buf,
			size_t len)
{
	struct guest_volumes *v = arg;
	struct vdisk_file *file = NULL;
	ssize_t n;
	int r = vdisk_file_open(&file, v->fs[volume], path_in(v, volume, path), 0, 0, NULL);

	if (r < 0)
		return r;
	n = vdisk_file_read(file, buf, len, off, NULL);
	vdisk_file_close(file, NULL);
	return n;
}

struct boot_env guest_volumes_env(struct guest_volumes *v)
{
	return (struct boot_env) {
		.arg = v, .volumes = v->volume, .n_volumes = v->n,
		.load = env_load, .stat = env_stat, .list = env_list, .read = env_read,
	};
}
