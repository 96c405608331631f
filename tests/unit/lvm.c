/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* LVM2 metadata made here, byte by byte: what is right is read, what is wrong is named. */
#include "tests/unit/lvm_made.h"

/* ---- the text ---- */

static int parse(const char *text, struct lvm_config *c, struct vdisk_error *err)
{
	return lvm_config_parse(c, strdup(text), strlen(text), err);
}

static void test_config(void **state)
{
	struct lvm_config c = { 0 };
	const struct lvm_node *a, *n;
	const char *s;
	uint64_t v;

	(void)state;
	assert_int_equal(parse("x=1 # c }\n a{b = \"q\\\"\\\\\\n\" c='\"' arr = [1, \"two\", -3,]"
			       "deep { f = 1.5 } e = [] }\n", &c, NULL), 0);
	assert_true(lvm_get_number(&c, &c.node[0], "x", &v));
	assert_int_equal(v, 1);
	a = lvm_find(&c, &c.node[0], "a");
	assert_non_null(a);
	assert_true(lvm_get_string(&c, a, "b", &s));
	assert_string_equal(s, "q\"\\\\n");
	assert_true(lvm_get_string(&c, a, "c", &s));
	assert_string_equal(s, "\"");
	assert_true(lvm_has_flag(&c, a, "arr", "two"));
	assert_false(lvm_has_flag(&c, a, "arr", "one"));
	n = lvm_first(&c, lvm_find(&c, a, "arr"));
	n = lvm_next(&c, lvm_next(&c, n));
	assert_int_equal(n->number, -3);
	assert_null(lvm_next(&c, n));
	assert_null(lvm_first(&c, lvm_find(&c, a, "e")));
	assert_false(lvm_get_number(&c, a, "b", &v));
	assert_false(lvm_get_string(&c, a, "nothing", &s));
	lvm_config_clear(&c);
}

static void test_config_bad(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "a {", "does not end" }, { "}", "without" }, { "a", "neither" },
		{ "a = ", "neither number" }, { "a = \"x", "does not end" },
		{ "a = [1 2]", "comma" }, { "a = [1,", "neither number" }, { "= 1", "name" },
		{ "a = 99999999999999999999", "range" }, { "\n\na = [[1]]", "line 3" },
		{ "a = 1 }", "without" }, { "a = {", "neither number" },
	};
	struct vdisk_error err = { 0 };
	struct lvm_config c = { 0 };
	char nest[2 * LVM_DEPTH_MAX + 3] = "";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse(bad[i].text, &c, &err), -EINVAL);
		if (!strstr(err.msg, bad[i].why))
			fail_msg("%s: %s", bad[i].text, err.msg);
	}
	for (unsigned i = 0; i < LVM_DEPTH_MAX; i++)
		strcat(nest, "a{");
	assert_int_equal(parse(nest, &c, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "deeply"));
	/* a NUL ends the text, in a string it is an error */
	assert_int_equal(lvm_config_parse(&c, memcpy(malloc(10), "a=1\0 b={ \0", 10), 9, &err), 0);
	lvm_config_clear(&c);
	assert_int_equal(lvm_config_parse(&c, memcpy(malloc(10), "a=\"1\0 b=\"\0", 10), 9, &err),
			 -EINVAL);
}

static void test_config_huge(void **state)
{
	const size_t n = 3000000;
	char *text = malloc(2 * n + 8);
	struct vdisk_error err = { 0 };
	struct lvm_config c = { 0 };

	(void)state;
	memcpy(text, "a = [", 5);
	for (size_t i = 0; i < n; i++)
		memcpy(text + 5 + 2 * i, "1,", 2);
	strcpy(text + 5 + 2 * n, "]");
	assert_int_equal(lvm_config_parse(&c, text, strlen(text), &err), -EINVAL);
	assert_non_null(strstr(err.msg, "too much"));
}

/* ---- the binary structures ---- */

static void test_label(void **state)
{
	struct lvm_label l;
	uint8_t head[LVM_LABEL_SCAN];
	struct vdisk *d = blank();
	const char *why = NULL;

	(void)state;
	assert_int_equal(vdisk_read(d, head, sizeof(head), 0), 0);
	assert_int_equal(lvm_label_decode(&l, head, sizeof(head), &why), -ENOENT);
	for (unsigned sector = 0; sector < 4; sector++) {
		vdisk_zero(d, 0, MIB, 0);
		put_label(d, 'a', sector, 2);
		assert_int_equal(vdisk_read(d, head, sizeof(head), 0), 0);
		assert_int_equal(lvm_label_decode(&l, head, sizeof(head), &why), 0);
		assert_string_equal(l.uuid, id('a'));
		assert_int_equal(l.n_data, 1);
		assert_int_equal(l.n_meta, 2);
		assert_int_equal(l.meta[1].offset, MDA2_AT);
		assert_int_equal(lvm_label_decode(&l, head, 512 * sector, &why), -ENOENT);
	}
	/* every byte that counts is under the checksum */
	for (unsigned at = 0; at < 512; at++) {
		uint8_t bad[LVM_LABEL_SCAN];

		memcpy(bad, head, sizeof(bad));
		bad[3 * 512 + at] ^= 1;
		assert_int_not_equal(lvm_label_decode(&l, bad, sizeof(bad), &why), 0);
	}
	vdisk_close(d, NULL);
}

static int decode_changed(uint8_t head[LVM_LABEL_SCAN], unsigned at, uint64_t v, const char **why)
{
	struct lvm_label l;
	uint8_t bad[LVM_LABEL_SCAN];

	memcpy(bad, head, sizeof(bad));
	store_le64(bad + 512 + at, v);
	store_le32(bad + 512 + 16, lvm_crc(bad + 512 + 20, 492));
	return lvm_label_decode(&l, bad, sizeof(bad), why);
}

static void test_label_bad(void **state)
{
	uint8_t head[LVM_LABEL_SCAN];
	struct lvm_label l;
	struct vdisk *d = blank();
	const char *why = NULL;

	(void)state;
	put_label(d, 'a', 1, 1);
	assert_int_equal(vdisk_read(d, head, sizeof(head), 0), 0);
	assert_int_equal(decode_changed(head, 72, MIB, &why), 0);
	assert_int_equal(decode_changed(head, 72, MIB + 1, &why), -EINVAL);
	assert_int_equal(decode_changed(head, 72 + 40, UINT64_MAX, &why), -EINVAL);
	assert_int_equal(decode_changed(head, 32, 0, &why), -EINVAL);	/* no UUID */
	assert_int_equal(decode_changed(head, 8, 2, &why), -EINVAL);	/* another sector */
	/* the list of areas never ends */
	for (unsigned at = 72; at < 512 - 16; at += 16)
		store_le64(head + 512 + at, MIB);
	assert_int_equal(decode_changed(head, 72, MIB, &why), -EINVAL);
	/* nor does the PV header lie in the sector */
	store_le32(head + 512 + 20, 500);
	assert_int_equal(decode_changed(head, 72, MIB, &why), -EINVAL);
	store_le32(head + 512 + 20, 0xffffffff);
	assert_int_equal(decode_changed(head, 72, MIB, &why), -EINVAL);
	/* a broken label in front of a good one */
	put_label(d, 'b', 3, 1);
	assert_int_equal(vdisk_read(d, head, sizeof(head), 0), 0);
	head[512 + 100] ^= 1;
	assert_int_equal(lvm_label_decode(&l, head, sizeof(head), &why), 0);
	assert_string_equal(l.uuid, id('b'));
	vdisk_close(d, NULL);
}

static void test_mda_bad(void **state)
{
	static const struct {
		unsigned at;
		uint64_t v;
		int want;
	} changes[] = {
		{ 40, 512, 0 }, { 40, 511, -EINVAL }, { 40, MDA_SIZE, -EINVAL },
		{ 40, UINT64_MAX, -EINVAL }, { 48, 0, -EINVAL }, { 48, MDA_SIZE, -EINVAL },
		{ 48, MDA_SIZE - 512, 0 }, { 48, UINT64_MAX, -EINVAL }, { 24, 512, -EINVAL },
		{ 32, 2 * MDA_SIZE, -EINVAL }, { 4, 0, -EINVAL }, { 40, 0, 0 },
	};
	struct lvm_area area = { MDA_AT, MDA_SIZE };
	struct lvm_text_place p;
	struct vdisk *d = device('a', "x");
	uint8_t h[512], bad[512];
	const char *why = NULL;

	(void)state;
	assert_int_equal(vdisk_read(d, h, sizeof(h), MDA_AT), 0);
	assert_int_equal(lvm_mda_decode(&p, h, &area, &why), 0);
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		memcpy(bad, h, sizeof(h));
		store_le64(bad + changes[i].at, changes[i].v);
		store_le32(bad, lvm_crc(bad + 4, 508));
		assert_int_equal(lvm_mda_decode(&p, bad, &area, &why), changes[i].want);
	}
	assert_true(p.empty);
	memcpy(bad, h, sizeof(h));
	bad[511] ^= 1;
	assert_int_equal(lvm_mda_decode(&p, bad, &area, &why), -EINVAL);
	vdisk_close(d, NULL);
}

/* ---- whose metadata counts ---- */

static void test_wrap(void **state)
{
	char *text = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	size_t len = strlen(text) + 1;

	(void)state;
	/* cut at the start, the middle and just before the end */
	for (size_t cut = 1; cut < len; cut += len / 7) {
		struct world w = { .disk = { blank() }, .n = 1 };

		put_label(w.disk[0], 'a', 1, 1);
		put_text(w.disk[0], MDA_AT, text, MDA_SIZE - cut);
		scan(&w);
		assert_non_null(vdisk_lvm_vg(w.lvm, 0));
		assert_string_equal(lv(&w, "one")->reason, "");
		end(&w);
	}
	free(text);
}

static void test_two_areas(void **state)
{
	char *text = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));

	(void)state;
	/* either one may be damaged: in its header, or in its text; then it is said */
	for (unsigned damage = 0; damage < 6; damage++) {
		struct world w = { .disk = { blank() }, .n = 1 };
		uint64_t at = (damage & 1 ? MDA2_AT : MDA_AT) + (damage & 2 ? 600 : 60);

		put_label(w.disk[0], 'a', 1, 2);
		put_text(w.disk[0], MDA_AT, text, 512);
		put_text(w.disk[0], MDA2_AT, text, 4096);
		if (damage < 4)
			put(w.disk[0], "?!?!", 4, damage == 3 ? MDA2_AT + 4200 : at);
		scan(&w);
		assert_non_null(vdisk_lvm_vg(w.lvm, 0));
		assert_int_equal(!!strstr(vdisk_lvm_pv(w.lvm, 0)->problem, "checksum"), damage < 4);
		end(&w);
	}
	free(text);
}

static void test_only_area_bad(void **state)
{
	struct world w = { .disk = { device('a', "vg0 { }") }, .n = 1 };
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;

	(void)state;
	scan(&w);
	assert_null(vdisk_lvm_vg(w.lvm, 0));
	assert_non_null(strstr(vdisk_lvm_pv(w.lvm, 0)->problem, "no volume group"));
	assert_int_equal(vdisk_open_lv(&d, w.lvm, "vg0", "x", 0, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no volume group"));
	end(&w);
}

static void test_ignored_area(void **state)
{
	char *old = group_text(3, "", PLAIN("old", "1", VISIBLE, "1", "pv0", "2"));
	struct world w = { .disk = { device('a', old) }, .n = 1 };
	uint8_t h[512];

	(void)state;
	assert_int_equal(vdisk_read(w.disk[0], h, sizeof(h), MDA_AT), 0);
	store_le32(h + 60, 1);
	store_le32(h, lvm_crc(h + 4, 508));
	put(w.disk[0], h, sizeof(h), MDA_AT);
	scan(&w);
	assert_null(vdisk_lvm_vg(w.lvm, 0));
	assert_string_equal(vdisk_lvm_pv(w.lvm, 0)->problem, "");
	end(&w);
	free(old);
}

static void test_newest_counts(void **state)
{
	char *old = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	char *new = group_text(4, "", PLAIN("one", "1", VISIBLE, "2", "pv1", "5"));

	(void)state;
	for (unsigned turn = 0; turn < 2; turn++) {
		struct world w = { .disk = { device('a', turn ? old : new),
					     device('b', turn ? new : old) }, .n = 2 };

		scan(&w);
		assert_null(vdisk_lvm_vg(w.lvm, 1));
		assert_int_equal(vdisk_lvm_vg(w.lvm, 0)->seqno, 4);
		assert_int_equal(lv(&w, "one")->size, 2 * EXTENT);
		assert_non_null(strstr(vdisk_lvm_vg(w.lvm, 0)->problem, "stale"));
		end(&w);
	}
	free(old);
	free(new);
}

static void test_same_seqno_differs(void **state)
{
	char *one = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	char *two = group_text(3, "", PLAIN("two", "1", VISIBLE, "1", "pv0", "2"));
	struct world w = { .disk = { device('a', one), device('b', two) }, .n = 2 };

	(void)state;
	scan(&w);
	assert_non_null(strstr(vdisk_lvm_vg(w.lvm, 0)->problem, "two versions"));
	end(&w);
	free(one);
	free(two);
}

/* ---- the map ---- */

static void test_linear(void **state)
{
	/* out of order, and over both devices */
	struct world w = both(LV_HEAD("root", "1", VISIBLE)
			      SEG("2", "3", "1", LINEAR("pv0", "0"))
			      SEG("1", "0", "3", LINEAR("pv1", "12")) "}\n");
	struct vdisk *d = open_lv(&w, "root", VDISK_OPEN_WRITE);
	const struct vdisk_vg *vg = vdisk_lvm_vg(w.lvm, 0);
	struct vdisk_extent e;

	(void)state;
	assert_string_equal(lv(&w, "root")->type, "linear");
	assert_true(lv(&w, "root")->writable);
	assert_int_equal(vg->size, 30 * EXTENT);
	assert_int_equal(vg->free, 26 * EXTENT);
	assert_string_equal(vg->pv[1].hint, "/dev/xb");
	assert_int_equal(vdisk_size(d), 4 * EXTENT);
	expect_tag(d, 0, "b12.0");
	expect_tag(d, 2 * EXTENT + 4096, "b14.1");
	expect_tag(d, 3 * EXTENT, "a0.0");
	assert_int_equal(vdisk_map(d, 2 * EXTENT, 4 * EXTENT, &e), 0);
	assert_int_equal(e.length, EXTENT);
	assert_ptr_equal(e.source, w.disk[1]);
	/* a write over the seam of the devices */
	put(d, "01234567" "89abcdef", 17, 3 * EXTENT - 8);
	assert_int_equal(vdisk_flush(d), 0);
	expect_tag(w.disk[0], MIB, "89abcdef");
	/* it keeps what it needs */
	end(&w);
	expect_tag(d, 0, "b12.0");
	assert_int_equal(vdisk_close(d, NULL), 0);
}

static void test_striped(void **state)
{
	struct world w = both(LV_HEAD("fast", "1", VISIBLE)
			      SEG("1", "0", "4", "type = \"striped\" stripe_count = 2 "
				  "stripe_size = 16 stripes = [\"pv0\", 3, \"pv1\", 9]") "}\n");
	struct vdisk *d = open_lv(&w, "fast", 0);

	(void)state;
	assert_string_equal(lv(&w, "fast")->type, "striped");
	expect_tag(d, 0, "a3.0");
	expect_tag(d, 4096, "a3.1");
	expect_tag(d, 8192, "b9.0");
	expect_tag(d, 16384, "a3.2");
	expect_tag(d, 4 * EXTENT - 4096, "b10.255");
	assert_false(vdisk_writable(d));
	assert_int_equal(vdisk_write(d, "x", 1, 0), -EROFS);
	vdisk_close(d, NULL);
	end(&w);
}

/* Legs of "m": on pv0 from extent 1, on pv1 from 2; superblocks in extents 0 of both. */
#define RAID1 LV_HEAD("m", "1", VISIBLE) \
	SEG("1", "0", "2", "type = \"raid1\" device_count = 2 region_size = 4096 " \
	    "raids = [\"m_rmeta_0\", \"m_rimage_0\", \"m_rmeta_1\", \"m_rimage_1\"]") "}\n" \
	PLAIN("m_rmeta_0", "2", HIDDEN, "1", "pv0", "0") \
	PLAIN("m_rmeta_1", "3", HIDDEN, "1", "pv1", "0") \
	PLAIN("m_rimage_0", "4", HIDDEN, "2", "pv0", "1") \
	PLAIN("m_rimage_1", "5", HIDDEN, "2", "pv1", "2")

static void put_super(struct vdisk *d, uint64_t events, uint64_t failed, uint64_t recovered)
{
	uint8_t s[40] = "DmRd";

	store_le64(s + 16, events);
	store_le64(s + 24, failed);
	store_le64(s + 32, recovered);
	put(d, s, sizeof(s), MIB);
}

static void test_raid1(void **state)
{
	static const struct {
		uint64_t events[2], failed[2], recovered[2];
		const char *first;	/* what is read, or NULL */
	} cases[] = {
		{ { 5, 5 }, { 0, 0 }, { UINT64_MAX, UINT64_MAX }, "a1.0" },
		{ { 4, 5 }, { 0, 1 }, { UINT64_MAX, UINT64_MAX }, "b2.0" },
		{ { 5, 5 }, { 0, 1 }, { UINT64_MAX, UINT64_MAX }, "a1.0" },
		{ { 5, 5 }, { 1, 1 }, { UINT64_MAX, UINT64_MAX }, "b2.0" },
		{ { 5, 5 }, { 0, 0 }, { 100, UINT64_MAX }, "b2.0" },
		{ { 5, 5 }, { 0, 0 }, { 100, 100 }, NULL },
		{ { 6, 5 }, { 0, 0 }, { 7, UINT64_MAX }, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct world w = both(RAID1);
		struct vdisk *d;

		for (unsigned k = 0; k < 2; k++)
			put_super(w.disk[k], cases[i].events[k], cases[i].failed[k],
				  cases[i].recovered[k]);
		assert_string_equal(lv(&w, "m")->reason, "");
		assert_true(lv(&w, "m_rmeta_0")->hidden);
		if (cases[i].first) {
			d = open_lv(&w, "m", 0);
			expect_tag(d, 0, cases[i].first);
			vdisk_close(d, NULL);
		} else {
			refused(&w, "m", 0, EIO, "no copy");
		}
		refused(&w, "m", VDISK_OPEN_WRITE, EROFS, "every copy");
		end(&w);
	}
}

static void test_raid1_half(void **state)
{
	char *text = group_text(7, "", RAID1);
	struct world w = { .disk = { device('b', text) }, .n = 1 };
	struct vdisk *d;

	(void)state;
	fill(w.disk[0], 'b');
	put_super(w.disk[0], 5, 0, UINT64_MAX);
	scan(&w);
	assert_non_null(strstr(vdisk_lvm_vg(w.lvm, 0)->problem, "missing"));
	d = open_lv(&w, "m", 0);
	expect_tag(d, 0, "b2.0");
	vdisk_close(d, NULL);
	refused(&w, "m_rimage_0", 0, ENODEV, "/dev/xa");
	end(&w);
	free(text);
}

static void test_mirror_and_raid0(void **state)
{
	struct world w = both(LV_HEAD("m", "1", VISIBLE)
			      SEG("1", "0", "2", "type = \"mirror\" mirror_count = 2 "
				  "mirrors = [\"m_0\", 0, \"m_1\", 0]") "}\n"
			      PLAIN("m_0", "2", HIDDEN, "2", "pv1", "4")
			      PLAIN("m_1", "3", HIDDEN, "2", "pv0", "4")
			      LV_HEAD("z", "4", VISIBLE)
			      SEG("1", "0", "2", "type = \"raid0\" stripe_count = 2 "
				  "stripe_size = 8 raid0_lvs = [\"z_0\", \"z_1\"]") "}\n"
			      PLAIN("z_0", "5", HIDDEN, "1", "pv0", "8")
			      PLAIN("z_1", "6", HIDDEN, "1", "pv1", "9"));
	struct vdisk *d = open_lv(&w, "m", 0);

	(void)state;
	expect_tag(d, 0, "b4.0");
	vdisk_close(d, NULL);
	refused(&w, "m", VDISK_OPEN_WRITE, EROFS, "every copy");
	refused(&w, "z_0", VDISK_OPEN_WRITE, EROFS, "a piece");
	d = open_lv(&w, "z", VDISK_OPEN_WRITE);
	expect_tag(d, 4096, "b9.0");
	expect_tag(d, 8192, "a8.1");
	put(d, "written.", 9, 8192);
	assert_int_equal(vdisk_flush(d), 0);
	expect_tag(w.disk[0], MIB + 8 * EXTENT + 4096, "written.");
	vdisk_close(d, NULL);
	end(&w);
}

/* ---- what is refused ---- */

static void test_other_types(void **state)
{
	struct world w = both(PLAIN("root", "1", VISIBLE, "2", "pv0", "0")
			      PLAIN("store", "2", HIDDEN, "1", "pv0", "2")
			      LV_HEAD("snapshot0", "3", VISIBLE)
			      SEG("1", "0", "2", "type = \"snapshot\" chunk_size = 8 "
				  "origin = \"root\" cow_store = \"store\"") "}\n"
			      LV_HEAD("t", "4", VISIBLE)
			      SEG("1", "0", "9", "type = \"thin\" thin_pool = \"p\" device_id = 1")
			      "}\n"
			      LV_HEAD("r5", "5", VISIBLE)
			      SEG("1", "0", "2", "type = \"raid5_ls\" device_count = 3") "}\n"
			      PLAIN("ro", "6", "\"READ\", \"VISIBLE\"", "1", "pv0", "5"));

	(void)state;
	refused(&w, "store", 0, ENOTSUP, "snapshots are not supported");
	assert_false(lv(&w, "store")->hidden);
	assert_string_equal(lv(&w, "store")->type, "snapshot");
	assert_true(lv(&w, "snapshot0")->hidden);
	refused(&w, "t", 0, ENOTSUP, "type thin");
	refused(&w, "r5", 0, ENOTSUP, "raid5_ls");
	refused(&w, "ro", VDISK_OPEN_WRITE, EROFS, "read-only");
	refused(&w, "root", VDISK_OPEN_WRITE, EROFS, "snapshots");
	vdisk_close(open_lv(&w, "root", 0), NULL);
	refused(&w, "none", 0, ENOENT, "no volume 'none'");
	end(&w);
}

static void test_merging(void **state)
{
	struct world w = both(PLAIN("root", "1", VISIBLE, "2", "pv0", "0")
			      PLAIN("store", "2", HIDDEN, "1", "pv0", "2")
			      LV_HEAD("snapshot0", "3", VISIBLE)
			      SEG("1", "0", "2", "type = \"snapshot\" chunk_size = 8 "
				  "origin = \"root\" merging_store = \"store\"") "}\n");

	(void)state;
	refused(&w, "root", 0, ENOTSUP, "being merged");
	end(&w);
}

static void test_hostile_volumes(void **state)
{
	struct world w = both(
		PLAIN("past", "1", VISIBLE, "2", "pv0", "14")
		PLAIN("far", "2", VISIBLE, "1", "pv0", "9223372036854775807")
		PLAIN("huge", "3", VISIBLE, "9223372036854775807", "pv1", "0")
		PLAIN("over1", "4", VISIBLE, "3", "pv0", "3")
		PLAIN("over2", "5", VISIBLE, "1", "pv0", "4")
		LV_HEAD("gap", "6", VISIBLE) SEG("1", "1", "1", LINEAR("pv1", "1")) "}\n"
		LV_HEAD("twice", "7", VISIBLE) SEG("1", "0", "2", LINEAR("pv1", "2"))
		SEG("2", "1", "2", LINEAR("pv1", "4")) "}\n"
		LV_HEAD("self", "8", VISIBLE) SEG("1", "0", "1", LINEAR("self", "0")) "}\n"
		LV_HEAD("x", "9", VISIBLE) SEG("1", "0", "1", LINEAR("y", "0")) "}\n"
		LV_HEAD("y", "a", VISIBLE) SEG("1", "0", "1", LINEAR("x", "0")) "}\n"
		LV_HEAD("nobody", "b", VISIBLE) SEG("1", "0", "1", LINEAR("pv9", "0")) "}\n"
		LV_HEAD("empty", "c", VISIBLE) "}\n"
		LV_HEAD("none", "d", VISIBLE) SEG("1", "0", "1", "type = \"striped\" "
			"stripe_count = 0 stripes = []") "}\n"
		LV_HEAD("many", "e", VISIBLE) SEG("1", "0", "1", "type = \"striped\" "
			"stripe_count = 4000000000 stripes = [\"pv0\", 7]") "}\n"
		LV_HEAD("odd", "f", VISIBLE) SEG("1", "0", "3", "type = \"striped\" "
			"stripe_count = 2 stripe_size = 8 stripes = [\"pv0\", 8, \"pv1\", 8]") "}\n"
		LV_HEAD("nosize", "g", VISIBLE) SEG("1", "0", "2", "type = \"striped\" "
			"stripe_count = 2 stripes = [\"pv0\", 8, \"pv1\", 8]") "}\n"
		LV_HEAD("rmeta", "h", VISIBLE) SEG("1", "0", "1", "type = \"raid1\" "
			"device_count = 1 raids = [\"rmeta\", \"over1\"]") "}\n");

	(void)state;
	refused(&w, "past", 0, EINVAL, "past the end");
	refused(&w, "far", 0, EINVAL, "past the end");
	refused(&w, "huge", 0, EINVAL, "larger than");
	refused(&w, "over1", 0, EINVAL, "overlaps");
	refused(&w, "over2", 0, EINVAL, "overlaps the volume over1");
	refused(&w, "gap", 0, EINVAL, "leave a gap at extent 0");
	refused(&w, "twice", 0, EINVAL, "overlap at extent 2");
	refused(&w, "self", 0, EINVAL, "itself");
	refused(&w, "x", 0, EINVAL, "itself");
	refused(&w, "y", 0, EINVAL, "itself");
	refused(&w, "nobody", 0, EINVAL, "segment1 makes no sense");
	refused(&w, "empty", 0, EINVAL, "no segments");
	refused(&w, "none", 0, EINVAL, "makes no sense");
	refused(&w, "many", 0, EINVAL, "makes no sense");
	refused(&w, "odd", 0, EINVAL, "makes no sense");
	refused(&w, "nosize", 0, EINVAL, "makes no sense");
	refused(&w, "rmeta", 0, EINVAL, "");
	end(&w);
}

/* Chains of volumes on volumes end somewhere, and trees do not explode. */
static void test_hostile_stacks(void **state)
{
	char lvs[60000] = "", one[400];
	struct world w;

	(void)state;
	for (unsigned i = 0; i < 60; i++) {
		snprintf(one, sizeof(one), "s%u { id = \"" IDS "1\" status = [" VISIBLE "] "
			 "segment1 { start_extent = 0 extent_count = 1 type = \"striped\" "
			 "stripe_count = 1 stripes = [\"s%u\", 0] } }\n", i, i + 1);
		strcat(lvs, one);
	}
	strcat(lvs, PLAIN("s60", "2", VISIBLE, "1", "pv0", "0"));
	for (unsigned i = 0; i < 40; i++) {
		snprintf(one, sizeof(one), "d%u { id = \"" IDS "1\" status = [" VISIBLE "] "
			 "segment1 { start_extent = 0 extent_count = 2 type = \"striped\" "
			 "stripe_count = 2 stripe_size = 8 stripes = [\"d%u\", 0, \"d%u\", 0] } }\n",
			 i, i + 1, i + 1);
		strcat(lvs, one);
	}
	strcat(lvs, PLAIN("d40", "2", VISIBLE, "2", "pv0", "2"));
	w = both(lvs);
	refused(&w, "s0", 0, EINVAL, "stacked");
	vdisk_close(open_lv(&w, "s60", 0), NULL);
	refused(&w, "d0", 0, EINVAL, "");
	end(&w);
}

static void test_metadata_is_safe(void **state)
{
	char *text = group_text(7, "", PLAIN("evil", "1", VISIBLE, "1", "pv0", "0"));
	char *at = strstr(text, "pe_start = 2048");
	struct world w = { .n = 1 };

	(void)state;
	memcpy(at, "pe_start = 0008", 15);	/* 4096: on the metadata area */
	w.disk[0] = device('a', text);
	scan(&w);
	refused(&w, "evil", 0, EINVAL, "on the metadata");
	end(&w);
	memcpy(at, "pe_start = 0000", 15);
	w = (struct world) { .disk = { device('a', text) }, .n = 1 };
	scan(&w);
	refused(&w, "evil", 0, EINVAL, "on the label");
	end(&w);
	free(text);
}

static void test_bad_groups(void **state)
{
	static const struct {
		const char *from, *to;
	} changes[] = {
		{ "extent_size = 2048", "extent_size = 0" },
		{ "extent_size = 2048", "extent_size = 9223372036854775807" },
		{ "extent_size = 2048", "extent_size = -1" },
		{ "pe_count = 15", "pe_count = 9223372036854775807" },
		{ "pe_start = 2048", "pe_start = -2048" },
		{ "seqno = 7", "seqno = \"7\"" }, { "vg0 {", "vg/0 {" }, { "vg0 {", ".. {" },
		{ "physical_volumes {", "physical_volumes = 1 x {" },
		{ "pv1 {", "pv0 {" }, { "one {", "-one {" }, { "seqno = 7 ", "" },
	};
	char *text = group_text(7, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "0"));

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		char *at = strstr(text, changes[i].from);
		char *bad = textf("%.*s%s%s", (int)(at - text), text, changes[i].to,
				  at + strlen(changes[i].from));
		struct world w = { .disk = { device('a', bad) }, .n = 1 };

		scan(&w);
		if (vdisk_lvm_vg(w.lvm, 0))
			fail_msg("'%s' was taken", changes[i].to);
		assert_string_not_equal(vdisk_lvm_pv(w.lvm, 0)->problem, "");
		end(&w);
		free(bad);
	}
	free(text);
}

/* ---- devices ---- */

static void test_missing(void **state)
{
	char *text = group_text(7, "", PLAIN("here", "1", VISIBLE, "1", "pv0", "0")
				PLAIN("gone", "2", VISIBLE, "1", "pv1", "0"));
	struct world w = { .disk = { device('a', text) }, .n = 1 };
	const struct vdisk_vg *vg;

	(void)state;
	scan(&w);
	vg = vdisk_lvm_vg(w.lvm, 0);
	assert_string_equal(vg->problem, "1 of its 2 physical volumes is missing");
	assert_false(vg->pv[0].missing);
	assert_true(vg->pv[1].missing);
	vdisk_close(open_lv(&w, "here", VDISK_OPEN_WRITE), NULL);
	refused(&w, "gone", 0, ENODEV, "/dev/xb");
	end(&w);
	free(text);
}

/* Its group went on without it: what it holds is old even where it is back. */
static void test_given_up(void **state)
{
	char *text = group_text(7, "flags = [\"MISSING\"]",
				PLAIN("old", "1", VISIBLE, "1", "pv0", "0"));
	struct world w = { .disk = { device('a', text), device('b', text) }, .n = 2 };

	(void)state;
	scan(&w);
	refused(&w, "old", 0, ENODEV, "given it up");
	end(&w);
	free(text);
}

static void test_duplicates(void **state)
{
	char *text = group_text(7, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "0")
				PLAIN("two", "2", VISIBLE, "1", "pv1", "0"));
	struct world w = { .disk = { device('a', text), device('b', text), device('a', text) },
			   .n = 3 };

	(void)state;
	scan(&w);
	refused(&w, "one", 0, ENODEV, "same UUID");
	vdisk_close(open_lv(&w, "two", 0), NULL);
	end(&w);
	free(text);
}

static void test_shrunk_device(void **state)
{
	char *text = group_text(7, "", PLAIN("one", "1", VISIBLE, "2", "pv0", "0")
				PLAIN("two", "2", VISIBLE, "3", "pv0", "10"));
	struct vdisk *whole = device('a', text);
	struct world w = { .n = 1 };

	(void)state;
	assert_int_equal(vdisk_open_window(&w.disk[0], whole, 0, 12 * MIB, NULL), 0);
	scan(&w);
	vdisk_close(open_lv(&w, "one", 0), NULL);
	refused(&w, "two", 0, EINVAL, "past the end of its device");
	vdisk_close(whole, NULL);
	end(&w);
	free(text);
}

/* Another group claims pv0; its own metadata knows better. */
static void test_foreign_claim(void **state)
{
	char *mine = group_text(7, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "0"));
	char *other = strdup(mine), *at;
	struct world w = { .n = 2 };
	struct vdisk_error err = { 0 };
	struct vdisk *d = NULL;

	(void)state;
	at = strstr(other, id('v'));
	at[strlen(id('v')) - 1] = 'w';
	w.disk[0] = device('a', mine);
	w.disk[1] = device('b', other);
	scan(&w);
	assert_non_null(vdisk_lvm_vg(w.lvm, 1));
	assert_non_null(strstr(vdisk_lvm_vg(w.lvm, 0)->problem, "missing"));
	/* two groups of one name: only the UUID says which */
	assert_int_equal(vdisk_open_lv(&d, w.lvm, "vg0", "one", 0, &err), -ENOTUNIQ);
	assert_int_equal(vdisk_open_lv(&d, w.lvm, id('v'), "one", 0, &err), 0);
	vdisk_close(d, NULL);
	assert_int_equal(vdisk_open_lv(&d, w.lvm, id('w'), "one", 0, &err), -ENODEV);
	assert_non_null(strstr(err.msg, "another group"));
	end(&w);
	free(mine);
	free(other);
}

/* Two physical volumes in partitions of one disk, by locator. */
static void test_partitions(void **state)
{
	char *text = group_text(7, "", LV_HEAD("root", "1", VISIBLE)
				SEG("1", "0", "2", "type = \"striped\" stripe_count = 2 "
				    "stripe_size = 8 stripes = [\"pv0\", 0, \"pv1\", 0]") "}\n");
	uint8_t mbr[512] = { [510] = 0x55, [511] = 0xaa };
	struct vdisk *disk = NULL, *d = NULL;
	struct vdisk_error err = { 0 };

	(void)state;
	assert_int_equal(vdisk_open_memory(&disk, 2 * PV_SIZE + 2 * MIB, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t at = MIB + i * PV_SIZE;
		struct vdisk *part = NULL;

		mbr[446 + 16 * i + 4] = 0x8e;
		store_le32(mbr + 446 + 16 * i + 8, (uint32_t)(at / 512));
		store_le32(mbr + 446 + 16 * i + 12, (uint32_t)(PV_SIZE / 512));
		assert_int_equal(vdisk_open_window(&part, disk, at, PV_SIZE, NULL), 0);
		put_label(part, i ? 'b' : 'a', 1, 1);
		put_text(part, MDA_AT, text, 512);
		fill(part, i ? 'b' : 'a');
		vdisk_close(part, NULL);
	}
	put(disk, mbr, sizeof(mbr), 0);
	assert_int_equal(vdisk_open_part(&d, disk, "vg0/root", &err), 0);
	expect_tag(d, 0, "a0.0");
	expect_tag(d, 4096, "b0.0");
	assert_true(vdisk_writable(d));
	assert_string_equal(vdisk_format(d), "lvm");
	put(d, "x", 1, 5000);
	assert_int_equal(vdisk_flush(d), 0);
	vdisk_close(d, NULL);
	assert_int_equal(vdisk_open_part(&d, disk, "vg1/root", &err), -ENOENT);
	assert_int_equal(vdisk_open_part(&d, disk, "vg0/", &err), -ENOENT);
	vdisk_close(disk, NULL);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_config_bad),
		cmocka_unit_test(test_config_huge),
		cmocka_unit_test(test_label),
		cmocka_unit_test(test_label_bad),
		cmocka_unit_test(test_mda_bad),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_two_areas),
		cmocka_unit_test(test_only_area_bad),
		cmocka_unit_test(test_ignored_area),
		cmocka_unit_test(test_newest_counts),
		cmocka_unit_test(test_same_seqno_differs),
		cmocka_unit_test(test_linear),
		cmocka_unit_test(test_striped),
		cmocka_unit_test(test_raid1),
		cmocka_unit_test(test_raid1_half),
		cmocka_unit_test(test_mirror_and_raid0),
		cmocka_unit_test(test_other_types),
		cmocka_unit_test(test_merging),
		cmocka_unit_test(test_hostile_volumes),
		cmocka_unit_test(test_hostile_stacks),
		cmocka_unit_test(test_metadata_is_safe),
		cmocka_unit_test(test_bad_groups),
		cmocka_unit_test(test_missing),
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_shrunk_device),
		cmocka_unit_test(test_foreign_claim),
		cmocka_unit_test(test_partitions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
