/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lvm_made.h - physical volumes and groups made byte by byte, for the tests of LVM */
#ifndef TEST_LVM_MADE_H
#define TEST_LVM_MADE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "lvm/lvm.h"

#define MIB ((uint64_t)1 << 20)
#define EXTENT MIB
#define PV_SIZE (16 * MIB)
#define PV_EXTENTS 15		/* the first MiB is for label and metadata */
#define MDA_AT ((uint64_t)4096)
#define MDA_SIZE ((uint64_t)64 << 10)
#define MDA2_AT ((uint64_t)128 << 10)

/* ---- making physical volumes ---- */

/* "00000…a": 32 characters, told apart by the last one */
static inline const char *raw_id(char last)
{
	static char id[4][33];
	static unsigned next;
	char *p = id[next++ % 4];

	memset(p, '0', 32);
	p[31] = last;
	return p;
}

static inline const char *id(char last)
{
	static char text[4][LVM_ID_TEXT];
	static unsigned next;
	char *p = text[next++ % 4];

	assert_true(lvm_id_text(p, (const uint8_t *)raw_id(last)));
	return p;
}

static inline void put(struct vdisk *d, const void *buf, size_t len, uint64_t off)
{
	assert_int_equal(vdisk_write(d, buf, len, off), 0);
}

static inline void put_label(struct vdisk *d, char last, unsigned sector, unsigned n_mdas)
{
	uint8_t s[512] = "LABELONE";
	size_t at = 72;

	store_le64(s + 8, sector);
	store_le32(s + 20, 32);
	memcpy(s + 24, "LVM2 001", 8);
	memcpy(s + 32, raw_id(last), 32);
	store_le64(s + 64, vdisk_size(d));
	store_le64(s + at, MIB);	/* data, to the end */
	at += 32;
	for (unsigned i = 0; i < n_mdas; i++, at += 16) {
		store_le64(s + at, i ? MDA2_AT : MDA_AT);
		store_le64(s + at + 8, MDA_SIZE);
	}
	store_le32(s + at + 16, 2);	/* extension version, flags: in use */
	store_le32(s + at + 20, 1);
	store_le32(s + 16, lvm_crc(s + 20, 492));
	put(d, s, 512, 512 * (uint64_t)sector);
}

/* An area at @area whose text begins @at bytes into it, going round where it must. */
static inline void put_text(struct vdisk *d, uint64_t area, const char *text, uint64_t at)
{
	uint8_t h[512] = { 0 };
	size_t len = strlen(text) + 1, first = (size_t)MIN((uint64_t)len, MDA_SIZE - at);

	memcpy(h + 4, " LVM2 x[5A%r0N*>", 16);
	store_le32(h + 20, 1);
	store_le64(h + 24, area);
	store_le64(h + 32, MDA_SIZE);
	store_le64(h + 40, at);
	store_le64(h + 48, len);
	store_le32(h + 56, lvm_crc(text, len));
	store_le32(h, lvm_crc(h + 4, 508));
	put(d, h, sizeof(h), area);
	put(d, text, first, area + at);
	if (first < len)
		put(d, text + first, len - first, area + 512);
}

static inline struct vdisk *blank(void)
{
	struct vdisk *d = NULL;

	assert_int_equal(vdisk_open_memory(&d, PV_SIZE, NULL), 0);
	return d;
}

/* A device with the label of @last and one area. */
static inline struct vdisk *device(char last, const char *text)
{
	struct vdisk *d = blank();

	put_label(d, last, 1, 1);
	put_text(d, MDA_AT, text, 512);
	return d;
}

/* Give each extent of a device its own content: the letter and its number. */
static inline void fill(struct vdisk *d, char letter)
{
	for (unsigned e = 0; e < PV_EXTENTS; e++)
		for (unsigned k = 0; k < EXTENT / 4096; k++) {
			char tag[16];

			snprintf(tag, sizeof(tag), "%c%u.%u", letter, e, k);
			put(d, tag, sizeof(tag), MIB + e * EXTENT + k * 4096);
		}
}

static inline void expect_tag(struct vdisk *d, uint64_t off, const char *want)
{
	char tag[16];

	assert_int_equal(vdisk_read(d, tag, sizeof(tag), off), 0);
	assert_string_equal(tag, want);
}

/* ---- making texts ---- */

static inline char *textf(const char *fmt, ...) PRINTF_FMT(1, 2);
static inline char *textf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;

	va_start(ap, fmt);
	assert_true(vasprintf(&s, fmt, ap) >= 0);
	va_end(ap);
	return s;
}


/* Two physical volumes, a and b, and the given logical ones. */
static inline char *group_text(unsigned seqno, const char *pv_more, const char *lvs)
{
	return textf("# made by a test\n"
		     "contents = \"Text Format Volume Group\"\nversion = 1\n"
		     "description = \"a \\\"quoted\\\" } { thing\"\n"
		     "vg0 { id = \"%s\" seqno = %u format = \"lvm2\"\n"
		     "status = [\"RESIZEABLE\", \"READ\", \"WRITE\"] flags = []\n"
		     "extent_size = 2048 max_lv = 0\n"
		     "physical_volumes {\n"
		     "pv0 { id = \"%s\" device = \"/dev/xa\" %s "
		     "dev_size = 32768 pe_start = 2048 pe_count = 15 }\n"
		     "pv1 { id = \"%s\" device = \"/dev/xb\" "
		     "dev_size = 32768 pe_start = 2048 pe_count = 15 }\n}\n"
		     "logical_volumes {\n%s}\n}\n",
		     id('v'), seqno, id('a'), pv_more, id('b'), lvs);
}

#define IDS "000000-0000-0000-0000-0000-0000-00000"
#define LV_HEAD(name, last, status) \
	name " { id = \"" IDS last "\" status = [" status "] segment_count = 1 "
#define VISIBLE "\"READ\", \"WRITE\", \"VISIBLE\""
#define HIDDEN "\"READ\", \"WRITE\""
#define SEG(n, start, count, rest) \
	"segment" n " { start_extent = " start " extent_count = " count " " rest " } "
#define LINEAR(pv, at) "type = \"striped\" stripe_count = 1 stripes = [\"" pv "\", " at "]"
#define PLAIN(name, last, status, count, pv, at) \
	LV_HEAD(name, last, status) SEG("1", "0", count, LINEAR(pv, at)) "}\n"

/* ---- a world of one scan ---- */

struct world {
	struct vdisk *disk[3];
	unsigned n;
	struct vdisk_lvm *lvm;
};

static inline void scan(struct world *w)
{
	struct vdisk_error err = { 0 };

	if (vdisk_lvm_scan(&w->lvm, w->disk, w->n, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Both devices hold the text of @lvs. */
static inline struct world both(const char *lvs)
{
	char *text = group_text(7, "", lvs);
	struct world w = { .disk = { device('a', text), device('b', text) }, .n = 2 };

	fill(w.disk[0], 'a');
	fill(w.disk[1], 'b');
	free(text);
	scan(&w);
	return w;
}

static inline void end(struct world *w)
{
	vdisk_lvm_free(w->lvm);
	for (unsigned i = 0; i < w->n; i++)
		vdisk_close(w->disk[i], NULL);
}

static inline const struct vdisk_lv *lv(const struct world *w, const char *name)
{
	const struct vdisk_vg *vg = vdisk_lvm_vg(w->lvm, 0);

	for (unsigned i = 0; i < vg->n_lvs; i++)
		if (!strcmp(vg->lv[i].name, name))
			return &vg->lv[i];
	fail_msg("no volume %s", name);
	return NULL;
}

static inline struct vdisk *open_lv(const struct world *w, const char *name, unsigned flags)
{
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;

	if (vdisk_open_lv(&d, w->lvm, "vg0", name, flags, &err) < 0)
		fail_msg("%s: %s", name, err.msg);
	return d;
}

/* Opening must fail with @code and a message with @why in it. */
static inline void refused(const struct world *w, const char *name, unsigned flags, int code,
		    const char *why)
{
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;

	assert_int_equal(vdisk_open_lv(&d, w->lvm, "vg0", name, flags, &err), -code);
	if (!strstr(err.msg, why))
		fail_msg("'%s' is not in '%s'", why, err.msg);
	assert_null(d);
}

#endif
