/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot.c - internal snapshots: list, create, apply, delete
 *
 * A snapshot is an L1 table of its own; the L2 tables and clusters below are
 * shared and counted once for every L1 table that leads to them.  A change is
 * one sector: the header names the snapshot table and the active L1 table, and
 * both are written anew at a new place before it.
 *
 *	create: counts up, new tables, header
 *	apply:  counts of the snapshot up, new L1, header, counts of the old L1 down
 *	delete: new snapshot table, header, counts down
 *
 * So a crash leaves counts that are too high, never too low (R1).  COPIED flags
 * are then wrong as well; in version 3 the dirty bit stands meanwhile, and the
 * next writer puts everything right.
 *
 * These run on a drained disk; what was dirty has been written out first, so
 * L2 tables of snapshots are simply read from the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "formats/qcow2/state.h"

#define ENTRY_FIXED	40
#define EXTRA_SIZES	16	/* VM state and disk size */
#define EXTRA_WRITTEN	24	/* with the instruction count, -1 for none */

/* ---- the table ---- */

/* With a NUL behind them. */
static void *copy_bytes(const uint8_t *p, size_t len)
{
	uint8_t *copy = malloc(len + 1);

	if (copy) {
		memcpy(copy, p, len);
		copy[len] = '\0';
	}
	return copy;
}

static int decode_entry(const struct qcow2_header *h, const uint8_t *p, uint64_t len,
			struct qcow2_snapshot *s, uint64_t *used, struct vdisk_error *err)
{
	uint64_t need = ENTRY_FIXED;

	if (len < need)
		return vd_fail(err, EINVAL, "qcow2: the snapshot table is cut off");
	s->l1_offset = load_be64(p);
	s->l1_size = load_be32(p + 8);
	s->id_len = load_be16(p + 12);
	s->name_len = load_be16(p + 14);
	s->date_sec = load_be32(p + 16);
	s->date_nsec = load_be32(p + 20);
	s->vm_clock_ns = load_be64(p + 24);
	s->vm_state_size = load_be32(p + 32);
	s->extra_len = load_be32(p + 36);
	if (s->extra_len > QCOW2_MAX_SNAPSHOT_EXTRA)
		return vd_fail(err, EINVAL, "qcow2: a snapshot has %" PRIu32
			       " bytes of extra data, too many", s->extra_len);
	need += (uint64_t)s->extra_len + s->id_len + s->name_len;
	if (len < need)
		return vd_fail(err, EINVAL, "qcow2: the snapshot table is cut off");
	if (s->l1_size > QCOW2_MAX_L1_BYTES / 8 || (s->l1_offset & (qcow2_cluster_size(h) - 1)) ||
	    s->l1_offset > INT64_MAX)
		return vd_fail(err, EINVAL, "qcow2: the L1 table of a snapshot (%" PRIu32
			       " entries at %#" PRIx64 ") is not valid", s->l1_size, s->l1_offset);

	s->disk_size = h->size;
	if (s->extra_len >= 8)
		s->vm_state_size = load_be64(p + ENTRY_FIXED);
	if (s->extra_len >= EXTRA_SIZES)
		s->disk_size = load_be64(p + ENTRY_FIXED + 8);
	p += ENTRY_FIXED;
	s->extra = copy_bytes(p, s->extra_len);
	s->id = copy_bytes(p + s->extra_len, s->id_len);
	s->name = copy_bytes(p + s->extra_len + s->id_len, s->name_len);
	if (!s->extra || !s->id || !s->name)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	*used = vd_align_up(need, 8);
	return 0;
}

void qcow2_snapshots_free(struct qcow2_snapshot *s, unsigned n)
{
	for (unsigned i = 0; s && i < n; i++) {
		free(s[i].id);
		free(s[i].name);
		free(s[i].extra);
	}
	free(s);
}

/* The table's length is not written anywhere: read a piece, and more as needed. */
static int load_table(const struct qcow2_header *h, struct vdisk *file, uint8_t **out,
		      uint64_t *out_len, struct vdisk_error *err)
{
	uint64_t size = atomic_load(&file->size), len;
	AUTO_FREE uint8_t *buf = NULL;
	int r;

	if (h->snapshots_offset >= size)
		return vd_fail(err, EINVAL, "qcow2: the snapshot table is not in the file");
	len = MIN(size - h->snapshots_offset, (uint64_t)QCOW2_MAX_SNAPSHOT_TABLE);
	len = MIN(len, h->n_snapshots * (uint64_t)(ENTRY_FIXED + QCOW2_MAX_SNAPSHOT_EXTRA + 2 * 65536));
	buf = malloc(len);
	if (!buf)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	r = vd_pread(file, buf, len, h->snapshots_offset);
	if (r < 0)
		return vd_fail(err, -r, "qcow2: reading the snapshot table: %s", strerror(-r));
	*out = STEAL(buf);
	*out_len = len;
	return 0;
}

int qcow2_snapshots_read(const struct qcow2_header *h, struct vdisk *file,
			 struct qcow2_snapshot **out, uint64_t *bytes, struct vdisk_error *err)
{
	struct qcow2_snapshot *all;
	AUTO_FREE uint8_t *buf = NULL;
	uint64_t len = 0, at = 0, used = 0;
	int r = 0;

	all = calloc(h->n_snapshots + 1, sizeof(*all));
	if (!all)
		return vd_fail(err, ENOMEM, "qcow2: out of memory");
	if (h->n_snapshots)
		r = load_table(h, file, &buf, &len, err);
	for (unsigned i = 0; r == 0 && i < h->n_snapshots; i++) {
		r = at < len ? decode_entry(h, buf + at, len - at, &all[i], &used, err) :
			       vd_fail(err, EINVAL, "qcow2: the snapshot table is cut off");
		if (r == 0)
			at += used;
	}
	if (r < 0) {
		qcow2_snapshots_free(all, h->n_snapshots);
		return r;
	}
	*out = all;
	*bytes = at;
	return 0;
}

struct qcow2_snapshot *qcow2_snapshot_find(struct qcow2_snapshot *s, unsigned n, const char *name)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(s[i].name, name))	/* NOLINT: all names are set */
			return &s[i];
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(s[i].id, name))
			return &s[i];
	return NULL;
}

static uint64_t encoded_len(const struct qcow2_snapshot *s)
{
	return vd_align_up(ENTRY_FIXED + (uint64_t)s->extra_len + s->id_len + s->name_len, 8);
}

static void encode_entry(const struct qcow2_snapshot *s, uint8_t *p)
{
	store_be64(p, s->l1_offset);
	store_be32(p + 8, s->l1_size);
	store_be16(p + 12, s->id_len);
	store_be16(p + 14, s->name_len);
	store_be32(p + 16, s->date_sec);
	store_be32(p + 20, s->date_nsec);
	store_be64(p + 24, s->vm_clock_ns);
	store_be32(p + 32, s->vm_state_size > UINT32_MAX ? 0 : (uint32_t)s->vm_state_size);
	store_be32(p + 36, s->extra_len);
	p += ENTRY_FIXED;
	if (s->extra_len)
		memcpy(p, s->extra, s->extra_len);
	p += s->extra_len;
	if (s->id_len)
		memcpy(p, s->id, s->id_len);
	p += s->id_len;
	if (s->name_len)
		memcpy(p, s->name, s->name_len);
}

/* Version 3 wants the sizes with every snapshot ("Snapshot table entry"). */
static int complete_extra(struct qcow2_snapshot *s)
{
	uint8_t *p;

	if (s->extra_len >= EXTRA_SIZES)
		return 0;
	p = realloc(s->extra, EXTRA_WRITTEN);
	if (!p)
		return -ENOMEM;
	s->extra = p;
	store_be64(p, s->vm_state_size);
	store_be64(p + 8, s->disk_size);
	store_be64(p + 16, UINT64_MAX);
	s->extra_len = EXTRA_WRITTEN;
	return 0;
}

/* ---- counting everything below an L1 table ---- */

static int adjust(struct qcow2 *q, uint64_t first, uint64_t n, int delta)
{
	if (delta > 0)
		return qcow2_refcount_add(q, first, n, 1);
	qcow2_free(q, first, n, true);
	return 0;
}

/* Under the lock.  The entries of the L2 table in @buf, at most *limit of them. */
static int count_l2(struct qcow2 *q, const uint8_t *buf, int delta, uint64_t *limit)
{
	uint64_t step = UINT64_C(1) << q->entry_bits;
	int r = 0;

	for (uint64_t at = 0; r == 0 && *limit && at < q->cluster_size; at += step) {
		uint64_t first, n;

		if (!qcow2_entry_clusters(q, load_be64(buf + at), &first, &n))
			continue;
		r = adjust(q, first, n, delta);
		*limit -= r == 0;
	}
	return r;
}

/* Without the lock; @l1 in host order; at most *limit references, which it
 * counts down. */
static int count_some(struct qcow2 *q, const uint64_t *l1, uint32_t n, int delta, uint64_t *limit)
{
	AUTO_FREE uint8_t *buf = malloc(q->cluster_size);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; r == 0 && *limit && i < n; i++) {
		uint64_t off = l1[i] & QCOW2_OFFSET_MASK;

		if (!off)
			continue;
		if ((off & (q->cluster_size - 1)) || off >= atomic_load(&q->file->size))
			return -EIO;
		r = vd_pread_pad(q->file, buf, q->cluster_size, off);
		if (r < 0)
			break;
		pthread_mutex_lock(&q->lock);
		r = count_l2(q, buf, delta, limit);
		if (r == 0 && *limit) {
			r = adjust(q, off >> q->cluster_bits, 1, delta);
			*limit -= r == 0;
		}
		pthread_mutex_unlock(&q->lock);
	}
	return r;
}

static int count_down(struct qcow2 *q, const uint64_t *l1, uint32_t n)
{
	uint64_t limit = UINT64_MAX;

	return count_some(q, l1, n, -1, &limit);
}

/* All or nothing: -ERANGE where a count does not fit in its width. */
static int count_up(struct qcow2 *q, const uint64_t *l1, uint32_t n)
{
	uint64_t limit = UINT64_MAX, undo;
	int r = count_some(q, l1, n, 1, &limit), u;

	if (r != -ERANGE)
		return r;
	undo = UINT64_MAX - limit;
	u = count_some(q, l1, n, -1, &undo);
	return u < 0 ? u : r;
}

static int count_wait(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
	int r;

	do
		r = qcow2_refcount(q, cluster, false, count);
	while (r == QCOW2_RETRY);
	return r;
}

/* COPIED in the active table @i and its L1 entry, by the counts.  Under the lock. */
static int copied_table(struct qcow2 *q, uint32_t i)
{
	uint64_t count, step = UINT64_C(1) << q->entry_bits;
	struct qcow2_table *t;
	int r;

	do
		r = qcow2_table_get(q, false, i, false, &t);
	while (r == QCOW2_RETRY);
	if (r < 0)
		return r;
	t->pins++;
	for (uint64_t at = 0; r == 0 && at < q->cluster_size && !q->data_file; at += step) {
		uint64_t entry = load_be64(t->data + at), want = entry & ~QCOW2_COPIED;

		if ((entry & QCOW2_COMPRESSED) || !(entry & QCOW2_OFFSET_MASK))
			continue;
		r = count_wait(q, (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits, &count);
		if (r == 0 && count == 1)
			want |= QCOW2_COPIED;
		if (r == 0 && want != entry) {
			store_be64(t->data + at, want);
			qcow2_table_dirty(q, t, at, at + 8);
		}
	}
	if (r == 0)
		r = count_wait(q, t->off >> q->cluster_bits, &count);
	t->pins--;
	if (r == 0) {
		q->l1[i] = t->off | (count == 1 ? QCOW2_COPIED : 0);
		if (!qcow2_l1_dirty(q))
			q->l1_dirty_lo = q->l1_dirty_hi = i;
		q->l1_dirty_lo = MIN(q->l1_dirty_lo, i);
		q->l1_dirty_hi = MAX(q->l1_dirty_hi, i + 1);
	}
	return r;
}

static int copied_all(struct qcow2 *q)
{
	int r = 0;

	pthread_mutex_lock(&q->lock);
	for (uint32_t i = 0; r == 0 && i < q->h.l1_size; i++)
		if (q->l1[i] & QCOW2_OFFSET_MASK)
			r = copied_table(q, i);
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* ---- changing the table ---- */

/* Write @n entries to a new place: *off, *bytes (0 entries: 0). */
static int write_table(struct qcow2 *q, const struct qcow2_snapshot *s, unsigned n, uint64_t *off,
		       uint64_t *bytes)
{
	AUTO_FREE uint8_t *buf = NULL;
	uint64_t len = 0, at = 0, first;
	int r;

	*off = *bytes = 0;
	for (unsigned i = 0; i < n; i++)
		len += encoded_len(&s[i]);
	if (!len)
		return 0;
	if (n > QCOW2_MAX_SNAPSHOTS || len > QCOW2_MAX_SNAPSHOT_TABLE)
		return -EFBIG;
	buf = calloc(1, vd_align_up(len, q->cluster_size));
	if (!buf)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		encode_entry(&s[i], buf + at);
		at += encoded_len(&s[i]);
	}
	len = vd_align_up(len, q->cluster_size);
	pthread_mutex_lock(&q->lock);
	r = qcow2_alloc_run(q, len >> q->cluster_bits, &first);
	pthread_mutex_unlock(&q->lock);
	if (r < 0)
		return r;
	*off = first << q->cluster_bits;
	*bytes = len;
	return vd_pwrite(q->file, buf, len, *off);
}

/* Everything so far is durable; then the header, in one sector, durably. */
static int switch_header(struct qcow2 *q, const struct qcow2_header *to)
{
	struct qcow2_header old = q->h;
	int r = qcow2_settle(q);

	if (r < 0)
		return r;
	q->h.size = to->size;
	q->h.l1_size = to->l1_size;
	q->h.l1_offset = to->l1_offset;
	q->h.n_snapshots = to->n_snapshots;
	q->h.snapshots_offset = to->snapshots_offset;
	r = qcow2_poke_header(q);
	if (r == 0)
		r = vd_flush(q->file);
	if (r < 0)
		q->h = old;
	return r;
}

/* A copy of an L1 table, without COPIED flags, at a new place. */
static int write_l1(struct qcow2 *q, const uint64_t *l1, uint32_t n, uint64_t *off)
{
	uint64_t len = vd_align_up(n * UINT64_C(8), q->cluster_size), first;
	AUTO_FREE uint8_t *buf = NULL;
	int r;

	*off = 0;
	if (!n)
		return 0;
	buf = calloc(1, len);
	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		store_be64(buf + i * UINT64_C(8), l1[i] & ~QCOW2_COPIED);
	pthread_mutex_lock(&q->lock);
	r = qcow2_alloc_run(q, len >> q->cluster_bits, &first);
	pthread_mutex_unlock(&q->lock);
	if (r < 0)
		return r;
	*off = first << q->cluster_bits;
	return vd_pwrite(q->file, buf, len, *off);
}

static void free_region(struct qcow2 *q, uint64_t off, uint64_t len)
{
	if (!len)
		return;
	pthread_mutex_lock(&q->lock);
	qcow2_free(q, off >> q->cluster_bits, vd_align_up(len, q->cluster_size) >> q->cluster_bits,
		   false);
	pthread_mutex_unlock(&q->lock);
}

/* ---- the operations ---- */

/* What every change begins with: nothing dirty, and the table in memory. */
static int begin(struct qcow2 *q, struct qcow2_snapshot **all, uint64_t *bytes,
		 struct vdisk_error *err)
{
	int r;

	if (q->data_file)
		return vd_fail(err, ENOTSUP, "%s: qcow2: no snapshots with an external data file",
			       q->disk->name);
	r = qcow2_begin_control(q);
	if (r < 0)
		return vd_fail(err, -r, "%s: qcow2: writing the metadata: %s", q->disk->name,
			       strerror(-r));
	r = qcow2_snapshots_read(&q->h, q->file, all, bytes, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; q->h.version >= 3 && i < q->h.n_snapshots; i++)
		if (complete_extra(&(*all)[i]) < 0) {
			qcow2_snapshots_free(*all, q->h.n_snapshots);
			return vd_fail(err, ENOMEM, "qcow2: out of memory");
		}
	r = qcow2_set_dirty(q, true, err);
	if (r < 0)
		qcow2_snapshots_free(*all, q->h.n_snapshots);
	return r;
}

/* And ends with.  After a failure only the medium knows: write no more.  But for
 * -ERANGE, which comes before anything has changed. */
static int end(struct qcow2 *q, int result, const char *what, struct vdisk_error *err)
{
	int r = result == -ERANGE ? 0 : result;

	if (r == 0)
		r = qcow2_settle(q);
	if (r == 0)
		r = copied_all(q);
	if (r == 0)
		r = qcow2_settle(q);
	if (r == 0 && !q->lazy)
		r = qcow2_set_dirty(q, false, NULL);
	if (r < 0)
		atomic_store(&q->disk->failed, true);
	else
		r = result;
	return r < 0 ? vd_fail(err, -r, "%s: qcow2: %s the snapshot: %s", q->disk->name, what,
			       r == -ERANGE ? "a refcount does not fit in its width" :
					      strerror(-r)) : 0;
}

int qcow2_snapshot_list(struct vdisk *disk, struct vdisk_snapshot **out, struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	struct qcow2_snapshot *all;
	struct vdisk_snapshot *list;
	uint64_t bytes;
	int r = qcow2_snapshots_read(&q->h, q->file, &all, &bytes, err);

	if (r < 0)
		return r;
	list = calloc(q->h.n_snapshots + 1, sizeof(*list));
	if (!list)
		r = vd_fail(err, ENOMEM, "qcow2: out of memory");
	for (unsigned i = 0; list && i < q->h.n_snapshots; i++) {
		list[i] = (struct vdisk_snapshot){
			.disk_size = all[i].disk_size, .vm_state_size = all[i].vm_state_size,
			.vm_clock_ns = all[i].vm_clock_ns, .date_sec = all[i].date_sec,
			.date_nsec = all[i].date_nsec,
		};
		snprintf(list[i].id, sizeof(list[i].id), "%s", all[i].id);
		snprintf(list[i].name, sizeof(list[i].name), "%s", all[i].name);
	}
	qcow2_snapshots_free(all, q->h.n_snapshots);
	if (r < 0)
		return r;
	*out = list;
	return (int)q->h.n_snapshots;
}

static int new_snapshot(struct qcow2 *q, const struct qcow2_snapshot *all, const char *name,
			struct qcow2_snapshot *s)
{
	unsigned long id = 0;
	struct timespec now;
	char text[24];

	for (unsigned i = 0; i < q->h.n_snapshots; i++)
		id = MAX(id, strtoul(all[i].id, NULL, 10));
	snprintf(text, sizeof(text), "%lu", id + 1);
	clock_gettime(CLOCK_REALTIME, &now);
	*s = (struct qcow2_snapshot){
		.l1_size = q->h.l1_size, .disk_size = q->h.size,
		.date_sec = (uint32_t)now.tv_sec, .date_nsec = (uint32_t)now.tv_nsec,
		.id = strdup(text), .name = strdup(name),
		.id_len = (uint16_t)strlen(text), .name_len = (uint16_t)strlen(name),
	};
	return s->id && s->name ? complete_extra(s) : -ENOMEM;
}

static int create(struct qcow2 *q, struct qcow2_snapshot *all, uint64_t old_bytes,
		  const char *name)
{
	struct qcow2_header to = q->h;
	unsigned n = q->h.n_snapshots;
	uint64_t old = q->h.snapshots_offset, bytes;
	int r = new_snapshot(q, all, name, &all[n]);

	if (r == 0)
		r = count_up(q, q->l1, q->h.l1_size);
	if (r == 0)
		r = write_l1(q, q->l1, q->h.l1_size, &all[n].l1_offset);
	/* before the snapshot holds them, entries must not say "mine alone" */
	if (r == 0)
		r = copied_all(q);
	if (r == 0)
		r = write_table(q, all, n + 1, &to.snapshots_offset, &bytes);
	to.n_snapshots = n + 1;
	if (r == 0)
		r = switch_header(q, &to);
	if (r == 0)
		free_region(q, old, old_bytes);
	return r;
}

int qcow2_snapshot_create(struct vdisk *disk, const char *name, struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	struct qcow2_snapshot *all, *grown;
	uint64_t bytes;
	unsigned n = q->h.n_snapshots;
	int r;

	if (!*name || strlen(name) > 255)
		return vd_fail(err, EINVAL, "%s: a snapshot name has 1 to 255 bytes", disk->name);
	if (q->h.refcount_order == 0)
		return vd_fail(err, ENOTSUP, "%s: qcow2: refcounts of 1 bit leave no room for snapshots",
			       disk->name);
	r = begin(q, &all, &bytes, err);
	if (r < 0)
		return r;
	grown = realloc(all, (n + 2) * sizeof(*all));
	if (grown) {
		all = grown;
		memset(&all[n], 0, 2 * sizeof(*all));
	}
	if (grown && qcow2_snapshot_find(all, n, name)) {
		r = end(q, 0, "creating", err);
		if (r == 0)
			r = vd_fail(err, EEXIST, "%s: there is a snapshot '%s' already", disk->name,
				    name);
	} else {
		r = end(q, grown ? create(q, all, bytes, name) : -ENOMEM, "creating", err);
	}
	qcow2_snapshots_free(all, grown ? n + 1 : n);
	return r;
}

static struct qcow2_snapshot *find(struct qcow2 *q, struct qcow2_snapshot *all, const char *name,
				   struct vdisk_error *err)
{
	struct qcow2_snapshot *s = qcow2_snapshot_find(all, q->h.n_snapshots, name);

	if (!s)
		vd_fail(err, ENOENT, "%s: there is no snapshot '%s'", q->disk->name, name);
	return s;
}

/* The snapshot's L1 table in host order, at least @n entries (zero where it has none). */
static int load_l1(struct qcow2 *q, const struct qcow2_snapshot *s, uint32_t n, uint64_t **out)
{
	AUTO_FREE uint64_t *l1 = NULL;
	uint64_t end = vd_align_up(atomic_load(&q->file->size), q->cluster_size);
	int r;

	if (!vd_in_range(s->l1_offset, s->l1_size * UINT64_C(8), end))
		return -EIO;
	l1 = calloc(MAX(s->l1_size, n) + UINT64_C(1), 8);
	if (!l1)
		return -ENOMEM;
	r = vd_pread_pad(q->file, l1, s->l1_size * UINT64_C(8), s->l1_offset);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < s->l1_size; i++)
		l1[i] = load_be64(&l1[i]);
	*out = STEAL(l1);
	return 0;
}

/* The tables in memory follow the header to another L1. */
static int adopt_l1(struct qcow2 *q, uint64_t **l1, uint32_t n)
{
	struct qcow2_table **l2 = calloc(n + 1, sizeof(struct qcow2_table *));

	if (!l2)
		return -ENOMEM;
	pthread_mutex_lock(&q->lock);
	for (size_t i = q->n_tables; i-- > 0;)
		if (!q->tables[i]->refblock)
			qcow2_table_drop(q, q->tables[i]);
	free(q->l2);
	free(q->l1);
	q->l2 = l2;
	q->l1 = STEAL(*l1);
	q->l1_dirty_lo = q->l1_dirty_hi = 0;
	pthread_mutex_unlock(&q->lock);
	return 0;
}

static int apply(struct qcow2 *q, const struct qcow2_snapshot *s)
{
	/* what lies behind the disk's end is VM state, of no use without a VM */
	uint32_t n = (uint32_t)qcow2_l1_needed(&q->h, s->disk_size), old_n = q->h.l1_size;
	AUTO_FREE uint64_t *l1 = NULL;
	AUTO_FREE uint64_t *old_l1 = NULL;
	struct qcow2_header to = q->h;
	uint64_t old = q->h.l1_offset;
	int r;

	if (n > s->l1_size)
		return -EIO;
	n = MAX(n, 1u);
	r = load_l1(q, s, n, &l1);
	if (r == 0)
		r = count_up(q, l1, n);
	if (r == 0)
		r = write_l1(q, l1, n, &to.l1_offset);
	if (r < 0)
		return r;
	old_l1 = malloc(old_n * UINT64_C(8) + 1);
	if (!old_l1)
		return -ENOMEM;
	memcpy(old_l1, q->l1, old_n * UINT64_C(8));
	to.l1_size = n;
	to.size = s->disk_size;
	for (uint32_t i = 0; i < n; i++)
		l1[i] &= ~QCOW2_COPIED;
	r = switch_header(q, &to);
	if (r == 0)
		r = adopt_l1(q, &l1, n);
	if (r == 0)
		r = count_down(q, old_l1, old_n);
	if (r == 0)
		free_region(q, old, old_n * UINT64_C(8));
	/* counts down first: they decide about COPIED */
	if (r == 0)
		r = qcow2_settle(q);
	if (r == 0)
		atomic_store(&q->disk->size, s->disk_size);
	return r;
}

int qcow2_snapshot_apply(struct vdisk *disk, const char *name, struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	struct qcow2_snapshot *all, *s;
	uint64_t bytes;
	unsigned n = q->h.n_snapshots;
	int r = begin(q, &all, &bytes, err);

	if (r < 0)
		return r;
	s = find(q, all, name, err);
	r = end(q, s ? apply(q, s) : 0, "applying", err);
	qcow2_snapshots_free(all, n);
	return r == 0 && !s ? -ENOENT : r;
}

/* Move entry @at to the end, and write the table without it. */
static int delete(struct qcow2 *q, struct qcow2_snapshot *all, uint64_t old_bytes, unsigned at)
{
	struct qcow2_snapshot gone = all[at];
	struct qcow2_header to = q->h;
	unsigned n = q->h.n_snapshots - 1;
	AUTO_FREE uint64_t *l1 = NULL;
	uint64_t old = q->h.snapshots_offset, bytes;
	int r;

	memmove(&all[at], &all[at + 1], (n - at) * sizeof(*all));
	all[n] = gone;
	r = load_l1(q, &gone, 0, &l1);
	if (r == 0)
		r = write_table(q, all, n, &to.snapshots_offset, &bytes);
	to.n_snapshots = n;
	if (r == 0)
		r = switch_header(q, &to);
	if (r == 0)
		r = count_down(q, l1, gone.l1_size);
	if (r < 0)
		return r;
	free_region(q, gone.l1_offset, gone.l1_size * UINT64_C(8));
	free_region(q, old, old_bytes);
	return qcow2_settle(q);
}

int qcow2_snapshot_delete(struct vdisk *disk, const char *name, struct vdisk_error *err)
{
	struct qcow2 *q = disk->priv;
	struct qcow2_snapshot *all, *s;
	uint64_t bytes;
	unsigned n = q->h.n_snapshots;
	int r = begin(q, &all, &bytes, err);

	if (r < 0)
		return r;
	s = find(q, all, name, err);
	r = end(q, s ? delete(q, all, bytes, (unsigned)(s - all)) : 0, "deleting", err);
	qcow2_snapshots_free(all, n);
	return r == 0 && !s ? -ENOENT : r;
}

int qcow2_snapshots_upgrade(struct qcow2 *q, struct vdisk_error *err)
{
	struct qcow2_header to = q->h;
	uint64_t old = q->h.snapshots_offset, old_bytes, bytes;
	unsigned n = q->h.n_snapshots;
	struct qcow2_snapshot *all;
	int r = begin(q, &all, &old_bytes, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = complete_extra(&all[i]);
	if (r == 0)
		r = write_table(q, all, n, &to.snapshots_offset, &bytes);
	if (r == 0)
		r = switch_header(q, &to);
	if (r == 0)
		free_region(q, old, old_bytes);
	qcow2_snapshots_free(all, n);
	return end(q, r, "rewriting", err);
}
