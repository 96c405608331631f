/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhost-user: a front end made of messages, and a driver in shared memory.
 * What is said in the right order works; what a killed back end leaves behind is
 * done again, once; and a hostile front end is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/vhost/session.h"
#include "vmm-lite/virtio/blk.h"

#define MEMORY		0x100000u
#define GPA		0x10000000u	/* where the guest sees it */
#define USER		0x7f0000000000u	/* ... and the front end */
#define DISK		0x100000u
#define QUEUES		2u
#define SIZE		64u
#define DESC		0x0u
#define AVAIL		0x1000u
#define USED		0x2000u
#define RING_STEP	0x4000u
#define BUFFERS		0x20000u	/* one of 0x400 for each head */
#define BUFFER_STEP	0x1000u

static struct {
	struct vdisk *disk;
	struct virtio_device *dev;
	struct vhost_session *s;
	int mem_fd, kick[QUEUES], call[QUEUES];
	uint8_t *mem;
	struct vhost_answer answer;
} t;

/* ---- saying things ---- */

static int say_fds(uint32_t request, bool need_reply, const void *payload, uint32_t size,
		   const int *fds, unsigned n)
{
	struct vhost_header h = { .request = request, .need_reply = need_reply, .size = size };
	int mine[VHOST_FDS_MAX];

	for (unsigned i = 0; i < n; i++)
		mine[i] = dup(fds[i]);
	return vhost_session_message(t.s, &h, payload, mine, n, &t.answer);
}

static int say(uint32_t request, const void *payload, uint32_t size)
{
	return say_fds(request, false, payload, size, NULL, 0);
}

static int say_u64(uint32_t request, uint64_t v)
{
	return say(request, &v, sizeof(v));
}

static int say_ring(uint32_t request, uint32_t index, uint32_t num)
{
	uint32_t p[2] = { index, num };

	return say(request, p, sizeof(p));
}

static int say_fd(uint32_t request, uint64_t v, int fd)
{
	return say_fds(request, false, &v, sizeof(v), &fd, 1);
}

static int say_region(uint32_t request, uint64_t gpa, uint64_t size, uint64_t user,
		      uint64_t offset, int fd)
{
	uint64_t p[5] = { 0, gpa, size, user, offset };

	if (request == VHOST_SET_MEM_TABLE)
		p[0] = 1;
	return say_fds(request, false, p, sizeof(p), &fd, fd >= 0);
}

static uint64_t answer_u64(void)
{
	uint64_t v;

	assert_int_equal(t.answer.len, VHOST_HEADER_BYTES + 8);
	memcpy(&v, t.answer.bytes + VHOST_HEADER_BYTES, sizeof(v));
	return v;
}

static int say_addr(unsigned ring, uint64_t at)
{
	struct { uint32_t index, flags; uint64_t desc, used, avail, log; } p = {
		.index = ring, .desc = USER + at + DESC, .used = USER + at + USED,
		.avail = USER + at + AVAIL,
	};

	return say(VHOST_SET_VRING_ADDR, &p, sizeof(p));
}

static void set_up_ring(unsigned i, uint16_t base)
{
	assert_int_equal(say_ring(VHOST_SET_VRING_NUM, i, SIZE), 0);
	assert_int_equal(say_ring(VHOST_SET_VRING_BASE, i, base), 0);
	assert_int_equal(say_addr(i, i * RING_STEP), 0);
	assert_int_equal(say_fd(VHOST_SET_VRING_CALL, i, t.call[i]), 0);
	assert_int_equal(say_fd(VHOST_SET_VRING_KICK, i, t.kick[i]), 0);
	assert_int_equal(say_ring(VHOST_SET_VRING_ENABLE, i, 1), 0);
}

static void negotiate(void)
{
	uint64_t features, protocol;

	assert_int_equal(say(VHOST_GET_FEATURES, NULL, 0), 0);
	features = answer_u64();
	assert_true(features & 1ull << VHOST_USER_F_PROTOCOL_FEATURES);
	assert_int_equal(say(VHOST_GET_PROTOCOL_FEATURES, NULL, 0), 0);
	protocol = answer_u64();
	assert_true(protocol & 1ull << VHOST_F_INFLIGHT_SHMFD);
	assert_int_equal(say_u64(VHOST_SET_PROTOCOL_FEATURES, protocol), 0);
	assert_int_equal(say(VHOST_SET_OWNER, NULL, 0), 0);
	assert_int_equal(say(VHOST_GET_QUEUE_NUM, NULL, 0), 0);
	assert_int_equal(answer_u64(), QUEUES);
	assert_int_equal(say_u64(VHOST_SET_FEATURES, features), 0);
}

static void give_memory(void)
{
	assert_int_equal(say_region(VHOST_SET_MEM_TABLE, GPA, MEMORY, USER, 0, t.mem_fd), 0);
}

/* ---- the driver ---- */

static void set_desc(unsigned ring, unsigned i, uint64_t off, uint32_t len, uint16_t flags,
		     unsigned next)
{
	uint8_t *d = t.mem + ring * RING_STEP + DESC + 16 * i;

	store_le64(d, GPA + off);
	store_le32(d + 8, len);
	store_le16(d + 12, flags);
	store_le16(d + 14, (uint16_t)next);
}

/* Three descriptors from @head on; the buffer is that of the head. */
static void put_request(unsigned ring, unsigned head, uint32_t type, uint64_t sector, uint8_t fill)
{
	uint64_t at = BUFFERS + head * BUFFER_STEP;
	bool in = type == VIRTIO_BLK_T_IN;

	memset(t.mem + at, 0, BUFFER_STEP);
	store_le32(t.mem + at, type);
	store_le64(t.mem + at + 8, sector);
	memset(t.mem + at + 0x100, in ? 0xee : fill, 512);
	t.mem[at + 0x80] = 0xaa;
	set_desc(ring, head, at, 16, VRING_DESC_F_NEXT, head + 1);
	set_desc(ring, head + 1, at + 0x100, 512,
		 (uint16_t)(VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0)), head + 2);
	set_desc(ring, head + 2, at + 0x80, 1, VRING_DESC_F_WRITE, 0);
}

static void make_available(unsigned ring, uint16_t head)
{
	uint8_t *a = t.mem + ring * RING_STEP + AVAIL;
	uint16_t idx = load_le16(a + 2);

	store_le16(a + 4 + 2 * (idx % SIZE), head);
	__atomic_store_n((uint16_t *)(void *)(a + 2), (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

static void ring_bell(unsigned ring)
{
	uint64_t one = 1;

	assert_int_equal(write(t.kick[ring], &one, sizeof(one)), sizeof(one));
}

static uint16_t used_idx(unsigned ring)
{
	return __atomic_load_n((uint16_t *)(void *)(t.mem + ring * RING_STEP + USED + 2),
			       __ATOMIC_ACQUIRE);
}

static void wait_used(unsigned ring, uint16_t idx)
{
	for (unsigned i = 0; i < 10000 && used_idx(ring) != idx; i++)
		usleep(1000);
	assert_int_equal(used_idx(ring), idx);
}

static uint8_t status_of(unsigned head)
{
	return t.mem[BUFFERS + head * BUFFER_STEP + 0x80];
}

static uint8_t data_of(unsigned head)
{
	return t.mem[BUFFERS + head * BUFFER_STEP + 0x100];
}

static uint8_t disk_at(uint64_t sector)
{
	uint8_t b[512];

	assert_int_equal(vdisk_read(t.disk, b, sizeof(b), sector * 512), 0);
	return b[511];
}

/* ---- */

static int set_up(void **state)
{
	struct blk_options o = { .queues = QUEUES, .serial = "test" };

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(vdisk_open_memory(&t.disk, DISK, NULL), 0);
	o.disk = t.disk;
	assert_int_equal(blk_new(&t.dev, &o, NULL), 0);
	assert_int_equal(vhost_session_new(&t.s, t.dev), 0);
	t.mem_fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(t.mem_fd, MEMORY), 0);
	t.mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, t.mem_fd, 0);
	assert_ptr_not_equal(t.mem, MAP_FAILED);
	for (unsigned i = 0; i < QUEUES; i++) {
		t.kick[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		t.call[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	vhost_session_free(t.s);
	t.dev->ops->free(t.dev);
	vdisk_close(t.disk, NULL);
	munmap(t.mem, MEMORY);
	close(t.mem_fd);
	for (unsigned i = 0; i < QUEUES; i++) {
		close(t.kick[i]);
		close(t.call[i]);
	}
	return 0;
}

/* Another back end takes over: the old session is gone without a word. */
static void new_session(void)
{
	vhost_session_free(t.s);
	t.s = NULL;
	assert_int_equal(vhost_session_new(&t.s, t.dev), 0);
}

static void moves_data(void **state)
{
	struct pollfd p;

	(void)state;
	negotiate();
	give_memory();
	for (unsigned i = 0; i < QUEUES; i++)
		set_up_ring(i, 0);
	put_request(0, 0, VIRTIO_BLK_T_OUT, 3, 0x31);
	make_available(0, 0);
	ring_bell(0);
	wait_used(0, 1);
	assert_int_equal(status_of(0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_at(3), 0x31);
	p = (struct pollfd) { .fd = t.call[0], .events = POLLIN };
	assert_int_equal(poll(&p, 1, 10000), 1);
	put_request(1, 6, VIRTIO_BLK_T_IN, 3, 0);
	make_available(1, 6);
	ring_bell(1);
	wait_used(1, 1);
	assert_int_equal(data_of(6), 0x31);
}

/* A ring stops where GET_VRING_BASE says, and goes on from SET_VRING_BASE. */
static void stops_and_goes_on(void **state)
{
	uint32_t base[2];

	(void)state;
	negotiate();
	give_memory();
	set_up_ring(0, 0);
	for (unsigned i = 0; i < 5; i++) {
		put_request(0, 3 * i, VIRTIO_BLK_T_OUT, i, (uint8_t)(i + 1));
		make_available(0, (uint16_t)(3 * i));
	}
	ring_bell(0);
	wait_used(0, 5);
	assert_int_equal(say_ring(VHOST_GET_VRING_BASE, 0, 0), 0);
	memcpy(base, t.answer.bytes + VHOST_HEADER_BYTES, sizeof(base));
	assert_int_equal(base[1], 5);
	put_request(0, 0, VIRTIO_BLK_T_OUT, 9, 0x99);
	make_available(0, 0);
	ring_bell(0);
	usleep(20000);
	assert_int_equal(used_idx(0), 5);	/* nobody looks */
	set_up_ring(0, 5);
	wait_used(0, 6);
	assert_int_equal(disk_at(9), 0x99);
	/* disabled: stands still; enabled again: what has come meanwhile */
	assert_int_equal(say_ring(VHOST_SET_VRING_ENABLE, 0, 0), 0);
	put_request(0, 3, VIRTIO_BLK_T_OUT, 10, 0x9a);
	make_available(0, 3);
	ring_bell(0);
	usleep(20000);
	assert_int_equal(used_idx(0), 6);
	assert_int_equal(say_ring(VHOST_SET_VRING_ENABLE, 0, 1), 0);
	wait_used(0, 7);
}

/* Memory comes and goes while a ring runs. */
static void memory_changes(void **state)
{
	int more = memfd_create("more", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(ftruncate(more, 0x10000), 0);
	negotiate();
	give_memory();
	set_up_ring(0, 0);
	assert_int_equal(say(VHOST_GET_MAX_MEM_SLOTS, NULL, 0), 0);
	assert_true(answer_u64() >= 8);
	/* a write from memory that is not there is an error of that request */
	put_request(0, 0, VIRTIO_BLK_T_OUT, 1, 0x11);
	store_le64(t.mem + DESC + 16, 0x50000000);
	make_available(0, 0);
	ring_bell(0);
	wait_used(0, 1);
	assert_int_equal(status_of(0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(say_region(VHOST_ADD_MEM_REG, 0x50000000, 0x8000, USER + 0x50000000, 0x1000,
				    more), 0);
	assert_int_equal(pwrite(more, "\x77\x77\x77\x77", 4, 0x1000), 4);
	make_available(0, 0);
	ring_bell(0);
	wait_used(0, 2);
	assert_int_equal(status_of(0), VIRTIO_BLK_S_OK);
	/* the same again, overlapping, outside the file, a pipe: refused */
	assert_int_equal(say_region(VHOST_ADD_MEM_REG, 0x50000000, 0x8000, USER + 0x50000000, 0, more),
			 -EINVAL);
	assert_int_equal(say_region(VHOST_ADD_MEM_REG, 0x50007000, 0x8000, USER + 0x60000000, 0, more),
			 -EINVAL);
	assert_int_equal(say_region(VHOST_ADD_MEM_REG, 0x60000000, 0x8000, USER + 0x60000000, 0x9000,
				    more), -EINVAL);
	assert_int_equal(say_region(VHOST_ADD_MEM_REG, 0x60000000, 0x8000, USER + 0x60000000, 0,
				    t.call[0]), -EINVAL);
	assert_int_equal(say_region(VHOST_REM_MEM_REG, 0x50000000, 0x8000, USER + 0x50000000, 0x1000,
				    -1), 0);
	assert_int_equal(say_region(VHOST_REM_MEM_REG, 0x50000000, 0x8000, USER + 0x50000000, 0x1000,
				    -1), -EINVAL);
	make_available(0, 0);
	ring_bell(0);
	wait_used(0, 3);
	assert_int_equal(status_of(0), VIRTIO_BLK_S_IOERR);
	close(more);
}

/* ---- after a kill ---- */

struct record {
	uint64_t size, offset;
	uint16_t queues, queue_size, pad[2];
};

static uint8_t *get_record(struct record *r, int *fd)
{
	*r = (struct record) { .queues = QUEUES, .queue_size = SIZE };
	assert_int_equal(say(VHOST_GET_INFLIGHT_FD, r, sizeof(*r)), 0);
	memcpy(r, t.answer.bytes + VHOST_HEADER_BYTES, sizeof(*r));
	assert_true(r->size >= QUEUES * virtq_record_bytes(SIZE));
	assert_true(t.answer.fd >= 0);
	*fd = dup(t.answer.fd);
	return mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
}

static void mark(uint8_t *record, unsigned head, uint64_t count)
{
	uint8_t *e = record + VIRTQ_RECORD_HEADER + VIRTQ_RECORD_ENTRY * head;

	e[0] = 1;
	memcpy(e + 8, &count, sizeof(count));
}

static void does_it_again(void **state)
{
	uint8_t *record;
	struct record r;
	uint16_t used;
	int fd;

	(void)state;
	negotiate();
	give_memory();
	record = get_record(&r, &fd);
	set_up_ring(0, 0);
	put_request(0, 0, VIRTIO_BLK_T_OUT, 0, 1);
	make_available(0, 0);
	ring_bell(0);
	wait_used(0, 1);
	new_session();
	assert_int_equal(record[VIRTQ_RECORD_HEADER], 0);	/* nothing is in flight */

	/* as if killed: three taken and not given back, the last one first; one is
	 * in the used ring's past, but the record does not know it yet */
	for (unsigned i = 1; i <= 4; i++) {
		put_request(0, 3 * i, VIRTIO_BLK_T_OUT, i, (uint8_t)(0x40 + i));
		make_available(0, (uint16_t)(3 * i));
		if (i < 4)
			mark(record, 3 * i, 10 - i);
	}
	/* two writes to one place: the order in which they were taken decides */
	store_le64(t.mem + BUFFERS + 3 * BUFFER_STEP + 8, 7);
	store_le64(t.mem + BUFFERS + 9 * BUFFER_STEP + 8, 7);
	mark(record, 30, 3);
	used = 30;
	memcpy(record + 12, &used, sizeof(used));	/* head of the last batch */
	store_le16(t.mem + USED + 2, 2);		/* ... which the driver has seen */
	store_le16(t.mem + AVAIL + 2, 6);
	store_le16(t.mem + AVAIL + 4 + 2 * 5, load_le16(t.mem + AVAIL + 4 + 2 * 4));
	store_le16(t.mem + AVAIL + 4 + 2 * 4, load_le16(t.mem + AVAIL + 4 + 2 * 3));

	negotiate();
	give_memory();
	assert_int_equal(say_fds(VHOST_SET_INFLIGHT_FD, false, &r, sizeof(r), &fd, 1), 0);
	set_up_ring(0, 2);
	wait_used(0, 6);	/* the three, and the one that nobody had taken */
	for (unsigned i = 1; i <= 4; i++)
		assert_int_equal(status_of(3 * i), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_at(7), 0x41);	/* head 3 was taken last: count 9 */
	assert_int_equal(disk_at(2), 0x42);
	assert_int_equal(disk_at(4), 0x44);
	usleep(20000);
	assert_int_equal(used_idx(0), 6);	/* exactly once */
	vhost_session_free(STEAL(t.s));
	for (unsigned i = 0; i < SIZE; i++)
		assert_int_equal(record[VIRTQ_RECORD_HEADER + VIRTQ_RECORD_ENTRY * i], 0);
	munmap(record, r.size);
	close(fd);
}

/* A record of rubbish is the front end's own loss. */
static void record_of_rubbish(void **state)
{
	uint8_t *record;
	struct record r, wrong;
	int fd;

	(void)state;
	negotiate();
	give_memory();
	record = get_record(&r, &fd);
	new_session();
	memset(record, 0xff, r.size);
	store_le16(record + 8, 1);
	negotiate();
	give_memory();
	wrong = r;
	wrong.queues = QUEUES + 1;
	assert_int_equal(say_fds(VHOST_SET_INFLIGHT_FD, false, &wrong, sizeof(r), &fd, 1), -EINVAL);
	wrong = r;
	wrong.queue_size = 1024;
	assert_int_equal(say_fds(VHOST_SET_INFLIGHT_FD, false, &wrong, sizeof(r), &fd, 1), -EINVAL);
	wrong = r;
	wrong.offset = 4096;
	assert_int_equal(say_fds(VHOST_SET_INFLIGHT_FD, false, &wrong, sizeof(r), &fd, 1), -EINVAL);
	assert_int_equal(say_fds(VHOST_SET_INFLIGHT_FD, false, &r, sizeof(r), &t.kick[0], 1), -EINVAL);
	assert_int_equal(say_fds(VHOST_SET_INFLIGHT_FD, false, &r, sizeof(r), NULL, 0), -EPROTO);
	assert_int_equal(say_fds(VHOST_SET_INFLIGHT_FD, false, &r, sizeof(r), &fd, 1), 0);
	set_up_ring(0, 0);	/* every head "in flight": whatever comes of it, it ends */
	munmap(record, r.size);
	close(fd);
}

/* ---- configuration ---- */

static void configuration(void **state)
{
	uint32_t p[3 + 64] = { 0, 256, 0 };
	int pair[2];
	uint64_t sectors;
	uint8_t message[VHOST_HEADER_BYTES];

	(void)state;
	negotiate();
	assert_int_equal(say(VHOST_GET_CONFIG, p, 12 + 256), 0);
	assert_int_equal(t.answer.len, VHOST_HEADER_BYTES + 12 + 256);
	memcpy(&sectors, t.answer.bytes + VHOST_HEADER_BYTES + 12, sizeof(sectors));
	assert_int_equal(sectors, DISK / 512);
	assert_int_equal(t.answer.bytes[VHOST_HEADER_BYTES + 12 + 255], 0);
	p[1] = 257;
	assert_int_equal(say(VHOST_GET_CONFIG, p, 12), -EPROTO);
	p[0] = 255;
	p[1] = 2;
	assert_int_equal(say(VHOST_GET_CONFIG, p, 14), -EPROTO);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(say_fds(VHOST_SET_BACKEND_REQ_FD, false, NULL, 0, &pair[1], 1), 0);
	close(pair[1]);
	assert_int_equal(vdisk_resize(t.disk, DISK * 2, NULL), 0);
	vhost_session_config_changed(t.s);
	assert_int_equal(recv(pair[0], message, sizeof(message), 0), sizeof(message));
	assert_int_equal(load_le32(message), VHOST_BACKEND_CONFIG_CHANGE);
	assert_int_equal(load_le32(message + 4), VHOST_VERSION);
	close(pair[0]);
	vhost_session_config_changed(t.s);	/* nobody there: no harm */
	vhost_session_config_changed(t.s);
}

/* ---- hostile ---- */

static void refuses(void **state)
{
	static const struct { uint32_t request, size; } bad[] = {
		{ VHOST_SET_FEATURES, 0 }, { VHOST_SET_FEATURES, 4 }, { VHOST_SET_FEATURES, 12 },
		{ VHOST_SET_MEM_TABLE, 0 }, { VHOST_SET_MEM_TABLE, 7 },
		{ VHOST_SET_VRING_NUM, 4 }, { VHOST_SET_VRING_ADDR, 8 }, { VHOST_SET_VRING_KICK, 0 },
		{ VHOST_GET_CONFIG, 8 }, { VHOST_SET_CONFIG, 11 }, { VHOST_GET_INFLIGHT_FD, 8 },
		{ VHOST_ADD_MEM_REG, 32 }, { VHOST_REM_MEM_REG, 8 },
	};
	uint8_t zero[VHOST_PAYLOAD_MAX] = { 0 }, header[VHOST_HEADER_BYTES] = { 1 };
	struct vhost_header h;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(say(bad[i].request, zero, bad[i].size), -EPROTO);
	assert_int_equal(say(0, zero, 0), -EOPNOTSUPP);
	assert_int_equal(say(99, zero, 0), -EOPNOTSUPP);
	negotiate();
	give_memory();
	assert_int_equal(say_u64(VHOST_SET_FEATURES, UINT64_MAX), -EINVAL);
	assert_int_equal(say_ring(VHOST_SET_VRING_NUM, QUEUES, 64), -EINVAL);
	assert_int_equal(say_ring(VHOST_SET_VRING_NUM, 0, 63), -EINVAL);
	assert_int_equal(say_ring(VHOST_SET_VRING_NUM, 0, 512), -EINVAL);
	assert_int_equal(say_ring(VHOST_SET_VRING_NUM, 0, 0), -EINVAL);
	assert_int_equal(say_fd(VHOST_SET_VRING_KICK, 0, t.mem_fd), -EINVAL);	/* no doorbell */
	assert_int_equal(say_u64(VHOST_SET_VRING_KICK, 0), -EPROTO);		/* none at all */
	/* rings outside memory: when the last thing is known */
	assert_int_equal(say_ring(VHOST_SET_VRING_NUM, 0, 64), 0);
	assert_int_equal(say_addr(0, MEMORY - 0x1000), 0);
	assert_int_equal(say_fd(VHOST_SET_VRING_KICK, 0, t.kick[0]), 0);
	assert_int_equal(say_ring(VHOST_SET_VRING_ENABLE, 0, 1), -EINVAL);

	/* the same, answered, once that is agreed */
	assert_int_equal(say_fds(VHOST_SET_VRING_NUM, true, (uint32_t[]){ 0, 63 }, 8, NULL, 0), 0);
	assert_int_equal(answer_u64(), 1);
	assert_int_equal(say_fds(VHOST_SET_OWNER, true, NULL, 0, NULL, 0), 0);
	assert_int_equal(answer_u64(), 0);

	assert_int_equal(vhost_decode_header(&h, header), -EPROTO);	/* version 0 */
	header[4] = VHOST_VERSION;
	assert_int_equal(vhost_decode_header(&h, header), 0);
	header[4] = VHOST_VERSION | VHOST_REPLY;
	assert_int_equal(vhost_decode_header(&h, header), -EPROTO);
	header[4] = VHOST_VERSION;
	store_le32(header + 8, VHOST_PAYLOAD_MAX + 1);
	assert_int_equal(vhost_decode_header(&h, header), -EPROTO);
}

/* A pipe that nobody empties, and one whose reader is gone: nothing waits for them. */
static void deaf_front_end(void **state)
{
	int pipe_fd[2];
	char junk[4096] = { 0 };

	(void)state;
	negotiate();
	give_memory();
	set_up_ring(0, 0);
	assert_int_equal(pipe(pipe_fd), 0);
	fcntl(pipe_fd[1], F_SETFL, O_NONBLOCK);
	while (write(pipe_fd[1], junk, sizeof(junk)) > 0)
		;
	assert_int_equal(say_fd(VHOST_SET_VRING_CALL, 0, pipe_fd[1]), 0);
	put_request(0, 0, VIRTIO_BLK_T_OUT, 0, 1);
	for (uint16_t i = 1; i < 10; i++) {
		make_available(0, 0);
		ring_bell(0);
		wait_used(0, i);
		if (i == 5)
			close(pipe_fd[0]);
	}
	close(pipe_fd[1]);
}

static void patch(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (!vhost_session_patch_memory(t.s, info->si_addr))
		_exit(99);
}

/* The memory is truncated while the ring is in use. */
static void truncated_memory(void **state)
{
	struct sigaction sa = { .sa_sigaction = patch, .sa_flags = SA_SIGINFO }, old;
	uint64_t zero = 0;

	(void)state;
	sigaction(SIGBUS, &sa, &old);
	negotiate();
	give_memory();
	set_up_ring(0, 0);
	munmap(t.mem, MEMORY);
	assert_int_equal(ftruncate(t.mem_fd, 0), 0);
	ring_bell(0);
	usleep(50000);
	assert_int_equal(say_ring(VHOST_GET_VRING_BASE, 0, 0), 0);
	assert_false(vhost_session_patch_memory(t.s, &zero));	/* not its memory */
	sigaction(SIGBUS, &old, NULL);
	assert_int_equal(ftruncate(t.mem_fd, MEMORY), 0);
	t.mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, t.mem_fd, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(moves_data), T(stops_and_goes_on), T(memory_changes), T(does_it_again),
		T(record_of_rubbish), T(configuration), T(refuses), T(deaf_front_end),
		T(truncated_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
