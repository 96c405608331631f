/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * net.c - a virtio network card (virtio 1.2, 5.1) on a tap device or a stream socket
 *
 * One pair of queues and one thread.  A tap speaks virtio's own packet header
 * (IFF_VNET_HDR), so a frame goes from its descriptor straight into the guest's
 * buffers and back, checksums and segmentation left to whoever does them last.
 * On a stream (passt) each frame has its length before it, four bytes, big
 * endian, and there is no header: it is skipped, or zero.
 *
 * A frame that finds no buffer waits in the tap or the socket; one that the
 * other side has no room for is dropped, as a wire would (but one that went in
 * part holds up the next).  A frame that does not fit its buffer is cut off.
 */
#include "vmm-lite/virtio/net.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "core/driver.h"

#define NET_QUEUE_SIZE	256u
#define HEADER_BYTES	12u		/* struct virtio_net_hdr_v1 */
#define FRAME_MAX	65550u
#define CONFIG_BYTES	12u
#define BURST		64u

#define FEATURE(bit)	(UINT64_C(1) << (bit))

enum { RX, TX, N_QUEUES };

struct net {
	struct virtio_device dev;
	int fd;				/* owned */
	bool stream;
	uint8_t mac[6];
	void (*confine)(void);
	const struct guest_memory *mem;	/* borrowed, like all that ->start() gave */
	bool event_idx;
	struct virtio_host host;
	pthread_t thread;		/* from the beginning to the end, mostly idle */
	bool has_thread;
	int stop_fd;			/* owned: eventfd */
	_Atomic bool stop;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool run, busy, quit;		/* under lock: what it shall do, does, shall end */

	/* the thread's while it serves */
	struct virtq vq[N_QUEUES];
	int kick_fd[N_QUEUES];
	bool broken;
	bool lost;			/* the other side is gone */
	bool have_rx;			/* a buffer was taken, and no frame was there */
	struct virtq_chain rx;
	struct iovec rx_iov[VIRTQ_SIZE_MAX];
	/* of a stream: bytes that came, and the rest of a frame that goes */
	uint8_t in[4 + FRAME_MAX], out[4 + FRAME_MAX];
	size_t in_used, out_at, out_end;
};

static struct net *of(struct virtio_device *dev)
{
	return container_of(dev, struct net, dev);
}

static void break_device(struct net *net)
{
	net->broken = true;
	net->host.broken(net->host.arg);
}

/* Step over @len bytes of an iovec array. */
static void skip_front(struct iovec **iov, unsigned *n, size_t len)
{
	while (len && *n) {
		size_t part = MIN(len, (*iov)->iov_len);

		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + part;
		(*iov)->iov_len -= part;
		len -= part;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*n)--;
		}
	}
}

static size_t copy_in(const struct iovec *iov, unsigned n, size_t skip, const uint8_t *data,
		      size_t len)
{
	size_t done = 0;

	for (; n && done < len; n--, iov++) {
		size_t part;

		if (skip >= iov->iov_len) {
			skip -= iov->iov_len;
			continue;
		}
		part = MIN(iov->iov_len - skip, len - done);
		memcpy((uint8_t *)iov->iov_base + skip, data + done, part);
		done += part;
		skip = 0;
	}
	return done;
}

/* ---- to the guest ---- */

/* Is there a buffer for the next frame? */
static bool rx_ready(struct net *net)
{
	int r;

	if (net->have_rx || net->broken || !net->vq[RX].size)
		return net->have_rx;
	r = virtq_pop(&net->vq[RX], &net->rx, net->rx_iov);
	if (r < 0 || (r > 0 && (net->rx.n_out || net->rx.bad_memory ||
				net->rx.in_len < HEADER_BYTES))) {
		break_device(net);
		return false;
	}
	net->have_rx = r > 0;
	return net->have_rx;
}

static void rx_done(struct net *net, size_t len)
{
	virtq_put(&net->vq[RX], net->rx.head, (uint32_t)len);
	net->have_rx = false;
}

/* True: a frame was there. */
static bool rx_tap(struct net *net)
{
	ssize_t n;

	if (!rx_ready(net))
		return false;
	n = readv(net->fd, net->rx_iov, net->rx.n_in);
	if (n < 0) {
		net->lost |= errno != EAGAIN && errno != EINTR;
		return false;
	}
	if ((size_t)n >= HEADER_BYTES) {
		/* num_buffers, which the tap does not know of */
		copy_in(net->rx_iov, net->rx.n_in, 10, (const uint8_t[]) { 1, 0 }, 2);
		rx_done(net, (size_t)n);
	}
	return true;
}

static bool rx_stream(struct net *net)
{
	static const uint8_t header[HEADER_BYTES] = { [10] = 1 };
	size_t len = 0;
	ssize_t n;

	if (net->in_used >= 4)
		len = load_be32(net->in);
	if (len > FRAME_MAX) {
		net->lost = true;	/* out of step: there is no way back */
		return false;
	}
	if (net->in_used < 4 || net->in_used < 4 + len) {
		n = recv(net->fd, net->in + net->in_used, sizeof(net->in) - net->in_used,
			 MSG_DONTWAIT);
		net->lost |= n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
		net->in_used += n > 0 ? (size_t)n : 0;
		return n > 0;
	}
	if (!rx_ready(net))
		return false;
	copy_in(net->rx_iov, net->rx.n_in, 0, header, sizeof(header));
	n = (ssize_t)copy_in(net->rx_iov, net->rx.n_in, HEADER_BYTES, net->in + 4, len);
	rx_done(net, HEADER_BYTES + (size_t)n);
	net->in_used -= 4 + len;
	memmove(net->in, net->in + 4 + len, net->in_used);
	return true;
}

/* ---- from the guest ---- */

/* What is left of a frame that went out in part. */
static bool flush_out(struct net *net)
{
	ssize_t n;

	if (net->out_at == net->out_end)
		return true;
	n = send(net->fd, net->out + net->out_at, net->out_end - net->out_at,
		 MSG_DONTWAIT | MSG_NOSIGNAL);
	net->lost |= n < 0 && errno != EAGAIN && errno != EINTR;
	net->out_at += n > 0 ? (size_t)n : 0;
	return net->out_at == net->out_end;
}

static void tx_stream(struct net *net, const struct iovec *iov, unsigned n, size_t len)
{
	uint8_t *p = net->out + 4;

	if (len > FRAME_MAX)
		return;
	store_be32(net->out, (uint32_t)len);
	for (; n; n--, iov++) {
		memcpy(p, iov->iov_base, iov->iov_len);
		p += iov->iov_len;
	}
	net->out_at = 0;
	net->out_end = 4 + len;
	flush_out(net);
	if (!net->out_at)		/* nothing of it went: no room, it is dropped */
		net->out_end = 0;
}

static bool tx(struct net *net)
{
	struct iovec iov[VIRTQ_SIZE_MAX], *p = iov;
	struct virtq_chain c;
	unsigned n;
	int r;

	if (net->broken || !net->vq[TX].size || (net->stream && !flush_out(net)))
		return false;
	r = virtq_pop(&net->vq[TX], &c, iov);
	if (r < 0)
		break_device(net);
	if (r <= 0)
		return false;
	n = c.n_out;
	if (c.bad_memory || c.out_len < HEADER_BYTES || net->lost) {
		/* dropped */
	} else if (net->stream) {
		skip_front(&p, &n, HEADER_BYTES);
		tx_stream(net, p, n, c.out_len - HEADER_BYTES);
	} else if (writev(net->fd, iov, (int)n) < 0) {
		net->lost |= errno == EBADFD;	/* the interface is gone; else one is dropped */
	}
	virtq_put(&net->vq[TX], c.head, 0);
	return true;
}

/* ---- the thread ---- */

static bool turn(struct net *net)
{
	unsigned n = 0;

	while (n < BURST && !net->stop && tx(net))
		n++;
	for (unsigned i = 0; i < BURST && !net->stop && !net->lost; i++) {
		if (!(net->stream ? rx_stream(net) : rx_tap(net)))
			break;
		n++;
	}
	for (unsigned q = 0; q < N_QUEUES; q++)
		if (net->vq[q].size && virtq_publish(&net->vq[q]))
			net->host.interrupt(net->host.arg, q);
	return n;
}

static void drain(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;		/* EAGAIN */
}

/* Ask for doorbells; is there something already? */
static bool listen_all(struct net *net)
{
	bool more = net->vq[TX].size && virtq_listen(&net->vq[TX]) &&
		    net->out_at == net->out_end;

	/* a buffer only matters when there is none */
	if (!net->have_rx && net->vq[RX].size)
		more |= virtq_listen(&net->vq[RX]);
	return more && !net->broken && !net->stop;
}

static void serve(struct net *net)
{
	while (!net->stop) {
		bool rx_wanted;
		struct pollfd fds[] = {
			{ .fd = net->stop_fd, .events = POLLIN },
			{ .fd = net->kick_fd[RX], .events = POLLIN },
			{ .fd = net->kick_fd[TX], .events = POLLIN },
			{ .fd = net->fd },
		};

		if (turn(net) || listen_all(net))
			continue;
		rx_wanted = !net->lost && (net->have_rx || net->stream);
		fds[3].events = (short)((rx_wanted ? POLLIN : 0) |
					(net->out_at < net->out_end ? POLLOUT : 0));
		if (!fds[3].events || net->lost)
			fds[3].fd = -1;
		/* a whole frame of a stream that waits for a buffer is not news */
		if (net->stream && net->in_used >= 4 && net->in_used >= 4 + load_be32(net->in))
			fds[3].events &= (short)~POLLIN;
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		for (unsigned i = 1; i < 3; i++)
			if (fds[i].revents)
				drain(fds[i].fd);
	}
}

static void *net_thread(void *arg)
{
	struct net *net = arg;

	if (net->confine)
		net->confine();
	pthread_mutex_lock(&net->lock);
	while (!net->quit) {
		if (!net->run) {
			pthread_cond_wait(&net->changed, &net->lock);
			continue;
		}
		net->run = false;
		pthread_mutex_unlock(&net->lock);
		serve(net);
		pthread_mutex_lock(&net->lock);
		net->busy = false;
		pthread_cond_broadcast(&net->changed);
	}
	pthread_mutex_unlock(&net->lock);
	return NULL;
}

/* ---- the device ---- */

static void go_on(struct net *net)
{
	net->stop = false;
	pthread_mutex_lock(&net->lock);
	net->run = net->busy = true;
	pthread_cond_broadcast(&net->changed);
	pthread_mutex_unlock(&net->lock);
}

static void pause_thread(struct net *net)
{
	uint64_t one = 1;

	net->stop = true;
	if (write(net->stop_fd, &one, sizeof(one)) != sizeof(one))
		abort();	/* an eventfd near zero takes it */
	pthread_mutex_lock(&net->lock);
	while (net->busy)
		pthread_cond_wait(&net->changed, &net->lock);
	pthread_mutex_unlock(&net->lock);
	drain(net->stop_fd);
}

static int set_queue(struct net *net, unsigned i, const struct virtq_setup *setup)
{
	net->vq[i].size = 0;
	net->kick_fd[i] = setup->size ? setup->kick_fd : -1;
	return setup->size ? virtq_init(&net->vq[i], net->mem, setup, net->event_idx) : 0;
}

static int net_start(struct virtio_device *dev, const struct virtio_start *s)
{
	struct net *net = of(dev);
	unsigned offload = 0;
	int r = 0;

	pause_thread(net);	/* it may have been started without queues */
	net->mem = s->mem;
	net->event_idx = s->features & FEATURE(VIRTIO_RING_F_EVENT_IDX);
	for (unsigned i = 0; !r && i < N_QUEUES; i++)
		r = set_queue(net, i, &s->queue[i]);
	if (r < 0)
		return r;
	net->host = s->host;
	net->stop = net->broken = net->have_rx = false;
	if (s->features & FEATURE(VIRTIO_NET_F_GUEST_CSUM))
		offload |= TUN_F_CSUM;
	if (s->features & FEATURE(VIRTIO_NET_F_GUEST_TSO4))
		offload |= TUN_F_TSO4;
	if (s->features & FEATURE(VIRTIO_NET_F_GUEST_TSO6))
		offload |= TUN_F_TSO6;
	if (!net->stream && ioctl(net->fd, TUNSETOFFLOAD, offload) < 0)
		return -errno;
	go_on(net);
	return 0;
}

static void net_stop(struct virtio_device *dev)
{
	pause_thread(of(dev));
}

static int net_queue_start(struct virtio_device *dev, unsigned queue,
			   const struct virtq_setup *setup)
{
	struct net *net = of(dev);
	int r;

	pause_thread(net);
	r = set_queue(net, queue, setup);
	go_on(net);
	return r;
}

static uint16_t net_queue_stop(struct virtio_device *dev, unsigned queue)
{
	struct net *net = of(dev);
	uint16_t next;

	pause_thread(net);
	next = net->vq[queue].last_avail;
	if (queue == RX && net->have_rx) {	/* it was taken, and nothing came for it */
		next--;
		net->have_rx = false;
	}
	net->vq[queue].size = 0;
	net->kick_fd[queue] = -1;
	go_on(net);
	return next;
}

/* struct virtio_net_config: the address, and that the link is up */
static void net_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	const struct net *net = of(dev);
	uint8_t c[CONFIG_BYTES] = { 0 };

	memcpy(c, net->mac, 6);
	store_le16(c + 6, net->lost ? 0 : VIRTIO_NET_S_LINK_UP);
	memset(buf, 0, len);
	if (off < sizeof(c))
		memcpy(buf, c + off, MIN(len, (uint32_t)sizeof(c) - off));
}

static void net_free(struct virtio_device *dev)
{
	struct net *net = of(dev);

	if (net->has_thread) {
		pthread_mutex_lock(&net->lock);
		net->quit = true;
		pthread_cond_broadcast(&net->changed);
		pthread_mutex_unlock(&net->lock);
		pthread_join(net->thread, NULL);
	}
	pthread_mutex_destroy(&net->lock);
	pthread_cond_destroy(&net->changed);
	if (net->fd >= 0)
		close(net->fd);
	if (net->stop_fd >= 0)
		close(net->stop_fd);
	free(net);
}

static const struct virtio_device_ops net_ops = {
	.start		= net_start,
	.stop		= net_stop,
	.queue_start	= net_queue_start,
	.queue_stop	= net_queue_stop,
	.config_read	= net_config_read,
	.free		= net_free,
};

int net_new(struct virtio_device **out, const struct net_options *opts, struct vdisk_error *err)
{
	struct net *net = calloc(1, sizeof(*net));
	int header = HEADER_BYTES, r;
	uint64_t features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
		FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_NET_F_MAC) |
		FEATURE(VIRTIO_NET_F_STATUS);

	if (!net)
		return vd_fail(err, ENOMEM, "out of memory");
	if (!opts->stream && ioctl(opts->fd, TUNSETVNETHDRSZ, &header) < 0) {
		free(net);
		return vd_fail(err, errno, "network card: descriptor %d is no tap device: %m",
			       opts->fd);
	}
	if (!opts->stream)
		features |= FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
			FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_HOST_TSO6) |
			FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6);
	net->dev = (struct virtio_device) {
		.ops = &net_ops, .id = VIRTIO_ID_NET, .n_queues = N_QUEUES,
		.queue_size = NET_QUEUE_SIZE, .config_len = CONFIG_BYTES, .features = features,
	};
	net->fd = -1;
	net->stream = opts->stream;
	net->confine = opts->confine;
	memcpy(net->mac, opts->mac, 6);
	pthread_mutex_init(&net->lock, NULL);
	pthread_cond_init(&net->changed, NULL);
	net->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = net->stop_fd < 0 ? errno : pthread_create(&net->thread, NULL, net_thread, net);
	net->has_thread = !r;
	if (r) {
		net_free(&net->dev);
		return vd_fail(err, r, "network card: %s", strerror(r));
	}
	net->fd = opts->fd;
	*out = &net->dev;
	return 0;
}
