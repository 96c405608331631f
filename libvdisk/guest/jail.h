/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * jail.h - read a guest's disk in a child process that can do nothing else
 *
 * What a guest has on its disk - partition tables, file systems, configuration
 * - is parsed by code that may have bugs.  jail_run() runs it in a child that
 * has no file, no network, no way to start anything: only memory, processor
 * time, and one socket to us, over which it asks for the disk's bytes and
 * sends messages back.
 *
 * The child's disk is a copy for it alone: what it writes (a journal's replay)
 * goes into a throw-away layer and is gone afterwards.
 */
#ifndef VD_GUEST_JAIL_H
#define VD_GUEST_JAIL_H

#include "guest/lent.h"

enum {
	JAIL_MESSAGE_MAX = 1 << 20,	/* bytes of a message's body */
	JAIL_ANSWER_MAX = 256 << 10,	/* bytes of an answer about a lent file system */
};

struct jail;

struct jail_opts {
	/* in the child; its result and @err become those of jail_run() */
	int (*inside)(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err);
	/*
	 * In the parent, for each message; a negative result ends the child and
	 * becomes that of jail_run().  @data is untrusted: its sender may have
	 * been taken over by what it read.
	 */
	int (*receive)(void *arg, uint32_t type, const void *data, size_t len,
		       struct vdisk_error *err);
	void *arg;		/* for both; the child has a copy */
	const struct vd_lent_fs *lent;	/* borrowed: what the parent reads for the child */
	unsigned n_lent;
	unsigned seconds;	/* of processor time; a slow machine or disk may take five times as long */
	const char *what;	/* for messages: "boot" */
};

int jail_run(struct vdisk *disk, const struct jail_opts *opts, struct vdisk_error *err);

/* In the child: send a message, whose type is the caller's business. */
int jail_send(struct jail *jail, uint32_t type, const void *data, size_t len);
/* In the child: what the parent answers about a lent file system; bytes in @buf, or -errno. */
ssize_t jail_ask(struct jail *jail, const void *question, size_t len, void *buf, size_t size);
/* In the child: the lent file systems, @n. */
const struct vd_lent_fs *jail_lent(const struct jail *jail, unsigned *n);

/* For the tests: what happens to the child when it makes system call @call. */
enum jail_verdict {
	JAIL_KILLS,
	JAIL_REFUSES,		/* -EACCES */
	JAIL_ALLOWS,
	JAIL_JUDGES,		/* by its arguments: it is allowed or kills */
};
enum jail_verdict jail_verdict(int call);

#endif
