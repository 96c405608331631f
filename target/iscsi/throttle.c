/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* throttle.c - see throttle.h */
#include <string.h>

#include "core/compiler.h"
#include "target/iscsi/chap.h"
#include "target/iscsi/throttle.h"

#define SETS	256u
#define WAYS	4u
#define TOKEN	60000u		/* a token, in the units that a millisecond's refill has */

struct bucket {
	uint8_t address[16];
	uint64_t at;		/* ms: when tokens were last given back; 0: not in use */
	uint64_t logins, failures;	/* tokens that are taken */
};

struct iscsi_throttle {
	uint64_t key;		/* of the hash: nobody chooses their neighbours */
	struct bucket bucket[SETS][WAYS];
};

struct iscsi_throttle *iscsi_throttle_new(void)
{
	struct iscsi_throttle *t = calloc(1, sizeof(*t));

	if (t)
		iscsi_chap_random(&t->key, sizeof(t->key));
	return t;
}

void iscsi_throttle_free(struct iscsi_throttle *t)
{
	free(t);
}

/* The part of the address that names a host. */
static void host_of(uint8_t out[16], const uint8_t address[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	memcpy(out, address, 16);
	if (memcmp(address, mapped, sizeof(mapped)) != 0)
		memset(out + 8, 0, 8);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static struct bucket *bucket_of(struct iscsi_throttle *t, const uint8_t address[16], uint64_t now)
{
	struct bucket *set, *oldest;
	uint8_t host[16];

	host_of(host, address);
	set = t->bucket[mix(mix(t->key, load_be64(host)), load_be64(host + 8)) % SETS];
	oldest = &set[0];
	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i].at && !memcmp(set[i].address, host, sizeof(host)))
			return &set[i];
		if (set[i].at < oldest->at)
			oldest = &set[i];
	}
	memcpy(oldest->address, host, sizeof(host));
	oldest->at = now;
	oldest->logins = oldest->failures = 0;
	return oldest;
}

/* What time gives back; with no limit, there is nothing to remember. */
static uint64_t given_back(uint64_t taken, uint64_t ms, uint64_t a_millisecond)
{
	return a_millisecond ? taken - MIN(taken, ms * a_millisecond) : 0;
}

static struct bucket *fill(struct iscsi_throttle *t, const uint8_t address[16], uint64_t now,
			   const struct iscsi_limits *l)
{
	struct bucket *b = bucket_of(t, address, now ? now : 1);
	uint64_t ms = now > b->at ? MIN(now - b->at, (uint64_t)60000) : 0;

	b->logins = given_back(b->logins, ms, (uint64_t)l->logins_per_second * (TOKEN / 1000));
	b->failures = given_back(b->failures, ms,
				 (uint64_t)l->failed_logins_per_minute * (TOKEN / 60000));
	b->at = MAX(b->at, now);
	return b;
}

bool iscsi_throttle_login(struct iscsi_throttle *t, const uint8_t address[16], uint64_t now,
			  const struct iscsi_limits *l)
{
	struct bucket *b = fill(t, address, now, l);

	if (l->failed_logins_per_minute &&
	    b->failures + TOKEN > (uint64_t)l->failed_logins_per_minute * TOKEN)
		return false;
	if (!l->logins_per_second)
		return true;
	if (b->logins + TOKEN > 2ull * l->logins_per_second * TOKEN)
		return false;
	b->logins += TOKEN;
	return true;
}

void iscsi_throttle_failed(struct iscsi_throttle *t, const uint8_t address[16], uint64_t now,
			   const struct iscsi_limits *l)
{
	struct bucket *b = fill(t, address, now, l);

	b->failures = MIN(b->failures + TOKEN, (uint64_t)l->failed_logins_per_minute * TOKEN);
}
