/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * front.c - a virtio block device whose requests another process does
 *
 * A thread for each device has the connection.  Whoever starts, stops or
 * configures the device gives it a task and waits.  Interrupts pass through the
 * thread, doorbells do not: their descriptors are the other process's.
 *
 * While there is no connection - its end died, and the keeper has not yet sent
 * another - a started device stays started: what the guest rings meanwhile
 * stays in the doorbells' descriptors, and in the rings.  A new connection gets
 * everything told again: features, memory, the record of what is in flight,
 * the rings from where the used ring says.  If there will be no disk behind it any more,
 * the keeper sends a process that fails each request; it is told the same.
 *
 * The other process is not trusted more than the guest is: its messages are
 * fixed in size, and what it says are numbers.
 */
#include "vmm-lite/vhost/front.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vhost/lines.h"
#include "vmm-lite/vhost/talk.h"
#include "vmm-lite/vhost/wire.h"

#define BIT(n)		(UINT64_C(1) << (n))
#define CONFIG_BYTES	60u
#define CONFIG_WCE	32u

#define WANTED (BIT(VHOST_F_MQ) | BIT(VHOST_F_REPLY_ACK) | BIT(VHOST_F_BACKEND_REQ) | \
		BIT(VHOST_F_CONFIG) | BIT(VHOST_F_INFLIGHT_SHMFD))

enum task { NOTHING, START, STOP, SET_CONFIG, QUIT };

struct front {
	struct virtio_device dev;
	char name[200];
	struct keeper_ends ends;	/* owned */
	int memory_fd;			/* borrowed */
	void (*confine)(void);
	void (*config_changed)(void *arg);
	void (*restarted)(void *arg);
	void *arg;
	pthread_t thread;
	bool has_thread;
	int wake_fd;			/* owned: there is a task */

	pthread_mutex_t lock;		/* guards this paragraph */
	pthread_cond_t done;
	enum task task;
	int result;
	uint8_t config[CONFIG_BYTES];
	pid_t pid;
	unsigned restarts;

	/* the thread's own, once there is one */
	int sock;			/* owned; -1: no connection */
	bool started, lost;		/* lost: there will be no disk behind it any more */
	bool has_wce;			/* the driver has set it */
	bool ending;			/* there is no thread any more, and the process knows */
	struct guest_memory mem;
	uint64_t features;
	struct virtq_setup queue[BLK_QUEUES_MAX];
	struct virtio_host host;
	int call_fd[BLK_QUEUES_MAX];	/* owned */
	int record_fd;			/* owned: what is in flight; -1 */
	uint8_t record[24];		/* as GET_INFLIGHT_FD described it */

	struct vhost_lines lines;	/* owned: what people ask the process */
};

static struct front *of(struct virtio_device *dev)
{
	return container_of(dev, struct front, dev);
}

static void drop_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int get_config(struct front *f)
{
	uint8_t payload[VHOST_CONFIG_HEADER + CONFIG_BYTES] = { 0 };
	int r;

	put32(payload + 4, CONFIG_BYTES);
	r = vhost_say(f->sock, VHOST_GET_CONFIG, false, payload, sizeof(payload), NULL, 0);
	if (!r)
		r = vhost_hear_answer(f->sock, VHOST_GET_CONFIG, payload, sizeof(payload), NULL);
	if (r)
		return r;
	pthread_mutex_lock(&f->lock);
	/* what the driver has set survives the process that was told of it */
	if (f->has_wce)
		payload[VHOST_CONFIG_HEADER + CONFIG_WCE] = f->config[CONFIG_WCE];
	memcpy(f->config, payload + VHOST_CONFIG_HEADER, CONFIG_BYTES);
	pthread_mutex_unlock(&f->lock);
	return 0;
}

static int set_wce(struct front *f)
{
	uint8_t payload[VHOST_CONFIG_HEADER + 1] = { 0 };

	put32(payload, CONFIG_WCE);
	put32(payload + 4, 1);
	pthread_mutex_lock(&f->lock);
	payload[VHOST_CONFIG_HEADER] = f->config[CONFIG_WCE];
	pthread_mutex_unlock(&f->lock);
	return vhost_tell(f->sock, VHOST_SET_CONFIG, payload, sizeof(payload), NULL, 0);
}

/* ---- a connection ---- */

/* What each begins with; -EPROTO: this one cannot do what the first could. */
static int greet(struct front *f, uint64_t *features)
{
	uint64_t protocol, queues;
	int r = vhost_ask_u64(f->sock, VHOST_GET_FEATURES, features);

	if (!r)
		r = vhost_ask_u64(f->sock, VHOST_GET_PROTOCOL_FEATURES, &protocol);
	if (r)
		return r;
	if (!(*features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)) || (protocol & WANTED) != WANTED)
		return -EPROTO;
	*features &= ~BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	/* before it is agreed on, nothing is acknowledged */
	protocol = WANTED;
	r = vhost_say(f->sock, VHOST_SET_PROTOCOL_FEATURES, false, &protocol, 8, NULL, 0);
	if (!r)
		r = vhost_tell(f->sock, VHOST_SET_OWNER, NULL, 0, NULL, 0);
	if (!r)
		r = vhost_ask_u64(f->sock, VHOST_GET_QUEUE_NUM, &queues);
	if (!r && queues < f->dev.n_queues)
		r = -EPROTO;
	if (!r)
		r = vhost_tell(f->sock, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &f->ends.events[1], 1);
	/* of one that only fails there is nothing to know */
	return r || f->lost ? r : get_config(f);
}

/* Guest addresses serve as "user" ones too: they are all the same to us. */
static int tell_memory(struct front *f)
{
	uint8_t payload[8 + 32 * VHOST_TABLE_MAX] = { 0 };
	int fds[VHOST_TABLE_MAX];
	uint64_t offset = 0;

	if (f->mem.n > VHOST_TABLE_MAX)
		return -E2BIG;
	put32(payload, f->mem.n);
	for (unsigned i = 0; i < f->mem.n; i++) {
		uint8_t *p = payload + 8 + 32 * i;

		put64(p, f->mem.region[i].gpa);
		put64(p + 8, f->mem.region[i].size);
		put64(p + 16, f->mem.region[i].gpa);
		put64(p + 24, offset);
		offset += f->mem.region[i].size;
		fds[i] = f->memory_fd;
	}
	return vhost_tell(f->sock, VHOST_SET_MEM_TABLE, payload, 8 + 32 * f->mem.n, fds, f->mem.n);
}

/* The record of what is in flight: a new one for a new start, or the one that there is. */
static int tell_record(struct front *f)
{
	uint8_t payload[24] = { 0 };
	int r;

	if (f->record_fd >= 0)
		return vhost_tell(f->sock, VHOST_SET_INFLIGHT_FD, f->record, sizeof(f->record),
				  &f->record_fd, 1);
	put16(payload + 16, f->dev.n_queues);
	put16(payload + 18, BLK_QUEUE_SIZE);
	r = vhost_say(f->sock, VHOST_GET_INFLIGHT_FD, false, payload, sizeof(payload), NULL, 0);
	if (!r)
		r = vhost_hear_answer(f->sock, VHOST_GET_INFLIGHT_FD, f->record, sizeof(f->record),
				      &f->record_fd);
	return r ? r : f->record_fd < 0 ? -EPROTO : 0;
}

/* How far the used ring is; what follows was not done, or is in the record. */
static uint16_t used_index(const struct front *f, const struct virtq_setup *q)
{
	const uint16_t *used = guest_at(&f->mem, q->used + 2, 2);

	return used && !(q->used % 2) ? le16toh(__atomic_load_n(used, __ATOMIC_ACQUIRE)) : 0;
}

static int tell_queue(struct front *f, unsigned i)
{
	const struct virtq_setup *q = &f->queue[i];
	uint8_t addr[40] = { 0 };
	int r = vhost_tell_ring(f->sock, VHOST_SET_VRING_NUM, i, q->size);

	put32(addr, i);
	put64(addr + 8, q->desc);
	put64(addr + 16, q->used);
	put64(addr + 24, q->avail);
	if (!r)
		r = vhost_tell_ring(f->sock, VHOST_SET_VRING_BASE, i, used_index(f, q));
	if (!r)
		r = vhost_tell(f->sock, VHOST_SET_VRING_ADDR, addr, sizeof(addr), NULL, 0);
	if (!r)
		r = vhost_tell_ring_fd(f->sock, VHOST_SET_VRING_CALL, i, f->call_fd[i]);
	if (!r)
		r = vhost_tell_ring_fd(f->sock, VHOST_SET_VRING_KICK, i, q->kick_fd);
	return r ? r : vhost_tell_ring(f->sock, VHOST_SET_VRING_ENABLE, i, 1);
}

static int tell_all(struct front *f)
{
	int r = vhost_tell_u64(f->sock, VHOST_SET_FEATURES,
			       f->features | BIT(VHOST_USER_F_PROTOCOL_FEATURES));

	if (!r && f->has_wce)
		r = set_wce(f);
	if (!r)
		r = tell_memory(f);
	if (!r)
		r = tell_record(f);
	for (unsigned i = 0; !r && i < f->dev.n_queues; i++)
		if (f->queue[i].size)
			r = tell_queue(f, i);
	return r;
}

static void disconnect(struct front *f)
{
	drop_fd(&f->sock);
}

static void fire(struct front *f, unsigned i)
{
	if (f->started)
		f->host.interrupt(f->host.arg, i);
}

static void lose_disk(struct front *f)
{
	if (!f->lost)
		log_warnx("%s: the guest has lost this disk", f->name);
	pthread_mutex_lock(&f->lock);
	f->lost = true;
	pthread_mutex_unlock(&f->lock);
}

/* Nor is there anything in its place. */
static void lose(struct front *f)
{
	disconnect(f);
	lose_disk(f);
	if (f->started)
		f->host.broken(f->host.arg);
}

/* A new process has the disk open. */
static void connected(struct front *f, int sock, pid_t pid)
{
	uint64_t features;
	int r;

	disconnect(f);
	f->sock = sock;
	pthread_mutex_lock(&f->lock);
	f->pid = pid;
	f->restarts += !f->lost;
	pthread_mutex_unlock(&f->lock);
	r = greet(f, &features);
	if (!r && (f->dev.features & ~features))
		r = -ENOTSUP;
	if (!r && f->started)
		r = tell_all(f);
	if (r == -EPIPE) {	/* dead already: the keeper sends another */
		disconnect(f);
		return;
	}
	if (r < 0) {
		log_warnx("%s: its new process is of no use: %s", f->name, strerror(-r));
		lose(f);
		return;
	}
	if (f->restarted && !f->lost)
		f->restarted(f->arg);
	/* what was done before the other's end may not have been told */
	for (unsigned i = 0; i < f->dev.n_queues; i++)
		if (f->queue[i].size)
			fire(f, i);
}

/* ---- tasks ---- */

static int task_stop(struct front *f)
{
	for (unsigned i = 0; i < f->dev.n_queues; i++) {
		uint8_t payload[8] = { 0 };
		int r;

		if (!f->queue[i].size || f->sock < 0)
			continue;
		put32(payload, i);
		/* it answers when what is in flight is done */
		r = vhost_say(f->sock, VHOST_GET_VRING_BASE, false, payload, sizeof(payload),
			      NULL, 0);
		if (!r)
			r = vhost_hear_answer(f->sock, VHOST_GET_VRING_BASE, payload, sizeof(payload),
					      NULL);
		if (r)	/* dead: it does nothing any more */
			disconnect(f);
	}
	f->started = false;
	drop_fd(&f->record_fd);	/* the next start begins with nothing in flight */
	return 0;
}

static int task_start(struct front *f)
{
	int r;

	if (f->lost && f->sock < 0)
		return -EIO;
	f->started = true;
	if (f->sock < 0)
		return 0;	/* when there is a connection again */
	r = tell_all(f);
	if (r == -EPIPE) {
		disconnect(f);
		return 0;
	}
	if (r)
		task_stop(f);
	return r;
}

static bool do_task(struct front *f)
{
	enum task task;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	task = f->task;
	pthread_mutex_unlock(&f->lock);
	if (task == START)
		r = task_start(f);
	else if (task == STOP)
		r = task_stop(f);
	else if (task == SET_CONFIG && f->sock >= 0)
		r = set_wce(f);
	pthread_mutex_lock(&f->lock);
	f->task = NOTHING;
	f->result = r;
	pthread_cond_broadcast(&f->done);
	pthread_mutex_unlock(&f->lock);
	return task != QUIT;
}

/* On another thread. */
static int give_task(struct front *f, enum task task)
{
	uint64_t one = 1;
	int r;

	pthread_mutex_lock(&f->lock);
	f->task = task;
	(void)!write(f->wake_fd, &one, sizeof(one));	/* an eventfd that is read takes it */
	while (f->task != NOTHING)
		pthread_cond_wait(&f->done, &f->lock);
	r = f->result;
	pthread_mutex_unlock(&f->lock);
	return r;
}

/* ---- the thread ---- */

/* The only thing that the process ever says by itself. */
static void hear_event(struct front *f)
{
	if (vhost_hear_config_change(f->ends.events[0]) < 0) {
		drop_fd(&f->ends.events[0]);
		return;
	}
	if (f->sock >= 0 && get_config(f) == 0 && f->config_changed)
		f->config_changed(f->arg);
}

static void hear_keeper(struct front *f)
{
	struct keeper_word word = { .says = KEEPER_NEW };
	int fd, r = keeper_hear(f->ends.channel, false, &word, &fd);

	if (r == -EAGAIN)
		return;
	if (r > 0 && word.says == KEEPER_FAILING)
		lose_disk(f);
	if (r > 0 && word.says <= KEEPER_FAILING && fd >= 0) {
		connected(f, fd, word.value);
		return;
	}
	drop_fd(&fd);
	if (r <= 0 || word.says == KEEPER_GONE) {
		drop_fd(&f->ends.channel);
		/* a process that still serves may do so */
		if (f->sock < 0 || r > 0)
			lose(f);
	}
}

static void serve_calls(struct front *f, const struct pollfd *fds)
{
	uint64_t n;

	for (unsigned i = 0; i < f->dev.n_queues; i++)
		if (fds[i].revents && read(f->call_fd[i], &n, sizeof(n)) == sizeof(n))
			fire(f, i);
}

static void *front_thread(void *arg)
{
	enum { WAKE, SOCK, CHANNEL, EVENTS, CALLS };
	struct pollfd fds[CALLS + BLK_QUEUES_MAX];
	struct front *f = arg;
	bool on = true;
	uint64_t n;

	if (f->confine)
		f->confine();
	while (on) {
		fds[WAKE] = (struct pollfd) { .fd = f->wake_fd, .events = POLLIN };
		/* nothing comes unasked: readable is closed */
		fds[SOCK] = (struct pollfd) { .fd = f->sock, .events = POLLIN | POLLRDHUP };
		fds[CHANNEL] = (struct pollfd) { .fd = f->ends.channel, .events = POLLIN };
		fds[EVENTS] = (struct pollfd) { .fd = f->ends.events[0], .events = POLLIN };
		for (unsigned i = 0; i < f->dev.n_queues; i++)
			fds[CALLS + i] = (struct pollfd) { .fd = f->call_fd[i], .events = POLLIN };
		if (poll(fds, CALLS + f->dev.n_queues, -1) < 0)
			continue;
		serve_calls(f, fds + CALLS);
		if (fds[SOCK].revents)
			disconnect(f);
		if (fds[CHANNEL].revents)
			hear_keeper(f);
		if (fds[EVENTS].revents)
			hear_event(f);
		if (fds[WAKE].revents && read(f->wake_fd, &n, sizeof(n)) == sizeof(n))
			on = do_task(f);
	}
	return NULL;
}

/* ---- the device ---- */

static int front_start(struct virtio_device *dev, const struct virtio_start *s)
{
	struct front *f = of(dev);

	/* the thread looks at none of this before it is told */
	f->mem = *s->mem;
	f->features = s->features;
	f->host = s->host;
	memcpy(f->queue, s->queue, dev->n_queues * sizeof(f->queue[0]));
	for (unsigned i = 0; i < dev->n_queues; i++)
		if (s->queue[i].size && (s->queue[i].size > dev->queue_size ||
					 !vd_is_pow2(s->queue[i].size)))
			return -EINVAL;
	return give_task(f, START);
}

static void front_stop(struct virtio_device *dev)
{
	give_task(of(dev), STOP);
}

static void front_config_read(struct virtio_device *dev, uint32_t off, void *buf, uint32_t len)
{
	struct front *f = of(dev);

	memset(buf, 0, len);
	if (off >= CONFIG_BYTES)
		return;
	pthread_mutex_lock(&f->lock);
	memcpy(buf, f->config + off, MIN(len, CONFIG_BYTES - off));
	pthread_mutex_unlock(&f->lock);
}

static void front_config_write(struct virtio_device *dev, uint32_t off, const void *buf,
			       uint32_t len)
{
	struct front *f = of(dev);

	if (off != CONFIG_WCE || len != 1)
		return;
	pthread_mutex_lock(&f->lock);
	f->config[CONFIG_WCE] = *(const uint8_t *)buf & 1;
	f->has_wce = true;
	pthread_mutex_unlock(&f->lock);
	give_task(f, SET_CONFIG);
}

static void front_free(struct virtio_device *dev)
{
	struct front *f = of(dev);

	if (f->has_thread) {
		give_task(f, QUIT);
		pthread_join(f->thread, NULL);
	}
	drop_fd(&f->sock);
	drop_fd(&f->ends.channel);
	drop_fd(&f->ends.events[0]);
	drop_fd(&f->ends.events[1]);
	drop_fd(&f->record_fd);
	drop_fd(&f->wake_fd);
	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++)
		drop_fd(&f->call_fd[i]);
	pthread_mutex_destroy(&f->lock);
	vhost_lines_destroy(&f->lines);
	pthread_cond_destroy(&f->done);
	free(f);
}

static const struct virtio_device_ops front_ops = {
	.start		= front_start,
	.stop		= front_stop,
	.config_read	= front_config_read,
	.config_write	= front_config_write,
	.free		= front_free,
};

/* It knows, and has lost its connection. */
static int begin_end(struct front *f, struct vdisk_error *err)
{
	if (f->has_thread) {
		give_task(f, QUIT);
		pthread_join(f->thread, NULL);
		f->has_thread = false;
	}
	if (f->ends.channel < 0 || f->lost)
		return vd_fail(err, EIO, "%s: its process is gone: what it held may not be on the disk",
			       f->name);
	/* first that, or its end would be taken for a death */
	if (keeper_tell_end(f->ends.channel) < 0)
		return vd_fail(err, EIO, "%s: nobody looks after its process any more", f->name);
	disconnect(f);
	f->ending = true;
	return 0;
}

int front_end(struct virtio_device *dev, int wait_ms, struct vdisk_error *err)
{
	struct front *f = of(dev);
	int r = f->ending ? 0 : begin_end(f, err);

	if (r < 0)
		return r;
	r = keeper_wait_end(f->ends.channel, wait_ms);
	if (r == 0 || r == -EAGAIN)
		return r;
	return vd_fail(err, EIO, "%s: its process could not write out all that it held", f->name);
}

/* ---- starting ---- */

static int first_connection(struct front *f, struct vdisk_error *err)
{
	struct keeper_word word = { .says = KEEPER_NEW };
	uint64_t features;
	int fd, r = keeper_hear(f->ends.channel, true, &word, &fd);

	if (r <= 0 || word.says != KEEPER_NEW || fd < 0) {
		drop_fd(&fd);
		return vd_fail(err, EIO, "%s: its process could not be started", f->name);
	}
	f->sock = fd;
	f->pid = word.value;
	r = greet(f, &features);
	if (r < 0)
		return vd_fail(err, -r, "%s: its process does not speak our language: %s", f->name,
			       strerror(-r));
	f->dev.features = features;
	return 0;
}

static int make_thread(struct front *f, struct vdisk_error *err)
{
	int r = 0;

	f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < f->dev.n_queues; i++) {
		f->call_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (f->call_fd[i] < 0)
			r = -errno;
	}
	if (!r && f->wake_fd >= 0)
		r = -pthread_create(&f->thread, NULL, front_thread, f);
	f->has_thread = !r;
	return r ? vd_fail(err, -r, "%s: cannot start a thread: %s", f->name, strerror(-r)) : 0;
}

int front_new(struct virtio_device **out, const struct front_options *o, struct vdisk_error *err)
{
	struct front *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return vd_fail(err, ENOMEM, "out of memory");
	f->dev = (struct virtio_device) {
		.ops = &front_ops, .id = 2, .n_queues = (uint16_t)o->queues,
		.queue_size = BLK_QUEUE_SIZE, .config_len = CONFIG_BYTES,
	};
	snprintf(f->name, sizeof(f->name), "%s", o->name);
	f->ends = o->ends;
	f->memory_fd = o->memory_fd;
	f->confine = o->confine;
	f->config_changed = o->config_changed;
	f->restarted = o->restarted;
	f->arg = o->arg;
	f->sock = f->record_fd = f->wake_fd = -1;
	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++)
		f->call_fd[i] = -1;
	pthread_mutex_init(&f->lock, NULL);
	vhost_lines_init(&f->lines, f->ends.control, f->name);
	f->ends.control = -1;
	pthread_cond_init(&f->done, NULL);
	r = first_connection(f, err);
	if (!r)
		r = make_thread(f, err);
	if (r < 0) {
		front_free(&f->dev);
		return r;
	}
	*out = &f->dev;
	return 0;
}

/* ---- what people ask ---- */

uint64_t front_bytes(struct virtio_device *dev)
{
	uint8_t sectors[8];

	front_config_read(dev, 0, sectors, sizeof(sectors));
	return load_le64(sectors) * 512;
}

bool front_read_only(struct virtio_device *dev)
{
	return dev->features & BIT(VIRTIO_BLK_F_RO);
}

pid_t front_pid(struct virtio_device *dev)
{
	struct front *f = of(dev);
	pid_t pid;

	pthread_mutex_lock(&f->lock);
	pid = f->pid;
	pthread_mutex_unlock(&f->lock);
	return pid;
}

bool front_lost(struct virtio_device *dev)
{
	struct front *f = of(dev);
	bool lost;

	pthread_mutex_lock(&f->lock);
	lost = f->lost;
	pthread_mutex_unlock(&f->lock);
	return lost;
}

unsigned front_restarts(struct virtio_device *dev)
{
	struct front *f = of(dev);
	unsigned n;

	pthread_mutex_lock(&f->lock);
	n = f->restarts;
	pthread_mutex_unlock(&f->lock);
	return n;
}

struct keeper_ends front_ends(struct virtio_device *dev)
{
	const struct front *f = of(dev);
	struct keeper_ends e = f->ends;

	e.control = f->lines.fd;
	return e;
}

int front_get_stats(struct virtio_device *dev, struct blk_stats *out)
{
	return vhost_lines_stats(&of(dev)->lines, out, NULL);
}

int front_set_limits(struct virtio_device *dev, const struct blk_limits *l,
		     struct vdisk_error *err)
{
	return vhost_lines_limit(&of(dev)->lines, l, err);
}

int front_resize(struct virtio_device *dev, uint64_t bytes, struct vdisk_error *err)
{
	return vhost_lines_resize(&of(dev)->lines, bytes, err);
}
