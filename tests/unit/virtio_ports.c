/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The console of named ports, by a driver simulator: how a driver finds out about the
 * ports, output in pieces to slow and vanished readers, wrong control messages and chains, and what
 * is left when the guest ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/ports.h"

#define SIZE	8u
#define QUEUES	6u	/* of two ports */
#define CONTROL_RX	2u
#define CONTROL_TX	3u

struct ring {
	uint64_t desc, avail, used;
	uint16_t next_avail, next_used;
	int kick_fd;
};

static struct sim {
	_Alignas(16) uint8_t mem[1 << 20];
	struct guest_memory map;
	struct virtio_device *dev;
	int reader[2], writer[2];
	struct ring ring[QUEUES];
	_Atomic unsigned interrupts, broken;
} sim;

static const unsigned transmit[2] = { 1, 5 };

static void on_interrupt(void *arg, unsigned queue)
{
	(void)queue;
	((struct sim *)arg)->interrupts++;
}

static void on_broken(void *arg)
{
	((struct sim *)arg)->broken++;
}

static void start(bool event_idx)
{
	struct virtq_setup setup[QUEUES];
	struct virtio_start s = {
		.mem = &sim.map, .queue = setup, .features = sim.dev->features,
		.host = { .interrupt = on_interrupt, .broken = on_broken, .arg = &sim },
	};

	if (!event_idx)
		s.features &= ~(UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX);
	memset(sim.mem, 0, 0x20000);
	for (unsigned i = 0; i < QUEUES; i++) {
		struct ring *r = &sim.ring[i];

		r->desc = 0x1000 + 0x4000 * i;
		r->avail = r->desc + 0x1000;
		r->used = r->desc + 0x2000;
		r->next_avail = r->next_used = 0;
		setup[i] = (struct virtq_setup) {
			.size = SIZE, .desc = r->desc, .avail = r->avail, .used = r->used,
			.kick_fd = r->kick_fd,
		};
	}
	sim.broken = 0;
	assert_int_equal(sim.dev->ops->start(sim.dev, &s), 0);
}

static int set_up(void **state)
{
	struct port_option o[2] = { { .name = "vdisk.out" }, { .name = "vdisk.err" } };
	int fds[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pipe(fds), 0);
		sim.reader[i] = fds[0];
		o[i].fd = sim.writer[i] = fds[1];
	}
	sim.map = (struct guest_memory) {
		.n = 1, .region = { { .size = sizeof(sim.mem), .host = sim.mem } },
	};
	for (unsigned i = 0; i < QUEUES; i++)
		sim.ring[i].kick_fd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(ports_new(&sim.dev, o, 2, NULL, NULL), 0);
	assert_int_equal(sim.dev->n_queues, QUEUES);
	start(false);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sim.dev->ops->stop(sim.dev);
	sim.dev->ops->free(sim.dev);
	for (unsigned i = 0; i < QUEUES; i++)
		close(sim.ring[i].kick_fd);
	for (unsigned i = 0; i < 2; i++) {
		close(sim.writer[i]);
		if (sim.reader[i] >= 0)
			close(sim.reader[i]);
	}
	return 0;
}

static void describe(unsigned queue, unsigned d, uint64_t addr, uint32_t len, unsigned flags)
{
	uint8_t *p = sim.mem + sim.ring[queue].desc + 16 * d;

	store_le64(p, addr);
	store_le32(p + 8, len);
	store_le16(p + 12, (uint16_t)flags);
	store_le16(p + 14, (uint16_t)(d + 1));
}

static void post(unsigned queue, unsigned head)
{
	struct ring *r = &sim.ring[queue];
	uint8_t *a = sim.mem + r->avail;
	uint64_t one = 1;

	store_le16(a + 4 + 2 * (r->next_avail % SIZE), (uint16_t)head);
	r->next_avail++;
	__atomic_store_n((uint16_t *)(void *)(a + 2), r->next_avail, __ATOMIC_RELEASE);
	assert_int_equal(write(r->kick_fd, &one, sizeof(one)), sizeof(one));
}

static bool is_used(unsigned queue)
{
	const struct ring *r = &sim.ring[queue];

	return __atomic_load_n((uint16_t *)(void *)(sim.mem + r->used + 2), __ATOMIC_ACQUIRE) !=
	       r->next_used;
}

/* Wait for the next used entry: its length. */
static uint32_t used(unsigned queue)
{
	struct ring *r = &sim.ring[queue];

	for (unsigned i = 0; i < 20000 && !is_used(queue); i++)
		usleep(1000);
	if (!is_used(queue))
		fail_msg("nothing on queue %u", queue);
	return load_le32(sim.mem + r->used + 4 + 8 * (r->next_used++ % SIZE) + 4);
}

static void say(uint32_t id, uint16_t event, uint16_t value)
{
	uint8_t *m = sim.mem + 0x40000;

	store_le32(m, id);
	store_le16(m + 4, event);
	store_le16(m + 6, value);
	describe(CONTROL_TX, 0, 0x40000, 8, 0);
	post(CONTROL_TX, 0);
	used(CONTROL_TX);
}

/* Give a buffer, and wait for what comes into it. */
static uint32_t hear(uint8_t *message)
{
	uint32_t len;

	describe(CONTROL_RX, 0, 0x41000, 64, VRING_DESC_F_WRITE);
	post(CONTROL_RX, 0);
	len = used(CONTROL_RX);
	memcpy(message, sim.mem + 0x41000, 64);
	return len;
}

static void print(unsigned port, const char *text, size_t len)
{
	memcpy(sim.mem + 0x58000 + 0x1000 * port, text, len);
	describe(transmit[port], 0, 0x58000 + 0x1000 * port, (uint32_t)len, 0);
	post(transmit[port], 0);
}

static void expect_text(unsigned port, const char *text)
{
	char buf[256] = { 0 };
	size_t len = strlen(text), got = 0;
	ssize_t n = 1;

	while (got < len && n > 0) {
		n = read(sim.reader[port], buf + got, len - got);
		got += n > 0 ? (size_t)n : 0;
	}
	assert_string_equal(buf, text);
}

static void discovery(void **state)
{
	static const char *const names[] = { "vdisk.out", "vdisk.err" };
	uint8_t m[64], c[12];

	(void)state;
	sim.dev->ops->config_read(sim.dev, 0, c, sizeof(c));
	assert_int_equal(load_le32(c + 4), 2);
	say(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(hear(m), 8);
		assert_int_equal(load_le32(m), i);
		assert_int_equal(load_le16(m + 4), VIRTIO_CONSOLE_PORT_ADD);
	}
	for (unsigned i = 0; i < 2; i++) {
		say(i, VIRTIO_CONSOLE_PORT_READY, 1);
		assert_int_equal(hear(m), 8 + strlen(names[i]));
		assert_int_equal(load_le32(m), i);
		assert_int_equal(load_le16(m + 4), VIRTIO_CONSOLE_PORT_NAME);
		assert_memory_equal(m + 8, names[i], strlen(names[i]));
		assert_int_equal(hear(m), 8);
		assert_int_equal(load_le16(m + 4), VIRTIO_CONSOLE_PORT_OPEN);
		assert_int_equal(load_le16(m + 6), 1);
	}
	/* nonsense: no such port, failed, unknown */
	say(2, VIRTIO_CONSOLE_PORT_READY, 1);
	say(0xffffffff, VIRTIO_CONSOLE_PORT_READY, 1);
	say(0, VIRTIO_CONSOLE_PORT_READY, 0);
	say(0, 77, 1);
	/* however often it asks, there is one answer */
	for (unsigned i = 0; i < 100; i++)
		say(1, VIRTIO_CONSOLE_PORT_READY, 1);
	hear(m);
	assert_int_equal(load_le32(m), 1);
	hear(m);
	assert_int_equal(load_le16(m + 4), VIRTIO_CONSOLE_PORT_OPEN);
	describe(CONTROL_RX, 0, 0x41000, 64, VRING_DESC_F_WRITE);
	post(CONTROL_RX, 0);
	usleep(20000);
	assert_false(is_used(CONTROL_RX));
	/* a message that is cut off */
	describe(CONTROL_TX, 0, 0x40000, 7, 0);
	post(CONTROL_TX, 0);
	used(CONTROL_TX);
	assert_int_equal(sim.broken, 0);
}

static void output(void **state)
{
	(void)state;
	print(0, "to out", 6);
	print(1, "to err", 6);
	expect_text(0, "to out");
	used(transmit[0]);
	used(transmit[1]);
	expect_text(1, "to err");
	/* several pieces, an empty one, and one to write to among them */
	memcpy(sim.mem + 0x50000, "one two three", 13);
	describe(transmit[0], 1, 0x50000, 4, VRING_DESC_F_NEXT);
	describe(transmit[0], 2, 0x50004, 0, VRING_DESC_F_NEXT);
	describe(transmit[0], 3, 0x50004, 9, VRING_DESC_F_NEXT);
	describe(transmit[0], 4, 0x51000, 9, VRING_DESC_F_WRITE);
	post(transmit[0], 1);
	assert_int_equal(used(transmit[0]), 0);
	expect_text(0, "one two three");
	/* outside of the guest's memory: dropped */
	describe(transmit[0], 0, UINT64_C(1) << 40, 5, 0);
	post(transmit[0], 0);
	used(transmit[0]);
	print(0, "on", 2);
	used(transmit[0]);
	expect_text(0, "on");
	assert_true(sim.interrupts > 0);
	assert_int_equal(sim.broken, 0);
}

/* The pipe is full: the buffer stays with the device until somebody reads; the other port goes on. */
static void slow_reader(void **state)
{
	static char big[64 << 10];
	size_t got = 0, all = 0;

	(void)state;
	fcntl(sim.reader[0], F_SETPIPE_SZ, 4096);
	for (unsigned i = 0; i < 4; i++) {
		describe(transmit[0], i, 0x60000, sizeof(big), 0);
		post(transmit[0], i);
		all += sizeof(big);
	}
	print(1, "meanwhile", 9);
	used(transmit[1]);
	expect_text(1, "meanwhile");
	assert_false(is_used(transmit[0]));
	while (got < all)
		got += (size_t)read(sim.reader[0], big, sizeof(big));
	for (unsigned i = 0; i < 4; i++)
		used(transmit[0]);
	assert_int_equal(got, all);
}

static void vanished_reader(void **state)
{
	(void)state;
	close(sim.reader[0]);
	sim.reader[0] = -1;
	for (unsigned i = 0; i < 20; i++) {
		print(0, "to nobody", 9);
		used(transmit[0]);
	}
	print(1, "here", 4);
	used(transmit[1]);
	expect_text(1, "here");
}

/* What the guest has handed over before it ended goes out. */
static void farewell(void **state)
{
	static char big[1 << 16];
	size_t got = 0;
	ssize_t n;

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 8; i++) {
			describe(transmit[0], i, 0x60000, 1024, 0);
			post(transmit[0], i);
		}
		sim.dev->ops->stop(sim.dev);
		for (got = 0; got < 8192; got += (size_t)n) {
			n = read(sim.reader[0], big, sizeof(big));
			assert_true(n > 0);
		}
		start(round % 2);
	}
	/* nobody reads: it ends all the same */
	fcntl(sim.reader[0], F_SETPIPE_SZ, 4096);
	describe(transmit[0], 0, 0x60000, sizeof(big), 0);
	post(transmit[0], 0);
	sim.dev->ops->stop(sim.dev);
	start(false);
}

static void broken(void **state)
{
	(void)state;
	describe(transmit[1], 0, 0x50000, 4, VRING_DESC_F_NEXT);	/* a loop */
	store_le16(sim.mem + sim.ring[transmit[1]].desc + 14, 0);
	post(transmit[1], 0);
	for (unsigned i = 0; i < 20000 && !sim.broken; i++)
		usleep(1000);
	assert_int_equal(sim.broken, 1);
	/* a reset helps */
	sim.dev->ops->stop(sim.dev);
	start(true);
	print(1, "again", 5);
	used(transmit[1]);
	expect_text(1, "again");
}

static void bad_options(void **state)
{
	struct port_option o[] = { { .name = "12345678901234567890123456789012" }, { .name = "" } };
	struct virtio_device *dev = NULL;
	struct vdisk_error err = { 0 };

	(void)state;
	assert_int_equal(ports_new(&dev, o, 1, NULL, &err), -EINVAL);
	assert_int_equal(ports_new(&dev, o + 1, 1, NULL, &err), -EINVAL);
	assert_int_equal(ports_new(&dev, o, 0, NULL, &err), -EINVAL);
	assert_int_equal(ports_new(&dev, o, PORTS_MAX + 1, NULL, &err), -EINVAL);
	assert_null(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(discovery, set_up, tear_down),
		cmocka_unit_test_setup_teardown(output, set_up, tear_down),
		cmocka_unit_test_setup_teardown(slow_reader, set_up, tear_down),
		cmocka_unit_test_setup_teardown(vanished_reader, set_up, tear_down),
		cmocka_unit_test_setup_teardown(farewell, set_up, tear_down),
		cmocka_unit_test_setup_teardown(broken, set_up, tear_down),
		cmocka_unit_test(bad_options),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
