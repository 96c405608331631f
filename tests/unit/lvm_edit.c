/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names and UUIDs of LVM2 groups and volumes changed: the text, the areas, and crashes between. */
#include "tests/unit/lvm_made.h"

#include "tests/lib/memlog.h"

static struct vdisk_lvm_change renamed(const char *vg, const char *lv, const char *lv_name)
{
	return (struct vdisk_lvm_change) {
		.size = sizeof(struct vdisk_lvm_change), .vg_name = vg, .lv = lv, .lv_name = lv_name,
	};
}

/* ---- the text ---- */

/* @text with @ch; free() it. */
static char *changed(const char *text, const struct vdisk_lvm_change *ch)
{
	struct vdisk_error err = { 0 };
	char *out = NULL;
	size_t len = 0;

	if (lvm_text_change(&out, &len, text, strlen(text), ch, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(strlen(out), len);
	return out;
}

static void text_refused(const char *text, const struct vdisk_lvm_change *ch, int code,
			 const char *why)
{
	struct vdisk_error err = { 0 };
	char *out = NULL;
	size_t len = 0;

	assert_int_equal(lvm_text_change(&out, &len, text, strlen(text), ch, &err), -code);
	if (!strstr(err.msg, why))
		fail_msg("'%s' is not in '%s'", why, err.msg);
	assert_null(out);
}

/* Replace @from in @text, which may not hold it more than once. */
static char *with(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);

	assert_non_null(at);
	assert_null(strstr(at + 1, from));
	return textf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static void test_group_renamed(void **state)
{
	char *old = group_text(7, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	struct vdisk_lvm_change ch = renamed("other", NULL, NULL);
	char *new = changed(old, &ch), *half, *third, *want;

	(void)state;
	half = with(old, "vg0 {", "other {");
	third = with(half, "seqno = 7", "seqno = 8");
	want = with(third, "\"a \\\"quoted\\\" } { thing\"", "\"Written by vdisk\"");
	assert_string_equal(new, want);		/* and not a byte else */
	free(old), free(new), free(half), free(third), free(want);
}

/* A mirror of raid legs, a snapshot, a thin pool with a volume, and traps. */
#define FAMILY \
	LV_HEAD("root", "1", VISIBLE) SEG("1", "0", "2", \
		"type = \"raid1\" device_count = 2 raids = [\"root_rmeta_0\", \"root_rimage_0\", " \
		"\"root_rmeta_1\", \"root_rimage_1\"]") "}\n" \
	PLAIN("root_rmeta_0", "2", HIDDEN, "1", "pv0", "0") \
	PLAIN("root_rimage_0", "3", HIDDEN, "2", "pv0", "1") \
	PLAIN("root_rmeta_1", "4", HIDDEN, "1", "pv1", "0") \
	PLAIN("root_rimage_1", "5", HIDDEN, "2", "pv1", "1") \
	PLAIN("root_other", "6", VISIBLE, "1", "pv1", "5") \
	PLAIN("striped", "7", VISIBLE, "1", "pv1", "6") \
	PLAIN("back", "8", HIDDEN, "1", "pv1", "7") \
	LV_HEAD("snapshot0", "9", HIDDEN) SEG("1", "0", "2", \
		"type = \"snapshot\" chunk_size = 8 origin = \"root\" cow_store = \"back\"") "}\n" \
	LV_HEAD("pool", "a", VISIBLE) SEG("1", "0", "1", \
		"type = \"thin-pool\" metadata = \"pool_tmeta\" pool = \"pool_tdata\" " \
		"message1 { create = \"root_other\" }") "}\n" \
	PLAIN("pool_tmeta", "b", HIDDEN, "1", "pv1", "8") \
	PLAIN("pool_tdata", "c", HIDDEN, "1", "pv1", "9") \
	LV_HEAD("thin", "d", VISIBLE) SEG("1", "0", "1", \
		"type = \"thin\" thin_pool = \"pool\" device_id = 1 tags = [\"pool\"]") "}\n"

static void test_pieces_follow(void **state)
{
	static const struct {
		const char *lv, *new, *want[6], *left[3];
	} cases[] = {
		{ "root", "top", { "top {", "[\"top_rmeta_0\", \"top_rimage_0\", \"top_rmeta_1\", "
		  "\"top_rimage_1\"]", "top_rimage_1 {", "origin = \"top\"", "root_other {" },
		  { "\"root\"", "root_r" } },
		{ "pool", "sea", { "sea {", "sea_tmeta {", "pool = \"sea_tdata\"",
		  "thin_pool = \"sea\"", "tags = [\"pool\"]" }, { "\"pool_t", "pool {" } },
		{ "back", "save", { "save {", "cow_store = \"save\"" }, { "\"back\"" } },
		{ "root_other", "x", { "x {", "create = \"x\"" }, { "root_other" } },
		{ "striped", "y", { "y {", "type = \"striped\"" }, { "striped {" } },
		{ IDS "d", "z", { "z {" }, { "thin {" } },
	};
	char *old = group_text(7, "", FAMILY);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vdisk_lvm_change ch = renamed(NULL, cases[i].lv, cases[i].new);
		char *new = changed(old, &ch), *again;

		for (size_t k = 0; k < 6 && cases[i].want[k]; k++)
			if (!strstr(new, cases[i].want[k]))
				fail_msg("%s: no %s in %s", cases[i].lv, cases[i].want[k], new);
		for (size_t k = 0; k < 3 && cases[i].left[k]; k++)
			if (strstr(new, cases[i].left[k]))
				fail_msg("%s: %s is left in %s", cases[i].lv, cases[i].left[k], new);
		if (strlen(cases[i].lv) < LVM_ID_LEN) {	/* and back */
			ch = renamed(NULL, cases[i].new, cases[i].lv);
			again = changed(new, &ch);
			assert_int_equal(strlen(again), strlen(old) - strlen("a \\\"quoted\\\" } { thing") +
					 strlen("Written by vdisk"));
			free(again);
		}
		free(new);
	}
	free(old);
}

static void test_names_refused(void **state)
{
	char longest[LVM_NAME_MAX + 1];
	char *old = group_text(7, "", FAMILY), *unknown, *locked, *history;
	const struct {
		const char *vg, *lv, *new;
		int code;
		const char *why;
	} cases[] = {
		{ "", NULL, NULL, EINVAL, "no name for a volume group" },
		{ "a/b", NULL, NULL, EINVAL, "no name" },
		{ "-x", NULL, NULL, EINVAL, "no name" },
		{ "..", NULL, NULL, EINVAL, "no name" },
		{ "a b", NULL, NULL, EINVAL, "no name" },
		{ "x\" {", NULL, NULL, EINVAL, "no name" },
		{ NULL, "nothing", "x", ENOENT, "no volume 'nothing'" },
		{ NULL, "root", "", EINVAL, "no name" },
		{ NULL, "root", "snapshot1", EINVAL, "no name" },
		{ NULL, "root", "pvmove0", EINVAL, "no name" },
		{ NULL, "root", "x_tdata", EINVAL, "no name" },
		{ NULL, "root", "striped", EEXIST, "exists already" },
		{ NULL, "root", "root", EEXIST, "exists already" },
		{ NULL, "root_rimage_0", "x", EPERM, "piece of another" },
		{ NULL, "root", longest, EINVAL, "too long" },
		{ longest, NULL, NULL, EINVAL, "too long" },
	};
	struct vdisk_lvm_change ch;

	(void)state;
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ch = renamed(cases[i].vg, cases[i].lv, cases[i].new);
		text_refused(old, &ch, cases[i].code, cases[i].why);
	}
	/* what might name it, or not */
	ch = renamed(NULL, "pool", "x");
	unknown = with(old, "message1 {", "news = [\"pool\"] message1 {");
	text_refused(unknown, &ch, ENOTSUP, "news");
	locked = with(old, "pool { id = \"" IDS "a\" status = [", "pool { id = \"" IDS "a\" "
		      "status = [\"LOCKED\", ");
	text_refused(locked, &ch, EPERM, "moved");
	history = with(old, "logical_volumes {", "historical_logical_volumes { h { "
		       "descendants = [\"pool\"] } }\nlogical_volumes {");
	text_refused(history, &ch, ENOTSUP, "history");
	free(unknown), free(locked), free(history), free(old);
}

static void test_groups_refused(void **state)
{
	static const struct {
		const char *from, *to;
		int code;
		const char *why;
	} cases[] = {
		{ "[\"RESIZEABLE\"", "[\"EXPORTED\"", EPERM, "exported" },
		{ "[\"RESIZEABLE\"", "[\"CLUSTERED\"", EPERM, "cluster" },
		{ "[\"RESIZEABLE\"", "[\"PARTIAL\"", EPERM, "missing" },
		{ "\"READ\", \"WRITE\"] flags", "\"READ\"] flags", EPERM, "read-only" },
		{ "max_lv = 0", "lock_type = \"sanlock\"", EPERM, "lock manager" },
		{ "seqno = 7", "seqno = 4294967295", EUCLEAN, "sequence" },
		{ "seqno = 7", "seqno = \"x\"", EUCLEAN, "sequence" },
	};
	char *old = group_text(7, "", ""), *ok = with(old, "max_lv = 0", "lock_type = \"none\"");
	struct vdisk_lvm_change ch = renamed("x", NULL, NULL);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *bad = with(old, cases[i].from, cases[i].to);

		text_refused(bad, &ch, cases[i].code, cases[i].why);
		free(bad);
	}
	free(changed(ok, &ch));
	free(ok), free(old);
	text_refused("a { }", &ch, EINVAL, "no volume group");
}

static void test_uuids(void **state)
{
	char *old = group_text(7, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2")), *new;
	char made[LVM_ID_TEXT];
	struct vdisk_lvm_uuid u[2] = { { id('a'), made }, { IDS "1", IDS "X" } };
	struct vdisk_lvm_change ch = { .size = sizeof(ch), .uuids = u, .n_uuids = 2 };

	(void)state;
	assert_int_equal(vdisk_lvm_uuid_new(made, NULL), 0);
	assert_int_equal(strlen(made), strlen(IDS "1"));
	new = changed(old, &ch);
	assert_null(strstr(new, id('a')));
	assert_null(strstr(new, IDS "1"));
	assert_non_null(strstr(new, made));
	assert_non_null(strstr(new, IDS "X"));
	free(new);
	u[0].to = "short";
	text_refused(old, &ch, EINVAL, "not a UUID");
	u[0] = (struct vdisk_lvm_uuid) { IDS "?", made };
	text_refused(old, &ch, ENOENT, "nothing with the UUID");
	free(old);
}

/* ---- the areas ---- */

static void must_change(struct world *w, const struct vdisk_lvm_change *ch)
{
	struct vdisk_error err = { 0 };

	if (vdisk_lvm_change(w->lvm, vdisk_lvm_vg(w->lvm, 0)->uuid, ch, &err) < 0)
		fail_msg("%s", err.msg);
	vdisk_lvm_free(w->lvm);
	scan(w);
	assert_null(vdisk_lvm_vg(w->lvm, 1));
	assert_string_equal(vdisk_lvm_vg(w->lvm, 0)->problem, "");
}

static void not_changed(struct world *w, const struct vdisk_lvm_change *ch, int code,
			const char *why)
{
	struct vdisk_error err = { 0 };
	uint8_t before[64 << 10], after[64 << 10];

	assert_int_equal(vdisk_read(w->disk[0], before, sizeof(before), 0), 0);
	assert_int_equal(vdisk_lvm_change(w->lvm, "vg0", ch, &err), -code);
	if (!strstr(err.msg, why))
		fail_msg("'%s' is not in '%s'", why, err.msg);
	assert_int_equal(vdisk_read(w->disk[0], after, sizeof(after), 0), 0);
	assert_memory_equal(before, after, sizeof(before));
}

/* Round the ring many times, with the volume's content where it was. */
static void test_round(void **state)
{
	struct world w = both(PLAIN("one", "1", VISIBLE, "3", "pv0", "2"));
	struct vdisk *d;

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		char vg[128], last[16];
		struct vdisk_lvm_change ch;

		snprintf(vg, sizeof(vg), "group%.*s%u", (int)(i % 90), "................................"
			 "..........................................................", i);
		snprintf(last, sizeof(last), "lv%u", i);
		ch = renamed(vg, i ? vdisk_lvm_vg(w.lvm, 0)->lv[0].name : "one", last);
		must_change(&w, &ch);
		assert_string_equal(vdisk_lvm_vg(w.lvm, 0)->name, vg);
		assert_string_equal(vdisk_lvm_vg(w.lvm, 0)->lv[0].name, last);
		assert_int_equal(vdisk_lvm_vg(w.lvm, 0)->seqno, 8 + i);
	}
	assert_int_equal(vdisk_open_lv(&d, w.lvm, vdisk_lvm_vg(w.lvm, 0)->name, "lv299", 0, NULL), 0);
	expect_tag(d, 0, "a2.0");
	vdisk_close(d, NULL);
	end(&w);
}

static void test_new_uuids(void **state)
{
	struct world w = both(PLAIN("one", "1", VISIBLE, "3", "pv0", "2"));
	struct vdisk_lvm_uuid u[] = {
		{ id('a'), IDS "A" }, { id('b'), IDS "B" }, { id('v'), IDS "V" }, { IDS "1", IDS "L" },
	};
	struct vdisk_lvm_change ch = { .size = sizeof(ch), .uuids = u, .n_uuids = 4 };

	(void)state;
	must_change(&w, &ch);
	assert_string_equal(vdisk_lvm_pv(w.lvm, 0)->uuid, IDS "A");
	assert_string_equal(vdisk_lvm_pv(w.lvm, 1)->uuid, IDS "B");
	assert_string_equal(vdisk_lvm_pv(w.lvm, 1)->problem, "");
	assert_string_equal(vdisk_lvm_vg(w.lvm, 0)->uuid, IDS "V");
	assert_string_equal(lv(&w, "one")->uuid, IDS "L");
	assert_string_equal(lv(&w, "one")->reason, "");
	end(&w);
}

static void test_second_area(void **state)
{
	char *text = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	struct vdisk_lvm_change ch = renamed("new", NULL, NULL);

	(void)state;
	/* the second area may be stale, ignored, or damaged in its header or its text */
	for (unsigned n = 0; n < 4; n++) {
		char *second = group_text(n == 0 ? 2 : 3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
		struct world w = { .disk = { blank(), device('b', text) }, .n = 2 };
		uint8_t h[512], now[512];

		put_label(w.disk[0], 'a', 1, 2);
		put_text(w.disk[0], MDA_AT, text, 512);
		put_text(w.disk[0], MDA2_AT, second, 4096);
		assert_int_equal(vdisk_read(w.disk[0], h, sizeof(h), MDA2_AT), 0);
		store_le32(h + 60, n == 1);
		h[200] = n == 2;
		store_le32(h, lvm_crc(h + 4, 508) + (n == 2));
		put(w.disk[0], h, sizeof(h), MDA2_AT);
		if (n == 3)
			put(w.disk[0], "?", 1, MDA2_AT + 4096 + 5);
		scan(&w);
		if (n > 1) {
			not_changed(&w, &ch, EUCLEAN, "checksum");
		} else {
			must_change(&w, &ch);
			assert_string_equal(vdisk_lvm_vg(w.lvm, 0)->name, "new");
			assert_int_equal(vdisk_read(w.disk[0], now, sizeof(now), MDA2_AT), 0);
			/* what is ignored stays as it is */
			assert_int_equal(memcmp(h, now, sizeof(h)) == 0, n == 1);
		}
		end(&w);
		free(second);
	}
	free(text);
}

static void test_not_whole(void **state)
{
	char *text = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	char *twin = group_text(3, "", PLAIN("two", "1", VISIBLE, "1", "pv0", "2"));
	char *lost = group_text(3, "flags = [\"MISSING\"]", "");
	struct vdisk_lvm_change ch = renamed("new", NULL, NULL);
	struct world missing = { .disk = { device('a', text) }, .n = 1 };
	struct world given_up = { .disk = { device('a', lost), device('b', lost) }, .n = 2 };
	struct world two = { .disk = { device('a', text), device('b', twin) }, .n = 2 };
	struct world copied = { .disk = { device('a', text), device('b', text), device('b', text) },
				.n = 3 };

	(void)state;
	scan(&missing), scan(&given_up), scan(&two), scan(&copied);
	not_changed(&missing, &ch, ENODEV, "missing");
	not_changed(&given_up, &ch, ENODEV, "missing");
	not_changed(&two, &ch, EUCLEAN, "another version");
	not_changed(&copied, &ch, ENODEV, "same UUID");
	end(&missing), end(&given_up), end(&two), end(&copied);
	free(text), free(twin), free(lost);
}

static void test_no_room(void **state)
{
	char *pad = textf("%*s", 40 << 10, "#\n");
	char *text = group_text(3, "", pad);
	struct world w = { .disk = { device('a', text), device('b', text) }, .n = 2 };
	struct vdisk_lvm_change ch = renamed("new", NULL, NULL);

	(void)state;
	scan(&w);
	not_changed(&w, &ch, ENOSPC, "does not fit");
	end(&w);
	free(pad), free(text);
}

static void test_read_only(void **state)
{
	char *text = group_text(3, "", "");
	struct world w = { .disk = { device('a', text), device('b', text) }, .n = 2 };
	struct vdisk_lvm_change ch = renamed("new", NULL, NULL);

	(void)state;
	w.disk[1]->flags &= ~(unsigned)VDISK_OPEN_WRITE;
	scan(&w);
	not_changed(&w, &ch, EROFS, "reading only");
	end(&w);
	free(text);
}

/* ---- crashes ---- */

static uint64_t rng = 88172645463325252u;

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	return rng ^= rng << 17;
}

/* Both physical volumes in partitions of one disk, so that there is one log. */
#define PART_SIZE (4 * MIB)	/* as far as anything is used */

static void make_pair(struct memlog *m, const char *text)
{
	struct vdisk *d = memlog_disk(m, "pair"), *pv[2] = { device('a', text), device('b', text) };
	uint8_t mbr[512] = { 0 };
	AUTO_FREE void *part = malloc(PART_SIZE);

	assert_int_equal(vd_truncate(d, MIB + 2 * PART_SIZE), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *e = mbr + 446 + 16 * i;

		e[4] = 0x8e;
		store_le32(e + 8, (uint32_t)((MIB + i * PART_SIZE) / 512));
		store_le32(e + 12, (uint32_t)(PART_SIZE / 512));
		assert_int_equal(vdisk_read(pv[i], part, PART_SIZE, 0), 0);
		put(d, part, PART_SIZE, MIB + i * PART_SIZE);
		vdisk_close(pv[i], NULL);
	}
	store_le16(mbr + 510, 0xaa55);
	put(d, mbr, sizeof(mbr), 0);
	vdisk_close(d, NULL);
}

/* The group is there, whole, with all of the old names or all of the new ones. */
static bool is_new(struct memlog *m, bool uuids)
{
	struct world w = { .disk = { memlog_disk(m, "after") }, .n = 1 };
	const struct vdisk_vg *vg;
	bool new;

	scan(&w);
	vg = vdisk_lvm_vg(w.lvm, 0);
	assert_non_null(vg);
	assert_null(vdisk_lvm_vg(w.lvm, 1));
	new = !strcmp(vg->name, "new");
	assert_string_equal(vg->name, new ? "new" : "vg0");
	assert_string_equal(vg->lv[0].name, new ? "neu" : "one");
	assert_string_equal(vg->lv[0].uuid, new && uuids ? IDS "L" : IDS "1");
	assert_string_equal(vg->lv[0].reason, "");
	for (unsigned i = 0; i < 2; i++)
		assert_string_equal(vdisk_lvm_pv(w.lvm, i)->problem, "");
	end(&w);
	return new;
}

static void test_crash(void **state)
{
	char *text = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	const struct vdisk_lvm_uuid u = { IDS "1", IDS "L" };
	struct vdisk_lvm_change ch = renamed("new", "one", "neu");
	unsigned old = 0, new = 0;
	struct memlog m, start;
	struct world w = { .n = 1 };

	(void)state;
	ch.uuids = &u, ch.n_uuids = 1;
	memlog_init(&m);
	make_pair(&m, text);
	memlog_copy(&start, &m);
	m.logging = true;
	w.disk[0] = memlog_disk(&m, "pair");
	scan(&w);
	must_change(&w, &ch);
	end(&w);
	assert_true(is_new(&m, true));
	/* stop before each entry of the log; of what was not synced, any part arrived */
	for (size_t stop = 0; stop <= m.n; stop++) {
		size_t synced = 0;

		for (size_t i = 0; i < stop; i++)
			if (m.log[i].kind == MEMLOG_SYNC)
				synced = i;
		for (unsigned round = 0; round < 16; round++) {
			struct memlog after;

			memlog_copy(&after, &start);
			for (size_t i = 0; i < stop; i++)
				if (i < synced || round == 0 || rnd() % 4)
					memlog_replay(&after, &m.log[i], i >= synced && round, rnd);
			if (is_new(&after, true))
				new++;
			else
				old++;
			memlog_clear(&after);
		}
	}
	assert_true(old > 16 && new > 16);
	memlog_clear(&m);
	memlog_clear(&start);
	free(text);
}

/* Each write and each sync fails once: all names are old or new, and it is said. */
static void test_faults(void **state)
{
	char *text = group_text(3, "", PLAIN("one", "1", VISIBLE, "1", "pv0", "2"));
	struct vdisk_lvm_change ch = renamed("new", "one", "neu");
	unsigned n = 0;

	(void)state;
	for (unsigned kind = FAULT_READ; kind < FAULT_KINDS; kind++)
		for (uint64_t at = 1;; at++, n++) {
			struct vdisk_error err = { 0 };
			struct world w = { .n = 1 };
			struct memlog m;
			int r;

			memlog_init(&m);
			make_pair(&m, text);
			w.disk[0] = memlog_disk(&m, "pair");
			scan(&w);
			m.fail[kind] = m.count[kind] + at;
			r = vdisk_lvm_change(w.lvm, "vg0", &ch, &err);
			m.fail[kind] = 0;
			end(&w);
			assert_true(r < 0 ? m.failed && err.msg[0] : is_new(&m, false));
			if (is_new(&m, false) && r < 0)
				assert_non_null(strstr(err.msg, "are new"));
			memlog_clear(&m);
			if (!m.failed)
				break;
		}
	assert_true(n > 8);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_group_renamed),
		cmocka_unit_test(test_pieces_follow),
		cmocka_unit_test(test_names_refused),
		cmocka_unit_test(test_groups_refused),
		cmocka_unit_test(test_uuids),
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_new_uuids),
		cmocka_unit_test(test_second_area),
		cmocka_unit_test(test_not_whole),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
