/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* userns.h - who we are in a user namespace of our own */
#ifndef VMM_USERNS_H
#define VMM_USERNS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Just entered a new user namespace: the same numbers inside as outside, @uid and @gid
 * as they were before, so that files look as before.
 */
bool userns_map(uid_t uid, gid_t gid);

#endif
