/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * empty.c - a child that holds nothing any more, as after its contents went to the parent
 *
 * The parent has changed by that, and has another content ID, which the child learns
 * first: a child without it would be refused.
 */
#include <errno.h>

#include "formats/vmdk/state.h"

/* The content ID that the parent has now. */
static int parent_cid(struct vmdk *v, uint32_t *out, struct vdisk_error *err)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .refs = v->disk->refs };
	struct vd_open_ctx ctx = { .disk = v->disk, .opts = &o };
	struct vdisk *parent = NULL;
	int r = vd_open_ref(&ctx, &parent, v->d.parent, "vmdk", false, err);

	if (r < 0)
		return r;
	*out = ((struct vmdk *)parent->priv)->d.cid;
	vdisk_close(parent, NULL);
	return 0;
}

/* Under the lock: 0, VMDK_RETRY, -errno. */
static int empty_table(struct vmdk *v, struct vmdk_extent *x, uint32_t index)
{
	struct vmdk_table *t;
	int r = v->n_dirty >= v->max_dirty ? vmdk_table_room(v, false) : 0;

	if (r == 0)
		r = vmdk_table_get(v, x, index, false, &t);
	if (r)
		return r;
	for (uint32_t i = 0; i < x->h.gtes; i++) {
		uint32_t gte = vmdk_gte(t, i);

		if (!gte)
			continue;
		store_le32(t->gte + (size_t)i * 4, 0);
		vmdk_table_dirty(v, t);
		if (gte > 1 || !(x->h.flags & VMDK_FLAG_ZERO_GRAINS))
			vmdk_drop(v, x, (uint64_t)gte * VMDK_SECTOR, x->grain, v->txn);
	}
	return 0;
}

static int empty_tables(struct vmdk *v)
{
	int r;

	pthread_mutex_lock(&v->lock);
	do
		r = vmdk_begin(v, false);
	while (r == VMDK_RETRY);
	for (unsigned k = 0; k < v->n_x && r == 0; k++) {
		struct vmdk_extent *x = &v->x[k];

		for (uint32_t i = 0; i < x->n_gd && r == 0; i++)
			do
				r = x->gd[i] ? empty_table(v, x, i) : 0;
			while (r == VMDK_RETRY);
	}
	/* the second one makes the first durable: what was freed becomes holes */
	for (unsigned i = 0; i < 2 && r == 0; i++)
		r = vmdk_writeout(v);
	pthread_mutex_unlock(&v->lock);
	return r;
}

int vmdk_empty(struct vdisk *disk, struct vdisk_error *err)
{
	struct vmdk *v = disk->priv;
	uint32_t cid = v->d.parent_cid;
	int r = 0;

	if (v->stream)
		return vd_fail(err, ENOTSUP, "%s: vmdk: is written once only", disk->name);
	if (v->d.parent_cid != VMDK_NO_PARENT)
		r = parent_cid(v, &cid, err);
	if (r < 0)
		return r;
	if (cid != v->d.parent_cid)
		r = vmdk_write_cid(v, v->d.parent_cid_at, v->d.parent_cid_digits, cid);
	if (r == 0) {
		v->d.parent_cid = cid;
		r = empty_tables(v);
	}
	return r < 0 ? vd_fail(err, -r, "%s: vmdk: emptying it: %s", disk->name, strerror(-r)) : 0;
}
