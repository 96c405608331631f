/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rpm.c - packages out of rpm's database
 *
 * Whatever the database, a package is one blob, its header: two be32 (how many
 * entries, how many bytes of data), the entries - be32 tag, type, offset into
 * the data, count - and the data.  rpm itself takes no more than 65535 entries
 * and 256 MiB of data.
 *
 * ndb (SUSE's): blocks of 16 bytes, le32 everywhere.
 *	file	 0 "RpmP"   4 version 0   8 generation   12 pages (4096 bytes) of slots
 *	slot	 0 "Slot"   4 number   8 first block, 0: not used   12 blocks;  from byte 32 on
 *	blob	 0 "BlbS"   4 number   8 time   12 length   16 the header, then a tail of 12 bytes
 */
#include "guest/rpm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "guest/packages.h"

enum {
	ENTRIES_MAX = 0xffff,
	DATA_MAX = 256 << 20,
	TAG_NAME = 1000, TAG_VERSION = 1001, TAG_RELEASE = 1002, TAG_EPOCH = 1003, TAG_ARCH = 1022,
	TYPE_INT32 = 4, TYPE_STRING = 6,
};

int rpm_bad(struct rpm_db *db, const char *why)
{
	db->why = why;
	return -EINVAL;
}

int rpm_room(uint8_t **buf, size_t *room, size_t len)
{
	size_t size = MAX(len, 2 * *room);
	uint8_t *more = len <= *room ? *buf : realloc(*buf, size);

	if (!more)
		return -ENOMEM;
	*buf = more;
	*room = MAX(*room, len <= *room ? 0 : size);
	return 0;
}

/* ---- a header ---- */

struct header {
	const uint8_t *data;
	size_t len;
	const char *name, *version, *release, *arch;
	bool has_epoch;
	uint32_t epoch;
};

/* A string of the data, ended by a NUL inside of it; NULL. */
static const char *string_at(const struct header *h, uint32_t at)
{
	return at < h->len && memchr(h->data + at, 0, h->len - at) ?
	       (const char *)h->data + at : NULL;
}

static bool take_entry(struct header *h, const uint8_t *e)
{
	uint32_t tag = load_be32(e), type = load_be32(e + 4), at = load_be32(e + 8);
	const char **to = tag == TAG_NAME ? &h->name : tag == TAG_VERSION ? &h->version :
			  tag == TAG_RELEASE ? &h->release : tag == TAG_ARCH ? &h->arch : NULL;

	if (to && type == TYPE_STRING) {
		*to = string_at(h, at);
		return *to;
	}
	if (tag == TAG_EPOCH && type == TYPE_INT32) {
		if (h->len < 4 || at > h->len - 4)
			return false;
		h->has_epoch = true;
		h->epoch = load_be32(h->data + at);
	}
	return true;
}

int packages_rpm_header(const uint8_t *blob, size_t len, struct vdisk_package *out)
{
	struct header h = { .version = "", .release = "", .arch = "" };
	uint32_t entries, data;
	char epoch[16] = "";

	if (len < 8)
		return -EINVAL;
	entries = load_be32(blob);
	data = load_be32(blob + 4);
	if (entries > ENTRIES_MAX || data > DATA_MAX || len - 8 < entries * 16 ||
	    len - 8 - entries * 16 < data)
		return -EINVAL;
	h.data = blob + 8 + entries * 16;
	h.len = data;
	for (uint32_t i = 0; i < entries; i++)
		if (!take_entry(&h, blob + 8 + i * 16))
			return -EINVAL;
	if (!h.name || !h.name[0])
		return -EINVAL;
	if (h.has_epoch)
		snprintf(epoch, sizeof(epoch), "%u:", h.epoch);
	*out = (struct vdisk_package) { .name = "" };
	snprintf(out->name, sizeof(out->name), "%s", h.name);
	snprintf(out->version, sizeof(out->version), "%s%s%s%s", epoch, h.version,
		 h.release[0] ? "-" : "", h.release);
	snprintf(out->arch, sizeof(out->arch), "%s", h.arch);
	return 0;
}

/* ---- ndb ---- */

enum { BLOCK = 16, SLOTS_PAGE = 4096, BLOB_HEAD = 16, BLOB_TAIL = 12 };

static int ndb_blob(struct rpm_db *db, const uint8_t *slot, size_t slots_end)
{
	uint64_t at = (uint64_t)load_le32(slot + 8) * BLOCK;
	uint64_t room = (uint64_t)load_le32(slot + 12) * BLOCK;
	const uint8_t *head;
	uint32_t len;

	if (at < slots_end || at > db->len || room > db->len - at || room < BLOB_HEAD + BLOB_TAIL)
		return rpm_bad(db, "a package lies outside of the file");
	head = db->p + at;
	len = load_le32(head + 12);
	if (memcmp(head, "BlbS", 4) != 0 || load_le32(head + 4) != load_le32(slot + 4) ||
	    len > room - BLOB_HEAD - BLOB_TAIL)
		return rpm_bad(db, "a package is not where it should be");
	return db->each(db->arg, head + BLOB_HEAD, len);
}

int rpm_ndb(struct rpm_db *db)
{
	uint64_t end;
	int r = 0;

	if (db->len < SLOTS_PAGE || load_le32(db->p + 4) != 0)
		return rpm_bad(db, "it is of an unknown version");
	end = (uint64_t)load_le32(db->p + 12) * SLOTS_PAGE;
	if (end > db->len)
		return rpm_bad(db, "it is cut off");
	for (size_t at = 32; at < end && r == 0; at += 16) {
		if (memcmp(db->p + at, "Slot", 4) != 0)
			return rpm_bad(db, "its list of packages is damaged");
		if (load_le32(db->p + at + 8))
			r = ndb_blob(db, db->p + at, (size_t)end);
	}
	return r;
}

/* ---- all of them ---- */

struct packages {
	struct rpm_db *db;
	package_fn *each;
	void *arg;
};

static int take_package(void *arg, const uint8_t *blob, size_t len)
{
	struct packages *p = arg;
	struct vdisk_package package;

	if (packages_rpm_header(blob, len, &package) < 0)
		return rpm_bad(p->db, "a package's header makes no sense");
	return p->each(p->arg, &package);
}

int packages_rpm(const void *data, size_t len, const void *wal, size_t wal_len, package_fn *each,
		 void *arg, const char **why)
{
	struct rpm_db db = { .p = data, .len = len, .wal = wal, .wal_len = wal_len };
	struct packages p = { .db = &db, .each = each, .arg = arg };
	int r;

	db.each = take_package;
	db.arg = &p;
	if (rpm_is_sqlite(&db))
		r = rpm_sqlite(&db);
	else if (rpm_is_bdb(&db))
		r = rpm_bdb(&db);
	else if (len >= 4 && !memcmp(data, "RpmP", 4))
		r = rpm_ndb(&db);
	else
		r = rpm_bad(&db, "it is of an unknown kind");
	*why = db.why;
	return r;
}
