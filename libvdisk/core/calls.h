/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* calls.h - what tables of system calls are made into */
#ifndef VD_CORE_CALLS_H
#define VD_CORE_CALLS_H

#include <seccomp.h>
#include <stdint.h>

/*
 * Let the filter pass @call; with a @mask only where argument number @arg, masked, is
 * @value.  0 or -errno.
 */
int vd_allow_call(scmp_filter_ctx filter, int call, unsigned arg, uint64_t mask, uint64_t value);

#endif
