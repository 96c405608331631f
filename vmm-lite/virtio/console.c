/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * console.c - a virtio console with one port (virtio 1.2, 5.3)
 *
 * It needs no thread: output is taken on the doorbell, by the vCPU, with one
 * copy into the ring that the terminal reads; input is given on whichever
 * comes last, the byte or the buffer for it.
 *
 * Linux spins, with interrupts off, until its output is taken; so it is taken
 * at once whether there is room or not.  Where the terminal's reader is more than
 * a ring behind, bytes are dropped and counted.  (A serial port can let a tty
 * wait for its interrupt; this device has no such way.)
 *
 * The tty's lock guards the queues too: a vCPU's doorbells and the terminal's
 * input meet in it.
 */
#include "vmm-lite/virtio/console.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>

#include "core/driver.h"

#define CONSOLE_QUEUE_SIZE	64u
#define CONFIG_BYTES		4u	/* columns, rows: without MULTIPORT there is no more */
#define FEATURE(bit)		(UINT64_C(1) << (bit))

enum { RECEIVE, TRANSMIT, N_QUEUES };

struct vconsole {
	struct virtio_device dev;
	struct tty tty;
	struct virtio_host host;
	struct virtq vq[N_QUEUES];	/* size 0: not in use */
	bool broken;
	_Atomic uint32_t size;		/* columns, rows above them */
};

static struct vconsole *of(struct virtio_device *dev)
{
	return container_of(dev, struct vconsole, dev);
}

static void break_device(struct vconsole *c)
{
	c->broken = true;
	c->host.broken(c->host.arg);
}

static void publish(struct vconsole *c, unsigned queue)
{
	if (virtq_publish(&c->vq[queue]))
		c->host.interrupt(c->host.arg, queue);
}

static uint32_t give(struct vconsole *c, const struct virtq_chain *chain, const struct iovec *iov)
{
	uint32_t done = 0;

	for (unsigned i = chain->n_out; i < chain->n_out + chain->n_in && iov[i].iov_base; i++)
		done += (uint32_t)tty_get(&c->tty, iov[i].iov_base, iov[i].iov_len);
	return done;
}

/* Input into the guest's buffers, as long as there are both; no driver is served for ever. */
static void receive(struct vconsole *c)
{
	struct virtq *vq = &c->vq[RECEIVE];
	struct iovec iov[CONSOLE_QUEUE_SIZE];
	struct virtq_chain chain;
	unsigned n = 0;
	int r = 0;

	if (c->broken || !vq->size)
		return;
	do {
		while (n++ < CONSOLE_QUEUE_SIZE && tty_in_used(&c->tty) &&
		       (r = virtq_pop(vq, &chain, iov)) > 0)
			virtq_put(vq, chain.head, give(c, &chain, iov));
	} while (!r && tty_in_used(&c->tty) && virtq_listen(vq));
	publish(c, RECEIVE);
	if (r < 0)
		break_device(c);
}

/* True: there is more. */
static bool transmit(struct vconsole *c)
{
	struct virtq *vq = &c->vq[TRANSMIT];
	struct iovec iov[CONSOLE_QUEUE_SIZE];
	struct virtq_chain chain;
	unsigned n = 0;
	bool more;
	int r = 0;

	if (c->broken || !vq->size)
		return false;
	while (n++ < CONSOLE_QUEUE_SIZE && (r = virtq_pop(vq, &chain, iov)) > 0) {
		for (unsigned i = 0; i < chain.n_out && iov[i].iov_base; i++)
			tty_put(&c->tty, iov[i].iov_base, iov[i].iov_len);
		virtq_put(vq, chain.head, 0);
	}
	more = r >= 0 && virtq_listen(vq);
	publish(c, TRANSMIT);
	if (r < 0)
		break_device(c);
	return more;
}

static void console_kick(struct virtio_device *dev, unsigned queue)
{
	struct vconsole *c = of(dev);
	bool more;

	do {	/* the terminal's thread gets in between */
		pthread_mutex_lock(&c->tty.lock);
		more = queue == TRANSMIT && transmit(c);
		if (queue == RECEIVE)
			receive(c);
		pthread_mutex_unlock(&c->tty.lock);
	} while (more);
}

/* The terminal's thread: there is input. */
static void tty_changed(struct tty *t)
{
	receive(container_of(t, struct vconsole, tty));
}

static int console_start(struct virtio_device *dev, const struct virtio_start *s)
{
	struct vconsole *c = of(dev);
	int r = 0;

	pthread_mutex_lock(&c->tty.lock);
	c->host = s->host;
	c->broken = false;
	for (unsigned i = 0; !r && i < N_QUEUES; i++) {
		c->vq[i].size = 0;
		if (s->queue[i].size)
			r = virtq_init(&c->vq[i], s->mem, &s->queue[i],
				       s->features & FEATURE(VIRTIO_RING_F_EVENT_IDX));
	}
	if (r < 0)
		c->vq[RECEIVE].size = c->vq[TRANSMIT].size = 0;
	else
		receive(c);
	/* Linux does not read the size before it is told that there is one */
	if (r == 0 && c->size && c->host.config_changed)
		c->host.config_changed(c->host.arg);
	pthread_mutex_unlock(&c->tty.lock);
	return r;
}

/* What is on its way out stays, what was typed for this driver does not. */
static void console_stop(struct virtio_device *dev)
{
	struct vconsole *c = of(dev);

	pthread_mutex_lock(&c->tty.lock);
	c->vq[RECEIVE].size = c->vq[TRANSMIT].size = 0;
	tty_clear_input(&c->tty);
	pthread_mutex_unlock(&c->tty.lock);
}

static void console_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	uint8_t config[CONFIG_BYTES];

	store_le32(config, of(dev)->size);
	memset(buf, 0, len);
	if (off < sizeof(config))
		memcpy(buf, config + off, MIN(len, (uint32_t)sizeof(config) - off));
}

static void console_free(struct virtio_device *dev)
{
	struct vconsole *c = of(dev);

	tty_destroy(&c->tty);
	free(c);
}

static const struct virtio_device_ops console_ops = {
	.start		= console_start,
	.stop		= console_stop,
	.config_read	= console_config_read,
	.kick		= console_kick,
	.free		= console_free,
};

int vconsole_new(struct virtio_device **out, struct vdisk_error *err)
{
	struct vconsole *c = calloc(1, sizeof(*c));

	if (!c)
		return vd_fail(err, ENOMEM, "out of memory");
	tty_init(&c->tty);
	c->tty.changed = tty_changed;
	c->dev = (struct virtio_device) {
		.ops = &console_ops, .id = VIRTIO_ID_CONSOLE, .n_queues = N_QUEUES,
		.queue_size = CONSOLE_QUEUE_SIZE, .config_len = CONFIG_BYTES,
		.features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
			    FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_CONSOLE_F_SIZE),
	};
	*out = &c->dev;
	return 0;
}

struct tty *vconsole_tty(struct virtio_device *dev)
{
	return &of(dev)->tty;
}

bool vconsole_resize(struct virtio_device *dev, uint16_t columns, uint16_t rows)
{
	uint32_t size = (uint32_t)rows << 16 | columns;

	return atomic_exchange(&of(dev)->size, size) != size;
}
