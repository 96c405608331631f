/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A relay between a hostile front end and hostile disk processes.
 *
 * Input: how many bytes the front end's messages have (2), these, and what the processes
 * answer.  A message: the request (1), a byte (1: wants a reply; 2 bits: how many
 * descriptors; 32: no version in its header), the payload's length (1), the payload.  For
 * answers see liar.h; where one ends, the process dies and the next one (32: one that fails)
 * is there.
 */
#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/liar.h"
#include "vmm-lite/keeper.h"
#include "vmm-lite/vhost/relay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROCESSES_MAX	6u

struct back_end {
	struct input in;
	int channel;
};

static int memory_fd;

/* ---- the disk's processes ---- */

/* One process, until it dies or its connection is closed; what comes next. */
static enum keeper_says serve(struct back_end *b, int sock)
{
	uint8_t how;

	while (liar_answers(&b->in, sock, memory_fd, &how))
		;
	close(sock);
	return !(how & 8) ? KEEPER_GONE : how & 32 ? KEEPER_FAILING : KEEPER_NEW;
}

/* ... and their keeper, which has said what it has to when it returns. */
static void *keeper(void *arg)
{
	enum keeper_says next = KEEPER_NEW;
	struct back_end *b = arg;
	int sock[2];

	for (unsigned i = 0; i < PROCESSES_MAX && next != KEEPER_GONE; i++) {
		struct keeper_word word = { .says = next, .value = (int)i + 1 };

		assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock));
		(void)vhost_send(b->channel, &word, sizeof(word), &sock[0], 1);
		close(sock[0]);
		next = serve(b, sock[1]);
	}
	shutdown(b->channel, SHUT_WR);
	return NULL;
}

/* ---- the front end ---- */

static void say(int sock, struct input *in)
{
	uint8_t bytes[VHOST_HEADER_BYTES + 255], head[3];
	int fds[4];

	while (take(in, head, sizeof(head)) == sizeof(head)) {
		uint32_t len = (uint32_t)take(in, bytes + VHOST_HEADER_BYTES, head[2]);
		unsigned n = head[1] >> 1 & 3;

		for (unsigned i = 0; i < n; i++)
			fds[i] = memory_fd;
		put32(bytes, head[0]);
		put32(bytes + 4, (head[1] & 32 ? 0 : VHOST_VERSION) | (head[1] & 1 ? VHOST_NEED_REPLY : 0));
		put32(bytes + 8, len);
		if (vhost_send(sock, bytes, VHOST_HEADER_BYTES + len, fds, n) < 0)
			return;
	}
}

static int listen_at(struct sockaddr_un *addr, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* abstract, and the kernel chooses its name */
	*addr = (struct sockaddr_un) { .sun_family = AF_UNIX };
	assert(fd >= 0 && !bind(fd, (void *)addr, sizeof(addr->sun_family)) && !listen(fd, 1));
	*len = sizeof(*addr);
	assert(!getsockname(fd, (void *)addr, len));
	return fd;
}

static void set_up(void)
{
	signal(SIGPIPE, SIG_IGN);
	memory_fd = memfd_create("guest", MFD_CLOEXEC);
	assert(memory_fd >= 0 && !ftruncate(memory_fd, 65536));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct relay_options o = { .name = "fuzz" };
	struct sockaddr_un addr;
	struct back_end b;
	struct pollfd changed;
	struct input messages;
	struct relay *r;
	int channel[2], sock;
	pthread_t thread;
	socklen_t len;

	if (!memory_fd)
		set_up();
	if (size < 2)
		return 0;
	messages = (struct input) { data + 2, MIN((size_t)load_le16(data), size - 2) };
	b.in = (struct input) { messages.data + messages.size, size - 2 - messages.size };
	assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel));
	b.channel = channel[1];
	o.channel = channel[0];
	o.listen_fd = listen_at(&addr, &len);
	assert(!relay_new(&r, &o, NULL));
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(sock >= 0 && !connect(sock, (void *)&addr, len));
	assert(!pthread_create(&thread, NULL, keeper, &b));
	say(sock, &messages);
	shutdown(sock, SHUT_WR);
	/* it has let go of the front end, or lost its disk; either way it says so */
	changed = (struct pollfd) { .fd = relay_fd(r), .events = POLLIN };
	for (enum relay_state s = RELAY_SERVES; s == RELAY_SERVES || s == RELAY_FAILS; s = relay_look(r))
		(void)poll(&changed, 1, -1);
	assert(relay_restarts(r) < PROCESSES_MAX && relay_pid(r) <= (int)PROCESSES_MAX);
	relay_free(r);
	pthread_join(thread, NULL);
	close(sock);
	close(channel[0]);
	close(channel[1]);
	return 0;
}
