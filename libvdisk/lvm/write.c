/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * write.c - changed metadata into all areas of a volume group
 *
 * The order is LVM's.  The new text goes into the ring of each area, behind the
 * text that is in force and never over it; when all of them are durable, each
 * area's header is made to point at it, by writing one sector.  Until the first
 * header nothing has changed; from then on the new text counts, as it has the
 * higher number, wherever the old one is still in force, for us and for LVM.
 *
 * All that can fail for another reason than the medium is found out before the
 * first write.  The UUID of a physical volume stands in its label, too, which
 * is written last; when it changes, or the group's own, a crash leaves a group
 * that is not whole.
 */
#include <errno.h>
#include <inttypes.h>

#include "lvm/lvm.h"

/* One metadata area that is in use. */
struct target {
	const struct lvm_device *dev;
	struct lvm_area area;
	uint8_t header[LVM_MDA_HEADER];
	struct lvm_text_place old;
	uint64_t at;		/* of the new text, from the start of the area */
};

struct write {
	const struct vdisk_lvm *lvm;
	const struct lvm_group *g;
	struct target *target;	/* owned */
	unsigned n_targets;
	char *text;		/* owned: the one in force */
	size_t text_len;
	uint32_t text_crc;
	char *made;		/* owned: the new one */
	size_t made_len;	/* with its NUL */
	bool only_check;
	struct vdisk_error *err;
};

/* ---- what is there ---- */

static int device_fail(const struct write *w, const struct lvm_device *dev, int code,
		       const char *why)
{
	return vd_fail(w->err, code, "volume group %s: physical volume %s: %s", w->g->shown.name,
		       dev->shown.uuid, why);
}

static int read_header(struct write *w, struct target *t)
{
	const char *why = NULL;
	int r;

	if (!t->area.length || !vd_in_range(t->area.offset, t->area.length, t->dev->size))
		return device_fail(w, t->dev, EUCLEAN, "a metadata area lies past its end");
	r = vd_pread(t->dev->disk, t->header, sizeof(t->header), t->dev->start + t->area.offset);
	if (r < 0)
		return device_fail(w, t->dev, -r, strerror(-r));
	if (lvm_mda_decode(&t->old, t->header, &t->area, &why) < 0)
		return device_fail(w, t->dev, EUCLEAN, why);
	return 0;
}

/* Is it the newest?  Keep one of those. */
static int read_old(struct write *w, const struct target *t)
{
	struct vdisk_error why_not = { 0 };
	struct lvm_config c = { 0 };
	struct lvm_group *g = NULL;
	struct vdisk *bytes = NULL;
	const char *why = NULL;
	char *text = NULL, *copy;
	size_t len = 0;
	int r = vdisk_open_window(&bytes, t->dev->disk, t->dev->start, t->dev->size, w->err);

	if (r < 0)
		return r;
	r = lvm_text_read(&text, &len, bytes, &t->area, &t->old, &why);
	vdisk_close(bytes, NULL);
	if (r < 0)
		return device_fail(w, t->dev, why ? EUCLEAN : -r, why ? why : strerror(-r));
	copy = malloc(len + 1);
	if (!copy) {
		free(text);
		return vd_fail(w->err, ENOMEM, "out of memory");
	}
	memcpy(copy, text, len + 1);
	r = lvm_config_parse(&c, copy, len, &why_not);
	if (r == 0)
		r = lvm_group_parse(&g, &c, &why_not);
	lvm_config_clear(&c);
	if (r != 0)
		r = device_fail(w, t->dev, EUCLEAN, why_not.msg);
	else if (strcmp(g->shown.uuid, w->g->shown.uuid) != 0)
		r = device_fail(w, t->dev, EUCLEAN, "its metadata areas are of several groups");
	else if (g->shown.seqno == w->g->shown.seqno && !w->text) {
		w->text = STEAL(text);
		w->text_len = len;
		w->text_crc = t->old.crc;
	} else if (g->shown.seqno == w->g->shown.seqno &&
		   (len != w->text_len || memcmp(text, w->text, len) != 0)) {
		r = device_fail(w, t->dev, EUCLEAN, "it has another version of the metadata with the "
				"same number");
	}
	lvm_group_free(g);
	free(text);
	return r;
}

static int add_area(struct write *w, const struct lvm_device *dev, const struct lvm_area *area)
{
	struct target *more = reallocarray(w->target, w->n_targets + 1, sizeof(*more)), *t;
	int r;

	if (!more)
		return vd_fail(w->err, ENOMEM, "out of memory");
	w->target = more;
	t = &more[w->n_targets];
	*t = (struct target) { .dev = dev, .area = *area };
	r = read_header(w, t);
	if (r < 0 || t->old.ignored)
		return r;
	w->n_targets++;
	return t->old.empty ? 0 : read_old(w, t);
}

static int find_areas(struct write *w)
{
	int r = 0;

	for (unsigned i = 0; i < w->g->shown.n_pvs && r == 0; i++) {
		const struct lvm_pv *pv = &w->g->pv[i];
		const struct lvm_device *dev = pv->found < 0 ? NULL : &w->lvm->dev[pv->found];

		if (!dev || pv->lost)
			return vd_fail(w->err, ENODEV, "volume group %s: the physical volume %s (%.80s) "
				       "is missing%s%.80s", w->g->shown.name, pv->id,
				       pv->shown->hint[0] ? pv->shown->hint : "?",
				       pv->shown->problem[0] ? ": " : "", pv->shown->problem);
		if (!w->only_check && !vdisk_writable(dev->disk))
			return device_fail(w, dev, EROFS, "its disk is open for reading only");
		for (unsigned k = 0; k < dev->label.n_meta && r == 0; k++)
			r = add_area(w, dev, &dev->label.meta[k]);
	}
	if (r == 0 && !w->text)
		r = vd_fail(w->err, EUCLEAN, "volume group %s: its metadata is in no area that is in use",
			    w->g->shown.name);
	return r;
}

/* ---- where the new text goes ---- */

/* Behind the old one, at the next sector of the ring.  false: there is no room. */
static bool find_place(struct target *t, size_t len)
{
	uint64_t ring = t->area.length - LVM_MDA_HEADER, room = ring;
	uint64_t span = (len + LVM_SECTOR - 1) / LVM_SECTOR * LVM_SECTOR, past;

	t->at = LVM_MDA_HEADER;
	if (!t->old.empty) {
		/* (both are at most the area's length, which is on a disk) */
		past = t->old.offset + t->old.size;
		t->at = (past + LVM_SECTOR - 1) / LVM_SECTOR * LVM_SECTOR;
		if (t->at - t->old.offset >= ring)
			return false;
		room = ring - (t->at - t->old.offset);
		if (t->at >= t->area.length)
			t->at -= ring;
	}
	return span <= room;
}

static int find_places(struct write *w)
{
	for (unsigned i = 0; i < w->n_targets; i++)
		if (!find_place(&w->target[i], w->made_len))
			return vd_fail(w->err, ENOSPC, "volume group %s: its metadata of %zu bytes does not "
				       "fit beside the present one into the area of %" PRIu64 " bytes on %s",
				       w->g->shown.name, w->made_len, w->target[i].area.length,
				       w->target[i].dev->shown.uuid);
	return 0;
}

/* ---- writing ---- */

static int flush_all(const struct write *w)
{
	int r = 0;

	for (unsigned i = 0; i < w->g->shown.n_pvs && r == 0; i++)
		r = vd_flush(w->lvm->dev[w->g->pv[i].found].disk);
	return r;
}

static int write_text(const struct write *w, const struct target *t)
{
	uint64_t base = t->dev->start + t->area.offset;
	size_t first = (size_t)MIN((uint64_t)w->made_len, t->area.length - t->at);
	int r = vd_pwrite(t->dev->disk, w->made, first, base + t->at);

	if (r == 0 && first < w->made_len)
		r = vd_pwrite(t->dev->disk, w->made + first, w->made_len - first,
			      base + LVM_MDA_HEADER);
	return r;
}

static int write_header(const struct write *w, const struct target *t)
{
	uint8_t h[LVM_MDA_HEADER];

	memcpy(h, t->header, sizeof(h));
	store_le64(h + 40, t->at);
	store_le64(h + 48, w->made_len);
	store_le32(h + 56, lvm_crc(w->made, w->made_len));
	store_le32(h + 60, 0);
	memset(h + 64, 0, 24);		/* nothing is being written any more */
	store_le32(h, lvm_crc(h + 4, LVM_MDA_HEADER - 4));
	return vd_pwrite(t->dev->disk, h, sizeof(h), t->dev->start + t->area.offset);
}

/* Give the label of @dev the UUID @uuid. */
static int write_label(const struct lvm_device *dev, const char *uuid)
{
	uint8_t head[LVM_LABEL_SCAN];
	struct lvm_label now;
	const char *why = NULL;
	size_t len = (size_t)MIN(dev->size, (uint64_t)sizeof(head)), at, n = 0;
	uint8_t *s = head;
	int r = vd_pread(dev->disk, head, len, dev->start);

	if (r == 0 && lvm_label_decode(&now, head, len, &why) < 0)
		r = -EUCLEAN;
	if (r < 0)
		return r;
	/* the one that was decoded: the first that holds */
	while (memcmp(s, "LABELONE", 8) != 0 || memcmp(s + 24, "LVM2 001", 8) != 0 ||
	       load_le64(s + 8) != (uint64_t)(s - head) / LVM_SECTOR ||
	       load_le32(s + 16) != lvm_crc(s + 20, LVM_SECTOR - 20))
		s += LVM_SECTOR;
	at = load_le32(s + 20);
	for (const char *p = uuid; *p; p++)
		if (*p != '-')
			s[at + n++] = (uint8_t)*p;
	store_le32(s + 16, lvm_crc(s + 20, LVM_SECTOR - 20));
	return vd_pwrite(dev->disk, s, LVM_SECTOR, dev->start + (uint64_t)(s - head));
}

static int write_labels(const struct write *w, const struct vdisk_lvm_change *ch)
{
	int r = 0;

	for (unsigned i = 0; i < w->g->shown.n_pvs; i++)
		for (unsigned k = 0; k < ch->n_uuids && r == 0; k++)
			if (!strcmp(w->g->pv[i].id, ch->uuids[k].from))
				r = write_label(&w->lvm->dev[w->g->pv[i].found], ch->uuids[k].to);
	return r;
}

static int write_all(const struct write *w, const struct vdisk_lvm_change *ch)
{
	bool begun = false;
	int r = 0;

	for (unsigned i = 0; i < w->n_targets && r == 0; i++)
		r = write_text(w, &w->target[i]);
	if (r == 0)
		r = flush_all(w);
	begun = r == 0;
	for (unsigned i = 0; i < w->n_targets && r == 0; i++)
		r = write_header(w, &w->target[i]);
	if (r == 0)
		r = flush_all(w);
	if (r == 0)
		r = write_labels(w, ch);
	if (r == 0)
		r = flush_all(w);
	return r == 0 ? 0 : vd_fail(w->err, -r, "volume group %s: writing its metadata: %s%s",
				    w->g->shown.name, strerror(-r), begun ?
				    "; some of its copies are new, and where one is, it counts" :
				    "; nothing is changed");
}

int vdisk_lvm_change(struct vdisk_lvm *lvm, const char *vg, const struct vdisk_lvm_change *given,
		     struct vdisk_error *err)
{
	struct write w = { .lvm = lvm, .err = err };
	struct vdisk_lvm_change c = { 0 };
	int r;

	memcpy(&c, given, MIN(given->size, sizeof(c)));
	r = lvm_choose_group(&w.g, lvm, vg, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; c.vg_name && i < lvm->n_groups; i++)
		if (lvm->group[i] != w.g && !strcmp(lvm->group[i]->shown.name, c.vg_name))
			return vd_fail(err, EEXIST, "there is a volume group '%s' already",
				       c.vg_name);
	w.only_check = c.only_check;
	r = find_areas(&w);
	if (r == 0)	/* (its NUL is counted, as LVM counts it) */
		r = lvm_text_change(&w.made, &w.made_len, w.text, w.text_len, &c, err);
	if (r == 0 && w.made[w.made_len - 1] != '\0')
		w.made_len++;
	if (r == 0)
		r = find_places(&w);
	if (r == 0 && !c.only_check)
		r = write_all(&w, &c);
	free(w.target);
	free(w.text);
	free(w.made);
	return r;
}
