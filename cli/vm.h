/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vm.h - guests that run, and where they are found
 *
 * Each has a name, and in the directory "vm" of the runtime directory (running.h) two files
 * that nobody else may read:
 *
 *	NAME.sock	its control socket (vmm-lite(8)); nobody answers: it is dead
 *	NAME.json	what it was started with, for when it cannot be asked any more
 */
#ifndef CLI_VM_H
#define CLI_VM_H

#include "cli/cli.h"

enum { VM_NAME_MAX = 60 };

/* A name for a guest: letters, digits, - and _. */
bool vm_name_ok(const char *name);

struct vm_entry {
	char *name;		/* owned, like the rest */
	char *socket, *info;	/* paths */
	int listen_fd;		/* -1 */
};

/*
 * Register a guest under @name, or one made from @locator (NULL name), which is
 * made unique.  CLI_OK (without a socket, and a note, where there is no runtime
 * directory); or CLI_FAILED and a message, also if it runs already.
 */
int vm_register(struct vm_entry *out, const char *name, const char *locator);
void vm_unregister(struct vm_entry *e);

/* Connect to a guest: a descriptor, -ENOENT if there is none, -ECONNREFUSED if it is dead. */
int vm_connect(const char *name);
/* The names of all, dead ones too; free each and the list.  NULL-terminated. */
char **vm_names(void);
/* What is known of a guest that does not answer; NULL: nothing. */
json_t *vm_info(const char *name);
/* Remove what a dead guest has left. */
void vm_forget(const char *name);

/* ---- vm.c ---- */

enum { VM_FILES_MAX = 64 };

/* One request (taken) with descriptors: CLI_OK and its answer (NULL: unwanted), or a message. */
int vm_ask(json_t **answer, const char *name, json_t *request, const int *fds, unsigned n_fds);

/* ---- vm_attach.c ---- */

int vm_attach(int argc, char **argv);

#endif
