/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * machine.c - one guest: memory, processors, interrupts, buses, power
 *
 * A thread for each vCPU runs the guest and serves its port and memory
 * accesses; devices have locks of their own.  The first event that ends the
 * guest (power-off, reset, panic, triple fault, an error) is latched, and the
 * descriptor that machine_end_fd() gave becomes readable; the vCPUs are
 * stopped in machine_free(), by a signal that makes KVM_RUN return.
 *
 * There is no PIC to speak of, no PIT, no keyboard controller and no clock
 * chip: the ACPI tables say so.  Ports that nothing answers read as ones, but
 * the keyboard controller's status reads as zero, or a kernel that resets
 * through it would wait 65,536 reads for "not busy".
 */
#include "vmm-lite/kvm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/kvm/cpu.h"
#include "vmm-lite/kvm/events.h"
#include "vmm-lite/kvm/irq.h"
#include "vmm-lite/kvm/layout.h"
#include "vmm-lite/kvm/pci.h"
#include "vmm-lite/kvm/virtio_pci.h"
#include "vmm-lite/log.h"

#define STOP_SIGNAL	SIGUSR1

/* linux/kvm.h has it in terms of the kernel's own PAGE_SIZE */
#define COALESCED_MAX	((4096u - (uint32_t)sizeof(struct kvm_coalesced_mmio_ring)) / \
			 (uint32_t)sizeof(struct kvm_coalesced_mmio))

struct vcpu {
	struct machine *m;
	unsigned id;
	int fd;			/* owned */
	struct kvm_run *run;	/* owned: a mapping */
	pthread_t thread;
	bool running;
	struct machine_stats stats;
};

struct machine {
	int kvm_fd;		/* borrowed */
	int vm_fd;		/* owned */
	int end_fd;		/* owned: eventfd */
	_Atomic int end;	/* enum vmm_end */
	_Atomic bool stopping;
	struct machine_config config;
	struct irq irq;
	bool irq_ready;
	struct pci_bus pci;
	struct events events;
	pthread_mutex_t slot_lock;	/* guards slot[] */
	struct virtio_device *slot[PCI_SLOTS];	/* borrowed */
	/* where KVM leaves writes that need no exit, in vcpu[0].run; NULL: nowhere */
	struct kvm_coalesced_mmio_ring *coalesced;
	pthread_mutex_t coalesced_lock;		/* guards coalesced->first */
	size_t run_size;
	unsigned n_vcpus;
	struct vcpu vcpu[VCPUS_MAX];
};

/* ---- KVM ---- */

/* Does the processor say that it can run guests? */
static bool cpu_can_virtualize(void)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	AUTO_FREE char *line = NULL;
	size_t size = 0;
	bool found = false;

	if (!f)
		return true;	/* nothing is known against it */
	while (!found && getline(&line, &size, f) > 0)
		if (!strncmp(line, "flags", 5))
			found = strstr(line, " vmx") || strstr(line, " svm");
	fclose(f);
	return found;
}

int kvm_open(int *out, int passed, bool force, struct vdisk_error *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{ KVM_CAP_IRQCHIP, "in-kernel interrupt controllers" },
		{ KVM_CAP_USER_MEMORY, "user memory" },
		{ KVM_CAP_EXT_CPUID, "CPUID" },
		{ KVM_CAP_IRQ_ROUTING, "interrupt routing" },
		{ KVM_CAP_IRQFD, "irqfd" },
		{ KVM_CAP_SIGNAL_MSI, "message interrupts" },
		{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
	};
	AUTO_CLOSE int fd = passed >= 0 ? passed : open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return vd_fail(err, EACCES, "/dev/kvm: no permission; is this user in the group kvm?");
	if (fd < 0)
		return vd_fail(err, ENODEV, "there is no KVM here: /dev/kvm: %m");
	if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return vd_fail(err, ENOTSUP, "/dev/kvm speaks another version than %d",
			       KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return vd_fail(err, ENOTSUP, "this machine's KVM lacks %s", needed[i].name);
	if (!force && !cpu_can_virtualize())
		return vd_fail(err, ENOTSUP, "/dev/kvm exists, but this processor has neither VMX nor "
			       "SVM: it is a software KVM that cannot run ordinary guests (--force "
			       "tries anyway)");
	*out = STEAL_FD(fd);
	return 0;
}

/* ---- how a guest ends ---- */

static void end_guest(struct machine *m, enum vmm_end why)
{
	int running = VMM_RUNNING;
	uint64_t one = 1;

	if (!atomic_compare_exchange_strong(&m->end, &running, (int)why))
		return;
	if (write(m->end_fd, &one, sizeof(one)) < 0)
		log_warnx("eventfd: %m");
}

/* ---- ports ---- */

static void power_write(struct machine *m, uint8_t v)
{
	if (v == POWER_RESET)
		end_guest(m, VMM_REBOOT);
	else if (v == (POWER_SLP_EN | POWER_SLP_TYP(POWER_S5)))
		end_guest(m, VMM_POWER_OFF);
}

static void port_read(struct machine *m, unsigned port, uint8_t *buf, unsigned len)
{
	memset(buf, 0xff, len);
	if (port - PORT_SERIAL < 8)
		*buf = serial_read(m->config.serial, port - PORT_SERIAL);
	else if (port - PORT_PCI_ADDRESS < 8)
		pci_port_read(&m->pci, port - PORT_PCI_ADDRESS, buf, len);
	else if (port - PORT_EVENTS < 16)
		events_read(&m->events, port - PORT_EVENTS, buf, len);
	else if (port == PORT_PVPANIC)
		*buf = 3;		/* events: panicked, crash kernel loaded */
	else if (port == PORT_I8042 || port == PORT_SLEEP_STATUS)
		*buf = 0;
}

static void port_write(struct machine *m, unsigned port, const uint8_t *buf, unsigned len)
{
	if (port - PORT_SERIAL < 8)
		serial_write(m->config.serial, port - PORT_SERIAL, *buf);
	else if (port - PORT_PCI_ADDRESS < 8)
		pci_port_write(&m->pci, port - PORT_PCI_ADDRESS, buf, len);
	else if (port == PORT_POWER)
		power_write(m, *buf);
	else if (port - PORT_EVENTS < 16)
		events_write(&m->events, port - PORT_EVENTS, buf, len);
	else if (port == PORT_PVPANIC && *buf & 1)
		end_guest(m, VMM_PANIC);
	else if (port == PORT_I8042 && *buf == 0xfe)
		end_guest(m, VMM_REBOOT);
}

/*
 * The address of a PCI configuration access is remembered by KVM without an exit,
 * until one happens for another reason: that of the access itself, at the latest.
 */
static void take_coalesced(struct machine *m)
{
	struct kvm_coalesced_mmio_ring *r = m->coalesced;

	if (!r || r->first == __atomic_load_n(&r->last, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&m->coalesced_lock);
	while (r->first != __atomic_load_n(&r->last, __ATOMIC_ACQUIRE)) {
		const struct kvm_coalesced_mmio *c = &r->coalesced_mmio[r->first];

		port_write(m, (unsigned)c->phys_addr, c->data, MIN(c->len, 8u));
		__atomic_store_n(&r->first, (r->first + 1) % COALESCED_MAX, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&m->coalesced_lock);
}

static void port_exit(struct vcpu *c, struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	struct machine *m = c->m;

	c->stats.port++;
	c->stats.serial += run->io.port - PORT_SERIAL < 8;
	c->stats.pci += run->io.port - PORT_PCI_ADDRESS < 8;
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_IN)
			port_read(m, run->io.port, data, run->io.size);
		else
			port_write(m, run->io.port, data, run->io.size);
	}
}

static void memory_exit(struct machine *m, struct kvm_run *run)
{
	unsigned len = MIN(run->mmio.len, 8u);

	if (run->mmio.is_write)
		pci_memory_write(&m->pci, run->mmio.phys_addr, run->mmio.data, len);
	else if (!pci_memory_read(&m->pci, run->mmio.phys_addr, run->mmio.data, len))
		memset(run->mmio.data, 0xff, len);
}

/* ---- processors ---- */

static void explain_exit(struct vcpu *c)
{
	struct kvm_regs regs = { 0 };

	(void)ioctl(c->fd, KVM_GET_REGS, &regs);
	switch (c->run->exit_reason) {
	case KVM_EXIT_INTERNAL_ERROR:
		log_warnx("vCPU %u: KVM cannot go on (internal error %u) at %#llx", c->id,
			  c->run->internal.suberror, regs.rip);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		log_warnx("vCPU %u: the processor refused to enter the guest (reason %#llx) at %#llx",
			  c->id, c->run->fail_entry.hardware_entry_failure_reason, regs.rip);
		break;
	default:
		log_warnx("vCPU %u: unexpected exit %u at %#llx", c->id, c->run->exit_reason,
			  regs.rip);
		break;
	}
}

static void handle_exit(struct vcpu *c)
{
	struct machine *m = c->m;

	c->stats.exits++;
	take_coalesced(m);
	switch (c->run->exit_reason) {
	case KVM_EXIT_IO:
		port_exit(c, c->run);
		break;
	case KVM_EXIT_MMIO:
		c->stats.memory++;
		memory_exit(m, c->run);
		break;
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SHUTDOWN:
		end_guest(m, VMM_TRIPLE_FAULT);
		break;
	default:
		c->stats.other++;
		explain_exit(c);
		end_guest(m, VMM_ERROR);
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *c = arg;
	struct machine *m = c->m;

	if (m->config.confine)
		m->config.confine();
	while (!m->stopping && m->end == VMM_RUNNING) {
		if (ioctl(c->fd, KVM_RUN, 0) < 0) {
			/* EAGAIN: woken while it waits for its INIT */
			if (errno == EINTR || errno == EAGAIN)
				continue;
			log_warnx("vCPU %u: KVM_RUN: %m", c->id);
			end_guest(m, VMM_ERROR);
			break;
		}
		handle_exit(c);
	}
	return NULL;
}

void machine_stop(struct machine *m)
{
	m->stopping = true;
	for (unsigned i = 0; i < m->n_vcpus; i++) {
		struct vcpu *c = &m->vcpu[i];

		if (!c->running)
			continue;
		/* one of the two gets it out of KVM_RUN, or keeps it from going in */
		__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		pthread_kill(c->thread, STOP_SIGNAL);
	}
	for (unsigned i = 0; i < m->n_vcpus; i++) {
		if (m->vcpu[i].running)
			pthread_join(m->vcpu[i].thread, NULL);
		m->vcpu[i].running = false;
	}
}

/* ---- making and ending ---- */

static void serial_interrupt(void *arg, bool level)
{
	struct machine *m = arg;

	irq_line(&m->irq, GSI_SERIAL, level);
}

static int set_memory(struct machine *m, struct vdisk_error *err)
{
	const struct guest_memory *map = &m->config.ram->map;

	for (unsigned i = 0; i < map->n; i++) {
		struct kvm_userspace_memory_region r = {
			.slot = i, .guest_phys_addr = map->region[i].gpa,
			.memory_size = map->region[i].size,
			.userspace_addr = (uintptr_t)map->region[i].host,
		};

		if (ioctl(m->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
			return vd_fail(err, errno, "KVM_SET_USER_MEMORY_REGION: %m");
	}
	return 0;
}

static int make_vm(struct machine *m, struct vdisk_error *err)
{
	uint64_t identity = GUEST_IDENTITY_MAP;
	int r;

	do {
		m->vm_fd = ioctl(m->kvm_fd, KVM_CREATE_VM, 0ul);
	} while (m->vm_fd < 0 && errno == EINTR);
	if (m->vm_fd < 0)
		return vd_fail(err, errno, "KVM_CREATE_VM: %m");
	/* only Intel needs these two pages, and only some of it; others refuse or ignore */
	(void)ioctl(m->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	(void)ioctl(m->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)GUEST_TSS);
	if (ioctl(m->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return vd_fail(err, errno, "KVM_CREATE_IRQCHIP: %m");
	r = set_memory(m, err);
	if (!r)
		r = irq_init(&m->irq, m->vm_fd, err);
	m->irq_ready = !r;
	return r;
}

static int make_vcpu(struct machine *m, unsigned id, const struct kvm_cpuid2 *cpuid,
		     const struct boot_entry *entry, struct vdisk_error *err)
{
	struct vcpu *c = &m->vcpu[id];
	int fd = ioctl(m->vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
	void *run;

	if (fd < 0)
		return vd_fail(err, errno, "KVM_CREATE_VCPU %u: %m", id);
	run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED) {
		close(fd);
		return vd_fail(err, errno, "vCPU %u: mmap: %m", id);
	}
	*c = (struct vcpu) { .m = m, .id = id, .fd = fd, .run = run };
	m->n_vcpus++;
	return cpu_setup(fd, m->kvm_fd, cpuid, id, m->config.boot.vcpus, id ? NULL : entry, err);
}

/* Two exits for each access to PCI's configuration become one, where KVM can do it. */
static void coalesce_addresses(struct machine *m)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int at = ioctl(m->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
	struct kvm_coalesced_mmio_zone zone = { .addr = PORT_PCI_ADDRESS, .size = 4, .pio = 1 };

	if (at <= 0 || ((size_t)at + 1) * page > m->run_size ||
	    ioctl(m->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) <= 0 ||
	    ioctl(m->vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone) < 0)
		return;
	m->coalesced = (void *)((uint8_t *)m->vcpu[0].run + (size_t)at * page);
}

static int make_vcpus(struct machine *m, const struct boot_entry *entry, struct vdisk_error *err)
{
	AUTO_FREE struct kvm_cpuid2 *cpuid = NULL;
	int size = ioctl(m->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), r;

	if (size < (int)sizeof(struct kvm_run))
		return vd_fail(err, EIO, "KVM_GET_VCPU_MMAP_SIZE: %m");
	m->run_size = (size_t)size;
	r = cpu_supported(&cpuid, m->kvm_fd, err);
	for (unsigned i = 0; !r && i < m->config.boot.vcpus; i++)
		r = make_vcpu(m, i, cpuid, entry, err);
	if (!r)
		coalesce_addresses(m);
	return r;
}

/* ---- devices that come and go ---- */

static int plug(struct machine *m, struct virtio_device *dev, struct vdisk_error *err)
{
	int slot = virtio_pci_plug(&m->pci, dev, &m->irq, &m->config.ram->map, m->vm_fd, err);

	if (slot < 0)
		return slot;
	pthread_mutex_lock(&m->slot_lock);
	m->slot[slot] = dev;
	pthread_mutex_unlock(&m->slot_lock);
	return slot;
}

static int plug_devices(struct machine *m, struct vdisk_error *err)
{
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < m->config.n_devices; i++)
		r = plug(m, m->config.devices[i], err);
	return MIN(r, 0);
}

static int find_slot(struct machine *m, const struct virtio_device *dev)
{
	int found = -ENOENT;

	pthread_mutex_lock(&m->slot_lock);
	for (int i = 1; i < PCI_SLOTS; i++)
		if (m->slot[i] == dev)
			found = i;
	pthread_mutex_unlock(&m->slot_lock);
	return found;
}

int machine_plug(struct machine *m, struct virtio_device *dev, struct vdisk_error *err)
{
	int slot = plug(m, dev, err);

	if (slot < 0)
		return slot;
	events_plugged(&m->events, (unsigned)slot);
	return 0;
}

int machine_unplug(struct machine *m, const struct virtio_device *dev, struct vdisk_error *err)
{
	int slot = find_slot(m, dev);

	if (slot < 0)
		return vd_fail(err, ENOENT, "the device is not plugged in");
	events_want_back(&m->events, (unsigned)slot);
	return 0;
}

void machine_config_changed(struct machine *m, const struct virtio_device *dev)
{
	int slot = find_slot(m, dev);

	if (slot > 0)
		virtio_pci_config_changed(&m->pci, (unsigned)slot);
}

void machine_power_button(struct machine *m)
{
	events_power_button(&m->events);
}

/* The guest gives a slot back, asked or not: it is its machine. */
static void slot_ejected(void *arg, unsigned slot)
{
	struct machine *m = arg;
	struct virtio_device *dev;

	if (!slot || slot >= PCI_SLOTS)
		return;
	pthread_mutex_lock(&m->slot_lock);
	dev = m->slot[slot];
	m->slot[slot] = NULL;
	pthread_mutex_unlock(&m->slot_lock);
	if (!dev)
		return;
	pci_unplug(&m->pci, slot);
	if (m->config.unplugged)
		m->config.unplugged(m->config.unplugged_arg, dev);
}

int machine_new(struct machine **out, int kvm_fd, const struct machine_config *config,
		struct vdisk_error *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct serial_host host = { .interrupt = serial_interrupt, .arg = m };
	struct boot_entry entry;
	int r;

	if (!m)
		return vd_fail(err, ENOMEM, "out of memory");
	m->kvm_fd = kvm_fd;
	m->vm_fd = -1;
	m->end = VMM_RUNNING;
	m->config = *config;
	pci_bus_init(&m->pci);
	pthread_mutex_init(&m->slot_lock, NULL);
	pthread_mutex_init(&m->coalesced_lock, NULL);
	events_init(&m->events, &m->irq, slot_ejected, m);
	m->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = m->end_fd < 0 ? vd_fail(err, errno, "eventfd: %m") : 0;
	if (!r)
		r = make_vm(m, err);
	if (!r)
		r = plug_devices(m, err);
	if (!r)
		r = boot_load(&config->ram->map, &config->boot, &entry, err);
	if (!r)
		r = make_vcpus(m, &entry, err);
	if (r < 0) {
		machine_free(m);
		return r;
	}
	serial_attach(config->serial, &host);
	*out = m;
	return 0;
}

static void wake_up(int signal)
{
	(void)signal;		/* its arrival is all that matters */
}

int machine_start(struct machine *m, struct vdisk_error *err)
{
	struct sigaction action = { .sa_handler = wake_up };

	sigemptyset(&action.sa_mask);
	sigaction(STOP_SIGNAL, &action, NULL);
	for (unsigned i = 0; i < m->n_vcpus; i++) {
		int r = pthread_create(&m->vcpu[i].thread, NULL, vcpu_thread, &m->vcpu[i]);

		if (r)
			return vd_fail(err, r, "vCPU %u: cannot start a thread: %s", i, strerror(r));
		m->vcpu[i].running = true;
	}
	return 0;
}

int machine_end_fd(const struct machine *m)
{
	return m->end_fd;
}

enum vmm_end machine_end(const struct machine *m)
{
	return (enum vmm_end)m->end;
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	machine_stop(m);
	serial_detach(m->config.serial);
	pci_bus_destroy(&m->pci);	/* which stops the devices */
	events_destroy(&m->events);
	pthread_mutex_destroy(&m->slot_lock);
	pthread_mutex_destroy(&m->coalesced_lock);
	for (unsigned i = 0; i < m->n_vcpus; i++) {
		munmap(m->vcpu[i].run, m->run_size);
		close(m->vcpu[i].fd);
	}
	if (m->irq_ready)
		irq_destroy(&m->irq);
	if (m->vm_fd >= 0)
		close(m->vm_fd);
	if (m->end_fd >= 0)
		close(m->end_fd);
	free(m);
}

void machine_stats(const struct machine *m, struct machine_stats *out)
{
	*out = (struct machine_stats) { 0 };
	for (unsigned i = 0; i < m->n_vcpus; i++) {
		out->exits += m->vcpu[i].stats.exits;
		out->port += m->vcpu[i].stats.port;
		out->serial += m->vcpu[i].stats.serial;
		out->pci += m->vcpu[i].stats.pci;
		out->memory += m->vcpu[i].stats.memory;
		out->other += m->vcpu[i].stats.other;
	}
}
