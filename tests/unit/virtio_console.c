/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The virtio console by a driver simulator: both ways, a reader that does not
 * come, input before there are buffers, wrong chains, sizes, stop and start.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/console.h"

#define SIZE	8u

enum { RECEIVE, TRANSMIT };

struct ring {
	uint64_t desc, avail, used;
	uint16_t next_avail, next_used;
};

static struct sim {
	_Alignas(16) uint8_t mem[1 << 20];
	struct guest_memory map;
	struct virtio_device *dev;
	struct tty *tty;
	struct ring ring[2];
	unsigned interrupts[2], broken, wakes, changes;
} sim;

static void on_interrupt(void *arg, unsigned queue)
{
	((struct sim *)arg)->interrupts[queue]++;
}

static void on_broken(void *arg)
{
	((struct sim *)arg)->broken++;
}

static void on_change(void *arg)
{
	((struct sim *)arg)->changes++;
}

static void on_wake(void *arg)
{
	((struct sim *)arg)->wakes++;
}

static int try_start(uint64_t features, unsigned size)
{
	struct virtq_setup setup[2];
	struct virtio_start s = {
		.mem = &sim.map, .queue = setup, .features = features,
		.host = { .interrupt = on_interrupt, .broken = on_broken,
			  .config_changed = on_change, .arg = &sim },
	};

	memset(sim.mem, 0, 0x20000);
	for (unsigned i = 0; i < 2; i++) {
		struct ring *r = &sim.ring[i];

		r->desc = 0x1000 + 0x4000 * i;
		r->avail = r->desc + 0x1000;
		r->used = r->desc + 0x2000;
		r->next_avail = r->next_used = 0;
		setup[i] = (struct virtq_setup) {
			.size = (uint16_t)size, .desc = r->desc, .avail = r->avail, .used = r->used,
			.kick_fd = -1,
		};
	}
	sim.broken = sim.wakes = sim.changes = 0;
	memset(sim.interrupts, 0, sizeof(sim.interrupts));
	return sim.dev->ops->start(sim.dev, &s);
}

static void start(bool event_idx)
{
	uint64_t event = UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;

	assert_int_equal(try_start(sim.dev->features & ~(event_idx ? 0 : event), SIZE), 0);
}

static int set_up(void **state)
{
	(void)state;
	sim.map = (struct guest_memory) {
		.n = 1, .region = { { .size = sizeof(sim.mem), .host = sim.mem } },
	};
	assert_int_equal(vconsole_new(&sim.dev, NULL), 0);
	sim.tty = vconsole_tty(sim.dev);
	sim.tty->wake = on_wake;
	sim.tty->wake_arg = &sim;
	start(false);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sim.dev->ops->stop(sim.dev);
	sim.dev->ops->free(sim.dev);
	return 0;
}

/* One descriptor, made available. */
static void post(unsigned queue, unsigned d, uint64_t addr, uint32_t len, unsigned flags,
		 unsigned next)
{
	struct ring *r = &sim.ring[queue];
	uint8_t *p = sim.mem + r->desc + 16 * d;

	store_le64(p, addr);
	store_le32(p + 8, len);
	store_le16(p + 12, (uint16_t)flags);
	store_le16(p + 14, (uint16_t)next);
}

static void offer(unsigned queue, unsigned d)
{
	struct ring *r = &sim.ring[queue];
	uint8_t *a = sim.mem + r->avail;

	store_le16(a + 4 + 2 * (r->next_avail % SIZE), (uint16_t)d);
	store_le16(a + 2, ++r->next_avail);
}

static void kick(unsigned queue)
{
	sim.dev->ops->kick(sim.dev, queue);
}

/* The length of the next one that came back, which is @d's. */
static uint32_t taken_back(unsigned queue, unsigned d)
{
	struct ring *r = &sim.ring[queue];
	const uint8_t *u = sim.mem + r->used, *e = u + 4 + 8 * (r->next_used % SIZE);

	assert_true(load_le16(u + 2) != r->next_used);
	r->next_used++;
	assert_int_equal(load_le32(e), d);
	return load_le32(e + 4);
}

static bool came_back(unsigned queue)
{
	return load_le16(sim.mem + sim.ring[queue].used + 2) != sim.ring[queue].next_used;
}

static void say(unsigned d, const char *text)
{
	memcpy(sim.mem + 0x40000 + 0x1000 * d, text, strlen(text));
	post(TRANSMIT, d, 0x40000 + 0x1000 * d, (uint32_t)strlen(text), 0, 0);
	offer(TRANSMIT, d);
	kick(TRANSMIT);
}

static void expect_output(const char *text)
{
	uint8_t buf[256];
	size_t n = tty_peek(sim.tty, buf, sizeof(buf));

	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, n);
	tty_consume(sim.tty, n);
}

static void buffer(unsigned d, uint32_t len)
{
	post(RECEIVE, d, 0x80000 + 0x1000 * d, len, 2, 0);
	offer(RECEIVE, d);
	kick(RECEIVE);
}

static void type(const char *text)
{
	assert_int_equal(tty_input(sim.tty, (const uint8_t *)text, strlen(text)), strlen(text));
}

/* ---- */

static void is_a_console(void **state)
{
	uint8_t size[4];

	(void)state;
	assert_int_equal(sim.dev->id, VIRTIO_ID_CONSOLE);
	assert_int_equal(sim.dev->n_queues, 2);
	/* one port: what has several is negotiated by MULTIPORT */
	assert_false(sim.dev->features >> VIRTIO_CONSOLE_F_MULTIPORT & 1);
	sim.dev->ops->config_read(sim.dev, 0, size, 4);
	assert_int_equal(load_le32(size), 0);
}

static void output(void **state)
{
	(void)state;
	say(0, "hello");
	assert_int_equal(taken_back(TRANSMIT, 0), 0);
	assert_int_equal(sim.interrupts[TRANSMIT], 1);
	assert_int_equal(sim.wakes, 1);
	say(1, ", ");
	assert_int_equal(sim.wakes, 1);		/* the reader is on its way */
	/* a chain of two, one of them empty */
	memcpy(sim.mem + 0x50000, "world", 5);
	post(TRANSMIT, 2, 0x50000, 0, 1, 3);
	post(TRANSMIT, 3, 0x50000, 5, 0, 0);
	offer(TRANSMIT, 2);
	kick(TRANSMIT);
	expect_output("hello, world");
	say(4, "!");
	assert_int_equal(sim.wakes, 2);
	expect_output("!");
}

/* The guest's output is taken at once, read or not. */
static void slow_reader(void **state)
{
	static uint8_t out[TTY_OUT_SIZE];

	(void)state;
	memset(sim.mem + 0x40000, 'x', 0x8000);
	for (unsigned i = 0; i < 5; i++) {
		post(TRANSMIT, i, 0x40000, 0x8000, 0, 0);
		offer(TRANSMIT, i);
		kick(TRANSMIT);
		assert_int_equal(taken_back(TRANSMIT, i), 0);
	}
	assert_int_equal(tty_peek(sim.tty, out, sizeof(out)), TTY_OUT_SIZE);
	assert_int_equal(tty_lost(sim.tty), 5 * 0x8000 - TTY_OUT_SIZE);
	assert_int_equal(tty_lost(sim.tty), 0);
	tty_consume(sim.tty, TTY_OUT_SIZE);
	say(5, "on");
	expect_output("on");
	/* where nobody is to read it, it is not kept, and not missed */
	sim.tty->unread = true;
	say(6, "nobody");
	assert_int_equal(tty_peek(sim.tty, out, sizeof(out)), 0);
	assert_int_equal(tty_lost(sim.tty), 0);
}

static void input(void **state)
{
	(void)state;
	/* the buffer is there first */
	buffer(0, 64);
	assert_false(came_back(RECEIVE));
	type("ls\n");
	assert_int_equal(taken_back(RECEIVE, 0), 3);
	assert_int_equal(sim.interrupts[RECEIVE], 1);
	assert_memory_equal(sim.mem + 0x80000, "ls\n", 3);
	/* the key is there first; buffers are small */
	type("abcdef");
	assert_false(came_back(RECEIVE));
	buffer(1, 4);
	assert_int_equal(taken_back(RECEIVE, 1), 4);
	buffer(2, 4);
	assert_int_equal(taken_back(RECEIVE, 2), 2);
	assert_memory_equal(sim.mem + 0x82000, "ef", 2);
}

/* Who types faster than the guest reads is told when there is room again. */
static void full_input(void **state)
{
	uint8_t keys[TTY_IN_SIZE + 9] = { 0 };

	(void)state;
	assert_int_equal(tty_input(sim.tty, keys, sizeof(keys)), TTY_IN_SIZE);
	assert_int_equal(tty_room(sim.tty), 0);
	buffer(0, TTY_IN_SIZE / 2);
	assert_int_equal(sim.wakes, 0);
	buffer(1, TTY_IN_SIZE);
	assert_int_equal(taken_back(RECEIVE, 0), TTY_IN_SIZE / 2);
	assert_int_equal(taken_back(RECEIVE, 1), TTY_IN_SIZE / 2);
	assert_int_equal(sim.wakes, 1);
	assert_int_equal(tty_room(sim.tty), TTY_IN_SIZE);
}

/* With EVENT_IDX the doorbell is asked for when input waits for a buffer. */
static void event_index(void **state)
{
	const uint8_t *used = sim.mem + sim.ring[RECEIVE].used;

	(void)state;
	sim.dev->ops->stop(sim.dev);
	start(true);
	buffer(0, 1);
	type("ab");
	assert_int_equal(taken_back(RECEIVE, 0), 1);
	assert_int_equal(load_le16(used + 4 + 8 * SIZE), 1);	/* the next one */
	buffer(1, 1);
	assert_int_equal(taken_back(RECEIVE, 1), 1);
}

static void sizes(void **state)
{
	uint8_t c[8];

	(void)state;
	assert_true(vconsole_resize(sim.dev, 132, 43));
	assert_false(vconsole_resize(sim.dev, 132, 43));
	memset(c, 0xff, sizeof(c));
	sim.dev->ops->config_read(sim.dev, 0, c, 8);
	assert_int_equal(load_le16(c), 132);
	assert_int_equal(load_le16(c + 2), 43);
	assert_int_equal(load_le32(c + 4), 0);	/* past its end */
	sim.dev->ops->config_read(sim.dev, 2, c, 2);
	assert_int_equal(load_le16(c), 43);
	sim.dev->ops->config_read(sim.dev, UINT32_MAX, c, 4);
	assert_int_equal(load_le32(c), 0);
	/* a driver that starts is told that there is a size */
	assert_int_equal(sim.changes, 0);
	sim.dev->ops->stop(sim.dev);
	start(false);
	assert_int_equal(sim.changes, 1);
}

static void wrong_memory(void **state)
{
	(void)state;
	post(TRANSMIT, 0, UINT64_MAX - 4, 64, 0, 0);
	offer(TRANSMIT, 0);
	kick(TRANSMIT);
	assert_int_equal(taken_back(TRANSMIT, 0), 0);
	expect_output("");
	post(RECEIVE, 0, sizeof(sim.mem) - 1, 2, 2, 0);
	offer(RECEIVE, 0);
	type("q");
	assert_int_equal(taken_back(RECEIVE, 0), 0);
	buffer(1, 1);			/* it was not lost */
	assert_int_equal(taken_back(RECEIVE, 1), 1);
	assert_int_equal(sim.broken, 0);
}

static void broken_rings(void **state)
{
	(void)state;
	offer(TRANSMIT, SIZE);		/* no such descriptor */
	kick(TRANSMIT);
	assert_int_equal(sim.broken, 1);
	kick(TRANSMIT);
	kick(RECEIVE);
	type("x");
	assert_int_equal(sim.broken, 1);
	/* a chain that loops, after a reset */
	sim.dev->ops->stop(sim.dev);
	start(false);
	post(RECEIVE, 0, 0x80000, 4, 3, 0);
	offer(RECEIVE, 0);
	type("y");
	assert_int_equal(sim.broken, 1);
	sim.dev->ops->stop(sim.dev);
	/* rings that are not there */
	assert_true(try_start(sim.dev->features, 3) < 0);
	type("z");
	start(false);
}

/* What was said before a reset still comes out; what was typed belongs to whoever had the driver. */
static void reset(void **state)
{
	(void)state;
	say(0, "last words");
	type("old");
	sim.dev->ops->stop(sim.dev);
	type("new");			/* to the next */
	start(false);
	expect_output("last words");
	buffer(0, 16);
	assert_int_equal(taken_back(RECEIVE, 0), 3);
	assert_memory_equal(sim.mem + 0x80000, "new", 3);
}

int main(void)
{
#define TEST(f)	cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(is_a_console), TEST(output), TEST(slow_reader), TEST(input), TEST(full_input),
		TEST(event_index), TEST(sizes), TEST(wrong_memory), TEST(broken_rings), TEST(reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
