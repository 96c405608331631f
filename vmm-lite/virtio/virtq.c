/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtq.c - a split virtqueue from the device's side
 *
 * The driver is hostile and runs at the same time.  So (1) every word of the
 * rings is read exactly once, into a local, and judged there; (2) a chain is
 * at most as long as the queue, which also ends loops; (3) a head that is in
 * flight already is refused, as its request's memory is in use.
 */
#include "vmm-lite/virtio/virtq.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "core/compiler.h"

#define DESC_BYTES	16
#define USED_BYTES	8

/* Words shared with the driver: one access each (rings are at least 2-aligned). */
static uint16_t ring_load(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static void ring_store(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELEASE);
}

static void *avail_ring(const struct virtq *q, unsigned i)
{
	return q->avail + 4 + 2 * i;
}

/* Where the driver says at which used index it wants an interrupt (2.7.7.1). */
static void *used_event(const struct virtq *q)
{
	return q->avail + 4 + 2 * q->size;
}

static void *avail_event(const struct virtq *q)
{
	return q->used + 4 + USED_BYTES * q->size;
}

/* ---- the record of what is in flight ---- */

/* Offsets in it, in host byte order: version, entries, the last batch, used index. */
enum { RECORD_VERSION = 8, RECORD_SIZE = 10, RECORD_BATCH = 12, RECORD_USED = 14 };
/* ... and in an entry */
enum { ENTRY_INFLIGHT = 0, ENTRY_NEXT = 6, ENTRY_COUNT = 8 };

static uint16_t *record_u16(const struct virtq *q, unsigned off)
{
	return (uint16_t *)(void *)(q->record + off);
}

static uint8_t *record_entry(const struct virtq *q, unsigned head)
{
	return q->record + VIRTQ_RECORD_HEADER + VIRTQ_RECORD_ENTRY * head;
}

/* What is written must be in memory in this order: a kill may come between any two. */
static void record_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void record_take(struct virtq *q, uint16_t head)
{
	uint8_t *e = record_entry(q, head);

	*(uint64_t *)(void *)(e + ENTRY_COUNT) = q->taken++;
	record_barrier();
	e[ENTRY_INFLIGHT] = 1;
}

static void record_put(struct virtq *q, uint16_t head)
{
	*(uint16_t *)(void *)(record_entry(q, head) + ENTRY_NEXT) = *record_u16(q, RECORD_BATCH);
	record_barrier();
	*record_u16(q, RECORD_BATCH) = head;
}

/* The used ring says @used; the entries that it covers are no longer in flight. */
static void record_settle(struct virtq *q, uint16_t used)
{
	uint16_t n = (uint16_t)(used - *record_u16(q, RECORD_USED));
	uint16_t head = *record_u16(q, RECORD_BATCH);

	for (; n && head < q->size; n--) {
		uint8_t *e = record_entry(q, head);

		e[ENTRY_INFLIGHT] = 0;
		head = *(uint16_t *)(void *)(e + ENTRY_NEXT);
	}
	record_barrier();
	*record_u16(q, RECORD_USED) = used;
}

struct taken {
	uint64_t count;
	uint16_t head;
};

static int by_count(const void *a, const void *b)
{
	const struct taken *x = a, *y = b;

	return (x->count > y->count) - (x->count < y->count);
}

/* Find what another process left in flight, in the order in which it was taken. */
static int record_resume(struct virtq *q)
{
	AUTO_FREE struct taken *list = calloc(q->size, sizeof(*list));
	bool old = *record_u16(q, RECORD_VERSION) == 1;

	if (!list)
		return -ENOMEM;
	if (!old) {	/* all zero */
		memset(q->record, 0, virtq_record_bytes(q->size));
		*record_u16(q, RECORD_SIZE) = q->size;
		*record_u16(q, RECORD_USED) = q->used_idx;
		record_barrier();
		*record_u16(q, RECORD_VERSION) = 1;
	}
	/* killed between the used index and the record: settle that first */
	record_settle(q, q->used_idx);
	for (uint16_t i = 0; i < q->size; i++) {
		const uint8_t *e = record_entry(q, i);

		if (e[ENTRY_INFLIGHT])
			list[q->n_again++] = (struct taken) {
				.count = *(const uint64_t *)(const void *)(e + ENTRY_COUNT),
				.head = i,
			};
	}
	qsort(list, q->n_again, sizeof(*list), by_count);
	for (unsigned i = 0; i < q->n_again; i++)
		q->again[i] = list[i].head;
	q->taken = q->n_again ? list[q->n_again - 1].count + 1 : 0;
	/* those had been taken from the available ring, and nothing after them, whatever the front
	 * end believes */
	if (old)
		q->last_avail = (uint16_t)(q->used_idx + q->n_again);
	return 0;
}

int virtq_init(struct virtq *q, const struct guest_memory *mem, const struct virtq_setup *setup,
	       bool event_idx)
{
	uint32_t n = setup->size;

	if (!vd_is_pow2(n) || n > VIRTQ_SIZE_MAX)
		return -EINVAL;
	if (setup->desc % 16 || setup->avail % 2 || setup->used % 4)
		return -EINVAL;
	*q = (struct virtq) {
		.mem = mem, .size = (uint16_t)n, .event_idx = event_idx,
		.desc = guest_at(mem, setup->desc, DESC_BYTES * n),
		.avail = guest_at(mem, setup->avail, 6 + 2 * n),
		.used = guest_at(mem, setup->used, 6 + USED_BYTES * n),
	};
	if (!q->desc || !q->avail || !q->used)
		return -EINVAL;
	if (setup->resume) {
		q->last_avail = setup->next_avail;
		q->used_idx = q->used_seen = ring_load(q->used + 2);
	}
	q->record = setup->record;
	return q->record ? record_resume(q) : 0;
}

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

static struct desc load_desc(const uint8_t *table, unsigned i)
{
	uint8_t raw[DESC_BYTES];

	memcpy(raw, table + DESC_BYTES * i, sizeof(raw));
	__asm__ volatile("" ::: "memory");	/* the copy is what gets judged */
	return (struct desc) {
		.addr = load_le64(raw), .len = load_le32(raw + 8),
		.flags = load_le16(raw + 12), .next = load_le16(raw + 14),
	};
}

static int chain_add(const struct virtq *q, struct virtq_chain *c, struct iovec *iov,
		     const struct desc *d)
{
	bool in = d->flags & VRING_DESC_F_WRITE;
	unsigned n = c->n_out + c->n_in;

	if (!in && c->n_in)
		return -EPROTO;	/* 2.7.4.2: readable ones come first */
	if (!d->len)
		return 0;
	iov[n].iov_base = guest_at(q->mem, d->addr, d->len);
	iov[n].iov_len = d->len;
	if (!iov[n].iov_base)
		c->bad_memory = true;
	if (in) {
		c->n_in++;
		c->in_len += d->len;
	} else {
		c->n_out++;
		c->out_len += d->len;
	}
	return 0;
}

/* Walk a table of @n descriptors from @i; at most q->size steps in a chain (2.7.5.3.1). */
static int walk(const struct virtq *q, const uint8_t *table, uint32_t n, uint32_t i,
		struct virtq_chain *c, struct iovec *iov, unsigned *steps, bool indirect)
{
	for (;;) {
		struct desc d;
		int r;

		if (i >= n || (*steps)++ >= q->size)
			return -EPROTO;
		d = load_desc(table, i);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			const uint8_t *sub;

			/* no nesting; not together with NEXT; whole descriptors */
			if (indirect || d.flags & VRING_DESC_F_NEXT || !d.len ||
			    d.len % DESC_BYTES || d.len / DESC_BYTES > q->size)
				return -EPROTO;
			sub = guest_at(q->mem, d.addr, d.len);
			if (!sub)
				return -EPROTO;
			(*steps)--;	/* the table itself is no buffer */
			return walk(q, sub, d.len / DESC_BYTES, 0, c, iov, steps, true);
		}
		r = chain_add(q, c, iov, &d);
		if (r < 0)
			return r;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
}

static int take(struct virtq *q, uint16_t head, struct virtq_chain *chain, struct iovec *iov)
{
	unsigned steps = 0;
	int r;

	if (head >= q->size || q->busy[head / 64] >> head % 64 & 1)
		return -EPROTO;
	*chain = (struct virtq_chain) { .head = head };
	r = walk(q, q->desc, q->size, head, chain, iov, &steps, false);
	if (r < 0)
		return r;
	q->busy[head / 64] |= UINT64_C(1) << head % 64;
	return 1;
}

int virtq_pop(struct virtq *q, struct virtq_chain *chain, struct iovec *iov)
{
	uint16_t idx, head;
	int r;

	if (unlikely(q->next_again < q->n_again))
		return take(q, q->again[q->next_again++], chain, iov);
	idx = ring_load(q->avail + 2);
	if (idx == q->last_avail)
		return 0;
	if ((uint16_t)(idx - q->last_avail) > q->size)
		return -EPROTO;
	head = ring_load(avail_ring(q, q->last_avail & (q->size - 1)));
	r = take(q, head, chain, iov);
	if (r < 0)
		return r;
	if (q->record)
		record_take(q, head);
	q->last_avail++;
	return 1;
}

void virtq_put(struct virtq *q, uint16_t head, uint32_t len)
{
	uint8_t *e = q->used + 4 + USED_BYTES * (q->used_idx & (q->size - 1));

	q->busy[head / 64] &= ~(UINT64_C(1) << head % 64);
	store_le32(e, head);
	store_le32(e + 4, len);
	q->used_idx++;
	if (q->record)
		record_put(q, head);
}

bool virtq_publish(struct virtq *q)
{
	uint16_t old = q->used_seen, now = q->used_idx, event;

	if (old == now)
		return false;
	ring_store(q->used + 2, now);
	q->used_seen = now;
	if (q->record)
		record_settle(q, now);
	/* the index must be out before the driver's wish is read (2.7.7.2) */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx)
		return !(ring_load(q->avail) & VRING_AVAIL_F_NO_INTERRUPT);
	event = ring_load(used_event(q));
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

void virtq_quiet(struct virtq *q)
{
	/* with EVENT_IDX the old index stands, and no new one passes it soon */
	if (!q->event_idx)
		ring_store(q->used, VRING_USED_F_NO_NOTIFY);
}

bool virtq_listen(struct virtq *q)
{
	if (q->event_idx)
		ring_store(avail_event(q), q->last_avail);
	else
		ring_store(q->used, 0);
	/* the wish must be out before the ring is looked at again (2.7.10.1) */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return ring_load(q->avail + 2) != q->last_avail;
}
