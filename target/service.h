/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* service.h - what a server has to do with the system that it runs on */
#ifndef TARGET_SERVICE_H
#define TARGET_SERVICE_H

#include "vdisk.h"

/*
 * Take these signals (0 ends the list) through a descriptor (owned by the
 * caller), for all threads that are started later; or -errno.
 */
int service_signals(const int *signals);
/* As many descriptors as the system allows. */
void service_raise_limits(void);
/* Nothing of this process' memory is ever written to a file or read by others. */
void service_no_core(void);

/* ---- the service manager (sd_notify(3)) ---- */

/* Before the sandbox; without NOTIFY_SOCKET, nothing of this does anything. */
void notify_open(void);
/* "READY=1" and the like; several lines may be in it. */
void notify(const char *state);

/* ---- jobs: what may block, on a thread of its own ---- */

struct reactor;
struct service_job {
	void (*run)(struct service_job *job);	/* on the thread */
	void (*done)(struct service_job *job);	/* on the reactor's, later; may free it */
	struct service_job *next;
};
int service_jobs_open(struct reactor *r, struct vdisk_error *err);
/* All jobs must be done. */
void service_jobs_close(void);
/* At once, if no thread can be started. */
void service_job_start(struct service_job *job);
unsigned service_jobs(void);

#endif
