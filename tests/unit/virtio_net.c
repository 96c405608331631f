/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The virtio network card on a stream socket, by a driver simulator: frames in
 * pieces and in bursts, none without a buffer, wrong chains, stop and start.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/virtio/net.h"

#define SIZE	8u
#define HEADER	12u

struct ring {
	uint64_t desc, avail, used;
	uint16_t next_avail, next_used;
	int kick_fd;
};

struct sim {
	_Alignas(16) uint8_t mem[1 << 20];
	struct guest_memory map;
	struct virtio_device *dev;
	int peer;			/* the other end of the wire */
	struct ring ring[2];		/* 0 receives, 1 sends */
	_Atomic unsigned interrupts, broken;
};

static struct sim sim;

static void on_interrupt(void *arg, unsigned queue)
{
	(void)queue;
	((struct sim *)arg)->interrupts++;
}

static void on_broken(void *arg)
{
	((struct sim *)arg)->broken++;
}

static void start(void)
{
	struct virtq_setup setup[2];
	struct virtio_start s = {
		.mem = &sim.map, .queue = setup, .features = sim.dev->features &
		~(UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX),
		.host = { .interrupt = on_interrupt, .broken = on_broken, .arg = &sim },
	};

	memset(sim.mem, 0, 0x20000);
	for (unsigned i = 0; i < 2; i++) {
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
	struct net_options o = { .stream = true, .mac = { 2, 0, 0, 0, 0, 7 } };
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	o.fd = fds[0];
	sim.peer = fds[1];
	sim.map = (struct guest_memory) {
		.n = 1, .region = { { .size = sizeof(sim.mem), .host = sim.mem } },
	};
	for (unsigned i = 0; i < 2; i++)
		sim.ring[i].kick_fd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(net_new(&sim.dev, &o, NULL), 0);
	start();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sim.dev->ops->stop(sim.dev);
	sim.dev->ops->free(sim.dev);
	close(sim.peer);
	close(sim.ring[0].kick_fd);
	close(sim.ring[1].kick_fd);
	return 0;
}

/* One descriptor, and the doorbell. */
static void post(unsigned queue, unsigned d, uint64_t addr, uint32_t len, unsigned flags)
{
	struct ring *r = &sim.ring[queue];
	uint8_t *p = sim.mem + r->desc + 16 * d, *a = sim.mem + r->avail;
	uint64_t one = 1;

	store_le64(p, addr);
	store_le32(p + 8, len);
	store_le16(p + 12, (uint16_t)flags);
	store_le16(a + 4 + 2 * (r->next_avail % SIZE), (uint16_t)d);
	r->next_avail++;
	__atomic_store_n((uint16_t *)(void *)(a + 2), r->next_avail, __ATOMIC_RELEASE);
	assert_int_equal(write(r->kick_fd, &one, sizeof(one)), sizeof(one));
}

/* Wait for the next used entry: its length. */
static uint32_t used(unsigned queue)
{
	struct ring *r = &sim.ring[queue];
	uint8_t *u = sim.mem + r->used;

	for (unsigned i = 0; i < 20000; i++) {
		if (__atomic_load_n((uint16_t *)(void *)(u + 2), __ATOMIC_ACQUIRE) !=
		    r->next_used)
			return load_le32(u + 4 + 8 * (r->next_used++ % SIZE) + 4);
		usleep(1000);
	}
	fail_msg("nothing on queue %u", queue);
	return 0;
}

static void wire(const void *data, size_t len)
{
	assert_int_equal(send(sim.peer, data, len, 0), len);
}

static void frame(const char *text)
{
	uint8_t head[4];

	store_be32(head, (uint32_t)strlen(text));
	wire(head, 4);
	wire(text, strlen(text));
}

static void receives(void **state)
{
	uint8_t head[4] = { 0, 0, 0, 5 };

	(void)state;
	/* frames that are there before there is a buffer; one in pieces */
	frame("first");
	frame("second frame");
	wire(head, 2);
	post(0, 0, 0x40000, 2048, VRING_DESC_F_WRITE);
	assert_int_equal(used(0), HEADER + 5);
	assert_memory_equal(sim.mem + 0x40000 + HEADER, "first", 5);
	assert_int_equal(sim.mem[0x40000 + 10], 1);	/* num_buffers */
	post(0, 1, 0x41000, 2048, VRING_DESC_F_WRITE);
	assert_int_equal(used(0), HEADER + 12);
	wire(head + 2, 2);
	wire("thi", 3);
	post(0, 2, 0x42000, 2048, VRING_DESC_F_WRITE);
	wire("rd", 2);
	assert_int_equal(used(0), HEADER + 5);
	assert_memory_equal(sim.mem + 0x42000 + HEADER, "third", 5);
	/* more than the buffer holds is cut off */
	post(0, 3, 0x43000, HEADER + 4, VRING_DESC_F_WRITE);
	frame("longer than that");
	assert_int_equal(used(0), HEADER + 4);
	assert_int_equal(sim.mem[0x43000 + HEADER + 4], 0);
	assert_true(sim.interrupts > 0);
	assert_int_equal(sim.broken, 0);
}

static void sends(void **state)
{
	uint8_t buf[64] = { 0 };

	(void)state;
	memcpy(sim.mem + 0x50000 + HEADER, "hello", 5);
	post(1, 0, 0x50000, HEADER + 5, 0);
	assert_int_equal(used(1), 0);
	assert_int_equal(recv(sim.peer, buf, 9, MSG_WAITALL), 9);
	assert_int_equal(load_be32(buf), 5);
	assert_memory_equal(buf + 4, "hello", 5);
	/* too short for a header: dropped, and given back */
	post(1, 1, 0x50000, HEADER - 1, 0);
	used(1);
	/* outside of memory: likewise */
	post(1, 2, 0x50000000, HEADER + 5, 0);
	used(1);
	assert_int_equal(recv(sim.peer, buf, sizeof(buf), MSG_DONTWAIT), -1);
	/* nobody reads for a while: some frames are lost, but none in part */
	for (unsigned i = 0; i < SIZE; i++)
		post(1, i, 0x60000, HEADER + 60000, 0);
	usleep(50000);
	for (unsigned got = 0;; got++) {
		struct pollfd p = { .fd = sim.peer, .events = POLLIN };
		static uint8_t big[60004];

		if (poll(&p, 1, 500) == 0) {
			assert_in_range(got, 1, SIZE);
			break;
		}
		assert_int_equal(recv(sim.peer, big, sizeof(big), MSG_WAITALL), sizeof(big));
		assert_int_equal(load_be32(big), 60000);
	}
	for (unsigned i = 0; i < SIZE; i++)
		used(1);
}

static void wait_broken(void)
{
	for (unsigned i = 0; !sim.broken && i < 20000; i++)
		usleep(1000);
	assert_int_equal(sim.broken, 1);
}

static void wrong_chains(void **state)
{
	(void)state;
	post(0, 0, 0x40000, 2048, 0);	/* to be read, on the receiving queue */
	frame("x");
	wait_broken();
	sim.dev->ops->stop(sim.dev);
	start();
	post(0, 0, 0x40000, HEADER - 1, VRING_DESC_F_WRITE);
	wait_broken();
	sim.dev->ops->stop(sim.dev);
	start();
	post(1, SIZE, 0, 0, 0);		/* there is no such descriptor */
	wait_broken();
	/* after a reset all is well, and the frame has waited */
	sim.dev->ops->stop(sim.dev);
	start();
	post(0, 0, 0x40000, 2048, VRING_DESC_F_WRITE);
	assert_int_equal(used(0), HEADER + 1);
}

/* The other side is out of step, or goes away: the card is dead, the guest lives. */
static void dead_wire(void **state)
{
	uint8_t status[2];

	(void)state;
	wire("\xff\xff\xff\xff", 4);
	post(0, 0, 0x40000, 2048, VRING_DESC_F_WRITE);
	for (unsigned i = 0; i < 20000; i++) {
		sim.dev->ops->config_read(sim.dev, 6, status, 2);
		if (!load_le16(status))
			break;
		usleep(1000);
	}
	assert_int_equal(load_le16(status), 0);
	post(1, 0, 0x50000, HEADER + 5, 0);
	used(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(receives, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sends, set_up, tear_down),
		cmocka_unit_test_setup_teardown(wrong_chains, set_up, tear_down),
		cmocka_unit_test_setup_teardown(dead_wire, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
