/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * session.c - one vhost-user front end
 *
 * A ring runs from the moment that all of the following are known, until one of
 * them is taken away: its size and addresses, a kick descriptor, "enabled" (which
 * a front end without protocol features never says), and features and memory for
 * all of them.  Every message changes one of these; sync_rings() then starts and
 * stops what has to be.  Memory and features change only while no ring runs: the
 * rings are stopped, drained, and started again where they were.
 *
 * The front end is not trusted with more than its own memory:
 *   (1) nothing of a message is used before msg.c has judged its shape;
 *   (2) regions are bounded in number, must lie within their file, must not
 *       overlap, and are files in memory or on disk, not devices;
 *   (3) what a descriptor may be is checked: doorbells are eventfds, pipes or sockets,
 *       made non-blocking, so that no thread of ours ever waits in one;
 *   (4) the shared record of requests in flight is bounded by what was asked.
 */
#include "vmm-lite/vhost/session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/log.h"
#include "vmm-lite/vhost/wire.h"

#define BIT(n)		(UINT64_C(1) << (n))
#define HUGE_BYTES	(UINT64_C(1) << 30)	/* the largest page a file may have */
#define RECORD_ALIGN	64u

#define PROTOCOL_FEATURES \
	(BIT(VHOST_F_MQ) | BIT(VHOST_F_REPLY_ACK) | BIT(VHOST_F_BACKEND_REQ) | \
	 BIT(VHOST_F_CONFIG) | BIT(VHOST_F_INFLIGHT_SHMFD) | BIT(VHOST_F_CONFIGURE_MEM_SLOTS))

struct region {
	struct vhost_region r;
	uint8_t *map;		/* owned: from the file's beginning, for huge pages */
	size_t map_len;
};

struct ring {
	uint16_t size, base;
	uint64_t desc, avail, used;	/* the front end's addresses */
	bool has_addr, has_kick, enabled, running;
	int kick_fd;			/* owned; -1 with has_kick: look without being rung */
	pthread_mutex_t lock;		/* guards what follows; held for a write(2) */
	int call_fd, err_fd;		/* owned */
};

struct vhost_session {
	struct virtio_device *dev;	/* borrowed */
	uint64_t features, protocol;	/* agreed */
	bool has_features, started;
	unsigned n_regions;
	struct region region[GUEST_REGIONS_MAX];
	struct guest_memory mem;	/* the same, as the device sees it */
	uint8_t *record;		/* owned: of all rings in flight; or NULL */
	size_t record_len;		/* mapped */
	uint32_t record_each;
	uint16_t record_rings, record_size;
	int record_fd;			/* owned: ours, from GET_INFLIGHT_FD */
	int backend_fd;			/* owned: our requests to the front end */
	unsigned n_rings;
	struct ring ring[];
};

static void drop_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- the device's callbacks ---- */

static void signal_fd(struct ring *r, const int *fd)
{
	uint64_t one = 1;

	pthread_mutex_lock(&r->lock);
	/* a full pipe has been rung already, one without a reader does not hear */
	if (*fd >= 0 && write(*fd, &one, sizeof(one)) < 0 && errno == EBADF)
		errno = 0;
	pthread_mutex_unlock(&r->lock);
}

static void on_interrupt(void *arg, unsigned queue)
{
	struct vhost_session *s = arg;

	signal_fd(&s->ring[queue], &s->ring[queue].call_fd);
}

static void on_broken(void *arg)
{
	struct vhost_session *s = arg;

	for (unsigned i = 0; i < s->n_rings; i++)
		signal_fd(&s->ring[i], &s->ring[i].err_fd);
}

/* ---- rings ---- */

/* The front end's address as a guest address; UINT64_MAX if it is in no region. */
static uint64_t guest_address(const struct vhost_session *s, uint64_t user)
{
	for (unsigned i = 0; i < s->n_regions; i++) {
		const struct vhost_region *r = &s->region[i].r;

		if (user >= r->user && user - r->user < r->size)
			return r->gpa + (user - r->user);
	}
	return UINT64_MAX;
}

/* A record belongs to a ring if it was made for one of its size or larger. */
static uint8_t *ring_record(const struct vhost_session *s, unsigned i)
{
	if (!s->record || i >= s->record_rings || s->ring[i].size > s->record_size)
		return NULL;
	return s->record + (size_t)s->record_each * i;
}

static int start_ring(struct vhost_session *s, unsigned i)
{
	struct ring *r = &s->ring[i];
	struct virtq_setup setup = {
		.size = r->size, .kick_fd = r->kick_fd, .resume = true, .next_avail = r->base,
		.desc = guest_address(s, r->desc), .avail = guest_address(s, r->avail),
		.used = guest_address(s, r->used), .record = ring_record(s, i),
	};
	int ret = s->dev->ops->queue_start(s->dev, i, &setup);

	r->running = !ret;
	return ret;
}

static void stop_ring(struct vhost_session *s, unsigned i)
{
	struct ring *r = &s->ring[i];

	if (!r->running)
		return;
	r->base = s->dev->ops->queue_stop(s->dev, i);
	r->running = false;
}

static bool wanted(const struct vhost_session *s, const struct ring *r)
{
	bool enabled = r->enabled || !(s->features & BIT(VHOST_USER_F_PROTOCOL_FEATURES));

	return s->has_features && s->n_regions && r->size && r->has_addr && r->has_kick && enabled;
}

/* With no ring running: what the device gets to know besides its rings. */
static int start_device(struct vhost_session *s)
{
	struct virtq_setup none[64] = { 0 };
	struct virtio_start start = {
		.mem = &s->mem, .features = s->features & s->dev->features, .queue = none,
		.host = { .interrupt = on_interrupt, .broken = on_broken, .arg = s },
	};
	int r;

	if (s->n_rings > ARRAY_SIZE(none))
		return -EINVAL;
	for (unsigned i = 0; i < s->n_rings; i++)
		none[i].kick_fd = -1;
	r = s->dev->ops->start(s->dev, &start);
	s->started = !r;
	return r;
}

static int sync_rings(struct vhost_session *s)
{
	int r = 0;

	for (unsigned i = 0; i < s->n_rings; i++)
		if (s->ring[i].running && !wanted(s, &s->ring[i]))
			stop_ring(s, i);
	for (unsigned i = 0; !r && i < s->n_rings; i++) {
		if (s->ring[i].running || !wanted(s, &s->ring[i]))
			continue;
		if (!s->started)
			r = start_device(s);
		if (!r)
			r = start_ring(s, i);
	}
	return r;
}

/* Before features or memory change; sync_rings() goes on afterwards. */
static void stop_all(struct vhost_session *s)
{
	for (unsigned i = 0; i < s->n_rings; i++)
		stop_ring(s, i);
	s->started = false;
}

/* ---- memory ---- */

static void unmap_region(struct region *r)
{
	if (r->map)
		munmap(r->map, r->map_len);
	r->map = NULL;
}

/* The device's view, after every change. */
static void publish_regions(struct vhost_session *s)
{
	s->mem.n = 0;
	for (unsigned i = 0; i < s->n_regions; i++)
		s->mem.region[s->mem.n++] = (struct guest_region) {
			.gpa = s->region[i].r.gpa, .size = s->region[i].r.size,
			.host = s->region[i].map + s->region[i].r.offset,
		};
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static bool fits_in(const struct vhost_session *s, const struct vhost_region *n)
{
	for (unsigned i = 0; i < s->n_regions; i++) {
		const struct vhost_region *r = &s->region[i].r;

		if (overlap(r->gpa, r->size, n->gpa, n->size) ||
		    overlap(r->user, r->size, n->user, n->size))
			return false;
	}
	return s->n_regions < GUEST_REGIONS_MAX;
}

/*
 * From the file's beginning: a huge-page file refuses other offsets, and an
 * offset in the middle of a page need not be judged.  Address space is free.
 */
static int map_region(struct vhost_session *s, const struct vhost_region *n, int fd)
{
	struct region *r = &s->region[s->n_regions];
	struct stat st;
	uint64_t len = n->offset + n->size;
	uint64_t page;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || len > (uint64_t)st.st_size ||
	    !fits_in(s, n))
		return -EINVAL;
	page = (uint64_t)st.st_blksize;	/* of a huge-page file: its pages */
	if (!vd_is_pow2(page) || page > HUGE_BYTES)
		page = 4096;
	len = vd_align_up(len, page);
	r->map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (r->map == MAP_FAILED) {
		r->map = NULL;
		return -errno;
	}
	madvise(r->map, len, MADV_DONTDUMP);
	r->map_len = len;
	r->r = *n;
	s->n_regions++;
	publish_regions(s);
	return 0;
}

static int set_mem_table(struct vhost_session *s, const struct vhost_msg *m, const int *fds,
			 unsigned n_fds)
{
	int r = 0;

	if (m->mem.n != n_fds)
		return -EPROTO;
	stop_all(s);
	for (unsigned i = 0; i < s->n_regions; i++)
		unmap_region(&s->region[i]);
	s->n_regions = 0;
	publish_regions(s);
	for (unsigned i = 0; !r && i < m->mem.n; i++)
		r = map_region(s, &m->mem.region[i], fds[i]);
	return r ? r : sync_rings(s);
}

static int add_region(struct vhost_session *s, const struct vhost_msg *m, const int *fds,
		      unsigned n_fds)
{
	int r;

	if (n_fds != 1)
		return -EPROTO;
	stop_all(s);
	r = map_region(s, &m->mem.region[0], fds[0]);
	return r ? r : sync_rings(s);
}

static int remove_region(struct vhost_session *s, const struct vhost_msg *m)
{
	const struct vhost_region *gone = &m->mem.region[0];

	for (unsigned i = 0; i < s->n_regions; i++) {
		const struct vhost_region *r = &s->region[i].r;

		if (r->gpa != gone->gpa || r->size != gone->size || r->user != gone->user)
			continue;
		stop_all(s);
		unmap_region(&s->region[i]);
		s->region[i] = s->region[--s->n_regions];
		s->region[s->n_regions] = (struct region) { 0 };
		publish_regions(s);
		return sync_rings(s);
	}
	return -EINVAL;
}

/* ---- the record of requests in flight ---- */

static void drop_record(struct vhost_session *s)
{
	if (s->record)
		munmap(s->record, s->record_len);
	s->record = NULL;
	drop_fd(&s->record_fd);
}

static uint32_t record_each(uint16_t queue_size)
{
	return (uint32_t)vd_align_up(virtq_record_bytes(queue_size), RECORD_ALIGN);
}

static int map_record(struct vhost_session *s, int fd, const struct vhost_msg *m)
{
	uint32_t each = record_each(m->inflight.queue_size);
	uint64_t len = (uint64_t)each * m->inflight.queues;
	uint8_t *map;
	struct stat st;

	if (!m->inflight.queues || m->inflight.queues > s->n_rings || !m->inflight.queue_size ||
	    m->inflight.queue_size > VIRTQ_SIZE_MAX || m->inflight.size < len)
		return -EINVAL;
	if (m->inflight.offset || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size < len)
		return -EINVAL;
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	stop_all(s);
	drop_record(s);
	s->record = map;
	s->record_len = len;
	s->record_each = each;
	s->record_rings = m->inflight.queues;
	s->record_size = m->inflight.queue_size;
	return 0;
}

static int new_record(struct vhost_session *s, const struct vhost_msg *m)
{
	struct vhost_msg sized = *m;
	AUTO_CLOSE int fd = memfd_create("vdisk-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	sized.inflight.size = (uint64_t)record_each(m->inflight.queue_size) * m->inflight.queues;
	sized.inflight.offset = 0;
	if (fd < 0 || ftruncate(fd, (off_t)sized.inflight.size) < 0)
		return -errno;
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	r = map_record(s, fd, &sized);
	if (r < 0)
		return r;
	s->record_fd = STEAL_FD(fd);
	return 0;
}

/* ---- answers ---- */

static uint8_t *answer_with(struct vhost_answer *a, uint32_t request, uint32_t len)
{
	a->len = VHOST_HEADER_BYTES + len;
	put32(a->bytes, request);
	put32(a->bytes + 4, VHOST_VERSION | VHOST_REPLY);
	put32(a->bytes + 8, len);
	memset(a->bytes + VHOST_HEADER_BYTES, 0, len);
	return a->bytes + VHOST_HEADER_BYTES;
}

static void answer_u64(struct vhost_answer *a, const struct vhost_msg *m, uint64_t v)
{
	put64(answer_with(a, m->request, 8), v);
}

static void answer_config(struct vhost_session *s, const struct vhost_msg *m,
			  struct vhost_answer *a)
{
	/* as much as was asked for: what there is, and zeroes */
	uint8_t *p = answer_with(a, m->request, VHOST_CONFIG_HEADER + m->config.size);

	put32(p, m->config.offset);
	put32(p + 4, m->config.size);
	s->dev->ops->config_read(s->dev, m->config.offset, p + VHOST_CONFIG_HEADER, m->config.size);
}

static int answer_inflight(struct vhost_session *s, const struct vhost_msg *m,
			   struct vhost_answer *a)
{
	int r = new_record(s, m);
	uint8_t *p = answer_with(a, m->request, 24);
	uint16_t queues = m->inflight.queues, size = m->inflight.queue_size;

	if (r < 0)	/* a size of 0 says that there is none */
		return 0;
	put64(p, s->record_len);
	memcpy(p + 16, &queues, sizeof(queues));
	memcpy(p + 18, &size, sizeof(size));
	a->fd = s->record_fd;
	return sync_rings(s);
}

static void answer_base(struct vhost_session *s, const struct vhost_msg *m, struct ring *r,
			struct vhost_answer *a)
{
	uint8_t *p = answer_with(a, m->request, 8);

	stop_ring(s, m->vring.index);
	r->has_kick = false;	/* it starts again with a new one */
	drop_fd(&r->kick_fd);
	put32(p, m->vring.index);
	put32(p + 4, r->base);
}

/* ---- messages ---- */

/* A doorbell's descriptor: an eventfd (anonymous), a pipe or (UML) a socket. */
static int take_doorbell(const struct vhost_msg *m, const int *fds, unsigned n_fds, int *out)
{
	struct stat st;
	int flags;

	*out = -1;
	if (n_fds != m->vring.has_fd)
		return -EPROTO;
	if (!m->vring.has_fd)
		return 0;
	if (fstat(fds[0], &st) < 0 ||
	    (st.st_mode & S_IFMT && !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)))
		return -EINVAL;
	flags = fcntl(fds[0], F_GETFL);
	if (flags < 0 || fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) < 0)
		return -EINVAL;
	*out = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
	return *out < 0 ? -errno : 0;
}

static void replace_doorbell(struct ring *r, int *place, int fd)
{
	pthread_mutex_lock(&r->lock);
	drop_fd(place);
	*place = fd;
	pthread_mutex_unlock(&r->lock);
}

static int ring_doorbell(struct vhost_session *s, const struct vhost_msg *m, struct ring *r,
			 const int *fds, unsigned n_fds)
{
	int fd, ret = take_doorbell(m, fds, n_fds, &fd);

	if (ret < 0)
		return ret;
	if (m->request == VHOST_SET_VRING_CALL) {
		replace_doorbell(r, &r->call_fd, fd);
		/* what was published under the old one may not have been heard */
		if (fd >= 0 && r->running)
			signal_fd(r, &r->call_fd);
		return 0;
	}
	if (m->request == VHOST_SET_VRING_ERR) {
		replace_doorbell(r, &r->err_fd, fd);
		return 0;
	}
	stop_ring(s, m->vring.index);
	drop_fd(&r->kick_fd);
	r->kick_fd = fd;
	r->has_kick = true;
	return sync_rings(s);
}

static int ring_message(struct vhost_session *s, const struct vhost_msg *m, const int *fds,
			unsigned n_fds, struct vhost_answer *a)
{
	struct ring *r;

	if (m->vring.index >= s->n_rings)
		return -EINVAL;
	r = &s->ring[m->vring.index];
	switch (m->request) {
	case VHOST_SET_VRING_NUM:
		if (m->vring.num > s->dev->queue_size || !vd_is_pow2(m->vring.num))
			return -EINVAL;
		stop_ring(s, m->vring.index);
		r->size = (uint16_t)m->vring.num;
		return sync_rings(s);
	case VHOST_SET_VRING_BASE:
		stop_ring(s, m->vring.index);
		r->base = (uint16_t)m->vring.num;
		return sync_rings(s);
	case VHOST_SET_VRING_ADDR:
		stop_ring(s, m->vring.index);
		r->desc = m->vring.desc;
		r->avail = m->vring.avail;
		r->used = m->vring.used;
		r->has_addr = true;
		return sync_rings(s);
	case VHOST_SET_VRING_ENABLE:
		r->enabled = m->vring.num;
		return sync_rings(s);
	case VHOST_GET_VRING_BASE:
		answer_base(s, m, r, a);
		return 0;
	default:
		return ring_doorbell(s, m, r, fds, n_fds);
	}
}

static int set_features(struct vhost_session *s, uint64_t features)
{
	if (features & ~(s->dev->features | BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		return -EINVAL;
	if (features != s->features || !s->has_features)
		stop_all(s);
	s->features = features;
	s->has_features = true;
	return sync_rings(s);
}

static int set_backend_fd(struct vhost_session *s, const int *fds, unsigned n_fds)
{
	struct stat st;

	if (n_fds != 1 || fstat(fds[0], &st) < 0 || !S_ISSOCK(st.st_mode))
		return -EPROTO;
	drop_fd(&s->backend_fd);
	s->backend_fd = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
	return s->backend_fd < 0 ? -errno : 0;
}

static int set_config(struct vhost_session *s, const struct vhost_msg *m)
{
	if (s->dev->ops->config_write)
		s->dev->ops->config_write(s->dev, m->config.offset, m->config.bytes, m->config.size);
	return 0;
}

static int set_inflight(struct vhost_session *s, const struct vhost_msg *m, const int *fds,
			unsigned n_fds)
{
	int r = n_fds == 1 ? map_record(s, fds[0], m) : -EPROTO;

	return r ? r : sync_rings(s);
}

static int dispatch(struct vhost_session *s, const struct vhost_msg *m, const int *fds,
		    unsigned n_fds, struct vhost_answer *a)
{
	switch (m->request) {
	case VHOST_GET_FEATURES:
		answer_u64(a, m, s->dev->features | BIT(VHOST_USER_F_PROTOCOL_FEATURES));
		return 0;
	case VHOST_SET_FEATURES:
		return set_features(s, m->u64);
	case VHOST_SET_OWNER:
	case VHOST_RESET_OWNER:
		return 0;
	case VHOST_GET_PROTOCOL_FEATURES:
		answer_u64(a, m, PROTOCOL_FEATURES);
		return 0;
	case VHOST_SET_PROTOCOL_FEATURES:
		s->protocol = m->u64 & PROTOCOL_FEATURES;
		return m->u64 & ~PROTOCOL_FEATURES ? -EINVAL : 0;
	case VHOST_GET_QUEUE_NUM:
		answer_u64(a, m, s->n_rings);
		return 0;
	case VHOST_GET_MAX_MEM_SLOTS:
		answer_u64(a, m, GUEST_REGIONS_MAX);
		return 0;
	case VHOST_SET_MEM_TABLE:
		return set_mem_table(s, m, fds, n_fds);
	case VHOST_ADD_MEM_REG:
		return add_region(s, m, fds, n_fds);
	case VHOST_REM_MEM_REG:
		return remove_region(s, m);
	case VHOST_SET_BACKEND_REQ_FD:
		return set_backend_fd(s, fds, n_fds);
	case VHOST_GET_CONFIG:
		answer_config(s, m, a);
		return 0;
	case VHOST_SET_CONFIG:
		return set_config(s, m);
	case VHOST_GET_INFLIGHT_FD:
		return answer_inflight(s, m, a);
	case VHOST_SET_INFLIGHT_FD:
		return set_inflight(s, m, fds, n_fds);
	default:
		return ring_message(s, m, fds, n_fds, a);
	}
}

int vhost_session_message(struct vhost_session *s, const struct vhost_header *h,
			  const uint8_t *payload, const int *fds, unsigned n_fds,
			  struct vhost_answer *answer)
{
	struct vhost_msg m;
	int r = vhost_decode(&m, h, payload);

	answer->len = 0;
	answer->fd = -1;
	if (!r)
		r = dispatch(s, &m, fds, n_fds, answer);
	for (unsigned i = 0; i < n_fds; i++)
		close(fds[i]);
	if (r < 0)
		log_guest("request %u of the front end is refused: %s", h->request, strerror(-r));
	if (answer->len)
		return r;
	/* refusing is an answer where the front end waits for one */
	if (h->need_reply && s->protocol & BIT(VHOST_F_REPLY_ACK)) {
		put64(answer_with(answer, h->request, 8), r < 0);
		return r == -EPROTO ? r : 0;
	}
	return r;
}

void vhost_session_config_changed(struct vhost_session *s)
{
	uint8_t header[VHOST_HEADER_BYTES];

	if (s->backend_fd < 0 || !(s->protocol & BIT(VHOST_F_BACKEND_REQ)))
		return;
	put32(header, VHOST_BACKEND_CONFIG_CHANGE);
	put32(header + 4, VHOST_VERSION);
	put32(header + 8, 0);
	/* one that does not read its messages misses this one */
	if (send(s->backend_fd, header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		drop_fd(&s->backend_fd);
}

bool vhost_session_patch_memory(struct vhost_session *s, const void *addr)
{
	const uint8_t *p = addr;

	for (unsigned i = 0; i < s->n_regions; i++) {
		struct region *r = &s->region[i];

		if (p >= r->map && p < r->map + r->map_len)
			return mmap(r->map, r->map_len, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
				    0) != MAP_FAILED;
	}
	if (s->record && p >= s->record && p < s->record + s->record_len)
		return mmap(s->record, s->record_len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
	return false;
}

int vhost_session_new(struct vhost_session **out, struct virtio_device *dev)
{
	struct vhost_session *s = calloc(1, sizeof(*s) + dev->n_queues * sizeof(s->ring[0]));

	if (!s)
		return -ENOMEM;
	s->dev = dev;
	s->record_fd = s->backend_fd = -1;
	s->n_rings = dev->n_queues;
	for (unsigned i = 0; i < s->n_rings; i++) {
		struct ring *r = &s->ring[i];

		r->kick_fd = r->call_fd = r->err_fd = -1;
		pthread_mutex_init(&r->lock, NULL);
	}
	*out = s;
	return 0;
}

void vhost_session_free(struct vhost_session *s)
{
	if (!s)
		return;
	stop_all(s);
	s->dev->ops->stop(s->dev);
	for (unsigned i = 0; i < s->n_rings; i++) {
		struct ring *r = &s->ring[i];

		drop_fd(&r->kick_fd);
		drop_fd(&r->call_fd);
		drop_fd(&r->err_fd);
		pthread_mutex_destroy(&r->lock);
	}
	for (unsigned i = 0; i < s->n_regions; i++)
		unmap_region(&s->region[i]);
	drop_record(s);
	drop_fd(&s->backend_fd);
	free(s);
}
