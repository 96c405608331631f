/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The virtio block device, by a driver simulator: the test writes virtqueues
 * into plain memory, rings the doorbell's descriptor and reads the answers.
 * Legal but rare layouts, everything illegal, and each request exactly once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/blk.h"

#define MEMORY		(8u << 20)
#define DISK_SIZE	(4u << 20)
#define QUEUES		2u
#define SIZE		256u
#define ARENA		0x100000u	/* buffers, from here on */
#define F(bit)		(UINT64_C(1) << (bit))
#define ALL_FEATURES	UINT64_MAX

struct ring {
	uint64_t desc, avail, used;	/* guest addresses */
	uint16_t size, next_avail, next_used, next_desc;
	int kick_fd;
};

struct sim {
	uint8_t *mem;
	struct guest_memory map;
	struct virtio_device *dev;
	struct vdisk *disk;
	uint64_t features;
	struct ring ring[QUEUES];
	uint64_t arena;			/* next free buffer */
	uint8_t model[DISK_SIZE];
	_Atomic unsigned interrupts[QUEUES];
	_Atomic unsigned broken;
	bool started;
};

static void on_interrupt(void *arg, unsigned queue)
{
	struct sim *s = arg;

	s->interrupts[queue]++;
}

static void on_broken(void *arg)
{
	struct sim *s = arg;

	s->broken++;
}

static void *at(struct sim *s, uint64_t gpa)
{
	return s->mem + gpa;
}

/* ---- the driver's side of a queue ---- */

static void start_size(struct sim *s, uint64_t features, uint16_t size)
{
	struct virtq_setup setup[QUEUES];
	struct virtio_start start = {
		.mem = &s->map, .queue = setup,
		.host = { .interrupt = on_interrupt, .broken = on_broken, .arg = s },
	};

	s->features = start.features = s->dev->features & features;
	s->broken = 0;
	s->arena = ARENA;
	memset(s->mem, 0, ARENA);
	for (unsigned i = 0; i < QUEUES; i++) {
		struct ring *r = &s->ring[i];
		int fd = r->kick_fd;

		*r = (struct ring) {
			.desc = 0x10000 * (i + 1), .avail = 0x10000 * (i + 1) + 0x4000,
			.used = 0x10000 * (i + 1) + 0x8000, .size = size, .kick_fd = fd,
		};
		setup[i] = (struct virtq_setup) {
			.size = size, .desc = r->desc, .avail = r->avail, .used = r->used,
			.kick_fd = fd,
		};
	}
	assert_int_equal(s->dev->ops->start(s->dev, &start), 0);
	s->started = true;
}

static void start(struct sim *s, uint64_t features)
{
	start_size(s, features, SIZE);
}

static void stop(struct sim *s)
{
	s->dev->ops->stop(s->dev);
	s->started = false;
}

static void set_desc(struct sim *s, uint64_t table, unsigned i, uint64_t addr, uint32_t len,
		     unsigned flags, unsigned next)
{
	uint8_t *d = at(s, table + 16 * i);

	store_le64(d, addr);
	store_le32(d + 8, len);
	store_le16(d + 12, (uint16_t)flags);
	store_le16(d + 14, (uint16_t)next);
}

static void post(struct sim *s, struct ring *r, uint16_t head)
{
	uint8_t *a = at(s, r->avail);

	store_le16(a + 4 + 2 * (r->next_avail % r->size), head);
	r->next_avail++;
	__atomic_store_n((uint16_t *)(void *)(a + 2), r->next_avail, __ATOMIC_RELEASE);
}

static void kick(struct ring *r)
{
	uint64_t one = 1;

	assert_int_equal(write(r->kick_fd, &one, sizeof(one)), sizeof(one));
}

static void nap(void)
{
	struct timespec t = { .tv_nsec = 200000 };

	nanosleep(&t, NULL);
}

/* The next used element; false if none comes. */
static bool take_used(struct sim *s, struct ring *r, uint32_t *head, uint32_t *len)
{
	const uint8_t *u = at(s, r->used);

	for (unsigned i = 0; i < 25000; i++) {
		if (__atomic_load_n((const uint16_t *)(const void *)(u + 2), __ATOMIC_ACQUIRE) !=
		    r->next_used) {
			const uint8_t *e = u + 4 + 8 * (r->next_used % r->size);

			*head = load_le32(e);
			*len = load_le32(e + 4);
			r->next_used++;
			return true;
		}
		if (s->broken)
			return false;
		nap();
	}
	return false;
}

static void wait_broken(struct sim *s)
{
	for (unsigned i = 0; i < 25000 && !s->broken; i++)
		nap();
	assert_int_equal(s->broken, 1);
}

static uint64_t alloc(struct sim *s, size_t len)
{
	uint64_t at_gpa = s->arena;

	s->arena += len;
	assert_true(s->arena <= MEMORY);
	return at_gpa;
}

/* ---- requests ---- */

/* How the bytes of a request are cut into descriptors. */
struct layout {
	const char *name;
	uint32_t piece;		/* at most this many bytes each; 0: no limit */
	bool split_header;	/* the header is a descriptor of its own */
	bool split_status;	/* so is the status byte */
	bool empty;		/* with descriptors of no length between */
	bool indirect;
};

static const struct layout layouts[] = {
	{ "as Linux does", 0, true, true, false, false },
	{ "indirect", 0, true, true, false, true },
	{ "header and data in one", 0, false, true, false, false },
	{ "data and status in one", 0, true, false, false, false },
	{ "all in one", 0, false, false, false, false },
	{ "with empty ones", 512, true, true, true, false },
	{ "pieces of 7 bytes", 7, false, false, false, false },
	{ "pieces of 13 bytes, indirect", 13, true, false, false, true },
	{ "single bytes, indirect", 1, false, false, false, true },
};

struct chain {
	uint64_t table;
	unsigned n, first;	/* descriptors, and the first one's number */
	unsigned mask;
};

static void chain_add(struct sim *s, struct chain *c, uint64_t gpa, uint32_t len, bool in)
{
	if (c->n)
		((uint8_t *)at(s, c->table + 16 * ((c->first + c->n - 1) & c->mask)))[12] |=
			VRING_DESC_F_NEXT;
	set_desc(s, c->table, (c->first + c->n) & c->mask, gpa, len, in ? VRING_DESC_F_WRITE : 0,
		 (c->first + c->n + 1) & c->mask);
	c->n++;
}

static void chain_cut(struct sim *s, struct chain *c, const struct layout *l, uint64_t gpa,
		      uint32_t len, bool in)
{
	while (len) {
		uint32_t part = l->piece && l->piece < len ? l->piece : len;

		chain_add(s, c, gpa, part, in);
		if (l->empty)
			chain_add(s, c, 0x5000, 0, in);
		gpa += part;
		len -= part;
	}
}

struct request {
	uint64_t out, in;	/* guest addresses: header and data; data and status */
	uint32_t in_len;
	uint16_t head;
};

/* Post a request: header and @out_len bytes for the device to read, @in_len and a status back. */
static struct request submit(struct sim *s, struct ring *r, const struct layout *l, uint32_t type,
			     uint64_t sector, const void *out, uint32_t out_len, uint32_t in_len)
{
	struct request q = { .out = alloc(s, 16 + out_len), .in = alloc(s, in_len + 1),
			     .in_len = in_len };
	struct chain c = { .table = r->desc, .first = r->next_desc, .mask = r->size - 1u };

	store_le32(at(s, q.out), type);
	store_le32(at(s, q.out + 4), 0);
	store_le64(at(s, q.out + 8), sector);
	if (out_len)
		memcpy(at(s, q.out + 16), out, out_len);
	memset(at(s, q.in), 0xee, in_len + 1);
	if (l->indirect) {
		s->arena = vd_align_up(s->arena, 16);
		c = (struct chain) { .table = s->arena, .mask = UINT32_MAX };
	}
	if (l->split_header)
		chain_cut(s, &c, l, q.out, 16, false);
	chain_cut(s, &c, l, q.out + (l->split_header ? 16 : 0),
		  out_len + (l->split_header ? 0 : 16), false);
	if (l->split_status)
		chain_cut(s, &c, l, q.in, in_len, true);
	chain_cut(s, &c, l, q.in + (l->split_status ? in_len : 0),
		  l->split_status ? 1 : in_len + 1, true);
	assert_true(c.n <= r->size);
	q.head = r->next_desc;
	if (l->indirect) {
		alloc(s, 16 * c.n);
		set_desc(s, r->desc, q.head, c.table, 16 * c.n, VRING_DESC_F_INDIRECT, 0);
		c.n = 1;
	}
	r->next_desc = (uint16_t)((r->next_desc + c.n) % r->size);
	post(s, r, q.head);
	return q;
}

static uint8_t status(struct sim *s, const struct request *q)
{
	return *(uint8_t *)at(s, q->in + q->in_len);
}

/* One request, answered; the used length is right. */
static struct request run(struct sim *s, const struct layout *l, uint32_t type, uint64_t sector,
			  const void *out, uint32_t out_len, uint32_t in_len, uint8_t expected)
{
	struct ring *r = &s->ring[0];
	struct request q;
	uint32_t head, len;

	s->arena = ARENA;
	q = submit(s, r, l, type, sector, out, out_len, in_len);
	kick(r);
	assert_true(take_used(s, r, &head, &len));
	assert_int_equal(head, q.head);
	assert_int_equal(status(s, &q), expected);
	assert_int_equal(len, expected == VIRTIO_BLK_S_OK ? in_len + 1 : 1);
	return q;
}

/* ---- fixture ---- */

static void new_device(struct sim *s, bool read_only, const char *serial)
{
	struct blk_options o = { .disk = s->disk, .read_only = read_only, .queues = QUEUES,
				 .serial = serial };

	assert_int_equal(blk_new(&s->dev, &o, NULL), 0);
#ifdef WRAP_DEVICE
	WRAP_DEVICE(s);
#endif
}

static int setup(void **state)
{
	struct sim *s = calloc(1, sizeof(*s));

	s->mem = calloc(1, MEMORY);
	s->map.n = 1;
	s->map.region[0] = (struct guest_region) { .gpa = 0, .size = MEMORY, .host = s->mem };
	assert_int_equal(vdisk_open_memory(&s->disk, DISK_SIZE, NULL), 0);
	for (uint32_t i = 0; i < DISK_SIZE; i++)
		s->model[i] = (uint8_t)(i * 13 + i / 512);
	assert_int_equal(vdisk_write(s->disk, s->model, DISK_SIZE, 0), 0);
	for (unsigned i = 0; i < QUEUES; i++)
		s->ring[i].kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	new_device(s, false, "serial-0123456789abc");
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sim *s = *state;

	if (s->started)
		stop(s);	/* a test has failed */
	s->dev->ops->free(s->dev);
	for (unsigned i = 0; i < QUEUES; i++)
		close(s->ring[i].kick_fd);
	vdisk_close(s->disk, NULL);
	free(s->mem);
	free(s);
	return 0;
}

/* ---- tests ---- */

static void reads_and_writes_in_every_layout(void **state)
{
	static const uint64_t sets[] = { ALL_FEATURES, ~F(VIRTIO_RING_F_EVENT_IDX) };
	struct sim *s = *state;
	uint8_t data[1024];

	for (size_t f = 0; f < ARRAY_SIZE(sets); f++) {
		start(s, sets[f]);
		for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
			const struct layout *l = &layouts[i];
			uint32_t len = l->piece && l->piece < 5 ? 0 : l->piece ? 512 : 1024;
			struct request q;

			if (!len)
				continue;	/* would not fit into the queue */
			memset(data, (int)(i + f * 16 + 1), sizeof(data));
			run(s, l, VIRTIO_BLK_T_OUT, 8, data, len, 0, VIRTIO_BLK_S_OK);
			q = run(s, l, VIRTIO_BLK_T_IN, 8, NULL, 0, len, VIRTIO_BLK_S_OK);
			assert_memory_equal(at(s, q.in), data, len);
			memcpy(s->model + 8 * 512, data, len);
		}
		assert_int_equal(s->broken, 0);
		stop(s);
	}
}

static void single_bytes(void **state)
{
	struct sim *s = *state;
	const struct layout *l = &layouts[ARRAY_SIZE(layouts) - 1];
	struct request q;

	start(s, ALL_FEATURES);
	run(s, l, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, 0, VIRTIO_BLK_S_OK);
	q = run(s, l, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, 20, VIRTIO_BLK_S_OK);
	assert_memory_equal(at(s, q.in), "serial-0123456789abc", 20);
	stop(s);
}

static void reads_across_the_disk(void **state)
{
	struct sim *s = *state;

	start(s, ALL_FEATURES);
	for (uint64_t sector = 0; sector < DISK_SIZE / 512; sector += 2048) {
		struct request q = run(s, &layouts[1], VIRTIO_BLK_T_IN, sector, NULL, 0, 1 << 20,
				       VIRTIO_BLK_S_OK);

		assert_memory_equal(at(s, q.in), s->model + sector * 512, 1 << 20);
	}
	stop(s);
}

static void mistakes_are_io_errors(void **state)
{
	struct sim *s = *state;
	const struct layout *l = &layouts[0];
	uint64_t end = DISK_SIZE / 512;
	uint8_t data[1024] = { 0 };

	start(s, ALL_FEATURES);
	run(s, l, VIRTIO_BLK_T_IN, end, NULL, 0, 512, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, end - 1, NULL, 0, 1024, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, UINT64_MAX, NULL, 0, 512, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, UINT64_MAX / 512, NULL, 0, 1024, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_OUT, end, data, 512, 0, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, 0, NULL, 0, 511, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_OUT, 0, data, 513, 0, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, 0, NULL, 0, 0, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_OUT, 0, NULL, 0, 0, VIRTIO_BLK_S_IOERR);
	/* data in the wrong direction */
	run(s, l, VIRTIO_BLK_T_OUT, 0, NULL, 0, 512, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, 0, data, 512, 0, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_OUT, 0, data, 512, 512, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, 19, VIRTIO_BLK_S_IOERR);
	/* unknown types */
	run(s, l, 3, 0, NULL, 0, 512, VIRTIO_BLK_S_IOERR);
	run(s, l, 0x1234567, 0, NULL, 0, 0, VIRTIO_BLK_S_UNSUPP);
	/* and it still works */
	run(s, l, VIRTIO_BLK_T_IN, end - 1, NULL, 0, 512, VIRTIO_BLK_S_OK);
	assert_int_equal(s->broken, 0);
	stop(s);
}

/* A disk of 4096-byte blocks takes whole ones, if the driver was told of them. */
static void large_blocks(void **state)
{
	struct vdisk_open_opts o = { .size = sizeof(o), .flags = VDISK_OPEN_WRITE, .format = "raw",
				     .block_size = 4096 };
	struct sim *s = *state;
	const struct layout *l = &layouts[0];
	struct vdisk *small = s->disk;
	uint8_t data[4096] = { 1 }, zeroes[16] = { 0 };

	s->dev->ops->free(s->dev);
	assert_int_equal(vdisk_open_on(&s->disk, small, &o, NULL), 0);
	new_device(s, false, NULL);
	start(s, ALL_FEATURES);
	run(s, l, VIRTIO_BLK_T_IN, 8, NULL, 0, 4096, VIRTIO_BLK_S_OK);
	run(s, l, VIRTIO_BLK_T_OUT, 8, data, 4096, 0, VIRTIO_BLK_S_OK);
	run(s, l, VIRTIO_BLK_T_IN, 8, NULL, 0, 512, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, 8, NULL, 0, 4096 + 512, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_IN, 9, NULL, 0, 4096, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_OUT, 8, data, 512, 0, VIRTIO_BLK_S_IOERR);
	run(s, l, VIRTIO_BLK_T_OUT, 7, data, 4096, 0, VIRTIO_BLK_S_IOERR);
	store_le32(zeroes + 8, 1);	/* a sector */
	run(s, l, VIRTIO_BLK_T_WRITE_ZEROES, 0, zeroes, 16, 0, VIRTIO_BLK_S_IOERR);
	store_le32(zeroes + 8, 8);
	run(s, l, VIRTIO_BLK_T_WRITE_ZEROES, 0, zeroes, 16, 0, VIRTIO_BLK_S_OK);
	stop(s);
	/* one that does not know of them is served */
	start(s, ~F(VIRTIO_BLK_F_BLK_SIZE));
	run(s, l, VIRTIO_BLK_T_IN, 9, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
	vdisk_close(small, NULL);
}

static void short_header(void **state)
{
	struct sim *s = *state;
	struct ring *r = &s->ring[0];
	uint32_t head, len;

	start(s, ALL_FEATURES);
	set_desc(s, r->desc, 0, ARENA, 15, VRING_DESC_F_NEXT, 1);
	set_desc(s, r->desc, 1, ARENA + 4096, 513, VRING_DESC_F_WRITE, 0);
	post(s, r, 0);
	kick(r);
	assert_true(take_used(s, r, &head, &len));
	assert_int_equal(*(uint8_t *)at(s, ARENA + 4096 + 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(len, 1);
	stop(s);
}

static void range(uint8_t *p, uint64_t sector, uint32_t n, uint32_t flags)
{
	store_le64(p, sector);
	store_le32(p + 8, n);
	store_le32(p + 12, flags);
}

static void discard_and_write_zeroes(void **state)
{
	struct sim *s = *state;
	uint64_t end = DISK_SIZE / 512;
	uint8_t r[16 * 65] = { 0 };

	start(s, ALL_FEATURES);
	for (size_t i = 0; i < ARRAY_SIZE(layouts) - 1; i++) {
		const struct layout *l = &layouts[i];

		range(r, 16 * i, 3, 0);
		range(r + 16, 16 * i + 8, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
		range(r + 32, 16 * i + 12, 2, 0);
		run(s, l, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 48, 0, VIRTIO_BLK_S_OK);
		memset(s->model + 512 * (16 * i), 0, 3 * 512);
		memset(s->model + 512 * (16 * i + 8), 0, 512);
		memset(s->model + 512 * (16 * i + 12), 0, 2 * 512);
	}
	range(r, 0, 1, 0);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, r, 16, 0, VIRTIO_BLK_S_OK);
	memset(s->model, 0, 512);
	/* flags that do not exist */
	range(r, 64, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, r, 16, 0, VIRTIO_BLK_S_UNSUPP);
	range(r, 64, 1, 2);
	run(s, layouts, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 16, 0, VIRTIO_BLK_S_UNSUPP);
	/* ranges that do not exist: nothing of the request is done */
	range(r, 64, 1, 0);
	range(r + 16, end, 1, 0);
	run(s, layouts, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 32, 0, VIRTIO_BLK_S_IOERR);
	range(r + 16, UINT64_MAX, 1, 0);
	run(s, layouts, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 32, 0, VIRTIO_BLK_S_IOERR);
	range(r, 0, UINT32_MAX, 0);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, r, 16, 0, VIRTIO_BLK_S_IOERR);
	range(r, 0, 0, 0);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, r, 16, 0, VIRTIO_BLK_S_IOERR);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, r, 15, 0, VIRTIO_BLK_S_IOERR);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, NULL, 0, 0, VIRTIO_BLK_S_IOERR);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, r, sizeof(r), 0, VIRTIO_BLK_S_IOERR);
	stop(s);
	{
		uint8_t *now = malloc(DISK_SIZE);

		assert_int_equal(vdisk_read(s->disk, now, DISK_SIZE, 0), 0);
		assert_memory_equal(now, s->model, DISK_SIZE);
		free(now);
	}
}

static void read_only_is_enforced(void **state)
{
	struct sim *s = *state;
	uint8_t data[512] = { 1 }, r[16];

	s->dev->ops->free(s->dev);
	new_device(s, true, NULL);
	assert_true(s->dev->features & F(VIRTIO_BLK_F_RO));
	assert_false(s->dev->features & F(VIRTIO_BLK_F_DISCARD));
	start(s, ~F(VIRTIO_BLK_F_RO));	/* a driver that does not know it */
	range(r, 0, 1, 0);
	run(s, layouts, VIRTIO_BLK_T_OUT, 0, data, 512, 0, VIRTIO_BLK_S_IOERR);
	run(s, layouts, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 16, 0, VIRTIO_BLK_S_IOERR);
	run(s, layouts, VIRTIO_BLK_T_DISCARD, 0, r, 16, 0, VIRTIO_BLK_S_IOERR);
	run(s, layouts, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, 0, VIRTIO_BLK_S_OK);
	run(s, layouts, VIRTIO_BLK_T_IN, 0, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
}

static const char *kept_from;

static void kept(const char *serial, const char *format)
{
	assert_string_equal(serial, "guessed");
	kept_from = format;
}

/* A disk that was found to be raw does not become another image by what its guest writes. */
static void raw_stays_raw(void **state)
{
	struct sim *s = *state;
	struct blk_options o = { .disk = s->disk, .queues = 1, .serial = "guessed", .keep_raw = kept };
	static const struct {
		unsigned off, len;
		const char *magic, *format;
	} bad[] = {
		{ 0, 8, "QFI\xfb\0\0\0\003", "qcow2" }, { 0, 8, "QFI\xfb\0\0\0\002", "qcow2" },
		{ 0, 4, "KDMV", "vmdk" }, { 64, 4, "\x7f\x10\xda\xbe", "vdi" },
		{ 100, 22, "# Disk DescriptorFile\n", "vmdk" },
	};
	static uint8_t now[DISK_SIZE];
	uint8_t data[1536];

	s->dev->ops->free(s->dev);
	assert_int_equal(blk_new(&s->dev, &o, NULL), 0);
	start(s, ALL_FEATURES);
	for (size_t i = 0; i < ARRAY_SIZE(layouts) - 1; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
			memset(data, '\n', sizeof(data));
			memcpy(data + bad[k].off, bad[k].magic, bad[k].len);
			kept_from = NULL;
			run(s, &layouts[i], VIRTIO_BLK_T_OUT, 0, data, sizeof(data), 0, VIRTIO_BLK_S_IOERR);
			assert_string_equal(kept_from, bad[k].format);
			/* elsewhere it is data like any other */
			run(s, &layouts[i], VIRTIO_BLK_T_OUT, 8, data, 512, 0, VIRTIO_BLK_S_OK);
			memcpy(s->model + 8 * 512, data, 512);
		}
		/* a partition table may be written, and is, with what follows it */
		memset(data, (int)i + 1, sizeof(data));
		run(s, &layouts[i], VIRTIO_BLK_T_OUT, 0, data, sizeof(data), 0, VIRTIO_BLK_S_OK);
		memcpy(s->model, data, sizeof(data));
	}
	stop(s);
	assert_int_equal(vdisk_read(s->disk, now, DISK_SIZE, 0), 0);
	assert_memory_equal(now, s->model, DISK_SIZE);
}

static void memory_outside_is_an_error(void **state)
{
	struct sim *s = *state;
	struct ring *r = &s->ring[0];
	static const struct { uint64_t addr; uint32_t len; } bad[] = {
		{ MEMORY, 512 }, { MEMORY - 256, 512 }, { UINT64_MAX - 100, 512 },
		{ UINT64_MAX, 512 }, { 4096, UINT32_MAX }, { MEMORY + 1, 512 },
	};
	uint32_t head, len;

	start(s, ALL_FEATURES);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(at(s, ARENA), 0, 16);
		*(uint8_t *)at(s, ARENA + 100) = 0xee;
		set_desc(s, r->desc, 0, ARENA, 16, VRING_DESC_F_NEXT, 1);
		set_desc(s, r->desc, 1, bad[i].addr, bad[i].len,
			 VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
		set_desc(s, r->desc, 2, ARENA + 100, 1, VRING_DESC_F_WRITE, 0);
		post(s, r, 0);
		kick(r);
		assert_true(take_used(s, r, &head, &len));
		assert_int_equal(*(uint8_t *)at(s, ARENA + 100), VIRTIO_BLK_S_IOERR);
	}
	/* the header outside */
	set_desc(s, r->desc, 0, MEMORY, 16, VRING_DESC_F_NEXT, 2);
	*(uint8_t *)at(s, ARENA + 100) = 0xee;
	post(s, r, 0);
	kick(r);
	assert_true(take_used(s, r, &head, &len));
	assert_int_equal(*(uint8_t *)at(s, ARENA + 100), VIRTIO_BLK_S_IOERR);
	assert_int_equal(s->broken, 0);
	stop(s);
}

/* Chains that cannot be answered: the device asks for a reset, and works after it. */
static void broken_chains(void **state)
{
	struct sim *s = *state;
	struct ring *r = &s->ring[0];
	enum { NEXT = VRING_DESC_F_NEXT, WRITE = VRING_DESC_F_WRITE,
	       INDIRECT = VRING_DESC_F_INDIRECT };

	for (unsigned c = 0; c < 14; c++) {
		uint16_t head = 0;

		start(s, c & 1 ? ALL_FEATURES : ~F(VIRTIO_RING_F_EVENT_IDX));
		set_desc(s, r->desc, 0, ARENA, 16, NEXT, 1);
		set_desc(s, r->desc, 1, ARENA + 512, 513, WRITE, 0);
		switch (c) {
		case 0:		/* a loop */
			set_desc(s, r->desc, 1, ARENA + 512, 1, WRITE | NEXT, 1);
			break;
		case 1:		/* a loop of nothing */
			set_desc(s, r->desc, 0, ARENA, 0, NEXT, 0);
			break;
		case 2:		/* next outside the table */
			set_desc(s, r->desc, 0, ARENA, 16, NEXT, SIZE);
			break;
		case 3:		/* readable after writable */
			set_desc(s, r->desc, 0, ARENA, 16, NEXT | WRITE, 1);
			set_desc(s, r->desc, 1, ARENA, 16, 0, 0);
			break;
		case 4:		/* no status byte */
			set_desc(s, r->desc, 0, ARENA, 16, 0, 0);
			break;
		case 5:		/* a status byte outside memory */
			set_desc(s, r->desc, 1, MEMORY, 1, WRITE, 0);
			break;
		case 6:		/* a head outside the table */
			head = SIZE;
			break;
		case 7:		/* indirect and next */
			set_desc(s, r->desc, 0, ARENA, 16, NEXT | INDIRECT, 1);
			break;
		case 8:		/* an indirect table of half descriptors */
			set_desc(s, r->desc, 0, ARENA, 24, INDIRECT, 0);
			break;
		case 9:		/* an empty one */
			set_desc(s, r->desc, 0, ARENA, 0, INDIRECT, 0);
			break;
		case 10:	/* one outside memory */
			set_desc(s, r->desc, 0, MEMORY - 16, 32, INDIRECT, 0);
			break;
		case 11:	/* nested */
			set_desc(s, r->desc, 0, ARENA, 32, INDIRECT, 0);
			set_desc(s, ARENA, 0, ARENA, 32, INDIRECT, 0);
			break;
		case 12:	/* longer than the queue */
			set_desc(s, r->desc, 0, ARENA, 16 * (SIZE + 1), INDIRECT, 0);
			break;
		case 13:	/* next outside the indirect table */
			set_desc(s, r->desc, 0, ARENA, 32, INDIRECT, 0);
			set_desc(s, ARENA, 0, ARENA + 512, 16, NEXT, 2);
			break;
		}
		post(s, r, head);
		kick(r);
		wait_broken(s);
		stop(s);
		assert_int_equal(load_le16((uint8_t *)at(s, r->used) + 2), 0);
	}
	start(s, ALL_FEATURES);
	run(s, layouts, VIRTIO_BLK_T_IN, 0, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
}

static void duplicate_heads(void **state)
{
	struct sim *s = *state;
	struct ring *r = &s->ring[0];
	struct request q;

	start(s, ALL_FEATURES);
	q = submit(s, r, layouts, VIRTIO_BLK_T_IN, 0, NULL, 0, 512);
	post(s, r, q.head);
	kick(r);
	wait_broken(s);
	stop(s);
	/* the first of the two was answered, once */
	assert_int_equal(load_le16((uint8_t *)at(s, r->used) + 2), 1);
	assert_int_equal(status(s, &q), VIRTIO_BLK_S_OK);
}

static void index_jumps(void **state)
{
	struct sim *s = *state;
	struct ring *r = &s->ring[0];

	start(s, ALL_FEATURES);
	__atomic_store_n((uint16_t *)(void *)((uint8_t *)at(s, r->avail) + 2), (uint16_t)(SIZE + 1),
			 __ATOMIC_RELEASE);
	kick(r);
	wait_broken(s);
	stop(s);
}

static void queues_that_cannot_be(void **state)
{
	static const struct virtq_setup bad[] = {
		{ .size = 255, .desc = 0x1000, .avail = 0x2000, .used = 0x3000 },
		{ .size = 512, .desc = 0x1000, .avail = 0x2000, .used = 0x3000 },
		{ .size = 256, .desc = 0x1008, .avail = 0x2000, .used = 0x3000 },
		{ .size = 256, .desc = 0x1000, .avail = 0x2001, .used = 0x3000 },
		{ .size = 256, .desc = 0x1000, .avail = 0x2000, .used = 0x3002 },
		{ .size = 256, .desc = MEMORY - 16, .avail = 0x2000, .used = 0x3000 },
		{ .size = 256, .desc = 0x1000, .avail = MEMORY - 4, .used = 0x3000 },
		{ .size = 256, .desc = 0x1000, .avail = 0x2000, .used = UINT64_MAX - 3 },
	};
	struct sim *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct virtq_setup setup[QUEUES] = { bad[i] };
		struct virtio_start st = {
			.mem = &s->map, .queue = setup,
			.host = { .interrupt = on_interrupt, .broken = on_broken, .arg = s },
		};

		assert_int_equal(s->dev->ops->start(s->dev, &st), -EINVAL);
	}
	start(s, ALL_FEATURES);
	run(s, layouts, VIRTIO_BLK_T_IN, 0, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
}

static void interrupts_as_asked(void **state)
{
	struct sim *s = *state;
	struct ring *r = &s->ring[0];
	uint32_t head, len;

	/* EVENT_IDX: one for the third completion, none for the others */
	start(s, ALL_FEATURES);
	s->interrupts[0] = 0;
	store_le16((uint8_t *)at(s, r->avail) + 4 + 2 * SIZE, 2);
	for (unsigned i = 0; i < 3; i++)
		run(s, layouts, VIRTIO_BLK_T_IN, i, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
	assert_int_equal(s->interrupts[0], 1);

	/* without: none while NO_INTERRUPT is set, and a burst is one */
	start(s, ~F(VIRTIO_RING_F_EVENT_IDX));
	s->interrupts[0] = 0;
	store_le16(at(s, r->avail), VRING_AVAIL_F_NO_INTERRUPT);
	run(s, layouts, VIRTIO_BLK_T_IN, 0, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
	assert_int_equal(s->interrupts[0], 0);
	start(s, ~F(VIRTIO_RING_F_EVENT_IDX));
	s->interrupts[0] = 0;
	for (unsigned i = 0; i < 32; i++)
		submit(s, r, layouts, VIRTIO_BLK_T_IN, i, NULL, 0, 512);
	kick(r);
	for (unsigned i = 0; i < 32; i++)
		assert_true(take_used(s, r, &head, &len));
	stop(s);
	assert_in_range(s->interrupts[0], 1, 16);
}

static void device_configuration(void **state)
{
	struct sim *s = *state;
	uint8_t c[64], one = 1, zero = 0;

	s->dev->ops->config_read(s->dev, 0, c, sizeof(c));
	assert_int_equal(load_le64(c), DISK_SIZE / 512);
	assert_int_equal(load_le32(c + 12), SIZE - 2);
	assert_int_equal(load_le32(c + 20), 512);
	assert_int_equal(c[32], 1);
	assert_int_equal(load_le16(c + 34), QUEUES);
	assert_int_equal(load_le32(c + 40), 64);
	assert_int_equal(load_le32(c + 60), 0);
	s->dev->ops->config_write(s->dev, 32, &zero, 1);
	s->dev->ops->config_read(s->dev, 32, c, 1);
	assert_int_equal(c[0], 0);
	s->dev->ops->config_write(s->dev, 0, &one, 1);	/* read-only */
	s->dev->ops->config_read(s->dev, 0, c, 8);
	assert_int_equal(load_le64(c), DISK_SIZE / 512);
	memset(c, 0xff, sizeof(c));
	s->dev->ops->config_read(s->dev, UINT32_MAX, c, 4);
	assert_int_equal(load_le32(c), 0);
	/* write-through from here on */
	start(s, ALL_FEATURES);
	run(s, layouts, VIRTIO_BLK_T_OUT, 0, s->model, 512, 0, VIRTIO_BLK_S_OK);
	stop(s);
	/* reset brings write-back */
	s->dev->ops->config_read(s->dev, 32, c, 1);
	assert_int_equal(c[0], 1);
}

static void serial_too_long(void **state)
{
	struct sim *s = *state;
	struct blk_options o = { .disk = s->disk, .queues = 1, .serial = "123456789012345678901" };
	struct virtio_device *dev;

	assert_int_equal(blk_new(&dev, &o, NULL), -EINVAL);
	o.serial = NULL;
	o.queues = 0;
	assert_int_equal(blk_new(&dev, &o, NULL), -EINVAL);
	o.queues = BLK_QUEUES_MAX + 1;
	assert_int_equal(blk_new(&dev, &o, NULL), -EINVAL);
}

/* Whatever a driver has for a doorbell: requests are served, and stopping ends. */
static void odd_doorbells(void **state)
{
	struct sim *s = *state;
	int own = s->ring[0].kick_fd, blocking = eventfd(0, EFD_CLOEXEC), p[2];
	int file = memfd_create("no doorbell", MFD_CLOEXEC);
	struct request q;
	uint32_t head, len;

	assert_int_equal(pipe(p), 0);
	for (unsigned round = 0; round < 3; round++) {
		s->ring[0].kick_fd = blocking;
		start(s, ALL_FEATURES);
		for (unsigned i = 0; i < 10; i++)
			(void)run(s, layouts, VIRTIO_BLK_T_IN, i, NULL, 0, 512, VIRTIO_BLK_S_OK);
		stop(s);
	}
	/* rung before it is listened to */
	start(s, 0);
	stop(s);
	kick(&s->ring[0]);
	start(s, ALL_FEATURES);
	(void)run(s, layouts, VIRTIO_BLK_T_IN, 1, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
	/* nothing tells of this one: the device looks */
	s->ring[0].kick_fd = file;
	start(s, ALL_FEATURES);
	(void)run(s, layouts, VIRTIO_BLK_T_IN, 1, NULL, 0, 512, VIRTIO_BLK_S_OK);
	stop(s);
	/* its other end goes */
	s->ring[0].kick_fd = p[0];
	start(s, ALL_FEATURES);
	q = submit(s, &s->ring[0], layouts, VIRTIO_BLK_T_IN, 0, NULL, 0, 512);
	assert_int_equal(write(p[1], "12345678", 8), 8);
	assert_true(take_used(s, &s->ring[0], &head, &len));
	assert_int_equal(head, q.head);
	close(p[1]);
	nap();
	stop(s);
	s->ring[0].kick_fd = own;
	close(p[0]);
	close(file);
	close(blocking);
}

/* Stopping answers what was taken, and touches nothing afterwards. */
static void reset_in_flight(void **state)
{
	struct sim *s = *state;

	for (unsigned round = 0; round < 50; round++) {
		uint16_t before, after;

		start(s, ALL_FEATURES);
		for (unsigned i = 0; i < 60; i++)
			submit(s, &s->ring[i % QUEUES], layouts, VIRTIO_BLK_T_IN, i, NULL, 0,
			       4096);
		kick(&s->ring[0]);
		kick(&s->ring[1]);
		if (round % 3)
			nap();
		stop(s);
		before = load_le16((uint8_t *)at(s, s->ring[0].used) + 2);
		memset(s->mem, 0xaa, MEMORY);
		nap();
		after = load_le16((uint8_t *)at(s, s->ring[0].used) + 2);
		assert_in_range(before, 0, 30);
		assert_int_equal(after, 0xaaaa);
	}
}

/* Random requests on both queues against the model; each is answered exactly once. */
static void random_requests(void **state)
{
	enum { ROUNDS = 400, DEPTH = 12 };
	struct sim *s = *state;
	unsigned seed = (unsigned)time(NULL);
	uint8_t *data = malloc(64 << 10), *now = malloc(DISK_SIZE);

	print_message("seed %u\n", seed);
	srandom(seed);
	start_size(s, ALL_FEATURES, 64);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct request q[DEPTH];
		unsigned ring[DEPTH], left = DEPTH;
		uint32_t type[DEPTH], sector[DEPTH], len[DEPTH], head, used;
		bool answered[DEPTH] = { false };

		s->arena = ARENA;
		for (unsigned i = 0; i < DEPTH; i++) {
			/* each its own stripe, so that order does not matter */
			uint32_t stripe = DISK_SIZE / 512 / DEPTH;

			ring[i] = (unsigned)random() % QUEUES;
			type[i] = random() % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
			len[i] = (uint32_t)(1 + random() % 64) * 512;
			sector[i] = stripe * i + (uint32_t)random() % (stripe - 64);
			for (uint32_t b = 0; b < len[i]; b += 4)
				store_le32(data + b, (uint32_t)random());
			q[i] = submit(s, &s->ring[ring[i]], &layouts[random() % 5], type[i],
				      sector[i], data, type[i] == VIRTIO_BLK_T_OUT ? len[i] : 0,
				      type[i] == VIRTIO_BLK_T_IN ? len[i] : 0);
			if (type[i] == VIRTIO_BLK_T_OUT)
				memcpy(s->model + sector[i] * 512ul, data, len[i]);
			if (random() % 3 == 0)
				kick(&s->ring[ring[i]]);
		}
		kick(&s->ring[0]);
		kick(&s->ring[1]);
		for (unsigned i = 0; i < DEPTH; i++)
			left -= ring[i] == 1;
		for (unsigned i = 0; i < DEPTH; i++) {
			unsigned from = i < left ? 0 : 1, k = 0;

			assert_true(take_used(s, &s->ring[from], &head, &used));
			while (k < DEPTH && (ring[k] != from || q[k].head != head || answered[k]))
				k++;
			assert_true(k < DEPTH);
			answered[k] = true;
			assert_int_equal(status(s, &q[k]), VIRTIO_BLK_S_OK);
			if (type[k] == VIRTIO_BLK_T_IN)
				assert_memory_equal(at(s, q[k].in), s->model + sector[k] * 512ul,
						    len[k]);
		}
	}
	stop(s);
	assert_int_equal(vdisk_read(s->disk, now, DISK_SIZE, 0), 0);
	assert_memory_equal(now, s->model, DISK_SIZE);
	free(data);
	free(now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reads_and_writes_in_every_layout, setup, teardown),
		cmocka_unit_test_setup_teardown(single_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(reads_across_the_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(mistakes_are_io_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(large_blocks, setup, teardown),
		cmocka_unit_test_setup_teardown(short_header, setup, teardown),
		cmocka_unit_test_setup_teardown(discard_and_write_zeroes, setup, teardown),
		cmocka_unit_test_setup_teardown(read_only_is_enforced, setup, teardown),
		cmocka_unit_test_setup_teardown(raw_stays_raw, setup, teardown),
		cmocka_unit_test_setup_teardown(memory_outside_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(duplicate_heads, setup, teardown),
		cmocka_unit_test_setup_teardown(index_jumps, setup, teardown),
		cmocka_unit_test_setup_teardown(queues_that_cannot_be, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupts_as_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(device_configuration, setup, teardown),
		cmocka_unit_test_setup_teardown(serial_too_long, setup, teardown),
		cmocka_unit_test_setup_teardown(odd_doorbells, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(random_requests, setup, teardown),
#ifdef MORE_TESTS
		MORE_TESTS
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
