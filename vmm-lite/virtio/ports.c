/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ports.c - see ports.h
 *
 * Queues: two for each port (receive, transmit), with those of the control
 * messages behind the first port's (5.3.2).  One thread serves them all.  Output is written
 * when poll() says that it does not block, at most PIPE_BUF bytes at a time, since the
 * descriptor may be shared with others; a reader that is slow keeps the guest's buffers,
 * and so the writer in the guest, waiting.  A reader that is gone is one that takes everything.
 *
 * When the guest switches off or resets, what it has handed over still goes out,
 * for a few seconds at most.  Nothing is ever received: those buffers stay with us.
 */
#include "vmm-lite/virtio/ports.h"

#include <errno.h>
#include <limits.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/driver.h"

#define PORTS_QUEUE_SIZE	64u
#define CONTROL_BYTES		8u
#define CONFIG_BYTES		12u
#define QUEUES_MAX		(2 * PORTS_MAX + 2)
#ifdef VD_FUZZING
#define FAREWELL_MS		20
#else
#define FAREWELL_MS		5000	/* for what is left when the guest ends */
#endif
#define FEATURE(bit)		(UINT64_C(1) << (bit))

enum { CONTROL_RX = 2, CONTROL_TX = 3 };
/* control messages that wait for a buffer, a bit each */
enum { SAY_ADD = 1, SAY_NAME = 2, SAY_OPEN = 4 };

struct port {
	const char *name;
	int fd;
	bool lost;			/* nobody reads any more */
	unsigned say;
	bool have;			/* a chain that has not gone out as a whole */
	struct virtq_chain chain;
	unsigned at;			/* the first of iov[] with something left */
	struct iovec iov[PORTS_QUEUE_SIZE];
};

struct ports {
	struct virtio_device dev;
	void (*confine)(void);
	pthread_t thread;
	bool has_thread;
	int stop_fd;			/* owned */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool run, busy, quit;		/* under lock */
	_Atomic bool stop;

	/* the thread's while it serves */
	struct virtio_host host;
	bool broken;
	struct virtq vq[QUEUES_MAX];
	int kick_fd[QUEUES_MAX];
	unsigned n;
	struct port port[PORTS_MAX];
};

static struct ports *of(struct virtio_device *dev)
{
	return container_of(dev, struct ports, dev);
}

static unsigned transmit_queue(unsigned port)
{
	return port ? 3 + 2 * port : 1;
}

static void break_device(struct ports *p)
{
	p->broken = true;
	p->host.broken(p->host.arg);
}

static bool take(struct ports *p, unsigned queue, struct virtq_chain *chain, struct iovec *iov)
{
	int r = 0;

	if (!p->broken && p->vq[queue].size)
		r = virtq_pop(&p->vq[queue], chain, iov);
	if (r < 0)
		break_device(p);
	return r > 0;
}

/* ---- control messages ---- */

static void heard(struct ports *p, const uint8_t *message)
{
	uint32_t id = load_le32(message);
	uint16_t event = load_le16(message + 4), value = load_le16(message + 6);

	if (!value)
		return;
	if (event == VIRTIO_CONSOLE_DEVICE_READY)
		for (unsigned i = 0; i < p->n; i++)
			p->port[i].say |= SAY_ADD;
	else if (event == VIRTIO_CONSOLE_PORT_READY && id < p->n)
		p->port[id].say |= SAY_NAME | SAY_OPEN;
}

static bool listen_to_control(struct ports *p)
{
	struct iovec iov[PORTS_QUEUE_SIZE];
	uint8_t message[CONTROL_BYTES] = { 0 };
	struct virtq_chain c;
	size_t got = 0;

	if (!take(p, CONTROL_TX, &c, iov))
		return false;
	for (unsigned i = 0; i < c.n_out && iov[i].iov_base && got < sizeof(message); i++) {
		size_t part = MIN(iov[i].iov_len, sizeof(message) - got);

		memcpy(message + got, iov[i].iov_base, part);
		got += part;
	}
	if (got == sizeof(message))
		heard(p, message);
	virtq_put(&p->vq[CONTROL_TX], c.head, 0);
	return true;
}

static size_t compose(uint8_t *message, unsigned id, struct port *port)
{
	size_t len = CONTROL_BYTES;
	uint16_t event;

	if (port->say & SAY_ADD) {
		event = VIRTIO_CONSOLE_PORT_ADD;
		port->say &= ~(unsigned)SAY_ADD;
	} else if (port->say & SAY_NAME) {
		event = VIRTIO_CONSOLE_PORT_NAME;
		port->say &= ~(unsigned)SAY_NAME;
		memcpy(message + len, port->name, strlen(port->name));
		len += strlen(port->name);
	} else {
		event = VIRTIO_CONSOLE_PORT_OPEN;
		port->say &= ~(unsigned)SAY_OPEN;
	}
	store_le32(message, id);
	store_le16(message + 4, event);
	store_le16(message + 6, 1);
	return len;
}

static bool speak(struct ports *p)
{
	uint8_t message[CONTROL_BYTES + PORT_NAME_MAX];
	struct iovec iov[PORTS_QUEUE_SIZE];
	struct virtq_chain c;
	unsigned id = 0;
	size_t len, done = 0;

	while (id < p->n && !p->port[id].say)
		id++;
	if (id == p->n || !take(p, CONTROL_RX, &c, iov))
		return false;
	len = compose(message, id, &p->port[id]);
	for (unsigned i = c.n_out; i < c.n_out + c.n_in && iov[i].iov_base && done < len; i++) {
		size_t part = MIN(iov[i].iov_len, len - done);

		memcpy(iov[i].iov_base, message + done, part);
		done += part;
	}
	virtq_put(&p->vq[CONTROL_RX], c.head, (uint32_t)done);
	return true;
}

/* ---- output ---- */

static bool is_writable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) > 0;
}

static void write_some(struct port *port)
{
	struct iovec *v = &port->iov[port->at];
	ssize_t n = write(port->fd, v->iov_base, MIN(v->iov_len, (size_t)PIPE_BUF));

	if (n < 0) {
		port->lost = errno != EAGAIN && errno != EINTR;
		return;
	}
	v->iov_base = (uint8_t *)v->iov_base + n;
	v->iov_len -= (size_t)n;
	if (!v->iov_len)
		port->at++;
}

/* True: something has gone out, or was taken. */
static bool transmit(struct ports *p, unsigned i)
{
	unsigned queue = transmit_queue(i);
	struct port *port = &p->port[i];

	if (!port->have) {
		port->have = take(p, queue, &port->chain, port->iov);
		port->at = 0;
		if (!port->have)
			return false;
	}
	if (port->at < port->chain.n_out && !port->lost && !port->chain.bad_memory) {
		if (!is_writable(port->fd))
			return false;
		write_some(port);
		return true;
	}
	virtq_put(&p->vq[queue], port->chain.head, 0);
	port->have = false;
	return true;
}

/* ---- the thread ---- */

static bool turn(struct ports *p)
{
	bool any = false;

	any |= listen_to_control(p);
	any |= speak(p);
	for (unsigned i = 0; i < p->n; i++)
		any |= transmit(p, i);
	for (unsigned q = 0; q < p->dev.n_queues; q++)
		if (p->vq[q].size && virtq_publish(&p->vq[q]))
			p->host.interrupt(p->host.arg, q);
	return any;
}

static bool waits_for_reader(const struct ports *p)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->port[i].have)
			return true;
	return false;
}

/* Ask for doorbells where they mean something; is there something already? */
static bool listen_all(struct ports *p)
{
	bool more = p->vq[CONTROL_TX].size && virtq_listen(&p->vq[CONTROL_TX]);

	for (unsigned i = 0; i < p->n; i++) {
		struct virtq *vq = &p->vq[transmit_queue(i)];

		if (vq->size && !p->port[i].have)
			more |= virtq_listen(vq);
		if (p->port[i].say && p->vq[CONTROL_RX].size)
			more |= virtq_listen(&p->vq[CONTROL_RX]);
	}
	return more && !p->broken;
}

static void drain(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;		/* EAGAIN */
}

static void wait_for_news(struct ports *p, int timeout)
{
	/* who waits without a limit is ended by stop_fd, also if that was just now */
	struct pollfd fds[1 + QUEUES_MAX + PORTS_MAX] = {
		{ .fd = timeout < 0 ? p->stop_fd : -1, .events = POLLIN },
	};
	unsigned n = 1;

	for (unsigned i = 0; i < p->dev.n_queues; i++)
		fds[n++] = (struct pollfd) { .fd = p->vq[i].size ? p->kick_fd[i] : -1,
					     .events = POLLIN };
	for (unsigned i = 0; i < p->n; i++)
		fds[n++] = (struct pollfd) { .fd = p->port[i].have ? p->port[i].fd : -1,
					     .events = POLLOUT };
	if (poll(fds, n, timeout) <= 0)
		return;
	for (unsigned i = 1; i <= p->dev.n_queues; i++)
		if (fds[i].revents)
			drain(fds[i].fd);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void serve(struct ports *p)
{
	int64_t end;

	while (!p->stop)
		if (!turn(p) && !listen_all(p))
			wait_for_news(p, -1);
	end = now_ms() + FAREWELL_MS;
	/* a guest's rings may feed themselves: that, too, comes to an end */
	while ((turn(p) || waits_for_reader(p)) && now_ms() < end)
		if (waits_for_reader(p))
			wait_for_news(p, 100);
}

static void *ports_thread(void *arg)
{
	struct ports *p = arg;

	if (p->confine)
		p->confine();
	pthread_mutex_lock(&p->lock);
	while (!p->quit) {
		if (!p->run) {
			pthread_cond_wait(&p->changed, &p->lock);
			continue;
		}
		p->run = false;
		pthread_mutex_unlock(&p->lock);
		serve(p);
		pthread_mutex_lock(&p->lock);
		p->busy = false;
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- the device ---- */

static int ports_start(struct virtio_device *dev, const struct virtio_start *s)
{
	bool event_idx = s->features & FEATURE(VIRTIO_RING_F_EVENT_IDX);
	struct ports *p = of(dev);
	int r = 0;

	for (unsigned i = 0; !r && i < dev->n_queues; i++) {
		p->vq[i].size = 0;
		p->kick_fd[i] = s->queue[i].kick_fd;
		if (s->queue[i].size > PORTS_QUEUE_SIZE)
			r = -EINVAL;
		else if (s->queue[i].size)
			r = virtq_init(&p->vq[i], s->mem, &s->queue[i], event_idx);
	}
	if (r < 0)
		return r;
	for (unsigned i = 0; i < p->n; i++) {
		p->port[i].say = 0;
		p->port[i].have = false;
	}
	p->host = s->host;
	p->stop = p->broken = false;
	pthread_mutex_lock(&p->lock);
	p->run = p->busy = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static void ports_stop(struct virtio_device *dev)
{
	struct ports *p = of(dev);
	uint64_t one = 1;

	p->stop = true;
	if (write(p->stop_fd, &one, sizeof(one)) != sizeof(one))
		abort();	/* an eventfd near zero takes it */
	pthread_mutex_lock(&p->lock);
	while (p->busy)
		pthread_cond_wait(&p->changed, &p->lock);
	pthread_mutex_unlock(&p->lock);
	drain(p->stop_fd);
	for (unsigned i = 0; i < dev->n_queues; i++)
		p->vq[i].size = 0;
}

static void ports_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	uint8_t c[CONFIG_BYTES] = { 0 };

	memset(buf, 0, len);
	store_le32(c + 4, of(dev)->n);
	if (off < CONFIG_BYTES)
		memcpy(buf, c + off, MIN(len, CONFIG_BYTES - off));
}

static void ports_free(struct virtio_device *dev)
{
	struct ports *p = of(dev);

	if (p->has_thread) {
		pthread_mutex_lock(&p->lock);
		p->quit = true;
		pthread_cond_broadcast(&p->changed);
		pthread_mutex_unlock(&p->lock);
		pthread_join(p->thread, NULL);
	}
	if (p->stop_fd >= 0)
		close(p->stop_fd);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->changed);
	free(p);
}

static const struct virtio_device_ops ports_ops = {
	.start		= ports_start,
	.stop		= ports_stop,
	.config_read	= ports_config_read,
	.free		= ports_free,
};

int ports_new(struct virtio_device **out, const struct port_option *port, unsigned n,
	      void (*confine)(void), struct vdisk_error *err)
{
	struct ports *p;
	int r = 0;

	if (!n || n > PORTS_MAX)
		return vd_fail(err, EINVAL, "%u ports: 1 to %u are possible", n, PORTS_MAX);
	p = calloc(1, sizeof(*p));
	if (!p)
		return vd_fail(err, ENOMEM, "out of memory");
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	p->confine = confine;
	p->n = n;
	for (unsigned i = 0; i < n; i++) {
		p->port[i].name = port[i].name;
		p->port[i].fd = port[i].fd;
		if (!*port[i].name || strlen(port[i].name) > PORT_NAME_MAX)
			r = vd_fail(err, EINVAL, "'%.80s' is not a name for a port", port[i].name);
	}
	p->dev = (struct virtio_device) {
		.ops = &ports_ops, .id = VIRTIO_ID_CONSOLE, .n_queues = (uint16_t)(2 * n + 2),
		.queue_size = PORTS_QUEUE_SIZE, .config_len = CONFIG_BYTES,
		.features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
			    FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_CONSOLE_F_MULTIPORT),
	};
	p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!r && p->stop_fd < 0)
		r = vd_fail(err, errno, "eventfd: %m");
	if (!r) {
		int e = pthread_create(&p->thread, NULL, ports_thread, p);

		if (e)
			r = vd_fail(err, e, "cannot start a thread: %s", strerror(e));
	}
	p->has_thread = !r;
	if (r < 0) {
		ports_free(&p->dev);
		return r;
	}
	*out = &p->dev;
	return 0;
}
