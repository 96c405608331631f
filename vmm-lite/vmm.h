/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmm.h - the process: one guest, its disks, and who talks to it */
#ifndef VMM_VMM_H
#define VMM_VMM_H

#include <pthread.h>
#include <time.h>

#include "vmm-lite/console.h"
#include "vmm-lite/control.h"
#include "vmm-lite/keeper.h"
#include "vmm-lite/kvm/machine.h"
#include "vmm-lite/options.h"
#include "vmm-lite/passed.h"
#include "vmm-lite/sandbox.h"

struct vmm_disk {
	char id[16];			/* "disk0", never used twice */
	char *locator, *format, *serial; /* owned; format NULL: found by probing */
	struct vdisk *disk;		/* owned; NULL: it is isolated */
	struct keeper_ends ends;	/* isolated: until there is a device */
	struct virtio_device *dev;	/* owned; NULL: not yet */
	struct virtio_device *front;	/* isolated: in, or the same as, ->dev */
	const char *cache;		/* its mode; a constant */
	bool read_only, write_through, snapshot;
	bool later;			/* attached to the running guest */
	bool left;			/* isolated, and left to the guest's next life */
	uint32_t block_size;		/* 0: the disk's own */
	bool keep_raw;			/* see struct blk_options */
	struct blk_limits limits;
	bool leaving;			/* the guest was asked to give it back */
	_Atomic bool gone;		/* it has */
	bool ending;			/* isolated: its process is writing out what it holds */
	_Atomic bool changed;		/* isolated: its size has, tell the guest */
	_Atomic bool renewed;		/* ... there is a new process, tell it the limits */
	struct console *console;	/* borrowed: to wake the main thread */
};

struct vmm {
	struct options options;
	struct keeper_ends ends[DISKS_MAX];	/* of the disks of the command line */
	int kvm_fd, kernel_fd, initrd_fd;	/* owned */
	pthread_mutex_t disks_lock;		/* guards disk[] against vCPU threads */
	struct vmm_disk *disk[DISKS_MAX];	/* owned; in the order of the guest's slots */
	unsigned n_disks, next_id;
	struct virtio_device *rng;		/* owned */
	struct virtio_device *balloon;		/* owned */
	struct virtio_device *ports;		/* owned; NULL: none */
	struct virtio_device *vconsole;		/* owned; NULL: the console is COM1 */
	struct virtio_device *nic[NICS_MAX];	/* owned */
	struct ram ram;				/* owned */
	struct serial serial;
	struct console console;
	struct control control;
	struct sandbox_state sandbox;
	struct machine *machine;		/* owned; NULL between two lives */
	unsigned lives;
	struct timespec started;
	time_t looked;				/* for disks that have grown */
};

/* ---- disks.c ---- */

/* Open a disk of the command line, without a device yet. */
int disk_add(struct vmm *v, const struct disk_option *o, struct vdisk_error *err);
/* Make its device. */
int disk_start(struct vmm *v, struct vmm_disk *d, struct vdisk_error *err);
/* What differs between isolated disks and others. */
int disk_stats(struct vmm_disk *d, struct blk_stats *out);
int disk_limit(struct vmm_disk *d, const struct blk_limits *limits, struct vdisk_error *err);
int disk_resize(struct vmm_disk *d, uint64_t bytes, struct vdisk_error *err);
struct passed_about disk_about(const struct vmm_disk *d);
uint64_t disk_bytes(const struct vmm_disk *d);
bool disk_read_only(const struct vmm_disk *d);
/* One queue for each vCPU that can run at once. */
unsigned disk_queues(const struct options *o);
struct vmm_disk *disk_find(struct vmm *v, const char *id);
/*
 * Free those that the guest has given back, but for those whose process is not done (or @wait
 * for it); tell the guest what has changed.
 */
void disks_reap(struct vmm *v, bool wait);
/* Those that somebody else has made larger; at most once a second. */
void disks_look_for_growth(struct vmm *v);
/*
 * Close one, or all: what cannot be written out is an error, and told.  -EAGAIN after @wait_ms
 * (-1: for ever): its process is still writing, and all is as it was.
 */
int disk_remove(struct vmm *v, struct vmm_disk *d, int wait_ms, struct vdisk_error *err);
int disks_close(struct vmm *v, struct vdisk_error *err);

/* One whose files came with a request (attach-disk) or were left by the life before. */
int disk_add_passed(struct vmm *v, struct control_call *call, struct vdisk_error *err);

/* ---- carry.c ---- */

/* Leave word of the disks for the process of the guest's next life. */
void carry_out(struct vmm *v);
/* Take over what the one before left. */
int carry_in(struct vmm *v, struct vdisk_error *err);

/* ---- requests.c: the commands of the control socket ---- */

int vmm_serve(void *vmm, const char *command, struct control_call *call, struct vdisk_error *err);

#endif
