/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All the tests of the block device, with the device behind memory of its own;
 * and what only that can get wrong: room, and what a device says that lies.
 */
#define WRAP_DEVICE(s)	wrap(s)
#define MORE_TESTS \
	cmocka_unit_test_setup_teardown(too_large_is_an_error, setup, teardown), \
	cmocka_unit_test_setup_teardown(all_wait_for_room, setup, teardown), \
	cmocka_unit_test_setup_teardown(segments_are_limited, setup, teardown), \
	cmocka_unit_test_setup_teardown(lies_break_the_device, setup, teardown),

struct sim;
static void wrap(struct sim *s);
static void too_large_is_an_error(void **state);
static void all_wait_for_room(void **state);
static void segments_are_limited(void **state);
static void lies_break_the_device(void **state);

#include "virtio_blk.c"

#include "vmm-lite/virtio/bounce.h"

static void wrap(struct sim *s)
{
	struct bounce_options o = { .inner = s->dev };

	assert_int_equal(bounce_memory_new(&o.memory, QUEUES, NULL), 0);
	assert_int_equal(bounce_new(&s->dev, &o, NULL), 0);
}

/* A read of @n times 4 MiB into the same memory; a status byte at ARENA + 100. */
static void post_read(struct sim *s, struct ring *r, unsigned n, uint64_t status_at)
{
	uint16_t first = r->next_desc, d = first;

	memset(at(s, ARENA), 0, 16);
	*(uint8_t *)at(s, status_at) = 0xee;
	set_desc(s, r->desc, d, ARENA, 16, VRING_DESC_F_NEXT, d + 1u);
	for (unsigned i = 0; i < n; i++) {
		d++;
		set_desc(s, r->desc, d, MEMORY / 2, DISK_SIZE, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
			 d + 1u);
	}
	d++;
	set_desc(s, r->desc, d, status_at, 1, VRING_DESC_F_WRITE, 0);
	r->next_desc = (uint16_t)(d + 1);
	post(s, r, first);
}

static void too_large_is_an_error(void **state)
{
	struct sim *s = *state;
	struct ring *r = &s->ring[0];
	uint32_t head, len;

	start(s, ALL_FEATURES);
	post_read(s, r, 17, ARENA + 100);
	kick(r);
	assert_true(take_used(s, r, &head, &len));
	assert_int_equal(len, 1);
	assert_int_equal(*(uint8_t *)at(s, ARENA + 100), VIRTIO_BLK_S_IOERR);
	/* one that just fits reaches the disk, which is smaller */
	post_read(s, r, 15, ARENA + 100);
	kick(r);
	assert_true(take_used(s, r, &head, &len));
	assert_int_equal(*(uint8_t *)at(s, ARENA + 100), VIRTIO_BLK_S_IOERR);
	assert_int_equal(s->broken, 0);
	stop(s);
}

/* On both queues together far more than there is room for; small ones in between. */
static void all_wait_for_room(void **state)
{
	enum { N = 40 };
	struct sim *s = *state;
	uint32_t head, len;

	start(s, ALL_FEATURES);
	for (unsigned i = 0; i < N; i++) {
		post_read(s, &s->ring[0], 1, ARENA + 100 + i);
		post_read(s, &s->ring[1], i % 2, ARENA + 200 + i);
	}
	kick(&s->ring[0]);
	kick(&s->ring[1]);
	for (unsigned i = 0; i < N; i++) {
		assert_true(take_used(s, &s->ring[0], &head, &len));
		assert_int_equal(len, DISK_SIZE + 1);
		assert_true(take_used(s, &s->ring[1], &head, &len));
	}
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(*(uint8_t *)at(s, ARENA + 100 + i), VIRTIO_BLK_S_OK);
		assert_int_equal(*(uint8_t *)at(s, ARENA + 200 + i),
				 i % 2 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
	}
	assert_memory_equal(at(s, MEMORY / 2), s->model, DISK_SIZE);
	stop(s);
}

/* So that no driver asks for more than there is room for. */
static void segments_are_limited(void **state)
{
	struct sim *s = *state;
	uint8_t c[8];

	assert_true(s->dev->features & F(VIRTIO_BLK_F_SIZE_MAX));
	s->dev->ops->config_read(s->dev, 8, c, sizeof(c));
	assert_int_equal(load_le32(c), 256 << 10);
	assert_true((uint64_t)load_le32(c) * load_le32(c + 4) <= 64 << 20);
	s->dev->ops->config_read(s->dev, 10, c, 1);
	assert_int_equal(c[0], 4);
	s->dev->ops->config_read(s->dev, 0, c, 8);
	assert_int_equal(load_le64(c), DISK_SIZE / 512);
}

/* ---- a device that lies ---- */

static struct {
	struct virtio_start start;
	struct virtq_setup queue;
	struct guest_memory mem;
} liar;

static int liar_start(struct virtio_device *dev, const struct virtio_start *s)
{
	(void)dev;
	liar.start = *s;
	liar.queue = s->queue[0];
	liar.mem = *s->mem;
	return 0;
}

static void liar_nothing(struct virtio_device *dev)
{
	(void)dev;
}

/* The used ring's next element: @id; or an index far ahead. */
static void lie(uint32_t id, uint16_t index)
{
	uint8_t *used = guest_at(&liar.mem, liar.queue.used, 6);

	store_le32(used + 4, id);
	store_le32(used + 8, UINT32_MAX);
	__atomic_store_n((uint16_t *)(void *)(used + 2), index, __ATOMIC_RELEASE);
	liar.start.host.interrupt(liar.start.host.arg, 0);
}

/* A read, until it is in the inner available ring. */
static void read_one(struct sim *s)
{
	submit(s, &s->ring[0], layouts, VIRTIO_BLK_T_IN, 0, NULL, 0, 512);
	kick(&s->ring[0]);
	for (unsigned t = 0; t < 25000 && !load_le16((uint8_t *)guest_at(&liar.mem,
	     liar.queue.avail, 6) + 2); t++)
		nap();
}

static void lies_break_the_device(void **state)
{
	static const struct { uint32_t id; uint16_t index; } lies[] = {
		{ 1, 1 }, { 2, 1 }, { 256, 1 }, { UINT32_MAX, 1 }, { 0, 2 }, { 0, 0xffff },
	};
	static const struct virtio_device_ops ops = {
		.start = liar_start, .stop = liar_nothing, .free = liar_nothing,
	};
	struct sim *s = *state;
	struct virtio_device dev = *s->dev;
	uint32_t head, len;

	s->dev->ops->free(s->dev);
	dev.ops = &ops;
	s->dev = &dev;
	wrap(s);
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		start(s, ALL_FEATURES);
		read_one(s);
		lie(lies[i].id, lies[i].index);
		wait_broken(s);
		stop(s);
		/* what it said of the first before it lied of the second counts */
		assert_int_equal(load_le16((uint8_t *)at(s, s->ring[0].used) + 2), lies[i].id == 0);
	}
	/* a length that is too long is cut */
	start(s, ALL_FEATURES);
	read_one(s);
	lie(0, 1);
	assert_true(take_used(s, &s->ring[0], &head, &len));
	assert_int_equal(len, 513);
	stop(s);
	s->dev->ops->free(s->dev);
	new_device(s, false, NULL);
}
