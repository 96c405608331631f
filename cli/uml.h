/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uml.h - what engine_uml.c runs User-Mode Linux with */
#ifndef CLI_UML_H
#define CLI_UML_H

#include "cli/guest.h"

/* The path of UML's kernel, to be freed; prints where to get it. */
int uml_kernel(char **out);

/*
 * An initramfs in a sealed memory file, owned by the caller: our init, modules,
 * and what it is to do with the guest's disks.
 */
int uml_initramfs(int *out, const struct guest *g);

#endif
