/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uml.h - the process that looks after a guest on User-Mode Linux
 *
 * The kernel is a child, and so is each network card's server; each disk's vdisk-vhost is
 * the keeper's (keeper.h), and reached through a relay.  They meet in sockets in a private
 * directory: UML's driver of vhost-user connects to a name, one for each of its devices,
 * and those that are to be plugged in later have their names from the beginning
 * ("slots").  What has to be done inside
 * the guest - take or give back a device, power off - is asked of the agent, which is
 * what our first process leaves behind (init.c), on a console of its own.
 */
#ifndef VMM_UML_UML_H
#define VMM_UML_UML_H

#include <time.h>

#include "vmm-lite/console.h"
#include "vmm-lite/control.h"
#include "vmm-lite/keeper.h"
#include "vmm-lite/options.h"
#include "vmm-lite/sandbox.h"
#include "vmm-lite/uml/line.h"
#include "vmm-lite/vhost/lines.h"
#include "vmm-lite/vhost/relay.h"

#define UML_SPARE_SLOTS		8u
#define UML_SLOTS_MAX		(DISKS_MAX + NICS_MAX + UML_SPARE_SLOTS)
#define UML_AGENT_TTY		13u	/* the agent's console */
#define UML_PORT_TTY		14u	/* the first that is a port */

struct uml_disk {
	char id[16];		/* "disk0", never used twice */
	unsigned slot;
	char *locator, *format, *serial; /* owned; format NULL: found by probing */
	char *secret_locator;	/* owned: with what locator, which is shown, leaves out */
	enum cache_mode cache;
	uint32_t block_size;
	bool keep_raw;
	pthread_mutex_t lock;	/* guards ->limits against the relay's thread */
	struct blk_limits limits;
	bool read_only, snapshot;
	bool later;		/* attached to the running guest */
	bool leaving;		/* the guest was asked to give it back */
	bool left;		/* to the guest's next life */
	bool lost;		/* its process died for good: each request fails */
	uint64_t bytes;		/* as its process last said */
	struct keeper_ends ends; /* owned, but for ->control, which is ->lines' */
	struct relay *relay;	/* owned */
	struct vhost_lines lines;
};

struct uml_nic {
	pid_t pid;
	unsigned slot;
};

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_LOST };

struct uml {
	struct options options;
	char dir[92];		/* private; "" before it exists */
	pid_t sweeper;		/* who removes it; 0: nobody has to */
	int sweeper_fd;		/* owned: shut down, it does */
	struct keeper_ends ends[DISKS_MAX];	/* of the disks of the command line */
	enum slot_state slot[UML_SLOTS_MAX];
	unsigned n_slots;
	struct uml_disk *disk[DISKS_MAX];	/* owned */
	unsigned n_disks, next_id;
	struct uml_nic nic[NICS_MAX];
	unsigned n_nics;
	struct line line;
	struct console console;
	struct control control;
	int watch_fd;		/* owned: an epoll set of the agent and the disks' relays */
	int agent_fd;		/* owned: our end of its console */
	char heard[128];	/* the beginning of a line of the agent's */
	size_t n_heard;
	bool agent_ready;
	pid_t kernel;		/* 0: it does not run */
	int kernel_fd;		/* owned: its process descriptor */
	int start[2];		/* owned: to its process while that waits, and its own end */
	struct sandbox_state sandbox;	/* the kernel's */
	bool disks_failed;	/* one could not write out what it held */
	struct timespec started;
};

/* ---- disks.c ---- */

/* Put a disk, which has a keeper, on a slot.  @later: for a guest that runs; takes its ends. */
int uml_disk_add(struct uml *u, const struct disk_option *o, bool later, struct vdisk_error *err);
struct uml_disk *uml_disk_find(struct uml *u, const char *id);
/* What its process says.  -errno: there is none, or it does not answer. */
int uml_disk_stats(struct uml_disk *d, struct blk_stats *out);
int uml_disk_limit(struct uml_disk *d, const struct blk_limits *limits, struct vdisk_error *err);
/* Its relay has something to say: the guest has let go of it, its process has ended ... */
void uml_disk_changed(struct uml *u, struct uml_disk *d);
/* Take a disk from the list, and wait for its process. */
void uml_disk_remove(struct uml *u, struct uml_disk *d);
/* The guest is gone: all processes end, with what they have to write. */
void uml_disks_finish(struct uml *u);
/* The socket's path of a slot. */
void uml_slot_path(const struct uml *u, unsigned slot, char out[108]);
int uml_listen(const char *path, struct vdisk_error *err);

/* ---- dir.c ---- */

/* The directory, and the process that removes it; while there is one thread. */
int uml_dir_make(struct uml *u, struct vdisk_error *err);
/* Now, with all that is in it; if we are killed, then. */
void uml_dir_remove(struct uml *u);

/* ---- nics.c ---- */

int uml_nic_add(struct uml *u, const struct nic_option *o, struct vdisk_error *err);
void uml_nics_finish(struct uml *u);

/* ---- kernel.c ---- */

/* Its process, which waits; while there is one thread.  @agent: the agent's end of its console. */
int uml_kernel_prepare(struct uml *u, int agent, struct vdisk_error *err);
/* Let it run: all its sockets listen. */
int uml_kernel_start(struct uml *u, struct vdisk_error *err);
/* It has ended, or shall: how it has. */
enum vmm_end uml_kernel_end(struct uml *u, bool kill_it);
/* Tell the agent; -ENOTCONN: there is none. */
int uml_agent_tell(struct uml *u, const char *fmt, ...) PRINTF_FMT(2, 3);
void uml_agent_hear(struct uml *u);

/* ---- requests.c ---- */

int uml_serve(void *uml, const char *command, struct control_call *call, struct vdisk_error *err);
void uml_carry_out(struct uml *u);
int uml_carry_in(struct uml *u, struct vdisk_error *err);

#endif
