/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* beside.h - where the other files of this package are */
#ifndef VD_CORE_BESIDE_H
#define VD_CORE_BESIDE_H

#include <limits.h>

/*
 * The path of a file, there or not, seen from the directory of the program that runs:
 * "NAME", or "../DIRECTORY/NAME".  0 or -errno.
 */
int vd_beside(char out[PATH_MAX], const char *name);

#endif
