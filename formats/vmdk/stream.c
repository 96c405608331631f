/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stream.c - the end of a stream-optimized file
 *
 *	{ marker, grain table }   directory marker, directory   footer marker,
 *	footer   end marker
 *
 * each in whole sectors.  The footer is the header once more, but with the place of the
 * directory.  A file without this end is one that was not finished, and is refused.
 */
#include <errno.h>

#include "formats/vmdk/state.h"

#define GATHER	(1u << 20)

struct out {
	struct vdisk *file;
	uint64_t at;		/* where the next byte goes */
	uint8_t *buf;		/* owned: not written yet */
	size_t len;
};

static int out_write(struct out *o)
{
	int r = vd_pwrite(o->file, o->buf, o->len, o->at - o->len);

	o->len = 0;
	return r;
}

/* Room for @len bytes, in whole sectors, zeroed. */
static int out_room(struct out *o, size_t len, uint8_t **p)
{
	int r = o->len + len > GATHER ? out_write(o) : 0;

	if (r < 0)
		return r;
	*p = memset(o->buf + o->len, 0, len);
	o->len += len;
	o->at += len;
	return 0;
}

static int put_marker(struct out *o, uint64_t sectors, uint32_t type)
{
	uint8_t *p;
	int r = out_room(o, VMDK_SECTOR, &p);

	if (r == 0)
		vmdk_marker_encode(p, sectors, type);
	return r;
}

static int put_table(struct out *o, const struct vmdk_table *t, uint32_t *gd)
{
	size_t len = vmdk_table_bytes(t->x), whole = (size_t)vd_align_up(len, VMDK_SECTOR);
	uint8_t *p;
	int r = put_marker(o, whole / VMDK_SECTOR, VMDK_GT);

	if (r < 0)
		return r;
	if (o->at / VMDK_SECTOR > UINT32_MAX)
		return -EFBIG;
	*gd = (uint32_t)(o->at / VMDK_SECTOR);
	r = out_room(o, whole, &p);
	if (r == 0)
		memcpy(p, t->gte, len);
	return r;
}

static int put_directory(struct out *o, const uint32_t *gd, uint32_t n)
{
	uint64_t sectors = vd_div_up((uint64_t)n * 4, VMDK_SECTOR);
	int r = put_marker(o, sectors, VMDK_GD);

	for (uint32_t done = 0; done < sectors * (VMDK_SECTOR / 4) && r == 0; ) {
		uint8_t *p;

		r = out_room(o, VMDK_SECTOR, &p);
		for (unsigned i = 0; i < VMDK_SECTOR / 4 && r == 0; i++, done++)
			store_le32(p + i * 4, gd && done < n ? gd[done] : 0);
	}
	return r;
}

/* The directory @gd (NULL: all zero) and what follows it. */
static int put_end(struct out *o, const struct vmdk_header *h, const uint32_t *gd)
{
	struct vmdk_header footer = *h;
	uint8_t *p;
	int r;

	footer.gd_at = o->at / VMDK_SECTOR + 1;
	r = put_directory(o, gd, vmdk_gd_entries(h));
	if (r == 0)
		r = put_marker(o, 1, VMDK_FOOTER);
	if (r == 0)
		r = out_room(o, VMDK_SECTOR, &p);
	if (r == 0) {
		vmdk_header_encode(&footer, p);
		r = put_marker(o, 0, VMDK_EOS);
	}
	return r < 0 ? r : out_write(o);
}

int vmdk_stream_empty(struct vdisk *file, const struct vmdk_header *h, uint64_t at)
{
	struct out o = { .file = file, .at = at, .buf = malloc(GATHER) };
	int r = o.buf ? put_end(&o, h, NULL) : -ENOMEM;

	free(o.buf);
	return r;
}

int vmdk_stream_finish(struct vmdk *v)
{
	struct vmdk_extent *x = &v->x[0];
	struct out o = {
		.file = x->file, .at = vd_align_up(x->next, VMDK_SECTOR), .buf = malloc(GATHER),
	};
	int r = o.buf ? 0 : -ENOMEM;

	pthread_mutex_lock(&v->lock);
	if (v->finished) {
		pthread_mutex_unlock(&v->lock);
		free(o.buf);
		return 0;
	}
	/* whoever wants to write from here on is refused */
	v->finished = true;
	pthread_mutex_unlock(&v->lock);
	for (uint32_t i = 0; i < x->n_gd && r == 0; i++)
		if (x->table[i])
			r = put_table(&o, x->table[i], &x->gd[i]);
	if (r == 0)
		r = put_end(&o, &x->h, x->gd);
	free(o.buf);
	if (r < 0)
		v->disk->failed = true;
	return r;
}
