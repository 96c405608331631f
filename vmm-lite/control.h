/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control.h - the socket by which a running guest is asked and told
 *
 * A stream socket; a request is one line with a JSON object, and so is its
 * answer (vmm-lite(8), CONTROL SOCKET).  Descriptors travel with the line that
 * they belong to.  Whoever can open the socket may do anything with the guest:
 * the directory's permissions are the access list.  All of it is served by the
 * main thread, which never waits for a client.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <jansson.h>
#include <poll.h>

#include "vdisk.h"
#include "vmm-lite/end.h"

#define CONTROL_VERSION		1
#define CONTROL_CLIENTS_MAX	8u
#define CONTROL_LINE_MAX	65536u
#define CONTROL_FDS_MAX		64u

struct control_client {
	int fd;			/* owned; -1: free */
	size_t used;
	unsigned n_fds;
	int fds[CONTROL_FDS_MAX]; /* owned until the request takes them (-1) */
	char *line;		/* owned: CONTROL_LINE_MAX */
};

/* What a request may use beside its text. */
struct control_call {
	json_t *request;	/* borrowed: an object */
	int *fds;		/* one that is taken is set to -1 */
	unsigned n_fds;
	json_t *answer;		/* borrowed: an object to add to */
	bool console;		/* out: from now on the connection is the guest's console */
};

struct control {
	int listen_fd;		/* borrowed; -1: no control socket */
	enum vmm_end asked;	/* by kill or reset, for console_run(); else VMM_RUNNING */
	struct control_client client[CONTROL_CLIENTS_MAX];
	/* Every other command.  0, or -errno and why in @err. */
	int (*serve)(void *arg, const char *command, struct control_call *call,
		     struct vdisk_error *err);
	/* A connection that asked for the console; takes @fd. */
	void (*console)(void *arg, int fd);
	void *arg;
};

void control_init(struct control *c, int listen_fd);
/* A command and its function, which gets ->arg. */
struct control_command {
	const char *name;
	int (*serve)(void *arg, struct control_call *call, struct vdisk_error *err);
};

/* Find the command in a table of @n, and serve it. */
int control_serve(const struct control_command *table, size_t n, void *arg, const char *command,
		  struct control_call *call, struct vdisk_error *err);
void control_destroy(struct control *c);

/* Fill in CONTROL_CLIENTS_MAX + 1 entries for poll(); then look at what it found. */
void control_poll(const struct control *c, struct pollfd *fds);
void control_handle(struct control *c, const struct pollfd *fds);

/*
 * Serve one line, as read from a client: the answer, to be freed.  Pure but for
 * what ->serve does.
 */
char *control_line(struct control *c, const char *line, size_t len, int *fds, unsigned n_fds,
		   bool *console);

#endif
