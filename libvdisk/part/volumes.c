/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* volumes.c - going through the volumes of a disk: partitions and logical volumes */
#include <stdio.h>

#include "core/driver.h"

struct walk {
	struct vdisk *disk;
	int (*each)(void *arg, const struct vdisk_volume *volume);
	void *arg;
	struct vdisk_error *err;
};

static int each_part(const struct walk *w, const struct vdisk_part *p)
{
	struct vdisk_volume v = { .part = p };
	int r;

	if (p->extended || !p->length || !vd_in_range(p->offset, p->length, vdisk_size(w->disk)))
		return 0;
	r = vdisk_open_window(&v.disk, w->disk, p->offset, p->length, w->err);
	if (r < 0)
		return r;
	snprintf(v.name, sizeof(v.name), "p%u", p->number);
	r = w->each(w->arg, &v);
	vdisk_close(v.disk, NULL);
	return r;
}

static int each_lv(const struct walk *w, const struct vdisk_lvm *lvm, const struct vdisk_vg *vg,
		   const struct vdisk_lv *lv)
{
	uint32_t flags = vdisk_writable(w->disk) && lv->writable ? VDISK_OPEN_WRITE : 0;
	struct vdisk_volume v = { .vg = vg, .lv = lv };
	int r;

	/* one that cannot be opened says so in its reason, or where it is asked for */
	if (lv->hidden || lv->reason[0] ||
	    vdisk_open_lv(&v.disk, lvm, vg->uuid, lv->uuid, flags, NULL) < 0)
		return 0;
	snprintf(v.name, sizeof(v.name), "%s/%s", vg->name, lv->name);
	r = w->each(w->arg, &v);
	vdisk_close(v.disk, NULL);
	return r;
}

static int each_logical(const struct walk *w)
{
	struct vdisk_lvm *lvm = NULL;
	const struct vdisk_vg *vg;
	int r = vd_lvm_scan(&lvm, w->disk, w->err);

	if (r < 0)
		return r;
	for (unsigned i = 0; r == 0 && (vg = vdisk_lvm_vg(lvm, i)); i++)
		for (unsigned k = 0; r == 0 && vd_vg_is_on(vg, 0) && k < vg->n_lvs; k++)
			r = each_lv(w, lvm, vg, &vg->lv[k]);
	vdisk_lvm_free(lvm);
	return r;
}

int vdisk_each_volume(struct vdisk *disk, int (*each)(void *arg, const struct vdisk_volume *volume),
		      void *arg, struct vdisk_error *err)
{
	const struct walk w = { .disk = disk, .each = each, .arg = arg, .err = err };
	AUTO_FREE struct vdisk_parts *parts = NULL;
	int r = vdisk_parts_read(&parts, disk, err);

	if (r == 0 && !parts->scheme[0])
		r = each(arg, &(struct vdisk_volume) { .disk = disk });
	for (unsigned i = 0; r == 0 && i < parts->count; i++)
		r = each_part(&w, &parts->part[i]);
	return r == 0 ? each_logical(&w) : r;
}
