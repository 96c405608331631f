/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle.h - how often an address may try to log in
 *
 * Two token buckets an address: of connections, each of which is a login tried,
 * and of logins that failed.  An IPv6 host owns its /64, so that is its address
 * here.  There is room for a fixed number of addresses; the one that was quiet
 * for longest makes room.
 */
#ifndef ISCSI_THROTTLE_H
#define ISCSI_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

/* What a server takes; 0: no limit, or never. */
struct iscsi_limits {
	uint32_t sessions, sessions_per_initiator;
	uint32_t logins_per_second;		/* from one address */
	uint32_t failed_logins_per_minute;	/* likewise */
	uint32_t pending_logins;		/* likewise, at once */
	uint32_t login_timeout;			/* seconds, for all of it */
	uint32_t nop_interval, nop_timeout;	/* seconds */
};

struct iscsi_throttle;

/* NULL: no memory */
struct iscsi_throttle *iscsi_throttle_new(void);
void iscsi_throttle_free(struct iscsi_throttle *t);

/*
 * A connection from @address at @now_ms: may it go on?  Bursts of two seconds'
 * worth are taken.
 */
bool iscsi_throttle_login(struct iscsi_throttle *t, const uint8_t address[16], uint64_t now_ms,
			  const struct iscsi_limits *limits);
/* A login from there failed. */
void iscsi_throttle_failed(struct iscsi_throttle *t, const uint8_t address[16], uint64_t now_ms,
			   const struct iscsi_limits *limits);

#endif
