/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bare-server.c - what moving the bytes costs, without a target: the yardstick
 *
 * Answers READ(16) and WRITE(16) commands of iscsi-load --bare from a file: no
 * login, no checks, no sessions, a thread.  Its CPU time a command is what any
 * target has to pay that reads the file into a buffer and sends that; what vdiskd
 * takes beyond is iSCSI and SCSI.  For benchmarks only.
 *
 * --sockets says how it waits, receives and sends:
 *	epoll	epoll_wait, recv, send
 *	ring	all in an io_uring: multishot receive into provided buffers, sends,
 *		and one io_uring_enter a turn that submits and waits
 *	wait	the ring for receiving and waiting, send as a system call
 *
 * --data says how the bytes of a read get into the socket:
 *	copy	pread to a buffer, and send that
 *	mmap	send from the file's mapping, which is never taken away
 *	file	sendfile
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/compiler.h"

#define BHS		48u
#define BLOCK		512u
#define DATA_MAX	(1u << 20)
#define RX_SIZE		(2u << 20)
#define TX_SIZE		(4u << 20)	/* of a turn */
#define LARGE		(64u << 10)	/* sent at once, while the cache has it */
#define MAX_PDUS	1024u
#define MAX_CONNS	64u
#define RING_BUFFERS	256u		/* provided, */
#define RING_BUFFER	16384u		/* each of that size */

enum sockets { EPOLL, RING, WAIT };
enum data { COPY, MMAP, FILE_PAGES };

struct conn {
	int fd;
	uint8_t *rx;			/* what came and is not a whole command yet */
	size_t have;
	uint8_t heads[MAX_PDUS][BHS];
	struct iovec iov[2 * MAX_PDUS];
	unsigned n_heads, n_iov;
	uint8_t *tx;			/* TX_SIZE: data of answers */
	size_t tx_used;
	struct msghdr msg;		/* ring: being sent */
	bool sending;
};

static enum sockets sockets = EPOLL;
static enum data data = COPY;
static uint32_t piece = DATA_MAX;	/* a read goes through in pieces of that */
static int file;
static uint8_t *map;
static struct conn conns[MAX_CONNS];
static unsigned n_conns;

static struct io_uring ring;
static struct io_uring_buf_ring *provided;
static uint8_t *provided_mem;

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "bare-server: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int listen_somewhere(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 64) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		die("listen");
	printf("%u\n", ntohs(sa.sin_port));
	fflush(stdout);
	return fd;
}

/* ---- answers ---- */

static void sent_all(struct conn *c)
{
	c->n_heads = c->n_iov = 0;
	c->tx_used = 0;
}

/* Blocks: the only client reads what it gets. */
static void send_all(struct conn *c, int flags)
{
	struct iovec *iov = c->iov;
	unsigned n = c->n_iov;

	while (n > 0) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = MIN(n, 1000u) };
		ssize_t r = sendmsg(c->fd, &msg, MSG_NOSIGNAL | flags);

		if (r < 0)
			break;		/* it left; the next recv says so */
		while (n > 0 && (size_t)r >= iov->iov_len) {
			r -= (ssize_t)iov->iov_len;
			iov++, n--;
		}
		if (n > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + r;
			iov->iov_len -= (size_t)r;
		}
	}
	sent_all(c);
}

static void add(struct conn *c, const void *base, size_t len)
{
	c->iov[c->n_iov++] = (struct iovec) { (void *)(uintptr_t)base, len };
}

static uint8_t *answer(struct conn *c, const uint8_t *request, uint8_t opcode, uint8_t flags)
{
	uint8_t *h = c->heads[c->n_heads++];

	memset(h, 0, BHS);
	h[0] = opcode;
	h[1] = flags;
	memcpy(h + 16, request + 16, 4);
	store_be32(h + 32, load_be32(request + 24) + 256);
	add(c, h, BHS);
	return h;
}

static void read_file(void *buf, size_t len, uint64_t offset)
{
	if (pread(file, buf, len, (off_t)offset) != (ssize_t)len)
		die("read");
}

static void answer_read(struct conn *c, const uint8_t *request, uint64_t offset, uint32_t len)
{
	uint8_t *h = answer(c, request, 0x25, 0x81);

	store_be32(h + 4, len);
	if (data == FILE_PAGES) {
		off_t at = (off_t)offset;

		send_all(c, MSG_MORE);
		while (at < (off_t)(offset + len))
			if (sendfile(c->fd, file, &at, offset + len - (uint64_t)at) <= 0)
				return;
		return;
	}
	for (uint32_t done = 0, n; done < len; done += n) {
		n = MIN(piece, len - done);
		if (data == MMAP) {
			add(c, map + offset + done, n);
		} else {
			read_file(c->tx + c->tx_used, n, offset + done);
			add(c, c->tx + c->tx_used, n);
			c->tx_used += n;
		}
		if (n >= LARGE && sockets != RING)
			send_all(c, done + n < len ? MSG_MORE : 0);
	}
}

static void answer_command(struct conn *c, const uint8_t *request, uint32_t immediate)
{
	uint64_t offset = load_be64(request + 34) * BLOCK;
	uint32_t len = load_be32(request + 42) * BLOCK;

	if (c->n_heads == MAX_PDUS || c->tx_used + len > TX_SIZE)
		send_all(c, 0);
	if (request[32] == 0x88) {
		answer_read(c, request, offset, MIN(len, DATA_MAX));
		return;
	}
	if (pwrite(file, request + BHS, immediate, (off_t)offset) != (ssize_t)immediate)
		die("write");
	answer(c, request, 0x21, 0x80);
}

/* All whole commands of what came; how many bytes they are. */
static size_t answer_all(struct conn *c, const uint8_t *p, size_t len)
{
	size_t at = 0;

	while (len - at >= BHS) {
		uint32_t immediate = load_be32(p + at + 4) & 0xffffff;

		if (len - at < BHS + immediate)
			break;
		answer_command(c, p + at, immediate);
		at += BHS + immediate;
	}
	return at;
}

static void take(struct conn *c, const uint8_t *p, size_t len)
{
	if (c->have == 0) {
		size_t used = answer_all(c, p, len);

		memcpy(c->rx, p + used, len - used);
		c->have = len - used;
	} else {
		size_t used;

		memcpy(c->rx + c->have, p, len);
		c->have += len;
		used = answer_all(c, c->rx, c->have);
		memmove(c->rx, c->rx + used, c->have - used);
		c->have -= used;
	}
}

static void conn_new(int fd)
{
	const int on = 1;
	struct conn *c = &conns[n_conns++];

	assert(n_conns <= MAX_CONNS);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	c->fd = fd;
	c->rx = malloc(RX_SIZE);
	c->tx = malloc(TX_SIZE);
	if (!c->rx || !c->tx)
		die("memory");
}

/* ---- epoll ---- */

static void epoll_conn(struct conn *c)
{
	ssize_t r = recv(c->fd, c->rx + c->have, RX_SIZE - c->have, MSG_DONTWAIT);
	size_t used;

	if (r < 0 && errno == EAGAIN)
		return;
	if (r <= 0) {
		close(c->fd);
		return;
	}
	c->have += (size_t)r;
	used = answer_all(c, c->rx, c->have);
	memmove(c->rx, c->rx + used, c->have - used);
	c->have -= used;
	send_all(c, 0);
}

static void run_epoll(int listener)
{
	struct epoll_event events[MAX_CONNS], ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC);

	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
	for (;;) {
		int n = epoll_wait(ep, events, MAX_CONNS, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr) {
				epoll_conn(events[i].data.ptr);
				continue;
			}
			conn_new(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
			ev.data.ptr = &conns[n_conns - 1];
			epoll_ctl(ep, EPOLL_CTL_ADD, conns[n_conns - 1].fd, &ev);
			ev.data.ptr = NULL;
		}
	}
}

/* ---- io_uring ---- */

static void provide(unsigned id)
{
	io_uring_buf_ring_add(provided, provided_mem + (size_t)id * RING_BUFFER, RING_BUFFER,
			      (unsigned short)id, io_uring_buf_ring_mask(RING_BUFFERS), 0);
	io_uring_buf_ring_advance(provided, 1);
}

static void ring_setup(void)
{
	struct io_uring_buf_reg reg = { .ring_entries = RING_BUFFERS };

	if (io_uring_queue_init(256, &ring, IORING_SETUP_SINGLE_ISSUER |
				IORING_SETUP_DEFER_TASKRUN) < 0)
		die("io_uring");
	io_uring_register_ring_fd(&ring);
	provided = mmap(NULL, RING_BUFFERS * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
			MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	provided_mem = malloc(RING_BUFFERS * RING_BUFFER);
	reg.ring_addr = (uintptr_t)provided;
	if (io_uring_register_buf_ring(&ring, &reg, 0) < 0)
		die("provided buffers");
	io_uring_buf_ring_init(provided);
	for (unsigned i = 0; i < RING_BUFFERS; i++)
		provide(i);
}

enum { TAG_RECV, TAG_SEND, TAG_ACCEPT };

static void ring_recv(unsigned i)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	io_uring_prep_recv_multishot(sqe, conns[i].fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = 0;
	io_uring_sqe_set_data64(sqe, (uint64_t)i << 2 | TAG_RECV);
}

static void ring_send(unsigned i)
{
	struct conn *c = &conns[i];
	struct io_uring_sqe *sqe;

	if (c->sending || c->n_iov == 0)
		return;
	if (sockets == WAIT) {
		send_all(c, 0);
		return;
	}
	sqe = io_uring_get_sqe(&ring);
	if (c->n_iov == 1) {
		io_uring_prep_send(sqe, c->fd, c->iov->iov_base, c->iov->iov_len,
				   MSG_NOSIGNAL | MSG_WAITALL);
	} else {
		c->msg = (struct msghdr) { .msg_iov = c->iov, .msg_iovlen = c->n_iov };
		io_uring_prep_sendmsg(sqe, c->fd, &c->msg, MSG_NOSIGNAL | MSG_WAITALL);
	}
	io_uring_sqe_set_data64(sqe, (uint64_t)i << 2 | TAG_SEND);
	c->sending = true;
}

/* What came while answers were being sent waits in c->rx, as their buffers are in use. */
static void ring_took(struct conn *c, const uint8_t *p, size_t len)
{
	if (c->sending) {
		memcpy(c->rx + c->have, p, len);
		c->have += len;
	} else {
		take(c, p, len);
	}
}

static void ring_completion(const struct io_uring_cqe *cqe)
{
	uint64_t what = cqe->user_data & 3;
	unsigned i = (unsigned)(cqe->user_data >> 2);

	if (what == TAG_ACCEPT) {
		conn_new(cqe->res);
		ring_recv(n_conns - 1);
		return;
	}
	if (what == TAG_SEND) {
		conns[i].sending = false;
		sent_all(&conns[i]);
		take(&conns[i], NULL, 0);
		return;
	}
	if (cqe->flags & IORING_CQE_F_BUFFER) {
		unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

		ring_took(&conns[i], provided_mem + (size_t)id * RING_BUFFER, (size_t)cqe->res);
		provide(id);
	}
	if (cqe->res == 0)
		close(conns[i].fd);
	else if (!(cqe->flags & IORING_CQE_F_MORE))
		ring_recv(i);
}

static void run_ring(int listener)
{
	struct io_uring_sqe *sqe;

	ring_setup();
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
	io_uring_sqe_set_data64(sqe, TAG_ACCEPT);
	for (;;) {
		struct io_uring_cqe *cqe;
		unsigned head, n = 0;

		if (io_uring_submit_and_wait(&ring, 1) < 0 && errno != EINTR)
			die("io_uring_enter");
		io_uring_for_each_cqe(&ring, head, cqe) {
			ring_completion(cqe);
			n++;
		}
		io_uring_cq_advance(&ring, n);
		for (unsigned i = 0; i < n_conns; i++)
			ring_send(i);
	}
}

static int choice(const char *text, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(text, names[i]))
			return i;
	fprintf(stderr, "bare-server: '%s'?  See --help\n", text);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "sockets", required_argument, NULL, 's' },
		{ "data", required_argument, NULL, 'd' },
		{ "piece", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char *const socket_names[] = { "epoll", "ring", "wait", NULL };
	static const char *const data_names[] = { "copy", "mmap", "file", NULL };
	struct stat st;
	int c, listener;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 's': sockets = (enum sockets)choice(optarg, socket_names); break;
		case 'd': data = (enum data)choice(optarg, data_names); break;
		case 'p': piece = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'h':
			puts("Usage: bare-server [OPTION...] FILE\n"
			     "Answer iscsi-load --bare from FILE; prints the port on 127.0.0.1.\n\n"
			     "  --sockets=epoll|ring|wait\n"
			     "  --data=copy|mmap|file\n"
			     "  --piece=BYTES           of a read at a time (all)");
			return 0;
		default: return 2;
		}
	}
	if (argc - optind != 1 || piece == 0)
		return 2;
	file = open(argv[optind], O_RDWR | O_CLOEXEC);
	if (file < 0 || fstat(file, &st) < 0)
		die(argv[optind]);
	map = data == MMAP ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, file, 0) : NULL;
	if (map == MAP_FAILED)
		die("mmap");
	signal(SIGPIPE, SIG_IGN);
	listener = listen_somewhere();
	if (sockets == EPOLL)
		run_epoll(listener);
	else
		run_ring(listener);
}
