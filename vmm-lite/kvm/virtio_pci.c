/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio_pci.c - a virtio device on the PCI bus (virtio 1.2, 4.1), modern only
 *
 * One 32 KiB BAR: common configuration, ISR, device configuration, doorbells,
 * MSI-X table and pending bits, a page each.  Interrupts are messages only (no
 * INTx pin, hence no _PRT in the DSDT).  Each doorbell is an address of its
 * own, watched by KVM for a write of any length (ioeventfd), so a doorbell
 * never leaves the kernel.
 *
 * Locks: dev_lock guards the negotiation and is held while the device starts
 * and stops; msix_lock guards the vectors, and is what a device's threads
 * take.  msix_lock is innermost.  The status register is atomic, as a device
 * thread may set NEEDS_RESET at any time.
 */
#include "vmm-lite/kvm/virtio_pci.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/log.h"

#define BAR_SIZE	0x8000u
#define PAGE_COMMON	0x0000u
#define PAGE_ISR	0x1000u
#define PAGE_DEVICE	0x2000u
#define PAGE_NOTIFY	0x3000u
#define PAGE_MSIX	0x4000u
#define PAGE_PENDING	0x5000u
#define PAGE_SIZE	0x1000u
#define NOTIFY_STEP	4u

#define QUEUES_MAX	64u
#define VECTORS_MAX	(QUEUES_MAX + 1)
#define VECTOR_BYTES	16u
#define ISR_CONFIG	2u

struct vector {
	uint8_t entry[VECTOR_BYTES];	/* address, data, control: as the guest wrote it */
	bool pending;
	unsigned msi;
};

struct queue {
	struct virtq_setup setup;
	uint16_t vector;		/* under msix_lock */
	bool enabled;
};

struct virtio_pci {
	struct pci_device pci;
	struct virtio_device *dev;	/* borrowed */
	struct irq *irq;		/* borrowed */
	const struct guest_memory *mem;	/* borrowed */
	int vm_fd;			/* borrowed */
	unsigned msix_cap, cfg_cap;	/* where the capabilities are */
	uint64_t doorbell_gpa;		/* where the ioeventfds are; 0: nowhere */

	pthread_mutex_t dev_lock;
	uint32_t device_select, driver_select;
	uint16_t queue_select;
	uint64_t features;		/* the driver's */
	bool started;
	_Atomic uint8_t status;
	_Atomic uint8_t isr;
	_Atomic uint8_t generation;
	struct queue queue[QUEUES_MAX];

	pthread_mutex_t msix_lock;
	bool msix_on, msix_masked;
	uint16_t config_vector;
	unsigned n_msi;			/* vectors that have a message interrupt */
	struct vector vector[VECTORS_MAX];
};

static struct virtio_pci *of(struct pci_device *pci)
{
	return container_of(pci, struct virtio_pci, pci);
}

static unsigned n_vectors(const struct virtio_pci *v)
{
	return v->dev->n_queues + 1u;
}

/* ---- interrupts ---- */

static bool vector_masked(const struct vector *x)
{
	return x->entry[PCI_MSIX_ENTRY_VECTOR_CTRL] & PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

/* Under msix_lock. */
static void fire(struct virtio_pci *v, uint16_t n)
{
	if (n >= n_vectors(v) || !v->msix_on)
		return;
	if (v->msix_masked || vector_masked(&v->vector[n]))
		v->vector[n].pending = true;
	else
		irq_msi_fire(v->irq, v->vector[n].msi);
}

static void queue_interrupt(void *arg, unsigned queue)
{
	struct virtio_pci *v = arg;

	pthread_mutex_lock(&v->msix_lock);
	fire(v, v->queue[queue].vector);
	pthread_mutex_unlock(&v->msix_lock);
}

static void device_broken(void *arg)
{
	struct virtio_pci *v = arg;

	log_guest("virtio device %u: its driver broke the protocol; it is stopped until reset",
		  v->dev->id);
	atomic_fetch_or(&v->status, VIRTIO_CONFIG_S_NEEDS_RESET);
	atomic_fetch_or(&v->isr, ISR_CONFIG);
	pthread_mutex_lock(&v->msix_lock);
	fire(v, v->config_vector);
	pthread_mutex_unlock(&v->msix_lock);
}

static void config_changed(void *arg)
{
	struct virtio_pci *v = arg;

	atomic_fetch_add(&v->generation, 1);
	atomic_fetch_or(&v->isr, ISR_CONFIG);
	pthread_mutex_lock(&v->msix_lock);
	fire(v, v->config_vector);
	pthread_mutex_unlock(&v->msix_lock);
}

void virtio_pci_config_changed(struct pci_bus *bus, unsigned slot)
{
	struct virtio_pci *v;

	pthread_rwlock_rdlock(&bus->in_use);
	v = bus->slot[slot] ? of(bus->slot[slot]) : NULL;
	if (v)
		config_changed(v);
	pthread_rwlock_unlock(&bus->in_use);
}

/* A vector may have become deliverable: route it, and deliver what waits.  Under msix_lock. */
static void vector_update(struct virtio_pci *v, struct vector *x)
{
	int r;

	if (!v->msix_on || v->msix_masked || vector_masked(x))
		return;
	r = irq_msi_route(v->irq, x->msi, load_le64(x->entry), load_le32(x->entry + 8));
	if (r < 0)
		log_guest("virtio device %u: interrupt route: %s", v->dev->id, strerror(-r));
	if (!r && x->pending) {
		x->pending = false;
		irq_msi_fire(v->irq, x->msi);
	}
}

static void msix_control_written(struct virtio_pci *v)
{
	unsigned control = load_le16(v->pci.config + v->msix_cap + PCI_MSIX_FLAGS);

	pthread_mutex_lock(&v->msix_lock);
	v->msix_on = control & PCI_MSIX_FLAGS_ENABLE;
	v->msix_masked = control & PCI_MSIX_FLAGS_MASKALL;
	for (unsigned i = 0; i < n_vectors(v); i++)
		vector_update(v, &v->vector[i]);
	pthread_mutex_unlock(&v->msix_lock);
}

static void msix_table_read(struct virtio_pci *v, uint32_t off, uint8_t *buf, unsigned len)
{
	pthread_mutex_lock(&v->msix_lock);
	for (unsigned i = 0; i < len; i++) {
		unsigned n = (off + i) / VECTOR_BYTES;

		buf[i] = n < n_vectors(v) ? v->vector[n].entry[(off + i) % VECTOR_BYTES] : 0;
	}
	pthread_mutex_unlock(&v->msix_lock);
}

static void msix_table_write(struct virtio_pci *v, uint32_t off, const uint8_t *buf, unsigned len)
{
	unsigned n = off / VECTOR_BYTES;

	if (n >= n_vectors(v) || off % VECTOR_BYTES + len > VECTOR_BYTES)
		return;
	pthread_mutex_lock(&v->msix_lock);
	memcpy(v->vector[n].entry + off % VECTOR_BYTES, buf, len);
	vector_update(v, &v->vector[n]);
	pthread_mutex_unlock(&v->msix_lock);
}

static void pending_read(struct virtio_pci *v, uint32_t off, uint8_t *buf, unsigned len)
{
	memset(buf, 0, len);
	pthread_mutex_lock(&v->msix_lock);
	for (unsigned i = 0; i < n_vectors(v); i++)
		if (v->vector[i].pending && i / 8 >= off && i / 8 < off + len)
			buf[i / 8 - off] |= (uint8_t)(1u << i % 8);
	pthread_mutex_unlock(&v->msix_lock);
}

/* ---- doorbells ---- */

static void wire_doorbells(struct virtio_pci *v, uint64_t gpa, bool on)
{
	for (unsigned i = 0; i < v->dev->n_queues; i++) {
		struct kvm_ioeventfd e = {
			.addr = gpa + PAGE_NOTIFY + NOTIFY_STEP * i,
			.fd = v->queue[i].setup.kick_fd,
			.flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
		};

		/* without it the write exits to us, and rings the same descriptor */
		if (ioctl(v->vm_fd, KVM_IOEVENTFD, &e) < 0)
			log_info("doorbell %u: %m", i);
	}
}

static void bar_moved(struct pci_device *pci)
{
	struct virtio_pci *v = of(pci);

	if (v->dev->ops->kick)
		return;
	if (v->doorbell_gpa)
		wire_doorbells(v, v->doorbell_gpa, false);
	v->doorbell_gpa = pci->bar_gpa;
	if (v->doorbell_gpa)
		wire_doorbells(v, v->doorbell_gpa, true);
}

static void doorbell(struct virtio_pci *v, uint32_t off)
{
	unsigned i = off / NOTIFY_STEP;
	uint64_t one = 1;

	if (i >= v->dev->n_queues || !(v->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (v->dev->ops->kick) {
		pthread_mutex_lock(&v->dev_lock);
		if (v->started)
			v->dev->ops->kick(v->dev, i);
		pthread_mutex_unlock(&v->dev_lock);
	} else if (write(v->queue[i].setup.kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
		log_warnx("doorbell %u: %m", i);
	}
}

/* ---- the device's life (3.1) ---- */

static void device_start(struct virtio_pci *v)
{
	struct virtq_setup setup[QUEUES_MAX];
	struct virtio_start s = {
		.mem = v->mem, .features = v->features, .queue = setup,
		.host = { .interrupt = queue_interrupt, .broken = device_broken,
			  .config_changed = config_changed, .arg = v },
	};
	int r;

	for (unsigned i = 0; i < v->dev->n_queues; i++) {
		setup[i] = v->queue[i].setup;
		if (!v->queue[i].enabled)
			setup[i].size = 0;
	}
	r = v->dev->ops->start(v->dev, &s);
	if (r < 0)
		device_broken(v);
	else
		v->started = true;
}

/* Forget everything but where the doorbells and messages are. */
static void device_reset(struct virtio_pci *v)
{
	if (v->started)
		v->dev->ops->stop(v->dev);
	v->started = false;
	v->features = 0;
	v->device_select = v->driver_select = v->queue_select = 0;
	for (unsigned i = 0; i < v->dev->n_queues; i++) {
		v->queue[i].setup.size = v->dev->queue_size;
		v->queue[i].setup.desc = v->queue[i].setup.avail = v->queue[i].setup.used = 0;
		v->queue[i].enabled = false;
	}
	pthread_mutex_lock(&v->msix_lock);
	v->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (unsigned i = 0; i < v->dev->n_queues; i++)
		v->queue[i].vector = VIRTIO_MSI_NO_VECTOR;
	pthread_mutex_unlock(&v->msix_lock);
	atomic_store(&v->isr, 0);
	atomic_store(&v->status, 0);
}

/* 2.1.1: bits are only added; FEATURES_OK stays clear if we cannot agree (2.2.2) */
static void status_write(struct virtio_pci *v, uint8_t value)
{
	uint8_t old = v->status, added = (uint8_t)(value & ~old);

	if (!value) {
		device_reset(v);
		return;
	}
	if (added & VIRTIO_CONFIG_S_FEATURES_OK &&
	    (v->features & ~v->dev->features ||
	     !(v->features & UINT64_C(1) << VIRTIO_F_VERSION_1)))
		added &= (uint8_t)~(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	if (added & VIRTIO_CONFIG_S_DRIVER_OK &&
	    !((old | added) & VIRTIO_CONFIG_S_FEATURES_OK))
		added &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
	atomic_fetch_or(&v->status, added & ~VIRTIO_CONFIG_S_NEEDS_RESET);
	if (added & VIRTIO_CONFIG_S_DRIVER_OK)
		device_start(v);
}

/* ---- common configuration (4.1.4.3) ---- */

static uint32_t features_word(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> 32 * select) : 0;
}

static struct queue *selected(struct virtio_pci *v)
{
	return v->queue_select < v->dev->n_queues ? &v->queue[v->queue_select] : NULL;
}

static uint64_t queue_register(struct virtio_pci *v, uint32_t off)
{
	const struct queue *q = selected(v);

	if (!q)
		return 0;
	switch (off) {
	case VIRTIO_PCI_COMMON_Q_SIZE:		return q->setup.size;
	case VIRTIO_PCI_COMMON_Q_MSIX:		return q->vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:	return q->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:		return v->queue_select;
	case VIRTIO_PCI_COMMON_Q_DESCLO:	return (uint32_t)q->setup.desc;
	case VIRTIO_PCI_COMMON_Q_DESCHI:	return q->setup.desc >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:	return (uint32_t)q->setup.avail;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:	return q->setup.avail >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:	return (uint32_t)q->setup.used;
	case VIRTIO_PCI_COMMON_Q_USEDHI:	return q->setup.used >> 32;
	default:				return 0;
	}
}

static uint64_t common_register(struct virtio_pci *v, uint32_t off)
{
	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT:	return v->device_select;
	case VIRTIO_PCI_COMMON_DF:	return features_word(v->dev->features, v->device_select);
	case VIRTIO_PCI_COMMON_GFSELECT:	return v->driver_select;
	case VIRTIO_PCI_COMMON_GF:	return features_word(v->features, v->driver_select);
	case VIRTIO_PCI_COMMON_MSIX:		return v->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:		return v->dev->n_queues;
	case VIRTIO_PCI_COMMON_STATUS:		return v->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:	return v->generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:	return v->queue_select;
	default:				return queue_register(v, off);
	}
}

static void common_read(struct virtio_pci *v, uint32_t off, uint8_t *buf, unsigned len)
{
	uint8_t raw[8];

	pthread_mutex_lock(&v->dev_lock);
	store_le64(raw, common_register(v, off));
	pthread_mutex_unlock(&v->dev_lock);
	memcpy(buf, raw, len);
}

static void set_half(uint64_t *word, bool high, uint32_t value)
{
	if (high)
		*word = (*word & UINT32_MAX) | (uint64_t)value << 32;
	else
		*word = (*word & ~(uint64_t)UINT32_MAX) | value;
}

static void set_vector(struct virtio_pci *v, uint16_t *vector, uint32_t value)
{
	pthread_mutex_lock(&v->msix_lock);
	/* 4.1.5.1.2: one that cannot be used reads back as NO_VECTOR */
	*vector = value < n_vectors(v) ? (uint16_t)value : VIRTIO_MSI_NO_VECTOR;
	pthread_mutex_unlock(&v->msix_lock);
}

static void queue_register_write(struct virtio_pci *v, uint32_t off, uint32_t value)
{
	struct queue *q = selected(v);

	if (!q)
		return;
	if (off == VIRTIO_PCI_COMMON_Q_MSIX) {
		set_vector(v, &q->vector, value);
		return;
	}
	/* a queue in use stays as it is */
	if (q->enabled || v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		return;
	switch (off) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (vd_is_pow2(value) && value <= v->dev->queue_size)
			q->setup.size = (uint16_t)value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		q->enabled = value == 1;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_half(&q->setup.desc, off == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_half(&q->setup.avail, off == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_half(&q->setup.used, off == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	default:
		break;
	}
}

static void common_register_write(struct virtio_pci *v, uint32_t off, uint32_t value)
{
	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		v->device_select = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		v->driver_select = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		/* fixed once FEATURES_OK is set (3.1.1) */
		if (v->driver_select < 2 && !(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
			set_half(&v->features, v->driver_select, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		set_vector(v, &v->config_vector, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		status_write(v, (uint8_t)value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		v->queue_select = (uint16_t)value;
		break;
	default:
		queue_register_write(v, off, value);
	}
}

static void common_write(struct virtio_pci *v, uint32_t off, const uint8_t *buf, unsigned len)
{
	uint8_t raw[8] = { 0 };

	memcpy(raw, buf, len);
	pthread_mutex_lock(&v->dev_lock);
	common_register_write(v, off, load_le32(raw));
	if (len == 8)		/* the 64-bit registers may be written whole */
		common_register_write(v, off + 4, load_le32(raw + 4));
	pthread_mutex_unlock(&v->dev_lock);
}

/* ---- the BAR ---- */

static void bar_read(struct pci_device *pci, uint32_t off, void *buf, unsigned len)
{
	struct virtio_pci *v = of(pci);
	uint32_t in_page = off % PAGE_SIZE;

	memset(buf, 0, len);
	switch (off - in_page) {
	case PAGE_COMMON:
		common_read(v, in_page, buf, len);
		break;
	case PAGE_ISR:		/* reading clears (4.1.4.5) */
		if (!in_page)
			*(uint8_t *)buf = atomic_exchange(&v->isr, 0);
		break;
	case PAGE_DEVICE:
		v->dev->ops->config_read(v->dev, in_page, buf, len);
		break;
	case PAGE_MSIX:
		msix_table_read(v, in_page, buf, len);
		break;
	case PAGE_PENDING:
		pending_read(v, in_page, buf, len);
		break;
	default:
		break;
	}
}

static void bar_write(struct pci_device *pci, uint32_t off, const void *buf, unsigned len)
{
	struct virtio_pci *v = of(pci);
	uint32_t in_page = off % PAGE_SIZE;

	switch (off - in_page) {
	case PAGE_COMMON:
		common_write(v, in_page, buf, len);
		break;
	case PAGE_DEVICE:
		pthread_mutex_lock(&v->dev_lock);
		if (v->dev->ops->config_write)
			v->dev->ops->config_write(v->dev, in_page, buf, len);
		pthread_mutex_unlock(&v->dev_lock);
		break;
	case PAGE_NOTIFY:
		doorbell(v, in_page);
		break;
	case PAGE_MSIX:
		msix_table_write(v, in_page, buf, len);
		break;
	default:
		break;
	}
}

/* ---- configuration space ---- */

/*
 * 4.1.4.9: a window onto the BAR for code that cannot reach memory.  Valid
 * accesses are 1, 2 or 4 bytes, aligned, in the BAR.
 */
static bool window(const struct virtio_pci *v, unsigned off, uint32_t *bar_off, unsigned *len)
{
	const uint8_t *cap = v->pci.config + v->cfg_cap;

	*bar_off = load_le32(cap + 8);
	*len = load_le32(cap + 12);
	return off == v->cfg_cap + 16 && !cap[4] && (*len == 1 || *len == 2 || *len == 4) &&
	       *bar_off % *len == 0 && vd_in_range(*bar_off, *len, BAR_SIZE);
}

static void config_read(struct pci_device *pci, unsigned off, unsigned len)
{
	struct virtio_pci *v = of(pci);
	uint32_t bar_off;
	unsigned n;

	(void)len;
	if (window(v, off, &bar_off, &n))
		bar_read(pci, bar_off, pci->config + off, n);
}

static void config_written(struct pci_device *pci, unsigned off, unsigned len)
{
	struct virtio_pci *v = of(pci);
	uint32_t bar_off;
	unsigned n;

	if (off < v->msix_cap + 4 && off + len > v->msix_cap + 2)
		msix_control_written(v);
	if (window(v, off, &bar_off, &n))
		bar_write(pci, bar_off, pci->config + off, n);
}

static void add_virtio_cap(struct virtio_pci *v, uint8_t type, uint32_t off, uint32_t len,
			   unsigned extra)
{
	unsigned at = pci_add_capability(&v->pci, PCI_CAP_ID_VNDR, 16 + extra);
	uint8_t *c = v->pci.config + at;

	c[2] = (uint8_t)(16 + extra);
	c[3] = type;
	store_le32(c + 8, off);
	store_le32(c + 12, len);
	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		store_le32(c + 16, NOTIFY_STEP);
	if (type == VIRTIO_PCI_CAP_PCI_CFG) {
		v->cfg_cap = at;
		v->pci.writable[at + 4] = 0xff;
		memset(v->pci.writable + at + 8, 0xff, 12);
	}
}

static void add_msix(struct virtio_pci *v)
{
	uint8_t *c;

	v->msix_cap = pci_add_capability(&v->pci, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	c = v->pci.config + v->msix_cap;
	store_le16(c + PCI_MSIX_FLAGS, (uint16_t)(n_vectors(v) - 1));
	store_le32(c + PCI_MSIX_TABLE, PAGE_MSIX);
	store_le32(c + PCI_MSIX_PBA, PAGE_PENDING);
	store_le16(v->pci.writable + v->msix_cap + PCI_MSIX_FLAGS,
		   PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
}

static void virtio_pci_free(struct pci_device *pci)
{
	struct virtio_pci *v = of(pci);

	device_reset(v);
	for (unsigned i = 0; i < v->dev->n_queues; i++)
		if (v->queue[i].setup.kick_fd >= 0)
			close(v->queue[i].setup.kick_fd);
	for (unsigned i = 0; i < v->n_msi; i++)
		irq_msi_free(v->irq, v->vector[i].msi);
	pthread_mutex_destroy(&v->dev_lock);
	pthread_mutex_destroy(&v->msix_lock);
	free(v);
}

static const struct pci_ops virtio_pci_ops = {
	.bar_read	= bar_read,
	.bar_write	= bar_write,
	.bar_moved	= bar_moved,
	.config_read	= config_read,
	.config_written	= config_written,
	.free		= virtio_pci_free,
};

static int make_descriptors(struct virtio_pci *v, struct vdisk_error *err)
{
	for (unsigned i = 0; i < v->dev->n_queues; i++)
		v->queue[i].setup.kick_fd = -1;
	for (unsigned i = 0; i < v->dev->n_queues; i++) {
		v->queue[i].setup.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->queue[i].setup.kick_fd < 0)
			return vd_fail(err, errno, "eventfd: %m");
	}
	for (unsigned i = 0; i < n_vectors(v); i++) {
		int msi = irq_msi_new(v->irq);

		if (msi < 0)
			return vd_fail(err, -msi, "message interrupt: %s", strerror(-msi));
		v->vector[i].msi = (unsigned)msi;
		v->n_msi++;
		v->vector[i].entry[PCI_MSIX_ENTRY_VECTOR_CTRL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
	return 0;
}

static uint32_t class_code(const struct virtio_device *dev)
{
	switch (dev->id) {
	case VIRTIO_ID_NET:	return 0x020000;
	case VIRTIO_ID_BLOCK:	return 0x018000;
	case VIRTIO_ID_CONSOLE:	return 0x078000;
	default:		return 0x00ff00;
	}
}

int virtio_pci_plug(struct pci_bus *bus, struct virtio_device *dev, struct irq *irq,
		    const struct guest_memory *mem, int vm_fd, struct vdisk_error *err)
{
	struct pci_id id = {
		.vendor = 0x1af4, .device = (uint16_t)(0x1040 + dev->id), .sub_vendor = 0x1af4,
		.sub_device = 0x1100, .revision = 1,
		.class_code = class_code(dev),
	};
	struct virtio_pci *v;
	int r;

	if (dev->n_queues > QUEUES_MAX)
		return vd_fail(err, EINVAL, "virtio device with %u queues", dev->n_queues);
	v = calloc(1, sizeof(*v));
	if (!v)
		return vd_fail(err, ENOMEM, "out of memory");
	v->dev = dev;
	v->irq = irq;
	v->mem = mem;
	v->vm_fd = vm_fd;
	pthread_mutex_init(&v->dev_lock, NULL);
	pthread_mutex_init(&v->msix_lock, NULL);
	pci_device_init(&v->pci, &virtio_pci_ops, &id);
	pci_add_bar(&v->pci, BAR_SIZE);
	add_virtio_cap(v, VIRTIO_PCI_CAP_COMMON_CFG, PAGE_COMMON, 64, 0);
	add_virtio_cap(v, VIRTIO_PCI_CAP_ISR_CFG, PAGE_ISR, 4, 0);
	add_virtio_cap(v, VIRTIO_PCI_CAP_DEVICE_CFG, PAGE_DEVICE, MAX(dev->config_len, 4u), 0);
	add_virtio_cap(v, VIRTIO_PCI_CAP_NOTIFY_CFG, PAGE_NOTIFY, NOTIFY_STEP * dev->n_queues, 4);
	add_virtio_cap(v, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 4);
	add_msix(v);
	r = make_descriptors(v, err);
	if (!r) {
		device_reset(v);
		r = pci_plug(bus, &v->pci);
		if (r < 0)
			vd_fail(err, -r, "no free PCI slot");
	}
	if (r < 0)
		virtio_pci_free(&v->pci);
	return r;
}
